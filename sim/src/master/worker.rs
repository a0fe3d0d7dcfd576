//! The shell of a Worker, after `actors/worker.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use botmaster::core::build::{CommandEnd, Event as ToBuild};
use botmaster::core::ids::*;
use botmaster::core::lease::Grant;
use botmaster::core::planted;
use botmaster::core::values::{BuildResult, WorkerConfig};
use botmaster::core::worker::{Brought, Effect, Event, WorkerCore};
use botmaster::messages::WorkerOrder;
use botmaster::protocol::json_v1::{
    BuilderEntry, Inventory, InventoryState, MasterFrame, PROTO, Resume, ResumeAction, STDIO,
    WINDOW, WireError, WorkerFrame,
};
use botmaster::store::{Op, OpOutcome, Transaction};

use crate::bus::{Addr, Alarm, Bus};
use crate::message::*;
use crate::watch::Seen;

/// How many ended builds are remembered.
const REMEMBERED: usize = 256;

/// One worker as the master knows it.
pub struct Worker {
    me: Addr,
    bus: Rc<Bus>,
    /// Its id.
    pub id: WorkerId,
    /// Its name.
    pub name: WorkerName,
    /// What decides.
    pub core: WorkerCore,
    master: Addr,
    builders: BTreeMap<BuilderName, Rc<BuilderDoor>>,
    links: BTreeMap<SessionId, ()>,
    seats: BTreeMap<BuilderName, (SessionId, Addr)>,
    /// Starts that were sent.
    pub starts: BTreeMap<BuildId, BuilderName>,
    builds: BTreeMap<BuildId, Addr>,
    /// Builds that ended.
    pub ended: VecDeque<BuildId>,
    /// Pings that wait.
    pub pings: BTreeMap<PingToken, (SessionId, Addr)>,
    askers: BTreeMap<ClaimId, SlotReply>,
    ordered: Option<Reply>,
    successor: Option<Rc<WorkerDoor>>,
    alarm: Alarm,
    granted: Option<SessionId>,
}

