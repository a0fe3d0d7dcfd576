//! One latent worker's standing with one builder (rows L01 to L05).
//!
//! Owns what is told of a substantiation, and who waits for it. It is there
//! from configuration on; the conversation over a connection is an ordinary
//! SlaveBuilder's. Deliberately absent: when an instance is made and ended (the
//! worker's), and what the build does next (the builder's).

mod table;

use std::time::Duration;

pub use table::{EVENTS, Hears, STATES, Stands, TABLE};

use super::builder::ReplyId;
use super::ids::*;
use super::planted;
use super::time::Timestamp;
use super::transitions;

/// Where a LatentSlaveBuilder stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// There is no instance, as far as this builder has heard (row L01).
    Latent,
    /// A build waits for the instance. It is reserved (row L05).
    Substantiating {
        /// Whose.
        claim: ClaimId,
        /// When that has failed at the latest. The worker tells earlier.
        until: Timestamp,
        /// What the provider told.
        details: String,
    },
    /// The instance is there and attached for this builder.
    Up,
}

/// What a LatentSlaveBuilder hears.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A build needs the instance (row L02).
    Substantiate(ClaimId),
    /// The build needs it no more; none means whichever build it is.
    CallBack(Option<ClaimId>),
    /// The provider has the instance.
    Created {
        /// For whom.
        claim: ClaimId,
        /// For people.
        details: String,
    },
    /// The instance came to nothing.
    Failed {
        /// For whom.
        claim: ClaimId,
        /// Why.
        error: String,
        /// Asking again is no use.
        permanent: bool,
    },
    /// The instance is attached for this builder.
    Attached,
    /// The instance is there and cannot serve this builder (row L04).
    AttachFailed {
        /// Why.
        error: String,
    },
    /// The connection ended (row S07).
    Detached,
    /// A person asks whether the worker answers (row L03).
    Ping(ReplyId),
    /// A deadline passed.
    DeadlineReached,
}

/// Why a build does not get the instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotSubstantiated {
    /// Why; none when the build was not waited for any more.
    pub error: Option<String>,
    /// Asking again is no use.
    pub permanent: bool,
}

/// What a LatentSlaveBuilder wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Tell the worker that the build wants the instance.
    WantInstance(ClaimId),
    /// Tell the build.
    Tell {
        /// Whose.
        claim: ClaimId,
        /// Whether the instance is there.
        outcome: Result<(), NotSubstantiated>,
    },
    /// Tell a person's ping.
    TellPing {
        /// Who waits.
        reply: ReplyId,
        /// Whether the worker answers.
        ok: bool,
    },
    /// A moment for the event stream.
    Note(String),
    /// Something for the event stream that will have an end.
    NoteBegins(&'static str),
    /// Its end (row S05).
    NoteEnds {
        /// What it began as.
        begun: &'static str,
        /// What it became.
        text: String,
        /// The error text, when it was a failure.
        error: Option<String>,
    },
    /// Something stale was ignored.
    Ignored(&'static str),
}

/// What a substantiation is called while it goes on.
const SUBSTANTIATING: &str = "substantiating";

/// The event of a substantiation that failed.
fn failed(error: String) -> Effect {
    let text = "substantiate failed".to_owned();
    Effect::NoteEnds { begun: SUBSTANTIATING, text, error: Some(error) }
}

/// The state of one LatentSlaveBuilder actor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LatentSlaveBuilderCore {
    worker: WorkerName,
    /// How long a substantiation may take, as this side sees it.
    patience: Duration,
    state: State,
}

impl LatentSlaveBuilderCore {
    /// One that is LATENT.
    #[must_use]
    pub fn new(worker: WorkerName, patience: Duration) -> Self {
        Self { worker, patience, state: State::Latent }
    }

    /// From now on a substantiation may take as long as this.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Takes in one event. It moves as [`TABLE`] says and in no other way.
    pub fn handle(&mut self, now: Timestamp, event: Event, fx: &mut Vec<Effect>) {
        let (before, heard) = (Stands::from(&self.state), Hears::from(&event));
        self.take_in(now, event, fx);
        let after = Stands::from(&self.state);
        assert!(
            transitions::allows(TABLE, &before, &heard, &after),
            "a LatentSlaveBuilder cannot go from {before:?} to {after:?} by {heard:?}"
        );
    }

