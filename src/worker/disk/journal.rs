//! A build's journal: what the worker was given, and how its command ended.
//!
//! The journal is lines of JSON, the first about the build, each further one
//! about a command. A line is written before its effect; so a last line that was
//! cut short had none, and is left out.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::core::ids::{BuildId, CommandId};
use crate::faults::crash_point;
use crate::worker::agent::{BuildRecord, Ended};

use super::spool::extent;
use super::{KEEPER_LOCK, OWN_FOLDER, build_folder, command_folder};

/// First line of a journal.
#[derive(Serialize, Deserialize)]
struct FirstLine {
    #[serde(flatten)]
    record: BuildRecord,
    /// The machine's boot in which it was written.
    boot: String,
}

/// Each further line.
#[derive(Serialize, Deserialize)]
struct CommandLine {
    command: CommandId,
    n: u32,
}

/// What is found of a build.
#[derive(Clone, PartialEq, Debug)]
pub struct Begun {
    /// What the worker was given.
    pub record: BuildRecord,
    /// The present command with its number.
    pub command: Option<(CommandId, u32)>,
    /// Those before it.
    pub past: BTreeSet<CommandId>,
    /// Where its output on the disk begins and ends.
    pub extent: (u64, u64),
    /// How it ended.
    pub ended: Option<Ended>,
    /// Its keeper lives.
    pub kept: bool,
}

/// A journal that could not be understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    /// The build's number, as its folder says.
    pub name: String,
    /// Where it was moved.
    pub moved_to: PathBuf,
    /// What is wrong with it.
    pub error: String,
}

/// All journals of one worker.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The worker's folder.
    dir: PathBuf,
    boot: String,
}

impl Shelf {
    /// The journals below the worker's folder `dir`. The folder is made.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn new(dir: &Path, boot: String) -> io::Result<Self> {
        make(&dir.join(OWN_FOLDER).join("builds"))?;
        Ok(Self { dir: dir.to_owned(), boot })
    }

    /// Writes that the worker has this build.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take(&self, record: &BuildRecord) -> io::Result<()> {
        let folder = build_folder(&self.dir, record.build);
        crash_point("worker.journal.before_write");
        // What an earlier attempt left is nothing that anybody was told of.
        remove(&folder)?;
        make(&folder)?;
        let first = FirstLine { record: record.clone(), boot: self.boot.clone() };
        let beside = folder.join("journal.new");
        let mut file = File::create(&beside)?;
        file.write_all(&line(&first)?)?;
        fs::rename(&beside, folder.join("journal"))?;
        crash_point("worker.journal.after_write");
        Ok(())
    }

    /// Writes that the build's `n`-th command begins. What the one before left
    /// is removed: the master has it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(&self, build: BuildId, command: &CommandId, n: u32) -> io::Result<()> {
        let folder = build_folder(&self.dir, build);
        crash_point("worker.command.before_write");
        let place = command_folder(&folder, n);
        remove(&place)?;
        make(&place)?;
        let path = folder.join("journal");
        let mut file = OpenOptions::new().append(true).open(path)?;
        let length = file.metadata()?.len();
        if let Err(error) = file.write_all(&line(&CommandLine { command: command.clone(), n })?) {
            file.set_len(length)?;
            return Err(error);
        }
        crash_point("worker.command.after_write");
        if let Some(before) = n.checked_sub(1) {
            remove(&command_folder(&folder, before))?;
        }
        Ok(())
    }

    /// How the build's `n`-th command ended, if that was written.
    #[must_use]
    pub fn result(&self, build: BuildId, n: u32) -> Option<Ended> {
        read_result(&command_folder(&build_folder(&self.dir, build), n))
    }

    /// Forgets a build.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget(&self, build: BuildId) -> io::Result<()> {
        let folder = build_folder(&self.dir, build);
        crash_point("worker.journal.before_delete");
        // First the journal: half a folder must not be taken for a build.
        match fs::remove_file(folder.join("journal")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        crash_point("worker.journal.after_delete");
        remove(&folder)
    }

    /// Reads all journals. Those that cannot be understood are moved aside.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read_all(&self) -> io::Result<(Vec<Begun>, Vec<Unreadable>)> {
        let (mut all, mut bad) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(self.dir.join(OWN_FOLDER).join("builds"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let folder = entry.path();
            if !folder.join("journal").exists() {
                // It was being written, or forgotten: nobody was told, or everybody.
                take_lock_away(&folder);
                remove(&folder)?;
                continue;
            }
            match self.read(&folder) {
                Ok(begun) if begun.record.build.to_string() == name => all.push(begun),
                Ok(begun) => {
                    let error = format!("it speaks of build {}", begun.record.build);
                    bad.push(self.move_aside(&folder, name, error)?);
                }
                Err(error) => bad.push(self.move_aside(&folder, name, error.to_string())?),
            }
        }
        all.sort_by_key(|begun| begun.record.build);
        Ok((all, bad))
    }

    fn read(&self, folder: &Path) -> io::Result<Begun> {
        let bytes = fs::read(folder.join("journal"))?;
        let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        // What stands after the last line's end was cut short, or is nothing.
        lines.pop();
        let mut lines = lines.into_iter();
        let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)?;
        let FirstLine { record, boot } = serde_json::from_slice(first)?;
        let mut begun = Begun {
            record,
            command: None,
            past: BTreeSet::new(),
            extent: (0, 0),
            ended: None,
            kept: false,
        };
        for line in lines {
            let CommandLine { command, n } = serde_json::from_slice(line)?;
            if let Some((last, _)) = begun.command.replace((command, n)) {
                begun.past.insert(last);
            }
        }
        begun.kept = boot == self.boot && is_kept(folder);
        if !begun.kept {
            take_lock_away(folder);
        }
        if let Some((_, n)) = &begun.command {
            let place = command_folder(folder, *n);
            begun.extent = extent(&place)?;
            begun.ended = read_result(&place);
        }
        Ok(begun)
    }

    fn move_aside(&self, folder: &Path, name: String, error: String) -> io::Result<Unreadable> {
        take_lock_away(folder);
        let aside = self.dir.join(OWN_FOLDER).join("unreadable");
        make(&aside)?;
        let place = (0..)
            .map(|number| aside.join(format!("{name}.{number}")))
            .find(|place| !place.exists())
            .unwrap_or_else(|| aside.join(&name));
        fs::rename(folder, &place)?;
        Ok(Unreadable { name, moved_to: place, error })
    }
}

