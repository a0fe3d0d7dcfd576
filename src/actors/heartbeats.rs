//! The Heartbeats actor: one write a second for the heartbeats of all workers,
//! and their confirmation when the store has it.

use std::collections::BTreeMap;

use actix::{Actor, AsyncContext, Handler, Supervised};

use super::runtime::{Alarm, World};
use crate::actors::context::Context;
use crate::core::heartbeats::{Beat, Effect, Event, HeartbeatsCore};
use crate::core::ids::{PingToken, SessionId};
use crate::messages::{HeartbeatArrived, WorkerLink};
use crate::protocol::json_v1::MasterFrame;
use crate::store::{Op, Transaction};

/// A ping that nobody waits for: it says that the master is there.
pub(super) const HERE: PingToken = PingToken(0);

/// The heartbeats of all workers.
pub struct Heartbeats {
    world: World,
    core: HeartbeatsCore,
    /// Connections whose heartbeats wait or are being written.
    links: BTreeMap<SessionId, WorkerLink>,
    alarm: Alarm,
}

/// The store answered.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct BeatsWritten(bool);

impl Heartbeats {
    /// None has come yet.
    #[must_use]
    pub fn new(world: World) -> Self {
        let core = HeartbeatsCore::new(world.outage, world.timers.heartbeat);
        Self { world, core, links: BTreeMap::new(), alarm: Alarm::default() }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.handle(self.world.clock.now().mono, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Write(beats) => self.write(&beats, ctx),
                Effect::Confirm(beats) => self.confirm(&beats),
                Effect::NotStored(count) => {
                    self.world.ignored("heartbeats that the store could not keep");
                    tracing::warn!(
                        count,
                        "heartbeats are not confirmed: the store cannot be written"
                    );
                    self.prune();
                }
                Effect::SayHere(sessions) => {
                    for link in sessions.iter().filter_map(|session| self.links.get(session)) {
                        link.send(&MasterFrame::Ping { id: HERE });
                    }
                }
            }
        }
        let at = self.core.next_deadline();
        self.alarm.set(ctx, &self.world.clock, at, |heartbeats, ctx| {
            heartbeats.alarm.rang();
            heartbeats.step(Event::DeadlineReached, ctx);
        });
    }

    fn write(&self, beats: &[Beat], ctx: &mut Context<Self>) {
        let me = ctx.address();
        let seen = beats.iter().map(|beat| (beat.worker, beat.incarnation)).collect();
        self.world.store.write(
            Transaction::of(Op::SeeWorkers { seen, at: self.world.clock.now().wall }),
            Box::new(move |written| me.do_send(BeatsWritten(written.is_ok()))),
        );
    }

    fn confirm(&mut self, beats: &[Beat]) {
        for beat in beats {
            if let Some(link) = self.links.get(&beat.session) {
                link.send(&MasterFrame::Heartbeat { seq: beat.seq });
            }
        }
        self.prune();
    }

    /// Nobody waits on a connection that is closed.
    fn prune(&mut self) {
        for (session, link) in &self.links {
            if link.is_closed() {
                self.core.forget(*session);
            }
        }
        let waits = self.core.sessions();
        self.links.retain(|session, _| waits.contains(session));
    }
}

impl Actor for Heartbeats {
    type Context = Context<Self>;
}

impl Supervised for Heartbeats {
    /// What waited is gone; the workers' next heartbeats stand for it.
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.alarm.rang();
        self.core = HeartbeatsCore::new(self.world.outage, self.world.timers.heartbeat);
        self.links.clear();
    }
}

impl Handler<HeartbeatArrived> for Heartbeats {
    type Result = ();
    fn handle(&mut self, message: HeartbeatArrived, ctx: &mut Context<Self>) {
        self.links.insert(message.beat.session, message.link);
        self.step(Event::Beat(message.beat), ctx);
    }
}

impl Handler<BeatsWritten> for Heartbeats {
    type Result = ();
    fn handle(&mut self, written: BeatsWritten, ctx: &mut Context<Self>) {
        self.step(Event::Written { ok: written.0 }, ctx);
    }
}
