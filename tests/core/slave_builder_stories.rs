//! One builder's conversation with one worker.

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::builder::{ReplyId, SeatReportUse, StartFailure, StartOrder};
use botmaster::core::ids::*;
use botmaster::core::slave_builder::{CommandVersions, Effect, Event, SlaveBuilderCore, State};
use botmaster::core::time::Timestamp;

use crate::kit::{bites, config};

struct Seat {
    core: SlaveBuilderCore,
    now: Timestamp,
}

impl Seat {
    fn attaching() -> Self {
        let now = Timestamp(1_000_000);
        let core =
            SlaveBuilderCore::attaching(now + Duration::from_secs(30), Duration::from_secs(30));
        Self { core, now }
    }

    fn idle() -> Self {
        let mut seat = Self::attaching();
        seat.hear(Event::Ready { building: None });
        seat
    }

    fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(self.now, event, &mut effects);
        effects
    }

    fn start(&mut self, claim: u128) -> Vec<Effect> {
        self.hear(Event::Start(Box::new(order(claim))))
    }
}

fn order(claim: u128) -> StartOrder {
    StartOrder {
        claim: ClaimId(claim),
        build: BuildId(claim as u64),
        requests: vec![(RequestId(1), Epoch(1))],
        ping_timeout: Duration::from_secs(10),
        config: Arc::new(config(&["w1"])),
    }
}

fn told(effects: &[Effect]) -> Vec<bool> {
    effects
        .iter()
        .filter_map(|e| match e {
            Effect::TellStart { outcome, .. } => Some(outcome.is_ok()),
            _ => None,
        })
        .collect()
}

#[test]
pub fn s02_it_is_idle_once_its_worker_is_ready_and_building_with_what_it_brought_back() {
    let mut seat = Seat::attaching();
    assert_eq!(
        seat.hear(Event::Ready { building: None }),
        [Effect::TellAttached { building: None }]
    );
    assert_eq!(*seat.core.state(), State::Idle);
    assert!(seat.hear(Event::Ready { building: None }).is_empty(), "t06: told again");
    let mut seat = Seat::attaching();
    seat.hear(Event::Ready { building: Some(ClaimId(3)) });
    assert_eq!(*seat.core.state(), State::Building { claim: ClaimId(3) });
}

fn left(claim: u128, in_time: bool) -> Effect {
    Effect::TellLeft { claim: ClaimId(claim), request: RequestId(1), in_time }
}

#[test]
fn b07_a_request_leaves_a_start_that_was_not_sent_and_the_last_calls_it_back() {
    let mut seat = Seat::idle();
    let mut two = order(3);
    two.requests.push((RequestId(2), Epoch(4)));
    seat.hear(Event::Start(Box::new(two)));
    let leave = |request| Event::Leave { claim: ClaimId(3), request: RequestId(request) };
    assert_eq!(seat.hear(leave(1)), [left(3, true)]);
    assert_eq!(seat.core.report(), Some(SeatReportUse::Starting(ClaimId(3))));
    let effects = seat.hear(leave(2));
    assert!(matches!(effects[0], Effect::TellLeft { in_time: true, .. }));
    assert_eq!(told(&effects), [false]);
    assert_eq!(*seat.core.state(), State::Idle);
    // What answers the ping comes too late for a start.
    let effects = seat.hear(Event::PingEnded(true));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::SendStart(_))));
}

#[test]
fn b07_the_start_is_sent_without_a_request_that_left() {
    let mut seat = Seat::idle();
    let mut two = order(3);
    two.requests.push((RequestId(2), Epoch(4)));
    seat.hear(Event::Start(Box::new(two)));
    seat.hear(Event::Leave { claim: ClaimId(3), request: RequestId(1) });
    let effects = seat.hear(Event::PingEnded(true));
    assert!(matches!(
        &effects[0],
        Effect::SendStart(order) if order.requests == [(RequestId(2), Epoch(4))]
    ));
}

#[test]
fn b07_nothing_leaves_a_start_that_was_sent() {
    let mut seat = Seat::idle();
    seat.start(3);
    seat.hear(Event::PingEnded(true));
    let leave = || Event::Leave { claim: ClaimId(3), request: RequestId(1) };
    assert_eq!(seat.hear(leave()), [left(3, false)]);
    assert!(
        matches!(seat.core.state(), State::Starting { order, .. } if order.requests.len() == 1)
    );
    seat.hear(Event::Accepted(BuildId(3)));
    assert_eq!(seat.hear(leave()), [left(3, false)]);
    // One that is over was called back, or has failed.
    seat.hear(Event::BuildOver(ClaimId(3)));
    assert_eq!(seat.hear(leave()), [left(3, true)]);
}

