//! What other programs watch: a CCTray feed for desktop monitors, an Atom feed
//! of failures for readers, and the results that badges show.
//!
//! Both feeds are written by hand: they are two dozen elements, and everything
//! that comes from elsewhere goes through one function that makes it safe.

use std::borrow::Cow;
use std::fmt::Write as _;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use jiff::Timestamp;

use super::answer::ApiError;
use super::context::{WebContext, wall_now};
use super::query;
use super::rpc::blocking;
use super::ui::here;
use crate::core::ids::BuilderId;
use crate::core::time::WallTime;
use crate::core::values::BuildResult;
use crate::core::views::BigState;
use crate::store::sqlite::{Filter, FilterOp, Page, Scalar};
use crate::store::{BuildRow, BuilderRow};

/// Entries of the Atom feed.
const ENTRIES: u64 = 50;
/// How far back a branch's last build is looked for.
const LOOK_BACK: u64 = 200;

/// Results that say something about the source. A build that was stopped, not
/// needed or lost says nothing.
const VERDICTS: [BuildResult; 4] =
    [BuildResult::Success, BuildResult::Warnings, BuildResult::Failure, BuildResult::Exception];

/// Text that is safe in XML, between tags and in quoted attributes.
#[must_use]
pub fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\t' | '\n' | '\r' => safe.push(' '),
            // No XML may hold these, not even escaped.
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            _ => safe.push(c),
        }
    }
    safe
}

fn with_results(results: &[BuildResult]) -> Filter {
    let values = results.iter().map(|result| Scalar::Int(result.code())).collect();
    Filter { field: "results".into(), op: FilterOp::In, values }
}

/// The latest build of a builder, on a branch if one is named, whose result
/// says something about the source.
///
/// # Errors
/// When the store cannot be read.
pub fn last_verdict(
    context: &WebContext,
    builder: BuilderId,
    branch: Option<&str>,
) -> Result<Option<BuildRow>, ApiError> {
    let page = Page {
        filters: vec![Filter::is("builderid", builder.0), with_results(&VERDICTS)],
        order: vec![("number".into(), true)],
        limit: Some(if branch.is_some() { LOOK_BACK } else { 1 }),
        offset: 0,
    };
    let on_branch = |build: &BuildRow| {
        let Some(branch) = branch else { return true };
        property(build, "branch").unwrap_or_default() == branch
    };
    Ok(context.reader.builds(&page)?.rows.into_iter().find(on_branch))
}

/// A build's property as text. One that is null says nothing.
fn property<'a>(build: &'a BuildRow, name: &str) -> Option<Cow<'a, str>> {
    let value = &build.properties.get(name)?.value;
    (!value.json().is_null()).then(|| value.text())
}

