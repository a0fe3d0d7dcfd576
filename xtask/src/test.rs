//! `cargo xtask test`: everything that has to hold before a change goes in.
//!
//! Owns the list of stages. Deliberately absent: any check of its own; a check
//! is a test (as `tests/architecture.rs` is) or a tool.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::report;
use crate::rows::results;
use crate::tools;

/// One stage.
pub struct Stage {
    /// Its name in the output and for `--only`.
    pub name: &'static str,
    /// Whether `--quick` runs it too.
    pub quick: bool,
    /// Makes the command that does it, with a note for the output when it is
    /// not the usual one.
    prepare: fn() -> Prepared,
}

type Prepared = Result<(Command, Option<String>), String>;

/// All stages, in order. A new one is a line here and a function below.
pub const STAGES: &[Stage] = &[
    Stage { name: "format", quick: true, prepare: format },
    Stage { name: "clippy", quick: true, prepare: clippy },
    Stage { name: "nextest", quick: true, prepare: nextest },
    Stage { name: "rows", quick: true, prepare: rows },
    Stage { name: "doctest", quick: true, prepare: doctest },
    Stage { name: "doc", quick: false, prepare: doc },
    Stage { name: "deny", quick: false, prepare: deny },
    Stage { name: "simulate", quick: false, prepare: simulate },
    Stage { name: "fuzz", quick: false, prepare: fuzz },
    Stage { name: "crash-points", quick: false, prepare: crash_points },
    Stage { name: "chaos", quick: false, prepare: chaos },
    Stage { name: "alerts", quick: false, prepare: alerts },
    Stage { name: "ui", quick: false, prepare: ui },
    Stage { name: "api", quick: false, prepare: api },
];

/// What was asked for.
#[derive(PartialEq, Eq, Debug, Default)]
struct Options {
    quick: bool,
    only: Vec<String>,
}

/// Runs the stages; true when all went well.
///
/// # Errors
/// When the arguments are wrong or something is missing without which no stage
/// can run.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("test", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    tools::need_programs()?;
    tools::need_target()?;
    let begin = Instant::now();
    let mut failed = Vec::new();
    let mut count = 0;
    for stage in STAGES.iter().filter(|stage| wanted(stage, &options)) {
        count += 1;
        if !run_stage(stage) {
            failed.push(stage.name);
        }
    }
    let ok = failed.is_empty();
    report::say(&match ok {
        true => format!("all {count} stages are well"),
        false => format!("failed: {}", failed.join(", ")),
    });
    report::line(&json!({
        "summary": "test", "ok": ok, "stages": count, "failed": failed,
        "seconds": report::seconds(begin.elapsed()),
    }));
    Ok(ok)
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--only" => {
                let names = || STAGES.iter().map(|stage| stage.name).collect::<Vec<_>>().join(", ");
                match rest.next() {
                    Some(name) if STAGES.iter().any(|stage| stage.name == name) => {
                        options.only.push(name.clone());
                    }
                    Some(name) => {
                        return Err(format!("there is no stage `{name}`; there are {}", names()));
                    }
                    None => return Err(format!("--only needs a stage: one of {}", names())),
                }
            }
            other => return Err(format!("`{other}` is not known; see `cargo xtask help test`")),
        }
    }
    Ok(options)
}

fn wanted(stage: &Stage, options: &Options) -> bool {
    if options.only.is_empty() {
        stage.quick || !options.quick
    } else {
        options.only.iter().any(|name| name == stage.name)
    }
}

fn run_stage(stage: &Stage) -> bool {
    report::say(&format!("── {} ──", stage.name));
    let begin = Instant::now();
    let (outcome, note) = match (stage.prepare)() {
        Ok((mut command, note)) => {
            if let Some(note) = &note {
                report::say(note);
            }
            (finish(&mut command), note)
        }
        Err(problem) => (Err(problem), None),
    };
    let mut told = json!({
        "stage": stage.name, "ok": outcome.is_ok(), "seconds": report::seconds(begin.elapsed()),
    });
    if let Some(fields) = told.as_object_mut() {
        if let Some(note) = note {
            fields.insert("note".to_owned(), Value::from(note));
        }
        if let Err(problem) = &outcome {
            report::say(problem);
            fields.insert("problem".to_owned(), Value::from(problem.as_str()));
        }
    }
    report::line(&told);
    outcome.is_ok()
}

