//! Stories of the agent: connection, lease, builds, commands.

use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::*;
use botmaster::worker::agent::*;

use crate::desk::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn attach_carries_name_token_and_slots_and_inventory_follows() {
    let mut desk = Desk::new(3);
    let effects = desk.dial();
    let [WorkerFrame::Attach(attach)] = &sent(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!((attach.name.as_str(), attach.token.as_str(), attach.slots), ("w1", "secret", 3));
    assert_eq!(attach.proto, [1]);
    let effects = desk.attach();
    assert!(desk.inventory(&effects).is_empty());
    assert!(desk.agent.is_attached());
}

#[test]
fn first_attempt_is_at_once_and_later_ones_wait_longer_up_to_a_minute() {
    let mut desk = Desk::new(1);
    assert_eq!(desk.agent.next_deadline(), Some(Timestamp(0)));
    let mut waits = Vec::new();
    for _ in 0..12 {
        let effects = desk.event(Event::Tick);
        let [Effect::Connect { link }] = effects[..] else { panic!("{effects:?}") };
        desk.event(Event::Closed { link, reason: "refused".into() });
        let due = desk.agent.next_deadline().unwrap();
        waits.push(due.since(desk.now));
        desk.now = due;
    }
    assert!(waits[0] >= SECOND && waits[0] <= 2 * SECOND, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait >= SECOND && *wait <= 60 * SECOND), "{waits:?}");
    assert!(waits[8..].iter().all(|wait| *wait >= 30 * SECOND), "{waits:?}");
}

#[test]
fn a_good_connection_is_followed_by_an_attempt_at_once() {
    let mut desk = Desk::attached(1);
    desk.pass(60 * SECOND, true);
    let link = desk.link + 1;
    assert_eq!(desk.cut(), [Effect::Connect { link }]);
}

/// The pauses of so many attempts in a row that nobody takes.
fn pauses(desk: &mut Desk, attempts: usize) -> Vec<Duration> {
    let mut pauses = Vec::new();
    for _ in 0..attempts {
        let due = desk.agent.next_deadline().unwrap();
        pauses.push(due.since(desk.now));
        desk.now = desk.now.max(due);
        let effects = desk.event(Event::Tick);
        let [Effect::Connect { link }] = effects[..] else { panic!("{effects:?}") };
        desk.event(Event::Closed { link, reason: "refused".into() });
    }
    pauses
}

#[test]
fn fa11_fm03_a_worker_with_a_build_dials_nine_times_in_its_lease() {
    let mut desk = Desk::building(1);
    desk.cut();
    let waits = pauses(&mut desk, 8);
    assert!(waits[4..].iter().all(|wait| *wait >= 5 * SECOND), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 10 * SECOND), "{waits:?}");
    // A build with a shorter lease of its own.
    let mut desk = Desk::attached(2);
    desk.start(1, 1, "a");
    desk.frame(MasterFrame::StartBuild {
        build: BuildId(2),
        epoch: Epoch(1),
        requests: vec![(RequestId(2), Epoch(1))],
        builder: "b".into(),
        builddir: "b".into(),
        lease_s: Some(27),
    });
    desk.cut();
    let waits = pauses(&mut desk, 6);
    assert!(waits.iter().all(|wait| *wait <= 3 * SECOND), "{waits:?}");
    // Once nothing can be saved, it takes its time again.
    desk.now = desk.now + 90 * SECOND;
    for effect in desk.event(Event::Tick) {
        if let Effect::Connect { link } = effect {
            desk.event(Event::Closed { link, reason: "refused".into() });
        }
    }
    let waits = pauses(&mut desk, 12);
    assert!(waits[0] <= 8 * SECOND, "many short pauses make no long one: {waits:?}");
    assert!(waits[8..].iter().all(|wait| *wait >= 30 * SECOND), "{waits:?}");
}

#[test]
fn fa11_the_pauses_grow_anew_after_a_confirmed_heartbeat_and_not_before() {
    let mut desk = Desk::new(1);
    desk.dial();
    let link = desk.link;
    desk.event(Event::Closed { link, reason: "refused".into() });
    pauses(&mut desk, 8);
    for confirmed in [false, true] {
        desk.dial();
        desk.attach();
        desk.pass(12 * SECOND, confirmed);
        desk.cut();
        let wait = pauses(&mut desk, 8)[0];
        assert_eq!(wait <= 2 * SECOND, confirmed, "{wait:?}");
    }
}

