//! From the choice of a worker to its acceptance, and every way back.

use super::event::{Effect, Event, StartFailure, StartOrder, Take};
use super::expectations::StepTimes;
use super::seat::{Pause, SeatRank, SeatUse};
use super::{ActiveBuild, BuilderCore, Leaving, MERGE_LIMIT, Phase, Request, STORE_PAUSE, Stage};
use crate::core::ids::*;
use crate::core::planted;
use crate::core::time::WallTime;

impl BuilderCore {
    /// Row B11: goes on until no request fits a worker, or the builder has as
    /// many builds as it may.
    pub(super) fn maybe_start_build(&mut self, fx: &mut Vec<Effect>) {
        if self.draining || self.store_pause.is_some_and(|until| until > self.now) {
            return;
        }
        self.store_pause = None;
        while !self.queue.is_empty() && self.has_room() {
            let Some((request, worker)) = self.choose() else { return };
            let requests = self.merged(request, &worker);
            let claim = ClaimId(self.rng.bits());
            if let Some(seat) = self.seats.get_mut(&worker)
                && !planted::is("b29_choosing_is_a_look")
                && !(seat.rank() == SeatRank::Unsubstantiated && planted::is("latent_chosen_twice"))
            {
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
                    requests,
                    config: self.config.clone(),
                    leaving: Vec::new(),
                    stop: None,
                    away: None,
                },
            );
            if planted::is("b11_one_start_a_time") {
                return;
            }
        }
    }

    /// Whether one more build may be begun. Builds of predecessors count: the
    /// limit holds over a reconfiguration too (invariant I5).
    pub(super) fn has_room(&self) -> bool {
        let builds = self.builds.len() + self.inherited.len();
        let full = |most| builds >= usize::try_from(most).unwrap_or(usize::MAX);
        !self.config.max_builds.is_some_and(full) || planted::is("claims_beyond_max_builds")
    }

    /// The first request that a free worker may run, taken out of the queue,
    /// and the worker for it.
    fn choose(&mut self) -> Option<(Request, WorkerName)> {
        let free = self.free_workers();
        let next = self.queue.next_for(free.iter().map(|(_, _, worker)| *worker))?;
        let first = self.queue.head().is_some_and(|head| head.id == next.id);
        if !first && planted::is("blocked_head") {
            return None;
        }
        let (id, named) = (next.id, next.worker.clone());
        let worker = match named {
            Some(worker) => worker,
            None => {
                let losses = next.losses.clone();
                self.choose_worker(&losses)?
            }
        };
        Some((self.queue.remove(id)?, worker))
    }

    /// Row B09: the requests that start together, `first` before the others.
    fn merged(&mut self, first: Request, worker: &WorkerName) -> Vec<Request> {
        if self.alone.contains(&first.id) {
            return vec![first];
        }
        let may = |id| !self.alone.contains(&id);
        let others = self.queue.alike(&first, worker, MERGE_LIMIT - 1, may);
        let others = others.into_iter().filter_map(|id| self.queue.remove(id));
        std::iter::once(first).chain(others.collect::<Vec<_>>()).collect()
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
            self.give_back(claim, Vec::new(), None, fx);
            return;
        }
        let worker = build.worker.clone();
        if self.must_substantiate(&worker) {
            // The worker is there, and this builder has not got hold of it.
            self.substantiate(claim, fx);
            return;
        }
        let Some(build) = self.builds.get_mut(&claim) else { return };
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
        for (request, _) in epochs {
            self.alone.remove(request);
        }
        build.build = Some(id);
        for request in &mut build.requests {
            if let Some((_, epoch)) = epochs.iter().find(|(id, _)| *id == request.id) {
                request.epoch = *epoch;
            }
        }
        if build.stop.is_some() || build.requests.iter().all(|own| build.leaves(own.id)) {
            self.unclaim(claim, fx);
            return;
        }
        let gone = build.take_leaving();
        if let (Some(head), false) = (build.requests.first(), gone.is_empty()) {
            let head = head.id;
            fx.push(Effect::CancelClaimed { claim, build: id, requests: gone, head });
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
        let (mut waiting, mut leaving) = (build.requests.clone(), build.leaving.clone());
        if build.stop.is_some() {
            leaving.extend(waiting.iter().map(|request| Leaving::quietly(request.id)));
        }
        self.end_start(claim, fx);
        let merged = waiting.len() > 1;
        self.cancel_waiting(&mut waiting, leaving, false, fx);
        if !transient {
            self.alone.retain(|id| self.queue.contains(*id));
            if merged {
                // One of them is not ours any more; which one is found out by
                // claiming each alone.
                self.alone.extend(waiting.iter().map(|request| request.id));
            } else {
                // Somebody else has it, or it ended: the store knows, we don't.
                waiting.clear();
            }
        }
        self.give_back(claim, waiting, None, fx);
    }

    pub(super) fn unclaim(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        self.take_back(claim, false, fx);
    }

    /// Undoes a claim. A refused start counts a try of its requests.
    fn take_back(&mut self, claim: ClaimId, refused: bool, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        let Some(id) = build.build else { return };
        build.enter(Phase::Unclaiming);
        let stopped = build.stop.is_some().then(|| build.requests.iter().map(|request| request.id));
        let mut cancelled: Vec<_> = build.leaving.iter().map(|leaving| leaving.id).collect();
        cancelled.extend(stopped.into_iter().flatten());
        cancelled.sort_unstable();
        cancelled.dedup();
        fx.push(Effect::Unclaim { claim, build: id, cancelled, refused });
    }

    /// A refused start counts a try, and ends the build when it was the last
    /// one: no request goes round for ever (rows B08 and FB08).
    fn refuse(&mut self, claim: ClaimId, reason: &str, fx: &mut Vec<Effect>) {
        let mut refusals = std::mem::take(&mut self.refusals);
        refusals.retain(|id, _| {
            let mut in_builds = self.builds.values().flat_map(|build| &build.requests);
            self.queue.contains(*id) || in_builds.any(|request| request.id == *id)
        });
        self.refusals = refusals;
        let Some(build) = self.builds.get_mut(&claim) else { return };
        let Some(id) = build.build else { return };
        let tries = build.requests.iter().map(|r| r.infra_tries).max().unwrap_or_default() + 1;
        let oldest = build.requests.first().map(|request| request.id);
        let reasons = oldest.map(|oldest| self.refusals.entry(oldest).or_default());
        let told = reasons.map_or_else(String::new, |reasons| {
            reasons.push(format!("{} ({reason})", build.worker));
            reasons.join(", ")
        });
        let unwanted = build.stop.is_some() || !build.leaving.is_empty();
        if tries <= build.config.infra_retries || unwanted {
            self.take_back(claim, true, fx);
            return;
        }
        build.enter(Phase::Unclaiming);
        let text = format!("no worker could start it in {tries} tries: {told}");
        fx.push(Effect::GiveUp { claim, build: id, text });
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
        let (mut waiting, mut leaving) = (requests, build.leaving.clone());
        if build.stop.is_some() {
            leaving.extend(waiting.iter().map(|request| Leaving::quietly(request.id)));
        }
        self.end_start(claim, fx);
        // A cancel that came while the claim was being undone finds its
        // request waiting again.
        self.cancel_waiting(&mut waiting, leaving, true, fx);
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
        let unwanted =
            build.stop.is_some() || build.requests.iter().all(|request| build.leaves(request.id));
        if let (StartFailure::InDoubt { session }, false) = (failure, unwanted) {
            self.run(claim, Take::InDoubt { session: Some(*session) }, fx);
            return;
        }
        let worker = build.worker.clone();
        if matches!(failure, StartFailure::Left | StartFailure::InDoubt { .. }) {
            // Nobody's fault, and over once it is back: no pause.
            fx.push(Effect::Note {
                worker: Some(worker.clone()),
                text: format!("failed start {worker}"),
                error: Some("the worker left".into()),
            });
            self.unclaim(claim, fx);
            return;
        }
        let error = match failure {
            StartFailure::CalledBack | StartFailure::Left | StartFailure::InDoubt { .. } => None,
            StartFailure::NoAnswer(text) => Some(text.clone()),
            StartFailure::Refused { code, message } => Some(format!("{code}: {message}")),
        };
        if error.is_none() && build.leaving.is_empty() && build.stop.is_none() {
            // The seat was not as this builder saw it. Without a pause the two
            // could go round in circles.
            self.pauses.insert(worker.clone(), Pause::short(self.now));
        }
        if let Some(error) = error {
            let before = self.pauses.get(&worker);
            let pause = Pause::after(before, self.now, error.clone());
            self.pauses.insert(worker.clone(), pause);
            fx.push(Effect::Note {
                worker: Some(worker.clone()),
                text: format!("failed start {worker}"),
                error: Some(error),
            });
        }
        match failure {
            StartFailure::Refused { code, message } => {
                self.refuse(claim, &format!("{code}: {message}"), fx);
            }
            StartFailure::NoAnswer(_)
            | StartFailure::CalledBack
            | StartFailure::Left
            | StartFailure::InDoubt { .. } => self.unclaim(claim, fx),
        }
    }

    pub(super) fn on_start_accepted(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("start answer of a build that is gone"));
            return;
        };
        if build.phase != Phase::Starting {
            fx.push(Effect::Ignored("start answer told twice"));
            return;
        }
        self.pauses.remove(&build.worker);
        self.run(claim, Take::Accepted, fx);
    }

    /// A Build looks after it from now on.
    pub(super) fn run(&mut self, claim: ClaimId, take: Take, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        let Some(id) = build.build else { return };
        build.enter(match take {
            Take::Accepted => Phase::Running,
            Take::InDoubt { .. } => Phase::Orphaned,
        });
        fx.push(Effect::RunBuild {
            claim,
            build: id,
            worker: build.worker.clone(),
            requests: build.requests.clone(),
            config: build.config.clone(),
            expected: self.expectations.snapshot(),
            take,
        });
        // A stop that came too late to call the start back.
        self.carry_out_stop(claim, fx);
    }

    /// The build leaves `builds`; its seat and its slot are free again.
    pub(super) fn end_start(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        self.leave(claim, false, fx);
    }

    /// As [`Self::end_start`]. With `in_turn` this builder does not take the
    /// worker again by itself: every builder is tried, the one with the oldest
    /// request first (rows B16 and B32), or those that share the worker with a
    /// busy builder would starve.
    pub(super) fn leave(&mut self, claim: ClaimId, in_turn: bool, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.remove(&claim) else { return };
        build.check(Stage::Away);
        if !planted::is("b16_worker_stays_taken") {
            self.free_seat(&build.worker, claim, false);
        }
        if let Some(seat) = self.seats.get_mut(&build.worker) {
            seat.in_turn |= in_turn;
        }
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
        if self.retired && !planted::is("t09_stranded_in_the_predecessor") {
            fx.push(Effect::TellSuccessor(Event::InheritedFinished {
                claim,
                requeued: requests,
                times,
            }));
            return;
        }
        self.queue_again(requests);
    }

    /// Requests wait again, in the order that they had (row B08): their place
    /// says it, however they were merged.
    pub(super) fn queue_again(&mut self, mut requests: Vec<Request>) {
        if planted::is("merge_reverses") {
            let last = requests.last().map_or(WallTime(0), |request| request.submitted_at);
            for (place, request) in (0..).zip(&mut requests) {
                request.submitted_at = WallTime(last.0 - place);
            }
        }
        for request in requests {
            self.queue.push(request);
        }
    }
}
