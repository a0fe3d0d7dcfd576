//! Chunks: rows that are written once and never changed. Each can be read
//! alone, and its checksum covers all of it.

use std::io;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::StoreError;
use super::super::sqlite::Migration;
use super::lines::Carry;
use super::second::SECOND;
use super::segment::{Encoder, segments};
use crate::core::ids::LogId;

/// The schema's history.
pub(in crate::store) const MIGRATIONS: &[Migration] =
    &[include_str!("../../../migrations/logs/0001_first.sql")];

/// Most text in a chunk, in bytes. What a build writes resembles what it wrote a
/// while ago, so a large chunk packs better and faster; but to read one line all
/// of its chunk is unpacked, and who reads slowly has a part of it in memory. With
/// its segments' heads it mostly fits into 512 KiB.
pub(super) const CHUNK: usize = 504 * 1024;
/// Most bytes of segments in a chunk: many tiny pieces have much overhead.
pub(super) const CHUNK_SEGMENTS: usize = CHUNK + CHUNK / 4;
/// Bytes that the segments of a chunk mostly have at most.
pub(super) const CHUNK_ROOM: usize = 512 * 1024;
/// More than any chunk of ours has; a stored size beyond it is broken.
const SANE: usize = 2 * 1024 * 1024;

/// Level of the compression.
const LEVEL: i32 = 1;

/// How far a log has come, at the end of one of its chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Reached {
    /// Bytes in all.
    pub length: u64,
    /// Bytes of the worker's.
    pub worker_end: u64,
    /// Lines that ended.
    pub lines: u64,
    /// The lines that are open.
    pub carry: Carry,
}

/// A chunk as stored.
pub(super) struct Chunk {
    /// Position of its first byte.
    pub first: u64,
    /// Where the log stands after it.
    pub after: Reached,
    size: usize,
    body: Vec<u8>,
}

/// Packs the text of chunks, in room that it keeps.
pub(super) struct Packer {
    zstd: zstd::bulk::Compressor<'static>,
    body: Vec<u8>,
    /// Bytes that it has made since somebody set this back.
    pub packed: u64,
}

impl Packer {
    pub fn new() -> io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(LEVEL)?, body: Vec::new(), packed: 0 })
    }

    fn pack(&mut self, text: &[u8]) -> io::Result<&[u8]> {
        self.body.clear();
        self.body.reserve(zstd::zstd_safe::compress_bound(text.len()));
        self.zstd.compress_to_buffer(text, &mut self.body)?;
        self.packed += self.body.len() as u64;
        Ok(&self.body)
    }
}

fn checksum(log: LogId, numbers: [u64; 6], carry: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&log.0.to_le_bytes());
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(carry);
    hasher.update(body);
    hasher.finalize()
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes one chunk after what the log has reached, and returns what it then
/// has. It may be stored under another id for now; its checksum is that of the
/// log all the same.
pub(super) fn write(
    conn: &Connection,
    packer: &mut Packer,
    log: LogId,
    stored_as: LogId,
    before: &Reached,
    text: &Encoder,
    worker_end: u64,
) -> Result<Reached, rusqlite::Error> {
    let other = |error: String| rusqlite::Error::ToSqlConversionFailure(error.into());
    let mut after = Reached { worker_end, ..*before };
    for segment in segments(text.as_bytes()) {
        let segment = segment.map_err(|error| other(error.to_string()))?;
        let ends = after.carry.count(&segment, after.length);
        after.lines += ends.map_err(|error| other(error.to_string()))?;
        after.length += segment.bytes.len() as u64;
    }
    let body = packer.pack(text.as_bytes()).map_err(|error| other(error.to_string()))?;
    let carry = after.carry.to_bytes();
    let numbers = [
        before.length,
        after.length - before.length,
        worker_end,
        before.lines,
        after.lines - before.lines,
        text.as_bytes().len() as u64,
    ];
    let crc = checksum(log, numbers, &carry, body);
    let [first, length, worker_end, first_line, lines, size] = numbers.map(int);
    conn.prepare_cached(
        "INSERT INTO chunks (log_id, first, length, worker_end, first_line, lines, size, carry, \
         crc, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        int(stored_as.0),
        first,
        length,
        worker_end,
        first_line,
        lines,
        size,
        carry,
        crc,
        body
    ])?;
    Ok(after)
}

