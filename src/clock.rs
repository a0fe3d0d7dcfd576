//! The only door to time. It reads tokio's clock, anchored once to the wall
//! clock, so that a paused runtime pauses it too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::core::lease::BootTime;
use crate::core::time::{Now, Timestamp, WallTime};

/// Where Linux names the machine's present run.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A clock. Clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    wall_at_start: i64,
    /// The machine's own time since its start counts, not this clock's.
    real: bool,
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
        let wall = WallTime(i64::try_from(wall.as_micros()).unwrap_or(i64::MAX));
        Self { real: true, ..Self::starting_at(wall) }
    }

    /// A clock that begins now, at a given time of the wall clock. To tell of
    /// the machine's start it takes the wall clock too, for it is played.
    #[must_use]
    pub fn starting_at(wall: WallTime) -> Self {
        Self {
            // A little in the past, so that a timestamp of zero is never now.
            started: Instant::now()
                .checked_sub(Duration::from_secs(1))
                .unwrap_or_else(Instant::now),
            wall_at_start: wall.0.saturating_sub(1_000_000),
            real: false,
        }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed();
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        Now { mono: Timestamp(us), wall: WallTime(self.wall_at_start.saturating_add_unsigned(us)) }
    }

    /// Now, as it can be told to a later process. The time that the machine
    /// sleeps counts, which it does not in [`Self::now`].
    #[must_use]
    pub fn boot_time(&self) -> BootTime {
        if !self.real {
            let us = u64::try_from(self.now().wall.0).unwrap_or_default();
            return BootTime { boot: "played".into(), at: Duration::from_micros(us) };
        }
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let at = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        BootTime { boot, at }
    }

    /// How long until `at`, zero when it is past.
    #[must_use]
    pub fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now().mono)
    }
}