#[test]
fn rejected_waits_as_long_as_told_or_ends_the_program() {
    let mut desk = Desk::new(1);
    desk.dial();
    let rejected = |retry_after_s| MasterFrame::Rejected {
        code: "busy".into(),
        message: "later".into(),
        retry_after_s,
    };
    desk.frame(rejected(Some(30)));
    assert_eq!(desk.agent.next_deadline(), Some(desk.now + 30 * SECOND));
    desk.dial();
    let effects = desk.frame(rejected(None));
    let cause = ExitCause::Rejected { code: "busy".into(), message: "later".into() };
    assert!(effects.contains(&Effect::Exit { cause }));
    assert_eq!(desk.agent.next_deadline(), None);
}

#[test]
fn a_frame_before_attached_closes_the_connection() {
    let mut desk = Desk::new(1);
    desk.dial();
    let link = desk.link;
    let effects = desk.frame(MasterFrame::Ping { id: PingToken(1) });
    assert_eq!(effects, [Effect::Close { link }]);
}

#[test]
fn ping_is_answered_in_the_control_lane() {
    let mut desk = Desk::attached(1);
    let effects = desk.frame(MasterFrame::Ping { id: PingToken(7) });
    let frame = WorkerFrame::Pong { id: PingToken(7) };
    assert_eq!(effects, [Effect::Send { link: desk.link, lane: Lane::Control, frame }]);
}

#[test]
fn frames_of_an_old_connection_are_ignored() {
    let mut desk = Desk::attached(1);
    let old = desk.link;
    desk.cut();
    desk.dial();
    let frame = MasterFrame::Ping { id: PingToken(7) };
    assert!(desk.event(Event::Frame { link: old, frame }).is_empty());
    assert!(desk.event(Event::Closed { link: old, reason: "late".into() }).is_empty());
    let effects = desk.attach();
    assert_eq!(kinds(&effects), ["inventory"]);
}

#[test]
fn fr07_silence_of_three_heartbeats_drops_the_connection() {
    let mut desk = Desk::attached(1);
    let (link, begun) = (desk.link, desk.now);
    let effects = desk.pass(29 * SECOND, false);
    assert_eq!(kinds(&effects), ["heartbeat", "heartbeat"]);
    assert!(desk.agent.is_attached());
    let effects = desk.pass(SECOND, false);
    assert!(effects.contains(&Effect::Close { link }), "{effects:?}");
    assert_eq!(desk.now.since(begun), 30 * SECOND);
    assert!(!desk.agent.is_attached());
}

#[test]
fn unknown_frame_type_is_answered_and_the_connection_stays() {
    let mut desk = Desk::attached(1);
    let link = desk.link;
    let unreadable = |fatal| Event::Unreadable {
        link,
        code: if fatal { "malformed" } else { "unknown_type" },
        message: "hm".into(),
        fatal,
    };
    let effects = desk.event(unreadable(false));
    assert_eq!(kinds(&effects), ["error"]);
    assert!(desk.agent.is_attached());
    let effects = desk.event(unreadable(true));
    assert_eq!(kinds(&effects), ["error"]);
    assert!(effects.contains(&Effect::Close { link }));
}

#[test]
fn a_builder_whose_folder_fails_is_said_to_have_failed() {
    let mut desk = Desk::new(1);
    desk.dial();
    desk.attach();
    let entry = |name: &str, dir: &str| BuilderEntry { builder: name.into(), builddir: dir.into() };
    let list = vec![entry("a", "a"), entry("up", "../up"), entry("abs", "/abs")];
    let effects = desk.frame(MasterFrame::Builders { list });
    assert_eq!(kinds(&effects), ["builder_failed", "builder_failed"]);
    let trouble = Trouble { code: "disk", message: "full".into() };
    let effects = desk.event(Event::FolderMade { builder: "a".into(), result: Err(trouble) });
    let [WorkerFrame::BuilderFailed { code, .. }] = &sent(&effects)[..] else { panic!() };
    assert_eq!(code, "disk");
    assert_eq!(refusal(&desk.start(1, 1, "a")), "unknown_builder");
}

