//! `cargo xtask api`: asks the built program everything that its own
//! description allows, with Schemathesis.
//!
//! Schemathesis is a program of another language; it is got from PyPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::{report, root, tools};

/// Of Schemathesis, as it is got from PyPI.
const VERSION: &str = "4.32.5";

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
    let options = parse(arguments)?;
    let mut checker = checker()?;
    crate::proof::build("end_to_end")?;
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
    let mut limits = vec!["--max-examples".to_owned(), options.examples.to_string()];
    if let Some(seconds) = options.seconds {
        limits.extend(["--max-time".into(), seconds.to_string()]);
    }
    let status = checker
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{address}/api/v2/openapi.json"))
        .args(["--header", "Accept: application/json", "--no-color", "--phases"])
        .args(["coverage,fuzzing", "--suppress-health-check", "all"])
        .args(limits)
        .arg("--checks")
        .arg(
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_schema_conformance",
        )
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| format!("schemathesis: {error}"))?;
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

/// Schemathesis: the one that is named, or installed, or got from PyPI.
fn checker() -> Result<Command, String> {
    let works = |program: &Path, libraries: Option<&Path>| {
        let mut command = Command::new(program);
        if let Some(libraries) = libraries {
            command.env("PYTHONPATH", libraries);
        }
        command.stdin(Stdio::null()).arg("--version");
        tools::answers(command)
    };
    if let Some(named) = std::env::var_os("SCHEMATHESIS") {
        let named = PathBuf::from(named);
        return match works(&named, None) {
            true => Ok(Command::new(named)),
            false => Err(format!("SCHEMATHESIS: `{}` cannot be started", named.display())),
        };
    }
    let folder = root::target().join(format!("schemathesis-{VERSION}"));
    let own = folder.join("bin").join("schemathesis");
    if !works(&own, Some(&folder)) {
        report::say("getting Schemathesis from PyPI");
        let mut install = tools::pip_into(&folder)?;
        install.arg(format!("schemathesis=={VERSION}"));
        tools::succeed(install, "python3 -m pip")?;
    }
    let mut command = Command::new(own);
    command.env("PYTHONPATH", folder);
    Ok(command)
}

/// How much is asked.
#[derive(PartialEq, Eq, Debug)]
struct Options {
    /// Random questions for each order and each kind of question.
    examples: u32,
    /// The end, even if not all was asked.
    seconds: Option<u32>,
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options { examples: 5, seconds: None };
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let mut number = || {
            let given = rest.next().map_or("", String::as_str);
            let number: Option<u32> = given.parse().ok().filter(|number| *number > 0);
            number.ok_or_else(|| format!("{option}: `{given}` is no number from 1 up"))
        };
        match option.as_str() {
            "--examples" => options.examples = number()?,
            "--seconds" => options.seconds = Some(number()?),
            _ => return Err(format!("`{option}` is not known; see `cargo xtask help api`")),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_or_refused() {
        let parse = |words: &[&str]| {
            parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(parse(&[]), Ok(Options { examples: 5, seconds: None }));
        let both = Options { examples: 20, seconds: Some(60) };
        assert_eq!(parse(&["--examples", "20", "--seconds", "60"]), Ok(both));
        assert!(parse(&["--seconds"]).is_err());
        assert!(parse(&["--examples", "0"]).is_err());
        assert!(parse(&["--nope"]).is_err());
    }
}
