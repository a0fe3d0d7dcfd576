//! The thread that lets old builds go: it reads what may go on a connection of
//! its own, asks the writers for a little at a time, and rests in between, so
//! that nobody who writes waits for it (row FD14).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::core::ids::{BuildId, BuilderId, LogId};
use crate::core::retention::{Retention, RetentionRules};
use crate::core::views::HousekeepingView;
use crate::store::StoreError;
use crate::store::logs::SqliteLogs;
use crate::store::sqlite::{Chooser, Removal, Removed, SqliteStore, WouldGo};

/// How often it looks whether the rules have changed, and for what may go after
/// it found much.
const LOOK: Duration = Duration::from_secs(1);
/// How often it looks for what may go after it found nothing for a while.
const EVERY: Duration = Duration::from_secs(60);
/// Rows chosen at a time, of all builders together.
const ROUND: usize = 2048;
/// Rows of one batch: more than there is time for, so that the time is the limit.
const BATCH: usize = 64;
/// So many rows left are much: it is behind.
const MUCH: usize = 256;
/// Shortest rest between batches.
const REST: Duration = Duration::from_millis(10);
/// Shortest rest between batches while it is behind: whoever waits gets a turn.
const REST_BEHIND: Duration = Duration::from_millis(1);
/// From one batch to the next it takes so many times as long as a batch made others
/// wait, wherefore at most a quarter of a writer's time is its own. The time that
/// it waits for the commit in progress does not count: that is others' work.
const REST_SHARE: u32 = 4;
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
            said: None,
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
    /// When it last wrote into the program's log what it removed.
    said: Option<Instant>,
}

/// Rows of all builders that may go, each kind from the oldest on: neighbours in
/// the tables go together, and a page is written once and not once a builder.
#[derive(Default)]
struct Round {
    builds: Vec<BuildId>,
    texts: Vec<BuildId>,
    /// There was more of some builder than was chosen.
    full: bool,
}

/// When it looks again: soon after it found much, and less often as long as it
/// finds little.
fn next_look(every: Duration, rows: u64) -> Duration {
    if rows >= MUCH as u64 { LOOK } else { (every * 2).min(EVERY) }
}

/// The rest after a batch that made others wait so long, when so many rows are left.
fn rest_after(took: Duration, left: usize) -> Duration {
    let shortest = if left >= MUCH { REST_BEHIND } else { REST };
    shortest.max(took * REST_SHARE)
}

impl Work {
    fn run(mut self, rules: &ReadRules) {
        let mut last: Option<(Arc<RetentionRules>, Instant)> = None;
        // Less and less often, when there is nothing: soon it is each minute.
        let mut every = LOOK;
        loop {
            let now = rules();
            let due =
                last.as_ref().is_none_or(|(before, at)| **before != *now || at.elapsed() >= every);
            if due {
                let before = self.rows();
                match self.pass(&now) {
                    Ok(()) => {
                        every = next_look(every, self.rows() - before);
                        self.done(None);
                    }
                    Err(Halt::Stop) => return,
                    Err(Halt::Trouble(error)) => {
                        every = EVERY;
                        self.done(Some(error));
                    }
                }
                last = Some((now, Instant::now()));
            }
            if self.rest(LOOK).is_err() {
                return;
            }
        }
    }

    /// How many rows and texts went so far.
    fn rows(&self) -> u64 {
        self.view.builds + self.view.texts + self.view.requests + self.view.logs
    }

