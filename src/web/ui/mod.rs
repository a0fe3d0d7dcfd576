//! Buildbot's own web pages, unmodified, for people who come from Buildbot:
//! their files are given with `--ui-dir` and are no part of this program. What
//! they need besides is here: their settings, in the page and as `/config`, and
//! pictures for people.

mod avatar;
mod files;

use std::path::Path;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Map, Value, json};

pub use self::files::{UiError, etag};
use self::files::{UiFile, UiFiles};
use super::context::WebContext;
use super::page;
use super::query::percent_decoded;

/// Where the pages' settings go, in their index.html.
const CONFIG_MARK: &str = " <!-- BUILDBOT_CONFIG_PLACEHOLDER -->";
/// The pages.
#[derive(Debug)]
pub struct StockUi(UiFiles);

impl StockUi {
    /// Reads their folder.
    ///
    /// # Errors
    /// When it does not hold the pages; the text says what to do.
    pub fn read(dir: &Path) -> Result<Self, UiError> {
        UiFiles::read(dir).map(Self)
    }
}

/// What the pages want to know before they begin. `here` is the address that
/// the browser asked for, with a `/` at its end.
fn config(context: &WebContext, here: &str) -> Value {
    let plugins = context.ui.as_deref().map(|ui| ui.0.plugins()).unwrap_or_default();
    let plugins: Map<String, Value> =
        plugins.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
    json!({
        "title": context.title.as_ref(),
        "titleURL": here,
        "buildbotURL": here,
        "multiMaster": false,
        "ui_default_config": {},
        "versions": [["botmaster", env!("CARGO_PKG_VERSION")]],
        "auth": { "name": "NoAuth" },
        "avatar_methods": [],
        "plugins": plugins,
        "user": { "anonymous": true },
    })
}

/// The address of this server as the browser knows it, a proxy before it
/// included.
pub fn here(request: &HttpRequest) -> String {
    let connection = request.connection_info();
    format!("{}://{}/", connection.scheme(), connection.host())
}

/// The index with the settings in it.
fn index(context: &WebContext, request: &HttpRequest, page: &UiFile) -> UiFile {
    let text = String::from_utf8_lossy(&page.bytes);
    // `</script>` in a title would end the script.
    let settings = config(context, &here(request)).to_string().replace('<', "\\u003c");
    let script =
        format!("<script id=\"bb-config\">window.buildbotFrontendConfig = {settings};</script>");
    let bytes = text.replacen(CONFIG_MARK, &script, 1).into_bytes();
    UiFile {
        etag: etag(&bytes),
        bytes: bytes.into(),
        kind: "text/html; charset=utf-8".into(),
        immutable: false,
    }
}

/// Serves `/`: the pages when there are any, else our own.
pub async fn root(request: HttpRequest, context: Data<WebContext>) -> HttpResponse {
    let page = context.ui.as_deref().and_then(|ui| ui.0.get("index.html"));
    match page {
        Some(page) => answer(&request, &index(&context, &request, page)),
        None => page::status(context).await,
    }
}

/// Serves everything that nobody else serves.
pub async fn serve(request: HttpRequest, context: Data<WebContext>) -> HttpResponse {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return HttpResponse::MethodNotAllowed().finish();
    }
    let Some(ui) = context.ui.as_deref() else {
        return HttpResponse::NotFound().finish();
    };
    // The pages ask for `//icon.svg`.
    let parts: Vec<&str> = request.path().split('/').filter(|part| !part.is_empty()).collect();
    let Some(path) = percent_decoded(&parts.join("/"), false) else {
        return HttpResponse::NotFound().finish();
    };
    match path.as_str() {
        "" => root(request, context).await,
        "config" => HttpResponse::Ok()
            .insert_header((CACHE_CONTROL, "public,max-age=0"))
            .json(config(&context, &here(&request))),
        "avatar" => avatar::draw(&request),
        path => match ui.0.get(path) {
            Some(file) => answer(&request, file),
            None => HttpResponse::NotFound().finish(),
        },
    }
}

fn answer(request: &HttpRequest, file: &UiFile) -> HttpResponse {
    let known = request
        .headers()
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| same_tag(tag.trim(), &file.etag)));
    let status = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let cache =
        if file.immutable { "public,max-age=31536000,immutable" } else { "public,max-age=0" };
    let mut response = HttpResponse::build(status);
    let fixed: [(HeaderName, HeaderValue); 3] = [
        (CACHE_CONTROL, HeaderValue::from_static(cache)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // Buttons that stop builds must not lie in somebody else's frame.
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("frame-ancestors 'none'")),
    ];
    for header in fixed {
        response.insert_header(header);
    }
    // Compressed or not, it is the same file: a weak tag.
    response.insert_header((ETAG, format!("W/{}", file.etag)));
    if known {
        return response.finish();
    }
    response.insert_header((CONTENT_TYPE, file.kind.as_str()));
    response.body(file.bytes.clone())
}

fn same_tag(given: &str, own: &str) -> bool {
    given == "*" || given.trim_start_matches("W/") == own
}
