//! What people ask of a builder.

use botmaster::core::builder::{Effect, Event, ReplyId};
use botmaster::core::ids::*;

use crate::kit::*;

#[test]
fn c03_ping_without_a_worker_is_false_and_noted() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.hear(Event::Attach { worker: "w1".into(), session: SessionId(1) });
    let effects = desk.hear(Event::Ping { reply: ReplyId(1) });
    assert_eq!(notes(&effects), ["ping no worker"], "an attaching worker is not pinged");
    assert_eq!(answers(&effects), [(ReplyId(1), false)]);
}

#[test]
pub fn c03_ping_asks_all_workers_and_is_true_only_if_each_answers() {
    for (second, all) in [(true, true), (false, false)] {
        let mut desk = Desk::new(config(&["w1", "w2"]));
        desk.attach("w1", 1);
        desk.attach("w2", 2);
        let effects = desk.hear(Event::Ping { reply: ReplyId(1) });
        let pinged = effects.iter().filter(|e| matches!(e, Effect::PingSeat { .. })).count();
        assert_eq!(pinged, 2);
        assert!(answers(&desk.hear(Event::PingDone { worker: "w1".into(), ok: true })).is_empty());
        let effects = desk.hear(Event::PingDone { worker: "w2".into(), ok: second });
        assert_eq!(answers(&effects), [(ReplyId(1), all)]);
    }
}

#[test]
pub fn c01_busy_workers_and_those_within_their_grace_count_and_attaching_ones_do_not() {
    let mut desk = Desk::new(config(&["w1", "w2"]));
    let usable = |desk: &Desk| desk.core.view().has_usable_worker();
    assert!(!usable(&desk));
    desk.hear(Event::Attach { worker: "w1".into(), session: SessionId(1) });
    assert!(!usable(&desk), "attaching");
    desk.attach("w2", 2);
    assert!(usable(&desk));
    let (_, claim) = asked(&desk.submit(&[1]))[0];
    desk.start(claim, &[1], 1);
    desk.hear(Event::Detach { worker: "w1".into(), session: SessionId(1) });
    assert!(usable(&desk), "busy");
    desk.hear(Event::Orphaned { claim, away: Some(away()) });
    desk.hear(Event::Detach { worker: "w2".into(), session: SessionId(2) });
    assert!(usable(&desk), "within its grace");
    desk.finish(claim);
    assert!(!usable(&desk));
}

#[test]
pub fn s09_no_start_joins_a_persons_ping() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    desk.hear(Event::Ping { reply: ReplyId(1) });
    assert!(asked(&desk.submit(&[1])).is_empty());
    let effects = desk.hear(Event::PingDone { worker: "w1".into(), ok: true });
    assert_eq!(asked(&effects).len(), 1, "its end lets the request start");
}

#[test]
fn fm09_a_draining_builder_starts_nothing_more() {
    let mut desk = Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    desk.hear(Event::Drain);
    assert!(asked(&desk.submit(&[1])).is_empty());
    assert_eq!(desk.pending(), [1]);
}

#[test]
fn a_waiting_request_gets_another_priority() {
    let mut desk = Desk::new(config(&[]));
    desk.submit(&[1, 2]);
    let effects =
        desk.hear(Event::SetPriority { request: RequestId(2), priority: 9, reply: ReplyId(1) });
    assert_eq!(desk.pending(), [2, 1]);
    assert!(answers(&effects).is_empty(), "i12: it is told when it is durable");
    assert!(effects.contains(&Effect::SavePriority {
        request: RequestId(2),
        priority: 9,
        reply: ReplyId(1)
    }));
    let effects =
        desk.hear(Event::SetPriority { request: RequestId(8), priority: 9, reply: ReplyId(2) });
    assert_eq!(answers(&effects), [(ReplyId(2), false)]);
}
