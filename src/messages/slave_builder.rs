//! What a SlaveBuilder is told.

use actix::{Message, Recipient};

use super::BuilderEvent;
use crate::core::builder::{Event, ReplyId, SeatReport, StartFailure, StartOrder};
use crate::core::ids::*;

/// Ping the worker and start the build there.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StartBuild {
    /// What.
    pub order: Box<StartOrder>,
    /// Who hears how it went.
    pub reply: StartReply,
}

/// The answer to a start. When it is dropped unused, because the SlaveBuilder is
/// gone or panicked, the start was called back: no start waits for ever, and the
/// worker is not left alone for something that was not its fault.
pub struct StartReply {
    claim: ClaimId,
    to: Option<Recipient<BuilderEvent>>,
}

impl StartReply {
    /// An answer that `to` waits for.
    #[must_use]
    pub fn new(claim: ClaimId, to: Recipient<BuilderEvent>) -> Self {
        Self { claim, to: Some(to) }
    }

    /// Tells how it went.
    pub fn tell(mut self, outcome: Result<(), StartFailure>) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Result<(), StartFailure>) {
        let claim = self.claim;
        if let Some(to) = self.to.take() {
            to.do_send(BuilderEvent(match outcome {
                Ok(()) => Event::StartAccepted { claim },
                Err(failure) => Event::StartFailed { claim, failure },
            }));
        }
    }
}

impl Drop for StartReply {
    fn drop(&mut self) {
        self.send(Err(StartFailure::CalledBack));
    }
}

/// A person asks whether the worker answers; told to `from` as `PingDone`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ping {
    /// Names the question at this SlaveBuilder.
    pub reply: ReplyId,
    /// Who hears the answer.
    pub from: Recipient<BuilderEvent>,
}

/// News of a SlaveBuilder's worker.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SeatNews(pub SeatNewsKind);

/// News of a SlaveBuilder's worker.
pub enum SeatNewsKind {
    /// The worker answered for this builder.
    Answer {
        /// Why it cannot serve it.
        error: Option<String>,
        /// The build it brought back.
        building: Option<ClaimId>,
    },
    /// The connection ended.
    Detached,
    /// The worker accepted a start.
    Accepted(BuildId),
    /// The worker refused a start.
    Refused {
        /// Which.
        build: BuildId,
        /// The wire's code.
        code: String,
        /// For people.
        message: String,
    },
}

/// Call a start back if it was not sent.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CallBackStart(pub ClaimId);

/// Take a request out of a start if that was not sent; told to `from` as
/// `LeftStart`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LeaveStart {
    /// Whose.
    pub claim: ClaimId,
    /// Which.
    pub request: RequestId,
    /// Who hears whether it was in time.
    pub from: Recipient<BuilderEvent>,
}

/// The build is over.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuildOver(pub ClaimId);

/// The builder does not need this SlaveBuilder any more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LetGo;

/// How a ping ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PingEnded {
    /// Which.
    pub token: PingToken,
    /// Whether it was answered.
    pub ok: bool,
}

/// What a restarted builder asks.
#[derive(Message)]
#[rtype(result = "Option<SeatReport>")]
pub struct DescribeSeat;
