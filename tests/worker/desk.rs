//! An agent on a desk: told what happens, watched for what it asks.

use std::collections::BTreeMap;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::*;
use botmaster::worker::agent::*;
use bytes::Bytes;

pub const HEARTBEAT_S: u64 = 10;
pub const LEASE_S: u32 = 90;
pub const WINDOW_BYTES: u64 = 256 * 1024;

pub struct Desk {
    pub agent: Agent,
    pub now: Timestamp,
    pub link: u64,
    /// How much each command has written.
    pub written: BTreeMap<(u64, String), u64>,
}

impl Desk {
    pub fn new(slots: u32) -> Self {
        let agent = Agent::new(AgentConfig {
            name: "w1".into(),
            instance: "i1".into(),
            token: "secret".into(),
            version: "0".into(),
            slots,
            caps: vec!["shell/1".into()],
            labels: BTreeMap::new(),
            info: BTreeMap::new(),
            kill_time: Duration::from_secs(10),
            seed: 1,
        });
        Self { agent, now: Timestamp(1_000_000), link: 0, written: BTreeMap::new() }
    }

    /// Attached, with builders `a` and `b` ready.
    pub fn attached(slots: u32) -> Self {
        let mut desk = Self::new(slots);
        desk.dial();
        desk.attach();
        desk.builders(&["a", "b"]);
        desk
    }

    /// With build 1 of builder `a` running command `c-1-0`.
    pub fn building(slots: u32) -> Self {
        let mut desk = Self::attached(slots);
        desk.start(1, 1, "a");
        desk.command(1, 1, "c-1-0");
        desk.event(Event::Started { build: BuildId(1), command: "c-1-0".into() });
        desk
    }

    pub fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.agent.handle(self.now, event, &mut effects);
        // What it wants written down is written down at once.
        let takes: Vec<BuildId> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Take { record } => Some(record.build),
                _ => None,
            })
            .collect();
        for build in takes {
            self.agent.handle(self.now, Event::Taken { build, result: Ok(()) }, &mut effects);
        }
        effects
    }

    /// Lets time pass until `span` later, deadline by deadline, with `answer`
    /// deciding whether heartbeats are confirmed.
    pub fn pass(&mut self, span: Duration, answer: bool) -> Vec<Effect> {
        let end = self.now + span;
        let mut all = Vec::new();
        loop {
            match self.agent.next_deadline() {
                Some(due) if due <= end => {
                    assert!(due >= self.now || due == Timestamp(0), "deadlines move on");
                    self.now = self.now.max(due);
                    let effects = self.event(Event::Tick);
                    for effect in &effects {
                        if let Effect::Send { frame: WorkerFrame::Heartbeat { seq, .. }, .. } =
                            effect
                            && answer
                        {
                            all.extend(self.frame(MasterFrame::Heartbeat { seq: *seq }));
                        }
                    }
                    all.extend(effects);
                }
                _ => break,
            }
        }
        self.now = end;
        all
    }

    pub fn frame(&mut self, frame: MasterFrame) -> Vec<Effect> {
        self.event(Event::Frame { link: self.link, frame })
    }

    /// Lets the agent dial and connects it.
    pub fn dial(&mut self) -> Vec<Effect> {
        if let Some(due) = self.agent.next_deadline() {
            self.now = self.now.max(due);
        }
        let effects = self.event(Event::Tick);
        let [Effect::Connect { link }] = effects[..] else { panic!("dials: {effects:?}") };
        self.link = link;
        self.event(Event::Connected { link })
    }

    pub fn attach(&mut self) -> Vec<Effect> {
        self.attach_to(&[])
    }

    /// Attached to a master that is able to do this.
    pub fn attach_to(&mut self, abilities: &[&str]) -> Vec<Effect> {
        self.frame(MasterFrame::Attached {
            proto: PROTO,
            incarnation: Incarnation(self.link),
            caps: abilities.iter().map(|&ability| ability.to_owned()).collect(),
            heartbeat_s: HEARTBEAT_S,
            idle_heartbeat_s: None,
            lease_s: LEASE_S.into(),
            window: WINDOW_BYTES,
        })
    }

    pub fn builders(&mut self, names: &[&str]) {
        let list = names
            .iter()
            .map(|&name| BuilderEntry { builder: name.into(), builddir: name.into() })
            .collect();
        for effect in self.frame(MasterFrame::Builders { list }) {
            let Effect::MakeFolder { builder, .. } = effect else { panic!("{effect:?}") };
            self.event(Event::FolderMade { builder, result: Ok(()) });
        }
    }

    pub fn start(&mut self, build: u64, epoch: u64, builder: &str) -> Vec<WorkerFrame> {
        let effects = self.frame(MasterFrame::StartBuild {
            build: BuildId(build),
            epoch: Epoch(epoch),
            requests: vec![(RequestId(build), Epoch(epoch))],
            builder: builder.into(),
            builddir: builder.into(),
            lease_s: None,
        });
        sent(&effects)
    }

    pub fn command(&mut self, build: u64, epoch: u64, command: &str) -> Vec<Effect> {
        self.frame(MasterFrame::StartCommand {
            build: BuildId(build),
            epoch: Epoch(epoch),
            command: command.into(),
            work: Work::Shell(ShellArgs { shell: Some("true".into()), ..ShellArgs::default() }),
        })
    }

    pub fn output(&mut self, build: u64, command: &str, bytes: &[u8]) -> Vec<Effect> {
        let place = self.written.entry((build, command.to_owned())).or_default();
        let offset = *place;
        *place += bytes.len() as u64;
        self.event(Event::Output {
            build: BuildId(build),
            command: command.into(),
            ch: 'o',
            offset,
            bytes: Bytes::copy_from_slice(bytes),
            at: 0,
        })
    }

    pub fn ended(&mut self, build: u64, command: &str, outcome: Outcome) -> Vec<Effect> {
        let (note, properties) = (String::new(), BTreeMap::new());
        let ended = Ended { outcome, note, properties, wall_ms: 5, log: None };
        self.event(Event::Ended { build: BuildId(build), command: command.into(), ended })
    }

    pub fn cut(&mut self) -> Vec<Effect> {
        self.event(Event::Closed { link: self.link, reason: "cut".into() })
    }

    pub fn confirm(&mut self, build: u64, command: &str, have: u64) -> Vec<Effect> {
        self.frame(MasterFrame::LogConfirm {
            build: BuildId(build),
            command: command.into(),
            log: STDIO.into(),
            have,
        })
    }

    pub fn resume(&mut self, build: u64, action: ResumeAction, from: Option<u64>) -> Vec<Effect> {
        self.frame(MasterFrame::Resume(Resume {
            build: BuildId(build),
            command: None,
            r#do: action,
            log_from: from.into_iter().map(|from| (STDIO.to_owned(), from)).collect(),
        }))
    }

    /// Cuts the connection, comes back and answers with the inventory.
    pub fn come_back(&mut self) -> Vec<InventoryItem> {
        self.cut();
        self.dial();
        let effects = self.attach();
        self.inventory(&effects)
    }

    pub fn inventory(&self, effects: &[Effect]) -> Vec<InventoryItem> {
        let frames = sent(effects);
        let Some(WorkerFrame::Inventory(inventory)) = frames.first() else {
            panic!("an inventory comes first: {frames:?}")
        };
        assert!(!inventory.more);
        inventory.builds.clone()
    }

    /// Says that `count` log frames were written.
    pub fn written(&mut self, count: usize) -> Vec<Effect> {
        (0..count).flat_map(|_| self.event(Event::LogWritten { link: self.link })).collect()
    }
}

