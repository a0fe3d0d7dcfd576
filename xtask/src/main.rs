//! The developers' commands: `cargo xtask help` tells them all.
//!
//! Owns what runs around the program: its checks, its row lists, its
//! benchmarks. Deliberately absent: any use of the program's own code (the
//! benchmarks speak to it over HTTP, as everybody else does) and any
//! dependency beyond `serde_json`, so that this builds in seconds.
#![forbid(unsafe_code)]

mod alerts;
mod api;
mod bench;
mod diagrams;
mod fuzz;
mod help;
mod instructions;
mod proof;
mod report;
mod root;
mod rows;
mod simulate;
mod test;
mod tools;
mod ui;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match command {
        "test" => test::run(rest),
        "api" => api::run(rest),
        "rows" => rows::run(rest),
        "simulate" => simulate::run(rest),
        "crash-points" | "chaos" => proof::run(command, rest),
        "fuzz" => fuzz::run(rest),
        "diagrams" => diagrams::run(rest),
        "alerts" => alerts::run(rest),
        "ui" => ui::run(rest),
        "bench" => bench::run(rest),
        "growth" => bench::growth::run(rest),
        "soak" => bench::soak::run(rest),
        "hot-functions" => bench::hot_functions::run(rest),
        "instructions" => instructions::run(rest),
        "help" | "--help" | "-h" => help::run(rest),
        other => Err(format!(
            "there is no command `{other}`; `cargo xtask help` lists those that there are"
        )),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}
