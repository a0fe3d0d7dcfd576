//! Why build requests wait.

use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::core::views::{BuilderView, PauseView, WorkerView};
use serde_json::{Value, json};

use crate::support::World;

fn reasons(world: &World, request: u64) -> Value {
    let answer = world.get(&format!("buildrequests/{request}/reasons"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn worker(id: u64, used: u32) -> WorkerView {
    WorkerView {
        id: WorkerId(id),
        connected: true,
        incarnation: Incarnation(1),
        used,
        max_builds: 2,
        paused: false,
        graceful: false,
        address: None,
        clock_skew_ms: None,
        quarantine: None,
        instance: None,
    }
}

/// Shows the builder `slow build` with this word for `linux-1`.
fn show(world: &World, word: &'static str, change: impl FnOnce(&mut BuilderView)) {
    let mut view = world.board.builder(&"slow build".into()).unwrap().as_ref().clone();
    view.workers.insert("linux-1".into(), word);
    view.builds.clear();
    change(&mut view);
    world.board.show_builder(&"slow build".into(), view);
}

/// The word and the sentence for `linux-1`.
fn linux(told: &Value) -> (String, String) {
    let one = told["workers"].as_array().unwrap().iter().find(|one| one["name"] == "linux-1");
    let text = |key: &str| one.unwrap()[key].as_str().unwrap().to_owned();
    (text("reason"), text("text"))
}

#[test]
fn each_worker_has_its_own_reason() {
    let world = World::start();
    let whole = reasons(&world, 14);
    assert_eq!(whole["state"], "waiting");
    assert_eq!(whole["ahead"], 0);
    let mac =
        json!({"workerid": 2, "name": "mac-1", "reason": "offline", "text": "it is not attached"});
    assert_eq!(whole["workers"][1], mac);
    for (word, used, reason, sentence) in [
        ("idle", 0, "available", "it is behind others, or about to start"),
        ("idle", 2, "limit", "every worker that could take it is busy"),
        ("busy", 1, "limit", "every worker that could take it is busy"),
        ("building", 1, "busy", "every worker that could take it is busy"),
        ("substantiating", 1, "busy", "every worker that could take it is busy"),
        ("attaching", 0, "attaching", "its workers are being attached"),
    ] {
        show(&world, word, |_| {});
        world.board.show_worker(&"linux-1".into(), worker(1, used));
        let told = reasons(&world, 14);
        assert_eq!(linux(&told).0, reason, "{word}");
        assert_eq!(told["reason"], sentence, "{word}");
    }
    show(&world, "idle", |_| {});
    for (paused, graceful, reason) in [(true, false, "paused"), (false, true, "leaving")] {
        let view = WorkerView { paused, graceful, ..worker(1, 0) };
        world.board.show_worker(&"linux-1".into(), view);
        let told = reasons(&world, 14);
        assert_eq!(linux(&told).0, reason);
        assert_eq!(told["reason"], "every attached worker of its builder is paused");
    }
    world.db.execute("UPDATE workers SET pause_reason = 'hot' WHERE id = 1", []).unwrap();
    world.board.show_worker(&"linux-1".into(), WorkerView { paused: true, ..worker(1, 0) });
    assert_eq!(linux(&reasons(&world, 14)).1, "it is paused: hot");
    let pause = |reason: &str| PauseView { until: WallTime(9_000_000), reason: reason.into() };
    let away = "the workers that are free are left alone for a while";
    let set_aside = WorkerView { quarantine: Some(pause("lost 3 builds")), ..worker(1, 0) };
    world.board.show_worker(&"linux-1".into(), set_aside);
    let told = reasons(&world, 14);
    assert_eq!(linux(&told), ("quarantined".into(), "it is set aside: lost 3 builds".into()));
    assert_eq!(told["reason"], away);
    world.board.show_worker(&"linux-1".into(), worker(1, 0));
    show(&world, "idle", |view| {
        view.pauses.insert("linux-1".into(), pause("it refused a start"));
    });
    let told = reasons(&world, 14);
    assert_eq!(linux(&told).0, "resting");
    assert_eq!(linux(&told).1, "it is left alone for a while: it refused a start");
    assert_eq!(told["reason"], away);
    show(&world, "idle", |view| view.pauses.clear());
    world.board.forget_worker(&"linux-1".into());
    let told = reasons(&world, 14);
    assert_eq!(
        (linux(&told).0.as_str(), &told["reason"]),
        ("offline", &json!("no worker of its builder is attached"))
    );
}

#[test]
fn a_request_that_names_a_worker_waits_for_it() {
    let world = World::start();
    let names = |worker: &str| {
        let property = json!({"workername": {"value": worker, "source": "Force Build Form"}});
        let sql = "UPDATE buildsets SET properties = ?1 WHERE id = 4";
        world.db.execute(sql, [property.to_string()]).unwrap();
        reasons(&world, 14)
    };
    let told = names("mac-1");
    assert_eq!(linux(&told).0, "not_allowed");
    assert_eq!(told["reason"], "it names worker mac-1: it is not attached");
    let told = names("nobody");
    assert_eq!(told["reason"], "it names worker nobody, which its builder does not have");
    // One that there is, but not for this builder.
    world
        .db
        .execute("DELETE FROM builder_workers WHERE builder_id = 2 AND worker_id = 2", [])
        .unwrap();
    let told = names("mac-1");
    let mac = told["workers"].as_array().unwrap().iter().find(|one| one["name"] == "mac-1");
    assert_eq!(mac.unwrap()["reason"], "never_possible");
}

#[test]
fn what_holds_for_the_builder_comes_first() {
    let world = World::start();
    show(&world, "idle", |view| view.broken = Some("it panicked".into()));
    assert_eq!(reasons(&world, 14)["reason"], "its builder is broken: it panicked");
    let before = world.board.builder(&"slow build".into()).unwrap().builds.clone();
    assert!(before.is_empty());
    let world = World::start();
    let mut view = world.board.builder(&"slow build".into()).unwrap().as_ref().clone();
    view.max_builds = Some(1);
    world.board.show_builder(&"slow build".into(), view);
    assert_eq!(reasons(&world, 14)["reason"], "its builder has as many builds as it may: 1");
    let view = world.board.builder(&"slow build".into()).unwrap().as_ref().clone();
    world.board.show_builder(&"slow build".into(), BuilderView { max_builds: None, ..view });
    let full = "the disk is full: no new builds start until 20 MiB are free";
    world.board.show_full(Some(full.into()));
    assert_eq!(reasons(&world, 14)["reason"], full);
    world.board.show_draining();
    assert_eq!(reasons(&world, 14)["reason"], "the master is stopping");
    world.db.execute("UPDATE builders SET configured = 0 WHERE id = 2", []).unwrap();
    assert_eq!(reasons(&world, 14)["reason"], "its builder is no longer configured");
}

#[test]
fn when_it_starts_is_told_where_anybody_knows() {
    let world = World::start();
    show(&world, "idle", |_| {});
    world.board.show_worker(&"linux-1".into(), worker(1, 0));
    let start = &reasons(&world, 14)["start"];
    assert!(start["low_s"].is_number() && start["likely_s"].is_number(), "{start}");
    show(&world, "idle", |view| view.expected = None);
    assert_eq!(reasons(&world, 14)["start"], Value::Null);
}

#[test]
fn what_does_not_wait_has_no_reasons() {
    let world = World::start();
    for (request, state) in [(11, "complete"), (13, "building")] {
        let told = reasons(&world, request);
        assert_eq!((&told["state"], &told["reason"]), (&json!(state), &Value::Null));
    }
    assert_eq!(world.get("buildrequests/99/reasons").status, 404);
}
