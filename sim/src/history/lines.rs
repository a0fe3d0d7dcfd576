//! A history as JSON lines, one thing a line in any order of kinds.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::records::*;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Told(Told),
    Ran(Run),
    Limit(Limit),
    Event(Event),
    Life { first: u64 },
    Request(Request),
    Build(Build),
    Log(Log),
    Instance(InstanceNote),
    Calm,
}

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("the history cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line} of the history: {error}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        error: serde_json::Error,
    },
}

impl History {
    /// Reads JSON lines. Empty lines are skipped.
    ///
    /// # Errors
    /// When the source fails, or a line is no part of a history; the text
    /// names it.
    pub fn read(from: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::default();
        for (place, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let line = serde_json::from_str(&line)
                .map_err(|error| ReadError::Line { line: place + 1, error })?;
            match line {
                Line::Told(told) => history.told.push(told),
                Line::Ran(run) => history.ran.push(run),
                Line::Limit(limit) => history.limits.push(limit),
                Line::Event(event) => history.events.push(event),
                Line::Life { first } => history.lives.push(first),
                Line::Request(request) => drop(history.requests.insert(request.id, request)),
                Line::Build(build) => drop(history.builds.insert(build.id, build)),
                Line::Log(log) => history.logs.push(log),
                Line::Instance(note) => history.instances.push(note),
                Line::Calm => history.calm = true,
            }
        }
        Ok(history)
    }

    /// Writes JSON lines that [`History::read`] reads.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let told = self.told.iter().cloned().map(Line::Told);
        let ran = self.ran.iter().cloned().map(Line::Ran);
        let limits = self.limits.iter().cloned().map(Line::Limit);
        let events = self.events.iter().cloned().map(Line::Event);
        let lives = self.lives.iter().map(|first| Line::Life { first: *first });
        let requests = self.requests.values().cloned().map(Line::Request);
        let builds = self.builds.values().cloned().map(Line::Build);
        let logs = self.logs.iter().cloned().map(Line::Log);
        let instances = self.instances.iter().cloned().map(Line::Instance);
        let calm = self.calm.then_some(Line::Calm);
        let lines = limits.chain(lives).chain(told).chain(ran).chain(events).chain(instances);
        for line in lines.chain(requests).chain(builds).chain(logs).chain(calm) {
            serde_json::to_writer(&mut to, &line)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }
}
