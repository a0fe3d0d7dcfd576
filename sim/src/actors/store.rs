//! The store as the master's actors see it: asks are answered later, in order;
//! a crash may come before the commit, or between the commit and the answer.

use std::time::Duration;

use botmaster::core::ids::BuilderId;
use botmaster::store::*;
use tokio::sync::mpsc;

use super::Sabotage;
use super::plan::Dice;
use super::shared::Door;

enum Job {
    Write(Transaction, OnWritten),
    Load(BuilderId, OnLoaded),
}

/// The way to the store's task.
pub struct SlowStore(mpsc::UnboundedSender<Job>);

impl StateStore for SlowStore {
    fn write(&self, transaction: Transaction, done: OnWritten) {
        if let Err(mpsc::error::SendError(Job::Write(_, done))) =
            self.0.send(Job::Write(transaction, done))
        {
            done(Err(StoreError::Closed));
        }
    }

    fn load_builder(&self, builder: BuilderId, done: OnLoaded) {
        if let Err(mpsc::error::SendError(Job::Load(_, done))) =
            self.0.send(Job::Load(builder, done))
        {
            done(Err(StoreError::Closed));
        }
    }
}

/// Starts the store's task on this host.
pub fn start(door: Door, commit: Duration, mut dice: Dice) -> SlowStore {
    let (asks, mut jobs) = mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        let longest = u64::try_from(commit.as_millis()).unwrap_or(u64::MAX).max(2);
        while let Some(first) = jobs.recv().await {
            tokio::time::sleep(dice.millis(1, longest)).await;
            let mut batch = vec![first];
            while let Ok(job) = jobs.try_recv() {
                batch.push(job);
            }
            let answers: Vec<_> = batch.into_iter().map(|job| carry_out(&door, job)).collect();
            // Durable, and nobody knows it yet.
            tokio::time::sleep(dice.millis(0, longest / 2 + 1)).await;
            for answer in answers {
                answer();
            }
        }
    });
    SlowStore(asks)
}

fn carry_out(door: &Door, job: Job) -> Box<dyn FnOnce()> {
    let mut shared = door.borrow_mut();
    let full = || StoreError::Unwritable("the disk is full".into());
    if shared.is_full {
        shared.count("unwritable");
        return match job {
            Job::Write(_, done) => Box::new(move || done(Err(full()))),
            Job::Load(_, done) => Box::new(move || done(Err(full()))),
        };
    }
    match job {
        Job::Write(transaction, done) if shared.sabotage == Some(Sabotage::TellsBeforeCommit) => {
            // What it will come to is told, and the disk gets round to it later.
            let (written, _) = shared.store.clone().apply(&transaction);
            drop(shared);
            done(written);
            let door = door.clone();
            Box::new(move || {
                let mut shared = door.borrow_mut();
                let (written, changes) = shared.store.apply(&transaction);
                shared.committed(&transaction.ops, &written, &changes);
            })
        }
        Job::Write(transaction, done) => {
            let (written, changes) = shared.store.apply(&transaction);
            shared.committed(&transaction.ops, &written, &changes);
            if matches!(written, Err(StoreError::Fenced(_))) {
                shared.count("fenced");
            }
            Box::new(move || done(written))
        }
        Job::Load(builder, done) => {
            let records = shared.store.load_builder(builder);
            Box::new(move || done(records))
        }
    }
}
