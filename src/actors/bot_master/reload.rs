//! Reloads: read and check, work out, make the successors, store, do, and tell
//! what was done.
//!
//! One runs at a time; others wait their turn. What is changed is worked out
//! before anything is touched, and a bad file touches nothing. The successors
//! are built beside the builders in charge, and only when all of them stand,
//! and the store has what is new, is anything swapped (fault row FC10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix::{Addr, AsyncContext, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::declare::{declare_some, declared_some};
use super::turns::{SAY_EVERY, Turn, saying};
use super::{BotMaster, Known, ReadSettings, refusal};
use crate::actors::builder::{Builder, Commit, GiveUp, RetireBuilder, SuccessorFailed, TakeOver};
use crate::actors::context::Context;
use crate::actors::runtime::{MayRestart, start_supervised};
use crate::actors::worker::Worker;
use crate::clock::Clock;
use crate::core::bot_master::{Action, Plan};
use crate::core::ids::*;
use crate::core::values::BuilderConfig;
use crate::faults::crash_point;
use crate::messages::*;
use crate::settings::{Settings, TokenBook, make_tokens_of_latent_workers};
use crate::store::{Op, StateStore, Transaction};

/// Second step of a reload: worked out on the BotMaster's own state.
#[derive(actix::Message)]
#[rtype(result = "Prepared")]
struct Prepare(Arc<Settings>);

/// What a reload changes, and what is stored for it.
struct Prepared {
    report: ReloadReport,
    ops: Vec<Op>,
    /// Builders that the operations declare, in order.
    builders: Vec<BuilderName>,
}

/// Third step: a successor for each builder that changed, which takes over
/// nothing yet. Answers when each of them stands.
#[derive(actix::Message)]
#[rtype(result = "Promises")]
struct Stand(Arc<Settings>);

/// One of them does not stand, or the store cannot have it: everything stays
/// as it is.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Abandon(String);

/// Fourth step: everything is stored and every successor stands; now it is
/// done. Answers the takeovers that are under way.
#[derive(actix::Message)]
#[rtype(result = "Promises")]
struct Apply {
    settings: Arc<Settings>,
    tokens: TokenBook,
    known: Known,
}

/// Last step: what came of the takeovers.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Settle {
    settings: Arc<Settings>,
    failed: BTreeMap<BuilderName, String>,
}

/// What builders will answer.
type Promises = Vec<(BuilderName, oneshot::Receiver<Result<(), String>>)>;

/// Waits for all; what failed, and why.
async fn failures(promises: Promises) -> BTreeMap<BuilderName, String> {
    let mut failed = BTreeMap::new();
    for (name, done) in promises {
        let why = match done.await {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why,
            Err(_) => "the builder went away meanwhile".into(),
        };
        failed.insert(name, why);
    }
    failed
}

impl BotMaster {
    fn plan(&self, settings: &Settings) -> Plan {
        let builders =
            self.builders.iter().map(|(name, e)| (name.clone(), e.config.clone())).collect();
        let workers =
            self.workers.iter().map(|(name, e)| (name.clone(), e.config.clone())).collect();
        let new_workers: Vec<_> = settings.workers.iter().map(|w| w.config.clone()).collect();
        Plan::between(&builders, &settings.builders, &workers, &new_workers)
    }
}

fn by_name(settings: &Settings) -> BTreeMap<&BuilderName, &Arc<BuilderConfig>> {
    settings.builders.iter().map(|builder| (&builder.name, builder)).collect()
}

fn report(plan: &Plan, settings: &Settings) -> ReloadReport {
    let entry = |what: &str, name: String, action: Action, differences: &[String]| ReloadEntry {
        what: what.into(),
        name,
        action: action.word().into(),
        differences: differences.to_vec(),
        error: None,
    };
    let builders = plan
        .builders
        .iter()
        .map(|e| entry("builder", e.name.to_string(), e.action, &e.differences));
    let workers =
        plan.workers.iter().map(|e| entry("worker", e.name.to_string(), e.action, &e.differences));
    ReloadReport {
        file: settings.file.display().to_string(),
        took_ms: 0,
        entries: builders.chain(workers).collect(),
        problems: Vec::new(),
    }
}

