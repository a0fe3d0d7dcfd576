//! Rows to records: column lists and the functions that read them.
//!
//! What a statement has changed is not read back with `RETURNING`, except where
//! that is rare: SQLite makes a temporary table for it each time, which costs
//! more than reading the row before and changing the record alike.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::errors::OpError;
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::{BuildResult, Loss, Properties, SourceStamp};
use crate::store::*;

/// Columns of [`request`].
macro_rules! request_columns {
    () => {
        "id, buildset_id, builder_id, priority, submitted_at, state, epoch, claimed_at, \
         complete_at, results, requeued, infra_tries, waited_for"
    };
}
/// Columns of [`build`].
macro_rules! build_columns {
    () => {
        "id, number, builder_id, request_id, worker_id, incarnation, state, started_at, \
         complete_at, results, state_string, properties"
    };
}
/// Columns of [`step`].
macro_rules! step_columns {
    () => {
        "id, build_id, number, name, started_at, complete_at, results, state_string, \
         locks_acquired_at, urls, hidden"
    };
}
/// Columns of [`log`].
macro_rules! log_columns {
    () => {
        "id, step_id, name, slug, kind, complete, num_lines, length, incomplete"
    };
}
/// Columns of [`worker`].
macro_rules! worker_columns {
    () => {
        "id, name, configured, connected, incarnation, info, paused, pause_reason, graceful"
    };
}
/// Columns of [`note`].
macro_rules! note_columns {
    () => {
        "id, builder_id, worker_id, text, error, at, ended_at"
    };
}
/// Columns of [`sourcestamp`].
macro_rules! stamp_columns {
    () => {
        "id, codebase, repository, branch, revision, project, created_at, \
         (SELECT json_object('patchid', id, 'level', level, 'subdir', subdir, 'author', author, \
         'comment', comment, 'body', body) FROM patches WHERE id = patch_id)"
    };
}
pub(super) use {
    build_columns, log_columns, note_columns, request_columns, stamp_columns, step_columns,
    worker_columns,
};

/// A number of ours as SQLite stores it.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A length of time as a number of the database: microseconds.
pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// Reads a length of time.
pub(super) fn span(row: &Row<'_>, column: usize) -> rusqlite::Result<Duration> {
    uint(row, column).map(Duration::from_micros)
}

/// The id of a row that was just inserted.
pub(super) fn id(number: i64) -> u64 {
    number.unsigned_abs()
}

/// A number of SQLite's as ours.
pub(super) fn uint(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn wall(row: &Row<'_>, column: usize) -> rusqlite::Result<WallTime> {
    row.get(column).map(WallTime)
}

fn wall_if_any(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<WallTime>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(WallTime))
}

fn out_of_range<T>(column: usize, code: i64, known: Option<T>) -> rusqlite::Result<T> {
    known.ok_or(rusqlite::Error::IntegralValueOutOfRange(column, code))
}

/// A result, or none while there is none.
pub(super) fn result(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<BuildResult>> {
    row.get::<_, Option<i64>>(column)?
        .map(|code| out_of_range(column, code, BuildResult::from_code(code)))
        .transpose()
}

/// A column that holds JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// A value as JSON text.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, OpError> {
    serde_json::to_string(value)
        .map_err(|error| OpError::wrong(format!("a value cannot be written as JSON: {error}")))
}

/// Reads a note.
pub(super) fn note(row: &Row<'_>) -> rusqlite::Result<NoteRow> {
    let worker: Option<i64> = row.get(2)?;
    Ok(NoteRow {
        id: uint(row, 0)?,
        builder: BuilderId(uint(row, 1)?),
        worker: worker.map(|worker| WorkerId(id(worker))),
        text: row.get(3)?,
        error: row.get(4)?,
        at: wall(row, 5)?,
        ended_at: wall_if_any(row, 6)?,
    })
}

/// Reads a request.
pub(super) fn request(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let code: i64 = row.get(5)?;
    let state = match code {
        0 => Some(RequestState::Queued),
        1 => Some(RequestState::Claimed),
        2 => Some(RequestState::Done),
        3 => Some(RequestState::Cancelled),
        _ => None,
    };
    Ok(RequestRow {
        id: RequestId(uint(row, 0)?),
        buildset: BuildsetId(uint(row, 1)?),
        builder: BuilderId(uint(row, 2)?),
        priority: row.get(3)?,
        submitted_at: wall(row, 4)?,
        state: out_of_range(5, code, state)?,
        epoch: Epoch(uint(row, 6)?),
        claimed_at: wall_if_any(row, 7)?,
        complete_at: wall_if_any(row, 8)?,
        results: result(row, 9)?,
        requeued: row.get(10)?,
        infra_tries: row.get(11)?,
        waited_for: row.get(12)?,
    })
}

