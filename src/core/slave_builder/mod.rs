//! One worker's standing with one builder (rows S01 to S09).
//!
//! Owns the conversation: attach, ping, start. Deliberately absent: which build
//! goes where (the builder's), whether the worker has a free slot (the
//! worker's), the steps of a build.

mod table;
mod versions;

pub use table::{EVENTS, Hears, STATES, Stands, TABLE};
pub use versions::CommandVersions;

use super::builder::{ReplyId, SeatReportUse, StartFailure, StartOrder};
use super::ids::*;
use super::planted;
use super::time::Timestamp;
use super::transitions;

/// Where a SlaveBuilder stands.
#[derive(Clone, PartialEq, Debug)]
pub enum State {
    /// The worker has not said yet that it is ready for this builder.
    Attaching {
        /// When that has failed (fault row FA07).
        until: Timestamp,
    },
    /// Nothing happens.
    Idle,
    /// A ping is on its way; with an order when it is a start's.
    Pinging {
        /// What to start when it is answered.
        order: Option<Box<StartOrder>>,
    },
    /// The start was sent; the worker has not accepted yet.
    Starting {
        /// What.
        order: Box<StartOrder>,
        /// When that has failed.
        until: Timestamp,
    },
    /// The worker has a build of this builder.
    Building {
        /// Whose.
        claim: ClaimId,
    },
    /// The worker is gone. Final.
    Detached,
}

/// What a SlaveBuilder hears.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The worker is ready for this builder; with the build it brought back.
    Ready {
        /// Whose seat it is at once (row S02).
        building: Option<ClaimId>,
    },
    /// The worker cannot serve this builder.
    Failed {
        /// Why.
        error: String,
    },
    /// Ping, then start this.
    Start(Box<StartOrder>),
    /// Call the start back if it was not sent.
    CallBack(ClaimId),
    /// Take a request out of a start if that was not sent (row B07).
    Leave {
        /// Whose.
        claim: ClaimId,
        /// The request.
        request: RequestId,
    },
    /// A person asks whether the worker answers.
    Ping(ReplyId),
    /// The exchange ended.
    PingEnded(bool),
    /// The worker accepted the start.
    Accepted(BuildId),
    /// The worker refused the start.
    Refused {
        /// Which.
        build: BuildId,
        /// The wire's code.
        code: String,
        /// For people.
        message: String,
    },
    /// The build is over (row S06).
    BuildOver(ClaimId),
    /// The worker is gone (row S07).
    Detach,
    /// A deadline passed.
    DeadlineReached,
}

