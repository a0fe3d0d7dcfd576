//! What the API says of itself is so: the description for programs against
//! real answers, names of requests, marks of finished things, other pages.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::contract;
use crate::recorded::cases;
use crate::support::World;

fn document(world: &World) -> Value {
    let answer = world.get("openapi.json");
    assert_eq!(answer.status, 200);
    answer.json()
}

/// The documented path that a real one is, with literal parts before variables.
fn documented<'a>(document: &'a Value, path: &str) -> Option<(&'a String, &'a Value)> {
    let parts: Vec<&str> = path.split('/').collect();
    let paths = document["paths"].as_object().unwrap();
    let fits = |known: &str| {
        let known: Vec<&str> = known.trim_start_matches('/').split('/').collect();
        known.len() == parts.len()
            && known.iter().zip(&parts).all(|(known, part)| known.starts_with('{') || known == part)
    };
    let mut fitting: Vec<_> = paths.iter().filter(|(known, _)| fits(known)).collect();
    fitting.sort_by_key(|(known, _)| known.matches('{').count());
    fitting.into_iter().next()
}

#[test]
fn every_answer_is_as_the_description_says() {
    let cases = cases();
    let (world, _) = contract::world(&cases);
    let document = document(&world);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for case in cases.iter().filter(|case| case.method() == "GET") {
        let Some(path) = case.path().strip_prefix("/api/v2/") else { continue };
        let answer = world.get(path);
        let bare = path.split('?').next().unwrap();
        let found = documented(&document, bare);
        if answer.status != 200 {
            continue;
        }
        let (known, item) = found.unwrap_or_else(|| panic!("{bare} is not documented"));
        *seen.entry(known).or_default() += 1;
        let content = &item["get"]["responses"]["200"]["content"];
        let kind = answer.headers["content-type"].split(';').next().unwrap().to_owned();
        assert!(!content[&kind].is_null(), "{path}: {kind} is not documented");
        if kind != "application/json" {
            continue;
        }
        let mut schema = content[&kind]["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let value = answer.json();
        let wrong: Vec<String> =
            validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{path}: {wrong:?}");
    }
    // Nearly every kind of resource was among them.
    assert!(seen.len() >= 60, "{}", seen.len());
}

#[test]
fn an_answer_that_is_not_described_is_found() {
    let world = World::start();
    let document = document(&world);
    let schema = |path: &str| {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"];
        let mut schema = content["application/json"]["schema"].clone();
        schema["components"] = document["components"].clone();
        jsonschema::validator_for(&schema).unwrap()
    };
    let good = world.get("builders/1").json();
    let builder = schema("/builders/{builder}");
    assert!(builder.is_valid(&good));
    for change in [
        |value: &mut Value| value["builders"][0]["more"] = 1.into(),
        |value: &mut Value| value["builders"][0]["tags"] = json!([1]),
        |value: &mut Value| value["builders"][0]["name"] = Value::Null,
        |value: &mut Value| value["builders"] = json!([]),
        |value: &mut Value| value["meta"]["total"] = 1.into(),
    ] {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(!builder.is_valid(&bad), "{bad}");
    }
}

#[test]
fn every_path_is_described_and_every_reference_leads_somewhere() {
    let world = World::start();
    let document = document(&world);
    let spec = world.get("application.spec").json();
    for one in spec["specs"].as_array().unwrap() {
        let path = one["path"].as_str().unwrap();
        if path.is_empty() {
            continue;
        }
        let filled: Vec<&str> = path
            .split('/')
            .map(|part| match part.split_once(':') {
                Some(("i" | "s", _)) => "name",
                Some(_) => "1",
                None => part,
            })
            .collect();
        let found = documented(&document, &filled.join("/"));
        assert!(found.is_some_and(|(_, item)| item["get"].is_object()), "{path}");
    }
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(text)) = map.get("$ref") {
                    found.push(text.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut ids: Vec<&str> = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        ids.extend(
            ["get", "post"].iter().filter_map(|method| item[method]["operationId"].as_str()),
        );
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "two operations have one name");
    // Orders are described where they are taken.
    let orders = |path: &str| {
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
            ["anyOf"]
            .as_array()
            .map_or(0, Vec::len)
    };
    assert_eq!(
        [
            orders("/builds/{buildid}"),
            orders("/workers/{worker}"),
            orders("/schedulers/{schedulerid}")
        ],
        [2, 4, 1]
    );
}

#[test]
fn each_request_has_a_name() {
    let world = World::start();
    let given = world.ask("GET", "/api/v2/masters", &[("X-Request-Id", "a-1.b_2")], "");
    assert_eq!(given.headers["x-request-id"], "a-1.b_2");
    let long = "x".repeat(65);
    for bad in ["", "a b", "<script>", long.as_str()] {
        let answer = world.ask("GET", "/api/v2/nope", &[("X-Request-Id", bad)], "");
        let own = &answer.headers["x-request-id"];
        assert_eq!((answer.status, own.len()), (404, 32), "{bad}");
        assert_ne!(own, bad);
    }
    let one = world.get("masters").headers["x-request-id"].clone();
    assert_ne!(one, world.get("masters").headers["x-request-id"]);
}

#[test]
fn finished_things_are_sent_once() {
    let world = World::start();
    let ask = |path: &str, mark: &str| {
        let headers = [("Accept", "application/json"), ("If-None-Match", mark)];
        world.ask("GET", &format!("/api/v2/{path}"), &headers, "")
    };
    for path in [
        "builds/101",
        "buildrequests/11",
        "buildsets/1",
        "steps/1001",
        "logs/5001",
        "sourcestamps/1",
    ] {
        let first = world.get(path);
        let mark = first.headers.get("etag").unwrap_or_else(|| panic!("{path} has no mark"));
        assert_eq!(first.headers["cache-control"], "no-cache");
        let again = ask(path, mark);
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        assert_eq!(again.headers["etag"], *mark);
        let listed = ask(path, &format!("W/\"other\", {mark}"));
        assert_eq!(listed.status, 304);
        assert_eq!(ask(path, "W/\"other\"").status, 200, "{path}");
    }
    world
        .db
        .execute_batch(
            "INSERT INTO changes (id, author, comments, at, stamp_id) VALUES (7, 'a', 'c', 1, 1)",
        )
        .unwrap();
    for path in ["logs/5001/contents?limit=2", "logs/5001/raw", "logs/5001/raw_inline", "changes/7"]
    {
        let mark = world.get(path).headers.get("etag").cloned();
        let mark = mark.unwrap_or_else(|| panic!("{path} has no mark"));
        let again = ask(path, &mark);
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        assert_eq!(ask(path, "W/\"other\"").status, 200, "{path}");
    }
    let lines = |limit| world.get(&format!("logs/5001/contents?limit={limit}"));
    assert_ne!(lines(1).headers["etag"], lines(2).headers["etag"]);
    for path in ["logs/5005/contents", "logs/5005/raw", "logs/5005"] {
        assert!(!world.get(path).headers.contains_key("etag"), "{path} grows");
    }
    // Other questions have other marks.
    let (plain, with) = (world.get("builds/101"), world.get("builds/101?property=*"));
    assert_ne!(plain.headers["etag"], with.headers["etag"]);
    for path in ["builds/103", "buildrequests/14", "builds", "builders/1", "steps/1003"] {
        assert!(!world.get(path).headers.contains_key("etag"), "{path} can change");
    }
    world.db.execute("UPDATE builds SET state_string = 'x' WHERE id = 101", []).unwrap();
    assert_eq!(ask("builds/101", &plain.headers["etag"]).status, 200);
}

#[test]
fn pages_that_are_allowed_may_ask_and_order() {
    let world = World::start();
    let ask = |method: &str, origin: &str| {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        world.ask(method, "/api/v2/masters", &headers, "")
    };
    for (origin, good) in [
        ("https://ci.example.org", true),
        ("HTTPS://CI.EXAMPLE.ORG", true),
        ("http://ci.example.org", false),
        ("https://example.org", false),
        ("https://ci.example.org.evil", false),
        ("null", false),
    ] {
        for method in ["GET", "OPTIONS"] {
            let answer = ask(method, origin);
            assert_eq!(answer.status, if good { 200 } else { 400 }, "{method} {origin}");
            let told = answer.headers.get("access-control-allow-origin").cloned();
            assert_eq!(told, good.then(|| origin.to_lowercase()), "{method} {origin}");
        }
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "pause", "params": {}}).to_string();
    for (origin, status) in [("https://a.example.org", 200), ("https://evil.example", 400)] {
        let headers = [("Origin", origin), ("Content-Type", "application/json")];
        assert_eq!(world.ask("POST", "/api/v2/workers/linux-1", &headers, &body).status, status);
    }
    let reload = |origin: &str| {
        let headers = [("Origin", origin), ("Content-Type", "application/json")];
        world.ask("POST", "/api/v2/botmaster/reload", &headers, "{\"dry\": true}")
    };
    let allowed = reload("https://a.example.org");
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://a.example.org");
    assert_eq!(reload("https://evil.example").status, 400);
    let orders = world.asked.lock().unwrap().orders.clone();
    assert_eq!(orders, ["Pause linux-1: no reason", "reload dry=true"]);
}

#[test]
fn pages_that_are_allowed_may_listen() {
    let world = World::start();
    for (origin, good) in [("https://ci.example.org", true), ("https://evil.example", false)] {
        let status = crate::stream::listens(&world, "/sse/listen/builds/*/*", origin);
        assert_eq!(status, if good { 200 } else { 400 }, "sse from {origin}");
        let status = crate::sockets::connects(&world, origin);
        assert_eq!(status, if good { 101 } else { 400 }, "ws from {origin}");
    }
}
