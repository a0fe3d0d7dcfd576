//! Signals, on a thread of their own: whatever the master's threads are stuck
//! in, a second signal ends the process at once, and it ends in its time after
//! the first one (invariant I20). Nothing is lost by that: what anybody was told
//! is in the store.

use std::process::exit;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// After the drain's time the master has this long to stop in order.
const STOP_LIMIT: Duration = Duration::from_secs(13);

/// What somebody wants of the master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// SIGTERM or Ctrl-C.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Listens from now on. `drain` is how long running builds get after the first
/// signal that asks for the end.
///
/// # Errors
/// When signals cannot be received.
pub(super) fn listen(drain: Duration) -> Result<mpsc::UnboundedReceiver<Wish>, String> {
    let (tell, wishes) = mpsc::unbounded_channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let spawned = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(follow(tell, drain, ready)),
            Err(error) => drop(ready.send(Err(error))),
        }
    });
    let cannot = |error: std::io::Error| format!("signals cannot be received: {error}");
    spawned.map_err(cannot)?;
    match is_ready.recv() {
        Ok(Ok(())) => Ok(wishes),
        Ok(Err(error)) => Err(cannot(error)),
        Err(_) => Err("signals cannot be received".into()),
    }
}

async fn follow(
    tell: mpsc::UnboundedSender<Wish>,
    drain: Duration,
    ready: std::sync::mpsc::Sender<std::io::Result<()>>,
) {
    let streams = (|| {
        let term = signal(SignalKind::terminate())?;
        Ok((term, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?))
    })();
    let (mut term, mut int, mut hup) = match streams {
        Ok(streams) => streams,
        Err(error) => return drop(ready.send(Err(error))),
    };
    if ready.send(Ok(())).is_err() {
        return;
    }
    let mut limit = None;
    loop {
        let wish = tokio::select! {
            _ = term.recv() => Wish::Stop,
            _ = int.recv() => Wish::Stop,
            _ = hup.recv() => Wish::Reload,
            () = until(limit) => {
                tracing::error!("the master did not stop in its time: ending at once");
                exit(0);
            }
        };
        if wish == Wish::Stop {
            if limit.is_some() {
                tracing::warn!("second signal: ending at once");
                exit(0);
            }
            limit = Some(tokio::time::Instant::now() + drain + STOP_LIMIT);
        }
        // Nobody listens any more when the master has ended by itself.
        let _ = tell.send(wish);
    }
}

async fn until(limit: Option<tokio::time::Instant>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(limit).await,
        None => std::future::pending().await,
    }
}
