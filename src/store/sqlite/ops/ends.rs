//! A build's end, and with it its requests' and their buildset's.

use std::sync::Arc;

use rusqlite::{Connection, params};

use super::{Done, claims, requests, running, steps};
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::{BuildResult, Loss};
use crate::store::sqlite::errors::OpError;
use crate::store::sqlite::rows::{self, int};
use crate::store::*;

/// How a build ended.
pub(super) struct End<'a> {
    pub result: BuildResult,
    pub state_string: &'a str,
    pub requests: RequestsAfter,
    pub at: WallTime,
}

pub(super) fn finish(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    incarnation: Incarnation,
    end: &End<'_>,
) -> Done {
    let mut row = running::find(conn, build)?;
    if row.incarnation != incarnation || row.state != BuildState::Running {
        return Err(running::not_the_owner(&row, incarnation));
    }
    let stopped = running::stop_reason(conn, build)?.map(|reason| format!("cancelled ({reason})"));
    let end = &match (&stopped, end.requests) {
        (Some(text), RequestsAfter::Requeue { .. }) => End {
            result: BuildResult::Cancelled,
            state_string: text,
            requests: RequestsAfter::Done,
            at: end.at,
        },
        _ => End { ..*end },
    };
    row.state = BuildState::Finished;
    row.results = Some(end.result);
    row.state_string = end.state_string.into();
    row.complete_at = Some(end.at);
    conn.prepare_cached(
        "UPDATE builds SET state = 2, results = ?2, state_string = ?3, complete_at = ?4, \
         text_bytes = (SELECT coalesce(sum(max(l.length, 1)), 0) \
         FROM steps s JOIN logs l ON l.step_id = s.id WHERE s.build_id = builds.id) \
         WHERE id = ?1",
    )?
    .execute(params![int(build.0), end.result.code(), end.state_string, end.at.0])?;
    steps::end_open(conn, changes, build, end.result, end.at)?;
    changes.push(Change::BuildFinished(Arc::new(row)));
    let held = claims::held_requests(conn, build)?;
    match end.requests {
        RequestsAfter::Done => {
            for (request, epoch) in held {
                let ended = claims::end_request(
                    conn,
                    request,
                    epoch,
                    RequestState::Done,
                    end.result,
                    end.at,
                )?;
                if let Some(row) = ended {
                    requests::complete(conn, changes, row, end.at)?;
                }
            }
            Ok(OpOutcome::Done)
        }
        RequestsAfter::Requeue { infra } => {
            let mut back = Vec::with_capacity(held.len());
            for (request, epoch) in held {
                if let Some(row) = claims::requeue(conn, request, epoch, infra)? {
                    if infra {
                        note_loss(conn, request, build, end.state_string)?;
                    }
                    let row = Arc::new(row);
                    changes.push(Change::RequestUnclaimed(row.clone()));
                    back.push(rows::with_set(conn, row)?);
                }
            }
            Ok(OpOutcome::Requeued { requests: back })
        }
    }
}

/// Keeps on which worker a build of the request was lost, and why: the next
/// one goes to another worker, and its end tells of all.
fn note_loss(
    conn: &Connection,
    request: RequestId,
    build: BuildId,
    reason: &str,
) -> Result<(), OpError> {
    let worker: String = conn
        .prepare_cached(
            "SELECT name FROM workers WHERE id = (SELECT worker_id FROM builds WHERE id = ?1)",
        )?
        .query_row([int(build.0)], |row| row.get(0))?;
    let mut losses = rows::losses_of(conn, request)?;
    losses.push(Loss { worker: worker.into(), reason: reason.to_owned() });
    conn.prepare_cached("UPDATE requests SET losses = ?2 WHERE id = ?1")?
        .execute(params![int(request.0), rows::to_json(&losses)?])?;
    Ok(())
}
