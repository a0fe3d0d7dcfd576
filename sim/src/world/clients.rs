//! What people and programs ask of the master.

use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::messages::WorkerOrder;
use botmaster::store::{BuildState, RequestState};

use super::{Ev, World};
use crate::client::{Next, PATIENCE, Waiting};
use crate::message::{Answer, Msg, Reply};
use crate::setup::{between, chance, ms, one_of};

/// Submissions of one run, at most.
const MOST: usize = 70;

impl World {
    /// Something to ask for, now and then.
    pub(super) fn act(&mut self) {
        if self.calm {
            return;
        }
        let gap = ms(&mut self.client_rng, 50, 8_000);
        self.at(self.now + gap, Ev::Act);
        match self.client_rng.index(100) {
            0..45 => self.want(),
            45..50 => self.repeat(),
            50..62 => self.cancel(),
            62..69 => self.stop_build(),
            69..76 => self.ping(),
            76..82 => self.set_priority(),
            82..92 => {
                let workers = self.setup.workers.clone();
                if !workers.is_empty() {
                    let worker = one_of(&mut self.client_rng, &workers).name;
                    let pause = chance(&mut self.client_rng, 400);
                    let order = if pause { WorkerOrder::Pause } else { WorkerOrder::Unpause };
                    self.order(worker, order);
                }
            }
            _ => {}
        }
    }

    fn want(&mut self) {
        if self.clients.wanted.len() >= MOST || self.setup.builders.is_empty() {
            return;
        }
        for _ in 0..one_of(&mut self.client_rng, &[1, 1, 1, 2, 5]) {
            let mut builders =
                vec![one_of(&mut self.client_rng, &self.setup.builders).name.clone()];
            if chance(&mut self.client_rng, 150) {
                let other = one_of(&mut self.client_rng, &self.setup.builders).name.clone();
                if !builders.contains(&other) {
                    builders.push(other);
                }
            }
            let priority = one_of(&mut self.client_rng, &[0, 0, 0, 1, 5]);
            let source = between(&mut self.client_rng, 0, 2);
            let number = self.clients.want(builders, priority, source);
            self.submit(number);
        }
    }

    /// An acknowledged submission is sent once more: its answer must be the same.
    fn repeat(&mut self) {
        let told: Vec<usize> = (0..self.clients.wanted.len())
            .filter(|number| self.clients.wanted[*number].told.is_some())
            .collect();
        if !told.is_empty() {
            let number = one_of(&mut self.client_rng, &told);
            self.submit(number);
        }
    }

    pub(super) fn submit(&mut self, number: usize) {
        let Some(bus) = self.master.as_ref().map(|master| master.bus.clone()) else {
            if self.clients.wanted[number].told.is_none() {
                self.at(self.now + Duration::from_secs(1), Ev::Again(number));
            }
            return;
        };
        self.clients.wanted[number].sent += 1;
        let id = self.clients.ask(Waiting::Submit(number));
        self.at(self.now + PATIENCE, Ev::Patience(id));
        let submission = self.clients.wanted[number].submission.clone();
        self.mark("submit", number as u64, id);
        self.send_master(Msg::Submit(vec![submission], Reply::client(&bus, id)));
    }

    /// A client's ask of any other kind, which it does not wait for for ever.
    pub(super) fn ask(&mut self, what: &'static str) -> u64 {
        let id = self.clients.ask(Waiting::Other);
        self.mark(what, id, 0);
        self.at(self.now + PATIENCE, Ev::Patience(id));
        id
    }

    fn name_of(&self, builder: BuilderId) -> Option<BuilderName> {
        self.store.builders().find(|b| b.row.id == builder).map(|b| b.row.name.clone())
    }

    fn cancel(&mut self) {
        let open: Vec<_> = self
            .store
            .requests()
            .filter(|row| matches!(row.state, RequestState::Queued | RequestState::Claimed))
            .map(|row| (row.id, row.builder))
            .collect();
        let Some(bus) = self.master.as_ref().map(|master| master.bus.clone()) else { return };
        if open.is_empty() {
            return;
        }
        let (request, builder) = one_of(&mut self.client_rng, &open);
        let Some(builder) = self.name_of(builder) else { return };
        let id = self.clients.ask(Waiting::Cancel(request));
        self.mark("cancel", request.0, id);
        self.say(|| format!("client: cancel request {request}"));
        self.at(self.now + PATIENCE, Ev::Patience(id));
        let reply = Reply::client(&bus, id);
        self.send_master(Msg::Cancel { request, builder, reason: "not needed".into(), reply });
    }

