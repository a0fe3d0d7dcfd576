//! Logs: what they are called, their lines, and their bytes.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ContentEncoding,
};
use actix_web::web::{Bytes, block};
use futures_util::stream;
use serde_json::json;
use tokio::sync::Semaphore;

use super::answer::{self, Answer, ApiError};
use super::context::{RawPieces, WebContext};
use super::query::Query;
use super::ranges::{self, Part};
use super::read;
use super::resource;
use super::route::{LogRef, Route, StepRef, TextForm};
use super::shape;
use crate::core::ids::*;
use crate::store::sqlite::{Filter, FilterOp, LogWithText, Page, Scalar};
use crate::store::{LogRow, StepRow, StoreError};

type Pairs = [(String, String)];

/// The most lines of one chunk. A log that is longer is read in parts.
const MAX_LINES: u64 = 1_000_000;

/// Longest last line that progress shows, in characters.
const LAST_LINE: usize = 500;

fn find(context: &WebContext, of: &LogRef) -> Result<Option<LogWithText>, ApiError> {
    let id = match of {
        LogRef::Id(id) => LogId(*id),
        LogRef::Slug(step, slug) => {
            let Some(step) = context.find_step(step)? else {
                return Ok(None);
            };
            let mut page = Page::of(Filter::is("stepid", step.id.0));
            page.filters.push(Filter {
                field: "slug".into(),
                op: FilterOp::In,
                values: vec![Scalar::Text(slug.clone())],
            });
            match context.reader.logs(&page)?.rows.first() {
                Some(row) => row.id,
                None => return Ok(None),
            }
        }
    };
    Ok(context.reader.log(id)?)
}

fn not_found(of: &LogRef) -> ApiError {
    ApiError::NoRow(of.to_string())
}

/// Answers for `logs` resources.
///
/// # Errors
/// When a parameter is bad, the row is not there or the store cannot be read.
pub fn described(context: &WebContext, route: &Route, pairs: &Pairs) -> Result<Answer, ApiError> {
    let kind = &resource::LOGS;
    let step = match route {
        Route::Log(of) => {
            let query = Query::read(kind, pairs, false)?;
            let (row, _) = find(context, of)?.ok_or_else(|| not_found(of))?;
            let row = context.state.live.current(row);
            return Ok(Answer::single(kind.plural, query.projected(json!(shape::log(&row)))));
        }
        Route::StepLogs(StepRef::Id(id)) => *id,
        Route::StepLogs(of) => {
            let found = context.find_step(of)?;
            found.ok_or_else(|| ApiError::NoRow(of.to_string()))?.id.0
        }
        _ => return Err(ApiError::Inside("no path of a log".into())),
    };
    let query = Query::read(kind, pairs, true)?;
    let page = query.page(kind, vec![Filter::is("stepid", step)])?;
    let found = context.reader.logs(&page)?;
    let rows = found.rows.into_iter().map(|row| context.state.live.current(row));
    let rows: Vec<LogRow> = rows.collect();
    let items = read::shown(&query, &rows, |row| Ok(shape::log(row)))?;
    Ok(Answer { plural: kind.plural, items, total: Some(found.total), more: found.more })
}

/// Answers `contents`: one chunk of lines, and whether the log is complete.
///
/// # Errors
/// When a parameter is bad, there are no such lines or the store cannot be
/// read.
pub fn contents(
    context: &WebContext,
    of: &LogRef,
    pairs: &Pairs,
) -> Result<(Answer, bool), ApiError> {
    let kind = &resource::CHUNKS;
    let query = Query::read(kind, pairs, false)?;
    let no_lines = || ApiError::NoRow(format!("such line of the {of}"));
    let first = u64::try_from(query.offset.unwrap_or(0)).map_err(|_| no_lines())?;
    if query.limit == Some(0) {
        return Err(no_lines());
    }
    let (row, inline) = find(context, of)?.ok_or_else(no_lines)?;
    let limit = query.limit.unwrap_or(MAX_LINES).min(MAX_LINES);
    let bytes = context.logs.lines(&row, inline.as_ref(), first, Some(limit))?;
    if bytes.is_empty() && query.limit.is_none() && first > 0 {
        return Err(no_lines());
    }
    let content = shown(&row, &bytes);
    let chunk = json!({ "logid": row.id, "firstline": first, "content": content });
    Ok((Answer::single(kind.plural, query.projected(chunk)), row.complete))
}

