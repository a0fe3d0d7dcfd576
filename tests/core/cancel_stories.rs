//! Row B07: what a cancel does, from the queue to the running build.

use botmaster::core::builder::{Effect, Event, ReplyId, Request, StartFailure, StopSaved};
use botmaster::core::ids::*;
use botmaster::core::values::*;

use crate::kit::*;

fn merged() -> (Desk, ClaimId) {
    let mut desk = Desk::new(BuilderConfig { merge: Merge::SameSource, ..config(&["w1"]) });
    desk.submit(&[1, 2, 3]);
    let (_, claim) = asked(&desk.attach("w1", 1))[0];
    (desk, claim)
}

/// A start that pings, of one build.
fn pinging() -> (Desk, ClaimId, BuildId) {
    let (mut desk, claim) = merged();
    desk.grant(claim);
    let (build, _) = desk.claim(claim, &[1, 2, 3]);
    (desk, claim, build)
}

fn left(claim: ClaimId, id: u64, in_time: bool) -> Event {
    Event::LeftStart { claim, request: RequestId(id), in_time }
}

fn ended(claim: ClaimId, id: u64, done: bool) -> Event {
    Event::CancelledClaimed { claim, requests: vec![RequestId(id)], done }
}

#[test]
pub fn b07_a_merged_request_leaves_before_the_claim() {
    let (mut desk, claim) = merged();
    let effects = desk.cancel(1);
    assert!(matches!(
        &effects[0],
        Effect::CancelWaiting { request, reply: Some(ReplyId(1)) } if request.id == RequestId(1)
    ));
    let effects = desk.grant(claim);
    let wanted = [2, 3].map(|id| (RequestId(id), Epoch(0)));
    assert!(matches!(&effects[0], Effect::Claim { requests, .. } if *requests == wanted));
}

#[test]
fn b07_the_last_one_cancelled_before_the_claim_frees_the_worker() {
    let (mut desk, claim) = merged();
    for id in [1, 2, 3] {
        desk.cancel(id);
    }
    let effects = desk.grant(claim);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Claim { .. })));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::GiveBackSlot { .. })));
    assert!(desk.built().is_empty() && desk.pending().is_empty());
}

#[test]
pub fn b07_a_merged_request_leaves_while_the_claim_is_written() {
    let (mut desk, claim) = merged();
    desk.grant(claim);
    assert!(answers(&desk.cancel(1)).is_empty(), "nobody knows yet");
    let (build, effects) = desk.claim(claim, &[1, 2, 3]);
    assert!(effects.contains(&Effect::CancelClaimed {
        claim,
        build,
        requests: vec![RequestId(1)],
        head: RequestId(2)
    }));
    let sent = [2, 3].map(|id| (RequestId(id), Epoch(1)));
    let order = effects.iter().find_map(|effect| match effect {
        Effect::StartOnSeat { order, .. } => Some(order.requests.clone()),
        _ => None,
    });
    assert_eq!(order.as_deref(), Some(&sent[..]), "the others go on");
    assert_eq!(answers(&desk.hear(ended(claim, 1, true))), [(ReplyId(1), true)]);
    assert_eq!(desk.built(), [[2, 3]]);
}

#[test]
fn b07_all_cancelled_while_the_claim_is_written_undo_it() {
    let (mut desk, claim) = merged();
    desk.grant(claim);
    for id in [1, 2, 3] {
        desk.cancel(id);
    }
    let (build, effects) = desk.claim(claim, &[1, 2, 3]);
    let all = [1, 2, 3].map(RequestId).to_vec();
    assert!(effects.contains(&Effect::Unclaim { claim, build, cancelled: all, refused: false }));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::StartOnSeat { .. })));
    let effects = desk.hear(Event::Unclaimed { claim, requests: Vec::new() });
    assert_eq!(answers(&effects), [1, 2, 3].map(|id| (ReplyId(id), true)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::GiveBackSlot { .. })));
    assert!(desk.built().is_empty());
}

#[test]
fn b07_a_cancel_during_a_claim_that_is_lost_ends_only_its_own() {
    for transient in [true, false] {
        let (mut desk, claim) = merged();
        desk.grant(claim);
        desk.cancel(2);
        let effects = desk.hear(Event::ClaimLost { claim, error: "x".into(), transient });
        assert!(effects.iter().any(|effect| matches!(
            effect,
            Effect::CancelWaiting { request, reply: Some(ReplyId(2)) } if request.id == RequestId(2)
        )));
        assert_eq!(desk.pending(), [1, 3]);
    }
}

#[test]
pub fn b07_a_merged_request_leaves_during_the_ping() {
    let (mut desk, claim, build) = pinging();
    let effects = desk.cancel(1);
    let asks: Vec<_> =
        effects.iter().filter(|effect| matches!(effect, Effect::LeaveStart { .. })).collect();
    let (worker, request) = ("w1".into(), RequestId(1));
    assert_eq!(asks, [&Effect::LeaveStart { worker, claim, request }]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::CallBackStart { .. })));
    let effects = desk.hear(left(claim, 1, true));
    assert!(effects.contains(&Effect::CancelClaimed {
        claim,
        build,
        requests: vec![RequestId(1)],
        head: RequestId(2)
    }));
    assert!(answers(&effects).is_empty(), "i12: durable before told");
    assert_eq!(answers(&desk.hear(ended(claim, 1, true))), [(ReplyId(1), true)]);
    let effects = desk.hear(Event::StartAccepted { claim });
    assert!(
        matches!(&effects[0], Effect::RunBuild { requests, .. } if requests[0].id == RequestId(2) && requests.len() == 2)
    );
    assert_eq!(desk.built(), [[2, 3]]);
}

