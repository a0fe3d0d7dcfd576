//! What others may know of a worker.

use super::{Link, TurnedAway, WorkerCore};
use crate::core::ids::*;
use crate::core::time::Timestamp;
use crate::core::values::WorkerConfig;

impl WorkerCore {
    /// The connection in charge.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.link {
            Link::Away => None,
            Link::Numbering { session }
            | Link::Inventory { session, .. }
            | Link::Up { session, .. } => Some(session),
        }
    }

    /// Its number, once it has one.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        match self.link {
            Link::Away | Link::Numbering { .. } => None,
            Link::Inventory { incarnation, .. } | Link::Up { incarnation, .. } => Some(incarnation),
        }
    }

    /// Whether it is attached.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// Whether this build is one of its own.
    #[must_use]
    pub fn has_build(&self, build: BuildId) -> bool {
        self.builds.contains_key(&build)
    }

    /// Whether the worker was told to abandon this build and has not confirmed.
    #[must_use]
    pub fn is_abandoning(&self, build: BuildId) -> bool {
        self.abandoning.contains_key(&build)
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &WorkerConfig {
        &self.config
    }

    /// Whether this build has a slot.
    #[must_use]
    pub fn has_slot(&self, claim: ClaimId) -> bool {
        self.slots.contains_key(&claim)
    }

    /// Slots in use, and how many there are.
    #[must_use]
    pub fn slots(&self) -> (u32, u32) {
        (u32::try_from(self.used()).unwrap_or(u32::MAX), self.config.max_builds)
    }

    /// Why and until when it is turned away, when it is.
    #[must_use]
    pub fn turned_away(&self, now: Timestamp) -> Option<&TurnedAway> {
        self.welcome.turned_away(now)
    }

    /// Paused, and leaving.
    #[must_use]
    pub fn standing(&self) -> (bool, bool) {
        (self.paused, self.leaving)
    }
}
