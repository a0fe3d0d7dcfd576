//! The log store as others hold it: the way to the writer's thread.

use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::Semaphore;

use super::super::sqlite::{self, Answer, OnFatal, OpenError};
use super::super::{LogRow, Room};
use super::chunk::{MIGRATIONS, Packer};
use super::port::{LogStore, OnClosed, OnRemoved, OnReopened, Piece};
use super::reader::LogReader;
use super::second;
use super::writer::{Ask, Writer};
use super::{BUILD_LIMIT, LOG_LIMIT};
use crate::core::ids::LogId;
use crate::events::Events;

/// Bytes of pieces that may be in memory.
const BUDGET: usize = 64 * 1024 * 1024;

/// Pages that the writer's connection may keep, in KiB.
const CACHE_KIB: i32 = 2 * 1024;

/// Most of the worker's bytes that are kept; what is beyond is counted (FL08).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogLimits {
    /// Of one log.
    pub log: u64,
    /// Of all logs of a build together.
    pub build: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { log: LOG_LIMIT, build: BUILD_LIMIT }
    }
}

/// The log store on `logs.sqlite`. Clones share it.
#[derive(Clone)]
pub struct SqliteLogs(Arc<Shared>);

struct Shared {
    asks: Sender<Ask>,
    budget: Arc<Semaphore>,
    reader: LogReader,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteLogs {
    /// Opens the log store in a data folder, which the state store has locked
    /// before. `on_fatal` is called, on the writer's thread, when the process
    /// must end at once.
    ///
    /// # Errors
    /// When the file cannot be opened or written, or a newer program wrote it.
    pub fn open(dir: &Path, events: Events, on_fatal: OnFatal) -> Result<Self, OpenError> {
        Self::open_limited(dir, events, LogLimits::default(), Room::unwatched(), on_fatal)
    }

    /// The same, with other limits, and in room that the state store shares.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_limited(
        dir: &Path,
        events: Events,
        limits: LogLimits,
        room: Room,
        on_fatal: OnFatal,
    ) -> Result<Self, OpenError> {
        sqlite::make_folder(dir)?;
        let path = dir.join("logs.sqlite");
        let conn = sqlite::open_file(&path, MIGRATIONS)?;
        let failed = |reason: String| OpenError::Failed { path: path.clone(), reason };
        second::clear_left_over(&conn).map_err(|error| OpenError::sql(&path, &error))?;
        // Chunks are written once: there is little to gain from keeping them.
        conn.pragma_update(None, "cache_size", -CACHE_KIB)
            .map_err(|error| OpenError::sql(&path, &error))?;
        let packer =
            Packer::new().map_err(|error| failed(format!("no compressor can be made: {error}")))?;
        let (asks, receiver) = mpsc::channel();
        let writer = Writer::new(conn, packer, events, limits, room, on_fatal);
        let thread = thread::Builder::new()
            .name("logs".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| failed(format!("its thread cannot be started: {error}")))?;
        Ok(Self(Arc::new(Shared {
            asks,
            budget: Arc::new(Semaphore::new(BUDGET)),
            reader: LogReader::new(path),
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Writes everything that was appended so far and ends the thread. Later
    /// asks, of other clones too, are answered `Closed`.
    pub fn close(self) {
        // An error means that the thread has ended already.
        let _ = self.0.asks.send(Ask::Stop);
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log writer ended by a panic");
        }
    }

    /// Reads what is durable, with connections of its own.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.0.reader.clone()
    }

    /// Removes some of the text of logs whose rows are gone, of the first of them
    /// first. Asked after everything that was asked before.
    pub fn remove_some(&self, logs: Vec<LogId>, done: OnRemoved) {
        self.ask(Ask::Remove(logs, Answer::to(done)));
    }

    fn ask(&self, ask: Ask) {
        // An ask that comes back is dropped, and so its answer is given.
        let _ = self.0.asks.send(ask);
    }
}

impl LogStore for SqliteLogs {
    fn open(&self, row: Arc<LogRow>) {
        self.ask(Ask::Open(row));
    }

    fn reopen(&self, row: Arc<LogRow>, done: OnReopened) {
        self.ask(Ask::Reopen(row, Answer::to(done)));
    }

    fn after_others(&self, log: LogId, bytes: u64) {
        self.ask(Ask::AfterOthers(log, bytes));
    }

    fn append(&self, piece: Piece) {
        self.ask(Ask::Append(piece));
    }

    fn budget(&self) -> Arc<Semaphore> {
        self.0.budget.clone()
    }

    fn close(&self, log: LogId, expected: Option<u64>, done: OnClosed) {
        self.ask(Ask::Close(log, expected, Answer::to(done)));
    }

    fn expect_digest(&self, log: LogId, sha256: String) {
        self.ask(Ask::Digest(log, sha256));
    }

    fn again(&self, log: LogId) {
        self.ask(Ask::Again(log));
    }

    fn forget(&self, log: LogId) {
        self.ask(Ask::Forget(log));
    }
}
