//! What a predecessor gives its successor, as one value (rows T01 to T10).

use std::collections::BTreeMap;

use super::expectations::Expectations;
use super::queue::Queue;
use super::seat::{Pause, Seat};
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::views::BigState;

/// A predecessor's build, as its successors see it.
#[derive(Clone, PartialEq, Debug)]
pub struct InheritedBuild {
    /// Its id, once claimed.
    pub build: Option<BuildId>,
    /// Its number, once started.
    pub number: Option<BuildNumber>,
    /// Its worker.
    pub worker: WorkerName,
    /// Its requests.
    pub requests: Vec<RequestId>,
    /// Whether it was running already.
    pub state: &'static str,
}

/// What a predecessor gives its successor.
#[derive(Clone, PartialEq, Debug)]
pub struct Handover {
    /// The builder's id.
    pub id: BuilderId,
    /// The predecessor's.
    pub generation: Generation,
    /// The whole queue, in order.
    pub queue: Queue,
    /// Requests up to this id are known.
    pub loaded_through: RequestId,
    /// Usable seats of workers that are still listed, states untouched.
    pub seats: BTreeMap<WorkerName, Seat>,
    /// The next seat's place in attach order.
    pub next_order: u64,
    /// Workers left alone for a while after a failed start.
    pub pauses: BTreeMap<WorkerName, Pause>,
    /// The predecessor's own builds and those that it had inherited.
    pub inherited: BTreeMap<ClaimId, InheritedBuild>,
    /// What was learnt, unless the factory changed.
    pub expectations: Expectations,
    /// Published last.
    pub big_state: BigState,
    /// Told last.
    pub oldest: Option<WallTime>,
    /// Seed for the successor's generator.
    pub seed: u64,
}
