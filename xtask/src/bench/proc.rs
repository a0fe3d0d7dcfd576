//! The processes of a benchmark: started with their output in a file, ended by
//! their ids whatever happens to us, and looked at through `/proc`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::tools;

/// Clock ticks a second in `/proc`; 100 on every Linux that this runs on.
const TICKS: f64 = 100.0;

/// How long a process may take to end after it was asked to.
const END_LIMIT: Duration = Duration::from_secs(20);

/// How often a process is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// Ends what it was told of when we end, in whatever way: it holds the other
/// end of a pipe, and the end of that pipe is its signal. It does not hear
/// Ctrl-C itself. Whatever was told with `del` is left alone.
const GUARD: &str = r#"
trap '' INT TERM HUP
pids="" dirs=""
while read -r what value; do
  case $what in
    pid) pids="$pids $value" ;;
    end) kept=""; for p in $pids; do [ "$p" = "$value" ] || kept="$kept $p"; done; pids=$kept ;;
    dir) dirs=$value ;;
    nodir) dirs="" ;;
  esac
done
for p in $pids; do kill -TERM "$p" 2>/dev/null; done
left=100
while [ -n "$pids" ] && [ $left -gt 0 ]; do
  kept=""; for p in $pids; do kill -0 "$p" 2>/dev/null && kept="$kept $p"; done
  pids=$kept left=$((left - 1))
  [ -z "$pids" ] || sleep 0.2
done
for p in $pids; do kill -KILL "$p" 2>/dev/null; done
[ -z "$dirs" ] || rm -rf -- "$dirs"
"#;

/// Sees to it that nothing is left behind when we are ended from outside.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Mutex<GuardProcess>>);

#[derive(Debug)]
struct GuardProcess {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no `sh`.
    pub fn start() -> Result<Self, String> {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD]).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("cannot start sh: {error}"))?;
        let pipe = child.stdin.take();
        Ok(Self(Arc::new(Mutex::new(GuardProcess { child, pipe }))))
    }

    /// Has this folder removed when we end.
    pub fn folder(&self, path: &Path) {
        self.tell(&format!("dir {}", path.display()));
    }

    /// Leaves the folder alone.
    pub fn no_folder(&self) {
        self.tell("nodir -");
    }

    fn tell(&self, line: &str) {
        let mut process = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = &mut process.pipe {
            // A guard that has gone away cannot be helped; our own clean-up
            // still takes place.
            let _ = writeln!(pipe, "{line}");
        }
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        self.pipe.take();
        let _ = self.child.wait();
    }
}

/// A process that ends with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    guard: Guard,
    ended: bool,
}

