//! The builds that the worker has, and the log bytes that the master has not
//! confirmed. What has to outlive the worker program is written down by effects,
//! and given back by [`super::Agent::restore`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::core::ids::{BuildId, BuilderName, CommandId, Epoch};
use crate::protocol::json_v1::{InventoryItem, InventoryState, LOG_BATCH, STDIO};

use super::vocabulary::{Ended, RestoredCommand};

/// All builds of the worker.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) builds: BTreeMap<BuildId, Entry>,
}

/// One build.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) epoch: Epoch,
    pub(super) builder: BuilderName,
    /// Its folder below the worker's.
    pub(super) folder: String,
    /// The present connection knows of it: it was started there, or the master
    /// said to go on.
    pub(super) joined: bool,
    /// Its processes are gone and it has no result.
    pub(super) lost: bool,
    /// Its own lease in seconds, in place of the worker's; 0 means without end.
    pub(super) lease_s: Option<u64>,
    /// Its lease ran out, and it was ended for that.
    pub(super) lease_out: bool,
    pub(super) ending: Option<Ending>,
    pub(super) command: Option<Running>,
    /// Commands before the present one.
    pub(super) past: BTreeSet<CommandId>,
}

/// A build whose processes are being ended, after which it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// The master hears `abandoned`.
    Abandoned,
    /// The master has finished with it already.
    Released,
}

/// The command that a build runs or ran last.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) id: CommandId,
    pub(super) log: LogTail,
    /// What the process layer was last allowed to read.
    pub(super) allowed: u64,
    pub(super) started: bool,
    pub(super) started_said: bool,
    pub(super) ended: Option<Ended>,
    /// `command_finished` went out on the present connection.
    pub(super) finished_said: bool,
    /// The log is known to be at least this long.
    pub(super) total: u64,
    /// Output before this is not on the disk any more.
    pub(super) first: u64,
    /// It was found by this program, and the master has not said yet how much
    /// of its log it has.
    pub(super) found: bool,
    /// All of its log was asked for again, which is granted once.
    pub(super) again: bool,
}

impl Running {
    pub(super) fn new(id: CommandId, allowed: u64) -> Self {
        Self {
            id,
            log: LogTail::default(),
            allowed,
            started: false,
            started_said: false,
            ended: None,
            finished_said: false,
            total: 0,
            first: 0,
            found: false,
            again: false,
        }
    }

    /// A command that the worker program found when it started.
    pub(super) fn restored(command: RestoredCommand, window: u64) -> Self {
        let (first, total) = command.extent;
        Self {
            log: LogTail::from(total),
            started: true,
            ended: command.ended,
            total,
            first,
            found: true,
            ..Self::new(command.id, total + window)
        }
    }

    /// All that it wrote is in the log's tail, or was confirmed.
    pub(super) fn has_all(&self) -> bool {
        self.ended.is_some() && self.log.end >= self.total
    }

    pub(super) fn runs(&self) -> bool {
        self.ended.is_none()
    }
}

impl Entry {
    /// Whether a process of one of its commands may be alive.
    pub(super) fn runs(&self) -> bool {
        !self.lost && (self.ending.is_some() || self.command.as_ref().is_some_and(Running::runs))
    }

    /// Its lease may still end it.
    pub(super) fn holds_lease(&self) -> bool {
        !self.lease_out && !self.lost && self.ending.is_none()
    }

    pub(super) fn unconfirmed(&self) -> u64 {
        self.command.as_ref().map_or(0, |command| command.log.end - command.log.start)
    }

    pub(super) fn inventory(&self, build: BuildId) -> InventoryItem {
        let state = match &self.command {
            _ if self.lost => InventoryState::Lost,
            None => InventoryState::Waiting,
            Some(command) if command.runs() => InventoryState::Running,
            Some(_) => InventoryState::Finished,
        };
        InventoryItem {
            build,
            epoch: self.epoch,
            builder: self.builder.clone(),
            command: self.command.as_ref().map(|command| command.id.clone()),
            state,
            log_end: self
                .command
                .iter()
                .map(|command| (STDIO.to_owned(), command.log.end.max(command.total)))
                .collect(),
        }
    }
}

