//! One run: a master, its workers' machines, the network, the stores and the
//! clients, in virtual time, from one seed.

mod calm;
mod clients;
mod disks;
mod seen;
mod strike;
mod tell;
mod wires;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use botmaster::core::bot_master::Action;
use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::core::time::{Now, Timestamp, WallTime};
use botmaster::store::{BuildState, Op, RequestState, Transaction};

use crate::bus::{Addr, Bus, StoreAsk, Supervision};
use crate::client::Clients;
use crate::faults::{Fault, Plan};
use crate::invariants::Checks;
use crate::logs_desk::LogDesk;
use crate::machine::Machine;
use crate::master::{Actor, BotMaster, Handled, Master, declare, declared};
use crate::memory::MemoryStore;
use crate::message::Msg;
use crate::network::{Network, Parcel, Way};
use crate::setup::{Setup, Timers, between, chance, ms};
use crate::trace::Trace;

/// Something that is due.
pub(crate) enum Ev {
    /// The next message of a mailbox is read.
    Wake(u64, Addr),
    /// A timer of an actor.
    Timer(u64, Addr, Msg),
    /// The store gets round to the next ask.
    Store,
    /// Somebody of this life is called.
    Call(u64, Box<dyn FnOnce()>),
    /// A log is written.
    Flush(LogId),
    /// A parcel arrives.
    Arrive(u64, Way, Parcel),
    /// A way may be free again.
    Release(usize, Way),
    /// The master's side of a connection ends.
    Closes(u64),
    /// A machine has something to do.
    Machine(usize),
    /// A dial reaches the master's host.
    Dial(usize, u64),
    /// It came to nothing.
    DialFailed(usize, u64),
    /// A machine's program starts again.
    Boot(usize, u64),
    /// A machine's program goes on.
    Thaw(usize),
    /// A second machine of a name goes away.
    DoubleLeaves(usize),
    /// The master starts.
    MasterBoot,
    /// A trouble is over.
    Mend(Trouble),
    /// A fault strikes.
    Strike(Fault),
    /// A client does something.
    Act,
    /// A client sends a submission again.
    Again(usize),
    /// A client waits no longer.
    Patience(u64),
    /// A rogue frame should have had its answer.
    RogueLimit { life: u64, conn: u64 },
    /// A stopping master looks whether it may end.
    StopLook { life: u64, limit: Timestamp },
    /// It has told its workers.
    StopNow { life: u64 },
    /// Once a second.
    Second,
    /// The faults end.
    Calm,
}

/// A trouble of the stores or the network that ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    StoreSlow,
    StoreFull,
    StoreStall,
    LogsFull,
    SlowNetwork,
    WorkerDisk(usize),
    Stuck(usize),
}

/// When a crash is to come with the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CrashAt {
    BeforeCommit,
    AfterCommit,
}

/// The store's disk and queue.
#[derive(Default)]
pub(crate) struct StoreDesk {
    asks: VecDeque<StoreAsk>,
    busy: bool,
    last_answer: Timestamp,
    pub(crate) slow: bool,
    pub(crate) full: bool,
    pub(crate) stalled: bool,
    pub(crate) crash: Option<CrashAt>,
}

/// What a seed saw that a tenth of all seeds must see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Saw {
    /// A worker came back with its build.
    pub adoption: bool,
    /// A build that had started was lost and its request queued again.
    pub requeue: bool,
    /// A successor took over while a build ran.
    pub takeover_with_build: bool,
    /// A worker attached while another connection of its name stood.
    pub duplicate_attach: bool,
}

