//! The store in memory against the one that ships: the same random
//! transactions, refused ones too, and everything that can be seen of both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use botmaster::core::builder::{Estimate, Prediction, QueuedEta};
use botmaster::core::ids::*;
use botmaster::core::lease::{BootTime, Grant};
use botmaster::core::time::WallTime;
use botmaster::core::values::*;
use botmaster::store::sqlite::{Engine, SqliteStore, StateReader};
use botmaster::store::*;
use botmaster_sim::memory::MemoryStore;
use proptest::prelude::*;

/// Builders and workers that are there from the start.
const THERE: u64 = 2;
/// Transactions of one case.
const LENGTH: usize = 80;

/// An operation before it is known what the store holds: which kind, and
/// numbers that choose among what is there.
#[derive(Clone, Debug)]
struct Wish {
    kind: u8,
    picks: [u8; 4],
    /// Names what is right now, and not what may be stale.
    right: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    (0..78_u8, any::<[u8; 4]>(), prop::bool::weighted(0.85)).prop_map(|(kind, picks, right)| Wish {
        kind,
        picks,
        right,
    })
}

fn transactions() -> impl Strategy<Value = Vec<Vec<Wish>>> {
    let few = prop_oneof![6 => 1..2_usize, 3 => 2..4_usize, 1 => 4..8_usize];
    let one = few.prop_flat_map(|len| prop::collection::vec(wish(), len));
    prop::collection::vec(one, 1..LENGTH)
}

/// One of what is there by its place, now and then one that is not there.
fn pick(last: u64, pick: u8) -> u64 {
    1 + u64::from(pick) % (last + u64::from(pick == u8::MAX)).max(1)
}

fn factory(pick: u8) -> Arc<Factory> {
    let step = StepSpec {
        name: format!("step {}", pick % 3),
        kind: StepKind::Run { program: Program::Shell("make".into()) },
        workdir: None,
        env: BTreeMap::from([("A".into(), "1".into())]),
        timeout: Some(Duration::from_millis(1500)),
        max_time: None,
        halt_on_failure: true,
        flunk_on_failure: true,
        warn_on_failure: false,
        always_run: pick.is_multiple_of(2),
    };
    Arc::new(Factory { steps: vec![step] })
}

fn properties(pick: u8) -> Properties {
    let property = Property { value: format!("ö {}", pick % 4).into(), source: "test".into() };
    BTreeMap::from([(format!("p{}", pick % 3), property)])
}

fn result(pick: u8) -> BuildResult {
    BuildResult::from_code(i64::from(pick % 7)).unwrap()
}

fn submission(picks: [u8; 4], at: WallTime) -> NewBuildset {
    let [a, b, c, d] = picks;
    let stamp = SourceStamp {
        branch: (c.is_multiple_of(2)).then(|| "main".into()),
        revision: Some(format!("r{}", c % 3)),
        ..SourceStamp::default()
    };
    let builders = (0..(a % 8).min(3)).map(|n| BuilderId(pick(THERE, b.wrapping_add(n)))).collect();
    NewBuildset {
        external_id: d.is_multiple_of(3).then(|| "mine".into()),
        idempotency_key: (d % 4 == 1).then(|| format!("k{}", d % 16)),
        reason: "because".into(),
        scheduler: "force".into(),
        submitted_at: at,
        rebuilt_build: (d % 8 == 2).then_some(BuildId(1)),
        sourcestamps: vec![stamp, SourceStamp::default()],
        properties: Arc::new(properties(c)),
        builders,
        priority: i64::from(d % 3) - 1,
        waited_for: d.is_multiple_of(2),
    }
}

/// Requests of one builder with their epochs: mostly those that wait.
fn to_claim(store: &MemoryStore, builder: BuilderId, wish: &Wish) -> Vec<(RequestId, Epoch)> {
    let fits = |row: &&Arc<RequestRow>| {
        !wish.right || row.builder == builder && row.state == RequestState::Queued
    };
    let stale = u64::from(!wish.right && wish.picks[3].is_multiple_of(2));
    store
        .requests()
        .filter(fits)
        .skip(usize::from(wish.picks[1] % 3))
        .take(usize::from(wish.picks[2] % 4))
        .map(|row| (row.id, Epoch(row.epoch.0 + stale)))
        .collect()
}

