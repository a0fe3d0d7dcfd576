//! What the shells tell the invariants while they work.

use std::collections::BTreeSet;

use botmaster::core::ids::*;

use crate::bus::Addr;

/// Something that an invariant wants to know.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A piece of mail was sent to whoever is in charge of a builder.
    MailSent { route: u64, sender: u64, seq: u64 },
    /// One was read.
    MailRead { route: u64, sender: u64 },
    /// A ping went out.
    PingSent { session: SessionId, token: PingToken },
    /// It was answered.
    Pong { session: SessionId, token: PingToken },
    /// A start went out.
    StartSent { session: SessionId, build: BuildId },
    /// A worker is told that it is attached.
    AttachedSent { worker: WorkerId, session: SessionId, incarnation: Incarnation },
    /// A worker came back with a build that is its own.
    Adopted,
    /// A worker gave a slot.
    SlotGranted {
        worker: WorkerId,
        builder: BuilderName,
        claim: ClaimId,
        incarnation: Incarnation,
        limit: u32,
    },
    /// Of a builder's slots only these are in use.
    SlotsKept { worker: WorkerId, builder: BuilderName, claims: BTreeSet<ClaimId> },
    /// It has it back.
    SlotBack { claim: ClaimId },
    /// Something stale was ignored.
    Ignored(&'static str),
    /// A worker complains of what it was sent.
    WorkerComplains(String),
    /// A connection proved itself; `over` another one that still stood.
    Hello { actor: Addr, worker: WorkerId, session: SessionId, over: bool },
    /// A frame was taken in as the worker's.
    FrameTaken { actor: Addr, session: SessionId },
    /// A worker is told that a build's end is durable.
    FinishedSent { build: BuildId },
    /// The store said that a build is not ours.
    Disowned { build: BuildId },
    /// A command's text goes to this log.
    LogOf { log: LogId, command: CommandId },
    /// A connection has ended at the master's side.
    ConnectionOver(SessionId),
    /// A note about a worker.
    WorkerNote { worker: WorkerName, text: String, bad: bool },
    /// Something that should not be.
    Oddity(&'static str),
    /// A successor is in charge.
    TakenOver { running: bool },
    /// A reload is carried out; these builders must not notice.
    Reloading { unchanged: Vec<(BuilderId, Addr)> },
}
