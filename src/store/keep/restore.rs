//! Puts a copy back as a new data folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;

use super::examine::{Examined, examine};
use super::{Beside, KeepError, LOGS, MANIFEST, Progress, STATE, TOKENS, Tell, copy_files, sync};
use crate::faults::crash_point;
use crate::store::sqlite::{copied_at, read_only};

/// What was put back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// What is in it.
    pub found: Examined,
    /// When the copy was made, for people.
    pub made: String,
    /// Token files.
    pub tokens: u64,
}

/// Checks the copy `from` and makes the new data folder `dir` of it. The copy
/// stays as it is.
///
/// # Errors
/// When there is something in `dir`, or the copy is not whole. `dir` is as it
/// was then.
pub fn restore(from: &Path, dir: &Path, tell: Tell<'_>) -> Result<Restored, KeepError> {
    let refused = |path: &Path, reason: &str, fix| {
        Err(KeepError::Refused { path: path.into(), reason: reason.into(), fix })
    };
    if !from.join(MANIFEST).is_file() || !from.join(STATE).is_file() || !from.join(LOGS).is_file() {
        return refused(
            from,
            "this is no finished backup",
            "Give a folder that `botmaster backup` made",
        );
    }
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return refused(
                    dir,
                    "this data folder is not empty, and nothing is written over",
                    "Move it away, or give another folder with --data-dir",
                );
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(KeepError::io(dir, &error)),
    }
    let above = super::parent(dir);
    fs::create_dir_all(&above).map_err(|error| KeepError::io(&above, &error))?;
    let made = made_at(&read_only(&from.join(STATE))?, &from.join(STATE))?;
    let copy = Beside::folder(dir)?;
    for file in [STATE, LOGS] {
        let (source, target) = (from.join(file), copy.path.join(file));
        let size = fs::metadata(&source).map_err(|error| KeepError::io(&source, &error))?.len();
        tell(Progress { what: "copying", file, done: 0, all: size });
        fs::copy(&source, &target).map_err(|error| KeepError::io(&source, &error))?;
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600))
            .map_err(|error| KeepError::io(&target, &error))?;
        sync(&target)?;
        tell(Progress { what: "copying", file, done: size, all: size });
    }
    let tokens = copy_files(&from.join(TOKENS), &copy.path.join(TOKENS))?;
    // What was written, not what was read.
    let found = examine(&copy.path, tell)?;
    crash_point("restore.before_rename");
    copy.becomes(dir)?;
    Ok(Restored { found, made, tokens })
}

/// When the copy was made. A state without that is no copy of ours, and its
/// master might go on with it.
fn made_at(conn: &Connection, path: &Path) -> Result<String, KeepError> {
    let made = copied_at(conn).map_err(|error| KeepError::sql(path, &error))?;
    made.ok_or_else(|| KeepError::Refused {
        path: path.into(),
        reason: "this state is not a backup's copy".into(),
        fix: "Give a folder that `botmaster backup` made",
    })
}
