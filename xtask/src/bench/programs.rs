//! Builds the programs that are measured.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::master::Programs;
use crate::report::say;
use crate::tools;

/// Builds what is measured, as a release unless only the command itself is
/// tried out.
///
/// # Errors
/// When it cannot be built.
pub fn build(dev: bool) -> Result<Programs, String> {
    build_with(dev, &[])
}

/// Builds it with these variables in the environment of the build.
///
/// # Errors
/// When it cannot be built.
pub fn build_with(dev: bool, variables: &[(&str, &Path)]) -> Result<Programs, String> {
    tools::need_programs()?;
    say(if dev { "building without --release" } else { "building with --release" });
    let mut command = tools::cargo();
    command.args(["build", "--message-format=json-render-diagnostics"]);
    command.args((!dev).then_some("--release"));
    command.args(["-p", "botmaster", "--bin", "botmaster"]);
    command.args(["-p", "botmaster-bench"]);
    for tool in ["load_workers", "http_load", "store_counts", "store_cost"] {
        command.args(["--bin", tool]);
    }
    command.envs(variables.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err("the build failed".to_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let find = |name: &str| {
        executable(&messages, name).ok_or(format!("cargo did not say where it built `{name}`"))
    };
    let botmaster = find("botmaster")?;
    let mut version = tools::plain(&botmaster.to_string_lossy());
    let told = version.arg("--version").stdout(Stdio::piped()).output();
    let told = told.map_err(|error| format!("{}: {error}", botmaster.display()))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let version = told.split_whitespace().nth(1).ok_or("`botmaster --version` tells none")?;
    let system = format!("botmaster-{version}{}", if dev { "-dev" } else { "" });
    Ok(Programs { botmaster, load_workers: find("load_workers")?, system })
}

/// Where cargo says that it has put a program.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let of_that_name = line.pointer("/target/name")?.as_str()? == name;
        let path = line.get("executable")?.as_str()?;
        of_that_name.then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_tells_where_the_programs_are() {
        let messages = "noise\n{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"botmaster\"},\
                        \"executable\":null}\n{\"target\":{\"name\":\"botmaster\"},\
                        \"executable\":\"/t/release/botmaster\"}\n";
        assert_eq!(executable(messages, "botmaster"), Some("/t/release/botmaster".into()));
        assert_eq!(executable(messages, "load_workers"), None);
    }
}
