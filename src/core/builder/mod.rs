//! One builder: its queue, its seats, and which build has which seat.
//!
//! Owns the decision what starts where, and what becomes of requests whose
//! start fails. Deliberately absent: the conversation with a worker (that is
//! `slave_builder`), the steps of a build (`build`), how anything is stored.
//! It must always hold that every request it was given is in exactly one
//! place: in the queue, in one build, or told off as ended.

mod compare;
mod event;
mod expectations;
mod handover;
mod queue;
mod rebuild;
mod seat;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use compare::compare_to_setup;
pub use event::{Answer, Effect, Event, ReplyId, StartFailure, StartOrder};
pub use expectations::{Expectations, StepTimes};
pub use handover::{Handover, InheritedBuild};
pub use queue::{Queue, Request};
pub use rebuild::{OpenBuild, Records, SeatReport, SeatReportUse};
pub use seat::{Pause, Seat, SeatUse};

use super::ids::*;
use super::rng::Rng;
use super::time::{Now, Timestamp, WallTime};
use super::values::{BuilderConfig, ChooseWorker};
use super::views::{ActiveBuildView, BigState, BuilderView};

/// Where a build of this builder stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The worker was asked for a slot; it answers in the same process.
    Reserving,
    /// The store was asked; it answers or closes.
    Claiming { worker_id: WorkerId, incarnation: Incarnation },
    /// The SlaveBuilder pings and starts, with deadlines of its own.
    Starting,
    /// The store was asked to undo the claim.
    Unclaiming,
    /// The Build actor has it; its number may still be on the way.
    Running,
    /// As running, with its worker away; the Build actor keeps the grace.
    Orphaned,
}

/// One build, from the choice of its worker on.
#[derive(Clone, PartialEq, Debug)]
struct ActiveBuild {
    worker: WorkerName,
    phase: Phase,
    build: Option<BuildId>,
    number: Option<BuildNumber>,
    requests: Vec<Request>,
    /// The builder as it was when the build was chosen.
    config: Arc<BuilderConfig>,
    /// Requests cancelled while the start was on its way, with who waits.
    cancelled: Vec<(RequestId, Option<ReplyId>)>,
    /// Why it shall stop, when it shall.
    stop: Option<String>,
}

impl ActiveBuild {
    fn word(&self) -> &'static str {
        match self.phase {
            Phase::Reserving => "reserving",
            Phase::Claiming { .. } => "claiming",
            Phase::Starting => "starting",
            Phase::Unclaiming => "returning",
            Phase::Running => "running",
            Phase::Orphaned => "orphaned",
        }
    }
}

/// A person's ping of all workers.
#[derive(Clone, PartialEq, Debug)]
struct PingRound {
    reply: ReplyId,
    waiting: BTreeSet<WorkerName>,
    ok: bool,
}

/// The state of one Builder actor.
#[derive(Clone, PartialEq, Debug)]
pub struct BuilderCore {
    id: BuilderId,
    generation: Generation,
    config: Arc<BuilderConfig>,
    rng: Rng,
    now: Timestamp,
    queue: Queue,
    loaded_through: RequestId,
    seats: BTreeMap<WorkerName, Seat>,
    next_order: u64,
    pauses: BTreeMap<WorkerName, Pause>,
    builds: BTreeMap<ClaimId, ActiveBuild>,
    inherited: BTreeMap<ClaimId, InheritedBuild>,
    pings: Vec<PingRound>,
    expectations: Expectations,
    big_state: BigState,
    oldest: Option<WallTime>,
    retired: bool,
    draining: bool,
    /// Claims are held back until then, after the store could not write.
    store_pause: Option<Timestamp>,
}

/// How long nothing is claimed after the store could not write.
const STORE_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

impl BuilderCore {
    /// A builder with nothing to do yet.
    #[must_use]
    pub fn new(
        id: BuilderId,
        generation: Generation,
        config: Arc<BuilderConfig>,
        rng: Rng,
    ) -> Self {
        Self {
            id,
            generation,
            config,
            rng,
            now: Timestamp::default(),
            queue: Queue::default(),
            loaded_through: RequestId(0),
            seats: BTreeMap::new(),
            next_order: 0,
            pauses: BTreeMap::new(),
            builds: BTreeMap::new(),
            inherited: BTreeMap::new(),
            pings: Vec::new(),
            expectations: Expectations::default(),
            big_state: BigState::Offline,
            oldest: None,
            retired: false,
            draining: false,
            store_pause: None,
        }
    }

