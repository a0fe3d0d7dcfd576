//! The SlaveBuilder actor: one builder's conversation with one worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{
    Actor, ActorContext, Addr, AsyncContext, Handler, MessageResult, Recipient, Supervised,
};

use super::ping::Ping as PingActor;
use super::runtime::{Alarm, World};
use crate::actors::context::Context;
use crate::core::builder::{Event as ToBuilder, ReplyId, SeatReport, StartFailure};
use crate::core::ids::*;
use crate::core::lease::lease_on_the_wire;
use crate::core::slave_builder::{CommandVersions, Effect, Event, SlaveBuilderCore};
use crate::faults;
use crate::messages::{
    BuildOver, BuilderEvent, BuilderHandle, BuilderMail, CallBackStart, DescribeSeat, EndPing,
    LeaveStart, LetGo, Ping, PingEnded, RegisterSeat, RegisterStart, SeatNews, SeatNewsKind,
    StartBuild, StartReply, TightenPing, WorkerHandle, WorkerLink,
};
use crate::protocol::json_v1::MasterFrame;
use crate::store::{BuilderNote, Op, Transaction};

/// One builder's conversation with one worker.
pub struct SlaveBuilder {
    world: World,
    builder_id: BuilderId,
    builder: BuilderHandle,
    worker: Arc<WorkerHandle>,
    link: WorkerLink,
    core: SlaveBuilderCore,
    alarm: Alarm,
    starts: BTreeMap<ClaimId, StartReply>,
    persons: BTreeMap<ReplyId, (ReplyId, Recipient<BuilderEvent>)>,
    next_reply: u64,
    ping: Option<(PingToken, Addr<PingActor>)>,
    /// Who asked for what is handled just now.
    leaving: Option<Recipient<BuilderEvent>>,
}

impl SlaveBuilder {
    /// A SlaveBuilder that attaches over `link`; the worker has these commands.
    #[must_use]
    pub fn new(
        world: World,
        builder_id: BuilderId,
        builder: BuilderHandle,
        worker: Arc<WorkerHandle>,
        link: WorkerLink,
        versions: CommandVersions,
    ) -> Self {
        let until = world.clock.now().mono + world.timers.attach_timeout;
        let core = SlaveBuilderCore::attaching(until, world.timers.ping_timeout).knowing(versions);
        Self {
            world,
            builder_id,
            builder,
            worker,
            link,
            core,
            alarm: Alarm::default(),
            starts: BTreeMap::new(),
            persons: BTreeMap::new(),
            next_reply: 0,
            ping: None,
            leaving: None,
        }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.handle(self.world.clock.now().mono, event, &mut effects);
        for effect in effects {
            self.perform(effect, ctx);
        }
        let at = self.core.next_deadline();
        self.alarm.set(ctx, &self.world.clock, at, |seat, ctx| {
            seat.alarm.rang();
            seat.step(Event::DeadlineReached, ctx);
        });
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
            at: self.world.clock.now().wall,
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let (worker, session) = (self.worker.name.clone(), self.link.session);
        match effect {
            Effect::StartPing { timeout } => {
                let token = PingToken(self.world.next_token());
                let ping = PingActor::start_exchange(
                    self.world.clone(),
                    token,
                    timeout,
                    self.link.clone(),
                    self.worker.clone(),
                    ctx.address().recipient(),
                );
                self.ping = Some((token, ping));
            }
            Effect::TightenPing(until) => {
                if let Some((_, ping)) = &self.ping {
                    ping.do_send(TightenPing(until));
                }
            }
            Effect::EndPing => {
                if let Some((_, ping)) = self.ping.take() {
                    ping.do_send(EndPing);
                }
            }
            Effect::SendStart(order) => {
                let epoch = order.requests.iter().map(|(_, epoch)| *epoch).max();
                let epoch = epoch.unwrap_or_default();
                self.worker.tell(RegisterStart {
                    build: order.build,
                    builder: self.builder.name.clone(),
                    epoch,
                });
                faults::crash_point("start.before_send");
                let lease_s = lease_on_the_wire(&order.config, self.world.timers.lease);
                self.link.send(&MasterFrame::StartBuild {
                    build: order.build,
                    epoch,
                    requests: order.requests,
                    builder: order.config.name.clone(),
                    lease_s,
                    builddir: order.config.builddir.clone(),
                });
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
            Effect::TellLeft { claim, request, in_time } => {
                if let Some(from) = self.leaving.take() {
                    from.do_send(BuilderEvent(ToBuilder::LeftStart { claim, request, in_time }));
                }
            }
            Effect::TellPing { reply, ok } => {
                if let Some((_, from)) = self.persons.remove(&reply) {
                    // After everything that was written before: what is told
                    // has been published (row S05).
                    let tell =
                        move |_| from.do_send(BuilderEvent(ToBuilder::PingDone { worker, ok }));
                    self.world.store.write(Transaction::default(), Box::new(tell));
                }
            }
            // The builder may have waited for exactly this (row S09).
            Effect::TellIdle => {
                self.tell_builder(ToBuilder::MaybeStart { worker: Some(worker) });
            }
            Effect::DropConnection(reason) => self.link.close(reason),
            Effect::NoteBegins(text) => {
                let op = Op::BeginNote(self.note(text));
                self.world.store.write(Transaction::of(op), Box::new(|_| {}));
            }
            Effect::NoteEnds { begun, text } => {
                let op = Op::EndNote { begun: begun.into(), note: self.note(text) };
                self.world.store.write(Transaction::of(op), Box::new(|_| {}));
            }
            Effect::Ignored(kind) => self.world.ignored(kind),
        }
    }
}

impl Actor for SlaveBuilder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.worker.tell(RegisterSeat {
            session: self.link.session,
            builder: self.builder.name.clone(),
            to: ctx.address().recipient(),
        });
        let at = self.core.next_deadline();
        self.alarm.set(ctx, &self.world.clock, at, |seat, ctx| {
            seat.alarm.rang();
            seat.step(Event::DeadlineReached, ctx);
        });
    }
}