/// One run.
pub struct World {
    pub(crate) now: Timestamp,
    wall_offset: i64,
    queue: BTreeMap<(Timestamp, u64), Ev>,
    seq: u64,
    pub(crate) mail_rng: Rng,
    pub(crate) net_rng: Rng,
    pub(crate) store_rng: Rng,
    pub(crate) fault_rng: Rng,
    pub(crate) client_rng: Rng,
    pub(crate) timers: Timers,
    pub(crate) plan: Plan,
    /// What the configuration file says.
    pub(crate) setup: Setup,
    /// Every builder that ever was, as it was last.
    pub(crate) all_builders:
        BTreeMap<BuilderName, std::sync::Arc<botmaster::core::values::BuilderConfig>>,
    /// The highest limit that each builder's queue ever had.
    pub(crate) queue_limits: BTreeMap<BuilderName, usize>,
    /// Every worker that ever was.
    pub(crate) all_workers: BTreeMap<WorkerName, botmaster::core::values::WorkerConfig>,
    pub(crate) master: Option<Master>,
    pub(crate) life: u64,
    /// How often the master's machine has started.
    pub(crate) master_boots: u64,
    master_host_up: bool,
    next_session: u64,
    pub(crate) machines: Vec<Machine>,
    host_up: Vec<bool>,
    boots: Vec<u64>,
    wakes: Vec<Option<Timestamp>>,
    pub(crate) net: Network,
    pub(crate) store: MemoryStore,
    pub(crate) desk: StoreDesk,
    pub(crate) logs: LogDesk,
    pub(crate) clients: Clients,
    /// What must hold.
    pub checks: Checks,
    /// What happened.
    pub trace: Trace,
    /// Faults that struck.
    pub counts: BTreeMap<Fault, u64>,
    /// What must be seen now and then.
    pub saw: Saw,
    pub(crate) calm: bool,
    pub(crate) calm_since: Timestamp,
    pub(crate) quiet_since: Option<Timestamp>,
    pub(crate) over: bool,
    wall_jumps: bool,
    /// Panics so far, so that no actor has too many within a minute.
    pub(crate) panic_next: bool,
    last_panic: Timestamp,
    pub(crate) victim: Option<WorkerName>,
    history: tell::Told,
}

impl World {
    /// The world of a seed. `wall_jumps` says whether the jumps of the wall
    /// clock are carried out; nothing else may differ.
    pub fn new(seed: u64, verbose: bool, wall_jumps: bool) -> Self {
        let mut rng = Rng::seeded(seed);
        let mut fork = || Rng::seeded((rng.bits() >> 64) as u64);
        let (mut setup_rng, mut fault_rng) = (fork(), fork());
        let (mail_rng, net_rng, store_rng, client_rng) = (fork(), fork(), fork(), fork());
        let timers = Timers::draw(&mut setup_rng);
        let setup = Setup::draw(&mut setup_rng, &timers);
        let plan = Plan::draw(&mut fault_rng);
        let victim = plan.victim.then(|| setup.workers[0].name.clone());
        let all_builders = setup.builders.iter().map(|b| (b.name.clone(), b.clone())).collect();
        let queue_limits = setup.builders.iter().map(|b| (b.name.clone(), b.queue_limit)).collect();
        let all_workers = setup.workers.iter().map(|w| (w.name.clone(), w.clone())).collect();
        let mut world = Self {
            now: Timestamp(1_000_000),
            wall_offset: 1_700_000_000_000_000,
            queue: BTreeMap::new(),
            seq: 0,
            mail_rng,
            net_rng,
            store_rng,
            fault_rng,
            client_rng,
            timers,
            plan,
            setup,
            all_builders,
            queue_limits,
            all_workers,
            master: None,
            life: 0,
            master_boots: 0,
            master_host_up: true,
            next_session: 1,
            machines: Vec::new(),
            host_up: Vec::new(),
            boots: Vec::new(),
            wakes: Vec::new(),
            net: Network::default(),
            store: MemoryStore::new(),
            desk: StoreDesk::default(),
            logs: LogDesk::default(),
            clients: Clients::default(),
            checks: Checks::default(),
            trace: Trace::new(verbose),
            counts: BTreeMap::new(),
            saw: Saw::default(),
            calm: false,
            calm_since: Timestamp(0),
            quiet_since: None,
            over: false,
            wall_jumps,
            panic_next: false,
            last_panic: Timestamp(0),
            victim,
            history: tell::Told::default(),
        };
        world.begin(&mut setup_rng);
        world
    }

    fn begin(&mut self, rng: &mut Rng) {
        let workers = self.setup.workers.clone();
        let longest = [2_000, 20_000, 120_000][rng.index(3)];
        for worker in workers {
            let slots = worker.max_builds + u32::from(chance(rng, 200));
            self.add_machine(worker.name, slots, longest, rng);
        }
        self.at(self.now, Ev::MasterBoot);
        for machine in 0..self.machines.len() {
            let at = self.now + ms(rng, 0, 3_000);
            self.at(at, Ev::Boot(machine, 0));
        }
        for fault in Fault::ALL {
            self.next_strike(fault);
        }
        self.at(self.now + Duration::from_millis(500), Ev::Act);
        self.at(self.now + Duration::from_secs(1), Ev::Second);
        let lasts = self.plan.lasts;
        self.at(self.now + lasts, Ev::Calm);
    }

