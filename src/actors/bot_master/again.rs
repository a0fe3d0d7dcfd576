//! A builder that gave up is started again by command, and what actors that
//! gave up leave behind is kept for those who come after them.

use std::collections::BTreeSet;

use actix::{AsyncContext, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::BotMaster;
use crate::actors::builder::Remains;
use crate::actors::context::Context;
use crate::core::ids::BuilderName;
use crate::messages::{Refusal, RestartBuilder};

type Answer = oneshot::Receiver<Result<(), Refusal>>;

/// The second step, once no reload is under way.
#[derive(actix::Message)]
#[rtype(result = "Result<Answer, Refusal>")]
struct StartAgain(BuilderName);

impl Handler<RestartBuilder> for BotMaster {
    type Result = ResponseFuture<Result<(), Refusal>>;
    fn handle(&mut self, message: RestartBuilder, ctx: &mut Context<Self>) -> Self::Result {
        let (me, one_at_a_time) = (ctx.address(), self.reloads.clone());
        Box::pin(async move {
            let turn = one_at_a_time.alone().await;
            let told = me.send(StartAgain(message.0)).await.map_err(|_| Refusal::Gone)??;
            drop(turn);
            told.await.unwrap_or(Err(Refusal::Gone))
        })
    }
}

impl Handler<StartAgain> for BotMaster {
    type Result = Result<Answer, Refusal>;

    /// A new actor under the old name, built from the store. Its workers are
    /// told of it as of one that is new; Builds of the old one that still run
    /// become its own before it reads its records, so none runs twice.
    fn handle(&mut self, message: StartAgain, ctx: &mut Context<Self>) -> Self::Result {
        let name = message.0;
        let entry = self.builders.get(&name);
        let entry = entry.ok_or_else(|| Refusal::NoSuchBuilder(name.to_string()))?;
        let Some(reason) = &entry.broken else { return Err(Refusal::NotBroken(name)) };
        if self.draining {
            return Err(Refusal::Stopping);
        }
        tracing::info!(builder.name = %name, %reason, "a broken builder is started again");
        let config = entry.config.clone();
        let (tell, told) = oneshot::channel();
        self.again.entry(name.clone()).or_default().push(tell);
        self.start_builder(&config, ctx);
        self.configure_workers(BTreeSet::from([name]));
        Ok(told)
    }
}

impl BotMaster {
    /// Tells those who wait for a builder that is started again.
    pub(super) fn answer_again(
        &mut self,
        name: &BuilderName,
        answer: impl Fn() -> Result<(), Refusal>,
    ) {
        for tell in self.again.remove(name).unwrap_or_default() {
            // Whoever asked may have gone; that changes nothing.
            let _ = tell.send(answer());
        }
    }
}

impl Handler<Remains> for BotMaster {
    type Result = ();
    /// What a predecessor leaves is for whoever is in charge; what the one in
    /// charge leaves is for the one that is started again.
    fn handle(&mut self, remains: Remains, _: &mut Context<Self>) {
        match self.builders.get(&remains.name) {
            Some(entry) if entry.broken.is_none() && entry.child != remains.child => {
                entry.addr.do_send(remains);
            }
            _ => match self.remains.get_mut(&remains.name) {
                Some(kept) => {
                    kept.builds.extend(remains.builds);
                    kept.earlier.extend(remains.earlier);
                }
                None => {
                    self.remains.insert(remains.name.clone(), remains);
                }
            },
        }
    }
}
