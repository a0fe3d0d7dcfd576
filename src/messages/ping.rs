//! What a Ping is told.

use actix::Message;

use crate::core::time::Timestamp;

/// The worker answered.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Pong;

/// The connection is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PingLost;

/// Somebody who joined cannot wait as long.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TightenPing(pub Timestamp);

/// Nobody waits any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EndPing;
