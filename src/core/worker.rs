//! One worker as the master knows it: its connection, its slots, what it may
//! be given (rows B28, B29, S02, T06; fault rows FA and FR).
//!
//! Deliberately absent: what runs in a slot (the Build's), how frames look.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::*;
use super::instance::{self, InstanceCore, Known};
use super::time::Timestamp;
use super::values::{Provider, WorkerConfig};

mod grant;
mod latent;
mod looks;
mod quarantine;
mod slots;
mod yields;

/// One build of a worker's inventory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brought {
    /// Which.
    pub build: BuildId,
    /// Its command, when there is one.
    pub command: Option<CommandId>,
    /// The processes are gone without a result.
    pub lost: bool,
}

/// What a worker's actor hears.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A connection proved itself.
    Hello {
        /// Which.
        session: SessionId,
        /// How many builds it offers to run.
        slots: u32,
        /// Which program it is: another one after each start.
        instance: String,
    },
    /// The store gave the connection its incarnation.
    AttachStored {
        /// Which.
        session: SessionId,
        /// Its number.
        incarnation: Incarnation,
    },
    /// The store could not.
    AttachRefused {
        /// Which.
        session: SessionId,
        /// Why.
        error: String,
    },
    /// A part of the inventory.
    Inventory {
        /// Which connection.
        session: SessionId,
        /// Builds in the worker's journals.
        builds: Vec<Brought>,
        /// Another part follows.
        more: bool,
    },
    /// The worker is ready for a builder, or is not.
    BuilderAnswer {
        /// Which connection.
        session: SessionId,
        /// Which builder.
        builder: BuilderName,
        /// Why not.
        error: Option<String>,
    },
    /// A SlaveBuilder waits for its builder's answer.
    SeatRegistered {
        /// Its connection.
        session: SessionId,
        /// Its builder.
        builder: BuilderName,
    },
    /// A connection ended.
    ConnectionLost {
        /// Which.
        session: SessionId,
    },
    /// A builder asks for a slot.
    AskSlot {
        /// Who.
        builder: BuilderName,
        /// For whom.
        claim: ClaimId,
    },
    /// A slot is free again. A second time it frees nothing.
    GiveBackSlot {
        /// Who had it. It has to be told when it may try again, as those that
        /// were refused: the oldest request goes first (row B32).
        builder: BuilderName,
        /// Whose it was.
        claim: ClaimId,
    },
    /// Of a builder's slots only these are in use (after its restart).
    KeepSlots {
        /// Which builder.
        builder: BuilderName,
        /// In use.
        claims: BTreeSet<ClaimId>,
    },
    /// A Build lives for this build.
    BuildRegistered {
        /// Which.
        build: BuildId,
        /// Its claim: it has a slot.
        claim: ClaimId,
        /// Its builder.
        builder: BuilderName,
        /// The connection over which it was started; none for a build of an
        /// earlier master.
        session: Option<SessionId>,
    },
    /// A builder is broken: only its running builds keep their slots.
    BuilderBroken(BuilderName),
    /// The build ended.
    BuildForgotten {
        /// Which.
        build: BuildId,
    },
    /// A build was lost with this worker and is queued again. Its end is told
    /// besides.
    BuildLost {
        /// Which.
        build: BuildId,
    },
    /// The worker ended a build that it was told to abandon.
    Abandoned {
        /// Which.
        build: BuildId,
    },
    /// A person's order: no more starts, or starts again. It counts once it is
    /// stored.
    Pause {
        /// Which of them.
        paused: bool,
        /// For people.
        reason: Option<String>,
    },
    /// It is stored.
    PauseStored {
        /// Which of them.
        paused: bool,
    },
    /// Leave once the builds have ended; with the end of the program. It counts
    /// once it is stored.
    Leave {
        /// End the program, too.
        shutdown: bool,
        /// For people.
        reason: String,
    },
    /// It is stored.
    LeaveStored {
        /// End the program, too.
        shutdown: bool,
        /// For people.
        reason: String,
    },
    /// The worker says that it leaves by itself.
    Draining,
    /// New settings.
    Configure {
        /// The worker's.
        config: WorkerConfig,
        /// The builders that list it, in order, with their folders.
        builders: Vec<(BuilderName, String)>,
        /// Those of them with a new Builder actor, which knows no worker that
        /// was still attaching.
        renewed: BTreeSet<BuilderName>,
    },
    /// It is no longer configured: it goes when its builds have ended.
    Retire,
    /// It is configured again, and another actor is in charge of its name: the
    /// worker comes back to that one, so its builds must be known there.
    Yield,
    /// The worker's former actor says which instances it left.
    TakeInstances {
        /// All of them.
        known: Vec<Known>,
        /// The settings that they were made with.
        made_with: WorkerConfig,
    },
    /// A connection that is none of the present instance's (fault row FX04).
    Unexpected {
        /// Which.
        session: SessionId,
    },
    /// A build that has a slot reserved wants the instance to be there.
    Want {
        /// Whose build.
        builder: BuilderName,
        /// For whom.
        claim: ClaimId,
        /// For a new instance, should there be none.
        tag: InstanceTag,
    },
    /// News of a latent worker's instance.
    Instance(instance::Event),
}

