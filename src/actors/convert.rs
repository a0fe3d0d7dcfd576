//! Rows of the store as the core knows them.

use crate::core::builder::Request;
use crate::store::RequestRow;

/// A store row as the core knows it.
pub(super) fn request(row: &RequestRow) -> Request {
    Request {
        id: row.id,
        buildset: row.buildset,
        priority: row.priority,
        submitted_at: row.submitted_at,
        epoch: row.epoch,
        requeued: row.requeued,
        infra_tries: row.infra_tries,
    }
}
