//! What comes of the measurements: a summary of each system, workload and size,
//! the ratios between the systems, and which targets are met.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::figures::{Measurement, over_runs};
use super::registry::{Better, Compared, Limit, Target, Workload};
use super::workloads::WORKLOADS;
use crate::report::rounded;

/// Median, least and greatest of each metric, for each system, workload and
/// size.
#[must_use]
pub fn summary(all: &[&Measurement]) -> Vec<Value> {
    let mut groups: Vec<(&str, &str, u64)> = Vec::new();
    for run in all {
        let group = (run.system.as_str(), run.workload.as_str(), run.n);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups
        .into_iter()
        .map(|(system, workload, n)| {
            let runs: Vec<&Measurement> = all
                .iter()
                .copied()
                .filter(|run| {
                    (run.system.as_str(), run.workload.as_str(), run.n) == (system, workload, n)
                })
                .collect();
            let known = WORKLOADS.iter().find(|known| known.name == workload);
            let mut metrics = Map::new();
            for metric in known.map_or(&[][..], |known| known.metrics) {
                if let Some((median, least, greatest)) = over_runs(&runs, metric.name) {
                    let figures = json!({
                        "median": rounded(median, 5), "min": rounded(least, 5),
                        "max": rounded(greatest, 5),
                    });
                    metrics.insert(metric.name.to_owned(), figures);
                }
            }
            json!({
                "system": system, "workload": workload, "n": n, "runs": runs.len(),
                "metrics": metrics,
            })
        })
        .collect()
}

/// A system's median of one metric, and the size that it was measured with.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Figure {
    /// The size.
    pub n: u64,
    /// The median.
    pub value: f64,
}

/// One comparison of the program with a variant of Buildbot.
#[derive(Clone, PartialEq, Debug)]
pub struct Ratio {
    /// `dispatch`.
    pub workload: &'static str,
    /// `p50_ms`.
    pub metric: &'static str,
    /// Buildbot is the tuned one.
    pub tuned: bool,
    /// Our figure.
    pub ours: Figure,
    /// Buildbot's.
    pub theirs: Figure,
    /// How many times better ours is; none where one of them is 0, or where
    /// neither less nor more is better.
    pub times: Option<f64>,
}

/// Compares what can be compared.
#[must_use]
pub fn compare(ours: &[Measurement], theirs: &[Measurement]) -> Vec<Ratio> {
    let mut found = Vec::new();
    for workload in WORKLOADS {
        for tuned in [false, true] {
            let (our_runs, their_runs) = (of(ours, workload, false), of(theirs, workload, tuned));
            for metric in workload.metrics {
                let figures = figures(workload.compared, &our_runs, &their_runs, metric.name);
                let Some((our, their)) = figures else { continue };
                let times = match metric.better {
                    Better::Neither => None,
                    _ if our.value <= 0.0 || their.value <= 0.0 => None,
                    Better::More => Some(our.value / their.value),
                    Better::Less => Some(their.value / our.value),
                };
                let (workload, metric) = (workload.name, metric.name);
                found.push(Ratio { workload, metric, tuned, ours: our, theirs: their, times });
            }
        }
    }
    found
}

/// The measurements of one workload by the plain or the tuned system.
fn of<'a>(all: &'a [Measurement], workload: &Workload, tuned: bool) -> Vec<&'a Measurement> {
    all.iter()
        .filter(|run| run.workload == workload.name && run.system.ends_with("-tuned") == tuned)
        .collect()
}

fn figures(
    compared: Compared,
    ours: &[&Measurement],
    theirs: &[&Measurement],
    metric: &str,
) -> Option<(Figure, Figure)> {
    let sizes = |runs: &[&Measurement]| -> Vec<u64> {
        runs.iter().filter(|run| run.metric(metric).is_some()).map(|run| run.n).collect()
    };
    let (our_sizes, their_sizes) = (sizes(ours), sizes(theirs));
    let (our_n, their_n) = match compared {
        Compared::EachAtItsLargest => {
            (our_sizes.iter().copied().max()?, their_sizes.iter().copied().max()?)
        }
        Compared::AtTheSame => {
            let n = our_sizes.iter().copied().filter(|n| their_sizes.contains(n)).max()?;
            (n, n)
        }
    };
    Some((figure(ours, metric, our_n)?, figure(theirs, metric, their_n)?))
}

