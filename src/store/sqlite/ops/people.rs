//! Builders and workers: what is configured, who is attached, what happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::Done;
use crate::core::ids::*;
use crate::core::lease::Grant;
use crate::core::time::WallTime;
use crate::core::values::Factory;
use crate::store::sqlite::errors::OpError;
use crate::store::sqlite::rows::{self, int, micros, note_columns, to_json, worker_columns};
use crate::store::*;

pub(super) fn declare_builder(
    conn: &Connection,
    changes: &mut Vec<Change>,
    name: &BuilderName,
    description: Option<&str>,
    tags: &[String],
    workers: &[WorkerName],
) -> Done {
    let ids = workers.iter().map(|name| worker_id(conn, name)).collect::<Result<Vec<_>, _>>()?;
    let known: Option<i64> = conn
        .prepare_cached("SELECT id FROM builders WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(id) = known
        && let Some(row) = rows::builder(conn, id)?
        && row.configured
        && row.description.as_deref() == description
        && row.tags == tags
        && row.workers == ids
    {
        return Ok(OpOutcome::Builder(row.id));
    }
    let id: i64 = conn
        .prepare_cached(
            "INSERT INTO builders (name, description, tags, configured) VALUES (?1, ?2, ?3, 1) \
             ON CONFLICT (name) DO UPDATE SET description = excluded.description, \
             tags = excluded.tags, configured = 1 RETURNING id",
        )?
        .query_row(params![name.as_str(), description, to_json(&tags)?], |row| row.get(0))?;
    conn.prepare_cached("DELETE FROM builder_workers WHERE builder_id = ?1")?.execute([id])?;
    let mut add = conn.prepare_cached("INSERT INTO builder_workers VALUES (?1, ?2, ?3)")?;
    for (place, worker) in (0_i64..).zip(&ids) {
        add.execute([id, place, int(worker.0)])?;
    }
    let row = rows::builder(conn, id)?
        .ok_or_else(|| OpError::wrong(format!("builder `{name}` is gone again")))?;
    let answer = OpOutcome::Builder(row.id);
    changes.push(Change::BuilderUpdated(Arc::new(row)));
    Ok(answer)
}

fn worker_id(conn: &Connection, name: &WorkerName) -> Result<WorkerId, OpError> {
    conn.prepare_cached("SELECT id FROM workers WHERE name = ?1")?
        .query_row([name.as_str()], |row| rows::uint(row, 0))
        .optional()?
        .map(WorkerId)
        .ok_or_else(|| OpError::missing(format!("worker named `{name}`")))
}

pub(super) fn retire_builder(
    conn: &Connection,
    changes: &mut Vec<Change>,
    builder: BuilderId,
) -> Done {
    let id = int(builder.0);
    let Some(mut row) = rows::builder(conn, id)? else {
        return Err(OpError::missing(format!("builder {builder}")));
    };
    if row.configured {
        conn.prepare_cached("UPDATE builders SET configured = 0 WHERE id = ?1")?.execute([id])?;
        row.configured = false;
        changes.push(Change::BuilderUpdated(Arc::new(row)));
    }
    Ok(OpOutcome::Done)
}

pub(super) fn declare_worker(
    conn: &Connection,
    changes: &mut Vec<Change>,
    name: &WorkerName,
) -> Done {
    let known = conn
        .prepare_cached(concat!("SELECT ", worker_columns!(), " FROM workers WHERE name = ?1"))?
        .query_row([name.as_str()], rows::worker)
        .optional()?;
    if let Some(row) = known
        && row.configured
    {
        return Ok(OpOutcome::Worker(row));
    }
    let row = conn
        .prepare_cached(concat!(
            "INSERT INTO workers (name, configured) VALUES (?1, 1) \
             ON CONFLICT (name) DO UPDATE SET configured = 1 RETURNING ",
            worker_columns!()
        ))?
        .query_row([name.as_str()], rows::worker)?;
    changes.push(Change::WorkerUpdated(Arc::new(row.clone())));
    Ok(OpOutcome::Worker(row))
}

pub(super) fn retire_worker(
    conn: &Connection,
    changes: &mut Vec<Change>,
    worker: WorkerId,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE workers SET configured = 0 WHERE id = ?1 RETURNING ",
            worker_columns!()
        ))?
        .query_row([int(worker.0)], rows::worker)
        .optional()?
        .ok_or_else(|| no_worker(worker))?;
    changes.push(Change::WorkerUpdated(Arc::new(row)));
    Ok(OpOutcome::Done)
}

fn no_worker(worker: WorkerId) -> OpError {
    OpError::missing(format!("worker {worker}"))
}

pub(super) fn save_factory(conn: &Connection, digest: &str, factory: &Factory) -> Done {
    conn.prepare_cached(
        "INSERT INTO factories (digest, steps) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?
    .execute(params![digest, to_json(factory)?])?;
    Ok(OpOutcome::Done)
}

pub(super) fn attach(
    conn: &Connection,
    changes: &mut Vec<Change>,
    worker: WorkerId,
    info: &BTreeMap<String, String>,
    at: WallTime,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE workers SET incarnation = incarnation + 1, connected = 1, info = ?2, \
             last_seen = ?3 WHERE id = ?1 RETURNING ",
            worker_columns!()
        ))?
        .query_row(params![int(worker.0), to_json(info)?, at.0], rows::worker)
        .optional()?
        .ok_or_else(|| no_worker(worker))?;
    let answer = OpOutcome::Attached(row.incarnation);
    changes.push(Change::WorkerConnected(Arc::new(row)));
    Ok(answer)
}

