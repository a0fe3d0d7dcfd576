//! The writer thread: a queue, the group commit, and what is told afterwards.
//!
//! The queue has no limit of its own. What enters it is control traffic, a few
//! small records for each build, and the askers are bounded already: a builder
//! has one ask under way for each build, the web a limited number of requests.
//! A full queue could only be answered by losing an end of a build or by
//! blocking an actor. [`SqliteStore::depth`] shows how long it is.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::params;

use super::answer::Answer;
use super::engine::{Engine, MIGRATIONS};
use super::errors::{Trouble, classify};
use super::open::{self, FolderLock, OnFatal, OpenError};
use crate::core::ids::BuilderId;
use crate::events::Events;
use crate::store::*;
use crate::telemetry::metrics::metrics;

/// Most asks in one commit.
const BATCH: usize = 1024;
/// Longest work for one commit.
const BATCH_TIME: Duration = Duration::from_millis(4);
/// Operations between checkpoints.
const CHECKPOINT_OPS: usize = 4096;
/// Commits between checkpoints.
const CHECKPOINT_COMMITS: usize = 256;
/// How often the thread looks around when nobody asks.
const IDLE: Duration = Duration::from_secs(10);
/// Event numbers that one row reserves.
const EVENTS_AHEAD: u64 = 1_000_000;

enum Ask {
    Do(Job),
    Close,
}

enum Job {
    Write(Transaction, Answer<Vec<OpOutcome>>),
    Load(BuilderId, Answer<BuilderRecords>),
}

/// The state store on `state.sqlite`. Clones share it.
#[derive(Clone)]
pub struct SqliteStore(Arc<Shared>);

struct Shared {
    asks: Sender<Ask>,
    depth: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in a data folder, which is made when it is not there,
    /// and locks the folder. The events are numbered from where no earlier
    /// master's were. `on_fatal` is called, on the writer's thread, when the
    /// process must end at once.
    ///
    /// # Errors
    /// When another master has the folder, a newer program wrote it, or it
    /// cannot be written. The texts name the path and what to do.
    pub fn open(dir: &Path, on_fatal: OnFatal) -> Result<(Self, Events), OpenError> {
        open::make_folder(dir)?;
        let lock = FolderLock::take(dir)?;
        let path = dir.join("state.sqlite");
        let engine = Engine::on(open::open_file(&path, MIGRATIONS)?);
        let first = prepare(&engine).map_err(|error| OpenError::sql(&path, &error))?;
        let events = Events::starting_at(first);
        let (asks, receiver) = mpsc::channel();
        let depth = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            engine,
            events: events.clone(),
            reserved: first + EVENTS_AHEAD,
            depth: depth.clone(),
            ops: 0,
            commits: 0,
            on_fatal,
            _lock: lock,
        };
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| OpenError::Failed {
                path,
                reason: format!("its thread cannot be started: {error}"),
            })?;
        let shared = Shared { asks, depth, thread: Mutex::new(Some(thread)) };
        Ok((Self(Arc::new(shared)), events))
    }

    /// Writes everything asked for so far, ends the thread and unlocks the
    /// folder. Later asks, of other clones too, are answered `Closed`.
    pub fn close(self) {
        // An error means that the thread has ended already.
        let _ = self.0.asks.send(Ask::Close);
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended by a panic");
        }
    }

    /// Asks that wait for the writer.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.depth.load(Ordering::Relaxed)
    }

    fn ask(&self, job: Job) {
        self.0.depth.fetch_add(1, Ordering::Relaxed);
        if self.0.asks.send(Ask::Do(job)).is_err() {
            // The job came back and was dropped, and so was answered.
            self.0.depth.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl StateStore for SqliteStore {
    fn write(&self, transaction: Transaction, done: OnWritten) {
        self.ask(Job::Write(transaction, Answer::to(done)));
    }

    fn load_builder(&self, builder: BuilderId, done: OnLoaded) {
        self.ask(Job::Load(builder, Answer::to(done)));
    }
}

/// Makes an opened file this process's own: nobody is attached, and event
/// numbers are reserved. Returns the first of them.
fn prepare(engine: &Engine) -> rusqlite::Result<u64> {
    let conn = engine.conn();
    conn.execute_batch("BEGIN IMMEDIATE; UPDATE workers SET connected = 0 WHERE connected = 1;")?;
    let first: Option<String> = conn
        .prepare("SELECT value FROM meta WHERE key = 'event_seq'")?
        .query_map([], |row| row.get(0))?
        .next()
        .transpose()?;
    let first = first.and_then(|text| text.parse().ok()).unwrap_or(1);
    reserve(engine, first + EVENTS_AHEAD)?;
    conn.execute_batch("COMMIT")?;
    Ok(first)
}

/// Keeps that events below `end` may have been told.
fn reserve(engine: &Engine, end: u64) -> rusqlite::Result<()> {
    engine
        .conn()
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('event_seq', ?1)")?
        .execute(params![end.to_string()])?;
    Ok(())
}

/// An ask that was carried out, in a commit that is not made yet.
enum Carried {
    Written(Answer<Vec<OpOutcome>>, Written),
    Loaded(Answer<BuilderRecords>, Box<Result<BuilderRecords, StoreError>>),
}

impl Carried {
    fn tell(self) {
        match self {
            Self::Written(answer, written) => answer.give(written),
            Self::Loaded(answer, records) => answer.give(*records),
        }
    }

    fn tell_failed(self, error: &StoreError) {
        match self {
            Self::Written(answer, _) => answer.give(Err(error.clone())),
            Self::Loaded(answer, _) => answer.give(Err(error.clone())),
        }
    }
}

struct Writer {
    engine: Engine,
    events: Events,
    reserved: u64,
    depth: Arc<AtomicUsize>,
    /// Operations since the last checkpoint.
    ops: usize,
    /// Commits since the last checkpoint.
    commits: usize,
    on_fatal: OnFatal,
    _lock: FolderLock,
}

impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.on_fatal)("the store's writer ended by a panic");
        }
    }
}

