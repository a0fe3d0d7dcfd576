//! What the agent is told and what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::core::ids::{BuildId, BuilderName, CommandId, Epoch, RequestId, WorkerName};
use crate::core::time::Timestamp;
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
        /// Where it stands in the log. What does not follow is left out.
        offset: u64,
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
    /// The build was written down, or not.
    Taken {
        /// Which build.
        build: BuildId,
        /// Why not.
        result: Result<(), Trouble>,
    },
    /// No process of the build is left.
    Swept {
        /// Which build.
        build: BuildId,
    },
    /// The build's processes are gone without a result.
    Lost {
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// What people should know beside it; empty when nothing.
    pub note: String,
    /// Properties that it found out.
    pub properties: BTreeMap<String, String>,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
    /// Its log's end, when it is known apart from what was told of it.
    pub log: Option<LogEnd>,
}

/// What is known of a whole log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogEnd {
    /// Its length in bytes.
    pub end: u64,
    /// SHA-256 over all its bytes, in hexadecimal.
    pub digest: String,
}

/// What the worker keeps of a build that it was given.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Which.
    pub build: BuildId,
    /// Highest epoch of its requests.
    pub epoch: Epoch,
    /// Each request with its epoch.
    pub requests: Vec<(RequestId, Epoch)>,
    /// Its builder.
    pub builder: BuilderName,
    /// Its folder below the worker's.
    pub folder: String,
    /// Its own lease in seconds, if it has one; 0 means without end.
    pub lease_s: Option<u64>,
}

/// A build that a worker program finds when it starts.
#[derive(Clone, PartialEq, Debug)]
pub struct Restored {
    /// What was kept of it.
    pub record: BuildRecord,
    /// The command that it runs or ran last.
    pub command: Option<RestoredCommand>,
    /// Commands before that.
    pub past: BTreeSet<CommandId>,
    /// A command's processes are gone without a result.
    pub lost: bool,
}

/// The command of a build that is found.
#[derive(Clone, PartialEq, Debug)]
pub struct RestoredCommand {
    /// Which.
    pub id: CommandId,
    /// Where the output that is still there begins, and ends for now.
    pub extent: (u64, u64),
    /// How it ended.
    pub ended: Option<Ended>,
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
    /// Write down that the worker has this build; answered with [`Event::Taken`].
    Take {
        /// All about it.
        record: BuildRecord,
    },
    /// The build is over: nothing needs to be known of it any more once its
    /// processes have gone.
    Forget {
        /// Which.
        build: BuildId,
    },
    /// How long the build may go on, whatever becomes of this program.
    Lease {
        /// Which.
        build: BuildId,
        /// None means without end.
        until: Option<Timestamp>,
    },
    /// Tell a command's output again from an offset on, and its end after it.
    Replay {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// Where to begin.
        from: u64,
        /// Up to where, before more is allowed.
        allowed: u64,
    },
    /// Output before this offset is not needed any more.
    Trim {
        /// Its build.
        build: BuildId,
        /// Which.
        command: CommandId,
        /// Bytes since the command started.
        confirmed: u64,
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
