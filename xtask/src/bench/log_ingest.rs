//! W3 `log_ingest`: one build writes a long log, as fast as the master takes it.
//! First a real worker with the script that writes it, and beside it the script
//! into a pipe; then a load process that had the text ready.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures::{Measurement, Metrics};
use super::master::Master;
use super::proc::{Process, cpu_seconds, memory_mb, settle};
use super::registry::Ground;
use super::scratch::{Layout, Scratch, builder_name};
use crate::report::rounded;
use crate::root;

/// Lines of a megabyte; each has 100 bytes.
const LINES_PER_MB: u64 = 10_000;

/// Lines that are looked at, at each end of a log.
const LOOKED_AT: u64 = 5;

/// How long one build may take.
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// Measures once, each of the two with a fresh database.
///
/// # Errors
/// When anything does not go as it should.
pub fn measure(ground: &Ground, n: u64) -> Result<Vec<Measurement>, String> {
    let python = python()?;
    let script = root::root().join("bench/peer/buildbot/genlog.py");
    let generator = generator(ground, &python, &script, n)?;
    let lines = (n * LINES_PER_MB).to_string();
    let command = [&python, script.to_string_lossy().as_ref(), &lines].map(str::to_owned);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut metrics = ingest(ground, n, &command, |master, scratch| master.real_worker(scratch))?;
    let speed = metrics.get("mb_per_s").and_then(Value::as_f64).unwrap_or(0.0);
    let generated = n as f64 / generator.as_secs_f64().max(1e-6);
    metrics.insert("generator_mb_per_s".to_owned(), rounded(generated, 2));
    metrics.insert("share_of_generator".to_owned(), rounded(speed / generated, 3));

    let prepared = ingest(ground, n, &["bench-log"], |master, scratch| {
        let megabytes = n.to_string();
        master.start_load(scratch, 1, &["--log-mb".as_ref(), megabytes.as_ref()])?;
        master.wait_attached(1)
    })?;
    metrics.extend(prepared.into_iter().map(|(name, figure)| (format!("prepared_{name}"), figure)));
    Ok(vec![Measurement {
        system: ground.programs.system.clone(),
        workload: "log_ingest".to_owned(),
        n,
        params: json!({ "line_bytes": 100, "protocol": "json_v1" }),
        metrics,
    }])
}

/// One build with a fresh master and the workers that `start` brings.
fn ingest(
    ground: &Ground,
    n: u64,
    command: &[&str],
    start: impl FnOnce(&mut Master, &Scratch) -> Result<(), String>,
) -> Result<Metrics, String> {
    let scratch = Scratch::new("log-ingest", ground.keep, &ground.guard)?;
    let config = scratch.write_layout(&Layout::new(1, 1).running(command))?;
    let mut master = Master::start(&ground.programs, &scratch, &config, &ground.guard)?;
    start(&mut master, &scratch)?;
    settle(master.id(), 60)?;
    let mut completions = master.completions()?;
    let (bytes_before, rss_before) = (scratch.data_bytes(), memory_mb(master.id(), "VmRSS")?);
    let stored_mb = || scratch.data_bytes().saturating_sub(bytes_before) as f64 / 1e6;
    let worker_before = master.workers_cpu()?;
    let (cpu_before, begin) = (cpu_seconds(master.id())?, Instant::now());
    master.force(&builder_name(0))?;
    let finished = completions.wait(1, begin + BUILD_LIMIT)?;
    let cpu = cpu_seconds(master.id())? - cpu_before;
    let worker_cpu = master.workers_cpu()? - worker_before;
    let end = completions.times.first().copied().unwrap_or_else(Instant::now);
    let (wall, at_finish) = (end.saturating_duration_since(begin), stored_mb());
    settle(master.id(), 60)?;
    let settled_cpu = cpu_seconds(master.id())? - cpu_before;
    let peak = memory_mb(master.id(), "VmHWM")?;
    master.check()?;
    if !finished || completions.not_success > 0 {
        return Err(format!("the build of {n} MB did not end with success"));
    }
    let lines = stored_lines(&mut master)?;
    if lines != n * LINES_PER_MB {
        return Err(format!("{lines} lines are stored, not {}", n * LINES_PER_MB));
    }
    let figures: [(&str, Value); 12] = [
        ("wall_s", rounded(wall.as_secs_f64(), 3)),
        ("mb_per_s", rounded(n as f64 / wall.as_secs_f64().max(1e-6), 2)),
        ("finished", Value::from(finished)),
        ("master_cpu_s", rounded(cpu, 2)),
        ("worker_cpu_s", rounded(worker_cpu, 2)),
        ("master_cpu_s_settled", rounded(settled_cpu, 2)),
        ("master_rss_before_mb", rounded(rss_before, 1)),
        ("master_peak_rss_mb", rounded(peak, 1)),
        ("rss_grown_mb", rounded(peak - rss_before, 1)),
        ("db_mb_at_finish", rounded(at_finish, 2)),
        ("db_mb_settled", rounded(stored_mb(), 2)),
        ("stored_lines", Value::from(lines)),
    ];
    Ok(figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect())
}

