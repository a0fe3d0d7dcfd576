//! `cargo xtask growth`: what one build costs while one thing grows and the
//! others stay as they are.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::curves;
use super::figures::{Measurement, over_runs};
use super::master::{Completions, Master};
use super::options::number;
use super::proc::{Guard, Process, cpu_seconds, memory_mb, settle};
use super::programs;
use super::registry::Ground;
use super::scratch::{Layout, Scratch, builder_name};
use crate::report::{self, rounded, say};

/// How often a queue is filled up before it counts as long enough.
const FILLS: u32 = 20;

/// The metric that should stay as it is.
const COST: &str = "master_cpu_ms_per_build";

/// Requests that are submitted at a time, for as many builds that ended.
const PART: u64 = 50;

/// Workers that a builder lists.
const LISTED: u32 = 10;

/// Builds that are measured, with `--quick` and without.
const BUILDS: (u64, u64) = (2_000, 10_000);

/// Builds before those: so many that nothing is left of the submission of a
/// long queue.
const WARM_UP: u64 = 2_000;

/// How long all builds of a point may take, and filling a database.
const POINT_LIMIT: Duration = Duration::from_secs(300);
const FILL_LIMIT: Duration = Duration::from_secs(1_800);

/// How many builds are written side by side when a database is filled.
const FILL_SIDE_BY_SIDE: u64 = 1_000;

/// One thing that grows.
#[derive(Debug)]
struct Curve {
    name: &'static str,
    /// What grows, for people.
    of: &'static str,
    points: &'static [u64],
    /// Points that are left out with `--quick`.
    slow: u64,
    setting: fn(u64) -> Setting,
}

/// What a point is measured with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Setting {
    builders: u32,
    workers: u32,
    queued: u64,
    stored: u64,
}

const USUAL: Setting = Setting { builders: 20, workers: 50, queued: 1_000, stored: 0 };

const CURVES: [Curve; 4] = [
    Curve {
        name: "queue",
        of: "requests that wait",
        points: &[100, 1_000, 10_000, 100_000],
        slow: u64::MAX,
        setting: |queued| Setting { queued, ..USUAL },
    },
    Curve {
        name: "builders",
        of: "builders",
        points: &[10, 100, 1_000],
        slow: u64::MAX,
        setting: |builders| Setting { builders: builders as u32, ..USUAL },
    },
    Curve {
        name: "workers",
        of: "workers",
        points: &[10, 100, 1_000, 10_000],
        slow: u64::MAX,
        setting: |workers| Setting {
            builders: 1_000,
            workers: workers as u32,
            queued: 100,
            ..USUAL
        },
    },
    Curve {
        name: "database",
        of: "builds in the database",
        points: &[0, 10_000, 100_000, 1_000_000],
        slow: 1_000_000,
        setting: |stored| Setting { stored, ..USUAL },
    },
];

struct Options {
    quick: bool,
    curves: Vec<&'static Curve>,
    repeat: u32,
    dev: bool,
    keep: bool,
    chart: Option<PathBuf>,
}

/// Measures the curves; true when all could be.
///
/// # Errors
/// When the arguments are wrong or the programs cannot be built.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("growth", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    let begin = Instant::now();
    let guard = Guard::start()?;
    let programs = programs::build(options.dev)?;
    let ground = Ground { programs, guard, keep: options.keep, quick: options.quick };
    let (mut problems, mut summary, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    let mut lines = Vec::new();
    for curve in &options.curves {
        say(&format!("── {} ──", curve.name));
        let found = match measure(&ground, curve, options.repeat) {
            Ok(found) => found,
            Err((found, problem)) => {
                say(&problem);
                problems.push(format!("{}: {problem}", curve.name));
                found
            }
        };
        tables.push(table(curve, &found));
        summary.push(summed(curve, &found));
        lines.push((curve.of, medians(curve, &found, COST)));
    }
    say(&tables.join("\n\n"));
    if let Some(file) = &options.chart {
        let title = "Processor time of the master for each build";
        let svg = curves::draw(&lines, title)?;
        std::fs::write(file, svg).map_err(|error| format!("{}: {error}", file.display()))?;
        say(&format!("{} is written", file.display()));
    }
    let ok = problems.is_empty();
    report::line(&json!({
        "summary": "growth", "ok": ok, "problems": problems, "curves": summary,
        "seconds": report::seconds(begin.elapsed()),
    }));
    Ok(ok)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let (mut quick, mut dev, mut keep) = (false, false, false);
    let (mut curves, mut repeat, mut chart) = (Vec::new(), None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--quick" => quick = true,
            "--dev" => dev = true,
            "--keep" => keep = true,
            "--chart" => chart = Some(PathBuf::from(value()?)),
            "--repeat" => repeat = Some(number(argument, value()?, 100)? as u32),
            "--curve" => {
                let name = value()?;
                let known = CURVES.iter().find(|curve| curve.name == name);
                curves.push(known.ok_or(format!("there is no curve `{name}`"))?);
            }
            other => {
                return Err(format!("`{other}` is no option; see `cargo xtask help growth`"));
            }
        }
    }
    if curves.is_empty() {
        curves = CURVES.iter().collect();
    }
    let repeat = repeat.unwrap_or(if quick { 1 } else { 3 });
    Ok(Options { quick, curves, repeat, dev, keep, chart })
}

