//! The LatentSlaveBuilder actor: one builder's standing with one latent worker,
//! from configuration on. The conversation over a connection is an ordinary
//! SlaveBuilder's, which is made by each attach.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Handler, Message, Recipient, Supervised};

use super::builder::Seat;
use super::runtime::{Alarm, World};
use crate::actors::context::Context;
use crate::core::builder::{Event as ToBuilder, LatentNews, ReplyId};
use crate::core::ids::*;
use crate::core::latent_slave_builder::{Effect, Event, LatentSlaveBuilderCore, NotSubstantiated};
use crate::faults;
use crate::messages::{
    BuilderEvent, CallBackSubstantiation, InstanceNews, InstanceNewsKind, LetGo, Ping, SetPatience,
    WantInstance, WorkerHandle,
};
use crate::store::{BuilderNote, Op, Transaction};

/// A build needs the instance.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Substantiate {
    /// Who hears whether it is there.
    pub reply: SubstantiateReply,
}

/// The answer to a substantiation. When it is dropped unused, because the
/// LatentSlaveBuilder is gone or panicked, nothing was tried.
pub(super) struct SubstantiateReply {
    claim: ClaimId,
    to: Option<Recipient<Substantiated>>,
}

impl SubstantiateReply {
    pub(super) fn new(claim: ClaimId, to: Recipient<Substantiated>) -> Self {
        Self { claim, to: Some(to) }
    }

    fn tell(mut self, outcome: Result<Option<Seat>, NotSubstantiated>) {
        if let Some(to) = self.to.take() {
            to.do_send(Substantiated { claim: self.claim, outcome });
        }
    }
}

impl Drop for SubstantiateReply {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let outcome = Err(NotSubstantiated { error: None, permanent: false });
            to.do_send(Substantiated { claim: self.claim, outcome });
        }
    }
}

/// Whether the instance is there. With the seat that was made for its
/// connection: the build's Builder may not be the one that has it.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Substantiated {
    pub claim: ClaimId,
    pub outcome: Result<Option<Seat>, NotSubstantiated>,
}

/// News of the worker's connection, with the seat while it is attached.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ConnectionNews {
    pub news: LatentNews,
    pub seat: Option<Seat>,
}

/// One builder's standing with one latent worker.
pub struct LatentSlaveBuilder {
    world: World,
    builder_id: BuilderId,
    builder: BuilderName,
    worker: Arc<WorkerHandle>,
    core: LatentSlaveBuilderCore,
    alarm: Alarm,
    seat: Option<Seat>,
    replies: BTreeMap<ClaimId, SubstantiateReply>,
    persons: BTreeMap<ReplyId, Recipient<BuilderEvent>>,
    next_reply: u64,
    patience: Duration,
}

impl LatentSlaveBuilder {
    /// One that is LATENT.
    #[must_use]
    pub fn new(
        world: World,
        builder_id: BuilderId,
        builder: BuilderName,
        worker: Arc<WorkerHandle>,
        patience: Duration,
    ) -> Self {
        let core = LatentSlaveBuilderCore::new(worker.name.clone(), patience);
        Self {
            world,
            builder_id,
            builder,
            worker,
            core,
            alarm: Alarm::default(),
            seat: None,
            replies: BTreeMap::new(),
            persons: BTreeMap::new(),
            next_reply: 0,
            patience,
        }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.handle(self.world.clock.now().mono, event, &mut effects);
        for effect in effects {
            self.perform(effect, ctx);
        }
        let at = self.core.next_deadline();
        self.alarm.set(ctx, &self.world.clock, at, |latent, ctx| {
            latent.alarm.rang();
            latent.step(Event::DeadlineReached, ctx);
        });
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::WantInstance(claim) => self.worker.tell(WantInstance {
                builder: self.builder.clone(),
                claim,
                to: ctx.address().recipient(),
            }),
            Effect::Tell { claim, outcome } => {
                if let Some(reply) = self.replies.remove(&claim) {
                    reply.tell(outcome.map(|()| self.seat.clone()));
                }
            }
            Effect::TellPing { reply, ok } => {
                if let Some(from) = self.persons.remove(&reply) {
                    let worker = self.worker.name.clone();
                    // After everything that was written before: what is told
                    // has been published (row S05).
                    let tell =
                        move |_| from.do_send(BuilderEvent(ToBuilder::PingDone { worker, ok }));
                    self.world.store.write(Transaction::default(), Box::new(tell));
                }
            }
            Effect::Note(text) => self.write(Op::Note(self.note(text, None))),
            Effect::NoteBegins(text) => self.write(Op::BeginNote(self.note(text.into(), None))),
            Effect::NoteEnds { begun, text, error } => {
                let note = self.note(text, error);
                self.write(Op::EndNote { begun: begun.into(), note });
            }
            Effect::Ignored(kind) => self.world.ignored(kind),
        }
    }

    fn note(&self, text: String, error: Option<String>) -> BuilderNote {
        let at = self.world.clock.now().wall;
        BuilderNote { builder: self.builder_id, worker: Some(self.worker.id), text, error, at }
    }

    fn write(&self, op: Op) {
        self.world.store.write(Transaction::of(op), Box::new(|_| {}));
    }
}

