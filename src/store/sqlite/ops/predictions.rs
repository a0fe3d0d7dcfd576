//! What is expected of builds and of requests that wait.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::Done;
use crate::core::builder::Prediction;
use crate::core::ids::BuildId;
use crate::store::sqlite::rows::int;
use crate::store::*;

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn of_build(conn: &Connection, build: BuildId, expected: &Prediction) -> Done {
    let total = expected.total;
    conn.prepare_cached(
        "INSERT INTO predictions VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
    )?
    .execute([
        int(build.0),
        int(expected.learnt),
        micros(total.low),
        micros(total.likely),
        micros(total.high),
    ])?;
    Ok(OpOutcome::Done)
}

pub(super) fn of_requests(conn: &Connection, all: &[RequestPrediction]) -> Done {
    let mut keep = conn.prepare_cached(
        "INSERT INTO request_predictions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
         ON CONFLICT DO NOTHING",
    )?;
    for one in all {
        let (start, end) = (one.eta.start, one.eta.end);
        keep.execute(params![
            int(one.request.0),
            one.at.0,
            micros(start.low),
            micros(start.likely),
            micros(start.high),
            micros(end.low),
            micros(end.likely),
            micros(end.high),
        ])?;
    }
    Ok(OpOutcome::Done)
}
