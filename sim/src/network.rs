//! The network between a master and the machines of its workers.
//!
//! A direction keeps its order, as TCP does. It may be blocked: what is sent
//! then waits and comes later, if the connection still stands. A side that is
//! gone without a word (power) is noticed only by silence, or when the other
//! side speaks to a host that is there again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use botmaster::core::ids::SessionId;
use botmaster::core::rng::Rng;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::{MasterFrame, WorkerFrame};

use crate::setup::between;

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    /// To the master.
    Up,
    /// To the worker.
    Down,
}

/// What travels.
#[derive(Debug)]
pub enum Parcel {
    /// A worker's frame.
    FromWorker(Box<WorkerFrame>),
    /// A master's frame.
    FromMaster(Box<MasterFrame>),
    /// The end of the stream.
    End,
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    /// Which machine.
    pub machine: usize,
    /// The machine's number for it.
    pub link: u64,
    /// The master's number for it, in this life of the master.
    pub session: SessionId,
    /// Which life.
    pub life: u64,
    /// The worker's socket is open.
    pub worker_open: bool,
    /// The master's socket is open.
    pub master_open: bool,
    last: BTreeMap<Way, Timestamp>,
    held: BTreeMap<Way, VecDeque<Parcel>>,
}

/// All connections.
#[derive(Default)]
pub struct Network {
    conns: BTreeMap<u64, Conn>,
    next: u64,
    blocked: BTreeMap<(usize, Way), Timestamp>,
    /// Added to each latency, in milliseconds.
    pub slow: u64,
}

impl Network {
    /// A new connection.
    pub fn open(&mut self, machine: usize, link: u64, session: SessionId, life: u64) -> u64 {
        self.next += 1;
        self.conns.insert(
            self.next,
            Conn {
                machine,
                link,
                session,
                life,
                worker_open: true,
                master_open: true,
                last: BTreeMap::new(),
                held: BTreeMap::new(),
            },
        );
        self.next
    }

    /// One connection.
    pub fn get(&mut self, id: u64) -> Option<&mut Conn> {
        self.conns.get_mut(&id)
    }

    /// The connection of a master's session.
    pub fn of_session(&self, life: u64, session: SessionId) -> Option<u64> {
        let mut conns = self.conns.iter().rev();
        conns.find(|(_, c)| c.life == life && c.session == session).map(|(id, _)| *id)
    }

    /// The connection of a machine's link.
    pub fn of_link(&self, machine: usize, link: u64) -> Option<u64> {
        let mut conns = self.conns.iter().rev();
        conns.find(|(_, c)| c.machine == machine && c.link == link).map(|(id, _)| *id)
    }

    /// Connections of a machine whose worker's side stands.
    pub fn of_machine(&self, machine: usize) -> Vec<u64> {
        let mine = self.conns.iter().filter(|(_, c)| c.machine == machine && c.worker_open);
        mine.map(|(id, _)| *id).collect()
    }

    /// All connections whose master's side stands.
    pub fn of_master(&self) -> Vec<u64> {
        self.conns.iter().filter(|(_, c)| c.master_open).map(|(id, _)| *id).collect()
    }

    /// Forgets a connection that is closed on both sides.
    pub fn tidy(&mut self) {
        self.conns.retain(|_, conn| conn.worker_open || conn.master_open);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Nothing gets through this way until then.
    pub fn block(&mut self, machine: usize, way: Way, until: Timestamp) {
        let known = self.blocked.entry((machine, way)).or_insert(until);
        *known = (*known).max(until);
    }

    /// Whether nothing gets through.
    pub fn is_blocked(&self, machine: usize, way: Way, now: Timestamp) -> bool {
        self.blocked.get(&(machine, way)).is_some_and(|until| *until > now)
    }

    /// Everything gets through again.
    pub fn heal(&mut self) {
        self.blocked.clear();
        self.slow = 0;
    }

    /// When a parcel that is sent now arrives, were nothing blocked.
    pub fn arrival(&mut self, rng: &mut Rng, id: u64, way: Way, now: Timestamp) -> Timestamp {
        let latency =
            Duration::from_micros(between(rng, 50, 3_000)) + Duration::from_millis(self.slow);
        let Some(conn) = self.conns.get_mut(&id) else { return now + latency };
        let last = conn.last.entry(way).or_default();
        *last = (now + latency).max(*last + Duration::from_micros(1));
        *last
    }

    /// A parcel arrives: it is given back, unless the way is blocked or others
    /// wait before it.
    pub fn arrive(&mut self, id: u64, way: Way, parcel: Parcel, now: Timestamp) -> Option<Parcel> {
        let conn = self.conns.get_mut(&id)?;
        let blocked = self.blocked.get(&(conn.machine, way)).is_some_and(|until| *until > now);
        let held = conn.held.entry(way).or_default();
        if blocked || !held.is_empty() {
            held.push_back(parcel);
            return None;
        }
        Some(parcel)
    }

    /// What has waited on a way that is free again, in order.
    pub fn release(&mut self, machine: usize, way: Way, now: Timestamp) -> Vec<(u64, Parcel)> {
        if self.is_blocked(machine, way, now) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for (id, conn) in self.conns.iter_mut().filter(|(_, conn)| conn.machine == machine) {
            for parcel in conn.held.remove(&way).unwrap_or_default() {
                all.push((*id, parcel));
            }
        }
        all
    }
}
