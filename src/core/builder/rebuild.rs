//! The one way up: after a start and after a panic a builder is built from the
//! store's records and from what its living parts report.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Take;
use super::expectations::Expectations;
use super::queue::Request;
use super::seat::{Seat, SeatUse};
use super::{ActiveBuild, BuilderCore, Effect, InheritedBuild, Phase, Stop, Wish};
use crate::core::ids::*;
use crate::core::planted;
use crate::core::time::Now;

/// A build that had not ended.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenBuild {
    /// Whose.
    pub claim: ClaimId,
    /// Its id.
    pub build: BuildId,
    /// Its number, once it had started.
    pub number: Option<BuildNumber>,
    /// Its worker.
    pub worker: WorkerName,
    /// The worker is configured: it may come back with the build.
    pub may_return: bool,
    /// Its requests.
    pub requests: Vec<Request>,
    /// Why somebody wants it stopped, when somebody does.
    pub stop: Option<String>,
}

/// What the store has of a builder.
#[derive(Clone, PartialEq, Debug)]
pub struct Records {
    /// Requests that wait.
    pub queued: Vec<Request>,
    /// Builds that had not ended.
    pub builds: Vec<OpenBuild>,
    /// Those of them that predecessors have.
    pub inherited: Vec<OpenBuild>,
    /// Requests up to this id are known.
    pub loaded_through: RequestId,
    /// What was learnt.
    pub expectations: Option<String>,
}

/// What a SlaveBuilder says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeatReportUse {
    /// Not usable yet.
    Attaching,
    /// Nobody has it.
    Free,
    /// A start is on its way.
    Starting(ClaimId),
    /// The worker has this build.
    Building(ClaimId),
}

/// What a SlaveBuilder says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeatReport {
    /// Its worker.
    pub worker: WorkerName,
    /// Its connection.
    pub session: SessionId,
    /// What it is used for.
    pub used: SeatReportUse,
    /// A person's ping is under way.
    pub pinging: bool,
}

impl BuilderCore {
    /// Builds the state from records and reports. `running` are the builds
    /// whose Build actors live; `inherited` are those that predecessors have.
    pub fn rebuild(
        &mut self,
        now: Now,
        records: Records,
        reports: Vec<SeatReport>,
        running: &BTreeSet<ClaimId>,
        inherited: &BTreeSet<ClaimId>,
        fx: &mut Vec<Effect>,
    ) {
        self.now = self.now.max(now.mono);
        self.loaded_through = self.loaded_through.max(records.loaded_through);
        if let Some(text) = &records.expectations {
            let factory = &self.config.factory_digest;
            self.expectations = Expectations::from_text(text, factory).for_factory(factory);
        }
        for request in records.queued {
            self.queue.push(request);
        }
        for open in records.inherited {
            self.inherited.insert(
                open.claim,
                InheritedBuild {
                    build: Some(open.build),
                    number: open.number,
                    worker: open.worker,
                    requests: open.requests.iter().map(|request| request.id).collect(),
                    state: if open.number.is_some() { "running" } else { "starting" },
                    away: None,
                },
            );
        }
        let reported: BTreeMap<ClaimId, SeatReportUse> = reports
            .iter()
            .filter_map(|report| match report.used {
                SeatReportUse::Starting(claim) | SeatReportUse::Building(claim) => {
                    Some((claim, report.used))
                }
                SeatReportUse::Attaching | SeatReportUse::Free => None,
            })
            .collect();
        let mut accepted = Vec::new();
        let mut lost = Vec::new();
        let mut in_doubt = Vec::new();
        let seen: BTreeSet<_> = reports.iter().map(|report| report.worker.clone()).collect();
        let mut stopped = Vec::new();
        for open in records.builds {
            let phase = match reported.get(&open.claim) {
                _ if running.contains(&open.claim) => Phase::Running,
                Some(SeatReportUse::Building(_)) if open.number.is_none() => {
                    accepted.push(open.claim);
                    Phase::Starting
                }
                Some(SeatReportUse::Starting(_)) => Phase::Starting,
                _ if open.number.is_some() => Phase::Running,
                // The worker is not here: nobody knows how far the start got,
                // and its inventory will tell (fault rows FB02 and FB03).
                _ if open.may_return
                    && open.stop.is_none()
                    && !seen.contains(&open.worker)
                    && !planted::is("fb02_unclaimed_at_once") =>
                {
                    in_doubt.push(open.claim);
                    Phase::Starting
                }
                _ => {
                    lost.push(open.claim);
                    Phase::Starting
                }
            };
            let told = [&accepted, &lost, &in_doubt];
            if !told.iter().any(|claims| claims.contains(&open.claim)) {
                stopped.push(open.claim);
            }
            let kept = open.stop.filter(|_| !planted::is("i12_stop_forgotten_in_a_restart"));
            self.builds.insert(
                open.claim,
                ActiveBuild {
                    worker: open.worker,
                    phase,
                    build: Some(open.build),
                    number: open.number,
                    requests: open.requests,
                    config: self.config.clone(),
                    leaving: Vec::new(),
                    stop: kept.map(|reason| Stop { reason, wish: Wish::Kept }),
                    away: None,
                },
            );
        }
        self.take_seats(reports, inherited, fx);
        // What somebody was told before is still so (invariant I12).
        for claim in stopped {
            self.carry_out_stop(claim, fx);
        }
        for claim in accepted {
            self.on_start_accepted(claim, fx);
        }
        for claim in in_doubt {
            self.run(claim, Take::InDoubt { session: None }, fx);
        }
        for claim in lost {
            self.unclaim(claim, fx);
        }
        self.settle(fx);
    }

    /// Seats come back as they report themselves. One that holds a build that
    /// nobody knows (any more) is told that it is over.
    fn take_seats(
        &mut self,
        reports: Vec<SeatReport>,
        inherited: &BTreeSet<ClaimId>,
        fx: &mut Vec<Effect>,
    ) {
        for report in reports {
            let used = match report.used {
                SeatReportUse::Attaching => SeatUse::Attaching,
                SeatReportUse::Free => SeatUse::Free,
                SeatReportUse::Starting(claim) | SeatReportUse::Building(claim) => {
                    if self.builds.contains_key(&claim) || inherited.contains(&claim) {
                        SeatUse::Taken(claim)
                    } else {
                        fx.push(Effect::CallBackStart { worker: report.worker.clone(), claim });
                        fx.push(Effect::BuildOver { worker: report.worker.clone(), claim });
                        fx.push(Effect::GiveBackSlot { worker: report.worker.clone(), claim });
                        SeatUse::Free
                    }
                }
            };
            let order = self.next_order;
            self.next_order += 1;
            self.seats.insert(
                report.worker,
                Seat {
                    session: report.session,
                    used,
                    order,
                    worker_full: false,
                    in_turn: false,
                    pinging: report.pinging,
                    latent: None,
                },
            );
        }
    }

    /// The claims that this builder knows: every other slot held in its name
    /// is given back after a restart.
    #[must_use]
    pub fn claims(&self) -> BTreeSet<ClaimId> {
        self.builds.keys().copied().collect()
    }

    /// The same, with the requests of each.
    #[must_use]
    pub fn claims_with_requests(&self) -> BTreeMap<ClaimId, BTreeSet<RequestId>> {
        let ids = |build: &ActiveBuild| build.requests.iter().map(|request| request.id).collect();
        self.builds.iter().map(|(claim, build)| (*claim, ids(build))).collect()
    }
}
