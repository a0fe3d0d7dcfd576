//! The master's end of one worker connection, as the actors hold it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::core::ids::*;
use crate::core::time::Timestamp;
use crate::protocol::json_v1::{MasterFrame, encode};

/// Frames that may wait to be sent to one worker; beyond it the connection is
/// dropped as slow.
pub const OUTGOING_LIMIT: usize = 1024;

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

/// Commands that are remembered after their end, for frames that come late.
const ENDED: usize = 1024;

#[derive(Default, Debug)]
struct Routes {
    open: BTreeMap<CommandId, LogRoute>,
    /// The last ones that ended, the latest at the end.
    ended: VecDeque<CommandId>,
}

impl LogRoutes {
    /// From now on this command's text goes there.
    pub fn open(&self, command: CommandId, route: LogRoute) {
        let mut routes = self.lock();
        routes.ended.retain(|ended| *ended != command);
        routes.open.insert(command, route);
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

    /// Where this command's text goes.
    #[must_use]
    pub fn find(&self, command: &CommandId) -> Option<LogRoute> {
        self.lock().open.get(command).cloned()
    }

    /// Whose log this is.
    #[must_use]
    pub fn command_of(&self, log: LogId) -> Option<(CommandId, LogRoute)> {
        let routes = self.lock();
        let found = routes.open.iter().find(|(_, route)| route.log == log);
        found.map(|(command, route)| (command.clone(), route.clone()))
    }
}

#[derive(Debug)]
struct Shared {
    frames: mpsc::Sender<Vec<u8>>,
    closed: watch::Sender<Option<String>>,
    heard: AtomicU64,
    held: AtomicBool,
    complaints: AtomicU64,
    logs: LogRoutes,
}

/// The master's end of one worker connection. Clones share it.
#[derive(Clone, Debug)]
pub struct WorkerLink {
    /// Which connection.
    pub session: SessionId,
    shared: Arc<Shared>,
}

impl WorkerLink {
    /// A link and the end from which the connection's writer takes lines.
    #[must_use]
    pub fn new(session: SessionId) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (frames, lines) = mpsc::channel(OUTGOING_LIMIT);
        let shared = Shared {
            frames,
            closed: watch::Sender::new(None),
            heard: AtomicU64::new(0),
            held: AtomicBool::new(false),
            complaints: AtomicU64::new(0),
            logs: LogRoutes::default(),
        };
        (Self { session, shared: Arc::new(shared) }, lines)
    }

    /// Sends a frame. A worker that does not read is dropped. False when the
    /// connection is closed.
    pub fn send(&self, frame: &MasterFrame) -> bool {
        match self.shared.frames.try_send(encode(frame)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.close("it does not read what is sent to it");
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Drops the connection, with the reason for the log.
    pub fn close(&self, reason: &str) {
        self.shared.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason.to_owned());
            }
            first
        });
    }

    /// Why it was closed from this side, when it was.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        self.shared.closed.borrow().clone()
    }

    /// Returns when it was closed from this side.
    pub async fn wait_closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        // The sender lives as long as this link does.
        let _ = closed.wait_for(Option::is_some).await;
    }

    /// Bytes arrived at `now`.
    pub fn heard_at(&self, now: Timestamp) {
        self.shared.heard.store(now.0, Ordering::Relaxed);
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
