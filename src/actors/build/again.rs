//! A log whose bytes are not what the worker wrote is asked for once more (row
//! FL04): from byte 0, beside what there is, with the command's end after it.
//! Whatever keeps that from happening leaves the log as it is, marked.

use std::time::Duration;

use actix::AsyncContext;

use super::Build;
use crate::actors::context::Context;
use crate::core::ids::{CommandId, SessionId};
use crate::protocol::json_v1::{MasterFrame, STDIO};

/// How often it is looked whether the worker will do it.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time for it.
const LIMIT: Duration = Duration::from_secs(300);

/// What was asked of the worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    command: CommandId,
    session: SessionId,
    /// Complaints of the worker before.
    complaints: u64,
    /// It has not come yet.
    waits: bool,
}

impl Build {
    /// Asks for the current log once more. False when it was asked for before,
    /// or cannot be.
    pub(super) fn ask_again(&mut self, ctx: &mut Context<Self>) -> bool {
        let (Some(link), Some(log), Some(command)) = (&self.link, &self.log, &self.command) else {
            return false;
        };
        if self.asked.is_some() || self.core.is_away() {
            return false;
        }
        tracing::warn!(
            build = %self.core.order().build, log = %log.id,
            "the log's bytes are not what the worker wrote: it is asked for once more"
        );
        self.world.ignored("log whose digest differs");
        self.world.logs.again(log.id);
        self.asked = Some(Asked {
            command: command.clone(),
            session: link.session,
            complaints: link.complaints(),
            waits: true,
        });
        let sent = link.send(&MasterFrame::LogAgain {
            build: self.core.order().build,
            command: command.clone(),
            log: STDIO.into(),
        });
        if sent {
            self.look_again(Duration::ZERO, ctx);
        } else {
            self.leave_it(ctx);
        }
        true
    }

    /// Whether this end of a command answers it.
    pub(super) fn has_come_again(&mut self, command: &CommandId) -> bool {
        let asked = self.asked.as_mut().filter(|asked| asked.waits && asked.command == *command);
        match asked {
            Some(asked) => {
                asked.waits = false;
                true
            }
            None => false,
        }
    }

    fn look_again(&self, waited: Duration, ctx: &mut Context<Self>) {
        let Some(asked) = self.asked.clone() else { return };
        ctx.run_later(LOOK, move |build, ctx| {
            if build.asked.as_ref() != Some(&asked) {
                return;
            }
            let here = build.link.as_ref().is_some_and(|link| {
                link.session == asked.session
                    && link.closed().is_none()
                    && link.complaints() == asked.complaints
            });
            if here && waited < LIMIT && !build.core.is_away() {
                build.look_again(waited + LOOK, ctx);
            } else {
                build.leave_it(ctx);
            }
        });
    }

    /// It does not come: the log is closed as it is.
    fn leave_it(&mut self, ctx: &mut Context<Self>) {
        if let Some(asked) = &mut self.asked {
            asked.waits = false;
        }
        self.close_log(ctx);
    }
}
