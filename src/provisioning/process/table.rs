//! The table of processes, as far as an instance needs it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What the system says of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    /// It has ended and only waits to be waited for.
    pub ended: bool,
    /// Its session.
    pub session: i32,
    /// When it started, in ticks since the machine did: with its number this
    /// names a process for good.
    pub start: u64,
}

/// What the system says of one process; none when it is not there.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name may hold anything, even brackets.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    let start = fields.nth(15)?.parse().ok()?;
    Some(Stat { ended: matches!(state, "Z" | "X"), session, start })
}

/// Numbers of all processes.
pub(super) fn all() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether one of a process's arguments is this.
pub(super) fn has_argument(pid: i32, argument: &str) -> bool {
    holds(&format!("/proc/{pid}/cmdline"), argument)
}

/// Whether a process's environment has this variable, as `NAME=VALUE`.
pub(super) fn has_variable(pid: i32, variable: &str) -> bool {
    holds(&format!("/proc/{pid}/environ"), variable)
}

fn holds(path: &str, item: &str) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.split(|&byte| byte == 0).any(|one| one == item.as_bytes())
}

/// Sends a signal. One that is gone meanwhile needs none.
pub(super) fn signal(pid: i32, signal: Signal) {
    if pid > 1 {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Names this run of the machine: process numbers begin anew with each.
pub(super) fn boot() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}
