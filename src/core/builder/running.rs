//! Builds that run, here or at a predecessor.

use super::event::{Answer, Effect, Event};
use super::expectations::StepTimes;
use super::seat::SeatUse;
use super::{BuilderCore, Phase, Request};
use crate::core::ids::*;
use crate::core::planted;
use crate::core::values::BuildResult;
use crate::core::views::Away;

impl BuilderCore {
    pub(super) fn on_started(&mut self, claim: ClaimId, number: BuildNumber, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        build.number = Some(number);
        if let (true, Some(build)) = (self.retired, build.build) {
            fx.push(Effect::TellSuccessor(Event::InheritedStarted { claim, build, number }));
        }
    }

    pub(super) fn on_orphaned(&mut self, claim: ClaimId, away: Option<Away>, fx: &mut Vec<Effect>) {
        match self.builds.get_mut(&claim) {
            Some(build) if matches!(build.phase, Phase::Running | Phase::Orphaned) => {
                build.enter(if away.is_some() { Phase::Orphaned } else { Phase::Running });
                build.away = away;
            }
            _ => {
                fx.push(Effect::Ignored("worker news of a build that does not run"));
                return;
            }
        }
        if self.retired {
            fx.push(Effect::TellSuccessor(Event::InheritedOrphaned { claim, away }));
        }
    }

    /// A successor shows its predecessors' builds as they are.
    pub(super) fn on_inherited_orphaned(
        &mut self,
        claim: ClaimId,
        away: Option<Away>,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(build) = self.inherited.get_mut(&claim) {
            build.away = away;
            build.state = if away.is_some() { "orphaned" } else { "running" };
        }
        if self.retired {
            fx.push(Effect::TellSuccessor(Event::InheritedOrphaned { claim, away }));
        }
    }

    /// Row B16.
    pub(super) fn on_finished(
        &mut self,
        claim: ClaimId,
        result: BuildResult,
        requeued: Vec<Request>,
        times: Option<StepTimes>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("end of a build that is gone"));
            return;
        };
        let stopped = build.stop.is_some();
        // Whoever waits for a cancel that was never settled: it came too late.
        for reply in std::mem::take(&mut build.leaving).into_iter().filter_map(|l| l.reply) {
            fx.push(Effect::Answer(reply, Answer::Done(false)));
        }
        self.leave(claim, true, fx);
        let success = result == BuildResult::Success;
        let times = times.filter(|_| success || planted::is("expectations_learn_from_failures"));
        if !self.retired
            && let Some(times) = &times
        {
            self.learn(times, fx);
        }
        if stopped {
            // The stop came while the build was being queued again: nothing of
            // it runs once more (fault row FF05).
            let unwanted = requeued.into_iter();
            fx.extend(unwanted.map(|request| Effect::CancelWaiting { request, reply: None }));
            self.give_back(claim, Vec::new(), times, fx);
            return;
        }
        self.give_back(claim, requeued, times, fx);
    }

    pub(super) fn on_inherited_finished(
        &mut self,
        claim: ClaimId,
        requeued: Vec<Request>,
        times: Option<StepTimes>,
        fx: &mut Vec<Effect>,
    ) {
        self.inherited.remove(&claim);
        // By the claim and not by what is known of the build: after a restart
        // the seat may be all that is known.
        let seat = self.seats.iter().find(|(_, seat)| seat.used == SeatUse::Taken(claim));
        if let Some(worker) = seat.map(|(worker, _)| worker.clone()) {
            self.free_seat(&worker, claim, false);
            fx.push(Effect::BuildOver { worker, claim });
        }
        if self.retired {
            fx.push(Effect::TellSuccessor(Event::InheritedFinished { claim, requeued, times }));
            return;
        }
        if let Some(times) = times {
            self.learn(&times, fx);
        }
        self.queue_again(requeued);
    }

    pub(super) fn on_inherited_started(
        &mut self,
        claim: ClaimId,
        id: BuildId,
        number: BuildNumber,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(build) = self.inherited.get_mut(&claim) {
            build.build = Some(id);
            build.number = Some(number);
            build.state = "running";
        }
        if self.retired {
            fx.push(Effect::TellSuccessor(Event::InheritedStarted { claim, build: id, number }));
        }
    }

    pub(super) fn learn(&mut self, times: &StepTimes, fx: &mut Vec<Effect>) {
        // One of another factory says nothing of this one's builds (row T10).
        if self.expectations.learn(times) {
            fx.push(Effect::SaveExpectations(self.expectations.to_text()));
        }
    }
}