/// Lines as the API has them: only output keeps its channel's letter.
fn shown(row: &LogRow, lines: &[u8]) -> String {
    if row.kind == 's' {
        return String::from_utf8_lossy(lines).into_owned();
    }
    let without: Vec<u8> = lines
        .split_inclusive(|byte| *byte == b'\n')
        .flat_map(|line| line.get(1..).unwrap_or_default())
        .copied()
        .collect();
    String::from_utf8_lossy(&without).into_owned()
}

/// The last complete line of a step's first log, without its channel.
///
/// # Errors
/// When the store cannot be read.
pub fn last_line(context: &WebContext, step: StepId) -> Result<Option<String>, ApiError> {
    let mut page = Page::of(Filter::is("stepid", step.0));
    page.limit = Some(1);
    let Some(first) = context.reader.logs(&page)?.rows.into_iter().next() else {
        return Ok(None);
    };
    let Some((row, inline)) = context.reader.log(first.id)? else {
        return Ok(None);
    };
    let bytes = context.logs.tail(&row, inline.as_ref(), 1)?;
    let text = String::from_utf8_lossy(bytes.get(1..).unwrap_or_default()).into_owned();
    let line: String = text.trim_end_matches('\n').chars().take(LAST_LINE).collect();
    Ok((!bytes.is_empty()).then_some(line))
}

/// A log's bytes, ready to be sent.
pub struct RawLog {
    name: String,
    html: bool,
    /// The heading, or what of it is asked for.
    heading: Vec<u8>,
    pieces: RawPieces,
    /// The part that is asked for.
    part: Option<Part>,
    /// Bytes there are, with the heading.
    total: u64,
    /// There will be no more.
    complete: bool,
    /// The mark to ask by, once there will be no more.
    mark: Option<String>,
}

/// The answer for a log's bytes.
pub enum Raw {
    /// The asker has them already, by this mark.
    Known(String),
    /// They are sent.
    Bytes(RawLog),
}

impl Raw {
    /// The answer, piece by piece.
    #[must_use]
    pub fn response(self, form: TextForm) -> HttpResponse {
        let (mut response, mark) = match self {
            Self::Known(mark) => (HttpResponse::NotModified().finish(), Some(mark)),
            Self::Bytes(mut log) => {
                let mark = log.mark.take();
                (log.response(form), mark)
            }
        };
        if let Some(mark) = mark {
            answer::put_mark(&mut response, &mark);
        }
        response
    }
}

/// Finds a log and begins to read its bytes, or those of a `Range` header,
/// unless their mark is among the `known` ones.
///
/// # Errors
/// When the row is not there or cannot be read.
pub fn open_raw(
    context: &WebContext,
    of: &LogRef,
    range: Option<&str>,
    known: &[String],
) -> Result<Raw, ApiError> {
    let (row, inline) = find(context, of)?.ok_or_else(|| not_found(of))?;
    // No two logs have one id, and a log that is complete stays as it is, but
    // that its text may go; then who has it may keep it.
    let mark = row.complete.then(|| format!("W/\"log-{}-{}\"", row.id, row.length));
    if let Some(mark) = mark.as_ref().filter(|mark| answer::is_known(known, mark)) {
        return Ok(Raw::Known(mark.clone()));
    }
    let gone = || ApiError::Inside(format!("log {} belongs to nothing", row.id));
    let step: StepRow = context.reader.step(row.step)?.ok_or_else(gone)?;
    let build = context.reader.build(step.build)?.ok_or_else(|| not_found(of))?;
    let builder = context.reader.builder(build.builder)?.ok_or_else(gone)?.name;
    let worker = context.reader.worker(build.worker)?.ok_or_else(gone)?.name;
    let number = build.number.unwrap_or_default();
    let heading = if row.kind == 's' {
        format!("Builder: {builder}\nBuild number: {number}\nWorker name: {worker}\n")
    } else {
        String::new()
    };
    let name = format!("{builder}_build_{number}_step_{}_log_{}", step.name, row.slug);
    let mut heading = heading.into_bytes();
    let begin = heading.len() as u64;
    let (mut total, mut part) = (0, None);
    if let Some(range) = range {
        total = begin + context.logs.length(&row, inline.as_ref())?;
        part = ranges::part(range, total);
    }
    let mut from = 0;
    if let Some(Part::Bytes { first, .. }) = part {
        from = first.saturating_sub(begin);
        heading.drain(..usize::try_from(first.min(begin)).unwrap_or(0));
    }
    let pieces = context.logs.raw(&row, inline, from)?;
    let (html, complete) = (row.kind == 'h', row.complete);
    Ok(Raw::Bytes(RawLog { name, html, heading, pieces, part, total, complete, mark }))
}