    /// Takes in one event; what shall be done is pushed onto `fx`, in order.
    pub fn handle(&mut self, now: Now, event: Event, fx: &mut Vec<Effect>) {
        self.now = self.now.max(now.mono);
        match event {
            Event::Enqueue(requests) => self.on_enqueue(requests),
            Event::Cancel { request, reason, reply } => self.on_cancel(request, reason, reply, fx),
            Event::CancelFailed(request) => self.queue.push(request),
            Event::SetPriority { request, priority, reply } => {
                let waits = self.queue.set_priority(request, priority);
                if waits {
                    fx.push(Effect::SavePriority { request, priority });
                }
                fx.push(Effect::Answer(reply, Answer::Done(waits)));
            }
            Event::Stop { build, reason, reply } => self.on_stop(build, reason, reply, fx),
            Event::Ping { reply } => self.on_ping(reply, fx),
            Event::Attach { worker, session } => self.on_attach(worker, session, fx),
            Event::Attached { worker, session, building } => {
                self.on_attached(&worker, session, building, fx);
            }
            Event::AttachFailed { worker, session, error } => {
                self.on_attach_failed(&worker, session, error, fx);
            }
            Event::Detach { worker, session } => self.on_detach(&worker, session, fx),
            Event::PingDone { worker, ok } => self.on_ping_done(&worker, ok, fx),
            Event::MaybeStart { worker } => self.on_maybe_start(worker.as_ref()),
            Event::SlotGranted { claim, worker_id, incarnation } => {
                self.on_slot_granted(claim, worker_id, incarnation, fx);
            }
            Event::SlotRefused { claim } => self.on_slot_refused(claim, fx),
            Event::Claimed { claim, build, requests } => {
                self.on_claimed(claim, build, requests, fx);
            }
            Event::ClaimLost { claim, error, transient } => {
                self.on_claim_lost(claim, &error, transient, fx);
            }
            Event::Unclaimed { claim, requests } => self.on_unclaimed(claim, requests, fx),
            Event::StartFailed { claim, failure } => self.on_start_failed(claim, &failure, fx),
            Event::StartAccepted { claim } => self.on_start_accepted(claim, fx),
            Event::Started { claim, number } => self.on_started(claim, number, fx),
            Event::Orphaned { claim, orphaned } => self.on_orphaned(claim, orphaned, fx),
            Event::Finished { claim, result: _, requeued, times } => {
                self.on_finished(claim, requeued, times, fx);
            }
            Event::InheritedFinished { claim, requeued, times } => {
                self.on_inherited_finished(claim, requeued, times, fx);
            }
            Event::InheritedStarted { claim, build, number } => {
                self.on_inherited_started(claim, build, number, fx);
            }
            Event::StopOwn { claim, request, reason } => {
                self.on_stop_own(claim, request, reason, fx);
            }
            Event::DeadlineReached => {}
            Event::Drain => self.draining = true,
        }
        self.settle(fx);
    }

