//! Builds that outlive their worker program: the built program is killed with
//! KILL and started again, against a scripted master.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest as _, Sha256};

use crate::entry::program;
use crate::master::{Master, Session};
use crate::shop::{PATIENCE, gone, lives, shell};

/// Writes lines with their numbers, each also into the file `copy`, until the
/// gate in the folder above the worker's is open; notes its start in `starts`.
pub const COUNTING: &str = "echo $$ >> starts; i=0; while [ ! -e ../../../gate ]; do i=$((i+1)); \
     echo line $i | tee -a copy; sleep 0.01; done; echo end | tee -a copy";

pub fn resume(build: u64, have: usize) -> MasterFrame {
    MasterFrame::Resume(Resume {
        build: BuildId(build),
        command: Some(CommandId::for_step(BuildId(build), 0)),
        r#do: ResumeAction::Continue,
        log_from: [(STDIO.to_owned(), have as u64)].into(),
    })
}

pub fn signal(pid: &str, signal: Signal) {
    kill(Pid::from_raw(pid.trim().parse().unwrap()), signal).unwrap();
}

/// As `kill -9` does it.
pub fn killed(mut worker: Child) {
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// Ends the worker in order: nothing of it stays.
pub fn ended(mut worker: Child) {
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
}

/// Processes whose environment has a variable that begins so.
pub fn having(variable: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| {
        let environ = std::fs::read(entry.path().join("environ")).ok()?;
        let pid = entry.file_name().into_string().ok()?;
        let mut variables = environ.split(|&byte| byte == 0);
        variables.any(|one| one.starts_with(variable.as_bytes())).then_some(pid)
    })
    .filter(|pid| lives(pid))
    .collect()
}

/// What the processes of the worker in `dir` are marked with.
pub fn mark(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("work/.botmaster-lock")).unwrap().trim().to_owned()
}

/// All keepers of the worker in `dir`, with and without a build.
pub fn keepers(dir: &Path) -> Vec<String> {
    having(&format!("BOTMASTER_KEEPER=keeper@{}", mark(dir)))
}

/// The keeper of a build: its working folder says so.
pub fn keeper(dir: &Path, build: u64) -> Vec<String> {
    let place = format!(".botmaster/builds/{build}");
    let keeps = |pid: &String| {
        let folder = std::fs::read_link(format!("/proc/{pid}/cwd"));
        folder.is_ok_and(|folder| folder.ends_with(&place))
    };
    keepers(dir).into_iter().filter(keeps).collect()
}

