//! Values that every part speaks of: results, properties, steps, what a builder
//! is made of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::ids::{BuilderName, WorkerName};

/// How a build or a step ended. The numbers are those of the Data API.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildResult {
    /// All went well.
    Success = 0,
    /// It went through, with something to look at.
    Warnings = 1,
    /// The build itself found a fault.
    Failure = 2,
    /// It was not needed.
    Skipped = 3,
    /// The build system could not do its work.
    Exception = 4,
    /// This build ended without an answer; its requests were queued again.
    Retry = 5,
    /// Somebody stopped it.
    Cancelled = 6,
}

impl BuildResult {
    /// The Data API's number.
    #[must_use]
    pub fn code(self) -> i64 {
        self as i64
    }

    /// From the Data API's number.
    #[must_use]
    pub fn from_code(code: i64) -> Option<Self> {
        [
            Self::Success,
            Self::Warnings,
            Self::Failure,
            Self::Skipped,
            Self::Exception,
            Self::Retry,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|result| result.code() == code)
    }

    /// The word that people see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Warnings => "warnings",
            Self::Failure => "failure",
            Self::Skipped => "skipped",
            Self::Exception => "exception",
            Self::Retry => "retry",
            Self::Cancelled => "cancelled",
        }
    }

    /// Place in the worst-of order: skipped, success, warnings, failure,
    /// exception, retry, cancelled.
    #[must_use]
    pub fn severity(self) -> u8 {
        match self {
            Self::Skipped => 0,
            Self::Success => 1,
            Self::Warnings => 2,
            Self::Failure => 3,
            Self::Exception => 4,
            Self::Retry => 5,
            Self::Cancelled => 6,
        }
    }

    /// The worse of two results.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        if other.severity() > self.severity() { other } else { self }
    }
}

impl fmt::Display for BuildResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One property: a value and where it came from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Property {
    /// Its value.
    pub value: PropertyValue,
    /// Who set it, for people: `Force Build Form`, `Builder`, …
    pub source: String,
}

/// The value of a property: nearly always text, else any other JSON value. It
/// is written as that value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PropertyValue(Json);

impl PropertyValue {
    /// As text, for commands and comparisons: text as it is, anything else as
    /// JSON.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Json::String(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_string()),
        }
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> &Json {
        &self.0
    }
}

impl fmt::Display for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl From<Json> for PropertyValue {
    fn from(value: Json) -> Self {
        Self(value)
    }
}

impl From<String> for PropertyValue {
    fn from(text: String) -> Self {
        Self(Json::String(text))
    }
}

impl From<&str> for PropertyValue {
    fn from(text: &str) -> Self {
        Self(Json::String(text.to_owned()))
    }
}

impl PartialEq<str> for PropertyValue {
    fn eq(&self, other: &str) -> bool {
        self.text() == other
    }
}

impl PartialEq<&str> for PropertyValue {
    fn eq(&self, other: &&str) -> bool {
        self.text() == *other
    }
}

/// Who set a property that says something of the build's worker.
pub const WORKER_SOURCE: &str = "Worker";

/// Properties by name.
pub type Properties = BTreeMap<String, Property>;

/// What to build: one codebase's repository, branch and revision.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SourceStamp {
    /// Empty for the only codebase.
    #[serde(default)]
    pub codebase: String,
    /// Where the source lives; empty when the builder says it.
    #[serde(default)]
    pub repository: String,
    /// Branch, or none for the builder's own.
    #[serde(default)]
    pub branch: Option<String>,
    /// Exact revision, or none for the newest.
    #[serde(default)]
    pub revision: Option<String>,
    /// Free text.
    #[serde(default)]
    pub project: String,
}

/// A step's program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Program and arguments; no shell sees them.
    Argv(Vec<String>),
    /// One line for `/bin/sh -c`.
    Shell(String),
}

impl Program {
    /// A short text for people.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Argv(argv) => argv.join(" "),
            Self::Shell(line) => line.clone(),
        }
    }
}

/// How a checkout treats what is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckoutMode {
    /// The folder holds nothing but the source afterwards.
    Clean,
    /// Files that earlier builds left stay.
    Incremental,
}

/// What a step does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum StepKind {
    /// Runs a program.
    Run {
        /// Which.
        program: Program,
    },
    /// Brings a git repository's source.
    Git {
        /// URL or path, as `git clone` takes it.
        repository: String,
        /// Branch when the request names none; none means the remote's HEAD.
        branch: Option<String>,
        /// What stays of earlier builds.
        mode: CheckoutMode,
        /// Also brings submodules.
        submodules: bool,
        /// How many commits of history; none means all.
        depth: Option<u32>,
    },
}

