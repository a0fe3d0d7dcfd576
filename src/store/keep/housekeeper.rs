//! The thread that lets old builds go: it reads what may go on a connection of
//! its own, asks the writers for a little at a time, and rests in between, so
//! that nobody who writes waits for it (row FD14).

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::core::ids::{BuilderId, LogId};
use crate::core::retention::{Retention, RetentionRules};
use crate::core::views::HousekeepingView;
use crate::store::StoreError;
use crate::store::logs::SqliteLogs;
use crate::store::sqlite::{Chooser, Removal, Removed, SqliteStore, WouldGo};

/// How often it looks whether the rules have changed.
const LOOK: Duration = Duration::from_secs(1);
/// How often it looks for what may go.
const EVERY: Duration = Duration::from_secs(60);
/// Rows chosen for one batch: somewhat less than there is time for.
const BATCH: usize = 32;
/// Shortest rest between batches.
const REST: Duration = Duration::from_millis(10);
/// It rests so many times as long as a batch took.
const REST_SHARE: u32 = 3;
/// Longest wait for a writer.
const ANSWER: Duration = Duration::from_secs(60);

/// The rules as they are now.
pub type ReadRules = Box<dyn Fn() -> Arc<RetentionRules> + Send>;
/// Is told what the housekeeping does.
pub type TellView = Box<dyn Fn(HousekeepingView) + Send>;

/// The housekeeping's thread. It ends when this is stopped or dropped.
pub struct Housekeeper {
    stop: Sender<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Housekeeper {
    /// Starts it on a data folder whose stores are open.
    ///
    /// # Errors
    /// When the state cannot be read or the thread not be started.
    pub fn start(
        dir: &Path,
        store: SqliteStore,
        logs: SqliteLogs,
        rules: ReadRules,
        tell: TellView,
    ) -> Result<Self, StoreError> {
        let chooser = Chooser::open(dir)?;
        let (stop, stopped) = mpsc::channel();
        let work = Work {
            chooser,
            store,
            logs,
            tell,
            stopped,
            clock: Clock::start(),
            view: HousekeepingView::default(),
        };
        let thread = thread::Builder::new()
            .name("housekeeping".into())
            .spawn(move || work.run(&rules))
            .map_err(|error| StoreError::Failed(format!("no thread: {error}")))?;
        Ok(Self { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Ends it after the batch in progress.
    pub fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.stop.send(());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the housekeeping ended by a panic");
        }
    }
}

/// Why a pass ended early.
enum Halt {
    /// It was told to stop.
    Stop,
    /// The store could not be read or written; it tries again.
    Trouble(StoreError),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Trouble(error)
    }
}

struct Work {
    chooser: Chooser,
    store: SqliteStore,
    logs: SqliteLogs,
    tell: TellView,
    stopped: Receiver<()>,
    clock: Clock,
    view: HousekeepingView,
}

impl Work {
    fn run(mut self, rules: &ReadRules) {
        let mut last: Option<(Arc<RetentionRules>, Instant)> = None;
        loop {
            let now = rules();
            let due =
                last.as_ref().is_none_or(|(before, at)| **before != *now || at.elapsed() >= EVERY);
            if due {
                match self.pass(&now) {
                    Ok(()) => self.done(None),
                    Err(Halt::Stop) => return,
                    Err(Halt::Trouble(error)) => self.done(Some(error)),
                }
                last = Some((now, Instant::now()));
            }
            if self.rest(LOOK).is_err() {
                return;
            }
        }
    }

    fn done(&mut self, error: Option<StoreError>) {
        if let Some(error) = &error {
            tracing::warn!(%error, "the housekeeping stopped and tries again in a minute");
        } else {
            if self.view.at_work {
                let HousekeepingView { builds, texts, requests, logs, .. } = self.view;
                tracing::info!(builds, texts, requests, logs, "housekeeping: removed so far");
            }
            self.view.done_at = Some(self.clock.now().wall.seconds());
        }
        self.view.at_work = false;
        self.view.error = error.map(|error| error.to_string());
        (self.tell)(self.view.clone());
    }

