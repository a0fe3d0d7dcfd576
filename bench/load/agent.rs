//! What a worker of the load process decides: a plain state machine that is fed
//! frames and the time, and says what to send and to record.
//!
//! Deliberately absent: sockets and clocks (see `link`), processes. Times are
//! counted from the start of the process.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use botmaster::core::ids::{BuildId, BuilderName, CommandId, Epoch, RequestId, WorkerName};
use botmaster::protocol::json_v1::{
    Attach, Inventory, InventoryItem, InventoryState, LOG_BATCH, LOG_RAW, LogData, MasterFrame,
    Outcome, PROTO, Resume, ResumeAction, STDIO, Usage, Work, WorkerFrame,
};

use bytes::Bytes;

use super::text::Text;

/// How long the answer to the attach may take.
const ATTACH_LIMIT: Duration = Duration::from_secs(15);

/// How many heartbeats without any frame mean that the master is gone.
const SILENT_HEARTBEATS: u32 = 3;

/// Heartbeats whose answers are waited for; older ones are forgotten.
const HEARTBEATS_KEPT: usize = 8;

/// What is to be done.
#[derive(Default, Debug)]
pub struct Effects {
    /// Frames to send, in order.
    pub frames: Vec<WorkerFrame>,
    /// Lines for the execution log: the word and the job's token.
    pub records: Vec<(&'static str, String)>,
    /// Something for people.
    pub note: Option<String>,
    /// The connection is to be closed.
    pub close: Option<Close>,
}

/// What follows the end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Close {
    /// Come again, after this long at least.
    Retry(Duration),
    /// Never come again.
    Stop(String),
}

/// One worker.
pub struct Agent {
    name: WorkerName,
    token: String,
    instance: String,
    builds: BTreeMap<BuildId, Build>,
    link: Link,
    leaving: bool,
    /// How long a build may go on without a confirmed heartbeat, and since when
    /// that is counted: the moment the last confirmed one was sent.
    lease: Duration,
    confirmed: Duration,
    writing: Writing,
}

/// What `bench-log` writes, and how.
struct Writing {
    text: Rc<Text>,
    /// Bytes of a log that may be on their way without a confirmation.
    window: u64,
    /// The master takes the bytes of a log as they are.
    raw: bool,
}

enum Link {
    Away,
    Attaching { since: Duration },
    Attached(Attached),
}

struct Attached {
    /// Between two heartbeats with a build, and without one.
    beat: Duration,
    idle_beat: Duration,
    /// Which of the two the last one promised.
    rate: Duration,
    next: Duration,
    seq: u64,
    /// Those whose answers have not come, and when each went out.
    sent: VecDeque<(u64, Duration)>,
    heard: Duration,
    /// When the last ping was answered.
    ponged: Option<Duration>,
}

struct Build {
    epoch: Epoch,
    builder: BuilderName,
    /// The oldest of its requests.
    request: Option<RequestId>,
    command: Option<(CommandId, Command)>,
}

enum Command {
    Running { until: Duration, token: String },
    Writing { since: Duration, sent: u64, confirmed: u64 },
    Finished { outcome: Outcome, log_end: u64, digest: Option<String> },
}

impl Command {
    /// One that has written nothing.
    fn ended(outcome: Outcome) -> Self {
        Self::Finished { outcome, log_end: 0, digest: None }
    }
}

impl Agent {
    /// A worker that has never attached. `instance` names this process; `text`
    /// is what `bench-log` writes.
    #[must_use]
    pub fn new(name: &str, token: String, instance: String, text: Rc<Text>) -> Self {
        Self {
            name: name.into(),
            token,
            instance,
            builds: BTreeMap::new(),
            link: Link::Away,
            leaving: false,
            lease: Duration::MAX,
            confirmed: Duration::ZERO,
            writing: Writing { text, window: 0, raw: false },
        }
    }

