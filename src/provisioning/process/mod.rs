//! Instances that are worker programs on the master's own machine.
//!
//! Each has a session of its own, so that it outlives a master that is killed;
//! the next one finds it again by tag, number and start time, and never ends a
//! process that only has its number. What it and its builds leave behind is
//! found by a variable in the environment and ended with it.

mod record;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use record::{Process, Record, Records};
use tokio::task::spawn_blocking;

use super::port::{Call, CreateOrder, Created, Failure, Found, Provider};
use crate::core::ids::{InstanceTag, WorkerName};
use crate::core::values::{ProcessOptions, Provider as Kind};
use crate::telemetry::FILTER_VARIABLE;

/// What the environment of an instance and its builds carries.
const MARK: &str = "BOTMASTER_INSTANCE";
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks at whether an instance still lives.
const WATCH: Duration = Duration::from_millis(250);
/// How long a worker program may take that was told to end at once.
const AT_ONCE: Duration = Duration::from_secs(3);
/// How long processes may take to vanish after KILL.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How much of an instance's log is looked at for its last words.
const LAST_WORDS: i64 = 4096;

/// How instances are started and ended.
#[derive(Clone, Debug)]
pub struct ProcessSetup {
    /// The worker program: this one.
    pub program: PathBuf,
    /// Folder for records and logs of instances.
    pub folder: PathBuf,
    /// Where workers connect.
    pub master: SocketAddr,
    /// Between TERM and what comes after.
    pub kill_time: Duration,
}

impl ProcessSetup {
    /// How long one destroy may take in all.
    #[must_use]
    pub fn destroy_limit(&self) -> Duration {
        self.kill_time + AT_ONCE + KILL_PATIENCE + Duration::from_secs(10)
    }
}

/// A process that this one started.
enum OwnChild {
    Lives(i32),
    /// How, for people.
    Ended(String),
}

/// Starts and ends worker programs. Clones are the same.
#[derive(Clone)]
pub struct ProcessProvider {
    setup: Arc<ProcessSetup>,
    records: Records,
    /// Those that this process started: they are to be waited for.
    children: Arc<Mutex<BTreeMap<InstanceTag, Child>>>,
    /// Those that were asked for and have no process yet. One that is to be
    /// destroyed is taken out, and never gets one.
    making: Arc<Mutex<BTreeSet<InstanceTag>>>,
}

impl ProcessProvider {
    /// A provider with this set-up.
    #[must_use]
    pub fn new(setup: ProcessSetup) -> Self {
        let records = Records(setup.folder.join("records"));
        Self { setup: Arc::new(setup), records, children: Arc::default(), making: Arc::default() }
    }

    fn log(&self, worker: &WorkerName) -> PathBuf {
        self.setup.folder.join("log").join(format!("{worker}.log"))
    }

