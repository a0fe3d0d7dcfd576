//! Latent workers at a builder: a seat without a connection, builds that wait
//! for an instance, and what is told of it (rows L01 to L05, B14, B26).

use std::collections::BTreeSet;
use std::sync::Arc;

use botmaster::core::builder::{BuilderCore, Effect, Event, LatentNews, ReplyId};
use botmaster::core::ids::*;
use botmaster::core::latent_slave_builder::{
    Effect as Told, Event as Hears, LatentSlaveBuilderCore, NotSubstantiated, State,
};
use botmaster::core::planted;
use botmaster::core::time::Timestamp;
use botmaster::core::values::*;
use botmaster::core::views::BigState;

use crate::kit::*;

fn latent_desk(workers: &[&str]) -> Desk {
    let mut desk = Desk::new(config(workers));
    for worker in workers.iter().filter(|worker| worker.starts_with('l')) {
        desk.hear(Event::AddLatent { worker: (*worker).into() });
    }
    desk
}

/// The claim of the only build, whose worker keeps a slot for it.
fn reserved(desk: &mut Desk, effects: &[Effect]) -> ClaimId {
    let (worker, claim) = asked(effects)[0].clone();
    let effects = desk.hear(Event::SlotReserved { claim });
    assert_eq!(effects, [Effect::Substantiate { worker: worker.as_str().into(), claim }]);
    claim
}

fn failed(claim: ClaimId, permanent: bool) -> Event {
    Event::NotSubstantiated { claim, error: Some("no".into()), permanent }
}

fn word(desk: &Desk, worker: &str) -> &'static str {
    desk.core.view().workers[&WorkerName::from(worker)]
}

#[test]
fn b26_a_latent_worker_is_added_once_without_a_connection_and_a_build_is_tried() {
    let mut desk = Desk::new(config(&["l1"]));
    desk.submit(&[1]);
    let effects = desk.hear(Event::AddLatent { worker: "l1".into() });
    assert_eq!(notes(&effects), ["added latent l1", "building"]);
    assert_eq!(asked(&effects).len(), 1, "a build is tried");
    let again = desk.hear(Event::AddLatent { worker: "l1".into() });
    assert!(notes(&again).is_empty() && asked(&again).is_empty(), "{again:?}");
}

#[test]
fn b17_an_unsubstantiated_latent_worker_counts_as_a_worker() {
    let desk = latent_desk(&["l1"]);
    assert_eq!(desk.core.view().big_state, BigState::Idle);
    assert_eq!(word(&desk, "l1"), "latent");
}

#[test]
fn b12_an_idle_worker_is_chosen_before_an_unsubstantiated_one() {
    for choose in [ChooseWorker::First, ChooseWorker::Random] {
        let mut desk = Desk::new(BuilderConfig { choose, ..config(&["l1", "w1"]) });
        desk.hear(Event::AddLatent { worker: "l1".into() });
        desk.attach("w1", 1);
        let chosen: Vec<_> = asked(&desk.submit(&[1, 2])).into_iter().map(|(w, _)| w).collect();
        assert_eq!(chosen, ["w1", "l1"]);
    }
}

#[test]
fn b14_nothing_is_claimed_before_the_instance_is_there_and_then_it_is_pinged() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.submit(&[1]);
    let claim = reserved(&mut desk, &effects);
    assert_eq!((desk.states(), word(&desk, "l1")), (vec!["substantiating"], "substantiating"));
    desk.attach("l1", 4);
    let effects = desk.hear(Event::Substantiated { claim });
    assert_eq!(asked(&effects), [("l1".to_owned(), claim)], "its slot, in the incarnation there");
    assert!(matches!(desk.grant(claim)[..], [Effect::Claim { .. }]));
    let (_, effects) = desk.claim(claim, &[1]);
    assert!(matches!(effects[..], [Effect::StartOnSeat { .. }]), "the ping of every start");
}

