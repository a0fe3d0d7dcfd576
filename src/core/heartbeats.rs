//! Heartbeats of all workers, from their arrival to their confirmation: a
//! confirmation means that the store knows (invariant I12, fault row FD02).
//!
//! They wait for one write a second together, so that a slow store has one
//! write to do and not one a worker (FD13). Deliberately absent: what a worker
//! does without a confirmation (its lease, in the worker program).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ids::*;
use super::planted;
use super::time::Timestamp;

/// Time from one write to the next.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long a write may take at most before the store counts as out of reach;
/// less when heartbeats come more often.
const PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of heartbeats while the store cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Outage {
    /// They are not confirmed: workers end their builds when the lease is
    /// over, and the requests are queued again.
    #[default]
    EndBuilds,
    /// They are confirmed all the same. Builds go on, and until the store is
    /// back nothing keeps one from running twice (invariant I3).
    KeepRunning,
}

/// One heartbeat that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    /// Whose.
    pub worker: WorkerId,
    /// That worker's present incarnation.
    pub incarnation: Incarnation,
    /// The connection that it came over.
    pub session: SessionId,
    /// Its number on that connection.
    pub seq: u64,
}

/// What is heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A heartbeat arrived.
    Beat(Beat),
    /// The store answered the write that is under way.
    Written {
        /// It has it.
        ok: bool,
    },
    /// A deadline passed.
    DeadlineReached,
}

/// What is wanted done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Store that these workers were heard; answered `Written`.
    Write(Vec<Beat>),
    /// Tell these workers that the store knows.
    Confirm(Vec<Beat>),
    /// The store could not be written: these stay unconfirmed.
    NotStored(usize),
    /// Tell these workers that the master is there, though it cannot confirm:
    /// they would take it for gone, and come over new connections.
    SayHere(BTreeSet<SessionId>),
}

/// All heartbeats that wait. At most two a worker: its newest, and the one that
/// is being written.
#[derive(Clone, Debug)]
pub struct HeartbeatsCore {
    outage: Outage,
    patience: Duration,
    /// By connection, so that a worker that came back over a new one is not
    /// held to the numbers of the old.
    waiting: BTreeMap<SessionId, Beat>,
    writing: Option<Writing>,
    /// Not before.
    next: Timestamp,
}

#[derive(Clone, Debug)]
struct Writing {
    beats: Vec<Beat>,
    overdue_at: Timestamp,
    /// These were confirmed without the store.
    given_up: bool,
}

impl HeartbeatsCore {
    /// Nothing waits. Workers beat so often while they build.
    #[must_use]
    pub fn new(outage: Outage, heartbeat: Duration) -> Self {
        let patience = PATIENCE.min(heartbeat);
        Self {
            outage,
            patience,
            waiting: BTreeMap::new(),
            writing: None,
            next: Timestamp::default(),
        }
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Timestamp, event: Event, fx: &mut Vec<Effect>) {
        match event {
            Event::Beat(beat) => {
                self.waiting.insert(beat.session, beat);
                if planted::is("heartbeat_confirmed_at_once") {
                    fx.push(Effect::Confirm(vec![beat]));
                }
            }
            Event::Written { ok } => self.on_written(ok, fx),
            Event::DeadlineReached => {}
        }
        self.go_on(now, fx);
    }

    fn on_written(&mut self, ok: bool, fx: &mut Vec<Effect>) {
        let Some(Writing { beats, given_up, .. }) = self.writing.take() else { return };
        if given_up {
            return;
        }
        if ok || self.outage == Outage::KeepRunning {
            fx.push(Effect::Confirm(beats));
            return;
        }
        fx.push(Effect::NotStored(beats.len()));
        // They are tried again, so that the first write that goes through
        // confirms whatever is unconfirmed.
        for beat in beats {
            self.waiting.entry(beat.session).or_insert(beat);
        }
        fx.push(Effect::SayHere(self.sessions()));
    }

    fn go_on(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        let overdue = self.writing.as_ref().is_some_and(|writing| now >= writing.overdue_at);
        if overdue && self.outage == Outage::EndBuilds {
            fx.push(Effect::SayHere(self.sessions()));
        }
        if let Some(writing) = &mut self.writing {
            if overdue && self.outage == Outage::EndBuilds {
                writing.overdue_at = now + self.patience;
            } else if overdue {
                if !std::mem::replace(&mut writing.given_up, true) {
                    fx.push(Effect::Confirm(std::mem::take(&mut writing.beats)));
                }
                if now >= self.next && !self.waiting.is_empty() {
                    self.next = now + EVERY;
                    let beats = std::mem::take(&mut self.waiting).into_values().collect();
                    fx.push(Effect::Confirm(beats));
                }
            }
            return;
        }
        if now >= self.next && !self.waiting.is_empty() {
            let beats: Vec<Beat> = std::mem::take(&mut self.waiting).into_values().collect();
            self.next = now + EVERY;
            let overdue_at = now + self.patience;
            self.writing = Some(Writing { beats: beats.clone(), overdue_at, given_up: false });
            fx.push(Effect::Write(beats));
        }
    }

    /// A connection ended: nobody waits for its confirmation.
    pub fn forget(&mut self, session: SessionId) {
        self.waiting.remove(&session);
    }

    /// Connections of which a heartbeat waits or is being written.
    #[must_use]
    pub fn sessions(&self) -> BTreeSet<SessionId> {
        let written = self.writing.iter().flat_map(|writing| &writing.beats);
        self.waiting.keys().copied().chain(written.map(|beat| beat.session)).collect()
    }

    /// When `DeadlineReached` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let waits = !self.waiting.is_empty();
        match &self.writing {
            None => waits.then_some(self.next),
            Some(writing) if self.outage == Outage::EndBuilds || !writing.given_up => {
                Some(writing.overdue_at)
            }
            Some(writing) => waits.then_some(self.next.max(writing.overdue_at)),
        }
    }
}
