//! Heartbeats are confirmed when the store knows of them, and not before.

use std::time::Duration;

use botmaster::core::heartbeats::{Beat, EVERY, Effect, Event, HeartbeatsCore, Outage};
use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::time::Timestamp;

const HEARTBEAT: Duration = Duration::from_secs(10);
/// A write that takes longer is taken for an outage.
const PATIENCE: Duration = Duration::from_secs(5);

fn beat(worker: u64, seq: u64) -> Beat {
    let (incarnation, session) = (Incarnation(1), SessionId(worker));
    Beat { worker: WorkerId(worker), incarnation, session, seq }
}

fn here(sessions: &[u64]) -> Effect {
    Effect::SayHere(sessions.iter().map(|session| SessionId(*session)).collect())
}

struct Desk(HeartbeatsCore, Timestamp);

impl Desk {
    fn new(outage: Outage) -> Self {
        Self(HeartbeatsCore::new(outage, HEARTBEAT), Timestamp(60_000_000))
    }

    fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.0.handle(self.1, event, &mut effects);
        effects
    }

    /// Time passes until the next deadline.
    fn deadline(&mut self) -> Vec<Effect> {
        self.1 = self.0.next_deadline().expect("it waits for something");
        self.hear(Event::DeadlineReached)
    }
}

#[test]
fn fd02_a_heartbeat_is_confirmed_when_the_store_has_it() {
    let mut desk = Desk::new(Outage::EndBuilds);
    assert_eq!(desk.hear(Event::Beat(beat(1, 1))), [Effect::Write(vec![beat(1, 1)])]);
    assert_eq!(desk.hear(Event::Written { ok: true }), [Effect::Confirm(vec![beat(1, 1)])]);
    assert_eq!(desk.0.next_deadline(), None);
}

#[test]
fn fd02_is_found_when_a_heartbeat_is_confirmed_at_once() {
    let planted = planted::plant("heartbeat_confirmed_at_once");
    let story = std::panic::catch_unwind(fd02_a_heartbeat_is_confirmed_when_the_store_has_it);
    assert!(story.is_err() && planted.met() > 0);
}

#[test]
fn fd02_without_the_store_nothing_is_confirmed_until_it_is_back() {
    let mut desk = Desk::new(Outage::EndBuilds);
    desk.hear(Event::Beat(beat(1, 1)));
    for seq in 2..20 {
        // It hears that the master is there, and no more.
        assert_eq!(desk.hear(Event::Written { ok: false }), [Effect::NotStored(1), here(&[1])]);
        desk.hear(Event::Beat(beat(1, seq)));
        // The newest one of each worker, once a second.
        assert_eq!(desk.deadline(), [Effect::Write(vec![beat(1, seq)])]);
    }
    assert_eq!(desk.hear(Event::Written { ok: false }), [Effect::NotStored(1), here(&[1])]);
    // The first write that goes through confirms, without another heartbeat.
    assert_eq!(desk.deadline(), [Effect::Write(vec![beat(1, 19)])]);
    assert_eq!(desk.hear(Event::Written { ok: true }), [Effect::Confirm(vec![beat(1, 19)])]);
}

#[test]
fn fd02_a_store_that_never_answers_confirms_nothing() {
    let mut desk = Desk::new(Outage::EndBuilds);
    desk.hear(Event::Beat(beat(1, 1)));
    for worker in 2..20 {
        let before = desk.1;
        assert_eq!(desk.hear(Event::Beat(beat(worker, 1))), []);
        let all: Vec<u64> = (1..=worker).collect();
        assert_eq!(desk.deadline(), [here(&all)], "all hear that the master is there");
        assert_eq!(desk.1.since(before), PATIENCE, "soon enough not to take it for gone");
    }
    let waiting: Vec<Beat> = (2..20).map(|worker| beat(worker, 1)).collect();
    assert_eq!(
        desk.hear(Event::Written { ok: true }),
        [Effect::Confirm(vec![beat(1, 1)]), Effect::Write(waiting)]
    );
}

#[test]
fn fd02_keep_running_confirms_without_the_store() {
    // It refuses.
    let mut desk = Desk::new(Outage::KeepRunning);
    desk.hear(Event::Beat(beat(1, 1)));
    assert_eq!(desk.hear(Event::Written { ok: false }), [Effect::Confirm(vec![beat(1, 1)])]);
    // It does not answer.
    desk.1 = desk.1 + EVERY;
    assert_eq!(desk.hear(Event::Beat(beat(1, 2))), [Effect::Write(vec![beat(1, 2)])]);
    assert_eq!(desk.hear(Event::Beat(beat(2, 1))), []);
    let told = desk.deadline();
    assert_eq!(told, [Effect::Confirm(vec![beat(1, 2)]), Effect::Confirm(vec![beat(2, 1)])]);
    assert_eq!(desk.hear(Event::Beat(beat(1, 3))), [], "once a second");
    assert_eq!(desk.deadline(), [Effect::Confirm(vec![beat(1, 3)])]);
    // It is back; what it answers late was confirmed already.
    assert_eq!(desk.hear(Event::Written { ok: true }), []);
    desk.1 = desk.1 + EVERY;
    assert_eq!(desk.hear(Event::Beat(beat(1, 4))), [Effect::Write(vec![beat(1, 4)])]);
}

#[test]
fn fd13_a_slow_store_has_one_write_at_a_time_for_all_workers() {
    let mut desk = Desk::new(Outage::EndBuilds);
    let (mut writes, mut confirmed) = (0, 0);
    let mut writing: Option<Timestamp> = None;
    // A thousand workers, each with a heartbeat in ten seconds; a commit takes
    // half a second, then three seconds.
    for tick in 0..60_000u64 {
        desk.1 = desk.1 + Duration::from_millis(1);
        let commit = Duration::from_millis(if tick < 30_000 { 500 } else { 3000 });
        let mut effects = Vec::new();
        if tick % 10 == 0 {
            let number = tick / 10;
            effects.extend(desk.hear(Event::Beat(beat(number % 1000, number / 1000))));
        }
        if writing.is_some_and(|at| desk.1.since(at) >= commit) {
            writing = None;
            effects.extend(desk.hear(Event::Written { ok: true }));
        }
        if desk.0.next_deadline().is_some_and(|at| at <= desk.1) {
            effects.extend(desk.hear(Event::DeadlineReached));
        }
        for effect in effects {
            match effect {
                Effect::Write(_) => {
                    assert_eq!(writing, None, "one at a time");
                    writing = Some(desk.1);
                    writes += 1;
                }
                Effect::Confirm(beats) => confirmed += beats.len(),
                Effect::NotStored(count) => panic!("{count} were given up"),
                Effect::SayHere(all) => panic!("{} wait too long", all.len()),
            }
        }
    }
    assert!((30..=42).contains(&writes), "{writes} writes in a minute");
    assert!(confirmed > 5_300, "{confirmed} of 6000 confirmed");
}