#[test]
fn b07_a_cancel_after_the_start_was_sent_is_false_and_changes_nothing() {
    let (mut desk, claim, _) = pinging();
    desk.cancel(2);
    let effects = desk.hear(left(claim, 2, false));
    assert_eq!((answers(&effects), effects.len()), (vec![(ReplyId(2), false)], 1));
    let effects = desk.hear(Event::StartAccepted { claim });
    assert!(matches!(&effects[0], Effect::RunBuild { requests, .. } if requests.len() == 3));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::StopBuild { .. })));
    // It runs.
    let effects = desk.cancel(2);
    assert_eq!((answers(&effects), effects.len()), (vec![(ReplyId(2), false)], 1));
    desk.hear(Event::Orphaned { claim, away: Some(away()) });
    assert_eq!(answers(&desk.cancel(1)), [(ReplyId(1), false)]);
    assert_eq!(desk.built(), [[1, 2, 3]]);
}

#[test]
fn b07_the_store_has_the_last_word_about_a_request_that_left() {
    // The store could not be written, and the build started meanwhile.
    let (mut desk, claim, _) = pinging();
    desk.cancel(3);
    desk.hear(left(claim, 3, true));
    desk.hear(Event::StartAccepted { claim });
    assert_eq!(answers(&desk.hear(ended(claim, 3, false))), [(ReplyId(3), false)]);
    assert_eq!(desk.built(), [[1, 2, 3]]);
}

#[test]
fn b07_a_request_that_left_a_start_that_fails_is_not_requeued() {
    let (mut desk, claim, build) = pinging();
    desk.cancel(2);
    desk.hear(left(claim, 2, true));
    let failure = StartFailure::NoAnswer("ping".into());
    let effects = desk.hear(Event::StartFailed { claim, failure });
    assert!(effects.contains(&Effect::Unclaim {
        claim,
        build,
        cancelled: vec![RequestId(2)],
        refused: false
    }));
    assert_eq!(answers(&desk.hear(ended(claim, 2, true))), [(ReplyId(2), true)]);
    let back = |id| Request { requeued: true, epoch: Epoch(1), ..request(id) };
    let effects = desk.hear(Event::Unclaimed { claim, requests: vec![back(1), back(3)] });
    assert!(answers(&effects).is_empty());
    assert_eq!(desk.pending(), [1, 3]);
    // A requeued request counts as queued again.
    assert!(
        matches!(&desk.cancel(1)[0], Effect::CancelWaiting { request, .. } if request.id == RequestId(1))
    );
}

#[test]
fn b07_a_cancel_that_comes_while_a_claim_is_undone_finds_its_request_waiting() {
    let (mut desk, claim, _) = pinging();
    desk.hear(Event::StartFailed { claim, failure: StartFailure::NoAnswer("ping".into()) });
    assert!(answers(&desk.cancel(2)).is_empty());
    let back = |id| Request { requeued: true, epoch: Epoch(1), ..request(id) };
    let effects = desk.hear(Event::Unclaimed { claim, requests: vec![back(1), back(2), back(3)] });
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::CancelWaiting { request, reply: Some(ReplyId(2)) } if request.id == RequestId(2)
    )));
    assert_eq!(desk.pending(), [1, 3]);
}

#[test]
fn b07_a_second_cancel_of_one_that_is_leaving_hears_the_same() {
    let (mut desk, claim, _) = pinging();
    let cancel =
        |reply| Event::Cancel { request: RequestId(2), reason: "no".into(), reply: ReplyId(reply) };
    desk.hear(cancel(7));
    let effects = desk.hear(cancel(8));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::LeaveStart { .. })));
    desk.hear(left(claim, 2, true));
    let effects = desk.hear(ended(claim, 2, true));
    assert_eq!(answers(&effects), [(ReplyId(7), true), (ReplyId(8), true)]);
}

#[test]
fn ff03_a_stop_before_the_start_was_sent_ends_all_and_frees_the_worker() {
    let (mut desk, claim, build) = pinging();
    let effects = desk.stop(build, 1);
    assert!(effects.contains(&Effect::SaveStop { claim, build, reason: "enough".into() }));
    assert_eq!(effects.len(), 1, "nothing else before it is durable");
    let effects = desk.stop_saved(claim, StopSaved::Kept);
    assert_eq!(answers(&effects), [(ReplyId(1), true)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::CallBackStart { .. })));
    let effects = desk.hear(Event::StartFailed { claim, failure: StartFailure::CalledBack });
    let all = [1, 2, 3].map(RequestId).to_vec();
    assert!(effects.contains(&Effect::Unclaim { claim, build, cancelled: all, refused: false }));
    desk.hear(Event::Unclaimed { claim, requests: Vec::new() });
    assert!(desk.built().is_empty() && desk.pending().is_empty());
}

#[test]
fn ff03_a_stop_after_the_start_was_sent_stops_the_build_when_it_runs() {
    let (mut desk, claim, build) = pinging();
    desk.stop(build, 1);
    desk.stop_saved(claim, StopSaved::Kept);
    let effects = desk.hear(Event::StartAccepted { claim });
    assert!(effects.contains(&Effect::StopBuild { claim, reason: "enough".into() }));
}
