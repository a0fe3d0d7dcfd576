//! The worker program's agent and a mad master: it never panics, runs nothing
//! outside of its builds and folders, and remembers no more than it must.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::{FrameLines, Outcome, WorkerFrame, decode_master};
use botmaster::worker::agent::{Agent, AgentConfig, Effect, Ended, Event};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder as _;

use crate::inputs::golden;
use crate::run::{Features, run};

/// Builds that the worker of these tests runs side by side.
const SLOTS: u32 = 2;

struct Carrier {
    agent: Agent,
    now: Timestamp,
    link: u64,
    chance: Rng,
    /// Commands that run.
    running: Vec<(BuildId, CommandId)>,
    events: VecDeque<Event>,
    features: Features,
    last: u64,
    exited: bool,
}

impl Carrier {
    fn new(seed: u64) -> Self {
        let agent = Agent::new(AgentConfig {
            name: "w1".into(),
            instance: "i1".into(),
            token: "secret".into(),
            version: "0".into(),
            slots: SLOTS,
            caps: vec!["shell/1".into()],
            labels: BTreeMap::new(),
            info: BTreeMap::new(),
            kill_time: Duration::from_secs(1),
            seed: 1,
        });
        Self {
            agent,
            now: Timestamp(1_000_000),
            link: 0,
            chance: Rng::seeded(seed),
            running: Vec::new(),
            events: VecDeque::new(),
            features: Features::new(),
            last: 0,
            exited: false,
        }
    }

    /// What comes right after what tells behaviours apart.
    fn show(&mut self, what: &str) {
        let now = u64::from(crc32fast::hash(what.as_bytes()));
        self.features.insert(self.last << 32 | now);
        self.last = now;
    }

    fn tell(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.agent.handle(self.now, event, &mut effects);
        assert!(effects.len() <= 2048, "{} effects of one event", effects.len());
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { link } => {
                self.link = link;
                self.running.iter().for_each(drop);
                self.events.push_back(Event::Connected { link });
            }
            Effect::Close { link } => assert!(link <= self.link),
            Effect::Send { link, frame, .. } => {
                assert_eq!(link, self.link, "it speaks on the connection that there is");
                if let WorkerFrame::Log(log) = &frame {
                    let length =
                        log.text.as_ref().or(log.b64.as_ref()).map_or(log.body.len(), String::len);
                    assert!(length <= 90_000, "a log frame of {length} bytes");
                    self.events.push_back(Event::LogWritten { link });
                }
                self.show(frame.kind());
            }
            Effect::MakeFolder { builder, builddir } => {
                assert_inside(&builddir);
                self.events.push_back(Event::FolderMade { builder, result: Ok(()) });
            }
            Effect::Run { build, command, folder, .. } => {
                assert_inside(&folder);
                self.show("run");
                assert!(!self.running.contains(&(build, command.clone())), "it runs already");
                self.running.push((build, command.clone()));
                let builds: std::collections::BTreeSet<_> =
                    self.running.iter().map(|(build, _)| *build).collect();
                assert!(builds.len() <= SLOTS as usize, "more builds than slots: {builds:?}");
                self.events.push_back(Event::Started { build, command: command.clone() });
                let bytes = Bytes::from(vec![b'x'; 1 + self.chance.index(5000)]);
                self.events.push_back(Event::Output {
                    build,
                    command,
                    ch: 'o',
                    offset: 0,
                    bytes,
                    at: 0,
                });
            }
            Effect::Kill { build, command, .. } => {
                self.show("kill");
                self.end(build, command, Outcome::Killed("told to".into()));
            }
            Effect::Sweep { build } => {
                self.show("sweep");
                let left = self.running.iter().any(|(other, _)| *other == build);
                assert!(!left, "it forgets build {build}, whose command runs");
                self.events.push_back(Event::Swept { build });
            }
            Effect::Exit { .. } => {
                self.show("exit");
                self.exited = true;
            }
            Effect::Take { record } => {
                self.show("take");
                self.events.push_back(Event::Taken { build: record.build, result: Ok(()) });
            }
            Effect::Forget { build } => {
                self.show("forget");
                let left = self.running.iter().any(|(other, _)| *other == build);
                assert!(!left, "it forgets build {build}, whose command runs");
            }
            Effect::Replay { .. } => self.show("replay"),
            Effect::Allow { .. } | Effect::Lease { .. } | Effect::Trim { .. } => {}
        }
    }

    fn end(&mut self, build: BuildId, command: CommandId, outcome: Outcome) {
        let before = self.running.len();
        self.running.retain(|running| *running != (build, command.clone()));
        if self.running.len() < before {
            let ended = Ended {
                outcome,
                note: String::new(),
                properties: BTreeMap::new(),
                wall_ms: 1,
                log: None,
            };
            self.events.push_back(Event::Ended { build, command, ended });
        }
    }

    /// Lets happen what waits, and sometimes more.
    fn settle(&mut self) {
        for _ in 0..400 {
            if self.exited {
                return;
            }
            let Some(event) = self.events.pop_front() else { break };
            self.tell(event);
        }
        match self.chance.index(12) {
            0 if !self.running.is_empty() => {
                let at = self.chance.index(self.running.len());
                let (build, command) = self.running[at].clone();
                self.end(build, command, Outcome::Exit(0));
            }
            1 => self.pass(),
            2 => {
                let link = self.link;
                self.tell(Event::Closed { link, reason: "cut".into() });
                self.pass();
            }
            _ => {}
        }
    }

    /// Time passes to the next deadline.
    fn pass(&mut self) {
        if let Some(due) = self.agent.next_deadline() {
            self.now = self.now.max(due);
            self.tell(Event::Tick);
        }
    }
}

