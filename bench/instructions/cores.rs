//! What decides: a builder with ten workers and a hundred requests that wait,
//! and a build of one step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::build::{BuildCore, CommandEnd, Event as Told, Order};
use botmaster::core::builder::{BuilderCore, Effect, Event, Request, StepTimes};
use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::core::time::{Now, Timestamp, WallTime};
use botmaster::core::values::*;

const WORKERS: u64 = 10;
const WAITING: u64 = 100;
const SECOND: Duration = Duration::from_secs(1);

fn config() -> Arc<BuilderConfig> {
    let step = StepSpec {
        name: "test".into(),
        kind: StepKind::Run { program: Program::Argv(vec!["true".into()]) },
        workdir: None,
        env: BTreeMap::new(),
        timeout: None,
        max_time: None,
        halt_on_failure: true,
        flunk_on_failure: true,
        warn_on_failure: false,
        always_run: false,
    };
    Arc::new(BuilderConfig {
        name: "unit".into(),
        builddir: "unit".into(),
        workers: (0..WORKERS).map(worker).collect(),
        factory: Arc::new(Factory { steps: vec![step] }),
        factory_digest: "f1".into(),
        locks: Vec::new(),
        env: BTreeMap::new(),
        properties: BTreeMap::new(),
        description: None,
        tags: Vec::new(),
        start_timeout: 10 * SECOND,
        choose: ChooseWorker::Random,
        on_lost: OnLost::Requeue,
        lease: 90 * SECOND,
        grace: 150 * SECOND,
        max_time: None,
        infra_retries: 3,
        queue_limit: 1000,
        merge: Merge::None,
        max_builds: None,
    })
}

fn worker(number: u64) -> WorkerName {
    format!("worker-{number}").as_str().into()
}

fn request(id: u64) -> Request {
    Request {
        id: RequestId(id),
        buildset: BuildsetId(id),
        priority: 0,
        submitted_at: wall(id),
        epoch: Epoch(0),
        requeued: false,
        infra_tries: 0,
        losses: Arc::default(),
        source: Arc::from([id]),
        properties: Arc::default(),
        worker: None,
    }
}

fn wall(second: u64) -> WallTime {
    WallTime(i64::try_from(second).unwrap_or_default() * 1_000_000)
}

fn at(second: u64) -> Now {
    Now { mono: Timestamp(second * 1_000_000), wall: wall(second) }
}

/// A builder, and whoever answers it: at once, and always with yes.
struct Yard {
    core: BuilderCore,
    second: u64,
    running: VecDeque<ClaimId>,
    builds: u64,
}

impl Yard {
    fn hear(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut effects = Vec::new();
            self.core.handle(at(self.second), event, &mut effects);
            events.extend(effects.into_iter().filter_map(|effect| self.answer(effect)));
        }
    }

    fn answer(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::NewSeat { worker, session } => {
                Some(Event::Attached { worker, session, building: None })
            }
            Effect::AskSlot { claim, .. } => Some(Event::SlotGranted {
                claim,
                worker_id: WorkerId(1),
                incarnation: Incarnation(1),
            }),
            Effect::Claim { claim, requests, .. } => {
                self.builds += 1;
                let requests = requests.into_iter().map(|(id, epoch)| (id, Epoch(epoch.0 + 1)));
                let build = BuildId(self.builds);
                Some(Event::Claimed { claim, build, requests: requests.collect() })
            }
            Effect::StartOnSeat { order, .. } => Some(Event::StartAccepted { claim: order.claim }),
            Effect::RunBuild { claim, build, .. } => {
                self.running.push_back(claim);
                Some(Event::Started { claim, number: BuildNumber(build.0) })
            }
            _ => None,
        }
    }
}

/// One request comes, one build ends, and the next one is claimed and begins.
pub fn builder(rounds: u64) -> Result<(), String> {
    let core = BuilderCore::new(BuilderId(1), Generation(1), config(), Rng::seeded(7));
    let mut yard = Yard { core, second: 1, running: VecDeque::new(), builds: 0 };
    for number in 0..WORKERS {
        let (worker, session) = (worker(number), SessionId(number + 1));
        yard.hear(Event::Attach { worker, session });
    }
    yard.hear(Event::Enqueue((1..=WORKERS + WAITING).map(request).collect()));
    for round in 0..rounds {
        yard.second += 1;
        yard.hear(Event::Enqueue(vec![request(WORKERS + WAITING + 1 + round)]));
        let claim = yard.running.pop_front().ok_or("no build runs")?;
        let times = StepTimes { factory: "f1".into(), steps: vec![("test".into(), 4 * SECOND)] };
        let (result, requeued) = (BuildResult::Success, Vec::new());
        yard.hear(Event::Finished { claim, result, requeued, times: Some(times) });
        yard.hear(Event::MaybeStart { worker: None });
    }
    let view = yard.core.view();
    let (ended, waiting) = (yard.builds - WORKERS, view.waiting);
    (ended == rounds && waiting as u64 == WAITING)
        .then_some(())
        .ok_or_else(|| format!("{ended} of {rounds} builds ended, {waiting} wait"))
}

/// A build of one step from its beginning to its end.
pub fn build(rounds: u64) -> Result<(), String> {
    let config = config();
    let mut effects = Vec::new();
    for round in 1..=rounds {
        let build = BuildId(round);
        let mut core = BuildCore::new(Order {
            claim: ClaimId(u128::from(round)),
            build,
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            config: config.clone(),
            worker: worker(1),
            infra_tries: 0,
            losses: Vec::new(),
            kill_time: 10 * SECOND,
        });
        for event in [
            Told::Begin,
            Told::Written,
            Told::CommandEnded {
                command: CommandId::for_step(build, 0),
                end: CommandEnd::Exit(0),
                properties: Vec::new(),
            },
            Told::LogClosed,
            Told::Written,
        ] {
            effects.clear();
            core.handle(at(round), event, &mut effects);
        }
        if !core.is_over() {
            return Err(format!("the build has not ended: {effects:?}"));
        }
    }
    Ok(())
}
