//! The log store: what is taken, what is confirmed, what a close tells.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::events::Events;
use botmaster::store::logs::{
    Confirm, LogClosed, LogLimits, LogReader, LogStore, Piece, SqliteLogs,
};
use botmaster::store::*;
use rusqlite::Connection;

use crate::world::*;

/// Most bytes of text in a chunk.
pub const CHUNK: usize = 504 * 1024;

/// What was confirmed, in order.
#[derive(Default)]
pub struct Confirmed(Mutex<Vec<(LogId, u64)>>);

impl Confirmed {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn all(&self) -> Vec<(LogId, u64)> {
        self.0.lock().unwrap().clone()
    }

    /// Polls until this much of the log is confirmed.
    pub fn wait_for(&self, log: LogId, have: u64) {
        let began = Instant::now();
        while !self.all().contains(&(log, have)) {
            assert!(began.elapsed() < DEADLINE, "{have} of {log} in {:?}", self.all());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Confirm for Confirmed {
    fn confirm(&self, log: LogId, have: u64) {
        self.0.lock().unwrap().push((log, have));
    }
}

pub fn row(id: u64) -> Arc<LogRow> {
    Arc::new(LogRow {
        id: LogId(id),
        step: StepId(1),
        name: "stdio".into(),
        slug: "stdio".into(),
        kind: 's',
        complete: false,
        num_lines: 0,
        length: 0,
        incomplete: None,
    })
}

pub fn complete(id: u64) -> LogRow {
    LogRow { complete: true, ..LogRow::clone(&row(id)) }
}

pub fn piece(
    log: u64,
    channel: u8,
    offset: Option<u64>,
    bytes: &[u8],
    confirm: &Arc<Confirmed>,
) -> Piece {
    Piece {
        log: LogId(log),
        channel,
        offset,
        bytes: bytes.to_vec().into(),
        at_ms: 5,
        confirm: Some(confirm.clone()),
        permit: None,
    }
}

pub fn open_logs(dir: &Path) -> SqliteLogs {
    SqliteLogs::open(dir, Events::starting_at(1), never_fatal()).unwrap()
}

/// A log store that keeps so many of the worker's bytes of one log.
fn open_limited(dir: &Path, limit: u64) -> SqliteLogs {
    SqliteLogs::open_limited(
        dir,
        Events::starting_at(1),
        LogLimits { log: limit, build: 3 * limit },
        Room::unwatched(),
        never_fatal(),
    )
    .unwrap()
}

pub fn close(logs: &SqliteLogs, log: u64, expected: Option<u64>) -> Result<LogClosed, StoreError> {
    let (tell, told) = mpsc::channel();
    LogStore::close(logs, LogId(log), expected, Box::new(move |closed| tell.send(closed).unwrap()));
    told.recv_timeout(DEADLINE).unwrap()
}

pub fn reopen(logs: &SqliteLogs, log: u64) -> u64 {
    let (tell, told) = mpsc::channel();
    logs.reopen(row(log), Box::new(move |have| tell.send(have).unwrap()));
    told.recv_timeout(DEADLINE).unwrap().unwrap()
}

pub fn raw(reader: &LogReader, row: &LogRow, inline: Option<&[u8]>) -> Vec<u8> {
    reader.raw(row, inline).flat_map(Result::unwrap).collect()
}

#[test]
fn a_short_log_closed_at_once_is_told_inline_and_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    logs.open(row(1));
    logs.append(piece(1, b'h', None, b"make\n", &confirmed));
    logs.append(piece(1, b'o', Some(0), b"one\ntwo", &confirmed));
    let closed = close(&logs, 1, Some(7)).unwrap();
    // A slow machine may have written it after all; then it is not inline.
    if let Some(inline) = &closed.inline {
        let reader = logs.reader();
        assert_eq!(raw(&reader, &complete(1), Some(inline)), b"make\none\ntwo");
        let lines = reader.lines(&complete(1), Some(inline), 0, None).unwrap();
        assert_eq!(lines, b"hmake\noone\notwo\n");
        assert_eq!(reader.lines(&complete(1), Some(inline), 1, Some(1)).unwrap(), b"oone\n");
        assert_eq!(reader.tail(&complete(1), Some(inline), 1).unwrap(), b"otwo\n");
        assert_eq!(reader.extent(&complete(1), Some(inline)).unwrap().num_lines, 3);
        let from: Vec<u8> =
            reader.raw_from(&complete(1), Some(inline), 7).flat_map(Result::unwrap).collect();
        assert_eq!(from, b"e\ntwo");
        assert!(confirmed.all().is_empty());
        let conn = Connection::open(dir.path().join("logs.sqlite")).unwrap();
        let chunks: i64 =
            conn.query_row("SELECT count(*) FROM chunks", [], |row| row.get(0)).unwrap();
        assert_eq!(chunks, 0);
    }
    assert_eq!((closed.num_lines, closed.length, closed.worker_length), (3, 12, 7));
    assert_eq!(closed.incomplete, None);
    assert!(matches!(close(&logs, 1, None), Err(StoreError::Missing(_))));
    logs.close();
}

#[test]
fn an_empty_log_is_inline_and_a_missing_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    logs.open(row(1));
    let closed = close(&logs, 1, Some(10)).unwrap();
    assert_eq!(closed.inline.as_deref(), Some(&[][..]));
    let text = closed.incomplete.unwrap();
    assert!(text.contains("10 bytes") && text.contains("0 arrived"), "{text}");
    logs.close();
}

#[test]
fn the_first_line_can_be_read_soon_and_is_confirmed_once_durable() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::starting_at(1);
    let mut heard = events.listen();
    let logs = SqliteLogs::open(dir.path(), events, never_fatal()).unwrap();
    let confirmed = Confirmed::new();
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(0), b"first\nsec", &confirmed));
    confirmed.wait_for(LogId(1), 9);
    let reader = logs.reader();
    assert_eq!(raw(&reader, &row(1), None), b"first\nsec");
    assert_eq!(reader.lines(&row(1), None, 0, None).unwrap(), b"ofirst\n");
    assert_eq!(reader.tail(&row(1), None, 5).unwrap(), b"ofirst\n");
    let event = heard.blocking_recv().unwrap();
    let Change::LogAppend(shown) = &event.change else { panic!("{event:?}") };
    assert_eq!((shown.num_lines, shown.length, shown.complete), (1, 9, false));

    logs.append(piece(1, b'o', Some(9), b"ond\n", &confirmed));
    confirmed.wait_for(LogId(1), 13);
    let closed = close(&logs, 1, Some(13)).unwrap();
    assert_eq!(closed.inline, None);
    assert_eq!((closed.num_lines, closed.length), (2, 13));
    assert_eq!(reader.lines(&complete(1), None, 1, None).unwrap(), b"osecond\n");
    logs.close();
}

