//! What a keeper has in hand: the present command, its output, the lease.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::core::ids::{BuildId, CommandId};
use crate::core::time::Timestamp;
use crate::faults::crash_point;
use crate::worker::agent::{Ended, Event, LEASE, LogEnd};
use crate::worker::disk::spool::SpoolWriter;
use crate::worker::disk::{build_folder, command_folder, sync_result, write_result};
use crate::worker::process::{self, Handle, Job, Kill, Mark};

use super::KeeperOptions;
use super::words::{FromKeeper, ToKeeper};

/// Between TERM and KILL when the lease ends a command that said nothing of it.
const KILL_TIME: Duration = Duration::from_secs(10);
/// The same for what is left when the build is over.
const LAST_KILL_TIME: Duration = Duration::from_millis(500);
/// How long a keeper without anything to do waits for a worker program.
const IDLE: Duration = Duration::from_secs(10);
/// Between two attempts to write to a disk that refuses.
const DISK_PAUSE: Duration = Duration::from_millis(500);
/// How long after a result it is made to outlive a crash of the machine. A build
/// that is released before that needs it no more.
const SYNC_AFTER: Duration = Duration::from_millis(300);
/// Output that is let through with each look once the lease is over.
const LAST_WORDS: u64 = 256 * 1024;
/// Between two looks at orphans.
const TIDY: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    options: KeeperOptions,
    build: BuildId,
    folder: PathBuf,
    events: mpsc::Sender<Event>,
    current: Option<Current>,
    lease: Option<Timestamp>,
    lease_over: bool,
    /// Everything is being ended, and nothing is to be written any more.
    ending: bool,
    /// It was told to end, and not by time.
    released: bool,
    over: bool,
    /// Since when there is nothing to do.
    idle_since: Timestamp,
    tidied: Timestamp,
    sync: Option<(Timestamp, PathBuf)>,
}

struct Current {
    n: u32,
    command: CommandId,
    handle: Handle,
    spool: SpoolWriter,
    kill_time: Duration,
    started: bool,
    ended: bool,
    /// Its output need not be kept.
    unwanted: bool,
}

