//! CONNECT HERE: the one place where the command line reaches the master and the
//! worker. The three functions below get their bodies when those are merged:
//! `crate::app::run_master`, `crate::app::start` and `crate::worker::run`. Until
//! then they say that this program was built without.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;

use super::exit;
use super::tell::complain;
use super::worker::WorkerArgs;
use crate::settings::{Loaded, Overrides};

/// What a master is started with.
#[derive(Clone, Debug)]
pub struct MasterOptions {
    /// The configuration, with the overrides applied.
    pub loaded: Loaded,
    /// What the command line said, for reading the file again.
    pub overrides: Overrides,
}

/// A master that runs in this process, on threads of its own.
pub struct RunningMaster {
    /// Where its HTTP API listens.
    pub http: SocketAddr,
    /// Where workers connect.
    pub listen: SocketAddr,
    /// Asks it to stop: no new builds, running ones get this long. Returns at
    /// once; asked again with less, that counts.
    pub stop: Box<dyn FnMut(Duration) + Send>,
    /// Answers when it has ended: why, when it was not asked to.
    pub ended: oneshot::Receiver<Result<(), String>>,
}

/// Runs a master until SIGTERM or Ctrl-C. Answers the exit code.
pub(super) fn run_master(options: MasterOptions) -> u8 {
    complain(format_args!("botmaster: {}", without("master", &options)));
    exit::SOFTWARE
}

/// Starts a master and returns once it listens. It installs no signal handlers.
pub(super) fn start_master(options: MasterOptions) -> Result<RunningMaster, String> {
    Err(without("master", &options))
}

/// Runs a worker until it is told to end. Answers the exit code.
pub(super) fn run_worker(args: WorkerArgs) -> u8 {
    complain(format_args!(
        "botmaster: this program was built without its worker; `{}` cannot run",
        args.name
    ));
    exit::SOFTWARE
}

fn without(part: &str, options: &MasterOptions) -> String {
    let file = options.loaded.settings.file.display();
    format!("this program was built without its {part}; {file} cannot be run")
}
