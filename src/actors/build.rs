//! The Build actor: carries one build from its worker's acceptance to its end.

mod again;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Handler, MessageResult, Recipient, Supervised};
use bytes::Bytes;

use super::runtime::{Alarm, ChildDown, Parent, World};
use super::worker::{NEVER_GIVEN, breach};
use crate::actors::context::Context;
use crate::core::build::{BuildCore, CommandEnd, Effect, Event, Order, Record};
use crate::core::builder::{Event as ToBuilder, Prediction, Request};
use crate::core::ids::*;
use crate::core::lease::grace_to_keep;
use crate::core::time::{Timestamp, WallTime};
use crate::core::values::{
    BuildResult, CheckoutMode, Program, Properties, Property, StepKind, StepSpec,
};
use crate::core::views::Away;
use crate::faults;
use crate::messages::*;
use crate::protocol::json_v1::{
    GitArgs, MasterFrame, Outcome, Resume, ResumeAction, STDIO, ShellArgs, Work,
};
use crate::store::logs::{LogClosed, Piece};
use crate::store::{LogRow, Op, OpOutcome, RequestsAfter, StepRow, Transaction, Written};

/// What a Build is made from.
pub struct BuildOrder {
    /// For its core.
    pub order: Order,
    /// Its own, its builder's and its buildset's properties.
    pub properties: Properties,
    /// Its worker.
    pub worker: Arc<WorkerHandle>,
    /// The worker's connection, when it is there.
    pub link: Option<WorkerLink>,
    /// A build of an earlier master: its steps so far.
    pub recovered: Option<Recovered>,
    /// Whether its worker has it is not known.
    pub in_doubt: Option<Doubt>,
    /// What is expected of it, to be kept when it starts.
    pub expected: Option<Prediction>,
    /// Who hears of its life.
    pub builder: Recipient<BuilderEvent>,
    /// Who hears of its end.
    pub finished: Recipient<BuildFinished>,
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
    /// How long nobody else may have it, whatever the grace is.
    pub hold: Duration,
}

/// Another Builder looks after the build from now on: the one that started it
/// gave up. Answered with the build's claim.
#[derive(actix::Message)]
#[rtype(result = "ClaimId")]
pub struct NewParent {
    /// Who hears of its life.
    pub builder: Recipient<BuilderEvent>,
    /// Who hears of its end.
    pub finished: Recipient<BuildFinished>,
    /// Who hears of its panics.
    pub down: Recipient<ChildDown>,
}

