//! The frames. Within a major version fields are only added, and unknown
//! fields are ignored, so every field that a later version adds has a default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::ids::{
    BuildId, BuilderName, CommandId, Epoch, Incarnation, PingToken, RequestId, WorkerName,
};

/// The one major version there is.
pub const PROTO: u32 = 1;

/// Name of the log that a command's standard output and error go to.
pub const STDIO: &str = "stdio";

/// Longest log text in one frame, in bytes.
pub const LOG_BATCH: usize = 64 * 1024;

/// Unconfirmed log bytes per build after which a worker stops reading the pipe.
pub const WINDOW: u64 = 4 * 1024 * 1024;

/// What a worker says.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum WorkerFrame {
    /// The first frame.
    Attach(Attach),
    /// Builds in the worker's journals; `more` says that another frame follows.
    Inventory(Inventory),
    /// The worker is ready to build for this builder.
    BuilderReady {
        /// Which.
        builder: BuilderName,
    },
    /// The worker cannot build for this builder.
    BuilderFailed {
        /// Which.
        builder: BuilderName,
        /// From the fixed list.
        code: String,
        /// For people.
        message: String,
    },
    /// Answers a ping.
    Pong {
        /// The ping's.
        id: PingToken,
    },
    /// Sign of life, with the builds it has.
    Heartbeat {
        /// Counts this connection's heartbeats; the answer carries it.
        seq: u64,
        /// Builds on the worker.
        running: Vec<BuildId>,
    },
    /// The build is the worker's now.
    BuildAccepted {
        /// Which.
        build: BuildId,
        /// The start's.
        epoch: Epoch,
    },
    /// The start was refused; nothing runs.
    Refused {
        /// Which.
        build: BuildId,
        /// The start's.
        epoch: Epoch,
        /// `busy`, `stale`, `draining`, `unknown_builder`, `lease`, `disk`,
        /// `bad_args`.
        code: String,
        /// For people.
        message: String,
    },
    /// The command's process runs.
    CommandStarted {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
    },
    /// The command could not be begun.
    CommandRefused {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// `unknown_build`, `bad_args`, `busy`, `stale`.
        code: String,
        /// For people.
        message: String,
    },
    /// A piece of a log.
    Log(LogData),
    /// The command ended; valid only after all its log bytes.
    CommandFinished {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// How.
        outcome: Outcome,
        /// What it used.
        #[serde(default)]
        usage: Usage,
        /// Length of each log, in bytes of the worker's.
        log_end: BTreeMap<String, u64>,
        /// Properties that the command found out, such as `got_revision`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        properties: BTreeMap<String, String>,
        /// What people should know beside the outcome; empty when nothing.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// An `abandon` was carried out: processes ended, journal deleted.
    Abandoned {
        /// Its build.
        build: BuildId,
    },
    /// The worker leaves once its builds have ended; it takes no more.
    Draining {
        /// For people.
        message: String,
    },
    /// Something was wrong with what the master sent.
    Error(WireError),
}

impl WorkerFrame {
    /// The frame's type, as `t` carries it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Attach(_) => "attach",
            Self::Inventory(_) => "inventory",
            Self::BuilderReady { .. } => "builder_ready",
            Self::BuilderFailed { .. } => "builder_failed",
            Self::Pong { .. } => "pong",
            Self::Heartbeat { .. } => "heartbeat",
            Self::BuildAccepted { .. } => "build_accepted",
            Self::Refused { .. } => "refused",
            Self::CommandStarted { .. } => "command_started",
            Self::CommandRefused { .. } => "command_refused",
            Self::Log(_) => "log",
            Self::CommandFinished { .. } => "command_finished",
            Self::Abandoned { .. } => "abandoned",
            Self::Draining { .. } => "draining",
            Self::Error(_) => "error",
        }
    }
}

