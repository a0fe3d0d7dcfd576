//! What SQLite's errors mean to those who ask.

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::store::StoreError;

/// Why an operation did not happen.
#[derive(Debug)]
pub(in crate::store) enum OpError {
    /// The rows say no: only the transaction that asked is undone.
    Refused(StoreError),
    /// SQLite failed.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for OpError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl OpError {
    /// The asker is not the owner any more.
    pub fn fenced(text: String) -> Self {
        Self::Refused(StoreError::Fenced(text))
    }

    /// The row is not there.
    pub fn missing(text: String) -> Self {
        Self::Refused(StoreError::Missing(text))
    }

    /// The asker asked for something that makes no sense.
    pub fn wrong(text: impl Into<String>) -> Self {
        Self::Refused(StoreError::Failed(text.into()))
    }
}

/// What a failure of SQLite means for the transactions of its commit.
#[derive(Debug)]
pub(in crate::store) enum Trouble {
    /// Only the statement is at fault; the rest of the commit can go on.
    Statement(StoreError),
    /// The file could not be written: the whole commit is undone.
    Storage(StoreError),
    /// The disk is full: the whole commit is undone.
    Full(StoreError),
    /// What the file holds is unknown now. Only a new process may look again.
    Fatal(String),
}

impl Trouble {
    /// What the askers are told.
    pub fn told(&self) -> StoreError {
        match self {
            Self::Statement(error) | Self::Storage(error) | Self::Full(error) => error.clone(),
            Self::Fatal(text) => StoreError::Failed(text.clone()),
        }
    }
}

/// Sorts an error of SQLite by what has to be done about it.
pub(in crate::store) fn classify(error: &rusqlite::Error) -> Trouble {
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return Trouble::Statement(StoreError::Failed(error.to_string()));
    };
    if matches!(failure.extended_code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) {
        // The system may have dropped the pages it could not write, and a
        // second try would then succeed without them.
        return Trouble::Fatal(format!("the disk failed to keep what was written: {error}"));
    }
    match failure.code {
        ErrorCode::DiskFull => Trouble::Full(StoreError::Unwritable(format!(
            "the disk is full ({error}): free some room in the data folder's file system"
        ))),
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
            Trouble::Storage(StoreError::Unwritable(format!(
                "its file may not be written ({error}): check the owner and the mount of the \
                 data folder"
            )))
        }
        ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::OutOfMemory
        | ErrorCode::FileLockingProtocolFailed => {
            Trouble::Storage(StoreError::Unwritable(error.to_string()))
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            Trouble::Storage(StoreError::Failed(format!(
                "the file is damaged ({error}): stop the master and restore a backup, or save \
                 what is left with `sqlite3 FILE .recover`"
            )))
        }
        _ => Trouble::Statement(StoreError::Failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(extended_code: i32) -> Trouble {
        let failure = ffi::Error::new(extended_code);
        classify(&rusqlite::Error::SqliteFailure(failure, None))
    }

    #[test]
    fn fd09_a_failed_fsync_is_fatal_and_never_tried_again() {
        assert!(matches!(told(ffi::SQLITE_IOERR_FSYNC), Trouble::Fatal(_)));
        assert!(matches!(told(ffi::SQLITE_IOERR_DIR_FSYNC), Trouble::Fatal(_)));
    }

    #[test]
    fn what_may_pass_is_unwritable_and_the_rest_is_not() {
        assert!(matches!(told(ffi::SQLITE_FULL), Trouble::Full(StoreError::Unwritable(_))));
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_BUSY] {
            assert!(matches!(told(code), Trouble::Storage(StoreError::Unwritable(_))), "{code}");
        }
        let corrupt = told(ffi::SQLITE_CORRUPT);
        assert!(matches!(corrupt, Trouble::Storage(StoreError::Failed(_))));
        let constraint = told(ffi::SQLITE_CONSTRAINT_UNIQUE);
        assert!(matches!(constraint, Trouble::Statement(StoreError::Failed(_))));
        assert!(matches!(classify(&rusqlite::Error::QueryReturnedNoRows), Trouble::Statement(_)));
    }
}
