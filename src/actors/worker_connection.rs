//! Connections of workers: each accepted socket, from its first byte to its end.
//! Nobody is let in who does not prove to be a configured worker.
//!
//! A connection is two tasks, a reader and a writer, and no actor: thousands of
//! them are idle, and each frame would pass one more mailbox. See
//! `docs/decisions/0120-a-connection-is-no-actor.md`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::Recipient;
use tokio::io::{AsyncRead, AsyncWrite};

mod first;
mod handshake;
mod lines;
mod patience;
mod reading;
mod writing;

pub(super) use first::ABILITIES;

use super::runtime::World;
use super::strangers::{Pass, Place, Strangers, Turn};
use crate::core::ids::*;
use crate::messages::*;
use handshake::Caller;

/// Makes connections out of accepted sockets.
#[derive(Clone)]
pub struct Greeter {
    /// The doors to the world.
    pub world: World,
    /// Who knows the workers.
    pub master: Recipient<Introduce>,
    sessions: Arc<AtomicU64>,
    strangers: Strangers,
}

impl Greeter {
    /// A greeter.
    #[must_use]
    pub fn new(world: World, master: Recipient<Introduce>) -> Self {
        let strangers = Strangers::new(world.limits);
        Self { world, master, sessions: Arc::new(AtomicU64::new(1)), strangers }
    }

    /// A place for one more connection; waits until there is one.
    pub async fn place(&self) -> Option<Place> {
        self.strangers.place().await
    }

    /// Takes care of an accepted socket from now on, as soon as it is its turn
    /// among those of its address.
    pub fn admit<S>(&self, stream: S, from: SocketAddr, place: Place)
    where
        S: AsyncRead + AsyncWrite + 'static,
    {
        match self.strangers.admit(from.ip(), place) {
            Turn::Now(pass) => self.talk(stream, from.to_string(), pass),
            Turn::Later(waiting) => {
                let greeter = self.clone();
                actix_rt::spawn(async move {
                    let pass = waiting.turn().await;
                    greeter.talk(stream, from.to_string(), pass);
                });
            }
            Turn::Never => {
                self.world.board.count_ignored("connection beyond the limit of its address");
                tracing::debug!(address = %from, "too many connections of this address wait");
            }
        }
    }

    /// As [`Greeter::admit`], for a socket that no limit counts.
    pub fn greet<S>(&self, stream: S, address: String)
    where
        S: AsyncRead + AsyncWrite + 'static,
    {
        self.talk(stream, address, Pass::free());
    }

    fn talk<S>(&self, stream: S, address: String, pass: Pass)
    where
        S: AsyncRead + AsyncWrite + 'static,
    {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let limits = self.world.limits;
        let (link, lines) = WorkerLink::new(session, limits.outgoing_frames, limits.outgoing_bytes);
        link.heard_at(self.world.clock.now().mono);
        let ip = address.parse::<SocketAddr>().ok().map(|address| address.ip());
        let limited = ip.filter(|ip| self.strangers.is_limited(*ip));
        let caller = Caller {
            master: self.master.clone(),
            address,
            limited: limited.map(|ip| ip.to_canonical().to_string()),
            pass,
        };
        let (reader, writer) = tokio::io::split(stream);
        actix_rt::spawn(writing::write_lines(writer, lines, link.clone()));
        actix_rt::spawn(reading::read_lines(reader, link, Box::new(caller), self.world.clone()));
    }
}
