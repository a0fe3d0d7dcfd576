//! Latent workers at a builder: their LatentSlaveBuilders, and builds that wait
//! for an instance.

use std::time::Duration;

use actix::{Addr, AsyncContext, Handler};

use super::{Builder, Input, LatentSeat};
use crate::actors::context::Context;
use crate::actors::latent_slave_builder::{
    ConnectionNews, LatentSlaveBuilder, Substantiate, SubstantiateReply, Substantiated,
};
use crate::actors::runtime::{MayRestart, start_supervised};
use crate::core::builder::{Event, LatentNews, ReplyId};
use crate::core::ids::*;
use crate::core::values::BuilderConfig;
use crate::messages::*;
use crate::store::Op;

/// A build without a worker, to be written down.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct FailBuild {
    pub claim: ClaimId,
    op: Op,
}

impl Builder {
    pub(super) fn new_latent(&mut self, worker: &WorkerName, ctx: &mut Context<Self>) {
        let Some(add) = self.latent_adds.remove(worker) else { return };
        if let Some(latent) = self.latents.get_mut(worker)
            && latent.addr.connected()
        {
            latent.addr.do_send(SetPatience(add.patience));
            latent.add = add;
            return;
        }
        self.start_latent(add, ctx);
    }

    fn start_latent(&mut self, add: AddLatent, ctx: &mut Context<Self>) {
        let worker = add.worker.clone();
        let (handle, patience) = (add.handle.clone(), add.patience);
        let id = format!("{}@{worker} (latent)", self.name());
        let (world, builder_id, name) = (self.world().clone(), self.parts.id, self.name().clone());
        let addr = start_supervised(
            id,
            0,
            ctx.address().recipient(),
            world.clock.clone(),
            MayRestart::new(true),
            move |_| LatentSlaveBuilder::new(world, builder_id, name, handle, patience),
        );
        self.latents.insert(worker, LatentSeat { addr, add });
    }

    /// After a panic of this builder: what it waited for it does not know any
    /// more.
    pub(super) fn forget_substantiations(&self) {
        for latent in self.latents.values() {
            latent.addr.do_send(CallBackSubstantiation(None));
        }
    }

    pub(super) fn drop_latent(&mut self, worker: &WorkerName) {
        if let Some(latent) = self.latents.remove(worker) {
            latent.addr.do_send(LetGo);
        }
    }

    /// The LatentSlaveBuilder, here or at the successor.
    fn latent(&self, worker: &WorkerName) -> Option<&Addr<LatentSlaveBuilder>> {
        let latent = self.latents.get(worker).or_else(|| self.lent_latents.get(worker));
        latent.map(|latent| &latent.addr)
    }

    pub(super) fn substantiate(
        &mut self,
        worker: &WorkerName,
        claim: ClaimId,
        ctx: &mut Context<Self>,
    ) {
        // One that gave up even on its restarts gets a fresh one.
        let dead = self.latents.get(worker).filter(|latent| !latent.addr.connected());
        if let Some(add) = dead.map(|latent| latent.add.clone()) {
            self.start_latent(add, ctx);
        }
        // What was noted before has to be told before this (row B17).
        self.flush_now(ctx);
        // Dropped unused, it says that nothing was tried.
        let reply = SubstantiateReply::new(claim, ctx.address().recipient());
        if let Some(latent) = self.latent(worker) {
            latent.do_send(Substantiate { reply });
        }
    }

    pub(super) fn call_back_substantiation(&self, worker: &WorkerName, claim: ClaimId) {
        if let Some(latent) = self.latent(worker) {
            latent.do_send(CallBackSubstantiation(Some(claim)));
        }
    }

    pub(super) fn tell_latent(&self, worker: &WorkerName, news: LatentNews) {
        let seat = match news {
            LatentNews::Attached => self.seats.get(worker).cloned(),
            LatentNews::AttachFailed { .. } | LatentNews::Detached => None,
        };
        if let Some(latent) = self.latents.get(worker) {
            latent.addr.do_send(ConnectionNews { news, seat });
        }
    }

    pub(super) fn ping_latent(&self, worker: WorkerName, ctx: &mut Context<Self>) {
        match self.latents.get(&worker) {
            Some(latent) if latent.addr.connected() => {
                latent.addr.do_send(Ping { reply: ReplyId(0), from: ctx.address().recipient() });
            }
            _ => ctx.notify(BuilderEvent(Event::PingDone { worker, ok: true })),
        }
    }

    pub(super) fn fail_build(
        &mut self,
        claim: ClaimId,
        worker: &WorkerName,
        requests: Vec<(RequestId, Epoch)>,
        state_string: String,
        config: &BuilderConfig,
        ctx: &mut Context<Self>,
    ) {
        let Some(worker) = self.worker(worker).map(|handle| handle.id) else {
            ctx.notify(BuilderEvent(Event::FailedBuild { claim }));
            return;
        };
        let op = Op::FailBuild {
            claim,
            builder: self.parts.id,
            worker,
            requests,
            factory_digest: config.factory_digest.clone(),
            state_string,
            at: self.world().clock.now().wall,
        };
        self.write_failed(FailBuild { claim, op }, ctx);
    }

    fn write_failed(&mut self, failed: FailBuild, ctx: &mut Context<Self>) {
        let (me, op) = (ctx.address(), failed.op.clone());
        self.write(
            vec![op],
            move |written| match written {
                Err(error) if !error.is_final() => {
                    tracing::warn!(%error, "a build without a worker could not be written down; trying again");
                    me.do_send(failed);
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "a build without a worker was not written down; the store knows better");
                    Some(Event::FailedBuild { claim: failed.claim })
                }
                Ok(_) => Some(Event::FailedBuild { claim: failed.claim }),
            },
            ctx,
        );
    }
}

impl Handler<FailBuild> for Builder {
    type Result = ();
    fn handle(&mut self, failed: FailBuild, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_secs(1), move |builder, ctx| {
            builder.write_failed(failed, ctx);
        });
    }
}

impl Handler<Substantiated> for Builder {
    type Result = ();
    fn handle(&mut self, message: Substantiated, ctx: &mut Context<Self>) {
        let claim = message.claim;
        let event = match message.outcome {
            Ok(seat) => {
                // After a takeover the seat is the successor's.
                if let Some(seat) = seat.filter(|_| self.core.is_retired()) {
                    let name = seat.worker.name.clone();
                    if !self.seats.contains_key(&name) {
                        self.lent.insert(name, seat);
                    }
                }
                Event::Substantiated { claim }
            }
            Err(why) => {
                Event::NotSubstantiated { claim, error: why.error, permanent: why.permanent }
            }
        };
        self.take(Input::Event(event), ctx);
    }
}
