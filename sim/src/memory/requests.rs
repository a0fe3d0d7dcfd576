//! Submissions and the requests that wait.

use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::core::values::{BuildResult, SourceStamp};
use botmaster::store::*;

use super::tables::{SetRecord, Tables};
use super::{Done, missing, wrong};

pub(super) fn add_buildset(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    new: &NewBuildset,
) -> Done {
    if let Some(key) = &new.idempotency_key
        && let Some(known) = tables.sets_keyed.get(key)
    {
        let set = tables.set(**known)?;
        let requests = set.requests.iter().filter_map(|id| tables.requests.get(id).cloned());
        return Ok(OpOutcome::Buildset {
            buildset: set.row.clone(),
            requests: requests.collect(),
            existing: true,
        });
    }
    if new.builders.is_empty() {
        return Err(wrong("a submission needs at least one builder"));
    }
    let stamps =
        new.sourcestamps.iter().map(|stamp| save_stamp(tables, stamp, new.submitted_at)).collect();
    let id = BuildsetId(tables.sets.last().map_or(1, |id| id.0 + 1));
    let set = Arc::new(BuildsetRow {
        id,
        external_id: new.external_id.clone(),
        reason: new.reason.clone(),
        scheduler: new.scheduler.clone(),
        submitted_at: new.submitted_at,
        complete_at: None,
        results: None,
        rebuilt_build: new.rebuilt_build,
        sourcestamps: stamps,
        properties: new.properties.clone(),
        parent: None,
    });
    changes.push(Change::BuildsetNew(set.clone()));
    let mut requests = Vec::with_capacity(new.builders.len());
    for builder in &new.builders {
        tables.builder(*builder)?;
        let request = Arc::new(RequestRow {
            id: RequestId(tables.requests.last().map_or(1, |id| id.0 + 1)),
            buildset: id,
            builder: *builder,
            priority: new.priority,
            submitted_at: new.submitted_at,
            state: RequestState::Queued,
            epoch: Epoch(0),
            claimed_at: None,
            complete_at: None,
            results: None,
            requeued: false,
            infra_tries: 0,
            waited_for: new.waited_for,
        });
        tables.put_request(request.clone());
        changes.push(Change::RequestNew(request.clone()));
        requests.push(request);
    }
    let ids: Vec<_> = requests.iter().map(|row| row.id).collect();
    let open = ids.len();
    tables.sets.put(id, SetRecord { row: set.clone(), requests: ids, open });
    if let Some(key) = &new.idempotency_key {
        tables.sets_keyed.put(key.clone(), id);
    }
    Ok(OpOutcome::Buildset { buildset: set, requests, existing: false })
}

/// Equal stamps share one row, which keeps the time of the first.
fn save_stamp(tables: &mut Tables, stamp: &SourceStamp, at: WallTime) -> SourceStampRow {
    let SourceStamp { codebase, repository, branch, revision, project } = stamp.clone();
    let key = (codebase, repository, branch, revision, project);
    if let Some(id) = tables.stamps_known.get(&key)
        && let Some(row) = tables.stamps.get(id)
    {
        return SourceStampRow::clone(row);
    }
    let id = tables.stamps.last().map_or(1, |id| id + 1);
    let row = SourceStampRow { id, stamp: stamp.clone(), created_at: at, patch: None };
    tables.stamps.put(id, row.clone());
    tables.stamps_known.put(key, id);
    row
}

pub(super) fn cancel(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    requests: &[RequestId],
    at: WallTime,
) -> Done {
    let mut ended = Vec::new();
    for request in requests {
        let waits = tables.requests.get(request).filter(|row| row.state == RequestState::Queued);
        let Some(row) = waits else { continue };
        let mut row = RequestRow::clone(row);
        row.state = RequestState::Cancelled;
        row.results = Some(BuildResult::Cancelled);
        row.complete_at = Some(at);
        ended.push(row.id);
        complete(tables, changes, row, at)?;
    }
    Ok(OpOutcome::Cancelled(ended))
}

/// Stores that a request ended, and its buildset when it was the last.
pub(super) fn complete(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    request: RequestRow,
    at: WallTime,
) -> Result<(), StoreError> {
    let id = request.buildset;
    let request = Arc::new(request);
    tables.put_request(request.clone());
    changes.push(Change::RequestComplete(request));
    let mut set = SetRecord::clone(tables.set(id)?);
    if set.open > 1 {
        set.open -= 1;
        tables.sets.put(id, set);
        return Ok(());
    }
    set.open = 0;
    let mut row = BuildsetRow::clone(&set.row);
    row.complete_at = Some(at);
    row.results = set
        .requests
        .iter()
        .filter_map(|id| tables.requests.get(id).and_then(|row| row.results))
        .reduce(BuildResult::worst);
    set.row = Arc::new(row);
    changes.push(Change::BuildsetComplete(set.row.clone()));
    tables.sets.put(id, set);
    Ok(())
}

pub(super) fn set_priority(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    request: RequestId,
    priority: i64,
) -> Done {
    let row = tables.requests.get(&request);
    let row = row.ok_or_else(|| missing(format!("build request {request}")))?;
    if row.state == RequestState::Queued {
        let row = Arc::new(RequestRow { priority, ..RequestRow::clone(row) });
        tables.put_request(row.clone());
        changes.push(Change::RequestUpdated(row));
    }
    Ok(OpOutcome::Done)
}
