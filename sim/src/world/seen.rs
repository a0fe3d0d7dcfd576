//! What the shells saw, for the invariants.

use botmaster::core::ids::*;

use super::World;
use crate::bus::Addr;
use crate::invariants::Slot;
use crate::master::Actor;
use crate::watch::Seen;

impl World {
    pub(super) fn seen(&mut self, seen: Seen) {
        let checks = &mut self.checks;
        match seen {
            Seen::MailSent { route, sender, seq } => checks.mail_sent(route, sender, seq),
            Seen::MailRead { route, sender } => checks.i13_mail_read(route, sender),
            Seen::PingSent { session, token } => checks.ping_sent(self.now, session, token),
            Seen::Pong { session, token } => checks.pong(session, token),
            Seen::StartSent { session, build } => {
                checks.i4_start_follows_pong(&self.store, session, build);
            }
            Seen::AttachedSent { worker, session, incarnation } => {
                checks.i12_incarnation_is_stored(&self.store, worker, session, incarnation);
            }
            Seen::Adopted => self.saw.adoption = true,
            Seen::SlotGranted { worker, builder, claim, incarnation, limit } => {
                let slot = Slot { worker, builder, incarnation };
                checks.i5_slots(&self.store, claim, slot, limit);
            }
            Seen::SlotsKept { worker, builder, claims } => {
                checks.slots_kept(worker, &builder, &claims);
            }
            Seen::SlotBack { claim } => checks.slot_back(claim),
            Seen::Ignored(kind) => {
                *checks.ignored.entry(kind).or_default() += 1;
                self.say(|| format!("ignored: {kind}"));
            }
            Seen::WorkerComplains(what) => self.say(|| format!("a worker complains: {what}")),
            Seen::Hello { actor, worker, session, over } => {
                checks.hello(actor, worker, session);
                self.saw.duplicate_attach |= over;
            }
            Seen::FrameTaken { actor, session } => {
                checks.i2_newest_session_speaks(actor, session);
            }
            Seen::FinishedSent { build } => checks.i12_end_is_durable(&self.store, build),
            Seen::Disowned { build } => self.say(|| format!("build {build} is disowned")),
            Seen::LogOf { log, command } => self.logs.name(log, command),
            Seen::ConnectionOver(session) => {
                if let Some(master) = &mut self.master {
                    master.connections.remove(&session);
                }
            }
            Seen::WorkerNote { worker, text, bad } => self.worker_note(&worker, &text, bad),
            Seen::Oddity(what) => checks.fail("oddity", what),
            Seen::TakenOver { running } => self.saw.takeover_with_build |= running,
            Seen::Reloading { unchanged } => self.say(|| format!("unchanged: {unchanged:?}")),
        }
    }

    /// I14: with faults on one worker only, no other one is seen to fail.
    pub(super) fn worker_note(&mut self, worker: &WorkerName, text: &str, bad: bool) {
        self.mark("note", text.len() as u64, u64::from(bad));
        if self.trace.verbose {
            let line = format!("note: {text}");
            self.say(|| line);
        }
        if let Some(victim) = &self.victim
            && !self.calm
            && bad
            && worker != victim
        {
            let what = format!("worker {worker} had `{text}`, and only {victim} has faults");
            self.checks.fail("I14", what);
        }
    }

    /// I10: after each message of a builder.
    pub(super) fn look_at_order(&mut self, to: Addr) {
        let Some(master) = &self.master else { return };
        let Some(Actor::Builder(builder)) = master.actor(to) else { return };
        if !builder.is_live() {
            return;
        }
        let waiting: Vec<_> = builder.core.pending().map(|request| request.id).collect();
        let view = builder.core.view();
        let reserving = view
            .builds
            .iter()
            .filter(|build| build.state == "reserving" && !build.inherited)
            .filter_map(|build| build.requests.first().copied())
            .collect();
        self.checks.i10_order(&self.store, builder.core.id(), &waiting, &reserving);
    }
}
