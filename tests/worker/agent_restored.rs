//! Stories of the agent: what an earlier program left, leases of single builds,
//! and logs that are asked for again. Time is virtual.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::*;
use botmaster::worker::agent::*;
use bytes::Bytes;

use crate::desk::*;

const SECOND: Duration = Duration::from_secs(1);
const BUILD: BuildId = BuildId(1);

fn record(lease_s: Option<u64>) -> BuildRecord {
    let requests = vec![(RequestId(1), Epoch(4))];
    BuildRecord {
        build: BUILD,
        epoch: Epoch(4),
        requests,
        builder: "a".into(),
        folder: "a".into(),
        lease_s,
    }
}

fn end(outcome: Outcome, log: Option<LogEnd>) -> Ended {
    Ended { outcome, note: String::new(), properties: BTreeMap::new(), wall_ms: 5, log }
}

/// A program that finds build 1 with this much of its command's log.
fn found(extent: (u64, u64), ended: Option<Ended>, lost: bool) -> Desk {
    let mut desk = Desk::new(1);
    let command = Some(RestoredCommand { id: "c-1-0".into(), extent, ended });
    let past = BTreeSet::new();
    desk.agent.restore(vec![Restored { record: record(None), command, past, lost }], [].into());
    desk
}

fn output(offset: u64, bytes: &'static [u8]) -> Event {
    let bytes = Bytes::from_static(bytes);
    Event::Output { build: BUILD, command: "c-1-0".into(), ch: 'o', offset, bytes, at: 0 }
}

fn replay(effects: &[Effect]) -> Option<(u64, u64)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Replay { from, allowed, .. } => Some((*from, *allowed)),
        _ => None,
    })
}

fn leases(effects: &[Effect]) -> Vec<(u64, Option<Timestamp>)> {
    let lease = |effect: &Effect| match effect {
        Effect::Lease { build, until } => Some((build.0, *until)),
        _ => None,
    };
    effects.iter().filter_map(lease).collect()
}

#[test]
fn fr04_a_found_command_goes_on_where_the_masters_log_ends() {
    let mut desk = found((0, 500), None, false);
    desk.dial();
    let effects = desk.attach();
    let items = desk.inventory(&effects);
    assert_eq!((items[0].state, items[0].log_end[STDIO]), (InventoryState::Running, 500));
    // The follower tells what comes while the master has not said where to go on.
    assert!(pieces(&desk.event(output(500, b"new"))).is_empty());
    let effects = desk.resume(1, ResumeAction::Continue, Some(490));
    assert_eq!(kinds(&effects), ["command_started"]);
    assert_eq!(replay(&effects), Some((490, 490 + WINDOW_BYTES)));
    // What the follower before this one still had to tell does not count.
    assert!(pieces(&desk.event(output(503, b"stale"))).is_empty());
    let effects = desk.event(output(490, b"0123456789new"));
    assert_eq!(pieces(&effects), [(490, b"0123456789new".to_vec())]);
    // An end whose output has not all been told yet waits for it.
    let log = LogEnd { end: 507, digest: "d".into() };
    let ended = end(Outcome::Exit(0), Some(log));
    let effects = desk.event(Event::Ended { build: BUILD, command: "c-1-0".into(), ended });
    assert!(kinds(&effects).is_empty(), "{effects:?}");
    let effects = desk.event(output(503, b"last"));
    assert_eq!(kinds(&effects), ["log", "command_finished"]);
    let frames = sent(&effects);
    let Some(WorkerFrame::CommandFinished { log_end, log_digest, .. }) = frames.last() else {
        panic!("{frames:?}")
    };
    assert_eq!((log_end[STDIO], log_digest[STDIO].as_str()), (507, "d"));
}

#[test]
fn fr10_a_found_result_is_told_when_the_master_has_the_whole_log() {
    let log = LogEnd { end: 500, digest: "d".into() };
    let mut desk = found((0, 500), Some(end(Outcome::Exit(3), Some(log))), false);
    desk.dial();
    let effects = desk.attach();
    assert_eq!(desk.inventory(&effects)[0].state, InventoryState::Finished);
    let effects = desk.resume(1, ResumeAction::Continue, Some(500));
    assert_eq!(replay(&effects), Some((500, 500 + WINDOW_BYTES)));
    assert_eq!(kinds(&effects), ["command_started", "command_finished"]);
    let effects = desk.frame(MasterFrame::BuildFinished { build: BUILD, result: "x".into() });
    assert_eq!(effects, [Effect::Sweep { build: BUILD }, Effect::Forget { build: BUILD }]);
}

