//! The stores against their promises: the state store's operations, fences and
//! commits, and the log store's bytes and lines. Names begin with the row of the
//! fault matrix that a test stands for, where there is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cleanup;
mod digests;
mod expectations;
mod files;
mod group;
mod instances;
mod leases;
mod lifecycle;
mod logs;
mod logs_lines;
mod logs_model;
mod merging;
mod people;
mod repeats;
mod schedulers;
mod stops;
mod transitions;
mod world;
