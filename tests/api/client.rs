//! The client's commands against the server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use botmaster::core::form::{Field, FieldKind, Form, Layout};
use botmaster::core::ids::BuildId;
use botmaster::messages::{Refusal, ReloadEntry, ReloadReport};
use botmaster::store::Change;
use serde_json::Value;

use crate::support::{World, run_at};

#[test]
fn lists_are_tables_for_people() {
    let world = World::start();
    let (status, out, err) = world.run(&["builds"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("BUILD         RESULT   STARTED"), "{out}");
    assert!(lines[1].starts_with("slow build/1  running"), "{out}");
    assert!(lines[2].starts_with("unit/2        failure"), "{out}");
    assert!(lines[3].contains("-         linux-1  build successful"), "{out}");
    assert!(lines[3].contains("59s"), "{out}");
    let (_, out, _) = world.run(&["builds", "unit", "--limit", "1"]);
    assert_eq!(out.lines().count(), 2);
    assert!(out.contains("unit/2"));

    let (_, out, _) = world.run(&["builders"]);
    assert!(out.contains("slow build  building"), "{out}");
    assert!(out.contains("slow build/1"), "{out}");
    assert!(!out.contains("old"), "{out}");
    let (_, out, _) = world.run(&["workers"]);
    assert!(out.contains("linux-1  attached      1 of 2  0.1"), "{out}");
    assert!(out.contains("away, paused"), "{out}");
    assert!(out.contains("broken disk"), "{out}");
    let (_, out, _) = world.run(&["queue"]);
    assert!(out.lines().nth(1).unwrap().starts_with("14       slow build  5"), "{out}");
}

#[test]
fn json_is_one_value_a_line() {
    let world = World::start();
    for (words, lines) in [
        (&["--json", "builds"][..], 3),
        (&["--json", "builders"], 2),
        (&["--json", "workers"], 2),
        (&["--json", "queue"], 1),
        (&["--json", "build", "unit/1"], 1),
        (&["--json", "log", "unit/1"], 7),
        (&["--json", "force", "unit"], 1),
    ] {
        let (status, out, _) = world.run(words);
        assert_eq!(status, 0, "{words:?}");
        let values: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(values.len(), lines, "{words:?}: {out}");
    }
}

#[test]
fn a_build_is_shown_with_its_steps() {
    let world = World::start();
    let (status, out, _) = world.run(&["build", "unit/1"]);
    assert_eq!(status, 0);
    for text in
        ["Build    unit/1 (id 101)", "success (build successful)", "suite = fast", "checkout"]
    {
        assert!(out.contains(text), "{text}: {out}");
    }
    let (status, _, err) = world.run(&["build", "unit/77"]);
    assert_eq!(status, 2);
    assert!(err.contains("there is no build unit/77"), "{err}");
    let (status, _, err) = world.run(&["build", "unit"]);
    assert_eq!(status, 2);
    assert!(err.contains("BUILDER/NUMBER"), "{err}");
    let (status, _, err) = world.run(&["builds", "nope"]);
    assert_eq!(status, 2);
    assert!(err.contains("`nope`"), "{err}");
}

#[test]
fn logs_are_printed_by_step() {
    let world = World::start();
    let (status, out, _) = world.run(&["log", "unit/1"]);
    assert_eq!(status, 0);
    let expected = "=== step 0 checkout, log stdio\ncloning\noops\ndone <b>\n\
                    === step 1 test, log stdio\nok\n\
                    === step 1 test, log notes\nline one\nline two\n\
                    === step 1 test, log report\n<script>alert(1)</script>\n";
    assert_eq!(out, expected);
    let (_, out, _) = world.run(&["log", "unit/1", "checkout"]);
    assert_eq!(out, "cloning\noops\ndone <b>\n");
    assert_eq!(world.run(&["log", "unit/1", "0"]).1, out);
    let (status, _, err) = world.run(&["log", "unit/1", "nope"]);
    assert_eq!(status, 2);
    assert!(err.contains("step `nope`"), "{err}");
}

/// Waits until the request that `force --wait` waits for can be answered.
fn finish(world: &World, request: u32, result: i64) {
    let sql = "UPDATE requests SET state = 2, complete_at = 1500000000, results = ?1 WHERE id = ?2";
    assert_eq!(world.db.execute(sql, (result, request)).unwrap(), 1);
}

/// The fake master answers request 871 to the first submission.
const REQUEST: &str = "INSERT INTO requests (id, buildset_id, builder_id, priority, submitted_at, \
     state) VALUES (871, 4, 1, 0, 1300000000, 0)";

#[test]
fn force_waits_and_ends_with_the_result() {
    let world = World::start();
    world.db.execute(REQUEST, []).unwrap();
    for (result, exit) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (6, 2)] {
        finish(&world, 871, result);
        let (status, out, err) = world.run(&["force", "unit", "--wait"]);
        assert_eq!(status, exit, "result {result}: {out}{err}");
        assert!(out.contains("build request 871"), "{out}");
    }
    world.db.execute("UPDATE requests SET state = 0, results = NULL WHERE id = 871", []).unwrap();
    let began = Instant::now();
    let (status, _, err) = world.run(&["force", "unit", "--wait", "--timeout", "1"]);
    assert_eq!(status, 2);
    assert!(err.contains("--timeout"), "{err}");
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn force_follows_the_log_until_the_end() {
    let world = World::start();
    world.db.execute(REQUEST, []).unwrap();
    let url = world.url.clone();
    let client = std::thread::spawn(move || run_at(&url, &["force", "unit", "--follow"]));
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.asked.lock().unwrap().submissions.is_empty() {
        assert!(Instant::now() < deadline, "nothing was submitted");
        std::thread::sleep(Duration::from_millis(10));
    }
    let run = |sql: &str| world.db.execute_batch(sql).unwrap();
    run("UPDATE requests SET state = 1 WHERE id = 871;
         INSERT INTO builds (id, claim, builder_id, number, request_id, worker_id, incarnation,
             state, started_at, state_string, factory_digest, properties)
         VALUES (201, 'x', 1, 3, 871, 1, 1, 1, 1400000000, 'building', 'f', '{}');
         INSERT INTO build_requests VALUES (201, 871, 1);
         INSERT INTO steps (id, build_id, number, name, started_at, state_string)
             VALUES (2001, 201, 0, 'test', 1400000000, 'testing');
         INSERT INTO logs (id, step_id, name, slug, kind) VALUES (6001, 2001, 'stdio', 'stdio', 's');");
    world.logs.set(6001, "oone\n");
    world.logs.set(6001, "oone\netwo\n");
    run("UPDATE steps SET complete_at = 1500000000, results = 2 WHERE id = 2001;
         UPDATE logs SET complete = 1 WHERE id = 6001;
         UPDATE builds SET state = 2, complete_at = 1500000000, results = 2,
             state_string = 'failed test' WHERE id = 201;");
    finish(&world, 871, 2);
    let (status, out, err) = client.join().unwrap();
    assert_eq!(status, 1, "{out}{err}");
    let end = "=== step 0 test, log stdio\none\ntwo\n=== failure (failed test)\n\
               build 3: failure (failed test)\n";
    assert!(out.ends_with(end), "{out}");
}

#[test]
fn orders_are_sent_and_refusals_told() {
    let world = World::start();
    for (words, said, told) in [
        (&["cancel", "14"][..], "14", "cancel 14 of slow build: cancelled from the command line"),
        (
            &["stop", "slow build/1"],
            "stopped",
            "stop 103 of slow build: stopped from the command line",
        ),
        (&["pause", "linux-1", "--reason", "disk"], "is paused", "Pause linux-1: disk"),
        (&["unpause", "linux-1"], "takes builds", "Unpause linux-1: no reason"),
        (&["drain", "linux-1"], "leaves", "Drain linux-1: no reason"),
        (&["shutdown", "linux-1"], "ends", "Shutdown linux-1: no reason"),
    ] {
        let (status, out, err) = world.run(words);
        assert_eq!((status, err.as_str()), (0, ""), "{words:?}");
        assert!(out.contains(said), "{out}");
        assert_eq!(world.asked.lock().unwrap().orders.pop().as_deref(), Some(told));
    }
    let (status, out, _) = world.run(&["rebuild", "unit/1"]);
    assert_eq!(
        (status, out.as_str()),
        (0, "build request 871 is queued, to repeat build unit/1\n")
    );
    assert_eq!(world.run(&["ping", "unit"]).0, 1);
    world.asked.lock().unwrap().pong = true;
    assert_eq!(world.run(&["ping", "unit"]).0, 0);

    let words = ["force", "unit", "-p", "suite=a=b", "--branch", "dev", "--priority", "-3"];
    assert_eq!(world.run(&words).0, 0);
    let one = world.asked.lock().unwrap().submissions.pop().unwrap().remove(0);
    assert_eq!(one.properties["suite"].value, "a=b");
    assert_eq!((one.priority, one.sourcestamps[0].branch.as_deref()), (-3, Some("dev")));

    for (words, text) in [
        (&["force", "unti"][..], "did you mean `unit`?"),
        (&["rebuild", "slow build/1"], "has not ended"),
        (&["stop", "unit/99"], "there is no build unit/99"),
        (&["pause", "nope"], "there is no worker named `nope`"),
        (&["cancel", "999"], "there is no build request 999"),
    ] {
        let (status, _, err) = world.run(words);
        assert_eq!(status, 2, "{words:?}");
        assert!(err.starts_with("error: ") && err.contains(text), "{words:?}: {err}");
    }
    world.asked.lock().unwrap().refuse = Some(Refusal::Stopping);
    let (status, _, err) = world.run(&["force", "unit"]);
    assert_eq!(status, 2);
    assert!(err.contains("the master is stopping"), "{err}");
}

#[test]
fn a_plan_and_a_reload_are_reported() {
    let world = World::start();
    let entry = |name: &str, action: &str, differences: &[&str]| ReloadEntry {
        what: "builder".into(),
        name: name.into(),
        action: action.into(),
        differences: differences.iter().map(|&text| text.to_owned()).collect(),
        error: None,
    };
    world.asked.lock().unwrap().report = ReloadReport {
        file: "f.toml".into(),
        took_ms: 1,
        entries: vec![
            entry("unit", "changed", &["steps: 2, was 1"]),
            entry("lint", "unchanged", &[]),
        ],
        problems: Vec::new(),
    };
    let (status, out, _) = world.run(&["plan"]);
    assert_eq!(status, 0);
    assert!(out.contains("changed   builder unit\n            steps: 2, was 1\n"), "{out}");
    assert!(out.contains("1 unchanged. Nothing was changed: this is a plan."), "{out}");
    assert_eq!(world.run(&["reload"]).0, 0);
    assert_eq!(world.asked.lock().unwrap().orders, ["reload dry=true", "reload dry=false"]);
    let (status, out, _) = world.run(&["plan", "next.toml"]);
    assert_eq!(status, 1);
    assert!(out.contains("next.toml:3: builder[0].steps: is empty"), "{out}");
    assert!(out.contains("fix: add a step"), "{out}");
}

#[test]
fn a_missing_master_is_told_with_its_address_and_what_to_do() {
    // The port was free a moment ago, and nobody else takes this one now.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let (status, out, err) = run_at(&format!("http://{address}"), &["builders"]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains(&format!("no master answers at http://{address}")), "{err}");
    assert!(err.contains("start one with `botmaster master` or give --url"), "{err}");
}

#[test]
fn events_are_followed_over_a_connection_that_ends() {
    let world = World::start();
    let url = world.url.clone();
    let client = std::thread::spawn(move || {
        run_at(&url, &["--json", "events", "builds/*/new", "--limit", "3"])
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    let new = |id| {
        let row = botmaster::store::BuildRow { id: BuildId(id), ..crate::stream::build() };
        Change::BuildNew(Arc::new(row))
    };
    // The first ones may come before it listens.
    let mut id = 0;
    while !client.is_finished() {
        assert!(Instant::now() < deadline, "the client does not end");
        id += 1;
        world.events.publish(vec![new(id)]);
        std::thread::sleep(Duration::from_millis(10));
    }
    let (status, out, err) = client.join().unwrap();
    assert_eq!((status, err.as_str()), (0, ""));
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 3);
    for (event, next) in events.iter().zip(&events[1..]) {
        let seq = event["seq"].as_u64().unwrap();
        assert_eq!(next["seq"], seq + 1);
        assert_eq!(event["key"], format!("builds/{}/new", event["message"]["buildid"]));
    }
}

#[test]
fn a_priority_is_changed_and_any_resource_is_read() {
    let world = World::start();
    let (status, out, _) = world.run(&["priority", "14", "-3"]);
    assert_eq!((status, out.as_str()), (0, "build request 14 has the priority -3 now\n"));
    assert_eq!(world.asked.lock().unwrap().orders, ["priority 14 of slow build: -3"]);
    let (status, out, _) = world.run(&["--json", "get", "builds?limit=1&order=-buildid"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &answer["builds"][0]["buildid"]), (0, &Value::from(103)));
    let (status, _, err) = world.run(&["get", "nope"]);
    assert!(status == 2 && err.contains("Invalid path"), "{err}");
}

#[test]
fn why_a_request_waits_is_told_worker_by_worker() {
    let world = World::start();
    let (status, out, err) = world.run(&["why", "14"]);
    assert_eq!((status, err.as_str()), (0, ""));
    for text in [
        "Request  14 for builder slow build, priority 5",
        "Waits    ",
        "Because  it is behind others, or about to start",
        "Ahead    0 of its builder",
        "Starts   ",
        "WORKER   REASON     WHY",
        "mac-1    offline    it is not attached",
    ] {
        assert!(out.contains(text), "{text}: {out}");
    }
    let (_, out, _) = world.run(&["why", "13"]);
    assert!(out.ends_with("State    building: slow build/1\n"), "{out}");
    let (_, out, _) = world.run(&["--json", "why", "14"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&told["state"], &told["ahead"]), (&"waiting".into(), &0.into()));
    let (status, _, err) = world.run(&["why", "99"]);
    assert!(status == 2 && err.contains("there is no build request 99"), "{err}");
}

#[test]
fn schedulers_are_listed_and_switched() {
    let world = World::start();
    world
        .db
        .execute_batch(
            "INSERT INTO schedulers (id, name) VALUES (3, 'force'), (4, 'deploy');
         UPDATE schedulers SET enabled = 0 WHERE id = 4;",
        )
        .unwrap();
    world.board.show_forms(vec![deploy()]);
    let (status, out, _) = world.run(&["schedulers"]);
    assert_eq!(status, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    let deploy = "deploy     off    form  unit              username reason priority";
    assert!(lines[1].starts_with(deploy) && lines[1].ends_with("options_dry jobs"), "{out}");
    assert!(lines[2].starts_with("force      on     form  unit, slow build  "), "{out}");
    for (word, name, order) in
        [("enable", "deploy", "scheduler 4 true"), ("disable", "force", "scheduler 3 false")]
    {
        let (status, out, err) = world.run(&[word, name]);
        assert_eq!((status, err.as_str()), (0, ""));
        assert!(out.contains(&format!("scheduler {name} is switched o")), "{out}");
        assert_eq!(world.asked.lock().unwrap().orders.pop().as_deref(), Some(order));
    }
    let (status, _, err) = world.run(&["enable", "nope"]);
    assert!(status == 2 && err.contains("no scheduler named `nope`; there are: "), "{err}");
}

/// A form with a field that is yes or no, and one that takes several values.
fn deploy() -> Form {
    let field = |name: &str, kind: FieldKind| Field::new(name, name, kind);
    let mut form = Form::for_everything();
    form.name = "deploy".into();
    form.builders = Some(vec!["unit".into()]);
    form.open = false;
    let dry = field("dry", FieldKind::Bool);
    form.fields.push(field("options", FieldKind::Group(Layout::Simple, vec![dry])));
    form.fields.push(Field { multiple: true, ..field("jobs", FieldKind::Text(10)) });
    form
}

#[test]
fn a_form_is_filled_from_the_command_line() {
    let world = World::start();
    world.board.show_forms(vec![deploy()]);
    let form = ["force", "unit", "--form", "deploy", "--priority", "4"];
    let fields = ["-p", "options_dry=yes", "-p", "jobs=a", "-p", "jobs=b"];
    let (status, _, err) = world.run(&[&form[..], &fields[..]].concat());
    assert_eq!((status, err.as_str()), (0, ""));
    let one = world.asked.lock().unwrap().submissions.pop().unwrap().remove(0);
    assert_eq!((one.scheduler.as_str(), one.priority), ("deploy", 4));
    assert_eq!(one.properties["options"].value.json(), &serde_json::json!({"dry": true}));
    assert_eq!(one.properties["jobs"].value.json(), &serde_json::json!(["a", "b"]));
    for (words, text) in [
        (&["-p", "options_dry=maybe"][..], "write options_dry=yes or options_dry=no"),
        (&["-p", "nope=1"], "nope form `deploy` has no such field"),
        (&["--soon"], "--soon goes with the form `force` only"),
    ] {
        let (status, _, err) = world.run(&[&form[..], words].concat());
        assert!(status == 2 && err.contains(text), "{words:?}: {err}");
    }
    let (status, _, err) = world.run(&["force", "unit", "--form", "nope"]);
    assert!(status == 2 && err.contains("there is no form named `nope`"), "{err}");
}

/// Stands between the client and the server: each connection is cut when so
/// many bytes of its answer have passed; none: it is not cut.
struct Cutter {
    url: String,
    cuts: Arc<AtomicUsize>,
}

impl Cutter {
    fn before(
        world: &World,
        mut after: impl FnMut(usize) -> Option<usize> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (server, cuts) = (world.address, Arc::new(AtomicUsize::new(0)));
        let counted = cuts.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(mut client) = client else { return };
                let server = TcpStream::connect(server).unwrap();
                let mut request = [0; 4096];
                // The client's requests have no bodies, and come whole.
                let length = client.read(&mut request).unwrap();
                (&server).write_all(&request[..length]).unwrap();
                let limit = after(counted.load(Ordering::SeqCst)).map_or(u64::MAX, |n| n as u64);
                let _ = std::io::copy(&mut (&server).take(limit), &mut client);
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = server.shutdown(std::net::Shutdown::Both);
                let _ = client.shutdown(std::net::Shutdown::Both);
            }
        });
        Self { url, cuts }
    }
}

/// How many bytes a stream's answer has before its first event.
fn greeting(world: &World) -> usize {
    let mut stream = world.connect();
    let head = format!("GET /sse/listen/x HTTP/1.1\r\nHost: {}\r\n\r\n", world.address);
    stream.write_all(head.as_bytes()).unwrap();
    let mut had = Vec::new();
    while !had.ends_with(b"\nid: 3\n\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        had.push(byte[0]);
    }
    // The end of its chunk.
    had.len() + 2
}

#[test]
fn i11_events_go_on_over_a_connection_that_is_cut_anywhere() {
    let world = World::start();
    const EVENTS: u64 = 500;
    let change = Change::StepStarted(Arc::new(crate::stream::step()));
    world.events.publish(vec![change; EVENTS as usize]);
    // At least one more event passes each time, up to any byte of the next ones.
    let cutter = Cutter::before(&world, |cut| Some(1500 + cut * 7 % 900));
    // Each of them has two keys that match, and so is told twice.
    let limit = (2 * EVENTS).to_string();
    let words = ["--json", "events", "steps/*/*", "--after", "0", "--limit", &limit];
    let (status, out, err) = run_at(&cutter.url, &words);
    assert_eq!((status, err.as_str()), (0, ""));
    let told: Vec<(u64, String)> = out
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            (event["seq"].as_u64().unwrap(), event["key"].as_str().unwrap().to_owned())
        })
        .collect();
    let each = |seq| ["new", "started"].map(|name| (seq, format!("steps/196/{name}")));
    let all: Vec<(u64, String)> = (1..=EVENTS).flat_map(each).collect();
    assert_eq!(told, all, "without a gap or a repeat");
    let cuts = cutter.cuts.load(Ordering::SeqCst);
    assert!(cuts > 100, "{cuts} cuts");
}

#[test]
fn i11_what_happens_while_a_connection_is_cut_before_its_first_event_is_told() {
    let world = World::start();
    let change = Change::StepStarted(Arc::new(crate::stream::step()));
    world.events.publish(vec![change.clone(); 3]);
    // The first connection ends right after its beginning: what happens then
    // happens while nobody listens.
    let (events, mut first, greeting) = (world.events.clone(), true, greeting(&world));
    let cutter = Cutter::before(&world, move |cut| {
        if cut == 1 && std::mem::take(&mut first) {
            events.publish(vec![change.clone(); 2]);
        }
        (cut == 0).then_some(greeting)
    });
    let words = ["--json", "events", "builds/*/steps/*/new", "--limit", "2"];
    let (status, out, err) = run_at(&cutter.url, &words);
    assert_eq!((status, err.as_str()), (0, ""));
    let told: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<&Value> = told.iter().map(|event| &event["seq"]).collect();
    assert_eq!(numbers, [4, 5]);
}
