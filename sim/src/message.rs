//! What the actors of the simulated master say: the messages of
//! `botmaster::messages`, with plain addresses instead of actix's.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::build::Event as BuildEvent;
use botmaster::core::builder::{
    Event, Handover, ReplyId, Request, SeatReport, StartFailure, StartOrder, StepTimes,
};
use botmaster::core::ids::*;
use botmaster::core::inbox::{Inbox, SenderId};
use botmaster::core::time::Timestamp;
use botmaster::core::values::{BuildResult, BuilderConfig, WorkerConfig};
use botmaster::core::worker::Brought;
use botmaster::messages::{Refusal, Submission, Submitted, WorkerOrder};
use botmaster::protocol::json_v1::{Outcome, WorkerFrame};
use botmaster::store::logs::LogClosed;
use botmaster::store::{BuilderRecords, StoreError, Written};

use crate::bus::{Addr, Bus};
use crate::setup::Setup;

/// What a client is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of a submission.
    Submitted(Result<Vec<Submitted>, Refusal>),
    /// Of a cancel, stop, priority or ping.
    Done(Result<bool, Refusal>),
    /// Of an order to a worker.
    Ordered,
    /// Of a reload.
    Reloaded,
    /// Whoever should have answered is gone.
    Gone,
}

/// The way back to whoever asked. Dropped unused it says so.
pub struct Reply {
    bus: Rc<Bus>,
    to: Option<ReplyTo>,
}

enum ReplyTo {
    Client(u64),
    /// A second answer, looked at when the first was no.
    Second(Rc<RefCell<Second>>),
}

/// Joins the two answers to a cancel at a builder that was removed.
pub struct Second {
    first: Option<bool>,
    second: Option<bool>,
    reply: Option<Reply>,
}

impl Second {
    fn settle(this: &Rc<RefCell<Self>>) {
        let (reply, answer) = {
            let mut it = this.borrow_mut();
            let answer = match (it.first, it.second) {
                (Some(true), _) => true,
                (Some(false), Some(second)) => second,
                _ => return,
            };
            (it.reply.take(), answer)
        };
        if let Some(reply) = reply {
            reply.done(Ok(answer));
        }
    }

    /// The first answer, or why there is none.
    pub fn first(this: &Rc<RefCell<Self>>, first: Result<bool, Refusal>) {
        match first {
            Ok(first) => {
                this.borrow_mut().first = Some(first);
                Self::settle(this);
            }
            Err(refusal) => {
                let reply = this.borrow_mut().reply.take();
                if let Some(reply) = reply {
                    reply.done(Err(refusal));
                }
            }
        }
    }
}

impl Reply {
    /// Back to a client.
    pub fn client(bus: &Rc<Bus>, id: u64) -> Self {
        Self { bus: bus.clone(), to: Some(ReplyTo::Client(id)) }
    }

    /// One that joins two answers into `self`.
    pub fn split(self) -> (Rc<RefCell<Second>>, Self) {
        let bus = self.bus.clone();
        let join = Rc::new(RefCell::new(Second { first: None, second: None, reply: Some(self) }));
        (join.clone(), Self { bus, to: Some(ReplyTo::Second(join)) })
    }

    /// Says it.
    pub fn say(mut self, answer: Answer) {
        self.put(answer);
    }

    /// Whether it was done.
    pub fn done(self, done: Result<bool, Refusal>) {
        self.say(Answer::Done(done));
    }

