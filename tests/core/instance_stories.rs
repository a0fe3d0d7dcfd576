//! A latent worker's instance, from the wish to its end, and the slots of a
//! worker that is not there (rows L04, FX01 to FX11).

use std::collections::BTreeSet;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::instance::{Effect as Wants, Event as News, Failure, Found, Known, State};
use botmaster::core::planted;
use botmaster::core::time::{Now, Timestamp, WallTime};
use botmaster::core::values::*;
use botmaster::core::worker::{Brought, Effect, Event, WorkerCore};

const SECOND: Duration = Duration::from_secs(1);

fn settings(idle: Duration) -> WorkerConfig {
    WorkerConfig {
        name: "l1".into(),
        max_builds: 2,
        latent: Some(LatentConfig {
            provider: Provider::Process(ProcessOptions {
                dir: "d".into(),
                token_file: "t".into(),
                env: Default::default(),
            }),
            substantiate_timeout: 60 * SECOND,
            idle_timeout: idle,
        }),
    }
}

fn tag(n: u64) -> InstanceTag {
    InstanceTag::new(WorkerId(1), n)
}

/// A latent worker at hand.
struct Desk {
    core: WorkerCore,
    now: Timestamp,
    next_session: u64,
}

impl Desk {
    fn new(idle: Duration) -> Self {
        let core = WorkerCore::new(settings(idle), false);
        let mut desk = Self { core, now: Timestamp(1_000_000), next_session: 1 };
        desk.configure(settings(idle));
        desk
    }

    fn configure(&mut self, config: WorkerConfig) -> Vec<Effect> {
        let builders = vec![("a".into(), "a".into()), ("b".into(), "b".into())];
        self.hear(Event::Configure { config, builders, renewed: BTreeSet::new() })
    }

    fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle_at(self.now, event, &mut effects);
        effects
    }

    fn news(&mut self, news: News) -> Vec<Wants> {
        wants(&self.hear(Event::Instance(news)))
    }

    fn pass(&mut self, span: Duration) -> Vec<Effect> {
        self.now = self.now + span;
        self.hear(Event::Instance(News::DeadlineReached))
    }

    fn ask(&mut self, claim: u128) -> &'static str {
        let effects = self.hear(Event::AskSlot { builder: "a".into(), claim: ClaimId(claim) });
        match effects
            .iter()
            .find(|e| matches!(e, Effect::Slot { .. } | Effect::SlotReserved { .. }))
        {
            Some(Effect::SlotReserved { .. }) => "reserved",
            Some(Effect::Slot { granted: Some(_), .. }) => "granted",
            Some(Effect::Slot { granted: None, .. }) => "refused",
            other => panic!("{other:?}"),
        }
    }

    fn want(&mut self, claim: u128, n: u64) -> Vec<Effect> {
        self.hear(Event::Want { builder: "a".into(), claim: ClaimId(claim), tag: tag(n) })
    }

    /// A build's slot, the wish, and what the provider made of it.
    fn create(&mut self, claim: u128, n: u64) {
        assert_eq!(self.ask(claim), "reserved");
        assert_eq!(wants(&self.want(claim, n)), [Wants::StoreWish(tag(n))]);
        assert_eq!(self.news(News::WishStored { tag: tag(n) }), [Wants::Create(tag(n))]);
        let made = News::Created { tag: tag(n), id: "7".into(), details: "process 7".into() };
        self.news(made);
    }

    fn attach(&mut self, builds: Vec<Brought>) -> Vec<Effect> {
        let session = SessionId(self.next_session);
        let incarnation = Incarnation(self.next_session);
        self.next_session += 1;
        let mut all = self.hear(Event::Hello {
            session,
            slots: 8,
            instance: "p".into(),
            address: "there".into(),
        });
        all.extend(self.hear(Event::AttachStored { session, incarnation }));
        all.extend(self.hear(Event::Inventory { session, builds, more: false }));
        all
    }

    fn lose(&mut self) -> Vec<Effect> {
        let session = self.core.session().expect("it is attached");
        self.hear(Event::ConnectionLost { session })
    }

    /// It is up and runs a build of this claim.
    fn build(&mut self, claim: u128, n: u64) {
        self.create(claim, n);
        self.attach(Vec::new());
        assert_eq!(self.ask(claim), "granted");
        self.hear(Event::BuildRegistered {
            build: BuildId(n),
            claim: ClaimId(claim),
            builder: "a".into(),
            session: self.core.session(),
        });
    }

    fn end_build(&mut self, claim: u128, n: u64) -> Vec<Effect> {
        let mut all = self.hear(Event::BuildForgotten { build: BuildId(n) });
        all.extend(self.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(claim) }));
        all
    }

    fn state(&self) -> &State {
        self.core.instance().expect("it is latent").state()
    }

    fn at(&self) -> Now {
        Now { mono: self.now, wall: WallTime(0) }
    }

    fn word(&self) -> &'static str {
        self.core.instance_view(self.at()).expect("it is latent").state
    }

    /// The provider has destroyed it, and all of that is stored.
    fn destroy(&mut self, n: u64) -> Vec<Effect> {
        let mut all = Vec::new();
        for news in [
            News::ReleaseStored { tag: tag(n) },
            News::Destroyed { tag: tag(n) },
            News::Forgotten { tag: tag(n) },
        ] {
            all.extend(self.hear(Event::Instance(news)));
        }
        all
    }
}

