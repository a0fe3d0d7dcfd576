//! Commands as processes: one task a command, which runs it, tells its output
//! and its end, and ends the whole tree when asked.
//!
//! Deliberately absent: what to run when, and what becomes of the output; the
//! agent decides that.

mod children;
mod output;
mod program;
mod sink;
mod tree;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::core::ids::{BuildId, CommandId};
use crate::protocol::json_v1::{Outcome, ShellArgs, Work};
use crate::worker::agent::{Ended, Event};
use crate::worker::{folders, git};

pub use children::{Left, adopt_orphans, tidy};
pub(crate) use children::{Started, start as start_child};
pub(crate) use program::{Limits, Program, run};
pub(crate) use sink::Sink;
pub use tree::{Mark, end_marked, end_others};

/// One command to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its build.
    pub build: BuildId,
    /// Which.
    pub command: CommandId,
    /// The worker's folder.
    pub dir: PathBuf,
    /// The build's folder in it; the command's working folder is inside that.
    pub folder: String,
    /// What to do.
    pub work: Work,
    /// Bytes of output that may be read before more is allowed.
    pub allowed: u64,
    /// The worker process, as its children are marked.
    pub instance: String,
    /// Between TERM and KILL when a time limit ends the command.
    pub kill_time: Duration,
}

/// A wish to end a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kill {
    /// Between TERM and KILL.
    pub grace: Duration,
    /// For people.
    pub reason: String,
}

/// The strings of a running command. Dropping it ends nothing.
#[derive(Debug)]
pub struct Handle {
    allow: watch::Sender<u64>,
    kill: watch::Sender<Option<Kill>>,
}

impl Handle {
    /// Lets the command's output be read up to `up_to` bytes in all.
    pub fn allow(&self, up_to: u64) {
        self.allow.send_replace(up_to);
    }

    /// Ends the command's whole tree. The first reason stays; a shorter grace
    /// counts from when it was asked for.
    pub fn kill(&self, kill: Kill) {
        self.kill.send_modify(|wish| {
            let reason = wish.take().map_or(kill.reason, |first| first.reason);
            *wish = Some(Kill { grace: kill.grace, reason });
        });
    }
}

/// What everything that belongs to one command shares.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) sink: Sink,
    pub(crate) kill: watch::Receiver<Option<Kill>>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) kill_time: Duration,
}

/// Starts `job`. Its events end with exactly one [`Event::Ended`], which comes
/// after all its output.
pub fn start(job: Job, events: mpsc::Sender<Event>) -> Handle {
    let (allow, allowed) = watch::channel(job.allowed);
    let (kill, wish) = watch::channel(None);
    tokio::spawn(async move {
        let (build, command) = (job.build, job.command.clone());
        let began = Instant::now();
        let sink = Sink::new(build, command.clone(), events.clone(), allowed);
        let context = Context {
            sink,
            kill: wish,
            marks: vec![
                Mark::Build { build, instance: job.instance.clone() },
                Mark::Command { command: command.clone(), instance: job.instance.clone() },
            ],
            kill_time: job.kill_time,
        };
        // A task of its own: should it panic, the end is told all the same.
        let work = tokio::spawn(async move { carry_out(job, &context).await });
        let mut ended = work.await.unwrap_or_else(|error| {
            Finished::error(format!("the worker's own task failed: {error}"))
        });
        let wall_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended = Ended {
            outcome: ended.outcome,
            note: std::mem::take(&mut ended.note),
            properties: ended.properties,
            wall_ms,
            log: None,
        };
        // Nobody listens any more only when the program ends.
        let _ = events.send(Event::Ended { build, command, ended }).await;
    });
    Handle { allow, kill }
}

/// How a command, or one program of it, ended.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    pub(crate) note: String,
    pub(crate) properties: std::collections::BTreeMap<String, String>,
}

impl Finished {
    pub(crate) fn new(outcome: Outcome) -> Self {
        Self { outcome, note: String::new(), properties: std::collections::BTreeMap::new() }
    }

    pub(crate) fn error(text: String) -> Self {
        Self::new(Outcome::Error(text))
    }
}

/// How often everybody is looked for, and the pause between.
const LAST_LOOKS: u32 = 10;
const LAST_PAUSE: Duration = Duration::from_millis(10);

/// Ends the processes that carry `mark`, and all orphans that nobody can name,
/// until a look is certain and finds nobody: what loses its parent by the end of
/// another is adopted only then. Answers with how many there were.
pub async fn end_everybody(mark: Mark, grace: Duration) -> usize {
    let mut all = 0;
    for _ in 0..LAST_LOOKS {
        let left = tidy();
        let certain = left.is_certain();
        let found = end_marked(mark.clone(), left.into_strays(), grace).await;
        if found == 0 && certain {
            break;
        }
        all += found;
        tokio::time::sleep(LAST_PAUSE).await;
    }
    all
}

async fn carry_out(job: Job, context: &Context) -> Finished {
    let root = match folders::make_inside(&job.dir, &job.folder) {
        Ok(root) => root,
        Err(error) => return Finished::error(format!("folder `{}`: {error}", job.folder)),
    };
    match job.work {
        Work::Shell(args) => shell(&root, args, context).await,
        Work::Git(args) => git::checkout(&root, args, context).await,
    }
}

async fn shell(root: &std::path::Path, args: ShellArgs, context: &Context) -> Finished {
    let workdir = args.workdir.as_deref().unwrap_or(folders::DEFAULT_WORKDIR);
    let dir = match folders::make_inside(root, workdir) {
        Ok(dir) => dir,
        Err(error) => return Finished::error(format!("folder `{workdir}` of the step: {error}")),
    };
    let argv = match (args.argv, args.shell) {
        (Some(argv), _) => argv,
        (None, Some(line)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
        (None, None) => return Finished::error("neither `argv` nor `shell` is there".to_owned()),
    };
    let limits = Limits::starting_now(args.timeout_ms, args.max_time_ms);
    let program = Program { argv, dir, env: args.env, shown: true };
    run(program, &limits, context).await.finished
}