    fn put(&mut self, answer: Answer) {
        match self.to.take() {
            None => {}
            Some(ReplyTo::Client(id)) => self.bus.answer(id, answer),
            Some(ReplyTo::Second(join)) => {
                join.borrow_mut().second = Some(matches!(answer, Answer::Done(Ok(true))));
                Second::settle(&join);
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.put(Answer::Gone);
    }
}

/// The answer to a start; dropped unused, the start was called back.
pub struct StartReply {
    bus: Rc<Bus>,
    claim: ClaimId,
    to: Option<Addr>,
}

impl StartReply {
    /// For `to`.
    pub fn new(bus: &Rc<Bus>, claim: ClaimId, to: Addr) -> Self {
        Self { bus: bus.clone(), claim, to: Some(to) }
    }

    /// Tells how it went.
    pub fn tell(mut self, outcome: Result<(), StartFailure>) {
        self.put(outcome);
    }

    fn put(&mut self, outcome: Result<(), StartFailure>) {
        let claim = self.claim;
        if let Some(to) = self.to.take() {
            self.bus.send(
                to,
                Msg::BuilderEvent(match outcome {
                    Ok(()) => Event::StartAccepted { claim },
                    Err(failure) => Event::StartFailed { claim, failure },
                }),
            );
        }
    }
}

impl Drop for StartReply {
    fn drop(&mut self) {
        self.put(Err(StartFailure::CalledBack));
    }
}

/// The answer to a builder that asks for a slot; dropped unused it refuses.
pub struct SlotReply {
    bus: Rc<Bus>,
    claim: ClaimId,
    to: Option<Addr>,
}

impl SlotReply {
    /// For `to`.
    pub fn new(bus: &Rc<Bus>, claim: ClaimId, to: Addr) -> Self {
        Self { bus: bus.clone(), claim, to: Some(to) }
    }

    /// Grants the slot.
    pub fn grant(mut self, worker_id: WorkerId, incarnation: Incarnation) {
        let claim = self.claim;
        if let Some(to) = self.to.take() {
            let event = Event::SlotGranted { claim, worker_id, incarnation };
            self.bus.send(to, Msg::BuilderEvent(event));
        }
    }
}

impl Drop for SlotReply {
    fn drop(&mut self) {
        let claim = self.claim;
        if let Some(to) = self.to.take() {
            self.bus.send(to, Msg::BuilderEvent(Event::SlotRefused { claim }));
        }
    }
}

/// A question whose asker waits; dropped unused it is answered with nothing.
pub struct Ask<T> {
    bus: Rc<Bus>,
    to: Option<Addr>,
    nothing: fn() -> Msg,
    make: fn(T) -> Msg,
}

impl<T> Ask<T> {
    /// From `to`.
    pub fn new(bus: &Rc<Bus>, to: Addr, make: fn(T) -> Msg, nothing: fn() -> Msg) -> Self {
        Self { bus: bus.clone(), to: Some(to), nothing, make }
    }

    /// Answers.
    pub fn answer(mut self, value: T) {
        if let Some(to) = self.to.take() {
            self.bus.send(to, (self.make)(value));
        }
    }
}

impl<T> Drop for Ask<T> {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            self.bus.send(to, (self.nothing)());
        }
    }
}

/// A worker's actor, as others hold it.
#[derive(Clone, Debug)]
pub struct WorkerDoor {
    /// Its name.
    pub name: WorkerName,
    /// Its id.
    pub id: WorkerId,
    /// Its actor.
    pub addr: Addr,
}

/// A worker is there and shall serve this builder.
#[derive(Clone)]
pub struct Attach {
    /// Which.
    pub worker: WorkerName,
    /// Its connection.
    pub session: SessionId,
    /// Its actor.
    pub door: Rc<WorkerDoor>,
}

/// What mail says.
pub enum BuilderMail {
    /// These requests are stored and wait.
    SubmitRequests(Vec<Request>),
    /// Cancel a request.
    Cancel { request: RequestId, reason: String, reply: Reply },
    /// Change a waiting request's priority.
    SetPriority { request: RequestId, priority: i64, reply: Reply },
    /// Stop a build.
    Stop { build: BuildId, reason: String, reply: Reply },
    /// Ping all workers.
    Ping { reply: Reply },
    /// A worker is there.
    Attach(Attach),
    /// The sender's last piece.
    Last,
    /// Anything else for whoever is in charge.
    Event(Event),
}

/// One numbered piece of mail.
pub struct Mail {
    /// Which builder's.
    pub route: u64,
    /// Who sends it.
    pub sender: SenderId,
    /// From 1.
    pub seq: u64,
    /// What it says.
    pub body: BuilderMail,
}

/// Where mail for a builder's name goes now.
pub struct BuilderRoute {
    /// Names it for the invariants.
    pub id: u64,
    current: Cell<Addr>,
    next_sender: Cell<u64>,
}

impl BuilderRoute {
    /// Leads to `first`.
    pub fn new(id: u64, first: Addr) -> Rc<Self> {
        Rc::new(Self { id, current: Cell::new(first), next_sender: Cell::new(1) })
    }

