//! Orphans: what a build leaves behind becomes the worker's child. Each test has
//! a worker process of its own, because its children are looked at.

use std::process::Child;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;

use crate::entry::spawn;
use crate::master::{Master, Session};
use crate::shop::{PATIENCE, gone, lives, shell};

/// All children of the worker, zombies too, but for keepers that have no build
/// and no child themselves.
fn children(worker: &Child) -> Vec<String> {
    let mut all = children_of(&worker.id().to_string());
    all.retain(|pid| !is_spare(pid) || !children_of(pid).is_empty());
    all
}

fn is_spare(pid: &str) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let is_keeper = environ.split(|&byte| byte == 0).any(|v| v.starts_with(b"BOTMASTER_KEEPER="));
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd"));
    is_keeper && folder.is_ok_and(|folder| folder.ends_with("work"))
}

fn children_of(pid: &str) -> Vec<String> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| {
        // A thread may end in between.
        std::fs::read_to_string(task.path().join("children")).ok()
    });
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

async fn until_childless(worker: &Child) {
    let until = Instant::now() + PATIENCE;
    while !children(worker).is_empty() {
        assert!(Instant::now() < until, "children stay: {:?}", children(worker));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs `line` as the whole of `build` up to its command's end; answers with
/// what it printed.
async fn run(session: &mut Session, build: u64, line: &str) -> String {
    session.start_build(build).await;
    session.command(build, shell(line)).await;
    session.expect("command_started").await;
    let mut log = Vec::new();
    let end = session.take_log(&mut log, usize::MAX).await;
    let Some(WorkerFrame::CommandFinished { outcome, note, .. }) = end else { panic!("{end:?}") };
    assert_eq!((outcome, note), (Outcome::Exit(0), String::new()));
    String::from_utf8(log).unwrap()
}

async fn release(session: &mut Session, build: u64) {
    let result = "success".to_owned();
    session.send(MasterFrame::BuildFinished { build: BuildId(build), result }).await;
}

/// Prints its process id, leaves its group and its parent, and stays.
const DAEMON: &str = "(setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' &)";
/// The same, and forgets all variables.
const STRAY: &str = "(env -i setsid /bin/sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' &)";

#[tokio::test]
async fn adopted_orphans_are_waited_for_over_two_hundred_builds() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let mut worker = spawn(&master.address(), dir.path());
    let mut session = master.attach().await;
    let mut most = 0;
    for build in 1..=200 {
        // One that has ended before anybody looks, and one that is ended.
        let line = if build % 20 == 0 { DAEMON } else { "(setsid true >/dev/null 2>&1 &)" };
        let pid = run(&mut session, build, line).await;
        release(&mut session, build).await;
        if build % 20 == 0 {
            gone(pid.trim()).await;
        }
        most = most.max(children(&worker).len());
    }
    assert!(most < 50, "zombies pile up: {most}");
    until_childless(&worker).await;
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
}

#[tokio::test]
async fn orphans_of_a_build_that_goes_on_are_waited_for_too() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let mut worker = spawn(&master.address(), dir.path());
    let mut session = master.attach().await;
    let line = "i=0; while [ $i -lt 20 ]; do (setsid true >/dev/null 2>&1 &); i=$((i+1)); done";
    run(&mut session, 1, line).await;
    let [keeper] = &children(&worker)[..] else { panic!("the build's keeper and nobody else") };
    let until = Instant::now() + PATIENCE;
    while !children_of(keeper).is_empty() {
        assert!(Instant::now() < until, "children stay: {:?}", children_of(keeper));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(lives(keeper));
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
}

#[tokio::test]
async fn what_a_build_leaves_is_ended_and_nothing_of_another_build() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let mut worker = spawn(&master.address(), dir.path());
    let mut session = master.attach().await;
    let other = run(&mut session, 2, DAEMON).await;
    let daemon = run(&mut session, 1, DAEMON).await;
    release(&mut session, 1).await;
    gone(daemon.trim()).await;
    assert!(lives(other.trim()));
    release(&mut session, 2).await;
    gone(other.trim()).await;
    until_childless(&worker).await;
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
}

/// Nothing in its environment tells whose a stray is; but its build's keeper has
/// adopted it.
#[tokio::test]
async fn a_stray_is_ended_with_its_build_and_no_other_builds() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let mut worker = spawn(&master.address(), dir.path());
    let mut session = master.attach().await;
    let other = run(&mut session, 2, STRAY).await;
    let both = run(&mut session, 1, &format!("{STRAY}; {DAEMON}; sleep 0.2")).await;
    // Which of the two speaks first is open.
    let pids: Vec<&str> = both.split_whitespace().collect();
    assert_eq!(pids.len(), 2, "{both}");
    let is_stray = |pid: &&&str| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        !String::from_utf8_lossy(&environ).contains("BOTMASTER_BUILD")
    };
    let stray = *pids.iter().find(is_stray).expect("a stray");
    let daemon = *pids.iter().find(|pid| **pid != stray).expect("a daemon");
    release(&mut session, 1).await;
    gone(daemon).await;
    gone(stray).await;
    assert!(lives(other.trim()), "it is the other build's");
    release(&mut session, 2).await;
    gone(other.trim()).await;
    until_childless(&worker).await;
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
}

#[tokio::test]
async fn a_stray_does_not_outlive_the_worker() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let mut worker = spawn(&master.address(), dir.path());
    let mut session = master.attach().await;
    let pid = run(&mut session, 1, STRAY).await;
    assert!(lives(pid.trim()));
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
    gone(pid.trim()).await;
}
