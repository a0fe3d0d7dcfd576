//! What is only shown: changes, projects, schedulers, data and test results of
//! builds, codebases and their commits.

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::{Value, json};

use super::answer::{Answer, ApiError};
use super::context::WebContext;
use super::query::Query;
use super::read::{self, Pairs, in_memory, not_found, paged, single};
use super::resource;
use super::route::{BuildRef, ProjectRef, Route, kind_of};
use super::shape;
use crate::core::values::Properties;
use crate::store::sqlite::{Filter, FilterOp, Listed, Page, Scalar, Shown};

/// Answers for them.
///
/// # Errors
/// When a parameter is bad, the row is not there or the store cannot be read.
pub fn answer(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    match route {
        Route::Rows(of, filters) => rows(context, *of, filters.clone(), pairs),
        Route::Row(of, filters) => row(context, *of, filters.clone(), pairs),
        Route::Projects => projects(context, pairs),
        Route::Project(ProjectRef::Id(id)) => {
            row(context, Listed::Projects, vec![Filter::is("projectid", *id)], pairs)
        }
        Route::Project(ProjectRef::Name(name)) => {
            row(context, Listed::Projects, vec![text("name", name)], pairs)
        }
        Route::BuilderTests(of) => {
            let filters = match context.find_builder(of)? {
                Some(builder) => vec![Filter::is("builderid", builder.id.0)],
                None => return in_memory(&resource::TEST_RESULT_SETS, pairs, Vec::new()),
            };
            rows(context, Listed::TestResultSets, filters, pairs)
        }
        Route::BuildChanges(of) => {
            let Some(build) = found(context, of)? else {
                return in_memory(&resource::CHANGES, pairs, Vec::new());
            };
            let changes = context.reader.changes_of_build(build)?;
            if changes.is_empty() {
                return in_memory(&resource::CHANGES, pairs, Vec::new());
            }
            let ids = changes.into_iter().map(|id| Scalar::Int(i64::try_from(id).unwrap_or(0)));
            let values = ids.collect();
            let filter = Filter { field: "changeid".into(), op: FilterOp::In, values };
            rows(context, Listed::Changes, vec![filter], pairs)
        }
        Route::BuildData(of) => match found(context, of)? {
            Some(build) => {
                rows(context, Listed::BuildData, vec![Filter::is("buildid", build.0)], pairs)
            }
            None => in_memory(&resource::BUILD_DATA, pairs, Vec::new()),
        },
        Route::BuildDatum(of, name) => {
            let build = found(context, of)?.ok_or_else(|| not_found(of))?;
            let filters = vec![Filter::is("buildid", build.0), text("name", name)];
            row(context, Listed::BuildData, filters, pairs)
        }
        Route::ChangePropertyList(id) => {
            let page = Page::of(Filter::is("changeid", *id));
            let found = context.reader.listed(Listed::Changes, &page)?.rows.pop();
            let properties = found.and_then(|mut change| change.remove("properties"));
            let all = properties.map(serde_json::from_value::<Properties>).transpose();
            let all = all.map_err(|error| ApiError::Inside(error.to_string()))?;
            let items = shape::property_list(&all.unwrap_or_default());
            in_memory(&resource::PROPERTY_LIST, pairs, items)
        }
        Route::CommitGraph(codebase, first, second) => {
            let found = context.reader.commit_graph(*codebase, *first, *second)?;
            let found = found.ok_or_else(|| {
                not_found(format_args!("commit before both {first} and {second}"))
            })?;
            let graph =
                resource::CommitGraph { common: found.common, to1: found.first, to2: found.second };
            single(&resource::COMMIT_GRAPHS, pairs, json!(graph))
        }
        _ => Err(ApiError::Inside("asked in the wrong place".into())),
    }
}

fn text(field: &str, value: &str) -> Filter {
    let values = vec![Scalar::Text(value.to_owned())];
    Filter { field: field.into(), op: FilterOp::In, values }
}

