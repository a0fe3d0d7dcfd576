//! One build, from its worker's acceptance to its end: which step runs, what
//! its outcome means, what becomes of the requests.
//!
//! Deliberately absent: bytes of logs (edges carry them past the actors), how
//! anything is stored or sent. It must always hold that a build that has begun
//! ends with exactly one `Finished`, whatever its worker does.

mod clocks;
mod doubt;
mod loss;
mod table;

use std::sync::Arc;
use std::time::Duration;

pub use loss::all_losses;
pub use table::{HEARS, Hears, WORK_TABLE, WORKS, Work};

use super::builder::StepTimes;
use super::ids::*;
use super::lease::FOREVER;
use super::planted;
use super::time::{Now, Timestamp};
use super::transitions;
use super::values::{BuildResult, BuilderConfig, Loss, OnLost, StepSpec};
use super::views::Away;

/// How long after a kill's grace the worker may take to report the end.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// Pause before a write is tried again that the store could not do.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What a build was told to be.
#[derive(Clone, PartialEq, Debug)]
pub struct Order {
    /// Its claim.
    pub claim: ClaimId,
    /// Its id.
    pub build: BuildId,
    /// The worker's incarnation that owns it.
    pub incarnation: Incarnation,
    /// Highest epoch of its requests.
    pub epoch: Epoch,
    /// Its builder as it was when the build was chosen.
    pub config: Arc<BuilderConfig>,
    /// Its worker.
    pub worker: WorkerName,
    /// The most tries that any of its requests had.
    pub infra_tries: u32,
    /// How builds of that request were lost before, in order.
    pub losses: Vec<Loss>,
    /// Between TERM and KILL.
    pub kill_time: Duration,
}

/// How a command ended, as the worker told it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandEnd {
    /// Exit status.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It ran out of time.
    Timeout(String),
    /// It was ended on purpose.
    Killed(String),
    /// It could not run.
    Error(String),
    /// The worker would not take the command.
    Refused(String),
}

/// What is written down, in the order given, all or nothing.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// The build gets its number.
    StartBuild,
    /// The claim is undone: the build never was.
    GiveBack,
    /// A step begins.
    StartStep {
        /// Place in the factory.
        index: usize,
    },
    /// The current step's log got its last byte; the shell knows what it came
    /// to.
    FinishLog,
    /// The current step ended.
    FinishStep {
        /// How.
        result: BuildResult,
        /// For people.
        text: String,
    },
    /// The build sets properties.
    SetProperties(Vec<(String, String)>),
    /// The build ended.
    FinishBuild {
        /// How.
        result: BuildResult,
        /// For people.
        text: String,
        /// Its requests are queued again, counting a try.
        requeue: bool,
    },
}

/// What a build hears.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Begin.
    Begin,
    /// The start was sent, or may have been, and nobody heard an answer: the
    /// worker may have it (fault row FB03).
    InDoubt {
        /// How long it is waited for. Nothing can run meanwhile: a command is
        /// given only to a build that has begun.
        wait: Duration,
    },
    /// Go on with a build of an earlier master, whose worker is still away.
    Recover {
        /// Place of its last step, and whether that had ended.
        last_step: Option<(usize, bool)>,
        /// How the steps that ended came out.
        results: Vec<(usize, BuildResult)>,
        /// What the steps that ended took, by name.
        times: Vec<(String, Duration)>,
        /// How long the last step had run, when it had not ended.
        step_ran: Duration,
        /// How long the build had run, by the wall clock.
        ran: Duration,
        /// How long nobody else may have it, whatever the grace is: what is
        /// left of the lease that a planned stop gave the worker, or of a grace
        /// that was longer when the build began.
        hold: Duration,
    },
    /// What was asked to be written is durable.
    Written,
    /// It was not.
    WriteFailed {
        /// Trying again may help.
        transient: bool,
        /// Why.
        error: String,
    },
    /// The command ended, after all of its log bytes.
    CommandEnded {
        /// Which.
        command: CommandId,
        /// How.
        end: CommandEnd,
        /// Properties that it set.
        properties: Vec<(String, String)>,
    },
    /// The current step's log is closed and durable.
    LogClosed,
    /// How long the command has written nothing, as far as the master heard.
    Silent {
        /// Which.
        command: CommandId,
        /// None: nothing came over this connection.
        since: Option<Duration>,
    },
    /// Somebody wants it stopped.
    Stop {
        /// For people.
        reason: String,
    },
    /// The worker is away.
    Away,
    /// The worker is back with it.
    Back {
        /// The worker's new number.
        incarnation: Incarnation,
        /// The command it has, when it has one.
        command: Option<CommandId>,
        /// The processes are gone without a result.
        lost: bool,
    },
    /// The worker came back without it.
    Gone,
    /// The build's own handling failed.
    Broken {
        /// Why.
        error: String,
    },
    /// A deadline passed.
    DeadlineReached,
}

