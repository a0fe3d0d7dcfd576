//! W8 `crash`: the master is killed with -9 in the middle of builds and started
//! again, while the load process runs on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::execution::Execution;
use super::figures::{Measurement, Metrics};
use super::master::Master;
use super::registry::Ground;
use super::scratch::{Layout, Scratch, builder_name};
use crate::report::rounded;

const BUILDERS: u32 = 4;
const WORKERS: u32 = 10;

/// What one request runs. Commands are the same for all builds of a builder, so
/// the load process puts the request's id in for the last word.
const JOB: [&str; 3] = ["bench-job", "2", "@request"];

/// The kill comes when this part of the jobs was started, and this part of the
/// workers is busy.
const STARTED: f64 = 0.3;
const BUSY: f64 = 0.8;

/// How long that may take.
const BEFORE_LIMIT: Duration = Duration::from_secs(120);

/// How long the master is away.
const AWAY: Duration = Duration::from_secs(3);

/// How long nothing may change before it counts as stuck, and how long all of
/// it may take.
const STUCK: Duration = Duration::from_secs(60);
const AFTER_LIMIT: Duration = Duration::from_secs(900);

/// How often the log and the store are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long a job may still run after all requests are complete.
const QUIET: Duration = Duration::from_secs(3);

/// Measures once, with a fresh database.
///
/// # Errors
/// When anything does not go as it should.
pub fn measure(ground: &Ground, n: u64) -> Result<Vec<Measurement>, String> {
    let scratch = Scratch::new("crash", ground.keep, &ground.guard)?;
    let config = scratch.write_layout(&Layout::new(BUILDERS, WORKERS).running(&JOB))?;
    let log = scratch.path().join("exec.log");
    let mut master = Master::start(&ground.programs, &scratch, &config, &ground.guard)?;
    master.start_load(&scratch, WORKERS, &["--exec-log".as_ref(), log.as_os_str()])?;
    master.wait_attached(WORKERS as usize)?;
    let builders: Vec<String> = (0..BUILDERS).map(builder_name).collect();
    master.submit(n, &builders, 0)?;
    let deadline = Instant::now() + BEFORE_LIMIT;
    loop {
        let (started, running) = Execution::read(&log)?.started_and_running();
        if started as f64 >= n as f64 * STARTED && running as f64 >= f64::from(WORKERS) * BUSY {
            break;
        }
        master.check()?;
        if Instant::now() >= deadline {
            return Err(format!("only {started} jobs were started, and {running} run"));
        }
        std::thread::sleep(LOOK);
    }
    let killed_at = now();
    master.kill();
    std::thread::sleep(AWAY);
    let before = Counts::of(&ground.programs.tool("store_counts"), &scratch.data())?;

    let (begin, begin_at) = (Instant::now(), now());
    master.start_again(&scratch, &config)?;
    let (mut last, mut changed) = ((0, 0), begin);
    while begin.elapsed() < AFTER_LIMIT && changed.elapsed() < STUCK {
        let state = (complete(&mut master)?, Execution::read(&log)?.len());
        if state.0 >= n {
            break;
        }
        if state != last {
            (last, changed) = (state, Instant::now());
        }
        master.check()?;
        std::thread::sleep(LOOK);
    }
    let wall = begin.elapsed();
    std::thread::sleep(QUIET);
    master.check()?;
    let after = Counts::of(&ground.programs.tool("store_counts"), &scratch.data())?;
    let mut metrics = judge(&Execution::read(&log)?, n, killed_at, begin_at, before, after);
    metrics.insert("api_ready_s".to_owned(), rounded(master.api_ready().as_secs_f64(), 3));
    metrics.insert("recovery_wall_s".to_owned(), rounded(wall.as_secs_f64(), 2));
    Ok(vec![Measurement {
        system: ground.programs.system.clone(),
        workload: "crash".to_owned(),
        n,
        params: json!({
            "builders": BUILDERS, "workers": WORKERS, "job_s": 2, "protocol": "json_v1",
        }),
        metrics,
    }])
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// How many requests are complete, as the API says.
fn complete(master: &mut Master) -> Result<u64, String> {
    let answer = master.get("buildrequests?complete=true&limit=1")?;
    let total = answer.pointer("/meta/total").and_then(Value::as_u64);
    total.ok_or(format!("the API does not tell how many requests are complete: {answer}"))
}

/// What the store holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Counts {
    requests: u64,
    complete: u64,
    not_success: u64,
    open_builds: u64,
    built_again: u64,
}

impl Counts {
    fn of(tool: &Path, data: &Path) -> Result<Self, String> {
        let failed = |what: String| format!("{}: {what}", tool.display());
        let mut command = Command::new(tool);
        command.arg(data).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Self::parse(&text).ok_or(failed(format!("{}: {text}", output.status)))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let number = |name: &str| value.get(name)?.as_u64();
        Some(Self {
            requests: number("requests")?,
            complete: number("complete")?,
            not_success: number("not_success")?,
            open_builds: number("open_builds")?,
            built_again: number("built_again")?,
        })
    }
}

