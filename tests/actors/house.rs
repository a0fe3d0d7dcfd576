//! A master without its HTTP port, and what a story asks of it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, RwLock, mpsc};
use std::time::{Duration, Instant};

use actix::Addr;
use botmaster::actors::context::Context;
use botmaster::actors::runtime::{World, WorldParts};
use botmaster::actors::{BotMaster, Greeter, Parts, WaitReady, declare, declared};
use botmaster::board::Board;
use botmaster::clock::Clock;
use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::core::values::*;
use botmaster::core::views::BuilderView;
use botmaster::events::Events;
use botmaster::faults;
use botmaster::messages::*;
use botmaster::provisioning::Provisioner;
use botmaster::settings::*;
use botmaster::store::logs::SqliteLogs;
use botmaster::store::sqlite::SqliteStore;
use botmaster::store::{
    LogRow, OnLoaded, OnWritten, Op, OpOutcome, StateStore, StoreError, Transaction,
};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::robot::Robot;

/// How long anything that a story waits for may take.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How long a whole story may take.
const STORY: Duration = Duration::from_secs(30);

static FAULTS: RwLock<()> = RwLock::new(());

/// Runs a story beside others. It fails when the master's thread stands still.
pub fn story<F: Future<Output = ()> + 'static>(tell: impl FnOnce() -> F + Send + 'static) {
    let _others = FAULTS.read().unwrap_or_else(PoisonError::into_inner);
    run(tell);
}

/// Runs a long story beside others.
pub fn story_within<F: Future<Output = ()> + 'static>(
    limit: Duration,
    tell: impl FnOnce() -> F + Send + 'static,
) {
    let _others = FAULTS.read().unwrap_or_else(PoisonError::into_inner);
    run_within(limit, tell);
}

/// Runs a story that makes actors panic: alone.
pub fn story_with_faults<F: Future<Output = ()> + 'static>(
    tell: impl FnOnce() -> F + Send + 'static,
) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<String>();
            if !text.is_some_and(|text| text.starts_with("made to panic")) {
                usual(info);
            }
        }));
    });
    let _alone = FAULTS.write().unwrap_or_else(PoisonError::into_inner);
    faults::disarm_all();
    run(tell);
    faults::disarm_all();
}

fn run<F: Future<Output = ()> + 'static>(tell: impl FnOnce() -> F + Send + 'static) {
    run_within(STORY, tell);
}

fn run_within<F: Future<Output = ()> + 'static>(
    limit: Duration,
    tell: impl FnOnce() -> F + Send + 'static,
) {
    let (ended, end) = mpsc::channel::<Result<(), Box<dyn Any + Send>>>();
    std::thread::spawn(move || {
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            actix_rt::System::new().block_on(tell());
        }));
        ended.send(told)
    });
    match end.recv_timeout(limit) {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => panic!("the story did not end within {limit:?}: the actors' thread stands still"),
    }
}

/// A builder with one step.
pub fn builder(name: &str, workers: &[&str]) -> BuilderConfig {
    builder_with_steps(name, workers, 1)
}

/// A builder with some steps.
pub fn builder_with_steps(name: &str, workers: &[&str], steps: usize) -> BuilderConfig {
    let steps = (0..steps)
        .map(|place| StepSpec {
            name: format!("step {place}"),
            kind: StepKind::Run { program: Program::Shell("true".into()) },
            workdir: None,
            env: BTreeMap::new(),
            timeout: None,
            max_time: None,
            halt_on_failure: true,
            flunk_on_failure: true,
            warn_on_failure: false,
            always_run: false,
        })
        .collect();
    let factory = Factory { steps };
    BuilderConfig {
        name: name.into(),
        builddir: name.into(),
        workers: workers.iter().map(|worker| (*worker).into()).collect(),
        factory_digest: factory_digest(&factory).unwrap(),
        factory: Arc::new(factory),
        locks: Vec::new(),
        env: BTreeMap::new(),
        properties: BTreeMap::new(),
        description: None,
        tags: Vec::new(),
        start_timeout: Duration::from_secs(5),
        choose: ChooseWorker::First,
        on_lost: OnLost::Requeue,
        lease: Duration::from_millis(300),
        grace: Duration::from_millis(400),
        max_time: None,
        infra_retries: 3,
        queue_limit: 10_000,
        merge: Merge::None,
        max_builds: None,
    }
}

