//! From the choice of a worker to its acceptance, and every way back.

use super::event::{Answer, Effect, Event, StartFailure, StartOrder};
use super::expectations::StepTimes;
use super::seat::{Pause, SeatUse};
use super::{ActiveBuild, BuilderCore, Phase, Request, STORE_PAUSE, Stage};
use crate::core::ids::*;

impl BuilderCore {
    /// Row B11: goes on until the queue or the workers run out.
    pub(super) fn maybe_start_build(&mut self, fx: &mut Vec<Effect>) {
        if self.draining || self.store_pause.is_some_and(|until| until > self.now) {
            return;
        }
        self.store_pause = None;
        while !self.queue.is_empty() {
            let Some(worker) = self.choose_worker() else { return };
            let Some(request) = self.queue.take_head() else { return };
            let claim = ClaimId(self.rng.bits());
            if let Some(seat) = self.seats.get_mut(&worker) {
                seat.used = SeatUse::Taken(claim);
            }
            fx.push(Effect::AskSlot { worker: worker.clone(), claim });
            self.builds.insert(
                claim,
                ActiveBuild {
                    worker,
                    phase: Phase::Reserving,
                    build: None,
                    number: None,
                    requests: vec![request],
                    config: self.config.clone(),
                    cancelled: Vec::new(),
                    stop: None,
                },
            );
        }
    }

