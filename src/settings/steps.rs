//! The `[[builder.step]]` part of a configuration.
//!
//! Defaults: a failed step makes the build a failure and the build goes on
//! (`flunk_on_failure` true, `halt_on_failure` false), except that a failed `git`
//! step ends the build, since nothing after it can mean anything. A step ends
//! after 20 minutes without output; it has no limit in all.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::time::Duration;

use super::master::absolute;
use super::names::{LONGEST_STEP_NAME, check_name};
use super::reader::{Said, Section};
use crate::core::values::{CheckoutMode, Program, StepKind, StepSpec};

/// How long a step that does not say may go without output.
const TIMEOUT: Duration = Duration::from_secs(20 * 60);

const STEP_KEYS: &[&str] = &[
    "name",
    "run",
    "shell",
    "git",
    "branch",
    "mode",
    "submodules",
    "depth",
    "workdir",
    "env",
    "timeout",
    "max_time",
    "halt_on_failure",
    "flunk_on_failure",
    "warn_on_failure",
    "always_run",
];

const GIT_ONLY: &[&str] = &["branch", "mode", "submodules", "depth"];

/// Reads a builder's steps. `base` is the folder that the file is in.
pub(super) fn read_steps(builder: &Section<'_, '_>, base: &Path) -> Vec<StepSpec> {
    let sections = builder.tables("step", STEP_KEYS);
    let mut taken = BTreeSet::new();
    for section in &sections {
        let Some(said) = section.text("name") else {
            continue;
        };
        if let Err(fault) = check_name(&said.value, LONGEST_STEP_NAME) {
            section.error(&said.span, "name", fault.message, fault.fix);
        }
        if !taken.insert(said.value.clone()) {
            let message = format!("the builder has a step `{}` already", said.value);
            section.error(&said.span, "name", message, "give one of them another name");
        }
    }
    let mut steps = Vec::with_capacity(sections.len());
    for section in &sections {
        let Some(kind) = read_kind(section, base) else {
            continue;
        };
        let name = match section.text("name") {
            Some(said) => said.value,
            None => free_name(&derived_name(&kind), &mut taken),
        };
        steps.push(read_step(section, name, kind));
    }
    steps
}

fn read_step(section: &Section<'_, '_>, name: String, kind: StepKind) -> StepSpec {
    let git = matches!(kind, StepKind::Git { .. });
    StepSpec {
        name,
        kind,
        workdir: read_workdir(section),
        env: section.text_map("env"),
        timeout: read_limit(section, "timeout", Some(TIMEOUT)),
        max_time: read_limit(section, "max_time", None),
        halt_on_failure: section.flag("halt_on_failure").unwrap_or(git),
        flunk_on_failure: section.flag("flunk_on_failure").unwrap_or(true),
        warn_on_failure: section.flag("warn_on_failure").unwrap_or(false),
        always_run: section.flag("always_run").unwrap_or(false),
    }
}

/// A limit that may be switched off.
fn read_limit(
    section: &Section<'_, '_>,
    name: &str,
    default: Option<Duration>,
) -> Option<Duration> {
    if section.raw(name).is_some_and(|value| value.get_ref().as_str() == Some("off")) {
        return None;
    }
    match section.duration(name) {
        Some(said) if said.value.is_zero() => {
            let fix = "write for example \"20 min\", or \"off\" for no limit";
            section.error(&said.span, name, "a step cannot end in no time", fix);
            default
        }
        Some(said) => Some(said.value),
        None => default,
    }
}

fn read_workdir(section: &Section<'_, '_>) -> Option<String> {
    let said = section.text("workdir")?;
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if said.value.is_empty() || !Path::new(&said.value).components().all(inside) {
        let message = format!("`{}` is not inside the build's folder", said.value);
        let fix = "write a folder relative to the build's own, without `..`";
        section.error(&said.span, "workdir", message, fix);
    }
    Some(said.value)
}

fn read_kind(section: &Section<'_, '_>, base: &Path) -> Option<StepKind> {
    let there: Vec<&str> =
        ["run", "shell", "git"].into_iter().filter(|key| section.raw(key).is_some()).collect();
    let fix = "write one of run = [\"program\", \"argument\"], shell = \"a line\" or git = \"URL\"";
    match there.as_slice() {
        [] => {
            section.error(&section.span, "run", "the step has nothing to do", fix);
            return None;
        }
        [_] => {}
        [first, second, ..] => {
            let message = format!("the step has `{first}` and `{second}`");
            let span = section.key_span(second).unwrap_or_else(|| section.span.clone());
            section.error(&span, second, message, fix);
            return None;
        }
    }
    if section.raw("git").is_some() {
        return read_git(section, base);
    }
    for key in GIT_ONLY {
        if let Some(span) = section.key_span(key) {
            let message = format!("`{key}` means something in a git step only");
            section.error(&span, key, message, "remove it, or move it to the git step");
        }
    }
    let program = match section.text("shell") {
        Some(line) => read_shell(section, line)?,
        None => read_argv(section)?,
    };
    Some(StepKind::Run { program })
}

