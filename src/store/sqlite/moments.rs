//! Crash points around a commit, by what is committed: just before it, and
//! after it before anybody is told.

use crate::faults::crash_point;
use crate::store::{Op, RequestsAfter, Transaction};

/// The transactions of the commit in progress; without the feature `testing`
/// always empty.
#[derive(Default)]
pub(super) struct Moments(Vec<Transaction>);

impl Moments {
    /// One more was carried out.
    pub(super) fn carried_out(&mut self, transaction: &Transaction) {
        if cfg!(feature = "testing") {
            self.0.push(transaction.clone());
        }
    }

    /// All of them are about to be committed.
    pub(super) fn before_commit(&self) {
        self.0.iter().flat_map(|one| &one.ops).for_each(before_commit);
    }

    /// The commit was made, or it failed.
    pub(super) fn ended(&mut self, committed: bool) {
        for transaction in self.0.drain(..).filter(|_| committed) {
            transaction.ops.iter().for_each(after_commit);
        }
    }
}

/// Reached when the operation is carried out and not committed yet.
fn before_commit(op: &Op) {
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
fn after_commit(op: &Op) {
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
