//! The one place where the command line reaches the master and the worker.

use std::path::Path;

use super::exit;
use super::tell::complain;
use super::worker::WorkerArgs;
use crate::app::{self, MasterOptions};
use crate::telemetry::{self, LogFormat};
use crate::worker::keeper::KeeperOptions;
use crate::worker::{self, WorkerError};

/// Runs a master until SIGTERM or Ctrl-C. Answers the exit code.
pub(super) fn run_master(options: MasterOptions) -> u8 {
    match app::run_master(options) {
        Ok(()) => exit::OK,
        Err(text) => {
            complain(format_args!("botmaster: {text}"));
            exit::TEMPORARY
        }
    }
}

/// Runs a worker until it is told to end. Answers the exit code.
pub(super) fn run_worker(args: WorkerArgs) -> u8 {
    if let Err(error) = telemetry::init(LogFormat::Text, "info") {
        complain(format_args!("botmaster: {error}"));
        return exit::CONFIG;
    }
    if args.own_session
        && let Err(error) = nix::unistd::setsid()
    {
        // Whoever leads a group already has one of its own.
        tracing::debug!(%error, "no session of its own");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("botmaster: cannot start: {error}"));
            return exit::SOFTWARE;
        }
    };
    let ran = runtime.block_on(worker::run(args.into()));
    runtime.shutdown_background();
    match ran {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(format_args!("botmaster: {error}"));
            match error {
                WorkerError::Signals(_) => exit::SOFTWARE,
                _ => exit::CONFIG,
            }
        }
    }
}

/// Keeps one build for a worker program. Answers the exit code.
pub(super) fn run_keeper(options: KeeperOptions) -> u8 {
    match worker::keeper::keep(options) {
        Ok(()) => exit::OK,
        Err(text) => {
            complain(format_args!("botmaster: the keeper of a build: {text}"));
            exit::SOFTWARE
        }
    }
}

/// Ends what is left of a worker's builds, whose program is gone for good.
pub(super) async fn end_leftovers(dir: &Path) {
    worker::end_leftovers(dir).await;
}