fn wants(effects: &[Effect]) -> Vec<Wants> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Instance(effect) => Some(effect.clone()),
            _ => None,
        })
        .collect()
}

fn failures(effects: &[Effect]) -> Vec<(u128, String, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::TellNoInstance { claim, error, permanent } => {
                Some((claim.0, error.clone(), *permanent))
            }
            _ => None,
        })
        .collect()
}

fn closes(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::CloseConnection { .. }))
}

/// The story must not hold with this fault in the core.
fn found(fault: &'static str, story: impl FnOnce() + std::panic::UnwindSafe) {
    let planted = planted::plant(fault);
    let told = std::panic::catch_unwind(story);
    assert!(planted.met() > 0, "`{fault}` was never met");
    assert!(told.is_err(), "nobody found `{fault}`");
}

#[test]
fn l04_an_instance_is_made_used_idle_and_gone() {
    let mut desk = Desk::new(30 * SECOND);
    assert_eq!(desk.word(), "latent");
    desk.build(1, 1);
    assert_eq!(desk.word(), "up");
    assert_eq!(desk.core.next_deadline(), None, "nothing ends it while it builds");
    desk.end_build(1, 1);
    assert_eq!(desk.word(), "idle");
    let until = desk.core.next_deadline().unwrap();
    assert_eq!(until.since(desk.now), 30 * SECOND);
    let effects = desk.pass(30 * SECOND);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))], "noted before it is asked");
    assert!(closes(&effects));
    assert_eq!(desk.word(), "destroying");
    let id = Some("7".to_owned());
    let asked = desk.news(News::ReleaseStored { tag: tag(1) });
    assert_eq!(asked, [Wants::Destroy { tag: tag(1), id }]);
    desk.lose();
    assert_eq!(desk.ask(2), "refused", "not beside the one that goes");
    assert_eq!(desk.news(News::Destroyed { tag: tag(1) }), [Wants::Forget(tag(1))]);
    let effects = desk.hear(Event::Instance(News::Forgotten { tag: tag(1) }));
    assert_eq!(desk.word(), "latent");
    assert!(!effects.contains(&Effect::TryBuilders(vec!["a".into()])), "told once, before");
    assert_eq!(desk.ask(2), "reserved");
}

