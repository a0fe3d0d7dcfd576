//! `check`: everything that is wrong with a configuration, without touching a
//! running master.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Common, exit, keep};
use crate::core::retention::RetentionRules;
use crate::core::values::OnLost;
use crate::settings::{Problem, Settings, check_token_files, load_with, show_duration};

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
An error keeps the master from starting (or from reading its configuration
again); a note is worth a look. Each names the file, the line, the key, and what
to do. With --json each is an object on a line, and so is the summary at the end.

Examples:
  botmaster check
  botmaster check /etc/botmaster.toml --json
  botmaster check --store           read and check all that is stored, too

Exit codes: 0 good (there may be notes), 78 there are errors; with --store: 1
something stored is damaged.")]
pub struct CheckArgs {
    /// The file, instead of --config.
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,
    /// Also read everything in the data folder and check it, whether a master
    /// runs on it or not.
    #[arg(long)]
    store: bool,
}

/// Runs the command. Answers the exit code.
pub(super) fn run(common: &Common, args: &CheckArgs) -> u8 {
    let file = args.file.as_ref().unwrap_or(&common.config);
    let mut folder = None;
    let mut kept = None;
    let (errors, notes, counts, restart) = match load_with(file, &common.overrides()) {
        Ok(loaded) => {
            folder = Some(loaded.settings.master.data_dir.clone());
            let (errors, token_notes) = check_token_files(&loaded.settings);
            let notes: Vec<Problem> = loaded.notes.into_iter().chain(token_notes).collect();
            let counts = (loaded.settings.builders.len(), loaded.settings.workers.len());
            let rules = &loaded.settings.retention;
            kept = (!rules.keep_all()).then(|| kept_for_people(rules));
            let restart = restart_costs(&loaded.settings);
            (errors, notes, Some(counts), restart)
        }
        Err(errors) => (errors, Vec::new(), None, Vec::new()),
    };
    let text = if common.json {
        in_json(&file.display().to_string(), &errors, &notes, counts, &restart)
    } else {
        let file = file.display().to_string();
        let mut text = for_people(&file, &errors, &notes, counts, &restart);
        text.extend(kept);
        text
    };
    // Whoever closed the pipe has read enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    match folder.filter(|_| args.store) {
        Some(folder) if errors.is_empty() => keep::examine(common, &folder),
        _ if errors.is_empty() => exit::OK,
        _ => exit::CONFIG,
    }
}

/// What a restart of the master costs the builds that run, in this
/// configuration.
fn restart_costs(settings: &Settings) -> Vec<String> {
    let timers = &settings.timers;
    // The worker counts from its last heartbeat that was confirmed.
    let known = |lease: Duration| show_duration(lease.saturating_sub(timers.heartbeat));
    let (lease, longer) = (known(timers.lease), show_duration(timers.stop_lease));
    let mut lines = vec![if timers.stop_lease.is_zero() {
        "a planned stop (SIGTERM) costs what a crash costs: stop_lease grants nothing".to_owned()
    } else {
        format!(
            "a planned stop (SIGTERM) costs no build whose worker is attached again within {longer}"
        )
    }];
    lines.push(format!("a crash costs no build whose worker is attached again within {lease}"));
    for builder in &settings.builders {
        let name = &builder.name;
        let own = known(builder.lease);
        match builder.on_lost {
            OnLost::Wait => lines.push(format!(
                "builds of `{name}` wait for their worker without end (on_lost = \"wait\")"
            )),
            OnLost::Fail => lines.push(format!(
                "builds of `{name}` end when their worker is not attached again within {own} \
                 after a crash, and are not built again (on_lost = \"fail\")"
            )),
            OnLost::Requeue if builder.lease != timers.lease => lines.push(format!(
                "builds of `{name}` have {own} after a crash (a lease of their own)"
            )),
            OnLost::Requeue => {}
        }
    }
    lines
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn for_people(
    file: &str,
    errors: &[Problem],
    notes: &[Problem],
    counts: Option<(usize, usize)>,
    restart: &[String],
) -> String {
    let mut text = String::new();
    for (level, problems) in [("error", errors), ("note", notes)] {
        for problem in problems {
            text.push_str(&format!("{level}: {problem}\n"));
        }
    }
    for line in restart {
        text.push_str(&format!("restart: {line}\n"));
    }
    let (errors, notes) = (count(errors.len(), "error"), count(notes.len(), "note"));
    let summary = match counts {
        Some((builders, workers)) => {
            format!("{}, {}, ", count(builders, "builder"), count(workers, "worker"))
        }
        None => String::new(),
    };
    text.push_str(&format!("{file}: {summary}{errors}, {notes}\n"));
    text
}

/// What the housekeeping leaves.
fn kept_for_people(rules: &RetentionRules) -> String {
    let mut text = format!("kept: {}\n", keep::rules(&rules.all));
    for (name, own) in &rules.builders {
        if !own.keeps_all() {
            text.push_str(&format!("kept of {name}: {}\n", keep::rules(&rules.of(name))));
        }
    }
    text.push_str("`botmaster housekeeping` says what would go now\n");
    text
}

fn in_json(
    file: &str,
    errors: &[Problem],
    notes: &[Problem],
    counts: Option<(usize, usize)>,
    restart: &[String],
) -> String {
    let mut text = String::new();
    for (level, problems) in [("error", errors), ("note", notes)] {
        for problem in problems {
            let line = json!({
                "level": level,
                "file": problem.file,
                "line": problem.line,
                "key": problem.key,
                "message": problem.message,
                "fix": problem.fix,
            });
            text.push_str(&format!("{line}\n"));
        }
    }
    let summary = json!({
        "level": "summary",
        "file": file,
        "ok": errors.is_empty(),
        "errors": errors.len(),
        "notes": notes.len(),
        "builders": counts.map(|counts| counts.0),
        "workers": counts.map(|counts| counts.1),
        "restart": restart,
    });
    text.push_str(&format!("{summary}\n"));
    text
}
