//! The BotMaster: supervisor and registry of builders and workers. It stores
//! submissions, says which builder is tried first, and carries out reloads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, AsyncContext, Handler, Recipient, ResponseFuture};
use tokio::sync::oneshot;

mod again;
mod declare;
mod instances;
mod logins;
mod reload;
mod turns;

pub use declare::{Known, declare, declared};
pub use instances::LetInstancesGo;

use super::builder::{Builder, BuilderParts, Remains, SuccessorFailed};
use super::convert::with_set;
use super::heartbeats::Heartbeats;
use super::runtime::{ChildDown, MayRestart, Parent, World, start_supervised};
use super::worker::{Worker, WorkerDoors};
use crate::actors::context::Context;
use crate::core::bot_master::Roster;
use crate::core::builder::{Event, Request, named_worker};
use crate::core::ids::*;
use crate::core::rng::Rng;
use crate::core::time::WallTime;
use crate::core::values::{BuilderConfig, WorkerConfig};
use crate::core::views::{BigState, BuilderView};
use crate::faults;
use crate::messages::*;
use crate::settings::{Loaded, Problem, Settings, TokenBook};
use crate::store::{
    InstanceRow, NewBuildset, Op, OpOutcome, SetPart, StoreError, Transaction, WorkerRow,
};

/// Answered once every builder stands.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct WaitReady;

/// No new builds. Answered at once.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct Drain;

/// Reads the configuration file again.
pub type ReadSettings = dyn Fn() -> Result<Loaded, Vec<Problem>> + Send + Sync;

/// What a BotMaster is made from.
pub struct Parts {
    /// The doors to the world.
    pub world: World,
    /// The settings in force.
    pub settings: Settings,
    /// Reads the configuration file again.
    pub read_settings: Arc<ReadSettings>,
    /// The workers' tokens.
    pub tokens: TokenBook,
    /// Builders as stored.
    pub builder_ids: BTreeMap<BuilderName, BuilderId>,
    /// Workers as stored.
    pub worker_rows: BTreeMap<WorkerName, WorkerRow>,
    /// Instances of latent workers as stored.
    pub instances: Vec<InstanceRow>,
    /// The one generator.
    pub rng: Rng,
}

struct BuilderEntry {
    id: BuilderId,
    config: Arc<BuilderConfig>,
    addr: Addr<Builder>,
    route: Arc<BuilderRoute>,
    door: Arc<BuilderHandle>,
    /// Number of the actor in charge.
    child: u64,
    broken: Option<String>,
}

struct WorkerEntry {
    config: WorkerConfig,
    child: u64,
    addr: Addr<Worker>,
    handle: Arc<WorkerHandle>,
}

/// The supervisor.
pub struct BotMaster {
    world: World,
    settings: Settings,
    read_settings: Arc<ReadSettings>,
    tokens: TokenBook,
    rng: Rng,
    roster: Roster,
    builders: BTreeMap<BuilderName, BuilderEntry>,
    names: BTreeMap<BuilderId, BuilderName>,
    workers: BTreeMap<WorkerName, WorkerEntry>,
    handles: Option<Arc<BTreeMap<WorkerName, Arc<WorkerHandle>>>>,
    ids: BTreeMap<BuilderName, BuilderId>,
    rows: BTreeMap<WorkerName, WorkerRow>,
    /// Builders of which the store has what a reload wished for, which failed
    /// for them after that.
    undeclared: BTreeSet<BuilderName>,
    /// Instances that an earlier master left and nobody has looked at.
    instances: Vec<InstanceRow>,
    /// Workers of an earlier configuration whose instances are let go.
    former: BTreeMap<WorkerId, Addr<Worker>>,
    /// Successors that do not stand yet.
    successors: BTreeMap<BuilderName, (u64, Addr<Builder>)>,
    /// Builders that were removed and may still have builds.
    removed: BTreeMap<BuilderName, BuilderEntry>,
    /// Workers that were removed and may still have builds.
    retired: BTreeMap<WorkerName, Addr<Worker>>,
    /// What builders left that gave up.
    remains: BTreeMap<BuilderName, Remains>,
    /// Who waits for a builder that is started again.
    again: BTreeMap<BuilderName, Vec<oneshot::Sender<Result<(), Refusal>>>>,
    next_child: u64,
    starting: BTreeSet<BuilderName>,
    ready: Vec<oneshot::Sender<()>>,
    reloads: turns::Turns,
    draining: bool,
    logins: logins::Logins,
    /// Who has the heartbeats of all workers confirmed, and that one's number.
    heartbeats: Option<(u64, Addr<Heartbeats>)>,
    /// Whom all workers tell, and who hears of their panics.
    doors: Option<(Arc<WorkerDoors>, Parent)>,
}

