//! Whole masters and workers in virtual time, with faults.
//!
//! What is real here is what decides: the cores of `botmaster`, and in
//! [`actors`] its actors and the worker's agent too. What is played is the
//! world around them: clock, store, network, workers, disks. [`memory`] is the
//! played store, [`history`] finds what is wrong with what happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod actors;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod kept;
pub mod memory;
pub mod report;
pub mod run;
pub mod trace;
pub mod world;

mod bus;
mod client;
mod logs_desk;
mod machine;
mod master;
mod message;
mod network;
mod setup;
mod watch;
