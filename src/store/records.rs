//! Records: rows as the API shows them, and the operations of a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::about::{BuilderAbout, ParentBuild, PatchRow, SchedulerRow, StepAbout};
use crate::core::builder::{Prediction, QueuedEta};
use crate::core::ids::*;
use crate::core::lease::Grant;
use crate::core::time::WallTime;
use crate::core::values::{BuildResult, Factory, Loss, Properties, SourceStamp};

/// A builder that is or was configured.
#[derive(Clone, PartialEq, Debug)]
pub struct BuilderRow {
    /// Kept for its name for ever.
    pub id: BuilderId,
    /// Its name.
    pub name: BuilderName,
    /// For people.
    pub description: Option<String>,
    /// For people and filters.
    pub tags: Vec<String>,
    /// False once it is no longer configured.
    pub configured: bool,
    /// Its workers, in order of configuration.
    pub workers: Vec<WorkerId>,
    /// What the project's part of the configuration says of it.
    pub about: BuilderAbout,
}

/// A worker that is or was configured.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkerRow {
    /// Kept for its name for ever.
    pub id: WorkerId,
    /// Its name.
    pub name: WorkerName,
    /// False once it is no longer configured.
    pub configured: bool,
    /// Whether it is attached now.
    pub connected: bool,
    /// Its latest incarnation.
    pub incarnation: Incarnation,
    /// What it told of itself at its last attach.
    pub info: BTreeMap<String, String>,
    /// Gets no starts.
    pub paused: bool,
    /// Why.
    pub pause_reason: Option<String>,
    /// Leaves once its builds have ended.
    pub graceful: bool,
}

/// A source stamp as stored.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceStampRow {
    /// Its id.
    pub id: u64,
    /// What it says.
    pub stamp: SourceStamp,
    /// When it was first seen.
    pub created_at: WallTime,
    /// What is changed in the source before it is built.
    pub patch: Option<Arc<PatchRow>>,
}

/// The set of requests that one submission made.
#[derive(Clone, PartialEq, Debug)]
pub struct BuildsetRow {
    /// Its id.
    pub id: BuildsetId,
    /// The submitter's own name for it.
    pub external_id: Option<String>,
    /// For people.
    pub reason: String,
    /// Who asked: `force`, `rebuild`, …
    pub scheduler: String,
    /// When.
    pub submitted_at: WallTime,
    /// When all of its requests were complete.
    pub complete_at: Option<WallTime>,
    /// The worst of its requests' results.
    pub results: Option<BuildResult>,
    /// The build that this repeats.
    pub rebuilt_build: Option<BuildId>,
    /// What to build.
    pub sourcestamps: Vec<SourceStampRow>,
    /// For every build of it.
    pub properties: Arc<Properties>,
    /// The build that asked for it, if one did.
    pub parent: Option<ParentBuild>,
}

/// A build request.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestRow {
    /// Its id; it grows with the order of submission.
    pub id: RequestId,
    /// Its set.
    pub buildset: BuildsetId,
    /// Its builder.
    pub builder: BuilderId,
    /// Higher first.
    pub priority: i64,
    /// When it was submitted.
    pub submitted_at: WallTime,
    /// Where it stands.
    pub state: RequestState,
    /// One higher at each claim.
    pub epoch: Epoch,
    /// When it was claimed last.
    pub claimed_at: Option<WallTime>,
    /// When it was complete.
    pub complete_at: Option<WallTime>,
    /// How it ended.
    pub results: Option<BuildResult>,
    /// It goes before requests that were never started.
    pub requeued: bool,
    /// Builds lost or refused after their start.
    pub infra_tries: u32,
    /// A parent build waits for it.
    pub waited_for: bool,
}

/// What a request shares with the other requests of its set.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SetPart {
    /// Ids of the source stamps, in order. Equal stamps have the same id.
    pub source: Arc<[u64]>,
    /// For every build of the set.
    pub properties: Arc<Properties>,
}

impl From<&BuildsetRow> for SetPart {
    fn from(set: &BuildsetRow) -> Self {
        Self {
            source: set.sourcestamps.iter().map(|stamp| stamp.id).collect(),
            properties: set.properties.clone(),
        }
    }
}

/// A build request with what its builder needs to know to start it.
#[derive(Clone, PartialEq, Debug)]
pub struct RequestWithSet {
    /// The request.
    pub row: Arc<RequestRow>,
    /// Of its set.
    pub set: SetPart,
    /// How builds of it were lost with their workers, in order.
    pub losses: Arc<[Loss]>,
}