#[test]
fn l04_without_an_idle_time_it_goes_right_after_the_build() {
    let mut desk = Desk::new(Duration::ZERO);
    desk.build(1, 1);
    let effects = desk.end_build(1, 1);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))]);
    desk.lose();
    assert_eq!(desk.ask(2), "refused");
    let effects = desk.destroy(1);
    assert!(effects.contains(&Effect::TryBuilders(vec!["a".into()])), "b16: it is tried again");
}

fn fx09_the_wish_is_durable_first_story() {
    let mut desk = Desk::new(SECOND);
    assert_eq!(desk.ask(1), "reserved");
    let effects = desk.want(1, 1);
    assert_eq!(wants(&effects), [Wants::StoreWish(tag(1))]);
    assert_eq!(desk.news(News::WishStored { tag: tag(1) }), [Wants::Create(tag(1))]);
}

#[test]
fn fx09_the_wish_is_durable_before_the_provider_hears_of_it() {
    fx09_the_wish_is_durable_first_story();
}

#[test]
fn fx09_an_instance_that_is_made_before_its_wish_is_stored_is_found() {
    found("create_before_wish", fx09_the_wish_is_durable_first_story);
}

#[test]
fn fx09_a_wish_that_cannot_be_stored_fails() {
    let mut desk = Desk::new(SECOND);
    desk.ask(1);
    desk.want(1, 1);
    let news = News::WishFailed { tag: tag(1), error: "full".into() };
    let effects = desk.hear(Event::Instance(news));
    let text = "the wish could not be stored: full".to_owned();
    assert_eq!(failures(&effects), [(1, text, false)]);
    assert!(wants(&effects).is_empty());
}

#[test]
fn fx09_an_instance_may_attach_before_the_provider_says_that_it_made_it() {
    let mut desk = Desk::new(30 * SECOND);
    assert_eq!(desk.ask(1), "reserved");
    desk.want(1, 1);
    desk.news(News::WishStored { tag: tag(1) });
    assert!(desk.core.expects(Some(&tag(1))));
    desk.attach(Vec::new());
    assert_eq!(desk.word(), "up");
    assert_eq!(desk.ask(1), "granted", "the build is not sent in circles until it does");
    let made = News::Created { tag: tag(1), id: "7".into(), details: "process 7".into() };
    let id = "7".to_owned();
    let noted = Wants::NoteCreated { tag: tag(1), id: id.clone() };
    assert_eq!(desk.news(made), [noted, Wants::Watch { tag: tag(1), id: id.clone() }]);
    assert_eq!(desk.word(), "up");
    assert_eq!(desk.core.next_deadline(), None, "it is not waited for any more");
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    desk.pass(30 * SECOND);
    let asked = desk.news(News::ReleaseStored { tag: tag(1) });
    assert_eq!(asked, [Wants::Destroy { tag: tag(1), id: Some(id) }]);
}

#[test]
fn fx01_a_failure_that_is_told_of_an_instance_that_is_attached_changes_nothing() {
    let mut desk = Desk::new(30 * SECOND);
    desk.ask(1);
    desk.want(1, 1);
    desk.news(News::WishStored { tag: tag(1) });
    desk.attach(Vec::new());
    let failure = Failure::Unknown("the provider did not answer in time".into());
    let effects = desk.hear(Event::Instance(News::CreateFailed { tag: tag(1), failure }));
    assert_eq!(desk.word(), "up");
    assert_eq!(failures(&effects), []);
    assert_eq!(desk.ask(1), "granted");
}

#[test]
fn fx03_a_build_is_not_sent_in_circles_while_its_instance_is_let_go() {
    let mut desk = Desk::new(30 * SECOND);
    desk.create(1, 1);
    assert_eq!(desk.ask(2), "reserved");
    desk.attach(Vec::new());
    let effects = desk.hear(Event::Instance(News::Died { tag: tag(1), how: "it burnt".into() }));
    assert!(closes(&effects), "and it is there until that is done");
    assert_eq!(desk.ask(1), "refused");
    let effects = desk.want(2, 2);
    assert_eq!(failures(&effects), [(2, "the instance is being let go".to_owned(), false)]);
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(2) });
    desk.lose();
    let effects = desk.destroy(1);
    assert!(effects.contains(&Effect::TryBuilders(vec!["a".into()])), "{effects:?}");
    assert_eq!(desk.ask(3), "reserved");
}

