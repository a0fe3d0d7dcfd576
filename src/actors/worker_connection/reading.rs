//! The reader of a worker connection.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::handshake::{Caller, prove};
use super::lines::SocketLines;
use super::patience::Patience;
use crate::actors::runtime::World;
use crate::core::ids::LogId;
use crate::messages::{ConnectionLost, FrameArrived, SLOW, WorkerHandle, WorkerLink};
use crate::protocol::json_v1::{
    DecodeError, LineError, LogData, MAX_LINE, MAX_LINE_BEFORE_ATTACH, MasterFrame, WireError,
    WorkerFrame, decode_worker,
};
use crate::store::logs::Piece;

/// Lines of unknown types that a connection may send in a minute.
const UNKNOWN_LIMIT: u32 = 100;

/// What arrives over a connection.
pub(super) struct Incoming<R> {
    lines: SocketLines<Heard<R>>,
    link: WorkerLink,
    world: World,
    patience: Patience,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    /// The connection.
    pub(super) fn link(&self) -> &WorkerLink {
        &self.link
    }

    /// What `poll` waits for, or why the connection is over before it is here.
    async fn arrives<T>(
        &mut self,
        mut poll: impl FnMut(&mut SocketLines<Heard<R>>, &mut Context<'_>) -> Poll<T>,
    ) -> Result<T, String> {
        let Self { lines, link, world, patience } = self;
        loop {
            // One that floods always has more: that it was closed is looked at
            // first.
            if link.is_closed() {
                return Err("closed by the master".to_owned());
            }
            let mut changed = pin!(link.change());
            let next = poll_fn(|cx| {
                if let Poll::Ready(found) = poll(lines, cx) {
                    return Poll::Ready(Next::Here(found));
                }
                // It hears of a change from here on, so what is there now is
                // looked at after this.
                let changed = changed.as_mut().poll(cx).is_ready();
                if changed || link.is_closed() {
                    return Poll::Ready(Next::Changed);
                }
                patience.poll_over(cx, link, world).map(Next::Over)
            });
            match next.await {
                Next::Here(found) => return Ok(found),
                Next::Over(reason) => return Err(reason.to_owned()),
                Next::Changed => {}
            }
        }
    }

    /// The next line, or why there is none any more.
    async fn line(&mut self) -> Result<BytesMut, String> {
        // While we did other things, the rest may have been there already.
        self.link.frame_begun(None);
        if self.lines.has_begun() {
            self.link.frame_begun(Some(self.world.clock.now().mono));
        }
        match self.arrives(SocketLines::poll_line).await? {
            None => Err("the worker closed the connection".to_owned()),
            Some(Ok(line)) => Ok(line),
            Some(Err(error)) => {
                if matches!(error, LineError::TooLong(_)) {
                    complain(&self.link, "too_long", &error.to_string());
                }
                Err(error.to_string())
            }
        }
    }
}

enum Next<T> {
    Here(T),
    Over(&'static str),
    Changed,
}

/// However the reader of a connection ends, the worker's actor hears of it.
struct Ending {
    worker: Option<Arc<WorkerHandle>>,
    link: WorkerLink,
    world: World,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // The first reason counts.
        self.link.close("its reader ended");
        let reason = self.link.closed().unwrap_or_default();
        if reason == SLOW {
            self.world.board.count_ignored("worker that does not read");
        }
        if let Some(worker) = &self.worker {
            worker.tell(ConnectionLost { session: self.link.session, reason });
        }
    }
}

pub(super) async fn read_lines<R: AsyncRead + Unpin>(
    reader: R,
    link: WorkerLink,
    caller: Box<Caller>,
    world: World,
) {
    let reader = Heard { reader, link: link.clone(), world: world.clone() };
    let lines = SocketLines::new(reader, MAX_LINE_BEFORE_ATTACH);
    let patience = Patience::default();
    let mut incoming = Incoming { lines, link: link.clone(), world: world.clone(), patience };
    let mut ending = Ending { worker: None, link, world };
    // On the heap, because it is over soon and the connection is not.
    let proved = Box::pin(prove(&mut incoming, caller, &ending.world)).await;
    let reason = match proved {
        Ok(worker) => {
            ending.worker = Some(worker.clone());
            incoming.lines.set_max(MAX_LINE);
            listen(&mut incoming, &worker).await
        }
        Err(reason) => reason,
    };
    ending.link.close(&reason);
}

/// The first frame; a connection that begins with anything else is over.
pub(super) async fn read_frame<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
) -> Result<WorkerFrame, String> {
    let line = incoming.line().await?;
    decode_worker(&line).map_err(|error| {
        incoming.world.board.count_ignored("malformed frame");
        complain(&incoming.link, error.code(), &error.to_string());
        error.to_string()
    })
}

