//! Typed, validated settings, read from a TOML file in `config/`, and the worker
//! tokens that they name.
//!
//! What is deliberately absent: defaults anywhere else in the program, and
//! settings from the environment (the command line has those).

mod builders;
mod digest;
mod durations;
mod forms;
mod limits;
mod load;
mod master;
mod names;
mod reader;
mod retention;
mod secret;
mod sizes;
mod steps;
mod timers;
mod tokens;
mod types;
mod workers;

pub use digest::factory_digest;
pub use durations::{DurationError, LONGEST, parse_duration, show_duration};
pub use load::{Loaded, Overrides, load, load_text, load_with};
pub use names::{NameFault, check_folder_name, check_name};
pub use secret::Secret;
pub use sizes::{SizeError, parse_size};
pub use tokens::*;
pub use types::*;
