//! One build's life.

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::build::{BuildCore, CommandEnd, Effect, Event, Order, Record};
use botmaster::core::ids::*;
use botmaster::core::time::{Now, Timestamp, WallTime};
use botmaster::core::values::*;
use botmaster::core::views::Away;

use crate::kit::{SECOND, bites, config, run_step};

struct Desk {
    core: BuildCore,
    now: Now,
}

impl Desk {
    fn new(steps: Vec<StepSpec>) -> Self {
        Self::with(BuilderConfig { factory: Arc::new(Factory { steps }), ..config(&["w1"]) }, 0)
    }

    fn with(config: BuilderConfig, infra_tries: u32) -> Self {
        let core = BuildCore::new(Order {
            claim: ClaimId(1),
            build: BuildId(5),
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            config: Arc::new(config),
            worker: "w1".into(),
            infra_tries,
            losses: Vec::new(),
            kill_time: 10 * SECOND,
        });
        Self { core, now: Now { mono: Timestamp(1_000_000), wall: WallTime(0) } }
    }

    fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(self.now, event, &mut effects);
        effects
    }

    fn pass(&mut self, span: Duration) {
        self.now.mono = self.now.mono + span;
    }

    fn begin(&mut self) {
        self.hear(Event::Begin);
        let effects = self.hear(Event::Written);
        assert!(effects.contains(&Effect::Started));
    }

    /// The step's command ends, its log is closed; answers what is written.
    fn end(&mut self, step: usize, end: CommandEnd) -> Vec<Record> {
        let command = CommandId::for_step(BuildId(5), step);
        let effects = self.hear(Event::CommandEnded { command, end, properties: Vec::new() });
        assert!(matches!(effects[..], [Effect::CloseLog { .. }]), "{effects:?}");
        written(&self.hear(Event::LogClosed))
    }

    fn fail(&mut self, step: usize) -> Vec<Record> {
        self.end(step, CommandEnd::Exit(1))
    }
}

fn away(since: i64, until: Option<i64>) -> Effect {
    let wall = |seconds: i64| WallTime(seconds * 1_000_000);
    Effect::TellAway(Some(Away { since: wall(since), until: until.map(wall) }))
}

