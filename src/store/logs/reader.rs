//! Reads logs while they are written: only what is durable, a chunk at a time.
//!
//! Chunks never change, so a reader needs no transaction over several of them
//! and holds a connection only while it reads one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::super::{LogRow, StoreError};
use super::SHOWN_LINE;
use super::chunk::{self, CHUNK, Chunk, Reached, Which};
use super::segment::segments;
use super::walk::Walker;
use crate::core::ids::LogId;

/// Connections that stay open for the next reader.
const KEPT: usize = 8;
/// Bytes of text in one block at most.
const BLOCK: usize = CHUNK / 2;
/// How long a reader waits when the file is locked, which happens only while
/// another program opens or closes it.
const BUSY: Duration = Duration::from_secs(5);

/// Reads logs, from any thread. Its calls block on the disk. Clones share
/// their connections.
#[derive(Clone)]
pub struct LogReader(Arc<Inner>);

struct Inner {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// How much of a log can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Lines; when the log is complete, also a last one without its end.
    pub num_lines: u64,
    /// Bytes of text.
    pub length: u64,
}

impl LogReader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Inner { path, idle: Mutex::new(Vec::new()) }))
    }

    /// How much of the log can be read. Of a live log the row of the state
    /// store does not tell.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged there.
    pub fn extent(&self, row: &LogRow, inline: Option<&[u8]>) -> Result<Extent, StoreError> {
        if let Some(inline) = inline {
            let mut walker = Walker::new(&Reached::default(), u64::MAX, None);
            walker.walk(inline, &mut no_text)?;
            walker.finish(&mut no_text)?;
            return Ok(Extent { num_lines: walker.lines(), length: walker.position() });
        }
        let last = self.chunk(row.id, Which::Last)?;
        let after = last.map(|chunk| chunk.after).unwrap_or_default();
        let open = if row.complete { after.carry.open_lines() } else { 0 };
        Ok(Extent { num_lines: after.lines + open, length: after.length })
    }

    /// Lines from number `first` (from 0) on, at most `limit` of them, each as
    /// its channel's byte, its text and `\n`. The text is as the worker wrote
    /// it, valid UTF-8 or not; beyond [`SHOWN_LINE`] bytes it is cut and says so.
    /// All of it is in memory: without a limit, use [`Self::line_blocks`].
    ///
    /// # Errors
    /// When the store cannot be read or is damaged there.
    pub fn lines(
        &self,
        row: &LogRow,
        inline: Option<&[u8]>,
        first: u64,
        limit: Option<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        let mut lines = Vec::new();
        for block in self.line_blocks(row, inline, first, limit) {
            lines.append(&mut block?);
        }
        Ok(lines)
    }

    /// The same, a block at a time: never more than a few chunks are in memory.
    #[must_use]
    pub fn line_blocks(
        &self,
        row: &LogRow,
        inline: Option<&[u8]>,
        first: u64,
        limit: Option<u64>,
    ) -> LineBlocks {
        let stage = match inline {
            Some(inline) => Stage::Inline(inline.to_vec()),
            None => Stage::Begin,
        };
        LineBlocks {
            reader: self.clone(),
            log: row.id,
            complete: row.complete,
            first,
            limit,
            stage,
        }
    }

    /// The last `count` lines, of a live log too.
    ///
    /// # Errors
    /// When the store cannot be read or is damaged there.
    pub fn tail(
        &self,
        row: &LogRow,
        inline: Option<&[u8]>,
        count: u64,
    ) -> Result<Vec<u8>, StoreError> {
        let lines = self.extent(row, inline)?.num_lines;
        self.lines(row, inline, lines.saturating_sub(count), Some(count))
    }

    /// All bytes in the order in which they are stored, without channels.
    #[must_use]
    pub fn raw(&self, row: &LogRow, inline: Option<&[u8]>) -> RawBlocks {
        self.raw_from(row, inline, 0)
    }

    /// The bytes from a position on.
    #[must_use]
    pub fn raw_from(&self, row: &LogRow, inline: Option<&[u8]>, position: u64) -> RawBlocks {
        let inline = inline.map(<[u8]>::to_vec);
        let begun = position == 0;
        let (reader, log) = (self.clone(), row.id);
        RawBlocks { reader, log, inline, position, begun, chunk: None, done: false }
    }

    fn chunk(&self, log: LogId, which: Which) -> Result<Option<Chunk>, StoreError> {
        self.with(|conn| chunk::read(conn, log, which))
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lock = || self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = lock().pop();
        let conn = match idle {
            Some(conn) => conn,
            None => self.connect().map_err(|error| {
                let path = self.0.path.display();
                StoreError::Failed(format!("{path} cannot be opened for reading: {error}"))
            })?,
        };
        let result = read(&conn);
        let mut idle = lock();
        if idle.len() < KEPT {
            idle.push(conn);
        }
        result
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.0.path, flags)?;
        conn.busy_timeout(BUSY)?;
        Ok(conn)
    }

    /// The chunk that begins at this position; none at the end of the log.
    fn following(&self, log: LogId, position: u64) -> Result<Option<Chunk>, StoreError> {
        self.with(|conn| {
            if let Some(chunk) = chunk::read(conn, log, Which::From(position))? {
                return Ok(Some(chunk));
            }
            let goes_on = chunk::goes_on(conn, log, position)
                .map_err(|error| StoreError::Failed(error.to_string()))?;
            if !goes_on {
                return Ok(None);
            }
            // It may have been written just now.
            let chunk = chunk::read(conn, log, Which::From(position))?;
            chunk.map(Some).ok_or_else(|| {
                StoreError::Failed(format!("the chunk of log {log} at byte {position} is missing"))
            })
        })
    }

    /// Text of one channel from `begin` up to `end`, as much as is shown.
    fn text(&self, log: LogId, channel: u8, begin: u64, end: u64) -> Result<Vec<u8>, StoreError> {
        let mut zstd = decompressor()?;
        let mut out = Vec::new();
        let mut next = self.chunk(log, Which::At(begin))?;
        while out.len() <= SHOWN_LINE
            && let Some(chunk) = next.take()
        {
            let text = chunk.unpack(&mut zstd)?;
            let mut at = chunk.first;
            for segment in segments(&text) {
                let segment = segment?;
                if segment.channel == channel {
                    let skip = usize::try_from(begin.saturating_sub(at)).unwrap_or(usize::MAX);
                    let rest = segment.bytes.get(skip..).unwrap_or_default();
                    let room = (SHOWN_LINE + 1).saturating_sub(out.len());
                    out.extend_from_slice(rest.get(..room).unwrap_or(rest));
                }
                at += segment.bytes.len() as u64;
            }
            if chunk.after.length < end {
                next = self.following(log, chunk.after.length)?;
            }
        }
        Ok(out)
    }
}

