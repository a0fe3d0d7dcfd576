//! The decoder alone: it never panics, keeps to its limits, and what it reads
//! is written and read again as the same.

use botmaster::core::rng::Rng;
use botmaster::protocol::json_v1::{
    FrameLines, LineError, MAX_LINE, MAX_LINE_BEFORE_ATTACH, decode_master, decode_worker, encode,
};
use bytes::BytesMut;
use tokio_util::codec::Decoder as _;

use crate::inputs::golden;
use crate::run::{Features, run};

fn feature(side: u64, kind: &str) -> u64 {
    side << 32 | u64::from(crc32fast::hash(kind.as_bytes()))
}

/// The text of an error without what differs from case to case.
fn shape(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_ascii_digit()).take(60).collect()
}

fn play(input: &[u8]) -> Features {
    let mut features = Features::new();
    let mut chunks = Rng::seeded(crc32fast::hash(input).into());
    let mut lines = FrameLines::new(MAX_LINE_BEFORE_ATTACH);
    let mut max = MAX_LINE_BEFORE_ATTACH;
    let mut buffer = BytesMut::new();
    let mut rest = input;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(1 + chunks.index(9000)));
        buffer.extend_from_slice(piece);
        rest = after;
        let over = rest.is_empty();
        loop {
            let next = if over { lines.decode_eof(&mut buffer) } else { lines.decode(&mut buffer) };
            match next {
                Ok(Some(line)) => {
                    assert!(line.len() <= max && !line.contains(&b'\n'));
                    read(&line, &mut features);
                    max = MAX_LINE;
                    lines.set_max(max);
                }
                Ok(None) => break,
                Err(LineError::TooLong(limit)) => {
                    assert_eq!(limit, max);
                    features.insert(feature(3, "too long"));
                    return features;
                }
                Err(LineError::Io(error)) => panic!("{error}"),
            }
        }
        // No more than a line and what came with it is ever kept.
        assert!(buffer.len() <= max + 9000, "{} bytes are kept", buffer.len());
        if over {
            return features;
        }
    }
}

fn read(line: &[u8], features: &mut Features) {
    match decode_worker(line) {
        Ok(frame) => {
            features.insert(feature(1, frame.kind()));
            let again = encode(&frame);
            assert_eq!(decode_worker(again.strip_suffix(b"\n").unwrap()), Ok(frame));
        }
        Err(error) => drop(features.insert(feature(1, &shape(&error.to_string())))),
    }
    match decode_master(line) {
        Ok(frame) => {
            features.insert(feature(2, frame.kind()));
            let again = encode(&frame);
            assert_eq!(decode_master(again.strip_suffix(b"\n").unwrap()), Ok(frame));
        }
        Err(error) => drop(features.insert(feature(2, &shape(&error.to_string())))),
    }
}

#[test]
fn fn16_fn01_fn02_fn03_the_decoder_stands_whatever_comes() {
    let mut first = golden("worker");
    first.extend(golden("master"));
    first.push(format!("{}\n", "[".repeat(100_000)).into_bytes());
    first.push(format!("{{\"{}\":1}}\n", "k".repeat(10 * 1024 * 1024)).into_bytes());
    first.push(b"{\"t\":\"pong\",\"id\":NaN}\n{\"t\":\"pong\",\"id\":1e999}\n".to_vec());
    first.push(b"{\"t\":\"pong\",\"id\":1,\"id\":1}\n{\"t\":\"\\ud800\"}\n".to_vec());
    run("decoder", first, play);
}
