//! Whoever speaks nonsense at the worker port is told so and turned away, and
//! nobody else notices (rows FN, FA02, invariants I14 and I16).

use std::time::{Duration, Instant};

use botmaster::core::ids::BuildId;
use botmaster::protocol::json_v1::{
    InventoryItem, InventoryState, MAX_LINE, MAX_LINE_BEFORE_ATTACH, MasterFrame, ResumeAction,
    STDIO, WireError, WorkerFrame, encode,
};
use serde_json::json;

use crate::kit::{
    Place, RawWorker, attach, builder, counting, ends_undisturbed, finished, start_steady, worker,
};

/// A worker `steady` that builds while others misbehave, and a builder `other`
/// of worker `raw` for those.
fn busy_place() -> Place {
    Place::new(&format!(
        "{}{}{}{}",
        worker("steady", 1),
        worker("raw", 1),
        builder("long", "steady", &[&counting("go")]),
        builder("other", "raw", &["true"]),
    ))
}

#[test]
fn fn06_a_wrong_token_and_an_unknown_name_get_the_same_answer() {
    let place = busy_place();
    let master = place.master();
    let _steady = start_steady(&master);
    let right = place.token("raw");
    let mut answers = Vec::new();
    let flipped = right.replace(['1', '2', '3'], "4");
    for (name, token) in [
        ("raw", flipped.as_str()),
        ("raw", ""),
        ("raw", &place.token("steady")),
        ("nobody", right.as_str()),
        ("", right.as_str()),
    ] {
        let mut link = RawWorker::dial(master.listen);
        link.say(&attach(name, token));
        answers.push(link.turned_away());
    }
    let same = ("auth".to_owned(), "unknown worker name or wrong token".to_owned(), None);
    assert_eq!(answers, vec![same; 5]);
    assert_eq!(master.ignored("worker turned away"), 5);
    // Nobody learns a token from what the master writes about it (I17).
    let told = std::fs::read_to_string(place.path("master.log")).unwrap();
    assert!(told.contains("worker turned away"));
    assert!(!told.contains(&right) && !told.contains(&flipped));
    ends_undisturbed(&master);
}

#[test]
fn fn06_a_worker_program_with_a_wrong_token_ends_and_says_why() {
    let place = busy_place();
    let master = place.master();
    let other = place.token("steady");
    std::fs::write(place.path("wrong.token"), format!("{other}\n")).unwrap();
    let args = ["worker", "--name", "raw", "--token-file", "wrong.token", "--master"];
    let ran = place.cli(&[&args[..], &[&master.listen.to_string()]].concat()).expect(78);
    assert!(
        ran.err.contains("rejected this worker (auth): unknown worker name or wrong token"),
        "{}",
        ran.all()
    );
}

