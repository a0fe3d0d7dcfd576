//! The text that builds write: byte ranges in, exact bytes and lines out.
//!
//! A log is a row of *segments* (channel, time, bytes). `pending` collects them
//! in memory, `writer` (behind `handle`) makes them durable in chunks with a group commit of its
//! own, `reader` gives back exact bytes or the list of lines. Lines are found
//! at reading: only their number and where an open one began is stored.
//! Deliberately absent: rows of logs, which the state store has.

mod chunk;
mod handle;
mod lines;
mod pending;
mod port;
mod reader;
mod second;
mod segment;
mod walk;
mod writer;

pub(in crate::store) use chunk::{MIGRATIONS, examine, reaches};
pub use handle::{LogLimits, SqliteLogs};
pub use port::*;
pub use reader::{Extent, LineBlocks, LogReader, RawBlocks};
pub(in crate::store) use segment::own_text;

/// Longest log that is kept in the state store instead, in bytes of text.
pub const INLINE: u64 = 4096;

/// Most of the worker's bytes that are kept of one log. What is beyond is
/// counted only (row FL08).
pub const LOG_LIMIT: u64 = 4 << 30;

/// Most of the worker's bytes that are kept of all logs of one build.
pub const BUILD_LIMIT: u64 = 16 << 30;

/// Longest shown line, in bytes. What is beyond is cut from the line, with a
/// mark, and is still there in the raw bytes.
pub const SHOWN_LINE: usize = 64 * 1024;
