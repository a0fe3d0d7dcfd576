//! One program from its start to its end, within its time limits.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::protocol::json_v1::Outcome;

use super::children::{self, Started};
use super::output::{Activity, Tails, collect};
use super::tree::Tree;
use super::{Context, Finished, Kill};

/// How long children that were left behind may keep the output open.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the output may take to end once they have been ended.
const LAST_DRAIN: Duration = Duration::from_secs(1);
/// Between TERM and KILL for what a command left behind.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);
/// Between two looks at whether the output moves.
const TICK: Duration = Duration::from_millis(50);

/// One program to run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) argv: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    /// Its output goes into the log.
    pub(crate) shown: bool,
}

/// Time limits of a whole command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    no_output: Option<Duration>,
    total: Option<Duration>,
    end: Option<Instant>,
}

impl Limits {
    /// Limits in milliseconds; the total counts from now.
    pub(crate) fn starting_now(no_output_ms: Option<u64>, total_ms: Option<u64>) -> Self {
        let total = total_ms.map(Duration::from_millis);
        Self {
            no_output: no_output_ms.map(Duration::from_millis),
            total,
            end: total.and_then(|total| Instant::now().checked_add(total)),
        }
    }
}

/// How a program ended and the last of what it wrote.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) finished: Finished,
    pub(crate) tails: Tails,
}

/// Why a program is no longer waited for.
enum First {
    Exited(std::io::Result<ExitStatus>),
    Timeout(&'static str, Duration),
    Killed(Kill),
}

/// Runs `program` to its end. Afterwards all it wrote has been told.
pub(crate) async fn run(program: Program, limits: &Limits, context: &Context) -> Ran {
    let wish = context.kill.borrow().clone();
    if let Some(kill) = wish {
        let finished = Finished::new(Outcome::Killed(kill.reason));
        return Ran { finished, tails: Tails::default() };
    }
    let (mut child, listed) = match spawn(&program, context) {
        Ok(child) => child,
        Err(text) => {
            return Ran { finished: Finished::error(text), tails: Tails::default() };
        }
    };
    context.sink.started().await;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok());
    let mut tree = Tree::new(context.marks.clone(), group);
    let activity = Activity::new();
    let stop = CancellationToken::new();
    let mut reading = tokio::spawn(collect(
        child.stdout.take(),
        child.stderr.take(),
        program.shown.then(|| context.sink.clone()),
        activity.clone(),
        stop.clone(),
    ));
    let mut kill = context.kill.clone();
    let first = tokio::select! {
        status = child.wait() => First::Exited(status),
        limit = silent(limits.no_output, &activity) => First::Timeout("no_output", limit),
        limit = over(limits) => First::Timeout("total", limit),
        wish = asked(&mut kill) => First::Killed(wish),
    };
    let mut notes = Vec::new();
    let outcome = match first {
        First::Exited(Ok(status)) => outcome_of(status),
        First::Exited(Err(error)) => {
            Outcome::Error(format!("cannot wait for the program: {error}"))
        }
        First::Timeout(what, limit) => {
            end_tree(&mut tree, &mut child, context.kill_time, &mut kill, &mut notes).await;
            Outcome::Timeout {
                what: what.to_owned(),
                after_s: limit.as_millis().div_ceil(1000) as u64,
            }
        }
        First::Killed(wish) => {
            end_tree(&mut tree, &mut child, wish.grace, &mut kill, &mut notes).await;
            Outcome::Killed(wish.reason)
        }
    };
    // It has been waited for. The few that resist KILL go on being waited for.
    drop(listed);
    let tails = finish_reading(&mut reading, &activity, &stop, &mut tree, &mut notes).await;
    let finished = Finished { note: notes.join("; "), ..Finished::new(outcome) };
    Ran { finished, tails }
}

fn spawn(program: &Program, context: &Context) -> Result<(Child, Option<Started>), String> {
    let Some((name, arguments)) = program.argv.split_first() else {
        return Err("the command names no program".to_owned());
    };
    let marks = context.marks.iter().filter_map(super::Mark::variable);
    let mut command = Command::new(name);
    command
        .args(arguments)
        .current_dir(&program.dir)
        // That is the keeper's own.
        .env_remove(crate::worker::keeper::MARK)
        .envs(&program.env)
        .envs(marks)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    children::start(|| command.spawn()).map_err(|error| why_not(&error, name, program))
}

