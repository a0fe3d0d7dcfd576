//! The Builder actor: one builder's queue and seats, and its Builds.
//!
//! It is built from the store, when the master starts and after a panic alike;
//! what arrives meanwhile waits. A successor is built from its predecessor's
//! handover instead; the predecessor stays in charge until the successor has
//! said that it stands, and passes on what still reaches it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Recipient, Supervised};
use tokio::sync::oneshot;

use super::bot_master::{BuilderShown, OldestChanged};
use super::build::{Build, BuildOrder};
use super::runtime::{Alarm, ChildDown, MayRestart, World, start_supervised};
use super::slave_builder::SlaveBuilder;
use crate::core::build::{Event as ToBuild, Order};
use crate::core::builder::{
    Answer, BuilderCore, Effect, Event, Handover, OpenBuild, Records, ReplyId, Request, SeatReport,
};
use crate::core::ids::*;
use crate::core::inbox::{Inbox, Put};
use crate::core::rng::Rng;
use crate::core::values::{BuildResult, BuilderConfig, Properties, Property};
use crate::faults;
use crate::messages::*;
use crate::store::{
    BuilderNote, BuilderRecords, BuildsetRow, Op, OpOutcome, RequestRow, StoreError, Transaction,
    Written,
};

/// How long a successor may take to stand.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);
/// How long a retired builder with nothing left listens for late mail.
const LATE_MAIL: Duration = Duration::from_secs(5);
/// How often people are shown a builder that changes all the time.
const SHOW_EVERY: Duration = Duration::from_millis(50);

/// A store row as the core knows it.
pub(super) fn request(row: &RequestRow) -> Request {
    Request {
        id: row.id,
        buildset: row.buildset,
        priority: row.priority,
        submitted_at: row.submitted_at,
        epoch: row.epoch,
        requeued: row.requeued,
        infra_tries: row.infra_tries,
    }
}

struct Seat {
    addr: Addr<SlaveBuilder>,
    link: WorkerLink,
    worker: Arc<WorkerHandle>,
}

/// What the store said of a claim, kept until its build runs.
struct Claimed {
    properties: Properties,
    incarnation: Incarnation,
}

enum Input {
    Mail(Mail),
    Event(Event),
    Finished(BuildFinished),
    TakeOver(TakeOver),
    Retire,
}

enum Mode {
    /// The store was asked; what arrives waits.
    Loading { waiting: Vec<Input> },
    /// A successor that has not been told to go yet.
    Succeeding { core: Option<Box<BuilderCore>>, waiting: Vec<Input> },
    /// In charge, or retired.
    Live,
    /// A successor is being made; what arrives waits.
    HandingOver { waiting: Vec<Input>, take_over: TakeOver, moved: BTreeSet<WorkerName> },
}

/// What a Builder is made from.
pub struct BuilderParts {
    /// The doors to the world.
    pub world: World,
    /// The builder's id.
    pub id: BuilderId,
    /// Its settings.
    pub config: Arc<BuilderConfig>,
    /// Seed of its generator.
    pub seed: u64,
    /// Everybody's door to it.
    pub route: Arc<BuilderRoute>,
    /// Who hears which builder waits for how long.
    pub oldest: Recipient<OldestChanged>,
    /// Who hears that it stands.
    pub shown: Recipient<BuilderShown>,
    /// All workers, for builds of an earlier master.
    pub workers: BTreeMap<WorkerName, Arc<WorkerHandle>>,
    /// Whether it may be started again.
    pub may_restart: MayRestart,
}

/// One builder.
pub struct Builder {
    parts: BuilderParts,
    core: BuilderCore,
    mode: Mode,
    inbox: Inbox<BuilderMail>,
    mine: BuilderHandle,
    seats: BTreeMap<WorkerName, Seat>,
    /// Attaches that wait for the core's word.
    attaches: BTreeMap<WorkerName, Attach>,
    builds: BTreeMap<ClaimId, Addr<Build>>,
    /// Who has the builds that were inherited.
    inherited: BTreeMap<ClaimId, Recipient<Inherited>>,
    /// A retired builder's own builds, the only ones that it may load again.
    own: Option<BTreeSet<ClaimId>>,
    claimed: BTreeMap<ClaimId, Claimed>,
    replies: BTreeMap<ReplyId, oneshot::Sender<bool>>,
    next_reply: u64,
    notes: Vec<Op>,
    notes_due: bool,
    show_due: bool,
    alarm: Alarm,
    restarts: u32,
    over_due: bool,
}

/// The store answered a load, with what the seats reported.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Loaded {
    records: Result<BuilderRecords, StoreError>,
    reports: Vec<SeatReport>,
}

/// A successor shall take over.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct TakeOver {
    /// The successor.
    pub successor: Addr<Builder>,
    /// Its settings.
    pub config: Arc<BuilderConfig>,
    /// Told whether it did.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What the successor is built from.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Soul {
    handover: Handover,
    predecessor: Addr<Builder>,
}