impl Handler<Reload> for BotMaster {
    type Result = ResponseFuture<Result<ReloadReport, Refusal>>;
    fn handle(&mut self, message: Reload, ctx: &mut Context<Self>) -> Self::Result {
        if self.draining {
            return Box::pin(async { Err(Refusal::Stopping) });
        }
        let way = Way {
            me: ctx.address(),
            store: self.world.store.clone(),
            read: self.read_settings.clone(),
            file: self.settings.file.display().to_string(),
            clock: self.world.clock.clone(),
        };
        let turns = self.reloads.clone();
        if message.dry {
            return Box::pin(async move {
                let _turn = turns.alone().await;
                way.go(message).await
            });
        }
        let number = turns.draw();
        Box::pin(async move {
            let work = async {
                let _turn = match turns.take(number).await {
                    Turn::Mine(turn) => turn,
                    Turn::Done(outcome) => return outcome,
                };
                let outcome = way.go(message).await;
                turns.end(number, &outcome);
                outcome
            };
            saying(SAY_EVERY, work, |passed| {
                tracing::warn!(seconds = passed.as_secs(), "a reload is still under way");
            })
            .await
        })
    }
}

/// What a reload needs on its way.
struct Way {
    me: Addr<BotMaster>,
    store: Arc<dyn StateStore>,
    read: Arc<ReadSettings>,
    file: String,
    clock: Clock,
}

impl Way {
    async fn go(self, message: Reload) -> Result<ReloadReport, Refusal> {
        let Self { me, store, read, file, clock } = self;
        let began = clock.now().mono;
        let settings = match message.settings {
            Some(settings) => *settings,
            None => {
                let loaded = tokio::task::spawn_blocking(move || read()).await;
                match loaded.map_err(|_| Refusal::Gone)? {
                    Ok(loaded) => loaded.settings,
                    // A bad file changes nothing and says why.
                    Err(problems) => {
                        return Ok(ReloadReport { file, problems, ..ReloadReport::default() });
                    }
                }
            }
        };
        let settings = Arc::new(settings);
        let gone = |_| Refusal::Gone;
        let prepared = me.send(Prepare(settings.clone())).await.map_err(gone)?;
        let Prepared { mut report, ops, builders } = prepared;
        if message.dry {
            // A plan tells what would change, and that would not.
            report.entries.iter_mut().for_each(|entry| entry.error = None);
            return Ok(report);
        }
        let standing = me.send(Stand(settings.clone())).await.map_err(gone)?;
        let failed = failures(standing).await;
        if let Some((name, why)) = failed.first_key_value() {
            let all = format!("nothing was changed: builder `{name}` could not be: {why}");
            me.send(Abandon(all.clone())).await.map_err(gone)?;
            for entry in report.entries.iter_mut().filter(|e| e.action != Action::Keep.word()) {
                let own = failed.get(&BuilderName::from(entry.name.as_str()));
                let own = own.filter(|_| entry.what == "builder").cloned();
                entry.error = Some(own.unwrap_or_else(|| all.clone()));
            }
            return Ok(report);
        }
        let (tell, told) = oneshot::channel();
        store.write(
            Transaction { ops },
            Box::new(move |written| {
                let _ = tell.send(written);
            }),
        );
        let outcomes = match told.await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(error)) => {
                me.send(Abandon(error.to_string())).await.map_err(gone)?;
                return Err(refusal(&error));
            }
            Err(_) => return Err(Refusal::Gone),
        };
        crash_point("reconfig.loaded");
        let known = declared_some(builders.into_iter(), outcomes);
        let files = settings.clone();
        let read = tokio::task::spawn_blocking(move || {
            let made = make_tokens_of_latent_workers(&files);
            let (tokens, problems) = TokenBook::read(&files);
            (tokens, made.into_iter().chain(problems))
        });
        let (tokens, problems) = read.await.map_err(|_| Refusal::Gone)?;
        for problem in problems {
            tracing::warn!("{problem}");
        }
        let apply = Apply { settings: settings.clone(), tokens, known };
        let failed = failures(me.send(apply).await.map_err(gone)?).await;
        for entry in &mut report.entries {
            if entry.what == "builder" {
                let why = failed.get(&BuilderName::from(entry.name.as_str()));
                entry.error = why.cloned().or(entry.error.take());
            }
        }
        me.send(Settle { settings, failed }).await.map_err(gone)?;
        let took = clock.now().mono.since(began).as_millis();
        report.took_ms = u64::try_from(took).unwrap_or(u64::MAX).max(1);
        Ok(report)
    }
}

