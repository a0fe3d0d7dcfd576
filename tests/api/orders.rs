//! What is ordered: force, rebuild, stop, workers, reload, and bad input.

use botmaster::core::ids::{BuildId, BuilderName, WorkerName};
use botmaster::messages::{Refusal, ReloadReport, Submission};
use serde_json::{Value, json};

use crate::support::{Answer, World};

fn force(world: &World, params: Value) -> Answer {
    world.rpc("forceschedulers/force", "force", params)
}

/// What was submitted last.
fn submitted(world: &World) -> Vec<Submission> {
    world.asked.lock().unwrap().submissions.pop().unwrap()
}

fn message(answer: &Answer) -> Value {
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.json()["error"]["message"].clone()
}

fn names(submission: &Submission) -> Vec<&str> {
    submission.builders.iter().map(BuilderName::as_str).collect()
}

#[test]
fn force_submits_what_the_form_says() {
    let world = World::start();
    let answer = force(
        &world,
        json!({
            "builderid": "1", "username": "", "owner": "ann", "reason": "try it",
            "priority": "4", "branch": "main", "revision": "", "repository": "", "project": "p",
            "suite": "fast", "idempotency_key": "k1", "soon": true,
        }),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json(), json!({"id": 7, "jsonrpc": "2.0", "result": [71, {"1": 871}]}));
    let all = submitted(&world);
    let [one] = all.as_slice() else { panic!("one submission, not {}", all.len()) };
    assert_eq!(names(one), ["unit"]);
    assert_eq!(one.reason, "A build was forced by 'ann': try it");
    assert_eq!((one.priority, one.soon), (4, true));
    assert_eq!(one.scheduler, "force");
    assert_eq!(one.idempotency_key.as_deref(), Some("k1"));
    let stamp = &one.sourcestamps[0];
    assert_eq!((stamp.branch.as_deref(), stamp.revision.as_deref()), (Some("main"), None));
    assert_eq!(stamp.project, "p");
    let property = |name: &str| {
        (one.properties[name].value.json().as_str().unwrap(), one.properties[name].source.as_str())
    };
    assert_eq!(property("suite"), ("fast", "Force Build Form"));
    assert_eq!(property("owner"), ("ann", "Force Build Form"));
    assert_eq!(property("reason"), ("try it", "Force Build Form"));
    assert_eq!(property("scheduler"), ("force", "Scheduler"));
    assert_eq!(one.properties.len(), 4);
}

#[test]
fn force_without_a_builder_is_for_all_that_are_configured() {
    let world = World::start();
    assert_eq!(force(&world, json!({})).status, 200);
    let all = submitted(&world);
    assert_eq!(names(&all[0]), ["unit", "slow build"]);
    assert_eq!(all[0].reason, "A build was forced by 'anonymous': force build");
}

#[test]
fn force_for_an_unknown_builder_names_it_and_submits_nothing() {
    let world = World::start();
    let answer = force(&world, json!({"builderNames": ["unit", "unti"]}));
    assert_eq!(answer.status, 404);
    assert_eq!(message(&answer), "there is no builder named `unti`; did you mean `unit`?");
    let answer = force(&world, json!({"builderid": 99}));
    assert_eq!(
        (answer.status, message(&answer)),
        (404, json!("there is no builder with the id 99"))
    );
    let many = json!({"requests": [{"builderNames": ["unit"]}, {"builderNames": ["xyz"]}]});
    assert_eq!(message(&force(&world, many)), "there is no builder named `xyz`");
    assert!(world.asked.lock().unwrap().submissions.is_empty());
}

