//! One process that hosts many workers, for measuring a master.
//!
//! Each worker has its own TCP connection and speaks the whole native protocol:
//! attach, inventory and resume, builder lists, pings, heartbeats, builds and
//! commands, the lease. Only running a command is replaced: it starts no
//! process and is reported with exit status 0 at once, without output. A
//! command `bench-job SECS TOKEN` is reported after SECS seconds instead, and
//! leaves `TIME start TOKEN` and `TIME finish TOKEN` in the execution log. A
//! command `bench-log` writes a text that was prepared before the process
//! connected, as fast as the master confirms it.
//!
//! Deliberately absent: threads (one is enough for 10,000 workers, and leaves
//! the others to the master), journals on disk.
#![forbid(unsafe_code)]

mod load;

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use load::exec_log::ExecLog;
use load::link::{Fleet, run_worker};
use load::options::{Options, USAGE};
use load::text::Text;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            eprintln!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("error: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    raise_file_limit(options.count);
    let exec_log = ExecLog::open(options.exec_log.as_deref())?;
    let text = Text::of_megabytes(options.log_mb);
    let mut workers = Vec::new();
    for index in options.first..options.first.saturating_add(options.count) {
        let name = format!("w{index:05}");
        let token = options.token(&name)?;
        workers.push((name, token));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    let fleet = Rc::new(Fleet::new(options.master.clone(), exec_log, text));
    let tasks = tokio::task::LocalSet::new();
    let all = async {
        let handles: Vec<_> = workers
            .into_iter()
            .map(|(name, token)| {
                tokio::task::spawn_local(run_worker(Rc::clone(&fleet), name, token))
            })
            .collect();
        for handle in handles {
            // A worker ends when the master rejects it for good or sends it
            // away; it has said so itself.
            let _ = handle.await;
        }
    };
    let limit = Duration::from_secs(options.max_seconds);
    // The timer needs the runtime that it is made in.
    if tasks.block_on(&runtime, async { tokio::time::timeout(limit, all).await }).is_err() {
        eprintln!("{} s are over", options.max_seconds);
    }
    Ok(())
}

/// Each worker is one file descriptor; the usual limit of 1,024 is soft.
fn raise_file_limit(count: u32) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = u64::from(count) + 64;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)
    {
        eprintln!("cannot raise the limit of open files from {soft} to {wanted}: {error}");
    }
}
