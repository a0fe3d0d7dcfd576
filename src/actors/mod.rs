//! The shells: they turn messages into events of the core and its effects into
//! messages, writes and frames, and the core's next deadline into one timer.
//! One actor a file. All of them live on one thread; what could block it
//! (files, the database, HTTP) is elsewhere.

pub mod context;
pub mod runtime;

mod bot_master;
mod build;
mod builder;
mod convert;
mod heartbeats;
mod latent_slave_builder;
mod ping;
mod slave_builder;
mod strangers;
mod worker;
mod worker_connection;

pub use bot_master::{
    BotMaster, Drain, GrantLeases, LetInstancesGo, Parts, Stop, WaitReady, declare, declared,
};
pub use build::Build;
pub use builder::Builder;
pub use heartbeats::Heartbeats;
pub use latent_slave_builder::LatentSlaveBuilder;
pub use ping::Ping;
pub use slave_builder::SlaveBuilder;
pub use strangers::Place;
pub use worker::{Worker, WorkerDoors};
pub use worker_connection::Greeter;
