//! A latent worker: it is there only while somebody needs it. Its slots can be
//! had all the same: a build that gets one while the instance is not there has
//! it reserved, and waits (rows B14, L04, L05).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::settings::made_with;
use super::{Effect, Event, Link, WorkerCore};
use crate::core::ids::*;
use crate::core::instance::{self, InstanceCore, InstanceView, Known};
use crate::core::planted;
use crate::core::time::{Now, Timestamp};
use crate::core::values::{LatentConfig, ProcessOptions, Provider, WorkerConfig};

/// Settings of a worker that was a latent one under an earlier master, and
/// whose instances only have to go.
fn no_instances() -> LatentConfig {
    LatentConfig {
        provider: Provider::Process(ProcessOptions {
            dir: PathBuf::new(),
            token_file: PathBuf::new(),
            env: BTreeMap::new(),
        }),
        substantiate_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
    }
}

impl WorkerCore {
    /// What an earlier master left of a latent worker's instances. An ordinary
    /// worker has none, or they are let go.
    pub fn take_over(&mut self, now: Timestamp, known: Vec<Known>, fx: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        let mut inner = Vec::new();
        match self.config.latent.clone() {
            Some(config) => {
                self.latent = Some(InstanceCore::new(self.now, config, known, &mut inner));
                self.pass_on(inner, fx);
            }
            None if known.is_empty() => {}
            None => {
                let all = known.into_iter().map(|one| Known { wanted: false, ..one }).collect();
                let going = InstanceCore::new(self.now, no_instances(), all, &mut inner);
                self.latent = Some(going);
                self.pass_on(inner, fx);
                self.on_instance(instance::Event::Retire, fx);
            }
        }
    }

    /// A former actor of this worker is there yet: until it says which instances
    /// it leaves, no other is asked for.
    pub fn wait_for_heritage(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        if let Some(instance) = &mut self.latent {
            instance.wait_for_heritage(self.now);
        }
    }

    /// The actor in charge gets the instances with the builds.
    pub(super) fn yield_instances(&mut self, fx: &mut Vec<Effect>) {
        for claim in std::mem::take(&mut self.wanting).into_keys() {
            let error = "the worker is configured anew".into();
            fx.push(Effect::TellNoInstance { claim, error, permanent: false });
        }
        let known = self.latent.as_mut().map(InstanceCore::hand_over).unwrap_or_default();
        fx.push(Effect::YieldInstances(known));
    }

    pub(super) fn on_take_instances(
        &mut self,
        known: Vec<Known>,
        old: &WorkerConfig,
        fx: &mut Vec<Effect>,
    ) {
        if let (Some(config), Some(instance)) = (self.config.latent.clone(), &mut self.latent) {
            let outdated = made_with(old) != made_with(&self.config);
            let mut inner = Vec::new();
            instance.inherit(self.now, known, &mut inner);
            self.pass_on(inner, fx);
            self.on_instance(instance::Event::Configure { config, outdated }, fx);
        } else {
            self.take_over(self.now, known, fx);
        }
        self.freed(fx);
    }

    /// Takes in one event at `now`.
    pub fn handle_at(&mut self, now: Timestamp, event: Event, fx: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        self.take_in(event, fx);
        self.end_quarantine(fx);
        self.look_after_instance(fx);
    }

