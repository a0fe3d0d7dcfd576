//! W2 `throughput`: 20 builders, 50 workers in one load process, many requests
//! at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures::{Measurement, Metrics};
use super::master::{Completions, Master};
use super::proc::{cpu_seconds, memory_mb, settle};
use super::registry::Ground;
use super::scratch::{Scratch, builder_name};
use crate::report::rounded;

/// Builders.
pub const BUILDERS: u32 = 20;
/// Workers, each of which every builder may use.
pub const WORKERS: u32 = 50;

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
    let drain = Fleet::start(ground, "throughput")?.drain(n)?;
    Ok(vec![Measurement {
        system: ground.programs.system.clone(),
        workload: "throughput".to_owned(),
        n,
        params: json!({
            "builders": BUILDERS, "workers": WORKERS, "protocol": "json_v1", "db": "sqlite",
        }),
        metrics: drain.metrics,
    }])
}

/// A master with its builders and workers that has settled after a warm-up.
#[derive(Debug)]
pub struct Fleet {
    /// The master.
    pub master: Master,
    /// Its folder.
    pub scratch: Scratch,
    completions: Completions,
    builders: Vec<String>,
}

/// A queue that was worked off.
#[derive(Debug)]
pub struct Drain {
    /// From the start of the submission to the last completion.
    pub wall: Duration,
    /// When each build of it was complete, counted from the start of the
    /// submission.
    pub ends: Vec<Duration>,
    /// What was measured.
    pub metrics: Metrics,
}

impl Fleet {
    /// Starts all of it, with a fresh database.
    ///
    /// # Errors
    /// When anything does not go as it should.
    pub fn start(ground: &Ground, name: &str) -> Result<Self, String> {
        let scratch = Scratch::new(name, ground.keep, &ground.guard)?;
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
        Ok(Self { master, scratch, completions, builders })
    }

    /// Submits `n` requests and waits until all are complete. Once only: the
    /// figures are those of a fresh database.
    ///
    /// # Errors
    /// When anything does not go as it should.
    pub fn drain(&mut self, n: u64) -> Result<Drain, String> {
        let id = self.master.id();
        let rss_before = memory_mb(id, "VmRSS")?;
        let bytes_before = self.scratch.data_bytes();
        let (cpu_before, begin) = (cpu_seconds(id)?, Instant::now());
        let submit = self.master.submit(n, &self.builders, 0)?;
        let all = (WARM_UP + n) as usize;
        if !self.completions.wait(all, begin + DRAIN_LIMIT)? {
            self.master.check()?;
            return Err(format!(
                "only {} of {n} builds ended within {} s",
                self.completions.times.len().saturating_sub(WARM_UP as usize),
                DRAIN_LIMIT.as_secs()
            ));
        }
        let cpu = cpu_seconds(id)? - cpu_before;
        let times = self.completions.times.iter().skip(WARM_UP as usize);
        let ends: Vec<Duration> = times.map(|time| time.saturating_duration_since(begin)).collect();
        let wall = ends.last().copied().unwrap_or_default();
        self.master.check_stored(n + WARM_UP)?;
        let bytes = self.scratch.data_bytes().saturating_sub(bytes_before);
        let per_build = |figure: f64| figure / n as f64;
        let figures: [(&str, Value); 10] = [
            ("wall_s", rounded(wall.as_secs_f64(), 2)),
            ("builds_per_s", rounded(n as f64 / wall.as_secs_f64().max(1e-6), 2)),
            ("done", Value::from(ends.len() as u64)),
            ("submit_s", rounded(submit.as_secs_f64(), 2)),
            ("master_cpu_s", rounded(cpu, 2)),
            ("master_cpu_s_per_build", rounded(per_build(cpu), 5)),
            ("master_rss_before_mb", rounded(rss_before, 1)),
            ("master_peak_rss_mb", rounded(memory_mb(id, "VmHWM")?, 1)),
            ("db_bytes_per_build", rounded(per_build(bytes as f64), 0)),
            ("not_success", Value::from(self.completions.not_success)),
        ];
        let metrics = figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect();
        Ok(Drain { wall, ends, metrics })
    }
}

impl Drain {
    /// Builds a second within the first so much of it.
    #[must_use]
    pub fn rate_within(&self, window: Duration) -> f64 {
        let ended = self.ends.iter().filter(|end| **end <= window).count();
        ended as f64 / window.as_secs_f64().max(1e-6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_what_ended_within_its_window() {
        let ends = [1, 2, 3, 9].map(Duration::from_secs).to_vec();
        let drain = Drain { wall: Duration::from_secs(9), ends, metrics: Metrics::new() };
        assert_eq!(drain.rate_within(Duration::from_secs(2)), 1.0);
        assert_eq!(drain.rate_within(Duration::from_secs(10)), 0.4);
    }
}
