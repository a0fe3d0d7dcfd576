//! What the rest of the program may ask of the store.

use super::records::*;
use crate::core::ids::*;

/// Operations that are done together or not at all.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Transaction {
    /// In order.
    pub ops: Vec<Op>,
}

impl Transaction {
    /// A transaction of one operation.
    #[must_use]
    pub fn of(op: Op) -> Self {
        Self { ops: vec![op] }
    }
}

impl From<Vec<Op>> for Transaction {
    fn from(ops: Vec<Op>) -> Self {
        Self { ops }
    }
}

/// Why a transaction changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// An epoch or incarnation no longer holds: the asker is not the owner.
    #[error("no longer the owner: {0}")]
    Fenced(String),
    /// The worker has attached anew since it was chosen, so nothing was
    /// claimed for it. What was asked about is still the asker's.
    #[error("the worker has changed: {0}")]
    WorkerChanged(String),
    /// The row is not there.
    #[error("no such {0}")]
    Missing(String),
    /// The disk is full or cannot be written just now.
    #[error("the store cannot be written: {0}")]
    Unwritable(String),
    /// Anything else.
    #[error("store: {0}")]
    Failed(String),
    /// The writer has stopped.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the store has said for good that the asker is wrong: another
    /// owner, or no such row. Anything else may be asked again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Fenced(_) | Self::Missing(_))
    }

    /// Whether the asker still has what it asked about and may try again later:
    /// with the same transaction, or after a [`Self::WorkerChanged`] with
    /// another worker or incarnation.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unwritable(_) | Self::WorkerChanged(_))
    }
}

/// What a transaction came to: one outcome an operation.
pub type Written = Result<Vec<OpOutcome>, StoreError>;

/// Called on the writer's own thread after the commit is durable; must be
/// quick and must not block.
pub type OnWritten = Box<dyn FnOnce(Written) + Send>;

/// Called on the writer's own thread.
pub type OnLoaded = Box<dyn FnOnce(Result<BuilderRecords, StoreError>) + Send>;

/// The state store. Asks are carried out in the order in which they were made.
pub trait StateStore: Send + Sync {
    /// Writes, then calls `done` after the commit.
    fn write(&self, transaction: Transaction, done: OnWritten);

    /// Reads all of one builder, after every write asked for before.
    fn load_builder(&self, builder: BuilderId, done: OnLoaded);
}
