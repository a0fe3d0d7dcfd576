//! One worker as the master knows it.

use std::collections::BTreeSet;

use botmaster::core::ids::*;
use botmaster::core::values::WorkerConfig;
use botmaster::core::worker::{Brought, Effect, Event, WorkerCore};

struct Desk(WorkerCore);

impl Desk {
    fn new(max_builds: u32) -> Self {
        let config = WorkerConfig { name: "w1".into(), max_builds, latent: None };
        let mut desk = Self(WorkerCore::new(config.clone(), false));
        let builders = vec![("a".into(), "a".into()), ("b".into(), "b".into())];
        desk.hear(Event::Configure { config, builders, renewed: BTreeSet::new() });
        desk
    }

    fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.0.handle(event, &mut effects);
        effects
    }

    fn attach(&mut self, session: u64, builds: Vec<Brought>) -> Vec<Effect> {
        self.attach_as("one", session, builds)
    }

    fn attach_as(&mut self, instance: &str, session: u64, builds: Vec<Brought>) -> Vec<Effect> {
        let (session, incarnation) = (SessionId(session), Incarnation(session));
        let instance = instance.to_owned();
        let mut all =
            self.hear(Event::Hello { session, slots: 8, instance, address: "there".into() });
        all.extend(self.hear(Event::AttachStored { session, incarnation }));
        all.extend(self.hear(Event::Inventory { session, builds, more: false }));
        all
    }

    fn ask(&mut self, builder: &str, claim: u128) -> bool {
        let effects = self.hear(Event::AskSlot { builder: builder.into(), claim: ClaimId(claim) });
        effects.iter().any(|e| matches!(e, Effect::Slot { granted: Some(_), .. }))
    }
}

fn tried(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .find_map(|e| match e {
            Effect::TryBuilders(list) => Some(list.iter().map(ToString::to_string).collect()),
            _ => None,
        })
        .unwrap_or_default()
}

fn brought(build: u64) -> Brought {
    Brought { build: BuildId(build), builder: "a".into(), command: None, lost: false }
}

#[test]
fn s02_attach_is_stored_then_told_then_the_inventory_then_the_builders() {
    let mut desk = Desk::new(1);
    let session = SessionId(1);
    let hello = Event::Hello { session, slots: 1, instance: "one".into(), address: "there".into() };
    assert_eq!(desk.hear(hello), [Effect::StoreAttach { session }]);
    let stored = Event::AttachStored { session, incarnation: Incarnation(4) };
    assert_eq!(desk.hear(stored), [Effect::SendAttached { session, incarnation: Incarnation(4) }]);
    assert!(!desk.ask("a", 1), "not before the inventory is known");
    let effects = desk.hear(Event::Inventory { session, builds: Vec::new(), more: false });
    assert!(matches!(effects[0], Effect::SendBuilders { .. }));
    assert_eq!(effects.len(), 3, "each of its two builders is told");
}

#[test]
fn b29_a_slot_is_claimed_at_the_worker_and_given_back_exactly_once() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    assert!(desk.ask("a", 1));
    assert!(!desk.ask("b", 2), "i5: not more than max_builds");
    let effects = desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    assert_eq!(tried(&effects), ["a", "b"], "b16: who had it and who was refused are tried");
    assert!(desk.ask("b", 3));
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    assert_eq!(desk.0.slots(), (1, 1), "a second time it frees nothing");
    desk.hear(Event::GiveBackSlot { builder: "b".into(), claim: ClaimId(3) });
    assert_eq!(desk.0.slots(), (0, 1));
}

#[test]
fn b16_a_slot_is_told_of_although_no_builder_gives_it_back() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    assert!(desk.ask("a", 1));
    let (build, claim, session) = (BuildId(7), ClaimId(1), Some(SessionId(1)));
    desk.hear(Event::BuildRegistered { build, claim, builder: "a".into(), session });
    assert!(!desk.ask("b", 2));
    assert_eq!(desk.0.room(), 0);
    // The builder knows another actor of this worker, and tells that one.
    assert_eq!(tried(&desk.hear(Event::BuildForgotten { build })), ["b"]);
    assert_eq!(desk.0.room(), 1);
    let effects = desk.hear(Event::GiveBackSlot { builder: "a".into(), claim });
    assert_eq!(tried(&effects), ["a"], "it gets in line");
}

