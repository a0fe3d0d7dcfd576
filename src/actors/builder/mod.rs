//! The Builder actor: one builder's queue and seats, and its Builds.
//!
//! It is built from the store, when the master starts and after a panic alike;
//! what arrives meanwhile waits. A successor is built from its predecessor's
//! handover instead; the predecessor stays in charge until the successor has
//! said that it stands, and passes on what still reaches it afterwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Handler, Recipient, Supervised};
use tokio::sync::oneshot;

mod burial;
mod effects;
mod latent;
mod rebuild;
mod takeover;

pub use takeover::{Commit, GiveUp, RetireBuilder, SuccessorFailed, TakeOver};

use super::build::Build;
use super::latent_slave_builder::LatentSlaveBuilder;
use super::runtime::{Alarm, MayRestart, World};
use super::slave_builder::SlaveBuilder;
use crate::actors::context::Context;
use crate::core::builder::{BuilderCore, Event, ReplyId};
use crate::core::ids::*;
use crate::core::inbox::{Inbox, Put};
use crate::core::rng::Rng;
use crate::core::values::{BuilderConfig, Properties};
use crate::faults;
use crate::messages::*;
use crate::store::Op;

/// A SlaveBuilder, and what it speaks with.
#[derive(Clone)]
pub(super) struct Seat {
    addr: Addr<SlaveBuilder>,
    link: WorkerLink,
    worker: Arc<WorkerHandle>,
}

/// What the store said of a claim, kept until its build runs.
struct Claimed {
    properties: Properties,
    incarnation: Incarnation,
    /// What an earlier master told its worker, when one did.
    grace: Duration,
}

/// A LatentSlaveBuilder, and what it was made from.
#[derive(Clone)]
struct LatentSeat {
    addr: Addr<LatentSlaveBuilder>,
    add: AddLatent,
}

enum Input {
    Mail(Mail),
    Event(Event),
    Finished(BuildFinished),
    TakeOver(TakeOver),
    Retire,
    Adopt(Remains),
}

enum Mode {
    /// The store was asked; what arrives waits.
    Loading { waiting: Vec<Input> },
    /// A successor that has not been told to go yet.
    Succeeding { core: Option<Box<BuilderCore>>, waiting: Vec<Input> },
    /// In charge, or retired.
    Live,
    /// A successor is being made; what arrives waits.
    HandingOver { waiting: Vec<Input>, take_over: TakeOver, moved: BTreeSet<WorkerName> },
}

/// What a Builder is made from.
pub struct BuilderParts {
    /// The doors to the world.
    pub world: World,
    /// The builder's id.
    pub id: BuilderId,
    /// Its settings.
    pub config: Arc<BuilderConfig>,
    /// Seed of its generator.
    pub seed: u64,
    /// Everybody's door to it.
    pub route: Arc<BuilderRoute>,
    /// Who hears which builder waits for how long.
    pub oldest: Recipient<OldestChanged>,
    /// Who hears that it does not use the room that a worker has.
    pub passed: Recipient<OfferPassed>,
    /// Who hears that it stands.
    pub shown: Recipient<BuilderShown>,
    /// All workers, for builds of an earlier master.
    pub workers: Arc<BTreeMap<WorkerName, Arc<WorkerHandle>>>,
    /// Whether it may be started again.
    pub may_restart: MayRestart,
    /// Earlier actors under the same name that may still have builds.
    pub earlier: Vec<Addr<Builder>>,
    /// Builds of an actor that gave up, which live on.
    pub orphans: BTreeMap<ClaimId, Addr<Build>>,
    /// Number of this actor, as its supervisor numbers it.
    pub child: u64,
    /// Who keeps what it leaves when it gives up.
    pub remains: Recipient<Remains>,
}

/// What a Builder that gave up leaves: they go on without it, until another
/// one looks after them.
#[derive(actix::Message, Clone)]
#[rtype(result = "()")]
pub struct Remains {
    /// Whose.
    pub name: BuilderName,
    /// Number of the actor that gave up.
    pub child: u64,
    /// Its Builds.
    pub builds: BTreeMap<ClaimId, Addr<Build>>,
    /// Earlier actors that may still have builds.
    pub earlier: Vec<Addr<Builder>>,
}