fn known(n: u64, wanted: bool) -> Known {
    Known { tag: tag(n), id: None, wanted }
}

fn there(n: u64) -> Found {
    Found { tag: tag(n), id: n.to_string(), alive: true }
}

#[test]
fn fx09_what_an_earlier_master_left_is_adopted_or_destroyed() {
    let mut desk = Desk::new(30 * SECOND);
    let mut effects = Vec::new();
    desk.core.take_over(
        desk.now,
        vec![known(1, true), known(2, false), known(3, true)],
        &mut effects,
    );
    let gone = [2, 3].map(|n| Wants::StoreRelease(tag(n)));
    assert_eq!(wants(&effects), gone, "one is wanted, and no more than one");
    assert!(desk.core.expects(Some(&tag(1))) && !desk.core.expects(Some(&tag(2))));
    // One that nobody has written down; it is written down before it goes.
    let swept = desk.news(News::Swept { found: vec![there(1), there(2), there(9)] });
    assert!(swept.contains(&Wants::Watch { tag: tag(1), id: "1".into() }));
    assert!(swept.contains(&Wants::StoreRelease(tag(9))) && !swept.contains(&gone[0]));
    desk.attach(Vec::new());
    assert_eq!(desk.word(), "idle", "it attaches by itself and is one like others");
}

#[test]
fn fx09_a_wish_that_nothing_came_of_is_forgotten() {
    let mut desk = Desk::new(30 * SECOND);
    let mut effects = Vec::new();
    desk.core.take_over(desk.now, vec![known(1, true)], &mut effects);
    assert_eq!(desk.ask(1), "reserved", "it may be on its way");
    desk.want(1, 5);
    let effects = desk.hear(Event::Instance(News::Swept { found: Vec::new() }));
    assert_eq!(failures(&effects).len(), 1);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))]);
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    desk.destroy(1);
    desk.create(2, 6);
}

#[test]
fn fx09_an_adopted_instance_that_does_not_come_is_waited_for_only_so_long() {
    let mut desk = Desk::new(30 * SECOND);
    desk.core.take_over(desk.now, vec![known(1, true)], &mut Vec::new());
    desk.news(News::Swept { found: vec![there(1)] });
    let effects = desk.pass(60 * SECOND);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))]);
}

#[test]
fn fx01_transient_failures_are_retried_with_growing_pauses_inside_the_time() {
    let mut desk = Desk::new(SECOND);
    desk.ask(1);
    desk.want(1, 1);
    desk.news(News::WishStored { tag: tag(1) });
    let mut pauses = Vec::new();
    let effects = loop {
        let failure = Failure::Transient("busy".into());
        let news = News::CreateFailed { tag: tag(1), failure };
        let effects = desk.hear(Event::Instance(news));
        if !failures(&effects).is_empty() {
            break effects;
        }
        let pause = desk.core.next_deadline().unwrap().since(desk.now);
        pauses.push(pause.as_secs());
        assert_eq!(wants(&desk.pass(pause)), [Wants::Create(tag(1))]);
    };
    assert_eq!(pauses, [1, 2, 4, 8, 16], "and the next would be after the 60 s");
    assert_eq!(failures(&effects), [(1, "busy".into(), false)]);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))], "destroyed, should it be there");
}

#[test]
fn fx01_a_permanent_failure_is_told_at_once() {
    let mut desk = Desk::new(SECOND);
    desk.ask(1);
    desk.want(1, 1);
    desk.news(News::WishStored { tag: tag(1) });
    let failure = Failure::Permanent("no such image".into());
    let effects = desk.hear(Event::Instance(News::CreateFailed { tag: tag(1), failure }));
    assert_eq!(failures(&effects), [(1, "no such image".into(), true)]);
}

