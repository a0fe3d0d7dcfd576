//! What the actor of all heartbeats is told.

use actix::Message;

use super::WorkerLink;
use crate::core::heartbeats::Beat;

/// A worker's heartbeat arrived; it is confirmed over the same connection.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HeartbeatArrived {
    /// Which.
    pub beat: Beat,
    /// The connection.
    pub link: WorkerLink,
}
