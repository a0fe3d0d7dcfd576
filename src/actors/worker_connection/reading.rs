//! The reader of a worker connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix::Addr;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio_util::codec::FramedRead;

use super::{Arrived, Ended, WorkerConnection};
use crate::actors::runtime::World;
use crate::clock::Clock;
use crate::core::ids::LogId;
use crate::messages::WorkerLink;
use crate::protocol::json_v1::{
    DecodeError, FrameLines, LineError, LogData, MAX_LINE, MAX_LINE_BEFORE_ATTACH, MasterFrame,
    WireError, WorkerFrame, decode_worker,
};
use crate::store::logs::Piece;

/// Lines of unknown types that a connection may send in a minute.
const UNKNOWN_LIMIT: u32 = 100;
/// Why a connection is closed whose frame does not come to its end.
const OVERDUE: &str = "a frame of it took too long";

pub(super) async fn read_lines<R: AsyncRead + Unpin>(
    reader: R,
    link: WorkerLink,
    connection: Addr<WorkerConnection>,
    world: World,
) {
    let reader = Box::pin(Heard { reader, link: link.clone(), clock: world.clock.clone() });
    let mut frames = FramedRead::new(reader, FrameLines::new(MAX_LINE_BEFORE_ATTACH));
    let mut attached = false;
    let mut unknown = (0, world.clock.now().mono);
    let reason = loop {
        // While we did other things, the rest may have been there already.
        link.frame_begun(None);
        if !frames.read_buffer().is_empty() {
            link.frame_begun(Some(world.clock.now().mono));
        }
        let line = tokio::select! {
            biased;
            line = frames.next() => line,
            reason = dropped(&link, &world) => break reason.to_owned(),
        };
        let line = match line {
            None => break "the worker closed the connection".to_owned(),
            Some(Ok(line)) => line,
            Some(Err(error)) => {
                if matches!(error, LineError::TooLong(_)) {
                    complain(&link, "too_long", &error.to_string());
                }
                break error.to_string();
            }
        };
        match decode_worker(&line) {
            Ok(WorkerFrame::Log(mut data)) if attached => {
                if let Some(length) = data.raw {
                    let body = tokio::select! {
                        biased;
                        body = body(&mut frames, length) => body,
                        reason = dropped(&link, &world) => break reason.to_owned(),
                    };
                    match body {
                        Ok(body) => data.body = body,
                        Err(error) => break error.to_string(),
                    }
                }
                match route_of(&data, &link) {
                    Some(log) => {
                        if let Err(reason) = take_log(data, log, &link, &world).await {
                            break reason;
                        }
                    }
                    // Late, or none of its business: the Worker knows which.
                    None => {
                        let (text, b64, raw) = (Some(String::new()), None, None);
                        let bare = LogData { text, b64, raw, body: Bytes::new(), ..data };
                        let frame = Arrived(WorkerFrame::Log(bare));
                        if connection.send(frame).await.is_err() {
                            break "the master is stopping".into();
                        }
                    }
                }
            }
            Ok(frame) => {
                if connection.send(Arrived(frame)).await.is_err() {
                    break "the master is stopping".into();
                }
                if !attached {
                    attached = true;
                    frames.decoder_mut().set_max(MAX_LINE);
                }
            }
            Err(error) => {
                world.board.count_ignored("malformed frame");
                complain(&link, error.code(), &error.to_string());
                let now = world.clock.now().mono;
                if now.since(unknown.1) > std::time::Duration::from_secs(60) {
                    unknown = (0, now);
                }
                unknown.0 += u32::from(matches!(error, DecodeError::UnknownType(_)));
                if error.is_fatal() || !attached || unknown.0 > UNKNOWN_LIMIT {
                    break error.to_string();
                }
            }
        }
    };
    link.close(&reason);
    connection.do_send(Ended(reason));
}

/// The bytes behind a line: those that came with it, then those still to come.
/// They have room of their own, so that a connection keeps none for the next.
async fn body<R: AsyncRead + Unpin>(
    frames: &mut FramedRead<R, FrameLines>,
    length: usize,
) -> std::io::Result<Bytes> {
    let mut body = BytesMut::with_capacity(length);
    let buffer = frames.read_buffer_mut();
    body.extend_from_slice(&buffer.split_to(length.min(buffer.len())));
    while body.len() < length {
        let missing = length - body.len();
        if frames.get_mut().read_buf(&mut (&mut body).limit(missing)).await? == 0 {
            let message = "the worker closed the connection in the middle of a frame";
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, message));
        }
    }
    Ok(body.freeze())
}

/// Returns with the reason when the connection is not to be read any longer.
async fn dropped(link: &WorkerLink, world: &World) -> &'static str {
    tokio::select! {
        biased;
        () = overdue(link, world) => {
            world.board.count_ignored("frame that took too long");
            OVERDUE
        }
        () = link.wait_closed() => "closed by the master",
    }
}

/// Returns when a frame has been incomplete for too long (fault row FN04).
async fn overdue(link: &WorkerLink, world: &World) {
    let limit = world.limits.frame_time;
    loop {
        let now = world.clock.now().mono;
        let since = link.incomplete_since();
        let left = since.map_or(limit, |since| (since + limit).since(now));
        if since.is_some() && left.is_zero() {
            return;
        }
        // One that begins meanwhile cannot be overdue before.
        tokio::time::sleep(left.max(std::time::Duration::from_millis(1))).await;
    }
}

/// Notes each byte as it arrives: any of them is a sign of life, one of half a
/// frame, too.
struct Heard<R> {
    reader: R,
    link: WorkerLink,
    clock: Clock,
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
            let now = self.clock.now().mono;
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
    let (channel, offset, at_ms) = (data.ch as u8, data.offset, data.at);
    let bytes = match data.into_bytes() {
        Ok(bytes) => bytes,
        Err(error) => {
            complain(link, "malformed", "`b64` is no base64");
            return Err(format!("log text is no base64: {error}"));
        }
    };
    let room = u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(1);
    // While the disk does not keep up it is we who do not listen.
    link.hold(true);
    let permit = world.logs.budget().acquire_many_owned(room).await.ok();
    link.hold(false);
    link.heard_at(world.clock.now().mono);
    world.logs.append(Piece {
        log,
        channel,
        offset: Some(offset),
        bytes,
        at_ms,
        confirm: Some(Arc::new(link.clone())),
        permit,
    });
    Ok(())
}
