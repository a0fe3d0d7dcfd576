//! The worker program: one loop that brings events to the agent and carries
//! out what it asks for. It never waits for anything but the next event.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::core::ids::{BuildId, BuilderName, WorkerName};
use crate::core::time::Timestamp;
use crate::faults::crash_point;
use crate::protocol::json_v1::{Outcome, WorkerFrame};

use super::agent::{Agent, AgentConfig, BuildRecord, Effect, Ended, Event, ExitCause, Trouble};
use super::disk::Epochs;
use super::folders;
use super::found;
use super::keeper::boot_time;
use super::kept::{Keepers, News, RunOrder};
use super::link::{self, Connection};
use super::options::{WorkerError, WorkerOptions};
use super::process::{self, Left, Mark};

/// Events that may wait for the loop.
const EVENT_QUEUE: usize = 256;
/// Between TERM and KILL, for builds.
const KILL_TIME: Duration = Duration::from_secs(10);
/// The same when the program ends at once.
const LAST_KILL_TIME: Duration = Duration::from_millis(500);
/// How long ending all processes may take when the program ends.
const EXIT_LIMIT: Duration = Duration::from_millis(1100);
/// The same for what is left then.
const LAST_LIMIT: Duration = Duration::from_millis(700);
/// How long the last words to the master may take.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Longest sleep. The timer does not run while the machine sleeps but the
/// lease does, so it is looked at soon after the machine wakes.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// Orphans that have ended are waited for at least this often while there may
/// be any. Each holds a process number until then.
const TIDY_TIME: Duration = Duration::from_secs(1);
/// Longest token, in bytes.
const MAX_TOKEN: usize = 1024;

/// Runs a worker until it is drained, stopped or rejected for good. Whatever
/// the cause, none of its processes stays. It expects to be polled on a
/// runtime of one thread. The program that it is called in becomes the parent
/// of orphans, see [`process::adopt_orphans`].
///
/// # Errors
/// When the options cannot be used, or the master will not have this worker.
pub async fn run(options: WorkerOptions) -> Result<(), WorkerError> {
    check(&options)?;
    let token = read_token(&options.token_file)?;
    let (dir, mut lock) = take_folder(&options.dir)?;
    let instance = uuid::Uuid::now_v7().simple().to_string();
    let mark = read_mark(&mut lock, &instance).map_err(|error| folder_error(&dir, &error))?;
    let config = agent_config(&options, instance, token);
    let slots = usize::try_from(config.slots).unwrap_or(usize::MAX);
    let mut agent = Agent::new(config);
    let (events, incoming) = mpsc::channel(EVENT_QUEUE);
    let (news, said) = mpsc::channel(EVENT_QUEUE);
    let mut signals = Signals::new()?;
    if options.stop_with_stdin {
        stop_with_stdin(events.clone());
    }
    process::adopt_orphans();
    let found = found::take_up(&dir, &mark, options.keeper, &mut agent, events.clone(), news).await;
    let (keepers, epochs) = found.map_err(|error| folder_error(&dir, &error))?;
    tracing::info!(worker = options.name, master = options.master, "worker starts");
    let mut program = Program {
        agent,
        slots,
        events,
        dir,
        mark,
        keepers,
        epochs,
        master: options.master,
        token_file: options.token_file,
        connection: None,
        tidied: Timestamp(0),
        orphans: false,
    };
    let cause = program.serve(incoming, said, &mut signals).await;
    program.leave().await;
    drop(lock);
    match cause {
        ExitCause::Rejected { code, message } => Err(WorkerError::Rejected { code, message }),
        ExitCause::Drained | ExitCause::Stopped => Ok(()),
    }
}

struct Program {
    agent: Agent,
    slots: usize,
    events: mpsc::Sender<Event>,
    dir: PathBuf,
    /// What the processes of this worker are marked with.
    mark: String,
    keepers: Keepers,
    epochs: Epochs,
    master: String,
    token_file: PathBuf,
    connection: Option<(u64, Connection)>,
    /// When orphans were last looked at, and whether any lived then.
    tidied: Timestamp,
    orphans: bool,
}

