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

/// Somebody who listens.
struct Listener {
    events: mpsc::Sender<Arc<Event>>,
    /// A part of this program, which comes back by itself.
    inner: bool,
}

#[derive(Default)]
struct State {
    next: u64,
    kept: VecDeque<Arc<Event>>,
    listeners: Vec<Listener>,
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
            let mut gone = 0;
            state.listeners.retain(|listener| {
                let stays = listener.events.try_send(event.clone()).is_ok();
                gone += u64::from(!stays && !listener.inner);
                stays
            });
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
        self.add(false)
    }

    /// The same for a part of this program that begins anew when it falls
    /// behind: it is not counted among those that were dropped.
    #[must_use]
    pub fn listen_inside(&self) -> mpsc::Receiver<Arc<Event>> {
        self.add(true)
    }

    fn add(&self, inner: bool) -> mpsc::Receiver<Arc<Event>> {
        let (events, receiver) = mpsc::channel(LISTENER_LIMIT);
        self.lock().listeners.push(Listener { events, inner });
        receiver
    }

    /// Listens from right after the event `last` on, for a listener that comes
    /// back. None when what it missed is not kept any more, or when this stream
    /// never had such an event: then it reads the state anew.
    #[must_use]
    pub fn listen_after(&self, last: u64) -> Option<mpsc::Receiver<Arc<Event>>> {
        let mut state = self.lock();
        if last >= state.next {
            return None;
        }
        let missed = usize::try_from(state.next - last - 1).ok()?;
        let first = state.kept.len().checked_sub(missed)?;
        // Numbers jump when a master starts: what was before is not here.
        if missed > 0 && state.kept.get(first)?.seq != last + 1 {
            return None;
        }
        let (sender, receiver) = mpsc::channel(LISTENER_LIMIT + missed);
        for event in state.kept.range(first..) {
            sender.try_send(event.clone()).ok()?;
        }
        state.listeners.push(Listener { events: sender, inner: false });
        Some(receiver)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::BuildId;

    fn publish(events: &Events, count: usize) {
        let change = Change::BuildProperties(BuildId(1), Arc::default());
        events.publish(vec![change; count]);
    }

    fn numbers(receiver: &mut mpsc::Receiver<Arc<Event>>) -> Vec<u64> {
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|event| event.seq).collect()
    }

    #[test]
    fn who_comes_back_gets_what_it_missed_and_then_what_follows() {
        let events = Events::starting_at(100);
        publish(&events, 5);
        let mut back = events.listen_after(101).unwrap();
        publish(&events, 1);
        assert_eq!(numbers(&mut back), [102, 103, 104, 105]);
        let mut up_to_date = events.listen_after(105).unwrap();
        publish(&events, 1);
        assert_eq!(numbers(&mut up_to_date), [106]);
    }

    #[test]
    fn who_was_away_too_long_or_comes_from_elsewhere_is_told_so() {
        let events = Events::starting_at(100);
        assert!(events.listen_after(50).is_none(), "of an earlier master");
        publish(&events, KEPT + 2);
        assert!(events.listen_after(100).is_none(), "101 is not kept any more");
        assert!(events.listen_after(101).is_some());
        assert!(events.listen_after(99).is_none());
        assert!(events.listen_after(events.next_seq()).is_none(), "of a later history");
    }
}