fn b14_a_failed_substantiation_gives_all_back_and_waits() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.submit(&[1]);
    let claim = reserved(&mut desk, &effects);
    desk.submit(&[2]);
    let effects = desk.hear(failed(claim, false));
    assert!(effects.contains(&Effect::GiveBackSlot { worker: "l1".into(), claim }));
    assert!(asked(&effects).is_empty(), "it is not tried again at once");
    assert_eq!(desk.pending(), [1, 2], "the request is at the head");
    assert_eq!(word(&desk, "l1"), "latent", "it stays listed");
    let mut waits = Vec::new();
    for _ in 0..3 {
        let until = desk.core.next_deadline().expect("it is tried again");
        waits.push(until.since(desk.now.mono).as_secs());
        desk.now.mono = until;
        let effects = desk.hear(Event::DeadlineReached);
        let claim = reserved(&mut desk, &effects);
        desk.hear(failed(claim, false));
    }
    assert_eq!(waits, [10, 20, 40]);
}

#[test]
fn b14_fx01_a_failed_substantiation_requeues_and_the_worker_rests_10_s_doubling() {
    b14_a_failed_substantiation_gives_all_back_and_waits();
}

#[test]
fn b14_a_seat_that_a_failed_substantiation_kept_is_found() {
    found("substantiate_failure_keeps_seat_taken", || {
        b14_a_failed_substantiation_gives_all_back_and_waits();
    });
}

/// The story must not hold with this fault in the core.
fn found(fault: &'static str, story: impl FnOnce() + std::panic::UnwindSafe) {
    let planted = planted::plant(fault);
    let told = std::panic::catch_unwind(story);
    assert!(planted.met() > 0, "`{fault}` was never met");
    assert!(told.is_err(), "nobody found `{fault}`");
}

#[test]
fn b14_a_success_ends_the_rest() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.submit(&[1]);
    let claim = reserved(&mut desk, &effects);
    desk.hear(failed(claim, false));
    // Another builder's build had it made.
    let effects = desk.attach("l1", 2);
    assert_eq!(asked(&effects).len(), 1);
}

#[test]
fn fx01_a_permanent_failure_ends_as_a_build_that_people_see() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.submit(&[1]);
    let claim = reserved(&mut desk, &effects);
    let effects = desk.hear(failed(claim, true));
    let [Effect::FailBuild { requests, state_string, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(requests, &[(RequestId(1), Epoch(0))]);
    assert_eq!(state_string, "no instance of worker l1: no");
    assert_eq!(desk.states(), ["failing"]);
    assert_eq!(answers(&desk.cancel(1)), [(ReplyId(1), false)], "it is over already");
    let effects = desk.hear(Event::FailedBuild { claim });
    assert!(effects.contains(&Effect::GiveBackSlot { worker: "l1".into(), claim }));
    assert!(desk.pending().is_empty() && desk.states().is_empty());
}

fn l05_one_latent_worker_gets_one_build() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.submit(&[1, 2]);
    assert_eq!(asked(&effects).len(), 1);
    let claim = reserved(&mut desk, &effects);
    assert!(asked(&desk.submit(&[3])).is_empty());
    desk.attach("l1", 1);
    desk.hear(Event::Substantiated { claim });
    desk.start(claim, &[1], 1);
    assert!(asked(&desk.hear(Event::MaybeStart { worker: None })).is_empty());
    assert_eq!(desk.pending(), [2, 3]);
}

#[test]
fn l05_a_latent_worker_is_reserved_from_the_choice_on() {
    l05_one_latent_worker_gets_one_build();
}

#[test]
fn l05_a_latent_worker_that_is_chosen_twice_is_found() {
    found("latent_chosen_twice", l05_one_latent_worker_gets_one_build);
}

#[test]
fn b21_b24_a_latent_worker_comes_and_goes_without_connect_and_disconnect() {
    let mut desk = latent_desk(&["l1"]);
    let attach = desk.attach("l1", 1);
    assert!(notes(&attach).is_empty(), "{attach:?}");
    let news = Effect::TellLatent { worker: "l1".into(), news: LatentNews::Attached };
    assert!(attach.contains(&news));
    assert_eq!(word(&desk, "l1"), "idle");
    let twice = desk.hear(Event::Attach { worker: "l1".into(), session: SessionId(1) });
    assert!(twice.is_empty(), "b21: twice on the same connection is nothing");
    let gone = desk.hear(Event::Detach { worker: "l1".into(), session: SessionId(1) });
    assert!(notes(&gone).is_empty());
    assert!(gone.contains(&Effect::DropSeat { worker: "l1".into() }));
    assert_eq!(word(&desk, "l1"), "latent", "fx05: it is not disconnected");
    // A new connection while the old one looks alive.
    desk.attach("l1", 2);
    let effects = desk.attach("l1", 3);
    assert!(effects.contains(&Effect::NewSeat { worker: "l1".into(), session: SessionId(3) }));
    assert_eq!(word(&desk, "l1"), "idle");
    let late = desk.hear(Event::Detach { worker: "l1".into(), session: SessionId(2) });
    assert_eq!(word(&desk, "l1"), "idle", "{late:?}");
}

