//! Builders that the worker could not be made ready for: each is asked for
//! again, after longer and longer pauses, while the others go on (fault row
//! FA08).

use std::time::Duration;

use super::{Effect, Link, WorkerCore};
use crate::core::ids::*;
use crate::core::planted;
use crate::core::time::Timestamp;

/// The first pause; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A builder that the worker failed for on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failing {
    tries: u32,
    again: Timestamp,
}

impl WorkerCore {
    pub(super) fn on_builder_answer(
        &mut self,
        session: SessionId,
        builder: BuilderName,
        error: Option<String>,
        fx: &mut Vec<Effect>,
    ) {
        if !matches!(self.link, Link::Up { session: current, .. } if current == session) {
            fx.push(Effect::Ignored("builder answer of an older connection"));
            return;
        }
        if !self.builders.iter().any(|(name, _)| *name == builder) {
            fx.push(Effect::Ignored("answer for a builder that the worker does not serve"));
            return;
        }
        if error.is_some() {
            let tries = self.failing.get(&builder).map_or(0, |failing| failing.tries);
            let pause = (FIRST_PAUSE * 2u32.saturating_pow(tries.min(10))).min(LONGEST_PAUSE);
            let failing = Failing { tries: tries.saturating_add(1), again: self.now + pause };
            self.failing.insert(builder.clone(), failing);
        } else {
            self.failing.remove(&builder);
        }
        let ready = error.is_none();
        let before = self.answers.insert(builder.clone(), error);
        if ready && matches!(before, Some(Some(_))) {
            // Its list was for another builder; whoever waited here was told
            // that it failed, and is gone.
            fx.push(Effect::TellBuilder { builder, session });
        } else {
            self.tell_seat(&builder, fx);
        }
    }

    pub(super) fn on_seat_registered(
        &mut self,
        session: SessionId,
        builder: &BuilderName,
        fx: &mut Vec<Effect>,
    ) {
        match self.link {
            Link::Up { session: current, .. } if current == session => self.tell_seat(builder, fx),
            _ => fx.push(Effect::TellSeatsDetached { session }),
        }
    }

    /// Not while the worker ends a build of this builder that nobody wants:
    /// only then is the pair free (fault row FA16).
    pub(super) fn tell_seat(&self, builder: &BuilderName, fx: &mut Vec<Effect>) {
        let ends_one = self.abandoning.values().any(|owner| owner == builder);
        if ends_one && !planted::is("fa16_the_pair_is_free_at_once") {
            return;
        }
        if let Some(error) = self.answers.get(builder) {
            let (builder, error) = (builder.clone(), error.clone());
            let building = self.building(&builder);
            fx.push(Effect::TellSeat { builder, error, building });
        }
    }

    /// The worker answers the list of all its builders; those that it serves
    /// already do not notice.
    pub(super) fn ask_failing_again(&mut self, fx: &mut Vec<Effect>) {
        let Link::Up { session, .. } = self.link else { return };
        let now = self.now;
        if self.failing.values().all(|failing| failing.again > now) {
            return;
        }
        // The worker tries all of them with the list.
        let all: Vec<_> = self.failing.keys().cloned().collect();
        for failing in self.failing.values_mut() {
            // Should there be no answer, it is asked for again all the same.
            failing.again = now + LONGEST_PAUSE;
        }
        for builder in &all {
            self.answers.remove(builder);
        }
        fx.push(Effect::SendBuilders { list: self.builders.clone() });
        for builder in all {
            fx.push(Effect::TellBuilder { builder, session });
        }
    }

    pub(super) fn failing_deadline(&self) -> Option<Timestamp> {
        let up = matches!(self.link, Link::Up { .. });
        self.failing.values().filter(|_| up).map(|failing| failing.again).min()
    }
}
