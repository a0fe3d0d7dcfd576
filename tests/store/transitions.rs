//! The store against the transition tables of requests and builds: every
//! operation meets every state (row S08).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use botmaster::core::ids::*;
use botmaster::core::transitions::{
    BUILD, BuildEvent, BuildStands, REQUEST, RequestEvent, RequestStands, Row,
};
use botmaster::core::values::*;
use botmaster::store::sqlite::SqliteStore;
use botmaster::store::*;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::world::*;

/// What an operation is to a request and to a build. A new operation has to be
/// told here what it is.
fn kinds(op: &Op) -> (Option<RequestEvent>, Option<BuildEvent>) {
    use {BuildEvent as B, RequestEvent as R};
    match op {
        Op::AddBuildset(_) => (Some(R::Submit), None),
        Op::Claim { .. } => (Some(R::Claim), Some(B::Claim)),
        Op::Unclaim { cancelled, .. } if cancelled.is_empty() => {
            (Some(R::Unclaim), Some(B::Unclaim))
        }
        Op::Unclaim { .. } => (Some(R::UnclaimCancelled), Some(B::Unclaim)),
        Op::CancelClaimed { .. } => (Some(R::Leave), Some(B::Leave)),
        Op::StartBuild { .. } => (None, Some(B::Start)),
        Op::AdoptBuild { .. } => (None, Some(B::Adopt)),
        Op::FinishBuild { requests: RequestsAfter::Done, .. } => (Some(R::Finish), Some(B::Finish)),
        Op::FinishBuild { requests: RequestsAfter::Requeue { .. }, .. } => {
            (Some(R::FinishRequeue), Some(B::Finish))
        }
        Op::CancelRequests { .. } => (Some(R::Cancel), None),
        Op::SetPriority { .. } => (Some(R::SetPriority), None),
        Op::DeclareBuilder { .. }
        | Op::RetireBuilder { .. }
        | Op::DeclareWorker { .. }
        | Op::RetireWorker { .. }
        | Op::SaveFactory { .. }
        | Op::DescribeBuild { .. }
        | Op::FenceBuild { .. }
        | Op::WantStop { .. }
        | Op::SetProperties { .. }
        | Op::StartStep { .. }
        | Op::FinishStep { .. }
        | Op::FinishLog { .. }
        | Op::AttachWorker { .. }
        | Op::DetachWorker { .. }
        | Op::SeeWorkers { .. }
        | Op::GrantLease { .. }
        | Op::SetWorker { .. }
        | Op::SaveExpectations { .. }
        | Op::Predict { .. }
        | Op::PredictRequests(_)
        | Op::WishInstance { .. }
        | Op::NoteInstance { .. }
        | Op::ReleaseInstance { .. }
        | Op::RemoveInstance { .. }
        | Op::ListInstances
        | Op::DeclareSchedulers(_)
        | Op::SetScheduler { .. }
        // A claim, a start and an end in one: each of them is held to the table.
        | Op::FailBuild { .. }
        | Op::Note(_)
        | Op::BeginNote(_)
        | Op::EndNote { .. } => (None, None),
    }
}

/// A request, another one that shares its build, the build that had them last,
/// and that build's claim.
#[derive(Clone, Copy, Debug)]
struct Case {
    request: RequestId,
    mate: RequestId,
    epoch: Epoch,
    build: BuildId,
    claim: u128,
}

/// How a case came to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Life {
    Waits,
    WaitsAgain,
    WaitsAfterALoss,
    Claimed,
    ClaimedAndUnwanted,
    Running,
    RunningAndUnwanted,
    Done,
    Cancelled,
    CancelledAtStart,
}

impl Life {
    /// Of a build that is wanted stopped nothing goes back to the queue.
    fn kinds(self, op: &Op) -> (Option<RequestEvent>, Option<BuildEvent>) {
        use RequestEvent as R;
        let unwanted = matches!(self, Self::ClaimedAndUnwanted | Self::RunningAndUnwanted);
        match kinds(op) {
            (Some(R::Unclaim), build) if unwanted => (Some(R::UnclaimCancelled), build),
            (Some(R::FinishRequeue), build) if unwanted => (Some(R::Finish), build),
            usual => usual,
        }
    }
}

