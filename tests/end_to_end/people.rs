//! What people order of workers.

use std::time::Duration;

use crate::kit::{Place, assert_counted, builder, counting, until, within, worker};

fn place() -> Place {
    Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[&counting("go")])))
}

#[test]
fn fa13_a_paused_worker_finishes_and_takes_nothing_until_it_is_unpaused() {
    let place = place();
    let mut master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    let ran = master.cli(&["pause", "w", "--reason", "new disk"]).expect(0);
    assert_eq!(ran.out, "worker w is paused\n");
    master.force("b");
    master.counts_on("b", 1);
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    let paused =
        |out: &str| out.lines().any(|line| line.starts_with("w ") && line.contains("paused"));
    let ran = master.cli(&["workers"]).expect(0);
    assert!(paused(&ran.out) && ran.out.contains("new disk"), "{}", ran.all());
    // Nothing has to happen for a while: only the absence can be seen.
    assert!(within(Duration::from_millis(500), || master.build("b", 2)).is_none());
    // It still holds after a restart.
    master.process.kill();
    let master = master.again();
    master.attached("w");
    let ran = master.cli(&["workers"]).expect(0);
    assert!(paused(&ran.out), "{}", ran.all());
    assert!(within(Duration::from_millis(500), || master.build("b", 2)).is_none());
    // FA14: a start is tried at once.
    let ran = master.cli(&["unpause", "w"]).expect(0);
    assert_eq!(ran.out, "worker w takes builds again\n");
    master.ended_as("b", 2, 0);
}

#[test]
fn b28_a_drained_worker_and_one_shut_down_end_after_their_builds() {
    for (number, order) in [(1, "drain"), (2, "shutdown")] {
        let place = place();
        let master = place.master();
        let ran = master.cli(&[order, "w"]).expect(2);
        assert!(ran.err.contains("worker `w` is not attached"), "{}", ran.all());
        let mut worker = master.worker("w", 1);
        master.force("b");
        master.said("b", 1, 0, "line 1");
        master.force("b");
        let ran = master.cli(&[order, "w", "--reason", "kernel update"]).expect(0);
        assert!(ran.out.contains("once its builds have ended"), "{}", ran.all());
        master.counts_on("b", 1);
        assert!(worker.has_ended().is_none());
        place.open("go");
        master.ended_as("b", 1, 0);
        assert_counted(&master.log("b", 1, 0, 'o'));
        assert_eq!(worker.code_within(Duration::from_secs(20)), Some(0), "case {number}");
        master.away("w");
        assert!(master.build("b", 2).is_none(), "a leaving worker takes nothing");
        // One that comes back is welcome and takes what waits.
        let _again = master.worker("w", 1);
        master.ended_as("b", 2, 0);
    }
}

#[test]
fn a_worker_program_that_is_asked_to_end_lets_its_build_end() {
    let place = place();
    let master = place.master();
    let mut worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    until("the master knows that it leaves", || {
        (master.board()["workers"]["w"]["graceful"] == true).then_some(())
    });
    master.force("b");
    master.counts_on("b", 1);
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_eq!(worker.code_within(Duration::from_secs(20)), Some(0));
    assert!(master.build("b", 2).is_none());
}
