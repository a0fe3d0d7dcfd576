//! Old builds of a running master go.

use nix::sys::signal::Signal;

use crate::kit::{Place, builder, run, until, worker};

const LONG: &str = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo line $i; done";

fn config(more: &str) -> String {
    format!("{more}{}{}", worker("w", 2), builder("b", "w", &[LONG]))
}

#[test]
fn fd14_builds_go_after_a_reload_with_rules_and_a_kill_in_between_loses_nothing() {
    let place = Place::new(&config(""));
    let master = place.master();
    let _worker = master.worker("w", 2);
    for _ in 0..12 {
        master.force("b");
    }
    for number in 1..=12 {
        master.ended_as("b", number, 0);
    }
    let (http, listen) = (master.http, master.listen);

    // What would go is told first, and nothing goes.
    place.configure(&config("[retention]\nbuilds = 4\n"));
    let ran = run(place.program().args(["housekeeping", "--config", "x.toml"])).expect(0);
    assert!(ran.out.contains("b: 8 of 12 builds would go"), "{}", ran.all());
    let ran = run(place.program().args(["check", "--config", "x.toml"])).expect(0);
    assert!(ran.out.contains("kept: the newest 4 builds"), "{}", ran.all());
    assert_eq!(master.list("builders/b/builds").len(), 12);

    // The master is killed in the commit that removes them.
    drop(master);
    let mut killed = place.master_command(http, listen);
    killed.env("BOTMASTER_CRASH_POINT", "cleanup.batch:1");
    let mut killed = crate::kit::Process::start(&mut killed, &place.path("killed.log"));
    let status = until("the housekeeping kills it", || killed.has_ended());
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(Signal::SIGKILL as i32)
    );

    let master = place.master_at(http, listen);
    until("old builds are gone", || (master.list("builders/b/builds").len() == 4).then_some(()));
    let view = until("it says what it did", || {
        let view = master.board()["store"]["housekeeping"].clone();
        (view["at_work"] == false && view["done_at"].is_i64()).then_some(view)
    });
    assert_eq!((&view["builds"], &view["logs"]), (&8.into(), &8.into()), "{view}");
    let kept: Vec<String> = (1..=1000).map(|n| format!("line {n}")).collect();
    for number in 9..=12 {
        assert_eq!(master.log("b", number, 0, 'o'), kept);
    }
    assert!(master.build("b", 8).is_none());
    // Numbers go on, and a build is built as ever.
    master.force("b");
    master.ended_as("b", 13, 0);

    // A reload changes the rules at once.
    place.configure(&config("[retention]\nbuilds = 2\n"));
    master.cli(&["reload"]).expect(0);
    until("the rules of the reload hold", || {
        (master.list("builders/b/builds").len() == 2).then_some(())
    });
    run(place.program().args(["check", "--config", "x.toml", "--store"])).expect(0);
}
