//! Old builds go, a few at a time, and nothing that is wanted goes with them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use botmaster::clock::Clock;
use botmaster::core::ids::*;
use botmaster::core::retention::{Retention, RetentionRules};
use botmaster::core::time::WallTime;
use botmaster::core::values::BuildResult;
use botmaster::core::views::HousekeepingView;
use botmaster::events::Events;
use botmaster::store::keep::Housekeeper;
use botmaster::store::logs::{LogStore, RemovedText, SqliteLogs};
use botmaster::store::sqlite::{Filter, Page, Removal, Removed, SqliteStore, StateReader};
use botmaster::store::*;
use rusqlite::Connection;

use crate::logs::{Confirmed, piece};
use crate::world::*;

const BUILDER: BuilderId = BuilderId(1);
const DAY: i64 = 86_400;

/// Stores in a folder, and how many claims were made.
pub struct Stores {
    pub store: SqliteStore,
    logs: SqliteLogs,
    _events: Events,
    dir: std::path::PathBuf,
    claims: u128,
}

/// A build as it was made.
#[derive(Clone, Copy, Debug)]
struct Made {
    build: BuildId,
    log: LogId,
    request: RequestId,
}

fn now() -> WallTime {
    Clock::start().now().wall
}

fn days_ago(days: i64) -> WallTime {
    WallTime(now().0 - days * DAY * 1_000_000)
}

/// Waits for a view of the housekeeping.
fn until(
    told: &mpsc::Receiver<HousekeepingView>,
    is_it: impl Fn(&HousekeepingView) -> bool,
) -> HousekeepingView {
    let until = Instant::now() + DEADLINE;
    loop {
        let view = told.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap();
        assert_eq!(view.error, None);
        if is_it(&view) {
            return view;
        }
    }
}

impl Stores {
    pub fn open(dir: &Path) -> Self {
        let (store, events) = open(dir);
        let logs = SqliteLogs::open(dir, events.clone(), never_fatal()).unwrap();
        Self { store, logs, _events: events, dir: dir.into(), claims: 0 }
    }

    fn new(dir: &Path) -> Self {
        let stores = Self::open(dir);
        write(&stores.store, declarations()).unwrap();
        stores
    }

    fn begin(&mut self, at: WallTime) -> Made {
        self.begin_of(BUILDER, at)
    }

    fn begin_of(&mut self, builder: BuilderId, at: WallTime) -> Made {
        let new = NewBuildset { submitted_at: at, ..submission(&[builder]) };
        let outcomes = write(&self.store, vec![Op::AddBuildset(new)]).unwrap();
        let [OpOutcome::Buildset { requests, .. }] = outcomes.as_slice() else { panic!() };
        let request = requests[0].id;
        self.begin_for(builder, request, at)
    }

    fn begin_for(&mut self, builder: BuilderId, request: RequestId, at: WallTime) -> Made {
        self.claims += 1;
        let claim = Op::Claim {
            claim: ClaimId(self.claims),
            builder,
            worker: WorkerId(1),
            incarnation: Incarnation(1),
            requests: vec![(request, Epoch(0))],
            factory_digest: "d1".into(),
            grace: std::time::Duration::ZERO,
            at,
        };
        let outcomes = write(&self.store, vec![claim]).unwrap();
        let [OpOutcome::Claimed { build, .. }] = outcomes.as_slice() else { panic!() };
        let build = build.id;
        let start = Op::StartBuild {
            build,
            incarnation: Incarnation(1),
            properties: Arc::default(),
            grace: std::time::Duration::from_secs(150),
            at,
        };
        let step = Op::StartStep {
            build,
            number: 0,
            name: "make".into(),
            state_string: "make".into(),
            logs: vec!["stdio".into()],
            at,
        };
        let outcomes = write(&self.store, vec![start, step]).unwrap();
        let [_, OpOutcome::Step { logs, .. }] = outcomes.as_slice() else { panic!() };
        self.logs.open(logs[0].clone());
        Made { build, log: logs[0].id, request }
    }