/// The successor stands.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Stands;

/// The successor is in charge from now on.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Go {
    inbox: Inbox<BuilderMail>,
    seats: BTreeMap<WorkerName, Seat>,
    inherited: BTreeMap<ClaimId, Recipient<Inherited>>,
}

/// The successor will not stand.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct SuccessorFailed(pub String);

/// A successor that never stood is not needed.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct GiveUp;

/// The builder is no longer configured.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct RetireBuilder;

/// Something about a build that was inherited.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Inherited {
    claim: ClaimId,
    request: Option<RequestId>,
    reason: String,
}

/// The store could not undo a claim just then.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct UndoAgain {
    claim: ClaimId,
    build: BuildId,
    cancelled: Vec<RequestId>,
}

/// Write what is waiting to be noted.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct FlushNotes;

impl Builder {
    /// A builder that is built from the store once it is started.
    #[must_use]
    pub fn new(parts: BuilderParts) -> Self {
        Self::with_mode(parts, Generation(1), Mode::Loading { waiting: Vec::new() })
    }

    /// A builder that is built from its predecessor's handover.
    #[must_use]
    pub fn successor(parts: BuilderParts) -> Self {
        let mode = Mode::Succeeding { core: None, waiting: Vec::new() };
        Self::with_mode(parts, Generation(0), mode)
    }

    fn with_mode(parts: BuilderParts, generation: Generation, mode: Mode) -> Self {
        let core = empty_core(&parts, generation);
        let mine = BuilderHandle::new(parts.config.name.clone(), parts.route.clone());
        Self {
            parts,
            core,
            mode,
            inbox: Inbox::default(),
            mine,
            seats: BTreeMap::new(),
            attaches: BTreeMap::new(),
            builds: BTreeMap::new(),
            inherited: BTreeMap::new(),
            own: None,
            claimed: BTreeMap::new(),
            replies: BTreeMap::new(),
            next_reply: 0,
            notes: Vec::new(),
            notes_due: false,
            show_due: false,
            alarm: Alarm::default(),
            restarts: 0,
            over_due: false,
        }
    }

    fn name(&self) -> &BuilderName {
        &self.parts.config.name
    }

    fn world(&self) -> &World {
        &self.parts.world
    }

    /// The one way in: what cannot be handled now waits.
    fn take(&mut self, input: Input, ctx: &mut Context<Self>) {
        match &mut self.mode {
            Mode::Loading { waiting }
            | Mode::Succeeding { waiting, .. }
            | Mode::HandingOver { waiting, .. } => waiting.push(input),
            Mode::Live => self.handle_input(input, ctx),
        }
    }

    fn handle_input(&mut self, input: Input, ctx: &mut Context<Self>) {
        match input {
            Input::Mail(mail) if self.core.is_retired() => self.mine_forward(mail),
            Input::Mail(mail) => {
                let mut ready = Vec::new();
                match self.inbox.put(mail.sender, mail.seq, mail.body, &mut ready) {
                    Put::Ready | Put::Waits => {}
                    Put::Duplicate => self.world().ignored("mail that was here before"),
                    Put::Full => {
                        tracing::error!(builder.name = %self.name(), "too much mail waits for an earlier piece: dropped");
                        self.world().ignored("mail beyond the limit");
                    }
                }
                for body in ready {
                    self.read(body, ctx);
                }
            }
            Input::Event(event) => {
                point_of(&event);
                self.step(event, ctx);
            }
            Input::Finished(finished) => {
                faults::point("builder.build_finished");
                self.builds.remove(&finished.claim);
                let BuildFinished { claim, result, requeued, times } = finished;
                self.step(Event::Finished { claim, result, requeued, times }, ctx);
            }
            Input::TakeOver(take_over) => self.hand_over(take_over, ctx),
            Input::Retire => self.retire(&BTreeSet::new(), ctx),
        }
    }

    /// Late mail goes on to whoever is in charge, with its sender and number.
    fn mine_forward(&self, mail: Mail) {
        self.mine.forward(mail);
    }

    fn read(&mut self, body: BuilderMail, ctx: &mut Context<Self>) {
        let event = match body {
            BuilderMail::SubmitRequests(requests) => {
                faults::point("builder.submit");
                Event::Enqueue(requests)
            }
            BuilderMail::Cancel { request, reason, reply } => {
                faults::point("builder.cancel");
                Event::Cancel { request, reason, reply: self.await_reply(reply) }
            }
            BuilderMail::SetPriority { request, priority, reply } => {
                Event::SetPriority { request, priority, reply: self.await_reply(reply) }
            }
            BuilderMail::Stop { build, reason, reply } => {
                Event::Stop { build, reason, reply: self.await_reply(reply) }
            }
            BuilderMail::Ping { reply } => Event::Ping { reply: self.await_reply(reply) },
            BuilderMail::Attach(attach) => {
                faults::point("builder.attach");
                let (worker, session) = (attach.worker.clone(), attach.link.session);
                self.attaches.insert(worker.clone(), attach);
                Event::Attach { worker, session }
            }
            BuilderMail::Event(event) => {
                point_of(&event);
                event
            }
        };
        if let Event::InheritedFinished { claim, .. } = &event {
            self.inherited.remove(claim);
        }
        self.step(event, ctx);
    }