/// What a SlaveBuilder wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Start a Ping.
    StartPing {
        /// How long it may take.
        timeout: std::time::Duration,
    },
    /// The exchange under way must be over by then.
    TightenPing(Timestamp),
    /// End the exchange under way: nobody waits any more.
    EndPing,
    /// Send `start_build`.
    SendStart(Box<StartOrder>),
    /// Tell the builder that the attach went through.
    TellAttached {
        /// Whose seat it is at once.
        building: Option<ClaimId>,
    },
    /// Tell the builder that it did not.
    TellAttachFailed {
        /// Why.
        error: String,
    },
    /// Tell who ordered the start how it went.
    TellStart {
        /// Whose.
        claim: ClaimId,
        /// How.
        outcome: Result<(), StartFailure>,
    },
    /// Tell who ordered the start that nobody will hear an answer over this
    /// connection: the worker may have the build (fault row FB03).
    TellInDoubt(ClaimId),
    /// Tell whether a request left a start before it was sent.
    TellLeft {
        /// Whose.
        claim: ClaimId,
        /// The request.
        request: RequestId,
        /// The start was not sent with it, and will not be.
        in_time: bool,
    },
    /// Tell a person's ping.
    TellPing {
        /// Who waits.
        reply: ReplyId,
        /// Whether it answered.
        ok: bool,
    },
    /// Tell the builder that the worker is gone.
    TellDetached,
    /// A ping ended: somebody else may want the worker (row S09).
    TellIdle,
    /// Drop the worker's connection.
    DropConnection(&'static str),
    /// For the event stream: something begins that has an end (row S05).
    NoteBegins(&'static str),
    /// It ended.
    NoteEnds {
        /// What it began as.
        begun: &'static str,
        /// What it became.
        text: &'static str,
    },
    /// Something stale was ignored.
    Ignored(&'static str),
}

/// What a person's ping is called while it is under way.
const PINGING: &str = "pinging";

#[derive(Clone, PartialEq, Debug)]
struct Exchange {
    persons: Vec<ReplyId>,
    /// A person began it: it is published (row S05).
    published: bool,
}

/// The state of one SlaveBuilder actor.
#[derive(Clone, PartialEq, Debug)]
pub struct SlaveBuilderCore {
    state: State,
    exchange: Option<Exchange>,
    person_timeout: std::time::Duration,
    versions: CommandVersions,
}

impl SlaveBuilderCore {
    /// A SlaveBuilder that waits for its worker's answer until `until`.
    #[must_use]
    pub fn attaching(until: Timestamp, person_timeout: std::time::Duration) -> Self {
        let versions = CommandVersions::default();
        Self { state: State::Attaching { until }, exchange: None, person_timeout, versions }
    }

    /// The same one, with what its worker told of its commands.
    #[must_use]
    pub fn knowing(self, versions: CommandVersions) -> Self {
        Self { versions, ..self }
    }

    /// The worker's version of a command, or none when it lacks it or is
    /// detached; `old_version` when it reported no versions at all (row S03).
    #[must_use]
    pub fn command_version<'a>(
        &'a self,
        command: &str,
        old_version: Option<&'a str>,
    ) -> Option<&'a str> {
        match self.state {
            State::Detached => None,
            State::Attaching { .. }
            | State::Idle
            | State::Pinging { .. }
            | State::Starting { .. }
            | State::Building { .. } => self.versions.version(command, old_version),
        }
    }

    /// Takes in one event. Whatever it is, the state changes only as the
    /// table says.
    pub fn handle(&mut self, now: Timestamp, event: Event, fx: &mut Vec<Effect>) {
        let (before, heard) = (Stands::from(&self.state), Hears::from(&event));
        self.take(now, event, fx);
        let after = Stands::from(&self.state);
        assert!(
            transitions::allows(TABLE, &before, &heard, &after),
            "a SlaveBuilder cannot go from {before:?} to {after:?} by {heard:?}"
        );
    }

    fn take(&mut self, now: Timestamp, event: Event, fx: &mut Vec<Effect>) {
        match event {
            Event::Ready { building } => self.on_ready(building, fx),
            Event::Failed { error } => self.on_failed(error, fx),
            Event::Start(order) => self.on_start(now, order, fx),
            Event::CallBack(claim) => self.on_call_back(claim, fx),
            Event::Leave { claim, request } => self.on_leave(claim, request, fx),
            Event::Ping(reply) => self.on_ping(now, reply, fx),
            Event::PingEnded(ok) => self.on_ping_ended(now, ok, fx),
            Event::Accepted(build) => self.on_accepted(build, fx),
            Event::Refused { build, code, message } => self.on_refused(build, code, message, fx),
            Event::BuildOver(claim) => self.on_build_over(claim, fx),
            Event::Detach => self.on_detach(fx),
            Event::DeadlineReached => self.on_deadline(now, fx),
        }
    }

    /// When `DeadlineReached` is due. A ping keeps its own deadline, a build
    /// is ended by the Build actor.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match &self.state {
            State::Attaching { until } | State::Starting { until, .. } => Some(*until),
            State::Idle | State::Pinging { .. } | State::Building { .. } | State::Detached => None,
        }
    }

    fn on_ready(&mut self, building: Option<ClaimId>, fx: &mut Vec<Effect>) {
        match self.state {
            State::Attaching { .. } => {
                let kept = building.filter(|_| !planted::is("s02_brought_build_is_forgotten"));
                self.state = kept.map_or(State::Idle, |claim| State::Building { claim });
                fx.push(Effect::TellAttached { building });
            }
            // The list is sent again when it changes, and answered again.
            State::Idle
            | State::Pinging { .. }
            | State::Starting { .. }
            | State::Building { .. } => {}
            State::Detached => fx.push(Effect::Ignored("attach answer after the detach")),
        }
    }

    fn on_failed(&mut self, error: String, fx: &mut Vec<Effect>) {
        match self.state {
            State::Attaching { .. } => {
                self.state = State::Detached;
                fx.push(Effect::TellAttachFailed { error });
            }
            _ => fx.push(Effect::Ignored("attach failure of an attached worker")),
        }
    }

    /// Rows B13 and S09: only an idle one starts; a start never joins a
    /// person's ping.
    fn on_start(&mut self, now: Timestamp, order: Box<StartOrder>, fx: &mut Vec<Effect>) {
        match self.state {
            State::Idle if let Some(command) = self.versions.lacks(&order.config) => {
                // It would fail there for certain; another worker may have it.
                fx.push(Effect::TellStart {
                    claim: order.claim,
                    outcome: Err(StartFailure::Refused {
                        code: "lacks".into(),
                        message: format!("the worker does not have the command `{command}`"),
                    }),
                });
            }
            State::Idle if planted::is("b13_start_without_a_ping") => {
                let until = now + order.ping_timeout;
                fx.push(Effect::SendStart(order.clone()));
                self.state = State::Starting { order, until };
            }
            State::Idle if self.exchange.is_none() => {
                let timeout = order.ping_timeout;
                self.state = State::Pinging { order: Some(order) };
                self.exchange = Some(Exchange { persons: Vec::new(), published: false });
                fx.push(Effect::StartPing { timeout });
            }
            State::Detached => {
                fx.push(Effect::TellStart { claim: order.claim, outcome: Err(StartFailure::Left) })
            }
            _ => fx.push(Effect::TellStart {
                claim: order.claim,
                outcome: Err(StartFailure::CalledBack),
            }),
        }
    }

    fn on_call_back(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        if let State::Pinging { order } = &mut self.state
            && order.as_ref().is_some_and(|order| order.claim == claim)
        {
            *order = None;
            fx.push(Effect::TellStart { claim, outcome: Err(StartFailure::CalledBack) });
            let nobody = self.exchange.as_ref().is_some_and(|x| x.persons.is_empty());
            if nobody {
                self.exchange = None;
                self.state = State::Idle;
                fx.push(Effect::EndPing);
                fx.push(Effect::TellIdle);
            }
        }
    }

    /// A start goes on without a request that was cancelled; the last one calls
    /// it back.
    fn on_leave(&mut self, claim: ClaimId, request: RequestId, fx: &mut Vec<Effect>) {
        let mut empty = false;
        let in_time = match &mut self.state {
            State::Pinging { order: Some(order) } if order.claim == claim => {
                order.requests.retain(|(id, _)| *id != request);
                empty = order.requests.is_empty();
                true
            }
            State::Starting { order, .. } => order.claim != claim,
            State::Building { claim: mine } => *mine != claim,
            // A start that is not here was called back or has failed.
            State::Attaching { .. } | State::Idle | State::Pinging { .. } | State::Detached => true,
        };
        fx.push(Effect::TellLeft { claim, request, in_time });
        if empty {
            self.on_call_back(claim, fx);
        }
    }

    fn on_ping(&mut self, now: Timestamp, reply: ReplyId, fx: &mut Vec<Effect>) {
        match &self.state {
            State::Detached | State::Attaching { .. } => {
                fx.push(Effect::TellPing { reply, ok: false });
                return;
            }
            State::Idle
            | State::Pinging { .. }
            | State::Starting { .. }
            | State::Building { .. } => {}
        }
        if let Some(exchange) = &mut self.exchange {
            if !planted::is("s04_joiners_are_forgotten") {
                exchange.persons.push(reply);
            }
            fx.push(Effect::TightenPing(now + self.person_timeout));
            return;
        }
        if self.state == State::Idle {
            self.state = State::Pinging { order: None };
        }
        self.exchange = Some(Exchange { persons: vec![reply], published: true });
        fx.push(Effect::NoteBegins(PINGING));
        fx.push(Effect::StartPing { timeout: self.person_timeout });
    }

    fn on_ping_ended(&mut self, now: Timestamp, ok: bool, fx: &mut Vec<Effect>) {
        let Some(exchange) = self.exchange.take() else {
            fx.push(Effect::Ignored("answer to a ping that is over"));
            return;
        };
        if exchange.published && !planted::is("s05_no_end_is_published") {
            let text = if ok { "ping success" } else { "ping failed" };
            fx.push(Effect::NoteEnds { begun: PINGING, text });
        }
        // The state is what it was before, if it is still PINGING; a build's
        // or an attach's state was never touched (row S04).
        if let State::Pinging { order } = &mut self.state {
            match (order.take(), ok) {
                (Some(order), true) => {
                    let until = now + order.ping_timeout;
                    fx.push(Effect::SendStart(order.clone()));
                    self.state = State::Starting { order, until };
                }
                (Some(order), false) => {
                    self.state = State::Idle;
                    fx.push(Effect::TellStart {
                        claim: order.claim,
                        outcome: Err(StartFailure::NoAnswer("the ping was not answered".into())),
                    });
                }
                (None, _) => self.state = State::Idle,
            }
        }
        for reply in exchange.persons {
            fx.push(Effect::TellPing { reply, ok });
        }
        if self.state == State::Idle {
            fx.push(Effect::TellIdle);
        }
    }

    /// The state once nothing of a build is left: a person's ping that is under
    /// way goes on.
    fn at_rest(&self) -> State {
        if self.exchange.is_some() { State::Pinging { order: None } } else { State::Idle }
    }

    fn on_accepted(&mut self, build: BuildId, fx: &mut Vec<Effect>) {
        match &self.state {
            State::Starting { order, .. } if order.build == build => {
                let claim = order.claim;
                self.state = State::Building { claim };
                fx.push(Effect::TellStart { claim, outcome: Ok(()) });
            }
            _ => fx.push(Effect::Ignored("acceptance of a start that is over")),
        }
    }

    fn on_refused(&mut self, build: BuildId, code: String, message: String, fx: &mut Vec<Effect>) {
        match &self.state {
            State::Starting { order, .. } if order.build == build => {
                let claim = order.claim;
                self.state = self.at_rest();
                fx.push(Effect::TellStart {
                    claim,
                    outcome: Err(StartFailure::Refused { code, message }),
                });
            }
            _ => fx.push(Effect::Ignored("refusal of a start that is over")),
        }
    }

    fn on_build_over(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        match &self.state {
            State::Building { claim: mine }
                if *mine == claim || planted::is("s06_any_end_frees_the_seat") =>
            {
                self.state = self.at_rest();
            }
            // A start that failed is over already; a detached one stays so.
            State::Idle | State::Detached | State::Attaching { .. } | State::Pinging { .. } => {}
            State::Starting { .. } | State::Building { .. } => {
                fx.push(Effect::Ignored("end of a build that this worker does not have"));
            }
        }
    }

    /// Row S07; a second one does nothing.
    fn on_detach(&mut self, fx: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.state, State::Detached);
        if before == State::Detached {
            return;
        }
        self.versions = CommandVersions::default();
        let text = "the worker left";
        match before {
            State::Attaching { .. } => fx.push(Effect::TellAttachFailed { error: text.into() }),
            State::Pinging { order: Some(order) } => {
                fx.push(Effect::TellDetached);
                let outcome = Err(StartFailure::Left);
                fx.push(Effect::TellStart { claim: order.claim, outcome });
            }
            State::Starting { order, .. } => {
                fx.push(Effect::TellDetached);
                if planted::is("fb03_unknown_is_failed") {
                    let outcome = Err(StartFailure::Left);
                    fx.push(Effect::TellStart { claim: order.claim, outcome });
                } else {
                    fx.push(Effect::TellInDoubt(order.claim));
                }
            }
            State::Idle
            | State::Pinging { order: None }
            | State::Building { .. }
            | State::Detached => fx.push(Effect::TellDetached),
        }
        if let Some(exchange) = self.exchange.take() {
            fx.push(Effect::EndPing);
            if exchange.published {
                fx.push(Effect::NoteEnds { begun: PINGING, text: "ping failed" });
            }
            for reply in exchange.persons {
                fx.push(Effect::TellPing { reply, ok: false });
            }
        }
    }

    fn on_deadline(&mut self, now: Timestamp, fx: &mut Vec<Effect>) {
        match &self.state {
            State::Attaching { until } if *until <= now => {
                self.state = State::Detached;
                // A late answer would find nobody: the worker comes back and is
                // asked again (fault row FA07).
                fx.push(Effect::DropConnection("it did not answer an attach in time"));
                fx.push(Effect::TellAttachFailed {
                    error: "the worker did not answer in time".into(),
                });
            }
            State::Starting { order, until } if *until <= now => {
                let claim = order.claim;
                self.state = self.at_rest();
                fx.push(Effect::DropConnection("it did not answer a start in time"));
                fx.push(Effect::TellStart {
                    claim,
                    outcome: Err(StartFailure::NoAnswer("the start was not answered".into())),
                });
            }
            _ => {}
        }
    }

    /// What a rebuilt builder needs to know.
    #[must_use]
    pub fn report(&self) -> Option<SeatReportUse> {
        match &self.state {
            State::Attaching { .. } => Some(SeatReportUse::Attaching),
            State::Idle | State::Pinging { order: None } => Some(SeatReportUse::Free),
            State::Pinging { order: Some(order) } | State::Starting { order, .. } => {
                Some(SeatReportUse::Starting(order.claim))
            }
            State::Building { claim } => Some(SeatReportUse::Building(*claim)),
            State::Detached => None,
        }
    }

    /// Whether a ping is under way, whoever asked for it.
    #[must_use]
    pub fn is_pinging(&self) -> bool {
        self.exchange.is_some()
    }

    /// The state, for tests and views.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}
