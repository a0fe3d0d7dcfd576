//! Wrong worker names and tokens: how many are looked at.

use std::time::Duration;

use botmaster::core::gate::{Attempt, Gate, Verdict};
use botmaster::core::planted;
use botmaster::core::time::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

fn from<'a>(address: &'a str, name: &'a str) -> Attempt<'a> {
    Attempt { address: Some(address), name, at_home: false }
}

/// How many of these wrong attempts, one every `every`, are looked at.
fn looked_at(
    gate: &mut Gate,
    now: &mut Timestamp,
    count: u32,
    every: Duration,
    attempt: impl Fn(u32) -> (String, String),
) -> u32 {
    let mut looked = 0;
    for number in 0..count {
        let (address, name) = attempt(number);
        let attempt = from(&address, &name);
        if gate.ask(*now, &attempt) == Verdict::Look {
            looked += 1;
            gate.failed(*now, &attempt);
        }
        *now = *now + every;
    }
    looked
}

#[test]
fn fn06_ten_a_minute_of_an_address_then_one_a_minute() {
    let (mut gate, mut now) = (Gate::new(10), Timestamp(1));
    // A hundred a second, for a minute, each with another name.
    let one = |number: u32| ("192.0.2.7".to_owned(), format!("w{number}"));
    let looked = looked_at(&mut gate, &mut now, 6_000, SECOND / 100, one);
    assert_eq!(looked, 10);
    let looked = looked_at(&mut gate, &mut now, 60_000, SECOND / 100, one);
    assert_eq!(looked, 10, "ten minutes more");
    let other = from("192.0.2.8", "w1");
    assert_eq!(gate.ask(now, &other), Verdict::Look, "another address is not held up");
    let Verdict::Later(seconds) = gate.ask(now, &from("192.0.2.7", "w1")) else {
        panic!("this one is")
    };
    assert!((1..=60).contains(&seconds), "{seconds}");
    now = now + SECOND * seconds as u32;
    assert_eq!(gate.ask(now, &from("192.0.2.7", "w1")), Verdict::Look);
}

#[test]
fn fn06_is_found_when_there_is_no_limit() {
    let planted = planted::plant("logins_without_limit");
    let story = std::panic::catch_unwind(fn06_ten_a_minute_of_an_address_then_one_a_minute);
    assert!(story.is_err() && planted.met() > 0);
}

#[test]
fn fn06_ten_a_minute_for_a_name_wherever_they_come_from() {
    let (mut gate, mut now) = (Gate::new(10), Timestamp(1));
    let one = |number: u32| (format!("10.0.{}.{}", number / 256, number % 256), "w1".to_owned());
    let looked = looked_at(&mut gate, &mut now, 600, SECOND / 10, one);
    assert_eq!(looked, 10);
    // The worker itself, where it came from before, is not kept out by them.
    let at_home = Attempt { at_home: true, ..from("192.0.2.1", "w1") };
    assert_eq!(gate.ask(now, &at_home), Verdict::Look);
    assert!(matches!(gate.ask(now, &from("192.0.2.1", "w1")), Verdict::Later(_)));
    // A minute of peace, and all is as before.
    now = now + SECOND * 61;
    assert_eq!(looked_at(&mut gate, &mut now, 600, SECOND / 10, one), 10);
}

#[test]
fn fn06_few_failures_are_no_attack() {
    let (mut gate, mut now) = (Gate::new(10), Timestamp(1));
    let one = |_| ("192.0.2.7".to_owned(), "w1".to_owned());
    assert_eq!(looked_at(&mut gate, &mut now, 500, SECOND * 7, one), 500);
}

#[test]
fn fn06_i15_what_is_remembered_is_bounded() {
    let (mut gate, mut now) = (Gate::new(10), Timestamp(1));
    let one = |number: u32| (format!("a{number}"), format!("w{number}"));
    looked_at(&mut gate, &mut now, 50_000, Duration::from_micros(7), one);
    assert!(gate.remembered() <= 4097, "{}", gate.remembered());
    // All in the same instant, too.
    looked_at(&mut gate, &mut now, 50_000, Duration::ZERO, one);
    assert!(gate.remembered() <= 4097, "{}", gate.remembered());
}