fn claim(store: &MemoryStore, wish: &Wish, at: WallTime) -> Op {
    let [a, _, c, d] = wish.picks;
    let builder = BuilderId(pick(THERE, a));
    let worker = WorkerId(pick(THERE, c));
    let present = store.worker(worker).map_or(0, |worker| worker.row.incarnation.0);
    let mut requests = to_claim(store, builder, wish);
    if d % 8 == 3 {
        requests.reverse();
    }
    Op::Claim {
        // Few enough ids that a claim is repeated now and then.
        claim: ClaimId(if wish.right { store.writes().into() } else { u128::from(d % 8) }),
        builder,
        worker,
        incarnation: Incarnation(if d < 200 { present } else { u64::from(d % 3) }),
        requests,
        factory_digest: if d.is_multiple_of(2) { "d1" } else { "d2" }.into(),
        grace: std::time::Duration::from_secs(d.into()),
        at,
    }
}

/// A build: mostly one that is in the state asked for. With its incarnation.
fn some_build(store: &MemoryStore, state: BuildState, wish: &Wish) -> (BuildId, Incarnation) {
    let fits: Vec<_> =
        store.builds().filter(|build| !wish.right || build.row.state == state).collect();
    match fits.get(usize::from(wish.picks[0]) % fits.len().max(1)) {
        Some(build) if wish.right => (build.row.id, build.row.incarnation),
        Some(build) => (build.row.id, Incarnation(u64::from(wish.picks[1] % 4))),
        None => (BuildId(u64::from(wish.picks[0] % 8)), Incarnation(u64::from(wish.picks[1] % 4))),
    }
}

fn operation(store: &MemoryStore, wish: &Wish, second: usize) -> Op {
    let [a, b, c, d] = wish.picks;
    let at = WallTime(i64::try_from(second).unwrap() * 1_000_000);
    let last_request = store.requests().count() as u64;
    match wish.kind {
        0..10 => Op::AddBuildset(submission(wish.picks, at)),
        10..20 => claim(store, wish, at),
        20..30 | 72.. => builds(store, wish, at),
        30..36 => {
            let (build, _) = some_build(store, BuildState::Running, wish);
            let names = ["stdio", "st dio", "", "st_dio"];
            let logs = names.iter().take(usize::from(c % 5)).map(|name| (*name).into());
            let number = u32::from(b % 4);
            let name = if wish.right { format!("s{number}") } else { "other".into() };
            Op::StartStep {
                build,
                number,
                name,
                state_string: "go".into(),
                logs: logs.collect(),
                at,
            }
        }
        36..39 => Op::FinishStep {
            step: StepId(pick(store.steps().count() as u64, a)),
            result: result(b),
            state_string: "done".into(),
            at,
        },
        39..42 => Op::FinishLog {
            log: LogId(pick(store.logs().count() as u64, a)),
            num_lines: b.into(),
            length: c.into(),
            inline: d.is_multiple_of(2).then(|| vec![a, b].into()),
            incomplete: d.is_multiple_of(3).then(|| "cut".into()),
        },
        42..46 => Op::CancelRequests {
            requests: [a, b].map(|n| RequestId(pick(last_request, n))).to_vec(),
            at,
        },
        46..48 => Op::SetPriority { request: RequestId(pick(last_request, a)), priority: b.into() },
        _ => people(store, wish, at),
    }
}

