//! The writer thread: a queue, the group commit, and what is told afterwards.
//!
//! The queue has no limit of its own. What enters it is control traffic, a few
//! small records for each build, and the askers are bounded already: a builder
//! has one ask under way for each build, the web a limited number of requests.
//! A full queue could only be answered by losing an end of a build or by
//! blocking an actor. [`SqliteStore::depth`] shows how long it is.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::cleanup::{self, OnRemoved, Removal, Removed};
use super::engine::{Engine, MIGRATIONS};
use super::errors::{Trouble, classify};
use super::look::{integrity, look, read_only};
use super::moments::Moments;
use super::open::{self, FolderLock, OnFatal, OpenError};
use super::prepare::{EVENTS_AHEAD, prepare, reserve};
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
/// How often it looks for room when the disk is full.
const LOOK: Duration = Duration::from_secs(1);
/// How often the thread looks around when nobody asks.
const IDLE: Duration = Duration::from_secs(10);

enum Ask {
    Do(Job),
    /// Wakes the writer: something old may go.
    Tidy,
    Close,
}

/// What the housekeeping asked for. It has a line of its own, of which each commit
/// carries out one: in the others' line it would wait the longest when most builds
/// come, which is when most of them grow old. The housekeeping asks for one at a time.
type OldRows = (Removal, Answer<Removed>);

enum Job {
    Write(Transaction, Answer<Vec<OpOutcome>>),
    Load(BuilderId, Answer<BuilderRecords>),
    Remove(Removal, Answer<Removed>),
}

/// How a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opening {
    /// Its data are those of a backup: everything that may have been given out
    /// since is skipped.
    pub restored: bool,
    /// All of it is read and checked first, which takes a while.
    pub verify: bool,
}

/// The state store on `state.sqlite`. Clones share it.
#[derive(Clone)]
pub struct SqliteStore(Arc<Shared>);

