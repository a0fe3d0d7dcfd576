//! Rows of the fault matrix on the real program, killed at its crash points.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod builds;
mod instances;
mod scene;
mod storms;
mod submissions;
mod terms;
