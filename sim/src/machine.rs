//! A worker's machine: the real agent of the worker program, over played
//! processes, a played folder and a played clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::rng::Rng;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::{MasterFrame, Outcome, WorkerFrame};
use botmaster::worker::agent::{Agent, AgentConfig, Effect, Ended, Event, LEASE, Lane, Trouble};
use bytes::Bytes;

use crate::kept::Disk;
use crate::logs_desk::text_of;
use crate::setup::{between, chance, ms, one_of};

/// A process of a build's command.
#[derive(Debug)]
pub struct Process {
    /// Bytes written so far.
    pub written: u64,
    /// What it will have written.
    plan: Vec<(Timestamp, u64)>,
    ends: Option<Timestamp>,
    exit: i32,
    deaf: bool,
    /// When and why it is ended.
    kill: Option<(Timestamp, String)>,
    /// Its keeper has begun to end it, for the lease.
    lease_out: bool,
    /// The program has been told its output up to here.
    told: u64,
    begun: Timestamp,
    told_started: bool,
}

/// What a machine wants of the world.
#[derive(Debug)]
pub enum Wish {
    /// Dial the master under this link's number.
    Dial(u64),
    /// Close the connection of this link.
    Close(u64),
    /// Send a frame over this link.
    Send(u64, Box<WorkerFrame>),
    /// Call [`Machine::run`] then, at the latest.
    WakeAt(Timestamp),
    /// A process began.
    Began(BuildId, CommandId),
    /// A process ended, for whatever reason.
    Over(BuildId, CommandId),
    /// The worker program ended by itself.
    Left,
}

/// Whether the worker program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It runs.
    Up,
    /// It is stopped, and will go on.
    Frozen,
    /// It is not there; its processes may be.
    Down,
}

/// One machine.
pub struct Machine {
    /// The configured name of its worker.
    pub name: WorkerName,
    /// Whether the program runs.
    pub standing: Standing,
    agent: Option<Agent>,
    instance: u64,
    /// Processes, whoever began them.
    pub processes: BTreeMap<(BuildId, CommandId), Process>,
    /// What each command has written in all.
    pub written: BTreeMap<CommandId, u64>,
    /// Requests of the builds that it was given.
    pub requests: BTreeMap<BuildId, Vec<(RequestId, Epoch)>>,
    /// What waits while the program is frozen.
    stalled: Vec<Event>,
    answers: Vec<(Timestamp, Event)>,
    /// What outlives the program.
    disk: Disk,
    /// Folders cannot be made.
    pub disk_full: bool,
    /// Commands take for ever, and do not listen to TERM.
    pub stuck: bool,
    /// Builds it takes side by side.
    pub slots: u32,
    /// How long commands take at most, in milliseconds.
    pub longest: u64,
    rng: Rng,
    kill_time: Duration,
    /// Started by the seed as a second one of a name.
    pub is_double: bool,
}

impl Machine {
    /// A machine whose program does not run yet.
    pub fn new(name: WorkerName, slots: u32, kill_time: Duration, seed: u64) -> Self {
        Self {
            name,
            standing: Standing::Down,
            agent: None,
            instance: 0,
            processes: BTreeMap::new(),
            written: BTreeMap::new(),
            requests: BTreeMap::new(),
            stalled: Vec::new(),
            answers: Vec::new(),
            disk: Disk::default(),
            disk_full: false,
            stuck: false,
            slots,
            longest: 20_000,
            rng: Rng::seeded(seed),
            kill_time,
            is_double: false,
        }
    }

    /// The program starts, and takes up what an earlier one left.
    pub fn boot(&mut self, now: Timestamp, wishes: &mut Vec<Wish>) {
        self.instance += 1;
        self.stalled.clear();
        self.answers.clear();
        self.standing = Standing::Up;
        let mut agent = Agent::new(AgentConfig {
            name: self.name.clone(),
            instance: self.instance(),
            token: "token".into(),
            version: "1".into(),
            slots: self.slots,
            caps: Vec::new(),
            labels: BTreeMap::new(),
            info: BTreeMap::new(),
            kill_time: self.kill_time,
            seed: (self.rng.bits() >> 64) as u64,
        });
        let processes = &self.processes;
        let found = self.disk.found(|build, id| processes.contains_key(&(build, id.clone())));
        for restored in &found {
            if let Some(command) = &restored.command
                && let Some(process) =
                    self.processes.get_mut(&(restored.record.build, command.id.clone()))
            {
                process.told = command.extent.1;
            }
        }
        agent.restore(found, self.disk.epochs.clone());
        self.agent = Some(agent);
        self.hear(now, Event::Tick, wishes);
    }

