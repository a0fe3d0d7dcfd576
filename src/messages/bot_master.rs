//! What the BotMaster is asked by the web and the signals.

use std::sync::Arc;
use std::time::Duration;

use actix::{Message, Recipient};
use serde::{Deserialize, Serialize};

use super::WorkerHandle;
use crate::core::ids::*;
use crate::core::values::{Properties, SourceStamp};
use crate::settings::{Problem, Settings};
use crate::telemetry::metrics::metrics;

/// How long an edge waits for an answer of the BotMaster.
const ASK_LIMIT: Duration = Duration::from_secs(60);

/// Why something asked for was not done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such builder.
    #[error("there is no builder named `{0}`")]
    NoSuchBuilder(String),
    /// There is no such worker.
    #[error("there is no worker named `{0}`")]
    NoSuchWorker(String),
    /// There is no such build.
    #[error("there is no build {0}")]
    NoSuchBuild(BuildId),
    /// There is no such request.
    #[error("there is no build request {0}")]
    NoSuchRequest(RequestId),
    /// There is no such scheduler.
    #[error("there is no scheduler with the id {0}")]
    NoSuchScheduler(u64),
    /// Row C01: nobody could build it.
    #[error("builder `{0}` has no worker that could build it")]
    NoWorker(BuilderName),
    /// The worker is not attached.
    #[error("worker `{0}` is not attached")]
    NotAttached(WorkerName),
    /// The builder's queue is full.
    #[error("builder `{builder}` has {limit} requests waiting already, its limit")]
    QueueFull {
        /// Which.
        builder: BuilderName,
        /// Its limit.
        limit: usize,
    },
    /// The submission names a worker that does not serve the builder: it would
    /// wait for ever.
    #[error(
        "builder `{builder}` has no worker `{worker}`, which the property `workername` names; \
         its workers are: {}", if workers.is_empty() { "none".to_owned() } else { workers.join(", ") }
    )]
    NotItsWorker {
        /// Which.
        builder: BuilderName,
        /// The one that is named.
        worker: WorkerName,
        /// Those that serve it.
        workers: Vec<String>,
    },
    /// The builder's actor gave up after panics.
    #[error(
        "builder `{builder}` is broken: {reason}; once the cause is gone, `botmaster restart \
         {builder}` starts it again"
    )]
    Broken {
        /// Which.
        builder: BuilderName,
        /// Why.
        reason: String,
    },
    /// Only a broken builder is started again.
    #[error("builder `{0}` is not broken: there is nothing to start again")]
    NotBroken(BuilderName),
    /// The master is about to stop.
    #[error("the master is stopping and takes no new requests")]
    Stopping,
    /// The store said no.
    #[error("{0}")]
    Store(String),
    /// No answer in time; it may or may not have been done.
    #[error("no answer in time; look before you try again")]
    Timeout,
    /// The master's actors are gone.
    #[error("the master is shutting down")]
    Gone,
}

/// One submission: one buildset with a request for each builder named.
#[derive(Clone, PartialEq, Debug)]
pub struct Submission {
    /// Builders, at least one.
    pub builders: Vec<BuilderName>,
    /// Higher first.
    pub priority: i64,
    /// For people.
    pub reason: String,
    /// Who asks: `force`, `rebuild`.
    pub scheduler: String,
    /// The submitter's own name for it.
    pub external_id: Option<String>,
    /// Sent again with the same key, it is answered with the first one's ids.
    pub idempotency_key: Option<String>,
    /// For every build of it.
    pub properties: Arc<Properties>,
    /// What to build.
    pub sourcestamps: Vec<SourceStamp>,
    /// The build that this repeats.
    pub rebuilt_build: Option<BuildId>,
    /// Refuse when a builder has no usable worker (row C01).
    pub soon: bool,
}

/// A stored submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submitted {
    /// Its set.
    pub buildset: BuildsetId,
    /// Its requests, in the order of the builders asked for.
    pub requests: Vec<(BuilderId, RequestId)>,
}

/// Stores submissions, all or none, and queues their requests. Answered after
/// the commit.
#[derive(Message)]
#[rtype(result = "Result<Vec<Submitted>, Refusal>")]
pub struct Submit(pub Vec<Submission>);

