//! The whole program against a scripted master.

use std::process::Child;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use botmaster::worker::{WorkerError, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::entry::{options, spawn};
use crate::master::{Master, Session};
use crate::shop::{PATIENCE, gone, lives, shell};

fn resume(build: u64, have: usize) -> MasterFrame {
    MasterFrame::Resume(Resume {
        build: BuildId(build),
        command: Some(CommandId::for_step(BuildId(build), 0)),
        r#do: ResumeAction::Continue,
        log_from: [(STDIO.to_owned(), have as u64)].into(),
    })
}

async fn finish(session: &mut Session, build: u64) {
    let result = "success".to_owned();
    session.send(MasterFrame::BuildFinished { build: BuildId(build), result }).await;
    session.send(MasterFrame::Shutdown { reason: "done".into() }).await;
}

#[tokio::test]
async fn a_build_from_attach_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = tokio::spawn(run(options(&master.address(), dir.path())));
    let mut session = master.attach().await;
    assert_eq!(session.attach.name.as_str(), "w1");
    assert_eq!((session.attach.token.as_str(), session.attach.slots), ("s3cret", 2));
    let caps = session.attach.caps.clone().unwrap();
    assert!(caps.contains(&"shell/1".to_owned()) && caps.contains(&"git/1".to_owned()), "{caps:?}");
    assert!(session.inventory.is_empty());
    session.start_build(1).await;
    session.command(1, shell("echo hello; printf '\\377\\n' >&2; exit 3")).await;
    session.expect("command_started").await;
    let mut log = Vec::new();
    let frame = session.take_log(&mut log, usize::MAX).await;
    let Some(WorkerFrame::CommandFinished { outcome, log_end, .. }) = frame else {
        panic!("{frame:?}")
    };
    assert_eq!(outcome, Outcome::Exit(3));
    // Two pipes: nobody can tell which of them was written to first.
    let orders: [&[u8]; 2] = [b"hello\n\xff\n", b"\xff\nhello\n"];
    assert!(orders.contains(&log.as_slice()), "{log:?}");
    assert_eq!(log_end.get(STDIO), Some(&8));
    assert!(dir.path().join("work/a/build").is_dir());
    finish(&mut session, 1).await;
    session.expect("draining").await;
    session.closed().await;
    worker.await.unwrap().expect("a good end");
}

/// The connection is cut in the middle of a command, several times, each time
/// with a master that has lost what it had not confirmed.
#[tokio::test]
async fn fr01_cut_in_the_middle_of_a_command_no_byte_is_missing_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::with_window(256 * 1024).await;
    let worker = tokio::spawn(run(options(&master.address(), dir.path())));
    let mut session = master.attach().await;
    session.start_build(1).await;
    let line = "i=0; while [ $i -lt 200 ]; do head -c 5000 /dev/urandom | tee -a copy; \
                echo line $i | tee -a copy; i=$((i+1)); done";
    session.command(1, shell(line)).await;
    session.expect("command_started").await;
    let mut log = Vec::new();
    for cut_at in [1, 100_000, 400_000] {
        assert!(session.take_log(&mut log, cut_at).await.is_none());
        drop(session);
        session = master.attach().await;
        let item = session.inventory.first().expect("the build is on the worker");
        assert_eq!((item.build, item.epoch), (BuildId(1), Epoch(1)));
        assert!(item.log_end[STDIO] >= log.len() as u64);
        let have = log.len();
        session.send(resume(1, have)).await;
    }
    let frame = session.take_log(&mut log, usize::MAX).await;
    let Some(WorkerFrame::CommandFinished { outcome, log_end, .. }) = frame else {
        panic!("{frame:?}")
    };
    assert_eq!(outcome, Outcome::Exit(0));
    assert_eq!(log_end.get(STDIO), Some(&(log.len() as u64)));
    let copy = std::fs::read(dir.path().join("work/a/build/copy")).unwrap();
    assert!(log == copy, "{} and {} bytes", log.len(), copy.len());
    finish(&mut session, 1).await;
    session.expect("draining").await;
    session.closed().await;
    worker.await.unwrap().expect("a good end");
}