    fn start(&self, order: &CreateOrder) -> Result<Created, Failure> {
        let Kind::Process(options) = &order.latent.provider;
        if let Err(error) = File::open(&options.token_file) {
            let path = options.token_file.display();
            return Err(Failure::Permanent(format!(
                "the token file {path} cannot be read ({error}); `botmaster token {}` makes it",
                order.worker
            )));
        }
        let disk = |what: &Path, error: &io::Error| {
            let text = format!("{}: {error}", what.display());
            match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
                    Failure::Permanent(text)
                }
                _ => Failure::Transient(text),
            }
        };
        fs::create_dir_all(&options.dir).map_err(|error| disk(&options.dir, &error))?;
        let log = self.log(&order.worker);
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).map_err(|error| disk(folder, &error))?;
        }
        let said = File::create(&log).map_err(|error| disk(&log, &error))?;
        let (tag, worker) = (order.tag.clone(), order.worker.clone());
        let mut record = Record { tag, worker, process: None };
        // Known before it is there, so that it is never there unknown.
        self.records.keep(&record).map_err(|error| disk(&self.records.0, &error))?;
        let mut making = self.making();
        if !making.remove(&order.tag) {
            drop(making);
            self.forget(&order.tag);
            return Err(Failure::Unknown("it was destroyed before it was made".into()));
        }
        let spawned = self.command(order, options, said).spawn();
        drop(making);
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                self.forget(&order.tag);
                return Err(disk(&self.setup.program, &error));
            }
        };
        let pid = i32::try_from(child.id()).unwrap_or(0);
        self.children().insert(order.tag.clone(), child);
        let start = table::stat(pid).map(|stat| stat.start).unwrap_or_default();
        record.process = Some(Process { pid, start, boot: table::boot() });
        if let Err(error) = self.records.keep(&record) {
            // It is found by its tag; but nobody knows of it for certain.
            return Err(Failure::Unknown(format!("{}: {error}", self.records.0.display())));
        }
        Ok(Created { id: pid.to_string(), details: format!("process {pid}") })
    }

    fn command(&self, order: &CreateOrder, options: &ProcessOptions, said: File) -> Command {
        let mut command = Command::new(&self.setup.program);
        command
            .args(["worker", "--own-session", "--master"])
            .arg(self.setup.master.to_string())
            .args(["--name", order.worker.as_str(), "--token-file"])
            .arg(&options.token_file)
            .arg("--dir")
            .arg(&options.dir)
            .args(["--max-builds", &order.max_builds.min(1024).to_string()])
            .args(["--label", &label(&order.tag)])
            .envs(&options.env)
            .env(MARK, order.tag.as_str())
            // That is between the service manager and the master.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        if std::env::var_os(FILTER_VARIABLE).is_none() {
            command.env(FILTER_VARIABLE, "info");
        }
        match said.try_clone() {
            Ok(copy) => command.stdout(copy).stderr(said),
            Err(_) => command.stdout(Stdio::null()).stderr(said),
        };
        command
    }

    fn making(&self) -> std::sync::MutexGuard<'_, BTreeSet<InstanceTag>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn children(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceTag, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An own child as its parent sees it. The answer stays the same once it has
    /// ended, until it is destroyed: whoever looks first takes it from nobody.
    fn child(&self, tag: &InstanceTag) -> Option<OwnChild> {
        let mut children = self.children();
        let child = children.get_mut(tag)?;
        match child.try_wait() {
            Ok(Some(status)) => Some(OwnChild::Ended(status.to_string())),
            Ok(None) => i32::try_from(child.id()).ok().map(OwnChild::Lives),
            Err(_) => None,
        }
    }

    /// How an own child ended, once it has.
    fn end_of_child(&self, tag: &InstanceTag) -> Option<String> {
        match self.child(tag) {
            Some(OwnChild::Ended(how)) => Some(how),
            _ => None,
        }
    }

    fn forget(&self, tag: &InstanceTag) {
        if let Err(error) = self.records.forget(tag) {
            tracing::warn!(%tag, %error, "the record of an instance could not be removed");
        }
    }

    /// The instance's process, if it lives.
    fn living(&self, tag: &InstanceTag) -> io::Result<Option<i32>> {
        let child = self.child(tag);
        // A record that is not whole was being written: its process is found
        // by its tag.
        let record = self.records.read(tag).or_else(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        })?;
        // An own one has ended when it can be waited for, and not before: only
        // then it is known how.
        Ok(match (child, record.and_then(|record| record.process)) {
            (Some(OwnChild::Ended(_)), _) => None,
            (Some(OwnChild::Lives(pid)), _) => Some(pid),
            (None, Some(process)) => is_that(&process).then_some(process.pid),
            (None, None) => by_tag(tag),
        })
    }

    fn look(&self) -> Result<Vec<Found>, String> {
        let text = |error: io::Error| format!("{}: {error}", self.records.0.display());
        let mut found = Vec::new();
        for tag in self.records.tags().map_err(text)? {
            let living = self.living(&tag).map_err(text)?;
            let id = living.map(|pid| pid.to_string()).unwrap_or_default();
            found.push(Found { tag, id, alive: living.is_some() });
        }
        Ok(found)
    }

    fn end(&self, tag: &InstanceTag) -> Result<(), String> {
        let text = |error: io::Error| format!("{}: {error}", self.records.0.display());
        self.making().remove(tag);
        // The first TERM lets builds end, of which there are none; the second
        // ends the program and all its processes at once.
        for patience in [self.setup.kill_time, AT_ONCE] {
            let Some(pid) = self.living(tag).map_err(text)? else { break };
            table::signal(pid, Signal::SIGTERM);
            self.wait_until_dead(tag, patience).map_err(text)?;
        }
        let record = self.records.read(tag).unwrap_or_default();
        let leader = record.and_then(|record| record.process);
        let until = Instant::now() + KILL_PATIENCE;
        loop {
            // Waited for, it is no process of the session any more.
            let living = self.living(tag).map_err(text)?;
            let mut left = leftovers(tag, leader.as_ref());
            left.extend(living);
            if left.is_empty() {
                break;
            }
            if Instant::now() > until {
                return Err(format!("processes {left:?} do not end"));
            }
            for pid in left {
                table::signal(pid, Signal::SIGKILL);
            }
            std::thread::sleep(LOOK);
        }
        self.children().remove(tag);
        self.records.forget(tag).map_err(text)
    }

    fn wait_until_dead(&self, tag: &InstanceTag, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        while self.living(tag)?.is_some() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// How it ended, with its last words.
    fn obituary(&self, tag: &InstanceTag, how: Option<String>) -> String {
        let worker = self.records.read(tag).ok().flatten().map(|record| record.worker);
        let words = worker.and_then(|worker| last_line(&self.log(&worker)));
        let how = how.unwrap_or_else(|| "it ended".into());
        match words {
            Some(words) => format!("{how}; its last words: {words}"),
            None => how,
        }
    }
}

