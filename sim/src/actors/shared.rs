//! What outlives the hosts of a world: disks, what was asked and told, and what
//! is written down for the checker.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Weak;
use std::time::Duration;

use botmaster::board::Board;
use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::messages::{Submission, WorkerOrder};
use botmaster::settings::Settings;
use botmaster::store::{Op, Written};
use tokio::sync::mpsc;

use super::Sabotage;
use super::cloud::Cloud;
use super::logs::StoredLog;
use crate::history::{Deed, Micros, Recorder, Run};
use crate::memory::MemoryStore;

/// The wall clock when a world begins: microseconds since 1970.
const EPOCH: Micros = 1_800_000_000_000_000;

/// What is asked of the master.
pub enum Order {
    /// Stores a submission, under its key.
    Submit(Submission),
    /// Cancels a request.
    Cancel(RequestId, BuilderName),
    /// Stops a build.
    Stop(BuildId, BuilderName),
    /// Changes a waiting request's priority.
    Prioritise(RequestId, BuilderName, i64),
    /// Reads the settings again.
    Reload,
    /// Orders a worker.
    Worker(WorkerName, WorkerOrder),
    /// Pings a builder's workers.
    Ping(BuilderName),
}

/// What outlives the hosts.
#[derive(Default)]
pub struct Shared {
    /// The master's disk: its records.
    pub store: MemoryStore,
    /// The master's disk: text of logs.
    pub logs: BTreeMap<LogId, StoredLog>,
    /// The master's disk is full.
    pub is_full: bool,
    /// The settings file.
    pub settings: Option<Settings>,
    /// How often it changed.
    pub edition: u64,
    /// The edition that the master that lives goes by.
    pub goes_by: u64,
    /// Lives of the master so far.
    pub lives: u64,
    /// Programs of workers so far.
    pub programs: u64,
    /// The way to the master that lives.
    pub orders: Option<mpsc::UnboundedSender<Order>>,
    /// What the master that lives shows.
    pub board: Option<Board>,
    /// Something that each life of the master holds until it is all gone.
    pub held: Vec<Weak<()>>,
    /// Submissions that nobody was told of yet, by key.
    pub untold: BTreeMap<String, Submission>,
    /// For the checker.
    pub recorder: Recorder,
    /// What each command wrote.
    pub written: BTreeMap<CommandId, String>,
    /// Workers whose second machine is to be there.
    pub twins: BTreeMap<String, bool>,
    /// How often something happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// Where instances of latent workers come from.
    pub cloud: Option<Cloud>,
    /// What is wrong on purpose.
    pub sabotage: Option<Sabotage>,
}

/// Everybody's way to what is shared. One thread has it all.
pub type Door = Rc<RefCell<Shared>>;

impl Shared {
    /// The settings file changes.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = Some(settings);
        self.edition += 1;
    }

    /// Counts something.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A commit was made.
    pub fn committed(
        &mut self,
        ops: &[Op],
        written: &Written,
        changes: &[botmaster::store::Change],
    ) {
        let first = self.store.events().len() as u64 + 1 - changes.len() as u64;
        for (seq, change) in (first..).zip(changes) {
            if self.sabotage == Some(Sabotage::LosesEvents) && seq % 50 == 0 {
                continue;
            }
            self.recorder.published(now(), seq, change);
        }
        if written.is_ok() {
            for op in ops {
                match op {
                    Op::AdoptBuild { .. } => self.count("adoptions"),
                    Op::FinishBuild { requests, .. }
                        if *requests != botmaster::store::RequestsAfter::Done =>
                    {
                        self.count("requeues");
                    }
                    Op::WishInstance { tag, .. } => self.note(tag, Deed::Wished),
                    Op::ReleaseInstance { tag, .. } => self.note(tag, Deed::Released),
                    Op::RemoveInstance { tag } => self.note(tag, Deed::Forgotten),
                    Op::FailBuild { .. } => self.count("exceptions_without_a_worker"),
                    _ => {}
                }
            }
        }
    }

    fn note(&self, tag: &InstanceTag, deed: Deed) {
        if let Some(cloud) = &self.cloud {
            cloud.note(tag, deed);
        }
    }

    /// A command's processes begin.
    pub fn begins(&mut self, run: Run) -> usize {
        self.recorder.history.ran.push(run);
        self.recorder.history.ran.len() - 1
    }

    /// The last process of a command is gone.
    pub fn ends(&mut self, place: usize, killed: bool) {
        if let Some(run) = self.recorder.history.ran.get_mut(place) {
            run.end.get_or_insert(now());
            run.killed |= killed;
        }
    }

    /// A machine ended, with everything that ran there.
    pub fn machine_ends(&mut self, host: &str, at: Micros) {
        for run in &mut self.recorder.history.ran {
            if run.end.is_none() && run.instance.starts_with(host) {
                run.end = Some(at);
                run.killed = true;
            }
        }
    }
}

/// The present, as the host that runs just now sees it.
pub fn now() -> Micros {
    at(turmoil::sim_elapsed().unwrap_or_default())
}

/// A time of the world.
pub fn at(elapsed: Duration) -> Micros {
    EPOCH + Micros::try_from(elapsed.as_micros()).unwrap_or(Micros::MAX - EPOCH)
}

/// The wall clock, as the host that runs just now sees it.
pub fn wall() -> WallTime {
    WallTime(now())
}