/// One build.
pub struct Build {
    world: World,
    core: BuildCore,
    properties: Properties,
    worker: Arc<WorkerHandle>,
    link: Option<WorkerLink>,
    recovered: Option<Recovered>,
    in_doubt: Option<Doubt>,
    prediction: Option<Prediction>,
    builder: Recipient<BuilderEvent>,
    finished: Recipient<BuildFinished>,
    parent: Parent,
    alarm: Alarm,
    number: Option<BuildNumber>,
    step: Option<Arc<StepRow>>,
    log: Option<Arc<LogRow>>,
    command: Option<CommandId>,
    command_began: Timestamp,
    expected: Option<u64>,
    /// What the worker says of the current log's bytes.
    digest: Option<String>,
    /// The current log was asked for once more.
    asked: Option<again::Asked>,
    /// Bytes of the logs of the steps before.
    logged: u64,
    log_closed: Option<LogClosed>,
    /// Written once the current log is closed.
    pending: Option<Vec<Record>>,
    /// Answers to earlier writes are stale.
    ticket: u64,
    requeued: Vec<Request>,
    /// Frames that wait until the worker was told to go on.
    continuing: Option<Vec<MasterFrame>>,
    /// The worker's new number, until the store knows that the build is its.
    unadopted: Option<Incarnation>,
    /// As the builder was told last.
    away: Option<Away>,
    begun: bool,
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct StoreAnswered {
    ticket: u64,
    written: Written,
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct Adopted {
    incarnation: Incarnation,
    ok: bool,
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct LogAnswered {
    log: LogId,
    closed: Result<LogClosed, crate::store::StoreError>,
}

#[derive(actix::Message)]
#[rtype(result = "()")]
struct LogReopened {
    session: SessionId,
    command: Option<CommandId>,
    have: Option<u64>,
}

impl Build {
    /// A build that begins, or goes on, once it is started; `parent` hears of
    /// its panics.
    #[must_use]
    pub fn new(world: World, order: BuildOrder, parent: Parent) -> Self {
        Self {
            world,
            core: BuildCore::new(order.order),
            properties: order.properties,
            worker: order.worker,
            link: order.link,
            recovered: order.recovered,
            in_doubt: order.in_doubt,
            prediction: order.expected,
            builder: order.builder,
            finished: order.finished,
            parent,
            alarm: Alarm::default(),
            number: None,
            step: None,
            log: None,
            command: None,
            command_began: Timestamp::default(),
            expected: None,
            digest: None,
            asked: None,
            logged: 0,
            log_closed: None,
            pending: None,
            ticket: 0,
            requeued: Vec::new(),
            continuing: None,
            unadopted: None,
            away: None,
            begun: false,
        }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        faults::point("build.step");
        let mut effects = Vec::new();
        self.core.handle(self.world.clock.now(), event, &mut effects);
        for effect in effects {
            self.perform(effect, ctx);
        }
        let at = self.core.next_deadline();
        self.alarm.set(ctx, &self.world.clock, at, |build, ctx| {
            build.alarm.rang();
            build.step(Event::DeadlineReached, ctx);
        });
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let claim = self.core.order().claim;
        match effect {
            Effect::Write(records) => self.write(records, ctx),
            Effect::SendCommand { index, command } => self.send_command(index, command),
            Effect::SendContinue { command, current } => {
                self.send_continue(command, current, ctx);
            }
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
                self.close_log(ctx);
            }
            Effect::Finished { result, requeue: _, times } => {
                self.over(Some(result), ctx);
                self.finished.do_send(BuildFinished {
                    claim,
                    result,
                    requeued: std::mem::take(&mut self.requeued),
                    times,
                });
            }
            Effect::Started => {
                if let Some(number) = self.number {
                    self.builder.do_send(BuilderEvent(ToBuilder::Started { claim, number }));
                }
            }
            Effect::TellAway(away) => {
                if away.is_some() {
                    self.link = None;
                    faults::crash_point("orphan.noted");
                }
                self.away = away;
                self.builder.do_send(BuilderEvent(ToBuilder::Orphaned { claim, away }));
            }
            Effect::AskSilence { command } => {
                let now = self.world.clock.now().mono;
                let wrote = self.link.as_ref().and_then(|link| link.logs().wrote(&command));
                let since = wrote.map(|at| now.since(at));
                ctx.notify(BuildEvent(Event::Silent { command, since }));
            }
            Effect::DropConnection(reason) => {
                if let Some(link) = &self.link {
                    link.close(reason);
                }
            }
            Effect::GivenBack => {
                self.over(None, ctx);
                self.finished.do_send(BuildFinished {
                    claim,
                    result: BuildResult::Retry,
                    requeued: std::mem::take(&mut self.requeued),
                    times: None,
                });
            }
            Effect::Disown => {
                tracing::error!(build = %self.core.order().build, "the store says that this build is not ours; it is left alone");
                self.over(None, ctx);
                self.finished.do_send(BuildFinished {
                    claim,
                    result: BuildResult::Exception,
                    // It may be its own end that was written before a panic.
                    requeued: std::mem::take(&mut self.requeued),
                    times: None,
                });
            }
            Effect::Ignored(kind) => self.world.ignored(kind),
        }
    }

    fn over(&mut self, result: Option<BuildResult>, ctx: &mut Context<Self>) {
        if let (Some(log), None) = (&self.log, &self.log_closed) {
            // Nobody will close it.
            self.world.logs.forget(log.id);
        }
        let result = result.map(BuildResult::word);
        self.worker.tell(ForgetBuild { build: self.core.order().build, result });
        ctx.stop();
    }

    fn send(&mut self, frame: MasterFrame) {
        match (&mut self.continuing, &self.link) {
            (Some(waiting), _) => waiting.push(frame),
            (None, Some(link)) => {
                link.send(&frame);
            }
            (None, None) => self.world.ignored("frame for a worker that is away"),
        }
    }

    /// A write that tells how the current log ended waits until it has.
    fn write(&mut self, records: Vec<Record>, ctx: &mut Context<Self>) {
        let needs_log =
            records.contains(&Record::FinishLog) && self.log.is_some() && self.log_closed.is_none();
        if needs_log {
            self.pending = Some(records);
            self.close_log(ctx);
            return;
        }
        let ops = self.ops(&records);
        self.ticket += 1;
        let (ticket, me) = (self.ticket, ctx.address());
        self.world.store.write(
            Transaction { ops },
            Box::new(move |written| me.do_send(StoreAnswered { ticket, written })),
        );
    }

    fn ops(&self, records: &[Record]) -> Vec<Op> {
        let order = self.core.order();
        let (build, incarnation) = (order.build, order.incarnation);
        let at = self.world.clock.now().wall;
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
        // The fence is the new number: it must be stored before, or with, the
        // first thing that is written under it.
        let adopt = self.unadopted.map(|incarnation| Op::AdoptBuild { build, incarnation });
        let starts = records.contains(&Record::StartBuild);
        let predict = self.prediction.filter(|_| starts);
        let predict = predict.map(|expected| Op::Predict { build, expected });
        let ends = |record: &Record| matches!(record, Record::FinishBuild { .. });
        let undone = records.contains(&Record::GiveBack);
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
                    self.digest = None;
                    self.asked = None;
                    if let Some(log) = &self.log {
                        self.world.logs.open(log.clone());
                        self.world.logs.after_others(log.id, self.logged);
                    }
                }
                OpOutcome::Requeued { requests } => {
                    self.requeued = requests.iter().map(super::convert::request).collect();
                }
                _ => {}
            }
        }
    }

    fn send_command(&mut self, index: usize, command: CommandId) {
        let order = self.core.order();
        let Some(step) = order.config.factory.steps.get(index).cloned() else { return };
        let (build, epoch, config) = (order.build, order.epoch, order.config.clone());
        let work = self.work(&step, &config.env);
        self.command_began = self.world.clock.now().mono;
        self.open_route(&command);
        self.header(&shown(&step));
        self.command = Some(command.clone());
        self.send(MasterFrame::StartCommand { build, epoch, command, work });
    }

    fn open_route(&self, command: &CommandId) {
        if let (Some(link), Some(log)) = (&self.link, &self.log) {
            link.logs().open(
                command.clone(),
                LogRoute { build: self.core.order().build, name: STDIO.into(), log: log.id },
            );
        }
    }

    fn work(&self, step: &StepSpec, builder_env: &BTreeMap<String, String>) -> Work {
        let mut env = builder_env.clone();
        env.extend(step.env.clone());
        let ms = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let timeout_ms = step.timeout.map(ms);
        let max_time_ms = step.max_time.map(ms);
        match &step.kind {
            StepKind::Run { program } => {
                let (argv, shell) = match program {
                    Program::Argv(argv) => (Some(argv.clone()), None),
                    Program::Shell(line) => (None, Some(line.clone())),
                };
                let workdir = step.workdir.clone();
                Work::Shell(ShellArgs { argv, shell, workdir, env, timeout_ms, max_time_ms })
            }
            StepKind::Git { repository, branch, mode, submodules, depth } => {
                let wanted = |name: &str| {
                    let property = self.properties.get(name)?;
                    let text = property.value.text();
                    (!text.is_empty()).then(|| text.into_owned())
                };
                let mode = match mode {
                    CheckoutMode::Clean => "clean",
                    CheckoutMode::Incremental => "incremental",
                };
                Work::Git(GitArgs {
                    repository: repository.clone(),
                    branch: wanted("branch").or_else(|| branch.clone()),
                    revision: wanted("revision"),
                    mode: mode.into(),
                    submodules: *submodules,
                    depth: *depth,
                    workdir: step.workdir.clone(),
                    env,
                    timeout_ms,
                    max_time_ms,
                })
            }
        }
    }

    /// The worker is back: it is told from where to send the current log, and
    /// only then anything else.
    fn send_continue(
        &mut self,
        command: Option<CommandId>,
        current: bool,
        ctx: &mut Context<Self>,
    ) {
        let Some(link) = self.link.clone() else { return };
        self.continuing = Some(Vec::new());
        let (session, me) = (link.session, ctx.address());
        match (&self.log, &command) {
            (Some(log), Some(brought)) if current && self.log_closed.is_none() => {
                self.open_route(brought);
                self.command = Some(brought.clone());
                self.world.logs.reopen(
                    log.clone(),
                    Box::new(move |have| {
                        let have = have.ok();
                        me.do_send(LogReopened { session, command, have });
                    }),
                );
            }
            _ => {
                // What it still says of that command is late, and no breach.
                if let Some(command) = &command {
                    link.logs().close(command);
                }
                me.do_send(LogReopened { session, command, have: None });
            }
        }
    }

    /// The worker speaks of a command that this build may never have given it.
    fn late(&self, command: &CommandId, late: Option<&'static str>) {
        if self.core.has_given(command) {
            late.into_iter().for_each(|kind| self.world.ignored(kind));
        } else if let Some(link) = &self.link {
            let message = format!("command {command} was never given");
            breach(&self.world, link, &self.worker.name, NEVER_GIVEN, message);
        }
    }

    /// One line of the master's own in the current log.
    fn header(&self, line: &str) {
        let Some(log) = &self.log else { return };
        let began = self.command_began;
        let at_ms = self.world.clock.now().mono.since(began).as_millis();
        self.world.logs.append(Piece {
            log: log.id,
            channel: b'h',
            offset: None,
            bytes: Bytes::from(format!("{line}\n")),
            at_ms: u64::try_from(at_ms).unwrap_or(0),
            confirm: None,
            permit: None,
        });
    }

    fn close_log(&mut self, ctx: &mut Context<Self>) {
        let Some(log) = &self.log else {
            ctx.notify(LogAnswered {
                log: LogId(0),
                closed: Err(crate::store::StoreError::Closed),
            });
            return;
        };
        let (id, me) = (log.id, ctx.address());
        if let Some(digest) = &self.digest {
            self.world.logs.expect_digest(id, digest.clone());
        }
        self.world.logs.close(
            id,
            self.expected,
            Box::new(move |closed| me.do_send(LogAnswered { log: id, closed })),
        );
    }

    /// Stores that the worker's new number owns the build, until it is stored.
    fn adopt(&mut self, ctx: &mut Context<Self>) {
        let Some(incarnation) = self.unadopted else { return };
        let (build, me) = (self.core.order().build, ctx.address());
        self.world.store.write(
            Transaction::of(Op::AdoptBuild { build, incarnation }),
            Box::new(move |written| me.do_send(Adopted { incarnation, ok: written.is_ok() })),
        );
    }

    fn recover(&mut self, known: Recovered, ctx: &mut Context<Self>) {
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
        let now = self.world.clock.now().wall;
        let step_ran = steps.last().map(|(step, _)| took(step, now)).unwrap_or_default();
        self.logged = steps.iter().flat_map(|(_, logs)| logs).map(|log| log.length).sum();
        let last_step =
            steps.last().map(|(step, _)| (step.number as usize, step.complete_at.is_some()));
        if let Some((step, logs)) = steps.into_iter().last() {
            let open = step.complete_at.is_none();
            self.step = Some(Arc::new(step));
            self.log = logs.into_iter().next().filter(|_| open).map(Arc::new);
        }
        if let Some(log) = &self.log {
            self.world.logs.reopen(log.clone(), Box::new(|_| {}));
            self.world.logs.after_others(log.id, self.logged);
        }
        let ran = u64::try_from(now.0.saturating_sub(started_at.0)).unwrap_or_default();
        let ran = Duration::from_micros(ran);
        self.step(Event::Recover { last_step, results, times, step_ran, ran, hold }, ctx);
    }
}

