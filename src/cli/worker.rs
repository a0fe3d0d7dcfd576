//! Arguments of `worker`.

use std::path::PathBuf;

use clap::Args;

use crate::worker::WorkerOptions;
use crate::worker::keeper::KeeperOptions;

/// Arguments of `worker`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The worker connects to the master, and again whenever it loses it; its builds go
on meanwhile. The first SIGTERM or Ctrl-C lets its builds end; the second ends
everything at once.

Examples:
  botmaster worker --master 127.0.0.1:9989 --name local --token-file data/tokens/local.token --dir /var/tmp/local
  botmaster worker --master ci.example:9989 --name arm-1 --token-file /etc/botmaster/arm-1.token --dir /srv/arm-1 --max-builds 2

Exit codes: 0 ended as asked, 70 a fault of this program, 78 the options cannot
be used or the master refuses it for good.")]
pub struct WorkerArgs {
    /// Where the master listens for workers.
    ///
    /// It is the `listen` address of the master's configuration. The worker
    /// dials, so it can stand behind a firewall.
    #[arg(long, value_name = "HOST:PORT")]
    pub master: String,
    /// This worker's name in the master's configuration.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// File with this worker's token in its first line.
    ///
    /// The master has the same token in a file of its own. Nobody but the user
    /// who runs the worker should be able to read it (`chmod 600`).
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// Folder to work in [default: the worker's name].
    ///
    /// Each builder gets a folder of its own below it. It is made when it does
    /// not exist, and one worker program at a time may use it.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How many builds may run side by side [default: the number of cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_builds: Option<u32>,
    /// Label for the master, such as `--label os=debian13`; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// End everything at once when standard input reaches its end.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
    /// Leave the session and process group of whoever started it.
    #[arg(long, hide = true)]
    pub own_session: bool,
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
            keeper: None,
            labels: args.labels.into_iter().collect(),
        }
    }
}

/// The first argument of a build's keeper, which only a worker program starts.
const KEEP_COMMAND: &str = "keep-command";

/// What a keeper is told, when the program was started as one: `keep-command`, the
/// worker's folder, the mark. A build may wait for it, so this is looked at
/// before all that people may type.
pub(super) fn keeper_options() -> Option<KeeperOptions> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != KEEP_COMMAND {
        return None;
    }
    let root = args.next()?.into();
    let mark = args.next()?.into_string().ok()?;
    Some(KeeperOptions { root, mark })
}
