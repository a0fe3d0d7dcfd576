//! The shell of a Builder, after `actors/builder/mod.rs`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::builder::{BuilderCore, Event, ReplyId};
use botmaster::core::ids::*;
use botmaster::core::inbox::{Inbox, Put};
use botmaster::core::planted;
use botmaster::core::rng::Rng;
use botmaster::core::values::{BuildResult, BuilderConfig, Properties};
use botmaster::store::Op;

use crate::bus::{Addr, Alarm, Bus};
use crate::message::*;
use crate::watch::Seen;

use super::connection::Routes;

/// What the store said of a claim, kept until its build runs.
pub(super) struct Claimed {
    pub(super) properties: Properties,
    pub(super) incarnation: Incarnation,
    /// What an earlier master told its worker, when one did.
    pub(super) grace: Duration,
}

pub(super) enum Input {
    Mail(Mail),
    Event(Event),
    Finished(Msg),
    TakeOver { successor: Addr, config: Arc<BuilderConfig>, stands: TakeOverDone },
    Retire,
}

pub(super) enum Mode {
    /// The store was asked; what arrives waits.
    Loading { waiting: Vec<Input> },
    /// A successor that has not been told to go yet.
    Succeeding { core: Option<Box<BuilderCore>>, waiting: Vec<Input> },
    /// In charge, or retired.
    Live,
    /// A successor is being made; what arrives waits.
    HandingOver {
        waiting: Vec<Input>,
        successor: Addr,
        /// Told whether it stands; none once it does.
        stands: Option<TakeOverDone>,
        moved: BTreeSet<WorkerName>,
    },
}

/// What a Builder is made from.
pub struct BuilderParts {
    /// The builder's id.
    pub id: BuilderId,
    /// Its settings.
    pub config: Arc<BuilderConfig>,
    /// Seed of its generator.
    pub seed: u64,
    /// Everybody's door to it.
    pub route: Rc<BuilderRoute>,
    /// The BotMaster.
    pub master: Addr,
    /// All workers.
    pub workers: Rc<BTreeMap<WorkerName, Rc<WorkerDoor>>>,
    /// Whether it may be started again.
    pub may_restart: Rc<Cell<bool>>,
    /// An actor under the same name that was removed.
    pub removed: Option<Addr>,
    /// Where text goes.
    pub routes: Rc<RefCell<Routes>>,
}

/// One builder.
pub struct Builder {
    pub(super) me: Addr,
    pub(super) bus: Rc<Bus>,
    pub(super) parts: BuilderParts,
    /// What decides.
    pub core: BuilderCore,
    pub(super) mode: Mode,
    pub(super) inbox: Inbox<BuilderMail>,
    pub(super) mine: BuilderDoor,
    pub(super) seats: BTreeMap<WorkerName, SeatRef>,
    pub(super) lent: BTreeMap<WorkerName, SeatRef>,
    pub(super) succeeded: bool,
    pub(super) yielded: bool,
    pub(super) backlog: VecDeque<Input>,
    pub(super) ready: VecDeque<(u64, SenderMark, BuilderMail)>,
    pub(super) attaches: BTreeMap<WorkerName, Attach>,
    pub(super) builds: BTreeMap<ClaimId, Addr>,
    pub(super) inherited: BTreeMap<ClaimId, Addr>,
    pub(super) own: Option<BTreeMap<ClaimId, BTreeSet<RequestId>>>,
    pub(super) claimed: BTreeMap<ClaimId, Claimed>,
    pub(super) replies: BTreeMap<ReplyId, Reply>,
    next_reply: u64,
    pub(super) notes: Vec<Op>,
    pub(super) notes_due: bool,
    pub(super) show_due: bool,
    pub(super) alarm: Alarm,
    /// Restarts so far.
    pub restarts: u32,
    pub(super) over_due: bool,
    pub(super) ending: BTreeSet<BuildId>,
}

/// Whose mail it was, for the invariants.
pub(super) type SenderMark = u64;

