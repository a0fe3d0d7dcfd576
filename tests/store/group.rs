//! The writer: commits that many share, what is told when, restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use botmaster::core::ids::*;
use botmaster::core::values::BuildResult;
use botmaster::store::logs::{Confirm, LogStore, Piece};
use botmaster::store::*;
use rusqlite::Connection;

use crate::logs::{Confirmed, close, open_logs, piece, raw, reopen, row};
use crate::world::*;

/// Holds the database file, so that everything asked for meanwhile waits and
/// then goes into one commit.
fn foreign_lock(dir: &std::path::Path) -> Connection {
    let conn = Connection::open(dir.join("state.sqlite")).unwrap();
    conn.busy_timeout(DEADLINE).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    conn
}

#[test]
fn fd07_a_foreign_writer_is_waited_for_and_a_refused_transaction_is_undone_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, events) = open(dir.path());
    write(&store, declarations()).unwrap();
    let builder = BuilderId(1);
    let mut heard = events.listen();

    let lock = foreign_lock(dir.path());
    let (tell, told) = mpsc::channel();
    let asks = [
        vec![Op::AddBuildset(submission(&[builder]))],
        vec![Op::AddBuildset(submission(&[builder])), start_op(BuildId(9))],
        vec![claim_op(1, builder, &[(RequestId(1), Epoch(0))]), start_op(BuildId(1))],
        vec![claim_op(2, builder, &[(RequestId(1), Epoch(0))])],
        vec![finish_op(BuildId(1), BuildResult::Success, RequestsAfter::Done)],
    ];
    for (place, ops) in asks.into_iter().enumerate() {
        let tell = tell.clone();
        let done = Box::new(move |written| tell.send((place, written)).unwrap());
        store.write(ops.into(), done);
    }
    let (tell_load, told_load) = mpsc::channel();
    store.load_builder(builder, Box::new(move |records| tell_load.send(records).unwrap()));
    assert!(told.try_recv().is_err(), "told before the commit");
    lock.execute_batch("ROLLBACK").unwrap();

    let told: Vec<(usize, Written)> =
        (0..5).map(|_| told.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(told.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(told[0].1.is_ok() && told[2].1.is_ok() && told[4].1.is_ok());
    assert_eq!(told[1].1, Err(StoreError::Missing("build 9".into())));
    assert!(matches!(told[3].1, Err(StoreError::Fenced(_))));
    let records = told_load.recv_timeout(DEADLINE).unwrap().unwrap();
    assert!(records.builds.is_empty() && records.queued.is_empty());
    assert_eq!(records.loaded_through, RequestId(1));

    let mut names = Vec::new();
    let mut numbers = Vec::new();
    while let Ok(event) = heard.try_recv() {
        names.push(name(&event.change));
        numbers.push(event.seq);
    }
    assert_eq!(
        names,
        [
            "BuildsetNew",
            "RequestNew",
            "RequestClaimed",
            "BuildNew",
            "BuildFinished",
            "RequestComplete",
            "BuildsetComplete"
        ]
    );
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    store.close();
}

#[test]
fn i12_an_event_is_heard_only_when_its_row_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, events) = open(dir.path());
    write(&store, declarations()).unwrap();
    let mut heard = events.listen();
    let path = dir.path().join("state.sqlite");
    let reader = std::thread::spawn(move || {
        let conn = Connection::open(path).unwrap();
        let mut seen = 0;
        while seen < 200 {
            let event = heard.blocking_recv().unwrap();
            if let Change::RequestNew(row) = &event.change {
                let id = i64::try_from(row.id.0).unwrap();
                conn.query_row("SELECT 1 FROM requests WHERE id = ?1", [id], |_| Ok(())).unwrap();
                seen += 1;
            }
        }
    });
    let (tell, told) = mpsc::channel();
    for _ in 0..200 {
        let (tell, events) = (tell.clone(), events.clone());
        let before = events.next_seq();
        let done = move |written: Written| {
            assert!(written.is_ok());
            assert!(events.next_seq() > before, "told before its events");
            tell.send(()).unwrap();
        };
        store.write(Transaction::of(Op::AddBuildset(submission(&[BuilderId(1)]))), Box::new(done));
    }
    for _ in 0..200 {
        told.recv_timeout(DEADLINE).unwrap();
    }
    reader.join().unwrap();
    assert_eq!(store.depth(), 0);
    store.close();
}

#[test]
fn everything_is_there_after_a_restart_and_nobody_is_attached() {
    let dir = tempfile::tempdir().unwrap();
    let (store, events) = open(dir.path());
    write(&store, declarations()).unwrap();
    write(&store, vec![Op::AddBuildset(submission(&[BuilderId(1)]))]).unwrap();
    let claim = claim_op(1, BuilderId(1), &[(RequestId(1), Epoch(0))]);
    write(&store, vec![claim, start_op(BuildId(1))]).unwrap();
    let before = load(&store, BuilderId(1));
    let last = events.next_seq();
    store.close();

    let (store, events) = open(dir.path());
    assert!(events.next_seq() > last, "event numbers only grow");
    assert_eq!(load(&store, BuilderId(1)), before);
    let OpOutcome::Worker(worker) =
        write(&store, vec![Op::DeclareWorker { name: "w1".into() }]).unwrap().remove(0)
    else {
        panic!()
    };
    assert!(!worker.connected);
    let again = write(&store, vec![attach_op(WorkerId(1))]).unwrap();
    assert_eq!(again, [OpOutcome::Attached(Incarnation(2))]);
    store.close();
}

