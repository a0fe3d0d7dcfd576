//! The Worker actor: one worker as the master knows it, whether it is there or
//! not. Frames that are not text of logs pass through here, so this is where
//! a frame about somebody else's build is caught.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use actix::{Actor, ActorContext, AsyncContext, Handler, Recipient, ResponseFuture, Supervised};
use tokio::sync::oneshot;

mod frames;
mod grant;
mod latent;

pub(super) use frames::{NEVER_GIVEN, breach};

use super::runtime::{Alarm, World};
use crate::actors::context::Context;
use crate::core::builder::Event as ToBuilder;
use crate::core::ids::*;
use crate::core::slave_builder::CommandVersions;
use crate::core::values::{BuildResult, WorkerConfig};
use crate::core::views::WorkerView;
use crate::core::worker::{Effect, Event, WorkerCore};
use crate::faults;
use crate::messages::*;
use crate::protocol::json_v1::{BuilderEntry, MasterFrame};
use crate::store::{Op, OpOutcome, Transaction};

/// How many ended builds are remembered, so that their late frames are known
/// from those about somebody else's build.
const REMEMBERED: usize = 256;

/// Whom a Worker tells.
#[derive(Clone)]
pub struct WorkerDoors {
    /// That it may be given more.
    pub master: Recipient<WorkerAvailable>,
    /// That a heartbeat came.
    pub heartbeats: Recipient<HeartbeatArrived>,
}

/// One worker as the master knows it.
pub struct Worker {
    world: World,
    id: WorkerId,
    name: WorkerName,
    core: WorkerCore,
    doors: Arc<WorkerDoors>,
    builders: BTreeMap<BuilderName, Arc<BuilderHandle>>,
    links: BTreeMap<SessionId, Box<Present>>,
    seats: BTreeMap<BuilderName, (SessionId, Recipient<SeatNews>)>,
    /// Starts that were sent, and whose SlaveBuilder waits for the answer.
    starts: BTreeMap<BuildId, (BuilderName, Epoch)>,
    builds: BTreeMap<BuildId, BuildDoor>,
    ended: VecDeque<BuildId>,
    pings: BTreeMap<PingToken, (SessionId, Recipient<Pong>, Recipient<PingLost>)>,
    askers: BTreeMap<ClaimId, SlotReply>,
    /// Who waits for an order to be durable.
    ordered: Option<oneshot::Sender<Result<(), Refusal>>>,
    handle: Option<Arc<WorkerHandle>>,
    /// Who is in charge of the name now, when it was removed and came back.
    successor: Option<Arc<WorkerHandle>>,
    alarm: Alarm,
    latent: latent::LatentParts,
}

/// A connection, and what it told of itself.
struct Present {
    link: WorkerLink,
    /// What it has, for each builder that it serves.
    versions: CommandVersions,
    /// What is kept of it, until it is stored.
    info: BTreeMap<String, String>,
    address: String,
    clock_skew_ms: Option<i64>,
}

/// The store answered an attach.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct AttachWritten {
    session: SessionId,
    outcome: Result<Incarnation, String>,
}

/// The store answered an order.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct OrderWritten {
    written: Result<(), String>,
    /// What follows when it is durable.
    then: Event,
    ordered: Option<oneshot::Sender<Result<(), Refusal>>>,
}

impl Worker {
    /// A worker that is not there yet.
    #[must_use]
    pub fn new(
        world: World,
        id: WorkerId,
        config: WorkerConfig,
        paused: bool,
        doors: Arc<WorkerDoors>,
    ) -> Self {
        let name = config.name.clone();
        let per_minute = world.limits.attaches_per_minute;
        Self {
            world,
            id,
            name,
            core: WorkerCore::new(config, paused).attaching_at_most(per_minute),
            doors,
            builders: BTreeMap::new(),
            links: BTreeMap::new(),
            seats: BTreeMap::new(),
            starts: BTreeMap::new(),
            builds: BTreeMap::new(),
            ended: VecDeque::new(),
            pings: BTreeMap::new(),
            askers: BTreeMap::new(),
            ordered: None,
            handle: None,
            successor: None,
            alarm: Alarm::default(),
            latent: latent::LatentParts::default(),
        }
    }

