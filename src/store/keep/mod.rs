//! What is done with whole data folders, beside a running master or without
//! one: a copy of it, a copy put back, a look at everything in it.
//!
//! All of it reads the files themselves, through connections that cannot write:
//! it has to work when no master answers. Deliberately absent: any change to
//! the folder that a copy is made of.

mod backup;
mod examine;
mod housekeeper;
mod restore;

use std::path::{Path, PathBuf};

use super::sqlite::OpenError;

pub use backup::{BackedUp, back_up};
pub use examine::{Examined, examine};
pub use housekeeper::{Housekeeper, HousekeepingPlan, plan_housekeeping};
pub use restore::{Restored, restore};

/// File of a copy that says what it is; written last.
pub const MANIFEST: &str = "backup.json";

/// The state, and the text of logs.
pub(super) const STATE: &str = "state.sqlite";
pub(super) const LOGS: &str = "logs.sqlite";
/// Folder with the workers' tokens.
pub(super) const TOKENS: &str = "tokens";

/// Why a copy was not made or not put back. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A file of the folder or of the copy cannot be used.
    #[error(transparent)]
    File(#[from] OpenError),
    /// Something is where the result would go.
    #[error("{}: {reason}. {fix}", .path.display())]
    Refused {
        /// What is in the way, or is not what it should be.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What to do.
        fix: &'static str,
    },
}

impl KeepError {
    fn io(path: &Path, error: &std::io::Error) -> Self {
        OpenError::io(path, error).into()
    }

    fn sql(path: &Path, error: &rusqlite::Error) -> Self {
        OpenError::sql(path, error).into()
    }
}

/// How far the work on one file has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress<'a> {
    /// What is done: `copying`, `checking`.
    pub what: &'static str,
    /// The file.
    pub file: &'a str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub all: u64,
}

/// Is told of progress, now and then.
pub type Tell<'a> = &'a mut dyn FnMut(Progress<'_>);

/// Makes sure that a file or a folder's entries are on the disk.
fn sync(path: &Path) -> Result<(), KeepError> {
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| KeepError::io(path, &error))
}

/// The folder that a path is in.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}

/// A name beside `target` that is taken away again unless it becomes that.
struct Beside {
    path: PathBuf,
    kept: bool,
}

impl Beside {
    /// A new folder that only its owner can read.
    fn folder(target: &Path) -> Result<Self, KeepError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| "copy".into());
        let path = parent(target).join(format!(".{name}.part-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| KeepError::io(&path, &error))?;
        Ok(Self { path, kept: false })
    }

    /// It gets its name, all at once.
    fn becomes(mut self, target: &Path) -> Result<(), KeepError> {
        sync(&self.path)?;
        std::fs::rename(&self.path, target).map_err(|error| KeepError::io(target, &error))?;
        self.kept = true;
        sync(&parent(target))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.kept {
            // What stays is seen by its name.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Copies a folder's plain files, for their owner only, and tells how many.
fn copy_files(from: &Path, to: &Path) -> Result<u64, KeepError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let entries = match std::fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(KeepError::io(from, &error)),
    };
    let made = std::fs::DirBuilder::new().mode(0o700).create(to);
    made.map_err(|error| KeepError::io(to, &error))?;
    let mut copied = 0;
    for entry in entries {
        let entry = entry.map_err(|error| KeepError::io(from, &error))?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file {
            continue;
        }
        let target = to.join(entry.file_name());
        std::fs::copy(entry.path(), &target)
            .map_err(|error| KeepError::io(&entry.path(), &error))?;
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| KeepError::io(&target, &error))?;
        sync(&target)?;
        copied += 1;
    }
    sync(to)?;
    Ok(copied)
}
