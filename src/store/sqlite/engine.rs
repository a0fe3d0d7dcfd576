//! Carries out transactions on one connection. Synchronous, no thread: the
//! writer is built on it, and so can a simulated world be.

use std::path::Path;

use rusqlite::Connection;

use super::errors::{OpError, Trouble, classify};
use super::open::{self, Migration, OpenError};
use super::{load, ops};
use crate::core::ids::BuilderId;
use crate::store::*;

/// The schema's history.
pub(in crate::store) const MIGRATIONS: &[Migration] = &[
    include_str!("../../../migrations/sqlite/0001_first.sql"),
    include_str!("../../../migrations/sqlite/0002_instances.sql"),
    include_str!("../../../migrations/sqlite/0003_expectations.sql"),
    include_str!("../../../migrations/sqlite/0004_notes.sql"),
    include_str!("../../../migrations/sqlite/0005_stop.sql"),
    include_str!("../../../migrations/sqlite/0006_leases.sql"),
    include_str!("../../../migrations/sqlite/0007_housekeeping.sql"),
    include_str!("../../../migrations/sqlite/0008_data_api.sql"),
];

/// One connection and the changes that its commits made.
pub struct Engine {
    conn: Connection,
    /// Changes of the commit in progress.
    pending: Vec<Change>,
    /// Changes of commits done, not yet drained.
    committed: Vec<Change>,
}

impl Engine {
    /// A store that lives in memory, for tests and simulations.
    ///
    /// # Errors
    /// When SQLite cannot make it.
    pub fn in_memory() -> Result<Self, OpenError> {
        let path = Path::new(":memory:");
        let conn = Connection::open_in_memory().map_err(|error| OpenError::sql(path, &error))?;
        open::set_up(&conn).map_err(|error| OpenError::sql(path, &error))?;
        open::migrate(&conn, path, MIGRATIONS)?;
        Ok(Self::on(conn))
    }

    /// On a connection whose schema is up to date.
    pub(super) fn on(conn: Connection) -> Self {
        Self { conn, pending: Vec::new(), committed: Vec::new() }
    }

    /// Carries out one transaction in a commit of its own.
    ///
    /// # Errors
    /// When the rows say no, or the file cannot be written; nothing has
    /// changed then.
    pub fn apply(&mut self, transaction: &Transaction) -> Written {
        self.begin().map_err(|trouble| trouble.told())?;
        let written = self.run(transaction).map_err(|trouble| {
            self.undo();
            trouble.told()
        })?;
        self.commit().map_err(|trouble| trouble.told())?;
        written
    }

    /// The changes of all commits since the last call, in order.
    pub fn drain_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.committed)
    }

    /// Reads all of one builder.
    ///
    /// # Errors
    /// When there is no such builder, or its rows cannot be read.
    pub fn load_builder(&self, builder: BuilderId) -> Result<BuilderRecords, StoreError> {
        load::builder(&self.conn, builder).map_err(|error| match error {
            OpError::Refused(told) => told,
            OpError::Sql(error) => classify(&error).told(),
        })
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Begins a commit that many transactions may share.
    pub(super) fn begin(&mut self) -> Result<(), Trouble> {
        self.statement("BEGIN IMMEDIATE").map_err(|error| storage(&error))
    }

    /// Carries out one transaction of the commit in progress. The inner error
    /// concerns it alone, and it is undone; the outer one concerns the whole
    /// commit, which the caller must undo.
    pub(super) fn run(&mut self, transaction: &Transaction) -> Result<Written, Trouble> {
        // A single statement is undone by SQLite itself.
        let alone = matches!(transaction.ops.as_slice(), [op] if ops::is_one_statement(op));
        let mark = self.pending.len();
        if !alone {
            self.statement("SAVEPOINT one").map_err(|error| storage(&error))?;
        }
        let mut outcomes = Vec::with_capacity(transaction.ops.len());
        for op in &transaction.ops {
            match ops::carry_out(&self.conn, &mut self.pending, op) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    let told = self.sort(error)?;
                    self.pending.truncate(mark);
                    if !alone {
                        self.statement("ROLLBACK TO one").map_err(|error| storage(&error))?;
                        self.statement("RELEASE one").map_err(|error| storage(&error))?;
                    }
                    return Ok(Err(told));
                }
            }
        }
        if !alone {
            self.statement("RELEASE one").map_err(|error| storage(&error))?;
        }
        Ok(Ok(outcomes))
    }

    /// What the asker is told, or the trouble when the whole commit is lost.
    fn sort(&self, error: OpError) -> Result<StoreError, Trouble> {
        match error {
            OpError::Refused(told) => Ok(told),
            OpError::Sql(error) => match classify(&error) {
                // SQLite may have given up the whole commit by itself.
                Trouble::Statement(told) if !self.conn.is_autocommit() => Ok(told),
                Trouble::Statement(told) => Err(Trouble::Storage(told)),
                trouble => Err(trouble),
            },
        }
    }

    /// Makes the commit durable. On an error nothing of it has happened.
    pub(super) fn commit(&mut self) -> Result<(), Trouble> {
        match self.statement("COMMIT") {
            Ok(()) => {
                self.committed.append(&mut self.pending);
                Ok(())
            }
            Err(error) => {
                self.undo();
                Err(storage(&error))
            }
        }
    }

    /// Undoes the commit in progress.
    pub(super) fn undo(&mut self) {
        self.pending.clear();
        if !self.conn.is_autocommit()
            && let Err(error) = self.statement("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }

    fn statement(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

/// An error of the transaction's own statements concerns the whole commit.
fn storage(error: &rusqlite::Error) -> Trouble {
    match classify(error) {
        Trouble::Statement(told) => Trouble::Storage(told),
        trouble => trouble,
    }
}