impl Builder {
    /// One that is built from the store once it is started.
    pub fn new(me: Addr, bus: &Rc<Bus>, parts: BuilderParts) -> Self {
        Self::with_mode(me, bus, parts, Generation(1), Mode::Loading { waiting: Vec::new() })
    }

    /// One that is built from its predecessor's handover.
    pub fn successor(me: Addr, bus: &Rc<Bus>, parts: BuilderParts) -> Self {
        let mode = Mode::Succeeding { core: None, waiting: Vec::new() };
        Self::with_mode(me, bus, parts, Generation(0), mode)
    }

    fn with_mode(
        me: Addr,
        bus: &Rc<Bus>,
        parts: BuilderParts,
        generation: Generation,
        mode: Mode,
    ) -> Self {
        let core = empty_core(&parts, generation, parts.seed);
        let mine = BuilderDoor::new(bus, parts.config.name.clone(), parts.route.clone());
        Self {
            me,
            bus: bus.clone(),
            parts,
            core,
            mode,
            inbox: Inbox::default(),
            mine,
            seats: BTreeMap::new(),
            lent: BTreeMap::new(),
            succeeded: false,
            yielded: false,
            backlog: VecDeque::new(),
            ready: VecDeque::new(),
            attaches: BTreeMap::new(),
            builds: BTreeMap::new(),
            inherited: BTreeMap::new(),
            own: None,
            claimed: BTreeMap::new(),
            replies: BTreeMap::new(),
            next_reply: 0,
            notes: Vec::new(),
            notes_due: false,
            show_due: false,
            alarm: Alarm::default(),
            restarts: 0,
            over_due: false,
            ending: BTreeSet::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &BuilderName {
        &self.parts.config.name
    }

    /// Whether it decides, and not a predecessor, a successor or nobody yet.
    pub fn is_live(&self) -> bool {
        matches!(self.mode, Mode::Live) && !self.core.is_retired()
    }

    /// Names its mail for the invariants.
    pub fn route(&self) -> u64 {
        self.parts.route.id
    }

    /// What must be empty when nothing goes on: leftovers by name.
    pub fn leftovers(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("claims without a build", self.claimed.len()),
            ("replies", self.replies.len()),
            ("attaches", self.attaches.len()),
            ("builds", self.builds.len()),
            ("inherited builds", self.inherited.len()),
            ("mail that waits for earlier mail", self.inbox.waiting()),
            ("mail that is not read", self.ready.len() + self.backlog.len()),
        ]
    }

    pub(super) fn take(&mut self, input: Input) {
        match &mut self.mode {
            Mode::Loading { waiting }
            | Mode::Succeeding { waiting, .. }
            | Mode::HandingOver { waiting, .. } => waiting.push(input),
            Mode::Live => self.handle_input(input),
        }
    }

    pub(super) fn handle_input(&mut self, input: Input) {
        match input {
            Input::Mail(mail) if self.core.is_retired() && self.succeeded && !self.yielded => {
                if !planted::is("sim_takeover_drops_a_message") {
                    self.mine.forward(mail);
                }
            }
            Input::Mail(mail) => self.take_mail(mail),
            Input::Event(event) => {
                self.bus.point();
                self.step(event);
            }
            Input::Finished(finished) => {
                self.bus.point();
                if let Msg::BuildFinished { claim, result, requeued, times } = finished {
                    self.builds.remove(&claim);
                    self.step(Event::Finished { claim, result, requeued, times });
                }
            }
            Input::TakeOver { successor, config, stands } => {
                self.hand_over(successor, config, stands);
            }
            Input::Retire => self.retire(&BTreeSet::new()),
        }
    }

    fn take_mail(&mut self, mail: Mail) {
        let (route, sender) = (mail.route, mail.sender);
        let mut ready = Vec::new();
        match self.inbox.put(mail.sender, mail.seq, mail.body, &mut ready) {
            Put::Ready | Put::Waits => {}
            Put::Duplicate => self.bus.see(Seen::Ignored("mail that was here before")),
            Put::Full => self.bus.see(Seen::Ignored("mail beyond the limit")),
        }
        if matches!(ready.last(), Some(BuilderMail::Last)) {
            self.inbox.forget(mail.sender);
        }
        self.ready.extend(ready.into_iter().map(|body| (route, sender.0, body)));
        self.read_ready();
    }

    /// One by one, so that a panic loses no more than the piece that caused it.
    pub(super) fn read_ready(&mut self) {
        while let Some((route, sender, body)) = self.ready.pop_front() {
            self.bus.see(Seen::MailRead { route, sender });
            self.read(body);
        }
    }

    fn read(&mut self, body: BuilderMail) {
        let event = match body {
            BuilderMail::SubmitRequests(requests) => {
                self.bus.point();
                Event::Enqueue(requests)
            }
            BuilderMail::Cancel { request, reason, reply } => {
                self.bus.point();
                Event::Cancel { request, reason, reply: self.await_reply(reply) }
            }
            BuilderMail::SetPriority { request, priority, reply } => {
                Event::SetPriority { request, priority, reply: self.await_reply(reply) }
            }
            BuilderMail::Stop { build, reason, reply } => {
                Event::Stop { build, reason, reply: self.await_reply(reply) }
            }
            BuilderMail::Ping { reply } => Event::Ping { reply: self.await_reply(reply) },
            BuilderMail::Last => return,
            BuilderMail::Attach(attach) => {
                self.bus.point();
                let (worker, session) = (attach.worker.clone(), attach.session);
                self.attaches.insert(worker.clone(), attach);
                Event::Attach { worker, session }
            }
            BuilderMail::Event(event) => {
                self.bus.point();
                event
            }
        };
        if let Event::InheritedFinished { claim, .. } = &event {
            self.inherited.remove(claim);
        }
        self.step(event);
    }

    pub(super) fn await_reply(&mut self, reply: Reply) -> ReplyId {
        let id = ReplyId(self.next_reply);
        self.next_reply += 1;
        self.replies.insert(id, reply);
        id
    }

    pub(super) fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.core.handle(self.bus.now(), event, &mut effects);
        self.perform_all(effects);
    }