    /// From now on it leads to `successor`.
    pub fn lead_to(&self, successor: Addr) {
        self.current.set(successor);
    }
}

/// One sender's door to whoever is in charge of a builder.
pub struct BuilderDoor {
    /// The builder.
    pub name: BuilderName,
    bus: Rc<Bus>,
    route: Rc<BuilderRoute>,
    sender: SenderId,
    sent: Cell<u64>,
}

impl BuilderDoor {
    /// For a sender of its own.
    pub fn new(bus: &Rc<Bus>, name: BuilderName, route: Rc<BuilderRoute>) -> Self {
        let sender = SenderId(route.next_sender.get());
        route.next_sender.set(sender.0 + 1);
        Self { name, bus: bus.clone(), route, sender, sent: Cell::new(0) }
    }

    /// For another sender.
    pub fn another(&self) -> Self {
        Self::new(&self.bus, self.name.clone(), self.route.clone())
    }

    /// Sends mail.
    pub fn tell(&self, body: BuilderMail) {
        let seq = self.sent.get() + 1;
        self.sent.set(seq);
        let mail = Mail { route: self.route.id, sender: self.sender, seq, body };
        self.bus.see(crate::watch::Seen::MailSent {
            route: mail.route,
            sender: mail.sender.0,
            seq,
        });
        self.bus.send(self.route.current.get(), Msg::Mail(mail));
    }

    /// Passes mail on, as it is.
    pub fn forward(&self, mail: Mail) {
        self.bus.send(self.route.current.get(), Msg::Mail(mail));
    }

    /// Where it leads.
    pub fn route(&self) -> &Rc<BuilderRoute> {
        &self.route
    }
}

/// News of a SlaveBuilder's worker.
pub enum SeatNews {
    /// The worker answered for this builder.
    Answer { error: Option<String>, building: Option<ClaimId> },
    /// The connection ended.
    Detached,
    /// The worker accepted a start.
    Accepted(BuildId),
    /// The worker refused a start.
    Refused { build: BuildId, code: String, message: String },
}

/// All workers.
pub type Workers = Rc<BTreeMap<WorkerName, Rc<WorkerDoor>>>;

/// Builds that go on with earlier actors, and who has them.
pub type Yielded = BTreeMap<ClaimId, Addr>;

/// A seat as a builder holds it.
#[derive(Clone)]
pub struct SeatRef {
    /// Its SlaveBuilder.
    pub addr: Addr,
    /// Its connection.
    pub session: SessionId,
    /// Its worker.
    pub worker: Rc<WorkerDoor>,
}

/// Everything that is said.
pub enum Msg {
    /// The actor begins.
    Started,
    /// Its core's deadline.
    Alarm(u64),

    // A connection.
    /// A frame came.
    Arrived(Box<WorkerFrame>),
    /// The connection came to its end.
    Ended,
    /// No attach frame came in time.
    Handshake,
    /// Time to look whether anything was heard.
    Silence,
    /// The master knows it, or does not.
    Introduced(Option<(Rc<WorkerDoor>, Box<botmaster::protocol::json_v1::Attach>)>),

    // The BotMaster.
    /// See [`botmaster::messages::Submit`].
    Submit(Vec<Submission>, Reply),
    /// The store answered a submission.
    SubmitWritten(Written, Reply),
    /// Cancel a request.
    Cancel { request: RequestId, builder: BuilderName, reason: String, reply: Reply },
    /// Change a priority.
    SetPriority { request: RequestId, builder: BuilderName, priority: i64, reply: Reply },
    /// Stop a build.
    Stop { build: BuildId, builder: BuilderName, reason: String, reply: Reply },
    /// Ping a builder's workers.
    PingBuilder { builder: BuilderName, reply: Reply },
    /// Order a worker about.
    Order { worker: WorkerName, order: WorkerOrder, reply: Reply },
    /// New settings.
    Reload(Box<Setup>, Reply),
    /// A reload's steps are stored.
    ReloadWritten(Written),
    /// A successor of the reload stands, or does not.
    Stood { builder: BuilderName, done: Result<(), String> },
    /// A takeover of the reload came to this.
    TookOver { builder: BuilderName, done: Result<(), String> },
    /// A worker has room.
    WorkerAvailable { worker: WorkerName, builders: Vec<BuilderName>, room: usize },
    /// The next in line for a worker may have its room.
    OfferPassed { worker: WorkerName },
    /// A builder's head changed.
    OldestChanged { builder: BuilderName, oldest: Option<BuildsetId> },
    /// A builder stands.
    BuilderShown { builder: BuilderName, restarted: bool },
    /// Somebody says that it is this worker.
    Introduce(Box<botmaster::protocol::json_v1::Attach>, Addr),
    /// A child panicked.
    ChildDown { addr: Addr, child: u64, gave_up: bool },
    /// A worker's actor that gave up is replaced.
    ReplaceWorker(WorkerName),
    /// No new builds.
    Drain,
    /// The master stops: workers with builds get a longer lease.
    GrantLeases(Duration),
    /// For one of them.
    GrantLease(Duration),
    /// The store answered that.
    GrantWritten { session: SessionId, lease: Duration, stored: bool },

