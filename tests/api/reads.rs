//! What is read: shapes, filters, errors.

use serde_json::{Value, json};

use crate::support::{World, same_shape};

/// A recorded answer of the reference, by its name.
fn recorded(name: &str) -> Value {
    let all = include_str!("../fixtures/api/rest-shapes.jsonl");
    let found = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["name"] == name);
    found.unwrap()["body"].clone()
}

#[test]
fn resources_have_the_recorded_shapes() {
    let world = World::start();
    for (name, path) in [
        ("list-masters", "masters"),
        ("builders", "builders"),
        ("list-workers", "workers"),
        ("list-builds", "builds"),
        ("build-by-id", "builds/101"),
        ("list-buildrequests", "buildrequests"),
        ("buildrequest", "buildrequests/11"),
        ("list-buildsets", "buildsets"),
        ("list-sourcestamps", "sourcestamps"),
        ("build-steps", "builds/101/steps"),
        ("step-logs", "steps/1001/logs"),
        ("contents-slice", "logs/5001/contents?offset=0&limit=2"),
    ] {
        let answer = world.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        same_shape(name, &recorded(name), &answer.json());
    }
}

#[test]
fn the_form_has_the_recorded_fields() {
    let world = World::start();
    let own = world.list("forceschedulers");
    let reference = recorded("list-forceschedulers");
    // The recorded master's first form is as plain as ours.
    let reference = &reference["forceschedulers"][0];
    assert_eq!(own.len(), 1);
    same_shape("form", reference, &own[0]);
    let groups = reference["all_fields"].as_array().unwrap();
    for (group, own) in groups.iter().zip(own[0]["all_fields"].as_array().unwrap()) {
        same_shape("group", group, own);
        let fields = group["fields"].as_array().unwrap();
        let own = own["fields"].as_array().unwrap();
        assert_eq!(fields.len(), own.len());
        for (field, own) in fields.iter().zip(own) {
            same_shape("field", field, own);
            assert_eq!(field["fullName"], own["fullName"]);
            assert_eq!(field["type"], own["type"]);
        }
    }
    assert_eq!(own[0]["builder_names"], json!(["unit", "slow build"]));
    assert_eq!(world.list("builders/1/forceschedulers").len(), 1);
    assert_eq!(world.list("builders/3/forceschedulers").len(), 0);
    assert_eq!(world.get("forceschedulers/force").json()["meta"], json!({}));
    assert_eq!(world.get("forceschedulers/nope").status, 404);
}

#[test]
fn a_resource_is_found_by_every_path_to_it() {
    let world = World::start();
    let build = world.list("builds/101");
    assert_eq!(build, world.list("builders/1/builds/1"));
    assert_eq!(build, world.list("builders/unit/builds/1"));
    assert_eq!(world.numbers("builders/slow%20build/builds", "buildid"), [103]);
    assert_eq!(world.numbers("builders/unit/builds", "buildid"), [101, 102]);
    assert_eq!(world.numbers("workers/1/builds", "buildid"), [101, 102, 103]);
    assert_eq!(world.numbers("buildrequests/12/builds", "buildid"), [102]);
    assert_eq!(world.numbers("builders/2/buildrequests", "buildrequestid"), [13, 14]);
    assert_eq!(world.numbers("builders/2/workers", "workerid"), [1, 2]);
    assert_eq!(world.numbers("workers/1/builders", "builderid"), [1, 2]);
    assert_eq!(world.list("workers/mac-1"), world.list("workers/2"));
    let step = world.list("steps/1002");
    for path in [
        "builds/101/steps/1",
        "builds/101/steps/test",
        "builders/1/builds/1/steps/1",
        "builders/unit/builds/1/steps/test",
    ] {
        assert_eq!(world.list(path), step, "{path}");
    }
    assert_eq!(world.list("builds/101/steps/test/logs/notes"), world.list("logs/5003"));
    assert_eq!(world.list("steps/1002/logs/notes"), world.list("logs/5003"));
    let stamp = &world.list("buildsets/1")[0]["sourcestamps"][0];
    assert_eq!(*stamp, world.list("sourcestamps/1")[0]);
    assert_eq!(world.list("masters/1"), world.list("masters/1"));
}

