//! The shell of the BotMaster, after `actors/bot_master/`. A reload is a task
//! there; here its steps are messages, one reload at a time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::bot_master::{Action, Plan, Roster};
use botmaster::core::builder::{Event, Request};
use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::core::rng::Rng;
use botmaster::core::time::WallTime;
use botmaster::core::values::{BuilderConfig, WorkerConfig};
use botmaster::messages::{Refusal, Submission, Submitted};
use botmaster::store::{
    NewBuildset, Op, OpOutcome, SetPart, StoreError, Transaction, WorkerRow, Written,
};

use crate::bus::{Addr, Bus, Supervision};
use crate::message::*;
use crate::setup::Setup;
use crate::watch::Seen;

use super::Actor;
use super::build::with_set;
use super::builder::{Builder, BuilderParts};
use super::connection::Routes;
use super::worker::Worker;

struct BuilderEntry {
    id: BuilderId,
    config: Arc<BuilderConfig>,
    addr: Addr,
    route: Rc<BuilderRoute>,
    door: Rc<BuilderDoor>,
    child: u64,
    broken: bool,
}

struct WorkerEntry {
    config: WorkerConfig,
    child: u64,
    addr: Addr,
    door: Rc<WorkerDoor>,
}

/// A reload under way.
struct Reload {
    setup: Setup,
    reply: Reply,
    waiting: BTreeSet<BuilderName>,
    failed: BTreeMap<BuilderName, String>,
}

/// The supervisor.
pub struct BotMaster {
    me: Addr,
    bus: Rc<Bus>,
    routes: Rc<RefCell<Routes>>,
    /// In force.
    pub setup: Setup,
    rng: Rng,
    roster: Roster,
    builders: BTreeMap<BuilderName, BuilderEntry>,
    names: BTreeMap<BuilderId, BuilderName>,
    workers: BTreeMap<WorkerName, WorkerEntry>,
    doors: Option<Rc<BTreeMap<WorkerName, Rc<WorkerDoor>>>>,
    ids: BTreeMap<BuilderName, BuilderId>,
    rows: BTreeMap<WorkerName, WorkerRow>,
    successors: BTreeMap<BuilderName, (u64, Addr)>,
    removed: BTreeMap<BuilderName, BuilderEntry>,
    retired: BTreeMap<WorkerName, Addr>,
    next_child: u64,
    reload: Option<Reload>,
    reloads: VecDeque<(Setup, Reply)>,
    /// About to stop.
    pub draining: bool,
}

/// The operations that make this setup known.
pub fn declare(setup: &Setup) -> Vec<Op> {
    let workers =
        setup.workers.iter().map(|worker| Op::DeclareWorker { name: worker.name.clone() });
    let factories = setup.builders.iter().map(|builder| Op::SaveFactory {
        digest: builder.factory_digest.clone(),
        factory: builder.factory.clone(),
    });
    let builders = setup.builders.iter().map(|builder| Op::DeclareBuilder {
        name: builder.name.clone(),
        description: builder.description.clone(),
        tags: builder.tags.clone(),
        workers: builder.workers.clone(),
    });
    workers.chain(factories).chain(builders).collect()
}

/// Builders and workers as stored, by name.
pub type Known = (BTreeMap<BuilderName, BuilderId>, BTreeMap<WorkerName, WorkerRow>);

/// Reads the answers to [`declare`].
pub fn declared(setup: &Setup, outcomes: Vec<OpOutcome>) -> Known {
    let mut ids = BTreeMap::new();
    let mut rows = BTreeMap::new();
    let mut names = setup.builders.iter().map(|builder| builder.name.clone());
    for outcome in outcomes {
        match outcome {
            OpOutcome::Worker(row) => {
                rows.insert(row.name.clone(), row);
            }
            OpOutcome::Builder(id) => {
                if let Some(name) = names.next() {
                    ids.insert(name, id);
                }
            }
            _ => {}
        }
    }
    (ids, rows)
}

