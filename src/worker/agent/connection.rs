//! The connection: dialling, attach, inventory, heartbeats, silence.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::time::Timestamp;
use crate::protocol::json_v1::{
    Attach, Inventory, LOG_BATCH, LOG_RAW, MasterFrame, PROTO, WireError, WorkerFrame,
};

use super::{Agent, Effect, ExitCause, Lane};

/// How long dialling and the answer to `attach` may each take.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Longest wait between two attempts.
const MAX_BACK_OFF_S: u64 = 60;
/// The same while the worker has a build that may still go on.
const MAX_BUILDING_PAUSE: Duration = Duration::from_secs(10);
/// The same while it does not know how long its builds may go on: it found them
/// when it started.
const UNKNOWN_LEASE_PAUSE: Duration = Duration::from_secs(1);
/// So many attempts fit into the shortest lease of its builds, at least.
const ATTEMPTS_IN_LEASE: u32 = 9;
/// A connection that stood this long was a good one: the next attempt after it
/// is made at once.
const GOOD_AFTER: Duration = Duration::from_secs(30);
/// This many heartbeats without any frame end the connection.
const SILENT_BEATS: u32 = 3;
/// Builds in one inventory frame.
const INVENTORY_PART: usize = 100;
/// Heartbeats whose sending times are remembered.
const MAX_BEATS: usize = 64;
/// The largest window that a master can give, in bytes.
const MAX_WINDOW: u64 = 1 << 30;

/// Where the connection stands.
#[derive(Debug)]
pub(super) enum Link {
    /// There is none.
    Away { retry_at: Timestamp },
    /// The socket is being connected.
    Dialling { give_up: Timestamp },
    /// `attach` has been sent.
    Asking { sent: Timestamp, give_up: Timestamp },
    /// The master has accepted.
    Attached(Attached),
}

/// State of an accepted connection.
#[derive(Debug)]
pub(super) struct Attached {
    since: Timestamp,
    /// Between heartbeats while the worker has a build, and while it has none.
    beat: Duration,
    idle_beat: Duration,
    /// What the last one told the master to go by.
    rate: Duration,
    /// When the last ping was answered.
    ponged: Option<Timestamp>,
    next_beat: Timestamp,
    seq: u64,
    /// Heartbeats that wait for their answer, with their sending times.
    beats: VecDeque<(u64, Timestamp)>,
    /// One of them was: the master is well.
    confirmed: bool,
    heard: Timestamp,
    /// The master takes the bytes of a log as they are.
    pub(super) raw: bool,
    /// Log frames given to the writer and not yet written.
    pub(super) in_flight: usize,
}

impl Attached {
    fn silent_at(&self) -> Timestamp {
        self.heard + self.rate * SILENT_BEATS
    }
}

impl Agent {
    pub(super) fn is_current(&self, link: u64) -> bool {
        link == self.link_number && !matches!(self.link, Link::Away { .. })
    }

    pub(super) fn heard(&mut self, now: Timestamp) {
        if let Link::Attached(attached) = &mut self.link {
            attached.heard = now;
        }
    }

