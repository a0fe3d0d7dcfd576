//! The highest epoch seen of each request (fault row FB05): a file that grows by
//! a line for each, and is written anew when it has become long.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::core::ids::{Epoch, RequestId};

/// Lines after which the file is written anew.
const MOST_LINES: usize = 20_000;

/// The file.
#[derive(Debug)]
pub struct Epochs {
    path: PathBuf,
    file: File,
    lines: usize,
}

impl Epochs {
    /// Opens the file in `folder` and reads it. Of a line that was cut short, or
    /// says nothing sensible, nothing is taken.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(folder: &Path, most: usize) -> io::Result<(Self, BTreeMap<RequestId, Epoch>)> {
        let path = folder.join("epochs");
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut seen: BTreeMap<RequestId, Epoch> = BTreeMap::new();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let numbers = line.split_once(' ').and_then(|(request, epoch)| {
                Some((RequestId(request.parse().ok()?), Epoch(epoch.parse().ok()?)))
            });
            if let Some((request, epoch)) = numbers {
                let highest = seen.entry(request).or_insert(epoch);
                *highest = epoch.max(*highest);
            }
        }
        while seen.len() > most {
            seen.pop_first();
        }
        let file = write(&path, &seen)?;
        Ok((Self { path, file, lines: seen.len() }, seen))
    }

    /// Adds what `seen` has for `requests`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn add(
        &mut self,
        requests: &[(RequestId, Epoch)],
        seen: &BTreeMap<RequestId, Epoch>,
    ) -> io::Result<()> {
        self.lines += requests.len();
        if self.lines > MOST_LINES {
            self.file = write(&self.path, seen)?;
            self.lines = seen.len();
            return Ok(());
        }
        self.file.write_all(text(requests.iter().copied()).as_bytes())
    }
}

fn text(all: impl Iterator<Item = (RequestId, Epoch)>) -> String {
    all.map(|(request, epoch)| format!("{} {}\n", request.0, epoch.0)).collect()
}

fn write(path: &Path, seen: &BTreeMap<RequestId, Epoch>) -> io::Result<File> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().append(true).create(true).open(&beside)?;
    file.set_len(0)?;
    file.write_all(text(seen.iter().map(|(&request, &epoch)| (request, epoch))).as_bytes())?;
    file.sync_data()?;
    fs::rename(&beside, path)?;
    Ok(file)
}
