//! `backup`, `restore`, and the look at what is stored.
//!
//! These read the files of the data folder themselves, because they have to
//! work when no master answers.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::tell::{complain, say};
use super::{Common, exit, print_problems};
use crate::app::{self, Examined, KeepError, KeepProgress};
use crate::core::retention::Retention;
use crate::settings::show_duration;

/// Time between two lines of progress.
const OFTEN: Duration = Duration::from_secs(2);

/// Arguments of `backup`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The copy is consistent: builds and logs as they were at one moment. The master
may work on meanwhile. It is checked, and has its name only when it is whole.
The workers' tokens are in it, so keep it where only you can read it.

Examples:
  botmaster backup /backup/botmaster-monday
  botmaster backup --data-dir /var/lib/botmaster /backup/1

Exit codes: 0 done, 1 it did not work (nothing is left), 78 the configuration is bad.")]
pub struct BackupArgs {
    /// The new folder for the copy.
    #[arg(value_name = "DIR")]
    target: PathBuf,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The data folder must be empty or not there: nothing is written over. The copy is
checked first. Start the master with --restored afterwards, once: whatever was
given out after the backup is skipped then, and builds that it does not know are
abandoned by their workers. Builds that ran at the time of the backup are built again.

Examples:
  botmaster restore /backup/botmaster-monday --data-dir /var/lib/botmaster
  botmaster master --restored --data-dir /var/lib/botmaster

Exit codes: 0 done, 1 it did not work (the data folder is as it was), 78 the
configuration is bad.")]
pub struct RestoreArgs {
    /// The folder that `botmaster backup` made.
    #[arg(value_name = "DIR")]
    from: PathBuf,
}

/// Arguments of `housekeeping`.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
A running master removes what its configuration no longer keeps, a little at a
time. This command removes nothing: it says what would go of each builder by the
rules of the configuration file. `builds` counts builds, `age` is since their end;
`log_age` and `size` remove only the text of logs. What runs, what is still wanted
and the newest finished build of each builder always stay. Without rules
everything is kept.

Examples:
  botmaster housekeeping
  botmaster housekeeping --config new.toml --data-dir /var/lib/botmaster --json

In the configuration:
  [retention]
  builds = 1000
  age = \"90d\"
  log_age = \"30d\"
  size = \"20 GiB\"
  [[builder]]
  retention = { builds = 50 }

Exit codes: 0 told, 1 the store cannot be read, 78 the configuration is bad.")]
pub struct HousekeepingArgs {}

/// The data folder that a command is for.
pub(super) fn data_dir(common: &Common) -> Result<PathBuf, u8> {
    if let Some(folder) = &common.data_dir {
        return Ok(folder.clone());
    }
    common.load().map(|loaded| loaded.settings.master.data_dir).map_err(|problems| {
        print_problems(&problems);
        exit::CONFIG
    })
}

/// Tells of progress, now and then, to standard error.
struct Shown {
    json: bool,
    last: Option<Instant>,
    /// Small work needs no lines.
    began: Instant,
}

impl Shown {
    fn new(json: bool) -> Self {
        Self { json, last: None, began: Instant::now() }
    }

