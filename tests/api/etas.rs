//! Expected times, by the API, the commands and the page.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::World;

/// A world whose builders have some history: `slow build` compiles for 100 s
/// and tidies up for 20 s, and its build has compiled for 30 s.
fn world_with_history() -> World {
    let world = World::start();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(since.as_micros()).unwrap();
    let text = "2\nf\n1\n100000000=compile\t20000000=tidy\n";
    let sql = "UPDATE builders SET expectations = ?1 WHERE id = 2";
    assert_eq!(world.db.execute(sql, [text]).unwrap(), 1);
    let sql = "UPDATE builds SET started_at = ?1 WHERE id = 103";
    assert_eq!(world.db.execute(sql, [now - 40_000_000]).unwrap(), 1);
    let sql = "UPDATE steps SET started_at = ?1 WHERE id = 1003";
    assert_eq!(world.db.execute(sql, [now - 30_000_000]).unwrap(), 1);
    world
        .db
        .execute_batch(
            "UPDATE builders SET last_number = 2 WHERE id = 1;
             INSERT INTO predictions VALUES (103, 1, 60000000, 120000000, 240000000),
                 (101, 3, 40000000, 50000000, 60000000), (102, 3, 40000000, 50000000, 60000000);
             INSERT INTO request_predictions VALUES
                 (11, 1010000000, 0, 1000000, 2000000, 20000000, 30000000, 40000000);",
        )
        .unwrap();
    world
}

fn about(value: &Value, seconds: f64) {
    let got = value.as_f64().unwrap_or_else(|| panic!("no number: {value}"));
    assert!((got - seconds).abs() <= 8.0, "{got} is not about {seconds}");
}

#[test]
fn b19_a_running_build_has_an_interval_of_time_left() {
    let world = world_with_history();
    let progress = world.get("builds/103/progress").json();
    assert_eq!(progress["expected_s"], 120);
    let eta = &progress["eta"];
    assert_eq!(eta["expected"], json!({ "low_s": 60.0, "likely_s": 120.0, "high_s": 240.0 }));
    about(&eta["left"]["likely_s"], 90.0);
    about(&eta["left"]["low_s"], 45.0);
    about(&eta["left"]["high_s"], 180.0);
    assert_eq!((&eta["left"]["late_s"], &eta["took_s"]), (&json!(null), &json!(null)));
    let (_, out, _) = world.run(&["builds"]);
    let line = out.lines().find(|line| line.starts_with("slow build/1")).unwrap();
    assert!(line.contains("1–3 min left") || line.contains("1–4 min left"), "{out}");
    let (_, out, _) = world.run(&["build", "103"]);
    assert!(out.contains("Expected 2m00s (1m00s–4m00s)"), "{out}");
    assert!(out.contains("1m40s (50s–3m20s)  compiling"), "{out}");
    let page = world.ask("GET", "/", &[], "").body;
    assert!(page.contains(" min ") && page.contains(" s left"), "{page}");
}

#[test]
fn b19_a_build_that_takes_longer_than_all_before_is_late() {
    let world = world_with_history();
    let sql = "UPDATE steps SET started_at = started_at - 100000000 WHERE id = 1003";
    world.db.execute(sql, []).unwrap();
    let left = world.get("builds/103/progress").json()["eta"]["left"].take();
    about(&left["late_s"], 30.0);
    about(&left["likely_s"], 50.0);
    let (_, out, _) = world.run(&["builds", "slow build"]);
    assert!(out.contains("late by "), "{out}");
    assert!(world.ask("GET", "/", &[], "").body.contains("late by "));
}

#[test]
fn b19_a_request_that_waits_has_an_interval_for_its_start_and_its_end() {
    let world = world_with_history();
    let etas = world.get("botmaster/etas").json();
    assert_eq!(etas["builds"].as_object().unwrap().len(), 1);
    let eta = &etas["requests"]["14"];
    about(&eta["start"]["likely_s"], 90.0);
    about(&eta["end"]["low_s"], 45.0 + 45.0);
    about(&eta["end"]["likely_s"], 90.0 + 90.0);
    about(&eta["end"]["high_s"], 180.0 + 180.0);
    let (_, out, _) = world.run(&["queue"]);
    let head: Vec<_> = out.lines().next().unwrap().split_whitespace().collect();
    assert!(head.ends_with(&["STARTS", "ENDS"]), "{out}");
    assert!(out.contains("in 1–3 min") && out.contains("–6 min"), "{out}");
    let (_, out, _) = world.run(&["--json", "queue"]);
    let row: Value = serde_json::from_str(out.trim()).unwrap();
    about(&row["eta"]["start"]["likely_s"], 90.0);
}

#[test]
fn b19_how_far_off_it_was_is_told() {
    let world = world_with_history();
    let known = world.get("builders/slow%20build/expectations").json();
    assert_eq!(known["learnt_from"], 1);
    assert_eq!(known["total"]["likely_s"], 120.0);
    assert_eq!(
        known["steps"][1],
        json!({ "name": "tidy", "low_s": 10.0, "likely_s": 20.0, "high_s": 40.0 })
    );
    assert_eq!(known["builds"], json!({ "ended": 0, "within": 0, "median_off_percent": null }));
    let known = world.get("builders/1/expectations").json();
    // 102 failed: that says nothing of how long builds take.
    let off = json!({ "ended": 1, "within": 1, "median_off_percent": 17.0 });
    assert_eq!(known["builds"], off);
    // It ended 50 s after it was expected to end within 20 to 40 s.
    let off = json!({ "ended": 1, "within": 0, "median_off_percent": 66.6 });
    assert_eq!(known["requests"], off);
    let (_, out, _) = world.run(&["builds", "unit"]);
    assert!(out.contains("within (+17 %)"), "{out}");
    let failed = world.get("botmaster/etas?buildid=102&buildid=9").json();
    assert_eq!(failed["builds"].as_object().unwrap().len(), 1);
    assert_eq!(failed["builds"]["102"]["off_percent"], 18.0);
    assert_eq!(failed["builds"]["102"]["counts"], false);
    let (_, out, _) = world.run(&["builders"]);
    assert!(out.contains("1m30s (45s–3m00s)"), "{out}");
    assert_eq!(world.get("builders/nope/expectations").status, 404);
    for bad in ["buildid=x", "other=1"] {
        assert_eq!(world.get(&format!("botmaster/etas?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn without_history_nothing_is_promised() {
    let world = World::start();
    let progress = world.get("builds/103/progress").json();
    assert_eq!(progress["eta"], json!(null));
    let known = world.get("builders/1/expectations").json();
    assert_eq!((&known["learnt_from"], &known["total"]), (&json!(0), &json!(null)));
    let sql = "DELETE FROM requests WHERE id = 14";
    world.db.execute(sql, []).unwrap();
    assert_eq!(world.get("botmaster/etas").json()["requests"], json!({}));
}
