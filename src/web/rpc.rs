//! `POST`: JSON-RPC 2.0 controls. A control finds what its path names, asks
//! the BotMaster and tells its answer.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Data, block};
use serde_json::{Map, Value, json};

use super::answer::ApiError;
use super::context::WebContext;
use super::forms::{self, FormError};
use super::route::{BuildRef, BuilderRef, Route, WorkerRef};
use crate::core::ids::{BuilderName, RequestId};
use crate::messages::*;
use crate::store::BuildRow;
use crate::store::sqlite::{Filter, Listed, Page};

const INVALID_REQUEST: i64 = -32600;
const NO_METHOD: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INSIDE: i64 = -32603;
const PARSE: i64 = -32700;

/// How often a request is cancelled that is between its queue and a build each
/// time somebody looks.
const CANCEL_TRIES: usize = 3;

/// An error in the shape of JSON-RPC, with its HTTP status.
#[derive(Clone, PartialEq, Debug)]
pub struct RpcError {
    /// HTTP status.
    pub status: StatusCode,
    /// JSON-RPC code.
    pub code: i64,
    /// A text, or texts by field.
    pub message: Value,
}

impl RpcError {
    fn new(status: StatusCode, code: i64, message: impl Into<Value>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The request itself is bad.
    #[must_use]
    pub fn invalid(message: impl Into<Value>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message)
    }

    /// There is no such thing.
    fn missing(message: impl Into<Value>) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message)
    }

    /// The body is longer than `limit` bytes.
    #[must_use]
    pub fn too_long(limit: usize) -> Self {
        let text = format!("the body is longer than {limit} bytes; send it in parts");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, text)
    }

    fn param(name: &str, text: &str) -> Self {
        let message = json!({ name: text });
        Self::new(StatusCode::BAD_REQUEST, INVALID_PARAMS, message)
    }

    /// As an answer; `id` as the request had it, if that could be read.
    #[must_use]
    pub fn response(&self, id: Option<&Value>) -> HttpResponse {
        let error = json!({ "code": self.code, "message": self.message });
        let mut body = json!({ "jsonrpc": "2.0", "error": error });
        if let (Some(object), Some(id)) = (body.as_object_mut(), id) {
            object.insert("id".into(), id.clone());
        }
        HttpResponse::build(self.status)
            .insert_header((CONTENT_TYPE, "application/json"))
            .body(body.to_string())
    }
}

impl From<ApiError> for RpcError {
    fn from(error: ApiError) -> Self {
        let code = if error.status().is_server_error() { INSIDE } else { INVALID_REQUEST };
        Self::new(error.status(), code, error.to_string())
    }
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match &refusal {
            Refusal::NoSuchBuilder(_)
            | Refusal::NoSuchScheduler(_)
            | Refusal::NoSuchWorker(_)
            | Refusal::NoSuchBuild(_)
            | Refusal::NoSuchRequest(_) => (StatusCode::NOT_FOUND, INVALID_REQUEST),
            Refusal::NoWorker(_) | Refusal::NotAttached(_) | Refusal::NotBroken(_) => {
                (StatusCode::CONFLICT, INVALID_REQUEST)
            }
            Refusal::NotItsWorker { .. } => (StatusCode::BAD_REQUEST, INVALID_PARAMS),
            Refusal::QueueFull { .. } => (StatusCode::TOO_MANY_REQUESTS, INVALID_REQUEST),
            Refusal::Broken { .. } | Refusal::Stopping | Refusal::Gone => {
                (StatusCode::SERVICE_UNAVAILABLE, INSIDE)
            }
            Refusal::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, INSIDE),
            Refusal::Timeout => (StatusCode::GATEWAY_TIMEOUT, INSIDE),
        };
        Self::new(status, code, refusal.to_string())
    }
}

/// A call that was read.
pub struct Call {
    /// Goes back with the answer.
    pub id: Value,
    method: String,
    params: Map<String, Value>,
}

