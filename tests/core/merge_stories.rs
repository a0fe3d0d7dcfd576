//! Requests that share a build (row B09), which worker they get, and how many
//! builds a builder has (rows B11, B12, B29).

use botmaster::core::builder::{
    Effect, Event, MERGE_LIMIT, Request, StartFailure, WORKER_PROPERTY, named_worker,
};
use botmaster::core::ids::*;
use botmaster::core::values::*;

use crate::kit::*;

fn merging(workers: &[&str], merge: Merge) -> Desk {
    Desk::new(BuilderConfig { merge, ..config(workers) })
}

fn back(id: u64) -> Request {
    Request { epoch: Epoch(1), requeued: true, ..request(id) }
}

#[test]
fn b09_without_a_policy_each_request_has_its_own_build() {
    let mut desk = merging(&["w1", "w2", "w3"], Merge::None);
    desk.submit(&[1, 2, 3]);
    for (worker, session) in [("w1", 1), ("w2", 2), ("w3", 3)] {
        assert_eq!(asked(&desk.attach(worker, session)).len(), 1);
    }
    assert_eq!(desk.built(), [[1], [2], [3]]);
}

#[test]
fn b09_requests_for_the_same_source_join_the_oldest_in_order() {
    let mut desk = merging(&["w1"], Merge::SameSource);
    desk.enqueue(vec![of_source(1, 7), of_source(2, 8), of_source(4, 7), of_source(3, 7)]);
    let effects = desk.attach("w1", 1);
    let (_, claim) = asked(&effects)[0];
    assert_eq!(desk.built(), [[1, 3, 4]]);
    assert_eq!(desk.pending(), [2]);
    let effects = desk.grant(claim);
    let wanted = [1, 3, 4].map(|id| (RequestId(id), Epoch(0)));
    assert!(matches!(&effects[0], Effect::Claim { requests, .. } if *requests == wanted));
    let (_, effects) = desk.claim(claim, &[1, 3, 4]);
    let sent = [1, 3, 4].map(|id| (RequestId(id), Epoch(1)));
    assert!(matches!(&effects[0], Effect::StartOnSeat { order, .. } if order.requests == sent));
    let effects = desk.hear(Event::StartAccepted { claim });
    assert!(matches!(&effects[0], Effect::RunBuild { requests, .. } if requests.len() == 3));
}

#[test]
fn b09_a_later_request_with_a_higher_priority_leads_the_build() {
    let mut desk = merging(&["w1"], Merge::SameSource);
    desk.enqueue(vec![request(1), request(2), Request { priority: 5, ..request(3) }]);
    desk.attach("w1", 1);
    assert_eq!(desk.core.view().builds[0].requests, [3, 1, 2].map(RequestId));
}

#[test]
fn b09_listed_properties_must_be_equal_and_others_need_not() {
    let mut desk = merging(&["w1"], Merge::Properties(vec!["channel".into(), "os".into()]));
    desk.enqueue(vec![
        with_properties(1, &[("channel", "beta"), ("owner", "ann")]),
        with_properties(2, &[("channel", "stable")]),
        with_properties(3, &[("channel", "beta"), ("owner", "bob")]),
        with_properties(4, &[("channel", "beta"), ("os", "")]),
        Request { source: [9].into(), ..with_properties(5, &[("channel", "beta")]) },
    ]);
    desk.attach("w1", 1);
    assert_eq!(desk.built(), [[1, 3]], "an absent property is not an empty one");
    assert_eq!(desk.pending(), [2, 4, 5]);
}

#[test]
fn b09_a_policy_that_changes_holds_for_what_waits() {
    let mut desk = merging(&[], Merge::None);
    desk.enqueue(vec![of_source(1, 7), of_source(2, 8), of_source(3, 7)]);
    let new = BuilderConfig { merge: Merge::SameSource, ..config(&["w1"]) };
    let handover = desk.core.hand_over(&new, 5);
    let core = botmaster::core::builder::BuilderCore::succeed(new.into(), handover, desk.now);
    let mut desk = Desk::with(core);
    desk.attach("w1", 1);
    assert_eq!((desk.built(), desk.pending()), (vec![vec![1, 3]], vec![2]));
}

