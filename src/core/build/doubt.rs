//! A build whose start nobody heard an answer to (fault rows FB02 and FB03): the
//! worker's inventory says whether it has it. It has neither a number nor a
//! command, so nothing of it runs, wherever it is.

use std::time::Duration;

use super::{BuildCore, Effect, Next, Record};
use crate::core::ids::CommandId;
use crate::core::planted;
use crate::core::time::{Now, Timestamp};

impl BuildCore {
    /// It waits for the worker, as one that began does.
    pub(super) fn on_in_doubt(&mut self, present: Now, wait: Duration, fx: &mut Vec<Effect>) {
        self.away = Some(present.mono);
        self.in_doubt = Some(present.mono + wait);
        fx.push(Effect::TellAway(Some(self.away_span(present))));
    }

    /// The worker has it: it begins there, and gets its number.
    pub(super) fn out_of_doubt(
        &mut self,
        now: Timestamp,
        command: Option<CommandId>,
        lost: bool,
        fx: &mut Vec<Effect>,
    ) {
        if lost || planted::is("fb03_not_adopted") {
            self.give_back(fx);
            return;
        }
        fx.push(Effect::SendContinue { command, current: false });
        self.clocks.begins(now, Duration::ZERO, self.order.config.max_time);
        self.go_on(now, 0, vec![Record::StartBuild], fx);
    }

    /// The worker has it not, or is not coming back in time. Nothing of it ran,
    /// so no try is counted.
    pub(super) fn give_back(&mut self, fx: &mut Vec<Effect>) {
        self.away = None;
        self.write(vec![Record::GiveBack], Next::GivenBack, fx);
    }
}
