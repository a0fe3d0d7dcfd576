//! The worker program's side of the keepers: starts them, talks to them, and
//! follows the output that they write.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::core::ids::{BuildId, CommandId};
use crate::core::time::Timestamp;
use crate::faults::crash_point;

use super::agent::{BuildRecord, Event};
use super::disk::spool::{self, SpoolReader};
use super::disk::{KEEPER_LOCK, KEEPER_SOCKET, Shelf, build_folder, command_folder};
use super::keeper::next_word;
use super::keeper::words::{FromKeeper, ToKeeper, to_line};
use super::process::{self, Mark, Started};
use super::spares::{Spare, Spares};

/// Orders that may wait for one keeper. It reads all the time.
const ORDERS: usize = 64;
/// How long a keeper may take to go after its last word.
const GO_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at a keeper that is nobody's child.
const LOOK: Duration = Duration::from_millis(20);
/// Between TERM and KILL for what a keeper left that was killed.
const LAST_KILL_TIME: Duration = Duration::from_millis(500);
/// Between two attempts to read from a disk that refuses.
const DISK_PAUSE: Duration = Duration::from_millis(500);

/// All keepers of one worker.
pub(super) struct Keepers {
    /// The worker's folder.
    dir: PathBuf,
    /// What its processes are marked with.
    mark: String,
    shelf: Shelf,
    events: mpsc::Sender<Event>,
    /// What keepers say, and the number of the newest of them.
    news: mpsc::Sender<(BuildId, u64, News)>,
    number: u64,
    builds: BTreeMap<BuildId, Kept>,
    /// Keepers without a build.
    spares: Spares,
}

/// A build, as this program knows it.
#[derive(Default)]
struct Kept {
    keeper: Option<Strings>,
    /// It is to be ended, and the agent waits for that.
    sweeping: bool,
    /// Nothing of it is needed once its keeper is gone.
    forget: bool,
    lease: Option<Timestamp>,
    command: Option<Following>,
    /// How many commands it has had.
    commands: u32,
    /// A command that an earlier program may not have told the keeper of.
    unproven: Option<u32>,
}

/// A keeper's strings.
struct Strings {
    orders: mpsc::Sender<ToKeeper>,
    lease: watch::Sender<Option<Timestamp>>,
    number: u64,
    task: JoinHandle<()>,
}

/// The command whose output is followed.
struct Following {
    id: CommandId,
    n: u32,
    allowed: watch::Sender<u64>,
    /// How things stand on the disk.
    state: watch::Sender<OnDisk>,
    reader: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct OnDisk {
    /// So much output is there.
    end: u64,
    /// The result is there.
    over: bool,
}

/// What a keeper's line tells this program.
pub(super) enum News {
    /// It said something.
    Said(FromKeeper),
    /// Its build is over, whatever that left is ended, and it may have another.
    Free(Box<Spare>),
    /// It is gone, and whatever it left is ended.
    Gone,
}

impl Keepers {
    pub(super) fn new(
        dir: PathBuf,
        mark: String,
        shelf: Shelf,
        program: Option<PathBuf>,
        events: mpsc::Sender<Event>,
        news: mpsc::Sender<(BuildId, u64, News)>,
    ) -> Self {
        let spares = Spares::new(&dir, &mark, program);
        Self { dir, mark, shelf, events, news, number: 0, builds: BTreeMap::new(), spares }
    }

    /// Has keepers ready for further builds when there are `free_slots`; answers
    /// with when to look again.
    pub(super) fn prepare(&mut self, now: Timestamp, free_slots: usize) -> Timestamp {
        self.spares.prepare(now, free_slots)
    }

    /// Takes over a keeper that an earlier program started, or what it left.
    pub(super) fn restore(
        &mut self,
        build: BuildId,
        kept: bool,
        command: Option<(CommandId, u32)>,
        state: (u64, bool),
    ) -> io::Result<()> {
        let mut entry =
            Kept { commands: command.as_ref().map_or(0, |(_, n)| n + 1), ..Kept::default() };
        if let Some((id, n)) = command {
            let (end, over) = state;
            let follow = self.follow(build, id, n, OnDisk { end, over }, end, u64::MAX);
            entry.command = Some(follow);
        }
        if kept {
            entry.unproven = entry.command.as_ref().map(|known| known.n);
            let folder = build_folder(&self.dir, build);
            let socket = connect(&folder)?;
            entry.keeper = Some(self.tend(build, socket, None, None, false)?);
        }
        self.builds.insert(build, entry);
        Ok(())
    }

