//! What people may see of the living parts. Values only; the web and the CLI
//! show them, tests assert on them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::builder::Estimate;
use super::ids::*;
use super::instance::InstanceView;
use super::planted;
use super::time::WallTime;

/// The store, as people see it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct StoreView {
    /// Why no new builds start: the disk is full.
    pub full: Option<String>,
    /// Old builds that go.
    pub housekeeping: HousekeepingView,
}

/// What the housekeeping does and did since the master's start.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct HousekeepingView {
    /// It removes something now.
    pub at_work: bool,
    /// Builds removed.
    pub builds: u64,
    /// Builds that lost their logs' text.
    pub texts: u64,
    /// Requests removed.
    pub requests: u64,
    /// Logs whose text is gone from the log store.
    pub logs: u64,
    /// The longest time that others who write the state had to wait for a batch
    /// of it, in microseconds, without the commit that they share.
    pub longest_us: u64,
    /// When it last had nothing left to do, in seconds since 1970.
    pub done_at: Option<i64>,
    /// Why it could not go on; it tries again.
    pub error: Option<String>,
}

/// The one word for a builder (row B17).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BigState {
    /// No worker.
    Offline,
    /// A worker, and nothing to do.
    Idle,
    /// A build, from the choice of its worker on.
    Building,
}

impl BigState {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Idle => "idle",
            Self::Building => "building",
        }
    }
}

/// A builder, as people see it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BuilderView {
    /// Its id.
    pub id: BuilderId,
    /// Which actor is in charge.
    pub generation: Generation,
    /// Its word.
    pub big_state: BigState,
    /// How many requests wait.
    pub waiting: usize,
    /// The head's submit time (row B06).
    pub oldest_request_time: Option<WallTime>,
    /// Builds from the choice of their worker on.
    pub builds: Vec<ActiveBuildView>,
    /// Its workers' standing, by name.
    pub workers: BTreeMap<WorkerName, &'static str>,
    /// Workers that are left alone for a while because they refused a start or
    /// did not answer before it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pauses: BTreeMap<WorkerName, PauseView>,
    /// Most builds side by side, when there is a limit of the builder's own.
    pub max_builds: Option<u32>,
    /// How long the next build will take.
    pub expected: Option<Estimate>,
    /// Why nobody is in charge, when its actor gave up.
    pub broken: Option<String>,
    /// How often its actor was restarted after a panic.
    pub restarts: u32,
}

impl BuilderView {
    /// Whether somebody could build here, now or after what they are at (row
    /// C01): busy and latent workers count, attaching ones do not, and one that
    /// is away within its build's grace counts.
    #[must_use]
    pub fn has_usable_worker(&self) -> bool {
        let counts = |word: &str| word != "attaching" || planted::is("c01_attaching_ones_count");
        self.workers.values().any(|word| counts(word))
            || self.builds.iter().any(|build| build.state == "orphaned")
    }
}

/// A worker gets nothing for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PauseView {
    /// Until then.
    pub until: WallTime,
    /// Why, for people.
    pub reason: String,
}

/// A build's worker is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Away {
    /// Since when.
    pub since: WallTime,
    /// When it counts as lost; none: it is waited for without end.
    pub until: Option<WallTime>,
}

/// A build that has not ended.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ActiveBuildView {
    /// Its id, once claimed.
    pub build: Option<BuildId>,
    /// Its number, once started.
    pub number: Option<BuildNumber>,
    /// Its worker.
    pub worker: WorkerName,
    /// `reserving`, `claiming`, `starting`, `running`, `orphaned`, …
    pub state: &'static str,
    /// Its requests.
    pub requests: Vec<RequestId>,
    /// Started by a predecessor.
    pub inherited: bool,
    /// Its worker is away, and this build waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<Away>,
}

/// A worker, as people see it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WorkerView {
    /// Its id.
    pub id: WorkerId,
    /// Attached now.
    pub connected: bool,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Slots in use.
    pub used: u32,
    /// Slots in all.
    pub max_builds: u32,
    /// Gets no starts.
    pub paused: bool,
    /// Leaves once its builds have ended.
    pub graceful: bool,
    /// Set aside because it lost builds again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<PauseView>,
    /// Address it came from.
    pub address: Option<String>,
    /// How far its clock was ahead of the master's when it attached, in
    /// milliseconds; for people only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// Its instance, when it is a latent worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceView>,
}
