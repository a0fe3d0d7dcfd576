//! What is kept of each instance beside the store: one small folder, made
//! before the process is started and gone after it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::core::ids::{InstanceTag, WorkerName};

/// One instance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub tag: InstanceTag,
    pub worker: WorkerName,
    /// None until the process was started; a master that is killed in between
    /// finds the process by its tag.
    pub process: Option<Process>,
}

/// Names a process for good.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Process {
    pub pid: i32,
    /// When it started, in ticks since the machine did.
    pub start: u64,
    /// This run of the machine.
    pub boot: String,
}

/// All records.
#[derive(Clone, Debug)]
pub(super) struct Records(pub PathBuf);

impl Records {
    fn folder(&self, tag: &InstanceTag) -> PathBuf {
        self.0.join(tag.as_str())
    }

    /// Keeps a record, durably.
    pub(super) fn keep(&self, record: &Record) -> io::Result<()> {
        let folder = self.folder(&record.tag);
        fs::create_dir_all(&folder)?;
        let beside = folder.join("record.new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        fs::rename(&beside, folder.join("record.json"))?;
        sync(&folder)?;
        sync(&self.0)
    }

    pub(super) fn read(&self, tag: &InstanceTag) -> io::Result<Option<Record>> {
        match fs::read(self.folder(tag).join("record.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All instances that there may be. A folder whose record cannot be read
    /// counts: its process is found by its tag.
    pub(super) fn tags(&self) -> io::Result<Vec<InstanceTag>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut tags = Vec::new();
        for entry in entries {
            let tag = InstanceTag::from(entry?.file_name().to_string_lossy().as_ref());
            if tag.worker().is_some() {
                tags.push(tag);
            }
        }
        Ok(tags)
    }

    pub(super) fn forget(&self, tag: &InstanceTag) -> io::Result<()> {
        match fs::remove_dir_all(self.folder(tag)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
