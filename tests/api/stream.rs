//! The event stream.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::core::values::{BuildResult, Properties, Property, SourceStamp};
use botmaster::events::LISTENER_LIMIT;
use botmaster::store::*;
use serde_json::{Value, json};

use crate::support::{World, read_chunk, read_head, same_shape};

/// One listener of the stream.
struct Listener {
    stream: BufReader<TcpStream>,
    id: String,
    text: String,
}

impl Listener {
    fn open(world: &World, path: &str) -> Self {
        Self::open_with(world, path, "")
    }

    /// Comes back after this event.
    fn again(world: &World, path: &str, last: u64) -> Self {
        Self::open_with(world, path, &format!("Last-Event-ID: {last}\r\n"))
    }

    fn open_with(world: &World, path: &str, header: &str) -> Self {
        let mut stream = world.connect();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{header}\r\n", world.address);
        stream.write_all(head.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let (status, headers) = read_head(&mut stream);
        assert_eq!(status, 200);
        assert_eq!(headers["content-type"], "text/event-stream");
        let first = String::from_utf8(read_chunk(&mut stream).unwrap()).unwrap();
        let rest = first.strip_prefix("event: handshake\ndata: ").unwrap();
        let (id, text) = rest.split_once("\n\n").unwrap();
        assert_eq!(id.len(), 36, "{first}");
        Self { stream, id: id.to_owned(), text: text.to_owned() }
    }

    /// The next block; none at the end of the stream. What only says where the
    /// stream stands is none.
    fn block(&mut self) -> Option<String> {
        loop {
            while self.text.is_empty() {
                self.text = String::from_utf8(read_chunk(&mut self.stream)?).unwrap();
                assert!(self.text.ends_with("\n\n"), "each event is whole in one chunk");
            }
            let (block, rest) = self.text.split_once("\n\n").unwrap();
            let (block, rest) = (block.to_owned(), rest.to_owned());
            self.text = rest;
            if block.contains('\n') || !block.starts_with("id: ") {
                return Some(block);
            }
        }
    }

    /// The next event: its number, its key and its message.
    fn event(&mut self) -> (u64, String, Value) {
        let block = self.block().expect("the stream goes on");
        let lines: Vec<&str> = block.lines().collect();
        let [id, kind, data] = lines.as_slice() else { panic!("{block}") };
        assert_eq!(*kind, "event: event");
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        let key: Vec<&str> =
            data["key"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
        let id = id.strip_prefix("id: ").unwrap();
        // All frames of one event but the last tell which of them they are.
        let id = id.split('.').next().unwrap().parse().unwrap();
        (id, key.join("/"), data["message"].clone())
    }
}

/// The status that a page of this origin is answered with, when it listens.
pub fn listens(world: &World, path: &str, origin: &str) -> u16 {
    let mut stream = world.connect();
    let host = world.address;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    read_head(&mut BufReader::new(stream)).0
}

fn at(seconds: i64) -> WallTime {
    WallTime(seconds * 1_000_000)
}

pub fn build() -> BuildRow {
    let property = |value: &str| Property { value: value.into(), source: "Build".into() };
    let properties =
        Properties::from([("branch".into(), property("main")), ("secret".into(), property("x"))]);
    BuildRow {
        id: BuildId(32),
        number: Some(BuildNumber(8)),
        builder: BuilderId(1),
        request: RequestId(39),
        worker: WorkerId(1),
        incarnation: Incarnation(1),
        state: BuildState::Running,
        started_at: at(100),
        complete_at: None,
        results: None,
        state_string: "building".into(),
        properties: Arc::new(properties),
    }
}

pub fn request() -> RequestRow {
    RequestRow {
        id: RequestId(39),
        buildset: BuildsetId(27),
        builder: BuilderId(1),
        priority: 0,
        submitted_at: at(90),
        state: RequestState::Claimed,
        epoch: Epoch(1),
        claimed_at: Some(at(95)),
        complete_at: None,
        results: None,
        requeued: false,
        infra_tries: 0,
        waited_for: false,
    }
}

fn buildset() -> BuildsetRow {
    BuildsetRow {
        id: BuildsetId(27),
        external_id: None,
        reason: "r".into(),
        scheduler: "force".into(),
        submitted_at: at(90),
        complete_at: None,
        results: None,
        rebuilt_build: None,
        sourcestamps: vec![SourceStampRow {
            id: 1,
            stamp: SourceStamp::default(),
            created_at: at(1),
            patch: None,
        }],
        properties: Arc::default(),
        parent: None,
    }
}

pub fn step() -> StepRow {
    StepRow {
        id: StepId(196),
        build: BuildId(32),
        number: 0,
        name: "test".into(),
        started_at: Some(at(101)),
        complete_at: None,
        results: None,
        state_string: "testing".into(),
        about: StepAbout::default(),
    }
}

pub fn log() -> LogRow {
    LogRow {
        id: LogId(75),
        step: StepId(196),
        name: "stdio".into(),
        slug: "stdio".into(),
        kind: 's',
        complete: false,
        num_lines: 4,
        length: 40,
        incomplete: None,
    }
}

fn worker() -> WorkerRow {
    WorkerRow {
        id: WorkerId(1),
        name: "linux-1".into(),
        configured: true,
        connected: true,
        incarnation: Incarnation(1),
        info: BTreeMap::new(),
        paused: false,
        pause_reason: None,
        graceful: false,
    }
}

fn master(active: bool) -> Arc<MasterRow> {
    Arc::new(MasterRow { name: "host:/srv/ci".into(), active, last_active: at(3) })
}

/// Every kind of change, with the keys that it has.
pub fn catalogue() -> Vec<(Change, Vec<&'static str>)> {
    let finished = BuildRow {
        state: BuildState::Finished,
        complete_at: Some(at(200)),
        results: Some(BuildResult::Success),
        ..build()
    };
    let cancelled = RequestRow {
        state: RequestState::Cancelled,
        complete_at: Some(at(200)),
        results: Some(BuildResult::Cancelled),
        ..request()
    };
    let builds = ["builds/32", "builders/1/builds/8", "workers/1/builds/32"];
    let requests = [
        "buildrequests/39",
        "builders/1/buildrequests/39",
        "buildsets/27/builders/1/buildrequests/39",
    ];
    let steps = ["builds/32/steps/196", "steps/196"];
    let logs = ["logs/75", "steps/196/logs/stdio"];
    let with = |keys: &[&str], name: &str| -> Vec<&'static str> {
        keys.iter().map(|key| &*format!("{key}/{name}").leak()).collect()
    };
    let (r, b, s, l, w) = (
        Arc::new(request()),
        Arc::new(build()),
        Arc::new(step()),
        Arc::new(log()),
        Arc::new(worker()),
    );
    let set = Arc::new(buildset());
    let complete = Arc::new(BuildsetRow {
        complete_at: Some(at(200)),
        results: Some(BuildResult::Success),
        ..buildset()
    });
    let builder = BuilderRow {
        id: BuilderId(1),
        name: "unit".into(),
        description: None,
        tags: Vec::new(),
        configured: true,
        workers: vec![WorkerId(1)],
        about: BuilderAbout::default(),
    };
    let note = NoteRow {
        id: 9,
        builder: BuilderId(1),
        worker: Some(WorkerId(1)),
        text: "connect linux-1".into(),
        error: None,
        at: at(5),
        ended_at: Some(at(5)),
    };
    let note = Arc::new(note);
    vec![
        (Change::BuildsetNew(set), vec!["buildsets/27/new"]),
        (Change::RequestNew(r.clone()), with(&requests, "new")),
        (Change::RequestUpdated(r.clone()), with(&requests, "update")),
        (Change::RequestClaimed(r.clone()), with(&requests, "claimed")),
        (Change::RequestUnclaimed(r.clone()), with(&requests, "unclaimed")),
        (Change::BuildNew(b.clone()), with(&builds, "new")),
        (Change::BuildUpdate(b.clone()), with(&builds, "update")),
        (
            Change::BuildProperties(BuildId(32), b.properties.clone()),
            vec!["builds/32/properties/update"],
        ),
        (Change::StepStarted(s.clone()), [with(&steps, "new"), with(&steps, "started")].concat()),
        (Change::LogNew(l.clone()), with(&logs, "new")),
        (Change::LogAppend(l.clone()), with(&logs, "append")),
        (Change::LogFinished(l), with(&logs, "finished")),
        (Change::StepFinished(s), [with(&steps, "updated"), with(&steps, "finished")].concat()),
        (Change::BuildFinished(Arc::new(finished)), with(&builds, "finished")),
        (Change::RequestComplete(r), with(&requests, "complete")),
        (
            Change::RequestComplete(Arc::new(cancelled)),
            [vec!["buildrequests/39/cancel"], with(&requests, "complete")].concat(),
        ),
        (Change::BuildsetComplete(complete), vec!["buildsets/27/complete"]),
        (Change::WorkerConnected(w.clone()), vec!["workers/1/connected"]),
        (Change::WorkerDisconnected(w.clone()), vec!["workers/1/disconnected"]),
        (Change::WorkerUpdated(w), vec!["workers/1/state_updated"]),
        (Change::BuilderUpdated(Arc::new(builder)), vec!["builders/1/update"]),
        (Change::MasterStarted(master(true)), vec!["masters/1/started"]),
        (Change::MasterStopped(master(false)), vec!["masters/1/stopped"]),
        (Change::Note(note.clone()), vec!["builders/1/notes/new", "workers/1/notes/new"]),
        (Change::NoteEnded(note), vec!["builders/1/notes/update", "workers/1/notes/update"]),
        (
            Change::SchedulerUpdated(Arc::new(SchedulerRow {
                id: 3,
                name: "force".into(),
                enabled: false,
            })),
            vec!["schedulers/3/updated"],
        ),
    ]
}

/// Patterns that together match every key.
const ALL: [&str; 6] = ["*/*/*", "*/*/*/*", "*/*/*/*/*", "*/*/*/*/*/*", "*/*/*/*/*/*/*", "*/*"];

#[test]
fn every_change_is_told_under_every_key_of_the_catalogue() {
    let world = World::start();
    let mut listener = Listener::open(&world, "/sse/listen");
    for path in ALL {
        let added = world.ask("GET", &format!("/sse/add/{}/{path}", listener.id), &[], "");
        assert_eq!((added.status, added.body.trim_end()), (200, "ok"));
    }
    let recorded: Vec<Value> = include_str!("../fixtures/api/event-shapes.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut compared = 0;
    for (seq, (change, keys)) in (1..).zip(catalogue()) {
        world.events.publish(vec![change]);
        for key in keys {
            let (id, own, message) = listener.event();
            assert_eq!((id, own.as_str()), (seq, key));
            let shape: Vec<&str> = key
                .split('/')
                .map(|part| match part {
                    _ if part.parse::<u64>().is_ok() => "N",
                    "stdio" => "SLUG",
                    _ => part,
                })
                .collect();
            let shape = shape.join("/");
            let Some(reference) = recorded.iter().find(|line| line["shape"] == *shape) else {
                continue;
            };
            compared += 1;
            if key.ends_with("properties/update") {
                assert_eq!(message["branch"], json!(["main", "Build"]));
            } else if key == "buildsets/27/new" {
                // Ours is the whole resource.
                let mut message = message;
                message.as_object_mut().unwrap().remove("parent_relationship");
                same_shape(key, &reference["frame"]["m"], &message);
                assert_eq!(message["scheduler"], "force");
                assert_eq!(message["results"], Value::Null);
            } else {
                same_shape(key, &reference["frame"]["m"], &message);
            }
        }
    }
    assert!(compared > 35, "{compared}");
}

#[test]
fn messages_are_whole_resources() {
    let world = World::start();
    let mut builds = Listener::open(&world, "/sse/listen/builds/32/*");
    let mut workers = Listener::open(&world, "/sse/listen/workers/*/*");
    world.events.publish(vec![
        Change::BuildNew(Arc::new(build())),
        Change::WorkerConnected(Arc::new(worker())),
    ]);
    let (_, key, message) = builds.event();
    assert_eq!(key, "builds/32/new");
    assert_eq!((&message["buildid"], &message["started_at"]), (&json!(32), &json!(100)));
    // What lists show of properties, and nothing else.
    assert_eq!(message["properties"], json!({"branch": ["main", "Build"]}));
    let (_, key, message) = workers.event();
    assert_eq!(key, "workers/1/connected");
    let on = json!([{"masterid": 1, "builderid": 1}, {"masterid": 1, "builderid": 2}]);
    assert_eq!(message["configured_on"], on);
}

#[test]
fn subscriptions_come_and_go() {
    let world = World::start();
    let mut listener = Listener::open(&world, "/sse");
    let id = listener.id.clone();
    let ask = |path: String| {
        let answer = world.ask("GET", &path, &[], "");
        (answer.status, answer.body.trim_end().to_owned())
    };
    assert_eq!(ask(format!("/sse/add/{id}/builds/*/new")), (200, "ok".into()));
    // The same again is one subscription still.
    assert_eq!(ask(format!("/sse/add/{id}/builds/*/new")), (200, "ok".into()));
    assert_eq!(ask(format!("/sse/add/{id}/steps/*/*")), (200, "ok".into()));
    assert_eq!(ask(format!("/sse/remove/{id}/steps/*/*")), (200, "ok".into()));
    let missing = (404, "consumer is not listening to this event".to_owned());
    assert_eq!(ask(format!("/sse/remove/{id}/steps/*/*")), missing);
    let unknown = "00000000-0000-4000-8000-000000000000";
    assert_eq!(ask(format!("/sse/add/{unknown}/builds/*/*")), (400, "unknown uuid".into()));
    assert_eq!(ask("/sse/add".into()), (400, "need uuid".into()));
    assert_eq!(ask("/sse/nope/x".into()).0, 404);
    world.events.publish(vec![
        Change::StepStarted(Arc::new(step())),
        Change::BuildUpdate(Arc::new(build())),
        Change::BuildNew(Arc::new(build())),
        Change::BuildNew(Arc::new(BuildRow { id: BuildId(33), ..build() })),
    ]);
    assert_eq!(listener.event().1, "builds/32/new");
    assert_eq!(listener.event().1, "builds/33/new");
}

#[test]
fn pages_of_other_servers_read_events_only_when_they_are_allowed() {
    let world = World::start();
    let listener = Listener::open(&world, "/sse");
    let path = format!("/sse/add/{}/builds/*/*", listener.id);
    let allowed = "https://a.example.org";
    let answer = world.ask("GET", &path, &[("Origin", allowed)], "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], allowed);
    let foreign = world.ask("GET", &path, &[("Origin", "https://evil.example")], "");
    assert_eq!(foreign.status, 400);
    assert!(!foreign.headers.contains_key("access-control-allow-origin"));
}

#[test]
fn a_stream_that_its_client_left_is_forgotten() {
    let world = World::start();
    let listener = Listener::open(&world, "/sse/listen/builds/*/*");
    let path = format!("/sse/add/{}/steps/*/*", listener.id);
    drop(listener);
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.ask("GET", &path, &[], "").status == 200 {
        assert!(Instant::now() < deadline, "the stream is still there");
        // Writing is what shows that nobody is there.
        world.events.publish(vec![Change::BuildNew(Arc::new(build()))]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_listener_that_does_not_keep_up_is_told_why_its_stream_ends() {
    let world = World::start();
    let mut listener = Listener::open(&world, "/sse/listen/builds/*/*");
    // More than the listener's queue and every buffer on the way can hold.
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.events.dropped() == 0 {
        assert!(Instant::now() < deadline, "the listener was never dropped");
        let change = Change::BuildNew(Arc::new(build()));
        world.events.publish(vec![change; LISTENER_LIMIT]);
    }
    let mut last = String::new();
    let mut seen = 0;
    let mut seq = 0;
    while let Some(block) = listener.block() {
        if let Some(rest) = block.strip_prefix("id: ") {
            let id: u64 = rest.split('\n').next().unwrap().parse().unwrap();
            assert_eq!(id, seq + 1, "without gaps up to the end");
            seq = id;
            seen += 1;
        }
        last = block;
    }
    assert!(seen > 0);
    assert!(last.starts_with(": this stream ends:") && last.contains("behind"), "{last}");
}

#[test]
fn fl10_i11_a_slow_browser_is_dropped_with_its_last_event_and_goes_on_without_a_gap() {
    let world = World::start();
    let path = "/sse/listen/logs/*/append";
    let mut listener = Listener::open(&world, path);
    // It does not read while a log grows: its queue is bounded, and it is
    // dropped.
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.events.dropped() == 0 {
        assert!(Instant::now() < deadline, "the listener was never dropped");
        let change = Change::LogAppend(Arc::new(log()));
        world.events.publish(vec![change; 1024]);
    }
    let (mut seq, mut said) = (0, String::new());
    while let Some(block) = listener.block() {
        if let Some(rest) = block.strip_prefix("id: ") {
            let id: u64 = rest.split('\n').next().unwrap().parse().unwrap();
            assert_eq!(id, seq + 1, "nothing is missing up to the end");
            seq = id;
        }
        said = block;
    }
    assert!(said.contains(&format!("its last one was {seq}")), "{said}");
    assert!(seq < world.events.next_seq() - 1, "something is left to be told");
    // With that number it goes on where it was.
    let mut back = Listener::again(&world, path, seq);
    world.events.publish(vec![Change::LogAppend(Arc::new(log()))]);
    while seq < world.events.next_seq() - 1 {
        assert_eq!(back.event().0, seq + 1);
        seq += 1;
    }
    // Whoever was away for too long hears that there is a gap.
    let change = Change::LogAppend(Arc::new(log()));
    world.events.publish(vec![change; LISTENER_LIMIT + 1]);
    let mut late = Listener::again(&world, path, 3);
    let gap = late.block().unwrap();
    let next = world.events.next_seq();
    assert_eq!(gap, format!("event: gap\ndata: {{\"last\": 3, \"next\": {next}}}"));
    world.events.publish(vec![Change::LogAppend(Arc::new(log()))]);
    assert_eq!(late.event().0, next);
}

#[test]
fn i11_a_listener_cut_off_between_two_frames_of_one_event_gets_the_second_one_alone() {
    let world = World::start();
    let path = "/sse/listen/steps/*/*";
    let ids = |listener: &mut Listener, count: usize| -> Vec<String> {
        let id = |block: String| block.lines().next().unwrap().to_owned();
        (0..count).map(|_| id(listener.block().unwrap())).collect()
    };
    let mut whole = Listener::open(&world, path);
    world.events.publish(vec![
        Change::StepStarted(Arc::new(step())),
        Change::StepFinished(Arc::new(step())),
    ]);
    assert_eq!(ids(&mut whole, 4), ["id: 1.1", "id: 1", "id: 2.1", "id: 2"]);
    let mut cut = Listener::open_with(&world, path, "Last-Event-ID: 1.1\r\n");
    assert_eq!(ids(&mut cut, 3), ["id: 1", "id: 2.1", "id: 2"]);
    let mut between = Listener::open_with(&world, path, "Last-Event-ID: 1\r\n");
    assert_eq!(ids(&mut between, 2), ["id: 2.1", "id: 2"]);
}

#[test]
fn a_subscriber_gets_thousands_of_events_a_second() {
    let world = World::start();
    let mut listener = Listener::open(&world, "/sse/listen/builds/*/*");
    let began = Instant::now();
    for _ in 0..100 {
        let batch: Vec<Change> = (0..100).map(|_| Change::BuildUpdate(Arc::new(build()))).collect();
        world.events.publish(batch);
    }
    for seq in 1..=10_000 {
        assert_eq!(listener.event().0, seq);
    }
    // Not a measurement: a hint when it becomes slower by far.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_log_that_grows_has_the_lines_that_its_events_tell() {
    let world = World::start();
    let growing = LogRow { id: LogId(5005), step: StepId(1003), num_lines: 17, ..log() };
    world.events.publish(vec![Change::LogAppend(Arc::new(growing))]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.list("logs/5005")[0]["num_lines"] != 17 {
        assert!(Instant::now() < deadline, "{:?}", world.list("logs/5005"));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(world.list("steps/1003/logs")[0]["num_lines"], 17);
}