impl Keeper {
    pub(super) fn new(
        options: KeeperOptions,
        build: BuildId,
        events: mpsc::Sender<Event>,
        now: Timestamp,
    ) -> Self {
        Self {
            folder: build_folder(&options.root, build),
            options,
            build,
            events,
            current: None,
            lease: None,
            lease_over: false,
            ending: false,
            released: false,
            over: false,
            idle_since: now,
            tidied: now,
            sync: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// The worker program is done with the build, and waits to hear that it ended.
    pub(super) fn is_released(&self) -> bool {
        self.over && self.released
    }

    fn runs(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.ended)
    }

    /// A worker program is there: it hears how things stand.
    pub(super) fn connected(&mut self, say: &mut Vec<FromKeeper>) {
        say.push(FromKeeper::Has { n: self.current.as_ref().map(|current| current.n) });
        let Some(current) = &self.current else { return };
        let n = current.n;
        if current.started {
            say.push(FromKeeper::Started { n });
        }
        say.push(FromKeeper::Grew { n, end: current.spool.end() });
        if current.ended {
            say.push(FromKeeper::Ended { n });
        }
    }

    pub(super) fn told(&mut self, now: Timestamp, word: ToKeeper, say: &mut Vec<FromKeeper>) {
        let current = self.current.as_ref();
        match word {
            ToKeeper::Run { .. } if self.ending || self.lease_over || self.runs() => {
                say.push(FromKeeper::Note { text: "a command came out of turn".to_owned() });
            }
            ToKeeper::Run { n, command, folder, work, allowed, kill_ms } => {
                let kill_time = Duration::from_millis(kill_ms);
                let job = Job {
                    build: self.build,
                    command: command.clone(),
                    dir: self.options.root.clone(),
                    folder,
                    work: *work,
                    allowed,
                    instance: self.options.mark.clone(),
                    kill_time,
                };
                crash_point("keeper.before_spawn");
                let handle = process::start(job, self.events.clone());
                let spool = SpoolWriter::new(command_folder(&self.folder, n));
                let (started, ended, unwanted) = (false, false, false);
                self.sync = None;
                self.current = Some(Current {
                    n,
                    command,
                    handle,
                    spool,
                    kill_time,
                    started,
                    ended,
                    unwanted,
                });
            }
            ToKeeper::Allow { n, up_to } => {
                if let Some(current) = self.current.as_mut().filter(|current| current.n == n) {
                    current.handle.allow(up_to);
                    // All of it: then nobody wants any of it.
                    current.unwanted |= up_to == u64::MAX;
                }
            }
            ToKeeper::Kill { n, grace_ms, reason } => {
                if let Some(current) = current.filter(|current| current.n == n) {
                    current.handle.kill(Kill { grace: Duration::from_millis(grace_ms), reason });
                }
            }
            ToKeeper::Lease { until } => self.lease = until.map(Timestamp),
            ToKeeper::End { grace_ms } => {
                self.released = true;
                self.end(Duration::from_millis(grace_ms), "ended");
            }
            ToKeeper::Begin { .. } | ToKeeper::Unknown => {}
        }
        self.look(now, true, true);
    }

    /// Ends the command, and then the keeper.
    fn end(&mut self, grace: Duration, reason: &str) {
        self.ending = true;
        match self.current.as_ref().filter(|current| !current.ended) {
            Some(current) => {
                current.handle.kill(Kill { grace, reason: reason.to_owned() });
                // Its output interests nobody any more.
                current.handle.allow(u64::MAX);
            }
            None => self.over = true,
        }
    }

    pub(super) async fn happened(&mut self, event: Event, say: &mut Vec<FromKeeper>) {
        let Some(current) = self.current.as_mut() else { return };
        let n = current.n;
        match event {
            Event::Started { command, .. } if command == current.command => {
                current.started = true;
                crash_point("keeper.started");
                say.push(FromKeeper::Started { n });
            }
            Event::Output { command, ch, bytes, at, .. } if command == current.command => {
                if self.ending || current.unwanted {
                    return;
                }
                self.write(ch, at, &bytes).await;
                if let Some(current) = &self.current {
                    // One word for all that came at once.
                    say.pop_if(|word| matches!(word, FromKeeper::Grew { .. }));
                    say.push(FromKeeper::Grew { n, end: current.spool.end() });
                }
            }
            Event::Ended { command, mut ended, .. } if command == current.command => {
                current.ended = true;
                if self.ending {
                    self.over = true;
                    return;
                }
                let log = LogEnd { end: current.spool.end(), digest: current.spool.digest() };
                ended.log = Some(log);
                let place = command_folder(&self.folder, n);
                self.write_result(&place, &ended).await;
                say.push(FromKeeper::Ended { n });
                let now = super::boot_time();
                self.sync = Some((now + SYNC_AFTER, place));
                self.idle_since = now;
                self.over = self.lease_over;
            }
            _ => {}
        }
    }

    /// Writes output. While the disk refuses, the command's output waits; only
    /// what nobody can ever read again is let go.
    async fn write(&mut self, ch: char, at: u64, bytes: &[u8]) {
        let Some(current) = self.current.as_mut() else { return };
        crash_point("keeper.spool.before_append");
        while let Err(error) = current.spool.append(ch, at, bytes) {
            if !Path::new(super::KEEPER_LOCK).exists() {
                return;
            }
            let is_over = self.lease.is_some_and(|lease| super::boot_time() >= lease);
            if is_over {
                // Its last words are lost with it, and the result says why.
                current.handle.kill(Kill {
                    grace: current.kill_time,
                    reason: format!("the worker's disk: {error}"),
                });
                return;
            }
            tokio::time::sleep(DISK_PAUSE).await;
        }
        crash_point("keeper.spool.appended");
    }

    /// A result that cannot be written is tried again until the build is given up.
    async fn write_result(&mut self, place: &Path, ended: &Ended) {
        while write_result(place, ended).is_err() {
            let is_over = self.lease.is_some_and(|lease| super::boot_time() >= lease);
            if is_over || !Path::new(super::KEEPER_LOCK).exists() {
                self.over = true;
                return;
            }
            tokio::time::sleep(DISK_PAUSE).await;
        }
    }

    /// Does what time asks for.
    pub(super) fn look(&mut self, now: Timestamp, has_worker: bool, has_folder: bool) {
        if !has_folder && !self.ending {
            // Nobody can ever come back for it.
            self.end(LAST_KILL_TIME, "the build's folder is gone");
        }
        if self.lease_over && self.runs() {
            // It has been told to end, and does not listen.
            crash_point("keeper.lease.kill");
        }
        if self.lease.is_some_and(|lease| now >= lease) && !self.lease_over {
            self.lease_over = true;
            match self.current.as_ref().filter(|current| !current.ended) {
                Some(current) => {
                    let grace = current.kill_time.min(KILL_TIME);
                    crash_point("keeper.lease.term");
                    current.handle.kill(Kill { grace, reason: LEASE.to_owned() });
                }
                None => self.over = true,
            }
        }
        if self.lease_over
            && let Some(current) = self.current.as_ref().filter(|current| !current.ended)
        {
            // Nobody may be there to allow more, and what is in the pipe is to
            // come through, or the end would never be seen.
            current.handle.allow(current.spool.end() + LAST_WORDS);
        }
        if let Some((_, place)) = self.sync.take_if(|(due, _)| now >= *due) {
            // Without it a result is lost only when the machine crashes.
            tokio::task::spawn_blocking(move || sync_all(&place));
        }
        if has_worker || self.runs() {
            self.idle_since = now;
        } else if now >= self.idle_since + IDLE && !process::tidy().any() {
            self.over = true;
        }
        if now >= self.tidied + TIDY {
            self.tidied = now;
            let _ = process::tidy();
        }
    }

    /// Ends what the build's commands left behind. False when something may be
    /// left all the same.
    pub(super) async fn end_rest(&self) -> bool {
        crash_point("keeper.before_sweep");
        let mark = Mark::Build { build: self.build, instance: self.options.mark.clone() };
        let left = process::tidy();
        // Whatever was left behind has come here.
        if !left.is_certain() || left.any() {
            process::end_everybody(mark, LAST_KILL_TIME).await;
        }
        if let Some((_, place)) = self.sync.as_ref().filter(|_| !self.released) {
            sync_all(place);
        }
        let left = process::tidy();
        left.is_certain() && !left.any()
    }
}

fn sync_all(place: &Path) {
    // A disk that refuses is noticed by who reads.
    let _ = crate::worker::disk::spool::sync(place);
    let _ = sync_result(place);
}
