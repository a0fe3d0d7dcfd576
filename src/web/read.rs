//! `GET`: what a path names, from the store. Everything here blocks and runs
//! on a thread that may.

use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{Answer, ApiError, Items};
use super::context::{WebContext, wall_now};
use super::eta::Etas;
use super::forms;
use super::query::Query;
use super::resource::{self, Resource};
use super::route::{BuildRef, BuilderRef, Route, StepRef, WorkerRef, kind_of};
use super::{listed, logs, openapi, shape};
use crate::core::form::Form;
use crate::core::ids::*;
use crate::store::sqlite::{
    Filter, FilterOp, Listed, OF_BUILD, OF_CHANGE, OF_PARENT, Page, PageOf, Scalar, Shown,
};
use crate::store::{BuildRow, BuilderRow, RequestRow, StepRow, WorkerRow};

/// Names of the lists that `/api/v2` tells of.
const ROOTS: [&str; 14] = [
    "builders",
    "builds",
    "buildrequests",
    "codebases",
    "workers",
    "logchunks",
    "buildsets",
    "changes",
    "changesources",
    "masters",
    "sourcestamps",
    "schedulers",
    "forceschedulers",
    "projects",
];

/// About as many bytes as a row has when it is written.
const ROW: usize = 320;

pub(super) type Pairs = [(String, String)];

pub(super) fn not_found(what: impl std::fmt::Display) -> ApiError {
    ApiError::NoRow(what.to_string())
}

/// One resource in its envelope.
pub(super) fn single(resource: &Resource, pairs: &Pairs, item: Value) -> Result<Answer, ApiError> {
    let query = Query::read(resource, pairs, false)?;
    Ok(Answer::single(resource.plural, query.projected(item)))
}

/// Resources that are all at hand.
pub(super) fn in_memory(
    resource: &Resource,
    pairs: &Pairs,
    items: Vec<Value>,
) -> Result<Answer, ApiError> {
    let query = Query::read(resource, pairs, true)?;
    let (items, total) = query.apply(items);
    let items = items.into_iter().map(|item| query.projected(item)).collect();
    let items = Items::Values(items);
    Ok(Answer { plural: resource.plural, items, total: Some(total), more: false })
}

/// Resources from the store.
pub(super) fn paged<T, R: Serialize>(
    resource: &Resource,
    query: &Query,
    implied: Vec<Filter>,
    read: impl FnOnce(&Page) -> Result<PageOf<T>, crate::store::StoreError>,
    shape: impl FnMut(&T) -> Result<R, ApiError>,
) -> Result<Answer, ApiError> {
    let found = read(&query.page(resource, implied)?)?;
    let items = shown(query, &found.rows, shape)?;
    Ok(Answer { plural: resource.plural, items, total: Some(found.total), more: found.more })
}

/// Rows as resources: written at once, unless only some fields are asked for.
pub(super) fn shown<T, R: Serialize>(
    query: &Query,
    rows: &[T],
    mut shape: impl FnMut(&T) -> Result<R, ApiError>,
) -> Result<Items, ApiError> {
    let wrong = |error: serde_json::Error| ApiError::Inside(error.to_string());
    if !query.fields.is_empty() {
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(query.projected(serde_json::to_value(shape(row)?).map_err(wrong)?));
        }
        return Ok(Items::Values(items));
    }
    let mut bytes = Vec::with_capacity(rows.len() * ROW);
    for row in rows {
        if !bytes.is_empty() {
            bytes.push(b',');
        }
        serde_json::to_writer(&mut bytes, &shape(row)?).map_err(wrong)?;
    }
    let text = String::from_utf8(bytes).map_err(|error| ApiError::Inside(error.to_string()))?;
    Ok(Items::Written(text))
}