    /// The same one, which others know by this handle already.
    #[must_use]
    pub fn with_handle(self, handle: Arc<WorkerHandle>) -> Self {
        Self { handle: Some(handle), ..self }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.handle_at(self.world.clock.now().mono, event, &mut effects);
        self.perform_all(effects, ctx);
    }

    fn perform_all(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        let over = effects.contains(&Effect::Over);
        for effect in effects {
            self.perform(effect, ctx);
        }
        if !over {
            self.show();
        }
        let at = self.core.next_deadline();
        let clock = self.world.clock.clone();
        self.alarm.set(ctx, &clock, at, |worker, ctx| {
            worker.alarm.rang();
            worker.step(Event::DeadlineReached, ctx);
        });
    }

    fn show(&self) {
        let (used, max_builds) = self.core.slots();
        let (paused, graceful) = self.core.standing();
        let present = self.core.session().and_then(|session| self.links.get(&session));
        let address = present.map(|present| present.address.clone());
        let clock_skew_ms = present.and_then(|present| present.clock_skew_ms);
        self.world.board.show_worker(
            &self.name,
            WorkerView {
                id: self.id,
                connected: self.core.is_up(),
                incarnation: self.core.incarnation().unwrap_or_default(),
                used,
                max_builds,
                paused,
                graceful,
                address,
                clock_skew_ms,
                quarantine: self.core.quarantine_view(self.world.clock.now()),
                instance: self.core.instance_view(self.world.clock.now()),
            },
        );
    }

    fn link(&self, session: SessionId) -> Option<&WorkerLink> {
        self.links.get(&session).map(|present| &present.link)
    }

    fn current(&self) -> Option<&WorkerLink> {
        self.core.session().and_then(|session| self.link(session))
    }

    fn send(&self, frame: &MasterFrame) {
        if let Some(link) = self.current() {
            link.send(frame);
        }
    }

    /// Keeps an order; it counts, and whoever gave it hears of it, when it is
    /// durable.
    fn write_order(&mut self, op: Op, then: Event, ctx: &mut Context<Self>) {
        let (ordered, me) = (self.ordered.take(), ctx.address());
        self.world.store.write(
            Transaction::of(op),
            Box::new(move |written| {
                let written = written.map(|_| ()).map_err(|error| error.to_string());
                me.do_send(OrderWritten { written, then, ordered });
            }),
        );
    }