    /// Ends a build with this text in its log.
    fn end(&mut self, made: Made, text: &[u8], requests: RequestsAfter, at: WallTime) {
        let mut offset = 0;
        for part in text.chunks(60_000) {
            self.logs.append(piece(made.log.0, b'o', Some(offset), part, &Confirmed::new()));
            offset += part.len() as u64;
        }
        let (tell, told) = mpsc::channel();
        let done = Box::new(move |closed| tell.send(closed).unwrap());
        LogStore::close(&self.logs, made.log, Some(offset), done);
        let closed = told.recv_timeout(DEADLINE).unwrap().unwrap();
        let log = Op::FinishLog {
            log: made.log,
            num_lines: closed.num_lines,
            length: closed.length,
            inline: closed.inline,
            incomplete: closed.incomplete,
        };
        let end = Op::FinishBuild {
            build: made.build,
            incarnation: Incarnation(1),
            result: BuildResult::Success,
            state_string: "done".into(),
            requests,
            at,
        };
        write(&self.store, vec![log, end]).unwrap();
    }

    fn whole(&mut self, text: &[u8], at: WallTime) -> Made {
        let made = self.begin(at);
        self.end(made, text, RequestsAfter::Done, at);
        made
    }

    /// Starts the housekeeping, which tells what it does.
    fn start(
        &self,
        all: Retention,
        tell: impl Fn(HousekeepingView) + Send + 'static,
    ) -> Housekeeper {
        let rules = Arc::new(RetentionRules { all, ..RetentionRules::default() });
        let (store, logs) = (self.store.clone(), self.logs.clone());
        let rules = Box::new(move || rules.clone());
        Housekeeper::start(&self.dir, store, logs, rules, Box::new(tell)).unwrap()
    }

    /// Lets the housekeeping work until there is nothing left to do.
    fn keep(&self, all: Retention) -> HousekeepingView {
        let (tell, told) = mpsc::channel();
        let keeper = self.start(all, move |view| drop(tell.send(view)));
        let view = until(&told, |view| view.done_at.is_some());
        keeper.stop();
        view
    }

    /// Asks for a removal and waits for it.
    fn remove(&self, removal: Removal) -> Removed {
        let (tell, told) = mpsc::channel();
        self.store.remove(removal, Box::new(move |removed| tell.send(removed).unwrap()));
        told.recv_timeout(DEADLINE).unwrap().unwrap()
    }

    fn raw(&self, log: LogId) -> Option<Vec<u8>> {
        let reader = StateReader::open(&self.dir).unwrap();
        let (row, inline) = reader.log(log).unwrap()?;
        let raw = self.logs.reader().raw(&row, inline.as_deref());
        Some(raw.flat_map(Result::unwrap).collect())
    }

    fn has(&self, made: Made) -> bool {
        StateReader::open(&self.dir).unwrap().build(made.build).unwrap().is_some()
    }

    fn count(&self, file: &str, what: &str) -> i64 {
        let conn = Connection::open(self.dir.join(file)).unwrap();
        conn.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
    }

    fn close(self) {
        self.logs.close();
        self.store.close();
    }
}

/// Text too long to be kept in the state, and different for each number.
fn text(number: usize) -> Vec<u8> {
    format!("build {number} says much\n").repeat(1000).into_bytes()
}

#[test]
fn fd14_old_builds_go_whole_and_what_is_wanted_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let old: Vec<Made> = (0..120).map(|n| stores.whole(&text(n), days_ago(200))).collect();
    // Its request waits again; another one runs.
    let lost = stores.begin(days_ago(150));
    stores.end(lost, &text(1), RequestsAfter::Requeue { infra: true }, days_ago(150));
    let runs = stores.begin(days_ago(140));
    let waits = write(&stores.store, vec![Op::AddBuildset(submission(&[BUILDER]))]).unwrap();
    assert!(matches!(waits.as_slice(), [OpOutcome::Buildset { .. }]));
    let cancelled = NewBuildset { submitted_at: days_ago(190), ..submission(&[BUILDER]) };
    let outcomes = write(&stores.store, vec![Op::AddBuildset(cancelled)]).unwrap();
    let [OpOutcome::Buildset { requests, .. }] = outcomes.as_slice() else { panic!() };
    let requests = vec![requests[0].id];
    write(&stores.store, vec![Op::CancelRequests { requests, at: days_ago(189) }]).unwrap();
    let young: Vec<Made> = (0..5).map(|n| stores.whole(&text(n), days_ago(2))).collect();
    let logs_before = stores.count("logs.sqlite", "chunks");

    let view = stores.keep(Retention {
        age: Some(Duration::from_secs(100 * DAY as u64)),
        ..Retention::default()
    });
    assert_eq!((view.builds, view.logs), (120, 120));
    assert!(old.iter().all(|made| !stores.has(*made) && stores.raw(made.log).is_none()));
    assert!([lost, runs].iter().chain(&young).all(|made| stores.has(*made)));
    for (number, made) in young.iter().enumerate() {
        assert_eq!(stores.raw(made.log).unwrap(), text(number));
    }
    assert_eq!(stores.count("logs.sqlite", "chunks"), logs_before - 120);
    assert_eq!(stores.count("state.sqlite", "removed_logs"), 0);
    // Requests of those that stay, and the one that waits.
    assert_eq!(stores.count("state.sqlite", "requests"), 8);
    assert_eq!(stores.count("state.sqlite", "buildsets"), 8);
    assert_eq!(stores.count("state.sqlite", "steps"), 7);
    let records = load(&stores.store, BUILDER);
    assert_eq!((records.queued.len(), records.builds.len()), (2, 1));
    // The build that ran goes on as if nothing had been.
    stores.end(runs, b"end\n", RequestsAfter::Done, now());
    assert_eq!(stores.raw(runs.log).unwrap(), b"end\n");
    stores.close();
}

