//! W1 `dispatch`: one builder, one real worker, one build after the other.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures::{Measurement, latency_summary};
use super::master::Master;
use super::proc::{cpu_seconds, memory_mb, settle};
use super::registry::Ground;
use super::scratch::{Scratch, builder_name};
use crate::report::rounded;

/// Builds before the measured ones.
const WARM_UP: u64 = 10;

/// How long one build may take.
const BUILD_LIMIT: Duration = Duration::from_secs(60);

/// Measures once, with a fresh database.
///
/// # Errors
/// When anything does not go as it should.
pub fn measure(ground: &Ground, n: u64) -> Result<Vec<Measurement>, String> {
    let scratch = Scratch::new("dispatch", ground.keep, &ground.guard)?;
    let config = scratch.write_configuration(1, 1)?;
    let mut master = Master::start(&ground.programs, &scratch, &config, &ground.guard)?;
    master.real_worker(&scratch)?;
    let mut completions = master.completions()?;
    let builder = builder_name(0);
    let mut build = |master: &mut Master| -> Result<Duration, String> {
        let begin = Instant::now();
        master.force(&builder)?;
        let count = completions.times.len() + 1;
        if !completions.wait(count, begin + BUILD_LIMIT)? {
            master.check()?;
            return Err(format!("build {count} did not end within {} s", BUILD_LIMIT.as_secs()));
        }
        if completions.not_success > 0 {
            return Err(format!("build {count} did not end with success"));
        }
        let end = completions.times.last().copied().unwrap_or_else(Instant::now);
        Ok(end.saturating_duration_since(begin))
    };
    for _ in 0..WARM_UP {
        build(&mut master)?;
    }
    settle(master.id(), 60)?;
    let (cpu_before, begin) = (cpu_seconds(master.id())?, Instant::now());
    let mut latencies = Vec::new();
    for _ in 0..n {
        latencies.push(build(&mut master)?);
    }
    let wall = begin.elapsed().as_secs_f64();
    let cpu = cpu_seconds(master.id())? - cpu_before;
    master.check_stored(n + WARM_UP)?;
    let mut metrics = latency_summary(&latencies);
    let figures: [(&str, Value); 3] = [
        ("builds_per_s", rounded(n as f64 / wall, 2)),
        ("master_cpu_s_per_build", rounded(cpu / n as f64, 5)),
        ("master_peak_rss_mb", rounded(memory_mb(master.id(), "VmHWM")?, 1)),
    ];
    metrics.extend(figures.map(|(name, figure)| (name.to_owned(), figure)));
    Ok(vec![Measurement {
        system: ground.programs.system.clone(),
        workload: "dispatch".to_owned(),
        n,
        params: json!({ "protocol": "json_v1" }),
        metrics,
    }])
}