const LIVES: &[Life] = &[
    Life::Waits,
    Life::WaitsAgain,
    Life::WaitsAfterALoss,
    Life::Claimed,
    Life::ClaimedAndUnwanted,
    Life::Running,
    Life::RunningAndUnwanted,
    Life::Done,
    Life::Cancelled,
    Life::CancelledAtStart,
];

struct Shop {
    store: SqliteStore,
    rows: Connection,
    builder: BuilderId,
    next_claim: u128,
    _dir: TempDir,
}

impl Shop {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open(dir.path());
        let mut ops = declarations();
        // What happens to this one must not be felt by the builds of the other.
        ops.push(Op::DeclareWorker { name: "w2".into() });
        let outcomes = write(&store, ops).unwrap();
        let OpOutcome::Builder(builder) = outcomes[2] else { panic!("{outcomes:?}") };
        let rows = Connection::open(dir.path().join("state.sqlite")).unwrap();
        Self { store, rows, builder, next_claim: 1, _dir: dir }
    }

    fn claim(&mut self) -> u128 {
        self.next_claim += 1;
        self.next_claim
    }

    fn one(&self, op: Op) -> OpOutcome {
        write(&self.store, vec![op]).unwrap().pop().unwrap()
    }

    /// A new request with this life.
    fn case(&mut self, life: Life) -> Case {
        let submitted = self.one(Op::AddBuildset(submission(&[self.builder])));
        let OpOutcome::Buildset { requests, .. } = submitted else { panic!() };
        let request = requests[0].id;
        let submitted = self.one(Op::AddBuildset(submission(&[self.builder])));
        let OpOutcome::Buildset { requests, .. } = submitted else { panic!() };
        let mate = requests[0].id;
        let claim = self.claim();
        let never = Case { request, mate, epoch: Epoch(0), build: BuildId(999_999), claim };
        if matches!(life, Life::Waits | Life::Cancelled) {
            if life == Life::Cancelled {
                self.one(Op::CancelRequests { requests: vec![request], at: at(15) });
            }
            return never;
        }
        let outcome =
            self.one(claim_op(claim, self.builder, &[(request, Epoch(0)), (mate, Epoch(0))]));
        let OpOutcome::Claimed { build, .. } = outcome else { panic!("{outcome:?}") };
        let build = build.id;
        let unclaim = |cancelled| Op::Unclaim { build, cancelled, refused: false, at: at(25) };
        match life {
            Life::WaitsAgain => drop(self.one(unclaim(Vec::new()))),
            Life::CancelledAtStart => drop(self.one(unclaim(vec![request]))),
            Life::Running | Life::RunningAndUnwanted | Life::Done | Life::WaitsAfterALoss => {
                drop(self.one(start_op(build)));
            }
            Life::Claimed | Life::ClaimedAndUnwanted | Life::Waits | Life::Cancelled => {}
        }
        if matches!(life, Life::ClaimedAndUnwanted | Life::RunningAndUnwanted) {
            self.one(Op::WantStop { build, reason: "enough".into() });
        }
        let (result, after) = match life {
            Life::Done => (BuildResult::Success, RequestsAfter::Done),
            _ => (BuildResult::Retry, RequestsAfter::Requeue { infra: true }),
        };
        if matches!(life, Life::Done | Life::WaitsAfterALoss) {
            self.one(finish_op(build, result, after));
        }
        Case { request, mate, epoch: Epoch(1), build, claim }
    }

    /// Every operation there is, about this case. A claim comes twice: as the
    /// same one again and as another's.
    fn ops(&mut self, case: Case) -> Vec<Op> {
        let Case { request, mate, epoch, build, claim } = case;
        let other = self.claim();
        let w2 = WorkerId(2);
        let note = BuilderNote {
            builder: self.builder,
            worker: None,
            text: "idle".into(),
            error: None,
            at: at(50),
        };
        vec![
            Op::AddBuildset(submission(&[self.builder])),
            claim_op(claim, self.builder, &[(request, epoch)]),
            claim_op(other, self.builder, &[(request, epoch)]),
            Op::Unclaim { build, cancelled: Vec::new(), refused: true, at: at(50) },
            Op::Unclaim { build, cancelled: vec![request], refused: true, at: at(50) },
            Op::CancelClaimed { build, requests: vec![request], head: mate, at: at(50) },
            start_op(build),
            Op::AdoptBuild { build, incarnation: Incarnation(1) },
            finish_op(build, BuildResult::Failure, RequestsAfter::Done),
            finish_op(build, BuildResult::Retry, RequestsAfter::Requeue { infra: true }),
            finish_op(build, BuildResult::Retry, RequestsAfter::Requeue { infra: false }),
            Op::CancelRequests { requests: vec![request], at: at(50) },
            Op::SetPriority { request, priority: 5 },
            Op::DeclareBuilder {
                name: "b1".into(),
                description: None,
                tags: Vec::new(),
                workers: vec!["w1".into()],
            },
            Op::RetireBuilder { builder: self.builder },
            Op::DeclareWorker { name: "w2".into() },
            Op::RetireWorker { worker: w2 },
            Op::SaveFactory { digest: "d1".into(), factory: factory() },
            Op::DescribeBuild { build, state_string: "on its way".into() },
            Op::WantStop { build, reason: "no more".into() },
            Op::SetProperties { build, properties: Properties::new() },
            Op::StartStep {
                build,
                number: 0,
                name: "make".into(),
                state_string: "runs".into(),
                logs: Vec::new(),
                at: at(50),
            },
            Op::FinishStep {
                step: StepId(999_999),
                result: BuildResult::Success,
                state_string: "ended".into(),
                at: at(50),
            },
            Op::FinishLog {
                log: LogId(999_999),
                num_lines: 0,
                length: 0,
                inline: None,
                incomplete: None,
            },
            attach_op(w2),
            Op::DetachWorker { worker: w2, incarnation: Incarnation(1), at: at(50) },
            Op::SetWorker { worker: w2, paused: Some((true, None)), graceful: None },
            Op::SaveExpectations { builder: self.builder, text: "1".into() },
            Op::DeclareSchedulers(vec!["force".into()]),
            Op::SetScheduler { scheduler: 1, enabled: false },
            Op::Note(note.clone()),
            Op::BeginNote(note.clone()),
            Op::EndNote { begun: "pinging".into(), note },
        ]
    }

    fn state(&self, sql: &str, id: u64) -> Option<i64> {
        self.rows.query_row(sql, [i64::try_from(id).unwrap()], |row| row.get(0)).ok()
    }

    fn request(&self, id: RequestId) -> RequestStands {
        match self.state("SELECT state FROM requests WHERE id = ?1", id.0) {
            None => RequestStands::Unknown,
            Some(0) => RequestStands::Queued,
            Some(1) => RequestStands::Claimed,
            Some(2) => RequestStands::Done,
            Some(3) => RequestStands::Cancelled,
            Some(other) => panic!("state {other}"),
        }
    }

    fn build(&self, id: BuildId) -> BuildStands {
        match self.state("SELECT state FROM builds WHERE id = ?1", id.0) {
            None => BuildStands::Unknown,
            Some(0) => BuildStands::Claimed,
            Some(1) => BuildStands::Running,
            Some(2) => BuildStands::Finished,
            Some(other) => panic!("state {other}"),
        }
    }
}

