//! The program with its crash points in it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(botmaster::cli::main())
}