    /// Takes in one message.
    pub fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Started => {
                if matches!(self.mode, Mode::Loading { .. }) {
                    self.load();
                }
            }
            Msg::Alarm(number) => {
                if self.alarm.rings(number) {
                    self.take(Input::Event(Event::DeadlineReached));
                }
            }
            Msg::Mail(mail) => self.take(Input::Mail(mail)),
            Msg::BuilderEvent(event) => self.take(Input::Event(event)),
            finished @ Msg::BuildFinished { .. } => self.take(Input::Finished(finished)),
            Msg::ClaimWritten { claim, incarnation, written } => {
                self.claim_written(claim, incarnation, written);
            }
            Msg::UndoAgain { claim, build, cancelled, refused } => {
                self.unclaim(claim, build, cancelled, refused);
            }
            Msg::GiveUpAgain { claim, build, text } => self.give_up(claim, build, text),
            Msg::CancelAgain { claim, build, requests, head } => {
                self.cancel_claimed(claim, build, requests, head);
            }
            Msg::FlushNotes => {
                self.notes_due = false;
                if !self.notes.is_empty() {
                    self.write(Vec::new(), |_| None);
                }
            }
            Msg::Show => {
                self.show_due = false;
                self.show();
            }
            Msg::OverNow => {
                self.over_due = false;
                let left = !self.builds.is_empty() || !self.inherited.is_empty();
                if self.core.is_retired() && !left && self.ending.is_empty() {
                    self.bus.stop(self.me);
                }
            }
            Msg::Loaded { records, reports, yielded } => self.loaded(*records, reports, yielded),
            Msg::LoadAgain => self.load(),
            Msg::EndWithoutWorker(build, op) => self.end_now(build, *op),
            Msg::EndedWithoutWorker(build, requests) => {
                self.ending.remove(&build);
                self.take(Input::Event(Event::Return(requests)));
            }
            Msg::Inherited { claim, request, reason, reply } => {
                self.on_inherited(claim, request, reason, reply);
            }
            Msg::Yield { route, ask } => self.on_yield(route, ask),
            Msg::TakeOver { successor, config, stands } => {
                self.take(Input::TakeOver { successor, config, stands });
            }
            Msg::Commit { workers, done } => self.on_commit(workers, done),
            Msg::Soul { handover, predecessor } => self.on_soul(*handover, predecessor),
            Msg::Stands => self.on_stands(),
            Msg::Go { inbox, seats, inherited, workers } => {
                self.parts.workers = workers;
                self.on_go(inbox, seats, inherited);
            }
            Msg::TakeoverLimit(generation) => {
                // One that stands waits for the others, and for the store.
                let not_yet = matches!(&self.mode, Mode::HandingOver { stands: Some(_), .. });
                if not_yet && self.core.generation() == generation {
                    self.stay("the successor did not stand in time".into());
                }
            }
            Msg::SuccessorFailed(why) => self.stay(why),
            Msg::GiveUp => {
                if matches!(self.mode, Mode::Succeeding { .. }) {
                    self.bus.stop(self.me);
                }
            }
            Msg::RetireBuilder => self.take(Input::Retire),
            Msg::ChildDown { addr, gave_up, .. } => self.child_down(addr, gave_up),
            other => panic!("a Builder was told {}", other.word()),
        }
    }

    fn on_inherited(
        &mut self,
        claim: ClaimId,
        request: Option<RequestId>,
        reason: String,
        reply: Option<Reply>,
    ) {
        match (request, reply) {
            // Its end was told to the successor before this: whether the
            // request waits again is for the successor to say.
            (Some(request), Some(reply))
                if self.succeeded && !self.core.claims().contains(&claim) =>
            {
                self.mine.tell(BuilderMail::Cancel { request, reason, reply });
            }
            (request, reply) => {
                let reply = reply.map(|reply| self.await_reply(reply));
                self.take(Input::Event(Event::StopOwn { claim, request, reason, reply }));
            }
        }
    }

    fn child_down(&mut self, addr: Addr, gave_up: bool) {
        if !gave_up {
            return;
        }
        let dead: Vec<ClaimId> = self
            .builds
            .iter()
            .filter(|(_, build)| **build == addr)
            .map(|(claim, _)| *claim)
            .collect();
        for claim in dead {
            self.bus.send(
                self.me,
                Msg::BuildFinished {
                    claim,
                    result: BuildResult::Exception,
                    requeued: Vec::new(),
                    times: None,
                },
            );
        }
    }

    /// Nothing of the half-changed state is kept.
    pub fn restarting(&mut self) {
        self.restarts += 1;
        self.alarm.rang();
        self.notes_due = false;
        self.show_due = false;
        self.over_due = false;
        self.attaches.clear();
        self.replies.clear();
        let generation = self.core.generation();
        let seed = self.core.draw_seed();
        let mode = std::mem::replace(&mut self.mode, Mode::Loading { waiting: Vec::new() });
        let waiting = match mode {
            Mode::HandingOver { waiting, stands, .. } => {
                if let Some(stands) = stands {
                    stands.tell(Err("the builder had to be started again".into()));
                }
                waiting
            }
            Mode::Loading { waiting } | Mode::Succeeding { waiting, .. } => waiting,
            Mode::Live => Vec::new(),
        };
        let mut all = Vec::from(std::mem::take(&mut self.backlog));
        all.extend(waiting);
        self.mode = Mode::Loading { waiting: all };
        let draining = self.core.is_draining();
        self.core = empty_core(&self.parts, generation, seed).draining(draining);
    }
}

impl Drop for Builder {
    /// Its seats go with it. (What one that gave up leaves to its successor is
    /// not played: no actor panics that often here.)
    fn drop(&mut self) {
        for seat in self.seats.values() {
            self.bus.send(seat.addr, Msg::LetGo);
        }
    }
}

fn empty_core(parts: &BuilderParts, generation: Generation, seed: u64) -> BuilderCore {
    BuilderCore::new(parts.id, generation, parts.config.clone(), Rng::seeded(seed))
}
