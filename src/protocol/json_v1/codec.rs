//! One line to one frame and back, within limits.
//!
//! A first walk over the line finds its type and holds it to the limits; the
//! fields are then read into a struct of their own: serde's tagged enums would
//! copy every field into a buffer.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::*;
use super::parts::*;
use super::strict;

/// Longest line before the worker is accepted, in bytes.
pub const MAX_LINE_BEFORE_ATTACH: usize = 16 * 1024;
/// Longest line after that, in bytes.
pub const MAX_LINE: usize = 1024 * 1024;
/// Deepest nesting of objects and lists.
pub const MAX_DEPTH: usize = 32;
/// Most values in one frame, counted over all objects and lists.
pub const MAX_ELEMENTS: usize = 10_000;

/// Why a line is no frame.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, not an object, too many values, a field missing, doubled or of
    /// the wrong type.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// Nested too deeply.
    #[error("frame is nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Well-formed, but of a type this version does not know.
    #[error("unknown frame type `{0}`")]
    UnknownType(String),
}

impl DecodeError {
    /// The wire's code for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooDeep => "too_deep",
            Self::UnknownType(_) => "unknown_type",
        }
    }

    /// An unknown type alone leaves the connection open (fault row FN01).
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::UnknownType(_))
    }
}

pub(super) fn malformed(error: &serde_json::Error) -> DecodeError {
    DecodeError::Malformed(error.to_string())
}

fn fields<T: DeserializeOwned>(line: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(line).map_err(|error| malformed(&error))
}

macro_rules! variant_fields {
    ($line:expr, $frame:ident :: $variant:ident { $($field:ident : $ty:ty),* $(,)? }) => {{
        #[derive(Deserialize)]
        struct Fields { $($field: $ty),* }
        let Fields { $($field),* } = fields($line)?;
        Ok($frame::$variant { $($field),* })
    }};
}

/// Reads a line that a worker sent.
///
/// # Errors
/// When the line is no frame of this version.
pub fn decode_worker(line: &[u8]) -> Result<WorkerFrame, DecodeError> {
    use std::collections::BTreeMap;

    use crate::core::ids::*;

    let kind = strict::frame_type(line)?;
    match kind.as_str() {
        "attach" => Ok(WorkerFrame::Attach(fields(line)?)),
        "inventory" => Ok(WorkerFrame::Inventory(fields(line)?)),
        "builder_ready" => {
            variant_fields!(line, WorkerFrame::BuilderReady { builder: BuilderName })
        }
        "builder_failed" => variant_fields!(
            line,
            WorkerFrame::BuilderFailed { builder: BuilderName, code: String, message: String }
        ),
        "pong" => variant_fields!(line, WorkerFrame::Pong { id: PingToken }),
        "ping_failed" => {
            variant_fields!(line, WorkerFrame::PingFailed { id: PingToken, message: String })
        }
        "heartbeat" => {
            variant_fields!(line, WorkerFrame::Heartbeat { seq: u64, running: Vec<BuildId> })
        }
        "build_accepted" => {
            variant_fields!(line, WorkerFrame::BuildAccepted { build: BuildId, epoch: Epoch })
        }
        "refused" => variant_fields!(
            line,
            WorkerFrame::Refused { build: BuildId, epoch: Epoch, code: String, message: String }
        ),
        "command_started" => {
            variant_fields!(
                line,
                WorkerFrame::CommandStarted { build: BuildId, command: CommandId }
            )
        }
        "command_refused" => variant_fields!(
            line,
            WorkerFrame::CommandRefused {
                build: BuildId,
                command: CommandId,
                code: String,
                message: String
            }
        ),
        "log" => {
            let log: LogData = fields(line)?;
            let forms = [log.text.is_some(), log.b64.is_some(), log.raw.is_some()];
            if forms.iter().filter(|is_there| **is_there).count() != 1 {
                let message = "exactly one of `text`, `b64` and `raw`";
                return Err(DecodeError::Malformed(message.into()));
            }
            if log.raw.is_some_and(|length| length > LOG_BATCH) {
                let message = format!("`raw` is more than {LOG_BATCH}");
                return Err(DecodeError::Malformed(message));
            }
            if !matches!(log.ch, 'o' | 'e') {
                return Err(DecodeError::Malformed("`ch` is `o` or `e`".into()));
            }
            Ok(WorkerFrame::Log(log))
        }
        "command_finished" => {
            #[derive(Deserialize)]
            struct Fields {
                build: BuildId,
                command: CommandId,
                outcome: Outcome,
                #[serde(default)]
                usage: Usage,
                #[serde(default)]
                log_end: BTreeMap<String, u64>,
                #[serde(default)]
                log_digest: BTreeMap<String, String>,
                #[serde(default)]
                properties: BTreeMap<String, String>,
                #[serde(default)]
                note: String,
            }
            let f: Fields = fields(line)?;
            Ok(WorkerFrame::CommandFinished {
                build: f.build,
                command: f.command,
                outcome: f.outcome,
                usage: f.usage,
                log_end: f.log_end,
                log_digest: f.log_digest,
                properties: f.properties,
                note: f.note,
            })
        }
        "abandoned" => variant_fields!(line, WorkerFrame::Abandoned { build: BuildId }),
        "draining" => variant_fields!(line, WorkerFrame::Draining { message: String }),
        "error" => Ok(WorkerFrame::Error(fields(line)?)),
        other => Err(DecodeError::UnknownType(shorten(other))),
    }
}

