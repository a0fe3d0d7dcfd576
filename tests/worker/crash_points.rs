//! The worker program, or a build's keeper, dies at every named point of a build;
//! started again, the build's log is exact and no process is left of an attempt
//! that was given up.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use nix::sys::signal::Signal;

use crate::desk::bytes_of;
use crate::entry::program;
use crate::master::{Master, Session};
use crate::outlive::{
    begin, digest, ended, having, journal, keeper, keepers, killed, mark, release, resume, signal,
};
use crate::shop::{PATIENCE, gone, lives, shell};

/// Two hundred lines, in `copy` too; each start is noted.
const LINE: &str = "rm -f copy; echo $$ >> ../starts; i=0; while [ $i -lt 200 ]; do i=$((i+1)); \
     echo line $i | tee -a copy; done";

/// A master that wants one build done, whatever happens.
struct Wish<'d> {
    dir: &'d Path,
    build: u64,
    log: Vec<u8>,
    /// Attempts whose processes began, and that were given up.
    given_up: Vec<u64>,
    sessions: u32,
}

impl Wish<'_> {
    /// Serves one connection; true when the build is done and forgotten.
    async fn serve(&mut self, session: &mut Session) -> bool {
        self.sessions += 1;
        let mut has = None;
        for item in session.inventory.clone() {
            if item.build.0 == self.build && item.state != InventoryState::Lost {
                has = Some(item.state);
            } else {
                assert_eq!(item.build.0, self.build, "told of long ago: {item:?}");
                session.send(abandon(item.build.0)).await;
                session.expect("abandoned").await;
            }
        }
        if has.is_none() && self.sessions > 1 {
            self.given_up.push(self.build);
            let left = having(&format!("BOTMASTER_BUILD={}@{}", self.build, mark(self.dir)));
            assert!(left.is_empty(), "I3: of an attempt that was given up: {left:?}");
            self.build += 1;
            self.log.clear();
        }
        match has {
            None => session.start_build_with(self.build, self.build, None).await,
            Some(_) => session.send(resume(self.build, self.log.len())).await,
        }
        if has == Some(InventoryState::Waiting) {
            self.command(session).await;
        }
        while let Some(frame) = session.next().await {
            match frame {
                WorkerFrame::BuildAccepted { .. } => self.command(session).await,
                WorkerFrame::Log(piece) if piece.build.0 == self.build => {
                    assert!(piece.offset <= self.log.len() as u64, "a gap: {piece:?}");
                    let known = self.log.len() - usize::try_from(piece.offset).unwrap();
                    self.log.extend(bytes_of(&piece).get(known..).unwrap_or_default());
                    session.confirm(self.build, self.log.len() as u64).await;
                }
                WorkerFrame::CommandFinished { outcome, log_end, log_digest, .. } => {
                    assert_eq!(outcome, Outcome::Exit(0));
                    assert_eq!(log_end[STDIO], self.log.len() as u64);
                    assert_eq!(log_digest[STDIO], digest(&self.log));
                    let result = "success".to_owned();
                    let build = BuildId(self.build);
                    session.send(MasterFrame::BuildFinished { build, result }).await;
                    return true;
                }
                WorkerFrame::Refused { message, .. } => panic!("{message}"),
                WorkerFrame::CommandRefused { message, .. } => panic!("{message}"),
                WorkerFrame::Error(error) => panic!("{error:?}"),
                _ => {}
            }
        }
        false
    }

    async fn command(&self, session: &mut Session) {
        session
            .send(MasterFrame::StartCommand {
                build: BuildId(self.build),
                epoch: Epoch(self.build),
                command: CommandId::for_step(BuildId(self.build), 0),
                work: shell(LINE),
            })
            .await;
    }
}

fn abandon(build: u64) -> MasterFrame {
    MasterFrame::Resume(Resume {
        build: BuildId(build),
        command: None,
        r#do: ResumeAction::Abandon,
        log_from: [].into(),
    })
}

fn died(worker: &mut Child) -> bool {
    match worker.try_wait().unwrap() {
        None => false,
        Some(status) => {
            assert_eq!(status.signal(), Some(9), "{status}");
            true
        }
    }
}

