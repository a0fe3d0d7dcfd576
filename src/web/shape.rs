//! The shapes of resources, for the API and for the event stream alike.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::field::{Binary, Identifier, Json, Ours, Sourced, Time};
use super::resource as is;

use crate::core::ids::BuilderId;
use crate::core::time::WallTime;
use crate::core::values::{BuildResult, Properties, Property};
use crate::store::{
    BuildRow, BuildState, BuilderRow, BuildsetRow, LogRow, NoteRow, PatchRow, RequestRow,
    RequestState, SchedulerRow, SourceStampRow, StepRow, StepUrl, WorkerRow,
};

/// The one master's id.
pub const MASTER: u64 = 1;

/// Properties that are worth their bytes in every event of a build: what lists
/// of builds show.
const IN_EVENTS: [&str; 7] =
    ["owner", "owners", "branch", "revision", "got_revision", "workername", "reason"];

fn seconds(time: WallTime) -> Time {
    Time(time.seconds())
}

fn value(resource: impl Serialize) -> Value {
    // None of them has a key that is no text, so this cannot fail.
    serde_json::to_value(resource).unwrap_or_default()
}

fn code(result: Option<BuildResult>) -> Option<i64> {
    result.map(BuildResult::code)
}

/// Properties as `name: [value, source]`, those that `wanted` lets through.
pub fn properties(all: &Properties, wanted: impl Fn(&str) -> bool) -> Value {
    Value::Object(sourced(all, wanted).0)
}

fn sourced(all: &Properties, wanted: impl Fn(&str) -> bool) -> Sourced {
    let shown = all.iter().filter(|(name, _)| wanted(name));
    let pair = |(name, own): (&String, &Property)| (name.clone(), json!([own.value, own.source]));
    Sourced(shown.map(pair).collect::<Map<_, _>>())
}

/// Properties one by one, each value written as JSON.
#[must_use]
pub fn property_list(all: &Properties) -> Vec<Value> {
    let one = |(name, own): (&String, &Property)| is::NamedProperty {
        name: name.clone(),
        source: own.source.clone(),
        value: Json(own.value.json().to_string().into()),
    };
    all.iter().map(one).map(value).collect()
}

/// The master.
#[must_use]
pub fn master(name: &str, now: WallTime) -> is::Master {
    is::Master { masterid: MASTER, name: name.to_owned(), active: true, last_active: seconds(now) }
}

/// A builder.
#[must_use]
pub fn builder(row: &BuilderRow) -> Value {
    value(is::Builder {
        builderid: row.id.0,
        name: row.name.to_string(),
        masterids: if row.configured { vec![MASTER] } else { Vec::new() },
        description: row.description.clone(),
        description_format: row.about.description_format.clone(),
        description_html: row.about.description_html.clone(),
        projectid: row.about.project,
        tags: row.tags.clone(),
    })
}

/// A worker, with the builders that list it.
#[must_use]
pub fn worker(row: &WorkerRow, builders: &[BuilderId]) -> Value {
    let on = |builder: &BuilderId| is::MasterBuilder { masterid: MASTER, builderid: builder.0 };
    value(is::Worker {
        workerid: row.id.0,
        name: row.name.to_string(),
        connected_to: row
            .connected
            .then_some(is::MasterId { masterid: MASTER })
            .into_iter()
            .collect(),
        configured_on: builders.iter().map(on).collect(),
        workerinfo: Json(json!(row.info)),
        paused: row.paused,
        pause_reason: row.pause_reason.clone(),
        graceful: row.graceful,
    })
}

/// A build, with the properties that `wanted` lets through.
pub fn build(row: &BuildRow, wanted: impl Fn(&str) -> bool) -> is::Build {
    is::Build {
        buildid: row.id.0,
        number: row.number.map_or(0, |number| number.0),
        builderid: row.builder.0,
        buildrequestid: row.request.0,
        workerid: row.worker.0,
        masterid: MASTER,
        started_at: seconds(row.started_at),
        complete: row.state == BuildState::Finished,
        complete_at: row.complete_at.map(seconds),
        locks_duration_s: 0,
        results: code(row.results),
        state_string: row.state_string.clone(),
        properties: Some(sourced(&row.properties, wanted)),
    }
}

/// A build as its events carry it.
#[must_use]
pub fn build_in_event(row: &BuildRow) -> Value {
    value(build(row, |name| IN_EVENTS.contains(&name)))
}

