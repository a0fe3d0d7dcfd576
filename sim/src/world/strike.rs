//! Faults strike, and end.

use std::sync::Arc;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::core::values::BuilderConfig;
use botmaster::messages::WorkerOrder;
use botmaster::protocol::json_v1::{Outcome, Usage, WorkerFrame};

use super::{CrashAt, Ev, Trouble, World};
use crate::faults::Fault;
use crate::machine::Standing;
use crate::message::{Msg, Reply};
use crate::network::{Parcel, Way};
use crate::setup::{between, chance, digest, draw_builder, draw_factory, ms, one_of, some_of};

impl World {
    /// When this kind strikes next.
    pub(super) fn next_strike(&mut self, fault: Fault) {
        let gap = self.plan.gap(&mut self.fault_rng, fault);
        if let Some(gap) = gap {
            self.at(self.now + gap, Ev::Strike(fault));
        }
    }

    pub(super) fn struck(&mut self, fault: Fault) {
        *self.counts.entry(fault).or_default() += 1;
        self.mark(fault.word(), 0, 3);
        self.say(|| format!("FAULT {}", fault.word()));
    }

    /// A machine for a fault: the victim's, when only that one has any.
    fn some_machine(&mut self) -> usize {
        let of_victim = |world: &Self, number: usize| {
            world.victim.as_ref().is_none_or(|name| world.machines[number].name == *name)
        };
        let fit: Vec<usize> =
            (0..self.machines.len()).filter(|number| of_victim(self, *number)).collect();
        one_of(&mut self.fault_rng, &fit)
    }

    pub(super) fn strike(&mut self, fault: Fault) {
        if self.calm {
            return;
        }
        self.next_strike(fault);
        match fault {
            Fault::ConnectionCut
            | Fault::HalfOpen
            | Fault::OneWayUp
            | Fault::OneWayDown
            | Fault::SlowNetwork => self.strike_network(fault),
            Fault::ProgramAndProcessesKilled
            | Fault::ProgramKilled
            | Fault::MachinePower
            | Fault::Frozen
            | Fault::SlowWorker
            | Fault::WorkerDiskFull
            | Fault::StuckCommands
            | Fault::DuplicateAttach
            | Fault::RogueFrame => self.strike_machine(fault),
            Fault::StoreSlow | Fault::StoreFull | Fault::StoreStall | Fault::LogsFull => {
                self.strike_store(fault);
            }
            Fault::MasterKilled
            | Fault::MasterPower
            | Fault::KilledBeforeCommit
            | Fault::KilledAfterCommit
            | Fault::MasterStopped
            | Fault::ActorPanic => self.strike_master(fault),
            Fault::WallJump => {
                self.struck(fault);
                let hours = between(&mut self.fault_rng, 1, 100_000);
                let back = chance(&mut self.fault_rng, 500);
                let by = i64::try_from(hours).unwrap_or(1) * 3_600_000_000;
                self.jump_wall(if back { -by } else { by });
            }
            Fault::BuilderChanged
            | Fault::BuilderRemoved
            | Fault::WorkerChanged
            | Fault::WorkerRemoved => self.strike_setup(fault),
            Fault::WorkerDrained => {
                let worker = one_of(&mut self.fault_rng, &self.setup.workers).name.clone();
                let order =
                    one_of(&mut self.fault_rng, &[WorkerOrder::Drain, WorkerOrder::Shutdown]);
                if self.order(worker, order) {
                    self.struck(fault);
                }
            }
        }
    }

    fn strike_network(&mut self, fault: Fault) {
        if fault == Fault::SlowNetwork {
            self.struck(fault);
            self.net.slow = between(&mut self.fault_rng, 20, 1_500);
            return self.mend_after(Trouble::SlowNetwork, 2_000, 30_000);
        }
        let machine = self.some_machine();
        let conns = self.net.of_machine(machine);
        if conns.is_empty() {
            return;
        }
        self.struck(fault);
        self.say(|| format!("… at machine {machine}"));
        if fault == Fault::ConnectionCut {
            for conn in conns {
                self.parcel(conn, Way::Up, Parcel::End);
                self.parcel(conn, Way::Down, Parcel::End);
            }
            return;
        }
        let longest = between(&mut self.fault_rng, 1_000, 250_000);
        let until = self.now + ms(&mut self.fault_rng, 500, longest);
        for (way, blocked) in
            [(Way::Up, fault != Fault::OneWayDown), (Way::Down, fault != Fault::OneWayUp)]
        {
            if blocked {
                self.net.block(machine, way, until);
                self.at(until + Duration::from_millis(1), Ev::Release(machine, way));
            }
        }
    }

