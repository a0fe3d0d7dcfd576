//! What the stories are told with.

mod place;
mod process;
mod raw;
mod served;
mod steady;

use std::time::{Duration, Instant};

pub use place::Place;
pub use process::{Process, Ran, is_alive, run};
pub use raw::{RawWorker, attach, finished};
pub use served::Master;
pub use steady::{ends_undisturbed, start_steady};

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Looks until there is something, and fails with `what` when there is not.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    match within(PATIENCE, look) {
        Some(found) => found,
        None => panic!("waited in vain: {what}"),
    }
}

/// Looks until there is something or `limit` is over.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Timers of nearly all stories: dead links and lost builds are noticed soon,
/// and a master has time to come back on a busy machine.
pub const TIMERS: &str = "
[timers]
heartbeat = \"2 s\"
lease = \"30 s\"
kill_time = \"1 s\"
grace = \"40 s\"
handshake = \"3 s\"
";

/// A step's command that says `line 1`, `line 2` and so on until its gate is
/// opened, and then `end`. It ends with the place, too.
pub fn counting(gate: &str) -> String {
    format!(
        "i=0; while [ ! -e @DIR@/{gate} ] && [ -d @DIR@ ]; do i=$((i+1)); echo line $i; \
         sleep 0.02; done; echo end"
    )
}

/// A step's command that waits until its gate is opened, or its place is gone.
pub fn waiting(gate: &str) -> String {
    format!("while [ ! -e @DIR@/{gate} ] && [ -d @DIR@ ]; do sleep 0.05; done")
}

/// A worker's part of a configuration.
pub fn worker(name: &str, max_builds: u32) -> String {
    format!("[[worker]]\nname = \"{name}\"\nmax_builds = {max_builds}\n")
}

/// A builder's part of a configuration, with one step for each shell line.
pub fn builder(name: &str, worker: &str, lines: &[&str]) -> String {
    let mut text = format!("[[builder]]\nname = \"{name}\"\nworkers = [\"{worker}\"]\n");
    for (number, line) in lines.iter().enumerate() {
        text += &format!("[[builder.step]]\nname = \"s{number}\"\nshell = '''{line}'''\n");
    }
    text
}

/// What `counting` must have written: each line once, in order, and the end.
#[track_caller]
pub fn assert_counted(lines: &[String]) {
    let (end, counted) = lines.split_last().expect("the log has lines");
    assert_eq!(end, "end");
    for (place, line) in counted.iter().enumerate() {
        assert_eq!(*line, format!("line {}", place + 1), "of {} lines", lines.len());
    }
}
