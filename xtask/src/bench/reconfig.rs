//! W5 `reconfig`: 1,000 builders, of which one changes while another one builds
//! and a client asks.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Ask, Load};
use super::execution::Execution;
use super::figures::{Measurement, Metrics};
use super::master::{Completions, Master, wait_events};
use super::proc::{cpu_seconds, memory_mb, quiet_from};
use super::registry::Ground;
use super::scratch::{Layout, Scratch, builder_name};
use crate::report::rounded;

const WORKERS: u32 = 50;

/// How often a builder is changed, with `--quick` and without.
const CHANGES: (u32, u32) = (1, 3);

/// How long the build lasts that must not be disturbed, and its token.
const HOLD: Duration = Duration::from_secs(30);
const LONG: &str = "long";

/// What a client asks for meanwhile, for how long, how often, and how long
/// before the reload it begins.
const SMALL: &str = "/api/v2/masters";
const PROBE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(20);
const BEFORE: Duration = Duration::from_secs(1);

/// How long attaching, settling, and a build without work may each take.
const ATTACH_LIMIT: Duration = Duration::from_secs(300);
const SETTLE_LIMIT: Duration = Duration::from_secs(600);
const BUILD_LIMIT: Duration = Duration::from_secs(60);

/// How often the execution log is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Measures with one master and a fresh database: a measurement for each
/// change.
///
/// # Errors
/// When anything does not go as it should.
pub fn measure(ground: &Ground, n: u64) -> Result<Vec<Measurement>, String> {
    let builders = u32::try_from(n).map_err(|error| error.to_string())?;
    if builders < 10 {
        return Err("a reconfiguration needs 10 builders or more".to_owned());
    }
    let scratch = Scratch::new("reconfig", ground.keep, &ground.guard)?;
    let hold = HOLD.as_secs().to_string();
    let mut layout = Layout::new(builders, WORKERS)
        .each(1)
        .running(&["bench-job", "0", "cfg-v1"])
        .but(0, &["bench-job", &hold, LONG]);
    let config = scratch.write_layout(&layout)?;
    let log = scratch.path().join("exec.log");
    let mut master = Master::start(&ground.programs, &scratch, &config, &ground.guard)?;
    let id = master.id();
    let events = master.events("workers/*/connected")?;
    let begin = Instant::now();
    master.start_load(&scratch, WORKERS, &["--exec-log".as_ref(), log.as_os_str()])?;
    let (attached, last) = wait_events(&events, WORKERS as usize, begin + ATTACH_LIMIT)?;
    drop(events);
    let attach = last.filter(|_| attached == WORKERS as usize);
    let attach = attach.ok_or(format!("only {attached} of {WORKERS} workers attached"))?;
    quiet_from(id, SETTLE_LIMIT)?;
    let settled = begin.elapsed();
    let once: [(&str, Value); 5] = [
        ("startup_api_ready_s", rounded(master.api_ready().as_secs_f64(), 3)),
        ("attach_s", rounded(attach.saturating_duration_since(begin).as_secs_f64(), 3)),
        ("settled_after_attach_s", rounded(settled.as_secs_f64(), 2)),
        ("settled_cpu_s", rounded(cpu_seconds(id)?, 2)),
        ("rss_before_mb", rounded(memory_mb(id, "VmRSS")?, 1)),
    ];
    let mut run = Run { master, completions: None, ended: 0, log };
    run.completions = Some(run.master.completions()?);
    let changes = if ground.quick { CHANGES.0 } else { CHANGES.1 };
    let mut found = Vec::new();
    for change in 0..changes {
        // Each on another worker than builder 0.
        let changed = builders / 2 + 1 + change;
        let word = format!("cfg-v2-{change}");
        layout = layout.but(changed, &["bench-job", "0", &word]);
        let mut metrics = run.change(ground, &scratch, &layout, changed, &word)?;
        metrics.extend(once.iter().map(|(name, figure)| ((*name).to_owned(), figure.clone())));
        found.push(Measurement {
            system: ground.programs.system.clone(),
            workload: "reconfig".to_owned(),
            n,
            params: json!({ "builders": builders, "workers": WORKERS, "protocol": "json_v1" }),
            metrics,
        });
    }
    Ok(found)
}