/// The frames among `effects`.
pub fn sent(effects: &[Effect]) -> Vec<WorkerFrame> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { frame, .. } => Some(frame.clone()),
            _ => None,
        })
        .collect()
}

/// The types of the frames among `effects`.
pub fn kinds(effects: &[Effect]) -> Vec<&'static str> {
    sent(effects).iter().map(WorkerFrame::kind).collect()
}

/// The log pieces among `effects`, as offset and bytes.
pub fn pieces(effects: &[Effect]) -> Vec<(u64, Vec<u8>)> {
    sent(effects)
        .into_iter()
        .filter_map(|frame| match frame {
            WorkerFrame::Log(log) => Some((log.offset, bytes_of(&log))),
            _ => None,
        })
        .collect()
}

/// The bytes of a log frame.
pub fn bytes_of(log: &LogData) -> Vec<u8> {
    let forms = [log.text.is_some(), log.b64.is_some(), log.raw.is_some()];
    assert_eq!(forms.iter().filter(|is_there| **is_there).count(), 1, "{log:?}");
    log.clone().into_bytes().expect("base64").to_vec()
}

/// The kills among `effects`: build, grace, reason.
pub fn kills(effects: &[Effect]) -> Vec<(u64, Duration, String)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Kill { build, grace, reason, .. } => Some((build.0, *grace, reason.clone())),
            _ => None,
        })
        .collect()
}

/// The code of the only refusal among `frames`.
pub fn refusal(frames: &[WorkerFrame]) -> &str {
    match frames {
        [WorkerFrame::Refused { code, .. } | WorkerFrame::CommandRefused { code, .. }] => code,
        other => panic!("one refusal: {other:?}"),
    }
}
