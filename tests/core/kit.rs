//! A builder at hand, with the world around it played by the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::builder::{
    BuilderCore, Effect, Event, ReplyId, Request, StepTimes, StopSaved,
};
use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::rng::Rng;
use botmaster::core::time::{Now, Timestamp, WallTime};
use botmaster::core::values::*;
use botmaster::core::views::Away;

pub const SECOND: Duration = Duration::from_secs(1);

pub fn run_step(name: &str) -> StepSpec {
    StepSpec {
        name: name.into(),
        kind: StepKind::Run { program: Program::Argv(vec!["true".into()]) },
        workdir: None,
        env: BTreeMap::new(),
        timeout: None,
        max_time: None,
        halt_on_failure: false,
        flunk_on_failure: true,
        warn_on_failure: false,
        always_run: false,
    }
}

pub fn config(workers: &[&str]) -> BuilderConfig {
    BuilderConfig {
        name: "unit".into(),
        builddir: "unit".into(),
        workers: workers.iter().map(|name| WorkerName::from(*name)).collect(),
        factory: Arc::new(Factory { steps: vec![run_step("test")] }),
        factory_digest: "f1".into(),
        locks: Vec::new(),
        env: BTreeMap::new(),
        properties: BTreeMap::new(),
        description: None,
        tags: Vec::new(),
        start_timeout: 10 * SECOND,
        choose: ChooseWorker::First,
        on_lost: OnLost::Requeue,
        lease: 90 * SECOND,
        grace: 150 * SECOND,
        max_time: None,
        infra_retries: 3,
        queue_limit: 1000,
        merge: Merge::None,
        max_builds: None,
    }
}

/// A worker that went away at the beginning.
pub fn away() -> Away {
    Away { since: WallTime(0), until: Some(WallTime(150_000_000)) }
}

pub fn request(id: u64) -> Request {
    Request {
        id: RequestId(id),
        buildset: BuildsetId(id),
        priority: 0,
        submitted_at: WallTime(i64::try_from(id).unwrap() * 1_000_000),
        epoch: Epoch(0),
        requeued: false,
        infra_tries: 0,
        losses: Arc::default(),
        source: Arc::from([1]),
        properties: Arc::default(),
        worker: None,
    }
}

/// A request for a source of its own.
pub fn of_source(id: u64, source: u64) -> Request {
    Request { source: Arc::from([source]), ..request(id) }
}

/// A request that only this worker may run.
pub fn named(id: u64, worker: &str) -> Request {
    Request { worker: Some(worker.into()), ..request(id) }
}

/// A request whose submission has these properties.
pub fn with_properties(id: u64, properties: &[(&str, &str)]) -> Request {
    let property = |value: &str| Property { value: value.into(), source: "Force".into() };
    let properties = properties.iter().map(|(name, value)| ((*name).into(), property(value)));
    Request { properties: Arc::new(properties.collect()), ..request(id) }
}

/// A builder, and what it wanted done since the test looked last.
pub struct Desk {
    pub core: BuilderCore,
    pub now: Now,
    pub effects: Vec<Effect>,
    next_build: u64,
}

impl Desk {
    pub fn new(config: BuilderConfig) -> Self {
        let core = BuilderCore::new(BuilderId(1), Generation(1), Arc::new(config), Rng::seeded(7));
        let now = Now { mono: Timestamp(1_000_000), wall: WallTime(0) };
        Self { core, now, effects: Vec::new(), next_build: 100 }
    }

    pub fn with(core: BuilderCore) -> Self {
        let now = Now { mono: Timestamp(1_000_000), wall: WallTime(0) };
        Self { core, now, effects: Vec::new(), next_build: 500 }
    }

    pub fn pass(&mut self, span: Duration) {
        self.now.mono = self.now.mono + span;
    }

    pub fn hear(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(self.now, event, &mut effects);
        self.effects.extend(effects.clone());
        effects
    }

    /// A worker attaches and is usable.
    pub fn attach(&mut self, worker: &str, session: u64) -> Vec<Effect> {
        let (worker, session) = (WorkerName::from(worker), SessionId(session));
        let mut all = self.hear(Event::Attach { worker: worker.clone(), session });
        all.extend(self.hear(Event::Attached { worker, session, building: None }));
        all
    }

    pub fn enqueue(&mut self, requests: Vec<Request>) -> Vec<Effect> {
        self.hear(Event::Enqueue(requests))
    }