/// What a worker's actor wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Give the connection an incarnation.
    StoreAttach {
        /// Which.
        session: SessionId,
    },
    /// Note that the worker is away.
    StoreDetach {
        /// The incarnation that ended.
        incarnation: Incarnation,
    },
    /// Tell the worker that it is attached.
    SendAttached {
        /// Which connection.
        session: SessionId,
        /// Its number.
        incarnation: Incarnation,
    },
    /// Turn a connection away and close it.
    Reject {
        /// Which.
        session: SessionId,
        /// The wire's code.
        code: &'static str,
        /// For people.
        message: String,
        /// When to come again; none means never.
        retry_after_s: Option<u64>,
    },
    /// Send all builders that the worker serves.
    SendBuilders {
        /// In order, with their folders.
        list: Vec<(BuilderName, String)>,
    },
    /// Tell a builder that the worker is there (row B21).
    TellBuilder {
        /// Which.
        builder: BuilderName,
        /// The connection.
        session: SessionId,
    },
    /// Tell a SlaveBuilder its builder's answer.
    TellSeat {
        /// Whose.
        builder: BuilderName,
        /// Why not.
        error: Option<String>,
        /// The build that has the seat at once.
        building: Option<ClaimId>,
    },
    /// Tell all SlaveBuilders of a connection that it ended.
    TellSeatsDetached {
        /// Which.
        session: SessionId,
    },
    /// Tell a Build that its worker is away.
    TellBuildAway {
        /// Which.
        build: BuildId,
    },
    /// Tell a Build that its worker is back with it.
    TellBuildBack {
        /// Which.
        build: BuildId,
        /// The worker's new number.
        incarnation: Incarnation,
        /// What the worker said of it.
        brought: Brought,
    },
    /// Tell a Build that its worker came back without it (fault row FA17).
    TellBuildGone {
        /// Which.
        build: BuildId,
    },
    /// Tell the worker to end and forget a build.
    SendAbandon {
        /// Which.
        build: BuildId,
        /// Its command, when there is one.
        command: Option<CommandId>,
    },
    /// Answer a builder.
    Slot {
        /// Who asked.
        builder: BuilderName,
        /// For whom.
        claim: ClaimId,
        /// The incarnation that has the slot; none when refused.
        granted: Option<Incarnation>,
    },
    /// The build has a slot, and the worker is not there: it shall say that it
    /// wants it (row B14).
    SlotReserved {
        /// Who asked.
        builder: BuilderName,
        /// For whom.
        claim: ClaimId,
    },
    /// Tell a builder that a latent worker is one of its own (row B26).
    TellLatent {
        /// Which.
        builder: BuilderName,
    },
    /// Tell a builder that the worker is no latent one any more.
    TellNotLatent {
        /// Which.
        builder: BuilderName,
    },
    /// Tell a build that waits for the instance what the provider told of it.
    TellDetails {
        /// Which.
        claim: ClaimId,
        /// For people.
        details: String,
    },
    /// Tell a build that waits for the instance that it came to nothing.
    TellNoInstance {
        /// Which.
        claim: ClaimId,
        /// Why.
        error: String,
        /// Asking again is no use.
        permanent: bool,
    },
    /// Something about the instance: for the store and the provider.
    Instance(instance::Effect),
    /// These builders were refused and may try again (row B16).
    TryBuilders(Vec<BuilderName>),
    /// Keep paused or not; answered `PauseStored`, or not at all.
    StorePaused {
        /// Which of them.
        paused: bool,
        /// For people.
        reason: Option<String>,
    },
    /// Keep that it leaves; answered `LeaveStored`, or not at all.
    StoreLeave {
        /// End the program, too.
        shutdown: bool,
        /// For people.
        reason: String,
    },
    /// Keep that it stays.
    StoreStays,
    /// Tell the worker to leave once its builds have ended.
    SendLeave {
        /// End the program, too.
        shutdown: bool,
        /// For people.
        reason: String,
    },
    /// Close the connection.
    CloseConnection {
        /// Which.
        session: SessionId,
        /// For people.
        reason: &'static str,
    },
    /// Make a build known to the actor that is in charge of the name now.
    YieldBuild {
        /// Which.
        build: BuildId,
        /// Its claim.
        claim: ClaimId,
        /// Its builder.
        builder: BuilderName,
    },
    /// Tell the actor in charge which instances there are.
    YieldInstances(Vec<Known>),
    /// Something stale was ignored.
    Ignored(&'static str),
    /// A retired worker has nothing left to do.
    Over,
}

