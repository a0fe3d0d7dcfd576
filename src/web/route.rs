//! Paths below `/api/v2`, read once into what they name.

use std::fmt;

use super::query::percent_decoded;

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
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Route {
    Masters,
    Master(u64),
    Builders,
    Builder(BuilderRef),
    BuilderBuilds(BuilderRef),
    BuilderRequests(BuilderRef),
    BuilderWorkers(BuilderRef),
    BuilderMasters(BuilderRef),
    BuilderForms(BuilderRef),
    BuilderNotes(BuilderRef),
    BuilderExpectations(BuilderRef),
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
    BuildProgress(BuildRef),
    BuildChanges,
    Step(StepRef),
    StepLogs(StepRef),
    Log(LogRef),
    LogText(LogRef, TextForm),
    Requests,
    Request(u64),
    RequestBuilds(u64),
    RequestProperties(u64),
    Buildsets,
    Buildset(u64),
    BuildsetProperties(u64),
    BuildsetStamps(u64),
    Stamps,
    Stamp(u64),
    Changes,
    Schedulers,
    Forms,
    Form(String),
    Board,
    Etas,
    Reload,
}

/// A number as a path has it. A negative one is a number too, which nothing
/// has.
fn number(text: &str) -> Option<u64> {
    let number: i64 = text.parse().ok()?;
    Some(u64::try_from(number).unwrap_or(u64::MAX))
}

fn worker(text: &str) -> WorkerRef {
    number(text).map_or_else(|| WorkerRef::Name(text.to_owned()), WorkerRef::Id)
}

fn builder(text: &str) -> BuilderRef {
    number(text).map_or_else(|| BuilderRef::Name(text.to_owned()), BuilderRef::Id)
}

impl Route {
    /// Reads the path after `/api/v2/`. None when there is no such path.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let decoded: Option<Vec<String>> =
            path.split('/').map(|part| percent_decoded(part, false)).collect();
        let decoded = decoded?;
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["builders", rest @ ..] => builders(rest),
            ["builds", rest @ ..] => match rest {
                [] => Some(Self::Builds),
                [id, rest @ ..] => build(BuildRef::Id(number(id)?), rest),
            },
            ["steps", id, rest @ ..] => step(StepRef::Id(number(id)?), rest),
            ["logs", id, rest @ ..] => log(LogRef::Id(number(id)?), rest),
            ["workers", rest @ ..] => workers(rest),
            ["buildrequests", rest @ ..] => requests(rest),
            ["buildsets", rest @ ..] => buildsets(rest),
            ["masters"] => Some(Self::Masters),
            ["masters", id] => Some(Self::Master(number(id)?)),
            ["sourcestamps"] => Some(Self::Stamps),
            ["sourcestamps", id] => Some(Self::Stamp(number(id)?)),
            ["sourcestamps", id, "changes"] => number(id).map(|_| Self::BuildChanges),
            ["changes"] => Some(Self::Changes),
            ["schedulers"] => Some(Self::Schedulers),
            ["forceschedulers"] => Some(Self::Forms),
            ["forceschedulers", name] => Some(Self::Form((*name).to_owned())),
            ["botmaster", "board"] => Some(Self::Board),
            ["botmaster", "etas"] => Some(Self::Etas),
            ["botmaster", "reload"] => Some(Self::Reload),
            _ => None,
        }
    }
}

fn builders(rest: &[&str]) -> Option<Route> {
    let [name, rest @ ..] = rest else {
        return Some(Route::Builders);
    };
    let of = builder(name);
    Some(match rest {
        [] => Route::Builder(of),
        ["builds"] => Route::BuilderBuilds(of),
        ["builds", at, rest @ ..] => return build(BuildRef::Number(of, number(at)?), rest),
        ["buildrequests"] => Route::BuilderRequests(of),
        ["workers"] => Route::BuilderWorkers(of),
        ["masters"] => Route::BuilderMasters(of),
        ["expectations"] => Route::BuilderExpectations(of),
        ["forceschedulers"] => Route::BuilderForms(of),
        ["notes"] => Route::BuilderNotes(of),
        _ => return None,
    })
}

fn build(of: BuildRef, rest: &[&str]) -> Option<Route> {
    Some(match rest {
        [] => Route::Build(of),
        ["steps"] => Route::BuildSteps(of),
        ["buildrequests"] => Route::BuildRequests(of),
        ["properties"] => Route::BuildProperties(of),
        ["progress"] => Route::BuildProgress(of),
        ["changes"] => Route::BuildChanges,
        ["steps", name, rest @ ..] => {
            let at = match number(name) {
                Some(number) => StepRef::Number(of, number),
                None => StepRef::Name(of, (*name).to_owned()),
            };
            return step(at, rest);
        }
        _ => return None,
    })
}

fn step(of: StepRef, rest: &[&str]) -> Option<Route> {
    match rest {
        [] => Some(Route::Step(of)),
        ["logs"] => Some(Route::StepLogs(of)),
        ["logs", slug, rest @ ..] => log(LogRef::Slug(of, (*slug).to_owned()), rest),
        _ => None,
    }
}

fn log(of: LogRef, rest: &[&str]) -> Option<Route> {
    Some(match rest {
        [] => Route::Log(of),
        ["contents"] => Route::LogText(of, TextForm::Contents),
        ["raw"] => Route::LogText(of, TextForm::Raw),
        ["raw_inline"] => Route::LogText(of, TextForm::RawInline),
        _ => return None,
    })
}

fn workers(rest: &[&str]) -> Option<Route> {
    Some(match rest {
        [] => Route::Workers,
        [name] => Route::Worker(worker(name)),
        [name, "notes"] => Route::WorkerNotes(worker(name)),
        [id, "builds"] => Route::WorkerBuilds(number(id)?),
        [id, "builders"] => Route::WorkerBuilders(number(id)?),
        _ => return None,
    })
}

fn requests(rest: &[&str]) -> Option<Route> {
    Some(match rest {
        [] => Route::Requests,
        [id] => Route::Request(number(id)?),
        [id, "builds"] => Route::RequestBuilds(number(id)?),
        [id, "properties"] => Route::RequestProperties(number(id)?),
        _ => return None,
    })
}

fn buildsets(rest: &[&str]) -> Option<Route> {
    Some(match rest {
        [] => Route::Buildsets,
        [id] => Route::Buildset(number(id)?),
        [id, "properties"] => Route::BuildsetProperties(number(id)?),
        [id, "sourcestamps"] => Route::BuildsetStamps(number(id)?),
        _ => return None,
    })
}