/// Reads a build.
pub(super) fn build(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    let code: i64 = row.get(6)?;
    let state = match code {
        0 => Some(BuildState::Claimed),
        1 => Some(BuildState::Running),
        2 => Some(BuildState::Finished),
        _ => None,
    };
    let number: Option<i64> = row.get(1)?;
    Ok(BuildRow {
        id: BuildId(uint(row, 0)?),
        number: number.map(|_| uint(row, 1)).transpose()?.map(BuildNumber),
        builder: BuilderId(uint(row, 2)?),
        request: RequestId(uint(row, 3)?),
        worker: WorkerId(uint(row, 4)?),
        incarnation: Incarnation(uint(row, 5)?),
        state: out_of_range(6, code, state)?,
        started_at: wall(row, 7)?,
        complete_at: wall_if_any(row, 8)?,
        results: result(row, 9)?,
        state_string: row.get(10)?,
        properties: Arc::new(json(row, 11)?),
    })
}

/// Reads what a step says of itself, from this column on.
fn step_about(row: &Row<'_>, column: usize) -> rusqlite::Result<StepAbout> {
    let urls = match row.get_ref(column + 1)?.as_str()? {
        // Nearly always.
        "[]" => Vec::new(),
        _ => json(row, column + 1)?,
    };
    Ok(StepAbout {
        locks_acquired_at: wall_if_any(row, column)?,
        urls,
        hidden: row.get(column + 2)?,
    })
}

/// The build that asked for a buildset, from this column on.
pub(super) fn parent(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ParentBuild>> {
    let Some(_) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
    Ok(Some(ParentBuild { build: BuildId(uint(row, column)?), relationship: row.get(column + 1)? }))
}

/// What a builder's row says beside, from this column on.
pub(super) fn builder_about(row: &Row<'_>, column: usize) -> rusqlite::Result<BuilderAbout> {
    let project: Option<i64> = row.get(column)?;
    Ok(BuilderAbout {
        project: project.map(id),
        description_format: row.get(column + 1)?,
        description_html: row.get(column + 2)?,
    })
}

/// The patch of a source stamp, written as JSON in this column.
pub(super) fn patch(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Arc<PatchRow>>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => Ok(Some(Arc::new(json(row, column)?))),
    }
}

/// Reads a step.
pub(super) fn step(row: &Row<'_>) -> rusqlite::Result<StepRow> {
    Ok(StepRow {
        id: StepId(uint(row, 0)?),
        build: BuildId(uint(row, 1)?),
        number: row.get(2)?,
        name: row.get(3)?,
        started_at: wall_if_any(row, 4)?,
        complete_at: wall_if_any(row, 5)?,
        results: result(row, 6)?,
        state_string: row.get(7)?,
        about: step_about(row, 8)?,
    })
}

/// Reads a log.
pub(super) fn log(row: &Row<'_>) -> rusqlite::Result<LogRow> {
    let kind: String = row.get(4)?;
    Ok(LogRow {
        id: LogId(uint(row, 0)?),
        step: StepId(uint(row, 1)?),
        name: row.get(2)?,
        slug: row.get(3)?,
        kind: kind.chars().next().unwrap_or('t'),
        complete: row.get(5)?,
        num_lines: uint(row, 6)?,
        length: uint(row, 7)?,
        incomplete: row.get(8)?,
    })
}

/// Reads a worker.
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

/// Reads one request.
pub(super) fn request_with(
    conn: &Connection,
    id: RequestId,
) -> rusqlite::Result<Option<RequestRow>> {
    conn.prepare_cached(concat!("SELECT ", request_columns!(), " FROM requests WHERE id = ?1"))?
        .query_row([int(id.0)], request)
        .optional()
}

/// Reads one buildset with its source stamps.
pub(super) fn buildset(conn: &Connection, id: i64) -> rusqlite::Result<Option<BuildsetRow>> {
    let mut query = conn.prepare_cached(
        "SELECT id, external_id, reason, scheduler, submitted_at, complete_at, results, \
         rebuilt_build, sourcestamps, properties, parent_build, parent_relationship \
         FROM buildsets WHERE id = ?1",
    )?;
    let read = query
        .query_row([id], |row| {
            let stamps: Vec<i64> = json(row, 8)?;
            let rebuilt: Option<i64> = row.get(7)?;
            Ok((
                stamps,
                BuildsetRow {
                    id: BuildsetId(uint(row, 0)?),
                    external_id: row.get(1)?,
                    reason: row.get(2)?,
                    scheduler: row.get(3)?,
                    submitted_at: wall(row, 4)?,
                    complete_at: wall_if_any(row, 5)?,
                    results: result(row, 6)?,
                    rebuilt_build: rebuilt.map(|_| uint(row, 7)).transpose()?.map(BuildId),
                    sourcestamps: Vec::new(),
                    properties: Arc::new(json(row, 9)?),
                    parent: parent(row, 10)?,
                },
            ))
        })
        .optional()?;
    let Some((stamps, mut set)) = read else { return Ok(None) };
    for stamp in stamps {
        set.sourcestamps.push(sourcestamp(conn, stamp)?);
    }
    Ok(Some(set))
}