#[test]
fn fx01_the_worker_rests_10_s_doubling_and_says_when_it_is_over() {
    let mut desk = Desk::new(SECOND);
    let mut rests = Vec::new();
    for n in 1..4 {
        desk.ask(u128::from(n));
        desk.want(u128::from(n), n);
        desk.news(News::WishStored { tag: tag(n) });
        let failure = Failure::Unknown("the provider panicked".into());
        desk.news(News::CreateFailed { tag: tag(n), failure });
        desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(n.into()) });
        desk.destroy(n);
        assert_eq!(desk.ask(100), "refused");
        let rest = desk.core.next_deadline().unwrap().since(desk.now);
        rests.push(rest.as_secs());
        let effects = desk.pass(rest);
        assert!(effects.contains(&Effect::TryBuilders(vec!["a".into()])));
    }
    assert_eq!(rests, [10, 20, 40]);
    // A success ends the row of failures.
    desk.build(9, 9);
    desk.end_build(9, 9);
    assert_eq!(desk.core.next_deadline().unwrap().since(desk.now), SECOND);
}

#[test]
fn fx02_an_instance_that_never_attaches_is_destroyed_in_time() {
    let mut desk = Desk::new(SECOND);
    desk.create(1, 1);
    assert!(matches!(desk.state(), State::Waiting { .. }));
    assert!(failures(&desk.pass(59 * SECOND)).is_empty());
    let effects = desk.pass(SECOND);
    assert_eq!(failures(&effects).len(), 1);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))]);
}

#[test]
fn fx02_one_that_the_provider_is_still_making_is_destroyed_once_it_is_made() {
    let mut desk = Desk::new(SECOND);
    desk.ask(1);
    desk.want(1, 1);
    desk.news(News::WishStored { tag: tag(1) });
    let effects = desk.pass(60 * SECOND);
    assert_eq!(failures(&effects).len(), 1);
    assert!(wants(&effects).is_empty(), "destroyed before it is made, it would be forgotten");
    let made = News::Created { tag: tag(1), id: "7".into(), details: String::new() };
    assert_eq!(desk.news(made), [Wants::StoreRelease(tag(1))]);
}

#[test]
fn fx03_an_instance_that_dies_while_it_starts_is_not_waited_for() {
    let mut desk = Desk::new(SECOND);
    desk.create(1, 1);
    let news = News::Died { tag: tag(1), how: "exit status: 78".into() };
    let effects = desk.hear(Event::Instance(news.clone()));
    let text = "the instance died while it started: exit status: 78".to_owned();
    assert_eq!(failures(&effects), [(1, text, false)]);
    assert!(desk.hear(Event::Instance(news)).is_empty(), "told twice is nothing");
}

#[test]
fn fx04_an_instance_that_was_given_up_is_not_let_in() {
    let mut desk = Desk::new(SECOND);
    desk.create(1, 1);
    assert!(desk.core.expects(Some(&tag(1))));
    assert!(!desk.core.expects(None), "nor is one that the master did not start");
    desk.pass(60 * SECOND);
    assert!(!desk.core.expects(Some(&tag(1))));
    let effects = desk.hear(Event::Unexpected { session: SessionId(5) });
    assert!(matches!(
        effects[0],
        Effect::Reject { session: SessionId(5), retry_after_s: None, .. }
    ));
    // A new one is asked for: the old one still is not it.
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    desk.destroy(1);
    desk.pass(10 * SECOND);
    desk.create(2, 2);
    assert!(desk.core.expects(Some(&tag(2))) && !desk.core.expects(Some(&tag(1))));
}

#[test]
fn fx05_an_instance_that_vanishes_while_idle_is_made_anew_for_the_next_build() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    desk.end_build(1, 1);
    let effects = desk.lose();
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))], "what is left of it goes");
    desk.destroy(1);
    assert_eq!(desk.word(), "latent");
    desk.create(2, 2);
}

