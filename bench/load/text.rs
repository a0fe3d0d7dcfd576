//! The text of `bench-log`: the same lines as those of
//! `bench/peer/buildbot/genlog.py`, prepared as it stands in frames, so that
//! sending it costs next to nothing.

use botmaster::protocol::json_v1::{LOG_BATCH, LogData, WorkerFrame, encode};
use sha2::{Digest, Sha256};

/// Bytes of a line, its end included.
const LINE: u64 = 100;

/// Bytes of a line in a JSON string: its end is `\n`, and nothing else in it
/// has to be escaped.
const ESCAPED: u64 = LINE + 1;

/// Lines of a megabyte.
const LINES_PER_MB: u64 = 10_000;

/// Bytes in one frame: as many whole lines as fit.
const PIECE: u64 = LOG_BATCH as u64 / LINE * LINE;

/// How many ends of lines there are.
const TAILS: u64 = 1009;

/// Bytes of such an end.
const TAIL: usize = 85;

const WORDS: &str = "cc -O2 -Wall -c -o src lib test build object warning error note main.c util.c \
                     parse.c net.c include static const int char struct unused variable passed in \
                     ok failed skipped linking archive target install checking for yes no";

/// A text, prepared.
pub struct Text {
    escaped: Vec<u8>,
    length: u64,
    digest: String,
}

impl Text {
    /// So many megabytes.
    #[must_use]
    pub fn of_megabytes(megabytes: u64) -> Self {
        let (lines, tails) = (megabytes * LINES_PER_MB, tails());
        let mut escaped = Vec::with_capacity(usize::try_from(lines * ESCAPED).unwrap_or(0));
        let mut sum = Sha256::new();
        for number in 0..lines {
            let place = usize::try_from(number * 7919 % TAILS).unwrap_or(0);
            let tail = tails.get(place).map_or("", String::as_str);
            let line = format!("line {number:08} {tail}");
            sum.update(line.as_bytes());
            sum.update(b"\n");
            escaped.extend_from_slice(line.as_bytes());
            escaped.extend_from_slice(b"\\n");
        }
        let digest = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { escaped, length: lines * LINE, digest }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its SHA-256 in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of the piece that begins there; none at the end.
    #[must_use]
    pub fn piece(&self, offset: u64) -> Option<u64> {
        let left = self.length.checked_sub(offset).filter(|left| *left > 0)?;
        Some(left.min(PIECE))
    }

    /// Appends a log frame with the piece that begins at its offset.
    pub fn append_frame(&self, log: &LogData, bytes: &mut Vec<u8>) {
        /// Where the text goes; the ids before it are numbers and plain words.
        const PLACE: &[u8] = b"\"text\":\"";
        let length = self.piece(log.offset).unwrap_or(0);
        let place = |offset: u64| {
            let place = offset / LINE * ESCAPED + offset % LINE;
            usize::try_from(place).unwrap_or(usize::MAX)
        };
        let range = place(log.offset)..place(log.offset + length);
        let text = self.escaped.get(range).unwrap_or_default();
        let frame = encode(&WorkerFrame::Log(log.clone()));
        let at = frame.windows(PLACE.len()).position(|part| part == PLACE);
        let (head, tail) = frame.split_at(at.map_or(frame.len(), |at| at + PLACE.len()));
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(text);
        bytes.extend_from_slice(tail);
    }
}

/// The ends of lines: words by a linear congruential generator.
fn tails() -> Vec<String> {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state: u64 = 12_345;
    let mut tail = || {
        let mut text = String::new();
        while text.len() < TAIL {
            state = (state * 1_103_515_245 + 12_345) % (1 << 31);
            let word = usize::try_from(state >> 8).unwrap_or(0) % words.len();
            text.push_str(words.get(word).copied().unwrap_or_default());
            text.push_str(&format!(" {:x} ", (state >> 4) & 0xfff));
        }
        text.truncate(TAIL);
        text
    };
    (0..TAILS).map(|_| tail()).collect()
}

#[cfg(test)]
mod tests {
    use botmaster::core::ids::{BuildId, CommandId};
    use botmaster::protocol::json_v1::decode_worker;

    use super::*;

    fn frame(text: &Text, offset: u64) -> String {
        let log = LogData {
            build: BuildId(1),
            command: CommandId::for_step(BuildId(1), 0),
            log: "stdio".into(),
            ch: 'o',
            offset,
            text: Some(String::new()),
            b64: None,
            at: 0,
        };
        let mut bytes = Vec::new();
        text.append_frame(&log, &mut bytes);
        let line = bytes.strip_suffix(b"\n").unwrap();
        match decode_worker(line).unwrap() {
            WorkerFrame::Log(log) => log.text.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pieces_put_together_are_the_text_that_the_digest_is_of() {
        let text = Text::of_megabytes(1);
        let (mut whole, mut offset) = (String::new(), 0);
        while let Some(length) = text.piece(offset) {
            whole.push_str(&frame(&text, offset));
            offset += length;
        }
        assert_eq!((whole.len() as u64, text.length()), (1_000_000, 1_000_000));
        assert!(whole.lines().all(|line| line.len() == 99));
        assert!(whole.ends_with('\n') && whole.lines().count() == 10_000);
        let digest: String =
            Sha256::digest(whole.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, text.digest());
        // From any place on, as a master may ask for it.
        for from in [0, 99, 100, 101, 65_500, 999_999] {
            assert!(whole[from..].starts_with(&frame(&text, from as u64)), "{from}");
        }
    }

    #[test]
    fn it_is_the_text_that_the_script_writes() {
        // `python3 bench/peer/buildbot/genlog.py 10000 | sha256sum`
        let expected = "e76d8ef4e04bae8c5f888302fe9ade169ade430a4181c53a31027c90a30ac101";
        assert_eq!(Text::of_megabytes(1).digest(), expected);
    }

    #[test]
    fn without_megabytes_there_is_nothing() {
        let text = Text::of_megabytes(0);
        assert_eq!((text.length(), text.piece(0)), (0, None));
    }
}