impl Worker {
    /// One that is not there yet.
    pub fn new(
        me: Addr,
        bus: &Rc<Bus>,
        id: WorkerId,
        config: WorkerConfig,
        paused: bool,
        master: Addr,
    ) -> Self {
        Self {
            me,
            bus: bus.clone(),
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
            successor: None,
            alarm: Alarm::default(),
            granted: None,
        }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.core.handle_at(self.bus.now().mono, event, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
        self.alarm.set(&self.bus, self.me, self.core.next_deadline());
    }

    fn current(&self) -> Option<SessionId> {
        self.core.session().filter(|session| self.links.contains_key(session))
    }

    fn send(&self, frame: MasterFrame) {
        if let Some(session) = self.current() {
            self.bus.frame(session, frame);
        }
    }

    fn write_order(&mut self, op: Op, then: Event) {
        let (ordered, bus, me) = (self.ordered.take(), self.bus.clone(), self.me);
        self.bus.write(
            Transaction::of(op),
            Box::new(move |written| {
                let written = written.map(|_| ()).map_err(|error| error.to_string());
                bus.send(me, Msg::OrderWritten { written, then: Box::new(then), ordered });
            }),
        );
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::StoreAttach { session } => self.store_attach(session),
            Effect::StoreDetach { incarnation } => {
                let at = self.bus.now().wall;
                let op = Op::DetachWorker { worker: self.id, incarnation, at };
                self.bus.write(Transaction::of(op), Box::new(|_| {}));
            }
            Effect::SendAttached { session, incarnation } => {
                self.bus.see(Seen::AttachedSent { worker: self.id, session, incarnation });
                if self.links.contains_key(&session) {
                    self.bus.frame(
                        session,
                        MasterFrame::Attached {
                            proto: PROTO,
                            incarnation,
                            caps: vec!["resume/1".into()],
                            heartbeat_s: self.bus.timers.heartbeat.as_secs().max(1),
                            idle_heartbeat_s: Some(self.bus.timers.idle_heartbeat.as_secs().max(1)),
                            lease_s: self.bus.timers.lease.as_secs().max(1),
                            window: WINDOW,
                        },
                    );
                }
                self.bus.later(self.me, self.bus.timers.handshake, Msg::InventoryLimit(session));
            }
            Effect::Reject { session, code, message, retry_after_s } => {
                if self.links.contains_key(&session) {
                    let frame = MasterFrame::Rejected { code: code.into(), message, retry_after_s };
                    self.bus.frame(session, frame);
                    self.bus.close(session, code);
                }
            }
            Effect::SendBuilders { list } => {
                let list = list
                    .into_iter()
                    .map(|(builder, builddir)| BuilderEntry { builder, builddir })
                    .collect();
                self.send(MasterFrame::Builders { list });
            }
            Effect::TellBuilder { builder, session } => self.tell_builder(&builder, session),
            Effect::TellSeat { builder, error, building } => {
                if let Some((_, seat)) = self.seats.get(&builder) {
                    self.bus.send(*seat, Msg::SeatNews(SeatNews::Answer { error, building }));
                }
            }
            Effect::TellSeatsDetached { session } => self.detach_seats(session),
            Effect::TellBuildAway { build } => self.tell_build(build, ToBuild::Away),
            Effect::TellBuildBack { build, incarnation, brought } => {
                if let (Some(to), Some(session)) = (self.builds.get(&build), self.current()) {
                    self.bus.see(Seen::Adopted);
                    self.bus.send(*to, Msg::WorkerBack { session, incarnation, brought });
                }
            }
            Effect::TellBuildGone { build } => self.tell_build(build, ToBuild::Gone),
            Effect::SendAbandon { build, command } => self.abandon(build, command),
            Effect::Slot { builder, claim, granted } => {
                if let (Some(reply), Some(incarnation)) = (self.askers.remove(&claim), granted) {
                    self.bus.see(Seen::SlotGranted {
                        worker: self.id,
                        builder,
                        claim,
                        incarnation,
                        limit: self.core.slots().1,
                    });
                    reply.grant(self.id, incarnation);
                }
            }
            Effect::TryBuilders(builders) => {
                let (worker, room) = (self.name.clone(), self.core.room());
                self.bus.send(self.master, Msg::WorkerAvailable { worker, builders, room });
            }
            Effect::StorePaused { paused, reason } => {
                let paused_op = Some((paused, reason));
                let op = Op::SetWorker { worker: self.id, paused: paused_op, graceful: None };
                self.write_order(op, Event::PauseStored { paused });
            }
            Effect::StoreLeave { shutdown, reason } => {
                let op = Op::SetWorker { worker: self.id, paused: None, graceful: Some(true) };
                self.write_order(op, Event::LeaveStored { shutdown, reason });
            }
            Effect::StoreStays => {
                let op = Op::SetWorker { worker: self.id, paused: None, graceful: Some(false) };
                self.bus.write(Transaction::of(op), Box::new(|_| {}));
            }
            Effect::SendLeave { shutdown, reason } => self.send(if shutdown {
                MasterFrame::Shutdown { reason }
            } else {
                MasterFrame::Drain { reason }
            }),
            Effect::CloseConnection { session, reason } => {
                if self.links.contains_key(&session) {
                    self.bus.close(session, reason);
                }
            }
            Effect::YieldBuild { build, claim, builder } => {
                if let (Some(to), Some(door)) = (self.builds.get(&build), &self.successor) {
                    let (to, session, in_doubt) = (*to, None, false);
                    self.bus.send(
                        door.addr,
                        Msg::RegisterBuild { build, claim, builder, session, in_doubt, to },
                    );
                }
            }
            Effect::SlotReserved { .. }
            | Effect::TellLatent { .. }
            | Effect::TellNotLatent { .. }
            | Effect::TellDetails { .. }
            | Effect::TellNoInstance { .. }
            | Effect::Instance(_) => {
                self.bus.see(Seen::Oddity("latent workers are not played"));
            }
            Effect::YieldInstances(known) => {
                if !known.is_empty() {
                    self.bus.see(Seen::Oddity("latent workers are not played"));
                }
            }
            Effect::Ignored(kind) => self.bus.see(Seen::Ignored(kind)),
            Effect::Over => self.bus.stop(self.me),
        }
    }

