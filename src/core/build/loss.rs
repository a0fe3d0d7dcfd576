//! Builds whose worker is lost: again on another worker, or an end with every
//! reason (row B25, fault rows FR03, FR18, FR19).

use super::{BuildCore, Effect, Next, Phase, Record};
use crate::core::planted;
use crate::core::time::{Now, Timestamp, WallTime};
use crate::core::values::{BuildResult, Loss, OnLost};
use crate::core::views::Away;

const LOST: &str = "worker lost: ";
const AGAIN: &str = "; queued again";

/// The reason alone, of what the store keeps of a build that was lost.
fn reason(text: &str) -> &str {
    let text = text.strip_prefix(LOST).unwrap_or(text);
    text.strip_suffix(AGAIN).unwrap_or(text)
}

/// What people read of a request whose builds were lost.
#[must_use]
pub fn all_losses(losses: &[Loss]) -> String {
    let told = losses.iter().map(|loss| format!("{} ({})", loss.worker, reason(&loss.reason)));
    told.collect::<Vec<_>>().join(", ")
}

impl BuildCore {
    /// Since when the worker is away, and how long the build waits for it.
    pub(super) fn away_span(&self, present: Now) -> Away {
        let now = present.mono;
        let since = self.away.unwrap_or(now);
        let us = |span: std::time::Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        let wall = |at: Timestamp| {
            WallTime(
                present.wall.0.saturating_add(us(at.since(now))).saturating_sub(us(now.since(at))),
            )
        };
        Away { since: wall(since), until: self.lost_at(since).map(wall) }
    }

    /// The worker is not coming back with it (row B25).
    pub(super) fn lose(&mut self, why: &str, fx: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Writing(Next::End { .. } | Next::GivenBack)) {
            return;
        }
        self.finish_lost(Vec::new(), why, fx);
    }

    pub(super) fn finish_lost(
        &mut self,
        mut records: Vec<Record>,
        why: &str,
        fx: &mut Vec<Effect>,
    ) {
        self.away = None;
        self.kill_by = None;
        if let Some(halt) = &self.halt {
            let result = halt.result;
            self.finish(result, false, fx);
            return;
        }
        let config = &self.order.config;
        let worker = &self.order.worker;
        let left = self.order.infra_tries < config.infra_retries
            || planted::is("fr18_retries_without_end");
        let again = config.on_lost != OnLost::Fail && left;
        let (result, text) = if again {
            (BuildResult::Retry, format!("{LOST}{why}{AGAIN}"))
        } else if config.on_lost == OnLost::Fail {
            (BuildResult::Exception, format!("{LOST}{worker} ({why}); it is never built again"))
        } else {
            let mut losses = self.order.losses.clone();
            losses.push(Loss { worker: worker.clone(), reason: why.to_owned() });
            let tries = self.order.infra_tries + 1;
            let text = format!("worker lost {tries} times: {}", all_losses(&losses));
            (BuildResult::Exception, text)
        };
        if records.is_empty() && matches!(self.phase, Phase::Running { .. } | Phase::Closing { .. })
        {
            records.push(Record::FinishLog);
            records.push(Record::FinishStep { result, text: text.clone() });
        }
        if !self.started {
            records.push(Record::StartBuild);
        }
        records.push(Record::FinishBuild { result, text, requeue: again });
        self.write(records, Next::End { result, requeue: again }, fx);
    }
}