fn figure(runs: &[&Measurement], metric: &str, n: u64) -> Option<Figure> {
    let runs: Vec<&Measurement> = runs.iter().copied().filter(|run| run.n == n).collect();
    over_runs(&runs, metric).map(|(value, ..)| Figure { n, value })
}

/// The comparisons as JSON.
#[must_use]
pub fn ratios_json(ratios: &[Ratio]) -> Vec<Value> {
    ratios
        .iter()
        .map(|ratio| {
            json!({
                "workload": ratio.workload, "metric": ratio.metric, "tuned": ratio.tuned,
                "n": ratio.ours.n, "ours": rounded(ratio.ours.value, 5),
                "buildbot_n": ratio.theirs.n, "buildbot": rounded(ratio.theirs.value, 5),
                "times_better": ratio.times.map(|times| rounded(times, 2)),
            })
        })
        .collect()
}

/// The comparisons for people: a row for each metric, both variants of Buildbot
/// beside ours.
#[must_use]
pub fn ratio_table(ratios: &[Ratio]) -> String {
    let mut table = format!(
        "{:<15} {:>12} {:<38} {:>10} {:>10} {:>8} {:>10} {:>8}",
        "workload", "n / theirs", "metric", "ours", "buildbot", "times", "tuned", "times"
    );
    let mut told: Vec<(&str, &str)> = Vec::new();
    for ratio in ratios {
        let row = (ratio.workload, ratio.metric);
        if told.contains(&row) {
            continue;
        }
        told.push(row);
        // Writing to a String cannot fail.
        let _ = write!(
            table,
            "\n{:<15} {:>12} {:<38} {:>10}",
            ratio.workload,
            sizes(ratio),
            ratio.metric,
            short(ratio.ours.value)
        );
        for tuned in [false, true] {
            let of = |other: &&Ratio| {
                (other.workload, other.metric, other.tuned) == (row.0, row.1, tuned)
            };
            let (figure, times) = match ratios.iter().find(of) {
                Some(found) => {
                    (short(found.theirs.value), found.times.map_or("-".to_owned(), times))
                }
                None => (String::new(), String::new()),
            };
            let _ = write!(table, " {figure:>10} {times:>8}");
        }
    }
    table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn sizes(ratio: &Ratio) -> String {
    match (ratio.ours.n, ratio.theirs.n) {
        (ours, theirs) if ours == theirs => ours.to_string(),
        (ours, theirs) => format!("{ours}/{theirs}"),
    }
}

/// A figure with four digits that count.
fn short(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 1000.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 5,
    };
    format!("{value:.places$}")
}

fn times(times: f64) -> String {
    let places = usize::from(times < 100.0);
    format!("{times:.places$}")
}

/// A target with what was measured.
#[derive(Clone, Debug)]
pub struct Judged {
    /// `dispatch`.
    pub workload: &'static str,
    /// What is to be reached.
    pub target: &'static Target,
    /// What was: the figure, or how many times better than Buildbot. None when
    /// it was not measured.
    pub reached: Option<f64>,
}

impl Judged {
    /// Whether it is met; none when it was not measured.
    #[must_use]
    pub fn met(&self) -> Option<bool> {
        let reached = self.reached?;
        Some(match self.target.limit {
            Limit::AtMost(most) => reached <= most,
            Limit::AtLeast(least)
            | Limit::TimesBetter(least)
            | Limit::TimesBetterThanTuned(least) => reached >= least,
        })
    }

