//! The one way up, after `actors/builder/rebuild.rs`: from the store's records
//! and from what the living parts report.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::builder::{Effect, Event, OpenBuild, Records, SeatReport, SeatReportUse};
use botmaster::core::ids::*;
use botmaster::core::lease::FOREVER;
use botmaster::core::values::{BuildResult, OnLost};
use botmaster::store::{BuilderRecords, Op, OpOutcome, RequestsAfter, StoreError};

use crate::bus::{Addr, Bus, Supervision};
use crate::message::*;

use super::Actor;
use super::build::{BuildOrder, Recovered, request};
use super::builder::{Builder, Claimed, Input, Mode};

/// The task between a Builder and its records: asks the removed actor, the
/// store, then each seat, one after the other.
pub struct Loader {
    me: Addr,
    bus: Rc<Bus>,
    builder: Addr,
    id: BuilderId,
    removed: Option<(Addr, Rc<BuilderRoute>)>,
    seats: VecDeque<Addr>,
    yielded: Yielded,
    records: Option<Box<Result<BuilderRecords, StoreError>>>,
    reports: Vec<SeatReport>,
}

impl Loader {
    fn ask_store(&self) {
        let (bus, me) = (self.bus.clone(), self.me);
        self.bus.load(
            self.id,
            Box::new(move |records| bus.send(me, Msg::LoadRecords(Box::new(records)))),
        );
    }

    fn ask_next_seat(&mut self) {
        if let Some(seat) = self.seats.pop_front() {
            let ask = Ask::new(&self.bus, self.me, Msg::LoadReport, || Msg::LoadReport(None));
            self.bus.send(seat, Msg::DescribeSeat(ask));
            return;
        }
        if let Some(records) = self.records.take() {
            let reports = std::mem::take(&mut self.reports);
            let yielded = std::mem::take(&mut self.yielded);
            self.bus.send(self.builder, Msg::Loaded { records, reports, yielded });
            self.bus.stop(self.me);
        }
    }

    /// Takes in one message.
    pub fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Started => match self.removed.take() {
                Some((removed, route)) => {
                    let ask = Ask::new(&self.bus, self.me, Msg::LoadYielded, || {
                        Msg::LoadYielded(Yielded::new())
                    });
                    self.bus.send(removed, Msg::Yield { route, ask });
                }
                None => self.ask_store(),
            },
            Msg::LoadYielded(yielded) => {
                self.yielded = yielded;
                self.ask_store();
            }
            Msg::LoadRecords(records) => {
                self.records = Some(records);
                self.ask_next_seat();
            }
            Msg::LoadReport(report) => {
                self.reports.extend(report);
                self.ask_next_seat();
            }
            other => panic!("a loader was told {}", other.word()),
        }
    }
}

impl Builder {
    pub(super) fn load(&mut self) {
        let seats = self.seats.values().chain(self.lent.values()).map(|seat| seat.addr).collect();
        let removed = self.parts.removed.take().map(|addr| (addr, self.parts.route.clone()));
        let (bus, builder, id) = (self.bus.clone(), self.me, self.parts.id);
        self.bus.spawn(
            |me| {
                Actor::Loader(Loader {
                    me,
                    bus,
                    builder,
                    id,
                    removed,
                    seats,
                    yielded: Yielded::new(),
                    records: None,
                    reports: Vec::new(),
                })
            },
            Supervision::none(),
        );
    }

    pub(super) fn loaded(
        &mut self,
        records: Result<BuilderRecords, StoreError>,
        reports: Vec<SeatReport>,
        yielded: Yielded,
    ) {
        let Mode::Loading { waiting } = &mut self.mode else { return };
        let waiting = std::mem::take(waiting);
        self.inherited.extend(yielded);
        match records {
            Ok(records) => {
                self.mode = Mode::Live;
                self.rebuild(records, reports);
                self.go_live(waiting);
            }
            Err(_) => {
                self.mode = Mode::Loading { waiting };
                self.bus.later(self.me, Duration::from_secs(1), Msg::LoadAgain);
            }
        }
    }