/// Measures all points of a curve. When one fails, gives those before it, too.
fn measure(
    ground: &Ground,
    curve: &Curve,
    repeat: u32,
) -> Result<Vec<Measurement>, (Vec<Measurement>, String)> {
    let mut found = Vec::new();
    let points = curve.points.iter().filter(|at| !ground.quick || **at < curve.slow);
    for at in points {
        let setting = (curve.setting)(*at);
        if let Err(problem) = point(ground, curve, *at, setting, repeat, &mut found) {
            return Err((found, format!("at {at}: {problem}")));
        }
    }
    Ok(found)
}

fn point(
    ground: &Ground,
    curve: &Curve,
    at: u64,
    setting: Setting,
    repeat: u32,
    found: &mut Vec<Measurement>,
) -> Result<(), String> {
    let scratch = Scratch::new("growth", ground.keep, &ground.guard)?;
    let layout = Layout::new(setting.builders, setting.workers).each(LISTED);
    let config = scratch.write_layout(&layout)?;
    if setting.stored > 0 {
        fill(ground, &scratch, setting.stored)?;
    }
    scratch.keep_data()?;
    for _ in 0..repeat {
        scratch.restore_data()?;
        let measurement = once(ground, &scratch, &config, curve, at, setting)?;
        measurement.emit();
        found.push(measurement);
    }
    Ok(())
}

/// Writes so many builds through the store, as a master does.
fn fill(ground: &Ground, scratch: &Scratch, builds: u64) -> Result<(), String> {
    let begin = Instant::now();
    let mut command = Command::new(ground.programs.tool("store_cost"));
    command.args(["--warm-up", "0", "--builds", &builds.to_string()]);
    command.args(["--in-flight", &FILL_SIDE_BY_SIDE.to_string(), "--dir"]).arg(scratch.data());
    let output = scratch.path().join("fill.out");
    let mut process = Process::start("store_cost", command, &output, &ground.guard)?;
    match process.wait(begin + FILL_LIMIT) {
        Some(status) if status.success() => {
            say(&format!("{builds} builds written in {:.0} s", begin.elapsed().as_secs_f64()));
            Ok(())
        }
        Some(_) => process.check(),
        None => Err(format!("{builds} builds were not written in time")),
    }
}