/// What a build wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Write these, in one transaction; answered `Written` or `WriteFailed`.
    Write(Vec<Record>),
    /// Tell the worker to run the step's command.
    SendCommand {
        /// Place in the factory.
        index: usize,
        /// The command's name.
        command: CommandId,
    },
    /// Tell the worker to go on with the build that it brought back.
    SendContinue {
        /// The command that it brought, when it has one.
        command: Option<CommandId>,
        /// That is the one that is to run now: its text goes on. What an
        /// earlier one had to say is stored already.
        current: bool,
    },
    /// Tell the worker to end the command.
    SendInterrupt {
        /// Which.
        command: CommandId,
        /// For people.
        reason: String,
    },
    /// Close the current step's log, with a last line of the master's own.
    CloseLog {
        /// The line.
        line: String,
    },
    /// The build's end is durable: tell the builder, the worker and whoever
    /// waits.
    Finished {
        /// How.
        result: BuildResult,
        /// Its requests are queued again.
        requeue: bool,
        /// What each step took, when it succeeded.
        times: Option<StepTimes>,
    },
    /// The claim is undone, durably: tell the builder and the worker.
    GivenBack,
    /// The number is durable: tell the builder.
    Started,
    /// Tell the builder that the worker is away, and since and until when, or
    /// that it is back.
    TellAway(Option<Away>),
    /// Find out how long the command has written nothing; answered `Silent`.
    AskSilence {
        /// Which.
        command: CommandId,
    },
    /// Drop the worker's connection.
    DropConnection(&'static str),
    /// Somebody else owns this build now: end without a word.
    Disown,
    /// Something stale was ignored.
    Ignored(&'static str),
}

/// Why a build ends before its steps have.
#[derive(Clone, PartialEq, Debug)]
struct Halt {
    /// How it ends then.
    result: BuildResult,
    /// For people.
    reason: String,
}

/// Where a build stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing was done yet.
    New,
    /// A write is on its way; then `next`.
    Writing(Next),
    /// The worker runs the step's command.
    Running { index: usize },
    /// The command ended; its log is being closed.
    Closing { index: usize },
    /// It ended, durably. Final.
    Over,
}

/// What follows a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// The step's command, in a build that is known already or has just begun.
    Step { index: usize, first: bool },
    /// The end.
    End { result: BuildResult, requeue: bool },
    /// The end of one that never began.
    GivenBack,
}

/// The state of one Build actor.
#[derive(Clone, PartialEq, Debug)]
pub struct BuildCore {
    order: Order,
    phase: Phase,
    /// Written again when the store could not.
    writing: Vec<Record>,
    retry_at: Option<Timestamp>,
    started: bool,
    result: BuildResult,
    halted: bool,
    failures: Vec<String>,
    /// What each step took so far.
    times: Vec<(String, Duration)>,
    step_began: Timestamp,
    /// How long it had run before this process.
    step_ran: Duration,
    step_end: Option<CommandEnd>,
    /// Why it ends before its steps have.
    halt: Option<Halt>,
    /// The master's own look at how long the build and its step take.
    clocks: clocks::Clocks,
    /// When the worker must have reported the end of a killed command.
    kill_by: Option<Timestamp>,
    /// Since when the worker is away.
    away: Option<Timestamp>,
    /// Nobody else may have it before this.
    held_until: Option<Timestamp>,
    /// Whether the worker has it is not known, and waited for until then.
    in_doubt: Option<Timestamp>,
    properties: Vec<(String, String)>,
}

impl BuildCore {
    /// A build that was accepted and has not begun.
    #[must_use]
    pub fn new(order: Order) -> Self {
        Self {
            order,
            phase: Phase::New,
            writing: Vec::new(),
            retry_at: None,
            started: false,
            result: BuildResult::Success,
            halted: false,
            failures: Vec::new(),
            times: Vec::new(),
            step_began: Timestamp::default(),
            step_ran: Duration::ZERO,
            step_end: None,
            halt: None,
            clocks: clocks::Clocks::default(),
            kill_by: None,
            away: None,
            held_until: None,
            in_doubt: None,
            properties: Vec::new(),
        }
    }