    fn write(&self, op: Op) {
        let worker = self.name.clone();
        self.world.store.write(
            Transaction::of(op),
            Box::new(move |written| {
                if let Err(error) = written {
                    tracing::warn!(worker.name = %worker, %error, "the worker's state was not stored");
                }
            }),
        );
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::StoreAttach { session } => self.store_attach(session, ctx),
            Effect::StoreDetach { incarnation } => self.write(Op::DetachWorker {
                worker: self.id,
                incarnation,
                at: self.world.clock.now().wall,
            }),
            Effect::SendAttached { session, incarnation } => {
                self.world.board.forget_refused(&self.name);
                self.send_attached(session, incarnation);
                ctx.run_later(self.world.timers.handshake, move |worker, _| {
                    if worker.core.session() == Some(session)
                        && !worker.core.is_up()
                        && let Some(link) = worker.link(session)
                    {
                        link.close("it did not tell its inventory in time");
                    }
                });
            }
            Effect::Reject { session, code, message, retry_after_s } => {
                tracing::warn!(worker.name = %self.name, code, reason = %message, "worker turned away");
                self.world.board.count_ignored("worker turned away");
                self.show_turned_away(session);
                if let Some(link) = self.link(session) {
                    let frame = MasterFrame::Rejected { code: code.into(), message, retry_after_s };
                    link.send(&frame);
                    link.close(code);
                }
            }
            Effect::SendBuilders { list } => {
                let list = list
                    .into_iter()
                    .map(|(builder, builddir)| BuilderEntry { builder, builddir })
                    .collect();
                self.send(&MasterFrame::Builders { list });
            }
            Effect::TellBuilder { builder, session } => self.tell_builder(&builder, session),
            Effect::TellSeat { builder, error, building } => {
                if let Some((_, seat)) = self.seats.get(&builder) {
                    seat.do_send(SeatNews(SeatNewsKind::Answer { error, building }));
                }
            }
            Effect::TellSeatsDetached { session } => self.detach_seats(session),
            Effect::TellBuildAway { build } => {
                self.tell_build(build, crate::core::build::Event::Away);
            }
            Effect::TellBuildBack { build, incarnation, brought } => {
                if let (Some(door), Some(link)) = (self.builds.get(&build), self.current()) {
                    door.back.do_send(WorkerBack { link: link.clone(), incarnation, brought });
                }
            }
            Effect::TellBuildGone { build } => {
                self.tell_build(build, crate::core::build::Event::Gone);
            }
            Effect::SendAbandon { build, command } => self.abandon(build, command),
            Effect::Slot { builder: _, claim, granted } => {
                // Dropped unused, it refuses.
                if let (Some(reply), Some(incarnation)) = (self.askers.remove(&claim), granted) {
                    reply.grant(self.id, incarnation);
                }
            }
            Effect::SlotReserved { builder: _, claim } => {
                if let Some(reply) = self.askers.remove(&claim) {
                    reply.reserve();
                }
            }
            Effect::TellLatent { builder } => self.tell_latent(&builder),
            Effect::TellNotLatent { builder } => {
                if let Some(door) = self.builders.get(&builder) {
                    let worker = self.name.clone();
                    door.tell(BuilderMail::Event(ToBuilder::NotLatent { worker }));
                }
            }
            Effect::TellDetails { claim, details } => {
                self.tell_waiting(claim, InstanceNewsKind::Created(details));
            }
            Effect::TellNoInstance { claim, error, permanent } => {
                self.tell_waiting(claim, InstanceNewsKind::Failed { error, permanent });
            }
            Effect::Instance(effect) => self.perform_instance(effect, ctx),
            Effect::TryBuilders(builders) => {
                let (worker, room) = (self.name.clone(), self.core.room());
                self.doors.master.do_send(WorkerAvailable { worker, builders, room });
            }
            Effect::StorePaused { paused, reason } => {
                let paused_op = Some((paused, reason));
                let op = Op::SetWorker { worker: self.id, paused: paused_op, graceful: None };
                self.write_order(op, Event::PauseStored { paused }, ctx);
            }
            Effect::StoreLeave { shutdown, reason } => {
                let op = Op::SetWorker { worker: self.id, paused: None, graceful: Some(true) };
                self.write_order(op, Event::LeaveStored { shutdown, reason }, ctx);
            }
            Effect::StoreStays => {
                self.write(Op::SetWorker { worker: self.id, paused: None, graceful: Some(false) });
            }
            Effect::SendLeave { shutdown, reason } => self.send(&if shutdown {
                MasterFrame::Shutdown { reason }
            } else {
                MasterFrame::Drain { reason }
            }),
            Effect::CloseConnection { session, reason } => {
                if let Some(link) = self.link(session) {
                    link.close(reason);
                }
            }
            Effect::YieldBuild { build, claim, builder } => {
                if let (Some(door), Some(to)) = (self.builds.get(&build), &self.successor) {
                    let (door, session, in_doubt) = (door.clone(), None, false);
                    to.tell(RegisterBuild { build, claim, builder, session, in_doubt, door });
                }
            }
            Effect::Ignored(kind) => self.world.ignored(kind),
            Effect::YieldInstances(known) => {
                if let Some(door) = &self.successor {
                    let made_with = self.core.config().clone();
                    door.tell(TakeInstances { known, made_with });
                }
            }
            Effect::Over => {
                if self.successor.is_none() {
                    self.world.board.forget_worker(&self.name);
                }
                ctx.stop();
            }
        }
    }

    /// Durable before told: the incarnation is stored before the worker hears
    /// that it is attached.
    fn store_attach(&mut self, session: SessionId, ctx: &mut Context<Self>) {
        let Some(present) = self.links.get_mut(&session) else { return };
        let info = std::mem::take(&mut present.info);
        let op = Op::AttachWorker { worker: self.id, info, at: self.world.clock.now().wall };
        let me = ctx.address();
        self.world.store.write(
            Transaction::of(op),
            Box::new(move |written| {
                let outcome = match written.as_deref() {
                    Ok([OpOutcome::Attached(incarnation)]) => Ok(*incarnation),
                    Ok(other) => Err(format!("unexpected answer of the store: {other:?}")),
                    Err(error) => Err(error.to_string()),
                };
                me.do_send(AttachWritten { session, outcome });
            }),
        );
    }

    fn tell_builder(&self, builder: &BuilderName, session: SessionId) {
        let (Some(door), Some(present), Some(handle)) =
            (self.builders.get(builder), self.links.get(&session), &self.handle)
        else {
            return;
        };
        let Present { link, versions, .. } = &**present;
        door.tell(BuilderMail::Attach(Attach {
            worker: self.name.clone(),
            link: link.clone(),
            handle: handle.clone(),
            versions: versions.clone(),
        }));
    }

    fn tell_build(&self, build: BuildId, event: crate::core::build::Event) {
        if let Some(door) = self.builds.get(&build) {
            door.event.do_send(BuildEvent(event));
        }
    }

    fn detach_seats(&mut self, session: SessionId) {
        self.seats.retain(|_, (theirs, seat)| {
            if *theirs == session {
                seat.do_send(SeatNews(SeatNewsKind::Detached));
            }
            *theirs != session
        });
        self.starts.clear();
        self.pings.retain(|_, (theirs, _, lost)| {
            if *theirs == session {
                lost.do_send(PingLost);
            }
            *theirs != session
        });
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.handle.is_none() {
            let handle = WorkerHandle::new(self.name.clone(), self.id, &ctx.address());
            self.handle = Some(Arc::new(handle));
        }
        self.show();
        self.take_over(ctx);
        // Also after a panic, in which the timer is lost.
        self.perform_all(Vec::new(), ctx);
    }

    /// Also when it is not started again after a panic: its seats must not go
    /// on offering a worker that nobody can be asked about.
    fn stopped(&mut self, _: &mut Context<Self>) {
        for present in self.links.values() {
            present.link.close("the master's part for it ended");
        }
        for (_, seat) in self.seats.values() {
            seat.do_send(SeatNews(SeatNewsKind::Detached));
        }
        for door in self.builds.values() {
            door.event.do_send(BuildEvent(crate::core::build::Event::Away));
        }
    }
}

