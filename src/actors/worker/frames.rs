//! What a worker says, and the answers that need nobody else. This is where a
//! frame about somebody else's build is caught.

use std::collections::BTreeMap;

use super::Worker;
use crate::actors::context::Context;
use crate::actors::heartbeats::HERE;
use crate::actors::runtime::World;
use crate::actors::worker_connection::ABILITIES;
use crate::board::Refused;
use crate::core::heartbeats::Beat;
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::worker::{Brought, Event};
use crate::faults;
use crate::messages::*;
use crate::protocol::json_v1::{
    Inventory, InventoryState, MasterFrame, PROTO, Resume, ResumeAction, WINDOW, WireError,
    WorkerFrame,
};

/// What a frame about a command that nobody gave is counted as.
pub(in crate::actors) const NEVER_GIVEN: &str = "frame of a command that was never given";

/// It meddles with what is not its own: told, counted, dropped (I16).
pub(in crate::actors) fn breach(
    world: &World,
    link: &WorkerLink,
    worker: &WorkerName,
    kind: &'static str,
    message: String,
) {
    tracing::warn!(worker.name = %worker, kind, %message, "connection dropped: the worker meddles with what is not its own");
    world.board.count_ignored(kind);
    link.send(&MasterFrame::Error(WireError { code: "not_yours".into(), message }));
    link.close("it meddled with what is not its own");
}

impl Worker {
    pub(super) fn send_attached(&self, session: SessionId, incarnation: Incarnation) {
        let timers = self.world.timers;
        if let Some(link) = self.link(session) {
            link.send(&MasterFrame::Attached {
                proto: PROTO,
                incarnation,
                caps: ABILITIES.iter().map(|one| (*one).to_owned()).collect(),
                heartbeat_s: timers.heartbeat.as_secs().max(1),
                idle_heartbeat_s: Some(timers.idle_heartbeat.as_secs().max(1)),
                lease_s: timers.lease.as_secs().max(1),
                window: WINDOW,
            });
        }
    }

    /// People read why a worker is not let in, and until when.
    pub(super) fn show_turned_away(&self, session: SessionId) {
        let now = self.world.clock.now();
        let Some((away, present)) = self.core.turned_away(now.mono).zip(self.links.get(&session))
        else {
            return;
        };
        let left = i64::try_from(away.until.since(now.mono).as_micros()).unwrap_or(i64::MAX);
        self.world.board.show_refused(
            &self.name,
            Refused {
                reason: away.reason.clone(),
                address: present.address.clone(),
                at: now.wall,
                until: Some(WallTime(now.wall.0.saturating_add(left))),
            },
        );
    }

    pub(super) fn on_frame(
        &mut self,
        session: SessionId,
        frame: WorkerFrame,
        ctx: &mut Context<Self>,
    ) {
        match frame {
            WorkerFrame::Inventory(Inventory { builds, more }) => {
                let builds = builds
                    .into_iter()
                    .map(|item| Brought {
                        build: item.build,
                        builder: item.builder,
                        command: item.command,
                        lost: item.state == InventoryState::Lost,
                    })
                    .collect();
                self.step(Event::Inventory { session, builds, more }, ctx);
                if !more {
                    faults::crash_point("attach.after_inventory");
                }
            }
            WorkerFrame::BuilderReady { builder } => {
                self.step(Event::BuilderAnswer { session, builder, error: None }, ctx);
            }
            WorkerFrame::BuilderFailed { builder, code, message } => {
                let error = Some(format!("{code}: {message}"));
                self.step(Event::BuilderAnswer { session, builder, error }, ctx);
            }
            WorkerFrame::Pong { id: HERE } => {}
            WorkerFrame::Pong { id } => match self.pings.remove(&id) {
                Some((_, pong, _)) => pong.do_send(Pong),
                None => self.world.ignored("pong that nobody waits for"),
            },
            WorkerFrame::PingFailed { id, message } => match self.pings.remove(&id) {
                Some((_, _, lost)) => {
                    tracing::warn!(worker.name = %self.name, %message, "the worker says that it cannot work");
                    lost.do_send(PingLost);
                }
                None => self.world.ignored("pong that nobody waits for"),
            },
            WorkerFrame::Heartbeat { seq, running } => {
                let timers = self.world.timers;
                let idle = running.is_empty();
                if let Some(link) = self.link(session) {
                    link.beats(if idle { timers.idle_heartbeat } else { timers.heartbeat });
                }
                if let (Some(link), Some(incarnation)) =
                    (self.link(session), self.core.incarnation())
                {
                    let beat = Beat { worker: self.id, incarnation, session, seq };
                    let link = link.clone();
                    self.doors.heartbeats.do_send(HeartbeatArrived { beat, link });
                }
            }
            WorkerFrame::BuildAccepted { build, epoch }
            | WorkerFrame::Refused { build, epoch, .. }
                if !self.is_the_starts(session, build, epoch) => {}
            WorkerFrame::BuildAccepted { build, epoch: _ } => {
                faults::crash_point("start.after_answer");
                self.on_start_answer(session, build, SeatNewsKind::Accepted(build));
            }
            WorkerFrame::Refused { build, epoch: _, code, message } => {
                let news = SeatNewsKind::Refused { build, code, message };
                self.on_start_answer(session, build, news);
            }
            WorkerFrame::CommandStarted { build, command } => {
                if self.owned(session, build) {
                    self.said(build, command, None);
                }
            }
            WorkerFrame::CommandRefused { build, command, code, message } => {
                if self.owned(session, build) {
                    self.said(build, command.clone(), None);
                    self.tell_build(
                        build,
                        crate::core::build::Event::CommandEnded {
                            command,
                            end: crate::core::build::CommandEnd::Refused(format!(
                                "{code}: {message}"
                            )),
                            properties: Vec::new(),
                        },
                    );
                }
            }
            WorkerFrame::CommandFinished {
                build,
                command,
                outcome,
                log_end,
                log_digest,
                properties,
                ..
            } => {
                if self.owned(session, build)
                    && let Some(door) = self.builds.get(&build)
                {
                    let properties = properties.into_iter().collect();
                    door.finished.do_send(CommandFinished {
                        command,
                        outcome,
                        log_end,
                        log_digest,
                        properties,
                    });
                }
            }
            WorkerFrame::Abandoned { build } => self.step(Event::Abandoned { build }, ctx),
            WorkerFrame::Draining { message } => {
                tracing::info!(worker.name = %self.name, %message, "the worker leaves");
                self.step(Event::Draining, ctx);
            }
            WorkerFrame::Error(error) => {
                tracing::warn!(worker.name = %self.name, code = %error.code, message = %error.message, "the worker complains");
                if let Some(link) = self.link(session) {
                    link.complained();
                }
            }
            WorkerFrame::Attach(again) => self.attached_again(session, &again.name),
            // Text that nobody waits for; the rest never comes here.
            WorkerFrame::Log(data) => {
                if self.owned(session, data.build) {
                    self.unexpected_text(session, data.build, data.command);
                }
            }
        }
    }