#[test]
fn fb04_start_delivered_twice_starts_once() {
    let mut desk = Desk::attached(1);
    let accepted = [WorkerFrame::BuildAccepted { build: BuildId(1), epoch: Epoch(4) }];
    assert_eq!(desk.start(1, 4, "a"), accepted);
    assert_eq!(desk.start(1, 4, "a"), accepted);
    let first = desk.command(1, 4, "c-1-0");
    assert!(matches!(first[..], [Effect::Run { .. }]), "{first:?}");
    desk.event(Event::Started { build: BuildId(1), command: "c-1-0".into() });
    let again = desk.command(1, 4, "c-1-0");
    assert_eq!(kinds(&again), ["command_started"]);
    assert!(!again.iter().any(|effect| matches!(effect, Effect::Run { .. })));
    desk.ended(1, "c-1-0", Outcome::Exit(0));
    let again = desk.command(1, 4, "c-1-0");
    assert_eq!(kinds(&again), ["command_started", "command_finished"]);
}

#[test]
fn fb05_start_with_an_older_epoch_is_refused_as_stale() {
    let mut desk = Desk::attached(2);
    desk.start(1, 4, "a");
    assert_eq!(refusal(&desk.start(1, 3, "a")), "stale");
    // Another build of the same request, claimed before.
    let older = MasterFrame::StartBuild {
        build: BuildId(9),
        epoch: Epoch(3),
        requests: vec![(RequestId(1), Epoch(3))],
        builder: "a".into(),
        builddir: "a".into(),
        lease_s: None,
    };
    let effects = desk.frame(older.clone());
    assert_eq!(refusal(&sent(&effects)), "stale");
    desk.frame(MasterFrame::BuildFinished { build: BuildId(1), result: "success".into() });
    let effects = desk.frame(older);
    assert_eq!(refusal(&sent(&effects)), "stale", "also once the newer one has ended");
}

#[test]
fn fb06_start_above_the_slots_is_refused_as_busy() {
    let mut desk = Desk::attached(1);
    desk.start(1, 1, "a");
    assert_eq!(refusal(&desk.start(2, 1, "b")), "busy");
    desk.frame(MasterFrame::BuildFinished { build: BuildId(1), result: "success".into() });
    assert_eq!(kinds_of(&desk.start(2, 1, "b")), ["build_accepted"]);
}

fn kinds_of(frames: &[WorkerFrame]) -> Vec<&'static str> {
    frames.iter().map(WorkerFrame::kind).collect()
}

#[test]
fn builds_side_by_side_get_the_lowest_free_folder() {
    let mut desk = Desk::new(4);
    desk.dial();
    desk.attach();
    desk.builders(&["a", "a-2"]);
    let folder = |effects: Vec<Effect>| match &effects[..] {
        [Effect::Run { folder, .. }] => folder.clone(),
        other => panic!("{other:?}"),
    };
    for build in 1..=3 {
        desk.start(build, 1, "a");
    }
    assert_eq!(folder(desk.command(1, 1, "c")), "a");
    assert_eq!(folder(desk.command(2, 1, "c")), "a-3", "a-2 is another builder's");
    assert_eq!(folder(desk.command(3, 1, "c")), "a-4");
    for build in [1, 2] {
        desk.ended(build, "c", Outcome::Exit(0));
        let build = BuildId(build);
        desk.frame(MasterFrame::BuildFinished { build, result: "success".into() });
    }
    desk.start(4, 1, "a");
    assert_eq!(folder(desk.command(4, 1, "c")), "a");
}

