//! The HTTP API: Buildbot's Data API v2 in shape, its event stream, a few
//! resources of our own beside it, and a plain status page.
//!
//! Handlers hold no decisions: they read the store, look at the board, or ask
//! the BotMaster and tell its answer. Deliberately absent: sign-in. Whoever
//! reaches the port may do everything, so a port that only this machine
//! reaches takes orders only from pages of its own.

mod answer;
mod badge;
mod context;
mod endpoints;
mod eta;
mod event_keys;
mod feeds;
mod field;
mod forms;
mod guard;
mod listed;
mod live;
mod log_text;
mod logs;
mod metrics;
mod openapi;
mod ours;
mod page;
mod query;
mod ranges;
mod read;
mod reasons;
mod resource;
mod route;
mod rpc;
mod shape;
mod sse;
mod ui;
mod ws;

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HeaderValue,
};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Compress, from_fn};
use actix_web::web::{self, Data, Payload};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use futures_util::StreamExt;
use nix::sys::resource::{Resource, getrlimit};
use serde_json::json;
use tokio::time::timeout;

pub use answer::ApiError;
pub use context::{LoadSettings, LogText, RawPieces, WebContext, WebState, wall_now};
pub use eta::unrecorded;
pub use sse::MAX_STREAMS;
pub use ui::{StockUi, UiError};
pub use ws::MAX_SOCKETS;

use answer::{Told, finished_response, json_response, known_marks, plain_error, told_response};
use guard::{HostGuard, check_origin, host};
use route::{Route, TextForm};
use rpc::{Call, RpcError};

use crate::store::sqlite::Listed;

/// Longest body of an ordinary request, in bytes.
const BODY: usize = 1024 * 1024;

/// Longest body of a request that may submit many builds, in bytes.
const BULK_BODY: usize = 32 * 1024 * 1024;

/// How long a request's head and each pause in its body may take, in seconds.
const CLIENT_SECONDS: u64 = 15;

/// How long open connections may go on once the server stops, in seconds.
const SHUTDOWN_SECONDS: u64 = 3;

/// Threads that serve.
const THREADS: usize = 2;

/// The most connections of each thread.
const CONNECTIONS: u64 = 2000;

/// The most connections of each thread under this limit of open files: all
/// together a quarter of them, so that browsers cannot take those that the
/// store and the workers need (fault row FM13).
fn connections(open_files: u64) -> usize {
    usize::try_from((open_files / 4 / THREADS as u64).clamp(4, CONNECTIONS)).unwrap_or(4)
}

/// Binds `address` and answers the server, which runs once it is awaited or
/// spawned, and the address it has (with the real port when 0 was asked for).
/// It leaves signals to whoever runs it; stop it by its handle. Call it within
/// an actix runtime.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve(context: WebContext, address: SocketAddr) -> std::io::Result<(Server, SocketAddr)> {
    actix_web::rt::spawn(context.state.live.clone().follow(context.events.clone()));
    actix_web::rt::spawn(context.state.counted.clone().follow(context.events.clone()));
    let guard = Data::new(HostGuard {
        only_loopback: address.ip().is_loopback(),
        origins: context.allowed_origins.clone(),
    });
    let context = Data::new(context);
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(context.clone())
            .app_data(guard.clone())
            .wrap(from_fn(guard::name_request))
            .service(web::scope("/api").wrap(Compress::default()).default_service(web::to(api)))
            .service(web::scope("/sse").default_service(web::get().to(sse::serve)))
            .service(web::scope("/ws").default_service(web::get().to(ws::serve)))
            .route("/health/live", web::get().to(ours::live))
            .route("/health/ready", web::get().to(ours::ready))
            .route("/badges/{builder}", web::get().to(badge::serve))
            .route("/plugins/badges/{builder}", web::get().to(badge::serve))
            .route("/cc.xml", web::get().to(feeds::serve_cctray))
            .route("/failures.atom", web::get().to(feeds::serve_atom))
            .route("/metrics", web::get().to(metrics::serve))
            .route("/status", web::get().to(page::status))
            .route("/", web::get().to(ui::root))
            .service(web::scope("").wrap(Compress::default()).default_service(web::to(ui::serve)))
    })
    .workers(THREADS)
    .max_connections(connections(open_files))
    .client_request_timeout(Duration::from_secs(CLIENT_SECONDS))
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .disable_signals()
    .bind(address)?;
    let bound = server.addrs().first().copied().unwrap_or(address);
    Ok((server.run(), bound))
}

