//! Connections and the machines behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::worker::agent::Event as ToAgent;

use super::{Ev, World};
use crate::bus::{Supervision, Wire};
use crate::machine::{Standing, Wish};
use crate::master::{Actor, Connection};
use crate::message::Msg;
use crate::network::{Parcel, Way};
use crate::setup::{between, ms};

impl World {
    pub(super) fn wire(&mut self, session: SessionId, wire: Wire) {
        let Some(conn) = self.net.of_session(self.life, session) else { return };
        match wire {
            Wire::Frame(frame) => {
                if self.net.get(conn).is_some_and(|conn| conn.master_open) {
                    self.mark(frame.kind(), session.0, 1);
                    let kind = frame.kind();
                    if kind != "heartbeat" {
                        self.say(|| format!("session {}: master says {kind}", session.0));
                    }
                    self.parcel(conn, Way::Down, Parcel::FromMaster(frame));
                }
            }
            Wire::Close(reason) => {
                self.say(|| format!("session {}: master closes: {reason}", session.0));
                self.mark("close", session.0, 1);
                // Until its reader notices, it still passes frames on.
                let wait = Duration::from_micros(between(&mut self.net_rng, 0, 3_000));
                self.at(self.now + wait, Ev::Closes(conn));
            }
        }
    }

    pub(super) fn master_closes(&mut self, id: u64) {
        let Some(conn) = self.net.get(id) else { return };
        if !conn.master_open {
            return;
        }
        conn.master_open = false;
        let session = conn.session;
        self.parcel(id, Way::Down, Parcel::End);
        self.tell_connection(session, Msg::Ended);
    }

    pub(super) fn tell_connection(&mut self, session: SessionId, msg: Msg) {
        let Some(master) = &self.master else { return };
        if let Some(addr) = master.connections.get(&session) {
            master.bus.send(*addr, msg);
        }
    }

    pub(crate) fn parcel(&mut self, conn: u64, way: Way, parcel: Parcel) {
        let at = self.net.arrival(&mut self.net_rng, conn, way, self.now);
        self.at(at, Ev::Arrive(conn, way, parcel));
    }

    pub(super) fn arrived(&mut self, id: u64, way: Way, parcel: Parcel) {
        match way {
            Way::Up => self.arrived_at_master(id, parcel),
            Way::Down => self.arrived_at_worker(id, parcel),
        }
        self.net.tidy();
    }

    pub(super) fn arrived_at_master(&mut self, id: u64, parcel: Parcel) {
        let life = self.life;
        let Some(conn) = self.net.get(id) else { return };
        let session = conn.session;
        if !conn.master_open || conn.life != life || self.master.is_none() {
            // Its host is there and does not know the connection (any more).
            if self.master_host_up && matches!(parcel, Parcel::FromWorker(_)) {
                conn.master_open = false;
                self.parcel(id, Way::Down, Parcel::End);
            }
            return;
        }
        match parcel {
            Parcel::FromWorker(frame) => {
                self.mark(frame.kind(), session.0, 2);
                if let Some(bus) = self.bus() {
                    bus.heard(session);
                }
                self.tell_connection(session, Msg::Arrived(frame));
            }
            Parcel::End => {
                conn.master_open = false;
                self.mark("end", session.0, 2);
                self.tell_connection(session, Msg::Ended);
            }
            Parcel::FromMaster(_) => {}
        }
    }

    pub(super) fn arrived_at_worker(&mut self, id: u64, parcel: Parcel) {
        let Some(conn) = self.net.get(id) else { return };
        let (machine, key) = (conn.machine, conn.link);
        if !conn.worker_open {
            if self.host_up[machine] && matches!(parcel, Parcel::FromMaster(_)) {
                self.parcel(id, Way::Up, Parcel::End);
            }
            return;
        }
        let mut wishes = Vec::new();
        let (now, link) = (self.now, key & 0xffff_ffff);
        match parcel {
            Parcel::FromMaster(frame) => {
                self.machines[machine].frame(now, link, *frame, &mut wishes);
            }
            Parcel::End => {
                conn.worker_open = false;
                let reason = "the master closed the connection".to_owned();
                self.machines[machine].hear(now, ToAgent::Closed { link, reason }, &mut wishes);
            }
            Parcel::FromWorker(_) => {}
        }
        self.grant(machine, wishes);
    }

    // Machines.

    pub(super) fn key(&self, machine: usize, link: u64) -> u64 {
        (self.boots[machine] << 32) | link
    }

