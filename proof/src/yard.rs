//! A folder with a configuration, its data, and every process that runs on it.
//! All of them end with the yard, by their ids, whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use botmaster::settings::write_new_token_file;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::api::Api;
use crate::{Fault, runs, within};

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Every process of a yard has this in its environment, with the yard's path.
const MARK: &str = "BOTMASTER_YARD";
/// Arms crash points, see `botmaster::faults::crash_point`.
const CRASH: &str = "BOTMASTER_CRASH_POINT";
/// Where those who die at a crash point leave a note.
const NOTES: &str = "BOTMASTER_CRASH_NOTES";

/// One process of the program.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it says goes to the end of `log`.
    fn start(command: &mut Command, log: &Path) -> Result<Self, Fault> {
        let told = |error: std::io::Error| format!("{}: {error}", log.display());
        let file = fs::OpenOptions::new().create(true).append(true).open(log).map_err(told)?;
        let twin = file.try_clone().map_err(told)?;
        let child = command.stdin(Stdio::null()).stdout(twin).stderr(file).spawn();
        Ok(Self { child: child.map_err(|error| format!("the program cannot start: {error}"))? })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal. One that has ended hears nothing.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.pid(), signal);
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// As `kill -9` does it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends everything that has the yard's mark once its input ends: when the
/// yard's owner died without a word. It is no part of the owner's process
/// group, so that what ends that does not end it.
const WATCH: &str = r#"cat > /dev/null
for round in 1 2 3 4 5; do
  for entry in /proc/[0-9]*; do
    if grep -qszF "$1" "$entry/environ"; then kill -9 "${entry#/proc/}" 2> /dev/null; fi
  done
  sleep 0.1
done
rm -rf "$2"
"#;

/// How a start of the master came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// It serves.
    Serves,
    /// It ended before that.
    Ended(ExitStatus),
}

/// Whether a process ended by `kill -9`.
#[must_use]
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}

/// A folder with a configuration, its data, and everything that runs on it.
pub struct Yard {
    dir: tempfile::TempDir,
    program: PathBuf,
    /// The master, when one was started.
    pub master: Option<Process>,
    /// Masters started so far.
    pub lives: u32,
    at: Option<(SocketAddr, SocketAddr)>,
    /// The worker programs by their names.
    pub workers: BTreeMap<String, Process>,
    slots: BTreeMap<String, u32>,
    armed: BTreeMap<String, String>,
    watch: Option<Child>,
}

