//! What the rest of the program may ask of the log store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::{LogRow, StoreError};
use crate::core::ids::LogId;

/// Told, on the log writer's thread, that a log is durable up to `have` bytes
/// of the worker's. Must be quick and must not block.
pub trait Confirm: Send + Sync {
    /// The log now holds `have` bytes of the worker's, durably.
    fn confirm(&self, log: LogId, have: u64);
}

/// A piece of a log.
pub struct Piece {
    /// Which log.
    pub log: LogId,
    /// `o` output, `e` error output, `h` the master's own lines.
    pub channel: u8,
    /// Place of the first byte among the worker's bytes of this log; none for
    /// the master's own, which go wherever the log ends just then.
    pub offset: Option<u64>,
    /// The bytes, as written.
    pub bytes: Bytes,
    /// Milliseconds since the command started.
    pub at_ms: u64,
    /// Whom to tell once they are durable.
    pub confirm: Option<Arc<dyn Confirm>>,
    /// Holds room in the store's memory budget until they are written.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// A log that got its last byte.
#[derive(Clone, PartialEq, Debug)]
pub struct LogClosed {
    /// Complete lines; a last line without its end counts.
    pub num_lines: u64,
    /// Bytes that are stored, the master's own included.
    pub length: u64,
    /// Bytes of the worker's that arrived, those beyond the limit of a log
    /// included.
    pub worker_length: u64,
    /// All of it, when it is so short that it was never written: it then goes
    /// into the state store with the step's end.
    pub inline: Option<Arc<[u8]>>,
    /// Why it is not whole, when it is not.
    pub incomplete: Option<String>,
    /// The worker's bytes have another digest than it says (row FL04). The log
    /// is still open: it can be received again, or closed as it is.
    pub differs: bool,
}

/// Called on the log writer's thread.
pub type OnClosed = Box<dyn FnOnce(Result<LogClosed, StoreError>) + Send>;

/// Called on the log writer's thread with the worker's bytes already stored.
pub type OnReopened = Box<dyn FnOnce(Result<u64, StoreError>) + Send>;

/// Text that was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RemovedText {
    /// So many of the logs asked for, the first of them, have no text any more.
    pub logs: usize,
    /// For how long others who write had to wait for it, its commit included.
    pub took: Duration,
}

/// Called on the log writer's thread with what was removed.
pub type OnRemoved = Box<dyn FnOnce(Result<RemovedText, StoreError>) + Send>;

/// The log store, as actors and connections see it. Asks about one log are
/// carried out in the order in which they were made.
pub trait LogStore: Send + Sync {
    /// Makes a new log ready for its first piece.
    fn open(&self, row: Arc<LogRow>);

    /// Makes a log of an earlier master ready for more: what was written but
    /// never confirmed is cut off.
    fn reopen(&self, row: Arc<LogRow>, done: OnReopened);

    /// The earlier logs of its build have so many bytes: of this one, which is
    /// open, no more is kept than the limit of a build leaves. A store without
    /// such a limit has nothing to do.
    fn after_others(&self, _log: LogId, _bytes: u64) {}

    /// Adds a piece. A piece before the end has its known part cut off; one
    /// beyond the end is dropped and answered with what the log has.
    fn append(&self, piece: Piece);

    /// Room for pieces, in bytes. Whoever reads a socket takes a permit for
    /// each piece, and so stops reading when the disk does not keep up.
    fn budget(&self) -> Arc<Semaphore>;

    /// Writes what is left and tells what the log came to. `expected` is the
    /// worker's length.
    fn close(&self, log: LogId, expected: Option<u64>, done: OnClosed);

    /// What the worker says of its bytes of this log, before it is closed: their
    /// SHA-256 in lower-case hexadecimal. The close compares. A store whose
    /// workers say none has nothing to do.
    fn expect_digest(&self, _log: LogId, _sha256: String) {}

    /// From now on the log is received once more from byte 0, beside what there
    /// is. The next close keeps what was received now if it is whole; else what
    /// there was, as incomplete. Only after a close that said `differs`.
    fn again(&self, _log: LogId) {}

    /// Writes what is left of a log that nobody will close, and forgets it: its
    /// build has ended without it, or belongs to somebody else. It can be
    /// reopened. A log that is not open is left alone.
    fn forget(&self, log: LogId);
}