    pub(super) fn connected(&mut self, now: Timestamp, link: u64, effects: &mut Vec<Effect>) {
        if !self.is_current(link) {
            return;
        }
        let config = &self.config;
        let attach = Attach {
            proto: vec![PROTO],
            name: config.name.clone(),
            instance: config.instance.clone(),
            token: config.token.clone(),
            version: config.version.clone(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            slots: config.slots,
            caps: Some(config.caps.clone()),
            labels: config.labels.clone(),
            info: config.info.clone(),
            requires: Vec::new(),
            clock: None,
        };
        self.link = Link::Asking { sent: now, give_up: now + HANDSHAKE };
        let frame = WorkerFrame::Attach(attach);
        effects.push(Effect::Send { link, lane: Lane::Control, frame });
    }

    pub(super) fn closed(&mut self, now: Timestamp, link: u64, reason: &str) {
        if self.is_current(link) {
            self.go_away(now, reason);
        }
    }

    /// Closes the present connection from this side.
    pub(super) fn hang_up(&mut self, now: Timestamp, reason: &str, effects: &mut Vec<Effect>) {
        effects.push(Effect::Close { link: self.link_number });
        self.go_away(now, reason);
    }

    fn go_away(&mut self, now: Timestamp, reason: &str) {
        if let Link::Attached(attached) = &self.link {
            if now.since(attached.since) >= GOOD_AFTER {
                self.attempts = 0;
            } else if attached.confirmed {
                self.attempts = self.attempts.min(1);
            }
        }
        let wait = self.back_off();
        tracing::warn!(reason, again_in_s = wait.as_secs_f32(), "no connection to the master");
        self.link = Link::Away { retry_at: now + wait };
        for entry in self.journal.builds.values_mut() {
            entry.joined = false;
        }
    }

    /// At once after a good connection; then from 1 s to 60 s, doubling, with
    /// the upper half of each span left to chance so that the workers of one
    /// master do not come back all together. While there is a build, never so
    /// long that a master which comes back within the lease would not be met
    /// (fault row FM03).
    fn back_off(&mut self) -> Duration {
        let attempt = self.attempts;
        let longest = 2u64.saturating_pow(attempt).min(MAX_BACK_OFF_S) * 1000;
        let most = self.longest_pause().map(|pause| u64::try_from(pause.as_millis()));
        let most = most.and_then(Result::ok).unwrap_or(u64::MAX);
        // The many attempts for a build's sake do not make the pauses after its
        // end longer.
        if attempt == 0 || longest <= most {
            self.attempts = attempt.saturating_add(1);
        }
        if attempt == 0 {
            return Duration::ZERO;
        }
        let longest = longest.min(most);
        let half = usize::try_from(longest / 2).unwrap_or(0);
        Duration::from_millis(longest / 2 + self.rng.index(half + 1) as u64)
    }

    /// The longest pause between two attempts that the builds allow; none when
    /// there is no build that could be saved.
    fn longest_pause(&self) -> Option<Duration> {
        let builds = self.journal.builds.values().filter(|entry| entry.holds_lease());
        let pause = |own_s| match self.lease.lasts(own_s) {
            Some(lease) => (lease / ATTEMPTS_IN_LEASE).min(MAX_BUILDING_PAUSE),
            None if self.lease.known || own_s == Some(0) => MAX_BUILDING_PAUSE,
            None => UNKNOWN_LEASE_PAUSE,
        };
        builds.map(|entry| pause(entry.lease_s)).min()
    }

    /// Does what the clock asks of the connection.
    pub(super) fn connection_due(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.exited {
            return;
        }
        match &mut self.link {
            Link::Away { retry_at } => {
                if now >= *retry_at {
                    self.link_number += 1;
                    self.link = Link::Dialling { give_up: now + HANDSHAKE };
                    effects.push(Effect::Connect { link: self.link_number });
                }
            }
            Link::Dialling { give_up } => {
                if now >= *give_up {
                    self.hang_up(now, "the master cannot be reached in time", effects);
                }
            }
            Link::Asking { give_up, .. } => {
                if now >= *give_up {
                    self.hang_up(now, "the master did not answer `attach` in time", effects);
                }
            }
            Link::Attached(attached) => {
                // The master goes by what the last heartbeat said.
                let living = self.journal.builds.values().any(|entry| !entry.lost);
                if living && attached.rate > attached.beat {
                    attached.next_beat = now;
                }
                if now >= attached.silent_at() {
                    self.hang_up(now, "nothing was heard from the master", effects);
                } else if now >= attached.next_beat {
                    self.beat(now, effects);
                }
            }
        }
    }

    pub(super) fn connection_deadline(&self) -> Option<Timestamp> {
        Some(match &self.link {
            Link::Away { retry_at } => *retry_at,
            Link::Dialling { give_up } | Link::Asking { give_up, .. } => *give_up,
            Link::Attached(attached) => attached.next_beat.min(attached.silent_at()),
        })
    }

    fn beat(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Link::Attached(attached) = &mut self.link else {
            return;
        };
        attached.seq += 1;
        if attached.beats.len() >= MAX_BEATS {
            attached.beats.pop_front();
        }
        attached.beats.push_back((attached.seq, now));
        let seq = attached.seq;
        let living = self.journal.builds.iter().filter(|(_, entry)| !entry.lost);
        let running: Vec<_> = living.map(|(&build, _)| build).collect();
        attached.rate = if running.is_empty() { attached.idle_beat } else { attached.beat };
        attached.next_beat = now + attached.rate;
        self.say(WorkerFrame::Heartbeat { seq, running }, effects);
    }

    pub(super) fn say_error(&self, code: &str, message: String, effects: &mut Vec<Effect>) {
        tracing::warn!(code, message, "the master sent something unfit");
        self.say(WorkerFrame::Error(WireError { code: code.to_owned(), message }), effects);
    }

    pub(super) fn frame(
        &mut self,
        now: Timestamp,
        link: u64,
        frame: MasterFrame,
        effects: &mut Vec<Effect>,
    ) {
        match frame {
            MasterFrame::Attached {
                proto,
                incarnation,
                caps,
                heartbeat_s,
                idle_heartbeat_s,
                lease_s,
                window,
            } => {
                let Link::Asking { sent, .. } = self.link else {
                    return self.say_error("unexpected", "`attached` twice".into(), effects);
                };
                if proto != PROTO {
                    let message = format!("the master chose version {proto}, not {PROTO}");
                    return self
                        .exit(ExitCause::Rejected { code: "version".into(), message }, effects);
                }
                tracing::info!(%incarnation, "attached to the master");
                // Tiny or huge numbers would only make the worker spin or never look.
                let beat = Duration::from_secs(heartbeat_s.clamp(1, 3600));
                let idle_beat = idle_heartbeat_s.unwrap_or(heartbeat_s).clamp(1, 3600);
                self.lease.span = (lease_s > 0).then(|| Duration::from_secs(lease_s));
                self.lease.longer = None;
                self.lease.confirm(sent);
                self.say_leases(effects);
                // Offsets are added to it: no number of a master may make them run over.
                self.window = window.clamp(LOG_BATCH as u64, MAX_WINDOW);
                self.link = Link::Attached(Attached {
                    since: now,
                    beat,
                    idle_beat: Duration::from_secs(idle_beat).max(beat),
                    rate: beat,
                    ponged: None,
                    next_beat: now + beat,
                    seq: 0,
                    beats: VecDeque::new(),
                    confirmed: false,
                    heard: now,
                    raw: caps.iter().any(|ability| ability == LOG_RAW),
                    in_flight: 0,
                });
                self.say_inventory(effects);
                self.say_draining(effects);
            }
            MasterFrame::Rejected { code, message, retry_after_s } => {
                effects.push(Effect::Close { link });
                let Some(seconds) = retry_after_s else {
                    return self.exit(ExitCause::Rejected { code, message }, effects);
                };
                self.go_away(now, &format!("rejected ({code}): {message}"));
                self.link = Link::Away { retry_at: now + Duration::from_secs(seconds) };
            }
            MasterFrame::Error(error) => {
                tracing::warn!(code = error.code, message = error.message, "the master complains");
            }
            other => {
                if !self.is_attached() {
                    let message = format!("`{}` came before `attached`", other.kind());
                    return self.hang_up(now, &message, effects);
                }
                self.attached_frame(now, other, effects);
            }
        }
    }

    fn attached_frame(&mut self, now: Timestamp, frame: MasterFrame, effects: &mut Vec<Effect>) {
        match frame {
            MasterFrame::Ping { id } => {
                if let Link::Attached(attached) = &mut self.link {
                    attached.ponged = Some(now);
                }
                self.say(WorkerFrame::Pong { id }, effects);
            }
            MasterFrame::Heartbeat { seq } => self.beat_confirmed(seq, effects),
            MasterFrame::Lease { lease_s } => {
                // Of two such words the longer one counts.
                let longer = Duration::from_secs(lease_s);
                self.lease.longer = Some(self.lease.longer.unwrap_or_default().max(longer));
                self.say_leases(effects);
            }
            MasterFrame::Drain { reason } => {
                self.drain(format!("the master asked for it: {reason}"), effects);
            }
            MasterFrame::Shutdown { reason } => {
                self.drain(format!("the master shuts this worker down: {reason}"), effects);
            }
            other => {
                if let MasterFrame::StartBuild { .. } = other {
                    self.start_comes(now);
                }
                self.build_frame(other, effects);
            }
        }
    }

    /// A start comes only after the answer to a ping, which the master got: it
    /// stands for a heartbeat that was confirmed, and the rare ones of an idle
    /// worker leave the build its whole lease. From here on they are frequent,
    /// and the first one goes out at once, whatever becomes of the start.
    fn start_comes(&mut self, now: Timestamp) {
        if let Link::Attached(attached) = &mut self.link {
            if attached.rate > attached.beat {
                attached.next_beat = now;
            }
            if let Some(sent) = attached.ponged {
                self.lease.confirm(sent);
            }
        }
    }

    /// The lease runs from when the heartbeat was *sent*: the master counts
    /// from when it came, which is later.
    fn beat_confirmed(&mut self, seq: u64, effects: &mut Vec<Effect>) {
        let Link::Attached(attached) = &mut self.link else {
            return;
        };
        while let Some(&(first, sent)) = attached.beats.front() {
            if first > seq {
                break;
            }
            attached.beats.pop_front();
            if first == seq {
                attached.confirmed = true;
                self.lease.confirm(sent);
                self.say_leases(effects);
                break;
            }
        }
    }

    fn say_inventory(&self, effects: &mut Vec<Effect>) {
        let all: Vec<_> =
            self.journal.builds.iter().map(|(&build, entry)| entry.inventory(build)).collect();
        let mut parts = all.chunks(INVENTORY_PART).peekable();
        if parts.peek().is_none() {
            let none = Inventory { builds: Vec::new(), more: false };
            self.say(WorkerFrame::Inventory(none), effects);
        }
        while let Some(part) = parts.next() {
            let inventory = Inventory { builds: part.to_vec(), more: parts.peek().is_some() };
            self.say(WorkerFrame::Inventory(inventory), effects);
        }
    }
}
