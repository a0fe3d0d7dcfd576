//! Resources of our own beside the Data API: the board, reloads, health.

use std::path::PathBuf;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::context::WebContext;
use super::rpc::{self, RpcError};
use crate::messages::{Reload, ReloadReport};

/// The board as JSON.
#[must_use]
pub fn board(context: &WebContext) -> Value {
    let shown = context.board.all();
    let builders: Map<String, Value> = shown
        .builders
        .iter()
        .map(|(name, view)| (name.to_string(), json!(view.as_ref())))
        .collect();
    let workers: Map<String, Value> =
        shown.workers.iter().map(|(name, view)| (name.to_string(), json!(view.as_ref()))).collect();
    let refused: Map<String, Value> =
        shown.refused.iter().map(|(name, refused)| (name.to_string(), json!(refused))).collect();
    json!({
        "builders": builders,
        "workers": workers,
        "refused": refused,
        "ignored": shown.ignored,
        "draining": shown.draining,
        "store": shown.store,
        "warnings": shown.warnings,
        "events": { "next_seq": context.events.next_seq(), "dropped": context.events.dropped() },
    })
}

/// What a reload is asked with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// Only tell.
    #[serde(default)]
    dry: bool,
    /// Absolute path of a file to plan for instead of the master's own.
    #[serde(default)]
    config: Option<PathBuf>,
}

/// Reloads the configuration, or plans a reload.
pub async fn reload(
    request: &HttpRequest,
    payload: Payload,
    context: &Data<WebContext>,
) -> HttpResponse {
    match reloaded(request, payload, context).await {
        Ok(report) => HttpResponse::Ok().json(report),
        Err(error) => error.response(None),
    }
}

async fn reloaded(
    request: &HttpRequest,
    payload: Payload,
    context: &Data<WebContext>,
) -> Result<ReloadReport, RpcError> {
    super::check_order(request)?;
    let bytes = super::body(payload, super::BODY).await?;
    let ask: Ask = serde_json::from_slice(&bytes)
        .map_err(|error| RpcError::invalid(format!("bad reload request: {error}")))?;
    let settings = match ask.config {
        None => None,
        Some(_) if !ask.dry => {
            let text = "`config` goes with `\"dry\": true` only: the master applies no file \
                        but its own";
            return Err(RpcError::invalid(text));
        }
        Some(file) if !file.is_absolute() => {
            return Err(RpcError::invalid("`config` must be an absolute path"));
        }
        Some(file) => {
            let shown = file.display().to_string();
            let load = context.load_settings.clone();
            let read = rpc::blocking(context, move |_| Ok(load(&file))).await?;
            match read {
                Ok(settings) => Some(Box::new(settings)),
                Err(problems) => {
                    return Ok(ReloadReport { file: shown, problems, ..ReloadReport::default() });
                }
            }
        }
    };
    Ok(context.handle.reload(Reload { dry: ask.dry, settings }).await?)
}

/// The process answers.
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "live": true }))
}

/// The master does its work: it can read its store and does not drain.
pub async fn ready(context: Data<WebContext>) -> HttpResponse {
    let draining = context.board.all().draining;
    let full = context.board.store().full;
    let store = rpc::blocking(&context, |context| Ok(context.reader.check()?)).await;
    let reason = match (&store, draining) {
        (Err(error), _) => Some(error.to_string()),
        (Ok(()), true) => Some("the master drains: it starts no new builds".into()),
        // It serves, and builds that run go on; no new ones start.
        (Ok(()), false) => full,
    };
    let status = match reason {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    HttpResponse::build(status).json(json!({ "ready": reason.is_none(), "reason": reason }))
}