impl WebContext {
    /// The builder that a path names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find_builder(&self, of: &BuilderRef) -> Result<Option<BuilderRow>, ApiError> {
        Ok(match of {
            BuilderRef::Id(id) => self.reader.builder(BuilderId(*id))?,
            BuilderRef::Name(name) => self.reader.builder_named(name)?,
        })
    }

    /// The worker that a path names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find_worker(&self, of: &WorkerRef) -> Result<Option<WorkerRow>, ApiError> {
        Ok(match of {
            WorkerRef::Id(id) => self.reader.worker(WorkerId(*id))?,
            WorkerRef::Name(name) => self.reader.worker_named(name)?,
        })
    }

    /// The build that a path names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find_build(&self, of: &BuildRef) -> Result<Option<BuildRow>, ApiError> {
        Ok(match of {
            BuildRef::Id(id) => self.reader.build(BuildId(*id))?,
            BuildRef::Number(builder, number) => match self.find_builder(builder)? {
                Some(builder) => self.reader.build_numbered(builder.id, BuildNumber(*number))?,
                None => None,
            },
        })
    }

    /// Names of the schedulers that are switched off.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn disabled_schedulers(&self) -> Result<Vec<String>, ApiError> {
        let values = vec![Scalar::Bool(false)];
        let off = Filter { field: "enabled".into(), op: FilterOp::In, values };
        let found = self.reader.listed(Listed::Schedulers, &Page::of(off))?;
        let name = |row: &Shown| row.get("name").and_then(Value::as_str).map(str::to_owned);
        Ok(found.rows.iter().filter_map(name).collect())
    }

    /// The step that a path names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find_step(&self, of: &StepRef) -> Result<Option<StepRow>, ApiError> {
        let (build, filter) = match of {
            StepRef::Id(id) => return Ok(self.reader.step(StepId(*id))?),
            StepRef::Number(build, number) => (build, Filter::is("number", *number)),
            StepRef::Name(build, name) => {
                let values = vec![Scalar::Text(name.clone())];
                (build, Filter { field: "name".into(), op: FilterOp::In, values })
            }
        };
        let Some(build) = self.find_build(build)? else {
            return Ok(None);
        };
        let mut page = Page::of(Filter::is("buildid", build.id.0));
        page.filters.push(filter);
        page.limit = Some(1);
        Ok(self.reader.steps(&page)?.rows.into_iter().next())
    }
}