#[test]
fn s03_a_commands_version_is_the_workers_none_or_the_old_one() {
    let caps = ["shell/2".to_owned(), "resume/1".to_owned()];
    let mut seat = Seat::attaching();
    seat.core = seat.core.knowing(CommandVersions::of(Some(&caps)));
    assert_eq!(seat.core.command_version("shell", Some("1")), Some("2"));
    assert_eq!(seat.core.command_version("git", Some("1")), None, "it lacks the command");
    seat.hear(Event::Ready { building: None });
    seat.hear(Event::Detach);
    assert_eq!(seat.core.command_version("shell", Some("1")), None, "detached");
    let mut seat = Seat::attaching();
    seat.core = seat.core.knowing(CommandVersions::of(None));
    assert_eq!(seat.core.command_version("shell", Some("1")), Some("1"), "it reported none");
    assert_eq!(seat.core.command_version("shell", None), None);
}

#[test]
fn s03_a_start_that_needs_a_command_that_the_worker_lacks_is_refused_at_once() {
    let mut seat = Seat::idle();
    seat.core = seat.core.knowing(CommandVersions::of(Some(&["git/1".to_owned()])));
    let effects = seat.start(1);
    let expected = StartFailure::Refused {
        code: "lacks".into(),
        message: "the worker does not have the command `shell`".into(),
    };
    assert_eq!(effects, [Effect::TellStart { claim: ClaimId(1), outcome: Err(expected) }]);
    assert_eq!(*seat.core.state(), State::Idle);
}

#[test]
fn fa07_an_attach_that_is_never_answered_fails_in_time() {
    let mut seat = Seat::attaching();
    assert_eq!(seat.core.next_deadline(), Some(seat.now + Duration::from_secs(30)));
    seat.now = seat.now + Duration::from_secs(30);
    let effects = seat.hear(Event::DeadlineReached);
    let fails =
        matches!(&effects[..], [Effect::DropConnection(_), Effect::TellAttachFailed { .. }]);
    assert!(fails, "and the worker shall come back: {effects:?}");
}

#[test]
fn fa06_an_attach_answer_after_the_detach_revives_nothing() {
    let mut seat = Seat::attaching();
    seat.hear(Event::Detach);
    assert_eq!(
        seat.hear(Event::Ready { building: None }),
        [Effect::Ignored("attach answer after the detach")]
    );
    assert_eq!(*seat.core.state(), State::Detached);
}

#[test]
pub fn b13_the_start_is_sent_only_after_the_ping_is_answered() {
    let mut seat = Seat::idle();
    assert!(matches!(seat.start(1)[..], [Effect::StartPing { .. }]));
    let effects = seat.hear(Event::PingEnded(true));
    assert!(matches!(effects[..], [Effect::SendStart(_)]));
    assert_eq!(told(&seat.hear(Event::Accepted(BuildId(1)))), [true]);
    assert_eq!(*seat.core.state(), State::Building { claim: ClaimId(1) });
    assert_eq!(seat.core.next_deadline(), None);
}

#[test]
fn fp06_two_starts_of_one_seat_send_one_ping() {
    let mut seat = Seat::idle();
    seat.start(1);
    let effects = seat.start(2);
    assert_eq!(told(&effects), [false]);
    assert!(!effects.iter().any(|e| matches!(e, Effect::StartPing { .. })));
}

#[test]
fn fp01_a_ping_that_is_not_answered_fails_the_start() {
    let mut seat = Seat::idle();
    seat.start(1);
    let effects = seat.hear(Event::PingEnded(false));
    assert_eq!(told(&effects), [false]);
    assert_eq!(*seat.core.state(), State::Idle);
}

#[test]
fn fa09_a_detach_during_the_ping_tells_every_waiter_once_and_stays_detached() {
    let mut seat = Seat::idle();
    seat.start(1);
    seat.hear(Event::Ping(ReplyId(1)));
    let effects = seat.hear(Event::Detach);
    assert_eq!(told(&effects), [false]);
    assert!(effects.contains(&Effect::TellPing { reply: ReplyId(1), ok: false }));
    // The drop is told before the failure (row B08).
    assert_eq!(effects[0], Effect::TellDetached);
    assert!(seat.hear(Event::Detach).is_empty(), "s07: a second one does nothing");
    seat.hear(Event::PingEnded(true));
    assert_eq!(*seat.core.state(), State::Detached);
}

