//! An open log: what arrived and is not durable yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::OwnedSemaphorePermit;

use super::super::{LogRow, StoreError};
use super::INLINE;
use super::chunk::{self, CHUNK, CHUNK_SEGMENTS, Reached};
use super::lines::{CHANNELS, Count};
use super::port::{Confirm, LogClosed, Piece};
use super::segment::{Encoder, segments};

/// Shortest time between two notices of new lines.
pub(super) const SHOW: Duration = Duration::from_millis(200);

/// Text that will be one chunk.
#[derive(Default)]
struct Waiting {
    text: Encoder,
    /// Bytes of the worker's up to its end.
    worker_end: u64,
    /// Their room in the memory budget is free once this is dropped.
    permits: Vec<OwnedSemaphorePermit>,
}

/// An open log.
pub(super) struct Pending {
    row: Arc<LogRow>,
    /// What is durable.
    pub stored: Reached,
    /// It has chunks on disk.
    on_disk: bool,
    /// An earlier log's chunks may be under its id.
    uncleared: bool,
    /// Whole chunks that wait.
    full: Vec<Waiting>,
    /// The chunk that grows.
    current: Waiting,
    /// Bytes of the worker's that arrived.
    worker_end: u64,
    /// When what waits has to be written.
    pub due: Option<Instant>,
    /// Whom to tell of durable bytes.
    pub confirm: Option<Arc<dyn Confirm>>,
    /// A piece came that added nothing: tell what there is.
    pub tell: bool,
    shown_lines: u64,
    shown_at: Option<Instant>,
}

impl Pending {
    /// A new log.
    pub fn new(row: Arc<LogRow>) -> Self {
        Self {
            row,
            stored: Reached::default(),
            on_disk: false,
            uncleared: true,
            full: Vec::new(),
            current: Waiting::default(),
            worker_end: 0,
            due: None,
            confirm: None,
            tell: false,
            shown_lines: 0,
            shown_at: None,
        }
    }

    /// A log of which this much is on disk.
    pub fn reopened(row: Arc<LogRow>, stored: Option<Reached>) -> Self {
        let on_disk = stored.is_some();
        let stored = stored.unwrap_or_default();
        Self {
            stored,
            on_disk,
            uncleared: false,
            current: Waiting { worker_end: stored.worker_end, ..Waiting::default() },
            worker_end: stored.worker_end,
            shown_lines: stored.lines,
            ..Self::new(row)
        }
    }

    /// Whether something waits to be written.
    pub fn waits(&self) -> bool {
        self.waiting().next().is_some()
    }

    /// Whether a whole chunk waits.
    pub fn has_full_chunk(&self) -> bool {
        !self.full.is_empty() || self.current.is_full()
    }

    fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.full.iter().chain([&self.current]).filter(|one| one.text.text() > 0)
    }

    /// Takes the part of a piece that is new (row FL01).
    pub fn append(&mut self, piece: Piece) {
        if piece.confirm.is_some() {
            self.confirm = piece.confirm;
        }
        let new = match piece.offset {
            None => &piece.bytes[..],
            Some(offset) => {
                // What it already has; nothing of a piece beyond the end fits.
                let known = self.worker_end.checked_sub(offset);
                let known = known.and_then(|known| usize::try_from(known).ok());
                known.and_then(|known| piece.bytes.get(known..)).unwrap_or_default()
            }
        };
        if new.is_empty() {
            self.tell |= piece.offset.is_some();
            return;
        }
        // Others would be shown with the output, so they are stored as that.
        let known = CHANNELS.contains(&piece.channel);
        let channel = if known { piece.channel } else { b'o' };
        let mut rest = new;
        while !rest.is_empty() {
            let waiting = self.room();
            let (part, after) = rest.split_at(rest.len().min(CHUNK - waiting.text.text()));
            waiting.text.push(channel, piece.at_ms, part);
            if piece.offset.is_some() {
                waiting.worker_end += part.len() as u64;
                self.worker_end += part.len() as u64;
            }
            rest = after;
        }
        self.current.permits.extend(piece.permit);
    }

    /// The chunk that has room for at least one byte.
    fn room(&mut self) -> &mut Waiting {
        if self.current.is_full() {
            let next = Waiting { worker_end: self.worker_end, ..Waiting::default() };
            self.full.push(std::mem::replace(&mut self.current, next));
        }
        &mut self.current
    }

    /// Writes all that waits, inside a transaction. The log is as before until
    /// [`Self::committed`] says that the transaction is durable.
    pub fn write(
        &self,
        conn: &Connection,
        zstd: &mut zstd::bulk::Compressor<'_>,
    ) -> rusqlite::Result<Reached> {
        if self.uncleared {
            chunk::clear(conn, self.row.id)?;
        }
        let mut reached = self.stored;
        for one in self.waiting() {
            reached = chunk::write(conn, zstd, self.row.id, &reached, &one.text, one.worker_end)?;
        }
        Ok(reached)
    }

    /// All that waited is durable.
    pub fn committed(&mut self, reached: Reached) {
        self.stored = reached;
        self.on_disk = true;
        self.uncleared = false;
        self.full.clear();
        self.current = Waiting { worker_end: self.worker_end, ..Waiting::default() };
        self.due = None;
    }

    /// Whether the log is so short, and closed so soon, that it goes into the
    /// state store.
    pub fn fits_inline(&self) -> bool {
        let text: usize = self.waiting().map(|one| one.text.text()).sum();
        !self.on_disk && text as u64 <= INLINE
    }

    /// What the log came to. What waits is told as inline text.
    pub fn closed(&self, expected: Option<u64>) -> Result<LogClosed, StoreError> {
        let Reached { mut length, mut lines, mut carry, .. } = self.stored;
        let mut inline = Vec::new();
        for one in self.waiting() {
            for segment in segments(one.text.as_bytes()) {
                let segment = segment?;
                let mut ends = Count::default();
                carry.feed(&segment, length, &mut ends)?;
                lines += ends.0;
                length += segment.bytes.len() as u64;
            }
            inline.extend_from_slice(one.text.as_bytes());
        }
        let incomplete = expected.filter(|expected| *expected != self.worker_end).map(|expected| {
            format!("the worker wrote {expected} bytes and {} arrived", self.worker_end)
        });
        Ok(LogClosed {
            num_lines: lines + carry.open_lines(),
            length,
            worker_length: self.worker_end,
            inline: (!self.on_disk).then(|| inline.into()),
            incomplete,
        })
    }

    /// The row with what is durable, when its new lines should be shown now.
    pub fn show(&mut self, now: Instant) -> Option<LogRow> {
        if self.show_at(now).is_none_or(|at| at > now) {
            return None;
        }
        self.shown_at = Some(now);
        self.shown_lines = self.stored.lines;
        Some(LogRow {
            num_lines: self.stored.lines,
            length: self.stored.length,
            ..LogRow::clone(&self.row)
        })
    }

    /// When its new lines may be shown; none when there are none.
    pub fn show_at(&self, now: Instant) -> Option<Instant> {
        if self.stored.lines == self.shown_lines {
            return None;
        }
        Some(self.shown_at.map_or(now, |at| at + SHOW))
    }
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.text.text() >= CHUNK || self.text.as_bytes().len() >= CHUNK_SEGMENTS
    }
}