/// Cancels a request that waits, or stops the build that has it. True when it
/// did something.
#[derive(Message)]
#[rtype(result = "Result<bool, Refusal>")]
pub struct CancelRequest {
    /// Which.
    pub request: RequestId,
    /// Its builder.
    pub builder: BuilderName,
    /// For people.
    pub reason: String,
}

/// Changes the priority of a request that waits. True when it waited.
#[derive(Message)]
#[rtype(result = "Result<bool, Refusal>")]
pub struct SetPriority {
    /// Which.
    pub request: RequestId,
    /// Its builder.
    pub builder: BuilderName,
    /// Higher first.
    pub priority: i64,
}

/// Stops a build. True when it was running.
#[derive(Message)]
#[rtype(result = "Result<bool, Refusal>")]
pub struct StopBuild {
    /// Which.
    pub build: BuildId,
    /// Its builder.
    pub builder: BuilderName,
    /// For people.
    pub reason: String,
}

/// Pings all workers of a builder (row C03). True when each answers.
#[derive(Message)]
#[rtype(result = "Result<bool, Refusal>")]
pub struct PingBuilder(pub BuilderName);

/// Starts a builder again that gave up after panics. Answered when it stands.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct RestartBuilder(pub BuilderName);

/// What to do with a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerOrder {
    /// No more starts.
    Pause,
    /// Starts again.
    Unpause,
    /// No more starts; it leaves once its builds have ended.
    Drain,
    /// Its program ends once its builds have ended (row B28).
    Shutdown,
}

/// Orders a worker.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct OrderWorker {
    /// Which.
    pub worker: WorkerName,
    /// What.
    pub order: WorkerOrder,
    /// For people.
    pub reason: String,
}

/// Switches a scheduler on or off. Answered after the commit.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct SetScheduler {
    /// Which.
    pub scheduler: u64,
    /// On.
    pub enabled: bool,
}

/// What a reload does, or did, to one builder or worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReloadEntry {
    /// `builder` or `worker`.
    pub what: String,
    /// Its name.
    pub name: String,
    /// `unchanged`, `added`, `changed`, `removed`.
    pub action: String,
    /// What differs, one line each (row B03).
    pub differences: Vec<String>,
    /// Why it was not done, when it was not.
    pub error: Option<String>,
}

/// What a reload does, or did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The file read.
    pub file: String,
    /// Milliseconds it took; 0 for a plan.
    pub took_ms: u64,
    /// Everything, builder by builder, then workers.
    pub entries: Vec<ReloadEntry>,
    /// Why nothing was done, when the file is bad.
    pub problems: Vec<Problem>,
}

/// Reads the configuration file again and applies it, or (`dry`) tells what
/// that would change. With `settings` that file's contents are taken instead.
#[derive(Message)]
#[rtype(result = "Result<ReloadReport, Refusal>")]
pub struct Reload {
    /// Only tell.
    pub dry: bool,
    /// Settings to plan for instead of those in the master's own file.
    pub settings: Option<Box<Settings>>,
}

/// A worker has room for builds (row B16).
#[derive(Message)]
#[rtype(result = "()")]
pub struct WorkerAvailable {
    /// Which worker.
    pub worker: WorkerName,
    /// Builders that it has refused since it said so last.
    pub builders: Vec<BuilderName>,
    /// For so many.
    pub room: usize,
}

/// A builder does not use the room that a worker has: the next in line may.
#[derive(Message)]
#[rtype(result = "()")]
pub struct OfferPassed {
    /// Which worker.
    pub worker: WorkerName,
}

/// The head of a builder's queue changed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct OldestChanged {
    /// Whose.
    pub builder: BuilderName,
    /// The submission that made it.
    pub oldest: Option<BuildsetId>,
}

/// A builder stands.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuilderShown {
    /// Which.
    pub builder: BuilderName,
    /// After a panic: it may have missed that workers are there.
    pub restarted: bool,
}

