//! The shapes of resources, for the API and for the event stream alike.

use serde_json::{Map, Value, json};

use crate::core::ids::BuilderId;
use crate::core::time::WallTime;
use crate::core::values::{BuildResult, Properties};
use crate::store::{
    BuildRow, BuildState, BuilderRow, BuildsetRow, LogRow, NoteRow, RequestRow, RequestState,
    SourceStampRow, StepRow, WorkerRow,
};

/// The one master's id.
pub const MASTER: u64 = 1;

/// Properties that are worth their bytes in every event of a build: what lists
/// of builds show.
const IN_EVENTS: [&str; 7] =
    ["owner", "owners", "branch", "revision", "got_revision", "workername", "reason"];

fn seconds(time: Option<WallTime>) -> Option<i64> {
    time.map(WallTime::seconds)
}

fn code(result: Option<BuildResult>) -> Option<i64> {
    result.map(BuildResult::code)
}

/// Properties as `name: [value, source]`, those that `wanted` lets through.
pub fn properties(all: &Properties, wanted: impl Fn(&str) -> bool) -> Value {
    let shown = all.iter().filter(|(name, _)| wanted(name));
    Value::Object(
        shown
            .map(|(name, own)| (name.clone(), json!([own.value, own.source])))
            .collect::<Map<_, _>>(),
    )
}

/// A builder.
#[must_use]
pub fn builder(row: &BuilderRow) -> Value {
    let masters: &[u64] = if row.configured { &[MASTER] } else { &[] };
    json!({
        "builderid": row.id,
        "name": row.name,
        "masterids": masters,
        "description": row.description,
        "description_format": null,
        "description_html": null,
        "projectid": null,
        "tags": row.tags,
    })
}

/// A worker, with the builders that list it.
#[must_use]
pub fn worker(row: &WorkerRow, builders: &[BuilderId]) -> Value {
    let connected: &[Value] = if row.connected { &[json!({ "masterid": MASTER })] } else { &[] };
    let configured: Vec<Value> = builders
        .iter()
        .map(|builder| json!({ "masterid": MASTER, "builderid": builder }))
        .collect();
    json!({
        "workerid": row.id,
        "name": row.name,
        "connected_to": connected,
        "configured_on": configured,
        "workerinfo": row.info,
        "paused": row.paused,
        "pause_reason": row.pause_reason,
        "graceful": row.graceful,
    })
}

/// A build, with the properties that `wanted` lets through.
pub fn build(row: &BuildRow, wanted: impl Fn(&str) -> bool) -> Value {
    json!({
        "buildid": row.id,
        "number": row.number,
        "builderid": row.builder,
        "buildrequestid": row.request,
        "workerid": row.worker,
        "masterid": MASTER,
        "started_at": row.started_at.seconds(),
        "complete": row.state == BuildState::Finished,
        "complete_at": seconds(row.complete_at),
        "locks_duration_s": 0,
        "results": code(row.results),
        "state_string": row.state_string,
        "properties": properties(&row.properties, wanted),
    })
}

/// A build as its events carry it.
#[must_use]
pub fn build_in_event(row: &BuildRow) -> Value {
    build(row, |name| IN_EVENTS.contains(&name))
}

/// A build request. `properties` are those of its buildset, when asked for.
#[must_use]
pub fn request(row: &RequestRow, properties: Option<Value>) -> Value {
    let claimed = row.state != RequestState::Queued;
    let complete = matches!(row.state, RequestState::Done | RequestState::Cancelled);
    json!({
        "buildrequestid": row.id,
        "buildsetid": row.buildset,
        "builderid": row.builder,
        "priority": row.priority,
        "claimed": claimed,
        "claimed_at": seconds(row.claimed_at),
        "claimed_by_masterid": claimed.then_some(MASTER),
        "complete": complete,
        "complete_at": seconds(row.complete_at),
        "results": code(row.results).unwrap_or(-1),
        "submitted_at": row.submitted_at.seconds(),
        "waited_for": row.waited_for,
        "properties": properties,
    })
}

/// A buildset.
#[must_use]
pub fn buildset(row: &BuildsetRow) -> Value {
    json!({
        "bsid": row.id,
        "external_idstring": row.external_id,
        "reason": row.reason,
        "submitted_at": row.submitted_at.seconds(),
        "complete": row.complete_at.is_some(),
        "complete_at": seconds(row.complete_at),
        "results": code(row.results).unwrap_or(-1),
        "parent_buildid": null,
        "parent_relationship": null,
        "rebuilt_buildid": row.rebuilt_build,
        "sourcestamps": row.sourcestamps.iter().map(sourcestamp).collect::<Vec<_>>(),
    })
}

/// A source stamp.
#[must_use]
pub fn sourcestamp(row: &SourceStampRow) -> Value {
    json!({
        "ssid": row.id,
        "revision": row.stamp.revision,
        "branch": row.stamp.branch,
        "repository": row.stamp.repository,
        "project": row.stamp.project,
        "codebase": row.stamp.codebase,
        "created_at": row.created_at.seconds(),
        "patch": null,
    })
}

/// A step.
#[must_use]
pub fn step(row: &StepRow) -> Value {
    json!({
        "stepid": row.id,
        "number": row.number,
        "name": row.name,
        "buildid": row.build,
        "started_at": seconds(row.started_at),
        "locks_acquired_at": seconds(row.started_at),
        "complete": row.complete_at.is_some(),
        "complete_at": seconds(row.complete_at),
        "results": code(row.results),
        "state_string": row.state_string,
        "urls": [],
        "hidden": false,
    })
}

/// A log.
#[must_use]
pub fn log(row: &LogRow) -> Value {
    let mut shape = json!({
        "logid": row.id,
        "name": row.name,
        "slug": row.slug,
        "stepid": row.step,
        "complete": row.complete,
        "num_lines": row.num_lines,
        "type": row.kind,
    });
    // Ours: only there when there is something to say.
    if let (Some(reason), Some(fields)) = (&row.incomplete, shape.as_object_mut()) {
        fields.insert("incomplete".into(), json!(reason));
    }
    shape
}

/// A moment in a builder's life, or something with a beginning and an end.
#[must_use]
pub fn note(note: &NoteRow) -> Value {
    json!({
        "noteid": note.id,
        "builderid": note.builder,
        "workerid": note.worker,
        "text": note.text,
        "error": note.error,
        "at": note.at.seconds(),
        "ended_at": seconds(note.ended_at),
    })
}