#[test]
fn fd14_the_newest_build_stays_and_no_id_is_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let made: Vec<Made> = (0..10).map(|n| stores.whole(&text(n), days_ago(900))).collect();
    let rules = Retention { age: Some(Duration::from_secs(1)), ..Retention::default() };
    assert_eq!(stores.keep(rules).builds, 9);
    let newest = made[9];
    assert!(stores.has(newest) && stores.raw(newest.log).is_some());
    let next = stores.whole(&text(99), now());
    assert!(next.build > newest.build && next.log > newest.log && next.request > newest.request);
    assert_eq!(stores.raw(next.log).unwrap(), text(99));
    let page = Page::of(Filter::is("builderid", 1));
    let builds = StateReader::open(dir.path()).unwrap().builds(&page).unwrap().rows;
    let numbers: Vec<u64> = builds.iter().map(|row| row.number.unwrap().0).collect();
    assert_eq!(numbers, [10, 11]);
    stores.close();
}

#[test]
fn fd14_the_newest_rows_stay_whichever_build_they_belong_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let requests: Vec<RequestId> = (0..3)
        .map(|_| {
            let set = vec![Op::AddBuildset(submission(&[BUILDER]))];
            let outcomes = write(&stores.store, set).unwrap();
            let [OpOutcome::Buildset { requests, .. }] = outcomes.as_slice() else { panic!() };
            requests[0].id
        })
        .collect();
    // The oldest build has the newest request, and soon the newest step and log.
    let oldest = stores.begin_for(BUILDER, requests[2], days_ago(9));
    let next = stores.begin_for(BUILDER, requests[0], days_ago(8));
    let runs = stores.begin_for(BUILDER, requests[1], days_ago(7));
    let one_more = |stores: &Stores, made: Made| {
        let step = Op::StartStep {
            build: made.build,
            number: 1,
            name: "more".into(),
            state_string: "more".into(),
            logs: vec!["stdio".into()],
            at: days_ago(6),
        };
        write(&stores.store, vec![step]).unwrap();
    };
    one_more(&stores, oldest);
    stores.end(oldest, b"short\n", RequestsAfter::Done, days_ago(5));
    stores.end(next, b"short\n", RequestsAfter::Done, days_ago(5));
    let removal = Removal { builds: vec![oldest.build], ..Removal::default() };
    assert_eq!(stores.remove(removal.clone()).builds, 0);
    assert!(stores.has(oldest));
    // Now another build has the newest step and log; the request is still the newest.
    one_more(&stores, runs);
    let removed = stores.remove(removal);
    assert_eq!((removed.builds, removed.requests), (1, 0));
    assert_eq!(stores.count("state.sqlite", "requests"), 3);
    stores.close();
}