#[test]
fn s02_a_latent_worker_that_comes_back_with_a_build_has_its_seat_taken() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.submit(&[1]);
    let claim = reserved(&mut desk, &effects);
    desk.attach("l1", 1);
    desk.hear(Event::Substantiated { claim });
    desk.start(claim, &[1], 1);
    desk.submit(&[2]);
    let (worker, session) = (WorkerName::from("l1"), SessionId(1));
    desk.hear(Event::Detach { worker: worker.clone(), session });
    desk.hear(Event::Orphaned { claim, away: Some(away()) });
    assert!(asked(&desk.hear(Event::MaybeStart { worker: None })).is_empty(), "it keeps its seat");
    let session = SessionId(2);
    desk.hear(Event::Attach { worker: worker.clone(), session });
    let effects = desk.hear(Event::Attached { worker, session, building: Some(claim) });
    assert!(asked(&effects).is_empty());
    let effects = desk.finish(claim);
    assert_eq!(asked(&effects).len(), 1);
}

#[test]
fn l04_a_failed_attach_goes_back_to_latent() {
    let mut desk = latent_desk(&["l1"]);
    let (worker, session) = (WorkerName::from("l1"), SessionId(1));
    desk.hear(Event::Attach { worker: worker.clone(), session });
    assert_eq!(word(&desk, "l1"), "attaching");
    let error = "no folder".to_owned();
    let effects = desk.hear(Event::AttachFailed { worker: worker.clone(), session, error });
    assert_eq!(notes(&effects), ["failed connect l1"]);
    assert!(effects.contains(&Effect::DropSeat { worker: worker.clone() }));
    assert_eq!(word(&desk, "l1"), "latent");
    desk.now.mono = desk.now.mono + 10 * SECOND;
    // It may be tried again over the same connection.
    let effects = desk.submit(&[1]);
    let (_, claim) = asked(&effects)[0];
    let granted = desk.grant(claim);
    assert_eq!(granted, [Effect::Substantiate { worker: worker.clone(), claim }]);
    let effects = desk.hear(Event::Attach { worker: worker.clone(), session });
    assert_eq!(effects, [Effect::NewSeat { worker, session }]);
}

#[test]
fn ff03_a_cancel_while_substantiating_lets_the_worker_go() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.submit(&[1]);
    let claim = reserved(&mut desk, &effects);
    let effects = desk.cancel(1);
    assert!(matches!(&effects[0], Effect::CancelWaiting { request, .. } if request.id.0 == 1));
    let back = Effect::CallBackSubstantiation { worker: "l1".into(), claim };
    assert!(effects.contains(&back));
    assert!(effects.contains(&Effect::GiveBackSlot { worker: "l1".into(), claim }));
    assert!(desk.states().is_empty() && desk.pending().is_empty());
    let late = desk.hear(Event::Substantiated { claim });
    assert!(matches!(late[..], [Effect::Ignored(_)]));
}

#[test]
fn b07_one_of_several_requests_leaves_a_build_that_waits_for_its_instance() {
    let mut desk = Desk::new(BuilderConfig { merge: Merge::SameSource, ..config(&["l1"]) });
    desk.submit(&[1, 2]);
    let effects = desk.hear(Event::AddLatent { worker: "l1".into() });
    let claim = reserved(&mut desk, &effects);
    assert!(matches!(desk.cancel(1)[..], [Effect::CancelWaiting { .. }]));
    assert_eq!(desk.built(), [[2]]);
    desk.attach("l1", 1);
    desk.hear(Event::Substantiated { claim });
    let effects = desk.grant(claim);
    assert!(matches!(&effects[0], Effect::Claim { requests, .. } if requests.len() == 1));
}

