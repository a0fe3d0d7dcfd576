//! What outlives a played worker program: its journal, and what its builds'
//! keepers wrote and hold.

use std::collections::{BTreeMap, BTreeSet};

use botmaster::core::ids::{BuildId, CommandId, Epoch, RequestId};
use botmaster::core::time::Timestamp;
use botmaster::worker::agent::{BuildRecord, Ended, Restored, RestoredCommand};

/// A played worker's disk.
#[derive(Debug, Default)]
pub struct Disk {
    builds: BTreeMap<BuildId, Kept>,
    /// Highest epoch seen of each request.
    pub epochs: BTreeMap<RequestId, Epoch>,
}

#[derive(Debug)]
struct Kept {
    record: BuildRecord,
    lease: Option<Timestamp>,
    command: Option<Command>,
    past: BTreeSet<CommandId>,
}

/// The present command of a build.
#[derive(Debug)]
struct Command {
    id: CommandId,
    written: u64,
    ended: Option<Ended>,
}

impl Disk {
    /// Writes down a build.
    pub fn take(&mut self, record: BuildRecord) {
        for &(request, epoch) in &record.requests {
            let seen = self.epochs.entry(request).or_insert(epoch);
            *seen = epoch.max(*seen);
        }
        let build = record.build;
        let kept = Kept { record, lease: None, command: None, past: BTreeSet::new() };
        self.builds.insert(build, kept);
    }

    /// Writes down that a command begins.
    pub fn begin(&mut self, build: BuildId, id: CommandId) {
        if let Some(kept) = self.builds.get_mut(&build)
            && let Some(last) = kept.command.replace(Command { id, written: 0, ended: None })
        {
            kept.past.insert(last.id);
        }
    }

    fn command(&mut self, build: BuildId, id: &CommandId) -> Option<&mut Command> {
        self.builds.get_mut(&build)?.command.as_mut().filter(|command| command.id == *id)
    }

    /// Notes how much a command has written.
    pub fn wrote(&mut self, build: BuildId, id: &CommandId, written: u64) {
        if let Some(command) = self.command(build, id) {
            command.written = written;
        }
    }

    /// Notes how a command ended.
    pub fn ended(&mut self, build: BuildId, id: &CommandId, ended: Ended) {
        if let Some(command) = self.command(build, id) {
            command.ended = Some(ended);
        }
    }

    /// How much a command has written, and how it ended.
    pub fn state(&mut self, build: BuildId, id: &CommandId) -> Option<(u64, Option<Ended>)> {
        self.command(build, id).map(|command| (command.written, command.ended.clone()))
    }

    /// Notes how long a build may go on.
    pub fn lease(&mut self, build: BuildId, until: Option<Timestamp>) {
        if let Some(kept) = self.builds.get_mut(&build) {
            kept.lease = until;
        }
    }

    /// Until when a build may go on.
    pub fn lease_of(&self, build: BuildId) -> Option<Timestamp> {
        self.builds.get(&build)?.lease
    }

    /// Forgets a build.
    pub fn forget(&mut self, build: BuildId) {
        self.builds.remove(&build);
    }

    /// What a program that starts now finds.
    pub fn found(&self, lives: impl Fn(BuildId, &CommandId) -> bool) -> Vec<Restored> {
        let restored = |(build, kept): (&BuildId, &Kept)| {
            let command = kept.command.as_ref();
            let gone = |one: &Command| one.ended.is_none() && !lives(*build, &one.id);
            Restored {
                record: kept.record.clone(),
                lost: command.is_some_and(gone),
                command: command.map(|one| RestoredCommand {
                    id: one.id.clone(),
                    extent: (0, one.written),
                    ended: one.ended.clone(),
                }),
                past: kept.past.clone(),
            }
        };
        self.builds.iter().map(restored).collect()
    }
}
