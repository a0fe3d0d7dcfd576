//! Badges: the last result of a builder as a small picture, for pages of other
//! sites.

use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::answer::ApiError;
use super::context::WebContext;
use super::feeds::{last_verdict, xml};
use super::query::{self, percent_decoded};
use super::route::BuilderRef;
use super::rpc::blocking;
use super::ui::etag;
use crate::core::values::BuildResult;

/// Longest text of either half, in characters.
const LONGEST: usize = 60;

/// The words and the colour of a result.
fn shown(result: Option<BuildResult>) -> (&'static str, &'static str) {
    match result {
        Some(BuildResult::Success) => ("passing", "#2e7d32"),
        Some(BuildResult::Warnings) => ("warnings", "#a15c00"),
        Some(BuildResult::Failure) => ("failing", "#c62828"),
        Some(BuildResult::Exception) => ("exception", "#7b1fa2"),
        _ => ("not built yet", "#616161"),
    }
}

/// About how wide a text is in an 11 px sans-serif, in tenths of a pixel. The
/// text is fitted to that, so that it is right in each font.
fn width(text: &str) -> usize {
    let each = text.chars().map(|c| match c {
        'i' | 'j' | 'l' | '\'' | '.' | ',' | ':' | ';' | '|' | '!' => 32,
        'f' | 't' | 'r' | ' ' | '-' | '(' | ')' | '/' => 42,
        'm' | 'w' | 'M' | 'W' => 98,
        c if c.is_ascii_uppercase() => 76,
        c if c.is_ascii() => 66,
        _ => 110,
    });
    each.sum()
}

/// The picture. Its meaning is in its words, too, not in its colour alone.
fn picture(label: &str, result: Option<BuildResult>) -> String {
    let label: String = label.chars().take(LONGEST).collect();
    let (word, colour) = shown(result);
    let (left, right) = (width(&label) / 10, width(word) / 10);
    let (left_box, right_box) = (left + 12, right + 12);
    let whole = left_box + right_box;
    let safe = xml(&label);
    let text = |x: usize, length: usize, text: &str| {
        format!("<text x=\"{x}\" y=\"14\" textLength=\"{length}\">{text}</text>")
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{whole}\" height=\"20\" role=\"img\" \
         aria-label=\"{safe}: {word}\"><title>{safe}: {word}</title>\
         <clipPath id=\"r\"><rect width=\"{whole}\" height=\"20\" rx=\"3\"/></clipPath>\
         <g clip-path=\"url(#r)\"><rect width=\"{left_box}\" height=\"20\" fill=\"#444\"/>\
         <rect x=\"{left_box}\" width=\"{right_box}\" height=\"20\" fill=\"{colour}\"/></g>\
         <g fill=\"#fff\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">{}{}</g></svg>\n",
        text(6, left, &safe),
        text(left_box + 6, right, word),
    )
}

/// Serves `/badges/BUILDER.svg`, by name or number; `?branch=` for the builds of
/// one branch, `?left_text=` for other words than the builder's name.
pub async fn serve(request: HttpRequest, context: Data<WebContext>) -> HttpResponse {
    let path = request.path().rsplit_once("/badges/").map_or("", |(_, name)| name);
    let name = path.strip_suffix(".svg").and_then(|name| percent_decoded(name, false));
    let Some(name) = name else {
        return ApiError::NoPath(format!("badges/{path} (a badge is badges/BUILDER.svg)"))
            .response();
    };
    let pairs = match query::pairs(request.query_string()) {
        Ok(pairs) => pairs,
        Err(error) => return error.response(),
    };
    let found = blocking(&context, move |context| {
        let value = |wanted: &str| {
            pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
        };
        // A name first: one that is all digits is a name all the same.
        let named = context.find_builder(&BuilderRef::Name(name.clone()))?;
        let builder = match (named, name.parse()) {
            (None, Ok(id)) => context.find_builder(&BuilderRef::Id(id))?,
            (named, _) => named,
        };
        let builder = builder.ok_or_else(|| ApiError::NoRow(format!("builder named `{name}`")))?;
        let last = last_verdict(context, builder.id, value("branch"))?;
        let label = value("left_text").unwrap_or(builder.name.as_str());
        Ok(picture(label, last.and_then(|build| build.results)))
    });
    let svg = match found.await {
        Ok(svg) => svg,
        Err(error) => return error.response(),
    };
    let tag = etag(svg.as_bytes());
    let known = request.headers().get(IF_NONE_MATCH).is_some_and(|given| *given == tag.as_str());
    let status = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = HttpResponse::build(status);
    // Pages that show it go through caches, which must ask each time.
    response.insert_header((CACHE_CONTROL, "no-cache")).insert_header((ETAG, tag));
    if known {
        return response.finish();
    }
    response
        .insert_header((CONTENT_TYPE, "image/svg+xml"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
        .body(svg)
}
