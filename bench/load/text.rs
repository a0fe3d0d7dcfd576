//! The text of `bench-log`: the same lines as those of
//! `bench/peer/buildbot/genlog.py`, prepared, so that sending it costs next to
//! nothing.

use botmaster::protocol::json_v1::LOG_BATCH;
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// Bytes of a line, its end included.
const LINE: usize = 100;

/// Lines of a megabyte.
const LINES_PER_MB: u64 = 10_000;

/// Bytes in one frame: as many whole lines as fit.
const PIECE: usize = LOG_BATCH / LINE * LINE;

/// How many ends of lines there are.
const TAILS: u64 = 1009;

/// Bytes of such an end.
const TAIL: usize = 85;

const WORDS: &str = "cc -O2 -Wall -c -o src lib test build object warning error note main.c util.c \
                     parse.c net.c include static const int char struct unused variable passed in \
                     ok failed skipped linking archive target install checking for yes no";

/// A text, prepared.
pub struct Text {
    bytes: Bytes,
    digest: String,
}

impl Text {
    /// So many megabytes.
    #[must_use]
    pub fn of_megabytes(megabytes: u64) -> Self {
        let (lines, tails) = (megabytes * LINES_PER_MB, tails());
        let mut bytes = BytesMut::with_capacity(usize::try_from(lines).unwrap_or(0) * LINE);
        for number in 0..lines {
            let place = usize::try_from(number * 7919 % TAILS).unwrap_or(0);
            let tail = tails.get(place).map_or("", String::as_str);
            bytes.extend_from_slice(format!("line {number:08} {tail}\n").as_bytes());
        }
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes: bytes.freeze(), digest }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Its SHA-256 in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The piece that begins there; none at the end.
    #[must_use]
    pub fn piece(&self, offset: u64) -> Option<Bytes> {
        let from = usize::try_from(offset).ok().filter(|from| *from < self.bytes.len())?;
        Some(self.bytes.slice(from..self.bytes.len().min(from + PIECE)))
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
    use super::*;

    #[test]
    fn pieces_put_together_are_the_text_that_the_digest_is_of() {
        let text = Text::of_megabytes(1);
        let (mut whole, mut offset) = (Vec::new(), 0);
        while let Some(piece) = text.piece(offset) {
            assert!(piece.len() <= LOG_BATCH);
            whole.extend_from_slice(&piece);
            offset += piece.len() as u64;
        }
        let whole = String::from_utf8(whole).unwrap();
        assert_eq!((whole.len() as u64, text.length()), (1_000_000, 1_000_000));
        assert!(whole.lines().all(|line| line.len() == 99));
        assert!(whole.ends_with('\n') && whole.lines().count() == 10_000);
        let digest: String =
            Sha256::digest(&whole).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, text.digest());
        // From any place on, as a master may ask for it.
        for from in [0, 99, 100, 101, 65_500, 999_999] {
            let piece = text.piece(from as u64).unwrap();
            assert!(whole.as_bytes()[from..].starts_with(&piece), "{from}");
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
