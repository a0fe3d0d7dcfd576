//! Stories of the real program: masters, workers and commands as processes of
//! their own, on loopback and in temporary folders. Nothing sleeps to be
//! right; everything that is waited for has a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kit;

mod bad_links;
mod expectations;
mod latent;
mod merges;
mod orders;
mod people;
mod provider;
mod reloads;
mod restarts;
mod side_by_side;
mod starts;
mod steps;
mod up;
mod watching;
