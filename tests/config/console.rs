//! The console of `up`, against a master that answers from a script.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use botmaster::cli::{Console, PlainScreen, Progress, Screen, WatchError, watch_build};
use botmaster::core::values::BuildResult;
use serde_json::{Value, json};

/// Answers of one path in turn; the last one is repeated.
type Script = BTreeMap<&'static str, Vec<(u16, Value)>>;

struct FakeMaster {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeMaster {
    fn new(mut script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end) = (asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut length = 0;
                loop {
                    let mut header = String::new();
                    reader.read_line(&mut header).unwrap();
                    let header = header.trim().to_lowercase();
                    if header.is_empty() {
                        break;
                    }
                    if let Some(value) = header.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                log.lock().unwrap().push(format!("{path} {}", String::from_utf8(body).unwrap()));
                let short = path.trim_start_matches("/api/v2/");
                let (status, answer) = match script.get_mut(short) {
                    Some(answers) if answers.len() > 1 => answers.remove(0),
                    Some(answers) => answers[0].clone(),
                    None => (404, json!({ "error": format!("no script for {short}") })),
                };
                let answer = answer.to_string();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.len()
                );
                let mut stream = reader.into_inner();
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { address, asked, over, thread: Some(thread) }
    }

    fn console(&self) -> Console {
        let mut console = Console::new(&format!("http://{}/", self.address), "b x");
        console.interval = Duration::from_millis(1);
        console
    }
}

impl Drop for FakeMaster {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn watched(master: &FakeMaster) -> (Result<BuildResult, WatchError>, String) {
    let mut screen = PlainScreen(Vec::new());
    let result = watch_build(&master.console(), &mut screen);
    let text = String::from_utf8(screen.0).unwrap();
    (result, text.replace(&master.address.to_string(), "ADDRESS"))
}

fn build(id: u64, results: Option<i64>) -> Value {
    json!({ "builds": [{
        "buildid": id, "number": id + 4, "workerid": 7, "complete": results.is_some(),
        "results": results, "state_string": "as it is",
    }]})
}

fn step(number: u64, name: &str, results: Option<i64>) -> Value {
    json!({
        "number": number, "name": name, "started_at": 1, "complete": results.is_some(),
        "results": results, "state_string": "'make' exited with 2",
    })
}

fn script() -> Script {
    BTreeMap::from([
        (
            "forceschedulers/force",
            vec![(200, json!({ "jsonrpc": "2.0", "id": 1, "result": [3, { "1": 9 }] }))],
        ),
        (
            "buildrequests/9",
            vec![(200, json!({ "buildrequests": [{ "complete": false, "results": -1 }] }))],
        ),
        (
            "buildrequests/9/builds",
            vec![(200, json!({ "builds": [] })), (503, json!({})), (200, build(1, None))],
        ),
        ("workers/7", vec![(200, json!({ "workers": [{ "workerid": 7, "name": "local" }] }))]),
    ])
}

/// Times differ from run to run.
fn without_times(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let times: Vec<String> = words
            .iter()
            .map(|word| {
                if word.parse::<f64>().is_ok() && word.contains('.') { "T" } else { word }
                    .to_owned()
            })
            .collect();
        kept.push_str(&times.join(" "));
        kept.push('\n');
    }
    kept
}

#[test]
fn a_good_build_is_told_line_by_line() {
    let mut script = script();
    script.insert(
        "builds/1",
        vec![(200, build(1, None)), (200, build(1, None)), (200, build(1, Some(0)))],
    );
    script.insert(
        "builds/1/steps",
        vec![
            (200, json!({ "steps": [] })),
            (200, json!({ "steps": [step(0, "checkout", None)] })),
            (200, json!({ "steps": [step(0, "checkout", Some(0)), step(1, "test", Some(0))] })),
        ],
    );
    let master = FakeMaster::new(script);
    let (result, text) = watched(&master);
    assert_eq!(result.unwrap(), BuildResult::Success);
    assert_eq!(
        without_times(&text),
        "build of b x requested (request 9)\n\
         build b x/5 started on worker local\n\
         \x20 step checkout: started\n\
         \x20 step checkout: success, T s\n\
         \x20 step test: started\n\
         \x20 step test: success, T s\n\
         log: botmaster log 'b x/5'\n\
         look: http://ADDRESS/\n\
         build b x/5: success\n"
    );
    let asked = master.asked.lock().unwrap();
    let (path, body) = asked[0].split_once(' ').unwrap();
    assert_eq!(path, "/api/v2/forceschedulers/force");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["method"], "force");
    assert_eq!(body["params"]["builderNames"], json!(["b x"]));
}

