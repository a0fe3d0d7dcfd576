//! The calm after the faults, in which everything must finish; and what is
//! looked at once a second.

use std::collections::BTreeSet;
use std::time::Duration;

use botmaster::core::slave_builder::State;
use botmaster::core::values::OnLost;
use botmaster::messages::WorkerOrder;
use botmaster::store::{BuildState, RequestState};

use super::{Ev, World};
use crate::faults::Fault;
use crate::machine::Standing;
use crate::master::{Actor, Master};
use crate::message::{Msg, Reply};
use crate::network::Way;

/// In calm everything must have ended by then: the longest pause of a worker
/// that failed its starts is an hour, and two may follow each other.
const LONGEST_CALM: Duration = Duration::from_secs(4 * 3600);
/// How long people wait for a build that waits for its worker.
const PATIENCE: Duration = Duration::from_secs(900);
/// After the last request the world is looked at for this long: late mail, and
/// abandoned builds, end within.
const AFTERWARDS: Duration = Duration::from_secs(30);

impl World {
    pub(super) fn begin_calm(&mut self) {
        self.calm = true;
        self.calm_since = self.now;
        self.mark("calm", 0, 0);
        self.say(|| "CALM: all faults end".into());
        self.panic_next = false;
        self.net.heal();
        for machine in 0..self.machines.len() {
            for way in [Way::Up, Way::Down] {
                self.at(self.now, Ev::Release(machine, way));
            }
            if self.machines[machine].is_double {
                if self.machines[machine].standing != Standing::Down {
                    self.kill_machine(machine, true, true);
                }
                continue;
            }
            // A builder whose folder could not be made is tried again by itself
            // (row FA08).
            self.machines[machine].disk_full = false;
            self.at(self.now, Ev::Thaw(machine));
            self.mend(super::Trouble::Stuck(machine));
        }
        self.desk.slow = false;
        self.desk.full = false;
        self.desk.crash = None;
        self.mend(super::Trouble::StoreStall);
        self.logs.full = false;
        if self.master.is_none() {
            self.at(self.now, Ev::MasterBoot);
        }
        // Every builder and every worker is configured again.
        let mut setup = self.setup.clone();
        for worker in self.all_workers.values() {
            if !setup.workers.iter().any(|known| known.name == worker.name) {
                setup.workers.push(worker.clone());
            }
        }
        for builder in self.all_builders.values() {
            if setup.builder(&builder.name).is_none() {
                setup.builders.push(builder.clone());
            }
        }
        let all: Vec<_> = setup.workers.iter().map(|worker| worker.name.clone()).collect();
        for builder in &mut setup.builders {
            if builder.workers.is_empty() {
                let mut changed = (**builder).clone();
                changed.workers = all.clone();
                *builder = std::sync::Arc::new(changed);
            }
        }
        self.reconfigure(setup);
    }

    /// Once a second.
    pub(super) fn second(&mut self) {
        self.at(self.now + Duration::from_secs(1), Ev::Second);
        self.checks.i1_none_is_lost(&self.store, &self.clients.acknowledged);
        self.i9_look();
        self.i6_look();
        self.i15_look();
        if !self.calm {
            return;
        }
        let calm_for = self.now.since(self.calm_since);
        if calm_for.as_secs().is_multiple_of(5) {
            self.chores();
        }
        if calm_for.as_secs() % 60 == 59 {
            self.checks.i13_no_mail_stays_away();
        }
        if self.is_quiet() {
            let since = *self.quiet_since.get_or_insert(self.now);
            if self.now.since(since) >= AFTERWARDS {
                self.at_the_end();
                self.over = true;
            }
            return;
        }
        self.quiet_since = None;
        if calm_for > LONGEST_CALM {
            self.nothing_ends();
        }
    }

    /// What an operator does until it is so.
    fn chores(&mut self) {
        for machine in 0..self.machines.len() {
            let down = self.machines[machine].standing == Standing::Down;
            if down && !self.machines[machine].is_double {
                self.boot_later(machine, Duration::ZERO);
            }
        }
        let broken =
            self.master.as_ref().and_then(Master::bot_master).is_some_and(|it| it.any_broken());
        if broken {
            // Restarted by hand, once the cause is gone.
            self.kill_master(true, Fault::MasterKilled);
            return;
        }
        if self.now.since(self.calm_since) > PATIENCE {
            self.stop_those_that_wait();
        }
        let paused: Vec<_> =
            self.store.workers().filter(|w| w.row.paused).map(|w| w.row.name.clone()).collect();
        for worker in paused {
            self.order(worker, WorkerOrder::Unpause);
        }
        let reloading =
            self.master.as_ref().and_then(Master::bot_master).is_some_and(|it| it.is_reloading());
        if !reloading && self.differs() {
            self.reload();
        }
    }

