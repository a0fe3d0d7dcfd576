//! Which commands a worker has, and in which versions (row S03).

use std::sync::Arc;

use crate::core::values::{BuilderConfig, StepKind};

/// What a worker told of its commands with its attach. Clones share it: each
/// builder that the worker serves has one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommandVersions(Option<Arc<[Box<str>]>>);

impl CommandVersions {
    /// Reads `name/version` texts; none at all when the worker reported none.
    #[must_use]
    pub fn of(caps: Option<&[String]>) -> Self {
        Self(caps.map(|caps| caps.iter().map(|cap| cap.as_str().into()).collect()))
    }

    /// The worker's version of a command; none when it lacks it; `old_version`
    /// when it reported no versions at all (a very old worker).
    #[must_use]
    pub fn version<'a>(&'a self, command: &str, old_version: Option<&'a str>) -> Option<&'a str> {
        match &self.0 {
            Some(caps) => {
                let pairs = caps.iter().rev().map(|cap| cap.split_once('/').unwrap_or((cap, "")));
                let mut found = pairs.filter(|(name, _)| *name == command);
                found.next().map(|(_, version)| version)
            }
            None => old_version,
        }
    }

    /// A command that a step of this builder needs and the worker lacks.
    #[must_use]
    pub fn lacks(&self, config: &BuilderConfig) -> Option<&'static str> {
        config.factory.steps.iter().find_map(|step| {
            let (command, old) = command_of(&step.kind);
            self.version(command, old).is_none().then_some(command)
        })
    }
}

/// The command that a step needs, and its version in a worker that reports
/// none.
fn command_of(kind: &StepKind) -> (&'static str, Option<&'static str>) {
    match kind {
        StepKind::Run { .. } => ("shell", Some("1")),
        StepKind::Git { .. } => ("git", None),
    }
}
