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

    fn raw(
        &self,
        row: &LogRow,
        inline: Option<Arc<[u8]>>,
        from: u64,
    ) -> Result<RawPieces, StoreError> {
        Ok(Box::new(LogReader::raw_from(self, row, inline.as_deref(), from)))
    }

    fn length(&self, row: &LogRow, inline: Option<&Arc<[u8]>>) -> Result<u64, StoreError> {
        Ok(LogReader::extent(self, row, inline.map(AsRef::as_ref))?.length)
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