fn builds(store: &MemoryStore, wish: &Wish, at: WallTime) -> Op {
    let [a, b, c, d] = wish.picks;
    let claimed = some_build(store, BuildState::Claimed, wish);
    let running = some_build(store, BuildState::Running, wish);
    match wish.kind {
        20..23 => Op::StartBuild {
            build: claimed.0,
            incarnation: claimed.1,
            properties: Arc::new(properties(c)),
            grace: Duration::from_millis(c.into()),
            at,
        },
        23 if a.is_multiple_of(2) => {
            let held = store.build(claimed.0).map(|build| build.requests.clone());
            let held: Vec<_> = held.unwrap_or_default().into_iter().map(|(id, _)| id).collect();
            Op::CancelClaimed {
                build: claimed.0,
                head: held.last().copied().unwrap_or(RequestId(d.into())),
                requests: held.into_iter().take((b % 3).into()).collect(),
                at,
            }
        }
        23 => {
            let held = store.build(claimed.0).map(|build| build.requests.clone());
            let cancelled = held.unwrap_or_default().into_iter().map(|(request, _)| request);
            Op::Unclaim {
                build: claimed.0,
                cancelled: cancelled.take((c % 3).into()).collect(),
                refused: d.is_multiple_of(2),
                at,
            }
        }
        24..27 => Op::FinishBuild {
            build: running.0,
            incarnation: running.1,
            result: result(b),
            state_string: "build ended".into(),
            requests: match c % 3 {
                0 => RequestsAfter::Requeue { infra: d.is_multiple_of(2) },
                _ => RequestsAfter::Done,
            },
            at,
        },
        27 => Op::AdoptBuild { build: running.0, incarnation: Incarnation(u64::from(a % 4)) },
        28 if b.is_multiple_of(2) => Op::FenceBuild { build: running.0, incarnation: running.1 },
        28 => Op::DescribeBuild { build: running.0, state_string: format!("step {a}") },
        72.. => {
            let build = if a.is_multiple_of(4) { claimed.0 } else { running.0 };
            let build = if wish.right { build } else { BuildId(pick(20, b)) };
            Op::WantStop { build, reason: format!("enough {c}") }
        }
        _ => Op::SetProperties { build: running.0, properties: properties(a) },
    }
}

fn people(store: &MemoryStore, wish: &Wish, at: WallTime) -> Op {
    let [a, b, c, d] = wish.picks;
    let (builder, worker) = (BuilderId(pick(THERE, a)), WorkerId(pick(THERE, b)));
    let present = store.worker(worker).map_or(0, |worker| worker.row.incarnation.0);
    match wish.kind {
        48 => Op::DeclareBuilder {
            name: format!("b{}", a % 4).as_str().into(),
            description: b.is_multiple_of(2).then(|| "text".into()),
            tags: vec![format!("t{}", b % 2)],
            workers: (0..c % 3).map(|n| format!("w{n}").as_str().into()).collect(),
        },
        49 => Op::RetireBuilder { builder },
        50 => Op::DeclareWorker { name: format!("w{}", a % 4).as_str().into() },
        51 => Op::RetireWorker { worker },
        52 => Op::SaveFactory { digest: format!("d{}", a % 3), factory: factory(b) },
        53 => Op::AttachWorker {
            worker,
            info: BTreeMap::from([("host".into(), format!("h{c}"))]),
            at,
        },
        54 | 55 => Op::DetachWorker {
            worker,
            incarnation: Incarnation(if wish.right { present } else { u64::from(c % 4) }),
            at,
        },
        56 if a.is_multiple_of(2) => Op::GrantLease {
            worker,
            incarnation: Incarnation(if wish.right { present } else { u64::from(c % 4) }),
            grant: Grant {
                lease: Duration::from_secs(c.into()),
                given: BootTime {
                    boot: format!("boot {}", d % 2),
                    at: Duration::from_secs(d.into()),
                },
            },
        },
        56 => Op::SetWorker {
            worker,
            paused: (c % 3 > 0).then(|| (c % 3 == 1, (c % 2 == 1).then(|| "why".into()))),
            graceful: (d % 3 > 0).then_some(d % 3 == 1),
        },
        57 if d % 2 == 0 => {
            let incarnation = Incarnation(if wish.right { present } else { u64::from(c % 4) });
            Op::SeeWorkers { seen: vec![(worker, incarnation), (WorkerId(9_999), incarnation)], at }
        }
        57 => Op::SaveExpectations { builder, text: format!("{c}") },
        58 => {
            let expected = Prediction { learnt: c.into(), total: estimate(d) };
            Op::Predict { build: BuildId(pick(store.builds().count() as u64, a)), expected }
        }
        59 => {
            let eta = QueuedEta { start: estimate(c), end: estimate(d) };
            let requests = store.requests().take(usize::from(a % 4));
            let all = requests.map(|row| RequestPrediction { request: row.id, at, eta });
            Op::PredictRequests(all.collect())
        }
        60 => {
            let Op::Claim { claim, builder, worker, requests, factory_digest, at, .. } =
                claim(store, wish, at)
            else {
                unreachable!()
            };
            let state_string = "no worker".into();
            Op::FailBuild { claim, builder, worker, requests, factory_digest, state_string, at }
        }
        61 => Op::WishInstance { tag: tag(a), worker, at },
        62 => Op::NoteInstance { tag: tag(a), id: format!("i{c}"), at },
        63 => Op::ReleaseInstance { tag: tag(a), worker, at },
        64 => Op::RemoveInstance { tag: tag(a) },
        65 => Op::ListInstances,
        66 => {
            let name = |pick: u8| format!("s{pick}");
            Op::DeclareSchedulers(if a % 2 == 0 {
                vec![name(b % 3)]
            } else {
                vec![name(b % 3), name(b % 3 + 1)]
            })
        }
        67 => Op::SetScheduler { scheduler: u64::from(a % 5), enabled: b % 2 == 0 },
        _ => {
            let note = |text: &str| BuilderNote {
                builder,
                worker: c.is_multiple_of(2).then_some(worker),
                text: text.into(),
                error: d.is_multiple_of(2).then(|| "bad".into()),
                at,
            };
            // One builder, so that an end finds its beginning now and then.
            let of_first = |text| BuilderNote { builder: BuilderId(1), worker: None, ..note(text) };
            match a % 4 {
                0 => Op::Note(note("connect")),
                1 => Op::BeginNote(of_first("pinging")),
                _ => Op::EndNote { begun: "pinging".into(), note: of_first("ping success") },
            }
        }
    }
}

