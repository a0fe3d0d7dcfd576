//! What a builder hears, and what it wants done.

use std::sync::Arc;
use std::time::Duration;

use super::expectations::{Prediction, StepTimes};
use super::queue::Request;
use crate::core::ids::*;
use crate::core::values::{BuildResult, BuilderConfig};
use crate::core::views::Away;

/// Names somebody who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplyId(pub u64);

/// Why a start came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartFailure {
    /// The ping was not answered: nothing ran (row B08).
    NoAnswer(String),
    /// The worker left before the start was sent: nothing ran, and it may be
    /// tried again as soon as it is back (fault row FP10).
    Left,
    /// The worker left after the start was sent and before its answer: it may
    /// have the build (fault row FB03).
    InDoubt {
        /// The connection over which it was sent.
        session: SessionId,
    },
    /// The worker refused the build.
    Refused {
        /// The wire's code.
        code: String,
        /// For people.
        message: String,
    },
    /// The start was called back before it was sent.
    CalledBack,
}

/// What a builder hears.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// These requests are stored and wait from now on (row B05).
    Enqueue(Vec<Request>),
    /// Somebody wants a request cancelled (row B07).
    Cancel {
        /// Which.
        request: RequestId,
        /// For people.
        reason: String,
        /// Who waits.
        reply: ReplyId,
    },
    /// The store could not cancel it: it waits again.
    CancelFailed(Request),
    /// Somebody wants a waiting request to have another priority.
    SetPriority {
        /// Which.
        request: RequestId,
        /// Higher first.
        priority: i64,
        /// Who waits.
        reply: ReplyId,
    },
    /// Somebody wants a build stopped.
    Stop {
        /// Which.
        build: BuildId,
        /// For people.
        reason: String,
        /// Who waits.
        reply: ReplyId,
    },
    /// The store answered a `SaveStop`.
    StopSaved {
        /// Whose.
        claim: ClaimId,
        /// For people.
        reason: String,
        /// What became of it.
        saved: StopSaved,
    },
    /// Somebody wants all workers pinged (row C03).
    Ping {
        /// Who waits.
        reply: ReplyId,
    },
    /// A worker is there and shall serve this builder.
    Attach {
        /// Which.
        worker: WorkerName,
        /// Its connection.
        session: SessionId,
    },
    /// The attach went through. With a build when the worker came back with
    /// one of this builder (row S02).
    Attached {
        /// Which.
        worker: WorkerName,
        /// Its connection.
        session: SessionId,
        /// The build that has the seat.
        building: Option<ClaimId>,
    },
    /// The attach did not go through (row B23).
    AttachFailed {
        /// Which.
        worker: WorkerName,
        /// Its connection.
        session: SessionId,
        /// Why.
        error: String,
    },
    /// The worker is gone (row B24).
    Detach {
        /// Which.
        worker: WorkerName,
        /// The connection that ended.
        session: SessionId,
    },
    /// A person's ping of one worker ended.
    PingDone {
        /// Which.
        worker: WorkerName,
        /// Whether it answered.
        ok: bool,
    },
    /// Workers may have become free: try to start builds (rows B16, S09).
    MaybeStart {
        /// The one that became free, or none for any.
        worker: Option<WorkerName>,
    },
    /// The worker has room, and this builder is next in line for it: it asks for
    /// a slot, or passes the offer on (rows B16, B32).
    Offered {
        /// Which.
        worker: WorkerName,
    },
    /// The worker has room, and others are offered it first (row B16).
    InLine {
        /// Which.
        worker: WorkerName,
    },
    /// The worker gave the build a slot.
    SlotGranted {
        /// Whose.
        claim: ClaimId,
        /// The worker's id.
        worker_id: WorkerId,
        /// Its incarnation.
        incarnation: Incarnation,
    },
    /// A latent worker serves this builder (row B26).
    AddLatent {
        /// Which.
        worker: WorkerName,
    },
    /// A worker is no latent one any more.
    NotLatent {
        /// Which.
        worker: WorkerName,
    },
    /// The worker keeps a slot for the build, and its instance is not there.
    SlotReserved {
        /// Whose.
        claim: ClaimId,
    },
    /// The instance that the build waits for is there for this builder.
    Substantiated {
        /// Whose.
        claim: ClaimId,
    },
    /// The instance that the build waits for will not be there.
    NotSubstantiated {
        /// Whose.
        claim: ClaimId,
        /// Why; none when it was not tried.
        error: Option<String>,
        /// Asking again is no use.
        permanent: bool,
    },
    /// The end of a build without a worker is durable, or not ours to write.
    FailedBuild {
        /// Whose.
        claim: ClaimId,
    },
    /// The worker has no slot just now. It will say when it has one.
    SlotRefused {
        /// Whose.
        claim: ClaimId,
    },
    /// The claim is durable.
    Claimed {
        /// Whose.
        claim: ClaimId,
        /// The new build.
        build: BuildId,
        /// Its requests in their new epochs.
        requests: Vec<(RequestId, Epoch)>,
    },
    /// The claim changed nothing: the requests wait still, unless they ended.
    ClaimLost {
        /// Whose.
        claim: ClaimId,
        /// Why.
        error: String,
        /// Whether trying again can help.
        transient: bool,
    },
    /// Whether a cancelled request left a start before it was sent.
    LeftStart {
        /// Whose.
        claim: ClaimId,
        /// Which.
        request: RequestId,
        /// False: the start was sent, with the request.
        in_time: bool,
    },
    /// The store ended requests that left a claimed build, or could not: the
    /// build had started with them.
    CancelledClaimed {
        /// Whose.
        claim: ClaimId,
        /// Which.
        requests: Vec<RequestId>,
        /// They ended.
        done: bool,
    },
    /// The claim is undone, durably.
    Unclaimed {
        /// Whose.
        claim: ClaimId,
        /// Back in the queue.
        requests: Vec<Request>,
    },
    /// The start came to nothing.
    StartFailed {
        /// Whose.
        claim: ClaimId,
        /// Why.
        failure: StartFailure,
    },
    /// The worker has the build.
    StartAccepted {
        /// Whose.
        claim: ClaimId,
    },
    /// The build has its number.
    Started {
        /// Whose.
        claim: ClaimId,
        /// Its number.
        number: BuildNumber,
    },
    /// The running build's worker is away, or is back.
    Orphaned {
        /// Whose.
        claim: ClaimId,
        /// Since when, and how long it is waited for.
        away: Option<Away>,
    },
    /// The same of a predecessor's build.
    InheritedOrphaned {
        /// Whose.
        claim: ClaimId,
        /// Since when, and how long it is waited for.
        away: Option<Away>,
    },
    /// The build ended, durably.
    Finished {
        /// Whose.
        claim: ClaimId,
        /// How.
        result: BuildResult,
        /// Requests that went back to the queue.
        requeued: Vec<Request>,
        /// What each step took, when it succeeded.
        times: Option<StepTimes>,
    },
    /// A predecessor's build ended.
    InheritedFinished {
        /// Whose.
        claim: ClaimId,
        /// Requests for the head of this queue (row T09).
        requeued: Vec<Request>,
        /// What each step took, when it succeeded.
        times: Option<StepTimes>,
    },
    /// A predecessor's build got its number.
    InheritedStarted {
        /// Whose.
        claim: ClaimId,
        /// Its id.
        build: BuildId,
        /// Its number.
        number: BuildNumber,
    },
    /// A successor passes on that one of our builds shall stop.
    StopOwn {
        /// Whose.
        claim: ClaimId,
        /// The request to cancel, when it is about one.
        request: Option<RequestId>,
        /// For people.
        reason: String,
        /// Who waits.
        reply: Option<ReplyId>,
    },
    /// These requests wait again; whatever is known of their ids.
    Return(Vec<Request>),
    /// A deadline passed.
    DeadlineReached,
    /// No more starts: the master is about to stop.
    Drain,
}

