//! Finds and ends all processes of a command, a build or the whole worker.
//!
//! A process belongs to a command when it is in the command's process group,
//! when its environment carries the command's mark, or when its parent belongs
//! to it. What leaves the group, clears its environment *and* loses its parent
//! before anybody looks is a stray: it is found once no other build can have
//! left it behind, and only where the worker adopts orphans.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getsid};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::core::ids::{BuildId, CommandId};
use crate::worker::keeper::MARK as KEEPER_MARK;

use super::Kill;

/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(50);
/// How long processes may take to vanish after KILL.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What the environment of a process carries, and its children inherit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mark {
    /// A process of this command.
    Command {
        /// Which.
        command: CommandId,
        /// Of which worker process.
        instance: String,
    },
    /// A process of this build.
    Build {
        /// Which.
        build: BuildId,
        /// Of which worker process.
        instance: String,
    },
    /// A process of any build of this worker, or a keeper of one.
    Instance(String),
    /// The same, without those of some builds.
    Others {
        /// Of which worker.
        instance: String,
        /// Whose processes stay.
        keep: BTreeSet<BuildId>,
    },
}

impl Mark {
    /// Name and value of the variable; none for those that are only looked for.
    pub(super) fn variable(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Command { command, instance } => {
                Some(("BOTMASTER_COMMAND", format!("{command}@{instance}")))
            }
            Self::Build { build, instance } => {
                Some(("BOTMASTER_BUILD", format!("{build}@{instance}")))
            }
            Self::Instance(_) | Self::Others { .. } => None,
        }
    }

    fn is_on(&self, pid: i32, environ: &[u8]) -> bool {
        let mut variables = environ.split(|&byte| byte == 0);
        match (self, self.variable()) {
            (_, Some((name, value))) => {
                let whole = format!("{name}={value}");
                variables.any(|variable| variable == whole.as_bytes())
            }
            (Self::Instance(instance), _) => marked_builds(environ, instance).next().is_some(),
            (Self::Others { instance, keep }, _) => marked_builds(environ, instance)
                .next()
                .is_some_and(|build| match build.parse().map(BuildId) {
                    Ok(build) => !keep.contains(&build),
                    Err(_) => kept_by(pid).is_none_or(|build| !keep.contains(&build)),
                }),
            _ => false,
        }
    }
}

/// Which build a keeper has: its working folder is named after it. One without a
/// build is elsewhere.
fn kept_by(pid: i32) -> Option<BuildId> {
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    folder.file_name()?.to_str()?.parse().map(BuildId).ok()
}

/// What variables of this worker's processes name: a build, or a keeper.
fn marked_builds<'e>(environ: &'e [u8], instance: &str) -> impl Iterator<Item = &'e str> {
    let end = format!("@{instance}");
    environ.split(|&byte| byte == 0).filter_map(move |variable| {
        let variable = std::str::from_utf8(variable).ok()?;
        let (name, value) = variable.split_once('=')?;
        let named = name == "BOTMASTER_BUILD" || name == KEEPER_MARK;
        value.strip_suffix(end.as_str()).filter(|_| named)
    })
}

/// The processes of one command. It remembers whom it saw, so that a child that
/// loses its parent in between is not forgotten.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// All of them have to be there.
    marks: Vec<Mark>,
    group: Option<i32>,
    /// Process ids with their start times.
    seen: BTreeMap<i32, u64>,
}

/// One line of the process table.
struct Process {
    pid: i32,
    stat: Stat,
    marked: bool,
}

impl Tree {
    pub(super) fn new(marks: Vec<Mark>, group: Option<i32>) -> Self {
        Self { marks, group, seen: BTreeMap::new() }
    }

    /// The living processes of the tree. It reads the process table, which
    /// takes some milliseconds.
    async fn look(&mut self) -> Vec<i32> {
        let mut tree = self.clone();
        let looked = tokio::task::spawn_blocking(move || {
            tree.look_now();
            tree.seen
        });
        // It fails only while the program ends.
        self.seen = looked.await.unwrap_or_default();
        self.seen.keys().copied().collect()
    }

