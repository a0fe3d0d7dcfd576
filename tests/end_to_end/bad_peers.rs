//! Whoever is let in as a worker and then misbehaves is told so, and harms
//! nobody but itself (rows FA, FN, FP, invariants I7, I14, I16).

use std::time::{Duration, Instant};

use botmaster::core::ids::{CommandId, Epoch};
use botmaster::protocol::json_v1::{Inventory, MasterFrame, Outcome, WorkerFrame, encode};
use serde_json::{Value, json};

use crate::kit::{
    Place, RawWorker, attach, builder, counting, ends_undisturbed, finished, start_steady, until,
    worker,
};

fn place(limits: &str) -> Place {
    Place::new(&format!(
        "[limits]\n{limits}\n{}{}{}{}",
        worker("steady", 1),
        worker("raw", 1),
        builder("long", "steady", &[&counting("go")]),
        builder("other", "raw", &["true", "true"]),
    ))
}

/// An attach frame with some fields changed.
fn changed(name: &str, token: &str, changes: &[(&str, Value)]) -> Vec<u8> {
    let mut frame: Value = serde_json::from_slice(&encode(&attach(name, token))).unwrap();
    for (key, value) in changes {
        frame[*key] = value.clone();
    }
    format!("{frame}\n").into_bytes()
}

fn incarnation(frame: &MasterFrame) -> Option<u64> {
    match frame {
        MasterFrame::Attached { incarnation, .. } => Some(incarnation.0),
        _ => None,
    }
}

#[test]
fn fa01_a_second_attach_on_a_connection_succeeds_and_changes_nothing() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    master.attached_raw(&mut raw, "raw");
    raw.say(&attach("raw", &place.token("raw")));
    assert_eq!(raw.hear_until(incarnation), 1);
    assert_eq!(master.board()["workers"]["raw"]["incarnation"], 1);
    // It goes on as before: a build goes over it from its start to its end.
    master.force("other");
    let (build, epoch, command) = raw.take_build();
    raw.say(&attach("raw", &place.token("raw")));
    raw.finish(build, &command, 0);
    let command = raw.next_command(build);
    raw.finish(build, &command, 0);
    master.ended_as("other", 1, 0);
    assert_eq!(epoch, Epoch(1));
    ends_undisturbed(&master);
}

#[test]
fn fn09_an_attach_as_another_worker_and_an_epoch_never_given_drop_the_connection() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    raw.say(&attach("steady", &place.token("steady")));
    assert_eq!(raw.turned_away().0, "not_yours");
    assert_eq!(master.ignored("attach of another worker"), 1);

    // A builder that it does not serve: nothing comes of it.
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    raw.say(&WorkerFrame::BuilderReady { builder: "long".into() });
    master.force("other");
    let (build, _, command) = raw.take_build();
    raw.finish(build, &command, 0);
    let command = raw.next_command(build);
    raw.finish(build, &command, 0);
    master.ended_as("other", 1, 0);
    assert_eq!(master.ignored("answer for a builder that the worker does not serve"), 1);

    master.force("other");
    let (build, epoch) = raw.take_start();
    raw.say(&WorkerFrame::BuildAccepted { build, epoch: Epoch(epoch.0 + 1) });
    assert_eq!(raw.turned_away().0, "not_yours");
    assert_eq!(master.ignored("epoch that was never given"), 1);
    // Whether it has the build is known when it comes back, without it.
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    let (again, next, command) = raw.take_build();
    assert!(again != build && next > epoch, "{again} {next}, after {build} {epoch}");
    raw.finish(again, &command, 0);
    let command = raw.next_command(again);
    raw.finish(again, &command, 0);
    master.ended_as("other", 2, 0);
    ends_undisturbed(&master);
}

