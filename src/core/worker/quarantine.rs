//! A worker that loses builds again and again is set aside for growing pauses,
//! so that it does not use up the retries of every request (fault row FR21).

use std::collections::VecDeque;
use std::time::Duration;

use super::{Effect, WorkerCore};
use crate::core::ids::BuildId;
use crate::core::planted;
use crate::core::time::{Now, Timestamp, WallTime};
use crate::core::views::PauseView;

/// So many losses …
const LOSSES: usize = 3;
/// … within this time set a worker aside …
const WITHIN: Duration = Duration::from_secs(600);
/// … for this long at first, and twice as long each time …
const FIRST: Duration = Duration::from_secs(10);
/// … up to this.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is remembered of the builds that a worker lost. In memory only: a
/// master that starts gives every worker a new chance.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Quarantine {
    /// When it was lost with a build, the last few times.
    losses: VecDeque<Timestamp>,
    /// It has not attached since it was counted last: builds that are lost
    /// together are one loss.
    counted: bool,
    /// The last pause.
    length: Option<Duration>,
    until: Option<Timestamp>,
}

impl Quarantine {
    /// It attached: what is lost from now on is another loss.
    pub(super) fn attached(&mut self) {
        self.counted = false;
    }

    /// A person takes it back.
    pub(super) fn release(&mut self) {
        *self = Self { counted: self.counted, ..Self::default() };
    }

    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// A build of it was lost and queued again.
    fn lost(&mut self, now: Timestamp) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        self.losses.retain(|at| now.since(*at) <= WITHIN);
        if self.losses.is_empty() {
            self.length = None;
        }
        self.losses.push_back(now);
        if self.losses.len() < LOSSES {
            return;
        }
        while self.losses.len() > LOSSES {
            self.losses.pop_front();
        }
        let length = self.length.map_or(FIRST, |length| (length * 2).min(LONGEST));
        self.length = Some(length);
        self.until = Some(now + length);
    }
}

impl WorkerCore {
    /// A build of this worker was lost with it and queued again.
    pub(super) fn on_build_lost(&mut self, build: BuildId, fx: &mut Vec<Effect>) {
        if !self.builds.contains_key(&build) {
            fx.push(Effect::Ignored("loss of a build that is not the worker's"));
            return;
        }
        self.quarantine.lost(self.now);
    }

    /// Whether it gets nothing because it lost too many builds.
    pub(super) fn is_set_aside(&self) -> bool {
        let until = self.quarantine.until();
        until.is_some_and(|until| until > self.now) && !planted::is("fr21_no_quarantine")
    }

    /// Its time is over: whoever was refused may try again.
    pub(super) fn end_quarantine(&mut self, fx: &mut Vec<Effect>) {
        if self.quarantine.until().is_some_and(|until| until <= self.now) {
            self.quarantine.until = None;
            self.freed(fx);
        }
    }

    /// That it is set aside, for people.
    #[must_use]
    pub fn quarantine_view(&self, now: Now) -> Option<PauseView> {
        let until = self.quarantine.until().filter(|until| *until > now.mono)?;
        let rest = i64::try_from(until.since(now.mono).as_micros()).unwrap_or(i64::MAX);
        let (losses, minutes) = (self.quarantine.losses.len(), WITHIN.as_secs() / 60);
        Some(PauseView {
            until: WallTime(now.wall.0.saturating_add(rest)),
            reason: format!("it was lost {losses} times within {minutes} minutes while building"),
        })
    }
}