impl Handler<Prepare> for BotMaster {
    type Result = actix::MessageResult<Prepare>;
    fn handle(&mut self, message: Prepare, _: &mut Context<Self>) -> Self::Result {
        let settings = &message.0;
        let plan = self.plan(settings);
        let changes = |action| action != Action::Keep;
        let mut builders: BTreeSet<_> = plan.changed_builders(changes).cloned().collect();
        builders.extend(self.undeclared.iter().cloned());
        let workers: BTreeSet<_> = plan.changed_workers(|action| action == Action::Add).collect();
        let mut ops =
            declare_some(settings, |name| builders.contains(name), |name| workers.contains(name));
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
        let mut report = report(&plan, settings);
        for entry in report.entries.iter_mut().filter(|entry| entry.what == "builder") {
            let known = self.builders.get(&BuilderName::from(entry.name.as_str()));
            let reason = known.and_then(|known| known.broken.as_ref());
            if let (Some(reason), "unchanged") = (reason, entry.action.as_str()) {
                let name = &entry.name;
                entry.error = Some(format!(
                    "it is broken: {reason}; `botmaster restart {name}` starts it again"
                ));
            }
        }
        let declared = settings.builders.iter().map(|builder| builder.name.clone());
        let builders = declared.filter(|name| builders.contains(name)).collect();
        actix::MessageResult(Prepared { report, ops, builders })
    }
}

impl Handler<Stand> for BotMaster {
    type Result = actix::MessageResult<Stand>;
    fn handle(&mut self, message: Stand, ctx: &mut Context<Self>) -> Self::Result {
        let settings = message.0;
        let configs = by_name(&settings);
        let mut standing = Vec::new();
        for entry in self.plan(&settings).builders {
            let config = configs.get(&entry.name).copied();
            if let (Action::Change, Some(config)) = (entry.action, config)
                && !self.is_broken(&entry.name)
                && let Some(stands) = self.make_successor(config, ctx)
            {
                standing.push((entry.name, stands));
            }
        }
        actix::MessageResult(standing)
    }
}

impl Handler<Abandon> for BotMaster {
    type Result = ();
    fn handle(&mut self, message: Abandon, _: &mut Context<Self>) {
        for (name, (_, successor)) in std::mem::take(&mut self.successors) {
            successor.do_send(GiveUp);
            if let Some(entry) = self.builders.get(&name) {
                entry.addr.do_send(SuccessorFailed(message.0.clone()));
            }
        }
    }
}

impl Handler<Apply> for BotMaster {
    type Result = actix::MessageResult<Apply>;
    fn handle(&mut self, message: Apply, ctx: &mut Context<Self>) -> Self::Result {
        let settings = message.settings;
        let plan = self.plan(&settings);
        self.ids.extend(message.known.0);
        self.rows.extend(message.known.1);
        self.tokens = message.tokens;
        self.undeclared.clear();
        let workers: BTreeMap<_, _> =
            settings.workers.iter().map(|worker| (&worker.config.name, &worker.config)).collect();
        for entry in plan.workers {
            let config = workers.get(&entry.name).copied();
            match (entry.action, config) {
                (Action::Add, Some(config)) => {
                    self.start_worker(config, ctx);
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
                        self.handles = None;
                        worker.addr.do_send(RetireWorker);
                        self.retired.retain(|_, old| old.connected());
                        self.retired.insert(entry.name.clone(), worker.addr);
                    }
                }
                _ => {}
            }
        }
        let mut takeovers = Vec::new();
        let configs = by_name(&settings);
        for entry in plan.builders {
            let config = configs.get(&entry.name).copied();
            match (entry.action, config) {
                (Action::Add, Some(config)) => self.start_builder(config, ctx),
                (Action::Change, _) if self.successors.contains_key(&entry.name) => {
                    let workers = self.worker_handles();
                    let (done, told) = oneshot::channel();
                    if let Some(builder) = self.builders.get(&entry.name) {
                        builder.addr.do_send(Commit { workers, done });
                    }
                    takeovers.push((entry.name, told));
                }
                // The cause may have been in the settings.
                (Action::Change, Some(config)) if self.is_broken(&entry.name) => {
                    self.start_builder(config, ctx);
                }
                (Action::Remove, _) => {
                    if let Some(builder) = self.builders.remove(&entry.name) {
                        builder.addr.do_send(RetireBuilder);
                        self.removed.retain(|_, old| old.addr.connected());
                        self.names.remove(&builder.id);
                        self.roster.oldest_changed(entry.name.clone(), None);
                        self.world.board.forget_builder(&entry.name);
                        self.removed.insert(entry.name, builder);
                    }
                }
                _ => {}
            }
        }
        actix::MessageResult(takeovers)
    }
}