    pub(crate) fn grant(&mut self, machine: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Dial(link) => {
                    let key = self.key(machine, link);
                    let at = self.now + ms(&mut self.net_rng, 1, 5 + self.net.slow);
                    self.at(at, Ev::Dial(machine, key));
                }
                Wish::Close(link) => {
                    let key = self.key(machine, link);
                    if let Some(conn) = self.net.of_link(machine, key) {
                        self.worker_closes(conn);
                    }
                }
                Wish::Send(link, frame) => {
                    let key = self.key(machine, link);
                    let conn = self.net.of_link(machine, key);
                    let open = conn.filter(|id| self.net.get(*id).is_some_and(|c| c.worker_open));
                    if let Some(conn) = open {
                        let kind = frame.kind();
                        if self.trace.verbose && kind != "heartbeat" {
                            self.say(|| format!("machine {machine}: says {kind}"));
                        }
                        self.parcel(conn, Way::Up, Parcel::FromWorker(frame));
                    }
                }
                Wish::WakeAt(at) => {
                    if self.wakes[machine].is_none_or(|known| at < known) {
                        self.wakes[machine] = Some(at);
                        self.at(at, Ev::Machine(machine));
                    }
                }
                Wish::Began(build, command) => self.process_began(machine, build, &command),
                Wish::Over(build, command) => {
                    self.mark("process-over", machine as u64, build.0);
                    self.say(|| format!("machine {machine}: {command} is over"));
                    self.checks.process_over(machine, build, &command);
                    self.history.over(self.now, &self.machines[machine].name, &command);
                }
                Wish::Left => {
                    self.say(|| format!("machine {machine}: its program has left"));
                    self.close_all_of(machine, true);
                    self.boots[machine] += 1;
                    let boot = self.boots[machine];
                    if !self.machines[machine].is_double {
                        let at = self.now + ms(&mut self.fault_rng, 500, 30_000);
                        self.at(at, Ev::Boot(machine, boot));
                    }
                }
            }
        }
    }

    pub(super) fn process_began(&mut self, machine: usize, build: BuildId, command: &CommandId) {
        self.mark("process", machine as u64, build.0);
        self.say(|| format!("machine {machine}: {command} begins"));
        let held = self.machines[machine].requests.get(&build).cloned().unwrap_or_default();
        let requests: Vec<_> = held.iter().map(|(id, _)| *id).collect();
        self.history.began(self.now, &self.machines[machine], build, held, command);
        let names: BTreeMap<usize, WorkerName> = self
            .machines
            .iter()
            .enumerate()
            .map(|(number, it)| (number, it.name.clone()))
            .collect();
        let doubled: BTreeSet<WorkerName> =
            self.machines.iter().filter(|it| it.is_double).map(|it| it.name.clone()).collect();
        self.checks.i3_never_two_at_once(machine, build, command, &requests, |number| {
            names.get(&number).is_some_and(|name| !doubled.contains(name))
        });
    }

    pub(super) fn worker_closes(&mut self, id: u64) {
        let Some(conn) = self.net.get(id) else { return };
        if conn.worker_open {
            conn.worker_open = false;
            self.parcel(id, Way::Up, Parcel::End);
        }
    }

    /// All sockets of a machine are gone; the other side hears of it or not.
    pub(crate) fn close_all_of(&mut self, machine: usize, told: bool) {
        for id in self.net.of_machine(machine) {
            if let Some(conn) = self.net.get(id) {
                conn.worker_open = false;
            }
            if told {
                self.parcel(id, Way::Up, Parcel::End);
            }
        }
    }

    pub(super) fn dialled(&mut self, machine: usize, key: u64) {
        if key >> 32 != self.boots[machine] {
            return;
        }
        let blocked = self.net.is_blocked(machine, Way::Up, self.now)
            || self.net.is_blocked(machine, Way::Down, self.now);
        if blocked || !self.master_host_up {
            self.at(self.now + Duration::from_secs(10), Ev::DialFailed(machine, key));
            return;
        }
        if self.master.is_none() {
            self.dial_failed(machine, key);
            return;
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.net.open(machine, key, session, self.life);
        self.mark("connected", machine as u64, session.0);
        self.say(|| format!("machine {machine}: connected as session {}", session.0));
        if let Some(master) = &mut self.master {
            let (bus, root, routes) = (master.bus.clone(), master.root, master.routes.clone());
            let addr = bus.spawn(
                |me| Actor::Connection(Connection::new(me, &bus, root, &routes, session)),
                Supervision::none(),
            );
            master.connections.insert(session, addr);
        }
        let mut wishes = Vec::new();
        let link = key & 0xffff_ffff;
        self.machines[machine].hear(self.now, ToAgent::Connected { link }, &mut wishes);
        self.grant(machine, wishes);
    }

    pub(super) fn dial_failed(&mut self, machine: usize, key: u64) {
        if key >> 32 != self.boots[machine] {
            return;
        }
        let mut wishes = Vec::new();
        let (link, reason) = (key & 0xffff_ffff, "cannot connect".to_owned());
        self.machines[machine].hear(self.now, ToAgent::Closed { link, reason }, &mut wishes);
        self.grant(machine, wishes);
    }

    pub(super) fn boot_machine(&mut self, machine: usize, boot: u64) {
        if self.boots[machine] != boot || self.machines[machine].standing != Standing::Down {
            return;
        }
        self.host_up[machine] = true;
        self.boots[machine] += 1;
        self.mark("boot", machine as u64, boot);
        self.say(|| format!("machine {machine}: its program starts"));
        let mut wishes = Vec::new();
        self.machines[machine].boot(self.now, &mut wishes);
        self.grant(machine, wishes);
    }

    pub(crate) fn kill_machine(&mut self, machine: usize, with_processes: bool, told: bool) {
        self.mark("kill", machine as u64, u64::from(with_processes));
        self.say(|| format!("machine {machine}: killed, processes too: {with_processes}"));
        self.close_all_of(machine, told);
        self.host_up[machine] = told;
        let mut wishes = Vec::new();
        self.machines[machine].die(with_processes, &mut wishes);
        self.grant(machine, wishes);
        self.boots[machine] += 1;
    }

    pub(crate) fn boot_later(&mut self, machine: usize, wait: Duration) {
        let boot = self.boots[machine];
        self.at(self.now + wait, Ev::Boot(machine, boot));
    }
}