#[test]
fn incomplete_and_retired_things_say_so() {
    let world = World::start();
    let request = &world.list("buildrequests/14")[0];
    assert_eq!(request["results"], -1);
    assert_eq!(request["claimed"], false);
    assert_eq!(request["claimed_by_masterid"], Value::Null);
    assert_eq!(request["properties"], Value::Null);
    let build = &world.list("builds/103")[0];
    assert_eq!(build["results"], Value::Null);
    assert_eq!(build["complete"], false);
    assert_eq!(build["started_at"], 1201);
    assert_eq!(world.list("builders/3")[0]["masterids"], json!([]));
    let workers = world.list("workers");
    assert_eq!(workers[0]["connected_to"], json!([{"masterid": 1}]));
    assert_eq!(workers[1]["connected_to"], json!([]));
    // A retired builder counts no more.
    assert_eq!(workers[1]["configured_on"], json!([{"masterid": 1, "builderid": 2}]));
    // A build without a number is not there yet.
    assert_eq!(world.numbers("builds", "buildid"), [101, 102, 103]);
    assert_eq!(world.get("builds/104").status, 404);
}

#[test]
fn properties_are_shown_when_asked_for() {
    let world = World::start();
    assert_eq!(world.list("builds/101")[0]["properties"], json!({}));
    let one = &world.list("builds?property=suite&property=nope&buildid=101")[0];
    assert_eq!(one["properties"], json!({"suite": ["fast", "Force Build Form"]}));
    let all = &world.list("builds/101?property=*")[0];
    assert_eq!(all["properties"].as_object().unwrap().len(), 4);
    let request = &world.list("buildrequests/11?property=owner")[0];
    assert_eq!(request["properties"], json!({"owner": ["ann", "Force Build Form"]}));
    assert_eq!(world.list("builds/101/properties")[0]["branch"], json!(["main", "Build"]));
    assert_eq!(world.list("buildsets/1/properties")[0]["owner"][0], "ann");
    assert_eq!(world.list("buildrequests/14/properties")[0]["owner"][0], "ann");
    let missing = world.get("builds/99999/properties");
    assert_eq!(missing.json(), json!({"meta": {}, "properties": [{}]}));
}

#[test]
fn lists_are_filtered_ordered_and_cut() {
    let world = World::start();
    for (path, ids) in [
        ("builds?builderid=1", vec![101, 102]),
        ("builds?builderid__eq=1&builderid__eq=2", vec![101, 102, 103]),
        ("builds?complete=false", vec![103]),
        ("builds?complete=yes&order=-buildid", vec![102, 101]),
        ("builds?results__ne=0", vec![102, 103]),
        ("builds?results__in=0&results__in=2", vec![101, 102]),
        ("builds?results__lt=2", vec![101]),
        ("builds?buildid__gt=101&buildid__le=102", vec![102]),
        ("builds?buildid__lt=102&buildid__lt=103", vec![101, 102, 103]),
        ("builds?order=-buildid&limit=1", vec![103]),
        ("builds?order=-buildid&limit=1&offset=1", vec![102]),
        ("builds?limit=0", vec![]),
        ("builds?limit=-1", vec![101, 102, 103]),
        ("builds?order=-results", vec![102, 101, 103]),
        ("builds?started_at__ge=1101", vec![102, 103]),
        ("builds?state_string=build+successful", vec![101]),
        ("builds?state_string__contains=success", vec![101]),
        ("builds?buildid__foo=3&nope__eq=1", vec![101, 102, 103]),
        ("builds?builderid=1&number__eq=2&number__eq=3", vec![102]),
        ("builds?order=masterid&order=-buildid", vec![103, 102, 101]),
        ("builds?complete__ne=true", vec![103]),
    ] {
        assert_eq!(world.numbers(path, "buildid"), ids, "{path}");
    }
    let queue = "buildrequests?order=-priority&order=-submitted_at&claimed=false";
    assert_eq!(world.numbers(queue, "buildrequestid"), [14]);
    assert_eq!(world.numbers("buildrequests?results=-1", "buildrequestid"), [13, 14, 15]);
    let again = "buildsets?rebuilt_buildid=1&bsid__gt=1&limit=1&order=-bsid";
    assert_eq!(world.numbers(again, "bsid"), [2]);
    assert_eq!(world.numbers("builders?tags__contains=linux", "builderid"), [1]);
    assert!(world.list("builders?tags=linux").is_empty());
    assert_eq!(world.numbers("builders?masterids__contains=1", "builderid"), [1, 2]);
    assert_eq!(world.numbers("builders?order=-name&limit=2", "builderid"), [1, 2]);
    assert_eq!(world.numbers("builds/101/steps?number__eq=1", "stepid"), [1002]);
    assert_eq!(world.numbers("steps/1002/logs?slug__eq=notes", "logid"), [5003]);
    let meta = world.get("builds?limit=2").json()["meta"].clone();
    assert_eq!(meta, json!({"total": 3}));
    assert_eq!(world.list("builds?field=buildid&limit=1"), [json!({"buildid": 101})]);
}