    /// A second attach changes nothing, and succeeds (row B21, fault row FA01).
    /// One for another name is a breach.
    fn attached_again(&self, session: SessionId, name: &WorkerName) {
        if *name != self.name {
            let message = format!("this connection is that of worker {}", self.name);
            return self.breach(session, "attach of another worker", message);
        }
        self.world.ignored("attach on an attached connection");
        if let Some(incarnation) = self.core.incarnation() {
            self.send_attached(session, incarnation);
        }
    }

    /// Text of a command that writes no log: late when the command has ended, a
    /// breach when there never was one (fault row FL11).
    fn unexpected_text(&self, session: SessionId, build: BuildId, command: CommandId) {
        const LATE: &str = "log text that nobody waits for";
        if self.link(session).is_none_or(|link| link.logs().has_ended(&command)) {
            return self.world.ignored(LATE);
        }
        // It may have ended over an earlier connection: the Build knows.
        self.said(build, command, Some(LATE));
    }

    fn said(&self, build: BuildId, command: CommandId, late: Option<&'static str>) {
        if let Some(door) = self.builds.get(&build) {
            door.said.do_send(CommandSaid { command, late });
        }
    }

    fn breach(&self, session: SessionId, kind: &'static str, message: String) {
        match self.link(session) {
            Some(link) => breach(&self.world, link, &self.name, kind, message),
            None => self.world.board.count_ignored(kind),
        }
    }

    /// Whether the build is this worker's. An ended one's late frames are
    /// nothing; anything else is a breach, and the connection is dropped
    /// (fault rows FL11, FN09).
    fn owned(&mut self, session: SessionId, build: BuildId) -> bool {
        if self.core.has_build(build) {
            return true;
        }
        if self.ended.contains(&build) || self.core.is_abandoning(build) {
            self.world.ignored("frame of a build that ended");
            return false;
        }
        let message = format!("build {build} is not a build of this worker");
        self.breach(session, "frame for a build that is not the worker's", message);
        false
    }

    /// Whether an answer to a start is in the epoch that was given. An older one
    /// is late; a later one was never given (fault row FN09).
    fn is_the_starts(&self, session: SessionId, build: BuildId, epoch: Epoch) -> bool {
        let given = self.starts.get(&build).map_or(epoch, |(_, given)| *given);
        if epoch > given {
            let message = format!("build {build} has no epoch {epoch}");
            self.breach(session, "epoch that was never given", message);
        } else if epoch < given {
            self.world.ignored("answer to an older start");
        }
        epoch == given
    }

    /// An acceptance that nobody waits for any more is called off, so that the
    /// worker's slot does not stay taken.
    fn on_start_answer(&mut self, session: SessionId, build: BuildId, news: SeatNewsKind) {
        let seat = self.starts.remove(&build).and_then(|(builder, _)| self.seats.get(&builder));
        match (seat, &news) {
            // One that was let go with its broken builder hears nothing.
            (Some((theirs, seat)), _) if *theirs == session && seat.connected() => {
                seat.do_send(SeatNews(news));
            }
            (_, SeatNewsKind::Accepted(_)) if !self.core.has_build(build) => {
                self.world.ignored("acceptance of a start that is over");
                self.abandon(build, None);
            }
            _ => self.world.ignored("answer to a start that is over"),
        }
    }

    pub(super) fn abandon(&self, build: BuildId, command: Option<CommandId>) {
        self.send(&MasterFrame::Resume(Resume {
            build,
            command,
            r#do: ResumeAction::Abandon,
            log_from: BTreeMap::new(),
        }));
    }
}
