//! When builds end, and when requests that wait begin and end.
//!
//! Plain sums over what is expected; whoever shows them works them out when
//! they are asked for, so builds and queues cost nothing for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::expectations::{Estimate, Prediction};

/// How many requests of one builder's queue get a time.
pub const QUEUED: usize = 1000;

/// What a running build has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// From now to its end.
    pub time: Estimate,
    /// By how much it is later than all that are known; none while it is not.
    pub late: Option<Duration>,
}

impl Left {
    /// Judged by others: what each took for the same (step or build), and for
    /// all that came after it. Those that took longer than this one's `elapsed`
    /// tell what is left.
    ///
    /// When all were done by now it is late, and the longer it is late the less
    /// is known: as likely as not it takes as long again as it is late, and at
    /// most as long as it has taken.
    #[must_use]
    pub fn among(known: Vec<(Duration, Duration)>, elapsed: Duration) -> Option<Self> {
        let longer = known.iter().filter(|(own, _)| *own > elapsed);
        let left = longer.map(|(own, after)| (*own - elapsed).saturating_add(*after)).collect();
        if let Some(time) = Estimate::of(left) {
            return Some(Self { time, late: None });
        }
        let longest = known.iter().map(|(own, _)| *own).max()?;
        let after = Estimate::of(known.into_iter().map(|(_, after)| after).collect())?;
        Some(Self::late(longest, elapsed, after))
    }

    fn late(longest: Duration, elapsed: Duration, after: Estimate) -> Self {
        let late = elapsed.saturating_sub(longest);
        let more = Estimate { low: Duration::ZERO, likely: late, high: elapsed };
        Self { time: more.plus(after), late: Some(late) }
    }
}

impl Prediction {
    /// What a build has left of which only this is known any more.
    #[must_use]
    pub fn left(&self, elapsed: Duration) -> Left {
        let Estimate { low, likely, high } = self.total;
        if elapsed >= high {
            return Left::late(high, elapsed, Estimate::ZERO);
        }
        let left = high - elapsed;
        // Beyond the middle nothing better is known than the middle of the rest.
        let likely = likely.checked_sub(elapsed).unwrap_or(left / 2);
        let low = low.saturating_sub(elapsed);
        Left { time: Estimate { low, likely, high: left }, late: None }
    }
}

/// How far off what was expected has been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accuracy {
    /// How many ends were looked at.
    pub ends: usize,
    /// How many of them lay within the interval.
    pub within: usize,
    /// The middle one of how far they were from what was likely, in thousandths
    /// of that.
    pub median_off: u64,
}

impl Accuracy {
    /// From what was expected each time, and what came.
    #[must_use]
    pub fn of(known: &[(Estimate, Duration)]) -> Self {
        let mut off: Vec<u64> =
            known.iter().map(|(expected, took)| expected.off_by(*took).unsigned_abs()).collect();
        off.sort_unstable();
        Self {
            ends: known.len(),
            within: known.iter().filter(|(expected, took)| expected.holds(*took)).count(),
            median_off: off.get(off.len() / 2).copied().unwrap_or_default(),
        }
    }
}

impl Estimate {
    /// Whether the interval holds it.
    #[must_use]
    pub fn holds(self, took: Duration) -> bool {
        self.low <= took && took <= self.high
    }

    /// By how much it took longer than was likely, in thousandths of that;
    /// negative when it was shorter.
    #[must_use]
    pub fn off_by(self, took: Duration) -> i64 {
        let likely = i128::try_from(self.likely.as_micros().max(1)).unwrap_or(i128::MAX);
        let took = i128::try_from(took.as_micros()).unwrap_or(i128::MAX);
        let off = took.saturating_sub(likely).saturating_mul(1000) / likely;
        i64::try_from(off).unwrap_or(i64::MAX)
    }
}

/// A worker's place at a builder: when it can take the builder's next build.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeatFree {
    /// From now.
    pub free: Estimate,
    /// A build of this very builder has it until then.
    pub own: bool,
}

/// When a request that waits begins and ends, from now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueuedEta {
    /// Its build begins.
    pub start: Estimate,
    /// Its build ends.
    pub end: Estimate,
}

/// When the first `count` requests of a queue begin and end: each takes the
/// place that is free first. Worked out three times: with everything as fast
/// as it seldom is, as usual, and as slow as it seldom is.
///
/// Empty when there is no place. At most [`QUEUED`] are worked out.
#[must_use]
pub fn schedule(
    seats: &[SeatFree],
    build: Estimate,
    max_builds: Option<usize>,
    count: usize,
) -> Vec<QueuedEta> {
    let seats = allowed(seats, max_builds);
    let count = if seats.is_empty() { 0 } else { count.min(QUEUED) };
    let starts =
        |part: fn(&Estimate) -> Duration| starts(seats.iter().map(part), part(&build), count);
    let (low, likely, high) = (starts(|e| e.low), starts(|e| e.likely), starts(|e| e.high));
    low.into_iter()
        .zip(likely)
        .zip(high)
        .map(|((low, likely), high)| {
            let start = Estimate { low, likely, high };
            QueuedEta { start, end: start.plus(build) }
        })
        .collect()
}

/// The places that may be used side by side: those in use by the builder's own
/// builds, and as many of the others, the first to be free, as the limit lets
/// in. Builds beyond the limit leave no place behind when they end.
fn allowed(seats: &[SeatFree], max_builds: Option<usize>) -> Vec<Estimate> {
    let limit = max_builds.unwrap_or(usize::MAX).max(1);
    let by_time = |own: bool| {
        let mut times: Vec<_> =
            seats.iter().filter(|seat| seat.own == own).map(|seat| seat.free).collect();
        times.sort_by_key(|free| (free.likely, free.low, free.high));
        times
    };
    let own = by_time(true);
    let beyond = own.len().saturating_sub(limit);
    let mut all: Vec<_> = own.into_iter().skip(beyond).collect();
    let room = limit - all.len();
    all.extend(by_time(false).into_iter().take(room));
    all
}

fn starts(free: impl Iterator<Item = Duration>, build: Duration, count: usize) -> Vec<Duration> {
    let mut places: BinaryHeap<Reverse<Duration>> = free.map(Reverse).collect();
    let mut starts = Vec::with_capacity(count);
    while starts.len() < count {
        let Some(Reverse(start)) = places.pop() else { break };
        starts.push(start);
        places.push(Reverse(start.saturating_add(build)));
    }
    starts
}
