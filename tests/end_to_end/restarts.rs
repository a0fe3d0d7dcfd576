//! Masters and workers that are killed in the middle of a build.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kit::{
    Place, Process, assert_counted, builder, counting, is_alive, until, waiting, within, worker,
};

#[test]
fn fr05_a_worker_killed_with_its_build_comes_back_and_builds_the_request_again() {
    let line = format!("echo $$ >> @DIR@/pids; echo begun; {}; echo done", waiting("go"));
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[&line])));
    let master = place.master();
    let mut first = master.worker("w", 1);
    let request = master.force("b");
    let waits = master.force("b");
    master.said("b", 1, 0, "begun");
    let old: i32 = place.written("pids").trim().parse().unwrap();
    let keepers = place.keepers("w");
    assert_eq!(keepers.len(), 1, "one for the build");
    first.kill();
    kill(Pid::from_raw(keepers[0]), Signal::SIGKILL).unwrap();
    master.away("w");
    assert_eq!(master.running("b", 1)["complete"], false, "it is kept for its worker");

    let _second = master.worker("w", 1);
    let lost = master.ended_as("b", 1, 5);
    let text = lost["state_string"].as_str().unwrap();
    assert!(text.starts_with("worker lost: ") && text.ends_with("queued again"), "{text}");
    // The same request goes before the one that waits, and gets the next number.
    master.said("b", 2, 0, "begun");
    assert_eq!(master.running("b", 2)["buildrequestid"], request);
    assert!(!is_alive(old), "I3: the lost build's process still runs beside the new one");
    place.open("go");
    master.ended_as("b", 2, 0);
    assert_eq!(master.ended_as("b", 3, 0)["buildrequestid"], waits);
    assert_eq!(master.log("b", 2, 0, 'o'), ["begun", "done"]);
    assert_eq!(master.log("b", 1, 0, 'o'), ["begun"]);
    assert_eq!(master.request(request)["results"], 0);
}

/// A master that is killed by `end` while a build runs and one waits; the next
/// one takes the build up as if nothing had happened.
fn a_master_comes_back(end: impl FnOnce(&mut Process)) {
    let place = Place::new(&format!(
        "{}{}",
        worker("w", 1),
        builder("b", "w", &[&counting("go"), "echo second"])
    ));
    let mut master = place.master();
    let mut worker = master.worker("w", 1);
    let request = master.force("b");
    let waits = master.force("b");
    master.said("b", 1, 0, "line 3");
    let before = master.running("b", 1);
    end(&mut master.process);

    let master = master.again();
    let orphan = master.running("b", 1);
    assert_eq!(orphan["buildid"], before["buildid"]);
    assert_eq!(orphan["started_at"], before["started_at"]);
    master.counts_on("b", 1);
    place.open("go");
    let after = master.ended_as("b", 1, 0);
    assert_eq!(
        (&after["buildid"], after["buildrequestid"].as_i64()),
        (&before["buildid"], Some(request))
    );
    let lines = master.log("b", 1, 0, 'o');
    assert_counted(&lines);
    assert_eq!(master.log("b", 1, 1, 'o'), ["second"]);
    // What waited is built next, once.
    assert_eq!(master.ended_as("b", 2, 0)["buildrequestid"], waits);
    assert_eq!(master.list("builders/b/builds").len(), 2);
    assert!(worker.has_ended().is_none(), "the worker program was there all the time");
}

#[test]
fn fm03_a_killed_master_takes_its_running_build_back_with_its_whole_log() {
    a_master_comes_back(|master| master.kill());
}

#[test]
fn i20_sigterm_ends_a_master_in_time_and_its_build_goes_on() {
    a_master_comes_back(|master| {
        let begun = Instant::now();
        master.signal(Signal::SIGTERM);
        assert_eq!(master.code_within(Duration::from_secs(15)), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(15));
    });
}

#[test]
fn i12_a_stop_that_was_told_survives_the_death_of_the_master() {
    // A process that heeds no TERM: the stop cannot have come through yet.
    let line = "trap '' TERM; echo $$ >> @DIR@/pids; echo begun; \
        while [ -d @DIR@ ]; do sleep 0.1; done";
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[line, "true"])));
    let mut master = place.master();
    let worker = master.worker("w", 1);
    let request = master.force("b");
    master.said("b", 1, 0, "begun");
    let pid: i32 = place.written("pids").trim().parse().unwrap();
    // Its worker is as good as away, so that nobody but the store knows.
    worker.signal(Signal::SIGSTOP);
    master.cli(&["stop", "b/1", "--reason", "no need"]).expect(0);
    master.process.kill();
    worker.signal(Signal::SIGCONT);

    let master = master.again();
    let build = master.ended_as("b", 1, 6);
    assert_eq!(build["state_string"], "cancelled (no need)");
    assert_eq!(master.request(request)["results"], 6);
    master.attached("w");
    let gone = within(Duration::from_secs(30), || (!is_alive(pid)).then_some(()));
    assert!(gone.is_some(), "process {pid} outlived its build");
    assert_eq!(master.list("builders/b/builds").len(), 1);
    assert_eq!(place.written("pids").lines().count(), 1, "nothing ran twice");
    assert_eq!(master.one("builders/b/builds/1/steps/1"), None, "no step after a stop");
}

