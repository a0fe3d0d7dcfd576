//! From the program's own records to a history's.

use std::collections::BTreeSet;

use botmaster::core::ids::RequestId;
use botmaster::store::{BuildRow, Change, RequestRow};

use super::records::*;
use crate::memory::{BuildRecord, MemoryStore};

/// Collects a history while a world runs.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// What was collected so far. What clients were told, what workers ran and
    /// what logs hold is added by those who know it.
    pub history: History,
    /// Requests that only a certain worker may have.
    pub pinned: BTreeSet<RequestId>,
    /// Builds have no steps at all: a good result proves no run.
    pub without_steps: bool,
}

impl Recorder {
    /// Adds an event that was published just now.
    pub fn published(&mut self, at: Micros, seq: u64, change: &Change) {
        let what = self.what(change);
        self.history.events.push(Event { seq, at, what });
    }

    /// Keeps what the store holds at the end, in place of what was kept before.
    pub fn keep_store(&mut self, store: &MemoryStore) {
        self.history.requests = store.requests().map(|row| (row.id, self.request(row))).collect();
        let builds = store.builds().map(|record| (record.row.id, self.build_record(record)));
        self.history.builds = builds.collect();
    }

    fn what(&self, change: &Change) -> What {
        match change {
            Change::RequestNew(row) => What::RequestNew(self.request(row)),
            Change::RequestClaimed(row) => What::RequestClaimed(self.request(row)),
            Change::RequestUnclaimed(row) => What::RequestUnclaimed(self.request(row)),
            Change::RequestComplete(row) => What::RequestComplete(self.request(row)),
            Change::RequestUpdated(row) => What::RequestUpdated(self.request(row)),
            Change::BuildNew(row) => What::BuildNew(self.build(row)),
            Change::BuildFinished(row) => What::BuildFinished(self.build(row)),
            other => {
                let text = format!("{other:?}");
                let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
                What::Other(text.chars().take(end).collect())
            }
        }
    }

    fn request(&self, row: &RequestRow) -> Request {
        Request {
            id: row.id,
            builder: row.builder,
            priority: row.priority,
            state: row.state,
            epoch: row.epoch,
            claimed_at: row.claimed_at.map(|at| at.0),
            result: row.results,
            requeued: row.requeued,
            pinned: self.pinned.contains(&row.id),
        }
    }

    fn build(&self, row: &BuildRow) -> Build {
        Build {
            id: row.id,
            number: row.number,
            builder: row.builder,
            worker: row.worker,
            state: row.state,
            result: row.results,
            requests: Vec::new(),
            has_steps: !self.without_steps,
        }
    }

    fn build_record(&self, record: &BuildRecord) -> Build {
        Build { requests: record.requests.clone(), ..self.build(&record.row) }
    }
}