    fn await_reply(&mut self, reply: oneshot::Sender<bool>) -> ReplyId {
        let id = ReplyId(self.next_reply);
        self.next_reply += 1;
        self.replies.insert(id, reply);
        id
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.handle(self.world().clock.now(), event, &mut effects);
        self.perform_all(effects, ctx);
    }

    fn perform_all(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        for effect in effects {
            self.perform(effect, ctx);
        }
        self.attaches.clear();
        self.show_soon(ctx);
        let at = self.core.next_deadline();
        let clock = self.world().clock.clone();
        self.alarm.set(ctx, &clock, at, |builder, ctx| {
            builder.alarm.rang();
            builder.take(Input::Event(Event::DeadlineReached), ctx);
        });
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Answer(id, Answer::Done(done)) => {
                if let Some(reply) = self.replies.remove(&id) {
                    // Whoever asked may have gone; that changes nothing.
                    let _ = reply.send(done);
                }
            }
            Effect::AskSlot { worker, claim } => self.ask_slot(&worker, claim, ctx),
            Effect::GiveBackSlot { worker, claim } => {
                if let Some(handle) = self.worker(&worker) {
                    handle.give_back.do_send(GiveBackSlot(claim));
                }
            }
            Effect::Claim { claim, worker_id, incarnation, requests, config } => {
                self.claim(claim, worker_id, incarnation, requests, &config, ctx);
            }
            Effect::Unclaim { claim, build, cancelled } => {
                self.unclaim(claim, build, cancelled, ctx);
            }
            Effect::CancelWaiting { request, reply } => self.cancel_waiting(request, reply, ctx),
            Effect::SavePriority { request, priority } => {
                self.write(vec![Op::SetPriority { request, priority }], |_| None, ctx);
            }
            Effect::NewSeat { worker, session } => self.new_seat(&worker, session, ctx),
            Effect::DropSeat { worker } => {
                if let Some(seat) = self.seats.remove(&worker) {
                    seat.addr.do_send(LetGo);
                }
            }
            Effect::StartOnSeat { worker, order } => match self.seats.get(&worker) {
                Some(seat) => seat.addr.do_send(StartBuild {
                    order: Box::new(order),
                    from: ctx.address().recipient(),
                }),
                None => ctx.notify(BuilderEvent(Event::StartFailed {
                    claim: order.claim,
                    failure: crate::core::builder::StartFailure::NoAnswer("the worker left".into()),
                })),
            },
            Effect::CallBackStart { worker, claim } => {
                if let Some(seat) = self.seats.get(&worker) {
                    seat.addr.do_send(CallBackStart(claim));
                }
            }
            Effect::RunBuild { claim, build, worker, requests, config } => {
                self.run_build(claim, build, &worker, &requests, config, ctx);
            }
            Effect::StopBuild { claim, reason } => {
                if let Some(build) = self.builds.get(&claim) {
                    build.do_send(BuildEvent(ToBuild::Stop { reason }));
                }
            }
            Effect::StopInherited { claim, build: _, request, reason } => {
                if let Some(owner) = self.inherited.get(&claim) {
                    owner.do_send(Inherited { claim, request, reason });
                }
            }
            Effect::BuildOver { worker, claim } => {
                self.claimed.remove(&claim);
                if let Some(seat) = self.seats.get(&worker) {
                    seat.addr.do_send(BuildOver(claim));
                }
            }
            Effect::PingSeat { worker } => match self.seats.get(&worker) {
                Some(seat) => {
                    seat.addr.do_send(Ping { reply: ReplyId(0), from: ctx.address().recipient() })
                }
                None => ctx.notify(BuilderEvent(Event::PingDone { worker, ok: false })),
            },
            Effect::Note { worker, text, error } => self.note(worker.as_ref(), text, error, ctx),
            Effect::OldestChanged(oldest) => {
                let builder = self.name().clone();
                self.parts.oldest.do_send(OldestChanged { builder, oldest });
            }
            Effect::TellSuccessor(event) => self.mine.tell(BuilderMail::Event(event)),
            Effect::SaveExpectations(text) => {
                let builder = self.parts.id;
                self.notes.push(Op::SaveExpectations { builder, text });
                self.flush_soon(ctx);
            }
            Effect::Ignored(kind) => self.world().ignored(kind),
            Effect::Over => self.over_soon(ctx),
        }
    }

    fn worker(&self, name: &WorkerName) -> Option<&Arc<WorkerHandle>> {
        let seat = self.seats.get(name).map(|seat| &seat.worker);
        seat.or_else(|| self.parts.workers.get(name))
    }

    fn ask_slot(&mut self, worker: &WorkerName, claim: ClaimId, ctx: &mut Context<Self>) {
        match self.worker(worker) {
            Some(handle) => handle.ask_slot.do_send(AskSlot {
                builder: self.name().clone(),
                claim,
                from: ctx.address().recipient(),
            }),
            None => ctx.notify(BuilderEvent(Event::SlotRefused { claim })),
        }
    }

    /// Writes operations, with the moments that wait to be noted before them;
    /// the answer comes back as an event.
    fn write(
        &mut self,
        ops: Vec<Op>,
        answer: impl FnOnce(Written) -> Option<Event> + Send + 'static,
        ctx: &mut Context<Self>,
    ) {
        let mut all = std::mem::take(&mut self.notes);
        let notes = all.len();
        all.extend(ops);
        let me = ctx.address();
        self.world().store.write(
            Transaction { ops: all },
            Box::new(move |written| {
                let written =
                    written.map(|mut outcomes| outcomes.split_off(notes.min(outcomes.len())));
                if let Some(event) = answer(written) {
                    me.do_send(BuilderEvent(event));
                }
            }),
        );
    }

    fn claim(
        &mut self,
        claim: ClaimId,
        worker: WorkerId,
        incarnation: Incarnation,
        requests: Vec<(RequestId, Epoch)>,
        config: &BuilderConfig,
        ctx: &mut Context<Self>,
    ) {
        let op = Op::Claim {
            claim,
            builder: self.parts.id,
            worker,
            incarnation,
            requests,
            factory_digest: config.factory_digest.clone(),
            at: self.world().clock.now().wall,
        };
        let mut all = std::mem::take(&mut self.notes);
        all.push(op);
        let me = ctx.address();
        self.world().store.write(
            Transaction { ops: all },
            Box::new(move |written| me.do_send(ClaimWritten { claim, incarnation, written })),
        );
    }

    fn unclaim(
        &mut self,
        claim: ClaimId,
        build: BuildId,
        cancelled: Vec<RequestId>,
        ctx: &mut Context<Self>,
    ) {
        self.claimed.remove(&claim);
        let at = self.world().clock.now().wall;
        let (me, again) = (ctx.address(), cancelled.clone());
        let op = Op::Unclaim { build, cancelled, at };
        self.write(
            vec![op],
            move |written| {
                let requests = match written.as_deref() {
                    Ok([OpOutcome::Requeued { requests }, ..]) => {
                        requests.iter().map(|row| request(row)).collect()
                    }
                    Ok(_) => Vec::new(),
                    Err(error) if error.is_transient() => {
                        tracing::warn!(%error, "a claim could not be undone; trying again");
                        me.do_send(UndoAgain { claim, build, cancelled: again });
                        return None;
                    }
                    Err(error) => {
                        tracing::error!(%error, "a claim could not be undone; its requests wait in the store");
                        Vec::new()
                    }
                };
                Some(Event::Unclaimed { claim, requests })
            },
            ctx,
        );
    }

    fn cancel_waiting(
        &mut self,
        request: Request,
        reply: Option<ReplyId>,
        ctx: &mut Context<Self>,
    ) {
        let at = self.world().clock.now().wall;
        let op = Op::CancelRequests { requests: vec![request.id], at };
        let reply = reply.and_then(|id| self.replies.remove(&id));
        self.write(
            vec![op],
            move |written| match written.as_deref() {
                Ok([OpOutcome::Cancelled(ids), ..]) => {
                    if let Some(reply) = reply {
                        let _ = reply.send(!ids.is_empty());
                    }
                    None
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "a request could not be cancelled; it waits again");
                    Some(Event::CancelFailed(request))
                }
            },
            ctx,
        );
    }

    fn new_seat(&mut self, worker: &WorkerName, session: SessionId, ctx: &mut Context<Self>) {
        let Some(attach) = self.attaches.remove(worker).filter(|a| a.link.session == session)
        else {
            return;
        };
        let id = format!("{}@{worker}", self.name());
        let (world, builder_id) = (self.world().clone(), self.parts.id);
        let (door, link, handle) = (self.mine.another(), attach.link, attach.handle);
        let (seat_link, seat_worker) = (link.clone(), handle.clone());
        let addr = start_supervised(
            id,
            ctx.address().recipient(),
            world.clock.clone(),
            MayRestart::new(true),
            move |_| SlaveBuilder::new(world, builder_id, door, handle, link),
        );
        self.seats.insert(worker.clone(), Seat { addr, link: seat_link, worker: seat_worker });
    }

    fn run_build(
        &mut self,
        claim: ClaimId,
        build: BuildId,
        worker: &WorkerName,
        requests: &[Request],
        config: Arc<BuilderConfig>,
        ctx: &mut Context<Self>,
    ) {
        let (Some(handle), Some(claimed)) =
            (self.worker(worker).cloned(), self.claimed.remove(&claim))
        else {
            tracing::error!(builder.name = %self.name(), build = %build, "a build that started has no worker or claim");
            ctx.notify(BuildFinished {
                claim,
                result: BuildResult::Exception,
                requeued: Vec::new(),
                times: None,
            });
            return;
        };
        let mut properties = own_properties(&config, worker);
        properties.extend(claimed.properties);
        let order = BuildOrder {
            order: self.order(claim, build, claimed.incarnation, requests, config),
            properties,
            worker: handle,
            link: self.seats.get(worker).map(|seat| seat.link.clone()),
            recovered: None,
            builder: ctx.address().recipient(),
            finished: ctx.address().recipient(),
        };
        self.start_build(order, ctx);
    }

    fn order(
        &self,
        claim: ClaimId,
        build: BuildId,
        incarnation: Incarnation,
        requests: &[Request],
        config: Arc<BuilderConfig>,
    ) -> Order {
        Order {
            claim,
            build,
            incarnation,
            epoch: requests.iter().map(|request| request.epoch).max().unwrap_or_default(),
            config,
            infra_tries: requests.iter().map(|r| r.infra_tries).max().unwrap_or_default(),
            kill_time: self.world().timers.kill_time,
        }
    }

    fn start_build(&mut self, order: BuildOrder, ctx: &mut Context<Self>) {
        let claim = order.order.claim;
        let id = format!("{} build {}", self.name(), order.order.build);
        let world = self.world().clone();
        let addr = start_supervised(
            id,
            ctx.address().recipient(),
            world.clock.clone(),
            MayRestart::new(true),
            move |_| Build::new(world, order),
        );
        self.builds.insert(claim, addr);
    }

    fn note(
        &mut self,
        worker: Option<&WorkerName>,
        text: String,
        error: Option<String>,
        ctx: &mut Context<Self>,
    ) {
        let worker = worker.and_then(|name| self.worker(name).map(|handle| handle.id));
        tracing::debug!(builder.name = %self.name(), note = %text, error = error.as_deref(), "note");
        self.notes.push(Op::Note(BuilderNote {
            builder: self.parts.id,
            worker,
            text,
            error,
            at: self.world().clock.now().wall,
        }));
        self.flush_soon(ctx);
    }

    /// Notes travel with the next write, which is nearly always at hand; when
    /// none comes they go by themselves.
    fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.notes_due {
            self.notes_due = true;
            ctx.notify_later(FlushNotes, SHOW_EVERY);
        }
    }

    fn show_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.show_due {
            self.show_due = true;
            ctx.run_later(SHOW_EVERY, |builder, _| {
                builder.show_due = false;
                builder.show();
            });
        }
    }

    fn show(&self) {
        if self.core.is_retired() || matches!(self.mode, Mode::Succeeding { .. }) {
            return;
        }
        let mut view = self.core.view();
        view.restarts = self.restarts;
        self.world().board.show_builder(self.name(), view);
    }

    fn over_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.over_due {
            self.over_due = true;
            ctx.run_later(LATE_MAIL, |builder, ctx| {
                builder.over_due = false;
                if builder.core.is_retired() && builder.builds.is_empty() {
                    ctx.stop();
                }
            });
        }
    }

    // ---- the one way up ------------------------------------------------

    fn load(&mut self, ctx: &mut Context<Self>) {
        let (tell, told) = oneshot::channel();
        self.world().store.load_builder(
            self.parts.id,
            Box::new(move |records| {
                // The actor may have gone meanwhile; then nobody is told.
                let _ = tell.send(records);
            }),
        );
        let seats: Vec<_> = self.seats.values().map(|seat| seat.addr.clone()).collect();
        let me = ctx.address();
        actix_rt::spawn(async move {
            let records = told.await.unwrap_or(Err(StoreError::Closed));
            let mut reports = Vec::new();
            for seat in seats {
                let asked = seat.send(DescribeSeat).timeout(Duration::from_secs(5)).await;
                if let Ok(Some(report)) = asked {
                    reports.push(report);
                }
            }
            me.do_send(Loaded { records, reports });
        });
    }

    fn rebuild(
        &mut self,
        records: BuilderRecords,
        reports: Vec<SeatReport>,
        ctx: &mut Context<Self>,
    ) {
        let retired = self.own.clone();
        let mut core_records = Records {
            queued: Vec::new(),
            builds: Vec::new(),
            inherited: Vec::new(),
            loaded_through: records.loaded_through,
            expectations: records.expectations,
        };
        if retired.is_none() {
            core_records.queued = records.queued.iter().map(request).collect();
        }
        let mut recovered = Vec::new();
        for open in records.builds {
            let core_build = OpenBuild {
                claim: open.claim,
                build: open.row.id,
                number: open.row.number,
                worker: open.worker.clone(),
                requests: open.requests.iter().map(request).collect(),
            };
            if self.inherited.contains_key(&open.claim) {
                core_records.inherited.push(core_build);
                continue;
            }
            if retired.as_ref().is_some_and(|own| !own.contains(&open.claim)) {
                continue;
            }
            core_records.builds.push(core_build);
            if !self.claimed.contains_key(&open.claim) {
                self.claimed.insert(
                    open.claim,
                    Claimed {
                        properties: (*open.row.properties).clone(),
                        incarnation: open.row.incarnation,
                    },
                );
            }
            if open.row.number.is_some() && !self.builds.contains_key(&open.claim) {
                recovered.push(open);
            }
        }
        let reports =
            reports.into_iter().filter(|report| self.seats.contains_key(&report.worker)).collect();
        for open in recovered {
            self.recover_build(open, ctx);
        }
        let running = self.builds.keys().copied().collect();
        let inherited = self.inherited.keys().copied().collect();
        let mut effects = Vec::new();
        let now = self.world().clock.now();
        self.core.rebuild(now, core_records, reports, &running, &inherited, &mut effects);
        if retired.is_some() {
            self.core.retire(&BTreeSet::new(), &mut effects);
        }
        self.perform_all(effects, ctx);
        let claims = self.core.claims();
        for seat in self.seats.values() {
            seat.worker.keep.do_send(KeepSlots {
                builder: self.name().clone(),
                claims: claims.union(&inherited).copied().collect(),
            });
        }
    }

    fn recover_build(&mut self, open: crate::store::OpenBuild, ctx: &mut Context<Self>) {
        let Some(worker) = self.parts.workers.get(&open.worker).cloned() else {
            tracing::warn!(builder.name = %self.name(), build = %open.row.id, worker.name = %open.worker, "the worker of a running build is not configured any more");
            return;
        };
        let mut config = (*self.parts.config).clone();
        config.factory = open.factory;
        let requests: Vec<_> = open.requests.iter().map(request).collect();
        let order = BuildOrder {
            order: self.order(
                open.claim,
                open.row.id,
                open.row.incarnation,
                &requests,
                Arc::new(config),
            ),
            properties: (*open.row.properties).clone(),
            worker,
            link: None,
            recovered: Some(open.steps),
            builder: ctx.address().recipient(),
            finished: ctx.address().recipient(),
        };
        self.start_build(order, ctx);
    }

    fn go_live(&mut self, waiting: Vec<Input>, ctx: &mut Context<Self>) {
        self.mode = Mode::Live;
        self.show();
        let builder = self.name().clone();
        self.parts.shown.do_send(BuilderShown { builder });
        let mut waiting = waiting.into_iter();
        while let Some(input) = waiting.next() {
            self.take(input, ctx);
            if let Mode::HandingOver { waiting: later, .. } = &mut self.mode {
                later.extend(waiting.by_ref());
            }
        }
    }

    // ---- takeover --------------------------------------------------------

    fn hand_over(&mut self, take_over: TakeOver, ctx: &mut Context<Self>) {
        faults::point("builder.hand_over");
        let seed = self.core.draw_seed();
        let handover = self.core.hand_over(&take_over.config, seed);
        let moved = handover.seats.keys().cloned().collect();
        take_over.successor.do_send(Soul { handover, predecessor: ctx.address() });
        self.mode = Mode::HandingOver { waiting: Vec::new(), take_over, moved };
        let generation = self.core.generation();
        ctx.run_later(TAKEOVER_LIMIT, move |builder, ctx| {
            if matches!(builder.mode, Mode::HandingOver { .. })
                && builder.core.generation() == generation
            {
                builder.stay(format!("the successor did not stand within {TAKEOVER_LIMIT:?}"), ctx);
            }
        });
    }

    /// The successor failed: this one is still in charge, with everything
    /// that arrived meanwhile.
    fn stay(&mut self, why: String, ctx: &mut Context<Self>) {
        let mode = std::mem::replace(&mut self.mode, Mode::Live);
        let Mode::HandingOver { waiting, take_over, .. } = mode else {
            self.mode = mode;
            return;
        };
        let _ = take_over.done.send(Err(why));
        self.go_live(waiting, ctx);
    }

    fn retire(&mut self, moved: &BTreeSet<WorkerName>, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.retire(moved, &mut effects);
        self.own = Some(self.core.claims());
        self.perform_all(effects, ctx);
    }
}

