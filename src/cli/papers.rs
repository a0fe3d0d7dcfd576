//! What shells and `man` want to know of the command line: completions and
//! manual pages, made from the same definition as the help.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, exit};
use crate::cli::tell::complain;

/// Arguments of `completions`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  botmaster completions bash > /etc/bash_completion.d/botmaster
  botmaster completions zsh > ~/.zfunc/_botmaster
  botmaster completions fish > ~/.config/fish/completions/botmaster.fish")]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  botmaster man | man -l -
  botmaster man --dir /usr/local/share/man/man1    one page for each command")]
pub struct ManArgs {
    /// Write a page for each command into this folder, which is made when it
    /// is not there, instead of the main page to standard output
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The whole command line, with nothing that only a running program knows.
fn whole() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// Prints what a shell needs to complete commands.
#[must_use]
pub fn completions(args: &CompletionsArgs) -> u8 {
    // Into memory first: a reader that goes away is no reason to panic.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "botmaster", &mut text);
    print(&text)
}

/// Prints the main page, or writes all of them.
#[must_use]
pub fn man(args: &ManArgs) -> u8 {
    match &args.dir {
        None => match page(&whole()) {
            Ok(text) => print(&text),
            Err(error) => fail("the page cannot be made", &error),
        },
        Some(dir) => match write_all(dir) {
            Ok(()) => exit::OK,
            Err(error) => fail(&dir.display().to_string(), &error),
        },
    }
}

fn fail(what: &str, error: &io::Error) -> u8 {
    complain(format_args!("botmaster: {what}: {error}"));
    exit::FAILED
}

fn print(text: &[u8]) -> u8 {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail("standard output", &error),
        _ => exit::OK,
    }
}

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    Ok(text)
}

fn write_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_its_examples() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path()).unwrap();
        let names: Vec<String> =
            whole().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names.iter().filter(|name| *name != "help") {
            let text = fs::read_to_string(dir.path().join(format!("botmaster-{name}.1"))).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{name}");
        }
        let force = fs::read_to_string(dir.path().join("botmaster-force.1")).unwrap();
        assert!(force.contains("suite=fast"), "{force}");
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "botmaster", &mut text);
            let text = String::from_utf8(text).unwrap();
            for name in ["force", "unpause", "completions", "ui-dir"] {
                assert!(text.contains(name), "{shell}: {name}");
            }
        }
    }
}