impl Call {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is no JSON-RPC 2.0 request. The answer has no id then.
    pub fn read(body: &[u8]) -> Result<Self, RpcError> {
        let parsed: Value = serde_json::from_slice(body).map_err(|error| {
            let text = format!("JSON parse error: {error}");
            RpcError::new(StatusCode::BAD_REQUEST, PARSE, text)
        })?;
        let mut object = match parsed {
            Value::Object(object) => object,
            Value::Array(_) => {
                return Err(RpcError::invalid("JSONRPC batch requests are not supported"));
            }
            _ => return Err(RpcError::invalid("JSONRPC root object must be an object")),
        };
        let mut part = |name: &str| {
            let missing = || RpcError::invalid(format!("missing key '{name}'"));
            object.remove(name).ok_or_else(missing)
        };
        let version = part("jsonrpc")?;
        let method = part("method")?;
        let id = part("id")?;
        let params = part("params")?;
        if version.as_str() != Some("2.0") {
            return Err(RpcError::invalid("only JSONRPC 2.0 is supported"));
        }
        let Value::String(method) = method else {
            return Err(RpcError::invalid("'method' must be a string"));
        };
        let Value::Object(params) = params else {
            return Err(RpcError::invalid("'params' must be an object"));
        };
        if !(id.is_string() || id.is_i64() || id.is_u64() || id.is_null()) {
            return Err(RpcError::invalid("'id' must be a string, number, or null"));
        }
        Ok(Self { id, method, params })
    }