    /// A connection is there: says the first frame.
    pub fn connected(&mut self, now: Duration, effects: &mut Effects) {
        self.link = Link::Attaching { since: now };
        effects.frames.push(WorkerFrame::Attach(Attach {
            proto: vec![PROTO],
            name: self.name.clone(),
            instance: self.instance.clone(),
            token: self.token.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            slots: 1,
            caps: Some(["shell/1", "git/1", "resume/1"].map(str::to_owned).to_vec()),
            labels: BTreeMap::new(),
            info: BTreeMap::new(),
            requires: Vec::new(),
            clock: None,
        }));
    }

    /// The connection is gone; builds go on.
    pub fn disconnected(&mut self) {
        self.link = Link::Away;
    }

    /// Whether the master has accepted this connection.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        matches!(self.link, Link::Attached(_))
    }

    /// When [`Agent::on_time`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let link = match &self.link {
            Link::Away => None,
            Link::Attaching { since } => Some(*since + ATTACH_LIMIT),
            Link::Attached(attached) => {
                Some(attached.next.min(attached.heard + attached.rate * SILENT_HEARTBEATS))
            }
        };
        let running = self.builds.values().filter_map(Build::until);
        let any = self.builds.values().find(|build| build.is_running());
        let lease = any.map(|_| self.confirmed.saturating_add(self.lease));
        link.into_iter().chain(running).chain(lease).min()
    }

    /// Does what the time has come for.
    pub fn on_time(&mut self, now: Duration, effects: &mut Effects) {
        for (id, build) in &mut self.builds {
            build.finish_if_due(*id, now, effects);
        }
        if now >= self.confirmed.saturating_add(self.lease) {
            for (id, build) in &mut self.builds {
                build.end(*id, Outcome::Killed("lease".to_owned()), effects);
            }
        }
        let running = self.builds.keys().copied().collect();
        match &mut self.link {
            Link::Away => {}
            Link::Attaching { since } => {
                if now >= *since + ATTACH_LIMIT {
                    effects.close = Some(Close::Retry(Duration::ZERO));
                }
            }
            Link::Attached(attached) => {
                if now >= attached.heard + attached.rate * SILENT_HEARTBEATS {
                    effects.close = Some(Close::Retry(Duration::ZERO));
                } else if now >= attached.next {
                    effects.frames.push(attached.heartbeat(now, running));
                }
            }
        }
    }

    /// Does what the master says.
    pub fn on_frame(&mut self, now: Duration, frame: MasterFrame, effects: &mut Effects) {
        if let Link::Attached(attached) = &mut self.link {
            attached.heard = now;
        }
        match frame {
            MasterFrame::Attached {
                heartbeat_s, idle_heartbeat_s, lease_s, window, caps, ..
            } => {
                self.writing.raw = caps.iter().any(|ability| ability == LOG_RAW);
                // A window smaller than a piece would never open.
                self.writing.window = window.max(LOG_BATCH as u64);
                self.lease = Duration::from_secs(lease_s);
                let idle = idle_heartbeat_s.unwrap_or(heartbeat_s);
                self.on_attached(now, heartbeat_s, idle, effects);
            }
            MasterFrame::Rejected { code, message, retry_after_s } => {
                effects.close = Some(match retry_after_s {
                    Some(seconds) => Close::Retry(Duration::from_secs(seconds)),
                    None => Close::Stop(format!("rejected: {code}: {message}")),
                });
            }
            MasterFrame::Resume(resume) => self.on_resume(now, &resume, effects),
            MasterFrame::Builders { list } => {
                effects.frames.extend(
                    list.into_iter()
                        .map(|entry| WorkerFrame::BuilderReady { builder: entry.builder }),
                );
            }
            MasterFrame::Ping { id } => {
                if let Link::Attached(attached) = &mut self.link {
                    attached.ponged = Some(now);
                }
                effects.frames.push(WorkerFrame::Pong { id });
            }
            MasterFrame::Heartbeat { seq } => self.on_heartbeat(seq),
            MasterFrame::StartBuild { build, epoch, builder, requests, .. } => {
                self.start_comes(now);
                let request = requests.iter().map(|(request, _)| *request).min();
                let new = Build { epoch, builder, request, command: None };
                self.on_start_build(build, new, effects);
            }
            MasterFrame::StartCommand { build, command, work, .. } => {
                self.on_start_command(now, build, command, &work, effects);
            }
            MasterFrame::LogConfirm { build, have, .. } => {
                if let Some(found) = self.builds.get_mut(&build) {
                    found.on_confirmed(have);
                    found.write(build, now, &self.writing, effects);
                }
            }
            // The text is what it is: sent again, it would differ again.
            MasterFrame::LogAgain { .. } | MasterFrame::Lease { .. } => {}
            MasterFrame::Interrupt { build, reason, .. } => {
                if let Some(found) = self.builds.get_mut(&build) {
                    found.end(build, Outcome::Killed(reason), effects);
                }
            }
            MasterFrame::BuildFinished { build, .. } => {
                self.builds.remove(&build);
                self.leave_if_done(effects);
            }
            MasterFrame::Drain { reason } | MasterFrame::Shutdown { reason } => {
                self.leaving = true;
                effects.frames.push(WorkerFrame::Draining { message: reason });
                self.leave_if_done(effects);
            }
            MasterFrame::Error(error) => {
                effects.note = Some(format!("the master says: {}: {}", error.code, error.message));
            }
        }
    }

    fn on_attached(&mut self, now: Duration, beat: u64, idle: u64, effects: &mut Effects) {
        let Link::Attaching { since } = self.link else { return };
        let beat = Duration::from_secs(beat.max(1));
        // The attach is answered, so it counts as a confirmed sign of life.
        self.confirmed = since;
        self.link = Link::Attached(Attached {
            beat,
            idle_beat: Duration::from_secs(idle).max(beat),
            rate: beat,
            next: now + beat,
            seq: 0,
            sent: VecDeque::new(),
            heard: now,
            ponged: None,
        });
        let builds = self.builds.iter().map(|(id, build)| build.inventory(*id)).collect();
        effects.frames.push(WorkerFrame::Inventory(Inventory { builds, more: false }));
    }

    /// A build begins: from here on heartbeats are frequent, and the answer to
    /// the ping before it stands for one that was confirmed.
    fn start_comes(&mut self, now: Duration) {
        let Link::Attached(attached) = &mut self.link else { return };
        if attached.rate > attached.beat {
            attached.next = now;
        }
        self.confirmed = attached.ponged.unwrap_or_default().max(self.confirmed);
    }

    fn on_heartbeat(&mut self, seq: u64) {
        let Link::Attached(Attached { sent, .. }) = &mut self.link else { return };
        while let Some((oldest, at)) = sent.front().copied() {
            if oldest > seq {
                break;
            }
            self.confirmed = at;
            sent.pop_front();
        }
    }

    fn on_resume(&mut self, now: Duration, resume: &Resume, effects: &mut Effects) {
        match resume.r#do {
            ResumeAction::Continue => {
                if let Some(build) = self.builds.get_mut(&resume.build) {
                    let from = resume.log_from.get(STDIO).copied();
                    build.write_from(from, &self.writing.text, now);
                    build.write(resume.build, now, &self.writing, effects);
                    build.say_again(resume.build, effects);
                }
            }
            ResumeAction::Abandon => {
                if let Some(Build { command: Some((_, Command::Running { token, .. })), .. }) =
                    self.builds.remove(&resume.build)
                {
                    effects.records.push(("interrupt", token));
                }
                effects.frames.push(WorkerFrame::Abandoned { build: resume.build });
            }
        }
    }

    fn on_start_build(&mut self, build: BuildId, new: Build, effects: &mut Effects) {
        let epoch = new.epoch;
        let known = self.builds.contains_key(&build);
        let refusal = match (known, self.leaving, self.builds.is_empty()) {
            (true, _, _) | (false, false, true) => None,
            (false, true, _) => Some("draining"),
            (false, false, false) => Some("busy"),
        };
        if let Some(code) = refusal {
            let message = "this worker takes one build at a time".to_owned();
            effects.frames.push(WorkerFrame::Refused { build, epoch, code: code.into(), message });
            return;
        }
        self.builds.entry(build).or_insert(new);
        effects.frames.push(WorkerFrame::BuildAccepted { build, epoch });
    }

    fn on_start_command(
        &mut self,
        now: Duration,
        build: BuildId,
        command: CommandId,
        work: &Work,
        effects: &mut Effects,
    ) {
        let refuse = |command, code: &str, message: &str| WorkerFrame::CommandRefused {
            build,
            command,
            code: code.to_owned(),
            message: message.to_owned(),
        };
        let Some(found) = self.builds.get_mut(&build) else {
            let frame = refuse(command, "unknown_build", "this worker does not have that build");
            effects.frames.push(frame);
            return;
        };
        match &found.command {
            Some((known, _)) if *known == command => {
                effects.frames.push(WorkerFrame::CommandStarted { build, command });
                found.say_again(build, effects);
                return;
            }
            Some((_, Command::Running { .. } | Command::Writing { .. })) => {
                effects.frames.push(refuse(command, "busy", "another command of it runs"));
                return;
            }
            Some((_, Command::Finished { .. })) | None => {}
        }
        effects.frames.push(WorkerFrame::CommandStarted { build, command: command.clone() });
        let state = match job(work, found.request) {
            Job::Wait(length, token) => {
                effects.records.push(("start", token.clone()));
                Command::Running { until: now.saturating_add(length), token }
            }
            Job::Write => Command::Writing { since: now, sent: 0, confirmed: 0 },
            Job::Nothing => Command::ended(Outcome::Exit(0)),
        };
        found.command = Some((command, state));
        found.say_again(build, effects);
        found.finish_if_due(build, now, effects);
        found.write(build, now, &self.writing, effects);
    }

    fn leave_if_done(&self, effects: &mut Effects) {
        if self.leaving && self.builds.is_empty() {
            effects.close = Some(Close::Stop("sent away by the master".to_owned()));
        }
    }
}