/// Answers a `GET` for anything but the text of a log.
///
/// # Errors
/// When a parameter is bad, the row is not there or the store cannot be read.
pub fn answer(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    match route {
        Route::Masters => in_memory(&resource::MASTERS, pairs, vec![master(context)]),
        Route::Master(id) if *id == shape::MASTER => {
            single(&resource::MASTERS, pairs, master(context))
        }
        Route::Master(id) => Err(not_found(format_args!("master with the id {id}"))),
        Route::OfMaster(id, route) => match (*id == shape::MASTER, &**route) {
            (true, route) => answer(context, route, pairs),
            (false, Route::Rows(of, _)) => in_memory(kind_of(*of), pairs, Vec::new()),
            (false, Route::Builders) => in_memory(&resource::BUILDERS, pairs, Vec::new()),
            (false, Route::Workers | Route::BuilderWorkers(_)) => {
                in_memory(&resource::WORKERS, pairs, Vec::new())
            }
            (false, _) => Err(not_found(format_args!("master with the id {id}"))),
        },
        Route::BuilderMasters(of) => builder_masters(context, of, pairs),
        Route::BuilderMaster(of, id) => {
            let configured = context.find_builder(of)?.is_some_and(|builder| builder.configured);
            if !configured || *id != shape::MASTER {
                return Err(not_found(format_args!("master with the id {id} of the {of}")));
            }
            single(&resource::MASTERS, pairs, master(context))
        }
        Route::Builders
        | Route::Builder(_)
        | Route::BuilderForms(_)
        | Route::Forms
        | Route::Form(_)
        | Route::ProjectBuilders(_)
        | Route::WorkerBuilders(_) => builders(context, route, pairs),
        Route::Workers | Route::Worker(_) | Route::BuilderWorkers(_) | Route::BuilderWorker(..) => {
            workers(context, route, pairs)
        }
        Route::Builds
        | Route::Build(_)
        | Route::BuilderBuilds(_)
        | Route::WorkerBuilds(_)
        | Route::RequestBuilds(_)
        | Route::BuildTriggered(_)
        | Route::ChangeBuilds(_)
        | Route::BuildProperties(_)
        | Route::BuildPropertyList(_) => builds(context, route, pairs),
        Route::BuildSteps(_) | Route::Step(_) => steps(context, route, pairs),
        Route::StepLogs(_) | Route::Log(_) => logs::described(context, route, pairs),
        Route::Requests
        | Route::Request(_)
        | Route::BuilderRequests(_)
        | Route::BuildRequests(_)
        | Route::RequestProperties(_) => requests(context, route, pairs),
        Route::Buildsets
        | Route::Buildset(_)
        | Route::BuildsetProperties(_)
        | Route::BuildsetPropertyList(_)
        | Route::BuildsetStamps(_)
        | Route::Stamps
        | Route::Stamp(_) => buildsets(context, route, pairs),
        Route::BuilderNotes(_) | Route::WorkerNotes(_) => notes(context, route, pairs),
        Route::Rows(..)
        | Route::Row(..)
        | Route::Projects
        | Route::Project(_)
        | Route::BuilderTests(_)
        | Route::BuildChanges(_)
        | Route::BuildData(_)
        | Route::BuildDatum(..)
        | Route::ChangePropertyList(_)
        | Route::CommitGraph(..) => listed::answer(context, route, pairs),
        Route::Spec => openapi::spec(pairs),
        Route::Nothing => Err(not_found("such path")),
        Route::LogText(..)
        | Route::BuildDatumValue(..)
        | Route::RequestReasons(_)
        | Route::OpenApi
        | Route::BuildProgress(_)
        | Route::BuilderExpectations(_)
        | Route::Board
        | Route::Etas
        | Route::Reload => Err(ApiError::Inside("asked in the wrong place".into())),
    }
}

/// Answers `/api/v2` itself.
///
/// # Errors
/// When a parameter is bad.
pub fn roots(pairs: &Pairs) -> Result<Answer, ApiError> {
    in_memory(
        &resource::ROOTLINKS,
        pairs,
        ROOTS.iter().map(|name| json!({ "name": name })).collect(),
    )
}

pub(super) fn master(context: &WebContext) -> Value {
    json!(shape::master(&context.name, wall_now()))
}

fn builder_masters(
    context: &WebContext,
    of: &BuilderRef,
    pairs: &Pairs,
) -> Result<Answer, ApiError> {
    let configured = context.find_builder(of)?.is_some_and(|builder| builder.configured);
    let masters = if configured { vec![master(context)] } else { Vec::new() };
    in_memory(&resource::MASTERS, pairs, masters)
}

/// The forms that `wanted` lets through.
fn all_forms(context: &WebContext, wanted: impl Fn(&Form) -> bool) -> Result<Vec<Value>, ApiError> {
    let builders = context.reader.builders()?;
    let disabled = context.disabled_schedulers()?;
    let wanted = context.board.forms().into_iter().filter(wanted);
    let shape = |form: Form| forms::shape(&form, &builders, !disabled.contains(&form.name));
    Ok(wanted.map(shape).collect())
}

