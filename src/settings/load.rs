//! From a TOML file to [`Settings`]: reads the file, its `[master]`, `[timers]`,
//! `[[worker]]`, `[[lock]]` and `[up]` parts, and checks them against each other.
//!
//! Relative paths in the file start at the folder that the file is in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::builders::{BuilderContext, LockDefinition, read_builders};
use super::durations::show_duration;
use super::names::{LONGEST_NAME, check_folder_name, check_name, nearest};
use super::reader::{Report, Said, Section};
use super::types::{MasterSettings, Problem, Settings, Timers, UpSettings, WorkerSettings};
use crate::core::ids::{BuilderName, WorkerName};
use crate::core::values::{BuilderConfig, LockKind, WorkerConfig};

/// Longest configuration file that is read, in bytes.
const LONGEST_FILE: u64 = 16 * 1024 * 1024;

/// Most builds that a worker may run side by side.
const MOST_BUILDS: u64 = 10_000;

const ROOT_KEYS: &[&str] = &["master", "timers", "worker", "builder", "lock", "up"];
const MASTER_KEYS: &[&str] = &["title", "data_dir", "http", "listen", "insecure", "drain"];
const TIMER_KEYS: &[&str] = &[
    "heartbeat",
    "heartbeat_idle",
    "lease",
    "kill_time",
    "grace",
    "attach_timeout",
    "ping_timeout",
    "handshake",
];
const WORKER_KEYS: &[&str] = &["name", "token_file", "max_builds"];
const LOCK_KEYS: &[&str] = &["name", "kind", "max_count"];
const UP_KEYS: &[&str] = &["builder", "worker"];

/// A valid configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// What it comes to.
    pub settings: Settings,
    /// What is allowed and still worth a look.
    pub notes: Vec<Problem>,
}

/// Settings from the command line, which win over the file's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// `--data-dir`, relative to the working folder.
    pub data_dir: Option<PathBuf>,
    /// `--http`.
    pub http: Option<SocketAddr>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
}

/// Reads a configuration file.
///
/// # Errors
/// Everything that is wrong with the file, in the order of its lines.
pub fn load(path: &Path) -> Result<Loaded, Vec<Problem>> {
    load_with(path, &Overrides::default())
}

/// Reads a configuration file; `overrides` win over what it says.
///
/// # Errors
/// Everything that is wrong with the file, in the order of its lines.
pub fn load_with(path: &Path, overrides: &Overrides) -> Result<Loaded, Vec<Problem>> {
    let text = read_text(path).map_err(|problem| vec![problem])?;
    load_text(path, &text, overrides)
}

/// Reads a configuration from a text, as if it stood in the file `path`.
///
/// # Errors
/// Everything that is wrong with it, in the order of its lines.
pub fn load_text(path: &Path, text: &str, overrides: &Overrides) -> Result<Loaded, Vec<Problem>> {
    let report = Report::new(path.display().to_string(), text);
    let (root, faults) = DeTable::parse_recoverable(text);
    if !faults.is_empty() {
        for fault in faults.iter().take(20) {
            let span = fault.span();
            let column = span.as_ref().map(|span| report.place(span.start).1);
            let place = column
                .map(|column| format!(" at column {column}"))
                .unwrap_or_default();
            let what = fault.message().replace('\n', ", ");
            let message = format!("this is not TOML{place}: {what}");
            report.error(
                span.as_ref(),
                "",
                message,
                "see https://toml.io for how TOML is written",
            );
        }
        return Err(report.into_parts().0);
    }
    if root.get_ref().is_empty() {
        let fix = "`botmaster init DIR` writes a configuration to start from";
        report.error(None, "", "there is nothing in the file", fix);
        return Err(report.into_parts().0);
    }
    let whole = Section::open(
        &report,
        String::new(),
        root.span(),
        root.get_ref(),
        ROOT_KEYS,
    );
    let settings = read_settings(path, &whole, overrides);
    let (errors, notes) = report.into_parts();
    if errors.is_empty() {
        Ok(Loaded { settings, notes })
    } else {
        Err(errors)
    }
}

