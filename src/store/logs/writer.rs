//! The log writer's thread: what to write when, the group commit, and what is
//! told afterwards.
//!
//! Its queue has no limit of its own: the bytes in it and in the open logs are
//! bounded by the budget, of which whoever reads a socket takes a permit for
//! each piece. When the disk cannot be written the bytes stay in memory, no
//! permit comes back, and so the workers stop (row FL07); the writer tries
//! again each second.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::super::sqlite::{self, Answer, OnFatal, OpenError, Trouble, classify};
use super::super::{Change, LogRow, StoreError};
use super::chunk::{self, MIGRATIONS, Reached, Which};
use super::pending::Pending;
use super::port::{LogClosed, LogStore, OnClosed, OnReopened, Piece};
use super::reader::LogReader;
use crate::core::ids::LogId;
use crate::events::Events;

/// Bytes of pieces that may be in memory.
const BUDGET: usize = 64 * 1024 * 1024;
/// Longest time from a byte's arrival to its write.
const DELAY: Duration = Duration::from_millis(50);
/// A log that would be written this soon goes into a commit that is made anyway.
const SOON: Duration = Duration::from_millis(25);
/// Time between tries while the disk cannot be written.
const RETRY: Duration = Duration::from_secs(1);
/// Most asks between two commits.
const BATCH: usize = 1024;
/// Most bytes taken in between two commits.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Longest wait when nothing is due.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of text between checkpoints.
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;
/// Commits between checkpoints.
const CHECKPOINT_COMMITS: u32 = 512;

enum Ask {
    Open(Arc<LogRow>),
    Reopen(Arc<LogRow>, Answer<u64>),
    Append(Piece),
    Close(LogId, Option<u64>, Answer<LogClosed>),
    Stop,
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
        sqlite::make_folder(dir)?;
        let path = dir.join("logs.sqlite");
        let conn = sqlite::open_file(&path, MIGRATIONS)?;
        let failed = |reason: String| OpenError::Failed { path: path.clone(), reason };
        let zstd = zstd::bulk::Compressor::new(1)
            .map_err(|error| failed(format!("no compressor can be made: {error}")))?;
        let (asks, receiver) = mpsc::channel();
        let writer = Writer {
            conn,
            zstd,
            events,
            on_fatal,
            logs: HashMap::new(),
            timers: BinaryHeap::new(),
            wanted: Wanted::default(),
            blocked: None,
            bytes: 0,
            commits: 0,
        };
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

    fn append(&self, piece: Piece) {
        self.ask(Ask::Append(piece));
    }

    fn budget(&self) -> Arc<Semaphore> {
        self.0.budget.clone()
    }

    fn close(&self, log: LogId, expected: Option<u64>, done: OnClosed) {
        self.ask(Ask::Close(log, expected, Answer::to(done)));
    }
}

/// What the next commit is made for.
#[derive(Default)]
struct Wanted {
    /// Logs to write.
    due: BTreeSet<LogId>,
    /// Logs to close after it.
    closing: Vec<(LogId, Option<u64>, Answer<LogClosed>)>,
    /// Logs whose length is asked for.
    reopened: Vec<(LogId, Answer<u64>)>,
    /// Logs with a piece that added nothing.
    tell: BTreeSet<LogId>,
}

struct Writer {
    conn: Connection,
    zstd: zstd::bulk::Compressor<'static>,
    events: Events,
    on_fatal: OnFatal,
    logs: HashMap<LogId, Pending>,
    /// When to look at which log. One may be out of date: the log says.
    timers: BinaryHeap<Reverse<(Instant, LogId)>>,
    wanted: Wanted,
    /// The disk could not be written: the next try.
    blocked: Option<Instant>,
    /// Bytes of text since the last checkpoint.
    bytes: u64,
    /// Commits since the last checkpoint.
    commits: u32,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.on_fatal)("the log writer ended by a panic");
        }
    }
}

impl Writer {
    fn run(mut self, asks: &Receiver<Ask>) {
        let mut left_over = None;
        loop {
            let first = match left_over.take() {
                Some(ask) => Ok(ask),
                None => asks.recv_timeout(self.patience()),
            };
            let stop = match first {
                Ok(ask) => {
                    let (later, stop) = self.take_in(ask, asks);
                    left_over = later;
                    stop
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            if stop {
                break;
            }
            self.pass(Instant::now());
        }
        self.wanted.due.extend(self.logs.keys());
        self.blocked = None;
        self.commit(Instant::now());
        if let Err(error) = sqlite::checkpoint(&self.conn, true) {
            tracing::warn!(%error, "the log store's write-ahead log stays until the next start");
        }
    }

    /// How long to wait for an ask.
    fn patience(&self) -> Duration {
        let next = self.timers.peek().map(|Reverse((at, _))| *at);
        next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()).min(IDLE))
    }