fn builders(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::BUILDERS;
    match route {
        Route::Builder(of) => {
            let found = context.find_builder(of)?;
            let row = found.ok_or_else(|| not_found(of))?;
            single(kind, pairs, shape::builder(&row))
        }
        Route::WorkerBuilders(id) => {
            let worker = WorkerId(*id);
            let rows = context.reader.builders()?;
            let own = rows.iter().filter(|row| row.configured && row.workers.contains(&worker));
            in_memory(kind, pairs, own.map(shape::builder).collect())
        }
        Route::ProjectBuilders(id) => {
            let rows = context.reader.builders()?;
            let own = rows.iter().filter(|row| row.about.project == Some(*id));
            in_memory(kind, pairs, own.map(shape::builder).collect())
        }
        Route::BuilderForms(of) => {
            let found = context.find_builder(of)?.filter(|builder| builder.configured);
            let own = |form: &Form| found.as_ref().is_some_and(|found| form.is_for(&found.name));
            in_memory(&resource::FORCE, pairs, all_forms(context, own)?)
        }
        Route::Forms => in_memory(&resource::FORCE, pairs, all_forms(context, |_| true)?),
        Route::Form(name) => {
            let found = all_forms(context, |form| form.name == *name)?.pop();
            let form =
                found.ok_or_else(|| not_found(format_args!("force scheduler named {name}")))?;
            single(&resource::FORCE, pairs, form)
        }
        _ => {
            let rows = context.reader.builders()?;
            in_memory(kind, pairs, rows.iter().map(shape::builder).collect())
        }
    }
}

fn workers(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::WORKERS;
    let configured = context.reader.configured_on()?;
    let shaped = |row: &WorkerRow| {
        let builders = configured.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        shape::worker(row, builders)
    };
    match route {
        Route::Worker(of) => {
            let found = context.find_worker(of)?;
            let row = found.ok_or_else(|| not_found(of))?;
            single(kind, pairs, shaped(&row))
        }
        Route::BuilderWorker(builder, of) => {
            let own = context.find_builder(builder)?.map(|row| row.workers).unwrap_or_default();
            let found = context.find_worker(of)?.filter(|row| own.contains(&row.id));
            let row = found.ok_or_else(|| not_found(format_args!("{of} of the {builder}")))?;
            single(kind, pairs, shaped(&row))
        }
        Route::BuilderWorkers(of) => {
            let found = context.find_builder(of)?;
            let (own, here) = found.map(|row| (row.workers, [row.id])).unwrap_or_default();
            let rows = context.reader.workers()?;
            let rows = rows.iter().filter(|row| own.contains(&row.id));
            // As if they had no other builder.
            in_memory(kind, pairs, rows.map(|row| shape::worker(row, &here)).collect())
        }
        _ => in_memory(kind, pairs, context.reader.workers()?.iter().map(shaped).collect()),
    }
}

fn builds(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::BUILDS;
    let implied = match route {
        Route::Build(of) => {
            let query = Query::read(kind, pairs, false)?;
            let row = context.find_build(of)?;
            let row = row.ok_or_else(|| not_found(of))?;
            let item = shape::build(&row, |name| query.wants_property(name));
            return Ok(Answer::single(kind.plural, query.projected(json!(item))));
        }
        Route::BuildProperties(of) => {
            let row = context.find_build(of)?;
            let all = row.map(|row| shape::properties(&row.properties, |_| true));
            return single(&resource::PROPERTIES, pairs, all.unwrap_or_else(|| json!({})));
        }
        Route::BuildPropertyList(of) => {
            let all = context.find_build(of)?.map(|row| row.properties).unwrap_or_default();
            return in_memory(&resource::PROPERTY_LIST, pairs, shape::property_list(&all));
        }
        Route::BuildTriggered(id) => vec![Filter::is(OF_PARENT, *id)],
        Route::ChangeBuilds(id) => vec![Filter::is(OF_CHANGE, *id)],
        Route::BuilderBuilds(of) => match context.find_builder(of)? {
            Some(builder) => vec![Filter::is("builderid", builder.id.0)],
            None => return in_memory(kind, pairs, Vec::new()),
        },
        Route::WorkerBuilds(id) => vec![Filter::is("workerid", *id)],
        Route::RequestBuilds(id) => vec![Filter::is("buildrequestid", *id)],
        _ => Vec::new(),
    };
    let query = Query::read(kind, pairs, true)?;
    let shaped = |row: &BuildRow| Ok(shape::build(row, |name| query.wants_property(name)));
    let read = |page: &Page| match query.properties.is_empty() {
        true => context.reader.bare_builds(page),
        false => context.reader.builds(page),
    };
    paged(kind, &query, implied, read, shaped)
}