    // A Builder.
    /// Mail for whoever is in charge.
    Mail(Mail),
    /// Something about this actor's own builds.
    BuilderEvent(Event),
    /// A build ended, durably.
    BuildFinished {
        claim: ClaimId,
        result: BuildResult,
        requeued: Vec<Request>,
        times: Option<StepTimes>,
    },
    /// The store answered a claim.
    ClaimWritten { claim: ClaimId, incarnation: Incarnation, written: Written },
    /// The store could not undo a claim just then.
    UndoAgain { claim: ClaimId, build: BuildId, cancelled: Vec<RequestId>, refused: bool },
    /// The store could not end a build that no worker took just then.
    GiveUpAgain { claim: ClaimId, build: BuildId, text: String },
    /// The store could not end requests that left a claimed build just then.
    CancelAgain { claim: ClaimId, build: BuildId, requests: Vec<RequestId>, head: RequestId },
    /// Write what waits to be noted.
    FlushNotes,
    /// Show it to people.
    Show,
    /// Nothing is left, and no late mail came.
    OverNow,
    /// The store answered a load, with what the seats reported.
    Loaded {
        records: Box<Result<BuilderRecords, StoreError>>,
        reports: Vec<SeatReport>,
        yielded: Yielded,
    },
    /// Load again.
    LoadAgain,
    /// A build of a worker that is no longer configured ends now.
    EndWithoutWorker(BuildId, Box<botmaster::store::Op>),
    /// It has ended; these requests wait again.
    EndedWithoutWorker(BuildId, Vec<Request>),
    /// Something about a build that was inherited.
    Inherited { claim: ClaimId, request: Option<RequestId>, reason: String, reply: Option<Reply> },
    /// Which builds a removed builder still has.
    Yield { route: Rc<BuilderRoute>, ask: Ask<Yielded> },
    /// A successor shall take over.
    TakeOver { successor: Addr, config: Arc<BuilderConfig>, stands: TakeOverDone },
    /// All successors of the reload stand: this one is in charge from now on.
    Commit { workers: Workers, done: TakeOverDone },
    /// What the successor is built from.
    Soul { handover: Box<Handover>, predecessor: Addr },
    /// The successor stands.
    Stands,
    /// The successor is in charge.
    Go {
        inbox: Inbox<BuilderMail>,
        seats: BTreeMap<WorkerName, SeatRef>,
        inherited: BTreeMap<ClaimId, Addr>,
        workers: Workers,
    },
    /// The successor took too long.
    TakeoverLimit(Generation),
    /// The successor will not stand.
    SuccessorFailed(String),
    /// A successor that never stood is not needed.
    GiveUp,
    /// The builder is no longer configured.
    RetireBuilder,

    // A loader: the task between a Builder and its records.
    /// What a removed builder yielded.
    LoadYielded(Yielded),
    /// What the store has.
    LoadRecords(Box<Result<BuilderRecords, StoreError>>),
    /// What a seat says of itself.
    LoadReport(Option<SeatReport>),

    // A SlaveBuilder.
    /// News of the worker.
    SeatNews(SeatNews),
    /// Ping, then start this.
    StartBuild { order: Box<StartOrder>, reply: StartReply },
    /// A person asks.
    Ping { reply: ReplyId, from: Addr },
    /// How a ping ended.
    PingEnded { token: PingToken, ok: bool },
    /// Take a request out of a start.
    LeaveStart { claim: ClaimId, request: RequestId, from: Addr },
    /// Call a start back.
    CallBackStart(ClaimId),
    /// The build is over.
    BuildOver(ClaimId),
    /// The builder does not need it any more.
    LetGo,
    /// What it is used for.
    DescribeSeat(Ask<Option<SeatReport>>),