    fn tell(&mut self, progress: KeepProgress<'_>) {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now.duration_since(last) >= OFTEN);
        if !due || (!std::io::stderr().is_terminal() && now.duration_since(self.began) < OFTEN) {
            return;
        }
        self.last = Some(now);
        let KeepProgress { what, file, done, all } = progress;
        if self.json {
            complain(json!({ "what": what, "file": file, "done": done, "all": all }));
        } else {
            complain(format_args!("{what} {file}: {} of {}", size(done), size(all)));
        }
    }
}

/// A number of bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = "bytes";
    let mut shown = bytes as f64;
    for next in UNITS {
        if shown < 1024.0 {
            break;
        }
        shown /= 1024.0;
        unit = next;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{shown:.1} {unit}") }
}

fn failed(error: &KeepError) -> u8 {
    complain(format_args!("botmaster: {error}"));
    exit::FAILED
}

/// Runs `backup`. Answers the exit code.
pub(super) fn backup(common: &Common, args: &BackupArgs) -> u8 {
    let folder = match data_dir(common) {
        Ok(folder) => folder,
        Err(code) => return code,
    };
    let mut shown = Shown::new(common.json);
    let version = env!("CARGO_PKG_VERSION");
    let done = app::back_up(&folder, &args.target, version, &mut |step| shown.tell(step));
    let done = match done {
        Ok(done) => done,
        Err(error) => return failed(&error),
    };
    let (path, found) = (args.target.display(), &done.found);
    if common.json {
        say(json!({
            "backup": path.to_string(), "bytes": done.bytes, "builds": found.builds,
            "logs": found.logs, "tokens": done.tokens, "marked_logs": done.marked,
            "damaged_logs": found.damaged_count, "took_ms": shown.began.elapsed().as_millis() as u64,
        }));
    } else {
        say(format_args!(
            "{path}: {}, {} builds, {} logs, {} token files, in {:.1} s; read back and whole",
            size(done.bytes),
            found.builds,
            found.logs,
            done.tokens,
            shown.began.elapsed().as_secs_f64()
        ));
    }
    damaged(found);
    exit::OK
}

/// Runs `restore`. Answers the exit code.
pub(super) fn restore(common: &Common, args: &RestoreArgs) -> u8 {
    let folder = match data_dir(common) {
        Ok(folder) => folder,
        Err(code) => return code,
    };
    let mut shown = Shown::new(common.json);
    let done = match app::restore(&args.from, &folder, &mut |step| shown.tell(step)) {
        Ok(done) => done,
        Err(error) => return failed(&error),
    };
    let (path, found) = (folder.display(), &done.found);
    if common.json {
        say(json!({
            "restored": path.to_string(), "made_at": done.made, "builds": found.builds,
            "logs": found.logs, "tokens": done.tokens, "damaged_logs": found.damaged_count,
        }));
    } else {
        say(format_args!(
            "{path}: {} builds, {} logs, {} token files, as they were at {}",
            found.builds, found.logs, done.tokens, done.made
        ));
        say("start the master on it once with: botmaster master --restored");
    }
    damaged(found);
    exit::OK
}

/// Names the logs with damage.
fn damaged(found: &Examined) {
    for log in &found.damaged {
        complain(format_args!("note: {log}; the rest of it can be read"));
    }
    let more = found.damaged_count.saturating_sub(found.damaged.len() as u64);
    if more > 0 {
        complain(format_args!("note: {more} more"));
    }
}

/// Looks at everything in a data folder. Answers the exit code.
pub(super) fn examine(common: &Common, folder: &Path) -> u8 {
    let mut shown = Shown::new(common.json);
    let found = match app::examine(folder, &mut |step| shown.tell(step)) {
        Ok(found) => found,
        Err(error) => return failed(&error),
    };
    if common.json {
        say(json!({
            "level": "store", "folder": folder.display().to_string(), "builds": found.builds,
            "logs": found.logs, "chunks": found.chunks, "damaged_logs": found.damaged_count,
            "damaged": found.damaged,
        }));
    } else {
        say(format_args!(
            "{}: {} builds, {} logs in {} pieces, {} with damage",
            folder.display(),
            found.builds,
            found.logs,
            found.chunks,
            found.damaged_count
        ));
        damaged(&found);
    }
    if found.damaged_count == 0 { exit::OK } else { exit::FAILED }
}

/// Rules, for people.
pub(super) fn rules(kept: &Retention) -> String {
    let mut parts = Vec::new();
    if let Some(builds) = kept.builds {
        parts.push(format!("the newest {builds} builds"));
    }
    if let Some(age) = kept.age {
        parts.push(format!("builds up to {} old", show_duration(age)));
    }
    if let Some(age) = kept.log_age {
        parts.push(format!("logs up to {} old", show_duration(age)));
    }
    if let Some(bytes) = kept.size {
        parts.push(format!("{} of log text", size(bytes)));
    }
    if parts.is_empty() { "everything".into() } else { parts.join(", ") }
}

/// Runs `housekeeping`. Answers the exit code.
pub(super) fn housekeeping(common: &Common) -> u8 {
    let settings = match common.load() {
        Ok(loaded) => loaded.settings,
        Err(problems) => {
            print_problems(&problems);
            return exit::CONFIG;
        }
    };
    let folder = &settings.master.data_dir;
    let plan = match app::plan_housekeeping(folder, &settings.retention) {
        Ok(plan) => plan,
        Err(error) => {
            complain(format_args!("botmaster: {error}"));
            complain("    fix: give the master's data folder with --data-dir");
            return exit::FAILED;
        }
    };
    let (mut builds, mut texts, mut bytes) = (0, 0, 0);
    for one in &plan.builders {
        builds += one.builds;
        texts += one.texts;
        bytes += one.bytes;
        if common.json {
            say(json!({
                "builder": one.builder, "has": one.has, "would_go": one.builds,
                "would_lose_logs": one.texts, "bytes": one.bytes, "rules": one.rules,
            }));
        } else {
            say(format_args!(
                "{}: {} of {} builds would go, {} more would lose their logs, {} of text; kept: {}",
                one.builder,
                one.builds,
                one.has,
                one.texts,
                size(one.bytes),
                rules(&one.rules)
            ));
        }
    }
    if common.json {
        say(json!({
            "builds": builds, "lose_logs": texts, "bytes": bytes,
            "beyond_size": plan.beyond_size, "rules": settings.retention.all,
        }));
    } else {
        say(format_args!(
            "in all: {builds} builds, the logs of {texts} more, {}; kept in general: {}",
            size(bytes),
            rules(&settings.retention.all)
        ));
        if plan.beyond_size > 0 {
            say(format_args!(
                "for the size of all together the logs of {} builds would go, the oldest first",
                plan.beyond_size
            ));
        }
    }
    exit::OK
}