/// The one state that the table has after this, or the same one.
fn expected<S: Copy + PartialEq + std::fmt::Debug, E: PartialEq + std::fmt::Debug>(
    table: &'static [Row<S, E>],
    from: S,
    event: Option<E>,
) -> S {
    let Some(event) = event else { return from };
    let row = botmaster::core::transitions::find(table, &from, &event).unwrap();
    match row.to {
        [] => from,
        [to] => *to,
        many => panic!("{from:?} by {event:?} can be {many:?}"),
    }
}

#[test]
fn s08_every_operation_meets_every_state_as_the_tables_say() {
    let mut shop = Shop::open();
    let mut requests = BTreeSet::new();
    let mut builds = BTreeSet::new();
    let sample = shop.case(Life::Waits);
    let count = shop.ops(sample).len();
    for (life, place) in LIVES.iter().flat_map(|life| (0..count).map(move |place| (*life, place))) {
        let case = shop.case(life);
        let op = shop.ops(case).swap_remove(place);
        let (to_request, to_build) = life.kinds(&op);
        let before = (shop.request(case.request), shop.build(case.build));
        let written = write(&shop.store, vec![op.clone()]);
        let after = (shop.request(case.request), shop.build(case.build));
        let what = format!("{life:?} {before:?} by {op:?}: {after:?}, answered {written:?}");

        // A claim makes a build of its own; the one before stays what it was.
        let made = match written.as_deref() {
            Ok([OpOutcome::Claimed { build, .. }]) if build.id != case.build => Some(build.id),
            _ => None,
        };
        if let Some(made) = made {
            assert_eq!(after, (RequestStands::Claimed, before.1), "{what}");
            let claimed = expected(BUILD, BuildStands::Unknown, Some(BuildEvent::Claim));
            assert_eq!(shop.build(made), claimed, "{what}");
            builds.insert((BuildStands::Unknown, BuildEvent::Claim));
        } else if to_build != Some(BuildEvent::Claim) {
            assert_eq!(after.1, expected(BUILD, before.1, to_build), "{what}");
        }
        // What is refused for the build's sake does not touch the request.
        let refused = to_build.is_some() && written.is_err();
        let event = to_request.filter(|event| *event != RequestEvent::Submit && !refused);
        assert_eq!(after.0, expected(REQUEST, before.0, event), "{what}");
        if refused {
            assert_eq!(after, before, "{what}");
        }
        requests.extend(to_request.map(|event| (before.0, event)));
        builds.extend(to_build.map(|event| (before.1, event)));
    }
    let missed: Vec<_> = REQUEST
        .iter()
        .filter(|row| row.from != RequestStands::Unknown)
        .map(|row| (row.from, row.event))
        .filter(|pair| !requests.contains(pair))
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
    let missed: Vec<_> = BUILD
        .iter()
        .map(|row| (row.from, row.event))
        .filter(|pair| !builds.contains(pair))
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn s08_a_request_that_nobody_submitted_is_nothing_to_any_operation() {
    let mut shop = Shop::open();
    let (request, mate) = (RequestId(999), RequestId(998));
    let nobody = Case { request, mate, epoch: Epoch(0), build: BuildId(999), claim: 0 };
    let mut told = BTreeMap::new();
    for op in shop.ops(nobody) {
        let kind = kinds(&op).0;
        let written = write(&shop.store, vec![op]);
        assert_eq!(shop.request(nobody.request), RequestStands::Unknown);
        if let Some(kind) = kind.filter(|kind| *kind != RequestEvent::Submit) {
            told.insert(kind, written.is_err());
        }
    }
    // To cancel it is nothing; everything else is an error.
    let silent: Vec<_> = told.iter().filter(|(_, refused)| !**refused).map(|(e, _)| *e).collect();
    assert_eq!(silent, [RequestEvent::Cancel]);
    let submitted = shop.one(Op::AddBuildset(submission(&[shop.builder])));
    let OpOutcome::Buildset { requests, .. } = submitted else { panic!() };
    let expected = expected(REQUEST, RequestStands::Unknown, Some(RequestEvent::Submit));
    assert_eq!(shop.request(requests[0].id), expected);
}
