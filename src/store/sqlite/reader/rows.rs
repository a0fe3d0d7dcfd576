//! One row of SQLite to one record.

use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;

use super::super::super::{
    BuildRow, BuildState, BuilderRow, BuildsetRow, RequestRow, RequestState, SourceStampRow,
    WorkerRow,
};
use super::super::rows::{builder_about, parent, patch, stamp_columns, step_columns};
pub(super) use super::super::rows::{log, note, step};
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::{BuildResult, Properties, SourceStamp};

pub(super) const SELECT_BUILDERS: &str = "SELECT id, name, description, tags, configured, project_id, \
     description_format, description_html FROM builders";
pub(super) const SELECT_WORKERS: &str = "SELECT id, name, configured, connected, incarnation, \
     info, paused, pause_reason, graceful FROM workers";
pub(super) const SELECT_BUILDS: &str = "SELECT id, number, builder_id, request_id, worker_id, \
     incarnation, state, started_at, complete_at, results, state_string, properties FROM builds";
pub(super) const SELECT_BARE_BUILDS: &str = "SELECT id, number, builder_id, request_id, worker_id, \
     incarnation, state, started_at, complete_at, results, state_string FROM builds";
pub(super) const SELECT_REQUESTS: &str = "SELECT id, buildset_id, builder_id, priority, \
     submitted_at, state, epoch, claimed_at, complete_at, results, requeued, infra_tries, \
     waited_for FROM requests";
pub(super) const SELECT_BUILDSETS: &str = "SELECT id, external_id, reason, scheduler, \
     submitted_at, complete_at, results, rebuilt_build, properties, sourcestamps, parent_build, \
     parent_relationship FROM buildsets";
pub(super) const SELECT_STAMPS: &str = concat!("SELECT ", stamp_columns!(), " FROM sourcestamps");
pub(super) const SELECT_STEPS: &str = concat!("SELECT ", step_columns!(), " FROM steps");
pub(super) const SELECT_LOGS: &str =
    "SELECT id, step_id, name, slug, kind, complete, num_lines, length, incomplete FROM logs";
pub(super) const SELECT_NOTES: &str =
    "SELECT id, builder_id, worker_id, text, error, at, ended_at FROM notes";
pub(super) const SELECT_LOG_WITH_TEXT: &str = "SELECT id, step_id, name, slug, kind, complete, \
     num_lines, length, incomplete, inline FROM logs WHERE id = ?1";

/// A number that is never negative.
pub(super) fn uint(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(at)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, number))
}

fn small(row: &Row<'_>, at: usize) -> rusqlite::Result<u32> {
    let number: i64 = row.get(at)?;
    u32::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, number))
}

fn wall(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<WallTime>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(WallTime))
}

fn result(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<BuildResult>> {
    Ok(row.get::<_, Option<i64>>(at)?.and_then(BuildResult::from_code))
}

fn json<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(at)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error)))
}

pub(super) fn properties(row: &Row<'_>, at: usize) -> rusqlite::Result<Arc<Properties>> {
    json(row, at).map(Arc::new)
}

pub(super) fn builder(row: &Row<'_>, workers: Vec<WorkerId>) -> rusqlite::Result<BuilderRow> {
    Ok(BuilderRow {
        id: BuilderId(uint(row, 0)?),
        name: row.get::<_, String>(1)?.into(),
        description: row.get(2)?,
        tags: json(row, 3)?,
        configured: row.get(4)?,
        workers,
        about: builder_about(row, 5)?,
    })
}

pub(super) fn worker(row: &Row<'_>) -> rusqlite::Result<WorkerRow> {
    Ok(WorkerRow {
        id: WorkerId(uint(row, 0)?),
        name: row.get::<_, String>(1)?.into(),
        configured: row.get(2)?,
        connected: row.get(3)?,
        incarnation: Incarnation(uint(row, 4)?),
        info: json(row, 5)?,
        paused: row.get(6)?,
        pause_reason: row.get(7)?,
        graceful: row.get(8)?,
    })
}

pub(super) fn build(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    let properties = properties(row, 11)?;
    Ok(BuildRow { properties, ..bare_build(row)? })
}

/// A build without its properties.
pub(super) fn bare_build(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    let state: i64 = row.get(6)?;
    Ok(BuildRow {
        id: BuildId(uint(row, 0)?),
        number: match row.get::<_, Option<i64>>(1)? {
            Some(_) => Some(BuildNumber(uint(row, 1)?)),
            None => None,
        },
        builder: BuilderId(uint(row, 2)?),
        request: RequestId(uint(row, 3)?),
        worker: WorkerId(uint(row, 4)?),
        incarnation: Incarnation(uint(row, 5)?),
        state: match state {
            0 => BuildState::Claimed,
            1 => BuildState::Running,
            2 => BuildState::Finished,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(6, other)),
        },
        started_at: WallTime(row.get(7)?),
        complete_at: wall(row, 8)?,
        results: result(row, 9)?,
        state_string: row.get(10)?,
        properties: Arc::default(),
    })
}

pub(super) fn request(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let state: i64 = row.get(5)?;
    Ok(RequestRow {
        id: RequestId(uint(row, 0)?),
        buildset: BuildsetId(uint(row, 1)?),
        builder: BuilderId(uint(row, 2)?),
        priority: row.get(3)?,
        submitted_at: WallTime(row.get(4)?),
        state: match state {
            0 => RequestState::Queued,
            1 => RequestState::Claimed,
            2 => RequestState::Done,
            3 => RequestState::Cancelled,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(5, other)),
        },
        epoch: Epoch(uint(row, 6)?),
        claimed_at: wall(row, 7)?,
        complete_at: wall(row, 8)?,
        results: result(row, 9)?,
        requeued: row.get(10)?,
        infra_tries: small(row, 11)?,
        waited_for: row.get(12)?,
    })
}

/// A buildset without its source stamps, and their ids.
pub(super) fn buildset(row: &Row<'_>) -> rusqlite::Result<(BuildsetRow, Vec<u64>)> {
    let set = BuildsetRow {
        id: BuildsetId(uint(row, 0)?),
        external_id: row.get(1)?,
        reason: row.get(2)?,
        scheduler: row.get(3)?,
        submitted_at: WallTime(row.get(4)?),
        complete_at: wall(row, 5)?,
        results: result(row, 6)?,
        rebuilt_build: match row.get::<_, Option<i64>>(7)? {
            Some(_) => Some(BuildId(uint(row, 7)?)),
            None => None,
        },
        sourcestamps: Vec::new(),
        properties: properties(row, 8)?,
        parent: parent(row, 10)?,
    };
    Ok((set, json(row, 9)?))
}

/// Adds the source stamps.
pub(super) fn with_stamps(
    db: &Connection,
    mut set: BuildsetRow,
    stamps: &[u64],
) -> rusqlite::Result<BuildsetRow> {
    let mut statement = db.prepare_cached(&format!("{SELECT_STAMPS} WHERE id = ?1"))?;
    for id in stamps {
        let found = statement.query_row([super::sql_id(*id)], stamp).optional()?;
        set.sourcestamps.extend(found);
    }
    Ok(set)
}

pub(super) fn stamp(row: &Row<'_>) -> rusqlite::Result<SourceStampRow> {
    Ok(SourceStampRow {
        id: uint(row, 0)?,
        stamp: SourceStamp {
            codebase: row.get(1)?,
            repository: row.get(2)?,
            branch: row.get(3)?,
            revision: row.get(4)?,
            project: row.get(5)?,
        },
        created_at: WallTime(row.get(6)?),
        patch: patch(row, 7)?,
    })
}