/// Where a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// It waits.
    Queued = 0,
    /// A build has it.
    Claimed = 1,
    /// Its build ended.
    Done = 2,
    /// It was cancelled before a build ended.
    Cancelled = 3,
}

/// Where a build stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    /// Claimed; substantiating, pinging, or its start is on the way. It has no
    /// number yet and is not shown.
    Claimed = 0,
    /// It has its number and runs (or is orphaned).
    Running = 1,
    /// It ended.
    Finished = 2,
}

/// One build.
#[derive(Clone, PartialEq, Debug)]
pub struct BuildRow {
    /// Its id.
    pub id: BuildId,
    /// Its number, from the moment it has started.
    pub number: Option<BuildNumber>,
    /// Its builder.
    pub builder: BuilderId,
    /// The oldest of its requests.
    pub request: RequestId,
    /// Its worker.
    pub worker: WorkerId,
    /// The worker's incarnation that owns it.
    pub incarnation: Incarnation,
    /// Where it stands.
    pub state: BuildState,
    /// When it started.
    pub started_at: WallTime,
    /// When it ended.
    pub complete_at: Option<WallTime>,
    /// How it ended.
    pub results: Option<BuildResult>,
    /// For people: `building`, `build successful`, …
    pub state_string: String,
    /// Its own, the builder's and its buildset's.
    pub properties: Arc<Properties>,
}

/// One step of a build.
#[derive(Clone, PartialEq, Debug)]
pub struct StepRow {
    /// Its id.
    pub id: StepId,
    /// Its build.
    pub build: BuildId,
    /// From 0.
    pub number: u32,
    /// Unique in its build.
    pub name: String,
    /// When it started.
    pub started_at: Option<WallTime>,
    /// When it ended.
    pub complete_at: Option<WallTime>,
    /// How it ended.
    pub results: Option<BuildResult>,
    /// For people.
    pub state_string: String,
    /// What it says of itself beside.
    pub about: StepAbout,
}

/// One log of a step.
#[derive(Clone, PartialEq, Debug)]
pub struct LogRow {
    /// Its id.
    pub id: LogId,
    /// Its step.
    pub step: StepId,
    /// Its name.
    pub name: String,
    /// Its name as an identifier.
    pub slug: String,
    /// `s` output with channels, `t` text, `h` HTML.
    pub kind: char,
    /// No more will come.
    pub complete: bool,
    /// Complete lines.
    pub num_lines: u64,
    /// Bytes of text as stored, the master's own lines included.
    pub length: u64,
    /// Why it is not whole, when it is complete and not whole.
    pub incomplete: Option<String>,
}

/// A build that has not ended, as a Builder needs it after a start or restart.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenBuild {
    /// The build.
    pub row: BuildRow,
    /// The claim that it belongs to.
    pub claim: ClaimId,
    /// Its worker's name.
    pub worker: WorkerName,
    /// Its requests, the one that it is built for first, then by age, with the
    /// epochs it holds.
    pub requests: Vec<RequestWithSet>,
    /// Why somebody wants it stopped, when somebody does.
    pub stop: Option<String>,
    /// The steps as they were when it was claimed.
    pub factory: Arc<Factory>,
    /// Steps begun so far, each with its logs.
    pub steps: Vec<(StepRow, Vec<LogRow>)>,
    /// How long its worker might be away when it began.
    pub grace: Duration,
    /// The longer lease that a planned stop gave its worker, which has not
    /// brought it back since.
    pub grant: Option<Grant>,
}

/// Everything a Builder is rebuilt from.
#[derive(Clone, PartialEq, Debug)]
pub struct BuilderRecords {
    /// Which builder.
    pub builder: BuilderId,
    /// Requests that wait, in no order that matters.
    pub queued: Vec<RequestWithSet>,
    /// Builds that have not ended.
    pub builds: Vec<OpenBuild>,
    /// Every request with an id up to this is known to these records. A notice
    /// of one of them that arrives later says nothing new.
    pub loaded_through: RequestId,
    /// What the last successful builds took, as the core wrote it.
    pub expectations: Option<String>,
}