/// What the log begins with.
fn shown(step: &StepSpec) -> String {
    match &step.kind {
        StepKind::Run { program: Program::Argv(argv) } => format!("$ {}", argv.join(" ")),
        StepKind::Run { program: Program::Shell(line) } => format!("$ sh -c '{line}'"),
        StepKind::Git { repository, .. } => format!("checkout of {repository}"),
    }
}

impl Actor for Build {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.begun {
            return;
        }
        self.begun = true;
        let order = self.core.order();
        let link = self.link.as_ref().map(|link| link.session);
        self.worker.tell(RegisterBuild {
            build: order.build,
            claim: order.claim,
            builder: order.config.name.clone(),
            session: link.or(self.in_doubt.and_then(|doubt| doubt.session)),
            in_doubt: self.in_doubt.is_some(),
            door: BuildDoor {
                event: ctx.address().recipient(),
                finished: ctx.address().recipient(),
                said: ctx.address().recipient(),
                back: ctx.address().recipient(),
            },
        });
        match self.recovered.take() {
            Some(known) => self.recover(known, ctx),
            None => {
                let begins = match self.in_doubt.take() {
                    Some(Doubt { session: _, wait }) => Event::InDoubt { wait },
                    None => Event::Begin,
                };
                self.step(begins, ctx);
            }
        }
    }
}

