//! Stories of the real program: masters, workers and commands as processes of
//! their own, on loopback and in temporary folders. Nothing sleeps to be
//! right; everything that is waited for has a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kit;

mod backups;
mod bad_links;
mod bad_peers;
mod digests;
mod doubts;
mod expectations;
mod full_disk;
mod housekeeping;
mod large_logs;
mod latent;
mod leases;
mod merges;
mod orders;
mod outages;
mod outlive;
mod people;
mod provider;
mod raw_logs;
mod reloads;
mod restarts;
mod side_by_side;
mod starts;
mod steps;
mod strangers;
mod up;
mod watching;
