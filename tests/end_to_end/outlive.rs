//! Builds that go on while their worker program is dead or frozen.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::kit::{
    Place, assert_counted, builder, counting, is_alive, until, waiting, within, worker,
};

#[test]
fn fr04_i3_i9_a_killed_worker_program_comes_back_with_its_build() {
    let first = format!("echo $$ >> @DIR@/pids; {}", counting("go"));
    let config = format!("{}{}", worker("w", 1), builder("b", "w", &[&first, "echo second"]));
    let place = Place::new(&config);
    let master = place.master();
    let mut program = master.worker("w", 1);
    let request = master.force("b");
    master.said("b", 1, 0, "line 3");
    let pid: i32 = place.written("pids").trim().parse().unwrap();
    for _ in 0..2 {
        program.kill();
        master.away("w");
        assert!(is_alive(pid), "the build goes on without it");
        program = master.worker("w", 1);
        master.counts_on("b", 1);
    }
    place.open("go");
    let build = master.ended_as("b", 1, 0);
    assert_eq!(build["buildrequestid"], request);
    assert_counted(&master.log("b", 1, 0, 'o'));
    assert_eq!(master.log("b", 1, 1, 'o'), ["second"]);
    assert_eq!(place.written("pids").lines().count(), 1, "it ran once");
    assert_eq!(master.list("builders/b/builds").len(), 1);
    until("its keeper has gone", || place.keepers("w").is_empty().then_some(()));
}

#[test]
fn fr04_fm03_master_and_worker_program_are_killed_together() {
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[&counting("go")])));
    let mut master = place.master();
    let mut program = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 3");
    master.process.kill();
    program.kill();
    let master = master.again();
    let _program = master.worker("w", 1);
    master.counts_on("b", 1);
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    assert_eq!(master.list("builders/b/builds").len(), 1);
}

#[test]
fn fr10_a_build_that_ends_while_its_worker_program_is_dead_is_delivered_later() {
    let line = format!("{}; touch @DIR@/over", counting("go"));
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[&line])));
    let master = place.master();
    let mut program = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 3");
    program.kill();
    master.away("w");
    place.open("go");
    until("the command ends", || place.path("over").exists().then_some(()));
    let _program = master.worker("w", 1);
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    let journals = place.path("workers/w/.botmaster/builds");
    until("its journal is deleted", || {
        std::fs::read_dir(&journals).unwrap().next().is_none().then_some(())
    });
}

/// Better than row FR14 asks: no second run overlaps with the first.
#[test]
fn fr14_i3_a_build_of_a_frozen_worker_program_has_ended_before_it_is_built_again() {
    let timers = "[timers]\nheartbeat = \"1 s\"\nlease = \"3 s\"\n\
                  kill_time = \"1 s\"\ngrace = \"6 s\"\n";
    // Each run looks for those before it.
    let line = format!(
        "cat @DIR@/pids 2>/dev/null | while read pid; do kill -0 $pid && echo overlaps; done; \
         echo $$ >> @DIR@/pids; echo begun; {}",
        waiting("go")
    );
    let two = builder("b", "w1", &[&line]).replace("[\"w1\"]", "[\"w1\", \"w2\"]");
    let place = Place::new("");
    place.configure_all(&format!("{timers}{}{}{two}", worker("w1", 1), worker("w2", 1)));
    let master = place.master();
    let frozen = master.worker("w1", 1);
    let request = master.force("b");
    master.said("b", 1, 0, "begun");
    let pid: i32 = place.written("pids").trim().parse().unwrap();
    let _other = master.worker("w2", 1);
    frozen.signal(Signal::SIGSTOP);
    let gone = within(Duration::from_secs(20), || (!is_alive(pid)).then_some(()));
    gone.expect("the build outlives its lease");
    let lost = master.ended_as("b", 1, 5);
    assert!(lost["state_string"].as_str().unwrap().ends_with("queued again"), "{lost}");
    master.said("b", 2, 0, "begun");
    assert_eq!(master.running("b", 2)["buildrequestid"], request);
    // When it wakes, nothing that it says counts.
    frozen.signal(Signal::SIGCONT);
    place.open("go");
    master.ended_as("b", 2, 0);
    master.attached("w1");
    assert_eq!(master.list("builders/b/builds").len(), 2);
    for number in [1, 2] {
        assert_eq!(master.log("b", number, 0, 'o'), ["begun"], "build {number}");
    }
}
