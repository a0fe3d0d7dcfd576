//! Makes a data folder ready: the folder, the lock file, the database files and
//! their schema.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, ErrorCode};

use crate::faults::crash_point;

/// Called when the process must end at once, with the reason: the disk failed
/// in a way after which nothing in memory can be trusted.
pub type OnFatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How long a foreign program that holds a database file is waited for.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Free pages that a file keeps for what comes next: 4 MiB.
const KEEP_FREE: u32 = 1024;

/// Pages that the state writer's connection may keep, in KiB. All caches of pages
/// together are at most 44 MiB: this one 8, the log writer's 2
/// (`store/logs/handle.rs`), and SQLite's own 2 for each connection that reads: 8 of
/// the state (`CONNECTIONS` in `reader.rs`), 8 that stay open of the logs (`KEPT` in
/// `store/logs/reader.rs`) and the housekeeping's. A copy of the data folder has some
/// of its own while it is made. SQLite adds about a sixteenth for each page's head.
const CACHE_KIB: i32 = 8 * 1024;

/// Statements that stay prepared. There are about 80 of them.
const PREPARED: usize = 128;

/// Why the store could not be opened. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another master has the folder.
    #[error(
        "{}: another master is running on this data folder: process {pid} on host {host}. \
         Stop it first, or give this one another `data_dir`",
        .folder.display()
    )]
    Held {
        /// The data folder.
        folder: PathBuf,
        /// Its process id, or `unknown`.
        pid: String,
        /// Its host, or `unknown`.
        host: String,
    },
    /// A newer program wrote the file.
    #[error(
        "{}: this file has schema version {found}, and this program knows versions up to {known}. \
         Start the newer program again, or restore the backup made before the upgrade",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// The folder or a file in it cannot be written.
    #[error("{}: {reason}. {fix}", .path.display())]
    Unwritable {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        reason: String,
        /// What to do.
        fix: &'static str,
    },
    /// The file is no database of ours, or is damaged.
    #[error(
        "{}: {reason}. Restore a backup, or save what is left with `sqlite3 {} .recover`",
        .path.display(), .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is a copy that a backup made, and nobody has said so.
    #[error(
        "{}: this is the copy of a backup made at {made}. Start once with `botmaster master \
         --restored`: then nothing that was given out after the backup is given again, and \
         builds that it does not know are abandoned",
        .path.display()
    )]
    Restored {
        /// The file.
        path: PathBuf,
        /// When, for people.
        made: String,
    },
    /// Anything else.
    #[error("{}: {reason}", .path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

const FIX_RIGHTS: &str = "Give the master's user the right to write there, or choose another \
                          `data_dir`";
const FIX_MOUNT: &str = "Mount the file system writable, or choose another `data_dir`";
const FIX_ROOM: &str = "Free some room in that file system, or choose another `data_dir`";
const FIX_OTHER: &str = "Check that the folder exists and that the master's user may write there";

impl OpenError {
    pub(in crate::store) fn io(path: &Path, error: &io::Error) -> Self {
        let fix = match error.kind() {
            io::ErrorKind::PermissionDenied => FIX_RIGHTS,
            io::ErrorKind::ReadOnlyFilesystem => FIX_MOUNT,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FIX_ROOM,
            _ => FIX_OTHER,
        };
        Self::Unwritable { path: path.into(), reason: error.to_string(), fix }
    }

    pub(in crate::store) fn sql(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
                Self::Unwritable { path, reason, fix: FIX_ROOM }
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                Self::Unwritable { path, reason, fix: FIX_RIGHTS }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Unwritable {
                path,
                reason,
                fix: "Another program holds the file: end it (a backup, or the `sqlite3` shell)",
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, reason }
            }
            _ => Self::Failed { path, reason },
        }
    }
}

/// One step of a schema's history: brings a file from the version before it.
pub(in crate::store) type Migration = &'static str;

/// Makes the data folder, readable by its owner only.
pub(in crate::store) fn make_folder(dir: &Path) -> Result<(), OpenError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| OpenError::io(dir, &error))
}

/// The lock on a data folder. It ends with the value, and with the process.
pub(in crate::store) struct FolderLock {
    _file: Flock<File>,
}

