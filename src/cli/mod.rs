//! The program's command line: what it is told, and which part does it.
//!
//! What is deliberately absent: any `@file` or other expansion of what was
//! typed, and any access to the store. Commands for a running master talk to its
//! HTTP API like everybody else.

mod check;
pub mod client;
mod connect;
mod console;
pub mod exit;
mod init;
mod keep;
mod local_worker;
mod master_api;
mod papers;
mod screen;
mod tell;
mod token;
mod up;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::app::{MasterOptions, Opening};
use crate::settings::{Loaded, Overrides, Problem, load_with};
use crate::telemetry::{self, LogFormat};
use tell::complain;

pub use console::{Console, WatchError, watch_build};
pub use local_worker::{LocalWorker, StopStage, WorkerNews, supervise};
pub use screen::{LiveScreen, PlainScreen, Progress, Screen};
pub use worker::WorkerArgs;

/// Name of the file in the data folder that holds the chosen HTTP address.
pub const HTTP_ADDRESS_FILE: &str = "http.addr";

/// Where a master is looked for when nothing says where it is.
const STANDARD_URL: &str = "http://127.0.0.1:8010";

const EXAMPLES: &str = "\
Examples:
  botmaster up                      a master and a worker from config/botmaster.toml, and a first build
  botmaster up --once               the same; ends with the build, and tells its result by the exit code
  botmaster check                   is the configuration good?
  botmaster init /srv/botmaster     a configuration, a worker token and systemd units to start from

Exit codes:
  0   done; with --once or --wait: the build ended with success or warnings
  1   it did not work; with --once or --wait: the build failed
  2   wrong usage; with --once or --wait: the build ended in another way
  70  a fault of this program
  75  not now: nobody answers, or nobody takes the build
  78  the configuration is bad";

const WORKER_HELP: &str = "\
The worker connects to the master, and again whenever it loses it. The first
SIGTERM or Ctrl-C lets its builds end; the second ends everything at once.

Examples:
  botmaster worker --master 127.0.0.1:9989 --name local --token-file data/tokens/local.token

Exit codes: 0 ended as asked, 70 a fault of this program, 78 it cannot start as
told, or the master refuses it for good.";

/// A build master: queues build requests, picks a worker, runs the build there
/// step by step, and never loses any of it.
#[derive(Debug, Parser)]
#[command(name = "botmaster", version, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BOTMASTER_CONFIG",
        default_value = "config/botmaster.toml"
    )]
    pub config: PathBuf,
    /// The data folder, instead of the configuration's.
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the master's HTTP API listens, instead of the configuration's; port 0 picks a free one.
    #[arg(long, global = true, value_name = "IP:PORT")]
    pub http: Option<SocketAddr>,
    /// Where workers connect to the master, instead of the configuration's; port 0 picks a free one.
    #[arg(long, global = true, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Folder of Buildbot's own web pages, which are then served at `/`, instead of the configuration's.
    #[arg(long, global = true, value_name = "DIR")]
    pub ui_dir: Option<PathBuf>,
    /// The running master that a command is for; without it, the one whose
    /// address is in the data folder, else http://127.0.0.1:8010.
    #[arg(long, global = true, value_name = "URL", env = "BOTMASTER_URL")]
    pub url: Option<String>,
    /// Answer in JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands. Those for a running master are flattened in after these.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start a master and a worker here, build once, and show how it goes
    Up(up::UpArgs),
    /// Run the master
    Master(MasterArgs),
    /// Run a worker
    #[command(after_help = WORKER_HELP)]
    Worker(WorkerArgs),
    /// Write a configuration, a worker token and systemd units to start from
    Init(init::InitArgs),
    /// Say everything that is wrong with a configuration
    Check(check::CheckArgs),
    /// Make the token file of a configured worker
    Token(token::TokenArgs),
    /// Print what a shell needs to complete commands
    Completions(papers::CompletionsArgs),
    /// Print the manual page, or write a page for each command
    Man(papers::ManArgs),
    /// Copy the data folder, while the master works or without it
    Backup(keep::BackupArgs),
    /// Make a new data folder of a backup
    Restore(keep::RestoreArgs),
    /// Say what the housekeeping would remove now, without removing anything
    Housekeeping(keep::HousekeepingArgs),
    #[command(flatten)]
    Client(client::ClientCommand),
}

