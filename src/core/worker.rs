//! One worker as the master knows it: its connection, its slots, what it may
//! be given (rows B28, B29, S02, T06; fault rows FA and FR).
//!
//! Deliberately absent: what runs in a slot (the Build's), how frames look.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::*;
use super::instance::{self, InstanceCore};
use super::time::Timestamp;
use super::values::WorkerConfig;

mod attach;
mod event;
mod grant;
mod latent;
mod looks;
mod pairs;
mod quarantine;
mod settings;
mod slots;
mod welcome;
mod yields;

pub use event::{Brought, Effect, Event};
pub use welcome::TurnedAway;

/// How often a minute a worker may attach, unless it is said (fault row FA11).
const ATTACHES_PER_MINUTE: usize = 10;

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
    /// The connection of an instance that was let go. That it has ended may be
    /// heard after the instance is gone.
    let_go: Option<SessionId>,
    /// Told to abandon; each takes a slot until the worker confirms.
    abandoning: BTreeMap<BuildId, BuilderName>,
    /// Builders that the worker could not be made ready for.
    failing: BTreeMap<BuilderName, pairs::Failing>,
    /// Connections that were replaced before they had a number.
    superseded: Vec<SessionId>,
    /// Who is let in.
    welcome: welcome::Welcome,
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
    /// Builders were told that there is room: some may be in line since.
    told_builders: bool,
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
            told_builders: false,
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
            let_go: None,
            abandoning: BTreeMap::new(),
            failing: BTreeMap::new(),
            superseded: Vec::new(),
            welcome: welcome::Welcome::new(ATTACHES_PER_MINUTE),
            refused: BTreeSet::new(),
            paused,
            leaving: false,
            retired: false,
            quarantine: quarantine::Quarantine::default(),
        }
    }

    /// The same one, which may attach so often a minute.
    #[must_use]
    pub fn attaching_at_most(self, per_minute: usize) -> Self {
        Self { welcome: welcome::Welcome::new(per_minute), ..self }
    }

    /// Takes in one event at the time of the last one.
    pub fn handle(&mut self, event: Event, fx: &mut Vec<Effect>) {
        self.handle_at(self.now, event, fx);
    }

    fn take_in(&mut self, event: Event, fx: &mut Vec<Effect>) {
        match event {
            Event::Hello { session, slots, instance, address } => {
                self.on_hello(attach::Caller { session, slots, instance, address }, fx);
            }
            Event::AttachStored { session, incarnation } => {
                self.on_attach_stored(session, incarnation, fx);
            }
            Event::AttachRefused { session, error } => {
                self.on_attach_refused(session, error, fx);
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
            Event::ClaimRegistered { build, claim, builder } => {
                self.slots.insert(claim, builder.clone());
                self.builds.insert(build, (claim, builder));
                // One that is here has told what it has: not this one, or it
                // was told to abandon it.
                fx.push(match self.link {
                    Link::Up { .. } => Effect::TellBuildGone { build },
                    _ => Effect::TellBuildAway { build },
                });
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
                    // broken, or know another actor of this worker, the slot is
                    // free all the same.
                    self.slots.remove(&claim);
                    self.freed(fx);
                }
            }
            Event::BuildLost { build } => self.on_build_lost(build, fx),
            Event::Abandoned { build } => {
                if let Some(builder) = self.abandoning.remove(&build) {
                    self.tell_seat(&builder, fx);
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
            Event::DeadlineReached => {
                self.ask_failing_again(fx);
                if self.latent.is_some() {
                    self.on_instance(instance::Event::DeadlineReached, fx);
                }
            }
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
