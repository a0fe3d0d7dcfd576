//! What waits to be sent over one connection. Thousands of connections have
//! nothing to say most of the time: then this holds no memory of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::SLOW;
use crate::protocol::json_v1::{MasterFrame, encode};

/// Frames on their way to the connection's writer, and whether there is one.
#[derive(Debug)]
pub(super) struct Outgoing {
    most_frames: usize,
    most_bytes: usize,
    waiting: Mutex<Waiting>,
    /// The writer has something to do.
    work: Notify,
    /// It was closed, from either side, or its times are others.
    changed: Notify,
}

#[derive(Default, Debug)]
struct Waiting {
    bytes: Vec<u8>,
    frames: usize,
    /// Bytes that the writer took and that are not written yet.
    taken: usize,
    /// Why it was closed from this side.
    closed: Option<Box<str>>,
    /// Nobody writes any more.
    ended: bool,
}

/// What the writer finds.
pub(super) enum Found {
    /// Lines to write.
    Lines(Vec<u8>),
    /// Nothing, and it was closed.
    Closed,
    /// Nothing yet.
    Nothing,
}

impl Outgoing {
    pub(super) fn new(most_frames: usize, most_bytes: usize) -> Self {
        Self {
            most_frames: most_frames.max(1),
            most_bytes,
            waiting: Mutex::default(),
            work: Notify::new(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when nobody writes any more, or too much waits already; then it
    /// is closed.
    pub(super) fn send(&self, frame: &MasterFrame) -> bool {
        let line = encode(frame);
        let mut waiting = self.lock();
        if waiting.ended {
            return false;
        }
        let queued = waiting.bytes.len() + waiting.taken;
        if waiting.frames >= self.most_frames || queued.saturating_add(line.len()) > self.most_bytes
        {
            drop(waiting);
            self.close(SLOW);
            return false;
        }
        waiting.frames += 1;
        if waiting.bytes.is_empty() {
            waiting.bytes = line;
        } else {
            waiting.bytes.extend_from_slice(&line);
        }
        drop(waiting);
        self.work.notify_one();
        true
    }

    pub(super) fn close(&self, reason: &str) {
        let mut waiting = self.lock();
        if waiting.closed.is_some() {
            return;
        }
        waiting.closed = Some(reason.into());
        drop(waiting);
        self.work.notify_one();
        self.changed.notify_waiters();
    }

    pub(super) fn closed(&self) -> Option<String> {
        self.lock().closed.as_deref().map(str::to_owned)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// All that waits, for the writer.
    pub(super) fn take(&self) -> Found {
        let mut waiting = self.lock();
        if waiting.bytes.is_empty() {
            return if waiting.closed.is_some() { Found::Closed } else { Found::Nothing };
        }
        waiting.frames = 0;
        waiting.taken += waiting.bytes.len();
        Found::Lines(std::mem::take(&mut waiting.bytes))
    }

    /// Returns when there may be something to take.
    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    pub(super) fn written(&self, bytes: usize) {
        let mut waiting = self.lock();
        waiting.taken = waiting.taken.saturating_sub(bytes);
    }

    /// Nobody writes any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_waiters();
    }

    /// Those that wait look again.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }

    pub(super) async fn wait_closed(&self) {
        self.wait(|waiting| waiting.closed.is_some()).await;
    }

    pub(super) async fn wait_ended(&self) {
        self.wait(|waiting| waiting.ended).await;
    }

    async fn wait(&self, is: impl Fn(&Waiting) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before it is looked at, or a change in between would be missed.
            changed.as_mut().enable();
            if is(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Returns at the next change.
    pub(super) async fn change(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::core::ids::PingToken;

    fn ping(id: u64) -> MasterFrame {
        MasterFrame::Ping { id: PingToken(id) }
    }

    fn lines(outgoing: &Outgoing) -> usize {
        match outgoing.take() {
            Found::Lines(bytes) => bytes.iter().filter(|byte| **byte == b'\n').count(),
            Found::Closed | Found::Nothing => 0,
        }
    }

    #[test]
    fn what_was_sent_is_taken_at_once_and_in_order() {
        let outgoing = Outgoing::new(8, 1024);
        assert!(outgoing.send(&ping(1)) && outgoing.send(&ping(2)));
        assert!(outgoing.work().now_or_never().is_some(), "the writer is woken");
        let Found::Lines(bytes) = outgoing.take() else { panic!("there is something") };
        assert_eq!(bytes, [encode(&ping(1)), encode(&ping(2))].concat());
        assert!(matches!(outgoing.take(), Found::Nothing));
    }

    #[test]
    fn fn14_too_many_frames_or_bytes_close_it() {
        let frames = Outgoing::new(2, 1024);
        assert!(frames.send(&ping(1)) && frames.send(&ping(2)) && !frames.send(&ping(3)));
        assert_eq!(frames.closed().as_deref(), Some(SLOW));
        assert_eq!(lines(&frames), 2, "what was taken in is still sent");

        let line = encode(&ping(1)).len();
        let bytes = Outgoing::new(100, 2 * line);
        assert!(bytes.send(&ping(1)));
        assert_eq!(lines(&bytes), 1);
        assert!(bytes.send(&ping(2)));
        assert!(!bytes.send(&ping(3)), "what is being written counts");
        let bytes = Outgoing::new(100, 2 * line);
        assert!(bytes.send(&ping(1)));
        assert_eq!(lines(&bytes), 1);
        bytes.written(line);
        assert!(bytes.send(&ping(2)) && bytes.send(&ping(3)), "what was written does not");
    }

    #[test]
    fn the_first_reason_stays_and_whoever_waits_hears_of_it() {
        let outgoing = Outgoing::new(8, 1024);
        let mut waits = std::pin::pin!(outgoing.wait_closed());
        assert!(waits.as_mut().now_or_never().is_none());
        outgoing.close("first");
        outgoing.close("second");
        assert!(waits.now_or_never().is_some());
        assert!(outgoing.wait_closed().now_or_never().is_some(), "whoever comes late, too");
        assert_eq!(outgoing.closed().as_deref(), Some("first"));
        assert!(outgoing.send(&ping(1)), "the goodbye is still written");
        outgoing.end();
        assert!(outgoing.wait_ended().now_or_never().is_some());
        assert!(!outgoing.send(&ping(2)));
    }
}
