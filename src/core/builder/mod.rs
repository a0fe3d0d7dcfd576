//! One builder: its queue, its seats, and which build has which seat.
//!
//! Owns the decision what starts where, and what becomes of requests whose
//! start fails. Deliberately absent: the conversation with a worker (that is
//! `slave_builder`), the steps of a build (`build`), how anything is stored.
//! It must always hold that every request it was given is in exactly one
//! place: in the queue, in one build, or told off as ended.

mod compare;
mod eta;
mod event;
mod expectations;
mod handover;
mod latent;
mod queue;
mod rebuild;
mod requests;
mod running;
mod seat;
mod starts;
mod stops;
mod table;
mod why;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use compare::compare_to_setup;
pub use eta::{Accuracy, Left, QUEUED, QueuedEta, SeatFree, schedule};
pub use event::{
    Answer, Effect, Event, LatentNews, ReplyId, StartFailure, StartOrder, StopSaved, Take,
};
pub use expectations::{Estimate, Expectations, Prediction, StepTimes, WINDOW, seconds};
pub use handover::{Handover, InheritedBuild};
pub use queue::{Queue, Request, WORKER_PROPERTY, named_worker};
pub use rebuild::{OpenBuild, Records, SeatReport, SeatReportUse};
pub use seat::{Latent, Pause, Seat, SeatRank, SeatUse};
pub use table::{CAUSES, Cause, STAGE_TABLE, STAGES, Stage};

use super::ids::*;
use super::planted;
use super::rng::Rng;
use super::time::{Now, Timestamp, WallTime};
use super::transitions::{self, Word};
use super::values::BuilderConfig;
use super::views::{ActiveBuildView, Away, BigState, BuilderView};

/// Where a build of this builder stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The worker was asked for a slot; it answers in the same process.
    Reserving,
    /// The instance of a latent worker is waited for, its slot is kept, and
    /// nothing is claimed. The LatentSlaveBuilder has the deadline.
    Substantiating,
    /// Its end without a worker is being written; the store answers or closes.
    Failing,
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
    /// Requests that were cancelled while the start was on its way, and whose
    /// cancel is not settled yet.
    leaving: Vec<Leaving>,
    /// That it shall stop: its start is called back, or it is stopped once it
    /// runs.
    stop: Option<Stop>,
    /// Its worker is away.
    away: Option<Away>,
}

/// That a build shall stop.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stop {
    /// For people.
    reason: String,
    wish: Wish,
}

/// Where the wish that a build stops stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    /// The store was asked to keep it: nothing has come of it yet.
    Asked,
    /// It is durable.
    Kept,
    /// The store has nothing to keep it with: the build was not claimed yet,
    /// or it had ended.
    Unkept,
}

/// A request that somebody wants out of a build that has not started.
#[derive(Clone, PartialEq, Debug)]
struct Leaving {
    id: RequestId,
    /// Who waits.
    reply: Option<ReplyId>,
    /// The request, once it is out of the build and the store was asked.
    out: Option<Request>,
}

impl ActiveBuild {
    fn word(&self) -> &'static str {
        Stage::from(self.phase).word()
    }

    /// Goes on to a phase, which the table must allow.
    fn enter(&mut self, phase: Phase) {
        self.check(phase.into());
        self.phase = phase;
    }

    /// Asserts that the build may go on to this stage.
    fn check(&self, to: Stage) {
        let from = Stage::from(self.phase);
        assert!(
            transitions::leads(STAGE_TABLE, &from, &to),
            "a build cannot go from {from:?} to {to:?}"
        );
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
    /// As `now`, for what people see.
    wall: WallTime,
    queue: Queue,
    loaded_through: RequestId,
    seats: BTreeMap<WorkerName, Seat>,
    next_order: u64,
    pauses: BTreeMap<WorkerName, Pause>,
    builds: BTreeMap<ClaimId, ActiveBuild>,
    inherited: BTreeMap<ClaimId, InheritedBuild>,
    pings: Vec<PingRound>,
    /// Who waits until the stop of a build is durable. The build may be over
    /// before the store answers.
    stops: BTreeMap<ClaimId, Vec<ReplyId>>,
    /// Why workers refused to start these requests, in order.
    refusals: BTreeMap<RequestId, Vec<String>>,
    /// Requests whose claim together with others was refused: each is claimed
    /// alone, so that the one that is gone takes no other with it.
    alone: BTreeSet<RequestId>,
    expectations: Expectations,
    big_state: BigState,
    oldest: Option<BuildsetId>,
    retired: bool,
    draining: bool,
    /// Claims are held back until then, after the store could not write.
    store_pause: Option<Timestamp>,
}

