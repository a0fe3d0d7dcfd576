//! A consistent copy of a data folder, while its master works or without one.
//!
//! Each file is read in one transaction, so builds that go on meanwhile do not
//! show. The state's begins first and the text's right after it: what the state
//! says is complete was durable in the text before, so no log of the copy is
//! shorter than its state says. Should one be all the same (the housekeeping
//! took it away in between), it is marked.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, params};
use serde_json::json;

use super::examine::{Examined, examine, too_short};
use super::{Beside, KeepError, LOGS, MANIFEST, Progress, STATE, TOKENS, Tell, copy_files, sync};
use crate::faults::crash_point;
use crate::store::logs;
use crate::store::sqlite::{COPY_KEY, MIGRATIONS, look, read_only};

/// Pages copied between two tellings: 4 MiB.
const PAGES: i32 = 1024;
/// Pause when somebody else holds a file.
const PAUSE: Duration = Duration::from_millis(20);

/// What a copy has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackedUp {
    /// What is in it.
    pub found: Examined,
    /// Its size in bytes.
    pub bytes: u64,
    /// Token files.
    pub tokens: u64,
    /// Closed logs of which the copy has less than there was.
    pub marked: u64,
}

/// Copies the data folder `dir` to the new folder `target`, checks the copy,
/// and gives it its name only then.
///
/// # Errors
/// When there is something at `target`, the folder has no data, or either
/// cannot be used. Nothing is at `target` then.
pub fn back_up(
    dir: &Path,
    target: &Path,
    program: &str,
    tell: Tell<'_>,
) -> Result<BackedUp, KeepError> {
    let (state, text) = (dir.join(STATE), dir.join(LOGS));
    for path in [&state, &text] {
        if !path.exists() {
            return Err(KeepError::Refused {
                path: path.clone(),
                reason: "there is no such file, so there is nothing to back up".into(),
                fix: "Give the master's data folder with --data-dir, or its configuration with \
                      --config",
            });
        }
    }
    if fs::symlink_metadata(target).is_ok() {
        return Err(KeepError::Refused {
            path: target.into(),
            reason: "there is something of this name already".into(),
            fix: "Give another name: a backup is never written over an older one",
        });
    }
    look(&state, MIGRATIONS)?;
    look(&text, logs::MIGRATIONS)?;
    let copy = Beside::folder(target)?;
    let (from_state, from_text) = (pinned(&state)?, pinned(&text)?);
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    copy_database(&from_state, &copy.path.join(STATE), STATE, tell)?;
    crash_point("backup.state_copied");
    copy_database(&from_text, &copy.path.join(LOGS), LOGS, tell)?;
    drop((from_state, from_text));
    let tokens = copy_files(&dir.join(TOKENS), &copy.path.join(TOKENS))?;
    let marked = finish(&copy.path, made)?;
    let found = examine(&copy.path, tell)?;
    let mut bytes = 0;
    for name in [STATE, LOGS] {
        let path = copy.path.join(name);
        sync(&path)?;
        bytes += fs::metadata(&path).map_err(|error| KeepError::io(&path, &error))?.len();
    }
    let manifest = json!({
        "botmaster": program,
        "made_at": made,
        "of": fs::canonicalize(dir).unwrap_or_else(|_| dir.into()),
        "state_version": MIGRATIONS.len(),
        "logs_version": logs::MIGRATIONS.len(),
        "builds": found.builds,
        "logs": found.logs,
        "damaged_logs": found.damaged_count,
    });
    let path = copy.path.join(MANIFEST);
    fs::write(&path, format!("{manifest:#}\n")).map_err(|error| KeepError::io(&path, &error))?;
    sync(&path)?;
    crash_point("backup.before_rename");
    copy.becomes(target)?;
    crash_point("backup.renamed");
    Ok(BackedUp { found, bytes, tokens, marked })
}

/// A connection that sees the file as it is now, whatever is written to it.
fn pinned(path: &Path) -> Result<Connection, KeepError> {
    let conn = read_only(path)?;
    conn.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master;")
        .map_err(|error| KeepError::sql(path, &error))?;
    Ok(conn)
}

fn copy_database(
    from: &Connection,
    to: &Path,
    file: &'static str,
    tell: Tell<'_>,
) -> Result<(), KeepError> {
    let sql = |error: rusqlite::Error| KeepError::sql(to, &error);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|error| KeepError::io(to, &error))?;
    let page: i64 = from.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(sql)?;
    let page = page.unsigned_abs();
    let mut conn = Connection::open(to).map_err(sql)?;
    // It is made durable as a whole, at the end.
    conn.pragma_update(None, "synchronous", "OFF").map_err(sql)?;
    let backup = Backup::new(from, &mut conn).map_err(sql)?;
    loop {
        let step = backup.step(PAGES).map_err(sql)?;
        let state = backup.progress();
        let all = u64::try_from(state.pagecount).unwrap_or_default() * page;
        let left = u64::try_from(state.remaining).unwrap_or_default() * page;
        tell(Progress { what: "copying", file, done: all.saturating_sub(left), all });
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => std::thread::sleep(PAUSE),
        }
    }
}

/// Makes the copied files ones that stand alone, says in the state that it is a
/// copy, and marks logs that the text is short of. Answers how many.
fn finish(copy: &Path, made: u64) -> Result<u64, KeepError> {
    let (state_path, text_path) = (copy.join(STATE), copy.join(LOGS));
    let open = |path: &Path| -> Result<Connection, KeepError> {
        let conn = Connection::open(path).map_err(|error| KeepError::sql(path, &error))?;
        // No side files: the copy may lie on a medium that cannot be written.
        conn.pragma_update(None, "journal_mode", "DELETE")
            .map_err(|error| KeepError::sql(path, &error))?;
        Ok(conn)
    };
    let (state, text) = (open(&state_path)?, open(&text_path)?);
    let short = too_short(&state, &text, copy)?;
    let sql = |error: rusqlite::Error| KeepError::sql(&state_path, &error);
    state.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
    state
        .execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
            params![COPY_KEY, made.to_string()],
        )
        .map_err(sql)?;
    for log in &short {
        let reason = format!("the backup has {} of its {} bytes", log.have, log.length);
        let (id, have) = (i64::try_from(log.log.0), i64::try_from(log.have));
        state
            .execute(
                "UPDATE logs SET length = ?2, incomplete = ?3 WHERE id = ?1",
                params![id.unwrap_or(i64::MAX), have.unwrap_or(i64::MAX), reason],
            )
            .map_err(sql)?;
    }
    state.execute_batch("COMMIT").map_err(sql)?;
    Ok(short.len() as u64)
}
