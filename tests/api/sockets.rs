//! The event stream over WebSockets: every recorded conversation, and every
//! recorded shape of an event.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::events::LISTENER_LIMIT;
use botmaster::store::*;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

use crate::stream::{build, catalogue, log};
use crate::support::{World, same_shape};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Conversations that go another way here, each with its reason.
const OTHERWISE: [(&str, &str); 2] = [
    ("origin-foreign", "a page of another site must not read events: it is refused"),
    ("bad-cookie", "there is no sign-in yet, so no cookie is wrong"),
];

/// Events of the recording that are not sent, each with its reason.
const NOT_SENT: [(&str, &str); 3] = [
    ("changes/", "nothing makes changes yet"),
    ("control/", "inner plumbing of the reference, of no use to a client"),
    ("test_result_sets/", "nothing makes test results yet"),
];

struct Socket(WebSocket<TcpStream>);

impl Socket {
    fn connect(world: &World, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = world.connect();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("ws://{}{path}", world.address).into_client_request().unwrap();
        for (name, value) in headers {
            let name: tungstenite::http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn open(world: &World) -> Self {
        Self::connect(world, "/ws", &[]).unwrap()
    }

    fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// The next text; else the code and reason with which it was closed.
    fn hear(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Close(frame) => {
                    let frame = frame.expect("a close says why");
                    return Err((frame.code.into(), frame.reason.to_string()));
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn ask(&mut self, frame: Value) -> Value {
        self.say(&frame.to_string());
        self.hear().unwrap()
    }

    fn consume(&mut self, path: &str) {
        let frame = json!({"cmd": "startConsuming", "path": path, "_id": 1});
        assert_eq!(self.ask(frame), json!({"msg": "OK", "code": 200, "_id": 1}));
    }
}

/// The status that a page of this origin is answered with, when it connects.
pub fn connects(world: &World, origin: &str) -> u16 {
    Socket::connect(world, "/ws", &[("Origin", origin)]).map_or_else(|status| status, |_| 101)
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What both sides must agree on: everything, but the inside of a text about
/// arguments, which tells of the reference's code.
fn comparable(mut answer: Value) -> Value {
    let text = answer["error"].as_str().unwrap_or_default();
    for begin in ["Invalid method argument '", "invalid path format '"] {
        if text.starts_with(begin) && text.ends_with('\'') {
            answer["error"] = format!("{begin}…'").into();
            return answer;
        }
    }
    answer
}

#[test]
fn every_recorded_conversation_goes_as_it_did() {
    let world = World::start();
    let mut compared = 0;
    for case in lines(include_str!("../fixtures/buildbot/ws-cases.jsonl")) {
        let name = case["name"].as_str().unwrap();
        if OTHERWISE.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let headers: BTreeMap<String, String> =
            serde_json::from_value(case["requestHeaders"].clone()).unwrap();
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut socket = Socket::connect(&world, case["path"].as_str().unwrap(), &headers).unwrap();
        for frame in case["frames"].as_array().unwrap() {
            let text = frame[1].as_str().unwrap();
            match frame[0].as_str().unwrap() {
                "c2s" => socket.say(text),
                "s2c" => {
                    let recorded = comparable(serde_json::from_str(text).unwrap());
                    assert_eq!(comparable(socket.hear().unwrap()), recorded, "{name}");
                    compared += 1;
                }
                "close" => {
                    let (code, reason) = socket.hear().unwrap_err();
                    assert!([1003, 1007].contains(&code) && !reason.is_empty(), "{name}: {code}");
                    compared += 1;
                }
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!(compared, 22);
}

#[test]
fn what_goes_another_way_goes_the_way_that_is_told() {
    let world = World::start();
    let foreign = [("Origin", "http://evil.example")];
    assert_eq!(Socket::connect(&world, "/ws", &foreign).err(), Some(400));
    let own = format!("http://{}", world.address);
    assert!(Socket::connect(&world, "/ws", &[("Origin", &own)]).is_ok());
    let allowed = [("Origin", "https://a.example.org")];
    assert!(Socket::connect(&world, "/ws", &allowed).is_ok());
    assert!(Socket::connect(&world, "/ws", &[("Cookie", "TWISTED_SESSION=garbage")]).is_ok());
    let plain = world.ask("GET", "/ws", &[], "");
    assert_eq!((plain.status, plain.headers["upgrade"].as_str()), (426, "websocket"));
    let mut socket = Socket::open(&world);
    socket.0.send(Message::binary(vec![1, 2])).unwrap();
    assert_eq!(socket.hear().unwrap_err().0, 1003);
}

#[test]
fn events_of_the_master_are_the_whole_resource() {
    let world = World::start();
    let told = told(&world);
    let mut resource = world.list("masters")[0].clone();
    for (event, active) in [("masters/N/started", true), ("masters/N/stopped", false)] {
        resource["active"] = active.into();
        resource["last_active"] = 3.into();
        assert_eq!(told[event], resource);
    }
}

/// The stock pages put the event in the place of what they read.
#[test]
fn an_event_of_a_scheduler_is_the_whole_resource() {
    let world = World::start();
    let told = told(&world);
    let mut own = told["schedulers/N/updated"].clone();
    let row = "INSERT INTO schedulers (id, name, enabled) VALUES (3, 'force', 0)";
    world.db.execute_batch(row).unwrap();
    let mut resource = world.list("schedulers")[0].clone();
    for one in [&mut own, &mut resource] {
        let at = one["master"]["last_active"].take();
        assert!(at.as_i64().is_some_and(|at| at > 1_600_000_000), "{at}");
    }
    assert_eq!(own, resource);
}

/// A key with its ids and slugs taken out, as the recording names shapes.
fn shape_of(key: &str) -> String {
    let mut before = "";
    let parts = key.split('/').map(|part| {
        let of_log = std::mem::replace(&mut before, part) == "logs";
        match part {
            _ if part.parse::<u64>().is_ok() => "N",
            _ if of_log => "SLUG",
            _ => part,
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Everything that the catalogue of changes is told as, by shape.
fn told(world: &World) -> BTreeMap<String, Value> {
    let mut socket = Socket::open(world);
    for depth in 2..=7 {
        socket.consume(&vec!["*"; depth].join("/"));
    }
    let mut told = BTreeMap::new();
    let mut seq = 0;
    for (change, keys) in catalogue() {
        world.events.publish(vec![change]);
        seq += 1;
        for key in keys {
            let frame = socket.hear().unwrap();
            assert_eq!((frame["k"].as_str(), &frame["seq"]), (Some(key), &json!(seq)));
            assert_eq!(frame.as_object().unwrap().len(), 3, "{frame}");
            told.entry(shape_of(key)).or_insert_with(|| frame["m"].clone());
        }
    }
    told
}

fn same_message(shape: &str, recorded: &Value, own: &Value) {
    match shape {
        "builds/N/properties/update" => {
            for message in [recorded, own] {
                for (name, pair) in message.as_object().unwrap() {
                    let pair = pair.as_array().unwrap();
                    assert!(pair.len() == 2 && pair[1].is_string(), "{name}: {pair:?}");
                }
            }
        }
        "buildsets/N/new" => {
            // Ours is the whole resource.
            let mut own = own.clone();
            own.as_object_mut().unwrap().remove("parent_relationship").unwrap();
            same_shape(shape, recorded, &own);
        }
        _ => same_shape(shape, recorded, own),
    }
}

#[test]
fn every_recorded_shape_of_an_event_is_sent() {
    let world = World::start();
    let told = told(&world);
    let mut compared = BTreeSet::new();
    for line in lines(include_str!("../fixtures/buildbot/event-samples.jsonl")) {
        let shape = line["shape"].as_str().unwrap();
        if NOT_SENT.iter().any(|(begin, _)| shape.starts_with(begin)) {
            continue;
        }
        let frame: Value = serde_json::from_str(line["frame"].as_str().unwrap()).unwrap();
        let own = told.get(shape).unwrap_or_else(|| panic!("{shape} is not sent"));
        assert!(!own.is_null(), "{shape}: a null breaks the stock pages");
        same_message(shape, &frame["m"], own);
        compared.insert(shape.to_owned());
    }
    assert_eq!(compared.len(), 43, "{compared:?}");
}

#[test]
fn every_key_of_a_recorded_build_can_be_subscribed_to_and_is_sent() {
    let world = World::start();
    let told = told(&world);
    let mut seen = BTreeSet::new();
    for line in lines(include_str!("../fixtures/buildbot/event-sequence-one-build.jsonl")) {
        let frame: Value = serde_json::from_str(line["frame"].as_str().unwrap()).unwrap();
        let shape = shape_of(frame["k"].as_str().unwrap());
        let own = told.get(&shape).unwrap_or_else(|| panic!("{shape} is not sent"));
        same_message(&shape, &frame["m"], own);
        seen.insert(shape);
    }
    assert!(seen.len() > 30, "{seen:?}");
}

#[test]
fn an_event_older_than_its_subscription_is_not_told() {
    let world = World::start();
    let mut socket = Socket::open(&world);
    // An answer shows that the socket listens.
    socket.ask(json!({"cmd": "ping", "_id": 0}));
    for id in 1..=50 {
        world
            .events
            .publish(vec![Change::BuildNew(Arc::new(BuildRow { id: BuildId(id), ..build() }))]);
    }
    socket.consume("builds/*/new");
    world.events.publish(vec![Change::BuildNew(Arc::new(BuildRow { id: BuildId(51), ..build() }))]);
    assert_eq!(socket.hear().unwrap()["k"], "builds/51/new");
}

#[test]
fn subscriptions_of_one_socket_do_not_touch_anothers() {
    let world = World::start();
    let (mut one, mut other) = (Socket::open(&world), Socket::open(&world));
    one.consume("builds/*/*");
    one.consume("builds/32/*");
    other.consume("builds/*/*");
    let stop = json!({"cmd": "stopConsuming", "path": "builds/*/*", "_id": "s"});
    assert_eq!(other.ask(stop)["code"], 200);
    world.events.publish(vec![Change::BuildNew(Arc::new(build()))]);
    // Two subscriptions match it, and it comes once.
    assert_eq!(one.hear().unwrap()["k"], "builds/32/new");
    assert_eq!(one.ask(json!({"cmd": "ping", "_id": 9}))["msg"], "pong");
    assert_eq!(other.ask(json!({"cmd": "ping", "_id": 9}))["msg"], "pong");
}

#[test]
fn a_log_that_grows_fast_is_told_by_its_newest_length_only() {
    let world = World::start();
    let mut socket = Socket::open(&world);
    socket.consume("logs/*/*");
    let grown = |lines| Change::LogAppend(Arc::new(LogRow { num_lines: lines, ..log() }));
    world.events.publish((1..=200).map(grown).collect());
    world.events.publish(vec![Change::LogFinished(Arc::new(LogRow { num_lines: 200, ..log() }))]);
    let mut lengths = Vec::new();
    loop {
        let frame = socket.hear().unwrap();
        lengths.push(frame["m"]["num_lines"].as_u64().unwrap());
        if frame["k"] == "logs/75/finished" {
            break;
        }
    }
    assert!(lengths.is_sorted() && lengths.len() < 20, "{lengths:?}");
    assert!(lengths.ends_with(&[200, 200]), "{lengths:?}");
}

#[test]
fn a_socket_that_does_not_keep_up_is_closed_with_the_reason() {
    let world = World::start();
    let mut socket = Socket::open(&world);
    socket.consume("builds/*/*");
    let deadline = Instant::now() + PATIENCE;
    while world.events.dropped() == 0 {
        assert!(Instant::now() < deadline, "the socket was never dropped");
        world.events.publish(vec![Change::BuildNew(Arc::new(build())); LISTENER_LIMIT]);
    }
    let mut next = 1;
    let (code, reason) = loop {
        match socket.hear() {
            Ok(frame) => {
                assert_eq!(frame["seq"], json!(next), "without gaps up to the end");
                next += 1;
            }
            Err(closed) => break closed,
        }
    };
    assert!(next > 1);
    assert!(code == 1008 && reason.contains("behind"), "{code} {reason}");
}

#[test]
fn a_socket_whose_client_reads_nothing_is_cut_off() {
    let world = World::start();
    let mut socket = Socket::open(&world);
    socket.consume("builds/*/*");
    let open = || {
        let metrics = world.ask("GET", "/metrics", &[], "").body;
        let line =
            metrics.lines().find(|line| line.starts_with("botmaster_event_streams{kind=\"ws\"}"));
        line.unwrap().ends_with(" 1.0")
    };
    assert!(open());
    let row = BuildRow { state_string: "x".repeat(10_000), ..build() };
    let deadline = Instant::now() + PATIENCE;
    while open() {
        assert!(Instant::now() < deadline, "the socket is still open");
        // More than every buffer on the way holds, and less than what would
        // have it dropped for being behind.
        if world.events.next_seq() < LISTENER_LIMIT as u64 / 2 {
            world.events.publish(vec![Change::BuildNew(Arc::new(row.clone())); 100]);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(socket);
}