/// Whether a keeper lives there.
fn is_kept(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(KEEPER_LOCK)) else { return false };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
}

/// A keeper that is only just starting must not begin any more: it looks whether
/// its lock still has a name.
fn take_lock_away(folder: &Path) {
    // Mostly there is none.
    let _ = fs::remove_file(folder.join(KEEPER_LOCK));
}

/// Writes how a command ended.
///
/// # Errors
/// When the disk refuses.
pub(in crate::worker) fn write_result(place: &Path, ended: &Ended) -> io::Result<()> {
    let beside = place.join("result.new");
    File::create(&beside)?.write_all(&line(ended)?)?;
    crash_point("keeper.result.written");
    fs::rename(&beside, place.join("result"))?;
    crash_point("keeper.result.renamed");
    Ok(())
}

/// Waits until the result outlives a crash of the machine.
///
/// # Errors
/// When the disk refuses.
pub(in crate::worker) fn sync_result(place: &Path) -> io::Result<()> {
    File::open(place.join("result"))?.sync_all()?;
    File::open(place)?.sync_all()?;
    let build = place.parent().unwrap_or(place);
    File::open(build.join("journal"))?.sync_all()?;
    File::open(build)?.sync_all()?;
    File::open(build.parent().unwrap_or(build))?.sync_all()
}

fn read_result(place: &Path) -> Option<Ended> {
    serde_json::from_slice(&fs::read(place.join("result")).ok()?).ok()
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Nobody but the worker's user looks into it: commands may hold secrets.
fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names the time since the machine was last started.
#[must_use]
pub fn boot_id() -> String {
    #[cfg(feature = "testing")]
    if let Ok(pretended) = std::env::var("BOTMASTER_PRETENDED_BOOT") {
        return pretended;
    }
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
