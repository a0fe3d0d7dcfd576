//! Whether a connection that proved to be a worker is let in: not when it comes
//! too often (fault row FA11), not while two programs fight for one name (FA03).

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::planted;
use crate::core::time::Timestamp;

/// The time that attaches and exchanges are counted in, and how long the two
/// of a conflict are kept away.
const MINUTE: Duration = Duration::from_secs(60);
/// So often one program may take another one's place in a minute.
const EXCHANGES: usize = 5;
/// How soon a worker with builds may attach again that came too often. It is
/// slowed down, but not kept away until the lease of its builds is over.
const BUILDING_AGAIN: Duration = Duration::from_secs(1);

/// What people see of a worker that is turned away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TurnedAway {
    /// The wire's code.
    pub code: &'static str,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Timestamp,
}

/// What is remembered of a worker's connections. Bounded by its limits.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Welcome {
    per_minute: usize,
    attaches: VecDeque<Timestamp>,
    exchanges: VecDeque<Timestamp>,
    /// Where the connection in charge came from.
    address: String,
    turned_away: Option<TurnedAway>,
}

/// A connection at the door.
pub(super) struct Caller<'a> {
    /// Where it comes from.
    pub(super) address: &'a str,
    /// It would take the place of another program's connection.
    pub(super) takes_over: bool,
    /// The worker has builds, which it may not lose for coming too often.
    pub(super) builds: bool,
}

/// What to do with it.
pub(super) enum Answer {
    /// Let it in.
    In,
    /// Turn it away.
    Out(TurnedAway),
    /// Turn both away: it, and the one that is there.
    BothOut(TurnedAway),
}

impl Welcome {
    pub(super) fn new(per_minute: usize) -> Self {
        Self {
            per_minute: per_minute.max(1),
            attaches: VecDeque::new(),
            exchanges: VecDeque::new(),
            address: String::new(),
            turned_away: None,
        }
    }

    pub(super) fn ask(&mut self, name: &str, now: Timestamp, caller: &Caller<'_>) -> Answer {
        for times in [&mut self.attaches, &mut self.exchanges] {
            while times.front().is_some_and(|time| now.since(*time) >= MINUTE) {
                times.pop_front();
            }
        }
        if let Some(away) = self.turned_away.as_ref().filter(|away| away.until > now) {
            return Answer::Out(away.clone());
        }
        if caller.takes_over {
            self.exchanges.push_back(now);
            if self.exchanges.len() > EXCHANGES && !planted::is("fa03_two_workers_fight_on") {
                self.exchanges.clear();
                let reason = format!(
                    "two workers use the name {name} (addresses {} and {})",
                    self.address, caller.address
                );
                let away = TurnedAway { code: "conflict", reason, until: now + MINUTE };
                self.turned_away = Some(away.clone());
                return Answer::BothOut(away);
            }
        }
        let mut until = None;
        if self.attaches.len() >= self.per_minute && !planted::is("fa11_any_number_of_attaches") {
            let mut due = self.attaches.front().copied().unwrap_or(now) + MINUTE;
            if caller.builds && !planted::is("fa11_builds_are_kept_away") {
                let last = self.attaches.back().copied().unwrap_or(now);
                due = due.min(last + BUILDING_AGAIN);
            }
            until = Some(due).filter(|due| *due > now);
        }
        if let Some(until) = until {
            let reason = format!("it attached {} times within a minute", self.per_minute);
            let away = TurnedAway { code: "busy", reason, until };
            self.turned_away = Some(away.clone());
            return Answer::Out(away);
        }
        if self.attaches.len() >= self.per_minute {
            self.attaches.pop_front();
        }
        self.attaches.push_back(now);
        caller.address.clone_into(&mut self.address);
        self.turned_away = None;
        Answer::In
    }

    /// The one that was let in last could not be: it does not count.
    pub(super) fn forgive(&mut self) {
        self.attaches.pop_back();
    }

    pub(super) fn turned_away(&self, now: Timestamp) -> Option<&TurnedAway> {
        self.turned_away.as_ref().filter(|away| away.until > now)
    }
}

/// Whole seconds until then, at least one.
pub(super) fn seconds_until(now: Timestamp, until: Timestamp) -> u64 {
    let wait = until.since(now);
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
