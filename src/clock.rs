//! The only door to time. It reads tokio's clock, anchored once to the wall
//! clock, so that a paused runtime pauses it too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::core::time::{Now, Timestamp, WallTime};

/// A clock. Clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    wall_at_start: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::start()
    }
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::starting_at(WallTime(i64::try_from(wall.as_micros()).unwrap_or(i64::MAX)))
    }

    /// A clock that begins now, at a given time of the wall clock.
    #[must_use]
    pub fn starting_at(wall: WallTime) -> Self {
        Self {
            // A little in the past, so that a timestamp of zero is never now.
            started: Instant::now()
                .checked_sub(Duration::from_secs(1))
                .unwrap_or_else(Instant::now),
            wall_at_start: wall.0.saturating_sub(1_000_000),
        }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed();
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        Now { mono: Timestamp(us), wall: WallTime(self.wall_at_start.saturating_add_unsigned(us)) }
    }

    /// How long until `at`, zero when it is past.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now().mono)
    }
}