/// An instance of a latent worker that is not known to be gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceRow {
    /// Given to the provider.
    pub tag: InstanceTag,
    /// Whose instance.
    pub worker: WorkerId,
    /// That worker's name; empty when there is no such worker.
    pub name: WorkerName,
    /// Where it stands.
    pub state: InstanceState,
    /// The provider's own name for it, once it has told it.
    pub id: Option<String>,
}

/// Where an instance stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstanceState {
    /// The provider was or will be asked for it.
    Wished,
    /// The provider has it.
    Created,
    /// The provider was or will be asked to end it.
    Destroying,
}

/// What a submission asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct NewBuildset {
    /// The submitter's own name for it.
    pub external_id: Option<String>,
    /// Sent again with the same key, it is answered with the first one's ids.
    pub idempotency_key: Option<String>,
    /// For people.
    pub reason: String,
    /// Who asks.
    pub scheduler: String,
    /// When.
    pub submitted_at: WallTime,
    /// The build that this repeats.
    pub rebuilt_build: Option<BuildId>,
    /// What to build.
    pub sourcestamps: Vec<SourceStamp>,
    /// For every build of it.
    pub properties: Arc<Properties>,
    /// One request for each of these builders.
    pub builders: Vec<BuilderId>,
    /// Higher first.
    pub priority: i64,
    /// A parent build waits for them.
    pub waited_for: bool,
}

/// What becomes of a build's requests when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestsAfter {
    /// They are done, with the build's result.
    Done,
    /// They go back to the head of the queue. `infra` counts a try.
    Requeue {
        /// The build had started.
        infra: bool,
    },
}

