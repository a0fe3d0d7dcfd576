//! The load process against a scripted master on the loopback interface.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use botmaster::core::ids::{BuildId, CommandId, Epoch, Incarnation, PingToken, RequestId};
use botmaster::protocol::json_v1::{
    Attach, BuilderEntry, InventoryState, LOG_RAW, MasterFrame, Outcome, Resume, ResumeAction,
    ShellArgs, Work, WorkerFrame, decode_worker, encode,
};

const LIMIT: Duration = Duration::from_secs(30);

/// The load process, ended with the test.
struct Load {
    child: Child,
    folder: PathBuf,
    listener: TcpListener,
}

impl Load {
    fn start(test: &str, count: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("load-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for index in 0..count {
            let name = format!("w{index:05}");
            std::fs::write(folder.join(format!("{name}.token")), format!("secret-{name}\n"))
                .unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_load_workers"))
            .args(["--master", &listener.local_addr().unwrap().to_string()])
            .args(["--count", &count.to_string(), "--max-seconds", "60", "--tokens"])
            .arg(&folder)
            .arg("--exec-log")
            .arg(folder.join("exec.log"))
            .args(["--log-mb", "1"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, folder, listener }
    }

    fn accept(&self) -> Peer {
        let end = Instant::now() + LIMIT;
        self.listener.set_nonblocking(true).unwrap();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(LIMIT)).unwrap();
                    return Peer { reader: BufReader::new(stream), caps: Vec::new() };
                }
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("no worker came: {error}"),
            }
        }
    }

    fn jobs(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("exec.log")).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    fn wait_for_exit(&mut self) -> bool {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the load process did not end");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The master's end of one connection.
struct Peer {
    reader: BufReader<TcpStream>,
    /// What it says that it is able to.
    caps: Vec<String>,
}

impl Peer {
    fn next(&mut self) -> WorkerFrame {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        assert!(!line.is_empty(), "the worker closed the connection");
        let mut frame = decode_worker(&line).unwrap();
        if let WorkerFrame::Log(log) = &mut frame
            && let Some(length) = log.raw
        {
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body).unwrap();
            log.body = body.into();
        }
        frame
    }

    fn say(&mut self, frame: &MasterFrame) {
        self.reader.get_mut().write_all(&encode(frame)).unwrap();
    }

    /// Answers the attach; gives it and what the inventory says.
    fn attach(&mut self, heartbeat_s: u64) -> (Attach, Vec<(BuildId, InventoryState)>) {
        self.attach_with(heartbeat_s, None)
    }

    fn attach_with(
        &mut self,
        heartbeat_s: u64,
        idle_heartbeat_s: Option<u64>,
    ) -> (Attach, Vec<(BuildId, InventoryState)>) {
        let WorkerFrame::Attach(attach) = self.next() else { panic!("no attach") };
        self.say(&MasterFrame::Attached {
            proto: 1,
            incarnation: Incarnation(1),
            caps: self.caps.clone(),
            heartbeat_s,
            idle_heartbeat_s,
            lease_s: 90,
            window: 4096,
        });
        let WorkerFrame::Inventory(inventory) = self.next() else { panic!("no inventory") };
        assert!(!inventory.more);
        (attach, inventory.builds.iter().map(|item| (item.build, item.state)).collect())
    }

    fn start_build(&mut self, build: u64) {
        self.say(&MasterFrame::StartBuild {
            build: BuildId(build),
            epoch: Epoch(1),
            requests: vec![(RequestId(build), Epoch(1))],
            builder: "b00000".into(),
            builddir: "b00000".into(),
            lease_s: None,
        });
    }

    fn start_command(&mut self, build: u64, argv: &[&str]) {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        self.say(&MasterFrame::StartCommand {
            build: BuildId(build),
            epoch: Epoch(1),
            command: command(build),
            work: Work::Shell(ShellArgs { argv: Some(argv), ..ShellArgs::default() }),
        });
    }

    fn expect_started(&mut self, build: u64) {
        let (build, command) = (BuildId(build), command(build));
        assert_eq!(self.next(), WorkerFrame::BuildAccepted { build, epoch: Epoch(1) });
        assert_eq!(self.next(), WorkerFrame::CommandStarted { build, command });
    }

    fn expect_finished(&mut self, build: u64, expected: &Outcome) {
        match self.next() {
            WorkerFrame::CommandFinished {
                build: of, command: which, outcome, log_end, ..
            } => {
                assert_eq!((of, which), (BuildId(build), command(build)));
                assert_eq!(&outcome, expected);
                assert_eq!(log_end, BTreeMap::from([("stdio".to_owned(), 0)]));
            }
            other => panic!("expected the end of build {build}, not {other:?}"),
        }
    }
}