    /// A build that waits for its worker waits until that comes back with it or
    /// somebody stops it: a second machine of a name is gone for good.
    fn stop_those_that_wait(&mut self) {
        let Some(bus) = self.master.as_ref().map(|master| master.bus.clone()) else { return };
        let waiting: Vec<_> = bus
            .board
            .borrow()
            .iter()
            .flat_map(|(name, view)| view.builds.iter().map(move |build| (name, build)))
            .filter(|(name, build)| {
                let config = self.setup.builder(name);
                build.build.is_some() && config.is_some_and(|it| it.on_lost == OnLost::Wait)
            })
            .filter_map(|(name, build)| Some((name.clone(), build.build?)))
            .collect();
        for (builder, build) in waiting {
            let id = self.ask("stop");
            let reply = Reply::client(&bus, id);
            self.send_master(Msg::Stop { build, builder, reason: "it is gone".into(), reply });
        }
    }

    fn nothing_ends(&mut self) {
        let requests: Vec<_> = self
            .store
            .requests()
            .filter(|row| !matches!(row.state, RequestState::Done | RequestState::Cancelled))
            .map(|row| format!("request {} {:?}", row.id, row.state))
            .collect();
        let builds: Vec<_> = self
            .store
            .builds()
            .filter(|build| build.row.state != BuildState::Finished)
            .map(|build| format!("build {} {:?}", build.row.id, build.row.state))
            .collect();
        let clients = self.clients.open;
        let mut workers = Vec::new();
        if let Some(master) = &self.master
            && let Some(bot_master) = master.bot_master()
        {
            for (name, addr, _) in bot_master.worker_addrs() {
                match master.actor(addr) {
                    Some(Actor::Worker(it)) if it.core.can_start() => {}
                    Some(Actor::Worker(it)) => workers.push(format!("{name}: {:?}", it.core)),
                    _ => workers.push(format!("{name} has no actor")),
                }
            }
        }
        self.checks.fail(
            "I6",
            format!("after {LONGEST_CALM:?} of calm: {requests:?} {builds:?}, {clients} submissions unanswered, workers that cannot start: {workers:?}"),
        );
    }

    /// I6: a free worker and a waiting request are brought together.
    fn i6_look(&mut self) {
        let mut stuck = BTreeSet::new();
        if let Some(master) = &self.master
            && let Some(bot_master) = master.bot_master()
            && !self.desk.stalled
            && !self.desk.full
            && !self.desk.slow
            && !bot_master.draining
        {
            self.checks.routes.clear();
            for (name, addr, _) in bot_master.in_charge() {
                let Some(Actor::Builder(builder)) = master.actor(addr) else { continue };
                self.checks.routes.insert(builder.route());
                if !builder.is_live() || builder.core.next_deadline().is_some() {
                    continue;
                }
                let view = builder.core.view();
                if view.waiting == 0 || builder.core.is_draining() {
                    continue;
                }
                let limit = builder.core.config().max_builds;
                if limit.is_some_and(|limit| view.builds.len() >= limit as usize) {
                    continue;
                }
                for (worker, word) in &view.workers {
                    if !matches!(*word, "busy" | "idle") {
                        continue;
                    }
                    let found = bot_master.worker_addrs().find(|(name, ..)| *name == worker);
                    let Some((_, addr, _)) = found else { continue };
                    if let Some(Actor::Worker(it)) = master.actor(addr)
                        && it.core.can_start()
                    {
                        stuck.insert((name.clone(), worker.clone()));
                    }
                }
            }
        }
        self.checks.i6_no_seat_is_forgotten(self.now, &stuck);
    }

    fn i9_look(&mut self) {
        let machines = &self.machines;
        self.checks.i9_logs_are_exact(&self.store, &self.logs, |command| {
            machines.iter().filter_map(|machine| machine.written.get(command)).max().copied()
        });
    }

