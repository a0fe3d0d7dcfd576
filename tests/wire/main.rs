//! The wire's documents: golden frames, the normative text, and the decoder
//! under strange input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod docs;
mod golden;
mod lines;
mod round_trip;
mod strange;
