//! The invariants of `docs/fault-matrix.md` section 3, as far as one master
//! and its workers go. Each is one function or a few that carry its id; the
//! world calls them where the fact arises.
//!
//! I1 no request is lost · I2 one live claim · I3 never two at once · I4 only
//! IDLE starts · I5 limits hold · I6 nothing wedges · I7 ends are final · I8
//! numbers · I9 logs are exact · I10 order · I11 the event stream tells all ·
//! I12 durable before told · I13 reconfiguration is all or nothing · I14 faults
//! stay local · I15 memory is bounded · I16 a worker is a stranger · I18 the
//! wall clock is decoration (see `run.rs`) · I20 stopping ends. I17 (secrets)
//! and I19 (restart time) are not about deciding and are tested elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use botmaster::core::ids::*;
use botmaster::core::time::Timestamp;
use botmaster::core::values::BuildResult;
use botmaster::store::{BuildState, Change, Op, OpOutcome, RequestState, Transaction, Written};

use crate::bus::Addr;
use crate::logs_desk::LogDesk;
use crate::memory::MemoryStore;

/// A finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which invariant.
    pub id: &'static str,
    /// What was seen.
    pub what: String,
}

#[derive(Clone, Debug, Default)]
struct Session {
    worker: Option<WorkerId>,
    incarnation: Option<Incarnation>,
    pings: BTreeMap<PingToken, Timestamp>,
    /// When the latest ping that was answered had gone out.
    answered: Option<Timestamp>,
}

/// A process as I3 sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Live {
    machine: usize,
    build: BuildId,
    command: CommandId,
}

/// A slot that was given, and whose claim is not stored yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Whose.
    pub worker: WorkerId,
    /// To whom.
    pub builder: BuilderName,
    /// The worker's number.
    pub incarnation: Incarnation,
}

/// What the invariants remember.
#[derive(Default)]
pub struct Checks {
    /// The first finding.
    pub found: Option<Violation>,
    sessions: BTreeMap<SessionId, Session>,
    newest: BTreeMap<Addr, SessionId>,
    live: BTreeMap<RequestId, Vec<Live>>,
    numbers: BTreeMap<BuilderId, u64>,
    told_requests: BTreeMap<RequestId, RequestState>,
    told_builds: BTreeMap<BuildId, (bool, Option<BuildResult>)>,
    claimed_at: BTreeMap<BuildId, Timestamp>,
    grants: BTreeMap<ClaimId, Slot>,
    last_event: u64,
    mail_sent: BTreeMap<(u64, u64), u64>,
    mail_read: BTreeMap<(u64, u64), u64>,
    /// Requests whose priority was ever touched: what the core and the store
    /// think of it may differ for a moment.
    pub touched: BTreeSet<RequestId>,
    away: BTreeMap<(u64, u64), (u64, u64)>,
    /// Routes of builders that are in charge.
    pub routes: BTreeSet<u64>,
    chosen: BTreeMap<BuilderId, BTreeSet<RequestId>>,
    wedged: BTreeMap<(BuilderName, WorkerName), Timestamp>,
    /// How often something stale was ignored.
    pub ignored: BTreeMap<&'static str, u64>,
}

impl Checks {
    /// Notes a finding; the first one counts.
    pub fn fail(&mut self, id: &'static str, what: impl Into<String>) {
        if self.found.is_none() {
            self.found = Some(Violation { id, what: what.into() });
        }
    }

    fn hold(&mut self, holds: bool, id: &'static str, what: impl FnOnce() -> String) {
        if !holds && self.found.is_none() {
            self.found = Some(Violation { id, what: what() });
        }
    }

    /// The master's process is gone: what was known of its insides, too.
    pub fn master_is_gone(&mut self) {
        self.sessions.clear();
        self.newest.clear();
        self.grants.clear();
        self.mail_sent.clear();
        self.mail_read.clear();
        self.chosen.clear();
        self.away.clear();
        self.routes.clear();
        self.wedged.clear();
        self.claimed_at.clear();
    }

    // I1, I12: submissions.

