//! Connections of one worker: those that come too often, fight for a name, or
//! serve only some of their builders.

use std::collections::BTreeSet;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::time::Timestamp;
use botmaster::core::values::WorkerConfig;
use botmaster::core::worker::{Brought, Effect, Event, WorkerCore};

const SECOND: Duration = Duration::from_secs(1);

struct Desk {
    core: WorkerCore,
    now: Timestamp,
    sessions: u64,
}

impl Desk {
    fn new(max_builds: u32) -> Self {
        let config = WorkerConfig { name: "w1".into(), max_builds, latent: None };
        let core = WorkerCore::new(config.clone(), false);
        let mut desk = Self { core, now: Timestamp(1_000_000), sessions: 0 };
        let builders = vec![("a".into(), "a".into()), ("b".into(), "b".into())];
        desk.hear(Event::Configure { config, builders, renewed: BTreeSet::new() });
        desk
    }

    fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle_at(self.now, event, &mut effects);
        effects
    }

    fn passes(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    /// A connection that says hello; its number and what comes of it.
    fn hello(&mut self, program: &str, address: &str) -> (SessionId, Vec<Effect>) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let (instance, address) = (program.to_owned(), address.to_owned());
        let effects = self.hear(Event::Hello { session, slots: 8, instance, address });
        (session, effects)
    }

    /// A connection that attaches, unless it is turned away.
    fn attach(&mut self, program: &str, address: &str, builds: Vec<Brought>) -> Vec<Effect> {
        let (session, mut all) = self.hello(program, address);
        if !all.contains(&Effect::StoreAttach { session }) {
            return all;
        }
        let incarnation = Incarnation(session.0);
        all.extend(self.hear(Event::AttachStored { session, incarnation }));
        all.extend(self.hear(Event::Inventory { session, builds, more: false }));
        all
    }

    fn answer(&mut self, builder: &str, error: Option<&str>) -> Vec<Effect> {
        let session = self.core.session().expect("it is attached");
        let (builder, error) = (builder.into(), error.map(ToOwned::to_owned));
        self.hear(Event::BuilderAnswer { session, builder, error })
    }

    fn ask(&mut self, builder: &str, claim: u128) -> bool {
        let effects = self.hear(Event::AskSlot { builder: builder.into(), claim: ClaimId(claim) });
        effects.iter().any(|e| matches!(e, Effect::Slot { granted: Some(_), .. }))
    }
}

/// Who was turned away: session, code, text, when to come again.
fn rejections(effects: &[Effect]) -> Vec<(u64, &'static str, &str, Option<u64>)> {
    let rejected = effects.iter().filter_map(|effect| match effect {
        Effect::Reject { session, code, message, retry_after_s } => {
            Some((session.0, *code, message.as_str(), *retry_after_s))
        }
        _ => None,
    });
    rejected.collect()
}

fn seats_told(effects: &[Effect]) -> Vec<(&str, bool)> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::TellSeat { builder, error, .. } => Some((builder.as_str(), error.is_none())),
        _ => None,
    });
    told.collect()
}

#[test]
fn fa03_two_workers_of_one_name_are_both_refused_for_a_minute() {
    let mut desk = Desk::new(1);
    let programs = [("one", "10.0.0.1:1"), ("two", "10.0.0.2:2")];
    for number in 0..6 {
        let (program, address) = programs[number % 2];
        let effects = desk.attach(program, address, Vec::new());
        // Five times the newer one wins.
        let expected = if number == 0 { vec![] } else { vec!["superseded"] };
        let codes: Vec<_> = rejections(&effects).iter().map(|(_, code, ..)| *code).collect();
        assert_eq!(codes, expected, "{number}");
        desk.passes(SECOND * 5);
    }
    let effects = desk.attach("one", "10.0.0.1:3", Vec::new());
    let text = "two workers use the name w1 (addresses 10.0.0.2:2 and 10.0.0.1:3)";
    let both = [(6, "conflict", text, Some(60)), (7, "conflict", text, Some(60))];
    assert_eq!(rejections(&effects), both);
    assert_eq!(desk.core.session(), None);
    let shown = desk.core.turned_away(desk.now).expect("people see it");
    assert_eq!((shown.reason.as_str(), shown.until), (text, desk.now + SECOND * 60));

    desk.passes(SECOND * 59);
    let effects = desk.attach("two", "10.0.0.2:4", Vec::new());
    assert_eq!(rejections(&effects), [(8, "conflict", text, Some(1))]);
    desk.passes(SECOND);
    let effects = desk.attach("two", "10.0.0.2:5", Vec::new());
    assert_eq!(rejections(&effects), []);
    assert!(desk.core.is_up());
    assert_eq!(desk.core.turned_away(desk.now), None);
}

#[test]
fn fa03_is_found_when_two_workers_fight_on() {
    let planted = planted::plant("fa03_two_workers_fight_on");
    let fight =
        std::panic::catch_unwind(fa03_two_workers_of_one_name_are_both_refused_for_a_minute);
    assert!(fight.is_err() && planted.met() > 0);
}