    pub(crate) fn add_machine(
        &mut self,
        name: WorkerName,
        slots: u32,
        longest: u64,
        rng: &mut Rng,
    ) -> usize {
        let seed = (rng.bits() >> 64) as u64;
        let mut machine = Machine::new(name, slots, self.timers.kill_time, seed);
        machine.longest = longest;
        self.machines.push(machine);
        self.host_up.push(true);
        self.boots.push(0);
        self.wakes.push(None);
        self.machines.len() - 1
    }

    pub(crate) fn at(&mut self, at: Timestamp, ev: Ev) {
        self.seq += 1;
        self.queue.insert((at.max(self.now), self.seq), ev);
    }

    fn present(&self) -> Now {
        let wall = i64::try_from(self.now.0).unwrap_or(i64::MAX) + self.wall_offset;
        Now { mono: self.now, wall: WallTime(wall) }
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        self.trace.say(self.now, line);
    }

    pub(crate) fn mark(&mut self, what: &str, a: u64, b: u64) {
        self.trace.mark(self.now, what, a, b);
    }

    /// Runs until it is over or something is found. The virtual time it took.
    pub fn run(&mut self) -> Duration {
        let began = self.now;
        while !self.over && self.checks.found.is_none() {
            let Some(((at, _), ev)) = self.queue.pop_first() else {
                self.checks.fail("I6", "nothing is due any more");
                break;
            };
            self.now = at;
            self.take(ev);
            self.drain();
        }
        let took = self.now.since(began);
        if let Some(master) = self.master.take() {
            master.bus.kill();
            drop(master);
        }
        self.queue.clear();
        took
    }

    fn bus(&self) -> Option<Rc<Bus>> {
        self.master.as_ref().map(|master| master.bus.clone())
    }

    fn take(&mut self, ev: Ev) {
        let present = self.present();
        if let Some(bus) = self.bus() {
            bus.set_now(present);
        }
        match ev {
            Ev::Wake(life, to) if life == self.life => self.wake(to),
            Ev::Timer(life, to, msg) if life == self.life => self.timer(to, msg),
            Ev::Call(life, call) if life == self.life => call(),
            Ev::Wake(..) | Ev::Timer(..) | Ev::Call(..) => {}
            Ev::Store => self.store_works(),
            Ev::Flush(log) => {
                let mut out = Vec::new();
                self.logs.flush(log, &mut out);
                self.log_out(out);
            }
            Ev::Arrive(conn, way, parcel) => {
                if let Some(parcel) = self.net.arrive(conn, way, parcel, self.now) {
                    self.arrived(conn, way, parcel);
                }
            }
            Ev::Release(machine, way) => {
                for (conn, parcel) in self.net.release(machine, way, self.now) {
                    let at = self.net.arrival(&mut self.net_rng, conn, way, self.now);
                    self.at(at, Ev::Arrive(conn, way, parcel));
                }
            }
            Ev::Closes(conn) => {
                if self.net.get(conn).is_some_and(|it| it.life == self.life) {
                    self.master_closes(conn);
                }
            }
            Ev::Machine(machine) => {
                self.wakes[machine] = None;
                let mut wishes = Vec::new();
                self.machines[machine].run(self.now, &mut wishes);
                self.grant(machine, wishes);
            }
            Ev::Dial(machine, link) => self.dialled(machine, link),
            Ev::DialFailed(machine, link) => self.dial_failed(machine, link),
            Ev::Boot(machine, boot) => self.boot_machine(machine, boot),
            Ev::Thaw(machine) => {
                self.mark("thaw", machine as u64, 0);
                self.say(|| format!("machine {machine}: its program goes on"));
                let mut wishes = Vec::new();
                self.machines[machine].thaw(self.now, &mut wishes);
                self.grant(machine, wishes);
            }
            Ev::DoubleLeaves(machine) => self.kill_machine(machine, true, true),
            Ev::MasterBoot => self.boot_master(),
            Ev::Mend(trouble) => self.mend(trouble),
            Ev::Strike(fault) => self.strike(fault),
            Ev::Act => self.act(),
            Ev::Again(number) => self.submit(number),
            Ev::Patience(id) => self.answer(id, &crate::message::Answer::Gone),
            Ev::RogueLimit { life, conn } => self.rogue_limit(life, conn),
            Ev::StopLook { life, limit } => self.stop_look(life, limit),
            Ev::StopNow { life } => self.stop_now(life),
            Ev::Second => self.second(),
            Ev::Calm => self.begin_calm(),
        }
    }