#[derive(Clone, PartialEq, Debug)]
enum Link {
    /// Nobody is there.
    Away,
    /// The store numbers the connection; it answers or closes.
    Numbering { session: SessionId },
    /// The inventory is being told; the handshake timer of the connection
    /// ends it when it does not come.
    Inventory { session: SessionId, incarnation: Incarnation },
    /// Attached.
    Up { session: SessionId, incarnation: Incarnation },
}

/// The state of one Worker actor.
#[derive(Clone, PartialEq, Debug)]
pub struct WorkerCore {
    config: WorkerConfig,
    builders: Vec<(BuilderName, String)>,
    link: Link,
    offered: u32,
    /// What the worker answered for each builder on this connection.
    answers: BTreeMap<BuilderName, Option<String>>,
    slots: BTreeMap<ClaimId, BuilderName>,
    builds: BTreeMap<BuildId, (ClaimId, BuilderName)>,
    brought: BTreeSet<BuildId>,
    /// The program that proved itself last.
    instance: String,
    /// Builds of a program that another one replaced while it was connected:
    /// it may be another machine, and still run them.
    elsewhere: BTreeSet<BuildId>,
    /// The connection of such a program.
    replaced: Option<SessionId>,
    /// Told to abandon; each takes a slot until the worker confirms.
    abandoning: BTreeSet<BuildId>,
    refused: BTreeSet<BuilderName>,
    paused: bool,
    leaving: bool,
    retired: bool,
    quarantine: quarantine::Quarantine,
    now: Timestamp,
    /// A latent worker's instance.
    latent: Option<InstanceCore>,
    /// Builds with a slot that wait for the instance.
    wanting: BTreeMap<ClaimId, BuilderName>,
    /// Who is attached was not made as an instance: the worker became a latent
    /// one meanwhile.
    foreign: bool,
}

impl WorkerCore {
    /// A worker that is not there yet.
    #[must_use]
    pub fn new(config: WorkerConfig, paused: bool) -> Self {
        let now = Timestamp::default();
        let latent = config.latent.clone();
        let instance = latent.map(|l| InstanceCore::new(now, l, Vec::new(), &mut Vec::new()));
        Self {
            config,
            now,
            latent: instance,
            wanting: BTreeMap::new(),
            foreign: false,
            builders: Vec::new(),
            link: Link::Away,
            offered: 0,
            answers: BTreeMap::new(),
            slots: BTreeMap::new(),
            builds: BTreeMap::new(),
            brought: BTreeSet::new(),
            instance: String::new(),
            elsewhere: BTreeSet::new(),
            replaced: None,
            abandoning: BTreeSet::new(),
            refused: BTreeSet::new(),
            paused,
            leaving: false,
            retired: false,
            quarantine: quarantine::Quarantine::default(),
        }
    }

    /// Takes in one event at the time of the last one.
    pub fn handle(&mut self, event: Event, fx: &mut Vec<Effect>) {
        self.handle_at(self.now, event, fx);
    }