impl BotMaster {
    /// One whose builders and workers start with it.
    pub fn new(
        me: Addr,
        bus: &Rc<Bus>,
        routes: &Rc<RefCell<Routes>>,
        setup: Setup,
        known: Known,
        rng: Rng,
    ) -> Self {
        Self {
            me,
            bus: bus.clone(),
            routes: routes.clone(),
            setup,
            rng,
            roster: Roster::default(),
            builders: BTreeMap::new(),
            names: BTreeMap::new(),
            workers: BTreeMap::new(),
            doors: None,
            ids: known.0,
            rows: known.1,
            successors: BTreeMap::new(),
            removed: BTreeMap::new(),
            retired: BTreeMap::new(),
            next_child: 1,
            reload: None,
            reloads: VecDeque::new(),
            draining: false,
        }
    }

    /// The actor in charge of each builder, with its settings.
    pub fn in_charge(&self) -> impl Iterator<Item = (&BuilderName, Addr, &Arc<BuilderConfig>)> {
        self.builders
            .iter()
            .filter(|(_, entry)| !entry.broken)
            .map(|(name, entry)| (name, entry.addr, &entry.config))
    }

    /// Whether a reload is under way or waits.
    pub fn is_reloading(&self) -> bool {
        self.reload.is_some() || !self.reloads.is_empty()
    }

    /// Whether a builder's actor gave up.
    pub fn any_broken(&self) -> bool {
        self.builders.values().any(|entry| entry.broken)
    }

    /// The workers' actors.
    pub fn worker_addrs(&self) -> impl Iterator<Item = (&WorkerName, Addr, &WorkerConfig)> {
        self.workers.iter().map(|(name, entry)| (name, entry.addr, &entry.config))
    }

    fn worker_doors(&mut self) -> Rc<BTreeMap<WorkerName, Rc<WorkerDoor>>> {
        let workers = &self.workers;
        let door = |(name, entry): (&WorkerName, &WorkerEntry)| (name.clone(), entry.door.clone());
        self.doors.get_or_insert_with(|| Rc::new(workers.iter().map(door).collect())).clone()
    }

    fn child(&mut self) -> u64 {
        self.next_child += 1;
        self.next_child
    }

    fn start_worker(&mut self, config: &WorkerConfig) {
        let child = self.child();
        let Some(row) = self.rows.get(&config.name) else { return };
        let (bus, id, paused, master) = (self.bus.clone(), row.id, row.paused, self.me);
        let made = config.clone();
        let addr = self.bus.spawn(
            |me| Actor::Worker(Box::new(Worker::new(me, &bus, id, made, paused, master))),
            Supervision::under(self.me, child, &Rc::new(Cell::new(true))),
        );
        let door = Rc::new(WorkerDoor { name: config.name.clone(), id, addr });
        let entry = WorkerEntry { config: config.clone(), child, addr, door };
        self.workers.insert(config.name.clone(), entry);
        self.doors = None;
    }

    fn parts(
        &mut self,
        id: BuilderId,
        config: &Arc<BuilderConfig>,
        route: Rc<BuilderRoute>,
        may_restart: &Rc<Cell<bool>>,
    ) -> BuilderParts {
        BuilderParts {
            id,
            config: config.clone(),
            seed: (self.rng.bits() >> 64) as u64,
            route,
            master: self.me,
            workers: self.worker_doors(),
            may_restart: may_restart.clone(),
            removed: None,
            routes: self.routes.clone(),
        }
    }

    fn start_builder(&mut self, config: &Arc<BuilderConfig>) {
        let name = config.name.clone();
        let Some(id) = self.ids.get(&name).copied() else { return };
        let may_restart = Rc::new(Cell::new(true));
        let child = self.child();
        let removed = self.removed.remove(&name).map(|entry| entry.addr);
        let removed = removed.filter(|addr| self.bus.is_alive(*addr));
        let bus = self.bus.clone();
        let supervision = Supervision::under(self.me, child, &may_restart);
        let mut made = None;
        let route_id = child;
        let addr = {
            let this = &mut *self;
            let bus_of = bus.clone();
            bus.spawn(
                |me| {
                    let route = BuilderRoute::new(route_id, me);
                    made = Some(route.clone());
                    let parts = this.parts(id, config, route, &may_restart);
                    let parts = BuilderParts { removed, ..parts };
                    Actor::Builder(Box::new(Builder::new(me, &bus_of, parts)))
                },
                supervision,
            )
        };
        let Some(route) = made else { return };
        self.names.insert(id, name.clone());
        let door = Rc::new(BuilderDoor::new(&self.bus, name.clone(), route.clone()));
        let config = config.clone();
        self.builders
            .insert(name, BuilderEntry { id, config, addr, route, door, child, broken: false });
    }