#[test]
fn new_lines_are_announced_only_when_they_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let events = Events::starting_at(1);
    let mut heard = events.listen();
    let logs = SqliteLogs::open(dir.path(), events, never_fatal()).unwrap();
    let reader = logs.reader();
    let confirmed = Confirmed::new();
    logs.open(row(1));
    let text = b"line\n".repeat(60_000);
    for (place, part) in text.chunks(3000).enumerate() {
        let offset = Some(place as u64 * 3000);
        logs.append(piece(1, b'o', offset, part, &confirmed));
    }
    let mut last = 0;
    while last < 60_000 {
        let event = heard.blocking_recv().unwrap();
        let Change::LogAppend(shown) = &event.change else { panic!("{event:?}") };
        assert!(shown.num_lines > last);
        last = shown.num_lines;
        let line = reader.lines(shown, None, last - 1, Some(1)).unwrap();
        assert_eq!(line, b"oline\n");
    }
    logs.close();
}

#[test]
fn fl01_known_bytes_are_cut_and_bytes_beyond_the_end_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(4), b"beyond", &confirmed));
    confirmed.wait_for(LogId(1), 0);
    logs.append(piece(1, b'o', Some(0), b"0123", &confirmed));
    logs.append(piece(1, b'o', Some(2), b"2345", &confirmed));
    logs.append(piece(1, b'h', None, b"<head>", &confirmed));
    logs.append(piece(1, b'o', Some(0), b"012", &confirmed));
    logs.append(piece(1, b'o', Some(6), b"6789", &confirmed));
    confirmed.wait_for(LogId(1), 10);
    assert_eq!(raw(&logs.reader(), &row(1), None), b"012345<head>6789");
    // A piece that is known already is answered with what there is.
    let again = Confirmed::new();
    logs.append(piece(1, b'o', Some(0), b"0123456789", &again));
    again.wait_for(LogId(1), 10);
    let closed = close(&logs, 1, Some(12)).unwrap();
    assert_eq!((closed.length, closed.worker_length), (16, 10));
    assert!(closed.incomplete.unwrap().contains("12 bytes"));
    logs.close();
}

