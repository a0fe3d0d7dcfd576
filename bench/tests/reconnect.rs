//! Very many workers that come back at the same moment (row FA12): a master's
//! restart, with the load process as its workers. `FA12_WORKERS=10000` plays it
//! as large as the row says.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use botmaster::app::{MasterOptions, RunningMaster, start_master};
use botmaster::settings::{Overrides, load_with, write_new_token_file};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Within this all of them must be attached.
const LIMIT: Duration = Duration::from_secs(60);
/// Seconds between heartbeats.
const HEARTBEAT_S: u64 = 4;

fn serve(folder: &Path, at: Option<(SocketAddr, SocketAddr)>) -> RunningMaster {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let (http, listen) = at.unwrap_or((free, free));
    let overrides = Overrides {
        data_dir: Some(folder.join("data")),
        http: Some(http),
        listen: Some(listen),
        ui_dir: None,
    };
    let loaded = match load_with(&folder.join("x.toml"), &overrides) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems:?}"),
    };
    start_master(MasterOptions { loaded, overrides, opening: Default::default() }).unwrap()
}

fn stop(mut master: RunningMaster) {
    (master.stop)(Duration::ZERO);
    master.ended.blocking_recv().unwrap().unwrap();
}

fn board(http: SocketAddr) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = format!(
        "GET /api/v2/botmaster/board HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.retain(|letter| !letter.is_whitespace());
    text
}

fn connected(http: SocketAddr) -> usize {
    board(http).matches("\"connected\":true").count()
}

/// How many workers are in each incarnation, among those that are there.
fn in_incarnation(http: SocketAddr, number: u32) -> usize {
    let board = board(http);
    [",", "}"]
        .iter()
        .map(|end| board.matches(&format!("\"incarnation\":{number}{end}")).count())
        .sum()
}

/// Waits until all are there; how long that took.
fn all_come(http: SocketAddr, count: usize) -> Duration {
    let begun = Instant::now();
    loop {
        let there = connected(http);
        if there == count {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LIMIT, "only {there} of {count} have come after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn fa12_i19_all_workers_reconnect_at_the_same_moment() {
    let count = std::env::var("FA12_WORKERS").map_or(1000, |text| text.parse::<usize>().unwrap());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(hard > count as u64 * 4 / 3 + 200, "the limit of open files is {hard}: raise it");
    let folder = tempfile::tempdir().unwrap();
    let mut config = format!(
        "[timers]\nheartbeat = \"{HEARTBEAT_S} s\"\nlease = \"60 s\"\nkill_time = \"1 s\"\ngrace = \"70 s\"\n"
    );
    let mut names = Vec::new();
    for index in 0..count {
        let name = format!("w{index:05}");
        config += &format!("[[worker]]\nname = \"{name}\"\nmax_builds = 1\n");
        write_new_token_file(&folder.path().join(format!("data/tokens/{name}.token")), &name)
            .unwrap();
        names.push(format!("\"{name}\""));
    }
    config += &format!(
        "[[builder]]\nname = \"b\"\nworkers = [{}]\n[[builder.step]]\nname = \"s\"\nshell = \"true\"\n",
        names.join(", ")
    );
    std::fs::write(folder.path().join("x.toml"), config).unwrap();
    let master = serve(folder.path(), None);
    let (http, listen) = (master.http, master.listen);
    let _load = Load(
        Command::new(env!("CARGO_BIN_EXE_load_workers"))
            .args(["--master", &listen.to_string(), "--count", &count.to_string()])
            .args(["--max-seconds", "600", "--tokens"])
            .arg(folder.path().join("data/tokens"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let first = all_come(http, count);
    stop(master);
    let begun = Instant::now();
    let master = serve(folder.path(), Some((http, listen)));
    let served = begun.elapsed();
    let again = all_come(http, count);
    println!(
        "{count} workers: first {first:?}; restart {served:?}, and all are back after {again:?}"
    );
    // Nobody misses a heartbeat meanwhile or comes a third time.
    let end = Instant::now() + 4 * Duration::from_secs(HEARTBEAT_S);
    while Instant::now() < end {
        assert_eq!(connected(http), count);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(in_incarnation(http, 2), count, "each came exactly once more");
    stop(master);
}
