//! A new Builder actor takes over from the one in charge (rows T01 to T10).
//!
//! The predecessor hands over a copy of its state and waits, with all that
//! arrives, until the successor stands and the BotMaster says that all of the
//! reload's successors do; then it gives it the seats, the order of everybody's
//! mail and what arrived, and only then does anybody learn the successor's
//! address. A successor that fails before that changes nothing, here or
//! elsewhere (fault row FC10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorContext, Addr, AsyncContext, Handler};
use tokio::sync::oneshot;

use super::{Builder, Input, LatentSeat, Mode, Seat};
use crate::actors::context::Context;
use crate::core::builder::{BuilderCore, Event, Handover};
use crate::core::ids::*;
use crate::core::inbox::Inbox;
use crate::core::values::BuilderConfig;
use crate::faults;
use crate::messages::{BuilderMail, WorkerHandle};

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
    /// Told whether it stands; none once it does.
    pub stands: Option<oneshot::Sender<Result<(), String>>>,
}

/// All successors of a reload stand: this one is in charge from now on.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub struct Commit {
    /// All workers, those included that came with the reload.
    pub workers: Arc<BTreeMap<WorkerName, Arc<WorkerHandle>>>,
    /// Told whether it is.
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
    workers: Arc<BTreeMap<WorkerName, Arc<WorkerHandle>>>,
    inbox: Inbox<BuilderMail>,
    seats: BTreeMap<WorkerName, Seat>,
    latents: BTreeMap<WorkerName, LatentSeat>,
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
            // One that stands waits for the others, and for the store.
            let not_yet = matches!(
                &builder.mode,
                Mode::HandingOver { take_over, .. } if take_over.stands.is_some()
            );
            if not_yet && builder.core.generation() == generation {
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
        if let Some(stands) = take_over.stands {
            let _ = stands.send(Err(why));
        }
        self.go_live(waiting, ctx);
    }

    pub(super) fn retire(&mut self, moved: &BTreeSet<WorkerName>, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        self.core.retire(moved, self.succeeded, &mut effects);
        self.own = Some(self.core.claims_with_requests());
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
    fn handle(&mut self, _: Stands, ctx: &mut Context<Self>) {
        let Mode::HandingOver { take_over, .. } = &mut self.mode else { return };
        let told = take_over.stands.take().is_some_and(|stands| stands.send(Ok(())).is_ok());
        if !told {
            // Nobody would ever tell it to go on.
            self.stay("the reload is over".into(), ctx);
        }
    }
}

impl Handler<Commit> for Builder {
    type Result = ();
    /// From here on the successor is in charge: it gets what arrived meanwhile
    /// before anybody learns its address.
    fn handle(&mut self, commit: Commit, ctx: &mut Context<Self>) {
        let mode = std::mem::replace(&mut self.mode, Mode::Live);
        let Mode::HandingOver { waiting, take_over, moved } = mode else {
            // It, or its successor, panicked since the successor stood.
            self.mode = mode;
            let why = "it had to be started again while the others were swapped; it goes on as \
                       it was, and another reload changes it";
            let _ = commit.done.send(Err(why.into()));
            return;
        };
        let (moving, staying): (BTreeMap<_, _>, _) = std::mem::take(&mut self.seats)
            .into_iter()
            .partition(|(worker, _)| moved.contains(worker));
        self.seats = staying;
        let (moving_latents, staying): (BTreeMap<_, _>, _) = std::mem::take(&mut self.latents)
            .into_iter()
            .partition(|(worker, _)| moved.contains(worker));
        self.latents = staying;
        // Builds that wait for an instance go on waiting there (row FX07).
        self.lent_latents.extend(moving_latents.clone());
        // Starts that are on their way go on over the seats that moved.
        self.lent.extend(moving.clone());
        self.succeeded = true;
        let mut inherited = std::mem::take(&mut self.inherited);
        for claim in self.core.claims() {
            inherited.insert(claim, ctx.address());
        }
        take_over.successor.do_send(Go {
            workers: commit.workers,
            inbox: std::mem::take(&mut self.inbox),
            seats: moving,
            latents: moving_latents,
            inherited,
        });
        self.parts.route.lead_to(take_over.successor.clone().recipient());
        self.succeeded = true;
        self.retire(&moved, ctx);
        let _ = commit.done.send(Ok(()));
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
        self.parts.workers = go.workers;
        self.inbox = go.inbox;
        self.seats = go.seats;
        self.latents = go.latents;
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