    pub fn cancel(&mut self, id: u64) -> Vec<Effect> {
        self.hear(Event::Cancel { request: RequestId(id), reason: "no".into(), reply: ReplyId(id) })
    }

    /// The requests of each build, in order, the builds by their first ones.
    pub fn built(&self) -> Vec<Vec<u64>> {
        let ids = |ids: &[RequestId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let view = self.core.view();
        let mut all: Vec<_> = view.builds.iter().map(|build| ids(&build.requests)).collect();
        all.sort();
        all
    }

    pub fn submit(&mut self, ids: &[u64]) -> Vec<Effect> {
        self.hear(Event::Enqueue(ids.iter().map(|id| request(*id)).collect()))
    }

    pub fn pending(&self) -> Vec<u64> {
        self.core.pending().map(|request| request.id.0).collect()
    }

    pub fn states(&self) -> Vec<&'static str> {
        self.core.view().builds.iter().map(|build| build.state).collect()
    }

    pub fn grant(&mut self, claim: ClaimId) -> Vec<Effect> {
        self.hear(Event::SlotGranted { claim, worker_id: WorkerId(1), incarnation: Incarnation(1) })
    }

    /// The store claims what it was asked to; answers the build.
    pub fn claim(&mut self, claim: ClaimId, ids: &[u64]) -> (BuildId, Vec<Effect>) {
        let build = BuildId(self.next_build);
        self.next_build += 1;
        let requests = ids.iter().map(|id| (RequestId(*id), Epoch(1))).collect();
        (build, self.hear(Event::Claimed { claim, build, requests }))
    }

    /// From the slot to the worker's acceptance and the number.
    pub fn start(&mut self, claim: ClaimId, ids: &[u64], number: u64) -> BuildId {
        self.grant(claim);
        let (build, _) = self.claim(claim, ids);
        self.hear(Event::StartAccepted { claim });
        self.hear(Event::Started { claim, number: BuildNumber(number) });
        build
    }

    /// Somebody wants the build stopped.
    pub fn stop(&mut self, build: BuildId, reply: u64) -> Vec<Effect> {
        self.hear(Event::Stop { build, reason: "enough".into(), reply: ReplyId(reply) })
    }

    /// The store answers that it keeps the stop, or why not.
    pub fn stop_saved(&mut self, claim: ClaimId, saved: StopSaved) -> Vec<Effect> {
        self.hear(Event::StopSaved { claim, reason: "enough".into(), saved })
    }

    pub fn finish(&mut self, claim: ClaimId) -> Vec<Effect> {
        self.finish_as(claim, BuildResult::Success, Some(times(&[("test", 4)])))
    }

    /// The build ends, and its worker lets every builder try, this one too.
    pub fn finish_as(
        &mut self,
        claim: ClaimId,
        result: BuildResult,
        times: Option<StepTimes>,
    ) -> Vec<Effect> {
        let mut all = self.hear(Event::Finished { claim, result, requeued: Vec::new(), times });
        all.extend(self.hear(Event::MaybeStart { worker: None }));
        all
    }
}

/// Runs a story with a fault planted: it must be met, and the story must fail.
pub fn bites(fault: &'static str, story: fn()) {
    let planted = planted::plant(fault);
    let failed = std::panic::catch_unwind(story).is_err();
    assert!(planted.met() > 0, "{fault} was never met");
    assert!(failed, "the story does not see {fault}");
}

/// What the steps of a build of the usual factory took, in seconds.
pub fn times(steps: &[(&str, u32)]) -> StepTimes {
    let steps = steps.iter().map(|(name, seconds)| ((*name).into(), *seconds * SECOND)).collect();
    StepTimes { factory: "f1".into(), steps }
}

/// What the next build will likely take.
pub fn expected(desk: &Desk) -> Option<Duration> {
    desk.core.view().expected.map(|expected| expected.likely)
}

/// Which workers were asked for a slot, for which claim.
pub fn asked(effects: &[Effect]) -> Vec<(String, ClaimId)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::AskSlot { worker, claim } => Some((worker.to_string(), *claim)),
            _ => None,
        })
        .collect()
}

pub fn notes(effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Note { text, .. } => Some(text.clone()),
            _ => None,
        })
        .collect()
}

pub fn answers(effects: &[Effect]) -> Vec<(ReplyId, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Answer(id, botmaster::core::builder::Answer::Done(done)) => Some((*id, *done)),
            _ => None,
        })
        .collect()
}
