//! Requests become a build's, and go back when it never started.

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::time::WallTime;
use botmaster::core::values::BuildResult;
use botmaster::store::*;

use super::tables::{BuildRecord, Tables, fenced};
use super::{Done, requests, wrong};

/// A claim as asked for.
pub(super) struct Wanted<'a> {
    pub claim: ClaimId,
    pub builder: BuilderId,
    pub worker: WorkerId,
    pub incarnation: Incarnation,
    pub requests: &'a [(RequestId, Epoch)],
    pub factory_digest: &'a str,
    pub grace: Duration,
    pub at: WallTime,
}

pub(super) fn claim(tables: &mut Tables, changes: &mut Vec<Change>, wanted: &Wanted<'_>) -> Done {
    if let Some(build) = tables.builds_open.get(&(wanted.builder, wanted.claim)) {
        return made_before(tables, **build);
    }
    let mut claimed = Vec::with_capacity(wanted.requests.len());
    for (request, epoch) in wanted.requests {
        claimed.push(take(tables, wanted, *request, *epoch)?);
    }
    let Some(oldest) = claimed.first() else {
        return Err(wrong("a claim needs at least one build request"));
    };
    let buildset = tables.set(oldest.buildset)?.row.clone();
    let present = tables.worker(wanted.worker)?.row.incarnation;
    if present != wanted.incarnation {
        return Err(StoreError::WorkerChanged(format!(
            "worker {} is in incarnation {present}, not {}",
            wanted.worker, wanted.incarnation
        )));
    }
    let id = BuildId(tables.last_build.get(&()).map_or(1, |last| last.0 + 1));
    let build = Arc::new(BuildRow {
        id,
        number: None,
        builder: wanted.builder,
        request: oldest.id,
        worker: wanted.worker,
        incarnation: wanted.incarnation,
        state: BuildState::Claimed,
        started_at: wanted.at,
        complete_at: None,
        results: None,
        state_string: "starting".into(),
        properties: buildset.properties.clone(),
    });
    let mut held: Vec<_> = claimed.iter().map(|row| (row.id, row.epoch)).collect();
    held.sort_unstable();
    let record = BuildRecord {
        row: build.clone(),
        claim: wanted.claim,
        stop: None,
        grace: wanted.grace,
        factory_digest: wanted.factory_digest.to_owned(),
        requests: held,
    };
    tables.last_build.put((), id);
    tables.builds.put(id, record);
    tables.builds_open.put((wanted.builder, wanted.claim), id);
    changes.extend(claimed.iter().cloned().map(Change::RequestClaimed));
    Ok(OpOutcome::Claimed { build, requests: claimed, buildset })
}

fn take(
    tables: &mut Tables,
    wanted: &Wanted<'_>,
    request: RequestId,
    epoch: Epoch,
) -> Result<Arc<RequestRow>, StoreError> {
    let waits = |row: &&Arc<RequestRow>| {
        row.builder == wanted.builder && row.state == RequestState::Queued && row.epoch == epoch
    };
    let Some(row) = tables.requests.get(&request).filter(waits) else {
        return Err(fenced(format!("build request {request} does not wait in epoch {epoch}")));
    };
    let mut row = RequestRow::clone(row);
    row.state = RequestState::Claimed;
    let same = planted::is("sim_claim_without_epoch");
    row.epoch = if same { epoch } else { Epoch(epoch.0 + 1) };
    row.claimed_at = Some(wanted.at);
    let row = Arc::new(row);
    tables.put_request(row.clone());
    Ok(row)
}

/// What an earlier claim with this id made (row FB16).
fn made_before(tables: &Tables, build: BuildId) -> Done {
    let record = tables.build(build)?;
    let requests = tables.requests_of(record);
    let Some(oldest) = requests.iter().find(|row| row.id == record.row.request) else {
        return Err(wrong(format!("build {build} has not its first build request")));
    };
    let buildset = tables.set(oldest.buildset)?.row.clone();
    Ok(OpOutcome::Claimed { build: record.row.clone(), requests, buildset })
}

pub(super) fn unclaim(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    cancelled: &[RequestId],
    refused: bool,
    at: WallTime,
) -> Done {
    let record = tables.build(build)?.clone();
    if record.row.state != BuildState::Claimed {
        return Err(fenced(format!("build {build} has started already")));
    }
    let mut back = Vec::new();
    for (request, epoch) in &record.requests {
        if record.stop.is_some() || cancelled.contains(request) {
            let (state, result) = (RequestState::Cancelled, BuildResult::Cancelled);
            end_request(tables, changes, (*request, *epoch), state, result, at)?;
        } else {
            back.extend(requeue(tables, changes, (*request, *epoch), refused));
        }
    }
    tables.builds_open.remove(&(record.row.builder, record.claim));
    tables.builds.remove(&build);
    let requests = back.into_iter().map(|row| tables.with_set(row)).collect();
    Ok(OpOutcome::Requeued { requests })
}

pub(super) fn cancel_claimed(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    cancelled: &[RequestId],
    head: RequestId,
    at: WallTime,
) -> Done {
    let mut record = BuildRecord::clone(tables.build(build)?);
    if record.row.state != BuildState::Claimed {
        return Err(fenced(format!("build {build} has started already")));
    }
    let (gone, stay): (Vec<_>, Vec<_>) =
        record.requests.iter().copied().partition(|(request, _)| cancelled.contains(request));
    let wanted = stay.iter().find(|(request, _)| *request == head);
    let Some((head, _)) = wanted.or_else(|| stay.first()).copied() else {
        return Err(fenced(format!("build {build} would be left without a request")));
    };
    let mut ended = Vec::new();
    for request in gone {
        ended.extend(held(tables, request).map(|row| row.id));
        let (state, result) = (RequestState::Cancelled, BuildResult::Cancelled);
        end_request(tables, changes, request, state, result, at)?;
    }
    let set = tables.requests.get(&head).map(|row| row.buildset).unwrap_or_default();
    let mut row = BuildRow::clone(&record.row);
    row.request = head;
    row.properties = tables.set(set)?.row.properties.clone();
    record.row = Arc::new(row);
    record.requests = stay;
    tables.builds.put(build, record);
    Ok(OpOutcome::Cancelled(ended))
}

/// The request, if a build has it in this epoch.
fn held(tables: &Tables, (request, epoch): (RequestId, Epoch)) -> Option<RequestRow> {
    let row = tables.requests.get(&request)?;
    (row.state == RequestState::Claimed && row.epoch == epoch).then(|| RequestRow::clone(row))
}

/// Puts a request back at the head of its queue, unless it ended or has
/// another owner.
pub(super) fn requeue(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    request: (RequestId, Epoch),
    infra: bool,
) -> Option<Arc<RequestRow>> {
    let mut row = held(tables, request)?;
    row.state = RequestState::Queued;
    row.claimed_at = None;
    row.requeued = true;
    row.infra_tries += u32::from(infra);
    let row = Arc::new(row);
    tables.put_request(row.clone());
    changes.push(Change::RequestUnclaimed(row.clone()));
    Some(row)
}

/// Ends a request, unless it ended or has another owner.
pub(super) fn end_request(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    request: (RequestId, Epoch),
    state: RequestState,
    result: BuildResult,
    at: WallTime,
) -> Result<(), StoreError> {
    let Some(mut row) = held(tables, request) else { return Ok(()) };
    row.state = state;
    row.results = Some(result);
    row.complete_at = Some(at);
    requests::complete(tables, changes, row, at)
}
