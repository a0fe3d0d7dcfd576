//! The brain. Plain synchronous state machines: an event and a time go in,
//! effects come out. No clock, no I/O, no actors, no tasks, no global chance.
//!
//! What is deliberately absent: anything from outside this folder except
//! `serde`'s derives and JSON values, regular expressions, and the seeded
//! generator of `rand`. `clippy.toml` and `tests/architecture.rs` hold that.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod ids;
pub mod retention;
pub mod rng;
pub mod time;
pub mod transitions;
pub mod values;
pub mod views;
pub mod waits;

pub mod bot_master;
pub mod build;
pub mod builder;
pub mod form;
pub mod gate;
pub mod heartbeats;
pub mod inbox;
pub mod instance;
pub mod latent_slave_builder;
pub mod lease;
pub mod ping;
pub mod planted;
pub mod slave_builder;
pub mod worker;