    /// Takes in what waits. An ask about a log that is being closed has to
    /// wait for the commit, and is given back.
    fn take_in(&mut self, first: Ask, asks: &Receiver<Ask>) -> (Option<Ask>, bool) {
        let mut bytes = 0;
        let mut next = Some(first);
        for _ in 0..BATCH {
            let Some(ask) = next.take().or_else(|| asks.try_recv().ok()) else { break };
            if self.is_closing(&ask) {
                return (Some(ask), false);
            }
            match ask {
                Ask::Open(row) => {
                    self.logs.entry(row.id).or_insert_with(|| Pending::new(row));
                }
                Ask::Reopen(row, answer) => self.reopen(row, answer),
                Ask::Append(piece) => {
                    bytes += piece.bytes.len();
                    self.append(piece);
                }
                Ask::Close(log, expected, answer) => self.close(log, expected, answer),
                Ask::Stop => return (None, true),
            }
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        (None, false)
    }

    fn is_closing(&self, ask: &Ask) -> bool {
        let log = match ask {
            Ask::Open(row) | Ask::Reopen(row, _) => row.id,
            Ask::Append(piece) => piece.log,
            Ask::Close(log, _, _) => *log,
            Ask::Stop => return !self.wanted.closing.is_empty(),
        };
        self.wanted.closing.iter().any(|(closing, _, _)| *closing == log)
    }

    fn reopen(&mut self, row: Arc<LogRow>, answer: Answer<u64>) {
        let id = row.id;
        if !self.logs.contains_key(&id) {
            match chunk::read(&self.conn, id, Which::Last) {
                Ok(last) => {
                    let stored = last.map(|chunk| chunk.after);
                    self.logs.insert(id, Pending::reopened(row, stored));
                }
                Err(error) => return answer.give(Err(error)),
            }
        }
        // What it has in memory is written first, and told as stored then.
        self.wanted.due.insert(id);
        self.wanted.reopened.push((id, answer));
    }

    fn append(&mut self, piece: Piece) {
        let id = piece.log;
        let Some(log) = self.logs.get_mut(&id) else {
            tracing::debug!(log = id.0, "a piece for a log that is not open was dropped");
            return;
        };
        log.append(piece);
        if log.tell {
            log.tell = false;
            self.wanted.tell.insert(id);
        }
        if log.has_full_chunk() {
            self.wanted.due.insert(id);
        }
        if log.due.is_none() && log.waits() {
            let due = Instant::now() + DELAY;
            log.due = Some(due);
            self.timers.push(Reverse((due, id)));
        }
    }

    fn close(&mut self, id: LogId, expected: Option<u64>, answer: Answer<LogClosed>) {
        let Some(log) = self.logs.get(&id) else {
            return answer.give(Err(StoreError::Missing(format!("open log {id}"))));
        };
        if log.fits_inline() {
            let closed = log.closed(expected);
            self.logs.remove(&id);
            self.wanted.due.remove(&id);
            self.wanted.tell.remove(&id);
            return answer.give(closed);
        }
        self.wanted.due.insert(id);
        self.wanted.closing.push((id, expected, answer));
    }

    /// Commits what is due, and shows what may be shown.
    fn pass(&mut self, now: Instant) {
        let mut looked_at = Vec::new();
        while let Some(Reverse((at, id))) = self.timers.peek().copied()
            && at <= now + SOON
        {
            self.timers.pop();
            looked_at.push((at, id));
        }
        let urgent = looked_at.iter().any(|(at, _)| *at <= now) || !self.wanted.due.is_empty();
        for (at, id) in looked_at {
            let Some(log) = self.logs.get(&id) else { continue };
            if urgent && log.due.is_some_and(|due| due <= now + SOON) {
                self.wanted.due.insert(id);
            }
            if at > now {
                self.timers.push(Reverse((at, id)));
            } else {
                self.show(id, now);
            }
        }
        if self.blocked.is_some_and(|until| until > now) && !self.must_answer() {
            self.retry_later();
        } else {
            self.commit(now);
        }
    }

    fn must_answer(&self) -> bool {
        !self.wanted.closing.is_empty() || !self.wanted.reopened.is_empty()
    }

    /// Publishes a log's new lines, now or when its time has come.
    fn show(&mut self, id: LogId, now: Instant) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        if let Some(row) = log.show(now) {
            self.events.publish(vec![Change::LogAppend(Arc::new(row))]);
        } else if let Some(at) = log.show_at(now) {
            self.timers.push(Reverse((at, id)));
        }
    }

