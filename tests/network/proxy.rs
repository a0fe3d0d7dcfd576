//! A bad network: a proxy between a worker and a master that cuts, stalls,
//! slows, resets and damages what goes through it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes that travel together.
const PIECE: usize = 16 * 1024;
/// Pieces that may be on their way when there is a delay.
const ON_THE_WAY: usize = 64;

/// In which direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the worker to the master.
    Up,
    /// From the master to the worker.
    Down,
}

/// Where a connection ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cut {
    /// When so many bytes have gone this way.
    Bytes(Way, u64),
    /// When the first line with this text has gone this way.
    After(Way, &'static str),
    /// When the first line with this text would go this way.
    Before(Way, &'static str),
}

/// What happens to one connection. The default is nothing.
#[derive(Clone, Default, Debug)]
pub struct Plan {
    /// Where it ends.
    pub cut: Option<Cut>,
    /// By a reset, and not by an orderly end.
    pub reset: bool,
    /// At this byte of this way a bit is turned, so that it is no ASCII any more.
    pub flip: Option<(Way, u64)>,
}

/// What holds for all connections from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Whether the worker's bytes arrive at all.
    pub up: bool,
    /// Whether the master's bytes arrive at all.
    pub down: bool,
    /// How long each byte is on its way.
    pub delay: Duration,
    /// Bytes a second, in each direction; 0 is no limit.
    pub rate: u64,
    /// So many cuts of everything were asked for.
    cuts: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self { up: true, down: true, delay: Duration::ZERO, rate: 0, cuts: 0 }
    }
}

impl Weather {
    fn open(&self, way: Way) -> bool {
        match way {
            Way::Up => self.up,
            Way::Down => self.down,
        }
    }
}

struct Shared {
    target: SocketAddr,
    weather: watch::Sender<Weather>,
    plans: Mutex<VecDeque<Plan>>,
    connections: AtomicUsize,
    up: AtomicU64,
    down: AtomicU64,
}

impl Shared {
    fn passed(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }
}

/// The proxy. It ends with its last connection when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl Proxy {
    /// A proxy before `target`.
    pub fn before(target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            weather: watch::Sender::new(Weather::default()),
            plans: Mutex::default(),
            connections: AtomicUsize::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        });
        let accepting = shared.clone();
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                let plan = accepting.plans.lock().unwrap().pop_front().unwrap_or_default();
                tokio::spawn(carry(near, plan, accepting.clone()));
            }
        });
        Self { address, shared, _runtime: runtime }
    }

    /// What happens to the next connections, one after the other.
    pub fn plan(&self, plans: impl IntoIterator<Item = Plan>) {
        self.shared.plans.lock().unwrap().extend(plans);
    }

    /// Changes the weather for all connections.
    pub fn weather(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.weather(|weather| weather.cuts += 1);
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes that have gone this way, over all connections.
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed(way).load(Ordering::Relaxed)
    }
}

/// Why a pump stopped.
#[derive(PartialEq, Eq)]
enum End {
    /// The sender ended it in order.
    Eof,
    /// Here the plan says so.
    Cut,
    /// It cannot be read or written.
    Broken,
}

async fn carry(near: TcpStream, plan: Plan, shared: Arc<Shared>) {
    let Ok(far) = TcpStream::connect(shared.target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    if plan.reset {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
    let ((from_worker, to_worker), (from_master, to_master)) =
        (near.into_split(), far.into_split());
    let mut weather = shared.weather.subscribe();
    let before = weather.borrow().cuts;
    let up = pump(from_worker, to_master, Way::Up, &plan, &shared);
    let down = pump(from_master, to_worker, Way::Down, &plan, &shared);
    tokio::pin!(up, down);
    // An end that came through is seen by the other side, and so are cuts.
    tokio::select! {
        _ = &mut up => {}
        _ = &mut down => {}
        _ = weather.wait_for(|weather| weather.cuts > before) => {}
    }
}

/// Carries bytes one way until it ends. What a closed way does not let through
/// is not lost: the sender's kernel would send it again, as TCP does.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    plan: &Plan,
    shared: &Shared,
) -> End {
    let (pieces, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let mut sky = shared.weather.subscribe();
    let reading = async move {
        let mut script = Script::new(way, plan);
        let mut buffer = vec![0; PIECE];
        loop {
            if sky.wait_for(|weather| weather.open(way)).await.is_err() {
                return End::Broken;
            }
            let room = script.room().min(PIECE);
            if room == 0 {
                return End::Cut;
            }
            let read = tokio::select! {
                read = from.read(&mut buffer[..room]) => read,
                _ = sky.changed() => continue,
            };
            let count = match read {
                Ok(0) => return End::Eof,
                Ok(count) => count,
                Err(_) => return End::Broken,
            };
            // What arrived just as the way closed waits, too.
            let _ = sky.wait_for(|weather| weather.open(way)).await;
            let now = *sky.borrow_and_update();
            if now.rate > 0 {
                tokio::time::sleep(Duration::from_secs_f64(count as f64 / now.rate as f64)).await;
            }
            let (bytes, cut) = script.play(&buffer[..count]);
            shared.passed(way).fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if pieces.send((Instant::now() + now.delay, bytes)).await.is_err() {
                return End::Broken;
            }
            if cut {
                return End::Cut;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return (End::Broken, to);
            }
        }
        (End::Eof, to)
    };
    // The reading side drops its end of the queue; the writing side finishes.
    let (read, (written, _to)) = tokio::join!(reading, writing);
    if written == End::Broken { written } else { read }
}

/// One way's part of a plan.
struct Script<'p> {
    way: Way,
    plan: &'p Plan,
    seen: u64,
    /// Bytes of a line that is not whole yet, when lines matter.
    line: Vec<u8>,
}

impl<'p> Script<'p> {
    fn new(way: Way, plan: &'p Plan) -> Self {
        Self { way, plan, seen: 0, line: Vec::new() }
    }

    /// How many bytes may still go this way.
    fn room(&self) -> usize {
        match self.plan.cut {
            Some(Cut::Bytes(way, limit)) if way == self.way => {
                usize::try_from(limit.saturating_sub(self.seen)).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }

    /// What becomes of these bytes, and whether it is the end after them.
    fn play(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut bytes = bytes.to_vec();
        if let Some((way, place)) = self.plan.flip
            && way == self.way
            && let Some(at) = place.checked_sub(self.seen)
            && let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at))
        {
            *byte ^= 0x80;
        }
        self.seen += bytes.len() as u64;
        let (text, before) = match self.plan.cut {
            Some(Cut::After(way, text)) if way == self.way => (text, false),
            Some(Cut::Before(way, text)) if way == self.way => (text, true),
            _ => return (bytes, false),
        };
        self.line.extend(bytes);
        let mut out = Vec::new();
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let found = line.windows(text.len()).any(|window| window == text.as_bytes());
            if !(found && before) {
                out.extend(line);
            }
            if found {
                return (out, true);
            }
        }
        (out, false)
    }
}
