//! Takes rows away, in the writer's commit.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Removal, Removed};
use crate::faults::crash_point;
use crate::store::logs::own_text;
use crate::store::sqlite::open::give_back;
use crate::store::sqlite::rows::int;

/// Longest work of one batch: everybody who writes waits meanwhile. On a busy machine
/// others get the processor in between, so it is well below what may be waited.
const TIME: Duration = Duration::from_millis(1);
/// Pages given back with each batch.
const GIVEN_BACK: u32 = 64;

/// The newest row of each table whose ids would come again. Nothing is added
/// while rows are removed, and none of these goes, so they hold for a whole batch.
struct Newest {
    steps: i64,
    logs: i64,
    requests: i64,
    buildsets: i64,
    notes: i64,
}

impl Newest {
    fn read(conn: &Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached(
            "SELECT coalesce((SELECT max(id) FROM steps), 0), \
             coalesce((SELECT max(id) FROM logs), 0), \
             coalesce((SELECT max(id) FROM requests), 0), \
             coalesce((SELECT max(id) FROM buildsets), 0), \
             coalesce((SELECT max(id) FROM notes), 0)",
        )?
        .query_row([], |row| {
            Ok(Self {
                steps: row.get(0)?,
                logs: row.get(1)?,
                requests: row.get(2)?,
                buildsets: row.get(3)?,
                notes: row.get(4)?,
            })
        })
    }
}

/// Removes rows until all are looked at or the time is over. At least one is
/// looked at, so that whoever asks again gets on.
pub(in crate::store::sqlite) fn remove(
    conn: &Connection,
    removal: &Removal,
) -> rusqlite::Result<Removed> {
    let began = Instant::now();
    let newest = Newest::read(conn)?;
    let mut removed = Removed::default();
    let over = |removed: &mut Removed| {
        removed.more |= removed.looked_at > 0 && began.elapsed() >= TIME;
        removed.looked_at += usize::from(!removed.more);
        removed.more
    };
    for log in &removal.logs_gone {
        conn.prepare_cached("DELETE FROM removed_logs WHERE log_id = ?1")?.execute([int(log.0)])?;
    }
    for id in &removal.builds {
        if over(&mut removed) {
            break;
        }
        let gone = remove_build(conn, &newest, int(id.0), &mut removed.requests)?;
        removed.builds += u64::from(gone);
    }
    for id in &removal.texts {
        if over(&mut removed) {
            break;
        }
        removed.texts += u64::from(remove_text(conn, int(id.0))?);
    }
    for id in &removal.requests {
        if over(&mut removed) {
            break;
        }
        removed.requests += u64::from(remove_request(conn, &newest, int(id.0))?);
    }
    for id in &removal.notes {
        if over(&mut removed) {
            break;
        }
        let gone = conn
            .prepare_cached("DELETE FROM notes WHERE id = ?1 AND id < ?2")?
            .execute([int(*id), newest.notes])?;
        removed.notes += gone as u64;
    }
    // In the same commit: it needs no sync of its own.
    give_back(conn, GIVEN_BACK)?;
    removed.took = began.elapsed();
    crash_point("cleanup.batch");
    Ok(removed)
}

/// A step, a log of it, and whether the log's text is in the log store.
type Part = (i64, Option<i64>, bool);

/// Steps and logs of the build, each log with whether its text is in the log
/// store. None when one of them is the newest, whose id would come again.
fn parts(conn: &Connection, newest: &Newest, build: i64) -> rusqlite::Result<Option<Vec<Part>>> {
    let parts: Vec<Part> = conn
        .prepare_cached(
            "SELECT s.id, l.id, l.inline IS NULL FROM steps s \
             LEFT JOIN logs l ON l.step_id = s.id WHERE s.build_id = ?1",
        )?
        .query_map([build], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let is_newest =
        |(step, log, _): &Part| *step >= newest.steps || log.is_some_and(|log| log >= newest.logs);
    Ok((!parts.iter().any(is_newest)).then_some(parts))
}

/// Whether the build may go now, whatever was read before.
fn may_go(conn: &Connection, build: i64) -> rusqlite::Result<bool> {
    let found: Option<bool> = conn
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM build_requests b JOIN requests r \
             ON r.id = b.request_id WHERE b.build_id = ?1 AND r.state < 2) \
             AND EXISTS (SELECT 1 FROM builds n INDEXED BY builds_number \
             WHERE n.builder_id = builds.builder_id AND n.number > builds.number \
             AND n.number IS NOT NULL AND n.state = 2) \
             FROM builds WHERE id = ?1 AND state = 2",
        )?
        .query_row([build], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(false))
}

