//! Submissions, claims, builds, steps and their ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::values::*;
use botmaster::store::*;

use crate::world::*;

#[test]
fn a_submission_is_stored_whole_and_published() {
    let mut world = World::new();
    let stamp = SourceStamp { revision: Some("abc".into()), ..SourceStamp::default() };
    let mut new = submission(&[world.builder, world.builder]);
    new.sourcestamps.push(stamp.clone());
    new.priority = 7;
    let outcome = world.run(Op::AddBuildset(new.clone())).unwrap();
    let OpOutcome::Buildset { buildset, requests, existing } = outcome else { panic!() };
    assert!(!existing);
    assert_eq!(buildset.properties, new.properties);
    assert_eq!(buildset.sourcestamps[1].stamp, stamp);
    assert_eq!(requests.len(), 2);
    assert_eq!((requests[1].priority, requests[1].state), (7, RequestState::Queued));
    assert_eq!(world.changes(), ["BuildsetNew", "RequestNew", "RequestNew"]);

    // Equal stamps share a row, which keeps its time.
    new.submitted_at = at(99);
    let outcome = world.run(Op::AddBuildset(new)).unwrap();
    let OpOutcome::Buildset { buildset: second, .. } = outcome else { panic!() };
    assert_eq!(second.sourcestamps, buildset.sourcestamps);
    assert_ne!(second.id, buildset.id);
}

#[test]
fn a_submission_sent_again_with_its_key_is_answered_with_the_first_ones_rows() {
    let mut world = World::new();
    let mut new = submission(&[world.builder, world.builder]);
    new.idempotency_key = Some("k".into());
    let first = world.run(Op::AddBuildset(new.clone())).unwrap();
    world.changes();
    let again = world.run(Op::AddBuildset(new)).unwrap();
    let OpOutcome::Buildset { buildset, requests, existing: false } = first else { panic!() };
    assert_eq!(again, OpOutcome::Buildset { buildset, requests, existing: true });
    assert!(world.changes().is_empty());
}

#[test]
fn a_submission_for_an_unknown_builder_leaves_nothing() {
    let mut world = World::new();
    let error = world.run(Op::AddBuildset(submission(&[world.builder, BuilderId(9)])));
    assert_eq!(error, Err(StoreError::Missing("builder 9".into())));
    assert!(world.changes().is_empty());
    assert!(world.engine.load_builder(world.builder).unwrap().queued.is_empty());
    assert!(matches!(world.run(Op::AddBuildset(submission(&[]))), Err(StoreError::Failed(_))));
}

#[test]
fn a_claim_takes_all_its_requests_or_none() {
    let mut world = World::new();
    let (one, two) = (world.submit().1.id, world.submit().1.id);
    world.changes();
    let stale = claim_op(1, world.builder, &[(one, Epoch(0)), (two, Epoch(1))]);
    assert!(matches!(world.run(stale), Err(StoreError::Fenced(_))));
    assert_eq!(world.request(one).unwrap().state, RequestState::Queued);
    assert_eq!(world.request(one).unwrap().epoch, Epoch(0));
    assert!(world.changes().is_empty());

    let both = claim_op(2, world.builder, &[(one, Epoch(0)), (two, Epoch(0))]);
    let OpOutcome::Claimed { build, requests, buildset } = world.run(both).unwrap() else {
        panic!()
    };
    assert_eq!((build.state, build.number), (BuildState::Claimed, None));
    assert_eq!(build.request, one);
    assert_eq!(build.properties, buildset.properties);
    assert!(requests.iter().all(|row| row.epoch == Epoch(1) && row.claimed_at == Some(at(20))));
    assert_eq!(world.changes(), ["RequestClaimed", "RequestClaimed"]);

    let taken = claim_op(3, world.builder, &[(one, Epoch(1))]);
    assert!(matches!(world.run(taken), Err(StoreError::Fenced(_))));
    let nothing = claim_op(4, world.builder, &[]);
    assert!(matches!(world.run(nothing), Err(StoreError::Failed(_))));
}

#[test]
fn fb16_claim_repeated_with_its_id_is_recognised() {
    let mut world = World::new();
    let request = world.submit().1.id;
    let op = claim_op(1, world.builder, &[(request, Epoch(0))]);
    let first = world.run(op.clone()).unwrap();
    world.changes();
    assert_eq!(world.run(op).unwrap(), first);
    assert!(world.changes().is_empty());
    assert_eq!(world.engine.load_builder(world.builder).unwrap().builds.len(), 1);
}