pub fn journal(dir: &Path, build: u64) -> std::path::PathBuf {
    dir.join(format!("work/.botmaster/builds/{build}"))
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts build 1 with this line and waits until its process runs.
pub async fn begin(session: &mut Session, line: &str) {
    session.start_build(1).await;
    session.command(1, shell(line)).await;
    session.expect("command_started").await;
}

/// Takes the rest of the log; the log and its digest are those of the file `copy`.
pub async fn whole(session: &mut Session, dir: &Path, log: &mut Vec<u8>) -> Outcome {
    let end = loop {
        match session.take_log(log, usize::MAX).await {
            Some(WorkerFrame::CommandStarted { .. }) => {}
            end => break end,
        }
    };
    let Some(WorkerFrame::CommandFinished { outcome, log_end, log_digest, .. }) = end else {
        panic!("{end:?}")
    };
    let copy = std::fs::read(dir.join("work/a/build/copy")).unwrap();
    assert!(*log == copy, "{} and {} bytes", log.len(), copy.len());
    assert_eq!(log_end[STDIO], log.len() as u64);
    assert_eq!(log_digest[STDIO], digest(log));
    outcome
}

pub async fn release(session: &mut Session, dir: &Path, build: u64) {
    let result = "success".to_owned();
    session.send(MasterFrame::BuildFinished { build: BuildId(build), result }).await;
    let until = Instant::now() + PATIENCE;
    while journal(dir, build).exists() {
        assert!(Instant::now() < until, "the journal of a finished build stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn starts(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("work/a/build/starts")).unwrap().lines().count()
}

#[tokio::test]
async fn fr04_a_worker_program_killed_in_a_command_comes_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let mut worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    let first = session.attach.instance.clone();
    begin(&mut session, COUNTING).await;
    let mut log = Vec::new();
    assert!(session.take_log(&mut log, 100).await.is_none());
    // Three times, each time in the middle of the output.
    for round in 1..=3usize {
        killed(worker);
        let before = std::fs::metadata(dir.path().join("work/a/build/copy")).unwrap().len();
        worker = program(&master.address(), dir.path(), &[]);
        session = master.attach().await;
        assert_ne!(session.attach.instance, first);
        let [item] = &session.inventory[..] else { panic!("{:?}", session.inventory) };
        assert_eq!(
            (item.build, item.epoch, item.state),
            (BuildId(1), Epoch(1), InventoryState::Running)
        );
        assert_eq!(item.command, Some(CommandId::for_step(BuildId(1), 0)));
        assert!(item.log_end[STDIO] >= log.len() as u64);
        session.send(resume(1, log.len())).await;
        session.expect("command_started").await;
        let more = usize::try_from(before).unwrap() + 100 * round;
        assert!(session.take_log(&mut log, more).await.is_none());
    }
    std::fs::write(dir.path().join("gate"), "").unwrap();
    assert_eq!(whole(&mut session, dir.path(), &mut log).await, Outcome::Exit(0));
    assert_eq!(starts(dir.path()), 1, "it ran once");
    assert!(log.starts_with(b"line 1\nline 2\n") && log.ends_with(b"end\n"));
    // The build goes on to its next command as if nothing had been.
    let next = CommandId::for_step(BuildId(1), 1);
    session
        .send(MasterFrame::StartCommand {
            build: BuildId(1),
            epoch: Epoch(1),
            command: next.clone(),
            work: shell("echo second"),
        })
        .await;
    session.expect("command_started").await;
    let WorkerFrame::Log(piece) = session.expect("log").await else { panic!() };
    assert_eq!((piece.command, piece.offset, piece.text), (next, 0, Some("second\n".into())));
    session.expect("command_finished").await;
    release(&mut session, dir.path(), 1).await;
    ended(worker);
    assert!(keepers(dir.path()).is_empty());
}

#[tokio::test]
async fn fr04_a_master_that_lost_what_it_had_gets_the_log_from_where_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, COUNTING).await;
    let mut log = Vec::new();
    assert!(session.take_log(&mut log, 500).await.is_none());
    killed(worker);
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    // Row FL03: it was cut back to what was durable.
    log.truncate(123);
    session.send(resume(1, 123)).await;
    session.expect("command_started").await;
    std::fs::write(dir.path().join("gate"), "").unwrap();
    assert_eq!(whole(&mut session, dir.path(), &mut log).await, Outcome::Exit(0));
    ended(worker);
}

#[tokio::test]
async fn fr05_a_worker_killed_with_its_keeper_tells_at_once_that_the_build_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, "echo $$ > copy; cat copy; (env -i setsid sleep 1000 &); sleep 1000").await;
    let mut log = Vec::new();
    assert!(session.take_log(&mut log, 2).await.is_none());
    let pid = String::from_utf8(log).unwrap();
    let keepers = keeper(dir.path(), 1);
    assert_eq!(keepers.len(), 1);
    killed(worker);
    signal(&keepers[0], Signal::SIGKILL);
    gone(&keepers[0]).await;
    assert!(lives(pid.trim()), "the command itself outlived both");
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    assert!(!lives(pid.trim()), "I3: it runs on, and the build is told to be lost");
    let [item] = &session.inventory[..] else { panic!("{:?}", session.inventory) };
    assert_eq!((item.build, item.state), (BuildId(1), InventoryState::Lost));
    session
        .send(MasterFrame::Resume(Resume {
            build: BuildId(1),
            command: None,
            r#do: ResumeAction::Abandon,
            log_from: [].into(),
        }))
        .await;
    session.expect("abandoned").await;
    assert!(!journal(dir.path(), 1).exists());
    ended(worker);
}

#[tokio::test]
async fn fr05_a_keeper_that_is_killed_alone_is_told_with_a_new_inventory() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, "echo $$ > copy; cat copy; sleep 1000").await;
    let mut log = Vec::new();
    assert!(session.take_log(&mut log, 2).await.is_none());
    signal(&keeper(dir.path(), 1)[0], Signal::SIGKILL);
    session.closed().await;
    let session = master.attach().await;
    let [item] = &session.inventory[..] else { panic!("{:?}", session.inventory) };
    assert_eq!((item.build, item.state), (BuildId(1), InventoryState::Lost));
    assert!(!lives(String::from_utf8(log).unwrap().trim()));
    ended(worker);
}

