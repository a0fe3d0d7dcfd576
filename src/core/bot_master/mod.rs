//! What the supervisor decides: what a reload changes, who is tried first, and
//! whether an actor that panicked is started again.

mod plan;
mod restart_policy;

use std::collections::{BTreeMap, BTreeSet};

pub use plan::{Action, Entry, Plan};
pub use restart_policy::RestartPolicy;

use super::ids::{BuilderName, BuildsetId, WorkerName};
use super::planted;

/// Who is tried first, and who waits to hear that a worker has room: "every
/// builder is tried" (rows B16, B32).
///
/// A worker's room is offered to one builder after the other and not to all at
/// once: of twenty that share a worker, nineteen would ask in vain. Who was
/// refused stands in line until the offer comes to it, which it takes or passes
/// on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Roster {
    oldest: BTreeMap<BuilderName, BuildsetId>,
    place: BTreeMap<BuilderName, usize>,
    /// Builders with something to start: the one with the oldest waiting request
    /// first, ties in the order of the configuration.
    waiting: BTreeSet<(BuildsetId, usize, BuilderName)>,
    /// Builders in line for each worker.
    lines: BTreeMap<WorkerName, BTreeSet<BuilderName>>,
}

impl Roster {
    /// The builders in order of configuration; others stay known while they
    /// have requests, behind these.
    pub fn configure<'a>(&mut self, builders: impl Iterator<Item = &'a BuilderName>) {
        self.place = builders.enumerate().map(|(place, name)| (name.clone(), place)).collect();
        let waiting = self.oldest.iter().map(|(name, set)| self.entry(name, *set)).collect();
        self.waiting = waiting;
    }

    fn entry(&self, name: &BuilderName, set: BuildsetId) -> (BuildsetId, usize, BuilderName) {
        let place = self.place.get(name).copied().unwrap_or(usize::MAX);
        (set, place, name.clone())
    }

    /// A builder's oldest waiting request changed: which submission made it.
    /// Submissions are numbered as they come; their times would be wrong after
    /// the wall clock was set (I18).
    pub fn oldest_changed(&mut self, builder: BuilderName, oldest: Option<BuildsetId>) {
        if let Some(before) = self.oldest.get(&builder) {
            let before = self.entry(&builder, *before);
            self.waiting.remove(&before);
        }
        if let Some(set) = oldest {
            self.waiting.insert(self.entry(&builder, set));
            self.oldest.insert(builder, set);
        } else {
            self.oldest.remove(&builder);
        }
    }

    /// Whether it has something to start.
    #[must_use]
    pub fn is_waiting(&self, builder: &BuilderName) -> bool {
        self.oldest.contains_key(builder)
    }

    /// These builders were refused by the worker, which has room now: they get in
    /// line. Answers with those in it that have nothing to start. They leave it,
    /// and need only know that the worker is not full when they have.
    pub fn queue_up(
        &mut self,
        worker: &WorkerName,
        builders: impl IntoIterator<Item = BuilderName>,
    ) -> Vec<BuilderName> {
        let line = self.lines.entry(worker.clone()).or_default();
        line.extend(builders);
        let idle = |name: &BuilderName| !self.oldest.contains_key(name);
        let idle: Vec<_> = line.iter().filter(|name| idle(name)).cloned().collect();
        for name in &idle {
            line.remove(name);
        }
        idle
    }

    /// Whether it waits for the worker.
    #[must_use]
    pub fn is_in_line(&self, worker: &WorkerName, builder: &BuilderName) -> bool {
        self.lines.get(worker).is_some_and(|line| line.contains(builder))
    }

    /// Who is offered the worker's room next, and leaves the line with that.
    pub fn next_in_line(&mut self, worker: &WorkerName) -> Option<BuilderName> {
        let line = self.lines.get_mut(worker)?;
        let first = if planted::is("b32_in_order_of_names") {
            line.first().cloned()
        } else {
            self.waiting.iter().map(|(_, _, name)| name).find(|name| line.contains(*name)).cloned()
        }
        // All that is left have nothing to start any more.
        .or_else(|| line.first().cloned())?;
        line.remove(&first);
        if line.is_empty() {
            self.lines.remove(worker);
        }
        Some(first)
    }

    /// The worker is gone.
    pub fn forget_worker(&mut self, worker: &WorkerName) {
        self.lines.remove(worker);
    }

    /// Ends all lines, because an offer may be lost with a builder that panicked.
    /// Answers with who stood in them.
    pub fn break_up(&mut self) -> Vec<(WorkerName, BTreeSet<BuilderName>)> {
        std::mem::take(&mut self.lines).into_iter().collect()
    }
}