fn written(effects: &[Effect]) -> Vec<Record> {
    effects
        .iter()
        .find_map(|e| match e {
            Effect::Write(records) => Some(records.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

fn result(records: &[Record]) -> Option<(BuildResult, bool)> {
    records.iter().find_map(|r| match r {
        Record::FinishBuild { result, requeue, .. } => Some((*result, *requeue)),
        _ => None,
    })
}

#[test]
fn b15_the_number_and_the_first_step_are_one_write_and_the_command_follows_it() {
    let mut desk = Desk::new(vec![run_step("a"), run_step("b")]);
    let begun = desk.hear(Event::Begin);
    assert_eq!(written(&begun), [Record::StartBuild, Record::StartStep { index: 0 }]);
    assert_eq!(begun.len(), 1, "i12: nothing is told before it is durable");
    let effects = desk.hear(Event::Written);
    assert_eq!(effects[0], Effect::Started);
    assert!(matches!(effects[1], Effect::SendCommand { index: 0, .. }));
    let records = desk.end(0, CommandEnd::Exit(0));
    assert!(records.contains(&Record::StartStep { index: 1 }), "one write from step to step");
    desk.hear(Event::Written);
    assert_eq!(result(&desk.end(1, CommandEnd::Exit(0))), Some((BuildResult::Success, false)));
    let effects = desk.hear(Event::Written);
    let [Effect::Finished { result: BuildResult::Success, times: Some(times), .. }] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((times.factory.as_str(), times.steps.len()), ("f1", 2));
}

#[test]
fn halt_on_failure_skips_the_rest_but_what_always_runs() {
    let halting = StepSpec { halt_on_failure: true, ..run_step("a") };
    let always = StepSpec { always_run: true, ..run_step("c") };
    let mut desk = Desk::new(vec![halting, run_step("b"), always]);
    desk.begin();
    assert!(desk.fail(0).contains(&Record::StartStep { index: 2 }));
    desk.hear(Event::Written);
    assert_eq!(result(&desk.end(2, CommandEnd::Exit(0))), Some((BuildResult::Failure, false)));
}

#[test]
fn flunk_and_warn_decide_what_a_failure_means() {
    let cases = [
        (true, false, BuildResult::Failure),
        (false, true, BuildResult::Warnings),
        (false, false, BuildResult::Success),
    ];
    for (flunk_on_failure, warn_on_failure, expected) in cases {
        let step = StepSpec { flunk_on_failure, warn_on_failure, ..run_step("a") };
        let mut desk = Desk::new(vec![step]);
        desk.begin();
        assert_eq!(result(&desk.fail(0)), Some((expected, false)));
    }
}

#[test]
pub fn b25_a_build_whose_worker_stays_away_is_queued_again_after_the_grace() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.begin();
    assert_eq!(desk.hear(Event::Away), [away(0, Some(150))]);
    let due = desk.core.next_deadline().expect("i6: somebody wakes it");
    assert_eq!(due.since(desk.now.mono), 150 * SECOND);
    desk.pass(149 * SECOND);
    assert!(desk.hear(Event::DeadlineReached).is_empty());
    desk.pass(SECOND);
    assert_eq!(
        result(&written(&desk.hear(Event::DeadlineReached))),
        Some((BuildResult::Retry, true))
    );
}

#[test]
fn fr01_a_worker_that_is_back_within_the_grace_goes_on() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.begin();
    desk.hear(Event::Away);
    desk.pass(60 * SECOND);
    let command = Some(CommandId::for_step(BuildId(5), 0));
    let back = Event::Back { incarnation: Incarnation(2), command: command.clone(), lost: false };
    assert_eq!(
        desk.hear(back),
        [Effect::TellAway(None), Effect::SendContinue { command, current: true }]
    );
    assert_eq!(desk.core.next_deadline(), None);
    assert_eq!(result(&desk.end(0, CommandEnd::Exit(0))), Some((BuildResult::Success, false)));
}

#[test]
fn a_command_that_never_reached_the_worker_is_sent_when_it_is_back() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.begin();
    desk.hear(Event::Away);
    let effects =
        desk.hear(Event::Back { incarnation: Incarnation(2), command: None, lost: false });
    assert!(matches!(effects.last(), Some(Effect::SendCommand { index: 0, .. })));
}

#[test]
pub fn fb03_a_build_in_doubt_that_its_worker_has_gets_its_number_at_adoption() {
    let mut desk = Desk::new(vec![run_step("a"), run_step("b")]);
    let effects = desk.hear(Event::InDoubt { wait: 150 * SECOND });
    assert_eq!(effects, [away(0, Some(150))], "nothing is written, nothing is sent");
    assert!(desk.hear(Event::Away).is_empty(), "told once");
    desk.pass(149 * SECOND);
    assert!(desk.hear(Event::DeadlineReached).is_empty());
    let effects =
        desk.hear(Event::Back { incarnation: Incarnation(2), command: None, lost: false });
    assert_eq!(effects[0], Effect::TellAway(None));
    assert!(matches!(effects[1], Effect::SendContinue { command: None, current: false }));
    assert_eq!(written(&effects), [Record::StartBuild, Record::StartStep { index: 0 }]);
    assert_eq!(desk.core.order().incarnation, Incarnation(2), "the write's fence");
    let effects = desk.hear(Event::Written);
    assert_eq!(effects[0], Effect::Started);
    assert!(matches!(effects[1], Effect::SendCommand { index: 0, .. }));
    // From now on it is a build as every other.
    let records = written(&desk.hear(Event::Gone));
    assert_eq!(result(&records), Some((BuildResult::Retry, true)));
}

#[test]
fn fb03_a_build_that_is_never_adopted_is_seen() {
    bites(
        "fb03_not_adopted",
        fb03_a_build_in_doubt_that_its_worker_has_gets_its_number_at_adoption,
    );
}

#[test]
fn fb02_fb03_a_build_in_doubt_that_its_worker_has_not_never_was() {
    let back = |lost| Event::Back { incarnation: Incarnation(2), command: None, lost };
    for (event, wait) in [(Event::Gone, 0), (back(true), 0), (Event::DeadlineReached, 150)] {
        let mut desk = Desk::new(vec![run_step("a")]);
        desk.hear(Event::InDoubt { wait: 150 * SECOND });
        assert_eq!(desk.core.next_deadline(), Some(desk.now.mono + 150 * SECOND));
        desk.pass(SECOND * wait);
        let effects = desk.hear(event);
        assert_eq!(written(&effects), [Record::GiveBack], "no number, no try: {effects:?}");
        // The store may take its time, and the worker may come meanwhile.
        desk.hear(Event::WriteFailed { transient: true, error: "full".into() });
        assert!(desk.hear(Event::Gone).is_empty());
        desk.pass(SECOND);
        assert_eq!(written(&desk.hear(Event::DeadlineReached)), [Record::GiveBack]);
        assert_eq!(desk.hear(Event::Written), [Effect::GivenBack]);
        assert!(desk.core.is_over());
    }
}

#[test]
fn fb03_a_build_in_doubt_that_shall_stop_does_not_wait_for_its_worker() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.hear(Event::InDoubt { wait: 150 * SECOND });
    let records = written(&desk.hear(Event::Stop { reason: "enough".into() }));
    assert_eq!(records[0], Record::StartBuild);
    assert_eq!(result(&records), Some((BuildResult::Cancelled, false)));
}

