//! A stop is durable before anybody is told (invariant I12), from a running
//! build to a restarted master.

use std::collections::BTreeSet;

use botmaster::core::builder::{
    Answer, Effect, Event, OpenBuild, Records, ReplyId, Request, SeatReport, SeatReportUse,
    StartFailure, StopSaved,
};
use botmaster::core::ids::*;
use botmaster::core::values::BuildResult;

use crate::kit::*;

/// A builder whose only worker runs a build.
fn running() -> (Desk, ClaimId, BuildId) {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    let build = desk.start(claim, &[1], 1);
    (desk, claim, build)
}

fn stops(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::StopBuild { .. })).count()
}

#[test]
fn i12_a_stop_is_kept_before_it_is_told_and_done() {
    let (mut desk, claim, build) = running();
    let effects = desk.stop(build, 1);
    assert_eq!(effects, [Effect::SaveStop { claim, build, reason: "enough".into() }]);
    let effects = desk.stop_saved(claim, StopSaved::Kept);
    let stop = Effect::StopBuild { claim, reason: "enough".into() };
    assert_eq!(effects, [stop, Effect::Answer(ReplyId(1), Answer::Done(true))]);
    assert!(desk.stop_saved(claim, StopSaved::Kept).is_empty(), "told twice");
}

#[test]
fn i12_a_told_stop_that_is_not_kept_is_seen() {
    bites("i12_stop_told_before_kept", i12_a_stop_is_kept_before_it_is_told_and_done);
}

#[test]
fn ff04_stop_clicked_many_times_has_one_effect() {
    let (mut desk, claim, build) = running();
    let mut all = Vec::new();
    for reply in 0..3 {
        let effects = desk.stop(build, reply);
        assert_eq!(answers(&effects), [], "nobody hears before it is durable");
        all.extend(effects);
    }
    assert_eq!(all, [Effect::SaveStop { claim, build, reason: "enough".into() }]);
    let effects = desk.stop_saved(claim, StopSaved::Kept);
    assert_eq!(answers(&effects), [0, 1, 2].map(|reply| (ReplyId(reply), true)));
    assert_eq!(stops(&effects), 1);
    let effects = desk.stop(build, 3);
    assert_eq!(effects, [Effect::Answer(ReplyId(3), Answer::Done(true))], "it is durable");
}

#[test]
fn fd01_a_stop_that_cannot_be_kept_is_an_error_and_may_be_asked_for_again() {
    let (mut desk, claim, build) = running();
    desk.stop(build, 1);
    let error = "the disk is full".to_owned();
    let effects = desk.stop_saved(claim, StopSaved::Failed { error: error.clone() });
    assert_eq!(effects, [Effect::Answer(ReplyId(1), Answer::Failed { error })]);
    assert_eq!(desk.states(), ["running"]);
    let effects = desk.stop(build, 2);
    assert!(matches!(effects[..], [Effect::SaveStop { .. }]), "asked anew: {effects:?}");
    let effects = desk.stop_saved(claim, StopSaved::Kept);
    assert_eq!((stops(&effects), answers(&effects)), (1, vec![(ReplyId(2), true)]));
}

#[test]
fn fd01_a_build_whose_stop_could_not_be_kept_is_queued_again_when_it_is_lost() {
    let (mut desk, claim, build) = running();
    desk.stop(build, 1);
    desk.stop_saved(claim, StopSaved::Failed { error: "full".into() });
    let requeued = vec![Request { requeued: true, ..request(1) }];
    let result = BuildResult::Retry;
    desk.hear(Event::Finished { claim, result, requeued, times: None });
    assert_eq!(desk.pending(), [1], "nobody was promised anything");
}

#[test]
fn t02_a_stop_after_the_end_is_false_and_changes_nothing() {
    let (mut desk, claim, build) = running();
    desk.stop(build, 1);
    // The end was written first; the store says so before the build does.
    let effects = desk.stop_saved(claim, StopSaved::TooLate);
    assert_eq!(effects, [Effect::Answer(ReplyId(1), Answer::Done(false))]);
    let effects = desk.stop(build, 2);
    assert_eq!(effects, [Effect::Answer(ReplyId(2), Answer::Done(false))]);
    desk.finish(claim);
    let effects = desk.stop(build, 3);
    assert_eq!(effects, [Effect::Answer(ReplyId(3), Answer::Done(false))]);
}

#[test]
fn t02_who_waits_hears_from_the_store_although_the_build_is_over() {
    let (mut desk, claim, build) = running();
    desk.stop(build, 1);
    desk.finish(claim);
    let effects = desk.stop_saved(claim, StopSaved::TooLate);
    assert_eq!(effects, [Effect::Answer(ReplyId(1), Answer::Done(false))]);
}

