//! The longer lease that a planned stop of the master gives a worker with
//! builds (fault row FM03).

use super::{Link, WorkerCore};
use crate::core::ids::{Incarnation, SessionId};

impl WorkerCore {
    /// The connection and the incarnation that a longer lease is for; none when
    /// there is nothing that it would save.
    #[must_use]
    pub fn grant_for(&self) -> Option<(SessionId, Incarnation)> {
        match self.link {
            // One without a build, but with a slot taken, may be starting it.
            Link::Up { session, incarnation } if !self.slots.is_empty() => {
                Some((session, incarnation))
            }
            _ => None,
        }
    }
}
