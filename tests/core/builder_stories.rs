//! The builder's queue and its choice of workers.

use botmaster::core::builder::{
    BuilderCore, Effect, Event, OpenBuild, Records, ReplyId, Request, SeatReport, SeatReportUse,
    StartFailure, Take,
};
use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::core::time::WallTime;
use botmaster::core::values::*;
use botmaster::core::views::BigState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kit::*;

#[test]
fn b05_a_stored_request_waits_and_a_build_is_tried() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.submit(&[1]);
    assert_eq!(desk.pending(), [1]);
    let effects = desk.attach("w1", 1);
    assert_eq!(asked(&effects).len(), 1);
    assert!(desk.pending().is_empty());
}

#[test]
fn b05_a_notice_of_a_request_that_the_records_held_says_nothing_new() {
    let mut desk = Desk::new(config(&["w1"]));
    let mut effects = Vec::new();
    let records = Records {
        queued: vec![request(4)],
        builds: Vec::new(),
        inherited: Vec::new(),
        loaded_through: RequestId(5),
        expectations: None,
    };
    let none = BTreeSet::new();
    desk.core.rebuild(desk.now, records, Vec::new(), &none, &none, &mut effects);
    // 5 was claimed and ended before the records were read; its notice comes late.
    desk.submit(&[4, 5, 6]);
    assert_eq!(desk.pending(), [4, 6]);
}

#[test]
fn b06_oldest_request_time_is_the_heads() {
    let mut desk = Desk::new(config(&["w1"]));
    assert_eq!(desk.core.view().oldest_request_time, None);
    let effects = desk.submit(&[3, 2]);
    assert_eq!(desk.core.view().oldest_request_time, Some(WallTime(2_000_000)));
    assert!(effects.contains(&Effect::OldestChanged(Some(BuildsetId(2)))));
}

#[test]
pub fn b07_a_waiting_request_is_cancelled_and_a_late_cancel_changes_nothing() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.submit(&[1, 2]);
    let cancel =
        |id| Event::Cancel { request: RequestId(id), reason: "no".into(), reply: ReplyId(id) };
    let effects = desk.hear(cancel(1));
    assert!(
        matches!(&effects[0], Effect::CancelWaiting { request, reply: Some(ReplyId(1)) } if request.id == RequestId(1))
    );
    assert_eq!(desk.pending(), [2]);
    assert_eq!(answers(&desk.hear(cancel(9))), [(ReplyId(9), false)]);
}

#[test]
fn b07_a_request_cancelled_during_its_ping_never_starts() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.submit(&[1]);
    let (_, claim) = asked(&desk.attach("w1", 1))[0];
    desk.grant(claim);
    let (build, _) = desk.claim(claim, &[1]);
    let effects =
        desk.hear(Event::Cancel { request: RequestId(1), reason: "no".into(), reply: ReplyId(1) });
    assert!(effects.contains(&Effect::LeaveStart {
        worker: "w1".into(),
        claim,
        request: RequestId(1)
    }));
    desk.hear(Event::LeftStart { claim, request: RequestId(1), in_time: true });
    let effects = desk.hear(Event::StartFailed { claim, failure: StartFailure::CalledBack });
    assert!(effects.contains(&Effect::Unclaim {
        claim,
        build,
        cancelled: vec![RequestId(1)],
        refused: false
    }));
    let effects = desk.hear(Event::Unclaimed { claim, requests: Vec::new() });
    assert_eq!(answers(&effects), [(ReplyId(1), true)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::GiveBackSlot { .. })));
    assert!(desk.states().is_empty() && desk.pending().is_empty());
}

