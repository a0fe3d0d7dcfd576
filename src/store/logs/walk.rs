//! Goes through chunks and gives the text of lines.

use super::super::StoreError;
use super::SHOWN_LINE;
use super::chunk::Reached;
use super::lines::{CHANNELS, Carry, Sink};
use super::segment::segments;

/// Put at the end of a shown line that was cut.
pub(super) const CUT: &[u8] = " […line cut: the raw log has all of it]".as_bytes();

/// Bytes of one channel: up to the limit given, from one position to another.
pub(super) type Fetch<'a> = dyn FnMut(u8, u64, u64) -> Result<Vec<u8>, StoreError> + 'a;

/// The open line of one channel.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    /// It began at this position, before the first byte walked through.
    before: Option<u64>,
}

/// Walks from some chunk on and gives the lines wanted.
pub(super) struct Walker {
    carry: Carry,
    position: u64,
    /// Position of the first byte walked through.
    start: u64,
    texts: [Text; 3],
    /// Number of the next line to end.
    line: u64,
    first: u64,
    /// Lines still wanted.
    left: u64,
}

impl Walker {
    /// Walks on from what was reached.
    pub fn new(from: &Reached, first: u64, limit: Option<u64>) -> Self {
        let texts = from.carry.begins().map(|before| Text { bytes: Vec::new(), before });
        Self {
            carry: from.carry,
            position: from.length,
            start: from.length,
            texts,
            line: from.lines,
            first,
            left: limit.unwrap_or(u64::MAX),
        }
    }

    /// Where it stands.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether all lines wanted were given.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Lines that ended, those not wanted included.
    pub fn lines(&self) -> u64 {
        self.line
    }

    /// Walks through a chunk's segments and returns the lines wanted.
    pub fn walk(&mut self, text: &[u8], fetch: &mut Fetch<'_>) -> Result<Vec<u8>, StoreError> {
        let mut carry = self.carry;
        let mut position = self.position;
        let mut sink = Lines { walker: self, fetch, out: Vec::new() };
        for segment in segments(text) {
            let segment = segment?;
            carry.feed(&segment, position, &mut sink)?;
            position += segment.bytes.len() as u64;
        }
        let out = sink.out;
        self.carry = carry;
        self.position = position;
        Ok(out)
    }

    /// The log is complete: its open lines end.
    pub fn finish(&mut self, fetch: &mut Fetch<'_>) -> Result<Vec<u8>, StoreError> {
        let mut carry = self.carry;
        let mut sink = Lines { walker: self, fetch, out: Vec::new() };
        carry.finish(&mut sink)?;
        let out = sink.out;
        self.carry = carry;
        Ok(out)
    }
}

struct Lines<'a, 'f> {
    walker: &'a mut Walker,
    fetch: &'a mut Fetch<'f>,
    out: Vec<u8>,
}

impl Sink for Lines<'_, '_> {
    fn text(&mut self, slot: usize, bytes: &[u8]) {
        let Some(text) = self.walker.texts.get_mut(slot) else { return };
        // One byte more than is shown tells that the line was cut.
        let room = (SHOWN_LINE + 1).saturating_sub(text.bytes.len());
        text.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn end(&mut self, slot: usize) -> Result<(), StoreError> {
        let (start, number) = (self.walker.start, self.walker.line);
        self.walker.line += 1;
        let (Some(text), Some(channel)) = (self.walker.texts.get_mut(slot), CHANNELS.get(slot))
        else {
            return Ok(());
        };
        let Text { mut bytes, before } = std::mem::take(text);
        if number < self.walker.first || self.walker.left == 0 {
            return Ok(());
        }
        self.walker.left -= 1;
        if let Some(begin) = before {
            let mut whole = (self.fetch)(*channel, begin, start)?;
            // The only one there can be: it was the last byte, and waited.
            whole.retain(|byte| *byte != b'\r');
            whole.append(&mut bytes);
            bytes = whole;
        }
        self.out.push(*channel);
        match bytes.get(..SHOWN_LINE) {
            Some(shown) if bytes.len() > SHOWN_LINE => {
                self.out.extend_from_slice(shown);
                self.out.extend_from_slice(CUT);
            }
            _ => self.out.extend_from_slice(&bytes),
        }
        self.out.push(b'\n');
        Ok(())
    }
}