    fn configure_workers(&mut self, renewed: BTreeSet<BuilderName>) {
        self.roster.configure(self.setup.builders.iter().map(|builder| &builder.name));
        let mut lists: BTreeMap<WorkerName, Vec<(Rc<BuilderDoor>, String)>> = BTreeMap::new();
        for builder in &self.setup.builders {
            let Some(entry) = self.builders.get(&builder.name) else { continue };
            if entry.broken {
                continue;
            }
            for worker in &entry.config.workers {
                let door = Rc::new(entry.door.another());
                let list = lists.entry(worker.clone()).or_default();
                list.push((door, entry.config.builddir.clone()));
            }
        }
        let renewed = Rc::new(renewed);
        for (name, worker) in &self.workers {
            self.bus.send(
                worker.addr,
                Msg::ConfigureWorker {
                    config: worker.config.clone(),
                    builders: lists.remove(name).unwrap_or_default(),
                    renewed: renewed.clone(),
                },
            );
        }
    }

    fn entry(&self, name: &BuilderName) -> Result<&BuilderEntry, Refusal> {
        let entry = self.builders.get(name);
        let entry = entry.ok_or_else(|| Refusal::NoSuchBuilder(name.to_string()))?;
        if entry.broken {
            return Err(Refusal::Broken { builder: name.clone(), reason: "panics".into() });
        }
        Ok(entry)
    }

    fn new_buildset(&self, submission: &Submission, at: WallTime) -> Result<NewBuildset, Refusal> {
        let mut builders = Vec::new();
        for name in &submission.builders {
            let entry = self.entry(name)?;
            let board = self.bus.board.borrow();
            let view = board.get(name);
            let limit = entry.config.queue_limit;
            if view.is_some_and(|view| view.waiting >= limit) && !planted::is("sim_queue_unbounded")
            {
                return Err(Refusal::QueueFull { builder: name.clone(), limit });
            }
            builders.push(entry.id);
        }
        Ok(NewBuildset {
            external_id: submission.external_id.clone(),
            idempotency_key: submission.idempotency_key.clone(),
            reason: submission.reason.clone(),
            scheduler: submission.scheduler.clone(),
            submitted_at: at,
            rebuilt_build: submission.rebuilt_build,
            sourcestamps: submission.sourcestamps.clone(),
            properties: submission.properties.clone(),
            builders,
            priority: submission.priority,
            waited_for: false,
        })
    }

    fn submit(&mut self, submissions: &[Submission], reply: Reply) {
        if self.draining {
            return reply.say(Answer::Submitted(Err(Refusal::Stopping)));
        }
        let at = self.bus.now().wall;
        let sets: Result<Vec<_>, _> =
            submissions.iter().map(|submission| self.new_buildset(submission, at)).collect();
        let ops: Vec<Op> = match sets {
            Ok(sets) => sets.into_iter().map(Op::AddBuildset).collect(),
            Err(refusal) => return reply.say(Answer::Submitted(Err(refusal))),
        };
        let (bus, me) = (self.bus.clone(), self.me);
        self.bus.write(
            Transaction { ops },
            Box::new(move |written| bus.send(me, Msg::SubmitWritten(written, reply))),
        );
    }

    fn submit_written(&mut self, written: Written, reply: Reply) {
        let answer = written.map_err(|error| refusal(&error)).map(|outcomes| {
            let mut mail: BTreeMap<BuilderId, Vec<Request>> = BTreeMap::new();
            let mut submitted = Vec::with_capacity(outcomes.len());
            for outcome in outcomes {
                let OpOutcome::Buildset { buildset, requests, existing } = outcome else {
                    continue;
                };
                submitted.push(Submitted {
                    buildset: buildset.id,
                    requests: requests.iter().map(|row| (row.builder, row.id)).collect(),
                });
                if existing {
                    continue;
                }
                let set = SetPart::from(buildset.as_ref());
                for row in requests {
                    mail.entry(row.builder).or_default().push(with_set(&row, &set));
                }
            }
            for (builder, requests) in mail {
                let entry = self.names.get(&builder).and_then(|name| self.builders.get(name));
                if let Some(entry) = entry {
                    entry.door.tell(BuilderMail::SubmitRequests(requests));
                }
            }
            submitted
        });
        reply.say(Answer::Submitted(answer));
    }