#[test]
fn force_with_a_property_that_is_no_string_tells_the_field() {
    let world = World::start();
    for (params, field) in [
        (json!({"builderid": 1, "jobs": 4}), "jobs"),
        (json!({"builderid": 1, "flag": true}), "flag"),
        (json!({"builderid": 1, "list": ["a"]}), "list"),
        (json!({"builderid": 1, "properties": {"deep": {}}}), "properties.deep"),
        (json!({"builderid": 1, "properties": 5}), "properties"),
        (json!({"builderid": 1, "priority": "high"}), "priority"),
        (json!({"builderid": 1, "reason": 5}), "reason"),
        (json!({"builderid": 1, "soon": "yes"}), "soon"),
        (json!({"builderid": [1]}), "builderid"),
        (json!({"builderNames": []}), "builderNames"),
        (json!({"builderNames": [1]}), "builderNames"),
        (json!({"requests": []}), "requests"),
        (json!({"requests": {}}), "requests"),
        (json!({"requests": [5]}), "requests[0]"),
        (json!({"requests": [{}]}), "requests[0].builderNames"),
        (json!({"requests": [{"builderNames": ["unit"], "x": "y"}]}), "requests[0].x"),
        (
            json!({"requests": [{"builderid": 1, "properties": {"a": 1}}]}),
            "requests[0].properties.a",
        ),
    ] {
        let answer = force(&world, params.clone());
        assert_eq!(answer.status, 400, "{params}: {}", answer.body);
        assert_eq!(answer.json()["error"]["code"], -32602, "{params}");
        let fields = message(&answer);
        assert!(fields[field].is_string(), "{params}: {fields}");
    }
    assert!(world.asked.lock().unwrap().submissions.is_empty());
}

#[test]
fn many_requests_are_one_submission_of_all_or_none() {
    let world = World::start();
    let answer = force(
        &world,
        json!({
            "owner": "ann", "priority": 1, "idempotency_key": "k",
            "requests": [
                {"builderNames": ["unit"], "properties": {"n": "1"}},
                {"builderNames": ["slow build", "unit"], "priority": 9, "branch": "dev"},
            ],
        }),
    );
    assert_eq!(answer.json()["result"], json!([[71, {"1": 871}], [72, {"1": 872, "2": 872}]]));
    let all = submitted(&world);
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].priority, all[1].priority), (1, 9));
    assert_eq!(all[0].properties["n"].value, "1");
    assert!(!all[1].properties.contains_key("n"));
    assert_eq!(all[1].sourcestamps[0].branch.as_deref(), Some("dev"));
    let keys: Vec<_> = all.iter().map(|one| one.idempotency_key.as_deref().unwrap()).collect();
    assert_eq!(keys, ["k/0", "k/1"]);
}

#[test]
fn ten_thousand_requests_fit_in_one_body() {
    let world = World::start();
    let entry = json!({"builderNames": ["unit"], "properties": {"text": "x".repeat(100)}});
    let entries: Vec<Value> = std::iter::repeat_n(entry, 10_000).collect();
    let answer = force(&world, json!({"requests": entries}));
    assert_eq!(answer.status, 200);
    assert_eq!(submitted(&world).len(), 10_000);
    // The same length is too much where nothing needs it.
    let long = "x".repeat(1_100_000);
    let answer = world.rpc("builds/101", "stop", json!({"reason": long}));
    assert_eq!(answer.status, 413);
}

#[test]
fn a_refusal_is_told_with_its_words() {
    let world = World::start();
    let unit = BuilderName::from("unit");
    for (refusal, status) in [
        (Refusal::NoWorker(unit.clone()), 409),
        (Refusal::QueueFull { builder: unit, limit: 3 }, 429),
        (Refusal::Stopping, 503),
        (Refusal::Store("disk full".into()), 500),
        (Refusal::Timeout, 504),
    ] {
        world.asked.lock().unwrap().refuse = Some(refusal.clone());
        let answer = force(&world, json!({"builderid": 1}));
        assert_eq!((answer.status, message(&answer)), (status, json!(refusal.to_string())));
    }
}

#[test]
fn c02_rebuild_copies_the_absolute_source_and_the_properties() {
    let world = World::start();
    let answer = world.rpc("builds/101", "rebuild", json!({}));
    assert_eq!(answer.json()["result"], json!([71, {"1": 871}]));
    let one = submitted(&world).remove(0);
    assert_eq!((one.reason.as_str(), one.scheduler.as_str()), ("rebuild", "rebuild"));
    assert_eq!(one.rebuilt_build, Some(BuildId(101)));
    assert_eq!(one.properties["suite"].value, "fast");
    let stamp = &one.sourcestamps[0];
    assert_eq!(stamp.repository, "https://git.example.org/a.git");
    // The source is the very one that was built.
    assert_eq!(stamp.revision.as_deref(), Some("abcdef"));
    // A repeat of a repeat names the first build.
    world.rpc("builders/unit/builds/2", "rebuild", json!({}));
    assert_eq!(submitted(&world)[0].rebuilt_build, Some(BuildId(1)));
}

