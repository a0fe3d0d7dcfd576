//! What a worker's actor is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::{Addr, Message, Recipient};

use super::takes::{Takes, Tells};
use super::{
    BuildEvent, BuilderEvent, BuilderHandle, CommandFinished, CommandSaid, PingLost, Pong, Refusal,
    SeatNews, WorkerBack, WorkerLink, WorkerOrder,
};
use crate::core::builder::Event;
use crate::core::ids::*;
use crate::core::instance::{Found, Known};
use crate::core::values::WorkerConfig;
use crate::protocol::json_v1::{Attach as AttachFrame, WorkerFrame};

/// A connection proved itself.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Hello {
    /// Its first frame.
    pub attach: Box<AttachFrame>,
    /// The connection.
    pub link: WorkerLink,
    /// Where it came from.
    pub address: String,
}

/// A frame arrived.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FrameArrived {
    /// Over which connection.
    pub session: SessionId,
    /// What.
    pub frame: WorkerFrame,
}

/// A connection ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ConnectionLost {
    /// Which.
    pub session: SessionId,
    /// For the log.
    pub reason: String,
}

/// The master stops: a worker with builds gets a lease of this length. Answered,
/// once it knows of it, whether it did.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct GrantLease(pub std::time::Duration);

/// A builder asks for a slot.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskSlot {
    /// Who.
    pub builder: BuilderName,
    /// For whom.
    pub claim: ClaimId,
    /// Who hears whether there is one.
    pub reply: SlotReply,
}

/// The answer to a builder that asks for a slot. When it is dropped unused,
/// because the Worker is gone or panicked, the slot is refused.
pub struct SlotReply {
    claim: ClaimId,
    to: Option<Recipient<BuilderEvent>>,
}

impl SlotReply {
    /// An answer that `to` waits for.
    #[must_use]
    pub fn new(claim: ClaimId, to: Recipient<BuilderEvent>) -> Self {
        Self { claim, to: Some(to) }
    }

    /// Keeps the slot for the build until the worker is there.
    pub fn reserve(mut self) {
        let claim = self.claim;
        if let Some(to) = self.to.take() {
            to.do_send(BuilderEvent(Event::SlotReserved { claim }));
        }
    }

    /// Grants the slot.
    pub fn grant(mut self, worker_id: WorkerId, incarnation: Incarnation) {
        let claim = self.claim;
        if let Some(to) = self.to.take() {
            to.do_send(BuilderEvent(Event::SlotGranted { claim, worker_id, incarnation }));
        }
    }
}

impl Drop for SlotReply {
    fn drop(&mut self) {
        let claim = self.claim;
        if let Some(to) = self.to.take() {
            to.do_send(BuilderEvent(Event::SlotRefused { claim }));
        }
    }
}

/// A build has a slot of a latent worker, which is not there: its
/// LatentSlaveBuilder wants it to be.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WantInstance {
    /// Whose build.
    pub builder: BuilderName,
    /// For whom.
    pub claim: ClaimId,
    /// Who hears what came of it.
    pub to: Recipient<InstanceNews>,
}

/// What a LatentSlaveBuilder hears of the instance that it waits for.
#[derive(Message)]
#[rtype(result = "()")]
pub struct InstanceNews {
    /// For whom it was wanted.
    pub claim: ClaimId,
    /// What there is to say.
    pub kind: InstanceNewsKind,
}

/// What a LatentSlaveBuilder hears of the instance that it waits for. That it
/// is there it hears from its builder, whose attach that is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InstanceNewsKind {
    /// The provider has it, and told this.
    Created(String),
    /// It came to nothing.
    Failed {
        /// Why.
        error: String,
        /// Asking again is no use.
        permanent: bool,
    },
}

/// The provider told which instances of this worker there are.
#[derive(Message)]
#[rtype(result = "()")]
pub struct InstancesFound(pub Vec<Found>);

/// The master stops: an instance goes.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LetInstanceGo {
    /// Also when builds run on it.
    pub even_used: bool,
}

/// A builder is broken: only its running builds keep their slots.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuilderBroken(pub BuilderName);

/// A slot is free again.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GiveBackSlot {
    /// Who had it.
    pub builder: BuilderName,
    /// Whose it was.
    pub claim: ClaimId,
}

/// Of a builder's slots only these are in use.
#[derive(Message)]
#[rtype(result = "()")]
pub struct KeepSlots {
    /// Which builder.
    pub builder: BuilderName,
    /// In use.
    pub claims: BTreeSet<ClaimId>,
}

/// A SlaveBuilder waits for its builder's answer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RegisterSeat {
    /// Its connection.
    pub session: SessionId,
    /// Its builder.
    pub builder: BuilderName,
    /// Where its news go.
    pub to: Recipient<SeatNews>,
}