/// What happened at a builder or to a worker, the oldest first (row B30).
fn notes(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::NOTES;
    let of = match route {
        Route::BuilderNotes(of) => {
            let found = context.find_builder(of)?;
            Filter::is("builderid", found.ok_or_else(|| not_found(of))?.id.0)
        }
        Route::WorkerNotes(of) => {
            let found = context.find_worker(of)?;
            Filter::is("workerid", found.ok_or_else(|| not_found(of))?.id.0)
        }
        _ => return Err(ApiError::Inside("no path of notes".into())),
    };
    let query = Query::read(kind, pairs, true)?;
    paged(kind, &query, vec![of], |page| context.reader.notes(page), |row| Ok(shape::note(row)))
}

fn steps(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::STEPS;
    let build = match route {
        Route::Step(of) => {
            let found = context.find_step(of)?;
            let row = found.ok_or_else(|| not_found(of))?;
            return single(kind, pairs, json!(shape::step(&row)));
        }
        // A list of a build's steps by the build's id is empty when there is
        // no such build; by the build's number it is not found.
        Route::BuildSteps(BuildRef::Id(id)) => *id,
        Route::BuildSteps(of) => {
            let build = context.find_build(of)?;
            build.ok_or_else(|| not_found(of))?.id.0
        }
        _ => return Err(ApiError::Inside("no path of a step".into())),
    };
    let query = Query::read(kind, pairs, true)?;
    let implied = vec![Filter::is("buildid", build)];
    let read = |page: &Page| context.reader.steps(page);
    paged(kind, &query, implied, read, |row| Ok(shape::step(row)))
}

fn requests(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::REQUESTS;
    let shaped = |row: &RequestRow, query: &Query| -> Result<_, ApiError> {
        let properties = if query.properties.is_empty() {
            None
        } else {
            let all = context.reader.buildset_properties(row.buildset)?.unwrap_or_default();
            Some(shape::some_properties(&all, |name| query.wants_property(name)))
        };
        Ok(shape::request(row, properties))
    };
    let implied = match route {
        Route::Request(id) | Route::RequestProperties(id) => {
            let found = context.reader.request(RequestId(*id))?;
            let row = found.ok_or_else(|| not_found(format_args!("build request {id}")))?;
            if matches!(route, Route::RequestProperties(_)) {
                let all = context.reader.buildset_properties(row.buildset)?.unwrap_or_default();
                let all = shape::properties(&all, |_| true);
                return single(&resource::PROPERTIES, pairs, all);
            }
            let query = Query::read(kind, pairs, false)?;
            let item = query.projected(json!(shaped(&row, &query)?));
            return Ok(Answer::single(kind.plural, item));
        }
        // As with a build's steps: by its id, a build that is not there has
        // none; by its number it is not found.
        Route::BuildRequests(BuildRef::Id(id)) => vec![Filter::is(OF_BUILD, *id)],
        Route::BuildRequests(of) => {
            let build = context.find_build(of)?.ok_or_else(|| not_found(of))?;
            vec![Filter::is(OF_BUILD, build.id.0)]
        }
        Route::BuilderRequests(of) => match context.find_builder(of)? {
            Some(builder) => vec![Filter::is("builderid", builder.id.0)],
            None => return in_memory(kind, pairs, Vec::new()),
        },
        _ => Vec::new(),
    };
    let query = Query::read(kind, pairs, true)?;
    let read = |page: &Page| context.reader.requests(page);
    paged(kind, &query, implied, read, |row| shaped(row, &query))
}