/// Timers that are short where a story waits for their end.
pub fn timers() -> Timers {
    Timers { attach_timeout: Duration::from_millis(500), ..Timers::default() }
}

/// The store, which can be told that its disk is full.
struct Moody {
    store: SqliteStore,
    full: Arc<AtomicBool>,
    mood: Arc<Mood>,
}

/// How slow it is, and what it was asked.
#[derive(Default)]
struct Mood {
    /// Milliseconds that each write takes more.
    slow: AtomicU64,
    /// Writes of heartbeats.
    beats: AtomicU64,
}

impl StateStore for Moody {
    fn write(&self, transaction: Transaction, done: OnWritten) {
        if self.full.load(Ordering::Relaxed) {
            done(Err(StoreError::Unwritable("full".into())));
            return;
        }
        if transaction.ops.iter().any(|op| matches!(op, Op::SeeWorkers { .. })) {
            self.mood.beats.fetch_add(1, Ordering::Relaxed);
        }
        match self.mood.slow.load(Ordering::Relaxed) {
            0 => self.store.write(transaction, done),
            slow => {
                let store = self.store.clone();
                actix_rt::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(slow)).await;
                    store.write(transaction, done);
                });
            }
        }
    }

    fn load_builder(&self, builder: BuilderId, done: OnLoaded) {
        if self.full.load(Ordering::Relaxed) {
            done(Err(StoreError::Unwritable("full".into())));
        } else {
            self.store.load_builder(builder, done);
        }
    }
}

/// A master without its HTTP port.
pub struct House {
    pub handle: BotMasterHandle,
    pub board: Board,
    pub settings: Settings,
    pub greeter: Greeter,
    pub events: Events,
    full: Arc<AtomicBool>,
    mood: Arc<Mood>,
    store: SqliteStore,
    logs: SqliteLogs,
    tokens: BTreeMap<String, String>,
    folder: Arc<TempDir>,
    provisioner: Provisioner,
    _addr: Addr<BotMaster>,
}

impl House {
    /// A master with these workers (name, `max_builds`) and builders.
    pub async fn open(workers: &[(&str, u32)], builders: Vec<BuilderConfig>) -> Self {
        Self::open_with(timers(), workers, builders).await
    }

    /// As [`House::open`], with other timers.
    pub async fn open_with(
        timers: Timers,
        workers: &[(&str, u32)],
        builders: Vec<BuilderConfig>,
    ) -> Self {
        let workers = workers.iter().map(|(name, max)| worker(name, *max)).collect();
        Self::open_asking(Provisioner::none(), timers, workers, builders).await
    }