#[test]
fn fr01_an_instance_that_loses_its_connection_while_building_may_come_back() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    let effects = desk.lose();
    assert!(wants(&effects).is_empty());
    assert_eq!(desk.word(), "away");
    let brought = Brought { build: BuildId(1), builder: "a".into(), command: None, lost: false };
    desk.attach(vec![brought]);
    assert_eq!(desk.word(), "up");
    desk.lose();
    // Its build was given up after the grace: nobody needs it any more.
    let effects = desk.end_build(1, 1);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))]);
}

#[test]
fn fr05_builds_of_a_dead_instance_are_lost_once_nothing_of_it_is_left() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    let news = News::Died { tag: tag(1), how: "signal: 9".into() };
    let effects = desk.hear(Event::Instance(news));
    assert!(!effects.contains(&Effect::TellBuildGone { build: BuildId(1) }), "i3: not yet");
    desk.lose();
    assert!(desk.destroy(1).contains(&Effect::TellBuildGone { build: BuildId(1) }));
}

#[test]
fn fr05_builds_of_a_dead_instance_are_lost_even_before_its_connection_is() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    desk.hear(Event::Instance(News::Died { tag: tag(1), how: "signal: 9".into() }));
    assert!(desk.destroy(1).contains(&Effect::TellBuildGone { build: BuildId(1) }));
}

fn fx06_the_build_wins() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    desk.end_build(1, 1);
    desk.now = desk.now + 30 * SECOND;
    // The timer is due, and a build is given a slot at this very moment.
    assert_eq!(desk.ask(2), "granted");
    let effects = desk.pass(Duration::ZERO);
    assert!(wants(&effects).is_empty() && !closes(&effects), "{effects:?}");
    assert_eq!(desk.word(), "up");
}

#[test]
fn fx06_a_build_that_is_given_at_the_moment_of_the_idle_timer_wins() {
    fx06_the_build_wins();
    // The other way round it is not given.
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    desk.end_build(1, 1);
    desk.pass(30 * SECOND);
    assert_eq!(desk.ask(2), "refused");
}

#[test]
fn fx06_an_idle_timer_that_kills_a_given_build_is_found() {
    found("idle_timer_kills_a_given_build", fx06_the_build_wins);
}