    /// Takes in one event. Whatever it is, the phase changes only as the table
    /// says.
    pub fn handle(&mut self, now: Now, event: Event, fx: &mut Vec<Effect>) {
        let (before, heard) = (Work::from(self.phase), Hears::from(&event));
        self.take(now, event, fx);
        let after = Work::from(self.phase);
        assert!(
            transitions::allows(WORK_TABLE, &before, &heard, &after),
            "a build cannot go from {before:?} to {after:?} by {heard:?}"
        );
    }

    /// Where its work stands, for tests and views.
    #[must_use]
    pub fn work(&self) -> Work {
        self.phase.into()
    }

    fn take(&mut self, present: Now, event: Event, fx: &mut Vec<Effect>) {
        let now = present.mono;
        if self.phase == Phase::Over {
            fx.push(Effect::Ignored("news of a build that is over"));
            return;
        }
        match event {
            Event::Begin | Event::InDoubt { .. } | Event::Recover { .. }
                if self.phase != Phase::New =>
            {
                fx.push(Effect::Ignored("second beginning of a build"));
            }
            Event::Begin => {
                self.clocks.begins(now, Duration::ZERO, self.order.config.max_time);
                self.go_on(now, 0, vec![Record::StartBuild], fx);
            }
            Event::InDoubt { wait } => self.on_in_doubt(present, wait, fx),
            Event::Recover { last_step, results, times, step_ran, ran, hold } => {
                self.times = times;
                self.clocks.begins(now, ran, self.order.config.max_time);
                self.held_until = Some(now + hold);
                self.on_recover(now, last_step, results, step_ran);
                fx.push(Effect::TellAway(Some(self.away_span(present))));
            }
            Event::Written => self.on_written(now, fx),
            Event::WriteFailed { transient, error: _ } => {
                if !matches!(self.phase, Phase::Writing(_)) {
                    fx.push(Effect::Ignored("answer to a write that was not asked for"));
                } else if transient {
                    self.retry_at = Some(now + STORE_PAUSE);
                } else {
                    self.phase = Phase::Over;
                    fx.push(Effect::Disown);
                }
            }
            Event::CommandEnded { command, end, properties } => {
                self.on_command_ended(&command, end, properties, fx);
            }
            Event::LogClosed => self.on_log_closed(now, fx),
            Event::Silent { command, since } => self.on_silent(now, &command, since, fx),
            Event::Stop { reason } => {
                self.halt(now, Halt { result: BuildResult::Cancelled, reason }, fx);
            }
            Event::Away => {
                if self.away.is_none() {
                    self.away = Some(now);
                    fx.push(Effect::TellAway(Some(self.away_span(present))));
                }
                if self.halt.is_some() {
                    // It shall stop and its worker cannot be told: it ends
                    // here; what the worker still has is abandoned later.
                    self.end_without_worker(fx);
                }
            }
            Event::Back { incarnation, command, lost } => {
                self.on_back(now, incarnation, command, lost, fx);
            }
            Event::Gone if self.in_doubt.is_some() => self.give_back(fx),
            Event::Gone => self.lose("the worker came back without the build", fx),
            Event::Broken { error } => {
                self.failures.push(format!("exception: {error}"));
                self.result = BuildResult::Exception;
                self.finish(BuildResult::Exception, false, fx);
            }
            Event::DeadlineReached => self.on_deadline(now, fx),
        }
    }