impl Attached {
    fn heartbeat(&mut self, now: Duration, running: Vec<BuildId>) -> WorkerFrame {
        self.seq += 1;
        self.rate = if running.is_empty() { self.idle_beat } else { self.beat };
        self.next = now + self.rate;
        self.sent.push_back((self.seq, now));
        if self.sent.len() > HEARTBEATS_KEPT {
            self.sent.pop_front();
        }
        WorkerFrame::Heartbeat { seq: self.seq, running }
    }
}

impl Build {
    fn until(&self) -> Option<Duration> {
        match &self.command {
            Some((_, Command::Running { until, .. })) => Some(*until),
            Some((_, Command::Writing { .. } | Command::Finished { .. })) | None => None,
        }
    }

    fn is_running(&self) -> bool {
        matches!(&self.command, Some((_, Command::Running { .. } | Command::Writing { .. })))
    }

    fn on_confirmed(&mut self, have: u64) {
        if let Some((_, Command::Writing { confirmed, .. })) = &mut self.command {
            *confirmed = have.max(*confirmed);
        }
    }

    /// The master has so much of the text, and wants the rest; whoever had
    /// already said that all was written, says it again.
    fn write_from(&mut self, from: Option<u64>, text: &Text, now: Duration) {
        let (Some(from), Some((_, state))) = (from, &mut self.command) else { return };
        let wrote = matches!(state, Command::Finished { log_end, .. } if *log_end > 0);
        if let Command::Writing { sent, confirmed, .. } = state {
            (*sent, *confirmed) = (from, from);
        } else if wrote && from < text.length() {
            *state = Command::Writing { since: now, sent: from, confirmed: from };
        }
    }

