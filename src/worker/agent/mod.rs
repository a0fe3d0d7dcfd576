//! The worker's mind: decides everything and touches nothing. It is given what
//! happened and the time, and answers with what to do.
//!
//! It owns the connection's state (attach, heartbeats, lease, when to dial
//! again), the builds with their commands and the log bytes that the master
//! has not confirmed. Deliberately absent: sockets, processes, files, clocks.
//! The same code therefore runs in the worker program and in a simulation.

mod builds;
mod connection;
mod journal;
mod logs;
mod resume;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::ids::{BuildId, BuilderName, Epoch, RequestId};
use crate::core::rng::Rng;
use crate::core::time::Timestamp;
use crate::protocol::json_v1::WorkerFrame;

use connection::Link;
use journal::Journal;
pub use vocabulary::{
    AgentConfig, BuildRecord, Effect, Ended, Event, ExitCause, Lane, LogEnd, Restored,
    RestoredCommand, Trouble,
};

/// The outcome's text when the lease ended a command.
pub const LEASE: &str = "lease";

/// A log up to this long stays on the worker's disk as a whole until its build
/// ends, so that it can be sent again from its first byte.
pub const KEPT_WHOLE: u64 = 64 * 1024 * 1024;

/// Log frames that may wait in the writer at once. More would only copy what
/// the journal holds already, and would stand before what comes later.
const LOG_FRAMES_IN_FLIGHT: usize = 16;

/// Pieces of one command's log that may be unconfirmed. It bounds the memory
/// of an output that comes in very small pieces.
const MAX_CHUNKS: usize = 4096;

/// How many requests' epochs are remembered.
pub const MAX_EPOCHS: usize = 4096;

/// Most commands of one build.
const MAX_COMMANDS: usize = 10_000;

/// The worker's mind. See the module's text.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    rng: Rng,
    link: Link,
    /// Names connections, so that what an old one still says is recognised.
    link_number: u64,
    /// Failed or short-lived connections in a row.
    attempts: u32,
    lease: Lease,
    window: u64,
    builders: BTreeMap<BuilderName, Served>,
    journal: Journal,
    /// Highest epoch seen of each request, the newest requests only.
    epochs: BTreeMap<RequestId, Epoch>,
    draining: Option<String>,
    exited: bool,
    /// The build that was given the last turn to send log bytes.
    turn: BuildId,
}

/// A builder on the master's list.
#[derive(Debug)]
struct Served {
    builddir: String,
    ready: bool,
}

/// How long builds may go on unconfirmed.
#[derive(Debug, Default)]
struct Lease {
    /// None: there is no lease.
    span: Option<Duration>,
    /// A master that is about to go has granted at least this.
    longer: Option<Duration>,
    /// When the last confirmed heartbeat was *sent*.
    confirmed: Timestamp,
    /// Anything of this was ever said to this program.
    known: bool,
    /// It ran out.
    out: bool,
}

impl Lease {
    /// When that of a build ends, whose own lease this is, in seconds.
    fn ends(&self, own_s: Option<u64>) -> Option<Timestamp> {
        self.lasts(own_s).map(|span| self.confirmed + span)
    }

    /// How long that of a build is; none when it is without end, or not known.
    fn lasts(&self, own_s: Option<u64>) -> Option<Duration> {
        let span = match own_s {
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => self.span,
        };
        span.map(|span| span.max(self.longer.unwrap_or_default()))
    }

    fn confirm(&mut self, sent: Timestamp) {
        self.confirmed = self.confirmed.max(sent);
        self.known = true;
        self.out = false;
    }
}

impl Agent {
    /// A worker that has not dialled yet. Its first deadline is at once.
    #[must_use]
    pub fn new(config: AgentConfig) -> Self {
        Self {
            rng: Rng::seeded(config.seed),
            link: Link::Away { retry_at: Timestamp(0) },
            link_number: 0,
            attempts: 1,
            lease: Lease::default(),
            window: crate::protocol::json_v1::WINDOW,
            builders: BTreeMap::new(),
            journal: Journal::default(),
            epochs: BTreeMap::new(),
            draining: None,
            exited: false,
            turn: BuildId(0),
            config,
        }
    }

    /// Takes up what an earlier program of this worker left, before anything is
    /// told or asked.
    pub fn restore(&mut self, builds: Vec<Restored>, epochs: BTreeMap<RequestId, Epoch>) {
        self.epochs = epochs;
        for Restored { record, command, past, lost } in builds {
            for &(request, epoch) in &record.requests {
                let seen = self.epochs.entry(request).or_insert(epoch);
                *seen = epoch.max(*seen);
            }
            let window = self.window;
            let entry = journal::Entry {
                epoch: record.epoch,
                builder: record.builder,
                folder: record.folder,
                joined: false,
                lost,
                lease_s: record.lease_s,
                lease_out: false,
                ending: None,
                command: command.map(|command| journal::Running::restored(command, window)),
                past,
            };
            self.journal.builds.insert(record.build, entry);
        }
    }

    /// Uses another token from the next attach on: it was rotated.
    pub fn set_token(&mut self, token: String) {
        self.config.token = token;
    }

    /// The builds that the worker has.
    pub fn builds(&self) -> impl Iterator<Item = BuildId> {
        self.journal.builds.keys().copied()
    }

