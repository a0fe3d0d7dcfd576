//! Stories of a bad network and of pressure: the real master and worker
//! programs, with a proxy between them that cuts, stalls and damages, and
//! peers that flood, freeze and do not read. Nothing sleeps to be right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../end_to_end/kit/mod.rs"]
#[allow(dead_code, unused_imports)]
mod kit;
mod proxy;
mod slow;

mod cuts;
mod links;
mod master;