fn why_not(error: &std::io::Error, name: &str, program: &Program) -> String {
    use std::io::ErrorKind;
    let path = program.env.get("PATH").cloned().or_else(|| std::env::var("PATH").ok());
    match error.kind() {
        ErrorKind::NotFound if name.contains('/') => format!(
            "program `{name}` does not exist, or the interpreter that its first line names; \
             a relative path counts from `{}`",
            program.dir.display()
        ),
        ErrorKind::NotFound => format!(
            "program `{name}` was not found; PATH is `{}`: install it on the worker, \
             or set PATH in the step's `env`",
            path.unwrap_or_default()
        ),
        ErrorKind::PermissionDenied => {
            format!("program `{name}` may not be run (permission denied): is it executable?")
        }
        _ => format!("program `{name}` cannot be started: {error}"),
    }
}

fn outcome_of(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Exit(code),
        (None, Some(signal)) => Outcome::Signal(signal),
        (None, None) => Outcome::Error(format!("the program ended in an unknown way: {status}")),
    }
}

/// Waits until nothing has been written for the limit. Time in which the pipe
/// was not read on purpose does not count.
async fn silent(limit: Option<Duration>, activity: &Activity) -> Duration {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        if activity.blocked() {
            tokio::time::sleep(TICK).await;
            continue;
        }
        match activity.last().checked_add(limit) {
            Some(due) if due > Instant::now() => tokio::time::sleep_until(due).await,
            Some(_) => return limit,
            None => std::future::pending().await,
        }
    }
}

async fn over(limits: &Limits) -> Duration {
    match (limits.end, limits.total) {
        (Some(end), Some(total)) => {
            tokio::time::sleep_until(end).await;
            total
        }
        _ => std::future::pending().await,
    }
}

/// Waits for a wish to end the command.
async fn asked(kill: &mut watch::Receiver<Option<Kill>>) -> Kill {
    match kill.wait_for(Option::is_some).await.map(|wish| wish.clone()) {
        Ok(Some(wish)) => wish,
        // Nobody can wish any more: the program ends and sweeps by itself.
        _ => std::future::pending().await,
    }
}

async fn end_tree(
    tree: &mut Tree,
    child: &mut Child,
    grace: Duration,
    kill: &mut watch::Receiver<Option<Kill>>,
    notes: &mut Vec<String>,
) {
    kill.mark_unchanged();
    let (_, left) = tree.end(grace, Some(kill)).await;
    if left > 0 {
        notes.push(format!("{left} processes could not be ended and may still run"));
    }
    // While it has not been waited for nobody else can have its number.
    if let Some(group) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    if tokio::time::timeout(LAST_DRAIN, child.wait()).await.is_err() {
        notes.push("the program does not end, not even by KILL".to_owned());
    }
}

/// The program is gone. Children that it left behind may hold the output open:
/// they get a little time, then they are ended; a step does not hang on them.
async fn finish_reading(
    reading: &mut JoinHandle<Tails>,
    activity: &Arc<Activity>,
    stop: &CancellationToken,
    tree: &mut Tree,
    notes: &mut Vec<String>,
) -> Tails {
    if let Some(tails) = read_on(reading, activity, DRAIN).await {
        return tails;
    }
    let (found, _) = tree.end(LEFTOVER_GRACE, None).await;
    notes.push(format!(
        "{found} background processes kept the output open {} s after the command had exited \
         and were ended; send their output elsewhere to keep them",
        DRAIN.as_secs()
    ));
    if let Some(tails) = read_on(reading, activity, LAST_DRAIN).await {
        return tails;
    }
    notes.push("the output is still open and its rest was not read".to_owned());
    stop.cancel();
    reading.await.unwrap_or_default()
}

/// Waits for the output's end as long as `patience`; time in which the master
/// holds the reading up does not count.
async fn read_on(
    reading: &mut JoinHandle<Tails>,
    activity: &Activity,
    patience: Duration,
) -> Option<Tails> {
    let mut left = patience;
    while !left.is_zero() {
        tokio::select! {
            // Mostly the output has ended, and no timer is needed.
            biased;
            tails = &mut *reading => return Some(tails.unwrap_or_default()),
            () = tokio::time::sleep(TICK) => {
                if !activity.blocked() {
                    left = left.saturating_sub(TICK);
                }
            }
        }
    }
    None
}
