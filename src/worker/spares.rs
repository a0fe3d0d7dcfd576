//! Keepers that have no build: started ahead, or left over from a build, since the
//! start of a program takes longer than a small build.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::core::time::Timestamp;
use crate::faults::crash_point;

use super::keeper::MARK;
use super::process::{self, Started};

/// Most keepers that wait for builds.
const MOST: usize = 4;
/// The start of one would hold up what was just begun.
const NOT_AT_ONCE: Duration = Duration::from_millis(200);
/// Whether they live is looked at so often.
const LOOK: Duration = Duration::from_secs(5);
/// The pause after one could not be started.
const PAUSE: Duration = Duration::from_secs(10);

/// A keeper without a build. It goes when its socket is closed.
pub(super) struct Spare {
    pub(super) socket: UnixStream,
    pub(super) child: Child,
    pub(super) listed: Option<Started>,
}

impl Spare {
    fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Lets it go, and waits for that.
    pub(super) async fn end(self) {
        let Self { socket, mut child, listed } = self;
        drop(socket);
        // It fails only when somebody else has waited for it.
        let _ = child.wait().await;
        drop(listed);
    }
}

/// The keepers without a build of one worker program.
pub(super) struct Spares {
    /// The worker's folder.
    dir: PathBuf,
    /// What its processes are marked with.
    mark: String,
    /// The program that keepers are.
    program: PathBuf,
    waiting: Vec<Spare>,
    due: Timestamp,
    used: bool,
}

impl Spares {
    pub(super) fn new(dir: &Path, mark: &str, program: Option<PathBuf>) -> Self {
        // By this name it is found even when its file was replaced meanwhile.
        let program = program.unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
        let (dir, mark) = (dir.to_owned(), mark.to_owned());
        Self { dir, mark, program, waiting: Vec::new(), due: Timestamp(0), used: false }
    }

    /// One that lives.
    ///
    /// # Errors
    /// When there is none and none can be started.
    pub(super) fn take(&mut self) -> io::Result<Spare> {
        self.used = true;
        while let Some(mut spare) = self.waiting.pop() {
            if spare.lives() {
                return Ok(spare);
            }
        }
        self.start()
    }

    /// One whose build is over.
    pub(super) fn put_back(&mut self, spare: Spare) {
        self.used = true;
        if self.waiting.len() < MOST {
            self.waiting.push(spare);
        } else {
            tokio::spawn(spare.end());
        }
    }

    /// Has one ready when there are `free_slots`, but not just when something
    /// begins; answers with when to look again.
    pub(super) fn prepare(&mut self, now: Timestamp, free_slots: usize) -> Timestamp {
        if std::mem::take(&mut self.used) {
            self.due = now + NOT_AT_ONCE;
        }
        if now >= self.due {
            self.waiting.retain_mut(Spare::lives);
            self.due = now + LOOK;
            if self.waiting.is_empty() && free_slots > 0 {
                match self.start() {
                    Ok(spare) => self.waiting.push(spare),
                    Err(error) => {
                        tracing::warn!(%error, "no keeper can be started ahead");
                        self.due = now + PAUSE;
                    }
                }
            }
        }
        self.due
    }

    fn start(&self) -> io::Result<Spare> {
        let (own, its) = StdStream::pair()?;
        own.set_nonblocking(true)?;
        let socket = UnixStream::from_std(own)?;
        let mut command = Command::new(&self.program);
        command
            .arg0("botmaster")
            .arg("keep-command")
            .arg(&self.dir)
            .arg(&self.mark)
            .current_dir(&self.dir)
            .env(MARK, format!("keeper@{}", self.mark))
            .stdin(Stdio::from(OwnedFd::from(its)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !crash_point_is_for_keepers() {
            command.env_remove(CRASH_POINT);
        }
        crash_point("worker.keeper.before_spawn");
        let (child, listed) = process::start_child(|| command.spawn())?;
        crash_point("worker.keeper.after_spawn");
        Ok(Spare { socket, child, listed })
    }

    /// Ends all of them, and waits for that.
    pub(super) async fn all_gone(&mut self) {
        for spare in self.waiting.drain(..) {
            spare.end().await;
        }
    }
}

const CRASH_POINT: &str = "BOTMASTER_CRASH_POINT";

fn crash_point_is_for_keepers() -> bool {
    std::env::var(CRASH_POINT).is_ok_and(|name| name.starts_with("keeper."))
}
