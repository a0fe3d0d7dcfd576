//! Why a request that waits has not started, told worker by worker. From what
//! the living parts show of themselves, so anybody may ask at any time.

use serde::Serialize;

use super::ids::WorkerName;
use super::views::{BuilderView, WorkerView};

/// Why a worker does not take a request just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing holds it: the request is behind others, or about to start.
    Available,
    /// It is not attached.
    Offline,
    /// It attaches, or is asked whether it is alive.
    Attaching,
    /// Somebody paused it.
    Paused,
    /// It leaves once its builds have ended.
    Leaving,
    /// It is set aside because it lost builds again and again.
    Quarantined,
    /// It is left alone for a while: a start failed there.
    Resting,
    /// It builds for this builder.
    Busy,
    /// It has as many builds as it may.
    Limit,
    /// The request names another worker.
    NotAllowed,
    /// It is no longer configured, or not for this builder.
    NeverPossible,
}

/// Why a worker does not take a request, with a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WorkerReason {
    /// The worker.
    pub name: WorkerName,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

/// A worker as far as it matters here.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a WorkerName,
    /// It is in the configuration, and its builder lists it.
    pub possible: bool,
    /// Why somebody paused it.
    pub pause_reason: Option<&'a str>,
    /// What it shows of itself.
    pub view: Option<&'a WorkerView>,
}

/// Why this worker does not take a request of the builder that names `wanted`,
/// if it names one.
#[must_use]
pub fn of_worker(
    builder: &BuilderView,
    worker: &Candidate<'_>,
    wanted: Option<&WorkerName>,
) -> WorkerReason {
    let name = worker.name;
    let told = |reason, text: String| WorkerReason { name: name.clone(), reason, text };
    if !worker.possible {
        return told(Reason::NeverPossible, "the builder does not have it".into());
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != name) {
        return told(Reason::NotAllowed, format!("the request names worker {wanted}"));
    }
    let Some(view) = worker.view else {
        return told(Reason::Offline, "it is not attached".into());
    };
    let word = builder.workers.get(name).copied();
    if view.paused {
        let why = worker.pause_reason.map(|why| format!(": {why}")).unwrap_or_default();
        return told(Reason::Paused, format!("it is paused{why}"));
    }
    if view.graceful {
        return told(Reason::Leaving, "it leaves once its builds have ended".into());
    }
    if let Some(quarantine) = &view.quarantine {
        return told(Reason::Quarantined, format!("it is set aside: {}", quarantine.reason));
    }
    if let Some(pause) = builder.pauses.get(name) {
        return told(Reason::Resting, format!("it is left alone for a while: {}", pause.reason));
    }
    match word {
        None => told(Reason::Offline, "it is not attached".into()),
        Some("attaching" | "pinging") => told(Reason::Attaching, "it is being attached".into()),
        Some("building" | "substantiating") => {
            told(Reason::Busy, "it has a build of this builder".into())
        }
        Some(_) if view.used >= view.max_builds => {
            let most = view.max_builds;
            told(Reason::Limit, format!("it has {} builds of at most {most}", view.used))
        }
        Some("busy") => told(Reason::Limit, "it has as many builds as it may".into()),
        Some(_) => told(Reason::Available, "it could take a build".into()),
    }
}

/// What holds for the master as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Whole<'a> {
    /// It stops.
    pub draining: bool,
    /// Its store is full: nothing new is claimed.
    pub full: Option<&'a str>,
}

/// The whole in one sentence: what holds for the builder before what holds for
/// the master, and that before what holds for the builder's workers.
#[must_use]
pub fn summary(
    builder: Option<&BuilderView>,
    master: &Whole<'_>,
    wanted: Option<&WorkerName>,
    workers: &[WorkerReason],
) -> String {
    let Some(builder) = builder else {
        return "its builder is no longer configured".into();
    };
    if let Some(reason) = &builder.broken {
        return format!("its builder is broken: {reason}");
    }
    if master.draining {
        return "the master is stopping".into();
    }
    if let Some(full) = master.full {
        return full.into();
    }
    let among = |reasons: &[Reason]| workers.iter().any(|one| reasons.contains(&one.reason));
    if let Some(wanted) = wanted {
        let named = workers.iter().find(|one| one.name == *wanted);
        match named {
            None => return format!("it names worker {wanted}, which its builder does not have"),
            Some(one) if one.reason != Reason::Available => {
                return format!("it names worker {wanted}: {}", one.text);
            }
            Some(_) => {}
        }
    } else if workers.iter().all(|one| one.reason == Reason::NeverPossible) {
        return "its builder has no worker".into();
    }
    if let Some(most) = builder.max_builds
        && builder.builds.len() >= usize::try_from(most).unwrap_or(usize::MAX)
    {
        return format!("its builder has as many builds as it may: {most}");
    }
    if among(&[Reason::Available]) {
        return "it is behind others, or about to start".into();
    }
    if among(&[Reason::Busy, Reason::Limit]) {
        return "every worker that could take it is busy".into();
    }
    if among(&[Reason::Attaching]) {
        return "its workers are being attached".into();
    }
    if among(&[Reason::Resting, Reason::Quarantined]) {
        return "the workers that are free are left alone for a while".into();
    }
    if among(&[Reason::Paused, Reason::Leaving]) {
        return "every attached worker of its builder is paused".into();
    }
    "no worker of its builder is attached".into()
}