    fn store_attach(&self, session: SessionId) {
        if !self.links.contains_key(&session) {
            return;
        }
        let at = self.bus.now().wall;
        let op = Op::AttachWorker { worker: self.id, info: BTreeMap::new(), at };
        let (bus, me) = (self.bus.clone(), self.me);
        self.bus.write(
            Transaction::of(op),
            Box::new(move |written| {
                let outcome = match written.as_deref() {
                    Ok([OpOutcome::Attached(incarnation)]) => Ok(*incarnation),
                    Ok(_) => Err("unexpected answer of the store".into()),
                    Err(error) => Err(error.to_string()),
                };
                bus.send(me, Msg::AttachWritten { session, outcome });
            }),
        );
    }

    fn tell_builder(&self, builder: &BuilderName, session: SessionId) {
        let Some(door) = self.builders.get(builder) else { return };
        if !self.links.contains_key(&session) {
            return;
        }
        let handle = WorkerDoor { name: self.name.clone(), id: self.id, addr: self.me };
        door.tell(BuilderMail::Attach(Attach {
            worker: self.name.clone(),
            session,
            door: Rc::new(handle),
        }));
    }

    fn tell_build(&self, build: BuildId, event: ToBuild) {
        if let Some(to) = self.builds.get(&build) {
            self.bus.send(*to, Msg::BuildEvent(event));
        }
    }

    fn detach_seats(&mut self, session: SessionId) {
        let bus = self.bus.clone();
        self.seats.retain(|_, (theirs, seat)| {
            if *theirs == session {
                bus.send(*seat, Msg::SeatNews(SeatNews::Detached));
            }
            *theirs != session
        });
        self.starts.clear();
        self.pings.retain(|_, (theirs, ping)| {
            if *theirs == session {
                bus.send(*ping, Msg::PingLost);
            }
            *theirs != session
        });
    }

    fn on_frame(&mut self, session: SessionId, frame: WorkerFrame) {
        match frame {
            WorkerFrame::Inventory(Inventory { builds, more }) => {
                let builds = builds
                    .into_iter()
                    .map(|item| Brought {
                        build: item.build,
                        builder: item.builder,
                        command: item.command,
                        lost: item.state == InventoryState::Lost,
                    })
                    .collect();
                self.step(Event::Inventory { session, builds, more });
            }
            WorkerFrame::BuilderReady { builder } => {
                self.step(Event::BuilderAnswer { session, builder, error: None });
            }
            WorkerFrame::BuilderFailed { builder, code, message } => {
                let error = Some(format!("{code}: {message}"));
                self.step(Event::BuilderAnswer { session, builder, error });
            }
            WorkerFrame::Pong { id: PingToken(0) } => {}
            WorkerFrame::Pong { id } => match self.pings.remove(&id) {
                Some((_, ping)) => self.bus.send(ping, Msg::Pong),
                None => self.bus.see(Seen::Ignored("pong that nobody waits for")),
            },
            WorkerFrame::PingFailed { id, message: _ } => {
                if let Some((_, ping)) = self.pings.remove(&id) {
                    self.bus.send(ping, Msg::PingLost);
                }
            }
            WorkerFrame::Heartbeat { seq, running } => {
                let timers = self.bus.timers;
                let idle = running.is_empty();
                let beat = if idle { timers.idle_heartbeat } else { timers.heartbeat };
                self.bus.beats(session, beat);
                if self.granted != Some(session) {
                    self.heartbeat(session, seq);
                }
            }
            WorkerFrame::BuildAccepted { build, epoch: _ } => {
                self.on_start_answer(session, build, SeatNews::Accepted(build));
            }
            WorkerFrame::Refused { build, epoch: _, code, message } => {
                self.on_start_answer(session, build, SeatNews::Refused { build, code, message });
            }
            WorkerFrame::CommandStarted { build, command: _ } => {
                self.owned(session, build);
            }
            WorkerFrame::CommandRefused { build, command, code, message } => {
                if self.owned(session, build) {
                    let end = CommandEnd::Refused(format!("{code}: {message}"));
                    let properties = Vec::new();
                    self.tell_build(build, ToBuild::CommandEnded { command, end, properties });
                }
            }
            WorkerFrame::CommandFinished {
                build, command, outcome, log_end, properties, ..
            } => {
                if self.owned(session, build)
                    && let Some(to) = self.builds.get(&build)
                {
                    let log_end = log_end.get(STDIO).copied();
                    let properties = properties.into_iter().collect();
                    self.bus
                        .send(*to, Msg::CommandFinished { command, outcome, log_end, properties });
                }
            }
            WorkerFrame::Abandoned { build } => self.step(Event::Abandoned { build }),
            WorkerFrame::Draining { message: _ } => self.step(Event::Draining),
            WorkerFrame::Error(error) => self.bus.see(Seen::WorkerComplains(error.message)),
            WorkerFrame::Attach(_) => {
                self.bus.see(Seen::Ignored("attach on an attached connection"));
            }
            WorkerFrame::Log(data) => {
                if self.owned(session, data.build) {
                    self.bus.see(Seen::Ignored("log text that nobody waits for"));
                }
            }
        }
    }