#[test]
fn fr18_used_up_retries_are_an_exception_with_the_count() {
    let mut desk = Desk::with(config(&["w1"]), 3);
    desk.begin();
    let records = written(&desk.hear(Event::Gone));
    assert_eq!(result(&records), Some((BuildResult::Exception, false)));
    let text = format!("{records:?}");
    assert!(text.contains("worker lost 4 times"), "{text}");
}

#[test]
fn fr19_a_builder_that_says_fail_is_never_queued_again() {
    let mut desk = Desk::with(BuilderConfig { on_lost: OnLost::Fail, ..config(&["w1"]) }, 0);
    desk.begin();
    assert_eq!(result(&written(&desk.hear(Event::Gone))), Some((BuildResult::Exception, false)));
    let mut desk = Desk::with(BuilderConfig { on_lost: OnLost::Wait, ..config(&["w1"]) }, 0);
    desk.begin();
    desk.hear(Event::Away);
    assert_eq!(desk.core.next_deadline(), None, "`wait` waits for its worker or a person");
}

#[test]
fn ff05_stop_and_connection_loss_end_as_cancelled() {
    for away_first in [true, false] {
        let mut desk = Desk::new(vec![run_step("a")]);
        desk.begin();
        let stop = Event::Stop { reason: "enough".into() };
        let mut effects = Vec::new();
        for event in if away_first { [Event::Away, stop] } else { [stop, Event::Away] } {
            effects.extend(desk.hear(event));
        }
        assert_eq!(result(&written(&effects)), Some((BuildResult::Cancelled, false)));
    }
}

#[test]
fn ff02_a_worker_that_does_not_answer_a_stop_is_dropped_in_time() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.begin();
    let effects = desk.hear(Event::Stop { reason: "enough".into() });
    assert!(matches!(effects[..], [Effect::SendInterrupt { .. }]));
    assert!(desk.hear(Event::Stop { reason: "again".into() }).is_empty(), "ff04");
    desk.pass(20 * SECOND);
    let effects = desk.hear(Event::DeadlineReached);
    assert!(matches!(effects[0], Effect::DropConnection(_)));
    assert_eq!(result(&written(&effects)), Some((BuildResult::Cancelled, false)));
}

#[test]
fn a_stopped_build_still_runs_what_always_runs() {
    let always = StepSpec { always_run: true, ..run_step("clean") };
    let mut desk = Desk::new(vec![run_step("a"), run_step("b"), always]);
    desk.begin();
    desk.hear(Event::Stop { reason: "enough".into() });
    let records = desk.end(0, CommandEnd::Killed("stopped".into()));
    assert!(records.contains(&Record::StartStep { index: 2 }));
    let effects = desk.hear(Event::Written);
    assert!(matches!(effects[..], [Effect::SendCommand { index: 2, .. }]));
    let end = desk.end(2, CommandEnd::Exit(0));
    assert_eq!(result(&end), Some((BuildResult::Cancelled, false)));
}

#[test]
fn fd01_what_the_store_cannot_write_is_written_later() {
    let mut desk = Desk::new(vec![run_step("a")]);
    let first = written(&desk.hear(Event::Begin));
    let failed = Event::WriteFailed { transient: true, error: "disk full".into() };
    assert!(desk.hear(failed).is_empty());
    desk.pass(SECOND);
    assert_eq!(written(&desk.hear(Event::DeadlineReached)), first);
    assert!(desk.hear(Event::Written).contains(&Effect::Started));
}

