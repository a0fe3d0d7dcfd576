//! The segment form: how a piece of log is laid down in bytes.
//!
//! One segment is its channel (1 byte), its time in milliseconds (8 bytes), its
//! length (4 bytes) and its text, numbers little-endian. Segments follow each
//! other without anything between them.

use super::super::StoreError;

const HEADER: usize = 13;

/// One segment, without its time, which is kept for readers to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment<'a> {
    /// `o`, `e` or `h`.
    pub channel: u8,
    /// Its text.
    pub bytes: &'a [u8],
}

/// Lays segments down. A segment that continues the one before, in the same
/// channel and millisecond, is added to it.
#[derive(Default)]
pub(super) struct Encoder {
    out: Vec<u8>,
    text: usize,
    /// Channel, time, and where the last segment begins.
    last: Option<(u8, u64, usize)>,
}

impl Encoder {
    /// One with room for so many bytes: it need not grow while it is filled.
    pub fn with_room(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Adds one. Its length fits 32 bits, because chunks are much shorter.
    pub fn push(&mut self, channel: u8, at_ms: u64, bytes: &[u8]) {
        let begin = match self.last {
            Some((c, at, begin)) if c == channel && at == at_ms => begin,
            _ => {
                let begin = self.out.len();
                self.out.push(channel);
                self.out.extend_from_slice(&at_ms.to_le_bytes());
                self.out.extend_from_slice(&[0; 4]);
                self.last = Some((channel, at_ms, begin));
                begin
            }
        };
        self.out.extend_from_slice(bytes);
        self.text += bytes.len();
        let length = self.out.len().saturating_sub(begin + HEADER);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if let Some(place) = self.out.get_mut(begin + 9..begin + HEADER) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Bytes of text so far.
    pub fn text(&self) -> usize {
        self.text
    }

    /// Everything laid down so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }
}

/// One line of the master's own, as a whole text.
pub(in crate::store) fn own_text(line: &str) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encoder.push(b'h', 0, format!("{line}\n").as_bytes());
    encoder.out
}

/// Reads segments back.
pub(super) struct Segments<'a>(&'a [u8]);

/// The segments in `bytes`. Bytes that are no segments end it with an error.
pub(super) fn segments(bytes: &[u8]) -> Segments<'_> {
    Segments(bytes)
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<Segment<'a>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((segment, rest)) = split(self.0) else {
            self.0 = &[];
            return Some(Err(StoreError::Failed("stored log text ends inside a segment".into())));
        };
        self.0 = rest;
        Some(Ok(segment))
    }
}

fn split(bytes: &[u8]) -> Option<(Segment<'_>, &[u8])> {
    let (channel, rest) = bytes.split_first()?;
    let (_at_ms, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((Segment { channel: *channel, bytes }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_down_is_read_back() {
        let mut encoder = Encoder::default();
        encoder.push(b'o', 1, b"one ");
        encoder.push(b'o', 1, b"line\n");
        encoder.push(b'e', 1, b"\0\xff");
        encoder.push(b'e', 2, b"x");
        assert_eq!(encoder.text(), 12);
        let read: Vec<_> = segments(encoder.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(
            read,
            [
                Segment { channel: b'o', bytes: b"one line\n" },
                Segment { channel: b'e', bytes: b"\0\xff" },
                Segment { channel: b'e', bytes: b"x" },
            ]
        );
    }

    #[test]
    fn broken_bytes_are_an_error_and_end() {
        let mut encoder = Encoder::default();
        encoder.push(b'o', 1, b"text");
        for cut in 1..encoder.as_bytes().len() {
            let mut read = segments(&encoder.as_bytes()[..cut]);
            assert!(read.next().unwrap().is_err());
            assert!(read.next().is_none());
        }
    }
}
