//! What people ask about requests and builds: cancel, stop.

use super::event::{Answer, Effect, Event, ReplyId};
use super::{BuilderCore, Phase, Request};
use crate::core::ids::*;

impl BuilderCore {
    pub(super) fn on_enqueue(&mut self, requests: Vec<Request>) {
        for request in requests {
            if request.id > self.loaded_through {
                self.queue.push(request);
            }
        }
    }

    /// Requests that wait again: here, or where the queue has gone meanwhile.
    pub(super) fn on_return(&mut self, requests: Vec<Request>, fx: &mut Vec<Effect>) {
        if self.retired {
            fx.push(Effect::TellSuccessor(Event::Return(requests)));
            return;
        }
        for request in requests {
            self.queue.push(request);
        }
    }

    pub(super) fn on_cancel(
        &mut self,
        id: RequestId,
        reason: String,
        reply: ReplyId,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(request) = self.queue.remove(id) {
            fx.push(Effect::CancelWaiting { request, reply: Some(reply) });
            return;
        }
        let mine = self
            .builds
            .iter()
            .find(|(_, build)| build.requests.iter().any(|request| request.id == id))
            .map(|(claim, _)| *claim);
        if let Some(claim) = mine {
            self.cancel_in_build(claim, id, reason, Some(reply), fx);
            return;
        }
        let inherited = self.inherited.iter().find(|(_, build)| build.requests.contains(&id));
        if let Some((claim, build)) = inherited {
            fx.push(Effect::StopInherited {
                claim: *claim,
                build: build.build,
                request: Some(id),
                reason,
                reply: Some(reply),
            });
            return;
        }
        fx.push(Effect::Answer(reply, Answer::Done(false)));
    }

    /// Cancels a request that a build has: out of the build while its start
    /// was not sent (row B07), by stopping the build later.
    pub(super) fn cancel_in_build(
        &mut self,
        claim: ClaimId,
        id: RequestId,
        reason: String,
        reply: Option<ReplyId>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        match build.phase {
            Phase::Reserving => {
                // Nothing is claimed yet: the store still has it waiting.
                let place = build.requests.iter().position(|request| request.id == id);
                if let Some(place) = place {
                    let request = build.requests.remove(place);
                    fx.push(Effect::CancelWaiting { request, reply });
                } else if let Some(reply) = reply {
                    fx.push(Effect::Answer(reply, Answer::Done(false)));
                }
            }
            Phase::Claiming { .. } | Phase::Unclaiming => build.cancelled.push((id, reply)),
            Phase::Starting => {
                build.cancelled.push((id, reply));
                fx.push(Effect::CallBackStart { worker: build.worker.clone(), claim });
            }
            Phase::Running | Phase::Orphaned => {
                if build.stop.is_none() {
                    build.stop = Some(reason.clone());
                    fx.push(Effect::StopBuild { claim, reason });
                }
                if let Some(reply) = reply {
                    fx.push(Effect::Answer(reply, Answer::Done(true)));
                }
            }
        }
    }

    pub(super) fn on_stop(
        &mut self,
        id: BuildId,
        reason: String,
        reply: ReplyId,
        fx: &mut Vec<Effect>,
    ) {
        let mine = self.builds.iter().find(|(_, build)| build.build == Some(id));
        if let Some((claim, build)) = mine {
            let claim = *claim;
            match build.phase {
                Phase::Running | Phase::Orphaned => {
                    // A stop that was asked for before has its effect already.
                    let first = build.stop.is_none();
                    if let Some(build) = self.builds.get_mut(&claim) {
                        build.stop.get_or_insert_with(|| reason.clone());
                    }
                    if first {
                        fx.push(Effect::StopBuild { claim, reason });
                    }
                }
                _ => {
                    let ids: Vec<_> = build.requests.iter().map(|request| request.id).collect();
                    for id in ids {
                        self.cancel_in_build(claim, id, reason.clone(), None, fx);
                    }
                }
            }
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

    pub(super) fn on_stop_own(
        &mut self,
        claim: ClaimId,
        request: Option<RequestId>,
        reason: String,
        reply: Option<ReplyId>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get(&claim) else {
            if let Some(reply) = reply {
                fx.push(Effect::Answer(reply, Answer::Done(false)));
            }
            // A stop that comes after the end changes nothing (row T02).
            fx.push(Effect::Ignored("stop of a build that is over"));
            return;
        };
        let ids: Vec<_> = match request {
            Some(id) => vec![id],
            None => build.requests.iter().map(|request| request.id).collect(),
        };
        for id in ids {
            self.cancel_in_build(claim, id, reason.clone(), reply, fx);
        }
    }
}