#[test]
pub fn b08_failed_ping_requeues_at_the_head() {
    let mut desk = Desk::new(config(&["w1", "w2"]));
    desk.submit(&[1]);
    let (worker, claim) = asked(&desk.attach("w1", 1))[0].clone();
    assert_eq!(worker, "w1");
    desk.submit(&[2, 3]);
    desk.grant(claim);
    let (build, effects) = desk.claim(claim, &[1]);
    assert!(matches!(&effects[0], Effect::StartOnSeat { .. }));
    // The drop of the worker is heard before the failure, so the retry does
    // not choose it again.
    desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(1) });
    let effects =
        desk.hear(Event::StartFailed { claim, failure: StartFailure::NoAnswer("ping".into()) });
    assert!(effects.contains(&Effect::Unclaim {
        claim,
        build,
        cancelled: Vec::new(),
        refused: false
    }));
    assert_eq!(desk.pending(), [2, 3], "nothing waits again before it is durable");
    let back = Request { epoch: Epoch(1), requeued: true, ..request(1) };
    desk.hear(Event::Enqueue(vec![Request { priority: 9, ..request(4) }]));
    desk.hear(Event::Unclaimed { claim, requests: vec![back] });
    assert_eq!(desk.pending(), [1, 4, 2, 3], "before whatever never started");
    let effects = desk.attach("w2", 2);
    assert_eq!(asked(&effects)[0].0, "w2");
    assert_eq!(desk.pending(), [4, 2, 3]);
}

#[test]
fn b08_two_requeued_builds_stand_in_order_of_priority_then_age() {
    let mut desk = Desk::new(config(&[]));
    let back = |id, priority| Request { priority, requeued: true, ..request(id) };
    desk.submit(&[1]);
    desk.hear(Event::Enqueue(vec![back(7, 0), back(5, 0), back(6, 3)]));
    assert_eq!(desk.pending(), [6, 5, 7, 1]);
}

#[test]
fn b10_pending_requests_are_listed_in_order() {
    let mut desk = Desk::new(config(&[]));
    desk.submit(&[3, 1]);
    desk.hear(Event::Enqueue(vec![Request { priority: 5, ..request(9) }]));
    assert_eq!(desk.pending(), [9, 1, 3]);
}

#[test]
pub fn b11_starts_go_on_until_the_workers_run_out() {
    let mut desk = Desk::new(config(&["w1", "w2"]));
    desk.attach("w1", 1);
    desk.attach("w2", 2);
    let effects = desk.submit(&[1, 2, 3]);
    assert_eq!(asked(&effects).len(), 2);
    assert_eq!(desk.pending(), [3]);
}

#[test]
fn b12_first_takes_attach_order_and_random_follows_its_seed() {
    let mut desk = Desk::new(config(&["w1", "w2", "w3"]));
    desk.attach("w3", 1);
    desk.attach("w1", 2);
    assert_eq!(asked(&desk.submit(&[1]))[0].0, "w3");

    let pick = |seed| {
        let setup = BuilderConfig { choose: ChooseWorker::Random, ..config(&["w1", "w2", "w3"]) };
        let core =
            BuilderCore::new(BuilderId(1), Generation(1), Arc::new(setup), Rng::seeded(seed));
        let mut desk = Desk::with(core);
        for (session, worker) in ["w1", "w2", "w3"].iter().enumerate() {
            desk.attach(worker, session as u64 + 1);
        }
        asked(&desk.submit(&[1]))[0].0.clone()
    };
    assert_eq!(pick(1), pick(1));
    let seen: BTreeSet<_> = (0..40).map(pick).collect();
    assert_eq!(seen.len(), 3, "each worker is chosen by some seed");
}

#[test]
fn b13_only_the_store_and_the_ping_let_a_build_start() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    assert!(matches!(desk.grant(claim)[..], [Effect::Claim { .. }]));
    let (_, effects) = desk.claim(claim, &[1]);
    let [Effect::StartOnSeat { order, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(order.ping_timeout, 10 * SECOND);
    assert_eq!(order.requests, [(RequestId(1), Epoch(1))]);
    assert_eq!(desk.states(), ["starting"]);
    let effects = desk.hear(Event::StartAccepted { claim });
    assert!(matches!(effects[0], Effect::RunBuild { .. }));
}

#[test]
fn b15_a_build_has_its_number_after_the_remote_start() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.grant(claim);
    let (build, _) = desk.claim(claim, &[1]);
    desk.hear(Event::StartAccepted { claim });
    assert_eq!(desk.core.get_build(BuildNumber(12)), None, "b18: without a number it is skipped");
    desk.hear(Event::Started { claim, number: BuildNumber(12) });
    assert_eq!(desk.core.get_build(BuildNumber(12)), Some(build));
}

