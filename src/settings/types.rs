//! What a configuration comes to once it is valid.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::core::form::Form;
use crate::core::heartbeats::Outage;
use crate::core::ids::{BuilderName, WorkerName};
use crate::core::retention::RetentionRules;
use crate::core::values::{BuilderConfig, WorkerConfig};

/// Everything a master is told.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// The file it was read from.
    pub file: PathBuf,
    /// The master's own.
    pub master: MasterSettings,
    /// Its timers.
    pub timers: Timers,
    /// What its port for workers bears.
    pub limits: Limits,
    /// How it goes by its store.
    pub store: StoreSettings,
    /// Workers, in order.
    pub workers: Vec<WorkerSettings>,
    /// Builders, in order.
    pub builders: Vec<Arc<BuilderConfig>>,
    /// What `up` does.
    pub up: UpSettings,
    /// Forms to force builds by, beside the one that every master has.
    pub forms: Vec<Form>,
    /// How long builds and logs are kept.
    pub retention: RetentionRules,
}

/// The master's own settings. Paths are absolute or relative to the working
/// folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MasterSettings {
    /// Shown at the head of pages.
    pub title: String,
    /// Folder for the store, tokens and chosen ports.
    pub data_dir: PathBuf,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Pages of other servers that may use the API: patterns of their origins,
    /// in lower case, with `*` and `?`.
    pub allowed_origins: Vec<String>,
    /// Where workers connect.
    pub listen: SocketAddr,
    /// Allows either to be reached from elsewhere without TLS and sign-in.
    pub insecure: bool,
    /// Folder of Buildbot's own web pages, when they are to be served.
    pub ui_dir: Option<PathBuf>,
    /// How long SIGTERM waits for running builds.
    pub drain: Duration,
}

/// The timers of the fault matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// Between heartbeats of a worker that has a build.
    pub heartbeat: Duration,
    /// Between heartbeats of a worker that has none.
    pub idle_heartbeat: Duration,
    /// How long a worker may build without a confirmed heartbeat.
    pub lease: Duration,
    /// Between TERM and KILL.
    pub kill_time: Duration,
    /// How long a master keeps a build whose worker is away.
    pub grace: Duration,
    /// How long a worker may build on after a planned stop of the master; zero
    /// grants nothing beyond the lease.
    pub stop_lease: Duration,
    /// How long a builder's attach to a worker may take.
    pub attach_timeout: Duration,
    /// How long a ping may take that a person asks for.
    pub ping_timeout: Duration,
    /// How long a connection may take to prove itself.
    pub handshake: Duration,
    /// How long a worker whose actor gave up is left alone. Not in the file.
    pub worker_again: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            idle_heartbeat: Duration::from_secs(60),
            lease: Duration::from_secs(90),
            kill_time: Duration::from_secs(10),
            grace: Duration::from_secs(150),
            stop_lease: Duration::from_secs(3600),
            attach_timeout: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            worker_again: Duration::from_secs(60),
        }
    }
}

/// What the port for workers bears. A stranger is a connection that has not
/// proved to be a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most strangers at a time; more wait in the system's queue.
    pub strangers: usize,
    /// Most strangers of one address at a time that are listened to; more wait.
    pub strangers_per_address: usize,
    /// The limits per address hold for this machine's own addresses, too.
    pub limit_loopback: bool,
    /// Wrong names or tokens a minute, of one address and for one name; beyond
    /// it one attempt a minute is looked at.
    pub wrong_logins_per_minute: usize,
    /// How often a minute one worker may attach.
    pub attaches_per_minute: usize,
    /// How long a frame may take from its first byte to its last.
    pub frame_time: Duration,
    /// Frames that may wait to be sent to one worker; beyond it the connection
    /// is dropped as slow.
    pub outgoing_frames: usize,
    /// As many bytes.
    pub outgoing_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            strangers: 1024,
            strangers_per_address: 16,
            limit_loopback: false,
            wrong_logins_per_minute: 10,
            attaches_per_minute: 10,
            frame_time: Duration::from_secs(30),
            outgoing_frames: 1024,
            outgoing_bytes: 4 * 1024 * 1024,
        }
    }
}

/// How the master goes by its store.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreSettings {
    /// What becomes of heartbeats while it cannot be written.
    pub outage: Outage,
}

/// A worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkerSettings {
    /// What its actor needs to know.
    pub config: WorkerConfig,
    /// File with its token: one a line, at most two while one is rotated.
    /// Relative to the data folder unless absolute.
    pub token_file: PathBuf,
}

/// What `up` does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UpSettings {
    /// The builder it builds first; none means the first one.
    pub builder: Option<BuilderName>,
    /// The worker it starts; none means the first one of its builder.
    pub worker: Option<WorkerName>,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1, when it is known.
    pub line: Option<usize>,
    /// The key: `builder[1].workers`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)?;
        if !self.fix.is_empty() {
            write!(f, "\n    fix: {}", self.fix)?;
        }
        Ok(())
    }
}
