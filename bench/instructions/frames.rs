//! What a worker's connection reads and writes for one build with a short log
//! and a long one.

use std::collections::BTreeMap;
use std::hint::black_box;

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::{
    LogData, MasterFrame, Outcome, STDIO, ShellArgs, Usage, Work, WorkerFrame, decode_worker,
    encode,
};

fn log(build: BuildId, command: &CommandId, offset: u64, text: String) -> WorkerFrame {
    WorkerFrame::Log(LogData {
        build,
        command: command.clone(),
        log: STDIO.into(),
        ch: 'o',
        offset,
        text: Some(text),
        b64: None,
        raw: None,
        body: bytes::Bytes::new(),
        at: 17,
    })
}

/// A worker's side of a build.
fn said() -> Vec<WorkerFrame> {
    let build = BuildId(123_456);
    let command = CommandId::for_step(build, 0);
    let line = "the compiler says: \"all is well\" in src/main.rs\n";
    let (short, long) = (line.repeat(4), line.repeat(1300));
    let end = (short.len() + long.len()) as u64;
    vec![
        WorkerFrame::Pong { id: PingToken(77) },
        WorkerFrame::BuildAccepted { build, epoch: Epoch(1) },
        WorkerFrame::CommandStarted { build, command: command.clone() },
        log(build, &command, 0, short.clone()),
        log(build, &command, short.len() as u64, long),
        WorkerFrame::Heartbeat { seq: 9, running: vec![build] },
        WorkerFrame::CommandFinished {
            build,
            command,
            outcome: Outcome::Exit(0),
            usage: Usage::default(),
            log_end: BTreeMap::from([(STDIO.to_owned(), end)]),
            log_digest: BTreeMap::from([(STDIO.to_owned(), "0123456789abcdef".repeat(4))]),
            properties: BTreeMap::new(),
            note: String::new(),
        },
    ]
}

/// The master's side of it.
fn answered() -> Vec<MasterFrame> {
    let (build, epoch) = (BuildId(123_456), Epoch(1));
    let command = CommandId::for_step(build, 0);
    let work = Work::Shell(ShellArgs {
        argv: Some(vec!["sh".into(), "-c".into(), "make check \"MODE=fast\"".into()]),
        env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
        timeout_ms: Some(1_200_000),
        ..ShellArgs::default()
    });
    vec![
        MasterFrame::Ping { id: PingToken(77) },
        MasterFrame::StartBuild {
            build,
            epoch,
            requests: vec![(RequestId(4711), epoch)],
            builder: "unit".into(),
            builddir: "unit".into(),
            lease_s: None,
        },
        MasterFrame::StartCommand { build, epoch, command: command.clone(), work },
        MasterFrame::LogConfirm { build, command, log: STDIO.into(), have: 65_536 },
        MasterFrame::Heartbeat { seq: 9 },
        MasterFrame::BuildFinished { build, result: "success".into() },
    ]
}

/// All lines of a worker's side are read.
pub fn decode(rounds: u64) -> Result<(), String> {
    let lines: Vec<Vec<u8>> = said().iter().map(encode).collect();
    for _ in 0..rounds {
        for line in &lines {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            black_box(decode_worker(black_box(line)).map_err(|error| error.to_string())?);
        }
    }
    Ok(())
}

/// All lines of the master's side are written.
pub fn encode_all(rounds: u64) -> Result<(), String> {
    let frames = answered();
    for _ in 0..rounds {
        for frame in &frames {
            black_box(encode(black_box(frame)));
        }
    }
    Ok(())
}
