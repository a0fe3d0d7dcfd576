//! The tools that the stages need: where they are, and how to get those that
//! are missing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::report;
use crate::root;

/// A tool that comes as a crate of its own.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// What follows `cargo`: `nextest`.
    pub subcommand: &'static str,
    /// Name of its crate and of its program: `cargo-nextest`.
    pub package: &'static str,
    /// The version that is installed when there is none.
    pub version: &'static str,
}

/// Runs the tests.
pub const NEXTEST: Tool =
    Tool { subcommand: "nextest", package: "cargo-nextest", version: "0.9.143" };

/// Checks licences, bans and sources of what we depend on.
pub const DENY: Tool = Tool { subcommand: "deny", package: "cargo-deny", version: "0.20.2" };

/// A cargo that runs at the root of the checkout, with its standard output on
/// our standard error: our own standard output is for JSON lines only.
#[must_use]
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    plain(&program.to_string_lossy())
}

/// Any program, prepared in the same way.
#[must_use]
pub fn plain(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root::root()).stdin(Stdio::null()).stdout(std::io::stderr());
    // `cargo run` describes this package to us in variables that would look to
    // the next cargo like a change of its surroundings.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Whether a command can be run and ends well. Its output goes nowhere.
#[must_use]
pub fn answers(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The programs that must be there before anything can be built or tested.
///
/// # Errors
/// Names each missing program and what it is needed for.
pub fn need_programs() -> Result<(), String> {
    let mut missing = Vec::new();
    for (program, purpose) in [
        ("git", "the checkout step and its tests"),
        (
            "cc",
            "the bundled SQLite and zstd, which are C (Debian: apt-get install build-essential)",
        ),
    ] {
        if program == "cc" && std::env::var_os("CC").is_some() {
            continue;
        }
        let mut command = plain(program);
        command.arg("--version");
        if !answers(command) {
            missing.push(format!("`{program}` is missing; it is needed for {purpose}"));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}

/// Makes sure that cargo writes where it will be allowed to.
///
/// # Errors
/// Names the folder and what to do.
pub fn need_target() -> Result<(), String> {
    let folder = root::target();
    let probe = folder.join(format!(".xtask-probe-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| {
            format!(
                "cannot write to {}: {error}; make it yours or set CARGO_TARGET_DIR to a folder \
                 that is",
                folder.display()
            )
        })
}

/// Where a program is, the first of its names that `$PATH` knows. One that is
/// missing is installed with its Debian package, where that can be done without
/// asking anybody: by root, as in a container.
///
/// # Errors
/// When it is missing and cannot be had; tells what to do.
pub fn need_package(names: &[&str], package: &str) -> Result<PathBuf, String> {
    if let Some(program) = on_path(names) {
        return Ok(program);
    }
    let what = names.first().copied().unwrap_or(package);
    let by_hand = format!("`{what}` is missing: install it (Debian: apt-get install {package})");
    if !is_root() || on_path(&["apt-get"]).is_none() {
        return Err(by_hand);
    }
    report::say(&format!("{what} is missing; installing the package {package}"));
    let lines: [&[&str]; 2] = [
        &["update", "--quiet"],
        &["install", "--yes", "--quiet", "--no-install-recommends", package],
    ];
    for line in lines {
        let mut command = plain("apt-get");
        command.args(line).env("DEBIAN_FRONTEND", "noninteractive");
        if !command.status().is_ok_and(|status| status.success()) {
            return Err(format!("`apt-get {}` failed. {by_hand}", line.join(" ")));
        }
    }
    on_path(names).ok_or(by_hand)
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let programs = names.iter().flat_map(|name| folders.iter().map(move |one| one.join(name)));
    programs.into_iter().find(|program| program.is_file())
}

fn is_root() -> bool {
    let mut command = plain("id");
    command.arg("-u").stdout(Stdio::piped());
    command.output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// A `python3 -m pip install` that brings packages into a folder.
///
/// # Errors
/// When Python or pip is missing and cannot be had.
pub fn pip_into(folder: &Path) -> Result<Command, String> {
    need_package(&["python3"], "python3")?;
    let mut probe = plain("python3");
    probe.args(["-m", "pip", "--version"]);
    if !answers(probe) {
        need_package(&["pip3"], "python3-pip")?;
    }
    let mut install = plain("python3");
    install
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--root-user-action", "ignore", "--only-binary", ":all:", "--upgrade", "--target"])
        .arg(folder);
    Ok(install)
}

/// Runs a command that brings something.
///
/// # Errors
/// When it cannot be started or fails.
pub fn succeed(mut command: Command, what: &str) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} failed: {status}")),
        Err(error) => Err(format!("{what} is needed: {error}")),
    }
}

/// Makes sure of a component of the compiler's distribution.
///
/// # Errors
/// When it is missing and rustup cannot add it.
pub fn need_component(subcommand: &str, component: &str) -> Result<(), String> {
    let mut probe = cargo();
    probe.args([subcommand, "--version"]);
    if answers(probe) {
        return Ok(());
    }
    report::say(&format!("{component} is missing; adding it with rustup"));
    let mut add = plain("rustup");
    add.args(["component", "add", component]);
    match add.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("`rustup component add {component}` failed")),
        Err(_) => Err(format!("{component} is missing, and there is no rustup to add it with")),
    }
}

/// A command for a tool, installed first when it is absent.
///
/// # Errors
/// When it is absent and cannot be installed.
pub fn need(tool: Tool) -> Result<Command, String> {
    if let Some(command) = find(tool) {
        return Ok(command);
    }
    report::say(&format!(
        "{} is missing; installing {} (this takes some minutes, once)",
        tool.package, tool.version
    ));
    let fallback = tool_root();
    for place in [None, Some(&fallback)] {
        let mut install = cargo();
        install.args(["install", "--locked", "--version", tool.version, tool.package]);
        if let Some(place) = place {
            install.arg("--root").arg(place);
        }
        if install.status().is_ok_and(|status| status.success())
            && let Some(command) = find(tool)
        {
            return Ok(command);
        }
    }
    Err(format!(
        "{0} is missing and could not be installed; try `cargo install --locked {0}` by hand",
        tool.package
    ))
}

fn find(tool: Tool) -> Option<Command> {
    let mut probe = cargo();
    probe.args([tool.subcommand, "--version"]);
    if answers(probe) {
        let mut command = cargo();
        command.arg(tool.subcommand);
        return Some(command);
    }
    // Where a user without a writable home has it.
    let program = tool_root().join("bin").join(tool.package);
    let mut probe = plain(&program.to_string_lossy());
    probe.args([tool.subcommand, "--version"]);
    if answers(probe) {
        let mut command = plain(&program.to_string_lossy());
        command.arg(tool.subcommand);
        return Some(command);
    }
    None
}

fn tool_root() -> PathBuf {
    root::target().join("tools")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_does_not_answer() {
        assert!(!answers(plain("there-is-no-program-of-this-name")));
        let mut cargo = cargo();
        cargo.arg("--version");
        assert!(answers(cargo));
    }

    #[test]
    fn a_program_is_found_by_any_of_its_names_or_told_with_its_package() {
        let found = need_package(&["there-is-no-program-of-this-name", "sh"], "dash").unwrap();
        assert!(found.ends_with("sh"));
        assert_eq!(on_path(&["there-is-no-program-of-this-name"]), None);
    }

    #[test]
    fn the_folder_that_cargo_builds_into_can_be_written() {
        assert_eq!(need_target(), Ok(()));
    }
}
