//! Forms to force builds by: their fields, and what a filled one comes to.
//!
//! Deliberately absent: how a form looks in the API, and whether the builds
//! that it asks for are taken.

mod fill;

use std::sync::Arc;

use regex::Regex;
use serde_json::Value as Json;

use super::ids::BuilderName;

pub use fill::{Errors, Filled, full_name};

/// A form.
#[derive(Clone, PartialEq, Debug)]
pub struct Form {
    /// Its name, which is its scheduler's too.
    pub name: String,
    /// Its head.
    pub label: String,
    /// What its button says.
    pub button: String,
    /// The builders that it is for; none for all.
    pub builders: Option<Vec<BuilderName>>,
    /// Takes other names than its fields' as properties, and many submissions
    /// at once.
    pub open: bool,
    /// Its fields, in order. Who asks and what to build are groups without a
    /// name.
    pub fields: Vec<Field>,
}

/// One field.
#[derive(Clone, PartialEq, Debug)]
pub struct Field {
    /// Its name within its group; empty for a group that adds none.
    pub name: String,
    /// For people.
    pub label: String,
    /// What it is when nothing is filled in.
    pub default: Json,
    /// Something must be filled in.
    pub required: bool,
    /// It takes several values.
    pub multiple: bool,
    /// Not shown.
    pub hide: bool,
    /// A hint for people.
    pub tooltip: String,
    /// Longest value, in bytes.
    pub longest: Option<u64>,
    /// What text must look like.
    pub pattern: Option<Pattern>,
    /// What it is.
    pub kind: FieldKind,
}

/// What a field is.
#[derive(Clone, PartialEq, Debug)]
pub enum FieldKind {
    /// Always its default.
    Fixed,
    /// A line; with its width in characters.
    Text(u32),
    /// Lines; with their width in characters, as columns and their number.
    Textarea(u32, u32),
    /// A whole number; with its width in characters.
    Int(u32),
    /// Yes or no.
    Bool,
    /// Who asks.
    Username {
        /// Width in characters.
        size: u32,
        /// It must be an e-mail address.
        need_email: bool,
    },
    /// One of some texts, or several of them.
    List {
        /// The texts.
        choices: Vec<String>,
        /// Nothing else can be filled in.
        strict: bool,
    },
    /// The text of a file.
    File,
    /// Fields that belong together; with a name, they are one property.
    Group(Layout, Vec<Field>),
    /// A property whose name is filled in too.
    AnyProperty,
}

/// How a group is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Without a frame.
    Simple,
    /// In a frame.
    Vertical,
    /// Each of its groups behind a tab.
    Tabs,
}

impl Layout {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Vertical => "vertical",
            Self::Tabs => "tabs",
        }
    }
}

/// What text must look like.
#[derive(Clone, Debug)]
pub struct Pattern(Arc<Regex>);

impl Pattern {
    /// Reads a regular expression. It is looked for at the text's beginning
    /// and need not reach to its end.
    ///
    /// # Errors
    /// When it is none, or needs too much memory.
    pub fn new(text: &str) -> Result<Self, String> {
        let made = regex::RegexBuilder::new(text).size_limit(1 << 20).build();
        made.map(|regex| Self(Arc::new(regex))).map_err(|error| error.to_string())
    }

    fn fits(&self, text: &str) -> bool {
        self.0.find(text).is_some_and(|found| found.start() == 0)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// Width of a field that does not say.
pub const WIDTH: u32 = 10;

/// The reason when none is given.
pub const DEFAULT_REASON: &str = "force build";

impl Field {
    /// A field of which nothing else is said.
    #[must_use]
    pub fn new(name: &str, label: &str, kind: FieldKind) -> Self {
        Self {
            name: name.into(),
            label: label.into(),
            default: match kind {
                FieldKind::Int(_) => 0.into(),
                FieldKind::Bool => false.into(),
                _ => "".into(),
            },
            required: false,
            multiple: false,
            hide: matches!(kind, FieldKind::Fixed),
            tooltip: String::new(),
            longest: matches!(kind, FieldKind::File).then_some(10 * 1024 * 1024),
            pattern: None,
            kind,
        }
    }

    /// A group that adds no name.
    #[must_use]
    pub fn group(label: &str, fields: Vec<Self>) -> Self {
        Self::new("", label, FieldKind::Group(Layout::Vertical, fields))
    }

    /// The fields that a form has of itself: who asks, then what to build.
    #[must_use]
    pub fn own() -> [Vec<Self>; 2] {
        let text = |name: &str, label: &str| Self::new(name, label, FieldKind::Text(WIDTH));
        let username = FieldKind::Username { size: 30, need_email: false };
        let mut reason = Self::new("reason", "reason", FieldKind::Text(20));
        reason.default = DEFAULT_REASON.into();
        [
            vec![
                Self::new("username", "Your name:", username),
                reason,
                Self::new("priority", "priority", FieldKind::Int(WIDTH)),
            ],
            vec![
                text("branch", "Branch:"),
                text("project", "Project:"),
                text("repository", "Repository:"),
                text("revision", "Revision:"),
            ],
        ]
    }

    /// How many columns a group of these fields has.
    #[must_use]
    pub fn columns(fields: &[Self]) -> u32 {
        if fields.iter().filter(|field| !field.hide).count() >= 4 { 2 } else { 1 }
    }
}

/// Name of the form that every master has, unless a configured one has it.
pub const FORCE: &str = "force";

impl Form {
    /// The form that every master has: for all builders, and for any property.
    #[must_use]
    pub fn for_everything() -> Self {
        let [who, what] = Field::own();
        Self {
            name: FORCE.into(),
            label: "Force a build".into(),
            button: "Force build".into(),
            builders: None,
            open: true,
            fields: vec![Field::group("", who), Field::group("", what)],
        }
    }

    /// Whether builds of the builder can be forced by it.
    #[must_use]
    pub fn is_for(&self, builder: &BuilderName) -> bool {
        self.builders.as_ref().is_none_or(|own| own.contains(builder))
    }
}

#[cfg(test)]
mod tests;
