//! The log store, played after `store/logs`: bytes wait in memory for a
//! moment, then they are on disk and confirmed. Of the text only its length is
//! kept: what a command writes can be told from its name and the place.

use std::collections::BTreeMap;
use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::planted;
use botmaster::store::StoreError;
use botmaster::store::logs::{INLINE, LogClosed};

use crate::bus::LogAsk;

/// The byte that a command writes at a place.
pub fn byte_of(command: &CommandId, place: u64) -> u8 {
    let seed = command.as_str().bytes().fold(7_u64, |all, byte| all * 31 + u64::from(byte));
    b'a' + u8::try_from((seed + place * 7 + place / 13) % 26).unwrap_or(0)
}

/// What a command writes from `from` on.
pub fn text_of(command: &CommandId, from: u64, len: u64) -> String {
    (from..from + len).map(|place| byte_of(command, place) as char).collect()
}

/// An open log.
#[derive(Clone, Debug, Default)]
struct Open {
    worker_end: u64,
    waiting: u64,
    confirm: Option<SessionId>,
    flush_due: bool,
}

#[derive(Clone, Debug, Default)]
struct Log {
    /// The worker's bytes on disk.
    durable: u64,
    /// All bytes on disk.
    length: u64,
    open: Option<Open>,
    /// What it was closed with: the worker's bytes that it has.
    closed: Option<u64>,
}

/// Something that comes of an ask.
pub enum LogOut {
    /// Write what waits in a moment.
    FlushSoon(LogId),
    /// Tell the worker what there is.
    Confirm(SessionId, LogId, u64),
    /// Call somebody.
    Call(Box<dyn FnOnce()>),
    /// The bytes are not what the command wrote there.
    Wrong(String),
}

/// The log store.
#[derive(Default)]
pub struct LogDesk {
    logs: BTreeMap<LogId, Log>,
    commands: BTreeMap<LogId, CommandId>,
    /// The disk is full.
    pub full: bool,
}

impl LogDesk {
    /// A command's text goes to this log.
    pub fn name(&mut self, log: LogId, command: CommandId) {
        self.commands.insert(log, command);
    }

    /// Whose text a log holds.
    pub fn command(&self, log: LogId) -> Option<&CommandId> {
        self.commands.get(&log)
    }

    /// The worker's bytes that were there when the log was closed.
    pub fn closed(&self, log: LogId) -> Option<u64> {
        self.logs.get(&log)?.closed
    }

    /// Bytes of the worker's that are on disk or in an open log.
    pub fn reached(&self, log: LogId) -> u64 {
        let Some(log) = self.logs.get(&log) else { return 0 };
        log.open.as_ref().map_or(log.durable, |open| open.worker_end)
    }

    /// The worker's bytes on disk.
    pub fn durable(&self, log: LogId) -> u64 {
        self.logs.get(&log).map_or(0, |log| log.durable)
    }

    /// The process died: what was in memory is gone.
    pub fn crash(&mut self) {
        for log in self.logs.values_mut() {
            log.open = None;
        }
    }

    /// Does what is asked.
    pub fn ask(&mut self, ask: LogAsk, out: &mut Vec<LogOut>) {
        match ask {
            LogAsk::Open(id) => {
                let log = self.logs.entry(id).or_default();
                log.open.get_or_insert_with(Open::default);
            }
            LogAsk::Reopen(id, done) => {
                let full = self.full;
                let log = self.logs.entry(id).or_default();
                let durable = log.durable;
                log.open.get_or_insert_with(|| Open { worker_end: durable, ..Open::default() });
                if !full {
                    flush(log);
                }
                let answer = if full { Err(unwritable()) } else { Ok(log.durable) };
                out.push(LogOut::Call(Box::new(move || done(answer))));
            }
            LogAsk::Append { log, offset, bytes, confirm } => {
                self.append(log, offset, &bytes, confirm, out);
            }
            LogAsk::Close(id, expected, done) => self.close(id, expected, done, out),
            LogAsk::Forget(id) => {
                if let Some(log) = self.logs.get_mut(&id) {
                    if !self.full {
                        flush(log);
                    }
                    log.open = None;
                }
            }
        }
    }

