//! A worker's slots: who has one, and who hears that one is free.

use super::{Effect, Link, WorkerCore};
use crate::core::ids::*;
use crate::core::planted;

impl WorkerCore {
    pub(super) fn on_ask_slot(
        &mut self,
        builder: BuilderName,
        claim: ClaimId,
        fx: &mut Vec<Effect>,
    ) {
        // A build that waited for the instance asks again once it is there.
        let has_it = self.latent.is_some() && self.slots.contains_key(&claim);
        let granted = match self.link {
            Link::Up { incarnation, .. } if (has_it && self.is_kept()) || self.can_start() => {
                self.wanting.remove(&claim);
                Some(incarnation)
            }
            // The instance is being let go. Its connection is there for a moment
            // yet, and asking until it is not would be asking in circles.
            Link::Up { .. } if has_it => {
                self.slots.remove(&claim);
                None
            }
            _ if has_it || self.can_reserve() => {
                self.slots.insert(claim, builder.clone());
                fx.push(Effect::SlotReserved { builder, claim });
                return;
            }
            _ => None,
        };
        if granted.is_some() {
            self.slots.insert(claim, builder.clone());
        } else {
            self.refused.insert(builder.clone());
        }
        fx.push(Effect::Slot { builder, claim, granted });
    }

    /// Whether it can be given one more build (row S01).
    #[must_use]
    pub fn can_start(&self) -> bool {
        matches!(self.link, Link::Up { .. })
            && self.is_kept()
            && (!self.paused || planted::is("b28_paused_ones_start"))
            && !self.leaving
            && !self.is_set_aside()
            && !self.retired
            && (self.used() < self.limit() || planted::is("slot_given_twice"))
    }

    pub(super) fn used(&self) -> usize {
        self.slots.len() + self.abandoning.len()
    }

    pub(super) fn limit(&self) -> usize {
        self.config.max_builds.min(self.offered) as usize
    }

    /// How many builds more it could be given now.
    #[must_use]
    pub fn room(&self) -> usize {
        // A latent worker that is not there has not said how many it takes.
        let most = match (self.can_start(), self.can_reserve()) {
            (true, _) => self.limit(),
            (false, true) => self.config.max_builds as usize,
            (false, false) => 0,
        };
        most.saturating_sub(self.used())
    }

    /// Says so when there is room, also when nobody was refused since it was said
    /// last: somebody may still be in line from before.
    pub(super) fn freed(&mut self, fx: &mut Vec<Effect>) {
        self.over_if_retired(fx);
        let tells = !planted::is("freed_tells_nobody");
        let anybody = !self.refused.is_empty() || self.told_builders;
        if (self.can_start() || self.can_reserve()) && anybody && tells {
            self.told_builders = true;
            let builders = std::mem::take(&mut self.refused).into_iter().collect();
            fx.push(Effect::TryBuilders(builders));
        }
    }
}
