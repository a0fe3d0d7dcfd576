//! Nonsense of all kinds for whoever reads the wire: the decoder, a real
//! master's connections and actors, and the worker program's agent. What was
//! found once is kept in `corpus/` and played in every run; then new inputs are
//! made for a while. `cargo xtask fuzz` does that for longer. How inputs are made
//! and chosen: `docs/decisions/0014-fuzzing.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod connection;
mod decoder;
#[path = "../actors/house.rs"]
#[allow(dead_code)]
mod house;
mod inputs;
#[path = "../actors/robot.rs"]
#[allow(dead_code)]
mod robot;
mod run;