#[test]
fn b09_one_build_has_no_more_requests_than_one_transaction_takes() {
    let mut desk = merging(&["w1"], Merge::SameSource);
    let more = u64::try_from(MERGE_LIMIT).unwrap() + 5;
    desk.submit(&(1..=more).collect::<Vec<_>>());
    desk.attach("w1", 1);
    assert_eq!(desk.built()[0].len(), MERGE_LIMIT);
    assert_eq!(desk.pending(), (more - 4..=more).collect::<Vec<_>>());
}

#[test]
fn fb12_two_requests_that_could_absorb_each_other_are_in_one_build_once() {
    let mut desk = merging(&["w1", "w2"], Merge::SameSource);
    desk.attach("w1", 1);
    desk.attach("w2", 2);
    let effects = desk.submit(&[1, 2]);
    assert_eq!(asked(&effects).len(), 1, "the second worker finds nothing left");
    assert_eq!((desk.built(), desk.pending()), (vec![vec![1, 2]], vec![]));
    let (_, claim) = asked(&effects)[0];
    // The slot is refused: both wait, and the other worker takes both.
    let effects = desk.hear(Event::SlotRefused { claim });
    assert_eq!(asked(&effects)[0].0, "w2");
    assert_eq!((desk.built(), desk.pending()), (vec![vec![1, 2]], vec![]));
}

#[test]
fn b29_a_refused_slot_leaves_merged_requests_where_they_were() {
    let mut desk = merging(&["w1"], Merge::SameSource);
    desk.enqueue(vec![of_source(1, 7), of_source(2, 8), of_source(3, 7)]);
    let (_, claim) = asked(&desk.attach("w1", 1))[0];
    let effects = desk.hear(Event::SlotRefused { claim });
    assert_eq!(desk.pending(), [1, 2, 3]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Unclaim { .. })));
    desk.hear(Event::MaybeStart { worker: Some("w1".into()) });
    assert_eq!((desk.built(), desk.pending()), (vec![vec![1, 3]], vec![2]));
}

/// Three merged requests whose ping fails; others came meanwhile.
fn requeued_after_a_failed_ping() -> Desk {
    let mut desk = merging(&["w1"], Merge::SameSource);
    desk.enqueue(vec![of_source(9, 8), request(1), request(2), request(3)]);
    let (_, claim) = asked(&desk.attach("w1", 1))[0];
    assert_eq!(desk.built(), [[1, 2, 3]]);
    desk.grant(claim);
    desk.claim(claim, &[1, 2, 3]);
    desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(1) });
    desk.hear(Event::StartFailed { claim, failure: StartFailure::NoAnswer("ping".into()) });
    desk.hear(Event::Unclaimed { claim, requests: vec![back(1), back(2), back(3)] });
    desk
}

#[test]
fn b08_merged_requests_return_to_the_head_in_their_order_and_are_merged_anew() {
    let mut desk = requeued_after_a_failed_ping();
    assert_eq!(desk.pending(), [1, 2, 3, 9]);
    let times: Vec<_> = desk.core.pending().map(|own| own.submitted_at).collect();
    assert_eq!(times[..3], [1, 2, 3].map(|id| request(id).submitted_at));
    assert_eq!(desk.core.view().oldest_request_time, Some(request(1).submitted_at));
    // One that came meanwhile joins them, one that was cancelled does not.
    desk.submit(&[4]);
    desk.cancel(2);
    desk.pass(11 * SECOND);
    desk.attach("w1", 2);
    assert_eq!((desk.built(), desk.pending()), (vec![vec![1, 3, 4]], vec![9]));
}

#[test]
fn b09_a_claim_that_is_refused_for_one_takes_the_others_not_with_it() {
    let mut desk = merging(&["w1"], Merge::SameSource);
    desk.submit(&[1, 2, 3]);
    let (_, claim) = asked(&desk.attach("w1", 1))[0];
    desk.grant(claim);
    // 2 has ended elsewhere: the store refuses the claim as a whole.
    let lost = |claim| Event::ClaimLost { claim, error: "2".into(), transient: false };
    desk.hear(lost(claim));
    assert_eq!(desk.pending(), [1, 2, 3], "nobody is forgotten");
    let mut built = Vec::new();
    let mut effects = Vec::new();
    for _ in 0..3 {
        desk.pass(2 * SECOND);
        effects.extend(desk.hear(Event::MaybeStart { worker: None }));
        let (_, claim) = asked(&effects)[0];
        let own = desk.built()[0].clone();
        assert_eq!(own.len(), 1, "each alone: {own:?}");
        desk.grant(claim);
        if own == [2] {
            effects = desk.hear(lost(claim));
            continue;
        }
        desk.claim(claim, &own);
        desk.hear(Event::StartAccepted { claim });
        effects = desk.finish(claim);
        built.extend(own);
    }
    assert_eq!((built, desk.pending()), (vec![1, 3], vec![]));
}