fn decompressor() -> Result<zstd::bulk::Decompressor<'static>, StoreError> {
    zstd::bulk::Decompressor::new()
        .map_err(|error| StoreError::Failed(format!("no decompressor can be made: {error}")))
}

/// For walks in which no line can have begun before.
fn no_text(_: u8, _: u64, _: u64) -> Result<Vec<u8>, StoreError> {
    Ok(Vec::new())
}

enum Stage {
    Begin,
    Inline(Vec<u8>),
    Walk(Box<(Walker, zstd::bulk::Decompressor<'static>)>),
    End,
}

/// Lines of a log, in blocks. After an error it ends.
pub struct LineBlocks {
    reader: LogReader,
    log: LogId,
    complete: bool,
    first: u64,
    limit: Option<u64>,
    stage: Stage,
}

impl Iterator for LineBlocks {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(None) => return None,
                Ok(Some(block)) if block.is_empty() => {}
                Ok(Some(block)) => return Some(Ok(block)),
                Err(error) => {
                    self.stage = Stage::End;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl LineBlocks {
    fn step(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::End => Ok(None),
            Stage::Inline(text) => {
                let mut walker = Walker::new(&Reached::default(), self.first, self.limit);
                let mut lines = walker.walk(&text, &mut no_text)?;
                lines.append(&mut walker.finish(&mut no_text)?);
                Ok(Some(lines))
            }
            Stage::Begin => {
                if self.limit == Some(0) {
                    return Ok(None);
                }
                let from = self.start()?;
                let walker = Walker::new(&from, self.first, self.limit);
                self.stage = Stage::Walk(Box::new((walker, decompressor()?)));
                Ok(Some(Vec::new()))
            }
            Stage::Walk(mut walk) => {
                let (walker, zstd) = walk.as_mut();
                if walker.is_done() {
                    return Ok(None);
                }
                let mut fetch =
                    |channel, begin, end| self.reader.text(self.log, channel, begin, end);
                let Some(chunk) = self.reader.following(self.log, walker.position())? else {
                    let last = if self.complete { walker.finish(&mut fetch)? } else { Vec::new() };
                    return Ok(Some(last));
                };
                let lines = walker.walk(&chunk.unpack(zstd)?, &mut fetch)?;
                self.stage = Stage::Walk(walk);
                Ok(Some(lines))
            }
        }
    }

    /// What was reached before the chunk in which the first line ends.
    fn start(&self) -> Result<Reached, StoreError> {
        let Some(chunk) = self.reader.chunk(self.log, Which::Line(self.first))? else {
            return Ok(Reached::default());
        };
        let before = self.reader.chunk(self.log, Which::Before(chunk.first))?;
        Ok(before.map(|before| before.after).unwrap_or_default())
    }
}

/// Bytes of a log, in blocks. After an error it ends.
pub struct RawBlocks {
    reader: LogReader,
    log: LogId,
    inline: Option<Vec<u8>>,
    position: u64,
    /// The position is where a chunk begins, but for one that is half read.
    begun: bool,
    /// The chunk that is half read, as it is stored: who waits for a slow reader
    /// has little of it in memory, at the price of unpacking it twice.
    chunk: Option<Chunk>,
    done: bool,
}

impl Iterator for RawBlocks {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let block = match self.inline.take() {
            Some(text) => {
                self.done = true;
                plain(&text, 0, self.position, usize::MAX).map(Some)
            }
            None => self.block(),
        };
        match block {
            Ok(Some(block)) if block.is_empty() => None,
            Ok(block) => block.map(Ok),
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }
}

impl RawBlocks {
    fn block(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let chunk = if self.chunk.is_some() {
            self.chunk.take()
        } else if self.begun {
            self.reader.following(self.log, self.position)?
        } else {
            let chunk = self.reader.chunk(self.log, Which::At(self.position))?;
            chunk.filter(|chunk| chunk.after.length > self.position)
        };
        let Some(chunk) = chunk else { return Ok(None) };
        self.begun = true;
        let text = chunk.unpack(&mut decompressor()?)?;
        let block = plain(&text, chunk.first, self.position, BLOCK)?;
        self.position += block.len() as u64;
        self.chunk = Some(chunk).filter(|chunk| self.position < chunk.after.length);
        Ok(Some(block))
    }
}

/// The text alone, of segments of which the first byte has position `at`, from
/// a position on, and no more than `most` bytes of it.
fn plain(text: &[u8], at: u64, from: u64, most: usize) -> Result<Vec<u8>, StoreError> {
    let mut out = Vec::with_capacity(most.min(text.len()));
    let mut skip = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX);
    for segment in segments(text) {
        let bytes = segment?.bytes;
        let wanted = bytes.get(skip..).unwrap_or_default();
        let room = most - out.len();
        out.extend_from_slice(wanted.get(..room).unwrap_or(wanted));
        skip = skip.saturating_sub(bytes.len());
    }
    Ok(out)
}
