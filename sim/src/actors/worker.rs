//! A worker's host: the real agent and its real connection, on played
//! processes.

use std::collections::BTreeMap;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::MasterFrame;
use botmaster::worker::agent::{Agent, AgentConfig, Effect, Event};
use botmaster::worker::link::{self, Connection};
use tokio::sync::mpsc;
use tokio::time::Instant;
use turmoil::net::TcpStream;

use super::master::PORT;
use super::plan::{Dice, TIMERS};
use super::process::{self, Handle, Job};
use super::shared::{Door, now};
use crate::history::{Deed, Micros, Run};

/// Events that may wait for the loop.
const EVENT_QUEUE: usize = 256;
/// Longest sleep of the loop.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// What a worker's program is started with.
#[derive(Clone)]
pub struct Machine {
    /// The host's name; instances begin with it.
    pub host: String,
    /// The worker's name.
    pub name: String,
    pub token: String,
    pub slots: u32,
    pub longest: Duration,
    pub seed: u64,
    /// The instance of a latent worker that it is.
    pub tag: Option<InstanceTag>,
}

struct Program {
    door: Door,
    machine: Machine,
    instance: String,
    agent: Agent,
    events: mpsc::Sender<Event>,
    connection: Option<(u64, Connection)>,
    commands: BTreeMap<(BuildId, CommandId), Handle>,
    requests: BTreeMap<BuildId, Vec<(RequestId, Epoch)>>,
    begun: Instant,
    /// When the present connection was asked for.
    dialled: Micros,
    attached: bool,
}

/// Runs a worker's program until it ends by itself.
pub async fn run(door: Door, machine: Machine) -> turmoil::Result {
    let number = {
        let mut shared = door.borrow_mut();
        shared.programs += 1;
        shared.programs
    };
    let instance = format!("{}/{number}", machine.host);
    let config = AgentConfig {
        name: machine.name.as_str().into(),
        instance: instance.clone(),
        token: machine.token.clone(),
        version: "0".into(),
        slots: machine.slots,
        caps: vec!["shell/1".into()],
        labels: machine.tag.iter().map(|tag| ("instance".into(), tag.to_string())).collect(),
        info: BTreeMap::new(),
        kill_time: TIMERS.kill_time,
        seed: machine.seed ^ number,
    };
    let (events, incoming) = mpsc::channel(EVENT_QUEUE);
    let program = Program {
        door,
        machine,
        instance,
        agent: Agent::new(config),
        events,
        connection: None,
        commands: BTreeMap::new(),
        requests: BTreeMap::new(),
        begun: Instant::now(),
        dialled: now(),
        attached: false,
    };
    program.serve(incoming).await;
    Ok(())
}

impl Program {
    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    async fn serve(mut self, mut incoming: mpsc::Receiver<Event>) {
        let mut event = Event::Tick;
        let mut effects = Vec::new();
        loop {
            self.look_at(&event);
            self.agent.handle(self.now(), event, &mut effects);
            while !effects.is_empty() {
                let mut answers = Vec::new();
                for effect in effects.drain(..) {
                    if let Effect::Exit { .. } = effect {
                        self.door.borrow_mut().count("worker_exits");
                        self.leave().await;
                        return;
                    }
                    answers.extend(self.carry_out(effect));
                }
                for event in answers {
                    self.agent.handle(self.now(), event, &mut effects);
                }
            }
            let sleep = self.agent.next_deadline().map(|due| due.since(self.now()));
            let sleep = sleep.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
            event = tokio::select! {
                biased;
                event = incoming.recv() => event.unwrap_or(Event::Stop),
                () = tokio::time::sleep(sleep) => Event::Tick,
            };
        }
    }

