//! What was expected, beside what came.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::{StateReader, rows, sql_id};
use crate::core::builder::{Accuracy, Estimate, Prediction};
use crate::core::ids::*;
use crate::store::StoreError;

/// How many ends, the latest, say how far off expectations are.
const ENDS: i64 = 100;

/// How many builds or requests are looked through for them.
const LOOKED_THROUGH: i64 = 2000;

fn span(row: &Row<'_>, at: usize) -> rusqlite::Result<Duration> {
    // A wall clock that was set back makes a span negative.
    Ok(Duration::from_micros(u64::try_from(row.get::<_, i64>(at)?).unwrap_or_default()))
}

fn estimate(row: &Row<'_>, at: usize) -> rusqlite::Result<Estimate> {
    Ok(Estimate { low: span(row, at)?, likely: span(row, at + 1)?, high: span(row, at + 2)? })
}

impl StateReader {
    /// What was learnt about a builder's builds, as the core wrote it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn expectations(&self, builder: BuilderId) -> Result<Option<String>, StoreError> {
        let text: Option<Option<String>> =
            self.one("SELECT expectations FROM builders WHERE id = ?1", builder.0, |row| {
                row.get(0)
            })?;
        Ok(text.flatten())
    }

    /// What was expected of a build at its start.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn prediction(&self, build: BuildId) -> Result<Option<Prediction>, StoreError> {
        let sql = "SELECT learnt, low, likely, high FROM predictions WHERE build_id = ?1";
        self.one(sql, build.0, |row| {
            Ok(Prediction { learnt: rows::uint(row, 0)?, total: estimate(row, 1)? })
        })
    }

    /// How far off what was expected of builds has been: of the latest that
    /// succeeded.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn accuracy(&self, builder: BuilderId) -> Result<Accuracy, StoreError> {
        self.compare(
            builder,
            "SELECT p.low, p.likely, p.high, b.complete_at - b.started_at \
             FROM builds b JOIN predictions p ON p.build_id = b.id \
             WHERE b.builder_id = ?1 AND b.results = 0 AND b.number > \
             (SELECT last_number FROM builders WHERE id = ?1) - ?3 \
             ORDER BY b.number DESC LIMIT ?2",
        )
    }

    /// How far off the expected ends of requests that waited have been: of the
    /// latest that ended with success.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn queue_accuracy(&self, builder: BuilderId) -> Result<Accuracy, StoreError> {
        self.compare(
            builder,
            "SELECT p.end_low, p.end_likely, p.end_high, r.complete_at - p.at \
             FROM (SELECT id, complete_at, results FROM requests WHERE builder_id = ?1 \
             ORDER BY id DESC LIMIT ?3) r JOIN request_predictions p ON p.request_id = r.id \
             WHERE r.results = 0 ORDER BY r.id DESC LIMIT ?2",
        )
    }

    fn compare(&self, builder: BuilderId, sql: &str) -> Result<Accuracy, StoreError> {
        self.ask(|db| {
            let known = db
                .prepare_cached(sql)?
                .query_map([sql_id(builder.0), ENDS, LOOKED_THROUGH], |row| {
                    Ok((estimate(row, 0)?, span(row, 3)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(Accuracy::of(&known))
        })
    }

    /// The first requests of a builder's queue, in its order, and whether it
    /// is kept when each was expected to end.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn waiting(
        &self,
        builder: BuilderId,
        limit: usize,
    ) -> Result<Vec<(RequestId, bool)>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.ask(|db| {
            db.prepare_cached(
                "SELECT id, EXISTS (SELECT 1 FROM request_predictions p \
                 WHERE p.request_id = requests.id) \
                 FROM requests INDEXED BY requests_queued WHERE builder_id = ?1 AND state = 0 \
                 ORDER BY requeued DESC, priority DESC, submitted_at, id LIMIT ?2",
            )?
            .query_map(params![sql_id(builder.0), limit], |row| {
                Ok((RequestId(rows::uint(row, 0)?), row.get(1)?))
            })?
            .collect()
        })
    }

    /// The step that a build began last.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_step(&self, build: BuildId) -> Result<Option<crate::store::StepRow>, StoreError> {
        let sql =
            format!("{} WHERE build_id = ?1 ORDER BY number DESC LIMIT 1", rows::SELECT_STEPS);
        self.ask(|db| db.prepare_cached(&sql)?.query_row([sql_id(build.0)], rows::step).optional())
    }
}
