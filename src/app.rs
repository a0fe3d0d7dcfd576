//! The one place that knows every part: builds them, wires them, starts and
//! stops them in order.

mod door;
mod signals;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Addr;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};

use crate::actors::runtime::{World, WorldParts, start_vital};
use crate::actors::{
    BotMaster, Drain, GrantLeases, Greeter, LetInstancesGo, Parts, Stop, WaitReady, declare,
    declared,
};
use crate::board::Board;
use crate::clock::Clock;
use crate::core::rng::Rng;
use crate::events::Events;
use crate::faults::crash_point;
use crate::messages::{BotMasterHandle, Reload};
use crate::provisioning::process::{ProcessProvider, ProcessSetup};
use crate::provisioning::{Limits, Provisioner};
use crate::settings::{
    Loaded, Overrides, Settings, TokenBook, load_with, make_tokens_of_latent_workers,
};
use crate::store::keep::Housekeeper;
pub use crate::store::keep::{
    BackedUp, Examined, HousekeepingPlan, KeepError, Progress as KeepProgress, Restored, back_up,
    examine, plan_housekeeping, restore,
};
use crate::store::logs::{LogLimits, SqliteLogs};
pub use crate::store::sqlite::Opening;
use crate::store::sqlite::{OpenError, SqliteStore, StateReader};
use crate::store::{
    Change, InstanceRow, MasterRow, Op, OpOutcome, Room, StateStore, StoreError, Transaction,
};
use crate::web::{StockUi, UiError, WebContext, WebState, serve, unrecorded, wall_now};

/// How long the builders may take to read their records.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long answers that are on their way may take when the master stops.
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long a stopping master waits for instances that it lets go.
const INSTANCES_LIMIT: Duration = Duration::from_secs(3);
/// How often it is worked out when requests that wait will end.
const RECORD_EVERY: Duration = Duration::from_secs(1);
/// For how many builders at a time.
const RECORD_BUILDERS: usize = 16;
/// For how many requests at a time.
const RECORD_REQUESTS: usize = 64;
/// It takes at most one part in so many of the time.
const RECORD_SHARE: u32 = 50;
/// How long a stopping master tries to give its workers a longer lease.
const GRANT_LIMIT: Duration = Duration::from_secs(2);
/// How often a draining master looks whether its builds have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// What a master is started with.
#[derive(Clone, Debug)]
pub struct MasterOptions {
    /// The configuration, with the overrides applied.
    pub loaded: Loaded,
    /// What the command line said, for reading the file again.
    pub overrides: Overrides,
    /// How the store is opened.
    pub opening: Opening,
}

/// Why a master could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A reading connection could not be made, or a first write failed.
    #[error("the store cannot be used: {0}")]
    Use(#[from] StoreError),
    /// Buildbot's pages cannot be served from where they should be.
    #[error("the pages of --ui-dir cannot be served: {0}")]
    Ui(#[from] UiError),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} ({what}): {error}\n    fix: end the program that uses it \
         (another master?), or give another address with {flag}"
    )]
    Listen {
        /// `HTTP` or `workers`.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The flag that changes it.
        flag: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A master whose parts are all running. It lives on the thread that made it.
pub struct Master {
    /// Where its HTTP API listens.
    pub http: SocketAddr,
    /// Where workers connect.
    pub listen: SocketAddr,
    /// The edges' door to it.
    pub handle: BotMasterHandle,
    /// What people see.
    pub board: Board,
    /// What becomes true.
    pub events: Events,
    addr: Addr<BotMaster>,
    server: actix_web::dev::ServerHandle,
    serving: actix_rt::task::JoinHandle<()>,
    accepting: actix_rt::task::JoinHandle<()>,
    recording: actix_rt::task::JoinHandle<()>,
    store: SqliteStore,
    logs: SqliteLogs,
    name: String,
    housekeeper: Housekeeper,
}

/// `HOST:FOLDER`.
fn master_name(dir: &Path) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}:{}", host.unwrap_or_else(|| "localhost".into()), dir.display())
}

fn master_row(name: &str, active: bool) -> Arc<MasterRow> {
    Arc::new(MasterRow { name: name.into(), active, last_active: wall_now() })
}

