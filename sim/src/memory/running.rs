//! A build's start, what changes while it runs, and its end.

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::time::WallTime;
use botmaster::core::values::{BuildResult, Loss, Properties};
use botmaster::store::*;

use super::tables::{BuildRecord, BuilderRecord, Tables, fenced};
use super::{Done, claims, steps};

/// How a build ended.
pub(super) struct End<'a> {
    pub result: BuildResult,
    pub state_string: &'a str,
    pub requests: RequestsAfter,
    pub at: WallTime,
}

/// How a build starts.
pub(super) struct Start<'a> {
    pub properties: &'a Arc<Properties>,
    pub grace: Duration,
    pub at: WallTime,
}

/// Why a build that is there did not meet an operation's conditions.
fn not_the_owner(row: &BuildRow, incarnation: Incarnation) -> StoreError {
    let build = row.id;
    fenced(if row.incarnation == incarnation {
        let word = match row.state {
            BuildState::Claimed => "not started yet",
            BuildState::Running => "running already",
            BuildState::Finished => "finished already",
        };
        format!("build {build} is {word}")
    } else {
        format!("build {build} belongs to incarnation {}, not {incarnation}", row.incarnation)
    })
}

pub(super) fn start(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    incarnation: Incarnation,
    start: &Start<'_>,
) -> Done {
    let (properties, at) = (start.properties, start.at);
    let row = &tables.build(build)?.row;
    if row.incarnation == incarnation && row.state == BuildState::Running {
        return Ok(OpOutcome::Started(row.clone()));
    }
    if row.incarnation != incarnation || row.state != BuildState::Claimed {
        return Err(not_the_owner(row, incarnation));
    }
    let mut row = BuildRow::clone(row);
    let mut builder = BuilderRecord::clone(tables.builder(row.builder)?);
    if !planted::is("sim_number_reused") || builder.last_number == 0 {
        builder.last_number += 1;
    }
    row.state = BuildState::Running;
    row.number = Some(BuildNumber(builder.last_number));
    row.started_at = at;
    row.state_string = "building".into();
    row.properties = properties.clone();
    let row = Arc::new(row);
    tables.builders.put(row.builder, builder);
    tables.put_build(row.clone());
    if let Some(record) = tables.builds.get(&build) {
        let record = BuildRecord { grace: start.grace, ..BuildRecord::clone(record) };
        tables.builds.put(build, record);
    }
    changes.push(Change::BuildNew(row.clone()));
    Ok(OpOutcome::Started(row))
}

pub(super) fn adopt(tables: &mut Tables, build: BuildId, incarnation: Incarnation) -> Done {
    let row = &tables.build(build)?.row;
    if row.state == BuildState::Finished {
        return Err(fenced(format!("build {build} is finished already")));
    }
    let row = BuildRow { incarnation, ..BuildRow::clone(row) };
    tables.put_build(Arc::new(row));
    Ok(OpOutcome::Done)
}

pub(super) fn fence(tables: &mut Tables, build: BuildId, incarnation: Incarnation) -> Done {
    let row = &tables.build(build)?.row;
    if row.incarnation == incarnation && row.state != BuildState::Finished {
        return Ok(OpOutcome::Done);
    }
    Err(not_the_owner(row, incarnation))
}

pub(super) fn describe(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    text: &str,
) -> Done {
    let row = &tables.build(build)?.row;
    // Its end has the last word.
    if row.state == BuildState::Running {
        let row = Arc::new(BuildRow { state_string: text.to_owned(), ..BuildRow::clone(row) });
        tables.put_build(row.clone());
        changes.push(Change::BuildUpdate(row));
    }
    Ok(OpOutcome::Done)
}

pub(super) fn want_stop(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    reason: &str,
) -> Done {
    let open = |record: &&Arc<BuildRecord>| record.row.state != BuildState::Finished;
    let Some(record) = tables.builds.get(&build).filter(open) else {
        return Ok(OpOutcome::StopWanted(false));
    };
    if record.stop.is_none() {
        let mut record = BuildRecord::clone(record);
        record.stop = Some(reason.to_owned());
        if record.row.state == BuildState::Running {
            let state_string = format!("stopping ({reason})");
            record.row = Arc::new(BuildRow { state_string, ..BuildRow::clone(&record.row) });
            changes.push(Change::BuildUpdate(record.row.clone()));
        }
        tables.builds.put(build, record);
    }
    Ok(OpOutcome::StopWanted(true))
}

pub(super) fn set_properties(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    properties: &Properties,
) -> Done {
    let row = &tables.build(build)?.row;
    let mut all = Properties::clone(&row.properties);
    all.extend(properties.iter().map(|(name, property)| (name.clone(), property.clone())));
    let all = Arc::new(all);
    let row = BuildRow { properties: all.clone(), ..BuildRow::clone(row) };
    tables.put_build(Arc::new(row));
    changes.push(Change::BuildProperties(build, all));
    Ok(OpOutcome::Done)
}

pub(super) fn finish(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    incarnation: Incarnation,
    end: &End<'_>,
) -> Done {
    let record = tables.build(build)?.clone();
    let fenced = record.row.incarnation != incarnation || record.row.state != BuildState::Running;
    if fenced && !planted::is("sim_end_without_fence") {
        return Err(not_the_owner(&record.row, incarnation));
    }
    let stopped = record.stop.as_ref().map(|reason| format!("cancelled ({reason})"));
    let end = &match (&stopped, end.requests) {
        (Some(text), RequestsAfter::Requeue { .. }) => End {
            result: BuildResult::Cancelled,
            state_string: text,
            requests: RequestsAfter::Done,
            at: end.at,
        },
        _ => End { ..*end },
    };
    let mut row = BuildRow::clone(&record.row);
    row.state = BuildState::Finished;
    row.results = Some(end.result);
    row.state_string = end.state_string.to_owned();
    row.complete_at = Some(end.at);
    let row = Arc::new(row);
    tables.put_build(row.clone());
    tables.builds_open.remove(&(row.builder, record.claim));
    steps::end_open(tables, changes, build, end.result, end.at);
    changes.push(Change::BuildFinished(row));
    match end.requests {
        RequestsAfter::Done => {
            for held in &record.requests {
                let (state, result) = (RequestState::Done, end.result);
                claims::end_request(tables, changes, *held, state, result, end.at)?;
            }
            Ok(OpOutcome::Done)
        }
        RequestsAfter::Requeue { infra } => {
            let mut back = Vec::with_capacity(record.requests.len());
            for held in &record.requests {
                let again = claims::requeue(tables, changes, *held, infra);
                if infra && let Some(row) = &again {
                    note_loss(tables, row.id, record.row.worker, end.state_string)?;
                }
                back.extend(again);
            }
            let requests = back.into_iter().map(|row| tables.with_set(row)).collect();
            Ok(OpOutcome::Requeued { requests })
        }
    }
}

/// Keeps on which worker a build of the request was lost, and why.
fn note_loss(
    tables: &mut Tables,
    request: RequestId,
    worker: WorkerId,
    reason: &str,
) -> Result<(), StoreError> {
    let worker = tables.worker(worker)?.row.name.clone();
    let mut losses = tables.losses.get(&request).map(|losses| losses.to_vec()).unwrap_or_default();
    losses.push(Loss { worker, reason: reason.to_owned() });
    tables.losses.put(request, losses);
    Ok(())
}
