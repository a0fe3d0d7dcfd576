//! Builds that are lost, late, too long or waited for; workers that lose them.

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::build::{BuildCore, CommandEnd, Effect, Event, Order, Record};
use botmaster::core::builder::Request;
use botmaster::core::ids::*;
use botmaster::core::lease::{lease_on_the_wire, shortest_grace};
use botmaster::core::time::{Now, Timestamp, WallTime};
use botmaster::core::values::*;
use botmaster::core::worker::{Effect as WorkerWants, Event as WorkerHears, WorkerCore};

use crate::kit::{self, SECOND, config, request, run_step};

struct Desk {
    core: BuildCore,
    now: Now,
}

impl Desk {
    fn new(config: BuilderConfig) -> Self {
        Self::of(config, "w1", 0, Vec::new())
    }

    fn of(config: BuilderConfig, worker: &str, infra_tries: u32, losses: Vec<Loss>) -> Self {
        let core = BuildCore::new(Order {
            claim: ClaimId(1),
            build: BuildId(5),
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            config: Arc::new(config),
            worker: worker.into(),
            infra_tries,
            losses,
            kill_time: 10 * SECOND,
        });
        Self { core, now: Now { mono: Timestamp(1_000_000), wall: WallTime(0) } }
    }

    /// One whose first step runs.
    fn running(config: BuilderConfig) -> Self {
        let mut desk = Self::new(config);
        desk.hear(Event::Begin);
        desk.hear(Event::Written);
        desk
    }

    fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(self.now, event, &mut effects);
        effects
    }

    fn pass(&mut self, span: Duration) {
        self.now.mono = self.now.mono + span;
        self.now.wall.0 += i64::try_from(span.as_micros()).unwrap();
    }

    /// Time passes until the core's next deadline, which comes.
    fn ring(&mut self) -> (Duration, Vec<Effect>) {
        let at = self.core.next_deadline().expect("i6: somebody wakes it");
        let span = at.since(self.now.mono);
        self.pass(span);
        (span, self.hear(Event::DeadlineReached))
    }

    fn silent_for(&mut self, since: Option<Duration>) -> Vec<Effect> {
        self.hear(Event::Silent { command: command(0), since })
    }

    fn end(&mut self, end: CommandEnd) -> Vec<Record> {
        let properties = Vec::new();
        self.hear(Event::CommandEnded { command: command(0), end, properties });
        written(&self.hear(Event::LogClosed))
    }

    fn back(&mut self, lost: bool) -> Vec<Effect> {
        let command = Some(command(0));
        self.hear(Event::Back { incarnation: Incarnation(2), command, lost })
    }
}

fn command(index: usize) -> CommandId {
    CommandId::for_step(BuildId(5), index)
}

fn written(effects: &[Effect]) -> Vec<Record> {
    let write = effects.iter().find_map(|effect| match effect {
        Effect::Write(records) => Some(records.clone()),
        _ => None,
    });
    write.unwrap_or_default()
}

fn end_of(records: &[Record]) -> Option<(BuildResult, String, bool)> {
    records.iter().find_map(|record| match record {
        Record::FinishBuild { result, text, requeue } => Some((*result, text.clone(), *requeue)),
        _ => None,
    })
}

fn steps(steps: Vec<StepSpec>) -> BuilderConfig {
    BuilderConfig { factory: Arc::new(Factory { steps }), ..config(&["w1"]) }
}

fn limited(timeout: Option<Duration>, max_time: Option<Duration>) -> BuilderConfig {
    steps(vec![StepSpec { timeout, max_time, ..run_step("test") }])
}

fn asks(effects: &[Effect]) -> bool {
    effects == [Effect::AskSilence { command: command(0) }]
}

fn interrupted(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::SendInterrupt { .. }])
}

// ---- FR16: the master's own, later timers -----------------------------------

pub fn a_step_that_is_long_over_is_interrupted() {
    let mut desk = Desk::running(limited(Some(60 * SECOND), None));
    // 60 s, 10 s to kill it, 30 s to tell so.
    let (after, effects) = desk.ring();
    assert_eq!((after, asks(&effects)), (100 * SECOND, true), "{effects:?}");
    assert!(interrupted(&desk.silent_for(None)));
}