    fn reason(&self) -> Result<String, RpcError> {
        match self.params.get("reason") {
            None | Some(Value::Null) => Ok("no reason".into()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(RpcError::param("reason", "must be text")),
        }
    }

    fn unknown(&self) -> RpcError {
        let text = format!("action: {} is not supported", self.method);
        RpcError::new(StatusCode::NOT_IMPLEMENTED, NO_METHOD, text)
    }

    /// Does what is asked, and answers the result.
    ///
    /// # Errors
    /// When the method is unknown here, a parameter is bad, or the BotMaster
    /// refuses.
    pub async fn perform(
        &self,
        context: &Data<WebContext>,
        route: Route,
    ) -> Result<Value, RpcError> {
        match (route, self.method.as_str()) {
            (Route::Form(name), "force") => self.force(context, name).await,
            (Route::Build(of), "stop") => self.stop(context, of).await,
            (Route::Build(of), "rebuild") => self.rebuild(context, of).await,
            (Route::Request(id), "cancel") => self.cancel(context, id).await,
            (Route::Request(id), "set_priority") => self.set_priority(context, id).await,
            (Route::Row(Listed::Schedulers, filters), "enable") => {
                self.enable(context, filters).await
            }
            (Route::Builder(of), "ping") => ping(context, of).await,
            (Route::Builder(of), "restart") => restart(context, of).await,
            (Route::Worker(of), "pause") => self.order(context, of, WorkerOrder::Pause).await,
            (Route::Worker(of), "unpause") => self.order(context, of, WorkerOrder::Unpause).await,
            (Route::Worker(of), "stop") => self.order(context, of, WorkerOrder::Drain).await,
            (Route::Worker(of), "kill") => self.order(context, of, WorkerOrder::Shutdown).await,
            _ => Err(self.unknown()),
        }
    }

    async fn force(&self, context: &Data<WebContext>, name: String) -> Result<Value, RpcError> {
        let found = context.board.forms().into_iter().find(|form| form.name == name);
        let form = found.ok_or_else(|| {
            RpcError::missing(format!("there is no force scheduler named `{name}`"))
        })?;
        let read =
            |context: &WebContext| Ok((context.reader.builders()?, context.disabled_schedulers()?));
        let (builders, disabled) = blocking(context, read).await?;
        if disabled.contains(&name) {
            let text = format!("force scheduler `{name}` is disabled");
            return Err(RpcError::new(StatusCode::CONFLICT, INVALID_REQUEST, text));
        }
        let submissions =
            forms::submissions(&form, &self.params, &builders).map_err(|error| match error {
                FormError::Fields(fields) => {
                    RpcError::new(StatusCode::BAD_REQUEST, INVALID_PARAMS, Value::Object(fields))
                }
                FormError::NoBuilder(text) => RpcError::missing(text),
            })?;
        let many = self.params.contains_key("requests");
        let stored = context.handle.submit(submissions).await?;
        let mut results = stored.iter().map(submitted);
        if many {
            return Ok(Value::Array(results.collect()));
        }
        Ok(results.next().unwrap_or_default())
    }

    async fn stop(&self, context: &Data<WebContext>, of: BuildRef) -> Result<Value, RpcError> {
        let reason = self.reason()?;
        let found = build_and_builder(context, of).await?;
        // A build that is not there is stopped already.
        if let Some((build, builder)) = found {
            context.handle.stop(StopBuild { build: build.id, builder, reason }).await?;
        }
        Ok(Value::Null)
    }

    async fn rebuild(&self, context: &Data<WebContext>, of: BuildRef) -> Result<Value, RpcError> {
        let reason = match self.params.get("reason") {
            None | Some(Value::Null) => "rebuild".to_owned(),
            Some(_) => self.reason()?,
        };
        let missing = RpcError::missing(format!("there is no {of}"));
        let Some((build, builder)) = build_and_builder(context, of).await? else {
            return Err(missing);
        };
        if build.results.is_none() {
            let text = format!(
                "build {} has not ended; wait for its end or stop it, then rebuild it",
                build.id
            );
            return Err(RpcError::new(StatusCode::CONFLICT, INVALID_REQUEST, text));
        }
        let request = build.request;
        let set = blocking(context, move |context| {
            let Some(row) = context.reader.request(request)? else {
                return Ok(None);
            };
            Ok(context.reader.buildset(row.buildset)?.map(|set| (set, row.priority)))
        });
        let Some((set, priority)) = set.await? else {
            return Err(missing);
        };
        let got = build.properties.get("got_revision").map(|own| own.value.text());
        let sourcestamps = set
            .sourcestamps
            .into_iter()
            .map(|row| {
                let mut stamp = row.stamp;
                // The very source that the first build had.
                stamp.revision = stamp.revision.or_else(|| got.as_deref().map(str::to_owned));
                stamp
            })
            .collect();
        let submission = Submission {
            builders: vec![builder],
            priority,
            reason,
            scheduler: "rebuild".into(),
            external_id: None,
            idempotency_key: None,
            properties: Arc::clone(&set.properties),
            sourcestamps,
            rebuilt_build: Some(set.rebuilt_build.unwrap_or(build.id)),
            soon: false,
        };
        let stored = context.handle.submit(vec![submission]).await?;
        Ok(stored.first().map(submitted).unwrap_or_default())
    }

    async fn cancel(&self, context: &Data<WebContext>, id: u64) -> Result<Value, RpcError> {
        let reason = self.reason()?;
        let (request, builder) = request_and_builder(context, id).await?;
        for _ in 0..CANCEL_TRIES {
            let cancel =
                CancelRequest { request, builder: builder.clone(), reason: reason.clone() };
            if context.handle.cancel(cancel).await? {
                break;
            }
            // It ended, or a build has it whose start was sent.
            let found =
                blocking(context, move |context| Ok(context.reader.open_build_of(request)?));
            let Some((build, requests)) = found.await? else {
                let find = move |context: &WebContext| Ok(context.reader.request(request)?);
                match blocking(context, find).await? {
                    // It waits again meanwhile: it can be cancelled after all.
                    Some(row) if row.results.is_none() => continue,
                    _ => break,
                }
            };
            let others = requests.into_iter().filter(|other| *other != request);
            let others: Vec<_> = others.map(|other| other.to_string()).collect();
            if !others.is_empty() {
                return Err(shared(&build, &builder, request, &others));
            }
            let stop = StopBuild { build: build.id, builder: builder.clone(), reason };
            context.handle.stop(stop).await?;
            break;
        }
        Ok(Value::Null)
    }

    async fn set_priority(&self, context: &Data<WebContext>, id: u64) -> Result<Value, RpcError> {
        let priority = self
            .params
            .get("priority")
            .and_then(Value::as_i64)
            .ok_or_else(|| RpcError::param("priority", "must be a whole number"))?;
        let (request, builder) = request_and_builder(context, id).await?;
        context.handle.set_priority(SetPriority { request, builder, priority }).await?;
        Ok(Value::Null)
    }

    async fn enable(&self, context: &Data<WebContext>, of: Vec<Filter>) -> Result<Value, RpcError> {
        let enabled = self.params.get("enabled").and_then(Value::as_bool);
        let enabled = enabled.ok_or_else(|| RpcError::param("enabled", "must be true or false"))?;
        let find = |context: &WebContext| {
            Ok(context
                .reader
                .listed(Listed::Schedulers, &Page { filters: of, ..Page::default() })?)
        };
        let row = blocking(context, find).await?.rows.pop();
        let id = row.and_then(|row| row.get("schedulerid").and_then(Value::as_u64));
        let scheduler = id.ok_or_else(|| RpcError::missing("there is no such scheduler"))?;
        context.handle.set_scheduler(SetScheduler { scheduler, enabled }).await?;
        Ok(Value::Null)
    }

    async fn order(
        &self,
        context: &Data<WebContext>,
        of: WorkerRef,
        order: WorkerOrder,
    ) -> Result<Value, RpcError> {
        let reason = self.reason()?;
        let missing = format!("there is no {of}");
        let found = blocking(context, move |context| context.find_worker(&of)).await?;
        let worker = found.ok_or_else(|| RpcError::missing(missing))?.name;
        context.handle.order(OrderWorker { worker, order, reason }).await?;
        Ok(Value::Null)
    }
}

/// A build goes on for the others that it has.
fn shared(
    build: &BuildRow,
    builder: &BuilderName,
    request: RequestId,
    others: &[String],
) -> RpcError {
    let known = match build.number {
        Some(number) => format!("build {builder}/{number} (id {})", build.id),
        None => format!("the build with the id {} of builder {builder}", build.id),
    };
    let (many, others) = (if others.len() > 1 { "s" } else { "" }, others.join(", "));
    let text = format!(
        "build request {request} is not cancelled: {known} has started for it together with \
         build request{many} {others}; stop that build to end all of them: \
         botmaster stop {}",
        build.id
    );
    RpcError::new(StatusCode::CONFLICT, INVALID_REQUEST, text)
}

async fn builder_name(context: &Data<WebContext>, of: BuilderRef) -> Result<BuilderName, RpcError> {
    let missing = format!("there is no {of}");
    let found = blocking(context, move |context| context.find_builder(&of)).await?;
    Ok(found.ok_or_else(|| RpcError::missing(missing))?.name)
}

async fn ping(context: &Data<WebContext>, of: BuilderRef) -> Result<Value, RpcError> {
    let builder = builder_name(context, of).await?;
    Ok(context.handle.ping(builder).await?.into())
}

async fn restart(context: &Data<WebContext>, of: BuilderRef) -> Result<Value, RpcError> {
    let builder = builder_name(context, of).await?;
    context.handle.restart(builder).await?;
    Ok(Value::Null)
}

/// `[bsid, {"<builderid>": requestid}]`.
fn submitted(stored: &Submitted) -> Value {
    let requests: Map<String, Value> = stored
        .requests
        .iter()
        .map(|(builder, request)| (builder.to_string(), request.0.into()))
        .collect();
    json!([stored.buildset, requests])
}

/// Runs a reading piece where it may block.
///
/// # Errors
/// Those of the piece.
pub async fn blocking<T: Send + 'static>(
    context: &Data<WebContext>,
    piece: impl FnOnce(&WebContext) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let context = context.clone();
    block(move || piece(context.get_ref()))
        .await
        .unwrap_or_else(|_| Err(ApiError::Inside("the master is stopping".into())))
}

async fn build_and_builder(
    context: &Data<WebContext>,
    of: BuildRef,
) -> Result<Option<(BuildRow, BuilderName)>, ApiError> {
    blocking(context, move |context| {
        let Some(build) = context.find_build(&of)? else {
            return Ok(None);
        };
        let builder = context.reader.builder(build.builder)?;
        Ok(builder.map(|builder| (build, builder.name)))
    })
    .await
}

async fn request_and_builder(
    context: &Data<WebContext>,
    id: u64,
) -> Result<(RequestId, BuilderName), RpcError> {
    let found = blocking(context, move |context| {
        let Some(request) = context.reader.request(RequestId(id))? else {
            return Ok(None);
        };
        let builder = context.reader.builder(request.builder)?;
        Ok(builder.map(|builder| (request.id, builder.name)))
    });
    let found = found.await?;
    found.ok_or_else(|| RpcError::missing(format!("there is no build request {id}")))
}
