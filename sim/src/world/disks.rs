//! The stores: what was asked of them is done in order, after a while, or not.

use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::protocol::json_v1::MasterFrame;
use botmaster::store::{Change, Op, StoreError, Transaction};

use super::{CrashAt, Ev, World};
use crate::bus::StoreAsk;
use crate::faults::Fault;
use crate::logs_desk::LogOut;
use crate::setup::between;

impl World {
    pub(super) fn store_next(&mut self) {
        if self.desk.busy || self.desk.asks.is_empty() || self.desk.stalled {
            return;
        }
        self.desk.busy = true;
        let most = if self.desk.slow { 1_500_000 } else { 4_000 };
        let takes = Duration::from_micros(between(&mut self.store_rng, 100, most));
        self.at(self.now + takes, Ev::Store);
    }

    pub(super) fn store_works(&mut self) {
        self.desk.busy = false;
        let Some(ask) = self.desk.asks.pop_front() else { return };
        match ask {
            StoreAsk::Load(builder, done) => {
                let records = if self.desk.full {
                    Err(StoreError::Unwritable("no space left on device".into()))
                } else {
                    self.store.load_builder(builder)
                };
                self.mark("load", builder.0, 0);
                self.answer_store(Box::new(move || done(records)));
            }
            StoreAsk::Write(transaction, done) => self.write(transaction, done),
        }
        self.store_next();
    }

    pub(super) fn write(&mut self, transaction: Transaction, done: crate::bus::OnWritten) {
        let matters = transaction.ops.iter().any(|op| !matches!(op, Op::Note(_)));
        if matters && self.desk.crash == Some(CrashAt::BeforeCommit) {
            self.desk.crash = None;
            drop(done);
            self.struck(Fault::KilledBeforeCommit);
            self.kill_master(true, Fault::KilledBeforeCommit);
            return;
        }
        if self.desk.full {
            let error = StoreError::Unwritable("no space left on device".into());
            self.say(|| format!("store: cannot write {:?}", words(&transaction)));
            if planted::is("sim_event_before_commit") {
                self.store.leak(&transaction);
            }
            self.answer_store(Box::new(move || done(Err(error))));
            return;
        }
        if planted::is("sim_confirm_before_commit") && self.desk.crash.is_some() {
            // The answer goes out, and then the process dies without a commit.
            let (written, _) = self.store.clone().apply(&transaction);
            self.answer_store(Box::new(move || done(written)));
            self.desk.crash = Some(CrashAt::BeforeCommit);
            return;
        }
        let (written, changes) = self.store.apply(&transaction);
        self.note_changes(&transaction, &changes, written.is_ok());
        self.history.events(self.now, &self.store);
        self.checks.committed(self.now, &self.store, &transaction, &written);
        if matters && written.is_ok() && self.desk.crash == Some(CrashAt::AfterCommit) {
            self.desk.crash = None;
            drop(done);
            self.struck(Fault::KilledAfterCommit);
            self.kill_master(true, Fault::KilledAfterCommit);
            return;
        }
        self.answer_store(Box::new(move || done(written)));
    }

    pub(super) fn note_changes(&mut self, transaction: &Transaction, changes: &[Change], ok: bool) {
        self.mark("commit", transaction.ops.len() as u64, u64::from(ok));
        if self.trace.verbose {
            let text = format!("store: {:?} ok: {ok}", words(transaction));
            self.say(|| text);
        }
        for change in changes {
            match change {
                Change::RequestUnclaimed(row) => {
                    self.mark("unclaimed", row.id.0, row.epoch.0);
                    self.saw.requeue |= row.infra_tries > 0;
                }
                Change::RequestComplete(row) => {
                    self.mark("complete", row.id.0, row.state as u64);
                }
                Change::RequestClaimed(row) => self.mark("claimed", row.id.0, row.epoch.0),
                _ => {}
            }
        }
    }

    pub(super) fn answer_store(&mut self, call: Box<dyn FnOnce()>) {
        let takes = Duration::from_micros(between(&mut self.store_rng, 10, 500));
        // Answers keep the order of the asks.
        let at = (self.now + takes).max(self.desk.last_answer);
        self.desk.last_answer = at;
        self.at(at, Ev::Call(self.life, call));
    }

    // The log store.

    pub(super) fn log_out(&mut self, out: Vec<LogOut>) {
        for one in out {
            match one {
                LogOut::FlushSoon(log) => {
                    let wait = Duration::from_millis(if self.logs.full { 1_000 } else { 50 });
                    self.at(self.now + wait, Ev::Flush(log));
                }
                LogOut::Confirm(session, log, have) => self.confirm_log(session, log, have),
                LogOut::Call(call) => {
                    self.at(self.now + Duration::from_millis(2), Ev::Call(self.life, call));
                }
                LogOut::Wrong(what) => self.checks.fail("I9", what),
            }
        }
    }

    pub(super) fn confirm_log(&mut self, session: SessionId, log: LogId, have: u64) {
        let Some(master) = &self.master else { return };
        let found = master.routes.borrow().command_of(session, log);
        let Some((command, build)) = found else { return };
        self.checks.i12_confirmed_is_durable(&self.logs, log, have);
        let frame = MasterFrame::LogConfirm { build, command, log: "stdio".into(), have };
        master.bus.frame(session, frame);
    }
}

fn words(transaction: &Transaction) -> Vec<String> {
    transaction
        .ops
        .iter()
        .map(|op| {
            let text = format!("{op:?}");
            text.chars().take(90).collect()
        })
        .collect()
}