    /// When `DeadlineReached` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let lost = self.away.and_then(|since| self.lost_at(since));
        let clocks = self.clock_deadline();
        [lost, clocks, self.kill_by, self.retry_at].into_iter().flatten().min()
    }

    /// How long the worker may be away.
    fn grace(&self) -> Duration {
        let none = planted::is("requeue_before_grace");
        if none { Duration::ZERO } else { self.order.config.grace }
    }

    /// When a build whose worker is away since then counts as lost.
    fn lost_at(&self, since: Timestamp) -> Option<Timestamp> {
        if self.in_doubt.is_some() {
            return self.in_doubt;
        }
        match self.order.config.on_lost {
            // It began as one that is waited for.
            _ if self.order.config.grace >= FOREVER => None,
            OnLost::Requeue | OnLost::Fail => {
                let held = self.held_until.filter(|_| !planted::is("fm03_build_is_not_held"));
                Some((since + self.grace()).max(held.unwrap_or_default()))
            }
            OnLost::Wait => None,
        }
    }

    fn steps(&self) -> &[StepSpec] {
        &self.order.config.factory.steps
    }

    fn command(&self, index: usize) -> CommandId {
        CommandId::for_step(self.order.build, index)
    }

    /// Writes what is to be written and goes to the next step that shall run,
    /// or to the end.
    fn go_on(
        &mut self,
        now: Timestamp,
        from: usize,
        mut records: Vec<Record>,
        fx: &mut Vec<Effect>,
    ) {
        let halted = self.halted || self.halt.is_some();
        let next = self
            .steps()
            .iter()
            .enumerate()
            .skip(from)
            .find(|(_, step)| !halted || step.always_run)
            .map(|(index, _)| index);
        match next {
            Some(index) => {
                records.push(Record::StartStep { index });
                self.step_began = now;
                self.step_ran = Duration::ZERO;
                self.step_end = None;
                self.write(records, Next::Step { index, first: !self.started }, fx);
            }
            None => {
                let result = self.halt.as_ref().map_or(self.result, |halt| halt.result);
                let text = self.summary(result);
                records.push(Record::FinishBuild { result, text, requeue: false });
                self.write(records, Next::End { result, requeue: false }, fx);
            }
        }
    }

    fn write(&mut self, records: Vec<Record>, next: Next, fx: &mut Vec<Effect>) {
        self.phase = Phase::Writing(next);
        self.in_doubt = None;
        self.writing.clone_from(&records);
        fx.push(Effect::Write(records));
    }

    fn summary(&self, result: BuildResult) -> String {
        match result {
            BuildResult::Success => "build successful".into(),
            BuildResult::Cancelled => {
                let reason = self.halt.as_ref().map_or("no reason", |halt| halt.reason.as_str());
                format!("cancelled ({reason})")
            }
            other if self.failures.is_empty() => format!("build {other}"),
            _ => self.failures.join(", "),
        }
    }

    fn on_written(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        let Phase::Writing(next) = self.phase else {
            fx.push(Effect::Ignored("answer to a write that was not asked for"));
            return;
        };
        self.writing.clear();
        self.retry_at = None;
        if next == Next::GivenBack {
            self.phase = Phase::Over;
            fx.push(Effect::GivenBack);
            return;
        }
        if !self.started {
            self.started = true;
            fx.push(Effect::Started);
        }
        match next {
            Next::Step { index, .. } => {
                self.phase = Phase::Running { index };
                if self.away.is_some() {
                    // The worker is told when it is back; see `on_back`.
                    if self.halt.is_some() {
                        self.end_without_worker(fx);
                    }
                    return;
                }
                if self.halt.is_some() && !self.steps().get(index).is_some_and(|s| s.always_run) {
                    // Stopped while the step was being written down: it never
                    // ran, and ends as cancelled.
                    self.step_end = Some(CommandEnd::Killed("stopped".into()));
                    self.phase = Phase::Closing { index };
                    fx.push(Effect::CloseLog { line: "stopped before the command began".into() });
                    return;
                }
                self.send_command(now, index, fx);
            }
            // Said above.
            Next::GivenBack => {}
            Next::End { result, requeue } => {
                self.phase = Phase::Over;
                self.kill_by = None;
                self.away = None;
                self.clocks.stop();
                let teaches = result == BuildResult::Success
                    || planted::is("expectations_learn_from_failures");
                let times = teaches.then(|| StepTimes {
                    factory: self.order.config.factory_digest.clone(),
                    steps: std::mem::take(&mut self.times),
                });
                fx.push(Effect::Finished { result, requeue, times });
            }
        }
    }

    fn on_command_ended(
        &mut self,
        command: &CommandId,
        end: CommandEnd,
        properties: Vec<(String, String)>,
        fx: &mut Vec<Effect>,
    ) {
        match self.phase {
            Phase::Running { index } if self.command(index) == *command => {
                let end = self.clocks.judged(end);
                let line = end_line(&end);
                self.step_end = Some(end);
                self.properties = properties;
                self.kill_by = None;
                self.phase = Phase::Closing { index };
                fx.push(Effect::CloseLog { line });
            }
            _ => fx.push(Effect::Ignored("end of a command that does not run")),
        }
    }

    fn on_log_closed(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        let Phase::Closing { index } = self.phase else {
            fx.push(Effect::Ignored("closed log of a step that is over"));
            return;
        };
        let end = self.step_end.take();
        let Some(step) = self.steps().get(index).cloned() else { return };
        let result = self.judge(&step, end.as_ref());
        // Of a step that failed harmlessly, too: the build took that long.
        self.times.push((step.name.clone(), self.step_ran + now.since(self.step_began)));
        let text = step_text(&step, result, end.as_ref());
        let mut records = vec![Record::FinishLog, Record::FinishStep { result, text }];
        let properties = std::mem::take(&mut self.properties);
        if !properties.is_empty() {
            records.push(Record::SetProperties(properties));
        }
        if let (Some(CommandEnd::Killed(reason)), None) = (&end, &self.halt)
            && reason == "lease"
        {
            // The worker ended it by itself: the build is lost, not failed.
            self.finish_lost(records, "its lease ran out", fx);
            return;
        }
        self.go_on(now, index + 1, records, fx);
    }

    /// What a step's end means for the step and the build.
    fn judge(&mut self, step: &StepSpec, end: Option<&CommandEnd>) -> BuildResult {
        let result = match end {
            Some(CommandEnd::Exit(0)) => BuildResult::Success,
            Some(CommandEnd::Killed(_)) if self.halt.is_some() => {
                self.halt.as_ref().map_or(BuildResult::Cancelled, |halt| halt.result)
            }
            Some(CommandEnd::Exit(_) | CommandEnd::Signal(_) | CommandEnd::Timeout(_)) => {
                BuildResult::Failure
            }
            Some(CommandEnd::Error(_)) => BuildResult::Failure,
            Some(CommandEnd::Killed(_) | CommandEnd::Refused(_)) | None => BuildResult::Exception,
        };
        self.count(step, result);
        result
    }

    /// What a step's result means for the build.
    fn count(&mut self, step: &StepSpec, result: BuildResult) {
        match result {
            BuildResult::Success | BuildResult::Skipped => {}
            BuildResult::Failure => {
                if step.flunk_on_failure {
                    self.result = self.result.worst(BuildResult::Failure);
                    self.failures.push(format!("failed '{}' (failure)", step.name));
                } else if step.warn_on_failure {
                    self.result = self.result.worst(BuildResult::Warnings);
                    self.failures.push(format!("warnings '{}'", step.name));
                }
                self.halted |= step.halt_on_failure;
            }
            other => {
                self.result = self.result.worst(other);
                self.failures.push(format!("{other} '{}'", step.name));
                self.halted = true;
            }
        }
    }

    /// It ends before its steps have. One effect, however often it is asked for
    /// (fault row FF04).
    fn halt(&mut self, now: Timestamp, halt: Halt, fx: &mut Vec<Effect>) {
        if self.halt.is_some() {
            return;
        }
        let reason = halt.reason.clone();
        if halt.result != BuildResult::Cancelled {
            self.failures.push(reason.clone());
        }
        self.halt = Some(halt);
        if self.away.is_some() {
            self.end_without_worker(fx);
            return;
        }
        if let Phase::Running { index } = self.phase {
            self.interrupt(now, index, reason, fx);
        }
    }

    fn interrupt(&mut self, now: Timestamp, index: usize, reason: String, fx: &mut Vec<Effect>) {
        self.kill_by = Some(now + self.order.kill_time + AFTER_KILL);
        fx.push(Effect::SendInterrupt { command: self.command(index), reason });
    }

    /// Ends a halted build whose worker is away or does not answer (fault rows
    /// FF02, FF05): as the halt says, and not queued again.
    fn end_without_worker(&mut self, fx: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Writing(_)) {
            // Once written it goes on: to its next step, which cannot run, or
            // to its end.
            return;
        }
        let result = self.halt.as_ref().map_or(BuildResult::Exception, |halt| halt.result);
        self.finish(result, false, fx);
    }

    /// Ends the build with its current step cut short.
    fn finish(&mut self, result: BuildResult, requeue: bool, fx: &mut Vec<Effect>) {
        let mut records = Vec::new();
        if matches!(self.phase, Phase::Running { .. } | Phase::Closing { .. }) {
            let text = format!("{result}: {}", self.summary(result));
            records.push(Record::FinishLog);
            records.push(Record::FinishStep { result, text });
        }
        if !self.started {
            records.push(Record::StartBuild);
        }
        let text = self.summary(result);
        records.push(Record::FinishBuild { result, text, requeue });
        self.write(records, Next::End { result, requeue }, fx);
    }

    fn on_back(
        &mut self,
        now: Timestamp,
        incarnation: Incarnation,
        command: Option<CommandId>,
        lost: bool,
        fx: &mut Vec<Effect>,
    ) {
        self.order.incarnation = incarnation;
        self.held_until = None;
        if self.away.take().is_some() {
            fx.push(Effect::TellAway(None));
        }
        if self.in_doubt.is_some() {
            self.out_of_doubt(now, command, lost, fx);
            return;
        }
        if lost {
            self.lose("the worker program was restarted and the processes are gone", fx);
            return;
        }
        let current = match self.phase {
            Phase::Running { index } => command.as_ref() == Some(&self.command(index)),
            _ => false,
        };
        fx.push(Effect::SendContinue { command: command.clone(), current });
        if let Phase::Running { index } = self.phase {
            // Written down while the worker was away, or the command never
            // reached it: a command with a known id is not begun twice.
            if command.as_ref() == Some(&self.command(index)) {
                self.listen_again(now, index);
            } else {
                self.step_began = now;
                self.step_ran = Duration::ZERO;
                self.send_command(now, index, fx);
            }
        }
    }

    fn send_command(&mut self, now: Timestamp, index: usize, fx: &mut Vec<Effect>) {
        self.watch_step(now, index);
        fx.push(Effect::SendCommand { index, command: self.command(index) });
    }

    fn on_deadline(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            fx.push(Effect::Write(self.writing.clone()));
        }
        if self.kill_by.is_some_and(|by| by <= now) {
            self.kill_by = None;
            fx.push(Effect::DropConnection("it did not end a command that was interrupted"));
            self.note_silence();
            self.end_without_worker(fx);
        }
        self.on_clocks(now, fx);
        if let Some(since) = self.away
            && let Some(lost_at) = self.lost_at(since)
            && (lost_at <= now || planted::is("b25_lost_before_the_grace"))
        {
            if self.in_doubt.is_some() {
                self.give_back(fx);
                return;
            }
            let away = lost_at.since(since).as_secs();
            self.lose(&format!("away for more than {away} s"), fx);
        }
    }

    fn on_recover(
        &mut self,
        now: Timestamp,
        last_step: Option<(usize, bool)>,
        results: Vec<(usize, BuildResult)>,
        step_ran: Duration,
    ) {
        self.in_doubt = None;
        self.started = true;
        self.away = Some(now);
        self.step_began = now;
        self.step_ran = step_ran;
        for (index, result) in results {
            let Some(step) = self.steps().get(index).cloned() else { continue };
            self.count(&step, result);
        }
        // A step and its successor are written together, so a build without a
        // step under way has none at all: it goes on from where it stands.
        let index = last_step.map_or(0, |(index, ended)| if ended { index + 1 } else { index });
        self.phase = Phase::Running { index };
    }

    /// Its claim, id and builder.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Whether the worker may speak of this command: it was given, over
    /// whichever connection.
    #[must_use]
    pub fn has_given(&self, command: &CommandId) -> bool {
        let given = match self.phase {
            Phase::New | Phase::Writing(Next::GivenBack) => 0,
            Phase::Writing(Next::Step { index, .. }) => index,
            Phase::Running { index } | Phase::Closing { index } => index + 1,
            Phase::Writing(Next::End { .. }) | Phase::Over => self.steps().len(),
        };
        (0..given).any(|index| self.command(index) == *command)
    }

    /// Whether its worker is away.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }
}

