//! The worker's own children: those that it started, and orphans of those that
//! it adopted.
//!
//! A process that outlives its parent becomes a child of the worker. So one
//! look at the children tells whether a build left anything behind, without
//! reading the table of all processes; and who dies among the adopted has to
//! be waited for here. Those that the worker started are waited for by who
//! started them: they are told apart by a list.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{Pid, getpgrp};
use tokio::process::Child;

use super::tree::{Mark, Stat, build_of, environment, stat};

/// Children that were started here and have not been waited for. Children are
/// a matter of the whole program, and so is this list.
static STARTED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Orphans come to this process.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// From now on orphans become children of this process. It stays so until the
/// program ends. Where the system refuses, leftovers are looked for in the
/// table of all processes.
///
/// Other parts of a program that does this may have children too, as long as
/// these stay in the program's own process group.
pub fn adopt_orphans() {
    match set_child_subreaper(true) {
        Ok(()) => ADOPTS.store(true, Ordering::Relaxed),
        Err(error) => tracing::info!(%error, "orphans cannot be adopted"),
    }
}

/// A child's place on the list, until it has been waited for.
#[derive(Debug)]
pub(crate) struct Started(i32);

impl Drop for Started {
    fn drop(&mut self) {
        list(|started| started.remove(&self.0));
    }
}

/// Starts a child and puts it on the list, so that nobody sees it without.
pub(crate) fn start(
    spawn: impl FnOnce() -> io::Result<Child>,
) -> io::Result<(Child, Option<Started>)> {
    list(|started| {
        let child = spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        started.extend(pid);
        Ok((child, pid.map(Started)))
    })
}

fn list<T>(with: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
    with(&mut STARTED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What is left of builds beside the commands that run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// The rest is certain; otherwise it is empty and says nothing.
    known: bool,
    /// Living orphans.
    orphans: usize,
    /// Those of them that do not say which build they are of.
    nameless: usize,
    /// What the others say.
    builds: BTreeSet<Vec<u8>>,
    strays: BTreeMap<i32, u64>,
}

impl Left {
    /// Whether any orphan is known to live.
    #[must_use]
    pub fn any(&self) -> bool {
        self.orphans > 0
    }

    /// Whether there may be a process with this build's mark. Children of an
    /// orphan are of the same build as the orphan.
    #[must_use]
    pub fn may_hold(&self, mark: &Mark) -> bool {
        let named = mark.variable().is_none_or(|(_, value)| self.builds.contains(value.as_bytes()));
        !self.known || self.nameless > 0 || named
    }

    /// Whether every orphan there is was seen and says whose it is, or can be
    /// ended. A thread that ends, or a process in the middle of its `exec`, can
    /// make one look uncertain; the next one tells.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.known && self.nameless == self.strays.len()
    }

    /// Orphans that can be ended and do not say which build they are of, with
    /// their start times.
    #[must_use]
    pub fn into_strays(self) -> BTreeMap<i32, u64> {
        self.strays
    }
}

/// Waits for the orphans that have ended and answers with those that live.
/// When no child is left this is one system call; otherwise a few for each
/// thread and each orphan.
#[must_use]
pub fn tidy() -> Left {
    if !ADOPTS.load(Ordering::Relaxed) {
        return Left::default();
    }
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    if waitid(Id::All, peek) == Err(Errno::ECHILD) {
        return Left { known: true, ..Left::default() };
    }
    list(|started| look(started)).unwrap_or_default()
}

/// None when the system does not list a process's children.
fn look(started: &BTreeSet<i32>) -> Option<Left> {
    let own_group = getpgrp().as_raw();
    let mut left = Left { known: true, ..Left::default() };
    for pid in children()?.into_iter().filter(|pid| !started.contains(pid)) {
        let Some(Stat { start, group, ended, .. }) = stat(pid) else { continue };
        // Commands have groups of their own, and so has what comes of them
        // unless it goes to some trouble. One of the program's group may be
        // somebody else's to wait for.
        let certain = group != own_group;
        if ended {
            if certain {
                // Until this its number cannot be anybody else's.
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
            continue;
        }
        left.orphans += 1;
        let environ = environment(pid);
        match environ.as_deref().map(build_of) {
            Some(Some(build)) => {
                left.builds.insert(build.to_owned());
            }
            Some(None) if certain => {
                left.nameless += 1;
                left.strays.insert(pid, start);
            }
            Some(None) | None => left.nameless += 1,
        }
    }
    Some(left)
}

/// The children of all threads. A child leaves these lists only by being waited
/// for. In the worker that happens on the thread that calls this, so that none
/// is missed.
fn children() -> Option<Vec<i32>> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread that ends just now gives its children to another one, whose
        // list may have been read already: nothing is certain then.
        let text = std::fs::read_to_string(task.path().join("children")).ok()?;
        all.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(all)
}
