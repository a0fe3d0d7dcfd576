//! The readers: a few read-only connections to the state file, for whoever
//! shows what is stored.
//!
//! Every question is bounded: in rows ([`MAX_ROWS`]) and in time
//! ([`QUERY_LIMIT`]). The methods block, so callers of the async world use
//! them through `web::block`. Deliberately absent: any write, and any fact that
//! is not committed; a reader's connection cannot see one.

mod counts;
mod listed;
mod page;
mod predictions;
mod rows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::super::{
    BuildRow, BuilderRow, BuildsetRow, LogRow, NoteRow, RequestRow, SourceStampRow, StepRow,
    StoreError, WorkerRow,
};
use crate::core::ids::*;
use crate::core::values::Properties;

use counts::Counts;
pub use listed::{Fork, Listed, OF_STAMP, Shown};
pub use page::{Filter, FilterOp, OF_BUILD, OF_CHANGE, OF_PARENT, Page, PageOf, Scalar};

/// The most rows that one question is answered with.
pub const MAX_ROWS: u64 = 10_000;

/// How far rows beyond the answer are counted.
pub const MAX_COUNT: u64 = 10_000;

/// How long one question may take.
pub const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// A log, and its text when that is so short that it is in its row.
pub type LogWithText = (LogRow, Option<Arc<[u8]>>);

/// How many questions are answered side by side.
const CONNECTIONS: usize = 8;

/// Statements that each connection keeps ready.
const STATEMENTS: usize = 64;

/// How many steps of SQLite's machine pass between looks at the clock.
const STEPS_PER_LOOK: i32 = 10_000;

/// Reads the state file. Clones share the connections.
#[derive(Clone)]
pub struct StateReader(Arc<Pool>);

struct Pool {
    file: PathBuf,
    /// How long one question may take.
    limit: Duration,
    state: Mutex<PoolState>,
    returned: Condvar,
    counts: Counts,
}

#[derive(Default)]
struct PoolState {
    idle: Vec<Connection>,
    open: usize,
}

/// A connection for the time of one question.
struct Lease<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        match self.connection.take() {
            Some(connection) => state.idle.push(connection),
            None => state.open = state.open.saturating_sub(1),
        }
        drop(state);
        self.pool.returned.notify_one();
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self) -> Result<Lease<'_>, StoreError> {
        let deadline = Instant::now() + self.limit;
        let mut state = self.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(Lease { pool: self, connection: Some(connection) });
            }
            if state.open < CONNECTIONS {
                state.open += 1;
                drop(state);
                let mut lease = Lease { pool: self, connection: None };
                lease.connection = Some(open(&self.file)?);
                return Ok(lease);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Failed(
                    "too many questions at once; ask again in a moment".into(),
                ));
            }
            state =
                self.returned.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn open(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)
        .map_err(|error| StoreError::Failed(format!("cannot open {}: {error}", file.display())))?;
    connection.busy_timeout(Duration::from_secs(1)).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn failed(error: rusqlite::Error) -> StoreError {
    if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
        return StoreError::Failed(
            "the question took too long; ask for less, by a filter, a limit or another order"
                .into(),
        );
    }
    StoreError::Failed(error.to_string())
}