impl Process {
    /// Starts a program with its output appended to a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &str,
        mut command: Command,
        output: &Path,
        guard: &Guard,
    ) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot start {name}: {error}");
        let file = OpenOptions::new().create(true).append(true).open(output).map_err(failed)?;
        let errors = file.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        Self::of(name, command, output, guard)
    }

    /// Starts a program whose output is wherever the command has put it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of(
        name: &str,
        mut command: Command,
        output: &Path,
        guard: &Guard,
    ) -> Result<Self, String> {
        let child = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        guard.tell(&format!("pid {}", child.id()));
        Ok(Self {
            name: name.to_owned(),
            child,
            output: output.to_owned(),
            guard: guard.clone(),
            ended: false,
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of its output when it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.has_ended();
                Err(format!("{} ended with {status}:\n{}", self.name, tail(&self.output)))
            }
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// Waits until it ends by itself; none when the deadline comes first.
    pub fn wait(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.has_ended();
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends it: politely, then by force.
    pub fn stop(&mut self) {
        if self.ended {
            return;
        }
        if !self.ask_to_end() || self.wait(Instant::now() + END_LIMIT).is_none() {
            self.kill();
        }
        self.has_ended();
    }

    /// Asks it to end, and insists that it does so in time and with success.
    ///
    /// # Errors
    /// When it does not.
    pub fn end(&mut self, limit: Duration) -> Result<(), String> {
        self.check()?;
        self.ask_to_end();
        match self.wait(Instant::now() + limit) {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                Err(format!("{} ended with {status}:\n{}", self.name, tail(&self.output)))
            }
            None => Err(format!("{} did not end within {} s", self.name, limit.as_secs())),
        }
    }

    /// Ends it at once, as a failure of the machine would.
    pub fn kill(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.has_ended();
        }
    }

    fn ask_to_end(&self) -> bool {
        let mut term = Command::new("sh");
        term.args(["-c", "kill -TERM \"$0\"", &self.id().to_string()]);
        tools::answers(term)
    }

    fn has_ended(&mut self) {
        if !self.ended {
            self.ended = true;
            self.guard.tell(&format!("end {}", self.child.id()));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

/// User and system time of a process with all its threads, in seconds.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    cpu_of_stat(&text).ok_or(format!("{path}: not understood"))
}

fn cpu_of_stat(text: &str) -> Option<f64> {
    // The name in parentheses may hold anything; what follows it is regular.
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// Memory of a process in MB: `VmRSS` now, `VmHWM` at its highest.
///
/// # Errors
/// When there is no such process.
pub fn memory_mb(pid: u32, field: &str) -> Result<f64, String> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    memory_of_status(&text, field).ok_or(format!("{path}: no {field}"))
}

fn memory_of_status(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// How many descriptors a process has open.
///
/// # Errors
/// When there is no such process.
pub fn descriptors(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/fd");
    let entries = std::fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(entries.count() as u64)
}

/// Waits until a process uses less than 5% of a core over a second.
///
/// # Errors
/// When the process ends, or has not settled after `seconds`.
pub fn settle(pid: u32, seconds: u32) -> Result<(), String> {
    for _ in 0..seconds {
        let before = cpu_seconds(pid)?;
        std::thread::sleep(Duration::from_secs(1));
        if cpu_seconds(pid)? - before < 0.05 {
            return Ok(());
        }
    }
    Err(format!("process {pid} has not settled within {seconds} s"))
}

/// Waits until a process uses less than 5% of a core over a second, and looks
/// ten times a second; gives how long it took until that second began.
///
/// # Errors
/// When the process ends, or has not settled within the limit.
pub fn quiet_from(pid: u32, limit: Duration) -> Result<Duration, String> {
    let begin = Instant::now();
    let mut looks = vec![(begin, cpu_seconds(pid)?)];
    while begin.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(100));
        let (now, cpu) = (Instant::now(), cpu_seconds(pid)?);
        looks.push((now, cpu));
        if let Some(from) = quiet_since(&looks, now) {
            return Ok(from.saturating_duration_since(begin));
        }
    }
    Err(format!("process {pid} has not settled within {limit:?}"))
}

/// When the second before now began, if the process was quiet in it.
fn quiet_since(looks: &[(Instant, f64)], now: Instant) -> Option<Instant> {
    let (_, cpu) = looks.last()?;
    let a_second_ago =
        |(at, _): &&(Instant, f64)| now.saturating_duration_since(*at) >= Duration::from_secs(1);
    let (from, before) = looks.iter().rev().find(a_second_ago)?;
    let share = (cpu - before) / now.saturating_duration_since(*from).as_secs_f64();
    (share < 0.05).then_some(*from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 250 150 9 9 20 0 3 0 5 6 7";
        assert_eq!(cpu_of_stat(stat), Some(4.0));
        assert_eq!(cpu_of_stat("12 (a"), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(memory_of_status(status, "VmRSS"), Some(1.0));
        assert_eq!(memory_of_status(status, "VmHWM"), Some(2.0));
        assert_eq!(memory_of_status(status, "VmSwap"), None);
        assert!(memory_mb(std::process::id(), "VmRSS").unwrap() > 0.5);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
        assert!(descriptors(std::process::id()).unwrap() >= 3);
    }

    #[test]
    fn a_process_is_quiet_after_a_second_with_little_work() {
        let begin = Instant::now();
        // Busy for half a second, then not at all.
        let look = |tenths: u32| {
            let cpu = f64::from(tenths.min(5)) / 10.0;
            (begin + Duration::from_millis(100) * tenths, cpu)
        };
        let looks: Vec<_> = (0..=20).map(look).collect();
        let quiet = |tenths: usize| quiet_since(&looks[..=tenths], looks[tenths].0);
        assert_eq!([quiet(0), quiet(9), quiet(10), quiet(14)], [None; 4]);
        assert_eq!(quiet(15), Some(looks[5].0));
        let since = quiet_from(std::process::id(), Duration::ZERO);
        assert!(since.unwrap_err().contains("has not settled"));
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn is_running(pid: u32) -> bool {
        // A dead child that nobody has waited for is still listed, as `Z`.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    #[test]
    fn a_process_that_ends_early_is_told_with_its_output() {
        let folder = scratch("early");
        let guard = Guard::start().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo because; exit 3"]);
        let mut process = Process::start("it", command, &folder.join("out"), &guard).unwrap();
        assert!(process.wait(Instant::now() + Duration::from_secs(20)).is_some());
        let told = process.check().unwrap_err();
        assert!(
            told.contains("it ended with exit status: 3") && told.contains("because"),
            "{told}"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_stopped_process_is_gone() {
        let folder = scratch("stopped");
        let guard = Guard::start().unwrap();
        let mut command = Command::new("sleep");
        command.arg("100");
        let mut process = Process::start("sleep", command, &folder.join("out"), &guard).unwrap();
        assert!(process.check().is_ok());
        assert!(is_running(process.id()));
        process.stop();
        assert!(!is_running(process.id()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_killed_process_is_gone_and_one_that_ends_badly_is_told() {
        let folder = scratch("killed");
        let guard = Guard::start().unwrap();
        // A shell that has not set its trap yet would die of the signal.
        let start = |name: &str, trap: &str| {
            let mut command = Command::new("sh");
            let script = format!("trap '{trap}' TERM; echo set; while :; do sleep 0.05; done");
            command.args(["-c", &script]);
            let output = folder.join(name);
            let process = Process::start("it", command, &output, &guard).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while tail(&output) != "set" && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
            process
        };
        let mut killed = start("killed", "");
        killed.kill();
        assert!(!is_running(killed.id()));
        let (mut good, mut bad) = (start("good", "exit 0"), start("bad", "exit 3"));
        assert_eq!(good.end(Duration::from_secs(20)), Ok(()));
        let told = bad.end(Duration::from_secs(20)).unwrap_err();
        assert!(told.contains("exit status: 3"), "{told}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_guard_ends_what_is_left_and_removes_its_folder() {
        let folder = scratch("guard");
        let guard = Guard::start().unwrap();
        guard.folder(&folder);
        let mut left = Command::new("sleep").arg("100").spawn().unwrap();
        let mut kept = Command::new("sleep").arg("100").spawn().unwrap();
        guard.tell(&format!("pid {}", left.id()));
        guard.tell(&format!("pid {}", kept.id()));
        guard.tell(&format!("end {}", kept.id()));
        // The end of the pipe is what it sees of our own end. It waits for what
        // it has signalled, so somebody has to take the dead child away.
        let waiter = std::thread::spawn(move || left.wait().unwrap());
        drop(guard);
        assert!(!waiter.join().unwrap().success());
        assert!(is_running(kept.id()));
        assert!(!folder.exists());
        kept.kill().unwrap();
        kept.wait().unwrap();
    }
}