/// Places at which tests make events panic.
fn point_of(event: &Event) {
    faults::point(match event {
        Event::Claimed { .. } => "builder.claimed",
        Event::StartAccepted { .. } => "builder.start_accepted",
        Event::SlotGranted { .. } => "builder.slot_granted",
        Event::MaybeStart { .. } => "builder.maybe_start",
        Event::PingDone { .. } => "builder.ping_done",
        _ => "builder.event",
    });
}

fn empty_core(parts: &BuilderParts, generation: Generation) -> BuilderCore {
    BuilderCore::new(parts.id, generation, parts.config.clone(), Rng::seeded(parts.seed))
}

fn own_properties(config: &BuilderConfig, worker: &WorkerName) -> Properties {
    let property =
        |value: &str, source: &str| Property { value: value.into(), source: source.into() };
    let mut properties: Properties = config
        .properties
        .iter()
        .map(|(name, value)| (name.clone(), property(value, "Builder")))
        .collect();
    properties.insert("buildername".into(), property(config.name.as_str(), "Builder"));
    properties.insert("workername".into(), property(worker.as_str(), "Worker"));
    properties
}

/// A buildset's properties, with what its source stamp says.
fn set_properties(buildset: &BuildsetRow) -> Properties {
    let mut properties = (*buildset.properties).clone();
    if let Some(source) = buildset.sourcestamps.first() {
        let stamp = &source.stamp;
        let fields = [
            ("branch", stamp.branch.clone().unwrap_or_default()),
            ("revision", stamp.revision.clone().unwrap_or_default()),
            ("repository", stamp.repository.clone()),
            ("project", stamp.project.clone()),
        ];
        for (name, value) in fields {
            let property = Property { value, source: "Build".into() };
            properties.entry(name.into()).or_insert(property);
        }
    }
    properties
}

