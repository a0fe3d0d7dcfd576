//! After a new connection: what the master says of each build of the inventory.

use crate::core::ids::BuildId;
use crate::protocol::json_v1::{Resume, ResumeAction, STDIO};

use super::journal::{Confirmed, Ending};
use super::{Agent, Effect};

impl Agent {
    pub(super) fn resume(&mut self, resume: Resume, effects: &mut Vec<Effect>) {
        let build = resume.build;
        match resume.r#do {
            ResumeAction::Abandon => {
                tracing::info!(%build, "the master abandons the build");
                self.end_build(build, Ending::Abandoned, effects);
            }
            ResumeAction::Continue => {
                if let Err(message) = self.go_on(&resume, effects) {
                    self.say_error("unexpected", message, effects);
                }
                self.say_started(build, effects);
                self.allow(build, effects);
                self.pump(effects);
            }
        }
    }

    fn go_on(&mut self, resume: &Resume, effects: &mut Vec<Effect>) -> Result<(), String> {
        let build: BuildId = resume.build;
        let Some(entry) = self.journal.builds.get_mut(&build) else {
            return Err(format!("build {build} is not here, it cannot go on"));
        };
        if entry.lost || entry.ending.is_some() {
            return Err(format!("build {build} has ended here, it cannot go on"));
        }
        entry.joined = true;
        let Some(running) = entry.command.as_mut() else {
            return Ok(());
        };
        if resume.command.as_ref().is_some_and(|command| *command != running.id) {
            running.log.rewind_to_confirmed();
            return Err(format!("build {build} is at command {}", running.id));
        }
        // The inventory told that it runs; the end is told again in any case.
        running.finished_said = false;
        let unsaid = if running.found { running.first } else { running.log.start };
        let from = resume.log_from.get(STDIO).copied().unwrap_or(unsaid);
        if std::mem::take(&mut running.found) && from >= running.first && from <= running.total {
            // This program has none of it in memory, but all of it on the disk.
            self.replay(build, from, effects);
            return Ok(());
        }
        let end = running.log.end;
        match running.log.rewind(from) {
            Confirmed::Fine => Ok(()),
            Confirmed::Beyond => {
                running.log.rewind_to_confirmed();
                Err(format!("`log_from` {from} is beyond the log's end {end}"))
            }
            Confirmed::Gone => {
                self.say_gone(build, from, effects);
                Ok(())
            }
        }
    }
}
