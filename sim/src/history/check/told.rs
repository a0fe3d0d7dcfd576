//! What clients were told, against the store and its events.

use std::collections::{BTreeMap, BTreeSet};

use botmaster::core::ids::RequestId;
use botmaster::core::values::BuildResult;
use botmaster::store::{BuildState, RequestState};

use super::super::records::{Build, History, Told};
use super::timeline::{Timelines, Turn};
use super::{Finding, Invariant, Leeway, found};

pub fn check(
    history: &History,
    lines: &Timelines<'_>,
    leeway: &Leeway,
    findings: &mut Vec<Finding>,
) {
    for told in &history.told {
        match told {
            Told::Submitted { at, request, .. } => {
                if !history.requests.contains_key(request) {
                    let text = format!("request {request} was acknowledged and is not there");
                    found(findings, Invariant::I1, text);
                }
                let durable = lines.first(*request, Turn::New);
                if durable.is_none_or(|durable| durable > *at) && !leeway.events_may_miss {
                    let text = format!("request {request} was acknowledged before it was stored");
                    found(findings, Invariant::I12, text);
                }
            }
            Told::Ended { at, request, result } => {
                let durable = lines.first(*request, Turn::Complete);
                if durable.is_none_or(|durable| durable > *at) && !leeway.events_may_miss {
                    let text = format!("request {request} was shown as ended before it had");
                    found(findings, Invariant::I12, text);
                }
                let row = history.requests.get(request);
                let held = row.and_then(|row| row.result);
                if row.is_some() && held != Some(*result) {
                    let held = held.map_or("nothing", BuildResult::word);
                    let text = format!("request {request} was told as {result} and is now {held}");
                    found(findings, Invariant::I7, text);
                }
            }
            Told::Stopped { .. } => {}
            Told::Cancelled { at, request, done } => {
                let again = |moment: &&super::timeline::Moment<'_>| {
                    moment.turn == Turn::Claimed && moment.at > at + leeway.order
                };
                if *done && lines.moments(*request).iter().any(|moment| again(&moment)) {
                    let text = format!("request {request} was given to a build after its cancel");
                    found(findings, Invariant::I7, text);
                }
            }
        }
    }
    stops(history, lines, leeway, findings);
    keys(history, findings);
    store(history, lines, findings);
}

/// A build that was stopped ends; its requests are not given to another one
/// (fault row FF05), whatever became of the master since.
fn stops(history: &History, lines: &Timelines<'_>, leeway: &Leeway, findings: &mut Vec<Finding>) {
    for told in &history.told {
        let Told::Stopped { at, build } = told else { continue };
        let held = history.builds.get(build).map_or(&[][..], |build| &build.requests);
        for (request, epoch) in held {
            let again = lines.moments(*request).iter().find(|moment| {
                moment.turn == Turn::Claimed
                    && moment.row.epoch > *epoch
                    && moment.at > at + leeway.order
            });
            if again.is_some() {
                let text = format!(
                    "request {request} was given to a build after {build}, which had it, was stopped"
                );
                found(findings, Invariant::I7, text);
            }
        }
    }
}

/// A submission that is sent again with its key is answered with the same.
fn keys(history: &History, findings: &mut Vec<Finding>) {
    let mut sent: BTreeMap<&str, BTreeMap<i64, BTreeSet<RequestId>>> = BTreeMap::new();
    for told in &history.told {
        if let Told::Submitted { at, request, key: Some(key) } = told {
            sent.entry(key).or_default().entry(*at).or_default().insert(*request);
        }
    }
    for (key, answers) in sent {
        let different: BTreeSet<_> = answers.into_values().collect();
        if different.len() > 1 {
            let text = format!("the submission `{key}` was stored more than once: {different:?}");
            found(findings, Invariant::I2, text);
        }
    }
}

/// What the store holds at the end, by itself and against the events.
fn store(history: &History, lines: &Timelines<'_>, findings: &mut Vec<Finding>) {
    for (request, _) in lines.iter() {
        if !history.requests.contains_key(request) {
            let text = format!("request {request} has an event and is not there");
            found(findings, Invariant::I1, text);
        }
    }
    let mut owners: BTreeMap<RequestId, Vec<&Build>> = BTreeMap::new();
    for build in history.builds.values() {
        for (request, _) in &build.requests {
            owners.entry(*request).or_default().push(build);
        }
        if history.calm && build.state != BuildState::Finished {
            found(findings, Invariant::I6, format!("build {} never ended", build.id));
        }
    }
    for row in history.requests.values() {
        let (id, none) = (row.id, Vec::new());
        let builds = owners.get(&id).unwrap_or(&none);
        let has_ended = matches!(row.state, RequestState::Done | RequestState::Cancelled);
        if history.calm && !has_ended {
            found(findings, Invariant::I6, format!("request {id} never ended"));
        }
        let live = builds.iter().filter(|build| build.state != BuildState::Finished).count();
        if live > 1 || live == 1 && row.state != RequestState::Claimed {
            let text = format!("request {id} is {:?} and {live} live builds have it", row.state);
            found(findings, Invariant::I2, text);
        }
        if row.state == RequestState::Claimed && live == 0 {
            found(findings, Invariant::I1, format!("request {id} is claimed by no build"));
        }
        let last = |build: &&&Build| {
            build.state == BuildState::Finished && build.result != Some(BuildResult::Retry)
        };
        let ends = builds.iter().filter(last).count();
        if ends > 1 || ends == 1 && row.state != RequestState::Done {
            let text = format!("request {id} is {:?} and {ends} builds ended for it", row.state);
            found(findings, Invariant::I2, text);
        }
        if row.state == RequestState::Done && ends == 0 {
            found(findings, Invariant::I1, format!("request {id} is done without a build"));
        }
    }
}
