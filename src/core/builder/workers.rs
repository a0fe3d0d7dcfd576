//! Workers that come and go, and which of them is chosen.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Answer, Effect, Event, ReplyId};
use super::seat::{Latent, Pause, Seat, SeatRank, SeatUse};
use super::{BuilderCore, Phase, PingRound};
use crate::core::ids::*;
use crate::core::planted;
use crate::core::time::WallTime;
use crate::core::values::{ChooseWorker, Loss};
use crate::core::views::PauseView;

impl BuilderCore {
    /// Row C03.
    pub(super) fn on_ping(&mut self, reply: ReplyId, fx: &mut Vec<Effect>) {
        let workers: BTreeSet<WorkerName> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.used != SeatUse::Attaching)
            .map(|(worker, _)| worker.clone())
            .collect();
        if workers.is_empty() {
            fx.push(Effect::Note { worker: None, text: "ping no worker".into(), error: None });
            fx.push(Effect::Answer(reply, Answer::Done(false)));
            return;
        }
        for worker in &workers {
            if let Some(seat) = self.seats.get_mut(worker) {
                seat.pinging = true;
            }
            let worker = worker.clone();
            fx.push(if self.must_substantiate(&worker) {
                Effect::PingLatent { worker }
            } else {
                Effect::PingSeat { worker }
            });
        }
        self.pings.push(PingRound { reply, waiting: workers, ok: true });
    }

    pub(super) fn on_ping_done(&mut self, worker: &WorkerName, ok: bool, fx: &mut Vec<Effect>) {
        if self.retired {
            // The seat moved with its flag; whoever has it now clears it.
            fx.push(Effect::TellSuccessor(Event::PingDone { worker: worker.clone(), ok }));
        }
        if let Some(seat) = self.seats.get_mut(worker) {
            seat.pinging = false;
        }
        for round in &mut self.pings {
            if round.waiting.remove(worker) {
                round.ok &= ok || planted::is("c03_true_if_any_answers");
            }
        }
        self.pings.retain(|round| {
            if round.waiting.is_empty() {
                fx.push(Effect::Answer(round.reply, Answer::Done(round.ok)));
            }
            !round.waiting.is_empty()
        });
    }

    /// Rows B21 and B22.
    pub(super) fn on_attach(
        &mut self,
        worker: WorkerName,
        session: SessionId,
        fx: &mut Vec<Effect>,
    ) {
        match self.seats.get(&worker) {
            Some(seat) if seat.latent == Some(Latent::Away) && seat.session <= session => {
                self.latent_attaches(&worker, session, fx);
                return;
            }
            Some(seat) if seat.session == session => return,
            Some(_) if planted::is("b21_newer_connection_is_refused") => return,
            Some(seat) if seat.session > session => {
                fx.push(Effect::Ignored("attach of an older connection"));
                return;
            }
            Some(seat) => {
                let old = seat.session;
                let latent = seat.latent.is_some();
                self.on_detach(&worker, old, fx);
                if latent {
                    self.latent_attaches(&worker, session, fx);
                    return;
                }
            }
            None => {}
        }
        let order = self.next_order;
        self.next_order += 1;
        self.seats.insert(
            worker.clone(),
            Seat {
                session,
                used: SeatUse::Attaching,
                order,
                worker_full: false,
                in_turn: false,
                pinging: false,
                latent: None,
            },
        );
        fx.push(Effect::NewSeat { worker, session });
    }

    pub(super) fn on_attached(
        &mut self,
        worker: &WorkerName,
        session: SessionId,
        building: Option<ClaimId>,
        fx: &mut Vec<Effect>,
    ) {
        match self.seats.get_mut(worker) {
            Some(seat) if seat.session == session && seat.latent == Some(Latent::Attaching) => {
                self.latent_attached(worker, building, fx);
            }
            Some(seat) if seat.session == session && seat.used == SeatUse::Attaching => {
                let ours = building.filter(|claim| {
                    self.builds.contains_key(claim) || self.inherited.contains_key(claim)
                });
                seat.used = ours.map_or(SeatUse::Free, SeatUse::Taken);
                if let (Some(claim), None) = (building, ours) {
                    // It ended while the worker was answering.
                    fx.push(Effect::BuildOver { worker: worker.clone(), claim });
                }
                fx.push(Effect::Note {
                    worker: Some(worker.clone()),
                    text: format!("connect {worker}"),
                    error: None,
                });
            }
            _ => fx.push(Effect::Ignored("attach answer of an older connection")),
        }
    }

    pub(super) fn on_attach_failed(
        &mut self,
        worker: &WorkerName,
        session: SessionId,
        error: String,
        fx: &mut Vec<Effect>,
    ) {
        match self.seats.get(worker) {
            Some(seat) if seat.session == session && seat.latent == Some(Latent::Attaching) => {
                self.latent_attach_failed(worker, error, fx);
            }
            Some(seat) if seat.session == session && seat.used == SeatUse::Attaching => {
                if !planted::is("b23_failed_attach_attaches_for_ever") {
                    self.seats.remove(worker);
                }
                fx.push(Effect::DropSeat { worker: worker.clone() });
                fx.push(Effect::Note {
                    worker: Some(worker.clone()),
                    text: format!("failed connect {worker}"),
                    error: Some(error),
                });
            }
            _ => fx.push(Effect::Ignored("attach failure of an older connection")),
        }
    }

    /// Row B24.
    pub(super) fn on_detach(
        &mut self,
        worker: &WorkerName,
        session: SessionId,
        fx: &mut Vec<Effect>,
    ) {
        match self.seats.get(worker) {
            Some(seat)
                if seat.session == session
                    && matches!(seat.latent, Some(Latent::Attaching | Latent::Up)) =>
            {
                self.latent_detached(worker, fx);
            }
            Some(seat)
                if seat.latent.is_none()
                    && (seat.session == session || planted::is("b24_any_detach_counts")) =>
            {
                // `disconnect` only ever follows `connect`.
                let (text, error) = if seat.used == SeatUse::Attaching {
                    (format!("failed connect {worker}"), Some("the worker left".to_owned()))
                } else {
                    (format!("disconnect {worker}"), None)
                };
                let attached = error.is_none();
                self.seats.remove(worker);
                fx.push(Effect::DropSeat { worker: worker.clone() });
                fx.push(Effect::Note { worker: Some(worker.clone()), text, error });
                if planted::is("loss_spreads")
                    && let Some((other, _)) = self.seats.pop_first()
                {
                    let text = format!("disconnect {other}");
                    fx.push(Effect::DropSeat { worker: other.clone() });
                    fx.push(Effect::Note { worker: Some(other), text, error: None });
                }
                if attached && !self.retired && !self.has_worker() {
                    // Row B27. No word of the big state says it while a build
                    // waits for its worker.
                    let text = "last disconnect".to_owned();
                    fx.push(Effect::Note { worker: None, text, error: None });
                }
                self.on_ping_done(worker, false, fx);
            }
            _ => fx.push(Effect::Ignored("detach of a worker that is not attached")),
        }
    }

    /// Whether any worker is usable, busy or not; attaching ones are not.
    pub(super) fn has_worker(&self) -> bool {
        self.seats.values().any(|seat| seat.used != SeatUse::Attaching)
    }

    pub(super) fn on_maybe_start(&mut self, worker: Option<&WorkerName>) {
        match worker {
            Some(worker) => {
                if let Some(seat) = self.seats.get_mut(worker) {
                    (seat.worker_full, seat.in_turn) = (false, false);
                }
            }
            None => self.seats.values_mut().for_each(|seat| {
                (seat.worker_full, seat.in_turn) = (false, false);
            }),
        }
    }

    /// It is as if it had asked the worker and been refused.
    pub(super) fn on_in_line(&mut self, worker: &WorkerName) {
        if let Some(seat) = self.seats.get_mut(worker)
            && seat.in_turn
        {
            (seat.worker_full, seat.in_turn) = (true, false);
        }
    }

    /// An offer ends with this builder's ask for a slot, whose answer is all that
    /// is needed, or goes on to the next in line. What is asked already counts:
    /// the worker answered it before it had room, or is going to.
    pub(super) fn pass_on(&self, worker: WorkerName, fx: &mut Vec<Effect>) {
        let asks = self.seats.get(&worker).is_some_and(|seat| match seat.used {
            SeatUse::Taken(claim) => {
                self.builds.get(&claim).is_some_and(|build| build.phase == Phase::Reserving)
            }
            SeatUse::Attaching | SeatUse::Free => false,
        });
        if !asks && !planted::is("offer_ends_with_the_first") {
            fx.push(Effect::PassOn { worker });
        }
    }

    /// Workers on which a build may be begun now, by name, each with its rank
    /// and its place in attach order.
    pub(super) fn free_workers(&self) -> Vec<(SeatRank, u64, &WorkerName)> {
        let rested = |worker: &WorkerName| {
            self.pauses.get(worker).is_none_or(|pause| pause.until <= self.now)
        };
        self.seats
            .iter()
            .filter(|(worker, seat)| seat.is_available() && rested(worker))
            .map(|(worker, seat)| (seat.rank(), seat.order, worker))
            .collect()
    }

    /// Workers that are left alone because starts on them failed (fault row
    /// FB07).
    pub(super) fn pause_views(&self) -> BTreeMap<WorkerName, PauseView> {
        let shown = |(worker, pause): (&WorkerName, &Pause)| {
            let reason = pause.reason.clone().filter(|_| pause.until > self.now)?;
            let rest = i64::try_from(pause.until.since(self.now).as_micros()).unwrap_or(i64::MAX);
            let until = WallTime(self.wall.0.saturating_add(rest));
            Some((worker.clone(), PauseView { until, reason }))
        };
        self.pauses.iter().filter_map(shown).collect()
    }

    /// Row B12: among those of the best rank, at random or in attach order.
    /// Workers that lost a build of this request come after all others.
    pub(super) fn choose_worker(&mut self, losses: &[Loss]) -> Option<WorkerName> {
        let mut free: Vec<(SeatRank, u64, WorkerName)> = self
            .free_workers()
            .into_iter()
            .map(|(rank, order, worker)| (rank, order, worker.clone()))
            .collect();
        let lost = |worker: &WorkerName| {
            losses.iter().any(|loss| loss.worker == *worker)
                && !planted::is("fr18_same_worker_again")
        };
        let place = |(rank, _, worker): &(SeatRank, u64, WorkerName)| (lost(worker), *rank);
        let best = free.iter().map(place).min()?;
        free.retain(|one| place(one) == best);
        let index = match self.config.choose {
            ChooseWorker::Random if planted::is("wall_clock_used") => {
                let oldest = self.queue.oldest_request_time().unwrap_or_default();
                usize::try_from(oldest.seconds() / 3600).unwrap_or_default() % free.len()
            }
            ChooseWorker::Random => self.rng.index(free.len()),
            ChooseWorker::First => {
                free.sort_by_key(|(_, order, _)| *order);
                0
            }
        };
        free.into_iter().nth(index).map(|(_, _, worker)| worker)
    }

    pub(super) fn free_seat(&mut self, worker: &WorkerName, claim: ClaimId, full: bool) {
        if let Some(seat) = self.seats.get_mut(worker)
            && seat.used == SeatUse::Taken(claim)
        {
            seat.used = SeatUse::Free;
            seat.worker_full = full;
        }
    }
}
