//! `cargo xtask simulate`: whole masters and workers in virtual time, from
//! many seeds.
//!
//! Owns how the simulation is built and started. What it does is told in
//! `docs/simulation.md`.

use std::process::{Command, Stdio};

use crate::report;
use crate::root;
use crate::tools;

/// Seeds when nothing is said, and in `cargo xtask test`.
pub const SEEDS: u64 = 1000;

/// What was asked for.
#[derive(PartialEq, Eq, Debug)]
struct Options {
    seeds: u64,
    first: u64,
}

/// Builds the simulation and runs it; true when all went well. Its last line
/// is ours.
///
/// # Errors
/// When the arguments are wrong or it cannot be built or started.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("simulate", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    build()?;
    report::say(&format!("seeds {} to {}", options.first, options.last()));
    let program = root::target().join("debug").join("simulate");
    let mut command = tools::plain(&program.to_string_lossy());
    command.stdout(Stdio::inherit());
    command.args([options.seeds.to_string(), options.first.to_string()]);
    match command.status() {
        Ok(status) => Ok(status.success()),
        Err(error) => Err(format!("could not start {}: {error}", program.display())),
    }
}

/// As a stage of `cargo xtask test`.
///
/// # Errors
/// When this very program cannot be found.
pub fn stage() -> Result<Command, String> {
    let me = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let mut command = tools::plain(&me.to_string_lossy());
    command.args(["simulate", "--seeds", &SEEDS.to_string()]);
    Ok(command)
}

impl Options {
    fn last(&self) -> u64 {
        self.first.wrapping_add(self.seeds - 1)
    }
}

/// With the very features that the tests are built with, so that after them
/// nothing is left to build: the program comes with its package's tests.
fn build() -> Result<(), String> {
    let mut command = tools::cargo();
    command.args(["test", "--quiet", "--workspace", "--test", "seeds", "--no-run"]);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the simulation could not be built: {status}")),
        Err(error) => Err(format!("could not start cargo: {error}")),
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options { seeds: SEEDS, first: 1 };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let number = |value: Option<&String>| {
            let value = value.ok_or_else(|| format!("{argument} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{argument} needs a number, not `{value}`"))
        };
        match argument.as_str() {
            "--seeds" => options.seeds = number(rest.next())?,
            "--seed" => options.first = number(rest.next())?,
            other => {
                return Err(format!("`{other}` is not known; see `cargo xtask help simulate`"));
            }
        }
    }
    if options.seeds == 0 {
        return Err("--seeds needs at least 1".to_owned());
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
    fn the_seed_is_the_first_of_them() {
        let options = parsed("--seeds 10 --seed 7").unwrap();
        assert_eq!((options.first, options.last()), (7, 16));
        assert_eq!(parsed(""), Ok(Options { seeds: SEEDS, first: 1 }));
    }

    #[test]
    fn wrong_numbers_are_named() {
        assert!(parsed("--seeds").unwrap_err().contains("--seeds needs a number"));
        assert!(parsed("--seed x").unwrap_err().contains("not `x`"));
        assert!(parsed("--seeds 0").unwrap_err().contains("at least 1"));
        assert!(parsed("--all").unwrap_err().contains("`--all`"));
    }
}
