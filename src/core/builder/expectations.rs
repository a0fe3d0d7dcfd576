//! How long a builder's builds take, learnt from those that succeeded
//! (row B19).
//!
//! The last [`WINDOW`] successful builds of one factory are remembered, step by
//! step. What a new build will take is their middle, and an interval from their
//! fastest tenth to their slowest tenth. What a running build has left is what
//! those builds still had before them at the same point, so a slow step that is
//! still to come counts, and one that is over does not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::eta::Left;

/// How many builds are remembered.
pub const WINDOW: usize = 20;

/// What each step of one build took.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StepTimes {
    /// Digest of the factory that the steps are of.
    pub factory: String,
    /// The steps that ran, in order.
    pub steps: Vec<(String, Duration)>,
}

/// A length of time that is not known exactly. Never `low > likely`, nor
/// `likely > high`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Estimate {
    /// Seldom less.
    pub low: Duration,
    /// The middle.
    pub likely: Duration,
    /// Seldom more.
    pub high: Duration,
}

impl Estimate {
    /// No time at all, for sure.
    pub const ZERO: Self =
        Self { low: Duration::ZERO, likely: Duration::ZERO, high: Duration::ZERO };

    /// What these lengths, all equally likely, come to; none without any. The
    /// fewer they are the wider it is: the low end is divided and the high end
    /// multiplied by 1 + 1/n, so one length alone means from half to double.
    #[must_use]
    pub fn of(mut lengths: Vec<Duration>) -> Option<Self> {
        lengths.sort_unstable();
        let count = u32::try_from(lengths.len()).ok().filter(|count| *count > 0)?;
        let more = count.saturating_add(1);
        Some(Self {
            low: tenth(&lengths, 1).saturating_mul(count) / more,
            likely: tenth(&lengths, 5),
            high: tenth(&lengths, 9).saturating_mul(more) / count,
        })
    }

    /// One after the other.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            likely: self.likely.saturating_add(other.likely),
            high: self.high.saturating_add(other.high),
        }
    }

    /// Whichever is sooner.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        Self {
            low: self.low.min(other.low),
            likely: self.likely.min(other.likely),
            high: self.high.min(other.high),
        }
    }
}

/// Seconds, to the millisecond, under the names `low_s`, `likely_s`, `high_s`.
impl Serialize for Estimate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Estimate", 3)?;
        object.serialize_field("low_s", &seconds(self.low))?;
        object.serialize_field("likely_s", &seconds(self.likely))?;
        object.serialize_field("high_s", &seconds(self.high))?;
        object.end()
    }
}

/// Seconds, to the millisecond.
#[must_use]
pub fn seconds(span: Duration) -> f64 {
    // Whole milliseconds first: the quotient then shows no more digits.
    let millis = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    f64::from(millis) / 1000.0
}

/// The length below which `tenths` tenths of the sorted lengths lie, drawn
/// straight between two of them.
fn tenth(sorted: &[Duration], tenths: usize) -> Duration {
    let place = sorted.len().saturating_sub(1) * tenths;
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let (below, above) = (at(place / 10), at((place / 10 + 1).min(sorted.len() - 1)));
    let part = u32::try_from(place % 10).unwrap_or_default();
    below + (above - below) * part / 10
}

/// What was expected of a build at its start (row B15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prediction {
    /// How many builds had been learnt from, ever: names the snapshot.
    pub learnt: u64,
    /// What it would take in all.
    pub total: Estimate,
}

/// What is expected of a builder's next build.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expectations {
    factory: String,
    learnt: u64,
    /// The last builds, the newest last.
    builds: VecDeque<Vec<(String, Duration)>>,
}

impl Expectations {
    /// Nothing is known yet of builds of this factory.
    #[must_use]
    pub fn new(factory: &str) -> Self {
        Self { factory: factory.to_owned(), ..Self::default() }
    }

    /// The same, for a builder whose factory is this one: with another factory
    /// everything is learnt anew (row T10). Snapshots keep their names.
    #[must_use]
    pub fn for_factory(&self, factory: &str) -> Self {
        if self.factory == factory {
            return self.clone();
        }
        Self { learnt: self.learnt, ..Self::new(factory) }
    }

    /// Learns from a build that succeeded. False when that was one of another
    /// factory, from which nothing is learnt.
    pub fn learn(&mut self, times: &StepTimes) -> bool {
        if times.factory != self.factory {
            return false;
        }
        self.builds.push_back(times.steps.clone());
        if self.builds.len() > WINDOW {
            self.builds.pop_front();
        }
        self.learnt = self.learnt.saturating_add(1);
        true
    }

    /// How many builds are remembered.
    #[must_use]
    pub fn builds(&self) -> usize {
        self.builds.len()
    }