    /// Waits, and notices a stop.
    fn rest(&self, span: Duration) -> Result<(), Halt> {
        match self.stopped.recv_timeout(span) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Halt::Stop),
        }
    }

    /// Everything that may go, until nothing is left.
    fn pass(&mut self, rules: &RetentionRules) -> Result<(), Halt> {
        if !rules.keep_all() {
            for (builder, name) in self.chooser.builders()? {
                let own = rules.of(&name);
                if own.keeps_all() {
                    continue;
                }
                self.builds_of(builder, &own)?;
                self.beside_builds_of(builder, &own)?;
            }
        }
        if let Some(size) = rules.all.size {
            loop {
                let texts = self.chooser.beyond_size(size, BATCH)?;
                if texts.is_empty() {
                    break;
                }
                let removed = self.remove(Removal { texts, ..Removal::default() })?;
                if removed.texts == 0 && !removed.more {
                    break;
                }
            }
        }
        self.text_of_removed_logs()
    }

    fn builds_of(&mut self, builder: BuilderId, rules: &Retention) -> Result<(), Halt> {
        let mut after = 0;
        loop {
            let now = self.clock.now().wall;
            let found = self.chooser.of_builder(builder, rules, now, after, BATCH)?;
            let Some(found) = found else { return Ok(()) };
            let mut more = false;
            if !found.removal.is_empty() {
                more = self.remove(found.removal)?.more;
            }
            // What there was no time for is chosen again.
            if !more {
                after = found.through;
            }
        }
    }

    fn beside_builds_of(&mut self, builder: BuilderId, rules: &Retention) -> Result<(), Halt> {
        loop {
            let now = self.clock.now().wall;
            let removal = self.chooser.beside_builds(builder, rules, now, BATCH)?;
            if removal.is_empty() {
                return Ok(());
            }
            let removed = self.remove(removal)?;
            if removed.requests + removed.notes == 0 && !removed.more {
                return Ok(());
            }
        }
    }

    fn remove(&mut self, removal: Removal) -> Result<Removed, Halt> {
        let began = Instant::now();
        let removed = ask(|tell| {
            self.store.remove(
                removal,
                Box::new(move |removed| {
                    let _ = tell.send(removed);
                }),
            );
        })?;
        self.view.at_work = true;
        self.view.builds += removed.builds;
        self.view.texts += removed.texts;
        self.view.requests += removed.requests;
        let took = u64::try_from(removed.took.as_micros()).unwrap_or(u64::MAX);
        self.view.longest_us = self.view.longest_us.max(took);
        (self.tell)(self.view.clone());
        self.rest(REST.max(began.elapsed() * REST_SHARE))?;
        Ok(removed)
    }

    /// The text in the log store follows the rows.
    fn text_of_removed_logs(&mut self) -> Result<(), Halt> {
        loop {
            let logs = self.chooser.removed_logs(BATCH as u32)?;
            if logs.is_empty() {
                return Ok(());
            }
            for log in &logs {
                self.text_of(*log)?;
            }
            self.view.logs += logs.len() as u64;
            self.remove(Removal { logs_gone: logs, ..Removal::default() })?;
        }
    }

    fn text_of(&mut self, log: LogId) -> Result<(), Halt> {
        loop {
            let began = Instant::now();
            let all = ask(|tell| {
                self.logs.remove_some(
                    log,
                    Box::new(move |removed| {
                        let _ = tell.send(removed);
                    }),
                );
            })?;
            self.rest(began.elapsed() * REST_SHARE)?;
            if all {
                return Ok(());
            }
        }
    }
}

/// Asks a writer and waits for its answer.
fn ask<T>(order: impl FnOnce(Sender<Result<T, StoreError>>)) -> Result<T, StoreError> {
    let (tell, told) = mpsc::channel();
    order(tell);
    match told.recv_timeout(ANSWER) {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Failed("the store did not answer in time".into())),
    }
}

/// What the housekeeping would remove now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HousekeepingPlan {
    /// Of each builder.
    pub builders: Vec<WouldGo>,
    /// Builds whose text would go for the size of all together, at least.
    pub beyond_size: u64,
}

/// Tells what the housekeeping would remove now, beside a running master or
/// without one.
///
/// # Errors
/// When the state cannot be read.
pub fn plan_housekeeping(
    dir: &Path,
    rules: &RetentionRules,
) -> Result<HousekeepingPlan, StoreError> {
    let chooser = Chooser::open(dir)?;
    let builders = chooser.would_go(rules, Clock::start().now().wall)?;
    let beyond_size = match rules.all.size {
        Some(size) => chooser.beyond_size(size, usize::MAX >> 1)?.len() as u64,
        None => 0,
    };
    Ok(HousekeepingPlan { builders, beyond_size })
}