    /// Writes as much of the text as may be on its way, and ends when that was
    /// all.
    fn write(&mut self, id: BuildId, now: Duration, how: &Writing, effects: &mut Effects) {
        let Writing { text, window, raw } = how;
        let Some((command, state)) = &mut self.command else { return };
        let Command::Writing { since, sent, confirmed } = state else { return };
        while let Some(piece) = text.piece(*sent) {
            let length = piece.len() as u64;
            if *sent + length > *confirmed + *window {
                return;
            }
            effects.frames.push(WorkerFrame::Log(LogData {
                build: id,
                command: command.clone(),
                log: STDIO.to_owned(),
                ch: 'o',
                offset: *sent,
                text: (!*raw).then(|| String::from_utf8_lossy(&piece).into_owned()),
                b64: None,
                raw: raw.then_some(piece.len()),
                body: if *raw { piece } else { Bytes::new() },
                at: u64::try_from(now.saturating_sub(*since).as_millis()).unwrap_or(0),
            }));
            *sent += length;
        }
        let digest = Some(text.digest().to_owned());
        *state = Command::Finished { outcome: Outcome::Exit(0), log_end: *sent, digest };
        self.say_again(id, effects);
    }

    fn finish_if_due(&mut self, id: BuildId, now: Duration, effects: &mut Effects) {
        if self.until().is_some_and(|until| now >= until) {
            self.end(id, Outcome::Exit(0), effects);
        }
    }