    /// The program is gone; its processes stay unless `with_processes`.
    pub fn die(&mut self, with_processes: bool, wishes: &mut Vec<Wish>) {
        self.standing = Standing::Down;
        self.agent = None;
        self.stalled.clear();
        self.answers.clear();
        if with_processes {
            self.end_all(wishes);
        }
    }

    fn end_all(&mut self, wishes: &mut Vec<Wish>) {
        for ((build, command), _) in std::mem::take(&mut self.processes) {
            wishes.push(Wish::Over(build, command));
        }
    }

    /// The program is stopped for a while.
    pub fn freeze(&mut self) {
        if self.standing == Standing::Up {
            self.standing = Standing::Frozen;
        }
    }

    /// It goes on.
    pub fn thaw(&mut self, now: Timestamp, wishes: &mut Vec<Wish>) {
        if self.standing != Standing::Frozen {
            return;
        }
        self.standing = Standing::Up;
        self.hear(now, Event::Tick, wishes);
        for event in std::mem::take(&mut self.stalled) {
            self.hear(now, event, wishes);
        }
    }

    /// The program, as one may tell it from others of its name.
    pub fn instance(&self) -> String {
        format!("{}-{}-{}", self.name, self.is_double, self.instance)
    }

    /// Builds in its journal.
    pub fn builds(&self) -> BTreeSet<BuildId> {
        self.agent.iter().flat_map(Agent::builds).collect()
    }

    /// Log bytes in its memory.
    pub fn unconfirmed(&self) -> u64 {
        self.agent.as_ref().map_or(0, Agent::unconfirmed)
    }

    /// Whether it is attached, as it sees it.
    pub fn is_attached(&self) -> bool {
        self.agent.as_ref().is_some_and(Agent::is_attached)
    }

    /// A frame of the master's.
    pub fn frame(&mut self, now: Timestamp, link: u64, frame: MasterFrame, wishes: &mut Vec<Wish>) {
        if let MasterFrame::StartBuild { build, requests, .. } = &frame {
            self.requests.insert(*build, requests.clone());
        }
        self.hear(now, Event::Frame { link, frame }, wishes);
    }

    /// Tells the agent something.
    pub fn hear(&mut self, now: Timestamp, event: Event, wishes: &mut Vec<Wish>) {
        if self.standing == Standing::Frozen {
            self.stalled.push(event);
            return;
        }
        let Some(agent) = &mut self.agent else { return };
        let mut effects = Vec::new();
        agent.handle(now, event, &mut effects);
        for effect in effects {
            self.carry_out(now, effect, wishes);
        }
        self.wake(wishes);
    }

    fn wake(&self, wishes: &mut Vec<Wish>) {
        let agent = self.agent.as_ref().filter(|_| self.standing == Standing::Up);
        let deadline = agent.and_then(Agent::next_deadline);
        let process = self.processes.values().filter_map(Process::next);
        let answers = self.answers.iter().map(|(at, _)| *at);
        let keeper = self.processes.iter().filter(|(_, process)| !process.lease_out);
        let keeper = keeper.filter_map(|((build, _), _)| self.disk.lease_of(*build));
        if let Some(at) = deadline.into_iter().chain(process).chain(answers).chain(keeper).min() {
            wishes.push(Wish::WakeAt(at));
        }
    }

