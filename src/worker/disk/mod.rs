//! What the worker keeps on the disk, so that builds outlive its program.
//!
//! Below the worker's folder: `.botmaster/epochs`, and for each build a folder
//! `.botmaster/builds/<build>` with its `journal`, its keeper's lock and socket,
//! and one folder for its present command: the output in segments, and the
//! `result`. Deliberately absent: who decides, and who runs anything.

mod epochs;
mod journal;
pub mod spool;

use std::path::{Path, PathBuf};

use crate::core::ids::BuildId;

pub use epochs::Epochs;
pub use journal::{Begun, Shelf, Unreadable, boot_id};
pub(super) use journal::{sync_result, write_result};

/// Name of the worker's own folder below the one that builds work in.
pub const OWN_FOLDER: &str = ".botmaster";

/// Name of the file that a keeper holds locked as long as it lives.
pub const KEEPER_LOCK: &str = "keeper.lock";

/// Name of the keeper's socket.
pub const KEEPER_SOCKET: &str = "keeper.sock";

/// Folder of a build's journal below the worker's folder `dir`.
#[must_use]
pub fn build_folder(dir: &Path, build: BuildId) -> PathBuf {
    dir.join(OWN_FOLDER).join("builds").join(build.to_string())
}

/// Folder of the build's `n`-th command.
#[must_use]
pub fn command_folder(build_folder: &Path, n: u32) -> PathBuf {
    build_folder.join(n.to_string())
}