impl Drop for SlaveBuilder {
    fn drop(&mut self) {
        self.builder.tell(BuilderMail::Last);
    }
}

impl Supervised for SlaveBuilder {
    /// Half-changed state is worth nothing: the worker comes back over a new
    /// connection with its inventory, and everything goes the ordinary way.
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.alarm.rang();
        // Those that wait for a start hear that it failed.
        self.starts.clear();
        self.link.close("the master's part for it had to be started again");
    }
}

impl Handler<SeatNews> for SlaveBuilder {
    type Result = ();
    fn handle(&mut self, news: SeatNews, ctx: &mut Context<Self>) {
        faults::point("slave_builder.news");
        let event = match news.0 {
            SeatNewsKind::Answer { error: None, building } => Event::Ready { building },
            SeatNewsKind::Answer { error: Some(error), .. } => Event::Failed { error },
            SeatNewsKind::Detached => Event::Detach,
            SeatNewsKind::Accepted(build) => Event::Accepted(build),
            SeatNewsKind::Refused { build, code, message } => {
                Event::Refused { build, code, message }
            }
        };
        self.step(event, ctx);
    }
}

impl Handler<StartBuild> for SlaveBuilder {
    type Result = ();
    fn handle(&mut self, start: StartBuild, ctx: &mut Context<Self>) {
        faults::point("slave_builder.start");
        self.starts.insert(start.order.claim, start.reply);
        self.step(Event::Start(start.order), ctx);
    }
}

impl Handler<Ping> for SlaveBuilder {
    type Result = ();
    fn handle(&mut self, ping: Ping, ctx: &mut Context<Self>) {
        faults::point("slave_builder.ping");
        // Builders number their questions themselves; two may use one number.
        let mine = ReplyId(self.next_reply);
        self.next_reply += 1;
        self.persons.insert(mine, (ping.reply, ping.from));
        self.step(Event::Ping(mine), ctx);
    }
}

impl Handler<PingEnded> for SlaveBuilder {
    type Result = ();
    fn handle(&mut self, ended: PingEnded, ctx: &mut Context<Self>) {
        if self.ping.as_ref().is_some_and(|(token, _)| *token == ended.token) {
            self.ping = None;
            self.step(Event::PingEnded(ended.ok), ctx);
        }
    }
}

impl Handler<CallBackStart> for SlaveBuilder {
    type Result = ();
    fn handle(&mut self, message: CallBackStart, ctx: &mut Context<Self>) {
        self.step(Event::CallBack(message.0), ctx);
    }
}

impl Handler<LeaveStart> for SlaveBuilder {
    type Result = ();
    fn handle(&mut self, message: LeaveStart, ctx: &mut Context<Self>) {
        let LeaveStart { claim, request, from } = message;
        self.leaving = Some(from);
        self.step(Event::Leave { claim, request }, ctx);
    }
}

impl Handler<BuildOver> for SlaveBuilder {
    type Result = ();
    fn handle(&mut self, message: BuildOver, ctx: &mut Context<Self>) {
        self.step(Event::BuildOver(message.0), ctx);
    }
}

impl Handler<LetGo> for SlaveBuilder {
    type Result = ();
    fn handle(&mut self, _: LetGo, ctx: &mut Context<Self>) {
        if let Some((_, ping)) = self.ping.take() {
            ping.do_send(EndPing);
        }
        ctx.stop();
    }
}

impl Handler<DescribeSeat> for SlaveBuilder {
    type Result = MessageResult<DescribeSeat>;
    fn handle(&mut self, _: DescribeSeat, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.core.report().map(|used| SeatReport {
            worker: self.worker.name.clone(),
            session: self.link.session,
            used,
            pinging: !self.persons.is_empty(),
        }))
    }
}
