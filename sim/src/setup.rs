//! What a simulated master is configured with, and how small its timers are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::core::values::*;

/// Builders and workers of a configuration.
#[derive(Clone, Debug)]
pub struct Setup {
    /// In order.
    pub builders: Vec<Arc<BuilderConfig>>,
    /// In order.
    pub workers: Vec<WorkerConfig>,
}

/// Timers of a master, as `settings::Timers`.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Between signs of life.
    pub heartbeat: Duration,
    /// Between those of a worker without builds.
    pub idle_heartbeat: Duration,
    /// How long a build may go on unconfirmed.
    pub lease: Duration,
    /// Between TERM and KILL.
    pub kill_time: Duration,
    /// How long a worker may be away.
    pub grace: Duration,
    /// How long a worker goes on after a planned stop.
    pub stop_lease: Duration,
    /// How long an attach may take.
    pub attach_timeout: Duration,
    /// A person's ping.
    pub ping_timeout: Duration,
    /// From a connection to its inventory.
    pub handshake: Duration,
}

/// A number between two, both included.
pub fn between(rng: &mut Rng, low: u64, high: u64) -> u64 {
    let span = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX - 1);
    low + rng.index(span + 1) as u64
}

/// True in `of` of 1,000 cases.
pub fn chance(rng: &mut Rng, of: u64) -> bool {
    of > 0 && (rng.index(1000) as u64) < of
}

/// One of these.
pub fn one_of<T: Clone>(rng: &mut Rng, things: &[T]) -> T {
    things[rng.index(things.len())].clone()
}

/// Milliseconds between two.
pub fn ms(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(between(rng, low, high))
}

impl Timers {
    /// As small as this seed wants them. The rules of the configuration hold.
    pub fn draw(rng: &mut Rng) -> Self {
        let second = Duration::from_secs(1);
        let heartbeat = second * one_of(rng, &[1, 2, 5, 10]);
        let idle = one_of(rng, &[1, 3, 6]);
        let lease = heartbeat * 3 + second * one_of(rng, &[0, 1, 10, 60]);
        let kill_time = second * one_of(rng, &[1, 2, 10]);
        let least = lease + kill_time + lease / 10;
        Self {
            heartbeat,
            idle_heartbeat: heartbeat * idle,
            lease,
            kill_time,
            grace: least + second * one_of(rng, &[0, 1, 10, 40]),
            // Not drawn: what is drawn after it would be something else.
            stop_lease: match kill_time.as_secs() {
                1 => lease * 2,
                2 => lease + 60 * second,
                _ => Duration::ZERO,
            },
            attach_timeout: second * one_of(rng, &[1, 5, 30]),
            ping_timeout: second * one_of(rng, &[1, 5, 30]),
            handshake: second * one_of(rng, &[2, 10]),
        }
    }
}

impl Setup {
    /// A world of this seed's.
    pub fn draw(rng: &mut Rng, timers: &Timers) -> Self {
        let workers: Vec<WorkerConfig> = (0..between(rng, 1, 5))
            .map(|number| WorkerConfig {
                name: format!("w{number}").into(),
                max_builds: u32::try_from(one_of(rng, &[1, 1, 1, 2, 3])).unwrap_or(1),
                latent: None,
            })
            .collect();
        let names: Vec<WorkerName> = workers.iter().map(|worker| worker.name.clone()).collect();
        let builders = (0..between(rng, 1, 4))
            .map(|number| Arc::new(draw_builder(rng, &format!("b{number}"), &names, timers)))
            .collect();
        Self { builders, workers }
    }

    /// The builder of this name.
    pub fn builder(&self, name: &BuilderName) -> Option<&Arc<BuilderConfig>> {
        self.builders.iter().find(|builder| builder.name == *name)
    }
}

/// Some of these, at least one.
pub fn some_of(rng: &mut Rng, names: &[WorkerName]) -> Vec<WorkerName> {
    let mut list: Vec<_> = names.iter().filter(|_| chance(rng, 650)).cloned().collect();
    if list.is_empty() && !names.is_empty() {
        list.push(one_of(rng, names));
    }
    list
}

/// A builder of these workers.
pub fn draw_builder(
    rng: &mut Rng,
    name: &str,
    workers: &[WorkerName],
    timers: &Timers,
) -> BuilderConfig {
    let factory = draw_factory(rng);
    // Some have a lease of their own; not drawn, as the lease of a stop.
    let longer = if factory.steps.len() == 3 { 40 } else { 0 };
    let lease = timers.lease + Duration::from_secs(longer);
    BuilderConfig {
        name: name.into(),
        builddir: name.into(),
        workers: some_of(rng, workers),
        factory_digest: digest(&factory),
        factory: Arc::new(factory),
        locks: Vec::new(),
        env: BTreeMap::new(),
        properties: BTreeMap::new(),
        description: None,
        tags: Vec::new(),
        start_timeout: Duration::from_secs(one_of(rng, &[1, 3, 10])),
        choose: one_of(rng, &[ChooseWorker::Random, ChooseWorker::Random, ChooseWorker::First]),
        on_lost: one_of(
            rng,
            &[OnLost::Requeue, OnLost::Requeue, OnLost::Requeue, OnLost::Fail, OnLost::Wait],
        ),
        lease,
        grace: timers.grace + (lease - timers.lease) * 11 / 10,
        max_time: None,
        infra_retries: one_of(rng, &[3, 3, 10, 1]),
        queue_limit: one_of(rng, &[4, 20, 1000]),
        merge: one_of(rng, &[Merge::None, Merge::SameSource]),
        max_builds: one_of(rng, &[None, None, Some(1), Some(2)]),
    }
}

/// One to three steps.
pub fn draw_factory(rng: &mut Rng) -> Factory {
    let steps = (0..between(rng, 1, 3))
        .map(|number| StepSpec {
            name: format!("step{number}"),
            kind: StepKind::Run {
                program: Program::Argv(vec!["build".into(), number.to_string()]),
            },
            workdir: None,
            env: BTreeMap::new(),
            timeout: None,
            max_time: None,
            halt_on_failure: chance(rng, 300),
            flunk_on_failure: chance(rng, 800),
            warn_on_failure: chance(rng, 300),
            always_run: chance(rng, 150),
        })
        .collect();
    Factory { steps }
}

/// Names a factory in the store.
pub fn digest(factory: &Factory) -> String {
    serde_json::to_string(factory).unwrap()
}
