//! `cargo xtask bench`: measures the program, and Buildbot beside it, on the
//! workloads of `bench/peer/workloads.md`.
//!
//! Deliberately absent: any way into the program that a user does not have. It
//! is measured over its HTTP API and its event stream, and through `/proc`.

mod dispatch;
#[cfg(test)]
mod fake;
mod figures;
mod http;
mod master;
mod peer;
mod proc;
mod scratch;
mod sse;
mod throughput;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::report::{self, rounded, say};
use crate::tools;
use figures::{Measurement, over_runs, raised};
use master::Programs;
use proc::Guard;

/// How long a drain has to last to be a good measurement.
const GOAL: Duration = Duration::from_secs(20);

/// Requests of `throughput` at first, and at most.
const THROUGHPUT: (u64, u64) = (2_000, 400_000);

/// Requests of `dispatch`.
const DISPATCH: u64 = 100;

/// What the summary and the ratios show of each workload, and whether more is
/// better.
const SHOWN: &[(&str, &[(&str, bool)])] = &[
    (
        "dispatch",
        &[
            ("p50_ms", false),
            ("p99_ms", false),
            ("builds_per_s", true),
            ("master_cpu_s_per_build", false),
            ("master_peak_rss_mb", false),
        ],
    ),
    (
        "throughput",
        &[
            ("builds_per_s", true),
            ("wall_s", false),
            ("submit_s", false),
            ("master_cpu_s_per_build", false),
            ("master_peak_rss_mb", false),
            ("db_bytes_per_build", false),
        ],
    ),
];

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Options {
    workloads: Vec<String>,
    quick: bool,
    repeat: u32,
    n: Option<u64>,
    with_buildbot: bool,
    keep: bool,
    dev: bool,
}

/// Runs the workloads; true when all could be measured.
///
/// # Errors
/// When the arguments are wrong or the programs cannot be built.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("bench", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    let begin = Instant::now();
    let guard = Guard::start()?;
    let programs = build(options.dev)?;
    if options.with_buildbot {
        peer::set_up(&guard)?;
    }
    let (mut ours, mut theirs, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for workload in &options.workloads {
        say(&format!("── {workload} ──"));
        if let Err(problem) = measure(&options, workload, &programs, &guard, &mut ours) {
            say(&problem);
            problems.push(format!("{workload}: {problem}"));
        }
        if options.with_buildbot {
            say(&format!("── {workload}, Buildbot ──"));
            match peer::measure(&guard, workload, peer_size(&options, workload), options.repeat) {
                Ok(found) => theirs.extend(found),
                Err(problem) => {
                    say(&problem);
                    problems.push(format!("{workload}, Buildbot: {problem}"));
                }
            }
        }
    }
    let ratios = ratios(&ours, &theirs);
    if options.with_buildbot {
        say(&ratio_table(&ours, &theirs));
    }
    let ok = problems.is_empty();
    report::line(&json!({
        "summary": "bench", "ok": ok, "problems": problems,
        "results": summary(&ours.iter().chain(&theirs).collect::<Vec<_>>()),
        "ratios": ratios, "seconds": report::seconds(begin.elapsed()),
    }));
    Ok(ok)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let (mut workloads, mut quick, mut repeat, mut n) = (Vec::new(), false, None, None);
    let (mut with_buildbot, mut keep, mut dev) = (false, false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--quick" => quick = true,
            "--keep" => keep = true,
            "--dev" => dev = true,
            "--repeat" => repeat = Some(number(argument, value()?, 100)?),
            "--n" => n = Some(number(argument, value()?, 1_000_000)?),
            "--with" => match value()?.as_str() {
                "buildbot" => with_buildbot = true,
                other => return Err(format!("`{other}` cannot be measured; `buildbot` can")),
            },
            name if SHOWN.iter().any(|(workload, _)| *workload == name) => {
                if !workloads.contains(argument) {
                    workloads.push(argument.clone());
                }
            }
            other => {
                return Err(format!(
                    "`{other}` is no workload and no option; see `cargo xtask help bench`"
                ));
            }
        }
    }
    if workloads.is_empty() {
        return Err("no workload given: dispatch, throughput, or both".to_owned());
    }
    // At most 100, so it fits.
    let repeat = repeat.map_or(if quick { 1 } else { 3 }, |repeat| repeat as u32);
    Ok(Options { workloads, quick, repeat, n, with_buildbot, keep, dev })
}

fn number(name: &str, text: &str, most: u64) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| (1..=most).contains(number))
        .ok_or(format!("{name} needs a whole number from 1 to {most}, not `{text}`"))
}

