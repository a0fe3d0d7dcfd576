//! A workshop for real processes: runs one command through the process layer
//! and keeps all it told.

use std::path::Path;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use botmaster::worker::agent::{Ended, Event};
use botmaster::worker::process::{Handle, Job, Kill, start};
use tokio::sync::mpsc;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Shop {
    pub dir: tempfile::TempDir,
    pub instance: String,
}

/// A command under way.
pub struct Bench {
    pub handle: Handle,
    events: mpsc::Receiver<Event>,
    pub output: Vec<u8>,
    /// Channel, length and arrival of each piece.
    pub pieces: Vec<(char, usize, u64)>,
    pub started: bool,
}

impl Shop {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let instance = format!("test-{}", uuid::Uuid::now_v7().simple());
        Self { dir, instance }
    }

    pub fn begin(&self, work: Work, allowed: u64) -> Bench {
        let (sender, events) = mpsc::channel(16);
        let job = Job {
            build: BuildId(1),
            command: "c-1-0".into(),
            dir: self.dir.path().to_owned(),
            folder: "a".into(),
            work,
            allowed,
            instance: self.instance.clone(),
            kill_time: Duration::from_millis(500),
        };
        let handle = start(job, sender);
        Bench { handle, events, output: Vec::new(), pieces: Vec::new(), started: false }
    }

    pub async fn run(&self, work: Work) -> (Ended, Bench) {
        let mut bench = self.begin(work, u64::MAX);
        let ended = bench.finish().await;
        (ended, bench)
    }

    pub async fn sh(&self, line: &str) -> (Ended, Bench) {
        self.run(shell(line)).await
    }

    /// The folder in which steps work.
    pub fn workdir(&self) -> std::path::PathBuf {
        self.dir.path().join("a/build")
    }
}

impl Bench {
    /// Takes in one event; the end when it was that.
    pub async fn step(&mut self) -> Option<Ended> {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        match event.expect("an event in time").expect("an end before the silence") {
            Event::Started { .. } => self.started = true,
            Event::Output { ch, bytes, at, .. } => {
                assert!(self.started, "output comes after the start");
                self.output.extend_from_slice(&bytes);
                self.pieces.push((ch, bytes.len(), at));
            }
            Event::Ended { ended, .. } => return Some(ended),
            other => panic!("{other:?}"),
        }
        None
    }

    pub async fn finish(&mut self) -> Ended {
        loop {
            if let Some(ended) = self.step().await {
                return ended;
            }
        }
    }

    /// Waits until the output holds `text`.
    pub async fn wait_for(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.step().await.is_none(), "ended too early: {}", self.text());
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }

    pub fn kill(&self, reason: &str) {
        self.handle.kill(Kill { grace: Duration::from_millis(500), reason: reason.into() });
    }
}

pub fn shell(line: &str) -> Work {
    Work::Shell(ShellArgs { shell: Some(line.into()), ..ShellArgs::default() })
}

pub fn argv(words: &[&str]) -> Work {
    let argv = words.iter().map(|&word| word.to_owned()).collect();
    Work::Shell(ShellArgs { argv: Some(argv), ..ShellArgs::default() })
}

/// Whether a process of this number lives; a zombie does not.
pub fn lives(pid: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// Waits until the process is gone.
pub async fn gone(pid: &str) {
    let until = Instant::now() + PATIENCE;
    while lives(pid) {
        assert!(Instant::now() < until, "process {pid} still lives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