#[test]
fn bad_questions_are_answered_with_errors() {
    let world = World::start();
    for (path, status, text) in [
        ("builds?nope=1", 400, "unrecognized query parameter 'nope'"),
        ("builds?field=nope", 400, "no such field 'nope'"),
        ("builds?order=-nope", 400, "no such field 'nope'"),
        ("builds?limit=x", 400, "invalid limit"),
        ("builds?offset=x", 400, "invalid offset"),
        ("builds?buildid=abc", 400, "invalid filter value for buildid"),
        ("builds?results=null", 400, "invalid filter value for results"),
        ("builds?results__in=0,2", 400, "invalid filter value for results__in"),
        ("builds?complete=maybe", 400, "invalid filter value for complete"),
        ("builds?properties=1", 400, "invalid filter value for properties"),
        ("builds?order=properties", 400, "cannot order on 'properties'"),
        ("builds?field=number&order=buildid", 400, "cannot order on un-selected fields"),
        ("builds?field=number&buildid=1", 400, "cannot filter on un-selected fields"),
        ("builds?buildid=%ff", 400, "query parameter that is not UTF-8"),
        ("builds/101?number=1", 400, "this is not a collection"),
        ("nope", 404, "Invalid path: nope"),
        ("", 404, "Invalid path: "),
        ("steps", 404, "Invalid path: steps"),
        ("builders/1/nope", 404, "Invalid path: builders/1/nope"),
    ] {
        let answer = world.get(path);
        assert_eq!((answer.status, answer.error().as_str()), (status, text), "{path}");
    }
    for path in [
        "builds/99999",
        "builds/-1",
        "builders/99",
        "builders/nope",
        "builders/",
        "builders/1/builds/99",
        "builders/1/builds/99999/steps",
        "steps/9",
        "builds/101/steps/99",
        "logs/9",
        "buildrequests/9",
        "buildsets/9",
        "workers/nope",
        "masters/2",
    ] {
        let answer = world.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.error().starts_with("not found while getting from"), "{path}");
    }
    for path in [
        "builds/99999/steps",
        "steps/99999/logs",
        "builders/nope/builds",
        "changes",
        "sourcestamps/1/changes",
        "schedulers",
    ] {
        assert_eq!(world.list(path), Vec::<Value>::new(), "{path}");
    }
}

