//! A stranger proves to be a worker, or is turned away.

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::io::AsyncRead;

use super::first;
use super::reading::{Incoming, read_frame};
use crate::actors::runtime::World;
use crate::actors::strangers::Pass;
use crate::messages::*;
use crate::protocol::json_v1::{Attach as AttachFrame, MasterFrame};

/// A wrong name and a wrong token are answered after this time, whatever was
/// wrong, so that the time tells nothing (fault row FN06).
const WRONG_AFTER: Duration = Duration::from_millis(200);

/// Somebody at the door.
pub(super) struct Caller {
    /// Who knows the workers.
    pub(super) master: Recipient<Introduce>,
    /// Where it comes from.
    pub(super) address: String,
    /// The same without its port, when what comes from there is limited.
    pub(super) limited: Option<String>,
    /// Its place among the strangers, until it is over.
    pub(super) pass: Pass,
}

/// Hears the first frame, has it looked at, and makes the connection known to
/// the worker's actor. Otherwise: why it is over.
pub(super) async fn prove<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    caller: Box<Caller>,
    world: &World,
) -> Result<Arc<WorkerHandle>, String> {
    let met = tokio::time::timeout(world.timers.handshake, meet(incoming, &caller)).await;
    let met = met.unwrap_or_else(|_| {
        Err(Fault::Rejected(Rejection {
            code: "auth",
            message: "no attach frame in time".into(),
            retry_after_s: Some(30),
            wrong: false,
        }))
    });
    let Caller { address, pass, .. } = *caller;
    match met {
        Ok((mut attach, worker)) => {
            attach.token.clear();
            let link = incoming.link().clone();
            worker.tell(Hello { attach: Box::new(attach), link, address });
            drop(pass);
            Ok(worker)
        }
        Err(Fault::Over(reason)) => Err(reason),
        Err(Fault::Rejected(rejection)) => {
            if rejection.wrong {
                tokio::time::sleep(WRONG_AFTER).await;
            }
            tracing::warn!(%address, code = rejection.code, reason = %rejection.message, "worker turned away");
            world.board.count_ignored("worker turned away");
            incoming.link().send(&MasterFrame::Rejected {
                code: rejection.code.into(),
                message: rejection.message.clone(),
                retry_after_s: rejection.retry_after_s,
            });
            Err(rejection.message)
        }
    }
}

enum Fault {
    Rejected(Rejection),
    Over(String),
}

async fn meet<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    caller: &Caller,
) -> Result<(AttachFrame, Arc<WorkerHandle>), Fault> {
    let frame = read_frame(incoming).await.map_err(Fault::Over)?;
    let attach = first::look_at(frame).map_err(Fault::Rejected)?;
    let ask = Introduce {
        name: attach.name.clone(),
        token: attach.token.clone(),
        address: caller.address.clone(),
        limited: caller.limited.clone(),
    };
    match caller.master.send(ask).await {
        Ok(Ok(worker)) => Ok((attach, worker)),
        Ok(Err(rejection)) => Err(Fault::Rejected(rejection)),
        Err(_) => Err(Fault::Over("the master is stopping".into())),
    }
}