    fn tell_or_refuse(
        &self,
        name: &BuilderName,
        reply: Reply,
        mail: impl FnOnce(Reply) -> BuilderMail,
    ) {
        match self.entry(name) {
            Ok(entry) => entry.door.tell(mail(reply)),
            Err(refusal) => reply.done(Err(refusal)),
        }
    }

    fn tell_even_removed(
        &self,
        name: &BuilderName,
        reply: Reply,
        mail: impl FnOnce(Reply) -> BuilderMail,
    ) {
        match self.removed.get(name).filter(|_| !self.builders.contains_key(name)) {
            Some(entry) if self.bus.is_alive(entry.addr) => entry.door.tell(mail(reply)),
            _ => self.tell_or_refuse(name, reply, mail),
        }
    }

    fn cancel(&mut self, request: RequestId, builder: BuilderName, reason: String, reply: Reply) {
        let mail = |reply| BuilderMail::Cancel { request, reason, reply };
        if self.builders.contains_key(&builder) {
            return self.tell_or_refuse(&builder, reply, mail);
        }
        // A removed builder's queue stays, and can be cancelled.
        let (join, second) = reply.split();
        self.tell_even_removed(&builder, second, mail);
        let at = self.bus.now().wall;
        self.bus.write(
            Transaction::of(Op::CancelRequests { requests: vec![request], at }),
            Box::new(move |written| {
                let first = match written {
                    Ok(outcomes) => Ok(
                        matches!(outcomes.first(), Some(OpOutcome::Cancelled(ids)) if !ids.is_empty()),
                    ),
                    Err(error) => Err(refusal(&error)),
                };
                Second::first(&join, first);
            }),
        );
    }

    fn worker_available(&mut self, worker: &WorkerName, builders: Vec<BuilderName>, room: usize) {
        for name in self.roster.queue_up(worker, builders.iter().cloned()) {
            self.may_start(&name, worker);
        }
        for _ in 0..room {
            self.offer(worker);
        }
        for name in builders.iter().filter(|name| self.roster.is_in_line(worker, name)) {
            self.tell_event(name, Event::InLine { worker: worker.clone() });
        }
    }

    fn offer(&mut self, worker: &WorkerName) {
        while let Some(name) = self.roster.next_in_line(worker) {
            if self.tell_event(&name, Event::Offered { worker: worker.clone() }) {
                return;
            }
        }
    }

    fn may_start(&self, builder: &BuilderName, worker: &WorkerName) {
        self.tell_event(builder, Event::MaybeStart { worker: Some(worker.clone()) });
    }

    /// Whether there is such a builder.
    fn tell_event(&self, builder: &BuilderName, event: Event) -> bool {
        let entry = self.builders.get(builder);
        if let Some(entry) = entry {
            entry.door.tell(BuilderMail::Event(event));
        }
        entry.is_some()
    }

    fn break_up_lines(&mut self) {
        for (worker, line) in self.roster.break_up() {
            for name in line {
                self.may_start(&name, &worker);
            }
        }
    }

    fn child_down(&mut self, child: u64, gave_up: bool) {
        if !gave_up {
            return;
        }
        let successor = self.successors.iter().find(|(_, (number, _))| *number == child);
        if let Some(name) = successor.map(|(name, _)| name.clone()) {
            self.successors.remove(&name);
            if let Some(entry) = self.builders.get(&name) {
                let why = "the successor panicked".to_owned();
                self.bus.send(entry.addr, Msg::SuccessorFailed(why));
            }
            return;
        }
        let builder = self.builders.iter().find(|(_, entry)| entry.child == child);
        if let Some(name) = builder.map(|(name, _)| name.clone()) {
            self.break_up_lines();
            if let Some(entry) = self.builders.get_mut(&name) {
                entry.broken = true;
            }
            self.bus.board.borrow_mut().remove(&name);
            for worker in self.workers.values() {
                self.bus.send(worker.addr, Msg::BuilderBroken(name.clone()));
            }
            self.configure_workers(BTreeSet::new());
            return;
        }
        let worker = self.workers.iter().find(|(_, entry)| entry.child == child);
        if let Some(name) = worker.map(|(name, _)| name.clone()) {
            self.bus.later(self.me, Duration::from_secs(60), Msg::ReplaceWorker(name));
        }
    }

