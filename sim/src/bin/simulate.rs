//! `simulate N S`: runs the seeds S to S + N - 1. `cargo xtask simulate` calls
//! it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use botmaster_sim::report::{Report, finding};
use botmaster_sim::run;

/// Findings that are told in full.
const TOLD: u64 = 3;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (Some(Ok(seeds)), Some(Ok(first))) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: simulate SEEDS FIRST_SEED");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let report = Mutex::new(Report::default());
    let (next, told, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        return;
                    }
                    let outcome = run::seed(first.wrapping_add(number));
                    if outcome.violation.is_some() {
                        if told.fetch_add(1, Ordering::Relaxed) < TOLD {
                            eprintln!("{}", finding(&outcome));
                        } else if let Some(violation) = &outcome.violation {
                            eprintln!(
                                "seed {}: {}: {}",
                                outcome.seed, violation.id, violation.what
                            );
                        }
                    }
                    report.lock().unwrap_or_else(|error| error.into_inner()).add(&outcome);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(500) {
                        eprintln!("{done} of {seeds} seeds after {:?}", began.elapsed());
                    }
                }
            });
        }
    });
    let report = report.into_inner().unwrap_or_else(|error| error.into_inner());
    let problems = report.problems();
    for problem in &problems {
        eprintln!("{problem}");
    }
    eprintln!("{seeds} seeds took {:?}", began.elapsed());
    println!("{}", report.line());
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