    fn carry_out(&mut self, now: Timestamp, effect: Effect, wishes: &mut Vec<Wish>) {
        match effect {
            Effect::Connect { link } => wishes.push(Wish::Dial(link)),
            Effect::Close { link } => wishes.push(Wish::Close(link)),
            Effect::Send { link, lane, frame } => {
                wishes.push(Wish::Send(link, Box::new(frame)));
                if lane == Lane::Log {
                    let at = now + ms(&mut self.rng, 0, 20);
                    self.answers.push((at, Event::LogWritten { link }));
                }
            }
            Effect::MakeFolder { builder, builddir: _ } => {
                let result = if self.disk_full {
                    Err(Trouble { code: "disk", message: "no space left on device".into() })
                } else {
                    Ok(())
                };
                let at = now + ms(&mut self.rng, 0, 30);
                self.answers.push((at, Event::FolderMade { builder, result }));
            }
            Effect::Run { build, command, .. } => self.run_command(now, build, command, wishes),
            Effect::Allow { .. } | Effect::Trim { .. } => {}
            Effect::Take { record } => {
                let build = record.build;
                self.disk.take(record);
                self.hear(now, Event::Taken { build, result: Ok(()) }, wishes);
            }
            Effect::Forget { build } => self.disk.forget(build),
            Effect::Lease { build, until } => self.disk.lease(build, until),
            Effect::Replay { build, command, from, .. } => {
                self.replay(now, build, &command, from, wishes);
            }
            Effect::Kill { build, command, grace, reason } => {
                self.kill(now, (build, command), grace, reason);
            }
            Effect::Sweep { build } => {
                let at = now + ms(&mut self.rng, 0, 50);
                self.answers.push((at, Event::Swept { build }));
            }
            Effect::Exit { .. } => {
                self.die(true, wishes);
                wishes.push(Wish::Left);
            }
        }
    }

    fn run_command(
        &mut self,
        now: Timestamp,
        build: BuildId,
        command: CommandId,
        wishes: &mut Vec<Wish>,
    ) {
        self.disk.begin(build, command.clone());
        let rng = &mut self.rng;
        if chance(rng, 10) {
            let ended = Ended {
                outcome: Outcome::Error("no such program".into()),
                note: String::new(),
                properties: BTreeMap::new(),
                wall_ms: 0,
                log: None,
            };
            self.disk.ended(build, &command, ended.clone());
            wishes.push(Wish::Began(build, command.clone()));
            wishes.push(Wish::Over(build, command.clone()));
            self.answers.push((now, Event::Ended { build, command, ended }));
            return;
        }
        let takes = ms(rng, 10, self.longest);
        let pieces = between(rng, 0, 5);
        let mut at = now;
        let mut plan = Vec::new();
        for _ in 0..pieces {
            at = at + takes / 6;
            plan.push((at, one_of(rng, &[1, 20, 500, 3000])));
        }
        let stuck = self.stuck && chance(rng, 500);
        let process = Process {
            written: 0,
            plan,
            ends: (!stuck).then(|| now + takes),
            exit: i32::from(chance(rng, 150)),
            deaf: stuck || chance(rng, 100),
            kill: None,
            lease_out: false,
            told: 0,
            begun: now,
            told_started: false,
        };
        wishes.push(Wish::Began(build, command.clone()));
        self.processes.insert((build, command), process);
    }

    fn kill(&mut self, now: Timestamp, key: (BuildId, CommandId), grace: Duration, reason: String) {
        let Some(process) = self.processes.get_mut(&key) else { return };
        let wait = if process.deaf { grace } else { ms(&mut self.rng, 1, 200).min(grace) };
        let at = now + wait;
        if process.kill.as_ref().is_none_or(|(earlier, _)| at < *earlier) {
            process.kill = Some((at, reason));
        }
    }

    /// Tells a command's output again from `from` on.
    fn replay(
        &mut self,
        now: Timestamp,
        build: BuildId,
        command: &CommandId,
        from: u64,
        wishes: &mut Vec<Wish>,
    ) {
        let Some((written, ended)) = self.disk.state(build, command) else { return };
        if let Some(process) = self.processes.get_mut(&(build, command.clone())) {
            process.told = written;
        }
        if from < written {
            let output = output(build, command, from, written - from, 0);
            self.hear(now, output, wishes);
        }
        if let Some(ended) = ended {
            self.hear(now, Event::Ended { build, command: command.clone(), ended }, wishes);
        }
    }