#[test]
fn fa03_two_workers_of_one_name_are_refused_and_people_read_why() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let token = place.token("raw");
    let come = |program: usize| {
        let mut link = RawWorker::dial(master.listen);
        link.send(&changed("raw", &token, &[("instance", json!(format!("p{program}")))]));
        link
    };
    let mut present = come(0);
    assert_eq!(present.hear_until(incarnation), 1);
    for number in 1..=5 {
        let mut next = come(number % 2);
        assert_eq!(next.hear_until(incarnation), 1 + number as u64, "the newer one wins");
        assert_eq!(present.turned_away().0, "superseded");
        present = next;
    }
    let mut last = come(0);
    for link in [&mut last, &mut present] {
        let (code, text, again) = link.turned_away();
        assert_eq!(code, "conflict");
        assert!(text.starts_with("two workers use the name raw (addresses 127.0.0.1:"), "{text}");
        assert!((50..=60).contains(&again.unwrap()), "{again:?}");
    }
    assert_eq!(come(1).turned_away().0, "conflict", "nor later");
    let refused = master.board()["refused"]["raw"].clone();
    assert!(refused["until"].as_i64() > refused["at"].as_i64(), "{refused}");
    let shown = master.cli(&["workers"]).expect(0).out;
    let line = shown.lines().find(|line| line.starts_with("raw is turned away for another"));
    assert!(line.is_some_and(|line| line.contains("two workers use the name raw")), "{shown}");
    ends_undisturbed(&master);
}

#[test]
fn fa11_a_worker_that_attaches_too_often_is_told_when_to_come_again() {
    let place = place("attaches_per_minute = 3");
    let master = place.master();
    let _steady = start_steady(&master);
    for _ in 0..3 {
        drop(RawWorker::attached(&master, "raw", Vec::new()));
        master.away("raw");
    }
    let mut link = RawWorker::dial(master.listen);
    link.say(&attach("raw", &place.token("raw")));
    let (code, text, again) = link.turned_away();
    assert_eq!((code.as_str(), text.as_str()), ("busy", "it attached 3 times within a minute"));
    assert!((30..=60).contains(&again.unwrap()), "{again:?}");
    let shown = master.cli(&["workers"]).expect(0).out;
    assert!(shown.contains("it attached 3 times within a minute"), "{shown}");
    ends_undisturbed(&master);
}

#[test]
fn fa15_versions_are_agreed_on_or_both_are_named_and_nothing_is_half_attached() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let token = place.token("raw");
    let mine = env!("CARGO_PKG_VERSION");
    for (changes, says) in [
        (
            vec![("proto", json!([7, 9])), ("version", json!("0.9"))],
            format!("protocol 1, the worker [7, 9] (master {mine}, worker 0.9)"),
        ),
        (
            vec![("requires", json!(["resume/1", "party/2"])), ("version", json!("0.9"))],
            format!(
                "worker (version 0.9) cannot do without [\"party/2\"], which this master (version {mine})"
            ),
        ),
    ] {
        let mut link = RawWorker::dial(master.listen);
        link.send(&changed("raw", &token, &changes));
        let (code, text, again) = link.turned_away();
        assert_eq!((code.as_str(), again), ("version", None));
        assert!(text.contains(&says), "{text}");
        assert_eq!(master.board()["workers"]["raw"]["incarnation"], 0);
    }
    // What it does not know it ignores; the highest common version is in force.
    let mut raw = RawWorker::dial(master.listen);
    let strange = [("proto", json!([1, 9])), ("later", json!({"x": [1]})), ("slots", json!(1))];
    raw.send(&changed("raw", &token, &strange));
    let proto = raw.hear_until(|frame| match frame {
        MasterFrame::Attached { proto, .. } => Some(*proto),
        _ => None,
    });
    assert_eq!(proto, 1);
    ends_undisturbed(&master);
}