    /// I1, I12: what a client is told of its submission is in the store.
    pub fn i1_i12_acknowledged_is_stored(
        &mut self,
        store: &MemoryStore,
        ids: &[RequestId],
        before: Option<&[RequestId]>,
    ) {
        for id in ids {
            self.hold(store.request(*id).is_some(), "I12", || {
                format!("request {id} was acknowledged and is not in the store")
            });
        }
        self.hold(before.is_none_or(|before| before == ids), "I1", || {
            format!("a submission sent again was answered {ids:?}, before {before:?}")
        });
        self.hold(!ids.is_empty(), "I1", || "a submission came to no request".into());
    }

    /// I1: every acknowledged request is there, in exactly one state; a claimed
    /// one has its build.
    pub fn i1_none_is_lost(&mut self, store: &MemoryStore, acknowledged: &BTreeSet<RequestId>) {
        for id in acknowledged {
            self.hold(store.request(*id).is_some(), "I1", || format!("request {id} is gone"));
        }
        let mut held: BTreeMap<RequestId, usize> = BTreeMap::new();
        for build in store.builds().filter(|build| build.row.state != BuildState::Finished) {
            for (request, epoch) in &build.requests {
                let row = store.request(*request);
                if row.is_some_and(|row| row.state == RequestState::Claimed && row.epoch == *epoch)
                {
                    *held.entry(*request).or_default() += 1;
                }
            }
        }
        for row in store.requests() {
            let (id, owners) = (row.id, held.get(&row.id).copied().unwrap_or(0));
            match row.state {
                RequestState::Claimed => {
                    self.hold(owners >= 1, "I1", || format!("request {id} is claimed by no build"));
                    self.hold(owners <= 1, "I2", || {
                        format!("request {id} is claimed by {owners} builds")
                    });
                }
                RequestState::Queued | RequestState::Done | RequestState::Cancelled => {}
            }
        }
    }

    // I2, I7, I8, I11, I12: commits.

    /// A transaction was carried out, or refused.
    pub fn committed(
        &mut self,
        now: Timestamp,
        store: &MemoryStore,
        transaction: &Transaction,
        written: &Written,
    ) {
        let Ok(outcomes) = written else { return };
        for (op, outcome) in transaction.ops.iter().zip(outcomes) {
            match (op, outcome) {
                (
                    Op::Claim { requests, claim, .. },
                    OpOutcome::Claimed { build, requests: got, .. },
                ) => {
                    self.i2_claims_the_next_epoch(requests, got);
                    self.claimed_at.insert(build.id, now);
                    self.grants.remove(claim);
                }
                (Op::FinishBuild { build, incarnation, .. }, _) => {
                    self.i2_owner_finishes(store, *build, *incarnation);
                }
                (Op::SetPriority { request, .. }, _) => {
                    self.touched.insert(*request);
                }
                _ => {}
            }
        }
        self.i11_events(store);
    }

    /// I2: a claim takes a request in the epoch that it has, to the next one.
    fn i2_claims_the_next_epoch(
        &mut self,
        asked: &[(RequestId, Epoch)],
        got: &[std::sync::Arc<botmaster::store::RequestRow>],
    ) {
        for row in got {
            let epoch = asked.iter().find(|(id, _)| *id == row.id).map(|(_, epoch)| *epoch);
            self.hold(epoch.is_none_or(|epoch| row.epoch.0 == epoch.0 + 1), "I2", || {
                format!(
                    "request {} was claimed in epoch {:?} and is in {}",
                    row.id, epoch, row.epoch
                )
            });
        }
    }

    /// I2: only the incarnation that owns a build ends it.
    fn i2_owner_finishes(&mut self, store: &MemoryStore, build: BuildId, by: Incarnation) {
        let Some(record) = store.build(build) else { return };
        let owner = record.row.incarnation;
        self.hold(owner == by, "I2", || {
            format!("build {build} of incarnation {owner} was ended by incarnation {by}")
        });
    }