/// One operation. An operation that names an epoch or an incarnation changes
/// rows only where those still hold; else its whole transaction is undone and
/// answered [`StoreError::Fenced`](super::StoreError).
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// Makes the builder known. Answered `Builder`.
    DeclareBuilder {
        /// Its name.
        name: BuilderName,
        /// For people.
        description: Option<String>,
        /// For people and filters.
        tags: Vec<String>,
        /// Its workers; each must be declared before.
        workers: Vec<WorkerName>,
    },
    /// The builder is no longer configured. Its queue stays.
    RetireBuilder {
        /// Which.
        builder: BuilderId,
    },
    /// Makes the worker known. Answered `Worker`.
    DeclareWorker {
        /// Its name.
        name: WorkerName,
    },
    /// The worker is no longer configured.
    RetireWorker {
        /// Which.
        worker: WorkerId,
    },
    /// Keeps the steps under their digest; known already is fine.
    SaveFactory {
        /// Their digest.
        digest: String,
        /// The steps.
        factory: Arc<Factory>,
    },
    /// Stores a submission. Answered `Buildset`.
    AddBuildset(NewBuildset),
    /// Claims requests for a build and makes the build. Each request must be
    /// queued in the epoch given, and the worker be in the incarnation given,
    /// else [`StoreError::WorkerChanged`](super::StoreError). Answered
    /// `Claimed`. A claim id that exists is answered with what it made.
    Claim {
        /// Made by the claimer.
        claim: ClaimId,
        /// Their builder.
        builder: BuilderId,
        /// Whose slot it has.
        worker: WorkerId,
        /// That worker's present incarnation.
        incarnation: Incarnation,
        /// Requests in their present epochs, the oldest first.
        requests: Vec<(RequestId, Epoch)>,
        /// The steps, saved before.
        factory_digest: String,
        /// How long its worker may be away: kept for a later master, for the
        /// worker goes by what the start says.
        grace: Duration,
        /// When.
        at: WallTime,
    },
    /// Undoes a claim whose build never started: the build goes, its requests
    /// go to the head of the queue. Requests in `cancelled` end instead; when
    /// the build is wanted stopped, all of them do.
    Unclaim {
        /// Which build.
        build: BuildId,
        /// Requests cancelled meanwhile.
        cancelled: Vec<RequestId>,
        /// The worker refused the start: that counts a try of each request.
        refused: bool,
        /// When.
        at: WallTime,
    },
    /// Ends requests of a claimed build that has not started; the build keeps
    /// the others, at least one. One that ended already is left alone. Answered
    /// `Cancelled`.
    CancelClaimed {
        /// Which build.
        build: BuildId,
        /// Requests that leave it.
        requests: Vec<RequestId>,
        /// Its first request from now on, if that stays. The build has its
        /// submission's properties.
        head: RequestId,
        /// When.
        at: WallTime,
    },
    /// The worker accepted the build: it gets its number. Answered `Started`.
    StartBuild {
        /// Which.
        build: BuildId,
        /// The incarnation that owns it.
        incarnation: Incarnation,
        /// The build's properties.
        properties: Arc<Properties>,
        /// How long its worker may be away: kept, so that a later master with
        /// other settings does not give the build up too early. See
        /// [`grace_to_keep`](crate::core::lease::grace_to_keep).
        grace: Duration,
        /// When.
        at: WallTime,
    },
    /// The worker came back with the build: a new incarnation owns it.
    AdoptBuild {
        /// Which.
        build: BuildId,
        /// The new owner.
        incarnation: Incarnation,
    },
    /// The transaction belongs to the owner of this build: with an older
    /// incarnation, or once the build has ended, it changes nothing. Whatever
    /// is written about a running build begins with it, unless it says so
    /// itself.
    FenceBuild {
        /// Which.
        build: BuildId,
        /// The incarnation that owns it.
        incarnation: Incarnation,
    },
    /// What people read of a running build has changed.
    DescribeBuild {
        /// Which.
        build: BuildId,
        /// The text.
        state_string: String,
    },
    /// Somebody wants the build stopped: whoever has it, now or later, shall
    /// know. The first reason counts. People read of it at once if the build
    /// runs. A build that has ended, or is not there, stays as it is. Answered
    /// `StopWanted`.
    WantStop {
        /// Which.
        build: BuildId,
        /// For people.
        reason: String,
    },
    /// The build sets properties while it runs.
    SetProperties {
        /// Which build.
        build: BuildId,
        /// Only the changed ones.
        properties: Properties,
    },
    /// The build ended, and with it its requests, and whatever of its steps
    /// and logs was still open: such a step has the build's result, or
    /// `exception` when that is a good one; such a log is incomplete. A build
    /// that is wanted stopped is not queued again: it is `cancelled` instead,
    /// and its requests with it (fault row FF05).
    FinishBuild {
        /// Which.
        build: BuildId,
        /// The incarnation that owns it.
        incarnation: Incarnation,
        /// How.
        result: BuildResult,
        /// For people.
        state_string: String,
        /// What becomes of its requests.
        requests: RequestsAfter,
        /// When.
        at: WallTime,
    },
    /// A step begins, with its logs. Answered `Step`.
    StartStep {
        /// Its build.
        build: BuildId,
        /// From 0.
        number: u32,
        /// Unique in its build.
        name: String,
        /// For people.
        state_string: String,
        /// Names of its logs, each of kind `s`.
        logs: Vec<String>,
        /// When.
        at: WallTime,
    },
    /// A step ended. One that never began, because an earlier one halted the
    /// build, has no row and so no end.
    FinishStep {
        /// Which.
        step: StepId,
        /// How.
        result: BuildResult,
        /// For people.
        state_string: String,
        /// When.
        at: WallTime,
    },
    /// A log got its last byte. The text is in the log store already, or here
    /// when it is so short that it never went there.
    FinishLog {
        /// Which.
        log: LogId,
        /// Complete lines; a last line without its end counts.
        num_lines: u64,
        /// Bytes.
        length: u64,
        /// The whole text in the log store's segment form, when it is short.
        inline: Option<Arc<[u8]>>,
        /// Why it is not whole, when it is not.
        incomplete: Option<String>,
    },
    /// Ends requests that wait. One that does not wait (any more) is left
    /// alone. Answered `Cancelled`.
    CancelRequests {
        /// Which.
        requests: Vec<RequestId>,
        /// When.
        at: WallTime,
    },
    /// Changes the priority of a request that waits.
    SetPriority {
        /// Which.
        request: RequestId,
        /// Higher first.
        priority: i64,
    },
    /// A worker proved itself. Answered `Attached`.
    AttachWorker {
        /// Which.
        worker: WorkerId,
        /// What it tells of itself.
        info: BTreeMap<String, String>,
        /// When.
        at: WallTime,
    },
    /// A worker's connection ended. Ignored when a later one is attached.
    DetachWorker {
        /// Which.
        worker: WorkerId,
        /// The connection's.
        incarnation: Incarnation,
        /// When.
        at: WallTime,
    },
    /// These workers were heard, in these incarnations. One that is not there,
    /// or has a later one, is left alone; nobody is told (no change is made
    /// known).
    SeeWorkers {
        /// Which.
        seen: Vec<(WorkerId, Incarnation)>,
        /// When.
        at: WallTime,
    },
    /// A planned stop gives a worker a longer lease for the builds that it has,
    /// until it brings them back.
    GrantLease {
        /// Which.
        worker: WorkerId,
        /// The incarnation that gets it; a later one gets nothing.
        incarnation: Incarnation,
        /// How long, and from when.
        grant: Grant,
    },
    /// Sets what survives a restart about a worker.
    SetWorker {
        /// Which.
        worker: WorkerId,
        /// Paused or not, with the reason.
        paused: Option<(bool, Option<String>)>,
        /// Leaves once its builds have ended.
        graceful: Option<bool>,
    },
    /// Keeps what the last successful builds took.
    SaveExpectations {
        /// Of which builder.
        builder: BuilderId,
        /// As the core writes it.
        text: String,
    },
    /// Keeps what is expected of a build that starts, so that it can be told
    /// later how far off that was. The first one counts.
    Predict {
        /// Of which build.
        build: BuildId,
        /// What is expected.
        expected: Prediction,
    },
    /// Keeps when requests that wait are expected to begin and to end. The
    /// first one of each counts.
    PredictRequests(Vec<RequestPrediction>),
    /// A moment in a builder's life that the rows name: `connect WORKER`,
    /// `offline`, …
    Note(BuilderNote),
    /// The beginning of something that the rows name and that will have an
    /// end: `pinging`.
    BeginNote(BuilderNote),
    /// Its end (row S05): the note that began last on this builder and worker
    /// with the text `begun` and has not ended gets the text and the error of
    /// this one. Without such a note this is a moment.
    EndNote {
        /// What it began as.
        begun: String,
        /// What it became, and when.
        note: BuilderNote,
    },
    /// A build for which no worker could be had: claims, numbers and ends it
    /// with `exception`; its requests are done. Each request must be queued in
    /// the epoch given.
    FailBuild {
        /// Made by the claimer.
        claim: ClaimId,
        /// Their builder.
        builder: BuilderId,
        /// The worker that could not be had.
        worker: WorkerId,
        /// Requests in their present epochs, the oldest first.
        requests: Vec<(RequestId, Epoch)>,
        /// The steps, saved before.
        factory_digest: String,
        /// For people.
        state_string: String,
        /// When.
        at: WallTime,
    },
    /// An instance of a latent worker is wished for: written before anybody is
    /// asked for it.
    WishInstance {
        /// Its tag.
        tag: InstanceTag,
        /// Whose.
        worker: WorkerId,
        /// When.
        at: WallTime,
    },
    /// The provider has the instance, under this name.
    NoteInstance {
        /// Its tag.
        tag: InstanceTag,
        /// The provider's name for it.
        id: String,
        /// When.
        at: WallTime,
    },
    /// The instance is to be destroyed: written before the provider is asked.
    ReleaseInstance {
        /// Its tag.
        tag: InstanceTag,
        /// Whose.
        worker: WorkerId,
        /// When.
        at: WallTime,
    },
    /// The instance is gone.
    RemoveInstance {
        /// Its tag.
        tag: InstanceTag,
    },
    /// Reads all instances. Answered `Instances`.
    ListInstances,
    /// These are the configured schedulers; no other is. A new one is switched
    /// on.
    DeclareSchedulers(Vec<String>),
    /// Switches a scheduler on or off.
    SetScheduler {
        /// Which.
        scheduler: u64,
        /// On.
        enabled: bool,
    },
}

