//! Schedulers: which there are, and which are switched off.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Done;
use crate::store::sqlite::errors::OpError;
use crate::store::sqlite::rows::{self, int};
use crate::store::*;

fn scheduler(row: &Row<'_>) -> rusqlite::Result<SchedulerRow> {
    Ok(SchedulerRow { id: rows::uint(row, 0)?, name: row.get(1)?, enabled: row.get(2)? })
}

/// Each name once.
pub(super) fn declare(conn: &Connection, changes: &mut Vec<Change>, names: &[String]) -> Done {
    let configured: Vec<String> = conn
        .prepare_cached("SELECT name FROM schedulers WHERE configured = 1 ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for gone in configured.iter().filter(|name| !names.contains(name)) {
        conn.prepare_cached("UPDATE schedulers SET configured = 0 WHERE name = ?1")?
            .execute([gone])?;
    }
    for new in names.iter().filter(|name| !configured.contains(name)) {
        let row = conn
            .prepare_cached(
                "INSERT INTO schedulers (name) VALUES (?1) \
                 ON CONFLICT (name) DO UPDATE SET configured = 1 RETURNING id, name, enabled",
            )?
            .query_row([new], scheduler)?;
        changes.push(Change::SchedulerUpdated(Arc::new(row)));
    }
    Ok(OpOutcome::Done)
}

pub(super) fn set(conn: &Connection, changes: &mut Vec<Change>, id: u64, enabled: bool) -> Done {
    let row = conn
        .prepare_cached(
            "UPDATE schedulers SET enabled = ?2 WHERE id = ?1 AND configured = 1 \
             RETURNING id, name, enabled",
        )?
        .query_row(params![int(id), enabled], scheduler)
        .optional()?
        .ok_or_else(|| OpError::missing(format!("scheduler {id}")))?;
    changes.push(Change::SchedulerUpdated(Arc::new(row)));
    Ok(OpOutcome::Done)
}
