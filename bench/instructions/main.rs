//! The hot paths, one at a time, for counting the processor's instructions.
//!
//! `cargo xtask instructions` runs a path twice under valgrind, with a number
//! of rounds and with twice as many; the difference is what the rounds cost,
//! without everything that happens once. So each path does the very same work
//! in each round: seeds are fixed, one thing happens after the other, and no
//! time that passes is part of it. Deliberately absent: clocks.
#![forbid(unsafe_code)]

mod cores;
mod frames;
mod logs;
mod served;

use std::process::ExitCode;

const USAGE: &str = "\
Goes a hot path of the program so many times, and says nothing.

usage: instructions PATH ROUNDS
       instructions --list

--list prints each path with the rounds that it is counted with.";

/// One hot path.
struct HotPath {
    name: &'static str,
    /// Enough that what a single round may do more or less does not count.
    rounds: u64,
    go: fn(u64) -> Result<(), String>,
}

const PATHS: &[HotPath] = &[
    HotPath { name: "frames_decode", rounds: 200, go: frames::decode },
    HotPath { name: "frames_encode", rounds: 200, go: frames::encode_all },
    HotPath { name: "builder_core", rounds: 500, go: cores::builder },
    HotPath { name: "build_core", rounds: 500, go: cores::build },
    HotPath { name: "log_append", rounds: 4, go: logs::append },
    HotPath { name: "api_builds", rounds: 40, go: served::builds },
    HotPath { name: "master_build", rounds: 60, go: served::build },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--list"] => {
            PATHS.iter().for_each(|path| println!("{} {}", path.name, path.rounds));
            Ok(())
        }
        [name, rounds] => go(name, rounds),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn go(name: &str, rounds: &str) -> Result<(), String> {
    let path = PATHS.iter().find(|path| path.name == name);
    let path = path.ok_or_else(|| format!("there is no path `{name}`; see --list"))?;
    let rounds = rounds.parse().map_err(|_| format!("`{rounds}` is no number of rounds"))?;
    (path.go)(rounds)
}

/// A new folder in the system's temporary one, which goes with the value.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self, String> {
        // As long for each process: what paths cost depends on their length.
        let path = std::env::temp_dir().join(format!("hot-path-{:010}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