    /// Confirmed once the store knows. The real actors write those of all
    /// workers at once; here each has a write of its own.
    fn heartbeat(&self, session: SessionId, seq: u64) {
        let (true, Some(incarnation)) =
            (self.links.contains_key(&session), self.core.incarnation())
        else {
            return;
        };
        let (seen, at) = (vec![(self.id, incarnation)], self.bus.now().wall);
        let (bus, confirms) = (self.bus.clone(), MasterFrame::Heartbeat { seq });
        self.bus.write(
            Transaction::of(Op::SeeWorkers { seen, at }),
            Box::new(move |written| match written {
                Ok(_) => {
                    bus.frame(session, confirms);
                }
                Err(_) => {
                    bus.frame(session, MasterFrame::Ping { id: PingToken(0) });
                    bus.see(Seen::Ignored("heartbeats that the store could not keep"));
                }
            }),
        );
    }

    fn owned(&mut self, session: SessionId, build: BuildId) -> bool {
        if self.core.has_build(build) {
            return true;
        }
        if self.ended.contains(&build) || self.core.is_abandoning(build) {
            self.bus.see(Seen::Ignored("frame of a build that ended"));
            return false;
        }
        self.bus.see(Seen::Ignored("frame for a build that is not the worker's"));
        if planted::is("sim_foreign_frames_are_borne") {
            return false;
        }
        if self.links.contains_key(&session) {
            self.bus.frame(
                session,
                MasterFrame::Error(WireError {
                    code: "not_yours".into(),
                    message: format!("build {build} is not a build of this worker"),
                }),
            );
            self.bus.close(session, "it spoke of a build that is not its own");
        }
        false
    }

    fn on_start_answer(&mut self, session: SessionId, build: BuildId, news: SeatNews) {
        let seat = self.starts.remove(&build).and_then(|builder| self.seats.get(&builder));
        match (seat, &news) {
            (Some((theirs, seat)), _) if *theirs == session && self.bus.is_alive(*seat) => {
                self.bus.send(*seat, Msg::SeatNews(news));
            }
            (_, SeatNews::Accepted(_)) if !self.core.has_build(build) => {
                self.bus.see(Seen::Ignored("acceptance of a start that is over"));
                self.abandon(build, None);
            }
            _ => self.bus.see(Seen::Ignored("answer to a start that is over")),
        }
    }

    fn abandon(&self, build: BuildId, command: Option<CommandId>) {
        self.send(MasterFrame::Resume(Resume {
            build,
            command,
            r#do: ResumeAction::Abandon,
            log_from: BTreeMap::new(),
        }));
    }

