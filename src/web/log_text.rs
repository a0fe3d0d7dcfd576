//! The log store's reading half as the web's handlers use it.

use std::sync::Arc;

use super::context::{LogText, RawPieces};
use crate::store::logs::LogReader;
use crate::store::{LogRow, StoreError};

impl LogText for LogReader {
    fn lines(
        &self,
        row: &LogRow,
        inline: Option<&Arc<[u8]>>,
        first: u64,
        limit: Option<u64>,
    ) -> Result<Vec<u8>, StoreError> {
        LogReader::lines(self, row, inline.map(AsRef::as_ref), first, limit)
    }

    fn raw(&self, row: &LogRow, inline: Option<Arc<[u8]>>) -> Result<RawPieces, StoreError> {
        Ok(Box::new(LogReader::raw(self, row, inline.as_deref())))
    }

    fn tail(
        &self,
        row: &LogRow,
        inline: Option<&Arc<[u8]>>,
        count: u64,
    ) -> Result<Vec<u8>, StoreError> {
        LogReader::tail(self, row, inline.map(AsRef::as_ref), count)
    }
}
