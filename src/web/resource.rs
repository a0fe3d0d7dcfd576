//! What kinds of resources there are and which fields they have: their types,
//! from which the tables for queries, `application.spec` and the API
//! description are made.

use super::field::{Binary, Identifier, Json, Ours, Sourced, Time, resource};

pub use super::field::{Kind, Resource};

resource! {
    /// The master.
    Master in MASTERS: "master", "masters" {
        /// Its id.
        masterid: u64,
        /// `HOST:FOLDER`.
        name: String,
        /// Whether it runs.
        active: bool,
        /// When it was last seen.
        last_active: Time,
    }
}

resource! {
    /// A builder.
    Builder in BUILDERS: "builder", "builders" {
        /// Its id, kept for its name for ever.
        builderid: u64,
        /// Its name.
        name: String,
        /// The masters that have it configured; empty once none has.
        masterids: Vec<u64>,
        /// For people.
        description: Option<String>,
        /// How the description is written: `markdown`.
        description_format: Option<String>,
        /// The description as HTML.
        description_html: Option<String>,
        /// The project that it belongs to.
        projectid: Option<u64>,
        /// Words to find it by.
        tags: Vec<String>,
    }
}

resource! {
    /// A project: builders that belong together.
    Project in PROJECTS: "project", "projects" {
        /// Its id.
        projectid: u64,
        /// Its name.
        name: Identifier,
        /// Its name for paths.
        slug: Identifier,
        /// Whether it has a configured builder; null unless `active` is
        /// filtered by.
        active: Option<bool>,
        /// For people.
        description: Option<String>,
        /// How the description is written: `markdown`.
        description_format: Option<String>,
        /// The description as HTML.
        description_html: Option<String>,
    }
}

resource! {
    /// A master by its id.
    MasterId in MASTER_IDS: "master_id", "masters" {
        /// Its id.
        masterid: u64,
    }
}

resource! {
    /// A builder on a master.
    MasterBuilder in MASTER_BUILDERS: "master_builder", "builders" {
        /// The master's id.
        masterid: u64,
        /// The builder's id.
        builderid: u64,
    }
}

resource! {
    /// A worker.
    Worker in WORKERS: "worker", "workers" {
        /// Its id, kept for its name for ever.
        workerid: u64,
        /// Its name.
        name: String,
        /// The master that it is attached to, if it is.
        connected_to: Vec<MasterId>,
        /// The configured builders that may use it.
        configured_on: Vec<MasterBuilder>,
        /// What it told of itself when it attached.
        workerinfo: Json,
        /// Gets no builds.
        paused: bool,
        /// Why, in the words of who paused it.
        pause_reason: Option<String>,
        /// Leaves once its builds have ended.
        graceful: bool,
    }
}

resource! {
    /// A build.
    Build in BUILDS: "build", "builds" {
        /// Its id.
        buildid: u64,
        /// Its number at its builder, from 1.
        number: u64,
        /// Its builder.
        builderid: u64,
        /// The oldest of its build requests.
        buildrequestid: u64,
        /// Its worker.
        workerid: u64,
        /// Its master.
        masterid: u64,
        /// When it started.
        started_at: Time,
        /// Whether it has ended.
        complete: bool,
        /// When it ended.
        complete_at: Option<Time>,
        /// How long it waited for locks, in seconds.
        locks_duration_s: u64,
        /// How it ended: 0 success, 1 warnings, 2 failure, 3 skipped,
        /// 4 exception, 5 retry, 6 cancelled.
        results: Option<i64>,
        /// For people.
        state_string: String,
        /// Those asked for by `property`.
        properties: Option<Sourced>,
    }
}

resource! {
    /// A build request: one builder's part of a buildset.
    BuildRequest in REQUESTS: "buildrequest", "buildrequests" {
        /// Its id.
        buildrequestid: u64,
        /// Its buildset.
        buildsetid: u64,
        /// Its builder.
        builderid: u64,
        /// Higher first.
        priority: i64,
        /// Whether a build has it, or it has ended.
        claimed: bool,
        /// Since when.
        claimed_at: Option<Time>,
        /// By which master.
        claimed_by_masterid: Option<u64>,
        /// Whether it has ended.
        complete: bool,
        /// How it ended; -1 until then.
        results: Option<i64>,
        /// When it was submitted.
        submitted_at: Time,
        /// When it ended.
        complete_at: Option<Time>,
        /// Whether a build waits for it.
        waited_for: bool,
        /// Those of its buildset that `property` asks for.
        properties: Option<Sourced>,
    }
}

