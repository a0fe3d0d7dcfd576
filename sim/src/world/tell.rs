//! What the checker of histories is told of a run: it knows nothing of the
//! model and looks at the same run from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;

use crate::faults::Fault;
use crate::history::{Invariant, Leeway, Micros, Recorder, Run, Told as ToldClient, check};
use crate::machine::Machine;
use crate::memory::MemoryStore;
use crate::setup::Timers;

/// The history of a run, as it is written down.
#[derive(Default)]
pub(super) struct Told {
    recorder: Recorder,
    events: usize,
}

fn micros(at: Timestamp) -> Micros {
    Micros::try_from(at.0).unwrap_or(Micros::MAX)
}

impl Told {
    /// A client heard that its submission is stored.
    pub(super) fn submitted(&mut self, at: Timestamp, ids: &[RequestId]) {
        for request in ids {
            let (at, request) = (micros(at), *request);
            self.recorder.history.told.push(ToldClient::Submitted { at, request, key: None });
        }
    }

    /// A process began.
    pub(super) fn began(
        &mut self,
        at: Timestamp,
        machine: &Machine,
        build: BuildId,
        requests: Vec<(RequestId, Epoch)>,
        command: &CommandId,
    ) {
        self.recorder.history.ran.push(Run {
            worker: machine.name.clone(),
            instance: machine.instance(),
            build,
            requests,
            command: command.clone(),
            begin: micros(at),
            end: None,
            killed: false,
        });
    }

    /// It ended.
    pub(super) fn over(&mut self, at: Timestamp, worker: &WorkerName, command: &CommandId) {
        let mut all = self.recorder.history.ran.iter_mut().rev();
        let run =
            all.find(|run| run.end.is_none() && run.command == *command && run.worker == *worker);
        if let Some(run) = run {
            run.end = Some(micros(at));
        }
    }

    /// A master starts.
    pub(super) fn life(&mut self, store: &MemoryStore) {
        self.recorder.history.lives.push(store.events().len() as u64 + 1);
    }

    /// What was published since the last time.
    pub(super) fn events(&mut self, at: Timestamp, store: &MemoryStore) {
        for event in store.events().get(self.events..).unwrap_or_default() {
            self.recorder.published(micros(at), event.seq, &event.change);
        }
        self.events = store.events().len();
    }

    /// What is wrong with all of it. A program that could not end its processes
    /// when its lease was over is no fault of the master's: what the machines
    /// ran is looked at only where none was frozen, killed alone or doubled.
    pub(super) fn check(
        &mut self,
        store: &MemoryStore,
        faults: &BTreeMap<Fault, u64>,
        timers: &Timers,
    ) -> Option<(&'static str, String)> {
        self.recorder.keep_store(store);
        self.recorder.history.calm = true;
        let beyond =
            [Fault::Frozen, Fault::SlowWorker, Fault::ProgramKilled, Fault::DuplicateAttach];
        let judges_runs = !beyond.iter().any(|fault| faults.contains_key(fault));
        let late = timers.lease + timers.kill_time + Duration::from_secs(30);
        let leeway = Leeway {
            // Orders are judged by the world itself, at the moment of choice.
            order: Micros::MAX / 4,
            overtakes: usize::MAX,
            late: Micros::try_from(late.as_micros()).unwrap_or(Micros::MAX),
            limit: Micros::MAX / 4,
            events_may_miss: false,
        };
        let found = check(&self.recorder.history, &leeway).into_iter().find(|finding| {
            judges_runs || !matches!(finding.invariant, Invariant::I3 | Invariant::I2)
        });
        found.map(|finding| {
            let id = match finding.invariant {
                Invariant::I1 => "I1",
                Invariant::I2 => "I2",
                Invariant::I3 => "I3",
                Invariant::I4 => "I4",
                Invariant::I5 => "I5",
                Invariant::I6 => "I6",
                Invariant::I7 => "I7",
                Invariant::I8 => "I8",
                Invariant::I9 => "I9",
                Invariant::I10 => "I10",
                Invariant::I11 => "I11",
                Invariant::I12 => "I12",
                Invariant::I15 => "I15",
            };
            (id, format!("the history: {}", finding.text))
        })
    }
}
