//! A new Builder consumes its predecessor.

use std::collections::BTreeSet;
use std::sync::Arc;

use botmaster::core::builder::{
    BuilderCore, Effect, Event, ReplyId, Request, StartFailure, StopSaved,
};
use botmaster::core::ids::*;
use botmaster::core::values::*;
use botmaster::core::views::BigState;

use crate::kit::*;

/// Both desks after a takeover, as the actors do it.
fn take_over(old: &mut Desk, new: BuilderConfig) -> Desk {
    let handover = old.core.hand_over(&new, 3);
    let moved: BTreeSet<_> = handover.seats.keys().cloned().collect();
    let mut desk = Desk::with(BuilderCore::succeed(Arc::new(new), handover, old.now));
    let mut effects = Vec::new();
    old.core.retire(&moved, true, &mut effects);
    old.effects.extend(effects);
    desk.hear(Event::MaybeStart { worker: None });
    desk
}

/// What the predecessor tells its successor reaches it.
fn pass_on(effects: Vec<Effect>, to: &mut Desk) -> Vec<Effect> {
    let mut all = Vec::new();
    for effect in effects {
        if let Effect::TellSuccessor(event) = effect {
            all.extend(to.hear(event));
        }
    }
    all
}

#[test]
pub fn t01_the_whole_queue_moves_in_order() {
    let mut old = Desk::new(config(&["w1"]));
    old.submit(&[3, 1, 2]);
    let new = take_over(&mut old, config(&["w1", "w2"]));
    assert_eq!(new.pending(), [1, 2, 3]);
    assert!(old.pending().is_empty());
    assert!(asked(&old.hear(Event::MaybeStart { worker: None })).is_empty());
}

