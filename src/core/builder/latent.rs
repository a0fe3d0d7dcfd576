//! Latent workers: a seat from configuration on, and a build that waits for the
//! instance before anything is claimed (rows B14, B24, B26, L01 to L05).

use super::event::{Effect, LatentNews};
use super::seat::{Latent, Pause, Seat, SeatUse};
use super::{BuilderCore, Phase};
use crate::core::ids::*;
use crate::core::planted;

impl BuilderCore {
    /// Row B26. A second time is nothing, also over a takeover; what was an
    /// ordinary worker becomes a latent one with its seat as it is.
    pub(super) fn on_add_latent(&mut self, worker: WorkerName, fx: &mut Vec<Effect>) {
        fx.push(Effect::NewLatent { worker: worker.clone() });
        if let Some(seat) = self.seats.get_mut(&worker) {
            if seat.latent.is_none() {
                seat.latent = Some(if seat.used == SeatUse::Attaching {
                    seat.used = SeatUse::Free;
                    Latent::Attaching
                } else {
                    Latent::Up
                });
            }
            return;
        }
        // After a start of the master a build may be out there on it.
        let open = self.builds.iter().map(|(claim, build)| (claim, &build.worker));
        let inherited = self.inherited.iter().map(|(claim, build)| (claim, &build.worker));
        let taken = open.chain(inherited).find(|(_, theirs)| **theirs == worker);
        let order = self.next_order;
        self.next_order += 1;
        let seat = Seat {
            session: SessionId(0),
            used: taken.map_or(SeatUse::Free, |(claim, _)| SeatUse::Taken(*claim)),
            order,
            worker_full: false,
            in_turn: false,
            pinging: false,
            latent: Some(Latent::Away),
        };
        self.seats.insert(worker.clone(), seat);
        let text = format!("added latent {worker}");
        fx.push(Effect::Note { worker: Some(worker), text, error: None });
    }

    /// The worker is an ordinary one from now on.
    pub(super) fn on_not_latent(&mut self, worker: &WorkerName, fx: &mut Vec<Effect>) {
        let Some(seat) = self.seats.get_mut(worker) else { return };
        match (seat.latent, seat.used) {
            (None, _) => return,
            (Some(Latent::Away), SeatUse::Free | SeatUse::Attaching) => {
                self.seats.remove(worker);
            }
            // It goes with its build, or with its connection.
            (Some(Latent::Away), SeatUse::Taken(_)) => return,
            (Some(Latent::Attaching), SeatUse::Free | SeatUse::Attaching) => {
                seat.latent = None;
                seat.used = SeatUse::Attaching;
            }
            (Some(Latent::Attaching), SeatUse::Taken(_)) => return,
            (Some(Latent::Up), _) => seat.latent = None,
        }
        fx.push(Effect::DropLatent { worker: worker.clone() });
    }

    /// The worker keeps a slot for the build, and is not there.
    pub(super) fn on_slot_reserved(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get(&claim) else {
            fx.push(Effect::Ignored("slot for a build that is gone"));
            return;
        };
        if build.phase != Phase::Reserving {
            return;
        }
        let worker = build.worker.clone();
        let stays_behind = self.retired && self.seats.contains_key(&worker);
        if build.requests.is_empty() || stays_behind {
            self.end_unclaimed(claim, fx);
        } else if self.seats.get(&worker).is_some_and(|seat| seat.latent == Some(Latent::Up)) {
            // It came while the worker was answering.
            fx.push(Effect::AskSlot { worker, claim });
        } else {
            self.substantiate(claim, fx);
        }
    }

    /// Row L05: the seat stays taken until this has an end.
    pub(super) fn substantiate(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        build.enter(Phase::Substantiating);
        fx.push(Effect::Substantiate { worker: build.worker.clone(), claim });
    }

    /// Whether this worker's instance has to be waited for.
    pub(super) fn must_substantiate(&self, worker: &WorkerName) -> bool {
        self.seats
            .get(worker)
            .is_some_and(|seat| matches!(seat.latent, Some(Latent::Away | Latent::Attaching)))
    }

    /// The instance is there for this builder: now the build asks for its slot
    /// in the incarnation that attached.
    pub(super) fn on_substantiated(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        match self.builds.get_mut(&claim) {
            Some(build) if build.phase == Phase::Substantiating => {
                build.enter(Phase::Reserving);
                fx.push(Effect::AskSlot { worker: build.worker.clone(), claim });
            }
            _ => fx.push(Effect::Ignored("an instance for a build that is over")),
        }
    }

