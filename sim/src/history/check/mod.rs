//! Finds what is wrong with a history. Each finding names the invariant that
//! it breaks (`docs/fault-matrix.md`, section 3).

mod events;
mod instances;
mod logs;
mod order;
mod runs;
mod timeline;
mod told;

use std::fmt;

use serde::Serialize;

use super::records::{History, Micros};
use timeline::Timelines;

/// The invariants that can be checked from outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Invariant {
    /// No request is lost.
    I1,
    /// One live claim.
    I2,
    /// Never two at once.
    I3,
    /// Only what is idle starts, and a start is not cut off.
    I4,
    /// Limits hold.
    I5,
    /// Nothing wedges.
    I6,
    /// Ends are final.
    I7,
    /// Numbers grow and are never given twice.
    I8,
    /// Logs are exact.
    I9,
    /// Order within a builder.
    I10,
    /// The event stream tells all of it, once, in order.
    I11,
    /// Durable before told.
    I12,
    /// Nothing grows for ever.
    I15,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Finding {
    /// What it breaks.
    pub invariant: Invariant,
    /// What it is, with the ids concerned.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}

/// What is no fault although it looks like one from outside, because those who
/// act do not see what the history sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leeway {
    /// A builder may not know yet of what became true this long ago.
    pub order: Micros,
    /// So many builds may start before a request that has its turn: starts are
    /// tried side by side, and the one of the first may fail.
    pub overtakes: usize,
    /// A worker that nobody reaches may act on an order for so long after it
    /// was taken back: its lease and the time to kill.
    pub late: Micros,
    /// A new limit of a worker's builds holds after so long.
    pub limit: Micros,
    /// What became true in the moment of a crash may have no event.
    pub events_may_miss: bool,
}

impl Default for Leeway {
    /// Everything is judged strictly, at once.
    fn default() -> Self {
        Self { order: 0, overtakes: 0, late: 0, limit: 0, events_may_miss: false }
    }
}

/// Everything that is wrong, by invariant.
#[must_use]
pub fn check(history: &History, leeway: &Leeway) -> Vec<Finding> {
    let lines = Timelines::of(history);
    let mut findings = Vec::new();
    told::check(history, &lines, leeway, &mut findings);
    runs::check(history, &lines, leeway, &mut findings);
    order::check(history, leeway, &mut findings);
    events::check(history, &lines, leeway, &mut findings);
    logs::check(history, &mut findings);
    instances::check(history, leeway, &mut findings);
    findings.sort();
    findings.dedup();
    findings
}

fn found(findings: &mut Vec<Finding>, invariant: Invariant, text: String) {
    findings.push(Finding { invariant, text });
}