impl Program {
    async fn serve(
        &mut self,
        mut incoming: mpsc::Receiver<Event>,
        mut said: mpsc::Receiver<(BuildId, u64, News)>,
        signals: &mut Signals,
    ) -> ExitCause {
        let mut event = Event::Tick;
        let mut effects = Vec::new();
        loop {
            self.agent.handle(boot_time(), event, &mut effects);
            while !effects.is_empty() {
                let mut answers = Vec::new();
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Exit { cause } => return cause,
                        other => answers.extend(self.carry_out(other)),
                    }
                }
                for event in answers {
                    self.agent.handle(boot_time(), event, &mut effects);
                }
            }
            let present = boot_time();
            let sleep = self.agent.next_deadline().map(|due| due.since(present));
            let sleep = sleep.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
            let sleep = self.tidy_when_due(present).map_or(sleep, |due| due.min(sleep));
            let free_slots = self.slots.saturating_sub(self.agent.builds().count());
            let prepare = self.keepers.prepare(present, free_slots);
            let sleep = prepare.since(present).min(sleep);
            event = tokio::select! {
                event = signals.next() => event,
                event = incoming.recv() => event.unwrap_or(Event::Stop),
                Some((build, number, news)) = said.recv() => {
                    if matches!(news, News::Gone | News::Free(_)) {
                        // Whom it has just ended comes here to be waited for.
                        self.tidy(boot_time());
                    }
                    self.keepers.heard(build, number, news).unwrap_or(Event::Tick)
                }
                () = tokio::time::sleep(sleep) => Event::Tick,
            };
        }
    }

    /// Does what the agent asks for. An answer that is known at once is given
    /// back.
    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Connect { link } => {
                match read_token(&self.token_file) {
                    Ok(token) => self.agent.set_token(token),
                    Err(error) => tracing::warn!(%error, "the old token is used"),
                }
                let connection = link::dial(self.master.clone(), link, self.events.clone());
                self.connection = Some((link, connection));
            }
            Effect::Close { link } => {
                self.connection.take_if(|(present, _)| *present == link);
            }
            Effect::Send { link, lane, mut frame } => {
                if let crate::protocol::json_v1::WorkerFrame::Attach(attach) = &mut frame {
                    attach.clock = wall_clock();
                }
                let (_, connection) = self.connection.as_ref().filter(|(has, _)| *has == link)?;
                crash_before(&frame);
                if let Err(reason) = connection.send(lane, frame) {
                    self.connection = None;
                    return Some(Event::Closed { link, reason: reason.to_owned() });
                }
            }
            Effect::MakeFolder { builder, builddir } => self.make_folder(builder, builddir),
            Effect::Take { record } => return Some(self.take(&record)),
            Effect::Forget { build } => {
                crash_point("worker.build.before_forget");
                self.keepers.forget(build);
            }
            Effect::Lease { build, until } => self.keepers.lease(build, until),
            Effect::Run { build, command, folder, work, allowed } => {
                let id = command.clone();
                let kill_time = KILL_TIME;
                let order = RunOrder { build, command, folder, work, allowed, kill_time };
                if let Err(error) = self.keepers.run(order) {
                    let text = format!("the worker's folder `{}`: {error}", self.dir.display());
                    return Some(Event::Ended { build, command: id, ended: not_begun(text) });
                }
            }
            Effect::Allow { build, command, up_to } => self.keepers.allow(build, &command, up_to),
            Effect::Kill { build, command, grace, reason } => {
                crash_point("worker.before_kill");
                self.keepers.kill(build, &command, grace, reason);
            }
            Effect::Replay { build, command, from, allowed } => {
                self.keepers.replay(build, &command, from, allowed);
            }
            Effect::Trim { build, command, confirmed } => {
                self.keepers.trim(build, &command, confirmed);
            }
            Effect::Sweep { build } => return self.sweep(build),
            // The loop has returned before.
            Effect::Exit { .. } => {}
        }
        None
    }

    /// Writes down that the worker has a build, and starts its keeper.
    fn take(&mut self, record: &BuildRecord) -> Event {
        let build = record.build;
        let written = self
            .keepers
            .take(record)
            .and_then(|()| self.epochs.add(&record.requests, self.agent.epochs()))
            .and_then(|()| self.keepers.begin(build));
        let result = written.map_err(|error| Trouble {
            code: "disk",
            message: format!("the worker's folder `{}`: {error}", self.dir.display()),
        });
        Event::Taken { build, result }
    }

    fn make_folder(&self, builder: BuilderName, builddir: String) {
        let (dir, events) = (self.dir.clone(), self.events.clone());
        tokio::spawn(async move {
            let path = dir.join(&builddir);
            let made = tokio::task::spawn_blocking(move || folders::make_inside(&dir, &builddir));
            let result = match made.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let result = result.map_err(|error| Trouble {
                code: "disk",
                message: format!("folder `{}` on the worker: {error}", path.display()),
            });
            // Fails only when the program ends.
            let _ = events.send(Event::FolderMade { builder, result }).await;
        });
    }

    /// Ends what `build` has left behind; mostly that is nothing.
    fn sweep(&mut self, build: BuildId) -> Option<Event> {
        if self.keepers.end(build, LAST_KILL_TIME) {
            return None;
        }
        let left = self.tidy(boot_time());
        let mark = Mark::Build { build, instance: self.mark.clone() };
        if !left.may_hold(&mark) {
            return Some(Event::Swept { build });
        }
        let events = self.events.clone();
        let is_alone = self.agent.builds().all(|other| other == build);
        let strays = if is_alone { left.into_strays() } else { BTreeMap::new() };
        tokio::spawn(async move {
            let found = process::end_marked(mark, strays, LAST_KILL_TIME).await;
            if found > 0 {
                tracing::info!(%build, found, "ended processes that the build had left behind");
                // They are to be waited for.
                let _ = process::tidy();
            }
            // Fails only when the program ends.
            let _ = events.send(Event::Swept { build }).await;
        });
        None
    }

    fn tidy(&mut self, present: Timestamp) -> Left {
        let left = process::tidy();
        self.tidied = present;
        self.orphans = left.any();
        left
    }

    /// Looks at the orphans from time to time while there may be any; answers
    /// with the time to the next look.
    fn tidy_when_due(&mut self, present: Timestamp) -> Option<Duration> {
        if !self.orphans && self.agent.builds().next().is_none() {
            return None;
        }
        let due = self.tidied + TIDY_TIME;
        if due > present {
            return Some(due.since(present));
        }
        self.tidy(present);
        Some(TIDY_TIME)
    }

    /// Ends all processes and says the last words, both within their limits.
    async fn leave(&mut self) {
        for build in self.keepers.living() {
            self.keepers.end(build, LAST_KILL_TIME);
        }
        let words = async {
            if let Some((_, connection)) = self.connection.take() {
                connection.close(LAST_WORDS).await;
            }
        };
        let mark = Mark::Instance(self.mark.clone());
        let end = async {
            let orderly = tokio::time::timeout(EXIT_LIMIT, self.keepers.all_gone()).await;
            let rest = process::end_everybody(mark, LAST_KILL_TIME);
            (orderly.is_ok(), tokio::time::timeout(LAST_LIMIT, rest).await)
        };
        let ((), (orderly, ended)) = tokio::join!(words, end);
        match ended {
            Ok(found) => tracing::info!(orderly, found, "worker ends, and all its processes"),
            Err(_) => tracing::warn!("worker ends, but some of its processes resist"),
        }
    }
}

