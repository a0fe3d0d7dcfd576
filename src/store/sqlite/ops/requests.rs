//! Submissions and the requests that wait.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::Done;
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::{BuildResult, SourceStamp};
use crate::store::sqlite::errors::OpError;
use crate::store::sqlite::prepare::next_request;
use crate::store::sqlite::rows::{self, int, request_columns, to_json};
use crate::store::*;

pub(super) fn add_buildset(
    conn: &Connection,
    changes: &mut Vec<Change>,
    new: &NewBuildset,
) -> Done {
    if let Some(key) = &new.idempotency_key
        && let Some(known) = known_key(conn, key)?
    {
        return Ok(known);
    }
    if new.builders.is_empty() {
        return Err(OpError::wrong("a submission needs at least one builder"));
    }
    let mut stamps = Vec::with_capacity(new.sourcestamps.len());
    for stamp in &new.sourcestamps {
        stamps.push(save_stamp(conn, stamp, new.submitted_at)?);
    }
    let stamp_ids: Vec<u64> = stamps.iter().map(|stamp| stamp.id).collect();
    let id = conn
        .prepare_cached(
            "INSERT INTO buildsets (external_id, idempotency_key, reason, scheduler, \
             submitted_at, rebuilt_build, sourcestamps, properties, open_requests) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .insert(params![
            new.external_id,
            new.idempotency_key,
            new.reason,
            new.scheduler,
            new.submitted_at.0,
            new.rebuilt_build.map(|build| int(build.0)),
            to_json(&stamp_ids)?,
            to_json(new.properties.as_ref())?,
            i64::try_from(new.builders.len()).unwrap_or(i64::MAX),
        ])
        .map(rows::id)?;
    let set = Arc::new(BuildsetRow {
        id: BuildsetId(id),
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
        let request = Arc::new(add_request(conn, new, id, *builder)?);
        changes.push(Change::RequestNew(request.clone()));
        requests.push(request);
    }
    Ok(OpOutcome::Buildset { buildset: set, requests, existing: false })
}

/// One statement that also looks whether there is such a builder.
fn add_request(
    conn: &Connection,
    new: &NewBuildset,
    set: u64,
    builder: BuilderId,
) -> Result<RequestRow, OpError> {
    let first = next_request(conn)?;
    let added = conn
        .prepare_cached(
            "INSERT INTO requests (id, buildset_id, builder_id, priority, submitted_at, state, \
             waited_for) SELECT ?6, ?1, id, ?3, ?4, 0, ?5 FROM builders WHERE id = ?2",
        )?
        .execute(params![
            int(set),
            int(builder.0),
            new.priority,
            new.submitted_at.0,
            new.waited_for,
            first,
        ])?;
    if added == 0 {
        return Err(OpError::missing(format!("builder {builder}")));
    }
    Ok(RequestRow {
        id: RequestId(rows::id(conn.last_insert_rowid())),
        buildset: BuildsetId(set),
        builder,
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
    })
}

fn known_key(conn: &Connection, key: &str) -> Result<Option<OpOutcome>, OpError> {
    let id: Option<i64> = conn
        .prepare_cached("SELECT id FROM buildsets WHERE idempotency_key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    let Some(id) = id else { return Ok(None) };
    let Some(set) = rows::buildset(conn, id)? else { return Ok(None) };
    let requests = conn
        .prepare_cached(concat!(
            "SELECT ",
            request_columns!(),
            " FROM requests WHERE buildset_id = ?1 ORDER BY id"
        ))?
        .query_map([id], |row| rows::request(row).map(Arc::new))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(OpOutcome::Buildset { buildset: Arc::new(set), requests, existing: true }))
}

/// Equal stamps share one row, which keeps the time of the first.
fn save_stamp(
    conn: &Connection,
    stamp: &SourceStamp,
    at: WallTime,
) -> Result<SourceStampRow, OpError> {
    let digest = Sha256::digest(to_json(stamp)?.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let known: Option<(u64, i64)> = conn
        .prepare_cached("SELECT id, created_at FROM sourcestamps WHERE digest = ?1")?
        .query_row([&digest], |row| Ok((rows::uint(row, 0)?, row.get(1)?)))
        .optional()?;
    let (id, created) = match known {
        Some(known) => known,
        None => conn
            .prepare_cached(
                "INSERT INTO sourcestamps (digest, codebase, repository, branch, revision, \
                 project, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
                 RETURNING id, created_at",
            )?
            .query_row(
                params![
                    digest,
                    stamp.codebase,
                    stamp.repository,
                    stamp.branch,
                    stamp.revision,
                    stamp.project,
                    at.0
                ],
                |row| Ok((rows::uint(row, 0)?, row.get(1)?)),
            )?,
    };
    Ok(SourceStampRow { id, stamp: stamp.clone(), created_at: WallTime(created), patch: None })
}

pub(super) fn cancel(
    conn: &Connection,
    changes: &mut Vec<Change>,
    requests: &[RequestId],
    at: WallTime,
) -> Done {
    let mut ended = Vec::new();
    for request in requests {
        let row = conn
            .prepare_cached(concat!(
                "UPDATE requests SET state = 3, results = ?2, complete_at = ?3 \
                 WHERE id = ?1 AND state = 0 RETURNING ",
                request_columns!()
            ))?
            .query_row([int(request.0), BuildResult::Cancelled.code(), at.0], rows::request)
            .optional()?;
        if let Some(row) = row {
            ended.push(row.id);
            complete(conn, changes, row, at)?;
        }
    }
    Ok(OpOutcome::Cancelled(ended))
}

/// Makes known that a request ended, and its buildset when it was the last.
pub(super) fn complete(
    conn: &Connection,
    changes: &mut Vec<Change>,
    request: RequestRow,
    at: WallTime,
) -> Result<(), OpError> {
    let id = int(request.buildset.0);
    let ended = request.id;
    let result = request.results;
    changes.push(Change::RequestComplete(Arc::new(request)));
    let open: i64 = conn
        .prepare_cached("SELECT open_requests FROM buildsets WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
    if open > 1 {
        conn.prepare_cached("UPDATE buildsets SET open_requests = ?2 WHERE id = ?1")?
            .execute([id, open - 1])?;
        return Ok(());
    }
    let others = conn
        .prepare_cached("SELECT results FROM requests WHERE buildset_id = ?1 AND id <> ?2")?
        .query_map([id, int(ended.0)], |row| rows::result(row, 0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let worst = others.into_iter().chain([result]).flatten().reduce(BuildResult::worst);
    conn.prepare_cached(
        "UPDATE buildsets SET open_requests = 0, complete_at = ?2, results = ?3 WHERE id = ?1",
    )?
    .execute(params![id, at.0, worst.map(BuildResult::code)])?;
    if let Some(set) = rows::buildset(conn, id)? {
        changes.push(Change::BuildsetComplete(Arc::new(set)));
    }
    Ok(())
}

pub(super) fn set_priority(
    conn: &Connection,
    changes: &mut Vec<Change>,
    request: RequestId,
    priority: i64,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE requests SET priority = ?2 WHERE id = ?1 AND state = 0 RETURNING ",
            request_columns!()
        ))?
        .query_row([int(request.0), priority], rows::request)
        .optional()?;
    match row {
        Some(row) => changes.push(Change::RequestUpdated(Arc::new(row))),
        None => {
            conn.prepare_cached("SELECT 1 FROM requests WHERE id = ?1")?
                .query_row([int(request.0)], |_| Ok(()))
                .optional()?
                .ok_or_else(|| OpError::missing(format!("build request {request}")))?;
        }
    }
    Ok(OpOutcome::Done)
}
