//! Log bytes on their way: from the process layer into the journal, from there
//! to the master, and out of it once the master has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::core::ids::{BuildId, CommandId};
use crate::protocol::json_v1::{LogData, STDIO, WorkerFrame};

use super::connection::Link;
use super::journal::{Confirmed, Entry, LogTail, Piece, Running};
use super::{Agent, Effect, KEPT_WHOLE, LOG_FRAMES_IN_FLIGHT, Lane, MAX_CHUNKS};

/// Bytes that have to be confirmed before a long log is looked at again.
const TRIM_STEP: u64 = 4 * 1024 * 1024;

impl Agent {
    pub(super) fn output(
        &mut self,
        build: BuildId,
        command: &CommandId,
        piece: Piece,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.journal.builds.get_mut(&build) else {
            return;
        };
        if entry.ending.is_some() {
            return;
        }
        let Some(running) = entry.command.as_mut().filter(|r| r.id == *command) else {
            return;
        };
        if piece.offset != running.log.end {
            // From before it was told again from another place.
            tracing::debug!(%build, offset = piece.offset, "output out of turn");
            return;
        }
        running.log.push(piece.ch, piece.bytes, piece.at);
        self.allow(build, effects);
        self.pump(effects);
    }

    /// Tells the process layer how far it may read, when that changed.
    pub(super) fn allow(&mut self, build: BuildId, effects: &mut Vec<Effect>) {
        let window = self.window;
        let Some(entry) = self.journal.builds.get_mut(&build) else {
            return;
        };
        if entry.ending.is_some() {
            return;
        }
        let Some(running) = entry.command.as_mut().filter(|running| !running.has_all()) else {
            return;
        };
        let full = running.log.chunks() >= MAX_CHUNKS;
        let up_to = if full { running.log.end } else { running.log.start + window };
        if up_to != running.allowed {
            running.allowed = up_to;
            effects.push(Effect::Allow { build, command: running.id.clone(), up_to });
        }
    }

    pub(super) fn log_written(&mut self, link: u64, effects: &mut Vec<Effect>) {
        if self.is_current(link)
            && let Link::Attached(attached) = &mut self.link
        {
            attached.in_flight = attached.in_flight.saturating_sub(1);
            self.pump(effects);
        }
    }

    pub(super) fn log_confirmed(
        &mut self,
        build: BuildId,
        command: &CommandId,
        log: &str,
        have: u64,
        effects: &mut Vec<Effect>,
    ) {
        if log != STDIO {
            let message = format!("build {build} has no log `{log}`");
            return self.say_error("unexpected", message, effects);
        }
        // Confirmations of an earlier command, or of a build that is gone, may
        // still be on their way: nothing is kept for those.
        let Some(running) = self
            .journal
            .builds
            .get_mut(&build)
            .and_then(|entry| entry.command.as_mut())
            .filter(|running| running.id == *command)
        else {
            return;
        };
        let end = running.log.end;
        match running.log.confirm(have) {
            Confirmed::Fine => {}
            Confirmed::Beyond => {
                let message = format!("`have` {have} is beyond the log's end {end}");
                self.say_error("unexpected", message, effects);
            }
            Confirmed::Gone => self.say_gone(build, have, effects),
        }
        self.trim(build, effects);
        self.allow(build, effects);
        self.pump(effects);
    }

    /// Lets go of what a long log has on the disk and the master has too.
    fn trim(&mut self, build: BuildId, effects: &mut Vec<Effect>) {
        let Some(running) = self.journal.builds.get_mut(&build).and_then(|e| e.command.as_mut())
        else {
            return;
        };
        let confirmed = running.log.start;
        if running.log.end > KEPT_WHOLE && confirmed >= running.first + TRIM_STEP {
            running.first = confirmed;
            effects.push(Effect::Trim { build, command: running.id.clone(), confirmed });
        }
    }