#[test]
fn i2_a_build_that_is_no_longer_ours_is_left_alone() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.begin();
    desk.end(0, CommandEnd::Exit(0));
    let fenced = Event::WriteFailed { transient: false, error: "fenced".into() };
    assert_eq!(desk.hear(fenced), [Effect::Disown]);
    assert!(desk.core.is_over());
}

#[test]
fn fr11_an_end_that_is_told_twice_is_one_end() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.begin();
    desk.end(0, CommandEnd::Exit(0));
    let again = Event::CommandEnded {
        command: CommandId::for_step(BuildId(5), 0),
        end: CommandEnd::Exit(1),
        properties: Vec::new(),
    };
    assert!(matches!(desk.hear(again)[..], [Effect::Ignored(_)]));
}

#[test]
fn fr13_a_command_that_the_worker_ended_by_its_lease_is_a_lost_build() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.begin();
    let records = desk.end(0, CommandEnd::Killed("lease".into()));
    assert_eq!(result(&records), Some((BuildResult::Retry, true)));
}

#[test]
fn ff11_a_panic_in_its_own_handling_is_an_exception_and_frees_the_worker() {
    let mut desk = Desk::new(vec![run_step("a")]);
    desk.begin();
    let records = written(&desk.hear(Event::Broken { error: "bug".into() }));
    assert_eq!(result(&records), Some((BuildResult::Exception, false)));
    assert!(matches!(desk.hear(Event::Written)[..], [Effect::Finished { .. }]));
}

#[test]
fn a_build_of_an_earlier_master_goes_on_where_it_stood() {
    let mut desk = Desk::new(vec![run_step("a"), run_step("b")]);
    desk.hear(Event::Recover {
        last_step: Some((1, false)),
        results: vec![(0, BuildResult::Failure)],
        times: vec![("a".into(), 3 * SECOND)],
        step_ran: 5 * SECOND,
        ran: 8 * SECOND,
        hold: Duration::ZERO,
    });
    let grace = desk.core.next_deadline().expect("fm04: the grace counts from the restart");
    assert_eq!(grace.since(desk.now.mono), 150 * SECOND);
    let command = Some(CommandId::for_step(BuildId(5), 1));
    desk.hear(Event::Back { incarnation: Incarnation(2), command, lost: false });
    let end = desk.end(1, CommandEnd::Exit(0));
    assert_eq!(result(&end), Some((BuildResult::Failure, false)), "the first step had failed");
}

#[test]
fn b31_a_build_of_an_earlier_master_teaches_all_of_its_steps() {
    let mut desk = Desk::new(vec![run_step("a"), run_step("b")]);
    desk.hear(Event::Recover {
        last_step: Some((1, false)),
        results: vec![(0, BuildResult::Success)],
        times: vec![("a".into(), 3 * SECOND)],
        step_ran: 5 * SECOND,
        ran: 8 * SECOND,
        hold: Duration::ZERO,
    });
    let command = Some(CommandId::for_step(BuildId(5), 1));
    desk.hear(Event::Back { incarnation: Incarnation(2), command, lost: false });
    desk.now.mono = desk.now.mono + 2 * SECOND;
    desk.end(1, CommandEnd::Exit(0));
    let effects = desk.hear(Event::Written);
    let [Effect::Finished { times: Some(times), .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(times.steps, [("a".into(), 3 * SECOND), ("b".into(), 7 * SECOND)]);
}

#[test]
fn i9_text_of_an_earlier_command_is_not_taken_for_that_of_the_current_one() {
    let mut desk = Desk::new(vec![run_step("a"), run_step("b")]);
    desk.begin();
    desk.end(0, CommandEnd::Exit(0));
    desk.hear(Event::Away);
    desk.hear(Event::Written);
    // The next command never reached the worker: it brings the one before.
    let old = Some(CommandId::for_step(BuildId(5), 0));
    let effects =
        desk.hear(Event::Back { incarnation: Incarnation(2), command: old.clone(), lost: false });
    assert!(effects.contains(&Effect::SendContinue { command: old, current: false }));
    assert!(matches!(effects.last(), Some(Effect::SendCommand { index: 1, .. })));
}
