//! What the agent is told and what it asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::core::ids::{BuildId, BuilderName, CommandId, WorkerName};
use crate::protocol::json_v1::{MasterFrame, Outcome, Work, WorkerFrame};

/// What the agent is told once.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The worker's configured name.
    pub name: WorkerName,
    /// One per worker process.
    pub instance: String,
    /// Its secret.
    pub token: String,
    /// Version of the worker program.
    pub version: String,
    /// Builds it runs side by side, at least 1.
    pub slots: u32,
    /// Abilities with versions.
    pub caps: Vec<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// What people like to see: host name and the like.
    pub info: BTreeMap<String, String>,
    /// Between TERM and KILL when the worker itself ends a build.
    pub kill_time: Duration,
    /// Seed of the jitter between connection attempts.
    pub seed: u64,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Nothing but time passed.
    Tick,
    /// The connection asked for stands.
    Connected {
        /// Which.
        link: u64,
    },
    /// The connection ended, or could not be made.
    Closed {
        /// Which.
        link: u64,
        /// For people.
        reason: String,
    },
    /// The master said something.
    Frame {
        /// On which connection.
        link: u64,
        /// What.
        frame: MasterFrame,
    },
    /// The master sent a line that is no frame.
    Unreadable {
        /// On which connection.
        link: u64,
        /// The wire's code.
        code: &'static str,
        /// For people.
        message: String,
        /// The connection cannot go on.
        fatal: bool,
    },
    /// One frame of the log lane has been written to the socket.
    LogWritten {
        /// To which connection.
        link: u64,
    },
    /// A builder's folder was made, or not.
    FolderMade {
        /// Which builder's.
        builder: BuilderName,
        /// Why not.
        result: Result<(), Trouble>,
    },
    /// The command's process runs.
    Started {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
    },
    /// The command wrote something.
    Output {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// `o` or `e`.
        ch: char,
        /// What, as it came.
        bytes: Bytes,
        /// Milliseconds since the command started.
        at: u64,
    },
    /// The command ended, and all its output has been told.
    Ended {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// How.
        ended: Ended,
    },
    /// No process of the build is left.
    Swept {
        /// Which build.
        build: BuildId,
    },
    /// Finish, then leave.
    Drain {
        /// For people.
        reason: String,
    },
    /// End everything now.
    Stop,
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// What people should know beside it; empty when nothing.
    pub note: String,
    /// Properties that it found out.
    pub properties: BTreeMap<String, String>,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
}

/// Why something could not be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// The wire's code.
    pub code: &'static str,
    /// For people: what, and how to mend it.
    pub message: String,
}

/// Which queue of the writer a frame goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Goes out before any log frame that waits.
    Control,
    /// In order; each is answered with [`Event::LogWritten`].
    Log,
}

/// Why the program ends. Whatever the cause, every process is ended first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExitCause {
    /// All builds were finished after a drain.
    Drained,
    /// [`Event::Stop`].
    Stopped,
    /// The master will not have this worker.
    Rejected {
        /// The wire's code.
        code: String,
        /// The master's words.
        message: String,
    },
}

/// Something to be done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Dial the master.
    Connect {
        /// The new connection's name.
        link: u64,
    },
    /// Write what was said so far, then close.
    Close {
        /// Which.
        link: u64,
    },
    /// Send a frame.
    Send {
        /// On which connection.
        link: u64,
        /// In which queue.
        lane: Lane,
        /// What.
        frame: WorkerFrame,
    },
    /// Make a builder's folder; answered with [`Event::FolderMade`].
    MakeFolder {
        /// Which builder's.
        builder: BuilderName,
        /// Below the worker's folder.
        builddir: String,
    },
    /// Run a command; answered with [`Event::Started`], output, and always
    /// [`Event::Ended`].
    Run {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// The build's folder below the worker's.
        folder: String,
        /// What to do.
        work: Work,
        /// Bytes of output that may be read before more is allowed.
        allowed: u64,
    },
    /// Output may be read up to this many bytes in all.
    Allow {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// Bytes since the command started.
        up_to: u64,
    },
    /// End a command with all its processes.
    Kill {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// Between TERM and KILL.
        grace: Duration,
        /// For people; it becomes the outcome's text.
        reason: String,
    },
    /// End what the build's commands left behind; answered with
    /// [`Event::Swept`].
    Sweep {
        /// Which build.
        build: BuildId,
    },
    /// End the program.
    Exit {
        /// Why.
        cause: ExitCause,
    },
}
