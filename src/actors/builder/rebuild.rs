//! The one way up: from the store's records and from what the living parts
//! report, after a start of the master and after a panic alike.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler};
use tokio::sync::oneshot;

use super::{Builder, Claimed, Input, Mode, request};
use crate::actors::bot_master::BuilderShown;
use crate::actors::build::BuildOrder;
use crate::core::builder::{OpenBuild, Records, SeatReport};
use crate::messages::{DescribeSeat, KeepSlots};
use crate::store::{BuilderRecords, StoreError};

/// The store answered a load, with what the seats reported.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Loaded {
    records: Result<BuilderRecords, StoreError>,
    reports: Vec<SeatReport>,
}

impl Builder {
    // ---- the one way up ------------------------------------------------

    pub(super) fn load(&mut self, ctx: &mut Context<Self>) {
        let (tell, told) = oneshot::channel();
        self.world().store.load_builder(
            self.parts.id,
            Box::new(move |records| {
                // The actor may have gone meanwhile; then nobody is told.
                let _ = tell.send(records);
            }),
        );
        let seats: Vec<_> = self.seats.values().map(|seat| seat.addr.clone()).collect();
        let me = ctx.address();
        actix_rt::spawn(async move {
            let records = told.await.unwrap_or(Err(StoreError::Closed));
            let mut reports = Vec::new();
            for seat in seats {
                let asked = seat.send(DescribeSeat).timeout(Duration::from_secs(5)).await;
                if let Ok(Some(report)) = asked {
                    reports.push(report);
                }
            }
            me.do_send(Loaded { records, reports });
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
        let Some(worker) = self.parts.workers.get(&open.worker).cloned() else {
            tracing::warn!(builder.name = %self.name(), build = %open.row.id, worker.name = %open.worker, "the worker of a running build is not configured any more");
            return;
        };
        let mut config = (*self.parts.config).clone();
        config.factory = open.factory;
        let requests: Vec<_> = open.requests.iter().map(request).collect();
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
