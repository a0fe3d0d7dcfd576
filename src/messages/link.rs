//! The master's end of one worker connection, as the actors hold it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
pub struct LogRoutes(Mutex<BTreeMap<CommandId, (LogRoute, Option<Timestamp>)>>);

impl LogRoutes {
    /// From now on this command's text goes there.
    pub fn open(&self, command: CommandId, route: LogRoute) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(command, (route, None));
    }

    /// This command writes no more.
    pub fn close(&self, command: &CommandId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(command);
    }

    /// Where text of this command goes that arrives at `now`.
    #[must_use]
    pub fn find(&self, command: &CommandId, now: Timestamp) -> Option<LogRoute> {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (route, wrote) = routes.get_mut(command)?;
        *wrote = Some(now);
        Some(route.clone())
    }

    /// When text of this command came last over this connection.
    #[must_use]
    pub fn wrote(&self, command: &CommandId) -> Option<Timestamp> {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get(command).and_then(|(_, wrote)| *wrote)
    }

    /// Whose log this is.
    #[must_use]
    pub fn command_of(&self, log: LogId) -> Option<(CommandId, LogRoute)> {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = routes.iter().find(|(_, (route, _))| route.log == log);
        found.map(|(command, (route, _))| (command.clone(), route.clone()))
    }
}

#[derive(Debug)]
struct Shared {
    frames: mpsc::Sender<Vec<u8>>,
    closed: watch::Sender<Option<String>>,
    heard: AtomicU64,
    held: AtomicBool,
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
            unconfirming: AtomicBool::new(false),
            logs: LogRoutes::default(),
        };
        (Self { session, shared: Arc::new(shared) }, lines)
    }

    /// Sends a frame. A worker that does not read is dropped. False when the
    /// connection is closed.
    pub fn send(&self, frame: &MasterFrame) -> bool {
        let heartbeat = matches!(frame, MasterFrame::Heartbeat { .. });
        if heartbeat && self.shared.unconfirming.load(Ordering::Relaxed) {
            return true;
        }
        match self.shared.frames.try_send(encode(frame)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.close("it does not read what is sent to it");
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// No heartbeat is confirmed from now on, whoever wants to: the worker's
    /// lease is counted from here.
    pub fn confirm_no_more(&self) {
        self.shared.unconfirming.store(true, Ordering::Relaxed);
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

    /// Returns when all that was to be sent over a connection that was closed is
    /// written, or never will be.
    pub async fn wait_written(&self) {
        self.shared.frames.closed().await;
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
