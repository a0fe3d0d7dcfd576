//! A build's start and what changes while it runs.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::Done;
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::Properties;
use crate::store::sqlite::errors::OpError;
use crate::store::sqlite::rows::{self, build_columns, int, micros, to_json};
use crate::store::*;

/// Reads one build.
pub(super) fn find(conn: &Connection, build: BuildId) -> Result<BuildRow, OpError> {
    conn.prepare_cached(concat!("SELECT ", build_columns!(), " FROM builds WHERE id = ?1"))?
        .query_row([int(build.0)], rows::build)
        .optional()?
        .ok_or_else(|| OpError::missing(format!("build {build}")))
}

/// Why a build that is there did not meet an operation's conditions.
pub(super) fn not_the_owner(row: &BuildRow, incarnation: Incarnation) -> OpError {
    let build = row.id;
    OpError::fenced(if row.incarnation == incarnation {
        format!("build {build} is {}", word(row.state))
    } else {
        format!("build {build} belongs to incarnation {}, not {incarnation}", row.incarnation)
    })
}

fn word(state: BuildState) -> &'static str {
    match state {
        BuildState::Claimed => "not started yet",
        BuildState::Running => "running already",
        BuildState::Finished => "finished already",
    }
}

/// How a build starts.
pub(super) struct Start<'a> {
    pub properties: &'a Arc<Properties>,
    pub grace: Duration,
    pub at: WallTime,
}

pub(super) fn start(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    incarnation: Incarnation,
    start: &Start<'_>,
) -> Done {
    let mut row = find(conn, build)?;
    if row.incarnation == incarnation && row.state == BuildState::Running {
        return Ok(OpOutcome::Started(Arc::new(row)));
    }
    if row.incarnation != incarnation || row.state != BuildState::Claimed {
        return Err(not_the_owner(&row, incarnation));
    }
    let builder = int(row.builder.0);
    let last: i64 = conn
        .prepare_cached("SELECT last_number FROM builders WHERE id = ?1")?
        .query_row([builder], |row| row.get(0))
        .optional()?
        .ok_or_else(|| OpError::missing(format!("builder {}", row.builder)))?;
    let number = last + 1;
    conn.prepare_cached("UPDATE builders SET last_number = ?2 WHERE id = ?1")?
        .execute([builder, number])?;
    row.state = BuildState::Running;
    row.number = Some(BuildNumber(rows::id(number)));
    row.started_at = start.at;
    row.state_string = "building".into();
    row.properties = start.properties.clone();
    conn.prepare_cached(
        "UPDATE builds SET state = 1, number = ?2, started_at = ?3, state_string = ?4, \
         properties = ?5, grace = ?6 WHERE id = ?1",
    )?
    .execute(params![
        int(build.0),
        number,
        start.at.0,
        row.state_string,
        to_json(start.properties.as_ref())?,
        micros(start.grace)
    ])?;
    let row = Arc::new(row);
    changes.push(Change::BuildNew(row.clone()));
    Ok(OpOutcome::Started(row))
}

pub(super) fn adopt(conn: &Connection, build: BuildId, incarnation: Incarnation) -> Done {
    let changed = conn
        .prepare_cached("UPDATE builds SET incarnation = ?2 WHERE id = ?1 AND state < 2")?
        .execute([int(build.0), int(incarnation.0)])?;
    if changed == 0 {
        find(conn, build)?;
        return Err(OpError::fenced(format!("build {build} is finished already")));
    }
    Ok(OpOutcome::Done)
}

/// One look at the row, by its key.
pub(super) fn fence(conn: &Connection, build: BuildId, incarnation: Incarnation) -> Done {
    let owned: bool = conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM builds WHERE id = ?1 AND incarnation = ?2 AND state < 2)",
        )?
        .query_row([int(build.0), int(incarnation.0)], |row| row.get(0))?;
    if owned {
        return Ok(OpOutcome::Done);
    }
    Err(not_the_owner(&find(conn, build)?, incarnation))
}

pub(super) fn describe(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    text: &str,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE builds SET state_string = ?2 WHERE id = ?1 AND state = 1 RETURNING ",
            build_columns!()
        ))?
        .query_row(params![int(build.0), text], rows::build)
        .optional()?;
    match row {
        Some(row) => changes.push(Change::BuildUpdate(Arc::new(row))),
        // Its end has the last word.
        None => drop(find(conn, build)?),
    }
    Ok(OpOutcome::Done)
}

pub(super) fn want_stop(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    reason: &str,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE builds SET stop_reason = ?2, \
             state_string = CASE state WHEN 1 THEN ?3 ELSE state_string END \
             WHERE id = ?1 AND state < 2 AND stop_reason IS NULL RETURNING ",
            build_columns!()
        ))?
        .query_row(params![int(build.0), reason, format!("stopping ({reason})")], rows::build)
        .optional()?;
    let Some(row) = row else {
        return Ok(OpOutcome::StopWanted(stop_reason(conn, build)?.is_some()));
    };
    if row.state == BuildState::Running {
        changes.push(Change::BuildUpdate(Arc::new(row)));
    }
    Ok(OpOutcome::StopWanted(true))
}

/// Why a build that has not ended is wanted stopped, when it is.
pub(super) fn stop_reason(conn: &Connection, build: BuildId) -> rusqlite::Result<Option<String>> {
    let reason = conn
        .prepare_cached("SELECT stop_reason FROM builds WHERE id = ?1 AND state < 2")?
        .query_row([int(build.0)], |row| row.get(0))
        .optional()?;
    Ok(reason.flatten())
}

pub(super) fn set_properties(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    properties: &Properties,
) -> Done {
    let mut all = Properties::clone(&find(conn, build)?.properties);
    all.extend(properties.iter().map(|(name, property)| (name.clone(), property.clone())));
    conn.prepare_cached("UPDATE builds SET properties = ?2 WHERE id = ?1")?
        .execute(params![int(build.0), to_json(&all)?])?;
    changes.push(Change::BuildProperties(build, Arc::new(all)));
    Ok(OpOutcome::Done)
}