#[test]
pub fn b16_the_end_of_a_build_frees_its_worker_whatever_the_result() {
    for result in [BuildResult::Success, BuildResult::Failure, BuildResult::Exception] {
        let mut desk = Desk::new(config(&["w1"]));
        desk.attach("w1", 1);
        let (_, claim) = asked(&desk.submit(&[1]))[0];
        desk.start(claim, &[1], 1);
        desk.submit(&[2]);
        let mut effects =
            desk.hear(Event::Finished { claim, result, requeued: Vec::new(), times: None });
        assert!(asked(&effects).is_empty(), "every builder is tried, not this one first");
        effects.extend(desk.hear(Event::MaybeStart { worker: Some("w1".into()) }));
        assert!(effects.contains(&Effect::BuildOver { worker: "w1".into(), claim }));
        assert!(effects.contains(&Effect::GiveBackSlot { worker: "w1".into(), claim }));
        assert_eq!(asked(&effects).len(), 1, "the next request takes the worker");
        assert!(notes(&effects).is_empty(), "b17: it goes on building");
    }
}

#[test]
pub fn b17_the_big_state_is_told_only_when_it_changes() {
    let mut desk = Desk::new(config(&["w1", "w2"]));
    let states = |effects: &[Effect]| -> Vec<String> {
        notes(effects)
            .into_iter()
            .filter(|note| ["offline", "idle", "building"].contains(&note.as_str()))
            .collect()
    };
    assert_eq!(desk.core.view().big_state, BigState::Offline);
    let attaching = desk.hear(Event::Attach { worker: "w1".into(), session: SessionId(1) });
    assert!(states(&attaching).is_empty(), "an attaching worker does not count");
    let attached =
        desk.hear(Event::Attached { worker: "w1".into(), session: SessionId(1), building: None });
    assert_eq!(states(&attached), ["idle"]);
    assert!(states(&desk.attach("w2", 2)).is_empty());
    let submitted = desk.submit(&[1]);
    assert_eq!(states(&submitted), ["building"], "from the choice of the worker on");
    let (_, claim) = asked(&submitted)[0];
    desk.start(claim, &[1], 1);
    assert_eq!(states(&desk.finish(claim)), ["idle"]);
    desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(1) });
    let gone = desk.hear(Event::Detach { worker: "w2".into(), session: SessionId(2) });
    assert_eq!(states(&gone), ["offline"]);
}

#[test]
fn b20_queue_and_running_build_come_back_from_the_records() {
    let mut desk = Desk::new(config(&["w1"]));
    let claim = ClaimId(77);
    let open = OpenBuild {
        claim,
        build: BuildId(9),
        number: Some(BuildNumber(3)),
        worker: "w1".into(),
        may_return: true,
        requests: vec![request(1)],
        stop: None,
    };
    let records = Records {
        queued: vec![request(2), request(3)],
        builds: vec![open],
        inherited: Vec::new(),
        loaded_through: RequestId(3),
        expectations: None,
    };
    let report = SeatReport {
        worker: "w1".into(),
        session: SessionId(4),
        used: SeatReportUse::Building(claim),
        pinging: false,
    };
    let mut effects = Vec::new();
    let running = BTreeSet::from([claim]);
    desk.core.rebuild(desk.now, records, vec![report], &running, &BTreeSet::new(), &mut effects);
    assert!(asked(&effects).is_empty(), "the seat is taken");
    assert_eq!(desk.pending(), [2, 3]);
    assert_eq!(desk.core.get_build(BuildNumber(3)), Some(BuildId(9)));
    assert_eq!(asked(&desk.finish(claim)).len(), 1);
}