#[tokio::test]
async fn fr06_after_a_reboot_what_ran_is_lost_and_what_had_ended_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[("BOTMASTER_PRETENDED_BOOT", "one")]);
    let mut session = master.attach().await;
    session.start_build(2).await;
    session.command(2, shell("echo two | tee copy")).await;
    let started = session.expect("command_started").await;
    assert!(matches!(started, WorkerFrame::CommandStarted { build: BuildId(2), .. }));
    session.expect("log").await;
    session.expect("command_finished").await;
    session.start_build(1).await;
    session.command(1, shell("sleep 1000")).await;
    session.expect("command_started").await;
    let processes = having(&format!("BOTMASTER_BUILD=1@{}", mark(dir.path())));
    assert!(!processes.is_empty());
    killed(worker);
    let worker = program(&master.address(), dir.path(), &[("BOTMASTER_PRETENDED_BOOT", "two")]);
    let mut session = master.attach().await;
    let states: Vec<_> = session.inventory.iter().map(|item| (item.build.0, item.state)).collect();
    assert_eq!(states, [(1, InventoryState::Lost), (2, InventoryState::Finished)]);
    assert!(processes.iter().all(|pid| !lives(pid)), "I3");
    session.send(resume(2, 0)).await;
    session.expect("command_started").await;
    let mut log = Vec::new();
    let end = session.take_log(&mut log, usize::MAX).await;
    let Some(WorkerFrame::CommandFinished { outcome, log_digest, .. }) = end else {
        panic!("{end:?}")
    };
    assert_eq!((log.as_slice(), outcome), (b"two\n".as_slice(), Outcome::Exit(0)));
    assert_eq!(log_digest[STDIO], digest(b"two\n"));
    ended(worker);
}

#[tokio::test]
async fn fr10_a_command_that_ends_while_the_worker_program_is_dead_is_delivered_later() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, COUNTING).await;
    let mut log = Vec::new();
    assert!(session.take_log(&mut log, 50).await.is_none());
    killed(worker);
    std::fs::write(dir.path().join("gate"), "").unwrap();
    let result = journal(dir.path(), 1).join("0/result");
    let until = Instant::now() + PATIENCE;
    while !result.exists() {
        assert!(Instant::now() < until, "no result was written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Twice: until the master has said that the build is over, it is kept.
    for _ in 0..2 {
        let worker = program(&master.address(), dir.path(), &[]);
        let mut session = master.attach().await;
        let [item] = &session.inventory[..] else { panic!("{:?}", session.inventory) };
        assert_eq!(item.state, InventoryState::Finished);
        let mut log = log.clone();
        session.send(resume(1, log.len())).await;
        assert_eq!(whole(&mut session, dir.path(), &mut log).await, Outcome::Exit(0));
        assert!(journal(dir.path(), 1).exists());
        killed(worker);
    }
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    session.send(resume(1, 0)).await;
    let mut log = Vec::new();
    whole(&mut session, dir.path(), &mut log).await;
    release(&mut session, dir.path(), 1).await;
    killed(worker);
    let worker = program(&master.address(), dir.path(), &[]);
    let session = master.attach().await;
    assert!(session.inventory.is_empty());
    ended(worker);
}

#[tokio::test]
async fn fb05_epochs_outlive_the_worker_program() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    session.start_build_with(5, 7, None).await;
    session.expect("build_accepted").await;
    release(&mut session, dir.path(), 5).await;
    killed(worker);
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    assert!(session.inventory.is_empty());
    session.start_build_with(4, 6, None).await;
    let WorkerFrame::Refused { code, .. } = session.expect("refused").await else { panic!() };
    assert_eq!(code, "stale");
    session.start_build_with(6, 7, None).await;
    session.expect("build_accepted").await;
    ended(worker);
}

#[tokio::test]
async fn fl04_a_log_is_sent_again_from_its_first_byte_once() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::with_window(256 * 1024).await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, "head -c 3000000 /dev/urandom | tee copy").await;
    let mut log = Vec::new();
    whole(&mut session, dir.path(), &mut log).await;
    let again = MasterFrame::LogAgain {
        build: BuildId(1),
        command: CommandId::for_step(BuildId(1), 0),
        log: STDIO.into(),
    };
    session.send(again.clone()).await;
    log.clear();
    whole(&mut session, dir.path(), &mut log).await;
    assert_eq!(log.len(), 3_000_000);
    session.send(again).await;
    let WorkerFrame::Error(error) = session.expect("error").await else { panic!() };
    assert_eq!(error.code, "unexpected");
    ended(worker);
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_moved_aside_and_the_worker_starts() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, "sleep 1000").await;
    let keepers = keeper(dir.path(), 1);
    killed(worker);
    std::fs::write(journal(dir.path(), 1).join("journal"), "{\"build\":1,\n").unwrap();
    let worker = program(&master.address(), dir.path(), &[]);
    let session = master.attach().await;
    assert!(session.inventory.is_empty());
    assert!(!lives(&keepers[0]));
    assert!(having(&format!("BOTMASTER_BUILD=1@{}", mark(dir.path()))).is_empty(), "I3");
    assert!(dir.path().join("work/.botmaster/unreadable/1.0/journal").exists());
    ended(worker);
}
