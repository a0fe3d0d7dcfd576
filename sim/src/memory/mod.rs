//! The state store in memory: each operation with exactly the meaning that it
//! has in SQLite, as plain maps. `tests/store_agrees.rs` holds the two together.
//!
//! It is a value: no thread, no clock. A simulated world calls
//! [`MemoryStore::apply`] when its own disk has got round to it.

mod claims;
mod instances;
mod people;
mod requests;
mod running;
mod schedulers;
mod steps;
mod table;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::time::WallTime;
use botmaster::events::Event;
use botmaster::store::*;

pub use tables::{BuildRecord, BuilderRecord, LogRecord, SetRecord, WorkerRecord};

use tables::{Tables, missing, wrong};

/// What one operation comes to.
type Done = Result<OpOutcome, StoreError>;

/// The store. A clone is another store that holds the same.
#[derive(Clone, Default, Debug)]
pub struct MemoryStore {
    tables: Tables,
    events: Vec<Arc<Event>>,
    writes: u64,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out a transaction, all of it or nothing, and makes known what
    /// became true: the changes are also on [`MemoryStore::events`] then.
    /// A refused transaction has no changes.
    pub fn apply(&mut self, transaction: &Transaction) -> (Written, Vec<Change>) {
        let mut changes = Vec::new();
        let mut outcomes = Vec::with_capacity(transaction.ops.len());
        for op in &transaction.ops {
            match carry_out(&mut self.tables, &mut changes, op) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    self.tables.undo();
                    return (Err(error), Vec::new());
                }
            }
        }
        self.tables.keep();
        self.writes += 1;
        if planted::is("sim_event_left_out") {
            let left_out = |change: &Change| matches!(change, Change::RequestClaimed(row) if row.id.0.is_multiple_of(3));
            changes.retain(|change| !left_out(change));
        }
        for change in &changes {
            let seq = self.events.len() as u64 + 1;
            self.events.push(Arc::new(Event { seq, change: change.clone() }));
        }
        (Ok(outcomes), changes)
    }

    /// A fault that tests plant: what a transaction would change is told
    /// although it is not carried out.
    pub fn leak(&mut self, transaction: &Transaction) {
        let (_, changes) = self.clone().apply(transaction);
        for change in changes {
            let seq = self.events.len() as u64 + 1;
            self.events.push(Arc::new(Event { seq, change }));
        }
    }

    /// What the start of a master does to the rows: nobody is attached.
    pub fn reopen(&mut self) {
        let attached: Vec<_> = self.workers().filter(|worker| worker.row.connected).collect();
        let attached: Vec<_> = attached.into_iter().map(|worker| worker.row.id).collect();
        for id in attached {
            if let Some(record) = self.tables.workers.get(&id) {
                let mut record = WorkerRecord::clone(record);
                record.row.connected = false;
                self.tables.workers.put(id, record);
            }
        }
        if planted::is("sim_store_loses_a_request") {
            let waits = |row: &&Arc<RequestRow>| row.state == RequestState::Queued;
            let first = self.requests().find(waits).map(|row| (row.builder, row.id));
            if let Some(key) = first {
                self.tables.requests.remove(&key.1);
                self.tables.queued.remove(&key);
            }
        }
        self.tables.keep();
    }

    /// Reads everything that a Builder is rebuilt from.
    ///
    /// # Errors
    /// When there is no such builder, or a row that belongs to it is missing.
    pub fn load_builder(&self, builder: BuilderId) -> Result<BuilderRecords, StoreError> {
        let expectations = self.tables.builder(builder)?.expectations.clone();
        let all = (builder, RequestId(0))..=(builder, RequestId(u64::MAX));
        let queued = self
            .tables
            .queued
            .range(all)
            .filter_map(|((_, id), _)| self.tables.requests.get(id))
            .map(|row| self.tables.with_set(row.clone()))
            .collect();
        let open = (builder, ClaimId(0))..=(builder, ClaimId(u128::MAX));
        let mut ids: Vec<_> = self.tables.builds_open.range(open).map(|(_, id)| **id).collect();
        ids.sort_unstable();
        let builds = ids.into_iter().map(|id| self.open_build(id)).collect::<Result<_, _>>()?;
        let loaded_through = self.tables.requests.last().copied().unwrap_or_default();
        Ok(BuilderRecords { builder, queued, builds, loaded_through, expectations })
    }

    fn open_build(&self, id: BuildId) -> Result<OpenBuild, StoreError> {
        let build = self.tables.build(id)?;
        let digest = &build.factory_digest;
        let factory = self
            .tables
            .factories
            .get(digest)
            .ok_or_else(|| missing(format!("factory `{digest}` of build {id}")))?;
        let mut requests = self.tables.requests_of(build);
        requests.sort_by_key(|request| request.id != build.row.request);
        let steps = self.tables.steps_of(id).into_iter().map(|step| {
            let logs = self.tables.logs_of(step.id);
            (StepRow::clone(&step), logs.iter().map(|log| LogRow::clone(log)).collect())
        });
        Ok(OpenBuild {
            row: BuildRow::clone(&build.row),
            claim: build.claim,
            worker: self.tables.worker(build.row.worker)?.row.name.clone(),
            requests: requests.into_iter().map(|row| self.tables.with_set(row)).collect(),
            stop: build.stop.clone(),
            factory: factory.clone(),
            steps: steps.collect(),
            grace: build.grace,
            grant: match &self.tables.worker(build.row.worker)?.grant {
                Some((of, grant)) if *of >= build.row.incarnation => Some(grant.clone()),
                _ => None,
            },
        })
    }

    /// Every change so far, numbered from 1.
    #[must_use]
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// Transactions that were carried out so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// All builders, by id.
    pub fn builders(&self) -> impl Iterator<Item = &Arc<BuilderRecord>> {
        self.tables.builders.iter().map(|(_, record)| record)
    }

    /// All workers, by id.
    pub fn workers(&self) -> impl Iterator<Item = &Arc<WorkerRecord>> {
        self.tables.workers.iter().map(|(_, record)| record)
    }

    /// All buildsets, by id.
    pub fn buildsets(&self) -> impl Iterator<Item = &Arc<SetRecord>> {
        self.tables.sets.iter().map(|(_, record)| record)
    }

    /// Rows of all instances of latent workers.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<InstanceRow>> {
        self.tables.instances.iter().map(|(_, row)| row)
    }

    /// All requests, by id.
    pub fn requests(&self) -> impl Iterator<Item = &Arc<RequestRow>> {
        self.tables.requests.iter().map(|(_, row)| row)
    }

    /// All builds, by id, those that are only claimed included.
    pub fn builds(&self) -> impl Iterator<Item = &Arc<BuildRecord>> {
        self.tables.builds.iter().map(|(_, record)| record)
    }

    /// All steps, by id.
    pub fn steps(&self) -> impl Iterator<Item = &Arc<StepRow>> {
        self.tables.steps.iter().map(|(_, row)| row)
    }

    /// All logs, by id.
    pub fn logs(&self) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.tables.logs.iter().map(|(_, record)| record)
    }

    /// All notes, in order.
    pub fn notes(&self) -> impl Iterator<Item = &Arc<NoteRow>> {
        self.tables.notes.iter().map(|(_, note)| note)
    }

    /// One request.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<&Arc<RequestRow>> {
        self.tables.requests.get(&id)
    }

    /// One build, also when it is only claimed.
    #[must_use]
    pub fn build(&self, id: BuildId) -> Option<&Arc<BuildRecord>> {
        self.tables.builds.get(&id)
    }

    /// One worker.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<&Arc<WorkerRecord>> {
        self.tables.workers.get(&id)
    }

    /// One log.
    #[must_use]
    pub fn log(&self, id: LogId) -> Option<&Arc<LogRecord>> {
        self.tables.logs.get(&id)
    }

    /// The steps of a build, by number.
    #[must_use]
    pub fn steps_of(&self, build: BuildId) -> Vec<Arc<StepRow>> {
        self.tables.steps_of(build)
    }

    /// The logs of a step, in the order in which they were made.
    #[must_use]
    pub fn logs_of(&self, step: StepId) -> Vec<Arc<LogRow>> {
        self.tables.logs_of(step)
    }
}