#[test]
fn fl03_a_master_that_does_not_say_where_gets_all_that_is_there() {
    let mut desk = found((200, 500), None, false);
    desk.dial();
    desk.attach();
    let effects = desk.resume(1, ResumeAction::Continue, None);
    assert_eq!(replay(&effects), Some((200, 200 + WINDOW_BYTES)));
}

#[test]
fn fr05_a_found_build_without_processes_and_result_is_lost_and_abandoned() {
    let mut desk = found((0, 500), None, true);
    desk.dial();
    let effects = desk.attach();
    assert_eq!(desk.inventory(&effects)[0].state, InventoryState::Lost);
    let effects = desk.resume(1, ResumeAction::Abandon, None);
    assert!(kills(&effects).is_empty() && effects.contains(&Effect::Sweep { build: BUILD }));
    let effects = desk.event(Event::Swept { build: BUILD });
    assert_eq!(kinds(&effects), ["abandoned"]);
    assert!(effects.contains(&Effect::Forget { build: BUILD }));
}

#[test]
fn fb05_epochs_of_found_builds_and_of_earlier_ones_count() {
    let mut desk = Desk::new(2);
    let epochs = [(RequestId(9), Epoch(3))].into();
    let build = Restored { record: record(None), command: None, past: [].into(), lost: false };
    desk.agent.restore(vec![build], epochs);
    desk.dial();
    desk.attach();
    desk.builders(&["a"]);
    assert_eq!(refusal(&desk.start(9, 2, "a")), "stale");
    let frames = sent(&desk.frame(MasterFrame::StartBuild {
        build: BuildId(7),
        epoch: Epoch(3),
        requests: vec![(RequestId(1), Epoch(3))],
        builder: "a".into(),
        builddir: "a".into(),
        lease_s: None,
    }));
    assert_eq!(refusal(&frames), "stale");
}

#[test]
fn a_build_that_cannot_be_written_down_is_refused_and_forgotten() {
    let mut agent_effects = Vec::new();
    let mut desk = Desk::attached(1);
    desk.agent.handle(
        desk.now,
        Event::Frame {
            link: desk.link,
            frame: MasterFrame::StartBuild {
                build: BUILD,
                epoch: Epoch(1),
                requests: vec![(RequestId(1), Epoch(1))],
                builder: "a".into(),
                builddir: "a".into(),
                lease_s: None,
            },
        },
        &mut agent_effects,
    );
    assert!(kinds(&agent_effects).is_empty(), "nothing is said before it is written");
    let trouble = Trouble { code: "disk", message: "full".into() };
    let effects = desk.event(Event::Taken { build: BUILD, result: Err(trouble) });
    assert_eq!(refusal(&sent(&effects)), "disk");
    assert!(effects.contains(&Effect::Forget { build: BUILD }));
    assert_eq!(desk.agent.builds().count(), 0);
}

/// Builds 1 (usual lease), 2 (30 s of its own) and 3 (without end), each running.
fn three_leases() -> Desk {
    let mut desk = Desk::attached(3);
    for (build, lease_s) in [(1, None), (2, Some(30)), (3, Some(0))] {
        desk.frame(MasterFrame::StartBuild {
            build: BuildId(build),
            epoch: Epoch(1),
            requests: vec![(RequestId(build), Epoch(1))],
            builder: "a".into(),
            builddir: "a".into(),
            lease_s,
        });
        desk.command(build, 1, &format!("c-{build}-0"));
    }
    desk
}

#[test]
fn fr13_each_build_ends_with_its_own_lease() {
    let mut desk = three_leases();
    let effects = desk.pass(Duration::from_secs(HEARTBEAT_S + 1), true);
    // Every confirmed heartbeat renews all of them, also with their keepers.
    let sent_at = desk.now - SECOND;
    let expected =
        [(1, Some(sent_at + SECOND * LEASE_S)), (2, Some(sent_at + SECOND * 30)), (3, None)];
    assert_eq!(leases(&effects), expected);
    desk.cut();
    let ended = |effects: &[Effect]| kills(effects).iter().map(|kill| kill.0).collect::<Vec<u64>>();
    assert_eq!(ended(&desk.pass(28 * SECOND, false)), [0; 0]);
    assert_eq!(ended(&desk.pass(2 * SECOND, false)), [2]);
    assert_eq!(ended(&desk.pass(58 * SECOND, false)), [0; 0]);
    assert_eq!(ended(&desk.pass(2 * SECOND, false)), [1]);
    assert_eq!(ended(&desk.pass(100_000 * SECOND, false)), [0; 0]);
}