/// A store that has lost the disk cannot go on in this process (row FD09).
fn on_fatal() -> crate::store::sqlite::OnFatal {
    Arc::new(|reason: &str| {
        tracing::error!(%reason, "the disk failed under the store; ending so that it is read again");
        std::process::exit(74);
    })
}

impl Master {
    /// Starts everything: store, actors, HTTP, and last the port for workers.
    ///
    /// # Errors
    /// When the data folder or an address cannot be used; the text says what
    /// to do.
    pub async fn start(options: MasterOptions) -> Result<Self, StartError> {
        let settings = options.loaded.settings;
        let dir = settings.master.data_dir.clone();
        let listener = listen(settings.master.listen)?;
        let board = Board::default();
        let shown = board.clone();
        let room = Room::watched(&dir, Box::new(move |full| shown.show_full(full)));
        let (store, events) =
            SqliteStore::open_as(&dir, options.opening, room.clone(), on_fatal())?;
        let logs =
            SqliteLogs::open_limited(&dir, events.clone(), LogLimits::default(), room, on_fatal())?;
        let outcomes = write(&store, Transaction { ops: declare(&settings) }).await?;
        let (builder_ids, worker_rows) = declared(&settings, outcomes);
        let instances = instances(&store).await?;
        for problem in make_tokens_of_latent_workers(&settings) {
            tracing::warn!("{problem}");
        }
        let (tokens, problems) = TokenBook::read(&settings);
        for problem in problems {
            tracing::warn!("{problem}");
        }
        let seed: u64 = rand::random();
        tracing::info!(seed, "the generator's seed");
        let world = World::from(WorldParts {
            clock: Clock::start(),
            store: Arc::new(store.clone()),
            logs: Arc::new(logs.clone()),
            board: board.clone(),
            timers: settings.timers,
            limits: settings.limits,
            outage: settings.store.outage,
            tokens: Arc::new(AtomicU64::new(1)),
            chance: Arc::new(Mutex::new(Rng::seeded(rand::random()))),
            provisioner: provisioner(&settings, &listener)?,
        });
        board.show_retention(settings.retention.clone());
        let (file, overrides) = (settings.file.clone(), options.overrides.clone());
        let bot_master = BotMaster::new(Parts {
            world: world.clone(),
            settings: settings.clone(),
            read_settings: Arc::new(move || load_with(&file, &overrides)),
            tokens,
            builder_ids,
            worker_rows,
            instances,
            rng: Rng::seeded(seed),
        });
        let addr = start_vital(bot_master, |reason| {
            // Its builders cannot be asked anything any more; a new process
            // reads the store, and workers carry their builds over that.
            tracing::error!(%reason, "the BotMaster panicked; the process ends so that it is started again");
            std::process::exit(70);
        });
        let ready = tokio::time::timeout(READY_LIMIT, addr.send(WaitReady)).await;
        if !matches!(ready, Ok(Ok(()))) {
            return Err(StartError::Other("the builders could not read their records".into()));
        }
        let housekeeper = housekeeper(&dir, &store, &logs, &board)?;
        let context = web_context(&settings, &dir, &addr, &events, &board, &logs)?;
        let recording = actix_rt::spawn(record_expected_ends(context.clone(), store.clone()));
        let (server, http) =
            serve(context, settings.master.http).map_err(|error| StartError::Listen {
                what: "HTTP",
                address: settings.master.http,
                flag: "--http",
                error,
            })?;
        let handle = server.handle();
        let serving = actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the HTTP server ended");
            }
        });
        let listen = listener
            .local_addr()
            .map_err(|error| StartError::Other(format!("no own address: {error}")))?;
        let greeter = Greeter::new(world, addr.clone().recipient());
        let accepting = actix_rt::spawn(door::accept(
            listener,
            greeter,
            door::room_for_workers(),
            board.clone(),
        ));
        let name = master_name(&dir);
        events.publish(vec![Change::MasterStarted(master_row(&name, true))]);
        write_address(&dir, "http.addr", http)?;
        write_address(&dir, "listen.addr", listen)?;
        tracing::info!(%http, workers = %listen, data = %dir.display(), "the master serves");
        Ok(Self {
            http,
            listen,
            handle: BotMaster::handle(&addr),
            board,
            events,
            addr,
            server: handle,
            serving,
            accepting,
            recording,
            store,
            logs,
            name,
            housekeeper,
        })
    }

    /// Takes no more builds, and waits until those that run have ended or
    /// `limit` is over. Those left go on at their workers and are taken back
    /// by the next start.
    pub async fn drain(&self, mut limit: mpsc::UnboundedReceiver<Duration>, first: Duration) {
        if self.addr.send(Drain).await.is_err() {
            return;
        }
        let begun = tokio::time::Instant::now();
        let mut until = begun + first;
        loop {
            let running: usize =
                self.board.all().builders.values().map(|builder| builder.builds.len()).sum();
            if running == 0 || tokio::time::Instant::now() >= until {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(DRAIN_LOOK) => {}
                Some(less) = limit.recv() => until = until.min(tokio::time::Instant::now() + less),
            }
        }
    }

    /// The master will be back: workers with builds get a longer lease, stored
    /// before they hear of it, and until they attach again nobody else gets
    /// their builds (fault row FM03). No worker is let in any more.
    pub async fn grant_leases(&self, lease: Duration) {
        self.accepting.abort();
        if lease.is_zero() {
            return;
        }
        match tokio::time::timeout(GRANT_LIMIT, self.addr.send(GrantLeases(lease))).await {
            Ok(Ok(0)) => {}
            Ok(Ok(workers)) => tracing::info!(
                workers,
                lease_s = lease.as_secs(),
                "workers with builds go on without the master for this long"
            ),
            Ok(Err(error)) => tracing::warn!(%error, "no worker got a longer lease"),
            Err(_) => tracing::warn!(
                "not every worker got a longer lease in time; those that did not have the ordinary one"
            ),
        }
    }

    /// Lets instances of latent workers go, and waits a little for that. What
    /// is not gone by then is destroyed by the next start (fault row FX11).
    pub async fn let_instances_go(&self, even_used: bool) {
        if self.addr.send(LetInstancesGo { even_used }).await.is_err() {
            return;
        }
        let until = tokio::time::Instant::now() + INSTANCES_LIMIT;
        let stays = || {
            let shown = self.board.all();
            let mut views = shown.workers.values().filter_map(|view| view.instance.as_ref());
            views.any(|view| view.going > 0)
        };
        while stays() && tokio::time::Instant::now() < until {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Stops everything in order: no new work, answers on their way, actors,
    /// and last the store.
    pub async fn stop(self) {
        self.accepting.abort();
        self.recording.abort();
        // Open event streams hear of it: they live as long as the server.
        self.events.publish(vec![Change::MasterStopped(master_row(&self.name, false))]);
        if tokio::time::timeout(HTTP_LIMIT, self.server.stop(true)).await.is_err() {
            self.server.stop(false).await;
        }
        let _ = tokio::time::timeout(HTTP_LIMIT, self.serving).await;
        self.addr.do_send(Stop);
        let (logs, store, housekeeper) = (self.logs, self.store, self.housekeeper);
        let closed = tokio::task::spawn_blocking(move || {
            housekeeper.stop();
            logs.close();
            store.close();
        });
        if tokio::time::timeout(HTTP_LIMIT, closed).await.is_err() {
            tracing::error!("the store did not close in time");
        }
    }
}

/// Where instances of latent workers come from. Nothing is started before the
/// first one is wished for.
fn provisioner(settings: &Settings, listener: &TcpListener) -> Result<Provisioner, StartError> {
    let other = |what: &str, error: &std::io::Error| StartError::Other(format!("{what}: {error}"));
    let mut master = listener.local_addr().map_err(|error| other("no own address", &error))?;
    if master.ip().is_unspecified() {
        let here: std::net::IpAddr = match master {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        master.set_ip(here);
    }
    let dir = std::path::absolute(&settings.master.data_dir)
        .map_err(|error| other("the data folder has no path", &error))?;
    let program = std::env::current_exe()
        .map_err(|error| other("this program cannot find itself", &error))?;
    let setup = ProcessSetup {
        program,
        folder: dir.join("instances"),
        master,
        kill_time: settings.timers.kill_time,
    };
    let limits = Limits { destroy: setup.destroy_limit(), ..Limits::default() };
    Ok(Provisioner::new(Arc::new(ProcessProvider::new(setup)), limits))
}

/// Removes old builds in the background, by the rules on the board.
fn housekeeper(
    dir: &Path,
    store: &SqliteStore,
    logs: &SqliteLogs,
    board: &Board,
) -> Result<Housekeeper, StartError> {
    let (rules, shown) = (board.clone(), board.clone());
    let started = Housekeeper::start(
        dir,
        store.clone(),
        logs.clone(),
        Box::new(move || rules.retention()),
        Box::new(move |view| shown.show_housekeeping(view)),
    );
    Ok(started?)
}

async fn instances(store: &SqliteStore) -> Result<Vec<InstanceRow>, StoreError> {
    let outcomes = write(store, Transaction::of(Op::ListInstances)).await?;
    Ok(outcomes
        .into_iter()
        .flat_map(|outcome| match outcome {
            OpOutcome::Instances(rows) => rows,
            _ => Vec::new(),
        })
        .collect())
}

fn web_context(
    settings: &Settings,
    dir: &Path,
    addr: &Addr<BotMaster>,
    events: &Events,
    board: &Board,
    logs: &SqliteLogs,
) -> Result<WebContext, StartError> {
    let overrides = Overrides::default();
    Ok(WebContext {
        handle: BotMaster::handle(addr),
        reader: StateReader::open(dir)?,
        logs: Arc::new(logs.reader()),
        events: events.clone(),
        board: board.clone(),
        load_settings: Arc::new(move |path: &Path| {
            load_with(path, &overrides).map(|loaded| loaded.settings)
        }),
        title: settings.master.title.as_str().into(),
        name: master_name(dir).into(),
        allowed_origins: settings.master.allowed_origins.clone().into(),
        ui: settings.master.ui_dir.as_deref().map(stock_ui).transpose()?,
        state: WebState::default(),
    })
}

/// Reads the folder of Buildbot's pages.
fn stock_ui(dir: &Path) -> Result<Arc<StockUi>, StartError> {
    Ok(Arc::new(StockUi::read(dir)?))
}

/// Keeps when requests that wait are expected to end, so that it can be told
/// later how far off that was. Those that wait for less than a second need no
/// such times; of many some are enough.
async fn record_expected_ends(context: WebContext, store: SqliteStore) {
    let mut last = None;
    let mut pause = RECORD_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let began = tokio::time::Instant::now();
        let (context, after) = (context.clone(), last.clone());
        let found = tokio::task::spawn_blocking(move || {
            unrecorded(&context, after, RECORD_BUILDERS, RECORD_REQUESTS)
        });
        match found.await {
            Ok(Ok((found, name))) => {
                last = name;
                if !found.is_empty()
                    && let Err(error) =
                        write(&store, Transaction::of(Op::PredictRequests(found))).await
                {
                    tracing::debug!(%error, "expected ends were not kept");
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "expected ends were not worked out"),
            Err(error) => tracing::debug!(%error, "expected ends were not worked out"),
        }
        // However much there is to work out, it takes a small part of the time.
        pause = RECORD_EVERY.max(began.elapsed() * RECORD_SHARE);
    }
}

async fn write(
    store: &SqliteStore,
    transaction: Transaction,
) -> Result<Vec<crate::store::OpOutcome>, StoreError> {
    let (tell, told) = oneshot::channel();
    store.write(
        transaction,
        Box::new(move |written| {
            let _ = tell.send(written);
        }),
    );
    told.await.unwrap_or(Err(StoreError::Closed))
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| StartError::Listen {
        what: "workers",
        address,
        flag: "--listen",
        error,
    })
}

/// Written beside and renamed, so that nobody reads half an address.
fn write_address(dir: &Path, name: &str, address: SocketAddr) -> Result<(), StartError> {
    let path = dir.join(name);
    let beside = dir.join(format!("{name}.new"));
    let written = std::fs::write(&beside, format!("{address}\n"))
        .and_then(|()| std::fs::rename(&beside, &path));
    written.map_err(|error| StartError::Other(format!("cannot write {}: {error}", path.display())))
}

/// A master that runs on a thread of its own.
pub struct RunningMaster {
    /// Where its HTTP API listens.
    pub http: SocketAddr,
    /// Where workers connect.
    pub listen: SocketAddr,
    /// Asks it to stop: no new builds, running ones get this long. Returns at
    /// once; asked again with less, that counts.
    pub stop: Box<dyn FnMut(Duration) + Send>,
    /// Answers when it has ended: why, when it was not asked to.
    pub ended: oneshot::Receiver<Result<(), String>>,
}

/// Starts a master on a thread of its own and returns once it listens. It
/// installs no signal handlers.
///
/// # Errors
/// As [`Master::start`].
pub fn start_master(options: MasterOptions) -> Result<RunningMaster, String> {
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, mut stops) = mpsc::unbounded_channel::<Duration>();
    let (end, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("master".into());
    let spawned = thread.spawn(move || {
        let system = actix_rt::System::new();
        let ran = system.block_on(async move {
            let master = match Master::start(options).await {
                Ok(master) => master,
                Err(error) => {
                    let _ = tell.send(Err(error.to_string()));
                    return Ok(());
                }
            };
            let _ = tell.send(Ok((master.http, master.listen)));
            let first = stops.recv().await.unwrap_or_default();
            master.drain(stops, first).await;
            // Everything ends with this process.
            master.let_instances_go(true).await;
            master.stop().await;
            Ok(())
        });
        let _ = end.send(ran);
    });
    spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
    match told.recv() {
        Ok(Ok((http, listen))) => {
            let stop = Box::new(move |limit| {
                let _ = stop.send(limit);
            });
            Ok(RunningMaster { http, listen, stop, ended })
        }
        Ok(Err(text)) => Err(text),
        Err(_) => Err("the master ended while it was starting; its log says why".into()),
    }
}

/// Runs a master on this thread until SIGTERM or Ctrl-C; SIGHUP reads the
/// configuration again. A second signal ends it at once.
///
/// # Errors
/// As [`Master::start`].
pub fn run_master(options: MasterOptions) -> Result<(), String> {
    door::raise_descriptor_limit();
    let drain = options.loaded.settings.master.drain;
    let mut wishes = signals::listen(drain)?;
    let stop_lease = options.loaded.settings.timers.stop_lease;
    actix_rt::System::new().block_on(async move {
        let master = Master::start(options).await.map_err(|error| error.to_string())?;
        notify(&[sd_notify::NotifyState::Ready]);
        while let Some(signals::Wish::Reload) = wishes.recv().await {
            let handle = master.handle.clone();
            actix_rt::spawn(async move { reload(&handle).await });
        }
        tracing::info!(
            drain_s = drain.as_secs(),
            "stopping; a second signal ends the master at once"
        );
        notify(&[sd_notify::NotifyState::Stopping]);
        crash_point("shutdown.begin");
        let (_keep, stops) = mpsc::unbounded_channel();
        master.drain(stops, drain).await;
        master.grant_leases(stop_lease).await;
        master.let_instances_go(false).await;
        master.stop().await;
        crash_point("shutdown.store_closed");
        tracing::info!("stopped");
        Ok(())
    })
}

/// Tells systemd, where there is one.
fn notify(states: &[sd_notify::NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "no service manager to tell");
    }
}

async fn reload(handle: &BotMasterHandle) {
    notify(&[sd_notify::NotifyState::Reloading]);
    match handle.reload(Reload { dry: false, settings: None }).await {
        Ok(report) if report.problems.is_empty() => {
            for entry in report.entries.iter().filter(|entry| entry.action != "unchanged") {
                tracing::info!(what = %entry.what, name = %entry.name, action = %entry.action, differences = ?entry.differences, error = entry.error.as_deref(), "reload");
            }
            tracing::info!(duration_ms = report.took_ms, "reloaded");
        }
        Ok(report) => {
            for problem in &report.problems {
                tracing::error!("{problem}");
            }
            tracing::error!("the configuration is bad; nothing was changed");
        }
        Err(error) => tracing::error!(%error, "not reloaded"),
    }
    notify(&[sd_notify::NotifyState::Ready]);
}