/// The id of the build that a path names. A build that is named by its id need
/// not be there.
fn found(
    context: &WebContext,
    of: &BuildRef,
) -> Result<Option<crate::core::ids::BuildId>, ApiError> {
    match (of, context.find_build(of)?) {
        (_, Some(build)) => Ok(Some(build.id)),
        (BuildRef::Id(_), None) => Ok(None),
        (of, None) => Err(not_found(of)),
    }
}

/// A row as the API has it.
fn shaped(context: &WebContext, of: Listed, row: &Shown) -> Result<Value, ApiError> {
    let mut row = row.clone();
    match of {
        Listed::Schedulers | Listed::ChangeSources => {
            row.insert("master".into(), read::master(context));
        }
        Listed::Changes => {
            let stamp = row.remove(crate::store::sqlite::OF_STAMP);
            let id = stamp.as_ref().and_then(Value::as_u64).unwrap_or_default();
            let stamp = context.reader.sourcestamp(id)?;
            let stamp = stamp.ok_or_else(|| not_found(format_args!("source stamp {id}")))?;
            row.insert("sourcestamp".into(), json!(shape::sourcestamp(&stamp)));
            let properties = row.remove("properties").unwrap_or_default();
            let all: Properties = serde_json::from_value(properties)
                .map_err(|error| ApiError::Inside(error.to_string()))?;
            row.insert("properties".into(), shape::properties(&all, |_| true));
        }
        _ => {}
    }
    Ok(Value::Object(row))
}

fn rows(
    context: &WebContext,
    of: Listed,
    implied: Vec<Filter>,
    pairs: &Pairs,
) -> Result<Answer, ApiError> {
    let kind = kind_of(of);
    let query = Query::read(kind, pairs, true)?;
    let read = |page: &Page| context.reader.listed(of, page);
    paged(kind, &query, implied, read, |row| shaped(context, of, row))
}

fn row(
    context: &WebContext,
    of: Listed,
    filters: Vec<Filter>,
    pairs: &Pairs,
) -> Result<Answer, ApiError> {
    let kind = kind_of(of);
    // Before anything is read: a bad question is bad whether or not it is there.
    Query::read(kind, pairs, false)?;
    let page = Page { filters, limit: Some(1), ..Page::default() };
    let found = context.reader.listed(of, &page)?.rows.pop();
    let row = found.ok_or_else(|| not_found(format_args!("such {}", kind.entity)))?;
    let mut item = shaped(context, of, &row)?;
    if of == Listed::Projects {
        item["active"] = Value::Null;
    }
    single(kind, pairs, item)
}

/// Whether a project is active is told only to those who ask by it.
fn projects(context: &WebContext, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::PROJECTS;
    let query = Query::read(kind, pairs, true)?;
    let asked = query.filters.iter().any(|filter| filter.field == "active");
    let read = |page: &Page| context.reader.listed(Listed::Projects, page);
    paged(kind, &query, Vec::new(), read, |row| {
        let mut row = row.clone();
        if !asked {
            row.insert("active".into(), Value::Null);
        }
        Ok(Value::Object(row))
    })
}

/// The bytes of a build's data.
///
/// # Errors
/// When they are not there or the store cannot be read.
pub fn build_data(context: &WebContext, of: &BuildRef, name: &str) -> Result<Vec<u8>, ApiError> {
    let build = found(context, of)?.ok_or_else(|| not_found(of))?;
    let bytes = context.reader.build_data(build, name)?;
    bytes.ok_or_else(|| not_found(format_args!("data `{name}` of the {of}")))
}

/// Bytes of a build's data, to be saved.
#[must_use]
pub fn datum(name: &str, bytes: Vec<u8>) -> HttpResponse {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/octet-stream; charset=utf-8"))
        .insert_header((CONTENT_DISPOSITION, format!("attachment; filename={name}")))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .body(bytes)
}