#[test]
fn b11_a_request_that_cannot_be_placed_blocks_nobody_behind_it() {
    let mut desk = Desk::new(config(&["w1", "w2"]));
    desk.attach("w1", 1);
    desk.enqueue(vec![named(1, "w2"), named(2, "w2"), request(3), named(4, "w1")]);
    assert_eq!((desk.built(), desk.pending()), (vec![vec![3]], vec![1, 2, 4]));
    // The oldest stays what it is, also while it cannot be placed (row B06).
    assert_eq!(desk.core.view().oldest_request_time, Some(request(1).submitted_at));
    assert_eq!(asked(&desk.attach("w2", 2)).len(), 1);
    assert_eq!((desk.built(), desk.pending()), (vec![vec![1], vec![3]], vec![2, 4]));
}

#[test]
fn b11_it_goes_on_until_no_request_fits_a_worker() {
    let mut desk = Desk::new(config(&["w1", "w2", "w3"]));
    for (worker, session) in [("w1", 1), ("w2", 2), ("w3", 3)] {
        desk.attach(worker, session);
    }
    desk.enqueue(vec![named(1, "w3"), named(2, "w3"), request(3), named(4, "w2")]);
    // In their order: 1 has w3, 3 has the first that is left.
    let view = desk.core.view();
    let worker_of = |id: u64| {
        let build = view.builds.iter().find(|build| build.requests == [RequestId(id)]);
        build.map(|build| build.worker.to_string())
    };
    assert_eq!(worker_of(1).as_deref(), Some("w3"));
    assert_eq!(worker_of(3).as_deref(), Some("w1"));
    assert_eq!(worker_of(4).as_deref(), Some("w2"));
    assert_eq!(desk.pending(), [2]);
}

#[test]
fn b11_a_named_worker_that_left_the_builder_is_waited_for_and_blocks_nobody() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.enqueue(vec![named(1, "gone"), request(2)]);
    desk.attach("w1", 1);
    assert_eq!((desk.built(), desk.pending()), (vec![vec![2]], vec![1]));
}

#[test]
fn b12_a_named_worker_is_taken_whatever_the_choice_is() {
    for choose in [ChooseWorker::First, ChooseWorker::Random] {
        let mut desk = Desk::new(BuilderConfig { choose, ..config(&["w1", "w2", "w3"]) });
        for (worker, session) in [("w1", 1), ("w2", 2), ("w3", 3)] {
            desk.attach(worker, session);
        }
        assert_eq!(asked(&desk.enqueue(vec![named(1, "w2")]))[0].0, "w2");
    }
}

#[test]
fn b09_what_names_another_worker_does_not_join() {
    let mut desk = merging(&["w1", "w2"], Merge::SameSource);
    desk.attach("w1", 1);
    desk.enqueue(vec![request(1), named(2, "w2"), named(3, "w1"), request(4)]);
    assert_eq!((desk.built(), desk.pending()), (vec![vec![1, 3, 4]], vec![2]));
}

#[test]
fn b12_only_a_submission_names_a_worker() {
    let name = |value: &str, source: &str| {
        let property = Property { value: value.into(), source: source.into() };
        named_worker(&Properties::from([(WORKER_PROPERTY.into(), property)]))
    };
    assert_eq!(name("w1", "Force Build Form"), Some("w1".into()));
    assert_eq!(name(" ", "Force Build Form"), None, "an empty text is any");
    assert_eq!(name("w1", WORKER_SOURCE), None, "what a build says of its worker binds nobody");
    assert_eq!(named_worker(&Properties::new()), None);
}

#[test]
fn b11_a_builder_has_no_more_builds_than_it_may() {
    let mut desk = Desk::new(BuilderConfig { max_builds: Some(2), ..config(&["w1", "w2", "w3"]) });
    for (worker, session) in [("w1", 1), ("w2", 2), ("w3", 3)] {
        desk.attach(worker, session);
    }
    let effects = desk.submit(&[1, 2, 3]);
    assert_eq!((desk.built(), desk.pending()), (vec![vec![1], vec![2]], vec![3]));
    let (_, claim) = asked(&effects)[0];
    desk.start(claim, &[1], 1);
    assert_eq!(desk.pending(), [3], "from the choice of the worker to the end");
    desk.finish(claim);
    assert_eq!((desk.built(), desk.pending()), (vec![vec![2], vec![3]], vec![]));
}

