//! A planned stop of the master: workers with builds get a longer lease, which
//! is stored before they hear of it (fault row FM03, invariant I12).

use std::time::Duration;

use actix::{AsyncContext, Handler, ResponseFuture};
use tokio::sync::oneshot;

use super::Worker;
use crate::actors::context::Context;
use crate::core::ids::*;
use crate::core::lease::Grant;
use crate::messages::GrantLease;
use crate::protocol::json_v1::MasterFrame;
use crate::store::{Op, Transaction};

/// How long the worker may take to read what is sent to it.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// The store answered a grant.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct GrantWritten {
    session: SessionId,
    lease: Duration,
    stored: bool,
    done: oneshot::Sender<bool>,
}

impl Handler<GrantLease> for Worker {
    type Result = ResponseFuture<bool>;
    fn handle(&mut self, message: GrantLease, ctx: &mut Context<Self>) -> Self::Result {
        let Some((session, incarnation)) = self.core.grant_for() else {
            return Box::pin(async { false });
        };
        // The worker counts from the last heartbeat that is confirmed, the
        // master from here: none may be confirmed after this.
        if let Some(link) = self.link(session) {
            link.confirm_no_more();
        }
        let grant = Grant { lease: message.0, given: self.world.clock.boot_time() };
        let (done, told) = oneshot::channel();
        let (me, lease) = (ctx.address(), message.0);
        let op = Op::GrantLease { worker: self.id, incarnation, grant };
        self.world.store.write(
            Transaction::of(op),
            Box::new(move |written| {
                if let Err(error) = &written {
                    tracing::warn!(%error, "a worker's longer lease was not stored; its builds have the ordinary one");
                }
                me.do_send(GrantWritten { session, lease, stored: written.is_ok(), done });
            }),
        );
        Box::pin(async move { told.await.unwrap_or(false) })
    }
}

impl Handler<GrantWritten> for Worker {
    type Result = ();
    fn handle(&mut self, written: GrantWritten, _: &mut Context<Self>) {
        let GrantWritten { session, lease, stored, done } = written;
        let link = self.link(session).filter(|_| self.core.session() == Some(session)).cloned();
        let Some(link) = link.filter(|_| stored) else {
            let _ = done.send(false);
            return;
        };
        link.send(&MasterFrame::Lease { lease_s: lease.as_secs() });
        // Nothing more is said over this connection: what it had to say is
        // written once it is closed.
        link.close("the master stops");
        actix_rt::spawn(async move {
            let written = tokio::time::timeout(WRITE_LIMIT, link.wait_written()).await.is_ok();
            // Whoever waits may have given up.
            let _ = done.send(written);
        });
    }
}