impl BotMaster {
    /// A supervisor; its builders and workers start with it.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let logins = logins::Logins::new(parts.world.limits.wrong_logins_per_minute);
        Self {
            world: parts.world,
            settings: parts.settings,
            read_settings: parts.read_settings,
            tokens: parts.tokens,
            rng: parts.rng,
            roster: Roster::default(),
            builders: BTreeMap::new(),
            names: BTreeMap::new(),
            workers: BTreeMap::new(),
            handles: None,
            ids: parts.builder_ids,
            rows: parts.worker_rows,
            undeclared: BTreeSet::new(),
            instances: parts.instances,
            former: BTreeMap::new(),
            successors: BTreeMap::new(),
            removed: BTreeMap::new(),
            retired: BTreeMap::new(),
            remains: BTreeMap::new(),
            again: BTreeMap::new(),
            next_child: 1,
            starting: BTreeSet::new(),
            ready: Vec::new(),
            reloads: turns::Turns::default(),
            draining: false,
            heartbeats: None,
            doors: None,
            logins,
        }
    }

    /// The edges' door to `addr`.
    #[must_use]
    pub fn handle(addr: &Addr<Self>) -> BotMasterHandle {
        BotMasterHandle {
            submit: addr.clone().recipient(),
            cancel: addr.clone().recipient(),
            priority: addr.clone().recipient(),
            stop: addr.clone().recipient(),
            ping: addr.clone().recipient(),
            order: addr.clone().recipient(),
            reload: addr.clone().recipient(),
            restart: addr.clone().recipient(),
            scheduler: addr.clone().recipient(),
        }
    }

    /// One map for all builders, made anew when the workers are others.
    fn worker_handles(&mut self) -> Arc<BTreeMap<WorkerName, Arc<WorkerHandle>>> {
        let workers = &self.workers;
        let handle =
            |(name, entry): (&WorkerName, &WorkerEntry)| (name.clone(), entry.handle.clone());
        self.handles.get_or_insert_with(|| Arc::new(workers.iter().map(handle).collect())).clone()
    }

    fn child(&mut self) -> u64 {
        self.next_child += 1;
        self.next_child
    }

    fn heartbeats(&mut self, ctx: &mut Context<Self>) -> Recipient<HeartbeatArrived> {
        if let Some((_, addr)) = &self.heartbeats {
            return addr.clone().recipient();
        }
        let (child, world) = (self.child(), self.world.clone());
        let addr = start_supervised(
            "heartbeats".into(),
            child,
            ctx.address().recipient(),
            world.clock.clone(),
            MayRestart::new(true),
            move |_| Heartbeats::new(world),
        );
        self.heartbeats = Some((child, addr.clone()));
        addr.recipient()
    }

    /// One for all workers: there may be thousands.
    fn doors(&mut self, ctx: &mut Context<Self>) -> (Arc<WorkerDoors>, Parent) {
        if let Some(doors) = &self.doors {
            return doors.clone();
        }
        let master = ctx.address().recipient();
        let doors = Arc::new(WorkerDoors { master, heartbeats: self.heartbeats(ctx) });
        let parent = Parent::from(ctx.address().recipient());
        self.doors.insert((doors, parent)).clone()
    }

    fn start_worker(&mut self, config: &WorkerConfig, ctx: &mut Context<Self>) {
        let child = self.child();
        let Some(row) = self.rows.get(&config.name) else { return };
        let (world, id, paused) = (self.world.clone(), row.id, row.paused);
        let instances = self.take_instances(id);
        let heir = self.predecessor(&config.name).is_some();
        let (doors, parent) = self.doors(ctx);
        let made = config.clone();
        let mut known = None;
        let addr = start_supervised(
            format!("worker {}", config.name),
            child,
            parent,
            world.clock.clone(),
            MayRestart::new(true),
            |inner: &mut Context<Worker>| {
                let handle = WorkerHandle::new(made.name.clone(), id, &inner.address());
                let handle = known.insert(Arc::new(handle)).clone();
                Worker::new(world, id, made, paused, doors)
                    .with_handle(handle)
                    .with_instances(instances)
                    .with_heritage(heir)
            },
        );
        let Some(handle) = known else { return };
        let entry = WorkerEntry { config: config.clone(), child, addr, handle };
        self.workers.insert(config.name.clone(), entry);
        self.handles = None;
    }

    fn parts(
        &mut self,
        id: BuilderId,
        config: &Arc<BuilderConfig>,
        route: Arc<BuilderRoute>,
        child: u64,
        may_restart: &MayRestart,
        ctx: &mut Context<Self>,
    ) -> BuilderParts {
        BuilderParts {
            world: self.world.clone(),
            id,
            config: config.clone(),
            seed: (self.rng.bits() >> 64) as u64,
            route,
            oldest: ctx.address().recipient(),
            passed: ctx.address().recipient(),
            shown: ctx.address().recipient(),
            workers: self.worker_handles(),
            may_restart: may_restart.clone(),
            earlier: Vec::new(),
            orphans: BTreeMap::new(),
            child,
            remains: ctx.address().recipient(),
        }
    }

    fn start_builder(&mut self, config: &Arc<BuilderConfig>, ctx: &mut Context<Self>) {
        let name = config.name.clone();
        let Some(id) = self.ids.get(&name).copied() else { return };
        let may_restart = MayRestart::new(true);
        let child = self.child();
        let removed = self.removed.remove(&name).map(|entry| entry.addr).filter(Addr::connected);
        let left = self.remains.remove(&name);
        let (orphans, mut earlier) =
            left.map(|left| (left.builds, left.earlier)).unwrap_or_default();
        earlier.extend(removed);
        let mut made = None;
        let me = ctx.address().recipient();
        let clock = self.world.clock.clone();
        let addr = start_supervised(
            format!("builder {name}"),
            child,
            me,
            clock,
            may_restart.clone(),
            |inner: &mut Context<Builder>| {
                let route = BuilderRoute::new(inner.address().recipient());
                made = Some(route.clone());
                let parts = self.parts(id, config, route, child, &may_restart, ctx);
                Builder::new(BuilderParts { earlier, orphans, ..parts })
            },
        );
        let Some(route) = made else { return };
        self.starting.insert(name.clone());
        self.names.insert(id, name.clone());
        let door = Arc::new(BuilderHandle::new(name.clone(), route.clone()));
        let config = config.clone();
        self.builders
            .insert(name, BuilderEntry { id, config, addr, route, door, child, broken: None });
    }

    /// Tells every worker its settings and its builders; those for whom
    /// nothing changed do nothing. `renewed` builders have a new actor.
    fn configure_workers(&mut self, renewed: BTreeSet<BuilderName>) {
        self.roster.configure(self.settings.builders.iter().map(|builder| &builder.name));
        let mut lists: BTreeMap<WorkerName, Vec<(Arc<BuilderHandle>, String)>> = BTreeMap::new();
        for builder in &self.settings.builders {
            let Some(entry) = self.builders.get(&builder.name) else { continue };
            if entry.broken.is_some() {
                continue;
            }
            for worker in &entry.config.workers {
                let door = Arc::new(entry.door.another());
                lists
                    .entry(worker.clone())
                    .or_default()
                    .push((door, entry.config.builddir.clone()));
            }
        }
        let renewed = Arc::new(renewed);
        for (name, worker) in &self.workers {
            worker.addr.do_send(ConfigureWorker {
                config: worker.config.clone(),
                builders: lists.remove(name).unwrap_or_default(),
                renewed: renewed.clone(),
            });
        }
    }

    fn entry(&self, name: &BuilderName) -> Result<&BuilderEntry, Refusal> {
        let entry = self.builders.get(name);
        let entry = entry.ok_or_else(|| Refusal::NoSuchBuilder(name.to_string()))?;
        match &entry.broken {
            Some(reason) => Err(Refusal::Broken { builder: name.clone(), reason: reason.clone() }),
            None => Ok(entry),
        }
    }

    fn tell(&self, name: &BuilderName, mail: BuilderMail) -> Result<(), Refusal> {
        self.entry(name)?.door.tell(mail);
        Ok(())
    }

    /// A builder that was removed can still be told to stop its builds.
    fn tell_even_removed(&self, name: &BuilderName, mail: BuilderMail) -> Result<(), Refusal> {
        match self.removed.get(name).filter(|_| !self.builders.contains_key(name)) {
            Some(entry) if entry.addr.connected() => {
                entry.door.tell(mail);
                Ok(())
            }
            _ => self.tell(name, mail),
        }
    }

    /// Whether a submission can be taken, and what is stored for it.
    fn new_buildset(&self, submission: &Submission, at: WallTime) -> Result<NewBuildset, Refusal> {
        let mut builders = Vec::new();
        let named = named_worker(&submission.properties);
        let may_run = |worker: &WorkerName| named.as_ref().is_none_or(|named| named == worker);
        for name in &submission.builders {
            let entry = self.entry(name)?;
            let workers = &entry.config.workers;
            if let Some(worker) = named.clone().filter(|named| !workers.contains(named)) {
                let workers = workers.iter().map(ToString::to_string).collect();
                return Err(Refusal::NotItsWorker { builder: name.clone(), worker, workers });
            }
            let view = self.world.board.builder(name);
            let limit = entry.config.queue_limit;
            if view.as_ref().is_some_and(|view| view.waiting >= limit) {
                return Err(Refusal::QueueFull { builder: name.clone(), limit });
            }
            let usable = view.is_some_and(|view| {
                let mut workers = view.workers.iter().filter(|(worker, _)| may_run(worker));
                workers.any(|(_, word)| *word != "attaching")
                    || view
                        .builds
                        .iter()
                        .any(|build| build.state == "orphaned" && may_run(&build.worker))
            });
            if submission.soon && !usable {
                return Err(Refusal::NoWorker(name.clone()));
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
}

fn refusal(error: &StoreError) -> Refusal {
    Refusal::Store(error.to_string())
}

impl Actor for BotMaster {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let settings = self.settings.clone();
        for worker in &settings.workers {
            self.start_worker(&worker.config, ctx);
        }
        for builder in &settings.builders {
            self.start_builder(builder, ctx);
        }
        self.world.board.show_forms(self.settings.forms.clone());
        self.configure_workers(BTreeSet::new());
        self.sweep(ctx);
    }
}

impl Handler<Submit> for BotMaster {
    type Result = ResponseFuture<Result<Vec<Submitted>, Refusal>>;

    fn handle(&mut self, message: Submit, ctx: &mut Context<Self>) -> Self::Result {
        faults::point("bot_master.submit");
        if self.draining {
            return Box::pin(async { Err(Refusal::Stopping) });
        }
        let at = self.world.clock.now().wall;
        let sets: Result<Vec<_>, _> =
            message.0.iter().map(|submission| self.new_buildset(submission, at)).collect();
        let ops = match sets {
            Ok(sets) => sets.into_iter().map(Op::AddBuildset).collect::<Vec<_>>(),
            Err(refusal) => return Box::pin(async { Err(refusal) }),
        };
        let (reply, answer) = oneshot::channel();
        let me = ctx.address();
        self.world.store.write(
            Transaction { ops },
            Box::new(move |written| me.do_send(SubmitWritten { written, reply })),
        );
        Box::pin(async move { answer.await.unwrap_or(Err(Refusal::Gone)) })
    }
}

/// The store answered submissions.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct SubmitWritten {
    written: crate::store::Written,
    reply: oneshot::Sender<Result<Vec<Submitted>, Refusal>>,
}

