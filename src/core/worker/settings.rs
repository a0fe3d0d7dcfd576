//! New settings for a worker (rows T06 and T08).

use std::collections::BTreeSet;

use super::{Effect, Link, WorkerCore};
use crate::core::ids::*;
use crate::core::values::{Provider, WorkerConfig};

impl WorkerCore {
    /// Sends the list again only when it changed (row T06), and tells only
    /// builders that are new to it or renewed: the others do not notice a
    /// reload (row T08).
    pub(super) fn on_configure(
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
                self.failing.retain(|builder, _| listed.iter().any(|(name, _)| name == builder));
                self.answers.retain(|builder, _| listed.iter().any(|(name, _)| name == builder));
                fx.push(Effect::SendBuilders { list: self.builders.clone() });
            }
            // With the list those are tried again that failed (fault row FA08).
            let listed = old != self.builders;
            for (builder, _) in &self.builders {
                let known = old.iter().any(|(name, _)| name == builder);
                let failed = listed && matches!(self.answers.get(builder), Some(Some(_)));
                if failed {
                    self.answers.remove(builder);
                }
                if !known || failed || renewed.contains(builder) {
                    fx.push(Effect::TellBuilder { builder: builder.clone(), session });
                }
            }
        }
        self.freed(fx);
    }
}

/// Those settings that an instance keeps as long as it is there.
pub(super) fn made_with(config: &WorkerConfig) -> (u32, Option<Provider>) {
    (config.max_builds, config.latent.as_ref().map(|latent| latent.provider.clone()))
}