    fn look_at(&mut self, event: &Event) {
        match event {
            Event::Ended { build, command, .. } => {
                self.commands.remove(&(*build, command.clone()));
            }
            Event::Frame { frame: MasterFrame::StartBuild { build, requests, .. }, .. } => {
                self.requests.insert(*build, requests.clone());
                self.note(Deed::Started { build: *build, dialled: self.dialled });
            }
            Event::Frame { frame: MasterFrame::Attached { .. }, .. } => {
                self.attached = true;
                self.note(Deed::Attached);
            }
            Event::Frame { frame: MasterFrame::Rejected { .. }, .. }
                if self.machine.tag.is_some() =>
            {
                self.door.borrow_mut().count("instance_turned_away");
            }
            Event::Closed { .. } => self.detached(),
            Event::Frame { frame: MasterFrame::Error(error), .. } => {
                tracing::warn!(worker = self.instance, ?error, "the master complains");
                self.door.borrow_mut().count("complaints");
            }
            _ => {}
        }
    }

    fn note(&self, deed: Deed) {
        if let (Some(tag), Some(cloud)) = (&self.machine.tag, &self.door.borrow().cloud) {
            cloud.note(tag, deed);
        }
    }

    fn detached(&mut self) {
        if std::mem::take(&mut self.attached) {
            self.note(Deed::Detached);
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Connect { link } => {
                self.dialled = now();
                let dial = async {
                    let connecting = TcpStream::connect(("master", PORT));
                    match tokio::time::timeout(Duration::from_secs(10), connecting).await {
                        Ok(Ok(stream)) => Ok(stream.into_split()),
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err("nobody answered in time".to_owned()),
                    }
                };
                self.connection = Some((link, link::talk(dial, link, self.events.clone())));
            }
            Effect::Close { link } => {
                self.detached();
                self.connection.take_if(|(present, _)| *present == link);
            }
            Effect::Send { link, lane, frame } => {
                let (_, connection) = self.connection.as_ref().filter(|(has, _)| *has == link)?;
                if let Err(reason) = connection.send(lane, frame) {
                    self.connection = None;
                    return Some(Event::Closed { link, reason: reason.to_owned() });
                }
            }
            Effect::MakeFolder { builder, .. } => {
                return Some(Event::FolderMade { builder, result: Ok(()) });
            }
            Effect::Run { build, command, allowed, .. } => self.begin(build, command, allowed),
            Effect::Allow { build, command, up_to } => {
                if let Some(handle) = self.commands.get(&(build, command)) {
                    handle.allow(up_to);
                }
            }
            Effect::Kill { build, command, grace, reason } => {
                if let Some(handle) = self.commands.get(&(build, command)) {
                    handle.kill(grace, reason);
                }
            }
            Effect::Take { record } => {
                return Some(Event::Taken { build: record.build, result: Ok(()) });
            }
            // A program of this world takes its builds with it when it dies, and
            // has all their output in memory.
            Effect::Forget { .. }
            | Effect::Lease { .. }
            | Effect::Replay { .. }
            | Effect::Trim { .. } => {}
            Effect::Sweep { build } => return Some(Event::Swept { build }),
            // The loop has returned before.
            Effect::Exit { .. } => {}
        }
        None
    }

    fn begin(&mut self, build: BuildId, command: CommandId, allowed: u64) {
        let run = Run {
            worker: self.machine.name.as_str().into(),
            instance: self.instance.clone(),
            build,
            requests: self.requests.get(&build).cloned().unwrap_or_default(),
            command: command.clone(),
            begin: 0,
            end: None,
            killed: false,
        };
        let place = self.door.borrow().recorder.history.ran.len() as u64;
        let dice = Dice::seeded(self.machine.seed.wrapping_mul(31).wrapping_add(place));
        let job = Job { run, allowed, longest: self.machine.longest, dice };
        let handle = process::start(self.door.clone(), job, self.events.clone());
        self.commands.insert((build, command), handle);
    }

    /// Ends all that runs, and says the last words.
    async fn leave(mut self) {
        for handle in self.commands.values() {
            handle.kill(Duration::from_millis(100), "the worker stops".into());
        }
        if let Some((_, connection)) = self.connection.take() {
            connection.close(Duration::from_millis(300)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
