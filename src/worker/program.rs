//! The worker program: one loop that brings events to the agent and carries
//! out what it asks for. It never waits for anything but the next event.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::core::ids::{BuildId, BuilderName, CommandId, WorkerName};
use crate::core::time::Timestamp;

use super::agent::{Agent, AgentConfig, Effect, Event, ExitCause, Trouble};
use super::folders;
use super::link::{self, Connection};
use super::options::{WorkerError, WorkerOptions};
use super::process::{self, Handle, Job, Kill, Left, Mark};

/// Events that may wait for the loop.
const EVENT_QUEUE: usize = 256;
/// Between TERM and KILL, for builds.
const KILL_TIME: Duration = Duration::from_secs(10);
/// The same when the program ends at once.
const LAST_KILL_TIME: Duration = Duration::from_millis(500);
/// How long ending all processes may take when the program ends.
const EXIT_LIMIT: Duration = Duration::from_millis(1500);
/// How often the program looks for processes when it ends, and the pause between.
const LAST_LOOKS: u32 = 10;
const LAST_PAUSE: Duration = Duration::from_millis(10);
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
    end_leftovers(&mut lock, &instance)
        .await
        .map_err(|error| folder_error(&options.dir, &error))?;
    let agent = Agent::new(agent_config(&options, instance.clone(), token));
    let (events, incoming) = mpsc::channel(EVENT_QUEUE);
    let mut signals = Signals::new()?;
    if options.stop_with_stdin {
        stop_with_stdin(events.clone());
    }
    process::adopt_orphans();
    tracing::info!(worker = options.name, master = options.master, "worker starts");
    let mut program = Program {
        agent,
        events,
        dir,
        instance,
        master: options.master,
        token_file: options.token_file,
        connection: None,
        commands: BTreeMap::new(),
        tidied: Timestamp(0),
        orphans: false,
    };
    let cause = program.serve(incoming, &mut signals).await;
    program.leave().await;
    drop(lock);
    match cause {
        ExitCause::Rejected { code, message } => Err(WorkerError::Rejected { code, message }),
        ExitCause::Drained | ExitCause::Stopped => Ok(()),
    }
}

struct Program {
    agent: Agent,
    events: mpsc::Sender<Event>,
    dir: PathBuf,
    instance: String,
    master: String,
    token_file: PathBuf,
    connection: Option<(u64, Connection)>,
    commands: BTreeMap<(BuildId, CommandId), Handle>,
    /// When orphans were last looked at, and whether any lived then.
    tidied: Timestamp,
    orphans: bool,
}

impl Program {
    async fn serve(
        &mut self,
        mut incoming: mpsc::Receiver<Event>,
        signals: &mut Signals,
    ) -> ExitCause {
        let mut event = Event::Tick;
        let mut effects = Vec::new();
        loop {
            if let Event::Ended { build, command, .. } = &event {
                self.commands.remove(&(*build, command.clone()));
            }
            self.agent.handle(now(), event, &mut effects);
            while !effects.is_empty() {
                let mut answers = Vec::new();
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Exit { cause } => return cause,
                        other => answers.extend(self.carry_out(other)),
                    }
                }
                for event in answers {
                    self.agent.handle(now(), event, &mut effects);
                }
            }
            let present = now();
            let sleep = self.agent.next_deadline().map(|due| due.since(present));
            let sleep = sleep.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
            let sleep = self.tidy_when_due(present).map_or(sleep, |due| due.min(sleep));
            event = tokio::select! {
                event = signals.next() => event,
                event = incoming.recv() => event.unwrap_or(Event::Stop),
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
                if let Err(reason) = connection.send(lane, frame) {
                    self.connection = None;
                    return Some(Event::Closed { link, reason: reason.to_owned() });
                }
            }
            Effect::MakeFolder { builder, builddir } => self.make_folder(builder, builddir),
            Effect::Run { build, command, folder, work, allowed } => {
                let job = Job {
                    build,
                    command: command.clone(),
                    dir: self.dir.clone(),
                    folder,
                    work,
                    allowed,
                    instance: self.instance.clone(),
                    kill_time: KILL_TIME,
                };
                let handle = process::start(job, self.events.clone());
                self.commands.insert((build, command), handle);
            }
            Effect::Allow { build, command, up_to } => {
                if let Some(handle) = self.commands.get(&(build, command)) {
                    handle.allow(up_to);
                }
            }
            Effect::Kill { build, command, grace, reason } => {
                if let Some(handle) = self.commands.get(&(build, command)) {
                    handle.kill(Kill { grace, reason });
                }
            }
            Effect::Sweep { build } => return self.sweep(build),
            // The loop has returned before.
            Effect::Exit { .. } => {}
        }
        None
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
        let left = self.tidy(now());
        let mark = Mark::Build { build, instance: self.instance.clone() };
        if !left.may_hold(&mark) {
            return Some(Event::Swept { build });
        }
        let events = self.events.clone();
        let is_alone = self.agent.builds().all(|other| other == build)
            && self.commands.keys().all(|&(other, _)| other == build);
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
        for handle in self.commands.values() {
            // So that a sequence of programs does not go on with its next one.
            handle.kill(Kill { grace: LAST_KILL_TIME, reason: "the worker stops".to_owned() });
        }
        let words = async {
            if let Some((_, connection)) = self.connection.take() {
                connection.close(LAST_WORDS).await;
            }
        };
        let end = end_everybody(Mark::Instance(self.instance.clone()));
        let ((), ended) = tokio::join!(words, tokio::time::timeout(EXIT_LIMIT, end));
        match ended {
            Ok(0) => tracing::info!("worker ends"),
            Ok(found) => tracing::info!(found, "worker ends, and ended its processes"),
            Err(_) => tracing::warn!("worker ends, but some of its processes resist"),
        }
    }
}

/// Ends the program's processes until a look is certain and finds nobody: what
/// loses its parent by the end of another is adopted only then. Answers with how
/// many there were.
async fn end_everybody(mark: Mark) -> usize {
    let mut all = 0;
    for _ in 0..LAST_LOOKS {
        let left = process::tidy();
        let certain = left.is_certain();
        let found = process::end_marked(mark.clone(), left.into_strays(), LAST_KILL_TIME).await;
        if found == 0 && certain {
            break;
        }
        all += found;
        tokio::time::sleep(LAST_PAUSE).await;
    }
    all
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

/// Monotonic, and goes on while the machine sleeps: a lease must (FR15).
fn now() -> Timestamp {
    let clock = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Timestamp(u64::try_from(clock.as_micros()).unwrap_or(u64::MAX))
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

/// Ends what a program that was killed left running in this folder: the master
/// gives its builds to others as soon as this one attaches without them
/// (invariant I3, row FR05). The lock file says whose processes they are.
async fn end_leftovers(lock: &mut File, instance: &str) -> std::io::Result<()> {
    let mut earlier = String::new();
    lock.take(MAX_TOKEN as u64).read_to_string(&mut earlier)?;
    let earlier = earlier.trim();
    if !earlier.is_empty() {
        let mark = Mark::Instance(earlier.to_owned());
        let found =
            process::end_marked(mark, std::collections::BTreeMap::new(), LAST_KILL_TIME).await;
        if found > 0 {
            tracing::warn!(found, "ended processes that an earlier worker program had left behind");
        }
    }
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{instance}")
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
