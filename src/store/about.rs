//! What rows say beside what the master works with: for those who look.

use serde::{Deserialize, Serialize};

use crate::core::ids::BuildId;
use crate::core::time::WallTime;

/// What a builder's row says beside what it is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BuilderAbout {
    /// The project that it belongs to.
    pub project: Option<u64>,
    /// How its description is written: `markdown`.
    pub description_format: Option<String>,
    /// Its description as HTML.
    pub description_html: Option<String>,
}

/// What a step's row says beside how it went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StepAbout {
    /// When it had its locks; none when it asked for none.
    pub locks_acquired_at: Option<WallTime>,
    /// Links for people.
    pub urls: Vec<StepUrl>,
    /// Left out where steps are shown, unless asked for.
    pub hidden: bool,
}

/// A link that a step gives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StepUrl {
    /// Its text.
    pub name: String,
    /// Where it leads.
    pub url: String,
}

/// The build that asked for a buildset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParentBuild {
    /// Which.
    pub build: BuildId,
    /// How they belong together, for people: `Triggered from`.
    pub relationship: Option<String>,
}

/// A change to the source that is in no repository.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PatchRow {
    /// Its id.
    #[serde(rename = "patchid")]
    pub id: u64,
    /// How many leading parts of its paths to leave off.
    pub level: i64,
    /// The folder it is for.
    pub subdir: String,
    /// Who made it.
    pub author: String,
    /// For people.
    pub comment: String,
    /// Its text.
    pub body: String,
}

/// A scheduler that is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SchedulerRow {
    /// Kept for its name for ever.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Not switched off.
    pub enabled: bool,
}
