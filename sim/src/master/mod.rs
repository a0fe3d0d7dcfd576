//! One master process: its actors, their mailboxes, their supervision.

mod bot_master;
mod build;
mod builder;
mod builder_effects;
mod builder_rebuild;
mod builder_takeover;
mod connection;
mod seat;
mod worker;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use botmaster::core::ids::SessionId;

use crate::bus::{Addr, Bus, Planned, Supervision};
use crate::message::Msg;

pub use bot_master::{BotMaster, declare, declared};
pub use build::Build;
pub use builder::Builder;
pub use builder_rebuild::Loader;
pub use connection::{Connection, Routes};
pub use seat::{Ping, Seat};
pub use worker::Worker;

/// An actor of any kind.
pub enum Actor {
    /// The supervisor.
    BotMaster(Box<BotMaster>),
    /// A builder.
    Builder(Box<Builder>),
    /// The task that loads a builder's records.
    Loader(Loader),
    /// A SlaveBuilder.
    Seat(Seat),
    /// A ping exchange.
    Ping(Ping),
    /// A worker as the master knows it.
    Worker(Box<Worker>),
    /// A build.
    Build(Box<Build>),
    /// A connection.
    Connection(Connection),
}

impl Actor {
    fn handle(&mut self, msg: Msg) {
        match self {
            Self::BotMaster(it) => it.handle(msg),
            Self::Builder(it) => it.handle(msg),
            Self::Loader(it) => it.handle(msg),
            Self::Seat(it) => it.handle(msg),
            Self::Ping(it) => it.handle(msg),
            Self::Worker(it) => it.handle(msg),
            Self::Build(it) => it.handle(msg),
            Self::Connection(it) => it.handle(msg),
        }
    }

    fn restarting(&mut self) {
        match self {
            Self::Builder(it) => it.restarting(),
            Self::Seat(it) => it.restarting(),
            Self::Worker(it) => it.restarting(),
            Self::Build(it) => it.restarting(),
            Self::BotMaster(_) | Self::Loader(_) | Self::Ping(_) | Self::Connection(_) => {}
        }
    }

    fn stopped(&mut self) {
        if let Self::Worker(it) = self {
            it.stopped();
        }
    }

    /// Its kind, for the trace.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BotMaster(_) => "master",
            Self::Builder(_) => "builder",
            Self::Loader(_) => "loader",
            Self::Seat(_) => "seat",
            Self::Ping(_) => "ping",
            Self::Worker(_) => "worker",
            Self::Build(_) => "build",
            Self::Connection(_) => "connection",
        }
    }

    /// Whether the seed may make it panic.
    pub fn is_supervised(&self) -> bool {
        matches!(self, Self::Builder(_) | Self::Seat(_) | Self::Worker(_) | Self::Build(_))
    }
}

struct Cell {
    actor: Box<Actor>,
    mailbox: VecDeque<Msg>,
    supervision: Supervision,
}

/// What became of a message.
pub enum Handled {
    /// It was handled by an actor of this kind.
    By(&'static str, &'static str),
    /// The actor panicked as asked for, and whether it was started again.
    Panicked(&'static str, bool),
    /// The actor panicked by itself: a finding.
    Broke(String),
    /// Nobody was there.
    Nobody,
}

/// One master process.
pub struct Master {
    /// Its bus.
    pub bus: Rc<Bus>,
    /// Where text goes.
    pub routes: Rc<RefCell<Routes>>,
    cells: BTreeMap<Addr, Cell>,
    /// The BotMaster.
    pub root: Addr,
    /// The actor of each connection.
    pub connections: BTreeMap<SessionId, Addr>,
}

impl Master {
    /// A process without its BotMaster yet.
    pub fn new(bus: Rc<Bus>) -> Self {
        Self {
            bus,
            routes: Rc::default(),
            cells: BTreeMap::new(),
            root: Addr(0),
            connections: BTreeMap::new(),
        }
    }

    /// Takes in a new actor.
    pub fn add(&mut self, addr: Addr, actor: Box<Actor>, supervision: Supervision) {
        self.cells.insert(addr, Cell { actor, mailbox: VecDeque::new(), supervision });
    }

    /// Puts a message in a mailbox; the world says when it is read. Mail for
    /// nobody is dropped, and with it what it promises.
    pub fn post(&mut self, to: Addr, msg: Msg) -> bool {
        match self.cells.get_mut(&to) {
            Some(cell) => {
                cell.mailbox.push_back(msg);
                true
            }
            None => false,
        }
    }

    /// An actor has said that it stops.
    pub fn stop(&mut self, addr: Addr) {
        self.bus.is_over(addr);
        if let Some(mut cell) = self.cells.remove(&addr) {
            cell.actor.stopped();
            drop(cell);
        }
    }

    /// The actor at an address.
    pub fn actor(&self, addr: Addr) -> Option<&Actor> {
        self.cells.get(&addr).map(|cell| &*cell.actor)
    }

    /// All actors.
    pub fn actors(&self) -> impl Iterator<Item = (Addr, &Actor)> {
        self.cells.iter().map(|(addr, cell)| (*addr, &*cell.actor))
    }

    /// Mail that waits to be read.
    pub fn waiting(&self) -> usize {
        self.cells.values().map(|cell| cell.mailbox.len()).sum()
    }

    /// The BotMaster.
    pub fn bot_master(&self) -> Option<&BotMaster> {
        match self.actor(self.root) {
            Some(Actor::BotMaster(it)) => Some(it),
            _ => None,
        }
    }

    /// The next message of one mailbox is handled.
    pub fn deliver(&mut self, to: Addr, panics: bool) -> Handled {
        let Some(cell) = self.cells.get_mut(&to) else { return Handled::Nobody };
        let Some(msg) = cell.mailbox.pop_front() else { return Handled::Nobody };
        let (kind, word) = (cell.actor.kind(), msg.word());
        self.bus.arm(panics && cell.actor.is_supervised());
        let handled = catch_unwind(AssertUnwindSafe(|| cell.actor.handle(msg)));
        let fired = self.bus.fired.get();
        self.bus.arm(false);
        let Err(payload) = handled else { return Handled::By(kind, word) };
        if !fired || !payload.is::<Planned>() {
            let text = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            return Handled::Broke(format!("{kind} panicked at {word}: {text}"));
        }
        let supervision = &mut cell.supervision;
        let now = self.bus.now().mono;
        let again = supervision.may_restart.get() && supervision.policy.allows(now);
        if let Some(parent) = supervision.parent {
            let (child, gave_up) = (supervision.child, !again);
            self.bus.send(parent, Msg::ChildDown { addr: to, child, gave_up });
        }
        if again {
            cell.actor.restarting();
            // actix calls `started` again after `restarting`.
            cell.mailbox.push_front(Msg::Started);
        } else {
            self.stop(to);
        }
        Handled::Panicked(kind, again)
    }
}