    fn strike_machine(&mut self, fault: Fault) {
        let machine = self.some_machine();
        if self.machines[machine].standing != Standing::Up {
            return;
        }
        match fault {
            Fault::ProgramAndProcessesKilled | Fault::ProgramKilled | Fault::MachinePower => {
                if self.machines[machine].is_double {
                    return;
                }
                self.struck(fault);
                let told = fault != Fault::MachinePower;
                self.kill_machine(machine, fault != Fault::ProgramKilled, told);
                let wait = ms(&mut self.fault_rng, 500, 60_000);
                self.boot_later(machine, wait);
            }
            Fault::Frozen | Fault::SlowWorker => {
                self.struck(fault);
                self.say(|| format!("… machine {machine} stops"));
                self.machines[machine].freeze();
                let (low, high) = if fault == Fault::Frozen {
                    let lease = u64::try_from(self.timers.lease.as_millis()).unwrap_or(0);
                    (lease, lease * 4)
                } else {
                    (500, 12_000)
                };
                let at = self.now + ms(&mut self.fault_rng, low, high);
                self.at(at, Ev::Thaw(machine));
            }
            Fault::WorkerDiskFull => {
                self.struck(fault);
                self.machines[machine].disk_full = true;
                self.mend_after(Trouble::WorkerDisk(machine), 2_000, 40_000);
            }
            Fault::StuckCommands => {
                self.struck(fault);
                self.machines[machine].stuck = true;
                self.mend_after(Trouble::Stuck(machine), 20_000, 200_000);
            }
            Fault::DuplicateAttach => self.strike_double(machine),
            Fault::RogueFrame => self.strike_rogue(machine),
            _ => {}
        }
    }

    fn strike_double(&mut self, machine: usize) {
        let name = self.machines[machine].name.clone();
        if self.machines.iter().any(|it| it.name == name && it.is_double) {
            return;
        }
        self.struck(Fault::DuplicateAttach);
        let mut rng = Rng::seeded(between(&mut self.fault_rng, 0, u64::MAX / 2));
        let (slots, longest) = (self.machines[machine].slots, self.machines[machine].longest);
        let double = self.add_machine(name, slots, longest, &mut rng);
        self.machines[double].is_double = true;
        self.boot_later(double, Duration::from_millis(1));
        let at = self.now + ms(&mut self.fault_rng, 5_000, 150_000);
        self.at(at, Ev::DoubleLeaves(double));
    }

    /// A worker speaks of a build that was never its own (I16).
    fn strike_rogue(&mut self, machine: usize) {
        let Some(conn) = self.net.of_machine(machine).pop() else { return };
        if !self.machines[machine].is_attached()
            || self.net.is_blocked(machine, Way::Up, self.now)
            || self.net.slow > 0
        {
            return;
        }
        let name = self.machines[machine].name.clone();
        let worker = self.store.workers().find(|w| w.row.name == name).map(|w| w.row.id);
        let open = self.store.builds().filter(|build| {
            Some(build.row.worker) != worker
                && build.row.state == botmaster::store::BuildState::Running
        });
        let build = open.map(|build| build.row.id).last().unwrap_or(BuildId(999_999_999));
        self.struck(Fault::RogueFrame);
        self.say(|| format!("… machine {machine} speaks of build {build}"));
        let frame = WorkerFrame::CommandFinished {
            build,
            command: CommandId::for_step(build, 0),
            outcome: Outcome::Exit(0),
            usage: Usage::default(),
            log_end: std::collections::BTreeMap::new(),
            log_digest: std::collections::BTreeMap::new(),
            properties: std::collections::BTreeMap::new(),
            note: String::new(),
        };
        self.parcel(conn, Way::Up, Parcel::FromWorker(Box::new(frame)));
        self.at(self.now + Duration::from_secs(1), Ev::RogueLimit { life: self.life, conn });
    }

