//! The execution log: which jobs began and ended on a worker, and when. Written
//! straight through, so that it is complete however the run ends.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The execution log, or nothing when none was asked for.
pub struct ExecLog(Option<File>);

impl ExecLog {
    /// Opens it for appending.
    ///
    /// # Errors
    /// Names the file that cannot be opened.
    pub fn open(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self(None)) };
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(|file| Self(Some(file)))
            .map_err(|error| format!("cannot open the execution log {}: {error}", path.display()))
    }

    /// Appends one line: seconds since 1970, the word, the job's token.
    pub fn record(&self, word: &str, token: &str) {
        let Some(mut file) = self.0.as_ref() else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // One write a line, so that lines of several processes do not mix.
        let line = format!("{:.3} {word} {token}\n", now.as_secs_f64());
        if let Err(error) = file.write_all(line.as_bytes()) {
            eprintln!("cannot write to the execution log: {error}");
        }
    }
}
