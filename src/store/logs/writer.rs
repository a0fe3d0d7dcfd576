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
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::super::sqlite::{self, Answer, OnFatal, Trouble, classify};
use super::super::{Change, LogRow, Room, StoreError};
use super::chunk::{self, Packer, Reached, Which};
use super::handle::LogLimits;
use super::pending::{Part, Pending};
use super::port::{LogClosed, Piece, RemovedText};
use super::second::{self, is_second, second_id, stored_digest};
use crate::core::ids::LogId;
use crate::events::Events;
use crate::faults::crash_point;

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
/// Bytes of packed text between checkpoints.
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;
/// Commits between checkpoints.
const CHECKPOINT_COMMITS: u32 = 512;

/// Chunks of one log that are removed at a time.
const REMOVED_CHUNKS: u32 = 8;
/// When so much time has passed, no further log's text is removed in that commit.
const REMOVE_TIME: Duration = Duration::from_millis(1);
/// Pages that are given back with each log.
const GIVEN_BACK: u32 = 256;

/// Why a log is incomplete whose bytes are not what the worker wrote.
const DIFFERS: &str = "digest: the bytes that arrived differ from those that the worker wrote";

/// What the writer is asked for.
pub(super) enum Ask {
    Open(Arc<LogRow>),
    Reopen(Arc<LogRow>, Answer<u64>),
    Append(Piece),
    Close(LogId, Option<u64>, Answer<LogClosed>),
    Forget(LogId),
    Remove(Vec<LogId>, Answer<RemovedText>),
    Digest(LogId, String),
    AfterOthers(LogId, u64),
    Again(LogId),
    Stop,
}

/// What the next commit is made for.
#[derive(Default)]
struct Wanted {
    /// Logs to write.
    due: BTreeSet<LogId>,
    /// Logs of which to write what fills chunks.
    full: BTreeSet<LogId>,
    /// Logs to close after it.
    closing: Vec<(LogId, Option<u64>, Answer<LogClosed>)>,
    /// Logs whose length is asked for.
    reopened: Vec<(LogId, Answer<u64>)>,
    /// Logs with a piece that added nothing.
    tell: BTreeSet<LogId>,
    /// Logs that are forgotten after it.
    forgotten: BTreeSet<LogId>,
}

/// The thread's own.
pub(super) struct Writer {
    conn: Connection,
    packer: Packer,
    events: Events,
    on_fatal: OnFatal,
    room: Room,
    limits: LogLimits,
    logs: HashMap<LogId, Pending>,
    /// When to look at which log. One may be out of date: the log says.
    timers: BinaryHeap<Reverse<(Instant, LogId)>>,
    wanted: Wanted,
    /// The disk could not be written: the next try.
    blocked: Option<Instant>,
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
    /// On a file whose schema is up to date.
    pub fn new(
        conn: Connection,
        packer: Packer,
        events: Events,
        limits: LogLimits,
        room: Room,
        on_fatal: OnFatal,
    ) -> Self {
        Self {
            conn,
            packer,
            events,
            on_fatal,
            room,
            limits,
            logs: HashMap::new(),
            timers: BinaryHeap::new(),
            wanted: Wanted::default(),
            blocked: None,
            commits: 0,
        }
    }