#[test]
pub fn s04_a_persons_ping_joins_a_starts_and_all_are_answered_once() {
    let mut seat = Seat::idle();
    seat.start(1);
    let joined = seat.hear(Event::Ping(ReplyId(1)));
    assert!(matches!(joined[..], [Effect::TightenPing(_)]), "fp05: one frame on the wire");
    let effects = seat.hear(Event::PingEnded(true));
    let persons = effects.iter().filter(|e| matches!(e, Effect::TellPing { ok: true, .. })).count();
    assert_eq!(persons, 1);
    assert!(effects.iter().any(|e| matches!(e, Effect::SendStart(_))));
    let published = |e: &Effect| matches!(e, Effect::NoteBegins(_) | Effect::NoteEnds { .. });
    assert!(!joined.iter().chain(&effects).any(published), "s05: joiners publish nothing");
}

#[test]
pub fn s05_a_persons_ping_is_one_event_with_a_beginning_and_an_end() {
    for (ok, end) in [(true, "ping success"), (false, "ping failed")] {
        let mut seat = Seat::idle();
        assert_eq!(seat.hear(Event::Ping(ReplyId(1)))[0], Effect::NoteBegins("pinging"));
        let effects = seat.hear(Event::PingEnded(ok));
        let published = Effect::NoteEnds { begun: "pinging", text: end };
        assert_eq!(effects[..2], [published, Effect::TellPing { reply: ReplyId(1), ok }]);
        assert_eq!(effects[2], Effect::TellIdle, "s09");
    }
}

#[test]
fn s09_a_start_never_joins_a_persons_ping() {
    let mut seat = Seat::idle();
    seat.hear(Event::Ping(ReplyId(1)));
    assert_eq!(told(&seat.start(1)), [false]);
}

#[test]
fn fp07_a_ping_while_building_does_not_disturb_the_build() {
    let mut seat = Seat::attaching();
    seat.hear(Event::Ready { building: Some(ClaimId(3)) });
    seat.hear(Event::Ping(ReplyId(1)));
    assert_eq!(*seat.core.state(), State::Building { claim: ClaimId(3) });
    seat.hear(Event::PingEnded(true));
    assert_eq!(*seat.core.state(), State::Building { claim: ClaimId(3) });
    seat.hear(Event::Ping(ReplyId(2)));
    seat.hear(Event::BuildOver(ClaimId(3)));
    seat.hear(Event::PingEnded(true));
    assert_eq!(*seat.core.state(), State::Idle, "the build ended meanwhile");
}

#[test]
pub fn s06_the_end_of_somebody_elses_build_changes_nothing() {
    let mut seat = Seat::attaching();
    seat.hear(Event::Ready { building: Some(ClaimId(3)) });
    seat.hear(Event::BuildOver(ClaimId(9)));
    assert_eq!(*seat.core.state(), State::Building { claim: ClaimId(3) });
    seat.hear(Event::BuildOver(ClaimId(3)));
    assert_eq!(*seat.core.state(), State::Idle);
}

#[test]
fn fb07_a_refused_start_is_told_with_its_reason() {
    let mut seat = Seat::idle();
    seat.start(1);
    seat.hear(Event::PingEnded(true));
    let refused = Event::Refused { build: BuildId(1), code: "disk".into(), message: "full".into() };
    let effects = seat.hear(refused);
    let expected = StartFailure::Refused { code: "disk".into(), message: "full".into() };
    assert_eq!(effects, [Effect::TellStart { claim: ClaimId(1), outcome: Err(expected) }]);
}

#[test]
fn a_start_that_is_not_answered_drops_the_connection() {
    let mut seat = Seat::idle();
    seat.start(1);
    seat.hear(Event::PingEnded(true));
    seat.now = seat.core.next_deadline().unwrap();
    let effects = seat.hear(Event::DeadlineReached);
    assert!(matches!(effects[0], Effect::DropConnection(_)));
    assert_eq!(told(&effects), [false]);
}

