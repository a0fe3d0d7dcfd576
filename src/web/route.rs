//! What the paths below `/api/v2` name. The paths themselves are in the table
//! of endpoints.

use std::fmt;

use super::resource::{self, Resource};
use crate::store::sqlite::{Filter, Listed};

/// A builder by id or name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuilderRef {
    /// By id.
    Id(u64),
    /// By name.
    Name(String),
}

/// A worker by id or name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WorkerRef {
    /// By id.
    Id(u64),
    /// By name.
    Name(String),
}

/// A project by id or name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProjectRef {
    /// By id.
    Id(u64),
    /// By name.
    Name(String),
}

/// A build by id, or by its number within a builder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BuildRef {
    /// By id.
    Id(u64),
    /// By number.
    Number(BuilderRef, u64),
}

impl fmt::Display for BuilderRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "builder with the id {id}"),
            Self::Name(name) => write!(f, "builder named `{name}`"),
        }
    }
}

impl fmt::Display for WorkerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "worker with the id {id}"),
            Self::Name(name) => write!(f, "worker named `{name}`"),
        }
    }
}

impl fmt::Display for BuildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "build with the id {id}"),
            Self::Number(builder, number) => write!(f, "build {number} of the {builder}"),
        }
    }
}

impl fmt::Display for StepRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "step with the id {id}"),
            Self::Number(build, number) => write!(f, "step {number} of the {build}"),
            Self::Name(build, name) => write!(f, "step named `{name}` of the {build}"),
        }
    }
}

impl fmt::Display for LogRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "log with the id {id}"),
            Self::Slug(step, slug) => write!(f, "log `{slug}` of the {step}"),
        }
    }
}

/// A step by id, or within a build by number or name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StepRef {
    /// By id.
    Id(u64),
    /// By number.
    Number(BuildRef, u64),
    /// By name.
    Name(BuildRef, String),
}

/// A log by id, or by its slug within a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogRef {
    /// By id.
    Id(u64),
    /// By slug.
    Slug(StepRef, String),
}

/// How a log's text is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextForm {
    /// Lines in a chunk.
    Contents,
    /// Exact bytes, to be saved.
    Raw,
    /// Exact bytes, to be read.
    RawInline,
}

/// What a path names.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Route {
    Masters,
    Master(u64),
    /// What is named after a master; empty or not there when that is not ours.
    OfMaster(u64, Box<Route>),
    Builders,
    Builder(BuilderRef),
    BuilderBuilds(BuilderRef),
    BuilderRequests(BuilderRef),
    BuilderWorkers(BuilderRef),
    BuilderWorker(BuilderRef, WorkerRef),
    BuilderMasters(BuilderRef),
    BuilderMaster(BuilderRef, u64),
    BuilderForms(BuilderRef),
    BuilderTests(BuilderRef),
    BuilderNotes(BuilderRef),
    BuilderExpectations(BuilderRef),
    Projects,
    Project(ProjectRef),
    ProjectBuilders(u64),
    Workers,
    Worker(WorkerRef),
    WorkerBuilds(u64),
    WorkerBuilders(u64),
    WorkerNotes(WorkerRef),
    Builds,
    Build(BuildRef),
    BuildSteps(BuildRef),
    BuildRequests(BuildRef),
    BuildProperties(BuildRef),
    BuildPropertyList(BuildRef),
    BuildProgress(BuildRef),
    BuildChanges(BuildRef),
    BuildTriggered(u64),
    BuildData(BuildRef),
    BuildDatum(BuildRef, String),
    BuildDatumValue(BuildRef, String),
    Step(StepRef),
    StepLogs(StepRef),
    Log(LogRef),
    LogText(LogRef, TextForm),
    Requests,
    Request(u64),
    RequestBuilds(u64),
    RequestProperties(u64),
    RequestReasons(u64),
    Buildsets,
    Buildset(u64),
    BuildsetProperties(u64),
    BuildsetPropertyList(u64),
    BuildsetStamps(u64),
    Stamps,
    Stamp(u64),
    ChangeBuilds(u64),
    ChangePropertyList(u64),
    /// Rows of a table that is only shown.
    Rows(Listed, Vec<Filter>),
    /// One of them.
    Row(Listed, Vec<Filter>),
    CommitGraph(u64, u64, u64),
    Forms,
    Form(String),
    Spec,
    OpenApi,
    Board,
    Etas,
    Reload,
    /// A path of which nothing is ever there.
    Nothing,
}

/// The kind of a table that is only shown.
#[must_use]
pub fn kind_of(of: Listed) -> &'static Resource {
    match of {
        Listed::Projects => &resource::PROJECTS,
        Listed::Changes => &resource::CHANGES,
        Listed::ChangeSources => &resource::CHANGE_SOURCES,
        Listed::Schedulers => &resource::SCHEDULERS,
        Listed::BuildData => &resource::BUILD_DATA,
        Listed::TestResultSets => &resource::TEST_RESULT_SETS,
        Listed::TestResults => &resource::TEST_RESULTS,
        Listed::Codebases => &resource::CODEBASES,
        Listed::Branches => &resource::BRANCHES,
        Listed::Commits => &resource::COMMITS,
    }
}