    // A Ping.
    /// The worker answered.
    Pong,
    /// The connection is gone.
    PingLost,
    /// Somebody cannot wait as long.
    TightenPing(Timestamp),
    /// Nobody waits any more.
    EndPing,

    // A Worker.
    /// A connection proved itself.
    Hello { session: SessionId, slots: u32, instance: String },
    /// The store answered an attach.
    AttachWritten { session: SessionId, outcome: Result<Incarnation, String> },
    /// The store answered an order.
    OrderWritten {
        written: Result<(), String>,
        then: Box<botmaster::core::worker::Event>,
        ordered: Option<Reply>,
    },
    /// No inventory came in time.
    InventoryLimit(SessionId),
    /// A frame of this connection.
    FrameArrived { session: SessionId, frame: Box<WorkerFrame> },
    /// The connection ended.
    ConnectionLost { session: SessionId },
    /// A builder asks for a slot.
    AskSlot { builder: BuilderName, claim: ClaimId, reply: SlotReply },
    /// A slot is free again.
    GiveBackSlot { builder: BuilderName, claim: ClaimId },
    /// Of a builder's slots only these are in use.
    KeepSlots { builder: BuilderName, claims: BTreeSet<ClaimId> },
    /// A SlaveBuilder waits for its builder's answer.
    RegisterSeat { session: SessionId, builder: BuilderName, to: Addr },
    /// A start goes out.
    RegisterStart { build: BuildId, builder: BuilderName },
    /// A Build lives for this build.
    RegisterBuild {
        build: BuildId,
        claim: ClaimId,
        builder: BuilderName,
        session: Option<SessionId>,
        in_doubt: bool,
        to: Addr,
    },
    /// The build ended.
    ForgetBuild { build: BuildId, result: Option<&'static str> },
    /// A Ping waits for this token's pong.
    RegisterPing { token: PingToken, session: SessionId, to: Addr },
    /// A Ping waits no more.
    ForgetPing(PingToken),
    /// New settings.
    ConfigureWorker {
        config: WorkerConfig,
        builders: Vec<(Rc<BuilderDoor>, String)>,
        renewed: Rc<BTreeSet<BuilderName>>,
    },
    /// A person's order.
    WorkerOrdered { order: WorkerOrder, reply: Reply },
    /// A builder is broken.
    BuilderBroken(BuilderName),
    /// It is configured again, and this is its actor now.
    YieldBuilds(Rc<WorkerDoor>),
    /// It is no longer configured.
    RetireWorker,

    // A Build.
    /// Something happened to it.
    BuildEvent(BuildEvent),
    /// Its command ended.
    CommandFinished {
        command: CommandId,
        outcome: Outcome,
        log_end: Option<u64>,
        properties: Vec<(String, String)>,
    },
    /// Its worker is back.
    WorkerBack { session: SessionId, incarnation: Incarnation, brought: Brought },
    /// The store answered.
    StoreAnswered { ticket: u64, written: Written },
    /// The store knows the new owner, or does not.
    Adopted { incarnation: Incarnation, ok: bool },
    /// Try again.
    AdoptAgain,
    /// The log store answered.
    LogAnswered { log: LogId, closed: Result<LogClosed, StoreError> },
    /// A log of before is open again.
    LogReopened { session: SessionId, command: Option<CommandId>, have: Option<u64> },
}

/// Who hears what came of a takeover. Dropped unused, the builder went away.
pub struct TakeOverDone {
    bus: Rc<Bus>,
    to: Option<Addr>,
    builder: BuilderName,
    stands: bool,
}

impl TakeOverDone {
    /// For `to`: whether the successor stands.
    pub fn standing(bus: &Rc<Bus>, to: Addr, builder: BuilderName) -> Self {
        Self { bus: bus.clone(), to: Some(to), builder, stands: true }
    }

    /// For `to`: whether it is in charge.
    pub fn done(bus: &Rc<Bus>, to: Addr, builder: BuilderName) -> Self {
        Self { bus: bus.clone(), to: Some(to), builder, stands: false }
    }

