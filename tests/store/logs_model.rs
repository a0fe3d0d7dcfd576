//! The log store against a plain model, with random operations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use botmaster::core::ids::LogId;
use botmaster::store::logs::{LogReader, LogStore};
use proptest::prelude::*;

use crate::logs::*;

#[derive(Clone, Debug)]
enum Act {
    /// The worker's next bytes, on a channel, of which so many are sent again.
    Worker { channel: u8, bytes: Vec<u8>, back: u64 },
    /// A piece beyond the end.
    Beyond { gap: u64, bytes: Vec<u8> },
    /// The master's own bytes.
    Master(Vec<u8>),
    /// Until all of the worker's is confirmed.
    Wait,
    /// Another master.
    Restart,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => Just(b'a'), 2 => Just(b'\n'), 2 => Just(b'\r'), 1 => Just(0), 1 => any::<u8>()
    ];
    let short = prop::collection::vec(byte, 1..40);
    // Long enough for several chunks, with lines longer than is shown.
    let long = (1_usize..400_000, 1_usize..100_000, any::<u8>()).prop_map(|(len, every, byte)| {
        (1..=len).map(|n| if n % every == 0 { b'\n' } else { byte }).collect::<Vec<u8>>()
    });
    prop_oneof![12 => short, 1 => long]
}

fn act() -> impl Strategy<Value = Act> {
    let channel = prop_oneof![3 => Just(b'o'), 2 => Just(b'e')];
    prop_oneof![
        10 => (channel, bytes(), prop_oneof![3 => Just(0), 1 => 1..60_u64])
            .prop_map(|(channel, bytes, back)| Act::Worker { channel, bytes, back }),
        1 => (1..100_u64, bytes()).prop_map(|(gap, bytes)| Act::Beyond { gap, bytes }),
        2 => bytes().prop_map(Act::Master),
        2 => Just(Act::Wait),
        1 => Just(Act::Restart),
    ]
}

/// What a log is: bytes, each with its channel. The worker's by themselves too,
/// because they may be sent again.
#[derive(Default)]
struct Model {
    all: Vec<(u8, u8)>,
    worker: Vec<u8>,
}

impl Model {
    fn add(&mut self, channel: u8, bytes: &[u8]) {
        self.all.extend(bytes.iter().map(|byte| (channel, *byte)));
    }

    fn raw(&self) -> Vec<u8> {
        self.all.iter().map(|(_, byte)| *byte).collect()
    }

    /// Each channel's text by itself is split into lines, with the place where
    /// each ends; then they are put in order of those places.
    fn lines(&self, complete: bool) -> Vec<Vec<u8>> {
        let mut ended: Vec<(usize, Vec<u8>)> = Vec::new();
        for (order, channel) in b"oeh".iter().enumerate() {
            let own: Vec<(usize, u8)> = self
                .all
                .iter()
                .enumerate()
                .filter(|(_, (c, _))| c == channel)
                .map(|(place, (_, byte))| (place, *byte))
                .collect();
            let mut line = vec![*channel];
            let mut open = false;
            let mut at = 0;
            while let Some((place, byte)) = own.get(at).copied() {
                let next = own.get(at + 1).copied();
                at += 1;
                open = true;
                let end = match (byte, next) {
                    (b'\n', _) => Some(place),
                    (b'\r', None) => None,
                    (b'\r', Some((after, b'\n'))) => {
                        at += 1;
                        Some(after)
                    }
                    (b'\r', Some((after, _))) => Some(after),
                    _ => {
                        line.push(byte);
                        None
                    }
                };
                if let Some(end) = end {
                    ended.push((end, std::mem::replace(&mut line, vec![*channel])));
                    open = false;
                }
            }
            if complete && open {
                ended.push((self.all.len() + order, line));
            }
        }
        ended.sort_by_key(|(end, _)| *end);
        ended.into_iter().map(|(_, line)| line).collect()
    }
}

/// Whether the line shown is the model's, which may be too long to be shown.
fn agrees(shown: &[u8], line: &[u8]) -> bool {
    let limit = botmaster::store::logs::SHOWN_LINE + 1;
    if line.len() <= limit { shown == line } else { shown.starts_with(&line[..limit]) }
}

fn check(reader: &LogReader, model: &Model, complete_now: bool, first: u64, limit: u64) {
    let row = if complete_now { Arc::new(complete(1)) } else { row(1) };
    let lines = model.lines(complete_now);
    assert!(raw(reader, &row, None) == model.raw(), "raw bytes differ");
    let extent = reader.extent(&row, None).unwrap();
    assert_eq!((extent.num_lines, extent.length), (lines.len() as u64, model.all.len() as u64));
    let first = first.min(lines.len() as u64);
    for (first, limit) in [(0, None), (first, Some(limit)), (first, None)] {
        let text = reader.lines(&row, None, first, limit).unwrap();
        let shown: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        let (last, shown) = shown.split_last().unwrap();
        assert!(last.is_empty());
        let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let expected: Vec<_> =
            lines.iter().skip(usize::try_from(first).unwrap()).take(limit).collect();
        assert_eq!(shown.len(), expected.len());
        assert!(shown.iter().zip(expected).all(|(shown, line)| agrees(shown, line)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn fl01_fl02_fl03_fl05_a_log_is_exactly_what_was_accepted(
        acts in prop::collection::vec(act(), 1..25),
        first in 0..200_u64,
        limit in 0..50_u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut logs = open_logs(dir.path());
        let mut model = Model::default();
        let mut confirmed = Confirmed::new();
        logs.open(row(1));
        // Something long at first, so that it is never inline.
        let begin = vec![b'b'; 5000];
        logs.append(piece(1, b'o', Some(0), &begin, &confirmed));
        model.add(b'o', &begin);
        model.worker.extend_from_slice(&begin);
        for act in acts {
            match act {
                Act::Worker { channel, bytes, back } => {
                    let end = model.worker.len();
                    let from = end - usize::try_from(back).unwrap().min(end);
                    let mut again = model.worker[from..].to_vec();
                    again.extend_from_slice(&bytes);
                    logs.append(piece(1, channel, Some(from as u64), &again, &confirmed));
                    model.add(channel, &bytes);
                    model.worker.extend_from_slice(&bytes);
                }
                Act::Beyond { gap, bytes } => {
                    let offset = model.worker.len() as u64 + gap;
                    logs.append(piece(1, b'o', Some(offset), &bytes, &confirmed));
                }
                Act::Master(bytes) => {
                    logs.append(piece(1, b'h', None, &bytes, &confirmed));
                    model.add(b'h', &bytes);
                }
                Act::Wait => {
                    // Sent once more, so that it is told even when nothing is new.
                    let end = model.worker.len() as u64;
                    logs.append(piece(1, b'o', Some(end - 1), b"?", &confirmed));
                    confirmed.wait_for(LogId(1), end);
                }
                Act::Restart => {
                    logs.close();
                    logs = open_logs(dir.path());
                    prop_assert_eq!(reopen(&logs, 1), model.worker.len() as u64);
                    confirmed = Confirmed::new();
                    check(&logs.reader(), &model, false, first, limit);
                }
            }
        }
        let end = model.worker.len() as u64;
        let closed = close(&logs, 1, Some(end)).unwrap();
        prop_assert_eq!(closed.worker_length, end);
        prop_assert_eq!(closed.length, model.all.len() as u64);
        prop_assert_eq!(closed.num_lines, model.lines(true).len() as u64);
        prop_assert_eq!((closed.incomplete, closed.inline), (None, None));
        check(&logs.reader(), &model, true, first, limit);
        logs.close();
    }
}
