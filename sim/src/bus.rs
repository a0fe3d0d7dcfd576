//! What holds one master together: mail between its actors, timers, and the
//! ways out to store, logs, network and clients.
//!
//! Actors only push here; the world takes what was pushed after each message
//! and decides when it arrives. A mailbox keeps its order, as actix's do; which
//! of several mailboxes is read next is for the seed to say.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use botmaster::core::bot_master::RestartPolicy;
use botmaster::core::ids::*;
use botmaster::core::lease::BootTime;
use botmaster::core::time::{Now, Timestamp};
use botmaster::core::views::BuilderView;
use botmaster::protocol::json_v1::MasterFrame;
use botmaster::store::{BuilderRecords, StoreError, Transaction, Written};

use crate::master::Actor;
use crate::message::{Answer, Msg};
use crate::setup::Timers;
use crate::watch::Seen;

/// Names an actor for as long as its master lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Addr(pub u64);

/// Called when the store has answered a write.
pub type OnWritten = Box<dyn FnOnce(Written)>;
/// Called when the store has answered a load.
pub type OnLoaded = Box<dyn FnOnce(Result<BuilderRecords, StoreError>)>;
/// Called when the log store has answered a close.
pub type OnClosed = Box<dyn FnOnce(Result<botmaster::store::logs::LogClosed, StoreError>)>;
/// Called when the log store has answered a reopen.
pub type OnReopened = Box<dyn FnOnce(Result<u64, StoreError>)>;

/// Something asked of the state store.
pub enum StoreAsk {
    /// Write, then call.
    Write(Transaction, OnWritten),
    /// Read a builder after all writes asked for before.
    Load(BuilderId, OnLoaded),
}

/// Something asked of the log store.
pub enum LogAsk {
    /// A new log.
    Open(LogId),
    /// A log of before; answered with the worker's bytes that are stored.
    Reopen(LogId, OnReopened),
    /// A piece: place among the worker's bytes, or none for the master's own.
    Append { log: LogId, offset: Option<u64>, bytes: Vec<u8>, confirm: Option<SessionId> },
    /// No more comes.
    Close(LogId, Option<u64>, OnClosed),
    /// Nobody will close it.
    Forget(LogId),
}

/// What leaves a master.
#[derive(Default)]
pub struct Out {
    /// Mail, in the order in which it was sent.
    pub mail: Vec<(Addr, Msg)>,
    /// Timers.
    pub timers: Vec<(Timestamp, Addr, Msg)>,
    /// Asks to the state store.
    pub store: Vec<StoreAsk>,
    /// Asks to the log store.
    pub logs: Vec<LogAsk>,
    /// Frames and ends of connections, in order.
    pub wire: Vec<(SessionId, Wire)>,
    /// Answers to clients.
    pub answers: Vec<(u64, Answer)>,
    /// New actors, with who hears of their panics.
    pub spawned: Vec<(Addr, Box<Actor>, Supervision)>,
    /// Actors that have stopped.
    pub stopped: Vec<Addr>,
    /// What the invariants want to know.
    pub seen: Vec<Seen>,
}

/// Something for one connection.
pub enum Wire {
    /// A frame.
    Frame(Box<MasterFrame>),
    /// The end, with the reason.
    Close(String),
}

/// Who hears of an actor's panics, and whether it may come back.
pub struct Supervision {
    /// As its parent numbered it.
    pub child: u64,
    /// Its parent.
    pub parent: Option<Addr>,
    /// Its history.
    pub policy: RestartPolicy,
    /// A successor that has not taken over must not come back.
    pub may_restart: Rc<Cell<bool>>,
}

impl Supervision {
    /// Under `parent`.
    pub fn under(parent: Addr, child: u64, may_restart: &Rc<Cell<bool>>) -> Self {
        Self {
            child,
            parent: Some(parent),
            policy: RestartPolicy::default(),
            may_restart: may_restart.clone(),
        }
    }

