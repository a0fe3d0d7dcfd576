//! One worker's place at one builder, as the builder keeps it. The SlaveBuilder
//! owns the conversation; this only says whether a build may be put there.

use std::time::Duration;

use crate::core::ids::{ClaimId, SessionId};
use crate::core::planted;
use crate::core::time::Timestamp;

/// First pause after a failed start, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Pause after a start that met a seat in use.
const SHORT_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What a seat is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeatUse {
    /// The attach is on its way; ends with its answer or the SlaveBuilder's
    /// attach timeout.
    Attaching,
    /// Nobody has it.
    Free,
    /// A build has it, from the choice on.
    Taken(ClaimId),
}

/// How soon a build can begin on a seat: the best rank is chosen first, in
/// both ways of choosing (row B12). A worker that has to be made before it can
/// build ranks after one that is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SeatRank {
    /// The worker is connected and idle.
    Idle,
    /// A latent worker whose instance has to be made first.
    Unsubstantiated,
}

/// Where a latent worker's place stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latent {
    /// There is no connection (row L01).
    Away,
    /// The attach is on its way; ends as that of every worker.
    Attaching,
    /// Attached: as every worker.
    Up,
}

/// One worker's place at one builder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seat {
    /// The connection it belongs to; a latent worker's last one.
    pub session: SessionId,
    /// What it is used for.
    pub used: SeatUse,
    /// Place in attach order.
    pub order: u64,
    /// The worker refused a slot and has not said since that it has one.
    pub worker_full: bool,
    /// A build here has just ended, and every builder is tried before this one
    /// takes the worker again (row B16).
    pub in_turn: bool,
    /// A person's ping is under way: no start joins it (row S09).
    pub pinging: bool,
    /// Where it stands, when the worker is a latent one: its place is there
    /// without a connection, too, and is never `SeatUse::Attaching`.
    pub latent: Option<Latent>,
}

impl Seat {
    /// Whether a build may be put here now, as far as the builder knows.
    #[must_use]
    pub fn is_available(&self) -> bool {
        let pinging = self.pinging && !planted::is("s09_a_start_joins_a_persons_ping");
        matches!(self.used, SeatUse::Free)
            && !self.worker_full
            && !self.in_turn
            && !pinging
            && self.latent != Some(Latent::Attaching)
    }

    /// How soon a build can begin here.
    #[must_use]
    pub fn rank(&self) -> SeatRank {
        match self.latent {
            Some(Latent::Away) => SeatRank::Unsubstantiated,
            None | Some(Latent::Attaching | Latent::Up) => SeatRank::Idle,
        }
    }

    /// The word for people.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.used {
            SeatUse::Attaching => "attaching",
            SeatUse::Taken(_) => "building",
            SeatUse::Free if self.latent == Some(Latent::Attaching) => "attaching",
            SeatUse::Free if self.pinging => "pinging",
            SeatUse::Free if self.worker_full => "busy",
            SeatUse::Free if self.latent == Some(Latent::Away) => "latent",
            SeatUse::Free => "idle",
        }
    }
}

/// A worker that failed a start is left alone for a while (rows P05, FB07).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pause {
    /// Until then.
    pub until: Timestamp,
    /// How long it was.
    length: Duration,
    /// Why, when people should know.
    pub reason: Option<String>,
}

impl Pause {
    /// A pause after something that was nobody's fault.
    #[must_use]
    pub fn short(now: Timestamp) -> Self {
        Self { until: now + SHORT_PAUSE, length: FIRST_PAUSE / 2, reason: None }
    }

    /// The pause after another failure at `now`.
    #[must_use]
    pub fn after(previous: Option<&Self>, now: Timestamp, reason: String) -> Self {
        let length = previous.map_or(FIRST_PAUSE, |pause| (pause.length * 2).min(LONGEST_PAUSE));
        Self { until: now + length, length, reason: Some(reason) }
    }
}
