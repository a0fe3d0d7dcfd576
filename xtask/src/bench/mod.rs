//! `cargo xtask bench`: measures the program, and Buildbot beside it, on the
//! workloads of `bench/peer/workloads.md`.
//!
//! Deliberately absent: any way into the program that a user does not have. It
//! is measured over its HTTP API and its event stream, and through `/proc`.

mod api_under_load;
mod backlog;
mod chart;
mod client;
mod crash;
mod curves;
mod dispatch;
mod execution;
#[cfg(test)]
mod fake;
mod figures;
pub mod growth;
pub mod hot_functions;
mod http;
mod idle_fleet;
mod log_ingest;
mod master;
mod options;
mod peer;
mod proc;
mod programs;
mod ratios;
mod reconfig;
mod registry;
mod runs;
mod scratch;
pub mod soak;
mod sse;
mod throughput;
mod workloads;

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::report::{self, say};
use figures::Measurement;
use options::Options;
use proc::Guard;
use registry::Ground;
use runs::Found;

/// A machine with more load than this does something else, too.
const BUSY: f64 = 3.0;

/// Runs the workloads; true when all could be measured.
///
/// # Errors
/// When the arguments are wrong or the programs cannot be built.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("bench", arguments) {
        return Ok(true);
    }
    let options = Options::parse(arguments)?;
    let begin = Instant::now();
    let mut found = if options.from.is_empty() {
        let guard = Guard::start()?;
        let programs = programs::build(options.dev)?;
        if options.with_buildbot {
            peer::set_up(&guard)?;
        }
        // The build before counts for some of it.
        if let Some(load) = figures::load1().filter(|load| *load > BUSY) {
            say(&format!(
                "this machine is busy (load {load}): times are worth little, and ratios more"
            ));
        }
        let ground = Ground { programs, guard, keep: options.keep, quick: options.quick };
        runs::all(&options, &ground)
    } else {
        Found::read(&options.from)?
    };
    let ratios = ratios::compare(&found.ours, &found.theirs);
    let judged = ratios::judge(&options.workloads, &found.ours, &ratios);
    if !found.theirs.is_empty() {
        say(&format!("\n{}", ratios::ratio_table(&ratios)));
    }
    say(&format!("\n{}", ratios::target_table(&judged)));
    if let Some(file) = &options.chart
        && let Err(problem) = draw(file, &found, &ratios)
    {
        say(&problem);
        found.problems.push(problem);
    }
    let ok = found.problems.is_empty();
    report::line(&json!({
        "summary": "bench", "ok": ok, "problems": found.problems,
        "results": ratios::summary(&found.ours.iter().chain(&found.theirs).collect::<Vec<_>>()),
        "ratios": ratios::ratios_json(&ratios), "targets": ratios::targets_json(&judged),
        "seconds": report::seconds(begin.elapsed()),
    }));
    Ok(ok)
}

fn draw(file: &Path, found: &Found, ratios: &[ratios::Ratio]) -> Result<(), String> {
    let name = |all: &[Measurement]| all.first().map(|run| run.system.replace('-', " "));
    let (ours, theirs) = (name(&found.ours), name(&found.theirs));
    let theirs = theirs.unwrap_or_default().replace("buildbot", "Buildbot");
    let svg = chart::draw(ratios, &ours.unwrap_or_default(), &theirs)?;
    std::fs::write(file, svg).map_err(|error| format!("{}: {error}", file.display()))
}