#[test]
fn fn13_a_worker_that_reports_too_much_is_turned_away() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let token = place.token("raw");
    let many = |count: usize| {
        json!((0..count).map(|n| (n.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>())
    };
    for (changes, says) in [
        (("caps", json!(vec!["a/1"; 300])), "300 abilities are more than 256"),
        (("labels", many(300)), "300 labels are more than 256"),
        (("info", many(300)), "300 infos are more than 256"),
        (("info", json!({"host": "x".repeat(2000)})), "an info of 2000 bytes is longer than 1024"),
        (("instance", json!("x".repeat(300))), "an instance of 300 bytes is longer than 256"),
    ] {
        let mut link = RawWorker::dial(master.listen);
        link.send(&changed("raw", &token, &[changes]));
        let (code, text, again) = link.turned_away();
        assert_eq!((code.as_str(), text.as_str(), again), ("malformed", says, None));
    }
    // A million of them are not even looked at.
    let mut link = RawWorker::dial(master.listen);
    link.send(&changed("raw", &token, &[("caps", json!(vec!["a/1"; 1_000_000]))]));
    assert_eq!(link.turned_away().0, "too_long");
    ends_undisturbed(&master);
}

#[test]
fn fn04_a_frame_that_never_ends_drops_an_attached_worker() {
    let place = place("frame_time = \"3 s\"");
    let master = place.master();
    let _steady = start_steady(&master);
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    master.attached_raw(&mut raw, "raw");
    let begun = Instant::now();
    // Each byte is a sign of life, and none of them ends the frame.
    raw.send(b"{\"t\":\"heartbeat\",\"seq\":1,\"running\":[");
    until("it is dropped", || {
        raw.send(b" ");
        (master.board()["workers"]["raw"]["connected"] != true).then_some(())
    });
    assert!(begun.elapsed() >= Duration::from_secs(3), "it had its time");
    assert_eq!(master.ignored("frame that took too long"), 1);
    ends_undisturbed(&master);
}

#[test]
fn fn14_a_worker_that_never_reads_is_dropped() {
    let place = place("outgoing_bytes = 1048576");
    let master = place.master();
    let _steady = start_steady(&master);
    let mut raw = RawWorker::narrow(master.listen);
    raw.say(&attach("raw", &place.token("raw")));
    raw.hear_until(incarnation);
    raw.say(&WorkerFrame::Inventory(Inventory { builds: Vec::new(), more: false }));
    master.attached_raw(&mut raw, "raw");
    // Each of these is answered, and no answer is read.
    let many = encode(&attach("raw", "x")).repeat(2000);
    until("it is dropped", || {
        raw.send(&many);
        (master.ignored("worker that does not read") == 1).then_some(())
    });
    master.away("raw");
    ends_undisturbed(&master);
}

#[test]
fn fn10_what_does_not_fit_the_build_changes_nothing_of_it() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    master.force("other");
    let (build, epoch, first) = raw.take_build();
    let second = CommandId::for_step(build, 1);
    let failed = |command: &CommandId, log_end| {
        let mut frame = finished(build, command, log_end);
        if let WorkerFrame::CommandFinished { outcome, .. } = &mut frame {
            *outcome = Outcome::Exit(1);
        }
        frame
    };
    // (What is about a command that was never given is a breach: rows FL11, FN17.)
    raw.say(&WorkerFrame::Abandoned { build });
    raw.log(build, &first, 0, "first\n");
    raw.finish(build, &first, 6);
    let given = raw.next_command(build);
    assert_eq!(given, second);
    // The first one's end again, another one this time, and more of its text.
    raw.say(&failed(&first, 6));
    raw.log(build, &first, 6, "late\n");
    raw.say(&WorkerFrame::BuildAccepted { build, epoch });
    raw.log(build, &second, 0, "second\n");
    raw.finish(build, &second, 7);
    let ended = master.ended_as("other", 1, 0);
    // And the build's end, twice: nobody hears of it.
    raw.say(&failed(&second, 7));
    raw.say(&failed(&second, 7));
    until("they were ignored", || {
        (master.ignored("frame of a build that ended") >= 2).then_some(())
    });
    assert_eq!(master.build("other", 1).unwrap(), ended, "the first durable truth stays");
    assert_eq!(master.log("other", 1, 0, 'o'), ["first"]);
    assert_eq!(master.log("other", 1, 1, 'o'), ["second"]);
    assert_eq!(master.board()["workers"]["raw"]["connected"], true);
    ends_undisturbed(&master);
}

#[test]
fn fn11_frames_of_an_older_connection_count_nothing_when_they_are_played_again() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let mut old = RawWorker::attached(&master, "raw", Vec::new());
    master.force("other");
    let (build, epoch, first) = old.take_build();
    let mut tape = vec![WorkerFrame::BuildAccepted { build, epoch }, finished(build, &first, 0)];
    old.finish(build, &first, 0);
    let second = old.next_command(build);
    tape.push(finished(build, &second, 0));
    old.finish(build, &second, 0);
    let ended = master.ended_as("other", 1, 0);

    // The old connection itself, after a newer one was let in.
    let mut new = RawWorker::attached(&master, "raw", Vec::new());
    master.attached_raw(&mut new, "raw");
    for frame in &tape {
        old.say(frame);
    }
    assert_eq!(old.turned_away().0, "superseded");
    // The newer one plays them, too: while the next build of that builder runs.
    master.force("other");
    let (next, _, command) = new.take_build();
    for frame in &tape {
        new.say(frame);
    }
    until("they were ignored", || {
        (master.ignored("frame of a build that ended") >= 2).then_some(())
    });
    assert_eq!(master.build("other", 1).unwrap(), ended);
    assert_eq!(master.running("other", 2)["complete"], false);
    new.finish(next, &command, 0);
    let command = new.next_command(next);
    new.finish(next, &command, 0);
    master.ended_as("other", 2, 0);
    assert_ne!(next, build);
    ends_undisturbed(&master);
}