/// Where a test may end the program: before the master hears this.
fn crash_before(frame: &WorkerFrame) {
    match frame {
        WorkerFrame::BuildAccepted { .. } => crash_point("worker.before_build_accepted"),
        WorkerFrame::CommandStarted { .. } => crash_point("worker.before_command_started"),
        WorkerFrame::Log(_) => crash_point("worker.before_log"),
        WorkerFrame::CommandFinished { .. } => crash_point("worker.before_command_finished"),
        WorkerFrame::Abandoned { .. } => crash_point("worker.before_abandoned"),
        _ => {}
    }
}

fn not_begun(text: String) -> Ended {
    Ended {
        outcome: Outcome::Error(text),
        note: String::new(),
        properties: BTreeMap::new(),
        wall_ms: 0,
        log: None,
    }
}

/// SIGTERM and SIGINT: the first drains, the second stops.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    count: u32,
}

impl Signals {
    fn new() -> Result<Self, std::io::Error> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())?, count: 0 })
    }

    async fn next(&mut self) -> Event {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        self.count += 1;
        match self.count {
            1 => Event::Drain { reason: format!("{name} was received") },
            _ => Event::Stop,
        }
    }
}

/// What this machine's clock shows: milliseconds since 1970 UTC.
fn wall_clock() -> Option<i64> {
    let since = std::time::UNIX_EPOCH.elapsed().ok()?;
    i64::try_from(since.as_millis()).ok()
}