impl Supervised for Build {
    /// An exception inside a build is a result, never a wedged worker (row
    /// B16): what was on its way is stale, the build ends.
    fn restarting(&mut self, ctx: &mut Context<Self>) {
        self.alarm.rang();
        self.ticket += 1;
        self.pending = None;
        self.continuing = None;
        if let (Some(link), Some(command)) = (&self.link, &self.command) {
            link.send(&MasterFrame::Interrupt {
                build: self.core.order().build,
                command: command.clone(),
                grace_s: self.core.order().kill_time.as_secs(),
                reason: "the master's part of the build failed".into(),
            });
        }
        let error = "the master's part of the build failed; see its log".to_owned();
        ctx.notify(BuildEvent(Event::Broken { error }));
    }
}

impl Handler<BuildEvent> for Build {
    type Result = ();
    fn handle(&mut self, message: BuildEvent, ctx: &mut Context<Self>) {
        self.step(message.0, ctx);
    }
}

impl Handler<NewParent> for Build {
    type Result = MessageResult<NewParent>;
    fn handle(&mut self, new: NewParent, _: &mut Context<Self>) -> Self::Result {
        self.builder = new.builder;
        self.finished = new.finished;
        self.parent.becomes(new.down);
        let claim = self.core.order().claim;
        // What was told to the one before may be lost.
        if let Some(number) = self.number {
            self.builder.do_send(BuilderEvent(ToBuilder::Started { claim, number }));
        }
        if self.away.is_some() {
            let away = self.away;
            self.builder.do_send(BuilderEvent(ToBuilder::Orphaned { claim, away }));
        }
        MessageResult(claim)
    }
}