    /// Tells.
    pub fn tell(mut self, done: Result<(), String>) {
        self.put(done);
    }

    fn put(&mut self, done: Result<(), String>) {
        if let Some(to) = self.to.take() {
            let builder = self.builder.clone();
            self.bus.send(
                to,
                if self.stands {
                    Msg::Stood { builder, done }
                } else {
                    Msg::TookOver { builder, done }
                },
            );
        }
    }
}

impl Drop for TakeOverDone {
    fn drop(&mut self) {
        self.put(Err("the builder went away meanwhile".into()));
    }
}

impl Msg {
    /// A word for the trace.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Alarm(_) => "alarm",
            Self::Arrived(frame) => frame.kind(),
            Self::Ended => "ended",
            Self::Handshake => "handshake-limit",
            Self::Silence => "silence?",
            Self::Introduced(_) => "introduced",
            Self::Submit(..) => "submit",
            Self::SubmitWritten(..) => "submit-written",
            Self::Cancel { .. } => "cancel",
            Self::SetPriority { .. } => "set-priority",
            Self::Stop { .. } => "stop",
            Self::PingBuilder { .. } => "ping-builder",
            Self::Order { .. } => "order",
            Self::Reload(..) => "reload",
            Self::ReloadWritten(_) => "reload-written",
            Self::Stood { .. } => "stood",
            Self::TookOver { .. } => "took-over",
            Self::Commit { .. } => "commit",
            Self::WorkerAvailable { .. } => "worker-available",
            Self::OfferPassed { .. } => "offer-passed",
            Self::OldestChanged { .. } => "oldest-changed",
            Self::BuilderShown { .. } => "builder-shown",
            Self::Introduce(..) => "introduce",
            Self::ChildDown { .. } => "child-down",
            Self::ReplaceWorker(_) => "replace-worker",
            Self::Drain => "drain",
            Self::GrantLeases(_) => "grant leases",
            Self::GrantLease(_) => "grant lease",
            Self::GrantWritten { .. } => "grant written",
            Self::Mail(mail) => mail.body.word(),
            Self::BuilderEvent(event) => event_word(event),
            Self::BuildFinished { .. } => "build-finished",
            Self::ClaimWritten { .. } => "claim-written",
            Self::UndoAgain { .. } => "undo-again",
            Self::GiveUpAgain { .. } => "give-up-again",
            Self::CancelAgain { .. } => "cancel-again",
            Self::LeaveStart { .. } => "leave-start",
            Self::FlushNotes => "flush-notes",
            Self::Show => "show",
            Self::OverNow => "over?",
            Self::Loaded { .. } => "loaded",
            Self::LoadAgain => "load-again",
            Self::EndWithoutWorker(..) => "end-without-worker",
            Self::EndedWithoutWorker(..) => "ended-without-worker",
            Self::Inherited { .. } => "inherited",
            Self::Yield { .. } => "yield",
            Self::TakeOver { .. } => "take-over",
            Self::Soul { .. } => "soul",
            Self::Stands => "stands",
            Self::Go { .. } => "go",
            Self::TakeoverLimit(_) => "takeover-limit",
            Self::SuccessorFailed(_) => "successor-failed",
            Self::GiveUp => "give-up",
            Self::RetireBuilder => "retire-builder",
            Self::LoadYielded(_) => "load-yielded",
            Self::LoadRecords(_) => "load-records",
            Self::LoadReport(_) => "load-report",
            Self::SeatNews(news) => match news {
                SeatNews::Answer { .. } => "seat-answer",
                SeatNews::Detached => "seat-detached",
                SeatNews::Accepted(_) => "seat-accepted",
                SeatNews::Refused { .. } => "seat-refused",
            },
            Self::StartBuild { .. } => "start-build",
            Self::Ping { .. } => "ping",
            Self::PingEnded { .. } => "ping-ended",
            Self::CallBackStart(_) => "call-back-start",
            Self::BuildOver(_) => "build-over",
            Self::LetGo => "let-go",
            Self::DescribeSeat(_) => "describe-seat",
            Self::Pong => "pong",
            Self::PingLost => "ping-lost",
            Self::TightenPing(_) => "tighten-ping",
            Self::EndPing => "end-ping",
            Self::Hello { .. } => "hello",
            Self::AttachWritten { .. } => "attach-written",
            Self::OrderWritten { .. } => "order-written",
            Self::InventoryLimit(_) => "inventory-limit",
            Self::FrameArrived { frame, .. } => frame.kind(),
            Self::ConnectionLost { .. } => "connection-lost",
            Self::AskSlot { .. } => "ask-slot",
            Self::GiveBackSlot { .. } => "give-back-slot",
            Self::KeepSlots { .. } => "keep-slots",
            Self::RegisterSeat { .. } => "register-seat",
            Self::RegisterStart { .. } => "register-start",
            Self::RegisterBuild { .. } => "register-build",
            Self::ForgetBuild { .. } => "forget-build",
            Self::RegisterPing { .. } => "register-ping",
            Self::ForgetPing(_) => "forget-ping",
            Self::ConfigureWorker { .. } => "configure-worker",
            Self::WorkerOrdered { .. } => "worker-ordered",
            Self::BuilderBroken(_) => "builder-broken",
            Self::YieldBuilds(_) => "yield-builds",
            Self::RetireWorker => "retire-worker",
            Self::BuildEvent(event) => build_event_word(event),
            Self::CommandFinished { .. } => "command-finished",
            Self::WorkerBack { .. } => "worker-back",
            Self::StoreAnswered { .. } => "store-answered",
            Self::Adopted { .. } => "adopted",
            Self::AdoptAgain => "adopt-again",
            Self::LogAnswered { .. } => "log-answered",
            Self::LogReopened { .. } => "log-reopened",
        }
    }
}