impl Yard {
    /// An empty one, for this build of the program.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(program: &Path) -> Result<Self, Fault> {
        let dir = tempfile::Builder::new()
            .prefix("botmaster-proof-")
            .tempdir()
            .map_err(|error| format!("no temporary folder can be made: {error}"))?;
        let mut yard = Self {
            dir,
            program: program.to_path_buf(),
            master: None,
            lives: 0,
            at: None,
            workers: BTreeMap::new(),
            slots: BTreeMap::new(),
            armed: BTreeMap::new(),
            watch: None,
        };
        for folder in ["runs", "notes"] {
            fs::create_dir_all(yard.path(folder)).map_err(|error| error.to_string())?;
        }
        yard.write("step.sh", runs::SCRIPT)?;
        let watch = Command::new("sh")
            .args(["-c", WATCH, "watch"])
            .arg(format!("{MARK}={}", yard.dir.path().display()))
            .arg(yard.dir.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        yard.watch = Some(watch.map_err(|error| format!("`sh` cannot be started: {error}"))?);
        Ok(yard)
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), Fault> {
        let path = self.path(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Writes the configuration. `@DIR@` becomes the yard's path.
    ///
    /// # Errors
    /// When it or a worker's token cannot be written.
    pub fn configure(&self, config: &str) -> Result<(), Fault> {
        let text = config.replace("@DIR@", &self.dir.path().display().to_string());
        for part in text.split("[[worker]]\nname = \"").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            let path = self.token_file(name);
            if !path.exists() {
                write_new_token_file(&path, name)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        self.write("x.toml", &text)
    }

    fn token_file(&self, worker: &str) -> PathBuf {
        self.path(&format!("data/tokens/{worker}.token"))
    }

    /// The program in this yard, free of the environment's wishes.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.dir.path())
            .env_remove("BOTMASTER_CONFIG")
            .env_remove("BOTMASTER_URL")
            .env_remove("NOTIFY_SOCKET")
            .env_remove(CRASH)
            .env(NOTES, self.path("notes"))
            .env("BOTMASTER_LOG", "info")
            .env(MARK, self.dir.path());
        command
    }

    /// Whether somebody has died at this crash point.
    #[must_use]
    pub fn was_reached(&self, point: &str) -> bool {
        let name = point.split(':').next().unwrap_or(point);
        self.path("notes").join(name).exists()
    }

    /// From now on nobody dies at this crash point.
    pub fn disarm(&self, point: &str) {
        let name = point.split(':').next().unwrap_or(point);
        // A note that is there already says the same.
        let _ = fs::write(self.path("notes").join(name), "");
    }

    /// Starts a master, on the ports of the one before, with these crash
    /// points armed. Returns when it serves, or has ended.
    ///
    /// # Errors
    /// When it does neither in time.
    pub fn start_master(&mut self, armed: Option<&str>) -> Result<Start, Fault> {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let start = self.try_start(armed)?;
            let Start::Ended(status) = start else { return Ok(start) };
            // Somebody's outgoing connection may have the port for a moment.
            let log = fs::read_to_string(self.path("master.log")).unwrap_or_default();
            let last = log.lines().rev().take(5);
            let busy = last.filter(|line| line.contains("cannot listen")).count() > 0;
            if was_killed(status) || !busy || std::time::Instant::now() > end {
                return Ok(start);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn try_start(&mut self, armed: Option<&str>) -> Result<Start, Fault> {
        self.master = None;
        let files = [self.path("data/http.addr"), self.path("data/listen.addr")];
        for old in &files {
            // There is none yet at the first start.
            let _ = fs::remove_file(old);
        }
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (http, listen) = self.at.unwrap_or((free, free));
        let mut command = self.command();
        command.args(["master", "--config", "x.toml", "--http", &http.to_string()]);
        command.args(["--listen", &listen.to_string()]);
        if let Some(armed) = armed {
            command.env(CRASH, armed);
        }
        let mut process = Process::start(&mut command, &self.path("master.log"))?;
        self.lives += 1;
        let read = |path: &Path| -> Option<SocketAddr> {
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let found = within(PATIENCE, || match process.ended() {
            Some(status) => Some(Err(status)),
            None => Some(Ok((read(&files[0])?, read(&files[1])?))),
        });
        self.master = Some(process);
        match found {
            Some(Ok(at)) => {
                self.at = Some(at);
                Ok(Start::Serves)
            }
            Some(Err(status)) => Ok(Start::Ended(status)),
            None => Err(format!("the master neither serves nor ends within {PATIENCE:?}")),
        }
    }

    /// How the master ended, when it has.
    pub fn master_ended(&mut self) -> Option<ExitStatus> {
        self.master.as_mut().and_then(Process::ended)
    }

    /// The way to its API. It is the same for all its lives.
    ///
    /// # Errors
    /// When no master has served yet.
    pub fn api(&self) -> Result<Api, Fault> {
        let (http, _) = self.at.ok_or("no master has served yet")?;
        Ok(Api::new(http))
    }

    /// Starts a worker program, with crash points of its own armed.
    ///
    /// # Errors
    /// When no master has served yet, or the program cannot be started.
    pub fn start_worker(
        &mut self,
        name: &str,
        max_builds: u32,
        armed: Option<&str>,
    ) -> Result<(), Fault> {
        let (_, listen) = self.at.ok_or("no master has served yet")?;
        // The one before must have ended: it has the folder.
        self.workers.remove(name);
        let mut command = self.command();
        command
            .args(["worker", "--master", &listen.to_string(), "--name", name])
            .args(["--max-builds", &max_builds.to_string()])
            .arg("--token-file")
            .arg(self.token_file(name))
            .arg("--dir")
            .arg(self.path(&format!("workers/{name}")));
        if let Some(armed) = armed {
            command.env(CRASH, armed);
            self.armed.insert(name.to_owned(), armed.to_owned());
        }
        let log = self.path(&format!("worker-{name}.log"));
        self.workers.insert(name.to_owned(), Process::start(&mut command, &log)?);
        self.slots.insert(name.to_owned(), max_builds);
        Ok(())
    }

    /// How many builds each worker may have.
    #[must_use]
    pub fn slots(&self) -> &BTreeMap<String, u32> {
        &self.slots
    }

    /// Starts those worker programs again that have ended, with what was armed
    /// in them: nobody dies twice at a point.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn restart_ended_workers(&mut self) -> Result<(), Fault> {
        let ended: Vec<String> = self
            .workers
            .iter_mut()
            .filter_map(|(name, process)| process.ended().map(|_| name.clone()))
            .collect();
        for name in ended {
            let slots = self.slots.get(&name).copied().unwrap_or(1);
            let armed = self.armed.get(&name).cloned();
            self.start_worker(&name, slots, armed.as_deref())?;
        }
        Ok(())
    }

    /// Ends the master and the worker programs as a person would, and says
    /// what did not end well.
    pub fn stop(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        // Those first: they may have to be told that they are rid of a build.
        for worker in self.workers.values() {
            worker.signal(Signal::SIGTERM);
        }
        for (name, worker) in &mut self.workers {
            match within(PATIENCE, || worker.ended()) {
                Some(status) if status.code() == Some(0) => {}
                Some(status) => faults.push(format!("I20: worker {name} ended with {status}")),
                None => faults.push(format!("I6: worker {name} did not end after SIGTERM")),
            }
        }
        self.workers.clear();
        if let Some(mut master) = self.master.take() {
            master.signal(Signal::SIGTERM);
            match within(PATIENCE, || master.ended()) {
                Some(status) if status.code() == Some(0) => {}
                Some(status) => faults.push(format!("I20: the master ended with {status}")),
                None => faults.push("I20: the master did not end after SIGTERM".into()),
            }
        }
        let gone = || self.processes().is_empty().then_some(());
        if within(Duration::from_secs(10), gone).is_none() {
            for (pid, line) in self.processes() {
                faults.push(format!("I15: process {pid} is left: {line}"));
            }
        }
        faults
    }

    /// Processes that have this yard's mark, with their command lines. Zombies
    /// do not count.
    #[must_use]
    pub fn processes(&self) -> Vec<(i32, String)> {
        let mark = format!("{MARK}={}\0", self.dir.path().display());
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let marked = environ.windows(mark.len()).any(|part| part == mark.as_bytes());
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|_| marked)?;
            Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .filter(|(_, line)| !line.is_empty())
        .collect()
    }

    /// Processes of the program that are neither the master nor a worker
    /// program that was started here: those that keep builds for one.
    #[must_use]
    pub fn keepers(&self) -> Vec<i32> {
        let own = self.workers.values().chain(&self.master);
        let known: BTreeSet<i32> = own.map(|process| process.pid().as_raw()).collect();
        let all = self.processes().into_iter().map(|(pid, _)| pid);
        all.filter(|pid| !known.contains(pid) && self.is_program(*pid)).collect()
    }

    /// Whether this process runs the program.
    #[must_use]
    pub fn is_program(&self, pid: i32) -> bool {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == self.program)
    }

    /// The last lines that each process wrote, for a look at what went wrong.
    #[must_use]
    pub fn last_words(&self, lines: usize) -> String {
        let mut told = String::new();
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "log") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let all: Vec<&str> = text.lines().collect();
                let last = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
                told += &format!("--- {}\n{}\n", path.display(), last.join("\n"));
            }
        }
        told
    }

    /// Leaves the folder for a look, and says where it is.
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_path_buf()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if let Some(mut watch) = self.watch.take() {
            let _ = watch.kill();
            let _ = watch.wait();
        }
        self.master = None;
        self.workers.clear();
        // Builds of killed workers, instances, and whatever they started
        // meanwhile.
        for _ in 0..50 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for (pid, _) in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