#[test]
fn the_envelope_is_written_for_programs_and_for_people() {
    let world = World::start();
    let compact = world.get("masters/1");
    assert_eq!(compact.headers["content-type"], "application/json; charset=utf-8");
    assert!(!compact.body.contains(": "));
    assert_eq!(compact.headers["content-length"], compact.body.len().to_string());
    let shown = world.ask("GET", "/api/v2/masters/1", &[], "");
    assert_eq!(shown.headers["content-type"], "text/plain; charset=utf-8");
    assert!(shown.body.starts_with("{\n  \"masters\": ["));
    let head = world.ask("HEAD", "/api/v2/masters/1", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let root = world.ask("GET", "/api", &[], "").json();
    assert_eq!(root["api_versions"]["v2"], format!("{}/api/v2", world.url));
    assert_eq!(world.ask("GET", "/api/", &[], "").status, 404);
    let latest = world.ask("GET", "/api/latest/builders/1", &[], "").json();
    assert_eq!(latest["builders"][0]["name"], "unit");
    let links = world.ask("GET", "/api/v2", &[], "").json();
    for link in links["rootlinks"].as_array().unwrap() {
        let path = link["name"].as_str().unwrap();
        // The reference names this one too, and has nothing there either.
        let status = if path == "logchunks" { 404 } else { 200 };
        assert_eq!(world.get(path).status, status, "{path}");
    }
}

#[test]
fn methods_and_origins_are_checked() {
    let world = World::start();
    for method in ["PUT", "DELETE", "OPTIONS"] {
        let answer = world.ask(method, "/api/v2/builders/1", &[], "");
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid HTTP method"));
    }
    let own = world.url.clone();
    let same = world.ask("GET", "/api/v2/masters", &[("Origin", &own)], "");
    assert_eq!(same.status, 200);
    assert_eq!(same.headers["access-control-allow-origin"], own);
    let evil = [("Origin", "http://evil.example")];
    assert_eq!(world.ask("GET", "/api/v2/masters", &evil, "").error(), "invalid origin");
    let post = world.ask("POST", "/api/v2/builds/101", &evil, "{}");
    assert_eq!(post.json(), json!({"error": {"message": "invalid origin"}}));
    let ask = |method| {
        let headers = [("Origin", own.as_str()), ("Access-Control-Request-Method", method)];
        world.ask("OPTIONS", "/api/v2/masters", &headers, "")
    };
    assert_eq!((ask("POST").status, ask("POST").body.as_str()), (200, ""));
    assert_eq!((ask("PUT").status, ask("PUT").error().as_str()), (400, "invalid method"));
    assert_eq!(world.ask("GET", "/sse/listen", &evil, "").status, 400);
}

#[test]
fn the_text_of_logs_is_given_by_lines_and_whole() {
    let world = World::start();
    let chunk = world.list("logs/5001/contents?offset=1&limit=5");
    assert_eq!(chunk, [json!({"logid": 5001, "firstline": 1, "content": "eoops\nhdone <b>\n"})]);
    assert_eq!(world.list("logs/5003/contents")[0]["content"], "line one\nline two\n");
    assert_eq!(world.list("logs/5001/contents?offset=100&limit=5")[0]["content"], "");
    for path in ["?offset=100", "?limit=0", "?offset=-1"] {
        assert_eq!(world.get(&format!("logs/5001/contents{path}")).status, 404, "{path}");
    }
    assert_eq!(world.get("logs/9/contents?offset=0&limit=1").status, 404);
    let by_name = world.list("builders/unit/builds/1/steps/checkout/logs/stdio/contents");
    assert_eq!(by_name, world.list("logs/5001/contents"));

    let raw = world.get("logs/5001/raw");
    let heading = "Builder: unit\nBuild number: 1\nWorker name: linux-1\n";
    assert_eq!(raw.body, format!("{heading}cloning\noops\ndone <b>\n"));
    assert_eq!(raw.headers["content-type"], "text/plain; charset=utf-8");
    let name = "attachment; filename=unit_build_1_step_checkout_log_stdio";
    assert_eq!(raw.headers["content-disposition"], name);
    let text = world.get("builds/101/steps/1/logs/notes/raw_inline");
    assert_eq!(text.body, "line one\nline two\n");
    assert!(!text.headers.contains_key("content-disposition"));
    let html = world.get("logs/5004/raw_inline");
    assert_eq!(html.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(html.headers["content-security-policy"], "sandbox");
    assert_eq!(world.get("logs/9/raw").status, 404);
}

#[test]
fn progress_tells_how_far_a_build_is() {
    let world = World::start();
    let running = world.get("builders/slow%20build/builds/1/progress").json();
    assert_eq!(running["state"], "running");
    assert_eq!((&running["expected_s"], &running["eta"]), (&json!(null), &json!(null)));
    assert_eq!(running["step"], "compile");
    assert_eq!(running["last_line"], "building a");
    assert!(running["elapsed_s"].as_i64().unwrap() > 1_000_000);
    let ended = world.get("builds/101/progress").json();
    assert_eq!(ended["state"], "success");
    assert_eq!(ended["elapsed_s"], 59);
    assert_eq!(ended["step_elapsed_s"], 56);
    assert_eq!(world.get("builds/9/progress").status, 404);
}

#[test]
fn health_the_board_and_the_page_are_there() {
    let world = World::start();
    assert_eq!(world.ask("GET", "/health/live", &[], "").status, 200);
    assert_eq!(world.ask("GET", "/health/ready", &[], "").status, 200);
    let board = world.get("botmaster/board").json();
    assert_eq!(board["builders"]["slow build"]["big_state"], "building");
    assert_eq!(board["workers"]["linux-1"]["max_builds"], 2);
    let page = world.ask("GET", "/", &[], "");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    for text in ["Test &lt;CI&gt;", "slow build", "linux-1", "/api/v2/logs/5003/raw_inline"] {
        assert!(page.body.contains(text), "{text}");
    }
    world.board.show_draining();
    let ready = world.ask("GET", "/health/ready", &[], "");
    assert_eq!(ready.status, 503);
    assert!(ready.json()["reason"].as_str().unwrap().contains("drains"));
}

#[test]
fn names_cannot_put_tags_into_the_page() {
    let world = World::start();
    let evil = "UPDATE builders SET name = '<script>x</script>\"' WHERE id = 1";
    world.db.execute(evil, []).unwrap();
    let page = world.ask("GET", "/", &[], "");
    assert!(!page.body.contains("<script"));
    assert!(page.body.contains("&lt;script&gt;x&lt;/script&gt;&quot;"));
}

#[test]
fn b30_each_worker_event_is_on_the_builders_page_and_on_the_workers() {
    let world = World::start();
    assert_eq!(world.numbers("builders/unit/notes", "noteid"), [1, 2, 3]);
    assert_eq!(world.numbers("workers/1/notes", "noteid"), [1, 2, 4]);
    assert_eq!(world.list("workers/linux-1/notes"), world.list("workers/1/notes"));
    let failed = &world.list("workers/1/notes?text__contains=failed")[0];
    assert_eq!(failed["error"], "no folder", "with the error text");
    assert_eq!((&failed["at"], &failed["ended_at"]), (&1000.into(), &1000.into()));
    let latest = &world.list("workers/1/notes?order=-noteid&limit=1")[0];
    assert_eq!((&latest["text"], &latest["ended_at"]), (&"pinging".into(), &Value::Null));
    assert_eq!(world.get("workers/nobody/notes").status, 404);
}

#[test]
fn what_belongs_to_a_build_goes_with_it() {
    let world = World::start();
    let run = |sql: &str| world.db.execute_batch(sql).unwrap();
    let count = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        world.db.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    run("INSERT INTO build_data (build_id, name, source, value) VALUES
             (101, 'a', 's', x'00'), (102, 'a', 's', x'00');
         INSERT INTO test_result_sets VALUES
             (1, 1, 101, 1001, NULL, 'c', 'u', 1, 0, 1), (2, 1, 102, 1001, NULL, 'c', 'u', 1, 0, 1);
         INSERT INTO test_results VALUES
             (1, 1, 1, 't', NULL, NULL, NULL, '1'), (2, 1, 2, 't', NULL, NULL, NULL, '1');");
    assert_eq!(world.numbers("builds/101/test_result_sets", "test_result_setid"), [1]);
    assert_eq!(world.list("builds/101/data").len(), 1);
    let stamps = count("buildset_stamps");
    assert_eq!(stamps, 5);
    run("DELETE FROM builds WHERE id = 101; DELETE FROM buildsets WHERE id = 1;");
    for table in ["build_data", "test_result_sets", "test_results"] {
        assert_eq!(count(table), 1, "{table}");
    }
    assert_eq!(count("buildset_stamps"), stamps - 1);
    assert_eq!(world.numbers("test_result_sets", "test_result_setid"), [2]);
}