#[test]
fn c03_unsubstantiated_latent_workers_count_as_answering() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.hear(Event::Ping { reply: ReplyId(3) });
    assert_eq!(effects, [Effect::PingLatent { worker: "l1".into() }]);
    let effects = desk.hear(Event::PingDone { worker: "l1".into(), ok: true });
    assert_eq!(answers(&effects), [(ReplyId(3), true)]);
}

/// Both desks after a takeover, as the actors do it.
fn take_over(old: &mut Desk, new: BuilderConfig) -> (Desk, Vec<Effect>) {
    let handover = old.core.hand_over(&new, 3);
    let moved: BTreeSet<_> = handover.seats.keys().cloned().collect();
    let mut desk = Desk::with(BuilderCore::succeed(Arc::new(new), handover, old.now));
    let mut effects = Vec::new();
    old.core.retire(&moved, true, &mut effects);
    desk.hear(Event::MaybeStart { worker: None });
    (desk, effects)
}

fn pass_on(effects: &[Effect], to: &mut Desk) {
    for effect in effects {
        if let Effect::TellSuccessor(event) = effect {
            to.hear(event.clone());
        }
    }
}

#[test]
fn t04_b26_a_latent_seat_moves_and_counts_as_present() {
    let mut old = latent_desk(&["l1"]);
    let (mut new, _) = take_over(&mut old, config(&["l1", "w1"]));
    assert_eq!(word(&new, "l1"), "latent");
    assert!(notes(&new.hear(Event::AddLatent { worker: "l1".into() })).is_empty());
    assert_eq!(asked(&new.submit(&[1])).len(), 1);
}

#[test]
fn fx07_t09_a_build_that_waits_over_a_takeover_is_started_or_goes_to_the_latest() {
    for works in [true, false] {
        let mut old = latent_desk(&["l1"]);
        let effects = old.submit(&[1]);
        let claim = reserved(&mut old, &effects);
        old.submit(&[2]);
        let (mut middle, _) = take_over(&mut old, config(&["l1", "w1"]));
        let (mut new, _) = take_over(&mut middle, config(&["l1", "w2"]));
        assert!(asked(&new.hear(Event::MaybeStart { worker: None })).is_empty(), "l05: reserved");
        assert_eq!(new.core.view().big_state, BigState::Building);
        if works {
            // The instance attaches for the latest; the build hears of it.
            new.attach("l1", 1);
            let effects = old.hear(Event::Substantiated { claim });
            assert_eq!(asked(&effects), [("l1".to_owned(), claim)]);
            old.start(claim, &[1], 1);
            let told = old.finish(claim);
            pass_on(&told, &mut new);
            assert_eq!(new.built(), [[2]]);
        } else {
            let told = old.hear(failed(claim, false));
            pass_on(&told, &mut middle);
            pass_on(&told, &mut new);
            // Its worker says when it has rested; the request goes first.
            assert_eq!((new.built(), new.pending()), (vec![vec![1]], vec![2]));
            assert!(old.core.view().builds.is_empty());
        }
    }
}

#[test]
fn t05_a_latent_seat_that_nobody_lists_is_let_go_and_its_build_goes_back() {
    let mut old = latent_desk(&["l1"]);
    let effects = old.submit(&[1]);
    let claim = reserved(&mut old, &effects);
    let (mut new, left) = take_over(&mut old, config(&["w1"]));
    assert!(left.contains(&Effect::CallBackSubstantiation { worker: "l1".into(), claim }));
    assert!(left.contains(&Effect::DropLatent { worker: "l1".into() }));
    pass_on(&left, &mut new);
    assert_eq!(new.pending(), [1]);
    assert!(left.contains(&Effect::Over));
}

