//! Looks at database files without opening any of them for writing: whether a
//! newer program wrote one, and whether one is whole.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::open::{BUSY, Migration, OpenError};

/// Most faults of one file that are told.
const FAULTS: usize = 20;

/// A connection that cannot write.
pub(in crate::store) fn read_only(path: &Path) -> Result<Connection, OpenError> {
    let sql = |error: rusqlite::Error| OpenError::sql(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(sql)?;
    conn.busy_timeout(BUSY).map_err(sql)?;
    Ok(conn)
}

/// Refuses a file that a newer program wrote, or that is no database. One that
/// is not there yet is fine.
pub(in crate::store) fn look(path: &Path, migrations: &[Migration]) -> Result<(), OpenError> {
    let is_there = path.try_exists().map_err(|error| OpenError::io(path, &error))?;
    if !is_there {
        return Ok(());
    }
    let conn = read_only(path)?;
    let found: i64 = conn
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| OpenError::sql(path, &error))?;
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if found > known { Err(OpenError::Newer { path: path.into(), found, known }) } else { Ok(()) }
}

/// Reads the whole file and compares its tables with their indexes.
///
/// # Errors
/// When the file is damaged, with the first faults.
pub(in crate::store) fn integrity(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let mut faults = Vec::new();
    let read =
        conn.prepare(&format!("PRAGMA integrity_check({FAULTS})")).and_then(|mut statement| {
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                faults.push(row.get::<_, String>(0)?);
            }
            Ok(())
        });
    match read {
        // So damaged that it cannot be looked at any further.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            faults.push(error.to_string());
        }
        read => read.map_err(|error| OpenError::sql(path, &error))?,
    }
    if faults.iter().all(|fault| fault == "ok") {
        return Ok(());
    }
    let reason = format!("a table is damaged ({})", faults.join("; "));
    Err(OpenError::Damaged { path: path.into(), reason })
}