    /// One commit for all logs that are due, then everything that it allows to
    /// be told.
    fn commit(&mut self, now: Instant) {
        let wanted = std::mem::take(&mut self.wanted);
        let due: Vec<LogId> = wanted
            .due
            .iter()
            .filter(|id| self.logs.get(id).is_some_and(Pending::waits))
            .copied()
            .collect();
        let trouble = match self.write(&due) {
            Ok(reached) => {
                self.blocked = None;
                self.committed(&reached, now);
                None
            }
            Err(trouble) => {
                self.failed(&due, &trouble, now);
                Some(trouble.told())
            }
        };
        let fresh: BTreeSet<LogId> = due.into_iter().filter(|_| trouble.is_none()).collect();
        for id in fresh.union(&wanted.tell) {
            if let Some(log) = self.logs.get(id)
                && let Some(confirm) = &log.confirm
            {
                confirm.confirm(*id, log.stored.worker_end);
            }
        }
        for (id, answer) in wanted.reopened {
            let stored = self.logs.get(&id).map_or(0, |log| log.stored.worker_end);
            answer.give(trouble.clone().map_or(Ok(stored), Err));
        }
        for (id, expected, answer) in wanted.closing {
            match (&trouble, self.logs.get(&id)) {
                (None, Some(log)) => {
                    let closed = log.closed(expected);
                    self.logs.remove(&id);
                    answer.give(closed);
                }
                // It stays open, so that the close can be asked again.
                (Some(error), _) => answer.give(Err(error.clone())),
                (None, None) => {
                    answer.give(Err(StoreError::Missing(format!("open log {id}"))));
                }
            }
        }
        if self.bytes >= CHECKPOINT_BYTES || self.commits >= CHECKPOINT_COMMITS {
            self.checkpoint();
        }
    }

    /// Writes these logs in one transaction. On an error nothing is written.
    fn write(&mut self, due: &[LogId]) -> Result<Vec<(LogId, Reached)>, Trouble> {
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let written = self.try_write(due).map_err(|error| classify(&error));
        if written.is_err()
            && !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction of the log store could not be rolled back");
        }
        written
    }

    fn try_write(&mut self, due: &[LogId]) -> rusqlite::Result<Vec<(LogId, Reached)>> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut reached = Vec::with_capacity(due.len());
        for id in due {
            if let Some(log) = self.logs.get(id) {
                reached.push((*id, log.write(&self.conn, &mut self.zstd)?));
            }
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(reached)
    }

    fn committed(&mut self, reached: &[(LogId, Reached)], now: Instant) {
        self.commits += u32::from(!reached.is_empty());
        for (id, reached) in reached {
            if let Some(log) = self.logs.get_mut(id) {
                self.bytes += reached.length.saturating_sub(log.stored.length);
                log.committed(*reached);
            }
            self.show(*id, now);
        }
    }

    fn failed(&mut self, due: &[LogId], trouble: &Trouble, now: Instant) {
        tracing::error!(?trouble, logs = due.len(), "log text could not be written");
        if let Trouble::Fatal(text) = trouble {
            (self.on_fatal)(text);
        }
        self.blocked = Some(now + RETRY);
        self.wanted.due.extend(due);
        self.retry_later();
    }

    /// Puts off what is due until the next try.
    fn retry_later(&mut self) {
        let Some(until) = self.blocked else { return };
        for id in std::mem::take(&mut self.wanted.due) {
            if let Some(log) = self.logs.get_mut(&id)
                && log.due != Some(until)
            {
                log.due = Some(until);
                self.timers.push(Reverse((until, id)));
            }
        }
    }

    fn checkpoint(&mut self) {
        self.bytes = 0;
        self.commits = 0;
        if let Err(error) = sqlite::checkpoint(&self.conn, false) {
            match classify(&error) {
                Trouble::Fatal(text) => (self.on_fatal)(&text),
                // Nothing is lost: what was told is in the write-ahead log.
                trouble => tracing::warn!(?trouble, "a checkpoint failed and comes again"),
            }
        }
    }
}
