//! The `[[builder]]` part of a configuration (row B01).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::digest::factory_digest;
use super::durations::show_duration;
use super::names::{LONGEST_NAME, check_folder_name, check_name, fix_unknown, folder_for};
use super::reader::{Said, Section, check_new, required_name};
use super::retention::read_retention;
use super::steps::read_steps;
use super::timers::{grace_fault, grace_for, lease_fault};
use super::types::Timers;
use super::workers::LockDefinition;
use crate::core::ids::{BuilderName, WorkerName};
use crate::core::retention::Retention;
use crate::core::values::{BuilderConfig, ChooseWorker, Factory, LockUse, Merge, OnLost};

/// How many requests may wait for a builder that does not say.
const QUEUE_LIMIT: u64 = 200_000;

/// How long the ping before a start may take for a builder that does not say.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a request is tried again for a builder that does not say.
const INFRA_RETRIES: u64 = 3;

const BUILDER_KEYS: &[&str] = &[
    "name",
    "builddir",
    "worker",
    "workers",
    "env",
    "properties",
    "locks",
    "description",
    "tags",
    "start_timeout",
    "choose",
    "on_lost",
    "lease",
    "grace",
    "max_time",
    "infra_retries",
    "queue_limit",
    "merge",
    "max_builds",
    "retention",
    "step",
    // Refused with a text of its own (row B02).
    "periodic_build_time",
];

const LOCK_USE_KEYS: &[&str] = &["name", "count"];

/// The configured workers: found by name, told in the order of the file. A name
/// that thousands of lists have is kept once.
pub(super) struct Names<'a> {
    in_order: Vec<&'a WorkerName>,
    by_name: BTreeMap<&'a str, &'a WorkerName>,
}

impl<'a> Names<'a> {
    pub(super) fn of(workers: impl Iterator<Item = &'a WorkerName>) -> Self {
        let in_order: Vec<_> = workers.collect();
        let by_name = in_order.iter().map(|name| (name.as_str(), *name)).collect();
        Self { in_order, by_name }
    }

    fn get(&self, name: &str) -> Option<WorkerName> {
        self.by_name.get(name).copied().cloned()
    }

    /// For whoever looks for one that is not there.
    pub(super) fn all(&self) -> Vec<&'a str> {
        self.in_order.iter().map(|name| name.as_str()).collect()
    }
}

/// What a builder's part refers to.
pub(super) struct BuilderContext<'a> {
    pub(super) base: &'a Path,
    pub(super) timers: &'a Timers,
    pub(super) workers: &'a Names<'a>,
    pub(super) locks: &'a [LockDefinition],
    /// For builders that do not say.
    pub(super) merge: Merge,
}

/// Reads all builders, and what is kept of those that say so. What is wrong is in the sections' report.
pub(super) fn read_builders(
    root: &Section<'_, '_>,
    context: &BuilderContext<'_>,
) -> (Vec<BuilderConfig>, BTreeMap<BuilderName, Retention>) {
    let mut retention = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut folders: BTreeMap<String, String> = BTreeMap::new();
    let mut builders = Vec::new();
    for section in root.tables("builder", BUILDER_KEYS) {
        let name = required_name(&section);
        if let Some(name) = &name {
            if let Err(fault) = check_name(&name.value, LONGEST_NAME) {
                section.error(&name.span, "name", fault.message, fault.fix);
            }
            check_new(&section, "builder", name, &mut names);
        }
        // The rest is read even without a name, for the sake of its faults.
        let builder =
            read_builder(&section, context, name.map_or(String::new(), |said| said.value));
        check_folder(&section, &builder, &mut folders);
        let kept = read_retention(&section);
        if !kept.keeps_all() {
            retention.insert(builder.name.clone(), kept);
        }
        builders.push(builder);
    }
    (builders, retention)
}

fn check_folder(
    section: &Section<'_, '_>,
    builder: &BuilderConfig,
    folders: &mut BTreeMap<String, String>,
) {
    let name = builder.name.as_str();
    match folders.get(&builder.builddir) {
        // The same name twice has been reported as such.
        Some(other) if other != name => {
            let span = section.key_span("builddir").or_else(|| section.key_span("name"));
            let message = format!(
                "builder `{other}` has the folder `{}` already: their builds would overwrite each other",
                builder.builddir
            );
            let fix = "give one of them another folder with builddir = \"…\"";
            section.report.error(span.as_ref(), &section.key("builddir"), message, fix);
        }
        Some(_) => {}
        None => {
            folders.insert(builder.builddir.clone(), name.to_owned());
        }
    }
}