impl Handler<SubmitWritten> for BotMaster {
    type Result = ();

    /// Durable by now: the builders hear of their requests, then the submitter
    /// of their ids.
    fn handle(&mut self, message: SubmitWritten, _: &mut Context<Self>) {
        let answer = message.written.map_err(|error| refusal(&error)).map(|outcomes| {
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
        // A submitter that went away finds its requests in the store.
        let _ = message.reply.send(answer);
    }
}

type Done = ResponseFuture<Result<bool, Refusal>>;

fn when_told(told: Result<oneshot::Receiver<Result<bool, Refusal>>, Refusal>) -> Done {
    Box::pin(async move { told?.await.unwrap_or(Err(Refusal::Gone)) })
}

impl Handler<CancelRequest> for BotMaster {
    type Result = Done;
    fn handle(&mut self, message: CancelRequest, _: &mut Context<Self>) -> Done {
        let CancelRequest { request, builder, reason } = message;
        if !self.builders.contains_key(&builder) {
            // A removed builder's queue stays, and can be cancelled (FQ12).
            let (stop, stopped) = oneshot::channel();
            let mail = BuilderMail::Cancel { request, reason, reply: stop };
            let told = self.tell_even_removed(&builder, mail);
            let (reply, answer) = oneshot::channel();
            let at = self.world.clock.now().wall;
            self.world.store.write(
                Transaction::of(Op::CancelRequests { requests: vec![request], at }),
                Box::new(move |written| {
                    let _ = reply.send(written.map_err(|error| refusal(&error)));
                }),
            );
            return Box::pin(async move {
                let outcomes = answer.await.map_err(|_| Refusal::Gone)??;
                let waited =
                    matches!(outcomes.first(), Some(OpOutcome::Cancelled(ids)) if !ids.is_empty());
                // One that does not wait may have a build that goes on.
                Ok(waited || (told.is_ok() && matches!(stopped.await, Ok(Ok(true)))))
            });
        }
        let (reply, answer) = oneshot::channel();
        let mail = BuilderMail::Cancel { request, reason, reply };
        when_told(self.tell(&builder, mail).map(|()| answer))
    }
}

impl Handler<SetPriority> for BotMaster {
    type Result = Done;
    fn handle(&mut self, message: SetPriority, _: &mut Context<Self>) -> Done {
        let SetPriority { request, builder, priority } = message;
        let (reply, answer) = oneshot::channel();
        let mail = BuilderMail::SetPriority { request, priority, reply };
        when_told(self.tell(&builder, mail).map(|()| answer))
    }
}

impl Handler<StopBuild> for BotMaster {
    type Result = Done;
    fn handle(&mut self, message: StopBuild, _: &mut Context<Self>) -> Done {
        let StopBuild { build, builder, reason } = message;
        let (reply, answer) = oneshot::channel();
        let mail = BuilderMail::Stop { build, reason, reply };
        when_told(self.tell_even_removed(&builder, mail).map(|()| answer))
    }
}

impl Handler<PingBuilder> for BotMaster {
    type Result = Done;
    fn handle(&mut self, message: PingBuilder, _: &mut Context<Self>) -> Done {
        let (reply, answer) = oneshot::channel();
        when_told(self.tell(&message.0, BuilderMail::Ping { reply }).map(|()| answer))
    }
}

impl Handler<OrderWorker> for BotMaster {
    type Result = ResponseFuture<Result<(), Refusal>>;
    fn handle(&mut self, message: OrderWorker, _: &mut Context<Self>) -> Self::Result {
        let Some(entry) = self.workers.get(&message.worker) else {
            let name = message.worker.to_string();
            return Box::pin(async { Err(Refusal::NoSuchWorker(name)) });
        };
        let told = entry.addr.send(WorkerOrdered { order: message.order, reason: message.reason });
        Box::pin(async move { told.await.unwrap_or(Err(Refusal::Gone)) })
    }
}

impl Handler<SetScheduler> for BotMaster {
    type Result = ResponseFuture<Result<(), Refusal>>;
    fn handle(&mut self, message: SetScheduler, _: &mut Context<Self>) -> Self::Result {
        let SetScheduler { scheduler, enabled } = message;
        let (reply, answer) = oneshot::channel();
        self.world.store.write(
            Transaction::of(Op::SetScheduler { scheduler, enabled }),
            Box::new(move |written| {
                let _ = reply.send(written);
            }),
        );
        Box::pin(async move {
            match answer.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(StoreError::Missing(_))) => Err(Refusal::NoSuchScheduler(scheduler)),
                Ok(Err(error)) => Err(refusal(&error)),
                Err(_) => Err(Refusal::Gone),
            }
        })
    }
}