    /// When `DeadlineReached` is due: for a pair that failed, for a latent
    /// worker's instance, or because the worker was set aside until then.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let instance = self.latent.as_ref().and_then(InstanceCore::next_deadline);
        [instance, self.quarantine.until(), self.failing_deadline()].into_iter().flatten().min()
    }

    /// The instance knows at once who uses it: that is what its idle timer is
    /// measured against (fault row FX06).
    fn look_after_instance(&mut self, fx: &mut Vec<Effect>) {
        let slots = &self.slots;
        self.wanting.retain(|claim, _| slots.contains_key(claim));
        let used = !slots.is_empty() || !self.builds.is_empty() || !self.abandoning.is_empty();
        let up = matches!(self.link, Link::Up { .. }) && !self.foreign;
        let builds = !self.builds.is_empty();
        if self.latent.is_some() {
            self.on_instance(instance::Event::Use { used, builds, up }, fx);
        }
    }

    pub(super) fn on_instance(&mut self, event: instance::Event, fx: &mut Vec<Effect>) {
        let Some(instance) = &mut self.latent else {
            fx.push(Effect::Ignored("news of an instance that an ordinary worker has not"));
            return;
        };
        let mut inner = Vec::new();
        instance.handle(self.now, event, &mut inner);
        self.pass_on(inner, fx);
        self.forget_instance_when_over();
        self.over_if_retired(fx);
    }

    /// A worker that is no latent one any more has an instance until its last
    /// one is gone.
    fn forget_instance_when_over(&mut self) {
        if self.config.latent.is_none() && self.latent.as_ref().is_some_and(InstanceCore::is_over) {
            self.latent = None;
        }
    }

    fn pass_on(&mut self, inner: Vec<instance::Effect>, fx: &mut Vec<Effect>) {
        for effect in inner {
            match effect {
                instance::Effect::Failed { error, permanent } => {
                    for claim in std::mem::take(&mut self.wanting).into_keys() {
                        fx.push(Effect::TellNoInstance { claim, error: error.clone(), permanent });
                    }
                }
                instance::Effect::Details(details) => {
                    for claim in self.wanting.keys() {
                        fx.push(Effect::TellDetails { claim: *claim, details: details.clone() });
                    }
                }
                instance::Effect::DropLink => {
                    if let Some(session) = self.session().filter(|_| !self.foreign) {
                        self.let_go = Some(session);
                        let reason = "the master lets this instance go";
                        fx.push(Effect::CloseConnection { session, reason });
                    }
                }
                instance::Effect::LostBuilds => {
                    let up = matches!(self.link, Link::Up { .. });
                    if !up || self.session() == self.let_go {
                        for build in self.builds.keys() {
                            fx.push(Effect::TellBuildGone { build: *build });
                        }
                    }
                }
                instance::Effect::Free => self.freed(fx),
                instance::Effect::Ignored(kind) => fx.push(Effect::Ignored(kind)),
                other @ (instance::Effect::StoreWish(_)
                | instance::Effect::Create(_)
                | instance::Effect::NoteCreated { .. }
                | instance::Effect::Watch { .. }
                | instance::Effect::StoreRelease(_)
                | instance::Effect::Destroy { .. }
                | instance::Effect::Forget(_)) => fx.push(Effect::Instance(other)),
            }
        }
    }

    /// A build that has a slot reserved wants the instance.
    pub(super) fn on_want(
        &mut self,
        builder: BuilderName,
        claim: ClaimId,
        tag: InstanceTag,
        fx: &mut Vec<Effect>,
    ) {
        if !self.slots.contains_key(&claim) {
            let error = "the worker was given to others meanwhile".into();
            fx.push(Effect::TellNoInstance { claim, error, permanent: false });
            return;
        }
        if matches!(self.link, Link::Up { .. }) && !self.is_kept() {
            let error = "the instance is being let go".to_owned();
            fx.push(Effect::TellNoInstance { claim, error, permanent: false });
            return;
        }
        if let Link::Up { session, .. } = self.link {
            // It is here; only this builder has not got hold of it.
            if matches!(self.answers.get(&builder), Some(Some(_))) {
                self.answers.remove(&builder);
                fx.push(Effect::SendBuilders { list: self.builders.clone() });
            }
            self.wanting.insert(claim, builder.clone());
            fx.push(Effect::TellBuilder { builder, session });
            return;
        }
        self.wanting.insert(claim, builder);
        let details = self.latent.as_ref().map(InstanceCore::details).unwrap_or_default();
        if !details.is_empty() {
            fx.push(Effect::TellDetails { claim, details: details.to_owned() });
        }
        if self.latent.is_some() {
            // Its slot makes it used, which the instance has to know first.
            self.look_after_instance(fx);
            self.on_instance(instance::Event::Want { tag }, fx);
        } else {
            let error = "it is no latent worker any more".to_owned();
            self.wanting.remove(&claim);
            fx.push(Effect::TellNoInstance { claim, error, permanent: false });
        }
    }

    /// Whether a build can have a slot of an instance that is not there.
    pub(super) fn can_reserve(&self) -> bool {
        let open = self.latent.as_ref().is_some_and(|one| one.may_be_asked(self.now));
        open && self.config.latent.is_some()
            && !matches!(self.link, Link::Up { .. })
            && !self.paused
            && !self.retired
            && !self.is_set_aside()
            && self.used() < self.config.max_builds as usize
    }

    /// Whether a connection that is there belongs to an instance that is not
    /// about to go.
    pub(super) fn is_kept(&self) -> bool {
        let any = self.foreign || planted::is("fx04_any_instance_is_welcome");
        any || self.latent.as_ref().is_none_or(InstanceCore::is_there)
    }

    pub(super) fn configure_instance(
        &mut self,
        latent: Option<LatentConfig>,
        outdated: bool,
        fx: &mut Vec<Effect>,
    ) {
        match (latent, &self.latent) {
            (Some(config), Some(_)) => {
                self.on_instance(instance::Event::Configure { config, outdated }, fx);
            }
            (Some(config), None) => {
                // Whoever is attached stays until it leaves.
                self.foreign = self.session().is_some();
                let mut inner = Vec::new();
                self.latent = Some(InstanceCore::new(self.now, config, Vec::new(), &mut inner));
                self.pass_on(inner, fx);
            }
            (None, Some(_)) => self.on_instance(instance::Event::Retire, fx),
            (None, None) => {}
        }
    }

    /// A latent worker that left on request is welcome again as soon as it is
    /// gone: the next one is another.
    pub(super) fn link_of_instance_ended(&mut self, fx: &mut Vec<Effect>) {
        self.foreign = false;
        if self.latent.is_some() && self.leaving {
            self.leaving = false;
            fx.push(Effect::StoreStays);
        }
        if self.latent.is_some() {
            self.freed(fx);
        }
    }

    pub(super) fn on_unexpected(&mut self, session: SessionId, fx: &mut Vec<Effect>) {
        fx.push(Effect::Reject {
            session,
            code: "superseded",
            message: "the master did not start this instance, or does not need it any more".into(),
            retry_after_s: None,
        });
    }

    /// Whether a connection is welcome that says it is of the instance with
    /// this tag (fault row FX04). To an ordinary worker all are.
    #[must_use]
    pub fn expects(&self, tag: Option<&InstanceTag>) -> bool {
        let any = self.foreign || planted::is("fx04_any_instance_is_welcome");
        any || self.latent.as_ref().is_none_or(|instance| instance.expects(tag))
    }

    /// Whether it is a latent worker.
    #[must_use]
    pub fn is_latent(&self) -> bool {
        self.config.latent.is_some()
    }

    /// Its instance, for people.
    #[must_use]
    pub fn instance_view(&self, now: Now) -> Option<InstanceView> {
        self.latent.as_ref().map(|instance| instance.view(now))
    }

    /// Its instance, for tests and simulations.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceCore> {
        self.latent.as_ref()
    }
}
