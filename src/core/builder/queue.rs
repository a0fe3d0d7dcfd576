//! The requests that wait for a worker, in the order in which they start.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::ids::{BuildsetId, Epoch, RequestId, WorkerName};
use crate::core::time::WallTime;
use crate::core::values::{Properties, WORKER_SOURCE};

/// A build request as its builder knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which.
    pub id: RequestId,
    /// Its set.
    pub buildset: BuildsetId,
    /// Higher first.
    pub priority: i64,
    /// When it was submitted; a requeue does not change it.
    pub submitted_at: WallTime,
    /// One higher at each claim.
    pub epoch: Epoch,
    /// It was started before, so it goes ahead of those that were not.
    pub requeued: bool,
    /// Builds lost or refused after their start.
    pub infra_tries: u32,
    /// What to build: ids of its source stamps, in order. Equal stamps have the
    /// same id, so equal lists are the same source.
    pub source: Arc<[u64]>,
    /// Those of its submission.
    pub properties: Arc<Properties>,
    /// The only worker that may run it, or none for any.
    pub worker: Option<WorkerName>,
}

/// The property of a submission that names the worker.
pub const WORKER_PROPERTY: &str = "workername";

/// The worker that a submission with these properties names. An empty text
/// means any; so does the name that a build itself sets when it starts, lest
/// a repetition with a build's properties be bound to its worker by accident.
#[must_use]
pub fn named_worker(properties: &Properties) -> Option<WorkerName> {
    let property = properties.get(WORKER_PROPERTY)?;
    let name = property.value.trim();
    (!name.is_empty() && property.source != WORKER_SOURCE).then(|| name.into())
}

/// Requeued requests first (row B08), then higher priority, then older
/// (invariant I10). Ids grow with the order of submission; submit times do not
/// when the wall clock is set back, and so they order nothing (I18).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place(Reverse<bool>, Reverse<i64>, RequestId);

impl Place {
    fn of(request: &Request) -> Self {
        Self(Reverse(request.requeued), Reverse(request.priority), request.id)
    }
}

/// A builder's queue. Every operation costs O(log n).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<Place, Request>,
    places: BTreeMap<RequestId, Place>,
}

impl Queue {
    /// Adds a request; one that waits already stays as it is.
    pub fn push(&mut self, request: Request) {
        if self.places.contains_key(&request.id) {
            return;
        }
        let place = Place::of(&request);
        self.places.insert(request.id, place);
        self.waiting.insert(place, request);
    }

    /// Takes the request that starts next.
    pub fn take_head(&mut self) -> Option<Request> {
        let (_, request) = self.waiting.pop_first()?;
        self.places.remove(&request.id);
        Some(request)
    }

    /// Takes a request out.
    pub fn remove(&mut self, id: RequestId) -> Option<Request> {
        let place = self.places.remove(&id)?;
        self.waiting.remove(&place)
    }

    /// Gives a waiting request another priority. True when it waits.
    pub fn set_priority(&mut self, id: RequestId, priority: i64) -> bool {
        let Some(mut request) = self.remove(id) else { return false };
        request.priority = priority;
        self.push(request);
        true
    }

    /// The head's submit time, or none when the queue is empty (row B06).
    #[must_use]
    pub fn oldest_request_time(&self) -> Option<WallTime> {
        self.waiting.first_key_value().map(|(_, request)| request.submitted_at)
    }

    /// The submission that made the head, or none when the queue is empty: it
    /// orders builders (row B32).
    #[must_use]
    pub fn oldest_submission(&self) -> Option<BuildsetId> {
        self.waiting.first_key_value().map(|(_, request)| request.buildset)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether this one waits.
    #[must_use]
    pub fn contains(&self, id: RequestId) -> bool {
        self.places.contains_key(&id)
    }

    /// All that wait, in order (row B10).
    pub fn iter(&self) -> impl Iterator<Item = &Request> {
        self.waiting.values()
    }
}