fn end_line(end: &CommandEnd) -> String {
    match end {
        CommandEnd::Exit(code) => format!("program finished with exit code {code}"),
        CommandEnd::Signal(signal) => format!("program was ended by signal {signal}"),
        CommandEnd::Timeout(text) => format!("program was ended: {text}"),
        CommandEnd::Killed(reason) => format!("program was ended: {reason}"),
        CommandEnd::Error(text) => format!("program could not run: {text}"),
        CommandEnd::Refused(text) => format!("the worker refused the command: {text}"),
    }
}

fn step_text(step: &StepSpec, result: BuildResult, end: Option<&CommandEnd>) -> String {
    let name = &step.name;
    match (result, end) {
        (BuildResult::Success, _) => format!("'{name}'"),
        (_, Some(CommandEnd::Timeout(text))) => format!("'{name}' timed out: {text}"),
        (_, Some(CommandEnd::Error(text) | CommandEnd::Refused(text))) => {
            format!("'{name}' could not run: {text}")
        }
        (_, Some(CommandEnd::Exit(code))) => format!("'{name}' exit code {code} ({result})"),
        (_, Some(CommandEnd::Signal(signal))) => format!("'{name}' signal {signal} ({result})"),
        _ => format!("'{name}' ({result})"),
    }
}