resource! {
    /// A submission: one build request for each of its builders.
    Buildset in BUILDSETS: "buildset", "buildsets" {
        /// Its id.
        bsid: u64,
        /// The submitter's own name for it.
        external_idstring: Option<String>,
        /// For people.
        reason: String,
        /// The build that this repeats.
        rebuilt_buildid: Option<u64>,
        /// When it was submitted, in seconds since 1970.
        submitted_at: i64,
        /// Whether all of its build requests have ended.
        complete: bool,
        /// When they had, in seconds since 1970.
        complete_at: Option<i64>,
        /// The worst of their results; -1 until then.
        results: Option<i64>,
        /// What to build.
        sourcestamps: Vec<SourceStamp>,
        /// The build that asked for it.
        parent_buildid: Option<u64>,
        /// How they belong together, for people.
        parent_relationship: Option<String>,
    }
}

resource! {
    /// A change to the source that is in no repository.
    Patch in PATCHES: "patch", "patches" {
        /// Its id.
        patchid: u64,
        /// Its text.
        body: Binary,
        /// How many leading parts of its paths to leave off.
        level: i64,
        /// The folder it is for.
        subdir: String,
        /// Who made it.
        author: String,
        /// For people.
        comment: String,
    }
}

resource! {
    /// What to build of one codebase.
    SourceStamp in STAMPS: "sourcestamp", "sourcestamps" {
        /// Its id.
        ssid: u64,
        /// Which commit; null for the newest.
        revision: Option<String>,
        /// Which branch.
        branch: Option<String>,
        /// Where it lives.
        repository: String,
        /// The submitter's word for what it belongs to.
        project: String,
        /// Empty for the only codebase.
        codebase: String,
        /// What is changed in it before it is built.
        patch: Option<Patch>,
        /// When it was first seen.
        created_at: Time,
    }
}

resource! {
    /// A change in a repository.
    Change in CHANGES: "change", "changes" {
        /// Its id.
        changeid: u64,
        /// The changes before it.
        parent_changeids: Vec<u64>,
        /// Who made it.
        author: String,
        /// Who committed it.
        committer: Option<String>,
        /// What it touches.
        files: Vec<String>,
        /// Its message.
        comments: String,
        /// Its commit.
        revision: Option<String>,
        /// When it was made, in seconds since 1970.
        when_timestamp: i64,
        /// Its branch.
        branch: Option<String>,
        /// A word of its source's.
        category: Option<String>,
        /// Where people read it.
        revlink: Option<String>,
        /// Its properties.
        properties: Sourced,
        /// Where it lives.
        repository: String,
        /// The source's word for what it belongs to.
        project: String,
        /// Empty for the only codebase.
        codebase: String,
        /// What to build to have it.
        sourcestamp: SourceStamp,
    }
}

resource! {
    /// A link that a step gives.
    Url in URLS: "Url", "urls" {
        /// Its text.
        name: String,
        /// Where it leads.
        url: String,
    }
}

resource! {
    /// A step of a build.
    Step in STEPS: "step", "steps" {
        /// Its id.
        stepid: u64,
        /// Its number in the build, from 0.
        number: u64,
        /// Its name, unique in the build.
        name: Identifier,
        /// Its build.
        buildid: u64,
        /// When it started.
        started_at: Option<Time>,
        /// When it had its locks.
        locks_acquired_at: Option<Time>,
        /// Whether it has ended.
        complete: bool,
        /// When it ended.
        complete_at: Option<Time>,
        /// How it ended.
        results: Option<i64>,
        /// For people.
        state_string: String,
        /// Links for people.
        urls: Vec<Url>,
        /// Left out where steps are shown, unless asked for.
        hidden: bool,
    }
}

resource! {
    /// A log of a step.
    Log in LOGS: "log", "logs" {
        /// Its id.
        logid: u64,
        /// Its name.
        name: String,
        /// Its name for paths, unique in the step.
        slug: Identifier,
        /// Its step.
        stepid: u64,
        /// Whether it grows no more.
        complete: bool,
        /// How many complete lines it has.
        num_lines: u64,
        /// `s` output with channels, `t` text, `h` HTML, `d` deleted.
        r#type: Identifier,
        /// Why it is not whole, when it is not.
        #[serde(skip_serializing_if = "Ours::is_none")]
        incomplete: Ours<String>,
    }
}

resource! {
    /// Lines of a log.
    LogChunk in CHUNKS: "logchunk", "logchunks" {
        /// Of which log.
        logid: u64,
        /// The first of them, from 0.
        firstline: u64,
        /// The lines, each with its end.
        content: String,
    }
}

resource! {
    /// A form to force builds by.
    ForceScheduler in FORCE: "forcescheduler", "forceschedulers" {
        /// Its name.
        name: Identifier,
        /// What its button says.
        button_name: String,
        /// Its head.
        label: String,
        /// The builders that it is for.
        builder_names: Vec<Identifier>,
        /// Whether it can be used.
        enabled: bool,
        /// Its fields.
        all_fields: Vec<Json>,
    }
}

resource! {
    /// A scheduler: it turns changes, times or orders into build requests.
    Scheduler in SCHEDULERS: "scheduler", "schedulers" {
        /// Its id.
        schedulerid: u64,
        /// Its name.
        name: String,
        /// Whether it works.
        enabled: bool,
        /// The master that runs it.
        master: Option<Master>,
    }
}

