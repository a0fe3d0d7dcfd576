//! What a Builder's core wants done, after `actors/builder/effects.rs`.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::build::{Event as ToBuild, Order};
use botmaster::core::builder::{
    Answer, Effect, Event, Prediction, ReplyId, Request, StartFailure, StopSaved, Take,
};
use botmaster::core::ids::*;
use botmaster::core::lease::grace_to_keep;
use botmaster::core::values::{BuildResult, BuilderConfig, Properties};
use botmaster::messages::Refusal;
use botmaster::store::{BuilderNote, Op, OpOutcome, RequestsAfter, Transaction, Written};

use crate::bus::Supervision;
use crate::message::*;
use crate::watch::Seen;

use super::Actor;
use super::build::{Build, BuildOrder, Doubt, request};
use super::builder::{Builder, Claimed, Input, Mode};
use super::seat::Seat;

/// How long a retired builder with nothing left listens for late mail.
const LATE_MAIL: Duration = Duration::from_secs(5);
/// How often people are shown a builder that changes all the time.
const SHOW_EVERY: Duration = Duration::from_millis(50);

/// A build that the worker accepted.
struct RunOrder {
    claim: ClaimId,
    build: BuildId,
    config: Arc<BuilderConfig>,
    expected: Option<Prediction>,
    take: Take,
}

