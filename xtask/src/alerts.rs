//! `cargo xtask alerts`: Prometheus' own tool looks at the alert rules.

use std::process::Command;

use crate::root;
use crate::tools;

/// What is looked at, and how, from the folder with the rules.
const LOOKS: [&[&str]; 3] = [
    &["check", "rules", "alerts.yml"],
    &["test", "rules", "alerts_test.yml"],
    &["check", "config", "prometheus.yml"],
];

/// Checks the rules and runs their tests; true when all went well.
///
/// # Errors
/// When there is no `promtool` and it cannot be had.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("alerts", arguments) {
        return Ok(true);
    }
    if let Some(surplus) = arguments.first() {
        return Err(format!("`{surplus}`: this command takes no arguments"));
    }
    let promtool = tools::need_package(&["promtool"], "prometheus")?;
    let folder = root::root().join("config/prometheus");
    let mut well = true;
    for look in LOOKS {
        let mut command: Command = tools::plain(&promtool.to_string_lossy());
        command.current_dir(&folder).args(look);
        let status = command.status().map_err(|error| format!("promtool: {error}"))?;
        well &= status.success();
    }
    Ok(well)
}
