//! The workloads, one entry each: how they are measured, with which sizes, what
//! is shown and compared, what is to be reached, and what Buildbot's harness
//! calls them. A new workload is a module with a `measure` and an entry here.

use super::figures::Measurement;
use super::master::Programs;
use super::proc::Guard;
use super::{dispatch, throughput};

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

const fn more(name: &'static str) -> Metric {
    Metric { name, better: Better::More }
}

const fn less(name: &'static str) -> Metric {
    Metric { name, better: Better::Less }
}

const fn shown(name: &'static str) -> Metric {
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

const fn target(metric: &'static str, limit: Limit) -> Target {
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

/// All workloads, in the order of `bench/peer/workloads.md`.
pub const WORKLOADS: &[Workload] = &[DISPATCH, THROUGHPUT];

const DISPATCH: Workload = Workload {
    name: "dispatch",
    measure: dispatch::measure,
    metrics: &[
        less("p50_ms"),
        less("p99_ms"),
        more("builds_per_s"),
        less("master_cpu_s_per_build"),
        less("master_peak_rss_mb"),
    ],
    sizes: Sizes { quick: &[100], full: &[100], raised_to: None },
    compared: Compared::EachAtItsLargest,
    targets: &[
        target("p50_ms", Limit::AtMost(4.0)),
        target("p99_ms", Limit::AtMost(12.0)),
        target("master_cpu_s_per_build", Limit::AtMost(0.0015)),
        target("p50_ms", Limit::TimesBetter(80.0)),
    ],
    peer: Peer {
        name: "w1",
        size: "--n",
        quick: &[100],
        full: &[100],
        arguments: &[],
        tuned: false,
    },
};

const THROUGHPUT: Workload = Workload {
    name: "throughput",
    measure: throughput::measure,
    metrics: &[
        more("builds_per_s"),
        // Times for different numbers of requests cannot be compared.
        shown("wall_s"),
        shown("submit_s"),
        less("master_cpu_s_per_build"),
        less("master_peak_rss_mb"),
        less("db_bytes_per_build"),
    ],
    sizes: Sizes { quick: &[2_000], full: &[2_000], raised_to: Some(400_000) },
    compared: Compared::EachAtItsLargest,
    targets: &[
        target("builds_per_s", Limit::AtLeast(2_000.0)),
        target("master_cpu_s_per_build", Limit::AtMost(0.0004)),
        target("builds_per_s", Limit::TimesBetterThanTuned(280.0)),
    ],
    peer: Peer {
        name: "w2",
        size: "--n",
        quick: &[500],
        full: &[2_000],
        arguments: &[],
        tuned: true,
    },
};

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