#[test]
fn fr16_no_output_and_no_report_of_it_is_interrupted_by_the_master() {
    a_step_that_is_long_over_is_interrupted();
    let mut desk = Desk::running(limited(Some(60 * SECOND), None));
    desk.ring();
    let effects = desk.silent_for(Some(300 * SECOND));
    let [Effect::SendInterrupt { reason, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert!(reason.starts_with("no output for 60 s"), "{reason}");
    // The worker hears that: it is the timeout that it did not tell.
    let records = desk.end(CommandEnd::Killed("no output".into()));
    let (result, text, again) = end_of(&records).unwrap();
    assert_eq!((result, again), (BuildResult::Failure, false), "{text}");
    assert!(records.iter().any(|record| matches!(record,
        Record::FinishStep { text, .. } if text == "'test' timed out: no output for 60 s")));
}

#[test]
fn fr16_a_worker_that_beats_and_never_reports_is_dropped_and_the_build_ends() {
    let mut desk = Desk::running(limited(None, Some(60 * SECOND)));
    desk.ring();
    assert!(interrupted(&desk.silent_for(None)));
    let (after, effects) = desk.ring();
    assert_eq!(after, 20 * SECOND, "kill time, and a little to tell");
    assert!(matches!(effects[0], Effect::DropConnection(_)), "{effects:?}");
    let (result, text, again) = end_of(&written(&effects)).unwrap();
    assert_eq!((result, again), (BuildResult::Exception, false));
    assert_eq!(
        text,
        "'test' timed out (it ran longer than 60 s), and the worker never reported its end"
    );
}

#[test]
fn fr16_a_command_that_still_writes_is_not_interrupted() {
    let mut desk = Desk::running(limited(Some(60 * SECOND), None));
    desk.ring();
    assert!(desk.silent_for(Some(SECOND)).is_empty());
    let (after, effects) = desk.ring();
    assert_eq!((after, asks(&effects)), (99 * SECOND, true), "from what it wrote last");
    // Over its time limit, with much to tell: the end comes last.
    let mut desk = Desk::running(limited(None, Some(60 * SECOND)));
    desk.ring();
    for _ in 0..50 {
        assert!(desk.silent_for(Some(SECOND / 2)).is_empty());
        let (after, effects) = desk.ring();
        assert!(asks(&effects) && after >= SECOND, "looks are a second apart");
    }
    assert_eq!(end_of(&desk.end(CommandEnd::Exit(0))).unwrap().0, BuildResult::Success);
}

#[test]
fn fr16_while_the_worker_is_away_it_keeps_the_limits_itself() {
    let mut desk = Desk::running(limited(Some(60 * SECOND), Some(70 * SECOND)));
    desk.pass(50 * SECOND);
    desk.hear(Event::Away);
    desk.pass(140 * SECOND);
    assert!(desk.hear(Event::DeadlineReached).is_empty(), "only the grace runs");
    assert_eq!(desk.silent_for(None), [Effect::Ignored("silence of a command that does not run")]);
    desk.back(false);
    let (after, effects) = desk.ring();
    assert_eq!((after, asks(&effects)), (100 * SECOND, true), "what it has to tell may come first");
}

#[test]
fn a_step_without_limits_is_not_looked_at() {
    let desk = Desk::running(limited(None, None));
    assert_eq!(desk.core.next_deadline(), None);
}

// ---- FR17: a build's own limit ----------------------------------------------

#[test]
fn fr17_a_build_that_takes_too_long_while_its_worker_is_away_is_an_exception() {
    let mut desk = Desk::running(BuilderConfig {
        max_time: Some(100 * SECOND),
        on_lost: OnLost::Wait,
        ..steps(vec![run_step("test")])
    });
    desk.pass(30 * SECOND);
    desk.hear(Event::Away);
    let (after, effects) = desk.ring();
    assert_eq!(after, 70 * SECOND, "the timer goes on while it is away");
    let (result, text, again) = end_of(&written(&effects)).unwrap();
    assert_eq!((result, again), (BuildResult::Exception, false));
    assert_eq!(text, "the build took longer than its max_time (100 s)");
    // Its worker comes back: there is no such build any more, so the worker is
    // told to abandon it, and what it says is ignored.
    desk.hear(Event::Written);
    assert_eq!(desk.back(false), [Effect::Ignored("news of a build that is over")]);
}

#[test]
fn fr17_the_limit_goes_on_over_a_restart_of_the_master() {
    let config = BuilderConfig { max_time: Some(100 * SECOND), ..steps(vec![run_step("test")]) };
    let mut desk = Desk::new(config);
    desk.hear(Event::Recover {
        last_step: Some((0, false)),
        results: Vec::new(),
        times: Vec::new(),
        step_ran: 80 * SECOND,
        ran: 90 * SECOND,
        hold: Duration::ZERO,
    });
    assert_eq!(desk.ring().0, 10 * SECOND);
}

#[test]
fn a_build_that_takes_too_long_with_its_worker_there_is_interrupted() {
    let config = BuilderConfig { max_time: Some(100 * SECOND), ..steps(vec![run_step("test")]) };
    let mut desk = Desk::running(config);
    let (after, effects) = desk.ring();
    assert_eq!(after, 100 * SECOND);
    assert!(interrupted(&effects), "{effects:?}");
    let (result, text, _) = end_of(&desk.end(CommandEnd::Killed("late".into()))).unwrap();
    assert_eq!(result, BuildResult::Exception);
    assert_eq!(text.matches("max_time (100 s)").count(), 1, "{text}");
}

// ---- losses -----------------------------------------------------------------

fn loss(worker: &str, reason: &str) -> Loss {
    let reason = format!("worker lost: {reason}; queued again");
    Loss { worker: worker.into(), reason }
}

pub fn losses_come_to_an_end() {
    let before = vec![loss("w1", "one"), loss("w2", "two"), loss("w1", "three")];
    let mut desk = Desk::of(steps(vec![run_step("test")]), "w3", 3, before);
    desk.hear(Event::Begin);
    desk.hear(Event::Written);
    let (result, text, again) = end_of(&written(&desk.hear(Event::Gone))).unwrap();
    assert_eq!((result, again), (BuildResult::Exception, false));
    assert_eq!(
        text,
        "worker lost 4 times: w1 (one), w2 (two), w1 (three), w3 (the worker came back without the build)"
    );
}

#[test]
fn fr18_after_three_retries_the_text_names_all_workers_and_reasons() {
    losses_come_to_an_end();
}

pub fn another_worker_comes_first() {
    let mut desk = kit::Desk::new(config(&["w1", "w2"]));
    desk.attach("w1", 1);
    desk.attach("w2", 2);
    // `first` would take w1.
    let lost = [loss("w1", "away")].as_slice().into();
    desk.enqueue(vec![Request { losses: lost, infra_tries: 1, requeued: true, ..request(1) }]);
    let chosen: Vec<_> = desk.core.view().builds.iter().map(|b| b.worker.to_string()).collect();
    assert_eq!(chosen, ["w2"]);
}

#[test]
fn fr18_a_request_is_tried_again_on_another_worker_first_and_on_the_same_one_last() {
    another_worker_comes_first();
    // With nobody else there, at once on the same one (I6).
    let mut desk = kit::Desk::new(config(&["w1", "w2"]));
    desk.attach("w1", 1);
    let lost = [loss("w1", "away")].as_slice().into();
    desk.enqueue(vec![Request { losses: lost, infra_tries: 1, requeued: true, ..request(1) }]);
    assert_eq!(desk.core.view().builds.len(), 1);
}

#[test]
fn fr12_an_owner_that_is_none_any_more_ends_without_a_word() {
    // Another incarnation has the build: whatever this one wants to write is
    // refused by the store, and nobody is told anything.
    let mut desk = Desk::running(steps(vec![run_step("test")]));
    desk.end(CommandEnd::Exit(0));
    let fenced = Event::WriteFailed { transient: false, error: "no longer the owner".into() };
    assert_eq!(desk.hear(fenced), [Effect::Disown]);
    assert!(desk.core.is_over());
}

// ---- stop and orphaned --------------------------------------------------------

#[test]
fn ff02_ff05_stop_of_a_build_whose_worker_is_away_ends_it_at_once_back_or_not() {
    for on_lost in [OnLost::Requeue, OnLost::Wait, OnLost::Fail] {
        let mut desk = Desk::running(BuilderConfig { on_lost, ..steps(vec![run_step("test")]) });
        desk.hear(Event::Away);
        desk.pass(5 * SECOND);
        let effects = desk.hear(Event::Stop { reason: "enough".into() });
        let (result, text, again) = end_of(&written(&effects)).unwrap();
        assert_eq!((result, again), (BuildResult::Cancelled, false));
        assert_eq!(text, "cancelled (enough)");
        // Back before that is written: nothing new runs, the end stands.
        let effects = desk.back(false);
        assert!(written(&effects).is_empty() && !effects.iter().any(is_start), "{effects:?}");
        let effects = desk.hear(Event::Written);
        assert!(matches!(
            effects[..],
            [Effect::Finished { result: BuildResult::Cancelled, requeue: false, .. }]
        ));
        assert_eq!(desk.core.next_deadline(), None, "nothing is waited for");
    }
}

fn is_start(effect: &Effect) -> bool {
    matches!(effect, Effect::SendCommand { .. })
}

#[test]
fn ff05_a_stop_while_the_next_step_is_written_down_and_the_worker_leaves() {
    let mut desk = Desk::running(steps(vec![run_step("test"), run_step("more")]));
    assert!(desk.end(CommandEnd::Exit(0)).contains(&Record::StartStep { index: 1 }));
    desk.hear(Event::Away);
    desk.hear(Event::Stop { reason: "enough".into() });
    let effects = desk.hear(Event::Written);
    assert!(!effects.iter().any(is_start), "{effects:?}");
    assert_eq!(end_of(&written(&effects)).unwrap().0, BuildResult::Cancelled);
}

// ---- grants and graces ---------------------------------------------------------

fn recovered(config: BuilderConfig, hold: Duration) -> Desk {
    let mut desk = Desk::new(config);
    let effects = desk.hear(Event::Recover {
        last_step: Some((0, false)),
        results: Vec::new(),
        times: Vec::new(),
        step_ran: SECOND,
        ran: SECOND,
        hold,
    });
    assert!(matches!(effects[..], [Effect::TellAway(Some(_))]), "it is shown to wait: {effects:?}");
    desk
}

pub fn a_held_build_is_not_lost_before() {
    let mut desk = recovered(steps(vec![run_step("test")]), 4000 * SECOND);
    let (after, effects) = desk.ring();
    assert_eq!(after, 4000 * SECOND, "the grant is longer than the grace");
    assert!(end_of(&written(&effects)).unwrap().2);
}

#[test]
fn fm03_a_build_is_held_for_what_its_worker_was_granted_or_the_grace() {
    a_held_build_is_not_lost_before();
    let mut desk = recovered(steps(vec![run_step("test")]), 10 * SECOND);
    assert_eq!(desk.ring().0, 150 * SECOND, "fm04: the grace counts from the restart");
    // An attach ends the grant: the next absence has the grace.
    let mut desk = recovered(steps(vec![run_step("test")]), 4000 * SECOND);
    desk.pass(SECOND);
    desk.back(false);
    desk.hear(Event::Away);
    assert_eq!(desk.ring().0, 150 * SECOND);
    // One that waits without end waits without end.
    let waits = BuilderConfig { on_lost: OnLost::Wait, ..steps(vec![run_step("test")]) };
    assert_eq!(recovered(waits, 10 * SECOND).core.next_deadline(), None);
}

#[test]
fn fr14_what_start_build_says_of_the_lease() {
    let builder = |on_lost, lease| BuilderConfig { on_lost, lease, ..config(&["w1"]) };
    let standard = 90 * SECOND;
    assert_eq!(lease_on_the_wire(&builder(OnLost::Requeue, standard), standard), None);
    assert_eq!(lease_on_the_wire(&builder(OnLost::Fail, 600 * SECOND), standard), Some(600));
    assert_eq!(lease_on_the_wire(&builder(OnLost::Wait, standard), standard), Some(0));
}

/// The settings changed while the master was down; the worker goes by what it
/// was told at the start.
#[test]
fn fr14_a_build_that_began_as_one_that_waits_is_waited_for_under_any_settings() {
    use botmaster::core::lease::{FOREVER, grace_to_keep};
    let waits = BuilderConfig { on_lost: OnLost::Wait, ..steps(vec![run_step("test")]) };
    assert_eq!(grace_to_keep(&waits), FOREVER);
    let now = BuilderConfig { on_lost: OnLost::Requeue, grace: FOREVER, ..waits };
    let mut desk = recovered(now, FOREVER);
    assert_eq!(desk.core.next_deadline(), None);
    desk.back(false);
    desk.pass(Duration::from_secs(1_000_000_000));
    let effects = desk.hear(Event::Away);
    assert!(matches!(effects[..], [Effect::TellAway(Some(away))] if away.until.is_none()));
    assert_eq!(desk.core.next_deadline(), None);
}

/// FM14: the process was stopped for longer than the grace, with the connection
/// standing as far as it knew, and goes on.
#[test]
fn fm14_a_frozen_master_gives_no_build_up_on_waking_whose_worker_comes_back() {
    let mut desk = Desk::running(steps(vec![run_step("test")]));
    desk.pass(10_000 * SECOND);
    assert!(desk.hear(Event::DeadlineReached).is_empty(), "nobody had told that it is away");
    // The dead connection is noticed now: the grace begins now.
    desk.hear(Event::Away);
    assert!(desk.hear(Event::DeadlineReached).is_empty());
    let effects = desk.back(false);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::SendContinue { .. })));
    // Its worker had the lease: it tells that it ended the build itself.
    let (result, text, again) = end_of(&desk.end(CommandEnd::Killed("lease".into()))).unwrap();
    assert_eq!((result, again), (BuildResult::Retry, true));
    assert_eq!(text, "worker lost: its lease ran out; queued again");
    // Whatever was to be written under the old number is refused (I2): the
    // store has the last word.
    let fenced = Event::WriteFailed { transient: false, error: "another owner".into() };
    assert_eq!(desk.hear(fenced), [Effect::Disown]);
}

