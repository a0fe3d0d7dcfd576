//! Instances of latent workers: wished, created, to be destroyed, gone.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Done, claims, ends, running};
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::BuildResult;
use crate::store::sqlite::errors::OpError;
use crate::store::sqlite::rows::{self, int};
use crate::store::*;

pub(super) fn wish(conn: &Connection, tag: &InstanceTag, worker: WorkerId, at: WallTime) -> Done {
    conn.prepare_cached(
        "INSERT INTO instances (tag, worker_id, state, wished_at, changed_at) \
         VALUES (?1, ?2, 0, ?3, ?3)",
    )?
    .execute(params![tag.as_str(), int(worker.0), at.0])?;
    Ok(OpOutcome::Done)
}

/// One that is to be destroyed stays so, whatever is told of its beginnings.
pub(super) fn note(conn: &Connection, tag: &InstanceTag, id: &str, at: WallTime) -> Done {
    conn.prepare_cached(
        "UPDATE instances SET state = max(state, 1), provider_id = ?2, changed_at = ?3 \
         WHERE tag = ?1",
    )?
    .execute(params![tag.as_str(), id, at.0])?;
    Ok(OpOutcome::Done)
}

/// Also one that nobody knew: its row was lost, or is of another's making.
pub(super) fn release(
    conn: &Connection,
    tag: &InstanceTag,
    worker: WorkerId,
    at: WallTime,
) -> Done {
    conn.prepare_cached(
        "INSERT INTO instances (tag, worker_id, state, wished_at, changed_at) \
         VALUES (?1, ?2, 2, ?3, ?3) \
         ON CONFLICT (tag) DO UPDATE SET state = 2, changed_at = excluded.changed_at",
    )?
    .execute(params![tag.as_str(), int(worker.0), at.0])?;
    Ok(OpOutcome::Done)
}

pub(super) fn remove(conn: &Connection, tag: &InstanceTag) -> Done {
    conn.prepare_cached("DELETE FROM instances WHERE tag = ?1")?.execute([tag.as_str()])?;
    Ok(OpOutcome::Done)
}

pub(super) fn list(conn: &Connection) -> Done {
    let rows = conn
        .prepare_cached(
            "SELECT tag, worker_id, coalesce(name, ''), state, provider_id FROM instances \
             LEFT JOIN workers ON workers.id = worker_id ORDER BY tag",
        )?
        .query_map([], |row| {
            let state: i64 = row.get(3)?;
            Ok(InstanceRow {
                tag: row.get::<_, String>(0)?.into(),
                worker: WorkerId(rows::uint(row, 1)?),
                name: row.get::<_, String>(2)?.into(),
                state: match state {
                    0 => InstanceState::Wished,
                    1 => InstanceState::Created,
                    _ => InstanceState::Destroying,
                },
                id: row.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(OpOutcome::Instances(rows))
}

/// A build as it was meant, for which no worker could be had.
pub(super) struct Failed<'a> {
    pub wanted: claims::Wanted<'a>,
    pub state_string: &'a str,
}

/// Claims, numbers and ends a build in one go: people see it, with the reason,
/// and its requests are done.
pub(super) fn fail_build(
    conn: &Connection,
    changes: &mut Vec<Change>,
    failed: &Failed<'_>,
) -> Done {
    let worker = failed.wanted.worker;
    let incarnation: u64 = conn
        .prepare_cached("SELECT incarnation FROM workers WHERE id = ?1")?
        .query_row([int(worker.0)], |row| rows::uint(row, 0))
        .optional()?
        .ok_or_else(|| OpError::missing(format!("worker {worker}")))?;
    let incarnation = Incarnation(incarnation);
    let wanted = claims::Wanted { incarnation, ..failed.wanted };
    let at = wanted.at;
    let OpOutcome::Claimed { build, .. } = claims::claim(conn, changes, &wanted)? else {
        return Err(OpError::wrong("a claim was not answered as one"));
    };
    let properties = Arc::new((*build.properties).clone());
    let start = running::Start { properties: &properties, grace: Duration::ZERO, at };
    running::start(conn, changes, build.id, incarnation, &start)?;
    let end = ends::End {
        result: BuildResult::Exception,
        state_string: failed.state_string,
        requests: RequestsAfter::Done,
        at,
    };
    ends::finish(conn, changes, build.id, incarnation, &end)
}
