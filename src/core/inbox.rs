//! Each sender's messages once and in its order, whichever way they came.
//!
//! After a takeover some mail still goes to the predecessor, who passes it on,
//! while newer mail of the same sender arrives directly. Numbers put it right
//! (row T07).

use std::collections::BTreeMap;

use super::planted;

/// How many messages may wait for an earlier one.
pub const LIMIT: usize = 65_536;

/// Names a sender for as long as it sends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SenderId(pub u64);

/// What became of a message put in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// It, and maybe some after it, can be taken.
    Ready,
    /// An earlier one is missing.
    Waits,
    /// It was here before.
    Duplicate,
    /// Too many wait already; it was dropped.
    Full,
}

/// Numbers and early messages of every sender.
#[derive(Clone, Debug)]
pub struct Inbox<M> {
    last: BTreeMap<SenderId, u64>,
    early: BTreeMap<(SenderId, u64), M>,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self { last: BTreeMap::new(), early: BTreeMap::new() }
    }
}

impl<M> Inbox<M> {
    /// Puts in message `seq` (from 1) of a sender; what can be handled now is
    /// pushed onto `ready`, in order.
    pub fn put(&mut self, sender: SenderId, seq: u64, message: M, ready: &mut Vec<M>) -> Put {
        let last = self.last.entry(sender).or_insert(0);
        if seq <= *last || self.early.contains_key(&(sender, seq)) {
            return Put::Duplicate;
        }
        if seq > *last + 1 && !planted::is("t07_newer_mail_overtakes") {
            if self.early.len() >= LIMIT {
                return Put::Full;
            }
            self.early.insert((sender, seq), message);
            return Put::Waits;
        }
        *last = seq;
        ready.push(message);
        while let Some(next) = self.early.remove(&(sender, *last + 1)) {
            *last += 1;
            ready.push(next);
        }
        Put::Ready
    }

    /// How many wait for an earlier one.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.early.len()
    }

    /// A sender that is gone needs no number any more.
    pub fn forget(&mut self, sender: SenderId) {
        self.last.remove(&sender);
        self.early.retain(|(from, _), _| *from != sender);
    }
}
