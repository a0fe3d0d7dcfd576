//! What was expected of builds and requests is kept, and told beside what came.

use std::time::Duration;

use botmaster::core::builder::{Accuracy, Estimate, Expectations, Prediction, QueuedEta};
use botmaster::core::ids::*;
use botmaster::core::values::BuildResult;
use botmaster::store::sqlite::{SqliteStore, StateReader};
use botmaster::store::*;
use rusqlite::Connection;

use crate::world::*;

fn between(low: u64, likely: u64, high: u64) -> Estimate {
    let [low, likely, high] = [low, likely, high].map(Duration::from_secs);
    Estimate { low, likely, high }
}

/// A build of one new request that is expected to take this long, and does
/// take the ten seconds that all builds of these tests take.
fn built(store: &SqliteStore, claim: u128, expected: Estimate, result: BuildResult) -> BuildId {
    let outcomes = write(store, vec![Op::AddBuildset(submission(&[BuilderId(1)]))]).unwrap();
    let [OpOutcome::Buildset { requests, .. }] = &outcomes[..] else { panic!("{outcomes:?}") };
    let request = requests[0].id;
    // Worked out at second 10, for an end at second 40 at the latest.
    let eta = QueuedEta { start: between(0, 10, 20), end: between(10, 20, 30) };
    let waits = RequestPrediction { request, at: at(10), eta };
    write(store, vec![Op::PredictRequests(vec![waits])]).unwrap();
    let claim = claim_op(claim, BuilderId(1), &[(request, Epoch(0))]);
    let outcomes = write(store, vec![claim]).unwrap();
    let [OpOutcome::Claimed { build, .. }] = &outcomes[..] else { panic!("{outcomes:?}") };
    let expected = Prediction { learnt: 7, total: expected };
    write(store, vec![start_op(build.id), Op::Predict { build: build.id, expected }]).unwrap();
    // The first one counts.
    let later = Prediction { learnt: 8, total: between(1, 1, 1) };
    write(store, vec![Op::Predict { build: build.id, expected: later }]).unwrap();
    write(store, vec![finish_op(build.id, result, RequestsAfter::Done)]).unwrap();
    build.id
}

#[test]
fn b19_what_was_expected_of_a_build_is_kept_and_how_far_off_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _events) = open(dir.path());
    write(&store, declarations()).unwrap();
    let reader = StateReader::open(dir.path()).unwrap();
    assert_eq!(reader.accuracy(BuilderId(1)).unwrap(), Accuracy::default());
    let first = built(&store, 1, between(5, 8, 10), BuildResult::Success);
    built(&store, 2, between(10, 20, 40), BuildResult::Success);
    built(&store, 3, between(1, 1, 2), BuildResult::Success);
    built(&store, 4, between(1, 1, 2), BuildResult::Failure);
    let kept = reader.prediction(first).unwrap();
    assert_eq!(kept, Some(Prediction { learnt: 7, total: between(5, 8, 10) }));
    assert_eq!(reader.prediction(BuildId(99)).unwrap(), None);
    // 25 % longer, 50 % shorter, ten times as long; the failure does not count.
    let off = Accuracy { ends: 3, within: 2, median_off: 500 };
    assert_eq!(reader.accuracy(BuilderId(1)).unwrap(), off);
    let off = Accuracy { ends: 3, within: 3, median_off: 500 };
    assert_eq!(reader.queue_accuracy(BuilderId(1)).unwrap(), off);
    assert_eq!(reader.queue_accuracy(BuilderId(2)).unwrap(), Accuracy::default());
    store.close();
}

#[test]
fn b20_the_queue_is_read_in_its_order_with_what_is_kept_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _events) = open(dir.path());
    write(&store, declarations()).unwrap();
    for priority in [0, 5, 0] {
        let set = NewBuildset { priority, ..submission(&[BuilderId(1)]) };
        write(&store, vec![Op::AddBuildset(set)]).unwrap();
    }
    let eta = QueuedEta { start: between(0, 0, 0), end: between(1, 1, 1) };
    let waits = RequestPrediction { request: RequestId(2), at: at(11), eta };
    write(&store, vec![Op::PredictRequests(vec![waits])]).unwrap();
    let reader = StateReader::open(dir.path()).unwrap();
    let waiting = reader.waiting(BuilderId(1), 10).unwrap();
    assert_eq!(waiting, [(RequestId(2), true), (RequestId(1), false), (RequestId(3), false)]);
    assert_eq!(reader.waiting(BuilderId(1), 1).unwrap().len(), 1);
    store.close();
}

#[test]
fn b20_data_of_the_first_schema_is_upgraded_with_what_was_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.sqlite");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(include_str!("../../migrations/sqlite/0001_first.sql")).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    let sql = "INSERT INTO builders (name, tags, configured, expectations) \
               VALUES ('b1', '[]', 1, ?1)";
    conn.execute(sql, ["1\n3\n6.000000\n2.000000=get\n4.000000=make"]).unwrap();
    drop(conn);
    let (store, _events) = open(dir.path());
    write(&store, declarations()).unwrap();
    built(&store, 1, between(5, 8, 10), BuildResult::Success);
    let text = load(&store, BuilderId(1)).expectations.unwrap();
    let known = Expectations::from_text(&text, "d1");
    assert_eq!(known.total().unwrap().likely, Duration::from_secs(6));
    store.close();
}