#[test]
fn c02_rebuild_refuses_an_unfinished_or_unknown_build() {
    let world = World::start();
    let answer = world.rpc("builds/103", "rebuild", json!({}));
    assert_eq!(answer.status, 409);
    assert!(message(&answer).as_str().unwrap().contains("has not ended"));
    assert_eq!(world.rpc("builds/999", "rebuild", json!({})).status, 404);
    assert!(world.asked.lock().unwrap().submissions.is_empty());
}

#[test]
fn orders_reach_the_master() {
    let world = World::start();
    for (path, method, params, told) in [
        ("builds/103", "stop", json!({}), "stop 103 of slow build: no reason"),
        ("builders/2/builds/1", "stop", json!({"reason": "r"}), "stop 103 of slow build: r"),
        ("builders/slow%20build/builds/1", "stop", json!({}), "stop 103 of slow build: no reason"),
        ("buildrequests/14", "cancel", json!({"reason": "r"}), "cancel 14 of slow build: r"),
        (
            "buildrequests/14",
            "set_priority",
            json!({"priority": -2}),
            "priority 14 of slow build: -2",
        ),
        ("workers/1", "pause", json!({"reason": "disk"}), "Pause linux-1: disk"),
        ("workers/linux-1", "unpause", json!({}), "Unpause linux-1: no reason"),
        ("workers/mac-1", "stop", json!({}), "Drain mac-1: no reason"),
        ("workers/2", "kill", json!({}), "Shutdown mac-1: no reason"),
    ] {
        let answer = world.rpc(path, method, params);
        assert_eq!(answer.status, 200, "{path} {method}: {}", answer.body);
        assert_eq!(answer.json()["result"], Value::Null);
        assert_eq!(world.asked.lock().unwrap().orders.pop().as_deref(), Some(told));
    }
    assert_eq!(world.rpc("builders/unit", "ping", json!({})).json()["result"], false);
    world.asked.lock().unwrap().pong = true;
    assert_eq!(world.rpc("builders/1", "ping", json!({})).json()["result"], true);
    // A build that is not there need not be stopped.
    world.asked.lock().unwrap().orders.clear();
    assert_eq!(world.rpc("builds/999", "stop", json!({})).json()["result"], Value::Null);
    assert!(world.asked.lock().unwrap().orders.is_empty());
    let refusal = Refusal::NotAttached(WorkerName::from("mac-1"));
    world.asked.lock().unwrap().refuse = Some(refusal);
    let answer = world.rpc("workers/mac-1", "kill", json!({}));
    assert_eq!(answer.status, 409);
    assert_eq!(message(&answer), "worker `mac-1` is not attached");
}

#[test]
fn orders_for_what_is_not_there_are_refused() {
    let world = World::start();
    for (path, method, status, text) in [
        ("workers/nope", "pause", 404, "there is no worker named `nope`"),
        ("builders/nope", "ping", 404, "there is no builder named `nope`"),
        ("buildrequests/99", "cancel", 404, "there is no build request 99"),
        ("forceschedulers/nope", "force", 404, "there is no force scheduler named `nope`"),
        ("nope", "stop", 404, "Invalid path: nope"),
        ("builds/101", "explode", 501, "action: explode is not supported"),
        ("builds", "stop", 501, "action: stop is not supported"),
    ] {
        let answer = world.rpc(path, method, json!({}));
        assert_eq!((answer.status, message(&answer)), (status, json!(text)), "{path} {method}");
        assert_eq!(answer.json()["id"], 7);
    }
    let answer = world.rpc("buildrequests/14", "set_priority", json!({}));
    assert_eq!(answer.json()["error"]["code"], -32602);
}