async fn dies_at(point: &str) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let master = Master::new().await;
    let of_keeper = point.starts_with("keeper.");
    let mut worker = program(&master.address(), dir, &[("BOTMASTER_CRASH_POINT", point)]);
    let mut wish = Wish { dir, build: 1, log: Vec::new(), given_up: Vec::new(), sessions: 0 };
    let mut crashes = 0;
    let mut died_at_the_end = false;
    if point.starts_with("worker.keeper.") {
        // One is started before there is a build.
        dies(&mut worker).await;
        crashes = 1;
        worker = program(&master.address(), dir, &[]);
    }
    loop {
        let mut session = master.attach().await;
        let done = wish.serve(&mut session).await;
        // The end of a connection may be all that a keeper's death comes to.
        let limit = if done { PATIENCE } else { Duration::from_millis(500) };
        let until = Instant::now() + limit;
        let mut gone = died(&mut worker);
        while !gone && Instant::now() < until && (!done || journal(dir, wish.build).exists()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            gone = died(&mut worker);
        }
        assert!(gone || !done || Instant::now() < until, "{point}: the build's journal stays");
        if gone {
            crashes += 1;
            died_at_the_end = done;
            worker = program(&master.address(), dir, &[]);
        } else if of_keeper && !done {
            // The next keeper is to live.
            killed(worker);
            worker = program(&master.address(), dir, &[]);
        }
        if done {
            break;
        }
    }
    assert_eq!(crashes, u32::from(!of_keeper), "{point}");
    // Only what ends a keeper before its result is there costs the build.
    let costs = of_keeper && !["keeper.result.renamed", "keeper.before_sweep"].contains(&point);
    assert!(wish.given_up.len() == 1 || !costs, "{point}: its keeper did not die");
    let copy = std::fs::read(dir.join("work/a/build/copy")).unwrap();
    assert!(wish.log == copy, "{point}: {} and {} bytes", wish.log.len(), copy.len());
    assert_eq!(wish.log.split(|&byte| byte == b'\n').count(), 201, "{point}");
    let starts = std::fs::read_to_string(dir.join("work/a/starts")).unwrap().lines().count();
    let attempts = 1 + wish.given_up.len();
    assert!(starts <= attempts, "{point}: {starts} starts of {attempts} attempts");
    // Whatever it had still to forget is told again, and forgotten then.
    if died_at_the_end {
        let mut session = master.attach().await;
        for item in session.inventory.clone() {
            session.send(abandon(item.build.0)).await;
            session.expect("abandoned").await;
        }
    }
    let until = Instant::now() + PATIENCE;
    let builds = dir.join("work/.botmaster/builds");
    while std::fs::read_dir(&builds).unwrap().next().is_some() {
        assert!(Instant::now() < until, "{point}: something stays in {}", builds.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mark = mark(dir);
    ended(worker);
    assert!(keepers(dir).is_empty(), "{point}");
    for build in 1..=wish.build {
        assert!(having(&format!("BOTMASTER_BUILD={build}@{mark}")).is_empty(), "{point}");
    }
    println!("{point}: {crashes} crashes, {attempts} attempts");
}

#[tokio::test]
async fn fr04_fr10_the_worker_program_may_die_at_any_point_of_a_build() {
    for point in [
        "worker.journal.before_write",
        "worker.journal.after_write",
        "worker.keeper.before_spawn",
        "worker.keeper.after_spawn",
        "worker.before_build_accepted",
        "worker.command.before_write",
        "worker.command.after_write",
        "worker.before_command_started",
        "worker.before_log",
        "worker.before_log:2",
        "worker.result.found",
        "worker.before_command_finished",
        "worker.build.before_forget",
        "worker.journal.before_delete",
        "worker.journal.after_delete",
    ] {
        dies_at(point).await;
    }
}

#[tokio::test]
async fn fr05_a_builds_keeper_may_die_at_any_point_of_a_build() {
    for point in [
        "keeper.before_spawn",
        "keeper.started",
        "keeper.spool.before_append",
        "keeper.spool.appended",
        "keeper.result.written",
        "keeper.result.renamed",
        "keeper.before_sweep",
    ] {
        dies_at(point).await;
    }
}

/// Does not listen to TERM.
const DEAF: &str = "trap '' TERM; echo $$; while :; do sleep 0.1; done";

/// Starts build 1 with this line; its process, and a program that dies at `point`.
async fn begun(point: &str, master: &Master, dir: &Path, line: &str) -> (Child, Session, String) {
    let worker = program(&master.address(), dir, &[("BOTMASTER_CRASH_POINT", point)]);
    let mut session = master.attach().await;
    begin(&mut session, line).await;
    let mut log = Vec::new();
    assert!(session.take_log(&mut log, 2).await.is_none());
    (worker, session, String::from_utf8(log).unwrap().trim().to_owned())
}

async fn dies(worker: &mut Child) {
    let until = Instant::now() + PATIENCE;
    while !died(worker) {
        assert!(Instant::now() < until, "it does not die");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn fr10_the_worker_program_may_die_before_it_ends_a_command() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let master = Master::new().await;
    let (mut worker, mut session, pid) =
        begun("worker.before_kill", &master, dir, "echo $$; exec sleep 1000").await;
    let command = CommandId::for_step(BuildId(1), 0);
    let (build, reason) = (BuildId(1), "stopped".to_owned());
    let interrupt = MasterFrame::Interrupt { build, command, grace_s: 1, reason };
    session.send(interrupt.clone()).await;
    dies(&mut worker).await;
    assert!(lives(&pid), "nobody has ended it");
    drop(session);
    // The master, which has heard nothing, says it again.
    let worker = program(&master.address(), dir, &[]);
    let mut session = master.attach().await;
    assert_eq!(session.inventory[0].state, InventoryState::Running);
    session.send(resume(1, 0)).await;
    session.expect("command_started").await;
    session.send(interrupt).await;
    let Some(WorkerFrame::CommandFinished { outcome, .. }) =
        session.take_log(&mut Vec::new(), usize::MAX).await
    else {
        panic!("it ends")
    };
    assert_eq!(outcome, Outcome::Killed("stopped".into()));
    gone(&pid).await;
    release(&mut session, dir, 1).await;
    ended(worker);
}

#[tokio::test]
async fn fr04_the_worker_program_may_die_before_it_says_that_it_abandoned_a_build() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let master = Master::new().await;
    let (mut worker, mut session, pid) =
        begun("worker.before_abandoned", &master, dir, "echo $$; exec sleep 1000").await;
    session.send(abandon(1)).await;
    dies(&mut worker).await;
    assert!(!lives(&pid), "it was about to say that nothing is left");
    drop(session);
    let worker = program(&master.address(), dir, &[]);
    let mut session = master.attach().await;
    // What it still knows it is told again, and answers then.
    for item in session.inventory.clone() {
        assert_eq!((item.build, item.state), (BuildId(1), InventoryState::Lost));
        session.send(abandon(1)).await;
        session.expect("abandoned").await;
    }
    session.start_build_with(1, 2, None).await;
    session.expect("build_accepted").await;
    release(&mut session, dir, 1).await;
    ended(worker);
}

#[tokio::test]
async fn fr05_fr13_a_keeper_may_die_while_it_ends_its_build_for_the_lease() {
    for point in ["keeper.lease.term", "keeper.lease.kill"] {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let master = Master::with_lease(3).await;
        let (worker, session, pid) = begun(point, &master, dir, DEAF).await;
        let keeps = keeper(dir, 1);
        signal(&worker.id().to_string(), Signal::SIGSTOP);
        gone(&keeps[0]).await;
        assert!(lives(&pid), "{point}: nobody has ended it");
        drop(session);
        // The worker program, once it is awake, ends what the keeper left.
        signal(&worker.id().to_string(), Signal::SIGCONT);
        let mut session = master.attach().await;
        let [item] = &session.inventory[..] else { panic!("{:?}", session.inventory) };
        assert_eq!(item.build, BuildId(1));
        session.send(abandon(1)).await;
        session.expect("abandoned").await;
        assert!(!lives(&pid), "{point}: I3");
        ended(worker);
        assert!(keepers(dir).is_empty());
    }
}