    /// Nobody hears of it.
    pub fn none() -> Self {
        Self {
            child: 0,
            parent: None,
            policy: RestartPolicy::default(),
            may_restart: Rc::new(Cell::new(false)),
        }
    }
}

/// The payload of a panic that the seed has asked for.
pub struct Planned;

/// One master's bus.
pub struct Bus {
    now: Cell<Now>,
    out: RefCell<Out>,
    next_addr: Cell<u64>,
    next_token: Cell<u64>,
    /// The process is dead: whatever is still said is said to nobody.
    dead: Cell<bool>,
    /// The message being handled panics at its first point.
    armed: Cell<bool>,
    /// It did.
    pub fired: Cell<bool>,
    /// Which run of its machine this is.
    boot: u64,
    /// Timers and limits.
    pub timers: Timers,
    /// When each connection was heard last.
    heard: RefCell<BTreeMap<SessionId, Timestamp>>,
    /// How often each connection's heartbeats come.
    beats: RefCell<BTreeMap<SessionId, Duration>>,
    /// Connections that this side has closed.
    closed: RefCell<BTreeMap<SessionId, String>>,
    /// What people see of the builders.
    pub board: RefCell<BTreeMap<BuilderName, BuilderView>>,
    /// Actors that live.
    alive: RefCell<BTreeSet<Addr>>,
}

