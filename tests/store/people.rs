//! Builders and workers: declaring, attaching, what survives.

use std::collections::BTreeMap;
use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::store::*;

use crate::world::*;

fn declare(workers: &[&str], description: &str) -> Op {
    Op::DeclareBuilder {
        name: "b1".into(),
        description: Some(description.into()),
        tags: vec!["fast".into()],
        workers: workers.iter().map(|name| (*name).into()).collect(),
    }
}

#[test]
fn a_builder_keeps_its_id_and_only_differences_are_published() {
    let mut world = World::new();
    let same = world.run(declare(&["w1"], "first")).unwrap();
    assert_eq!(same, OpOutcome::Builder(world.builder));
    assert!(world.changes().is_empty());

    let two = world.run(Op::DeclareWorker { name: "w2".into() }).unwrap();
    let OpOutcome::Worker(two) = two else { panic!() };
    world.changes();
    world.run(declare(&["w2", "w1"], "second")).unwrap();
    world.run(Op::RetireBuilder { builder: world.builder }).unwrap();
    world.run(Op::RetireBuilder { builder: world.builder }).unwrap();
    let again = world.run(declare(&["w2", "w1"], "second")).unwrap();
    assert_eq!(again, OpOutcome::Builder(world.builder));
    let rows: Vec<_> = world
        .engine
        .drain_changes()
        .into_iter()
        .map(|change| match change {
            Change::BuilderUpdated(row) => row,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rows[0].workers, [two.id, world.worker]);
    assert_eq!(rows[0].description.as_deref(), Some("second"));
    assert_eq!(rows.iter().map(|row| row.configured).collect::<Vec<_>>(), [true, false, true]);

    let unknown = world.run(declare(&["nobody"], "third"));
    assert_eq!(unknown, Err(StoreError::Missing("worker named `nobody`".into())));
    let unknown = world.run(Op::RetireBuilder { builder: BuilderId(99) });
    assert_eq!(unknown, Err(StoreError::Missing("builder 99".into())));
}

#[test]
fn each_attach_is_a_new_incarnation_and_only_its_own_end_detaches() {
    let mut world = World::new();
    let worker = world.worker;
    let attach = |host: &str| Op::AttachWorker {
        worker,
        info: BTreeMap::from([("host".to_owned(), host.to_owned())]),
        at: at(1),
    };
    let detach = |n| Op::DetachWorker { worker, incarnation: Incarnation(n), at: at(2) };
    assert_eq!(world.run(attach("a")).unwrap(), OpOutcome::Attached(Incarnation(2)));
    assert_eq!(world.run(attach("b")).unwrap(), OpOutcome::Attached(Incarnation(3)));
    world.changes();
    world.run(detach(2)).unwrap();
    assert!(world.changes().is_empty());
    world.run(detach(3)).unwrap();
    world.run(detach(3)).unwrap();
    let changes = world.engine.drain_changes();
    let [Change::WorkerDisconnected(row)] = changes.as_slice() else { panic!("{changes:?}") };
    assert!(!row.connected);
    assert_eq!((row.incarnation, row.info["host"].as_str()), (Incarnation(3), "b"));
}

#[test]
fn what_a_person_set_about_a_worker_stays() {
    let mut world = World::new();
    let worker = world.worker;
    let set = |paused, graceful| Op::SetWorker { worker, paused, graceful };
    world.run(set(Some((true, Some("broken fan".into()))), None)).unwrap();
    world.run(set(None, Some(true))).unwrap();
    world.run(Op::RetireWorker { worker }).unwrap();
    let OpOutcome::Worker(row) = world.run(Op::DeclareWorker { name: "w1".into() }).unwrap() else {
        panic!()
    };
    assert_eq!((row.id, row.configured, row.paused, row.graceful), (worker, true, true, true));
    assert_eq!(row.pause_reason.as_deref(), Some("broken fan"));
    assert_eq!(world.changes(), ["WorkerUpdated"; 4]);
    world.run(set(Some((false, None)), Some(false))).unwrap();
    let OpOutcome::Worker(row) = world.run(Op::DeclareWorker { name: "w1".into() }).unwrap() else {
        panic!()
    };
    assert_eq!((row.paused, row.pause_reason, row.graceful), (false, None, false));
    let unknown = Op::SetWorker { worker: WorkerId(99), paused: None, graceful: None };
    assert!(matches!(world.run(unknown), Err(StoreError::Missing(_))));
}

#[test]
fn notes_are_kept_and_published() {
    let mut world = World::new();
    let note = BuilderNote {
        builder: world.builder,
        worker: Some(world.worker),
        text: "connect w1".into(),
        error: None,
        at: at(3),
    };
    let row = |id, text: &str, ended| {
        Arc::new(NoteRow {
            id,
            builder: note.builder,
            worker: note.worker,
            text: text.into(),
            error: None,
            at: at(3),
            ended_at: ended,
        })
    };
    world.run(Op::Note(note.clone())).unwrap();
    let moment = Change::Note(row(1, "connect w1", Some(at(3))));
    assert_eq!(world.engine.drain_changes(), [moment]);

    // One row with a beginning and an end (row S05).
    let ping = BuilderNote { text: "pinging".into(), ..note.clone() };
    let end = Op::EndNote {
        begun: "pinging".into(),
        note: BuilderNote { text: "ping success".into(), at: at(5), ..note.clone() },
    };
    world.run(Op::BeginNote(ping.clone())).unwrap();
    world.run(Op::Note(BuilderNote { text: "idle".into(), worker: None, ..note.clone() })).unwrap();
    world.run(end.clone()).unwrap();
    let changes = world.engine.drain_changes();
    assert_eq!(changes[0], Change::Note(row(2, "pinging", None)));
    assert_eq!(changes[2], Change::NoteEnded(row(2, "ping success", Some(at(5)))));

    // The end of something whose beginning nobody knows is a moment.
    world.run(end).unwrap();
    assert_eq!(world.changes(), ["Note"]);
    let unknown = Op::SaveExpectations { builder: BuilderId(99), text: "{}".into() };
    assert!(matches!(world.run(unknown), Err(StoreError::Missing(_))));
}
