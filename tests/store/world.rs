//! What the tests share: a store with a builder and a worker, and short ways to
//! ask it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::core::values::*;
use botmaster::events::Events;
use botmaster::store::sqlite::{Engine, OnFatal, SqliteStore};
use botmaster::store::*;

/// Longest wait for an answer of a store.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn at(second: i64) -> WallTime {
    WallTime(second * 1_000_000)
}

/// Must not be called.
pub fn never_fatal() -> OnFatal {
    Arc::new(|text: &str| panic!("fatal: {text}"))
}

pub fn open(dir: &Path) -> (SqliteStore, Events) {
    SqliteStore::open(dir, never_fatal()).unwrap()
}

/// Writes and waits for the answer.
pub fn write(store: &SqliteStore, ops: Vec<Op>) -> Written {
    let (tell, told) = mpsc::channel();
    store.write(ops.into(), Box::new(move |written| tell.send(written).unwrap()));
    told.recv_timeout(DEADLINE).unwrap()
}

pub fn load(store: &SqliteStore, builder: BuilderId) -> BuilderRecords {
    let (tell, told) = mpsc::channel();
    store.load_builder(builder, Box::new(move |records| tell.send(records).unwrap()));
    told.recv_timeout(DEADLINE).unwrap().unwrap()
}

pub fn factory() -> Arc<Factory> {
    let kind = StepKind::Run { program: Program::Shell("make".into()) };
    Arc::new(Factory {
        steps: vec![StepSpec {
            name: "make".into(),
            kind,
            workdir: None,
            env: BTreeMap::new(),
            timeout: Some(Duration::from_secs(60)),
            max_time: None,
            halt_on_failure: true,
            flunk_on_failure: true,
            warn_on_failure: false,
            always_run: false,
        }],
    })
}

pub fn property(value: &str) -> Property {
    Property { value: value.into(), source: "test".into() }
}

pub fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), property(value))).collect()
}

pub fn submission(builders: &[BuilderId]) -> NewBuildset {
    NewBuildset {
        external_id: None,
        idempotency_key: None,
        reason: "because".into(),
        scheduler: "force".into(),
        submitted_at: at(10),
        rebuilt_build: None,
        sourcestamps: vec![SourceStamp::default()],
        properties: Arc::new(properties(&[("branch", "main")])),
        builders: builders.to_vec(),
        priority: 0,
        waited_for: false,
    }
}

/// Operations that make a worker, a factory and a builder known. The worker
/// is attached, in its first incarnation.
pub fn declarations() -> Vec<Op> {
    vec![
        Op::DeclareWorker { name: "w1".into() },
        Op::SaveFactory { digest: "d1".into(), factory: factory() },
        Op::DeclareBuilder {
            name: "b1".into(),
            description: Some("first".into()),
            tags: vec!["fast".into()],
            workers: vec!["w1".into()],
        },
        attach_op(WorkerId(1)),
    ]
}

pub fn attach_op(worker: WorkerId) -> Op {
    Op::AttachWorker { worker, info: BTreeMap::new(), at: at(1) }
}

pub fn claim_op(id: u128, builder: BuilderId, requests: &[(RequestId, Epoch)]) -> Op {
    Op::Claim {
        claim: ClaimId(id),
        builder,
        worker: WorkerId(1),
        incarnation: Incarnation(1),
        requests: requests.to_vec(),
        factory_digest: "d1".into(),
        grace: std::time::Duration::from_secs(150),
        at: at(20),
    }
}

pub fn start_op(build: BuildId) -> Op {
    Op::StartBuild {
        build,
        incarnation: Incarnation(1),
        properties: Arc::new(properties(&[("branch", "main"), ("own", "1")])),
        grace: std::time::Duration::from_secs(150),
        at: at(30),
    }
}

pub fn finish_op(build: BuildId, result: BuildResult, requests: RequestsAfter) -> Op {
    Op::FinishBuild {
        build,
        incarnation: Incarnation(1),
        result,
        state_string: "build ended".into(),
        requests,
        at: at(40),
    }
}

/// A store in memory with one worker `w1` and one builder `b1`.
pub struct World {
    pub engine: Engine,
    pub builder: BuilderId,
    pub worker: WorkerId,
}

impl World {
    pub fn new() -> Self {
        let mut engine = Engine::in_memory().unwrap();
        let outcomes = engine.apply(&declarations().into()).unwrap();
        let [
            OpOutcome::Worker(worker),
            OpOutcome::Done,
            OpOutcome::Builder(builder),
            OpOutcome::Attached(Incarnation(1)),
        ] = outcomes.as_slice()
        else {
            panic!("{outcomes:?}")
        };
        let (worker, builder) = (worker.id, *builder);
        engine.drain_changes();
        Self { engine, builder, worker }
    }

    pub fn run(&mut self, op: Op) -> Result<OpOutcome, StoreError> {
        self.engine.apply(&Transaction::of(op)).map(|mut outcomes| outcomes.pop().unwrap())
    }

    pub fn submit(&mut self) -> (Arc<BuildsetRow>, Arc<RequestRow>) {
        match self.run(Op::AddBuildset(submission(&[self.builder]))).unwrap() {
            OpOutcome::Buildset { buildset, requests, .. } => (buildset, requests[0].clone()),
            other => panic!("{other:?}"),
        }
    }

    pub fn claim(&mut self, id: u128, request: RequestId, epoch: u64) -> Arc<BuildRow> {
        match self.run(claim_op(id, self.builder, &[(request, Epoch(epoch))])).unwrap() {
            OpOutcome::Claimed { build, .. } => build,
            other => panic!("{other:?}"),
        }
    }

    pub fn start(&mut self, build: BuildId) -> Arc<BuildRow> {
        match self.run(start_op(build)).unwrap() {
            OpOutcome::Started(build) => build,
            other => panic!("{other:?}"),
        }
    }

    /// A build that runs, with its request.
    pub fn running(&mut self, id: u128) -> (RequestId, Arc<BuildRow>) {
        let request = self.submit().1.id;
        let build = self.claim(id, request, 0);
        (request, self.start(build.id))
    }

    pub fn request(&self, request: RequestId) -> Option<RequestRow> {
        let records = self.engine.load_builder(self.builder).unwrap();
        let held = records.builds.into_iter().flat_map(|build| build.requests);
        records
            .queued
            .into_iter()
            .chain(held)
            .map(|with| (*with.row).clone())
            .find(|row| row.id == request)
    }

    /// Names of the changes since the last call.
    pub fn changes(&mut self) -> Vec<String> {
        self.engine.drain_changes().iter().map(name).collect()
    }
}

/// The name of a change.
pub fn name(change: &Change) -> String {
    let text = format!("{change:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
