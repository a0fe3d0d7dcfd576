//! When builds end, and when requests that wait begin and end.
//!
//! Worked out when somebody asks, from the store and the board: a running
//! build has what was expected at its start, and the step that it is in; a
//! queue has its builder's places and what each is busy with.
//!
//! What other builders will put onto the same workers meanwhile is not known,
//! so a queue whose workers are shared may take longer. Requests that will
//! share a build count one by one, so theirs may end sooner; one that names
//! its worker counts as one that any may take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answer::ApiError;
use super::context::{WebContext, wall_now};
use super::read::not_found;
use super::route::BuilderRef;
use crate::board::Shown;
use crate::core::builder::{
    Accuracy, Estimate, Expectations, Left, QUEUED, QueuedEta, SeatFree, schedule, seconds,
};
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::BuildResult;
use crate::core::views::{ActiveBuildView, BuilderView, WorkerView};
use crate::store::{BuildRow, BuilderRow, RequestPrediction};

/// The most builds that one question may name.
const BUILDS: usize = 1000;

/// How long `until` is after `from`.
fn since(from: WallTime, until: WallTime) -> Duration {
    Duration::from_micros(u64::try_from(until.0.saturating_sub(from.0)).unwrap_or_default())
}

/// What is known of one build's length.
#[derive(Clone, Copy, Debug)]
pub struct BuildEta {
    /// What was expected at its start.
    pub expected: Option<Estimate>,
    /// What it has left, while it runs.
    pub left: Option<Left>,
    /// What it took, once it has ended.
    pub took: Option<Duration>,
    /// How it ended.
    result: Option<BuildResult>,
}

impl BuildEta {
    /// As JSON, times in seconds; null when nothing was expected.
    #[must_use]
    pub fn value(&self) -> Value {
        let Some(expected) = self.expected else { return Value::Null };
        let left = self.left.map(|left| {
            let mut value = json!(left.time);
            if let Some(object) = value.as_object_mut() {
                object.insert("late_s".into(), json!(left.late.map(seconds)));
            }
            value
        });
        json!({
            "expected": expected,
            "left": left,
            "took_s": self.took.map(seconds),
            "within": self.took.map(|took| expected.holds(took)),
            "off_percent": self.took.map(|took| percent(expected.off_by(took))),
            // One that failed ends early, or late, for reasons of its own.
            "counts": self.result.map(|result| result == BuildResult::Success),
        })
    }
}

#[allow(clippy::cast_precision_loss)]
fn percent(thousandths: i64) -> f64 {
    thousandths as f64 / 10.0
}

/// Works out times; what it has read it does not read again.
pub struct Etas<'a> {
    context: &'a WebContext,
    shown: Shown,
    now: WallTime,
    learnt: BTreeMap<BuilderId, Expectations>,
    busy: BTreeMap<BuildId, Option<Estimate>>,
    slots: BTreeMap<WorkerName, Option<Estimate>>,
    /// Who has builds on a worker.
    on_worker: BTreeMap<WorkerName, Vec<Arc<BuilderView>>>,
}

impl<'a> Etas<'a> {
    /// As of now.
    #[must_use]
    pub fn new(context: &'a WebContext) -> Self {
        let shown = context.board.all();
        let mut on_worker: BTreeMap<WorkerName, Vec<Arc<BuilderView>>> = BTreeMap::new();
        for view in shown.builders.values() {
            for active in &view.builds {
                on_worker.entry(active.worker.clone()).or_default().push(view.clone());
            }
        }
        Self {
            context,
            shown,
            now: wall_now(),
            learnt: BTreeMap::new(),
            busy: BTreeMap::new(),
            slots: BTreeMap::new(),
            on_worker,
        }
    }

    fn learnt(&mut self, builder: BuilderId) -> Result<&Expectations, ApiError> {
        if !self.learnt.contains_key(&builder) {
            let text = self.context.reader.expectations(builder)?;
            let read = text.map(|text| Expectations::from_text(&text, "")).unwrap_or_default();
            self.learnt.insert(builder, read);
        }
        self.learnt.get(&builder).ok_or_else(|| ApiError::Inside("lost again".into()))
    }

