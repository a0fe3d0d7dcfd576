//! Stories of the agent: log bytes, their window, and resumption.

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use botmaster::worker::agent::*;

use crate::desk::*;

#[test]
fn output_becomes_log_frames_with_offsets_and_the_end_comes_after_them() {
    let mut desk = Desk::building(1);
    assert_eq!(pieces(&desk.output(1, "c-1-0", b"one\n")), [(0, b"one\n".to_vec())]);
    assert_eq!(pieces(&desk.output(1, "c-1-0", b"two\n")), [(4, b"two\n".to_vec())]);
    let effects = desk.ended(1, "c-1-0", Outcome::Exit(0));
    let [Effect::Send { lane: Lane::Log, frame, .. }] = &effects[..] else { panic!("{effects:?}") };
    let WorkerFrame::CommandFinished { log_end, .. } = frame else { panic!("{frame:?}") };
    assert_eq!(log_end.get(STDIO), Some(&8));
}

#[test]
fn fl05_bytes_that_are_no_text_travel_exactly() {
    let mut desk = Desk::building(1);
    let raw = b"\xff\xfe\x00\x80 ok \xc3";
    let effects = desk.output(1, "c-1-0", raw);
    let [WorkerFrame::Log(log)] = &sent(&effects)[..] else { panic!() };
    assert!(log.text.is_none());
    assert_eq!(bytes_of(log), raw);
}

#[test]
fn a_master_that_is_able_to_gets_the_bytes_as_they_are() {
    let mut desk = Desk::new(1);
    desk.dial();
    desk.attach_to(&["resume/1", LOG_RAW]);
    desk.builders(&["a"]);
    desk.start(1, 1, "a");
    desk.command(1, 1, "c-1-0");
    for (offset, bytes) in [(0, &b"text\n"[..]), (5, b"\xff\x00")] {
        let effects = desk.output(1, "c-1-0", bytes);
        let [WorkerFrame::Log(log)] = &sent(&effects)[..] else { panic!() };
        assert_eq!(
            (log.offset, log.raw, &log.text, &log.b64),
            (offset, Some(bytes.len()), &None, &None)
        );
        assert_eq!(bytes_of(log), bytes);
    }
    // Another master, another form.
    desk.come_back();
    let effects = desk.resume(1, ResumeAction::Continue, Some(0));
    assert_eq!(pieces(&effects), [(0, b"text\n".to_vec()), (5, b"\xff\x00".to_vec())]);
    assert!(
        sent(&effects)
            .iter()
            .all(|frame| !matches!(frame, WorkerFrame::Log(log) if log.raw.is_some()))
    );
}

#[test]
fn fl06_no_more_is_allowed_than_the_window_and_confirmations_open_it() {
    let mut desk = Desk::attached(1);
    desk.start(1, 1, "a");
    let run = desk.command(1, 1, "c-1-0");
    let [Effect::Run { allowed, .. }] = run[..] else { panic!("{run:?}") };
    assert_eq!(allowed, WINDOW_BYTES);
    let piece = vec![b'x'; LOG_BATCH];
    for _ in 0..4 {
        desk.output(1, "c-1-0", &piece);
    }
    assert_eq!(desk.agent.unconfirmed(), WINDOW_BYTES);
    let effects = desk.confirm(1, "c-1-0", 100_000);
    let up_to = 100_000 + WINDOW_BYTES;
    let allow = Effect::Allow { build: BuildId(1), command: "c-1-0".into(), up_to };
    assert!(effects.contains(&allow), "{effects:?}");
    assert_eq!(desk.agent.unconfirmed(), WINDOW_BYTES - 100_000);
}

#[test]
fn very_many_small_pieces_stop_the_reading_too() {
    let mut desk = Desk::building(1);
    let mut stopped = None;
    for count in 1..10_000u64 {
        let effects = desk.output(1, "c-1-0", b"x");
        let allow = effects.iter().find_map(|effect| match effect {
            Effect::Allow { up_to, .. } => Some(*up_to),
            _ => None,
        });
        if let Some(up_to) = allow {
            assert_eq!(up_to, count, "no further than there is");
            stopped = Some(count);
            break;
        }
    }
    assert_eq!(stopped, Some(4096));
    let effects = desk.confirm(1, "c-1-0", 4096);
    let up_to = 4096 + WINDOW_BYTES;
    let allow = Effect::Allow { build: BuildId(1), command: "c-1-0".into(), up_to };
    assert!(effects.contains(&allow));
}