impl Actor for Builder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if matches!(self.mode, Mode::Loading { .. }) {
            self.load(ctx);
        }
    }
}

impl Supervised for Builder {
    /// Nothing of the half-changed state is kept: the core is built anew from
    /// the store and from what the living parts report.
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.restarts += 1;
        self.alarm.rang();
        self.notes_due = false;
        self.show_due = false;
        self.over_due = false;
        self.attaches.clear();
        let generation = self.core.generation();
        let mode = std::mem::replace(&mut self.mode, Mode::Loading { waiting: Vec::new() });
        // What had been told to the successor is not taken back by a panic of
        // the predecessor: it stays in charge, and the reload reports it.
        let waiting = match mode {
            Mode::HandingOver { waiting, take_over, .. } => {
                let _ = take_over.done.send(Err("the builder had to be started again".into()));
                waiting
            }
            Mode::Loading { waiting } | Mode::Succeeding { waiting, .. } => waiting,
            Mode::Live => Vec::new(),
        };
        self.mode = Mode::Loading { waiting };
        self.core = empty_core(&self.parts, generation);
    }
}

impl Handler<Mail> for Builder {
    type Result = ();
    fn handle(&mut self, mail: Mail, ctx: &mut Context<Self>) {
        self.take(Input::Mail(mail), ctx);
    }
}