    /// What is known of a build's length (row B15: by what was expected at its
    /// start).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn of_build(&mut self, build: &BuildRow) -> Result<BuildEta, ApiError> {
        let snapshot = self.context.reader.prediction(build.id)?;
        let took = build.complete_at.map(|end| since(build.started_at, end));
        let left = match (snapshot, took) {
            (Some(snapshot), None) => {
                let known = self.learnt(build.builder)?.as_of(snapshot);
                let left = self.left(build, &known)?;
                let elapsed = since(build.started_at, self.now);
                Some(left.unwrap_or_else(|| snapshot.left(elapsed)))
            }
            _ => None,
        };
        let expected = snapshot.map(|snapshot| snapshot.total);
        Ok(BuildEta { expected, left, took, result: build.results })
    }

    /// What a running build has left, by what is known.
    fn left(&self, build: &BuildRow, known: &Expectations) -> Result<Option<Left>, ApiError> {
        if known.builds() == 0 {
            return Ok(None);
        }
        let step = self.context.reader.last_step(build.id)?;
        let step = step.as_ref().and_then(|step| {
            let until = step.complete_at.unwrap_or(self.now);
            Some((step.name.as_str(), since(step.started_at?, until)))
        });
        Ok(known.left(step, since(build.started_at, self.now)))
    }

    /// How long an active build of this builder keeps its place. None when
    /// nobody can tell.
    fn busy(
        &mut self,
        view: &BuilderView,
        active: &ActiveBuildView,
    ) -> Result<Option<Estimate>, ApiError> {
        let Some(id) = active.build else { return Ok(view.expected) };
        if let Some(known) = self.busy.get(&id) {
            return Ok(*known);
        }
        let busy = match self.context.reader.build(id)? {
            Some(row) => self.running(&row)?,
            // It has not started yet.
            None => view.expected,
        };
        self.busy.insert(id, busy);
        Ok(busy)
    }

    fn running(&mut self, row: &BuildRow) -> Result<Option<Estimate>, ApiError> {
        if row.complete_at.is_some() {
            return Ok(Some(Estimate::ZERO));
        }
        if let Some(left) = self.of_build(row)?.left {
            return Ok(Some(left.time));
        }
        // It began when nothing was known; for those behind it today's
        // knowledge is better than none.
        let known = self.learnt(row.builder)?.clone();
        Ok(self.left(row, &known)?.map(|left| left.time))
    }

    /// When the worker has a slot for another build.
    fn slot(&mut self, name: &WorkerName, view: &WorkerView) -> Result<Option<Estimate>, ApiError> {
        if view.used < view.max_builds {
            return Ok(Some(Estimate::ZERO));
        }
        if let Some(known) = self.slots.get(name) {
            return Ok(*known);
        }
        let mut first: Option<Estimate> = None;
        for builder in self.on_worker.get(name).cloned().unwrap_or_default() {
            for active in builder.builds.iter().filter(|active| active.worker == *name) {
                if let Some(busy) = self.busy(&builder, active)? {
                    first = Some(first.map_or(busy, |first| first.sooner(busy)));
                }
            }
        }
        self.slots.insert(name.clone(), first);
        Ok(first)
    }

    /// A builder's places: those of workers that take builds, with when they
    /// are free. Places of which nobody can tell are left out.
    fn seats(&mut self, view: &BuilderView) -> Result<Vec<SeatFree>, ApiError> {
        let mut seats = Vec::new();
        for (name, word) in &view.workers {
            if *word == "attaching" {
                continue;
            }
            let own = view.builds.iter().find(|active| active.worker == *name);
            let free = match own {
                Some(active) => self.busy(view, active)?,
                None => match self.shown.workers.get(name).cloned() {
                    Some(worker) if !worker.paused && !worker.graceful => {
                        self.slot(name, &worker)?
                    }
                    _ => None,
                },
            };
            seats.extend(free.map(|free| SeatFree { free, own: own.is_some() }));
        }
        Ok(seats)
    }

    /// When the first requests of a builder's queue begin and end, and whether
    /// that is kept already. Empty when nobody can tell.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn queue(
        &mut self,
        view: &BuilderView,
    ) -> Result<Vec<(RequestId, bool, QueuedEta)>, ApiError> {
        let Some(build) = view.expected else { return Ok(Vec::new()) };
        if view.waiting == 0 || view.broken.is_some() || self.shown.draining {
            return Ok(Vec::new());
        }
        let seats = self.seats(view)?;
        let waiting = self.context.reader.waiting(view.id, QUEUED)?;
        let times = schedule(&seats, build, limit(view), waiting.len());
        Ok(waiting.into_iter().zip(times).map(|((id, kept), eta)| (id, kept, eta)).collect())
    }
}

/// How many builds may have a place of the builder's at once. Those that have
/// none, since their worker is away, count all the same.
fn limit(view: &BuilderView) -> Option<usize> {
    let away = view.builds.iter().filter(|active| !view.workers.contains_key(&active.worker));
    let most = usize::try_from(view.max_builds?).unwrap_or(usize::MAX);
    Some(most.saturating_sub(away.count()))
}