/// What became of a stop that was to be kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StopSaved {
    /// It is durable: whoever has the build, now or later, knows it.
    Kept,
    /// The build had ended before, or its claim was undone (row T02).
    TooLate,
    /// The store could not keep it: it is as if nobody had asked.
    Failed {
        /// Why.
        error: String,
    },
}

/// What a builder answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Whether it did something.
    Done(bool),
    /// The store could not do it.
    Failed {
        /// Why.
        error: String,
    },
}

/// How a build that was sent to its worker is taken up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// The worker accepted it.
    Accepted,
    /// Whether the worker has it is not known yet.
    InDoubt {
        /// The connection over which it was sent; none when an earlier master
        /// sent it.
        session: Option<SessionId>,
    },
}

/// A build to be started on a worker.
#[derive(Clone, PartialEq, Debug)]
pub struct StartOrder {
    /// Whose.
    pub claim: ClaimId,
    /// The build.
    pub build: BuildId,
    /// Its requests with their epochs.
    pub requests: Vec<(RequestId, Epoch)>,
    /// How long the ping may take (row B13).
    pub ping_timeout: Duration,
    /// The builder as it was when the build was chosen.
    pub config: Arc<BuilderConfig>,
}

/// News of a latent worker's connection, for its LatentSlaveBuilder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LatentNews {
    /// It is attached for this builder.
    Attached,
    /// It cannot serve this builder.
    AttachFailed {
        /// Why.
        error: String,
    },
    /// It ended.
    Detached,
}