/// One builder.
pub struct Builder {
    parts: BuilderParts,
    core: BuilderCore,
    mode: Mode,
    inbox: Inbox<BuilderMail>,
    mine: BuilderHandle,
    seats: BTreeMap<WorkerName, Seat>,
    /// Seats that moved to the successor while our own builds were using them.
    lent: BTreeMap<WorkerName, Seat>,
    latents: BTreeMap<WorkerName, LatentSeat>,
    /// Those that moved to the successor while our own builds waited for them.
    lent_latents: BTreeMap<WorkerName, LatentSeat>,
    /// Latent workers that wait for the core's word.
    latent_adds: BTreeMap<WorkerName, AddLatent>,
    /// Somebody else is in charge; a builder that was removed has no successor.
    succeeded: bool,
    /// Whoever is in charge came by another route, where the senders of ours
    /// are not known: late mail is read here, and what it says told.
    yielded: bool,
    /// What waited while nothing could be handled, and is now.
    backlog: VecDeque<Input>,
    /// Mail that is in order and not handled yet.
    ready: VecDeque<BuilderMail>,
    /// Attaches that wait for the core's word.
    attaches: BTreeMap<WorkerName, Attach>,
    builds: BTreeMap<ClaimId, Addr<Build>>,
    /// Who has the builds that were inherited.
    inherited: BTreeMap<ClaimId, Addr<Builder>>,
    /// A retired builder's own builds, the only ones that it may load again, with
    /// their requests: of a build that is not stored yet nobody else knows them.
    own: Option<BTreeMap<ClaimId, BTreeSet<RequestId>>>,
    claimed: BTreeMap<ClaimId, Claimed>,
    replies: BTreeMap<ReplyId, oneshot::Sender<Result<bool, Refusal>>>,
    next_reply: u64,
    notes: Vec<Op>,
    notes_due: bool,
    show_due: bool,
    alarm: Alarm,
    restarts: u32,
    over_due: bool,
    /// Builds of workers that are not configured any more, which end later.
    ending: BTreeSet<BuildId>,
}

/// Something about a build that was inherited.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Inherited {
    claim: ClaimId,
    request: Option<RequestId>,
    reason: String,
    reply: Option<oneshot::Sender<Result<bool, Refusal>>>,
}

impl Builder {
    /// A builder that is built from the store once it is started.
    #[must_use]
    pub fn new(parts: BuilderParts) -> Self {
        Self::with_mode(parts, Generation(1), Mode::Loading { waiting: Vec::new() })
    }

    /// A builder that is built from its predecessor's handover.
    #[must_use]
    pub fn successor(parts: BuilderParts) -> Self {
        let mode = Mode::Succeeding { core: None, waiting: Vec::new() };
        Self::with_mode(parts, Generation(0), mode)
    }

    fn with_mode(parts: BuilderParts, generation: Generation, mode: Mode) -> Self {
        let core = empty_core(&parts, generation, parts.seed);
        let mine = BuilderHandle::new(parts.config.name.clone(), parts.route.clone());
        Self {
            parts,
            core,
            mode,
            inbox: Inbox::default(),
            mine,
            seats: BTreeMap::new(),
            lent: BTreeMap::new(),
            latents: BTreeMap::new(),
            lent_latents: BTreeMap::new(),
            latent_adds: BTreeMap::new(),
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

    fn name(&self) -> &BuilderName {
        &self.parts.config.name
    }

    fn world(&self) -> &World {
        &self.parts.world
    }

    /// The one way in: what cannot be handled now waits.
    fn take(&mut self, input: Input, ctx: &mut Context<Self>) {
        match &mut self.mode {
            Mode::Loading { waiting }
            | Mode::Succeeding { waiting, .. }
            | Mode::HandingOver { waiting, .. } => waiting.push(input),
            Mode::Live => self.handle_input(input, ctx),
        }
    }

    fn handle_input(&mut self, input: Input, ctx: &mut Context<Self>) {
        match input {
            Input::Mail(mail) if self.core.is_retired() && self.succeeded && !self.yielded => {
                // Late mail goes on to whoever is in charge, as it is.
                self.mine.forward(mail);
            }
            Input::Mail(mail) => {
                let mut ready = Vec::new();
                match self.inbox.put(mail.sender, mail.seq, mail.body, &mut ready) {
                    Put::Ready | Put::Waits => {}
                    Put::Duplicate => self.world().ignored("mail that was here before"),
                    Put::Full => {
                        tracing::error!(builder.name = %self.name(), "too much mail waits for an earlier piece: dropped");
                        self.world().ignored("mail beyond the limit");
                    }
                }
                if matches!(ready.last(), Some(BuilderMail::Last)) {
                    self.inbox.forget(mail.sender);
                }
                self.ready.extend(ready);
                self.read_ready(ctx);
            }
            Input::Event(event) => {
                point_of(&event);
                self.step(event, ctx);
            }
            Input::Finished(finished) => {
                faults::point("builder.build_finished");
                self.builds.remove(&finished.claim);
                let BuildFinished { claim, result, requeued, times } = finished;
                self.step(Event::Finished { claim, result, requeued, times }, ctx);
            }
            Input::TakeOver(take_over) => self.hand_over(take_over, ctx),
            Input::Retire => self.retire(&BTreeSet::new(), ctx),
            Input::Adopt(remains) => self.adopt(remains, ctx),
        }
    }

    /// One by one, so that a panic loses no more than the piece that caused it.
    fn read_ready(&mut self, ctx: &mut Context<Self>) {
        while let Some(body) = self.ready.pop_front() {
            self.read(body, ctx);
        }
    }

    fn read(&mut self, body: BuilderMail, ctx: &mut Context<Self>) {
        let event = match body {
            BuilderMail::SubmitRequests(requests) => {
                faults::point("builder.submit");
                Event::Enqueue(requests)
            }
            BuilderMail::Cancel { request, reason, reply } => {
                faults::point("builder.cancel");
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
                faults::point("builder.attach");
                let (worker, session) = (attach.worker.clone(), attach.link.session);
                self.attaches.insert(worker.clone(), attach);
                Event::Attach { worker, session }
            }
            BuilderMail::AddLatent(add) => {
                faults::point("builder.add_latent");
                let worker = add.worker.clone();
                self.latent_adds.insert(worker.clone(), add);
                Event::AddLatent { worker }
            }
            BuilderMail::Event(event) => {
                point_of(&event);
                event
            }
        };
        if let Event::InheritedFinished { claim, .. } = &event {
            self.inherited.remove(claim);
        }
        self.step(event, ctx);
    }

    fn await_reply(&mut self, reply: oneshot::Sender<Result<bool, Refusal>>) -> ReplyId {
        let id = ReplyId(self.next_reply);
        self.next_reply += 1;
        self.replies.insert(id, reply);
        id
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.handle(self.world().clock.now(), event, &mut effects);
        self.perform_all(effects, ctx);
    }
}

/// Places at which tests make events panic.
fn point_of(event: &Event) {
    faults::point(match event {
        Event::Claimed { .. } => "builder.claimed",
        Event::StartAccepted { .. } => "builder.start_accepted",
        Event::SlotGranted { .. } => "builder.slot_granted",
        Event::MaybeStart { .. } | Event::Offered { .. } | Event::InLine { .. } => {
            "builder.maybe_start"
        }
        Event::PingDone { .. } => "builder.ping_done",
        Event::StopSaved { .. } => "builder.stop_saved",
        _ => "builder.event",
    });
}

fn empty_core(parts: &BuilderParts, generation: Generation, seed: u64) -> BuilderCore {
    BuilderCore::new(parts.id, generation, parts.config.clone(), Rng::seeded(seed))
}

impl Actor for Builder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if matches!(self.mode, Mode::Loading { .. }) {
            self.load(ctx);
        }
    }
}

