//! The log store as the master's actors see it: text is durable a little after
//! it came, and confirmed then; a crash loses what was not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::LogId;
use botmaster::store::logs::*;
use botmaster::store::{LogRow, StoreError};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::Sabotage;
use super::shared::Door;

/// Longest time from a byte's arrival to its write.
const DELAY: Duration = Duration::from_millis(50);

/// What the disk holds of a log.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StoredLog {
    /// The worker's bytes.
    pub worker: Vec<u8>,
    /// The master's own.
    pub own: u64,
}

impl StoredLog {
    fn length(&self) -> u64 {
        self.worker.len() as u64 + self.own
    }

    fn add(&mut self, more: Self) {
        self.worker.extend(more.worker);
        self.own += more.own;
    }

    /// Reads what a short log has in its row.
    pub fn inline(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_default()
    }
}

enum Ask {
    Open(LogId),
    Reopen(LogId, OnReopened),
    Append(Piece),
    Close(LogId, Option<u64>, OnClosed),
    Forget(LogId),
}

/// The way to the log store's task.
pub struct SlowLogs {
    asks: mpsc::UnboundedSender<Ask>,
    budget: Arc<Semaphore>,
}

impl LogStore for SlowLogs {
    fn open(&self, row: Arc<LogRow>) {
        let _ = self.asks.send(Ask::Open(row.id));
    }

    fn reopen(&self, row: Arc<LogRow>, done: OnReopened) {
        if let Err(mpsc::error::SendError(Ask::Reopen(_, done))) =
            self.asks.send(Ask::Reopen(row.id, done))
        {
            done(Err(StoreError::Closed));
        }
    }

    fn append(&self, piece: Piece) {
        let _ = self.asks.send(Ask::Append(piece));
    }

    fn budget(&self) -> Arc<Semaphore> {
        self.budget.clone()
    }

    fn close(&self, log: LogId, expected: Option<u64>, done: OnClosed) {
        if let Err(mpsc::error::SendError(Ask::Close(_, _, done))) =
            self.asks.send(Ask::Close(log, expected, done))
        {
            done(Err(StoreError::Closed));
        }
    }

    fn forget(&self, log: LogId) {
        let _ = self.asks.send(Ask::Forget(log));
    }
}

/// A log that is open in this life of the master.
#[derive(Default)]
struct OpenLog {
    waits: StoredLog,
    /// The worker's bytes that are durable.
    stored: u64,
    on_disk: bool,
    confirm: Option<Arc<dyn Confirm>>,
    permits: Vec<OwnedSemaphorePermit>,
    due: Option<Instant>,
}

impl OpenLog {
    fn arrived(&self) -> u64 {
        self.stored + self.waits.worker.len() as u64
    }
}

/// Starts the log store's task on this host. `budget` is room for pieces in
/// memory, in bytes.
pub fn start(door: Door, budget: usize) -> SlowLogs {
    let (asks, mut incoming) = mpsc::unbounded_channel();
    let mut logs = Logs { door, open: BTreeMap::new() };
    tokio::task::spawn_local(async move {
        loop {
            let due = logs.open.values().filter_map(|log| log.due).min();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ask = incoming.recv() => match ask {
                    Some(ask) => logs.take(ask),
                    None => return,
                },
                () = wait => logs.write_due(),
            }
        }
    });
    SlowLogs { asks, budget: Arc::new(Semaphore::new(budget)) }
}

struct Logs {
    door: Door,
    open: BTreeMap<LogId, OpenLog>,
}

impl Logs {
    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Open(id) => drop(self.open.entry(id).or_default()),
            Ask::Reopen(id, done) => {
                let shared = self.door.borrow();
                let log = self.open.entry(id).or_insert_with(|| {
                    let disk = shared.logs.get(&id);
                    let stored = disk.map_or(0, |disk| disk.worker.len() as u64);
                    OpenLog { stored, on_disk: disk.is_some(), ..OpenLog::default() }
                });
                let waits = log.waits != StoredLog::default();
                drop(shared);
                if waits && !self.write(id) {
                    return done(Err(StoreError::Unwritable("the disk is full".into())));
                }
                done(Ok(self.open.get(&id).map_or(0, |log| log.stored)));
            }
            Ask::Append(piece) => self.append(piece),
            Ask::Close(id, expected, done) => done(self.close(id, expected)),
            Ask::Forget(id) => {
                if self.open.contains_key(&id) {
                    self.write(id);
                    self.open.remove(&id);
                }
            }
        }
    }

    fn append(&mut self, piece: Piece) {
        let Some(log) = self.open.get_mut(&piece.log) else { return };
        if piece.confirm.is_some() {
            log.confirm = piece.confirm;
        }
        match piece.offset {
            None => log.waits.own += piece.bytes.len() as u64,
            Some(offset) => {
                let known = log.arrived().checked_sub(offset);
                let known = known.and_then(|known| usize::try_from(known).ok());
                let new = known.and_then(|known| piece.bytes.get(known..)).unwrap_or_default();
                if new.is_empty() {
                    if let Some(confirm) = &log.confirm {
                        confirm.confirm(piece.log, log.stored);
                    }
                    return;
                }
                log.waits.worker.extend_from_slice(new);
            }
        }
        log.permits.extend(piece.permit);
        log.due.get_or_insert(Instant::now() + DELAY);
    }

    fn write_due(&mut self) {
        let now = Instant::now();
        let due = self.open.iter().filter(|(_, log)| log.due.is_some_and(|due| due <= now));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.write(id);
        }
    }

    /// Makes what waits durable, and confirms it. False when the disk is full:
    /// it is tried again each second.
    fn write(&mut self, id: LogId) -> bool {
        let mut shared = self.door.borrow_mut();
        let Some(log) = self.open.get_mut(&id) else { return true };
        if shared.is_full {
            log.due = Some(Instant::now() + Duration::from_secs(1));
            return false;
        }
        log.due = None;
        log.permits.clear();
        log.on_disk = true;
        log.stored = log.arrived();
        let mut more = std::mem::take(&mut log.waits);
        if shared.sabotage == Some(Sabotage::LosesText) {
            more.worker.pop();
        }
        shared.logs.entry(id).or_default().add(more);
        drop(shared);
        if let Some(confirm) = &log.confirm {
            confirm.confirm(id, log.stored);
        }
        true
    }

    fn close(&mut self, id: LogId, expected: Option<u64>) -> Result<LogClosed, StoreError> {
        let Some(log) = self.open.get(&id) else {
            return Err(StoreError::Missing(format!("open log {id}")));
        };
        let arrived = log.arrived();
        let mut inline = None;
        let mut length = log.waits.length();
        if !log.on_disk && length <= INLINE {
            inline = serde_json::to_vec(&log.waits).ok().map(Into::into);
        } else if self.write(id) {
            length = self.door.borrow().logs.get(&id).map_or(0, StoredLog::length);
        } else {
            return Err(StoreError::Unwritable("the disk is full".into()));
        }
        self.open.remove(&id);
        let incomplete = expected
            .filter(|expected| *expected != arrived)
            .map(|expected| format!("the worker wrote {expected} bytes and {arrived} arrived"));
        Ok(LogClosed {
            num_lines: 0,
            length,
            worker_length: arrived,
            inline,
            incomplete,
            differs: false,
        })
    }
}
