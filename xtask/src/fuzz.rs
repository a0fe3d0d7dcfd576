//! `cargo xtask fuzz`: nonsense for all who read the wire, for as long as is
//! asked for.
//!
//! Owns how the harness is built and started. What it does is told in
//! `docs/decisions/0014-fuzzing.md`; the harness is `tests/fuzz/`.

use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::report;
use crate::tools;

/// Seconds when nothing is said.
const SECONDS: u64 = 60;
/// Seconds in `cargo xtask test`.
const STAGE_SECONDS: u64 = 24;
/// Who is fuzzed, one after the other; each is a module of the harness.
const TARGETS: [&str; 3] = ["decoder", "connection", "agent"];

/// What was asked for.
#[derive(PartialEq, Eq, Debug)]
struct Options {
    seconds: u64,
    seed: Option<u64>,
    only: Option<String>,
}

/// Fuzzes; true when nothing was found. Its last line is the summary.
///
/// # Errors
/// When the arguments are wrong or cargo cannot be started.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("fuzz", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    let targets: Vec<&str> = match &options.only {
        Some(only) => vec![only],
        None => TARGETS.to_vec(),
    };
    let (begin, mut failed) = (Instant::now(), Vec::new());
    for target in &targets {
        let mut command = tools::cargo();
        command.args(["test", "--quiet", "--workspace", "--test", "fuzz", "--"]);
        command.args(["--nocapture", &format!("{target}::")]);
        let each = options.seconds as f64 / targets.len() as f64;
        command.env("FUZZ_SECONDS", format!("{each:.1}"));
        if let Some(seed) = options.seed {
            command.env("FUZZ_SEED", seed.to_string());
        }
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(_) => failed.push(*target),
            Err(error) => return Err(format!("could not start cargo: {error}")),
        }
    }
    if !failed.is_empty() {
        report::say(
            "what failed was written to tests/fuzz/corpus/: give it a name that says what it is, \
             mend the program, and keep it; every test run plays it from then on",
        );
    }
    report::line(&json!({
        "summary": "fuzz", "ok": failed.is_empty(), "targets": targets, "failed": failed,
        "seconds": report::seconds(begin.elapsed()),
    }));
    Ok(failed.is_empty())
}

/// As a stage of `cargo xtask test`.
///
/// # Errors
/// When this very program cannot be found.
pub fn stage() -> Result<Command, String> {
    let me = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let mut command = tools::plain(&me.to_string_lossy());
    command.args(["fuzz", "--seconds", &STAGE_SECONDS.to_string()]);
    Ok(command)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options { seconds: SECONDS, seed: None, only: None };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let number = |value: Option<&String>| {
            let value = value.ok_or_else(|| format!("{argument} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{argument} needs a number, not `{value}`"))
        };
        match argument.as_str() {
            "--seconds" => options.seconds = number(rest.next())?,
            "--seed" => options.seed = Some(number(rest.next())?),
            "--only" => match rest.next().map(String::as_str) {
                Some(target) if TARGETS.contains(&target) => options.only = Some(target.into()),
                _ => return Err(format!("--only needs one of {}", TARGETS.join(", "))),
            },
            other => return Err(format!("`{other}` is not known; see `cargo xtask help fuzz`")),
        }
    }
    if options.seconds == 0 {
        return Err("--seconds needs at least 1".to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> Result<Options, String> {
        parse(&arguments.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read() {
        let only = Some("agent".to_owned());
        assert_eq!(
            parsed("--seconds 10 --seed 7 --only agent"),
            Ok(Options { seconds: 10, seed: Some(7), only })
        );
        assert_eq!(parsed(""), Ok(Options { seconds: SECONDS, seed: None, only: None }));
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert!(parsed("--seconds").unwrap_err().contains("--seconds needs a number"));
        assert!(parsed("--seconds 0").unwrap_err().contains("at least 1"));
        assert!(parsed("--only all").unwrap_err().contains("decoder, connection, agent"));
        assert!(parsed("--all").unwrap_err().contains("`--all`"));
    }
}