#[test]
fn fl03_a_log_goes_on_where_it_was_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    logs.open(row(1));
    logs.append(piece(1, b'h', None, b"head\n", &confirmed));
    logs.append(piece(1, b'o', Some(0), b"one\ntw", &confirmed));
    logs.append(piece(1, b'e', Some(6), b"err\r", &confirmed));
    confirmed.wait_for(LogId(1), 10);
    logs.close();

    let logs = open_logs(dir.path());
    assert_eq!(reopen(&logs, 1), 10);
    assert_eq!(reopen(&logs, 2), 0, "never written");
    logs.append(piece(1, b'o', Some(8), b"__o\n", &confirmed));
    logs.append(piece(1, b'e', Some(12), b"\nlast", &confirmed));
    assert_eq!(reopen(&logs, 1), 17, "what was in memory is written first");
    let closed = close(&logs, 1, Some(17)).unwrap();
    assert_eq!((closed.num_lines, closed.length, closed.incomplete), (5, 22, None));
    let lines = logs.reader().lines(&complete(1), None, 0, None).unwrap();
    assert_eq!(lines, b"hhead\noone\notwo\neerr\nelast\n");
    logs.close();
}

#[test]
fn an_id_given_again_does_not_show_an_older_logs_text() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(0), b"old old old", &confirmed));
    confirmed.wait_for(LogId(1), 11);
    logs.close();
    let logs = open_logs(dir.path());
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(0), b"new", &confirmed));
    confirmed.wait_for(LogId(1), 3);
    assert_eq!(raw(&logs.reader(), &row(1), None), b"new");
    logs.close();
}

#[test]
fn fd10_a_damaged_or_missing_chunk_is_named_and_the_rest_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    let text = b"0123456789abcde\n".repeat(150_000);
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(0), &text, &confirmed));
    close(&logs, 1, Some(text.len() as u64)).unwrap();
    let conn = Connection::open(dir.path().join("logs.sqlite")).unwrap();
    let chunk = i64::try_from(CHUNK).unwrap();
    let change = "UPDATE chunks SET body = CAST(body || x'00' AS BLOB) WHERE first = ?1";
    assert_eq!(conn.execute(change, [chunk]).unwrap(), 1);

    let reader = logs.reader();
    let blocks: Vec<_> = reader.raw(&complete(1), None).collect();
    let [Ok(_), Ok(_), broken] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
    let error = broken.as_ref().unwrap_err().to_string();
    assert!(error.contains("log 1") && error.contains(&CHUNK.to_string()), "{error}");
    assert!(reader.lines(&complete(1), None, 0, None).is_err());
    let rest: Vec<u8> =
        reader.raw_from(&complete(1), None, 2 * chunk as u64).flat_map(Result::unwrap).collect();
    assert_eq!(rest, text[2 * CHUNK..]);

    conn.execute("DELETE FROM chunks WHERE first = ?1", [chunk]).unwrap();
    let error = reader.lines(&complete(1), None, 0, None).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    logs.close();
}