#[test]
fn t05_a_latent_seat_that_builds_is_let_go_after_its_build() {
    let mut old = latent_desk(&["l1"]);
    let effects = old.submit(&[1]);
    let claim = reserved(&mut old, &effects);
    old.attach("l1", 1);
    old.hear(Event::Substantiated { claim });
    old.start(claim, &[1], 1);
    let (_, left) = take_over(&mut old, config(&["w1"]));
    let drop = Effect::DropLatent { worker: "l1".into() };
    assert!(!left.contains(&drop));
    assert!(old.finish(claim).contains(&drop));
}

#[test]
fn a_worker_that_becomes_an_ordinary_one_loses_its_latent_seat() {
    let mut desk = latent_desk(&["l1"]);
    let effects = desk.hear(Event::NotLatent { worker: "l1".into() });
    assert!(effects.contains(&Effect::DropLatent { worker: "l1".into() }));
    assert!(desk.core.view().workers.is_empty());
    assert_eq!(notes(&desk.attach("l1", 1))[0], "connect l1");
    // And back again, with its seat as it is.
    let effects = desk.hear(Event::AddLatent { worker: "l1".into() });
    assert!(notes(&effects).is_empty());
    let gone = desk.hear(Event::Detach { worker: "l1".into(), session: SessionId(1) });
    assert!(notes(&gone).is_empty());
    assert_eq!(word(&desk, "l1"), "latent");
}

/// A LatentSlaveBuilder at hand.
struct Latent(LatentSlaveBuilderCore, Timestamp);

impl Latent {
    fn new() -> Self {
        Self(LatentSlaveBuilderCore::new("l1".into(), 60 * SECOND), Timestamp(0))
    }

    fn hear(&mut self, event: Hears) -> Vec<Told> {
        let mut effects = Vec::new();
        self.0.handle(self.1, event, &mut effects);
        effects
    }
}

fn told(effects: &[Told]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Told::Note(text) | Told::NoteEnds { text, .. } => Some(text.as_str()),
            Told::NoteBegins(text) => Some(text),
            _ => None,
        })
        .collect()
}

const CLAIM: ClaimId = ClaimId(1);

#[test]
fn l01_it_starts_latent() {
    assert_eq!(*Latent::new().0.state(), State::Latent);
}

#[test]
pub fn l02_a_substantiation_is_one_event_with_a_beginning_and_an_end() {
    let mut latent = Latent::new();
    let effects = latent.hear(Hears::Substantiate(CLAIM));
    assert_eq!(told(&effects), ["substantiating"]);
    assert!(effects.contains(&Told::WantInstance(CLAIM)));
    latent.hear(Hears::Created { claim: CLAIM, details: "process 7".into() });
    let effects = latent.hear(Hears::Attached);
    assert_eq!(told(&effects), ["substantiate success (process 7)"]);
    assert!(effects.contains(&Told::Tell { claim: CLAIM, outcome: Ok(()) }));
    let up = latent.hear(Hears::Substantiate(ClaimId(2)));
    assert_eq!(up, [Told::Tell { claim: ClaimId(2), outcome: Ok(()) }], "no event when it is up");
    assert!(latent.hear(Hears::Detached).is_empty());
    assert_eq!(*latent.0.state(), State::Latent, "s07");
    assert!(latent.hear(Hears::Attached).is_empty(), "for somebody else's build: no event");
}

#[test]
fn l02_b14_a_failure_is_told_with_its_error_then_the_removal() {
    let mut latent = Latent::new();
    latent.hear(Hears::Substantiate(CLAIM));
    let stale = Hears::Failed { claim: ClaimId(9), error: "old".into(), permanent: false };
    assert!(matches!(latent.hear(stale)[..], [Told::Ignored(_)]));
    let event = Hears::Failed { claim: CLAIM, error: "quota".into(), permanent: true };
    let effects = latent.hear(event);
    assert_eq!(told(&effects), ["substantiate failed", "removing latent l1"]);
    let [Told::NoteEnds { begun: "substantiating", error: Some(error), .. }, ..] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(error, "quota");
    let outcome = Err(NotSubstantiated { error: Some("quota".into()), permanent: true });
    assert_eq!(effects[2], Told::Tell { claim: CLAIM, outcome });
    assert_eq!(*latent.0.state(), State::Latent);
}