    /// Builds' keepers end what has no lease any more, whatever the program does.
    fn end_for_lease(&mut self, now: Timestamp) {
        let over = |build| self.disk.lease_of(build).is_some_and(|until| now >= until);
        let processes = self.processes.iter_mut();
        let mut keys = Vec::new();
        for (key, process) in processes.filter(|((build, _), one)| !one.lease_out && over(*build)) {
            process.lease_out = true;
            keys.push(key.clone());
        }
        if planted::is("lease_not_kept") {
            return;
        }
        for key in keys {
            self.kill(now, key, self.kill_time, LEASE.to_owned());
        }
    }

    /// What takes for ever ends soon.
    pub fn unstick(&mut self, now: Timestamp, wishes: &mut Vec<Wish>) {
        self.stuck = false;
        for process in self.processes.values_mut() {
            process.ends.get_or_insert(now + Duration::from_secs(1));
        }
        self.wake(wishes);
    }

    /// Lets the processes and the program do what is due.
    pub fn run(&mut self, now: Timestamp, wishes: &mut Vec<Wish>) {
        self.end_for_lease(now);
        let due: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, process)| process.next().is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for (build, command) in due {
            self.run_process(now, build, &command, wishes);
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.answers).into_iter().partition(|(at, _)| *at <= now);
        self.answers = later;
        for (_, event) in due {
            self.hear(now, event, wishes);
        }
        if self.standing == Standing::Up
            && self.agent.as_ref().and_then(Agent::next_deadline).is_some_and(|at| at <= now)
        {
            self.hear(now, Event::Tick, wishes);
        }
        self.wake(wishes);
    }

    fn run_process(
        &mut self,
        now: Timestamp,
        build: BuildId,
        command: &CommandId,
        wishes: &mut Vec<Wish>,
    ) {
        let key = (build, command.clone());
        let Some(process) = self.processes.get_mut(&key) else { return };
        let mut news = Vec::new();
        if !process.told_started {
            process.told_started = true;
            news.push(Event::Started { build, command: command.clone() });
        }
        while let Some((at, len)) = process.plan.first().copied()
            && at <= now
            && process.kill.as_ref().is_none_or(|(kill, _)| at <= *kill)
        {
            process.plan.remove(0);
            process.written += len;
            self.disk.wrote(build, command, process.written);
        }
        if self.agent.is_some() && process.told < process.written {
            let at = u64::try_from(now.since(process.begun).as_millis()).unwrap_or(0);
            news.push(output(build, command, process.told, process.written - process.told, at));
            process.told = process.written;
        }
        self.written.insert(command.clone(), process.written);
        let outcome = match (&process.kill, process.ends) {
            (Some((at, reason)), _) if *at <= now => Some(Outcome::Killed(reason.clone())),
            (_, Some(at)) if at <= now => Some(Outcome::Exit(process.exit)),
            _ => None,
        };
        if let Some(outcome) = outcome {
            let ended = Ended {
                outcome,
                note: String::new(),
                properties: BTreeMap::new(),
                wall_ms: u64::try_from(now.since(process.begun).as_millis()).unwrap_or(0),
                log: None,
            };
            self.disk.ended(build, command, ended.clone());
            self.processes.remove(&key);
            wishes.push(Wish::Over(build, command.clone()));
            news.push(Event::Ended { build, command: command.clone(), ended });
        }
        for event in news {
            self.hear(now, event, wishes);
        }
    }
}

fn output(build: BuildId, command: &CommandId, offset: u64, length: u64, at: u64) -> Event {
    let bytes = Bytes::from(text_of(command, offset, length).into_bytes());
    Event::Output { build, command: command.clone(), ch: 'o', offset, bytes, at }
}

impl Process {
    fn next(&self) -> Option<Timestamp> {
        let started = (!self.told_started).then_some(self.begun);
        let output = self.plan.first().map(|(at, _)| *at);
        let kill = self.kill.as_ref().map(|(at, _)| *at);
        started.into_iter().chain(output).chain(self.ends).chain(kill).min()
    }
}