/// FD02: the store did not answer for so long that the worker ended the build
/// by its lease; what is to be written about that waits for the store.
#[test]
fn fd02_a_build_that_ended_by_its_lease_is_requeued_once_when_the_store_is_back() {
    let mut desk = Desk::running(steps(vec![run_step("test")]));
    let records = desk.end(CommandEnd::Killed("lease".into()));
    assert_eq!(end_of(&records).map(|end| (end.0, end.2)), Some((BuildResult::Retry, true)));
    for _ in 0..100 {
        let away = Event::WriteFailed { transient: true, error: "disk full".into() };
        assert!(desk.hear(away).is_empty());
        let (_, effects) = desk.ring();
        assert_eq!(written(&effects), records, "the same again, and nothing else");
    }
    let effects = desk.hear(Event::Written);
    let [Effect::Finished { result: BuildResult::Retry, requeue: true, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(desk.back(true), [Effect::Ignored("news of a build that is over")]);
}

/// FT06: whatever the timers are, a worker whose clock runs 5 % slow has ended
/// its processes before the master gives the build up.
#[test]
fn ft06_a_clock_five_percent_off_ends_lease_and_kill_before_the_grace() {
    let mut rng = botmaster::core::rng::Rng::seeded(6);
    for _ in 0..10_000 {
        let lease = Duration::from_secs(1 + rng.index(100_000) as u64);
        // The margin is a tenth of the lease: it covers a kill time up to nine
        // tenths of it. Standard is a ninth.
        let kill_time = lease.mul_f64(0.9) / (1 + u32::try_from(rng.index(100)).unwrap());
        let grace = shortest_grace(lease, kill_time);
        let mut desk =
            Desk::running(BuilderConfig { lease, grace, ..steps(vec![run_step("test")]) });
        // The heartbeat confirmed last was sent before the connection was lost.
        desk.hear(Event::Away);
        let lost = desk.core.next_deadline().unwrap().since(desk.now.mono);
        for rate in [0.95, 1.0, 1.05] {
            // So long does what the worker takes for the lease last. It kills
            // with the same clock; the kernel's part of it is the same for all.
            let ended = lease.mul_f64(1.0 / rate) + kill_time.mul_f64(1.0 / rate);
            assert!(
                ended <= lost,
                "lease {lease:?}, kill time {kill_time:?}, rate {rate}: {ended:?} > {lost:?}"
            );
        }
    }
}

// ---- months of nothing --------------------------------------------------------

#[test]
fn fm18_after_months_of_nothing_no_timer_has_run_over() {
    let month = Duration::from_secs(30 * 24 * 3600);
    let mut desk = kit::Desk::new(config(&["w1"]));
    for round in 1..=60 {
        desk.pass(month);
        assert_eq!(desk.core.next_deadline(), None, "nobody has to be woken");
        desk.hear(botmaster::core::builder::Event::DeadlineReached);
        desk.effects.clear();
        desk.attach("w1", round);
        let worker = WorkerName::from("w1");
        desk.hear(botmaster::core::builder::Event::Detach { worker, session: SessionId(round) });
    }
    let idle = desk.core.view();
    assert!(idle.workers.is_empty() && idle.pauses.is_empty() && idle.builds.is_empty());
    // Then many at once.
    desk.enqueue((1..=500).map(request).collect());
    desk.attach("w1", 100);
    assert_eq!(desk.core.view().builds.len(), 1);

    let waits = BuilderConfig { on_lost: OnLost::Wait, ..steps(vec![run_step("test")]) };
    let mut build = Desk::running(waits);
    build.hear(Event::Away);
    for _ in 0..120 {
        build.pass(month);
        assert_eq!(build.core.next_deadline(), None);
    }
    build.back(false);
    assert_eq!(end_of(&build.end(CommandEnd::Exit(0))).unwrap().0, BuildResult::Success);
}

// ---- FR21: workers that are set aside -------------------------------------------

struct Ward {
    core: WorkerCore,
    now: Now,
    session: u64,
}

impl Ward {
    fn new() -> Self {
        let config = WorkerConfig { name: "w1".into(), max_builds: 3, latent: None };
        let core = WorkerCore::new(config.clone(), false);
        let now = Now { mono: Timestamp(1_000_000), wall: WallTime(0) };
        let mut ward = Self { core, now, session: 0 };
        let builders = vec![("a".into(), "a".into())];
        let renewed = std::collections::BTreeSet::new();
        ward.hear(WorkerHears::Configure { config, builders, renewed });
        ward
    }

    fn hear(&mut self, event: WorkerHears) -> Vec<WorkerWants> {
        let mut effects = Vec::new();
        self.core.handle_at(self.now.mono, event, &mut effects);
        effects
    }

    fn pass(&mut self, span: Duration) {
        self.now.mono = self.now.mono + span;
        self.now.wall.0 += i64::try_from(span.as_micros()).unwrap();
    }

    fn attach(&mut self) {
        self.session += 1;
        let (session, incarnation) = (SessionId(self.session), Incarnation(self.session));
        self.hear(WorkerHears::Hello {
            session,
            slots: 8,
            instance: "one".into(),
            address: "here".into(),
        });
        self.hear(WorkerHears::AttachStored { session, incarnation });
        self.hear(WorkerHears::Inventory { session, builds: Vec::new(), more: false });
    }

    /// It attaches, takes so many builds, and loses all of them.
    fn loses(&mut self, builds: u64) {
        self.attach();
        let session = SessionId(self.session);
        let ids: Vec<u64> = (0..builds).map(|n| self.session * 10 + n).collect();
        for id in ids.clone() {
            let (build, claim) = (BuildId(id), ClaimId(u128::from(id)));
            let builder = BuilderName::from("a");
            self.hear(WorkerHears::BuildRegistered {
                build,
                claim,
                builder,
                session: Some(session),
            });
        }
        self.hear(WorkerHears::ConnectionLost { session });
        for id in ids {
            self.hear(WorkerHears::BuildLost { build: BuildId(id) });
            self.hear(WorkerHears::BuildForgotten { build: BuildId(id) });
            let (builder, claim) = ("a".into(), ClaimId(u128::from(id)));
            self.hear(WorkerHears::GiveBackSlot { builder, claim });
        }
    }

    fn rest(&self) -> Duration {
        let view = self.core.quarantine_view(self.now);
        let micros = view.map_or(0, |view| view.until.0 - self.now.wall.0);
        Duration::from_micros(u64::try_from(micros).unwrap())
    }
}

pub fn a_worker_that_loses_builds_is_set_aside() {
    let mut ward = Ward::new();
    for _ in 0..3 {
        ward.loses(1);
        ward.pass(60 * SECOND);
    }
    // The third loss was a minute ago, and the first pause is 10 s.
    ward.loses(1);
    ward.attach();
    assert!(!ward.core.can_start());
    assert_eq!(ward.rest(), 20 * SECOND, "doubled");
}

#[test]
fn fr21_three_losses_in_ten_minutes_set_a_worker_aside_for_growing_pauses() {
    a_worker_that_loses_builds_is_set_aside();
    let mut ward = Ward::new();
    ward.loses(1);
    ward.loses(1);
    assert_eq!(ward.rest(), Duration::ZERO);
    ward.loses(1);
    let mut expected = 10 * SECOND;
    for _ in 0..15 {
        assert_eq!(ward.rest(), expected);
        ward.attach();
        let ask = WorkerHears::AskSlot { builder: "a".into(), claim: ClaimId(7) };
        let effects = ward.hear(ask);
        assert!(matches!(effects[..], [WorkerWants::Slot { granted: None, .. }]), "{effects:?}");
        // Its time is over: whoever asked is told.
        let until = ward.core.next_deadline().expect("i6: somebody wakes it");
        ward.pass(until.since(ward.now.mono));
        let over = WorkerHears::Instance(botmaster::core::instance::Event::DeadlineReached);
        let effects = ward.hear(over);
        assert!(effects.iter().any(|e| matches!(e, WorkerWants::TryBuilders(_))), "{effects:?}");
        assert!(ward.core.can_start());
        if expected > 600 * SECOND {
            break;
        }
        ward.loses(1);
        expected = (expected * 2).min(3600 * SECOND);
    }
    // More than ten minutes without a loss: it begins anew.
    ward.loses(1);
    assert_eq!(ward.rest(), Duration::ZERO);
}

#[test]
fn fr21_builds_that_are_lost_together_are_one_loss() {
    let mut ward = Ward::new();
    ward.loses(3);
    ward.loses(3);
    assert_eq!(ward.rest(), Duration::ZERO);
    ward.loses(3);
    assert_eq!(ward.rest(), 10 * SECOND);
}

#[test]
fn fr21_losses_far_apart_set_nobody_aside_and_a_person_ends_it_early() {
    let mut ward = Ward::new();
    for _ in 0..10 {
        ward.loses(1);
        ward.pass(301 * SECOND);
    }
    assert_eq!(ward.rest(), Duration::ZERO);
    let mut ward = Ward::new();
    for _ in 0..3 {
        ward.loses(1);
    }
    ward.attach();
    assert!(!ward.core.can_start());
    ward.hear(WorkerHears::Pause { paused: false, reason: None });
    assert!(!ward.core.can_start(), "not before it is stored");
    ward.hear(WorkerHears::PauseStored { paused: false });
    assert!(ward.core.can_start());
    assert_eq!((ward.rest(), ward.core.next_deadline()), (Duration::ZERO, None));
    // It begins anew, too.
    ward.loses(1);
    assert_eq!(ward.rest(), Duration::ZERO);
}

#[test]
fn fb07_fb08_a_worker_that_refused_is_shown_with_the_reason_until_it_is_tried_again() {
    use botmaster::core::builder::{Event, StartFailure};
    let mut desk = kit::Desk::new(config(&["w1"]));
    desk.attach("w1", 1);
    desk.enqueue(vec![request(1)]);
    let claim = *desk.core.claims().first().unwrap();
    desk.grant(claim);
    desk.claim(claim, &[1]);
    let failure = StartFailure::Refused { code: "disk".into(), message: "full".into() };
    desk.hear(Event::StartFailed { claim, failure });
    let view = desk.core.view();
    let pause = &view.pauses[&WorkerName::from("w1")];
    assert_eq!(pause.reason, "disk: full");
    assert_eq!(pause.until, WallTime(10_000_000));
    desk.pass(11 * SECOND);
    desk.hear(Event::DeadlineReached);
    assert!(desk.core.view().pauses.is_empty());
}

// ---- each of these has been seen to fail -----------------------------------------

#[test]
fn planted_faults_of_leases_are_found() {
    let faults: [(&'static str, fn()); 7] = [
        ("fm03_grant_forgotten", a_grant_counts_from_when_it_was_given),
        ("fr16_no_second_timer", a_step_that_is_long_over_is_interrupted),
        ("fr18_retries_without_end", losses_come_to_an_end),
        ("fr18_same_worker_again", another_worker_comes_first),
        ("fm03_build_is_not_held", a_held_build_is_not_lost_before),
        ("requeue_before_grace", a_build_waits_for_the_grace),
        ("fr21_no_quarantine", a_worker_that_loses_builds_is_set_aside),
    ];
    for (fault, story) in faults {
        kit::bites(fault, story);
    }
}

fn a_grant_counts_from_when_it_was_given() {
    use botmaster::core::lease::{BootTime, Grant};
    let at = |seconds: u32| BootTime { boot: "here".into(), at: seconds * SECOND };
    let grant = Grant { lease: 100 * SECOND, given: at(50) };
    assert_eq!(grant.rest(&at(60), 10 * SECOND), 110 * SECOND);
}

fn a_build_waits_for_the_grace() {
    let mut desk = Desk::running(steps(vec![run_step("test")]));
    desk.hear(Event::Away);
    assert_eq!(desk.ring().0, 150 * SECOND);
}
