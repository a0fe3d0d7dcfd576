//! The embedded store: one SQLite file, one writer thread, readers of their own.
//!
//! `engine` carries out operations on one connection and knows no thread,
//! `writer` puts a thread, a queue and the group commit around it, `open` makes
//! a folder and its files ready. Deliberately absent: reads for the web, which
//! have connections of their own, and the text of logs.

mod answer;
mod cleanup;
mod engine;
mod errors;
mod load;
mod look;
mod moments;
mod open;
mod ops;
mod prepare;
mod reader;
mod rows;
mod writer;

pub use cleanup::{Candidates, Chooser, Removal, Removed, WouldGo};
pub use engine::Engine;
pub use open::{OnFatal, OpenError};
pub use reader::*;
pub use writer::{Opening, SqliteStore};

pub(in crate::store) use answer::Answer;
pub(in crate::store) use engine::MIGRATIONS;
pub(in crate::store) use errors::{Trouble, classify};
pub(in crate::store) use look::{integrity, look, read_only};
pub(in crate::store) use open::{Migration, checkpoint, give_back, make_folder, open_file};
pub(in crate::store) use prepare::{COPY_KEY, copied_at};
