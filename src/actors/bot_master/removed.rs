//! Builders that are no longer configured and still have builds: their actors
//! live on until those have ended, and can be told to stop them.

use actix::Addr;
use tokio::sync::oneshot;

use super::{BotMaster, BuilderEntry, Done};
use crate::actors::builder::{Builder, RetireBuilder};
use crate::core::ids::BuilderName;
use crate::messages::{BuilderMail, Refusal};

impl BotMaster {
    /// Takes a builder out; its actor goes when its builds have ended.
    pub(super) fn remove_builder(&mut self, name: &BuilderName) {
        let Some(entry) = self.builders.remove(name) else { return };
        entry.addr.do_send(RetireBuilder);
        self.names.remove(&entry.id);
        self.roster.oldest_changed(name.clone(), None);
        self.world.board.forget_builder(name);
        self.removed.retain(|_, entries| {
            entries.retain(|entry| entry.addr.connected());
            !entries.is_empty()
        });
        self.removed.entry(name.clone()).or_default().push(entry);
    }

    fn removed_entries(&self, name: &BuilderName) -> impl Iterator<Item = &BuilderEntry> {
        let entries = self.removed.get(name).into_iter().flatten();
        entries.filter(|entry| entry.addr.connected())
    }

    /// Actors of a builder of this name that was removed.
    pub(super) fn removed_actors(&self, name: &BuilderName) -> Vec<Addr<Builder>> {
        self.removed_entries(name).map(|entry| entry.addr.clone()).collect()
    }

    /// Asks all actors of a removed builder; true when one of them did it.
    pub(super) fn ask_removed(
        &self,
        name: &BuilderName,
        mail: impl Fn(oneshot::Sender<bool>) -> BuilderMail,
    ) -> Done {
        let mut answers = Vec::new();
        for entry in self.removed_entries(name) {
            let (reply, answer) = oneshot::channel();
            entry.door.tell(mail(reply));
            answers.push(answer);
        }
        if answers.is_empty() {
            let refusal = Refusal::NoSuchBuilder(name.to_string());
            return Box::pin(async { Err(refusal) });
        }
        Box::pin(async move {
            let mut done = false;
            for answer in answers {
                // One that went away has nothing left.
                done |= answer.await.unwrap_or(false);
            }
            Ok(done)
        })
    }
}
