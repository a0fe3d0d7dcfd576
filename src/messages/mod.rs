//! What actors say to each other and what the edges may ask: one file per
//! receiving actor. Outside `actors/` nobody holds an actor's address; they
//! hold a handle from here.

mod bot_master;

pub use bot_master::*;
