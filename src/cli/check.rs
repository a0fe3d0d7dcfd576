//! `check`: everything that is wrong with a configuration, without touching a
//! running master.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Common, exit, keep};
use crate::core::retention::RetentionRules;
use crate::settings::{Problem, check_token_files, load_with};

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
    let (errors, notes, counts) = match load_with(file, &common.overrides()) {
        Ok(loaded) => {
            folder = Some(loaded.settings.master.data_dir.clone());
            let (errors, token_notes) = check_token_files(&loaded.settings);
            let notes: Vec<Problem> = loaded.notes.into_iter().chain(token_notes).collect();
            let counts = (loaded.settings.builders.len(), loaded.settings.workers.len());
            let rules = &loaded.settings.retention;
            kept = (!rules.keep_all()).then(|| kept_for_people(rules));
            (errors, notes, Some(counts))
        }
        Err(errors) => (errors, Vec::new(), None),
    };
    let text = if common.json {
        in_json(&file.display().to_string(), &errors, &notes, counts)
    } else {
        let mut text = for_people(&file.display().to_string(), &errors, &notes, counts);
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

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn for_people(
    file: &str,
    errors: &[Problem],
    notes: &[Problem],
    counts: Option<(usize, usize)>,
) -> String {
    let mut text = String::new();
    for (level, problems) in [("error", errors), ("note", notes)] {
        for problem in problems {
            text.push_str(&format!("{level}: {problem}\n"));
        }
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
    });
    text.push_str(&format!("{summary}\n"));
    text
}