fn once(
    ground: &Ground,
    scratch: &Scratch,
    config: &std::path::Path,
    curve: &Curve,
    at: u64,
    setting: Setting,
) -> Result<Measurement, String> {
    let builds = if ground.quick { BUILDS.0 } else { BUILDS.1 };
    let mut master = Master::start(&ground.programs, scratch, config, &ground.guard)?;
    let begin = Instant::now();
    master.load_workers(scratch, setting.workers)?;
    let attach = begin.elapsed();
    settle(master.id(), 120)?;
    let mut feed = Feed {
        completions: master.completions()?,
        builders: (0..setting.builders).map(builder_name).collect(),
        queued: setting.queued,
        submitted: 0,
        deadline: Instant::now() + POINT_LIMIT,
    };
    feed.fill(&mut master)?;
    feed.run(&mut master, WARM_UP)?;
    let (cpu_before, from, ended) = (cpu_seconds(master.id())?, Instant::now(), feed.ended()?);
    feed.run(&mut master, builds)?;
    let cpu = cpu_seconds(master.id())? - cpu_before;
    let (lasted, builds) = (from.elapsed(), feed.ended()? - ended);
    master.check()?;
    if feed.completions.not_success > 0 {
        return Err(format!("{} builds did not end with success", feed.completions.not_success));
    }
    let figures: [(&str, Value); 6] = [
        (COST, rounded(cpu * 1000.0 / builds as f64, 4)),
        ("builds_per_s", rounded(builds as f64 / lasted.as_secs_f64(), 1)),
        ("rss_mb", rounded(memory_mb(master.id(), "VmRSS")?, 1)),
        ("peak_rss_mb", rounded(memory_mb(master.id(), "VmHWM")?, 1)),
        ("api_ready_s", rounded(master.api_ready().as_secs_f64(), 3)),
        ("attach_s", rounded(attach.as_secs_f64(), 2)),
    ];
    master.abandon();
    Ok(Measurement {
        system: ground.programs.system.clone(),
        workload: format!("growth_{}", curve.name),
        n: at,
        params: json!({
            "builders": setting.builders, "workers": setting.workers, "listed": LISTED,
            "queued": setting.queued, "stored": setting.stored, "builds": builds,
        }),
        metrics: figures.map(|(name, figure)| (name.to_owned(), figure)).into_iter().collect(),
    })
}

/// Keeps the queue as long as it is while builds end.
struct Feed {
    completions: Completions,
    builders: Vec<String>,
    queued: u64,
    submitted: u64,
    deadline: Instant,
}

impl Feed {
    fn submit(&mut self, master: &mut Master, n: u64) -> Result<(), String> {
        master.submit(n, &self.builders, self.submitted)?;
        self.submitted += n;
        Ok(())
    }

    /// How many builds have ended, as far as it has been told.
    fn ended(&mut self) -> Result<u64, String> {
        self.completions.wait(usize::MAX, Instant::now())?;
        Ok(self.completions.times.len() as u64)
    }

    /// Makes the queue as long as it is to be. Builds end meanwhile, so what
    /// they took away is made up for.
    fn fill(&mut self, master: &mut Master) -> Result<(), String> {
        for _ in 0..FILLS {
            let missing = missing(self.queued, self.submitted, self.ended()?);
            if missing <= PART.max(self.queued / 20) {
                break;
            }
            self.submit(master, missing)?;
        }
        Ok(())
    }

    /// Until so many more builds have ended.
    fn run(&mut self, master: &mut Master, builds: u64) -> Result<(), String> {
        let end = self.ended()? + builds;
        loop {
            let ended = self.ended()?;
            if ended >= end {
                return Ok(());
            }
            if missing(self.queued, self.submitted, ended) >= PART {
                self.submit(master, PART)?;
            } else if !self.completions.wait(ended as usize + 1, self.deadline)? {
                master.check()?;
                return Err(format!("only {ended} builds ended within {POINT_LIMIT:?}"));
            }
        }
    }
}

/// How many requests the queue lacks.
fn missing(queued: u64, submitted: u64, ended: u64) -> u64 {
    (queued + ended).saturating_sub(submitted)
}

/// Median of a metric at each point.
fn medians(curve: &Curve, found: &[Measurement], metric: &str) -> Vec<(u64, f64)> {
    let at = |n: &u64| {
        let runs: Vec<&Measurement> = found.iter().filter(|run| run.n == *n).collect();
        over_runs(&runs, metric).map(|(median, ..)| (*n, median))
    };
    curve.points.iter().filter_map(at).collect()
}

/// How many times the last point's figure is that of the first.
fn last_over_first(points: &[(u64, f64)]) -> Option<f64> {
    let ((_, first), (_, last)) = (points.first()?, points.last()?);
    (points.len() > 1 && *first > 0.0).then(|| last / first)
}

