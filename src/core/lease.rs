//! Leases: how long a worker goes on with a build that nobody confirms, and how
//! long its master waits before anybody else may have that build. The one rule:
//! the worker has ended its processes before the master queues the requests
//! again (invariant I3).

use std::time::Duration;

use super::values::{BuilderConfig, OnLost};

/// The shortest grace that keeps a build from running twice: the lease, the
/// time to end its processes, and a tenth of the lease for clocks that do not
/// run at the same rate.
#[must_use]
pub fn shortest_grace(lease: Duration, kill_time: Duration) -> Duration {
    lease.saturating_add(kill_time).saturating_add(lease / 10)
}

/// What a `start_build` says of the lease: nothing when it is the one that all
/// builds of this master have, 0 when it has no end.
#[must_use]
pub fn lease_on_the_wire(config: &BuilderConfig, standard: Duration) -> Option<u64> {
    match config.on_lost {
        OnLost::Wait => Some(0),
        OnLost::Requeue | OnLost::Fail if config.lease == standard => None,
        OnLost::Requeue | OnLost::Fail => Some(config.lease.as_secs().max(1)),
    }
}

/// A grace without end, as the store can keep it.
pub const FOREVER: Duration = Duration::from_micros(i64::MAX.unsigned_abs());

/// How long the worker of a build that begins may be away, for a later master
/// with other settings: the worker goes by what it was told at the start.
#[must_use]
pub fn grace_to_keep(config: &BuilderConfig) -> Duration {
    match config.on_lost {
        OnLost::Wait => FOREVER,
        OnLost::Requeue | OnLost::Fail => config.grace,
    }
}

/// A place in time that survives a restart of the process, and no restart of
/// the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootTime {
    /// Which boot of the machine.
    pub boot: String,
    /// Since then, with the time that the machine slept.
    pub at: Duration,
}

/// A longer lease that a planned stop gave a worker. It holds until the worker
/// attaches again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// How long the worker may go on.
    pub lease: Duration,
    /// Counted from here. The worker counts from the sending of the last
    /// heartbeat that was confirmed, which is earlier.
    pub given: BootTime,
}

impl Grant {
    /// How long from `now` nobody else may have the worker's builds. After a
    /// restart of the machine nobody knows how long that took: it counts in
    /// full.
    #[must_use]
    pub fn rest(&self, now: &BootTime, kill_time: Duration) -> Duration {
        let whole = shortest_grace(self.lease, kill_time);
        let same_boot = self.given.boot == now.boot && self.given.at <= now.at;
        let passed = if same_boot { now.at - self.given.at } else { Duration::ZERO };
        if super::planted::is("fm03_grant_forgotten") {
            return Duration::ZERO;
        }
        whole.saturating_sub(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(boot: &str, seconds: u32) -> BootTime {
        BootTime { boot: boot.into(), at: seconds * SECOND }
    }

    #[test]
    fn fm03_a_grant_is_counted_exactly_in_one_boot_and_in_full_after_another() {
        let grant = Grant { lease: 3600 * SECOND, given: at("a", 500) };
        let whole = (3600 + 10 + 360) * SECOND;
        assert_eq!(grant.rest(&at("a", 500), 10 * SECOND), whole);
        assert_eq!(grant.rest(&at("a", 600), 10 * SECOND), whole - 100 * SECOND);
        assert_eq!(grant.rest(&at("a", 50_000), 10 * SECOND), Duration::ZERO);
        assert_eq!(grant.rest(&at("b", 50_000), 10 * SECOND), whole);
        // A clock that goes back is no clock to count by.
        assert_eq!(grant.rest(&at("a", 400), 10 * SECOND), whole);
    }
}