#[test]
fn the_writer_is_given_a_few_log_frames_and_more_as_they_are_written() {
    let mut desk = Desk::building(1);
    let mut given = 0;
    for _ in 0..40 {
        given += pieces(&desk.output(1, "c-1-0", b"0123456789")).len();
    }
    assert_eq!(given, 16);
    let effects = desk.written(24);
    let got = pieces(&effects);
    assert_eq!(got.len(), 24);
    assert_eq!(got.last().map(|(offset, _)| *offset), Some(390));
}

#[test]
fn builds_take_turns_in_the_log_lane() {
    let mut desk = Desk::building(2);
    desk.start(2, 1, "b");
    desk.command(2, 1, "c-2-0");
    for _ in 0..30 {
        desk.output(1, "c-1-0", b"x");
    }
    for _ in 0..10 {
        desk.output(2, "c-2-0", b"y");
    }
    let order: Vec<u64> = sent(&desk.written(10))
        .into_iter()
        .map(|frame| match frame {
            WorkerFrame::Log(log) => log.build.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order.iter().filter(|&&build| build == 2).count(), 5, "{order:?}");
}

#[test]
fn fr01_resume_sends_from_where_the_master_is_and_nothing_twice() {
    let mut desk = Desk::building(1);
    desk.output(1, "c-1-0", b"0123456789");
    desk.confirm(1, "c-1-0", 3);
    desk.output(1, "c-1-0", b"abcdef");
    desk.cut();
    assert!(desk.output(1, "c-1-0", b"while away").is_empty());
    desk.dial();
    let effects = desk.attach();
    let items = desk.inventory(&effects);
    assert_eq!(items[0].log_end.get(STDIO), Some(&26));
    assert!(pieces(&effects).is_empty(), "nothing before the resume");
    let effects = desk.resume(1, ResumeAction::Continue, Some(5));
    let bytes: Vec<u8> = pieces(&effects).into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(pieces(&effects)[0].0, 5);
    assert_eq!(bytes, b"56789abcdefwhile away");
}

#[test]
fn fl01_a_repeated_confirmation_makes_it_go_back_once() {
    let mut desk = Desk::building(1);
    desk.output(1, "c-1-0", b"0123456789");
    assert!(pieces(&desk.confirm(1, "c-1-0", 4)).is_empty(), "on its way is not missing");
    assert_eq!(pieces(&desk.confirm(1, "c-1-0", 4)), [(4, b"456789".to_vec())]);
    assert!(pieces(&desk.confirm(1, "c-1-0", 4)).is_empty(), "no circle");
    assert!(kinds(&desk.confirm(1, "c-1-0", 10)).is_empty());
    assert_eq!(desk.agent.unconfirmed(), 0);
}

#[test]
fn fl02_confirmations_out_of_order_or_out_of_range_are_answered_and_change_nothing() {
    let mut desk = Desk::building(1);
    desk.output(1, "c-1-0", b"0123456789");
    desk.confirm(1, "c-1-0", 8);
    assert_eq!(kinds(&desk.confirm(1, "c-1-0", 5)), ["error"]);
    assert_eq!(kinds(&desk.confirm(1, "c-1-0", 11)), ["error"]);
    assert_eq!(desk.agent.unconfirmed(), 2);
    assert!(desk.confirm(1, "c-0-9", 3).is_empty(), "of a command before: ignored");
    assert!(desk.confirm(9, "c-9-0", 3).is_empty(), "of a build that is gone: ignored");
    let frame = MasterFrame::LogConfirm {
        build: BuildId(1),
        command: "c-1-0".into(),
        log: "other".into(),
        have: 1,
    };
    assert_eq!(kinds(&desk.frame(frame)), ["error"]);
}

#[test]
fn fr10_end_and_rest_of_the_log_wait_for_the_return() {
    let mut desk = Desk::building(1);
    desk.output(1, "c-1-0", b"before ");
    desk.confirm(1, "c-1-0", 7);
    desk.cut();
    desk.output(1, "c-1-0", b"after");
    desk.ended(1, "c-1-0", Outcome::Exit(0));
    desk.dial();
    desk.attach();
    let effects = desk.resume(1, ResumeAction::Continue, Some(7));
    assert_eq!(kinds(&effects), ["log", "command_finished"]);
    assert_eq!(pieces(&effects), [(7, b"after".to_vec())]);
}

#[test]
fn a_resume_beyond_either_end_of_what_is_kept_is_answered_with_an_error() {
    let mut desk = Desk::building(1);
    desk.output(1, "c-1-0", b"0123456789");
    desk.confirm(1, "c-1-0", 4);
    desk.come_back();
    let effects = desk.resume(1, ResumeAction::Continue, Some(2));
    assert_eq!(kinds(&effects), ["error", "log"]);
    assert_eq!(pieces(&effects), [(4, b"456789".to_vec())]);
    desk.come_back();
    let effects = desk.resume(1, ResumeAction::Continue, Some(50));
    assert_eq!(kinds(&effects), ["error", "log"]);
}

#[test]
fn fr10_a_master_that_has_gone_on_to_the_next_command_hears_no_complaint() {
    let mut desk = Desk::building(1);
    desk.output(1, "c-1-0", b"0123456789");
    desk.ended(1, "c-1-0", Outcome::Exit(0));
    desk.confirm(1, "c-1-0", 10);
    desk.come_back();
    // Its own log is the next command's, which never reached the worker.
    assert_eq!(kinds(&desk.resume(1, ResumeAction::Continue, Some(0))), ["command_finished"]);
    let effects = desk.command(1, 1, "c-1-1");
    assert!(matches!(effects[..], [Effect::Run { .. }]), "{effects:?}");
}

#[test]
fn a_command_given_again_without_a_resume_goes_on_behind_the_last_confirmed_byte() {
    let mut desk = Desk::building(1);
    desk.output(1, "c-1-0", b"0123456789");
    desk.confirm(1, "c-1-0", 6);
    desk.come_back();
    let effects = desk.command(1, 1, "c-1-0");
    assert_eq!(kinds(&effects), ["command_started", "log"]);
    assert_eq!(pieces(&effects), [(6, b"6789".to_vec())]);
}

/// Any order of output, confirmations and cuts that lose what is on its way
/// gives the master each byte once and in order.
#[test]
fn i09_logs_are_exact_over_random_cuts() {
    use botmaster::core::rng::Rng;
    use std::collections::VecDeque;

    for seed in 0..300 {
        let mut rng = Rng::seeded(seed);
        let mut desk = Desk::building(1);
        let (mut written, mut stored) = (Vec::new(), Vec::new());
        let mut on_its_way: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        for _ in 0..100 {
            let have = stored.len() as u64;
            let effects = match rng.index(8) {
                0..3 => {
                    let bytes: Vec<u8> =
                        (0..=rng.index(40)).map(|_| rng.index(256) as u8).collect();
                    written.extend_from_slice(&bytes);
                    desk.output(1, "c-1-0", &bytes)
                }
                3 => desk.confirm(1, "c-1-0", have),
                4..7 => {
                    let count = rng.index(on_its_way.len() + 1);
                    for (offset, bytes) in on_its_way.drain(..count) {
                        store(&mut stored, offset, &bytes);
                    }
                    desk.written(count)
                }
                _ => {
                    on_its_way.clear();
                    desk.come_back();
                    desk.resume(1, ResumeAction::Continue, Some(have))
                }
            };
            on_its_way.extend(pieces(&effects));
        }
        on_its_way.clear();
        desk.come_back();
        let mut got = pieces(&desk.resume(1, ResumeAction::Continue, Some(stored.len() as u64)));
        while !got.is_empty() {
            got.iter().for_each(|(offset, bytes)| store(&mut stored, *offset, bytes));
            got = pieces(&desk.written(got.len()));
        }
        assert_eq!(stored, written, "seed {seed}");
    }
}

/// The master's rule: a piece goes on where the log ends, or overlaps it.
fn store(stored: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let known = stored.len().checked_sub(usize::try_from(offset).unwrap()).expect("no gap");
    stored.extend(bytes.iter().skip(known));
}
