//! Masters that die between a claim and the end of its build.

use std::time::Instant;

use botmaster::core::ids::{BuildNumber, Epoch};
use botmaster::core::values::BuildResult;
use botmaster::store::{BuildState, RequestState};
use botmaster_proof::within;
use botmaster_proof::yard::PATIENCE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::{PATIENT, Scene, at_once, builder, has, only, worker};

fn patient(lines: u32) -> Scene {
    Scene::new(&format!("{PATIENT}{}{}", worker("w"), builder("b", "\"w\"", lines)))
}

#[test]
fn fb01_a_request_chosen_and_not_claimed_waits_as_if_nothing_had_happened() {
    let mut scene = patient(2);
    scene.master(Some("claim.before_commit"));
    let request = scene.submit("b", "a");
    scene.worker("w");
    let held = scene.dead("claim.before_commit");
    let row = &held.requests[&request];
    assert_eq!((row.state, row.epoch, row.requeued), (RequestState::Queued, Epoch(0), false));
    assert!(held.builds.is_empty());
    scene.master(None);
    let row = scene.ended(request);
    assert_eq!((row.result, row.epoch), (Some(BuildResult::Success), Epoch(1)));
    scene.judged_well();
}

#[test]
fn fb02_a_claim_without_a_start_goes_to_the_head_when_its_worker_attaches() {
    let mut scene = patient(2);
    scene.master(Some("claim.after_commit"));
    let first = scene.submit("b", "first");
    let second = scene.submit("b", "second");
    scene.worker("w");
    let held = scene.dead("claim.after_commit");
    assert_eq!(held.requests[&first].state, RequestState::Claimed);
    assert_eq!(held.requests[&second].state, RequestState::Queued);
    assert_eq!((only(&held).state, only(&held).number), (BuildState::Claimed, None));
    let begun = Instant::now();
    scene.master(None);
    scene.ended(first);
    at_once(begun);
    let row = scene.ended(second);
    assert_eq!(row.epoch, Epoch(1), "it was not claimed before");
    let builds = scene.builds_of(first);
    assert_eq!(builds.len(), 1, "the claim is gone, with its build: {builds:?}");
    assert_eq!(builds[0].requests, [(first, Epoch(2))]);
    assert_eq!(builds[0].number, Some(BuildNumber(1)), "it went before the one that waited");
    scene.judged_well();
}

#[test]
fn fb03_a_start_without_an_answer_is_adopted_when_the_worker_took_it() {
    let mut scene = patient(20);
    scene.master(Some("start.after_send"));
    let request = scene.submit("b", "a");
    scene.worker("w");
    let held = scene.dead("start.after_send");
    let sent = only(&held).clone();
    assert_eq!(sent.number, None, "nobody knows yet whether it started");
    let begun = Instant::now();
    scene.master(None);
    assert_eq!(scene.ended(request).result, Some(BuildResult::Success));
    at_once(begun);
    let build = scene.only_build();
    assert_eq!(build.id, sent.id, "it is the same build");
    assert_eq!(build.requests, sent.requests, "in the same epoch");
    assert_eq!(build.number, Some(BuildNumber(1)), "no number is lost over it");
    scene.judged_well();
}

#[test]
fn fb03_a_start_without_an_answer_is_queued_again_when_the_worker_has_nothing() {
    let mut scene = patient(2);
    scene.master(Some("start.after_send"));
    let request = scene.submit("b", "a");
    scene.worker("w");
    scene.dead("start.after_send");
    // The whole machine is gone and comes back empty.
    scene.yard.workers.clear();
    for (pid, _) in scene.yard.processes() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    std::fs::remove_dir_all(scene.yard.path("workers/w")).unwrap();
    let begun = Instant::now();
    scene.master(None);
    scene.worker("w");
    let row = scene.ended(request);
    at_once(begun);
    assert_eq!((row.result, row.epoch), (Some(BuildResult::Success), Epoch(2)));
    scene.judged_well();
}

#[test]
fn fb09_a_build_has_both_its_number_and_its_state_or_neither() {
    for (point, state, number) in [
        ("start.before_number_commit", BuildState::Claimed, None),
        ("start.after_number_commit", BuildState::Running, Some(BuildNumber(1))),
    ] {
        let mut scene = patient(20);
        scene.master(Some(point));
        let request = scene.submit("b", "a");
        scene.worker("w");
        let held = scene.dead(point);
        let build = only(&held).clone();
        assert_eq!((build.state, build.number), (state, number), "{point}");
        scene.master(None);
        scene.ended(request);
        let after = scene.only_build();
        assert_eq!(after.number, Some(BuildNumber(1)), "{point}");
        // With a number it goes on where it was; without, it gets it now.
        assert_eq!((after.id, after.requests), (build.id, build.requests), "{point}");
        assert_eq!(after.result, Some(BuildResult::Success), "{point}");
        scene.judged_well();
    }
}

#[test]
fn ff08_a_result_that_the_worker_was_not_told_is_confirmed_when_it_comes_back() {
    let mut scene = patient(4);
    scene.master(Some("finish.before_worker_told"));
    let first = scene.submit("b", "first");
    scene.worker("w");
    let held = scene.dead("finish.before_worker_told");
    let build = only(&held).clone();
    assert_eq!(build.result, Some(BuildResult::Success), "the result is durable");
    assert_eq!(held.requests[&first].state, RequestState::Done);
    scene.master(None);
    // Its one slot is free again, so the worker has forgotten the build.
    let second = scene.submit("b", "second");
    scene.ended(second);
    assert_eq!(scene.builds_of(first), [build], "I7: it ended once");
    // And a worker that is asked to go has nothing to wait for.
    let mut worker = scene.yard.workers.remove("w").unwrap();
    worker.signal(Signal::SIGTERM);
    let ended = within(PATIENCE, || worker.ended()).expect("it keeps the build");
    assert_eq!(ended.code(), Some(0));
    scene.judged_well();
}

#[test]
fn ff09_a_build_ends_with_its_requests_or_none_of_them_does() {
    for (point, ended) in [("finish.before_commit", false), ("finish.after_commit", true)] {
        let config = format!(
            "{PATIENT}{}{}",
            worker("w"),
            builder("b", "\"w\"", 4)
                .replace("[[builder.step]]", "merge = \"same source\"\n[[builder.step]]")
        );
        let mut scene = Scene::new(&config);
        scene.master(Some(point));
        let requests = [scene.submit("b", "first"), scene.submit("b", "second")];
        scene.worker("w");
        let held = scene.dead(point);
        let build = only(&held);
        assert_eq!(build.requests.len(), 2, "both share the build");
        assert_eq!(build.result.is_some(), ended, "{point}");
        for request in requests {
            let row = &held.requests[&request];
            assert_eq!((row.state == RequestState::Done, row.result.is_some()), (ended, ended));
        }
        let id = build.id;
        scene.master(None);
        for request in requests {
            assert_eq!(scene.ended(request).result, Some(BuildResult::Success), "{point}");
        }
        assert!(has(&scene.held(), id));
        assert_eq!(scene.only_build().result, Some(BuildResult::Success), "{point}");
        scene.judged_well();
    }
}
