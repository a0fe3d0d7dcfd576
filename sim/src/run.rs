//! Runs one seed, and says what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::faults::Fault;
use crate::invariants::Violation;
use crate::world::{Saw, World};

/// One seed in so many is run twice: with the jumps of the wall clock and
/// without (I18).
const TWICE: u64 = 16;

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// The trace as one number.
    pub hash: u64,
    /// Things that happened.
    pub steps: u64,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// Faults that struck.
    pub faults: BTreeMap<Fault, u64>,
    /// What was seen.
    pub saw: Saw,
    /// Stale things that were ignored, by kind.
    pub ignored: BTreeMap<&'static str, u64>,
    /// What was found.
    pub violation: Option<Violation>,
    /// The last lines, when something was found.
    pub lines: Vec<String>,
}

/// Runs a seed. When something is found it is run again with words.
#[must_use]
pub fn seed(seed: u64) -> Outcome {
    let mut outcome = once(seed, false, true);
    if outcome.violation.is_none() && seed.is_multiple_of(TWICE) {
        i18_wall_clock_is_decoration(&mut outcome);
    }
    if outcome.violation.is_some() {
        outcome.lines = once(seed, true, true).lines;
    }
    outcome
}

/// I18: without the jumps of the wall clock the very same happens.
fn i18_wall_clock_is_decoration(outcome: &mut Outcome) {
    let without = once(outcome.seed, false, false);
    if without.hash != outcome.hash {
        outcome.violation = Some(Violation {
            id: "I18",
            what: format!(
                "with the wall clock's jumps {} steps, without {}: not the same happened",
                outcome.steps, without.steps
            ),
        });
    }
}

/// Runs a seed once.
#[must_use]
pub fn once(seed: u64, verbose: bool, wall_jumps: bool) -> Outcome {
    let mut world = World::new(seed, verbose, wall_jumps);
    let virtual_time = world.run();
    Outcome {
        seed,
        hash: world.trace.hash(),
        steps: world.trace.steps(),
        virtual_time,
        faults: std::mem::take(&mut world.counts),
        saw: world.saw,
        ignored: std::mem::take(&mut world.checks.ignored),
        violation: world.checks.found.take(),
        lines: world.trace.lines(),
    }
}
