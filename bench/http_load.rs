//! One process that asks an HTTP server for the same thing again and again, for
//! measuring how it serves.
//!
//! Closed loop: each connection asks again as soon as it has its answer. Open
//! loop (`--rate`): requests are due at fixed times, whoever is late counts from
//! when it was due. Works with any server that speaks HTTP/1.1.
//!
//! Deliberately absent: TLS, any look into the answers beyond their status and
//! their length: the client must cost far less than the server.
#![forbid(unsafe_code)]

mod client;

use std::process::ExitCode;

use client::load;
use client::options::{Options, USAGE};

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
    println!("{}", load::run(&options).json(&options));
    ExitCode::SUCCESS
}
