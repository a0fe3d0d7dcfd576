//! Stories about the pure core: no runtime, no clock but the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod build_stories;
mod builder_stories;
mod cancel_stories;
mod connection_stories;
mod control_stories;
mod expectation_stories;
mod gate_stories;
mod heartbeat_stories;
mod inbox_stories;
mod instance_stories;
mod kit;
mod latent_stories;
mod lease_stories;
mod merge_stories;
mod ping_stories;
mod plan_stories;
mod planted_rows;
mod queue_model;
mod slave_builder_stories;
mod slave_builder_table;
mod stop_stories;
mod takeover_stories;
mod transition_stories;
mod worker_stories;
