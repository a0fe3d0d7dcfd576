//! Lines out of a socket. Between them it holds no memory: most connections
//! are idle most of the time. One that is busy is read in large pieces.

use std::future::Future as _;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::codec::Decoder as _;

use crate::protocol::json_v1::{FrameLines, LineError};

/// What is read at once of a connection that says little, and at most.
const ROOM: (usize, usize) = (1024, 64 * 1024);

/// A socket's lines.
pub(super) struct SocketLines<R> {
    reader: R,
    buffer: BytesMut,
    lines: FrameLines,
    /// Bytes that are read at once.
    room: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> SocketLines<R> {
    pub(super) fn new(reader: R, max: usize) -> Self {
        let lines = FrameLines::new(max);
        Self { reader, buffer: BytesMut::new(), lines, room: ROOM.0, ended: false }
    }

    /// Another limit from the next line on.
    pub(super) fn set_max(&mut self, max: usize) {
        self.lines.set_max(max);
    }

    /// Whether a part of the next line is here.
    pub(super) fn has_begun(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next line; none when the socket came to its end.
    pub(super) fn poll_line(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BytesMut, LineError>>> {
        loop {
            if self.ended {
                return Poll::Ready(self.lines.decode_eof(&mut self.buffer).transpose());
            }
            if let Some(line) = self.lines.decode(&mut self.buffer).transpose() {
                return Poll::Ready(Some(line));
            }
            self.buffer.reserve(self.room);
            let spare = self.buffer.capacity() - self.buffer.len();
            match pin!(self.reader.read_buf(&mut self.buffer)).poll(cx) {
                Poll::Pending => {
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(read)) if read == spare => {
                    self.room = (self.room * 4).min(ROOM.1);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }

    /// Fills `body` with so many bytes: those that came with the line before,
    /// then those still to come.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut BytesMut,
        length: usize,
    ) -> Poll<io::Result<()>> {
        loop {
            let missing = length.saturating_sub(body.len());
            if missing == 0 {
                return Poll::Ready(Ok(()));
            }
            if !self.buffer.is_empty() {
                body.extend_from_slice(&self.buffer.split_to(missing.min(self.buffer.len())));
                continue;
            }
            let mut room = body.limit(missing);
            let read = match pin!(self.reader.read_buf(&mut room)).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(read) => read?,
            };
            if read == 0 {
                let message = "the worker closed the connection in the middle of a frame";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut_and_nothing_is_held_between_them() {
        let (mut theirs, ours) = duplex(256 * 1024);
        let mut lines = SocketLines::new(ours, 200_000);
        let long = "x".repeat(150_000);
        let text = format!("one\ntwo\n{long}\nthree\n");
        let (head, tail) = text.split_at(5);
        theirs.write_all(head.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        got.push(poll_fn(|cx| lines.poll_line(cx)).await.unwrap().unwrap());
        let more = futures_util::poll!(poll_fn(|cx| lines.poll_line(cx)));
        assert!(more.is_pending() && lines.has_begun(), "half a line is kept");
        theirs.write_all(tail.as_bytes()).await.unwrap();
        for _ in 0..3 {
            got.push(poll_fn(|cx| lines.poll_line(cx)).await.unwrap().unwrap());
        }
        assert_eq!(got, ["one", "two", long.as_str(), "three"]);
        assert_eq!(lines.room, ROOM.1, "a busy one is read in large pieces");
        let more = futures_util::poll!(poll_fn(|cx| lines.poll_line(cx)));
        assert!(more.is_pending());
        assert_eq!(lines.buffer.capacity(), 0);
        drop(theirs);
        assert!(poll_fn(|cx| lines.poll_line(cx)).await.is_none());
    }

    #[tokio::test]
    async fn a_line_beyond_the_limit_and_one_cut_short_are_told_apart() {
        let mut long = SocketLines::new(&b"123456789\n"[..], 5);
        let line = poll_fn(|cx| long.poll_line(cx)).await;
        assert!(matches!(line, Some(Err(LineError::TooLong(5)))));
        let mut short = SocketLines::new(&b"12\n34"[..], 5);
        assert_eq!(poll_fn(|cx| short.poll_line(cx)).await.unwrap().unwrap(), "12");
        assert!(poll_fn(|cx| short.poll_line(cx)).await.is_none(), "it is no line");
    }
}