#[test]
fn fp02_fp03_a_ping_that_is_answered_with_an_error_or_too_late_starts_nothing() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    master.attached_raw(&mut raw, "raw");
    master.force("other");
    let ping = |raw: &mut RawWorker| loop {
        match raw.hear() {
            Some(MasterFrame::Ping { id }) => return id,
            Some(MasterFrame::StartBuild { .. }) => panic!("a start without a ping"),
            Some(_) => {}
            None => panic!("no ping"),
        }
    };
    let id = ping(&mut raw);
    raw.say(&WorkerFrame::PingFailed { id, message: "the disk is full".into() });
    // Dropped; what comes too late, or for another ping, starts nothing.
    raw.say(&WorkerFrame::Pong { id });
    while let Some(frame) = raw.hear() {
        assert!(!matches!(frame, MasterFrame::StartBuild { .. }), "it starts");
    }
    master.away("raw");
    until("its request waits again", || {
        let waits = master.one("buildrequests?complete=false&builderid__ne=1")?;
        (waits["claimed"] == false).then_some(())
    });
    // Another connection is another try, but no immediate one.
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    let again = Instant::now();
    let _alive = raw.beats();
    raw.say(&WorkerFrame::Pong { id });
    let (build, _, command) = raw.take_build();
    assert!(again.elapsed() > Duration::from_secs(5), "{:?}", again.elapsed());
    assert!(master.ignored("pong that nobody waits for") >= 1);
    raw.finish(build, &command, 0);
    let command = raw.next_command(build);
    raw.finish(build, &command, 0);
    assert_eq!(master.ended_as("other", 1, 0)["number"], 1);
    ends_undisturbed(&master);
}

#[test]
fn ft05_a_worker_whose_clock_is_wrong_is_shown_with_how_far_it_is_off() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let wrong = std::time::UNIX_EPOCH.elapsed().unwrap() - Duration::from_secs(7200);
    let clock = json!(u64::try_from(wrong.as_millis()).unwrap());
    let mut raw = RawWorker::dial(master.listen);
    raw.send(&changed("raw", &place.token("raw"), &[("clock", clock)]));
    raw.hear_until(incarnation);
    raw.say(&WorkerFrame::Inventory(Inventory { builds: Vec::new(), more: false }));
    master.attached_raw(&mut raw, "raw");
    let skew = master.board()["workers"]["raw"]["clock_skew_ms"].as_i64().unwrap();
    assert!((-7_260_000..=-7_200_000).contains(&skew), "{skew}");
    let right = master.board()["workers"]["steady"]["clock_skew_ms"].as_i64().unwrap();
    assert!(right.abs() < 5_000, "{right}");
    let shown = master.cli(&["workers"]).expect(0).out;
    assert!(shown.contains("clock 2h00m behind"), "{shown}");
    // Nothing goes by it: times of a build are the master's.
    master.force("other");
    let (build, _, command) = raw.take_build();
    raw.finish(build, &command, 0);
    let command = raw.next_command(build);
    raw.finish(build, &command, 0);
    let ended = master.ended_as("other", 1, 0);
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    assert!((now - ended["started_at"].as_i64().unwrap()).abs() < 60, "{ended}");
    ends_undisturbed(&master);
}

#[test]
fn fa08_a_folder_that_cannot_be_made_fails_one_pair_and_is_tried_again_by_itself() {
    let place = Place::new(&format!(
        "{}{}{}",
        worker("w1", 2),
        builder("good", "w1", &["true"]),
        builder("bad", "w1", &["true"]),
    ));
    // A file is where the builder's folder should be.
    std::fs::create_dir_all(place.path("workers/w1")).unwrap();
    std::fs::write(place.path("workers/w1/bad"), "").unwrap();
    let master = place.master();
    let _w1 = master.worker("w1", 2);
    master.attached("w1");
    master.force("bad");
    master.force("good");
    master.ended_as("good", 1, 0);
    assert!(master.build("bad", 1).is_none());
    std::fs::remove_file(place.path("workers/w1/bad")).unwrap();
    // Nobody starts anything anew.
    master.ended_as("bad", 1, 0);
    assert_eq!(master.board()["workers"]["w1"]["incarnation"], 1);
}