    /// Writes down that the worker has this build.
    pub(super) fn take(&self, record: &BuildRecord) -> io::Result<()> {
        self.shelf.take(record)
    }

    /// A build begins: its keeper is started, so that it is there when the first
    /// command comes.
    pub(super) fn begin(&mut self, build: BuildId) -> io::Result<()> {
        self.builds.entry(build).or_default();
        let strings = self.start(build)?;
        if let Some(entry) = self.builds.get_mut(&build) {
            entry.keeper = Some(strings);
        }
        Ok(())
    }

    fn start(&mut self, build: BuildId) -> io::Result<Strings> {
        let folder = build_folder(&self.dir, build);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(KEEPER_LOCK))?;
        // One that is gone may have left it.
        let _ = std::fs::remove_file(folder.join(KEEPER_SOCKET));
        let spare = self.spares.take()?;
        self.tend(build, spare.socket, Some(spare.child), spare.listed, true)
    }

    fn tend(
        &mut self,
        build: BuildId,
        socket: UnixStream,
        child: Option<Child>,
        listed: Option<Started>,
        begins: bool,
    ) -> io::Result<Strings> {
        self.number += 1;
        let number = self.number;
        let (orders, queue) = mpsc::channel(ORDERS);
        let (lease, leases) = watch::channel(None);
        let line = Line {
            build,
            number,
            socket,
            child,
            listed,
            begins,
            orders: queue,
            leases,
            news: self.news.clone(),
            mark: Mark::Build { build, instance: self.mark.clone() },
            lock: build_folder(&self.dir, build).join(KEEPER_LOCK),
        };
        let task = tokio::spawn(line.tend());
        Ok(Strings { orders, lease, number, task })
    }

    fn follow(
        &self,
        build: BuildId,
        id: CommandId,
        n: u32,
        known: OnDisk,
        from: u64,
        allowed: u64,
    ) -> Following {
        let (allowed, may) = watch::channel(allowed);
        let (state, states) = watch::channel(known);
        let follower = Follower {
            build,
            command: id.clone(),
            n,
            place: command_folder(&build_folder(&self.dir, build), n),
            shelf: self.shelf.clone(),
            states,
            allowed: may,
            events: self.events.clone(),
        };
        let reader = tokio::spawn(follower.follow(from));
        Following { id, n, allowed, state, reader }
    }

    /// Runs a command: first it is written down.
    pub(super) fn run(&mut self, order: RunOrder) -> io::Result<()> {
        let RunOrder { build, command, folder, work, allowed, kill_time } = order;
        let n = self.builds.entry(build).or_default().commands;
        self.shelf.begin(build, &command, n)?;
        if self.builds.get(&build).is_some_and(|entry| entry.keeper.is_none()) {
            self.begin(build)?;
        }
        let following = self.follow(build, command.clone(), n, OnDisk::default(), 0, allowed);
        let Some(entry) = self.builds.get_mut(&build) else { return Ok(()) };
        entry.commands = n + 1;
        entry.unproven = None;
        entry.command = Some(following);
        let kill_ms = u64::try_from(kill_time.as_millis()).unwrap_or(u64::MAX);
        let until = entry.lease.map(|until| until.0);
        entry.order(ToKeeper::Lease { until });
        let work = Box::new(work);
        entry.order(ToKeeper::Run { n, command, folder, work, allowed, kill_ms });
        Ok(())
    }

    /// Lets a command's output be written up to `up_to`.
    pub(super) fn allow(&mut self, build: BuildId, command: &CommandId, up_to: u64) {
        let Some(entry) = self.builds.get_mut(&build) else { return };
        let Some(following) = entry.command.as_ref().filter(|known| known.id == *command) else {
            return;
        };
        following.allowed.send_replace(up_to);
        let n = following.n;
        entry.order(ToKeeper::Allow { n, up_to });
    }

