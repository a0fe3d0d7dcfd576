//! What a worker is told at its start, and why it could not go on.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a worker is told at its start.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The master's worker port: `HOST:PORT`.
    pub master: String,
    /// The worker's name in the master's configuration.
    pub name: String,
    /// File with its token in the first line.
    pub token_file: PathBuf,
    /// Folder below which all builds work.
    pub dir: PathBuf,
    /// Builds side by side; none means the number of cores.
    pub max_builds: Option<u32>,
    /// Ends everything at once when standard input reaches its end.
    pub stop_with_stdin: bool,
    /// The program that is started as `keep-command` for each build; none means
    /// this one.
    pub keeper: Option<PathBuf>,
    /// Free labels for the master.
    pub labels: BTreeMap<String, String>,
}

/// Why a worker program ended other than by drain or wish.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// An option cannot be used.
    #[error("{0}")]
    Options(String),
    /// The token cannot be read.
    #[error("token file `{path}`: {error}; it holds the worker's token in its first line")]
    Token {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: String,
    },
    /// The worker's folder cannot be used.
    #[error("worker folder `{path}`: {error}")]
    Folder {
        /// The folder.
        path: String,
        /// What is wrong with it.
        error: String,
    },
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signals(#[from] std::io::Error),
    /// The master will not have this worker, and it is no use to try again.
    #[error("the master rejected this worker ({code}): {message}")]
    Rejected {
        /// The wire's code.
        code: String,
        /// The master's words.
        message: String,
    },
}
