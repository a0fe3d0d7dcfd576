//! What the store's file holds, read with SQL of our own.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use botmaster::core::ids::{BuildId, BuildNumber, BuilderId, Epoch, LogId, RequestId, WorkerId};
use botmaster::core::values::BuildResult;
use botmaster::store::{BuildState, RequestState};
use botmaster_sim::history::{Build, Request};
use rusqlite::{Connection, OpenFlags, Row};

use crate::Fault;

/// One log as the store describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldLog {
    /// Its id.
    pub id: LogId,
    /// Its build.
    pub build: BuildId,
    /// Its step's number.
    pub step: u64,
    /// No more will come.
    pub complete: bool,
    /// Why it is not whole, when it is not.
    pub incomplete: Option<String>,
}

/// All that is looked at.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Held {
    /// Requests.
    pub requests: BTreeMap<RequestId, Request>,
    /// Requests of each submission that had a key.
    pub keys: BTreeMap<String, Vec<RequestId>>,
    /// Builds, those only claimed included.
    pub builds: BTreeMap<BuildId, Build>,
    /// What people read of them.
    pub texts: BTreeMap<BuildId, String>,
    /// Workers' names.
    pub workers: BTreeMap<WorkerId, String>,
    /// Logs.
    pub logs: Vec<HeldLog>,
    /// Instances of latent workers that are not gone.
    pub instances: u64,
    /// Steps without an end.
    pub open_steps: u64,
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn out_of_range(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        column,
        rusqlite::types::Type::Integer,
        format!("{what} that this tool does not know").into(),
    )
}

fn result(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<BuildResult>> {
    let code: Option<i64> = row.get(column)?;
    let known = |code| BuildResult::from_code(code).ok_or_else(|| out_of_range(column, "a result"));
    code.map(known).transpose()
}

fn request(row: &Row<'_>) -> rusqlite::Result<Request> {
    let state = match row.get(3)? {
        0 => RequestState::Queued,
        1 => RequestState::Claimed,
        2 => RequestState::Done,
        3 => RequestState::Cancelled,
        _ => return Err(out_of_range(3, "a state of requests")),
    };
    Ok(Request {
        id: RequestId(number(row, 0)?),
        builder: BuilderId(number(row, 1)?),
        priority: row.get(2)?,
        state,
        epoch: Epoch(number(row, 4)?),
        claimed_at: row.get(5)?,
        result: result(row, 6)?,
        requeued: row.get(7)?,
        pinned: false,
    })
}

fn build(row: &Row<'_>) -> rusqlite::Result<Build> {
    let state = match row.get(4)? {
        0 => BuildState::Claimed,
        1 => BuildState::Running,
        2 => BuildState::Finished,
        _ => return Err(out_of_range(4, "a state of builds")),
    };
    let number_of: Option<i64> = row.get(1)?;
    Ok(Build {
        id: BuildId(number(row, 0)?),
        number: number_of.map(|number| BuildNumber(number.cast_unsigned())),
        builder: BuilderId(number(row, 2)?),
        worker: WorkerId(number(row, 3)?),
        state,
        result: result(row, 5)?,
        requests: Vec::new(),
        has_steps: true,
    })
}

/// Reads the store in a data folder. A master may have it.
///
/// # Errors
/// When it cannot be read, is damaged, or holds what this tool does not know.
pub fn read(data: &Path) -> Result<Held, Fault> {
    let path = data.join("state.sqlite");
    let told = |error: rusqlite::Error| format!("{}: {error}", path.display());
    let conn =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(told)?;
    read_all(&conn).map_err(told)
}

/// Whether a file of the data folder is whole, by SQLite's own check.
///
/// # Errors
/// What SQLite says of it.
pub fn is_whole(data: &Path, name: &str) -> Result<(), Fault> {
    let path = data.join(name);
    let told = |error: rusqlite::Error| format!("{}: {error}", path.display());
    let conn =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(told)?;
    let says: String =
        conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(told)?;
    if says == "ok" { Ok(()) } else { Err(format!("{}: {says}", path.display())) }
}

fn read_all(conn: &Connection) -> rusqlite::Result<Held> {
    conn.busy_timeout(Duration::from_secs(10))?;
    // One snapshot for all of it.
    conn.execute_batch("BEGIN")?;
    let mut held = Held::default();
    let mut query = conn.prepare(
        "SELECT id, builder_id, priority, state, epoch, claimed_at, results, requeued FROM requests",
    )?;
    for row in query.query_map([], request)? {
        let row = row?;
        held.requests.insert(row.id, row);
    }
    let mut query = conn.prepare(
        "SELECT s.idempotency_key, r.id FROM buildsets s JOIN requests r ON r.buildset_id = s.id \
         WHERE s.idempotency_key IS NOT NULL ORDER BY r.id",
    )?;
    for row in query.query_map([], |row| Ok((row.get(0)?, RequestId(number(row, 1)?))))? {
        let (key, request) = row?;
        held.keys.entry(key).or_default().push(request);
    }
    let mut query = conn.prepare(
        "SELECT id, number, builder_id, worker_id, state, results, state_string FROM builds",
    )?;
    for row in query.query_map([], |row| Ok((build(row)?, row.get(6)?)))? {
        let (row, text) = row?;
        held.texts.insert(row.id, text);
        held.builds.insert(row.id, row);
    }
    let mut query = conn.prepare("SELECT build_id, request_id, epoch FROM build_requests")?;
    let pairs = query.query_map([], |row| {
        Ok((BuildId(number(row, 0)?), RequestId(number(row, 1)?), Epoch(number(row, 2)?)))
    })?;
    for pair in pairs {
        let (build, request, epoch) = pair?;
        if let Some(build) = held.builds.get_mut(&build) {
            build.requests.push((request, epoch));
        }
    }
    let mut query = conn.prepare("SELECT id, name FROM workers")?;
    for row in query.query_map([], |row| Ok((WorkerId(number(row, 0)?), row.get(1)?)))? {
        held.workers.extend([row?]);
    }
    let mut query = conn.prepare(
        "SELECT l.id, s.build_id, s.number, l.complete, l.incomplete \
         FROM logs l JOIN steps s ON s.id = l.step_id ORDER BY l.id",
    )?;
    let logs = query.query_map([], |row| {
        Ok(HeldLog {
            id: LogId(number(row, 0)?),
            build: BuildId(number(row, 1)?),
            step: number(row, 2)?,
            complete: row.get(3)?,
            incomplete: row.get(4)?,
        })
    })?;
    held.logs = logs.collect::<rusqlite::Result<_>>()?;
    let count = |sql: &str| conn.query_row(sql, [], |row| number(row, 0));
    held.instances = count("SELECT count(*) FROM instances")?;
    held.open_steps = count("SELECT count(*) FROM steps WHERE results IS NULL")?;
    conn.execute_batch("COMMIT")?;
    Ok(held)
}