#[test]
fn fb16_a_claim_for_a_worker_that_attached_anew_takes_nothing_and_can_be_made_again() {
    let mut world = World::new();
    let request = world.submit().1.id;
    let early = claim_op(1, world.builder, &[(request, Epoch(0))]);
    let made = world.run(early.clone()).unwrap();
    let waiting = world.submit().1.id;
    world.run(attach_op(world.worker)).unwrap();
    world.changes();

    let stale = claim_op(2, world.builder, &[(waiting, Epoch(0))]);
    let error = world.run(stale.clone()).unwrap_err();
    assert!(matches!(error, StoreError::WorkerChanged(_)), "{error:?}");
    assert!(error.to_string().contains("incarnation 2, not 1"), "{error}");
    assert!(error.is_transient(), "the requests are still the asker's");
    assert!(world.changes().is_empty());
    let row = world.request(waiting).unwrap();
    assert_eq!((row.state, row.epoch), (RequestState::Queued, Epoch(0)));
    assert_eq!(world.run(early).unwrap(), made, "what was made before is told all the same");

    let Op::Claim { claim, builder, worker, requests, factory_digest, at, .. } = stale else {
        panic!()
    };
    let claimed = |worker, incarnation| Op::Claim {
        claim,
        builder,
        worker,
        incarnation,
        requests: requests.clone(),
        factory_digest: factory_digest.clone(),
        grace: std::time::Duration::ZERO,
        at,
    };
    let nobody = world.run(claimed(WorkerId(99), Incarnation(1)));
    assert_eq!(nobody, Err(StoreError::Missing("worker 99".into())));
    let outcome = world.run(claimed(worker, Incarnation(2))).unwrap();
    assert!(matches!(outcome, OpOutcome::Claimed { .. }), "{outcome:?}");
}

#[test]
fn fb02_an_unclaimed_request_goes_to_the_head_and_a_cancelled_one_ends() {
    let mut world = World::new();
    let (one, two) = (world.submit().1.id, world.submit().1.id);
    let both = claim_op(1, world.builder, &[(one, Epoch(0)), (two, Epoch(0))]);
    let OpOutcome::Claimed { build, .. } = world.run(both).unwrap() else { panic!() };
    world.changes();
    let unclaim = Op::Unclaim { build: build.id, cancelled: vec![two], refused: false, at: at(25) };
    let OpOutcome::Requeued { requests } = world.run(unclaim.clone()).unwrap() else { panic!() };
    assert_eq!(requests.iter().map(|with| with.row.id).collect::<Vec<_>>(), [one]);
    assert!(requests[0].row.requeued && requests[0].row.infra_tries == 0);
    assert_eq!(requests[0].row.epoch, Epoch(1));
    assert_eq!(world.changes(), ["RequestUnclaimed", "RequestComplete", "BuildsetComplete"]);
    assert!(world.engine.load_builder(world.builder).unwrap().builds.is_empty());
    assert!(matches!(world.run(unclaim), Err(StoreError::Missing(_))));

    // The id of a build that went away never comes again.
    assert_ne!(world.claim(2, one, 1).id, build.id);
}

#[test]
fn a_started_build_has_the_next_number_once() {
    let mut world = World::new();
    let (_, first) = world.running(1);
    assert_eq!((first.number, first.state), (Some(BuildNumber(1)), BuildState::Running));
    assert_eq!(first.started_at, at(30));
    assert_eq!(first.properties.get("own"), Some(&property("1")));
    assert_eq!(world.changes().last().unwrap(), "BuildNew");
    assert_eq!(world.start(first.id), first);
    assert!(world.changes().is_empty());
    let (_, second) = world.running(2);
    assert_eq!(second.number, Some(BuildNumber(2)));
    let unclaim = Op::Unclaim { build: first.id, cancelled: vec![], refused: false, at: at(35) };
    assert!(matches!(world.run(unclaim), Err(StoreError::Fenced(_))));
}

