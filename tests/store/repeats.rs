//! Writes that are asked for twice, and a disk that is slow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::core::values::BuildResult;
use botmaster::store::*;
use rusqlite::Connection;

use crate::world::*;

/// Every row of every table.
fn dump(dir: &Path) -> Vec<String> {
    let conn = Connection::open(dir.join("state.sqlite")).unwrap();
    let tables: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut all = Vec::new();
    for table in tables {
        let mut statement = conn.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<String> =
                (0..columns).map(|column| format!("{:?}", row.get_ref(column).unwrap())).collect();
            all.push(format!("{table}: {}", values.join(" ")));
        }
    }
    all
}

#[test]
fn fd05_a_write_whose_answer_was_lost_is_asked_again_and_changes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _events) = open(dir.path());
    write(&store, declarations()).unwrap();
    let builder = BuilderId(1);
    let with_key = NewBuildset { idempotency_key: Some("k1".into()), ..submission(&[builder]) };
    let build = BuildId(1);
    let step = Op::StartStep {
        build,
        number: 0,
        name: "make".into(),
        state_string: "make".into(),
        logs: vec!["stdio".into()],
        at: at(31),
    };
    let end_step = vec![
        Op::FinishLog {
            log: LogId(1),
            num_lines: 1,
            length: 4,
            inline: Some(b"o".as_slice().into()),
            incomplete: None,
        },
        Op::FinishStep {
            step: StepId(1),
            result: BuildResult::Success,
            state_string: "made".into(),
            at: at(35),
        },
    ];
    let writes: Vec<(&str, Vec<Op>)> = vec![
        ("a submission with its key", vec![Op::AddBuildset(with_key)]),
        ("a claim with its id", vec![claim_op(7, builder, &[(RequestId(1), Epoch(0))])]),
        ("the start", vec![start_op(build)]),
        ("a step", vec![step]),
        ("the end of a step and its log", end_step),
        ("an adoption", vec![Op::AdoptBuild { build, incarnation: Incarnation(1) }]),
        ("a wish", vec![Op::WantStop { build, reason: "enough".into() }]),
        ("the end", vec![finish_op(build, BuildResult::Cancelled, RequestsAfter::Done)]),
        ("a cancel", vec![Op::CancelRequests { requests: vec![RequestId(1)], at: at(50) }]),
    ];
    for (what, ops) in writes {
        let first = write(&store, ops.clone());
        assert!(first.is_ok(), "{what}: {first:?}");
        let before = dump(dir.path());
        let second = write(&store, ops);
        assert_eq!(dump(dir.path()), before, "{what} was done twice: {second:?}");
        // Whoever asks again is answered as before, or told for good that there
        // is nothing of it left to do.
        match second {
            Ok(outcomes) => assert_eq!(outcomes.len(), first.unwrap().len(), "{what}"),
            Err(error) => assert!(error.is_final() && what == "the end", "{what}: {error}"),
        }
    }
    store.close();
}

#[test]
fn fd13_on_a_slow_disk_all_who_wait_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _events) = open(dir.path());
    write(&store, declarations()).unwrap();
    // Somebody keeps each commit waiting for as long as a slow disk would.
    let (stop, stopped) = mpsc::channel::<()>();
    let path = dir.path().join("state.sqlite");
    let slow = std::thread::spawn(move || {
        let conn = Connection::open(path).unwrap();
        conn.busy_timeout(DEADLINE).unwrap();
        while stopped.try_recv().is_err() {
            conn.execute_batch("BEGIN IMMEDIATE").unwrap();
            std::thread::sleep(Duration::from_millis(200));
            conn.execute_batch("ROLLBACK").unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let began = Instant::now();
    let (tell, told) = mpsc::channel();
    for _ in 0..500 {
        let tell = tell.clone();
        let ask = Transaction::of(Op::AddBuildset(submission(&[BuilderId(1)])));
        store.write(ask, Box::new(move |written| tell.send(written).unwrap()));
    }
    for _ in 0..500 {
        assert!(told.recv_timeout(DEADLINE).unwrap().is_ok());
    }
    let took = began.elapsed();
    stop.send(()).unwrap();
    slow.join().unwrap();
    // One commit each would take 100 s.
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(load(&store, BuilderId(1)).queued.len(), 500);
    store.close();
}
