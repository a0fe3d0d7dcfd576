//! Makes the world of a seed, lets things go wrong, then lets it settle, and
//! looks at what became of it.

use std::cell::RefCell;
use std::panic;
use std::sync::{Arc, Once};
use std::time::Duration;

use botmaster::actors::runtime::panic_text;
use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::values::{Property, SourceStamp};
use botmaster::messages::{Submission, WorkerOrder};
use botmaster::settings::Settings;
use botmaster::store::{BuildState, RequestState};
use turmoil::Sim;

use super::cloud::{Cloud, MADE_TO_PANIC};
use super::logs::StoredLog;
use super::plan::{Dice, Fault, Plan, TIMERS, some_of};
use super::shared::{Door, Order, Shared, at};
use super::worker::Machine;
use super::{LATENT, Outcome, Sabotage, master, worker};
use crate::history::{Leeway, Log, check};

/// The world moves in steps of this.
const TICK: Duration = Duration::from_millis(10);
/// Longest time without a request's end once nothing goes wrong: a worker comes
/// back after a minute at the latest, grace and lease are over, and a command
/// takes a minute at most.
const CALM: Duration = Duration::from_secs(300);
/// How long the world goes on once everything has ended.
const AFTER: Duration = Duration::from_secs(3);
/// How long instances may be there after that: they are idle for a while, and
/// the pause before one that resisted is destroyed again has grown to this.
const INSTANCES: Duration = Duration::from_secs(200);
/// How often submissions are sent again that nobody was told of.
const AGAIN: Duration = Duration::from_secs(2);

/// What from outside only seems to be a fault.
const LEEWAY: Leeway = Leeway {
    order: 2_000_000,
    overtakes: 2,
    late: 20_000_000,
    limit: 10_000_000,
    events_may_miss: false,
};

/// A request that waits for an instance is claimed only when that is there;
/// meanwhile others go on, on workers that are there.
const LATENT_LEEWAY: Leeway = Leeway { overtakes: 12, ..LEEWAY };

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Writes down each panic of this thread.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let text = format!("{} at {place}", panic_text(info.payload()));
            // Fails only in a panic within a panic.
            if text.starts_with(MADE_TO_PANIC) {
                return;
            }
            let _ = PANICS.try_with(|panics| panics.borrow_mut().push(text));
            usual(info);
        }));
    });
    PANICS.with(|panics| panics.borrow_mut().clear());
}

/// What is to be mended, and when.
enum Mend {
    Link(String, String),
    OneWay(String, String),
    Release(String, String),
    Bounce(String),
    Disk,
    Twin(String),
    Unpause(WorkerName),
}

/// The world of a seed.
pub struct World<'a> {
    pub sim: Sim<'a>,
    pub dice: Dice,
    pub plan: Plan,
    pub door: Door,
    mends: Vec<(Duration, Mend)>,
    sent: u64,
    /// The master crashes as soon as an instance comes or goes.
    pub crash_when: bool,
}

/// Runs one seed.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    listen_for_panics();
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice::seeded(seed);
    let latent = seed >= LATENT;
    let mut plan = Plan::draw(&mut dice, folder.path(), latent);
    if sabotage == Some(Sabotage::LongLease) {
        plan.settings.timers.lease = TIMERS.grace * 5;
        // Or each start says the builder's own.
        for builder in &mut plan.settings.builders {
            Arc::make_mut(builder).lease = plan.settings.timers.lease;
        }
    }
    let door = Door::default();
    door.borrow_mut().sabotage = sabotage;
    door.borrow_mut().cloud = latent.then(|| Cloud::new(seed ^ 0x000c_100d));
    let _planted = match sabotage {
        Some(Sabotage::Planted(name)) => Some(planted::plant(name)),
        _ => None,
    };
    door.borrow_mut().settings = Some(plan.settings.clone());
    let sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(std::time::UNIX_EPOCH)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(7200))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(plan.latency)
        .build();
    let mut world = World { sim, dice, plan, door, mends: Vec::new(), sent: 0, crash_when: false };
    world.populate(seed);
    let ended = world.live();
    world.judge(seed, ended)
}