#[test]
fn writes_of_an_older_incarnation_change_nothing() {
    let mut world = World::new();
    let request = world.submit().1.id;
    let build = world.claim(1, request, 0).id;
    let adopt = |incarnation| Op::AdoptBuild { build, incarnation: Incarnation(incarnation) };
    world.run(adopt(2)).unwrap();
    assert!(matches!(world.run(start_op(build)), Err(StoreError::Fenced(_))));
    world.run(adopt(1)).unwrap();
    world.start(build);
    world.run(adopt(2)).unwrap();
    let end = finish_op(build, BuildResult::Success, RequestsAfter::Done);
    let Err(StoreError::Fenced(text)) = world.run(end.clone()) else { panic!() };
    assert!(text.contains("incarnation 2"), "{text}");
    world.run(adopt(1)).unwrap();
    world.run(end.clone()).unwrap();
    assert!(matches!(world.run(end), Err(StoreError::Fenced(_))));
    assert!(matches!(world.run(adopt(2)), Err(StoreError::Fenced(_))));
    assert!(matches!(world.run(start_op(BuildId(99))), Err(StoreError::Missing(_))));
}

#[test]
fn a_failed_operation_undoes_its_whole_transaction_only() {
    let mut world = World::new();
    let ops = vec![
        Op::AddBuildset(submission(&[world.builder])),
        start_op(BuildId(99)),
        Op::AddBuildset(submission(&[world.builder])),
    ];
    assert!(matches!(world.engine.apply(&ops.into()), Err(StoreError::Missing(_))));
    assert!(world.changes().is_empty());
    assert!(world.engine.load_builder(world.builder).unwrap().queued.is_empty());
    world.submit();
    assert_eq!(world.engine.load_builder(world.builder).unwrap().queued.len(), 1);
}

#[test]
fn a_finished_build_ends_its_requests_and_the_set_with_the_worst_result() {
    let mut world = World::new();
    let new = submission(&[world.builder, world.builder]);
    let OpOutcome::Buildset { requests, .. } = world.run(Op::AddBuildset(new)).unwrap() else {
        panic!()
    };
    for (claim, (request, result)) in
        (1..).zip(requests.iter().zip([BuildResult::Failure, BuildResult::Success]))
    {
        let build = world.claim(claim, request.id, 0).id;
        world.start(build);
        world.changes();
        world.run(finish_op(build, result, RequestsAfter::Done)).unwrap();
        if claim == 1 {
            assert_eq!(world.changes(), ["BuildFinished", "RequestComplete"]);
        }
    }
    let changes = world.engine.drain_changes();
    let [
        Change::BuildFinished(build),
        Change::RequestComplete(request),
        Change::BuildsetComplete(set),
    ] = changes.as_slice()
    else {
        panic!("{changes:?}")
    };
    assert_eq!((build.state, build.complete_at), (BuildState::Finished, Some(at(40))));
    assert_eq!(build.state_string, "build ended");
    assert_eq!((request.state, request.results), (RequestState::Done, Some(BuildResult::Success)));
    assert_eq!((set.complete_at, set.results), (Some(at(40)), Some(BuildResult::Failure)));
}

#[test]
fn a_lost_build_gives_its_requests_back_and_counts_the_try() {
    let mut world = World::new();
    let (request, build) = world.running(1);
    world.changes();
    let after = RequestsAfter::Requeue { infra: true };
    let outcome = world.run(finish_op(build.id, BuildResult::Retry, after)).unwrap();
    let OpOutcome::Requeued { requests } = outcome else { panic!() };
    assert_eq!((requests[0].row.id, requests[0].row.infra_tries), (request, 1));
    assert!(requests[0].row.requeued && requests[0].row.claimed_at.is_none());
    assert_eq!(world.changes(), ["BuildFinished", "RequestUnclaimed"]);

    let build = world.claim(2, request, 1).id;
    world.start(build);
    let after = RequestsAfter::Requeue { infra: false };
    let outcome = world.run(finish_op(build, BuildResult::Retry, after)).unwrap();
    let OpOutcome::Requeued { requests } = outcome else { panic!() };
    assert_eq!(requests[0].row.infra_tries, 1);
}