impl Handler<WorkerAvailable> for BotMaster {
    type Result = ();
    fn handle(&mut self, message: WorkerAvailable, _: &mut Context<Self>) {
        let WorkerAvailable { worker, builders, room } = message;
        for name in self.roster.queue_up(&worker, builders.iter().cloned()) {
            self.may_start(&name, &worker);
        }
        for _ in 0..room {
            self.offer(&worker);
        }
        for name in builders.iter().filter(|name| self.roster.is_in_line(&worker, name)) {
            self.tell_event(name, Event::InLine { worker: worker.clone() });
        }
    }
}

impl Handler<OfferPassed> for BotMaster {
    type Result = ();
    fn handle(&mut self, message: OfferPassed, _: &mut Context<Self>) {
        self.offer(&message.worker);
    }
}

impl Handler<OldestChanged> for BotMaster {
    type Result = ();
    fn handle(&mut self, message: OldestChanged, _: &mut Context<Self>) {
        self.roster.oldest_changed(message.builder, message.oldest);
    }
}

impl Handler<BuilderShown> for BotMaster {
    type Result = ();
    fn handle(&mut self, message: BuilderShown, _: &mut Context<Self>) {
        self.stands(&message.builder);
        self.answer_again(&message.builder, || Ok(()));
        if message.restarted {
            self.break_up_lines();
            self.configure_workers(BTreeSet::from([message.builder]));
        }
    }
}

