//! W2 `throughput`: 20 builders, 50 workers in one load process, many requests
//! at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures::{Measurement, Metrics};
use super::master::Master;
use super::proc::{cpu_seconds, memory_mb, settle};
use super::registry::Ground;
use super::scratch::{Scratch, builder_name};
use crate::report::rounded;

const BUILDERS: u32 = 20;
const WORKERS: u32 = 50;

/// Builds before the measured ones.
const WARM_UP: u64 = 50;

/// How long all builds may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(900);

/// Tokens of the warm-up: far from those that are measured.
const WARM_UP_TOKENS: u64 = 1_000_000_000;

/// Measures once, with a fresh database.
///
/// # Errors
/// When anything does not go as it should.
pub fn measure(ground: &Ground, n: u64) -> Result<Vec<Measurement>, String> {
    let scratch = Scratch::new("throughput", ground.keep, &ground.guard)?;
    let config = scratch.write_configuration(BUILDERS, WORKERS)?;
    let mut master = Master::start(&ground.programs, &scratch, &config, &ground.guard)?;
    master.load_workers(&scratch, WORKERS)?;
    let mut completions = master.completions()?;
    let builders: Vec<String> = (0..BUILDERS).map(builder_name).collect();
    master.submit(WARM_UP, &builders, WARM_UP_TOKENS)?;
    if !completions.wait(WARM_UP as usize, Instant::now() + Duration::from_secs(120))? {
        master.check()?;
        return Err("the warm-up did not end within 120 s".to_owned());
    }
    settle(master.id(), 60)?;

    let rss_before = memory_mb(master.id(), "VmRSS")?;
    let bytes_before = scratch.data_bytes();
    let (cpu_before, begin) = (cpu_seconds(master.id())?, Instant::now());
    let submit = master.submit(n, &builders, 0)?;
    let all = (WARM_UP + n) as usize;
    if !completions.wait(all, begin + DRAIN_LIMIT)? {
        master.check()?;
        return Err(format!(
            "only {} of {n} builds ended within {} s",
            completions.times.len().saturating_sub(WARM_UP as usize),
            DRAIN_LIMIT.as_secs()
        ));
    }
    let cpu = cpu_seconds(master.id())? - cpu_before;
    let end = completions.times.last().copied().unwrap_or(begin);
    let wall = end.saturating_duration_since(begin);
    master.check_stored(n + WARM_UP)?;
    let bytes = scratch.data_bytes().saturating_sub(bytes_before);
    let per_build = |figure: f64| figure / n as f64;
    let figures: [(&str, Value); 10] = [
        ("wall_s", rounded(wall.as_secs_f64(), 2)),
        ("builds_per_s", rounded(n as f64 / wall.as_secs_f64().max(1e-6), 2)),
        ("done", Value::from(completions.times.len() as u64 - WARM_UP)),
        ("submit_s", rounded(submit.as_secs_f64(), 2)),
        ("master_cpu_s", rounded(cpu, 2)),
        ("master_cpu_s_per_build", rounded(per_build(cpu), 5)),
        ("master_rss_before_mb", rounded(rss_before, 1)),
        ("master_peak_rss_mb", rounded(memory_mb(master.id(), "VmHWM")?, 1)),
        ("db_bytes_per_build", rounded(per_build(bytes as f64), 0)),
        ("not_success", Value::from(completions.not_success)),
    ];
    let metrics: Metrics =
        figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect();
    Ok(vec![Measurement {
        system: ground.programs.system.clone(),
        workload: "throughput".to_owned(),
        n,
        params: json!({
            "builders": BUILDERS, "workers": WORKERS, "protocol": "json_v1", "db": "sqlite",
        }),
        metrics,
    }])
}
