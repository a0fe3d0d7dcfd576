//! What many seeds came to.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::faults::Fault;
use crate::run::Outcome;

/// From so many seeds on every kind of fault must have occurred, and each of
/// the four sights in a tenth of the seeds.
pub const ENOUGH: u64 = 100;

/// Sums over seeds.
#[derive(Default)]
pub struct Report {
    seeds: u64,
    virtual_s: f64,
    steps: u64,
    faults: BTreeMap<Fault, u64>,
    sights: [u64; 4],
    violations: u64,
    digest: u64,
}

const SIGHTS: [&str; 4] = ["adoption", "requeue", "takeover_with_build", "duplicate_attach"];

impl Report {
    /// Adds a seed. The order in which they come does not matter.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.virtual_s += outcome.virtual_time.as_secs_f64();
        self.steps += outcome.steps;
        for (fault, count) in &outcome.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        let saw = outcome.saw;
        let sights = [saw.adoption, saw.requeue, saw.takeover_with_build, saw.duplicate_attach];
        for (sum, seen) in self.sights.iter_mut().zip(sights) {
            *sum += u64::from(seen);
        }
        self.violations += u64::from(outcome.violation.is_some());
        let mixed =
            (outcome.seed ^ outcome.hash.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.digest = self.digest.wrapping_add(mixed ^ (mixed >> 29));
    }

    /// Why the whole is not well, when it is not.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.violations > 0 {
            all.push(format!("{} of {} seeds found something", self.violations, self.seeds));
        }
        if self.seeds < ENOUGH {
            return all;
        }
        for fault in Fault::ALL {
            if !self.faults.contains_key(&fault) {
                all.push(format!("the fault `{}` never struck", fault.word()));
            }
        }
        for (sight, seen) in SIGHTS.iter().zip(self.sights) {
            if seen * 10 < self.seeds {
                all.push(format!("only {seen} of {} seeds saw `{sight}`", self.seeds));
            }
        }
        all
    }

    /// One line of JSON.
    #[must_use]
    pub fn line(&self) -> Value {
        let faults: serde_json::Map<String, Value> = Fault::ALL
            .into_iter()
            .map(|fault| {
                let count = self.faults.get(&fault).copied().unwrap_or(0);
                (fault.word().to_owned(), Value::from(count))
            })
            .collect();
        let saw: serde_json::Map<String, Value> = SIGHTS
            .iter()
            .zip(self.sights)
            .map(|(sight, seen)| ((*sight).to_owned(), Value::from(seen)))
            .collect();
        json!({
            "seeds": self.seeds,
            "virtual_hours": (self.virtual_s / 36.0).round() / 100.0,
            "steps": self.steps,
            "faults": faults,
            "saw": saw,
            "violations": self.violations,
            "digest": format!("{:016x}", self.digest),
        })
    }
}

/// A finding for people.
#[must_use]
pub fn finding(outcome: &Outcome) -> String {
    let mut text = String::new();
    let Some(violation) = &outcome.violation else { return text };
    for line in &outcome.lines {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "seed {}: {}: {}", outcome.seed, violation.id, violation.what);
    let _ = writeln!(text, "again: cargo xtask simulate --seeds 1 --seed {}", outcome.seed);
    text
}
