//! Rows of the store as the core knows them.

use std::sync::Arc;

use crate::core::builder::{Request, named_worker};
use crate::store::{RequestRow, RequestWithSet, SetPart};

/// A store row as the core knows it.
pub(super) fn request(request: &RequestWithSet) -> Request {
    Request { losses: request.losses.clone(), ..with_set(&request.row, &request.set) }
}

/// A store row as the core knows it, with what its buildset says.
pub(super) fn with_set(row: &RequestRow, set: &SetPart) -> Request {
    Request {
        id: row.id,
        buildset: row.buildset,
        priority: row.priority,
        submitted_at: row.submitted_at,
        epoch: row.epoch,
        requeued: row.requeued,
        infra_tries: row.infra_tries,
        losses: Arc::default(),
        source: set.source.clone(),
        properties: set.properties.clone(),
        worker: named_worker(&set.properties),
    }
}
