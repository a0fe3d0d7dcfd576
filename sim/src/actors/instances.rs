//! Machines of latent workers in the driver's hands: they begin and end as the
//! cloud says, and things happen to them as to every machine.

use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::values::LatentConfig;
use botmaster::store::InstanceState;

use super::cloud::Due;
use super::driver::World;
use super::plan::{Dice, terms};
use super::shared::{Order, at};
use super::worker::{self, Machine};
use crate::history::Run;

impl World<'_> {
    /// Begins and ends what is due.
    pub fn serve_instances(&mut self) {
        let Some(cloud) = self.cloud() else { return };
        let now = self.sim.elapsed();
        for (tag, _) in cloud.alive() {
            if !self.sim.is_host_running(tag.as_str()) {
                // Its program has ended by itself.
                cloud.dies(&tag, now);
            }
        }
        for due in cloud.turn(now) {
            match due {
                Due::Begin(tag, worker, works) => self.begin_instance(&tag, &worker, works),
                Due::End(tag, asked) => {
                    if !asked {
                        self.count_vanishing(tag.as_str());
                    }
                    self.sim.crash(tag.as_str());
                    self.door.borrow_mut().machine_ends(&format!("{tag}/"), at(now));
                }
            }
        }
        if self.crash_when && !self.is_down("master") && self.is_in_between() {
            self.crash_when = false;
            let end = now + self.dice.millis(200, 20_000);
            self.crash_master(end);
        }
    }

    fn begin_instance(&mut self, tag: &InstanceTag, worker: &WorkerName, works: bool) {
        let settings = self.settings();
        let found = settings.workers.iter().find(|one| one.config.name == *worker);
        let machine = Machine {
            host: tag.as_str().to_owned(),
            name: worker.as_str().to_owned(),
            token: self.plan.tokens.get(worker.as_str()).cloned().unwrap_or_default(),
            slots: found.map_or(1, |one| one.config.max_builds),
            longest: self.plan.command,
            seed: self.dice.seed(),
            tag: Some(tag.clone()),
        };
        let door = self.door.clone();
        self.sim.host(tag.as_str(), move || {
            let (door, machine) = (door.clone(), machine.clone());
            async move {
                if works { worker::run(door, machine).await } else { std::future::pending().await }
            }
        });
    }

    /// An instance ends without being asked to, while something runs on it or
    /// while nothing does.
    pub fn count_vanishing(&self, host: &str) {
        let mut shared = self.door.borrow_mut();
        let host = format!("{host}/");
        let mine = |run: &&Run| run.instance.starts_with(&host);
        let busy = shared.recorder.history.ran.iter().filter(mine).any(|run| run.end.is_none());
        shared.count(if busy { "instance_vanishes_building" } else { "instance_vanishes_idle" });
    }

    /// Whether an instance is wished for, made, or destroyed just now.
    fn is_in_between(&mut self) -> bool {
        let shared = self.door.borrow();
        let making = shared.cloud.as_ref().is_some_and(|cloud| cloud.is_making());
        let moving = shared.store.instances().any(|row| row.state != InstanceState::Created);
        drop(shared);
        (making || moving) && self.dice.percent(10)
    }

    /// In which moments of an instance the master crashes.
    pub fn count_moments(&self) {
        let mut shared = self.door.borrow_mut();
        let Some(cloud) = shared.cloud.clone() else { return };
        let states: Vec<_> = shared.store.instances().map(|row| row.state).collect();
        let alive = cloud.alive();
        let mut runs = shared.recorder.history.ran.iter().filter(|run| run.end.is_none());
        let busy =
            runs.any(|run| alive.iter().any(|(tag, _)| run.instance.starts_with(tag.as_str())));
        if cloud.is_making() {
            shared.count("crash_while_made");
        }
        if busy {
            shared.count("crash_while_an_instance_builds");
        }
        for state in states {
            shared.count(match state {
                InstanceState::Wished => "crash_while_wished",
                InstanceState::Created => "crash_while_created",
                InstanceState::Destroying => "crash_while_destroying",
            });
        }
    }

    /// Hosts of workers: the ordinary ones, and instances that run.
    pub fn machines(&self) -> Vec<String> {
        let names = self.worker_names().into_iter().filter(|name| self.is_ordinary(name));
        let cloud = self.cloud().map(|cloud| cloud.alive()).unwrap_or_default();
        names.chain(cloud.into_iter().map(|(tag, _)| tag.as_str().to_owned())).collect()
    }

    /// Whether a host or worker is an ordinary one.
    pub fn is_ordinary(&self, name: &str) -> bool {
        let mut all = self.plan.settings.workers.iter();
        all.any(|one| one.config.name.as_str() == name && one.config.latent.is_none())
    }

    /// Whose machine a host is.
    pub fn worker_of(&self, host: &str) -> WorkerName {
        let alive = self.cloud().map(|cloud| cloud.alive()).unwrap_or_default();
        let found = alive.into_iter().find(|(tag, _)| tag.as_str() == host);
        found.map_or_else(|| host.into(), |(_, worker)| worker)
    }

    /// A latent worker gets other settings, is removed, or becomes an ordinary
    /// one; one that is either comes back.
    pub fn other_terms(&mut self) {
        let all = self.plan.settings.workers.iter().filter(|one| one.config.latent.is_some());
        let all: Vec<_> = all.map(|one| one.config.name.clone()).collect();
        let Some(name) = self.dice.one_of(&all).cloned() else { return };
        let settings = self.settings();
        let present = settings.workers.iter().find(|one| one.config.name == name);
        if present.is_none_or(|one| one.config.latent.is_none()) {
            self.restore(&name);
            return self.order(Order::Reload);
        }
        match self.dice.between(0, 6) {
            0 => self.remove_worker(&name),
            1 => {
                self.count("latent_worker_made_ordinary");
                self.change(&name, |_| None);
            }
            _ => self.change(&name, |dice| Some(terms(dice))),
        }
        self.order(Order::Reload);
    }

    /// All latent workers are what they were.
    pub fn restore_all(&mut self) {
        let names: Vec<_> = self.worker_names().into_iter().map(WorkerName::from).collect();
        for name in &names {
            if self.is_ordinary(name.as_str()) {
                continue;
            }
            let settings = self.settings();
            let present = settings.workers.iter().find(|one| one.config.name == *name);
            if present.is_none_or(|one| one.config.latent.is_none()) {
                self.restore(name);
            }
        }
    }

    fn change(&mut self, name: &WorkerName, terms: impl FnOnce(&mut Dice) -> Option<LatentConfig>) {
        let mut settings = self.settings();
        if let Some(one) = settings.workers.iter_mut().find(|one| one.config.name == *name) {
            one.config.latent = terms(&mut self.dice);
        }
        self.door.borrow_mut().configure(settings);
    }

    /// It is configured no more, unless a builder had nobody left.
    fn remove_worker(&mut self, name: &WorkerName) {
        let mut settings = self.settings();
        settings.workers.retain(|one| one.config.name != *name);
        for builder in &mut settings.builders {
            Arc::make_mut(builder).workers.retain(|worker| worker != name);
        }
        if settings.builders.iter().all(|builder| !builder.workers.is_empty()) {
            self.count("latent_worker_removed");
            self.door.borrow_mut().configure(settings);
        }
    }

    /// It is a latent worker again, of the builders that it had at first.
    fn restore(&mut self, name: &WorkerName) {
        self.count("latent_worker_restored");
        let mut settings = self.settings();
        let mut first = self.plan.settings.workers.iter();
        let Some(mut one) = first.find(|one| one.config.name == *name).cloned() else { return };
        one.config.latent = Some(terms(&mut self.dice));
        settings.workers.retain(|one| one.config.name != *name);
        settings.workers.push(one);
        for builder in &mut settings.builders {
            let mut first = self.plan.settings.builders.iter();
            let had = first.any(|one| one.name == builder.name && one.workers.contains(name));
            if had && !builder.workers.contains(name) {
                Arc::make_mut(builder).workers.push(name.clone());
            }
        }
        self.door.borrow_mut().configure(settings);
    }

    /// Whether nothing is left of any instance.
    pub fn is_rid_of_instances(&self) -> bool {
        let shared = self.door.borrow();
        let cloud = shared.cloud.as_ref().is_none_or(|cloud| cloud.is_empty());
        cloud && shared.store.instances().next().is_none()
    }
}