impl RawLog {
    /// The answer, piece by piece.
    #[must_use]
    fn response(self, form: TextForm) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        if self.html {
            // The text comes from a build: it must not act as a page of ours.
            response.insert_header((CONTENT_TYPE, "text/html; charset=utf-8"));
            response.insert_header((CONTENT_SECURITY_POLICY, "sandbox"));
        } else {
            response.insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"));
        }
        response.insert_header(("X-Content-Type-Options", "nosniff"));
        response.insert_header((ACCEPT_RANGES, "bytes"));
        if form == TextForm::Raw {
            let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            let name: String = self.name.chars().map(|c| if safe(c) { c } else { '_' }).collect();
            let value = format!("attachment; filename={name}");
            response.insert_header((CONTENT_DISPOSITION, value));
        }
        let mut left = u64::MAX;
        match self.part {
            None => {}
            Some(Part::Beyond) => {
                response.status(StatusCode::RANGE_NOT_SATISFIABLE);
                response.insert_header((CONTENT_RANGE, format!("bytes */{}", self.total)));
                return response.finish();
            }
            Some(Part::Bytes { first, last }) => {
                response.status(StatusCode::PARTIAL_CONTENT);
                // Of a log that grows nobody knows how long it will be.
                let all = if self.complete { self.total.to_string() } else { "*".into() };
                response.insert_header((CONTENT_RANGE, format!("bytes {first}-{last}/{all}")));
                // The part is one of these bytes, not of packed ones.
                response.insert_header(ContentEncoding::Identity);
                left = last - first + 1;
                response.no_chunking(left);
            }
        }
        let state = Some((Some(Bytes::from(self.heading)), self.pieces, left));
        response.streaming(stream::unfold(state, |state| async move {
            let (first, pieces, left) = state?;
            if left == 0 {
                return None;
            }
            let (piece, rest) = match first.filter(|first| !first.is_empty()) {
                Some(first) => (Ok(first), Some((None, pieces))),
                None => next_piece(pieces).await?,
            };
            let piece = piece.map(|mut bytes: Bytes| {
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                bytes
            });
            let sent = piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
            Some((piece, rest.map(|(first, pieces)| (first, pieces, left - sent))))
        }))
    }
}

type Unfolded = Option<(Option<Bytes>, RawPieces)>;

/// Pieces of logs that are read at once. Each is unpacked from a chunk, and takes a
/// thread with memory of its own: hundreds of browsers that come at once would
/// have hundreds of them. A turn lasts while a piece is read, not while a browser
/// takes it, so whoever waits for one waits for the disk alone.
static READING: Semaphore = Semaphore::const_new(2);

/// Reads on where reading may block.
async fn next_piece(mut pieces: RawPieces) -> Option<(Result<Bytes, StoreError>, Unfolded)> {
    // Never closed: an error cannot be.
    let turn = READING.acquire().await;
    let read = block(move || {
        let piece = pieces.next();
        (piece, pieces)
    });
    let read = read.await;
    drop(turn);
    match read {
        Ok((Some(Ok(piece)), pieces)) => Some((Ok(Bytes::from(piece)), Some((None, pieces)))),
        Ok((Some(Err(error)), _)) => Some((Err(error), None)),
        Ok((None, _)) => None,
        Err(_) => Some((Err(StoreError::Closed), None)),
    }
}