    /// I7, I8, I11: the event stream is numbered without a gap, tells each
    /// transition once, and what it tells is in the store.
    fn i11_events(&mut self, store: &MemoryStore) {
        let from = usize::try_from(self.last_event).unwrap_or(usize::MAX);
        let new: Vec<_> = store.events().get(from..).unwrap_or_default().to_vec();
        for event in new {
            let expected = self.last_event + 1;
            self.hold(event.seq == expected, "I11", || {
                format!("event {} came where {expected} was due", event.seq)
            });
            self.last_event = event.seq;
            self.change(store, &event.change);
        }
    }

    fn change(&mut self, store: &MemoryStore, change: &Change) {
        match change {
            Change::RequestNew(row)
            | Change::RequestClaimed(row)
            | Change::RequestUnclaimed(row)
            | Change::RequestComplete(row) => {
                self.i7_request_ends_once(row.id, row.state);
                let told = matches!(change, Change::RequestNew(_));
                self.i11_right_order(row.id, row.state, told);
                self.told_requests.insert(row.id, row.state);
            }
            Change::BuildNew(row) => {
                self.i8_numbers_grow(row.builder, row.number);
                self.told_builds.insert(row.id, (false, None));
            }
            Change::BuildFinished(row) => {
                let before = self.told_builds.insert(row.id, (true, row.results));
                self.hold(before != Some((true, row.results)), "I7", || {
                    format!("build {} was told to have ended twice", row.id)
                });
                self.hold(before.is_none_or(|(over, _)| !over), "I7", || {
                    format!("build {} has a second result {:?}", row.id, row.results)
                });
                self.hold(before.is_some(), "I11", || {
                    format!("build {} ended and was never told to have begun", row.id)
                });
                let stored = store.build(row.id).map(|record| record.row.state);
                self.hold(stored == Some(BuildState::Finished), "I12", || {
                    format!("build {} was told to have ended and is {stored:?}", row.id)
                });
            }
            _ => {}
        }
    }

    /// I7: done and cancelled requests never come back.
    fn i7_request_ends_once(&mut self, id: RequestId, state: RequestState) {
        let before = self.told_requests.get(&id).copied();
        let over = matches!(before, Some(RequestState::Done | RequestState::Cancelled));
        self.hold(!over, "I7", || format!("request {id} was {before:?} and became {state:?}"));
    }

    /// I11: no transition is left out.
    fn i11_right_order(&mut self, id: RequestId, state: RequestState, is_new: bool) {
        let before = self.told_requests.get(&id).copied();
        let fits = match state {
            RequestState::Queued if is_new => before.is_none(),
            RequestState::Queued => before == Some(RequestState::Claimed),
            RequestState::Claimed => before == Some(RequestState::Queued),
            RequestState::Done => before == Some(RequestState::Claimed),
            RequestState::Cancelled => before.is_some(),
        };
        self.hold(fits || before.is_some_and(over), "I11", || {
            format!("request {id} was told {before:?}, then {state:?}")
        });
    }

    /// I11: what was told adds up to what is stored.
    pub fn i11_adds_up(&mut self, store: &MemoryStore) {
        for row in store.requests() {
            let told = self.told_requests.get(&row.id).copied();
            self.hold(told == Some(row.state), "I11", || {
                format!("request {} is {:?} and was told {told:?}", row.id, row.state)
            });
        }
        self.hold(self.told_requests.len() == store.requests().count(), "I11", || {
            "requests were told that are not stored".into()
        });
        for record in store.builds() {
            let told = self.told_builds.get(&record.row.id).map(|(over, _)| *over);
            let stored = match record.row.state {
                BuildState::Claimed => None,
                BuildState::Running => Some(false),
                BuildState::Finished => Some(true),
            };
            self.hold(told == stored || record.row.number.is_none(), "I11", || {
                format!("build {} is {:?} and was told {told:?}", record.row.id, record.row.state)
            });
        }
    }

    /// I8: numbers of a builder only grow.
    fn i8_numbers_grow(&mut self, builder: BuilderId, number: Option<BuildNumber>) {
        let Some(number) = number else {
            self.fail("I8", format!("a build of builder {builder} started without a number"));
            return;
        };
        let last = self.numbers.insert(builder, number.0);
        self.hold(last.is_none_or(|last| last < number.0), "I8", || {
            format!("builder {builder} gave number {number} after {last:?}")
        });
    }

    // I2, I4: sessions, pings, starts.

