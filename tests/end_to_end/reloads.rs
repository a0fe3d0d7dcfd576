//! The configuration is read again while everything runs.

use nix::sys::signal::Signal;

use crate::kit::{Place, assert_counted, builder, counting, is_alive, until, waiting, worker};

#[test]
fn fc02_a_running_build_ends_with_its_old_steps_and_the_next_has_the_new_ones() {
    let config = |second: &str| {
        format!(
            "{}{}{}",
            worker("w", 2),
            builder("b", "w", &[&counting("go"), second]),
            builder("same", "w", &[&counting("go")])
        )
    };
    let place = Place::new(&config("echo old steps"));
    let master = place.master();
    let _worker = master.worker("w", 2);
    master.force("b");
    master.force("same");
    master.said("b", 1, 0, "line 1");
    master.said("same", 1, 0, "line 1");
    master.force("b");
    place.configure(&config("echo new steps"));
    let ran = master.cli(&["plan"]).expect(0);
    assert!(ran.out.contains("changed   builder b\n"), "{}", ran.all());
    assert!(ran.out.contains("Nothing was changed: this is a plan."), "{}", ran.all());
    let ran = master.cli(&["reload"]).expect(0);
    assert!(
        ran.out.contains("changed   builder b\n") && ran.out.contains("factory"),
        "{}",
        ran.all()
    );
    assert!(ran.out.ends_with("2 unchanged. Done.\n"), "{}", ran.all());
    let board = master.board();
    assert_eq!(board["builders"]["b"]["generation"], 2);
    assert_eq!(board["builders"]["same"]["generation"], 1, "T08: it is not touched");
    assert_eq!(board["builders"]["b"]["builds"][0]["inherited"], true);
    master.counts_on("b", 1);
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_eq!(master.log("b", 1, 1, 'o'), ["old steps"]);
    assert_counted(&master.log("b", 1, 0, 'o'));
    master.ended_as("b", 2, 0);
    assert_eq!(master.log("b", 2, 1, 'o'), ["new steps"]);
    master.ended_as("same", 1, 0);
    assert_eq!(master.board()["workers"]["w"]["incarnation"], 1);
}

