//! The worker: its mind in virtual time, its processes for real, and the whole
//! program against a scripted master.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod agent_logs;
mod agent_restored;
mod crash_points;
mod desk;
mod entry;
mod git;
mod master;
mod orphans;
mod outlive;
mod outlive_leases;
mod processes;
mod program;
mod shop;
mod spares;