fn read_text(path: &Path) -> Result<String, Problem> {
    let problem = |line: Option<usize>, message: String, fix: &str| Problem {
        file: path.display().to_string(),
        line,
        key: String::new(),
        message,
        fix: fix.to_owned(),
    };
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => problem(
            None,
            "there is no such file".to_owned(),
            "give the right file with --config, or make one with `botmaster init DIR`",
        ),
        std::io::ErrorKind::PermissionDenied => problem(
            None,
            "the file cannot be read: permission denied".to_owned(),
            "make it readable for the user that runs this program",
        ),
        _ => problem(
            None,
            format!("the file cannot be read: {error}"),
            "give another file with --config",
        ),
    };
    // A folder opens well and fails at the first read, with a poor text.
    if fs::metadata(path).map_err(cannot)?.is_dir() {
        let fix = "give the file itself, for example with --config DIR/botmaster.toml";
        return Err(problem(
            None,
            "this is a folder, not a file".to_owned(),
            fix,
        ));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(cannot)?;
    file.take(LONGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > LONGEST_FILE {
        let message = "the file is longer than 16 MiB".to_owned();
        return Err(problem(None, message, "give a configuration file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        problem(
            Some(line),
            "the file is not UTF-8 text".to_owned(),
            "save it as UTF-8",
        )
    })
}

fn read_settings(path: &Path, root: &Section<'_, '_>, overrides: &Overrides) -> Settings {
    let base = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let master = read_master(&root.table("master", MASTER_KEYS), base, overrides);
    let timers = read_timers(&root.table("timers", TIMER_KEYS));
    let workers = read_workers(root);
    let locks = read_locks(root);
    let names: Vec<&str> = workers
        .iter()
        .map(|worker| worker.config.name.as_str())
        .collect();
    let context = BuilderContext {
        base,
        timers: &timers,
        workers: &names,
        locks: &locks,
    };
    let builders = read_builders(root, &context);
    if builders.is_empty() && root.raw("builder").is_none() {
        root.report.note(
            None,
            "builder",
            "no builder is configured",
            "add a [[builder]]",
        );
    }
    let up = read_up(&root.table("up", UP_KEYS), &names, &builders);
    Settings {
        file: path.to_owned(),
        master,
        timers,
        workers,
        builders: builders.into_iter().map(Arc::new).collect(),
        up,
    }
}

/// Takes `.` and `..` out of a path without asking the file system.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(tidied.components().next_back(), Some(Component::Normal(_))) =>
            {
                tidied.pop();
            }
            other => tidied.push(other),
        }
    }
    if tidied.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        tidied
    }
}

/// The absolute form of a path that is relative to `base`: what a worker in
/// another folder can use.
pub(super) fn absolute(base: &Path, path: &str) -> PathBuf {
    let joined = base.join(path);
    fs::canonicalize(&joined)
        .or_else(|_| std::path::absolute(&joined).map(|path| tidy(&path)))
        .unwrap_or(joined)
}

fn read_master(section: &Section<'_, '_>, base: &Path, overrides: &Overrides) -> MasterSettings {
    let title = section
        .text("title")
        .map_or_else(|| "botmaster".to_owned(), |said| said.value);
    let data_dir = match section.text("data_dir") {
        Some(said) if said.value.trim().is_empty() => {
            let fix = "name a folder, for example data_dir = \"data\"";
            section.error(&said.span, "data_dir", "the folder's name is empty", fix);
            PathBuf::new()
        }
        Some(said) => tidy(&base.join(said.value)),
        None => tidy(&base.join("data")),
    };
    let insecure = section.flag("insecure").unwrap_or(false);
    let http = read_address(
        section,
        "http",
        overrides.http,
        [127, 0, 0, 1],
        8010,
        insecure,
    );
    let listen = read_address(
        section,
        "listen",
        overrides.listen,
        [127, 0, 0, 1],
        9989,
        insecure,
    );
    if http == listen && http.port() != 0 {
        let span = section
            .key_span("listen")
            .or_else(|| section.key_span("http"));
        let message = format!("`http` and `listen` are both {http}");
        let fix = "give each a port of its own";
        section
            .report
            .error(span.as_ref(), &section.key("listen"), message, fix);
    }
    MasterSettings {
        title,
        data_dir: overrides.data_dir.clone().unwrap_or(data_dir),
        http,
        listen,
        insecure,
        drain: section
            .duration("drain")
            .map_or(Duration::ZERO, |said| said.value),
    }
}