    fn take_in(&mut self, event: Event, fx: &mut Vec<Effect>) {
        match event {
            Event::Hello { session, slots, instance } => {
                self.on_hello(session, slots, instance, fx);
            }
            Event::AttachStored { session, incarnation } => {
                self.on_attach_stored(session, incarnation, fx);
            }
            Event::AttachRefused { session, error } => {
                if self.link == (Link::Numbering { session }) {
                    self.link = Link::Away;
                }
                fx.push(Effect::Reject {
                    session,
                    code: "busy",
                    message: error,
                    retry_after_s: Some(5),
                });
            }
            Event::Inventory { session, builds, more } => {
                self.on_inventory(session, builds, more, fx);
            }
            Event::BuilderAnswer { session, builder, error } => {
                self.on_builder_answer(session, builder, error, fx);
            }
            Event::SeatRegistered { session, builder } => {
                self.on_seat_registered(session, &builder, fx);
            }
            Event::ConnectionLost { session } => self.on_connection_lost(session, fx),
            Event::AskSlot { builder, claim } => self.on_ask_slot(builder, claim, fx),
            Event::GiveBackSlot { builder, claim } => {
                self.slots.remove(&claim);
                self.refused.insert(builder);
                self.freed(fx);
            }
            Event::KeepSlots { builder, claims } => {
                let before = self.slots.len();
                self.slots.retain(|claim, owner| *owner != builder || claims.contains(claim));
                if self.slots.len() < before {
                    self.freed(fx);
                }
            }
            Event::BuildRegistered { build, claim, builder, session } => {
                self.on_build_registered(build, claim, builder, session, fx);
            }
            Event::BuilderBroken(builder) => {
                let running: BTreeSet<_> = self.builds.values().map(|(claim, _)| *claim).collect();
                self.slots.retain(|claim, owner| *owner != builder || running.contains(claim));
                self.refused.remove(&builder);
                self.freed(fx);
            }
            Event::BuildForgotten { build } => {
                self.elsewhere.remove(&build);
                if let Some((claim, _)) = self.builds.remove(&build) {
                    // Its builder gives the slot back as well; should that be
                    // broken, the slot is free all the same.
                    self.slots.remove(&claim);
                    self.freed(fx);
                }
            }
            Event::BuildLost { build } => self.on_build_lost(build, fx),
            Event::Abandoned { build } => {
                if self.abandoning.remove(&build) {
                    self.freed(fx);
                } else {
                    fx.push(Effect::Ignored("confirmation of an abandon that was not asked for"));
                }
            }
            Event::Pause { paused, reason } => fx.push(Effect::StorePaused { paused, reason }),
            Event::PauseStored { paused } => self.on_pause_stored(paused, fx),
            Event::Leave { shutdown, reason } => fx.push(Effect::StoreLeave { shutdown, reason }),
            Event::LeaveStored { shutdown, reason } => {
                self.leaving = true;
                fx.push(Effect::SendLeave { shutdown, reason });
            }
            Event::Draining => self.leaving = true,
            Event::Configure { config, builders, renewed } => {
                self.on_configure(config, builders, &renewed, fx);
            }
            Event::Retire => {
                self.retired = true;
                if self.latent.is_some() {
                    self.on_instance(instance::Event::Retire, fx);
                } else {
                    self.over_if_retired(fx);
                }
            }
            Event::Yield => self.on_yield(fx),
            Event::TakeInstances { known, made_with } => {
                self.on_take_instances(known, &made_with, fx);
            }
            Event::Unexpected { session } => self.on_unexpected(session, fx),
            Event::Want { builder, claim, tag } => self.on_want(builder, claim, tag, fx),
            Event::Instance(event) => self.on_instance(event, fx),
        }
    }

    /// A new connection replaces the old one at once (fault row FA02).
    fn on_hello(&mut self, session: SessionId, slots: u32, instance: String, fx: &mut Vec<Effect>) {
        if self.retired {
            fx.push(Effect::Reject {
                session,
                code: "auth",
                message: "this worker is no longer configured".into(),
                retry_after_s: None,
            });
            return;
        }
        if instance != self.instance && self.session().is_some() {
            self.elsewhere.extend(self.builds.keys());
            self.replaced = self.session();
        }
        self.instance = instance;
        self.drop_link("superseded by a newer connection", fx);
        self.offered = slots.max(1);
        self.link = Link::Numbering { session };
        fx.push(Effect::StoreAttach { session });
    }

    fn drop_link(&mut self, reason: &'static str, fx: &mut Vec<Effect>) {
        let old = std::mem::replace(&mut self.link, Link::Away);
        let (session, incarnation) = match old {
            Link::Away => return,
            Link::Numbering { session } => (session, None),
            Link::Inventory { session, incarnation } | Link::Up { session, incarnation } => {
                (session, Some(incarnation))
            }
        };
        fx.push(Effect::Reject {
            session,
            code: "superseded",
            message: reason.into(),
            retry_after_s: Some(60),
        });
        self.link_ended(session, incarnation, fx);
    }