/// How many of the build's own lines the API says that the log has, after a
/// look at the first and the last of them.
fn stored_lines(master: &mut Master) -> Result<u64, String> {
    let logs = master.get("builds/1/steps/0/logs")?;
    let log = logs.pointer("/logs/0").ok_or(format!("the build has no log: {logs}"))?;
    let (complete, lines) = (log.get("complete"), log.get("num_lines").and_then(Value::as_u64));
    let all = lines.filter(|_| complete == Some(&Value::Bool(true)));
    let all = all.ok_or(format!("the log is not complete: {log}"))?;
    let mut ends = Vec::new();
    for from in [0, all.saturating_sub(LOOKED_AT)] {
        let answer = master.get(&format!("logs/1/contents?offset={from}&limit={LOOKED_AT}"))?;
        let text = answer.pointer("/logchunks/0/content").and_then(Value::as_str);
        ends.push(text.ok_or(format!("no lines come from {from} on: {answer}"))?.to_owned());
    }
    let [first, last] = ends.as_slice() else { return Err("two ends were asked for".to_owned()) };
    own_lines(all, first, last).ok_or(format!(
        "the lines at the log's ends are not those that were written:\n{first}\n{last}"
    ))
}

/// Of so many lines, those that the build wrote: without the master's own ones
/// at both ends. None when the first or the last is not as it should be.
fn own_lines(all: u64, first: &str, last: &str) -> Option<u64> {
    let above = first.lines().position(|line| is_line(line, 0))? as u64;
    let below = last.lines().rev().take_while(|line| !line.starts_with('o')).count() as u64;
    let own = all.checked_sub(above + below)?;
    let newest = last.lines().rev().nth(below as usize)?;
    is_line(newest, own.checked_sub(1)?).then_some(own)
}

/// Whether that is the build's line with this number, after the letter of its
/// channel.
fn is_line(text: &str, number: u64) -> bool {
    text.len() == 100 && text.starts_with(&format!("oline {number:08} "))
}

/// How long the script takes into a pipe that somebody empties.
fn generator(ground: &Ground, python: &str, script: &Path, n: u64) -> Result<Duration, String> {
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" \"$1\" \"$2\" | cat >/dev/null", python]);
    command.arg(script).arg((n * LINES_PER_MB).to_string());
    command.stdin(Stdio::null());
    let begin = Instant::now();
    let mut process = Process::of("genlog.py", command, script, &ground.guard)?;
    match process.wait(begin + BUILD_LIMIT) {
        Some(status) if status.success() => Ok(begin.elapsed()),
        other => Err(format!("genlog.py did not end well: {other:?}")),
    }
}

/// The interpreter itself: what is found in the path may be a script that looks
/// for it each time.
fn python() -> Result<String, String> {
    let mut command = Command::new("python3");
    command.args(["-c", "import sys; print(sys.executable)"]).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("python3: {error}"))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !path.is_empty() {
        Ok(path)
    } else {
        Err("python3 does not say where it is".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builds_own_lines_are_counted_and_looked_at() {
        let line = |number: u64| format!("oline {number:08} {}\n", "x".repeat(85));
        let first = format!("hgenlog\nh more\n{}{}", line(0), line(1));
        let last = format!("{}{}hended\n", line(8), line(9));
        assert_eq!(own_lines(13, &first, &last), Some(10));
        assert_eq!(own_lines(10, &line(0), &line(9)), Some(10));
        // One is missing in the middle, or at an end, or is cut.
        assert_eq!(own_lines(12, &first, &last), None);
        assert_eq!(own_lines(13, "hgenlog\n", &last), None);
        assert_eq!(own_lines(13, &first, "hended\n"), None);
        assert_eq!(own_lines(13, &first, &last[..150]), None);
        assert_eq!(own_lines(0, "", ""), None);
    }
}
