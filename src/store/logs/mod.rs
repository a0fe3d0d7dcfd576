//! The text that builds write: byte ranges in, exact bytes and lines out.

mod port;

pub use port::*;
