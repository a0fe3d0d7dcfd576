//! What happened, as seen from outside, and what is wrong with it.
//!
//! A [`History`] holds what clients were told, what workers ran, what the store
//! held at the end, and the event stream; [`check`] finds what was lost,
//! doubled, overlapping or out of order. It knows no model of the program and
//! none of its code but the ids: a simulated world writes a history, and so can
//! a tool that watches the real program, as JSON lines.

mod check;
mod lines;
mod recorder;
mod records;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_instances;

pub use check::{Finding, Invariant, Leeway, check};
pub use lines::ReadError;
pub use recorder::Recorder;
pub use records::*;