/// Reads a line that a master sent.
///
/// # Errors
/// When the line is no frame of this version.
pub fn decode_master(line: &[u8]) -> Result<MasterFrame, DecodeError> {
    use crate::core::ids::*;

    let kind = strict::frame_type(line)?;
    match kind.as_str() {
        "attached" => variant_fields!(
            line,
            MasterFrame::Attached {
                proto: u32,
                incarnation: Incarnation,
                caps: Vec<String>,
                heartbeat_s: u64,
                idle_heartbeat_s: Option<u64>,
                lease_s: u64,
                window: u64
            }
        ),
        "rejected" => variant_fields!(
            line,
            MasterFrame::Rejected { code: String, message: String, retry_after_s: Option<u64> }
        ),
        "resume" => Ok(MasterFrame::Resume(fields(line)?)),
        "builders" => variant_fields!(line, MasterFrame::Builders { list: Vec<BuilderEntry> }),
        "ping" => variant_fields!(line, MasterFrame::Ping { id: PingToken }),
        "heartbeat" => variant_fields!(line, MasterFrame::Heartbeat { seq: u64 }),
        "start_build" => variant_fields!(
            line,
            MasterFrame::StartBuild {
                build: BuildId,
                epoch: Epoch,
                requests: Vec<(RequestId, Epoch)>,
                builder: BuilderName,
                builddir: String,
                lease_s: Option<u64>
            }
        ),
        "start_command" => {
            #[derive(Deserialize)]
            struct Fields {
                build: BuildId,
                epoch: Epoch,
                command: CommandId,
            }
            let f: Fields = fields(line)?;
            let work: Work = fields(line)?;
            if let Work::Shell(args) = &work
                && args.argv.is_some() == args.shell.is_some()
            {
                return Err(DecodeError::Malformed("exactly one of `argv` and `shell`".into()));
            }
            Ok(MasterFrame::StartCommand {
                build: f.build,
                epoch: f.epoch,
                command: f.command,
                work,
            })
        }
        "log_confirm" => variant_fields!(
            line,
            MasterFrame::LogConfirm { build: BuildId, command: CommandId, log: String, have: u64 }
        ),
        "log_again" => variant_fields!(
            line,
            MasterFrame::LogAgain { build: BuildId, command: CommandId, log: String }
        ),
        "lease" => variant_fields!(line, MasterFrame::Lease { lease_s: u64 }),
        "interrupt" => variant_fields!(
            line,
            MasterFrame::Interrupt {
                build: BuildId,
                command: CommandId,
                grace_s: u64,
                reason: String
            }
        ),
        "build_finished" => {
            variant_fields!(line, MasterFrame::BuildFinished { build: BuildId, result: String })
        }
        "drain" => variant_fields!(line, MasterFrame::Drain { reason: String }),
        "shutdown" => variant_fields!(line, MasterFrame::Shutdown { reason: String }),
        "error" => Ok(MasterFrame::Error(fields(line)?)),
        other => Err(DecodeError::UnknownType(shorten(other))),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Puts a worker's frame behind what `out` holds: its line, and the bytes that
/// come behind it.
pub fn encode_worker(frame: &WorkerFrame, out: &mut Vec<u8>) {
    match frame {
        WorkerFrame::Log(log) if log.raw.is_some() => {
            out.append(&mut encode(frame));
            out.extend_from_slice(&log.body);
        }
        _ => out.append(&mut encode(frame)),
    }
}

/// Writes a frame as one line with its newline. Bytes that come behind the line
/// of a `log` are not part of it, see [`encode_worker`].
///
/// Frames are made of plain data, so this does not fail in practice; if it
/// ever did, the line would be an `error` frame and not a broken one.
#[must_use]
pub fn encode<F: Serialize>(frame: &F) -> Vec<u8> {
    let mut line = serde_json::to_vec(frame).unwrap_or_else(|error| {
        format!("{{\"t\":\"error\",\"code\":\"unexpected\",\"message\":{:?}}}", error.to_string())
            .into_bytes()
    });
    line.push(b'\n');
    line
}