/// Builds what is measured, as a release unless only the command itself is
/// tried out.
fn build(dev: bool) -> Result<Programs, String> {
    tools::need_programs()?;
    say(if dev { "building without --release" } else { "building with --release" });
    let mut command = tools::cargo();
    command.args(["build", "--message-format=json-render-diagnostics"]);
    command.args((!dev).then_some("--release"));
    command.args(["-p", "botmaster", "--bin", "botmaster"]);
    command.args(["-p", "botmaster-bench", "--bin", "load_workers"]);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err("the build failed".to_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let find = |name: &str| {
        executable(&messages, name).ok_or(format!("cargo did not say where it built `{name}`"))
    };
    let botmaster = find("botmaster")?;
    let mut version = tools::plain(&botmaster.to_string_lossy());
    let told = version.arg("--version").stdout(Stdio::piped()).output();
    let told = told.map_err(|error| format!("{}: {error}", botmaster.display()))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let version = told.split_whitespace().nth(1).ok_or("`botmaster --version` tells none")?;
    let system = format!("botmaster-{version}{}", if dev { "-dev" } else { "" });
    Ok(Programs { botmaster, load_workers: find("load_workers")?, system })
}

/// Where cargo says that it has put a program.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let of_that_name = line.pointer("/target/name")?.as_str()? == name;
        let path = line.get("executable")?.as_str()?;
        of_that_name.then(|| PathBuf::from(path))
    })
}

fn measure(
    options: &Options,
    workload: &str,
    programs: &Programs,
    guard: &Guard,
    found: &mut Vec<Measurement>,
) -> Result<(), String> {
    if workload == "dispatch" {
        for _ in 0..options.repeat {
            let n = options.n.unwrap_or(DISPATCH);
            let measurement = dispatch::measure(programs, guard, n, options.keep)?;
            measurement.emit();
            found.push(measurement);
        }
        return Ok(());
    }
    let mut n = options.n.unwrap_or(THROUGHPUT.0);
    loop {
        let (measurement, lasted) = throughput::measure(programs, guard, n, options.keep)?;
        measurement.emit();
        found.push(measurement);
        let fixed = options.quick || options.n.is_some();
        let last = fixed || lasted >= GOAL || n >= THROUGHPUT.1;
        // Sizes on the way to the last one are measured once, to find the next.
        if last || n == THROUGHPUT.0 {
            for _ in 1..options.repeat {
                let (measurement, _) = throughput::measure(programs, guard, n, options.keep)?;
                measurement.emit();
                found.push(measurement);
            }
        }
        if last {
            return Ok(());
        }
        n = raised(n, lasted, GOAL).min(THROUGHPUT.1);
        say(&format!("the drain lasted {:.1} s; now with {n} requests", lasted.as_secs_f64()));
    }
}

/// Buildbot is slower, and gets no more than the full size of the workload.
fn peer_size(options: &Options, workload: &str) -> u64 {
    match (workload, options.n) {
        ("dispatch", n) => n.unwrap_or(DISPATCH),
        (_, None) if options.quick => 500,
        (_, n) => n.unwrap_or(THROUGHPUT.0).min(THROUGHPUT.0),
    }
}

fn shown(workload: &str) -> &'static [(&'static str, bool)] {
    SHOWN.iter().find(|(name, _)| *name == workload).map_or(&[], |(_, metrics)| metrics)
}

/// Median, least and greatest of each metric, for each system, workload and
/// size.
fn summary(all: &[&Measurement]) -> Vec<Value> {
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
            let mut metrics = Map::new();
            for (metric, _) in shown(workload) {
                if let Some((median, least, greatest)) = over_runs(&runs, metric) {
                    let figures = json!({
                        "median": rounded(median, 5), "min": rounded(least, 5),
                        "max": rounded(greatest, 5),
                    });
                    metrics.insert((*metric).to_owned(), figures);
                }
            }
            json!({
                "system": system, "workload": workload, "n": n, "runs": runs.len(),
                "metrics": metrics,
            })
        })
        .collect()
}

/// One comparison: workload, metric, our median, Buildbot's, and how many times
/// better ours is.
type Ratio = (String, String, f64, f64, f64);

fn compare(ours: &[Measurement], theirs: &[Measurement]) -> Vec<Ratio> {
    let mut found = Vec::new();
    for (workload, metrics) in SHOWN {
        // Each system at the largest size that it was measured with.
        let largest = |all: &[Measurement]| -> Vec<Measurement> {
            let of = |run: &&Measurement| run.workload == *workload;
            let n = all.iter().filter(of).map(|run| run.n).max();
            all.iter().filter(of).filter(|run| Some(run.n) == n).cloned().collect()
        };
        let (our_runs, their_runs) = (largest(ours), largest(theirs));
        for (metric, more_is_better) in *metrics {
            let median = |runs: &[Measurement]| {
                over_runs(&runs.iter().collect::<Vec<_>>(), metric).map(|(median, ..)| median)
            };
            // Times for different numbers of requests cannot be compared.
            if *metric == "wall_s" || *metric == "submit_s" {
                continue;
            }
            if let (Some(our), Some(their)) = (median(&our_runs), median(&their_runs))
                && our > 0.0
                && their > 0.0
            {
                let ratio = if *more_is_better { our / their } else { their / our };
                found.push(((*workload).to_owned(), (*metric).to_owned(), our, their, ratio));
            }
        }
    }
    found
}

