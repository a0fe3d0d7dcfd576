//! An open log: what arrived and is not durable yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::super::{LogRow, StoreError};
use super::INLINE;
use super::chunk::{self, CHUNK, CHUNK_ROOM, CHUNK_SEGMENTS, Packer, Reached};
use super::lines::CHANNELS;
use super::port::{Confirm, LogClosed, Piece};
use super::segment::{Encoder, segments};
use crate::core::ids::LogId;

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

/// How much of what waits is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    All,
    /// What fills chunks. The rest waits for its time, so that a log which grows
    /// fast is not stored in small ones.
    FullChunks,
}

/// An open log.
pub(super) struct Pending {
    pub row: Arc<LogRow>,
    /// Under which id its chunks are stored.
    stored_as: LogId,
    /// Of the worker's bytes so far; none when an earlier master had some.
    digest: Option<Sha256>,
    /// What the worker says their digest is.
    pub expected_digest: Option<String>,
    /// It was told that they differ.
    pub told_differs: bool,
    /// What is durable of its text.
    pub stored: Reached,
    /// Bytes of the worker's that are durable: kept, or counted.
    pub stored_of_worker: u64,
    /// Most of the worker's bytes that are kept.
    pub limit: u64,
    /// The limit is what that of all logs of a build leaves.
    pub of_build: Option<u64>,
    /// It is beyond the limit: the worker's bytes are only counted now.
    overlong: bool,
    /// It has told how long it was.
    told_length: bool,
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
    /// Those of them that are kept.
    kept: u64,
    /// Time of the last piece.
    at_ms: u64,
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
    pub fn new(row: Arc<LogRow>, limit: u64) -> Self {
        Self {
            stored_as: row.id,
            row,
            digest: Some(Sha256::new()),
            expected_digest: None,
            told_differs: false,
            stored: Reached::default(),
            stored_of_worker: 0,
            limit,
            of_build: None,
            overlong: false,
            told_length: false,
            on_disk: false,
            uncleared: true,
            full: Vec::new(),
            current: Waiting::default(),
            worker_end: 0,
            kept: 0,
            at_ms: 0,
            due: None,
            confirm: None,
            tell: false,
            shown_lines: 0,
            shown_at: None,
        }
    }

    /// The same log, received once more and stored under another id for now.
    pub fn second(&self, stored_as: LogId) -> Self {
        let mut second = Self::new(self.row.clone(), self.limit);
        second.stored_as = stored_as;
        second.of_build = self.of_build;
        second.expected_digest = self.expected_digest.clone();
        second.confirm = self.confirm.clone();
        second.own_line("[received a second time: the first time bytes differed on the way]");
        second
    }

    /// A log of which this much is on disk. `counted` are the worker's bytes of
    /// an overlong one.
    pub fn reopened(
        row: Arc<LogRow>,
        limit: u64,
        stored: Option<Reached>,
        counted: Option<u64>,
    ) -> Self {
        let on_disk = stored.is_some();
        let stored = stored.unwrap_or_default();
        let worker_end = counted.unwrap_or(stored.worker_end);
        Self {
            digest: (worker_end == 0).then(Sha256::new),
            stored,
            stored_of_worker: worker_end,
            overlong: counted.is_some(),
            on_disk,
            uncleared: false,
            current: Waiting { worker_end: stored.worker_end, ..Waiting::default() },
            worker_end,
            kept: stored.worker_end,
            shown_lines: stored.lines,
            ..Self::new(row, limit)
        }
    }

    /// Whether something waits to be written.
    pub fn waits(&self) -> bool {
        self.waiting().next().is_some() || self.stored_of_worker < self.worker_end
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
        self.at_ms = piece.at_ms;
        if piece.offset.is_none() {
            self.push(piece.channel, new, false);
        } else {
            self.worker_end += new.len() as u64;
            if let Some(digest) = &mut self.digest {
                digest.update(new);
            }
            if !self.take(piece.channel, new) {
                // Only counted: its room is free at once.
                return;
            }
        }
        self.current.permits.extend(piece.permit);
    }

    /// Keeps what the limit has room for of the worker's bytes (row FL08).
    /// False when that is nothing.
    fn take(&mut self, channel: u8, new: &[u8]) -> bool {
        if self.overlong {
            return false;
        }
        let room = usize::try_from(self.limit.saturating_sub(self.kept)).unwrap_or(usize::MAX);
        let kept = new.get(..room).unwrap_or(new);
        self.push(channel, kept, true);
        if kept.len() < new.len() {
            self.overlong = true;
            let what = match self.of_build {
                None => format!("this log is longer than {}", shown(self.limit)),
                Some(all) => format!("this build's logs are longer than {}", shown(all)),
            };
            self.own_line(&format!("[{what}: the output from here on is counted, not kept]"));
        }
        true
    }

    /// The log gets no more bytes: an overlong one tells how long it was.
    pub fn end(&mut self) {
        if self.overlong && !self.told_length {
            self.told_length = true;
            self.own_line(&format!(
                "[the output had {} bytes in all; the first {} of them are kept]",
                self.worker_end, self.kept
            ));
        }
    }

    /// Adds a line of the store's own.
    fn own_line(&mut self, text: &str) {
        self.push(b'h', format!("{text}\n").as_bytes(), false);
    }