/// The end of a command's log that the master has not confirmed.
#[derive(Debug, Default)]
pub(super) struct LogTail {
    chunks: VecDeque<Chunk>,
    /// Confirmed up to here; earlier bytes are gone.
    pub(super) start: u64,
    /// Given to the present connection up to here.
    pub(super) sent: u64,
    /// Length so far.
    pub(super) end: u64,
    /// Where the master last made us go back to on this connection.
    went_back: Option<u64>,
}

#[derive(Debug)]
struct Chunk {
    offset: u64,
    ch: char,
    bytes: Bytes,
    at: u64,
}

/// A piece to send.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) ch: char,
    pub(super) bytes: Bytes,
    pub(super) at: u64,
}

/// What a confirmation came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Confirmed {
    /// As it should be.
    Fine,
    /// More than there is.
    Beyond,
    /// Bytes that were confirmed before, and are gone.
    Gone,
}

impl LogTail {
    /// An empty one in the middle of a log.
    pub(super) fn from(offset: u64) -> Self {
        Self { start: offset, sent: offset, end: offset, ..Self::default() }
    }

    pub(super) fn push(&mut self, ch: char, bytes: Bytes, at: u64) {
        let length = bytes.len() as u64;
        if length > 0 {
            self.chunks.push_back(Chunk { offset: self.end, ch, bytes, at });
            self.end += length;
        }
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The next piece to send, at most [`LOG_BATCH`] bytes, or none when all
    /// has been sent.
    pub(super) fn next(&mut self) -> Option<Piece> {
        let index =
            self.chunks.partition_point(|chunk| chunk.offset <= self.sent).checked_sub(1)?;
        let chunk = self.chunks.get(index)?;
        let skip = usize::try_from(self.sent - chunk.offset).ok()?;
        let rest = chunk.bytes.len().checked_sub(skip).filter(|&rest| rest > 0)?;
        let bytes = chunk.bytes.slice(skip..skip + rest.min(LOG_BATCH));
        let piece = Piece { offset: self.sent, ch: chunk.ch, at: chunk.at, bytes };
        self.sent += piece.bytes.len() as u64;
        Some(piece)
    }

    /// The master has the log up to `have`. The same place told twice means
    /// that it asks for what follows again; that is granted once a place and
    /// connection, so that two sides cannot send each other in circles.
    pub(super) fn confirm(&mut self, have: u64) -> Confirmed {
        if have > self.end {
            return Confirmed::Beyond;
        }
        if have < self.start {
            return Confirmed::Gone;
        }
        if have == self.start {
            if self.sent > have && self.went_back != Some(have) {
                self.went_back = Some(have);
                self.sent = have;
            }
            return Confirmed::Fine;
        }
        self.forget(have);
        self.sent = self.sent.max(have);
        Confirmed::Fine
    }

    /// Goes on from `from` on a new connection.
    pub(super) fn rewind(&mut self, from: u64) -> Confirmed {
        if from > self.end {
            return Confirmed::Beyond;
        }
        // Of a log that was confirmed to its end nothing is missing.
        let gone = from < self.start && self.start < self.end;
        self.forget(from);
        self.sent = from.max(self.start);
        self.went_back = None;
        if gone { Confirmed::Gone } else { Confirmed::Fine }
    }

    /// Goes on behind the last confirmed byte on a new connection.
    pub(super) fn rewind_to_confirmed(&mut self) {
        self.sent = self.start;
        self.went_back = None;
    }

    fn forget(&mut self, have: u64) {
        while let Some(first) = self.chunks.front_mut() {
            if first.offset >= have {
                break;
            }
            let known = have - first.offset;
            if known >= first.bytes.len() as u64 {
                self.chunks.pop_front();
                continue;
            }
            let known = usize::try_from(known).unwrap_or(usize::MAX).min(first.bytes.len());
            first.bytes = first.bytes.slice(known..);
            first.offset = have;
            break;
        }
        self.start = self.start.max(have);
    }
}