#[test]
fn fa03_one_program_that_comes_back_is_no_second_worker() {
    let mut desk = Desk::new(1);
    for _ in 0..9 {
        let effects = desk.attach("one", "10.0.0.1:1", Vec::new());
        assert!(rejections(&effects).iter().all(|(_, code, ..)| *code == "superseded"));
        desk.passes(SECOND);
    }
    assert!(desk.core.is_up());
}

#[test]
fn fa11_more_than_ten_attaches_a_minute_are_told_when_to_come_again() {
    let mut desk = Desk::new(1);
    for _ in 0..10 {
        let effects = desk.attach("one", "10.0.0.1:1", Vec::new());
        assert!(rejections(&effects).iter().all(|(_, code, ..)| *code == "superseded"));
        let session = desk.core.session().expect("it is attached");
        desk.hear(Event::ConnectionLost { session });
        desk.passes(SECOND);
    }
    let effects = desk.attach("one", "10.0.0.1:1", Vec::new());
    let text = "it attached 10 times within a minute";
    assert_eq!(rejections(&effects), [(11, "busy", text, Some(50))]);
    assert_eq!(desk.core.turned_away(desk.now).map(|away| away.reason.as_str()), Some(text));
    desk.passes(SECOND * 50);
    assert_eq!(rejections(&desk.attach("one", "10.0.0.1:1", Vec::new())), []);
    assert!(desk.core.is_up());
    // The nine others of that minute count yet, but for one second each.
    assert_eq!(rejections(&desk.attach("one", "10.0.0.1:1", Vec::new()))[0].1, "busy");
    assert!(desk.core.is_up(), "who is there stays");
}

#[test]
fn fa11_a_worker_with_a_build_is_slowed_down_and_not_kept_away() {
    let mut desk = Desk::new(1);
    let (build, claim) = (BuildId(1), ClaimId(1));
    desk.hear(Event::BuildRegistered { build, claim, builder: "a".into(), session: None });
    let (builder, command) = ("a".into(), None);
    let builds = vec![Brought { build, builder, command, lost: false }];
    for _ in 0..10 {
        desk.attach("one", "10.0.0.1:1", builds.clone());
        let session = desk.core.session().expect("it is attached");
        desk.hear(Event::ConnectionLost { session });
    }
    // Most of its lease may be over: it is let in as often as once a second.
    for _ in 0..20 {
        let effects = desk.attach("one", "10.0.0.1:1", builds.clone());
        let text = "it attached 10 times within a minute";
        let turned_away = rejections(&effects);
        assert!(matches!(turned_away[..], [(_, "busy", is, Some(1))] if is == text), "{effects:?}");
        desk.passes(SECOND);
        assert_eq!(rejections(&desk.attach("one", "10.0.0.1:1", builds.clone())), []);
        let session = desk.core.session().expect("it is attached");
        desk.hear(Event::ConnectionLost { session });
    }
}

#[test]
fn fa11_is_found_when_builds_are_kept_away() {
    let planted = planted::plant("fa11_builds_are_kept_away");
    let away =
        std::panic::catch_unwind(fa11_a_worker_with_a_build_is_slowed_down_and_not_kept_away);
    assert!(away.is_err() && planted.met() > 0);
}

#[test]
fn fa04_of_two_attaches_at_once_the_later_number_counts_and_the_other_hears_it() {
    let mut desk = Desk::new(1);
    let (first, _) = desk.hello("one", "10.0.0.1:1");
    let (second, effects) = desk.hello("two", "10.0.0.2:1");
    assert_eq!(rejections(&effects), [], "it is not known yet which number comes before");
    let early = desk.hear(Event::AttachStored { session: first, incarnation: Incarnation(7) });
    assert!(matches!(early[..], [Effect::Ignored(_)]));
    let stored = Event::AttachStored { session: second, incarnation: Incarnation(8) };
    let effects = desk.hear(stored);
    let text = "superseded by incarnation 8";
    assert_eq!(rejections(&effects), [(first.0, "superseded", text, Some(5))]);
    let attached = Effect::SendAttached { session: second, incarnation: Incarnation(8) };
    assert!(effects.contains(&attached));
    assert!(!desk.core.is_up());
    desk.hear(Event::Inventory { session: second, builds: Vec::new(), more: false });
    let late = desk.hear(Event::Inventory { session: first, builds: Vec::new(), more: false });
    assert!(matches!(late[..], [Effect::Ignored(_)]));
    let end = desk.hear(Event::ConnectionLost { session: first });
    assert!(matches!(end[..], [Effect::Ignored(_)]));
    assert!(desk.core.is_up());
}

#[test]
fn fa04_those_that_wait_to_be_told_are_told_when_there_is_no_number() {
    for lost in [false, true] {
        let mut desk = Desk::new(1);
        let (first, _) = desk.hello("one", "10.0.0.1:1");
        let (second, _) = desk.hello("two", "10.0.0.2:1");
        let effects = desk.hear(if lost {
            Event::ConnectionLost { session: second }
        } else {
            Event::AttachRefused { session: second, error: "the disk is full".into() }
        });
        let told: Vec<_> = rejections(&effects).iter().map(|(session, ..)| *session).collect();
        assert!(told.contains(&first.0), "{effects:?}");
        assert_eq!(desk.core.session(), None);
    }
}

