//! A look at everything in a data folder or in a copy of one.

use std::path::Path;

use rusqlite::Connection;

use super::{KeepError, LOGS, Progress, STATE, Tell};
use crate::core::ids::LogId;
use crate::store::logs;
use crate::store::sqlite::{MIGRATIONS, integrity, look, read_only};

/// Most damaged logs that are named.
const NAMED: usize = 100;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Examined {
    /// Finished builds.
    pub builds: u64,
    /// Logs.
    pub logs: u64,
    /// Pieces of log text, each with a checksum of its own.
    pub chunks: u64,
    /// Logs with damage, and what it is; the first hundred.
    pub damaged: Vec<String>,
    /// All of those.
    pub damaged_count: u64,
}

/// Reads everything: both files' tables and indexes, each piece of log text,
/// and whether all the text is there that the state knows of.
///
/// # Errors
/// When a file cannot be read, or a table is damaged: no master may start on
/// it. A damaged log is no error, for all others can be read.
pub fn examine(dir: &Path, tell: Tell<'_>) -> Result<Examined, KeepError> {
    let (state, text) = (dir.join(STATE), dir.join(LOGS));
    look(&state, MIGRATIONS)?;
    look(&text, logs::MIGRATIONS)?;
    let state_conn = checked(&state, STATE, tell)?;
    let text_conn = checked(&text, LOGS, tell)?;
    let mut found = Examined::default();
    let count = |sql: &str| -> rusqlite::Result<u64> {
        state_conn.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    };
    let counted = count("SELECT count(*) FROM builds WHERE state = 2")
        .and_then(|builds| Ok((builds, count("SELECT count(*) FROM logs")?)));
    (found.builds, found.logs) = counted.map_err(|error| KeepError::sql(&state, &error))?;
    let mut note = |log: LogId, what: String| {
        found.damaged_count += 1;
        if found.damaged.len() < NAMED {
            found.damaged.push(format!("log {log}: {what}"));
        }
    };
    let chunks = logs::examine(&text_conn, &mut note);
    let chunks = chunks.map_err(|error| KeepError::sql(&text, &error))?;
    for short in too_short(&state_conn, &text_conn, dir)? {
        note(short.log, format!("{} of its {} bytes are there", short.have, short.length));
    }
    found.chunks = chunks;
    Ok(found)
}

fn checked(path: &Path, file: &str, tell: Tell<'_>) -> Result<Connection, KeepError> {
    let size = std::fs::metadata(path).map_err(|error| KeepError::io(path, &error))?.len();
    tell(Progress { what: "checking", file, done: 0, all: size });
    let conn = read_only(path)?;
    integrity(&conn, path)?;
    tell(Progress { what: "checking", file, done: size, all: size });
    Ok(conn)
}

/// A closed log of which less is there than the state says.
pub(super) struct Short {
    pub log: LogId,
    /// Bytes that are there.
    pub have: u64,
    /// Bytes that should be.
    pub length: u64,
}

/// Closed logs of which less is there than the state says.
pub(super) fn too_short(
    state: &Connection,
    text: &Connection,
    dir: &Path,
) -> Result<Vec<Short>, KeepError> {
    let in_state = |error: rusqlite::Error| KeepError::sql(&dir.join(STATE), &error);
    let in_logs = |error: rusqlite::Error| KeepError::sql(&dir.join(LOGS), &error);
    let mut statement = state
        .prepare(
            "SELECT id, length FROM logs WHERE complete = 1 AND inline IS NULL AND length > 0 \
             ORDER BY id",
        )
        .map_err(in_state)?;
    let mut rows = statement.query([]).map_err(in_state)?;
    let mut short = Vec::new();
    while let Some(row) = rows.next().map_err(in_state)? {
        let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs).map_err(in_state);
        let (log, length) = (LogId(number(0)?), number(1)?);
        let have = logs::reaches(text, log).map_err(in_logs)?;
        if have < length {
            short.push(Short { log, have, length });
        }
    }
    Ok(short)
}