/// What a master says.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum MasterFrame {
    /// The worker is attached.
    Attached {
        /// The major version in force.
        proto: u32,
        /// The worker's new incarnation.
        incarnation: Incarnation,
        /// Abilities of the master.
        caps: Vec<String>,
        /// Seconds between heartbeats.
        heartbeat_s: u64,
        /// Seconds a build may go on without a confirmed heartbeat.
        lease_s: u64,
        /// Unconfirmed log bytes per build.
        window: u64,
    },
    /// The worker is not attached; the connection closes.
    Rejected {
        /// `auth`, `version`, `conflict`, `superseded`, `busy`.
        code: String,
        /// For people.
        message: String,
        /// When to come again; none means never.
        retry_after_s: Option<u64>,
    },
    /// What becomes of one build of the inventory.
    Resume(Resume),
    /// All builders that this worker serves.
    Builders {
        /// In order of configuration.
        list: Vec<BuilderEntry>,
    },
    /// Asks for a pong.
    Ping {
        /// Answered with the same.
        id: PingToken,
    },
    /// Answers a heartbeat, once the store knows of it.
    Heartbeat {
        /// The worker's.
        seq: u64,
    },
    /// Gives the worker a build. Idempotent.
    StartBuild {
        /// Which.
        build: BuildId,
        /// Highest epoch of its requests.
        epoch: Epoch,
        /// Its requests with their epochs.
        requests: Vec<(RequestId, Epoch)>,
        /// Its builder.
        builder: BuilderName,
        /// Its builder's folder.
        builddir: String,
    },
    /// Gives a build one command. One at a time.
    StartCommand {
        /// Its build.
        build: BuildId,
        /// Highest epoch of its requests.
        epoch: Epoch,
        /// Which.
        command: CommandId,
        /// What to do.
        #[serde(flatten)]
        work: Work,
    },
    /// The master has this log up to here, durably.
    LogConfirm {
        /// Its build.
        build: BuildId,
        /// Its command.
        command: CommandId,
        /// Which log.
        log: String,
        /// Bytes.
        have: u64,
    },
    /// Ends a command's whole process tree.
    Interrupt {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// Seconds between TERM and KILL.
        grace_s: u64,
        /// For people.
        reason: String,
    },
    /// The build's end is durable: release it, delete the journal.
    BuildFinished {
        /// Which.
        build: BuildId,
        /// The result's word.
        result: String,
    },
    /// Finish, then leave.
    Drain {
        /// For people.
        reason: String,
    },
    /// End the worker program once its builds have ended (row B28).
    Shutdown {
        /// For people.
        reason: String,
    },
    /// Something was wrong with what the worker sent.
    Error(WireError),
}

impl MasterFrame {
    /// The frame's type, as `t` carries it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Attached { .. } => "attached",
            Self::Rejected { .. } => "rejected",
            Self::Resume(_) => "resume",
            Self::Builders { .. } => "builders",
            Self::Ping { .. } => "ping",
            Self::Heartbeat { .. } => "heartbeat",
            Self::StartBuild { .. } => "start_build",
            Self::StartCommand { .. } => "start_command",
            Self::LogConfirm { .. } => "log_confirm",
            Self::Interrupt { .. } => "interrupt",
            Self::BuildFinished { .. } => "build_finished",
            Self::Drain { .. } => "drain",
            Self::Shutdown { .. } => "shutdown",
            Self::Error(_) => "error",
        }
    }
}

/// The first frame of a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// Major versions that the worker speaks.
    pub proto: Vec<u32>,
    /// Its configured name.
    pub name: WorkerName,
    /// One per worker process.
    pub instance: String,
    /// Its secret.
    pub token: String,
    /// Version of the worker program.
    #[serde(default)]
    pub version: String,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Processor.
    #[serde(default)]
    pub arch: String,
    /// Builds it can run side by side.
    #[serde(default = "one")]
    pub slots: u32,
    /// Abilities with versions (`shell/1`); none when the worker reports none
    /// at all (row S03).
    #[serde(default)]
    pub caps: Option<Vec<String>>,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Host name and whatever else people like to see.
    #[serde(default)]
    pub info: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

