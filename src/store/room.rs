//! Room on the disk: a file that is given up first when the disk is full, so
//! that claims and results still go through (row FD08), and the word for
//! everybody that the store is full (row FL07).
//!
//! While it is full nothing new is claimed and the text of logs waits; builds
//! that run go on until their windows are full. The writers look each second
//! whether there is room again; then the file is made again first.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

/// The file that is given up.
const NAME: &str = "reserve";
/// Its size; of a small file system it takes no more than the eighth part.
const RESERVE: u64 = 64 * 1024 * 1024;

/// Is told that the store is full, with words for people, or no longer.
pub type OnFull = Box<dyn Fn(Option<String>) + Send + Sync>;

/// The room of one data folder. Clones share it.
#[derive(Clone)]
pub struct Room(Arc<Inner>);

struct Inner {
    /// None: nobody keeps room, and the store is never full.
    dir: Option<PathBuf>,
    full: AtomicBool,
    on_full: Option<OnFull>,
    /// Held while files are looked at.
    looking: Mutex<()>,
}

/// Free bytes of a file system, and all of it.
fn free(dir: &Path) -> Option<(u64, u64)> {
    let found = statvfs(dir).ok()?;
    let size = found.fragment_size();
    Some((found.blocks_available() * size, found.blocks() * size))
}

fn shown(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

impl Room {
    /// No room is kept. A full disk is then an error of each write.
    #[must_use]
    pub fn unwatched() -> Self {
        Self(Arc::new(Inner {
            dir: None,
            full: AtomicBool::new(false),
            on_full: None,
            looking: Mutex::new(()),
        }))
    }

    /// Keeps room in a data folder, once `begin` was called.
    #[must_use]
    pub fn watched(dir: &Path, on_full: OnFull) -> Self {
        Self(Arc::new(Inner {
            dir: Some(dir.into()),
            full: AtomicBool::new(false),
            on_full: Some(on_full),
            looking: Mutex::new(()),
        }))
    }

    /// Whether the store is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.full.load(Ordering::Relaxed)
    }

    /// Makes the file. The folder's lock is held. Too little room for it is
    /// told in the log only: what there is may be enough.
    pub(super) fn begin(&self) {
        let Some(dir) = &self.0.dir else { return };
        if !self.make_file(dir) {
            tracing::warn!(
                data = %dir.display(),
                "there is no room for the reserve that keeps the store going when the disk is full"
            );
        }
    }

    /// How large the file is, and how much must be free beside it before the
    /// store is no longer full.
    fn sizes(all: u64) -> (u64, u64) {
        let reserve = RESERVE.min(all / 8);
        (reserve, reserve / 4)
    }

    /// Makes the file, when there is room for it and some more. True when it
    /// is there.
    fn make_file(&self, dir: &Path) -> bool {
        let path = dir.join(NAME);
        let Some((free, all)) = free(dir) else { return false };
        let (reserve, margin) = Self::sizes(all);
        if fs::metadata(&path).is_ok_and(|found| found.len() >= reserve) {
            return free >= margin;
        }
        if free < reserve + margin {
            return false;
        }
        let beside = dir.join(format!("{NAME}.new"));
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|file| Self::fill(&file, reserve))
            .and_then(|()| fs::rename(&beside, &path));
        if let Err(error) = made {
            tracing::debug!(%error, "the reserve could not be made");
            let _ = fs::remove_file(&beside);
            return false;
        }
        true
    }

    /// Takes the room without writing, where the file system can do that.
    fn fill(file: &File, size: u64) -> std::io::Result<()> {
        let length = i64::try_from(size).unwrap_or(i64::MAX);
        fallocate(file, FallocateFlags::empty(), 0, length).map_err(Into::into)
    }

    /// The disk was full: nothing new begins any more.
    pub(super) fn fill_up(&self) {
        let Some(dir) = &self.0.dir else { return };
        if self.0.full.swap(true, Ordering::Relaxed) {
            return;
        }
        let (_, all) = free(dir).unwrap_or_default();
        let (reserve, margin) = Self::sizes(all);
        let text = format!(
            "the store is full: no new builds start until {} are free in {}",
            shown(reserve + margin),
            dir.display()
        );
        tracing::error!("{text}");
        if let Some(tell) = &self.0.on_full {
            tell(Some(text));
        }
    }

    /// The disk was full for something that has to go through. True when there
    /// is room for it now: ask again.
    pub(super) fn give_up(&self) -> bool {
        let Some(dir) = &self.0.dir else { return false };
        self.fill_up();
        let _guard = self.0.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = fs::remove_file(dir.join(NAME)).is_ok();
        if gone {
            tracing::warn!("the reserve was given up so that claims and results go through");
        }
        gone
    }

    /// Looks whether there is room again. True when the store is not full.
    pub(super) fn look(&self) -> bool {
        let Some(dir) = &self.0.dir else { return true };
        if !self.is_full() {
            return true;
        }
        let _guard = self.0.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.make_file(dir) {
            return false;
        }
        if self.0.full.swap(false, Ordering::Relaxed) {
            tracing::info!("there is room again: builds start");
            if let Some(tell) = &self.0.on_full {
                tell(None);
            }
        }
        true
    }
}
