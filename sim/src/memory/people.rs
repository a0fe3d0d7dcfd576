//! Builders and workers: what is configured, and who is attached.

use std::collections::BTreeMap;
use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::lease::Grant;
use botmaster::core::time::WallTime;
use botmaster::store::*;

use super::tables::{BuilderRecord, Tables, WorkerRecord};
use super::{Done, missing};

pub(super) fn declare_builder(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    name: &BuilderName,
    description: Option<&String>,
    tags: &[String],
    workers: &[WorkerName],
) -> Done {
    let mut ids = Vec::with_capacity(workers.len());
    for worker in workers {
        let id = tables.worker_names.get(worker);
        ids.push(**id.ok_or_else(|| missing(format!("worker named `{worker}`")))?);
    }
    let known = tables.builder_names.get(name).map(|id| **id);
    let id = known.unwrap_or_else(|| BuilderId(tables.builders.last().map_or(1, |id| id.0 + 1)));
    let row = BuilderRow {
        id,
        name: name.clone(),
        description: description.cloned(),
        tags: tags.to_vec(),
        configured: true,
        workers: ids,
        about: BuilderAbout::default(),
    };
    let before = tables.builders.get(&id).map(|record| BuilderRecord::clone(record));
    if before.as_ref().is_some_and(|before| before.row == row) {
        return Ok(OpOutcome::Builder(id));
    }
    let (last_number, expectations) =
        before.map_or((0, None), |before| (before.last_number, before.expectations));
    tables.builders.put(id, BuilderRecord { row: row.clone(), last_number, expectations });
    tables.builder_names.put(name.clone(), id);
    changes.push(Change::BuilderUpdated(Arc::new(row)));
    Ok(OpOutcome::Builder(id))
}

pub(super) fn retire_builder(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    builder: BuilderId,
) -> Done {
    let mut record = BuilderRecord::clone(tables.builder(builder)?);
    if record.row.configured {
        record.row.configured = false;
        changes.push(Change::BuilderUpdated(Arc::new(record.row.clone())));
        tables.builders.put(builder, record);
    }
    Ok(OpOutcome::Done)
}

pub(super) fn save_expectations(tables: &mut Tables, builder: BuilderId, text: &str) -> Done {
    let mut record = BuilderRecord::clone(tables.builder(builder)?);
    record.expectations = Some(text.to_owned());
    tables.builders.put(builder, record);
    Ok(OpOutcome::Done)
}

pub(super) fn declare_worker(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    name: &WorkerName,
) -> Done {
    let known = tables.worker_names.get(name).map(|id| **id);
    let mut record = match known {
        Some(id) => WorkerRecord::clone(tables.worker(id)?),
        None => WorkerRecord {
            row: WorkerRow {
                id: WorkerId(tables.workers.last().map_or(1, |id| id.0 + 1)),
                name: name.clone(),
                configured: false,
                connected: false,
                incarnation: Incarnation(0),
                info: BTreeMap::new(),
                paused: false,
                pause_reason: None,
                graceful: false,
            },
            last_seen: WallTime(0),
            grant: None,
        },
    };
    if !record.row.configured {
        record.row.configured = true;
        tables.worker_names.put(name.clone(), record.row.id);
        tables.workers.put(record.row.id, record.clone());
        changes.push(Change::WorkerUpdated(Arc::new(record.row.clone())));
    }
    Ok(OpOutcome::Worker(record.row))
}

pub(super) fn retire_worker(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    worker: WorkerId,
) -> Done {
    let mut record = WorkerRecord::clone(tables.worker(worker)?);
    record.row.configured = false;
    changes.push(Change::WorkerUpdated(Arc::new(record.row.clone())));
    tables.workers.put(worker, record);
    Ok(OpOutcome::Done)
}

pub(super) fn attach(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    worker: WorkerId,
    info: &BTreeMap<String, String>,
    at: WallTime,
) -> Done {
    let mut record = WorkerRecord::clone(tables.worker(worker)?);
    record.row.incarnation.0 += 1;
    record.row.connected = true;
    record.row.info = info.clone();
    record.last_seen = at;
    let answer = OpOutcome::Attached(record.row.incarnation);
    changes.push(Change::WorkerConnected(Arc::new(record.row.clone())));
    tables.workers.put(worker, record);
    Ok(answer)
}

pub(super) fn grant_lease(
    tables: &mut Tables,
    worker: WorkerId,
    incarnation: Incarnation,
    grant: &Grant,
) -> Done {
    let mut record = WorkerRecord::clone(tables.worker(worker)?);
    if record.row.incarnation != incarnation {
        let text = format!("worker {worker} is not in incarnation {incarnation}");
        return Err(StoreError::Fenced(text));
    }
    record.grant = Some((incarnation, grant.clone()));
    tables.workers.put(worker, record);
    Ok(OpOutcome::Done)
}

pub(super) fn detach(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    worker: WorkerId,
    incarnation: Incarnation,
    at: WallTime,
) -> Done {
    let present = tables
        .workers
        .get(&worker)
        .filter(|record| record.row.incarnation == incarnation && record.row.connected);
    if let Some(record) = present {
        let mut record = WorkerRecord::clone(record);
        record.row.connected = false;
        record.last_seen = at;
        changes.push(Change::WorkerDisconnected(Arc::new(record.row.clone())));
        tables.workers.put(worker, record);
    }
    Ok(OpOutcome::Done)
}

pub(super) fn see(tables: &mut Tables, seen: &[(WorkerId, Incarnation)], at: WallTime) -> Done {
    for (worker, incarnation) in seen {
        let known = tables.workers.get(worker);
        if let Some(record) = known.filter(|record| record.row.incarnation == *incarnation) {
            let mut record = WorkerRecord::clone(record);
            record.last_seen = at;
            tables.workers.put(*worker, record);
        }
    }
    Ok(OpOutcome::Done)
}

pub(super) fn set_worker(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    worker: WorkerId,
    paused: Option<&(bool, Option<String>)>,
    graceful: Option<bool>,
) -> Done {
    let mut record = WorkerRecord::clone(tables.worker(worker)?);
    if let Some((paused, reason)) = paused {
        record.row.paused = *paused;
        record.row.pause_reason.clone_from(reason);
    }
    if let Some(graceful) = graceful {
        record.row.graceful = graceful;
    }
    changes.push(Change::WorkerUpdated(Arc::new(record.row.clone())));
    tables.workers.put(worker, record);
    Ok(OpOutcome::Done)
}
