//! W4 `backlog`: many requests wait; a master starts with them, a worker comes,
//! and builds them one after the other.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures::{Measurement, Metrics};
use super::master::Master;
use super::proc::{cpu_seconds, memory_mb, settle};
use super::registry::Ground;
use super::scratch::{Scratch, builder_name};
use crate::report::rounded;

/// Requests whose acceptance is measured.
const FIRST: u64 = 500;

/// Starts with the same queue, and how long builds are counted in each; with
/// `--quick`, and without.
const STARTS: (u32, u32) = (1, 3);
const WINDOW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));

/// How long the first build may take.
const FIRST_LIMIT: Duration = Duration::from_secs(120);

/// Measures several starts with one queue.
///
/// # Errors
/// When anything does not go as it should.
pub fn measure(ground: &Ground, n: u64) -> Result<Vec<Measurement>, String> {
    let scratch = Scratch::new("backlog", ground.keep, &ground.guard)?;
    let config = scratch.write_configuration(1, 1)?;
    let mut master = Master::start(&ground.programs, &scratch, &config, &ground.guard)?;
    let (first, builders) = (n.min(FIRST), [builder_name(0)]);
    let accept = master.submit(first, &builders, 0)?;
    master.submit(n - first, &builders, first)?;
    settle(master.id(), 60)?;
    master.end()?;
    scratch.keep_data()?;
    let stored = [
        ("accept_per_s", rounded(first as f64 / accept.as_secs_f64().max(1e-6), 1)),
        ("db_mb", rounded(scratch.database_bytes() as f64 / 1e6, 1)),
    ];
    let (starts, window) = if ground.quick { (STARTS.0, WINDOW.0) } else { (STARTS.1, WINDOW.1) };
    let mut found = Vec::new();
    for _ in 0..starts {
        scratch.restore_data()?;
        let mut metrics = drain(ground, &scratch, &config, n, window)?;
        metrics.extend(stored.iter().map(|(name, figure)| ((*name).to_owned(), figure.clone())));
        found.push(Measurement {
            system: ground.programs.system.clone(),
            workload: "backlog".to_owned(),
            n,
            params: json!({ "protocol": "json_v1" }),
            metrics,
        });
    }
    Ok(found)
}

/// One start: until the API answers, the first build, and a window of builds.
fn drain(
    ground: &Ground,
    scratch: &Scratch,
    config: &std::path::Path,
    n: u64,
    window: Duration,
) -> Result<Metrics, String> {
    let mut master = Master::start(&ground.programs, scratch, config, &ground.guard)?;
    settle(master.id(), 120)?;
    let startup_cpu = cpu_seconds(master.id())?;
    let rss_idle = memory_mb(master.id(), "VmRSS")?;
    let mut completions = master.completions()?;
    let attached = master.events("workers/*/connected")?;

    let begin = Instant::now();
    master.start_load(scratch, 1, &[])?;
    if !completions.wait(1, begin + FIRST_LIMIT)? {
        master.check()?;
        return Err(format!("no build ended within {} s", FIRST_LIMIT.as_secs()));
    }
    let end = completions.times.first().copied().unwrap_or(begin);
    let first_cpu = cpu_seconds(master.id())? - startup_cpu;
    let attach = attached.next(Instant::now() + Duration::from_secs(5))?;
    let (attach, _) = attach.ok_or("no event told that the worker was attached")?;

    let (counted, cpu_before, from) =
        (completions.times.len(), cpu_seconds(master.id())?, Instant::now());
    completions.wait(n as usize, from + window)?;
    let (builds, lasted) = counted_in(&completions.times, counted, from, n);
    let cpu = cpu_seconds(master.id())? - cpu_before;
    master.check()?;
    if completions.not_success > 0 {
        return Err(format!("{} builds did not end with success", completions.not_success));
    }
    let peak = memory_mb(master.id(), "VmHWM")?;
    let after_attach = end.saturating_duration_since(attach);
    let figures: [(&str, Value); 10] = [
        ("api_ready_s", rounded(master.api_ready().as_secs_f64(), 3)),
        ("startup_cpu_s", rounded(startup_cpu, 2)),
        ("rss_idle_mb", rounded(rss_idle, 1)),
        ("first_build_done_s_after_worker_start", rounded((end - begin).as_secs_f64(), 4)),
        ("first_build_ms_after_attach", rounded(after_attach.as_secs_f64() * 1000.0, 2)),
        ("first_build_master_cpu_s", rounded(first_cpu, 3)),
        ("drain_builds_per_s", rounded(builds as f64 / lasted.as_secs_f64().max(1e-6), 2)),
        ("drain_master_cpu_s_per_build", rounded(cpu / (builds.max(1)) as f64, 6)),
        ("window_s", rounded(lasted.as_secs_f64(), 2)),
        ("master_peak_rss_mb", rounded(peak, 1)),
    ];
    master.abandon();
    Ok(figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect())
}

/// How many builds ended since the window began, and how long it was: when the
/// queue was empty sooner, until the last one.
fn counted_in(times: &[Instant], before: usize, from: Instant, n: u64) -> (usize, Duration) {
    let builds = times.len().saturating_sub(before);
    let all_done = times.len() as u64 >= n;
    let last = times.last().copied().filter(|_| all_done);
    (builds, last.unwrap_or_else(Instant::now).saturating_duration_since(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_with_the_last_build_when_none_is_left() {
        let from = Instant::now();
        let ends: Vec<Instant> = (0..5).map(|i| from + Duration::from_millis(i)).collect();
        assert_eq!(counted_in(&ends, 2, from, 5), (3, Duration::from_millis(4)));
        let (builds, lasted) = counted_in(&ends, 5, from, 6);
        assert!(builds == 0 && lasted >= from.elapsed().saturating_sub(Duration::from_secs(1)));
    }
}
