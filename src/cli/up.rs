//! `up`: a master in this process, a worker as its child, a first build, and the
//! console that shows it.
//!
//! First SIGTERM or Ctrl-C: running builds get 5 seconds, then everything ends.
//! Second: everything ends within 2 seconds. When this process is killed, the
//! end of the worker's standard input ends the worker and its builds.

use std::io::{IsTerminal as _, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::console::{Console, WatchError, watch_build};
use super::local_worker::{LocalWorker, StopStage, WorkerNews, supervise};
use super::screen::{LiveScreen, PlainScreen, Screen};
use super::tell::{complain, say};
use super::{Common, exit, print_problems};
use crate::app::{MasterOptions, Opening, RunningMaster, start_master};
use crate::core::values::{BuildResult, BuilderConfig};
use crate::settings::{
    Settings, TokenFileError, WorkerSettings, read_token_file, write_new_token_file,
};
use crate::telemetry::{self, LogFormat};

/// How long running builds get when `up` ends.
const POLITE: Duration = Duration::from_secs(5);

/// How long master and worker get for their own ends.
const END_LIMIT: Duration = Duration::from_millis(1900);

/// Arguments of `up`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Everything runs on this machine until Ctrl-C. Meanwhile the other commands work
from another terminal: `botmaster force BUILDER`, `botmaster builders`, ….
The token file of the local worker is made when it is missing.

Examples:
  botmaster up
  botmaster up --once docs

Exit codes: 0 ended as asked, 70 a fault of this program, 75 not now, 78 the
configuration is bad. With --once: 0 success or warnings, 1 failure, 2 the build
ended in another way or was interrupted.")]
pub struct UpArgs {
    /// End with the first build; the exit code tells its result.
    #[arg(long)]
    once: bool,
    /// The builder, instead of the configuration's.
    #[arg(value_name = "BUILDER")]
    builder: Option<String>,
}

/// Runs the command. Answers the exit code.
pub(super) fn run(common: &Common, args: &UpArgs) -> u8 {
    // Warnings only: the console says what happens.
    if let Err(error) = telemetry::init(LogFormat::Text, "warn") {
        complain(format_args!("botmaster: {error}"));
        return exit::CONFIG;
    }
    let loaded = match common.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            print_problems(&problems);
            return exit::CONFIG;
        }
    };
    for note in &loaded.notes {
        complain(format_args!("note: {note}"));
    }
    let plan = match Plan::new(&loaded.settings, args)
        .and_then(|plan| plan.with_token(&loaded.settings))
    {
        Ok(plan) => plan,
        Err(text) => {
            complain(format_args!("botmaster: {text}"));
            return exit::CONFIG;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("botmaster: cannot start: {error}"));
            return exit::SOFTWARE;
        }
    };
    let master = match start_master(MasterOptions {
        loaded,
        overrides: common.overrides(),
        opening: Opening::default(),
    }) {
        Ok(master) => master,
        Err(text) => {
            complain(format_args!("botmaster: {text}"));
            return exit::TEMPORARY;
        }
    };
    let code = runtime.block_on(up(plan, master, args.once));
    // The console's thread may still wait for an answer; nobody waits for it.
    runtime.shutdown_background();
    code
}

/// What is started.
struct Plan {
    builder: String,
    worker: WorkerSettings,
    settings: Settings,
}

impl Plan {
    fn new(settings: &Settings, args: &UpArgs) -> Result<Self, String> {
        let builder = chosen_builder(settings, args.builder.as_deref())?;
        let name = match &settings.up.worker {
            Some(name) if !builder.workers.contains(name) => {
                return Err(format!(
                    "builder `{}` is not built by worker `{name}`, which [up] names\n    \
                     fix: add the worker to the builder, or name another in [up]",
                    builder.name
                ));
            }
            Some(name) => name,
            None => builder.workers.first().ok_or_else(|| {
                format!(
                    "builder `{}` has no worker\n    fix: add worker = \"…\" to it",
                    builder.name
                )
            })?,
        };
        let worker = settings.workers.iter().find(|worker| worker.config.name == *name);
        let worker = worker.ok_or_else(|| format!("there is no worker `{name}`"))?;
        Ok(Self {
            builder: builder.name.to_string(),
            worker: worker.clone(),
            settings: settings.clone(),
        })
    }