#[test]
fn fr15_ft03_after_hours_of_sleep_builds_are_ended_before_anything_is_said() {
    let mut desk = three_leases();
    desk.now = desk.now + 3 * 3600 * SECOND;
    let effects = desk.frame(MasterFrame::Ping { id: PingToken(1) });
    let place = |is: &dyn Fn(&Effect) -> bool| effects.iter().position(is);
    let last_kill = effects.iter().rposition(|one| matches!(one, Effect::Kill { .. })).unwrap();
    let first_word = place(&|one| matches!(one, Effect::Send { .. })).unwrap();
    assert!(last_kill < first_word, "{effects:?}");
    assert_eq!(kills(&effects).iter().map(|kill| kill.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_longer_lease_counts_from_the_last_confirmed_heartbeat_until_the_next_attach() {
    let mut desk = three_leases();
    let attached_at = desk.now;
    let effects = desk.frame(MasterFrame::Lease { lease_s: 3600 });
    let until = Some(attached_at + 3600 * SECOND);
    assert_eq!(leases(&effects), [(1, until), (2, until), (3, None)]);
    // A shorter one takes nothing back.
    let effects = desk.frame(MasterFrame::Lease { lease_s: 60 });
    assert_eq!(leases(&effects), [(1, until), (2, until), (3, None)]);
    desk.cut();
    assert!(kills(&desk.pass(3599 * SECOND, false)).is_empty());
    // The present attempt at a connection was asked for by the clock.
    let mut desk = three_leases();
    desk.frame(MasterFrame::Lease { lease_s: 3600 });
    desk.cut();
    desk.dial();
    let sent_at = desk.now;
    let effects = desk.attach();
    let usual = Some(sent_at + SECOND * LEASE_S);
    assert_eq!(leases(&effects), [(1, usual), (2, Some(sent_at + 30 * SECOND)), (3, None)]);
}

#[test]
fn fl04_a_log_is_told_again_once_and_only_when_all_of_it_is_there() {
    let again = |desk: &mut Desk| {
        let (command, log) = ("c-1-0".into(), STDIO.into());
        desk.frame(MasterFrame::LogAgain { build: BUILD, command, log })
    };
    let mut desk = Desk::building(1);
    desk.output(1, "c-1-0", b"hello");
    assert_eq!(kinds(&again(&mut desk)), ["error"], "it has not ended");
    desk.ended(1, "c-1-0", Outcome::Exit(0));
    desk.confirm(1, "c-1-0", 5);
    let effects = again(&mut desk);
    assert_eq!(replay(&effects), Some((0, WINDOW_BYTES)));
    assert!(kinds(&effects).is_empty());
    assert_eq!(kinds(&desk.event(output(0, b"hello"))), ["log", "command_finished"]);
    assert_eq!(kinds(&again(&mut desk)), ["error"], "once");

    // Of a log that is longer than is kept, the confirmed part goes.
    let mut desk = Desk::building(1);
    let piece = vec![b'x'; LOG_BATCH];
    let mut trimmed = 0;
    for number in 1..=KEPT_WHOLE / LOG_BATCH as u64 + 100 {
        let effects = desk.output(1, "c-1-0", &piece);
        desk.written(pieces(&effects).len());
        for effect in desk.confirm(1, "c-1-0", number * LOG_BATCH as u64) {
            if let Effect::Trim { confirmed, .. } = effect {
                assert_eq!(confirmed, number * LOG_BATCH as u64);
                assert!(confirmed > KEPT_WHOLE);
                trimmed += 1;
            }
        }
    }
    assert_eq!(trimmed, 2, "4 MiB at a time");
    desk.ended(1, "c-1-0", Outcome::Exit(0));
    assert_eq!(kinds(&again(&mut desk)), ["error"]);
}