impl Handler<Settle> for BotMaster {
    type Result = ();
    fn handle(&mut self, message: Settle, _: &mut Context<Self>) {
        let mut settings = (*message.settings).clone();
        let configs = by_name(&message.settings);
        let mut renewed = BTreeSet::new();
        for (name, (child, successor)) in std::mem::take(&mut self.successors) {
            let Some(entry) = self.builders.get_mut(&name) else { continue };
            if message.failed.contains_key(&name) {
                successor.do_send(GiveUp);
                self.undeclared.insert(name);
                continue;
            }
            if let Some(config) = configs.get(&name) {
                entry.config = (*config).clone();
            }
            entry.addr = successor;
            entry.child = child;
            renewed.insert(name);
        }
        // A builder that could not be succeeded goes on as it was.
        for builder in &mut settings.builders {
            if let Some(entry) = self.builders.get(&builder.name) {
                *builder = entry.config.clone();
            }
        }
        self.world.board.show_retention(settings.retention.clone());
        self.settings = settings;
        self.world.board.show_forms(self.settings.forms.clone());
        self.configure_workers(renewed);
        crash_point("reconfig.swapped");
    }
}

impl BotMaster {
    /// The actor that has what is left of a worker that was removed.
    pub(super) fn predecessor(&self, name: &WorkerName) -> Option<Addr<Worker>> {
        let row = self.rows.get(name);
        let former = row.and_then(|row| self.former.get(&row.id));
        self.retired.get(name).or(former).filter(|old| old.connected()).cloned()
    }

    /// A worker that was removed comes back while its old actor still has
    /// builds: the worker itself will be the new actor's (row FA18).
    fn yield_builds(&mut self, name: &WorkerName) {
        let old = self.predecessor(name);
        self.retired.remove(name);
        if let Some(row) = self.rows.get(name) {
            self.former.remove(&row.id);
        }
        if let (Some(old), Some(new)) = (old, self.workers.get(name)) {
            old.do_send(YieldBuilds(new.handle.clone()));
        }
    }

    fn is_broken(&self, name: &BuilderName) -> bool {
        self.builders.get(name).is_some_and(|entry| entry.broken.is_some())
    }

    /// A new Builder actor that is to take over from the one in charge. Answers
    /// whether it stands.
    fn make_successor(
        &mut self,
        config: &Arc<BuilderConfig>,
        ctx: &mut Context<Self>,
    ) -> Option<oneshot::Receiver<Result<(), String>>> {
        let name = config.name.clone();
        let entry = self.builders.get(&name)?;
        let (stands, told) = oneshot::channel();
        let (id, route, old) = (entry.id, entry.route.clone(), entry.addr.clone());
        let may_restart = MayRestart::new(false);
        let child = self.child();
        let parts = self.parts(id, config, route, child, &may_restart, ctx);
        let successor = start_supervised(
            format!("successor of builder {name}"),
            child,
            ctx.address().recipient(),
            self.world.clock.clone(),
            may_restart,
            move |_| Builder::successor(parts),
        );
        self.successors.insert(name, (child, successor.clone()));
        old.do_send(TakeOver { successor, config: config.clone(), stands: Some(stands) });
        Some(told)
    }
}
