//! Reads a program's two pipes: first output at once, then in batches, never
//! more than the sink has room for.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::protocol::json_v1::LOG_BATCH;

use super::sink::Sink;

/// Longest time that output waits for more to travel with it.
const BATCH_TIME: Duration = Duration::from_millis(200);

/// Bytes that are read at once until they are not enough: most commands write
/// little, and clearing large buffers takes time.
const FIRST_READ: usize = 4 * 1024;

/// Bytes that the pipe of a program may hold that writes much.
const WIDE_PIPE: i32 = 512 * 1024;

/// Bytes of each channel's end that are kept for error texts.
const TAIL: usize = 8 * 1024;

/// What the reading tells the timers.
#[derive(Debug)]
pub(super) struct Activity {
    last: Mutex<Instant>,
    blocked: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { last: Mutex::new(Instant::now()), blocked: AtomicBool::new(false) })
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    /// When output last came, or last could come again.
    pub(super) fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Nothing is read because the master has not confirmed enough. Silence is
    /// not the program's fault then.
    pub(super) fn blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }
}

/// The ends of what a program wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tails {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl Tails {
    fn add(&mut self, ch: char, bytes: &[u8]) {
        let tail = if ch == 'o' { &mut self.out } else { &mut self.err };
        tail.extend_from_slice(bytes);
        if tail.len() > 2 * TAIL {
            tail.drain(..tail.len() - TAIL);
        }
    }
}

/// Output that waits to travel together.
struct Batch {
    ch: char,
    bytes: BytesMut,
    at: u64,
    flushed: Option<Instant>,
}

impl Batch {
    fn due(&self) -> Instant {
        self.flushed.map_or_else(Instant::now, |flushed| flushed + BATCH_TIME)
    }

    async fn add(&mut self, ch: char, bytes: &[u8], sink: &Sink) {
        if self.ch != ch {
            self.flush(sink).await;
            self.ch = ch;
        }
        if self.bytes.is_empty() {
            self.at = sink.elapsed_ms();
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= LOG_BATCH {
            self.flush_characters(sink).await;
        } else if self.due() <= Instant::now() {
            self.flush(sink).await;
        }
    }

    async fn flush(&mut self, sink: &Sink) {
        if !self.bytes.is_empty() {
            self.flushed = Some(Instant::now());
            sink.emit(self.ch, self.bytes.split().freeze(), self.at).await;
        }
    }

    /// Keeps back a last character of which a part has yet to come, so that
    /// text goes as text.
    async fn flush_characters(&mut self, sink: &Sink) {
        let whole = match std::str::from_utf8(&self.bytes) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.bytes.len(),
        };
        let rest = self.bytes.split_off(whole);
        self.flush(sink).await;
        if !rest.is_empty() {
            self.at = sink.elapsed_ms();
            self.bytes = rest;
        }
    }
}

/// Reads until both pipes end or `stop` says so, and answers with the ends of
/// what came. Without a sink the output is only kept for that.
pub(super) async fn collect(
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    sink: Option<Sink>,
    activity: Arc<Activity>,
    stop: CancellationToken,
) -> Tails {
    let (mut stdout, mut stderr) = (stdout, stderr);
    let (mut out_buffer, mut err_buffer) = (vec![0; FIRST_READ], vec![0; FIRST_READ]);
    let mut tails = Tails::default();
    let mut batch = Batch { ch: 'o', bytes: BytesMut::new(), at: 0, flushed: None };
    while stdout.is_some() || stderr.is_some() {
        let waiting = batch.bytes.len();
        let room = sink.as_ref().map_or(u64::MAX, Sink::room);
        let room = usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(waiting);
        if let Some(sink) = sink.as_ref().filter(|_| room == 0) {
            batch.flush(sink).await;
            activity.blocked.store(true, Ordering::Relaxed);
            tokio::select! {
                () = sink.wait_for_room() => {}
                () = stop.cancelled() => break,
            }
            activity.touch();
            activity.blocked.store(false, Ordering::Relaxed);
            continue;
        }
        let limit = room.min(LOG_BATCH.saturating_sub(waiting)).max(1);
        let (ch, read) = tokio::select! {
            read = read_some(&mut stdout, &mut out_buffer, limit), if stdout.is_some() => ('o', read),
            read = read_some(&mut stderr, &mut err_buffer, limit), if stderr.is_some() => ('e', read),
            () = tokio::time::sleep_until(batch.due()), if waiting > 0 => {
                if let Some(sink) = &sink {
                    batch.flush(sink).await;
                }
                continue;
            }
            () = stop.cancelled() => break,
        };
        let buffer = if ch == 'o' { &mut out_buffer } else { &mut err_buffer };
        if read == buffer.len() && read < LOG_BATCH {
            buffer.resize(LOG_BATCH, 0);
            let pipe = if ch == 'o' {
                stdout.as_ref().map(AsFd::as_fd)
            } else {
                stderr.as_ref().map(AsFd::as_fd)
            };
            pipe.into_iter().for_each(widen);
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            if ch == 'o' {
                stdout = None
            } else {
                stderr = None
            }
            continue;
        }
        activity.touch();
        tails.add(ch, bytes);
        if let Some(sink) = &sink {
            batch.add(ch, bytes, sink).await;
        }
    }
    if let Some(sink) = &sink {
        batch.flush(sink).await;
    }
    tails
}

/// A program that writes much need not wait for each turn of the reader.
fn widen(pipe: BorrowedFd<'_>) {
    // Where it is not allowed the pipe stays as it is.
    #[cfg(target_os = "linux")]
    let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(WIDE_PIPE));
}

/// Up to `limit` bytes. A pipe that fails is at its end.
async fn read_some<R: AsyncRead + Unpin>(
    pipe: &mut Option<R>,
    buffer: &mut [u8],
    limit: usize,
) -> usize {
    let limit = limit.min(buffer.len());
    match (pipe, buffer.get_mut(..limit)) {
        (Some(pipe), Some(buffer)) => pipe.read(buffer).await.unwrap_or(0),
        _ => 0,
    }
}