/// A build request, with the properties of its buildset when asked for.
#[must_use]
pub fn request(row: &RequestRow, properties: Option<Sourced>) -> is::BuildRequest {
    let claimed = row.state != RequestState::Queued;
    let complete = matches!(row.state, RequestState::Done | RequestState::Cancelled);
    // One that was cancelled before a build had it counts as claimed then.
    let claimed_at = row.claimed_at.or(row.complete_at).filter(|_| claimed);
    is::BuildRequest {
        buildrequestid: row.id.0,
        buildsetid: row.buildset.0,
        builderid: row.builder.0,
        priority: row.priority,
        claimed,
        claimed_at: claimed_at.map(seconds),
        claimed_by_masterid: claimed.then_some(MASTER),
        complete,
        results: Some(code(row.results).unwrap_or(-1)),
        submitted_at: seconds(row.submitted_at),
        complete_at: row.complete_at.map(seconds),
        waited_for: row.waited_for,
        properties,
    }
}

/// Properties as a resource's field, those that `wanted` lets through.
pub fn some_properties(all: &Properties, wanted: impl Fn(&str) -> bool) -> Sourced {
    sourced(all, wanted)
}

/// A buildset.
#[must_use]
pub fn buildset(row: &BuildsetRow) -> is::Buildset {
    let parent = row.parent.as_ref();
    is::Buildset {
        bsid: row.id.0,
        external_idstring: row.external_id.clone(),
        reason: row.reason.clone(),
        rebuilt_buildid: row.rebuilt_build.map(|build| build.0),
        submitted_at: row.submitted_at.seconds(),
        complete: row.complete_at.is_some(),
        complete_at: row.complete_at.map(WallTime::seconds),
        results: Some(code(row.results).unwrap_or(-1)),
        sourcestamps: row.sourcestamps.iter().map(stamp).collect(),
        parent_buildid: parent.map(|parent| parent.build.0),
        parent_relationship: parent.and_then(|parent| parent.relationship.clone()),
    }
}

fn stamp(row: &SourceStampRow) -> is::SourceStamp {
    let patch = |patch: &Arc<PatchRow>| is::Patch {
        patchid: patch.id,
        body: Binary(patch.body.clone()),
        level: patch.level,
        subdir: patch.subdir.clone(),
        author: patch.author.clone(),
        comment: patch.comment.clone(),
    };
    is::SourceStamp {
        ssid: row.id,
        revision: row.stamp.revision.clone(),
        branch: row.stamp.branch.clone(),
        repository: row.stamp.repository.clone(),
        project: row.stamp.project.clone(),
        codebase: row.stamp.codebase.clone(),
        patch: row.patch.as_ref().map(patch),
        created_at: seconds(row.created_at),
    }
}

/// A source stamp.
#[must_use]
pub fn sourcestamp(row: &SourceStampRow) -> is::SourceStamp {
    stamp(row)
}

/// A step.
#[must_use]
pub fn step(row: &StepRow) -> is::Step {
    let url = |url: &StepUrl| is::Url { name: url.name.clone(), url: url.url.clone() };
    let locked_at = row.about.locks_acquired_at.or(row.started_at);
    is::Step {
        stepid: row.id.0,
        number: row.number.into(),
        name: Identifier(row.name.clone()),
        buildid: row.build.0,
        started_at: row.started_at.map(seconds),
        locks_acquired_at: locked_at.map(seconds),
        complete: row.complete_at.is_some(),
        complete_at: row.complete_at.map(seconds),
        results: code(row.results),
        state_string: row.state_string.clone(),
        urls: row.about.urls.iter().map(url).collect(),
        hidden: row.about.hidden,
    }
}

/// A log.
#[must_use]
pub fn log(row: &LogRow) -> is::Log {
    is::Log {
        logid: row.id.0,
        name: row.name.clone(),
        slug: Identifier(row.slug.clone()),
        stepid: row.step.0,
        complete: row.complete,
        num_lines: row.num_lines,
        r#type: Identifier(row.kind.to_string()),
        incomplete: Ours(row.incomplete.clone()),
    }
}

/// A scheduler, with the master that runs it when that is known.
#[must_use]
pub fn scheduler(row: &SchedulerRow, master: Option<is::Master>) -> Value {
    value(is::Scheduler {
        schedulerid: row.id,
        name: row.name.clone(),
        enabled: row.enabled,
        master,
    })
}

/// A moment in a builder's life, or something with a beginning and an end.
#[must_use]
pub fn note(note: &NoteRow) -> is::Note {
    is::Note {
        noteid: note.id,
        builderid: note.builder.0,
        workerid: note.worker.map(|worker| worker.0),
        text: note.text.clone(),
        error: note.error.clone(),
        at: seconds(note.at),
        ended_at: note.ended_at.map(seconds),
    }
}
