//! Everything that the store holds.

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::lease::Grant;
use botmaster::core::time::WallTime;
use botmaster::core::values::{Factory, Loss};
use botmaster::store::*;

use super::table::Table;

/// A builder with what its row does not show.
#[derive(Clone, PartialEq, Debug)]
pub struct BuilderRecord {
    /// As it is shown.
    pub row: BuilderRow,
    /// The build number given last.
    pub last_number: u64,
    /// What its last successful builds took.
    pub expectations: Option<String>,
}

/// A worker with what its row does not show.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkerRecord {
    /// As it is shown.
    pub row: WorkerRow,
    /// When it attached or left last.
    pub last_seen: WallTime,
    /// The longer lease that it has since a planned stop.
    pub grant: Option<(Incarnation, Grant)>,
}

/// A buildset with what its row does not show.
#[derive(Clone, PartialEq, Debug)]
pub struct SetRecord {
    /// As it is shown.
    pub row: Arc<BuildsetRow>,
    /// Its requests, in the order of the builders asked for.
    pub requests: Vec<RequestId>,
    /// How many of them have not ended.
    pub open: usize,
}

/// A build with what its row does not show.
#[derive(Clone, PartialEq, Debug)]
pub struct BuildRecord {
    /// As it is shown.
    pub row: Arc<BuildRow>,
    /// The claim that made it.
    pub claim: ClaimId,
    /// Why somebody wants it stopped.
    pub stop: Option<String>,
    /// How long its worker might be away when it began.
    pub grace: Duration,
    /// Names its steps.
    pub factory_digest: String,
    /// Its requests with the epochs in which it has them, oldest first.
    pub requests: Vec<(RequestId, Epoch)>,
}

/// A log with what its row does not show.
#[derive(Clone, PartialEq, Debug)]
pub struct LogRecord {
    /// As it is shown.
    pub row: Arc<LogRow>,
    /// The whole text in the log store's segment form, when it is short.
    pub inline: Option<Arc<[u8]>>,
    /// Why it is not whole, when it is not.
    pub incomplete: Option<String>,
}

/// A scheduler with what its row does not show.
#[derive(Clone, PartialEq, Debug)]
pub struct SchedulerRecord {
    /// As it is shown.
    pub row: SchedulerRow,
    /// It is in the configuration.
    pub configured: bool,
}

/// Content of a source stamp, as a key: codebase, repository, branch,
/// revision, project.
type StampKey = (String, String, Option<String>, Option<String>, String);

/// All tables, and what finds their rows.
#[derive(Clone, Default, Debug)]
pub struct Tables {
    pub builders: Table<BuilderId, BuilderRecord>,
    pub builder_names: Table<BuilderName, BuilderId>,
    pub workers: Table<WorkerId, WorkerRecord>,
    pub worker_names: Table<WorkerName, WorkerId>,
    pub factories: Table<String, Factory>,
    pub stamps: Table<u64, SourceStampRow>,
    pub stamps_known: Table<StampKey, u64>,
    pub sets: Table<BuildsetId, SetRecord>,
    pub sets_keyed: Table<String, BuildsetId>,
    pub requests: Table<RequestId, RequestRow>,
    pub queued: Table<(BuilderId, RequestId), ()>,
    pub builds: Table<BuildId, BuildRecord>,
    pub builds_open: Table<(BuilderId, ClaimId), BuildId>,
    /// The build id given last: it never comes again.
    pub last_build: Table<(), BuildId>,
    pub steps: Table<StepId, StepRow>,
    pub steps_of: Table<(BuildId, u32), StepId>,
    pub logs: Table<LogId, LogRecord>,
    pub logs_of: Table<(StepId, LogId), ()>,
    pub notes: Table<u64, NoteRow>,
    pub instances: Table<InstanceTag, InstanceRow>,
    pub schedulers: Table<u64, SchedulerRecord>,
    /// How builds of requests were lost, for those of which any was.
    pub losses: Table<RequestId, Vec<Loss>>,
}