/// A start goes out: its answer is for this builder's SlaveBuilder.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RegisterStart {
    /// Which.
    pub build: BuildId,
    /// Its builder.
    pub builder: BuilderName,
    /// The epoch that goes with it.
    pub epoch: Epoch,
}

/// Where a Build's news go.
#[derive(Clone)]
pub struct BuildDoor {
    /// Plain events.
    pub event: Recipient<BuildEvent>,
    /// A command's end.
    pub finished: Recipient<CommandFinished>,
    /// That the worker spoke of a command.
    pub said: Recipient<CommandSaid>,
    /// The worker's return.
    pub back: Recipient<WorkerBack>,
}

/// A Build lives for this build.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RegisterBuild {
    /// Which.
    pub build: BuildId,
    /// Its claim.
    pub claim: ClaimId,
    /// Its builder.
    pub builder: BuilderName,
    /// The connection over which it was started; none for a build of an
    /// earlier master.
    pub session: Option<SessionId>,
    /// It has not begun, and whether the worker has it is not known.
    pub in_doubt: bool,
    /// Where its news go.
    pub door: BuildDoor,
}

/// The build ended; the worker is told so.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ForgetBuild {
    /// Which.
    pub build: BuildId,
    /// The result's word, when the worker may hear it.
    pub result: Option<&'static str>,
}

/// A Ping waits for this token's pong.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RegisterPing {
    /// Which.
    pub token: PingToken,
    /// Over which connection.
    pub session: SessionId,
    /// Where the answer goes.
    pub pong: Recipient<Pong>,
    /// Where the loss of the connection goes.
    pub lost: Recipient<PingLost>,
}

/// A Ping waits no more.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ForgetPing(pub PingToken);

/// New settings.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ConfigureWorker {
    /// The worker's.
    pub config: WorkerConfig,
    /// The builders that list it, in order, with their folders.
    pub builders: Vec<(Arc<BuilderHandle>, String)>,
    /// Builders with a new actor.
    pub renewed: Arc<BTreeSet<BuilderName>>,
}

/// A person's order.
#[derive(Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct WorkerOrdered {
    /// What.
    pub order: WorkerOrder,
    /// For people.
    pub reason: String,
}

/// It is configured again, and this is its actor now: the builds that it still
/// has are made known there.
#[derive(Message)]
#[rtype(result = "()")]
pub struct YieldBuilds(pub Arc<WorkerHandle>);

/// The worker's former actor has these instances, and leaves them to this one.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TakeInstances {
    /// All of them.
    pub known: Vec<Known>,
    /// The settings that they were made with.
    pub made_with: WorkerConfig,
}

/// It is no longer configured.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RetireWorker;

/// All that others tell a worker's actor without waiting.
pub trait WorkerDoor:
    Tells<AskSlot>
    + Tells<WantInstance>
    + Tells<GiveBackSlot>
    + Tells<KeepSlots>
    + Tells<RegisterSeat>
    + Tells<RegisterStart>
    + Tells<RegisterBuild>
    + Tells<ForgetBuild>
    + Tells<TakeInstances>
    + Tells<RegisterPing>
    + Tells<ForgetPing>
    + Tells<Hello>
    + Tells<ConnectionLost>
{
}

impl<T> WorkerDoor for T where
    T: Tells<AskSlot>
        + Tells<WantInstance>
        + Tells<GiveBackSlot>
        + Tells<KeepSlots>
        + Tells<RegisterSeat>
        + Tells<RegisterStart>
        + Tells<RegisterBuild>
        + Tells<ForgetBuild>
        + Tells<TakeInstances>
        + Tells<RegisterPing>
        + Tells<ForgetPing>
        + Tells<Hello>
        + Tells<ConnectionLost>
{
}

/// The door to a worker's actor for other actors.
#[derive(Clone)]
pub struct WorkerHandle {
    /// Its name.
    pub name: WorkerName,
    /// Its id.
    pub id: WorkerId,
    /// For [`FrameArrived`], which the connection's reader waits for.
    pub frame: Recipient<FrameArrived>,
    door: Arc<dyn WorkerDoor>,
}

impl WorkerHandle {
    /// The door to `addr`.
    #[must_use]
    pub fn new<A>(name: WorkerName, id: WorkerId, addr: &Addr<A>) -> Self
    where
        A: Takes<FrameArrived>,
        Addr<A>: WorkerDoor + 'static,
    {
        Self { name, id, frame: Takes::door(addr), door: Arc::new(addr.clone()) }
    }

    /// Tells the actor something, without waiting.
    pub fn tell<M>(&self, message: M)
    where
        dyn WorkerDoor: Tells<M>,
    {
        Tells::tell(&*self.door, message);
    }
}