    /// Ends the command that runs, if one does.
    fn end(&mut self, id: BuildId, outcome: Outcome, effects: &mut Effects) {
        let Some((_, state)) = &mut self.command else { return };
        if let Command::Running { token, .. } = state {
            let word = if outcome == Outcome::Exit(0) { "finish" } else { "interrupt" };
            effects.records.push((word, std::mem::take(token)));
            *state = Command::ended(outcome);
            self.say_again(id, effects);
        } else if let Command::Writing { sent, .. } = state {
            *state = Command::Finished { outcome, log_end: *sent, digest: None };
            self.say_again(id, effects);
        }
    }

    /// Tells the end of the command, when it has one.
    fn say_again(&self, build: BuildId, effects: &mut Effects) {
        if let Some((command, Command::Finished { outcome, log_end, digest })) = &self.command {
            effects.frames.push(WorkerFrame::CommandFinished {
                build,
                command: command.clone(),
                outcome: outcome.clone(),
                usage: Usage::default(),
                log_end: BTreeMap::from([(STDIO.to_owned(), *log_end)]),
                log_digest: digest.iter().map(|it| (STDIO.to_owned(), it.clone())).collect(),
                properties: BTreeMap::new(),
                note: String::new(),
            });
        }
    }

    fn inventory(&self, build: BuildId) -> InventoryItem {
        let (state, end) = match &self.command {
            None => (InventoryState::Waiting, 0),
            Some((_, Command::Running { .. })) => (InventoryState::Running, 0),
            Some((_, Command::Writing { sent, .. })) => (InventoryState::Running, *sent),
            Some((_, Command::Finished { log_end, .. })) => (InventoryState::Finished, *log_end),
        };
        let command = self.command.as_ref().map(|(id, _)| id.clone());
        let log_end = command.iter().map(|_| (STDIO.to_owned(), end)).collect();
        InventoryItem {
            build,
            epoch: self.epoch,
            builder: self.builder.clone(),
            command,
            state,
            log_end,
        }
    }
}

/// What a command means here.
enum Job {
    /// `bench-job SECS TOKEN`: its length and token.
    Wait(Duration, String),
    /// `bench-log`: the prepared text.
    Write,
    /// Every other command is over at once.
    Nothing,
}

/// The word for a token that is the id of the build's request: what tells
/// requests for one builder apart.
const REQUEST: &str = "@request";

fn job(work: &Work, request: Option<RequestId>) -> Job {
    let Work::Shell(shell) = work else { return Job::Nothing };
    match shell.argv.as_deref() {
        Some([program, seconds, token]) if program == "bench-job" => {
            let length = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
            let token = match (token.as_str(), request) {
                (REQUEST, Some(request)) => request.to_string(),
                (token, _) => token.to_owned(),
            };
            length.map_or(Job::Nothing, |length| Job::Wait(length, token))
        }
        Some([program]) if program == "bench-log" => Job::Write,
        _ => Job::Nothing,
    }
}
