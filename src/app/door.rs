//! The port for workers: accepts connections as long as there are descriptors
//! for them (fault row FM13). Each takes one; the store, the log files and the
//! HTTP port must never find none left, so a part is not given to workers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::actors::Greeter;
use crate::board::Board;

/// Descriptors that stay free for the store's files, programs and the like,
/// beyond those that are open when the door opens.
const RESERVE: u64 = 48;
/// One part in so many is the HTTP port's; see `src/web/mod.rs`.
const HTTP_PART: u64 = 4;
/// Fewer connections than this are allowed for in any case.
const LEAST: u64 = 8;
/// No more are allowed for, however many descriptors there are.
const MOST: u64 = 1_000_000;
/// Between two attempts when the system refuses to accept.
const PAUSE: Duration = Duration::from_millis(500);
/// The banner's name on the board.
const WARNING: &str = "descriptors";

/// Each worker is a descriptor; the usual soft limit of 1,024 is too low.
pub(super) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, soft, hard, "the limit of open files was not raised");
    }
}

/// How many connections of workers there may be at once.
pub(super) fn room_for_workers() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").map_or(64, |entries| entries.count() as u64);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(room(limit, open)).unwrap_or(usize::MAX)
}

fn room(limit: u64, open: u64) -> u64 {
    let left = limit - limit / HTTP_PART;
    left.saturating_sub(open + RESERVE).clamp(LEAST, MOST)
}

/// Lets workers in until it is dropped. When there is no room nobody is
/// refused: those who come wait in the system's queue.
pub(super) async fn accept(listener: TcpListener, greeter: Greeter, room: usize, board: Board) {
    let places = Arc::new(Semaphore::new(room));
    // Without a place among those not known yet nothing is accepted: those that
    // want in wait in the system's queue (fault row FN05).
    while let Some(turn) = greeter.place().await {
        let place = match places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                warn(
                    &board,
                    &format!(
                        "all {room} connections that the limit of open files leaves to workers are taken; \
                     others wait: raise the limit (ulimit -n, or LimitNOFILE of the service)"
                    ),
                );
                let Ok(place) = places.clone().acquire_owned().await else { return };
                place
            }
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Nobody waits any more.
            () = tokio::time::sleep(PAUSE) => {
                board.calm(WARNING);
                listener.accept().await
            }
        };
        match accepted {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "no nodelay");
                }
                greeter.admit(Held { stream, _place: place }, address, turn);
            }
            // Those who are connected go on.
            Err(error) => {
                warn(&board, &format!("connections of workers cannot be accepted: {error}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn warn(board: &Board, text: &str) {
    if board.warn(WARNING, text) {
        tracing::warn!("{text}");
    }
}

/// A connection with its place, which is free again when it is dropped.
struct Held {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fm13_a_part_of_the_descriptors_is_never_given_to_workers() {
        assert_eq!(room(1024, 30), 768 - 78);
        assert_eq!(room(256, 30), 192 - 78);
        assert_eq!(room(64, 30), LEAST);
        assert_eq!(room(u64::MAX, 30), MOST);
    }
}