struct Run {
    master: Master,
    completions: Option<Completions>,
    /// Builds that have ended.
    ended: usize,
    log: std::path::PathBuf,
}

impl Run {
    /// One change: the long build begins, the configuration is loaded again, the
    /// changed builder builds, the long build ends.
    fn change(
        &mut self,
        ground: &Ground,
        scratch: &Scratch,
        layout: &Layout,
        changed: u32,
        word: &str,
    ) -> Result<Metrics, String> {
        let id = self.master.id();
        let long_before = times(&self.log, "start", LONG);
        let begin = Instant::now();
        self.master.force(&builder_name(0))?;
        while times(&self.log, "start", LONG) == long_before {
            self.master.check()?;
            if begin.elapsed() >= BUILD_LIMIT {
                return Err(format!("the long build did not begin within {BUILD_LIMIT:?}"));
            }
            std::thread::sleep(LOOK);
        }
        let dispatch = begin.elapsed();
        let ask = Ask { path: SMALL, connections: 1, window: PROBE, rate: None, pause: PAUSE };
        let probe = Load::start(ground, scratch, self.master.http(), &ask)?;
        std::thread::sleep(BEFORE);
        scratch.write_again(layout)?;
        let (cpu, begin) = (cpu_seconds(id)?, Instant::now());
        let report = self.master.reload()?;
        let lasted = begin.elapsed();
        let cpu = cpu_seconds(id)? - cpu;
        let probe = probe.finish("")?;
        let stall = probe.get("max_ms").and_then(Value::as_f64);
        // What is in force now, while the long build still runs?
        self.master.force(&builder_name(changed))?;
        self.wait(1, BUILD_LIMIT)?;
        let used = times(&self.log, "start", word) == 1;
        self.wait(1, HOLD + BUILD_LIMIT)?;
        let (started, finished) =
            (times(&self.log, "start", LONG), times(&self.log, "finish", LONG));
        let builds = self.master.builds_of(&builder_name(0))?;
        let undisturbed = [started, finished, builds] == [long_before + 1; 3];
        let not_success = self.completions.as_ref().map_or(0, |found| found.not_success);
        let figures: [(&str, Value); 10] = [
            ("reconfig_s", rounded(lasted.as_secs_f64(), 4)),
            (
                "self_reported_s",
                report
                    .get("took_ms")
                    .and_then(Value::as_f64)
                    .map_or(Value::Null, |ms| rounded(ms / 1000.0, 4)),
            ),
            ("master_cpu_s", rounded(cpu, 2)),
            ("api_stall_max_s", stall.map_or(Value::Null, |ms| rounded(ms / 1000.0, 5))),
            ("api_p50_ms", probe.get("p50_ms").cloned().unwrap_or_default()),
            ("new_factory_used", Value::from(used)),
            ("running_build_undisturbed", Value::from(undisturbed)),
            ("dispatch_s", rounded(dispatch.as_secs_f64(), 4)),
            ("master_peak_rss_mb", rounded(memory_mb(id, "VmHWM")?, 1)),
            ("not_success", Value::from(not_success)),
        ];
        Ok(figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect())
    }

    /// Waits until so many more builds have ended.
    fn wait(&mut self, more: usize, limit: Duration) -> Result<(), String> {
        self.ended += more;
        let Some(completions) = &mut self.completions else { return Ok(()) };
        if completions.wait(self.ended, Instant::now() + limit)? {
            return Ok(());
        }
        self.master.check()?;
        Err(format!("build {} did not end within {limit:?}", self.ended))
    }
}

/// How often the log says so. Before the first job there is none.
fn times(log: &Path, word: &str, token: &str) -> u64 {
    let read = Execution::read(log).ok();
    read.and_then(|log| log.times(word).get(token).copied()).unwrap_or(0)
}
