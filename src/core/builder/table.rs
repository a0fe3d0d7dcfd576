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
    &[Away, Reserving, Claiming, Starting, Returning, Running, Orphaned]
};

impl Word for Stage {
    fn word(&self) -> &'static str {
        match self {
            Self::Away => "not there",
            Self::Reserving => "reserving",
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
    /// The claim is durable.
    Claimed,
    /// It changed nothing.
    ClaimLost,
    /// The start came to nothing.
    StartFailed,
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
        Claimed,
        ClaimLost,
        StartFailed,
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
            Self::Claimed => "claimed",
            Self::ClaimLost => "claim lost",
            Self::StartFailed => "start failed",
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
        row(Reserving, SlotGranted, &[Claiming, Away], "over when all was cancelled meanwhile"),
        row(Reserving, SlotRefused, &[Away], "the requests stay where they were (B29)"),
        row(
            Claiming,
            Claimed,
            &[Starting, Returning],
            "undone if it was cancelled meanwhile (B07)",
        ),
        row(Claiming, ClaimLost, &[Away], "the requests wait again, or are somebody else's"),
        row(Starting, StartFailed, &[Returning], "no ping, no start, or called back (B08)"),
        row(Starting, StartAccepted, &[Running], "the number follows (B15)"),
        row(Returning, Unclaimed, &[Away], "the requests are at the head of the queue (B08)"),
        row(Running, WorkerAway, &[Orphaned], "the grace begins (B25)"),
        row(Running, WorkerBack, &[Running], "told twice"),
        row(Running, Finished, &[Away], "told to its requests; the worker is free (B16)"),
        row(Orphaned, WorkerAway, &[Orphaned], "told twice"),
        row(Orphaned, WorkerBack, &[Running], "the very same build (FR01)"),
        row(Orphaned, Finished, &[Away], "after the grace, or stopped (B25)"),
    ]
};
