//! The one way up: from the store's records and from what the living parts
//! report, after a start of the master and after a panic alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, AsyncContext, Handler, MessageResult};
use tokio::sync::oneshot;

use super::{Builder, Claimed, Input, Mode};
use crate::actors::build::{Build, BuildOrder, NewParent, Recovered};
use crate::actors::context::Context;
use crate::actors::convert::request;
use crate::core::builder::{Effect, Event, OpenBuild, Records, Request, SeatReport, SeatReportUse};
use crate::core::ids::*;
use crate::core::lease::FOREVER;
use crate::core::values::{BuildResult, OnLost};
use crate::messages::{
    BuilderHandle, BuilderRoute, BuilderShown, DescribeSeat, GiveBackSlot, KeepSlots, LetGo,
};
use crate::settings::factory_digest;
use crate::store::{BuilderRecords, Op, OpOutcome, RequestsAfter, StoreError};

/// The store answered a load, with what the seats reported.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Loaded {
    records: Result<BuilderRecords, StoreError>,
    reports: Vec<SeatReport>,
    yielded: Yielded,
    adopted: BTreeMap<ClaimId, Addr<Build>>,
}

/// Builds that go on with earlier actors, and who has them.
type Yielded = BTreeMap<ClaimId, Addr<Builder>>;

/// A new actor, which did not take over, asks an old one which builds it still
/// has: one of a builder that was removed and is configured again, or a
/// predecessor of an actor that gave up. From then on it tells their ends to
/// the new one.
#[derive(actix::Message)]
#[rtype(result = "Yielded")]
struct Yield {
    route: Arc<BuilderRoute>,
}

impl Builder {
    pub(super) fn load(&mut self, ctx: &mut Context<Self>) {
        let (store, id) = (self.world().store.clone(), self.parts.id);
        let seats = self.seats.values().chain(self.lent.values());
        let seats: Vec<_> = seats.map(|seat| seat.addr.clone()).collect();
        let (me, route) = (ctx.address(), self.parts.route.clone());
        let earlier = std::mem::take(&mut self.parts.earlier);
        let orphans = self.parts.orphans.clone();
        actix_rt::spawn(async move {
            let mut yielded = Yielded::new();
            for old in earlier {
                // It may have gone meanwhile: then it has nothing left.
                let route = route.clone();
                yielded.extend(old.send(Yield { route }).await.unwrap_or_default());
            }
            // Before the records are read: what they tell after that reaches us.
            let mut adopted = BTreeMap::new();
            for (claim, build) in orphans {
                let new = NewParent {
                    builder: me.clone().recipient(),
                    finished: me.clone().recipient(),
                    down: me.clone().recipient(),
                };
                if build.send(new).await.is_ok() {
                    adopted.insert(claim, build);
                }
            }
            let (tell, told) = oneshot::channel();
            store.load_builder(
                id,
                Box::new(move |records| {
                    // The actor may have gone meanwhile; then nobody is told.
                    let _ = tell.send(records);
                }),
            );
            let records = told.await.unwrap_or(Err(StoreError::Closed));
            let mut reports = Vec::new();
            for seat in seats {
                let asked = seat.send(DescribeSeat).timeout(Duration::from_secs(5)).await;
                if let Ok(Some(report)) = asked {
                    reports.push(report);
                }
            }
            me.do_send(Loaded { records, reports, yielded, adopted });
        });
    }