    pub(super) fn kill(
        &mut self,
        build: BuildId,
        command: &CommandId,
        grace: Duration,
        reason: String,
    ) {
        let Some(entry) = self.builds.get_mut(&build) else { return };
        let Some(n) = entry.command.as_ref().filter(|known| known.id == *command).map(|c| c.n)
        else {
            return;
        };
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        entry.order(ToKeeper::Kill { n, grace_ms, reason });
    }

    pub(super) fn lease(&mut self, build: BuildId, until: Option<Timestamp>) {
        let Some(entry) = self.builds.get_mut(&build) else { return };
        entry.lease = until;
        if let Some(keeper) = &entry.keeper {
            keeper.lease.send_replace(until);
        }
    }

    /// Tells a command's output again from `from` on.
    pub(super) fn replay(&mut self, build: BuildId, command: &CommandId, from: u64, allowed: u64) {
        let Some(entry) = self.builds.get_mut(&build) else { return };
        let Some(following) = entry.command.take_if(|known| known.id == *command) else { return };
        let known = *following.state.borrow();
        let n = following.n;
        drop(following);
        entry.order(ToKeeper::Allow { n, up_to: allowed });
        let following = self.follow(build, command.clone(), n, known, from, allowed);
        if let Some(entry) = self.builds.get_mut(&build) {
            entry.command = Some(following);
        }
    }

    pub(super) fn trim(&self, build: BuildId, command: &CommandId, confirmed: u64) {
        let known = self.builds.get(&build).and_then(|entry| entry.command.as_ref());
        let Some(following) = known.filter(|known| known.id == *command) else { return };
        let place = command_folder(&build_folder(&self.dir, build), following.n);
        // What could not be removed goes with the build.
        if let Err(error) = spool::trim(&place, confirmed) {
            tracing::warn!(%build, %error, "confirmed output could not be removed");
        }
    }

    /// Ends a build's keeper with everything below it. False when there is none.
    pub(super) fn end(&mut self, build: BuildId, grace: Duration) -> bool {
        let Some(entry) = self.builds.get_mut(&build) else { return false };
        if entry.keeper.is_none() {
            return false;
        }
        entry.sweeping = true;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        entry.order(ToKeeper::End { grace_ms });
        true
    }

    /// Forgets a build, once its keeper is gone.
    pub(super) fn forget(&mut self, build: BuildId) {
        let has_keeper = self.builds.get_mut(&build).is_some_and(|entry| {
            entry.forget = true;
            entry.keeper.is_some()
        });
        if !has_keeper {
            self.builds.remove(&build);
            if let Err(error) = self.shelf.forget(build) {
                tracing::warn!(%build, %error, "the build's journal could not be removed");
            }
        }
    }

    /// Takes in a keeper's news; answers with what the agent has to know.
    pub(super) fn heard(&mut self, build: BuildId, number: u64, news: News) -> Option<Event> {
        let entry = self.builds.get_mut(&build)?;
        if entry.keeper.as_ref().is_none_or(|keeper| keeper.number != number) {
            return None;
        }
        let current = entry.command.as_ref();
        match news {
            News::Said(FromKeeper::Has { n }) => {
                let expected = entry.unproven.take()?;
                if n != Some(expected) && self.shelf.result(build, expected).is_none() {
                    // The program before this one died before it gave the order.
                    return Some(Event::Lost { build });
                }
            }
            News::Said(FromKeeper::Started { n }) => {
                let following = current.filter(|known| known.n == n)?;
                return Some(Event::Started { build, command: following.id.clone() });
            }
            News::Said(FromKeeper::Grew { n, end }) => {
                let following = current.filter(|known| known.n == n)?;
                following.state.send_modify(|state| state.end = state.end.max(end));
            }
            News::Said(FromKeeper::Ended { n }) => {
                let following = current.filter(|known| known.n == n)?;
                following.state.send_modify(|state| state.over = true);
            }
            News::Said(FromKeeper::Note { text }) => {
                tracing::warn!(%build, text, "the build's keeper says");
            }
            News::Said(FromKeeper::Unknown | FromKeeper::Bye | FromKeeper::Free) => {}
            gone @ (News::Gone | News::Free(_)) => {
                if let News::Free(spare) = gone {
                    self.spares.put_back(*spare);
                }
                entry.keeper = None;
                let swept = std::mem::take(&mut entry.sweeping);
                let mut lost = false;
                if let Some(following) = entry.command.as_ref().filter(|_| !swept) {
                    // It may have died between the result and its telling.
                    let over = self.shelf.result(build, following.n).is_some();
                    if over {
                        let place = command_folder(&build_folder(&self.dir, build), following.n);
                        let end = spool::extent(&place).map_or(0, |(_, end)| end);
                        following.state.send_modify(|state| *state = OnDisk { end, over });
                    }
                    lost = !over;
                }
                if entry.forget {
                    self.forget(build);
                }
                return match (swept, lost) {
                    (true, _) => Some(Event::Swept { build }),
                    (false, true) => Some(Event::Lost { build }),
                    (false, false) => None,
                };
            }
        }
        None
    }