    /// Highest epoch seen of each request.
    #[must_use]
    pub fn epochs(&self) -> &BTreeMap<RequestId, Epoch> {
        &self.epochs
    }

    /// Whether the worker is attached.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        matches!(self.link, Link::Attached(_))
    }

    /// Log bytes held in memory because the master has not confirmed them.
    #[must_use]
    pub fn unconfirmed(&self) -> u64 {
        self.journal.builds.values().map(journal::Entry::unconfirmed).sum()
    }

    /// Takes in what happened at `now` and adds what is to be done to
    /// `effects`. The lease comes first: after a long sleep of the machine
    /// builds are ended before anything is said (fault row FR15).
    pub fn handle(&mut self, now: Timestamp, event: Event, effects: &mut Vec<Effect>) {
        if self.exited {
            return;
        }
        self.check_lease(now, effects);
        match event {
            Event::Tick => {}
            Event::Connected { link } => self.connected(now, link, effects),
            Event::Closed { link, reason } => self.closed(now, link, &reason),
            Event::Frame { link, frame } if self.is_current(link) => {
                self.heard(now);
                self.frame(now, link, frame, effects);
            }
            Event::Unreadable { link, code, message, fatal } if self.is_current(link) => {
                self.heard(now);
                self.say_error(code, message.clone(), effects);
                if fatal {
                    self.hang_up(now, &message, effects);
                }
            }
            Event::Frame { .. } | Event::Unreadable { .. } => {}
            Event::LogWritten { link } => self.log_written(link, effects),
            Event::FolderMade { builder, result } => self.folder_made(&builder, result, effects),
            Event::Started { build, command } => self.started(build, &command, effects),
            Event::Output { build, command, ch, offset, bytes, at } => {
                let piece = journal::Piece { offset, ch, bytes, at };
                self.output(build, &command, piece, effects);
            }
            Event::Ended { build, command, ended } => {
                self.ended(build, &command, ended, effects);
            }
            Event::Taken { build, result } => self.taken(build, result, effects),
            Event::Swept { build } => self.swept(build, effects),
            Event::Lost { build } => self.lost(now, build, effects),
            Event::Drain { reason } => self.drain(reason, effects),
            Event::Stop => self.exit(ExitCause::Stopped, effects),
        }
        self.connection_due(now, effects);
        self.leave_when_done(effects);
    }

    /// When [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.exited {
            return None;
        }
        // Before the first attach of this program there is no lease that it knows
        // of; the builds' keepers do.
        let builds = self.journal.builds.values().filter(|entry| entry.holds_lease());
        let lease = builds.filter_map(|entry| self.lease.ends(entry.lease_s)).min();
        [lease.filter(|_| self.lease.known), self.connection_deadline()].into_iter().flatten().min()
    }

    fn check_lease(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.lease.known {
            return;
        }
        self.lease.out = self.lease.ends(None).is_some_and(|end| now >= end);
        let over = |own: Option<u64>| self.lease.ends(own).is_some_and(|end| now >= end);
        let builds = self.journal.builds.iter();
        let builds: Vec<BuildId> = builds
            .filter(|(_, entry)| entry.holds_lease() && over(entry.lease_s))
            .map(|(&build, _)| build)
            .collect();
        self.end_builds_for_lease(&builds, effects);
    }

    /// Tells the builds' keepers how long they may go on.
    fn say_leases(&self, effects: &mut Vec<Effect>) {
        for (&build, entry) in &self.journal.builds {
            if entry.holds_lease() {
                effects.push(Effect::Lease { build, until: self.lease.ends(entry.lease_s) });
            }
        }
    }

    fn drain(&mut self, reason: String, effects: &mut Vec<Effect>) {
        if self.draining.is_none() {
            tracing::info!(%reason, builds = self.journal.builds.len(), "draining: no new builds");
            self.draining = Some(reason);
            self.say_draining(effects);
        }
    }

    fn say_draining(&self, effects: &mut Vec<Effect>) {
        if let Some(reason) = &self.draining {
            self.say(WorkerFrame::Draining { message: reason.clone() }, effects);
        }
    }

    /// A draining worker leaves once nothing of a build is left to do or tell,
    /// or once the lease is out and nothing runs: the master has moved on.
    fn leave_when_done(&mut self, effects: &mut Vec<Effect>) {
        let done = |entry: &journal::Entry| !entry.runs() && (self.lease.out || entry.lease_out);
        if self.draining.is_some() && self.journal.builds.values().all(done) {
            self.exit(ExitCause::Drained, effects);
        }
    }

    fn exit(&mut self, cause: ExitCause, effects: &mut Vec<Effect>) {
        if !self.exited {
            self.exited = true;
            effects.push(Effect::Exit { cause });
        }
    }

    /// Sends a control frame when there is an attached connection; otherwise
    /// the inventory of the next one tells the same.
    fn say(&self, frame: WorkerFrame, effects: &mut Vec<Effect>) {
        if let Link::Attached(_) = self.link {
            effects.push(Effect::Send { link: self.link_number, lane: Lane::Control, frame });
        }
    }

    fn used_folders(&self) -> BTreeSet<&str> {
        self.journal.builds.values().map(|entry| entry.folder.as_str()).collect()
    }
}
