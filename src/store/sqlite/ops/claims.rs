//! Requests become a build's, and go back when it never started.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Done, requests};
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::BuildResult;
use crate::store::sqlite::errors::OpError;
use crate::store::sqlite::rows::{self, build_columns, int, to_json};
use crate::store::*;

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

pub(super) fn claim(conn: &Connection, changes: &mut Vec<Change>, wanted: &Wanted<'_>) -> Done {
    let name = wanted.claim.to_string();
    if let Some(made) = made_before(conn, wanted.builder, &name)? {
        return Ok(made);
    }
    let mut claimed = Vec::with_capacity(wanted.requests.len());
    for (request, epoch) in wanted.requests {
        claimed.push(Arc::new(take(conn, wanted, *request, *epoch)?));
    }
    let Some(oldest) = claimed.first() else {
        return Err(OpError::wrong("a claim needs at least one build request"));
    };
    let set = buildset(conn, oldest)?;
    let state_string = "starting";
    let made = conn
        .prepare_cached(
            "INSERT INTO builds (claim, builder_id, request_id, worker_id, incarnation, state, \
             started_at, state_string, factory_digest, properties, grace) \
             SELECT ?1, ?2, ?3, id, incarnation, 0, ?6, ?7, ?8, ?9, ?10 \
             FROM workers WHERE id = ?4 AND incarnation = ?5",
        )?
        .execute(params![
            name,
            int(wanted.builder.0),
            int(oldest.id.0),
            int(wanted.worker.0),
            int(wanted.incarnation.0),
            wanted.at.0,
            state_string,
            wanted.factory_digest,
            to_json(set.properties.as_ref())?,
            rows::micros(wanted.grace),
        ])?;
    if made == 0 {
        return Err(not_that_worker(conn, wanted)?);
    }
    let build = BuildRow {
        id: BuildId(rows::id(conn.last_insert_rowid())),
        number: None,
        builder: wanted.builder,
        request: oldest.id,
        worker: wanted.worker,
        incarnation: wanted.incarnation,
        state: BuildState::Claimed,
        started_at: wanted.at,
        complete_at: None,
        results: None,
        state_string: state_string.into(),
        properties: set.properties.clone(),
    };
    let mut link = conn.prepare_cached("INSERT INTO build_requests VALUES (?1, ?2, ?3)")?;
    for request in &claimed {
        link.execute([int(build.id.0), int(request.id.0), int(request.epoch.0)])?;
        changes.push(Change::RequestClaimed(request.clone()));
    }
    Ok(OpOutcome::Claimed { build: Arc::new(build), requests: claimed, buildset: set })
}

/// Why the worker did not meet the claim's conditions.
fn not_that_worker(conn: &Connection, wanted: &Wanted<'_>) -> Result<OpError, OpError> {
    let present: Option<u64> = conn
        .prepare_cached("SELECT incarnation FROM workers WHERE id = ?1")?
        .query_row([int(wanted.worker.0)], |row| rows::uint(row, 0))
        .optional()?;
    Ok(match present {
        None => OpError::missing(format!("worker {}", wanted.worker)),
        Some(present) => OpError::Refused(StoreError::WorkerChanged(format!(
            "worker {} is in incarnation {present}, not {}",
            wanted.worker, wanted.incarnation
        ))),
    })
}

fn take(
    conn: &Connection,
    wanted: &Wanted<'_>,
    request: RequestId,
    epoch: Epoch,
) -> Result<RequestRow, OpError> {
    let waits = |row: &RequestRow| {
        row.builder == wanted.builder && row.state == RequestState::Queued && row.epoch == epoch
    };
    let Some(mut row) = rows::request_with(conn, request)?.filter(waits) else {
        return Err(OpError::fenced(format!(
            "build request {request} does not wait in epoch {epoch}"
        )));
    };
    row.state = RequestState::Claimed;
    row.epoch = Epoch(epoch.0 + 1);
    row.claimed_at = Some(wanted.at);
    conn.prepare_cached(
        "UPDATE requests SET state = 1, epoch = ?2, claimed_at = ?3 WHERE id = ?1",
    )?
    .execute([int(request.0), int(row.epoch.0), wanted.at.0])?;
    Ok(row)
}

fn buildset(conn: &Connection, request: &RequestRow) -> Result<Arc<BuildsetRow>, OpError> {
    rows::buildset(conn, int(request.buildset.0))?
        .map(Arc::new)
        .ok_or_else(|| OpError::missing(format!("buildset {}", request.buildset)))
}

/// What an earlier claim with this id made (row FB16).
fn made_before(
    conn: &Connection,
    builder: BuilderId,
    claim: &str,
) -> Result<Option<OpOutcome>, OpError> {
    let build = conn
        .prepare_cached(concat!(
            "SELECT ",
            build_columns!(),
            " FROM builds WHERE builder_id = ?1 AND claim = ?2 AND state < 2"
        ))?
        .query_row(params![int(builder.0), claim], rows::build)
        .optional()?;
    let Some(build) = build else { return Ok(None) };
    let requests: Vec<_> = rows::requests_of(conn, build.id)?.into_iter().map(Arc::new).collect();
    let Some(oldest) = requests.iter().find(|row| row.id == build.request) else {
        return Err(OpError::wrong(format!("build {} has not its first build request", build.id)));
    };
    let set = buildset(conn, oldest)?;
    Ok(Some(OpOutcome::Claimed { build: Arc::new(build), requests, buildset: set }))
}