#[track_caller]
fn assert_inside(folder: &str) {
    let path = std::path::Path::new(folder);
    let plain = |part| matches!(part, std::path::Component::Normal(_));
    assert!(!folder.is_empty() && path.components().all(plain), "`{folder}` leaves the folder");
}

fn play(input: &[u8]) -> Features {
    let mut carrier = Carrier::new(crc32fast::hash(input).into());
    carrier.tell(Event::Tick);
    let mut lines = FrameLines::default();
    let mut buffer = BytesMut::from(input);
    while !carrier.exited {
        carrier.settle();
        let link = carrier.link;
        let event = match lines.decode(&mut buffer) {
            Ok(Some(line)) => match decode_master(&line) {
                Ok(frame) => {
                    carrier.show(frame.kind());
                    Event::Frame { link, frame }
                }
                Err(error) => Event::Unreadable {
                    link,
                    code: error.code(),
                    message: error.to_string(),
                    fatal: error.is_fatal(),
                },
            },
            Ok(None) => break,
            Err(error) => {
                // Nothing more is read on this connection; the next one begins
                // with the next line.
                let end = buffer.iter().position(|byte| *byte == b'\n');
                let _ = buffer.split_to(end.map_or(buffer.len(), |end| end + 1));
                lines = FrameLines::default();
                let message = error.to_string();
                Event::Unreadable { link, code: "too_long", message, fatal: true }
            }
        };
        carrier.tell(event);
    }
    // Whatever was said: when nobody confirms anything any more it comes to rest
    // or goes on dialling, and never spins.
    for _ in 0..50 {
        carrier.settle();
        let before = carrier.now;
        carrier.pass();
        if carrier.exited {
            break;
        }
        assert!(carrier.now >= before);
    }
    carrier.features
}

#[test]
fn fn16_i16_the_workers_agent_stands_whatever_a_mad_master_says() {
    let golden = golden("master");
    let attached = golden.first().unwrap().clone();
    let talk = |lines: &[&str]| {
        let mut input = attached.clone();
        for line in lines {
            input.extend(line.as_bytes());
            input.push(b'\n');
        }
        input
    };
    let mut first = vec![[attached.clone(), golden.concat()].concat()];
    first.extend(golden.iter().map(|line| [attached.clone(), line.clone()].concat()));
    first.extend(golden.clone());
    first.push(talk(&[
        r#"{"t":"builders","list":[{"builder":"a","builddir":"a"},{"builder":"b","builddir":"b"}]}"#,
        r#"{"t":"ping","id":1}"#,
        r#"{"t":"start_build","build":1,"epoch":1,"requests":[[1,1]],"builder":"a","builddir":"a"}"#,
        r#"{"t":"start_command","build":1,"epoch":1,"command":"c-1-0","kind":"shell","args":{"shell":"x"}}"#,
        r#"{"t":"log_confirm","build":1,"command":"c-1-0","log":"stdio","have":3}"#,
        r#"{"t":"start_build","build":2,"epoch":1,"requests":[[2,1]],"builder":"a","builddir":"a"}"#,
        r#"{"t":"resume","build":1,"command":"c-1-0","do":"continue","log_from":{"stdio":0}}"#,
        r#"{"t":"interrupt","build":1,"command":"c-1-0","grace_s":1,"reason":"r"}"#,
        r#"{"t":"start_command","build":1,"epoch":1,"command":"c-1-1","kind":"shell","args":{"argv":["x"]}}"#,
        r#"{"t":"build_finished","build":1,"result":"success"}"#,
        r#"{"t":"resume","build":2,"do":"abandon"}"#,
        r#"{"t":"drain","reason":"r"}"#,
    ]));
    run("agent", first, play);
}
