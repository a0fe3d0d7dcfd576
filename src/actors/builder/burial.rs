//! Children that gave up even on their restarts, and what others left behind:
//! nothing may be stuck with them.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{AsyncContext, Handler};

use super::{Builder, Input, Remains};
use crate::actors::context::Context;
use crate::actors::convert::request;
use crate::actors::runtime::ChildDown;
use crate::core::builder::{Event, Request};
use crate::core::ids::*;
use crate::core::values::BuildResult;
use crate::messages::{BuildFinished, ForgetBuild};
use crate::store::{BuilderRecords, Op, OpenBuild, RequestsAfter, StoreError};

/// Pause before a burial is tried again that the store could not do.
const AGAIN: Duration = Duration::from_secs(1);

/// The store told how builds stand whose actors gave up.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Examined {
    reasons: BTreeMap<ClaimId, String>,
    records: Result<BuilderRecords, StoreError>,
}

/// The store could not end a build just then.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct BuryAgain(BTreeMap<ClaimId, String>);

impl Handler<ChildDown> for Builder {
    type Result = ();
    fn handle(&mut self, down: ChildDown, ctx: &mut Context<Self>) {
        if !down.gave_up {
            return;
        }
        let dead = self.builds.iter().filter(|(_, build)| !build.connected());
        let dead: BTreeMap<_, _> = dead.map(|(claim, _)| (*claim, down.reason.clone())).collect();
        if !dead.is_empty() {
            self.examine(dead, ctx);
        }
        // A SlaveBuilder that gave up cannot tell that its worker is gone. The
        // worker comes back over a new connection, and gets a new one.
        let gone = self.seats.iter().filter(|(_, seat)| !seat.addr.connected());
        let gone: Vec<_> = gone.map(|(name, seat)| (name.clone(), seat.link.clone())).collect();
        for (worker, link) in gone {
            link.close("the master's part for it gave up");
            let session = link.session;
            self.take(Input::Event(Event::Detach { worker, session }), ctx);
        }
    }
}

impl Builder {
    /// A Build that gave up ends as any other that panics: with an exception,
    /// durably (fault row FF11). Its requests end with it: what made it panic
    /// six times would do so again. What the store has of it comes first, for
    /// its end may be the very thing over which it panicked.
    fn examine(&mut self, reasons: BTreeMap<ClaimId, String>, ctx: &mut Context<Self>) {
        let me = ctx.address();
        self.world().store.load_builder(
            self.parts.id,
            Box::new(move |records| me.do_send(Examined { reasons, records })),
        );
    }

    fn bury(&mut self, open: &OpenBuild, reason: String, ctx: &mut Context<Self>) {
        let (claim, build, incarnation) = (open.claim, open.row.id, open.row.incarnation);
        tracing::error!(builder.name = %self.name(), build = %build, %reason, "the build's actor gave up; the build ends");
        let at = self.world().clock.now().wall;
        let mut ops = Vec::new();
        if open.row.number.is_none() {
            let properties = open.row.properties.clone();
            let grace = Duration::ZERO;
            ops.push(Op::StartBuild { build, incarnation, properties, grace, at });
        }
        ops.push(Op::FinishBuild {
            build,
            incarnation,
            result: BuildResult::Exception,
            state_string: format!("exception: the master's part of the build gave up: {reason}"),
            requests: RequestsAfter::Done,
            at,
        });
        if let Some(worker) = self.worker(&open.worker) {
            worker.tell(ForgetBuild { build, result: None });
        }
        let me = ctx.address();
        self.write(
            ops,
            move |written| {
                match written {
                    Err(error) if !error.is_final() => {
                        tracing::warn!(%error, "a build that gave up was not ended; trying again");
                        me.do_send(BuryAgain(BTreeMap::from([(claim, reason)])));
                        return None;
                    }
                    Err(error) => {
                        tracing::error!(%error, "a build that gave up could not be ended");
                    }
                    Ok(_) => {}
                }
                me.do_send(ended(claim, Vec::new()));
                None
            },
            ctx,
        );
    }

    /// What an actor of this builder's left that gave up is this one's now:
    /// it begins anew, as after a panic of its own.
    pub(super) fn adopt(&mut self, remains: Remains, ctx: &mut Context<Self>) {
        tracing::warn!(builder.name = %self.name(), builds = remains.builds.len(), "taking over the builds of an actor that gave up");
        self.parts.orphans.extend(remains.builds);
        self.parts.earlier.extend(remains.earlier);
        self.inherited.retain(|_, owner| owner.connected());
        self.start_over();
        self.load(ctx);
    }
}

fn ended(claim: ClaimId, requeued: Vec<Request>) -> BuildFinished {
    BuildFinished { claim, result: BuildResult::Exception, requeued, times: None }
}

impl Handler<Examined> for Builder {
    type Result = ();
    fn handle(&mut self, examined: Examined, ctx: &mut Context<Self>) {
        let records = match examined.records {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(%error, "builds that gave up were not looked at; trying again");
                ctx.notify_later(BuryAgain(examined.reasons), AGAIN);
                return;
            }
        };
        for (claim, reason) in examined.reasons {
            match records.builds.iter().find(|open| open.claim == claim) {
                Some(open) => self.bury(open, reason, ctx),
                // It had ended. Which of the requests that wait again were its
                // own is not known; one told too many is here already.
                None => {
                    let again = records.queued.iter().filter(|again| again.row.requeued);
                    ctx.notify(ended(claim, again.map(request).collect()));
                }
            }
        }
    }
}

impl Handler<BuryAgain> for Builder {
    type Result = ();
    fn handle(&mut self, again: BuryAgain, ctx: &mut Context<Self>) {
        ctx.run_later(AGAIN, move |builder, ctx| builder.examine(again.0, ctx));
    }
}

impl Handler<Remains> for Builder {
    type Result = ();
    fn handle(&mut self, remains: Remains, ctx: &mut Context<Self>) {
        self.take(Input::Adopt(remains), ctx);
    }
}