#[test]
fn fx10_a_destroy_that_fails_is_tried_for_ever_with_growing_pauses_and_shown() {
    let mut desk = Desk::new(Duration::ZERO);
    desk.build(1, 1);
    desk.end_build(1, 1);
    desk.lose();
    desk.news(News::ReleaseStored { tag: tag(1) });
    let mut pauses = Vec::new();
    for _ in 0..12 {
        desk.news(News::DestroyFailed { tag: tag(1), error: "it hangs".into() });
        let pause = desk.core.next_deadline().unwrap().since(desk.now);
        pauses.push(pause.as_secs());
        let effects = desk.pass(pause);
        assert_eq!(wants(&effects), [Wants::Destroy { tag: tag(1), id: Some("7".into()) }]);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    let view = desk.core.instance_view(desk.at()).unwrap();
    assert_eq!((view.state, view.tries, view.going), ("destroying", 13, 1));
    assert_eq!(view.error.as_deref(), Some("it hangs"));
    // It does not keep the worker for ever.
    assert_eq!(desk.ask(2), "reserved");
    desk.hear(Event::Instance(News::Destroyed { tag: tag(1) }));
    assert_eq!(desk.core.instance_view(desk.at()).unwrap().going, 1, "until that is stored");
}

#[test]
fn fx10_an_answer_that_is_lost_is_asked_for_again() {
    let mut desk = Desk::new(Duration::ZERO);
    desk.build(1, 1);
    desk.end_build(1, 1);
    for _ in 0..2 {
        let due = desk.core.next_deadline().expect("it has a deadline");
        let pause = due.since(desk.now);
        assert_eq!(wants(&desk.pass(pause)), [Wants::StoreRelease(tag(1))]);
    }
}

#[test]
fn a_latent_workers_slots_are_those_of_its_settings() {
    let mut desk = Desk::new(SECOND);
    assert_eq!([desk.ask(1), desk.ask(2), desk.ask(3)], ["reserved", "reserved", "refused"]);
    desk.want(1, 1);
    // Two builders wait for one instance.
    assert!(wants(&desk.want(2, 2)).is_empty());
    desk.news(News::WishStored { tag: tag(1) });
    let failure = Failure::Permanent("no".into());
    let effects = desk.hear(Event::Instance(News::CreateFailed { tag: tag(1), failure }));
    assert_eq!(failures(&effects).len(), 2, "both are told");
    desk.hear(Event::PauseStored { paused: true });
    desk.hear(Event::GiveBackSlot { builder: "a".into(), claim: ClaimId(1) });
    desk.destroy(1);
    desk.pass(10 * SECOND);
    assert_eq!(desk.ask(4), "refused", "a paused one is not substantiated");
}

#[test]
fn settings_that_an_instance_was_not_made_with_let_it_go_once_it_is_idle() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    let later = WorkerConfig { max_builds: 4, ..settings(30 * SECOND) };
    assert!(wants(&desk.configure(later)).is_empty(), "not while it builds");
    let effects = desk.end_build(1, 1);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))]);
    // Times alone do not.
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    desk.end_build(1, 1);
    assert!(wants(&desk.configure(settings(5 * SECOND))).is_empty());
    assert_eq!(desk.core.next_deadline().unwrap().since(desk.now), 5 * SECOND);
}

#[test]
fn t05_a_latent_worker_that_is_removed_goes_with_its_instance() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    assert!(wants(&desk.hear(Event::Retire)).is_empty(), "its build goes on");
    let effects = desk.end_build(1, 1);
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))]);
    let effects = desk.lose();
    assert!(!effects.contains(&Effect::Over));
    assert!(desk.destroy(1).contains(&Effect::Over));
}

#[test]
fn a_worker_that_becomes_an_ordinary_one_lets_its_instance_go() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    let ordinary = WorkerConfig { latent: None, ..settings(SECOND) };
    let effects = desk.configure(ordinary);
    assert!(effects.contains(&Effect::TellNotLatent { builder: "a".into() }));
    desk.end_build(1, 1);
    desk.lose();
    desk.destroy(1);
    assert!(desk.core.instance().is_none());
    assert!(desk.core.expects(None), "whoever attaches is welcome");
    assert_eq!(desk.ask(5), "refused");
    // And a latent one again.
    let effects = desk.configure(settings(SECOND));
    assert!(effects.contains(&Effect::TellLatent { builder: "a".into() }));
    assert!(effects.contains(&Effect::TryBuilders(vec!["a".into()])) || desk.ask(6) == "reserved");
}

#[test]
fn fx08_a_builder_that_comes_back_hears_of_its_latent_worker_again() {
    let mut desk = Desk::new(SECOND);
    let only_b = vec![("b".into(), "b".into())];
    let (config, renewed) = (settings(SECOND), BTreeSet::new());
    let effects = desk.hear(Event::Configure { config, builders: only_b, renewed });
    assert!(effects.is_empty(), "t08: the other one does not notice: {effects:?}");
    let effects = desk.configure(settings(SECOND));
    assert_eq!(effects, [Effect::TellLatent { builder: "a".into() }]);
}

#[test]
fn fx11_a_stopping_master_lets_go_of_what_nobody_uses() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    assert!(desk.news(News::LetGo { even_used: false }).is_empty());
    assert_eq!(desk.news(News::LetGo { even_used: true }), [Wants::StoreRelease(tag(1))]);
}