    /// Makes the worker's token file when it is missing.
    fn with_token(self, settings: &Settings) -> Result<Self, String> {
        let path = settings.token_path(&self.worker);
        let name = self.worker.config.name.as_str();
        match read_token_file(&path) {
            Ok(_) => Ok(self),
            Err(TokenFileError::Missing(_)) => match write_new_token_file(&path, name) {
                Ok(_) => Ok(self),
                Err(error) => Err(format!(
                    "cannot write the token file {}: {error}\n    \
                     fix: make the data folder writable, or give another --data-dir",
                    path.display()
                )),
            },
            Err(error) => Err(format!("{error}\n    fix: {}", error.fix(name, &settings.file))),
        }
    }
}

fn chosen_builder<'a>(
    settings: &'a Settings,
    asked: Option<&str>,
) -> Result<&'a BuilderConfig, String> {
    let wanted = asked.or(settings.up.builder.as_ref().map(|name| name.as_str()));
    let found = match wanted {
        Some(name) => settings.builders.iter().find(|builder| builder.name.as_str() == name),
        None => settings.builders.first(),
    };
    let file = settings.file.display();
    found.map(AsRef::as_ref).ok_or_else(|| match wanted {
        Some(name) => {
            let names: Vec<&str> =
                settings.builders.iter().map(|builder| builder.name.as_str()).collect();
            format!(
                "there is no builder `{name}` in {file}\n    fix: name one of: {}",
                names.join(", ")
            )
        }
        None => format!("there is no builder in {file}\n    fix: add a [[builder]]"),
    })
}

/// Everything that `up` has running.
struct Running {
    master: RunningMaster,
    master_gone: bool,
    worker: JoinHandle<()>,
    worker_gone: bool,
    stage: watch::Sender<StopStage>,
    watching: Arc<AtomicBool>,
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

async fn up(plan: Plan, master: RunningMaster, once: bool) -> u8 {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            complain(format_args!("botmaster: cannot listen for signals: {error}"));
            return exit::SOFTWARE;
        }
    };
    let url = format!("http://{}", master.http);
    say(format_args!("master: {url}/ (workers: {})", master.listen));
    let (stage, mut stop) = watch::channel(StopStage::Run);
    let (news, mut heard) = mpsc::channel(64);
    let worker = if plan.worker.config.latent.is_some() {
        // The master starts it when it is needed, and ends it with itself.
        tokio::spawn(async move {
            let _ = stop.wait_for(|stage| *stage != StopStage::Run).await;
        })
    } else {
        match local_worker(&plan, &master) {
            Ok(worker) => tokio::spawn(supervise(worker, news, stop)),
            Err(error) => {
                complain(format_args!("botmaster: cannot start the worker: {error}"));
                return exit::SOFTWARE;
            }
        }
    };
    let mut console = Console::new(&url, &plan.builder);
    console.reason = if once { "botmaster up --once" } else { "botmaster up" }.to_owned();
    let watching = console.stop.clone();
    let mut running =
        Running { master, master_gone: false, worker, worker_gone: false, stage, watching };
    let mut result = watch_on_a_thread(console);
    let mut watched = false;
    let code = loop {
        tokio::select! {
            () = signals.next() => {
                complain(format_args!("stopping: running builds get {} s; once more stops at once", POLITE.as_secs()));
                break if once { exit::OTHER } else { exit::OK };
            }
            end = &mut running.master.ended => {
                running.master_gone = true;
                let why = end.unwrap_or_else(|_| Err("its threads are gone".to_owned()));
                complain(format_args!("botmaster: the master ended: {}", why.err().unwrap_or_default()));
                break exit::SOFTWARE;
            }
            Some(news) = heard.recv() => {
                if !tell(&plan, &news) && once {
                    break exit::TEMPORARY;
                }
            }
            end = &mut result, if !watched => {
                watched = true;
                let code = code_of(end);
                if once {
                    break code;
                }
                complain("master and worker go on; Ctrl-C ends them");
            }
        }
    };
    running.end(&mut signals).await;
    code
}

