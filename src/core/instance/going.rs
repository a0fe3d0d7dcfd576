//! An instance on its way out. It is never given up: whoever forgets an
//! instance pays for it (fault row FX10).

use std::time::Duration;

use super::growing;
use super::parts::Effect;
use crate::core::ids::InstanceTag;
use crate::core::time::Timestamp;

/// First pause after a failed try, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After so many failed tries a new instance may be made beside it.
const PATIENCE: u32 = 3;

/// How far it has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The provider was asked for it and has not answered: it answers within
    /// the limit of every call.
    Making,
    /// That it is to be destroyed is being stored.
    Noting,
    /// The provider was asked to destroy it, and answers within a limit.
    Asking,
    /// It is gone, and that is being stored.
    Forgetting,
    /// Then `then`.
    Pausing { until: Timestamp, then: Then },
}

/// What comes after a pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    Note,
    Ask,
    Forget,
}

/// One instance on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Going {
    tag: InstanceTag,
    id: Option<String>,
    step: Step,
    /// Builds were running on it.
    lost: bool,
    tries: u32,
    store_tries: u32,
    error: Option<String>,
}

impl Going {
    pub(super) fn new(
        tag: InstanceTag,
        id: Option<String>,
        step: Step,
        lost: bool,
        fx: &mut Vec<Effect>,
    ) -> Self {
        if step == Step::Noting {
            fx.push(Effect::StoreRelease(tag.clone()));
        }
        Self { tag, id, step, lost, tries: 0, store_tries: 0, error: None }
    }

    /// The provider answered at last what it was asked for before.
    pub(super) fn on_made(&mut self, id: Option<String>, fx: &mut Vec<Effect>) {
        self.id = self.id.take().or(id);
        if self.step == Step::Making {
            self.step = Step::Noting;
            fx.push(Effect::StoreRelease(self.tag.clone()));
        }
    }

    pub(super) fn on_noted(&mut self, _: Timestamp, fx: &mut Vec<Effect>) {
        if self.step == Step::Noting {
            self.ask(fx);
        }
    }

    fn ask(&mut self, fx: &mut Vec<Effect>) {
        self.step = Step::Asking;
        self.tries = self.tries.saturating_add(1);
        fx.push(Effect::Destroy { tag: self.tag.clone(), id: self.id.clone() });
    }

    pub(super) fn on_destroyed(&mut self, _: Timestamp, fx: &mut Vec<Effect>) {
        if self.step != Step::Asking {
            return;
        }
        if self.lost {
            self.lost = false;
            fx.push(Effect::LostBuilds);
        }
        self.error = None;
        self.step = Step::Forgetting;
        fx.push(Effect::Forget(self.tag.clone()));
    }

    pub(super) fn on_failed(&mut self, now: Timestamp, error: String, _: &mut Vec<Effect>) {
        if self.step == Step::Asking {
            self.error = Some(error);
            let until = now + growing(FIRST_PAUSE, LONGEST_PAUSE, self.tries);
            self.step = Step::Pausing { until, then: Then::Ask };
        }
    }

    pub(super) fn on_store_failed(&mut self, now: Timestamp, _: &mut Vec<Effect>) {
        let then = match self.step {
            Step::Noting => Then::Note,
            Step::Forgetting => Then::Forget,
            Step::Making | Step::Asking | Step::Pausing { .. } => return,
        };
        self.store_tries = self.store_tries.saturating_add(1);
        let until = now + growing(FIRST_PAUSE, LONGEST_PAUSE, self.store_tries);
        self.step = Step::Pausing { until, then };
    }

    pub(super) fn on_deadline(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        let Step::Pausing { until, then } = self.step else { return };
        if until > now {
            return;
        }
        match then {
            Then::Note => {
                self.step = Step::Noting;
                fx.push(Effect::StoreRelease(self.tag.clone()));
            }
            Then::Ask => self.ask(fx),
            Then::Forget => {
                self.step = Step::Forgetting;
                fx.push(Effect::Forget(self.tag.clone()));
            }
        }
    }

    /// Whether no new instance may be made beside it. One whose builds are not
    /// known to be over blocks as long as there are any: they must not run
    /// twice.
    pub(super) fn blocks(&self, builds: bool) -> bool {
        self.step != Step::Forgetting && (self.tries <= PATIENCE || (self.lost && builds))
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        match self.step {
            Step::Pausing { until, .. } => Some(until),
            Step::Making | Step::Noting | Step::Asking | Step::Forgetting => None,
        }
    }

    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}