resource! {
    /// A source of changes.
    ChangeSource in CHANGE_SOURCES: "changesource", "changesources" {
        /// Its id.
        changesourceid: u64,
        /// Its name.
        name: String,
        /// The master that runs it.
        master: Option<Master>,
    }
}

resource! {
    /// Results of one kind of tests of one step.
    TestResultSet in TEST_RESULT_SETS: "test_result_set", "test_result_sets" {
        /// Its id.
        test_result_setid: u64,
        /// Its builder.
        builderid: u64,
        /// Its build.
        buildid: u64,
        /// Its step.
        stepid: u64,
        /// For people.
        description: Option<String>,
        /// What kind of tests: `test_status`, `code_issue`.
        category: String,
        /// What a result's value is: `boolean`, `seconds`.
        value_unit: String,
        /// How many passed.
        tests_passed: Option<u64>,
        /// How many failed.
        tests_failed: Option<u64>,
        /// Whether no more come.
        complete: bool,
    }
}

resource! {
    /// The result of one test.
    TestResult in TEST_RESULTS: "test_result", "test_results" {
        /// Its id.
        test_resultid: u64,
        /// Its builder.
        builderid: u64,
        /// Its set.
        test_result_setid: u64,
        /// The test.
        test_name: Option<String>,
        /// The file it is in.
        test_code_path: Option<String>,
        /// The line it is in.
        line: Option<i64>,
        /// How long it took, in nanoseconds.
        duration_ns: Option<i64>,
        /// The result, in the set's unit.
        value: String,
    }
}

resource! {
    /// Data that a build keeps under a name. Its bytes have a path of their own.
    BuildData in BUILD_DATA: "build_data", "build_data" {
        /// Its build.
        buildid: u64,
        /// Its name.
        name: String,
        /// Bytes.
        length: u64,
        /// Always null.
        value: Option<Binary>,
        /// Who made it.
        source: String,
    }
}

resource! {
    /// A codebase of a project.
    Codebase in CODEBASES: "codebase", "codebases" {
        /// Its id.
        codebaseid: u64,
        /// Its project.
        projectid: u64,
        /// Its name.
        name: Identifier,
        /// Its name for paths.
        slug: Identifier,
    }
}

resource! {
    /// A branch of a codebase.
    Branch in BRANCHES: "branch", "branches" {
        /// Its id.
        branchid: u64,
        /// Its codebase.
        codebaseid: u64,
        /// Its name.
        name: String,
        /// Its newest commit.
        commitid: u64,
        /// When that was seen, in seconds since 1970.
        last_timestamp: i64,
    }
}

resource! {
    /// A commit of a codebase.
    Commit in COMMITS: "commit", "commits" {
        /// Its id.
        commitid: u64,
        /// Its codebase.
        codebaseid: u64,
        /// Who made it.
        author: String,
        /// Who committed it.
        committer: Option<String>,
        /// Its message.
        comments: String,
        /// When it was made, in seconds since 1970.
        when_timestamp: i64,
        /// Its name in the repository.
        revision: String,
        /// The commit before it.
        parent_commitid: Option<u64>,
    }
}

resource! {
    /// How two commits belong together.
    CommitGraph in COMMIT_GRAPHS: "commit_graph", "commit_graphs" {
        /// The newest commit before both.
        common: u64,
        /// The commits from there to the first.
        to1: Vec<u64>,
        /// The commits from there to the second.
        to2: Vec<u64>,
    }
}

resource! {
    /// A property.
    NamedProperty in PROPERTY_LIST: "_property", "_properties" {
        /// Its name.
        name: String,
        /// Who set it.
        source: String,
        /// Its value, written as JSON.
        value: Json,
    }
}

resource! {
    /// A list at the root.
    RootLink in ROOTLINKS: "rootlink", "rootlinks" {
        /// Its name.
        name: String,
    }
}

resource! {
    /// A path of the API.
    PathSpec in SPECS: "spec", "specs" {
        /// The path, its variables as `n:name`, `i:name` or `s:name`.
        path: String,
        /// What one of its resources is called.
        r#type: String,
        /// Key of the list in the envelope.
        plural: String,
        /// The fields.
        type_spec: Json,
    }
}

resource! {
    /// A moment in a builder's life, or something with a beginning and an end.
    Note in NOTES: "note", "notes" {
        /// Its id.
        noteid: u64,
        /// Of which builder.
        builderid: u64,
        /// On which worker.
        workerid: Option<u64>,
        /// What happens or happened.
        text: String,
        /// The error text, when it was a failure.
        error: Option<String>,
        /// When it began.
        at: Time,
        /// When it ended; a moment has ended when it began.
        ended_at: Option<Time>,
    }
}

/// Properties, all in one object.
pub static PROPERTIES: Resource = Resource {
    plural: "properties",
    entity: "sourcedproperties",
    fields: &[],
    schema: |generator| generator.subschema_for::<Sourced>(),
};
