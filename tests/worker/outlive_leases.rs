//! Leases that hold without the worker program: the build's keeper ends it.

use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use nix::sys::signal::Signal;

use crate::entry::program;
use crate::master::{Master, Session};
use crate::outlive::{begin, ended, journal, keeper, killed, resume, signal};
use crate::shop::{gone, lives, shell};

/// Says its process id and stays.
const STAYS: &str = "echo $$; exec sleep 1000";

async fn pid_of(session: &mut Session) -> String {
    let mut log = Vec::new();
    assert!(session.take_log(&mut log, 2).await.is_none());
    String::from_utf8(log).unwrap().trim().to_owned()
}

async fn outcome(session: &mut Session) -> Outcome {
    session.send(resume(1, 0)).await;
    loop {
        match session.take_log(&mut Vec::new(), usize::MAX).await {
            Some(WorkerFrame::CommandStarted { .. }) => {}
            Some(WorkerFrame::CommandFinished { outcome, .. }) => return outcome,
            other => panic!("{other:?}"),
        }
    }
}

/// Row FR14: better than it asks, the build does not run on.
#[tokio::test]
async fn fr14_a_frozen_worker_program_does_not_let_its_build_outlive_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::with_lease(3).await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, STAYS).await;
    let pid = pid_of(&mut session).await;
    signal(&worker.id().to_string(), Signal::SIGSTOP);
    let begun = Instant::now();
    gone(&pid).await;
    let took = begun.elapsed();
    // The lease counts from the last confirmed heartbeat, at most a second ago.
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    assert!(took < Duration::from_secs(8), "long after its lease: {took:?}");
    drop(session);
    signal(&worker.id().to_string(), Signal::SIGCONT);
    let mut session = master.attach().await;
    assert_eq!(session.inventory[0].build, BuildId(1));
    assert_eq!(outcome(&mut session).await, Outcome::Killed("lease".into()));
    ended(worker);
}

#[tokio::test]
async fn fr13_ft03_the_lease_of_a_dead_worker_programs_build_is_kept_and_noted() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::with_lease(3).await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, STAYS).await;
    let pid = pid_of(&mut session).await;
    killed(worker);
    gone(&pid).await;
    for keeper in keeper(dir.path(), 1) {
        gone(&keeper).await;
    }
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    assert_eq!(session.inventory[0].state, InventoryState::Finished);
    assert_eq!(outcome(&mut session).await, Outcome::Killed("lease".into()));
    ended(worker);
}

#[tokio::test]
async fn a_flood_that_nobody_reads_does_not_outlive_its_lease() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::with_lease(3).await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, "trap '' TERM; while :; do echo yes yes yes yes; done").await;
    killed(worker);
    let keepers = keeper(dir.path(), 1);
    assert_eq!(keepers.len(), 1);
    gone(&keepers[0]).await;
    assert!(journal(dir.path(), 1).join("0/result").exists());
    let worker = program(&master.address(), dir.path(), &[]);
    let session = master.attach().await;
    assert_eq!(session.inventory[0].state, InventoryState::Finished);
    ended(worker);
}

#[tokio::test]
async fn a_build_with_a_lease_without_end_outlives_that_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::with_lease(2).await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    session.start_build_with(1, 1, Some(0)).await;
    session.expect("build_accepted").await;
    session.command(1, shell(STAYS)).await;
    session.expect("command_started").await;
    let endless = pid_of(&mut session).await;
    session.start_build(2).await;
    session.command(2, shell(STAYS)).await;
    session.expect("command_started").await;
    let WorkerFrame::Log(piece) = session.expect("log").await else { panic!() };
    let other = piece.text.unwrap().trim().to_owned();
    killed(worker);
    gone(&other).await;
    assert!(lives(&endless));
    // What a restarted program knows of it is the same.
    let worker = program(&master.address(), dir.path(), &[]);
    let session = master.attach().await;
    drop((session, master));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(lives(&endless));
    ended(worker);
    gone(&endless).await;
}

#[tokio::test]
async fn a_longer_lease_before_a_planned_stop_is_kept_until_the_next_attach() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::with_lease(2).await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    begin(&mut session, STAYS).await;
    let pid = pid_of(&mut session).await;
    session.send(MasterFrame::Lease { lease_s: 3600 }).await;
    session.send(MasterFrame::Ping { id: PingToken(1) }).await;
    session.expect("pong").await;
    // Nobody confirms anything for twice the usual lease.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(lives(&pid));
    drop(session);
    let mut session = master.attach().await;
    assert_eq!(session.inventory[0].state, InventoryState::Running);
    session.send(resume(1, pid.len() + 1)).await;
    // From here on it is the usual one.
    gone(&pid).await;
    drop(session);
    ended(worker);
}
