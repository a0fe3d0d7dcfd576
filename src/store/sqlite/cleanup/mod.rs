//! Old builds and old text go away, a few rows at a time.
//!
//! `choose` reads, on a connection of its own, what the rules let go; `remove`
//! takes it away on the writer's connection, looks again whether each row may
//! go, and stops after a few milliseconds. Text in the log store follows: its
//! logs are noted in the same commit (`removed_logs`), so that none is forgotten.
//!
//! What stays in any case: builds that run, requests that are wanted, the
//! newest finished build of each builder, and the newest row of each table,
//! whose id would be given out again.

mod choose;
mod remove;

pub use choose::{Candidates, Chooser, WouldGo};
pub(super) use remove::remove;

use std::time::Duration;

use crate::core::ids::*;
use crate::store::StoreError;

/// Rows to remove.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Removal {
    /// Builds with all that belongs to them.
    pub builds: Vec<BuildId>,
    /// Builds whose logs lose their text.
    pub texts: Vec<BuildId>,
    /// Ended requests that no build belongs to.
    pub requests: Vec<RequestId>,
    /// Notes of builders.
    pub notes: Vec<u64>,
    /// Logs whose text is gone from the log store: they need not be noted any
    /// longer.
    pub logs_gone: Vec<LogId>,
}

impl Removal {
    /// How many rows were asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.builds.len()
            + self.texts.len()
            + self.requests.len()
            + self.notes.len()
            + self.logs_gone.len()
    }

    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Removed {
    /// Builds.
    pub builds: u64,
    /// Builds that kept their rows and lost their logs' text.
    pub texts: u64,
    /// Requests.
    pub requests: u64,
    /// Notes.
    pub notes: u64,
    /// Builds, texts, requests and notes that were looked at, in this order.
    pub looked_at: usize,
    /// The time was over before all was looked at: ask for the rest again.
    pub more: bool,
    /// For how long others who write had to wait for it.
    pub took: Duration,
}

/// Called on the writer's thread.
pub type OnRemoved = Box<dyn FnOnce(Result<Removed, StoreError>) + Send>;
