//! How long a builder's builds take, learnt from those that succeeded
//! (row B19).

use std::collections::BTreeMap;
use std::time::Duration;

/// Weight of the newest build in the running mean.
const NEWEST: f64 = 0.5;

/// How long each step took in one build, in order.
pub type StepTimes = Vec<(String, Duration)>;

/// What is expected of a builder's next build.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Expectations {
    /// How many builds it was learnt from.
    builds: u32,
    /// Seconds in all.
    total_s: f64,
    /// Seconds of each step.
    steps_s: BTreeMap<String, f64>,
}

impl Expectations {
    /// How long a build will take, or none before the first success.
    #[must_use]
    pub fn total(&self) -> Option<Duration> {
        (self.builds > 0).then(|| Duration::from_secs_f64(self.total_s.max(0.0)))
    }

    /// Learns from a build that succeeded.
    pub fn learn(&mut self, steps: &StepTimes) {
        let total: f64 = steps.iter().map(|(_, took)| took.as_secs_f64()).sum();
        let mix = |old: f64, new: f64| old + NEWEST * (new - old);
        self.total_s = if self.builds == 0 { total } else { mix(self.total_s, total) };
        self.steps_s = steps
            .iter()
            .map(|(name, took)| {
                let new = took.as_secs_f64();
                (name.clone(), self.steps_s.get(name).map_or(new, |old| mix(*old, new)))
            })
            .collect();
        self.builds = self.builds.saturating_add(1);
    }

    /// One line for the store.
    #[must_use]
    pub fn to_text(&self) -> String {
        let steps: Vec<_> = self.steps_s.iter().map(|(name, s)| format!("{s:.6}={name}")).collect();
        format!("1\n{}\n{:.6}\n{}", self.builds, self.total_s, steps.join("\n"))
    }

    /// Reads what `to_text` wrote; anything else counts as knowing nothing.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let mut lines = text.lines();
        if lines.next() != Some("1") {
            return Self::default();
        }
        let builds = lines.next().and_then(|line| line.parse().ok());
        let total_s = lines.next().and_then(|line| line.parse().ok());
        let (Some(builds), Some(total_s)) = (builds, total_s) else { return Self::default() };
        let steps_s = lines
            .filter_map(|line| {
                let (seconds, name) = line.split_once('=')?;
                Some((name.to_owned(), seconds.parse().ok()?))
            })
            .collect();
        Self { builds, total_s, steps_s }
    }
}
