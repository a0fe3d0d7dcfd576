//! What actors say to each other and what the edges may ask: one file per
//! receiving actor. Outside `actors/` nobody holds an actor's address; they
//! hold a handle from here.
//!
//! Actors notify with `do_send`, which knows no limit: what they say is control
//! traffic whose number is bounded by builds, workers and requests under way.
//! Text of logs never passes a mailbox, and the edges ask with a time limit.

mod bot_master;
mod build;
mod builder;
mod heartbeats;
mod latent_slave_builder;
mod link;
mod ping;
mod slave_builder;
pub mod takes;
mod worker;

pub use bot_master::*;
pub use build::*;
pub use builder::*;
pub use heartbeats::*;
pub use latent_slave_builder::*;
pub use link::*;
pub use ping::*;
pub use slave_builder::*;
pub use worker::*;
