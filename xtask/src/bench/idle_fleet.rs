//! W6 `idle_fleet`: many workers that attach all at once and then have nothing
//! to do.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures::Measurement;
use super::master::{Master, wait_events};
use super::proc::{cpu_seconds, memory_mb, quiet_from};
use super::registry::Ground;
use super::scratch::{Layout, Scratch};
use crate::report::rounded;

const BUILDERS: u32 = 20;

/// How long attaching and settling may each take.
const ATTACH_LIMIT: Duration = Duration::from_secs(600);
const SETTLE_LIMIT: Duration = Duration::from_secs(600);

/// How long the idle master is watched: every worker sends one keepalive in it.
const WINDOW: Duration = Duration::from_secs(60);

/// Descriptors that a process needs besides those of its workers.
const OTHER_DESCRIPTORS: u64 = 100;

/// Measures once, with a fresh database; a size of 0 is a master with one
/// worker that is not attached.
///
/// # Errors
/// When anything does not go as it should.
pub fn measure(ground: &Ground, n: u64) -> Result<Vec<Measurement>, String> {
    need_descriptors(n, open_files_limit()?)?;
    let configured = u32::try_from(n.max(1)).map_err(|error| error.to_string())?;
    let scratch = Scratch::new("idle", ground.keep, &ground.guard)?;
    let layout = Layout::new(BUILDERS, configured).each(configured.div_ceil(BUILDERS));
    let config = scratch.write_layout(&layout)?;
    let mut master = Master::start(&ground.programs, &scratch, &config, &ground.guard)?;
    let id = master.id();
    quiet_from(id, SETTLE_LIMIT)?;
    let rss_before = memory_mb(id, "VmRSS")?;
    let cpu_before = cpu_seconds(id)?;
    let events = master.events("workers/*/connected")?;
    let (mut attached, mut attach, mut attach_cpu, mut settled) = (0, None, None, None);
    if n > 0 {
        let begin = Instant::now();
        master.start_load(&scratch, configured, &[])?;
        let (count, last) = wait_events(&events, n as usize, begin + ATTACH_LIMIT)?;
        (attached, attach) = (count, last.map(|last| last.saturating_duration_since(begin)));
        if count < n as usize {
            master.check()?;
            let problem = format!("only {count} of {n} workers attached within {ATTACH_LIMIT:?}");
            return Err(problem);
        }
        quiet_from(id, SETTLE_LIMIT)?;
        settled = Some(begin.elapsed());
        attach_cpu = Some(cpu_seconds(id)? - cpu_before);
    }
    let (cpu, begin) = (cpu_seconds(id)?, Instant::now());
    std::thread::sleep(WINDOW);
    let idle = 100.0 * (cpu_seconds(id)? - cpu) / begin.elapsed().as_secs_f64();
    master.check()?;
    let rss = memory_mb(id, "VmRSS")?;
    let seconds =
        |time: Option<Duration>| time.map_or(Value::Null, |time| rounded(time.as_secs_f64(), 2));
    let figures: [(&str, Value); 11] = [
        ("attached", Value::from(attached)),
        ("attach_s", seconds(attach)),
        ("attach_master_cpu_s", attach_cpu.map_or(Value::Null, |cpu| rounded(cpu, 2))),
        ("settled_after_attach_s", seconds(settled)),
        ("rss_before_mb", rounded(rss_before, 1)),
        ("rss_mb", rounded(rss, 1)),
        ("kib_per_worker", kib_each(rss_before, rss, n)),
        ("idle_cpu_pct", rounded(idle, 2)),
        ("startup_api_ready_s", rounded(master.api_ready().as_secs_f64(), 3)),
        ("window_s", Value::from(WINDOW.as_secs())),
        ("master_peak_rss_mb", rounded(memory_mb(id, "VmHWM")?, 1)),
    ];
    Ok(vec![Measurement {
        system: ground.programs.system.clone(),
        workload: "idle_fleet".to_owned(),
        n,
        params: json!({ "configured": configured, "keepalive_s": 60, "protocol": "json_v1" }),
        metrics: figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect(),
    }])
}

/// What each attached worker adds to the memory, in KiB.
fn kib_each(before_mb: f64, after_mb: f64, workers: u64) -> Value {
    match workers {
        0 => Value::Null,
        workers => rounded((after_mb - before_mb) * 1024.0 / workers as f64, 2),
    }
}

/// The most descriptors that a process here may have.
fn open_files_limit() -> Result<u64, String> {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Hn"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cannot start sh: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim() {
        "unlimited" => Ok(u64::MAX),
        number => number.parse().map_err(|_| format!("`ulimit -Hn` says `{number}`")),
    }
}

/// The master and the load process raise their soft limits themselves; the hard
/// one has to be high enough. The master leaves a quarter of all descriptors to
/// its HTTP port.
fn need_descriptors(workers: u64, limit: u64) -> Result<(), String> {
    let needed = (workers + OTHER_DESCRIPTORS).div_ceil(3) * 4;
    if needed > limit {
        return Err(format!(
            "{workers} workers need {needed} open files in a process, and the hard limit is \
             {limit}: raise it (ulimit -Hn {needed} as root, or LimitNOFILE of the service)"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_open_files_that_is_too_low_is_told_with_what_is_needed() {
        assert_eq!(need_descriptors(10_000, 20_000), Ok(()));
        let problem = need_descriptors(10_000, 4_096).unwrap_err();
        assert!(problem.contains("need 13468 open files"), "{problem}");
        assert!(problem.contains("the hard limit is 4096"), "{problem}");
        assert!(open_files_limit().unwrap() > 0);
    }

    #[test]
    fn memory_is_told_for_each_worker() {
        assert_eq!(kib_each(10.0, 20.0, 1_024), 10.0);
        assert_eq!(kib_each(10.0, 20.0, 0), Value::Null);
    }
}
