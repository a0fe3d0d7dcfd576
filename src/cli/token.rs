//! `token`: makes the token file of a configured worker.

use clap::Args;

use super::tell::{complain, say};
use super::{Common, exit, print_problems};
use crate::settings::write_new_token_file;

/// Arguments of `token`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The file is the one that the configuration names, and only its owner can read
it. Copy it to the worker's machine. To change a token, put a second one on a
line below the first, give it to the worker, then delete the first.

Examples:
  botmaster token gpu-1 --config config/fleet.toml

Exit codes: 0 done, 1 it did not work, 78 the configuration is bad or has no such worker.")]
pub struct TokenArgs {
    /// The worker's name in the configuration.
    #[arg(value_name = "WORKER")]
    worker: String,
}

/// Runs the command. Answers the exit code.
pub(super) fn run(common: &Common, args: &TokenArgs) -> u8 {
    let settings = match common.load() {
        Ok(loaded) => loaded.settings,
        Err(problems) => {
            print_problems(&problems);
            return exit::CONFIG;
        }
    };
    let Some(worker) =
        settings.workers.iter().find(|worker| worker.config.name.as_str() == args.worker)
    else {
        let file = common.config.display();
        complain(format_args!(
            "botmaster: there is no worker `{}` in {file}",
            args.worker.escape_debug()
        ));
        complain(format_args!("    fix: add a [[worker]] with this name"));
        return exit::CONFIG;
    };
    let path = settings.token_path(worker);
    match write_new_token_file(&path, &args.worker) {
        Ok(_) => {
            say(format_args!("{}", path.display()));
            exit::OK
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            complain(format_args!(
                "botmaster: {} is there already and is left as it is",
                path.display()
            ));
            complain(format_args!(
                "    fix: use it, or delete it first: then the worker needs the new one"
            ));
            exit::FAILED
        }
        Err(error) => {
            complain(format_args!("botmaster: cannot write {}: {error}", path.display()));
            complain(format_args!(
                "    fix: make the folder writable for this user, or give another --data-dir"
            ));
            exit::FAILED
        }
    }
}
