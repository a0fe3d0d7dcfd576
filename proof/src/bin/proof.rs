//! `proof crash-points …` and `proof chaos …`: see `cargo xtask help`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use botmaster_proof::{Fault, chaos, crash, points};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", &[][..]),
    };
    let outcome = match command {
        "crash-points" => crash_points(rest),
        "chaos" => chaos_run(rest),
        other => Err(format!("there is no command `{other}`: crash-points, chaos")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(2)
        }
    }
}

/// The program with the crash points in it stands beside this one.
fn program() -> Result<PathBuf, Fault> {
    let me = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let program = me.with_file_name("botmaster_armed");
    if program.exists() { Ok(program) } else { Err(format!("{} is missing", program.display())) }
}

fn number<T: std::str::FromStr>(name: &str, value: Option<&String>) -> Result<T, Fault> {
    let value = value.ok_or_else(|| format!("{name} needs a number"))?;
    value.parse().map_err(|_| format!("{name} needs a number, not `{value}`"))
}

fn crash_points(arguments: &[String]) -> Result<bool, Fault> {
    let known = points::in_code()?;
    let (mut jobs, mut random, mut seed) = (4_usize, 0_usize, 1_u64);
    let (mut list, mut keep, mut wanted) = (false, false, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--list" => list = true,
            "--keep" => keep = true,
            "--jobs" => jobs = number(argument, rest.next())?,
            "--random" => random = number(argument, rest.next())?,
            "--seed" => seed = number(argument, rest.next())?,
            "--point" => {
                let name = rest.next().ok_or("--point needs a name; `--list` shows them")?;
                for name in name.split(',') {
                    let bare = name.split(':').next().unwrap_or(name);
                    if !known.contains(bare) {
                        return Err(format!("there is no point `{bare}`; `--list` shows them"));
                    }
                }
                wanted.push(name.split(',').map(str::to_owned).collect());
            }
            other => {
                return Err(format!("`{other}` is not known; see `cargo xtask help crash-points`"));
            }
        }
    }
    if list {
        for name in &known {
            println!("{}", json!({ "point": name }));
        }
        for name in points::LATER {
            println!("{}", json!({ "point": name, "later": true }));
        }
        println!("{}", json!({ "summary": "crash-points", "ok": true, "points": known.len() }));
        return Ok(true);
    }
    let in_work = known.iter().filter(|name| points::is_in_the_work(name));
    let reached: std::collections::BTreeSet<String> = in_work.cloned().collect();
    let groups: Vec<Vec<String>> = if !wanted.is_empty() {
        wanted
    } else if random > 0 {
        crash::random_pairs(&reached, random, seed)
    } else {
        crash::alone(&reached)
    };
    let begun = std::time::Instant::now();
    let told = |report: &crash::Report| {
        let verdict = &report.verdict;
        println!(
            "{}",
            json!({
                "point": report.points.join(","), "ok": report.is_well(),
                "reached": report.unreached.is_empty(), "unreached": report.unreached, "lives": report.lives,
                "requests": verdict.requests, "builds": verdict.builds,
                "rebuilt": verdict.rebuilt, "events": verdict.events, "violations": report.violations,
                "seconds": seconds(report.took),
            })
        );
    };
    let reports = crash::run_all(&program()?, &groups, jobs, keep, &told)?;
    let failed: Vec<String> = reports
        .iter()
        .filter(|report| !report.is_well())
        .map(|report| report.points.join(","))
        .collect();
    let unreached = reports.iter().filter(|report| !report.reached).count();
    let kills: u32 = reports.iter().map(|report| report.lives.saturating_sub(1)).sum();
    let violations: usize = reports.iter().map(|report| report.violations.len()).sum();
    println!(
        "{}",
        json!({
            "summary": "crash-points", "ok": failed.is_empty(), "runs": reports.len(),
            "points": known.len(), "kills": kills, "unreached": unreached, "violations": violations, "failed": failed,
            "seed": (random > 0).then_some(seed), "seconds": seconds(begun.elapsed()),
        })
    );
    Ok(failed.is_empty())
}

fn seconds(span: std::time::Duration) -> Value {
    json!((span.as_secs_f64() * 10.0).round() / 10.0)
}

fn chaos_run(arguments: &[String]) -> Result<bool, Fault> {
    let mut options = chaos::Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => options.seconds = number(argument, rest.next())?,
            "--seed" => options.seed = number(argument, rest.next())?,
            "--workers" => options.workers = number(argument, rest.next())?,
            "--keep" => options.keep = true,
            other => return Err(format!("`{other}` is not known; see `cargo xtask help chaos`")),
        }
    }
    let report = chaos::run(&program()?, &options)?;
    let verdict = &report.verdict;
    for violation in &verdict.violations {
        println!("{}", json!({ "violation": violation }));
    }
    println!(
        "{}",
        json!({
            "summary": "chaos", "ok": verdict.violations.is_empty(),
            "lost": verdict.lost, "overlapped": verdict.overlapped,
            "log_differences": verdict.log_differences,
            "kills": report.kills, "kills_master": report.kills_master,
            "kills_worker": report.kills_worker, "kills_keeper": report.kills_keeper,
            "requests": verdict.requests, "builds": verdict.builds,
            "rebuilt": verdict.rebuilt, "adopted": report.adopted, "carried": report.carried, "events": verdict.events,
            "violations": verdict.violations.len(),
            "seconds": seconds(report.took), "seed": options.seed,
        })
    );
    Ok(verdict.violations.is_empty())
}