impl Supervised for Worker {
    /// The worker comes back over a new connection with its inventory; slots
    /// and Builds are told by those who hold them.
    fn restarting(&mut self, ctx: &mut Context<Self>) {
        // Dropped unused, they refuse; what the core granted to nobody is put
        // right when the builders tell which slots they know.
        self.askers.clear();
        self.ordered = None;
        self.alarm.rang();
        for present in self.links.values() {
            present.link.close("the master's part for it had to be started again");
        }
        if let Some(session) = self.core.session() {
            ctx.notify(ConnectionLost { session, reason: "restarted".into() });
        }
    }
}

impl Handler<Hello> for Worker {
    type Result = ();
    fn handle(&mut self, hello: Hello, ctx: &mut Context<Self>) {
        faults::point("worker.hello");
        let (session, slots) = (hello.link.session, hello.attach.slots);
        let instance = hello.attach.instance.clone();
        let tag = hello.attach.labels.get("instance").map(|tag| InstanceTag::from(tag.as_str()));
        let address = hello.address.clone();
        let now = self.world.clock.now().wall.0 / 1000;
        let clock_skew_ms = hello.attach.clock.map(|clock| clock.saturating_sub(now));
        let Hello { link, attach, address: from } = hello;
        let versions = CommandVersions::of(attach.caps.as_deref());
        let attach = *attach;
        let mut info = attach.info;
        for (key, value) in [
            ("version", attach.version),
            ("os", attach.os),
            ("arch", attach.arch),
            ("address", from.clone()),
        ] {
            info.insert(key.into(), value);
        }
        let present = Present { link, versions, info, address: from, clock_skew_ms };
        self.links.insert(session, Box::new(present));
        if self.core.expects(tag.as_ref()) {
            self.step(Event::Hello { session, slots, instance, address }, ctx);
        } else {
            self.step(Event::Unexpected { session }, ctx);
        }
    }
}