    pub(super) fn is_kept(&self, build: BuildId) -> bool {
        self.builds.get(&build).is_some_and(|entry| entry.keeper.is_some())
    }

    /// Builds that have a keeper.
    pub(super) fn living(&self) -> Vec<BuildId> {
        let living = self.builds.iter().filter(|(_, entry)| entry.keeper.is_some());
        living.map(|(&build, _)| build).collect()
    }

    /// Waits until all keepers have gone.
    pub(super) async fn all_gone(&mut self) {
        for entry in self.builds.values_mut() {
            if let Some(keeper) = entry.keeper.take() {
                // It fails only when the task was ended otherwise.
                let _ = keeper.task.await;
            }
        }
        self.spares.all_gone().await;
    }
}

/// A command to run.
pub(super) struct RunOrder {
    pub(super) build: BuildId,
    pub(super) command: CommandId,
    pub(super) folder: String,
    pub(super) work: crate::protocol::json_v1::Work,
    pub(super) allowed: u64,
    pub(super) kill_time: Duration,
}

impl Kept {
    fn order(&self, word: ToKeeper) {
        if let Some(keeper) = &self.keeper
            && keeper.orders.try_send(word).is_err()
        {
            // It is gone, which is about to be told, or it is frozen and nothing helps.
            tracing::warn!("a build's keeper does not take its orders");
        }
    }
}

/// A folder by a short name: that of a socket has at most 107 bytes.
struct Place(File);

impl Place {
    fn of(folder: &Path) -> io::Result<Self> {
        File::open(folder).map(Self)
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{KEEPER_SOCKET}", self.0.as_raw_fd()))
    }
}