impl Writer {
    fn run(mut self, asks: &Receiver<Ask>) {
        loop {
            match asks.recv_timeout(IDLE) {
                Ok(Ask::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.reserve_when_idle();
                    if self.commits > 0 {
                        self.checkpoint();
                    }
                }
                Ok(Ask::Do(job)) => {
                    if self.batch(job, asks) {
                        break;
                    }
                }
            }
        }
        if let Err(error) = open::checkpoint(self.engine.conn(), true) {
            tracing::warn!(%error, "the store's write-ahead log stays until the next start");
        }
    }

    /// One commit with everything that waits. True when the close was asked.
    fn batch(&mut self, first: Job, asks: &Receiver<Ask>) -> bool {
        let began = Instant::now();
        let reserved = self.reserved;
        let mut carried = Vec::new();
        let mut trouble = self.engine.begin().err();
        let mut next = Some(first);
        let mut closing = false;
        while let Some(job) = next.take() {
            self.depth.fetch_sub(1, Ordering::Relaxed);
            carried.push(self.carry_out(job, &mut trouble));
            // In trouble everybody who waits is told at once.
            if carried.len() < BATCH && (trouble.is_some() || began.elapsed() < BATCH_TIME) {
                match asks.try_recv() {
                    Ok(Ask::Do(job)) => next = Some(job),
                    Ok(Ask::Close) => closing = true,
                    Err(_) => {}
                }
            }
        }
        if trouble.is_none() {
            trouble = self.reserve_ahead().err();
        }
        match trouble {
            None => trouble = self.engine.commit().err(),
            Some(_) => self.engine.undo(),
        }
        let waiting = self.depth.load(Ordering::Relaxed);
        metrics().committed(began.elapsed(), carried.len(), waiting, trouble.is_none());
        self.tell(carried, trouble.as_ref());
        if trouble.is_some() {
            self.reserved = reserved;
        } else {
            self.commits += 1;
            if self.commits >= CHECKPOINT_COMMITS || self.ops >= CHECKPOINT_OPS {
                self.checkpoint();
            }
        }
        closing
    }

    /// After a trouble the jobs of a commit are only collected, to be told.
    fn carry_out(&mut self, job: Job, trouble: &mut Option<Trouble>) -> Carried {
        match job {
            Job::Write(transaction, answer) => {
                if trouble.is_none() {
                    self.ops += transaction.ops.len();
                    match self.engine.run(&transaction) {
                        Ok(written) => return Carried::Written(answer, written),
                        Err(found) => *trouble = Some(found),
                    }
                }
                Carried::Written(answer, Err(StoreError::Closed))
            }
            Job::Load(builder, answer) => {
                let records = match trouble {
                    None => self.engine.load_builder(builder),
                    Some(_) => Err(StoreError::Closed),
                };
                Carried::Loaded(answer, Box::new(records))
            }
        }
    }

    /// Publishes what became true, then tells those who asked for it.
    fn tell(&mut self, carried: Vec<Carried>, trouble: Option<&Trouble>) {
        let Some(trouble) = trouble else {
            self.events.publish(self.engine.drain_changes());
            carried.into_iter().for_each(Carried::tell);
            return;
        };
        tracing::error!(?trouble, asks = carried.len(), "a commit failed");
        if let Trouble::Fatal(text) = trouble {
            (self.on_fatal)(text);
        }
        let told = trouble.told();
        for one in carried {
            one.tell_failed(&told);
        }
    }

    /// Reserves more event numbers, in the commit in progress, when half of
    /// them are used.
    fn reserve_ahead(&mut self) -> Result<(), Trouble> {
        let next = self.events.next_seq();
        if next + EVENTS_AHEAD / 2 < self.reserved {
            return Ok(());
        }
        let end = next + EVENTS_AHEAD;
        reserve(&self.engine, end).map_err(|error| classify(&error))?;
        self.reserved = end;
        Ok(())
    }

    /// The log store publishes on its own, also when nobody writes here.
    fn reserve_when_idle(&mut self) {
        let reserved = self.reserved;
        if self.events.next_seq() + EVENTS_AHEAD / 2 < reserved {
            return;
        }
        let done = self.engine.begin().and_then(|()| self.reserve_ahead());
        let done = done.and_then(|()| self.engine.commit());
        if let Err(trouble) = done {
            self.engine.undo();
            self.reserved = reserved;
            tracing::warn!(?trouble, "no event numbers could be reserved");
        }
    }

    fn checkpoint(&mut self) {
        self.commits = 0;
        self.ops = 0;
        if let Err(error) = open::checkpoint(self.engine.conn(), false) {
            match classify(&error) {
                Trouble::Fatal(text) => (self.on_fatal)(&text),
                // Nothing is lost: what was told is in the write-ahead log.
                trouble => tracing::warn!(?trouble, "a checkpoint failed and comes again"),
            }
        }
    }
}
