//! Crash points around a commit, by what is committed: just before it, and
//! after it before anybody is told.

use crate::faults::crash_point;
use crate::store::{Op, RequestsAfter, Transaction};

/// All of them are about to be committed.
pub(super) fn before_commit<'a>(transactions: impl Iterator<Item = &'a Transaction>) {
    if cfg!(feature = "testing") {
        transactions.flat_map(|one| &one.ops).for_each(before);
    }
}

/// The commit was made.
pub(super) fn after_commit<'a>(transactions: impl Iterator<Item = &'a Transaction>) {
    if cfg!(feature = "testing") {
        transactions.flat_map(|one| &one.ops).for_each(after);
    }
}

/// Reached when the operation is carried out and not committed yet.
fn before(op: &Op) {
    match op {
        Op::AddBuildset(_) => crash_point("submit.before_commit"),
        Op::Claim { .. } => crash_point("claim.before_commit"),
        Op::WishInstance { .. } => crash_point("substantiate.before_wish"),
        Op::StartBuild { .. } => crash_point("start.before_number_commit"),
        Op::AttachWorker { .. } => crash_point("attach.before_incarnation"),
        Op::Unclaim { .. } => crash_point("requeue.before_commit"),
        Op::FinishBuild { requests, .. } => match requests {
            RequestsAfter::Requeue { .. } => crash_point("requeue.before_commit"),
            RequestsAfter::Done => crash_point("finish.before_commit"),
        },
        Op::CancelRequests { .. } | Op::CancelClaimed { .. } | Op::WantStop { .. } => {
            crash_point("cancel.before_commit");
        }
        _ => {}
    }
}

/// Reached when the operation is durable, and nobody knows it.
fn after(op: &Op) {
    match op {
        Op::AddBuildset(_) => crash_point("submit.after_commit"),
        Op::Claim { .. } => crash_point("claim.after_commit"),
        Op::WishInstance { .. } => crash_point("substantiate.after_wish"),
        Op::StartBuild { .. } => crash_point("start.after_number_commit"),
        Op::AttachWorker { .. } => crash_point("attach.after_incarnation"),
        Op::DetachWorker { .. } => crash_point("detach.noted"),
        Op::StartStep { .. } => crash_point("step.start"),
        Op::FinishStep { .. } => crash_point("step.finish"),
        Op::Unclaim { .. } => crash_point("requeue.after_commit"),
        Op::FinishBuild { requests, .. } => match requests {
            RequestsAfter::Requeue { .. } => crash_point("requeue.after_commit"),
            RequestsAfter::Done => crash_point("finish.after_commit"),
        },
        Op::CancelRequests { .. } | Op::CancelClaimed { .. } | Op::WantStop { .. } => {
            crash_point("cancel.after_commit");
        }
        _ => {}
    }
}