fn read_builder(
    section: &Section<'_, '_>,
    context: &BuilderContext<'_>,
    name: String,
) -> BuilderConfig {
    if let Some(span) = section.key_span("periodic_build_time") {
        let fix = "remove it: the Periodic scheduler is its replacement";
        section.error(&span, "periodic_build_time", "a builder no longer has this key", fix);
    }
    let builddir = match section.text("builddir") {
        Some(said) => {
            if let Err(fault) = check_folder_name(&said.value) {
                section.error(&said.span, "builddir", fault.message, fault.fix);
            }
            said.value
        }
        None => folder_for(&name),
    };
    let factory = Factory { steps: read_steps(section, context.base) };
    let steps = section.raw("step").map(|value| value.get_ref().as_array());
    if steps.is_none_or(|list| list.is_some_and(|list| list.is_empty())) {
        let fix = "add a [[builder.step]] below it, for example with run = [\"make\", \"test\"]";
        section.error(&section.span, "step", "the builder has no steps", fix);
    }
    let factory_digest = factory_digest(&factory).unwrap_or_else(|error| {
        let message = format!("the steps cannot be written as JSON: {error}");
        section.error(&section.span, "step", message, "use plain texts");
        String::new()
    });
    let choose = [("random", ChooseWorker::Random), ("first", ChooseWorker::First)];
    let on_lost = [("requeue", OnLost::Requeue), ("wait", OnLost::Wait), ("fail", OnLost::Fail)];
    let retries = section.number("infra_retries", 0..=1000).unwrap_or(INFRA_RETRIES);
    let on_lost = section.word("on_lost", &on_lost).unwrap_or(OnLost::Requeue);
    let lease = read_lease(section, on_lost, context.timers);
    let limit = section.number("queue_limit", 1..=10_000_000).unwrap_or(QUEUE_LIMIT);
    BuilderConfig {
        builddir,
        workers: read_worker_names(section, &name, context.workers),
        factory: Arc::new(factory),
        factory_digest,
        locks: read_lock_uses(section, context.locks),
        env: section.text_map("env"),
        properties: section.text_map("properties"),
        description: section.text("description").map(|said| said.value),
        tags: read_tags(section),
        start_timeout: read_start_timeout(section),
        choose: section.word("choose", &choose).unwrap_or(ChooseWorker::Random),
        on_lost,
        lease,
        grace: read_grace(section, lease, context.timers),
        max_time: read_max_time(section),
        infra_retries: u32::try_from(retries).unwrap_or(u32::MAX),
        queue_limit: usize::try_from(limit).unwrap_or(usize::MAX),
        merge: read_merge(section).unwrap_or_else(|| context.merge.clone()),
        max_builds: section
            .number("max_builds", 1..=u64::from(u32::MAX))
            .and_then(|most| u32::try_from(most).ok()),
        name: BuilderName::from(name),
    }
}

/// `"none"`, `"same source"`, or a list of properties (row B09).
pub(super) fn read_merge(section: &Section<'_, '_>) -> Option<Merge> {
    const FIX: &str = "write \"none\", \"same source\", or a list of properties that must be \
                       equal besides the source: [\"channel\"]";
    let value = section.raw("merge")?;
    match value.get_ref() {
        DeValue::String(word) if word == "none" => Some(Merge::None),
        DeValue::String(word) if word == "same source" => Some(Merge::SameSource),
        DeValue::String(word) => {
            let message = format!("`{word}` is not known here");
            section.error(&value.span(), "merge", message, FIX);
            None
        }
        DeValue::Array(items) if items.is_empty() => {
            section.error(&value.span(), "merge", "the list names no property", FIX);
            None
        }
        DeValue::Array(_) => {
            let mut names: Vec<String> = Vec::new();
            for said in section.texts("merge")? {
                if said.value.trim().is_empty() {
                    section.error(&said.span, "merge", "a property needs a name", FIX);
                } else if names.contains(&said.value) {
                    let message = format!("property `{}` is named twice", said.value);
                    section.error(&said.span, "merge", message, "name it once");
                } else {
                    names.push(said.value);
                }
            }
            Some(Merge::Properties(names))
        }
        _ => {
            let message = "a text or a list is wanted here";
            section.error(&value.span(), "merge", message, FIX);
            None
        }
    }
}

fn read_start_timeout(section: &Section<'_, '_>) -> Duration {
    match section.duration("start_timeout") {
        Some(said) if said.value.is_zero() => {
            let fix = "write for example \"10s\"";
            section.error(&said.span, "start_timeout", "no ping can be answered in no time", fix);
            START_TIMEOUT
        }
        Some(said) => said.value,
        None => START_TIMEOUT,
    }
}

/// The builder's own lease. It travels to the workers as whole seconds.
fn read_lease(section: &Section<'_, '_>, on_lost: OnLost, timers: &Timers) -> Duration {
    let Some(said) = section.duration("lease") else {
        return timers.lease;
    };
    if on_lost == OnLost::Wait {
        let message = "builds of a builder with on_lost = \"wait\" have no lease: their worker \
                       goes on without end";
        section.error(&said.span, "lease", message, "remove one of the two keys");
    } else if said.value.subsec_nanos() != 0 || said.value.is_zero() {
        let message =
            format!("{} is no whole number of seconds from 1 up", show_duration(said.value));
        section.error(&said.span, "lease", message, "write whole seconds, for example \"10 min\"");
    } else if let Some((message, fix)) = lease_fault(said.value, timers) {
        section.error(&said.span, "lease", message, fix);
    }
    said.value
}