    // Reloads.

    fn plan(&self, setup: &Setup) -> Plan {
        let builders =
            self.builders.iter().map(|(name, e)| (name.clone(), e.config.clone())).collect();
        let workers =
            self.workers.iter().map(|(name, e)| (name.clone(), e.config.clone())).collect();
        Plan::between(&builders, &setup.builders, &workers, &setup.workers)
    }

    /// First the successors of all builders that changed, which take over
    /// nothing yet. Reloads that wait collapse to the last.
    fn begin_reload(&mut self) {
        if self.reload.is_some() {
            return;
        }
        let Some((setup, reply)) = self.reloads.pop_back() else { return };
        for (_, earlier) in std::mem::take(&mut self.reloads) {
            earlier.say(Answer::Reloaded);
        }
        let (waiting, failed) = (BTreeSet::new(), BTreeMap::new());
        let mut reload = Reload { setup, reply, waiting, failed };
        for entry in self.plan(&reload.setup).builders {
            let config = reload.setup.builder(&entry.name).cloned();
            if let (Action::Change, Some(config)) = (entry.action, config)
                && self.make_successor(&config)
            {
                reload.waiting.insert(entry.name);
            }
        }
        let all_stand = reload.waiting.is_empty();
        self.reload = Some(reload);
        if all_stand {
            self.store_reload();
        }
    }

    fn stood(&mut self, builder: BuilderName, done: Result<(), String>) {
        let Some(reload) = &mut self.reload else { return };
        reload.waiting.remove(&builder);
        if let Err(why) = done {
            reload.failed.insert(builder, why);
        }
        if !reload.waiting.is_empty() {
            return;
        }
        if reload.failed.is_empty() {
            self.store_reload();
        } else {
            self.abandon_reload();
        }
    }

    /// One does not stand, or the store cannot have it: everything stays.
    fn abandon_reload(&mut self) {
        for (name, (_, successor)) in std::mem::take(&mut self.successors) {
            self.bus.send(successor, Msg::GiveUp);
            if let Some(entry) = self.builders.get(&name) {
                let why = "the reload was given up".to_owned();
                self.bus.send(entry.addr, Msg::SuccessorFailed(why));
            }
        }
        if let Some(reload) = self.reload.take() {
            self.end_reload(reload);
        }
    }

    fn store_reload(&mut self) {
        let Some(reload) = &self.reload else { return };
        let plan = self.plan(&reload.setup);
        let mut ops = declare(&reload.setup);
        for entry in plan.builders.iter().filter(|entry| entry.action == Action::Remove) {
            if let Some(builder) = self.builders.get(&entry.name) {
                ops.push(Op::RetireBuilder { builder: builder.id });
            }
        }
        for entry in plan.workers.iter().filter(|entry| entry.action == Action::Remove) {
            if let Some(row) = self.rows.get(&entry.name) {
                ops.push(Op::RetireWorker { worker: row.id });
            }
        }
        let (bus, me) = (self.bus.clone(), self.me);
        self.bus.write(
            Transaction { ops },
            Box::new(move |written| bus.send(me, Msg::ReloadWritten(written))),
        );
    }

    fn end_reload(&mut self, reload: Reload) {
        reload.reply.say(Answer::Reloaded);
        self.begin_reload();
    }