    /// Row B14: nothing was claimed, so the requests only go back to their
    /// places. What is no use to try again ends as a build that people see.
    pub(super) fn on_not_substantiated(
        &mut self,
        claim: ClaimId,
        error: Option<String>,
        permanent: bool,
        fx: &mut Vec<Effect>,
    ) {
        let Some(build) = self.builds.get_mut(&claim) else {
            fx.push(Effect::Ignored("failure of an instance for a build that is over"));
            return;
        };
        if build.phase != Phase::Substantiating {
            return;
        }
        let worker = build.worker.clone();
        if let (true, Some(error)) = (permanent, &error) {
            build.enter(Phase::Failing);
            fx.push(Effect::FailBuild {
                claim,
                worker: worker.clone(),
                requests: build.requests.iter().map(|one| (one.id, one.epoch)).collect(),
                state_string: format!("no instance of worker {worker}: {error}"),
                config: build.config.clone(),
            });
            return;
        }
        let pause = match error {
            Some(error) => Pause::after(self.pauses.get(&worker), self.now, error.clone()),
            // The LatentSlaveBuilder was not as this builder saw it.
            None => Pause::short(self.now),
        };
        self.pauses.insert(worker, pause);
        self.end_unclaimed(claim, fx);
    }

    /// A build for which no worker could be had is written down, or the store
    /// said that its requests are not ours any more.
    pub(super) fn on_failed_build(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        match self.builds.get(&claim) {
            Some(build) if build.phase == Phase::Failing => {
                self.end_start(claim, fx);
                self.give_back(claim, Vec::new(), None, fx);
            }
            _ => fx.push(Effect::Ignored("end of a build that is gone")),
        }
    }

    /// A build that has claimed nothing is over; what it still has waits again
    /// where it was.
    pub(super) fn end_unclaimed(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get_mut(&claim) else { return };
        let requests = std::mem::take(&mut build.requests);
        if build.phase == Phase::Substantiating
            && planted::is("substantiate_failure_keeps_seat_taken")
        {
            let worker = build.worker.clone();
            self.builds.remove(&claim);
            fx.push(Effect::GiveBackSlot { worker, claim });
        } else {
            self.end_start(claim, fx);
        }
        self.give_back(claim, requests, None, fx);
    }

    /// Nobody waits for the instance any more: all of the build's requests were
    /// cancelled, or it stays behind with a worker that nobody lists.
    pub(super) fn call_back_substantiation(&mut self, claim: ClaimId, fx: &mut Vec<Effect>) {
        let Some(build) = self.builds.get(&claim) else { return };
        if build.phase == Phase::Substantiating {
            let worker = build.worker.clone();
            fx.push(Effect::CallBackSubstantiation { worker, claim });
            self.end_unclaimed(claim, fx);
        }
    }

    /// A latent worker's connection comes: its place is there already.
    pub(super) fn latent_attaches(
        &mut self,
        worker: &WorkerName,
        session: SessionId,
        fx: &mut Vec<Effect>,
    ) {
        let Some(seat) = self.seats.get_mut(worker) else { return };
        seat.session = session;
        seat.latent = Some(Latent::Attaching);
        seat.worker_full = false;
        fx.push(Effect::NewSeat { worker: worker.clone(), session });
    }

    /// It is attached: no `connect` event (row B21).
    pub(super) fn latent_attached(
        &mut self,
        worker: &WorkerName,
        building: Option<ClaimId>,
        fx: &mut Vec<Effect>,
    ) {
        let known = building
            .filter(|claim| self.builds.contains_key(claim) || self.inherited.contains_key(claim));
        if let (Some(claim), None) = (building, known) {
            fx.push(Effect::BuildOver { worker: worker.clone(), claim });
        }
        if let Some(seat) = self.seats.get_mut(worker) {
            seat.latent = Some(Latent::Up);
            if let Some(claim) = known {
                seat.used = SeatUse::Taken(claim);
            }
        }
        // Whatever kept its instances from coming, it is over.
        self.pauses.remove(worker);
        fx.push(Effect::TellLatent { worker: worker.clone(), news: LatentNews::Attached });
    }

    /// Row L04: back to LATENT.
    pub(super) fn latent_attach_failed(
        &mut self,
        worker: &WorkerName,
        error: String,
        fx: &mut Vec<Effect>,
    ) {
        let Some(seat) = self.seats.get_mut(worker) else { return };
        seat.latent = Some(Latent::Away);
        let waited_for = matches!(seat.used, SeatUse::Taken(_));
        fx.push(Effect::DropSeat { worker: worker.clone() });
        let pause = Pause::after(self.pauses.get(worker), self.now, error.clone());
        self.pauses.insert(worker.clone(), pause);
        if !waited_for {
            // Otherwise it is a failed substantiation, which is told.
            fx.push(Effect::Note {
                worker: Some(worker.clone()),
                text: format!("failed connect {worker}"),
                error: Some(error.clone()),
            });
        }
        let news = LatentNews::AttachFailed { error };
        fx.push(Effect::TellLatent { worker: worker.clone(), news });
    }

    /// Row B24: it stays listed and goes to LATENT, without `disconnect`.
    pub(super) fn latent_detached(&mut self, worker: &WorkerName, fx: &mut Vec<Effect>) {
        if let Some(seat) = self.seats.get_mut(worker) {
            seat.latent = Some(Latent::Away);
        }
        fx.push(Effect::DropSeat { worker: worker.clone() });
        fx.push(Effect::TellLatent { worker: worker.clone(), news: LatentNews::Detached });
        self.on_ping_done(worker, false, fx);
    }
}
