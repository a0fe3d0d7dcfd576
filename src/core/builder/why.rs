//! Why a request waits, in a sentence for people.

use super::{BuilderCore, Request, SeatUse};
use crate::core::ids::WorkerName;

impl BuilderCore {
    /// Why this request, which waits, has not started. What holds for the whole
    /// builder comes first, then what holds for the worker that it names.
    #[must_use]
    pub fn why_it_waits(&self, request: &Request) -> String {
        if self.draining {
            return "the master is stopping".into();
        }
        if self.store_pause.is_some_and(|until| until > self.now) {
            return "the store cannot be written just now".into();
        }
        if let Some(most) = self.config.max_builds.filter(|_| !self.has_room()) {
            return format!("builder {} has {most} builds, its limit", self.config.name);
        }
        if let Some(worker) = &request.worker {
            return self.why_worker_waits(worker);
        }
        let attached = self.seats.values().filter(|seat| seat.used != SeatUse::Attaching);
        if attached.count() == 0 {
            return format!("no worker of builder {} is attached", self.config.name);
        }
        if self.seats.values().any(super::Seat::is_available) && self.free_workers().is_empty() {
            return "the workers that are free are left alone for a while: a start failed there"
                .into();
        }
        if self.free_workers().is_empty() {
            return "every worker is busy".into();
        }
        "it is about to start".into()
    }

    fn why_worker_waits(&self, worker: &WorkerName) -> String {
        if !self.config.workers.contains(worker) {
            let builder = &self.config.name;
            return format!("it names worker {worker}, which builder {builder} does not have");
        }
        match self.seats.get(worker).map(super::Seat::word) {
            None | Some("attaching") => {
                format!("it names worker {worker}, which is not attached")
            }
            Some("idle") if self.free_workers().iter().all(|(_, _, free)| *free != worker) => {
                format!(
                    "it names worker {worker}, which is left alone for a while: \
                     a start failed there"
                )
            }
            Some("idle") => "it is about to start".into(),
            Some(_) => format!("it names worker {worker}, which is busy"),
        }
    }
}