#[test]
fn fa02_a_second_connection_takes_over_and_the_running_build_goes_on() {
    let place = busy_place();
    let master = place.master();
    let _steady = start_steady(&master);
    let mut first = RawWorker::attached(&master, "raw", Vec::new());
    master.force("other");
    let (build, epoch, command) = first.take_build();
    first.log(build, &command, 0, "one\ntwo\n");
    master.said("other", 1, 0, "two");

    let item = InventoryItem {
        build,
        epoch,
        builder: "other".into(),
        command: Some(command.clone()),
        state: InventoryState::Running,
        log_end: [(STDIO.to_owned(), 14)].into(),
    };
    let mut second = RawWorker::attached(&master, "raw", vec![item]);
    // The old connection is told and closed; what it still says counts nothing.
    first.log(build, &command, 8, "false\n");
    assert_eq!(first.turned_away().0, "superseded");
    let resume = second.hear_until(|frame| match frame {
        MasterFrame::Resume(resume) => Some(resume.clone()),
        _ => None,
    });
    assert_eq!((resume.build, resume.r#do), (build, ResumeAction::Continue));
    let from = resume.log_from[STDIO];
    assert!([8, 14].contains(&from), "{from}");
    second.log(build, &command, from, &"one\ntwo\nthree\n"[from as usize..]);
    second.finish(build, &command, 14);
    let ended = master.ended_as("other", 1, 0);
    assert_eq!(ended["number"], 1);
    let lines = master.log("other", 1, 0, 'o');
    assert!(lines == ["one", "two", "three"] || lines == ["one", "two", "false"], "{lines:?}");
    assert_eq!(master.board()["workers"]["raw"]["incarnation"], 2);
    ends_undisturbed(&master);
}

#[test]
fn fn01_nonsense_before_attach_is_told_and_the_connection_dropped() {
    let place = busy_place();
    let master = place.master();
    let _steady = start_steady(&master);
    let deep = format!("{{\"t\":{}1{}}}\n", "[".repeat(40), "]".repeat(40));
    let long =
        format!("{{\"t\":\"attach\",\"name\":\"{}\"}}\n", "x".repeat(MAX_LINE_BEFORE_ATTACH));
    let cases: [(&str, &[u8], &str); 9] = [
        ("no JSON", b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        ("no object", b"[1,2]\n", "malformed"),
        ("an empty line", b"\n", "malformed"),
        ("no UTF-8", b"{\"t\":\"\xff\xfe\"}\n", "malformed"),
        ("a field missing", b"{\"t\":\"attach\",\"name\":\"raw\"}\n", "malformed"),
        ("a key twice", b"{\"t\":\"pong\",\"id\":1,\"id\":2}\n", "malformed"),
        ("too deep", deep.as_bytes(), "too_deep"),
        ("too long", long.as_bytes(), "too_long"),
        ("an unknown type", b"{\"t\":\"surprise\"}\n", "unknown_type"),
    ];
    for (case, bytes, code) in cases {
        let mut link = RawWorker::dial(master.listen);
        link.send(bytes);
        let answer = link.turned_away();
        assert_eq!(answer.0, code, "{case}: {}", answer.1);
        assert!(!answer.1.is_empty(), "{case}");
    }
    // All but the line that was too long to be looked at.
    assert_eq!(master.ignored("malformed frame"), 8);

    let mut link = RawWorker::dial(master.listen);
    link.say(&WorkerFrame::Heartbeat { seq: 1, running: Vec::new() });
    assert_eq!(link.turned_away().1, "the first frame must be `attach`");

    let mut frame =
        serde_json::from_slice::<serde_json::Value>(&encode(&attach("raw", "x"))).unwrap();
    frame["proto"] = json!([7, 9]);
    let mut link = RawWorker::dial(master.listen);
    link.send(format!("{frame}\n").as_bytes());
    let (code, text, again) = link.turned_away();
    assert_eq!((code.as_str(), again), ("version", None));
    assert!(text.contains("protocol 1, the worker [7, 9]"), "{text}");

    // Cut short in the middle of a line: nobody is told, since nobody is there.
    let mut link = RawWorker::dial(master.listen);
    link.send(b"{\"t\":\"att");
    drop(link);
    ends_undisturbed(&master);
}

#[test]
fn fn04_who_says_nothing_is_turned_away_when_the_time_is_over() {
    let place = busy_place();
    let master = place.master();
    let _steady = start_steady(&master);
    let begun = Instant::now();
    let mut silent = RawWorker::dial(master.listen);
    let mut half = RawWorker::dial(master.listen);
    half.send(b"{\"t\":\"attach\",\"na");
    let mut no_inventory = RawWorker::dial(master.listen);
    no_inventory.say(&attach("raw", &place.token("raw")));
    assert!(matches!(no_inventory.hear(), Some(MasterFrame::Attached { .. })));
    for link in [&mut silent, &mut half] {
        let (code, text, again) = link.turned_away();
        assert_eq!((code.as_str(), again.is_some()), ("auth", true));
        assert_eq!(text, "no attach frame in time");
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "not before the time is over");
    // One that attached and then says nothing is given up, too.
    while no_inventory.hear().is_some() {}
    master.away("raw");
    ends_undisturbed(&master);
}

#[test]
fn fn01_nonsense_after_attach_drops_the_connection_but_not_for_an_unknown_type() {
    let place = busy_place();
    let master = place.master();
    let _steady = start_steady(&master);

    let mut link = RawWorker::attached(&master, "raw", Vec::new());
    link.send(b"{\"t\":\"surprise\",\"more\":[1]}\n");
    let error = link.hear_until(|frame| match frame {
        MasterFrame::Error(error) => Some(error.clone()),
        _ => None,
    });
    assert_eq!(error.code, "unknown_type");
    assert!(error.message.contains("`surprise`"), "{}", error.message);
    // The link stays: a build goes over it from its start to its end.
    master.force("other");
    let (build, _, command) = link.take_build();
    link.finish(build, &command, 0);
    master.ended_as("other", 1, 0);

    let deep =
        format!("{{\"t\":\"pong\",\"id\":{}1{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let long = vec![b' '; MAX_LINE + 2];
    let cases: [(&str, &[u8], &str); 3] = [
        ("no JSON", b"pong\n", "malformed"),
        ("too deep", deep.as_bytes(), "too_deep"),
        ("too long", &long, "too_long"),
    ];
    for (case, bytes, code) in cases {
        let mut link = RawWorker::attached(&master, "raw", Vec::new());
        link.send(bytes);
        let (told, text, _) = link.turned_away();
        assert_eq!(told, code, "{case}: {text}");
        master.away("raw");
    }
    ends_undisturbed(&master);
}

#[test]
fn fn09_a_frame_about_another_workers_build_drops_the_connection() {
    let place = busy_place();
    let master = place.master();
    let _steady = start_steady(&master);
    let theirs = BuildId(master.running("long", 1)["buildid"].as_u64().unwrap());
    let command = botmaster::core::ids::CommandId::for_step(theirs, 0);
    const KIND: &str = "frame for a build that is not the worker's";
    for (count, frame) in [
        finished(theirs, &command, 0),
        WorkerFrame::CommandStarted { build: theirs, command: command.clone() },
        WorkerFrame::CommandRefused {
            build: theirs,
            command: command.clone(),
            code: "busy".into(),
            message: "not mine".into(),
        },
        finished(BuildId(4_000_000_000), &command, 0),
    ]
    .iter()
    .enumerate()
    {
        let mut link = RawWorker::attached(&master, "raw", Vec::new());
        link.say(frame);
        assert_eq!(link.turned_away().0, "not_yours");
        assert_eq!(master.ignored(KIND), count as u64 + 1);
        master.away("raw");
    }
    // FL11: so does text for their log, and it goes nowhere.
    let mut link = RawWorker::attached(&master, "raw", Vec::new());
    link.log(theirs, &command, 0, "line 0\n");
    assert_eq!(link.turned_away().0, "not_yours");
    master.away("raw");
    // An inventory that claims their build gives nothing but an `abandon`.
    let item = InventoryItem {
        build: theirs,
        epoch: botmaster::core::ids::Epoch(99),
        builder: "long".into(),
        command: Some(command),
        state: InventoryState::Running,
        log_end: Default::default(),
    };
    let mut link = RawWorker::attached(&master, "raw", vec![item]);
    let resume = link.hear_until(|frame| match frame {
        MasterFrame::Resume(resume) => Some(resume.clone()),
        MasterFrame::Error(WireError { code, message }) => panic!("{code}: {message}"),
        _ => None,
    });
    assert_eq!((resume.build, resume.r#do), (theirs, ResumeAction::Abandon));
    ends_undisturbed(&master);
}
