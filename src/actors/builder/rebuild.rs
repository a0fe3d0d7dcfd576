//! The one way up: from the store's records and from what the living parts
//! report, after a start of the master and after a panic alike.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use tokio::sync::oneshot;

use super::removal::{Adopt, InheritedBuilds};
use super::{Builder, Claimed, Input, Mode, request};
use crate::actors::bot_master::BuilderShown;
use crate::actors::build::BuildOrder;
use crate::actors::worker::Worker;
use crate::core::build::Event as ToBuild;
use crate::core::builder::{OpenBuild, Records, SeatReport};
use crate::messages::{BuildEvent, DescribeSeat, KeepSlots, WorkerHandle};
use crate::store::{BuilderRecords, StoreError};

/// How long another actor may take to answer a question.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// The store answered a load, with what the seats reported.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Loaded {
    records: Result<BuilderRecords, StoreError>,
    reports: Vec<SeatReport>,
    adopted: InheritedBuilds,
}

impl Builder {
    // ---- the one way up ------------------------------------------------

    pub(super) fn load(&mut self, ctx: &mut Context<Self>) {
        let seats: Vec<_> = self.seats.values().map(|seat| seat.addr.clone()).collect();
        let (store, id) = (self.world().store.clone(), self.parts.id);
        let route = self.parts.route.clone();
        // Once it was removed itself they are its adopter's.
        let removed = if self.own.is_none() { self.parts.removed.clone() } else { Vec::new() };
        let me = ctx.address();
        actix_rt::spawn(async move {
            // Asked before the store is read: what ends in between is told.
            let mut adopted = InheritedBuilds::new();
            for actor in removed {
                let asked = actor.send(Adopt { route: route.clone() }).timeout(ASK_LIMIT).await;
                // One that has gone meanwhile has nothing left.
                adopted.extend(asked.unwrap_or_default());
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
                let asked = seat.send(DescribeSeat).timeout(ASK_LIMIT).await;
                if let Ok(Some(report)) = asked {
                    reports.push(report);
                }
            }
            me.do_send(Loaded { records, reports, adopted });
        });
    }

    pub(super) fn rebuild(
        &mut self,
        records: BuilderRecords,
        reports: Vec<SeatReport>,
        ctx: &mut Context<Self>,
    ) {
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
        for open in records.builds {
            let core_build = OpenBuild {
                claim: open.claim,
                build: open.row.id,
                number: open.row.number,
                worker: open.worker.clone(),
                requests: open.requests.iter().map(request).collect(),
            };
            if self.inherited.contains_key(&open.claim) {
                core_records.inherited.push(core_build);
                continue;
            }
            if retired.as_ref().is_some_and(|own| !own.contains(&open.claim)) {
                continue;
            }
            core_records.builds.push(core_build);
            self.claimed.entry(open.claim).or_insert_with(|| Claimed {
                properties: (*open.row.properties).clone(),
                incarnation: open.row.incarnation,
            });
            if open.row.number.is_some() && !self.builds.contains_key(&open.claim) {
                recovered.push(open);
            }
        }
        let reports =
            reports.into_iter().filter(|report| self.seats.contains_key(&report.worker)).collect();
        for open in recovered {
            self.recover_build(open, ctx);
        }
        let running = self.builds.keys().copied().collect();
        let inherited = self.inherited.keys().copied().collect();
        let mut effects = Vec::new();
        let now = self.world().clock.now();
        self.core.rebuild(now, core_records, reports, &running, &inherited, &mut effects);
        if retired.is_some() {
            self.core.retire(&BTreeSet::new(), &mut effects);
        }
        self.perform_all(effects, ctx);
        let claims = self.core.claims();
        for seat in self.seats.values() {
            seat.worker.keep.do_send(KeepSlots {
                builder: self.name().clone(),
                claims: claims.union(&inherited).copied().collect(),
            });
        }
    }

    pub(super) fn recover_build(&mut self, open: crate::store::OpenBuild, ctx: &mut Context<Self>) {
        let known = self.parts.workers.get(&open.worker).cloned();
        // Without its worker the build is lost, and says so like any other.
        let lost = known.is_none().then(|| ToBuild::Unreachable {
            why: format!("worker `{}` is not configured any more", open.worker),
        });
        let worker = known.unwrap_or_else(|| {
            let nobody = Context::<Worker>::new().address();
            Arc::new(WorkerHandle::new(open.worker.clone(), open.row.worker, &nobody))
        });
        let mut config = (*self.parts.config).clone();
        config.factory = open.factory;
        let requests: Vec<_> = open.requests.iter().map(request).collect();
        let claim = open.claim;
        let order = BuildOrder {
            order: self.order(
                open.claim,
                open.row.id,
                open.row.incarnation,
                &requests,
                Arc::new(config),
            ),
            properties: (*open.row.properties).clone(),
            worker,
            link: None,
            recovered: Some(open.steps),
            builder: ctx.address().recipient(),
            finished: ctx.address().recipient(),
        };
        self.start_build(order, ctx);
        if let (Some(event), Some(build)) = (lost, self.builds.get(&claim)) {
            build.do_send(BuildEvent(event));
        }
    }

    pub(super) fn go_live(&mut self, waiting: Vec<Input>, ctx: &mut Context<Self>) {
        self.mode = Mode::Live;
        self.show();
        let builder = self.name().clone();
        self.parts.shown.do_send(BuilderShown { builder });
        let mut waiting = waiting.into_iter();
        while let Some(input) = waiting.next() {
            self.take(input, ctx);
            if let Mode::HandingOver { waiting: later, .. } = &mut self.mode {
                later.extend(waiting.by_ref());
            }
        }
    }
}

impl Handler<Loaded> for Builder {
    type Result = ();
    fn handle(&mut self, loaded: Loaded, ctx: &mut Context<Self>) {
        let Mode::Loading { waiting } = &mut self.mode else { return };
        let waiting = std::mem::take(waiting);
        self.inherited.extend(loaded.adopted);
        match loaded.records {
            Ok(records) => {
                self.mode = Mode::Live;
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
