//! Lines for people. Whoever closed the pipe has read enough: that is no reason
//! to fail, as the standard library's macros would.

use std::fmt::Display;
use std::io::{Write as _, stderr, stdout};

/// A line of an answer, to standard output.
pub(super) fn say(text: impl Display) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line beside the answer, to standard error.
pub(super) fn complain(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}
