//! The judgement of what a run left: the checker of histories, fed with what
//! was seen from outside, and rules that need the real program.

use std::collections::{BTreeMap, BTreeSet};

use botmaster::core::ids::{BuildId, CommandId, RequestId, WorkerName};
use botmaster::core::values::BuildResult;
use botmaster_sim::history::{
    self, Event, History, Invariant, Leeway, Limit, Log, Run, Told, What,
};

use crate::api::Api;
use crate::clients::{Diary, Wish};
use crate::runs::StepRun;
use crate::store::{Held, HeldLog};
use crate::yard::{PATIENCE, Yard};
use crate::{Fault, runs, store, within};

#[cfg(test)]
mod tests;

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Everything that must not be, each with the invariant that it breaks.
    pub violations: Vec<String>,
    /// Acknowledged requests that did not come to the one end they must have.
    pub lost: usize,
    /// Requests of which two runs were alive at once.
    pub overlapped: usize,
    /// Logs that are not what their build wrote.
    pub log_differences: usize,
    /// Acknowledged requests.
    pub requests: usize,
    /// Builds that started.
    pub builds: usize,
    /// Of these, those that ended without an answer and were built again.
    pub rebuilt: usize,
    /// Runs of steps.
    pub runs: usize,
    /// Events that were heard.
    pub events: usize,
}

/// Judges a yard in which it is quiet, and ends it.
///
/// # Errors
/// When what it left cannot be read.
pub fn judge(yard: &mut Yard, diary: &Diary) -> Result<Verdict, Fault> {
    let data = yard.path("data");
    let api = yard.api()?;
    let names: Vec<String> = yard.workers.keys().cloned().collect();
    let away = |board: serde_json::Value| {
        names.iter().find(|name| board["workers"][name]["connected"] != true).cloned()
    };
    let all_here = within(PATIENCE, || away(api.board()?).is_none().then_some(()));
    let held = store::read(&data)?;
    let logs = texts(&api, &held)?;
    let ran = runs::read(&yard.path("runs"))?;
    let mut verdict = weigh(&held, &logs, &ran, diary, yard.slots());
    if all_here.is_none() {
        let name = api.board().and_then(away).unwrap_or_default();
        verdict.violations.push(format!("I6: worker `{name}` never came back"));
    }
    verdict.violations.extend(yard.stop());
    for file in ["state.sqlite", "logs.sqlite"] {
        if let Err(fault) = store::is_whole(&data, file) {
            verdict.violations.push(fault);
        }
    }
    let after = store::read(&data)?;
    if (&after.requests, &after.builds, &after.logs) != (&held.requests, &held.builds, &held.logs) {
        verdict.violations.push("I7: a stop in quiet changed what the store holds".into());
    }
    if after.instances > 0 {
        verdict.violations.push(format!("I15: {} instances are kept for ever", after.instances));
    }
    Ok(verdict)
}

/// The text of every log as the API gives it, without the master's own lines.
fn texts(api: &Api, held: &Held) -> Result<Vec<(HeldLog, String)>, Fault> {
    let text = |log: &HeldLog| {
        let path = format!("logs/{}/contents?limit=10000000", log.id);
        let chunks = api.list(&path).ok_or_else(|| format!("{path}: no answer"))?;
        let content = chunks.first().and_then(|chunk| chunk["content"].as_str());
        let lines = content.unwrap_or_default().lines();
        let own = lines.filter_map(|line| line.strip_prefix(['o', 'e']));
        Ok((log.clone(), own.map(|line| format!("{line}\n")).collect()))
    };
    held.logs.iter().map(text).collect()
}

