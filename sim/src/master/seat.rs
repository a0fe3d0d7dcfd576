//! The shells of SlaveBuilder and Ping, after `actors/slave_builder.rs` and
//! `actors/ping.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use botmaster::core::builder::{Event as ToBuilder, ReplyId, SeatReport, StartFailure};
use botmaster::core::ids::*;
use botmaster::core::lease::lease_on_the_wire;
use botmaster::core::ping::{self, PingCore};
use botmaster::core::slave_builder::{Effect, Event, SlaveBuilderCore};
use botmaster::protocol::json_v1::MasterFrame;
use botmaster::store::{BuilderNote, Op, Transaction};

use crate::bus::{Addr, Alarm, Bus, Supervision};
use crate::message::*;
use crate::watch::Seen;

use super::Actor;

/// One builder's conversation with one worker.
pub struct Seat {
    me: Addr,
    bus: Rc<Bus>,
    builder_id: BuilderId,
    builder: BuilderDoor,
    worker: Rc<WorkerDoor>,
    session: SessionId,
    /// What decides.
    pub core: SlaveBuilderCore,
    alarm: Alarm,
    /// Starts whose asker waits.
    pub starts: BTreeMap<ClaimId, StartReply>,
    /// People's pings.
    pub persons: BTreeMap<ReplyId, (ReplyId, Addr)>,
    next_reply: u64,
    leaving: Option<Addr>,
    ping: Option<(PingToken, Addr)>,
}