    fn reload_written(&mut self, written: Written) {
        let Ok(outcomes) = written else { return self.abandon_reload() };
        let Some(mut reload) = self.reload.take() else { return };
        let known = declared(&reload.setup, outcomes);
        let plan = self.plan(&reload.setup);
        self.ids.extend(known.0);
        self.rows.extend(known.1);
        self.apply_workers(&plan, &reload.setup);
        let unchanged: Vec<_> = plan
            .builders
            .iter()
            .filter(|entry| entry.action == Action::Keep)
            .filter_map(|entry| self.builders.get(&entry.name))
            .map(|entry| (entry.id, entry.addr))
            .collect();
        self.bus.see(Seen::Reloading { unchanged });
        for entry in plan.builders {
            let config = reload.setup.builder(&entry.name).cloned();
            match (entry.action, config) {
                (Action::Add, Some(config)) => self.start_builder(&config),
                (Action::Change, _) if self.successors.contains_key(&entry.name) => {
                    let workers = self.worker_doors();
                    let done = TakeOverDone::done(&self.bus, self.me, entry.name.clone());
                    if let Some(builder) = self.builders.get(&entry.name) {
                        self.bus.send(builder.addr, Msg::Commit { workers, done });
                    }
                    reload.waiting.insert(entry.name);
                }
                (Action::Remove, _) => self.remove_builder(entry.name),
                _ => {}
            }
        }
        if reload.waiting.is_empty() {
            self.settle(reload);
        } else {
            self.reload = Some(reload);
        }
    }

    fn apply_workers(&mut self, plan: &Plan, setup: &Setup) {
        for entry in &plan.workers {
            let config = setup.workers.iter().find(|worker| worker.name == entry.name);
            match (entry.action, config) {
                (Action::Add, Some(config)) => {
                    self.start_worker(config);
                    self.yield_builds(&entry.name);
                }
                (Action::Change, Some(config)) => {
                    if let Some(worker) = self.workers.get_mut(&entry.name) {
                        worker.config = config.clone();
                    }
                }
                (Action::Remove, _) => {
                    if let Some(worker) = self.workers.remove(&entry.name) {
                        self.roster.forget_worker(&entry.name);
                        self.doors = None;
                        self.bus.send(worker.addr, Msg::RetireWorker);
                        self.retired.insert(entry.name.clone(), worker.addr);
                    }
                }
                _ => {}
            }
        }
    }

    fn yield_builds(&mut self, name: &WorkerName) {
        let old = self.retired.remove(name).filter(|old| self.bus.is_alive(*old));
        if let (Some(old), Some(new)) = (old, self.workers.get(name)) {
            self.bus.send(old, Msg::YieldBuilds(new.door.clone()));
        }
    }

    fn remove_builder(&mut self, name: BuilderName) {
        if let Some(builder) = self.builders.remove(&name) {
            self.bus.send(builder.addr, Msg::RetireBuilder);
            let bus = self.bus.clone();
            self.removed.retain(|_, old| bus.is_alive(old.addr));
            self.names.remove(&builder.id);
            self.roster.oldest_changed(name.clone(), None);
            self.bus.board.borrow_mut().remove(&name);
            self.removed.insert(name, builder);
        }
    }

    fn took_over(&mut self, builder: BuilderName, done: Result<(), String>) {
        let Some(mut reload) = self.reload.take() else { return };
        reload.waiting.remove(&builder);
        if let Err(why) = done {
            reload.failed.insert(builder, why);
        }
        if reload.waiting.is_empty() {
            self.settle(reload);
        } else {
            self.reload = Some(reload);
        }
    }

    fn settle(&mut self, reload: Reload) {
        let mut setup = reload.setup.clone();
        let mut renewed = BTreeSet::new();
        for (name, (child, successor)) in std::mem::take(&mut self.successors) {
            let Some(entry) = self.builders.get_mut(&name) else { continue };
            if reload.failed.contains_key(&name) {
                self.bus.send(successor, Msg::GiveUp);
                continue;
            }
            if let Some(config) = setup.builder(&name) {
                entry.config = config.clone();
            }
            entry.addr = successor;
            entry.child = child;
            renewed.insert(name);
        }
        for builder in &mut setup.builders {
            if let Some(entry) = self.builders.get(&builder.name) {
                *builder = entry.config.clone();
            }
        }
        self.setup = setup;
        self.configure_workers(renewed);
        self.end_reload(reload);
    }