#[tokio::test]
async fn fl05_twenty_megabytes_come_through_the_frames_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = tokio::spawn(run(options(&master.address(), dir.path())));
    let mut session = master.attach().await;
    session.start_build(1).await;
    let line = "i=0; while [ $i -lt 20 ]; do head -c 1048576 /dev/urandom | tee -a copy; \
                i=$((i+1)); done";
    session.command(1, shell(line)).await;
    session.expect("command_started").await;
    let mut log = Vec::new();
    let end = session.take_log(&mut log, usize::MAX).await;
    assert!(matches!(end, Some(WorkerFrame::CommandFinished { .. })), "{end:?}");
    let copy = std::fs::read(dir.path().join("work/a/build/copy")).unwrap();
    assert_eq!(log.len(), 20 * 1024 * 1024);
    assert!(log == copy);
    finish(&mut session, 1).await;
    session.expect("draining").await;
    session.closed().await;
    worker.await.unwrap().expect("a good end");
}

/// A master that stores nothing: the worker reads no more than the window, yet
/// answers pings at once.
#[tokio::test]
async fn fl06_a_log_flood_stops_at_the_window_and_pings_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::with_window(256 * 1024).await;
    let worker = tokio::spawn(run(options(&master.address(), dir.path())));
    let mut session = master.attach().await;
    session.start_build(1).await;
    session.command(1, shell("yes")).await;
    session.expect("command_started").await;
    let mut length = 0;
    while length < 256 * 1024 {
        let WorkerFrame::Log(log) = session.expect("log").await else { panic!() };
        length += log.text.expect("text").len();
    }
    for id in 1..=3 {
        session.send(MasterFrame::Ping { id: PingToken(id) }).await;
        let pong = session.expect("pong").await;
        assert_eq!(pong, WorkerFrame::Pong { id: PingToken(id) });
    }
    assert_eq!(length, 256 * 1024);
    session
        .send(MasterFrame::Interrupt {
            build: BuildId(1),
            command: CommandId::for_step(BuildId(1), 0),
            grace_s: 1,
            reason: "enough".into(),
        })
        .await;
    let mut have = length;
    loop {
        session.confirm(1, have as u64).await;
        match session.next().await.expect("a frame before the end") {
            WorkerFrame::Log(log) => have += log.text.expect("text").len(),
            WorkerFrame::CommandFinished { outcome, .. } => {
                assert_eq!(outcome, Outcome::Killed("enough".into()));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    finish(&mut session, 1).await;
    session.expect("draining").await;
    session.closed().await;
    worker.await.unwrap().expect("a good end");
}

#[tokio::test]
async fn malformed_lines_are_answered_and_the_worker_comes_back() {
    use botmaster::protocol::json_v1::MAX_LINE;
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = tokio::spawn(run(options(&master.address(), dir.path())));
    let mut session = master.attach().await;
    for (line, code) in [(b"{\"t\":\"new_thing\"}\n".to_vec(), "unknown_type")] {
        session.send_raw(&line).await;
        let WorkerFrame::Error(error) = session.expect("error").await else { panic!() };
        assert_eq!(error.code, code);
    }
    let cases = [
        (b"{\"t\":\"ping\",\"id\":-1}\n".to_vec(), "malformed"),
        (vec![b'['; 100_001], "too_deep"),
        (vec![b'x'; MAX_LINE + 2], "too_long"),
    ];
    for (mut line, code) in cases {
        line.push(b'\n');
        session.send_raw(&line).await;
        let WorkerFrame::Error(error) = session.expect("error").await else { panic!() };
        assert_eq!(error.code, code);
        session.closed().await;
        session = master.attach().await;
    }
    session.send(MasterFrame::Shutdown { reason: "done".into() }).await;
    session.expect("draining").await;
    session.closed().await;
    worker.await.unwrap().expect("a good end");
}

#[tokio::test]
async fn a_worker_that_is_rejected_for_good_ends_with_the_masters_words() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = tokio::spawn(run(options(&master.address(), dir.path())));
    let mut session = master.accept().await;
    let message = "no worker has this name and token".to_owned();
    let code = "auth".to_owned();
    session.send(MasterFrame::Rejected { code, message, retry_after_s: None }).await;
    let error = worker.await.unwrap().expect_err("rejected");
    assert!(matches!(error, WorkerError::Rejected { .. }), "{error}");
    assert!(error.to_string().contains("no worker has this name and token"), "{error}");
}

#[tokio::test]
async fn options_that_cannot_be_used_are_errors_that_name_them() {
    let dir = tempfile::tempdir().unwrap();
    let good = options("127.0.0.1:1", dir.path());
    let master = botmaster::worker::WorkerOptions { master: "nowhere".into(), ..good.clone() };
    assert!(run(master).await.unwrap_err().to_string().contains("HOST:PORT"));
    let token_file = dir.path().join("none");
    let no_token = botmaster::worker::WorkerOptions { token_file, ..good.clone() };
    assert!(run(no_token).await.unwrap_err().to_string().contains("none"));
    let none = botmaster::worker::WorkerOptions { max_builds: Some(0), ..good };
    assert!(run(none).await.unwrap_err().to_string().contains("1 or more"));
}

#[tokio::test]
async fn two_workers_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let first = tokio::spawn(run(options(&master.address(), dir.path())));
    let mut session = master.attach().await;
    let error = run(options(&master.address(), dir.path())).await.unwrap_err();
    assert!(error.to_string().contains("another worker program"), "{error}");
    session.send(MasterFrame::Shutdown { reason: "done".into() }).await;
    session.closed().await;
    first.await.unwrap().expect("a good end");
}