struct Shared {
    asks: Sender<Ask>,
    depth: Arc<AtomicUsize>,
    old_rows: Sender<OldRows>,
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
        Self::open_as(dir, Opening::default(), Room::unwatched(), on_fatal)
    }

    /// The same, in a way of its own.
    ///
    /// # Errors
    /// As [`Self::open`]; also when the file is damaged and that was looked
    /// for, or when it is a backup's copy and nobody said so.
    pub fn open_as(
        dir: &Path,
        how: Opening,
        room: Room,
        on_fatal: OnFatal,
    ) -> Result<(Self, Events), OpenError> {
        open::make_folder(dir)?;
        let lock = FolderLock::take(dir)?;
        let path = dir.join("state.sqlite");
        let text = dir.join("logs.sqlite");
        // Both, before one of them is brought up to date (row FM16).
        look(&path, MIGRATIONS)?;
        look(&text, logs::MIGRATIONS)?;
        if how.verify {
            for path in [&path, &text] {
                if path.exists() {
                    integrity(&read_only(path)?, path)?;
                }
            }
        }
        let engine = Engine::on(open::open_file(&path, MIGRATIONS)?);
        room.begin();
        let first = prepare(engine.conn(), &path, how.restored)?;
        let events = Events::starting_at(first);
        let (asks, receiver) = mpsc::channel();
        let depth = Arc::new(AtomicUsize::new(0));
        let (old_rows, old) = mpsc::channel();
        let writer = Writer {
            engine,
            events: events.clone(),
            reserved: first + EVENTS_AHEAD,
            depth: depth.clone(),
            old,
            next_old: None,
            ops: 0,
            commits: 0,
            again: false,
            looked: Instant::now(),
            room,
            on_fatal,
            moments: Moments::default(),
            _lock: lock,
        };
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| OpenError::Failed {
                path,
                reason: format!("its thread cannot be started: {error}"),
            })?;
        let shared = Shared { asks, depth, old_rows, thread: Mutex::new(Some(thread)) };
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

    /// Removes old rows, as many as a millisecond allows, in the next commit or the
    /// one after it. Told what was removed once that is durable.
    pub fn remove(&self, removal: Removal, done: OnRemoved) {
        // An error means that the writer has ended: dropped, it is answered.
        let _ = self.0.old_rows.send((removal, Answer::to(done)));
        let _ = self.0.asks.send(Ask::Tidy);
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

/// An ask that was carried out, in a commit that is not made yet.
enum Carried {
    Written(Transaction, Answer<Vec<OpOutcome>>, Written),
    Loaded(BuilderId, Answer<BuilderRecords>, Box<Result<BuilderRecords, StoreError>>),
    Removed(Removal, Answer<Removed>, Result<Removed, StoreError>),
}

impl Carried {
    fn tell(self) {
        match self {
            Self::Written(_, answer, written) => answer.give(written),
            Self::Loaded(_, answer, records) => answer.give(*records),
            Self::Removed(_, answer, removed) => answer.give(removed),
        }
    }

    /// What it was, to be carried out again.
    fn again(self) -> Job {
        match self {
            Self::Written(transaction, answer, _) => Job::Write(transaction, answer),
            Self::Loaded(builder, answer, _) => Job::Load(builder, answer),
            Self::Removed(removal, answer, _) => Job::Remove(removal, answer),
        }
    }

    fn tell_failed(self, error: &StoreError) {
        match self {
            Self::Written(_, answer, _) => answer.give(Err(error.clone())),
            Self::Loaded(_, answer, _) => answer.give(Err(error.clone())),
            Self::Removed(_, answer, _) => answer.give(Err(error.clone())),
        }
    }
}

struct Writer {
    engine: Engine,
    events: Events,
    reserved: u64,
    depth: Arc<AtomicUsize>,
    old: Receiver<OldRows>,
    /// The first of those, when it was looked for.
    next_old: Option<OldRows>,
    /// Operations since the last checkpoint.
    ops: usize,
    /// Commits since the last checkpoint.
    commits: usize,
    /// A commit is made a second time, with the room of the reserve.
    again: bool,
    /// When it last looked for room, while there was none.
    looked: Instant,
    room: Room,
    on_fatal: OnFatal,
    moments: Moments,
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
            let wait = if self.room.is_full() { LOOK } else { IDLE };
            let heard = if !self.has_old() {
                asks.recv_timeout(wait)
            } else {
                match asks.try_recv() {
                    Err(TryRecvError::Empty) => Ok(Ask::Tidy),
                    Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                    Ok(ask) => Ok(ask),
                }
            };
            if self.room.is_full() && self.looked.elapsed() >= LOOK {
                self.looked = Instant::now();
                self.room.look();
            }
            match heard {
                Ok(Ask::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.reserve_when_idle();
                    if self.commits > 0 {
                        self.checkpoint();
                    }
                }
                // A commit in between has taken it along.
                Ok(Ask::Tidy) if !self.has_old() => {}
                Ok(Ask::Tidy) => {
                    if self.batch(None, asks) {
                        break;
                    }
                }
                Ok(Ask::Do(job)) => {
                    if self.batch(Some(job), asks) {
                        break;
                    }
                }
            }
        }
        if let Err(error) = open::checkpoint(self.engine.conn(), true) {
            tracing::warn!(%error, "the store's write-ahead log stays until the next start");
        }
    }

    fn has_old(&mut self) -> bool {
        self.next_old = self.next_old.take().or_else(|| self.old.try_recv().ok());
        self.next_old.is_some()
    }

    /// One commit with everything that waits. True when the close was asked.
    fn batch(&mut self, first: Option<Job>, asks: &Receiver<Ask>) -> bool {
        let began = Instant::now();
        let reserved = self.reserved;
        let mut carried = Vec::new();
        let mut trouble = self.engine.begin().err();
        let mut next = first;
        let mut closing = false;
        while let Some(job) = next.take() {
            self.depth.fetch_sub(1, Ordering::Relaxed);
            carried.push(self.carry_out(job, &mut trouble));
            // In trouble everybody who waits is told at once.
            if carried.len() < BATCH && (trouble.is_some() || began.elapsed() < BATCH_TIME) {
                while next.is_none() && !closing {
                    match asks.try_recv() {
                        Ok(Ask::Do(job)) => next = Some(job),
                        // One of them is carried out anyhow.
                        Ok(Ask::Tidy) => {}
                        Ok(Ask::Close) => closing = true,
                        Err(_) => break,
                    }
                }
            }
        }
        if self.has_old()
            && let Some((removal, answer)) = self.next_old.take()
        {
            carried.push(self.carry_out(Job::Remove(removal, answer), &mut trouble));
        }
        trouble = self.end_commit(trouble);
        if matches!(trouble, Some(Trouble::Full(_))) && self.room.give_up() {
            self.reserved = reserved;
            self.moments.ended(false);
            trouble = self.engine.begin().err();
            self.again = true;
            let mut second = Vec::with_capacity(carried.len());
            for job in carried.into_iter().map(Carried::again) {
                second.push(self.carry_out(job, &mut trouble));
            }
            self.again = false;
            carried = second;
            trouble = self.end_commit(trouble);
        }
        self.moments.ended(trouble.is_none());
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

    /// Makes the commit in progress durable, or undoes it.
    fn end_commit(&mut self, mut trouble: Option<Trouble>) -> Option<Trouble> {
        if trouble.is_none() {
            trouble = self.reserve_ahead().err();
        }
        match trouble {
            None => {
                self.moments.before_commit();
                self.engine.commit().err()
            }
            Some(_) => {
                self.engine.undo();
                trouble
            }
        }
    }

    /// Nothing new begins while the store is full (row FL07); what runs goes on
    /// (row FD08).
    fn refuses(&self, transaction: &Transaction) -> bool {
        let begins = |op: &Op| matches!(op, Op::Claim { .. });
        self.room.is_full() && transaction.ops.iter().any(begins) && !self.again
    }

    /// After a trouble the jobs of a commit are only collected, to be told.
    fn carry_out(&mut self, job: Job, trouble: &mut Option<Trouble>) -> Carried {
        match job {
            Job::Write(transaction, answer) => {
                if self.refuses(&transaction) {
                    let full = "the store is full: free some room in its file system";
                    let refused = Err(StoreError::Unwritable(full.into()));
                    return Carried::Written(transaction, answer, refused);
                }
                if trouble.is_none() {
                    self.ops += transaction.ops.len();
                    match self.engine.run(&transaction) {
                        Ok(written) => {
                            if written.is_ok() {
                                self.moments.carried_out(&transaction);
                            }
                            return Carried::Written(transaction, answer, written);
                        }
                        Err(found) => *trouble = Some(found),
                    }
                }
                Carried::Written(transaction, answer, Err(StoreError::Closed))
            }
            Job::Load(builder, answer) => {
                let records = match trouble {
                    None => self.engine.load_builder(builder),
                    Some(_) => Err(StoreError::Closed),
                };
                Carried::Loaded(builder, answer, Box::new(records))
            }
            Job::Remove(removal, answer) => {
                let removed = match trouble {
                    None => cleanup::remove(self.engine.conn(), &removal),
                    Some(_) => Ok(Removed::default()),
                };
                let logs_gone = removal.logs_gone.len();
                self.ops += removed.as_ref().map_or(0, |removed| removed.looked_at + logs_gone);
                let removed = removed.map_err(|error| {
                    let found = classify(&error);
                    let told = found.told();
                    // A part of it may be done: the whole commit is undone.
                    *trouble = Some(match found {
                        Trouble::Statement(told) => Trouble::Storage(told),
                        other => other,
                    });
                    told
                });
                Carried::Removed(removal, answer, removed)
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
        reserve(self.engine.conn(), end).map_err(|error| classify(&error))?;
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
                // The log grows meanwhile, and there is little room for that.
                Trouble::Full(_) => self.room.fill_up(),
                // Nothing is lost: what was told is in the write-ahead log.
                trouble => tracing::warn!(?trouble, "a checkpoint failed and comes again"),
            }
        }
    }
}