impl Handler<AttachWritten> for Worker {
    type Result = ();
    fn handle(&mut self, written: AttachWritten, ctx: &mut Context<Self>) {
        let session = written.session;
        let event = match written.outcome {
            Ok(incarnation) => Event::AttachStored { session, incarnation },
            Err(error) => Event::AttachRefused { session, error },
        };
        self.step(event, ctx);
        if self.core.config().latent.is_some() {
            faults::crash_point("substantiate.after_attach");
        }
    }
}

impl Handler<OrderWritten> for Worker {
    type Result = ();
    fn handle(&mut self, order: OrderWritten, ctx: &mut Context<Self>) {
        if order.written.is_ok() {
            self.step(order.then, ctx);
        }
        if let Some(ordered) = order.ordered {
            // Whoever gave it may have gone; that changes nothing.
            let _ = ordered.send(order.written.map_err(Refusal::Store));
        }
    }
}

impl Handler<FrameArrived> for Worker {
    type Result = ();
    fn handle(&mut self, message: FrameArrived, ctx: &mut Context<Self>) {
        faults::point("worker.frame");
        if self.core.session() == Some(message.session) {
            self.on_frame(message.session, message.frame, ctx);
        } else {
            self.world.ignored("frame of a connection that was replaced");
        }
    }
}

impl Handler<ConnectionLost> for Worker {
    type Result = ();
    fn handle(&mut self, lost: ConnectionLost, ctx: &mut Context<Self>) {
        tracing::info!(worker.name = %self.name, reason = %lost.reason, "worker disconnected");
        self.step(Event::ConnectionLost { session: lost.session }, ctx);
        self.links.remove(&lost.session);
    }
}

impl Handler<AskSlot> for Worker {
    type Result = ();
    fn handle(&mut self, ask: AskSlot, ctx: &mut Context<Self>) {
        faults::point("worker.ask_slot");
        self.askers.insert(ask.claim, ask.reply);
        self.step(Event::AskSlot { builder: ask.builder, claim: ask.claim }, ctx);
    }
}

impl Handler<GiveBackSlot> for Worker {
    type Result = ();
    fn handle(&mut self, message: GiveBackSlot, ctx: &mut Context<Self>) {
        let GiveBackSlot { builder, claim } = message;
        if let Some(to) = &self.successor {
            to.tell(GiveBackSlot { builder: builder.clone(), claim });
        }
        self.step(Event::GiveBackSlot { builder, claim }, ctx);
        self.forget_waiting();
    }
}

impl Handler<KeepSlots> for Worker {
    type Result = ();
    fn handle(&mut self, keep: KeepSlots, ctx: &mut Context<Self>) {
        self.step(Event::KeepSlots { builder: keep.builder, claims: keep.claims }, ctx);
        self.forget_waiting();
    }
}

impl Handler<RegisterSeat> for Worker {
    type Result = ();
    fn handle(&mut self, register: RegisterSeat, ctx: &mut Context<Self>) {
        let RegisterSeat { session, builder, to } = register;
        self.seats.insert(builder.clone(), (session, to));
        self.step(Event::SeatRegistered { session, builder }, ctx);
    }
}

impl Handler<RegisterStart> for Worker {
    type Result = ();
    fn handle(&mut self, register: RegisterStart, _: &mut Context<Self>) {
        // Nobody answers a start whose connection is gone.
        if !self.core.is_up() {
            return;
        }
        self.starts.insert(register.build, (register.builder, register.epoch));
        // From now on it says sooner that it is there.
        if let Some(link) = self.current() {
            link.beats(self.world.timers.heartbeat);
        }
    }
}

impl Handler<RegisterBuild> for Worker {
    type Result = ();
    fn handle(&mut self, register: RegisterBuild, ctx: &mut Context<Self>) {
        let RegisterBuild { build, claim, builder, session, in_doubt, door } = register;
        if let Some(to) = &self.successor {
            let (builder, door, session) = (builder.clone(), door.clone(), None);
            to.tell(RegisterBuild { build, claim, builder, session, in_doubt, door });
        }
        self.builds.insert(build, door);
        let event = if in_doubt && session.is_none() {
            Event::ClaimRegistered { build, claim, builder }
        } else {
            Event::BuildRegistered { build, claim, builder, session }
        };
        self.step(event, ctx);
    }
}

