//! A scripted worker: it attaches, answers, and keeps what it runs over its
//! connections; each kind of answer can be held back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use botmaster::actors::Greeter;
use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, watch};

/// A kind of answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Say {
    /// That it is ready for a builder.
    Ready,
    /// That it is alive.
    Pong,
    /// That it takes a build.
    Accept,
    /// That a command ended.
    Finish,
}

struct Journal {
    epoch: Epoch,
    builder: BuilderName,
    command: Option<CommandId>,
    ended: Option<WorkerFrame>,
}

#[derive(Default)]
struct State {
    out: Option<mpsc::UnboundedSender<Vec<u8>>>,
    held: BTreeSet<Say>,
    waiting: Vec<(Say, WorkerFrame)>,
    journal: BTreeMap<BuildId, Journal>,
    requests: BTreeMap<BuildId, Vec<RequestId>>,
    commands: Vec<(BuildId, CommandId)>,
    starts: Vec<BuildId>,
    connections: u32,
    attached: bool,
    lists: u32,
    absent: bool,
    refuse: bool,
    deaf: bool,
    interrupts: u32,
    complaints: Vec<String>,
    most: usize,
    outcomes: VecDeque<Outcome>,
    /// Connections that nobody looks after and nobody has closed.
    ghosts: Vec<Box<dyn std::any::Any>>,
}

/// A scripted worker. Clones are the same one.
#[derive(Clone)]
pub struct Robot {
    name: WorkerName,
    token: Rc<str>,
    slots: u32,
    labels: BTreeMap<String, String>,
    greeter: Rc<RefCell<Greeter>>,
    state: Rc<RefCell<State>>,
    hang_up: watch::Sender<u64>,
    leave: watch::Sender<u64>,
}

impl Robot {
    /// A worker that comes, and comes again when its connection ends.
    pub fn start(name: &str, token: &str, slots: u32, greeter: Greeter) -> Self {
        let robot = Self::idle(name, token, slots, greeter);
        robot.clone().come();
        robot
    }

    /// A worker that comes as the instance with this tag.
    pub fn instance(name: &str, token: &str, tag: &InstanceTag, greeter: Greeter) -> Self {
        let mut robot = Self::idle(name, token, 64, greeter);
        robot.labels.insert("instance".into(), tag.to_string());
        robot.clone().come();
        robot
    }

    fn idle(name: &str, token: &str, slots: u32, greeter: Greeter) -> Self {
        Self {
            name: name.into(),
            token: token.into(),
            slots,
            labels: BTreeMap::new(),
            greeter: Rc::new(RefCell::new(greeter)),
            state: Rc::default(),
            hang_up: watch::Sender::new(0),
            leave: watch::Sender::new(0),
        }
    }