/// Calls a method of every table. A table that is not listed here would not be
/// undone, so the pattern names all fields.
macro_rules! each {
    ($tables:expr, $method:ident) => {{
        let Tables {
            builders,
            builder_names,
            workers,
            worker_names,
            factories,
            stamps,
            stamps_known,
            sets,
            sets_keyed,
            requests,
            queued,
            builds,
            builds_open,
            last_build,
            steps,
            steps_of,
            logs,
            logs_of,
            notes,
            instances,
            schedulers,
            losses,
        } = $tables;
        builders.$method();
        builder_names.$method();
        workers.$method();
        worker_names.$method();
        factories.$method();
        stamps.$method();
        stamps_known.$method();
        sets.$method();
        sets_keyed.$method();
        requests.$method();
        queued.$method();
        builds.$method();
        builds_open.$method();
        last_build.$method();
        steps.$method();
        steps_of.$method();
        logs.$method();
        logs_of.$method();
        notes.$method();
        instances.$method();
        schedulers.$method();
        losses.$method();
    }};
}

impl Tables {
    /// The transaction in progress has happened.
    pub fn keep(&mut self) {
        each!(self, keep);
    }

    /// The transaction in progress has not happened.
    pub fn undo(&mut self) {
        each!(self, undo);
    }

    /// Reads a builder.
    pub fn builder(&self, id: BuilderId) -> Result<&Arc<BuilderRecord>, StoreError> {
        self.builders.get(&id).ok_or_else(|| missing(format!("builder {id}")))
    }

    /// Reads a worker.
    pub fn worker(&self, id: WorkerId) -> Result<&Arc<WorkerRecord>, StoreError> {
        self.workers.get(&id).ok_or_else(|| missing(format!("worker {id}")))
    }

    /// Reads a build.
    pub fn build(&self, id: BuildId) -> Result<&Arc<BuildRecord>, StoreError> {
        self.builds.get(&id).ok_or_else(|| missing(format!("build {id}")))
    }

    /// Reads a buildset.
    pub fn set(&self, id: BuildsetId) -> Result<&Arc<SetRecord>, StoreError> {
        self.sets.get(&id).ok_or_else(|| missing(format!("buildset {id}")))
    }

    /// Puts a request back, where it belongs.
    pub fn put_request(&mut self, row: Arc<RequestRow>) {
        let place = (row.builder, row.id);
        if row.state == RequestState::Queued {
            self.queued.put(place, ());
        } else {
            self.queued.remove(&place);
        }
        self.requests.put(row.id, row);
    }

    /// Replaces what is shown of a build.
    pub fn put_build(&mut self, row: Arc<BuildRow>) {
        if let Some(record) = self.builds.get(&row.id) {
            let record = BuildRecord { row: row.clone(), ..BuildRecord::clone(record) };
            self.builds.put(row.id, record);
        }
    }

    /// The requests of a build as they are now, oldest first.
    pub fn requests_of(&self, build: &BuildRecord) -> Vec<Arc<RequestRow>> {
        build.requests.iter().filter_map(|(id, _)| self.requests.get(id).cloned()).collect()
    }

    /// A request with what its builder needs to know of its set.
    pub fn with_set(&self, row: Arc<RequestRow>) -> RequestWithSet {
        let set = self.sets.get(&row.buildset).map(|set| SetPart::from(set.row.as_ref()));
        let losses = self.losses.get(&row.id).map(|losses| losses.as_slice().into());
        RequestWithSet { row, set: set.unwrap_or_default(), losses: losses.unwrap_or_default() }
    }

    /// The logs of a step, in the order in which they were made.
    pub fn logs_of(&self, step: StepId) -> Vec<Arc<LogRow>> {
        let all = (step, LogId(0))..=(step, LogId(u64::MAX));
        self.logs_of
            .range(all)
            .filter_map(|((_, log), _)| self.logs.get(log).map(|record| record.row.clone()))
            .collect()
    }

    /// The steps of a build, by number.
    pub fn steps_of(&self, build: BuildId) -> Vec<Arc<StepRow>> {
        self.steps_of
            .range((build, 0)..=(build, u32::MAX))
            .filter_map(|(_, step)| self.steps.get(step).cloned())
            .collect()
    }
}

/// A row that is not there.
pub fn missing(text: String) -> StoreError {
    StoreError::Missing(text)
}

/// The asker is not the owner any more.
pub fn fenced(text: String) -> StoreError {
    StoreError::Fenced(text)
}

/// The asker asked for something that makes no sense.
pub fn wrong(text: impl Into<String>) -> StoreError {
    StoreError::Failed(text.into())
}
