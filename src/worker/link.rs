//! One connection to the master: a reader, and a writer with two lanes.
//!
//! Nothing is decided here. What comes is told as events; what goes is taken
//! from the lanes, control frames always before log frames that wait.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::codec::FramedRead;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::protocol::json_v1::{FrameLines, LineError, WorkerFrame, decode_master, encode_worker};

use super::agent::{Event, Lane};

/// Control frames that may wait. More means that the master does not read.
const CONTROL_QUEUE: usize = 1024;
/// Log frames that may wait; the agent gives no more than this at once.
const LOG_QUEUE: usize = 64;
/// Bytes that travel in one write at most, apart from the last frame.
const WRITE_BATCH: usize = 128 * 1024;
/// Room for a batch that is kept while no log waits to be written.
const KEPT_ROOM: usize = 16 * 1024;
/// Bytes that the system may hold that it has not sent yet.
const UNSENT: u32 = 128 * 1024;
/// How long one write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// How long the name look-up and the connect may take.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// The near end of a connection. Dropping it writes what waits and closes.
#[derive(Debug)]
pub struct Connection {
    control: mpsc::Sender<WorkerFrame>,
    log: mpsc::Sender<WorkerFrame>,
    /// Ends the reading.
    _reading: DropGuard,
    task: JoinHandle<()>,
}

impl Connection {
    /// Puts a frame into its lane.
    ///
    /// # Errors
    /// When the lane is full: the master is too slow, or gone.
    pub fn send(&self, lane: Lane, frame: WorkerFrame) -> Result<(), &'static str> {
        let queue = if lane == Lane::Control { &self.control } else { &self.log };
        queue.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "the master does not read what it is sent",
            mpsc::error::TrySendError::Closed(_) => "the connection is closed",
        })
    }

    /// Closes, and waits until what was said has been written, as long as
    /// `limit`.
    pub async fn close(self, limit: Duration) {
        let Self { control, log, _reading, task } = self;
        drop((control, log, _reading));
        // Too late or not, the program goes on.
        let _ = tokio::time::timeout(limit, task).await;
    }
}

/// Dials `master`, see [`talk`].
pub(super) fn dial(master: String, link: u64, events: mpsc::Sender<Event>) -> Connection {
    talk(async move { connect(&master).await.map(TcpStream::into_split) }, link, events)
}

/// Talks over the two halves of a socket once it is connected. What comes of it
/// is told as events of connection `link`: `Connected` then frames, and
/// `Closed` at the end.
pub fn talk<R, W>(
    connecting: impl Future<Output = Result<(R, W), String>> + Send + 'static,
    link: u64,
    events: mpsc::Sender<Event>,
) -> Connection
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
    let (log, log_queue) = mpsc::channel(LOG_QUEUE);
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let task = tokio::spawn(async move {
        let reason = match connecting.await {
            Ok((from, to)) => {
                tell(&events, Event::Connected { link }).await;
                let lanes = Lanes { control: control_queue, log: log_queue };
                let written = write(to, lanes, link, events.clone());
                let read = async {
                    tokio::select! {
                        biased;
                        reason = read(from, link, &events) => reason,
                        // Closed from this side: the writer finishes alone.
                        () = stop.cancelled() => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    reason = written => reason,
                    reason = read => reason,
                }
            }
            Err(reason) => reason,
        };
        tell(&events, Event::Closed { link, reason }).await;
    });
    Connection { control, log, _reading: guard, task }
}

async fn connect(master: &str) -> Result<TcpStream, String> {
    let stream = match tokio::time::timeout(DIAL_LIMIT, TcpStream::connect(master)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("cannot connect to {master}: {error}")),
        Err(_) => return Err(format!("no connection to {master} within {DIAL_LIMIT:?}")),
    };
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    // What the system holds back is beyond overtaking. On a slow link an answer
    // to a ping would stand behind megabytes of log.
    if let Err(error) = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "the system's queue has its usual length");
    }
    Ok(stream)
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    // Fails only when the program ends.
    let _ = events.send(event).await;
}

/// Reads until the connection cannot go on, and says why.
async fn read(from: impl AsyncRead + Unpin, link: u64, events: &mpsc::Sender<Event>) -> String {
    let mut lines = FramedRead::with_capacity(from, FrameLines::default(), 64 * 1024);
    loop {
        let (code, message, fatal) = match lines.next().await {
            None => return "the master closed the connection".to_owned(),
            Some(Ok(line)) => match decode_master(&line) {
                Ok(frame) => {
                    tell(events, Event::Frame { link, frame }).await;
                    continue;
                }
                Err(error) => (error.code(), error.to_string(), error.is_fatal()),
            },
            Some(Err(error @ LineError::TooLong(_))) => ("too_long", error.to_string(), true),
            Some(Err(LineError::Io(error))) => return format!("the connection failed: {error}"),
        };
        tell(events, Event::Unreadable { link, code, message, fatal }).await;
        if fatal {
            // The agent closes, after its `error` has been written.
            std::future::pending::<()>().await;
        }
    }
}

struct Lanes {
    control: mpsc::Receiver<WorkerFrame>,
    log: mpsc::Receiver<WorkerFrame>,
}

/// What is written in one go.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    logs: usize,
}

impl Batch {
    fn add(&mut self, frame: &WorkerFrame, is_log: bool) {
        encode_worker(frame, &mut self.bytes);
        self.logs += usize::from(is_log);
    }
}

impl Lanes {
    /// Waits for something to write, then takes what is there without waiting:
    /// before each log frame all control frames. False when both are closed.
    async fn next(&mut self, batch: &mut Batch) -> bool {
        batch.bytes.clear();
        batch.logs = 0;
        if batch.bytes.capacity() > KEPT_ROOM && self.log.is_empty() {
            batch.bytes = Vec::new();
        }
        tokio::select! {
            biased;
            Some(frame) = self.control.recv() => batch.add(&frame, false),
            Some(frame) = self.log.recv() => batch.add(&frame, true),
            else => return false,
        }
        while batch.bytes.len() < WRITE_BATCH {
            if let Ok(frame) = self.control.try_recv() {
                batch.add(&frame, false);
            } else if let Ok(frame) = self.log.try_recv() {
                batch.add(&frame, true);
            } else {
                break;
            }
        }
        true
    }
}

/// Writes until there is nothing more to say, or it cannot go on.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut lanes: Lanes,
    link: u64,
    events: mpsc::Sender<Event>,
) -> String {
    let mut batch = Batch::default();
    while lanes.next(&mut batch).await {
        match tokio::time::timeout(WRITE_LIMIT, to.write_all(&batch.bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return format!("the connection failed: {error}"),
            Err(_) => return format!("the master did not read for {WRITE_LIMIT:?}"),
        }
        for _ in 0..batch.logs {
            tell(&events, Event::LogWritten { link }).await;
        }
    }
    // The socket closes with its last half in any case.
    let _ = to.shutdown().await;
    "closed by the worker".to_owned()
}