/// Everything at and below `/api`.
async fn api(request: HttpRequest, payload: Payload, context: Data<WebContext>) -> HttpResponse {
    let origin = match check_origin(&request) {
        Ok(origin) => origin,
        Err(error) if request.method() == Method::POST => {
            return plain_error(error.status(), &json!({ "message": error.to_string() }));
        }
        Err(error) => return error.response(),
    };
    let mut response = match *request.method() {
        Method::GET | Method::HEAD => {
            get(&request, &context).await.unwrap_or_else(|error| error.response())
        }
        Method::POST => post(&request, payload, &context).await,
        Method::OPTIONS if origin.is_some() => preflight(&request),
        _ => plain_error(StatusCode::BAD_REQUEST, &json!("invalid HTTP method")),
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    }
    response
}

fn preflight(request: &HttpRequest) -> HttpResponse {
    let method = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD);
    let asked = method.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if ["GET", "POST", "HEAD"].contains(&asked) {
        HttpResponse::Ok().finish()
    } else {
        plain_error(StatusCode::BAD_REQUEST, &json!("invalid method"))
    }
}

/// The path below the version, or none when there is no version in it.
fn below_version(request: &HttpRequest) -> Option<&str> {
    let path = request.path();
    path.strip_prefix("/api/v2").or_else(|| path.strip_prefix("/api/latest"))
}

fn no_path(request: &HttpRequest) -> ApiError {
    let below = below_version(request).unwrap_or(request.path());
    ApiError::NoPath(below.trim_start_matches('/').to_owned())
}

async fn get(request: &HttpRequest, context: &Data<WebContext>) -> Result<HttpResponse, ApiError> {
    if request.path() == "/api" {
        let host = host(request).unwrap_or_else(|| "localhost".into());
        let versions = json!({ "v2": format!("http://{host}/api/v2") });
        return Ok(HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "application/json"))
            .body(json!({ "api_versions": versions }).to_string()));
    }
    let below = below_version(request).ok_or_else(|| no_path(request))?;
    let pairs = query::pairs(request.query_string())?;
    if below.is_empty() {
        return Ok(json_response(request, &read::roots(&pairs)?.into_json()?));
    }
    let path = below.strip_prefix('/').ok_or_else(|| no_path(request))?;
    let route = Route::parse(path).ok_or_else(|| no_path(request))?;
    let lasting = Lasting::of(&route);
    let told = match route {
        Route::Board => Told::Value(ours::board(context)),
        // Orders are sent there; there is nothing to read.
        Route::Reload => return Err(no_path(request)),
        Route::BuildDatumValue(of, name) => {
            let found = rpc::blocking(context, move |context| {
                listed::build_data(context, &of, &name).map(|bytes| (name, bytes))
            });
            let (name, bytes) = found.await?;
            return Ok(listed::datum(&name, bytes));
        }
        Route::OpenApi => Told::Value(openapi::document().clone()),
        Route::LogText(of, form @ (TextForm::Raw | TextForm::RawInline)) => {
            let range = request.headers().get(actix_web::http::header::RANGE);
            let range = range.and_then(|value| value.to_str().ok()).map(str::to_owned);
            let known = known_marks(request);
            let raw = rpc::blocking(context, move |context| {
                logs::open_raw(context, &of, range.as_deref(), &known)
            });
            return Ok(raw.await?.response(form));
        }
        Route::LogText(of, TextForm::Contents) => {
            let text = rpc::blocking(context, move |context| logs::contents(context, &of, &pairs));
            let (answer, complete) = text.await?;
            if complete {
                return Ok(finished_response(request, &answer.into_json()?));
            }
            Told::Answer(answer)
        }
        _ => rpc::blocking(context, move |context| told(context, &route, &pairs)).await?,
    };
    if lasting == Lasting::Not {
        return told_response(request, told);
    }
    let value = match told {
        Told::Answer(answer) => answer.into_json()?,
        Told::Value(value) => value,
    };
    if lasting == Lasting::Always || is_complete(&value) {
        return Ok(finished_response(request, &value));
    }
    Ok(json_response(request, &value))
}

