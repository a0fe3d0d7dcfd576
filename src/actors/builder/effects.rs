//! What the core wants done: messages to children and workers, writes, views.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorContext, AsyncContext, Handler};

use super::{Builder, Claimed, Inherited, Input, Mode, Seat};
use crate::actors::build::{Build, BuildOrder, Doubt};
use crate::actors::context::Context;
use crate::actors::convert::request;
use crate::actors::runtime::{MayRestart, Parent, start_supervised};
use crate::actors::slave_builder::SlaveBuilder;
use crate::core::build::{Event as ToBuild, Order};
use crate::core::builder::{
    Answer, Effect, Event, Prediction, ReplyId, Request, StartFailure, StopSaved, Take,
    WORKER_PROPERTY,
};
use crate::core::ids::*;
use crate::core::lease::grace_to_keep;
use crate::core::values::{BuildResult, BuilderConfig, Properties, Property, WORKER_SOURCE};
use crate::faults::crash_point;
use crate::messages::*;
use crate::store::{BuilderNote, BuildsetRow, Op, OpOutcome, RequestsAfter, Transaction, Written};

/// How long a retired builder with nothing left listens for late mail.
const LATE_MAIL: Duration = Duration::from_secs(5);
/// How often people are shown a builder that changes all the time.
const SHOW_EVERY: Duration = Duration::from_millis(50);

/// The store could not undo a claim just then.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct UndoAgain {
    claim: ClaimId,
    build: BuildId,
    cancelled: Vec<RequestId>,
    refused: bool,
}

/// The store could not end a build that no worker took just then.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct GiveUpAgain {
    claim: ClaimId,
    build: BuildId,
    text: String,
}

/// The store could not end requests that left a claimed build just then.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct CancelAgain {
    claim: ClaimId,
    build: BuildId,
    requests: Vec<RequestId>,
    head: RequestId,
}

/// A build that the worker accepted.
pub(super) struct RunOrder {
    claim: ClaimId,
    build: BuildId,
    config: Arc<BuilderConfig>,
    expected: Option<Prediction>,
    take: Take,
}

/// Write what is waiting to be noted.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct FlushNotes;

/// The store answered a claim.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct ClaimWritten {
    claim: ClaimId,
    incarnation: Incarnation,
    written: Written,
}

impl Builder {
    pub(super) fn perform_all(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        for effect in effects {
            self.perform(effect, ctx);
        }
        self.attaches.clear();
        self.show_soon(ctx);
        let at = self.core.next_deadline();
        let clock = self.world().clock.clone();
        self.alarm.set(ctx, &clock, at, |builder, ctx| {
            builder.alarm.rang();
            builder.take(Input::Event(Event::DeadlineReached), ctx);
        });
    }

