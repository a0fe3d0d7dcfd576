//! What the supervisor decides: what a reload changes, who is tried first, and
//! whether an actor that panicked is started again.

mod plan;
mod restart_policy;

use std::collections::{BTreeMap, BTreeSet};

pub use plan::{Action, Entry, Plan};
pub use restart_policy::RestartPolicy;

use super::ids::{BuilderName, BuildsetId};
use super::planted;

/// The order in which "every builder is tried" (row B32).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Roster {
    oldest: BTreeMap<BuilderName, BuildsetId>,
    place: BTreeMap<BuilderName, usize>,
}

impl Roster {
    /// The builders in order of configuration; others stay known while they
    /// have requests, behind these.
    pub fn configure<'a>(&mut self, builders: impl Iterator<Item = &'a BuilderName>) {
        self.place = builders.enumerate().map(|(place, name)| (name.clone(), place)).collect();
    }

    /// A builder's oldest waiting request changed: which submission made it.
    /// Submissions are numbered as they come; their times would be wrong after
    /// the wall clock was set (I18).
    pub fn oldest_changed(&mut self, builder: BuilderName, oldest: Option<BuildsetId>) {
        match oldest {
            Some(set) => self.oldest.insert(builder, set),
            None => self.oldest.remove(&builder),
        };
    }

    /// Whether it has something to start.
    #[must_use]
    pub fn is_waiting(&self, builder: &BuilderName) -> bool {
        self.oldest.contains_key(builder)
    }

    /// Of these builders those with something to start: the one with the
    /// oldest waiting request first, ties in the order of the configuration.
    #[must_use]
    pub fn in_order(&self, among: &BTreeSet<BuilderName>) -> Vec<BuilderName> {
        let mut waiting: Vec<_> = among
            .iter()
            .filter_map(|name| {
                let place = self.place.get(name).copied().unwrap_or(usize::MAX);
                self.oldest.get(name).map(|set| (*set, place, name))
            })
            .collect();
        if !planted::is("b32_in_order_of_names") {
            waiting.sort();
        }
        waiting.into_iter().map(|(_, _, name)| name.clone()).collect()
    }
}