    /// As [`House::open_with`], with a provider of instances.
    pub async fn open_asking(
        provisioner: Provisioner,
        timers: Timers,
        workers: Vec<WorkerSettings>,
        builders: Vec<BuilderConfig>,
    ) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let mut tokens = BTreeMap::new();
        for name in workers.iter().map(|worker| worker.config.name.as_str()) {
            let path = folder.path().join(format!("{name}.token"));
            let token = write_new_token_file(&path, name).unwrap();
            tokens.insert(name.to_owned(), token.reveal().to_owned());
        }
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let settings = Settings {
            file: PathBuf::from("story.toml"),
            master: MasterSettings {
                title: "story".into(),
                data_dir: folder.path().into(),
                http: anywhere,
                listen: anywhere,
                allowed_origins: Vec::new(),
                insecure: false,
                ui_dir: None,
                drain: Duration::ZERO,
            },
            timers,
            // Robots come back at once, as often as a story wants.
            limits: Limits { attaches_per_minute: 1_000_000, ..Limits::default() },
            store: StoreSettings::default(),
            workers,
            builders: builders.into_iter().map(Arc::new).collect(),
            up: UpSettings::default(),
            forms: Vec::new(),
            retention: Default::default(),
        };
        Self::start(folder, settings, tokens, provisioner).await
    }

    async fn start(
        folder: Arc<TempDir>,
        settings: Settings,
        tokens: BTreeMap<String, String>,
        provisioner: Provisioner,
    ) -> Self {
        let on_fatal = || Arc::new(|reason: &str| panic!("the store gave up: {reason}"));
        let (store, events) = SqliteStore::open(folder.path(), on_fatal()).unwrap();
        let logs = SqliteLogs::open(folder.path(), events.clone(), on_fatal()).unwrap();
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut ops = declare(&settings);
        ops.push(Op::ListInstances);
        store.write(Transaction { ops }, Box::new(move |written| tell.send(written).unwrap()));
        let mut outcomes = told.await.unwrap().unwrap();
        let Some(OpOutcome::Instances(instances)) = outcomes.pop() else {
            panic!("the store tells which instances there are")
        };
        let (builder_ids, worker_rows) = declared(&settings, outcomes);
        let full = Arc::new(AtomicBool::new(false));
        let mood = Arc::new(Mood::default());
        let world = World::from(WorldParts {
            clock: Clock::start(),
            store: Arc::new(Moody { store: store.clone(), full: full.clone(), mood: mood.clone() }),
            logs: Arc::new(logs.clone()),
            board: Board::default(),
            timers: settings.timers,
            limits: settings.limits,
            outage: settings.store.outage,
            tokens: Arc::new(AtomicU64::new(1)),
            chance: Arc::new(Mutex::new(Rng::seeded(1))),
            provisioner: provisioner.clone(),
        });
        let (book, problems) = TokenBook::read(&settings);
        assert_eq!(problems, []);
        let addr = Context::new().run(BotMaster::new(Parts {
            world: world.clone(),
            settings: settings.clone(),
            read_settings: Arc::new(|| panic!("stories bring their settings along")),
            tokens: book,
            builder_ids,
            worker_rows,
            instances,
            rng: Rng::seeded(7),
        }));
        tokio::time::timeout(LIMIT, addr.send(WaitReady)).await.expect("builders stand").unwrap();
        Self {
            handle: BotMaster::handle(&addr),
            board: world.board.clone(),
            greeter: Greeter::new(world, addr.clone().recipient()),
            settings,
            events,
            full,
            mood,
            store,
            logs,
            tokens,
            folder,
            provisioner,
            _addr: addr,
        }
    }

    /// A worker that attaches, with as many slots as one could want.
    pub fn robot(&self, name: &str) -> Robot {
        Robot::start(name, &self.tokens[name], 64, self.greeter.clone())
    }

    /// Workers that are attached, with all their builders.
    pub async fn robots<const N: usize>(&self, names: [&str; N]) -> [Robot; N] {
        let robots = names.map(|name| self.robot(name));
        self.until("all workers are idle", || {
            names.iter().all(|name| {
                let of = |b: &&Arc<BuilderConfig>| b.workers.contains(&WorkerName::from(*name));
                self.settings.builders.iter().filter(of).all(|b| self.seat(b, name) == "idle")
            })
        })
        .await;
        robots
    }

    /// What a builder says of its worker.
    pub fn seat(&self, builder: &BuilderConfig, worker: &str) -> &'static str {
        let view = self.board.builder(&builder.name);
        view.and_then(|view| view.workers.get(&WorkerName::from(worker)).copied()).unwrap_or("none")
    }

    /// Waits for something to be so.
    pub async fn until(&self, what: &str, so: impl FnMut() -> bool) {
        self.until_in(LIMIT, what, so).await;
    }

    /// Waits for something to be so, as long as this.
    pub async fn until_in(&self, limit: Duration, what: &str, so: impl FnMut() -> bool) {
        if !self.comes_true(limit, so).await {
            panic!("in vain: {what}\n{}", self.describe());
        }
    }

    /// Whether something comes to be so in time.
    pub async fn comes_true(&self, within: Duration, mut so: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + within;
        while !so() {
            if Instant::now() > end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Everything there is to know when a story fails.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (name, view) in self.board.all().builders {
            text += &format!(
                "builder {name}: gen {} waiting {} {:?} restarts {} broken {:?} workers {:?}\n",
                view.generation,
                view.waiting,
                view.big_state,
                view.restarts,
                view.broken,
                view.workers
            );
            for build in &view.builds {
                text += &format!("    {build:?}\n");
            }
        }
        for (name, view) in self.board.all().workers {
            text += &format!(
                "worker {name}: up {} used {}/{} {:?}\n",
                view.connected, view.used, view.max_builds, view.instance
            );
        }
        text += &format!("ignored: {:?}\n", self.board.all().ignored);
        let rows = "SELECT state || ' x ' || count(*) FROM requests GROUP BY state";
        text += &format!("requests by state: {:?}\n", self.texts(rows));
        let rows = "SELECT 'build ' || id || ' state ' || state || ' number ' || coalesce(number, '-') \
                    || ': ' || state_string FROM builds WHERE state < 2 ORDER BY id LIMIT 20";
        text += &format!("open builds: {:?}\n", self.texts(rows));
        let rows = "SELECT text || coalesce(' (' || error || ')', '') FROM notes ORDER BY id DESC LIMIT 12";
        text + &format!("last notes: {:#?}\n", self.texts(rows))
    }

    fn open_rows(&self) -> Connection {
        let conn = Connection::open(self.folder.path().join("state.sqlite")).unwrap();
        conn.busy_timeout(LIMIT).unwrap();
        conn
    }

    /// Texts that a query answers.
    pub fn texts(&self, sql: &str) -> Vec<String> {
        let conn = self.open_rows();
        let mut query = conn.prepare(sql).unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// The whole text of each log of the builds that ended well, as it was
    /// written, with the master's own lines.
    pub fn good_logs(&self) -> Vec<Vec<u8>> {
        let conn = self.open_rows();
        let sql = "SELECT l.id, l.step_id, l.length, l.inline FROM builds b \
                   JOIN steps s ON s.build_id = b.id JOIN logs l ON l.step_id = s.id \
                   WHERE b.results = 0 AND l.complete = 1 AND l.incomplete IS NULL ORDER BY l.id";
        let mut query = conn.prepare(sql).unwrap();
        let number = |row: &rusqlite::Row<'_>, at| -> rusqlite::Result<u64> {
            Ok(row.get::<_, i64>(at)?.try_into().unwrap())
        };
        let rows = query.query_map([], |row| {
            let log = LogRow {
                id: LogId(number(row, 0)?),
                step: StepId(number(row, 1)?),
                name: "stdio".into(),
                slug: "stdio".into(),
                kind: 's',
                complete: true,
                num_lines: 0,
                length: number(row, 2)?,
                incomplete: None,
            };
            Ok((log, row.get::<_, Option<Vec<u8>>>(3)?))
        });
        let rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
        let reader = self.logs.reader();
        let text = |(log, inline): (LogRow, Option<Vec<u8>>)| {
            reader.raw(&log, inline.as_deref()).flat_map(Result::unwrap).collect()
        };
        rows.into_iter().map(text).collect()
    }

    /// The one number that a query answers.
    pub fn number(&self, sql: &str) -> u64 {
        let found: i64 = self.open_rows().query_row(sql, [], |row| row.get(0)).unwrap();
        u64::try_from(found).unwrap()
    }

    /// Submits requests one by one; answers their ids.
    pub async fn submit(&self, builder: &str, count: usize) -> Vec<RequestId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.try_submit(builder).await.expect("the submission is taken"));
        }
        ids
    }

    /// Submits one request.
    pub async fn try_submit(&self, builder: &str) -> Result<RequestId, Refusal> {
        let submitted = self.handle.submit(vec![submission(builder)]).await?;
        Ok(submitted[0].requests[0].1)
    }

    /// Reloads with these settings.
    pub async fn reload(&mut self, change: impl FnOnce(&mut Settings)) -> ReloadReport {
        change(&mut self.settings);
        let settings = Some(Box::new(self.settings.clone()));
        let asked = self.handle.reload(Reload { dry: false, settings });
        let report = tokio::time::timeout(LIMIT, asked).await.expect("the reload ends").unwrap();
        assert_eq!(report.problems, []);
        report
    }

    /// Requests in this state.
    pub fn requests_in(&self, state: u32) -> u64 {
        self.number(&format!("SELECT count(*) FROM requests WHERE state = {state}"))
    }

    /// Waits until each of these requests was built, exactly once, with build
    /// numbers that do not repeat, and nothing is taken by anybody any more.
    pub async fn all_built(&self, ids: &[RequestId], robots: &[&Robot]) {
        let done = "SELECT count(*) FROM requests WHERE state = 2 AND results = 0";
        let count = ids.len() as u64;
        let end = self.comes_true(LIMIT * 2, || self.number(done) >= count).await;
        assert!(end, "not all were built\n{}", self.describe());
        self.nothing_is_taken().await;
        let ran: Vec<RequestId> = robots.iter().flat_map(|robot| robot.ran()).collect();
        let once: BTreeSet<RequestId> = ran.iter().copied().collect();
        assert_eq!(once, ids.iter().copied().collect(), "each ran");
        assert_eq!(ran.len(), ids.len(), "each ran once: {ran:?}");
        let twice = "SELECT count(*) FROM (SELECT r.request_id FROM build_requests r JOIN builds b \
                     ON b.id = r.build_id WHERE state = 2 GROUP BY r.request_id HAVING count(*) > 1)";
        assert_eq!(self.number(twice), 0, "requests with two builds");
        let repeated = "SELECT count(*) - count(DISTINCT builder_id || '/' || number) FROM builds";
        assert_eq!(self.number(repeated), 0, "numbers that repeat");
        for robot in robots.iter().filter(|robot| robot.attached()) {
            assert_eq!(robot.complaints(), Vec::<String>::new());
        }
    }

    /// Waits until these requests were built here, while another worker is
    /// still attaching.
    pub async fn all_built_but_for(&self, ids: &[RequestId], robot: &Robot) {
        self.until("all are built", || self.requests_in(2) == ids.len() as u64).await;
        assert_eq!(robot.ran(), ids);
    }

    /// Waits until no builder has a build, no seat is taken, no slot in use.
    pub async fn nothing_is_taken(&self) {
        self.until("no build is open, all seats and slots are free", || {
            let shown = self.board.all();
            let free = |view: &BuilderView| {
                view.broken.is_some()
                    || (view.builds.is_empty()
                        && view.waiting == 0
                        && view.workers.values().all(|word| *word == "idle"))
            };
            shown.builders.values().all(|view| free(view))
                && shown.workers.values().all(|view| view.used == 0)
                && self.number("SELECT count(*) FROM builds WHERE state < 2") == 0
        })
        .await;
    }

    /// From now on each write takes so much longer.
    pub fn store_takes(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.mood.slow.store(millis, Ordering::Relaxed);
    }

    /// So many writes had heartbeats in them.
    pub fn beats_written(&self) -> u64 {
        self.mood.beats.load(Ordering::Relaxed)
    }

    /// From now on nothing can be written or read, or everything again.
    pub fn store_is_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Another master on the same data, with other settings: the first one is
    /// as good as dead, since it has no store any more.
    pub async fn next_master(self, change: impl FnOnce(&mut Settings)) -> Self {
        let Self { mut settings, tokens, folder, logs, store, provisioner, .. } = self;
        logs.close();
        store.close();
        change(&mut settings);
        Self::start(folder, settings, tokens, provisioner).await
    }

    /// A worker's token.
    pub fn token(&self, name: &str) -> &str {
        &self.tokens[name]
    }

    /// Ends the store's threads.
    pub fn close(self) {
        self.logs.close();
        self.store.close();
    }
}

/// A worker's settings.
pub fn worker(name: &str, max_builds: u32) -> WorkerSettings {
    WorkerSettings {
        config: WorkerConfig { name: name.into(), max_builds, latent: None },
        token_file: format!("{name}.token").into(),
    }
}

/// The builder of this name in the settings, to be changed.
pub fn edit<'a>(settings: &'a mut Settings, name: &str) -> &'a mut BuilderConfig {
    let named = settings.builders.iter_mut().find(|builder| builder.name.as_str() == name);
    Arc::make_mut(named.expect("the builder is configured"))
}

/// A submission for one builder.
pub fn submission(builder: &str) -> Submission {
    Submission {
        builders: vec![builder.into()],
        priority: 0,
        reason: "story".into(),
        scheduler: "force".into(),
        external_id: None,
        idempotency_key: None,
        properties: Arc::default(),
        sourcestamps: Vec::new(),
        rebuilt_build: None,
        soon: false,
    }
}
