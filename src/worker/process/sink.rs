//! Where a command's output goes, and how much of it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::core::ids::{BuildId, CommandId};
use crate::protocol::json_v1::LOG_BATCH;
use crate::worker::agent::Event;

/// Shared by all programs of one command.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    shared: Arc<Shared>,
    allowed: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared {
    build: BuildId,
    command: CommandId,
    events: mpsc::Sender<Event>,
    began: Instant,
    emitted: AtomicU64,
    started: AtomicBool,
}

impl Sink {
    pub(super) fn new(
        build: BuildId,
        command: CommandId,
        events: mpsc::Sender<Event>,
        allowed: watch::Receiver<u64>,
    ) -> Self {
        let shared = Shared {
            build,
            command,
            events,
            began: Instant::now(),
            emitted: AtomicU64::new(0),
            started: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), allowed }
    }

    /// Tells, once, that a process of the command runs.
    pub(crate) async fn started(&self) {
        if !self.shared.started.swap(true, Ordering::Relaxed) {
            let (build, command) = (self.shared.build, self.shared.command.clone());
            // Fails only when the program ends.
            let _ = self.shared.events.send(Event::Started { build, command }).await;
        }
    }

    /// Bytes that may be emitted now.
    pub(super) fn room(&self) -> u64 {
        self.allowed.borrow().saturating_sub(self.shared.emitted.load(Ordering::Relaxed))
    }

    /// Waits until there is room. When nobody can allow more any longer the
    /// program is ending, and this waits for that.
    pub(super) async fn wait_for_room(&self) {
        let mut allowed = self.allowed.clone();
        let emitted = self.shared.emitted.load(Ordering::Relaxed);
        if allowed.wait_for(|&allowed| allowed > emitted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Milliseconds since the command started.
    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.shared.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells bytes for which there is room.
    pub(super) async fn emit(&self, ch: char, bytes: Bytes, at: u64) {
        let offset = self.shared.emitted.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let (build, command) = (self.shared.build, self.shared.command.clone());
        // Fails only when the program ends.
        let output = Event::Output { build, command, ch, offset, bytes, at };
        let _ = self.shared.events.send(output).await;
    }

    /// Tells a text of the worker's own, as soon as there is room for it.
    pub(crate) async fn print(&self, text: &str) {
        let mut rest = Bytes::copy_from_slice(text.as_bytes());
        while !rest.is_empty() {
            self.wait_for_room().await;
            let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
            let piece = rest.split_to(room.min(rest.len()).min(LOG_BATCH));
            self.emit('o', piece, self.elapsed_ms()).await;
        }
    }
}