    fn take_in(&mut self, now: Timestamp, event: Event, fx: &mut Vec<Effect>) {
        match event {
            Event::Substantiate(claim) => self.on_substantiate(now, claim, fx),
            Event::CallBack(claim) => self.on_call_back(claim, fx),
            Event::Created { claim: theirs, details: told } => match &mut self.state {
                State::Substantiating { claim, details, .. } if *claim == theirs => {
                    *details = told;
                }
                State::Substantiating { .. } | State::Latent | State::Up => {
                    fx.push(Effect::Ignored("an instance that this build does not wait for"));
                }
            },
            Event::Failed { claim: theirs, error, permanent } => match &self.state {
                State::Substantiating { claim, .. } if *claim == theirs => {
                    self.fail(error, permanent, fx);
                }
                State::Substantiating { .. } | State::Latent | State::Up => {
                    fx.push(Effect::Ignored("failure of an instance that nobody waits for"));
                }
            },
            Event::Attached => self.on_attached(fx),
            Event::AttachFailed { error } => match self.state {
                State::Substantiating { .. } => self.fail(error, false, fx),
                State::Latent | State::Up => self.state = State::Latent,
            },
            Event::Detached => match self.state {
                // It may come again in time.
                State::Substantiating { .. } => {}
                State::Latent | State::Up => self.state = State::Latent,
            },
            Event::Ping(reply) => {
                fx.push(Effect::Note("ping latent".into()));
                let ok = !planted::is("l03_a_latent_one_does_not_answer");
                fx.push(Effect::TellPing { reply, ok });
            }
            Event::DeadlineReached => match &self.state {
                State::Substantiating { until, .. } if *until <= now => {
                    self.fail("nothing was heard of the instance in time".into(), false, fx);
                }
                State::Substantiating { .. } | State::Latent | State::Up => {}
            },
        }
    }

    fn on_substantiate(&mut self, now: Timestamp, claim: ClaimId, fx: &mut Vec<Effect>) {
        match self.state {
            State::Latent => {
                let until = now + self.patience;
                self.state = State::Substantiating { claim, until, details: String::new() };
                fx.push(Effect::NoteBegins(SUBSTANTIATING));
                fx.push(Effect::WantInstance(claim));
            }
            State::Up => fx.push(Effect::Tell { claim, outcome: Ok(()) }),
            State::Substantiating { .. } if planted::is("l05_chosen_for_a_second_build") => {
                fx.push(Effect::Tell { claim, outcome: Ok(()) });
            }
            State::Substantiating { .. } => {
                let outcome = Err(NotSubstantiated { error: None, permanent: false });
                fx.push(Effect::Tell { claim, outcome });
            }
        }
    }

    fn on_call_back(&mut self, theirs: Option<ClaimId>, fx: &mut Vec<Effect>) {
        match &self.state {
            State::Substantiating { claim, .. } if theirs.is_none_or(|one| one == *claim) => {
                self.state = State::Latent;
                fx.push(failed("no build waits for it any more".into()));
            }
            State::Substantiating { .. } | State::Latent | State::Up => {}
        }
    }

    fn on_attached(&mut self, fx: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.state, State::Up) {
            State::Substantiating { claim, details, .. } => {
                let text = if details.is_empty() {
                    "substantiate success".to_owned()
                } else {
                    format!("substantiate success ({details})")
                };
                if !planted::is("l02_no_end_is_published") {
                    fx.push(Effect::NoteEnds { begun: SUBSTANTIATING, text, error: None });
                }
                fx.push(Effect::Tell { claim, outcome: Ok(()) });
            }
            // Somebody else's build wanted it: no event (row L02).
            State::Latent | State::Up => {}
        }
    }

    /// Row B14: only the instance is dropped; the worker stays listed.
    fn fail(&mut self, error: String, permanent: bool, fx: &mut Vec<Effect>) {
        let State::Substantiating { claim, .. } = self.state else { return };
        if !planted::is("l04_it_waits_on_after_a_failure") {
            self.state = State::Latent;
        }
        fx.push(failed(error.clone()));
        fx.push(Effect::Note(format!("removing latent {}", self.worker)));
        let outcome = Err(NotSubstantiated { error: Some(error), permanent });
        fx.push(Effect::Tell { claim, outcome });
    }

    /// When `DeadlineReached` is due. LATENT waits for a build, UP for the
    /// connection's end.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match self.state {
            State::Substantiating { until, .. } => Some(until),
            State::Latent | State::Up => None,
        }
    }

    /// The state, for tests and views.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}
