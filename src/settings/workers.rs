//! The `[[worker]]` and `[[lock]]` parts of a configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::names::{LONGEST_NAME, check_folder_name, check_name};
use super::reader::{Section, check_new, required_name};
use super::types::WorkerSettings;
use crate::core::ids::WorkerName;
use crate::core::values::{LockKind, WorkerConfig};

/// Most builds that a worker may run side by side.
const MOST_BUILDS: u64 = 10_000;
const WORKER_KEYS: &[&str] = &["name", "token_file", "max_builds"];
const LOCK_KEYS: &[&str] = &["name", "kind", "max_count"];

/// A `[[lock]]`.
pub(super) struct LockDefinition {
    pub(super) name: String,
    pub(super) kind: LockKind,
    pub(super) max_count: u32,
}

pub(super) fn read_workers(root: &Section<'_, '_>) -> Vec<WorkerSettings> {
    let mut before = BTreeMap::new();
    let mut workers: Vec<WorkerSettings> = Vec::new();
    for section in root.tables("worker", WORKER_KEYS) {
        let max_builds = section.number("max_builds", 1..=MOST_BUILDS).unwrap_or(1);
        let token_file = section.text("token_file");
        let Some(name) = required_name(&section) else {
            continue;
        };
        if let Err(fault) = check_folder_name(&name.value) {
            section.error(&name.span, "name", fault.message, fault.fix);
        }
        check_new(&section, "worker", &name, &mut before);
        if let Some(said) = &token_file
            && said.value.trim().is_empty()
        {
            let fix =
                "name a file, or remove the key: then it is tokens/NAME.token in the data folder";
            section.error(&said.span, "token_file", "the file's name is empty", fix);
        }
        let token_file = token_file.map_or_else(
            || Path::new("tokens").join(format!("{}.token", name.value)),
            |said| PathBuf::from(said.value),
        );
        if let Some(other) = workers.iter().find(|other| other.token_file == token_file) {
            let span = section.key_span("token_file");
            let message = format!(
                "worker `{}` has the same token file: each of them could take the other's place",
                other.config.name
            );
            let fix = "give each worker a token file of its own";
            section.report.note(span.as_ref(), &section.key("token_file"), message, fix);
        }
        workers.push(WorkerSettings {
            config: WorkerConfig {
                name: WorkerName::from(name.value),
                max_builds: u32::try_from(max_builds).unwrap_or(1),
            },
            token_file,
        });
    }
    workers
}

pub(super) fn read_locks(root: &Section<'_, '_>) -> Vec<LockDefinition> {
    let mut before = BTreeMap::new();
    let mut locks = Vec::new();
    for section in root.tables("lock", LOCK_KEYS) {
        let kind =
            section.word("kind", &[("master", LockKind::Master), ("worker", LockKind::Worker)]);
        let max_count = section.number("max_count", 1..=u64::from(u32::MAX)).unwrap_or(1);
        let Some(name) = required_name(&section) else {
            continue;
        };
        if let Err(fault) = check_name(&name.value, LONGEST_NAME) {
            section.error(&name.span, "name", fault.message, fault.fix);
        }
        check_new(&section, "lock", &name, &mut before);
        locks.push(LockDefinition {
            name: name.value,
            kind: kind.unwrap_or(LockKind::Master),
            max_count: u32::try_from(max_count).unwrap_or(1),
        });
    }
    locks
}