impl Handler<BuilderEvent> for Builder {
    type Result = ();
    fn handle(&mut self, message: BuilderEvent, ctx: &mut Context<Self>) {
        self.take(Input::Event(message.0), ctx);
    }
}

impl Handler<BuildFinished> for Builder {
    type Result = ();
    fn handle(&mut self, message: BuildFinished, ctx: &mut Context<Self>) {
        self.take(Input::Finished(message), ctx);
    }
}

/// The store answered a claim.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct ClaimWritten {
    claim: ClaimId,
    incarnation: Incarnation,
    written: Written,
}

impl Handler<ClaimWritten> for Builder {
    type Result = ();
    fn handle(&mut self, answer: ClaimWritten, ctx: &mut Context<Self>) {
        let claim = answer.claim;
        let event = match answer.written {
            Ok(outcomes) => match outcomes.into_iter().last() {
                Some(OpOutcome::Claimed { build, requests, buildset }) => {
                    let properties = set_properties(&buildset);
                    self.claimed
                        .insert(claim, Claimed { properties, incarnation: answer.incarnation });
                    let requests = requests.iter().map(|row| request(row)).collect();
                    Event::Claimed { claim, build: build.id, requests }
                }
                _ => Event::ClaimLost {
                    claim,
                    error: "unexpected answer of the store".into(),
                    transient: false,
                },
            },
            Err(error) => Event::ClaimLost {
                claim,
                transient: error.is_transient(),
                error: error.to_string(),
            },
        };
        self.take(Input::Event(event), ctx);
    }
}