    /// When `DeadlineReached` is due, or never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.queue.is_empty() || self.retired {
            return None;
        }
        let pauses = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.is_available())
            .filter_map(|(worker, _)| self.pauses.get(worker))
            .map(|pause| pause.until);
        pauses.chain(self.store_pause).filter(|until| *until > self.now).min()
    }

    /// Everything that follows from the state alone: starts, the big state,
    /// the head of the queue.
    fn settle(&mut self, fx: &mut Vec<Effect>) {
        if self.retired {
            self.let_go(fx);
            return;
        }
        self.maybe_start_build(fx);
        self.refresh_big_state(fx);
        let oldest = self.queue.oldest_request_time();
        if oldest != self.oldest {
            self.oldest = oldest;
            fx.push(Effect::OldestChanged(oldest));
        }
    }

    /// A retired builder drops the seats that nobody uses any more (row T05),
    /// and is over when nothing is left.
    fn let_go(&mut self, fx: &mut Vec<Effect>) {
        let idle: Vec<WorkerName> = self
            .seats
            .iter()
            .filter(|(_, seat)| !matches!(seat.used, SeatUse::Taken(_)))
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in idle {
            self.seats.remove(&worker);
            fx.push(Effect::DropSeat { worker });
        }
        if self.builds.is_empty() && self.pings.is_empty() {
            fx.push(Effect::Over);
        }
    }

    /// Row B11: goes on until the queue or the workers run out.
    fn maybe_start_build(&mut self, fx: &mut Vec<Effect>) {
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

    /// Row B12.
    fn choose_worker(&mut self) -> Option<WorkerName> {
        let now = self.now;
        let mut free: Vec<(&WorkerName, u64)> = self
            .seats
            .iter()
            .filter(|(worker, seat)| {
                seat.is_available()
                    && self.pauses.get(*worker).is_none_or(|pause| pause.until <= now)
            })
            .map(|(worker, seat)| (worker, seat.order))
            .collect();
        if free.is_empty() {
            return None;
        }
        let index = match self.config.choose {
            ChooseWorker::Random => self.rng.index(free.len()),
            ChooseWorker::First => {
                free.sort_by_key(|(_, order)| *order);
                0
            }
        };
        free.get(index).map(|(worker, _)| (*worker).clone())
    }

    /// Row B17.
    fn refresh_big_state(&mut self, fx: &mut Vec<Effect>) {
        let attached = self.seats.values().any(|seat| seat.used != SeatUse::Attaching);
        let building = !self.builds.is_empty() || !self.inherited.is_empty();
        let state = if !attached && !building {
            BigState::Offline
        } else if building {
            BigState::Building
        } else {
            BigState::Idle
        };
        if state != self.big_state {
            self.big_state = state;
            fx.push(Effect::Note { worker: None, text: state.word().into(), error: None });
        }
    }

    fn on_enqueue(&mut self, requests: Vec<Request>) {
        for request in requests {
            if request.id > self.loaded_through {
                self.queue.push(request);
            }
        }
    }

    fn on_cancel(&mut self, id: RequestId, reason: String, reply: ReplyId, fx: &mut Vec<Effect>) {
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
            });
            fx.push(Effect::Answer(reply, Answer::Done(true)));
            return;
        }
        fx.push(Effect::Answer(reply, Answer::Done(false)));
    }

    /// Cancels a request that a build has: out of the build while its start
    /// was not sent (row B07), by stopping the build later.
    fn cancel_in_build(
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

    fn on_stop(&mut self, id: BuildId, reason: String, reply: ReplyId, fx: &mut Vec<Effect>) {
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
            });
        }
        fx.push(Effect::Answer(reply, Answer::Done(found)));
    }

    fn on_stop_own(
        &mut self,
        claim: ClaimId,
        request: Option<RequestId>,
        reason: String,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get(&claim) else {
            // A stop that comes after the end changes nothing (row T02).
            fx.push(Effect::Ignored("stop of a build that is over"));
            return;
        };
        let ids: Vec<_> = match request {
            Some(id) => vec![id],
            None => build.requests.iter().map(|request| request.id).collect(),
        };
        for id in ids {
            self.cancel_in_build(claim, id, reason.clone(), None, fx);
        }
    }

    /// Row C03.
    fn on_ping(&mut self, reply: ReplyId, fx: &mut Vec<Effect>) {
        let workers: BTreeSet<WorkerName> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.used != SeatUse::Attaching)
            .map(|(worker, _)| worker.clone())
            .collect();
        if workers.is_empty() {
            fx.push(Effect::Note { worker: None, text: "ping no worker".into(), error: None });
            fx.push(Effect::Answer(reply, Answer::Done(false)));
            return;
        }
        for worker in &workers {
            if let Some(seat) = self.seats.get_mut(worker) {
                seat.pinging = true;
            }
            fx.push(Effect::PingSeat { worker: worker.clone() });
        }
        self.pings.push(PingRound { reply, waiting: workers, ok: true });
    }

    fn on_ping_done(&mut self, worker: &WorkerName, ok: bool, fx: &mut Vec<Effect>) {
        if self.retired {
            // The seat moved with its flag; whoever has it now clears it.
            fx.push(Effect::TellSuccessor(Event::PingDone { worker: worker.clone(), ok }));
        }
        if let Some(seat) = self.seats.get_mut(worker) {
            seat.pinging = false;
        }
        for round in &mut self.pings {
            if round.waiting.remove(worker) {
                round.ok &= ok;
            }
        }
        self.pings.retain(|round| {
            if round.waiting.is_empty() {
                fx.push(Effect::Answer(round.reply, Answer::Done(round.ok)));
            }
            !round.waiting.is_empty()
        });
    }

    /// Rows B21 and B22.
    fn on_attach(&mut self, worker: WorkerName, session: SessionId, fx: &mut Vec<Effect>) {
        match self.seats.get(&worker) {
            Some(seat) if seat.session == session => return,
            Some(seat) if seat.session > session => {
                fx.push(Effect::Ignored("attach of an older connection"));
                return;
            }
            Some(seat) => {
                let old = seat.session;
                self.on_detach(&worker, old, fx);
            }
            None => {}
        }
        let order = self.next_order;
        self.next_order += 1;
        self.seats.insert(
            worker.clone(),
            Seat { session, used: SeatUse::Attaching, order, worker_full: false, pinging: false },
        );
        fx.push(Effect::NewSeat { worker, session });
    }

    fn on_attached(
        &mut self,
        worker: &WorkerName,
        session: SessionId,
        building: Option<ClaimId>,
        fx: &mut Vec<Effect>,
    ) {
        match self.seats.get_mut(worker) {
            Some(seat) if seat.session == session && seat.used == SeatUse::Attaching => {
                let ours = building.filter(|claim| {
                    self.builds.contains_key(claim) || self.inherited.contains_key(claim)
                });
                seat.used = ours.map_or(SeatUse::Free, SeatUse::Taken);
                fx.push(Effect::Note {
                    worker: Some(worker.clone()),
                    text: format!("connect {worker}"),
                    error: None,
                });
            }
            _ => fx.push(Effect::Ignored("attach answer of an older connection")),
        }
    }

    fn on_attach_failed(
        &mut self,
        worker: &WorkerName,
        session: SessionId,
        error: String,
        fx: &mut Vec<Effect>,
    ) {
        match self.seats.get(worker) {
            Some(seat) if seat.session == session && seat.used == SeatUse::Attaching => {
                self.seats.remove(worker);
                fx.push(Effect::DropSeat { worker: worker.clone() });
                fx.push(Effect::Note {
                    worker: Some(worker.clone()),
                    text: format!("failed connect {worker}"),
                    error: Some(error),
                });
            }
            _ => fx.push(Effect::Ignored("attach failure of an older connection")),
        }
    }

    /// Row B24.
    fn on_detach(&mut self, worker: &WorkerName, session: SessionId, fx: &mut Vec<Effect>) {
        match self.seats.get(worker) {
            Some(seat) if seat.session == session => {
                let text = if seat.used == SeatUse::Attaching {
                    format!("failed connect {worker}")
                } else {
                    format!("disconnect {worker}")
                };
                self.seats.remove(worker);
                fx.push(Effect::DropSeat { worker: worker.clone() });
                fx.push(Effect::Note { worker: Some(worker.clone()), text, error: None });
                self.on_ping_done(worker, false, fx);
            }
            _ => fx.push(Effect::Ignored("detach of a worker that is not attached")),
        }
    }

    fn on_maybe_start(&mut self, worker: Option<&WorkerName>) {
        match worker {
            Some(worker) => {
                if let Some(seat) = self.seats.get_mut(worker) {
                    seat.worker_full = false;
                }
            }
            None => self.seats.values_mut().for_each(|seat| seat.worker_full = false),
        }
    }

    fn on_slot_granted(
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
        build.phase = Phase::Claiming { worker_id, incarnation };
        fx.push(Effect::Claim {
            claim,
            worker_id,
            incarnation,
            requests: build.requests.iter().map(|request| (request.id, request.epoch)).collect(),
            config: build.config.clone(),
        });
    }

    /// A refused claim leaves the request where it was (row B29).
    fn on_slot_refused(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.remove(&claim) else { return };
        self.free_seat(&build.worker, claim, true);
        self.give_back(claim, build.requests, None, fx);
    }

    fn on_claimed(
        &mut self,
        claim: ClaimId,
        id: BuildId,
        requests: Vec<Request>,
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
        build.requests = requests;
        if !build.cancelled.is_empty() {
            self.unclaim(claim, fx);
            return;
        }
        build.phase = Phase::Starting;
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

    fn on_claim_lost(
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

    fn unclaim(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        let Some(id) = build.build else { return };
        build.phase = Phase::Unclaiming;
        let cancelled = build.cancelled.iter().map(|(id, _)| *id).collect();
        fx.push(Effect::Unclaim { claim, build: id, cancelled });
    }

    fn on_unclaimed(&mut self, claim: ClaimId, requests: Vec<Request>, fx: &mut Vec<Effect>) {
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

    fn on_start_failed(&mut self, claim: ClaimId, failure: &StartFailure, fx: &mut Vec<Effect>) {
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

    fn on_start_accepted(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("start answer of a build that is gone"));
            return;
        };
        let (Phase::Starting, Some(id)) = (build.phase, build.build) else {
            fx.push(Effect::Ignored("start answer told twice"));
            return;
        };
        self.pauses.remove(&build.worker);
        build.phase = Phase::Running;
        fx.push(Effect::RunBuild {
            claim,
            build: id,
            worker: build.worker.clone(),
            requests: build.requests.clone(),
            config: build.config.clone(),
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

    fn on_started(&mut self, claim: ClaimId, number: BuildNumber, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        build.number = Some(number);
        if let (true, Some(build)) = (self.retired, build.build) {
            fx.push(Effect::TellSuccessor(Event::InheritedStarted { claim, build, number }));
        }
    }

    fn on_orphaned(&mut self, claim: ClaimId, orphaned: bool, fx: &mut Vec<Effect>) {
        match self.builds.get_mut(&claim) {
            Some(build) if matches!(build.phase, Phase::Running | Phase::Orphaned) => {
                build.phase = if orphaned { Phase::Orphaned } else { Phase::Running };
            }
            _ => fx.push(Effect::Ignored("worker news of a build that does not run")),
        }
    }

    /// Row B16.
    fn on_finished(
        &mut self,
        claim: ClaimId,
        requeued: Vec<Request>,
        times: Option<StepTimes>,
        fx: &mut Vec<Effect>,
    ) {
        if !self.builds.contains_key(&claim) {
            fx.push(Effect::Ignored("end of a build that is gone"));
            return;
        }
        self.end_start(claim, fx);
        if !self.retired
            && let Some(times) = &times
        {
            self.learn(times, fx);
        }
        self.give_back(claim, requeued, times, fx);
    }

    fn on_inherited_finished(
        &mut self,
        claim: ClaimId,
        requeued: Vec<Request>,
        times: Option<StepTimes>,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(build) = self.inherited.remove(&claim) {
            self.free_seat(&build.worker, claim, false);
            fx.push(Effect::BuildOver { worker: build.worker, claim });
        }
        if self.retired {
            fx.push(Effect::TellSuccessor(Event::InheritedFinished { claim, requeued, times }));
            return;
        }
        if let Some(times) = times {
            self.learn(&times, fx);
        }
        for request in requeued {
            self.queue.push(request);
        }
    }

    fn on_inherited_started(
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

    fn learn(&mut self, times: &StepTimes, fx: &mut Vec<Effect>) {
        self.expectations.learn(times);
        fx.push(Effect::SaveExpectations(self.expectations.to_text()));
    }

    /// The build leaves `builds`; its seat and its slot are free again.
    fn end_start(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.remove(&claim) else { return };
        self.free_seat(&build.worker, claim, false);
        fx.push(Effect::BuildOver { worker: build.worker.clone(), claim });
        fx.push(Effect::GiveBackSlot { worker: build.worker, claim });
    }

    fn free_seat(&mut self, worker: &WorkerName, claim: ClaimId, full: bool) {
        if let Some(seat) = self.seats.get_mut(worker)
            && seat.used == SeatUse::Taken(claim)
        {
            seat.used = SeatUse::Free;
            seat.worker_full = full;
        }
    }

    /// Puts requests back where they belong: our queue, or the latest
    /// successor's (row T09).
    fn give_back(
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

    /// What a successor with these workers gets. Changes nothing yet: the
    /// successor may still fail.
    #[must_use]
    pub fn hand_over(&self, new: &BuilderConfig, seed: u64) -> Handover {
        let mut inherited = self.inherited.clone();
        for (claim, build) in &self.builds {
            inherited.insert(
                *claim,
                InheritedBuild {
                    build: build.build,
                    number: build.number,
                    worker: build.worker.clone(),
                    requests: build.requests.iter().map(|request| request.id).collect(),
                    state: build.word(),
                },
            );
        }
        let seats = self
            .seats
            .iter()
            .filter(|(worker, seat)| {
                new.workers.contains(worker) && seat.used != SeatUse::Attaching
            })
            .map(|(worker, seat)| (worker.clone(), seat.clone()))
            .collect();
        let expectations = if self.config.factory == new.factory {
            self.expectations.clone()
        } else {
            Expectations::default()
        };
        Handover {
            id: self.id,
            generation: self.generation,
            queue: self.queue.clone(),
            loaded_through: self.loaded_through,
            seats,
            next_order: self.next_order,
            pauses: self.pauses.clone(),
            inherited,
            expectations,
            big_state: self.big_state,
            oldest: self.oldest,
            seed,
        }
    }

    /// The successor is in charge: this one keeps its builds, starts nothing
    /// more, and lets go of the seats that did not move (rows T05, T06).
    pub fn retire(&mut self, moved: &BTreeSet<WorkerName>, fx: &mut Vec<Effect>) {
        self.retired = true;
        self.queue = Queue::default();
        self.inherited.clear();
        self.seats.retain(|worker, _| !moved.contains(worker));
        self.settle(fx);
    }

    /// The new Builder, with what its predecessor gave.
    #[must_use]
    pub fn succeed(config: Arc<BuilderConfig>, from: Handover, now: Now) -> Self {
        Self {
            now: now.mono,
            queue: from.queue,
            loaded_through: from.loaded_through,
            seats: from.seats,
            next_order: from.next_order,
            pauses: from.pauses,
            inherited: from.inherited,
            expectations: from.expectations,
            big_state: from.big_state,
            oldest: from.oldest,
            ..Self::new(from.id, Generation(from.generation.0 + 1), config, Rng::seeded(from.seed))
        }
    }

    /// A seed for a part of this builder's.
    pub fn draw_seed(&mut self) -> u64 {
        (self.rng.bits() >> 64) as u64
    }

    /// The builder's settings.
    #[must_use]
    pub fn config(&self) -> &Arc<BuilderConfig> {
        &self.config
    }

    /// Which actor this is.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The builder's id.
    #[must_use]
    pub fn id(&self) -> BuilderId {
        self.id
    }

    /// Whether a successor is in charge.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// The requests that wait, in order (row B10).
    pub fn pending(&self) -> impl Iterator<Item = &Request> {
        self.queue.iter()
    }

    /// Finds a running build: an own one first, then an inherited one; builds
    /// without a number are skipped (row B18).
    #[must_use]
    pub fn get_build(&self, number: BuildNumber) -> Option<BuildId> {
        let own = self.builds.values().find(|build| build.number == Some(number));
        own.and_then(|build| build.build).or_else(|| {
            let theirs = self.inherited.values().find(|build| build.number == Some(number));
            theirs.and_then(|build| build.build)
        })
    }

    /// What people may see.
    #[must_use]
    pub fn view(&self) -> BuilderView {
        let own = self.builds.values().map(|build| ActiveBuildView {
            build: build.build,
            number: build.number,
            worker: build.worker.clone(),
            state: build.word(),
            requests: build.requests.iter().map(|request| request.id).collect(),
            inherited: false,
        });
        let theirs = self.inherited.values().map(|build| ActiveBuildView {
            build: build.build,
            number: build.number,
            worker: build.worker.clone(),
            state: build.state,
            requests: build.requests.clone(),
            inherited: true,
        });
        BuilderView {
            id: self.id,
            generation: self.generation,
            big_state: self.big_state,
            waiting: self.queue.len(),
            oldest_request_time: self.queue.oldest_request_time(),
            builds: own.chain(theirs).collect(),
            workers: self
                .seats
                .iter()
                .map(|(worker, seat)| (worker.clone(), seat.word()))
                .collect(),
            expected: self.expectations.total(),
            broken: None,
            restarts: 0,
        }
    }
}