/// The judgement itself, of things that were read.
#[must_use]
pub fn weigh(
    held: &Held,
    logs: &[(HeldLog, String)],
    ran: &[StepRun],
    diary: &Diary,
    slots: &BTreeMap<String, u32>,
) -> Verdict {
    let wishes = diary.wishes();
    let events = diary.events();
    let history = History {
        // Whoever listens misses what is told while nobody can be listened to.
        lives: events.iter().map(|event| event.seq).collect(),
        events,
        ..history_of(held, logs, ran, diary.told(), slots)
    };
    let leeway = Leeway { events_may_miss: true, ..Leeway::default() };
    let mut findings = history::check(&history, &leeway);
    // The order of a queue cannot be told from events alone.
    findings.retain(|finding| finding.invariant != Invariant::I10);
    let mut lost: BTreeSet<RequestId> = BTreeSet::new();
    let mut violations = diary.faults();
    violations.extend(findings.iter().map(ToString::to_string));
    violations.extend(runs_of_nobody(held, ran));
    violations.extend(twice_in_a_build(ran));
    violations.extend(stops(held, &history.told));
    violations.extend(told_and_not_true(held, &history.events));
    violations.extend(keys(held, &history.told));
    let unwhole = logs_cut_short(held);
    violations.extend(unwhole.iter().cloned());
    if held.open_steps > 0 {
        violations.push(format!("I6: {} steps never ended", held.open_steps));
    }
    for (request, wish) in &wishes {
        if let Err(why) = ended_as_wished(held, ran, *request, *wish) {
            lost.insert(*request);
            violations.push(format!("I1: request {request} {why}"));
        }
    }
    let count = |invariant| findings.iter().filter(|f| f.invariant == invariant).count();
    let started = |build: &&history::Build| build.number.is_some();
    Verdict {
        violations,
        lost: lost.len(),
        overlapped: count(Invariant::I3),
        log_differences: count(Invariant::I9) + unwhole.len(),
        requests: wishes.len(),
        builds: held.builds.values().filter(started).count(),
        rebuilt: held.builds.values().filter(|b| b.result == Some(BuildResult::Retry)).count(),
        runs: ran.len(),
        events: history.events.len(),
    }
}

fn history_of(
    held: &Held,
    logs: &[(HeldLog, String)],
    ran: &[StepRun],
    told: Vec<Told>,
    slots: &BTreeMap<String, u32>,
) -> History {
    let by_build = runs::by_build(ran);
    let run = |run: &StepRun| {
        let build = held.builds.get(&BuildId(run.build))?;
        let worker = held.workers.get(&build.worker)?;
        Some(Run {
            worker: WorkerName::from(worker.as_str()),
            instance: String::new(),
            build: build.id,
            requests: build.requests.clone(),
            command: CommandId::from(format!("step {} of {}", run.step, run.build)),
            begin: run.begin,
            end: Some(run.alive),
            killed: !run.ended,
        })
    };
    let log = |(log, stored): &(HeldLog, String)| {
        let of_step = by_build.get(&log.build.0).into_iter().flatten();
        let mut of_step = of_step.filter(|run| run.step == log.step);
        let run = of_step.next();
        // A run that was killed may have written a line to its file, and not to
        // its log any more.
        let cut = run.is_none_or(|run| !run.ended).then(|| "its run did not end".to_owned());
        Log {
            log: log.id,
            build: log.build,
            written: run.map(|run| run.wrote.clone()).unwrap_or_default(),
            stored: stored.clone(),
            complete: log.complete,
            incomplete: log.incomplete.clone().or(cut),
        }
    };
    let limit = |(name, max_builds): (&String, &u32)| Limit {
        worker: WorkerName::from(name.as_str()),
        from: 0,
        max_builds: *max_builds,
    };
    History {
        told,
        ran: ran.iter().filter_map(run).collect(),
        limits: slots.iter().map(limit).collect(),
        requests: held.requests.clone(),
        builds: held.builds.clone(),
        logs: logs.iter().map(log).collect(),
        calm: true,
        ..History::default()
    }
}

/// Only a build that the store has, and that had started, may run anything.
fn runs_of_nobody(held: &Held, ran: &[StepRun]) -> Vec<String> {
    let nobody = |run: &&StepRun| {
        let build = held.builds.get(&BuildId(run.build));
        build.is_none_or(|build| build.number.is_none())
    };
    let text = |run: &StepRun| {
        format!("I12: a step of build {} ran, and the store has no such start", run.build)
    };
    ran.iter().filter(nobody).map(text).collect()
}

/// A command is carried out once, however often its start is sent.
fn twice_in_a_build(ran: &[StepRun]) -> Vec<String> {
    let mut seen: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for run in ran {
        *seen.entry((run.build, run.step)).or_default() += 1;
    }
    let twice = seen.into_iter().filter(|(_, times)| *times > 1);
    twice
        .map(|((build, step), times)| format!("I2: step {step} of build {build} ran {times} times"))
        .collect()
}

