//! What a reload changes, worked out before anything is touched (row T08).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::builder::compare_to_setup;
use crate::core::ids::{BuilderName, WorkerName};
use crate::core::values::{BuilderConfig, WorkerConfig};

/// What happens to one builder or worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing; it does not notice.
    Keep,
    /// It is new.
    Add,
    /// A builder is succeeded by a new actor; a worker gets new settings.
    Change,
    /// It is let go once its builds have ended.
    Remove,
}

impl Action {
    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "unchanged",
            Self::Add => "added",
            Self::Change => "changed",
            Self::Remove => "removed",
        }
    }
}

/// What happens to one builder or worker, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<N> {
    /// Its name.
    pub name: N,
    /// What happens.
    pub action: Action,
    /// What differs, one line each.
    pub differences: Vec<String>,
}

/// A reload, worked out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Builders: those of the new configuration in its order, then the removed.
    pub builders: Vec<Entry<BuilderName>>,
    /// Workers, likewise.
    pub workers: Vec<Entry<WorkerName>>,
}

impl Plan {
    /// What leads from the old setups to the new ones.
    #[must_use]
    pub fn between(
        old_builders: &BTreeMap<BuilderName, Arc<BuilderConfig>>,
        new_builders: &[Arc<BuilderConfig>],
        old_workers: &BTreeMap<WorkerName, WorkerConfig>,
        new_workers: &[WorkerConfig],
    ) -> Self {
        let mut builders: Vec<_> = new_builders
            .iter()
            .map(|new| {
                entry(&new.name, old_builders.get(&new.name), |old| compare_to_setup(old, new))
            })
            .collect();
        let gone =
            old_builders.keys().filter(|name| !new_builders.iter().any(|b| b.name == **name));
        builders.extend(gone.map(removed));
        let mut workers: Vec<_> = new_workers
            .iter()
            .map(|new| {
                entry(&new.name, old_workers.get(&new.name), |old| {
                    if old.max_builds == new.max_builds {
                        return Vec::new();
                    }
                    vec![format!(
                        "max_builds changed from {} to {}",
                        old.max_builds, new.max_builds
                    )]
                })
            })
            .collect();
        let gone = old_workers.keys().filter(|name| !new_workers.iter().any(|w| w.name == **name));
        workers.extend(gone.map(removed));
        Self { builders, workers }
    }
}

fn entry<N: Clone, T>(name: &N, old: Option<&T>, differ: impl Fn(&T) -> Vec<String>) -> Entry<N> {
    let (action, differences) = match old {
        None => (Action::Add, Vec::new()),
        Some(old) => {
            let differences = differ(old);
            (if differences.is_empty() { Action::Keep } else { Action::Change }, differences)
        }
    };
    Entry { name: name.clone(), action, differences }
}

fn removed<N: Clone>(name: &N) -> Entry<N> {
    Entry { name: name.clone(), action: Action::Remove, differences: Vec::new() }
}