fn read_address(
    section: &Section<'_, '_>,
    name: &str,
    given: Option<SocketAddr>,
    host: [u8; 4],
    port: u16,
    insecure: bool,
) -> SocketAddr {
    let default = SocketAddr::from((host, port));
    let said = section.text(name);
    let (address, span): (SocketAddr, Option<Range<usize>>) = match (given, said) {
        (Some(address), _) => (address, None),
        (None, Some(said)) => match said.value.parse() {
            Ok(address) => (address, Some(said.span)),
            Err(_) => {
                let message = format!("`{}` is no address with a port", said.value);
                let fix = format!("write numbers, for example \"{default}\" or \"[::1]:{port}\"");
                section.error(&said.span, name, message, fix);
                return default;
            }
        },
        (None, None) => (default, None),
    };
    if address.ip().is_loopback() {
        return address;
    }
    let by = if span.is_some() {
        String::new()
    } else {
        format!(" (from --{name})")
    };
    if insecure {
        section.report.note(
            span.as_ref(),
            &section.key(name),
            format!("{address}{by} can be reached from other machines, without TLS and sign-in"),
            "put a proxy with TLS and sign-in before it, or listen on 127.0.0.1",
        );
    } else {
        section.report.error(
            span.as_ref(),
            &section.key(name),
            format!(
                "{address}{by} can be reached from other machines, and there is no TLS and no sign-in yet: \
                 whoever reaches it can run programs on your workers"
            ),
            format!("listen on 127.0.0.1:{}, or allow it with insecure = true in [master]", address.port()),
        );
    }
    address
}

fn read_timers(section: &Section<'_, '_>) -> Timers {
    let standard = Timers::default();
    let second = Duration::from_secs(1);
    // These travel to the workers as whole seconds.
    let seconds = |name: &str, default: Duration| match section.duration(name) {
        Some(said) if said.value < second || said.value.subsec_nanos() != 0 => {
            let message = format!(
                "{} is no whole number of seconds from 1 up",
                show_duration(said.value)
            );
            section.error(
                &said.span,
                name,
                message,
                "write whole seconds, for example \"10s\"",
            );
            default
        }
        Some(said) => said.value,
        None => default,
    };
    let span = |name: &str, default: Duration| match section.duration(name) {
        Some(said) if said.value.is_zero() => {
            section.error(
                &said.span,
                name,
                "this timer cannot be zero",
                "write for example \"10s\"",
            );
            default
        }
        Some(said) => said.value,
        None => default,
    };
    let timers = Timers {
        heartbeat: seconds("heartbeat", standard.heartbeat),
        heartbeat_idle: seconds("heartbeat_idle", standard.heartbeat_idle),
        lease: seconds("lease", standard.lease),
        kill_time: seconds("kill_time", standard.kill_time),
        grace: span("grace", standard.grace),
        attach_timeout: span("attach_timeout", standard.attach_timeout),
        ping_timeout: span("ping_timeout", standard.ping_timeout),
        handshake: span("handshake", standard.handshake),
    };
    check_timers(section, &timers);
    timers
}

/// The shortest grace that keeps a build from running twice: the worker must
/// have ended its processes before the master queues the requests again.
pub(super) fn shortest_grace(timers: &Timers) -> Duration {
    timers.lease + timers.kill_time + timers.lease / 10
}

/// What is wrong with a grace, when it is too short for the timers.
pub(super) fn grace_fault(grace: Duration, timers: &Timers) -> Option<(String, String)> {
    let least = shortest_grace(timers);
    if grace >= least {
        return None;
    }
    let message = format!(
        "a grace of {} is shorter than lease ({}) + kill_time ({}) + a tenth of the lease = {}: \
         a build could run twice",
        show_duration(grace),
        show_duration(timers.lease),
        show_duration(timers.kill_time),
        show_duration(least),
    );
    Some((
        message,
        format!("write grace = \"{}\" or more", show_duration(least)),
    ))
}