impl World<'_> {
    fn populate(&mut self, seed: u64) {
        let (door, commit) = (self.door.clone(), self.plan.commit);
        self.sim.host("master", move || master::run(door.clone(), commit, seed));
        let workers = self.plan.settings.workers.clone();
        for settings in workers.into_iter().filter(|one| one.config.latent.is_none()) {
            let name = settings.config.name.as_str().to_owned();
            let machine = Machine {
                host: name.clone(),
                token: self.plan.tokens.get(&name).cloned().unwrap_or_default(),
                name,
                slots: settings.config.max_builds,
                longest: self.plan.command,
                seed: self.dice.seed(),
                tag: None,
            };
            let twin = Machine { host: format!("twin-{}", machine.name), ..machine.clone() };
            let door = self.door.clone();
            let host = machine.host.clone();
            self.sim.host(host, move || worker::run(door.clone(), machine.clone()));
            if self.plan.faults.contains(&Fault::Twin) {
                let door = self.door.clone();
                let host = twin.host.clone();
                self.sim.host(host, move || asleep(door.clone(), twin.clone()));
            }
        }
    }

    /// Trouble, then calm. Whether everything ended in time.
    fn live(&mut self) -> bool {
        let trouble = self.plan.trouble;
        let mut next = Duration::ZERO;
        while self.sim.elapsed() < trouble {
            if self.sim.elapsed() >= next {
                self.act();
                next = self.sim.elapsed() + self.dice.millis(50, 2500);
            }
            self.mend(false);
            if !self.step() {
                return false;
            }
        }
        self.mend(true);
        self.crash_when = false;
        if let Some(cloud) = self.cloud() {
            cloud.calm();
            self.restore_all();
        }
        self.settle()
    }

    fn settle(&mut self) -> bool {
        let mut end = self.sim.elapsed() + CALM;
        let mut open = usize::MAX;
        let mut again = Duration::ZERO;
        let mut done_at = None;
        while self.sim.elapsed() < end {
            if self.sim.elapsed() >= again {
                again = self.sim.elapsed() + AGAIN;
                self.resume();
                let now_open = self.open_requests();
                if now_open != open {
                    open = now_open;
                    end = self.sim.elapsed() + CALM;
                }
            }
            if !self.step() {
                return false;
            }
            if !self.has_ended() {
                done_at = None;
                continue;
            }
            let since = *done_at.get_or_insert(self.sim.elapsed());
            // What is left of instances then is for the checker.
            let patience = if self.is_rid_of_instances() { AFTER } else { INSTANCES };
            if self.sim.elapsed() >= since + patience {
                return true;
            }
        }
        false
    }

    fn step(&mut self) -> bool {
        self.serve_instances();
        match self.sim.step() {
            Ok(_) => true,
            Err(error) => {
                PANICS.with(|panics| panics.borrow_mut().push(format!("a host failed: {error}")));
                false
            }
        }
    }

    /// Sends again what nobody was told of, and starts what has left.
    fn resume(&mut self) {
        let untold: Vec<_> = self.door.borrow().untold.values().cloned().collect();
        for submission in untold {
            self.order(Order::Submit(submission));
        }
        // An order to a master that just starts is lost.
        let is_behind = self.cloud().is_some() && {
            let shared = self.door.borrow();
            shared.goes_by < shared.edition
        };
        if is_behind {
            self.order(Order::Reload);
        }
        for name in &self.worker_names() {
            if self.is_ordinary(name) && !self.sim.is_host_running(name.as_str()) {
                self.sim.bounce(name.as_str());
            }
            let (name, order) = (WorkerName::from(name.as_str()), WorkerOrder::Unpause);
            self.order(Order::Worker(name, order));
        }
    }

    fn open_requests(&self) -> usize {
        let shared = self.door.borrow();
        let open = |state| matches!(state, RequestState::Queued | RequestState::Claimed);
        shared.untold.len() + shared.store.requests().filter(|row| open(row.state)).count()
    }

    fn has_ended(&self) -> bool {
        let shared = self.door.borrow();
        let free = shared.board.as_ref().is_some_and(|board| {
            let shown = board.all();
            shown.builders.values().all(|view| view.builds.is_empty())
                && shown.workers.values().all(|view| view.used == 0)
        });
        free && self.open_requests() == 0
            && !shared.store.builds().any(|build| build.row.state != BuildState::Finished)
    }

    pub fn cloud(&self) -> Option<Cloud> {
        self.door.borrow().cloud.clone()
    }

    pub fn worker_names(&self) -> Vec<String> {
        let workers = self.plan.settings.workers.iter();
        workers.map(|worker| worker.config.name.as_str().to_owned()).collect()
    }

    pub fn order(&mut self, order: Order) {
        if let Some(orders) = &self.door.borrow().orders {
            // A master that is just dead hears nothing.
            let _ = orders.send(order);
        }
    }

    pub fn count(&self, what: &'static str) {
        self.door.borrow_mut().count(what);
    }

    pub fn settings(&self) -> Settings {
        self.door.borrow().settings.clone().unwrap()
    }

    // ---- what happens ----------------------------------------------------

    fn act(&mut self) {
        if self.dice.percent(55) && self.sent < self.plan.requests {
            return self.submit();
        }
        let fault = self.dice.one_of(&self.plan.faults).copied();
        let Some(fault) = fault else { return };
        self.strike(fault);
    }

    fn submit(&mut self) {
        let builders = self.settings().builders;
        let mut names: Vec<_> = builders.iter().map(|builder| builder.name.clone()).collect();
        if self.dice.percent(80) {
            names = self.dice.one_of(&names).cloned().into_iter().collect();
        }
        if names.is_empty() {
            return;
        }
        self.sent += 1;
        let key = format!("k{}", self.sent);
        let revision = Some(format!("r{}", self.dice.between(0, 3)));
        let property = Property { value: self.sent.to_string().into(), source: "simulated".into() };
        let submission = Submission {
            builders: names,
            priority: if self.dice.percent(20) { 5 } else { 0 },
            reason: "simulated".into(),
            scheduler: "force".into(),
            external_id: None,
            idempotency_key: Some(key.clone()),
            properties: std::sync::Arc::new([("n".to_owned(), property)].into()),
            sourcestamps: vec![SourceStamp { revision, ..SourceStamp::default() }],
            rebuilt_build: None,
            soon: false,
        };
        self.door.borrow_mut().untold.insert(key, submission.clone());
        self.order(Order::Submit(submission));
    }

    fn strike(&mut self, fault: Fault) {
        let Some(name) = self.dice.one_of(&self.machines()).cloned() else { return };
        let worker = self.worker_of(&name);
        let span = self.dice.millis(200, 40_000);
        let end = self.sim.elapsed() + span;
        let master = || "master".to_owned();
        // One trouble with one link at a time: turmoil cannot mix them.
        let busy = |mend: &Mend| match mend {
            Mend::Link(_, one) | Mend::Release(_, one) => *one == name,
            Mend::OneWay(one, other) => *one == name || *other == name,
            Mend::Bounce(host) => *host == name,
            Mend::Disk | Mend::Twin(_) | Mend::Unpause(_) => false,
        };
        let is_busy = self.mends.iter().any(|(_, mend)| busy(mend));
        let master_is_down = self.is_down("master");
        match fault {
            Fault::Partition | Fault::OneWay | Fault::Hold if is_busy => return,
            Fault::WorkerCrash | Fault::WorkerVanishes if is_busy => return,
            Fault::MasterCrash | Fault::MasterVanishes | Fault::CrashInBetween
                if master_is_down =>
            {
                return;
            }
            _ => {}
        }
        match fault {
            Fault::Partition => {
                self.sim.partition("master", name.as_str());
                self.mends.push((end, Mend::Link(master(), name)));
            }
            Fault::OneWay if self.dice.percent(50) => {
                self.sim.partition_oneway("master", name.as_str());
                self.mends.push((end, Mend::OneWay(master(), name)));
            }
            Fault::OneWay => {
                self.sim.partition_oneway(name.as_str(), "master");
                self.mends.push((end, Mend::OneWay(name, master())));
            }
            Fault::Hold => {
                self.sim.hold("master", name.as_str());
                self.mends.push((end, Mend::Release(master(), name)));
            }
            Fault::MasterCrash => self.crash_master(end),
            Fault::MasterVanishes => {
                let idle = self.unbroken();
                for name in &idle {
                    self.sim.partition("master", name.as_str());
                }
                self.crash_master(end);
                for name in &idle {
                    self.sim.repair("master", name.as_str());
                }
            }
            Fault::WorkerCrash => self.crash_worker(&name, end),
            Fault::WorkerVanishes => {
                self.sim.partition("master", name.as_str());
                self.crash_worker(&name, end);
                self.sim.repair("master", name.as_str());
            }
            Fault::Outage => {
                self.door.borrow_mut().is_full = true;
                self.mends.push((end, Mend::Disk));
            }
            // An instance has no other machine, and is made by nobody else.
            Fault::Twin if !self.is_ordinary(&name) => return,
            Fault::Twin => {
                self.door.borrow_mut().twins.insert(name.clone(), true);
                self.mends.push((end, Mend::Twin(name)));
            }
            Fault::Reload => self.reload(),
            Fault::Pause => {
                self.order(Order::Worker(worker.clone(), WorkerOrder::Pause));
                self.mends.push((end, Mend::Unpause(worker)));
            }
            Fault::Leave => {
                let order =
                    if self.dice.percent(50) { WorkerOrder::Drain } else { WorkerOrder::Shutdown };
                self.order(Order::Worker(worker, order));
                if self.is_ordinary(&name) {
                    self.mends.push((end, Mend::Bounce(name)));
                }
            }
            Fault::People => self.people(),
            Fault::CrashInBetween => self.crash_when = true,
            Fault::OtherTerms => self.other_terms(),
        }
        self.count(fault.name());
    }

    /// Workers whose links have no trouble.
    fn unbroken(&self) -> Vec<String> {
        let broken = |name: &String| {
            self.mends.iter().any(|(_, mend)| match mend {
                Mend::Link(_, one) | Mend::Release(_, one) => one == name,
                Mend::OneWay(one, other) => one == name || other == name,
                Mend::Bounce(_) | Mend::Disk | Mend::Twin(_) | Mend::Unpause(_) => false,
            })
        };
        self.machines().into_iter().filter(|name| !broken(name)).collect()
    }

    pub fn is_down(&self, host: &str) -> bool {
        let is = |mend: &Mend| matches!(mend, Mend::Bounce(name) if name == host);
        self.mends.iter().any(|(_, mend)| is(mend))
    }

    pub fn crash_master(&mut self, end: Duration) {
        self.count_moments();
        {
            let mut shared = self.door.borrow_mut();
            shared.orders = None;
            shared.board = None;
        }
        self.sim.crash("master");
        self.mends.push((end, Mend::Bounce("master".into())));
    }

    fn crash_worker(&mut self, name: &str, end: Duration) {
        if !self.is_ordinary(name) {
            self.count_vanishing(name);
        }
        self.sim.crash(name);
        let now = at(self.sim.elapsed());
        self.door.borrow_mut().machine_ends(&format!("{name}/"), now);
        match self.cloud().filter(|_| !self.is_ordinary(name)) {
            Some(cloud) => cloud.dies(&name.into(), self.sim.elapsed()),
            None => self.mends.push((end, Mend::Bounce(name.to_owned()))),
        }
    }

    fn reload(&mut self) {
        let mut settings = self.settings();
        let busy = self.door.borrow().store.builds().any(|b| b.row.state == BuildState::Running);
        let place = usize::try_from(self.dice.between(0, settings.builders.len() as u64)).unwrap();
        let workers = some_of(&settings.workers, &mut self.dice);
        let Some(builder) = settings.builders.get_mut(place) else { return };
        let builder = std::sync::Arc::make_mut(builder);
        let round = self.door.borrow().counts.get("reload").copied().unwrap_or_default();
        match self.dice.between(0, 3) {
            0 => builder.workers = workers,
            1 => drop(builder.env.insert("ROUND".into(), round.to_string())),
            _ => drop(builder.properties.insert("round".into(), round.to_string())),
        }
        self.door.borrow_mut().configure(settings);
        self.order(Order::Reload);
        if busy {
            self.count("takeovers_with_a_build");
        }
    }

    fn people(&mut self) {
        let order = {
            let shared = self.door.borrow();
            let name = |id: BuilderId| {
                let mut all = shared.store.builders();
                all.find(|builder| builder.row.id == id).map(|builder| builder.row.name.clone())
            };
            let open: Vec<_> = shared
                .store
                .requests()
                .filter(|row| matches!(row.state, RequestState::Queued | RequestState::Claimed))
                .map(|row| (row.id, row.builder))
                .collect();
            let running: Vec<_> = shared
                .store
                .builds()
                .filter(|build| build.row.state == BuildState::Running)
                .map(|build| (build.row.id, build.row.builder))
                .collect();
            let request = self.dice.one_of(&open).copied();
            let build = self.dice.one_of(&running).copied();
            match (self.dice.between(0, 4), request, build) {
                (0, Some((request, builder)), _) => {
                    name(builder).map(|name| Order::Cancel(request, name))
                }
                (1, _, Some((build, builder))) => {
                    name(builder).map(|name| Order::Stop(build, name))
                }
                (2, Some((request, builder)), _) => {
                    name(builder).map(|name| Order::Prioritise(request, name, 7))
                }
                _ => name(BuilderId(1)).map(Order::Ping),
            }
        };
        if let Some(order) = order {
            self.order(order);
        }
    }

    /// Mends what is due, or everything.
    fn mend(&mut self, all: bool) {
        let now = self.sim.elapsed();
        let due = |(at, _): &mut (Duration, Mend)| all || *at <= now;
        let mends: Vec<_> = self.mends.extract_if(.., due).collect();
        for (_, mend) in mends {
            match mend {
                Mend::Link(one, other) => self.sim.repair(one, other),
                Mend::OneWay(from, to) => self.sim.repair_oneway(from, to),
                Mend::Release(one, other) => self.sim.release(one, other),
                Mend::Bounce(host) => {
                    if host != "master" {
                        self.door.borrow_mut().machine_ends(&format!("{host}/"), at(now));
                    }
                    self.sim.bounce(host);
                }
                Mend::Disk => self.door.borrow_mut().is_full = false,
                Mend::Twin(name) => {
                    self.door.borrow_mut().twins.insert(name.clone(), false);
                    let host = format!("twin-{name}");
                    self.sim.crash(host.as_str());
                    self.door.borrow_mut().machine_ends(&format!("{host}/"), at(now));
                    self.sim.bounce(host);
                }
                Mend::Unpause(worker) => self.order(Order::Worker(worker, WorkerOrder::Unpause)),
            }
        }
    }

    // ---- what became of it -----------------------------------------------

    fn judge(self, seed: u64, ended: bool) -> Outcome {
        let took = self.sim.elapsed();
        let mut end = String::new();
        if !ended {
            end = describe(&self.door.borrow());
        }
        // All that lived is gone with it.
        drop(self.sim);
        let mut shared = self.door.borrow_mut();
        let Shared { recorder, store, logs, written, held, counts, cloud, .. } = &mut *shared;
        recorder.history.calm = true;
        recorder.keep_store(store);
        if let Some(cloud) = cloud {
            let (notes, more) = cloud.take();
            recorder.history.instances = notes;
            counts.extend(more);
        }
        recorder.history.logs = store
            .logs()
            .filter_map(|log| {
                let step = store.steps().find(|step| step.id == log.row.step)?;
                let command = CommandId::for_step(step.build, usize::try_from(step.number).ok()?);
                let stored = match &log.inline {
                    Some(text) => StoredLog::inline(text),
                    None => logs.get(&log.row.id).cloned().unwrap_or_default(),
                };
                Some(Log {
                    log: log.row.id,
                    build: step.build,
                    written: written.get(&command).cloned().unwrap_or_default(),
                    stored: String::from_utf8_lossy(&stored.worker).into_owned(),
                    complete: log.row.complete,
                    incomplete: log.incomplete.clone(),
                })
            })
            .collect();
        let leeway = if seed < LATENT { LEEWAY } else { LATENT_LEEWAY };
        let findings = check(&recorder.history, &leeway);
        let mut lines = Vec::new();
        recorder.history.write(&mut lines).unwrap();
        counts.insert("requests", store.requests().count() as u64);
        counts.insert("builds", store.builds().count() as u64);
        Outcome {
            seed,
            digest: fnv(&lines),
            findings,
            panics: PANICS.with(|panics| panics.borrow().clone()),
            undead: held.iter().filter(|life| life.strong_count() > 0).count(),
            took,
            counts: counts.clone(),
            end,
            history: lines,
        }
    }
}