impl Handler<ForgetBuild> for Worker {
    type Result = ();
    fn handle(&mut self, forget: ForgetBuild, ctx: &mut Context<Self>) {
        if let Some(to) = &self.successor {
            to.tell(ForgetBuild { build: forget.build, result: forget.result });
        }
        self.builds.remove(&forget.build);
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(forget.build);
        // Not to a connection that was not told yet that it is attached; with
        // its inventory it hears that the build is nobody's.
        if self.core.incarnation().is_some() {
            faults::crash_point("finish.before_worker_told");
            match forget.result {
                Some(result) => self.send(&MasterFrame::BuildFinished {
                    build: forget.build,
                    result: result.into(),
                }),
                None => self.abandon(forget.build, None),
            }
        }
        // Only builds that are queued again end so.
        if forget.result == Some(BuildResult::Retry.word()) {
            self.step(Event::BuildLost { build: forget.build }, ctx);
        }
        self.step(Event::BuildForgotten { build: forget.build }, ctx);
    }
}

impl Handler<RegisterPing> for Worker {
    type Result = ();
    fn handle(&mut self, register: RegisterPing, _: &mut Context<Self>) {
        if self.link(register.session).is_none() {
            register.lost.do_send(PingLost);
            return;
        }
        self.pings.insert(register.token, (register.session, register.pong, register.lost));
    }
}

impl Handler<ForgetPing> for Worker {
    type Result = ();
    fn handle(&mut self, message: ForgetPing, _: &mut Context<Self>) {
        self.pings.remove(&message.0);
    }
}

impl Handler<ConfigureWorker> for Worker {
    type Result = ();
    fn handle(&mut self, message: ConfigureWorker, ctx: &mut Context<Self>) {
        let list = message
            .builders
            .iter()
            .map(|(handle, builddir)| (handle.name.clone(), builddir.clone()))
            .collect();
        // A door to the same actor stays, so that its order of mail does, too.
        let mut doors = BTreeMap::new();
        for (handle, _) in message.builders {
            let kept = self
                .builders
                .remove(&handle.name)
                .filter(|old| Arc::ptr_eq(old.route(), handle.route()));
            doors.insert(handle.name.clone(), kept.unwrap_or(handle));
        }
        self.builders = doors;
        let (config, renewed) = (message.config, (*message.renewed).clone());
        self.step(Event::Configure { config, builders: list, renewed }, ctx);
    }
}

impl Handler<WorkerOrdered> for Worker {
    type Result = ResponseFuture<Result<(), Refusal>>;
    fn handle(&mut self, message: WorkerOrdered, ctx: &mut Context<Self>) -> Self::Result {
        let event = match message.order {
            WorkerOrder::Pause => Event::Pause {
                paused: true,
                reason: Some(message.reason).filter(|r| !r.is_empty()),
            },
            WorkerOrder::Unpause => Event::Pause { paused: false, reason: None },
            WorkerOrder::Drain | WorkerOrder::Shutdown => {
                if !self.core.is_up() {
                    let name = self.name.clone();
                    return Box::pin(async { Err(Refusal::NotAttached(name)) });
                }
                Event::Leave {
                    shutdown: message.order == WorkerOrder::Shutdown,
                    reason: message.reason,
                }
            }
        };
        let (tell, told) = oneshot::channel();
        self.ordered = Some(tell);
        self.step(event, ctx);
        Box::pin(async move { told.await.unwrap_or(Err(Refusal::Gone)) })
    }
}

impl Handler<BuilderBroken> for Worker {
    type Result = ();
    fn handle(&mut self, message: BuilderBroken, ctx: &mut Context<Self>) {
        // Nobody waits for these any more, not even the next one of that name.
        self.starts.retain(|_, (builder, _)| *builder != message.0);
        self.seats.remove(&message.0);
        self.step(Event::BuilderBroken(message.0), ctx);
    }
}

impl Handler<YieldBuilds> for Worker {
    type Result = ();
    fn handle(&mut self, message: YieldBuilds, ctx: &mut Context<Self>) {
        self.successor = Some(message.0);
        self.step(Event::Yield, ctx);
    }
}

impl Handler<RetireWorker> for Worker {
    type Result = ();
    fn handle(&mut self, _: RetireWorker, ctx: &mut Context<Self>) {
        self.step(Event::Retire, ctx);
    }
}