fn time(at: WallTime) -> String {
    Timestamp::from_second(at.seconds()).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Where people look at a build.
fn build_address(context: &WebContext, here: &str, build: &BuildRow) -> String {
    match (&context.ui, build.number) {
        (Some(_), Some(number)) => {
            format!("{here}#/builders/{}/builds/{number}", build.builder)
        }
        _ => format!("{here}api/v2/builds/{}", build.id),
    }
}

fn builder_address(context: &WebContext, here: &str, builder: BuilderId) -> String {
    match &context.ui {
        Some(_) => format!("{here}#/builders/{builder}"),
        None => format!("{here}api/v2/builders/{builder}"),
    }
}

/// One builder for CCTray. While it builds, its status is still the one of the
/// build before: that is what monitors expect.
fn project(
    context: &WebContext,
    here: &str,
    builder: &BuilderRow,
    into: &mut String,
) -> Result<(), ApiError> {
    let view = context.board.builder(&builder.name);
    let building = view.is_some_and(|view| view.big_state == BigState::Building);
    let activity = if building { "Building" } else { "Sleeping" };
    let last = last_verdict(context, builder.id, None)?;
    let status = match last.as_ref().and_then(|build| build.results) {
        Some(BuildResult::Success | BuildResult::Warnings) => "Success",
        Some(BuildResult::Failure) => "Failure",
        Some(BuildResult::Exception) => "Exception",
        _ => "Unknown",
    };
    let label =
        last.as_ref().and_then(|build| build.number).map_or_else(String::new, |n| n.to_string());
    // The format wants a time even of what was never built.
    let at = last.as_ref().and_then(|build| build.complete_at).unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = writeln!(
        into,
        "  <Project name=\"{}\" activity=\"{activity}\" lastBuildStatus=\"{status}\" \
         lastBuildLabel=\"{label}\" lastBuildTime=\"{}\" webUrl=\"{}\"/>",
        xml(builder.name.as_str()),
        time(at),
        xml(&builder_address(context, here, builder.id)),
    );
    Ok(())
}

fn cctray(context: &WebContext, here: &str) -> Result<String, ApiError> {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Projects>\n");
    for builder in context.reader.builders()?.iter().filter(|builder| builder.configured) {
        project(context, here, builder, &mut text)?;
    }
    text.push_str("</Projects>\n");
    Ok(text)
}

/// Serves `/cc.xml`.
pub async fn serve_cctray(request: HttpRequest, context: Data<WebContext>) -> HttpResponse {
    let here = here(&request);
    let written = blocking(&context, move |context| cctray(context, &here)).await;
    answer(written, "application/xml; charset=utf-8")
}

fn entry(
    context: &WebContext,
    here: &str,
    builders: &[BuilderRow],
    build: &BuildRow,
    into: &mut String,
) {
    let name = builders
        .iter()
        .find(|builder| builder.id == build.builder)
        .map_or("?", |builder| builder.name.as_str());
    let word = build.results.map_or("running", BuildResult::word);
    let number = build.number.map_or_else(String::new, |number| format!(" {number}"));
    let mut summary = build.state_string.clone();
    for name in ["branch", "got_revision", "owner", "workername"] {
        if let Some(value) = property(build, name).filter(|value| !value.is_empty()) {
            summary.push_str(&format!(", {name} {value}"));
        }
    }
    let (host, _) = context.name.split_once(':').unwrap_or((&context.name, ""));
    // The name stays when the address changes, so that nothing is read twice.
    let _ = write!(
        into,
        "  <entry>\n    <id>tag:{},2026:builds/{}</id>\n    <title>{}{number}: {word}</title>\n    \
         <updated>{}</updated>\n    <link href=\"{}\"/>\n    <summary>{}</summary>\n    \
         <category term=\"{word}\"/>\n  </entry>\n",
        xml(host),
        build.id,
        xml(name),
        time(build.complete_at.unwrap_or(build.started_at)),
        xml(&build_address(context, here, build)),
        xml(&summary),
    );
}

fn atom(context: &WebContext, here: &str, builder: Option<&str>) -> Result<String, ApiError> {
    let builders = context.reader.builders()?;
    let mut filters = vec![with_results(&[BuildResult::Failure, BuildResult::Exception])];
    if let Some(name) = builder {
        let found = builders.iter().find(|builder| builder.name.as_str() == name);
        let found = found.ok_or_else(|| ApiError::NoRow(format!("builder named `{name}`")))?;
        filters.push(Filter::is("builderid", found.id.0));
    }
    let order = vec![("buildid".into(), true)];
    let page = Page { filters, order, limit: Some(ENTRIES), offset: 0 };
    let builds = context.reader.builds(&page)?.rows;
    let updated = builds.iter().filter_map(|build| build.complete_at).max();
    let of = builder.map(|name| format!(" of {name}")).unwrap_or_default();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <feed xmlns=\"http://www.w3.org/2005/Atom\">\n  <id>{here}failures.atom{}</id>\n  \
         <title>{}: failed builds{}</title>\n  <updated>{}</updated>\n  \
         <author><name>botmaster</name></author>\n  <link rel=\"self\" href=\"{here}failures.atom{}\"/>\n  \
         <link href=\"{here}\"/>\n",
        xml(&parameter(builder)),
        xml(&context.title),
        xml(&of),
        time(updated.unwrap_or_else(wall_now)),
        xml(&parameter(builder)),
        here = xml(here),
    );
    for build in &builds {
        entry(context, here, &builders, build, &mut text);
    }
    text.push_str("</feed>\n");
    Ok(text)
}

fn parameter(builder: Option<&str>) -> String {
    builder.map(|name| format!("?builder={}", name.replace(' ', "%20"))).unwrap_or_default()
}

/// Serves `/failures.atom`, of one builder with `?builder=NAME`.
pub async fn serve_atom(request: HttpRequest, context: Data<WebContext>) -> HttpResponse {
    let here = here(&request);
    let pairs = match query::pairs(request.query_string()) {
        Ok(pairs) => pairs,
        Err(error) => return error.response(),
    };
    let builder = pairs.into_iter().find(|(name, _)| name == "builder").map(|(_, value)| value);
    let written = blocking(&context, move |context| atom(context, &here, builder.as_deref()));
    answer(written.await, "application/atom+xml; charset=utf-8")
}

fn answer(written: Result<String, ApiError>, kind: &'static str) -> HttpResponse {
    match written {
        Ok(text) => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, kind))
            .insert_header((CACHE_CONTROL, "no-cache"))
            .body(text),
        Err(error) => error.response(),
    }
}
