//! An instance on its way out. It is never given up: whoever forgets an
//! instance pays for it (fault row FX10).

use std::time::Duration;

use super::growing;
use super::parts::Effect;
use crate::core::ids::InstanceTag;
use crate::core::planted;
use crate::core::time::Timestamp;

/// First pause after a failed try, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After so many failed tries a new instance may be made beside it.
const PATIENCE: u32 = 3;
/// An answer that is not there by then was lost on the way: the asker panicked.
const LOST_ANSWER: Duration = Duration::from_secs(600);

/// How far it has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The provider was asked for it and has not answered.
    Making,
    /// That it is to be destroyed is being stored.
    Noting,
    /// The provider was asked to destroy it.
    Asking,
    /// It is gone, and that is being stored.
    Forgetting,
}

/// One instance on its way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Going {
    tag: InstanceTag,
    id: Option<String>,
    step: Step,
    /// When the step is done again.
    due: Timestamp,
    /// Builds were running on it.
    lost: bool,
    tries: u32,
    store_tries: u32,
    error: Option<String>,
}

impl Going {
    pub(super) fn new(
        now: Timestamp,
        tag: InstanceTag,
        id: Option<String>,
        step: Step,
        lost: bool,
        fx: &mut Vec<Effect>,
    ) -> Self {
        let (due, error) = (now + LOST_ANSWER, None);
        let mut going = Self { tag, id, step, due, lost, tries: 0, store_tries: 0, error };
        if step == Step::Noting {
            going.go_on(now, fx);
        }
        going
    }

    /// Does the step that it is at.
    fn go_on(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        self.due = now + LOST_ANSWER;
        let tag = self.tag.clone();
        match self.step {
            // The provider's answer did not come: what it made is found by tag.
            Step::Making => {
                self.step = Step::Noting;
                fx.push(Effect::StoreRelease(tag));
            }
            Step::Noting => fx.push(Effect::StoreRelease(tag)),
            Step::Asking => {
                self.tries = self.tries.saturating_add(1);
                fx.push(Effect::Destroy { tag, id: self.id.clone() });
            }
            Step::Forgetting => fx.push(Effect::Forget(tag)),
        }
    }

    fn enter(&mut self, now: Timestamp, step: Step, fx: &mut Vec<Effect>) {
        self.step = step;
        self.store_tries = 0;
        self.go_on(now, fx);
    }

    /// The provider answered at last what it was asked for before.
    pub(super) fn on_made(&mut self, now: Timestamp, id: Option<String>, fx: &mut Vec<Effect>) {
        self.id = self.id.take().or(id);
        if self.step == Step::Making {
            self.enter(now, Step::Noting, fx);
        }
    }

    pub(super) fn on_noted(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        if self.step == Step::Noting {
            self.enter(now, Step::Asking, fx);
        }
    }

    pub(super) fn on_destroyed(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        if self.step != Step::Asking {
            return;
        }
        if std::mem::take(&mut self.lost) {
            fx.push(Effect::LostBuilds);
        }
        self.error = None;
        self.enter(now, Step::Forgetting, fx);
    }

    pub(super) fn on_failed(&mut self, now: Timestamp, error: String, fx: &mut Vec<Effect>) {
        if planted::is("fx10_a_failed_destroy_is_enough") {
            self.on_destroyed(now, fx);
            return;
        }
        if self.step == Step::Asking {
            self.error = Some(error);
            self.due = now + growing(FIRST_PAUSE, LONGEST_PAUSE, self.tries);
        }
    }

    pub(super) fn on_store_failed(&mut self, now: Timestamp) {
        match self.step {
            Step::Noting | Step::Forgetting => {
                self.store_tries = self.store_tries.saturating_add(1);
                self.due = now + growing(FIRST_PAUSE, LONGEST_PAUSE, self.store_tries);
            }
            Step::Making | Step::Asking => {}
        }
    }

    pub(super) fn on_deadline(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        if self.due <= now {
            self.go_on(now, fx);
        }
    }

    /// Whether no new instance may be made beside it. One whose builds are not
    /// known to be over blocks as long as there are any: they must not run
    /// twice.
    pub(super) fn blocks(&self, builds: bool) -> bool {
        self.step != Step::Forgetting && (self.tries <= PATIENCE || (self.lost && builds))
    }

    pub(super) fn next_deadline(&self) -> Timestamp {
        self.due
    }

    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}