    fn configure(
        &mut self,
        config: WorkerConfig,
        builders: Vec<(Rc<BuilderDoor>, String)>,
        renewed: &std::collections::BTreeSet<BuilderName>,
    ) {
        let list = builders
            .iter()
            .map(|(handle, builddir)| (handle.name.clone(), builddir.clone()))
            .collect();
        // A door to the same actor stays, so that its order of mail does, too.
        let mut doors = BTreeMap::new();
        for (handle, _) in builders {
            let kept = self
                .builders
                .remove(&handle.name)
                .filter(|old| Rc::ptr_eq(old.route(), handle.route()));
            doors.insert(handle.name.clone(), kept.unwrap_or(handle));
        }
        self.builders = doors;
        let renewed = renewed.clone();
        self.step(Event::Configure { config, builders: list, renewed });
    }

    fn order(&mut self, order: WorkerOrder, reply: Reply) {
        let event = match order {
            WorkerOrder::Pause => Event::Pause { paused: true, reason: None },
            WorkerOrder::Unpause => Event::Pause { paused: false, reason: None },
            WorkerOrder::Drain | WorkerOrder::Shutdown => {
                if !self.core.is_up() {
                    reply.say(Answer::Ordered);
                    return;
                }
                Event::Leave { shutdown: order == WorkerOrder::Shutdown, reason: "asked".into() }
            }
        };
        self.ordered = Some(reply);
        self.step(event);
    }