#[test]
fn what_is_asked_of_a_closed_store_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let other = store.clone();
    store.close();
    assert_eq!(write(&other, declarations()), Err(StoreError::Closed));
    let (tell, told) = mpsc::channel();
    other.load_builder(BuilderId(1), Box::new(move |records| tell.send(records).unwrap()));
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), Err(StoreError::Closed));
    assert_eq!(other.depth(), 0);
    // The folder is free for the next one.
    open(dir.path()).0.close();
}

/// The other process of [`i12_nothing_told_is_lost_by_kill_9`]: submits as fast
/// as it can and prints each request that it was told of.
#[test]
#[ignore = "runs in a process of its own, started by another test"]
fn child_submits_for_ever() {
    let dir = std::env::var_os("STORE_DIR").expect("STORE_DIR is set by the parent");
    let (store, _) = open(dir.as_ref());
    write(&store, declarations()).unwrap();
    let (tell, told) = mpsc::sync_channel(64);
    for _ in 0..1_000_000 {
        let tell = tell.clone();
        let done = move |written: Written| {
            let _ = tell.try_send(written);
        };
        store.write(Transaction::of(Op::AddBuildset(submission(&[BuilderId(1)]))), Box::new(done));
        while let Ok(Ok(outcomes)) = told.try_recv() {
            let [OpOutcome::Buildset { requests, .. }] = outcomes.as_slice() else { panic!() };
            let mut out = std::io::stdout().lock();
            writeln!(out, "told {}", requests[0].id).unwrap();
        }
        while store.depth() > 32 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn i12_nothing_told_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "group::child_submits_for_ever", "--nocapture"])
        .env("STORE_DIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut told = BTreeSet::new();
    for line in out.lines() {
        if let Some(id) = line.unwrap().strip_prefix("told ") {
            told.insert(RequestId(id.parse().unwrap()));
        }
        if told.len() == 500 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(told.len() >= 500);
    let (store, _) = open(dir.path());
    let queued = load(&store, BuilderId(1)).queued;
    let there: BTreeSet<_> = queued.iter().map(|with| with.row.id).collect();
    assert!(told.is_subset(&there), "{:?}", told.difference(&there));
    store.close();
}

/// The text that the other process writes: each byte tells its place.
fn patterned(from: u64, len: u64) -> Vec<u8> {
    (from..from + len)
        .map(|place| if place % 97 == 0 { b'\n' } else { (place % 251) as u8 })
        .collect()
}

struct Prints;

impl Confirm for Prints {
    fn confirm(&self, _: LogId, have: u64) {
        writeln!(std::io::stdout().lock(), "have {have}").unwrap();
    }
}

/// The other process of [`fl03_no_confirmed_byte_is_lost_by_kill_9`].
#[test]
#[ignore = "runs in a process of its own, started by another test"]
fn child_logs_for_ever() {
    let dir = std::env::var_os("STORE_DIR").expect("STORE_DIR is set by the parent");
    let logs = open_logs(dir.as_ref());
    let budget = logs.budget();
    logs.open(row(1));
    let confirm: Arc<dyn Confirm> = Arc::new(Prints);
    for place in 0..1_000_000_u64 {
        let offset = place * 5000;
        // What a connection does: no more in memory than the budget has room for.
        let permit = loop {
            match budget.clone().try_acquire_many_owned(5000) {
                Ok(permit) => break permit,
                Err(_) => std::thread::yield_now(),
            }
        };
        logs.append(Piece {
            log: LogId(1),
            channel: b'o',
            offset: Some(offset),
            bytes: patterned(offset, 5000).into(),
            at_ms: place,
            confirm: Some(confirm.clone()),
            permit: Some(permit),
        });
    }
}

#[test]
fn fl03_no_confirmed_byte_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "group::child_logs_for_ever", "--nocapture"])
        .env("STORE_DIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut confirmed = 0;
    for line in out.lines() {
        if let Some(have) = line.unwrap().strip_prefix("have ") {
            confirmed = have.parse().unwrap();
        }
        if confirmed > 3_000_000 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(confirmed > 3_000_000);
    let logs = open_logs(dir.path());
    let have = reopen(&logs, 1);
    assert!(have >= confirmed, "{have} of {confirmed} confirmed");
    assert!(raw(&logs.reader(), &row(1), None) == patterned(0, have), "bytes differ");
    let end = patterned(have, 10);
    logs.append(piece(1, b'o', Some(have), &end, &Confirmed::new()));
    let closed = close(&logs, 1, Some(have + 10)).unwrap();
    assert_eq!((closed.length, closed.incomplete), (have + 10, None));
    logs.close();
}