#[test]
fn a_log_that_grows_fast_is_stored_in_full_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    let text = b"0123456789abcde\n".repeat(CHUNK / 16 * 3);
    logs.open(row(1));
    // What is beyond a chunk waits for its time, or for the next one to be full.
    let (first, rest) = text.split_at(CHUNK + 16);
    logs.append(piece(1, b'o', Some(0), first, &confirmed));
    confirmed.wait_for(LogId(1), CHUNK as u64);
    confirmed.wait_for(LogId(1), first.len() as u64);
    logs.append(piece(1, b'o', Some(first.len() as u64), rest, &confirmed));
    let closed = close(&logs, 1, Some(text.len() as u64)).unwrap();
    assert_eq!((closed.length, closed.num_lines), (text.len() as u64, text.len() as u64 / 16));
    assert_eq!(raw(&logs.reader(), &complete(1), None), text);
    // From any place on, whatever block it is in.
    for from in [1, CHUNK / 2 - 1, CHUNK / 2, CHUNK, CHUNK + 16, text.len() - 1, text.len()] {
        let rest = logs.reader().raw_from(&complete(1), None, from as u64);
        let rest: Vec<u8> = rest.flat_map(Result::unwrap).collect();
        assert!(rest == text[from..], "from {from}");
    }
    let conn = Connection::open(dir.path().join("logs.sqlite")).unwrap();
    let mut lengths = conn.prepare("SELECT length FROM chunks ORDER BY first").unwrap();
    let lengths: Vec<i64> =
        lengths.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(lengths[..2], [CHUNK as i64, 16]);
    assert_eq!(lengths.iter().sum::<i64>(), text.len() as i64);
    logs.close();
}

#[test]
fn the_budget_comes_back_when_the_bytes_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let budget = logs.budget();
    assert_eq!(budget.available_permits(), 64 * 1024 * 1024);
    let confirmed = Confirmed::new();
    logs.open(row(1));
    let mut one = piece(1, b'o', Some(0), &[b'x'; 1000], &confirmed);
    one.permit = Some(budget.clone().try_acquire_many_owned(1000).unwrap());
    logs.append(one);
    confirmed.wait_for(LogId(1), 1000);
    assert_eq!(budget.available_permits(), 64 * 1024 * 1024);
    // A piece for nobody gives its room back, too.
    let mut lost = piece(9, b'o', Some(0), b"x", &confirmed);
    lost.permit = Some(budget.clone().try_acquire_many_owned(1).unwrap());
    logs.append(lost);
    close(&logs, 1, None).unwrap();
    assert_eq!(budget.available_permits(), 64 * 1024 * 1024);
    logs.close();
}

#[test]
fn fl08_what_is_beyond_the_limit_is_counted_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_limited(dir.path(), 10);
    let confirmed = Confirmed::new();
    let budget = logs.budget();
    logs.open(row(1));
    logs.append(piece(1, b'o', Some(0), b"one\ntwo\nthree\n", &confirmed));
    confirmed.wait_for(LogId(1), 14);
    let mut more = piece(1, b'e', Some(14), &[b'x'; 1000], &confirmed);
    more.permit = Some(budget.clone().try_acquire_many_owned(1000).unwrap());
    logs.append(more);
    logs.append(piece(1, b'h', None, b"interrupted\n", &confirmed));
    confirmed.wait_for(LogId(1), 1014);
    assert_eq!(budget.available_permits(), 64 * 1024 * 1024);
    logs.close();

    // The count outlives the master: it was confirmed.
    let logs = open_limited(dir.path(), 10);
    assert_eq!(reopen(&logs, 1), 1014);
    logs.append(piece(1, b'o', Some(1000), &[b'x'; 86], &confirmed));
    confirmed.wait_for(LogId(1), 1086);
    let closed = close(&logs, 1, Some(1086)).unwrap();
    assert_eq!(closed.worker_length, 1086);
    let why = closed.incomplete.unwrap();
    assert!(why.contains("1086 bytes") && why.contains("10 bytes"), "{why}");
    let text = String::from_utf8(raw(&logs.reader(), &complete(1), None)).unwrap();
    assert_eq!(
        text,
        "one\ntwo\nth[this log is longer than 10 bytes: the output from here on is counted, not \
         kept]\ninterrupted\n[the output had 1086 bytes in all; the first 10 of them are kept]\n"
    );
    assert_eq!(closed.length, text.len() as u64);
    assert_eq!(closed.num_lines, 6);
    logs.close();
}

