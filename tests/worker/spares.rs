//! Keepers without a build: they are there before one is needed, are used again,
//! and stay no longer than their worker program.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::entry::program;
use crate::master::{Master, Session};
use crate::outlive::{ended, keeper, keepers, killed, release, signal};
use crate::shop::{PATIENCE, shell};

/// Waits until there are keepers that please `is`.
async fn when(dir: &std::path::Path, is: impl Fn(&[String]) -> bool) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let there = keepers(dir);
        if is(&there) {
            return there;
        }
        assert!(Instant::now() < until, "{there:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn builds(session: &mut Session, dir: &std::path::Path, build: u64) -> Vec<String> {
    session.start_build(build).await;
    session.command(build, shell("true")).await;
    session.expect("command_started").await;
    session.expect("command_finished").await;
    let has = keeper(dir, build);
    release(session, dir, build).await;
    has
}

#[tokio::test]
async fn one_keeper_is_there_before_a_build_and_keeps_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    let spare = when(dir.path(), |all| all.len() == 1).await;
    for build in 1..=3 {
        assert_eq!(builds(&mut session, dir.path(), build).await, spare, "build {build}");
        assert!(keeper(dir.path(), build).is_empty());
    }
    ended(worker);
    assert!(keepers(dir.path()).is_empty());
}

#[tokio::test]
async fn a_keeper_without_a_build_goes_with_its_program_however_that_ends() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    when(dir.path(), |all| all.len() == 1).await;
    killed(worker);
    when(dir.path(), <[String]>::is_empty).await;
    // After a build, too.
    let worker = program(&master.address(), dir.path(), &[]);
    session = {
        drop(session);
        master.attach().await
    };
    builds(&mut session, dir.path(), 1).await;
    when(dir.path(), |all| !all.is_empty()).await;
    killed(worker);
    when(dir.path(), <[String]>::is_empty).await;
    let left = std::fs::read_dir(dir.path().join("work/.botmaster/builds")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn a_keeper_without_a_build_that_was_killed_is_replaced_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let master = Master::new().await;
    let worker = program(&master.address(), dir.path(), &[]);
    let mut session = master.attach().await;
    let spare = when(dir.path(), |all| all.len() == 1).await;
    signal(&spare[0], Signal::SIGKILL);
    when(dir.path(), |all| !all.contains(&spare[0])).await;
    let second = builds(&mut session, dir.path(), 1).await;
    assert_ne!(second, spare);
    let spares = when(dir.path(), |all| !all.is_empty()).await;
    for spare in &spares {
        signal(spare, Signal::SIGKILL);
    }
    let is_new = |all: &[String]| !all.is_empty() && all.iter().all(|one| !spares.contains(one));
    let third = when(dir.path(), is_new).await;
    assert_eq!(builds(&mut session, dir.path(), 2).await, third);
    ended(worker);
    assert!(keepers(dir.path()).is_empty());
}