    fn come(self) {
        actix_rt::spawn(async move {
            loop {
                if !self.state.borrow().absent {
                    self.converse().await;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    async fn converse(&self) {
        let (mine, theirs) = tokio::io::duplex(256 * 1024);
        self.greeter.borrow().greet(theirs, "pipe".into());
        let (reader, mut writer) = tokio::io::split(mine);
        let (out, mut lines) = mpsc::unbounded_channel::<Vec<u8>>();
        let mut hang_up = self.hang_up.subscribe();
        let mut leave = self.leave.subscribe();
        {
            let mut state = self.state.borrow_mut();
            state.out = Some(out);
            state.connections += 1;
            state.waiting.retain(|(say, _)| *say == Say::Finish);
        }
        self.send(WorkerFrame::Attach(Attach {
            proto: vec![PROTO],
            name: self.name.clone(),
            instance: "robot".into(),
            token: self.token.to_string(),
            version: "0".into(),
            os: "test".into(),
            arch: "test".into(),
            slots: self.slots,
            caps: Some(vec!["shell/1".into()]),
            labels: self.labels.clone(),
            info: BTreeMap::new(),
            requires: Vec::new(),
            clock: None,
        }));
        let mut incoming = BufReader::new(reader).lines();
        let mut beat = tokio::time::interval(Duration::from_millis(500));
        let mut seq = 0;
        loop {
            tokio::select! {
                _ = beat.tick() => if self.attached() {
                    seq += 1;
                    let running = self.state.borrow().journal.keys().copied().collect();
                    self.send(WorkerFrame::Heartbeat { seq, running });
                },
                line = incoming.next_line() => match line {
                    Ok(Some(line)) => self.hear(decode_master(line.as_bytes()).unwrap()),
                    _ => break,
                },
                Some(line) = lines.recv() => {
                    if line.is_empty() || writer.write_all(&line).await.is_err() {
                        break;
                    }
                }
                _ = hang_up.changed() => break,
                _ = leave.changed() => {
                    self.state.borrow_mut().ghosts.push(Box::new((incoming, writer)));
                    break;
                }
            }
        }
        let mut state = self.state.borrow_mut();
        state.out = None;
        state.attached = false;
    }

    fn send(&self, frame: WorkerFrame) {
        if let Some(out) = &self.state.borrow().out {
            // A connection that is just ending takes nothing any more.
            let _ = out.send(encode(&frame));
        }
    }

    fn say(&self, say: Say, frame: WorkerFrame) {
        let held = self.state.borrow().held.contains(&say);
        if held {
            self.state.borrow_mut().waiting.push((say, frame));
            return;
        }
        if let WorkerFrame::CommandFinished { build, .. } = &frame
            && let Some(journal) = self.state.borrow_mut().journal.get_mut(build)
        {
            journal.ended = Some(frame.clone());
        }
        self.send(frame);
    }

    fn hear(&self, frame: MasterFrame) {
        match frame {
            MasterFrame::Attached { .. } => {
                self.state.borrow_mut().attached = true;
                self.send(WorkerFrame::Inventory(self.inventory()));
            }
            MasterFrame::Builders { list } => {
                self.state.borrow_mut().lists += 1;
                for entry in list {
                    self.say(Say::Ready, WorkerFrame::BuilderReady { builder: entry.builder });
                }
            }
            MasterFrame::Ping { id } => {
                self.say(Say::Pong, WorkerFrame::Pong { id });
            }
            MasterFrame::StartBuild { build, epoch, requests, builder, .. } => {
                self.take(build, epoch, &requests, builder);
            }
            MasterFrame::StartCommand { build, command, .. } => self.run(build, command),
            MasterFrame::Interrupt { .. } if self.state.borrow().deaf => {
                self.state.borrow_mut().interrupts += 1;
            }
            MasterFrame::Interrupt { build, command, .. } => {
                self.state.borrow_mut().interrupts += 1;
                let running = self.state.borrow().journal.get(&build).is_some_and(|journal| {
                    journal.command.as_ref() == Some(&command) && journal.ended.is_none()
                });
                if running {
                    let outcome = Outcome::Killed("interrupt".into());
                    self.state.borrow_mut().waiting.retain(|(_, frame)| !ends(frame, build));
                    self.send(ended(build, command, outcome));
                }
            }
            MasterFrame::BuildFinished { build, .. } => {
                self.state.borrow_mut().journal.remove(&build);
            }
            MasterFrame::Resume(resume) => self.resume(&resume),
            MasterFrame::Rejected { code, message, retry_after_s } => {
                self.note(format!("{code}: {message}"));
                self.state.borrow_mut().absent |= retry_after_s.is_none();
            }
            MasterFrame::Error(error) => self.note(format!("{}: {}", error.code, error.message)),
            MasterFrame::Heartbeat { .. }
            | MasterFrame::LogConfirm { .. }
            | MasterFrame::LogAgain { .. }
            | MasterFrame::Lease { .. }
            | MasterFrame::Drain { .. }
            | MasterFrame::Shutdown { .. } => {}
        }
    }

    fn note(&self, text: String) {
        self.state.borrow_mut().complaints.push(text);
    }

    fn inventory(&self) -> Inventory {
        let state = self.state.borrow();
        let builds = state.journal.iter().map(|(build, journal)| InventoryItem {
            build: *build,
            epoch: journal.epoch,
            builder: journal.builder.clone(),
            command: journal.command.clone(),
            state: match (&journal.command, &journal.ended) {
                (None, _) => InventoryState::Waiting,
                (Some(_), None) => InventoryState::Running,
                (Some(_), Some(_)) => InventoryState::Finished,
            },
            log_end: BTreeMap::new(),
        });
        Inventory { builds: builds.collect(), more: false }
    }

    fn take(&self, build: BuildId, epoch: Epoch, requests: &[(RequestId, Epoch)], of: BuilderName) {
        {
            let mut state = self.state.borrow_mut();
            state.starts.push(build);
            if state.refuse {
                drop(state);
                let (code, message) = ("disk".into(), "no room".into());
                self.send(WorkerFrame::Refused { build, epoch, code, message });
                return;
            }
            let requests = requests.iter().map(|(request, _)| *request).collect();
            state.requests.insert(build, requests);
            state.journal.entry(build).or_insert(Journal {
                epoch,
                builder: of,
                command: None,
                ended: None,
            });
            state.most = state.most.max(state.journal.len());
        }
        self.say(Say::Accept, WorkerFrame::BuildAccepted { build, epoch });
    }

    fn run(&self, build: BuildId, command: CommandId) {
        {
            let mut state = self.state.borrow_mut();
            let Some(journal) = state.journal.get_mut(&build) else {
                state.complaints.push(format!("command {command} of a build that is not here"));
                return;
            };
            if journal.command.as_ref() == Some(&command) {
                return;
            }
            journal.command = Some(command.clone());
            journal.ended = None;
            state.commands.push((build, command.clone()));
        }
        self.send(WorkerFrame::CommandStarted { build, command: command.clone() });
        let outcome = self.state.borrow_mut().outcomes.pop_front().unwrap_or(Outcome::Exit(0));
        self.say(Say::Finish, ended(build, command, outcome));
    }

    fn resume(&self, resume: &Resume) {
        match resume.r#do {
            ResumeAction::Continue => {
                let again =
                    self.state.borrow().journal.get(&resume.build).and_then(|j| j.ended.clone());
                if let Some(frame) = again {
                    self.send(frame);
                }
            }
            ResumeAction::Abandon => {
                let mut state = self.state.borrow_mut();
                state.journal.remove(&resume.build);
                state.waiting.retain(|(_, frame)| !ends(frame, resume.build));
                drop(state);
                self.send(WorkerFrame::Abandoned { build: resume.build });
            }
        }
    }

    // ---- what a story does with it ---------------------------------------

    /// From now on these answers are held back.
    pub fn hold(&self, say: Say) -> &Self {
        self.state.borrow_mut().held.insert(say);
        self
    }

    /// Gives the answers that were held back, and holds none of them any more.
    pub fn release(&self, say: Say) {
        self.state.borrow_mut().held.remove(&say);
        let waiting = std::mem::take(&mut self.state.borrow_mut().waiting);
        let (now, later) = waiting.into_iter().partition(|(kind, _)| *kind == say);
        self.state.borrow_mut().waiting = later;
        let now: Vec<(Say, WorkerFrame)> = now;
        for (_, frame) in now {
            self.say(say, frame);
        }
    }

    /// Gives the answers that were held back, and loses its connection for good
    /// with them.
    pub fn release_and_go(&self, say: Say) {
        self.state.borrow_mut().absent = true;
        self.release(say);
        if let Some(out) = self.state.borrow_mut().out.take() {
            // An empty line is the signal to end after what was said.
            let _ = out.send(Vec::new());
        }
    }

    /// How many answers of this kind are held back.
    pub fn held_back(&self, say: Say) -> usize {
        self.state.borrow().waiting.iter().filter(|(kind, _)| *kind == say).count()
    }

    /// The next commands end like this, one after the other.
    pub fn will_end(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.state.borrow_mut().outcomes.extend(outcomes);
    }

    /// Serves another master from now on.
    pub fn move_to(&self, greeter: Greeter) {
        *self.greeter.borrow_mut() = greeter;
        self.hang_up();
    }

    /// Refuses starts from now on, or no more.
    pub fn refuse(&self, yes: bool) {
        self.state.borrow_mut().refuse = yes;
    }

    /// Its connection ends; it comes again at once unless it was told not to.
    pub fn hang_up(&self) {
        self.hang_up.send_modify(|count| *count += 1);
    }

    /// Gives none of the answers that were held back, ever, and holds none of
    /// this kind any more.
    pub fn release_nothing(&self, say: Say) {
        let mut state = self.state.borrow_mut();
        state.held.remove(&say);
        state.waiting.retain(|(kind, _)| *kind != say);
    }

    /// Comes again without an end of its old connection, which stays open with
    /// nobody behind it.
    pub async fn come_over_a_second_connection(&self) {
        let before = self.connections();
        self.leave.send_modify(|count| *count += 1);
        while self.connections() == before || !self.attached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its machine is gone, and nothing says so: the connection stays open,
    /// and nobody reads or writes it.
    pub fn fall_silent(&self) {
        self.state.borrow_mut().absent = true;
        self.leave.send_modify(|count| *count += 1);
    }

    /// Goes, and does not come again until [`Robot::come_back`].
    pub fn go(&self) {
        self.state.borrow_mut().absent = true;
        self.hang_up();
    }

    /// Comes again.
    pub fn come_back(&self) {
        self.state.borrow_mut().absent = false;
    }

    /// Comes again with nothing in its journals.
    pub fn come_back_empty(&self) {
        let mut state = self.state.borrow_mut();
        state.journal.clear();
        state.waiting.clear();
        state.absent = false;
    }

    /// Builds whose start was asked for, in order.
    pub fn starts(&self) -> Vec<BuildId> {
        self.state.borrow().starts.clone()
    }

    /// Requests whose command ran here, in order, once for each command.
    pub fn ran(&self) -> Vec<RequestId> {
        let state = self.state.borrow();
        state.commands.iter().flat_map(|(build, _)| state.requests[build].clone()).collect()
    }

    /// Connections so far.
    pub fn connections(&self) -> u32 {
        self.state.borrow().connections
    }

    /// Does not heed what it is told to end, from now on.
    pub fn be_deaf(&self) {
        self.state.borrow_mut().deaf = true;
    }

    /// How often it was told to end a command.
    pub fn interrupts(&self) -> u32 {
        self.state.borrow().interrupts
    }

    /// Lists of builders so far.
    pub fn lists(&self) -> u32 {
        self.state.borrow().lists
    }

    /// Whether it is attached.
    pub fn attached(&self) -> bool {
        self.state.borrow().attached
    }

    /// The most builds that it had at a time.
    pub fn most(&self) -> usize {
        self.state.borrow().most
    }

    /// Builds in its journals.
    pub fn keeps(&self) -> usize {
        self.state.borrow().journal.len()
    }

    /// What the master complained about.
    pub fn complaints(&self) -> Vec<String> {
        self.state.borrow().complaints.clone()
    }
}

fn ended(build: BuildId, command: CommandId, outcome: Outcome) -> WorkerFrame {
    WorkerFrame::CommandFinished {
        build,
        command,
        outcome,
        usage: Usage::default(),
        log_end: BTreeMap::from([(STDIO.to_owned(), 0)]),
        log_digest: BTreeMap::new(),
        properties: BTreeMap::new(),
        note: String::new(),
    }
}

fn ends(frame: &WorkerFrame, of: BuildId) -> bool {
    matches!(frame, WorkerFrame::CommandFinished { build, .. } if *build == of)
}
