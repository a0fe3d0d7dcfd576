//! The worker that `up` runs: a child process, started again when it dies, ended
//! politely when `up` ends.
//!
//! The child's standard input is a pipe that only this process holds. When this
//! process ends, however it ends, the pipe ends too, and with it the worker and
//! its builds. A worker that dies leaves its builds running; the next one takes
//! them up, and when there is no next one they are ended here.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::connect::end_leftovers;
use crate::telemetry::FILTER_VARIABLE;

/// So many deaths in [`DEATHS_WITHIN`] and it is not started again.
const MOST_DEATHS: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(60);

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long the worker has between the end of its standard input and its own.
const END_LIMIT: Duration = Duration::from_millis(1500);

/// The most that a worker program offers.
const MOST_SLOTS: u32 = 1024;

/// How the worker process is started.
#[derive(Clone, Debug)]
pub struct LocalWorker {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its folder, when what it leaves there is to be ended after it.
    pub dir: Option<PathBuf>,
    /// How long it has to let its builds end when it is stopped politely.
    pub polite: Duration,
}

impl LocalWorker {
    /// This program as a worker.
    ///
    /// # Errors
    /// When this program cannot find itself.
    pub fn of_this_program(
        master: std::net::SocketAddr,
        name: &str,
        token_file: &Path,
        dir: &Path,
        max_builds: u32,
        polite: Duration,
    ) -> std::io::Result<Self> {
        let args: Vec<OsString> = vec![
            "worker".into(),
            "--master".into(),
            master.to_string().into(),
            "--name".into(),
            name.into(),
            "--token-file".into(),
            token_file.into(),
            "--dir".into(),
            dir.into(),
            "--max-builds".into(),
            max_builds.min(MOST_SLOTS).to_string().into(),
            "--stop-with-stdin".into(),
        ];
        Ok(Self { program: std::env::current_exe()?, args, dir: Some(dir.to_owned()), polite })
    }
}

/// How urgently the worker shall stop.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum StopStage {
    /// It shall not.
    #[default]
    Run,
    /// It lets its builds end, for a while.
    Politely,
    /// Now, builds and all.
    AtOnce,
}

/// What happened to the worker process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WorkerNews {
    /// It runs.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It could not be started, or ended unasked; it is started again after a
    /// while.
    Died {
        /// How.
        how: String,
        /// When it is started again.
        again_in: Duration,
    },
    /// It died so often that it is not started again.
    GaveUp {
        /// How it died last.
        how: String,
    },
}

/// Runs the worker until `stop` says otherwise, or it has died too often. When
/// this returns the process is gone, and its builds are. Dropped early, it kills
/// the process.
pub async fn supervise(
    worker: LocalWorker,
    news: mpsc::Sender<WorkerNews>,
    stop: watch::Receiver<StopStage>,
) {
    let dir = worker.dir.clone();
    keep_running(worker, news, stop).await;
    if let Some(dir) = dir {
        end_leftovers(&dir).await;
    }
}

async fn keep_running(
    worker: LocalWorker,
    news: mpsc::Sender<WorkerNews>,
    mut stop: watch::Receiver<StopStage>,
) {
    let mut deaths: VecDeque<Instant> = VecDeque::new();
    while *stop.borrow_and_update() == StopStage::Run {
        let how = match spawn(&worker) {
            Ok(child) => {
                let pid = child.id().unwrap_or_default();
                // A full queue only means that nobody looks.
                let _ = news.try_send(WorkerNews::Started { pid });
                match run_one(child, &mut stop, worker.polite).await {
                    Some(how) => how,
                    None => return,
                }
            }
            Err(error) => format!("cannot start {}: {error}", worker.program.display()),
        };
        let now = Instant::now();
        deaths.retain(|death| now.duration_since(*death) < DEATHS_WITHIN);
        deaths.push_back(now);
        if deaths.len() >= MOST_DEATHS {
            let _ = news.send(WorkerNews::GaveUp { how }).await;
            return;
        }
        let doublings = u32::try_from(deaths.len().saturating_sub(1)).unwrap_or(0);
        let again_in = FIRST_WAIT.saturating_mul(1 << doublings.min(10)).min(LONGEST_WAIT);
        let _ = news.try_send(WorkerNews::Died { how, again_in });
        tokio::select! {
            () = sleep(again_in) => {}
            // When the sender is gone, so is `up`.
            changed = stop.changed() => if changed.is_err() { return },
        }
    }
}

fn spawn(worker: &LocalWorker) -> std::io::Result<Child> {
    let mut command = Command::new(&worker.program);
    command
        .args(&worker.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // A Ctrl-C at the terminal is for `up`, which ends the worker in turn.
        .process_group(0)
        .kill_on_drop(true);
    if std::env::var_os(FILTER_VARIABLE).is_none() {
        command.env(FILTER_VARIABLE, "warn");
    }
    command.spawn()
}

fn told(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its end could not be seen: {error}"),
    }
}

/// Waits for the process's end. Nothing when it ended because it was asked to.
async fn run_one(
    mut child: Child,
    stop: &mut watch::Receiver<StopStage>,
    polite: Duration,
) -> Option<String> {
    // Held here: to drop it is to end the worker.
    let stdin = child.stdin.take();
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let mut give_up_at: Option<Instant> = None;
    loop {
        let patience = async {
            match give_up_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => {
                return give_up_at.is_none().then(|| told(status));
            }
            () = patience => break,
            changed = stop.changed() => {
                let stage = if changed.is_ok() { *stop.borrow() } else { StopStage::AtOnce };
                match stage {
                    StopStage::Run => {}
                    StopStage::Politely => {
                        if let Some(pid) = pid {
                            // It fails when the process is gone, which is seen next.
                            let _ = kill(pid, Signal::SIGTERM);
                        }
                        give_up_at = Some(Instant::now() + polite);
                    }
                    StopStage::AtOnce => break,
                }
            }
        }
    }
    drop(stdin);
    if timeout(END_LIMIT, child.wait()).await.is_err() {
        // It fails when the process is gone, which is as good.
        let _ = child.kill().await;
    }
    None
}
