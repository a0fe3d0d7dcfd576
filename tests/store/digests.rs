//! Logs whose bytes are not what the worker says (row FL04).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use botmaster::core::ids::*;
use botmaster::store::logs::{LogStore, SqliteLogs};
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use crate::logs::*;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// More than one chunk.
fn text() -> Vec<u8> {
    (0..60_000).flat_map(|n| format!("line {n} of it\n").into_bytes()).collect()
}

fn send(logs: &SqliteLogs, bytes: &[u8], from: u64) {
    let confirmed = Confirmed::new();
    let mut offset = from;
    for part in bytes.chunks(50_000) {
        logs.append(piece(1, b'o', Some(offset), part, &confirmed));
        offset += part.len() as u64;
    }
    confirmed.wait_for(LogId(1), offset);
}

fn length(bytes: &[u8]) -> Option<u64> {
    Some(bytes.len() as u64)
}

fn chunks(dir: &std::path::Path) -> Vec<i64> {
    let conn = Connection::open(dir.join("logs.sqlite")).unwrap();
    let mut statement = conn.prepare("SELECT DISTINCT log_id FROM chunks").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn fl04_a_log_that_differs_is_received_again_and_takes_its_place_when_whole() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let right = text();
    let mut wrong = right.clone();
    wrong[400_000] ^= 1;
    logs.open(row(1));
    send(&logs, &wrong, 0);
    logs.expect_digest(LogId(1), digest(&right));
    let closed = close(&logs, 1, length(&right)).unwrap();
    assert!(closed.differs);

    logs.again(LogId(1));
    send(&logs, &right[..500_000], 0);
    // Until it is whole the first one is shown.
    assert!(raw(&logs.reader(), &row(1), None) == wrong);
    send(&logs, &right[500_000..], 500_000);
    let closed = close(&logs, 1, length(&right)).unwrap();
    assert_eq!((closed.differs, closed.incomplete), (false, None));
    let shown = raw(&logs.reader(), &complete(1), None);
    let note = b"[received a second time: the first time bytes differed on the way]\n";
    assert!(shown == [&note[..], &right].concat(), "{} bytes", shown.len());
    assert_eq!(closed.length, shown.len() as u64);
    assert_eq!(chunks(dir.path()), [1]);
    logs.close();
}

#[test]
fn fl04_one_that_differs_twice_or_does_not_come_is_kept_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let (right, wrong) = (text(), vec![b'x'; text().len()]);
    logs.open(row(1));
    send(&logs, &wrong, 0);
    logs.expect_digest(LogId(1), digest(&right));
    assert!(close(&logs, 1, length(&right)).unwrap().differs);
    logs.again(LogId(1));
    send(&logs, &right[..300_000], 0);
    let closed = close(&logs, 1, length(&right)).unwrap();
    assert!(closed.incomplete.unwrap().starts_with("digest: "));
    assert!(!closed.differs && closed.worker_length == right.len() as u64);
    assert!(raw(&logs.reader(), &complete(1), None) == wrong);
    assert_eq!(chunks(dir.path()), [1], "the second reception was left behind");
    logs.close();
}

#[test]
fn fl04_a_short_log_is_compared_too() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(0), b"wrong", &Confirmed::new()));
    logs.expect_digest(LogId(1), digest(b"right"));
    assert!(close(&logs, 1, Some(5)).unwrap().differs);
    logs.again(LogId(1));
    logs.append(piece(1, b'o', Some(0), b"right", &Confirmed::new()));
    let closed = close(&logs, 1, Some(5)).unwrap();
    assert_eq!((closed.incomplete, closed.worker_length), (None, 5));
    let shown = raw(&logs.reader(), &complete(1), closed.inline.as_deref());
    assert!(shown.ends_with(b"\nright"));
    logs.open(row(2));
    logs.append(piece(2, b'o', Some(0), b"right", &Confirmed::new()));
    logs.expect_digest(LogId(2), digest(b"right"));
    let closed = close(&logs, 2, Some(5)).unwrap();
    assert_eq!((closed.differs, closed.incomplete), (false, None));
    logs.close();
}

#[test]
fn fl04_after_a_restart_the_digest_is_that_of_what_is_stored() {
    let right = text();
    for flaw in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut first = right[..600_000].to_vec();
        first[7] ^= u8::from(flaw);
        let logs = open_logs(dir.path());
        logs.open(row(1));
        let mut header = piece(1, b'h', None, b"$ make\n", &Confirmed::new());
        header.confirm = None;
        logs.append(header);
        send(&logs, &first, 0);
        logs.close();
        let logs = open_logs(dir.path());
        assert_eq!(reopen(&logs, 1), 600_000);
        send(&logs, &right[600_000..], 600_000);
        logs.expect_digest(LogId(1), digest(&right));
        let closed = close(&logs, 1, length(&right)).unwrap();
        assert_eq!(closed.differs, flaw);
        assert_eq!(closed.incomplete.is_some(), flaw);
        logs.close();
    }
}

#[test]
fn fl04_a_master_killed_while_a_log_comes_again_has_the_first_one() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let (right, wrong) = (text(), vec![b'x'; text().len()]);
    logs.open(row(1));
    send(&logs, &wrong, 0);
    logs.expect_digest(LogId(1), digest(&right));
    assert!(close(&logs, 1, length(&right)).unwrap().differs);
    logs.again(LogId(1));
    send(&logs, &right[..700_000], 0);
    assert_eq!(chunks(dir.path()).len(), 2);
    logs.close();
    let logs = open_logs(dir.path());
    assert_eq!(chunks(dir.path()), [1]);
    assert_eq!(reopen(&logs, 1), right.len() as u64);
    logs.expect_digest(LogId(1), digest(&right));
    assert!(close(&logs, 1, length(&right)).unwrap().differs);
    logs.close();
}
