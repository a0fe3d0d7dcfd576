//! What a Builder is told.
//!
//! Mail is for whoever is in charge of the builder's name: after a takeover it
//! reaches the successor. Everything else is for one actor about its own
//! business.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use super::{Refusal, WorkerHandle, WorkerLink};
use crate::core::builder::{Event, Request, StepTimes};
use crate::core::ids::*;
use crate::core::inbox::SenderId;
use crate::core::slave_builder::CommandVersions;
use crate::core::values::BuildResult;

/// A worker is there and shall serve this builder (row B21).
#[derive(Clone)]
pub struct Attach {
    /// Which.
    pub worker: WorkerName,
    /// Its connection.
    pub link: WorkerLink,
    /// Its actor.
    pub handle: Arc<WorkerHandle>,
    /// What it told of its commands.
    pub versions: CommandVersions,
}

/// A latent worker serves this builder (row B26).
#[derive(Clone)]
pub struct AddLatent {
    /// Which.
    pub worker: WorkerName,
    /// Its actor.
    pub handle: Arc<WorkerHandle>,
    /// How long an instance of it may take to be there.
    pub patience: Duration,
}

/// What mail says.
pub enum BuilderMail {
    /// These requests are stored and wait from now on.
    SubmitRequests(Vec<Request>),
    /// Cancel a request.
    Cancel {
        /// Which.
        request: RequestId,
        /// For people.
        reason: String,
        /// True when it did something.
        reply: oneshot::Sender<Result<bool, Refusal>>,
    },
    /// Change a waiting request's priority.
    SetPriority {
        /// Which.
        request: RequestId,
        /// Higher first.
        priority: i64,
        /// True when it waited.
        reply: oneshot::Sender<Result<bool, Refusal>>,
    },
    /// Stop a build.
    Stop {
        /// Which.
        build: BuildId,
        /// For people.
        reason: String,
        /// True when it ran.
        reply: oneshot::Sender<Result<bool, Refusal>>,
    },
    /// Ping all workers.
    Ping {
        /// True when each answered.
        reply: oneshot::Sender<Result<bool, Refusal>>,
    },
    /// A worker is there.
    Attach(Attach),
    /// A latent worker is one of its own.
    AddLatent(AddLatent),
    /// The sender's last piece: its numbers need not be kept.
    Last,
    /// Anything that a child or a predecessor tells whoever is in charge.
    Event(Event),
}

/// One numbered piece of mail.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Mail {
    /// Who sends it.
    pub sender: SenderId,
    /// From 1.
    pub seq: u64,
    /// What it says.
    pub body: BuilderMail,
}

/// Something about this very actor's own builds.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuilderEvent(pub Event);

/// A build ended, durably.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuildFinished {
    /// Its claim.
    pub claim: ClaimId,
    /// How.
    pub result: BuildResult,
    /// Requests that went back to the queue.
    pub requeued: Vec<Request>,
    /// What each step took, when it succeeded.
    pub times: Option<StepTimes>,
}

/// Where mail for a builder's name goes now.
pub struct BuilderRoute {
    current: Mutex<Recipient<Mail>>,
    next_sender: AtomicU64,
}

impl BuilderRoute {
    /// A route that leads to `first`.
    #[must_use]
    pub fn new(first: Recipient<Mail>) -> Arc<Self> {
        Arc::new(Self { current: Mutex::new(first), next_sender: AtomicU64::new(1) })
    }

    /// From now on it leads to `successor`.
    pub fn lead_to(&self, successor: Recipient<Mail>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = successor;
    }
}

/// One sender's door to whoever is in charge of a builder.
pub struct BuilderHandle {
    /// The builder.
    pub name: BuilderName,
    route: Arc<BuilderRoute>,
    sender: SenderId,
    sent: AtomicU64,
}

impl BuilderHandle {
    /// A door for a sender of its own.
    #[must_use]
    pub fn new(name: BuilderName, route: Arc<BuilderRoute>) -> Self {
        let sender = SenderId(route.next_sender.fetch_add(1, Ordering::Relaxed));
        Self { name, route, sender, sent: AtomicU64::new(0) }
    }

    /// A door to the same builder for another sender.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(self.name.clone(), self.route.clone())
    }

    /// Sends mail. It is handled once, and after what this sender sent before.
    pub fn tell(&self, body: BuilderMail) {
        let seq = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let to = self.route.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        to.do_send(Mail { sender: self.sender, seq, body });
    }

    /// Passes mail of somebody else on, as it is.
    pub fn forward(&self, mail: Mail) {
        let to = self.route.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        to.do_send(mail);
    }

    /// Where it leads.
    #[must_use]
    pub fn route(&self) -> &Arc<BuilderRoute> {
        &self.route
    }
}
