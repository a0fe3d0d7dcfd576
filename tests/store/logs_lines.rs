//! Lines over many chunks: long ones, broken ones, those of several channels.

use botmaster::core::ids::LogId;
use botmaster::store::logs::{LogStore, SHOWN_LINE};

use crate::logs::*;

#[test]
fn fl05_a_line_of_10_mb_is_kept_whole_and_shown_cut() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    let mut text = b"before\n".to_vec();
    text.extend(std::iter::repeat_n(b'x', 10 * 1024 * 1024));
    text.extend_from_slice(b"\nafter\n");
    logs.open(row(1));
    for (place, part) in text.chunks(64 * 1024).enumerate() {
        let offset = Some(place as u64 * 64 * 1024);
        logs.append(piece(1, b'o', offset, part, &confirmed));
    }
    let closed = close(&logs, 1, Some(text.len() as u64)).unwrap();
    assert_eq!((closed.num_lines, closed.inline), (3, None));
    let reader = logs.reader();
    assert_eq!(raw(&reader, &complete(1), None), text);
    assert!(reader.raw(&complete(1), None).all(|block| block.unwrap().len() <= CHUNK));
    let long = reader.lines(&complete(1), None, 1, Some(1)).unwrap();
    assert!(long.len() < SHOWN_LINE + 100, "{}", long.len());
    assert!(long.starts_with(b"oxxx") && long.ends_with("all of it]\n".as_bytes()));
    assert_eq!(reader.lines(&complete(1), None, 2, None).unwrap(), b"oafter\n");
    assert_eq!(reader.lines(&complete(1), None, 0, Some(1)).unwrap(), b"obefore\n");
    logs.close();
}

#[test]
fn a_line_that_waits_through_many_chunks_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    logs.open(row(1));
    let mut end = 0;
    let mut say = |channel, bytes: &[u8]| {
        logs.append(piece(1, channel, Some(end), bytes, &confirmed));
        end += bytes.len() as u64;
    };
    say(b'e', b"first half, ");
    say(b'o', &b"0123456789abcde\n".repeat(50_000));
    say(b'e', b"second half\r");
    say(b'o', &b"0123456789abcde\n".repeat(50_000));
    say(b'e', b"\nopen");
    let closed = close(&logs, 1, Some(end)).unwrap();
    assert_eq!(closed.num_lines, 100_002);
    let reader = logs.reader();
    let lines = reader.lines(&complete(1), None, 99_999, None).unwrap();
    let expected = b"o0123456789abcde\nefirst half, second half\neopen\n";
    assert_eq!(lines, expected);
    assert_eq!(reader.tail(&complete(1), None, 2).unwrap(), expected[17..]);
    // While it is live the open line is not in the list.
    assert_eq!(reader.extent(&row(1), None).unwrap().num_lines, 100_001);
    assert_eq!(reader.tail(&row(1), None, 1).unwrap(), expected[17..42]);
    let blocks = reader.line_blocks(&complete(1), None, 0, None);
    assert!(blocks.into_iter().all(|block| block.unwrap().len() < CHUNK * 5 / 4));
    logs.close();
}

#[test]
fn fl05_tiny_pieces_are_kept_and_do_not_swell() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    logs.open(row(1));
    let mut text = Vec::new();
    for n in 0..100_000_u64 {
        let byte = [if n % 7 == 0 { b'\n' } else { 0 }];
        let mut one = piece(1, if n % 2 == 0 { b'o' } else { b'e' }, Some(n), &byte, &confirmed);
        one.at_ms = n;
        logs.append(one);
        text.push(byte[0]);
    }
    let closed = close(&logs, 1, Some(100_000)).unwrap();
    assert_eq!(closed.length, 100_000);
    assert_eq!(raw(&logs.reader(), &complete(1), None), text);
    let lines = logs.reader().lines(&complete(1), None, 0, None).unwrap();
    let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(count, closed.num_lines);
    logs.close();
}

#[test]
fn lines_beyond_the_end_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    let reader = logs.reader();
    assert!(reader.lines(&row(1), None, 0, None).unwrap().is_empty(), "never written");
    assert!(raw(&reader, &row(1), None).is_empty());
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(0), b"one\ntwo\n", &confirmed));
    confirmed.wait_for(LogId(1), 8);
    assert!(reader.lines(&row(1), None, 2, None).unwrap().is_empty());
    assert!(reader.lines(&row(1), None, u64::MAX, Some(3)).unwrap().is_empty());
    assert!(reader.lines(&row(1), None, 0, Some(0)).unwrap().is_empty());
    assert_eq!(reader.lines(&row(1), None, 1, Some(u64::MAX)).unwrap(), b"otwo\n");
    assert_eq!(reader.raw_from(&row(1), None, 8).count(), 0);
    assert_eq!(reader.raw_from(&row(1), None, 99).count(), 0);
    logs.close();
}