impl Handler<Loaded> for Builder {
    type Result = ();
    fn handle(&mut self, loaded: Loaded, ctx: &mut Context<Self>) {
        let Mode::Loading { waiting } = &mut self.mode else { return };
        let waiting = std::mem::take(waiting);
        match loaded.records {
            Ok(records) => {
                self.mode = Mode::Live;
                self.rebuild(records, loaded.reports, ctx);
                self.go_live(waiting, ctx);
            }
            Err(error) => {
                tracing::error!(builder.name = %self.name(), %error, "the builder's records could not be read; trying again");
                self.mode = Mode::Loading { waiting };
                ctx.run_later(Duration::from_secs(1), |builder, ctx| builder.load(ctx));
            }
        }
    }
}

impl Handler<TakeOver> for Builder {
    type Result = ();
    fn handle(&mut self, message: TakeOver, ctx: &mut Context<Self>) {
        self.take(Input::TakeOver(message), ctx);
    }
}

impl Handler<Soul> for Builder {
    type Result = ();
    fn handle(&mut self, soul: Soul, _: &mut Context<Self>) {
        faults::point("builder.succeed");
        let Mode::Succeeding { core, .. } = &mut self.mode else { return };
        let now = self.parts.world.clock.now();
        let config = self.parts.config.clone();
        *core = Some(Box::new(BuilderCore::succeed(config, soul.handover, now)));
        soul.predecessor.do_send(Stands);
    }
}