#[test]
fn only_requests_that_wait_are_cancelled() {
    let mut world = World::new();
    let (held, _) = world.running(1);
    let waiting = world.submit().1.id;
    world.changes();
    let cancel = Op::CancelRequests { requests: vec![held, waiting, RequestId(77)], at: at(50) };
    assert_eq!(world.run(cancel.clone()).unwrap(), OpOutcome::Cancelled(vec![waiting]));
    let changes = world.engine.drain_changes();
    let [Change::RequestComplete(row), Change::BuildsetComplete(set)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!((row.state, row.results), (RequestState::Cancelled, Some(BuildResult::Cancelled)));
    assert_eq!(set.results, Some(BuildResult::Cancelled));
    assert_eq!(world.run(cancel).unwrap(), OpOutcome::Cancelled(vec![]));
    assert_eq!(world.request(held).unwrap().state, RequestState::Claimed);
}

#[test]
fn the_priority_of_a_waiting_request_changes() {
    let mut world = World::new();
    let (held, _) = world.running(1);
    let waiting = world.submit().1.id;
    world.changes();
    for request in [held, waiting] {
        world.run(Op::SetPriority { request, priority: 5 }).unwrap();
    }
    assert_eq!(world.request(held).unwrap().priority, 0);
    assert_eq!(world.request(waiting).unwrap().priority, 5);
    assert_eq!(world.changes(), ["RequestUpdated"]);
    let unknown = Op::SetPriority { request: RequestId(99), priority: 5 };
    assert!(matches!(world.run(unknown), Err(StoreError::Missing(_))));
}

fn step_op(build: BuildId) -> Op {
    Op::StartStep {
        build,
        number: 0,
        name: "make".into(),
        state_string: "'make'".into(),
        logs: vec!["stdio".into(), "test.log".into()],
        at: at(31),
    }
}

#[test]
fn a_step_begins_with_its_logs_and_ends() {
    let mut world = World::new();
    let (_, build) = world.running(1);
    world.changes();
    let begun = world.run(step_op(build.id)).unwrap();
    assert_eq!(world.changes(), ["StepStarted", "LogNew", "LogNew"]);
    assert_eq!(world.run(step_op(build.id)).unwrap(), begun, "begun again after a restart");
    assert!(world.changes().is_empty());
    let OpOutcome::Step { step, logs } = begun else { panic!() };
    assert_eq!((logs[1].slug.as_str(), logs[1].kind), ("test_log", 's'));

    let end_log = |log| Op::FinishLog {
        log,
        num_lines: 2,
        length: 9,
        inline: Some(Arc::from(&b"x"[..])),
        incomplete: None,
    };
    let end_step = |step| Op::FinishStep {
        step,
        result: BuildResult::Warnings,
        state_string: "'make' warned".into(),
        at: at(32),
    };
    world.run(end_log(logs[0].id)).unwrap();
    world.run(end_log(logs[0].id)).unwrap();
    world.run(end_step(step.id)).unwrap();
    world.run(end_step(step.id)).unwrap();
    let changes = world.engine.drain_changes();
    let [Change::LogFinished(log), Change::StepFinished(step)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!((log.complete, log.num_lines, log.length), (true, 2, 9));
    assert_eq!((step.results, step.complete_at), (Some(BuildResult::Warnings), Some(at(32))));
    assert!(matches!(world.run(end_step(StepId(99))), Err(StoreError::Missing(_))));
    assert!(matches!(world.run(end_log(LogId(99))), Err(StoreError::Missing(_))));
}

#[test]
fn a_step_begins_only_in_a_build_that_runs() {
    let mut world = World::new();
    let request = world.submit().1.id;
    let build = world.claim(1, request, 0).id;
    assert!(matches!(world.run(step_op(build)), Err(StoreError::Fenced(_))));
    assert!(matches!(world.run(step_op(BuildId(99))), Err(StoreError::Missing(_))));
    world.start(build);
    world.run(finish_op(build, BuildResult::Success, RequestsAfter::Done)).unwrap();
    assert!(matches!(world.run(step_op(build)), Err(StoreError::Fenced(_))));
}

fn open_step(world: &mut World, build: BuildId, number: u32) -> (Arc<StepRow>, Vec<Arc<LogRow>>) {
    let Op::StartStep { state_string, logs, at, .. } = step_op(build) else { panic!() };
    let name = format!("step {number}");
    match world.run(Op::StartStep { build, number, name, state_string, logs, at }).unwrap() {
        OpOutcome::Step { step, logs } => (step, logs),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_end_of_a_build_ends_what_is_still_open_of_it() {
    for (result, of_step) in [
        (BuildResult::Retry, BuildResult::Retry),
        (BuildResult::Success, BuildResult::Exception),
        (BuildResult::Warnings, BuildResult::Exception),
    ] {
        let mut world = World::new();
        let (_, build) = world.running(1);
        let (_, other) = world.running(2);
        let (done, logs) = open_step(&mut world, build.id, 0);
        let end = |log: LogId| Op::FinishLog {
            log,
            num_lines: 2,
            length: 9,
            inline: None,
            incomplete: None,
        };
        world.run(end(logs[0].id)).unwrap();
        let end_step = Op::FinishStep {
            step: done.id,
            result: BuildResult::Success,
            state_string: "'step 0'".into(),
            at: at(32),
        };
        world.run(end_step).unwrap();
        let (open, _) = open_step(&mut world, build.id, 1);
        let (untouched, _) = open_step(&mut world, other.id, 0);
        world.changes();

        world.run(finish_op(build.id, result, RequestsAfter::Done)).unwrap();
        let changes = world.engine.drain_changes();
        let names: Vec<String> = changes.iter().map(name).collect();
        let expected = ["LogFinished", "LogFinished", "LogFinished", "StepFinished"];
        assert_eq!(names[..4], expected);
        assert_eq!(names[4..], ["BuildFinished", "RequestComplete", "BuildsetComplete"]);
        let Change::LogFinished(log) = &changes[0] else { panic!() };
        assert_eq!((log.id, log.complete), (logs[1].id, true));
        let Change::StepFinished(step) = &changes[3] else { panic!() };
        assert_eq!((step.id, step.results), (open.id, Some(of_step)));
        assert_eq!(step.complete_at, Some(at(40)));
        assert_eq!(step.state_string, format!("'step 1' ({of_step})"));

        // Their own ends come too late, and change nothing.
        world.run(end(logs[1].id)).unwrap();
        assert!(world.changes().is_empty());
        let records = world.engine.load_builder(world.builder).unwrap();
        let (step, logs) = &records.builds[0].steps[0];
        assert_eq!((step.id, step.complete_at), (untouched.id, None));
        assert!(logs.iter().all(|log| !log.complete));
    }
}

#[test]
fn properties_are_merged_and_the_description_follows_a_running_build() {
    let mut world = World::new();
    let (_, build) = world.running(1);
    world.changes();
    let set = Op::SetProperties { build: build.id, properties: properties(&[("own", "2")]) };
    world.run(set).unwrap();
    world.run(Op::DescribeBuild { build: build.id, state_string: "testing".into() }).unwrap();
    let changes = world.engine.drain_changes();
    let [Change::BuildProperties(id, all), Change::BuildUpdate(row)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(*id, build.id);
    assert_eq!(**all, properties(&[("branch", "main"), ("own", "2")]));
    assert_eq!((row.state_string.as_str(), &row.properties), ("testing", all));

    world.run(finish_op(build.id, BuildResult::Success, RequestsAfter::Done)).unwrap();
    world.changes();
    world.run(Op::DescribeBuild { build: build.id, state_string: "late".into() }).unwrap();
    assert!(world.changes().is_empty());
}

#[test]
fn a_builder_is_rebuilt_from_everything_it_had() {
    let mut world = World::new();
    let (claimed, running) = world.running(7);
    world.run(step_op(running.id)).unwrap();
    world.run(Op::SaveExpectations { builder: world.builder, text: "5 s".into() }).unwrap();
    let (done, finished) = world.running(8);
    world.run(finish_op(finished.id, BuildResult::Success, RequestsAfter::Done)).unwrap();
    let waiting = world.submit().1.id;
    let records = world.engine.load_builder(world.builder).unwrap();
    assert_eq!(records.queued.iter().map(|with| with.row.id).collect::<Vec<_>>(), [waiting]);
    assert!(records.loaded_through >= waiting && waiting > done);
    assert_eq!(records.expectations.as_deref(), Some("5 s"));
    let [build] = records.builds.as_slice() else { panic!("{records:?}") };
    assert_eq!(build.row, *running);
    assert_eq!((build.claim, build.worker.as_str()), (ClaimId(7), "w1"));
    assert_eq!(build.factory, factory());
    assert_eq!((build.requests[0].row.id, build.requests[0].row.epoch), (claimed, Epoch(1)));
    assert_eq!(build.steps[0].1.len(), 2);
    let unknown = world.engine.load_builder(BuilderId(99));
    assert_eq!(unknown, Err(StoreError::Missing("builder 99".into())));
}