/// Part of the inventory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Inventory {
    /// Builds in the worker's journals.
    pub builds: Vec<InventoryItem>,
    /// Another frame follows.
    #[serde(default)]
    pub more: bool,
}

/// One build in a worker's journals.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InventoryItem {
    /// Which.
    pub build: BuildId,
    /// Highest epoch of its requests.
    pub epoch: Epoch,
    /// Its builder.
    pub builder: BuilderName,
    /// The command it runs or ran last.
    #[serde(default)]
    pub command: Option<CommandId>,
    /// Where that stands.
    pub state: InventoryState,
    /// Length so far of each log of that command.
    #[serde(default)]
    pub log_end: BTreeMap<String, u64>,
}

/// Where a build of the inventory stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InventoryState {
    /// Started; waits for a command.
    Waiting,
    /// The command's process runs.
    Running,
    /// The command ended; its end is not yet confirmed.
    Finished,
    /// The processes are gone without a result.
    Lost,
}

/// What becomes of one build of the inventory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    /// Which.
    pub build: BuildId,
    /// The command it was about.
    #[serde(default)]
    pub command: Option<CommandId>,
    /// Go on, or end and forget.
    pub r#do: ResumeAction,
    /// From where to send each log.
    #[serde(default)]
    pub log_from: BTreeMap<String, u64>,
}

/// Go on, or end and forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeAction {
    /// Go on.
    Continue,
    /// End the processes, delete the journal, say `abandoned`.
    Abandon,
}

/// One builder on the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BuilderEntry {
    /// Its name.
    pub builder: BuilderName,
    /// Its folder below the worker's.
    pub builddir: String,
}

/// A piece of a log. Exactly one of `text` and `b64` is there: bytes that are
/// not UTF-8 travel as base64, never lossy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogData {
    /// Its build.
    pub build: BuildId,
    /// Its command.
    pub command: CommandId,
    /// Which log.
    pub log: String,
    /// Channel: `o` output, `e` error output.
    pub ch: char,
    /// Place of its first byte in the log, over both channels.
    pub offset: u64,
    /// The bytes, when they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes, when they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b64: Option<String>,
    /// When they arrived: milliseconds since the command started.
    #[serde(default)]
    pub at: u64,
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It exited with this status.
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ran out of time, and was ended: `no_output` or `total`, with seconds.
    Timeout {
        /// `no_output` or `total`.
        what: String,
        /// The limit, in seconds.
        after_s: u64,
    },
    /// It was ended on purpose, with the reason.
    Killed(String),
    /// It could not run at all, with the reason.
    Error(String),
}

/// What a command used.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Wall time in milliseconds.
    #[serde(default)]
    pub wall_ms: u64,
}

/// What a command does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", content = "args", rename_all = "snake_case")]
pub enum Work {
    /// Runs a program. Capability `shell/1`.
    Shell(ShellArgs),
    /// Brings a git repository's source. Capability `git/1`.
    Git(GitArgs),
}

/// Arguments of `shell`. Exactly one of `argv` and `shell` is there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ShellArgs {
    /// Program and arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// One line for `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Relative to the build's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Added to the worker's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Milliseconds without output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_time_ms: Option<u64>,
}

/// Arguments of `git`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GitArgs {
    /// URL or path.
    pub repository: String,
    /// Branch; none means the remote's HEAD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Exact revision; none means the branch's newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `clean` or `incremental`.
    pub mode: String,
    /// Also brings submodules.
    #[serde(default)]
    pub submodules: bool,
    /// How many commits of history; none means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Relative to the build's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Added to the worker's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Milliseconds without output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Milliseconds in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_time_ms: Option<u64>,
}

/// Something was wrong with a frame.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WireError {
    /// `malformed`, `too_long`, `too_deep`, `unknown_type`, `not_yours`,
    /// `unexpected`, `slow`.
    pub code: String,
    /// For people.
    pub message: String,
}
