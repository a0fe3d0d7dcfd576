//! `buildrequests/N/reasons`: why a build request waits, worker by worker, and
//! when it is expected to start.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::answer::ApiError;
use super::context::WebContext;
use super::eta::Etas;
use super::read::not_found;
use crate::core::builder::{QUEUED, named_worker};
use crate::core::ids::{RequestId, WorkerId};
use crate::core::waits::{Candidate, Whole, of_worker, summary};
use crate::store::{RequestState, WorkerRow};

/// Answers it. Of a request that does not wait there is nothing to tell.
///
/// # Errors
/// When there is no such request or the store cannot be read.
pub fn answer(context: &WebContext, id: u64) -> Result<Value, ApiError> {
    let reader = &context.reader;
    let found = reader.request(RequestId(id))?;
    let request = found.ok_or_else(|| not_found(format_args!("build request {id}")))?;
    let state = match request.state {
        RequestState::Queued => "waiting",
        RequestState::Claimed => "building",
        RequestState::Done => "complete",
        RequestState::Cancelled => "cancelled",
    };
    if request.state != RequestState::Queued {
        return Ok(json!({
            "buildrequestid": id, "state": state, "reason": null, "ahead": null, "workers": [],
            "start": null,
        }));
    }
    let builder = reader.builder(request.builder)?;
    let builder = builder.ok_or_else(|| not_found(format_args!("builder of request {id}")))?;
    let properties = reader.buildset_properties(request.buildset)?.unwrap_or_default();
    let wanted = named_worker(&properties);
    let shown = context.board.all();
    let view = shown.builders.get(&builder.name).map(AsRef::as_ref);
    let view = view.filter(|_| builder.configured);

    let own: BTreeSet<WorkerId> = builder.workers.iter().copied().collect();
    let rows = reader.workers()?;
    let named = |row: &&WorkerRow| own.contains(&row.id) || wanted.as_ref() == Some(&row.name);
    let mut told = Vec::new();
    let mut workers = Vec::new();
    for row in rows.iter().filter(named) {
        let candidate = Candidate {
            name: &row.name,
            possible: row.configured && own.contains(&row.id) && builder.configured,
            pause_reason: row.pause_reason.as_deref(),
            view: shown.workers.get(&row.name).map(AsRef::as_ref),
        };
        let Some(view) = view else { continue };
        let reason = of_worker(view, &candidate, wanted.as_ref());
        workers.push(json!({
            "workerid": row.id, "name": reason.name, "reason": reason.reason, "text": reason.text,
        }));
        told.push(reason);
    }
    let waiting = reader.waiting(builder.id, QUEUED)?;
    let ahead = waiting.iter().position(|(one, _)| *one == request.id);
    let mut start = Value::Null;
    if let Some(view) = view {
        let queue = Etas::new(context).queue(view)?;
        if let Some((_, _, eta)) = queue.into_iter().find(|(one, _, _)| *one == request.id) {
            start = json!(eta.start);
        }
    }
    let whole = Whole { draining: shown.draining, full: shown.store.full.as_deref() };
    Ok(json!({
        "buildrequestid": id,
        "state": state,
        "reason": summary(view, &whole, wanted.as_ref(), &told),
        // Null when there are more than anybody counts.
        "ahead": ahead,
        "workers": workers,
        "start": start,
    }))
}
