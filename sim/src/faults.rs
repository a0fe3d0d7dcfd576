//! Which faults a seed has, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use botmaster::core::rng::Rng;

use crate::setup::{between, chance};

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// A connection is reset.
    ConnectionCut,
    /// Nothing gets through either way for a while.
    HalfOpen,
    /// Nothing gets to the master for a while.
    OneWayUp,
    /// Nothing gets to the worker for a while.
    OneWayDown,
    /// Everything takes longer for a while.
    SlowNetwork,
    /// A worker program and its processes are killed.
    ProgramAndProcessesKilled,
    /// A worker program is killed; its processes go on until it is there again.
    ProgramKilled,
    /// A worker's machine loses its power: nobody is told.
    MachinePower,
    /// A worker program is stopped for longer than its lease.
    Frozen,
    /// A worker program answers late.
    SlowWorker,
    /// A worker cannot make folders.
    WorkerDiskFull,
    /// Commands that never end and do not listen.
    StuckCommands,
    /// A second machine comes under a worker's name.
    DuplicateAttach,
    /// A worker speaks of a build that is another's.
    RogueFrame,
    /// The store is slow.
    StoreSlow,
    /// The store cannot be written.
    StoreFull,
    /// The store does not answer for a while.
    StoreStall,
    /// The log store cannot be written.
    LogsFull,
    /// The master process is killed.
    MasterKilled,
    /// The master's machine loses its power.
    MasterPower,
    /// The master is killed before a commit.
    KilledBeforeCommit,
    /// The master is killed after a commit, before anybody hears of it.
    KilledAfterCommit,
    /// The master is told to stop, and starts again.
    MasterStopped,
    /// An actor panics.
    ActorPanic,
    /// The wall clock jumps.
    WallJump,
    /// A builder's settings change.
    BuilderChanged,
    /// A builder is removed, or comes back.
    BuilderRemoved,
    /// A worker's settings change.
    WorkerChanged,
    /// A worker is removed, or comes back.
    WorkerRemoved,
    /// A person drains or shuts down a worker.
    WorkerDrained,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::ConnectionCut,
        Self::HalfOpen,
        Self::OneWayUp,
        Self::OneWayDown,
        Self::SlowNetwork,
        Self::ProgramAndProcessesKilled,
        Self::ProgramKilled,
        Self::MachinePower,
        Self::Frozen,
        Self::SlowWorker,
        Self::WorkerDiskFull,
        Self::StuckCommands,
        Self::DuplicateAttach,
        Self::RogueFrame,
        Self::StoreSlow,
        Self::StoreFull,
        Self::StoreStall,
        Self::LogsFull,
        Self::MasterKilled,
        Self::MasterPower,
        Self::KilledBeforeCommit,
        Self::KilledAfterCommit,
        Self::MasterStopped,
        Self::ActorPanic,
        Self::WallJump,
        Self::BuilderChanged,
        Self::BuilderRemoved,
        Self::WorkerChanged,
        Self::WorkerRemoved,
        Self::WorkerDrained,
    ];

    /// Its word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::ConnectionCut => "connection_cut",
            Self::HalfOpen => "half_open",
            Self::OneWayUp => "one_way_to_master_lost",
            Self::OneWayDown => "one_way_to_worker_lost",
            Self::SlowNetwork => "slow_network",
            Self::ProgramAndProcessesKilled => "worker_killed_with_processes",
            Self::ProgramKilled => "worker_killed_alone",
            Self::MachinePower => "worker_power_lost",
            Self::Frozen => "worker_frozen",
            Self::SlowWorker => "worker_slow",
            Self::WorkerDiskFull => "worker_disk_full",
            Self::StuckCommands => "stuck_commands",
            Self::DuplicateAttach => "two_workers_of_one_name",
            Self::RogueFrame => "rogue_frame",
            Self::StoreSlow => "store_slow",
            Self::StoreFull => "store_full",
            Self::StoreStall => "store_stalled",
            Self::LogsFull => "logs_full",
            Self::MasterKilled => "master_killed",
            Self::MasterPower => "master_power_lost",
            Self::KilledBeforeCommit => "master_killed_before_commit",
            Self::KilledAfterCommit => "master_killed_after_commit",
            Self::MasterStopped => "master_stopped",
            Self::ActorPanic => "actor_panic",
            Self::WallJump => "wall_clock_jump",
            Self::BuilderChanged => "builder_changed",
            Self::BuilderRemoved => "builder_removed",
            Self::WorkerChanged => "worker_changed",
            Self::WorkerRemoved => "worker_removed",
            Self::WorkerDrained => "worker_drained",
        }
    }

    /// How often it comes when it is on, against the others.
    fn mean(self) -> Duration {
        Duration::from_secs(match self {
            Self::ActorPanic => 30,
            Self::MasterKilled | Self::MasterPower | Self::MasterStopped => 120,
            Self::KilledBeforeCommit | Self::KilledAfterCommit => 120,
            Self::StoreFull | Self::StoreStall | Self::StoreSlow | Self::LogsFull => 90,
            Self::BuilderChanged | Self::RogueFrame => 20,
            _ => 40,
        })
    }

    /// Whether it strikes one worker and nobody else.
    pub fn is_local(self) -> bool {
        matches!(
            self,
            Self::ConnectionCut
                | Self::HalfOpen
                | Self::OneWayUp
                | Self::OneWayDown
                | Self::ProgramAndProcessesKilled
                | Self::ProgramKilled
                | Self::MachinePower
                | Self::Frozen
                | Self::SlowWorker
                | Self::WorkerDiskFull
                | Self::StuckCommands
                | Self::DuplicateAttach
                | Self::RogueFrame
        )
    }
}

/// A seed's faults.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How far apart each kind is, on average; those that are off are not here.
    pub means: BTreeMap<Fault, Duration>,
    /// How long there are faults.
    pub lasts: Duration,
    /// The only worker that has any: then the others must not notice.
    pub victim: bool,
}

impl Plan {
    /// What this seed has.
    pub fn draw(rng: &mut Rng) -> Self {
        let lasts = Duration::from_secs(between(rng, 60, 400));
        let victim = chance(rng, 80);
        let share = if victim { 600 } else { [150, 300, 500][rng.index(3)] };
        let hurry = [1, 2, 4][rng.index(3)];
        let means = Fault::ALL
            .into_iter()
            .filter(|fault| chance(rng, share) && (!victim || fault.is_local()))
            .map(|fault| (fault, fault.mean() * hurry / 2))
            .collect();
        Self { means, lasts, victim }
    }

    /// When the next fault of a kind comes, from now.
    pub fn gap(&self, rng: &mut Rng, fault: Fault) -> Option<Duration> {
        let mean = u64::try_from(self.means.get(&fault)?.as_millis()).unwrap_or(u64::MAX);
        Some(Duration::from_millis(between(rng, mean / 10, mean * 19 / 10)))
    }
}
