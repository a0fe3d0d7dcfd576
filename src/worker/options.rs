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
    /// Free labels for the master.
    pub labels: BTreeMap<String, String>,
}

/// Command-line arguments of a worker.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArgs {
    /// Where the master listens for workers.
    ///
    /// It is the `listen` address of the master's configuration. The worker
    /// dials, so it can stand behind a firewall.
    #[arg(long, value_name = "HOST:PORT")]
    pub master: String,
    /// The worker's name, as the master's configuration has it.
    #[arg(long)]
    pub name: String,
    /// File with the worker's token in its first line.
    ///
    /// The master keeps the same token in a file of its own. Give the file to
    /// nobody but the user who runs the worker (`chmod 600`).
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// Folder to work in [default: the worker's name].
    ///
    /// Each builder gets a folder of its own below it. It is made when it does
    /// not exist, and one worker program at a time may use it.
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// How many builds may run side by side [default: the number of cores].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_builds: Option<u32>,
    /// Label for the master, such as `--label os=debian13`; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// End at once, with all builds, when standard input is closed.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a label looks like NAME=VALUE".to_owned()),
    }
}

impl From<WorkerArgs> for WorkerOptions {
    fn from(args: WorkerArgs) -> Self {
        Self {
            dir: args.dir.unwrap_or_else(|| PathBuf::from(&args.name)),
            master: args.master,
            name: args.name,
            token_file: args.token_file,
            max_builds: args.max_builds,
            stop_with_stdin: args.stop_with_stdin,
            labels: args.labels.into_iter().collect(),
        }
    }
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
