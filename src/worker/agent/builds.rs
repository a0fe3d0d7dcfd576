//! Builders, builds and commands: what the master asks for and what the
//! process layer reports.

use std::time::Duration;

use crate::core::ids::{BuildId, BuilderName, CommandId, Epoch};
use crate::core::planted;
use crate::core::time::Timestamp;
use crate::protocol::json_v1::{BuilderEntry, MasterFrame, Work, WorkerFrame};
use crate::worker::folders;

use super::journal::{Ending, Entry, Running};
use super::{Agent, BuildRecord, Effect, Ended, LEASE, MAX_COMMANDS, MAX_EPOCHS, Served, Trouble};

/// Longest time between TERM and KILL that a master may ask for.
const MAX_GRACE_S: u64 = 3600;

impl Agent {
    pub(super) fn build_frame(&mut self, frame: MasterFrame, effects: &mut Vec<Effect>) {
        match frame {
            MasterFrame::Builders { list } => self.serve(list, effects),
            MasterFrame::StartBuild { build, epoch, requests, builder, builddir, lease_s } => {
                let folder = builddir;
                let record = BuildRecord { build, epoch, requests, builder, folder, lease_s };
                match self.start_build(record, effects) {
                    Ok(true) => {}
                    Ok(false) => self.say(WorkerFrame::BuildAccepted { build, epoch }, effects),
                    Err(trouble) => self.refuse_build(build, epoch, trouble, effects),
                }
            }
            MasterFrame::StartCommand { build, epoch, command, work } => {
                let answer = self.start_command(build, epoch, &command, work, effects);
                if let Err(Trouble { code, message }) = answer {
                    tracing::warn!(%build, %command, code, message, "command refused");
                    let code = code.to_owned();
                    self.say(
                        WorkerFrame::CommandRefused { build, command, code, message },
                        effects,
                    );
                }
            }
            MasterFrame::Interrupt { build, command, grace_s, reason } => {
                let is_current = |running: &Running| running.id == command;
                let known = self.journal.builds.get(&build);
                if known.and_then(|entry| entry.command.as_ref()).is_some_and(is_current) {
                    let grace = Duration::from_secs(grace_s.min(MAX_GRACE_S));
                    self.kill(build, grace, &reason, effects);
                }
            }
            MasterFrame::BuildFinished { build, result } => {
                tracing::info!(%build, result, "build finished");
                self.end_build(build, Ending::Released, effects);
            }
            MasterFrame::Resume(resume) => self.resume(resume, effects),
            MasterFrame::LogAgain { build, command, log } => {
                self.log_again(build, &command, &log, effects);
            }
            MasterFrame::LogConfirm { build, command, log, have } => {
                self.log_confirmed(build, &command, &log, have, effects);
            }
            other => {
                let message = format!("`{}` does not belong here", other.kind());
                self.say_error("unexpected", message, effects);
            }
        }
    }

    fn refuse_build(
        &mut self,
        build: BuildId,
        epoch: Epoch,
        Trouble { code, message }: Trouble,
        effects: &mut Vec<Effect>,
    ) {
        tracing::warn!(%build, code, message, "start refused");
        let code = code.to_owned();
        self.say(WorkerFrame::Refused { build, epoch, code, message }, effects);
    }

    /// Written down or not: only now the master may hear of it.
    pub(super) fn taken(
        &mut self,
        build: BuildId,
        result: Result<(), Trouble>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.journal.builds.get(&build) else { return };
        let epoch = entry.epoch;
        match result {
            Ok(()) => self.say(WorkerFrame::BuildAccepted { build, epoch }, effects),
            Err(trouble) => {
                self.journal.builds.remove(&build);
                effects.push(Effect::Forget { build });
                self.refuse_build(build, epoch, trouble, effects);
            }
        }
    }

