//! Worker protocol version 1: one JSON object a line, and the
//! bytes of logs. `docs/protocol.md` is
//! its normative text; the golden frames under `tests/wire/` hold both to it.

mod codec;
mod frame;
mod lines;
mod parts;
mod strict;

pub use codec::{
    DecodeError, MAX_DEPTH, MAX_ELEMENTS, MAX_LINE, MAX_LINE_BEFORE_ATTACH, decode_master,
    decode_worker, encode, encode_worker,
};
pub use frame::*;
pub use lines::{FrameLines, LineError};
pub use parts::*;