#[test]
fn t02_running_builds_stay_and_their_end_is_told_to_the_latest_successor() {
    let mut old = Desk::new(config(&["w1"]));
    old.attach("w1", 1);
    let (_, claim) = asked(&old.submit(&[1]))[0];
    let build = old.start(claim, &[1], 5);
    let mut middle = take_over(&mut old, config(&["w1", "w2"]));
    assert_eq!(middle.core.get_build(BuildNumber(5)), Some(build), "b18: it sees it");
    let mut new = take_over(&mut middle, config(&["w1", "w3"]));
    assert_eq!(new.core.get_build(BuildNumber(5)), Some(build));
    let effects = new.hear(Event::Stop { build, reason: "x".into(), reply: ReplyId(1) });
    let [Effect::StopInherited { claim: whose, request: None, reply, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((*whose, *reply), (claim, Some(ReplyId(1))), "its owner answers");
    let reason = "x".to_owned();
    let effects =
        old.hear(Event::StopOwn { claim, request: None, reason, reply: Some(ReplyId(9)) });
    assert_eq!(effects, [Effect::SaveStop { claim, build, reason: "x".into() }], "i12");
    let effects = old.stop_saved(claim, StopSaved::Kept);
    assert_eq!(answers(&effects), [(ReplyId(9), true)]);
    assert!(effects.iter().any(|e| matches!(e, Effect::StopBuild { .. })));

    new.submit(&[2]);
    let told = old.finish(claim);
    let told = pass_on(told, &mut middle);
    // The route leads to the latest at once; the middle one passes on as well.
    let effects = pass_on(told, &mut new);
    assert_eq!(new.core.get_build(BuildNumber(5)), None);
    assert!(effects.contains(&Effect::BuildOver { worker: "w1".into(), claim }));
    assert_eq!(asked(&effects).len(), 1, "the freed worker starts the successor's next build");
    let (reason, reply) = ("late".to_owned(), Some(ReplyId(10)));
    let late = old.hear(Event::StopOwn { claim, request: None, reason, reply });
    assert_eq!(answers(&late), [(ReplyId(10), false)]);
    assert_eq!(late[1], Effect::Ignored("stop of a build that is over"));
}

#[test]
pub fn t03_a_predecessors_build_makes_the_successor_building() {
    let mut old = Desk::new(config(&["w1"]));
    old.attach("w1", 1);
    let (_, claim) = asked(&old.submit(&[1]))[0];
    old.start(claim, &[1], 1);
    let mut new = take_over(&mut old, config(&["w1"]));
    assert_eq!(new.core.view().big_state, BigState::Building);
    let told = old.finish(claim);
    assert!(notes(&told).is_empty(), "a predecessor publishes no state any more");
    assert_eq!(notes(&pass_on(told, &mut new)), ["idle"]);
}

#[test]
fn t04_usable_seats_move_with_their_state_untouched() {
    let mut old = Desk::new(config(&["w1", "w2"]));
    old.attach("w1", 1);
    old.attach("w2", 2);
    let (_, claim) = asked(&old.submit(&[1]))[0];
    old.start(claim, &[1], 1);
    let mut new =
        take_over(&mut old, BuilderConfig { tags: vec!["x".into()], ..config(&["w1", "w2"]) });
    let words: Vec<_> = new.core.view().workers.into_values().collect();
    assert_eq!(words, ["building", "idle"]);
    assert_eq!(asked(&new.submit(&[2]))[0].0, "w2");
}

#[test]
pub fn t05_seats_of_unlisted_workers_are_let_go_when_they_are_free() {
    let mut old = Desk::new(config(&["w1", "w2"]));
    old.attach("w1", 1);
    old.attach("w2", 2);
    let (worker, claim) = asked(&old.submit(&[1]))[0].clone();
    assert_eq!(worker, "w1");
    old.start(claim, &[1], 1);
    old.effects.clear();
    take_over(&mut old, config(&["w3"]));
    assert!(old.effects.contains(&Effect::DropSeat { worker: "w2".into() }));
    assert!(!old.effects.contains(&Effect::DropSeat { worker: "w1".into() }), "it builds");
    let effects = old.finish(claim);
    assert!(effects.contains(&Effect::DropSeat { worker: "w1".into() }));
    assert!(effects.contains(&Effect::Over));
}

#[test]
pub fn t06_an_attaching_seat_is_not_moved() {
    let mut old = Desk::new(config(&["w1"]));
    old.hear(Event::Attach { worker: "w1".into(), session: SessionId(1) });
    old.effects.clear();
    let mut new = take_over(&mut old, config(&["w1", "w2"]));
    assert!(old.effects.contains(&Effect::DropSeat { worker: "w1".into() }));
    let effects = new.hear(Event::Attach { worker: "w1".into(), session: SessionId(1) });
    assert!(matches!(effects[..], [Effect::NewSeat { .. }]), "it is begun anew");
}

#[test]
pub fn t09_a_start_that_fails_after_the_takeover_goes_to_the_latest_queues_head() {
    let mut old = Desk::new(config(&["w1"]));
    old.attach("w1", 1);
    let (_, claim) = asked(&old.submit(&[1]))[0];
    old.submit(&[2]);
    old.grant(claim);
    old.claim(claim, &[1]);
    let mut new = take_over(&mut old, config(&["w1", "w2"]));
    assert_eq!(new.pending(), [2]);
    old.hear(Event::StartFailed { claim, failure: StartFailure::NoAnswer("x".into()) });
    let back = Request { requeued: true, epoch: Epoch(1), ..request(1) };
    let told = old.hear(Event::Unclaimed { claim, requests: vec![back] });
    pass_on(told, &mut new);
    // The seat is free by now, so the head has just been taken again.
    assert_eq!(new.pending(), [2]);
    let view = new.core.view();
    assert_eq!(view.builds[0].requests, [RequestId(1)]);
    assert!(!view.builds[0].inherited && old.pending().is_empty(), "not stranded");
}

#[test]
fn t09_a_start_that_succeeds_after_the_takeover_is_the_predecessors() {
    let mut old = Desk::new(config(&["w1"]));
    old.attach("w1", 1);
    let (_, claim) = asked(&old.submit(&[1]))[0];
    old.grant(claim);
    let (build, _) = old.claim(claim, &[1]);
    let mut new = take_over(&mut old, config(&["w1", "w2"]));
    let effects = old.hear(Event::StartAccepted { claim });
    assert!(effects.iter().any(|e| matches!(e, Effect::RunBuild { .. })));
    let told = old.hear(Event::Started { claim, number: BuildNumber(8) });
    pass_on(told, &mut new);
    assert_eq!(new.core.get_build(BuildNumber(8)), Some(build));
}

#[test]
fn t10_expectations_go_on_unless_the_factory_changed() {
    let learnt = || {
        let mut desk = Desk::new(config(&["w1"]));
        desk.attach("w1", 1);
        let (_, claim) = asked(&desk.submit(&[1]))[0];
        desk.start(claim, &[1], 1);
        desk.finish(claim);
        desk
    };
    let same = take_over(&mut learnt(), config(&["w1", "w2"]));
    assert_eq!(expected(&same), Some(4 * SECOND));
    let factory = Arc::new(Factory { steps: vec![run_step("other")] });
    let changed = BuilderConfig { factory, factory_digest: "f2".into(), ..config(&["w1"]) };
    let other = take_over(&mut learnt(), changed);
    assert_eq!(expected(&other), None);
}

#[test]
fn t10_a_success_with_the_old_factory_teaches_nothing_about_the_new_one() {
    let mut old = Desk::new(config(&["w1"]));
    old.attach("w1", 1);
    let (_, claim) = asked(&old.submit(&[1]))[0];
    old.start(claim, &[1], 1);
    let factory = Arc::new(Factory {
        steps: vec![StepSpec { workdir: Some("sub".into()), ..run_step("test") }],
    });
    let changed = BuilderConfig { factory, factory_digest: "f2".into(), ..config(&["w1"]) };
    let mut new = take_over(&mut old, changed);
    let effects = pass_on(old.finish(claim), &mut new);
    assert_eq!(expected(&new), None);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::SaveExpectations(_))));
}