    fn rebuild(&mut self, records: BuilderRecords, reports: Vec<SeatReport>) {
        // The end of one of these may be the message that is lost.
        let bus = self.bus.clone();
        self.builds.retain(|_, build| bus.is_alive(*build));
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
                self.end_without_worker(&open);
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
            self.recover_build(open);
        }
        let running = self.builds.keys().copied().collect();
        let inherited: BTreeSet<ClaimId> = self.inherited.keys().copied().collect();
        let mut effects = Vec::new();
        let now = self.bus.now();
        self.core.rebuild(now, core_records, reports, &running, &inherited, &mut effects);
        if retired.is_some() {
            self.core.retire(&BTreeSet::new(), self.succeeded, &mut effects);
        }
        for (claim, requests) in vanished {
            let theirs = |id| requests.contains(&id);
            let waits = records.queued.iter();
            let again = waits.filter(|again| again.row.requeued || theirs(again.row.id));
            let again = again.map(request).collect();
            for door in self.parts.workers.values() {
                let builder = self.name().clone();
                self.bus.send(door.addr, Msg::GiveBackSlot { builder, claim });
            }
            effects.push(Effect::TellSuccessor(Event::InheritedFinished {
                claim,
                requeued: again,
                times: None,
            }));
        }
        self.perform_all(effects);
        if retired.is_none() && self.restarts > 0 {
            let claims: BTreeSet<_> = self.core.claims().union(&inherited).copied().collect();
            let listed = self.parts.config.workers.iter();
            let workers: BTreeSet<_> = listed.chain(self.seats.keys()).cloned().collect();
            for worker in workers.iter().filter_map(|name| self.worker(name)) {
                let (builder, claims) = (self.name().clone(), claims.clone());
                self.bus.send(worker.addr, Msg::KeepSlots { builder, claims });
            }
        }
    }

    fn drop_silent_seats(&mut self, reports: &[SeatReport]) {
        let bus = self.bus.clone();
        self.seats.retain(|worker, seat| {
            let reports = reports.iter().any(|report| report.worker == *worker);
            if !reports {
                bus.send(seat.addr, Msg::LetGo);
            }
            reports
        });
    }

    fn concerns(&self, report: &SeatReport) -> bool {
        if self.seats.contains_key(&report.worker) {
            return true;
        }
        let (SeatReportUse::Starting(claim) | SeatReportUse::Building(claim)) = report.used else {
            return false;
        };
        self.own.as_ref().is_some_and(|own| own.contains_key(&claim))
    }

    fn recover_build(&mut self, open: botmaster::store::OpenBuild) {
        let Some(worker) = self.parts.workers.get(&open.worker).cloned() else { return };
        let mut config = (*self.parts.config).clone();
        let (started_at, hold) = (open.row.started_at, self.hold(&open));
        config.factory_digest = crate::setup::digest(&open.factory);
        config.factory = open.factory;
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
            expected: None,
            builder: self.me,
        };
        self.start_build(order);
    }

    fn hold(&self, open: &botmaster::store::OpenBuild) -> Duration {
        let (now, kill_time) = (self.bus.boot_time(), self.bus.timers.kill_time);
        let rest = open.grant.as_ref().map(|grant| grant.rest(&now, kill_time));
        open.grace.max(rest.unwrap_or_default())
    }

    fn end_without_worker(&mut self, open: &botmaster::store::OpenBuild) {
        let config = &self.parts.config;
        let tries = open.requests.iter().map(|request| request.row.infra_tries).max();
        let again = config.on_lost == OnLost::Requeue && tries.unwrap_or_default() < config.infra_retries
            // Nobody knows when its worker ends it.
            && open.grace < FOREVER;
        let (result, requests, wait) = if open.stop.is_some() {
            (BuildResult::Cancelled, RequestsAfter::Done, Duration::ZERO)
        } else if again {
            let wait = config.grace.max(self.hold(open));
            (BuildResult::Retry, RequestsAfter::Requeue { infra: true }, wait)
        } else {
            (BuildResult::Exception, RequestsAfter::Done, Duration::ZERO)
        };
        let op = Op::FinishBuild {
            build: open.row.id,
            incarnation: open.row.incarnation,
            result,
            state_string: format!("worker lost: {} is not configured any more", open.worker),
            requests,
            at: self.bus.now().wall,
        };
        self.ending.insert(open.row.id);
        self.bus.later(self.me, wait, Msg::EndWithoutWorker(open.row.id, Box::new(op)));
    }

    pub(super) fn end_now(&mut self, build: BuildId, op: Op) {
        let (me, bus, again) = (self.me, self.bus.clone(), op.clone());
        self.write(vec![op], move |written| {
            let requests = match written.as_deref() {
                Ok([OpOutcome::Requeued { requests }, ..]) => {
                    requests.iter().map(request).collect()
                }
                Err(error) if !error.is_final() => {
                    let again = Msg::EndWithoutWorker(build, Box::new(again));
                    bus.later(me, Duration::from_secs(1), again);
                    return None;
                }
                Ok(_) | Err(_) => Vec::new(),
            };
            bus.send(me, Msg::EndedWithoutWorker(build, requests));
            None
        });
    }

    pub(super) fn go_live(&mut self, waiting: Vec<Input>) {
        self.mode = Mode::Live;
        self.show();
        let (builder, restarted) = (self.name().clone(), self.restarts > 0);
        if !self.core.is_retired() {
            self.bus.send(self.parts.master, Msg::BuilderShown { builder, restarted });
        }
        self.backlog.extend(waiting);
        self.read_ready();
        while let Some(input) = self.backlog.pop_front() {
            self.take(input);
        }
    }

    pub(super) fn on_yield(&mut self, route: Rc<BuilderRoute>, ask: Ask<Yielded>) {
        self.mine = BuilderDoor::new(&self.bus, self.name().clone(), route);
        self.succeeded = true;
        self.yielded = true;
        let own = self
            .core
            .claims()
            .into_iter()
            .chain(self.own.iter().flatten().map(|(claim, _)| *claim));
        let own: BTreeMap<_, _> = own.map(|claim| (claim, self.me)).collect();
        ask.answer(std::mem::take(&mut self.inherited).into_iter().chain(own).collect());
    }
}
