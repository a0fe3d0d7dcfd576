//! From a TOML file to [`Settings`]: reads the file, lets each part of it be read
//! by its module, and the `[up]` part here.
//!
//! Relative paths in the file start at the folder that the file is in.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::builders::{BuilderContext, Names, read_builders, read_merge};
use super::forms::read_forms;
use super::limits::{LIMIT_KEYS, STORE_KEYS, read_limits, read_store};
use super::master::{MASTER_KEYS, read_master};
use super::names::fix_unknown;
use super::reader::{Report, Section};
use super::retention::read_retention;
use super::timers::{TIMER_KEYS, read_timers};
use super::types::{Problem, Settings, UpSettings};
use super::workers::{read_locks, read_workers};
use crate::core::ids::{BuilderName, WorkerName};
use crate::core::retention::RetentionRules;
use crate::core::values::BuilderConfig;

/// Longest configuration file that is read, in bytes.
const LONGEST_FILE: u64 = 16 * 1024 * 1024;

const ROOT_KEYS: &[&str] = &[
    "master",
    "timers",
    "limits",
    "store",
    "worker",
    "builder",
    "lock",
    "retention",
    "up",
    "force_scheduler",
];
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
    /// `--ui-dir`, relative to the working folder.
    pub ui_dir: Option<PathBuf>,
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
            let place = column.map(|column| format!(" at column {column}")).unwrap_or_default();
            let what = fault.message().replace('\n', ", ");
            let message = format!("this is not TOML{place}: {what}");
            report.error(span.as_ref(), "", message, "see https://toml.io for how TOML is written");
        }
        return Err(report.into_parts().0);
    }
    if root.get_ref().is_empty() {
        let fix = "`botmaster init DIR` writes a configuration to start from";
        report.error(None, "", "there is nothing in the file", fix);
        return Err(report.into_parts().0);
    }
    let whole = Section::open(&report, String::new(), root.span(), root.get_ref(), ROOT_KEYS);
    let settings = read_settings(path, &whole, overrides);
    let (errors, notes) = report.into_parts();
    if errors.is_empty() { Ok(Loaded { settings, notes }) } else { Err(errors) }
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
        return Err(problem(None, "this is a folder, not a file".to_owned(), fix));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(cannot)?;
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > LONGEST_FILE {
        let message = "the file is longer than 16 MiB".to_owned();
        return Err(problem(None, message, "give a configuration file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count() + 1;
        problem(Some(line), "the file is not UTF-8 text".to_owned(), "save it as UTF-8")
    })
}

fn read_settings(path: &Path, root: &Section<'_, '_>, overrides: &Overrides) -> Settings {
    let base = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let own = root.table("master", MASTER_KEYS);
    let master = read_master(&own, base, overrides);
    let merge = read_merge(&own).unwrap_or_default();
    let timers = read_timers(&root.table("timers", TIMER_KEYS));
    let workers = read_workers(root, base, &master.data_dir);
    let locks = read_locks(root);
    let names = Names::of(workers.iter().map(|worker| &worker.config.name));
    let context = BuilderContext { base, timers: &timers, workers: &names, locks: &locks, merge };
    let (builders, own_retention) = read_builders(root, &context);
    let retention = RetentionRules { all: read_retention(root), builders: own_retention };
    if builders.is_empty() && root.raw("builder").is_none() {
        root.report.note(None, "builder", "no builder is configured", "add a [[builder]]");
    }
    let builder_names: Vec<&str> = builders.iter().map(|builder| builder.name.as_str()).collect();
    let forms = read_forms(root, &builder_names);
    let up = read_up(&root.table("up", UP_KEYS), &names.all(), &builders);
    Settings {
        file: path.to_owned(),
        master,
        timers,
        limits: read_limits(&root.table("limits", LIMIT_KEYS)),
        store: read_store(&root.table("store", STORE_KEYS)),
        workers,
        builders: builders.into_iter().map(Arc::new).collect(),
        up,
        forms,
        retention,
    }
}

fn read_up(section: &Section<'_, '_>, workers: &[&str], builders: &[BuilderConfig]) -> UpSettings {
    let builders: Vec<&str> = builders.iter().map(|builder| builder.name.as_str()).collect();
    let known = |what: &str, known: &[&str]| {
        let said = section.text(what)?;
        if !known.contains(&said.value.as_str()) {
            let message = format!("there is no {what} `{}`", said.value);
            section.error(&said.span, what, message, fix_unknown(what, &said.value, known));
        }
        Some(said.value)
    };
    UpSettings {
        builder: known("builder", &builders).map(BuilderName::from),
        worker: known("worker", workers).map(WorkerName::from),
    }
}
