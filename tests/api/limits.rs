//! Heavy questions: each has a limit in rows and in time, and what goes beyond
//! ends with an error in the shape of all errors.

use std::time::Duration;

use rusqlite::Connection;

use crate::support::World;

/// So many builds of one builder, with one request each.
fn many(db: &Connection, builds: u32) {
    db.execute_batch(&format!(
        "INSERT INTO builders (id, name, tags, configured) VALUES (1, 'unit', '[]', 1);
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {builds})
         INSERT INTO builds (id, claim, builder_id, number, request_id, worker_id, incarnation,
             state, started_at, complete_at, results, state_string, factory_digest, properties)
         SELECT n, 'c', 1, n, n, 1, 1, 2, n, n, 0, 'build successful', 'f', '{{}}' FROM n;"
    ))
    .unwrap();
}

#[test]
fn a_question_that_takes_too_long_ends_with_an_error_and_the_next_one_is_answered() {
    let world = World::hurried(|db| many(db, 20_000), Duration::ZERO);
    for _ in 0..20 {
        let heavy = world.get("builds?state_string__contains=nowhere&order=state_string");
        assert_eq!(heavy.status, 503, "{}", heavy.body);
        assert_eq!(heavy.headers["content-type"], "text/plain; charset=utf-8");
        assert!(heavy.error().contains("took too long; ask for less"), "{}", heavy.body);
        assert!(heavy.headers.contains_key("x-request-id"));
    }
    // More than there are connections, and each of them still works.
    assert_eq!(world.list("builds/20000")[0]["buildid"], 20_000);
}

#[test]
fn no_question_is_answered_with_more_than_ten_thousand_rows() {
    let world = World::over(|db| many(db, 10_002), Default::default(), "host:/srv/ci");
    let answer = world.get("builds?field=buildid").json();
    assert_eq!(answer["builds"].as_array().unwrap().len(), 10_000);
    assert_eq!(answer["meta"], serde_json::json!({"total": 10_000, "total_is_lower_bound": true}));
    let few = world.get("builds?field=buildid&buildid__gt=5&limit=2").json();
    assert_eq!(few["meta"]["total"], 9_997);
    let rest = world.get("builds?field=buildid&offset=10000").json();
    assert_eq!(rest["builds"], serde_json::json!([{"buildid": 10_001}, {"buildid": 10_002}]));
    assert_eq!(rest["meta"], serde_json::json!({"total": 10_002}));
}
