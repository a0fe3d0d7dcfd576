//! The embedded store: one SQLite file, one writer thread, readers of their own.

mod reader;

pub use reader::*;