    fn push(&mut self, channel: u8, mut rest: &[u8], of_worker: bool) {
        // Others would be shown with the output, so they are stored as that.
        let channel = if CHANNELS.contains(&channel) { channel } else { b'o' };
        let at_ms = self.at_ms;
        while !rest.is_empty() {
            let waiting = self.room();
            let (part, after) = rest.split_at(rest.len().min(CHUNK - waiting.text.text()));
            waiting.text.push(channel, at_ms, part);
            if of_worker {
                waiting.worker_end += part.len() as u64;
                self.kept += part.len() as u64;
            }
            rest = after;
        }
    }

    /// The chunk that has room for at least one byte.
    fn room(&mut self) -> &mut Waiting {
        if self.current.is_full() {
            let next = Waiting::after_full(self.kept);
            self.full.push(std::mem::replace(&mut self.current, next));
        }
        &mut self.current
    }

    /// Writes what waits, inside a transaction. The log is as before until
    /// [`Self::committed`] says that the transaction is durable.
    pub fn write(
        &self,
        conn: &Connection,
        packer: &mut Packer,
        part: Part,
    ) -> rusqlite::Result<Reached> {
        if self.uncleared {
            chunk::clear(conn, self.stored_as)?;
        }
        let mut reached = self.stored;
        for one in self.waiting().filter(|one| part == Part::All || one.is_full()) {
            let (log, as_log) = (self.row.id, self.stored_as);
            reached = chunk::write(conn, packer, log, as_log, &reached, &one.text, one.worker_end)?;
        }
        if self.overlong && part == Part::All {
            chunk::count(conn, self.stored_as, self.worker_end)?;
        }
        Ok(reached)
    }

    /// What was written is durable.
    pub fn committed(&mut self, reached: Reached, part: Part) {
        self.stored = reached;
        self.on_disk = true;
        self.uncleared = false;
        self.full.clear();
        let all = part == Part::All;
        self.stored_of_worker = if all { self.worker_end } else { reached.worker_end };
        if all {
            self.current = Waiting { worker_end: self.kept, ..Waiting::default() };
        } else if self.current.is_full() {
            self.current = Waiting::after_full(self.kept);
        }
        if !self.waits() {
            self.due = None;
        }
    }

    /// Whether the log is so short, and closed so soon, that it goes into the
    /// state store.
    pub fn fits_inline(&self) -> bool {
        let text: usize = self.waiting().map(|one| one.text.text()).sum();
        !self.on_disk && text as u64 <= INLINE
    }

    /// Whether the worker's bytes differ from what it says of them: none when it
    /// says nothing, when not all of them are here, or when that has to be read
    /// from what is stored.
    pub fn differs(&self, length: Option<u64>) -> Option<bool> {
        let expected = self.expected_digest.as_ref()?;
        if length.is_some_and(|length| length != self.worker_end) {
            return None;
        }
        let digest = self.digest.clone()?;
        Some(hexadecimal(&digest.finalize()) != *expected)
    }

    /// Whether the digest has to be read from what is stored: an earlier master
    /// received a part of it.
    pub fn digest_is_stored(&self, length: Option<u64>) -> bool {
        let whole = length.is_none_or(|length| length == self.worker_end);
        self.expected_digest.is_some() && self.digest.is_none() && whole && !self.overlong
    }

    /// Whether it has chunks on disk.
    pub fn is_on_disk(&self) -> bool {
        self.on_disk
    }

    /// What the log came to. What waits is told as inline text.
    pub fn closed(&self, expected: Option<u64>) -> Result<LogClosed, StoreError> {
        let Reached { mut length, mut lines, mut carry, .. } = self.stored;
        let mut inline = Vec::new();
        for one in self.waiting() {
            for segment in segments(one.text.as_bytes()) {
                let segment = segment?;
                lines += carry.count(&segment, length)?;
                length += segment.bytes.len() as u64;
            }
            inline.extend_from_slice(one.text.as_bytes());
        }
        let arrived = self.worker_end;
        let incomplete = match expected {
            Some(expected) if expected != arrived => {
                Some(format!("the worker wrote {expected} bytes and {arrived} arrived"))
            }
            _ if self.overlong => {
                let limit = match self.of_build {
                    None => format!("of one log {}", shown(self.limit)),
                    Some(all) => format!("of one build's logs {}", shown(all)),
                };
                Some(format!("it had {arrived} bytes, and {limit} are kept"))
            }
            _ => None,
        };
        Ok(LogClosed {
            num_lines: lines + carry.open_lines(),
            length,
            worker_length: self.worker_end,
            inline: (!self.on_disk).then(|| inline.into()),
            incomplete,
            differs: false,
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

/// As the wire has digests.
pub(super) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A size for people.
fn shown(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes >= GIB && bytes.is_multiple_of(GIB) {
        format!("{} GiB", bytes / GIB)
    } else {
        format!("{bytes} bytes")
    }
}

impl Waiting {
    /// The next one of a log that has just filled one.
    fn after_full(worker_end: u64) -> Self {
        Self { text: Encoder::with_room(CHUNK_ROOM), worker_end, ..Self::default() }
    }

    fn is_full(&self) -> bool {
        self.text.text() >= CHUNK || self.text.as_bytes().len() >= CHUNK_SEGMENTS
    }
}