impl BuilderMail {
    fn word(&self) -> &'static str {
        match self {
            Self::SubmitRequests(_) => "mail:submit",
            Self::Cancel { .. } => "mail:cancel",
            Self::SetPriority { .. } => "mail:priority",
            Self::Stop { .. } => "mail:stop",
            Self::Ping { .. } => "mail:ping",
            Self::Attach(_) => "mail:attach",
            Self::Last => "mail:last",
            Self::Event(event) => event_word(event),
        }
    }
}

/// The word of a builder's event. Words of events that later work adds are not
/// worth an error of the compiler here.
fn event_word(event: &Event) -> &'static str {
    match event {
        Event::Enqueue(_) => "enqueue",
        Event::Cancel { .. } => "cancel",
        Event::CancelFailed(_) => "cancel-failed",
        Event::SetPriority { .. } => "set-priority",
        Event::Stop { .. } => "stop",
        Event::Ping { .. } => "ping",
        Event::Attach { .. } => "attach",
        Event::Attached { .. } => "attached",
        Event::AttachFailed { .. } => "attach-failed",
        Event::Detach { .. } => "detach",
        Event::PingDone { .. } => "ping-done",
        Event::MaybeStart { .. } => "maybe-start",
        Event::Offered { .. } => "offered",
        Event::InLine { .. } => "in-line",
        Event::SlotGranted { .. } => "slot-granted",
        Event::SlotRefused { .. } => "slot-refused",
        Event::Claimed { .. } => "claimed",
        Event::ClaimLost { .. } => "claim-lost",
        Event::Unclaimed { .. } => "unclaimed",
        Event::StartFailed { .. } => "start-failed",
        Event::StartAccepted { .. } => "start-accepted",
        Event::Started { .. } => "build-started",
        Event::Orphaned { .. } => "orphaned",
        Event::InheritedOrphaned { .. } => "inherited orphaned",
        Event::Finished { .. } => "finished",
        Event::InheritedFinished { .. } => "inherited-finished",
        Event::InheritedStarted { .. } => "inherited-started",
        Event::StopOwn { .. } => "stop-own",
        Event::Return(_) => "return",
        Event::DeadlineReached => "deadline",
        Event::Drain => "drain",
        #[allow(unreachable_patterns)]
        _ => "event",
    }
}

fn build_event_word(event: &BuildEvent) -> &'static str {
    match event {
        BuildEvent::Stop { .. } => "build:stop",
        BuildEvent::Away => "build:away",
        BuildEvent::Gone => "build:gone",
        BuildEvent::Broken { .. } => "build:broken",
        BuildEvent::CommandEnded { .. } => "build:command-ended",
        _ => "build:event",
    }
}
