//! Arguments of `worker`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `worker`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The worker connects to the master, and again whenever it loses it. The first
SIGTERM or Ctrl-C lets its builds end; the second ends everything at once.

Examples:
  botmaster worker --master 127.0.0.1:9989 --name local --token-file data/tokens/local.token --dir /var/tmp/local

Exit codes: 0 ended as asked, 75 not now, 78 the master refuses it for good.")]
pub struct WorkerArgs {
    /// The master's address for workers.
    #[arg(long, value_name = "HOST:PORT")]
    pub master: String,
    /// This worker's name in the master's configuration.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// File with this worker's token.
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// Folder for builds and journals; made when it is missing.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Builds to run side by side at most; without it, one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_builds: Option<u32>,
    /// End everything at once when standard input reaches its end.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}