#[test]
fn s07_a_detached_one_stays_so_whatever_comes_after() {
    let mut seat = Seat::attaching();
    seat.hear(Event::Ready { building: Some(ClaimId(3)) });
    assert_eq!(seat.hear(Event::Detach), [Effect::TellDetached]);
    let late = [
        Event::Detach,
        Event::BuildOver(ClaimId(3)),
        Event::PingEnded(true),
        Event::Accepted(BuildId(3)),
        Event::DeadlineReached,
    ];
    for event in late {
        seat.hear(event);
        assert_eq!(*seat.core.state(), State::Detached);
    }
    assert_eq!(seat.core.report(), None);
    assert_eq!(told(&seat.start(9)), [false]);
    assert_eq!(
        seat.hear(Event::Ping(ReplyId(1))),
        [Effect::TellPing { reply: ReplyId(1), ok: false }]
    );
}

#[test]
fn fp02_an_answer_after_the_timeout_starts_nothing() {
    let mut seat = Seat::idle();
    seat.start(1);
    // The exchange has dropped the connection and told so.
    assert_eq!(told(&seat.hear(Event::PingEnded(false))), [false]);
    seat.hear(Event::Detach);
    let late = seat.hear(Event::PingEnded(true));
    assert!(matches!(late[..], [Effect::Ignored(_)]), "{late:?}");
    assert_eq!(*seat.core.state(), State::Detached);
}

#[test]
fn fp05_one_frame_on_the_wire_the_earlier_deadline_and_one_answer_for_both() {
    let pings = |effects: &[Effect]| {
        effects.iter().filter(|effect| matches!(effect, Effect::StartPing { .. })).count()
    };
    // A person's ping while a start pings: it joins that one.
    let mut seat = Seat::idle();
    assert_eq!(pings(&seat.start(1)), 1);
    let joined = seat.hear(Event::Ping(ReplyId(7)));
    assert_eq!(pings(&joined), 0, "one frame on the wire");
    let in_ten = seat.now + Duration::from_secs(10);
    // The start waits for ten seconds, the person would for thirty.
    let tightened = |effect: &Effect| match effect {
        Effect::TightenPing(until) => *until >= in_ten,
        _ => true,
    };
    assert!(joined.iter().all(tightened), "never later: {joined:?}");
    let both = seat.hear(Event::PingEnded(true));
    assert!(both.iter().any(|effect| matches!(effect, Effect::SendStart(_))));
    assert!(both.contains(&Effect::TellPing { reply: ReplyId(7), ok: true }), "{both:?}");

    // The other way round a start never joins: it may be tried elsewhere.
    let mut seat = Seat::idle();
    assert_eq!(pings(&seat.hear(Event::Ping(ReplyId(8)))), 1);
    let refused = seat.start(2);
    assert_eq!((pings(&refused), told(&refused)), (0, vec![false]), "{refused:?}");
    let ended = seat.hear(Event::PingEnded(true));
    assert!(!ended.iter().any(|effect| matches!(effect, Effect::SendStart(_))));
    assert!(ended.contains(&Effect::TellPing { reply: ReplyId(8), ok: true }));
}

#[test]
fn fb03_a_worker_that_leaves_between_the_start_and_its_answer_leaves_it_in_doubt() {
    let mut seat = Seat::idle();
    seat.start(1);
    seat.hear(Event::PingEnded(true));
    let effects = seat.hear(Event::Detach);
    assert_eq!(effects, [Effect::TellDetached, Effect::TellInDoubt(ClaimId(1))]);
    // What comes of it is not this connection's business any more.
    assert!(matches!(seat.hear(Event::Accepted(BuildId(1)))[..], [Effect::Ignored(_)]));
}

#[test]
fn fb03_a_start_in_doubt_that_passes_for_a_failed_one_is_seen() {
    bites(
        "fb03_unknown_is_failed",
        fb03_a_worker_that_leaves_between_the_start_and_its_answer_leaves_it_in_doubt,
    );
}

#[test]
fn fp10_a_worker_that_leaves_before_the_start_is_sent_has_nothing_of_it() {
    let mut seat = Seat::idle();
    seat.start(1);
    let effects = seat.hear(Event::Detach);
    let outcome = Err(StartFailure::Left);
    assert!(effects.contains(&Effect::TellStart { claim: ClaimId(1), outcome }), "{effects:?}");
    assert!(!effects.contains(&Effect::TellInDoubt(ClaimId(1))));
}
