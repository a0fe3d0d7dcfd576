//! What people ask about builds: stop.

use super::event::{Answer, Effect, ReplyId};
use super::{BuilderCore, Phase};
use crate::core::ids::*;

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
            self.stop_own(claim, reason, fx);
            fx.push(Effect::Answer(reply, Answer::Done(true)));
            return;
        }
        let inherited = self.inherited.iter().find(|(_, build)| build.build == Some(id));
        let found = inherited.is_some();
        if let Some((claim, _)) = inherited {
            fx.push(Effect::StopInherited {
                claim: *claim,
                build: Some(id),
                request: None,
                reason,
                reply: None,
            });
        }
        fx.push(Effect::Answer(reply, Answer::Done(found)));
    }

    /// A build ends with all of its requests: before its start was sent by
    /// calling it back, later by stopping it (row FF03).
    fn stop_own(&mut self, claim: ClaimId, reason: String, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        // A stop that was asked for before has its effect already.
        if build.stop.is_some() {
            return;
        }
        build.stop = Some(reason.clone());
        match build.phase {
            Phase::Reserving => {
                // Nothing is claimed yet: the store still has them waiting.
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
            Phase::Failing | Phase::Claiming { .. } | Phase::Unclaiming => {}
            Phase::Starting => {
                fx.push(Effect::CallBackStart { worker: build.worker.clone(), claim });
            }
            Phase::Running | Phase::Orphaned => fx.push(Effect::StopBuild { claim, reason }),
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
            None => self.stop_own(claim, reason, fx),
        }
    }
}