    fn done(&mut self, error: Option<StoreError>) {
        if let Some(error) = &error {
            tracing::warn!(%error, "the housekeeping stopped and tries again in a minute");
        } else {
            // While much goes there is a pass each second.
            if self.view.at_work && self.said.is_none_or(|at| at.elapsed() >= EVERY) {
                let HousekeepingView { builds, texts, requests, logs, .. } = self.view;
                tracing::info!(builds, texts, requests, logs, "housekeeping: removed so far");
                self.said = Some(Instant::now());
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
        // Up to which number the builds of each builder were looked at.
        let mut after = BTreeMap::new();
        loop {
            let round = self.choose(rules, &mut after)?;
            self.each(&round.builds, |builds| Removal { builds, ..Removal::default() })?;
            self.each(&round.texts, |texts| Removal { texts, ..Removal::default() })?;
            self.beside_builds(rules)?;
            if let Some(size) = rules.all.size {
                self.beyond_size(size)?;
            }
            self.text_of_removed_logs()?;
            if !round.full {
                return Ok(());
            }
        }
    }

    /// Builders that do not keep everything.
    fn builders(&self, rules: &RetentionRules) -> Result<Vec<(BuilderId, Retention)>, Halt> {
        if rules.keep_all() {
            return Ok(Vec::new());
        }
        let all = self.chooser.builders()?.into_iter();
        let own = all.map(|(builder, name)| (builder, rules.of(&name)));
        Ok(own.filter(|(_, own)| !own.keeps_all()).collect())
    }

    fn choose(
        &self,
        rules: &RetentionRules,
        after: &mut BTreeMap<BuilderId, u64>,
    ) -> Result<Round, Halt> {
        let builders = self.builders(rules)?;
        let each = (ROUND / builders.len().max(1)).max(BATCH);
        let mut round = Round::default();
        for (builder, own) in &builders {
            let after = after.entry(*builder).or_default();
            let now = self.clock.now().wall;
            let found = self.chooser.of_builder(*builder, own, now, *after, each)?;
            let Some(found) = found else { continue };
            *after = found.through;
            round.full |= found.removal.len() >= each;
            round.builds.extend(found.removal.builds);
            round.texts.extend(found.removal.texts);
        }
        round.builds.sort_unstable();
        round.texts.sort_unstable();
        Ok(round)
    }

    fn beside_builds(&mut self, rules: &RetentionRules) -> Result<(), Halt> {
        for (builder, own) in self.builders(rules)? {
            self.beside_builds_of(builder, &own)?;
        }
        Ok(())
    }

    fn beside_builds_of(&mut self, builder: BuilderId, rules: &Retention) -> Result<(), Halt> {
        loop {
            let now = self.clock.now().wall;
            let removal = self.chooser.beside_builds(builder, rules, now, BATCH)?;
            if removal.is_empty() {
                return Ok(());
            }
            // As many as were asked for: there may be more.
            let left = if removal.len() >= BATCH { MUCH } else { 0 };
            let removed = self.remove(removal, left)?;
            if removed.requests + removed.notes == 0 && !removed.more {
                return Ok(());
            }
        }
    }

    fn beyond_size(&mut self, size: u64) -> Result<(), Halt> {
        loop {
            let texts = self.chooser.beyond_size(size, ROUND)?;
            let before = self.view.texts;
            self.each(&texts, |texts| Removal { texts, ..Removal::default() })?;
            if texts.len() < ROUND || self.view.texts == before {
                return Ok(());
            }
        }
    }

    /// Removes all these, a batch at a time.
    fn each(
        &mut self,
        all: &[BuildId],
        removal: impl Fn(Vec<BuildId>) -> Removal,
    ) -> Result<(), Halt> {
        let mut left = all;
        while !left.is_empty() {
            let some = left.iter().take(BATCH).copied().collect();
            let removed = self.remove(removal(some), left.len())?;
            // What there was no time for comes first in the next batch.
            left = left.get(removed.looked_at..).unwrap_or_default();
        }
        Ok(())
    }

    /// Removes one batch of so many rows that are left, and rests.
    fn remove(&mut self, removal: Removal, left: usize) -> Result<Removed, Halt> {
        let told = order(|tell| {
            self.store.remove(
                removal,
                Box::new(move |removed| {
                    let _ = tell.send(removed);
                }),
            );
        });
        let removed = answer(&told)?;
        self.view.at_work = true;
        self.view.builds += removed.builds;
        self.view.texts += removed.texts;
        self.view.requests += removed.requests;
        let took = u64::try_from(removed.took.as_micros()).unwrap_or(u64::MAX);
        self.view.longest_us = self.view.longest_us.max(took);
        (self.tell)(self.view.clone());
        self.rest(rest_after(removed.took, left))?;
        Ok(removed)
    }

    /// The text in the log store follows the rows.
    fn text_of_removed_logs(&mut self) -> Result<(), Halt> {
        loop {
            let logs = self.chooser.removed_logs(ROUND as u32)?;
            if logs.is_empty() {
                return Ok(());
            }
            let mut left = logs.as_slice();
            while !left.is_empty() {
                let some: Vec<LogId> = left.iter().copied().take(BATCH).collect();
                let told = order(|tell| {
                    self.logs.remove_some(
                        some.clone(),
                        Box::new(move |removed| {
                            let _ = tell.send(removed);
                        }),
                    );
                });
                let removed = answer(&told)?;
                self.rest(rest_after(removed.took, left.len()))?;
                let gone = some.iter().copied().take(removed.logs).collect();
                self.view.logs += removed.logs as u64;
                left = left.get(removed.logs..).unwrap_or_default();
                if removed.logs > 0 {
                    let removal = Removal { logs_gone: gone, ..Removal::default() };
                    self.remove(removal, left.len())?;
                }
            }
        }
    }
}

/// Where a writer's answer comes.
type Told<T> = Receiver<Result<T, StoreError>>;

/// Asks a writer.
fn order<T>(order: impl FnOnce(Sender<Result<T, StoreError>>)) -> Told<T> {
    let (tell, told) = mpsc::channel();
    order(tell);
    told
}

/// Waits for a writer's answer.
fn answer<T>(told: &Told<T>) -> Result<T, StoreError> {
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
