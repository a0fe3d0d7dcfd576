//! What kinds of resources there are and which fields they have, as far as
//! queries need to know.

/// What a field holds, for reading the values of filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A number or a time.
    Int,
    /// Text.
    Text,
    /// Yes or no.
    Bool,
    /// A list of numbers.
    Ints,
    /// A list of texts.
    Texts,
    /// Something that cannot be compared.
    Other,
}

/// One kind of resource.
#[derive(Debug)]
pub struct Resource {
    /// Key of the list in the envelope.
    pub plural: &'static str,
    /// Fields by name.
    pub fields: &'static [(&'static str, Kind)],
}

impl Resource {
    /// What the field holds, or none when there is no such field.
    #[must_use]
    pub fn kind(&self, field: &str) -> Option<Kind> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, kind)| *kind)
    }
}

use Kind::{Bool, Int, Ints, Other, Text, Texts};

/// The master.
pub static MASTERS: Resource = Resource {
    plural: "masters",
    fields: &[("masterid", Int), ("name", Text), ("active", Bool), ("last_active", Int)],
};

/// Builders.
pub static BUILDERS: Resource = Resource {
    plural: "builders",
    fields: &[
        ("builderid", Int),
        ("name", Text),
        ("masterids", Ints),
        ("description", Text),
        ("description_format", Text),
        ("description_html", Text),
        ("projectid", Int),
        ("tags", Texts),
    ],
};

/// Workers.
pub static WORKERS: Resource = Resource {
    plural: "workers",
    fields: &[
        ("workerid", Int),
        ("name", Text),
        ("connected_to", Other),
        ("configured_on", Other),
        ("workerinfo", Other),
        ("paused", Bool),
        ("pause_reason", Text),
        ("graceful", Bool),
    ],
};

/// Builds.
pub static BUILDS: Resource = Resource {
    plural: "builds",
    fields: &[
        ("buildid", Int),
        ("number", Int),
        ("builderid", Int),
        ("buildrequestid", Int),
        ("workerid", Int),
        ("masterid", Int),
        ("started_at", Int),
        ("complete", Bool),
        ("complete_at", Int),
        ("locks_duration_s", Int),
        ("results", Int),
        ("state_string", Text),
        ("properties", Other),
    ],
};

/// Build requests.
pub static REQUESTS: Resource = Resource {
    plural: "buildrequests",
    fields: &[
        ("buildrequestid", Int),
        ("buildsetid", Int),
        ("builderid", Int),
        ("priority", Int),
        ("claimed", Bool),
        ("claimed_at", Int),
        ("claimed_by_masterid", Int),
        ("complete", Bool),
        ("complete_at", Int),
        ("results", Int),
        ("submitted_at", Int),
        ("waited_for", Bool),
        ("properties", Other),
    ],
};

/// Buildsets.
pub static BUILDSETS: Resource = Resource {
    plural: "buildsets",
    fields: &[
        ("bsid", Int),
        ("external_idstring", Text),
        ("reason", Text),
        ("submitted_at", Int),
        ("complete", Bool),
        ("complete_at", Int),
        ("results", Int),
        ("parent_buildid", Int),
        ("parent_relationship", Text),
        ("rebuilt_buildid", Int),
        ("sourcestamps", Other),
    ],
};

/// Source stamps.
pub static STAMPS: Resource = Resource {
    plural: "sourcestamps",
    fields: &[
        ("ssid", Int),
        ("revision", Text),
        ("branch", Text),
        ("repository", Text),
        ("project", Text),
        ("codebase", Text),
        ("created_at", Int),
        ("patch", Other),
    ],
};

/// Changes.
pub static CHANGES: Resource = Resource {
    plural: "changes",
    fields: &[
        ("changeid", Int),
        ("parent_changeids", Ints),
        ("author", Text),
        ("committer", Text),
        ("files", Texts),
        ("comments", Text),
        ("revision", Text),
        ("when_timestamp", Int),
        ("branch", Text),
        ("category", Text),
        ("revlink", Text),
        ("properties", Other),
        ("repository", Text),
        ("project", Text),
        ("codebase", Text),
        ("sourcestamp", Other),
    ],
};

/// Steps.
pub static STEPS: Resource = Resource {
    plural: "steps",
    fields: &[
        ("stepid", Int),
        ("number", Int),
        ("name", Text),
        ("buildid", Int),
        ("started_at", Int),
        ("locks_acquired_at", Int),
        ("complete", Bool),
        ("complete_at", Int),
        ("results", Int),
        ("state_string", Text),
        ("urls", Other),
        ("hidden", Bool),
    ],
};

/// Logs.
pub static LOGS: Resource = Resource {
    plural: "logs",
    fields: &[
        ("logid", Int),
        ("name", Text),
        ("slug", Text),
        ("stepid", Int),
        ("complete", Bool),
        ("num_lines", Int),
        ("type", Text),
    ],
};

/// Moments in the lives of builders and their workers.
pub static NOTES: Resource = Resource {
    plural: "notes",
    fields: &[
        ("noteid", Int),
        ("builderid", Int),
        ("workerid", Int),
        ("text", Text),
        ("error", Text),
        ("at", Int),
        ("ended_at", Int),
    ],
};

/// Pieces of logs.
pub static CHUNKS: Resource = Resource {
    plural: "logchunks",
    fields: &[("logid", Int), ("firstline", Int), ("content", Text)],
};

/// Properties, all in one object.
pub static PROPERTIES: Resource = Resource { plural: "properties", fields: &[] };

/// Forms to force builds by.
pub static FORCE: Resource = Resource {
    plural: "forceschedulers",
    fields: &[
        ("name", Text),
        ("button_name", Text),
        ("label", Text),
        ("builder_names", Texts),
        ("enabled", Bool),
        ("all_fields", Other),
    ],
};

/// Schedulers.
pub static SCHEDULERS: Resource = Resource {
    plural: "schedulers",
    fields: &[("schedulerid", Int), ("name", Text), ("enabled", Bool), ("master", Other)],
};

/// Names of the lists that there are.
pub static ROOTLINKS: Resource = Resource { plural: "rootlinks", fields: &[("name", Text)] };
