//! Log bytes on their way: from the process layer into the journal, from there
//! to the master, and out of it once the master has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::core::ids::{BuildId, CommandId};
use crate::protocol::json_v1::{LogData, STDIO, WorkerFrame};

use super::connection::Link;
use super::journal::{Confirmed, Entry, Piece, Running};
use super::{Agent, Effect, LOG_FRAMES_IN_FLIGHT, Lane, MAX_CHUNKS};

impl Agent {
    pub(super) fn output(
        &mut self,
        build: BuildId,
        command: &CommandId,
        ch: char,
        bytes: Bytes,
        at: u64,
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
        running.log.push(ch, bytes, at);
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
        let Some(running) = entry.command.as_mut().filter(|running| running.runs()) else {
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
        self.allow(build, effects);
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
            let frame = builds.get_mut(&build).and_then(|entry| next_frame(build, entry));
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
fn next_frame(build: BuildId, entry: &mut Entry) -> Option<WorkerFrame> {
    if !entry.joined || entry.ending.is_some() {
        return None;
    }
    let running = entry.command.as_mut()?;
    if let Some(piece) = running.log.next() {
        return Some(WorkerFrame::Log(log_frame(build, running, piece)));
    }
    if running.finished_said {
        return None;
    }
    let ended = running.ended.as_ref()?;
    running.finished_said = true;
    Some(WorkerFrame::CommandFinished {
        build,
        command: running.id.clone(),
        outcome: ended.outcome.clone(),
        usage: crate::protocol::json_v1::Usage { wall_ms: ended.wall_ms },
        log_digest: std::collections::BTreeMap::new(),
        log_end: [(STDIO.to_owned(), running.log.end)].into(),
        properties: ended.properties.clone(),
        note: ended.note.clone(),
    })
}

fn log_frame(build: BuildId, running: &Running, piece: Piece) -> LogData {
    let (text, b64) = match std::str::from_utf8(&piece.bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(&piece.bytes))),
    };
    LogData {
        build,
        command: running.id.clone(),
        log: STDIO.to_owned(),
        ch: piece.ch,
        offset: piece.offset,
        text,
        b64,
        at: piece.at,
    }
}
