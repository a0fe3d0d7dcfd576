//! The keeper: a process of its own for each build, which runs the build's
//! commands one after the other and outlives the worker program.
//!
//! It is started before there is a build, and after one it may be given another:
//! starting a program takes longer than a small build. Without a build it goes
//! with the worker program that started it.
//!
//! It writes their output and results to the build's folder, where a worker
//! program that was started again finds them, and holds the build's lease: when
//! that is over, it ends the build, whatever became of the worker program.
//! Deliberately absent: the master, the journal, and any decision about builds.

mod state;
pub mod words;

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::core::ids::BuildId;
use crate::core::time::Timestamp;

use super::disk::{KEEPER_LOCK, KEEPER_SOCKET, build_folder};
use super::process;
use state::Keeper;
use words::{FromKeeper, MAX_WORDS, ToKeeper, to_line};

/// The variable that says whose keeper a process is: `keeper@<worker>`. Which build
/// it keeps, its working folder says: that is the build's.
pub const MARK: &str = "BOTMASTER_KEEPER";

/// Builds that one keeper keeps, one after the other, before it goes.
const MOST_BUILDS: u32 = 1000;

/// Events that are taken in before anything else is looked at.
const MOST_EVENTS: usize = 16;

/// Words that may wait, either way.
const QUEUE: usize = 256;
/// The lease goes on while the machine sleeps, timers do not.
const LOOK: Duration = Duration::from_secs(1);

/// How long the last word may take.
const BYE_LIMIT: Duration = Duration::from_millis(300);

/// What a keeper is told at its start. Its standard input is a socket to the worker
/// program.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// The worker's folder.
    pub root: PathBuf,
    /// What the processes of this worker are marked with.
    pub mark: String,
}

/// Microseconds since the machine's boot, also while it slept.
pub(super) fn boot_time() -> Timestamp {
    let clock = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Timestamp(u64::try_from(clock.as_micros()).unwrap_or(u64::MAX))
}

/// Keeps builds, one after the other, until nobody can give it another.
///
/// # Errors
/// A text for people, when it cannot begin.
pub fn keep(options: KeeperOptions) -> Result<(), String> {
    // It fails only for who leads a group already, which is as good.
    let _ = nix::unistd::setsid();
    let wrong = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = StdStream::from(socket.map_err(|error| wrong("standard input", error))?);
    socket.set_nonblocking(true).map_err(|error| wrong("the socket", error))?;
    process::adopt_orphans();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| wrong("it cannot start", error))?;
    runtime.block_on(async move {
        let socket = UnixStream::from_std(socket).map_err(|error| wrong("the socket", error))?;
        serve(options, socket).await
    })
}

/// Serves the worker program that started it.
async fn serve(options: KeeperOptions, socket: UnixStream) -> Result<(), String> {
    let (heard, mut words) = mpsc::channel::<(u64, Option<ToKeeper>)>(QUEUE);
    let mut line = Line::new(socket, FIRST_LINE, &heard);
    for number in 1..=MOST_BUILDS {
        let build = loop {
            match words.recv().await {
                Some((FIRST_LINE, Some(ToKeeper::Begin { build }))) => break build,
                Some((FIRST_LINE, None)) | None => return Ok(()),
                // What was still said of the build before.
                Some(_) => {}
            }
        };
        let is_last = number == MOST_BUILDS;
        let task = Task { heard: heard.clone(), options: options.clone(), build, is_last };
        match task.run(line, &mut words).await? {
            Some(free) => line = free,
            None => break,
        }
    }
    Ok(())
}

/// Another worker program may have looked for a keeper before this one was
/// there, and given the build up: it took the lock's name away then.
fn take_lock() -> Result<Flock<File>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{KEEPER_LOCK}: {error}");
    let file = File::open(KEEPER_LOCK).map_err(|error| wrong(&error))?;
    let lock =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| wrong(&error))?;
    if has_name(&lock) { Ok(lock) } else { Err("the build was given up".to_owned()) }
}

/// Whether the build's folder is still there.
fn has_name(lock: &File) -> bool {
    lock.metadata().is_ok_and(|lock| lock.nlink() > 0)
}

/// The worker program at the other end of the socket.
struct Line {
    to: mpsc::Sender<FromKeeper>,
    number: u64,
    task: tokio::task::JoinHandle<()>,
}

/// The line to the worker program that started the keeper.
const FIRST_LINE: u64 = 0;