impl Handler<WaitReady> for BotMaster {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: WaitReady, _: &mut Context<Self>) -> Self::Result {
        let (tell, told) = oneshot::channel();
        if self.starting.is_empty() {
            let _ = tell.send(());
        } else {
            self.ready.push(tell);
        }
        Box::pin(async move {
            let _ = told.await;
        })
    }
}

impl Handler<ChildDown> for BotMaster {
    type Result = ();
    fn handle(&mut self, down: ChildDown, ctx: &mut Context<Self>) {
        if !down.gave_up {
            return;
        }
        let child = down.child;
        // Every lease would run out: the process ends instead, and a new one
        // goes on.
        assert!(
            self.heartbeats.as_ref().is_none_or(|(number, _)| *number != child),
            "the heartbeats' actor gave up: {}",
            down.reason
        );
        let successor = self.successors.iter().find(|(_, (number, _))| *number == child);
        if let Some(name) = successor.map(|(name, _)| name.clone()) {
            self.successors.remove(&name);
            if let Some(entry) = self.builders.get(&name) {
                let why = format!("the successor panicked: {}", down.reason);
                entry.addr.do_send(SuccessorFailed(why));
            }
            return;
        }
        let builder = self.builders.iter().find(|(_, entry)| entry.child == child);
        if let Some(name) = builder.map(|(name, _)| name.clone()) {
            self.set_broken(&name, &down);
            return;
        }
        let worker = self.workers.iter().find(|(_, entry)| entry.child == child);
        if let Some(name) = worker.map(|(name, _)| name.clone()) {
            // A fresh actor: the worker comes back over a new connection.
            tracing::error!(worker.name = %name, reason = %down.reason, "the worker's actor gave up; a new one takes its place after a while");
            ctx.run_later(self.world.timers.worker_again, move |master, ctx| {
                // It may have been removed, and come back, meanwhile.
                let dead = master.workers.get(&name).filter(|entry| !entry.addr.connected());
                if let Some(entry) = dead {
                    let config = entry.config.clone();
                    master.start_worker(&config, ctx);
                    master.configure_workers(BTreeSet::new());
                    // What the dead one knew of its instances is gone with it.
                    master.sweep(ctx);
                }
            });
            return;
        }
        // A predecessor, or one that was removed: what it leaves comes next.
        tracing::error!(actor = %down.id, reason = %down.reason, "a predecessor gave up");
    }
}