    fn needed(&self) -> String {
        match self.target.limit {
            Limit::AtMost(most) => format!("at most {}", short(most)),
            Limit::AtLeast(least) => format!("at least {}", short(least)),
            Limit::TimesBetter(least) => format!("{} times Buildbot", times(least)),
            Limit::TimesBetterThanTuned(least) => {
                format!("{} times Buildbot, tuned", times(least))
            }
        }
    }
}

/// Judges the targets of these workloads.
#[must_use]
pub fn judge(workloads: &[&Workload], ours: &[Measurement], ratios: &[Ratio]) -> Vec<Judged> {
    let mut judged = Vec::new();
    for workload in workloads {
        for target in workload.targets {
            let of_buildbot = |tuned: bool| {
                let of = |ratio: &&Ratio| {
                    (ratio.workload, ratio.metric, ratio.tuned)
                        == (workload.name, target.metric, tuned)
                };
                ratios.iter().find(of).and_then(|ratio| ratio.times)
            };
            let reached = match target.limit {
                Limit::AtMost(_) | Limit::AtLeast(_) => {
                    let runs = of(ours, workload, false);
                    let measured = runs.iter().filter(|run| run.metric(target.metric).is_some());
                    let n = target.n.or(measured.map(|run| run.n).max());
                    n.and_then(|n| figure(&runs, target.metric, n)).map(|figure| figure.value)
                }
                Limit::TimesBetter(_) => of_buildbot(false),
                Limit::TimesBetterThanTuned(_) => of_buildbot(true),
            };
            judged.push(Judged { workload: workload.name, target, reached });
        }
    }
    judged
}

/// The targets as JSON.
#[must_use]
pub fn targets_json(judged: &[Judged]) -> Vec<Value> {
    judged
        .iter()
        .map(|judged| {
            json!({
                "workload": judged.workload, "metric": judged.target.metric,
                "n": judged.target.n, "needed": judged.needed(),
                "reached": judged.reached.map(|reached| rounded(reached, 5)),
                "met": judged.met(),
            })
        })
        .collect()
}