impl Seat {
    /// One that attaches over `session`.
    pub fn new(
        me: Addr,
        bus: &Rc<Bus>,
        builder_id: BuilderId,
        builder: BuilderDoor,
        worker: Rc<WorkerDoor>,
        session: SessionId,
    ) -> Self {
        let until = bus.now().mono + bus.timers.attach_timeout;
        Self {
            me,
            bus: bus.clone(),
            builder_id,
            builder,
            worker,
            session,
            core: SlaveBuilderCore::attaching(until, bus.timers.ping_timeout),
            alarm: Alarm::default(),
            starts: BTreeMap::new(),
            persons: BTreeMap::new(),
            next_reply: 0,
            leaving: None,
            ping: None,
        }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.core.handle(self.bus.now().mono, event, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
        self.alarm.set(&self.bus, self.me, self.core.next_deadline());
    }

    fn tell_builder(&self, event: ToBuilder) {
        self.builder.tell(BuilderMail::Event(event));
    }

    fn note(&self, text: &str) -> BuilderNote {
        BuilderNote {
            builder: self.builder_id,
            worker: Some(self.worker.id),
            text: text.into(),
            error: None,
            at: self.bus.now().wall,
        }
    }

    fn perform(&mut self, effect: Effect) {
        let (worker, session) = (self.worker.name.clone(), self.session);
        match effect {
            Effect::StartPing { timeout } => {
                let token = PingToken(self.bus.next_token());
                let (bus, door, asker) = (self.bus.clone(), self.worker.clone(), self.me);
                let addr = self.bus.spawn(
                    |me| Actor::Ping(Ping::new(me, &bus, token, timeout, session, door, asker)),
                    Supervision::none(),
                );
                self.ping = Some((token, addr));
            }
            Effect::TightenPing(until) => {
                if let Some((_, ping)) = self.ping {
                    self.bus.send(ping, Msg::TightenPing(until));
                }
            }
            Effect::EndPing => {
                if let Some((_, ping)) = self.ping.take() {
                    self.bus.send(ping, Msg::EndPing);
                }
            }
            Effect::SendStart(order) => {
                let builder = self.builder.name.clone();
                self.bus.send(self.worker.addr, Msg::RegisterStart { build: order.build, builder });
                self.bus.see(Seen::StartSent { session, build: order.build });
                let epoch = order.requests.iter().map(|(_, epoch)| *epoch).max();
                self.bus.frame(
                    session,
                    MasterFrame::StartBuild {
                        build: order.build,
                        epoch: epoch.unwrap_or_default(),
                        requests: order.requests,
                        builder: order.config.name.clone(),
                        builddir: order.config.builddir.clone(),
                        lease_s: lease_on_the_wire(&order.config, self.bus.timers.lease),
                    },
                );
            }
            Effect::TellAttached { building } => {
                self.tell_builder(ToBuilder::Attached { worker, session, building });
            }
            Effect::TellAttachFailed { error } => {
                self.tell_builder(ToBuilder::AttachFailed { worker, session, error });
            }
            Effect::TellDetached => self.tell_builder(ToBuilder::Detach { worker, session }),
            Effect::TellStart { claim, outcome } => {
                if let Some(reply) = self.starts.remove(&claim) {
                    reply.tell(outcome);
                }
            }
            Effect::TellInDoubt(claim) => {
                if let Some(reply) = self.starts.remove(&claim) {
                    reply.tell(Err(StartFailure::InDoubt { session }));
                }
            }
            Effect::TellPing { reply, ok } => {
                if let Some((_, from)) = self.persons.remove(&reply) {
                    // After everything that was written before.
                    let bus = self.bus.clone();
                    let event = ToBuilder::PingDone { worker, ok };
                    let tell = move |_| bus.send(from, Msg::BuilderEvent(event));
                    self.bus.write(Transaction::default(), Box::new(tell));
                }
            }
            Effect::TellIdle => self.tell_builder(ToBuilder::MaybeStart { worker: Some(worker) }),
            Effect::DropConnection(reason) => self.bus.close(session, reason),
            Effect::NoteBegins(text) => {
                let op = Op::BeginNote(self.note(text));
                self.bus.write(Transaction::of(op), Box::new(|_| {}));
            }
            Effect::NoteEnds { begun, text } => {
                let op = Op::EndNote { begun: begun.into(), note: self.note(text) };
                self.bus.write(Transaction::of(op), Box::new(|_| {}));
            }
            Effect::TellLeft { claim, request, in_time } => {
                if let Some(from) = self.leaving.take() {
                    let event = ToBuilder::LeftStart { claim, request, in_time };
                    self.bus.send(from, Msg::BuilderEvent(event));
                }
            }
            Effect::Ignored(kind) => self.bus.see(Seen::Ignored(kind)),
        }
    }

    /// Takes in one message.
    pub fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Started => {
                let builder = self.builder.name.clone();
                let register = Msg::RegisterSeat { session: self.session, builder, to: self.me };
                self.bus.send(self.worker.addr, register);
                self.alarm.set(&self.bus, self.me, self.core.next_deadline());
            }
            Msg::Alarm(number) => {
                if self.alarm.rings(number) {
                    self.step(Event::DeadlineReached);
                }
            }
            Msg::SeatNews(news) => {
                self.bus.point();
                self.step(match news {
                    SeatNews::Answer { error: None, building } => Event::Ready { building },
                    SeatNews::Answer { error: Some(error), .. } => Event::Failed { error },
                    SeatNews::Detached => Event::Detach,
                    SeatNews::Accepted(build) => Event::Accepted(build),
                    SeatNews::Refused { build, code, message } => {
                        Event::Refused { build, code, message }
                    }
                });
            }
            Msg::StartBuild { order, reply } => {
                self.bus.point();
                self.starts.insert(order.claim, reply);
                self.step(Event::Start(order));
            }
            Msg::Ping { reply, from } => {
                let mine = ReplyId(self.next_reply);
                self.next_reply += 1;
                self.persons.insert(mine, (reply, from));
                self.step(Event::Ping(mine));
            }
            Msg::PingEnded { token, ok } => {
                if self.ping.is_some_and(|(present, _)| present == token) {
                    self.ping = None;
                    self.step(Event::PingEnded(ok));
                }
            }
            Msg::LeaveStart { claim, request, from } => {
                self.leaving = Some(from);
                self.step(Event::Leave { claim, request });
            }
            Msg::CallBackStart(claim) => self.step(Event::CallBack(claim)),
            Msg::BuildOver(claim) => self.step(Event::BuildOver(claim)),
            Msg::LetGo => {
                if let Some((_, ping)) = self.ping.take() {
                    self.bus.send(ping, Msg::EndPing);
                }
                self.bus.stop(self.me);
            }
            Msg::DescribeSeat(ask) => {
                ask.answer(self.core.report().map(|used| SeatReport {
                    worker: self.worker.name.clone(),
                    session: self.session,
                    used,
                    pinging: !self.persons.is_empty(),
                }));
            }
            other => panic!("a SlaveBuilder was told {}", other.word()),
        }
    }

    /// After a panic.
    pub fn restarting(&mut self) {
        self.alarm.rang();
        self.starts.clear();
        self.bus.close(self.session, "the master's part for it had to be started again");
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.bus.is_dead() {
            self.builder.tell(BuilderMail::Last);
        }
    }
}

