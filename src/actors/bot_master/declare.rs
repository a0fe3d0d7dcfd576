//! What the store is told of builders and workers before they are there.

use std::collections::BTreeMap;

use crate::core::form::FORCE;
use crate::core::ids::*;
use crate::settings::Settings;
use crate::store::{Op, OpOutcome, WorkerRow};

/// The operations that make these settings known.
#[must_use]
pub fn declare(settings: &Settings) -> Vec<Op> {
    declare_some(settings, |_| true, |_| true)
}

/// The same for some builders and workers: the others are known as they are. A
/// thousand of them would keep all others from the store for tens of
/// milliseconds.
pub(super) fn declare_some(
    settings: &Settings,
    builder: impl Fn(&BuilderName) -> bool,
    worker: impl Fn(&WorkerName) -> bool,
) -> Vec<Op> {
    let workers = settings
        .workers
        .iter()
        .filter(|one| worker(&one.config.name))
        .map(|worker| Op::DeclareWorker { name: worker.config.name.clone() });
    let some = || settings.builders.iter().filter(|one| builder(&one.name));
    let factories = some().map(|builder| Op::SaveFactory {
        digest: builder.factory_digest.clone(),
        factory: builder.factory.clone(),
    });
    let builders = some().map(|builder| Op::DeclareBuilder {
        name: builder.name.clone(),
        description: builder.description.clone(),
        tags: builder.tags.clone(),
        workers: builder.workers.clone(),
    });
    let configured = settings.forms.iter().map(|form| form.name.clone());
    let mut schedulers = vec![FORCE.to_owned()];
    schedulers.extend(configured.filter(|name| name != FORCE));
    let schedulers = std::iter::once(Op::DeclareSchedulers(schedulers));
    workers.chain(factories).chain(builders).chain(schedulers).collect()
}

/// Builders and workers as stored, by name.
pub type Known = (BTreeMap<BuilderName, BuilderId>, BTreeMap<WorkerName, WorkerRow>);

/// Reads the answers to [`declare`].
#[must_use]
pub fn declared(settings: &Settings, outcomes: Vec<OpOutcome>) -> Known {
    declared_some(settings.builders.iter().map(|builder| builder.name.clone()), outcomes)
}

/// The same, when these builders were declared, in this order.
pub(super) fn declared_some(
    mut builders: impl Iterator<Item = BuilderName>,
    outcomes: Vec<OpOutcome>,
) -> Known {
    let mut ids = BTreeMap::new();
    let mut rows = BTreeMap::new();
    for outcome in outcomes {
        match outcome {
            OpOutcome::Worker(row) => {
                rows.insert(row.name.clone(), row);
            }
            OpOutcome::Builder(id) => {
                if let Some(name) = builders.next() {
                    ids.insert(name, id);
                }
            }
            _ => {}
        }
    }
    (ids, rows)
}
