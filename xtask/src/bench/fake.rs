//! A master for the tests of the workloads: a script that stays there as the
//! process, and a thread that answers for it. It completes whatever it is asked
//! to build at once, or never.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::master::Programs;
use super::proc::Guard;
use super::registry::Ground;
use super::{dispatch, throughput};

/// Stands for both programs: as the master it says where it can be reached, as
/// a worker it is only there.
const SCRIPT: &str = r#"#!/bin/sh
if [ "$1" = master ]; then
  while [ "$1" != --data-dir ]; do shift; done
  echo ADDRESS > "$2/http.addr"
  echo ADDRESS > "$2/listen.addr"
fi
exec sleep 100
"#;

#[derive(Default)]
struct State {
    builds: u64,
    result: i64,
    listeners: Vec<TcpStream>,
    bodies: Vec<Value>,
}

struct Fake {
    folder: PathBuf,
    ground: Ground,
    state: Arc<Mutex<State>>,
}

impl Fake {
    fn start(name: &str, result: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { result, ..State::default() }));
        let shared = Arc::clone(&state);
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        let folder = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = write_script(&folder.join("botmaster"), address);
        let system = "fake-1".to_owned();
        let programs = Programs { botmaster: program.clone(), load_workers: program, system };
        let guard = Guard::start().unwrap();
        let ground = Ground { programs, guard, keep: false, quick: true };
        Self { folder, ground, state }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A program that another thread may be starting must not be open for writing
/// in this process, so another process writes it.
fn write_script(path: &std::path::Path, address: SocketAddr) -> PathBuf {
    let text = SCRIPT.replace("ADDRESS", &address.to_string());
    let status = Command::new("sh")
        .args(["-c", "printf %s \"$1\" > \"$0\" && chmod +x \"$0\""])
        .arg(path)
        .arg(text)
        .status();
    assert!(status.unwrap().success());
    path.to_owned()
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let path = first.split(' ').nth(1).unwrap();
        let stream = reader.get_mut();
        if path.starts_with("/sse/") {
            assert_eq!(path, "/sse/listen/buildrequests/*/complete");
            let copy = stream.try_clone().unwrap();
            // Who has seen the handshake is on the list.
            let mut state = state.lock().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nevent: handshake\ndata: 1\n\n").unwrap();
            state.listeners.push(copy);
            return;
        }
        let answer = answer(path, &body, &mut state.lock().unwrap()).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).unwrap();
    }
}

fn answer(path: &str, body: &[u8], state: &mut State) -> Value {
    match path {
        "/api/v2/masters" => json!({}),
        "/api/v2/workers" => {
            json!({ "workers": vec![json!({ "connected_to": [{ "masterid": 1 }] }); 50] })
        }
        "/api/v2/builds?limit=1&order=-buildid" => json!({
            "builds": [{ "results": 0 }], "meta": { "total": state.builds },
        }),
        "/api/v2/forceschedulers/force" => {
            let body: Value = serde_json::from_slice(body).unwrap();
            let requests = body.pointer("/params/requests").and_then(Value::as_array);
            let result = requests.map_or(json!([1, {}]), |list| json!(vec![1; list.len()]));
            for _ in 0..requests.map_or(1, Vec::len) {
                state.builds += 1;
                let event = json!({
                    "key": ["buildrequests", state.builds.to_string(), "complete"],
                    "message": { "results": state.result },
                });
                for listener in &mut state.listeners {
                    write!(listener, "event: event\ndata: {event}\n\n").unwrap();
                }
            }
            state.bodies.push(body);
            json!({ "id": 1, "jsonrpc": "2.0", "result": result })
        }
        other => panic!("{other} was asked for"),
    }
}

const KEYS: [&str; 7] = [
    "p50_ms",
    "p99_ms",
    "mean_ms",
    "max_ms",
    "builds_per_s",
    "master_cpu_s_per_build",
    "master_peak_rss_mb",
];

#[test]
fn dispatch_measures_one_build_after_the_other() {
    let fake = Fake::start("dispatch", 0);
    let found = dispatch::measure(&fake.ground, 5).unwrap().remove(0);
    assert_eq!(
        (found.system.as_str(), found.workload.as_str(), found.n),
        ("fake-1", "dispatch", 5)
    );
    for key in KEYS {
        assert!(found.metric(key).is_some(), "{key}");
    }
    let state = fake.state.lock().unwrap();
    assert_eq!(state.builds, 15);
    assert_eq!(
        state.bodies[0],
        json!({ "id": 1, "jsonrpc": "2.0", "method": "force",
                "params": { "builderNames": ["b00000"], "owner": "bench" } })
    );
}

#[test]
fn a_build_that_fails_is_no_measurement() {
    let fake = Fake::start("failing", 2);
    let problem = dispatch::measure(&fake.ground, 5).unwrap_err();
    assert_eq!(problem, "build 1 did not end with success");
}

#[test]
fn throughput_submits_in_bulk_and_counts_the_ends() {
    let fake = Fake::start("throughput", 0);
    let found = throughput::measure(&fake.ground, 6_000).unwrap().remove(0);
    assert_eq!(found.metric("done"), Some(6_000.0));
    assert_eq!(found.metric("not_success"), Some(0.0));
    assert!(found.metric("wall_s").is_some());
    let state = fake.state.lock().unwrap();
    let sizes: Vec<usize> = state
        .bodies
        .iter()
        .map(|body| body["params"]["requests"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [50, 5_000, 1_000]);
    let request = &state.bodies[2]["params"]["requests"][999];
    assert_eq!(*request, json!({ "builderNames": ["b00019"], "properties": { "token": "5999" } }));
}