impl Supervised for Builder {
    /// Nothing of the half-changed state is kept: the core is built anew from
    /// the store and from what the living parts report.
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.start_over();
    }
}

impl Drop for Builder {
    /// Its Builds live on when it gives up. Starts on their way come to
    /// nothing: whoever comes next undoes their claims.
    fn drop(&mut self) {
        for seat in self.seats.values() {
            seat.addr.do_send(LetGo);
        }
        let mut builds = std::mem::take(&mut self.builds);
        builds.append(&mut self.parts.orphans);
        let mut earlier = std::mem::take(&mut self.parts.earlier);
        earlier.extend(std::mem::take(&mut self.inherited).into_values());
        if !builds.is_empty() || !earlier.is_empty() {
            let (name, child) = (self.name().clone(), self.parts.child);
            self.parts.remains.do_send(Remains { name, child, builds, earlier });
        }
    }
}

impl Builder {
    fn start_over(&mut self) {
        self.restarts += 1;
        self.alarm.rang();
        self.notes_due = false;
        self.show_due = false;
        self.over_due = false;
        self.attaches.clear();
        self.latent_adds.clear();
        // Those who wait learn at once that nobody will answer.
        self.replies.clear();
        let generation = self.core.generation();
        // Never the same seed twice: it would name its claims as before.
        let seed = self.core.draw_seed();
        let mode = std::mem::replace(&mut self.mode, Mode::Loading { waiting: Vec::new() });
        // What had been told to the successor is not taken back by a panic of
        // the predecessor: it stays in charge, and the reload reports it.
        let waiting = match mode {
            Mode::HandingOver { waiting, take_over, .. } => {
                if let Some(stands) = take_over.stands {
                    let _ = stands.send(Err("the builder had to be started again".into()));
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

impl Handler<Mail> for Builder {
    type Result = ();
    fn handle(&mut self, mail: Mail, ctx: &mut Context<Self>) {
        self.take(Input::Mail(mail), ctx);
    }
}

impl Handler<BuilderEvent> for Builder {
    type Result = ();
    fn handle(&mut self, message: BuilderEvent, ctx: &mut Context<Self>) {
        self.take(Input::Event(message.0), ctx);
    }
}

impl Handler<BuildFinished> for Builder {
    type Result = ();
    fn handle(&mut self, message: BuildFinished, ctx: &mut Context<Self>) {
        self.take(Input::Finished(message), ctx);
    }
}

impl Handler<Inherited> for Builder {
    type Result = ();
    fn handle(&mut self, message: Inherited, ctx: &mut Context<Self>) {
        let Inherited { claim, request, reason, reply } = message;
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
                self.take(Input::Event(Event::StopOwn { claim, request, reason, reply }), ctx);
            }
        }
    }
}
