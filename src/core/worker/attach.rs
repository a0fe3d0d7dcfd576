//! A worker's connection: how it comes, is numbered, tells its inventory, and
//! goes (fault rows FA).

use super::welcome::{self, Answer, seconds_until};
use super::{Brought, Effect, Link, WorkerCore};
use crate::core::ids::*;

/// When one that was replaced by another program may come back. Soon, so that
/// two that fight for a name are told apart from one that moved (FA03).
const SUPERSEDED_AGAIN_S: u64 = 5;

/// A connection that proved itself.
pub(super) struct Caller {
    pub(super) session: SessionId,
    pub(super) slots: u32,
    pub(super) instance: String,
    pub(super) address: String,
}

fn superseded(session: SessionId, message: String) -> Effect {
    let retry_after_s = Some(SUPERSEDED_AGAIN_S);
    Effect::Reject { session, code: "superseded", message, retry_after_s }
}

impl WorkerCore {
    /// A new connection replaces the old one at once (fault row FA02).
    pub(super) fn on_hello(&mut self, hello: Caller, fx: &mut Vec<Effect>) {
        let Caller { session, slots, instance, address } = hello;
        if self.retired {
            fx.push(Effect::Reject {
                session,
                code: "auth",
                message: "this worker is no longer configured".into(),
                retry_after_s: None,
            });
            return;
        }
        let takes_over = instance != self.instance && self.session().is_some();
        let caller =
            welcome::Caller { address: &address, takes_over, builds: !self.builds.is_empty() };
        let (away, both) = match self.welcome.ask(self.config.name.as_str(), self.now, &caller) {
            Answer::In => {
                if takes_over {
                    self.elsewhere.extend(self.builds.keys());
                    self.replaced = self.session();
                }
                self.instance = instance;
                self.drop_link(fx);
                self.offered = slots.max(1);
                self.link = Link::Numbering { session };
                fx.push(Effect::StoreAttach { session });
                return;
            }
            Answer::Out(away) => (away, false),
            Answer::BothOut(away) => (away, true),
        };
        let retry_after_s = Some(seconds_until(self.now, away.until));
        let reject = |session| Effect::Reject {
            session,
            code: away.code,
            message: away.reason.clone(),
            retry_after_s,
        };
        if both {
            self.elsewhere.extend(self.builds.keys());
            self.replaced = self.session();
            let (old, incarnation) = (self.session(), self.incarnation());
            self.link = Link::Away;
            fx.extend(self.superseded.drain(..).chain(old).map(reject));
            if let Some(old) = old {
                self.link_ended(old, incarnation, fx);
                self.freed(fx);
            }
        }
        fx.push(reject(session));
    }

    /// The one that was attached is told at once; one that was not numbered yet
    /// hears which number came before its own (fault row FA04).
    fn drop_link(&mut self, fx: &mut Vec<Effect>) {
        let old = std::mem::replace(&mut self.link, Link::Away);
        let (session, incarnation) = match old {
            Link::Away => return,
            Link::Numbering { session } => {
                self.superseded.push(session);
                (session, None)
            }
            Link::Inventory { session, incarnation } | Link::Up { session, incarnation } => {
                fx.push(superseded(session, "superseded by a newer connection".into()));
                (session, Some(incarnation))
            }
        };
        self.link_ended(session, incarnation, fx);
    }

    /// Nobody will get the number that they wait to be told of.
    fn let_superseded_go(&mut self, fx: &mut Vec<Effect>) {
        for older in std::mem::take(&mut self.superseded) {
            fx.push(superseded(older, "superseded by a newer connection".into()));
        }
    }

    pub(super) fn on_attach_refused(
        &mut self,
        session: SessionId,
        error: String,
        fx: &mut Vec<Effect>,
    ) {
        self.superseded.retain(|older| *older != session);
        if self.link == (Link::Numbering { session }) {
            self.link = Link::Away;
            self.welcome.forgive();
            self.let_superseded_go(fx);
        }
        let retry_after_s = Some(5);
        fx.push(Effect::Reject { session, code: "busy", message: error, retry_after_s });
    }

    fn link_ended(
        &mut self,
        session: SessionId,
        incarnation: Option<Incarnation>,
        fx: &mut Vec<Effect>,
    ) {
        self.answers.clear();
        self.failing.clear();
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
        self.quarantine.attached();
        for older in std::mem::take(&mut self.superseded) {
            fx.push(superseded(older, format!("superseded by incarnation {incarnation}")));
        }
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
                self.abandoning.insert(item.build, item.builder);
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

    pub(super) fn on_connection_lost(&mut self, session: SessionId, fx: &mut Vec<Effect>) {
        if let Some(place) = self.superseded.iter().position(|older| *older == session) {
            self.superseded.remove(place);
            return;
        }
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
        self.let_superseded_go(fx);
        self.link_ended(session, incarnation, fx);
        // A latent one may be asked for again without a connection.
        self.freed(fx);
    }
}
