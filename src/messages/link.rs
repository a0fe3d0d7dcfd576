//! The master's end of one worker connection, as the actors hold it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod outgoing;

use outgoing::{Found, Outgoing};

use crate::core::ids::*;
use crate::core::time::Timestamp;
use crate::protocol::json_v1::MasterFrame;

/// Why a connection is closed whose worker does not read (fault row FN14).
pub const SLOW: &str = "it does not read what is sent to it";

/// Where the text of one command goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRoute {
    /// Its build.
    pub build: BuildId,
    /// Name of the log on the wire.
    pub name: String,
    /// The log.
    pub log: LogId,
}

/// Which commands of this connection may write which logs. The connection's
/// reader looks here, so that text never passes an actor's mailbox.
#[derive(Default, Debug)]
pub struct LogRoutes(Mutex<Routes>);

/// Commands of a connection that are remembered after their end, for frames that
/// come late. Each takes some 60 bytes, and is compared with all at its end.
const ENDED: usize = 128;

#[derive(Default, Debug)]
struct Routes {
    /// Each with when text of it came last.
    open: BTreeMap<CommandId, (LogRoute, Option<Timestamp>)>,
    /// The last ones that ended, the latest at the end.
    ended: VecDeque<CommandId>,
}

impl LogRoutes {
    /// From now on this command's text goes there.
    pub fn open(&self, command: CommandId, route: LogRoute) {
        let mut routes = self.lock();
        routes.ended.retain(|ended| *ended != command);
        routes.open.insert(command, (route, None));
    }

    /// This command writes no more.
    pub fn close(&self, command: &CommandId) {
        let mut routes = self.lock();
        routes.open.remove(command);
        if !routes.ended.contains(command) {
            routes.ended.push_back(command.clone());
        }
        if routes.ended.len() > ENDED {
            routes.ended.pop_front();
        }
    }

    /// Whether the command wrote once and writes no more.
    #[must_use]
    pub fn has_ended(&self, command: &CommandId) -> bool {
        self.lock().ended.contains(command)
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where text of this command goes that arrives at `now`.
    #[must_use]
    pub fn find(&self, command: &CommandId, now: Timestamp) -> Option<LogRoute> {
        let mut routes = self.lock();
        let (route, wrote) = routes.open.get_mut(command)?;
        *wrote = Some(now);
        Some(route.clone())
    }

    /// When text of this command came last over this connection.
    #[must_use]
    pub fn wrote(&self, command: &CommandId) -> Option<Timestamp> {
        self.lock().open.get(command).and_then(|(_, wrote)| *wrote)
    }

    /// Whose log this is.
    #[must_use]
    pub fn command_of(&self, log: LogId) -> Option<(CommandId, LogRoute)> {
        let routes = self.lock();
        let found = routes.open.iter().find(|(_, (route, _))| route.log == log);
        found.map(|(command, (route, _))| (command.clone(), route.clone()))
    }
}

#[derive(Debug)]
struct Shared {
    outgoing: Outgoing,
    heard: AtomicU64,
    /// Microseconds between heartbeats that the worker goes by; 0 when none
    /// has come yet.
    beat: AtomicU64,
    /// Since when a frame is incomplete; 0 when none is.
    begun: AtomicU64,
    held: AtomicBool,
    complaints: AtomicU64,
    unconfirming: AtomicBool,
    logs: LogRoutes,
}

/// The master's end of one worker connection. Clones share it.
#[derive(Clone, Debug)]
pub struct WorkerLink {
    /// Which connection.
    pub session: SessionId,
    shared: Arc<Shared>,
}

/// The end from which a connection's writer takes what is to be sent. When it
/// is dropped, nobody writes any more.
#[derive(Debug)]
pub struct Lines(WorkerLink);

impl Lines {
    /// All that waits to be sent, as soon as there is something. None when
    /// nothing waits and the connection is closed.
    pub async fn next(&self) -> Option<Vec<u8>> {
        loop {
            match self.0.shared.outgoing.take() {
                Found::Lines(lines) => return Some(lines),
                Found::Closed => return None,
                Found::Nothing => self.0.shared.outgoing.work().await,
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.0.shared.outgoing.end();
    }
}

impl WorkerLink {
    /// A link and the end from which the connection's writer takes lines. So
    /// many frames, and so many bytes, may wait for the worker to read them;
    /// beyond either it is dropped as slow.
    #[must_use]
    pub fn new(session: SessionId, most_frames: usize, most_bytes: usize) -> (Self, Lines) {
        let shared = Shared {
            outgoing: Outgoing::new(most_frames, most_bytes),
            heard: AtomicU64::new(0),
            beat: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            held: AtomicBool::new(false),
            complaints: AtomicU64::new(0),
            unconfirming: AtomicBool::new(false),
            logs: LogRoutes::default(),
        };
        let link = Self { session, shared: Arc::new(shared) };
        (link.clone(), Lines(link))
    }

    /// Sends a frame. A worker that does not read is dropped. False when the
    /// connection is closed.
    pub fn send(&self, frame: &MasterFrame) -> bool {
        let heartbeat = matches!(frame, MasterFrame::Heartbeat { .. });
        if heartbeat && self.shared.unconfirming.load(Ordering::Relaxed) {
            return true;
        }
        self.shared.outgoing.send(frame)
    }

    /// So many bytes were written: they wait no more.
    pub fn written(&self, bytes: usize) {
        self.shared.outgoing.written(bytes);
    }

    /// No heartbeat is confirmed from now on, whoever wants to: the worker's
    /// lease is counted from here.
    pub fn confirm_no_more(&self) {
        self.shared.unconfirming.store(true, Ordering::Relaxed);
    }

    /// Drops the connection, with the reason for the log.
    pub fn close(&self, reason: &str) {
        self.shared.outgoing.close(reason);
    }

    /// Why it was closed from this side, when it was.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        self.shared.outgoing.closed()
    }

    /// Whether it was closed from this side.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.outgoing.is_closed()
    }

