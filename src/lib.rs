//! botmaster: a build master. See `ARCHITECTURE.md` for the map.
#![forbid(unsafe_code)]

pub mod core;

pub mod messages;

pub mod protocol;

pub mod settings;

pub mod board;
pub mod events;
pub mod store;

pub mod web;

pub mod cli;