/// A builder that begins anew with a claim that has no number.
fn with_an_open_claim(may_return: bool, seat: Option<SeatReportUse>) -> (Desk, Vec<Effect>) {
    let mut desk = Desk::new(config(&["w1"]));
    let open = OpenBuild {
        claim: ClaimId(77),
        build: BuildId(9),
        number: None,
        worker: "w1".into(),
        may_return,
        requests: vec![request(1)],
        stop: None,
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
    let mut effects = Vec::new();
    let (none, reports) = (BTreeSet::new(), seat.map(report).into_iter().collect());
    desk.core.rebuild(desk.now, records, reports, &none, &none, &mut effects);
    (desk, effects)
}

#[test]
fn b20_a_claim_whose_start_is_lost_goes_back_to_the_queue() {
    // The worker is here and has nothing of it, or is not configured any more.
    for (may_return, seat) in [(true, Some(SeatReportUse::Free)), (false, None)] {
        let (_, effects) = with_an_open_claim(may_return, seat);
        let undo = Effect::Unclaim {
            claim: ClaimId(77),
            build: BuildId(9),
            cancelled: Vec::new(),
            refused: false,
        };
        assert!(effects.contains(&undo), "{effects:?}");
    }
}

fn taken_in_doubt(effects: &[Effect]) -> Option<Option<SessionId>> {
    effects.iter().find_map(|effect| match effect {
        Effect::RunBuild { take: Take::InDoubt { session }, .. } => Some(*session),
        _ => None,
    })
}

#[test]
pub fn fb02_a_claim_of_an_earlier_master_waits_for_what_its_worker_says() {
    let (mut desk, effects) = with_an_open_claim(true, None);
    assert_eq!(taken_in_doubt(&effects), Some(None), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Unclaim { .. })));
    assert!(desk.pending().is_empty());
    // Its Build gives it back once the worker has said that it has it not.
    desk.submit(&[2]);
    desk.hear(Event::Attach { worker: "w1".into(), session: SessionId(1) });
    desk.hear(Event::Attached {
        worker: "w1".into(),
        session: SessionId(1),
        building: Some(ClaimId(77)),
    });
    let back = Request { requeued: true, ..request(1) };
    let effects = desk.hear(Event::Finished {
        claim: ClaimId(77),
        result: BuildResult::Retry,
        requeued: vec![back],
        times: None,
    });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::GiveBackSlot { .. })));
    let worker = Some("w1".into());
    assert_eq!(asked(&desk.hear(Event::MaybeStart { worker })).len(), 1);
    assert_eq!(desk.pending(), [2], "it goes first");
}

#[test]
fn fb02_a_claim_that_is_undone_at_once_is_seen() {
    bites(
        "fb02_unclaimed_at_once",
        fb02_a_claim_of_an_earlier_master_waits_for_what_its_worker_says,
    );
}

/// A builder whose only start was sent.
fn sent() -> (Desk, ClaimId, BuildId) {
    let mut desk = Desk::new(config(&["w1", "w2"]));
    desk.submit(&[1]);
    let (_, claim) = asked(&desk.attach("w1", 1))[0];
    desk.grant(claim);
    let (build, _) = desk.claim(claim, &[1]);
    desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(1) });
    (desk, claim, build)
}

#[test]
fn fb03_a_start_without_an_answer_is_orphaned_and_nobody_else_starts_it() {
    let (mut desk, claim, _) = sent();
    let failure = StartFailure::InDoubt { session: SessionId(1) };
    let effects = desk.hear(Event::StartFailed { claim, failure: failure.clone() });
    assert_eq!(taken_in_doubt(&effects), Some(Some(SessionId(1))));
    assert_eq!(desk.states(), ["orphaned"]);
    assert!(asked(&desk.attach("w2", 2)).is_empty(), "another worker is free, and waits");
    assert_eq!(
        desk.hear(Event::StartFailed { claim, failure }),
        [Effect::Ignored("start failure told twice")]
    );
    let cancel = Event::Cancel { request: RequestId(1), reason: "no".into(), reply: ReplyId(1) };
    assert_eq!(answers(&desk.hear(cancel)), [(ReplyId(1), false)], "too late");
    desk.hear(Event::Orphaned { claim, away: None });
    assert_eq!(desk.states(), ["running"], "its worker is back with it");
}