/// One step of a factory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StepSpec {
    /// Its name, unique in the factory.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub kind: StepKind,
    /// Folder to work in, relative to the build's own.
    pub workdir: Option<String>,
    /// Added to the builder's environment.
    pub env: BTreeMap<String, String>,
    /// Ends the step after this long without output.
    pub timeout: Option<Duration>,
    /// Ends the step after this long in all.
    pub max_time: Option<Duration>,
    /// A failure ends the build: later steps are skipped.
    pub halt_on_failure: bool,
    /// A failure makes the build a failure.
    pub flunk_on_failure: bool,
    /// A failure makes the build end with warnings at best.
    pub warn_on_failure: bool,
    /// Runs even when an earlier step halted the build.
    pub always_run: bool,
}

/// The steps of a builder, compared by value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Factory {
    /// In order.
    pub steps: Vec<StepSpec>,
}

/// A builder's use of a lock. Carried with names and counts; not enforced yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LockUse {
    /// Name of the lock.
    pub name: String,
    /// Whether the lock is one for the master or one on each worker.
    pub kind: LockKind,
    /// How many holders the lock admits.
    pub max_count: u32,
    /// How many of them one build takes.
    pub count: u32,
}

/// Where a lock counts its holders.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// One count for the whole master.
    Master,
    /// One count on each worker.
    Worker,
}

/// How a builder picks among its available workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChooseWorker {
    /// Any, by the seeded generator.
    Random,
    /// The first in the order in which they attached.
    First,
}

/// Which waiting requests join the oldest one when its build starts (row B09).
/// The policy is a plain comparison: it cannot fail, wait or take long.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// None: each request has its own build.
    #[default]
    None,
    /// Those for the same source.
    SameSource,
    /// Those for the same source whose submissions say the same of each of
    /// these properties; not to have one is something else than an empty one.
    Properties(Vec<String>),
}

impl fmt::Display for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::SameSource => f.write_str("same source"),
            Self::Properties(names) => write!(f, "[{}]", names.join(", ")),
        }
    }
}

/// What becomes of a build whose worker went away and did not come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// After the grace its requests go back to the head of the queue.
    Requeue,
    /// It waits until the worker comes back or somebody stops it.
    Wait,
    /// It ends with an exception: a deploy must not run twice.
    Fail,
}

/// One time that a build of a request was lost with its worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Loss {
    /// Which worker.
    pub worker: WorkerName,
    /// Why, for people.
    pub reason: String,
}

/// Everything a Builder actor needs to know about its builder (row B01).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BuilderConfig {
    /// Its name.
    pub name: BuilderName,
    /// Folder below the worker's, one per builder.
    pub builddir: String,
    /// Its workers, the single one first.
    pub workers: Vec<WorkerName>,
    /// Its steps.
    pub factory: Arc<Factory>,
    /// Text of the factory's digest: names it in the store.
    pub factory_digest: String,
    /// Locks a build takes.
    pub locks: Vec<LockUse>,
    /// Environment of every step.
    pub env: BTreeMap<String, String>,
    /// Properties of every build.
    pub properties: BTreeMap<String, String>,
    /// For people.
    pub description: Option<String>,
    /// For people and filters.
    pub tags: Vec<String>,
    /// How long the ping before a start may take (row B13).
    pub start_timeout: Duration,
    /// How to pick a worker (row B12).
    pub choose: ChooseWorker,
    /// What becomes of builds whose worker is lost (row B25).
    pub on_lost: OnLost,
    /// How long a worker goes on with a build that nobody confirms. Without
    /// meaning for [`OnLost::Wait`]: then it has no end.
    pub lease: Duration,
    /// How long a worker may be away before its build counts as lost.
    pub grace: Duration,
    /// How long a build may take in all, the time included that its worker was
    /// away.
    pub max_time: Option<Duration>,
    /// How often a request is tried again after the infrastructure failed it.
    pub infra_retries: u32,
    /// How many requests may wait.
    pub queue_limit: usize,
    /// Which waiting requests share a build (row B09).
    pub merge: Merge,
    /// Most builds of this builder side by side, from the choice of the worker
    /// on. None means as many as its workers have room for.
    pub max_builds: Option<u32>,
}

/// Everything a Worker actor needs to know about its worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerConfig {
    /// Its name.
    pub name: WorkerName,
    /// Builds it runs side by side, over all builders.
    pub max_builds: u32,
    /// How its instances come and go, when it is a latent one: one that is
    /// there only while somebody needs it.
    pub latent: Option<LatentConfig>,
}

/// How a latent worker's instances come and go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LatentConfig {
    /// Who makes and ends them.
    pub provider: Provider,
    /// How long an instance may take from the wish for it until it is
    /// attached.
    pub substantiate_timeout: Duration,
    /// How long an instance without a build is kept; zero ends it right after
    /// its last build.
    pub idle_timeout: Duration,
}

/// Who makes and ends a latent worker's instances.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Provider {
    /// Worker programs on the master's own machine.
    Process(ProcessOptions),
}

impl Provider {
    /// The word that the configuration has for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Process(_) => "process",
        }
    }
}

/// A worker program on the master's own machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessOptions {
    /// Folder that the instances work in, one after the other.
    pub dir: PathBuf,
    /// File with the worker's token.
    pub token_file: PathBuf,
    /// Added to the master's own environment.
    pub env: BTreeMap<String, String>,
}