fn read_max_time(section: &Section<'_, '_>) -> Option<Duration> {
    let said = section.duration("max_time")?;
    if said.value.is_zero() {
        let fix = "write for example \"2 h\", or remove the key: then there is no limit";
        section.error(&said.span, "max_time", "no build ends in no time", fix);
    }
    Some(said.value)
}

fn read_grace(section: &Section<'_, '_>, lease: Duration, timers: &Timers) -> Duration {
    let Some(said) = section.duration("grace") else {
        return grace_for(lease, timers);
    };
    if let Some((message, fix)) = grace_fault(said.value, lease, timers) {
        section.error(&said.span, "grace", message, fix);
    }
    said.value
}

/// The single worker first, then the list (row B01).
fn read_worker_names(
    section: &Section<'_, '_>,
    builder: &str,
    known: &Names<'_>,
) -> Vec<WorkerName> {
    let one = section.text("worker").map(|said| ("worker", said));
    let more = section.texts("workers").unwrap_or_default();
    let all: Vec<(&str, Said<String>)> =
        one.into_iter().chain(more.into_iter().map(|said| ("workers", said))).collect();
    let mut names: Vec<WorkerName> = Vec::with_capacity(all.len());
    let mut before = BTreeSet::new();
    for (key, said) in &all {
        let name = said.value.as_str();
        if !before.insert(name) {
            let message = format!("worker `{name}` is named twice");
            section.error(&said.span, key, message, "name it once");
            continue;
        }
        let shared = known.get(name);
        if shared.is_none() {
            let message = format!("there is no worker `{name}`");
            section.error(&said.span, key, message, fix_unknown("worker", name, &known.all()));
        }
        names.push(shared.unwrap_or_else(|| WorkerName::from(name)));
    }
    if names.is_empty() {
        section.report.note(
            Some(&section.span),
            &section.key("workers"),
            format!("builder `{builder}` has no worker: its requests will wait"),
            "add workers = [\"…\"]",
        );
    }
    names
}

fn read_tags(section: &Section<'_, '_>) -> Vec<String> {
    let said = section.texts("tags").unwrap_or_default();
    for tag in &said {
        if let Err(fault) = check_name(&tag.value, LONGEST_NAME) {
            section.error(
                &tag.span,
                "tags",
                fault.message.replace("the name", "the tag"),
                fault.fix,
            );
        }
    }
    said.into_iter().map(|tag| tag.value).collect()
}

fn read_lock_uses(section: &Section<'_, '_>, locks: &[LockDefinition]) -> Vec<LockUse> {
    let Some(items) = section.list("locks") else {
        return Vec::new();
    };
    let mut uses: Vec<LockUse> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let (name, count) = match item.get_ref() {
            DeValue::String(name) => {
                let span = item.span();
                (Said { value: name.clone().into_owned(), span }, 1)
            }
            DeValue::Table(table) => match read_lock_table(section, index, item.span(), table) {
                Some(read) => read,
                None => continue,
            },
            _ => {
                let message = "a lock is a name or a table";
                let fix = "write \"NAME\" or { name = \"NAME\", count = 2 }";
                section.error(&item.span(), "locks", message, fix);
                continue;
            }
        };
        if let Some(taken) = lock_use(section, locks, &name, count, &uses) {
            uses.push(taken);
        }
    }
    if !uses.is_empty() {
        let message = "locks are kept and shown, but not enforced yet";
        let fix = "until they are, give builders that must not meet one worker with max_builds = 1";
        section.report.note(
            section.key_span("locks").as_ref(),
            &section.key("locks"),
            message,
            fix,
        );
    }
    uses
}

fn read_lock_table(
    section: &Section<'_, '_>,
    index: usize,
    span: Range<usize>,
    table: &DeTable<'_>,
) -> Option<(Said<String>, u64)> {
    let path = format!("{}[{}]", section.key("locks"), index + 1);
    let inner = Section::open(section.report, path, span, table, LOCK_USE_KEYS);
    let count = inner.number("count", 1..=u64::from(u32::MAX)).unwrap_or(1);
    required_name(&inner).map(|name| (name, count))
}

fn lock_use(
    section: &Section<'_, '_>,
    locks: &[LockDefinition],
    name: &Said<String>,
    count: u64,
    uses: &[LockUse],
) -> Option<LockUse> {
    let Some(lock) = locks.iter().find(|lock| lock.name == name.value) else {
        let known: Vec<&str> = locks.iter().map(|lock| lock.name.as_str()).collect();
        let message = format!("there is no lock `{}`", name.value);
        section.error(&name.span, "locks", message, fix_unknown("lock", &name.value, &known));
        return None;
    };
    if uses.iter().any(|other| other.name == name.value) {
        let message = format!("lock `{}` is named twice", name.value);
        section.error(&name.span, "locks", message, "name it once, with a count");
        return None;
    }
    if count > u64::from(lock.max_count) {
        let message = format!(
            "{count} of lock `{}` can never be had: its max_count is {}",
            name.value, lock.max_count
        );
        section.error(&name.span, "locks", message, "take fewer, or raise the lock's max_count");
    }
    Some(LockUse {
        name: lock.name.clone(),
        kind: lock.kind,
        max_count: lock.max_count,
        count: u32::try_from(count).unwrap_or(u32::MAX),
    })
}