#[test]
fn fb03_one_that_nobody_wants_any_more_is_not_waited_for() {
    let (mut desk, claim, build) = sent();
    desk.hear(Event::Cancel { request: RequestId(1), reason: "no".into(), reply: ReplyId(1) });
    let failure = StartFailure::InDoubt { session: SessionId(1) };
    let effects = desk.hear(Event::StartFailed { claim, failure });
    let cancelled = vec![RequestId(1)];
    assert!(effects.contains(&Effect::Unclaim { claim, build, cancelled, refused: false }));
}

#[test]
fn fp10_a_worker_that_left_before_the_start_is_tried_again_as_soon_as_it_is_back() {
    let (mut desk, claim, build) = sent();
    let effects = desk.hear(Event::StartFailed { claim, failure: StartFailure::Left });
    let undo = Effect::Unclaim { claim, build, cancelled: Vec::new(), refused: false };
    assert!(effects.contains(&undo));
    desk.hear(Event::Unclaimed { claim, requests: vec![request(1)] });
    assert_eq!(asked(&desk.attach("w1", 2)).len(), 1, "no pause (FB07)");
}

#[test]
pub fn b21_attach_again_on_the_same_connection_is_nothing_and_on_a_new_one_replaces() {
    let mut desk = Desk::new(config(&["w1"]));
    let attach = |session| Event::Attach { worker: "w1".into(), session: SessionId(session) };
    assert!(matches!(desk.hear(attach(1))[..], [Effect::NewSeat { .. }]));
    assert!(desk.hear(attach(1)).is_empty(), "attaching");
    desk.hear(Event::Attached { worker: "w1".into(), session: SessionId(1), building: None });
    assert!(desk.hear(attach(1)).is_empty(), "attached");
    let effects = desk.hear(attach(2));
    assert!(matches!(effects[0], Effect::DropSeat { .. }));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::NewSeat { .. })));
    assert_eq!(desk.hear(attach(1)), [Effect::Ignored("attach of an older connection")]);
}

#[test]
fn b22_connect_is_noted_before_the_first_start_on_that_worker() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.submit(&[1]);
    let effects = desk.attach("w1", 1);
    let connect = effects
        .iter()
        .position(|effect| matches!(effect, Effect::Note { text, .. } if text == "connect w1"));
    let start = effects.iter().position(|effect| matches!(effect, Effect::AskSlot { .. }));
    assert!(connect.unwrap() < start.unwrap());
}

#[test]
pub fn b23_a_failed_attach_is_told_and_the_next_one_works() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.hear(Event::Attach { worker: "w1".into(), session: SessionId(1) });
    let effects = desk.hear(Event::AttachFailed {
        worker: "w1".into(),
        session: SessionId(1),
        error: "no disk".into(),
    });
    assert_eq!(notes(&effects), ["failed connect w1"]);
    assert!(effects.contains(&Effect::DropSeat { worker: "w1".into() }));
    assert!(desk.core.view().workers.is_empty(), "it does not stay attaching");
    assert_eq!(notes(&desk.attach("w1", 2)), ["connect w1", "idle"]);
}

/// The lock itself is not enforced yet; the build is told of it.
#[test]
fn b04_each_build_gets_the_builders_locks_and_environment_of_its_start() {
    let lock = LockUse { name: "disk".into(), kind: LockKind::Master, count: 1, max_count: 1 };
    let env = BTreeMap::from([("CC".to_owned(), "clang".to_owned())]);
    let setup = BuilderConfig { locks: vec![lock], env, ..config(&["w1"]) };
    let mut desk = Desk::new(setup.clone());
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.grant(claim);
    let (_, effects) = desk.claim(claim, &[1]);
    let order = effects.iter().find_map(|effect| match effect {
        Effect::StartOnSeat { order, .. } => Some(order),
        _ => None,
    });
    assert_eq!(*order.unwrap().config, setup);
    let effects = desk.hear(Event::StartAccepted { claim });
    let runs = |e: &Effect| matches!(e, Effect::RunBuild { config, .. } if **config == setup);
    assert!(effects.iter().any(runs), "set before it starts");
}