#[test]
fn fa08_only_the_pair_fails_and_it_is_asked_for_again_with_growing_pauses() {
    let mut desk = Desk::new(2);
    desk.attach("one", "there", Vec::new());
    assert_eq!(seats_told(&desk.answer("a", None)), [("a", true)]);
    assert_eq!(seats_told(&desk.answer("b", Some("disk: full"))), [("b", false)]);
    assert!(desk.ask("a", 1), "the worker's other builders build");
    let session = desk.core.session().unwrap();
    for pause in [10, 20, 40, 80, 160, 320, 600, 600] {
        assert_eq!(desk.core.next_deadline(), Some(desk.now + SECOND * pause));
        desk.passes(SECOND * pause - Duration::from_millis(1));
        assert_eq!(desk.hear(Event::DeadlineReached), [], "not before");
        desk.passes(Duration::from_millis(1));
        let effects = desk.hear(Event::DeadlineReached);
        assert!(matches!(&effects[0], Effect::SendBuilders { list } if list.len() == 2));
        assert_eq!(effects[1..], [Effect::TellBuilder { builder: "b".into(), session }]);
        // Its new seat hears nothing of the old answer.
        let seat = Event::SeatRegistered { session, builder: "b".into() };
        assert_eq!(desk.hear(seat), []);
        desk.answer("a", None);
        assert_eq!(seats_told(&desk.answer("b", Some("disk: full"))), [("b", false)]);
    }
    desk.passes(SECOND * 600);
    desk.hear(Event::DeadlineReached);
    assert_eq!(seats_told(&desk.answer("b", None)), [("b", true)]);
    assert_eq!(desk.core.next_deadline(), None, "it is mended");
}

#[test]
fn fa08_a_builder_that_is_ready_after_all_is_told() {
    let mut desk = Desk::new(1);
    desk.attach("one", "there", Vec::new());
    desk.answer("b", Some("disk: full"));
    let session = desk.core.session().unwrap();
    assert_eq!(desk.answer("b", None), [Effect::TellBuilder { builder: "b".into(), session }]);
    let seat = Event::SeatRegistered { session, builder: "b".into() };
    assert_eq!(seats_told(&desk.hear(seat)), [("b", true)]);
    assert_eq!(desk.core.next_deadline(), None);
}

#[test]
fn fa08_a_retry_follows_at_the_next_builder_list() {
    let mut desk = Desk::new(1);
    desk.attach("one", "there", Vec::new());
    desk.answer("a", None);
    desk.answer("b", Some("disk: full"));
    let config = desk.core.config().clone();
    let builders = ["a", "b", "c"].map(|name| (name.into(), name.into())).to_vec();
    let effects = desk.hear(Event::Configure { config, builders, renewed: BTreeSet::new() });
    let session = desk.core.session().unwrap();
    assert!(matches!(&effects[0], Effect::SendBuilders { list } if list.len() == 3));
    assert!(effects.contains(&Effect::TellBuilder { builder: "b".into(), session }), "{effects:?}");
}

#[test]
fn fa10_a_detach_of_a_connection_that_is_not_known_changes_nothing() {
    let mut desk = Desk::new(1);
    desk.attach("one", "there", Vec::new());
    let before = desk.core.clone();
    let effects = desk.hear(Event::ConnectionLost { session: SessionId(99) });
    assert!(matches!(effects[..], [Effect::Ignored(_)]), "it is counted");
    assert_eq!(desk.core, before);
    let session = desk.core.session().unwrap();
    let effects = desk.hear(Event::ConnectionLost { session });
    assert!(effects.contains(&Effect::TellSeatsDetached { session }));
    let before = desk.core.clone();
    let effects = desk.hear(Event::ConnectionLost { session });
    assert!(matches!(effects[..], [Effect::Ignored(_)]), "nor does a second one");
    assert_eq!(desk.core, before);
}

#[test]
fn fa16_the_pair_of_an_abandoned_build_is_free_only_when_that_is_confirmed() {
    let mut desk = Desk::new(3);
    let old = |build, builder: &str| Brought {
        build: BuildId(build),
        builder: builder.into(),
        command: None,
        lost: false,
    };
    desk.attach("one", "there", vec![old(7, "a"), old(8, "a")]);
    assert_eq!(seats_told(&desk.answer("a", None)), [], "its pair waits");
    assert_eq!(seats_told(&desk.answer("b", None)), [("b", true)], "the others do not");
    assert!(desk.ask("b", 1), "a third slot is free");
    assert!(!desk.ask("b", 2));
    let session = desk.core.session().unwrap();
    let seat = Event::SeatRegistered { session, builder: "a".into() };
    assert_eq!(seats_told(&desk.hear(seat)), []);
    assert_eq!(seats_told(&desk.hear(Event::Abandoned { build: BuildId(7) })), []);
    let effects = desk.hear(Event::Abandoned { build: BuildId(8) });
    assert_eq!(seats_told(&effects), [("a", true)]);
    assert!(desk.ask("a", 3));
}
