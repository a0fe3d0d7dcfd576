//! The `[[worker]]` and `[[lock]]` parts of a configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::durations::show_duration;
use super::master::absolute;
use super::names::{LONGEST_NAME, check_folder_name, check_name};
use super::reader::{Section, check_new, required_name};
use super::types::WorkerSettings;
use crate::core::ids::WorkerName;
use crate::core::values::{LatentConfig, LockKind, ProcessOptions, Provider, WorkerConfig};

/// Most builds that a worker may run side by side.
const MOST_BUILDS: u64 = 10_000;
const WORKER_KEYS: &[&str] = &["name", "token_file", "max_builds", "latent"];
const LATENT_KEYS: &[&str] = &["provider", "substantiate_timeout", "idle_timeout", "dir", "env"];
/// How long an instance may take to be there, when nothing is said.
const SUBSTANTIATE_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// How long an instance without a build is kept, when nothing is said.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// No program starts and attaches in less.
const SHORTEST_SUBSTANTIATION: Duration = Duration::from_secs(1);
/// What the master sets itself.
const OUR_VARIABLES: &[&str] = &["NOTIFY_SOCKET"];
const LOCK_KEYS: &[&str] = &["name", "kind", "max_count"];

/// A `[[lock]]`.
pub(super) struct LockDefinition {
    pub(super) name: String,
    pub(super) kind: LockKind,
    pub(super) max_count: u32,
}

pub(super) fn read_workers(
    root: &Section<'_, '_>,
    base: &Path,
    data_dir: &Path,
) -> Vec<WorkerSettings> {
    let mut before = BTreeMap::new();
    let mut token_files: BTreeMap<PathBuf, WorkerName> = BTreeMap::new();
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
        let worker = WorkerName::from(name.value.as_str());
        if let Some(other) = token_files.get(&token_file) {
            let span = section.key_span("token_file");
            let message = format!(
                "worker `{other}` has the same token file: each of them could take the other's place"
            );
            let fix = "give each worker a token file of its own";
            section.report.note(span.as_ref(), &section.key("token_file"), message, fix);
        } else {
            token_files.insert(token_file.clone(), worker.clone());
        }
        let latent = read_latent(&section, &name.value, base, data_dir, &token_file);
        workers.push(WorkerSettings {
            config: WorkerConfig {
                name: worker,
                max_builds: u32::try_from(max_builds).unwrap_or(1),
                latent,
            },
            token_file,
        });
    }
    workers
}

fn read_latent(
    worker: &Section<'_, '_>,
    name: &str,
    base: &Path,
    data_dir: &Path,
    token_file: &Path,
) -> Option<LatentConfig> {
    worker.raw("latent")?;
    let section = worker.table("latent", LATENT_KEYS);
    if section.raw("provider").is_none() && section.span != (0..0) {
        let fix = "add provider = \"process\" (worker programs on this machine)";
        section.error(&section.span, "provider", "it does not say who makes the instances", fix);
    }
    section.word("provider", &[("process", ())]);
    let substantiate_timeout = match section.duration("substantiate_timeout") {
        Some(said) if said.value < SHORTEST_SUBSTANTIATION => {
            let message = format!(
                "{} is too short for a worker to start and attach",
                show_duration(said.value)
            );
            let fix = "write \"1s\" or more; \"20m\" is the default";
            section.error(&said.span, "substantiate_timeout", message, fix);
            SUBSTANTIATE_TIMEOUT
        }
        Some(said) => said.value,
        None => SUBSTANTIATE_TIMEOUT,
    };
    let idle_timeout = section.duration("idle_timeout").map_or(IDLE_TIMEOUT, |said| said.value);
    let dir = match section.text("dir") {
        Some(said) if said.value.trim().is_empty() => {
            let fix = "name a folder, or remove the key: then it is instances/work/NAME in the data folder";
            section.error(&said.span, "dir", "the folder's name is empty", fix);
            PathBuf::new()
        }
        Some(said) => absolute(base, &said.value),
        None => data_dir.join("instances").join("work").join(name),
    };
    let env = section.text_map("env");
    for variable in OUR_VARIABLES.iter().filter(|name| env.contains_key(**name)) {
        let message = format!("`{variable}` is between the service manager and the master");
        let span = section.key_span("env").unwrap_or(0..0);
        section.error(&span, &format!("env.{variable}"), message, "remove it");
    }
    let token_file = data_dir.join(token_file);
    Some(LatentConfig {
        provider: Provider::Process(ProcessOptions { dir, token_file, env }),
        substantiate_timeout,
        idle_timeout,
    })
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