/// A build that is claimed and has not started.
fn not_started(conn: &Connection, build: BuildId) -> Result<(), OpError> {
    let state: Option<i64> = conn
        .prepare_cached("SELECT state FROM builds WHERE id = ?1")?
        .query_row([int(build.0)], |row| row.get(0))
        .optional()?;
    match state {
        None => Err(OpError::missing(format!("build {build}"))),
        Some(0) => Ok(()),
        Some(_) => Err(OpError::fenced(format!("build {build} has started already"))),
    }
}

pub(super) fn cancel_claimed(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    cancelled: &[RequestId],
    head: RequestId,
    at: WallTime,
) -> Done {
    not_started(conn, build)?;
    let held = held_requests(conn, build)?;
    let mut stay = held.iter().map(|(request, _)| *request).filter(|id| !cancelled.contains(id));
    // The one that was to be the first may have left since this was asked.
    let Some(head) = stay.clone().find(|id| *id == head).or_else(|| stay.next()) else {
        return Err(OpError::fenced(format!("build {build} would be left without a request")));
    };
    let mut ended = Vec::new();
    for (request, epoch) in held.into_iter().filter(|(request, _)| cancelled.contains(request)) {
        let (state, result) = (RequestState::Cancelled, BuildResult::Cancelled);
        if let Some(row) = end_request(conn, request, epoch, state, result, at)? {
            ended.push(request);
            requests::complete(conn, changes, row, at)?;
        }
        conn.prepare_cached("DELETE FROM build_requests WHERE build_id = ?1 AND request_id = ?2")?
            .execute([int(build.0), int(request.0)])?;
    }
    conn.prepare_cached(
        "UPDATE builds SET request_id = ?2, properties = (SELECT properties FROM buildsets          WHERE id = (SELECT buildset_id FROM requests WHERE id = ?2)) WHERE id = ?1",
    )?
    .execute([int(build.0), int(head.0)])?;
    Ok(OpOutcome::Cancelled(ended))
}

pub(super) fn unclaim(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    cancelled: &[RequestId],
    refused: bool,
    at: WallTime,
) -> Done {
    not_started(conn, build)?;
    let held = held_requests(conn, build)?;
    let stopped = super::running::stop_reason(conn, build)?.is_some();
    let mut back = Vec::new();
    for (request, epoch) in held {
        if stopped || cancelled.contains(&request) {
            if let Some(row) = end_request(
                conn,
                request,
                epoch,
                RequestState::Cancelled,
                BuildResult::Cancelled,
                at,
            )? {
                requests::complete(conn, changes, row, at)?;
            }
        } else if let Some(row) = requeue(conn, request, epoch, refused)? {
            let row = Arc::new(row);
            changes.push(Change::RequestUnclaimed(row.clone()));
            back.push(rows::with_set(conn, row)?);
        }
    }
    conn.prepare_cached("DELETE FROM build_requests WHERE build_id = ?1")?
        .execute([int(build.0)])?;
    conn.prepare_cached("DELETE FROM builds WHERE id = ?1")?.execute([int(build.0)])?;
    Ok(OpOutcome::Requeued { requests: back })
}

/// The requests of a build with the epochs in which it has them, oldest first.
pub(super) fn held_requests(
    conn: &Connection,
    build: BuildId,
) -> Result<Vec<(RequestId, Epoch)>, OpError> {
    Ok(conn
        .prepare_cached(
            "SELECT request_id, epoch FROM build_requests WHERE build_id = ?1 ORDER BY request_id",
        )?
        .query_map([int(build.0)], |row| {
            Ok((RequestId(rows::uint(row, 0)?), Epoch(rows::uint(row, 1)?)))
        })?
        .collect::<rusqlite::Result<_>>()?)
}

/// Puts a request back at the head of its queue, unless it ended or has
/// another owner.
pub(super) fn requeue(
    conn: &Connection,
    request: RequestId,
    epoch: Epoch,
    infra: bool,
) -> Result<Option<RequestRow>, OpError> {
    let Some(mut row) = held(conn, request, epoch)? else { return Ok(None) };
    row.state = RequestState::Queued;
    row.claimed_at = None;
    row.requeued = true;
    row.infra_tries += u32::from(infra);
    conn.prepare_cached(
        "UPDATE requests SET state = 0, claimed_at = NULL, requeued = 1, infra_tries = ?2 \
         WHERE id = ?1",
    )?
    .execute(params![int(request.0), row.infra_tries])?;
    Ok(Some(row))
}

/// The request, if a build has it in this epoch.
fn held(
    conn: &Connection,
    request: RequestId,
    epoch: Epoch,
) -> Result<Option<RequestRow>, OpError> {
    let row = rows::request_with(conn, request)?;
    Ok(row.filter(|row| row.state == RequestState::Claimed && row.epoch == epoch))
}

/// Ends a request, unless it ended or has another owner.
pub(super) fn end_request(
    conn: &Connection,
    request: RequestId,
    epoch: Epoch,
    state: RequestState,
    result: BuildResult,
    at: WallTime,
) -> Result<Option<RequestRow>, OpError> {
    let Some(mut row) = held(conn, request, epoch)? else { return Ok(None) };
    row.state = state;
    row.results = Some(result);
    row.complete_at = Some(at);
    conn.prepare_cached(
        "UPDATE requests SET state = ?2, results = ?3, complete_at = ?4 WHERE id = ?1",
    )?
    .execute([int(request.0), state as i64, result.code(), at.0])?;
    Ok(Some(row))
}
