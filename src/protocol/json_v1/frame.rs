//! The frames. Within a major version fields are only added, and unknown
//! fields are ignored, so every field that a later version adds has a default.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::core::ids::{BuildId, BuilderName, CommandId, Epoch, Incarnation, PingToken, RequestId};

use super::parts::*;

/// The one major version there is.
pub const PROTO: u32 = 1;

/// Name of the log that a command's standard output and error go to.
pub const STDIO: &str = "stdio";

/// Longest log text in one frame, in bytes.
pub const LOG_BATCH: usize = 64 * 1024;

/// The ability of a master to take the bytes of a log as they are.
pub const LOG_RAW: &str = "log_raw/1";

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
    /// Answers a ping: the worker is there, and cannot work.
    PingFailed {
        /// The ping's.
        id: PingToken,
        /// For people.
        message: String,
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
        /// SHA-256 of each log's bytes, in lower-case hexadecimal.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        log_digest: BTreeMap<String, String>,
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
    /// All types, in the order of the text.
    pub const KINDS: &[&str] = &[
        "attach",
        "inventory",
        "builder_ready",
        "builder_failed",
        "pong",
        "ping_failed",
        "heartbeat",
        "build_accepted",
        "refused",
        "command_started",
        "command_refused",
        "log",
        "command_finished",
        "abandoned",
        "draining",
        "error",
    ];

    /// The frame's type, as `t` carries it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Attach(_) => "attach",
            Self::Inventory(_) => "inventory",
            Self::BuilderReady { .. } => "builder_ready",
            Self::BuilderFailed { .. } => "builder_failed",
            Self::Pong { .. } => "pong",
            Self::PingFailed { .. } => "ping_failed",
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
        /// Seconds between heartbeats while the worker has no build; none means
        /// as many as with builds.
        #[serde(skip_serializing_if = "Option::is_none")]
        idle_heartbeat_s: Option<u64>,
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
        /// Seconds that this build may go on without a confirmed heartbeat;
        /// 0 means without end, none as long as the connection says.
        #[serde(skip_serializing_if = "Option::is_none")]
        lease_s: Option<u64>,
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
    /// Asks for a log again from its first byte, once a command.
    LogAgain {
        /// Its build.
        build: BuildId,
        /// Its command.
        command: CommandId,
        /// Which log.
        log: String,
    },
    /// A longer lease, for as long as the connection and what follows it until
    /// the next `attached`: the master is about to go.
    Lease {
        /// Seconds a build may go on without a confirmed heartbeat.
        lease_s: u64,
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
    /// All types, in the order of the text.
    pub const KINDS: &[&str] = &[
        "attached",
        "rejected",
        "resume",
        "builders",
        "ping",
        "heartbeat",
        "start_build",
        "start_command",
        "log_confirm",
        "log_again",
        "lease",
        "interrupt",
        "build_finished",
        "drain",
        "shutdown",
        "error",
    ];

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
            Self::LogAgain { .. } => "log_again",
            Self::Lease { .. } => "lease",
            Self::Interrupt { .. } => "interrupt",
            Self::BuildFinished { .. } => "build_finished",
            Self::Drain { .. } => "drain",
            Self::Shutdown { .. } => "shutdown",
            Self::Error(_) => "error",
        }
    }
}