/// A build that succeeded has told all that it wrote.
fn logs_cut_short(held: &Held) -> Vec<String> {
    let succeeded = |log: &&HeldLog| {
        held.builds.get(&log.build).and_then(|build| build.result) == Some(BuildResult::Success)
    };
    let cut =
        held.logs.iter().filter(succeeded).filter_map(|log| Some((log, log.incomplete.as_ref()?)));
    cut.map(|(log, why)| {
        format!("I9: log {} of build {}, which succeeded: {why}", log.id, log.build)
    })
    .collect()
}

/// What was told of a build is in the store, whatever died since.
fn told_and_not_true(held: &Held, events: &[Event]) -> Vec<String> {
    let mut found = Vec::new();
    for event in events {
        let (What::BuildNew(told) | What::BuildFinished(told)) = &event.what else { continue };
        let row = held.builds.get(&told.id);
        if row.is_none_or(|row| row.number != told.number) {
            let number = told.number.unwrap_or_default();
            found.push(format!(
                "I12: build {} was told with number {number}, and the store has {:?}",
                told.id,
                row.map(|row| row.number)
            ));
        }
    }
    found
}

/// A request whose build was stopped is not given to another build.
fn stops(held: &Held, told: &[Told]) -> Vec<String> {
    let mut found = Vec::new();
    for told in told {
        let Told::Stopped { build, .. } = told else { continue };
        let requests = held.builds.get(build).map(|build| build.requests.clone());
        for (request, epoch) in requests.into_iter().flatten() {
            let again = |other: &&history::Build| {
                other.requests.iter().any(|(held, later)| *held == request && *later > epoch)
            };
            if let Some(other) = held.builds.values().find(again) {
                found.push(format!(
                    "I7: request {request} went to build {} after {build} was stopped",
                    other.id
                ));
            }
        }
    }
    found
}

/// The store has one submission for each key, the one that clients were told.
fn keys(held: &Held, told: &[Told]) -> Vec<String> {
    let mut found = Vec::new();
    for told in told {
        if let Told::Submitted { request, key: Some(key), .. } = told
            && held.keys.get(key).map(Vec::as_slice) != Some(&[*request])
        {
            let has = held.keys.get(key);
            found.push(format!(
                "FQ01: `{key}` was answered with request {request}, and the store has {has:?}"
            ));
        }
    }
    found
}

/// Whether a request came to the one end that it must have.
fn ended_as_wished(
    held: &Held,
    ran: &[StepRun],
    request: RequestId,
    wish: Wish,
) -> Result<(), String> {
    let row = held.requests.get(&request).ok_or("was acknowledged and is not there")?;
    let builds = held.builds.values().filter(|build| {
        build.number.is_some() && build.requests.iter().any(|(of, _)| *of == request)
    });
    let builds: Vec<&history::Build> = builds.collect();
    let told = || {
        let of = |build: &&history::Build| held.texts.get(&build.id).cloned();
        builds.iter().filter_map(of).collect::<Vec<_>>().join("; ")
    };
    match (wish, row.result) {
        (Wish::Built, Some(BuildResult::Success)) => {
            let build = builds.iter().find(|build| build.result == Some(BuildResult::Success));
            let build = build.ok_or("succeeded and no build of it did")?;
            let steps = held.logs.iter().filter(|log| log.build == build.id);
            for step in steps.map(|log| log.step) {
                let whole =
                    |run: &StepRun| run.build == build.id.0 && run.step == step && run.ended;
                if !ran.iter().any(whole) {
                    return Err(format!(
                        "succeeded in build {}, whose step {step} never came to its end",
                        build.id
                    ));
                }
            }
            Ok(())
        }
        (Wish::NeverRuns, Some(BuildResult::Cancelled)) if builds.is_empty() => Ok(()),
        (Wish::Stopped, Some(BuildResult::Cancelled)) => Ok(()),
        (_, result) => Err(format!(
            "should be {wish:?} and ended as {} ({:?}; builds: {})",
            result.map_or("nothing", BuildResult::word),
            row.state,
            told()
        )),
    }
}
