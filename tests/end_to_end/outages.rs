//! The store of the real program is out of reach for longer than the lease
//! (row FD02, invariants I3 and I12).

use std::time::{Duration, Instant};

use crate::kit::{Place, assert_counted, builder, counting, until, worker};

const TIMERS: &str = "
[timers]
heartbeat = \"1 s\"
lease = \"4 s\"
kill_time = \"1 s\"
grace = \"8 s\"
handshake = \"3 s\"
";

fn place(store: &str) -> Place {
    let place = Place::new("");
    place.configure_all(&format!(
        "{TIMERS}{store}{}{}",
        worker("w1", 1),
        builder("long", "w1", &[&counting("go")])
    ));
    place
}

/// Another program has the state file, and keeps it.
fn take_the_store(place: &Place) -> rusqlite::Connection {
    let taken = rusqlite::Connection::open(place.path("data/state.sqlite")).unwrap();
    taken.busy_timeout(Duration::from_secs(20)).unwrap();
    taken.execute_batch("BEGIN IMMEDIATE").unwrap();
    taken
}

/// What the worker's program wrote.
fn worker_says(place: &Place) -> String {
    std::fs::read_to_string(place.path("worker-w1.log")).unwrap_or_default()
}

#[test]
fn fd02_i12_without_the_store_builds_end_at_the_lease_and_are_queued_again() {
    let place = place("");
    let master = place.master();
    let _w1 = master.worker("w1", 1);
    let request = master.force("long");
    master.said("long", 1, 0, "line 1");
    let begun = Instant::now();
    let taken = take_the_store(&place);
    until("the worker ends its build", || worker_says(&place).contains("lease").then_some(()));
    let lease = begun.elapsed();
    assert!(lease > Duration::from_secs(2) && lease < Duration::from_secs(12), "{lease:?}");
    assert!(
        master.ignored("heartbeats that the store could not keep") > 0
            || begun.elapsed() < Duration::from_secs(6)
    );
    taken.execute_batch("ROLLBACK").unwrap();
    // Once the store is back, it is queued again and built.
    let lost = master.ended("long", 1);
    assert_eq!(lost["results"], 5, "retry: {lost}");
    assert_eq!(master.request(request)["complete"], false);
    master.said("long", 2, 0, "line 1");
    place.open("go");
    master.ended_as("long", 2, 0);
    assert_counted(&master.log("long", 2, 0, 'o'));
    assert_eq!(master.request(request)["results"], 0);
}

#[test]
fn fd02_keep_running_lets_builds_go_on_without_the_store() {
    let place = place("[store]\noutage = \"keep_running\"\n");
    let checked = place.cli(&["check", "--config", "x.toml"]).expect(0).all();
    assert!(checked.contains("nothing keeps a build from running twice"), "{checked}");
    let master = place.master();
    let _w1 = master.worker("w1", 1);
    master.force("long");
    master.said("long", 1, 0, "line 1");
    let taken = take_the_store(&place);
    // Twice the lease and more.
    let end = Instant::now() + Duration::from_secs(10);
    until("ten seconds have passed", || (Instant::now() >= end).then_some(()));
    assert!(!worker_says(&place).contains("lease"), "{}", worker_says(&place));
    taken.execute_batch("ROLLBACK").unwrap();
    place.open("go");
    master.ended_as("long", 1, 0);
    assert_counted(&master.log("long", 1, 0, 'o'));
    assert_eq!(master.board()["workers"]["w1"]["incarnation"], 1);
}
