//! Builds with several requests: what is claimed, what leaves, what comes back.

use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::values::*;
use botmaster::store::*;

use crate::world::*;

/// A submission with a property of its own.
fn submit(world: &mut World, who: &str) -> RequestId {
    let new = NewBuildset {
        properties: Arc::new(properties(&[("owner", who)])),
        ..submission(&[world.builder])
    };
    match world.run(Op::AddBuildset(new)).unwrap() {
        OpOutcome::Buildset { requests, .. } => requests[0].id,
        other => panic!("{other:?}"),
    }
}

/// A claimed build of three requests.
fn merged(world: &mut World) -> ([RequestId; 3], BuildId) {
    let ids = ["ann", "bob", "cleo"].map(|who| submit(world, who));
    let op = claim_op(1, world.builder, &ids.map(|id| (id, Epoch(0))));
    match world.run(op).unwrap() {
        OpOutcome::Claimed { build, .. } => (ids, build.id),
        other => panic!("{other:?}"),
    }
}

fn leave(build: BuildId, requests: &[RequestId], head: RequestId) -> Op {
    Op::CancelClaimed { build, requests: requests.to_vec(), head, at: at(25) }
}

fn open_build(world: &World) -> OpenBuild {
    world.engine.load_builder(world.builder).unwrap().builds.remove(0)
}

#[test]
fn b07_a_request_leaves_a_claimed_build_and_the_others_stay() {
    let mut world = World::new();
    let ([ann, bob, cleo], build) = merged(&mut world);
    world.changes();
    assert_eq!(world.run(leave(build, &[ann], bob)), Ok(OpOutcome::Cancelled(vec![ann])));
    assert_eq!(world.changes(), ["RequestComplete", "BuildsetComplete"]);
    let open = open_build(&world);
    assert_eq!(open.requests.iter().map(|with| with.row.id).collect::<Vec<_>>(), [bob, cleo]);
    assert_eq!(open.row.request, bob, "it is built as the next one says");
    assert_eq!(open.row.properties["owner"].value, "bob");
    assert_eq!(world.run(leave(build, &[ann], bob)), Ok(OpOutcome::Cancelled(vec![])), "once");

    // The build ends: for those that it has, and for nobody else.
    world.start(build);
    world.changes();
    world.run(finish_op(build, BuildResult::Success, RequestsAfter::Done)).unwrap();
    let ends = world.changes();
    assert_eq!(ends.iter().filter(|change| *change == "RequestComplete").count(), 2);
}

#[test]
fn b07_nothing_leaves_a_build_that_has_started_or_would_be_empty() {
    let mut world = World::new();
    let (ids, build) = merged(&mut world);
    let all = world.run(leave(build, &ids, ids[0]));
    assert!(matches!(all, Err(StoreError::Fenced(_))), "{all:?}");
    assert_eq!(open_build(&world).requests.len(), 3);
    // The one that was to be the first left before: the next one is.
    world.run(leave(build, &[ids[1]], ids[0])).unwrap();
    world.run(leave(build, &[ids[0]], ids[1])).unwrap();
    assert_eq!(open_build(&world).row.request, ids[2]);
    world.start(build);
    let late = world.run(leave(build, &[ids[2]], ids[2]));
    assert!(matches!(late, Err(StoreError::Fenced(_))), "{late:?}");
    let gone = world.run(leave(BuildId(99), &[ids[2]], ids[2]));
    assert!(matches!(gone, Err(StoreError::Missing(_))), "{gone:?}");
    assert_eq!(world.request(ids[2]).unwrap().state, RequestState::Claimed);
}

#[test]
fn fb16_a_claim_that_is_repeated_is_built_as_its_first_request_says() {
    let mut world = World::new();
    let (ann, bob) = (submit(&mut world, "ann"), submit(&mut world, "bob"));
    // Bob's has a higher priority: it leads, though it is younger.
    let op = claim_op(1, world.builder, &[(bob, Epoch(0)), (ann, Epoch(0))]);
    for _ in 0..2 {
        let OpOutcome::Claimed { build, buildset, .. } = world.run(op.clone()).unwrap() else {
            panic!()
        };
        assert_eq!(build.request, bob);
        assert_eq!(buildset.properties["owner"].value, "bob");
    }
    let read: Vec<_> = open_build(&world).requests.iter().map(|with| with.row.id).collect();
    assert_eq!(read, [bob, ann]);
}

#[test]
fn b20_what_decides_where_a_request_may_run_is_there_after_a_restart() {
    let mut world = World::new();
    let stamp = |branch: &str| SourceStamp { branch: Some(branch.into()), ..Default::default() };
    let mut add = |branch: &str, named: &str| {
        let new = NewBuildset {
            sourcestamps: vec![stamp(branch)],
            properties: Arc::new(properties(&[("workername", named)])),
            ..submission(&[world.builder])
        };
        let OpOutcome::Buildset { buildset, requests, .. } =
            world.run(Op::AddBuildset(new)).unwrap()
        else {
            panic!()
        };
        (requests[0].clone(), SetPart::from(&*buildset))
    };
    let told = [add("main", "w1"), add("next", ""), add("main", "w1")];
    assert_eq!(told[0].1.source, told[2].1.source, "equal stamps have one id");
    assert_ne!(told[0].1.source, told[1].1.source);
    let records = world.engine.load_builder(world.builder).unwrap();
    let read: Vec<_> = records.queued.into_iter().map(|with| (with.row, with.set)).collect();
    assert_eq!(read, told);

    // The same for requests that a build has, and for those that come back.
    let (one, two) = (told[0].0.id, told[1].0.id);
    let op = claim_op(1, world.builder, &[(one, Epoch(0)), (two, Epoch(0))]);
    let OpOutcome::Claimed { build, .. } = world.run(op).unwrap() else { panic!() };
    let sets = |requests: Vec<RequestWithSet>| {
        requests.into_iter().map(|with| with.set).collect::<Vec<_>>()
    };
    let expected = vec![told[0].1.clone(), told[1].1.clone()];
    assert_eq!(sets(open_build(&world).requests), expected);
    let undo = Op::Unclaim { build: build.id, cancelled: Vec::new(), refused: false, at: at(25) };
    let OpOutcome::Requeued { requests } = world.run(undo).unwrap() else { panic!() };
    assert_eq!(sets(requests), expected);
    let op = claim_op(2, world.builder, &[(one, Epoch(1)), (two, Epoch(1))]);
    let OpOutcome::Claimed { build, .. } = world.run(op).unwrap() else { panic!() };
    world.start(build.id);
    let lost = RequestsAfter::Requeue { infra: true };
    let OpOutcome::Requeued { requests } =
        world.run(finish_op(build.id, BuildResult::Retry, lost)).unwrap()
    else {
        panic!()
    };
    assert_eq!(sets(requests), expected);
}
