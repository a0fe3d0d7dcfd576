//! What a Build is told.

use std::collections::BTreeMap;

use actix::Message;

use super::WorkerLink;
use crate::core::build::Event;
use crate::core::ids::*;
use crate::core::worker::Brought;
use crate::protocol::json_v1::Outcome;

/// Something plain.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuildEvent(pub Event);

/// The worker ended the command.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CommandFinished {
    /// Which.
    pub command: CommandId,
    /// How.
    pub outcome: Outcome,
    /// Length of each log in the worker's bytes.
    pub log_end: BTreeMap<String, u64>,
    /// SHA-256 of each log's bytes.
    pub log_digest: BTreeMap<String, String>,
    /// Properties that it set.
    pub properties: Vec<(String, String)>,
}

/// The worker spoke of a command, and nobody waits for just that. One that was
/// given once is late; one that never was is a breach (fault row FL11).
#[derive(Message)]
#[rtype(result = "()")]
pub struct CommandSaid {
    /// Which.
    pub command: CommandId,
    /// What it is counted as when it is late; none when it may be in time.
    pub late: Option<&'static str>,
}

/// The worker is back with the build, over this connection.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WorkerBack {
    /// The connection.
    pub link: WorkerLink,
    /// The worker's new number.
    pub incarnation: Incarnation,
    /// What the worker said of it.
    pub brought: Brought,
}