    pub(super) fn on_slot_granted(
        &mut self,
        claim: ClaimId,
        worker_id: WorkerId,
        incarnation: Incarnation,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("slot for a build that is gone"));
            return;
        };
        if build.phase != Phase::Reserving {
            return;
        }
        if build.requests.is_empty() {
            // All of them were cancelled meanwhile.
            self.end_start(claim, fx);
            return;
        }
        build.enter(Phase::Claiming { worker_id, incarnation });
        fx.push(Effect::Claim {
            claim,
            worker_id,
            incarnation,
            requests: build.requests.iter().map(|request| (request.id, request.epoch)).collect(),
            config: build.config.clone(),
        });
    }

    /// A refused claim leaves the request where it was (row B29).
    pub(super) fn on_slot_refused(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        if !self.builds.get(&claim).is_some_and(|build| build.phase == Phase::Reserving) {
            fx.push(Effect::Ignored("slot refused to a build that is not waiting for one"));
            return;
        }
        let Some(build) = self.builds.remove(&claim) else { return };
        build.check(Stage::Away);
        self.free_seat(&build.worker, claim, true);
        self.give_back(claim, build.requests, None, fx);
    }

    pub(super) fn on_claimed(
        &mut self,
        claim: ClaimId,
        id: BuildId,
        epochs: &[(RequestId, Epoch)],
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("claim of a build that is gone"));
            return;
        };
        if !matches!(build.phase, Phase::Claiming { .. }) {
            fx.push(Effect::Ignored("claim told twice"));
            return;
        }
        build.build = Some(id);
        for request in &mut build.requests {
            if let Some((_, epoch)) = epochs.iter().find(|(id, _)| *id == request.id) {
                request.epoch = *epoch;
            }
        }
        if !build.cancelled.is_empty() {
            self.unclaim(claim, fx);
            return;
        }
        build.enter(Phase::Starting);
        fx.push(Effect::StartOnSeat {
            worker: build.worker.clone(),
            order: StartOrder {
                claim,
                build: id,
                requests: build
                    .requests
                    .iter()
                    .map(|request| (request.id, request.epoch))
                    .collect(),
                ping_timeout: build.config.start_timeout,
                config: build.config.clone(),
            },
        });
    }

    pub(super) fn on_claim_lost(
        &mut self,
        claim: ClaimId,
        error: &str,
        transient: bool,
        fx: &mut Vec<Effect>,
    ) {
        if !self.builds.get(&claim).is_some_and(|b| matches!(b.phase, Phase::Claiming { .. })) {
            return;
        }
        fx.push(Effect::Note {
            worker: None,
            text: "claim failed".into(),
            error: Some(error.to_owned()),
        });
        self.store_pause = Some(self.now + STORE_PAUSE);
        let Some(build) = self.builds.get(&claim) else { return };
        let requests = build.requests.clone();
        let cancelled = build.cancelled.clone();
        self.end_start(claim, fx);
        if transient {
            let mut waiting = requests;
            for (id, reply) in cancelled {
                if let Some(place) = waiting.iter().position(|request| request.id == id) {
                    let request = waiting.remove(place);
                    fx.push(Effect::CancelWaiting { request, reply });
                }
            }
            self.give_back(claim, waiting, None, fx);
        } else {
            // Somebody else has them, or they ended: the store knows, we don't.
            for (_, reply) in cancelled {
                if let Some(reply) = reply {
                    fx.push(Effect::Answer(reply, Answer::Done(false)));
                }
            }
        }
    }

    pub(super) fn unclaim(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        let Some(id) = build.build else { return };
        build.enter(Phase::Unclaiming);
        let cancelled = build.cancelled.iter().map(|(id, _)| *id).collect();
        fx.push(Effect::Unclaim { claim, build: id, cancelled });
    }

    pub(super) fn on_unclaimed(
        &mut self,
        claim: ClaimId,
        requests: Vec<Request>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get(&claim) else { return };
        if build.phase != Phase::Unclaiming {
            return;
        }
        let cancelled = build.cancelled.clone();
        self.end_start(claim, fx);
        // A cancel that came while the claim was being undone finds its
        // request waiting again.
        let mut waiting = requests;
        for (id, reply) in cancelled {
            match waiting.iter().position(|request| request.id == id) {
                Some(place) => {
                    let request = waiting.remove(place);
                    fx.push(Effect::CancelWaiting { request, reply });
                }
                None => {
                    if let Some(reply) = reply {
                        fx.push(Effect::Answer(reply, Answer::Done(true)));
                    }
                }
            }
        }
        self.give_back(claim, waiting, None, fx);
    }

    pub(super) fn on_start_failed(
        &mut self,
        claim: ClaimId,
        failure: &StartFailure,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get(&claim) else {
            fx.push(Effect::Ignored("start failure of a build that is gone"));
            return;
        };
        if build.phase != Phase::Starting {
            fx.push(Effect::Ignored("start failure told twice"));
            return;
        }
        let worker = build.worker.clone();
        let error = match failure {
            StartFailure::CalledBack => None,
            StartFailure::NoAnswer(text) => Some(text.clone()),
            StartFailure::Refused { code, message } => Some(format!("{code}: {message}")),
        };
        if error.is_none() && build.cancelled.is_empty() {
            // The seat was not as this builder saw it. Without a pause the two
            // could go round in circles.
            self.pauses.insert(worker.clone(), Pause::short(self.now));
        }
        if let Some(error) = error {
            let pause = Pause::after(self.pauses.get(&worker).copied(), self.now);
            self.pauses.insert(worker.clone(), pause);
            fx.push(Effect::Note {
                worker: Some(worker.clone()),
                text: format!("failed start {worker}"),
                error: Some(error),
            });
        }
        self.unclaim(claim, fx);
    }

    pub(super) fn on_start_accepted(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("start answer of a build that is gone"));
            return;
        };
        let (Phase::Starting, Some(id)) = (build.phase, build.build) else {
            fx.push(Effect::Ignored("start answer told twice"));
            return;
        };
        self.pauses.remove(&build.worker);
        build.enter(Phase::Running);
        fx.push(Effect::RunBuild {
            claim,
            build: id,
            worker: build.worker.clone(),
            requests: build.requests.clone(),
            config: build.config.clone(),
            expected: self.expectations.snapshot(),
        });
        // A cancel that came too late to call the start back stops the build.
        let late = std::mem::take(&mut build.cancelled);
        if !late.is_empty() {
            build.stop = Some("cancelled".into());
            fx.push(Effect::StopBuild { claim, reason: "cancelled".into() });
        }
        for reply in late.into_iter().filter_map(|(_, reply)| reply) {
            fx.push(Effect::Answer(reply, Answer::Done(true)));
        }
    }

    /// The build leaves `builds`; its seat and its slot are free again.
    pub(super) fn end_start(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.remove(&claim) else { return };
        build.check(Stage::Away);
        self.free_seat(&build.worker, claim, false);
        fx.push(Effect::BuildOver { worker: build.worker.clone(), claim });
        fx.push(Effect::GiveBackSlot { worker: build.worker, claim });
    }

    /// Puts requests back where they belong: our queue, or the latest
    /// successor's (row T09).
    pub(super) fn give_back(
        &mut self,
        claim: ClaimId,
        requests: Vec<Request>,
        times: Option<StepTimes>,
        fx: &mut Vec<Effect>,
    ) {
        if self.retired {
            fx.push(Effect::TellSuccessor(Event::InheritedFinished {
                claim,
                requeued: requests,
                times,
            }));
            return;
        }
        for request in requests {
            self.queue.push(request);
        }
    }
}