/// When a request that waits is expected to begin and to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestPrediction {
    /// Which.
    pub request: RequestId,
    /// When that was worked out.
    pub at: WallTime,
    /// From then on.
    pub eta: QueuedEta,
}

/// A moment in a builder's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuilderNote {
    /// Of which builder.
    pub builder: BuilderId,
    /// On which worker.
    pub worker: Option<WorkerId>,
    /// What happened, in the rows' words: `connect w1`, `ping failed`, `idle`.
    pub text: String,
    /// The error text, when it was a failure.
    pub error: Option<String>,
    /// When.
    pub at: WallTime,
}

/// A moment in a builder's life, or something with a beginning and an end, as
/// stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoteRow {
    /// Its id.
    pub id: u64,
    /// Of which builder.
    pub builder: BuilderId,
    /// On which worker.
    pub worker: Option<WorkerId>,
    /// What happens or happened, in the rows' words.
    pub text: String,
    /// The error text, when it was a failure.
    pub error: Option<String>,
    /// When it began.
    pub at: WallTime,
    /// When it ended; a moment has ended when it began.
    pub ended_at: Option<WallTime>,
}

/// What an operation answers, in the order of the operations.
#[derive(Clone, PartialEq, Debug)]
pub enum OpOutcome {
    /// Nothing to say.
    Done,
    /// The builder's id.
    Builder(BuilderId),
    /// The worker as stored.
    Worker(WorkerRow),
    /// The new rows. `existing` when the idempotency key was known.
    Buildset {
        /// The set.
        buildset: Arc<BuildsetRow>,
        /// Its requests, in the order of the builders asked for.
        requests: Vec<Arc<RequestRow>>,
        /// It was there already.
        existing: bool,
    },
    /// The build, with its requests in their new epochs and the merged
    /// properties of their buildset (the oldest request's).
    Claimed {
        /// The new build.
        build: Arc<BuildRow>,
        /// Its requests.
        requests: Vec<Arc<RequestRow>>,
        /// Its buildset's.
        buildset: Arc<BuildsetRow>,
    },
    /// Requests that were requeued and cancelled by an `Unclaim`, or requeued
    /// by a `FinishBuild`.
    Requeued {
        /// Back in the queue.
        requests: Vec<RequestWithSet>,
    },
    /// The build with its number.
    Started(Arc<BuildRow>),
    /// The step with its logs.
    Step {
        /// The step.
        step: Arc<StepRow>,
        /// Its logs.
        logs: Vec<Arc<LogRow>>,
    },
    /// Which requests the cancel ended.
    Cancelled(Vec<RequestId>),
    /// Whether the store keeps the wish, or one that came before it. Not when
    /// the build has ended or is not there.
    StopWanted(bool),
    /// The worker's new incarnation.
    Attached(Incarnation),
    /// All instances, by tag.
    Instances(Vec<InstanceRow>),
}