/// The targets for people.
#[must_use]
pub fn target_table(judged: &[Judged]) -> String {
    let mut table = format!(
        "{:<15} {:<38} {:<28} {:>12} {}",
        "workload", "metric", "needed", "reached", "target"
    );
    for one in judged {
        let metric = match one.target.n {
            Some(n) => format!("{} ({n})", one.target.metric),
            None => one.target.metric.to_owned(),
        };
        let met = match one.met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            table,
            "\n{:<15} {metric:<38} {:<28} {:>12} {met}",
            one.workload,
            one.needed(),
            one.reached.map_or("-".to_owned(), short)
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::registry::find;
    use super::*;

    fn run_of(system: &str, workload: &str, n: u64, metric: &str, value: f64) -> Measurement {
        let mut metrics = Map::new();
        metrics.insert(metric.to_owned(), Value::from(value));
        let (system, workload) = (system.to_owned(), workload.to_owned());
        Measurement { system, workload, n, params: json!({}), metrics }
    }

    fn our_runs() -> Vec<Measurement> {
        vec![
            run_of("botmaster-1", "throughput", 2_000, "builds_per_s", 1.0),
            run_of("botmaster-1", "throughput", 9_000, "builds_per_s", 3_000.0),
            run_of("botmaster-1", "throughput", 9_000, "builds_per_s", 1_000.0),
            run_of("botmaster-1", "throughput", 9_000, "builds_per_s", 2_000.0),
            run_of("botmaster-1", "dispatch", 100, "p50_ms", 5.0),
        ]
    }

    fn their_runs() -> Vec<Measurement> {
        vec![
            run_of("buildbot-4", "throughput", 500, "builds_per_s", 10.0),
            run_of("buildbot-4-tuned", "throughput", 500, "builds_per_s", 20.0),
            run_of("buildbot-4", "dispatch", 100, "p50_ms", 450.0),
        ]
    }

    #[test]
    fn ratios_say_how_many_times_better_we_are() {
        let (ours, theirs) = (our_runs(), their_runs());
        let ratios = compare(&ours, &theirs);
        let found: Vec<_> = ratios.iter().map(|ratio| (ratio.tuned, ratio.times)).collect();
        assert_eq!(found, [(false, Some(90.0)), (false, Some(200.0)), (true, Some(100.0))]);
        let table = ratio_table(&ratios);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.contains("10.0      200       20.0      100"), "{table}");
        assert_eq!(ratios_json(&ratios)[1]["times_better"], json!(200.0));
        assert!(compare(&ours, &[]).is_empty());
    }

    #[test]
    fn a_figure_of_nothing_has_no_ratio() {
        let ours = [run_of("botmaster-1", "dispatch", 100, "p50_ms", 0.0)];
        let ratios = compare(&ours, &their_runs());
        assert_eq!(ratios[0].times, None);
        assert!(ratio_table(&ratios).ends_with(" -"));
        let ours = [run_of("botmaster-1", "throughput", 9_000, "wall_s", 2.0)];
        let theirs = [run_of("buildbot-4", "throughput", 500, "wall_s", 4.0)];
        let ratios = compare(&ours, &theirs);
        assert_eq!(ratios[0].times, None);
        assert!(ratio_table(&ratios).contains(" 9000/500 wall_s"), "{}", ratio_table(&ratios));
    }

    #[test]
    fn systems_meet_at_their_largest_sizes_or_at_the_same() {
        let (mut ours, theirs) =
            (our_runs(), [run_of("b-4", "throughput", 2_000, "builds_per_s", 4.0)]);
        // The largest of all has no such figure.
        ours.push(run_of("botmaster-1", "throughput", 50_000, "wall_s", 1.0));
        let ours: Vec<&Measurement> = ours.iter().collect();
        let theirs: Vec<&Measurement> = theirs.iter().collect();
        let sizes = |compared| {
            figures(compared, &ours, &theirs, "builds_per_s").map(|(our, their)| (our.n, their.n))
        };
        assert_eq!(sizes(Compared::EachAtItsLargest), Some((9_000, 2_000)));
        assert_eq!(sizes(Compared::AtTheSame), Some((2_000, 2_000)));
        assert_eq!(figures(Compared::AtTheSame, &ours, &[], "builds_per_s"), None);
    }

    #[test]
    fn targets_are_met_missed_or_not_measured() {
        let workloads = [find("dispatch").unwrap(), find("throughput").unwrap()];
        let ours = our_runs();
        let judged = judge(&workloads, &ours, &compare(&ours, &their_runs()));
        let of = |workload: &str, metric: &str| -> Vec<Option<bool>> {
            let one =
                |judged: &&Judged| (judged.workload, judged.target.metric) == (workload, metric);
            judged.iter().filter(one).map(Judged::met).collect()
        };
        // 5 ms are too many, but 90 times better than Buildbot; 2,000 builds a
        // second are enough, but only 100 times better than the tuned one.
        assert_eq!(of("dispatch", "p50_ms"), [Some(false), Some(true)]);
        assert_eq!(of("throughput", "builds_per_s"), [Some(true), Some(false)]);
        assert_eq!(of("dispatch", "p99_ms"), [None]);
        let table = target_table(&judged);
        for text in ["MISSED", "not measured", "280 times Buildbot, tuned", "at most 4.00"] {
            assert!(table.contains(text), "{text}: {table}");
        }
        assert_eq!(targets_json(&judged)[0]["met"], json!(false));
    }

    #[test]
    fn the_summary_has_a_line_for_each_system_workload_and_size() {
        let (ours, theirs) = (our_runs(), their_runs());
        let lines = summary(&ours.iter().chain(&theirs).collect::<Vec<_>>());
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[1]["runs"], json!(3));
        assert_eq!(
            lines[1]["metrics"]["builds_per_s"],
            json!({ "median": 2_000.0, "min": 1_000.0, "max": 3_000.0 })
        );
    }
}