/// Hands on what the worker says until the connection is over, and why it is.
/// The next frame is read when the worker's actor has had the one before, so a
/// worker that floods waits in its own socket.
async fn listen<R: AsyncRead + Unpin>(incoming: &mut Incoming<R>, worker: &WorkerHandle) -> String {
    let mut unknown = (0, incoming.world.clock.now().mono);
    loop {
        let line = match incoming.line().await {
            Ok(line) => line,
            Err(reason) => return reason,
        };
        let (link, world) = (&incoming.link, &incoming.world);
        let frame = match decode_worker(&line) {
            Ok(WorkerFrame::Log(data)) => match route_of(&data, link) {
                Some(log) => {
                    if let Err(reason) = take_log(data, log, link, world).await {
                        return reason;
                    }
                    continue;
                }
                // Late, or none of its business: the Worker knows which.
                None => WorkerFrame::Log(LogData { text: Some(String::new()), b64: None, ..data }),
            },
            Ok(frame) => frame,
            Err(error) => {
                world.board.count_ignored("malformed frame");
                complain(link, error.code(), &error.to_string());
                let now = world.clock.now().mono;
                if now.since(unknown.1) > std::time::Duration::from_secs(60) {
                    unknown = (0, now);
                }
                unknown.0 += u32::from(matches!(error, DecodeError::UnknownType(_)));
                if error.is_fatal() || unknown.0 > UNKNOWN_LIMIT {
                    return error.to_string();
                }
                continue;
            }
        };
        drop(line);
        let arrived = FrameArrived { session: link.session, frame };
        // One that panicked over it closes the connection itself.
        if worker.frame.send(arrived).await.is_err() && !worker.frame.connected() {
            return "the master is stopping".into();
        }
    }
}

/// Notes each byte as it arrives: any of them is a sign of life, one of half a
/// frame, too.
struct Heard<R> {
    reader: R,
    link: WorkerLink,
    world: World,
}

impl<R: AsyncRead + Unpin> AsyncRead for Heard<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.reader).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            let now = self.world.clock.now().mono;
            self.link.heard_at(now);
            self.link.frame_begun(Some(now));
        }
        polled
    }
}

fn complain(link: &WorkerLink, code: &str, message: &str) {
    link.send(&MasterFrame::Error(WireError { code: code.into(), message: message.into() }));
}

/// Where this text goes, if its command may write there.
fn route_of(data: &LogData, link: &WorkerLink) -> Option<LogId> {
    let route = link.logs().find(&data.command, link.last_heard())?;
    (route.build == data.build && route.name == data.log).then_some(route.log)
}

/// Text goes straight to the log store: no mailbox could hold it back.
async fn take_log(
    data: LogData,
    log: LogId,
    link: &WorkerLink,
    world: &World,
) -> Result<(), String> {
    let bytes = match (data.text, data.b64) {
        (Some(text), None) => Bytes::from(text.into_bytes()),
        (None, Some(b64)) => match base64::engine::general_purpose::STANDARD.decode(b64) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                complain(link, "malformed", "`b64` is no base64");
                return Err(format!("log text is no base64: {error}"));
            }
        },
        _ => return Ok(()),
    };
    let room = u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(1);
    // While the disk does not keep up it is we who do not listen.
    link.hold(true);
    let permit = world.logs.budget().acquire_many_owned(room).await.ok();
    link.hold(false);
    link.heard_at(world.clock.now().mono);
    world.logs.append(Piece {
        log,
        channel: data.ch as u8,
        offset: Some(data.offset),
        bytes,
        at_ms: data.at,
        confirm: Some(Arc::new(link.clone())),
        permit,
    });
    Ok(())
}