fn refusal(claim: ClaimId, message: &str) -> Event {
    let failure = StartFailure::Refused { code: "disk".into(), message: message.into() };
    Event::StartFailed { claim, failure }
}

#[test]
fn fb08_b08_refused_starts_count_and_after_the_last_try_the_build_ends_with_every_reason() {
    let mut desk = Desk::new(BuilderConfig { infra_retries: 2, ..config(&["w1"]) });
    desk.attach("w1", 1);
    let mut asked_now = asked(&desk.submit(&[1]));
    for tries in 0..3 {
        let (_, claim) = asked_now[0];
        desk.grant(claim);
        let build = BuildId(100);
        // As the store has it after so many tries.
        let again = Request { infra_tries: tries, epoch: Epoch(1), ..request(1) };
        desk.hear(Event::Claimed { claim, build, requests: vec![(RequestId(1), Epoch(1))] });
        if tries < 2 {
            let effects = desk.hear(refusal(claim, &format!("full {tries}")));
            assert!(effects.contains(&Effect::Unclaim {
                claim,
                build,
                cancelled: Vec::new(),
                refused: true
            }));
            let back = Request { infra_tries: tries + 1, requeued: true, ..again };
            desk.hear(Event::Unclaimed { claim, requests: vec![back] });
            desk.pass(3600 * SECOND);
            asked_now = asked(&desk.hear(Event::MaybeStart { worker: None }));
            continue;
        }
        let effects = desk.hear(refusal(claim, "full 2"));
        let text = effects.iter().find_map(|effect| match effect {
            Effect::GiveUp { text, .. } => Some(text.as_str()),
            _ => None,
        });
        assert_eq!(
            text,
            Some(
                "no worker could start it in 3 tries: w1 (disk: full 0), w1 (disk: full 1), \
                 w1 (disk: full 2)"
            )
        );
        let effects = desk.hear(Event::Unclaimed { claim, requests: Vec::new() });
        let freed = |e: &Effect| matches!(e, Effect::GiveBackSlot { claim: c, .. } if *c == claim);
        assert!(effects.iter().any(freed), "the worker is free again");
    }
    assert!(desk.pending().is_empty() && desk.states().is_empty());
}

#[test]
fn b08_a_ping_that_is_not_answered_counts_no_try() {
    let mut desk = Desk::new(BuilderConfig { infra_retries: 0, ..config(&["w1"]) });
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.grant(claim);
    let (build, _) = desk.claim(claim, &[1]);
    let failure = StartFailure::NoAnswer("silence".into());
    let effects = desk.hear(Event::StartFailed { claim, failure });
    let back = Effect::Unclaim { claim, build, cancelled: Vec::new(), refused: false };
    assert!(effects.contains(&back));
}

#[test]
pub fn b24_detach_of_an_unknown_worker_changes_nothing() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 5);
    let before = desk.core.clone();
    desk.hear(Event::Detach { worker: "w9".into(), session: SessionId(1) });
    desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(4) });
    assert_eq!(desk.core, before);
    let effects = desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(5) });
    assert_eq!(notes(&effects), ["disconnect w1", "last disconnect", "offline"]);
    desk.hear(Event::Attach { worker: "w1".into(), session: SessionId(6) });
    let effects = desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(6) });
    assert_eq!(notes(&effects), ["failed connect w1"], "`disconnect` only follows `connect`");
}

#[test]
pub fn b29_choosing_is_a_reservation_and_a_refusal_leaves_the_request_in_its_place() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    assert!(asked(&desk.submit(&[2])).is_empty(), "one seat is not chosen twice");
    let effects = desk.hear(Event::SlotRefused { claim });
    assert_eq!(desk.pending(), [1, 2]);
    assert!(asked(&effects).is_empty(), "a full worker is not asked again");
    let effects = desk.hear(Event::MaybeStart { worker: Some("w1".into()) });
    assert_eq!(asked(&effects).len(), 1, "until it says that it is free");
}