/// Who a connection turns to with its first frame.
#[derive(Message)]
#[rtype(result = "Result<Arc<WorkerHandle>, Rejection>")]
pub struct Introduce {
    /// The name it gives.
    pub name: WorkerName,
    /// Its token.
    pub token: String,
    /// Where it comes from, for people.
    pub address: String,
    /// The same without its port, when what comes from there is limited.
    pub limited: Option<String>,
}

/// Why a connection is turned away.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The wire's code.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// When to come again; none means never.
    pub retry_after_s: Option<u64>,
    /// Its name or its token was wrong, or was not looked at for that.
    pub wrong: bool,
}

/// The door to the BotMaster for the web and the signals.
#[derive(Clone)]
pub struct BotMasterHandle {
    /// For [`Submit`].
    pub submit: Recipient<Submit>,
    /// For [`CancelRequest`].
    pub cancel: Recipient<CancelRequest>,
    /// For [`SetPriority`].
    pub priority: Recipient<SetPriority>,
    /// For [`StopBuild`].
    pub stop: Recipient<StopBuild>,
    /// For [`PingBuilder`].
    pub ping: Recipient<PingBuilder>,
    /// For [`OrderWorker`].
    pub order: Recipient<OrderWorker>,
    /// For [`Reload`].
    pub reload: Recipient<Reload>,
    /// For [`RestartBuilder`].
    pub restart: Recipient<RestartBuilder>,
    /// For [`SetScheduler`].
    pub scheduler: Recipient<SetScheduler>,
}

async fn ask<M, T>(to: &Recipient<M>, message: M) -> Result<T, Refusal>
where
    M: Message<Result = Result<T, Refusal>> + Send + 'static,
    T: Send + 'static,
{
    let _asking = metrics().asking::<M>();
    match to.send(message).timeout(ASK_LIMIT).await {
        Ok(answer) => answer,
        Err(actix::MailboxError::Timeout) => Err(Refusal::Timeout),
        Err(actix::MailboxError::Closed) => Err(Refusal::Gone),
    }
}

impl BotMasterHandle {
    /// Stores submissions, all or none.
    ///
    /// # Errors
    /// When a builder is unknown, its queue is full, or the store says no.
    pub async fn submit(&self, submissions: Vec<Submission>) -> Result<Vec<Submitted>, Refusal> {
        ask(&self.submit, Submit(submissions)).await
    }

    /// Cancels a request.
    ///
    /// # Errors
    /// When there is no such builder.
    pub async fn cancel(&self, message: CancelRequest) -> Result<bool, Refusal> {
        ask(&self.cancel, message).await
    }

    /// Changes a waiting request's priority.
    ///
    /// # Errors
    /// When there is no such builder.
    pub async fn set_priority(&self, message: SetPriority) -> Result<bool, Refusal> {
        ask(&self.priority, message).await
    }

    /// Stops a build.
    ///
    /// # Errors
    /// When there is no such builder.
    pub async fn stop(&self, message: StopBuild) -> Result<bool, Refusal> {
        ask(&self.stop, message).await
    }

    /// Pings a builder's workers.
    ///
    /// # Errors
    /// When there is no such builder.
    pub async fn ping(&self, builder: BuilderName) -> Result<bool, Refusal> {
        ask(&self.ping, PingBuilder(builder)).await
    }

    /// Starts a builder again that gave up.
    ///
    /// # Errors
    /// When there is no such builder, it is not broken, or it gives up again.
    pub async fn restart(&self, builder: BuilderName) -> Result<(), Refusal> {
        ask(&self.restart, RestartBuilder(builder)).await
    }

    /// Orders a worker.
    ///
    /// # Errors
    /// When there is no such worker, or it is not attached.
    pub async fn order(&self, message: OrderWorker) -> Result<(), Refusal> {
        ask(&self.order, message).await
    }

    /// Switches a scheduler on or off.
    ///
    /// # Errors
    /// When there is no such scheduler, or the store says no.
    pub async fn set_scheduler(&self, message: SetScheduler) -> Result<(), Refusal> {
        ask(&self.scheduler, message).await
    }

    /// Reloads, or plans a reload.
    ///
    /// # Errors
    /// When the master is stopping. A bad file is no error: the report tells.
    pub async fn reload(&self, message: Reload) -> Result<ReloadReport, Refusal> {
        ask(&self.reload, message).await
    }
}