    fn serve(&mut self, list: Vec<BuilderEntry>, effects: &mut Vec<Effect>) {
        let before = std::mem::take(&mut self.builders);
        for BuilderEntry { builder, builddir } in list {
            if let Err(message) = folders::check_builddir(&builddir) {
                let code = "bad_args".to_owned();
                let message = format!("folder of builder `{builder}`: {message}");
                self.say(WorkerFrame::BuilderFailed { builder, code, message }, effects);
                continue;
            }
            // The list is sent again: starts for those that are ready go on.
            let known = before.get(&builder).filter(|old| old.builddir == builddir);
            let ready = known.is_some_and(|old| old.ready);
            let served = Served { builddir: builddir.clone(), ready };
            self.builders.insert(builder.clone(), served);
            effects.push(Effect::MakeFolder { builder, builddir });
        }
    }

    pub(super) fn folder_made(
        &mut self,
        builder: &BuilderName,
        result: Result<(), Trouble>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(served) = self.builders.get_mut(builder) else {
            return;
        };
        let builder = builder.clone();
        match result {
            Ok(()) => {
                served.ready = true;
                self.say(WorkerFrame::BuilderReady { builder }, effects);
            }
            Err(Trouble { code, message }) => {
                tracing::warn!(%builder, code, message, "cannot build for this builder");
                let code = code.to_owned();
                self.say(WorkerFrame::BuilderFailed { builder, code, message }, effects);
            }
        }
    }