impl Handler<Stands> for Builder {
    type Result = ();
    /// From here on the successor is in charge: it gets what arrived meanwhile
    /// before anybody learns its address.
    fn handle(&mut self, _: Stands, ctx: &mut Context<Self>) {
        let mode = std::mem::replace(&mut self.mode, Mode::Live);
        let Mode::HandingOver { waiting, take_over, moved } = mode else {
            self.mode = mode;
            return;
        };
        let (moving, staying) = std::mem::take(&mut self.seats)
            .into_iter()
            .partition(|(worker, _)| moved.contains(worker));
        self.seats = staying;
        let mut inherited = std::mem::take(&mut self.inherited);
        for claim in self.core.claims() {
            inherited.insert(claim, ctx.address().recipient());
        }
        take_over.successor.do_send(Go {
            inbox: std::mem::take(&mut self.inbox),
            seats: moving,
            inherited,
        });
        self.parts.route.lead_to(take_over.successor.clone().recipient());
        self.retire(&moved, ctx);
        let _ = take_over.done.send(Ok(()));
        for input in waiting {
            self.take(input, ctx);
        }
    }
}

impl Handler<Go> for Builder {
    type Result = ();
    fn handle(&mut self, go: Go, ctx: &mut Context<Self>) {
        let Mode::Succeeding { core, waiting } = &mut self.mode else { return };
        let (core, waiting) = (core.take(), std::mem::take(waiting));
        if let Some(core) = core {
            self.core = *core;
        }
        self.inbox = go.inbox;
        self.seats = go.seats;
        self.inherited = go.inherited;
        self.parts.may_restart.set(true);
        self.mode = Mode::Live;
        // What follows from the new settings: a start, another big state.
        self.step(Event::MaybeStart { worker: None }, ctx);
        self.go_live(waiting, ctx);
    }
}

impl Handler<GiveUp> for Builder {
    type Result = ();
    fn handle(&mut self, _: GiveUp, ctx: &mut Context<Self>) {
        if matches!(self.mode, Mode::Succeeding { .. }) {
            ctx.stop();
        }
    }
}

impl Handler<SuccessorFailed> for Builder {
    type Result = ();
    fn handle(&mut self, failed: SuccessorFailed, ctx: &mut Context<Self>) {
        self.stay(failed.0, ctx);
    }
}

impl Handler<RetireBuilder> for Builder {
    type Result = ();
    fn handle(&mut self, _: RetireBuilder, ctx: &mut Context<Self>) {
        self.take(Input::Retire, ctx);
    }
}

impl Handler<Inherited> for Builder {
    type Result = ();
    fn handle(&mut self, message: Inherited, ctx: &mut Context<Self>) {
        let Inherited { claim, request, reason } = message;
        self.take(Input::Event(Event::StopOwn { claim, request, reason }), ctx);
    }
}

impl Handler<UndoAgain> for Builder {
    type Result = ();
    fn handle(&mut self, again: UndoAgain, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_secs(1), move |builder, ctx| {
            builder.unclaim(again.claim, again.build, again.cancelled, ctx);
        });
    }
}

impl Handler<FlushNotes> for Builder {
    type Result = ();
    fn handle(&mut self, _: FlushNotes, ctx: &mut Context<Self>) {
        self.notes_due = false;
        if !self.notes.is_empty() {
            self.write(Vec::new(), |_| None, ctx);
        }
    }
}

impl Handler<ChildDown> for Builder {
    type Result = ();
    /// A Build that gave up even on its restart: its requests must not be
    /// stuck with it.
    fn handle(&mut self, down: ChildDown, ctx: &mut Context<Self>) {
        if !down.gave_up {
            return;
        }
        let dead: Vec<ClaimId> = self
            .builds
            .iter()
            .filter(|(_, build)| !build.connected())
            .map(|(claim, _)| *claim)
            .collect();
        for claim in dead {
            ctx.notify(BuildFinished {
                claim,
                result: BuildResult::Exception,
                requeued: Vec::new(),
                times: None,
            });
        }
    }
}
