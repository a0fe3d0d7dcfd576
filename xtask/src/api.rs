//! `cargo xtask api`: asks the built program everything that its own
//! description allows, with Schemathesis.
//!
//! On demand and no stage of the tests: it takes some minutes, and needs a
//! program of another language.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::{report, root, tools};

/// How long the master may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(20);

const CONFIG: &str = r#"[master]
data_dir = "data"
http = "127.0.0.1:0"
listen = "127.0.0.1:0"
[up]
builder = "unit"
worker = "local"
[[worker]]
name = "local"
max_builds = 2
[[builder]]
name = "unit"
workers = ["local"]
[[builder.step]]
name = "test"
run = ["sh", "-c", "echo out; echo err >&2"]
[[builder]]
name = "slow build"
workers = ["local"]
max_builds = 1
[[builder.step]]
name = "wait"
run = ["sleep", "5"]
[[force_scheduler]]
name = "deploy"
builders = ["unit"]
[[force_scheduler.field]]
name = "jobs"
type = "int"
default = 4
"#;

/// An unknown method is 501, as in the reference: that is no failure inside.
const CHECKS: &str =
    "[checks]\nnot_a_server_error.expected-statuses = [\"2xx\", \"3xx\", \"4xx\", 501]\n";

/// The master, and the worker that it starts. Stopped when dropped.
struct Running(Child);

impl Running {
    /// Asks it to stop, so that its worker's programs end as well.
    fn stop(&mut self) {
        for signal in ["-INT", "-KILL"] {
            let told = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
            let deadline = Instant::now() + STOP_LIMIT;
            while told.is_ok() && Instant::now() < deadline {
                if !matches!(self.0.try_wait(), Ok(None)) {
                    return;
                }
                sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs it; true when nothing was found.
///
/// # Errors
/// When the arguments are wrong, Schemathesis is missing, or the program cannot
/// be built or started.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("api", arguments) {
        return Ok(true);
    }
    let examples = parse(arguments)?;
    let checker = std::env::var("SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".into());
    let version = Command::new(&checker).arg("--version").stdin(Stdio::null()).output();
    if !version.is_ok_and(|output| output.status.success()) {
        return Err(format!(
            "`{checker}` cannot be started: `pip install schemathesis`, or name the program in \
             the variable SCHEMATHESIS"
        ));
    }
    let built = tools::cargo().args(["build", "--package", "botmaster"]).status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("the program could not be built".into());
    }
    let folder = root::target().join("api");
    let _ = fs::remove_dir_all(&folder);
    let write = |name: &str, text: &str| {
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join(name), text))
            .map_err(|error| format!("{}: {error}", folder.join(name).display()))
    };
    write("botmaster.toml", CONFIG)?;
    write("schemathesis.toml", CHECKS)?;
    let (mut running, address) = start(&folder)?;
    let began = Instant::now();
    let status = Command::new(&checker)
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{address}/api/v2/openapi.json"))
        .args(["--header", "Accept: application/json", "--no-color", "--phases"])
        .args(["coverage,fuzzing", "--suppress-health-check", "all", "--max-examples"])
        .arg(examples.to_string())
        .arg("--checks")
        .arg(
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_schema_conformance",
        )
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| format!("{checker}: {error}"))?;
    let alive = matches!(running.0.try_wait(), Ok(None));
    if !alive {
        report::say("the master has ended meanwhile; its last words are in target/api/up.log");
    }
    let ok = status.success() && alive;
    report::line(&json!({ "api": { "ok": ok, "seconds": report::seconds(began.elapsed()) } }));
    Ok(ok)
}

fn start(folder: &Path) -> Result<(Running, String), String> {
    let program = root::target().join("debug").join("botmaster");
    let log = fs::File::create(folder.join("up.log")).map_err(|error| error.to_string())?;
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    let child = Command::new(&program)
        .args(["up", "--config", "botmaster.toml"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| format!("could not start {}: {error}", program.display()))?;
    let mut running = Running(child);
    let file: PathBuf = folder.join("data").join("http.addr");
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline && matches!(running.0.try_wait(), Ok(None)) {
        if let Ok(address) = fs::read_to_string(&file)
            && let Some(address) = address.strip_suffix('\n')
        {
            return Ok((running, address.to_owned()));
        }
        sleep(Duration::from_millis(50));
    }
    Err(format!("the master did not start; see {}", folder.join("up.log").display()))
}

fn parse(arguments: &[String]) -> Result<u32, String> {
    match arguments {
        [] => Ok(5),
        [option, number] if option == "--examples" => number
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| format!("--examples: `{number}` is no number from 1 up")),
        [option, ..] => Err(format!("`{option}` is not known; see `cargo xtask help api`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_or_refused() {
        let parse = |words: &[&str]| {
            parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(parse(&[]), Ok(5));
        assert_eq!(parse(&["--examples", "20"]), Ok(20));
        assert!(parse(&["--examples", "0"]).is_err());
        assert!(parse(&["--nope"]).is_err());
    }
}
