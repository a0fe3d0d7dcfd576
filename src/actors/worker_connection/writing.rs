//! The writer of a worker connection.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::faults::crash_point;
use crate::messages::{Lines, WorkerLink};

/// Bytes that are written at once: those that are written wait no more.
const PIECE: usize = 64 * 1024;
/// How long a connection that was closed may take for what is to be said last.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) async fn write_lines<W: AsyncWrite>(writer: W, lines: Lines, link: WorkerLink) {
    let mut writer = std::pin::pin!(writer);
    while let Some(batch) = lines.next().await {
        let written = tokio::select! {
            biased;
            written = write(writer.as_mut(), &batch, &link) => written,
            () = closed_for_good(&link) => break,
        };
        if written.is_err() {
            break;
        }
        was_sent(&batch);
    }
    // On the heap, because a connection is here for a moment and not for long.
    let goodbye = Box::pin(tokio::time::timeout(GOODBYE, writer.shutdown()));
    let _ = goodbye.await;
    link.close("the connection could not be written");
}

async fn write<W: AsyncWrite>(
    mut writer: Pin<&mut W>,
    batch: &[u8],
    link: &WorkerLink,
) -> std::io::Result<()> {
    for piece in batch.chunks(PIECE) {
        writer.write_all(piece).await?;
        link.written(piece.len());
    }
    Ok(())
}

/// A peer that does not read must not hold a closed connection for ever.
async fn closed_for_good(link: &WorkerLink) {
    link.wait_closed().await;
    Box::pin(tokio::time::sleep(GOODBYE)).await;
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
