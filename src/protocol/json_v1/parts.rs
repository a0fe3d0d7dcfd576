//! What frames are made of.

use std::collections::BTreeMap;

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine as _};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::core::ids::{BuildId, BuilderName, CommandId, Epoch, WorkerName};

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
    /// Abilities of the master that the worker cannot do without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// What the worker's clock shows: milliseconds since 1970 UTC. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<i64>,
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

/// A piece of a log. Exactly one of `text`, `b64` and `raw` is there: bytes that
/// are not UTF-8 travel as base64, never lossy, and to a master that is able to,
/// all of them travel as they are, behind the line.
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
    /// How many bytes come behind the line. Ability `log_raw/1` of the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<usize>,
    /// Those bytes. Whoever reads the line puts them here.
    #[serde(skip)]
    pub body: Bytes,
    /// When they arrived: milliseconds since the command started.
    #[serde(default)]
    pub at: u64,
}

impl LogData {
    /// The bytes, in whichever way they came.
    ///
    /// # Errors
    /// When what should be base64 is none.
    pub fn into_bytes(self) -> Result<Bytes, DecodeError> {
        match (self.text, self.b64) {
            (Some(text), _) => Ok(text.into()),
            (None, Some(b64)) => STANDARD.decode(b64).map(Bytes::from),
            (None, None) => Ok(self.body),
        }
    }
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