/// The master, as its events tell of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MasterRow {
    /// `HOST:FOLDER`.
    pub name: String,
    /// Whether it works.
    pub active: bool,
    /// When it did last.
    pub last_active: WallTime,
}

/// Something that became true in a commit, for the event stream. Each carries
/// the whole resource as it is then.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// A submission was stored.
    BuildsetNew(Arc<BuildsetRow>),
    /// All of its requests are complete.
    BuildsetComplete(Arc<BuildsetRow>),
    /// A request waits.
    RequestNew(Arc<RequestRow>),
    /// A build has it.
    RequestClaimed(Arc<RequestRow>),
    /// It waits again.
    RequestUnclaimed(Arc<RequestRow>),
    /// It ended.
    RequestComplete(Arc<RequestRow>),
    /// A waiting request changed (its priority).
    RequestUpdated(Arc<RequestRow>),
    /// A build has its number.
    BuildNew(Arc<BuildRow>),
    /// What people read of it changed.
    BuildUpdate(Arc<BuildRow>),
    /// It ended.
    BuildFinished(Arc<BuildRow>),
    /// Properties were set.
    BuildProperties(BuildId, Arc<Properties>),
    /// A step began.
    StepStarted(Arc<StepRow>),
    /// A step ended.
    StepFinished(Arc<StepRow>),
    /// A log was opened.
    LogNew(Arc<LogRow>),
    /// A log has more lines.
    LogAppend(Arc<LogRow>),
    /// A log got its last byte.
    LogFinished(Arc<LogRow>),
    /// A worker attached.
    WorkerConnected(Arc<WorkerRow>),
    /// A worker's connection ended.
    WorkerDisconnected(Arc<WorkerRow>),
    /// Paused, unpaused, told to leave.
    WorkerUpdated(Arc<WorkerRow>),
    /// A builder's settings changed, or it was added or removed.
    BuilderUpdated(Arc<BuilderRow>),
    /// A moment in a builder's life, or the beginning of something longer.
    Note(Arc<NoteRow>),
    /// The end of what began with a `Note` of the same id.
    NoteEnded(Arc<NoteRow>),
    /// The master serves.
    MasterStarted(Arc<MasterRow>),
    /// The master is about to stop.
    MasterStopped(Arc<MasterRow>),
    /// A scheduler is new, or was switched on or off.
    SchedulerUpdated(Arc<SchedulerRow>),
}