    fn link_ended(
        &mut self,
        session: SessionId,
        incarnation: Option<Incarnation>,
        fx: &mut Vec<Effect>,
    ) {
        self.answers.clear();
        self.brought.clear();
        // What was being abandoned is asked for again with the next inventory.
        self.abandoning.clear();
        fx.push(Effect::TellSeatsDetached { session });
        for build in self.builds.keys() {
            fx.push(Effect::TellBuildAway { build: *build });
        }
        if let Some(incarnation) = incarnation {
            fx.push(Effect::StoreDetach { incarnation });
        }
        self.link_of_instance_ended(fx);
    }

    fn on_attach_stored(
        &mut self,
        session: SessionId,
        incarnation: Incarnation,
        fx: &mut Vec<Effect>,
    ) {
        if self.link != (Link::Numbering { session }) {
            fx.push(Effect::Ignored("number for a connection that is gone"));
            return;
        }
        self.link = Link::Inventory { session, incarnation };
        self.quarantine.attached();
        // A worker that left on request and came back is welcome again.
        if self.leaving {
            self.leaving = false;
            fx.push(Effect::StoreStays);
        }
        fx.push(Effect::SendAttached { session, incarnation });
    }

    fn on_inventory(
        &mut self,
        session: SessionId,
        builds: Vec<Brought>,
        more: bool,
        fx: &mut Vec<Effect>,
    ) {
        let Link::Inventory { session: current, incarnation } = self.link else {
            fx.push(Effect::Ignored("inventory out of turn"));
            return;
        };
        if current != session {
            fx.push(Effect::Ignored("inventory of an older connection"));
            return;
        }
        for item in builds {
            if self.builds.contains_key(&item.build) {
                self.brought.insert(item.build);
                self.elsewhere.remove(&item.build);
                fx.push(Effect::TellBuildBack { build: item.build, incarnation, brought: item });
            } else {
                self.abandoning.insert(item.build);
                fx.push(Effect::SendAbandon { build: item.build, command: item.command });
            }
        }
        if more {
            return;
        }
        // One that may run elsewhere has its grace: that program's lease ends
        // before it (invariant I3).
        let gone =
            |build: &&BuildId| !self.brought.contains(build) && !self.elsewhere.contains(build);
        for build in self.builds.keys().filter(gone) {
            fx.push(Effect::TellBuildGone { build: *build });
        }
        self.link = Link::Up { session, incarnation };
        fx.push(Effect::SendBuilders { list: self.builders.clone() });
        for (builder, _) in &self.builders {
            fx.push(Effect::TellBuilder { builder: builder.clone(), session });
        }
    }

    fn on_builder_answer(
        &mut self,
        session: SessionId,
        builder: BuilderName,
        error: Option<String>,
        fx: &mut Vec<Effect>,
    ) {
        if !matches!(self.link, Link::Up { session: current, .. } if current == session) {
            fx.push(Effect::Ignored("builder answer of an older connection"));
            return;
        }
        if !self.builders.iter().any(|(name, _)| *name == builder) {
            fx.push(Effect::Ignored("answer for a builder that the worker does not serve"));
            return;
        }
        let building = self.building(&builder);
        fx.push(Effect::TellSeat { builder: builder.clone(), error: error.clone(), building });
        self.answers.insert(builder, error);
    }

    fn on_seat_registered(
        &mut self,
        session: SessionId,
        builder: &BuilderName,
        fx: &mut Vec<Effect>,
    ) {
        match self.link {
            Link::Up { session: current, .. } if current == session => {
                if let Some(error) = self.answers.get(builder) {
                    let building = self.building(builder);
                    fx.push(Effect::TellSeat {
                        builder: builder.clone(),
                        error: error.clone(),
                        building,
                    });
                }
            }
            _ => fx.push(Effect::TellSeatsDetached { session }),
        }
    }