    pub(super) fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Answer(id, answer) => {
                if let Some(reply) = self.replies.remove(&id) {
                    let told = match answer {
                        Answer::Done(done) => Ok(done),
                        Answer::Failed { error } => Err(Refusal::Store(error)),
                    };
                    // After what was noted before: nobody is told what a crash
                    // could still undo. Whoever asked may have gone; that
                    // changes nothing.
                    let tell = move |_| {
                        let _ = reply.send(told);
                        None
                    };
                    self.write(Vec::new(), tell, ctx);
                }
            }
            Effect::AskSlot { worker, claim } => self.ask_slot(&worker, claim, ctx),
            Effect::GiveBackSlot { worker, claim } => {
                if let Some(handle) = self.worker(&worker) {
                    let builder = self.name().clone();
                    handle.tell(GiveBackSlot { builder, claim });
                }
            }
            Effect::Claim { claim, worker_id, incarnation, requests, config } => {
                self.claim(claim, worker_id, incarnation, requests, &config, ctx);
            }
            Effect::Unclaim { claim, build, cancelled, refused } => {
                self.unclaim(UndoAgain { claim, build, cancelled, refused }, ctx);
            }
            Effect::GiveUp { claim, build, text } => self.give_up(claim, build, text, ctx),
            Effect::CancelClaimed { claim, build, requests, head } => {
                self.cancel_claimed(CancelAgain { claim, build, requests, head }, ctx);
            }
            Effect::CancelWaiting { request, reply } => self.cancel_waiting(request, reply, ctx),
            Effect::SavePriority { request, priority, reply } => {
                let reply = self.replies.remove(&reply);
                let op = Op::SetPriority { request, priority };
                self.write(
                    vec![op],
                    |written| {
                        if let (Some(reply), Ok(_)) = (reply, written) {
                            let _ = reply.send(Ok(true));
                        }
                        None
                    },
                    ctx,
                );
            }
            Effect::NewSeat { worker, session } => self.new_seat(&worker, session, ctx),
            Effect::DropSeat { worker } => {
                if let Some(seat) = self.seats.remove(&worker) {
                    seat.addr.do_send(LetGo);
                }
            }
            Effect::NewLatent { worker } => self.new_latent(&worker, ctx),
            Effect::DropLatent { worker } => self.drop_latent(&worker),
            Effect::Substantiate { worker, claim } => self.substantiate(&worker, claim, ctx),
            Effect::CallBackSubstantiation { worker, claim } => {
                self.call_back_substantiation(&worker, claim);
            }
            Effect::TellLatent { worker, news } => self.tell_latent(&worker, news),
            Effect::PingLatent { worker } => self.ping_latent(worker, ctx),
            Effect::FailBuild { claim, worker, requests, state_string, config } => {
                self.fail_build(claim, &worker, requests, state_string, &config, ctx);
            }
            Effect::StartOnSeat { worker, order } => match self.seat(&worker) {
                Some(seat) => seat.addr.do_send(StartBuild {
                    reply: StartReply::new(order.claim, ctx.address().recipient()),
                    order: Box::new(order),
                }),
                None => ctx.notify(BuilderEvent(Event::StartFailed {
                    claim: order.claim,
                    failure: StartFailure::Left,
                })),
            },
            Effect::CallBackStart { worker, claim } => {
                if let Some(seat) = self.seat(&worker) {
                    seat.addr.do_send(CallBackStart(claim));
                }
            }
            Effect::LeaveStart { worker, claim, request } => match self.seat(&worker) {
                Some(seat) => {
                    let from = ctx.address().recipient();
                    seat.addr.do_send(LeaveStart { claim, request, from });
                }
                // That the start has failed is on its way.
                None => {
                    ctx.notify(BuilderEvent(Event::LeftStart { claim, request, in_time: true }))
                }
            },
            Effect::RunBuild { claim, build, worker, requests, config, expected, take } => {
                let order = RunOrder { claim, build, config, expected, take };
                self.run_build(order, &worker, &requests, ctx);
            }
            Effect::SaveStop { claim, build, reason } => self.save_stop(claim, build, reason, ctx),
            Effect::StopBuild { claim, reason } => {
                if let Some(build) = self.builds.get(&claim) {
                    build.do_send(BuildEvent(ToBuild::Stop { reason }));
                }
            }
            Effect::StopInherited { claim, build: _, request, reason, reply } => {
                let reply = reply.and_then(|id| self.replies.remove(&id));
                if let Some(owner) = self.inherited.get(&claim) {
                    owner.do_send(Inherited { claim, request, reason, reply });
                }
            }
            Effect::BuildOver { worker, claim } => {
                self.claimed.remove(&claim);
                if let Some(seat) = self.seats.get(&worker) {
                    seat.addr.do_send(BuildOver(claim));
                }
            }
            Effect::PingSeat { worker } => match self.seats.get(&worker).cloned() {
                Some(seat) => {
                    // The seat notes the ping itself; what happened before it
                    // is noted before it.
                    self.write(Vec::new(), |_| None, ctx);
                    seat.addr.do_send(Ping { reply: ReplyId(0), from: ctx.address().recipient() })
                }
                None => ctx.notify(BuilderEvent(Event::PingDone { worker, ok: false })),
            },
            Effect::Note { worker, text, error } => self.note(worker.as_ref(), text, error, ctx),
            Effect::PassOn { worker } => self.parts.passed.do_send(OfferPassed { worker }),
            Effect::OldestChanged(oldest) => {
                let builder = self.name().clone();
                self.parts.oldest.do_send(OldestChanged { builder, oldest });
            }
            Effect::TellSuccessor(event) => {
                if let (Event::InheritedFinished { claim, .. }, Some(own)) = (&event, &mut self.own)
                {
                    own.remove(claim);
                }
                // A builder that was removed has nobody to tell: what waits
                // again waits in the store.
                if self.succeeded {
                    self.mine.tell(BuilderMail::Event(event));
                }
            }
            Effect::SaveExpectations(text) => {
                let builder = self.parts.id;
                self.notes.push(Op::SaveExpectations { builder, text });
                self.flush_soon(ctx);
            }
            Effect::Ignored(kind) => self.world().ignored(kind),
            Effect::Over => self.over_soon(ctx),
        }
    }

    /// The worker's seat here, or at the successor while a build of ours has it.
    pub(super) fn seat(&self, worker: &WorkerName) -> Option<&Seat> {
        self.seats.get(worker).or_else(|| self.lent.get(worker))
    }

    pub(super) fn worker(&self, name: &WorkerName) -> Option<&Arc<WorkerHandle>> {
        let seat = self.seat(name).map(|seat| &seat.worker);
        seat.or_else(|| self.parts.workers.get(name))
    }

    pub(super) fn ask_slot(
        &mut self,
        worker: &WorkerName,
        claim: ClaimId,
        ctx: &mut Context<Self>,
    ) {
        match self.worker(worker) {
            Some(handle) => handle.tell(AskSlot {
                builder: self.name().clone(),
                claim,
                reply: SlotReply::new(claim, ctx.address().recipient()),
            }),
            None => ctx.notify(BuilderEvent(Event::SlotRefused { claim })),
        }
    }

    /// Writes operations, with the moments that wait to be noted before them;
    /// the answer comes back as an event.
    pub(super) fn write(
        &mut self,
        ops: Vec<Op>,
        answer: impl FnOnce(Written) -> Option<Event> + Send + 'static,
        ctx: &mut Context<Self>,
    ) {
        let mut all = std::mem::take(&mut self.notes);
        let notes = all.len();
        all.extend(ops);
        let me = ctx.address();
        self.world().store.write(
            Transaction { ops: all },
            Box::new(move |written| {
                let written =
                    written.map(|mut outcomes| outcomes.split_off(notes.min(outcomes.len())));
                if let Some(event) = answer(written) {
                    me.do_send(BuilderEvent(event));
                }
            }),
        );
    }

    pub(super) fn claim(
        &mut self,
        claim: ClaimId,
        worker: WorkerId,
        incarnation: Incarnation,
        requests: Vec<(RequestId, Epoch)>,
        config: &BuilderConfig,
        ctx: &mut Context<Self>,
    ) {
        let op = Op::Claim {
            claim,
            builder: self.parts.id,
            worker,
            incarnation,
            requests,
            factory_digest: config.factory_digest.clone(),
            grace: grace_to_keep(config),
            at: self.world().clock.now().wall,
        };
        let mut all = std::mem::take(&mut self.notes);
        all.push(op);
        let me = ctx.address();
        self.world().store.write(
            Transaction { ops: all },
            Box::new(move |written| me.do_send(ClaimWritten { claim, incarnation, written })),
        );
    }

    fn unclaim(&mut self, undo: UndoAgain, ctx: &mut Context<Self>) {
        let UndoAgain { claim, build, cancelled, refused } = undo;
        self.claimed.remove(&claim);
        let at = self.world().clock.now().wall;
        let (me, again) = (ctx.address(), cancelled.clone());
        let op = Op::Unclaim { build, cancelled, refused, at };
        self.write(
            vec![op],
            move |written| {
                let requests = match written.as_deref() {
                    Ok([OpOutcome::Requeued { requests }, ..]) => {
                        requests.iter().map(request).collect()
                    }
                    Ok(_) => Vec::new(),
                    Err(error) if !error.is_final() => {
                        tracing::warn!(%error, "a claim could not be undone; trying again");
                        me.do_send(UndoAgain { claim, build, cancelled: again, refused });
                        return None;
                    }
                    Err(error) => {
                        tracing::error!(%error, "a claim could not be undone; its requests wait in the store");
                        Vec::new()
                    }
                };
                Some(Event::Unclaimed { claim, requests })
            },
            ctx,
        );
    }

    /// No worker took it: it gets its number and its end in one (fault row
    /// FB08).
    fn give_up(&mut self, claim: ClaimId, build: BuildId, text: String, ctx: &mut Context<Self>) {
        let Some(claimed) = self.claimed.get(&claim) else {
            let cancelled = Vec::new();
            self.unclaim(UndoAgain { claim, build, cancelled, refused: true }, ctx);
            return;
        };
        let (at, incarnation) = (self.world().clock.now().wall, claimed.incarnation);
        let properties = Arc::new(claimed.properties.clone());
        let ops = vec![
            Op::StartBuild { build, incarnation, properties, grace: Duration::ZERO, at },
            Op::FinishBuild {
                build,
                incarnation,
                result: BuildResult::Exception,
                state_string: text.clone(),
                requests: RequestsAfter::Done,
                at,
            },
        ];
        let me = ctx.address();
        let told = move |written: Written| {
            match written {
                Err(error) if !error.is_final() => {
                    tracing::warn!(%error, "a build could not be ended; trying again");
                    me.do_send(GiveUpAgain { claim, build, text });
                    return None;
                }
                Err(error) => tracing::error!(%error, "a build could not be ended"),
                Ok(_) => {}
            }
            Some(Event::Unclaimed { claim, requests: Vec::new() })
        };
        self.write(ops, told, ctx);
    }

    fn cancel_claimed(&mut self, what: CancelAgain, ctx: &mut Context<Self>) {
        let at = self.world().clock.now().wall;
        let (claim, build, head) = (what.claim, what.build, what.head);
        let op = Op::CancelClaimed { build, requests: what.requests.clone(), head, at };
        let me = ctx.address();
        self.write(
            vec![op],
            move |written| match written {
                Ok(_) => {
                    let requests = what.requests;
                    Some(Event::CancelledClaimed { claim, requests, done: true })
                }
                Err(error) if !error.is_final() => {
                    tracing::warn!(%error, "requests that left a build could not be ended; trying again");
                    me.do_send(what);
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "requests that left a build could not be ended; it keeps them");
                    let requests = what.requests;
                    Some(Event::CancelledClaimed { claim, requests, done: false })
                }
            },
            ctx,
        );
    }

    fn save_stop(
        &mut self,
        claim: ClaimId,
        build: BuildId,
        reason: String,
        ctx: &mut Context<Self>,
    ) {
        let op = Op::WantStop { build, reason: reason.clone() };
        self.write(
            vec![op],
            move |written| {
                let saved = match written.as_deref() {
                    Ok([OpOutcome::StopWanted(true), ..]) => StopSaved::Kept,
                    Ok(_) => StopSaved::TooLate,
                    Err(error) => {
                        tracing::warn!(%build, %error, "that a build shall stop could not be stored; it goes on");
                        StopSaved::Failed { error: error.to_string() }
                    }
                };
                Some(Event::StopSaved { claim, reason, saved })
            },
            ctx,
        );
    }

    pub(super) fn cancel_waiting(
        &mut self,
        request: Request,
        reply: Option<ReplyId>,
        ctx: &mut Context<Self>,
    ) {
        let at = self.world().clock.now().wall;
        let op = Op::CancelRequests { requests: vec![request.id], at };
        let reply = reply.and_then(|id| self.replies.remove(&id));
        self.write(
            vec![op],
            move |written| match written.as_deref() {
                Ok([OpOutcome::Cancelled(ids), ..]) => {
                    if let Some(reply) = reply {
                        let _ = reply.send(Ok(!ids.is_empty()));
                    }
                    None
                }
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(%error, "a request could not be cancelled; it waits again");
                    Some(Event::CancelFailed(request))
                }
            },
            ctx,
        );
    }

    pub(super) fn new_seat(
        &mut self,
        worker: &WorkerName,
        session: SessionId,
        ctx: &mut Context<Self>,
    ) {
        let Some(attach) = self.attaches.remove(worker).filter(|a| a.link.session == session)
        else {
            return;
        };
        // Whatever slots the worker thinks are this builder's: these are.
        let known = self.core.claims().into_iter().chain(self.inherited.keys().copied());
        let keep = KeepSlots { builder: self.name().clone(), claims: known.collect() };
        attach.handle.tell(keep);
        let id = format!("{}@{worker}", self.name());
        let (world, builder_id) = (self.world().clone(), self.parts.id);
        let (door, link, handle) = (self.mine.another(), attach.link, attach.handle);
        let (seat_link, seat_worker) = (link.clone(), handle.clone());
        let versions = attach.versions;
        let addr = start_supervised(
            id,
            0,
            ctx.address().recipient(),
            world.clock.clone(),
            MayRestart::new(true),
            move |_| SlaveBuilder::new(world, builder_id, door, handle, link, versions),
        );
        self.seats.insert(worker.clone(), Seat { addr, link: seat_link, worker: seat_worker });
    }

    pub(super) fn run_build(
        &mut self,
        order: RunOrder,
        worker: &WorkerName,
        requests: &[Request],
        ctx: &mut Context<Self>,
    ) {
        let RunOrder { claim, build, mut config, expected, take } = order;
        let (Some(handle), Some(claimed)) =
            (self.worker(worker).cloned(), self.claimed.remove(&claim))
        else {
            tracing::error!(builder.name = %self.name(), build = %build, "a build that started has no worker or claim");
            ctx.notify(BuildFinished {
                claim,
                result: BuildResult::Exception,
                requeued: Vec::new(),
                times: None,
            });
            return;
        };
        let (link, in_doubt) = match take {
            Take::Accepted => (self.seat(worker).map(|seat| seat.link.clone()), None),
            Take::InDoubt { session } => (None, Some(Doubt { session, wait: config.grace })),
        };
        if claimed.grace > config.grace {
            // Its worker may still go by what an earlier master told it.
            config = Arc::new(BuilderConfig { grace: claimed.grace, ..(*config).clone() });
        }
        let mut properties = own_properties(&config, worker);
        properties.extend(claimed.properties);
        // What was claimed may have left since; it is built as the first one
        // of those that stayed says, whose source is the same.
        let own = requests.first().map(|first| first.properties.clone()).unwrap_or_default();
        properties.extend((*own).clone());
        let order = BuildOrder {
            order: self.order(claim, build, claimed.incarnation, requests, worker, config),
            properties,
            worker: handle,
            link,
            recovered: None,
            in_doubt,
            expected,
            builder: ctx.address().recipient(),
            finished: ctx.address().recipient(),
        };
        self.start_build(order, ctx);
    }

    pub(super) fn order(
        &self,
        claim: ClaimId,
        build: BuildId,
        incarnation: Incarnation,
        requests: &[Request],
        worker: &WorkerName,
        config: Arc<BuilderConfig>,
    ) -> Order {
        let most = requests.iter().max_by_key(|request| request.infra_tries);
        Order {
            worker: worker.clone(),
            losses: most.map(|request| request.losses.to_vec()).unwrap_or_default(),
            claim,
            build,
            incarnation,
            epoch: requests.iter().map(|request| request.epoch).max().unwrap_or_default(),
            config,
            infra_tries: requests.iter().map(|r| r.infra_tries).max().unwrap_or_default(),
            kill_time: self.world().timers.kill_time,
        }
    }

    pub(super) fn start_build(&mut self, order: BuildOrder, ctx: &mut Context<Self>) {
        let claim = order.order.claim;
        let id = format!("{} build {}", self.name(), order.order.build);
        let (world, parent) = (self.world().clone(), Parent::from(ctx.address().recipient()));
        let (clock, hears) = (world.clock.clone(), parent.clone());
        let addr = start_supervised(id, 0, hears, clock, MayRestart::new(true), move |_| {
            Build::new(world, order, parent)
        });
        self.builds.insert(claim, addr);
    }

    pub(super) fn note(
        &mut self,
        worker: Option<&WorkerName>,
        text: String,
        error: Option<String>,
        ctx: &mut Context<Self>,
    ) {
        let worker = worker.and_then(|name| self.worker(name).map(|handle| handle.id));
        tracing::debug!(builder.name = %self.name(), note = %text, error = error.as_deref(), "note");
        self.notes.push(Op::Note(BuilderNote {
            builder: self.parts.id,
            worker,
            text,
            error,
            at: self.world().clock.now().wall,
        }));
        self.flush_soon(ctx);
    }

    /// Notes travel with the next write, which is nearly always at hand; when
    /// none comes they go by themselves.
    pub(super) fn flush_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.notes_due {
            self.notes_due = true;
            ctx.notify_later(FlushNotes, SHOW_EVERY);
        }
    }

    /// What is to be told after this is told by somebody else.
    pub(super) fn flush_now(&mut self, ctx: &mut Context<Self>) {
        if !self.notes.is_empty() {
            self.write(Vec::new(), |_| None, ctx);
        }
    }

    pub(super) fn show_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.show_due {
            self.show_due = true;
            ctx.run_later(SHOW_EVERY, |builder, _| {
                builder.show_due = false;
                builder.show();
            });
        }
    }

    pub(super) fn show(&self) {
        if self.core.is_retired() || matches!(self.mode, Mode::Succeeding { .. }) {
            return;
        }
        let mut view = self.core.view();
        view.restarts = self.restarts;
        self.world().board.show_builder(self.name(), view);
    }

    pub(super) fn over_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.over_due {
            self.over_due = true;
            ctx.run_later(LATE_MAIL, |builder, ctx| {
                builder.over_due = false;
                if builder.core.is_retired()
                    && builder.builds.is_empty()
                    && builder.inherited.is_empty()
                    && builder.ending.is_empty()
                {
                    crash_point("reconfig.drained");
                    ctx.stop();
                }
            });
        }
    }
}

