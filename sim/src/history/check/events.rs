//! The event stream by itself, and against what the store holds at the end.

use std::collections::{BTreeMap, BTreeSet};

use botmaster::core::ids::{BuildId, BuildNumber, BuilderId};
use botmaster::core::values::BuildResult;

use super::super::records::{Build, History, What};
use super::timeline::{Moment, Timelines, Turn};
use super::{Finding, Invariant, Leeway, found};

pub fn check(
    history: &History,
    lines: &Timelines<'_>,
    leeway: &Leeway,
    findings: &mut Vec<Finding>,
) {
    numbers_of_events(history, findings);
    for (_, moments) in lines.iter() {
        one_request(history, moments, leeway, findings);
    }
    builds(history, leeway, findings);
    numbers_in_store(history, findings);
}

/// The numbers grow by one, but for those left out between two lives.
fn numbers_of_events(history: &History, findings: &mut Vec<Finding>) {
    let lives: BTreeSet<u64> = history.lives.iter().copied().collect();
    for pair in history.events.windows(2) {
        let [before, after] = pair else { continue };
        let (last, next) = (before.seq, after.seq);
        if next <= last {
            let text = format!("event {next} was told after event {last}");
            found(findings, Invariant::I11, text);
        } else if next > last + 1 && lives.range(last + 1..=next).next().is_none() {
            let text = format!("events {} to {} were never told", last + 1, next - 1);
            found(findings, Invariant::I11, text);
        }
    }
}

/// Whether a request may go from one state to the next, and if not, why not.
fn fault(before: &Moment<'_>, after: &Moment<'_>) -> Option<(Invariant, &'static str)> {
    let (old, new) = (before.row.epoch, after.row.epoch);
    match (before.turn, after.turn) {
        (Turn::Complete, _) => Some((Invariant::I7, "has an event after its end")),
        (_, Turn::New) => Some((Invariant::I11, "is told as new twice")),
        (Turn::Claimed, Turn::Claimed) => Some((Invariant::I2, "was claimed while it was claimed")),
        (_, Turn::Claimed) if new.0 != old.0 + 1 => {
            Some((Invariant::I2, "was claimed in an epoch that is not the next"))
        }
        (Turn::New | Turn::Updated | Turn::Unclaimed, Turn::Unclaimed) => {
            Some((Invariant::I11, "is told as given back while it waits"))
        }
        (Turn::Claimed, Turn::Updated) => {
            Some((Invariant::I11, "is told as changed in its queue while it is claimed"))
        }
        (_, Turn::Unclaimed | Turn::Complete | Turn::Updated) if new != old => {
            Some((Invariant::I2, "has another epoch without a claim"))
        }
        (_, Turn::Claimed | Turn::Unclaimed | Turn::Complete | Turn::Updated) => None,
    }
}

fn one_request(
    history: &History,
    moments: &[Moment<'_>],
    leeway: &Leeway,
    findings: &mut Vec<Finding>,
) {
    let Some(first) = moments.first() else { return };
    let id = first.row.id;
    if first.turn != Turn::New && !leeway.events_may_miss {
        found(findings, Invariant::I11, format!("request {id} was never told as new"));
    }
    for pair in moments.windows(2) {
        let [before, after] = pair else { continue };
        if let Some((invariant, fault)) = fault(before, after)
            && (!leeway.events_may_miss || invariant == Invariant::I7)
        {
            found(findings, invariant, format!("request {id} {fault}"));
        }
    }
    let (Some(last), Some(row)) = (moments.last(), history.requests.get(&id)) else { return };
    if last.turn == Turn::Complete && last.row.result != row.result {
        found(findings, Invariant::I7, format!("request {id} ended and has another result now"));
    } else if !leeway.events_may_miss && (last.row.state, last.row.epoch) != (row.state, row.epoch)
    {
        let text = format!("request {id} is {:?} and its last event is another", row.state);
        found(findings, Invariant::I11, text);
    }
}

/// Builds start once, end once, and keep their result; numbers grow.
fn builds(history: &History, leeway: &Leeway, findings: &mut Vec<Finding>) {
    let mut started = BTreeSet::new();
    let mut ended: BTreeMap<BuildId, Option<BuildResult>> = BTreeMap::new();
    let mut last: BTreeMap<BuilderId, BuildNumber> = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            What::BuildNew(build) => {
                if !started.insert(build.id) {
                    found(findings, Invariant::I11, format!("build {} began twice", build.id));
                    continue;
                }
                number(build, &mut last, findings);
            }
            What::BuildFinished(build) => match ended.insert(build.id, build.result) {
                None => {}
                Some(before) if before == build.result => {
                    found(findings, Invariant::I11, format!("build {} ended twice", build.id));
                }
                Some(_) => {
                    let text = format!("build {} ended twice, and differently", build.id);
                    found(findings, Invariant::I7, text);
                }
            },
            What::RequestNew(_)
            | What::RequestClaimed(_)
            | What::RequestUnclaimed(_)
            | What::RequestComplete(_)
            | What::RequestUpdated(_)
            | What::Other(_) => {}
        }
    }
    for (id, build) in &history.builds {
        if ended.get(id).is_some_and(|result| *result != build.result) {
            found(findings, Invariant::I7, format!("build {id} ended and has another result now"));
        }
        let told = (started.contains(id), ended.contains_key(id));
        if told != (build.number.is_some(), build.result.is_some()) && !leeway.events_may_miss {
            found(findings, Invariant::I11, format!("build {id} began or ended without an event"));
        }
    }
}

fn number(build: &Build, last: &mut BTreeMap<BuilderId, BuildNumber>, findings: &mut Vec<Finding>) {
    let Some(number) = build.number else {
        found(findings, Invariant::I8, format!("build {} began without a number", build.id));
        return;
    };
    if last.get(&build.builder).is_some_and(|last| *last >= number) {
        let text = format!(
            "build {} of builder {} got number {number} after a higher or equal one",
            build.id, build.builder
        );
        found(findings, Invariant::I8, text);
    }
    last.insert(build.builder, number);
}

fn numbers_in_store(history: &History, findings: &mut Vec<Finding>) {
    let mut given = BTreeSet::new();
    for build in history.builds.values() {
        if let Some(number) = build.number
            && !given.insert((build.builder, number))
        {
            let text = format!("builder {} has two builds with number {number}", build.builder);
            found(findings, Invariant::I8, text);
        }
    }
}
