//! One exchange.

use std::time::Duration;

use botmaster::core::ping::{Effect, Event, PingCore};
use botmaster::core::time::Timestamp;

const T: Duration = Duration::from_secs(10);

fn start() -> (PingCore, Timestamp) {
    let now = Timestamp(1_000_000);
    let mut effects = Vec::new();
    let ping = PingCore::start(now, T, &mut effects);
    assert_eq!(effects, [Effect::Send]);
    assert_eq!(ping.next_deadline(), Some(now + T), "p02: the timer runs before the answer");
    (ping, now)
}

fn hear(ping: &mut PingCore, now: Timestamp, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    ping.handle(now, event, &mut effects);
    effects
}

#[test]
pub fn p03_an_answer_ends_it_well_and_once() {
    let (mut ping, now) = start();
    assert_eq!(hear(&mut ping, now, Event::Pong), [Effect::Done(true)]);
    assert_eq!(ping.next_deadline(), None);
    assert!(hear(&mut ping, now, Event::Pong).is_empty());
    let late = Event::DeadlineReached { last_byte: now };
    assert!(hear(&mut ping, now + T, late).is_empty(), "fp02: what comes later is nothing");
}

#[test]
fn p04_silence_drops_the_connection_and_tells_false_at_once() {
    let (mut ping, now) = start();
    let silent = Event::DeadlineReached { last_byte: now };
    let effects = hear(&mut ping, now + T, silent);
    assert_eq!(effects, [Effect::DropConnection, Effect::Done(false)]);
}

#[test]
pub fn p04_any_byte_extends_the_wait_up_to_three_timeouts() {
    let (mut ping, sent) = start();
    let mut now = sent + T;
    let busy = |now: Timestamp| Event::DeadlineReached { last_byte: now - Duration::from_secs(1) };
    assert!(hear(&mut ping, now, busy(now)).is_empty());
    now = ping.next_deadline().unwrap();
    assert_eq!(now.since(sent), Duration::from_secs(19));
    assert!(hear(&mut ping, now, busy(now)).is_empty());
    now = ping.next_deadline().unwrap();
    assert!(hear(&mut ping, now, busy(now)).is_empty());
    now = ping.next_deadline().unwrap();
    assert_eq!(now.since(sent), T * 3);
    assert_eq!(hear(&mut ping, now, busy(now)), [Effect::DropConnection, Effect::Done(false)]);
}

#[test]
pub fn p05_a_lost_connection_is_false() {
    let (mut ping, now) = start();
    assert_eq!(hear(&mut ping, now, Event::Lost), [Effect::DropConnection, Effect::Done(false)]);
}

#[test]
fn s04_a_joiner_with_less_patience_tightens_the_deadline_and_never_loosens_it() {
    let (mut ping, now) = start();
    hear(&mut ping, now, Event::Tighten(now + T * 2));
    assert_eq!(ping.next_deadline(), Some(now + T));
    hear(&mut ping, now, Event::Tighten(now + T / 2));
    assert_eq!(ping.next_deadline(), Some(now + T / 2));
}

#[test]
pub fn p02_the_timer_runs_from_the_sending_on() {
    let (ping, now) = start();
    assert_eq!(ping.next_deadline(), Some(now + T));
}

#[test]
fn p01_one_ping_is_one_exchange() {
    let (mut ping, now) = start();
    hear(&mut ping, now, Event::Pong);
    for event in [Event::Pong, Event::Lost, Event::Tighten(now)] {
        assert!(hear(&mut ping, now, event).is_empty(), "it is over for good");
    }
}
