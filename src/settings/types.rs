//! What a configuration comes to once it is valid.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::core::form::Form;
use crate::core::ids::{BuilderName, WorkerName};
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
    /// Workers, in order.
    pub workers: Vec<WorkerSettings>,
    /// Builders, in order.
    pub builders: Vec<Arc<BuilderConfig>>,
    /// What `up` does.
    pub up: UpSettings,
    /// Forms to force builds by, beside the one that every master has.
    pub forms: Vec<Form>,
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
    /// How long SIGTERM waits for running builds.
    pub drain: Duration,
}

/// The timers of the fault matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// Between heartbeats of a worker, whether it builds or not.
    pub heartbeat: Duration,
    /// How long a worker may build without a confirmed heartbeat.
    pub lease: Duration,
    /// Between TERM and KILL.
    pub kill_time: Duration,
    /// How long a master keeps a build whose worker is away.
    pub grace: Duration,
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
            lease: Duration::from_secs(90),
            kill_time: Duration::from_secs(10),
            grace: Duration::from_secs(150),
            attach_timeout: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            worker_again: Duration::from_secs(60),
        }
    }
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