impl Actor for LatentSlaveBuilder {
    type Context = Context<Self>;
}

impl Supervised for LatentSlaveBuilder {
    /// Whoever waits hears that nothing was tried; what the worker has made
    /// meanwhile attaches by itself, or is let go.
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.alarm.rang();
        self.replies.clear();
        self.persons.clear();
        self.core = LatentSlaveBuilderCore::new(self.worker.name.clone(), self.patience);
    }
}

impl Handler<Substantiate> for LatentSlaveBuilder {
    type Result = ();
    fn handle(&mut self, message: Substantiate, ctx: &mut Context<Self>) {
        faults::point("latent_slave_builder.substantiate");
        let claim = message.reply.claim;
        self.replies.insert(claim, message.reply);
        self.step(Event::Substantiate(claim), ctx);
    }
}

impl Handler<CallBackSubstantiation> for LatentSlaveBuilder {
    type Result = ();
    fn handle(&mut self, message: CallBackSubstantiation, ctx: &mut Context<Self>) {
        match message.0 {
            // Told nothing: whoever calls back knows.
            Some(claim) => {
                if let Some(mut reply) = self.replies.remove(&claim) {
                    reply.to = None;
                }
            }
            None => {
                for reply in self.replies.values_mut() {
                    reply.to = None;
                }
                self.replies.clear();
            }
        }
        self.step(Event::CallBack(message.0), ctx);
    }
}

impl Handler<InstanceNews> for LatentSlaveBuilder {
    type Result = ();
    fn handle(&mut self, news: InstanceNews, ctx: &mut Context<Self>) {
        faults::point("latent_slave_builder.news");
        let claim = news.claim;
        let event = match news.kind {
            InstanceNewsKind::Created(details) => Event::Created { claim, details },
            InstanceNewsKind::Failed { error, permanent } => {
                Event::Failed { claim, error, permanent }
            }
        };
        self.step(event, ctx);
    }
}

impl Handler<ConnectionNews> for LatentSlaveBuilder {
    type Result = ();
    fn handle(&mut self, message: ConnectionNews, ctx: &mut Context<Self>) {
        self.seat = message.seat;
        let event = match message.news {
            LatentNews::Attached => Event::Attached,
            LatentNews::AttachFailed { error } => Event::AttachFailed { error },
            LatentNews::Detached => Event::Detached,
        };
        self.step(event, ctx);
    }
}

impl Handler<Ping> for LatentSlaveBuilder {
    type Result = ();
    fn handle(&mut self, ping: Ping, ctx: &mut Context<Self>) {
        let mine = ReplyId(self.next_reply);
        self.next_reply += 1;
        self.persons.insert(mine, ping.from);
        self.step(Event::Ping(mine), ctx);
    }
}

impl Handler<SetPatience> for LatentSlaveBuilder {
    type Result = ();
    fn handle(&mut self, message: SetPatience, _: &mut Context<Self>) {
        self.patience = message.0;
        self.core.set_patience(message.0);
    }
}

impl Handler<LetGo> for LatentSlaveBuilder {
    type Result = ();
    fn handle(&mut self, _: LetGo, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
