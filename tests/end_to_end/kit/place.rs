//! A folder with a configuration, its data, and everything that runs on it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use botmaster::settings::write_new_token_file;

use super::{Master, Process, Ran, TIMERS, is_alive, run, until};

/// A temporary folder with `x.toml` in it. On a failure it tells the last
/// words of all its processes.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A place with this configuration below the usual timers.
    pub fn new(config: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.configure(config);
        place
    }

    /// Writes the configuration anew. `@DIR@` becomes the place's path.
    pub fn configure(&self, config: &str) {
        self.configure_all(&format!("{TIMERS}{config}"));
    }

    /// The same with other timers.
    pub fn configure_all(&self, config: &str) {
        let text = config.replace("@DIR@", &self.dir.path().display().to_string());
        for name in text.split("[[worker]]\nname = \"").skip(1) {
            self.token(name.split('"').next().unwrap());
        }
        fs::write(self.path("x.toml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The worker's token, made when there is none yet.
    pub fn token(&self, worker: &str) -> String {
        let path = self.token_file(worker);
        if !path.exists() {
            write_new_token_file(&path, worker).unwrap();
        }
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    pub fn token_file(&self, worker: &str) -> PathBuf {
        self.path(&format!("data/tokens/{worker}.token"))
    }

    /// Opens a gate, see `counting`.
    pub fn open(&self, gate: &str) {
        fs::write(self.path(gate), "").unwrap();
    }

    /// Takes a file away, if it is there.
    pub fn gone(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
    }

    /// Waits until a step has written this file, and reads it.
    #[track_caller]
    pub fn written(&self, name: &str) -> String {
        let path = self.path(name);
        until(&format!("{name} is written"), || {
            fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))
        })
    }

    /// The program in this place, free of the environment's wishes.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_botmaster"));
        self.prepare(&mut command);
        command
    }

    /// Makes any command run in this place.
    pub fn prepare(&self, command: &mut Command) {
        command
            .current_dir(self.dir.path())
            .env_remove("BOTMASTER_CONFIG")
            .env_remove("BOTMASTER_URL")
            .env_remove("NOTIFY_SOCKET")
            .env("BOTMASTER_LOG", "info")
            // A person's git settings are no part of a story.
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
    }

    /// Arguments of a master in this place.
    pub fn master_command(&self, http: SocketAddr, listen: SocketAddr) -> Command {
        let mut command = self.program();
        command.args(["master", "--config", "x.toml", "--http", &http.to_string()]);
        command.args(["--listen", &listen.to_string()]);
        command
    }

    /// A master that serves.
    #[track_caller]
    pub fn master(&self) -> Master<'_> {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        self.master_at(free, free)
    }

    /// A master at these addresses.
    #[track_caller]
    pub fn master_at(&self, http: SocketAddr, listen: SocketAddr) -> Master<'_> {
        self.master_told(http, listen, &[])
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn master_told(&self, http: SocketAddr, listen: SocketAddr, more: &[&str]) -> Master<'_> {
        let (first, second) = (self.path("data/http.addr"), self.path("data/listen.addr"));
        for old in [&first, &second] {
            // There is none yet at the first start.
            let _ = fs::remove_file(old);
        }
        let mut command = self.master_command(http, listen);
        let mut process = Process::start(command.args(more), &self.path("master.log"));
        let read = |path: &Path| -> Option<SocketAddr> {
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let addresses = until("the master serves", || {
            assert!(process.has_ended().is_none(), "the master ended at its start");
            Some((read(&first)?, read(&second)?))
        });
        Master::new(self, process, addresses)
    }

    /// A worker program; its folder is `workers/NAME`.
    pub fn worker(&self, listen: SocketAddr, name: &str, max_builds: u32) -> Process {
        let mut command = self.program();
        command
            .args(["worker", "--master", &listen.to_string(), "--name", name])
            .args(["--max-builds", &max_builds.to_string(), "--stop-with-stdin"])
            .arg("--token-file")
            .arg(self.token_file(name))
            .arg("--dir")
            .arg(self.path(&format!("workers/{name}")));
        Process::start(&mut command, &self.path(&format!("worker-{name}.log")))
    }

    /// The keepers of a worker's builds: processes that outlive its program. Those
    /// without a build, which do not, are left out: they work elsewhere.
    pub fn keepers(&self, name: &str) -> Vec<i32> {
        let lock = self.path(&format!("workers/{name}/.botmaster-lock"));
        let end = format!("@{}", fs::read_to_string(lock).unwrap().trim());
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let environ = fs::read(entry.path().join("environ")).ok()?;
            let is_one = String::from_utf8_lossy(&environ)
                .split('\0')
                .any(|one| one.starts_with("BOTMASTER_KEEPER=") && one.ends_with(&end));
            let folder = fs::read_link(entry.path().join("cwd")).ok()?;
            let keeps = folder.parent().is_some_and(|all| all.ends_with(".botmaster/builds"));
            (is_one && keeps && is_alive(pid)).then_some(pid)
        })
        .collect()
    }

    /// Runs a command line to its end.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Ran {
        run(self.program().args(args))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "log") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last = lines.len().saturating_sub(60);
                eprintln!("--- {}", path.display());
                eprintln!("{}", lines.get(last..).unwrap_or_default().join("\n"));
            }
        }
    }
}