impl Handler<CommandFinished> for Build {
    type Result = ();
    fn handle(&mut self, message: CommandFinished, ctx: &mut Context<Self>) {
        faults::point("build.command_finished");
        if self.command.as_ref() != Some(&message.command) {
            self.late(&message.command, Some("end of a command that does not run"));
            return;
        }
        self.expected = message.log_end.get(STDIO).copied();
        self.digest = message.log_digest.get(STDIO).cloned();
        if self.has_come_again(&message.command) {
            return self.close_log(ctx);
        }
        let end = match message.outcome {
            Outcome::Exit(code) => CommandEnd::Exit(code),
            Outcome::Signal(signal) => CommandEnd::Signal(signal),
            Outcome::Timeout { what, after_s } => CommandEnd::Timeout(match what.as_str() {
                "no_output" => format!("no output for {after_s} s"),
                _ => format!("it ran longer than {after_s} s"),
            }),
            Outcome::Killed(reason) => CommandEnd::Killed(reason),
            Outcome::Error(text) => CommandEnd::Error(text),
        };
        let (command, properties) = (message.command, message.properties);
        self.step(Event::CommandEnded { command, end, properties }, ctx);
    }
}

impl Handler<CommandSaid> for Build {
    type Result = ();
    fn handle(&mut self, said: CommandSaid, _: &mut Context<Self>) {
        self.late(&said.command, said.late);
    }
}