    /// I15: what can grow has its limit.
    fn i15_look(&mut self) {
        let Some(master) = &self.master else { return };
        let mut found = None;
        let asks = self.clients.most;
        for (_, actor) in master.actors() {
            match actor {
                Actor::Builder(builder) if builder.is_live() => {
                    // What was taken in before a limit was lowered stays; and
                    // what was asked for before anybody could see the others, or
                    // before the builder had read its records, may be too many.
                    let limit = self.queue_limits.get(builder.name()).copied().unwrap_or(0);
                    let most = limit + asks + 20;
                    let waiting = builder.core.pending().filter(|r| !r.requeued).count();
                    if waiting > most {
                        found = Some(format!("{waiting} requests wait at a limit of {limit}"));
                    }
                }
                Actor::Worker(worker) if worker.ended.len() > 256 => {
                    found = Some("ended builds are remembered without end".into());
                }
                _ => {}
            }
        }
        let conns = self.net.len();
        if conns > self.machines.len() * 40 {
            found = Some(format!("{conns} connections"));
        }
        for machine in &self.machines {
            if machine.unconfirmed() > 8 * 1024 * 1024 {
                found = Some("a worker holds more log bytes than its window".into());
            }
        }
        let waiting = master.waiting();
        if waiting > 20_000 {
            found = Some(format!("{waiting} messages wait in mailboxes"));
        }
        if let Some(what) = found {
            self.checks.fail("I15", what);
        }
    }

    /// Everything has ended: nothing may be left anywhere.
    fn at_the_end(&mut self) {
        self.checks.i11_adds_up(&self.store);
        let mut found: Option<(&'static str, String)> = None;
        let mut fail = |id, what: String| {
            found.get_or_insert((id, what));
        };
        let Some(master) = &self.master else { return };
        let Some(bot_master) = master.bot_master() else { return };
        let mut routes = BTreeSet::new();
        for (name, addr, _) in bot_master.in_charge() {
            let Some(Actor::Builder(builder)) = master.actor(addr) else {
                fail("I6", format!("builder {name} has no actor"));
                continue;
            };
            routes.insert(builder.route());
            let view = builder.core.view();
            if !builder.is_live() {
                fail("I6", format!("builder {name} is not in charge of itself"));
            }
            if view.waiting > 0 || !view.builds.is_empty() {
                fail("I6", format!("builder {name} still has {view:?}"));
            }
            for (worker, word) in &view.workers {
                if *word != "idle" {
                    fail("I6", format!("worker {worker} is {word} for builder {name}"));
                }
            }
            for (what, left) in builder.leftovers() {
                if left > 0 {
                    fail("I15", format!("builder {name} still has {left} {what}"));
                }
            }
        }
        for (name, addr, config) in bot_master.worker_addrs() {
            let Some(Actor::Worker(worker)) = master.actor(addr) else {
                fail("I6", format!("worker {name} has no actor"));
                continue;
            };
            if worker.core.slots().0 > 0 {
                fail(
                    "I5",
                    format!("worker {name} still has {:?} slots taken", worker.core.slots()),
                );
            }
            if !worker.core.can_start() {
                fail(
                    "I6",
                    format!("worker {name} of {} slots cannot start anything", config.max_builds),
                );
            }
            // A start that was registered as its worker came back over another
            // connection is forgotten with that one.
            if worker.starts.len() > 4 || !worker.pings.is_empty() {
                fail("I15", format!("worker {name} still waits for answers"));
            }
        }
        for (_, actor) in master.actors() {
            match actor {
                Actor::Build(_) => fail("I6", "a Build has not ended".into()),
                Actor::Seat(seat) => {
                    if *seat.core.state() != State::Idle {
                        fail("I6", format!("a SlaveBuilder is {:?}", seat.core.state()));
                    }
                    if !seat.starts.is_empty() || !seat.persons.is_empty() {
                        fail("I15", "somebody still waits for a SlaveBuilder".into());
                    }
                }
                _ => {}
            }
        }
        for (number, machine) in self.machines.iter().enumerate() {
            if !machine.processes.is_empty() {
                fail("I3", format!("machine {number} still runs {:?}", machine.processes.keys()));
            }
            if !machine.builds().is_empty() {
                fail("I6", format!("machine {number} still has builds {:?}", machine.builds()));
            }
        }
        self.checks.i13_no_mail_is_lost(&routes);
        if let Some((id, what)) = found {
            self.checks.fail(id, what);
        }
        if let Some(finding) = self.history.check(&self.store, &self.counts, &self.timers) {
            self.checks.fail(finding.0, finding.1);
        }
        self.mark("end", self.store.writes(), self.store.events().len() as u64);
    }
}