impl FolderLock {
    /// Takes the lock, and writes into it who has it.
    pub(in crate::store) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("master.lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| OpenError::io(&path, &error))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, Errno::EWOULDBLOCK)) => return Err(held(dir, &mut file)),
            Err((_, errno)) => return Err(OpenError::io(&path, &errno.into())),
        };
        let host = nix::unistd::gethostname()
            .map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned());
        file.set_len(0)
            .and_then(|()| file.write_all(format!("{} {host}\n", std::process::id()).as_bytes()))
            .map_err(|error| OpenError::io(&path, &error))?;
        Ok(Self { _file: file })
    }
}

fn held(dir: &Path, file: &mut File) -> OpenError {
    let mut text = String::new();
    // What cannot be read is shown as unknown; the refusal is what matters.
    let _ = file.rewind();
    let _ = file.take(1024).read_to_string(&mut text);
    let mut words = text.split_whitespace();
    let mut word = || words.next().unwrap_or("unknown").to_owned();
    OpenError::Held { folder: dir.into(), pid: word(), host: word() }
}

/// Opens a database file for writing and brings its schema up to date.
pub(in crate::store) fn open_file(
    path: &Path,
    migrations: &[Migration],
) -> Result<Connection, OpenError> {
    // SQLite gives its other files the mode of this one.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| OpenError::io(path, &error))?;
    let conn = Connection::open(path).map_err(|error| OpenError::sql(path, &error))?;
    // Of use in a new file only: what is removed later can be given back.
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")
        .map_err(|error| OpenError::sql(path, &error))?;
    set_up(&conn).map_err(|error| OpenError::sql(path, &error))?;
    migrate(&conn, path, migrations)?;
    Ok(conn)
}

/// Settings of every connection that writes.
pub(super) fn set_up(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(PREPARED);
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", false)?;
    // Savepoints keep their undo pages in memory.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Checkpoints are made by the writers themselves, after the askers were
    // told: else a failing checkpoint would look like a failing commit.
    conn.pragma_update(None, "wal_autocheckpoint", 0)
}

/// Brings the schema up to date, one transaction a step (row FM17).
pub(super) fn migrate(
    conn: &Connection,
    path: &Path,
    migrations: &[Migration],
) -> Result<(), OpenError> {
    let sql = |error: rusqlite::Error| OpenError::sql(path, &error);
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    let found: i64 =
        conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    if found > known {
        return Err(OpenError::Newer { path: path.into(), found, known });
    }
    for (version, migration) in (1_i64..).zip(migrations) {
        if version > found {
            conn.execute_batch(&format!(
                "BEGIN IMMEDIATE; {migration}\nPRAGMA user_version = {version};"
            ))
            .and_then(|()| {
                crash_point("migrate.each_step");
                conn.execute_batch("COMMIT")
            })
            .map_err(|error| {
                // The error that counts is the one of the step.
                let _ = conn.execute_batch("ROLLBACK");
                sql(error)
            })?;
        }
    }
    Ok(())
}

/// Gives back some of the room of what was removed. Answers whether there may
/// be more to give.
pub(in crate::store) fn give_back(conn: &Connection, pages: u32) -> rusqlite::Result<bool> {
    let free = |conn: &Connection| -> rusqlite::Result<u32> {
        conn.pragma_query_value(None, "freelist_count", |row| row.get(0))
    };
    let before = free(conn)?;
    if before <= KEEP_FREE {
        return Ok(false);
    }
    let some = pages.min(before - KEEP_FREE);
    conn.prepare(&format!("PRAGMA incremental_vacuum({some})"))?.query([]).and_then(
        |mut rows| {
            while rows.next()?.is_some() {}
            Ok(())
        },
    )?;
    // A file of before this was possible keeps its room, and uses it again.
    let after = free(conn)?;
    Ok(after < before && after > KEEP_FREE)
}

/// Moves what the write-ahead log holds into the database file. `truncate`
/// also waits for readers and empties the log.
pub(in crate::store) fn checkpoint(conn: &Connection, truncate: bool) -> rusqlite::Result<()> {
    let mode = if truncate { "TRUNCATE" } else { "PASSIVE" };
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}