    /// Takes a command's log from the disk again, from `from` on.
    pub(super) fn replay(&mut self, build: BuildId, from: u64, effects: &mut Vec<Effect>) {
        let window = self.window;
        let Some(running) = self.journal.builds.get_mut(&build).and_then(|e| e.command.as_mut())
        else {
            return;
        };
        running.found = false;
        running.finished_said = false;
        running.log = LogTail::from(from);
        running.allowed = from + window;
        let (command, allowed) = (running.id.clone(), running.allowed);
        effects.push(Effect::Replay { build, command, from, allowed });
    }

    /// What the master stored differs from the digest: once it gets all again.
    pub(super) fn log_again(
        &mut self,
        build: BuildId,
        command: &CommandId,
        log: &str,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.journal.builds.get_mut(&build).and_then(|entry| entry.command.as_mut());
        let granted = known.filter(|running| {
            running.id == *command
                && log == STDIO
                && running.ended.is_some()
                && running.first == 0
                && !running.again
        });
        let Some(running) = granted else {
            let message = format!("log `{log}` of command {command} cannot be sent again");
            return self.say_error("unexpected", message, effects);
        };
        tracing::warn!(%build, %command, "the master's log differs: all of it is sent again");
        running.again = true;
        self.replay(build, 0, effects);
        self.pump(effects);
    }

    pub(super) fn say_gone(&mut self, build: BuildId, have: u64, effects: &mut Vec<Effect>) {
        let message =
            format!("log bytes of build {build} from {have} on were confirmed before and are gone");
        self.say_error("unexpected", message, effects);
    }

    /// Gives the writer log frames while it has room, one a build in turn.
    pub(super) fn pump(&mut self, effects: &mut Vec<Effect>) {
        let Link::Attached(attached) = &mut self.link else {
            return;
        };
        let mut idle_turns = 0;
        while attached.in_flight < LOG_FRAMES_IN_FLIGHT && idle_turns <= self.journal.builds.len() {
            let after = (std::ops::Bound::Excluded(self.turn), std::ops::Bound::Unbounded);
            let builds = &mut self.journal.builds;
            let next = builds.range(after).next().or_else(|| builds.iter().next());
            let Some((&build, _)) = next else { return };
            self.turn = build;
            let raw = attached.raw;
            let frame = builds.get_mut(&build).and_then(|entry| next_frame(build, entry, raw));
            let Some(frame) = frame else {
                idle_turns += 1;
                continue;
            };
            idle_turns = 0;
            attached.in_flight += 1;
            effects.push(Effect::Send { link: self.link_number, lane: Lane::Log, frame });
        }
    }
}

/// What `build` has to say next in the log lane. The end of a command goes the
/// same way as its log, so that it cannot come before it.
fn next_frame(build: BuildId, entry: &mut Entry, raw: bool) -> Option<WorkerFrame> {
    if !entry.joined || entry.ending.is_some() {
        return None;
    }
    let running = entry.command.as_mut()?;
    if let Some(piece) = running.log.next() {
        return Some(WorkerFrame::Log(log_frame(build, running, piece, raw)));
    }
    if running.finished_said || !running.has_all() {
        return None;
    }
    let ended = running.ended.as_ref()?;
    running.finished_said = true;
    Some(WorkerFrame::CommandFinished {
        build,
        command: running.id.clone(),
        outcome: ended.outcome.clone(),
        usage: crate::protocol::json_v1::Usage { wall_ms: ended.wall_ms },
        log_digest: ended.log.iter().map(|log| (STDIO.to_owned(), log.digest.clone())).collect(),
        log_end: [(STDIO.to_owned(), running.log.end)].into(),
        properties: ended.properties.clone(),
        note: ended.note.clone(),
    })
}

fn log_frame(build: BuildId, running: &Running, piece: Piece, raw: bool) -> LogData {
    let (text, b64) = match raw {
        true => (None, None),
        false => match std::str::from_utf8(&piece.bytes) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&piece.bytes))),
        },
    };
    LogData {
        build,
        command: running.id.clone(),
        log: STDIO.to_owned(),
        ch: piece.ch,
        offset: piece.offset,
        text,
        b64,
        raw: raw.then_some(piece.bytes.len()),
        body: if raw { piece.bytes } else { Bytes::new() },
        at: piece.at,
    }
}
