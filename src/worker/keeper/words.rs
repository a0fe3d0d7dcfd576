//! What a keeper and the worker program say to each other: one JSON object a line
//! over a socket in the build's folder. A word that is not known is left out, so
//! that a worker program of another version can take over a keeper.

use serde::{Deserialize, Serialize};

use crate::core::ids::{BuildId, CommandId};
use crate::protocol::json_v1::Work;

/// Longest line. The work of a command comes from one frame.
pub const MAX_WORDS: usize = 4 * 1024 * 1024;

/// To the keeper.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ToKeeper {
    /// Keep this build. A keeper that has one does not hear it.
    Begin {
        /// Which.
        build: BuildId,
    },
    /// Run a command.
    Run {
        /// Its number in the build.
        n: u32,
        /// Which.
        command: CommandId,
        /// The build's folder below the worker's.
        folder: String,
        /// What to do.
        work: Box<Work>,
        /// Bytes of output that may be read before more is allowed.
        allowed: u64,
        /// Between TERM and KILL when a limit ends it, in milliseconds.
        kill_ms: u64,
    },
    /// Output may be read up to this many bytes in all.
    Allow {
        /// The command's number.
        n: u32,
        /// Bytes since it started.
        up_to: u64,
    },
    /// End the command with all its processes.
    Kill {
        /// The command's number.
        n: u32,
        /// Between TERM and KILL, in milliseconds.
        grace_ms: u64,
        /// Becomes the outcome's text.
        reason: String,
    },
    /// The build may go on until then.
    Lease {
        /// Microseconds since the machine's boot; none means without end.
        until: Option<u64>,
    },
    /// End everything of the build, write nothing more, and go.
    End {
        /// Between TERM and KILL, in milliseconds.
        grace_ms: u64,
    },
    /// Something that a later version says.
    #[serde(other)]
    Unknown,
}

/// From the keeper.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum FromKeeper {
    /// The first word on a connection: which command it has, if any.
    Has {
        /// The command's number.
        n: Option<u32>,
    },
    /// The last word: nothing of the build is left.
    Bye,
    /// The last word of this build: nothing of it is left, and the keeper may be
    /// given another.
    Free,
    /// A process of the command runs.
    Started {
        /// The command's number.
        n: u32,
    },
    /// So much output is on the disk.
    Grew {
        /// The command's number.
        n: u32,
        /// Bytes since it started.
        end: u64,
    },
    /// The command's result is on the disk, after all its output.
    Ended {
        /// The command's number.
        n: u32,
    },
    /// Something that people should know.
    Note {
        /// What.
        text: String,
    },
    /// Something that a later version says.
    #[serde(other)]
    Unknown,
}

/// A line of words.
#[must_use]
pub fn to_line(words: &impl Serialize) -> Vec<u8> {
    // These types always have a text.
    let mut line = serde_json::to_vec(words).unwrap_or_default();
    line.push(b'\n');
    line
}
