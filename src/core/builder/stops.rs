//! What people ask about builds: stop.
//!
//! The wish is kept in the store before anything is done and before anybody is
//! told: whoever looks after the build next, after a panic, a restart or a
//! takeover, knows it too (invariant I12).

use super::event::{Answer, Effect, ReplyId, StopSaved};
use super::{BuilderCore, Phase, Stop, Wish};
use crate::core::ids::*;
use crate::core::planted;

impl BuilderCore {
    pub(super) fn on_stop(
        &mut self,
        id: BuildId,
        reason: String,
        reply: ReplyId,
        fx: &mut Vec<Effect>,
    ) {
        let mine = self.builds.iter().find(|(_, build)| build.build == Some(id));
        if let Some(claim) = mine.map(|(claim, _)| *claim) {
            self.stop_own(claim, reason, Some(reply), fx);
            return;
        }
        let inherited = self.inherited.iter().find(|(_, build)| build.build == Some(id));
        if let Some((claim, _)) = inherited {
            fx.push(Effect::StopInherited {
                claim: *claim,
                build: Some(id),
                request: None,
                reason,
                reply: Some(reply),
            });
            return;
        }
        fx.push(Effect::Answer(reply, Answer::Done(false)));
    }

    /// One effect, however often it is asked for (fault row FF04): those who
    /// ask while the store is at it wait for the same answer.
    fn stop_own(
        &mut self,
        claim: ClaimId,
        reason: String,
        reply: Option<ReplyId>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        let Some(id) = build.build else {
            self.stop_unclaimed(claim, reason, fx);
            // Nothing is durable yet that could be told.
            fx.extend(reply.map(|reply| Effect::Answer(reply, Answer::Done(false))));
            return;
        };
        let answer = |done| move |reply| Effect::Answer(reply, Answer::Done(done));
        match build.stop.as_ref().map(|stop| stop.wish) {
            Some(Wish::Kept) => fx.extend(reply.map(answer(true))),
            Some(Wish::Unkept) => fx.extend(reply.map(answer(false))),
            Some(Wish::Asked) => self.stops.entry(claim).or_default().extend(reply),
            None if planted::is("i12_stop_told_before_kept") => {
                build.stop = Some(Stop { reason, wish: Wish::Kept });
                self.carry_out_stop(claim, fx);
                fx.extend(reply.map(answer(true)));
            }
            None => {
                build.stop = Some(Stop { reason: reason.clone(), wish: Wish::Asked });
                self.stops.entry(claim).or_default().extend(reply);
                fx.push(Effect::SaveStop { claim, build: id, reason });
            }
        }
    }

    /// Nobody can name a build that is not claimed, for it is shown nowhere;
    /// its requests are cancelled, and it with them (row FF03).
    fn stop_unclaimed(&mut self, claim: ClaimId, reason: String, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim).filter(|build| build.stop.is_none()) else {
            return;
        };
        build.stop = Some(Stop { reason, wish: Wish::Unkept });
        match build.phase {
            Phase::Reserving => {
                // The store still has them waiting.
                for request in std::mem::take(&mut build.requests) {
                    fx.push(Effect::CancelWaiting { request, reply: None });
                }
            }
            Phase::Substantiating => {
                for request in std::mem::take(&mut build.requests) {
                    fx.push(Effect::CancelWaiting { request, reply: None });
                }
                self.call_back_substantiation(claim, fx);
            }
            // What comes of it is seen when the store answers.
            Phase::Failing | Phase::Claiming { .. } | Phase::Unclaiming => {}
            Phase::Starting | Phase::Running | Phase::Orphaned => {}
        }
    }

    /// The store has answered: those who wait are told, and a wish that is
    /// durable is carried out, once.
    pub(super) fn on_stop_saved(
        &mut self,
        claim: ClaimId,
        reason: String,
        saved: &StopSaved,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(build) = self.builds.get_mut(&claim) {
            let wish = build.stop.as_ref().map(|stop| stop.wish);
            match (saved, wish) {
                (StopSaved::Kept, Some(Wish::Kept)) => {}
                // Also one that was asked for before a panic.
                (StopSaved::Kept, _) => {
                    build.stop = Some(Stop { reason, wish: Wish::Kept });
                    self.carry_out_stop(claim, fx);
                }
                (StopSaved::TooLate, Some(Wish::Asked)) => {
                    build.stop = Some(Stop { reason, wish: Wish::Unkept });
                }
                (StopSaved::Failed { .. }, Some(Wish::Asked)) => build.stop = None,
                (StopSaved::TooLate | StopSaved::Failed { .. }, _) => {}
            }
        }
        let answer = match saved {
            StopSaved::Kept => Answer::Done(true),
            StopSaved::TooLate => Answer::Done(false),
            StopSaved::Failed { error } => Answer::Failed { error: error.clone() },
        };
        let waiting = self.stops.remove(&claim).unwrap_or_default();
        fx.extend(waiting.into_iter().map(|reply| Effect::Answer(reply, answer.clone())));
    }

    /// A build ends with all of its requests: before its start was sent by
    /// calling it back, later by stopping it (row FF03).
    pub(super) fn carry_out_stop(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get(&claim) else { return };
        let Some(stop) = build.stop.as_ref().filter(|stop| stop.wish == Wish::Kept) else {
            return;
        };
        match build.phase {
            Phase::Starting => {
                fx.push(Effect::CallBackStart { worker: build.worker.clone(), claim });
            }
            Phase::Running | Phase::Orphaned => {
                fx.push(Effect::StopBuild { claim, reason: stop.reason.clone() });
            }
            // Its claim is being undone, and all of its requests end with it.
            Phase::Reserving
            | Phase::Substantiating
            | Phase::Failing
            | Phase::Claiming { .. }
            | Phase::Unclaiming => {}
        }
    }

    pub(super) fn on_stop_own(
        &mut self,
        claim: ClaimId,
        request: Option<RequestId>,
        reason: String,
        reply: Option<ReplyId>,
        fx: &mut Vec<Effect>,
    ) {
        if !self.builds.contains_key(&claim) {
            if let Some(reply) = reply {
                fx.push(Effect::Answer(reply, Answer::Done(false)));
            }
            // A stop that comes after the end changes nothing (row T02).
            fx.push(Effect::Ignored("stop of a build that is over"));
            return;
        }
        match request {
            Some(id) => self.cancel_in_build(claim, id, reply, fx),
            None => self.stop_own(claim, reason, reply, fx),
        }
    }
}