    /// Takes in one message.
    pub fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Started => {}
            Msg::GrantLease(lease) => self.grant(lease),
            Msg::GrantWritten { session, lease, stored } => {
                let current = self.core.session() == Some(session);
                if current && stored && self.links.contains_key(&session) {
                    self.bus.frame(session, MasterFrame::Lease { lease_s: lease.as_secs() });
                    self.bus.close(session, "the master stops");
                }
            }
            Msg::Hello { session, slots, instance } => {
                self.bus.point();
                let over = self.core.session().is_some();
                self.links.insert(session, ());
                let address = format!("{session:?}");
                self.step(Event::Hello { session, slots, instance, address });
                if self.core.session() == Some(session) {
                    self.bus.see(Seen::Hello { actor: self.me, worker: self.id, session, over });
                }
            }
            Msg::Alarm(number) => {
                if self.alarm.rings(number) {
                    self.step(Event::DeadlineReached);
                }
            }
            Msg::AttachWritten { session, outcome } => self.step(match outcome {
                Ok(incarnation) => Event::AttachStored { session, incarnation },
                Err(error) => Event::AttachRefused { session, error },
            }),
            Msg::OrderWritten { written, then, ordered } => {
                if written.is_ok() {
                    self.step(*then);
                }
                if let Some(ordered) = ordered {
                    ordered.say(Answer::Ordered);
                }
            }
            Msg::InventoryLimit(session) => {
                if self.core.session() == Some(session)
                    && !self.core.is_up()
                    && self.links.contains_key(&session)
                {
                    self.bus.close(session, "it did not tell its inventory in time");
                }
            }
            Msg::FrameArrived { session, frame } => {
                self.bus.point();
                if self.core.session() == Some(session) || planted::is("sim_stale_session_accepted")
                {
                    self.bus.see(Seen::FrameTaken { actor: self.me, session });
                    self.on_frame(session, *frame);
                } else {
                    self.bus.see(Seen::Ignored("frame of a connection that was replaced"));
                }
            }
            Msg::ConnectionLost { session } => {
                self.step(Event::ConnectionLost { session });
                self.links.remove(&session);
            }
            Msg::AskSlot { builder, claim, reply } => {
                self.bus.point();
                self.askers.insert(claim, reply);
                self.step(Event::AskSlot { builder, claim });
            }
            Msg::GiveBackSlot { builder, claim } => {
                self.bus.see(Seen::SlotBack { claim });
                if let Some(door) = &self.successor {
                    let builder = builder.clone();
                    self.bus.send(door.addr, Msg::GiveBackSlot { builder, claim });
                }
                self.step(Event::GiveBackSlot { builder, claim });
            }
            Msg::KeepSlots { builder, claims } => {
                self.bus.see(Seen::SlotsKept {
                    worker: self.id,
                    builder: builder.clone(),
                    claims: claims.clone(),
                });
                self.step(Event::KeepSlots { builder, claims });
            }
            Msg::RegisterSeat { session, builder, to } => {
                self.seats.insert(builder.clone(), (session, to));
                self.step(Event::SeatRegistered { session, builder });
            }
            Msg::RegisterStart { build, builder } => {
                if let Some(session) = self.core.session().filter(|_| self.core.is_up()) {
                    self.bus.beats(session, self.bus.timers.heartbeat);
                    self.starts.insert(build, builder);
                }
            }
            Msg::RegisterBuild { build, claim, builder, session, in_doubt, to } => {
                if let Some(door) = &self.successor {
                    let (builder, session) = (builder.clone(), None);
                    self.bus.send(
                        door.addr,
                        Msg::RegisterBuild { build, claim, builder, session, in_doubt, to },
                    );
                }
                self.builds.insert(build, to);
                self.step(if in_doubt && session.is_none() {
                    Event::ClaimRegistered { build, claim, builder }
                } else {
                    Event::BuildRegistered { build, claim, builder, session }
                });
            }
            Msg::ForgetBuild { build, result } => self.forget(build, result),
            Msg::RegisterPing { token, session, to } => {
                if self.links.contains_key(&session) {
                    self.pings.insert(token, (session, to));
                } else {
                    self.bus.send(to, Msg::PingLost);
                }
            }
            Msg::ForgetPing(token) => {
                self.pings.remove(&token);
            }
            Msg::ConfigureWorker { config, builders, renewed } => {
                self.configure(config, builders, &renewed);
            }
            Msg::WorkerOrdered { order, reply } => self.order(order, reply),
            Msg::BuilderBroken(builder) => {
                self.starts.retain(|_, known| *known != builder);
                self.seats.remove(&builder);
                self.step(Event::BuilderBroken(builder));
            }
            Msg::YieldBuilds(door) => {
                self.successor = Some(door);
                self.step(Event::Yield);
            }
            Msg::RetireWorker => self.step(Event::Retire),
            other => panic!("a Worker was told {}", other.word()),
        }
    }

    fn grant(&mut self, lease: Duration) {
        let Some((session, incarnation)) = self.core.grant_for() else { return };
        self.granted = Some(session);
        let grant = Grant { lease, given: self.bus.boot_time() };
        let (bus, me) = (self.bus.clone(), self.me);
        self.bus.write(
            Transaction::of(Op::GrantLease { worker: self.id, incarnation, grant }),
            Box::new(move |written| {
                bus.send(me, Msg::GrantWritten { session, lease, stored: written.is_ok() });
            }),
        );
    }

    fn forget(&mut self, build: BuildId, result: Option<&'static str>) {
        if let Some(door) = &self.successor {
            self.bus.send(door.addr, Msg::ForgetBuild { build, result });
        }
        self.builds.remove(&build);
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(build);
        if self.core.incarnation().is_some() {
            match result {
                Some(result) => {
                    self.bus.see(Seen::FinishedSent { build });
                    self.send(MasterFrame::BuildFinished { build, result: result.into() });
                }
                None => self.abandon(build, None),
            }
        }
        if result == Some(BuildResult::Retry.word()) {
            self.step(Event::BuildLost { build });
        }
        self.step(Event::BuildForgotten { build });
    }

    /// After a panic.
    pub fn restarting(&mut self) {
        self.askers.clear();
        self.ordered = None;
        self.alarm.rang();
        for session in self.links.keys() {
            self.bus.close(*session, "the master's part for it had to be started again");
        }
        if let Some(session) = self.core.session() {
            self.bus.send(self.me, Msg::ConnectionLost { session });
        }
    }

    /// The actor has ended, for whatever reason.
    pub fn stopped(&mut self) {
        for session in self.links.keys() {
            self.bus.close(*session, "the master's part for it ended");
        }
        for (_, seat) in self.seats.values() {
            self.bus.send(*seat, Msg::SeatNews(SeatNews::Detached));
        }
        for to in self.builds.values() {
            self.bus.send(*to, Msg::BuildEvent(ToBuild::Away));
        }
    }
}