/// Arguments of `master`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The master runs until SIGTERM or Ctrl-C; SIGHUP reads the configuration again.
What it tells goes to standard error; BOTMASTER_LOG says how much (default: info).

Examples:
  botmaster master
  BOTMASTER_LOG=debug botmaster master --log-format json
  botmaster master --config /etc/botmaster.toml --data-dir /var/lib/botmaster
  botmaster master --restored       the first start after `botmaster restore`

Exit codes: 0 ended as asked, 70 a fault of this program, 75 not now (address or
data folder in use), 78 the configuration is bad.")]
pub struct MasterArgs {
    /// How events are written to standard error.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// The data folder is a restored backup: numbers skip ahead, and builds that
    /// it does not know are abandoned.
    #[arg(long)]
    restored: bool,
    /// Read and check the whole store first.
    #[arg(long)]
    verify: bool,
}

impl Common {
    /// The settings that win over the file's.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            data_dir: self.data_dir.clone(),
            http: self.http,
            listen: self.listen,
            ui_dir: self.ui_dir.clone(),
        }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Loaded, Vec<Problem>> {
        load_with(&self.config, &self.overrides())
    }

    /// The address of the running master that a command is for.
    #[must_use]
    pub fn master_url(&self) -> String {
        if let Some(url) = &self.url {
            return url.trim_end_matches('/').to_owned();
        }
        // The configuration is only asked for its data folder: a bad one must
        // not keep a person from looking at a running master.
        let folder = match &self.data_dir {
            Some(folder) => Some(folder.clone()),
            None => self.load().ok().map(|loaded| loaded.settings.master.data_dir),
        };
        folder
            .and_then(|folder| std::fs::read_to_string(folder.join(HTTP_ADDRESS_FILE)).ok())
            .and_then(|text| text.trim().parse::<SocketAddr>().ok())
            .map_or_else(|| STANDARD_URL.to_owned(), |address| format!("http://{address}"))
    }
}

/// Reads the command line and does what it says. Answers the exit code; wrong
/// usage ends the program here, with 2 and a text.
#[must_use]
pub fn main() -> u8 {
    if let Some(options) = worker::keeper_options() {
        return connect::run_keeper(options);
    }
    let cli = Cli::parse();
    let common = cli.common;
    match cli.command {
        Command::Up(args) => up::run(&common, &args),
        Command::Master(args) => run_master(&common, &args),
        Command::Worker(args) => connect::run_worker(args),
        Command::Init(args) => init::run(&args),
        Command::Check(args) => check::run(&common, &args),
        Command::Token(args) => token::run(&common, &args),
        Command::Completions(args) => papers::completions(&args),
        Command::Man(args) => papers::man(&args),
        Command::Backup(args) => keep::backup(&common, &args),
        Command::Restore(args) => keep::restore(&common, &args),
        Command::Housekeeping(_) => keep::housekeeping(&common),
        Command::Client(command) => client::run(command, &common.master_url(), common.json),
    }
}

fn run_master(common: &Common, args: &MasterArgs) -> u8 {
    if let Err(error) = telemetry::init(args.log_format, "info") {
        complain(format_args!("botmaster: {error}"));
        return exit::CONFIG;
    }
    match common.load() {
        Ok(loaded) => {
            for note in &loaded.notes {
                tracing::warn!("{note}");
            }
            let opening = Opening { restored: args.restored, verify: args.verify };
            connect::run_master(MasterOptions { loaded, overrides: common.overrides(), opening })
        }
        Err(problems) => {
            print_problems(&problems);
            exit::CONFIG
        }
    }
}

/// Tells standard error what is wrong with a configuration.
fn print_problems(problems: &[Problem]) {
    for problem in problems {
        complain(format_args!("error: {problem}"));
    }
}