pub(super) fn detach(
    conn: &Connection,
    changes: &mut Vec<Change>,
    worker: WorkerId,
    incarnation: Incarnation,
    at: WallTime,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE workers SET connected = 0, last_seen = ?3 \
             WHERE id = ?1 AND incarnation = ?2 AND connected = 1 RETURNING ",
            worker_columns!()
        ))?
        .query_row([int(worker.0), int(incarnation.0), at.0], rows::worker)
        .optional()?;
    if let Some(row) = row {
        changes.push(Change::WorkerDisconnected(Arc::new(row)));
    }
    Ok(OpOutcome::Done)
}

/// One statement a worker: a thousand of them take some milliseconds.
pub(super) fn see(conn: &Connection, seen: &[(WorkerId, Incarnation)], at: WallTime) -> Done {
    let mut update = conn
        .prepare_cached("UPDATE workers SET last_seen = ?3 WHERE id = ?1 AND incarnation = ?2")?;
    for (worker, incarnation) in seen {
        update.execute([int(worker.0), int(incarnation.0), at.0])?;
    }
    Ok(OpOutcome::Done)
}

pub(super) fn grant_lease(
    conn: &Connection,
    worker: WorkerId,
    incarnation: Incarnation,
    grant: &Grant,
) -> Done {
    let changed = conn
        .prepare_cached(
            "UPDATE workers SET grant_lease = ?3, grant_boot = ?4, grant_at = ?5, \
             grant_incarnation = ?2 \
             WHERE id = ?1 AND incarnation = ?2",
        )?
        .execute(params![
            int(worker.0),
            int(incarnation.0),
            micros(grant.lease),
            grant.given.boot,
            micros(grant.given.at)
        ])?;
    if changed == 0 {
        return Err(OpError::fenced(format!(
            "worker {worker} is not in incarnation {incarnation}"
        )));
    }
    Ok(OpOutcome::Done)
}

pub(super) fn set_worker(
    conn: &Connection,
    changes: &mut Vec<Change>,
    worker: WorkerId,
    paused: Option<&(bool, Option<String>)>,
    graceful: Option<bool>,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE workers SET \
             pause_reason = CASE WHEN ?2 IS NULL THEN pause_reason ELSE ?3 END, \
             paused = coalesce(?2, paused), graceful = coalesce(?4, graceful) \
             WHERE id = ?1 RETURNING ",
            worker_columns!()
        ))?
        .query_row(
            params![
                int(worker.0),
                paused.map(|(paused, _)| *paused),
                paused.and_then(|(_, reason)| reason.as_deref()),
                graceful
            ],
            rows::worker,
        )
        .optional()?
        .ok_or_else(|| no_worker(worker))?;
    changes.push(Change::WorkerUpdated(Arc::new(row)));
    Ok(OpOutcome::Done)
}

pub(super) fn save_expectations(conn: &Connection, builder: BuilderId, text: &str) -> Done {
    let changed = conn
        .prepare_cached("UPDATE builders SET expectations = ?2 WHERE id = ?1")?
        .execute(params![int(builder.0), text])?;
    if changed == 0 {
        return Err(OpError::missing(format!("builder {builder}")));
    }
    Ok(OpOutcome::Done)
}

pub(super) fn note(
    conn: &Connection,
    changes: &mut Vec<Change>,
    note: &BuilderNote,
    ended_at: Option<WallTime>,
) -> Done {
    let id = conn
        .prepare_cached(
            "INSERT INTO notes (builder_id, worker_id, text, error, at, ended_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .insert(params![
            int(note.builder.0),
            note.worker.map(|worker| int(worker.0)),
            note.text,
            note.error,
            note.at.0,
            ended_at.map(|at| at.0)
        ])
        .map(rows::id)?;
    changes.push(Change::Note(Arc::new(NoteRow {
        id,
        builder: note.builder,
        worker: note.worker,
        text: note.text.clone(),
        error: note.error.clone(),
        at: note.at,
        ended_at,
    })));
    Ok(OpOutcome::Done)
}

pub(super) fn end_note(
    conn: &Connection,
    changes: &mut Vec<Change>,
    begun: &str,
    end: &BuilderNote,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE notes SET text = ?4, error = ?5, ended_at = ?6 WHERE id = (\
             SELECT max(id) FROM notes WHERE builder_id = ?1 AND worker_id IS ?2 AND text = ?3 \
             AND ended_at IS NULL) RETURNING ",
            note_columns!()
        ))?
        .query_row(
            params![
                int(end.builder.0),
                end.worker.map(|worker| int(worker.0)),
                begun,
                end.text,
                end.error,
                end.at.0
            ],
            rows::note,
        )
        .optional()?;
    match row {
        Some(row) => changes.push(Change::NoteEnded(Arc::new(row))),
        None => return note(conn, changes, end, Some(end.at)),
    }
    Ok(OpOutcome::Done)
}
