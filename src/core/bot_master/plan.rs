//! What a reload changes, worked out before anything is touched (row T08).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::core::builder::compare_to_setup;
use crate::core::ids::{BuilderName, WorkerName};
use crate::core::values::{BuilderConfig, LatentConfig, ProcessOptions, Provider, WorkerConfig};

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
        let stay: BTreeSet<_> = new_builders.iter().map(|builder| &builder.name).collect();
        let gone = old_builders.keys().filter(|name| !stay.contains(name));
        builders.extend(gone.map(removed));
        let mut workers: Vec<_> = new_workers
            .iter()
            .map(|new| {
                entry(&new.name, old_workers.get(&new.name), |old| compare_workers(old, new))
            })
            .collect();
        let stay: BTreeSet<_> = new_workers.iter().map(|worker| &worker.name).collect();
        let gone = old_workers.keys().filter(|name| !stay.contains(name));
        workers.extend(gone.map(removed));
        Self { builders, workers }
    }

    /// The builders to which such a thing happens.
    pub fn changed_builders(
        &self,
        what: impl Fn(Action) -> bool,
    ) -> impl Iterator<Item = &BuilderName> {
        self.builders.iter().filter(move |entry| what(entry.action)).map(|entry| &entry.name)
    }

    /// The workers to which such a thing happens.
    pub fn changed_workers(
        &self,
        what: impl Fn(Action) -> bool,
    ) -> impl Iterator<Item = &WorkerName> {
        self.workers.iter().filter(move |entry| what(entry.action)).map(|entry| &entry.name)
    }
}

fn compare_workers(old: &WorkerConfig, new: &WorkerConfig) -> Vec<String> {
    let mut lines = Vec::new();
    // Taken apart on purpose: a new setting that is not compared is an error
    // of the compiler.
    let WorkerConfig { name: _, max_builds, latent } = old;
    if *max_builds != new.max_builds {
        lines.push(format!("max_builds changed from {max_builds} to {}", new.max_builds));
    }
    match (latent, &new.latent) {
        (None, None) => {}
        (None, Some(_)) => lines.push("it is a latent worker now".into()),
        (Some(_), None) => lines.push("it is no latent worker any more".into()),
        (Some(old), Some(new)) => compare_latent(&mut lines, old, new),
    }
    lines
}

fn compare_latent(lines: &mut Vec<String>, old: &LatentConfig, new: &LatentConfig) {
    let LatentConfig { provider, substantiate_timeout, idle_timeout } = old;
    for (key, old, new) in [
        ("substantiate_timeout", substantiate_timeout, &new.substantiate_timeout),
        ("idle_timeout", idle_timeout, &new.idle_timeout),
    ] {
        if old != new {
            lines.push(format!("latent.{key} changed from {old:?} to {new:?}"));
        }
    }
    // The values of an environment are nobody's business.
    let (Provider::Process(old), Provider::Process(new)) = (provider, &new.provider);
    let ProcessOptions { dir, token_file, env } = old;
    if *dir != new.dir {
        lines.push(format!("latent.dir changed from {} to {}", dir.display(), new.dir.display()));
    }
    if *token_file != new.token_file {
        lines.push("token_file changed".into());
    }
    if *env != new.env {
        lines.push("latent.env changed".into());
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