#[test]
fn t10_a_takeover_that_drops_expectations_is_found() {
    bites("takeover_drops_expectations", t10_expectations_go_on_unless_the_factory_changed);
}

#[test]
fn b31_a_success_on_the_predecessor_teaches_the_latest_successor() {
    let mut old = Desk::new(config(&["w1"]));
    old.attach("w1", 1);
    let (_, claim) = asked(&old.submit(&[1]))[0];
    old.start(claim, &[1], 1);
    let mut new = take_over(&mut old, config(&["w1", "w2"]));
    pass_on(old.finish(claim), &mut new);
    assert_eq!(expected(&new), Some(4 * SECOND));
}

#[test]
fn a_persons_ping_that_crosses_a_takeover_is_answered() {
    let mut old = Desk::new(config(&["w1"]));
    old.attach("w1", 1);
    old.hear(Event::Ping { reply: ReplyId(4) });
    let mut new = take_over(&mut old, config(&["w1", "w2"]));
    assert!(asked(&new.submit(&[1])).is_empty(), "the seat moved with its ping");
    let told = old.hear(Event::PingDone { worker: "w1".into(), ok: true });
    assert_eq!(answers(&told), [(ReplyId(4), true)]);
    assert_eq!(asked(&pass_on(told, &mut new)).len(), 1);
}

/// The seat of a build that an earlier predecessor runs, whose worker the
/// latest successor does not list: nobody would ever let it go.
#[test]
fn t05_a_seat_of_an_inherited_build_does_not_stay_behind_for_ever() {
    let mut first = Desk::new(config(&["w1", "w2"]));
    first.attach("w1", 1);
    let (_, claim) = asked(&first.submit(&[1]))[0];
    first.start(claim, &[1], 5);
    let mut middle = take_over(&mut first, config(&["w1", "w2", "w3"]));
    let _latest = take_over(&mut middle, config(&["w2"]));
    let dropped = Effect::DropSeat { worker: "w1".into() };
    assert!(middle.effects.contains(&dropped), "{:?}", middle.effects);
    assert!(middle.effects.contains(&Effect::Over));
    assert!(!first.effects.contains(&Effect::Over), "the build goes on");
}
