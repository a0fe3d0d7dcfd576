//! What workers ran.

use std::collections::{BTreeMap, BTreeSet};

use botmaster::core::ids::{BuildId, RequestId, WorkerName};
use botmaster::core::values::BuildResult;

use super::super::records::{History, Micros, Run};
use super::timeline::Timelines;
use super::{Finding, Invariant, Leeway, found};

pub fn check(
    history: &History,
    lines: &Timelines<'_>,
    leeway: &Leeway,
    findings: &mut Vec<Finding>,
) {
    never_two_at_once(history, findings);
    limits(history, leeway, findings);
    for run in &history.ran {
        for (request, epoch) in &run.requests {
            let (command, begin) = (&run.command, run.begin);
            match lines.claim(*request, *epoch) {
                None if leeway.events_may_miss => {}
                Some((from, _)) if from > begin => {
                    let text = format!("command {command} ran before its claim was stored");
                    found(findings, Invariant::I12, text);
                }
                None => {
                    let text = format!(
                        "command {command} ran for request {request} in epoch {epoch}, which nobody claimed"
                    );
                    found(findings, Invariant::I12, text);
                }
                Some((_, Some(over))) if begin > over + leeway.late => {
                    let text = format!(
                        "command {command} began for request {request} long after epoch {epoch} was over"
                    );
                    let ended = lines.first(*request, super::timeline::Turn::Complete);
                    let ended = ended.is_some_and(|ended| ended <= begin);
                    found(findings, if ended { Invariant::I7 } else { Invariant::I2 }, text);
                }
                Some(_) => {}
            }
        }
    }
    something_ran(history, findings);
}

/// No request has two commands at the same time, wherever.
fn never_two_at_once(history: &History, findings: &mut Vec<Finding>) {
    let mut by_request: BTreeMap<RequestId, Vec<&Run>> = BTreeMap::new();
    for run in &history.ran {
        for (request, _) in &run.requests {
            by_request.entry(*request).or_default().push(run);
        }
    }
    for (request, mut runs) in by_request {
        runs.sort_by_key(|run| run.begin);
        let mut latest: Option<&Run> = None;
        for run in runs {
            if let Some(before) = latest
                && end(before) > run.begin
            {
                let text = format!(
                    "request {request} ran twice at once: {} on {} and {} on {}, at {}",
                    before.command, before.worker, run.command, run.worker, run.begin
                );
                found(findings, Invariant::I3, text);
            }
            if latest.is_none_or(|before| end(before) < end(run)) {
                latest = Some(run);
            }
        }
    }
}

fn end(run: &Run) -> Micros {
    run.end.unwrap_or(Micros::MAX)
}

/// No worker has more builds than it may, when one of them begins something. A
/// second machine under a worker's name is counted by itself.
fn limits(history: &History, leeway: &Leeway, findings: &mut Vec<Finding>) {
    let mut by_worker: BTreeMap<(&WorkerName, &str), Vec<&Run>> = BTreeMap::new();
    for run in &history.ran {
        by_worker.entry((&run.worker, &run.instance)).or_default().push(run);
    }
    for ((worker, _), runs) in by_worker {
        for run in &runs {
            let Some(limit) = limit(history, worker, run.begin, leeway.limit) else { continue };
            let now = |other: &&&Run| other.begin <= run.begin && end(other) > run.begin;
            let builds: BTreeSet<BuildId> =
                runs.iter().filter(now).map(|other| other.build).collect();
            // A build that was there before a limit fell goes on.
            if builds.len() > limit as usize && first_begin(&runs, run.build) == run.begin {
                let text = format!(
                    "worker {worker} ran {} builds at {}, and may have {limit}",
                    builds.len(),
                    run.begin
                );
                found(findings, Invariant::I5, text);
            }
        }
    }
}

fn first_begin(runs: &[&Run], build: BuildId) -> Micros {
    let begins = runs.iter().filter(|run| run.build == build).map(|run| run.begin);
    begins.min().unwrap_or(Micros::MAX)
}

/// The highest limit in force at the time or shortly before.
fn limit(history: &History, worker: &WorkerName, at: Micros, leeway: Micros) -> Option<u32> {
    let own = || history.limits.iter().filter(|limit| limit.worker == *worker);
    let in_force = own().filter(|limit| limit.from <= at - leeway).max_by_key(|limit| limit.from);
    let since = own().filter(|limit| limit.from > at - leeway && limit.from <= at);
    since.chain(in_force).map(|limit| limit.max_builds).max()
}

/// A good or bad result comes from a worker, not from nowhere.
fn something_ran(history: &History, findings: &mut Vec<Finding>) {
    let ran: BTreeSet<BuildId> = history.ran.iter().map(|run| run.build).collect();
    for build in history.builds.values().filter(|build| build.has_steps) {
        let proves = matches!(
            build.result,
            Some(BuildResult::Success | BuildResult::Warnings | BuildResult::Failure)
        );
        if proves && !ran.contains(&build.id) {
            let text = format!("build {} has a result and no worker ran any of it", build.id);
            found(findings, Invariant::I1, text);
        }
    }
}
