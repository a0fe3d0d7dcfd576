//! The writer of a worker connection.

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::faults::crash_point;
use crate::messages::WorkerLink;

pub(super) async fn write_lines<W: AsyncWrite>(
    writer: W,
    mut lines: mpsc::Receiver<Vec<u8>>,
    link: WorkerLink,
) {
    let mut writer = std::pin::pin!(writer);
    let mut batch = Vec::new();
    loop {
        let first = tokio::select! {
            biased;
            line = lines.recv() => line,
            () = link.wait_closed() => None,
        };
        let Some(first) = first else { break };
        batch.extend_from_slice(&first);
        while batch.len() < 64 * 1024
            && let Ok(line) = lines.try_recv()
        {
            batch.extend_from_slice(&line);
        }
        let written = tokio::select! {
            biased;
            written = writer.write_all(&batch) => written,
            () = closed_for_good(&link) => break,
        };
        if written.is_err() {
            break;
        }
        link.written(batch.len());
        was_sent(&batch);
        batch.clear();
    }
    // What was said last, such as why the worker is turned away.
    while let Ok(line) = lines.try_recv() {
        batch.extend_from_slice(&line);
    }
    let goodbye = async {
        let _ = writer.write_all(&batch).await;
        let _ = writer.shutdown().await;
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), goodbye).await;
    link.close("the connection could not be written");
}

/// A peer that does not read must not hold a closed connection for ever.
async fn closed_for_good(link: &WorkerLink) {
    link.wait_closed().await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
}

/// Crash points of frames that are on their way. A test wants them to arrive,
/// so they are looked for where they were written.
fn was_sent(lines: &[u8]) {
    if !cfg!(feature = "testing") {
        return;
    }
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let says = |words: &[u8]| line.windows(words.len()).any(|part| part == words);
        if says(br#""t":"ping""#) {
            crash_point("ping.sent");
        } else if says(br#""t":"start_build""#) {
            crash_point("start.after_send");
        } else if says(br#""do":"abandon""#) {
            crash_point("attach.after_abandon_sent");
        }
    }
}