#[test]
fn fa02_a_new_connection_replaces_the_old_one_at_once() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    let effects = desk.hear(Event::Hello {
        session: SessionId(2),
        slots: 1,
        instance: "one".into(),
        address: "there".into(),
    });
    assert!(matches!(
        &effects[0],
        Effect::Reject { session: SessionId(1), code: "superseded", .. }
    ));
    assert!(effects.contains(&Effect::TellSeatsDetached { session: SessionId(1) }));
    let late = desk.hear(Event::ConnectionLost { session: SessionId(1) });
    assert!(matches!(late[..], [Effect::Ignored(_)]), "its end is not the new one's");
    assert_eq!(desk.0.session(), Some(SessionId(2)));
}

#[test]
fn fr01_a_build_that_the_worker_brings_back_goes_on_in_its_slot() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    desk.ask("a", 1);
    desk.hear(Event::BuildRegistered {
        build: BuildId(7),
        claim: ClaimId(1),
        builder: "a".into(),
        session: Some(SessionId(1)),
    });
    let effects = desk.hear(Event::ConnectionLost { session: SessionId(1) });
    assert!(effects.contains(&Effect::TellBuildAway { build: BuildId(7) }));
    let effects = desk.attach(2, vec![brought(7)]);
    assert!(effects.iter().any(|e| matches!(
        e,
        Effect::TellBuildBack { build: BuildId(7), incarnation: Incarnation(2), .. }
    )));
    assert!(!desk.ask("b", 2), "its slot is still taken");
    let session = SessionId(2);
    let effects = desk.hear(Event::BuilderAnswer { session, builder: "a".into(), error: None });
    assert!(matches!(&effects[0], Effect::TellSeat { building: Some(ClaimId(1)), .. }));
}

#[test]
fn fa16_an_unknown_build_is_abandoned_and_keeps_its_slot_until_that_is_confirmed() {
    let mut desk = Desk::new(1);
    let effects = desk.attach(1, vec![brought(9)]);
    assert!(effects.contains(&Effect::SendAbandon { build: BuildId(9), command: None }));
    assert!(!desk.ask("a", 1));
    assert!(desk.0.is_abandoning(BuildId(9)), "what it still says of it is no breach");
    let effects = desk.hear(Event::Abandoned { build: BuildId(9) });
    assert_eq!(tried(&effects), ["a"]);
    assert!(desk.ask("a", 2));
}

#[test]
fn fa17_a_worker_without_the_build_that_the_store_has_lost_it() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    desk.ask("a", 1);
    desk.hear(Event::BuildRegistered {
        build: BuildId(7),
        claim: ClaimId(1),
        builder: "a".into(),
        session: Some(SessionId(1)),
    });
    let effects = desk.attach(2, Vec::new());
    assert!(effects.contains(&Effect::TellBuildGone { build: BuildId(7) }));
}

#[test]
fn i03_a_second_machine_in_the_place_of_a_worker_that_builds_does_not_lose_the_build() {
    let mut desk = Desk::new(1);
    desk.attach_as("one", 1, Vec::new());
    desk.ask("a", 1);
    let registered = |session| Event::BuildRegistered {
        build: BuildId(7),
        claim: ClaimId(1),
        builder: "a".into(),
        session: Some(SessionId(session)),
    };
    desk.hear(registered(1));
    let away = Effect::TellBuildAway { build: BuildId(7) };
    let gone = Effect::TellBuildGone { build: BuildId(7) };

    let effects = desk.attach_as("two", 2, Vec::new());
    assert!(effects.contains(&away) && !effects.contains(&gone), "{effects:?}");
    assert!(!desk.ask("a", 2), "i5: its slot is taken until it ends");
    let effects = desk.attach_as("two", 3, Vec::new());
    assert!(!effects.contains(&gone), "the second one's return says nothing of the first");
    assert_eq!(desk.hear(registered(1)), [away], "nor does it when that was registered late");

    desk.attach_as("one", 4, vec![brought(7)]);
    let effects = desk.attach_as("one", 5, Vec::new());
    assert!(effects.contains(&gone), "the program that had it has not got it any more");
    desk.hear(Event::ConnectionLost { session: SessionId(5) });
    let effects = desk.attach_as("three", 6, Vec::new());
    assert!(effects.contains(&gone), "fa17: that one's process had ended before");
}