fn summed(curve: &Curve, found: &[Measurement]) -> Value {
    let cpu = medians(curve, found, COST);
    let ratio = last_over_first(&cpu).map_or(Value::Null, |ratio| rounded(ratio, 2));
    let points: Vec<Value> = cpu
        .iter()
        .zip(medians(curve, found, "builds_per_s"))
        .map(|((n, cpu), (_, speed))| {
            json!({ "n": n, "master_cpu_ms_per_build": rounded(*cpu, 4), "builds_per_s": speed })
        })
        .collect();
    json!({ "curve": curve.name, "points": points, "last_over_first": ratio })
}

fn table(curve: &Curve, found: &[Measurement]) -> String {
    let cpu = medians(curve, found, COST);
    let most = cpu.iter().map(|(_, ms)| *ms).fold(0.0, f64::max);
    let mut text =
        format!("{:>22} {:>14} {:>10} {:>8}", curve.of, "CPU ms a build", "builds/s", "MB");
    let others = medians(curve, found, "builds_per_s").into_iter();
    let others = others.zip(medians(curve, found, "rss_mb"));
    for ((n, ms), ((_, speed), (_, memory))) in cpu.iter().zip(others) {
        let bar = "▇".repeat((ms / most.max(f64::MIN_POSITIVE) * 20.0).round() as usize);
        text.push_str(&format!("\n{n:>22} {ms:>14.4} {speed:>10.0} {memory:>8.0} {bar}"));
    }
    if let Some(ratio) = last_over_first(&cpu) {
        text.push_str(&format!("\n{:>22} {ratio:>14.2}", "last over first"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(n: u64, cpu: f64) -> Measurement {
        let metrics = json!({
            "master_cpu_ms_per_build": cpu, "builds_per_s": 1000.0, "rss_mb": 20.0,
        });
        Measurement {
            system: "botmaster-1".into(),
            workload: "growth_builders".into(),
            n,
            params: json!({}),
            metrics: metrics.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let parse =
            |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = parse("--quick --curve queue --curve workers").unwrap();
        let names: Vec<&str> = options.curves.iter().map(|curve| curve.name).collect();
        assert_eq!((names.as_slice(), options.repeat), (&["queue", "workers"][..], 1));
        let options = parse("").unwrap();
        assert_eq!((options.curves.len(), options.repeat), (CURVES.len(), 3));
        assert!(parse("--curve speed").err().unwrap().contains("no curve `speed`"));
        assert!(parse("--repeat 0").err().unwrap().contains("--repeat"));
        assert!(parse("fast").err().unwrap().contains("`fast` is no option"));
    }

    #[test]
    fn one_thing_grows_at_a_time() {
        for curve in &CURVES {
            let settings: Vec<Setting> =
                curve.points.iter().map(|at| (curve.setting)(*at)).collect();
            for pair in settings.windows(2) {
                let (one, two) = (pair[0], pair[1]);
                let changed = [
                    one.builders != two.builders,
                    one.workers != two.workers,
                    one.queued != two.queued,
                    one.stored != two.stored,
                ];
                assert_eq!(changed.iter().filter(|it| **it).count(), 1, "{}", curve.name);
            }
            assert!(settings.iter().all(|setting| setting.queued >= PART));
            assert!(crate::help::GROWTH.contains(&format!("\n  {} ", curve.name)));
        }
    }

    #[test]
    fn a_queue_is_filled_up_to_its_length() {
        assert_eq!(missing(100, 0, 0), 100);
        assert_eq!(missing(100, 100, 60), 60);
        assert_eq!(missing(100, 170, 60), 0);
    }

    #[test]
    fn a_curve_is_the_medians_of_its_points() {
        let curve = CURVES.iter().find(|curve| curve.name == "builders").unwrap();
        let found = [(10, 0.5), (10, 0.7), (10, 0.4), (1_000, 1.0)].map(|(n, ms)| run_of(n, ms));
        let summed = summed(curve, &found);
        assert_eq!(summed["last_over_first"], json!(2.0));
        assert_eq!(summed["points"][0]["master_cpu_ms_per_build"], json!(0.5));
        let text = table(curve, &found);
        assert!(text.contains("builders") && text.contains("last over first"), "{text}");
        assert_eq!(last_over_first(&[(1, 1.0)]), None);
        assert!(table(curve, &[]).lines().count() == 1);
    }
}