/// Answers `botmaster/etas`: `builds` by id, those that run or those asked for
/// by `buildid`, and `requests` that wait, by id.
///
/// # Errors
/// When a parameter is bad or the store cannot be read.
pub fn etas(context: &WebContext, pairs: &[(String, String)]) -> Result<Value, ApiError> {
    let mut etas = Etas::new(context);
    let views: Vec<_> = etas.shown.builders.values().cloned().collect();
    let mut wanted: Vec<BuildId> = Vec::new();
    for (name, value) in pairs {
        match (name.as_str(), value.parse()) {
            ("buildid", Ok(id)) if wanted.len() < BUILDS => wanted.push(BuildId(id)),
            ("buildid", Ok(_)) => {
                return Err(ApiError::Bad(format!("at most {BUILDS} builds at once")));
            }
            ("buildid", Err(_)) => {
                return Err(ApiError::Bad(format!("buildid: `{value}` is no number")));
            }
            _ => return Err(ApiError::Bad(format!("there is no parameter `{name}` here"))),
        }
    }
    if pairs.is_empty() {
        let active = views.iter().flat_map(|view| &view.builds);
        wanted = active.filter_map(|active| active.build).collect();
    }
    let mut builds = Map::new();
    for id in wanted {
        if let Some(row) = context.reader.build(id)? {
            builds.insert(id.to_string(), etas.of_build(&row)?.value());
        }
    }
    let mut requests = Map::new();
    for view in &views {
        for (id, _, eta) in etas.queue(view)? {
            requests.insert(id.to_string(), json!({ "start": eta.start, "end": eta.end }));
        }
    }
    Ok(json!({ "builds": builds, "requests": requests }))
}

/// Answers `builders/N/expectations`: what its builds take, from how many that
/// is known, and how far off it has been.
///
/// # Errors
/// When there is no such builder or the store cannot be read.
pub fn expectations(context: &WebContext, of: &BuilderRef) -> Result<Value, ApiError> {
    let builder = context.find_builder(of)?.ok_or_else(|| not_found(of))?;
    let known = known_now(context, &builder)?;
    let steps: Vec<Value> = known
        .steps()
        .into_iter()
        .map(|(name, takes)| {
            let mut value = json!(takes);
            if let Some(object) = value.as_object_mut() {
                object.insert("name".into(), name.into());
            }
            value
        })
        .collect();
    Ok(json!({
        "builderid": builder.id,
        "learnt_from": known.builds(),
        "total": known.total(),
        "steps": steps,
        "builds": shaped(context.reader.accuracy(builder.id)?),
        "requests": shaped(context.reader.queue_accuracy(builder.id)?),
    }))
}

/// What is expected of the builder's next build: nothing when what is stored
/// is about other steps than it has now.
fn known_now(context: &WebContext, builder: &BuilderRow) -> Result<Expectations, ApiError> {
    let view = context.board.builder(&builder.name);
    if view.is_some_and(|view| view.broken.is_none() && view.expected.is_none()) {
        return Ok(Expectations::default());
    }
    let text = context.reader.expectations(builder.id)?;
    Ok(text.map(|text| Expectations::from_text(&text, "")).unwrap_or_default())
}

fn shaped(accuracy: Accuracy) -> Value {
    let off = i64::try_from(accuracy.median_off).unwrap_or(i64::MAX);
    json!({
        "ended": accuracy.ends,
        "within": accuracy.within,
        "median_off_percent": (accuracy.ends > 0).then(|| percent(off)),
    })
}

/// Times of requests that wait and for which none is kept yet: at most `limit`
/// of at most `builders` builders, from the builder after `after` on.
///
/// # Errors
/// When the store cannot be read.
pub fn unrecorded(
    context: &WebContext,
    after: Option<BuilderName>,
    builders: usize,
    limit: usize,
) -> Result<(Vec<RequestPrediction>, Option<BuilderName>), ApiError> {
    let mut etas = Etas::new(context);
    let waiting = |(_, view): &(&BuilderName, &Arc<BuilderView>)| view.waiting > 0;
    let all: Vec<_> = etas
        .shown
        .builders
        .iter()
        .filter(waiting)
        .map(|(name, view)| (name.clone(), view.clone()))
        .collect();
    let first = all.iter().position(|(name, _)| Some(name) > after.as_ref()).unwrap_or_default();
    let (mut found, mut last) = (Vec::new(), None);
    for (name, view) in all.iter().cycle().skip(first).take(builders.min(all.len())) {
        let at = etas.now;
        let new = etas.queue(view)?.into_iter().filter(|(_, kept, _)| !kept);
        let new = new.map(|(request, _, eta)| RequestPrediction { request, at, eta });
        found.extend(new.take(limit - found.len().min(limit)));
        last = Some(name.clone());
        if found.len() >= limit {
            break;
        }
    }
    Ok((found, last))
}