#[test]
fn ff05_a_build_that_is_stopped_while_it_is_being_queued_again_is_not_queued_again() {
    for saved in [None, Some(StopSaved::Kept), Some(StopSaved::TooLate)] {
        let (mut desk, claim, build) = running();
        // Its worker is lost, and its end is on its way.
        desk.stop(build, 1);
        if let Some(saved) = saved {
            desk.stop_saved(claim, saved);
        }
        let again = Request { requeued: true, ..request(1) };
        let effects = desk.hear(Event::Finished {
            claim,
            result: BuildResult::Retry,
            requeued: vec![again.clone()],
            times: None,
        });
        assert!(effects.contains(&Effect::CancelWaiting { request: again, reply: None }));
        assert!(desk.pending().is_empty() && asked(&effects).is_empty(), "{effects:?}");
    }
}

#[test]
fn ff03_a_start_that_fails_while_its_stop_is_being_kept_ends_all_requests() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.grant(claim);
    let (build, _) = desk.claim(claim, &[1]);
    desk.stop(build, 1);
    let failure = StartFailure::NoAnswer("gone".into());
    let effects = desk.hear(Event::StartFailed { claim, failure });
    let cancelled = vec![RequestId(1)];
    assert!(effects.contains(&Effect::Unclaim { claim, build, cancelled, refused: false }));
    let effects = desk.stop_saved(claim, StopSaved::Kept);
    assert_eq!(effects, [Effect::Answer(ReplyId(1), Answer::Done(true))], "nothing to call back");
    desk.hear(Event::Unclaimed { claim, requests: Vec::new() });
    assert!(desk.built().is_empty() && desk.pending().is_empty());
}

#[test]
fn ff03_an_accepted_start_is_not_stopped_before_that_is_durable() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.grant(claim);
    let (build, _) = desk.claim(claim, &[1]);
    desk.stop(build, 1);
    assert_eq!(stops(&desk.hear(Event::StartAccepted { claim })), 0);
    assert_eq!(stops(&desk.stop_saved(claim, StopSaved::Kept)), 1);
}

const CLAIM: ClaimId = ClaimId(77);

/// A builder that begins anew with one build that was stopped.
fn restarted(number: Option<u64>, used: Option<SeatReportUse>, lives: bool) -> (Desk, Vec<Effect>) {
    let mut desk = Desk::new(config(&["w1"]));
    let open = OpenBuild {
        claim: CLAIM,
        build: BuildId(9),
        number: number.map(BuildNumber),
        worker: "w1".into(),
        may_return: true,
        requests: vec![request(1)],
        stop: Some("enough".into()),
    };
    let records = Records {
        queued: Vec::new(),
        builds: vec![open],
        inherited: Vec::new(),
        loaded_through: RequestId(1),
        expectations: None,
    };
    let (worker, session) = (WorkerName::from("w1"), SessionId(1));
    let report = |used| SeatReport { worker, session, used, pinging: false };
    let reports = used.map(report).into_iter().collect();
    let running: BTreeSet<_> = lives.then_some(CLAIM).into_iter().collect();
    let (mut effects, now) = (Vec::new(), desk.now);
    desk.core.rebuild(now, records, reports, &running, &BTreeSet::new(), &mut effects);
    (desk, effects)
}

#[test]
fn i12_a_restarted_builder_stops_what_was_stopped() {
    let building = Some(SeatReportUse::Building(CLAIM));
    // After a panic, with the Build alive; after a restart of the master;
    // accepted, and not heard of.
    for (number, used, lives) in
        [(Some(3), building, true), (Some(3), None, false), (None, building, false)]
    {
        let (mut desk, effects) = restarted(number, used, lives);
        assert!(effects.contains(&Effect::StopBuild { claim: CLAIM, reason: "enough".into() }));
        assert_eq!(stops(&effects), 1);
        let effects = desk.stop(BuildId(9), 1);
        assert_eq!(effects, [Effect::Answer(ReplyId(1), Answer::Done(true))], "ff04");
    }
}

#[test]
fn i12_a_restart_that_forgets_the_stop_is_seen() {
    bites("i12_stop_forgotten_in_a_restart", i12_a_restarted_builder_stops_what_was_stopped);
}

#[test]
fn i12_a_restarted_builder_takes_back_a_start_that_was_stopped() {
    let (_, effects) = restarted(None, Some(SeatReportUse::Starting(CLAIM)), false);
    assert!(effects.contains(&Effect::CallBackStart { worker: "w1".into(), claim: CLAIM }));
    let (_, effects) = restarted(None, None, false);
    let cancelled = vec![RequestId(1)];
    let undo = Effect::Unclaim { claim: CLAIM, build: BuildId(9), cancelled, refused: false };
    assert!(effects.contains(&undo), "its requests do not wait again: {effects:?}");
}

#[test]
fn i12_an_answer_for_the_one_before_a_panic_is_carried_out() {
    let (mut desk, claim, _) = running();
    // The builder that asked is gone, and nobody waits any more.
    let effects = desk.stop_saved(claim, StopSaved::Kept);
    assert_eq!(effects, [Effect::StopBuild { claim, reason: "enough".into() }]);
}