#[test]
fn b16_builders_hear_of_a_free_worker_whatever_of_the_old_one_ends_last() {
    let mut desk = Desk::new(30 * SECOND);
    desk.build(1, 1);
    desk.end_build(1, 1);
    desk.pass(30 * SECOND);
    assert_eq!(desk.ask(2), "refused");
    // The process is gone before its connection is heard to have ended.
    desk.destroy(1);
    let effects = desk.lose();
    assert!(effects.contains(&Effect::TryBuilders(vec!["a".into()])), "{effects:?}");
}

/// What the former actor of a worker says of its instances.
fn yielded(desk: &mut Desk) -> Vec<Known> {
    desk.hear(Event::Retire);
    let effects = desk.hear(Event::Yield);
    let told = effects.into_iter().find_map(|effect| match effect {
        Effect::YieldInstances(known) => Some(known),
        _ => None,
    });
    told.expect("it says which instances there are")
}

/// A new actor of a worker whose former one is there yet.
fn heir() -> Desk {
    let mut desk = Desk::new(30 * SECOND);
    desk.core.wait_for_heritage(desk.now);
    assert_eq!(desk.ask(1), "refused", "there may be an instance");
    desk
}

fn take(desk: &mut Desk, known: Vec<Known>, made_with: WorkerConfig) -> Vec<Effect> {
    desk.hear(Event::TakeInstances { known, made_with })
}

#[test]
fn fa18_fx08_an_instance_with_builds_goes_over_to_the_new_actor_with_them() {
    let mut old = Desk::new(30 * SECOND);
    old.build(1, 1);
    let known = yielded(&mut old);
    let id = Some("7".to_owned());
    assert_eq!(known, [Known { tag: tag(1), id, wanted: true }]);
    assert_eq!(old.word(), "latent", "it lets nothing go that is not its own any more");

    let mut new = heir();
    let effects = take(&mut new, known, settings(30 * SECOND));
    assert_eq!(wants(&effects), [Wants::Watch { tag: tag(1), id: "7".into() }]);
    assert!(effects.contains(&Effect::TryBuilders(vec!["a".into()])), "{effects:?}");
    assert!(new.core.expects(Some(&tag(1))));
    new.attach(Vec::new());
    assert_eq!(new.word(), "idle");
    assert_eq!(new.ask(2), "granted");
}

#[test]
fn fx10_a_new_actor_makes_no_instance_beside_one_that_goes() {
    let mut old = Desk::new(Duration::ZERO);
    old.build(1, 1);
    let released = old.end_build(1, 1);
    assert_eq!(wants(&released), [Wants::StoreRelease(tag(1))]);
    let known = yielded(&mut old);
    assert!(!known[0].wanted);

    let mut new = heir();
    let effects = take(&mut new, known, settings(Duration::ZERO));
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))], "it goes on with that");
    assert_eq!(new.ask(1), "refused");
    new.destroy(1);
    assert_eq!(new.ask(1), "reserved");
}

#[test]
fn fx08_an_instance_that_was_made_with_other_settings_goes_once_nobody_uses_it() {
    let mut old = Desk::new(30 * SECOND);
    old.build(1, 1);
    let known = yielded(&mut old);
    let mut new = heir();
    take(&mut new, known, WorkerConfig { max_builds: 7, ..settings(30 * SECOND) });
    let effects = new.attach(Vec::new());
    assert_eq!(wants(&effects), [Wants::StoreRelease(tag(1))]);
}

#[test]
fn fx08_a_new_actor_does_not_wait_for_ever_for_one_that_is_dead() {
    let mut new = heir();
    let due = new.core.next_deadline().expect("it waits for something");
    assert_eq!(due.since(new.now), 60 * SECOND);
    let effects = new.pass(60 * SECOND);
    assert!(effects.contains(&Effect::TryBuilders(vec!["a".into()])), "{effects:?}");
    assert_eq!(new.ask(1), "reserved");
}