#[test]
fn fd14_so_many_builds_are_kept_and_text_goes_earlier_or_for_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let length = text(1).len() as u64;
    let made: Vec<Made> = (0..30).map(|n| stores.whole(&text(1), days_ago(60 - n))).collect();
    let rules = Retention { builds: Some(20), ..Retention::default() };
    assert_eq!(stores.keep(rules).builds, 10);
    assert!(!stores.has(made[9]) && stores.has(made[10]));

    // The text of those older than 40 days: numbers 11 to 20,
    // counted from 1.
    let log_age = Some(Duration::from_secs(40 * DAY as u64 + 3600));
    let view = stores.keep(Retention { log_age, ..rules });
    assert_eq!((view.builds, view.texts, view.logs), (0, 10, 10));
    let shown = String::from_utf8(stores.raw(made[12].log).unwrap()).unwrap();
    assert_eq!(shown, format!("[the housekeeping removed this log's {length} bytes]\n"));
    assert_eq!(stores.raw(made[20].log).unwrap(), text(1));

    // Room for five of them in all.
    let view = stores.keep(Retention { size: Some(5 * length + 10), ..Retention::default() });
    assert_eq!(view.texts, 5, "{view:?}");
    assert!(stores.has(made[20]) && stores.raw(made[24].log).unwrap() != text(1));
    assert_eq!(stores.raw(made[25].log).unwrap(), text(1));
    assert_eq!(stores.count("logs.sqlite", "chunks"), 5);
    // Nothing is left to do.
    let view = stores.keep(Retention { size: Some(5 * length + 10), ..rules });
    assert_eq!((view.builds, view.texts), (0, 0));
    stores.close();
}

#[test]
fn fd14_a_batch_is_cut_short_and_claims_go_on_between() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let made: Vec<Made> = (0..300).map(|_| stores.whole(b"short\n", days_ago(9))).collect();
    let mut left: Vec<BuildId> = made.iter().map(|made| made.build).collect();
    let (mut gone, mut batches) = (0, 0);
    while !left.is_empty() {
        let removed = stores.remove(Removal { builds: left.clone(), ..Removal::default() });
        // Each gets on, and says how far.
        assert!(removed.looked_at > 0 && removed.looked_at <= left.len(), "{removed:?}");
        assert_eq!(removed.more, removed.looked_at < left.len(), "{removed:?}");
        left.drain(..removed.looked_at);
        gone += removed.builds;
        batches += 1;
        stores.begin(now());
    }
    // The newest that has ended stays, and none was left out.
    assert!(gone == 299 && stores.has(made[299]), "{gone}");
    assert!(batches > 1, "300 builds went in one batch, which takes too long");
    assert_eq!(load(&stores.store, BUILDER).builds.len(), batches);
    stores.close();
}

#[test]
fn fd14_a_removal_does_not_wait_for_all_who_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let made = stores.whole(b"short\n", days_ago(9));
    stores.whole(b"short\n", days_ago(8));
    let writes: Vec<_> =
        (0..20_000).map(|_| vec![Op::AddBuildset(submission(&[BUILDER]))]).collect();
    let (tell, told) = mpsc::channel();
    for ops in writes {
        let tell = tell.clone();
        let written = Box::new(move |_| tell.send("written").unwrap());
        stores.store.write(Transaction { ops }, written);
    }
    let removal = Removal { builds: vec![made.build], ..Removal::default() };
    stores.store.remove(removal, Box::new(move |_| tell.send("removed").unwrap()));
    let all: Vec<&str> = (0..20_001).map(|_| told.recv_timeout(DEADLINE).unwrap()).collect();
    assert_ne!(all.last(), Some(&"removed"));
    assert!(!stores.has(made));
    stores.close();
}

#[test]
fn fd14_builds_of_all_builders_go_together_from_the_oldest_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let second = Op::DeclareBuilder {
        name: "b2".into(),
        description: None,
        tags: Vec::new(),
        workers: vec!["w1".into()],
    };
    let outcomes = write(&stores.store, vec![second]).unwrap();
    let [OpOutcome::Builder(second)] = outcomes.as_slice() else { panic!() };
    let made: Vec<BuildId> = (0..160)
        .map(|n| {
            let builder = if n % 2 == 0 { BUILDER } else { *second };
            let made = stores.begin_of(builder, days_ago(9));
            stores.end(made, b"short\n", RequestsAfter::Done, days_ago(9));
            made.build
        })
        .collect();
    let (tell, told) = mpsc::channel();
    let conn = Connection::open(dir.path().join("state.sqlite")).unwrap();
    let rules = Retention { builds: Some(5), ..Retention::default() };
    let keeper = stores.start(rules, move |view| {
        // After each batch, before the next one is asked for.
        let mut builds = conn.prepare("SELECT id FROM builds ORDER BY id").unwrap();
        let ids = builds.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        let ids: Vec<u64> = ids.map(|id| id.unwrap() as u64).collect();
        let _ = tell.send((view, ids));
    });
    let mut batches = 0;
    loop {
        let (view, left) = told.recv_timeout(DEADLINE).unwrap();
        assert_eq!(view.error, None);
        let oldest: Vec<u64> = made[made.len() - left.len()..].iter().map(|id| id.0).collect();
        assert_eq!(left, oldest, "builds went that are not the oldest");
        if view.done_at.is_some() {
            assert_eq!((view.builds, left.len()), (150, 10));
            break;
        }
        batches += 1;
    }
    assert!(batches > 2, "{batches} batches");
    keeper.stop();
    stores.close();
}