/// What became of the jobs. Their tokens are the requests' ids, from 1 on.
fn judge(
    log: &Execution,
    n: u64,
    killed_at: f64,
    begin_at: f64,
    before: Counts,
    after: Counts,
) -> Metrics {
    let (started, finished) = (log.times("start"), log.times("finish"));
    let at_kill = log.running_at(killed_at);
    let never = |times: &std::collections::BTreeMap<&str, u64>| {
        (1..=n).filter(|id| !times.contains_key(id.to_string().as_str())).count()
    };
    let twice = |times: &std::collections::BTreeMap<&str, u64>| {
        times.values().filter(|times| **times > 1).count()
    };
    let rerun = at_kill.iter().filter(|token| started.get(*token).is_some_and(|times| *times > 1));
    // A run that did not come to its end although the job was begun.
    let thrown_away = at_kill
        .iter()
        .filter(|token| started.get(*token).copied() > finished.get(*token).copied())
        .count();
    let first = log.first_start_after(begin_at).map(|at| at - begin_at);
    let counted = [
        ("running_at_kill", at_kill.len()),
        ("never_executed", never(&started)),
        ("never_finished_on_a_worker", never(&finished)),
        ("started_twice", twice(&started)),
        ("finished_twice", twice(&finished)),
        ("interrupted_and_rerun", rerun.count()),
        ("thrown_away", thrown_away),
    ]
    .map(|(name, count)| (name, Value::from(count)));
    let stored = [
        ("done_before", before.complete),
        ("acked", before.requests),
        ("lost", n.saturating_sub(before.requests)),
        ("stuck", after.requests.saturating_sub(after.complete)),
        ("completed_without_success", after.not_success),
        ("dangling_build_rows", after.open_builds),
        ("built_again", after.built_again),
    ]
    .map(|(name, count)| (name, Value::from(count)));
    let first = first.map_or(Value::Null, |first| rounded(first, 2));
    let all = counted.into_iter().chain(stored).chain([("first_dispatch_after_restart_s", first)]);
    all.map(|(name, figure)| (name.to_owned(), figure)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str, text: &str) -> Execution {
        let name = format!("xtask-{}-{name}.log", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let log = Execution::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        log
    }

    fn counts(text: &str) -> Counts {
        Counts::parse(text).unwrap()
    }

    #[test]
    fn a_job_that_was_carried_through_is_nothing_to_complain_of() {
        let carried = log("carried", "1.0 start 1\n3.0 finish 1\n3.0 start 2\n5.0 finish 2\n");
        let before = counts(
            r#"{"requests":2,"complete":1,"not_success":0,"open_builds":1,"built_again":0}"#,
        );
        let after = Counts { complete: 2, open_builds: 0, ..before };
        let found = judge(&carried, 2, 3.5, 4.0, before, after);
        assert_eq!((&found["running_at_kill"], &found["done_before"]), (&json!(1), &json!(1)));
        for name in [
            "lost",
            "stuck",
            "thrown_away",
            "interrupted_and_rerun",
            "started_twice",
            "finished_twice",
            "never_executed",
            "never_finished_on_a_worker",
            "completed_without_success",
            "dangling_build_rows",
            "built_again",
        ] {
            assert_eq!(found[name], json!(0), "{name}");
        }
        assert_eq!(found["first_dispatch_after_restart_s"], Value::Null);
    }

    #[test]
    fn what_was_run_again_or_lost_is_counted() {
        let text = "1.0 start 1\n1.0 start 2\n2.0 interrupt 1\n5.0 start 1\n6.0 finish 2\n\
                    7.0 finish 1\n8.0 start 2\n9.0 finish 2\n";
        let before = counts(
            r#"{"requests":2,"complete":0,"not_success":0,"open_builds":2,"built_again":0}"#,
        );
        let after = Counts { complete: 1, not_success: 1, built_again: 2, ..before };
        let found = judge(&log("again", text), 3, 1.5, 4.0, before, after);
        let count = |name: &str| found[name].as_u64().unwrap();
        assert_eq!((count("running_at_kill"), count("thrown_away")), (2, 1));
        assert_eq!((count("interrupted_and_rerun"), count("started_twice")), (2, 2));
        assert_eq!((count("finished_twice"), count("lost"), count("stuck")), (1, 1, 1));
        assert_eq!((count("never_executed"), count("never_finished_on_a_worker")), (1, 1));
        assert_eq!((count("completed_without_success"), count("dangling_build_rows")), (1, 2));
        assert_eq!(found["first_dispatch_after_restart_s"], json!(1.0));
        assert!(Counts::parse("{}").is_none());
    }
}
