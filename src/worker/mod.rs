//! The worker program: takes builds from the master and runs them here.
//!
//! [`agent`] decides, [`process`] runs, `link` talks, `program` joins them. Each
//! build has a [`keeper`], a process of its own, and a journal on the [`disk`]: so
//! builds outlive the worker program as well as its connection. Deliberately
//! absent: TLS.

pub mod agent;
pub mod disk;
pub mod folders;
mod found;
mod git;
pub mod keeper;
mod kept;
pub mod link;
mod options;
pub mod process;
mod program;
mod spares;

pub use options::{WorkerError, WorkerOptions};
pub use program::{end_leftovers, run};