#[test]
fn a_body_that_is_no_call_is_told_what_it_lacks() {
    let world = World::start();
    let json_type = [("Content-Type", "application/json; charset=utf-8")];
    for (body, code, text) in [
        ("{", -32700, "JSON parse error"),
        ("[]", -32600, "JSONRPC batch requests are not supported"),
        ("5", -32600, "JSONRPC root object must be an object"),
        ("{}", -32600, "missing key 'jsonrpc'"),
        (r#"{"jsonrpc":"2.0"}"#, -32600, "missing key 'method'"),
        (r#"{"jsonrpc":"2.0","method":"stop"}"#, -32600, "missing key 'id'"),
        (r#"{"jsonrpc":"2.0","method":"stop","id":1}"#, -32600, "missing key 'params'"),
        (
            r#"{"jsonrpc":"2.0","method":"stop","id":[],"params":{}}"#,
            -32600,
            "'id' must be a string, number, or null",
        ),
        (
            r#"{"jsonrpc":"2.0","method":"stop","id":1,"params":[]}"#,
            -32600,
            "'params' must be an object",
        ),
        (
            r#"{"jsonrpc":"1.0","method":"stop","id":1,"params":{}}"#,
            -32600,
            "only JSONRPC 2.0 is supported",
        ),
    ] {
        let answer = world.ask("POST", "/api/v2/builds/101", &json_type, body);
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.json()["error"]["code"], code, "{body}");
        assert!(message(&answer).as_str().unwrap().starts_with(text), "{body}: {}", answer.body);
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    for headers in [&form[..], &[]] {
        let answer = world.ask("POST", "/api/v2/builds/101", headers, "a=1");
        assert_eq!(message(&answer), "Invalid content-type (use application/json)");
    }
}

#[test]
fn an_order_by_a_foreign_name_of_this_machine_is_refused() {
    let world = World::start();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "stop", "params": {}}).to_string();
    let ask = |host: &str| {
        let headers = [("Host", host), ("Content-Type", "application/json")];
        world.ask("POST", "/api/v2/builds/103", &headers, &body).status
    };
    assert_eq!(ask("evil.example:80"), 400);
    assert_eq!(ask("127.0.0.1.evil.example"), 400);
    assert_eq!(ask("localhost:8010"), 200);
    assert_eq!(ask("[::1]:8010"), 200);
    assert_eq!(ask("127.0.0.1"), 200);
}

#[test]
fn a_reload_is_passed_on_and_reported() {
    let world = World::start();
    let report = ReloadReport { file: "f.toml".into(), took_ms: 3, ..ReloadReport::default() };
    world.asked.lock().unwrap().report = report;
    let answer = world.post("botmaster/reload", &json!({"dry": true}));
    assert_eq!(answer.json()["file"], "f.toml");
    assert_eq!(world.post("botmaster/reload", &json!({})).status, 200);
    assert_eq!(world.asked.lock().unwrap().orders, ["reload dry=true", "reload dry=false"]);
    let other = world.post("botmaster/reload", &json!({"dry": true, "config": "/x/y.toml"}));
    assert_eq!(other.json()["problems"][0]["file"], "/x/y.toml");
    for bad in
        [json!({"config": "/x/y.toml"}), json!({"dry": true, "config": "y"}), json!({"x": 1})]
    {
        assert_eq!(world.post("botmaster/reload", &bad).status, 400, "{bad}");
    }
    assert_eq!(world.asked.lock().unwrap().orders.len(), 2);
}

#[test]
fn fm06_a_broken_builder_is_started_again_by_its_name_or_id() {
    let world = World::start();
    let answer = world.rpc("builders/unit", "restart", json!({}));
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(null)));
    let (status, out, _) = world.run(&["restart", "slow build"]);
    assert_eq!((status, out.as_str()), (0, "builder slow build is started again\n"));
    assert_eq!(world.asked.lock().unwrap().orders, ["restart unit", "restart slow build"]);
    world.asked.lock().unwrap().refuse = Some(Refusal::NotBroken("unit".into()));
    let answer = world.rpc("builders/1", "restart", json!({}));
    assert_eq!(answer.status, 409);
    world.asked.lock().unwrap().refuse = Some(Refusal::NotBroken("unit".into()));
    let (status, _, err) = world.run(&["restart", "unit"]);
    assert_eq!(status, 2);
    assert!(err.contains("builder `unit` is not broken"), "{err}");
    assert_eq!(world.rpc("builders/nope", "restart", json!({})).status, 404);
}

#[test]
fn fm06_a_broken_builder_is_shown_with_its_reason_and_the_command() {
    let world = World::start();
    let mut view = (*world.board.builder(&"unit".into()).unwrap()).clone();
    view.broken = Some("its actor panicked: <why>".into());
    world.board.show_builder(&"unit".into(), view);
    let (_, out, _) = world.run(&["builders"]);
    assert!(out.contains("unit        broken "), "{out}");
    let line = "unit is broken: its actor panicked: <why>; once the cause is gone: \
                botmaster restart unit\n";
    assert!(out.ends_with(line), "{out}");
    let page = world.ask("GET", "/", &[], "").body;
    let line = "unit is broken: its actor panicked: &lt;why&gt;. Once the cause is gone: \
                <code>botmaster restart unit</code>";
    assert!(page.contains(line), "{page}");
}
