//! The event stream: every change, after it is durable, with a number that
//! only grows. Many may listen; one who does not keep up is dropped with a
//! reason, never buffered without limit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::store::Change;

/// How many events a listener may be behind.
pub const LISTENER_LIMIT: usize = 16 * 1024;

/// How many past events are kept for listeners that come back.
const KEPT: usize = 16 * 1024;

/// One numbered change.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Grows by one with each event.
    pub seq: u64,
    /// What became true.
    pub change: Change,
}

#[derive(Default)]
struct State {
    next: u64,
    kept: VecDeque<Arc<Event>>,
    listeners: Vec<mpsc::Sender<Arc<Event>>>,
    dropped: u64,
}

/// The stream. Clones share it.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<State>>);

impl Events {
    /// A stream whose first event has the number `first`.
    #[must_use]
    pub fn starting_at(first: u64) -> Self {
        let events = Self::default();
        events.lock().next = first;
        events
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers the changes and hands them to every listener.
    pub fn publish(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut state = self.lock();
        for change in changes {
            let event = Arc::new(Event { seq: state.next, change });
            state.next += 1;
            let before = state.listeners.len();
            state.listeners.retain(|listener| listener.try_send(event.clone()).is_ok());
            let gone = (before - state.listeners.len()) as u64;
            state.dropped += gone;
            state.kept.push_back(event);
            if state.kept.len() > KEPT {
                state.kept.pop_front();
            }
        }
    }

    /// Listens from now on. The channel ends when the listener falls
    /// [`LISTENER_LIMIT`] events behind.
    #[must_use]
    pub fn listen(&self) -> mpsc::Receiver<Arc<Event>> {
        let (sender, receiver) = mpsc::channel(LISTENER_LIMIT);
        self.lock().listeners.push(sender);
        receiver
    }

    /// Number of the next event.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.lock().next
    }

    /// Listeners dropped so far, because they left or fell behind.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }
}
