//! A new Builder takes over from the one in charge, after
//! `actors/builder/takeover.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use botmaster::core::builder::{BuilderCore, Event, Handover};
use botmaster::core::ids::*;
use botmaster::core::inbox::Inbox;
use botmaster::core::planted;
use botmaster::core::values::BuilderConfig;

use crate::bus::Addr;
use crate::message::*;
use crate::watch::Seen;

use super::builder::{Builder, Input, Mode};

/// How long a successor may take to stand.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(10);

impl Builder {
    pub(super) fn hand_over(
        &mut self,
        successor: Addr,
        config: Arc<BuilderConfig>,
        stands: TakeOverDone,
    ) {
        self.bus.point();
        let seed = self.core.draw_seed();
        let handover = self.core.hand_over(&config, seed);
        let moved = handover.seats.keys().cloned().collect();
        self.bus.send(successor, Msg::Soul { handover: Box::new(handover), predecessor: self.me });
        let stands = Some(stands);
        self.mode = Mode::HandingOver { waiting: Vec::new(), successor, stands, moved };
        let generation = self.core.generation();
        self.bus.later(self.me, TAKEOVER_LIMIT, Msg::TakeoverLimit(generation));
    }

    pub(super) fn stay(&mut self, why: String) {
        let mode = std::mem::replace(&mut self.mode, Mode::Live);
        let Mode::HandingOver { waiting, stands, .. } = mode else {
            self.mode = mode;
            return;
        };
        if let Some(stands) = stands {
            stands.tell(Err(why));
        }
        self.go_live(waiting);
    }

    pub(super) fn retire(&mut self, moved: &BTreeSet<WorkerName>) {
        let mut effects = Vec::new();
        self.core.retire(moved, self.succeeded, &mut effects);
        self.own = Some(self.core.claims_with_requests());
        self.perform_all(effects);
    }

    pub(super) fn on_soul(&mut self, handover: Handover, predecessor: Addr) {
        self.bus.point();
        let Mode::Succeeding { core, .. } = &mut self.mode else { return };
        let now = self.bus.now();
        let config = self.parts.config.clone();
        *core = Some(Box::new(BuilderCore::succeed(config, handover, now)));
        self.bus.send(predecessor, Msg::Stands);
    }

    pub(super) fn on_stands(&mut self) {
        let Mode::HandingOver { stands, .. } = &mut self.mode else { return };
        if let Some(stands) = stands.take() {
            stands.tell(Ok(()));
        }
    }

    /// From here on the successor is in charge: it gets what arrived meanwhile
    /// before anybody learns its address.
    pub(super) fn on_commit(&mut self, workers: Workers, done: TakeOverDone) {
        let mode = std::mem::replace(&mut self.mode, Mode::Live);
        let Mode::HandingOver { mut waiting, successor, moved, .. } = mode else {
            self.mode = mode;
            done.tell(Err("it had to be started again while the others were swapped".into()));
            return;
        };
        let (moving, staying): (BTreeMap<_, _>, _) = std::mem::take(&mut self.seats)
            .into_iter()
            .partition(|(worker, _)| moved.contains(worker));
        self.seats = staying;
        // Starts that are on their way go on over the seats that moved.
        self.lent.extend(moving.clone());
        self.succeeded = true;
        let mut inherited = std::mem::take(&mut self.inherited);
        for claim in self.core.claims() {
            inherited.insert(claim, self.me);
        }
        self.bus.see(Seen::TakenOver {
            running: self
                .core
                .view()
                .builds
                .iter()
                .any(|build| matches!(build.state, "running" | "orphaned")),
        });
        self.bus.send(
            successor,
            Msg::Go { inbox: std::mem::take(&mut self.inbox), seats: moving, inherited, workers },
        );
        self.parts.route.lead_to(successor);
        self.retire(&moved);
        done.tell(Ok(()));
        if planted::is("sim_takeover_drops_a_message") {
            let first = waiting.iter().position(|input| matches!(input, Input::Mail(_)));
            if let Some(place) = first {
                waiting.remove(place);
            }
        }
        self.backlog.extend(waiting);
        while let Some(input) = self.backlog.pop_front() {
            self.take(input);
        }
    }

    pub(super) fn on_go(
        &mut self,
        inbox: Inbox<BuilderMail>,
        seats: BTreeMap<WorkerName, SeatRef>,
        inherited: BTreeMap<ClaimId, Addr>,
    ) {
        let Mode::Succeeding { core, waiting } = &mut self.mode else { return };
        let (core, waiting) = (core.take(), std::mem::take(waiting));
        if let Some(core) = core {
            self.core = *core;
        }
        self.inbox = inbox;
        self.seats = seats;
        self.inherited = inherited;
        self.parts.may_restart.set(true);
        self.mode = Mode::Live;
        self.step(Event::MaybeStart { worker: None });
        self.go_live(waiting);
    }
}