impl Bus {
    /// A bus of a master that starts at `now`.
    pub fn new(now: Now, timers: Timers, boot: u64) -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(now),
            out: RefCell::default(),
            next_addr: Cell::new(1),
            next_token: Cell::new(1),
            dead: Cell::new(false),
            armed: Cell::new(false),
            fired: Cell::new(false),
            boot,
            timers,
            heard: RefCell::default(),
            beats: RefCell::default(),
            closed: RefCell::default(),
            board: RefCell::default(),
            alive: RefCell::default(),
        })
    }

    /// The present.
    pub fn now(&self) -> Now {
        self.now.get()
    }

    /// Now, as it can be told to a later process, as `Clock::boot_time`.
    pub fn boot_time(&self) -> BootTime {
        let at = Duration::from_micros(self.now().mono.0);
        BootTime { boot: self.boot.to_string(), at }
    }

    /// Time goes on.
    pub fn set_now(&self, now: Now) {
        self.now.set(now);
    }

    /// Nothing is said any more.
    pub fn kill(&self) {
        self.dead.set(true);
    }

    fn push(&self, push: impl FnOnce(&mut Out)) {
        if !self.dead.get() {
            push(&mut self.out.borrow_mut());
        }
    }

    /// Takes what was pushed.
    pub fn take(&self) -> Out {
        std::mem::take(&mut self.out.borrow_mut())
    }

    /// Whether the process is dead.
    pub fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// Sends mail.
    pub fn send(&self, to: Addr, msg: Msg) {
        self.push(|out| out.mail.push((to, msg)));
    }

    /// Sends mail later.
    pub fn later(&self, to: Addr, after: Duration, msg: Msg) {
        let at = self.now.get().mono + after;
        self.push(|out| out.timers.push((at, to, msg)));
    }

    /// Starts an actor.
    pub fn spawn(&self, make: impl FnOnce(Addr) -> Actor, supervision: Supervision) -> Addr {
        let addr = Addr(self.next_addr.get());
        self.next_addr.set(addr.0 + 1);
        self.alive.borrow_mut().insert(addr);
        let actor = Box::new(make(addr));
        self.push(|out| {
            out.spawned.push((addr, actor, supervision));
        });
        addr
    }

    /// Whether an actor lives: as `Addr::connected`.
    pub fn is_alive(&self, addr: Addr) -> bool {
        self.alive.borrow().contains(&addr)
    }

    /// The actor is gone.
    pub fn is_over(&self, addr: Addr) {
        self.alive.borrow_mut().remove(&addr);
    }

    /// The actor stops.
    pub fn stop(&self, me: Addr) {
        self.push(|out| out.stopped.push(me));
    }

    /// Asks the state store to write.
    pub fn write(&self, transaction: Transaction, done: OnWritten) {
        self.push(|out| out.store.push(StoreAsk::Write(transaction, done)));
    }

    /// Asks the state store for a builder.
    pub fn load(&self, builder: BuilderId, done: OnLoaded) {
        self.push(|out| out.store.push(StoreAsk::Load(builder, done)));
    }

    /// Asks the log store.
    pub fn log(&self, ask: LogAsk) {
        self.push(|out| out.logs.push(ask));
    }

    /// Sends a frame. False when the connection is closed.
    pub fn frame(&self, session: SessionId, frame: MasterFrame) -> bool {
        let open = !self.closed.borrow().contains_key(&session);
        if open {
            self.push(|out| out.wire.push((session, Wire::Frame(Box::new(frame)))));
        }
        open
    }

    /// Drops a connection.
    pub fn close(&self, session: SessionId, reason: &str) {
        if let std::collections::btree_map::Entry::Vacant(entry) =
            self.closed.borrow_mut().entry(session)
        {
            entry.insert(reason.to_owned());
            self.push(|out| out.wire.push((session, Wire::Close(reason.to_owned()))));
        }
    }

    /// The connection is gone, from whichever side.
    pub fn gone(&self, session: SessionId) {
        self.closed.borrow_mut().entry(session).or_insert_with(|| "gone".into());
        self.heard.borrow_mut().remove(&session);
        self.beats.borrow_mut().remove(&session);
    }

    /// Bytes arrived.
    pub fn heard(&self, session: SessionId) {
        self.heard.borrow_mut().insert(session, self.now.get().mono);
    }

    /// How often the worker's heartbeats come from now on.
    pub fn beats(&self, session: SessionId, every: Duration) {
        self.beats.borrow_mut().insert(session, every);
    }

    /// How often they come, once that is known.
    pub fn beat(&self, session: SessionId) -> Option<Duration> {
        self.beats.borrow().get(&session).copied()
    }

    /// When bytes arrived last.
    pub fn last_heard(&self, session: SessionId) -> Timestamp {
        self.heard.borrow().get(&session).copied().unwrap_or_default()
    }

    /// Answers a client.
    pub fn answer(&self, client: u64, answer: Answer) {
        self.push(|out| out.answers.push((client, answer)));
    }

    /// Tells the invariants.
    pub fn see(&self, seen: Seen) {
        self.push(|out| out.seen.push(seen));
    }

    /// A token that no other ping of this master has.
    pub fn next_token(&self) -> u64 {
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        token
    }

    /// The next point panics.
    pub fn arm(&self, armed: bool) {
        self.armed.set(armed);
        self.fired.set(false);
    }

    /// A place at which the seed may make an actor panic, as `faults::point`.
    pub fn point(&self) {
        if self.armed.get() {
            self.armed.set(false);
            self.fired.set(true);
            std::panic::resume_unwind(Box::new(Planned));
        }
    }
}

/// One timer for an actor, armed for its core's next deadline.
#[derive(Default)]
pub struct Alarm {
    armed: Option<Timestamp>,
    number: u64,
}

impl Alarm {
    /// Arms it for `at`, or disarms it.
    pub fn set(&mut self, bus: &Bus, me: Addr, at: Option<Timestamp>) {
        if self.armed == at {
            return;
        }
        self.armed = at;
        self.number += 1;
        if let Some(at) = at {
            // A little late rather than early, as the real one.
            let wait = at.since(bus.now().mono) + Duration::from_millis(1);
            bus.later(me, wait, Msg::Alarm(self.number));
        }
    }

    /// Whether this ring is the present one; it has rung then.
    pub fn rings(&mut self, number: u64) -> bool {
        let now = self.number == number && self.armed.is_some();
        if now {
            self.armed = None;
        }
        now
    }

    /// It rang.
    pub fn rang(&mut self) {
        self.armed = None;
        self.number += 1;
    }
}
