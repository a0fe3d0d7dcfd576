//! One ping exchange (rows P01 to P05).
//!
//! Owns the question whether the worker behind a connection still answers.
//! Deliberately absent: who waits for the answer (that is the SlaveBuilder).

use std::time::Duration;

use super::planted;
use super::time::Timestamp;

/// A ping whose worker keeps sending other things may take this many times its
/// timeout in all (row P04).
const PATIENCE: u32 = 3;

/// What a ping hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The worker answered.
    Pong,
    /// The connection is gone, or could not take the ping (row P05).
    Lost,
    /// Somebody who joined cannot wait as long.
    Tighten(Timestamp),
    /// The deadline passed. `last_byte` is when the worker was heard last.
    DeadlineReached {
        /// Any received byte counts as life.
        last_byte: Timestamp,
    },
}

/// What a ping wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send the ping frame.
    Send,
    /// Drop the connection on which the ping went out.
    DropConnection,
    /// Tell who waits; the exchange is over.
    Done(bool),
}

/// Where an exchange stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PingCore {
    /// The answer is awaited.
    Waiting {
        /// When to look whether the worker still lives.
        until: Timestamp,
        /// When to give up even so.
        at_most: Timestamp,
        /// How long silence may last.
        timeout: Duration,
    },
    /// It is over.
    Over,
}

impl PingCore {
    /// Starts its timer, then sends the ping (row P02).
    #[must_use]
    pub fn start(now: Timestamp, timeout: Duration, fx: &mut Vec<Effect>) -> Self {
        if planted::is("start_without_ping") {
            fx.push(Effect::Done(true));
            return Self::Over;
        }
        fx.push(Effect::Send);
        let until = match planted::is("p02_no_timer") {
            true => Timestamp(u64::MAX),
            false => now + timeout,
        };
        Self::Waiting { until, at_most: now + timeout * PATIENCE, timeout }
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Timestamp, event: Event, fx: &mut Vec<Effect>) {
        let Self::Waiting { until, at_most, timeout } = *self else { return };
        match event {
            Event::Pong => {
                if !planted::is("p03_waits_on_after_the_answer") {
                    *self = Self::Over;
                }
                fx.push(Effect::Done(true));
            }
            Event::Lost => {
                *self = Self::Over;
                if !planted::is("p05_connection_is_kept") {
                    fx.push(Effect::DropConnection);
                }
                fx.push(Effect::Done(false));
            }
            Event::Tighten(earlier) => {
                let until = until.min(earlier);
                *self = Self::Waiting { until, at_most, timeout };
            }
            Event::DeadlineReached { last_byte } => {
                let extended = (last_byte + timeout).min(at_most);
                if extended > now && !planted::is("p04_only_a_pong_is_life") {
                    *self = Self::Waiting { until: extended, at_most, timeout };
                } else {
                    *self = Self::Over;
                    fx.push(Effect::DropConnection);
                    fx.push(Effect::Done(false));
                }
            }
        }
    }

    /// When `DeadlineReached` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting { until, .. } => Some(*until),
            Self::Over => None,
        }
    }
}