impl Line {
    fn new(socket: UnixStream, number: u64, heard: &mpsc::Sender<(u64, Option<ToKeeper>)>) -> Self {
        let (to, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(talk(socket, number, queue, heard.clone()));
        Self { to, number, task }
    }
}

/// One build to keep.
struct Task {
    heard: mpsc::Sender<(u64, Option<ToKeeper>)>,
    options: KeeperOptions,
    build: BuildId,
    /// It takes no other after this one.
    is_last: bool,
}

impl Task {
    /// Keeps the build to its end. The line is given back when another build may
    /// come over it.
    async fn run(
        self,
        first: Line,
        words: &mut mpsc::Receiver<(u64, Option<ToKeeper>)>,
    ) -> Result<Option<Line>, String> {
        let wrong = |error: std::io::Error| format!("the folder of build {}: {error}", self.build);
        std::env::set_current_dir(build_folder(&self.options.root, self.build)).map_err(wrong)?;
        // Who finds the lock held may connect.
        let listener = UnixListener::bind(KEEPER_SOCKET).map_err(wrong)?;
        let lock = take_lock()?;
        let (events, mut happened) = mpsc::channel(QUEUE);
        let mut keeper = Keeper::new(self.options.clone(), self.build, events, boot_time());
        let mut number = first.number;
        let mut say = Vec::new();
        keeper.connected(&mut say);
        let mut line = Some(first);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            keeper.look(boot_time(), line.is_some(), has_name(&lock));
            for word in say.drain(..) {
                if let Some(line) = &line {
                    // All that is said can be read from the disk too.
                    let _ = line.to.try_send(word);
                }
            }
            if keeper.is_over() {
                break;
            }
            tokio::select! {
                accepted = listener.accept() => {
                    // Only the worker's user gets here. The newest is in charge.
                    if let Ok((stream, _)) = accepted {
                        number += 1;
                        line = Some(Line::new(stream, number, &self.heard));
                        keeper.connected(&mut say);
                    }
                }
                Some((from, word)) = words.recv() => match word {
                    _ if line.as_ref().is_none_or(|line| line.number != from) => {}
                    Some(word) => keeper.told(boot_time(), word, &mut say),
                    None => line = None,
                },
                Some(event) = happened.recv() => {
                    keeper.happened(event, &mut say).await;
                    // What came meanwhile is told with it.
                    for _ in 0..MOST_EVENTS {
                        let Ok(event) = happened.try_recv() else { break };
                        keeper.happened(event, &mut say).await;
                    }
                }
                _ = look.tick() => {}
            }
        }
        let nobody_left = keeper.end_rest().await;
        let Some(line) = line else { return Ok(None) };
        let may_go_on = nobody_left && keeper.is_released() && !self.is_last;
        if may_go_on && line.number == FIRST_LINE {
            drop(lock);
            drop(listener);
            // The build's folder is about to go.
            let away = std::env::set_current_dir(&self.options.root);
            if away.is_ok() && line.to.try_send(FromKeeper::Free).is_ok() {
                return Ok(Some(line));
            }
            return Ok(None);
        }
        let _ = line.to.try_send(FromKeeper::Bye);
        // Until it is written, or nobody is there to read it.
        drop(line.to);
        let _ = tokio::time::timeout(BYE_LIMIT, line.task).await;
        Ok(None)
    }
}

/// Talks over one connection until it ends.
async fn talk(
    stream: UnixStream,
    number: u64,
    mut queue: mpsc::Receiver<FromKeeper>,
    heard: mpsc::Sender<(u64, Option<ToKeeper>)>,
) {
    let (from, mut to) = stream.into_split();
    let writing = async move {
        while let Some(word) = queue.recv().await {
            if to.write_all(&to_line(&word)).await.is_err() {
                break;
            }
        }
    };
    let reading = async {
        let mut lines = BufReader::new(from);
        while let Some(word) = next_word(&mut lines).await {
            if heard.send((number, Some(word))).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    // Fails only when the keeper ends.
    let _ = heard.send((number, None)).await;
}

/// The next word of either side; none at the end, and when it is no word.
pub(super) async fn next_word<W, R>(lines: &mut BufReader<R>) -> Option<W>
where
    W: for<'de> serde::Deserialize<'de>,
    R: tokio::io::AsyncRead + Unpin,
{
    let mut line = Vec::new();
    let mut limited = tokio::io::AsyncReadExt::take(lines, MAX_WORDS as u64);
    match limited.read_until(b'\n', &mut line).await {
        Ok(_) if line.ends_with(b"\n") => serde_json::from_slice(&line).ok(),
        _ => None,
    }
}
