//! A plain status page, so that the address the master prints is of use in a
//! browser. No script; it loads itself again.

use std::fmt::Write;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use actix_web::web::Data;

use super::answer::ApiError;
use super::context::{WebContext, wall_now};
use super::eta::{BuildEta, Etas};
use super::rpc::blocking;
use crate::core::ids::{BuilderId, LogId, WorkerId};
use crate::core::time::WallTime;
use crate::store::sqlite::{Filter, Page};
use crate::store::{BuildRow, BuilderRow, WorkerRow};

/// Builds on the page.
const BUILDS: u64 = 25;

/// How often the page loads itself again, in seconds.
const REFRESH: u32 = 10;

const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:60em;\
    padding:0 1em}table{border-collapse:collapse;width:100%}th,td{text-align:left;\
    padding:.25em .8em .25em 0;border-bottom:1px solid #8884}h1{font-size:1.4em}\
    h2{font-size:1.1em;margin-top:1.6em}.failure,.exception{color:#b00}.success{color:#070}\
    .warnings,.retry{color:#a60}@media(prefers-color-scheme:dark){body{background:#111;\
    color:#ddd}a{color:#8bf}.failure,.exception{color:#f77}.success{color:#7d7}}";

/// Text that is safe between tags and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

fn ago(then: WallTime, now: WallTime) -> String {
    let seconds = now.seconds().saturating_sub(then.seconds()).max(0);
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// A span, in its two largest units.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// What a build took, or has left.
fn length(eta: &BuildEta) -> String {
    let Some(left) = eta.left else { return eta.took.map(span).unwrap_or_default() };
    let between = format!("{} to {} left", span(left.time.low), span(left.time.high));
    match left.late {
        Some(late) => format!("late by {}; {between}", span(late)),
        None => between,
    }
}

/// Everything that the page shows.
struct Shown {
    builders: Vec<BuilderRow>,
    workers: Vec<WorkerRow>,
    builds: Vec<ShownBuild>,
}

struct ShownBuild {
    row: BuildRow,
    eta: BuildEta,
    logs: Vec<ShownLog>,
}

struct ShownLog {
    step: u32,
    step_name: String,
    id: LogId,
}

fn gather(context: &WebContext) -> Result<Shown, ApiError> {
    let reader = &context.reader;
    let latest =
        Page { order: vec![("buildid".into(), true)], limit: Some(BUILDS), ..Page::default() };
    let mut builds = Vec::new();
    let mut etas = Etas::new(context);
    for build in reader.builds(&latest)?.rows {
        let mut logs = Vec::new();
        let mut steps = Page::of(Filter::is("buildid", build.id.0));
        steps.limit = Some(20);
        for step in reader.steps(&steps)?.rows {
            let own = reader.logs(&Page::of(Filter::is("stepid", step.id.0)))?.rows;
            logs.extend(own.into_iter().map(|log| ShownLog {
                step: step.number,
                step_name: step.name.clone(),
                id: log.id,
            }));
        }
        builds.push(ShownBuild { eta: etas.of_build(&build)?, row: build, logs });
    }
    Ok(Shown { builders: reader.builders()?, workers: reader.workers()?, builds })
}

/// The page.
pub async fn status(context: Data<WebContext>) -> HttpResponse {
    let body = match blocking(&context, gather).await {
        Ok(shown) => html(&context, &shown),
        Err(error) => return error.response(),
    };
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .body(body)
}

// Writing to a string cannot fail, so the results of `write!` say nothing.

fn html(context: &WebContext, shown: &Shown) -> String {
    let now = wall_now();
    let title = escaped(&context.title);
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>\
         <meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=refresh content={REFRESH}><style>{STYLE}</style><h1>{title}</h1>"
    );
    let board = context.board.all();
    if board.draining {
        page.push_str("<p><strong>The master drains: it starts no new builds.</strong>");
    }
    if let Some(full) = &board.store.full {
        let _ = write!(page, "<p class=failure><strong>{}.</strong>", escaped(full));
    }
    for text in board.warnings.values() {
        let _ = write!(page, "<p><strong>{}</strong>", escaped(text));
    }
    builders(&mut page, context, shown);
    workers(&mut page, context, shown, now);
    builds(&mut page, context, shown, now);
    page.push_str(
        "<h2>API</h2><p><a href=/api/v2>/api/v2</a> · <a href=/api/v2/builders>builders</a> · \
         <a href=/api/v2/workers>workers</a> · \
         <a href=\"/api/v2/builds?order=-buildid&amp;limit=50\">builds</a> · \
         <a href=\"/api/v2/buildrequests?claimed=false\">queue</a> · \
         <a href=/api/v2/botmaster/board>board</a></html>\n",
    );
    page
}

fn builders(page: &mut String, context: &WebContext, shown: &Shown) {
    page.push_str(
        "<h2>Builders</h2><table><tr><th>Builder<th>State<th>Waiting<th>Takes<th>Workers",
    );
    for row in shown.builders.iter().filter(|row| row.configured) {
        let view = context.board.builder(&row.name);
        let (state, waiting) = match &view {
            Some(view) => (view.big_state.word(), view.waiting.to_string()),
            None => ("not running", "?".into()),
        };
        let takes = view.as_ref().and_then(|view| view.expected).map_or_else(
            || "?".into(),
            |takes| {
                let (low, high) = (span(takes.low), span(takes.high));
                format!("{} ({low} to {high})", span(takes.likely))
            },
        );
        let names: Vec<String> =
            row.workers.iter().map(|id| escaped(worker_name(shown, *id))).collect();
        let _ = write!(
            page,
            "<tr><td><a href=\"/api/v2/builders/{}/builds?order=-number&amp;limit=50\">{}</a>\
             <td>{state}<td>{waiting}<td>{}<td>{}",
            row.id,
            escaped(row.name.as_str()),
            takes,
            names.join(", "),
        );
        if let Some(reason) = view.as_ref().and_then(|view| view.broken.as_ref()) {
            let name = escaped(row.name.as_str());
            let _ = write!(
                page,
                "<tr><td colspan=5 class=failure>{name} is broken: {}. Once the cause is gone: \
                 <code>botmaster restart {name}</code>",
                escaped(reason),
            );
        }
    }
    page.push_str("</table>");
    if !shown.builders.iter().any(|row| row.configured) {
        page.push_str("<p>No builder is configured.");
    }
}

fn workers(page: &mut String, context: &WebContext, shown: &Shown, now: WallTime) {
    let board = context.board.all();
    page.push_str("<h2>Workers</h2><table><tr><th>Worker<th>State<th>Slots used");
    for row in shown.workers.iter().filter(|row| row.configured) {
        let mut words = vec![if row.connected { "attached" } else { "away" }];
        if row.paused {
            words.push("paused");
        }
        if row.graceful {
            words.push("leaving");
        }
        let view = context.board.worker(&row.name);
        let aside = view.as_ref().and_then(|view| view.quarantine.as_ref());
        if aside.is_some() {
            words.push("set aside");
        }
        let slots = view
            .as_ref()
            .map_or_else(|| "?".into(), |view| format!("{} of {}", view.used, view.max_builds));
        let _ = write!(
            page,
            "<tr><td><a href=/api/v2/workers/{}>{}</a><td>{}<td>{slots}",
            row.id,
            escaped(row.name.as_str()),
            words.join(", "),
        );
        let name = escaped(row.name.as_str());
        if let Some(pause) = aside {
            let _ = write!(
                page,
                "<tr><td colspan=3 class=failure>{name} gets no builds for {} more: {}. To end that: \
                 <code>botmaster unpause {name}</code>",
                until(pause.until, now),
                escaped(&pause.reason),
            );
        }
        for (builder, view) in &board.builders {
            if let Some(pause) = view.pauses.get(&row.name) {
                let _ = write!(
                    page,
                    "<tr><td colspan=3 class=failure>{} tries {name} again in {}: {}",
                    escaped(builder.as_str()),
                    until(pause.until, now),
                    escaped(&pause.reason),
                );
            }
        }
    }
    page.push_str("</table>");
}

/// How long from now until then.
fn until(then: WallTime, now: WallTime) -> String {
    span(Duration::from_secs((then.seconds() - now.seconds()).max(0).unsigned_abs()))
}

/// That the build's worker is away, and how long it is waited for.
fn away(context: &WebContext, shown: &Shown, row: &BuildRow, now: WallTime) -> Option<String> {
    let builder = shown.builders.iter().find(|builder| builder.id == row.builder)?;
    let view = context.board.builder(&builder.name)?;
    let build = view.builds.iter().find(|build| build.build == Some(row.id))?;
    let away = build.away?;
    let rest = away.until.map(|then| format!("for {} more", until(then, now)));
    Some(format!(
        "waits for its worker, which has been away for {}, {}",
        until(now, away.since),
        rest.unwrap_or_else(|| "without end".into())
    ))
}

fn builds(page: &mut String, context: &WebContext, shown: &Shown, now: WallTime) {
    page.push_str(
        "<h2>Latest builds</h2><table><tr><th>Build<th>Result<th>What<th>Worker<th>Started\
         <th>Time<th>Logs",
    );
    for ShownBuild { row, eta, logs } in &shown.builds {
        let away = away(context, shown, row, now).filter(|_| row.results.is_none());
        let word = match row.results {
            Some(result) => result.word(),
            None if away.is_some() => "waiting",
            None => "running",
        };
        let number = row.number.unwrap_or_default();
        let _ = write!(
            page,
            "<tr><td><a href=/api/v2/builds/{}>{} {number}</a><td class={word}>{word}<td>{}<td>{}\
             <td>{}<td>{}<td>",
            row.id,
            escaped(builder_name(shown, row.builder)),
            escaped(away.as_ref().unwrap_or(&row.state_string)),
            escaped(worker_name(shown, row.worker)),
            ago(row.started_at, now),
            length(eta),
        );
        for log in logs {
            let (number, id) = (log.step, log.id);
            let name = escaped(&log.step_name);
            let _ = write!(
                page,
                "<a href=/api/v2/logs/{id}/raw_inline title=\"{name}\">{number} {name}</a> "
            );
        }
    }
    page.push_str("</table>");
    if shown.builds.is_empty() {
        page.push_str("<p>There was no build yet.");
    }
}

fn builder_name(shown: &Shown, id: BuilderId) -> &str {
    shown.builders.iter().find(|row| row.id == id).map_or("?", |row| row.name.as_str())
}

fn worker_name(shown: &Shown, id: WorkerId) -> &str {
    shown.workers.iter().find(|row| row.id == id).map_or("?", |row| row.name.as_str())
}
