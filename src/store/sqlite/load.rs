//! Reads everything that a Builder is rebuilt from.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::errors::OpError;
use super::rows::{self, build_columns, int, request_columns, step_columns};
use crate::core::ids::*;
use crate::core::lease::{BootTime, Grant};
use crate::core::values::Factory;
use crate::store::*;

/// Reads one builder's records, as of the transaction in progress.
pub(super) fn builder(conn: &Connection, builder: BuilderId) -> Result<BuilderRecords, OpError> {
    let id = int(builder.0);
    let expectations: Option<String> = conn
        .prepare_cached("SELECT expectations FROM builders WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| OpError::missing(format!("builder {builder}")))?;
    let queued = queued(conn, id)?;
    let loaded_through = conn
        .prepare_cached("SELECT coalesce(max(id), 0) FROM requests")?
        .query_row([], |row| rows::uint(row, 0).map(RequestId))?;
    let heads = conn
        .prepare_cached(concat!(
            "SELECT ",
            build_columns!(),
            ", claim, factory_digest, stop_reason, \
             (SELECT name FROM workers WHERE id = worker_id), grace FROM builds INDEXED BY builds_open WHERE builder_id = ?1 AND state < 2 ORDER BY id"
        ))?
        .query_map([id], |row| {
            Ok(Head {
                row: rows::build(row)?,
                claim: row.get(12)?,
                digest: row.get(13)?,
                stop: row.get(14)?,
                worker: row.get(15)?,
                grace: rows::span(row, 16)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut builds = Vec::with_capacity(heads.len());
    for head in heads {
        builds.push(open_build(conn, head)?);
    }
    Ok(BuilderRecords { builder, queued, builds, loaded_through, expectations })
}

/// The requests that wait, with their sets: one statement for all of them, for
/// there may be a hundred thousand, and the master serves nobody before.
fn queued(conn: &Connection, builder: i64) -> Result<Vec<RequestWithSet>, OpError> {
    let mut sets = rows::Sets::default();
    let mut query = conn.prepare_cached(concat!(
        "SELECT waiting.*, buildsets.sourcestamps, buildsets.properties FROM (SELECT ",
        request_columns!(),
        " FROM requests INDEXED BY requests_queued WHERE builder_id = ?1 AND state = 0) waiting \
         LEFT JOIN buildsets ON buildsets.id = waiting.buildset_id ORDER BY waiting.id"
    ))?;
    let mut found = query.query([builder])?;
    let mut queued = Vec::new();
    while let Some(row) = found.next()? {
        let request = rows::request(row)?;
        let set = sets.part(row, 13)?;
        let losses = rows::losses_if_any(conn, &request)?;
        queued.push(RequestWithSet { row: Arc::new(request), set, losses });
    }
    Ok(queued)
}

/// What the row of an open build tells.
struct Head {
    row: BuildRow,
    claim: String,
    digest: String,
    stop: Option<String>,
    worker: Option<String>,
    grace: Duration,
}

fn open_build(conn: &Connection, head: Head) -> Result<OpenBuild, OpError> {
    let Head { row, claim, digest, stop, worker, grace } = head;
    let id = row.id;
    let claim = u128::from_str_radix(&claim, 16)
        .map_err(|_| OpError::wrong(format!("build {id} has the claim `{claim}`, no number")))?;
    let worker = worker.ok_or_else(|| OpError::missing(format!("worker {}", row.worker)))?;
    let mut steps = Vec::new();
    for step in steps_of(conn, id)? {
        let logs = rows::logs_of(conn, step.id)?;
        steps.push((step, logs));
    }
    let mut requests = rows::requests_of(conn, id)?
        .into_iter()
        .map(|row| rows::with_set(conn, Arc::new(row)))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    requests.sort_by_key(|with| with.row.id != row.request);
    Ok(OpenBuild {
        claim: ClaimId(claim),
        worker: worker.into(),
        requests,
        stop,
        factory: factory(conn, id, &digest)?,
        steps,
        grace,
        grant: grant(conn, &row)?,
        row,
    })
}

/// Of a build that its worker has not brought back since.
fn grant(conn: &Connection, build: &BuildRow) -> rusqlite::Result<Option<Grant>> {
    let read = |row: &rusqlite::Row<'_>| {
        let Some(boot) = row.get(1)? else { return Ok(None) };
        let given = BootTime { boot, at: rows::span(row, 2)? };
        Ok(Some(Grant { lease: rows::span(row, 0)?, given }))
    };
    let found = conn
        .prepare_cached(
            "SELECT grant_lease, grant_boot, grant_at FROM workers \
             WHERE id = ?1 AND grant_incarnation >= ?2",
        )?
        .query_row([int(build.worker.0), int(build.incarnation.0)], read)
        .optional()?;
    Ok(found.flatten())
}

fn factory(conn: &Connection, build: BuildId, digest: &str) -> Result<Arc<Factory>, OpError> {
    let text: String = conn
        .prepare_cached("SELECT steps FROM factories WHERE digest = ?1")?
        .query_row([digest], |row| row.get(0))
        .optional()?
        .ok_or_else(|| OpError::missing(format!("factory `{digest}` of build {build}")))?;
    serde_json::from_str(&text).map(Arc::new).map_err(|error| {
        OpError::wrong(format!("the factory `{digest}` of build {build} cannot be read: {error}"))
    })
}

fn steps_of(conn: &Connection, build: BuildId) -> rusqlite::Result<Vec<StepRow>> {
    conn.prepare_cached(concat!(
        "SELECT ",
        step_columns!(),
        " FROM steps WHERE build_id = ?1 ORDER BY number"
    ))?
    .query_map([int(build.0)], rows::step)?
    .collect()
}
