//! Bytes to lines, within a limit. It looks at no byte twice and keeps no more
//! than one line beyond what the socket gave it.

use bytes::BytesMut;
use tokio_util::codec::Decoder;

use super::codec::MAX_LINE;

/// Splits a stream into lines without their `\n`. What stands after the last
/// `\n` when the stream ends was cut short and is no line.
#[derive(Debug)]
pub struct FrameLines {
    max: usize,
    /// Bytes of the present line that hold no `\n`.
    scanned: usize,
}

/// Why there is no next line. The connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The line is longer than the limit.
    #[error("line is longer than {0} bytes")]
    TooLong(usize),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl FrameLines {
    /// Lines of at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, scanned: 0 }
    }

    /// Another limit from the next line on: a master raises it once the worker
    /// has been accepted.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }
}

impl Default for FrameLines {
    fn default() -> Self {
        Self::new(MAX_LINE)
    }
}

impl Decoder for FrameLines {
    type Item = BytesMut;
    type Error = LineError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, LineError> {
        let unseen = buffer.get(self.scanned..).unwrap_or_default();
        let Some(place) = memchr::memchr(b'\n', unseen) else {
            self.scanned = buffer.len();
            return if self.scanned > self.max {
                Err(LineError::TooLong(self.max))
            } else {
                Ok(None)
            };
        };
        let length = self.scanned + place;
        self.scanned = 0;
        if length > self.max {
            return Err(LineError::TooLong(self.max));
        }
        let mut line = buffer.split_to(length + 1);
        line.truncate(length);
        Ok(Some(line))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, LineError> {
        let line = self.decode(buffer)?;
        if line.is_none() {
            buffer.clear();
            self.scanned = 0;
        }
        Ok(line)
    }
}