impl Builder {
    pub(super) fn perform_all(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.perform(effect);
        }
        self.attaches.clear();
        self.show_soon();
        self.alarm.set(&self.bus, self.me, self.core.next_deadline());
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Answer(id, answer) => {
                if let Some(reply) = self.replies.remove(&id) {
                    let told = match answer {
                        Answer::Done(done) => Ok(done),
                        Answer::Failed { error } => Err(Refusal::Store(error)),
                    };
                    // After what was noted before.
                    self.write(Vec::new(), move |_| {
                        reply.done(told);
                        None
                    });
                }
            }
            Effect::AskSlot { worker, claim } => self.ask_slot(&worker, claim),
            Effect::GiveBackSlot { worker, claim } => {
                if let Some(door) = self.worker(&worker) {
                    let builder = self.name().clone();
                    self.bus.send(door.addr, Msg::GiveBackSlot { builder, claim });
                }
            }
            Effect::Claim { claim, worker_id, incarnation, requests, config } => {
                self.claim(claim, worker_id, incarnation, requests, &config);
            }
            Effect::Unclaim { claim, build, cancelled, refused } => {
                self.unclaim(claim, build, cancelled, refused);
            }
            Effect::GiveUp { claim, build, text } => self.give_up(claim, build, text),
            Effect::CancelClaimed { claim, build, requests, head } => {
                self.cancel_claimed(claim, build, requests, head);
            }
            Effect::SaveStop { claim, build, reason } => self.save_stop(claim, build, reason),
            Effect::CancelWaiting { request, reply } => self.cancel_waiting(request, reply),
            Effect::SavePriority { request, priority, reply } => {
                let reply = self.replies.remove(&reply);
                self.write(vec![Op::SetPriority { request, priority }], |written| {
                    if let (Some(reply), Ok(_)) = (reply, written) {
                        reply.done(Ok(true));
                    }
                    None
                });
            }
            Effect::NewSeat { worker, session } => self.new_seat(&worker, session),
            Effect::DropSeat { worker } => {
                if let Some(seat) = self.seats.remove(&worker) {
                    self.bus.send(seat.addr, Msg::LetGo);
                }
            }
            Effect::StartOnSeat { worker, order } => match self.seat(&worker) {
                Some(seat) => {
                    let reply = StartReply::new(&self.bus, order.claim, self.me);
                    self.bus.send(seat.addr, Msg::StartBuild { reply, order: Box::new(order) });
                }
                None => self.bus.send(
                    self.me,
                    Msg::BuilderEvent(Event::StartFailed {
                        claim: order.claim,
                        failure: StartFailure::Left,
                    }),
                ),
            },
            Effect::CallBackStart { worker, claim } => {
                if let Some(seat) = self.seat(&worker) {
                    self.bus.send(seat.addr, Msg::CallBackStart(claim));
                }
            }
            Effect::LeaveStart { worker, claim, request } => match self.seat(&worker) {
                Some(seat) => {
                    let from = self.me;
                    self.bus.send(seat.addr, Msg::LeaveStart { claim, request, from });
                }
                None => {
                    let event = Event::LeftStart { claim, request, in_time: true };
                    self.bus.send(self.me, Msg::BuilderEvent(event));
                }
            },
            Effect::RunBuild { claim, build, worker, requests, config, expected, take } => {
                let order = RunOrder { claim, build, config, expected, take };
                self.run_build(order, &worker, &requests);
            }
            Effect::StopBuild { claim, reason } => {
                if let Some(build) = self.builds.get(&claim) {
                    self.bus.send(*build, Msg::BuildEvent(ToBuild::Stop { reason }));
                }
            }
            Effect::StopInherited { claim, build: _, request, reason, reply } => {
                let reply = reply.and_then(|id| self.replies.remove(&id));
                if let Some(owner) = self.inherited.get(&claim) {
                    self.bus.send(*owner, Msg::Inherited { claim, request, reason, reply });
                }
            }
            Effect::BuildOver { worker, claim } => {
                self.claimed.remove(&claim);
                if let Some(seat) = self.seats.get(&worker) {
                    self.bus.send(seat.addr, Msg::BuildOver(claim));
                }
            }
            Effect::PingSeat { worker } => match self.seats.get(&worker).cloned() {
                Some(seat) => {
                    self.write(Vec::new(), |_| None);
                    self.bus.send(seat.addr, Msg::Ping { reply: ReplyId(0), from: self.me });
                }
                None => {
                    self.bus.send(self.me, Msg::BuilderEvent(Event::PingDone { worker, ok: false }))
                }
            },
            Effect::Note { worker, text, error } => self.note(worker.as_ref(), text, error),
            Effect::PassOn { worker } => {
                self.bus.send(self.parts.master, Msg::OfferPassed { worker });
            }
            Effect::OldestChanged(oldest) => {
                let builder = self.name().clone();
                self.bus.send(self.parts.master, Msg::OldestChanged { builder, oldest });
            }
            Effect::TellSuccessor(event) => {
                if let (Event::InheritedFinished { claim, .. }, Some(own)) = (&event, &mut self.own)
                {
                    own.remove(claim);
                }
                if self.succeeded {
                    self.mine.tell(BuilderMail::Event(event));
                }
            }
            Effect::SaveExpectations(text) => {
                let builder = self.parts.id;
                self.notes.push(Op::SaveExpectations { builder, text });
                self.flush_soon();
            }
            Effect::NewLatent { .. }
            | Effect::DropLatent { .. }
            | Effect::Substantiate { .. }
            | Effect::CallBackSubstantiation { .. }
            | Effect::TellLatent { .. }
            | Effect::PingLatent { .. }
            | Effect::FailBuild { .. } => {
                self.bus.see(Seen::Oddity("latent workers are not played"));
            }
            Effect::Ignored(kind) => self.bus.see(Seen::Ignored(kind)),
            Effect::Over => self.over_soon(),
        }
    }

    pub(super) fn seat(&self, worker: &WorkerName) -> Option<&SeatRef> {
        self.seats.get(worker).or_else(|| self.lent.get(worker))
    }

    pub(super) fn worker(&self, name: &WorkerName) -> Option<&Rc<WorkerDoor>> {
        let seat = self.seat(name).map(|seat| &seat.worker);
        seat.or_else(|| self.parts.workers.get(name))
    }

    fn ask_slot(&mut self, worker: &WorkerName, claim: ClaimId) {
        match self.worker(worker) {
            Some(door) => self.bus.send(
                door.addr,
                Msg::AskSlot {
                    builder: self.name().clone(),
                    claim,
                    reply: SlotReply::new(&self.bus, claim, self.me),
                },
            ),
            None => self.bus.send(self.me, Msg::BuilderEvent(Event::SlotRefused { claim })),
        }
    }

    pub(super) fn write(
        &mut self,
        ops: Vec<Op>,
        answer: impl FnOnce(Written) -> Option<Event> + 'static,
    ) {
        let mut all = std::mem::take(&mut self.notes);
        let notes = all.len();
        all.extend(ops);
        let (me, bus) = (self.me, self.bus.clone());
        self.bus.write(
            Transaction { ops: all },
            Box::new(move |written| {
                let written =
                    written.map(|mut outcomes| outcomes.split_off(notes.min(outcomes.len())));
                if let Some(event) = answer(written) {
                    bus.send(me, Msg::BuilderEvent(event));
                }
            }),
        );
    }

    fn claim(
        &mut self,
        claim: ClaimId,
        worker: WorkerId,
        incarnation: Incarnation,
        requests: Vec<(RequestId, Epoch)>,
        config: &BuilderConfig,
    ) {
        let op = Op::Claim {
            claim,
            builder: self.parts.id,
            worker,
            incarnation,
            requests,
            factory_digest: config.factory_digest.clone(),
            grace: grace_to_keep(config),
            at: self.bus.now().wall,
        };
        let mut all = std::mem::take(&mut self.notes);
        all.push(op);
        let (me, bus) = (self.me, self.bus.clone());
        self.bus.write(
            Transaction { ops: all },
            Box::new(move |written| {
                bus.send(me, Msg::ClaimWritten { claim, incarnation, written });
            }),
        );
    }

    pub(super) fn claim_written(
        &mut self,
        claim: ClaimId,
        incarnation: Incarnation,
        written: Written,
    ) {
        let event = match written {
            Ok(outcomes) => match outcomes.into_iter().last() {
                Some(OpOutcome::Claimed { build, requests, buildset }) => {
                    // What the set's source says is of no interest here.
                    drop(buildset);
                    let properties = Properties::new();
                    self.claimed
                        .insert(claim, Claimed { properties, incarnation, grace: Duration::ZERO });
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
        self.take(Input::Event(event));
    }

    pub(super) fn unclaim(
        &mut self,
        claim: ClaimId,
        build: BuildId,
        cancelled: Vec<RequestId>,
        refused: bool,
    ) {
        self.claimed.remove(&claim);
        let at = self.bus.now().wall;
        let (me, bus, again) = (self.me, self.bus.clone(), cancelled.clone());
        let op = Op::Unclaim { build, cancelled, refused, at };
        self.write(vec![op], move |written| {
            let requests = match written.as_deref() {
                Ok([OpOutcome::Requeued { requests }, ..]) => {
                    requests.iter().map(request).collect()
                }
                Ok(_) => Vec::new(),
                Err(error) if !error.is_final() => {
                    let again = Msg::UndoAgain { claim, build, cancelled: again, refused };
                    bus.later(me, Duration::from_secs(1), again);
                    return None;
                }
                Err(_) => Vec::new(),
            };
            Some(Event::Unclaimed { claim, requests })
        });
    }

    pub(super) fn give_up(&mut self, claim: ClaimId, build: BuildId, text: String) {
        let Some(claimed) = self.claimed.get(&claim) else {
            self.unclaim(claim, build, Vec::new(), true);
            return;
        };
        let (at, incarnation) = (self.bus.now().wall, claimed.incarnation);
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
        let (me, bus) = (self.me, self.bus.clone());
        self.write(ops, move |written| {
            if matches!(&written, Err(error) if !error.is_final()) {
                let again = Msg::GiveUpAgain { claim, build, text };
                bus.later(me, Duration::from_secs(1), again);
                return None;
            }
            Some(Event::Unclaimed { claim, requests: Vec::new() })
        });
    }

    pub(super) fn cancel_claimed(
        &mut self,
        claim: ClaimId,
        build: BuildId,
        requests: Vec<RequestId>,
        head: RequestId,
    ) {
        let at = self.bus.now().wall;
        let op = Op::CancelClaimed { build, requests: requests.clone(), head, at };
        let (me, bus) = (self.me, self.bus.clone());
        self.write(vec![op], move |written| match written {
            Err(error) if !error.is_final() => {
                let again = Msg::CancelAgain { claim, build, requests, head };
                bus.later(me, Duration::from_secs(1), again);
                None
            }
            written => {
                let done = written.is_ok();
                Some(Event::CancelledClaimed { claim, requests, done })
            }
        });
    }

    fn save_stop(&mut self, claim: ClaimId, build: BuildId, reason: String) {
        let op = Op::WantStop { build, reason: reason.clone() };
        self.write(vec![op], move |written| {
            let saved = match written.as_deref() {
                Ok([OpOutcome::StopWanted(true), ..]) => StopSaved::Kept,
                Ok(_) => StopSaved::TooLate,
                Err(error) => StopSaved::Failed { error: error.to_string() },
            };
            Some(Event::StopSaved { claim, reason, saved })
        });
    }

    fn cancel_waiting(&mut self, request: Request, reply: Option<ReplyId>) {
        let at = self.bus.now().wall;
        let op = Op::CancelRequests { requests: vec![request.id], at };
        let reply = reply.and_then(|id| self.replies.remove(&id));
        self.write(vec![op], move |written| match written.as_deref() {
            Ok([OpOutcome::Cancelled(ids), ..]) => {
                if let Some(reply) = reply {
                    reply.done(Ok(!ids.is_empty()));
                }
                None
            }
            Ok(_) => None,
            Err(_) => Some(Event::CancelFailed(request)),
        });
    }

    fn new_seat(&mut self, worker: &WorkerName, session: SessionId) {
        let Some(attach) = self.attaches.remove(worker).filter(|a| a.session == session) else {
            return;
        };
        let known = self.core.claims().into_iter().chain(self.inherited.keys().copied());
        let keep = Msg::KeepSlots { builder: self.name().clone(), claims: known.collect() };
        self.bus.send(attach.door.addr, keep);
        let (bus, builder_id, door) = (self.bus.clone(), self.parts.id, self.mine.another());
        let handle = attach.door.clone();
        let supervision = Supervision::under(self.me, 0, &Rc::new(Cell::new(true)));
        let addr = self.bus.spawn(
            |me| Actor::Seat(Seat::new(me, &bus, builder_id, door, handle, session)),
            supervision,
        );
        self.seats.insert(worker.clone(), SeatRef { addr, session, worker: attach.door });
    }

    fn run_build(&mut self, order: RunOrder, worker: &WorkerName, requests: &[Request]) {
        let RunOrder { claim, build, mut config, expected, take } = order;
        let (Some(door), Some(claimed)) =
            (self.worker(worker).cloned(), self.claimed.remove(&claim))
        else {
            self.bus.see(Seen::Oddity("a build that started has no worker or claim"));
            self.bus.send(
                self.me,
                Msg::BuildFinished {
                    claim,
                    result: BuildResult::Exception,
                    requeued: Vec::new(),
                    times: None,
                },
            );
            return;
        };
        let (link, in_doubt) = match take {
            Take::Accepted => (self.seat(worker).map(|seat| seat.session), None),
            Take::InDoubt { session } => (None, Some(Doubt { session, wait: config.grace })),
        };
        if claimed.grace > config.grace {
            config = Arc::new(BuilderConfig { grace: claimed.grace, ..(*config).clone() });
        }
        let mut properties = claimed.properties;
        let own = requests.first().map(|first| first.properties.clone()).unwrap_or_default();
        properties.extend((*own).clone());
        let order = BuildOrder {
            order: self.order(claim, build, claimed.incarnation, requests, worker, config),
            properties,
            worker: door,
            link,
            recovered: None,
            in_doubt,
            expected,
            builder: self.me,
        };
        self.start_build(order);
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
            kill_time: self.bus.timers.kill_time,
        }
    }

    pub(super) fn start_build(&mut self, order: BuildOrder) {
        let claim = order.order.claim;
        let (bus, routes) = (self.bus.clone(), self.parts.routes.clone());
        let supervision = Supervision::under(self.me, 0, &Rc::new(Cell::new(true)));
        let addr = self
            .bus
            .spawn(|me| Actor::Build(Box::new(Build::new(me, &bus, &routes, order))), supervision);
        self.builds.insert(claim, addr);
    }

    fn note(&mut self, worker: Option<&WorkerName>, text: String, error: Option<String>) {
        if let Some(name) = worker {
            self.bus.see(Seen::WorkerNote {
                worker: name.clone(),
                text: text.clone(),
                bad: error.is_some() || text.starts_with("disconnect"),
            });
        }
        let worker = worker.and_then(|name| self.worker(name).map(|door| door.id));
        self.notes.push(Op::Note(BuilderNote {
            builder: self.parts.id,
            worker,
            text,
            error,
            at: self.bus.now().wall,
        }));
        self.flush_soon();
    }

    fn flush_soon(&mut self) {
        if !self.notes_due {
            self.notes_due = true;
            self.bus.later(self.me, SHOW_EVERY, Msg::FlushNotes);
        }
    }

    fn show_soon(&mut self) {
        if !self.show_due {
            self.show_due = true;
            self.bus.later(self.me, SHOW_EVERY, Msg::Show);
        }
    }

    pub(super) fn show(&self) {
        if self.core.is_retired() || matches!(self.mode, Mode::Succeeding { .. }) {
            return;
        }
        let mut view = self.core.view();
        view.restarts = self.restarts;
        self.bus.board.borrow_mut().insert(self.name().clone(), view);
    }

    fn over_soon(&mut self) {
        if !self.over_due {
            self.over_due = true;
            self.bus.later(self.me, LATE_MAIL, Msg::OverNow);
        }
    }
}