/// What a builder wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Tell who waits.
    Answer(ReplyId, Answer),
    /// Ask the worker for a slot; it answers `SlotGranted` or `SlotRefused`.
    AskSlot {
        /// Which.
        worker: WorkerName,
        /// For whom.
        claim: ClaimId,
    },
    /// The worker's slot is free again.
    GiveBackSlot {
        /// Which.
        worker: WorkerName,
        /// Whose it was.
        claim: ClaimId,
    },
    /// Claim the requests in the store.
    Claim {
        /// For whom.
        claim: ClaimId,
        /// The worker.
        worker_id: WorkerId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// In their present epochs.
        requests: Vec<(RequestId, Epoch)>,
        /// The builder as it is now.
        config: Arc<BuilderConfig>,
    },
    /// Undo a claim whose build never started.
    Unclaim {
        /// Whose.
        claim: ClaimId,
        /// The build.
        build: BuildId,
        /// Requests that end instead of waiting again.
        cancelled: Vec<RequestId>,
        /// The worker refused the start, which counts a try (row B08).
        refused: bool,
    },
    /// End a build that was refused as often as it may be (fault row FB08);
    /// answered `Unclaimed` without requests.
    GiveUp {
        /// Whose.
        claim: ClaimId,
        /// The build.
        build: BuildId,
        /// For people, with every reason.
        text: String,
    },
    /// End requests of a claimed build, which goes on with its others.
    /// Answered `CancelledClaimed`.
    CancelClaimed {
        /// Whose.
        claim: ClaimId,
        /// The build.
        build: BuildId,
        /// Which.
        requests: Vec<RequestId>,
        /// The build's first request from now on: it is built as this one's
        /// submission says.
        head: RequestId,
    },
    /// End a request that waits, then answer.
    CancelWaiting {
        /// It is out of the queue already.
        request: Request,
        /// Who waits.
        reply: Option<ReplyId>,
    },
    /// Keep a waiting request's new priority, then answer.
    SavePriority {
        /// Which.
        request: RequestId,
        /// Higher first.
        priority: i64,
        /// Who waits.
        reply: ReplyId,
    },
    /// Make a SlaveBuilder for the worker.
    NewSeat {
        /// Which.
        worker: WorkerName,
        /// Its connection.
        session: SessionId,
    },
    /// Let the SlaveBuilder go.
    DropSeat {
        /// Which.
        worker: WorkerName,
    },
    /// Have a LatentSlaveBuilder for the worker; one that is there stays, and
    /// waits for no build of an actor that panicked.
    NewLatent {
        /// Which.
        worker: WorkerName,
    },
    /// Let the LatentSlaveBuilder go.
    DropLatent {
        /// Which.
        worker: WorkerName,
    },
    /// Have the instance of a latent worker made; answered `Substantiated` or
    /// `NotSubstantiated`.
    Substantiate {
        /// Which.
        worker: WorkerName,
        /// For whom.
        claim: ClaimId,
    },
    /// The build does not wait for the instance any more.
    CallBackSubstantiation {
        /// Which worker.
        worker: WorkerName,
        /// Whose.
        claim: ClaimId,
    },
    /// News for the LatentSlaveBuilder.
    TellLatent {
        /// Which worker.
        worker: WorkerName,
        /// What.
        news: LatentNews,
    },
    /// A person's ping of a latent worker without an instance.
    PingLatent {
        /// Which.
        worker: WorkerName,
    },
    /// Write down a build that never had a worker, with its requests' end;
    /// answered `FailedBuild`.
    FailBuild {
        /// For whom.
        claim: ClaimId,
        /// The worker that could not be had.
        worker: WorkerName,
        /// In their present epochs.
        requests: Vec<(RequestId, Epoch)>,
        /// For people.
        state_string: String,
        /// The builder as it was when the build was chosen.
        config: Arc<BuilderConfig>,
    },
    /// Ping the worker and start the build there.
    StartOnSeat {
        /// Which.
        worker: WorkerName,
        /// What.
        order: StartOrder,
    },
    /// Call a start back if it was not sent yet.
    CallBackStart {
        /// Which.
        worker: WorkerName,
        /// Whose.
        claim: ClaimId,
    },
    /// Take a request out of a start if that was not sent yet. Answered
    /// `LeftStart`.
    LeaveStart {
        /// Which.
        worker: WorkerName,
        /// Whose.
        claim: ClaimId,
        /// The request.
        request: RequestId,
    },
    /// The worker accepted the build: number it and run it. Or it may have
    /// accepted it: wait for its inventory, then do so.
    RunBuild {
        /// Whose.
        claim: ClaimId,
        /// The build.
        build: BuildId,
        /// Its worker.
        worker: WorkerName,
        /// Its requests, at least one. It is built as the first one's
        /// submission says.
        requests: Vec<Request>,
        /// The builder as it was when the build was chosen.
        config: Arc<BuilderConfig>,
        /// What is expected of it, as it is known now (row B15).
        expected: Option<Prediction>,
        /// How.
        take: Take,
    },
    /// Keep that a build of ours shall stop; answered `StopSaved`. Nobody is
    /// told before (invariant I12).
    SaveStop {
        /// Whose.
        claim: ClaimId,
        /// The build.
        build: BuildId,
        /// For people.
        reason: String,
    },
    /// Stop a build of ours.
    StopBuild {
        /// Whose.
        claim: ClaimId,
        /// For people.
        reason: String,
    },
    /// Stop a predecessor's build.
    StopInherited {
        /// Whose.
        claim: ClaimId,
        /// The build, when it is known.
        build: Option<BuildId>,
        /// The request to cancel, when it is about one.
        request: Option<RequestId>,
        /// For people.
        reason: String,
        /// Who waits: the build's owner answers.
        reply: Option<ReplyId>,
    },
    /// The seat's build is over (row S06).
    BuildOver {
        /// Which worker.
        worker: WorkerName,
        /// Whose.
        claim: ClaimId,
    },
    /// A person's ping of one worker.
    PingSeat {
        /// Which.
        worker: WorkerName,
    },
    /// A moment for the event stream.
    Note {
        /// On which worker.
        worker: Option<WorkerName>,
        /// In the rows' words.
        text: String,
        /// The error text, when it was a failure.
        error: Option<String>,
    },
    /// It does not use the room that the worker has: whoever is next in line may.
    PassOn {
        /// Which.
        worker: WorkerName,
    },
    /// The head of the queue changed: this orders "every builder is tried"
    /// (row B32).
    OldestChanged(Option<BuildsetId>),
    /// A build of the predecessor's ended; tell the latest successor.
    TellSuccessor(Event),
    /// The expectations changed.
    SaveExpectations(String),
    /// Something stale, unknown or refused was ignored.
    Ignored(&'static str),
    /// A retired builder has nothing left to do.
    Over,
}
