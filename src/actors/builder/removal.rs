//! A builder that is no longer configured, and one that is configured again.
//!
//! The actor of a removed builder lives on for the builds that it still has:
//! they can be stopped, nothing else reaches it. When the builder comes back
//! while they run, its new actor inherits them as a successor would, and hears
//! of their end (row T08, fault row FQ12). The queue needs no care: it is in
//! the store, and the new actor reads it there.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{AsyncContext, Context, Handler, MessageResult, Recipient};

use super::{Builder, Inherited};
use crate::core::builder::Event;
use crate::core::ids::ClaimId;
use crate::messages::{BuilderHandle, BuilderMail, BuilderRoute};

/// Builds that go on with earlier actors, and who has them.
pub(super) type InheritedBuilds = BTreeMap<ClaimId, Recipient<Inherited>>;

/// The builder is configured again: its new actor asks what is left here, and
/// is told of it from now on.
#[derive(actix::Message)]
#[rtype(result = "InheritedBuilds")]
pub(super) struct Adopt {
    /// Leads to the new actor.
    pub(super) route: Arc<BuilderRoute>,
}

impl Builder {
    /// Whether this actor was retired without a successor: then its mail must
    /// not be passed on, since it would only come back.
    pub(super) fn is_removed(&self, ctx: &Context<Self>) -> bool {
        self.core.is_retired() && self.parts.route.leads_to(&ctx.address().recipient())
    }

    /// What mail means to a builder that was removed.
    pub(super) fn read_removed(&mut self, body: BuilderMail, ctx: &mut Context<Self>) {
        match body {
            BuilderMail::Cancel { .. }
            | BuilderMail::Stop { .. }
            | BuilderMail::Event(Event::Detach { .. }) => self.read(body, ctx),
            // Of builds that it had inherited itself, or had started.
            BuilderMail::Event(event @ Event::InheritedStarted { .. }) => self.tell_adopter(event),
            BuilderMail::Event(event @ Event::InheritedFinished { .. }) => {
                if let Event::InheritedFinished { claim, .. } = &event {
                    self.inherited.remove(claim);
                }
                self.tell_adopter(event);
                self.over_soon(ctx);
            }
            _ => self.world().ignored("mail for a builder that was removed"),
        }
    }

    fn tell_adopter(&self, event: Event) {
        if !Arc::ptr_eq(self.mine.route(), &self.parts.route) {
            self.mine.tell(BuilderMail::Event(event));
        }
    }
}

impl Handler<Adopt> for Builder {
    type Result = MessageResult<Adopt>;
    fn handle(&mut self, adopt: Adopt, ctx: &mut Context<Self>) -> Self::Result {
        self.mine = BuilderHandle::new(self.name().clone(), adopt.route);
        // While it is built anew after a panic its core knows nothing yet.
        let mut own = self.own.clone().unwrap_or_default();
        own.retain(|claim| self.builds.contains_key(claim) || self.core.claims().contains(claim));
        let mine = own.into_iter().map(|claim| (claim, ctx.address().recipient()));
        MessageResult(self.inherited.clone().into_iter().chain(mine).collect())
    }
}
