//! `init`: a configuration, a worker token and systemd units to start from.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit;
use super::tell::complain;
use crate::settings::write_new_token_file;

const CONFIG: &str = include_str!("botmaster.toml");
const MASTER_UNIT: &str = include_str!("master.service");
const WORKER_UNIT: &str = include_str!("worker.service");

/// Files that are made, relative to the folder.
const CONFIG_FILE: &str = "botmaster.toml";
const TOKEN_FILE: &str = "data/tokens/local.token";
const MASTER_UNIT_FILE: &str = "systemd/botmaster.service";
const WORKER_UNIT_FILE: &str = "systemd/botmaster-worker.service";

/// Arguments of `init`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Makes the folder when it is missing, and in it: botmaster.toml, the token of the
worker `local`, and systemd units for master and worker. Nothing that is there
is overwritten.

Examples:
  botmaster init /srv/botmaster
  botmaster up --config /srv/botmaster/botmaster.toml

Exit codes: 0 done, 1 it did not work.")]
pub struct InitArgs {
    /// The folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Runs the command. Answers the exit code.
pub(super) fn run(args: &InitArgs) -> u8 {
    match make(&args.dir) {
        Ok(text) => {
            // Whoever closed the pipe has read enough.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            exit::OK
        }
        Err(error) => {
            complain(format_args!("botmaster: {error}"));
            exit::FAILED
        }
    }
}

fn make(dir: &Path) -> Result<String, String> {
    let wanted = [CONFIG_FILE, TOKEN_FILE, MASTER_UNIT_FILE, WORKER_UNIT_FILE];
    let there: Vec<String> = wanted
        .iter()
        .map(|name| dir.join(name))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(format!(
            "there already, and nothing is overwritten: {}\n    fix: give another folder, or move them away",
            there.join(", ")
        ));
    }
    let cannot = |path: &Path, error: io::Error| {
        format!(
            "cannot write {}: {error}\n    fix: give a folder that this user may write",
            path.display()
        )
    };
    for folder in ["data/tokens", "systemd", "worker"] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).map_err(|error| cannot(&folder, error))?;
    }
    let whole = fs::canonicalize(dir).map_err(|error| cannot(dir, error))?;
    let program =
        std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let fill = |text: &str| {
        text.replace("@USER@", &user_name())
            .replace("@PROGRAM@", &program.display().to_string())
            .replace("@DIR@", &whole.display().to_string())
    };
    let token_file = dir.join(TOKEN_FILE);
    write_new_token_file(&token_file, "local").map_err(|error| cannot(&token_file, error))?;
    for (name, text) in [
        (CONFIG_FILE, CONFIG),
        (MASTER_UNIT_FILE, &fill(MASTER_UNIT)),
        (WORKER_UNIT_FILE, &fill(WORKER_UNIT)),
    ] {
        let path = dir.join(name);
        let mut file = fs::File::create_new(&path).map_err(|error| cannot(&path, error))?;
        file.write_all(text.as_bytes()).map_err(|error| cannot(&path, error))?;
    }
    Ok(next_steps(dir, &wanted))
}

fn user_name() -> String {
    let user = nix::unistd::getuid();
    match nix::unistd::User::from_uid(user) {
        // A service that builds other people's programs must not run as root.
        Ok(Some(user)) if !user.uid.is_root() => user.name,
        _ => "botmaster".to_owned(),
    }
}

fn next_steps(dir: &Path, made: &[&str]) -> String {
    let mut text = String::new();
    for name in made {
        text.push_str(&format!("made {}\n", dir.join(name).display()));
    }
    let config = dir.join(CONFIG_FILE);
    let config = config.display();
    text.push_str(&format!(
        "\nnext:\n  \
         botmaster up --config {config}       try it: a master, a worker, a first build\n  \
         edit {config}                         put in your own builders\n  \
         botmaster check {config}             see whether it is good\n  \
         {units}    run it for good: see the first lines of each unit\n",
        units = dir.join("systemd").join("*").display(),
    ));
    text
}