#[test]
fn a_failed_build_shows_the_end_of_the_log_without_its_escapes() {
    let mut script = script();
    script.insert("builds/1", vec![(200, build(1, Some(2)))]);
    let skipped =
        json!({ "number": 2, "name": "late", "started_at": null, "complete": true, "results": 3 });
    script.insert(
        "builds/1/steps",
        vec![(
            200,
            json!({ "steps": [step(0, "fine", Some(0)), step(1, "bad", Some(2)), skipped] }),
        )],
    );
    script.insert(
        "builds/1/steps/1/logs",
        vec![(200, json!({ "logs": [{ "slug": "stdio", "type": "s", "num_lines": 42 }] }))],
    );
    script.insert(
        "builds/1/steps/1/logs/stdio/contents?offset=22&limit=20",
        vec![(
            200,
            json!({ "logchunks": [{ "content": "oone\ne\u{1b}[31mtwo\u{1b}[0m\nhended\n" }] }),
        )],
    );
    let master = FakeMaster::new(script);
    let (result, text) = watched(&master);
    assert_eq!(result.unwrap(), BuildResult::Failure);
    let end = without_times(&text);
    let end = end.split_once("step fine: success, T s\n").unwrap().1;
    assert_eq!(
        end,
        "\x20 step bad: started\n\
         \x20 step bad: failure, T s, 'make' exited with 2\n\
         \x20 step late: skipped\n\
         last lines of step bad:\n\
         \x20 | one\n\
         \x20 | two\n\
         \x20 | ended\n\
         state: as it is\n\
         log: botmaster log 'b x/5'\n\
         look: http://ADDRESS/\n\
         build b x/5: failure\n"
    );
}

#[test]
fn a_build_that_is_tried_again_is_followed_to_its_end() {
    let mut script = script();
    script.insert(
        "buildrequests/9/builds",
        vec![(200, build(1, None)), (200, build(1, Some(5))), (200, build(2, None))],
    );
    script.insert("builds/1", vec![(200, build(1, Some(5)))]);
    script.insert("builds/2", vec![(200, build(2, Some(1)))]);
    for steps in ["builds/1/steps", "builds/2/steps"] {
        script.insert(steps, vec![(200, json!({ "steps": [] }))]);
    }
    let master = FakeMaster::new(script);
    let (result, text) = watched(&master);
    assert_eq!(result.unwrap(), BuildResult::Warnings);
    assert!(
        text.contains("build b x/5: retry; the request waits again\nbuild b x/6 started"),
        "{text}"
    );
    assert!(text.ends_with("build b x/6: warnings\n"), "{text}");
}

#[test]
fn what_keeps_a_build_from_running_is_said() {
    let refused = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32602, "message": "there is no builder named `b x`" } });
    let master = FakeMaster::new(BTreeMap::from([("forceschedulers/force", vec![(404, refused)])]));
    assert_eq!(watched(&master).0.unwrap_err().to_string(), "there is no builder named `b x`");

    let mut cancelled = script();
    cancelled.insert("buildrequests/9/builds", vec![(200, json!({ "builds": [] }))]);
    cancelled.insert(
        "buildrequests/9",
        vec![(200, json!({ "buildrequests": [{ "complete": true, "results": 6 }] }))],
    );
    let master = FakeMaster::new(cancelled);
    assert!(matches!(watched(&master).0, Err(WatchError::Cancelled)));

    let mut idle = script();
    idle.insert("buildrequests/9/builds", vec![(200, json!({ "builds": [] }))]);
    let master = FakeMaster::new(idle);
    let mut console = master.console();
    console.start_limit = Duration::from_millis(20);
    let result = watch_build(&console, &mut PlainScreen(Vec::new()));
    assert!(matches!(result, Err(WatchError::NotStarted(_))), "{result:?}");
    console.stop.store(true, Ordering::SeqCst);
    let result = watch_build(&console, &mut PlainScreen(Vec::new()));
    assert!(matches!(result, Err(WatchError::Stopped)), "{result:?}");
}

#[test]
fn a_master_that_is_not_there_is_said_at_once() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let console = Console::new(&format!("http://{address}"), "b");
    let error = watch_build(&console, &mut PlainScreen(Vec::new())).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("no answer from the master at http://{address}: ")),
        "{error}"
    );
}

/// A screen that wants to know everything.
#[derive(Default)]
struct Curious(Vec<Progress>);

impl Screen for Curious {
    fn line(&mut self, _text: &str) {}
    fn is_live(&self) -> bool {
        true
    }
    fn progress(&mut self, progress: &Progress) {
        self.0.push(progress.clone());
    }
    fn clear(&mut self) {}
}

#[test]
fn a_live_screen_is_told_how_the_build_stands() {
    let mut script = script();
    script.insert("builds/1", vec![(200, build(1, None)), (200, build(1, Some(0)))]);
    script.insert("builds/1/steps", vec![(200, json!({ "steps": [] }))]);
    script.insert(
        "builds/1/progress",
        vec![(
            200,
            json!({ "elapsed_s": 5, "expected_s": 20, "step": "test", "step_elapsed_s": 2, "last_line": "ok", "state": "running" }),
        )],
    );
    let master = FakeMaster::new(script);
    let mut screen = Curious::default();
    assert_eq!(watch_build(&master.console(), &mut screen).unwrap(), BuildResult::Success);
    assert_eq!(screen.0[0].last_line.as_deref(), Some("waiting for a worker"));
    let seconds = Duration::from_secs;
    assert_eq!(
        screen.0.last(),
        Some(&Progress {
            build: "b x/5".into(),
            elapsed: seconds(5),
            expected: Some(seconds(20)),
            step: Some("test".into()),
            step_elapsed: Some(seconds(2)),
            last_line: Some("ok".into()),
        })
    );
}
