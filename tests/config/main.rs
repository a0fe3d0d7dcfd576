//! Configuration, tokens, and the commands about them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod console;
mod faults;
mod files;
mod forms;
mod latent;
mod local_worker;
mod program;
mod retention;
mod timers;
mod tokens;
mod up;
mod values;

use std::path::Path;

use botmaster::settings::{Loaded, Overrides, Problem, load_text};

/// A builder that is good, for texts whose fault is elsewhere.
pub const BUILDER: &str = "[[builder]]\nname = \"b\"\n[[builder.step]]\nrun = [\"true\"]\n";

pub fn load(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_text(Path::new("x.toml"), text, &Overrides::default())
}

/// Everything that is wrong with a text, as people see it.
pub fn faults(text: &str) -> String {
    match load(text) {
        Ok(_) => panic!("this was taken for good:\n{text}"),
        Err(problems) => joined(&problems),
    }
}

/// What is worth a look in a text that is good.
pub fn notes(text: &str) -> String {
    match load(text) {
        Ok(loaded) => joined(&loaded.notes),
        Err(problems) => panic!("{}", joined(&problems)),
    }
}

pub fn joined(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
