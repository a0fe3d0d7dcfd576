//! What a history is made of. Times are microseconds of one clock.

use std::collections::BTreeMap;

use botmaster::core::ids::*;
use botmaster::core::values::BuildResult;
use botmaster::store::{BuildState, RequestState};
use serde::{Deserialize, Serialize};

/// A point in time: microseconds since 1970 UTC, or since a world began.
pub type Micros = i64;

/// Everything that can be seen of a run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct History {
    /// What clients were told, in order.
    pub told: Vec<Told>,
    /// What workers ran.
    pub ran: Vec<Run>,
    /// How many builds workers may have side by side.
    pub limits: Vec<Limit>,
    /// The event stream as it was published, in order.
    pub events: Vec<Event>,
    /// The first number of the event stream in each life of the master. Between
    /// two lives numbers may be left out.
    pub lives: Vec<u64>,
    /// What the store held at the end: requests.
    pub requests: BTreeMap<RequestId, Request>,
    /// What the store held at the end: builds, those only claimed included.
    pub builds: BTreeMap<BuildId, Build>,
    /// What was written to logs, and what the log store held at the end.
    pub logs: Vec<Log>,
    /// What became of instances of latent workers, in order.
    pub instances: Vec<InstanceNote>,
    /// Nothing went wrong for long enough before the end that everything must
    /// have ended.
    pub calm: bool,
}

/// What a client was told, and when.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// A submission was stored.
    Submitted {
        /// When.
        at: Micros,
        /// Its request.
        request: RequestId,
        /// The key that it was sent with, when it had one.
        #[serde(default)]
        key: Option<String>,
    },
    /// A cancel or stop was asked for.
    Cancelled {
        /// When it was answered.
        at: Micros,
        /// Which.
        request: RequestId,
        /// Whether it did something.
        done: bool,
    },
    /// A build was told to stop.
    Stopped {
        /// When it was answered.
        at: Micros,
        /// Which.
        build: BuildId,
    },
    /// A request was shown as ended.
    Ended {
        /// When.
        at: Micros,
        /// Which.
        request: RequestId,
        /// How.
        result: BuildResult,
    },
}

/// One command of a build as its worker ran it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The worker's name.
    pub worker: WorkerName,
    /// Its program or machine: another one under the same name is another.
    pub instance: String,
    /// The build.
    pub build: BuildId,
    /// Its requests, with the epochs that the master said.
    pub requests: Vec<(RequestId, Epoch)>,
    /// The command.
    pub command: CommandId,
    /// When its processes began.
    pub begin: Micros,
    /// When the last of them was gone; none when they still ran at the end.
    pub end: Option<Micros>,
    /// It did not come to its own end.
    pub killed: bool,
}

/// How many builds a worker may have side by side, from a time on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// The worker's name.
    pub worker: WorkerName,
    /// From when on.
    pub from: Micros,
    /// How many.
    pub max_builds: u32,
}

/// One event as it was published.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// When it was published.
    pub at: Micros,
    /// What it says.
    #[serde(flatten)]
    pub what: What,
}

/// What an event says. Only what can be checked is kept whole.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", content = "row", rename_all = "snake_case")]
pub enum What {
    /// A request waits.
    RequestNew(Request),
    /// A build has it.
    RequestClaimed(Request),
    /// It waits again.
    RequestUnclaimed(Request),
    /// It ended.
    RequestComplete(Request),
    /// Its priority changed.
    RequestUpdated(Request),
    /// A build got its number.
    BuildNew(Build),
    /// A build ended.
    BuildFinished(Build),
    /// Anything else, by its name.
    Other(String),
}

/// A request as a row of the store or an event shows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Its builder.
    pub builder: BuilderId,
    /// Higher first.
    pub priority: i64,
    /// Where it stands.
    pub state: RequestState,
    /// One higher at each claim.
    pub epoch: Epoch,
    /// When it was chosen for a build last.
    pub claimed_at: Option<Micros>,
    /// How it ended.
    pub result: Option<BuildResult>,
    /// It goes before those that were never started.
    pub requeued: bool,
    /// Only a certain worker may have it: others may go before it.
    #[serde(default)]
    pub pinned: bool,
}

/// A build as a row of the store or an event shows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// Its number, once it has started.
    pub number: Option<BuildNumber>,
    /// Its builder.
    pub builder: BuilderId,
    /// Its worker.
    pub worker: WorkerId,
    /// Where it stands.
    pub state: BuildState,
    /// How it ended.
    pub result: Option<BuildResult>,
    /// Its requests, with the epochs in which it has or had them. Events do
    /// not say.
    #[serde(default)]
    pub requests: Vec<(RequestId, Epoch)>,
    /// It has steps, so a worker must have run something for a good result.
    #[serde(default)]
    pub has_steps: bool,
}

/// One log: what its command wrote, and what is stored of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Log {
    /// Which.
    pub log: LogId,
    /// Its build.
    pub build: BuildId,
    /// What the command wrote, all of it.
    pub written: String,
    /// What is stored of that. The master's own lines are left out.
    pub stored: String,
    /// No more will come.
    pub complete: bool,
    /// Why it is not whole, when the store says so.
    pub incomplete: Option<String>,
}

/// Something that happened to an instance of a latent worker.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InstanceNote {
    /// When.
    pub at: Micros,
    /// Which. Its commands' `instance` begins with this and a slash.
    pub tag: InstanceTag,
    /// What.
    #[serde(flatten)]
    pub deed: Deed,
}

/// What happened to an instance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case")]
pub enum Deed {
    /// The store keeps the wish for it.
    Wished,
    /// The provider was asked for it.
    Asked,
    /// The provider has it.
    Made,
    /// It ended by itself.
    Dead,
    /// The store keeps that it is to be destroyed.
    Released,
    /// The provider could not destroy it, or did not say that it could.
    Resisted,
    /// The provider has it no more, and will not have it.
    Gone,
    /// The store keeps nothing of it.
    Forgotten,
    /// The master took it.
    Attached,
    /// Its connection ended.
    Detached,
    /// A build was started on it.
    Started {
        /// Which.
        build: BuildId,
        /// When it began to connect to the master that started the build.
        dialled: Micros,
    },
}