    /// Returns when it was closed from this side.
    pub async fn wait_closed(&self) {
        self.shared.outgoing.wait_closed().await;
    }

    /// Returns when it is closed, or its times are others.
    pub async fn change(&self) {
        self.shared.outgoing.change().await;
    }

    /// Returns when all that was to be sent over a connection that was closed is
    /// written, or never will be.
    pub async fn wait_written(&self) {
        self.shared.outgoing.wait_ended().await;
    }

    /// Bytes arrived at `now`.
    pub fn heard_at(&self, now: Timestamp) {
        self.shared.heard.store(now.0, Ordering::Relaxed);
    }

    /// From now on heartbeats come so often.
    pub fn beats(&self, every: Duration) {
        let micros = u64::try_from(every.as_micros()).unwrap_or(u64::MAX);
        let before = self.shared.beat.swap(micros, Ordering::Relaxed);
        // Whoever counts its silence would look too late.
        if micros < before {
            self.shared.outgoing.wake();
        }
    }

    /// How often heartbeats come, once that is known.
    #[must_use]
    pub fn beat(&self) -> Option<Duration> {
        let micros = self.shared.beat.load(Ordering::Relaxed);
        Some(Duration::from_micros(micros)).filter(|beat| !beat.is_zero())
    }

    /// A frame began to arrive at `now`, or none is incomplete. One that has
    /// begun goes on from when it began.
    pub fn frame_begun(&self, now: Option<Timestamp>) {
        let at = now.map_or(0, |now| now.0.max(1));
        let begun = &self.shared.begun;
        if at == 0 || begun.load(Ordering::Relaxed) == 0 {
            begun.store(at, Ordering::Relaxed);
        }
    }

    /// Since when a frame is incomplete, when one is.
    #[must_use]
    pub fn incomplete_since(&self) -> Option<Timestamp> {
        Some(self.shared.begun.load(Ordering::Relaxed)).filter(|at| *at > 0).map(Timestamp)
    }

    /// The reader waits for the log store: silence is not the worker's.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Relaxed);
    }

    /// Whether the reader waits for the log store.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// When bytes arrived last.
    #[must_use]
    pub fn last_heard(&self) -> Timestamp {
        Timestamp(self.shared.heard.load(Ordering::Relaxed))
    }

    /// The worker said `error`.
    pub fn complained(&self) {
        self.shared.complaints.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the worker said `error`. It does not say of what.
    #[must_use]
    pub fn complaints(&self) -> u64 {
        self.shared.complaints.load(Ordering::Relaxed)
    }

    /// Which commands may write which logs.
    #[must_use]
    pub fn logs(&self) -> &LogRoutes {
        &self.shared.logs
    }
}

impl crate::store::logs::Confirm for WorkerLink {
    fn confirm(&self, log: LogId, have: u64) {
        if let Some((command, route)) = self.logs().command_of(log) {
            self.send(&MasterFrame::LogConfirm {
                build: route.build,
                command,
                log: route.name,
                have,
            });
        }
    }
}
