//! Whether an actor that panicked is started again.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::time::Timestamp;

/// At most this many restarts …
pub const RESTARTS: usize = 5;
/// … within this time (restart intensity of the fault matrix).
pub const WITHIN: Duration = Duration::from_secs(60);

/// One actor's history of restarts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RestartPolicy {
    recent: VecDeque<Timestamp>,
    total: u32,
}

impl RestartPolicy {
    /// A panic at `now`: true when the actor shall be started again.
    pub fn allows(&mut self, now: Timestamp) -> bool {
        while self.recent.front().is_some_and(|at| now.since(*at) > WITHIN) {
            self.recent.pop_front();
        }
        if self.recent.len() >= RESTARTS {
            return false;
        }
        self.recent.push_back(now);
        self.total = self.total.saturating_add(1);
        true
    }

    /// Restarts so far.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }
}
