//! What a seed draws: how large the world is, how slow, and what goes wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::BuilderName;
use botmaster::core::rng::Rng;
use botmaster::core::values::*;
use botmaster::settings::*;

/// Draws.
pub struct Dice(Rng);

impl Dice {
    pub fn seeded(seed: u64) -> Self {
        Self(Rng::seeded(seed))
    }

    /// At least `low`, below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        low + self.0.index(span) as u64
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.between(0, 100) < chance
    }

    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    pub fn one_of<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        things.get(self.0.index(things.len()))
    }

    pub fn seed(&mut self) -> u64 {
        u64::try_from(self.0.bits() >> 64).unwrap_or_default()
    }
}

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// Nothing passes between two hosts, and what was on its way is lost.
    Partition,
    /// Nothing passes in one direction.
    OneWay,
    /// Everything between two hosts waits, then comes at once.
    Hold,
    /// The master's process ends without a word.
    MasterCrash,
    /// The same while nobody can hear its sockets close.
    MasterVanishes,
    /// A worker's machine ends, with all it ran.
    WorkerCrash,
    /// The same while nobody can hear its sockets close.
    WorkerVanishes,
    /// The store answers that it cannot be written.
    Outage,
    /// Another machine attaches under the same name.
    Twin,
    /// The configuration changes.
    Reload,
    /// A worker is paused for a while.
    Pause,
    /// A worker is told to leave, and started again.
    Leave,
    /// Somebody cancels, stops or pings.
    People,
    /// The master's process ends while an instance comes or goes.
    CrashInBetween,
    /// A latent worker gets other settings.
    OtherTerms,
}

impl Fault {
    pub const ALL: [Self; 13] = [
        Self::Partition,
        Self::OneWay,
        Self::Hold,
        Self::MasterCrash,
        Self::MasterVanishes,
        Self::WorkerCrash,
        Self::WorkerVanishes,
        Self::Outage,
        Self::Twin,
        Self::Reload,
        Self::Pause,
        Self::Leave,
        Self::People,
    ];

    /// Those that only worlds with latent workers have.
    const LATENT: [Self; 2] = [Self::CrashInBetween, Self::OtherTerms];

    /// Whether a worker may live on while the master takes it for gone.
    fn hides_machines(self) -> bool {
        match self {
            Self::Partition
            | Self::OneWay
            | Self::Hold
            | Self::MasterCrash
            | Self::MasterVanishes
            | Self::CrashInBetween => true,
            Self::WorkerCrash
            | Self::WorkerVanishes
            | Self::Outage
            | Self::Twin
            | Self::Reload
            | Self::Pause
            | Self::Leave
            | Self::People
            | Self::OtherTerms => false,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::OneWay => "one_way_partition",
            Self::Hold => "hold",
            Self::MasterCrash => "master_crash",
            Self::MasterVanishes => "master_vanishes",
            Self::WorkerCrash => "worker_crash",
            Self::WorkerVanishes => "worker_vanishes",
            Self::Outage => "store_outage",
            Self::Twin => "duplicate_attach",
            Self::Reload => "reload",
            Self::Pause => "pause",
            Self::Leave => "leave",
            Self::People => "people",
            Self::CrashInBetween => "crash_in_between",
            Self::OtherTerms => "other_terms",
        }
    }
}

/// Everything drawn before the world begins.
pub struct Plan {
    pub settings: Settings,
    pub tokens: BTreeMap<String, String>,
    pub faults: Vec<Fault>,
    /// How long faults go on.
    pub trouble: Duration,
    /// Longest time that a message is on its way.
    pub latency: Duration,
    /// Longest time that a commit takes.
    pub commit: Duration,
    /// Longest command.
    pub command: Duration,
    /// Most requests.
    pub requests: u64,
}

/// The master's timers: short, so that a world sees many of their ends.
pub const TIMERS: Timers = Timers {
    heartbeat: Duration::from_secs(2),
    idle_heartbeat: Duration::from_secs(6),
    lease: Duration::from_secs(12),
    kill_time: Duration::from_secs(2),
    grace: Duration::from_secs(20),
    stop_lease: Duration::from_secs(60),
    attach_timeout: Duration::from_secs(5),
    ping_timeout: Duration::from_secs(5),
    handshake: Duration::from_secs(5),
    worker_again: Duration::from_secs(5),
};