#[test]
pub fn b28_a_paused_or_leaving_worker_gets_no_starts() {
    let mut desk = Desk::new(2);
    desk.attach(1, Vec::new());
    desk.hear(Event::PauseStored { paused: true });
    assert!(!desk.ask("a", 1));
    let effects = desk.hear(Event::PauseStored { paused: false });
    assert_eq!(tried(&effects), ["a"], "fa14: at once");
    let leave = Event::LeaveStored { shutdown: true, reason: "x".into() };
    let effects = desk.hear(leave);
    assert!(effects.iter().any(|e| matches!(e, Effect::SendLeave { shutdown: true, .. })));
    assert!(!desk.ask("a", 2));
}

#[test]
fn fa13_an_order_that_could_not_be_stored_changes_nothing() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    let effects = desk.hear(Event::Pause { paused: true, reason: None });
    assert_eq!(effects, [Effect::StorePaused { paused: true, reason: None }]);
    assert!(desk.ask("a", 1), "the store has not said yes, so it is not paused");
    desk.hear(Event::PauseStored { paused: true });
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    let effects = desk.hear(Event::Pause { paused: false, reason: None });
    assert_eq!(effects, [Effect::StorePaused { paused: false, reason: None }]);
    assert!(!desk.ask("a", 2), "the store has not said yes, so it is paused still");
    let reason = String::from("x");
    let effects = desk.hear(Event::Leave { shutdown: true, reason: reason.clone() });
    assert_eq!(effects, [Effect::StoreLeave { shutdown: true, reason }], "nor told to leave");
}

#[test]
fn s01_a_worker_can_start_when_connected_below_its_limit_not_paused_and_not_leaving() {
    let mut desk = Desk::new(1);
    assert!(!desk.0.can_start(), "not connected");
    desk.attach(1, Vec::new());
    assert!(desk.0.can_start());
    assert!(desk.ask("a", 1));
    assert!(!desk.0.can_start(), "at max_builds");
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    desk.hear(Event::PauseStored { paused: true });
    assert!(!desk.0.can_start(), "paused");
    desk.hear(Event::PauseStored { paused: false });
    assert!(desk.0.can_start());
    desk.hear(Event::Draining);
    assert!(!desk.0.can_start(), "shutting down");
    desk.hear(Event::ConnectionLost { session: SessionId(1) });
    assert!(!desk.0.can_start(), "gone");
}

#[test]
fn fa19_a_lower_max_builds_waits_for_the_running_ones() {
    let mut desk = Desk::new(2);
    desk.attach(1, Vec::new());
    assert!(desk.ask("a", 1) && desk.ask("b", 2));
    let config = WorkerConfig { name: "w1".into(), max_builds: 1, latent: None };
    desk.hear(Event::Configure {
        config,
        builders: vec![("a".into(), "a".into())],
        renewed: BTreeSet::new(),
    });
    assert!(!desk.ask("a", 3));
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    assert!(!desk.ask("a", 4), "one still runs");
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(2) });
    assert!(desk.ask("a", 5));
}

#[test]
fn t06_the_list_is_sent_again_only_when_it_changed() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    let config = WorkerConfig { name: "w1".into(), max_builds: 1, latent: None };
    let same = vec![("a".into(), "a".into()), ("b".into(), "b".into())];
    let sent =
        |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::SendBuilders { .. }));
    let effects = desk.hear(Event::Configure {
        config: config.clone(),
        builders: same,
        renewed: BTreeSet::new(),
    });
    assert!(!sent(&effects));
    let effects = desk.hear(Event::Configure {
        config,
        builders: vec![("a".into(), "a".into())],
        renewed: BTreeSet::new(),
    });
    assert!(sent(&effects));
}

#[test]
fn t08_only_new_or_renewed_builders_hear_of_a_reload() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    let config = WorkerConfig { name: "w1".into(), max_builds: 1, latent: None };
    let list: Vec<_> = ["a", "b", "c"].map(|n| (n.into(), n.to_owned())).into();
    let renewed = BTreeSet::from(["b".into()]);
    let effects = desk.hear(Event::Configure { config, builders: list, renewed });
    let told: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::TellBuilder { builder, .. } => Some(builder.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["b", "c"]);
}

#[test]
fn t05_a_worker_that_is_no_longer_configured_goes_when_its_builds_have_ended() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    desk.ask("a", 1);
    assert!(!desk.hear(Event::Retire).contains(&Effect::Over));
    let effects = desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    assert!(effects.iter().any(|e| matches!(e, Effect::CloseConnection { .. })));
    assert!(!effects.contains(&Effect::Over), "first everybody hears that it is gone");
    let effects = desk.hear(Event::ConnectionLost { session: SessionId(1) });
    assert!(effects.contains(&Effect::TellSeatsDetached { session: SessionId(1) }));
    assert!(effects.contains(&Effect::Over));
}

