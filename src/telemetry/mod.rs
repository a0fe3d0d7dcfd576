//! What the program tells of itself while it runs: `tracing` events, as text or
//! as JSON lines, to standard error. Standard output is for answers.
//!
//! What is deliberately absent: secrets (see `settings::Secret`), and log files:
//! whoever starts the program keeps its standard error.

pub mod mailboxes;
pub mod metrics;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Environment variable that says what is told, for example
/// `info,botmaster::actors=debug`.
pub const FILTER_VARIABLE: &str = "BOTMASTER_LOG";

/// Names of fields, the same everywhere, so that one search finds everything
/// about one thing.
pub mod field {
    /// A builder's name.
    pub const BUILDER: &str = "builder";
    /// A worker's name.
    pub const WORKER: &str = "worker";
    /// A build's id.
    pub const BUILD: &str = "build";
    /// A build request's id.
    pub const REQUEST: &str = "request";
    /// A worker's incarnation.
    pub const INCARNATION: &str = "incarnation";
    /// A claim's epoch.
    pub const EPOCH: &str = "epoch";
    /// A step's name.
    pub const STEP: &str = "step";
    /// An error's text.
    pub const ERROR: &str = "error";
}

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why events cannot be written as asked.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{FILTER_VARIABLE} is `{text}`, which is no filter: {error}")]
    Filter {
        /// What it is.
        text: String,
        /// Why that is none.
        error: String,
    },
    /// It was set up before.
    #[error("events are written already: {0}")]
    Again(String),
}

/// Begins to write events to standard error. `BOTMASTER_LOG` says which; without
/// it `standard` does, for example `info`.
///
/// # Errors
/// When the filter is not one, or events are written already.
pub fn init(format: LogFormat, standard: &str) -> Result<(), TelemetryError> {
    let text = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| standard.to_owned());
    let filter = EnvFilter::try_new(&text)
        .map_err(|error| TelemetryError::Filter { text, error: error.to_string() })?;
    let writer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => writer.try_init(),
        LogFormat::Json => writer.json().flatten_event(true).try_init(),
    }
    .map_err(|error| TelemetryError::Again(error.to_string()))
}