    /// A connection proved itself.
    pub fn hello(&mut self, actor: Addr, worker: WorkerId, session: SessionId) {
        self.newest.insert(actor, session);
        self.sessions.entry(session).or_default().worker = Some(worker);
    }

    /// I2: only the newest connection of a worker is listened to. A worker that
    /// was removed and came back has two actors for a while: the old one's
    /// connection stands as long as its builds do.
    pub fn i2_newest_session_speaks(&mut self, actor: Addr, session: SessionId) {
        let newest = self.newest.get(&actor).copied();
        self.hold(newest == Some(session), "I2", || {
            format!("a frame of session {session} was taken; the worker's newest is {newest:?}")
        });
    }

    /// I12: the worker hears its incarnation once the store has it.
    pub fn i12_incarnation_is_stored(
        &mut self,
        store: &MemoryStore,
        worker: WorkerId,
        session: SessionId,
        incarnation: Incarnation,
    ) {
        self.sessions.entry(session).or_default().incarnation = Some(incarnation);
        let stored = store.worker(worker).map(|record| record.row.incarnation);
        self.hold(stored >= Some(incarnation), "I12", || {
            format!("incarnation {incarnation} was told, the store has {stored:?}")
        });
    }

    /// A ping went out.
    pub fn ping_sent(&mut self, now: Timestamp, session: SessionId, token: PingToken) {
        self.sessions.entry(session).or_default().pings.insert(token, now);
    }

    /// It was answered.
    pub fn pong(&mut self, session: SessionId, token: PingToken) {
        let session = self.sessions.entry(session).or_default();
        if let Some(sent) = session.pings.remove(&token) {
            session.answered = session.answered.max(Some(sent));
        }
    }

    /// I4: a start goes out only after a ping that was sent for it, over the
    /// same connection, was answered; never while the pair has a build already.
    pub fn i4_start_follows_pong(
        &mut self,
        store: &MemoryStore,
        session: SessionId,
        build: BuildId,
    ) {
        let known = self.sessions.entry(session).or_default().clone();
        let Some(record) = store.build(build) else {
            return self.fail("I12", format!("build {build} was started and is not stored"));
        };
        let row = &record.row;
        self.hold(row.state == BuildState::Claimed, "I12", || {
            format!("build {build} was started while it is {:?}", row.state)
        });
        let claimed = self.claimed_at.get(&build).copied();
        self.hold(known.answered.is_some() && known.answered >= claimed, "I4", || {
            format!(
                "build {build}, claimed at {claimed:?}, was started over session {session}, whose \
                 last answered ping went out at {:?}",
                known.answered
            )
        });
        let incarnation = known.incarnation;
        self.hold(incarnation == Some(row.incarnation), "I4", || {
            format!(
                "build {build} of incarnation {} was started over one of {incarnation:?}",
                row.incarnation
            )
        });
        let other = store.builds().find(|other| {
            other.row.id != build
                && other.row.state == BuildState::Running
                && other.row.builder == row.builder
                && other.row.worker == row.worker
                && other.row.incarnation == row.incarnation
        });
        let other = other.map(|other| other.row.id);
        self.hold(other.is_none(), "I4", || {
            format!("build {build} was started on a pair that has build {other:?}")
        });
    }

    // I3: processes.

    /// I3: no two machines run processes for the same request. Builds' keepers
    /// keep the lease whatever their program does (rows FR13 to FR15). Those of
    /// a second machine that took the first one's name cannot (FA03).
    pub fn i3_never_two_at_once(
        &mut self,
        machine: usize,
        build: BuildId,
        command: &CommandId,
        requests: &[RequestId],
        keeps_its_lease: impl Fn(usize) -> bool,
    ) {
        let me = Live { machine, build, command: command.clone() };
        for request in requests {
            let live = self.live.entry(*request).or_default();
            let other = live
                .iter()
                .find(|other| {
                    (other.machine, other.build) != (machine, build)
                        && keeps_its_lease(other.machine)
                        && keeps_its_lease(machine)
                })
                .cloned();
            live.push(me.clone());
            self.hold(other.is_none(), "I3", || {
                format!("request {request} runs as {me:?} and as {other:?}")
            });
        }
    }