    /// A new Builder that is to take over from the one in charge.
    fn make_successor(&mut self, config: &Arc<BuilderConfig>) -> bool {
        let name = config.name.clone();
        let Some(entry) = self.builders.get(&name).filter(|entry| !entry.broken) else {
            return false;
        };
        let (id, route, old) = (entry.id, entry.route.clone(), entry.addr);
        let may_restart = Rc::new(Cell::new(false));
        let child = self.child();
        let parts = self.parts(id, config, route, &may_restart);
        let bus = self.bus.clone();
        let successor = self.bus.spawn(
            |me| Actor::Builder(Box::new(Builder::successor(me, &bus, parts))),
            Supervision::under(self.me, child, &may_restart),
        );
        self.successors.insert(name.clone(), (child, successor));
        let stands = TakeOverDone::standing(&self.bus, self.me, name);
        self.bus.send(old, Msg::TakeOver { successor, config: config.clone(), stands });
        true
    }

    /// Takes in one message.
    pub fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Started => {
                let setup = self.setup.clone();
                for worker in &setup.workers {
                    self.start_worker(worker);
                }
                for builder in &setup.builders {
                    self.start_builder(builder);
                }
                self.configure_workers(BTreeSet::new());
            }
            Msg::Submit(submissions, reply) => self.submit(&submissions, reply),
            Msg::SubmitWritten(written, reply) => self.submit_written(written, reply),
            Msg::Cancel { request, builder, reason, reply } => {
                self.cancel(request, builder, reason, reply);
            }
            Msg::SetPriority { request, builder, priority, reply } => {
                self.tell_or_refuse(&builder, reply, |reply| BuilderMail::SetPriority {
                    request,
                    priority,
                    reply,
                });
            }
            Msg::Stop { build, builder, reason, reply } => {
                self.tell_even_removed(&builder, reply, |reply| BuilderMail::Stop {
                    build,
                    reason,
                    reply,
                });
            }
            Msg::PingBuilder { builder, reply } => {
                self.tell_or_refuse(&builder, reply, |reply| BuilderMail::Ping { reply });
            }
            Msg::Order { worker, order, reply } => match self.workers.get(&worker) {
                Some(entry) => self.bus.send(entry.addr, Msg::WorkerOrdered { order, reply }),
                None => reply.say(Answer::Ordered),
            },
            Msg::Reload(setup, reply) => {
                if self.draining {
                    return reply.say(Answer::Reloaded);
                }
                self.reloads.push_back((*setup, reply));
                self.begin_reload();
            }
            Msg::ReloadWritten(written) => self.reload_written(written),
            Msg::Stood { builder, done } => self.stood(builder, done),
            Msg::TookOver { builder, done } => self.took_over(builder, done),
            Msg::WorkerAvailable { worker, builders, room } => {
                self.worker_available(&worker, builders, room);
            }
            Msg::OfferPassed { worker } => self.offer(&worker),
            Msg::OldestChanged { builder, oldest } => self.roster.oldest_changed(builder, oldest),
            Msg::BuilderShown { builder, restarted } => {
                if restarted {
                    self.break_up_lines();
                    self.configure_workers(BTreeSet::from([builder]));
                }
            }
            Msg::Introduce(attach, connection) => {
                let door = self.workers.get(&attach.name).map(|entry| entry.door.clone());
                let known = door.map(|door| (door, attach));
                self.bus.send(connection, Msg::Introduced(known));
            }
            Msg::ChildDown { child, gave_up, .. } => self.child_down(child, gave_up),
            Msg::ReplaceWorker(name) => {
                let dead = self.workers.get(&name).filter(|entry| !self.bus.is_alive(entry.addr));
                if let Some(config) = dead.map(|entry| entry.config.clone()) {
                    self.start_worker(&config);
                    self.configure_workers(BTreeSet::new());
                }
            }
            Msg::GrantLeases(lease) => {
                for entry in self.workers.values() {
                    self.bus.send(entry.addr, Msg::GrantLease(lease));
                }
            }
            Msg::Drain => {
                self.draining = true;
                for entry in self.builders.values() {
                    entry.door.tell(BuilderMail::Event(Event::Drain));
                }
            }
            other => panic!("the BotMaster was told {}", other.word()),
        }
    }
}

fn refusal(error: &StoreError) -> Refusal {
    Refusal::Store(error.to_string())
}