    pub(super) fn rebuild(
        &mut self,
        records: BuilderRecords,
        reports: Vec<SeatReport>,
        ctx: &mut Context<Self>,
    ) {
        // The end of one of these may be the message that is lost.
        self.builds.retain(|_, build| build.connected());
        let open: BTreeSet<ClaimId> = records.builds.iter().map(|open| open.claim).collect();
        self.claimed.retain(|claim, _| open.contains(claim));
        let retired = self.own.clone();
        let mut core_records = Records {
            queued: Vec::new(),
            builds: Vec::new(),
            inherited: Vec::new(),
            loaded_through: records.loaded_through,
            expectations: records.expectations,
        };
        if retired.is_none() {
            core_records.queued = records.queued.iter().map(request).collect();
        }
        let mut recovered = Vec::new();
        let mut vanished = retired.clone().unwrap_or_default();
        for open in records.builds {
            vanished.remove(&open.claim);
            let core_build = OpenBuild {
                claim: open.claim,
                build: open.row.id,
                number: open.row.number,
                worker: open.worker.clone(),
                may_return: self.parts.workers.contains_key(&open.worker),
                requests: open.requests.iter().map(request).collect(),
                stop: open.stop.clone(),
            };
            if self.inherited.contains_key(&open.claim) {
                core_records.inherited.push(core_build);
                continue;
            }
            if retired.as_ref().is_some_and(|own| !own.contains_key(&open.claim)) {
                continue;
            }
            let known = self.builds.contains_key(&open.claim)
                || self.parts.workers.contains_key(&open.worker);
            if open.row.number.is_some() && !known {
                self.end_without_worker(&open, ctx);
                continue;
            }
            core_records.builds.push(core_build);
            self.claimed.entry(open.claim).or_insert_with(|| Claimed {
                properties: (*open.row.properties).clone(),
                incarnation: open.row.incarnation,
                grace: open.grace,
            });
            if open.row.number.is_some() && !self.builds.contains_key(&open.claim) {
                recovered.push(open);
            }
        }
        self.drop_silent_seats(&reports);
        let reports = reports.into_iter().filter(|report| self.concerns(report)).collect();
        for open in recovered {
            self.recover_build(open, ctx);
        }
        let running = self.builds.keys().copied().collect();
        let inherited = self.inherited.keys().copied().collect();
        let mut effects = Vec::new();
        let now = self.world().clock.now();
        self.forget_substantiations();
        self.core.rebuild(now, core_records, reports, &running, &inherited, &mut effects);
        if retired.is_some() {
            self.core.retire(&BTreeSet::new(), self.succeeded, &mut effects);
        }
        // Builds of a retired builder that had not been stored, or ended while it
        // was being built anew: its successor has not heard of it. The requests
        // that they had, and those that wait again: one told too many is turned
        // away by its epoch when it is claimed.
        for (claim, requests) in vanished {
            let theirs = |id| requests.contains(&id);
            let waits = records.queued.iter();
            let again = waits.filter(|again| again.row.requeued || theirs(again.row.id));
            let again = again.map(request).collect();
            // A worker may have given a slot, and the word of it be lost.
            for worker in self.parts.workers.values() {
                worker.tell(GiveBackSlot { builder: self.name().clone(), claim });
            }
            effects.push(Effect::TellSuccessor(Event::InheritedFinished {
                claim,
                requeued: again,
                times: None,
            }));
        }
        self.perform_all(effects, ctx);
        // A builder that was never here before has no slots anywhere.
        if retired.is_none() && self.restarts > 0 {
            let claims: BTreeSet<_> = self.core.claims().union(&inherited).copied().collect();
            let listed = self.parts.config.workers.iter();
            let workers: BTreeSet<_> = listed.chain(self.seats.keys()).collect();
            for worker in workers.into_iter().filter_map(|name| self.worker(name)) {
                let (builder, claims) = (self.name().clone(), claims.clone());
                worker.tell(KeepSlots { builder, claims });
            }
        }
    }

    /// Seats that report nothing have lost their worker while nobody was in
    /// charge: the core does not hear of them, so they are let go here.
    fn drop_silent_seats(&mut self, reports: &[SeatReport]) {
        self.seats.retain(|worker, seat| {
            let reports = reports.iter().any(|report| report.worker == *worker);
            if !reports {
                seat.addr.do_send(LetGo);
            }
            reports
        });
    }

    /// Whether a seat's report is about something of this builder's: all of an
    /// own seat's are, of a lent one's those about an own start or build.
    fn concerns(&self, report: &SeatReport) -> bool {
        if self.seats.contains_key(&report.worker) {
            return true;
        }
        let (SeatReportUse::Starting(claim) | SeatReportUse::Building(claim)) = report.used else {
            return false;
        };
        self.own.as_ref().is_some_and(|own| own.contains_key(&claim))
    }

    pub(super) fn recover_build(&mut self, open: crate::store::OpenBuild, ctx: &mut Context<Self>) {
        let Some(worker) = self.parts.workers.get(&open.worker).cloned() else { return };
        let mut config = (*self.parts.config).clone();
        let (started_at, hold) = (open.row.started_at, self.hold(&open));
        // What it teaches is of the factory that it was started with.
        config.factory_digest = factory_digest(&open.factory).unwrap_or_default();
        config.factory = open.factory;
        // Its worker still goes by the lease that it was told then.
        config.grace = config.grace.max(open.grace);
        let requests: Vec<_> = open.requests.iter().map(request).collect();
        let order = BuildOrder {
            order: self.order(
                open.claim,
                open.row.id,
                open.row.incarnation,
                &requests,
                &open.worker,
                Arc::new(config),
            ),
            properties: (*open.row.properties).clone(),
            worker,
            link: None,
            recovered: Some(Recovered { steps: open.steps, started_at, hold }),
            in_doubt: None,
            // It was kept when the build started.
            expected: None,
            builder: ctx.address().recipient(),
            finished: ctx.address().recipient(),
        };
        self.start_build(order, ctx);
    }

    /// How long nobody else may have a build of an earlier master: its worker
    /// goes by what it was told then. A grace counts from this start on; it is
    /// not known when the worker was heard of last.
    fn hold(&self, open: &crate::store::OpenBuild) -> Duration {
        let kill_time = self.world().timers.kill_time;
        let now = self.world().clock.boot_time();
        let rest = open.grant.as_ref().map(|grant| grant.rest(&now, kill_time));
        open.grace.max(rest.unwrap_or_default())
    }

