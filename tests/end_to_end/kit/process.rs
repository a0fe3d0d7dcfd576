//! Processes that end with the story, however it ends.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PATIENCE, within};

/// One process of the program.
pub struct Process {
    child: Child,
    ends_with_stdin: bool,
}

impl Process {
    /// Starts it; what it says goes to the end of `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let ends_with_stdin = command.get_args().any(|arg| arg == "--stop-with-stdin");
        Self { child, ends_with_stdin }
    }

    pub fn id(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id()), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end and answers the exit code.
    #[track_caller]
    pub fn code_within(&mut self, limit: Duration) -> Option<i32> {
        match within(limit, || self.has_ended()) {
            Some(status) => status.code(),
            None => panic!("it has not ended after {limit:?}"),
        }
    }

    /// What it has used of the processors so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // User and system time, in hundredths of a second on all Linux.
        let ticks: u64 = [fields[11], fields[12]].iter().map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// As `kill -9` does it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    /// A worker hears of the end by its standard input and ends its builds; for
    /// others, and when that takes long, it is KILL.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if self.ends_with_stdin
            && within(Duration::from_secs(3), || self.child.try_wait().ok()?).is_some()
        {
            return;
        }
        // It may just have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command came to.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Everything it said, for failing assertions.
    pub fn all(&self) -> String {
        format!("code {:?}\n--- out\n{}--- err\n{}", self.code, self.out, self.err)
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.all());
        self
    }

    /// Its lines as JSON; fails when one of them is not.
    #[track_caller]
    pub fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        self.out.lines().map(parse).collect()
    }
}

fn reading(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before a fault is shown all the same.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs a command to its end, which must come in time.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let out = reading(child.stdout.take().unwrap());
    let err = reading(child.stderr.take().unwrap());
    let status = within(PATIENCE, || child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ran = Ran {
        code: status.and_then(|status| status.code()),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    };
    assert!(status.is_some(), "{command:?} has not ended after {PATIENCE:?}: {}", ran.all());
    ran
}

/// A zombie that nobody has waited for yet does not count.
pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}