    /// A build whose connection is not (or no longer) the one in charge must
    /// hear so, or it would wait for ever.
    fn on_build_registered(
        &mut self,
        build: BuildId,
        claim: ClaimId,
        builder: BuilderName,
        session: Option<SessionId>,
        fx: &mut Vec<Effect>,
    ) {
        self.slots.insert(claim, builder.clone());
        self.builds.insert(build, (claim, builder));
        match (&self.link, session) {
            (Link::Up { session: current, .. }, Some(theirs)) if *current == theirs => {}
            // Another program took the place of the one that has it.
            (Link::Up { .. }, Some(theirs)) if self.replaced == Some(theirs) => {
                self.elsewhere.insert(build);
                fx.push(Effect::TellBuildAway { build });
            }
            // It reconnected meanwhile, and was told to abandon the build.
            (Link::Up { .. }, Some(_)) => fx.push(Effect::TellBuildGone { build }),
            // Only a new connection brings a new inventory.
            (Link::Up { session, .. }, None) => fx.push(Effect::CloseConnection {
                session: *session,
                reason: "a build of it has to be taken back",
            }),
            _ => fx.push(Effect::TellBuildAway { build }),
        }
    }

    /// The build of this builder that the worker came back with.
    fn building(&self, builder: &BuilderName) -> Option<ClaimId> {
        self.builds.values().find(|(_, owner)| owner == builder).map(|(claim, _)| *claim)
    }

    fn on_connection_lost(&mut self, session: SessionId, fx: &mut Vec<Effect>) {
        let incarnation = match self.link {
            Link::Numbering { session: current } if current == session => None,
            Link::Inventory { session: current, incarnation }
            | Link::Up { session: current, incarnation }
                if current == session =>
            {
                Some(incarnation)
            }
            _ => {
                fx.push(Effect::Ignored("loss of a connection that was replaced"));
                return;
            }
        };
        self.link = Link::Away;
        self.link_ended(session, incarnation, fx);
        // A latent one may be asked for again without a connection.
        self.freed(fx);
    }

    /// Only now: whoever ordered it would hear that it failed, and it would be
    /// gone after a restart (rows FA13, invariant I12).
    fn on_pause_stored(&mut self, paused: bool, fx: &mut Vec<Effect>) {
        self.paused = paused;
        if !paused {
            self.quarantine.release();
            if self.leaving {
                self.leaving = false;
                fx.push(Effect::StoreStays);
            }
            self.freed(fx);
        }
    }

    /// Sends the list again only when it changed (row T06), and tells only
    /// builders that are new to it or renewed: the others do not notice a
    /// reload (row T08).
    fn on_configure(
        &mut self,
        config: WorkerConfig,
        builders: Vec<(BuilderName, String)>,
        renewed: &BTreeSet<BuilderName>,
        fx: &mut Vec<Effect>,
    ) {
        let before = std::mem::replace(&mut self.config, config);
        let was_latent = before.latent.is_some();
        let outdated = made_with(&before) != made_with(&self.config);
        self.configure_instance(self.config.latent.clone(), outdated, fx);
        let old = std::mem::replace(&mut self.builders, builders);
        for (builder, _) in &self.builders {
            let known = was_latent && old.iter().any(|(name, _)| name == builder);
            if self.is_latent() && (!known || renewed.contains(builder)) {
                fx.push(Effect::TellLatent { builder: builder.clone() });
            } else if was_latent && !self.is_latent() {
                fx.push(Effect::TellNotLatent { builder: builder.clone() });
            }
        }
        if let Link::Up { session, .. } = self.link {
            if old != self.builders {
                let listed = &self.builders;
                self.answers.retain(|builder, _| listed.iter().any(|(name, _)| name == builder));
                fx.push(Effect::SendBuilders { list: self.builders.clone() });
            }
            for (builder, _) in &self.builders {
                let known = old.iter().any(|(name, _)| name == builder);
                if !known || renewed.contains(builder) {
                    fx.push(Effect::TellBuilder { builder: builder.clone(), session });
                }
            }
        }
        self.freed(fx);
    }

    /// Over once its builds have ended and its connection, too, so that
    /// everybody heard of that.
    fn over_if_retired(&mut self, fx: &mut Vec<Effect>) {
        if !self.retired || !self.slots.is_empty() || !self.builds.is_empty() {
            return;
        }
        if self.latent.as_ref().is_some_and(|instance| !instance.is_over()) {
            return;
        }
        match self.link {
            Link::Away => fx.push(Effect::Over),
            Link::Up { session, .. }
            | Link::Inventory { session, .. }
            | Link::Numbering { session } => fx.push(Effect::CloseConnection {
                session,
                reason: "this worker is no longer configured",
            }),
        }
    }
}

/// Those settings that an instance keeps as long as it is there.
fn made_with(config: &WorkerConfig) -> (u32, Option<Provider>) {
    (config.max_builds, config.latent.as_ref().map(|latent| latent.provider.clone()))
}