    fn look_now(&mut self) {
        let own_session = getsid(None).map_or(-1, Pid::as_raw);
        let all = processes(&self.marks);
        let mut found: BTreeMap<i32, u64> = all
            .iter()
            .filter(|process| {
                let stat = &process.stat;
                let in_group = self.group == Some(stat.group) && stat.session == own_session;
                let known = self.seen.get(&process.pid) == Some(&stat.start);
                in_group || process.marked || known
            })
            .map(|process| (process.pid, process.stat.start))
            .collect();
        loop {
            let before = found.len();
            for process in &all {
                if found.contains_key(&process.stat.parent) {
                    found.insert(process.pid, process.stat.start);
                }
            }
            if found.len() == before {
                break;
            }
        }
        found.remove(&getpid().as_raw());
        self.seen = found;
    }

    async fn signal(&mut self, signal: Signal) -> usize {
        let found = self.look().await;
        for &pid in &found {
            // It may have ended in between.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        found.len()
    }

    /// Says TERM, waits `grace`, then KILL until none is left. A later wish may
    /// shorten the grace. Answers with how many there were at first and how
    /// many resist.
    pub(super) async fn end(
        &mut self,
        grace: Duration,
        mut wishes: Option<&mut watch::Receiver<Option<Kill>>>,
    ) -> (usize, usize) {
        let first = self.signal(Signal::SIGTERM).await;
        if first == 0 {
            return (0, 0);
        }
        // A stopped process hears TERM only once it goes on.
        self.signal(Signal::SIGCONT).await;
        let mut until = Instant::now() + grace;
        while Instant::now() < until {
            tokio::select! {
                () = tokio::time::sleep(LOOK.min(until - Instant::now())) => {
                    if self.look().await.is_empty() {
                        return (first, 0);
                    }
                }
                grace = next_grace(&mut wishes) => until = until.min(Instant::now() + grace),
            }
        }
        let patience = Instant::now() + KILL_PATIENCE;
        loop {
            let left = self.signal(Signal::SIGKILL).await;
            if left == 0 || Instant::now() >= patience {
                return (first, left);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Ends all processes that carry `mark`, and the `strays`, given with their start
/// times: TERM, `grace`, KILL. Answers with how many were found.
pub async fn end_marked(mark: Mark, strays: BTreeMap<i32, u64>, grace: Duration) -> usize {
    let mut tree = Tree { seen: strays, ..Tree::new(vec![mark], None) };
    tree.end(grace, None).await.0
}

/// Ends all processes of this worker and its keepers but those of the builds in
/// `keep`: TERM, `grace`, KILL. Answers with how many were found.
pub async fn end_others(instance: String, keep: BTreeSet<BuildId>, grace: Duration) -> usize {
    end_marked(Mark::Others { instance, keep }, BTreeMap::new(), grace).await
}

/// The grace of the next wish to end the command, if ever there is one.
async fn next_grace(wishes: &mut Option<&mut watch::Receiver<Option<Kill>>>) -> Duration {
    if let Some(wishes) = wishes
        && wishes.changed().await.is_ok()
        && let Some(wish) = wishes.borrow_and_update().as_ref()
    {
        return wish.grace;
    }
    std::future::pending().await
}

/// All living processes whose place in the table can be read.
fn processes(marks: &[Mark]) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| process(pid, marks))
        .collect()
}

fn process(pid: i32, marks: &[Mark]) -> Option<Process> {
    let stat = stat(pid).filter(|stat| !stat.ended)?;
    // Of other users' processes it cannot be read: they are not ours.
    let environ = environment(pid).unwrap_or_default();
    let marked = !marks.is_empty() && marks.iter().all(|mark| mark.is_on(pid, &environ));
    Some(Process { pid, stat, marked })
}

/// What the system says about one process.
pub(super) struct Stat {
    parent: i32,
    pub(super) group: i32,
    session: i32,
    pub(super) start: u64,
    /// It has ended and only waits to be waited for.
    pub(super) ended: bool,
}

/// None when there is no such process.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name stands in parentheses and may hold anything, also those.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<i32>().ok();
    // The first thread may have ended before the others.
    let ended = matches!(*fields.first()?, "Z" | "X") && number(17)? <= 1;
    Some(Stat {
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        start: fields.get(19)?.parse().ok()?,
        ended,
    })
}

/// The variables a process was started with; none when they cannot be read.
pub(super) fn environment(pid: i32) -> Option<Vec<u8>> {
    std::fs::read(format!("/proc/{pid}/environ")).ok()
}

/// Which build, of any worker, these variables say that the process is of.
pub(super) fn build_of(environ: &[u8]) -> Option<&[u8]> {
    environ
        .split(|&byte| byte == 0)
        .find_map(|variable| variable.strip_prefix(b"BOTMASTER_BUILD=".as_slice()))
}
