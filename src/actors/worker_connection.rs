//! The WorkerConnection actor: one accepted socket, from its first byte to its
//! end. It lets nobody in who does not prove to be a configured worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::fut::{ActorFutureExt, ready, wrap_future};
use actix::{Actor, ActorContext, AsyncContext, Handler, Recipient};
use tokio::io::{AsyncRead, AsyncWrite};

mod first;
mod reading;
mod writing;

pub(super) use first::ABILITIES;

use super::runtime::World;
use super::strangers::{Pass, Place, Strangers, Turn};
use crate::actors::context::Context;
use crate::core::ids::*;
use crate::messages::*;
use crate::protocol::json_v1::{Attach as AttachFrame, MasterFrame, WorkerFrame};

/// Silence of this many heartbeats ends a connection.
const DEAD_AFTER: u32 = 3;
/// A wrong name and a wrong token are answered after this time, whatever was
/// wrong, so that the time tells nothing (fault row FN06).
const WRONG_AFTER: Duration = Duration::from_millis(200);

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
        let connection = Context::new().run(WorkerConnection {
            world: self.world.clone(),
            master: self.master.clone(),
            link: link.clone(),
            address,
            limited: limited.map(|ip| ip.to_canonical().to_string()),
            stranger: Some(pass),
            worker: None,
        });
        let (reader, writer) = tokio::io::split(stream);
        actix_rt::spawn(writing::write_lines(writer, lines, link.clone()));
        actix_rt::spawn(reading::read_lines(reader, link, connection, self.world.clone()));
    }
}

/// One accepted socket.
pub struct WorkerConnection {
    world: World,
    master: Recipient<Introduce>,
    link: WorkerLink,
    address: String,
    /// Its address, when what comes from there is limited.
    limited: Option<String>,
    /// Its place, until it has proved to be a worker.
    stranger: Option<Pass>,
    worker: Option<Arc<WorkerHandle>>,
}

/// A frame that is not text of a log.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Arrived(WorkerFrame);

/// The socket came to its end.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Ended(String);

impl Actor for WorkerConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(self.world.timers.handshake, |connection, _| {
            if connection.worker.is_none() {
                connection.reject(&Rejection {
                    code: "auth",
                    message: "no attach frame in time".into(),
                    retry_after_s: Some(30),
                    wrong: false,
                });
            }
        });
        let heartbeat = self.world.timers.heartbeat;
        ctx.run_interval(heartbeat, move |connection, _| {
            let silent = connection.world.clock.now().mono.since(connection.link.last_heard());
            let beat = connection.link.beat().unwrap_or(heartbeat);
            if silent >= beat * DEAD_AFTER && !connection.link.is_held() {
                connection.link.close("nothing was heard of it");
            }
        });
    }
}

impl WorkerConnection {
    fn reject(&self, rejection: &Rejection) {
        tracing::warn!(address = %self.address, code = rejection.code, reason = %rejection.message, "worker turned away");
        self.world.board.count_ignored("worker turned away");
        self.link.send(&MasterFrame::Rejected {
            code: rejection.code.into(),
            message: rejection.message.clone(),
            retry_after_s: rejection.retry_after_s,
        });
        self.link.close(&rejection.message);
    }

    fn introduced(&mut self, mut attach: AttachFrame, worker: Arc<WorkerHandle>) {
        attach.token.clear();
        worker.hello.do_send(Hello {
            attach: Box::new(attach),
            link: self.link.clone(),
            address: self.address.clone(),
        });
        self.worker = Some(worker);
        self.stranger = None;
    }
}

impl Handler<Arrived> for WorkerConnection {
    type Result = actix::ResponseActFuture<Self, ()>;

    /// The reader waits for this answer before it reads on, so a worker that
    /// floods waits in its own socket.
    fn handle(&mut self, message: Arrived, _: &mut Context<Self>) -> Self::Result {
        if let Some(worker) = &self.worker {
            worker.frame.do_send(FrameArrived { session: self.link.session, frame: message.0 });
            return Box::pin(ready(()));
        }
        let attach = match first::look_at(message.0) {
            Ok(attach) => attach,
            Err(rejection) => {
                self.reject(&rejection);
                return Box::pin(ready(()));
            }
        };
        let ask = Introduce {
            name: attach.name.clone(),
            token: attach.token.clone(),
            address: self.address.clone(),
            limited: self.limited.clone(),
        };
        let asked = wrap_future::<_, Self>(self.master.send(ask));
        Box::pin(asked.map(move |answer, connection, ctx| match answer {
            Ok(Ok(worker)) => connection.introduced(attach, worker),
            Ok(Err(rejection)) if rejection.wrong => {
                ctx.run_later(WRONG_AFTER, move |connection, _| connection.reject(&rejection));
            }
            Ok(Err(rejection)) => connection.reject(&rejection),
            Err(_) => connection.link.close("the master is stopping"),
        }))
    }
}

impl Handler<Ended> for WorkerConnection {
    type Result = ();
    fn handle(&mut self, message: Ended, ctx: &mut Context<Self>) {
        let reason = self.link.closed().unwrap_or(message.0);
        if reason == SLOW {
            self.world.board.count_ignored("worker that does not read");
        }
        if let Some(worker) = &self.worker {
            worker.lost.do_send(ConnectionLost { session: self.link.session, reason });
        }
        ctx.stop();
    }
}
