//! A build's end, and with it its requests' and their buildset's.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Done, claims, requests, running, steps};
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::BuildResult;
use crate::store::sqlite::rows::{self, build_columns, int};
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
    let row = conn
        .prepare_cached(concat!(
            "UPDATE builds SET state = 2, results = ?3, state_string = ?4, complete_at = ?5 \
             WHERE id = ?1 AND incarnation = ?2 AND state = 1 RETURNING ",
            build_columns!()
        ))?
        .query_row(
            params![
                int(build.0),
                int(incarnation.0),
                end.result.code(),
                end.state_string,
                end.at.0
            ],
            rows::build,
        )
        .optional()?;
    let Some(row) = row else { return Err(running::not_the_owner(conn, build, incarnation)?) };
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
                    let row = Arc::new(row);
                    changes.push(Change::RequestUnclaimed(row.clone()));
                    back.push(row);
                }
            }
            Ok(OpOutcome::Requeued { requests: back })
        }
    }
}
