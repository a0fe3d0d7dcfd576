//! Instances of latent workers at the start and the end of a master: what an
//! earlier one left is adopted or destroyed (fault row FX09), and what nobody
//! uses does not stay behind.

use std::collections::BTreeMap;

use actix::{Addr, AsyncContext, Handler};

use super::BotMaster;
use crate::actors::context::Context;
use crate::actors::runtime::{MayRestart, start_supervised};
use crate::actors::worker::Worker;
use crate::core::ids::*;
use crate::core::instance::Found;
use crate::core::values::WorkerConfig;
use crate::messages::{InstancesFound, LetInstanceGo, RetireWorker};
use crate::store::{InstanceRow, InstanceState};

/// The provider told which instances there are.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Swept(Vec<Found>);

/// Instances shall go: the master is about to stop.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct LetInstancesGo {
    /// Also those on which builds run.
    pub even_used: bool,
}

impl BotMaster {
    /// Instances that the store knows of this worker, once.
    pub(super) fn take_instances(&mut self, worker: WorkerId) -> Vec<InstanceRow> {
        let all = std::mem::take(&mut self.instances);
        let (its, others) = all.into_iter().partition(|row| row.worker == worker);
        self.instances = others;
        its
    }

    /// Asks the provider what there is: also when no latent worker is
    /// configured, since there may have been one.
    pub(super) fn sweep(&mut self, ctx: &mut Context<Self>) {
        // Those of workers that are not configured any more.
        let left = std::mem::take(&mut self.instances);
        let mut by_worker: BTreeMap<WorkerId, Vec<InstanceRow>> = BTreeMap::new();
        for row in left {
            by_worker.entry(row.worker).or_default().push(row);
        }
        for (worker, rows) in by_worker {
            self.end_instances(worker, rows, ctx);
        }
        let me = ctx.address();
        self.world.provisioner.find(move |found| me.do_send(Swept(found)));
    }

    /// A worker that nobody configures any more, to let its instances go. It
    /// ends with the last of them.
    fn end_instances(&mut self, id: WorkerId, rows: Vec<InstanceRow>, ctx: &mut Context<Self>) {
        let name =
            rows.first().map(|row| row.name.clone()).filter(|name| !name.as_str().is_empty());
        let name = name.unwrap_or_else(|| format!("former worker {id}").into());
        tracing::warn!(worker.name = %name, instances = rows.len(), "instances of a worker that is not configured are let go");
        let child = self.child();
        let world = self.world.clone();
        let (doors, parent) = self.doors(ctx);
        let config = WorkerConfig { name: name.clone(), max_builds: 1, latent: None };
        let addr: Addr<Worker> = start_supervised(
            format!("former worker {name}"),
            child,
            parent,
            world.clock.clone(),
            MayRestart::new(true),
            move |_| Worker::new(world, id, config, false, doors).with_instances(rows),
        );
        addr.do_send(RetireWorker);
        self.former.insert(id, addr);
    }
}

impl Handler<Swept> for BotMaster {
    type Result = ();
    fn handle(&mut self, swept: Swept, ctx: &mut Context<Self>) {
        let mut by_worker: BTreeMap<WorkerId, Vec<Found>> = BTreeMap::new();
        for found in swept.0 {
            match found.tag.worker() {
                Some(worker) => by_worker.entry(worker).or_default().push(found),
                None => {
                    tracing::warn!(tag = %found.tag, "a provider has an instance that is not ours")
                }
            }
        }
        for (name, worker) in &self.workers {
            let Some(row) = self.rows.get(name) else { continue };
            let found = by_worker.remove(&row.id).unwrap_or_default();
            if worker.config.latent.is_some() || !found.is_empty() {
                worker.addr.do_send(InstancesFound(found));
            }
        }
        for (worker, found) in by_worker {
            // Its rows name the same ones.
            if self.former.contains_key(&worker) {
                continue;
            }
            let name = self.rows.iter().find(|(_, row)| row.id == worker);
            let name = name.map(|(name, _)| name.clone()).unwrap_or_else(|| "".into());
            let rows = found.into_iter().map(|found| InstanceRow {
                tag: found.tag,
                worker,
                name: name.clone(),
                state: InstanceState::Destroying,
                id: Some(found.id),
            });
            self.end_instances(worker, rows.collect(), ctx);
        }
    }
}

impl Handler<LetInstancesGo> for BotMaster {
    type Result = ();
    fn handle(&mut self, message: LetInstancesGo, _: &mut Context<Self>) {
        for worker in self.workers.values().filter(|worker| worker.config.latent.is_some()) {
            worker.addr.do_send(LetInstanceGo { even_used: message.even_used });
        }
    }
}