    /// I16: the connection of one who speaks of what is not his is dropped.
    pub(super) fn rogue_limit(&mut self, life: u64, conn: u64) {
        let (now, slow) = (self.now, self.net.slow > 0);
        let current = self.life;
        let Some(it) = self.net.get(conn) else { return };
        let (machine, open) = (it.machine, it.master_open && it.worker_open);
        if life != current || slow || self.net.is_blocked(machine, Way::Up, now) || self.panic_next
        {
            return;
        }
        if open && self.master.is_some() {
            self.checks.fail("I16", "a worker spoke of a build that is not its own and was borne");
        }
    }

    fn strike_store(&mut self, fault: Fault) {
        self.struck(fault);
        let trouble = match fault {
            Fault::StoreSlow => {
                self.desk.slow = true;
                Trouble::StoreSlow
            }
            Fault::StoreFull => {
                self.desk.full = true;
                Trouble::StoreFull
            }
            Fault::StoreStall => {
                self.desk.stalled = true;
                Trouble::StoreStall
            }
            _ => {
                self.logs.full = true;
                Trouble::LogsFull
            }
        };
        self.mend_after(trouble, 500, 30_000);
    }

    fn mend_after(&mut self, trouble: Trouble, low: u64, high: u64) {
        let at = self.now + ms(&mut self.fault_rng, low, high);
        self.at(at, Ev::Mend(trouble));
    }

