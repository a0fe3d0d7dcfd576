//! The requests that wait for a worker, in the order in which they start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::core::ids::{BuildsetId, Epoch, RequestId, WorkerName};
use crate::core::planted;
use crate::core::time::WallTime;
use crate::core::values::{Loss, Merge, Properties, WORKER_SOURCE};

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
    /// How they were lost, in order.
    pub losses: Arc<[Loss]>,
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
    let name = property.value.text();
    let name = name.trim();
    (!name.is_empty() && property.source != WORKER_SOURCE).then(|| name.into())
}

/// Requeued requests first (row B08), then higher priority, then older
/// (invariant I10). Ids grow with the order of submission; submit times do not
/// when the wall clock is set back, and so they order nothing (I18).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place(Reverse<bool>, Reverse<i64>, RequestId);

impl Place {
    fn of(request: &Request) -> Self {
        let requeued = request.requeued && !planted::is("requeued_to_the_tail");
        if planted::is("b08_requeue_in_submit_order") {
            return Self(Reverse(false), Reverse(request.priority), request.id);
        }
        Self(Reverse(requeued), Reverse(request.priority), request.id)
    }
}

/// What must be equal in requests that share a build.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct MergeKey {
    source: Arc<[u64]>,
    /// Written as JSON, so that text is never equal to a number.
    values: Vec<Option<String>>,
}

impl MergeKey {
    /// Total, pure and quick: a policy cannot fail or hold the builder up
    /// (fault row FB11).
    fn of(request: &Request, merge: &Merge) -> Option<Self> {
        let names: &[String] = match merge {
            Merge::None => return None,
            Merge::SameSource => &[],
            Merge::Properties(names) => names,
        };
        if planted::is("merge_ignores_key") {
            return Some(Self { source: Arc::from([]), values: Vec::new() });
        }
        let value =
            |name: &String| request.properties.get(name).map(|own| own.value.json().to_string());
        Some(Self { source: request.source.clone(), values: names.iter().map(value).collect() })
    }
}

/// Places of requests, apart by the worker that they name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Places {
    any: BTreeSet<Place>,
    named: BTreeMap<WorkerName, BTreeSet<Place>>,
}

impl Places {
    fn insert(&mut self, worker: Option<&WorkerName>, place: Place) {
        match worker {
            None => self.any.insert(place),
            Some(worker) => self.named.entry(worker.clone()).or_default().insert(place),
        };
    }

    fn remove(&mut self, worker: Option<&WorkerName>, place: Place) {
        let Some(worker) = worker else {
            self.any.remove(&place);
            return;
        };
        if let Some(places) = self.named.get_mut(worker) {
            places.remove(&place);
            if places.is_empty() {
                self.named.remove(worker);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.named.is_empty()
    }

    /// Those that this worker may run, in no order between the two sorts.
    fn both(&self, worker: &WorkerName) -> [Option<&BTreeSet<Place>>; 2] {
        [Some(&self.any), self.named.get(worker)]
    }
}

/// A builder's queue: one order of all that wait, and for each worker the first
/// that it may run, so that a request that must wait for one worker blocks
/// nobody behind it. Every operation costs O(log n), the choice of the next one
/// O(workers) besides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<Place, Request>,
    places: BTreeMap<RequestId, Place>,
    by_worker: Places,
    merge: Merge,
    /// Requests that may share a build. Empty when none may.
    alike: BTreeMap<MergeKey, Places>,
}

impl Queue {
    /// A queue without requests, whose requests share builds by this policy.
    #[must_use]
    pub fn merging(merge: Merge) -> Self {
        Self { merge, ..Self::default() }
    }

    /// The same requests, sharing builds by this policy from now on.
    #[must_use]
    pub fn with_merge(self, merge: Merge) -> Self {
        if self.merge == merge {
            return self;
        }
        let mut queue = Self::merging(merge);
        for request in self.waiting.into_values() {
            queue.push(request);
        }
        queue
    }

    /// Adds a request; one that waits already stays as it is.
    pub fn push(&mut self, request: Request) {
        if self.places.contains_key(&request.id) {
            return;
        }
        let place = Place::of(&request);
        self.places.insert(request.id, place);
        self.by_worker.insert(request.worker.as_ref(), place);
        if let Some(key) = MergeKey::of(&request, &self.merge) {
            self.alike.entry(key).or_default().insert(request.worker.as_ref(), place);
        }
        self.waiting.insert(place, request);
    }

    /// Takes a request out.
    pub fn remove(&mut self, id: RequestId) -> Option<Request> {
        let place = self.places.remove(&id)?;
        let request = self.waiting.remove(&place)?;
        self.by_worker.remove(request.worker.as_ref(), place);
        if let Some(key) = MergeKey::of(&request, &self.merge)
            && let Some(places) = self.alike.get_mut(&key)
        {
            places.remove(request.worker.as_ref(), place);
            if places.is_empty() {
                self.alike.remove(&key);
            }
        }
        Some(request)
    }

    /// The first request that one of these workers may run.
    #[must_use]
    pub fn next_for<'a>(
        &self,
        workers: impl IntoIterator<Item = &'a WorkerName>,
    ) -> Option<&Request> {
        let mut workers = workers.into_iter().peekable();
        workers.peek()?;
        let mut first = self.by_worker.any.first();
        if !self.by_worker.named.is_empty() {
            let named = workers.filter_map(|worker| self.by_worker.named.get(worker)?.first());
            first = first.into_iter().chain(named).min();
        }
        self.waiting.get(first?)
    }

    /// The requests that may share a build with `request` on `worker`, which
    /// waits no more itself, in order (row B09). At most `most`, and only those
    /// that `may`.
    #[must_use]
    pub fn alike(
        &self,
        request: &Request,
        worker: &WorkerName,
        most: usize,
        may: impl Fn(RequestId) -> bool,
    ) -> Vec<RequestId> {
        let key = MergeKey::of(request, &self.merge);
        let Some(places) = key.and_then(|key| self.alike.get(&key)) else { return Vec::new() };
        let mut found: Vec<Place> = places
            .both(worker)
            .into_iter()
            .flatten()
            .flat_map(|places| places.iter().filter(|place| may(place.2)).take(most))
            .copied()
            .collect();
        found.sort_unstable();
        found.truncate(most);
        found.into_iter().map(|place| place.2).collect()
    }

    /// Gives a waiting request another priority. True when it waits.
    pub fn set_priority(&mut self, id: RequestId, priority: i64) -> bool {
        let Some(mut request) = self.remove(id) else { return false };
        request.priority = priority;
        self.push(request);
        true
    }

    /// The head, whether a worker may run it now or not.
    #[must_use]
    pub fn head(&self) -> Option<&Request> {
        self.waiting.first_key_value().map(|(_, request)| request)
    }

    /// The head's submit time, or none when the queue is empty (row B06).
    #[must_use]
    pub fn oldest_request_time(&self) -> Option<WallTime> {
        self.head().map(|request| request.submitted_at)
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
