//! A worker's connection: how it comes, is numbered, tells its inventory, and
//! goes (fault rows FA).

use super::{Brought, Effect, Link, WorkerCore};
use crate::core::ids::*;

impl WorkerCore {
    /// A new connection replaces the old one at once (fault row FA02).
    pub(super) fn on_hello(
        &mut self,
        session: SessionId,
        slots: u32,
        instance: String,
        fx: &mut Vec<Effect>,
    ) {
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

    pub(super) fn on_attach_stored(
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
        // A worker that left on request and came back is welcome again.
        if self.leaving {
            self.leaving = false;
            fx.push(Effect::StoreStays);
        }
        fx.push(Effect::SendAttached { session, incarnation });
    }

    pub(super) fn on_inventory(
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

    pub(super) fn on_builder_answer(
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

    pub(super) fn on_seat_registered(
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

    pub(super) fn on_connection_lost(&mut self, session: SessionId, fx: &mut Vec<Effect>) {
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
}
