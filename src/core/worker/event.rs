//! What a worker's actor hears, and what it wants done.

use std::collections::BTreeSet;

use crate::core::ids::*;
use crate::core::instance::{self, Known};
use crate::core::values::WorkerConfig;

/// One build of a worker's inventory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brought {
    /// Which.
    pub build: BuildId,
    /// Its builder, as the worker says.
    pub builder: BuilderName,
    /// Its command, when there is one.
    pub command: Option<CommandId>,
    /// The processes are gone without a result.
    pub lost: bool,
}

/// What a worker's actor hears.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A connection proved itself.
    Hello {
        /// Which.
        session: SessionId,
        /// How many builds it offers to run.
        slots: u32,
        /// Which program it is: another one after each start.
        instance: String,
        /// Where it comes from, for people.
        address: String,
    },
    /// The store gave the connection its incarnation.
    AttachStored {
        /// Which.
        session: SessionId,
        /// Its number.
        incarnation: Incarnation,
    },
    /// The store could not.
    AttachRefused {
        /// Which.
        session: SessionId,
        /// Why.
        error: String,
    },
    /// A part of the inventory.
    Inventory {
        /// Which connection.
        session: SessionId,
        /// Builds in the worker's journals.
        builds: Vec<Brought>,
        /// Another part follows.
        more: bool,
    },
    /// The worker is ready for a builder, or is not.
    BuilderAnswer {
        /// Which connection.
        session: SessionId,
        /// Which builder.
        builder: BuilderName,
        /// Why not.
        error: Option<String>,
    },
    /// A SlaveBuilder waits for its builder's answer.
    SeatRegistered {
        /// Its connection.
        session: SessionId,
        /// Its builder.
        builder: BuilderName,
    },
    /// A connection ended.
    ConnectionLost {
        /// Which.
        session: SessionId,
    },
    /// A builder asks for a slot.
    AskSlot {
        /// Who.
        builder: BuilderName,
        /// For whom.
        claim: ClaimId,
    },
    /// A slot is free again. A second time it frees nothing.
    GiveBackSlot {
        /// Who had it. It has to be told when it may try again, as those that
        /// were refused: the oldest request goes first (row B32).
        builder: BuilderName,
        /// Whose it was.
        claim: ClaimId,
    },
    /// Of a builder's slots only these are in use (after its restart).
    KeepSlots {
        /// Which builder.
        builder: BuilderName,
        /// In use.
        claims: BTreeSet<ClaimId>,
    },
    /// A Build lives for this build.
    BuildRegistered {
        /// Which.
        build: BuildId,
        /// Its claim: it has a slot.
        claim: ClaimId,
        /// Its builder.
        builder: BuilderName,
        /// The connection over which it was started; none for a build of an
        /// earlier master.
        session: Option<SessionId>,
    },
    /// A Build lives for a claim that an earlier builder, or an earlier master,
    /// may have sent to the worker (fault row FB02).
    ClaimRegistered {
        /// Which.
        build: BuildId,
        /// Its claim: it has a slot.
        claim: ClaimId,
        /// Its builder.
        builder: BuilderName,
    },
    /// A builder is broken: only its running builds keep their slots.
    BuilderBroken(BuilderName),
    /// The build ended.
    BuildForgotten {
        /// Which.
        build: BuildId,
    },
    /// A build was lost with this worker and is queued again. Its end is told
    /// besides.
    BuildLost {
        /// Which.
        build: BuildId,
    },
    /// The worker ended a build that it was told to abandon.
    Abandoned {
        /// Which.
        build: BuildId,
    },
    /// A person's order: no more starts, or starts again. It counts once it is
    /// stored.
    Pause {
        /// Which of them.
        paused: bool,
        /// For people.
        reason: Option<String>,
    },
    /// It is stored.
    PauseStored {
        /// Which of them.
        paused: bool,
    },
    /// Leave once the builds have ended; with the end of the program. It counts
    /// once it is stored.
    Leave {
        /// End the program, too.
        shutdown: bool,
        /// For people.
        reason: String,
    },
    /// It is stored.
    LeaveStored {
        /// End the program, too.
        shutdown: bool,
        /// For people.
        reason: String,
    },
    /// The worker says that it leaves by itself.
    Draining,
    /// New settings.
    Configure {
        /// The worker's.
        config: WorkerConfig,
        /// The builders that list it, in order, with their folders.
        builders: Vec<(BuilderName, String)>,
        /// Those of them with a new Builder actor, which knows no worker that
        /// was still attaching.
        renewed: BTreeSet<BuilderName>,
    },
    /// It is no longer configured: it goes when its builds have ended.
    Retire,
    /// It is configured again, and another actor is in charge of its name: the
    /// worker comes back to that one, so its builds must be known there.
    Yield,
    /// The worker's former actor says which instances it left.
    TakeInstances {
        /// All of them.
        known: Vec<Known>,
        /// The settings that they were made with.
        made_with: WorkerConfig,
    },
    /// A connection that is none of the present instance's (fault row FX04).
    Unexpected {
        /// Which.
        session: SessionId,
    },
    /// A build that has a slot reserved wants the instance to be there.
    Want {
        /// Whose build.
        builder: BuilderName,
        /// For whom.
        claim: ClaimId,
        /// For a new instance, should there be none.
        tag: InstanceTag,
    },
    /// News of a latent worker's instance.
    Instance(instance::Event),
    /// A deadline passed.
    DeadlineReached,
}