fn read_shell(section: &Section<'_, '_>, line: Said<String>) -> Option<Program> {
    if line.value.trim().is_empty() || line.value.contains('\0') {
        let message = "the line is empty or has a NUL character";
        section.error(&line.span, "shell", message, "write what /bin/sh shall run");
        return None;
    }
    Some(Program::Shell(line.value))
}

fn read_argv(section: &Section<'_, '_>) -> Option<Program> {
    if let Some(value) = section.raw("run")
        && value.get_ref().is_str()
    {
        let fix = "write a list: run = [\"program\", \"argument\"], or use shell = \"a line\"";
        section.error(&value.span(), "run", "a list is wanted here, and this is a text", fix);
        return None;
    }
    let said = section.texts("run")?;
    let span = section.raw("run").map_or_else(|| section.span.clone(), |value| value.span());
    if said.first().is_none_or(|program| program.value.is_empty()) {
        let fix = "write run = [\"program\", \"argument\"]";
        section.error(&span, "run", "no program is named", fix);
        return None;
    }
    if let Some(bad) = said.iter().find(|argument| argument.value.contains('\0')) {
        section.error(&bad.span, "run", "the argument has a NUL character", "remove it");
        return None;
    }
    Some(Program::Argv(said.into_iter().map(|argument| argument.value).collect()))
}

fn read_git(section: &Section<'_, '_>, base: &Path) -> Option<StepKind> {
    let said = section.text("git")?;
    // git would take such a text for one of its options.
    let unsafe_start =
        |text: &str| text.starts_with('-') || text.trim().is_empty() || text.contains('\0');
    if unsafe_start(&said.value) {
        let message = format!("`{}` is no repository", said.value);
        section.error(&said.span, "git", message, "write a URL or a path, for example git = \".\"");
        return None;
    }
    let branch = section.text("branch");
    if let Some(branch) = &branch
        && unsafe_start(&branch.value)
    {
        let message = format!("`{}` is no branch", branch.value);
        section.error(&branch.span, "branch", message, "write a branch's name, or remove the key");
    }
    let modes = [("clean", CheckoutMode::Clean), ("incremental", CheckoutMode::Incremental)];
    Some(StepKind::Git {
        repository: resolved_repository(base, &said.value),
        branch: branch.map(|said| said.value),
        mode: section.word("mode", &modes).unwrap_or(CheckoutMode::Clean),
        submodules: section.flag("submodules").unwrap_or(false),
        depth: section
            .number("depth", 1..=u64::from(u32::MAX))
            .and_then(|depth| u32::try_from(depth).ok()),
    })
}

/// A relative path made absolute, since workers run in folders of their own. A
/// URL and `host:path` stay as they are.
fn resolved_repository(base: &Path, text: &str) -> String {
    let before_slash = text.split('/').next().unwrap_or(text);
    if before_slash.contains(':') || Path::new(text).is_absolute() {
        return text.to_owned();
    }
    absolute(base, text).display().to_string()
}

fn derived_name(kind: &StepKind) -> String {
    let words: Vec<String> = match kind {
        StepKind::Git { .. } => vec!["git".to_owned()],
        StepKind::Run { program: Program::Argv(argv) } => argv.iter().take(2).cloned().collect(),
        StepKind::Run { program: Program::Shell(line) } => {
            line.split_whitespace().take(2).map(str::to_owned).collect()
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut parts = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        // The program by its file's name; its first argument when it is a word.
        let word = if index == 0 { word.rsplit('/').next().unwrap_or(word) } else { word };
        if index > 0 && !(word.starts_with(char::is_alphanumeric) && word.chars().all(plain)) {
            break;
        }
        parts.push(word.chars().map(|c| if plain(c) { c } else { '_' }).collect::<String>());
    }
    let name: String = parts.join("-").chars().take(LONGEST_STEP_NAME).collect();
    if name.is_empty() { "step".to_owned() } else { name }
}

/// `name`, or with `_1`, `_2`, … after it when it is taken.
fn free_name(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut free = name.to_owned();
    let mut count = 0;
    while !taken.insert(free.clone()) {
        count += 1;
        let end = format!("_{count}");
        let kept: String = name.chars().take(LONGEST_STEP_NAME - end.len()).collect();
        free = kept + &end;
    }
    free
}
