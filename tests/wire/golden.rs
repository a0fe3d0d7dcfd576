//! The golden frames: what is good, what means the same, what is refused.

use std::path::Path;

use botmaster::protocol::json_v1::*;
use serde::Deserialize;

/// A file of the golden set, line by line.
pub fn read(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/golden").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    text.lines().map(str::to_owned).collect()
}

#[derive(Deserialize)]
struct Same {
    why: String,
    line: String,
    same_as: String,
}

#[derive(Deserialize)]
struct Bad {
    why: String,
    code: String,
    line: String,
}

fn rows<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let rows: Vec<T> =
        read(name).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(!rows.is_empty());
    rows
}

/// Decodes a line of one side and encodes what came of it.
pub fn again(side: &str, line: &[u8]) -> Result<String, DecodeError> {
    let encoded = match side {
        "worker" => encode(&decode_worker(line)?),
        _ => encode(&decode_master(line)?),
    };
    let mut text = String::from_utf8(encoded).expect("frames are UTF-8");
    assert_eq!(text.pop(), Some('\n'));
    assert!(!text.contains('\n'), "one frame is one line");
    Ok(text)
}

/// The type that a good line carries.
pub fn kind(side: &str, line: &str) -> &'static str {
    match side {
        "worker" => decode_worker(line.as_bytes()).expect(line).kind(),
        _ => decode_master(line.as_bytes()).expect(line).kind(),
    }
}

#[test]
fn good_frames_are_read_and_written_to_the_letter() {
    for side in ["worker", "master"] {
        for line in read(&format!("{side}-good.jsonl")) {
            assert_eq!(again(side, line.as_bytes()).as_deref(), Ok(line.as_str()));
            let start = format!("{{\"t\":\"{}\"", kind(side, &line));
            assert!(line.starts_with(&start), "{line}");
        }
    }
}

#[test]
fn frames_that_look_different_mean_the_same() {
    for side in ["worker", "master"] {
        for Same { why, line, same_as } in rows(&format!("{side}-same.jsonl")) {
            assert_eq!(again(side, line.as_bytes()), Ok(same_as), "{side}: {why}");
        }
    }
}

#[test]
fn fn01_fn03_bad_frames_are_refused_with_their_code() {
    for side in ["worker", "master"] {
        for Bad { why, code, line } in rows(&format!("{side}-bad.jsonl")) {
            let error = again(side, line.as_bytes()).expect_err(&why);
            assert_eq!(error.code(), code, "{side}: {why}: {error}");
            assert_eq!(error.is_fatal(), code != "unknown_type", "{side}: {why}");
            assert!(error.to_string().len() < 300, "{side}: {why}: no echo of the line");
        }
    }
}

#[test]
fn fn01_bytes_that_are_no_text_are_refused() {
    for line in [&b"{\"t\":\"pong\",\"id\":1,\"x\":\"\xff\"}"[..], b"\xef\xbb\xbf{\"t\":\"pong\"}"]
    {
        assert_eq!(again("worker", line).expect_err("no UTF-8").code(), "malformed");
    }
}