fn check(options: &WorkerOptions) -> Result<(), WorkerError> {
    let port = options.master.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    match port {
        Some((host, Ok(port))) if !host.is_empty() && port > 0 => {}
        _ => {
            let text = format!("master `{}`: give it as HOST:PORT", options.master);
            return Err(WorkerError::Options(text));
        }
    }
    if options.name.is_empty() {
        return Err(WorkerError::Options("the worker's name is empty".to_owned()));
    }
    if options.max_builds == Some(0) {
        let text = "a worker runs at least one build at a time: give 1 or more";
        return Err(WorkerError::Options(text.to_owned()));
    }
    Ok(())
}

fn read_token(path: &Path) -> Result<String, WorkerError> {
    let wrong = |error: String| WorkerError::Token { path: path.display().to_string(), error };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match text.lines().next().map(str::trim) {
        None | Some("") => Err(wrong("its first line is empty".to_owned())),
        Some(token) if token.len() > MAX_TOKEN => {
            Err(wrong(format!("its first line is longer than {MAX_TOKEN} bytes")))
        }
        Some(token) => Ok(token.to_owned()),
    }
}

/// Makes the worker's folder and takes it for this process alone.
fn take_folder(path: &Path) -> Result<(PathBuf, Flock<File>), WorkerError> {
    let wrong = |error: std::io::Error| folder_error(path, &error);
    std::fs::create_dir_all(path).map_err(wrong)?;
    let dir = path.canonicalize().map_err(wrong)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(".botmaster-lock"))
        .map_err(wrong)?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| folder_error(path, &"another worker program uses it; give each its own"))?;
    Ok((dir, lock))
}

fn folder_error(path: &Path, error: &dyn std::fmt::Display) -> WorkerError {
    WorkerError::Folder { path: path.display().to_string(), error: error.to_string() }
}

/// What the processes of this folder's builds are marked with: the name of the
/// first worker program that used it. So each further one knows them.
fn read_mark(lock: &mut File, new: &str) -> std::io::Result<String> {
    let mut earlier = String::new();
    lock.take(MAX_TOKEN as u64).read_to_string(&mut earlier)?;
    let earlier = earlier.trim();
    if !earlier.is_empty() && earlier.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(earlier.to_owned());
    }
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{new}")?;
    Ok(new.to_owned())
}

/// Ends what is left of the builds of the worker in `dir` once its program is
/// gone: for who started the program and ends for good. While a program has the
/// folder this does nothing.
pub async fn end_leftovers(dir: &Path) {
    // No folder, no lock or another program: nothing to end.
    let Ok((_, mut lock)) = take_folder(dir) else { return };
    let mut mark = String::new();
    let read = (&mut *lock).take(MAX_TOKEN as u64).read_to_string(&mut mark);
    let mark = mark.trim();
    if read.is_ok() && !mark.is_empty() {
        let end = process::end_everybody(Mark::Instance(mark.to_owned()), LAST_KILL_TIME);
        if tokio::time::timeout(EXIT_LIMIT, end).await.is_err() {
            tracing::warn!("some of the worker's processes resist");
        }
    }
}

fn agent_config(options: &WorkerOptions, instance: String, token: String) -> AgentConfig {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let slots = options.max_builds.unwrap_or_else(|| u32::try_from(cores).unwrap_or(1));
    let mut caps = vec!["shell/1".to_owned(), "resume/1".to_owned()];
    if on_path("git") {
        caps.push("git/1".to_owned());
    } else {
        tracing::warn!("no `git` on PATH: checkout steps cannot run on this worker");
    }
    let host = nix::unistd::gethostname().map(|host| host.to_string_lossy().into_owned());
    AgentConfig {
        name: WorkerName::from(options.name.as_str()),
        instance,
        token,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots,
        caps,
        labels: options.labels.clone(),
        info: host.into_iter().map(|host| ("host".to_owned(), host)).collect(),
        kill_time: KILL_TIME,
        seed: rand::random(),
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A thread, because a read of standard input cannot be given up; it ends with
/// the process.
fn stop_with_stdin(events: mpsc::Sender<Event>) {
    std::thread::spawn(move || {
        let end = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        tracing::info!(?end, "standard input ended");
        // Fails only when the program has ended already.
        let _ = events.blocking_send(Event::Stop);
    });
}
