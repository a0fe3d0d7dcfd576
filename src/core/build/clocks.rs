//! The master's own clocks of a build: how long it may take in all, and a
//! second, later look at the limits of its step in case the worker's report
//! never comes (fault rows FR16, FR17).

use std::time::Duration;

use super::{BuildCore, CommandEnd, Effect, Halt, Phase};
use crate::core::ids::CommandId;
use crate::core::planted;
use crate::core::time::Timestamp;
use crate::core::values::BuildResult;

/// How much longer than a step's limits and the kill time the worker may take
/// to report its end.
const REPORT: Duration = Duration::from_secs(30);
/// Looks at one step are at least this far apart.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Where the master's clocks of one build stand.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Clocks {
    /// When the build has taken as long as it may.
    over_at: Option<Timestamp>,
    /// When to look at the step's limits next.
    look_at: Option<Timestamp>,
    /// Since when its command runs, as far as this process knows.
    sent: Timestamp,
    /// Since when its output would be heard.
    listening: Timestamp,
    /// The limit that the step has passed.
    late: Option<String>,
}

impl Clocks {
    /// The build begins, or is taken back after it `ran` for a while.
    pub(super) fn begins(&mut self, now: Timestamp, ran: Duration, max_time: Option<Duration>) {
        self.over_at = max_time.map(|most| now + most.saturating_sub(ran));
    }

    /// Nothing of it counts any more.
    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// How a command ended: one that the master interrupted for its time limit
    /// has run out of time.
    pub(super) fn judged(&mut self, end: CommandEnd) -> CommandEnd {
        self.look_at = None;
        match (self.late.take(), end) {
            (Some(late), CommandEnd::Killed(_)) => CommandEnd::Timeout(late),
            (_, end) => end,
        }
    }
}

impl BuildCore {
    pub(super) fn clock_deadline(&self) -> Option<Timestamp> {
        let look = self.clocks.look_at.filter(|_| self.is_watched());
        let over = self.clocks.over_at.filter(|_| self.halt.is_none());
        [look, over].into_iter().flatten().min()
    }

    /// While the worker is away it keeps the limits itself, and what it says of
    /// them comes with it. One that is being killed has a deadline already.
    fn is_watched(&self) -> bool {
        let runs = matches!(self.phase, Phase::Running { .. });
        runs && self.away.is_none() && self.kill_by.is_none()
    }

    fn margin(&self) -> Duration {
        self.order.kill_time + REPORT
    }

    /// The step's command is sent.
    pub(super) fn watch_step(&mut self, now: Timestamp, index: usize) {
        self.clocks.sent = now;
        self.listen_again(now, index);
    }

    /// Its output will be heard from now on.
    pub(super) fn listen_again(&mut self, now: Timestamp, index: usize) {
        self.clocks.listening = now;
        let step = self.steps().get(index);
        let limits = step.into_iter().flat_map(|step| [step.timeout, step.max_time]).flatten();
        self.clocks.look_at = limits.min().map(|least| now + least + self.margin());
    }

    pub(super) fn on_clocks(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        if self.clocks.over_at.is_some_and(|at| at <= now) && self.halt.is_none() {
            self.clocks.over_at = None;
            let most = self.order.config.max_time.unwrap_or_default().as_secs();
            let reason = format!("the build took longer than its max_time ({most} s)");
            self.halt(now, Halt { result: BuildResult::Exception, reason }, fx);
        }
        if let Phase::Running { index } = self.phase
            && self.is_watched()
            && self.clocks.look_at.is_some_and(|at| at <= now)
        {
            self.clocks.look_at = Some(now + self.margin());
            fx.push(Effect::AskSilence { command: self.command(index) });
        }
    }

    /// A step is late only when nothing has come of it either: a worker that
    /// has much to tell tells the end last.
    pub(super) fn on_silent(
        &mut self,
        now: Timestamp,
        command: &CommandId,
        since: Option<Duration>,
        fx: &mut Vec<Effect>,
    ) {
        let (Phase::Running { index }, true) = (self.phase, self.is_watched()) else {
            fx.push(Effect::Ignored("silence of a command that does not run"));
            return;
        };
        let Some(step) = self.steps().get(index).filter(|_| self.command(index) == *command) else {
            fx.push(Effect::Ignored("silence of a command that does not run"));
            return;
        };
        let margin = self.margin();
        let heard = now.since(self.clocks.listening);
        let silent = since.map_or(heard, |since| since.min(heard));
        let ran = now.since(self.clocks.sent);
        let total = step.max_time.filter(|most| ran >= *most + margin && silent >= margin);
        let quiet = step.timeout.filter(|most| silent >= *most + margin);
        let late = match (total, quiet) {
            (Some(most), _) => format!("it ran longer than {} s", most.as_secs()),
            (None, Some(most)) => format!("no output for {} s", most.as_secs()),
            (None, None) => {
                // What is over and still tells something has the margin from
                // the last that it told.
                let told = now - silent;
                let total = step.max_time.map(|most| (self.clocks.sent + most).max(told) + margin);
                let quiet = step.timeout.map(|most| told + most + margin);
                let next = [total, quiet].into_iter().flatten().min();
                self.clocks.look_at = next.map(|at| at.max(now + LOOK_PAUSE));
                return;
            }
        };
        if planted::is("fr16_no_second_timer") {
            return;
        }
        let reason = format!("{late}, and the worker has not reported its end");
        self.clocks.late = Some(late);
        self.interrupt(now, index, reason, fx);
    }

    /// The worker did not even report the end of what was interrupted.
    pub(super) fn note_silence(&mut self) {
        if let (Some(late), Phase::Running { index }) = (self.clocks.late.take(), self.phase)
            && let Some(step) = self.steps().get(index)
        {
            let name = step.name.clone();
            self.failures.push(format!(
                "'{name}' timed out ({late}), and the worker never reported its end"
            ));
        }
    }
}