/// One exchange.
pub struct Ping {
    me: Addr,
    bus: Rc<Bus>,
    token: PingToken,
    timeout: Duration,
    session: SessionId,
    worker: Rc<WorkerDoor>,
    asker: Addr,
    core: Option<PingCore>,
    alarm: Alarm,
    told: bool,
}

impl Ping {
    fn new(
        me: Addr,
        bus: &Rc<Bus>,
        token: PingToken,
        timeout: Duration,
        session: SessionId,
        worker: Rc<WorkerDoor>,
        asker: Addr,
    ) -> Self {
        Self {
            me,
            bus: bus.clone(),
            token,
            timeout,
            session,
            worker,
            asker,
            core: None,
            alarm: Alarm::default(),
            told: false,
        }
    }

    fn step(&mut self, event: ping::Event) {
        let mut effects = Vec::new();
        if let Some(core) = &mut self.core {
            core.handle(self.bus.now().mono, event, &mut effects);
        }
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<ping::Effect>) {
        for effect in effects {
            match effect {
                ping::Effect::Send => {
                    if self.bus.frame(self.session, MasterFrame::Ping { id: self.token }) {
                        self.bus.see(Seen::PingSent { session: self.session, token: self.token });
                    } else {
                        self.bus.send(self.me, Msg::PingLost);
                    }
                }
                ping::Effect::DropConnection => {
                    self.bus.close(self.session, "it did not answer a ping");
                }
                ping::Effect::Done(ok) => {
                    self.told = true;
                    self.bus.send(self.asker, Msg::PingEnded { token: self.token, ok });
                    self.bus.stop(self.me);
                }
            }
        }
        let at = self.core.as_ref().and_then(PingCore::next_deadline);
        self.alarm.set(&self.bus, self.me, at);
    }

    /// Takes in one message.
    pub fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Started => {
                let (token, session) = (self.token, self.session);
                self.bus.send(self.worker.addr, Msg::RegisterPing { token, session, to: self.me });
                let mut effects = Vec::new();
                self.core = Some(PingCore::start(self.bus.now().mono, self.timeout, &mut effects));
                self.perform(effects);
            }
            Msg::Alarm(number) => {
                if self.alarm.rings(number) {
                    let last_byte = self.bus.last_heard(self.session);
                    self.step(ping::Event::DeadlineReached { last_byte });
                }
            }
            Msg::Pong => {
                self.bus.see(Seen::Pong { session: self.session, token: self.token });
                self.step(ping::Event::Pong);
            }
            Msg::PingLost => self.step(ping::Event::Lost),
            Msg::TightenPing(until) => self.step(ping::Event::Tighten(until)),
            Msg::EndPing => self.bus.stop(self.me),
            other => panic!("a Ping was told {}", other.word()),
        }
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        self.bus.send(self.worker.addr, Msg::ForgetPing(self.token));
        if !self.told {
            self.bus.send(self.asker, Msg::PingEnded { token: self.token, ok: false });
        }
    }
}