fn finish(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ended with {status}")),
        Err(error) => {
            Err(format!("could not start {}: {error}", command.get_program().to_string_lossy()))
        }
    }
}

fn format() -> Prepared {
    tools::need_component("fmt", "rustfmt")?;
    let mut command = tools::cargo();
    command.args(["fmt", "--all", "--check"]);
    Ok((command, None))
}

fn clippy() -> Prepared {
    tools::need_component("clippy", "clippy")?;
    let mut command = tools::cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    Ok((command, None))
}

fn nextest() -> Prepared {
    // What the next stage reads must be this run's.
    let _ = std::fs::remove_file(results::file_of("default"));
    match tools::need(tools::NEXTEST) {
        Ok(mut command) => {
            command.args(["run", "--workspace"]);
            Ok((command, None))
        }
        Err(problem) => {
            let mut command = tools::cargo();
            command.args(["test", "--workspace", "--all-targets", "--no-fail-fast"]);
            Ok((command, Some(format!("{problem}; `cargo test` ran the tests instead"))))
        }
    }
}

/// Every row has a test that passed in the run just made.
fn rows() -> Prepared {
    let me = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let mut command = tools::plain(&me.to_string_lossy());
    command.args(["rows", "--missing", "--results"]).arg(results::file_of("default"));
    Ok((command, None))
}

fn doctest() -> Prepared {
    let mut command = tools::cargo();
    command.args(["test", "--quiet", "--workspace", "--doc"]);
    Ok((command, None))
}

fn doc() -> Prepared {
    let mut command = tools::cargo();
    command.args(["doc", "--workspace", "--no-deps"]);
    let mut flags = std::env::var("RUSTDOCFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        flags.push(' ');
    }
    flags.push_str("-D warnings");
    command.env("RUSTDOCFLAGS", flags);
    Ok((command, None))
}

fn deny() -> Prepared {
    let mut command = tools::need(tools::DENY)?;
    command.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    Ok((command, None))
}

fn simulate() -> Prepared {
    Ok((crate::simulate::stage()?, None))
}

fn fuzz() -> Prepared {
    Ok((crate::fuzz::stage()?, None))
}

fn crash_points() -> Prepared {
    Ok((crate::proof::stage(&["crash-points"])?, None))
}

fn chaos() -> Prepared {
    let seconds = crate::proof::CHAOS_SECONDS.to_string();
    Ok((crate::proof::stage(&["chaos", "--seconds", &seconds])?, None))
}

fn alerts() -> Prepared {
    Ok((crate::proof::stage(&["alerts"])?, None))
}

fn ui() -> Prepared {
    Ok((crate::proof::stage(&["ui"])?, None))
}

fn api() -> Prepared {
    Ok((crate::proof::stage(&["api", "--examples", "1", "--seconds", "120"])?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn chosen(arguments: &str) -> Vec<&'static str> {
        let options = parse(&words(arguments)).unwrap();
        STAGES.iter().filter(|stage| wanted(stage, &options)).map(|stage| stage.name).collect()
    }

    #[test]
    fn all_stages_run_unless_told_otherwise() {
        let all = [
            "format",
            "clippy",
            "nextest",
            "rows",
            "doctest",
            "doc",
            "deny",
            "simulate",
            "fuzz",
            "crash-points",
            "chaos",
            "alerts",
            "ui",
            "api",
        ];
        assert_eq!(chosen(""), all);
        assert_eq!(chosen("--quick"), ["format", "clippy", "nextest", "rows", "doctest"]);
        assert_eq!(chosen("--only deny --only format"), ["format", "deny"]);
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert_eq!(
            parse(&words("--only tests")),
            Err("there is no stage `tests`; there are format, clippy, nextest, rows, doctest, \
                 doc, deny, simulate, fuzz, crash-points, chaos, alerts, ui, api"
                .to_owned())
        );
        assert!(parse(&words("--only")).unwrap_err().contains("needs a stage"));
        assert!(parse(&words("--fast")).unwrap_err().contains("`--fast`"));
    }

    #[test]
    fn a_stage_whose_program_fails_or_is_missing_is_not_well() {
        let mut missing = tools::plain("there-is-no-program-of-this-name");
        assert!(finish(&mut missing).unwrap_err().contains("could not start"));
        let mut failing = tools::plain("false");
        assert!(finish(&mut failing).unwrap_err().contains("exit status: 1"));
    }
}
