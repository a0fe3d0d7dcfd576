//! Buildbot on the same workloads, through the harness in `bench/peer/`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::figures::Measurement;
use super::proc::{Guard, Process, tail};
use super::registry::{Ground, Workload};
use super::scratch::Scratch;
use crate::{report, root};

/// How long making the virtual environment may take.
const SETUP_LIMIT: Duration = Duration::from_secs(1_200);

/// How long one workload with all its repetitions may take.
const WORKLOAD_LIMIT: Duration = Duration::from_secs(3_600);

/// Where the virtual environment is.
fn environment() -> PathBuf {
    match std::env::var_os("PEER_VENV") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => std::env::temp_dir().join("peer-buildbot"),
    }
}

/// Makes the virtual environment, when it is not there yet.
///
/// # Errors
/// When it cannot be made; says what it needs.
pub fn set_up(guard: &Guard) -> Result<(), String> {
    if environment().join("bin/buildbot").exists() {
        return Ok(());
    }
    report::say("making the virtual environment for Buildbot (once)");
    let script = root::root().join("bench/peer/buildbot/setup.sh");
    let mut command = Command::new("bash");
    command.arg(&script).env("PEER_VENV", environment());
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let mut process = Process::of("setup.sh", command, &script, guard)?;
    match process.wait(Instant::now() + SETUP_LIMIT) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!(
            "{} ended with {status}; it needs python3 with venv and pip",
            script.display()
        )),
        None => Err(format!("{} took longer than {SETUP_LIMIT:?}", script.display())),
    }
}

/// Measures one workload with one size, prints its lines, and adds them to what
/// was found: also those from before a failure, for some workloads measure for a
/// long time.
///
/// # Errors
/// When the harness fails.
pub fn measure(
    ground: &Ground,
    workload: &Workload,
    n: u64,
    repeat: u32,
    tuned: bool,
    found: &mut Vec<Measurement>,
) -> Result<(), String> {
    let scratch = Scratch::new("peer", false, &ground.guard)?;
    let results = scratch.path().join("results.jsonl");
    let mut command = Command::new(environment().join("bin/python"));
    command.arg(root::root().join("bench/peer/buildbot/bench.py"));
    command.args([workload.peer.name, workload.peer.size, &n.to_string()]);
    command.args(["--repeat", &repeat.to_string(), "--out"]).arg(&results);
    // The same client asks both systems.
    command.arg("--http-load").arg(ground.programs.tool("http_load"));
    command.args(workload.peer.arguments).args(tuned.then_some("--tuned"));
    command.env("PEER_VENV", environment()).env("TMPDIR", scratch.path());
    let output = scratch.path().join("bench.out");
    let mut process = Process::start("Buildbot's harness", command, &output, &ground.guard)?;
    let status = process.wait(Instant::now() + WORKLOAD_LIMIT);
    let text = std::fs::read_to_string(&results).unwrap_or_default();
    for line in text.lines() {
        if let Ok(value) = serde_json::from_str(line) {
            report::line(&value);
        }
    }
    let measured = text.lines().filter_map(Measurement::parse);
    let before = found.len();
    found.extend(measured);
    match status {
        None => Err(format!("Buildbot's {} took longer than {WORKLOAD_LIMIT:?}", workload.name)),
        Some(status) if !status.success() => {
            Err(format!("Buildbot's harness ended with {status}:\n{}", tail(&output)))
        }
        // Some workloads are measured several times with one master.
        Some(_) if found.len() - before < repeat as usize => {
            Err(format!("Buildbot's harness gave too few results:\n{text}"))
        }
        Some(_) => Ok(()),
    }
}
