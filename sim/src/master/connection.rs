//! The shell of a worker's connection, after `actors/worker_connection.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;

use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;
use botmaster::protocol::json_v1::{MasterFrame, WorkerFrame};

use crate::bus::{Addr, Bus, LogAsk};
use crate::message::*;
use crate::watch::Seen;

/// Silence of this many heartbeats ends a connection.
const DEAD_AFTER: u32 = 3;

/// Where the text of commands goes, as `messages::LogRoutes`: looked at by the
/// reader, so that text never passes a mailbox.
#[derive(Default)]
pub struct Routes {
    routes: BTreeMap<SessionId, BTreeMap<CommandId, (BuildId, LogId)>>,
    /// When text of a command came last.
    wrote: BTreeMap<(SessionId, CommandId), Timestamp>,
}

impl Routes {
    /// From now on this command's text goes there.
    pub fn open(&mut self, session: SessionId, command: CommandId, build: BuildId, log: LogId) {
        self.routes.entry(session).or_default().insert(command, (build, log));
    }

    /// This command writes no more.
    pub fn close(&mut self, session: SessionId, command: &CommandId) {
        if let Some(routes) = self.routes.get_mut(&session) {
            routes.remove(command);
        }
        self.wrote.remove(&(session, command.clone()));
    }

    /// Text of this command came.
    pub fn comes(&mut self, session: SessionId, command: &CommandId, now: Timestamp) {
        self.wrote.insert((session, command.clone()), now);
    }

    /// When text of this command came last.
    pub fn wrote(&self, session: SessionId, command: &CommandId) -> Option<Timestamp> {
        self.wrote.get(&(session, command.clone())).copied()
    }

    /// Where this command's text goes.
    pub fn find(&self, session: SessionId, command: &CommandId) -> Option<(BuildId, LogId)> {
        self.routes.get(&session)?.get(command).copied()
    }

    /// Whose log this is.
    pub fn command_of(&self, session: SessionId, log: LogId) -> Option<(CommandId, BuildId)> {
        let routes = self.routes.get(&session)?;
        let found = routes.iter().find(|(_, (_, theirs))| *theirs == log);
        found.map(|(command, (build, _))| (command.clone(), *build))
    }

    /// The connection is gone.
    pub fn forget(&mut self, session: SessionId) {
        self.routes.remove(&session);
        self.wrote.retain(|(theirs, _), _| *theirs != session);
    }
}

/// One accepted socket.
pub struct Connection {
    me: Addr,
    bus: Rc<Bus>,
    master: Addr,
    routes: Rc<std::cell::RefCell<Routes>>,
    /// Which.
    pub session: SessionId,
    worker: Option<Rc<WorkerDoor>>,
    asked: bool,
    /// What came before the master had answered.
    waiting: Vec<WorkerFrame>,
}

impl Connection {
    /// A new one.
    pub fn new(
        me: Addr,
        bus: &Rc<Bus>,
        master: Addr,
        routes: &Rc<std::cell::RefCell<Routes>>,
        session: SessionId,
    ) -> Self {
        Self {
            me,
            bus: bus.clone(),
            master,
            routes: routes.clone(),
            session,
            worker: None,
            asked: false,
            waiting: Vec::new(),
        }
    }

    fn reject(&self, code: &str, message: &str, retry_after_s: Option<u64>) {
        let frame =
            MasterFrame::Rejected { code: code.into(), message: message.into(), retry_after_s };
        self.bus.frame(self.session, frame);
        self.bus.close(self.session, message);
    }

    fn arrived(&mut self, frame: Box<WorkerFrame>) {
        if let Some(worker) = &self.worker {
            if let WorkerFrame::Log(data) = &*frame {
                let found = self.routes.borrow().find(self.session, &data.command);
                if let Some((build, log)) = found.filter(|(build, _)| *build == data.build) {
                    let _ = build;
                    let now = self.bus.now().mono;
                    self.routes.borrow_mut().comes(self.session, &data.command, now);
                    let bytes = data.clone().into_bytes().unwrap_or_default().to_vec();
                    self.bus.log(LogAsk::Append {
                        log,
                        offset: Some(data.offset),
                        bytes,
                        confirm: Some(self.session),
                    });
                    return;
                }
            }
            self.bus.send(worker.addr, Msg::FrameArrived { session: self.session, frame });
            return;
        }
        if self.asked {
            self.waiting.push(*frame);
            return;
        }
        match *frame {
            WorkerFrame::Attach(attach) => {
                self.asked = true;
                self.bus.send(self.master, Msg::Introduce(Box::new(attach), self.me));
            }
            _ => self.reject("auth", "the first frame must be `attach`", None),
        }
    }

    /// Takes in one message.
    pub fn handle(&mut self, msg: Msg) {
        match msg {
            Msg::Started => {
                self.bus.heard(self.session);
                self.bus.later(self.me, self.bus.timers.handshake, Msg::Handshake);
                self.bus.later(self.me, self.bus.timers.heartbeat, Msg::Silence);
            }
            Msg::Handshake => {
                if self.worker.is_none() {
                    self.reject("auth", "no attach frame in time", Some(30));
                }
            }
            Msg::Silence => {
                let heartbeat = self.bus.timers.heartbeat;
                let silent = self.bus.now().mono.since(self.bus.last_heard(self.session));
                let beat = self.bus.beat(self.session).unwrap_or(heartbeat);
                if silent >= beat * DEAD_AFTER {
                    self.bus.close(self.session, "nothing was heard of it");
                }
                self.bus.later(self.me, heartbeat, Msg::Silence);
            }
            Msg::Arrived(frame) => self.arrived(frame),
            Msg::Introduced(Some((door, attach))) => {
                let (slots, instance) = (attach.slots, attach.instance);
                self.bus.send(door.addr, Msg::Hello { session: self.session, slots, instance });
                self.worker = Some(door);
                for frame in std::mem::take(&mut self.waiting) {
                    self.arrived(Box::new(frame));
                }
            }
            Msg::Introduced(None) => {
                self.reject("auth", "unknown worker name or wrong token", None);
            }
            Msg::Ended => {
                if let Some(worker) = &self.worker {
                    self.bus.send(worker.addr, Msg::ConnectionLost { session: self.session });
                }
                self.bus.gone(self.session);
                self.routes.borrow_mut().forget(self.session);
                self.bus.see(Seen::ConnectionOver(self.session));
                self.bus.stop(self.me);
            }
            other => panic!("a connection was told {}", other.word()),
        }
    }
}