    /// A build of an earlier master whose worker is not configured any more. It
    /// cannot come back with it, but may go on until its lease is over: the
    /// requests wait for the grace, as those of every lost worker do.
    fn end_without_worker(&mut self, open: &crate::store::OpenBuild, ctx: &mut Context<Self>) {
        let config = &self.parts.config;
        let tries = open.requests.iter().map(|request| request.row.infra_tries).max();
        let again = config.on_lost == OnLost::Requeue && tries.unwrap_or_default() < config.infra_retries
            // Nobody knows when its worker ends it.
            && open.grace < FOREVER;
        let lost = format!("worker lost: {} is not configured any more", open.worker);
        let (result, requests, wait, state_string) = if let Some(reason) = &open.stop {
            // Whoever asked was told that it stops: it is not queued again.
            let text = format!("cancelled ({reason})");
            (BuildResult::Cancelled, RequestsAfter::Done, Duration::ZERO, text)
        } else if again {
            let after = RequestsAfter::Requeue { infra: true };
            let wait = config.grace.max(self.hold(open));
            (BuildResult::Retry, after, wait, format!("{lost}; queued again"))
        } else {
            (BuildResult::Exception, RequestsAfter::Done, Duration::ZERO, lost)
        };
        tracing::warn!(builder.name = %self.name(), build = %open.row.id, worker.name = %open.worker, %result, "the worker of a running build is not configured any more");
        let (build, incarnation) = (open.row.id, open.row.incarnation);
        self.ending.insert(build);
        ctx.run_later(wait, move |builder, ctx| {
            let at = builder.world().clock.now().wall;
            let op = Op::FinishBuild { build, incarnation, result, state_string, requests, at };
            builder.end_now(build, op, ctx);
        });
    }

    /// Ends the build, however long the store takes: a successor does not know
    /// of it, so this actor stays until it is done.
    fn end_now(&mut self, build: BuildId, op: Op, ctx: &mut Context<Self>) {
        let (me, again) = (ctx.address(), op.clone());
        self.write(
            vec![op],
            move |written| {
                let requests = match written.as_deref() {
                    Ok([OpOutcome::Requeued { requests }, ..]) => {
                        requests.iter().map(request).collect()
                    }
                    Ok(_) => Vec::new(),
                    Err(error) if !error.is_final() => {
                        tracing::warn!(%error, "a build without a worker was not ended; trying again");
                        me.do_send(EndAgain { build, op: again });
                        return None;
                    }
                    Err(error) => {
                        tracing::error!(%error, "a build without a worker could not be ended");
                        Vec::new()
                    }
                };
                me.do_send(EndedWithoutWorker { build, requests });
                None
            },
            ctx,
        );
    }

    pub(super) fn go_live(&mut self, waiting: Vec<Input>, ctx: &mut Context<Self>) {
        self.mode = Mode::Live;
        self.show();
        let (builder, restarted) = (self.name().clone(), self.restarts > 0);
        if !self.core.is_retired() {
            self.parts.shown.do_send(BuilderShown { builder, restarted });
        }
        self.backlog.extend(waiting);
        self.read_ready(ctx);
        while let Some(input) = self.backlog.pop_front() {
            self.take(input, ctx);
        }
    }
}

/// A build without a worker could not be ended just then.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct EndAgain {
    build: BuildId,
    op: Op,
}

/// A build without a worker has ended; these requests wait again.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct EndedWithoutWorker {
    build: BuildId,
    requests: Vec<Request>,
}

impl Handler<EndAgain> for Builder {
    type Result = ();
    fn handle(&mut self, again: EndAgain, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_secs(1), move |builder, ctx| {
            builder.end_now(again.build, again.op, ctx);
        });
    }
}

impl Handler<EndedWithoutWorker> for Builder {
    type Result = ();
    fn handle(&mut self, ended: EndedWithoutWorker, ctx: &mut Context<Self>) {
        self.ending.remove(&ended.build);
        self.take(Input::Event(Event::Return(ended.requests)), ctx);
    }
}

impl Handler<Loaded> for Builder {
    type Result = ();
    fn handle(&mut self, loaded: Loaded, ctx: &mut Context<Self>) {
        let Mode::Loading { waiting } = &mut self.mode else { return };
        let waiting = std::mem::take(waiting);
        self.inherited.extend(loaded.yielded);
        self.builds.extend(loaded.adopted);
        match loaded.records {
            Ok(records) => {
                self.mode = Mode::Live;
                self.parts.orphans.clear();
                self.rebuild(records, loaded.reports, ctx);
                self.go_live(waiting, ctx);
            }
            Err(error) => {
                tracing::error!(builder.name = %self.name(), %error, "the builder's records could not be read; trying again");
                self.mode = Mode::Loading { waiting };
                ctx.run_later(Duration::from_secs(1), |builder, ctx| builder.load(ctx));
            }
        }
    }
}

impl Handler<Yield> for Builder {
    type Result = MessageResult<Yield>;
    fn handle(&mut self, message: Yield, ctx: &mut Context<Self>) -> Self::Result {
        self.mine = BuilderHandle::new(self.name().clone(), message.route);
        self.succeeded = true;
        self.yielded = true;
        let own = self
            .core
            .claims()
            .into_iter()
            .chain(self.own.iter().flatten().map(|(claim, _)| *claim));
        let own = own.map(|claim| (claim, ctx.address()));
        MessageResult(std::mem::take(&mut self.inherited).into_iter().chain(own).collect())
    }
}