fn remove_build(
    conn: &Connection,
    newest: &Newest,
    build: i64,
    requests: &mut u64,
) -> rusqlite::Result<bool> {
    if !may_go(conn, build)? {
        return Ok(false);
    }
    let Some(parts) = parts(conn, newest, build)? else { return Ok(false) };
    for (step, log, in_log_store) in parts {
        if let Some(log) = log {
            if in_log_store {
                note_removed(conn, log)?;
            }
            conn.prepare_cached("DELETE FROM logs WHERE id = ?1")?.execute([log])?;
        }
        conn.prepare_cached("DELETE FROM steps WHERE id = ?1")?.execute([step])?;
    }
    let held: Vec<i64> = conn
        .prepare_cached("SELECT request_id FROM build_requests WHERE build_id = ?1")?
        .query_map([build], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    conn.prepare_cached("DELETE FROM build_requests WHERE build_id = ?1")?.execute([build])?;
    conn.prepare_cached("DELETE FROM predictions WHERE build_id = ?1")?.execute([build])?;
    conn.prepare_cached("DELETE FROM builds WHERE id = ?1")?.execute([build])?;
    for request in held {
        *requests += u64::from(remove_request(conn, newest, request)?);
    }
    Ok(true)
}

fn note_removed(conn: &Connection, log: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR IGNORE INTO removed_logs (log_id) VALUES (?1)")?
        .execute([log])?;
    Ok(())
}

/// An ended request that no build belongs to any more, and its buildset when it
/// was the last of it.
fn remove_request(conn: &Connection, newest: &Newest, request: i64) -> rusqlite::Result<bool> {
    let set: Option<i64> = conn
        .prepare_cached(
            "SELECT buildset_id FROM requests WHERE id = ?1 AND state >= 2 \
             AND id < ?2 \
             AND NOT EXISTS (SELECT 1 FROM build_requests WHERE request_id = ?1)",
        )?
        .query_row([request, newest.requests], |row| row.get(0))
        .optional()?;
    let Some(set) = set else { return Ok(false) };
    conn.prepare_cached("DELETE FROM request_predictions WHERE request_id = ?1")?
        .execute([request])?;
    conn.prepare_cached("DELETE FROM requests WHERE id = ?1")?.execute([request])?;
    conn.prepare_cached(
        "DELETE FROM buildsets WHERE id = ?1 AND open_requests = 0 \
         AND id < ?2 \
         AND NOT EXISTS (SELECT 1 FROM requests WHERE buildset_id = ?1)",
    )?
    .execute([set, newest.buildsets])?;
    Ok(true)
}

/// The build's logs lose their text, and say so.
fn remove_text(conn: &Connection, build: i64) -> rusqlite::Result<bool> {
    if !may_go(conn, build)? {
        return Ok(false);
    }
    let logs: Vec<(i64, bool, i64)> = conn
        .prepare_cached(
            "SELECT l.id, l.inline IS NULL, l.length FROM steps s JOIN logs l \
             ON l.step_id = s.id WHERE s.build_id = ?1 AND l.complete = 1",
        )?
        .query_map([build], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (log, in_log_store, length) in logs {
        if in_log_store {
            note_removed(conn, log)?;
        }
        let line = format!("[the housekeeping removed this log's {length} bytes]");
        conn.prepare_cached(
            "UPDATE logs SET inline = ?2, num_lines = 1, length = ?3, incomplete = ?4 \
             WHERE id = ?1",
        )?
        .execute(params![
            log,
            own_text(&line),
            int(line.len() as u64 + 1),
            format!("the housekeeping removed its {length} bytes")
        ])?;
    }
    conn.prepare_cached("UPDATE builds SET text_bytes = 0 WHERE id = ?1")?.execute([build])?;
    Ok(true)
}