fn ratios(ours: &[Measurement], theirs: &[Measurement]) -> Vec<Value> {
    compare(ours, theirs)
        .into_iter()
        .map(|(workload, metric, our, their, ratio)| {
            json!({
                "workload": workload, "metric": metric, "ours": rounded(our, 5),
                "buildbot": rounded(their, 5), "times_better": rounded(ratio, 2),
            })
        })
        .collect()
}

fn ratio_table(ours: &[Measurement], theirs: &[Measurement]) -> String {
    let mut table = format!(
        "{:<12} {:<24} {:>12} {:>12} {:>14}",
        "workload", "metric", "ours", "buildbot", "times better"
    );
    for (workload, metric, our, their, ratio) in compare(ours, theirs) {
        table.push_str(&format!(
            "\n{workload:<12} {metric:<24} {our:>12.4} {their:>12.4} {ratio:>14.2}"
        ));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn run_of(system: &str, workload: &str, n: u64, metric: &str, value: f64) -> Measurement {
        let mut metrics = Map::new();
        metrics.insert(metric.to_owned(), Value::from(value));
        let (system, workload) = (system.to_owned(), workload.to_owned());
        Measurement { system, workload, n, params: json!({}), metrics }
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let options = parse(&words("dispatch throughput --with buildbot --repeat 2")).unwrap();
        assert_eq!(options.workloads, ["dispatch", "throughput"]);
        assert!(options.with_buildbot && !options.quick);
        assert_eq!((options.repeat, options.n), (2, None));
        assert_eq!(parse(&words("dispatch --quick")).unwrap().repeat, 1);
        assert_eq!(parse(&words("throughput")).unwrap().repeat, 3);
        let problem = |text: &str| parse(&words(text)).unwrap_err();
        assert!(problem("").contains("no workload"));
        assert!(problem("speed").contains("`speed` is no workload"));
        assert!(problem("dispatch --n 0").contains("from 1 to 1000000, not `0`"));
        assert!(problem("dispatch --with jenkins").contains("`jenkins`"));
        assert!(problem("dispatch --repeat").contains("needs a value"));
    }

    #[test]
    fn buildbot_gets_no_more_than_the_full_size() {
        let size = |text: &str, workload| peer_size(&parse(&words(text)).unwrap(), workload);
        assert_eq!(size("throughput", "throughput"), 2_000);
        assert_eq!(size("throughput --quick", "throughput"), 500);
        assert_eq!(size("throughput --n 90000", "throughput"), 2_000);
        assert_eq!(size("dispatch", "dispatch"), 100);
    }

    #[test]
    fn cargo_tells_where_the_programs_are() {
        let messages = "noise\n{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"botmaster\"},\
                        \"executable\":null}\n{\"target\":{\"name\":\"botmaster\"},\
                        \"executable\":\"/t/release/botmaster\"}\n";
        assert_eq!(executable(messages, "botmaster"), Some("/t/release/botmaster".into()));
        assert_eq!(executable(messages, "load_workers"), None);
    }

    #[test]
    fn ratios_say_how_many_times_better_we_are() {
        let ours = [
            run_of("botmaster-1", "throughput", 2_000, "builds_per_s", 1.0),
            run_of("botmaster-1", "throughput", 9_000, "builds_per_s", 300.0),
            run_of("botmaster-1", "throughput", 9_000, "builds_per_s", 100.0),
            run_of("botmaster-1", "throughput", 9_000, "builds_per_s", 200.0),
            run_of("botmaster-1", "dispatch", 100, "p50_ms", 4.0),
        ];
        let theirs = [
            run_of("buildbot-4", "throughput", 500, "builds_per_s", 10.0),
            run_of("buildbot-4", "dispatch", 100, "p50_ms", 40.0),
        ];
        let found: Vec<String> =
            ratios(&ours, &theirs).iter().map(|ratio| ratio["times_better"].to_string()).collect();
        assert_eq!(found, ["10.0", "20.0"]);
        assert!(ratio_table(&ours, &theirs).contains("builds_per_s"));
        assert!(ratios(&ours, &[]).is_empty());
        let all: Vec<&Measurement> = ours.iter().chain(&theirs).collect();
        let lines = summary(&all);
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[1]["runs"], json!(3));
        assert_eq!(
            lines[1]["metrics"]["builds_per_s"],
            json!({ "median": 200.0, "min": 100.0, "max": 300.0 })
        );
    }
}