impl Handler<ClaimWritten> for Builder {
    type Result = ();
    fn handle(&mut self, answer: ClaimWritten, ctx: &mut Context<Self>) {
        let claim = answer.claim;
        let event = match answer.written {
            Ok(outcomes) => match outcomes.into_iter().last() {
                Some(OpOutcome::Claimed { build, requests, buildset }) => {
                    let properties = source_properties(&buildset);
                    let grace = Duration::ZERO;
                    self.claimed.insert(
                        claim,
                        Claimed { properties, incarnation: answer.incarnation, grace },
                    );
                    if requests.len() > 1 {
                        crash_point("merge.after_claim");
                    }
                    let requests = requests.iter().map(|row| (row.id, row.epoch)).collect();
                    Event::Claimed { claim, build: build.id, requests }
                }
                _ => Event::ClaimLost {
                    claim,
                    error: "unexpected answer of the store".into(),
                    transient: false,
                },
            },
            Err(error) => {
                Event::ClaimLost { claim, transient: !error.is_final(), error: error.to_string() }
            }
        };
        self.take(Input::Event(event), ctx);
    }
}

impl Handler<UndoAgain> for Builder {
    type Result = ();
    fn handle(&mut self, again: UndoAgain, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_secs(1), move |builder, ctx| {
            builder.unclaim(again, ctx);
        });
    }
}

