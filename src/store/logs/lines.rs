//! Where lines end.
//!
//! Each channel has lines of its own. A line ends at `\n`, at `\r\n`, or at a
//! `\r` that something else follows: so a `\r` that is the last byte so far
//! waits for its successor. The list of a log's lines has them in the order in
//! which they end.

use memchr::{memchr, memchr_iter, memchr2, memrchr};

use super::super::StoreError;
use super::segment::Segment;

/// The channels, in the order in which open lines end when the log does.
pub(super) const CHANNELS: [u8; 3] = *b"oeh";

/// Is told of lines while bytes are gone through.
pub(super) trait Sink {
    /// The open line of this channel goes on with these bytes.
    fn text(&mut self, slot: usize, bytes: &[u8]);
    /// The open line of this channel has ended.
    fn end(&mut self, slot: usize) -> Result<(), StoreError>;
}

/// Counts line ends.
#[derive(Default)]
pub(super) struct Count(pub u64);

impl Sink for Count {
    fn text(&mut self, _: usize, _: &[u8]) {}
    fn end(&mut self, _: usize) -> Result<(), StoreError> {
        self.0 += 1;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Channel {
    /// Position in the log of the open line's first byte.
    begin: Option<u64>,
    /// The open line's last byte is a `\r`.
    cr: bool,
}

/// What must be known of the bytes before to go on with those after: for each
/// channel, the line that is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Carry([Channel; 3]);

/// Where a channel stands in [`CHANNELS`].
pub(super) fn slot(channel: u8) -> usize {
    CHANNELS.iter().position(|known| *known == channel).unwrap_or(0)
}

impl Carry {
    /// Goes through a segment whose first byte has this position in the log.
    pub fn feed(
        &mut self,
        segment: &Segment<'_>,
        position: u64,
        sink: &mut impl Sink,
    ) -> Result<(), StoreError> {
        let slot = slot(segment.channel);
        let Some(channel) = self.0.get_mut(slot) else { return Ok(()) };
        let mut rest = segment.bytes;
        while let Some((next, after)) = rest.split_first() {
            if channel.cr {
                *channel = Channel::default();
                sink.end(slot)?;
                if *next == b'\n' {
                    rest = after;
                    continue;
                }
            }
            if channel.begin.is_none() {
                let done = segment.bytes.len() - rest.len();
                channel.begin = Some(position + done as u64);
            }
            let plain = memchr2(b'\n', b'\r', rest);
            let (text, after) = rest.split_at(plain.unwrap_or(rest.len()));
            sink.text(slot, text);
            match after.split_first() {
                Some((b'\n', after)) => {
                    *channel = Channel::default();
                    sink.end(slot)?;
                    rest = after;
                }
                Some((_, after)) => {
                    channel.cr = true;
                    rest = after;
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Goes through a segment as [`Self::feed`] does, and answers only with how
    /// many lines end in it.
    pub fn count(&mut self, segment: &Segment<'_>, position: u64) -> Result<u64, StoreError> {
        let bytes = segment.bytes;
        let channel = self.0.get_mut(slot(segment.channel)).filter(|channel| !channel.cr);
        let (Some(channel), None) = (channel, memchr(b'\r', bytes)) else {
            let mut ends = Count::default();
            self.feed(segment, position, &mut ends)?;
            return Ok(ends.0);
        };
        let Some(last) = memrchr(b'\n', bytes) else {
            if !bytes.is_empty() {
                channel.begin.get_or_insert(position);
            }
            return Ok(0);
        };
        let after = last + 1;
        channel.begin = (after < bytes.len()).then_some(position + after as u64);
        Ok(memchr_iter(b'\n', bytes).count() as u64)
    }

    /// Ends the open lines, because the log has ended.
    pub fn finish(&mut self, sink: &mut impl Sink) -> Result<(), StoreError> {
        for (slot, channel) in self.0.iter_mut().enumerate() {
            if channel.begin.is_some() {
                *channel = Channel::default();
                sink.end(slot)?;
            }
        }
        Ok(())
    }

    /// How many lines are open.
    pub fn open_lines(&self) -> u64 {
        self.0.iter().filter(|channel| channel.begin.is_some()).count() as u64
    }

    /// Where the open line of each channel began.
    pub fn begins(&self) -> [Option<u64>; 3] {
        self.0.map(|channel| channel.begin)
    }

    /// As stored: for each open line a byte with its channel's place, and a
    /// flag for a `\r`, then where it began.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        for (slot, channel) in (0_u8..).zip(self.0) {
            if let Some(begin) = channel.begin {
                out.push(slot | if channel.cr { 0x80 } else { 0 });
                out.extend_from_slice(&begin.to_le_bytes());
            }
        }
        out
    }

    /// From what was stored; none when it is broken.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut carry = Self::default();
        while let Some((head, rest)) = bytes.split_first() {
            let (begin, rest) = rest.split_first_chunk::<8>()?;
            let channel = carry.0.get_mut(usize::from(head & 0x7f))?;
            *channel = Channel { begin: Some(u64::from_le_bytes(*begin)), cr: head & 0x80 != 0 };
            bytes = rest;
        }
        Some(carry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Shown {
        open: [Vec<u8>; 3],
        lines: Vec<String>,
    }

    impl Sink for Shown {
        fn text(&mut self, slot: usize, bytes: &[u8]) {
            self.open[slot].extend_from_slice(bytes);
        }
        fn end(&mut self, slot: usize) -> Result<(), StoreError> {
            let text = std::mem::take(&mut self.open[slot]);
            let text = String::from_utf8(text).unwrap();
            self.lines.push(format!("{}{text}", char::from(CHANNELS[slot])));
            Ok(())
        }
    }

    fn lines(pieces: &[(u8, &str)], finish: bool) -> Vec<String> {
        let (mut carry, mut shown, mut position) = (Carry::default(), Shown::default(), 0);
        for (channel, text) in pieces {
            let segment = Segment { channel: *channel, bytes: text.as_bytes() };
            let (mut counted, before) = (carry, shown.lines.len());
            carry.feed(&segment, position, &mut shown).unwrap();
            let ended = shown.lines.len() - before;
            assert_eq!(counted.count(&segment, position).unwrap(), ended as u64, "{text:?}");
            assert_eq!(counted, carry, "{text:?}");
            position += text.len() as u64;
            assert_eq!(Carry::from_bytes(&carry.to_bytes()), Some(carry));
        }
        if finish {
            carry.finish(&mut shown).unwrap();
        }
        shown.lines
    }

    #[test]
    fn a_line_ends_at_each_kind_of_end() {
        assert_eq!(lines(&[(b'o', "a\nb\r\nc\rd\n")], false), ["oa", "ob", "oc", "od"]);
        assert_eq!(lines(&[(b'o', "\n\r\n\r\rx\n")], false), ["o", "o", "o", "o", "ox"]);
        assert_eq!(lines(&[(b'o', "a\r\r\n")], false), ["oa", "o"]);
    }

    #[test]
    fn a_carriage_return_at_the_end_waits_for_its_successor() {
        assert!(lines(&[(b'o', "10%\r")], false).is_empty());
        assert_eq!(lines(&[(b'o', "10%\r"), (b'o', "\n")], false), ["o10%"]);
        assert_eq!(lines(&[(b'o', "10%\r"), (b'o', "20%\r")], false), ["o10%"]);
        assert_eq!(lines(&[(b'o', "10%\r"), (b'e', "\n"), (b'o', "x")], false), ["e", "o10%"]);
        assert_eq!(lines(&[(b'o', "10%\r")], true), ["o10%"]);
    }

    #[test]
    fn lines_are_listed_in_the_order_in_which_they_end() {
        let pieces = [(b'o', "one "), (b'e', "err\n"), (b'h', "head"), (b'o', "line\nlast")];
        assert_eq!(lines(&pieces, false), ["eerr", "oone line"]);
        assert_eq!(lines(&pieces, true), ["eerr", "oone line", "olast", "hhead"]);
    }

    #[test]
    fn counting_comes_to_what_going_through_comes_to() {
        // `lines` holds one to the other.
        let parts = ["", "a", "\n", "\r", "a\nb", "a\n", "\n\n", "\r\n", "a\rb\n", "x\r"];
        for one in parts {
            for two in parts {
                for three in parts {
                    lines(&[(b'o', one), (b'o', two), (b'e', three), (b'o', three)], true);
                }
            }
        }
    }

    #[test]
    fn a_broken_carry_is_refused() {
        assert_eq!(Carry::from_bytes(&[0]), None);
        assert_eq!(Carry::from_bytes(&[3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
