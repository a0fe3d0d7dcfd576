//! The shell of a Build, after `actors/build.rs`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::build::{BuildCore, CommandEnd, Effect, Event, Order, Record};
use botmaster::core::builder::{Event as ToBuilder, Prediction, Request, named_worker};
use botmaster::core::ids::*;
use botmaster::core::lease::grace_to_keep;
use botmaster::core::time::WallTime;
use botmaster::core::values::{BuildResult, Properties, Property};
use botmaster::protocol::json_v1::{
    MasterFrame, Outcome, Resume, ResumeAction, STDIO, ShellArgs, Work,
};
use botmaster::store::logs::LogClosed;
use botmaster::store::{
    LogRow, Op, OpOutcome, RequestRow, RequestWithSet, RequestsAfter, SetPart, StepRow, StoreError,
    Transaction,
};

use crate::bus::{Addr, Alarm, Bus, LogAsk};
use crate::message::*;
use crate::watch::Seen;

use super::connection::Routes;

/// A store row as the core knows it, as `actors::convert::request`.
pub fn request(request: &RequestWithSet) -> Request {
    Request { losses: request.losses.clone(), ..with_set(&request.row, &request.set) }
}

/// The same, with what its buildset says.
pub fn with_set(row: &RequestRow, set: &SetPart) -> Request {
    Request {
        id: row.id,
        buildset: row.buildset,
        priority: row.priority,
        submitted_at: row.submitted_at,
        epoch: row.epoch,
        requeued: row.requeued,
        infra_tries: row.infra_tries,
        losses: Arc::default(),
        source: set.source.clone(),
        properties: set.properties.clone(),
        worker: named_worker(&set.properties),
    }
}

/// A build whose start nobody heard an answer to.
#[derive(Clone, Copy)]
pub struct Doubt {
    /// The connection over which it was sent; none when an earlier master sent
    /// it.
    pub session: Option<SessionId>,
    /// How long the worker is waited for.
    pub wait: Duration,
}

/// What is known of a build of an earlier master.
pub struct Recovered {
    /// Its steps so far.
    pub steps: Vec<(StepRow, Vec<LogRow>)>,
    /// When it started.
    pub started_at: WallTime,
    /// How long nobody else may have it.
    pub hold: Duration,
}

/// What a Build is made from.
pub struct BuildOrder {
    /// For its core.
    pub order: Order,
    /// Its properties.
    pub properties: Properties,
    /// Its worker.
    pub worker: Rc<WorkerDoor>,
    /// The worker's connection.
    pub link: Option<SessionId>,
    /// A build of an earlier master: its steps so far.
    pub recovered: Option<Recovered>,
    /// Whether its worker has it is not known.
    pub in_doubt: Option<Doubt>,
    /// What is expected of it.
    pub expected: Option<Prediction>,
    /// Who hears of its life and end.
    pub builder: Addr,
}

/// One build.
pub struct Build {
    me: Addr,
    bus: Rc<Bus>,
    routes: Rc<RefCell<Routes>>,
    /// What decides.
    pub core: BuildCore,
    properties: Properties,
    worker: Rc<WorkerDoor>,
    link: Option<SessionId>,
    recovered: Option<Recovered>,
    in_doubt: Option<Doubt>,
    prediction: Option<Prediction>,
    builder: Addr,
    alarm: Alarm,
    number: Option<BuildNumber>,
    step: Option<Arc<StepRow>>,
    log: Option<Arc<LogRow>>,
    command: Option<CommandId>,
    expected: Option<u64>,
    log_closed: Option<LogClosed>,
    pending: Option<Vec<Record>>,
    ticket: u64,
    requeued: Vec<Request>,
    continuing: Option<Vec<MasterFrame>>,
    unadopted: Option<Incarnation>,
    begun: bool,
}

