//! The actors together: a real BotMaster with its builders and workers' actors,
//! the real store in a folder of its own, and scripted workers that speak the
//! wire's protocol over pipes.
//!
//! Places that are made to panic are the same for the whole process, so the
//! stories that use them run one at a time, and the others beside each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
mod chaos;
mod cloud;
mod connections;
mod cuts;
mod house;
mod latent;
mod merges;
mod moments;
mod panics;
mod reconfigurations;
mod regressions;
mod reloads;
mod removals;
mod restarts;
mod robot;
mod stops;
mod store;
mod troubles;