#[test]
fn fr10_a_build_that_ends_while_the_master_is_away_is_delivered_later() {
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[&counting("go")])));
    let mut master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 3");
    master.process.kill();
    place.open("go");
    // The end is reached only at the worker, which writes about it.
    until("the worker sees the command's end", || {
        let told = std::fs::read_to_string(place.path("worker-w.log")).unwrap();
        told.contains("command ended").then_some(())
    });
    let master = master.again();
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
}

#[test]
fn fm09_sigterm_with_a_drain_waits_for_the_build_and_takes_no_new_one() {
    let place = Place::new("");
    place.configure(&format!(
        "[master]\ndrain = \"30 s\"\n{}{}",
        worker("w", 1),
        builder("b", "w", &[&counting("go")])
    ));
    let mut master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    master.process.signal(Signal::SIGTERM);
    until("the master drains", || (master.board()["draining"] == true).then_some(()));
    let ran = master.cli(&["force", "b"]).expect(2);
    assert!(ran.err.contains("the master is stopping and takes no new requests"), "{}", ran.all());
    master.counts_on("b", 1);
    place.open("go");
    assert_eq!(master.process.code_within(Duration::from_secs(15)), Some(0));
    let master = master.again();
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
}

#[test]
fn i20_a_second_sigterm_ends_a_draining_master_within_two_seconds() {
    let place = Place::new("");
    place.configure(&format!(
        "[master]\ndrain = \"1 h\"\n{}{}",
        worker("w", 1),
        builder("b", "w", &[&counting("go")])
    ));
    let mut master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    master.process.signal(Signal::SIGTERM);
    until("the master drains", || (master.board()["draining"] == true).then_some(()));
    let begun = Instant::now();
    master.process.signal(Signal::SIGTERM);
    assert_eq!(master.process.code_within(Duration::from_secs(10)), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let master = master.again();
    master.counts_on("b", 1);
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
}

#[test]
fn i1_requests_that_wait_outlive_a_killed_master_in_their_order() {
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &["true"])));
    let mut master = place.master();
    let low = master.force("b");
    let params = serde_json::json!({ "builderNames": ["b"], "priority": 5 });
    master.ordered("forceschedulers/force", "force", &params);
    let last = master.force("b");
    master.process.kill();
    let master = master.again();
    assert_eq!(master.board()["builders"]["b"]["waiting"], 3);
    let _worker = master.worker("w", 1);
    let order: Vec<i64> =
        (1..=3).map(|n| master.ended_as("b", n, 0)["buildrequestid"].as_i64().unwrap()).collect();
    assert_eq!(order, [low + 1, low, last]);
}

#[test]
fn fm04_a_worker_that_was_removed_while_the_master_was_down_loses_its_build() {
    // It may build on until its lease is over, wherever it is, so that nobody
    // builds again before the grace is: a short one here.
    let timers = "[timers]\nheartbeat = \"1 s\"\nlease = \"3 s\"\n\
                  kill_time = \"1 s\"\ngrace = \"5 s\"\n";
    let config = |name: &str| {
        format!("{timers}{}{}", worker(name, 1), builder("b", name, &[&counting("go")]))
    };
    let place = Place::new("");
    place.configure_all(&config("old"));
    let mut master = place.master();
    let mut old = master.worker("old", 1);
    let request = master.force("b");
    master.said("b", 1, 0, "line 1");
    master.process.kill();
    place.configure_all(&config("new"));
    let master = master.again();
    let lost = master.ended_as("b", 1, 5);
    let text = lost["state_string"].as_str().unwrap();
    assert!(text.contains("old is not configured") && text.contains("queued again"), "{text}");
    // The old worker hears that it is not wanted any more, and ends its build.
    assert_eq!(old.code_within(Duration::from_secs(30)), Some(78));
    let _new = master.worker("new", 1);
    master.said("b", 2, 0, "line 1");
    assert_eq!(master.running("b", 2)["buildrequestid"], request);
    place.open("go");
    master.ended_as("b", 2, 0);
    assert!(within(Duration::from_secs(1), || master.build("b", 3)).is_none());
}
