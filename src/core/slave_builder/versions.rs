//! Which commands a worker has, and in which versions (row S03).

use std::collections::BTreeMap;

use crate::core::values::{BuilderConfig, StepKind};

/// What a worker told of its commands with its attach.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommandVersions(Option<BTreeMap<String, String>>);

impl CommandVersions {
    /// Reads `name/version` texts; none at all when the worker reported none.
    #[must_use]
    pub fn of(caps: Option<&[String]>) -> Self {
        Self(caps.map(|caps| {
            let pair = |cap: &String| match cap.split_once('/') {
                Some((name, version)) => (name.to_owned(), version.to_owned()),
                None => (cap.clone(), String::new()),
            };
            caps.iter().map(pair).collect()
        }))
    }

    /// The worker's version of a command; none when it lacks it; `old_version`
    /// when it reported no versions at all (a very old worker).
    #[must_use]
    pub fn version<'a>(&'a self, command: &str, old_version: Option<&'a str>) -> Option<&'a str> {
        match &self.0 {
            Some(versions) => versions.get(command).map(String::as_str),
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