#[test]
pub fn b16_an_offer_is_used_or_passed_on() {
    let offer = || Event::Offered { worker: "w1".into() };
    let passed = |effects: &[Effect]| effects.contains(&Effect::PassOn { worker: "w1".into() });
    let mut desk = Desk::new(config(&["w1"]));
    assert!(passed(&desk.hear(offer())), "it does not know the worker");
    desk.attach("w1", 1);
    assert!(passed(&desk.hear(offer())), "it has nothing to start");
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    assert!(!passed(&desk.hear(offer())), "it has asked, and the worker will answer");
    desk.hear(Event::SlotRefused { claim });
    let effects = desk.hear(offer());
    let (_, claim) = asked(&effects)[0];
    assert!(!passed(&effects), "it asks now");
    desk.start(claim, &[1], 1);
    desk.submit(&[2]);
    assert!(passed(&desk.hear(offer())), "it has one build there, and no seat for another");
}

#[test]
fn b17_a_builder_that_waits_in_line_does_not_build() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.start(claim, &[1], 1);
    desk.submit(&[2]);
    let result = BuildResult::Success;
    desk.hear(Event::Finished { claim, result, requeued: Vec::new(), times: None });
    assert_eq!(desk.core.view().big_state, BigState::Building, "it may go on at once");
    let effects = desk.hear(Event::InLine { worker: "w1".into() });
    assert!(asked(&effects).is_empty(), "others are before it");
    assert_eq!(notes(&effects), ["idle"]);
    assert_eq!(asked(&desk.hear(Event::Offered { worker: "w1".into() })).len(), 1);
}

#[test]
fn p05_a_worker_that_failed_a_start_is_left_alone_for_a_while() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.submit(&[1]);
    let (_, claim) = asked(&desk.attach("w1", 1))[0];
    desk.grant(claim);
    desk.claim(claim, &[1]);
    desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(1) });
    desk.hear(Event::StartFailed { claim, failure: StartFailure::NoAnswer("x".into()) });
    desk.hear(Event::Unclaimed { claim, requests: vec![request(1)] });
    assert!(asked(&desk.attach("w1", 2)).is_empty());
    let due = desk.core.next_deadline().expect("somebody wakes it");
    assert_eq!(due.since(desk.now.mono), 10 * SECOND);
    desk.pass(10 * SECOND);
    assert_eq!(asked(&desk.hear(Event::DeadlineReached)).len(), 1);
}

#[test]
fn fb01_a_claim_that_the_store_could_not_write_waits_and_is_tried_again() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.grant(claim);
    let effects = desk.hear(Event::ClaimLost { claim, error: "disk full".into(), transient: true });
    assert_eq!(desk.pending(), [1]);
    assert!(asked(&effects).is_empty(), "not at once");
    desk.pass(SECOND);
    assert_eq!(asked(&desk.hear(Event::DeadlineReached)).len(), 1);
}

#[test]
fn a_start_that_meets_a_seat_in_use_is_not_tried_again_at_once() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.grant(claim);
    desk.claim(claim, &[1]);
    desk.hear(Event::StartFailed { claim, failure: StartFailure::CalledBack });
    let effects = desk.hear(Event::Unclaimed { claim, requests: vec![request(1)] });
    assert!(asked(&effects).is_empty());
    assert!(desk.core.next_deadline().is_some());
}

#[test]
fn b18_a_running_build_is_found_by_its_number_an_own_one_first() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    let build = desk.start(claim, &[1], 4);
    assert_eq!(desk.core.get_build(BuildNumber(4)), Some(build));
    assert_eq!(desk.core.get_build(BuildNumber(5)), None);
    desk.finish(claim);
    assert_eq!(desk.core.get_build(BuildNumber(4)), None, "a finished one is not found here");
}

#[test]
fn ft01_a_wall_clock_that_is_set_back_changes_no_order() {
    let mut desk = Desk::new(config(&["w1"]));
    let set_back = Request { submitted_at: WallTime(-5), ..request(2) };
    desk.hear(Event::Enqueue(vec![request(1), set_back, request(3)]));
    assert_eq!(desk.pending(), [1, 2, 3], "the first one that came goes first");
}

#[test]
fn b16_an_offer_that_is_kept_is_seen() {
    bites("offer_ends_with_the_first", b16_an_offer_is_used_or_passed_on);
}