    pub(super) fn mend(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::StoreSlow => self.desk.slow = false,
            Trouble::StoreFull => self.desk.full = false,
            Trouble::StoreStall => {
                self.desk.stalled = false;
                self.store_next();
            }
            Trouble::LogsFull => self.logs.full = false,
            Trouble::SlowNetwork => self.net.slow = 0,
            Trouble::WorkerDisk(machine) => self.machines[machine].disk_full = false,
            Trouble::Stuck(machine) => {
                let mut wishes = Vec::new();
                self.machines[machine].unstick(self.now, &mut wishes);
                self.grant(machine, wishes);
            }
        }
    }

    fn strike_master(&mut self, fault: Fault) {
        if self.master.is_none() {
            return;
        }
        match fault {
            Fault::MasterKilled | Fault::MasterPower => {
                self.struck(fault);
                self.kill_master(fault == Fault::MasterKilled, fault);
            }
            Fault::KilledBeforeCommit => self.desk.crash = Some(CrashAt::BeforeCommit),
            Fault::KilledAfterCommit => self.desk.crash = Some(CrashAt::AfterCommit),
            Fault::MasterStopped => {
                self.struck(fault);
                self.send_master(Msg::Drain);
                let drain = Duration::from_secs(one_of(&mut self.fault_rng, &[0, 5, 30]));
                let limit = self.now + drain;
                self.at(self.now, Ev::StopLook { life: self.life, limit });
            }
            _ => self.panic_next = true,
        }
    }

    /// A stopping master ends once nothing builds, or at its limit (I20).
    pub(super) fn stop_look(&mut self, life: u64, limit: botmaster::core::time::Timestamp) {
        if life != self.life {
            return;
        }
        let Some(master) = &self.master else { return };
        let busy = master.bus.board.borrow().values().any(|view| !view.builds.is_empty());
        let waits =
            busy && (self.now < limit || botmaster::core::planted::is("sim_stop_waits_for_ever"));
        if waits {
            let late = self.now.since(limit).as_secs();
            if late > 15 {
                self.checks.fail("I20", format!("the master was to stop {late} s ago"));
            }
            self.at(self.now + Duration::from_millis(100), Ev::StopLook { life, limit });
            return;
        }
        // Workers with builds are given a longer lease before it goes.
        let lease = self.timers.stop_lease;
        if lease.is_zero() {
            return self.stop_now(life);
        }
        self.send_master(Msg::GrantLeases(lease));
        self.at(self.now + Duration::from_secs(2), Ev::StopNow { life });
    }

    /// It has told its workers, or has no more time for that.
    pub(super) fn stop_now(&mut self, life: u64) {
        if life == self.life && self.master.is_some() {
            self.kill_master(true, Fault::MasterStopped);
        }
    }

    // Reconfigurations.

    fn strike_setup(&mut self, fault: Fault) {
        let mut setup = self.setup.clone();
        let names: Vec<WorkerName> = setup.workers.iter().map(|w| w.name.clone()).collect();
        match fault {
            Fault::BuilderChanged => {
                if setup.builders.is_empty() {
                    return;
                }
                let index = self.fault_rng.index(setup.builders.len());
                let changed = self.changed(&setup.builders[index], &names);
                setup.builders[index] = Arc::new(changed);
            }
            Fault::BuilderRemoved => {
                let gone: Vec<_> = self
                    .all_builders
                    .values()
                    .filter(|b| setup.builder(&b.name).is_none())
                    .cloned()
                    .collect();
                if !gone.is_empty() && chance(&mut self.fault_rng, 600) {
                    let mut back = (*one_of(&mut self.fault_rng, &gone)).clone();
                    back.workers.retain(|worker| names.contains(worker));
                    setup.builders.push(Arc::new(back));
                } else if self.all_builders.len() < 6 && chance(&mut self.fault_rng, 300) {
                    let name = format!("b{}", self.all_builders.len());
                    let timers = self.timers;
                    let new = draw_builder(&mut self.fault_rng, &name, &names, &timers);
                    setup.builders.push(Arc::new(new));
                } else if !setup.builders.is_empty() {
                    setup.builders.remove(self.fault_rng.index(setup.builders.len()));
                }
            }
            Fault::WorkerChanged => {
                if setup.workers.is_empty() {
                    return;
                }
                let index = self.fault_rng.index(setup.workers.len());
                setup.workers[index].max_builds =
                    u32::try_from(between(&mut self.fault_rng, 1, 3)).unwrap_or(1);
            }
            _ => {
                let gone: Vec<_> = self
                    .all_workers
                    .values()
                    .filter(|w| !names.contains(&w.name))
                    .cloned()
                    .collect();
                if !gone.is_empty() && chance(&mut self.fault_rng, 700) {
                    setup.workers.push(one_of(&mut self.fault_rng, &gone));
                } else if setup.workers.len() > 1 {
                    let index = self.fault_rng.index(setup.workers.len());
                    let name = setup.workers.remove(index).name;
                    for builder in &mut setup.builders {
                        if builder.workers.contains(&name) {
                            let mut changed = (**builder).clone();
                            changed.workers.retain(|worker| *worker != name);
                            *builder = Arc::new(changed);
                        }
                    }
                }
            }
        }
        self.struck(fault);
        self.reconfigure(setup);
    }

    fn changed(&mut self, old: &BuilderConfig, names: &[WorkerName]) -> BuilderConfig {
        let mut new = old.clone();
        match self.fault_rng.index(4) {
            0 => {
                let round = between(&mut self.fault_rng, 0, 1_000_000).to_string();
                new.env.insert("ROUND".into(), round);
            }
            1 => {
                let factory = draw_factory(&mut self.fault_rng);
                new.factory_digest = digest(&factory);
                new.factory = Arc::new(factory);
            }
            2 => new.queue_limit = one_of(&mut self.fault_rng, &[3, 30, 1000]),
            _ => new.workers = some_of(&mut self.fault_rng, names),
        }
        new
    }

    /// The configuration file changes, and the master is told to read it.
    pub(super) fn reconfigure(&mut self, setup: crate::setup::Setup) {
        for builder in &setup.builders {
            self.all_builders.insert(builder.name.clone(), builder.clone());
            let highest = self.queue_limits.entry(builder.name.clone()).or_default();
            *highest = builder.queue_limit.max(*highest);
        }
        for worker in &setup.workers {
            self.all_workers.insert(worker.name.clone(), worker.clone());
        }
        self.setup = setup;
        self.reload();
    }

    pub(super) fn reload(&mut self) {
        let Some(bus) = self.master.as_ref().map(|master| master.bus.clone()) else { return };
        let id = self.ask("reload");
        let setup = Box::new(self.setup.clone());
        self.send_master(Msg::Reload(setup, Reply::client(&bus, id)));
    }
}
