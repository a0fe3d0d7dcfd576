//! What a predecessor gives its successor, as one value (rows T01 to T10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::Effect;
use super::expectations::Expectations;
use super::queue::Queue;
use super::seat::{Pause, Seat, SeatUse};
use super::{BuilderCore, Phase};
use crate::core::ids::*;
use crate::core::planted;
use crate::core::rng::Rng;
use crate::core::time::Now;
use crate::core::values::BuilderConfig;
use crate::core::views::{Away, BigState};

/// A predecessor's build, as its successors see it.
#[derive(Clone, PartialEq, Debug)]
pub struct InheritedBuild {
    /// Its id, once claimed.
    pub build: Option<BuildId>,
    /// Its number, once started.
    pub number: Option<BuildNumber>,
    /// Its worker.
    pub worker: WorkerName,
    /// Its requests.
    pub requests: Vec<RequestId>,
    /// Whether it was running already.
    pub state: &'static str,
    /// Its worker is away.
    pub away: Option<Away>,
}

/// What a predecessor gives its successor.
#[derive(Clone, PartialEq, Debug)]
pub struct Handover {
    /// The builder's id.
    pub id: BuilderId,
    /// The predecessor's.
    pub generation: Generation,
    /// The whole queue, in order.
    pub queue: Queue,
    /// Requests up to this id are known.
    pub loaded_through: RequestId,
    /// Usable seats of workers that are still listed, states untouched.
    pub seats: BTreeMap<WorkerName, Seat>,
    /// The next seat's place in attach order.
    pub next_order: u64,
    /// Workers left alone for a while after a failed start.
    pub pauses: BTreeMap<WorkerName, Pause>,
    /// The predecessor's own builds and those that it had inherited.
    pub inherited: BTreeMap<ClaimId, InheritedBuild>,
    /// What was learnt, unless the factory changed.
    pub expectations: Expectations,
    /// Published last.
    pub big_state: BigState,
    /// Told last.
    pub oldest: Option<BuildsetId>,
    /// Seed for the successor's generator.
    pub seed: u64,
    /// No more starts: the master is about to stop.
    pub draining: bool,
}

impl BuilderCore {
    /// What a successor with these workers gets. Changes nothing yet: the
    /// successor may still fail.
    #[must_use]
    pub fn hand_over(&self, new: &BuilderConfig, seed: u64) -> Handover {
        let mut inherited = self.inherited.clone();
        for (claim, build) in &self.builds {
            inherited.insert(
                *claim,
                InheritedBuild {
                    build: build.build,
                    number: build.number,
                    worker: build.worker.clone(),
                    requests: build.requests.iter().map(|request| request.id).collect(),
                    state: build.word(),
                    away: build.away,
                },
            );
        }
        let seats = self
            .seats
            .iter()
            .filter(|(worker, seat)| {
                let attached = seat.used != SeatUse::Attaching;
                new.workers.contains(worker) && (attached || planted::is("t06_attaching_ones_move"))
            })
            .map(|(worker, seat)| (worker.clone(), seat.clone()))
            .collect();
        let expectations = if planted::is("takeover_drops_expectations") {
            Expectations::new(&new.factory_digest)
        } else {
            self.expectations.for_factory(&new.factory_digest)
        };
        Handover {
            id: self.id,
            generation: self.generation,
            queue: self.queue_to_hand_over(),
            loaded_through: self.loaded_through,
            seats,
            next_order: self.next_order,
            pauses: self.pauses.clone(),
            inherited,
            expectations,
            big_state: self.big_state,
            oldest: self.oldest,
            seed,
            draining: self.draining,
        }
    }

    fn queue_to_hand_over(&self) -> Queue {
        if planted::is("t01_queue_stays_behind") {
            return Queue::default();
        }
        let mut queue = self.queue.clone();
        if planted::is("takeover_forgets_a_request") {
            let head = queue.iter().next().map(|request| request.id);
            head.and_then(|id| queue.remove(id));
        }
        queue
    }

    /// The successor is in charge: this one keeps its builds, starts nothing
    /// more, and lets go of the seats that did not move (rows T05, T06).
    ///
    /// Without a successor (a builder that was removed) it still looks after
    /// the builds that it had inherited itself.
    pub fn retire(&mut self, moved: &BTreeSet<WorkerName>, succeeded: bool, fx: &mut Vec<Effect>) {
        self.retired = true;
        self.queue = Queue::default();
        if succeeded {
            self.inherited.clear();
        }
        self.seats.retain(|worker, _| !moved.contains(worker));
        // Their instance will not attach for a builder that does not list the
        // worker: their requests wait again where the queue is (row T09).
        let stuck = self.builds.iter().filter(|(_, build)| {
            build.phase == Phase::Substantiating && !moved.contains(&build.worker)
        });
        for claim in stuck.map(|(claim, _)| *claim).collect::<Vec<_>>() {
            self.call_back_substantiation(claim, fx);
        }
        self.settle(fx);
    }

    /// The new Builder, with what its predecessor gave.
    #[must_use]
    pub fn succeed(config: Arc<BuilderConfig>, from: Handover, now: Now) -> Self {
        Self {
            now: now.mono,
            wall: now.wall,
            queue: from.queue.with_merge(config.merge.clone()),
            loaded_through: from.loaded_through,
            seats: from.seats,
            next_order: from.next_order,
            pauses: from.pauses,
            inherited: from.inherited,
            expectations: from.expectations,
            big_state: from.big_state,
            oldest: from.oldest,
            draining: from.draining,
            ..Self::new(from.id, Generation(from.generation.0 + 1), config, Rng::seeded(from.seed))
        }
    }

    /// Whether it starts nothing because the master is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// The same builder, draining or not.
    #[must_use]
    pub fn draining(self, draining: bool) -> Self {
        Self { draining, ..self }
    }

    /// A retired builder drops the seats that nobody uses any more (row T05),
    /// and is over when nothing is left. A seat that an earlier predecessor's
    /// build has goes, too: its end is told to the successor, who does not have
    /// the seat.
    pub(super) fn let_go(&mut self, fx: &mut Vec<Effect>) {
        let is_ours = |claim| self.builds.contains_key(claim) || self.inherited.contains_key(claim);
        let idle: Vec<WorkerName> = self
            .seats
            .iter()
            // Somebody waits for the end of a person's ping.
            .filter(|(_, seat)| {
                let has_build = matches!(&seat.used, SeatUse::Taken(claim) if is_ours(claim));
                !has_build && !seat.pinging
            })
            .filter(|_| !planted::is("t05_idle_ones_stay_for_ever"))
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in idle {
            if self.seats.remove(&worker).is_some_and(|seat| seat.latent.is_some()) {
                fx.push(Effect::DropLatent { worker: worker.clone() });
            }
            fx.push(Effect::DropSeat { worker });
        }
        if self.builds.is_empty() && self.inherited.is_empty() && self.pings.is_empty() {
            fx.push(Effect::Over);
        }
    }
}