impl Plan {
    /// Draws it. The token files of its workers are written to the folder.
    pub fn draw(dice: &mut Dice, folder: &Path, latent: bool) -> Self {
        let mut workers: Vec<WorkerSettings> =
            (0..dice.between(2, 5)).map(|n| worker(&format!("w{n}"), dice)).collect();
        if latent {
            let ordinary = dice.between(0, workers.len() as u64);
            for worker in workers.iter_mut().skip(usize::try_from(ordinary).unwrap_or(0)) {
                worker.config.latent = Some(terms(dice));
            }
        }
        let builders = (0..dice.between(1, 4))
            .map(|n| Arc::new(builder(&format!("b{n}"), &workers, dice)))
            .collect();
        let mut tokens = BTreeMap::new();
        for worker in &workers {
            let name = worker.config.name.as_str();
            let token = write_new_token_file(&folder.join(&worker.token_file), name).unwrap();
            tokens.insert(name.to_owned(), token.reveal().to_owned());
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings {
            file: PathBuf::from("simulated.toml"),
            master: MasterSettings {
                title: "simulated".into(),
                data_dir: folder.into(),
                http: nowhere,
                listen: nowhere,
                allowed_origins: Vec::new(),
                insecure: false,
                ui_dir: None,
                drain: Duration::ZERO,
            },
            timers: TIMERS,
            limits: Limits::default(),
            store: StoreSettings::default(),
            workers,
            builders,
            up: UpSettings::default(),
            forms: Vec::new(),
            retention: Default::default(),
        };
        let mut faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| dice.percent(45)).collect();
        if latent {
            faults.extend(Fault::LATENT.into_iter().filter(|_| dice.percent(60)));
        }
        if faults.contains(&Fault::Twin) {
            // A master that cannot hear whether the first machine is gone, or
            // has forgotten it, cannot tell the second one from its restart.
            faults.retain(|fault| !fault.hides_machines());
        }
        if faults.is_empty() {
            faults.push(Fault::People);
        }
        Self {
            settings,
            tokens,
            faults,
            trouble: dice.millis(40_000, 120_000),
            latency: dice.millis(2, 200),
            commit: dice.millis(2, 120),
            command: if dice.percent(25) {
                dice.millis(15_000, 60_000)
            } else {
                dice.millis(300, 12_000)
            },
            requests: dice.between(5, 40),
        }
    }
}

fn worker(name: &str, dice: &mut Dice) -> WorkerSettings {
    let max_builds = u32::try_from(dice.between(1, 4)).unwrap_or(1);
    WorkerSettings {
        config: WorkerConfig { name: name.into(), max_builds, latent: None },
        token_file: format!("{name}.token").into(),
    }
}

/// What a latent worker is told to be.
pub fn terms(dice: &mut Dice) -> LatentConfig {
    let idle = if dice.percent(15) { Duration::ZERO } else { dice.millis(300, 8_000) };
    let env = [("ROUND".to_owned(), dice.between(0, 3).to_string())].into();
    LatentConfig {
        provider: Provider::Process(ProcessOptions {
            dir: "work".into(),
            token_file: "token".into(),
            env,
        }),
        substantiate_timeout: dice.millis(5_000, 15_000),
        idle_timeout: idle,
    }
}

/// Some of the workers, at least one.
pub fn some_of(
    workers: &[WorkerSettings],
    dice: &mut Dice,
) -> Vec<botmaster::core::ids::WorkerName> {
    let names = workers.iter().map(|worker| worker.config.name.clone());
    let mut some: Vec<_> = names.filter(|_| dice.percent(65)).collect();
    if some.is_empty() {
        some.extend(dice.one_of(workers).map(|worker| worker.config.name.clone()));
    }
    some
}

fn builder(name: &str, workers: &[WorkerSettings], dice: &mut Dice) -> BuilderConfig {
    let steps = (0..dice.between(1, 4)).map(|place| step(&format!("step {place}"))).collect();
    let factory = Factory { steps };
    BuilderConfig {
        name: BuilderName::from(name),
        builddir: name.into(),
        workers: some_of(workers, dice),
        factory_digest: factory_digest(&factory).unwrap(),
        factory: Arc::new(factory),
        locks: Vec::new(),
        env: BTreeMap::new(),
        properties: BTreeMap::new(),
        description: None,
        tags: Vec::new(),
        start_timeout: Duration::from_secs(4),
        choose: if dice.percent(50) { ChooseWorker::First } else { ChooseWorker::Random },
        on_lost: OnLost::Requeue,
        lease: TIMERS.lease,
        grace: TIMERS.grace,
        max_time: None,
        infra_retries: 1000,
        queue_limit: 10_000,
        merge: if dice.percent(30) { Merge::SameSource } else { Merge::None },
        max_builds: dice.percent(30).then_some(2),
    }
}

fn step(name: &str) -> StepSpec {
    StepSpec {
        name: name.into(),
        kind: StepKind::Run { program: Program::Shell("true".into()) },
        workdir: None,
        env: BTreeMap::new(),
        timeout: None,
        max_time: None,
        halt_on_failure: true,
        flunk_on_failure: true,
        warn_on_failure: false,
        always_run: false,
    }
}
