//! Reloads: read and check, work out, store, do, and tell what was done.
//!
//! One runs at a time; others wait their turn. What is changed is worked out
//! before anything is touched, and a bad file touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix::{Addr, AsyncContext, Context, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::{BotMaster, Known, declare, declared, refusal};
use crate::actors::builder::{Builder, GiveUp, RetireBuilder, TakeOver};
use crate::actors::runtime::{MayRestart, start_supervised};
use crate::core::bot_master::{Action, Plan};
use crate::core::ids::*;
use crate::core::values::BuilderConfig;
use crate::messages::*;
use crate::settings::{Settings, TokenBook};
use crate::store::{Op, Transaction};

/// Second step of a reload: worked out on the BotMaster's own state.
#[derive(actix::Message)]
#[rtype(result = "(ReloadReport, Vec<Op>)")]
struct Prepare(Arc<Settings>);

/// Third step: everything is stored; now it is done. Answers the takeovers
/// that are under way.
#[derive(actix::Message)]
#[rtype(result = "Vec<(BuilderName, oneshot::Receiver<Result<(), String>>)>")]
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
        let (me, store) = (ctx.address(), self.world.store.clone());
        let (one_at_a_time, read) = (self.reloads.clone(), self.read_settings.clone());
        let file = self.settings.file.display().to_string();
        let clock = self.world.clock.clone();
        Box::pin(async move {
            let _turn = one_at_a_time.lock().await;
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
            let (mut report, ops) = me.send(Prepare(settings.clone())).await.map_err(gone)?;
            if message.dry {
                // A plan tells what would change, and that would not.
                report.entries.iter_mut().for_each(|entry| entry.error = None);
                return Ok(report);
            }
            let (tell, told) = oneshot::channel();
            store.write(
                Transaction { ops },
                Box::new(move |written| {
                    let _ = tell.send(written);
                }),
            );
            let outcomes = told.await.map_err(|_| Refusal::Gone)?;
            let known = declared(&settings, outcomes.map_err(|error| refusal(&error))?);
            let files = settings.clone();
            let read = tokio::task::spawn_blocking(move || TokenBook::read(&files)).await;
            let (tokens, problems) = read.map_err(|_| Refusal::Gone)?;
            for problem in problems {
                tracing::warn!("{problem}");
            }
            let apply = Apply { settings: settings.clone(), tokens, known };
            let takeovers = me.send(apply).await.map_err(gone)?;
            let mut failed = BTreeMap::new();
            for (name, done) in takeovers {
                let why = match done.await {
                    Ok(Ok(())) => continue,
                    Ok(Err(why)) => why,
                    Err(_) => "the builder went away meanwhile".into(),
                };
                failed.insert(name, why);
            }
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
        })
    }
}

impl Handler<Prepare> for BotMaster {
    type Result = actix::MessageResult<Prepare>;
    fn handle(&mut self, message: Prepare, _: &mut Context<Self>) -> Self::Result {
        let settings = &message.0;
        let plan = self.plan(settings);
        let mut ops = declare(settings);
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
        actix::MessageResult((report, ops))
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
        for entry in plan.workers {
            let config =
                settings.workers.iter().find(|w| w.config.name == entry.name).map(|w| &w.config);
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
        for entry in plan.builders {
            let config = settings.builders.iter().find(|b| b.name == entry.name);
            match (entry.action, config) {
                (Action::Add, Some(config)) => self.start_builder(config, ctx),
                // The cause may have been in the settings.
                (Action::Change, Some(config)) if self.is_broken(&entry.name) => {
                    self.start_builder(config, ctx);
                }
                (Action::Change, Some(config)) => {
                    if let Some(done) = self.succeed(config, ctx) {
                        takeovers.push((entry.name, done));
                    }
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
        let mut renewed = BTreeSet::new();
        for (name, (child, successor)) in std::mem::take(&mut self.successors) {
            let Some(entry) = self.builders.get_mut(&name) else { continue };
            if message.failed.contains_key(&name) {
                successor.do_send(GiveUp);
                continue;
            }
            let config = settings.builders.iter().find(|builder| builder.name == name);
            if let Some(config) = config {
                entry.config = config.clone();
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
        self.settings = settings;
        self.configure_workers(renewed);
    }
}

impl BotMaster {
    /// A worker that was removed comes back while its old actor still has
    /// builds: the worker itself will be the new actor's (row FA18).
    fn yield_builds(&mut self, name: &WorkerName) {
        let old = self.retired.remove(name).filter(Addr::connected);
        if let (Some(old), Some(new)) = (old, self.workers.get(name)) {
            old.do_send(YieldBuilds(new.handle.clone()));
        }
    }

    fn is_broken(&self, name: &BuilderName) -> bool {
        self.builders.get(name).is_some_and(|entry| entry.broken.is_some())
    }

    /// A new Builder actor takes over from the one in charge.
    fn succeed(
        &mut self,
        config: &Arc<BuilderConfig>,
        ctx: &mut Context<Self>,
    ) -> Option<oneshot::Receiver<Result<(), String>>> {
        let name = config.name.clone();
        let entry = self.builders.get(&name)?;
        let (done, told) = oneshot::channel();
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
        old.do_send(TakeOver { successor, config: config.clone(), done });
        Some(told)
    }
}