fn check_timers(section: &Section<'_, '_>, timers: &Timers) {
    // The fault is shown at the key that is there: one of the two must be, since
    // the defaults fit each other.
    let report = |name: &str, others: &[&str], message: String, fix: String| {
        let span = section
            .key_span(name)
            .or_else(|| others.iter().find_map(|other| section.key_span(other)));
        section
            .report
            .error(span.as_ref(), &section.key(name), message, fix);
    };
    let least = timers.heartbeat * 3;
    if timers.lease < least {
        let message = format!(
            "a lease of {} is shorter than three heartbeats of {}: one lost frame would end builds",
            show_duration(timers.lease),
            show_duration(timers.heartbeat),
        );
        let fix = format!(
            "write lease = \"{}\" or more, or a shorter heartbeat",
            show_duration(least)
        );
        report("lease", &["heartbeat"], message, fix);
    }
    if timers.heartbeat_idle < timers.heartbeat {
        let message = format!(
            "an idle worker would send its heartbeats ({}) more often than one that builds ({})",
            show_duration(timers.heartbeat_idle),
            show_duration(timers.heartbeat),
        );
        let fix = format!(
            "write heartbeat_idle = \"{}\" or more",
            show_duration(timers.heartbeat)
        );
        report("heartbeat_idle", &["heartbeat"], message, fix);
    }
    if let Some((message, fix)) = grace_fault(timers.grace, timers) {
        report("grace", &["lease", "kill_time"], message, fix);
    }
}

/// A required name; nothing when it is missing.
pub(super) fn required_name(section: &Section<'_, '_>) -> Option<Said<String>> {
    if section.raw("name").is_none() {
        let message = "it has no name";
        section.error(
            &section.span,
            "name",
            message,
            "add a line such as name = \"…\"",
        );
    }
    section.text("name")
}

/// Reports a name that was there before.
pub(super) fn check_new<'a>(
    section: &Section<'_, '_>,
    what: &str,
    said: &'a Said<String>,
    before: &mut BTreeMap<String, Range<usize>>,
) {
    if let Some(first) = before.get(&said.value) {
        let line = section.report.place(first.start).0;
        let message = format!("there is a {what} `{}` already, in line {line}", said.value);
        section.error(&said.span, "name", message, "give one of them another name");
    } else {
        before.insert(said.value.clone(), said.span.clone());
    }
}

fn read_workers(root: &Section<'_, '_>) -> Vec<WorkerSettings> {
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
            section
                .report
                .note(span.as_ref(), &section.key("token_file"), message, fix);
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

fn read_locks(root: &Section<'_, '_>) -> Vec<LockDefinition> {
    let mut before = BTreeMap::new();
    let mut locks = Vec::new();
    for section in root.tables("lock", LOCK_KEYS) {
        let kind = section.word(
            "kind",
            &[("master", LockKind::Master), ("worker", LockKind::Worker)],
        );
        let max_count = section
            .number("max_count", 1..=u64::from(u32::MAX))
            .unwrap_or(1);
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

/// What to do about a name that is not there.
pub(super) fn fix_unknown(what: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("add a [[{what}]] with this name"),
        None => format!(
            "add a [[{what}]] with this name; there are: {}",
            known.join(", ")
        ),
    }
}

fn read_up(section: &Section<'_, '_>, workers: &[&str], builders: &[BuilderConfig]) -> UpSettings {
    let builders: Vec<&str> = builders
        .iter()
        .map(|builder| builder.name.as_str())
        .collect();
    let known = |what: &str, known: &[&str]| {
        let said = section.text(what)?;
        if !known.contains(&said.value.as_str()) {
            let message = format!("there is no {what} `{}`", said.value);
            section.error(
                &said.span,
                what,
                message,
                fix_unknown(what, &said.value, known),
            );
        }
        Some(said.value)
    };
    UpSettings {
        builder: known("builder", &builders).map(BuilderName::from),
        worker: known("worker", workers).map(WorkerName::from),
    }
}
