//! How long a connection may be silent, and how long a frame may take.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use crate::actors::runtime::World;
use crate::core::time::Timestamp;
use crate::messages::WorkerLink;

/// Silence of this many heartbeats ends a connection.
const DEAD_AFTER: u32 = 3;
/// Why a connection is closed of which nothing is heard.
const SILENT: &str = "nothing was heard of it";
/// Why a connection is closed whose frame does not come to its end (fault row
/// FN04).
const OVERDUE: &str = "a frame of it took too long";

/// The one timer of a connection. It is looked at whenever the connection's
/// reader wakes, so it is armed anew only when it would ring too late: an idle
/// worker's rings once for some heartbeats.
#[derive(Default)]
pub(super) struct Patience {
    armed: Option<(Timestamp, Pin<Box<Sleep>>)>,
}

impl Patience {
    /// Ready when it is over, with the reason.
    pub(super) fn poll_over(
        &mut self,
        cx: &mut Context<'_>,
        link: &WorkerLink,
        world: &World,
    ) -> Poll<&'static str> {
        loop {
            let now = world.clock.now().mono;
            let beat = link.beat().unwrap_or(world.timers.heartbeat);
            let silent = link.last_heard() + beat * DEAD_AFTER;
            let overdue = link.incomplete_since().map(|since| since + world.limits.frame_time);
            if overdue.is_some_and(|overdue| now >= overdue) {
                world.board.count_ignored("frame that took too long");
                return Poll::Ready(OVERDUE);
            }
            if now >= silent {
                return Poll::Ready(SILENT);
            }
            let due = overdue.map_or(silent, |overdue| overdue.min(silent));
            let (at, sleep) = match &mut self.armed {
                Some((at, sleep)) if *at <= due => (at, sleep),
                armed => {
                    let sleep = Box::pin(tokio::time::sleep(due.since(now)));
                    let (at, sleep) = armed.insert((due, sleep));
                    (at, sleep)
                }
            };
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                // It rang for what was due when it was armed.
                Poll::Ready(()) if *at < due => self.armed = None,
                // A timer may ring a moment early by this clock.
                Poll::Ready(()) => {
                    let wait = due.since(world.clock.now().mono);
                    let wait = wait.max(std::time::Duration::from_millis(1));
                    self.armed = Some((due, Box::pin(tokio::time::sleep(wait))));
                }
            }
        }
    }
}