/// Carries out one operation. What it changed before an error is undone by the
/// caller.
fn carry_out(tables: &mut Tables, changes: &mut Vec<Change>, op: &Op) -> Done {
    match op {
        Op::DeclareBuilder { name, description, tags, workers } => {
            people::declare_builder(tables, changes, name, description.as_ref(), tags, workers)
        }
        Op::RetireBuilder { builder } => people::retire_builder(tables, changes, *builder),
        Op::DeclareWorker { name } => people::declare_worker(tables, changes, name),
        Op::RetireWorker { worker } => people::retire_worker(tables, changes, *worker),
        Op::SaveFactory { digest, factory } => {
            if tables.factories.get(digest).is_none() {
                tables.factories.put(digest.clone(), factory.clone());
            }
            Ok(OpOutcome::Done)
        }
        Op::AddBuildset(new) => requests::add_buildset(tables, changes, new),
        Op::Claim { claim, builder, worker, incarnation, requests, factory_digest, grace, at } => {
            let wanted = claims::Wanted {
                claim: *claim,
                builder: *builder,
                worker: *worker,
                incarnation: *incarnation,
                requests,
                factory_digest,
                grace: *grace,
                at: *at,
            };
            claims::claim(tables, changes, &wanted)
        }
        Op::Unclaim { build, cancelled, refused, at } => {
            claims::unclaim(tables, changes, *build, cancelled, *refused, *at)
        }
        Op::CancelClaimed { build, requests, head, at } => {
            claims::cancel_claimed(tables, changes, *build, requests, *head, *at)
        }
        Op::StartBuild { build, incarnation, properties, grace, at } => {
            let start = running::Start { properties, grace: *grace, at: *at };
            running::start(tables, changes, *build, *incarnation, &start)
        }
        Op::AdoptBuild { build, incarnation } => running::adopt(tables, *build, *incarnation),
        Op::FenceBuild { build, incarnation } => running::fence(tables, *build, *incarnation),
        Op::DescribeBuild { build, state_string } => {
            running::describe(tables, changes, *build, state_string)
        }
        Op::WantStop { build, reason } => running::want_stop(tables, changes, *build, reason),
        Op::SetProperties { build, properties } => {
            running::set_properties(tables, changes, *build, properties)
        }
        Op::FinishBuild { build, incarnation, result, state_string, requests, at } => {
            let end = running::End { result: *result, state_string, requests: *requests, at: *at };
            running::finish(tables, changes, *build, *incarnation, &end)
        }
        Op::StartStep { build, number, name, state_string, logs, at } => {
            let new = steps::NewStep { number: *number, name, state_string, logs, at: *at };
            steps::start(tables, changes, *build, &new)
        }
        Op::FinishStep { step, result, state_string, at } => {
            steps::finish(tables, changes, *step, *result, state_string, *at)
        }
        Op::FinishLog { log, num_lines, length, inline, incomplete } => {
            let end = steps::LogEnd {
                num_lines: *num_lines,
                length: *length,
                inline: inline.clone(),
                incomplete: incomplete.clone(),
            };
            steps::finish_log(tables, changes, *log, end)
        }
        Op::CancelRequests { requests, at } => requests::cancel(tables, changes, requests, *at),
        Op::SetPriority { request, priority } => {
            requests::set_priority(tables, changes, *request, *priority)
        }
        Op::AttachWorker { worker, info, at } => {
            people::attach(tables, changes, *worker, info, *at)
        }
        Op::DetachWorker { worker, incarnation, at } => {
            people::detach(tables, changes, *worker, *incarnation, *at)
        }
        Op::SeeWorkers { seen, at } => people::see(tables, seen, *at),
        Op::GrantLease { worker, incarnation, grant } => {
            people::grant_lease(tables, *worker, *incarnation, grant)
        }
        Op::SetWorker { worker, paused, graceful } => {
            people::set_worker(tables, changes, *worker, paused.as_ref(), *graceful)
        }
        Op::SaveExpectations { builder, text } => people::save_expectations(tables, *builder, text),
        // Nobody who writes ever reads these again.
        Op::Predict { .. } | Op::PredictRequests(_) => Ok(OpOutcome::Done),
        Op::FailBuild { claim, builder, worker, requests, factory_digest, state_string, at } => {
            let wanted = claims::Wanted {
                claim: *claim,
                builder: *builder,
                worker: *worker,
                incarnation: Incarnation(0),
                requests,
                factory_digest,
                grace: Duration::ZERO,
                at: *at,
            };
            instances::fail_build(tables, changes, wanted, state_string)
        }
        Op::WishInstance { tag, worker, at: _ } => instances::wish(tables, tag, *worker),
        Op::NoteInstance { tag, id, at: _ } => instances::note(tables, tag, id),
        Op::ReleaseInstance { tag, worker, at: _ } => instances::release(tables, tag, *worker),
        Op::RemoveInstance { tag } => {
            tables.instances.remove(tag);
            Ok(OpOutcome::Done)
        }
        Op::ListInstances => instances::list(tables),
        Op::DeclareSchedulers(names) => schedulers::declare(tables, changes, names),
        Op::SetScheduler { scheduler, enabled } => {
            schedulers::set(tables, changes, *scheduler, *enabled)
        }
        Op::Note(note) => add_note(tables, changes, note, Some(note.at)),
        Op::BeginNote(note) => add_note(tables, changes, note, None),
        Op::EndNote { begun, note } => end_note(tables, changes, begun, note),
    }
}

