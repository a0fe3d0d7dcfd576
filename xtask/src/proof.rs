//! `cargo xtask crash-points` and `cargo xtask chaos`: the real program,
//! killed.
//!
//! Owns how the proof is built and started. What it does is told in
//! `docs/crash-points.md`.

use std::process::{Command, Stdio};

use crate::root;
use crate::tools;

/// How long `cargo xtask test` kills processes at random.
pub const CHAOS_SECONDS: u64 = 60;

/// Builds the proof and runs one of its commands, which reads the arguments;
/// true when all went well. Its last line is ours.
///
/// # Errors
/// When it cannot be built or started, or does not understand the arguments.
pub fn run(command: &str, arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted(command, arguments) {
        return Ok(true);
    }
    build("real_program")?;
    let program = root::target().join("debug").join("proof");
    let mut proof = tools::plain(&program.to_string_lossy());
    proof.stdout(Stdio::inherit()).arg(command).args(arguments);
    match proof.status() {
        Ok(status) if status.code() == Some(2) => Err(format!("see `cargo xtask help {command}`")),
        Ok(status) => Ok(status.success()),
        Err(error) => Err(format!("could not start {}: {error}", program.display())),
    }
}

/// As stages of `cargo xtask test`.
///
/// # Errors
/// When this very program cannot be found.
pub fn stage(arguments: &[&str]) -> Result<Command, String> {
    let me = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let mut command = tools::plain(&me.to_string_lossy());
    command.args(arguments);
    Ok(command)
}

/// With the very features that the tests are built with, so that after them
/// nothing is left to build: the programs come with their package's tests.
///
/// # Errors
/// When they cannot be built.
pub fn build(test: &str) -> Result<(), String> {
    let mut command = tools::cargo();
    command.args(["test", "--quiet", "--workspace", "--test", test, "--no-run"]);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the program could not be built: {status}")),
        Err(error) => Err(format!("could not start cargo: {error}")),
    }
}