/// A second machine of a worker: it does nothing until it is wanted.
async fn asleep(door: Door, machine: Machine) -> turmoil::Result {
    while door.borrow().twins.get(&machine.name) != Some(&true) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    worker::run(door, machine).await
}

fn describe(shared: &Shared) -> String {
    let mut text = "not everything ended:\n".to_owned();
    for row in shared.store.requests() {
        if matches!(row.state, RequestState::Queued | RequestState::Claimed) {
            text += &format!("    {row:?}\n");
        }
    }
    for build in shared.store.builds() {
        if build.row.state != BuildState::Finished {
            text += &format!("    {:?}\n", build.row);
        }
    }
    for row in shared.store.instances() {
        text += &format!("    {row:?}\n");
    }
    text += &format!("    untold: {:?}\n", shared.untold.keys());
    if let Some(board) = &shared.board {
        for (name, view) in board.all().builders {
            text += &format!(
                "    builder {name}: waiting {} broken {:?} workers {:?} builds {:?}\n",
                view.waiting, view.broken, view.workers, view.builds
            );
        }
        for (name, view) in board.all().workers {
            let (up, used, most) = (view.connected, view.used, view.max_builds);
            text += &format!("    worker {name}: up {up} used {used}/{most}\n");
        }
        text += &format!("    ignored: {:?}\n", board.all().ignored);
    }
    text
}

/// The FNV-1a hash of some bytes.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

// The grace must outlast a worker's lease by the time it takes to kill, or
// what the checker finds would be the plan's own fault.
const _: () = assert!(
    TIMERS.grace.as_millis() > TIMERS.lease.as_millis() * 11 / 10 + TIMERS.kill_time.as_millis()
);