fn command(build: u64) -> CommandId {
    CommandId::for_step(BuildId(build), 0)
}

#[test]
fn a_worker_goes_through_a_whole_build_and_leaves_when_it_is_told_to() {
    let mut load = Load::start("build", 1);
    let mut peer = load.accept();
    let (attach, builds) = peer.attach(60);
    assert_eq!((attach.name.as_str(), attach.token.as_str()), ("w00000", "secret-w00000"));
    assert_eq!((attach.slots, builds), (1, Vec::new()));

    let list = ["b00000", "b00001"]
        .map(|name| BuilderEntry { builder: name.into(), builddir: name.into() })
        .to_vec();
    peer.say(&MasterFrame::Builders { list });
    assert_eq!(peer.next(), WorkerFrame::BuilderReady { builder: "b00000".into() });
    assert_eq!(peer.next(), WorkerFrame::BuilderReady { builder: "b00001".into() });
    peer.say(&MasterFrame::Ping { id: PingToken(7) });
    assert_eq!(peer.next(), WorkerFrame::Pong { id: PingToken(7) });

    peer.start_build(41);
    peer.start_command(41, &["true"]);
    peer.expect_started(41);
    peer.expect_finished(41, &Outcome::Exit(0));
    peer.start_build(42);
    assert!(matches!(peer.next(), WorkerFrame::Refused { code, .. } if code == "busy"));
    peer.say(&MasterFrame::BuildFinished { build: BuildId(41), result: "success".into() });

    peer.start_build(42);
    peer.start_command(42, &["bench-job", "3600", "long"]);
    peer.expect_started(42);
    let reason = "enough".to_owned();
    let (build, which) = (BuildId(42), command(42));
    peer.say(&MasterFrame::Interrupt { build, command: which, grace_s: 1, reason });
    peer.expect_finished(42, &Outcome::Killed("enough".into()));
    assert_eq!(load.jobs(), ["start long", "interrupt long"]);

    peer.say(&MasterFrame::Drain { reason: "that was all".into() });
    assert_eq!(peer.next(), WorkerFrame::Draining { message: "that was all".into() });
    peer.say(&MasterFrame::BuildFinished { build, result: "cancelled".into() });
    assert!(load.wait_for_exit());
}

#[test]
fn a_job_outlives_its_connection_and_is_finished_once() {
    let load = Load::start("cut", 1);
    let mut peer = load.accept();
    peer.attach(60);
    peer.start_build(5);
    peer.start_command(5, &["bench-job", "0.3", "survivor"]);
    peer.expect_started(5);
    drop(peer);

    let mut peer = load.accept();
    let (_, builds) = peer.attach(60);
    assert_eq!(builds.first().map(|(build, _)| *build), Some(BuildId(5)));
    peer.say(&MasterFrame::Resume(Resume {
        build: BuildId(5),
        command: Some(command(5)),
        r#do: ResumeAction::Continue,
        log_from: BTreeMap::new(),
    }));
    peer.expect_finished(5, &Outcome::Exit(0));
    assert_eq!(load.jobs(), ["start survivor", "finish survivor"]);
    drop(peer);

    let mut peer = load.accept();
    assert_eq!(peer.attach(60).1, [(BuildId(5), InventoryState::Finished)]);
    peer.say(&MasterFrame::Resume(Resume {
        build: BuildId(5),
        command: None,
        r#do: ResumeAction::Abandon,
        log_from: BTreeMap::new(),
    }));
    assert_eq!(peer.next(), WorkerFrame::Abandoned { build: BuildId(5) });
}

#[test]
fn workers_send_heartbeats_at_the_rate_they_are_told_with_what_they_run() {
    let load = Load::start("beat", 2);
    let mut peers = [load.accept(), load.accept()];
    let names: Vec<_> = peers.iter_mut().map(|peer| peer.attach(1).0.name.to_string()).collect();
    assert!(names.contains(&"w00000".to_owned()) && names.contains(&"w00001".to_owned()));
    let peer = &mut peers[0];
    peer.start_build(9);
    assert!(matches!(peer.next(), WorkerFrame::BuildAccepted { .. }));
    for expected in 1..=2 {
        let beat = peer.next();
        assert_eq!(beat, WorkerFrame::Heartbeat { seq: expected, running: vec![BuildId(9)] });
        peer.say(&MasterFrame::Heartbeat { seq: expected });
    }
}