    /// Answers with whether it is new, and has to be written down first.
    fn start_build(
        &mut self,
        mut record: BuildRecord,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Trouble> {
        let BuildRecord { build, epoch, .. } = record;
        let builder = record.builder.clone();
        let refuse = |code, message: String| Err(Trouble { code, message });
        if let Some(entry) = self.journal.builds.get(&build) {
            return if entry.epoch == epoch && entry.ending.is_none() && !entry.lost {
                Ok(false)
            } else {
                refuse("stale", format!("build {build} is here with epoch {}", entry.epoch))
            };
        }
        for (request, epoch) in &record.requests {
            if let Some(seen) = self.epochs.get(request).filter(|seen| *seen > epoch) {
                let message = format!("request {request} was seen here with epoch {seen}");
                return refuse("stale", message);
            }
        }
        if self.draining.is_some() {
            return refuse("draining", "this worker leaves once its builds have ended".into());
        }
        if !self.builders.get(&builder).is_some_and(|served| served.ready) {
            return refuse("unknown_builder", format!("builder `{builder}` is not ready here"));
        }
        if let Err(message) = folders::check_builddir(&record.folder) {
            return refuse("bad_args", format!("folder of builder `{builder}`: {message}"));
        }
        let used = self.journal.builds.len();
        if used >= self.config.slots as usize {
            return refuse("busy", format!("all {} slots are taken", self.config.slots));
        }
        if self.lease.out {
            return refuse("lease", "no heartbeat has been confirmed for the lease's time".into());
        }
        for &(request, epoch) in &record.requests {
            self.epochs.insert(request, epoch);
        }
        while self.epochs.len() > MAX_EPOCHS {
            self.epochs.pop_first();
        }
        record.folder = self.free_folder(&builder, &record.folder);
        tracing::info!(%build, %builder, folder = record.folder, "build taken");
        let entry = Entry {
            epoch,
            builder,
            folder: record.folder.clone(),
            joined: true,
            lost: false,
            lease_s: record.lease_s,
            lease_out: false,
            ending: None,
            command: None,
            past: std::collections::BTreeSet::new(),
        };
        self.journal.builds.insert(build, entry);
        let until = self.lease.ends(record.lease_s);
        effects.push(Effect::Take { record });
        effects.push(Effect::Lease { build, until });
        Ok(true)
    }

    /// The builder's folder; for builds side by side `-2`, `-3`, … is added.
    /// A folder that another builder has for its own is passed over.
    fn free_folder(&self, builder: &BuilderName, builddir: &str) -> String {
        let used = self.used_folders();
        let others: Vec<&str> = self
            .builders
            .iter()
            .filter(|(name, _)| *name != builder)
            .map(|(_, served)| served.builddir.as_str())
            .collect();
        let numbered = (2u32..).map(|number| format!("{builddir}-{number}"));
        std::iter::once(builddir.to_owned())
            .chain(numbered.filter(|folder| !others.contains(&folder.as_str())))
            .find(|folder| !used.contains(folder.as_str()))
            .unwrap_or_else(|| builddir.to_owned())
    }

    fn start_command(
        &mut self,
        build: BuildId,
        epoch: Epoch,
        command: &CommandId,
        work: Work,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Trouble> {
        let refuse = |code, message: String| Err(Trouble { code, message });
        let window = self.window;
        let live =
            |entry: &&mut Entry| entry.epoch == epoch && entry.ending.is_none() && !entry.lost;
        let Some(entry) = self.journal.builds.get_mut(&build).filter(live) else {
            return refuse("unknown_build", format!("build {build} of epoch {epoch} is not here"));
        };
        if let Some(known) = entry.command.as_mut().filter(|known| known.id == *command) {
            // Told again: so is the answer, and nothing else happens.
            known.started_said = false;
            known.finished_said = false;
            if !entry.joined {
                known.log.rewind_to_confirmed();
                entry.joined = true;
                if known.found {
                    let first = known.first;
                    self.replay(build, first, effects);
                }
            }
            self.say_started(build, effects);
            self.pump(effects);
            return Ok(());
        }
        if let Some(other) = entry.command.as_ref().filter(|other| other.runs()) {
            return refuse("busy", format!("command {} still runs", other.id));
        }
        if entry.past.contains(command) {
            return refuse("stale", format!("command {command} ended before another one"));
        }
        if entry.past.len() >= MAX_COMMANDS {
            return refuse("bad_args", format!("a build has at most {MAX_COMMANDS} commands"));
        }
        if let Err(message) = folders::check_work(&work) {
            return refuse("bad_args", message);
        }
        // A master gives the next command only once it has the last one's end.
        if let Some(last) = entry.command.replace(Running::new(command.clone(), window)) {
            entry.past.insert(last.id);
        }
        entry.joined = true;
        let (folder, lease_s) = (entry.folder.clone(), entry.lease_s);
        // After its lease a build has a new one if the master goes on with it.
        let renewed = std::mem::take(&mut entry.lease_out);
        let command = command.clone();
        effects.push(Effect::Run { build, command, folder, work, allowed: window });
        if renewed {
            effects.push(Effect::Lease { build, until: self.lease.ends(lease_s) });
        }
        Ok(())
    }

    fn running(&mut self, build: BuildId, command: &CommandId) -> Option<&mut Running> {
        let entry = self.journal.builds.get_mut(&build)?;
        entry.command.as_mut().filter(|running| running.id == *command)
    }

    pub(super) fn started(
        &mut self,
        build: BuildId,
        command: &CommandId,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(running) = self.running(build, command) {
            running.started = true;
            self.say_started(build, effects);
        }
    }

    /// Says `command_started` when it is due and somebody listens.
    pub(super) fn say_started(&mut self, build: BuildId, effects: &mut Vec<Effect>) {
        let attached = self.is_attached();
        let Some(entry) = self.journal.builds.get_mut(&build) else {
            return;
        };
        let listens = attached && entry.joined && entry.ending.is_none();
        let Some(running) = entry.command.as_mut() else {
            return;
        };
        if listens && running.started && !running.started_said {
            running.started_said = true;
            let command = running.id.clone();
            self.say(WorkerFrame::CommandStarted { build, command }, effects);
        }
    }

    pub(super) fn ended(
        &mut self,
        build: BuildId,
        command: &CommandId,
        ended: Ended,
        effects: &mut Vec<Effect>,
    ) {
        let Some(running) = self.running(build, command) else {
            return;
        };
        if running.ended.is_some() {
            // It was replayed.
            return self.pump(effects);
        }
        tracing::info!(%build, %command, outcome = ?ended.outcome, "command ended");
        // Even what could not begin was begun with, for the master's books.
        running.started = true;
        running.total = ended.log.as_ref().map_or(running.log.end, |log| log.end);
        running.ended = Some(ended);
        let known = self.journal.builds.get(&build);
        if known.is_some_and(|entry| entry.ending.is_some() || entry.lease_out) {
            effects.push(Effect::Sweep { build });
        }
        self.say_started(build, effects);
        self.pump(effects);
    }

    /// Ends the command that `build` runs, if any. For a command that is being
    /// ended already only a shorter grace changes anything.
    fn kill(&mut self, build: BuildId, grace: Duration, reason: &str, effects: &mut Vec<Effect>) {
        let Some(entry) = self.journal.builds.get(&build) else { return };
        let Some(running) = entry.command.as_ref().filter(|running| running.runs()) else {
            return;
        };
        let (command, reason) = (running.id.clone(), reason.to_owned());
        effects.push(Effect::Kill { build, command, grace, reason });
    }

    /// Fault row FR13: the master may give these builds to others soon.
    pub(super) fn end_builds_for_lease(&mut self, builds: &[BuildId], effects: &mut Vec<Effect>) {
        for &build in builds {
            let Some(entry) = self.journal.builds.get_mut(&build) else {
                continue;
            };
            entry.lease_out = true;
            if planted::is("lease_not_kept") {
                continue;
            }
            tracing::warn!(%build, "the lease ran out: the build is ended");
            match &entry.command {
                Some(running) if running.runs() => {
                    self.kill(build, self.config.kill_time, LEASE, effects);
                }
                ran => {
                    entry.lost = ran.is_none();
                    effects.push(Effect::Sweep { build });
                }
            }
        }
    }

    /// Ends what `build` runs and forgets it after that.
    pub(super) fn end_build(&mut self, build: BuildId, how: Ending, effects: &mut Vec<Effect>) {
        let Some(entry) = self.journal.builds.get_mut(&build) else {
            if how == Ending::Abandoned {
                self.say(WorkerFrame::Abandoned { build }, effects);
            }
            return;
        };
        let nothing_runs = !entry.runs();
        if nothing_runs && how == Ending::Released {
            // What it left behind goes, and nobody has to wait for that.
            self.journal.builds.remove(&build);
            effects.push(Effect::Sweep { build });
            effects.push(Effect::Forget { build });
            return;
        }
        if entry.ending.replace(how).is_some() {
            return;
        }
        if nothing_runs {
            effects.push(Effect::Sweep { build });
            return;
        }
        let word =
            if how == Ending::Abandoned { "abandoned by the master" } else { "build finished" };
        self.kill(build, self.config.kill_time, word, effects);
        // Its output interests nobody any more: let all of it through.
        if let Some(command) = self.journal.builds.get(&build).and_then(|e| e.command.as_ref()) {
            let command = command.id.clone();
            effects.push(Effect::Allow { build, command, up_to: u64::MAX });
        }
    }

    pub(super) fn swept(&mut self, build: BuildId, effects: &mut Vec<Effect>) {
        let Some(ending) = self.journal.builds.get(&build).and_then(|entry| entry.ending) else {
            return;
        };
        self.journal.builds.remove(&build);
        effects.push(Effect::Forget { build });
        if ending == Ending::Abandoned {
            self.say(WorkerFrame::Abandoned { build }, effects);
        }
    }
    /// The processes are gone without a result: the build's keeper was killed. The
    /// inventory is where the master hears of it, so a new one is said.
    pub(super) fn lost(&mut self, now: Timestamp, build: BuildId, effects: &mut Vec<Effect>) {
        let Some(entry) = self.journal.builds.get_mut(&build) else { return };
        if entry.ending.is_some() {
            return self.swept(build, effects);
        }
        if entry.lost || !entry.runs() {
            return;
        }
        tracing::warn!(%build, "the build's processes are gone");
        entry.lost = true;
        if self.is_attached() {
            self.hang_up(now, "a build was lost, which a new inventory tells", effects);
        }
    }
}
