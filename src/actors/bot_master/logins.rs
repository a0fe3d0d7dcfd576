//! Who may come in as a worker.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Handler;

use super::BotMaster;
use crate::actors::context::Context;
use crate::board::Refused;
use crate::core::gate::{Attempt, Gate, Verdict};
use crate::core::ids::WorkerName;
use crate::messages::{Introduce, Rejection, WorkerHandle};

/// Where names and tokens are looked at.
pub(super) struct Logins {
    gate: Gate,
    /// Where each worker came from last.
    homes: BTreeMap<WorkerName, String>,
}

impl Logins {
    pub(super) fn new(wrong_per_minute: usize) -> Self {
        Self { gate: Gate::new(wrong_per_minute), homes: BTreeMap::new() }
    }
}

/// What a stranger calls itself, cut to what people can read.
fn shown(name: &WorkerName) -> String {
    name.as_str().escape_debug().take(64).collect()
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

impl Handler<Introduce> for BotMaster {
    type Result = Result<Arc<WorkerHandle>, Rejection>;

    /// An unknown name and a wrong token get the same answer (FN06).
    fn handle(&mut self, message: Introduce, _: &mut Context<Self>) -> Self::Result {
        let Introduce { name, token, address, limited } = message;
        let now = self.world.clock.now();
        let attempt = Attempt {
            address: limited.as_deref(),
            name: name.as_str(),
            at_home: self.logins.homes.get(&name).is_some_and(|home| home == host(&address)),
        };
        if let Verdict::Later(seconds) = self.logins.gate.ask(now.mono, &attempt) {
            self.world.board.count_ignored("login that was not looked at");
            return Err(Rejection {
                code: "busy",
                message: "too many wrong names or tokens from this address or for this name".into(),
                retry_after_s: Some(seconds),
                wrong: true,
            });
        }
        let known = self.tokens.verify(name.as_str(), &token);
        match self.workers.get(&name) {
            // Its actor gave up: nobody would answer.
            Some(entry) if known && !entry.addr.connected() => Err(Rejection {
                code: "busy",
                message: "the master's part for this worker failed; it is made anew soon".into(),
                retry_after_s: Some(self.world.timers.worker_again.as_secs()),
                wrong: false,
            }),
            Some(entry) if known => {
                self.logins.homes.insert(name, host(&address).to_owned());
                Ok(entry.handle.clone())
            }
            entry => {
                self.world.board.count_ignored("wrong worker name or token");
                if self.logins.gate.failed(now.mono, &attempt) {
                    tracing::warn!(%address, worker.name = %shown(&name), "many wrong worker names or tokens: one a minute is looked at from now on");
                }
                if entry.is_some() {
                    let reason = "wrong token".to_owned();
                    self.world.board.show_refused(
                        &name,
                        Refused { reason, address, at: now.wall, until: None },
                    );
                }
                Err(Rejection {
                    code: "auth",
                    message: "unknown worker name or wrong token".into(),
                    retry_after_s: None,
                    wrong: true,
                })
            }
        }
    }
}
