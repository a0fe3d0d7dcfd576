//! A megabyte of a build's text, into the log store.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::core::rng::Rng;
use botmaster::events::Events;
use botmaster::store::LogRow;
use botmaster::store::logs::{LogStore, Piece, SqliteLogs};
use botmaster::store::sqlite::OnFatal;

use crate::Scratch;

/// As long as a frame's longest text.
const PIECE: usize = 64 * 1024;
const PIECES: u64 = 16;
const PATIENCE: Duration = Duration::from_secs(120);

/// Lines as a compiler writes them: much is said again and again.
fn text() -> Vec<u8> {
    let mut rng = Rng::seeded(11);
    let mut text = Vec::with_capacity(PIECE + 100);
    while text.len() < PIECE {
        let bits = rng.bits();
        let (file, line) = ((bits % 97) as u8, (bits >> 20) as u16);
        text.extend(format!("   Compiling module_{file}: line {line}: ok {bits:x}\n").bytes());
    }
    text.truncate(PIECE);
    text
}

/// Opens a log, appends the pieces and closes it.
pub fn append(rounds: u64) -> Result<(), String> {
    let scratch = Scratch::new()?;
    let on_fatal: OnFatal = Arc::new(|text: &str| eprintln!("fatal: {text}"));
    let logs = SqliteLogs::open(&scratch.0, Events::starting_at(1), on_fatal)
        .map_err(|error| error.to_string())?;
    let text = bytes::Bytes::from(text());
    for round in 1..=rounds {
        let log = LogId(round);
        logs.open(Arc::new(LogRow {
            id: log,
            step: StepId(round),
            name: "stdio".into(),
            slug: "stdio".into(),
            kind: 's',
            complete: false,
            num_lines: 0,
            length: 0,
            incomplete: None,
        }));
        for piece in 0..PIECES {
            logs.append(Piece {
                log,
                channel: b'o',
                offset: Some(piece * PIECE as u64),
                bytes: text.clone(),
                at_ms: piece,
                confirm: None,
                permit: None,
            });
        }
        let (tell, told) = mpsc::channel();
        let done = Box::new(move |closed| drop(tell.send(closed)));
        LogStore::close(&logs, log, Some(PIECES * PIECE as u64), done);
        let closed = told.recv_timeout(PATIENCE).map_err(|_| "the log store does not answer")?;
        let length = closed.map_err(|error| error.to_string())?.length;
        if length != PIECES * PIECE as u64 {
            return Err(format!("{length} bytes are stored"));
        }
    }
    logs.close();
    Ok(())
}
