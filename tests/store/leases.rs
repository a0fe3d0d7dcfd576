//! What the store keeps of leases and losses, and who may write about a build.

use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::lease::{BootTime, Grant};
use botmaster::core::values::*;
use botmaster::store::*;

use crate::world::*;

fn grant(incarnation: u64) -> Op {
    let given = BootTime { boot: "here".into(), at: Duration::from_secs(500) };
    let grant = Grant { lease: Duration::from_secs(3600), given };
    Op::GrantLease { worker: WorkerId(1), incarnation: Incarnation(incarnation), grant }
}

fn open_build(world: &World) -> OpenBuild {
    world.engine.load_builder(world.builder).unwrap().builds.remove(0)
}

#[test]
fn fm03_a_grant_is_kept_for_the_next_master_until_the_worker_brings_the_build_back() {
    let mut world = World::new();
    world.running(1);
    assert_eq!(open_build(&world).grant, None);
    world.changes();
    assert_eq!(world.run(grant(1)), Ok(OpOutcome::Done));
    let Op::GrantLease { grant: given, .. } = grant(1) else { unreachable!() };
    assert_eq!(open_build(&world).grant, Some(given));
    assert_eq!(world.changes(), Vec::<String>::new());
    // It may not have heard that it is attached.
    world.run(attach_op(world.worker)).unwrap();
    assert!(open_build(&world).grant.is_some());
    let build = open_build(&world).row.id;
    world.run(Op::AdoptBuild { build, incarnation: Incarnation(2) }).unwrap();
    assert_eq!(open_build(&world).grant, None);
    // One for a connection that was replaced meanwhile grants nothing.
    assert!(matches!(world.run(grant(1)), Err(StoreError::Fenced(_))));
    assert_eq!(open_build(&world).grant, None);
}

#[test]
fn fm03_the_grace_of_a_build_is_that_of_its_start() {
    let mut world = World::new();
    world.running(1);
    assert_eq!(open_build(&world).grace, Duration::from_secs(150));
}

#[test]
fn fr18_every_loss_of_a_request_is_kept_with_its_worker_and_reason() {
    let mut world = World::new();
    let (request, build) = world.running(1);
    let lost = |build, text: &str| Op::FinishBuild {
        build,
        incarnation: Incarnation(1),
        result: BuildResult::Retry,
        state_string: text.into(),
        requests: RequestsAfter::Requeue { infra: true },
        at: at(40),
    };
    let loss = |reason: &str| Loss { worker: "w1".into(), reason: reason.into() };
    let Ok(OpOutcome::Requeued { requests }) = world.run(lost(build.id, "one")) else { panic!() };
    assert_eq!(*requests[0].losses, [loss("one")]);
    let queued = world.engine.load_builder(world.builder).unwrap().queued;
    assert_eq!(*queued[0].losses, [loss("one")], "after a restart, too");
    let build = world.claim(2, request, 1);
    world.start(build.id);
    assert_eq!(*open_build(&world).requests[0].losses, [loss("one")]);
    world.run(lost(build.id, "two")).unwrap();
    let queued = world.engine.load_builder(world.builder).unwrap().queued;
    assert_eq!(*queued[0].losses, [loss("one"), loss("two")]);
    assert_eq!(queued[0].row.infra_tries, 2);
}

/// FR12 on one store: another incarnation has the build, and whatever the old
/// owner still wants to write about it changes nothing and is seen by nobody.
#[test]
fn fr12_late_writes_of_an_old_incarnation_change_nothing() {
    let mut world = World::new();
    let (_, build) = world.running(1);
    let id = build.id;
    let step = Op::StartStep {
        build: id,
        number: 0,
        name: "make".into(),
        state_string: "running".into(),
        logs: vec!["stdio".into()],
        at: at(31),
    };
    let fence = |incarnation| Op::FenceBuild { build: id, incarnation: Incarnation(incarnation) };
    let begun = world.engine.apply(&vec![fence(1), step.clone()].into()).unwrap();
    let [_, OpOutcome::Step { step: row, logs }] = begun.as_slice() else { panic!("{begun:?}") };
    let (step_id, log) = (row.id, logs[0].id);

    world.run(attach_op(world.worker)).unwrap();
    world.run(Op::AdoptBuild { build: id, incarnation: Incarnation(2) }).unwrap();
    let before = open_build(&world);
    world.changes();
    let next = Op::StartStep {
        build: id,
        number: 1,
        name: "test".into(),
        state_string: "running".into(),
        logs: Vec::new(),
        at: at(32),
    };
    let end_of_step = Op::FinishStep {
        step: step_id,
        result: BuildResult::Failure,
        state_string: "no".into(),
        at: at(32),
    };
    let end_of_log = Op::FinishLog { log, num_lines: 9, length: 9, inline: None, incomplete: None };
    let set = Op::SetProperties { build: id, properties: properties(&[("late", "1")]) };
    let late: [Vec<Op>; 5] = [
        vec![fence(1), end_of_log.clone(), end_of_step.clone(), next],
        vec![fence(1), set],
        vec![end_of_log, end_of_step, finish_op(id, BuildResult::Failure, RequestsAfter::Done)],
        vec![finish_op(id, BuildResult::Retry, RequestsAfter::Requeue { infra: true })],
        vec![start_op(id)],
    ];
    for ops in late {
        let written = world.engine.apply(&ops.clone().into());
        assert!(matches!(written, Err(StoreError::Fenced(_))), "{ops:?}: {written:?}");
    }
    assert_eq!(open_build(&world), before);
    assert_eq!(world.changes(), Vec::<String>::new(), "nobody sees anything of it");
    // The owner goes on.
    assert_eq!(world.run(fence(2)), Ok(OpOutcome::Done));
    let end = Op::FinishBuild {
        build: id,
        incarnation: Incarnation(2),
        result: BuildResult::Success,
        state_string: "build successful".into(),
        requests: RequestsAfter::Done,
        at: at(50),
    };
    world.run(end).unwrap();
    assert!(matches!(world.run(fence(2)), Err(StoreError::Fenced(_))), "ends are final");
}
