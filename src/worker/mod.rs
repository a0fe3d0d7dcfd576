//! The worker program: takes builds from the master and runs them here.
//!
//! [`agent`] decides, [`process`] runs, `link` talks, `program` joins them. It
//! keeps its journal in memory: builds survive a lost connection, not the end
//! of the worker program. Deliberately absent: TLS, and a journal on disk.

pub mod agent;
pub mod folders;
mod git;
pub mod link;
mod options;
pub mod process;
mod program;

pub use options::{WorkerError, WorkerOptions};
pub use program::run;