#[test]
fn fc01_a_broken_file_changes_nothing_and_says_where_by_command_and_by_signal() {
    let good = format!("{}{}", worker("w", 1), builder("b", "w", &[&counting("go")]));
    let place = Place::new(&good);
    let master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    place.configure(&good.replace("max_builds", "max_build"));
    let text = std::fs::read_to_string(place.path("x.toml")).unwrap();
    let line = text.lines().position(|line| line.starts_with("max_build ")).unwrap() + 1;
    let ran = master.cli(&["reload"]).expect(1);
    assert!(ran.out.contains(&format!("x.toml:{line}: worker[1].max_build")), "{}", ran.all());
    assert!(ran.out.contains("did you mean `max_builds`?"), "{}", ran.all());
    assert!(ran.out.ends_with("Nothing was changed.\n"), "{}", ran.all());
    let told = || std::fs::read_to_string(place.path("master.log")).unwrap();
    master.process.signal(Signal::SIGHUP);
    until("the master tells what is wrong", || {
        told().contains("the configuration is bad; nothing was changed").then_some(())
    });
    assert!(told().contains(&format!("x.toml:{line}: worker[1].max_build")));
    assert_eq!(master.board()["builders"]["b"]["generation"], 1);

    // With a good file the signal does what the command does.
    place.configure(&format!("{good}{}", builder("more", "w", &["echo here"])));
    master.process.signal(Signal::SIGHUP);
    until("the new builder is there", || master.one("builders/more"));
    until("it has its worker", || {
        master.board()["builders"]["more"]["workers"]["w"].is_string().then_some(())
    });
    master.force("more");
    master.counts_on("b", 1);
    place.open("go");
    master.ended_as("b", 1, 0);
    master.ended_as("more", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
}

#[test]
fn fq12_a_builder_removed_with_a_build_and_a_queue_comes_back_with_both() {
    let rest = format!("{}{}", worker("w", 2), builder("other", "w", &["true"]));
    // Beside its lines it writes a file anew, once a second.
    let ticking = format!(
        "(while [ ! -e @DIR@/go ] && [ -d @DIR@ ]; do sleep 1; echo now > @DIR@/ticks; done) & {}",
        counting("go")
    );
    let whole = format!("{rest}{}", builder("b", "w", &[&ticking]));
    let place = Place::new(&whole);
    let master = place.master();
    let _worker = master.worker("w", 1);
    let runs = master.force("b");
    master.said("b", 1, 0, "line 1");
    let waits = master.force("b");
    let cancelled = master.force("b");
    place.configure(&rest);
    let ran = master.cli(&["reload"]).expect(0);
    assert!(ran.out.contains("removed   builder b\n"), "{}", ran.all());
    // Its actor does nothing but that: a busy one would show as work of the
    // master while nobody asks it for anything.
    let busy = master.process.cpu_time();
    let begun = std::time::Instant::now();
    place.gone("ticks");
    place.written("ticks");
    let busy = master.process.cpu_time() - busy;
    assert!(busy < begun.elapsed() / 2, "{busy:?} of {:?}", begun.elapsed());
    // Its build goes on, its queue stays and can be cancelled, and nobody may
    // ask for more.
    master.counts_on("b", 1);
    let ran = master.cli(&["force", "b"]).expect(2);
    assert!(ran.err.contains("there is no builder named `b`"), "{}", ran.all());
    assert_eq!(master.cli(&["queue"]).expect(0).out.lines().count(), 3);
    master.cli(&["cancel", &cancelled.to_string()]).expect(0);
    assert_eq!(master.request(cancelled)["results"], 6);

    place.configure(&whole);
    let ran = master.cli(&["reload"]).expect(0);
    assert!(ran.out.contains("added     builder b\n"), "{}", ran.all());
    until("the builder shows its running build", || {
        let builds = master.board()["builders"]["b"]["builds"].clone();
        (builds[0]["number"] == 1).then_some(())
    });
    master.counts_on("b", 1);
    place.open("go");
    assert_eq!(master.ended_as("b", 1, 0)["buildrequestid"], runs);
    assert_counted(&master.log("b", 1, 0, 'o'));
    assert_eq!(master.ended_as("b", 2, 0)["buildrequestid"], waits);
    assert_eq!(master.list("builders/b/builds").len(), 2);
}

#[test]
fn fq12_a_removed_builders_build_can_be_stopped_or_ends_by_itself() {
    let rest = format!("{}{}", worker("w", 2), builder("other", "w", &["true"]));
    let whole = format!(
        "{rest}{}{}",
        builder("stopped", "w", &[&waiting("never")]),
        builder("ends", "w", &[&counting("go")])
    );
    let place = Place::new(&whole);
    let master = place.master();
    let _worker = master.worker("w", 2);
    master.force("stopped");
    master.force("ends");
    master.running("stopped", 1);
    master.said("ends", 1, 0, "line 1");
    place.configure(&rest);
    master.cli(&["reload"]).expect(0);
    master.cli(&["stop", "stopped/1", "--reason", "not needed"]).expect(0);
    master.ended_as("stopped", 1, 6);
    place.open("go");
    master.ended_as("ends", 1, 0);
    assert_counted(&master.log("ends", 1, 0, 'o'));
    // The worker is free for the others.
    master.force("other");
    master.ended_as("other", 1, 0);
    until("all slots are free", || (master.board()["workers"]["w"]["used"] == 0).then_some(()));
}

#[test]
fn fq12_a_builder_that_was_away_over_a_restart_builds_again_what_it_had() {
    let rest = format!("{}{}", worker("w", 1), builder("other", "w", &["true"]));
    let line = format!("echo $$ >> @DIR@/pids; {}", counting("go"));
    let whole = format!("{rest}{}", builder("b", "w", &[&line]));
    let place = Place::new(&whole);
    let mut master = place.master();
    let _worker = master.worker("w", 1);
    let request = master.force("b");
    master.said("b", 1, 0, "line 1");
    let old: i32 = place.written("pids").trim().parse().unwrap();
    master.process.kill();
    place.configure(&rest);
    let master = master.again();
    // FA16: what nobody wants any more is ended, and the slot is free.
    master.force("other");
    master.ended_as("other", 1, 0);
    assert!(!is_alive(old));
    assert_eq!(master.request(request)["complete"], false, "I1: it is not lost");
    place.configure(&whole);
    master.cli(&["reload"]).expect(0);
    let lost = master.ended_as("b", 1, 5);
    assert!(lost["state_string"].as_str().unwrap().ends_with("queued again"), "{lost}");
    place.open("go");
    assert_eq!(master.ended_as("b", 2, 0)["buildrequestid"], request);
}

#[test]
fn fc06_a_worker_removed_while_it_builds_finishes_and_a_new_one_takes_the_next() {
    let config =
        |name: &str| format!("{}{}", worker(name, 1), builder("b", name, &[&counting("go")]));
    let place = Place::new(&config("old"));
    let master = place.master();
    let mut old = master.worker("old", 1);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    let waits = master.force("b");
    place.configure(&config("new"));
    let ran = master.cli(&["reload"]).expect(0);
    assert!(
        ran.out.contains("removed   worker old\n") && ran.out.contains("added     worker new\n"),
        "{}",
        ran.all()
    );
    let _new = master.worker("new", 1);
    master.said("b", 2, 0, "line 1");
    assert_eq!(master.running("b", 2)["buildrequestid"], waits);
    master.counts_on("b", 1);
    place.open("go");
    master.ended_as("b", 1, 0);
    master.ended_as("b", 2, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    // The old one is told that it is not configured any more, and ends.
    assert_eq!(old.code_within(crate::kit::PATIENCE), Some(78));
    until("it is shown no more", || master.board()["workers"]["old"].is_null().then_some(()));
}

#[test]
fn fn08_a_reload_reads_changed_tokens() {
    let config = format!("{}{}", worker("w", 1), builder("b", "w", &["true"]));
    let place = Place::new(&config);
    let master = place.master();
    std::fs::remove_file(place.token_file("w")).unwrap();
    place.token("w");
    let mut early = master.worker("w", 1);
    assert_eq!(early.code_within(crate::kit::PATIENCE), Some(78), "the old token still counts");
    master.cli(&["reload"]).expect(0);
    let _worker = master.worker("w", 1);
    master.attached("w");
}