    // Mail.

    fn wake(&mut self, to: Addr) {
        let Some(master) = &mut self.master else { return };
        let may = self.panic_next && self.now.since(self.last_panic) > Duration::from_secs(13);
        let handled = master.deliver(to, may);
        match handled {
            Handled::Nobody => {}
            Handled::By(kind, word) => {
                self.trace.mark(self.now, word, to.0, self.life);
                if self.trace.verbose && !matches!(word, "heartbeat" | "silence?" | "show") {
                    self.say(|| format!("{kind} {}: {word}", to.0));
                }
            }
            Handled::Panicked(kind, again) => {
                self.panic_next = false;
                self.last_panic = self.now;
                *self.counts.entry(Fault::ActorPanic).or_default() += 1;
                self.mark("panic", to.0, u64::from(again));
                self.say(|| format!("{kind} {} PANICS, restarted: {again}", to.0));
                if again {
                    self.at(self.now, Ev::Wake(self.life, to));
                }
            }
            Handled::Broke(what) => self.checks.fail("panic", what),
        }
        self.look_at_order(to);
    }

    fn timer(&mut self, to: Addr, msg: Msg) {
        let Some(master) = &mut self.master else { return };
        if master.post(to, msg) {
            self.at(self.now, Ev::Wake(self.life, to));
        }
    }

    /// Takes what the master's actors pushed, until they push no more.
    fn drain(&mut self) {
        for _ in 0..1_000 {
            let Some(bus) = self.bus() else { return };
            let out = bus.take();
            let nothing = out.mail.is_empty()
                && out.timers.is_empty()
                && out.store.is_empty()
                && out.logs.is_empty()
                && out.wire.is_empty()
                && out.answers.is_empty()
                && out.spawned.is_empty()
                && out.stopped.is_empty()
                && out.seen.is_empty();
            if nothing {
                return;
            }
            for (addr, actor, supervision) in out.spawned {
                self.added(addr, actor, supervision);
            }
            for seen in out.seen {
                self.seen(seen);
            }
            for (to, msg) in out.mail {
                let posted = self.master.as_mut().is_some_and(|master| master.post(to, msg));
                if posted {
                    // Now and then a mailbox is not read for a while.
                    let most = if chance(&mut self.mail_rng, 20) { 20_000 } else { 200 };
                    let at = self.now + Duration::from_micros(between(&mut self.mail_rng, 1, most));
                    self.at(at, Ev::Wake(self.life, to));
                }
            }
            for (at, to, msg) in out.timers {
                self.at(at, Ev::Timer(self.life, to, msg));
            }
            for ask in out.store {
                self.desk.asks.push_back(ask);
            }
            self.store_next();
            let mut log_out = Vec::new();
            for ask in out.logs {
                self.logs.ask(ask, &mut log_out);
            }
            self.log_out(log_out);
            for (session, wire) in out.wire {
                self.wire(session, wire);
            }
            for (id, answer) in out.answers {
                self.answer(id, &answer);
            }
            for addr in out.stopped {
                if let Some(master) = &mut self.master {
                    master.stop(addr);
                }
            }
        }
        self.checks.fail("I6", "the actors push messages without end");
    }

    fn added(&mut self, addr: Addr, actor: Box<Actor>, supervision: Supervision) {
        if let Some(master) = &mut self.master {
            master.add(addr, actor, supervision);
            master.post(addr, Msg::Started);
            self.at(self.now, Ev::Wake(self.life, addr));
        }
    }

    // The master's process.

