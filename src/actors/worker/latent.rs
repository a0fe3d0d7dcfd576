//! A latent worker's part of the Worker actor: what its instance wants of the
//! store and of the provider, and who waits for it.

use std::collections::BTreeMap;

use actix::{AsyncContext, Handler, Recipient};

use super::Worker;
use crate::actors::context::Context;
use crate::core::ids::*;
use crate::core::instance::{Effect, Event, Failure, Known};
use crate::core::worker::Event as WorkerEvent;
use crate::faults;
use crate::messages::*;
use crate::provisioning::{CreateOrder, Watch};
use crate::store::{InstanceRow, InstanceState, Op, Transaction};

/// What only a latent worker has.
#[derive(Default)]
pub(super) struct LatentParts {
    /// What an earlier master left, until it was looked at.
    known: Option<Vec<Known>>,
    /// A former actor will tell of its own.
    waits: bool,
    /// Builds that wait for the instance.
    waiting: BTreeMap<ClaimId, Recipient<InstanceNews>>,
    watches: BTreeMap<InstanceTag, Watch>,
}

/// The store or the provider answered.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct InstanceEvent(Event);

impl Worker {
    /// The same worker, with the instances that an earlier master left.
    #[must_use]
    pub fn with_instances(mut self, rows: Vec<InstanceRow>) -> Self {
        let known = rows.into_iter().map(|row| Known {
            tag: row.tag,
            id: row.id,
            wanted: row.state != InstanceState::Destroying,
        });
        self.latent.known = Some(known.collect());
        self
    }

    /// The same worker, which gets the instances of a former actor.
    #[must_use]
    pub fn with_heritage(mut self, waits: bool) -> Self {
        self.latent.waits = waits;
        self
    }

    pub(super) fn take_over(&mut self, ctx: &mut Context<Self>) {
        if let Some(known) = self.latent.known.take() {
            let mut effects = Vec::new();
            self.core.take_over(self.world.clock.now().mono, known, &mut effects);
            self.perform_all(effects, ctx);
        }
        if std::mem::take(&mut self.latent.waits) {
            self.core.wait_for_heritage(self.world.clock.now().mono);
        }
    }

    fn on_instance(&mut self, event: Event, ctx: &mut Context<Self>) {
        self.step(WorkerEvent::Instance(event), ctx);
    }

    pub(super) fn perform_instance(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let (worker, at) = (self.id, self.world.clock.now().wall);
        match effect {
            Effect::StoreWish(tag) => {
                let op = Op::WishInstance { tag: tag.clone(), worker, at };
                self.store_instance(op, ctx, move |stored| match stored {
                    Ok(()) => Event::WishStored { tag },
                    Err(error) => Event::WishFailed { tag, error },
                });
            }
            Effect::Create(tag) => self.create(tag, ctx),
            Effect::NoteCreated { tag, id } => self.write(Op::NoteInstance { tag, id, at }),
            Effect::Watch { tag, id } => {
                let (me, dead) = (ctx.address(), tag.clone());
                let watch = self.world.provisioner.watch(tag.clone(), id, move |how| {
                    me.do_send(InstanceEvent(Event::Died { tag: dead, how }));
                });
                self.latent.watches.insert(tag, watch);
            }
            Effect::StoreRelease(tag) => {
                self.latent.watches.remove(&tag);
                let op = Op::ReleaseInstance { tag: tag.clone(), worker, at };
                self.store_instance(op, ctx, move |stored| match stored {
                    Ok(()) => Event::ReleaseStored { tag },
                    Err(_) => Event::StoreFailed { tag },
                });
            }
            Effect::Destroy { tag, id } => {
                let (me, worker) = (ctx.address(), self.name.clone());
                tracing::info!(worker.name = %worker, %tag, "an instance is let go");
                self.world.provisioner.destroy(tag.clone(), id, move |ended| {
                    me.do_send(InstanceEvent(match ended {
                        Ok(()) => Event::Destroyed { tag },
                        Err(error) => {
                            tracing::warn!(worker.name = %worker, %tag, %error, "an instance could not be destroyed; trying again");
                            Event::DestroyFailed { tag, error }
                        }
                    }));
                });
            }
            Effect::Forget(tag) => {
                let op = Op::RemoveInstance { tag: tag.clone() };
                self.store_instance(op, ctx, move |stored| match stored {
                    Ok(()) => Event::Forgotten { tag },
                    Err(_) => Event::StoreFailed { tag },
                });
            }
            // The worker's core has these for itself.
            Effect::Details(_)
            | Effect::Failed { .. }
            | Effect::DropLink
            | Effect::LostBuilds
            | Effect::Free
            | Effect::Ignored(_) => {}
        }
    }

