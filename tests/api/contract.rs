//! The Data API as a contract: every recorded exchange with a Buildbot 4.3.0
//! master, asked again of ours over a store with the same rows.
//!
//! What is not the same is named, with its reason, in
//! `tests/fixtures/buildbot/differences.json` and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use botmaster::board::Board;
use botmaster::core::form::Form;
use botmaster::settings::{Overrides, load_text};
use serde_json::{Value, json};

use crate::recorded::{Case, Told, cases, tell_logs};
use crate::support::{Answer, World};

/// The most differences that there may be.
const MOST: usize = 10;

/// The first exchange that orders something; what comes after sees more.
const FIRST_ORDER: &str = "rpc-form";

/// What a difference says of one exchange.
#[derive(Debug)]
struct Expected {
    difference: String,
    status: Option<u64>,
    body: Option<Value>,
}

struct Differences {
    of: BTreeMap<String, Expected>,
    /// Exchanges with parts of the server that other tests are for.
    elsewhere: BTreeMap<String, String>,
}

fn differences() -> Differences {
    let text = include_str!("../fixtures/buildbot/differences.json");
    let all: Value = serde_json::from_str(text).unwrap();
    let list = all["differences"].as_array().unwrap();
    assert!(list.len() <= MOST, "{} differences are more than {MOST}", list.len());
    let mut of = BTreeMap::new();
    for one in list {
        let name = one["name"].as_str().unwrap();
        assert!(one["reason"].as_str().is_some_and(|reason| reason.len() > 20), "{name}: why?");
        // What the reference's own pages read stays as it is.
        assert_eq!(one["read_by_the_stock_pages"], false, "{name}");
        for (case, expected) in one["cases"].as_object().unwrap() {
            let expected = Expected {
                difference: name.to_owned(),
                status: expected["status"].as_u64(),
                body: expected.get("body").cloned(),
            };
            assert!(of.insert(case.clone(), expected).is_none(), "{case} is named twice");
        }
    }
    let elsewhere = all["elsewhere"].as_object().unwrap();
    let elsewhere =
        elsewhere.iter().map(|(case, why)| (case.clone(), why.as_str().unwrap().into())).collect();
    Differences { of, elsewhere }
}

/// What may be other than it was recorded without being a difference: times of
/// the present, words for people about what is missing, and how many there are
/// before a limit, which the reference tells of some kinds only.
fn levelled(mut value: Value, limited: bool) -> Value {
    level(&mut value);
    if limited && let Some(meta) = value.get_mut("meta").and_then(Value::as_object_mut) {
        meta.remove("total");
    }
    if let Some(text) = value["error"].as_str()
        && text.starts_with("not found while getting from")
    {
        value["error"] = "not found".into();
    }
    // New ids.
    if let Some([set, Value::Object(requests)]) =
        value.get_mut("result").and_then(Value::as_array_mut).map(Vec::as_mut_slice)
    {
        *set = 0.into();
        requests.values_mut().for_each(|id| *id = 0.into());
    }
    // A list of properties has no order.
    if let Some(list) = value.get_mut("_properties").and_then(Value::as_array_mut) {
        list.sort_by_key(|one| one["name"].to_string());
        // Each value is written as JSON, with or without blanks.
        for one in list {
            one["value"] = serde_json::from_str(one["value"].as_str().unwrap()).unwrap();
        }
    }
    value
}

fn level(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.contains_key("last_active") {
                map.insert("last_active".into(), 0.into());
            }
            if let Some(on) = map.get_mut("configured_on").and_then(Value::as_array_mut) {
                on.sort_by_key(|one| one["builderid"].as_u64());
            }
            // Free form, but a worker's text without a value is left out.
            if let Some(info) = map.get_mut("workerinfo").and_then(Value::as_object_mut) {
                info.retain(|_, value| !value.is_null());
            }
            map.values_mut().for_each(level);
        }
        Value::Array(list) => list.iter_mut().for_each(level),
        _ => {}
    }
}

fn ask(world: &World, case: &Case) -> Answer {
    let own = world.url.trim_start_matches("http://");
    let mut headers = Vec::new();
    for (name, value) in case.request["headers"].as_object().unwrap() {
        headers.push((name.clone(), value.as_str().unwrap().replace("127.0.0.1:8010", own)));
    }
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let body = case.request["body"].as_str().unwrap_or_default();
    world.ask(case.method(), case.path(), &headers, body)
}