    /// A process ended.
    pub fn process_over(&mut self, machine: usize, build: BuildId, command: &CommandId) {
        for live in self.live.values_mut() {
            live.retain(|one| {
                !(one.machine == machine && one.build == build && one.command == *command)
            });
        }
        self.live.retain(|_, live| !live.is_empty());
    }

    // I5: slots.

    /// I5: with the slot that is given now the worker has no more builds than
    /// it may have.
    pub fn i5_slots(&mut self, store: &MemoryStore, claim: ClaimId, slot: Slot, limit: u32) {
        let (worker, incarnation) = (slot.worker, slot.incarnation);
        let open = store.builds().filter(|build| {
            build.row.worker == worker
                && build.row.state == BuildState::Running
                && build.row.incarnation == incarnation
        });
        let fresh = store.builds().filter(|build| {
            build.row.worker == worker
                && build.row.state == BuildState::Claimed
                && build.row.incarnation == incarnation
                && self.claimed_at.contains_key(&build.row.id)
        });
        let granted = self
            .grants
            .iter()
            .filter(|(other, at)| {
                **other != claim && (at.worker, at.incarnation) == (worker, incarnation)
            })
            .count();
        let used = open.count() + fresh.count() + granted;
        self.grants.insert(claim, slot);
        self.hold(used < limit as usize, "I5", || {
            format!("worker {worker} has {used} builds of {limit} and was given one more")
        });
    }

    /// A slot came back before its claim was made.
    pub fn slot_back(&mut self, claim: ClaimId) {
        self.grants.remove(&claim);
    }

    /// A builder that was started again told which slots it knows.
    pub fn slots_kept(
        &mut self,
        worker: WorkerId,
        builder: &BuilderName,
        claims: &BTreeSet<ClaimId>,
    ) {
        self.grants.retain(|claim, slot| {
            slot.worker != worker || slot.builder != *builder || claims.contains(claim)
        });
    }

    // I6: nothing wedges.

    /// I6: a request that waits, a seat that is thought full, and a worker
    /// that has room: that must not last.
    pub fn i6_no_seat_is_forgotten(
        &mut self,
        now: Timestamp,
        stuck: &BTreeSet<(BuilderName, WorkerName)>,
    ) {
        self.wedged.retain(|pair, _| stuck.contains(pair));
        for pair in stuck {
            let since = *self.wedged.entry(pair.clone()).or_insert(now);
            let waited = now.since(since);
            self.hold(waited.as_secs() < 3, "I6", || {
                format!(
                    "builder {} has requests waiting, worker {} has room, and nothing is tried for {waited:?}",
                    pair.0, pair.1
                )
            });
        }
    }

    // I9: logs.

    /// I9: a log that ended whole has all that its command wrote, and nothing
    /// has more.
    pub fn i9_logs_are_exact(
        &mut self,
        store: &MemoryStore,
        desk: &LogDesk,
        written: impl Fn(&CommandId) -> Option<u64>,
    ) {
        for record in store.logs() {
            let id = record.row.id;
            let Some(command) = desk.command(id) else { continue };
            let Some(truth) = written(command) else { continue };
            let reached = desk.reached(id).max(desk.closed(id).unwrap_or(0));
            self.hold(reached <= truth, "I9", || {
                format!("log {id} has {reached} bytes, command {command} wrote {truth}")
            });
            let whole = record.row.complete && record.incomplete.is_none();
            if let Some(closed) = desk.closed(id).filter(|_| whole) {
                self.hold(closed == truth, "I9", || {
                    format!("log {id} ended whole with {closed} bytes of {truth}")
                });
            }
        }
    }

    /// I12: bytes are confirmed once they are on disk.
    pub fn i12_confirmed_is_durable(&mut self, desk: &LogDesk, log: LogId, have: u64) {
        let durable = desk.durable(log);
        self.hold(have <= durable, "I12", || {
            format!("{have} bytes of log {log} were confirmed, {durable} are on disk")
        });
    }