    fn store_instance(
        &self,
        op: Op,
        ctx: &Context<Self>,
        told: impl FnOnce(Result<(), String>) -> Event + Send + 'static,
    ) {
        let (me, worker) = (ctx.address(), self.name.clone());
        self.world.store.write(
            Transaction::of(op),
            Box::new(move |written| {
                let stored = written.map(|_| ()).map_err(|error| error.to_string());
                if let Err(error) = &stored {
                    tracing::warn!(worker.name = %worker, %error, "an instance's state was not stored");
                }
                me.do_send(InstanceEvent(told(stored)));
            }),
        );
    }

    fn create(&self, tag: InstanceTag, ctx: &Context<Self>) {
        faults::point("worker.create_instance");
        let me = ctx.address();
        let config = self.core.config().clone();
        let Some(latent) = config.latent else {
            let failure = Failure::Transient("it is no latent worker any more".into());
            me.do_send(InstanceEvent(Event::CreateFailed { tag, failure }));
            return;
        };
        tracing::info!(worker.name = %self.name, %tag, "an instance is asked for");
        let limit = latent.substantiate_timeout;
        let (worker, max_builds) = (self.name.clone(), config.max_builds);
        let order = CreateOrder { tag: tag.clone(), worker: worker.clone(), max_builds, latent };
        self.world.provisioner.create(order, limit, move |made| {
            me.do_send(InstanceEvent(match made {
                Ok(made) => Event::Created { tag, id: made.id, details: made.details },
                Err(failure) => {
                    tracing::warn!(worker.name = %worker, %tag, ?failure, "an instance was not created");
                    Event::CreateFailed { tag, failure }
                }
            }));
        });
    }

    pub(super) fn tell_latent(&self, builder: &BuilderName) {
        let (Some(door), Some(handle), Some(latent)) =
            (self.builders.get(builder), &self.handle, &self.core.config().latent)
        else {
            return;
        };
        door.tell(BuilderMail::AddLatent(AddLatent {
            worker: self.name.clone(),
            handle: handle.clone(),
            patience: latent.substantiate_timeout + self.world.timers.attach_timeout,
        }));
    }

    pub(super) fn tell_waiting(&mut self, claim: ClaimId, kind: InstanceNewsKind) {
        let to = match &kind {
            InstanceNewsKind::Created(_) => self.latent.waiting.get(&claim).cloned(),
            InstanceNewsKind::Failed { .. } => self.latent.waiting.remove(&claim),
        };
        if let Some(to) = to {
            to.do_send(InstanceNews { claim, kind });
        }
    }

    /// Nobody waits any more whose build has gone.
    pub(super) fn forget_waiting(&mut self) {
        let core = &self.core;
        self.latent.waiting.retain(|claim, _| core.has_slot(*claim));
    }
}

impl Handler<InstanceEvent> for Worker {
    type Result = ();
    fn handle(&mut self, message: InstanceEvent, ctx: &mut Context<Self>) {
        faults::point("worker.instance");
        if matches!(message.0, Event::Created { .. }) {
            faults::crash_point("substantiate.after_create");
        }
        self.on_instance(message.0, ctx);
    }
}

impl Handler<WantInstance> for Worker {
    type Result = ();
    fn handle(&mut self, want: WantInstance, ctx: &mut Context<Self>) {
        let WantInstance { builder, claim, to } = want;
        self.latent.waiting.insert(claim, to);
        let tag = InstanceTag::new(self.id, self.world.draw());
        self.step(WorkerEvent::Want { builder, claim, tag }, ctx);
    }
}

impl Handler<InstancesFound> for Worker {
    type Result = ();
    fn handle(&mut self, message: InstancesFound, ctx: &mut Context<Self>) {
        self.on_instance(Event::Swept { found: message.0 }, ctx);
    }
}

impl Handler<LetInstanceGo> for Worker {
    type Result = ();
    fn handle(&mut self, message: LetInstanceGo, ctx: &mut Context<Self>) {
        self.on_instance(Event::LetGo { even_used: message.even_used }, ctx);
    }
}

impl Handler<TakeInstances> for Worker {
    type Result = ();
    fn handle(&mut self, message: TakeInstances, ctx: &mut Context<Self>) {
        let TakeInstances { known, made_with } = message;
        self.step(WorkerEvent::TakeInstances { known, made_with }, ctx);
    }
}