#[test]
pub fn l03_a_ping_of_an_unsubstantiated_one_succeeds_at_once() {
    let mut latent = Latent::new();
    let effects = latent.hear(Hears::Ping(ReplyId(5)));
    assert_eq!(told(&effects), ["ping latent"]);
    assert_eq!(effects[1], Told::TellPing { reply: ReplyId(5), ok: true });
}

#[test]
pub fn l04_an_attach_that_fails_goes_back_to_latent() {
    let mut latent = Latent::new();
    latent.hear(Hears::Substantiate(CLAIM));
    assert!(latent.hear(Hears::Detached).is_empty(), "it may come again in time");
    let effects = latent.hear(Hears::AttachFailed { error: "no folder".into() });
    assert_eq!(told(&effects), ["substantiate failed", "removing latent l1"]);
    assert_eq!(*latent.0.state(), State::Latent);
}

#[test]
pub fn l05_it_is_reserved_for_one_build_until_success_or_failure() {
    let mut latent = Latent::new();
    latent.hear(Hears::Substantiate(CLAIM));
    let second = latent.hear(Hears::Substantiate(ClaimId(2)));
    let outcome = Err(NotSubstantiated { error: None, permanent: false });
    assert_eq!(second, [Told::Tell { claim: ClaimId(2), outcome }]);
    // Nothing waits for ever.
    let until = latent.0.next_deadline().unwrap();
    assert_eq!(until, Timestamp(60_000_000));
    latent.1 = until;
    let effects = latent.hear(Hears::DeadlineReached);
    assert_eq!(told(&effects), ["substantiate failed", "removing latent l1"]);
    assert_eq!(latent.0.next_deadline(), None);
}

#[test]
fn ff03_a_substantiation_that_is_called_back_has_an_end_and_tells_nobody() {
    let mut latent = Latent::new();
    latent.hear(Hears::Substantiate(CLAIM));
    assert!(latent.hear(Hears::CallBack(Some(ClaimId(2)))).is_empty());
    let effects = latent.hear(Hears::CallBack(Some(CLAIM)));
    assert_eq!(told(&effects), ["substantiate failed"]);
    assert_eq!(effects.len(), 1);
    assert!(latent.hear(Hears::CallBack(None)).is_empty());
}

#[test]
fn s08_every_state_of_a_latent_one_meets_every_event_as_the_table_says() {
    use botmaster::core::latent_slave_builder::{EVENTS, Hears as Kind, STATES, Stands, TABLE};
    use botmaster::core::transitions::find;
    let event = |kind| match kind {
        Kind::Substantiate => Hears::Substantiate(CLAIM),
        Kind::CallBack => Hears::CallBack(Some(CLAIM)),
        Kind::Created => Hears::Created { claim: CLAIM, details: "made".into() },
        Kind::Failed => Hears::Failed { claim: CLAIM, error: "no".into(), permanent: false },
        Kind::Attached => Hears::Attached,
        Kind::AttachFailed => Hears::AttachFailed { error: "no folder".into() },
        Kind::Detached => Hears::Detached,
        Kind::Ping => Hears::Ping(ReplyId(1)),
        Kind::Deadline => Hears::DeadlineReached,
    };
    let mut seen = BTreeSet::new();
    for (stands, kind) in STATES.iter().flat_map(|s| EVENTS.iter().map(move |e| (*s, *e))) {
        let mut latent = Latent::new();
        match stands {
            Stands::Latent => {}
            Stands::Substantiating => drop(latent.hear(Hears::Substantiate(CLAIM))),
            Stands::Up => drop(latent.hear(Hears::Attached)),
        }
        let before = latent.0.clone();
        assert_eq!(Stands::from(before.state()), stands);
        if kind == Kind::Deadline {
            latent.1 = Timestamp(60_000_000);
        }
        latent.hear(event(kind));
        let row = find(TABLE, &stands, &kind).unwrap();
        if row.to.is_empty() {
            assert_eq!(latent.0, before, "{stands:?} is said to ignore {kind:?}");
        }
        seen.insert((stands, kind, Stands::from(latent.0.state())));
    }
    let said: BTreeSet<_> =
        TABLE.iter().flat_map(|row| row.to.iter().map(|to| (row.from, row.event, *to))).collect();
    assert!(said.is_subset(&seen), "the table says, and it never happens: {said:?}");
}