/// Says what is not as it was recorded.
fn compare(world: &World, case: &Case, answer: &Answer, expected: &Case) -> Vec<String> {
    let mut wrong = Vec::new();
    if u64::from(answer.status) != expected.status() {
        wrong.push(format!("status {} and not {}", answer.status, expected.status()));
    }
    let kind = expected.response["headers"]["content-type"].as_str();
    let own = answer.headers.get("content-type").map(String::as_str);
    if kind.is_some_and(|kind| !kind.starts_with("text/html")) && own != kind {
        wrong.push(format!("content type {own:?} and not {kind:?}"));
    }
    let disposition = expected.response["headers"]["content-disposition"].as_str();
    if disposition != answer.headers.get("content-disposition").map(String::as_str) {
        wrong.push(format!("content disposition and not {disposition:?}"));
    }
    let limited = case.path().contains("limit=") || case.path().contains("offset=");
    let recorded = expected.body().replace("http://127.0.0.1:8010", &world.url);
    match (expected.json(), serde_json::from_str::<Value>(&answer.body)) {
        (Some(_), Ok(own)) => {
            let recorded = serde_json::from_str(&recorded).unwrap();
            let (own, recorded) = (levelled(own, limited), levelled(recorded, limited));
            if own != recorded {
                wrong.push(format!("body\n   {own}\n  and not\n   {recorded}"));
            }
        }
        (Some(_), Err(_)) => wrong.push(format!("no JSON: {}", answer.body)),
        (None, _) if recorded.contains("binary>") => {}
        // The reference's pages for people.
        (None, _) if recorded.contains("<html>") && case.status() == 404 => {}
        (None, _) if recorded != answer.body => {
            wrong.push(format!("body\n   {}\n  and not\n   {recorded}", answer.body));
        }
        (None, _) => {}
    }
    wrong
}