fn buildsets(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::BUILDSETS;
    let found = |id: u64| {
        let row = context.reader.buildset(BuildsetId(id))?;
        row.ok_or_else(|| not_found(format_args!("buildset {id}")))
    };
    match route {
        Route::Buildset(id) => single(kind, pairs, json!(shape::buildset(&found(*id)?))),
        Route::BuildsetProperties(id) => {
            let all = context.reader.buildset_properties(BuildsetId(*id))?;
            let all = shape::properties(&all.unwrap_or_default(), |_| true);
            single(&resource::PROPERTIES, pairs, all)
        }
        Route::BuildsetPropertyList(id) => {
            let all = context.reader.buildset_properties(BuildsetId(*id))?.unwrap_or_default();
            in_memory(&resource::PROPERTY_LIST, pairs, shape::property_list(&all))
        }
        Route::BuildsetStamps(id) => {
            let stamps = found(*id)?.sourcestamps;
            let stamps = stamps.iter().map(|stamp| json!(shape::sourcestamp(stamp))).collect();
            in_memory(&resource::STAMPS, pairs, stamps)
        }
        Route::Stamp(id) => {
            let row = context.reader.sourcestamp(*id)?;
            let row = row.ok_or_else(|| not_found(format_args!("source stamp {id}")))?;
            single(&resource::STAMPS, pairs, json!(shape::sourcestamp(&row)))
        }
        Route::Stamps => {
            let kind = &resource::STAMPS;
            let query = Query::read(kind, pairs, true)?;
            let read = |page: &Page| context.reader.sourcestamps(page);
            paged(kind, &query, Vec::new(), read, |row| Ok(shape::sourcestamp(row)))
        }
        _ => {
            let query = Query::read(kind, pairs, true)?;
            let read = |page: &Page| context.reader.buildsets(page);
            paged(kind, &query, Vec::new(), read, |row| Ok(shape::buildset(row)))
        }
    }
}

/// Answers `builds/N/progress`: how far a build is, as
/// `{elapsed_s, expected_s, step, step_elapsed_s, last_line, state, eta}`.
///
/// # Errors
/// When there is no such build or the store cannot be read.
pub fn progress(context: &WebContext, of: &BuildRef) -> Result<Value, ApiError> {
    let found = context.find_build(of)?;
    let build = found.ok_or_else(|| not_found(of))?;
    let now = wall_now();
    let seconds = |from: i64, to: i64| to.saturating_sub(from).max(0);
    let end = build.complete_at.unwrap_or(now).seconds();

    let builder = context.reader.builder(build.builder)?;
    let view = builder.and_then(|builder| context.board.builder(&builder.name));
    let active = view
        .as_ref()
        .and_then(|view| view.builds.iter().find(|active| active.build == Some(build.id)));
    let state = match (build.results, active) {
        (Some(result), _) => result.word(),
        (None, Some(active)) => active.state,
        (None, None) => "running",
    };
    let eta = Etas::new(context).of_build(&build)?;
    let expected = eta.expected.map(|total| total.likely.as_secs());

    let mut page = Page::of(Filter::is("buildid", build.id.0));
    page.order = vec![("number".into(), true)];
    page.limit = Some(1);
    let step = context.reader.steps(&page)?.rows.into_iter().next();
    let step_elapsed = step.as_ref().and_then(|step| {
        let until = step.complete_at.unwrap_or(now).seconds();
        Some(seconds(step.started_at?.seconds(), until))
    });
    let last_line = match &step {
        Some(step) => logs::last_line(context, step.id)?,
        None => None,
    };
    Ok(json!({
        "buildid": build.id,
        "elapsed_s": seconds(build.started_at.seconds(), end),
        "expected_s": expected,
        "step": step.as_ref().map(|step| &step.name),
        "step_elapsed_s": step_elapsed,
        "last_line": last_line,
        "state": state,
        "eta": eta.value(),
    }))
}