    /// I12: a worker hears of an end that is durable.
    pub fn i12_end_is_durable(&mut self, store: &MemoryStore, build: BuildId) {
        let state = store.build(build).map(|record| record.row.state);
        self.hold(state == Some(BuildState::Finished), "I12", || {
            format!("build {build} was told to its worker as ended and is {state:?}")
        });
    }

    /// I12: a cancel that was answered with yes has ended the request or is
    /// stopping its build.
    pub fn i12_cancel_holds(&mut self, store: &MemoryStore, request: RequestId) {
        let state = store.request(request).map(|row| row.state);
        let holds = state.is_some() && state != Some(RequestState::Queued);
        self.hold(holds, "I12", || {
            format!("request {request} was told to be cancelled and is {state:?}")
        });
    }

    // I10: order.

    /// I10: requeued first, then higher priority, then older. `waiting` and
    /// `reserving` are a builder's right after it has chosen.
    pub fn i10_order(
        &mut self,
        store: &MemoryStore,
        builder: BuilderId,
        waiting: &[RequestId],
        reserving: &BTreeSet<RequestId>,
    ) {
        let key = |id: &RequestId| {
            store.request(*id).map(|row| {
                let (first, high) =
                    (std::cmp::Reverse(row.requeued), std::cmp::Reverse(row.priority));
                (first, high, row.id)
            })
        };
        let plain: Vec<_> =
            waiting.iter().filter(|id| !self.touched.contains(id)).filter_map(key).collect();
        self.hold(plain.is_sorted(), "I10", || {
            format!("builder {builder} has its queue in the order {plain:?}")
        });
        let known = self.chosen.insert(builder, reserving.clone()).unwrap_or_default();
        let fresh = reserving.difference(&known).filter(|id| !self.touched.contains(id));
        let last = fresh.filter_map(key).max();
        self.hold(
            last.is_none() || plain.is_empty() || last < plain.first().copied(),
            "I10",
            || format!("builder {builder} chose {last:?} while {:?} waited", plain.first()),
        );
    }

    // I13: mail and reloads.

    /// Mail was sent.
    pub fn mail_sent(&mut self, route: u64, sender: u64, seq: u64) {
        self.mail_sent.insert((route, sender), seq);
    }

    /// I13: no piece of mail is read that was not sent, or twice.
    pub fn i13_mail_read(&mut self, route: u64, sender: u64) {
        let read = self.mail_read.entry((route, sender)).or_default();
        *read += 1;
        let (read, sent) = (*read, self.mail_sent.get(&(route, sender)).copied().unwrap_or(0));
        self.hold(read <= sent, "I13", || {
            format!("{read} pieces of mail of sender {sender} were read, {sent} were sent")
        });
    }

    /// I13: in calm a piece of mail arrives within a minute, unless its builder
    /// is gone for good.
    pub fn i13_no_mail_stays_away(&mut self) {
        let away: BTreeMap<_, _> = self
            .mail_sent
            .iter()
            .map(|(key, sent)| (*key, (*sent, self.mail_read.get(key).copied().unwrap_or(0))))
            .filter(|((route, _), (sent, read))| sent != read && self.routes.contains(route))
            .collect();
        let stays = away.iter().find(|(key, state)| self.away.get(key) == Some(state));
        let stays =
            stays.map(|(key, state)| format!("(route, sender) {key:?}: (sent, read) {state:?}"));
        self.away = away;
        if let Some(stays) = stays {
            self.fail("I13", format!("mail is lost: {stays}"));
        }
    }

    /// I13: every piece that was sent has been read, for these routes.
    pub fn i13_no_mail_is_lost(&mut self, routes: &BTreeSet<u64>) {
        let lost: Vec<_> = self
            .mail_sent
            .iter()
            .filter(|((route, _), _)| routes.contains(route))
            .map(|(key, sent)| (*key, *sent, self.mail_read.get(key).copied().unwrap_or(0)))
            .filter(|(_, sent, read)| sent != read)
            .collect();
        self.hold(lost.is_empty(), "I13", || {
            format!("mail was lost: (route, sender), sent, read: {lost:?}")
        });
    }
}

fn over(state: RequestState) -> bool {
    matches!(state, RequestState::Done | RequestState::Cancelled)
}
