//! Makes an opened state file this process's own: nobody is attached, event
//! numbers are reserved, and after a restored backup everything that may have
//! been given out since is skipped (row FD12).

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::open::OpenError;

/// Event numbers that one row reserves.
pub(super) const EVENTS_AHEAD: u64 = 1_000_000;
/// How far incarnations, epochs and the ids of builds and requests jump ahead.
const JUMP: i64 = 1_000_000;
/// How far build numbers jump ahead.
const NUMBERS: i64 = 1000;
/// How far event numbers jump ahead.
const EVENTS: u64 = 1_000_000_000;

/// A copy has this key in `meta`, with the second in which it was made.
pub(in crate::store) const COPY_KEY: &str = "copied_at";
/// Ids of requests begin behind this number.
pub(super) const REQUESTS_KEY: &str = "requests_behind";

fn value(conn: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

fn set(conn: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![key, value])?;
    Ok(())
}

/// Keeps that events below `end` may have been told.
pub(super) fn reserve(conn: &Connection, end: u64) -> rusqlite::Result<()> {
    set(conn, "event_seq", &end.to_string())
}

/// When the file was copied by a backup and no master has had it since: the
/// time, for people.
pub(in crate::store) fn copied_at(conn: &Connection) -> rusqlite::Result<Option<String>> {
    Ok(value(conn, COPY_KEY)?.map(|second| {
        let time = second.parse().ok().and_then(|second| Timestamp::from_second(second).ok());
        time.map_or(second, |time| time.to_string())
    }))
}

/// Prepares the file and returns the number of the first event. `restored`
/// says that its data are older than what was given out last.
pub(super) fn prepare(conn: &Connection, path: &Path, restored: bool) -> Result<u64, OpenError> {
    let sql = |error: rusqlite::Error| OpenError::sql(path, &error);
    if !restored && let Some(made) = copied_at(conn).map_err(sql)? {
        return Err(OpenError::Restored { path: path.into(), made });
    }
    make_own(conn, restored).map_err(sql)
}

fn make_own(conn: &Connection, restored: bool) -> rusqlite::Result<u64> {
    conn.execute_batch("BEGIN IMMEDIATE; UPDATE workers SET connected = 0 WHERE connected = 1;")?;
    let mut first = value(conn, "event_seq")?.and_then(|text| text.parse().ok()).unwrap_or(1);
    if restored {
        jump(conn)?;
        first += EVENTS;
    }
    reserve(conn, first + EVENTS_AHEAD)?;
    conn.execute_batch("COMMIT")?;
    Ok(first)
}

/// What an older state would give out again is beyond everything that was.
/// Builds that had not ended get other ids: their workers have heard more of
/// them than this state knows, so they are abandoned there and are lost here.
fn jump(conn: &Connection) -> rusqlite::Result<()> {
    const OPEN: &str = "IN (SELECT id FROM builds WHERE state < 2)";
    conn.execute_batch(&format!(
        "UPDATE workers SET incarnation = incarnation + {JUMP};
         UPDATE builders SET last_number = last_number + {NUMBERS};
         UPDATE requests SET epoch = epoch + {JUMP} WHERE state < 2;
         UPDATE build_requests SET epoch = epoch + {JUMP}, build_id = build_id + {JUMP}
             WHERE build_id {OPEN};
         UPDATE steps SET build_id = build_id + {JUMP} WHERE build_id {OPEN};
         UPDATE predictions SET build_id = build_id + {JUMP} WHERE build_id {OPEN};
         UPDATE buildsets SET rebuilt_build = rebuilt_build + {JUMP} WHERE rebuilt_build {OPEN};
         UPDATE builds SET id = id + {JUMP}, incarnation = incarnation + {JUMP} WHERE state < 2;
         INSERT INTO sqlite_sequence (name, seq)
             SELECT 'builds', 0
             WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'builds');
         UPDATE sqlite_sequence SET seq = max(seq, (SELECT coalesce(max(id), 0) FROM builds))
             + {JUMP} WHERE name = 'builds';"
    ))?;
    let last: i64 =
        conn.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?;
    set(conn, REQUESTS_KEY, &(last + JUMP).to_string())?;
    conn.execute("DELETE FROM meta WHERE key = ?1", [COPY_KEY])?;
    Ok(())
}

/// The id of the next request, when it is not simply the next one: the first
/// after a restored backup. A worker may remember the ids that came between.
pub(super) fn next_request(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    let Some(behind) = value(conn, REQUESTS_KEY)? else { return Ok(None) };
    conn.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([REQUESTS_KEY])?;
    Ok(behind.parse::<i64>().ok().map(|behind| behind + 1))
}
