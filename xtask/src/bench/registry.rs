//! What an entry of the registry of workloads tells: how it is measured, with
//! which sizes, what is shown and compared, what is to be reached, and what
//! Buildbot's harness calls it. The entries are in `workloads`.

use super::figures::Measurement;
use super::master::Programs;
use super::proc::Guard;
use super::workloads::WORKLOADS;

/// What a measurement stands on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The programs that are measured.
    pub programs: Programs,
    /// Ends what is left of a run that is ended from outside.
    pub guard: Guard,
    /// Leave the scratch folders for a look.
    pub keep: bool,
    /// Shorter windows, where a workload has some.
    pub quick: bool,
}

/// Measures once with that size, with a fresh database. Most give one
/// measurement; some give several from one master.
pub type Measure = fn(&Ground, u64) -> Result<Vec<Measurement>, String>;

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// `dispatch`.
    pub name: &'static str,
    /// Measures it.
    pub measure: Measure,
    /// What the summary and the ratios show.
    pub metrics: &'static [Metric],
    /// The metrics that the chart shows, and what it calls them.
    pub headlines: &'static [(&'static str, &'static str)],
    /// Its sizes.
    pub sizes: Sizes,
    /// At which sizes the two systems are compared.
    pub compared: Compared,
    /// What is to be reached.
    pub targets: &'static [Target],
    /// The same for Buildbot.
    pub peer: Peer,
}

/// The sizes of a workload; each is measured.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// With `--quick`.
    pub quick: &'static [u64],
    /// Without.
    pub full: &'static [u64],
    /// The last size is raised until a measurement takes long enough to be a
    /// good one (its `wall_s`), but not above this.
    pub raised_to: Option<u64>,
}

/// At which sizes two systems are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared {
    /// Each at the largest that it was measured with: for figures that do not
    /// depend on the size.
    EachAtItsLargest,
    /// Both at the largest that both were measured with.
    AtTheSame,
}

/// A figure of a workload.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// `p50_ms`.
    pub name: &'static str,
    /// How it is compared.
    pub better: Better,
}

/// Which figure is the better one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// The larger one.
    More,
    /// The smaller one.
    Less,
    /// It is only shown.
    Neither,
}

/// The larger, the better.
pub const fn more(name: &'static str) -> Metric {
    Metric { name, better: Better::More }
}

/// The smaller, the better.
pub const fn less(name: &'static str) -> Metric {
    Metric { name, better: Better::Less }
}

/// Not compared.
pub const fn shown(name: &'static str) -> Metric {
    Metric { name, better: Better::Neither }
}

/// Something that is to be reached.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The metric.
    pub metric: &'static str,
    /// At which size; else at the largest that was measured.
    pub n: Option<u64>,
    /// What it has to be.
    pub limit: Limit,
}

/// What a metric has to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    /// So much at most.
    AtMost(f64),
    /// So much at least.
    AtLeast(f64),
    /// So many times better than Buildbot as it is shipped.
    TimesBetter(f64),
    /// So many times better than Buildbot tuned as its manual offers.
    TimesBetterThanTuned(f64),
}

/// To be reached at the largest size.
pub const fn target(metric: &'static str, limit: Limit) -> Target {
    Target { metric, n: None, limit }
}

/// A workload in Buildbot's harness.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// What the harness calls it: `w1`.
    pub name: &'static str,
    /// The option that takes the size.
    pub size: &'static str,
    /// The sizes with `--quick`.
    pub quick: &'static [u64],
    /// The sizes without. Never more than the largest.
    pub full: &'static [u64],
    /// More arguments.
    pub arguments: &'static [&'static str],
    /// Measured with Buildbot's tuned configuration, too.
    pub tuned: bool,
}

/// The workload of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

/// The names, for people.
#[must_use]
pub fn names() -> String {
    WORKLOADS.iter().map(|workload| workload.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_whole() {
        for workload in WORKLOADS {
            let name = workload.name;
            assert_eq!(WORKLOADS.iter().filter(|other| other.name == name).count(), 1, "{name}");
            assert!(find(name).is_some());
            assert!(!workload.sizes.quick.is_empty() && !workload.sizes.full.is_empty(), "{name}");
            assert!(!workload.peer.quick.is_empty() && !workload.peer.full.is_empty(), "{name}");
            for (headline, label) in workload.headlines {
                let metric = workload.metrics.iter().find(|metric| metric.name == *headline);
                assert!(metric.is_some_and(|metric| metric.better != Better::Neither), "{label}");
            }
            for target in workload.targets {
                let metric = workload.metrics.iter().find(|metric| metric.name == target.metric);
                let better = metric.map(|metric| metric.better);
                let fits = match target.limit {
                    Limit::AtMost(_) | Limit::AtLeast(_) => better.is_some(),
                    Limit::TimesBetter(_) => matches!(better, Some(Better::More | Better::Less)),
                    Limit::TimesBetterThanTuned(_) => workload.peer.tuned,
                };
                assert!(fits, "{name}: {target:?}");
            }
        }
        assert!(find("speed").is_none());
    }

    #[test]
    fn the_help_tells_of_every_workload() {
        for workload in WORKLOADS {
            let told = format!("\n  {} ", workload.name);
            assert!(crate::help::BENCH.contains(&told), "{}", workload.name);
        }
    }
}
