//! Where a build stands at its builder, from the choice of the worker to its
//! end.

use super::Phase;
use crate::core::transitions::{Row, Word, row};

/// A build's place at its builder. The words are those that people see.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Nobody has chosen a worker for it, or it is over for this builder.
    Away,
    /// Its worker is chosen and was asked for a slot.
    Reserving,
    /// The instance of its latent worker is waited for; nothing is claimed.
    Substantiating,
    /// Its end without a worker is being written.
    Failing,
    /// The store was asked for the claim.
    Claiming,
    /// Its worker is being pinged, and told to start.
    Starting,
    /// The claim is being undone.
    Returning,
    /// Its worker has it.
    Running,
    /// It runs, and its worker is away.
    Orphaned,
}

/// All of them, in order.
pub const STAGES: &[Stage] = {
    use Stage::*;
    &[Away, Reserving, Substantiating, Failing, Claiming, Starting, Returning, Running, Orphaned]
};

impl Word for Stage {
    fn word(&self) -> &'static str {
        match self {
            Self::Away => "not there",
            Self::Reserving => "reserving",
            Self::Substantiating => "substantiating",
            Self::Failing => "failing",
            Self::Claiming => "claiming",
            Self::Starting => "starting",
            Self::Returning => "returning",
            Self::Running => "running",
            Self::Orphaned => "orphaned",
        }
    }
}

impl From<Phase> for Stage {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Reserving => Self::Reserving,
            Phase::Substantiating => Self::Substantiating,
            Phase::Failing => Self::Failing,
            Phase::Claiming { .. } => Self::Claiming,
            Phase::Starting => Self::Starting,
            Phase::Unclaiming => Self::Returning,
            Phase::Running => Self::Running,
            Phase::Orphaned => Self::Orphaned,
        }
    }
}

/// What moves a build at its builder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// A request and an available worker.
    Chosen,
    /// The worker gave a slot.
    SlotGranted,
    /// It has none.
    SlotRefused,
    /// The worker keeps one, and its instance is not there.
    SlotReserved,
    /// The instance is there for this builder.
    Substantiated,
    /// It will not be there, or nobody waits for it any more.
    NotSubstantiated,
    /// It cannot be there, whoever asks.
    NeverSubstantiated,
    /// The end without a worker is durable, or not ours to write.
    FailedBuild,
    /// The claim is durable.
    Claimed,
    /// It changed nothing.
    ClaimLost,
    /// The start came to nothing.
    StartFailed,
    /// The worker left between the start and its answer.
    StartInDoubt,
    /// The claim is undone, durably.
    Unclaimed,
    /// The worker accepted the start.
    StartAccepted,
    /// The worker is away.
    WorkerAway,
    /// The worker is back with it.
    WorkerBack,
    /// It ended, durably.
    Finished,
}

/// All of them, in order.
pub const CAUSES: &[Cause] = {
    use Cause::*;
    &[
        Chosen,
        SlotGranted,
        SlotRefused,
        SlotReserved,
        Substantiated,
        NotSubstantiated,
        NeverSubstantiated,
        FailedBuild,
        Claimed,
        ClaimLost,
        StartFailed,
        StartInDoubt,
        Unclaimed,
        StartAccepted,
        WorkerAway,
        WorkerBack,
        Finished,
    ]
};

impl Word for Cause {
    fn word(&self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::SlotGranted => "slot granted",
            Self::SlotRefused => "slot refused",
            Self::SlotReserved => "slot reserved",
            Self::Substantiated => "substantiated",
            Self::NotSubstantiated => "not substantiated",
            Self::NeverSubstantiated => "no use to try again",
            Self::FailedBuild => "end is stored",
            Self::Claimed => "claimed",
            Self::ClaimLost => "claim lost",
            Self::StartFailed => "start failed",
            Self::StartInDoubt => "start in doubt",
            Self::Unclaimed => "unclaimed",
            Self::StartAccepted => "start accepted",
            Self::WorkerAway => "worker away",
            Self::WorkerBack => "worker back",
            Self::Finished => "finished",
        }
    }
}

/// A build's transitions at its builder. A cause that has no row in a stage is
/// stale there: it is ignored.
pub const STAGE_TABLE: &[Row<Stage, Cause>] = {
    use Cause::*;
    use Stage::*;
    &[
        row(Away, Chosen, &[Reserving], "the seat is marked at once (B29)"),
        row(
            Reserving,
            SlotGranted,
            &[Claiming, Substantiating, Away],
            "a latent worker may not be attached here; over when all was cancelled meanwhile",
        ),
        row(Reserving, SlotRefused, &[Away], "the requests stay where they were (B29)"),
        row(
            Reserving,
            SlotReserved,
            &[Substantiating, Reserving, Away],
            "asked again when it came meanwhile; over when all was cancelled (B14)",
        ),
        row(Substantiating, Substantiated, &[Reserving], "asks for its slot again (B14)"),
        row(Substantiating, NotSubstantiated, &[Away], "the requests stay where they were (B14)"),
        row(Substantiating, NeverSubstantiated, &[Failing], "people see it as a build (FX01)"),
        row(Failing, FailedBuild, &[Away], "its requests are done"),
        row(
            Claiming,
            Claimed,
            &[Starting, Returning],
            "undone if it was cancelled meanwhile (B07)",
        ),
        row(Claiming, ClaimLost, &[Away], "the requests wait again, or are somebody else's"),
        row(Starting, StartFailed, &[Returning], "no ping, no start, or called back (B08)"),
        row(Starting, StartInDoubt, &[Orphaned], "the worker may have it (FB03)"),
        row(Starting, StartAccepted, &[Running], "the number follows (B15)"),
        row(Returning, Unclaimed, &[Away], "the requests are at the head of the queue (B08)"),
        row(Running, WorkerAway, &[Orphaned], "the grace begins (B25)"),
        row(Running, WorkerBack, &[Running], "told twice"),
        row(Running, Finished, &[Away], "told to its requests; the worker is free (B16)"),
        row(Orphaned, WorkerAway, &[Orphaned], "told twice"),
        row(Orphaned, WorkerBack, &[Running], "the very same build (FR01)"),
        row(
            Orphaned,
            Finished,
            &[Away],
            "after the grace, stopped, or given back by a worker that has it not (B25, FB03)",
        ),
    ]
};
