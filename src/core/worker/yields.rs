//! A worker that was removed and comes back while its old actor still has
//! builds: another actor is in charge of the name, and of the worker itself.

use super::{Effect, WorkerCore};

impl WorkerCore {
    /// The connection ends first: its builds hear that their worker is away
    /// before they hear anything from the other actor.
    pub(super) fn on_yield(&mut self, fx: &mut Vec<Effect>) {
        self.retired = true;
        if let Some(session) = self.session() {
            let reason = "this worker is configured again";
            fx.push(Effect::CloseConnection { session, reason });
            self.on_connection_lost(session, fx);
        }
        for (build, (claim, builder)) in &self.builds {
            let (build, claim, builder) = (*build, *claim, builder.clone());
            fx.push(Effect::YieldBuild { build, claim, builder });
        }
    }
}