    /// What a build will take, or none before the first success.
    #[must_use]
    pub fn total(&self) -> Option<Estimate> {
        Estimate::of(self.builds.iter().map(|steps| sum(steps)).collect())
    }

    /// What a build that starts now is expected to take, to be kept with it.
    #[must_use]
    pub fn snapshot(&self) -> Option<Prediction> {
        self.total().map(|total| Prediction { learnt: self.learnt, total })
    }

    /// What was known when the snapshot was taken, as far as it is remembered.
    #[must_use]
    pub fn as_of(&self, snapshot: Prediction) -> Self {
        let newer = usize::try_from(self.learnt.saturating_sub(snapshot.learnt));
        let known = self.builds.len().saturating_sub(newer.unwrap_or(usize::MAX));
        let builds = self.builds.iter().take(known).cloned().collect();
        Self { factory: self.factory.clone(), learnt: snapshot.learnt, builds }
    }

    /// What each step will take, in the order in which the newest build that
    /// ran it had it.
    #[must_use]
    pub fn steps(&self) -> Vec<(String, Estimate)> {
        let mut took: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        let mut names: Vec<&str> = Vec::new();
        for (name, span) in self.builds.iter().rev().flatten() {
            let spans = took.entry(name).or_default();
            if spans.is_empty() {
                names.push(name);
            }
            spans.push(*span);
        }
        names
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), Estimate::of(took.remove(name)?)?)))
            .collect()
    }

    /// What a build has left that is in this step for this long, judged by the
    /// builds whose step took longer. Without a step, or with one that is not
    /// known, `elapsed` is that of the whole build. None when nothing is known.
    #[must_use]
    pub fn left(&self, step: Option<(&str, Duration)>, elapsed: Duration) -> Option<Left> {
        let in_step = step.and_then(|(name, elapsed)| {
            let known = self.builds.iter().filter_map(|steps| {
                let place = steps.iter().position(|(own, _)| own == name)?;
                Some((steps.get(place)?.1, sum(steps.get(place + 1..)?)))
            });
            Left::among(known.collect(), elapsed)
        });
        in_step.or_else(|| {
            let known = self.builds.iter().map(|steps| (sum(steps), Duration::ZERO));
            Left::among(known.collect(), elapsed)
        })
    }

    /// Lines for the store: the version, the factory, how many were learnt,
    /// and one line a build of `microseconds=step`, parted by tabs.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("2\n{}\n{}\n", self.factory, self.learnt);
        for steps in &self.builds {
            let steps: Vec<_> = steps
                .iter()
                .map(|(name, took)| format!("{}={}", took.as_micros(), flat(name)))
                .collect();
            text.push_str(&steps.join("\t"));
            text.push('\n');
        }
        text
    }

    /// Reads what `to_text` wrote; anything else counts as knowing nothing.
    /// The version before, which was one running mean for whatever factory,
    /// counts as one build of the `factory` that is in force.
    #[must_use]
    pub fn from_text(text: &str, factory: &str) -> Self {
        let mut lines = text.lines();
        let read = match lines.next() {
            Some("2") => second_version(&mut lines),
            Some("1") => first_version(&mut lines, factory),
            _ => None,
        };
        read.unwrap_or_else(|| Self::new(factory))
    }
}

fn sum(steps: &[(String, Duration)]) -> Duration {
    steps.iter().fold(Duration::ZERO, |all, (_, took)| all.saturating_add(*took))
}

/// A name that does not break the form.
fn flat(name: &str) -> String {
    name.replace(['\t', '\n', '\r'], " ")
}

fn second_version(lines: &mut std::str::Lines<'_>) -> Option<Expectations> {
    let factory = lines.next()?.to_owned();
    let learnt = lines.next()?.parse().ok()?;
    let step = |text: &str| {
        let (micros, name) = text.split_once('=')?;
        Some((name.to_owned(), Duration::from_micros(micros.parse().ok()?)))
    };
    let build = |line: &str| -> Option<Vec<_>> {
        if line.is_empty() { Some(Vec::new()) } else { line.split('\t').map(step).collect() }
    };
    let builds = lines.take(WINDOW).map(build).collect::<Option<_>>()?;
    Some(Expectations { factory, learnt, builds })
}

fn first_version(lines: &mut std::str::Lines<'_>, factory: &str) -> Option<Expectations> {
    let learnt = lines.next()?.parse().ok()?;
    let _total = lines.next()?;
    let step = |line: &str| {
        let (seconds, name) = line.split_once('=')?;
        Some((name.to_owned(), Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?))
    };
    let steps: Vec<_> = lines.map(step).collect::<Option<_>>()?;
    Some(Expectations { factory: factory.to_owned(), learnt, builds: VecDeque::from([steps]) })
}