#[test]
fn a_build_whose_connection_is_gone_by_its_start_hears_so() {
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    desk.ask("a", 1);
    let registered = |session| Event::BuildRegistered {
        build: BuildId(7),
        claim: ClaimId(1),
        builder: "a".into(),
        session,
    };
    desk.hear(Event::ConnectionLost { session: SessionId(1) });
    let effects = desk.hear(registered(Some(SessionId(1))));
    assert_eq!(effects, [Effect::TellBuildAway { build: BuildId(7) }]);
    desk.attach(2, Vec::new());
    let effects = desk.hear(registered(Some(SessionId(1))));
    assert_eq!(effects, [Effect::TellBuildGone { build: BuildId(7) }]);
}

#[test]
fn fb02_a_claim_that_may_have_been_sent_waits_for_the_inventory() {
    let claimed =
        || Event::ClaimRegistered { build: BuildId(7), claim: ClaimId(1), builder: "a".into() };
    // The worker is here, and has told what it has.
    let mut desk = Desk::new(1);
    desk.attach(1, Vec::new());
    assert_eq!(desk.hear(claimed()), [Effect::TellBuildGone { build: BuildId(7) }]);
    // It is not here: its slot is kept, and its inventory decides.
    let mut desk = Desk::new(1);
    assert_eq!(desk.hear(claimed()), [Effect::TellBuildAway { build: BuildId(7) }]);
    let effects = desk.attach(1, Vec::new());
    assert!(effects.contains(&Effect::TellBuildGone { build: BuildId(7) }), "{effects:?}");
    assert!(!desk.0.can_start(), "the slot is the claim's until that is undone");
}

#[test]
fn i14_a_broken_builder_keeps_no_slot_but_those_of_its_running_builds() {
    let mut desk = Desk::new(2);
    desk.attach(1, Vec::new());
    desk.ask("a", 1);
    desk.ask("a", 2);
    let session = Some(SessionId(1));
    desk.hear(Event::BuildRegistered {
        build: BuildId(7),
        claim: ClaimId(1),
        builder: "a".into(),
        session,
    });
    assert!(!desk.ask("b", 3));
    let effects = desk.hear(Event::BuilderBroken("a".into()));
    assert_eq!(tried(&effects), ["b"]);
    assert!(desk.ask("b", 4));
    desk.hear(Event::BuildForgotten { build: BuildId(7) });
    assert!(desk.ask("b", 5), "the build gave its slot back itself");
}

/// The worker was removed and came back while a build of it was running: the
/// old actor still has the build, the worker itself attaches to the new one.
#[test]
fn fa18_builds_of_a_worker_that_came_back_are_known_to_its_new_actor() {
    let mut old = Desk::new(1);
    old.attach(1, Vec::new());
    old.ask("a", 1);
    old.hear(Event::BuildRegistered {
        build: BuildId(7),
        claim: ClaimId(1),
        builder: "a".into(),
        session: Some(SessionId(1)),
    });
    old.hear(Event::Retire);
    let effects = old.hear(Event::Yield);
    let place = |wanted: &dyn Fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    let away = place(&|e| *e == Effect::TellBuildAway { build: BuildId(7) });
    let told = place(&|e| matches!(e, Effect::YieldBuild { build: BuildId(7), .. }));
    assert!(away < told, "it hears that its worker is away before the new actor has it");
    assert!(effects.iter().any(|e| matches!(e, Effect::CloseConnection { .. })));

    let mut new = Desk::new(1);
    let registered = Event::BuildRegistered {
        build: BuildId(7),
        claim: ClaimId(1),
        builder: "a".into(),
        session: None,
    };
    assert_eq!(new.hear(registered), [Effect::TellBuildAway { build: BuildId(7) }]);
    let effects = new.attach(2, vec![brought(7)]);
    assert!(effects.iter().any(|e| matches!(e, Effect::TellBuildBack { build: BuildId(7), .. })));
    assert!(!effects.iter().any(|e| matches!(e, Effect::SendAbandon { .. })));
    assert!(!new.ask("b", 2), "its slot is taken");
    new.hear(Event::BuildForgotten { build: BuildId(7) });
    assert!(new.ask("b", 2));
    let effects = old.hear(Event::BuildForgotten { build: BuildId(7) });
    assert!(effects.contains(&Effect::Over), "the old one goes with its last build");
}
