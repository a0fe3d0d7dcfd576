//! Requests that come, wait again, and are cancelled.

use std::collections::BTreeSet;

use super::event::{Answer, Effect, Event, ReplyId};
use super::{ActiveBuild, BuilderCore, Leaving, Phase, Request};
use crate::core::ids::*;
use crate::core::planted;

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
        self.queue_again(requests);
    }

    pub(super) fn on_cancel(
        &mut self,
        id: RequestId,
        reason: String,
        reply: ReplyId,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(request) = self.queue.remove(id) {
            if planted::is("b07_cancelled_one_waits_on") {
                self.queue.push(request.clone());
            }
            fx.push(Effect::CancelWaiting { request, reply: Some(reply) });
            return;
        }
        let mine = self.builds.iter().find(|(_, build)| build.has(id)).map(|(claim, _)| *claim);
        if let Some(claim) = mine {
            self.cancel_in_build(claim, id, Some(reply), fx);
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

    /// Cancels a request that a build has, as long as its start was not sent;
    /// later nothing changes (row B07).
    pub(super) fn cancel_in_build(
        &mut self,
        claim: ClaimId,
        id: RequestId,
        reply: Option<ReplyId>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get(&claim).filter(|build| build.has(id)) else {
            fx.extend(reply.map(|reply| Effect::Answer(reply, Answer::Done(false))));
            return;
        };
        let mut ids = vec![(id, reply)];
        if planted::is("cancel_forgets_merged") {
            let others = build.requests.iter().filter(|request| request.id != id);
            ids.extend(others.map(|request| (request.id, None)));
        }
        for (id, reply) in ids {
            self.leave_build(claim, id, reply, fx);
        }
    }

    fn leave_build(
        &mut self,
        claim: ClaimId,
        id: RequestId,
        reply: Option<ReplyId>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        let leaving = Leaving { id, reply, out: None };
        match build.phase {
            Phase::Reserving => {
                // Nothing is claimed yet: the store still has it waiting.
                if let Some(request) = build.take(id) {
                    fx.push(Effect::CancelWaiting { request, reply });
                }
            }
            Phase::Substantiating => {
                if let Some(request) = build.take(id) {
                    fx.push(Effect::CancelWaiting { request, reply });
                }
                if self.builds.get(&claim).is_some_and(|build| build.requests.is_empty()) {
                    self.call_back_substantiation(claim, fx);
                }
            }
            Phase::Claiming { .. } | Phase::Unclaiming => build.leaving.push(leaving),
            Phase::Starting => {
                let asked = build.leaves(id);
                build.leaving.push(leaving);
                if !asked {
                    let worker = build.worker.clone();
                    fx.push(Effect::LeaveStart { worker, claim, request: id });
                }
            }
            Phase::Failing | Phase::Running | Phase::Orphaned => {
                fx.extend(reply.map(|reply| Effect::Answer(reply, Answer::Done(false))));
            }
        }
    }

    /// The SlaveBuilder says whether the start goes without the request.
    pub(super) fn on_left_start(
        &mut self,
        claim: ClaimId,
        id: RequestId,
        in_time: bool,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("a request left a start that is over"));
            return;
        };
        // One whose start is in doubt keeps what it was sent with.
        if !in_time || matches!(build.phase, Phase::Running | Phase::Orphaned) {
            build.settle_leaving(id, false, fx);
            return;
        }
        // The last one is not taken out: its start comes back as a whole. So
        // it is with one that is being undone already.
        let (Phase::Starting, Some(known)) = (build.phase, build.build) else { return };
        if build.requests.len() < 2 {
            return;
        }
        let Some(out) = build.take(id) else { return };
        if let Some(leaving) = build.leaving.iter_mut().find(|leaving| leaving.id == id) {
            leaving.out = Some(out);
        }
        if let Some(head) = build.requests.first().map(|head| head.id) {
            fx.push(Effect::CancelClaimed { claim, build: known, requests: vec![id], head });
        }
    }

    /// The store ended requests that left, or their build had started with
    /// them: then it has them still.
    pub(super) fn on_cancelled_claimed(
        &mut self,
        claim: ClaimId,
        ids: &[RequestId],
        done: bool,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("requests left a build that is over"));
            return;
        };
        for id in ids {
            if !done {
                let out = build.leaving.iter_mut().filter(|leaving| leaving.id == *id);
                let out: Vec<_> = out.filter_map(|leaving| leaving.out.take()).collect();
                build.requests.extend(out);
            }
            build.settle_leaving(*id, done, fx);
        }
    }

    /// Cancels those of `waiting` that are `leaving`, each once. For one that
    /// does not wait, who waits is told whether the store `ended` it.
    pub(super) fn cancel_waiting(
        &self,
        waiting: &mut Vec<Request>,
        leaving: Vec<Leaving>,
        ended: bool,
        fx: &mut Vec<Effect>,
    ) {
        let mut cancelled = BTreeSet::new();
        for Leaving { id, reply, out: _ } in leaving {
            if let Some(place) = waiting.iter().position(|request| request.id == id) {
                cancelled.insert(id);
                let request = waiting.remove(place);
                fx.push(Effect::CancelWaiting { request, reply });
                continue;
            }
            let done = ended && !cancelled.contains(&id);
            fx.extend(reply.map(|reply| Effect::Answer(reply, Answer::Done(done))));
        }
    }
}

impl ActiveBuild {
    /// Whether it has this request, be it on its way out.
    pub(super) fn has(&self, id: RequestId) -> bool {
        self.requests.iter().any(|request| request.id == id) || self.leaves(id)
    }

    fn take(&mut self, id: RequestId) -> Option<Request> {
        let place = self.requests.iter().position(|request| request.id == id)?;
        Some(self.requests.remove(place))
    }

    /// Whether somebody wants it out.
    pub(super) fn leaves(&self, id: RequestId) -> bool {
        self.leaving.iter().any(|leaving| leaving.id == id)
    }

    /// Takes those out that are leaving.
    pub(super) fn take_leaving(&mut self) -> Vec<RequestId> {
        let mut gone = Vec::new();
        for leaving in &mut self.leaving {
            if let Some(place) = self.requests.iter().position(|own| own.id == leaving.id) {
                gone.push(leaving.id);
                leaving.out = Some(self.requests.remove(place));
            }
        }
        gone
    }

    fn settle_leaving(&mut self, id: RequestId, done: bool, fx: &mut Vec<Effect>) {
        self.leaving.retain(|leaving| {
            if leaving.id == id {
                let answer = |reply| Effect::Answer(reply, Answer::Done(done));
                fx.extend(leaving.reply.map(answer));
            }
            leaving.id != id
        });
    }
}

impl Leaving {
    /// One that nobody waits for.
    pub(super) fn quietly(id: RequestId) -> Self {
        Self { id, reply: None, out: None }
    }
}
