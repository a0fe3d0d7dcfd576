//! A new Builder actor takes over from the one in charge (rows T01 to T10).
//!
//! The predecessor hands over a copy of its state and waits, with all that
//! arrives, until the successor stands; then it gives it the seats, the order
//! of everybody's mail and what arrived, and only then does anybody learn the
//! successor's address. A successor that fails before that changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorContext, Addr, AsyncContext, Context, Handler};
use tokio::sync::oneshot;

use super::{Builder, Input, Mode, Seat};
use crate::core::builder::{BuilderCore, Event, Handover};
use crate::core::ids::*;
use crate::core::inbox::Inbox;
use crate::core::values::BuilderConfig;
use crate::faults;
use crate::messages::BuilderMail;

/// How long a successor may take to stand.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);

/// A successor shall take over.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct TakeOver {
    /// The successor.
    pub successor: Addr<Builder>,
    /// Its settings.
    pub config: Arc<BuilderConfig>,
    /// Told whether it did.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What the successor is built from.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Soul {
    handover: Handover,
    predecessor: Addr<Builder>,
}

/// The successor stands.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Stands;

/// The successor is in charge from now on.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Go {
    inbox: Inbox<BuilderMail>,
    seats: BTreeMap<WorkerName, Seat>,
    inherited: BTreeMap<ClaimId, Addr<Builder>>,
}

/// The successor will not stand.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct SuccessorFailed(pub String);

/// A successor that never stood is not needed.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct GiveUp;

/// The builder is no longer configured.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct RetireBuilder;

impl Builder {
    pub(super) fn hand_over(&mut self, take_over: TakeOver, ctx: &mut Context<Self>) {
        faults::point("builder.hand_over");
        let seed = self.core.draw_seed();
        let handover = self.core.hand_over(&take_over.config, seed);
        let moved = handover.seats.keys().cloned().collect();
        take_over.successor.do_send(Soul { handover, predecessor: ctx.address() });
        self.mode = Mode::HandingOver { waiting: Vec::new(), take_over, moved };
        let generation = self.core.generation();
        ctx.run_later(TAKEOVER_LIMIT, move |builder, ctx| {
            if matches!(builder.mode, Mode::HandingOver { .. })
                && builder.core.generation() == generation
            {
                builder.stay(format!("the successor did not stand within {TAKEOVER_LIMIT:?}"), ctx);
            }
        });
    }

    /// The successor failed: this one is still in charge, with everything
    /// that arrived meanwhile.
    pub(super) fn stay(&mut self, why: String, ctx: &mut Context<Self>) {
        let mode = std::mem::replace(&mut self.mode, Mode::Live);
        let Mode::HandingOver { waiting, take_over, .. } = mode else {
            self.mode = mode;
            return;
        };
        let _ = take_over.done.send(Err(why));
        self.go_live(waiting, ctx);
    }

    pub(super) fn retire(&mut self, moved: &BTreeSet<WorkerName>, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.retire(moved, self.succeeded, &mut effects);
        self.own = Some(self.core.claims());
        self.perform_all(effects, ctx);
    }
}

impl Handler<TakeOver> for Builder {
    type Result = ();
    fn handle(&mut self, message: TakeOver, ctx: &mut Context<Self>) {
        self.take(Input::TakeOver(message), ctx);
    }
}

impl Handler<Soul> for Builder {
    type Result = ();
    fn handle(&mut self, soul: Soul, _: &mut Context<Self>) {
        faults::point("builder.succeed");
        let Mode::Succeeding { core, .. } = &mut self.mode else { return };
        let now = self.parts.world.clock.now();
        let config = self.parts.config.clone();
        *core = Some(Box::new(BuilderCore::succeed(config, soul.handover, now)));
        soul.predecessor.do_send(Stands);
    }
}

impl Handler<Stands> for Builder {
    type Result = ();
    /// From here on the successor is in charge: it gets what arrived meanwhile
    /// before anybody learns its address.
    fn handle(&mut self, _: Stands, ctx: &mut Context<Self>) {
        let mode = std::mem::replace(&mut self.mode, Mode::Live);
        let Mode::HandingOver { waiting, take_over, moved } = mode else {
            self.mode = mode;
            return;
        };
        let (moving, staying): (BTreeMap<_, _>, _) = std::mem::take(&mut self.seats)
            .into_iter()
            .partition(|(worker, _)| moved.contains(worker));
        self.seats = staying;
        // Starts that are on their way go on over the seats that moved.
        self.lent.extend(moving.clone());
        self.succeeded = true;
        let mut inherited = std::mem::take(&mut self.inherited);
        for claim in self.core.claims() {
            inherited.insert(claim, ctx.address());
        }
        take_over.successor.do_send(Go {
            inbox: std::mem::take(&mut self.inbox),
            seats: moving,
            inherited,
        });
        self.parts.route.lead_to(take_over.successor.clone().recipient());
        self.succeeded = true;
        self.retire(&moved, ctx);
        let _ = take_over.done.send(Ok(()));
        self.backlog.extend(waiting);
        while let Some(input) = self.backlog.pop_front() {
            self.take(input, ctx);
        }
    }
}

impl Handler<Go> for Builder {
    type Result = ();
    fn handle(&mut self, go: Go, ctx: &mut Context<Self>) {
        let Mode::Succeeding { core, waiting } = &mut self.mode else { return };
        let (core, waiting) = (core.take(), std::mem::take(waiting));
        if let Some(core) = core {
            self.core = *core;
        }
        self.inbox = go.inbox;
        self.seats = go.seats;
        self.inherited = go.inherited;
        self.parts.may_restart.set(true);
        self.mode = Mode::Live;
        // What follows from the new settings: a start, another big state.
        self.step(Event::MaybeStart { worker: None }, ctx);
        self.go_live(waiting, ctx);
    }
}

impl Handler<GiveUp> for Builder {
    type Result = ();
    fn handle(&mut self, _: GiveUp, ctx: &mut Context<Self>) {
        if matches!(self.mode, Mode::Succeeding { .. }) {
            ctx.stop();
        }
    }
}

impl Handler<SuccessorFailed> for Builder {
    type Result = ();
    fn handle(&mut self, failed: SuccessorFailed, ctx: &mut Context<Self>) {
        self.stay(failed.0, ctx);
    }
}

impl Handler<RetireBuilder> for Builder {
    type Result = ();
    fn handle(&mut self, _: RetireBuilder, ctx: &mut Context<Self>) {
        self.take(Input::Retire, ctx);
    }
}