/// What a path names, as far as it tells whether an answer can change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// Never.
    Always,
    /// Once what it names is complete.
    Once,
    /// It can.
    Not,
}

impl Lasting {
    fn of(route: &Route) -> Self {
        match route {
            Route::Stamp(_) | Route::Spec | Route::OpenApi | Route::Row(Listed::Changes, _) => {
                Self::Always
            }
            Route::Build(_)
            | Route::Request(_)
            | Route::Buildset(_)
            | Route::Step(_)
            | Route::Log(_) => Self::Once,
            _ => Self::Not,
        }
    }
}

/// Whether everything in an envelope is complete.
fn is_complete(value: &serde_json::Value) -> bool {
    let lists = value.as_object().into_iter().flat_map(serde_json::Map::values);
    lists.filter_map(serde_json::Value::as_array).flatten().all(|one| one["complete"] == true)
}

fn told(context: &WebContext, route: &Route, pairs: &[(String, String)]) -> Result<Told, ApiError> {
    Ok(Told::Value(match route {
        Route::BuildProgress(of) => read::progress(context, of)?,
        Route::BuilderExpectations(of) => eta::expectations(context, of)?,
        Route::Etas => eta::etas(context, pairs)?,
        Route::RequestReasons(id) => reasons::answer(context, *id)?,
        _ => return Ok(Told::Answer(read::answer(context, route, pairs)?)),
    }))
}

/// Collects a body of at most `limit` bytes.
async fn body(mut payload: Payload, limit: usize) -> Result<Vec<u8>, RpcError> {
    let mut bytes = Vec::new();
    let pause = Duration::from_secs(CLIENT_SECONDS);
    let stalled = |_| RpcError::invalid("the body stopped coming; send it again");
    while let Some(piece) = timeout(pause, payload.next()).await.map_err(stalled)? {
        let piece = piece.map_err(|error| RpcError::invalid(error.to_string()))?;
        if bytes.len() + piece.len() > limit {
            return Err(RpcError::too_long(limit));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// What every order needs: a `Host` of ours and JSON.
///
/// # Errors
/// When one of them is missing.
fn check_order(request: &HttpRequest) -> Result<(), RpcError> {
    if request.app_data::<Data<HostGuard>>().is_none_or(|guard| !guard.lets(request)) {
        let text = "invalid host: this server takes orders only by the name localhost \
                    or a loopback address";
        return Err(RpcError::invalid(text));
    }
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let plain = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if plain != Some("application/json") {
        return Err(RpcError::invalid("Invalid content-type (use application/json)"));
    }
    Ok(())
}

async fn post(request: &HttpRequest, payload: Payload, context: &Data<WebContext>) -> HttpResponse {
    let path = below_version(request).and_then(|below| below.strip_prefix('/'));
    let route = path.and_then(Route::parse);
    if route == Some(Route::Reload) {
        return ours::reload(request, payload, context).await;
    }
    let mut id = None;
    match answer_call(request, payload, context, route, &mut id).await {
        Ok(response) => response,
        Err(error) => error.response(id.as_ref()),
    }
}

async fn answer_call(
    request: &HttpRequest,
    payload: Payload,
    context: &Data<WebContext>,
    route: Option<Route>,
    id: &mut Option<serde_json::Value>,
) -> Result<HttpResponse, RpcError> {
    check_order(request)?;
    let limit = if matches!(route, Some(Route::Form(_))) { BULK_BODY } else { BODY };
    let bytes = body(payload, limit).await?;
    let call = Call::read(&bytes)?;
    *id = Some(call.id.clone());
    let route = route.ok_or_else(|| RpcError::from(no_path(request)))?;
    let result = call.perform(context, route).await?;
    let body = json!({ "id": call.id, "jsonrpc": "2.0", "result": result });
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body(body.to_string()))
}