impl Build {
    /// One that begins, or goes on, once it is started.
    pub fn new(me: Addr, bus: &Rc<Bus>, routes: &Rc<RefCell<Routes>>, order: BuildOrder) -> Self {
        Self {
            me,
            bus: bus.clone(),
            routes: routes.clone(),
            core: BuildCore::new(order.order),
            properties: order.properties,
            worker: order.worker,
            link: order.link,
            recovered: order.recovered,
            in_doubt: order.in_doubt,
            prediction: order.expected,
            builder: order.builder,
            alarm: Alarm::default(),
            number: None,
            step: None,
            log: None,
            command: None,
            expected: None,
            log_closed: None,
            pending: None,
            ticket: 0,
            requeued: Vec::new(),
            continuing: None,
            unadopted: None,
            begun: false,
        }
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.core.handle(self.bus.now(), event, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
        self.alarm.set(&self.bus, self.me, self.core.next_deadline());
    }

    fn perform(&mut self, effect: Effect) {
        let claim = self.core.order().claim;
        match effect {
            Effect::Write(records) => self.write(records),
            Effect::SendCommand { index, command } => self.send_command(index, command),
            Effect::SendContinue { command, current } => self.send_continue(command, current),
            Effect::SendInterrupt { command, reason } => {
                let frame = MasterFrame::Interrupt {
                    build: self.core.order().build,
                    command,
                    grace_s: self.core.order().kill_time.as_secs(),
                    reason,
                };
                self.send(frame);
            }
            Effect::CloseLog { line } => {
                self.header(&line);
                self.close_log();
            }
            Effect::Finished { result, requeue: _, times } => {
                self.over(Some(result));
                let requeued = std::mem::take(&mut self.requeued);
                self.bus.send(self.builder, Msg::BuildFinished { claim, result, requeued, times });
            }
            Effect::Started => {
                if let Some(number) = self.number {
                    let event = ToBuilder::Started { claim, number };
                    self.bus.send(self.builder, Msg::BuilderEvent(event));
                }
            }
            Effect::TellAway(away) => {
                if away.is_some() {
                    self.link = None;
                }
                let event = ToBuilder::Orphaned { claim, away };
                self.bus.send(self.builder, Msg::BuilderEvent(event));
            }
            Effect::AskSilence { command } => {
                let now = self.bus.now().mono;
                let wrote =
                    self.link.and_then(|session| self.routes.borrow().wrote(session, &command));
                let since = wrote.map(|at| now.since(at));
                self.bus.send(self.me, Msg::BuildEvent(Event::Silent { command, since }));
            }
            Effect::DropConnection(reason) => {
                if let Some(session) = self.link {
                    self.bus.close(session, reason);
                }
            }
            Effect::GivenBack => {
                self.over(None);
                let requeued = std::mem::take(&mut self.requeued);
                let result = BuildResult::Retry;
                self.bus.send(
                    self.builder,
                    Msg::BuildFinished { claim, result, requeued, times: None },
                );
            }
            Effect::Disown => {
                self.bus.see(Seen::Disowned { build: self.core.order().build });
                self.over(None);
                let requeued = std::mem::take(&mut self.requeued);
                let result = BuildResult::Exception;
                self.bus.send(
                    self.builder,
                    Msg::BuildFinished { claim, result, requeued, times: None },
                );
            }
            Effect::Ignored(kind) => self.bus.see(Seen::Ignored(kind)),
        }
    }

    fn over(&mut self, result: Option<BuildResult>) {
        if let (Some(log), None) = (&self.log, &self.log_closed) {
            self.bus.log(LogAsk::Forget(log.id));
        }
        let result = result.map(BuildResult::word);
        let build = self.core.order().build;
        self.bus.send(self.worker.addr, Msg::ForgetBuild { build, result });
        self.bus.stop(self.me);
    }

    fn send(&mut self, frame: MasterFrame) {
        match (&mut self.continuing, self.link) {
            (Some(waiting), _) => waiting.push(frame),
            (None, Some(session)) => {
                self.bus.frame(session, frame);
            }
            (None, None) => self.bus.see(Seen::Ignored("frame for a worker that is away")),
        }
    }

    fn write(&mut self, records: Vec<Record>) {
        let needs_log =
            records.contains(&Record::FinishLog) && self.log.is_some() && self.log_closed.is_none();
        if needs_log {
            self.pending = Some(records);
            self.close_log();
            return;
        }
        let ops = self.ops(&records);
        self.ticket += 1;
        let (ticket, me, bus) = (self.ticket, self.me, self.bus.clone());
        self.bus.write(
            Transaction { ops },
            Box::new(move |written| bus.send(me, Msg::StoreAnswered { ticket, written })),
        );
    }

    fn ops(&self, records: &[Record]) -> Vec<Op> {
        let order = self.core.order();
        let (build, incarnation) = (order.build, order.incarnation);
        let at = self.bus.now().wall;
        let step = self.step.as_ref().map(|step| step.id);
        let op = |record: &Record| match record {
            Record::StartBuild => Some(Op::StartBuild {
                build,
                incarnation,
                properties: Arc::new(self.properties.clone()),
                grace: grace_to_keep(&order.config),
                at,
            }),
            Record::GiveBack => {
                Some(Op::Unclaim { build, cancelled: Vec::new(), refused: false, at })
            }
            Record::StartStep { index } => {
                let spec = order.config.factory.steps.get(*index)?;
                Some(Op::StartStep {
                    build,
                    number: u32::try_from(*index).ok()?,
                    name: spec.name.clone(),
                    state_string: format!("running '{}'", spec.name),
                    logs: vec![STDIO.into()],
                    at,
                })
            }
            Record::FinishLog => {
                let (log, closed) = (self.log.as_ref()?, self.log_closed.as_ref()?);
                Some(Op::FinishLog {
                    log: log.id,
                    num_lines: closed.num_lines,
                    length: closed.length,
                    inline: closed.inline.clone(),
                    incomplete: closed.incomplete.clone(),
                })
            }
            Record::FinishStep { result, text } => Some(Op::FinishStep {
                step: step?,
                result: *result,
                state_string: text.clone(),
                at,
            }),
            Record::SetProperties(set) => Some(Op::SetProperties {
                build,
                properties: set
                    .iter()
                    .map(|(name, value)| {
                        let property =
                            Property { value: value.as_str().into(), source: "Worker".into() };
                        (name.clone(), property)
                    })
                    .collect(),
            }),
            Record::FinishBuild { result, text, requeue } => Some(Op::FinishBuild {
                build,
                incarnation,
                result: *result,
                state_string: text.clone(),
                requests: if *requeue {
                    RequestsAfter::Requeue { infra: true }
                } else {
                    RequestsAfter::Done
                },
                at,
            }),
        };
        let adopt = self.unadopted.map(|incarnation| Op::AdoptBuild { build, incarnation });
        let predict = self.prediction.filter(|_| records.contains(&Record::StartBuild));
        let predict = predict.map(|expected| Op::Predict { build, expected });
        let ends = |record: &Record| matches!(record, Record::FinishBuild { .. });
        let undone = records.contains(&Record::GiveBack);
        let starts = records.contains(&Record::StartBuild);
        let fenced = starts || undone || records.iter().any(ends);
        let fence = (!fenced).then_some(Op::FenceBuild { build, incarnation });
        adopt.into_iter().chain(fence).chain(records.iter().filter_map(op)).chain(predict).collect()
    }

    fn absorb(&mut self, outcomes: Vec<OpOutcome>) {
        for outcome in outcomes {
            match outcome {
                OpOutcome::Started(row) => self.number = row.number,
                OpOutcome::Step { step, logs } => {
                    self.step = Some(step);
                    self.log = logs.into_iter().next();
                    self.log_closed = None;
                    self.expected = None;
                    if let Some(log) = &self.log {
                        self.bus.log(LogAsk::Open(log.id));
                    }
                }
                OpOutcome::Requeued { requests } => {
                    self.requeued = requests.iter().map(request).collect();
                }
                _ => {}
            }
        }
    }

    fn send_command(&mut self, index: usize, command: CommandId) {
        let order = self.core.order();
        let Some(step) = order.config.factory.steps.get(index).cloned() else { return };
        let (build, epoch) = (order.build, order.epoch);
        let shell = ShellArgs {
            argv: Some(vec!["build".into(), step.name.clone()]),
            env: BTreeMap::new(),
            ..ShellArgs::default()
        };
        self.open_route(&command);
        self.header(&format!("$ {}", step.name));
        self.command = Some(command.clone());
        let work = Work::Shell(shell);
        self.send(MasterFrame::StartCommand { build, epoch, command, work });
    }

    fn open_route(&self, command: &CommandId) {
        if let (Some(session), Some(log)) = (self.link, &self.log) {
            let build = self.core.order().build;
            self.bus.see(Seen::LogOf { log: log.id, command: command.clone() });
            self.routes.borrow_mut().open(session, command.clone(), build, log.id);
        }
    }

    fn send_continue(&mut self, command: Option<CommandId>, current: bool) {
        let Some(session) = self.link else { return };
        self.continuing = Some(Vec::new());
        let (bus, me) = (self.bus.clone(), self.me);
        match (&self.log, &command) {
            (Some(log), Some(brought)) if current && self.log_closed.is_none() => {
                let log = log.id;
                self.open_route(brought);
                self.command = Some(brought.clone());
                self.bus.log(LogAsk::Reopen(
                    log,
                    Box::new(move |have| {
                        let have = have.ok();
                        bus.send(me, Msg::LogReopened { session, command, have });
                    }),
                ));
            }
            _ => bus.send(me, Msg::LogReopened { session, command, have: None }),
        }
    }

    fn header(&self, line: &str) {
        let Some(log) = &self.log else { return };
        self.bus.log(LogAsk::Append {
            log: log.id,
            offset: None,
            bytes: format!("{line}\n").into_bytes(),
            confirm: None,
        });
    }

    fn close_log(&mut self) {
        let Some(log) = &self.log else {
            let closed = Err(StoreError::Closed);
            self.bus.send(self.me, Msg::LogAnswered { log: LogId(0), closed });
            return;
        };
        let (id, me, bus) = (log.id, self.me, self.bus.clone());
        self.bus.log(LogAsk::Close(
            id,
            self.expected,
            Box::new(move |closed| bus.send(me, Msg::LogAnswered { log: id, closed })),
        ));
    }

    fn adopt(&mut self) {
        let Some(incarnation) = self.unadopted else { return };
        let (build, me, bus) = (self.core.order().build, self.me, self.bus.clone());
        self.bus.write(
            Transaction::of(Op::AdoptBuild { build, incarnation }),
            Box::new(move |written| {
                bus.send(me, Msg::Adopted { incarnation, ok: written.is_ok() });
            }),
        );
    }

    fn recover(&mut self, known: Recovered) {
        let Recovered { steps, started_at, hold } = known;
        let results = steps
            .iter()
            .filter_map(|(step, _)| Some((step.number as usize, step.results?)))
            .collect();
        let took = |step: &StepRow, until: WallTime| {
            let began = step.started_at.unwrap_or(until);
            Duration::from_micros(u64::try_from(until.0 - began.0).unwrap_or_default())
        };
        let times = steps
            .iter()
            .filter_map(|(step, _)| Some((step.name.clone(), took(step, step.complete_at?))))
            .collect();
        let step_ran =
            steps.last().map(|(step, _)| took(step, self.bus.now().wall)).unwrap_or_default();
        let last_step =
            steps.last().map(|(step, _)| (step.number as usize, step.complete_at.is_some()));
        if let Some((step, logs)) = steps.into_iter().last() {
            let open = step.complete_at.is_none();
            self.step = Some(Arc::new(step));
            self.log = logs.into_iter().next().filter(|_| open).map(Arc::new);
        }
        if let Some(log) = &self.log {
            self.bus.log(LogAsk::Reopen(log.id, Box::new(|_| {})));
        }
        let ran = self.bus.now().wall.0.saturating_sub(started_at.0);
        let ran = Duration::from_micros(u64::try_from(ran).unwrap_or_default());
        self.step(Event::Recover { last_step, results, times, step_ran, ran, hold });
    }

    fn command_finished(
        &mut self,
        command: CommandId,
        outcome: Outcome,
        log_end: Option<u64>,
        properties: Vec<(String, String)>,
    ) {
        if self.command.as_ref() != Some(&command) {
            if !self.core.has_given(&command) {
                // The master would drop the connection, and its workers are honest.
                self.bus.see(Seen::Oddity("a command that was never given has ended"));
            }
            self.bus.see(Seen::Ignored("end of a command that does not run"));
            return;
        }
        self.expected = log_end;
        let end = match outcome {
            Outcome::Exit(code) => CommandEnd::Exit(code),
            Outcome::Signal(signal) => CommandEnd::Signal(signal),
            Outcome::Timeout { what, after_s } => {
                CommandEnd::Timeout(format!("{what} {after_s} s"))
            }
            Outcome::Killed(reason) => CommandEnd::Killed(reason),
            Outcome::Error(text) => CommandEnd::Error(text),
        };
        self.step(Event::CommandEnded { command, end, properties });
    }

    /// Takes in one message.
    pub fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Started => self.started(),
            Msg::Alarm(number) => {
                if self.alarm.rings(number) {
                    self.step(Event::DeadlineReached);
                }
            }
            Msg::BuildEvent(event) => self.step(event),
            Msg::CommandFinished { command, outcome, log_end, properties } => {
                self.bus.point();
                self.command_finished(command, outcome, log_end, properties);
            }
            Msg::WorkerBack { session, incarnation, brought } => {
                self.link = Some(session);
                self.unadopted = Some(incarnation);
                self.adopt();
                let (command, lost) = (brought.command, brought.lost);
                self.step(Event::Back { incarnation, command, lost });
            }
            Msg::StoreAnswered { ticket, written } => {
                let stale = ticket != self.ticket;
                let event = match written {
                    Ok(outcomes) => {
                        self.absorb(outcomes);
                        Event::Written
                    }
                    Err(error) => Event::WriteFailed {
                        transient: !error.is_final(),
                        error: error.to_string(),
                    },
                };
                if stale {
                    self.bus.see(Seen::Ignored("answer to a write of before a restart"));
                } else {
                    self.step(event);
                }
            }
            Msg::LogAnswered { log, closed } => self.log_answered(log, closed),
            Msg::LogReopened { session, command, have } => {
                self.log_reopened(session, command, have);
            }
            Msg::Adopted { incarnation, ok } => {
                if self.unadopted != Some(incarnation) {
                    return;
                }
                if ok {
                    self.unadopted = None;
                } else {
                    self.bus.later(self.me, Duration::from_secs(1), Msg::AdoptAgain);
                }
            }
            Msg::AdoptAgain => self.adopt(),
            Msg::ChildDown { .. } => {}
            other => panic!("a Build was told {}", other.word()),
        }
    }

    fn started(&mut self) {
        if self.begun {
            return;
        }
        self.begun = true;
        let order = self.core.order();
        self.bus.send(
            self.worker.addr,
            Msg::RegisterBuild {
                build: order.build,
                claim: order.claim,
                builder: order.config.name.clone(),
                session: self.link.or(self.in_doubt.and_then(|doubt| doubt.session)),
                in_doubt: self.in_doubt.is_some(),
                to: self.me,
            },
        );
        match self.recovered.take() {
            Some(known) => self.recover(known),
            None => {
                let begins = match self.in_doubt.take() {
                    Some(Doubt { session: _, wait }) => Event::InDoubt { wait },
                    None => Event::Begin,
                };
                self.step(begins);
            }
        }
    }

    fn log_answered(&mut self, log: LogId, closed: Result<LogClosed, StoreError>) {
        if self.log.as_ref().is_some_and(|present| present.id != log) {
            self.bus.see(Seen::Ignored("closed log of a step that is over"));
            return;
        }
        if let (Some(session), Some(command)) = (self.link, &self.command) {
            self.routes.borrow_mut().close(session, command);
        }
        let mut closed = closed.unwrap_or_else(|error| LogClosed {
            num_lines: 0,
            length: 0,
            worker_length: 0,
            inline: None,
            incomplete: Some(error.to_string()),
            differs: false,
        });
        if self.pending.is_some() && self.expected.is_none() && closed.incomplete.is_none() {
            closed.incomplete = Some("the build ended before the worker had told all of it".into());
        }
        self.log_closed = Some(closed);
        match self.pending.take() {
            Some(records) => self.write(records),
            None => self.step(Event::LogClosed),
        }
    }

    fn log_reopened(&mut self, session: SessionId, command: Option<CommandId>, have: Option<u64>) {
        if self.link != Some(session) {
            self.bus.see(Seen::Ignored("reopened log for a connection that is gone"));
            return;
        }
        self.bus.frame(
            session,
            MasterFrame::Resume(Resume {
                build: self.core.order().build,
                command,
                r#do: ResumeAction::Continue,
                log_from: have.map(|have| (STDIO.to_owned(), have)).into_iter().collect(),
            }),
        );
        for frame in self.continuing.take().unwrap_or_default() {
            self.bus.frame(session, frame);
        }
    }

    /// After a panic.
    pub fn restarting(&mut self) {
        self.alarm.rang();
        self.ticket += 1;
        self.pending = None;
        self.continuing = None;
        if let (Some(session), Some(command)) = (self.link, &self.command) {
            self.bus.frame(
                session,
                MasterFrame::Interrupt {
                    build: self.core.order().build,
                    command: command.clone(),
                    grace_s: self.core.order().kill_time.as_secs(),
                    reason: "the master's part of the build failed".into(),
                },
            );
        }
        let error = "the master's part of the build failed; see its log".to_owned();
        self.bus.send(self.me, Msg::BuildEvent(Event::Broken { error }));
    }
}