/// What a worker's actor wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Give the connection an incarnation.
    StoreAttach {
        /// Which.
        session: SessionId,
    },
    /// Note that the worker is away.
    StoreDetach {
        /// The incarnation that ended.
        incarnation: Incarnation,
    },
    /// Tell the worker that it is attached.
    SendAttached {
        /// Which connection.
        session: SessionId,
        /// Its number.
        incarnation: Incarnation,
    },
    /// Turn a connection away and close it.
    Reject {
        /// Which.
        session: SessionId,
        /// The wire's code.
        code: &'static str,
        /// For people.
        message: String,
        /// When to come again; none means never.
        retry_after_s: Option<u64>,
    },
    /// Send all builders that the worker serves.
    SendBuilders {
        /// In order, with their folders.
        list: Vec<(BuilderName, String)>,
    },
    /// Tell a builder that the worker is there (row B21).
    TellBuilder {
        /// Which.
        builder: BuilderName,
        /// The connection.
        session: SessionId,
    },
    /// Tell a SlaveBuilder its builder's answer.
    TellSeat {
        /// Whose.
        builder: BuilderName,
        /// Why not.
        error: Option<String>,
        /// The build that has the seat at once.
        building: Option<ClaimId>,
    },
    /// Tell all SlaveBuilders of a connection that it ended.
    TellSeatsDetached {
        /// Which.
        session: SessionId,
    },
    /// Tell a Build that its worker is away.
    TellBuildAway {
        /// Which.
        build: BuildId,
    },
    /// Tell a Build that its worker is back with it.
    TellBuildBack {
        /// Which.
        build: BuildId,
        /// The worker's new number.
        incarnation: Incarnation,
        /// What the worker said of it.
        brought: Brought,
    },
    /// Tell a Build that its worker came back without it (fault row FA17).
    TellBuildGone {
        /// Which.
        build: BuildId,
    },
    /// Tell the worker to end and forget a build.
    SendAbandon {
        /// Which.
        build: BuildId,
        /// Its command, when there is one.
        command: Option<CommandId>,
    },
    /// Answer a builder.
    Slot {
        /// Who asked.
        builder: BuilderName,
        /// For whom.
        claim: ClaimId,
        /// The incarnation that has the slot; none when refused.
        granted: Option<Incarnation>,
    },
    /// The build has a slot, and the worker is not there: it shall say that it
    /// wants it (row B14).
    SlotReserved {
        /// Who asked.
        builder: BuilderName,
        /// For whom.
        claim: ClaimId,
    },
    /// Tell a builder that a latent worker is one of its own (row B26).
    TellLatent {
        /// Which.
        builder: BuilderName,
    },
    /// Tell a builder that the worker is no latent one any more.
    TellNotLatent {
        /// Which.
        builder: BuilderName,
    },
    /// Tell a build that waits for the instance what the provider told of it.
    TellDetails {
        /// Which.
        claim: ClaimId,
        /// For people.
        details: String,
    },
    /// Tell a build that waits for the instance that it came to nothing.
    TellNoInstance {
        /// Which.
        claim: ClaimId,
        /// Why.
        error: String,
        /// Asking again is no use.
        permanent: bool,
    },
    /// Something about the instance: for the store and the provider.
    Instance(instance::Effect),
    /// There is room. These builders were refused since that was said last, and
    /// get in line behind those who were before (row B16).
    TryBuilders(Vec<BuilderName>),
    /// Keep paused or not; answered `PauseStored`, or not at all.
    StorePaused {
        /// Which of them.
        paused: bool,
        /// For people.
        reason: Option<String>,
    },
    /// Keep that it leaves; answered `LeaveStored`, or not at all.
    StoreLeave {
        /// End the program, too.
        shutdown: bool,
        /// For people.
        reason: String,
    },
    /// Keep that it stays.
    StoreStays,
    /// Tell the worker to leave once its builds have ended.
    SendLeave {
        /// End the program, too.
        shutdown: bool,
        /// For people.
        reason: String,
    },
    /// Close the connection.
    CloseConnection {
        /// Which.
        session: SessionId,
        /// For people.
        reason: &'static str,
    },
    /// Make a build known to the actor that is in charge of the name now.
    YieldBuild {
        /// Which.
        build: BuildId,
        /// Its claim.
        claim: ClaimId,
        /// Its builder.
        builder: BuilderName,
    },
    /// Tell the actor in charge which instances there are.
    YieldInstances(Vec<Known>),
    /// Something stale was ignored.
    Ignored(&'static str),
    /// A retired worker has nothing left to do.
    Over,
}
