//! `cargo xtask diagrams`: draws the transition tables anew. The test that
//! compares the drawing with the tables is told to write it.

use serde_json::json;

use crate::{report, tools};

/// Writes `docs/transitions.md`.
///
/// # Errors
/// When the arguments are wrong or cargo cannot be started.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("diagrams", arguments) {
        return Ok(true);
    }
    if let Some(other) = arguments.first() {
        return Err(format!("`{other}` is not known; see `cargo xtask help diagrams`"));
    }
    let mut command = tools::cargo();
    command
        .args(["test", "--quiet", "--package", "botmaster", "--test", "core"])
        .args(["--", "the_drawing_in_docs_is_what_the_tables_say"])
        .env("BOTMASTER_WRITE_DOCS", "1");
    let status = command.status().map_err(|error| format!("could not start cargo: {error}"))?;
    report::line(&json!({
        "summary": "diagrams", "ok": status.success(), "file": "docs/transitions.md",
    }));
    Ok(status.success())
}
