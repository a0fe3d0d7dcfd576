//! The built program's `up`: a whole master and worker on this machine.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A folder with a configuration of one builder with these steps.
fn place(steps: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text =
        format!("[[worker]]\nname = \"w\"\n[[builder]]\nname = \"b\"\nworker = \"w\"\n{steps}");
    fs::write(dir.path().join("x.toml"), text).unwrap();
    dir
}

fn up(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_botmaster"));
    command
        .args(["up", "--config", "x.toml", "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0"])
        .args(args)
        .current_dir(dir)
        .env_remove("BOTMASTER_URL")
        .env_remove("BOTMASTER_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Ends with the program, however the test ends.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Up {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    fn code_within(&mut self, limit: Duration) -> Option<i32> {
        let mut code = None;
        let ended = until(limit, || {
            code = self.0.try_wait().unwrap();
            code.is_some()
        });
        if !ended {
            let mut said = String::new();
            self.0.kill().unwrap();
            self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("it has not ended after {limit:?}: {said}");
        }
        code.unwrap().code()
    }
}

fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn up_once_tells_the_result_and_keeps_the_build() {
    let dir = place("[[builder.step]]\nrun = [\"echo\", \"hello\"]\n");
    for number in 1..=2 {
        let output = up(dir.path(), &["--once"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(out.lines().last(), Some(&*format!("build b/{number}: success")), "{out}");
        assert!(out.contains(&format!("build b/{number} started on worker w\n")), "{out}");
        assert!(out.contains("  step echo-hello: success, "), "{out}");
        assert!(out.contains(&format!("log: botmaster log b/{number}\n")), "{out}");
    }
    assert!(dir.path().join("data/tokens/w.token").exists());
}

#[test]
fn up_once_shows_the_end_of_a_failed_steps_log() {
    let dir = place("[[builder.step]]\nname = \"bad\"\nshell = \"seq 100; exit 3\"\n");
    let output = up(dir.path(), &["--once", "b"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(out.lines().last(), Some("build b/1: failure"), "{out}");
    assert!(out.contains("last lines of step bad:\n") && out.contains("\n  | 100\n"), "{out}");
    assert!(!out.contains("\n  | 80\n"), "{out}");
}

/// A running build whose process does not heed TERM; its process id.
fn stubborn() -> (tempfile::TempDir, Up, i32) {
    let dir = place(
        "[[builder.step]]\nname = \"long\"\nshell = \"trap '' TERM; echo $$ > pid.new; mv pid.new ../pid; while :; do sleep 0.2; done\"\n",
    );
    let up = Up(up(dir.path(), &[]).spawn().unwrap());
    let file: PathBuf = dir.path().join("data/workers/w/b/pid");
    assert!(until(Duration::from_secs(30), || file.exists()), "the build does not start");
    let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    assert!(is_alive(pid));
    (dir, up, pid)
}

/// A zombie that nobody has waited for yet does not count.
fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

#[test]
fn up_ends_builds_after_a_while_when_it_is_asked_once() {
    let (_dir, mut up, pid) = stubborn();
    let begun = Instant::now();
    up.signal(Signal::SIGTERM);
    assert_eq!(up.code_within(Duration::from_secs(9)), Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(4), "running builds get five seconds");
    assert!(until(Duration::from_secs(2), || !is_alive(pid)));
}

#[test]
fn up_ends_within_two_seconds_when_it_is_asked_twice() {
    let (_dir, mut up, pid) = stubborn();
    up.signal(Signal::SIGINT);
    // The first one is heeded when it says so; two at once are one.
    let mut said = [0; 8];
    up.0.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"stopping");
    let begun = Instant::now();
    up.signal(Signal::SIGINT);
    assert_eq!(up.code_within(Duration::from_secs(3)), Some(0));
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    assert!(until(Duration::from_secs(2), || !is_alive(pid)));
}

/// The worker program of this `up`.
fn worker_of(up: &Up) -> i32 {
    let pid = up.0.id();
    let children = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        lists.collect::<String>()
    };
    let mut found = None;
    let is_worker = |child: &&str| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("\0worker\0")
    };
    assert!(until(Duration::from_secs(20), || {
        let children = children();
        let worker = children.split_whitespace().find(is_worker);
        found = worker.map(|pid| pid.parse().unwrap());
        found.is_some()
    }));
    found.unwrap()
}

#[test]
fn fr04_a_build_outlives_the_worker_program_of_up_but_not_up() {
    let (dir, mut up, pid) = stubborn();
    let first = worker_of(&up);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    assert!(until(Duration::from_secs(20), || worker_of(&up) != first));
    let log = || {
        let mut client = Command::new(env!("CARGO_BIN_EXE_botmaster"));
        client.args(["--config", "x.toml", "builds", "--json"]).current_dir(dir.path());
        text(&client.env_remove("BOTMASTER_URL").output().unwrap())
    };
    assert!(until(Duration::from_secs(20), || log().contains("\"complete\":false")), "{}", log());
    assert!(is_alive(pid), "the build was ended");
    let builds = log();
    assert_eq!(builds.matches("\"buildid\"").count(), 1, "{builds}");
    // And once more, so that nobody is there who hears `up` end.
    let second = worker_of(&up);
    kill(Pid::from_raw(second), Signal::SIGKILL).unwrap();
    up.signal(Signal::SIGTERM);
    assert_eq!(up.code_within(Duration::from_secs(20)), Some(0));
    assert!(until(Duration::from_secs(2), || !is_alive(pid)), "the build outlived `up`");
}

#[test]
fn nothing_stays_when_up_is_killed() {
    let (_dir, mut up, pid) = stubborn();
    up.0.kill().unwrap();
    up.0.wait().unwrap();
    assert!(until(Duration::from_secs(5), || !is_alive(pid)), "the build outlived `up`");
}