fn connect(folder: &Path) -> io::Result<UnixStream> {
    let socket = StdStream::connect(Place::of(folder)?.socket())?;
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// One keeper's line.
struct Line {
    build: BuildId,
    number: u64,
    socket: UnixStream,
    /// None when an earlier program started it.
    child: Option<Child>,
    listed: Option<Started>,
    /// It hears of the build only now.
    begins: bool,
    orders: mpsc::Receiver<ToKeeper>,
    leases: watch::Receiver<Option<Timestamp>>,
    news: mpsc::Sender<(BuildId, u64, News)>,
    mark: Mark,
    lock: PathBuf,
}

impl Line {
    async fn tend(mut self) {
        let (from, mut to) = self.socket.into_split();
        let mut lines = BufReader::new(from);
        let reading = async {
            while let Some(word) = next_word(&mut lines).await {
                if matches!(word, FromKeeper::Bye | FromKeeper::Free) {
                    return Some(word);
                }
                // Fails only when the program ends.
                let _ = self.news.send((self.build, self.number, News::Said(word))).await;
            }
            None
        };
        let writing = async {
            let begin = ToKeeper::Begin { build: self.build };
            let mut well = !self.begins || to.write_all(&to_line(&begin)).await.is_ok();
            while well {
                let word = tokio::select! {
                    biased;
                    Ok(()) = self.leases.changed() => {
                        let until = self.leases.borrow_and_update().map(|until| until.0);
                        ToKeeper::Lease { until }
                    }
                    Some(word) = self.orders.recv() => word,
                    else => break,
                };
                well = to.write_all(&to_line(&word)).await.is_ok();
            }
            std::future::pending::<()>().await;
        };
        let last = tokio::select! {
            last = reading => last,
            () = writing => None,
        };
        let (bye, free) = (last.is_some(), last == Some(FromKeeper::Free));
        if free
            && let Ok(socket) = lines.into_inner().reunite(to)
            && let Some(child) = self.child.take()
        {
            let spare = Spare { socket, child, listed: self.listed.take() };
            let free = (self.build, self.number, News::Free(Box::new(spare)));
            // Fails only when the program ends.
            if let Err(mpsc::error::SendError((_, _, News::Free(spare)))) =
                self.news.send(free).await
            {
                spare.end().await;
            }
            return;
        }
        let clean = match self.child.as_mut() {
            Some(child) => match tokio::time::timeout(GO_LIMIT, child.wait()).await {
                Ok(status) => bye || status.is_ok_and(|status| status.success()),
                Err(_) => {
                    // It closed its end and stays: it is no use any more.
                    let _ = child.kill().await;
                    false
                }
            },
            None => released(&self.lock).await && bye,
        };
        drop(self.listed);
        if !clean {
            let found = process::end_marked(self.mark, BTreeMap::new(), LAST_KILL_TIME).await;
            tracing::warn!(build = %self.build, found, "the build's keeper died");
        }
        // Fails only when the program ends.
        let _ = self.news.send((self.build, self.number, News::Gone)).await;
    }
}

/// Waits until a keeper that is not this program's child is gone, for a while.
async fn released(lock: &Path) -> bool {
    let until = tokio::time::Instant::now() + GO_LIMIT;
    while tokio::time::Instant::now() < until {
        let Ok(file) = File::open(lock) else { return true };
        let held = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock);
        if held.is_ok() {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}

/// Tells what a keeper writes, as far as it is allowed.
struct Follower {
    build: BuildId,
    command: CommandId,
    n: u32,
    place: PathBuf,
    shelf: Shelf,
    states: watch::Receiver<OnDisk>,
    allowed: watch::Receiver<u64>,
    events: mpsc::Sender<Event>,
}

impl Follower {
    async fn follow(mut self, from: u64) {
        let mut offset = from;
        let mut reader = None;
        let mut rest = None;
        loop {
            let state = *self.states.borrow_and_update();
            let room = self.allowed.borrow_and_update().saturating_sub(offset);
            if offset < state.end && room > 0 {
                let piece = match (rest.take(), &mut reader) {
                    (Some(rest), _) => Ok(Some(rest)),
                    (None, Some(reader)) => SpoolReader::next(reader),
                    (None, reader) => SpoolReader::new(&self.place, offset)
                        .and_then(|new| reader.insert(new).next()),
                };
                match piece {
                    Ok(Some(mut piece)) => {
                        let room = usize::try_from(room).unwrap_or(usize::MAX);
                        if piece.bytes.len() > room {
                            let later = piece.bytes.split_off(room);
                            let offset = piece.offset + room as u64;
                            rest = Some(spool::Piece { offset, bytes: later, ..piece.clone() });
                        }
                        offset = piece.offset + piece.bytes.len() as u64;
                        let (build, command) = (self.build, self.command.clone());
                        let spool::Piece { ch, at, offset, bytes } = piece;
                        let output = Event::Output { build, command, ch, offset, bytes, at };
                        // Fails only when the program ends.
                        let _ = self.events.send(output).await;
                    }
                    Ok(None) | Err(_) => {
                        // It is said to be there: the disk refuses.
                        if let Err(error) = piece {
                            tracing::warn!(build = %self.build, %error, "output cannot be read");
                        }
                        reader = None;
                        tokio::time::sleep(DISK_PAUSE).await;
                    }
                }
                continue;
            }
            if state.over && offset >= state.end {
                if let Some(ended) = self.shelf.result(self.build, self.n) {
                    crash_point("worker.result.found");
                    let (build, command) = (self.build, self.command.clone());
                    let _ = self.events.send(Event::Ended { build, command, ended }).await;
                    return;
                }
                tokio::time::sleep(DISK_PAUSE).await;
                continue;
            }
            tokio::select! {
                changed = self.states.changed() => if changed.is_err() { return },
                changed = self.allowed.changed() => if changed.is_err() { return },
            }
        }
    }
}
