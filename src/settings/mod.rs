//! Typed, validated settings, read from a TOML file in `config/`.

mod types;

pub use types::*;