#[test]
fn an_idle_worker_sends_rare_heartbeats_until_a_build_begins() {
    let load = Load::start("idle_beat", 2);
    let (mut clock, mut idle) = (load.accept(), load.accept());
    clock.attach(1);
    idle.attach_with(1, Some(300));
    let beat = |seq, running: &[u64]| WorkerFrame::Heartbeat {
        seq,
        running: running.iter().copied().map(BuildId).collect(),
    };
    assert_eq!(idle.next(), beat(1, &[]));
    // The other one's heartbeats tell the time.
    for seq in 1..=3 {
        assert_eq!(clock.next(), beat(seq, &[]));
        clock.say(&MasterFrame::Heartbeat { seq });
    }
    idle.say(&MasterFrame::Ping { id: PingToken(7) });
    assert_eq!(idle.next(), WorkerFrame::Pong { id: PingToken(7) });
    idle.start_build(9);
    assert!(matches!(idle.next(), WorkerFrame::BuildAccepted { .. }));
    assert_eq!(idle.next(), beat(2, &[9]));
    assert_eq!(idle.next(), beat(3, &[9]));
}

#[test]
fn a_job_can_have_its_requests_id_for_a_token() {
    let load = Load::start("request", 1);
    let mut peer = load.accept();
    peer.attach(60);
    peer.start_build(17);
    peer.start_command(17, &["bench-job", "0", "@request"]);
    peer.expect_started(17);
    peer.expect_finished(17, &Outcome::Exit(0));
    assert_eq!(load.jobs(), ["start 17", "finish 17"]);
}

/// Takes pieces of a log, from `offset` on, until `until` bytes are there.
fn take_log(peer: &mut Peer, build: u64, offset: u64, until: u64, text: &mut String) {
    let mut have = offset;
    while have < until {
        let WorkerFrame::Log(log) = peer.next() else { panic!("no log at {have}") };
        assert_eq!((log.build, log.offset, log.ch), (BuildId(build), have, 'o'));
        assert_eq!(log.raw.is_some(), peer.caps.iter().any(|ability| ability == LOG_RAW));
        let piece = String::from_utf8(log.into_bytes().unwrap().to_vec()).unwrap();
        have += piece.len() as u64;
        text.push_str(&piece);
        peer.say(&MasterFrame::LogConfirm {
            build: BuildId(build),
            command: command(build),
            log: "stdio".into(),
            have,
        });
    }
}

#[test]
fn a_prepared_log_is_written_as_it_is_confirmed_and_goes_on_after_a_cut() {
    let load = Load::start("log", 1);
    let mut peer = load.accept();
    peer.attach(60);
    peer.start_build(3);
    peer.start_command(3, &["bench-log"]);
    peer.expect_started(3);
    let mut text = String::new();
    take_log(&mut peer, 3, 0, 200_000, &mut text);
    drop(peer);

    // The next master is newer, and takes the bytes as they are.
    let mut peer = load.accept();
    peer.caps = vec![LOG_RAW.to_owned()];
    assert_eq!(peer.attach(60).1, [(BuildId(3), InventoryState::Running)]);
    // In the middle of a line.
    text.truncate(150_050);
    peer.say(&MasterFrame::Resume(Resume {
        build: BuildId(3),
        command: Some(command(3)),
        r#do: ResumeAction::Continue,
        log_from: BTreeMap::from([("stdio".to_owned(), 150_050)]),
    }));
    take_log(&mut peer, 3, 150_050, 1_000_000, &mut text);
    let WorkerFrame::CommandFinished { outcome, log_end, log_digest, .. } = peer.next() else {
        panic!("no end");
    };
    assert_eq!(outcome, Outcome::Exit(0));
    assert_eq!(log_end, BTreeMap::from([("stdio".to_owned(), 1_000_000)]));
    assert_eq!(log_digest.get("stdio").map(String::len), Some(64));
    assert!(text.lines().enumerate().all(|(number, line)| {
        line.len() == 99 && line.starts_with(&format!("line {number:08} "))
    }));
}

#[test]
fn a_worker_that_is_rejected_for_good_does_not_come_back() {
    let mut load = Load::start("rejected", 1);
    let mut peer = load.accept();
    assert!(matches!(peer.next(), WorkerFrame::Attach(_)));
    peer.say(&MasterFrame::Rejected {
        code: "auth".into(),
        message: "name or token is wrong".into(),
        retry_after_s: None,
    });
    assert!(load.wait_for_exit());
}