/// Removes what an earlier log with this id left: the state store was put back
/// to an older backup, and gave the id again.
pub(super) fn clear(conn: &Connection, log: LogId) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM chunks WHERE log_id = ?1")?.execute([int(log.0)])?;
    conn.prepare_cached("DELETE FROM overlong WHERE log_id = ?1")?.execute([int(log.0)])?;
    Ok(())
}

/// Removes some chunks of a log whose row is gone. Answers whether that was all
/// of it.
pub(super) fn remove_some(conn: &Connection, log: LogId, chunks: u32) -> rusqlite::Result<bool> {
    let removed = conn
        .prepare_cached(
            "DELETE FROM chunks WHERE id IN \
             (SELECT id FROM chunks WHERE log_id = ?1 ORDER BY first LIMIT ?2)",
        )?
        .execute(params![int(log.0), chunks])?;
    if removed == usize::try_from(chunks).unwrap_or(usize::MAX) {
        return Ok(false);
    }
    conn.prepare_cached("DELETE FROM overlong WHERE log_id = ?1")?.execute([int(log.0)])?;
    Ok(true)
}

/// Keeps how many bytes of the worker's an overlong log has got.
pub(super) fn count(conn: &Connection, log: LogId, worker_end: u64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO overlong (log_id, worker_end) VALUES (?1, ?2)")?
        .execute([int(log.0), int(worker_end)])?;
    Ok(())
}

/// How many bytes of the worker's an overlong log has got; none when it is no
/// such log.
pub(super) fn overlong(conn: &Connection, log: LogId) -> Result<Option<u64>, StoreError> {
    let read = || {
        conn.prepare_cached("SELECT worker_end FROM overlong WHERE log_id = ?1")?
            .query_row([int(log.0)], |row| row.get::<_, i64>(0))
            .optional()
    };
    let found = read().map_err(|error| {
        StoreError::Failed(format!("the length of log {log} cannot be read: {error}"))
    })?;
    Ok(found.and_then(|end| u64::try_from(end).ok()))
}

const COLUMNS: &str = "first, length, worker_end, first_line, lines, size, carry, crc, body";

/// Which chunk is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// The one that begins at this position.
    From(u64),
    /// The last one that begins at this position or before.
    At(u64),
    /// The last one that begins before this position.
    Before(u64),
    /// The one in which this line ends, or the last one.
    Line(u64),
    /// The last one.
    Last,
}

/// Reads one chunk and checks it.
pub(super) fn read(
    conn: &Connection,
    log: LogId,
    which: Which,
) -> Result<Option<Chunk>, StoreError> {
    let (wanted, value) = match which {
        Which::From(at) => ("first = ?2", at),
        Which::At(at) => ("first <= ?2 ORDER BY first DESC", at),
        Which::Before(at) => ("first < ?2 ORDER BY first DESC", at),
        Which::Line(line) => ("first_line <= ?2 ORDER BY first_line DESC, first DESC", line),
        Which::Last => ("first >= ?2 ORDER BY first DESC", 0),
    };
    let sql = format!("SELECT {COLUMNS} FROM chunks WHERE log_id = ?1 AND {wanted} LIMIT 1");
    let unreadable = |error: rusqlite::Error| {
        StoreError::Failed(format!("the text of log {log} cannot be read: {error}"))
    };
    let found = conn
        .prepare_cached(&sql)
        .map_err(unreadable)?
        .query_row([int(log.0), int(value)], |row| Ok(checked(log, row)))
        .optional()
        .map_err(unreadable)?;
    found
        .map(|chunk| {
            chunk.map_err(|reason| {
                StoreError::Failed(format!(
                    "the chunk of log {log} at {which:?} is damaged ({reason}); what is before \
                     and after it can still be read"
                ))
            })
        })
        .transpose()
}