fn add_note(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    note: &BuilderNote,
    ended_at: Option<WallTime>,
) -> Done {
    let id = tables.notes.last().map_or(1, |last| last + 1);
    let row = Arc::new(NoteRow {
        id,
        builder: note.builder,
        worker: note.worker,
        text: note.text.clone(),
        error: note.error.clone(),
        at: note.at,
        ended_at,
    });
    tables.notes.put(id, row.clone());
    changes.push(Change::Note(row));
    Ok(OpOutcome::Done)
}

fn end_note(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    begun: &str,
    end: &BuilderNote,
) -> Done {
    let open = |row: &NoteRow| {
        row.ended_at.is_none()
            && row.text == begun
            && (row.builder, row.worker) == (end.builder, end.worker)
    };
    let found = tables.notes.iter().filter(|(_, row)| open(row)).last();
    let Some(row) = found.map(|(_, row)| NoteRow::clone(row)) else {
        return add_note(tables, changes, end, Some(end.at));
    };
    let row = Arc::new(NoteRow {
        text: end.text.clone(),
        error: end.error.clone(),
        ended_at: Some(end.at),
        ..row
    });
    tables.notes.put(row.id, row.clone());
    changes.push(Change::NoteEnded(row));
    Ok(OpOutcome::Done)
}
