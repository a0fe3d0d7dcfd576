//! Instances of latent workers, and builds for which no worker could be had.

use botmaster::core::ids::*;
use botmaster::core::values::BuildResult;
use botmaster::store::*;

use super::tables::Tables;
use super::{Done, claims, running, wrong};

/// What an instance is told to be.
pub(super) fn put(
    tables: &mut Tables,
    tag: &InstanceTag,
    change: impl FnOnce(Option<&InstanceRow>) -> Option<InstanceRow>,
) -> Done {
    if let Some(row) = change(tables.instances.get(tag).map(AsRef::as_ref)) {
        tables.instances.put(tag.clone(), row);
    }
    Ok(OpOutcome::Done)
}

pub(super) fn wish(tables: &mut Tables, tag: &InstanceTag, worker: WorkerId) -> Done {
    if tables.instances.get(tag).is_some() {
        return Err(wrong("UNIQUE constraint failed: instances.tag"));
    }
    put(tables, tag, |_| Some(row(tag, worker, InstanceState::Wished)))
}

/// One that is to be destroyed stays so, whatever is told of its beginnings.
pub(super) fn note(tables: &mut Tables, tag: &InstanceTag, id: &str) -> Done {
    put(tables, tag, |known| {
        let known = known?;
        let state = match known.state {
            InstanceState::Wished | InstanceState::Created => InstanceState::Created,
            InstanceState::Destroying => InstanceState::Destroying,
        };
        Some(InstanceRow { state, id: Some(id.to_owned()), ..known.clone() })
    })
}

pub(super) fn release(tables: &mut Tables, tag: &InstanceTag, worker: WorkerId) -> Done {
    put(tables, tag, |known| {
        let known = known.cloned().unwrap_or_else(|| row(tag, worker, InstanceState::Destroying));
        Some(InstanceRow { state: InstanceState::Destroying, ..known })
    })
}

fn row(tag: &InstanceTag, worker: WorkerId, state: InstanceState) -> InstanceRow {
    InstanceRow { tag: tag.clone(), worker, name: WorkerName::from(""), state, id: None }
}

pub(super) fn list(tables: &Tables) -> Done {
    let named = |row: &InstanceRow| {
        let name = tables.workers.get(&row.worker).map(|worker| worker.row.name.clone());
        InstanceRow { name: name.unwrap_or_else(|| WorkerName::from("")), ..row.clone() }
    };
    Ok(OpOutcome::Instances(tables.instances.iter().map(|(_, row)| named(row)).collect()))
}

/// Claims, numbers and ends a build in one go.
pub(super) fn fail_build(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    wanted: claims::Wanted<'_>,
    state_string: &str,
) -> Done {
    let incarnation = tables.worker(wanted.worker)?.row.incarnation;
    let (at, wanted) = (wanted.at, claims::Wanted { incarnation, ..wanted });
    let OpOutcome::Claimed { build, .. } = claims::claim(tables, changes, &wanted)? else {
        return Err(wrong("a claim was not answered as one"));
    };
    let properties = build.properties.clone();
    let start = running::Start { properties: &properties, grace: std::time::Duration::ZERO, at };
    running::start(tables, changes, build.id, incarnation, &start)?;
    let requests = RequestsAfter::Done;
    let end = running::End { result: BuildResult::Exception, state_string, requests, at };
    running::finish(tables, changes, build.id, incarnation, &end)
}