/// A worker process that runs a build; the last is the process id of a child
/// of the build that has left its group.
async fn building(master: &Master, dir: &std::path::Path) -> (Child, Session, String) {
    let child = spawn(&master.address(), dir);
    let mut session = master.attach().await;
    session.start_build(1).await;
    let line = "setsid sh -c 'echo $$; exec sleep 1000' & wait";
    session.command(1, shell(line)).await;
    session.expect("command_started").await;
    let mut log = Vec::new();
    assert!(session.take_log(&mut log, 2).await.is_none());
    let pid = String::from_utf8(log).unwrap().trim().to_owned();
    assert!(lives(&pid));
    (child, session, pid)
}

async fn exit_of(child: &mut Child) -> (i32, Duration) {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code().expect("an exit"), begun.elapsed());
        }
        assert!(begun.elapsed() < PATIENCE, "the worker does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_end_of_standard_input_ends_everything_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let (mut child, session, pid) = building(&master, dir.path()).await;
    drop(child.stdin.take());
    let (code, took) = exit_of(&mut child).await;
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
    gone(&pid).await;
    drop(session);
}

#[tokio::test]
async fn sigterm_drains_and_a_second_one_ends_everything() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let (mut child, mut session, pid) = building(&master, dir.path()).await;
    let worker = Pid::from_raw(child.id().try_into().unwrap());
    kill(worker, Signal::SIGTERM).unwrap();
    session.expect("draining").await;
    assert!(lives(&pid), "the build goes on");
    kill(worker, Signal::SIGTERM).unwrap();
    let (code, took) = exit_of(&mut child).await;
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
    gone(&pid).await;
}

#[tokio::test]
async fn p04_an_answer_to_a_ping_overtakes_the_text_on_a_slow_link() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::narrow();
    let worker = tokio::spawn(run(options(&master.address(), dir.path())));
    let mut session = master.attach().await;
    session.start_build(1).await;
    // As much as may be unconfirmed: 4 MiB.
    session.command(1, shell("head -c 20000000 /dev/zero | tr '\\0' x")).await;
    session.expect("command_started").await;
    // Four frames of 64 KiB a second: the whole window takes 16 seconds.
    let mut asked = None;
    for number in 0.. {
        if number == 8 {
            session.send(MasterFrame::Ping { id: PingToken(7) }).await;
            asked = Some(Instant::now());
        }
        match session.next().await.expect("a frame") {
            WorkerFrame::Log(_) => tokio::time::sleep(Duration::from_millis(250)).await,
            WorkerFrame::Pong { id } => {
                assert_eq!(id, PingToken(7));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let took = asked.unwrap().elapsed();
    assert!(took < Duration::from_secs(5), "the answer took {took:?}");
    finish(&mut session, 1).await;
    while session.next().await.is_some() {}
    worker.await.unwrap().expect("a good end");
}