impl Handler<GiveUpAgain> for Builder {
    type Result = ();
    fn handle(&mut self, again: GiveUpAgain, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_secs(1), move |builder, ctx| {
            builder.give_up(again.claim, again.build, again.text, ctx);
        });
    }
}

impl Handler<CancelAgain> for Builder {
    type Result = ();
    fn handle(&mut self, again: CancelAgain, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_secs(1), move |builder, ctx| {
            builder.cancel_claimed(again, ctx);
        });
    }
}

impl Handler<FlushNotes> for Builder {
    type Result = ();
    fn handle(&mut self, _: FlushNotes, ctx: &mut Context<Self>) {
        self.notes_due = false;
        self.flush_now(ctx);
    }
}

fn own_properties(config: &BuilderConfig, worker: &WorkerName) -> Properties {
    let property =
        |value: &str, source: &str| Property { value: value.into(), source: source.into() };
    let mut properties: Properties = config
        .properties
        .iter()
        .map(|(name, value)| (name.clone(), property(value, "Builder")))
        .collect();
    properties.insert("buildername".into(), property(config.name.as_str(), "Builder"));
    properties.insert(WORKER_PROPERTY.into(), property(worker.as_str(), WORKER_SOURCE));
    properties
}

/// What a buildset's source stamp says. Its own properties, which go before
/// these, are the request's.
fn source_properties(buildset: &BuildsetRow) -> Properties {
    let Some(source) = buildset.sourcestamps.first() else { return Properties::new() };
    let stamp = &source.stamp;
    let fields = [
        ("branch", stamp.branch.clone().unwrap_or_default()),
        ("revision", stamp.revision.clone().unwrap_or_default()),
        ("repository", stamp.repository.clone()),
        ("project", stamp.project.clone()),
    ];
    let property = |(name, value): (&str, String)| {
        (name.to_owned(), Property { value: value.into(), source: "Build".into() })
    };
    fields.into_iter().map(property).collect()
}