#[test]
fn fl08_a_log_of_just_the_limit_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_limited(dir.path(), 4);
    let confirmed = Confirmed::new();
    for id in [1, 2] {
        logs.open(row(id));
        logs.append(piece(id, b'o', Some(0), b"abcd", &confirmed));
    }
    confirmed.wait_for(LogId(1), 4);
    let closed = close(&logs, 1, Some(4)).unwrap();
    assert_eq!((closed.length, closed.incomplete), (4, None));
    // One byte more, and the marker is there exactly once.
    for (offset, text) in [(4, "e"), (5, "fg")] {
        logs.append(piece(2, b'o', Some(offset), text.as_bytes(), &confirmed));
    }
    let closed = close(&logs, 2, Some(9)).unwrap();
    assert_eq!(closed.worker_length, 7);
    let why = closed.incomplete.unwrap();
    assert!(why.contains("wrote 9 bytes and 7 arrived"), "{why}");
    let text = raw(&logs.reader(), &complete(2), closed.inline.as_deref());
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("longer than").count(), 1, "{text}");
    assert!(text.starts_with("abcd["), "{text}");
    logs.close();
}

#[test]
fn a_forgotten_log_is_written_and_can_be_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let confirmed = Confirmed::new();
    for id in [1, 2] {
        logs.open(row(id));
        logs.append(piece(id, b'h', None, b"head\n", &confirmed));
        logs.append(piece(id, b'o', Some(0), b"text", &confirmed));
    }
    logs.forget(LogId(1));
    logs.forget(LogId(1));
    logs.forget(LogId(9));
    assert!(matches!(close(&logs, 1, Some(4)), Err(StoreError::Missing(_))));
    // A piece that is still on its way finds nobody.
    logs.append(piece(1, b'o', Some(4), b" lost", &confirmed));
    assert_eq!(reopen(&logs, 1), 4);
    assert_eq!(raw(&logs.reader(), &row(1), None), b"head\ntext");
    assert_eq!(close(&logs, 1, Some(4)).unwrap().length, 9);
    // Who reopens a log at once takes it over.
    logs.forget(LogId(2));
    assert_eq!(reopen(&logs, 2), 4);
    assert_eq!(close(&logs, 2, Some(4)).unwrap().length, 9);
    logs.close();
}

#[test]
fn what_is_asked_of_a_closed_log_store_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let logs = open_logs(dir.path());
    let other = logs.clone();
    logs.close();
    assert_eq!(close(&other, 1, None), Err(StoreError::Closed));
    let (tell, told) = mpsc::channel();
    other.reopen(row(1), Box::new(move |have| tell.send(have).unwrap()));
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), Err(StoreError::Closed));
}

#[test]
fn fl08_the_logs_of_a_build_have_a_limit_together() {
    let dir = tempfile::tempdir().unwrap();
    // Of one log 10 bytes are kept, of a build's logs 30.
    let logs = open_limited(dir.path(), 10);
    let confirmed = Confirmed::new();
    for (id, before) in [(1, 0), (2, 24), (3, 40)] {
        logs.open(row(id));
        logs.after_others(LogId(id), before);
        logs.append(piece(id, b'o', Some(0), b"eight ch", &confirmed));
        logs.append(piece(id, b'o', Some(8), b"more\n", &confirmed));
        confirmed.wait_for(LogId(id), 13);
    }
    let reader = logs.reader();
    let shown = |id: u64| String::from_utf8(raw(&reader, &row(id), None)).unwrap();
    let marker = |what: &str| format!("[{what}: the output from here on is counted, not kept]\n");
    assert_eq!(shown(1), format!("eight chmo{}", marker("this log is longer than 10 bytes")));
    let of_build = marker("this build's logs are longer than 30 bytes");
    assert_eq!(shown(2), format!("eight {of_build}"));
    assert_eq!(shown(3), of_build);
    let closed = close(&logs, 3, Some(13)).unwrap();
    let why = closed.incomplete.unwrap();
    assert_eq!(why, "it had 13 bytes, and of one build's logs 30 bytes are kept");
    let end = "[the output had 13 bytes in all; the first 0 of them are kept]\n";
    assert_eq!(shown(3), format!("{of_build}{end}"));
    logs.close();
}