/// Says what happened to the worker. False when it is gone for good.
fn tell(plan: &Plan, news: &WorkerNews) -> bool {
    let name = &plan.worker.config.name;
    match news {
        WorkerNews::Started { .. } => true,
        WorkerNews::Died { how, again_in } => {
            complain(format_args!(
                "worker {name} ended ({how}); it is started again in {:.1} s",
                again_in.as_secs_f64()
            ));
            true
        }
        WorkerNews::GaveUp { how } => {
            complain(format_args!(
                "worker {name} keeps ending ({how}) and is not started again; its own lines above say why"
            ));
            false
        }
    }
}

fn code_of(end: Result<Result<BuildResult, WatchError>, oneshot::error::RecvError>) -> u8 {
    match end {
        Ok(Ok(result)) => exit::of_result(result),
        Ok(Err(error)) => {
            complain(format_args!("botmaster: {error}"));
            match error {
                WatchError::Cancelled | WatchError::Stopped => exit::OTHER,
                WatchError::Refused(_) => exit::FAILED,
                WatchError::Away(_) | WatchError::NotStarted(_) => exit::TEMPORARY,
            }
        }
        Err(_) => {
            complain(format_args!("botmaster: the console ended without a result"));
            exit::SOFTWARE
        }
    }
}

fn local_worker(plan: &Plan, master: &RunningMaster) -> std::io::Result<LocalWorker> {
    let config = &plan.worker.config;
    let dir = plan.settings.master.data_dir.join("workers").join(config.name.as_str());
    let token_file = plan.settings.token_path(&plan.worker);
    let name = config.name.as_str();
    LocalWorker::of_this_program(master.listen, name, &token_file, &dir, config.max_builds, POLITE)
}

/// The console blocks, so it has a thread of its own.
fn watch_on_a_thread(console: Console) -> oneshot::Receiver<Result<BuildResult, WatchError>> {
    let (answer, result) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut live;
        let mut plain;
        let screen: &mut dyn Screen = if stdout().is_terminal() {
            live = LiveScreen::default();
            &mut live
        } else {
            plain = PlainScreen(stdout());
            &mut plain
        };
        // Whoever waited for it may be gone.
        let _ = answer.send(watch_build(&console, screen));
    });
    result
}

impl Running {
    /// Ends everything: politely, and at once after another signal.
    async fn end(&mut self, signals: &mut Signals) {
        self.watching.store(true, Ordering::Relaxed);
        let _ = self.stage.send(StopStage::Politely);
        (self.master.stop)(POLITE);
        tokio::select! {
            () = self.gone() => return,
            () = sleep(POLITE + END_LIMIT) => {}
            () = signals.next() => {}
        }
        let _ = self.stage.send(StopStage::AtOnce);
        (self.master.stop)(Duration::ZERO);
        if timeout(END_LIMIT, self.gone()).await.is_err() {
            complain(format_args!(
                "botmaster: not everything ended in time and is left to the system"
            ));
        }
    }

    async fn gone(&mut self) {
        if !self.worker_gone {
            // A supervisor that panicked has dropped, and so killed, its child.
            let _ = (&mut self.worker).await;
            self.worker_gone = true;
        }
        if !self.master_gone {
            let _ = (&mut self.master.ended).await;
            self.master_gone = true;
        }
    }
}