/// One of a few, so that it is there now and then.
fn tag(pick: u8) -> InstanceTag {
    format!("t{}", pick % 4).as_str().into()
}

fn estimate(pick: u8) -> Estimate {
    let likely = Duration::from_secs(pick.into());
    Estimate { low: likely / 2, likely, high: likely * 2 }
}

/// Declares the builders and workers that most operations name.
fn first() -> Transaction {
    let mut ops = vec![Op::SaveFactory { digest: "d1".into(), factory: factory(1) }];
    for n in 0..THERE {
        let worker: WorkerName = format!("w{n}").as_str().into();
        ops.push(Op::DeclareWorker { name: worker.clone() });
        ops.push(Op::AttachWorker {
            worker: WorkerId(n + 1),
            info: BTreeMap::new(),
            at: WallTime(0),
        });
        let name = format!("b{n}").as_str().into();
        let workers = vec![worker];
        ops.push(Op::DeclareBuilder { name, description: None, tags: vec![], workers });
    }
    ops.into()
}

/// The operations of a transaction, each made for what the store holds after
/// those before it, as far as they work.
fn made(store: &MemoryStore, wishes: &[Wish], second: usize) -> Transaction {
    let mut ahead = store.clone();
    let mut ops = Vec::new();
    for wish in wishes {
        let op = operation(&ahead, wish, second);
        let _ = ahead.apply(&Transaction::of(op.clone()));
        ops.push(op);
    }
    ops.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_stores_answer_alike_and_tell_the_same_changes(cases in transactions()) {
        let mut memory = MemoryStore::new();
        let mut engine = Engine::in_memory().unwrap();
        let start = first();
        prop_assert_eq!(memory.apply(&start).0, engine.apply(&start));
        engine.drain_changes();
        for (second, wishes) in cases.iter().enumerate() {
            let transaction = made(&memory, wishes, second);
            let (written, changes) = memory.apply(&transaction);
            prop_assert_eq!(&written, &engine.apply(&transaction), "{:?}", transaction);
            prop_assert_eq!(&changes, &engine.drain_changes(), "{:?}", transaction);
            for builder in 1..=4 {
                let builder = BuilderId(builder);
                prop_assert_eq!(memory.load_builder(builder), engine.load_builder(builder));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_stores_hold_the_same_rows_at_the_end(cases in transactions()) {
        let dir = tempfile::tempdir().unwrap();
        let fatal = Arc::new(|text: &str| panic!("fatal: {text}"));
        let (sqlite, events) = SqliteStore::open(dir.path(), fatal).unwrap();
        let mut told = events.listen();
        let mut memory = MemoryStore::new();
        let write = |transaction: &Transaction| {
            let (tell, told) = mpsc::channel();
            let done = Box::new(move |written| tell.send(written).unwrap());
            sqlite.write(transaction.clone(), done);
            told.recv_timeout(Duration::from_secs(30)).unwrap()
        };
        let start = first();
        prop_assert_eq!(memory.apply(&start).0, write(&start));
        for (second, wishes) in cases.iter().enumerate() {
            let transaction = made(&memory, wishes, second);
            prop_assert_eq!(memory.apply(&transaction).0, write(&transaction));
        }
        for event in memory.events() {
            let published = told.try_recv().unwrap();
            prop_assert_eq!((event.seq, &event.change), (published.seq, &published.change));
        }
        prop_assert!(told.try_recv().is_err());
        same_rows(&memory, &StateReader::open(dir.path()).unwrap())?;
        // A master that starts finds nobody attached.
        sqlite.close();
        let (sqlite, _) = SqliteStore::open(dir.path(), Arc::new(|_| {})).unwrap();
        memory.reopen();
        same_rows(&memory, &StateReader::open(dir.path()).unwrap())?;
        sqlite.close();
    }
}

/// Compares every row that can be read of both.
fn same_rows(memory: &MemoryStore, reader: &StateReader) -> Result<(), TestCaseError> {
    let builders: Vec<_> = memory.builders().map(|builder| builder.row.clone()).collect();
    prop_assert_eq!(builders, reader.builders().unwrap());
    let workers: Vec<_> = memory.workers().map(|worker| worker.row.clone()).collect();
    prop_assert_eq!(workers, reader.workers().unwrap());
    for request in memory.requests() {
        prop_assert_eq!(Some(RequestRow::clone(request)), reader.request(request.id).unwrap());
    }
    for set in memory.buildsets() {
        prop_assert_eq!(Some(BuildsetRow::clone(&set.row)), reader.buildset(set.row.id).unwrap());
    }
    for build in memory.builds() {
        let shown = build.row.number.map(|_| BuildRow::clone(&build.row));
        prop_assert_eq!(shown, reader.build(build.row.id).unwrap());
    }
    for step in memory.steps() {
        prop_assert_eq!(Some(StepRow::clone(step)), reader.step(step.id).unwrap());
    }
    for log in memory.logs() {
        let (row, inline) = reader.log(log.row.id).unwrap().unwrap();
        prop_assert_eq!((&*log.row, &log.inline), (&row, &inline));
    }
    Ok(())
}

/// A test of the test: what the wishes reach. Were they all refused, the two
/// stores would agree about nothing.
#[test]
fn the_random_transactions_reach_every_change() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (mut refused, mut done) = (0, 0);
    for _ in 0..200 {
        let cases = transactions().new_tree(&mut runner).unwrap().current();
        let mut memory = MemoryStore::new();
        memory.apply(&first()).0.unwrap();
        for (second, wishes) in cases.iter().enumerate() {
            let transaction = made(&memory, wishes, second);
            let lost = transaction.ops.iter().filter(|op| {
                let Op::FinishBuild { build, requests: RequestsAfter::Requeue { .. }, .. } = op
                else {
                    return false;
                };
                memory.build(*build).is_some_and(|build| build.stop.is_some())
            });
            let lost = lost.count();
            let (written, changes) = memory.apply(&transaction);
            match &written {
                Ok(outcomes) => {
                    done += 1;
                    let kept = outcomes.iter().filter_map(|outcome| match outcome {
                        OpOutcome::StopWanted(kept) => Some(format!("stop {kept}")),
                        _ => None,
                    });
                    kept.for_each(|kept| *seen.entry(kept).or_default() += 1);
                    *seen.entry("stopped and lost".into()).or_default() += lost;
                }
                Err(error) => {
                    refused += 1;
                    *seen.entry(word(error)).or_default() += 1;
                }
            }
            for change in &changes {
                *seen.entry(word(change)).or_default() += 1;
            }
        }
    }
    let wanted = [
        "BuildsetNew BuildsetComplete RequestNew RequestClaimed RequestUnclaimed RequestComplete",
        "RequestUpdated BuildNew BuildUpdate BuildFinished BuildProperties StepStarted",
        "StepFinished LogNew LogFinished WorkerConnected WorkerDisconnected WorkerUpdated",
        "BuilderUpdated SchedulerUpdated Note NoteEnded Fenced WorkerChanged Missing Failed",
    ];
    let wanted = wanted.iter().flat_map(|names| names.split(' '));
    for name in wanted.chain(["stop true", "stop false"]) {
        assert!(seen.get(name).is_some_and(|count| *count >= 20), "{name}: {seen:?}");
    }
    // Rare, for it takes a build that runs, is stopped and is lost.
    assert!(seen.get("stopped and lost").is_some_and(|count| *count >= 3), "{seen:?}");
    assert!(refused * 10 > done && done * 2 > refused, "{done} done, {refused} refused");
}

/// The name of a variant.
fn word(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