    /// Does what is asked until it is told to stop.
    pub fn run(mut self, asks: &Receiver<Ask>) {
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
                    let limit = self.limits.log;
                    self.logs.entry(row.id).or_insert_with(|| Pending::new(row, limit));
                }
                Ask::Reopen(row, answer) => self.reopen(row, answer),
                Ask::Append(piece) => {
                    bytes += piece.bytes.len();
                    self.append(piece);
                }
                Ask::Close(log, expected, answer) => self.close(log, expected, answer),
                Ask::Forget(log) => {
                    self.logs.remove(&second_id(log));
                    self.wanted.forgotten.insert(log);
                }
                Ask::Remove(logs, answer) => self.remove(&logs, answer),
                Ask::Digest(log, digest) => {
                    if let Some(log) = self.logs.get_mut(&log) {
                        log.expected_digest = Some(digest);
                    }
                }
                Ask::AfterOthers(log, bytes) => {
                    let left = self.limits.build.saturating_sub(bytes);
                    if let Some(log) = self.logs.get_mut(&log).filter(|log| log.limit > left) {
                        log.limit = left;
                        log.of_build = Some(self.limits.build);
                    }
                }
                Ask::Again(log) => self.again(log),
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
            Ask::Close(log, _, _)
            | Ask::Forget(log)
            | Ask::Digest(log, _)
            | Ask::AfterOthers(log, _)
            | Ask::Again(log) => *log,
            Ask::Remove(logs, _) => return logs.iter().any(|log| self.closes(*log)),
            Ask::Stop => return !self.wanted.closing.is_empty(),
        };
        self.closes(log)
    }

    fn closes(&self, log: LogId) -> bool {
        let second = second_id(log);
        self.wanted.closing.iter().any(|(closing, _, _)| *closing == log || *closing == second)
    }

    fn reopen(&mut self, row: Arc<LogRow>, answer: Answer<u64>) {
        let id = row.id;
        self.wanted.forgotten.remove(&id);
        if !self.logs.contains_key(&id) {
            let last = chunk::read(&self.conn, id, Which::Last);
            let found = last.and_then(|last| Ok((last, chunk::overlong(&self.conn, id)?)));
            match found {
                Ok((last, overlong)) => {
                    let stored = last.map(|chunk| chunk.after);
                    let log = Pending::reopened(row, self.limits.log, stored, overlong);
                    self.logs.insert(id, log);
                }
                Err(error) => return answer.give(Err(error)),
            }
        }
        // What it has in memory is written first, and told as stored then.
        self.wanted.due.insert(id);
        self.wanted.reopened.push((id, answer));
    }

    /// The log is received once more, beside what there is.
    fn again(&mut self, id: LogId) {
        let Some(log) = self.logs.get(&id) else { return };
        let second = second_id(id);
        let log = log.second(second);
        self.logs.insert(second, log);
    }

    /// Where the bytes of this log go just now.
    fn receiving(&self, id: LogId) -> LogId {
        let second = second_id(id);
        if self.logs.contains_key(&second) { second } else { id }
    }

    fn append(&mut self, piece: Piece) {
        let id = self.receiving(piece.log);
        let log = self.logs.get_mut(&id).filter(|_| !self.wanted.forgotten.contains(&id));
        let Some(log) = log else {
            tracing::debug!(log = id.0, "a piece for a log that is not open was dropped");
            return;
        };
        log.append(piece);
        if log.tell {
            log.tell = false;
            self.wanted.tell.insert(id);
        }
        if log.has_full_chunk() {
            self.wanted.full.insert(id);
        }
        if log.due.is_none() && log.waits() {
            let due = Instant::now() + DELAY;
            log.due = Some(due);
            self.timers.push(Reverse((due, id)));
        }
    }

    fn close(&mut self, id: LogId, expected: Option<u64>, answer: Answer<LogClosed>) {
        let id = self.receiving(id);
        let log = self.logs.get_mut(&id).filter(|_| !self.wanted.forgotten.contains(&id));
        let Some(log) = log else {
            return answer.give(Err(StoreError::Missing(format!("open log {id}"))));
        };
        log.end();
        crash_point("log.close");
        if log.fits_inline() {
            let closed = self.closed(id, expected);
            self.wanted.due.remove(&id);
            self.wanted.tell.remove(&id);
            return answer.give(closed);
        }
        self.wanted.due.insert(id);
        self.wanted.closing.push((id, expected, answer));
    }

    /// Removes some text of logs whose rows are gone, and gives its room back: a
    /// little at a time, because logs that grow wait meanwhile.
    fn remove(&mut self, logs: &[LogId], answer: Answer<RemovedText>) {
        if let Some(log) = logs.iter().find(|log| self.logs.contains_key(log)) {
            let text = format!("log {log} is open and is not removed");
            return answer.give(Err(StoreError::Failed(text)));
        }
        let removed = self.remove_some(logs);
        self.commits += 1;
        let told = removed.map_err(|error| classify(&error));
        if told.is_err()
            && !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction of the log store could not be rolled back");
        }
        if let Err(Trouble::Fatal(text)) = &told {
            (self.on_fatal)(text);
        }
        answer.give(told.map_err(|trouble| trouble.told()));
        if self.commits >= CHECKPOINT_COMMITS {
            self.checkpoint();
        }
    }

    fn remove_some(&self, logs: &[LogId]) -> rusqlite::Result<RemovedText> {
        let began = Instant::now();
        let mut removed = RemovedText::default();
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for log in logs {
            let all = chunk::remove_some(&self.conn, *log, REMOVED_CHUNKS)?;
            // With each, or room would become free faster than it is given back.
            sqlite::give_back(&self.conn, GIVEN_BACK)?;
            removed.logs += usize::from(all);
            if !all || began.elapsed() >= REMOVE_TIME {
                break;
            }
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        removed.took = began.elapsed();
        Ok(removed)
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
        let urgent = looked_at.iter().any(|(at, _)| *at <= now)
            || !self.wanted.due.is_empty()
            || !self.wanted.full.is_empty();
        for (at, id) in looked_at {
            let Some(log) = self.logs.get(&id) else { continue };
            let soon = if self.wanted.full.contains(&id) { now } else { now + SOON };
            if urgent && log.due.is_some_and(|due| due <= soon) {
                self.wanted.due.insert(id);
            }
            if at > now {
                self.timers.push(Reverse((at, id)));
            } else {
                self.show(id, now);
            }
        }
        if self.room.is_full() && self.blocked.is_none_or(|until| until <= now) {
            // What is left of the disk is for the state.
            self.blocked = (!self.room.look()).then(|| now + RETRY);
        }
        if self.blocked.is_some_and(|until| until > now) {
            // Only what somebody waits for is tried.
            let needed = self.needed();
            let mut due = std::mem::take(&mut self.wanted.due);
            due.append(&mut self.wanted.full);
            let (due, later) = due.into_iter().partition(|id| needed.contains(id));
            self.wanted.due = later;
            self.retry_later();
            self.wanted.due = due;
            if needed.is_empty() {
                return;
            }
        }
        self.commit(now);
    }

    /// Logs whose write somebody waits for.
    fn needed(&self) -> BTreeSet<LogId> {
        let closing = self.wanted.closing.iter().map(|(id, _, _)| *id);
        closing.chain(self.wanted.reopened.iter().map(|(id, _)| *id)).collect()
    }

    /// Publishes a log's new lines, now or when its time has come.
    fn show(&mut self, id: LogId, now: Instant) {
        // The first reception is shown until the second one is whole.
        let log = self.logs.get_mut(&id).filter(|_| !is_second(id));
        let Some(log) = log else { return };
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
        let all = wanted.due.union(&wanted.forgotten).map(|id| (*id, Part::All));
        let is_all = |id: &LogId| wanted.due.contains(id) || wanted.forgotten.contains(id);
        let full = wanted.full.iter().filter(|id| !is_all(id)).map(|id| (*id, Part::FullChunks));
        let due: Vec<(LogId, Part)> = all
            .chain(full)
            .filter(|(id, _)| self.logs.get(id).is_some_and(Pending::waits))
            .collect();
        let mut written = self.write(&due);
        if matches!(written, Err(Trouble::Full(_))) {
            self.room.fill_up();
            // The end of a step waits for it, and results go through.
            if !wanted.closing.is_empty() && self.room.give_up() {
                written = self.write(&due);
            }
        }
        let trouble = match written {
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
        let fresh = due.into_iter().filter(|_| trouble.is_none());
        let fresh: BTreeSet<LogId> = fresh.map(|(id, _)| id).collect();
        for id in fresh.union(&wanted.tell) {
            if let Some(log) = self.logs.get(id)
                && let Some(confirm) = &log.confirm
            {
                crash_point("log.before_confirm");
                confirm.confirm(log.row.id, log.stored_of_worker);
            }
        }
        for (id, answer) in wanted.reopened {
            let stored = self.logs.get(&id).map_or(0, |log| log.stored_of_worker);
            answer.give(trouble.clone().map_or(Ok(stored), Err));
        }
        for (id, expected, answer) in wanted.closing {
            match (&trouble, self.logs.get(&id)) {
                (None, Some(_)) => {
                    let closed = self.closed(id, expected);
                    answer.give(closed);
                }
                // It stays open, so that the close can be asked again.
                (Some(error), _) => answer.give(Err(error.clone())),
                (None, None) => {
                    answer.give(Err(StoreError::Missing(format!("open log {id}"))));
                }
            }
        }
        if trouble.is_some() {
            self.wanted.forgotten.extend(wanted.forgotten);
        } else {
            for id in wanted.forgotten {
                self.logs.remove(&id);
            }
        }
        if self.packer.packed >= CHECKPOINT_BYTES || self.commits >= CHECKPOINT_COMMITS {
            self.checkpoint();
        }
    }

    /// Ends a log all of which is written, or fits into the state.
    fn closed(&mut self, id: LogId, expected: Option<u64>) -> Result<LogClosed, StoreError> {
        if is_second(id) {
            return self.second_closed(id, expected);
        }
        let missing = || StoreError::Missing(format!("open log {id}"));
        let log = self.logs.get(&id).ok_or_else(missing)?;
        let mut closed = log.closed(expected)?;
        if self.differs(log, id, expected) {
            closed.incomplete = Some(DIFFERS.into());
            closed.differs = !log.told_differs;
        }
        if closed.differs {
            // Whoever closes it may have it sent again.
            if let Some(log) = self.logs.get_mut(&id) {
                log.told_differs = true;
            }
        } else {
            self.logs.remove(&id);
        }
        Ok(closed)
    }

    fn differs(&self, log: &Pending, id: LogId, expected: Option<u64>) -> bool {
        if log.digest_is_stored(expected) {
            return match stored_digest(&self.conn, id) {
                Ok(digest) => log.expected_digest.as_ref() != Some(&digest),
                Err(error) => {
                    tracing::error!(%error, log = id.0, "a stored log cannot be read again");
                    true
                }
            };
        }
        log.differs(expected).unwrap_or(false)
    }

    /// Keeps what was received the second time if it is whole, else the first.
    fn second_closed(&mut self, id: LogId, expected: Option<u64>) -> Result<LogClosed, StoreError> {
        let missing = || StoreError::Missing(format!("open log {id}"));
        let second = self.logs.get(&id).ok_or_else(missing)?;
        let first = second.row.id;
        let whole = second.differs(expected) == Some(false);
        let closed = second.closed(expected)?;
        let done = if whole && second.is_on_disk() {
            second::take_place(&self.conn, first)
        } else if whole {
            // It goes into the state; of the first there may be chunks.
            chunk::clear(&self.conn, first)
        } else {
            chunk::clear(&self.conn, id)
        };
        done.map_err(|error| classify(&error).told())?;
        self.commits += 1;
        self.logs.remove(&id);
        if !whole {
            return self.closed(first, None);
        }
        self.logs.remove(&first);
        Ok(closed)
    }

    /// Writes these logs in one transaction. On an error nothing is written.
    fn write(&mut self, due: &[(LogId, Part)]) -> Result<Vec<(LogId, Part, Reached)>, Trouble> {
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

    fn try_write(
        &mut self,
        due: &[(LogId, Part)],
    ) -> rusqlite::Result<Vec<(LogId, Part, Reached)>> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut reached = Vec::with_capacity(due.len());
        for (id, part) in due {
            if let Some(log) = self.logs.get(id) {
                reached.push((*id, *part, log.write(&self.conn, &mut self.packer, *part)?));
            }
        }
        crash_point("log.after_write");
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        crash_point("log.after_commit");
        Ok(reached)
    }

    fn committed(&mut self, reached: &[(LogId, Part, Reached)], now: Instant) {
        self.commits += u32::from(!reached.is_empty());
        for (id, part, reached) in reached {
            if let Some(log) = self.logs.get_mut(id) {
                log.committed(*reached, *part);
            }
            self.show(*id, now);
        }
    }

    fn failed(&mut self, due: &[(LogId, Part)], trouble: &Trouble, now: Instant) {
        tracing::error!(?trouble, logs = due.len(), "log text could not be written");
        if let Trouble::Fatal(text) = trouble {
            (self.on_fatal)(text);
        }
        self.blocked = Some(now + RETRY);
        self.wanted.due.extend(due.iter().map(|(id, _)| *id));
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
        self.packer.packed = 0;
        self.commits = 0;
        if let Err(error) = sqlite::checkpoint(&self.conn, false) {
            match classify(&error) {
                Trouble::Fatal(text) => (self.on_fatal)(&text),
                Trouble::Full(_) => self.room.fill_up(),
                // Nothing is lost: what was told is in the write-ahead log.
                trouble => tracing::warn!(?trouble, "a checkpoint failed and comes again"),
            }
        }
    }
}