impl Handler<WorkerBack> for Build {
    type Result = ();
    fn handle(&mut self, back: WorkerBack, ctx: &mut Context<Self>) {
        self.link = Some(back.link);
        self.unadopted = Some(back.incarnation);
        self.adopt(ctx);
        self.step(
            Event::Back {
                incarnation: back.incarnation,
                command: back.brought.command,
                lost: back.brought.lost,
            },
            ctx,
        );
    }
}

impl Handler<StoreAnswered> for Build {
    type Result = ();
    fn handle(&mut self, answer: StoreAnswered, ctx: &mut Context<Self>) {
        let stale = answer.ticket != self.ticket;
        let event = match answer.written {
            Ok(outcomes) => {
                self.absorb(outcomes);
                Event::Written
            }
            Err(error) => {
                tracing::warn!(build = %self.core.order().build, %error, "the build's progress was not stored");
                Event::WriteFailed { transient: !error.is_final(), error: error.to_string() }
            }
        };
        if stale {
            self.world.ignored("answer to a write of before a restart");
        } else {
            self.step(event, ctx);
        }
    }
}

impl Handler<LogAnswered> for Build {
    type Result = ();
    fn handle(&mut self, answer: LogAnswered, ctx: &mut Context<Self>) {
        if self.log.as_ref().is_some_and(|log| log.id != answer.log) {
            self.world.ignored("closed log of a step that is over");
            return;
        }
        if answer.closed.as_ref().is_ok_and(|closed| closed.differs) {
            // A build that ends waits for nobody.
            if self.pending.is_some() || !self.ask_again(ctx) {
                self.close_log(ctx);
            }
            return;
        }
        // Until now what became durable was confirmed to the worker.
        if let (Some(link), Some(command)) = (&self.link, &self.command) {
            link.logs().close(command);
        }
        let mut closed = answer.closed.unwrap_or_else(|error| LogClosed {
            num_lines: 0,
            length: 0,
            worker_length: 0,
            inline: None,
            incomplete: Some(error.to_string()),
            differs: false,
        });
        // The build ends and nobody has said how long the log is: there may be
        // more of it on the worker (invariant I9).
        if self.pending.is_some() && self.expected.is_none() && closed.incomplete.is_none() {
            closed.incomplete = Some("the build ended before the worker had told all of it".into());
        }
        self.logged = self.logged.saturating_add(closed.worker_length);
        self.log_closed = Some(closed);
        match self.pending.take() {
            Some(records) => self.write(records, ctx),
            None => self.step(Event::LogClosed, ctx),
        }
    }
}

impl Handler<LogReopened> for Build {
    type Result = ();
    fn handle(&mut self, reopened: LogReopened, _: &mut Context<Self>) {
        let Some(link) = self.link.clone().filter(|link| link.session == reopened.session) else {
            self.world.ignored("reopened log for a connection that is gone");
            return;
        };
        link.send(&MasterFrame::Resume(Resume {
            build: self.core.order().build,
            command: reopened.command,
            r#do: ResumeAction::Continue,
            log_from: reopened.have.map(|have| (STDIO.to_owned(), have)).into_iter().collect(),
        }));
        for frame in self.continuing.take().unwrap_or_default() {
            link.send(&frame);
        }
    }
}

impl Handler<Adopted> for Build {
    type Result = ();
    fn handle(&mut self, adopted: Adopted, ctx: &mut Context<Self>) {
        if self.unadopted != Some(adopted.incarnation) {
            return;
        }
        if adopted.ok {
            self.unadopted = None;
        } else {
            ctx.run_later(std::time::Duration::from_secs(1), |build, ctx| build.adopt(ctx));
        }
    }
}