/// A request with what its builder needs to know of its set.
pub(super) fn with_set(
    conn: &Connection,
    row: Arc<RequestRow>,
) -> rusqlite::Result<RequestWithSet> {
    let set = conn
        .prepare_cached("SELECT sourcestamps, properties FROM buildsets WHERE id = ?1")?
        .query_row([int(row.buildset.0)], |row| Sets::default().part(row, 0))?;
    let losses = losses_if_any(conn, &row)?;
    Ok(RequestWithSet { row, set, losses })
}

/// How builds of the request were lost; most had none.
pub(super) fn losses_if_any(conn: &Connection, row: &RequestRow) -> rusqlite::Result<Arc<[Loss]>> {
    if row.infra_tries == 0 {
        return Ok(Arc::default());
    }
    losses_of(conn, row.id).map(Arc::from)
}

pub(super) fn losses_of(conn: &Connection, request: RequestId) -> rusqlite::Result<Vec<Loss>> {
    let text: Option<String> = conn
        .prepare_cached("SELECT losses FROM requests WHERE id = ?1")?
        .query_row([int(request.0)], |row| row.get(0))
        .optional()?
        .flatten();
    let Some(text) = text else { return Ok(Vec::new()) };
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

/// Texts that are remembered: a submission's sets come one after the other.
const REMEMBERED: usize = 256;

/// Reads parts of buildsets. Those that say the same share their memory: there
/// may be very many, and most say the same as one shortly before.
#[derive(Default)]
pub(super) struct Sets {
    sources: HashMap<String, Arc<[u64]>>,
    properties: HashMap<String, Arc<Properties>>,
}

impl Sets {
    /// From a row that has the source stamps in this column, and the properties
    /// in the next.
    pub(super) fn part(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<SetPart> {
        Ok(SetPart {
            source: shared(&mut self.sources, row, column)?,
            properties: shared(&mut self.properties, row, column + 1)?,
        })
    }
}

fn shared<T: Clone + DeserializeOwned>(
    known: &mut HashMap<String, T>,
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    if let Some(value) = known.get(text) {
        return Ok(value.clone());
    }
    let value: T = json(row, column)?;
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(text.to_owned(), value.clone());
    Ok(value)
}

/// Reads one source stamp.
pub(super) fn sourcestamp(conn: &Connection, id: i64) -> rusqlite::Result<SourceStampRow> {
    let mut query = conn.prepare_cached(concat!(
        "SELECT ",
        stamp_columns!(),
        " FROM sourcestamps WHERE id = ?1"
    ))?;
    query.query_row([id], |row| {
        Ok(SourceStampRow {
            id: uint(row, 0)?,
            stamp: SourceStamp {
                codebase: row.get(1)?,
                repository: row.get(2)?,
                branch: row.get(3)?,
                revision: row.get(4)?,
                project: row.get(5)?,
            },
            created_at: wall(row, 6)?,
            patch: patch(row, 7)?,
        })
    })
}

/// Reads one builder with its workers.
pub(super) fn builder(conn: &Connection, id: i64) -> rusqlite::Result<Option<BuilderRow>> {
    let mut query = conn.prepare_cached(
        "SELECT id, name, description, tags, configured, project_id, description_format, \
         description_html FROM builders WHERE id = ?1",
    )?;
    let read = query
        .query_row([id], |row| {
            Ok(BuilderRow {
                id: BuilderId(uint(row, 0)?),
                name: row.get::<_, String>(1)?.into(),
                description: row.get(2)?,
                tags: json(row, 3)?,
                configured: row.get(4)?,
                workers: Vec::new(),
                about: builder_about(row, 5)?,
            })
        })
        .optional()?;
    let Some(mut builder) = read else { return Ok(None) };
    let mut workers = conn.prepare_cached(
        "SELECT worker_id FROM builder_workers WHERE builder_id = ?1 ORDER BY place",
    )?;
    builder.workers = workers
        .query_map([id], |row| uint(row, 0).map(WorkerId))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(builder))
}

/// The requests of a build, oldest first.
pub(super) fn requests_of(conn: &Connection, build: BuildId) -> rusqlite::Result<Vec<RequestRow>> {
    conn.prepare_cached(concat!(
        "SELECT ",
        request_columns!(),
        " FROM requests WHERE id IN (SELECT request_id FROM build_requests WHERE build_id = ?1) \
         ORDER BY id"
    ))?
    .query_map([int(build.0)], request)?
    .collect()
}

/// The logs of a step, in the order in which they were made.
pub(super) fn logs_of(conn: &Connection, step: StepId) -> rusqlite::Result<Vec<LogRow>> {
    conn.prepare_cached(concat!(
        "SELECT ",
        log_columns!(),
        " FROM logs WHERE step_id = ?1 ORDER BY id"
    ))?
    .query_map([int(step.0)], log)?
    .collect()
}