    fn boot_master(&mut self) {
        if self.master.is_some() {
            return;
        }
        self.master_host_up = true;
        if self.desk.full || self.desk.stalled {
            self.at(self.now + Duration::from_secs(1), Ev::MasterBoot);
            return;
        }
        self.life += 1;
        self.next_session = 1;
        self.mark("master", self.life, 0);
        self.say(|| "the master starts".into());
        self.store.reopen();
        let ops = declare(&self.setup);
        let mut transaction = Transaction { ops };
        for record in self.store.builders() {
            let gone = !self.setup.builders.iter().any(|b| b.name == record.row.name);
            if gone && record.row.configured {
                transaction.ops.push(Op::RetireBuilder { builder: record.row.id });
            }
        }
        self.history.life(&self.store);
        let (written, _) = self.store.apply(&transaction);
        self.history.events(self.now, &self.store);
        self.checks.committed(self.now, &self.store, &transaction, &written);
        let known = match written {
            Ok(outcomes) => declared(&self.setup, outcomes),
            Err(error) => return self.checks.fail("I19", format!("no start: {error}")),
        };
        let bus = Bus::new(self.present(), self.timers, self.master_boots);
        let mut master = Master::new(bus.clone());
        let rng = Rng::seeded(between(&mut self.mail_rng, 0, u64::MAX / 2));
        let (routes, setup) = (master.routes.clone(), self.setup.clone());
        master.root = bus.spawn(
            |me| Actor::BotMaster(Box::new(BotMaster::new(me, &bus, &routes, setup, known, rng))),
            Supervision::none(),
        );
        self.master = Some(master);
    }

    /// The process ends at once. `told` says whether its host lives and closes
    /// its sockets.
    pub(crate) fn kill_master(&mut self, told: bool, why: Fault) {
        let Some(master) = self.master.take() else { return };
        self.mark("master-gone", self.life, u64::from(told));
        self.say(|| format!("the master is gone: {}", why.word()));
        master.bus.kill();
        drop(master);
        self.desk.asks.clear();
        self.desk.busy = false;
        self.desk.crash = None;
        self.logs.crash();
        self.checks.master_is_gone();
        for id in self.net.of_master() {
            if let Some(conn) = self.net.get(id) {
                conn.master_open = false;
            }
            if told {
                self.parcel(id, Way::Down, Parcel::End);
            }
        }
        self.master_host_up = told;
        self.master_boots += u64::from(!told);
        self.lose_answers();
        let wait = ms(&mut self.fault_rng, 200, 20_000);
        self.at(self.now + wait, Ev::MasterBoot);
    }

    pub(crate) fn send_master(&mut self, msg: Msg) {
        if let Some(master) = &self.master {
            master.bus.send(master.root, msg);
        }
    }

    /// The wall clock jumps, unless this run leaves that out.
    pub(crate) fn jump_wall(&mut self, by: i64) {
        if self.wall_jumps {
            self.wall_offset += by;
        }
    }

    /// Whether everything that was asked for has ended.
    pub(crate) fn is_quiet(&self) -> bool {
        self.master.is_some()
            && self.clients.open == 0
            && self
                .store
                .requests()
                .all(|row| matches!(row.state, RequestState::Done | RequestState::Cancelled))
            && self.store.builds().all(|build| build.row.state == BuildState::Finished)
            && self.all_workers_are_ready()
    }

    /// Every worker is attached and could be given a build.
    fn all_workers_are_ready(&self) -> bool {
        let Some(master) = &self.master else { return false };
        let Some(bot_master) = master.bot_master() else { return false };
        bot_master.worker_addrs().all(|(_, addr, _)| match master.actor(addr) {
            Some(Actor::Worker(worker)) => worker.core.can_start(),
            _ => false,
        })
    }

    /// What a plan would do to get from the master's setup to this one's.
    pub(crate) fn differs(&self) -> bool {
        let Some(bot_master) = self.master.as_ref().and_then(Master::bot_master) else {
            return true;
        };
        let old = &bot_master.setup;
        let builders = old.builders.iter().map(|b| (b.name.clone(), b.clone())).collect();
        let workers = old.workers.iter().map(|w| (w.name.clone(), w.clone())).collect();
        let plan = botmaster::core::bot_master::Plan::between(
            &builders,
            &self.setup.builders,
            &workers,
            &self.setup.workers,
        );
        plan.builders.iter().any(|entry| entry.action != Action::Keep)
            || plan.workers.iter().any(|entry| entry.action != Action::Keep)
    }
}
