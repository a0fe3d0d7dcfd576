//! Logs whose bytes travel as they are, behind their frames.

use std::io::Read as _;
use std::time::{Duration, Instant};

use botmaster::core::ids::{BuildId, CommandId, Epoch};
use botmaster::protocol::json_v1::{
    InventoryItem, InventoryState, MasterFrame, STDIO, WorkerFrame,
};
use sha2::{Digest as _, Sha256};

use crate::kit::{Master, Place, RawWorker, builder, finished, until, worker};

fn place(master: &str) -> Place {
    Place::new(&format!("{master}{}{}", worker("w", 1), builder("b", "w", &["true"])))
}

fn say_end(raw: &mut RawWorker, build: BuildId, command: &CommandId, text: &[u8]) {
    let mut end = finished(build, command, text.len() as u64);
    if let WorkerFrame::CommandFinished { log_digest, .. } = &mut end {
        let digest = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        log_digest.insert(STDIO.into(), digest);
    }
    raw.say(&end);
}

fn stored(master: &Master<'_>) -> Vec<u8> {
    let log = "builders/b/builds/1/steps/0/logs/stdio/raw_inline";
    let answer = ureq::get(format!("{}/api/v2/{log}", master.url())).call().unwrap();
    let mut bytes = Vec::new();
    answer.into_body().into_reader().read_to_end(&mut bytes).unwrap();
    bytes
}

fn item(build: BuildId, epoch: Epoch, command: &CommandId, end: usize) -> InventoryItem {
    InventoryItem {
        build,
        epoch,
        builder: "b".into(),
        command: Some(command.clone()),
        state: InventoryState::Running,
        log_end: [(STDIO.to_owned(), end as u64)].into(),
    }
}

#[test]
fn fl05_whatever_the_bytes_are_and_wherever_the_stream_is_cut_they_are_stored() {
    let place = place("");
    let master = place.master();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, _, command) = raw.take_build();
    // What looks like frames, ends of lines, and what is no text.
    let mut text = b"{\"t\":\"draining\",\"message\":\"m\"}\n\n\r\n\xff\xfe\x00".to_vec();
    let first = RawWorker::as_it_is(build, &command, 0, &text);
    for piece in first.chunks(7) {
        raw.send(piece);
    }
    // Other forms may come in between, and nothing at all, and as much as may be.
    raw.log(build, &command, text.len() as u64, "as text\n");
    text.extend_from_slice(b"as text\n");
    raw.send(&RawWorker::as_it_is(build, &command, text.len() as u64, b""));
    let most: Vec<u8> = (0..65_536_u32).map(|number| number.to_le_bytes()[1]).collect();
    let mut both = RawWorker::as_it_is(build, &command, text.len() as u64, &most);
    text.extend_from_slice(&most);
    both.append(&mut RawWorker::as_it_is(build, &command, text.len() as u64, b"\nend"));
    text.extend_from_slice(b"\nend");
    raw.send(&both);
    say_end(&mut raw, build, &command, &text);
    raw.hear_until(|frame| matches!(frame, MasterFrame::BuildFinished { .. }).then_some(()));
    master.ended_as("b", 1, 0);
    let row = master.one("builders/b/builds/1/steps/0/logs/stdio").unwrap();
    assert_eq!(row["incomplete"], serde_json::Value::Null);
    assert!(stored(&master).ends_with(&text));
}

#[test]
fn fr01_bytes_that_are_cut_short_are_asked_for_again() {
    let place = place("");
    let master = place.master();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, epoch, command) = raw.take_build();
    let text = b"0123456789\n".repeat(1000);
    let (have, rest) = text.split_at(4000);
    raw.send(&RawWorker::as_it_is(build, &command, 0, have));
    let cut = RawWorker::as_it_is(build, &command, 4000, rest);
    raw.send(&cut[..cut.len() - 1]);
    drop(raw);
    until("the master sees the end", || {
        (master.board()["workers"]["w"]["connected"] != true).then_some(())
    });
    let known = item(build, epoch, &command, text.len());
    let mut raw = RawWorker::attached(&master, "w", vec![known]);
    let from = raw.hear_until(|frame| match frame {
        MasterFrame::Resume(resume) => resume.log_from.get(STDIO).copied(),
        _ => None,
    });
    assert_eq!(from, 4000);
    raw.send(&RawWorker::as_it_is(build, &command, from, rest));
    say_end(&mut raw, build, &command, &text);
    raw.hear_until(|frame| matches!(frame, MasterFrame::BuildFinished { .. }).then_some(()));
    master.ended_as("b", 1, 0);
    assert!(stored(&master).ends_with(&text));
}

#[test]
fn fn04_bytes_that_never_come_drop_the_worker() {
    let place = place("[limits]\nframe_time = \"3 s\"\n");
    let master = place.master();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, _, command) = raw.take_build();
    let begun = Instant::now();
    let frame = RawWorker::as_it_is(build, &command, 0, &[b'x'; 1000]);
    raw.send(&frame[..frame.len() - 990]);
    until("it is dropped", || {
        // Each byte is a sign of life, and there are too few of them.
        raw.send(if begun.elapsed() < Duration::from_secs(1) { b"x" } else { b"" });
        (master.ignored("frame that took too long") == 1).then_some(())
    });
    assert!(begun.elapsed() >= Duration::from_secs(3), "it had its time");
}

#[test]
fn fn02_more_bytes_than_a_frame_may_have_end_the_connection() {
    let place = place("");
    let master = place.master();
    let mut raw = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, _, command) = raw.take_build();
    raw.send(&RawWorker::as_it_is(build, &command, 0, &vec![b'x'; 65_537]));
    let (code, message, _) = raw.turned_away();
    assert_eq!(code, "malformed", "{message}");
}