/// SQLite's integers have a sign; no id of ours needs the last bit.
fn sql_id(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

impl StateReader {
    /// Reads `state.sqlite` in the folder `data_dir`, which the store's writer
    /// must have made. One connection is opened at once, to find out here when
    /// that does not work.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::with_limit(data_dir, QUERY_LIMIT)
    }

    /// The same, where each question may take so long.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn with_limit(data_dir: &Path, limit: Duration) -> Result<Self, StoreError> {
        let reader = Self(Arc::new(Pool {
            file: data_dir.join("state.sqlite"),
            limit,
            state: Mutex::default(),
            returned: Condvar::new(),
            counts: Counts::default(),
        }));
        reader.check()?;
        Ok(reader)
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let lease = self.0.lease()?;
        let Some(connection) = &lease.connection else {
            return Err(StoreError::Closed);
        };
        let deadline = Instant::now() + self.0.limit;
        connection
            .progress_handler(STEPS_PER_LOOK, Some(move || Instant::now() > deadline))
            .map_err(failed)?;
        question(connection).map_err(failed)
    }

    /// Whether the store can be read.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self) -> Result<(), StoreError> {
        self.ask(|db| db.query_row("SELECT count(*) FROM builders LIMIT 1", [], |_| Ok(())))
    }

    /// All builders, by id, those that are no longer configured included.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn builders(&self) -> Result<Vec<BuilderRow>, StoreError> {
        self.ask(|db| {
            let mut workers: BTreeMap<i64, Vec<WorkerId>> = BTreeMap::new();
            let mut statement = db.prepare_cached(
                "SELECT builder_id, worker_id FROM builder_workers ORDER BY builder_id, place",
            )?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let worker = WorkerId(rows::uint(row, 1)?);
                workers.entry(row.get(0)?).or_default().push(worker);
            }
            let mut statement =
                db.prepare_cached(&format!("{} ORDER BY id", rows::SELECT_BUILDERS))?;
            let mut builders = Vec::new();
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let own = workers.remove(&row.get(0)?).unwrap_or_default();
                builders.push(rows::builder(row, own)?);
            }
            Ok(builders)
        })
    }

    fn builder_where(
        &self,
        condition: &str,
        value: impl rusqlite::ToSql,
    ) -> Result<Option<BuilderRow>, StoreError> {
        self.ask(|db| {
            let text = format!("{} WHERE {condition}", rows::SELECT_BUILDERS);
            let found = db
                .prepare_cached(&text)?
                .query_row([value], |row| rows::builder(row, Vec::new()))
                .optional()?;
            let Some(mut builder) = found else {
                return Ok(None);
            };
            let mut statement = db.prepare_cached(
                "SELECT worker_id FROM builder_workers WHERE builder_id = ?1 ORDER BY place",
            )?;
            builder.workers = statement
                .query_map([sql_id(builder.id.0)], |row| Ok(WorkerId(rows::uint(row, 0)?)))?
                .collect::<Result<_, _>>()?;
            Ok(Some(builder))
        })
    }

    /// One builder.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn builder(&self, id: BuilderId) -> Result<Option<BuilderRow>, StoreError> {
        self.builder_where("id = ?1", sql_id(id.0))
    }

    /// One builder, by its name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn builder_named(&self, name: &str) -> Result<Option<BuilderRow>, StoreError> {
        self.builder_where("name = ?1", name)
    }

    /// All workers, by id, those that are no longer configured included.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn workers(&self) -> Result<Vec<WorkerRow>, StoreError> {
        self.ask(|db| {
            db.prepare_cached(&format!("{} ORDER BY id", rows::SELECT_WORKERS))?
                .query_map([], rows::worker)?
                .collect()
        })
    }

    /// One worker.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn worker(&self, id: WorkerId) -> Result<Option<WorkerRow>, StoreError> {
        self.one(&format!("{} WHERE id = ?1", rows::SELECT_WORKERS), id.0, rows::worker)
    }

    /// One worker, by its name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn worker_named(&self, name: &str) -> Result<Option<WorkerRow>, StoreError> {
        self.ask(|db| {
            db.prepare_cached(&format!("{} WHERE name = ?1", rows::SELECT_WORKERS))?
                .query_row([name], rows::worker)
                .optional()
        })
    }

    /// The configured builders of each worker that has any.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn configured_on(&self) -> Result<BTreeMap<WorkerId, Vec<BuilderId>>, StoreError> {
        self.ask(|db| {
            let mut found: BTreeMap<WorkerId, Vec<BuilderId>> = BTreeMap::new();
            let mut statement = db.prepare_cached(
                "SELECT w.worker_id, w.builder_id FROM builder_workers w \
                 JOIN builders b ON b.id = w.builder_id \
                 WHERE b.configured = 1 ORDER BY w.worker_id, w.builder_id",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let builder = BuilderId(rows::uint(row, 1)?);
                found.entry(WorkerId(rows::uint(row, 0)?)).or_default().push(builder);
            }
            Ok(found)
        })
    }

    fn one<T>(
        &self,
        sql: &str,
        id: u64,
        map: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.ask(|db| db.prepare_cached(sql)?.query_row([sql_id(id)], map).optional())
    }

    /// Builds that have a number, so not those that are only claimed.
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn builds(&self, page: &Page) -> Result<PageOf<BuildRow>, StoreError> {
        self.page(page, &page::BUILDS, rows::SELECT_BUILDS, rows::build)
    }

    /// The same without their properties, which are most of what a row holds.
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn bare_builds(&self, page: &Page) -> Result<PageOf<BuildRow>, StoreError> {
        self.page(page, &page::BUILDS, rows::SELECT_BARE_BUILDS, rows::bare_build)
    }

    fn page<T>(
        &self,
        page: &Page,
        table: &page::Table,
        select: &str,
        map: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<PageOf<T>, StoreError> {
        self.ask(|db| page.read(db, table, select, &self.0.counts, map))
    }

    /// One build, once it has its number.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn build(&self, id: BuildId) -> Result<Option<BuildRow>, StoreError> {
        let sql = format!("{} WHERE id = ?1 AND number IS NOT NULL", rows::SELECT_BUILDS);
        self.one(&sql, id.0, rows::build)
    }

    /// One build, by its number.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn build_numbered(
        &self,
        builder: BuilderId,
        number: BuildNumber,
    ) -> Result<Option<BuildRow>, StoreError> {
        self.ask(|db| {
            let sql = format!("{} WHERE builder_id = ?1 AND number = ?2", rows::SELECT_BUILDS);
            db.prepare_cached(&sql)?
                .query_row(params![sql_id(builder.0), sql_id(number.0)], rows::build)
                .optional()
        })
    }

    /// The build that has this request and has not ended, with all requests
    /// that it has. It may be one that is only claimed.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open_build_of(
        &self,
        request: RequestId,
    ) -> Result<Option<(BuildRow, Vec<RequestId>)>, StoreError> {
        self.ask(|db| {
            // One transaction: both answers are of one moment.
            let db = db.unchecked_transaction()?;
            let sql = format!(
                "{} WHERE state < 2 AND id IN (SELECT build_id FROM build_requests \
                 WHERE request_id = ?1)",
                rows::SELECT_BUILDS
            );
            let build =
                db.prepare_cached(&sql)?.query_row([sql_id(request.0)], rows::build).optional()?;
            let Some(build) = build else { return Ok(None) };
            let requests = db
                .prepare_cached(
                    "SELECT request_id FROM build_requests WHERE build_id = ?1 ORDER BY request_id",
                )?
                .query_map([sql_id(build.id.0)], |row| rows::uint(row, 0).map(RequestId))?
                .collect::<Result<_, _>>()?;
            Ok(Some((build, requests)))
        })
    }

    /// Build requests.
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn requests(&self, page: &Page) -> Result<PageOf<RequestRow>, StoreError> {
        self.page(page, &page::REQUESTS, rows::SELECT_REQUESTS, rows::request)
    }

    /// One build request.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn request(&self, id: RequestId) -> Result<Option<RequestRow>, StoreError> {
        self.one(&format!("{} WHERE id = ?1", rows::SELECT_REQUESTS), id.0, rows::request)
    }

    /// Buildsets with their source stamps.
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn buildsets(&self, page: &Page) -> Result<PageOf<BuildsetRow>, StoreError> {
        self.ask(|db| {
            let (select, counts) = (rows::SELECT_BUILDSETS, &self.0.counts);
            let found = page.read(db, &page::BUILDSETS, select, counts, rows::buildset)?;
            let mut rows = Vec::with_capacity(found.rows.len());
            for (set, stamps) in found.rows {
                rows.push(rows::with_stamps(db, set, &stamps)?);
            }
            Ok(PageOf { rows, total: found.total, more: found.more })
        })
    }

    /// One buildset with its source stamps.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn buildset(&self, id: BuildsetId) -> Result<Option<BuildsetRow>, StoreError> {
        self.ask(|db| {
            let sql = format!("{} WHERE id = ?1", rows::SELECT_BUILDSETS);
            let found =
                db.prepare_cached(&sql)?.query_row([sql_id(id.0)], rows::buildset).optional()?;
            found.map(|(set, stamps)| rows::with_stamps(db, set, &stamps)).transpose()
        })
    }

    /// Properties of one buildset.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn buildset_properties(
        &self,
        id: BuildsetId,
    ) -> Result<Option<Arc<Properties>>, StoreError> {
        self.one("SELECT properties FROM buildsets WHERE id = ?1", id.0, |row| {
            rows::properties(row, 0)
        })
    }

    /// Source stamps.
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn sourcestamps(&self, page: &Page) -> Result<PageOf<SourceStampRow>, StoreError> {
        self.page(page, &page::STAMPS, rows::SELECT_STAMPS, rows::stamp)
    }

    /// One source stamp.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn sourcestamp(&self, id: u64) -> Result<Option<SourceStampRow>, StoreError> {
        self.one(&format!("{} WHERE id = ?1", rows::SELECT_STAMPS), id, rows::stamp)
    }

    /// Steps. A page without a filter on the build reads all there are.
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn steps(&self, page: &Page) -> Result<PageOf<StepRow>, StoreError> {
        self.page(page, &page::STEPS, rows::SELECT_STEPS, rows::step)
    }

    /// One step.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn step(&self, id: StepId) -> Result<Option<StepRow>, StoreError> {
        self.one(&format!("{} WHERE id = ?1", rows::SELECT_STEPS), id.0, rows::step)
    }

    /// Moments in the lives of builders, each also its worker's (row B30).
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn notes(&self, page: &Page) -> Result<PageOf<NoteRow>, StoreError> {
        self.page(page, &page::NOTES, rows::SELECT_NOTES, rows::note)
    }

    /// Logs. A page without a filter on the step reads all there are.
    ///
    /// # Errors
    /// When the store cannot be read, or the page names an unknown field.
    pub fn logs(&self, page: &Page) -> Result<PageOf<LogRow>, StoreError> {
        self.page(page, &page::LOGS, rows::SELECT_LOGS, rows::log)
    }

    /// One log, with its text when that is so short that it is in its row.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn log(&self, id: LogId) -> Result<Option<LogWithText>, StoreError> {
        self.one(rows::SELECT_LOG_WITH_TEXT, id.0, |row| {
            let inline: Option<Vec<u8>> = row.get(9)?;
            Ok((rows::log(row)?, inline.map(Into::into)))
        })
    }
}