#[test]
fn i05_builds_of_a_predecessor_count_for_the_limit() {
    let old = BuilderConfig { max_builds: Some(1), ..config(&["w1", "w2"]) };
    let mut desk = Desk::new(old.clone());
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.start(claim, &[1], 1);
    desk.submit(&[2]);
    let new = BuilderConfig { description: Some("new".into()), ..old };
    let handover = desk.core.hand_over(&new, 5);
    let mut desk =
        Desk::with(botmaster::core::builder::BuilderCore::succeed(new.into(), handover, desk.now));
    assert!(asked(&desk.attach("w2", 2)).is_empty());
    let over = Event::InheritedFinished { claim, requeued: Vec::new(), times: None };
    assert_eq!(asked(&desk.hear(over)).len(), 1);
}

#[test]
fn b11_a_request_that_waits_can_say_why() {
    let mut desk = Desk::new(BuilderConfig { max_builds: Some(2), ..config(&["w1", "w2", "w3"]) });
    desk.enqueue(vec![request(1), named(2, "w2"), named(3, "gone")]);
    let why = |desk: &Desk, id: u64| {
        let mut waiting = desk.core.pending();
        waiting.find(|own| own.id == RequestId(id)).map(|own| desk.core.why_it_waits(own))
    };
    assert_eq!(why(&desk, 1).unwrap(), "no worker of builder unit is attached");
    assert_eq!(why(&desk, 2).unwrap(), "it names worker w2, which is not attached");
    assert_eq!(why(&desk, 3).unwrap(), "it names worker gone, which builder unit does not have");
    let (_, claim) = asked(&desk.attach("w1", 1))[0];
    desk.submit(&[4]);
    assert_eq!(why(&desk, 4).unwrap(), "every worker is busy");
    desk.start(claim, &[1], 1);
    desk.attach("w2", 2);
    desk.attach("w3", 3);
    desk.enqueue(vec![named(5, "w2")]);
    assert_eq!(why(&desk, 5).unwrap(), "builder unit has 2 builds, its limit");
    let mut desk = Desk::new(config(&["w1", "w2"]));
    let (_, claim) = asked(&{
        desk.attach("w2", 1);
        desk.enqueue(vec![named(1, "w2"), named(2, "w2")])
    })[0];
    assert_eq!(why(&desk, 2).unwrap(), "it names worker w2, which is busy");
    desk.grant(claim);
    desk.claim(claim, &[1]);
    let failure = StartFailure::Refused { code: "disk".into(), message: "full".into() };
    desk.hear(Event::StartFailed { claim, failure });
    desk.hear(Event::Unclaimed { claim, requests: vec![back(3)] });
    let alone = "is left alone for a while: a start failed there";
    assert_eq!(why(&desk, 2).unwrap(), format!("it names worker w2, which {alone}"));
    assert!(why(&desk, 3).unwrap().starts_with("the workers that are free are left alone"));
}

#[test]
fn the_stories_see_the_planted_faults() {
    bites(
        "merge_reverses",
        b08_merged_requests_return_to_the_head_in_their_order_and_are_merged_anew,
    );
    bites("merge_ignores_key", b09_requests_for_the_same_source_join_the_oldest_in_order);
    bites("merge_ignores_key", b09_listed_properties_must_be_equal_and_others_need_not);
    bites("blocked_head", b11_a_request_that_cannot_be_placed_blocks_nobody_behind_it);
    bites("blocked_head", b11_a_named_worker_that_left_the_builder_is_waited_for_and_blocks_nobody);
    bites("claims_beyond_max_builds", b11_a_builder_has_no_more_builds_than_it_may);
    bites("claims_beyond_max_builds", i05_builds_of_a_predecessor_count_for_the_limit);
    use crate::cancel_stories as cancel;
    bites("cancel_forgets_merged", cancel::b07_a_merged_request_leaves_before_the_claim);
    bites("cancel_forgets_merged", cancel::b07_a_merged_request_leaves_while_the_claim_is_written);
    bites("cancel_forgets_merged", cancel::b07_a_merged_request_leaves_during_the_ping);
}
