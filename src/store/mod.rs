//! The store: the only truth. Actors are caches of it.
//!
//! `port` is what the rest of the program may ask, `records` what goes in and
//! comes out, `sqlite` the embedded implementation, `keep` what is done with whole
//! data folders, `logs` the text that builds
//! write. A write is one [`Transaction`]; many of them share a commit, and each
//! is told its outcome only after that commit is durable.

mod about;
pub mod keep;
pub mod logs;
mod port;
mod records;
mod room;
pub mod sqlite;

pub use about::*;
pub use port::*;
pub use records::*;
pub use room::{OnFull, Room};