/// Whether a chunk begins at this position or later.
pub(super) fn goes_on(conn: &Connection, log: LogId, position: u64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM chunks WHERE log_id = ?1 AND first >= ?2)")?
        .query_row([int(log.0), int(position)], |row| row.get(0))
}

/// Reads every chunk and tells of those that are damaged or missing, with what
/// is wrong. Answers how many chunks there are.
pub(in crate::store) fn examine(
    conn: &Connection,
    found: &mut dyn FnMut(LogId, String),
) -> rusqlite::Result<u64> {
    let own = SECOND.0;
    let mut statement = conn.prepare(&format!(
        "SELECT {COLUMNS}, log_id FROM chunks WHERE log_id < {own} ORDER BY log_id, first"
    ))?;
    let mut rows = statement.query([])?;
    let (mut chunks, mut reached) = (0, (LogId(0), 0));
    while let Some(row) = rows.next()? {
        chunks += 1;
        let log = LogId(u64::try_from(row.get::<_, i64>(9)?).unwrap_or_default());
        let first = u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default();
        let length = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
        let expected = if reached.0 == log { reached.1 } else { 0 };
        if first != expected {
            found(log, format!("bytes {expected} to {first} are missing"));
        }
        if let Err(reason) = checked(log, row) {
            found(log, format!("the chunk at byte {first} is damaged: {reason}"));
        }
        reached = (log, first + length);
    }
    Ok(chunks)
}

/// How many bytes of the log there are.
pub(in crate::store) fn reaches(conn: &Connection, log: LogId) -> rusqlite::Result<u64> {
    let end: i64 = conn
        .prepare_cached("SELECT coalesce(max(first + length), 0) FROM chunks WHERE log_id = ?1")?
        .query_row([int(log.0)], |row| row.get(0))?;
    Ok(u64::try_from(end).unwrap_or_default())
}

fn checked(log: LogId, row: &Row<'_>) -> Result<Chunk, String> {
    let text = |error: rusqlite::Error| error.to_string();
    let mut numbers = [0; 6];
    for (column, number) in numbers.iter_mut().enumerate() {
        let stored: i64 = row.get(column).map_err(text)?;
        *number = u64::try_from(stored).map_err(|_| "a number is negative".to_owned())?;
    }
    let carry: Vec<u8> = row.get(6).map_err(text)?;
    let crc: i64 = row.get(7).map_err(text)?;
    let body: Vec<u8> = row.get(8).map_err(text)?;
    let [first, length, worker_end, first_line, lines, size] = numbers;
    if i64::from(checksum(log, numbers, &carry, &body)) != crc {
        return Err(format!("its checksum is wrong; it holds bytes {first} to {}", first + length));
    }
    let carry = Carry::from_bytes(&carry).ok_or("its carry is broken")?;
    let size = usize::try_from(size).ok().filter(|size| *size <= SANE);
    let after = Reached { length: first + length, worker_end, lines: first_line + lines, carry };
    Ok(Chunk { first, after, size: size.ok_or("its size is broken")?, body })
}

impl Chunk {
    /// Its segments.
    pub fn unpack(&self, zstd: &mut zstd::bulk::Decompressor<'_>) -> Result<Vec<u8>, StoreError> {
        let damaged = |what: String| {
            StoreError::Failed(format!("the chunk at byte {} is damaged ({what})", self.first))
        };
        let text =
            zstd.decompress(&self.body, self.size).map_err(|error| damaged(error.to_string()))?;
        if text.len() == self.size { Ok(text) } else { Err(damaged("it is too short".into())) }
    }
}
