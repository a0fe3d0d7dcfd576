//! The Worker actor: one worker as the master knows it, whether it is there or
//! not. Frames that are not text of logs pass through here, so this is where
//! a frame about somebody else's build is caught.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use actix::{Actor, ActorContext, AsyncContext, Handler, Recipient, ResponseFuture, Supervised};
use tokio::sync::oneshot;

mod latent;

use super::runtime::{Alarm, World};
use crate::actors::context::Context;
use crate::core::builder::Event as ToBuilder;
use crate::core::ids::*;
use crate::core::instance;
use crate::core::slave_builder::CommandVersions;
use crate::core::values::WorkerConfig;
use crate::core::views::WorkerView;
use crate::core::worker::{Brought, Effect, Event, WorkerCore};
use crate::faults;
use crate::messages::*;
use crate::protocol::json_v1::{
    BuilderEntry, Inventory, InventoryState, MasterFrame, PROTO, Resume, ResumeAction, WINDOW,
    WireError, WorkerFrame,
};
use crate::store::{Op, OpOutcome, Transaction};

/// How many ended builds are remembered, so that their late frames are known
/// from those about somebody else's build.
const REMEMBERED: usize = 256;

/// One worker as the master knows it.
pub struct Worker {
    world: World,
    id: WorkerId,
    name: WorkerName,
    core: WorkerCore,
    master: Recipient<WorkerAvailable>,
    builders: BTreeMap<BuilderName, Arc<BuilderHandle>>,
    links: BTreeMap<SessionId, (WorkerLink, Box<crate::protocol::json_v1::Attach>, String)>,
    seats: BTreeMap<BuilderName, (SessionId, Recipient<SeatNews>)>,
    /// Starts that were sent, and whose SlaveBuilder waits for the answer.
    starts: BTreeMap<BuildId, BuilderName>,
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
        master: Recipient<WorkerAvailable>,
    ) -> Self {
        Self {
            world,
            id,
            name: config.name.clone(),
            core: WorkerCore::new(config, paused),
            master,
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
            worker.step(Event::Instance(instance::Event::DeadlineReached), ctx);
        });
    }

    fn show(&self) {
        let (used, max_builds) = self.core.slots();
        let (paused, graceful) = self.core.standing();
        let address = self
            .core
            .session()
            .and_then(|session| self.links.get(&session))
            .map(|(_, _, address)| address.clone());
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
                instance: self.core.instance_view(self.world.clock.now()),
            },
        );
    }

    fn link(&self, session: SessionId) -> Option<&WorkerLink> {
        self.links.get(&session).map(|(link, _, _)| link)
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
                if let Some(link) = self.link(session) {
                    link.send(&MasterFrame::Attached {
                        proto: PROTO,
                        incarnation,
                        caps: vec!["resume/1".into()],
                        heartbeat_s: self.world.timers.heartbeat.as_secs().max(1),
                        idle_heartbeat_s: None,
                        lease_s: self.world.timers.lease.as_secs().max(1),
                        window: WINDOW,
                    });
                }
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
                self.master.do_send(WorkerAvailable { worker: self.name.clone(), builders })
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
                    let (door, session) = (door.clone(), None);
                    to.build.do_send(RegisterBuild { build, claim, builder, session, door });
                }
            }
            Effect::Ignored(kind) => self.world.ignored(kind),
            Effect::YieldInstances(known) => {
                if let Some(door) = &self.successor {
                    let made_with = self.core.config().clone();
                    door.take.do_send(TakeInstances { known, made_with });
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
    fn store_attach(&self, session: SessionId, ctx: &mut Context<Self>) {
        let Some((_, attach, address)) = self.links.get(&session) else { return };
        let mut info = attach.info.clone();
        for (key, value) in [
            ("version", attach.version.clone()),
            ("os", attach.os.clone()),
            ("arch", attach.arch.clone()),
            ("address", address.clone()),
        ] {
            info.insert(key.into(), value);
        }
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
        let (Some(door), Some((link, attach, _)), Some(handle)) =
            (self.builders.get(builder), self.links.get(&session), &self.handle)
        else {
            return;
        };
        door.tell(BuilderMail::Attach(Attach {
            worker: self.name.clone(),
            link: link.clone(),
            handle: handle.clone(),
            versions: CommandVersions::of(attach.caps.as_deref()),
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

    fn on_frame(&mut self, session: SessionId, frame: WorkerFrame, ctx: &mut Context<Self>) {
        match frame {
            WorkerFrame::Inventory(Inventory { builds, more }) => {
                let builds = builds
                    .into_iter()
                    .map(|item| Brought {
                        build: item.build,
                        command: item.command,
                        lost: item.state == InventoryState::Lost,
                    })
                    .collect();
                self.step(Event::Inventory { session, builds, more }, ctx);
            }
            WorkerFrame::BuilderReady { builder } => {
                self.step(Event::BuilderAnswer { session, builder, error: None }, ctx);
            }
            WorkerFrame::BuilderFailed { builder, code, message } => {
                let error = Some(format!("{code}: {message}"));
                self.step(Event::BuilderAnswer { session, builder, error }, ctx);
            }
            WorkerFrame::Pong { id } => match self.pings.remove(&id) {
                Some((_, pong, _)) => pong.do_send(Pong),
                None => self.world.ignored("pong that nobody waits for"),
            },
            WorkerFrame::Heartbeat { seq, running: _ } => {
                if let Some(link) = self.link(session) {
                    link.send(&MasterFrame::Heartbeat { seq });
                }
            }
            WorkerFrame::BuildAccepted { build, epoch: _ } => {
                self.on_start_answer(session, build, SeatNewsKind::Accepted(build));
            }
            WorkerFrame::Refused { build, epoch: _, code, message } => {
                let news = SeatNewsKind::Refused { build, code, message };
                self.on_start_answer(session, build, news);
            }
            WorkerFrame::CommandStarted { build, command: _ } => {
                self.owned(session, build);
            }
            WorkerFrame::CommandRefused { build, command, code, message } => {
                if self.owned(session, build) {
                    self.tell_build(
                        build,
                        crate::core::build::Event::CommandEnded {
                            command,
                            end: crate::core::build::CommandEnd::Refused(format!(
                                "{code}: {message}"
                            )),
                            properties: Vec::new(),
                        },
                    );
                }
            }
            WorkerFrame::CommandFinished {
                build, command, outcome, log_end, properties, ..
            } => {
                if self.owned(session, build)
                    && let Some(door) = self.builds.get(&build)
                {
                    let properties = properties.into_iter().collect();
                    door.finished.do_send(CommandFinished {
                        command,
                        outcome,
                        log_end,
                        properties,
                    });
                }
            }
            WorkerFrame::Abandoned { build } => self.step(Event::Abandoned { build }, ctx),
            WorkerFrame::Draining { message } => {
                tracing::info!(worker.name = %self.name, %message, "the worker leaves");
                self.step(Event::Draining, ctx);
            }
            WorkerFrame::Error(error) => {
                tracing::warn!(worker.name = %self.name, code = %error.code, message = %error.message, "the worker complains");
            }
            WorkerFrame::Attach(_) => self.world.ignored("attach on an attached connection"),
            // Text that nobody waits for; the rest never comes here.
            WorkerFrame::Log(data) => {
                if self.owned(session, data.build) {
                    self.world.ignored("log text that nobody waits for");
                }
            }
        }
    }

    /// Whether the build is this worker's. An ended one's late frames are
    /// nothing; anything else is a breach, and the connection is dropped
    /// (fault rows FL11, FN09).
    fn owned(&mut self, session: SessionId, build: BuildId) -> bool {
        if self.core.has_build(build) {
            return true;
        }
        if self.ended.contains(&build) || self.core.is_abandoning(build) {
            self.world.ignored("frame of a build that ended");
            return false;
        }
        tracing::warn!(worker.name = %self.name, build = %build, "frame for a build that is not the worker's: connection dropped");
        self.world.board.count_ignored("frame for a build that is not the worker's");
        if let Some(link) = self.link(session) {
            link.send(&MasterFrame::Error(WireError {
                code: "not_yours".into(),
                message: format!("build {build} is not a build of this worker"),
            }));
            link.close("it spoke of a build that is not its own");
        }
        false
    }

    /// An acceptance that nobody waits for any more is called off, so that the
    /// worker's slot does not stay taken.
    fn on_start_answer(&mut self, session: SessionId, build: BuildId, news: SeatNewsKind) {
        let seat = self.starts.remove(&build).and_then(|builder| self.seats.get(&builder));
        match (seat, &news) {
            // One that was let go with its broken builder hears nothing.
            (Some((theirs, seat)), _) if *theirs == session && seat.connected() => {
                seat.do_send(SeatNews(news));
            }
            (_, SeatNewsKind::Accepted(_)) if !self.core.has_build(build) => {
                self.world.ignored("acceptance of a start that is over");
                self.abandon(build, None);
            }
            _ => self.world.ignored("answer to a start that is over"),
        }
    }

    fn abandon(&self, build: BuildId, command: Option<CommandId>) {
        self.send(&MasterFrame::Resume(Resume {
            build,
            command,
            r#do: ResumeAction::Abandon,
            log_from: BTreeMap::new(),
        }));
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
        for (link, _, _) in self.links.values() {
            link.close("the master's part for it ended");
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
        for (link, _, _) in self.links.values() {
            link.close("the master's part for it had to be started again");
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
        self.links.insert(session, (hello.link, hello.attach, hello.address));
        if self.core.expects(tag.as_ref()) {
            self.step(Event::Hello { session, slots, instance }, ctx);
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
            to.give_back.do_send(GiveBackSlot { builder: builder.clone(), claim });
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
        if self.core.is_up() {
            self.starts.insert(register.build, register.builder);
        }
    }
}

impl Handler<RegisterBuild> for Worker {
    type Result = ();
    fn handle(&mut self, register: RegisterBuild, ctx: &mut Context<Self>) {
        let RegisterBuild { build, claim, builder, session, door } = register;
        if let Some(to) = &self.successor {
            let (builder, door, session) = (builder.clone(), door.clone(), None);
            to.build.do_send(RegisterBuild { build, claim, builder, session, door });
        }
        self.builds.insert(build, door);
        self.step(Event::BuildRegistered { build, claim, builder, session }, ctx);
    }
}

impl Handler<ForgetBuild> for Worker {
    type Result = ();
    fn handle(&mut self, forget: ForgetBuild, ctx: &mut Context<Self>) {
        if let Some(to) = &self.successor {
            to.forget.do_send(ForgetBuild { build: forget.build, result: forget.result });
        }
        self.builds.remove(&forget.build);
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(forget.build);
        // Not to a connection that was not told yet that it is attached; with
        // its inventory it hears that the build is nobody's.
        if self.core.incarnation().is_some() {
            match forget.result {
                Some(result) => self.send(&MasterFrame::BuildFinished {
                    build: forget.build,
                    result: result.into(),
                }),
                None => self.abandon(forget.build, None),
            }
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
        self.starts.retain(|_, builder| *builder != message.0);
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