#[test]
fn commands_are_one_at_a_time_and_never_run_again() {
    let mut desk = Desk::building(1);
    assert_eq!(refusal(&sent(&desk.command(1, 1, "c-1-1"))), "busy");
    assert_eq!(refusal(&sent(&desk.command(5, 1, "c-5-0"))), "unknown_build");
    assert_eq!(refusal(&sent(&desk.command(1, 2, "c-1-1"))), "unknown_build");
    desk.ended(1, "c-1-0", Outcome::Exit(0));
    let next = desk.command(1, 1, "c-1-1");
    assert!(matches!(next[..], [Effect::Run { .. }]), "{next:?}");
    desk.ended(1, "c-1-1", Outcome::Exit(0));
    assert_eq!(refusal(&sent(&desk.command(1, 1, "c-1-0"))), "stale");
}

#[test]
fn commands_that_cannot_be_carried_out_are_refused_with_the_argument_named() {
    let mut desk = Desk::attached(1);
    desk.start(1, 1, "a");
    let shell = |args: ShellArgs| Work::Shell(ShellArgs { shell: Some("true".into()), ..args });
    let git = |repository: &str, mode: &str| {
        Work::Git(GitArgs {
            repository: repository.into(),
            mode: mode.into(),
            ..GitArgs::default()
        })
    };
    let up = ShellArgs { workdir: Some("x/../../y".into()), ..ShellArgs::default() };
    let env = ShellArgs { env: [("A=B".into(), "c".into())].into(), ..ShellArgs::default() };
    let cases = [
        (shell(up), "workdir"),
        (shell(env), "env"),
        (Work::Shell(ShellArgs { argv: Some(vec![]), ..ShellArgs::default() }), "argv"),
        (git("--upload-pack=x", "clean"), "repository"),
        (git("/r", "dirty"), "mode"),
    ];
    for (work, named) in cases {
        let effects = desk.frame(MasterFrame::StartCommand {
            build: BuildId(1),
            epoch: Epoch(1),
            command: "c-1-0".into(),
            work,
        });
        let [WorkerFrame::CommandRefused { code, message, .. }] = &sent(&effects)[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(code, "bad_args");
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn interrupt_ends_the_command_it_names_and_no_other() {
    let mut desk = Desk::building(1);
    let interrupt = |command: &str| MasterFrame::Interrupt {
        build: BuildId(1),
        command: command.into(),
        grace_s: 3,
        reason: "stopped by hand".into(),
    };
    assert!(desk.frame(interrupt("c-1-9")).is_empty());
    let effects = desk.frame(interrupt("c-1-0"));
    assert_eq!(kills(&effects), [(1, 3 * SECOND, "stopped by hand".to_owned())]);
    let effects = desk.ended(1, "c-1-0", Outcome::Killed("stopped by hand".into()));
    assert_eq!(kinds(&effects), ["command_finished"]);
    assert!(desk.frame(interrupt("c-1-0")).is_empty(), "too late");
}

#[test]
fn a_command_that_never_ran_is_still_said_to_have_started() {
    let mut desk = Desk::attached(1);
    desk.start(1, 1, "a");
    desk.command(1, 1, "c-1-0");
    let effects = desk.ended(1, "c-1-0", Outcome::Error("no such program".into()));
    assert_eq!(kinds(&effects), ["command_started", "command_finished"]);
}

#[test]
fn fr13_lease_runs_out_counted_from_the_sending_of_the_last_confirmed_heartbeat() {
    let mut desk = Desk::building(1);
    desk.pass(9 * SECOND, true);
    // The heartbeat goes out at 10 s and its answer comes at 14 s.
    desk.now = desk.agent.next_deadline().unwrap();
    let sent_at = desk.now;
    assert_eq!(kinds(&desk.event(Event::Tick)), ["heartbeat"]);
    desk.now = desk.now + 4 * SECOND;
    desk.frame(MasterFrame::Heartbeat { seq: 1 });
    desk.cut();
    let until_lease = (sent_at + SECOND * LEASE_S).since(desk.now);
    let effects = pass_without_master(&mut desk, until_lease - Duration::from_micros(1));
    assert!(kills(&effects).is_empty());
    let effects = pass_without_master(&mut desk, Duration::from_micros(1));
    assert_eq!(kills(&effects), [(1, 10 * SECOND, "lease".to_owned())]);
    // It keeps trying to attach, and reports what became of the build.
    let effects = desk.ended(1, "c-1-0", Outcome::Killed("lease".into()));
    assert_eq!(effects, [Effect::Sweep { build: BuildId(1) }]);
    desk.dial();
    let effects = desk.attach();
    assert_eq!(desk.inventory(&effects)[0].state, InventoryState::Finished);
    let effects = desk.resume(1, ResumeAction::Continue, Some(0));
    let frames = sent(&effects);
    let [WorkerFrame::CommandFinished { outcome, .. }] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(*outcome, Outcome::Killed("lease".into()));
}

/// Time passes while every attempt to connect fails at once.
fn pass_without_master(desk: &mut Desk, span: Duration) -> Vec<Effect> {
    let end = desk.now + span;
    let mut all = Vec::new();
    while let Some(due) = desk.agent.next_deadline().filter(|due| *due <= end) {
        desk.now = desk.now.max(due);
        let effects = desk.event(Event::Tick);
        for effect in &effects {
            if let Effect::Connect { link } = effect {
                let reason = "refused".to_owned();
                all.extend(desk.event(Event::Closed { link: *link, reason }));
            }
        }
        all.extend(effects);
    }
    desk.now = end;
    all
}

#[test]
fn fr08_heartbeats_that_nobody_confirms_do_not_extend_the_lease() {
    let mut desk = Desk::building(1);
    let begun = desk.now;
    let mut ended = None;
    // The master still pings, so the connection is not silent.
    while ended.is_none() && desk.now.since(begun) < 200 * SECOND {
        let effects = desk.pass(5 * SECOND, false);
        if !kills(&effects).is_empty() {
            ended = Some(desk.now.since(begun));
        }
        desk.frame(MasterFrame::Ping { id: PingToken(1) });
    }
    assert_eq!(ended, Some(SECOND * LEASE_S));
    assert_eq!(refusal(&desk.start(2, 1, "a")), "busy");
}

#[test]
fn fr13_a_build_between_commands_is_lost_when_the_lease_runs_out() {
    let mut desk = Desk::attached(1);
    desk.start(1, 1, "a");
    desk.cut();
    let effects = pass_without_master(&mut desk, SECOND * (LEASE_S + 1));
    assert!(effects.contains(&Effect::Sweep { build: BuildId(1) }));
    desk.dial();
    let effects = desk.attach();
    assert_eq!(desk.inventory(&effects)[0].state, InventoryState::Lost);
    let effects = desk.resume(1, ResumeAction::Abandon, None);
    assert_eq!(effects, [Effect::Sweep { build: BuildId(1) }]);
    assert_eq!(kinds(&desk.event(Event::Swept { build: BuildId(1) })), ["abandoned"]);
    assert_eq!(desk.agent.builds().count(), 0);
}

#[test]
fn fr15_after_a_long_sleep_builds_are_ended_before_anything_is_said() {
    let mut desk = Desk::building(1);
    desk.now = desk.now + 7200 * SECOND;
    let effects = desk.frame(MasterFrame::Ping { id: PingToken(1) });
    let kill = effects.iter().position(|effect| matches!(effect, Effect::Kill { .. }));
    let said = effects.iter().position(|effect| matches!(effect, Effect::Send { .. }));
    assert_eq!(kill, Some(0), "{effects:?}");
    assert!(said.is_none_or(|said| said > 0), "{effects:?}");
}

#[test]
fn without_a_lease_builds_go_on_for_ever() {
    let mut desk = Desk::new(1);
    desk.dial();
    desk.frame(MasterFrame::Attached {
        proto: PROTO,
        incarnation: Incarnation(1),
        caps: vec![],
        heartbeat_s: 10,
        idle_heartbeat_s: None,
        lease_s: 0,
        window: WINDOW_BYTES,
    });
    desk.builders(&["a"]);
    desk.start(1, 1, "a");
    desk.command(1, 1, "c-1-0");
    desk.cut();
    let effects = pass_without_master(&mut desk, 100_000 * SECOND);
    assert!(kills(&effects).is_empty());
}

#[test]
fn fa16_abandon_ends_the_processes_before_it_is_confirmed() {
    let mut desk = Desk::building(1);
    assert_eq!(desk.come_back()[0].state, InventoryState::Running);
    let effects = desk.resume(1, ResumeAction::Abandon, None);
    assert_eq!(kills(&effects).len(), 1);
    assert!(kinds(&effects).is_empty());
    assert!(
        effects.iter().any(|e| matches!(e, Effect::Allow { up_to: u64::MAX, .. })),
        "its output must not hold its end up"
    );
    assert!(desk.output(1, "c-1-0", b"late").is_empty());
    let effects = desk.ended(1, "c-1-0", Outcome::Killed("x".into()));
    assert_eq!(effects, [Effect::Sweep { build: BuildId(1) }]);
    desk.builders(&["a"]);
    assert_eq!(refusal(&desk.start(2, 1, "a")), "busy", "the slot is not free yet");
    assert_eq!(kinds(&desk.event(Event::Swept { build: BuildId(1) })), ["abandoned"]);
    assert_eq!(kinds_of(&desk.start(2, 1, "a")), ["build_accepted"]);
}

#[test]
fn an_abandon_of_an_unknown_build_is_confirmed_at_once() {
    let mut desk = Desk::attached(1);
    assert_eq!(kinds(&desk.resume(77, ResumeAction::Abandon, None)), ["abandoned"]);
    assert_eq!(kinds(&desk.resume(77, ResumeAction::Continue, None)), ["error"]);
}

#[test]
fn fr11_the_end_is_told_again_after_each_resume_until_the_build_is_finished() {
    let mut desk = Desk::building(1);
    desk.cut();
    assert!(desk.ended(1, "c-1-0", Outcome::Exit(3)).is_empty());
    for _ in 0..2 {
        desk.dial();
        let effects = desk.attach();
        let items = desk.inventory(&effects);
        assert_eq!(items[0].state, InventoryState::Finished);
        assert_eq!(items[0].command, Some("c-1-0".into()));
        assert_eq!(kinds(&desk.resume(1, ResumeAction::Continue, Some(0))), ["command_finished"]);
        desk.cut();
    }
    desk.dial();
    desk.attach();
    let effects =
        desk.frame(MasterFrame::BuildFinished { build: BuildId(1), result: "failure".into() });
    let build = BuildId(1);
    assert_eq!(effects, [Effect::Sweep { build }, Effect::Forget { build }]);
    assert!(desk.come_back().is_empty());
}

#[test]
fn build_finished_while_a_command_runs_ends_it_and_frees_the_slot_after_that() {
    let mut desk = Desk::building(1);
    let effects =
        desk.frame(MasterFrame::BuildFinished { build: BuildId(1), result: "cancelled".into() });
    assert_eq!(kills(&effects).len(), 1);
    assert_eq!(refusal(&desk.start(2, 1, "a")), "busy");
    desk.ended(1, "c-1-0", Outcome::Killed("x".into()));
    let build = BuildId(1);
    assert_eq!(desk.event(Event::Swept { build }), [Effect::Forget { build }]);
    assert_eq!(kinds_of(&desk.start(2, 1, "a")), ["build_accepted"]);
}

#[test]
fn heartbeats_carry_the_running_builds() {
    let mut desk = Desk::building(2);
    desk.start(2, 1, "b");
    let effects = desk.pass(10 * SECOND, true);
    let running = sent(&effects).into_iter().find_map(|frame| match frame {
        WorkerFrame::Heartbeat { running, .. } => Some(running),
        _ => None,
    });
    assert_eq!(running, Some(vec![BuildId(1), BuildId(2)]));
}

#[test]
fn drain_refuses_starts_and_leaves_after_the_last_build() {
    let mut desk = Desk::building(2);
    let effects = desk.event(Event::Drain { reason: "SIGTERM".into() });
    assert_eq!(kinds(&effects), ["draining"]);
    assert_eq!(refusal(&desk.start(2, 1, "b")), "draining");
    let effects = desk.cut();
    assert!(effects.is_empty());
    desk.dial();
    assert_eq!(kinds(&desk.attach()), ["inventory", "draining"]);
    desk.resume(1, ResumeAction::Continue, Some(0));
    desk.ended(1, "c-1-0", Outcome::Exit(0));
    let effects =
        desk.frame(MasterFrame::BuildFinished { build: BuildId(1), result: "success".into() });
    assert!(effects.contains(&Effect::Exit { cause: ExitCause::Drained }), "{effects:?}");
}

#[test]
fn shutdown_of_an_idle_worker_ends_it_at_once_and_stop_ends_any() {
    let mut desk = Desk::attached(1);
    let effects = desk.frame(MasterFrame::Shutdown { reason: "bye".into() });
    assert!(effects.contains(&Effect::Exit { cause: ExitCause::Drained }));
    let mut desk = Desk::building(1);
    let effects = desk.event(Event::Stop);
    assert_eq!(effects, [Effect::Exit { cause: ExitCause::Stopped }]);
}

#[test]
fn a_draining_worker_whose_master_is_gone_leaves_when_the_lease_is_out() {
    let mut desk = Desk::building(1);
    desk.cut();
    desk.event(Event::Drain { reason: "SIGTERM".into() });
    let effects = pass_without_master(&mut desk, SECOND * LEASE_S);
    assert_eq!(kills(&effects).len(), 1);
    let effects = desk.ended(1, "c-1-0", Outcome::Killed("lease".into()));
    assert!(effects.contains(&Effect::Exit { cause: ExitCause::Drained }), "{effects:?}");
}

/// Attached to a master that lets idle workers beat once a minute.
fn idle_desk() -> Desk {
    let mut desk = Desk::new(1);
    desk.dial();
    desk.frame(MasterFrame::Attached {
        proto: PROTO,
        incarnation: Incarnation(1),
        caps: vec![],
        heartbeat_s: HEARTBEAT_S,
        idle_heartbeat_s: Some(60),
        lease_s: LEASE_S.into(),
        window: WINDOW_BYTES,
    });
    desk.builders(&["a"]);
    desk
}

/// The builds that each heartbeat of these told of.
fn beats(effects: &[Effect]) -> Vec<Vec<BuildId>> {
    let told = sent(effects).into_iter().filter_map(|frame| match frame {
        WorkerFrame::Heartbeat { running, .. } => Some(running),
        _ => None,
    });
    told.collect()
}

#[test]
fn an_idle_worker_beats_rarely_and_at_once_when_it_gets_a_build() {
    let none: Vec<Vec<BuildId>> = vec![Vec::new()];
    let mut desk = idle_desk();
    assert_eq!(beats(&desk.pass(10 * SECOND, true)), none, "the first one is soon");
    assert!(beats(&desk.pass(59 * SECOND, true)).is_empty());
    assert_eq!(beats(&desk.pass(SECOND, true)), none);
    desk.pass(50 * SECOND, true);
    desk.start(1, 1, "a");
    desk.pass(SECOND, true);
    // From now on every ten seconds, with the build.
    assert_eq!(beats(&desk.pass(30 * SECOND, true)), vec![vec![BuildId(1)]; 3]);
    // Silence counts by that, too.
    desk.pass(28 * SECOND, false);
    assert!(desk.agent.is_attached());
    desk.pass(2 * SECOND, false);
    assert!(!desk.agent.is_attached());
}

#[test]
fn an_idle_worker_bears_three_rare_heartbeats_of_silence() {
    let mut desk = idle_desk();
    desk.pass(10 * SECOND, true);
    desk.pass(179 * SECOND, false);
    assert!(desk.agent.is_attached());
    desk.pass(2 * SECOND, false);
    assert!(!desk.agent.is_attached());
}

#[test]
fn fr13_the_lease_of_an_idle_workers_build_runs_from_the_pong_before_its_start() {
    let mut desk = idle_desk();
    desk.pass(10 * SECOND, true);
    desk.pass(59 * SECOND, true);
    desk.frame(MasterFrame::Ping { id: PingToken(1) });
    desk.pass(SECOND / 2, false);
    desk.start(1, 1, "a");
    desk.command(1, 1, "c-1-0");
    desk.event(Event::Started { build: BuildId(1), command: "c-1-0".into() });
    let killed = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Kill { .. }));
    // Ninety seconds from the pong; without it, it would be twenty.
    assert!(!killed(&desk.pass(89 * SECOND, false)));
    assert!(killed(&desk.pass(SECOND, false)));
}