    fn stop_build(&mut self) {
        let open: Vec<_> = self
            .store
            .builds()
            .filter(|build| build.row.state != BuildState::Finished)
            .map(|build| (build.row.id, build.row.builder))
            .collect();
        let Some(bus) = self.master.as_ref().map(|master| master.bus.clone()) else { return };
        if open.is_empty() {
            return;
        }
        let (build, builder) = one_of(&mut self.client_rng, &open);
        let Some(builder) = self.name_of(builder) else { return };
        let id = self.ask("stop");
        self.say(|| format!("client: stop build {build}"));
        let reply = Reply::client(&bus, id);
        self.send_master(Msg::Stop { build, builder, reason: "enough".into(), reply });
    }

    fn ping(&mut self) {
        let Some(bus) = self.master.as_ref().map(|master| master.bus.clone()) else { return };
        if self.setup.builders.is_empty() {
            return;
        }
        let builder = one_of(&mut self.client_rng, &self.setup.builders).name.clone();
        let id = self.ask("ping");
        self.send_master(Msg::PingBuilder { builder, reply: Reply::client(&bus, id) });
    }

    fn set_priority(&mut self) {
        let open: Vec<_> = self
            .store
            .requests()
            .filter(|row| row.state == RequestState::Queued)
            .map(|row| (row.id, row.builder))
            .collect();
        let Some(bus) = self.master.as_ref().map(|master| master.bus.clone()) else { return };
        if open.is_empty() {
            return;
        }
        let (request, builder) = one_of(&mut self.client_rng, &open);
        let Some(builder) = self.name_of(builder) else { return };
        self.checks.touched.insert(request);
        let id = self.ask("priority");
        let priority = i64::try_from(between(&mut self.client_rng, 0, 9)).unwrap_or(0);
        let reply = Reply::client(&bus, id);
        self.send_master(Msg::SetPriority { request, builder, priority, reply });
    }

    /// A person's order to a worker. False when nobody could be asked.
    pub(super) fn order(&mut self, worker: WorkerName, order: WorkerOrder) -> bool {
        let Some(bus) = self.master.as_ref().map(|master| master.bus.clone()) else { return false };
        let id = self.ask("order");
        self.say(|| format!("client: {order:?} worker {worker}"));
        self.send_master(Msg::Order { worker, order, reply: Reply::client(&bus, id) });
        true
    }

    pub(super) fn answer(&mut self, id: u64, answer: &Answer) {
        if self.trace.verbose && self.clients.waiting.contains_key(&id) {
            let line = format!("client: ask {id} is answered {answer:?}");
            self.say(|| line.chars().take(160).collect());
        }
        match self.clients.answered(id, answer) {
            Next::Nothing => {}
            Next::Again(number) => {
                let wanted = &self.clients.wanted[number];
                if wanted.told.is_none() && !wanted.refused {
                    let wait = ms(&mut self.client_rng, 500, 3_000);
                    self.at(self.now + wait, Ev::Again(number));
                }
            }
            Next::Acknowledged(ids, before) => {
                self.mark("acknowledged", ids.first().map_or(0, |id| id.0), ids.len() as u64);
                if before.is_none() {
                    self.history.submitted(self.now, &ids);
                }
                self.checks.i1_i12_acknowledged_is_stored(&self.store, &ids, before.as_deref());
            }
            Next::Cancelled(request) => {
                self.mark("cancelled", request.0, 0);
                self.checks.i12_cancel_holds(&self.store, request);
            }
        }
    }

    /// The master is gone, and so is every answer that was to come.
    pub(super) fn lose_answers(&mut self) {
        let waiting: Vec<u64> = self.clients.waiting.keys().copied().collect();
        for id in waiting {
            self.answer(id, &Answer::Gone);
        }
    }
}