fn label(tag: &InstanceTag) -> String {
    format!("instance={tag}")
}

/// Whether this very process lives: its number may be another's by now.
fn is_that(process: &Process) -> bool {
    process.boot == table::boot()
        && table::stat(process.pid).is_some_and(|stat| !stat.ended && stat.start == process.start)
}

fn by_tag(tag: &InstanceTag) -> Option<i32> {
    let label = label(tag);
    table::all().into_iter().find(|pid| {
        table::has_argument(*pid, &label) && table::stat(*pid).is_some_and(|stat| !stat.ended)
    })
}

/// What lives of an instance beside its own process: what carries its mark, and
/// what is in its session.
fn leftovers(tag: &InstanceTag, leader: Option<&Process>) -> Vec<i32> {
    let mark = format!("{MARK}={tag}");
    // As long as anybody is in a session its number is nobody else's; after
    // that it may be, and then its leader is another.
    let session = leader.filter(|leader| {
        leader.boot == table::boot()
            && table::stat(leader.pid).is_none_or(|stat| stat.start == leader.start)
    });
    let mut found = table::all();
    found.retain(|pid| {
        let Some(stat) = table::stat(*pid).filter(|stat| !stat.ended) else { return false };
        let in_session =
            session.is_some_and(|one| stat.session == one.pid && stat.start >= one.start);
        in_session || table::has_variable(*pid, &mark)
    });
    found
}

fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = i64::try_from(file.metadata().ok()?.len()).ok()?;
    file.seek(SeekFrom::End(-length.min(LAST_WORDS))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(300).collect())
}

/// Does on a thread what would hold others up.
fn apart<T: Send + 'static>(
    provider: &ProcessProvider,
    work: impl FnOnce(&ProcessProvider) -> T + Send + 'static,
    failed: impl FnOnce(String) -> T + Send + 'static,
) -> Call<T> {
    let provider = provider.clone();
    Box::pin(async move {
        match spawn_blocking(move || work(&provider)).await {
            Ok(answer) => answer,
            Err(error) => failed(error.to_string()),
        }
    })
}

impl Provider for ProcessProvider {
    fn create(&self, order: CreateOrder) -> Call<Result<Created, Failure>> {
        self.making().insert(order.tag.clone());
        apart(self, move |own| own.start(&order), |error| Err(Failure::Unknown(error)))
    }

    fn find(&self) -> Call<Result<Vec<Found>, String>> {
        apart(self, Self::look, Err)
    }

    fn destroy(&self, tag: InstanceTag, _: Option<String>) -> Call<Result<(), String>> {
        apart(self, move |own| own.end(&tag), Err)
    }

    fn died(&self, tag: InstanceTag, _: String) -> Call<String> {
        let own = self.clone();
        Box::pin(async move {
            loop {
                // What cannot be read just now is not known to be dead.
                if matches!(own.living(&tag), Ok(None)) {
                    return own.obituary(&tag, own.end_of_child(&tag));
                }
                tokio::time::sleep(WATCH).await;
            }
        })
    }
}
