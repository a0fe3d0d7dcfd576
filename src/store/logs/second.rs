//! A log that is received a second time, because its bytes differed from what
//! the worker says of them (row FL04): beside the first one, under an id of its
//! own, until it is whole and takes the first one's place in one commit.

use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};

use super::chunk::{self, Which};
use super::pending::hexadecimal;
use super::segment::segments;
use crate::core::ids::LogId;
use crate::store::StoreError;

/// Ids from here on are those of second receptions.
pub(super) const SECOND: LogId = LogId(1 << 62);

/// Under which id the second reception of a log is stored.
pub(super) fn second_id(log: LogId) -> LogId {
    LogId(log.0 | SECOND.0)
}

/// Whether this is a second reception's id.
pub(super) fn is_second(log: LogId) -> bool {
    log.0 >= SECOND.0
}

fn int(id: LogId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

/// What an earlier master was receiving a second time is asked for again.
pub(super) fn clear_left_over(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM chunks WHERE log_id >= ?1", [int(SECOND)])?;
    conn.execute("DELETE FROM overlong WHERE log_id >= ?1", [int(SECOND)])?;
    Ok(())
}

/// The second reception takes the place of the first, in one commit.
pub(super) fn take_place(conn: &Connection, log: LogId) -> rusqlite::Result<()> {
    let done = (|| {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        chunk::clear(conn, log)?;
        for table in ["chunks", "overlong"] {
            conn.execute(
                &format!("UPDATE {table} SET log_id = ?1 WHERE log_id = ?2"),
                params![int(log), int(second_id(log))],
            )?;
        }
        conn.execute_batch("COMMIT")
    })();
    if done.is_err()
        && !conn.is_autocommit()
        && let Err(error) = conn.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction of the log store could not be rolled back");
    }
    done
}

/// The digest of the worker's bytes as they are stored.
pub(super) fn stored_digest(conn: &Connection, log: LogId) -> Result<String, StoreError> {
    let mut zstd = zstd::bulk::Decompressor::new()
        .map_err(|error| StoreError::Failed(format!("no decompressor can be made: {error}")))?;
    let mut digest = Sha256::new();
    let mut position = 0;
    while let Some(chunk) = chunk::read(conn, log, Which::From(position))? {
        for segment in segments(&chunk.unpack(&mut zstd)?) {
            let segment = segment?;
            // The master's own lines are between them.
            if segment.channel != b'h' {
                digest.update(segment.bytes);
            }
        }
        position = chunk.after.length;
    }
    Ok(hexadecimal(&digest.finalize()))
}