impl BotMaster {
    /// Offers a worker's room to the next in line that there is.
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

    /// A builder's panic may have taken an offer with it: everybody is told.
    fn break_up_lines(&mut self) {
        for (worker, line) in self.roster.break_up() {
            for name in line {
                self.may_start(&name, &worker);
            }
        }
    }

    /// Nobody waits for this builder (any longer).
    fn stands(&mut self, name: &BuilderName) {
        self.starting.remove(name);
        if self.starting.is_empty() {
            for ready in self.ready.drain(..) {
                let _ = ready.send(());
            }
        }
    }

    fn set_broken(&mut self, name: &BuilderName, down: &ChildDown) {
        self.break_up_lines();
        let Some(entry) = self.builders.get_mut(name) else { return };
        let reason = format!(
            "its actor panicked {} times within 60 s, last: {}",
            down.restarts + 1,
            down.reason
        );
        tracing::error!(builder.name = %name, %reason, "the builder is broken; the others go on");
        let view = self.world.board.builder(name);
        self.world.board.show_builder(
            name,
            BuilderView {
                id: entry.id,
                generation: view.as_ref().map_or(Generation(0), |view| view.generation),
                big_state: BigState::Offline,
                waiting: view.as_ref().map_or(0, |view| view.waiting),
                oldest_request_time: view.as_ref().and_then(|view| view.oldest_request_time),
                // Nobody knows these any more; a drain must not wait for them.
                builds: Vec::new(),
                workers: BTreeMap::new(),
                pauses: BTreeMap::new(),
                max_builds: None,
                expected: None,
                broken: Some(reason.clone()),
                restarts: down.restarts,
            },
        );
        entry.broken = Some(reason.clone());
        self.answer_again(name, || {
            Err(Refusal::Broken { builder: name.clone(), reason: reason.clone() })
        });
        for worker in self.workers.values() {
            worker.addr.do_send(BuilderBroken(name.clone()));
        }
        self.stands(name);
        self.configure_workers(BTreeSet::new());
    }
}

impl Handler<Drain> for BotMaster {
    type Result = ();
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {
        self.draining = true;
        self.world.board.show_draining();
        for entry in self.builders.values() {
            entry.door.tell(BuilderMail::Event(Event::Drain));
        }
    }
}

/// Gives workers with builds a longer lease, because the master stops. Answered,
/// once they know of it, with how many got it.
#[derive(actix::Message)]
#[rtype(result = "usize")]
pub struct GrantLeases(pub std::time::Duration);

impl Handler<GrantLeases> for BotMaster {
    type Result = ResponseFuture<usize>;
    fn handle(&mut self, message: GrantLeases, _: &mut Context<Self>) -> Self::Result {
        let workers = self.workers.values().map(|entry| &entry.addr);
        let asked: Vec<_> =
            workers.chain(self.retired.values()).map(|to| to.send(GrantLease(message.0))).collect();
        Box::pin(async move {
            let answers = futures_util::future::join_all(asked).await;
            answers.into_iter().filter(|granted| matches!(granted, Ok(true))).count()
        })
    }
}

/// Ends the BotMaster and, with it, its children's reasons to live.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct Stop;

impl Handler<Stop> for BotMaster {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}