/// Most requests that one build has: a claim is one transaction of the store,
/// which nobody else can write during.
pub const MERGE_LIMIT: usize = 1_000;

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
        let expectations = Expectations::new(&config.factory_digest);
        Self {
            id,
            generation,
            rng,
            now: Timestamp::default(),
            wall: WallTime::default(),
            queue: Queue::merging(config.merge.clone()),
            config,
            loaded_through: RequestId(0),
            seats: BTreeMap::new(),
            next_order: 0,
            pauses: BTreeMap::new(),
            builds: BTreeMap::new(),
            inherited: BTreeMap::new(),
            pings: Vec::new(),
            stops: BTreeMap::new(),
            refusals: BTreeMap::new(),
            alone: BTreeSet::new(),
            expectations,
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
        self.wall = now.wall;
        match event {
            Event::Enqueue(requests) => self.on_enqueue(requests),
            Event::Cancel { request, reason, reply } => {
                self.on_cancel(request, reason, reply, fx);
            }
            Event::CancelFailed(request) => self.on_return(vec![request], fx),
            Event::SetPriority { request, priority, reply } => {
                if self.queue.set_priority(request, priority) {
                    fx.push(Effect::SavePriority { request, priority, reply });
                } else {
                    fx.push(Effect::Answer(reply, Answer::Done(false)));
                }
            }
            Event::Stop { build, reason, reply } => self.on_stop(build, reason, reply, fx),
            Event::StopSaved { claim, reason, saved } => {
                self.on_stop_saved(claim, reason, &saved, fx);
            }
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
            Event::InLine { worker } => self.on_in_line(&worker),
            Event::Offered { worker } => {
                self.on_maybe_start(Some(&worker));
                self.settle(fx);
                self.pass_on(worker, fx);
                return;
            }
            Event::SlotGranted { claim, worker_id, incarnation } => {
                self.on_slot_granted(claim, worker_id, incarnation, fx);
            }
            Event::AddLatent { worker } => self.on_add_latent(worker, fx),
            Event::NotLatent { worker } => self.on_not_latent(&worker, fx),
            Event::SlotReserved { claim } => self.on_slot_reserved(claim, fx),
            Event::Substantiated { claim } => self.on_substantiated(claim, fx),
            Event::NotSubstantiated { claim, error, permanent } => {
                self.on_not_substantiated(claim, error, permanent, fx);
            }
            Event::FailedBuild { claim } => self.on_failed_build(claim, fx),
            Event::SlotRefused { claim } => self.on_slot_refused(claim, fx),
            Event::Claimed { claim, build, requests } => {
                self.on_claimed(claim, build, &requests, fx);
            }
            Event::ClaimLost { claim, error, transient } => {
                self.on_claim_lost(claim, &error, transient, fx);
            }
            Event::LeftStart { claim, request, in_time } => {
                self.on_left_start(claim, request, in_time, fx);
            }
            Event::CancelledClaimed { claim, requests, done } => {
                self.on_cancelled_claimed(claim, &requests, done, fx);
            }
            Event::Unclaimed { claim, requests } => self.on_unclaimed(claim, requests, fx),
            Event::StartFailed { claim, failure } => self.on_start_failed(claim, &failure, fx),
            Event::StartAccepted { claim } => self.on_start_accepted(claim, fx),
            Event::Started { claim, number } => self.on_started(claim, number, fx),
            Event::Orphaned { claim, away } => self.on_orphaned(claim, away, fx),
            Event::InheritedOrphaned { claim, away } => {
                self.on_inherited_orphaned(claim, away, fx);
            }
            Event::Finished { claim, result, requeued, times } => {
                self.on_finished(claim, result, requeued, times, fx);
            }
            Event::InheritedFinished { claim, requeued, times } => {
                self.on_inherited_finished(claim, requeued, times, fx);
            }
            Event::InheritedStarted { claim, build, number } => {
                self.on_inherited_started(claim, build, number, fx);
            }
            Event::StopOwn { claim, request, reason, reply } => {
                self.on_stop_own(claim, request, reason, reply, fx);
            }
            Event::Return(requests) => self.on_return(requests, fx),
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
        let oldest = self.queue.oldest_submission();
        if oldest != self.oldest {
            self.oldest = oldest;
            fx.push(Effect::OldestChanged(oldest));
        }
    }

    /// Row B17.
    fn refresh_big_state(&mut self, fx: &mut Vec<Effect>) {
        let attached = self.has_worker();
        let theirs = !self.inherited.is_empty() && !planted::is("t03_predecessors_builds_unseen");
        let building = !self.builds.is_empty() || theirs;
        let state = if !attached && !building {
            BigState::Offline
        } else if building {
            BigState::Building
        } else {
            BigState::Idle
        };
        // Nothing to tell when the next build begins in this very moment, with
        // the answer to the slot that was given back.
        let in_turn = self.seats.values().any(|seat| seat.in_turn);
        if state == BigState::Idle && in_turn && !self.queue.is_empty() {
            return;
        }
        if state != self.big_state || planted::is("b17_told_without_a_change") {
            self.big_state = state;
            fx.push(Effect::Note { worker: None, text: state.word().into(), error: None });
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

    fn seat_word(&self, seat: &Seat) -> &'static str {
        match seat.used {
            SeatUse::Taken(claim) => match self.builds.get(&claim).map(|build| build.phase) {
                Some(Phase::Substantiating) => "substantiating",
                _ => seat.word(),
            },
            SeatUse::Attaching | SeatUse::Free => seat.word(),
        }
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
            away: build.away,
        });
        let theirs = self.inherited.values().map(|build| ActiveBuildView {
            build: build.build,
            number: build.number,
            worker: build.worker.clone(),
            state: build.state,
            requests: build.requests.clone(),
            inherited: true,
            away: build.away,
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
                .map(|(worker, seat)| (worker.clone(), self.seat_word(seat)))
                .collect(),
            pauses: self.pause_views(),
            max_builds: self.config.max_builds,
            expected: self.expectations.total(),
            broken: None,
            restarts: 0,
        }
    }
}
