//! The real actors, over a network that is played by turmoil.
//!
//! The master's host runs what the real master runs, but for HTTP: BotMaster,
//! Builder, SlaveBuilder, Ping, Worker and Build and the workers' connections, on a store
//! and a log store in memory. A worker's host runs the real worker's agent and
//! its real connection; only its processes are played. Everything happens in
//! virtual time on one thread, so a seed is the whole story. First come faults,
//! then calm, in which everything has to end; then the history is checked.

mod cloud;
mod driver;
mod instances;
mod logs;
mod master;
mod plan;
mod process;
mod shared;
mod store;
mod worker;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::Finding;

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which seed.
    pub seed: u64,
    /// Names everything that happened: equal for equal seeds.
    pub digest: u64,
    /// What the history's checker found.
    pub findings: Vec<Finding>,
    /// Panics of actors, in the order in which they came.
    pub panics: Vec<String>,
    /// Actors of a crashed master that lived on.
    pub undead: usize,
    /// How long it took in the world's own time.
    pub took: Duration,
    /// How often something happened, by its name.
    pub counts: BTreeMap<&'static str, u64>,
    /// What the builders, workers and requests looked like at the end.
    pub end: String,
    /// Everything that was written down, as JSON lines: see
    /// [`History::read`](crate::history::History::read).
    pub history: Vec<u8>,
}

impl Outcome {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.is_empty() && self.panics.is_empty() && self.undead == 0
    }

    /// Everything that is wrong, for people.
    #[must_use]
    pub fn complaint(&self) -> String {
        let mut text = format!("seed {} of the actors went wrong:\n", self.seed);
        for finding in &self.findings {
            text += &format!("    {finding}\n");
        }
        for panic in &self.panics {
            text += &format!("    an actor panicked: {panic}\n");
        }
        if self.undead > 0 {
            text += &format!("    {} crashed masters lived on\n", self.undead);
        }
        text + &self.end
    }
}

/// Something that is wrong on purpose, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// The store answers before it has written (I12, and I1 after a crash).
    TellsBeforeCommit,
    /// The lease of workers is longer than the grace of their builds (I3).
    LongLease,
    /// Text of logs is confirmed and then lost in part (I9).
    LosesText,
    /// Some events are left out of the stream (I11).
    LosesEvents,
    /// A fault of the core's own.
    Planted(&'static str),
}

/// Worlds of seeds from here on have latent workers, too. Those below are what
/// they were when they found something.
pub const LATENT: u64 = 1000;

/// Runs one seed to its end.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    driver::run(seed, None)
}

/// Runs one seed in a world where something is wrong.
#[must_use]
pub fn run_with(seed: u64, sabotage: Sabotage) -> Outcome {
    driver::run(seed, Some(sabotage))
}
