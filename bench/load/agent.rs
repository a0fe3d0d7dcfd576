//! What a worker of the load process decides: a plain state machine that is fed
//! frames and the time, and says what to send and to record.
//!
//! Deliberately absent: sockets and clocks (see `link`), processes, logs. Times
//! are counted from the start of the process.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use botmaster::core::ids::{BuildId, BuilderName, CommandId, Epoch, WorkerName};
use botmaster::protocol::json_v1::{
    Attach, Inventory, InventoryItem, InventoryState, MasterFrame, Outcome, PROTO, Resume,
    ResumeAction, STDIO, Usage, Work, WorkerFrame,
};

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
}

enum Link {
    Away,
    Attaching { since: Duration },
    Attached { every: Duration, next: Duration, seq: u64, sent: Sent, heard: Duration },
}

type Sent = VecDeque<(u64, Duration)>;

struct Build {
    epoch: Epoch,
    builder: BuilderName,
    command: Option<(CommandId, Command)>,
}

enum Command {
    Running { until: Duration, token: String },
    Finished(Outcome),
}

impl Agent {
    /// A worker that has never attached. `instance` names this process.
    #[must_use]
    pub fn new(name: &str, token: String, instance: String) -> Self {
        Self {
            name: name.into(),
            token,
            instance,
            builds: BTreeMap::new(),
            link: Link::Away,
            leaving: false,
            lease: Duration::MAX,
            confirmed: Duration::ZERO,
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
        matches!(self.link, Link::Attached { .. })
    }

    /// When [`Agent::on_time`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let link = match &self.link {
            Link::Away => None,
            Link::Attaching { since } => Some(*since + ATTACH_LIMIT),
            Link::Attached { every, next, heard, .. } => {
                Some((*next).min(*heard + *every * SILENT_HEARTBEATS))
            }
        };
        let running = self.builds.values().filter_map(Build::until);
        let lease = running.clone().next().map(|_| self.confirmed.saturating_add(self.lease));
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
            Link::Attached { every, next, seq, sent, heard } => {
                if now >= *heard + *every * SILENT_HEARTBEATS {
                    effects.close = Some(Close::Retry(Duration::ZERO));
                } else if now >= *next {
                    *seq += 1;
                    *next = now + *every;
                    sent.push_back((*seq, now));
                    if sent.len() > HEARTBEATS_KEPT {
                        sent.pop_front();
                    }
                    effects.frames.push(WorkerFrame::Heartbeat { seq: *seq, running });
                }
            }
        }
    }

    /// Does what the master says.
    pub fn on_frame(&mut self, now: Duration, frame: MasterFrame, effects: &mut Effects) {
        if let Link::Attached { heard, .. } = &mut self.link {
            *heard = now;
        }
        match frame {
            MasterFrame::Attached { heartbeat_s, lease_s, .. } => {
                self.on_attached(now, heartbeat_s, lease_s, effects);
            }
            MasterFrame::Rejected { code, message, retry_after_s } => {
                effects.close = Some(match retry_after_s {
                    Some(seconds) => Close::Retry(Duration::from_secs(seconds)),
                    None => Close::Stop(format!("rejected: {code}: {message}")),
                });
            }
            MasterFrame::Resume(resume) => self.on_resume(&resume, effects),
            MasterFrame::Builders { list } => {
                effects.frames.extend(
                    list.into_iter()
                        .map(|entry| WorkerFrame::BuilderReady { builder: entry.builder }),
                );
            }
            MasterFrame::Ping { id } => effects.frames.push(WorkerFrame::Pong { id }),
            MasterFrame::Heartbeat { seq } => self.on_heartbeat(seq),
            MasterFrame::StartBuild { build, epoch, builder, .. } => {
                self.on_start_build(build, epoch, builder, effects);
            }
            MasterFrame::StartCommand { build, command, work, .. } => {
                self.on_start_command(now, build, command, &work, effects);
            }
            MasterFrame::LogConfirm { .. }
            | MasterFrame::LogAgain { .. }
            | MasterFrame::Lease { .. } => {}
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

    fn on_attached(
        &mut self,
        now: Duration,
        heartbeat_s: u64,
        lease_s: u64,
        effects: &mut Effects,
    ) {
        let Link::Attaching { since } = self.link else { return };
        let every = Duration::from_secs(heartbeat_s.max(1));
        self.lease = Duration::from_secs(lease_s);
        // The attach is answered, so it counts as a confirmed sign of life.
        self.confirmed = since;
        self.link =
            Link::Attached { every, next: now + every, seq: 0, sent: Sent::new(), heard: now };
        let builds = self.builds.iter().map(|(id, build)| build.inventory(*id)).collect();
        effects.frames.push(WorkerFrame::Inventory(Inventory { builds, more: false }));
    }

    fn on_heartbeat(&mut self, seq: u64) {
        let Link::Attached { sent, .. } = &mut self.link else { return };
        while let Some((oldest, at)) = sent.front().copied() {
            if oldest > seq {
                break;
            }
            self.confirmed = at;
            sent.pop_front();
        }
    }

    fn on_resume(&mut self, resume: &Resume, effects: &mut Effects) {
        match resume.r#do {
            ResumeAction::Continue => {
                if let Some(build) = self.builds.get(&resume.build) {
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

    fn on_start_build(
        &mut self,
        build: BuildId,
        epoch: Epoch,
        builder: BuilderName,
        effects: &mut Effects,
    ) {
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
        self.builds.entry(build).or_insert(Build { epoch, builder, command: None });
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
            Some((_, Command::Running { .. })) => {
                effects.frames.push(refuse(command, "busy", "another command of it runs"));
                return;
            }
            Some((_, Command::Finished(_))) | None => {}
        }
        effects.frames.push(WorkerFrame::CommandStarted { build, command: command.clone() });
        let state = match job(work) {
            Some((length, token)) => {
                effects.records.push(("start", token.clone()));
                Command::Running { until: now.saturating_add(length), token }
            }
            None => Command::Finished(Outcome::Exit(0)),
        };
        found.command = Some((command, state));
        found.say_again(build, effects);
        found.finish_if_due(build, now, effects);
    }

    fn leave_if_done(&self, effects: &mut Effects) {
        if self.leaving && self.builds.is_empty() {
            effects.close = Some(Close::Stop("sent away by the master".to_owned()));
        }
    }
}

impl Build {
    fn until(&self) -> Option<Duration> {
        match &self.command {
            Some((_, Command::Running { until, .. })) => Some(*until),
            Some((_, Command::Finished(_))) | None => None,
        }
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
            *state = Command::Finished(outcome);
            self.say_again(id, effects);
        }
    }

    /// Tells the end of the command, when it has one.
    fn say_again(&self, build: BuildId, effects: &mut Effects) {
        if let Some((command, Command::Finished(outcome))) = &self.command {
            effects.frames.push(WorkerFrame::CommandFinished {
                build,
                command: command.clone(),
                outcome: outcome.clone(),
                usage: Usage::default(),
                log_end: BTreeMap::from([(STDIO.to_owned(), 0)]),
                log_digest: BTreeMap::new(),
                properties: BTreeMap::new(),
                note: String::new(),
            });
        }
    }

    fn inventory(&self, build: BuildId) -> InventoryItem {
        let state = match &self.command {
            None => InventoryState::Waiting,
            Some((_, Command::Running { .. })) => InventoryState::Running,
            Some((_, Command::Finished(_))) => InventoryState::Finished,
        };
        let command = self.command.as_ref().map(|(id, _)| id.clone());
        let log_end = command.iter().map(|_| (STDIO.to_owned(), 0)).collect();
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

/// Length and token of `bench-job SECS TOKEN`; none for every other command.
fn job(work: &Work) -> Option<(Duration, String)> {
    let Work::Shell(shell) = work else { return None };
    let [program, seconds, token] = shell.argv.as_deref()? else { return None };
    let seconds: f64 = seconds.parse().ok()?;
    let length = Duration::try_from_secs_f64(seconds).ok()?;
    (program == "bench-job").then(|| (length, token.clone()))
}