#[test]
fn fd14_it_looks_again_soon_after_it_found_much() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    for _ in 0..301 {
        stores.whole(b"short\n", days_ago(9));
    }
    let (tell, told) = mpsc::channel();
    let rules = Retention { builds: Some(1), ..Retention::default() };
    let keeper = stores.start(rules, move |view| drop(tell.send(view)));
    let done = until(&told, |view| view.done_at.is_some());
    assert_eq!((done.builds, done.requests), (300, 300));
    for _ in 0..20 {
        stores.whole(b"short\n", days_ago(8));
    }
    // Within the deadline, which is well below a minute.
    until(&told, |view| view.builds == 320);
    keeper.stop();
    stores.close();
}

#[test]
fn fd14_it_catches_up_while_builds_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    for _ in 0..600 {
        stores.whole(b"short\n", days_ago(9));
    }
    let (tell, told) = mpsc::channel();
    let rules = Retention { builds: Some(10), ..Retention::default() };
    let keeper = stores.start(rules, move |view| drop(tell.send(view)));
    // Each of these writes is answered between two batches.
    let mut more = 0;
    let until = Instant::now() + DEADLINE;
    let view = loop {
        stores.whole(b"short\n", now());
        more += 1;
        let views: Vec<HousekeepingView> = told.try_iter().collect();
        if let Some(view) = views.into_iter().find(|view| view.done_at.is_some()) {
            break view;
        }
        assert!(Instant::now() < until, "not done beside {more} builds");
    };
    keeper.stop();
    assert!(view.error.is_none() && view.builds >= 590, "{view:?}");
    // Answered after everything that the housekeeping still asked for.
    stores.whole(b"short\n", now());
    let left = stores.count("state.sqlite", "builds");
    assert!(left >= 10 && left <= more + 11, "{left} beside {more}, {view:?}");
    for what in ["requests", "steps", "logs", "buildsets"] {
        assert_eq!(stores.count("state.sqlite", what), left, "{what}, {view:?}");
    }
    stores.close();
}

#[test]
fn fd14_text_of_many_logs_goes_and_that_of_others_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let made: Vec<Made> = (0..40).map(|n| stores.whole(&text(n), days_ago(9))).collect();
    let mut left: Vec<LogId> = made[..30].iter().map(|made| made.log).collect();
    while !left.is_empty() {
        let (tell, told) = mpsc::channel();
        let done = Box::new(move |removed| tell.send(removed).unwrap());
        stores.logs.remove_some(left.clone(), done);
        let removed: RemovedText = told.recv_timeout(DEADLINE).unwrap().unwrap();
        assert!(removed.logs > 0 && removed.logs <= left.len(), "{removed:?}");
        let gone = 40 - stores.count("logs.sqlite", "chunks");
        left.drain(..removed.logs);
        assert_eq!(gone, 30 - left.len() as i64);
    }
    for (number, made) in made.iter().enumerate().skip(30) {
        assert_eq!(stores.raw(made.log).unwrap(), text(number));
    }
    stores.close();
}

#[test]
fn fd14_room_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = Stores::new(dir.path());
    let mut noise = 1_u64;
    let mut text = || -> Vec<u8> {
        let mut next = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.to_be_bytes()[0]
        };
        (0..1024 * 1024).map(|_| next()).collect()
    };
    for _ in 0..20 {
        let text = text();
        stores.whole(&text, days_ago(9));
    }
    let size = || {
        let conn = Connection::open(dir.path().join("logs.sqlite")).unwrap();
        let read = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        read("page_count") * read("page_size")
    };
    assert!(size() > 20 << 20);
    stores.keep(Retention { builds: Some(1), ..Retention::default() });
    assert!(size() < 12 << 20, "{} bytes", size());
    stores.close();
}