    fn append(
        &mut self,
        id: LogId,
        offset: Option<u64>,
        bytes: &[u8],
        confirm: Option<SessionId>,
        out: &mut Vec<LogOut>,
    ) {
        let command = self.commands.get(&id);
        let Some(log) = self.logs.get_mut(&id) else { return };
        let durable = log.durable;
        let Some(open) = &mut log.open else { return };
        if confirm.is_some() {
            open.confirm = confirm;
        }
        let Some(offset) = offset else {
            open.waiting += bytes.len() as u64;
            if !open.flush_due {
                open.flush_due = true;
                out.push(LogOut::FlushSoon(id));
            }
            return;
        };
        let known = open.worker_end.checked_sub(offset).and_then(|k| usize::try_from(k).ok());
        let mut new = known.and_then(|known| bytes.get(known..)).unwrap_or_default();
        if planted::is("sim_log_append_without_offset") {
            new = bytes;
        }
        if new.is_empty() {
            if let Some(session) = open.confirm {
                out.push(LogOut::Confirm(session, id, durable));
            }
            return;
        }
        if let Some(command) = command {
            let from = open.worker_end;
            let right =
                new.iter().zip(from..).all(|(byte, place)| *byte == byte_of(command, place));
            if !right {
                out.push(LogOut::Wrong(format!(
                    "log {id} of command {command}: the bytes at {from} are not those that it wrote"
                )));
            }
        }
        open.worker_end += new.len() as u64;
        open.waiting += new.len() as u64;
        if !open.flush_due {
            open.flush_due = true;
            out.push(LogOut::FlushSoon(id));
        }
        if planted::is("sim_log_confirmed_before_durable")
            && let Some(session) = open.confirm
        {
            out.push(LogOut::Confirm(session, id, open.worker_end));
        }
    }

    /// The moment has passed.
    pub fn flush(&mut self, id: LogId, out: &mut Vec<LogOut>) {
        let full = self.full;
        let Some(log) = self.logs.get_mut(&id) else { return };
        let Some(open) = &mut log.open else { return };
        open.flush_due = false;
        if full {
            open.flush_due = true;
            out.push(LogOut::FlushSoon(id));
            return;
        }
        flush(log);
        if let Some(session) = log.open.as_ref().and_then(|open| open.confirm) {
            out.push(LogOut::Confirm(session, id, log.durable));
        }
    }

    fn close(
        &mut self,
        id: LogId,
        expected: Option<u64>,
        done: crate::bus::OnClosed,
        out: &mut Vec<LogOut>,
    ) {
        let full = self.full;
        let closed = match self.logs.get_mut(&id) {
            Some(log) => close(log, id, expected, full),
            None => Err(StoreError::Missing(format!("open log {id}"))),
        };
        out.push(LogOut::Call(Box::new(move || done(closed))));
    }
}

fn close(
    log: &mut Log,
    id: LogId,
    expected: Option<u64>,
    full: bool,
) -> Result<LogClosed, StoreError> {
    let Some(open) = log.open.clone() else {
        return Err(StoreError::Missing(format!("open log {id}")));
    };
    let inline = log.length == 0 && open.waiting <= INLINE;
    if !inline && full {
        return Err(unwritable());
    }
    let length = log.length + open.waiting;
    if !inline {
        flush(log);
    }
    log.open = None;
    log.closed = Some(open.worker_end);
    let arrived = open.worker_end;
    let incomplete = match expected {
        Some(expected) if expected != arrived => {
            Some(format!("the worker wrote {expected} bytes and {arrived} arrived"))
        }
        _ => None,
    };
    Ok(LogClosed {
        num_lines: 1,
        length,
        worker_length: arrived,
        inline: inline.then(|| Arc::from(vec![0_u8; 1])),
        incomplete,
        differs: false,
    })
}

fn flush(log: &mut Log) {
    if let Some(open) = &mut log.open {
        log.durable = open.worker_end;
        log.length += open.waiting;
        open.waiting = 0;
    }
}

fn unwritable() -> StoreError {
    StoreError::Unwritable("no space left on device".into())
}