/// Runs exchanges and says what is neither the same nor a named difference.
fn run(world: &World, cases: &[&Case], mut before: impl FnMut(&World, &Case)) {
    let named = differences();
    let mut wrong = Vec::new();
    for case in cases {
        if named.elsewhere.contains_key(&case.name) {
            continue;
        }
        before(world, case);
        let answer = ask(world, case);
        let found = compare(world, case, &answer, case);
        match named.of.get(&case.name) {
            None => wrong.extend(found.iter().map(|text| format!("{}: {text}", case.name))),
            Some(expected) => {
                let name = &expected.difference;
                if found.is_empty() {
                    wrong.push(format!("{}: does not differ, unlike `{name}` says", case.name));
                }
                if expected.status.is_some_and(|status| status != u64::from(answer.status)) {
                    wrong.push(format!("{}: `{name}`: status {}", case.name, answer.status));
                }
                if let Some(body) = &expected.body
                    && !contains(&answer.json(), body)
                {
                    wrong.push(format!("{}: `{name}`: body {}", case.name, answer.body));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether everything that is wanted is there.
fn contains(own: &Value, wanted: &Value) -> bool {
    match (own, wanted) {
        (Value::Object(own), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| own.get(key).is_some_and(|own| contains(own, wanted)))
        }
        (Value::Array(own), Value::Array(wanted)) => {
            own.len() == wanted.len()
                && own.iter().zip(wanted).all(|(own, wanted)| contains(own, wanted))
        }
        (Value::String(own), Value::String(wanted)) => own.contains(wanted.as_str()),
        (own, wanted) => own == wanted,
    }
}

fn first_half(cases: &[Case]) -> Vec<&Case> {
    cases.iter().take_while(|case| case.name != FIRST_ORDER).collect()
}

/// A master of which everything is so that was told before the first order.
pub fn world(cases: &[Case]) -> (World, Told) {
    let mut told = Told::default();
    for case in first_half(cases) {
        told.hear(case);
    }
    told.in_order(cases.iter().find(|case| case.name == "op-builds-field-prop").unwrap());
    let board = Board::default();
    board.show_forms(forms());
    let world = World::over(|db| told.fill(db), board, "ci:/srv/ci-demo/master");
    tell_logs(cases, &world.logs, &world.db);
    (world, told)
}

/// The recorded master's forms, as a configuration file has them.
fn forms() -> Vec<Form> {
    let mut text = String::new();
    for name in ["unit", "lint", "integration", "slow build", "flaky", "parent", "mac", "exc"] {
        text += &format!("[[builder]]\nname = \"{name}\"\nworkers = [\"w\"]\n");
        text += "[[builder.step]]\nname = \"test\"\nrun = [\"true\"]\n";
    }
    text += "[[worker]]\nname = \"w\"\n";
    text += include_str!("../fixtures/buildbot/forms.toml");
    let file = std::path::Path::new("forms.toml");
    let loaded = load_text(file, &text, &Overrides::default());
    loaded.unwrap_or_else(|problems| panic!("{problems:?}")).settings.forms
}

#[test]
fn every_recorded_order_is_answered_as_the_reference_answers_it() {
    let cases = cases();
    let (world, mut told) = world(&cases);
    let later: Vec<&Case> = cases.iter().skip_while(|case| case.name != FIRST_ORDER).collect();
    // What an order brings about is not this test's: whoever asks next sees it.
    run(&world, &later, |world, case| {
        if case.method() == "GET" && case.status() == 200 {
            told.hear(case);
            told.fill(&world.db);
        }
    });
    let asked = world.asked.lock().unwrap();
    let full = asked.submissions.iter().flatten().find(|one| one.reason.ends_with("contract"));
    let full = full.unwrap();
    assert_eq!(full.reason, "A build was forced by 'dev-1 <dev-1@example.org>': contract");
    let options = full.properties["options"].value.json();
    assert_eq!((&options["jobs"], &options["clean"]), (&json!(8), &json!(true)));
    assert_eq!(full.sourcestamps[0].revision.as_deref(), Some("cafe"));
    assert_eq!(full.builders, ["unit".into()]);
    let orders: Vec<&str> = asked.orders.iter().map(String::as_str).collect();
    assert_eq!(
        orders,
        [
            "stop 18 of unit: late",
            "stop 24 of slow build: from contract",
            "stop 24 of slow build: no reason",
            "priority 29 of mac: 7",
            "cancel 29 of mac: no worker",
            "Pause linux-2: maintenance",
            "Unpause linux-2: done",
            "scheduler 1 false",
            "scheduler 1 true",
        ]
    );
}

#[test]
fn every_recorded_question_is_answered_as_the_reference_answers_it() {
    let cases = cases();
    let (world, _) = world(&cases);
    run(&world, &first_half(&cases), |_, _| {});
}

#[test]
fn every_recorded_exchange_is_run_or_named() {
    let cases = cases();
    assert!(cases.len() >= 280, "{} are fewer than were recorded", cases.len());
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let named = differences();
    for name in named.of.keys().chain(named.elsewhere.keys()) {
        assert!(names.contains(name.as_str()), "{name} was not recorded");
    }
}

#[test]
fn the_list_of_paths_has_all_of_the_reference_with_its_types() {
    let world = World::start();
    let answer = world.get("application.spec");
    assert_eq!(answer.status, 200);
    let text = include_str!("../fixtures/buildbot/application-spec.json");
    let recorded: Value = serde_json::from_str(text).unwrap();
    let own = answer.json();
    let by_path = |value: &Value| -> BTreeMap<String, Value> {
        let specs = value["specs"].as_array().unwrap().iter();
        specs.map(|spec| (spec["path"].as_str().unwrap().to_owned(), spec.clone())).collect()
    };
    let (own, recorded) = (by_path(&own), by_path(&recorded));
    assert_eq!(recorded.len(), 138);
    // The reference says that a change always has a committer, and tells null.
    let mut recorded = recorded;
    for spec in recorded.values_mut().filter(|spec| spec["type"] == "change") {
        let fields = spec["type_spec"]["fields"].as_array_mut().unwrap();
        let committer = fields.iter_mut().find(|field| field["name"] == "committer").unwrap();
        committer["type"] = "string or None".into();
        committer["type_spec"]["can_be_null"] = true.into();
    }
    for (path, spec) in &recorded {
        assert_eq!(own.get(path), Some(spec), "{path}");
    }
    // Those beyond it: by the builder's name, and the request's properties.
    for path in own.keys().filter(|path| !recorded.contains_key(*path)) {
        assert!(
            path.starts_with("builders/") || path == "buildrequests/n:buildrequestid/properties",
            "{path}"
        );
    }
    assert_eq!(answer.json()["meta"], json!({ "total": own.len() }));
}
