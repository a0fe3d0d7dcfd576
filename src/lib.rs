//! botmaster: a build master. See `ARCHITECTURE.md` for the map.
#![forbid(unsafe_code)]

pub mod core;

pub mod actors;
pub mod messages;

pub mod protocol;
pub mod provisioning;

pub mod settings;

pub mod app;
pub mod cli;
pub mod telemetry;

pub mod board;
pub mod clock;
pub mod events;
pub mod faults;
pub mod store;
pub mod web;
pub mod worker;
