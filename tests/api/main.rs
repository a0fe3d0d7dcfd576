//! The HTTP API, its event stream and the client's commands, over a real
//! server, a real store file and a BotMaster that only writes down what it is
//! asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod contract;
mod described;
mod etas;
mod feeds;
mod limits;
mod metrics;
mod orders;
mod pages;
mod questions_model;
mod reads;
mod reasons;
mod recorded;
mod sockets;
mod stream;
mod support;
