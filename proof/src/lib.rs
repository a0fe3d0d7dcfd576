//! The proof on the real program: real masters and workers, killed with -9 at
//! named points (`crash`) or at random (`chaos`), and the judgement of what
//! they leave.
//!
//! It sees the program from outside: its HTTP API, the files that builds
//! write, exit codes, and the store's file after the master has ended.
//! Deliberately absent: any look inside a running program.
#![forbid(unsafe_code)]

pub mod api;
pub mod chaos;
pub mod clients;
pub mod crash;
pub mod listener;
pub mod points;
pub mod runs;
pub mod store;
pub mod verdict;
pub mod yard;

use std::time::{Duration, Instant};

/// What went wrong with the tools themselves, or with what they watch.
pub type Fault = String;

/// Looks until there is something or `limit` is over.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
