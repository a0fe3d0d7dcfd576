//! What people order by the command line and the API, and what they are told.

use serde_json::{Value, json};

use crate::kit::{
    Place, assert_counted, builder, counting, is_alive, until, waiting, within, worker,
};

#[test]
fn a_force_that_makes_no_sense_is_refused_with_a_text() {
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("unit", "w", &["true"])));
    let master = place.master();
    let ran = master.cli(&["force", "unti"]).expect(2);
    assert!(ran.out.is_empty(), "{}", ran.all());
    assert!(
        ran.err.contains("refused: there is no builder named `unti`; did you mean `unit`?"),
        "{}",
        ran.all()
    );
    let ran = master.cli(&["force", "unit", "-p", "novalue"]).expect(2);
    assert!(ran.err.contains("NAME=VALUE"), "{}", ran.all());
    let force = |params: Value| master.order("forceschedulers/force", "force", &params);
    let (status, answer) = force(json!({ "builderNames": ["nobody"] }));
    assert_eq!(status, 404, "{answer}");
    let (status, answer) = force(json!({ "builderNames": ["unit"], "properties": { "n": 7 } }));
    assert_eq!(status, 400, "{answer}");
    assert_eq!(answer["error"]["message"]["properties.n"], "must be text: a property is a string");
    let (status, answer) = force(json!({ "builderNames": ["unit"], "priority": "soon" }));
    assert_eq!(
        (status, &answer["error"]["message"]["priority"]),
        (400, &json!("must be a whole number"))
    );
    assert!(master.list("buildrequests").is_empty(), "nothing was queued");
    for args in [&["stop", "unit/9"][..], &["build", "unit/9"], &["log", "unit/9"]] {
        let ran = master.cli(args).expect(2);
        assert!(ran.err.contains("there is no build unit/9"), "{}", ran.all());
    }
    let ran = master.cli(&["rebuild", "unit/9"]).expect(2);
    assert!(ran.err.contains("there is no build"), "{}", ran.all());
    let ran = master.cli(&["cancel", "77"]).expect(2);
    assert!(ran.err.contains("there is no build request 77"), "{}", ran.all());
    let ran = master.cli(&["pause", "nobody"]).expect(2);
    assert!(ran.err.contains("there is no worker named `nobody`"), "{}", ran.all());
}

#[test]
fn without_a_master_a_command_says_what_to_do() {
    let place = Place::new(&builder("unit", "w", &["true"]).replace("[\"w\"]", "[]"));
    let url = {
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let ran = place.cli(&["--url", &url, "builders"]).expect(2);
    assert!(
        ran.err.contains(&format!("no master answers at {url}"))
            && ran.err.contains("start one with `botmaster master`"),
        "{}",
        ran.all()
    );
}

#[test]
fn force_wait_tells_the_result_by_its_exit_code() {
    let place = Place::new(&format!(
        "{}{}{}{}{}",
        worker("w", 4),
        builder("good", "w", &["echo fine"]),
        builder("bad", "w", &["exit 3"]),
        builder("long", "w", &[&waiting("never")]) + &builder("longer", "w", &[&waiting("never")]),
        "[[builder]]\nname = \"warned\"\nworkers = [\"w\"]\n[[builder.step]]\nshell = \"exit 1\"\n\
         flunk_on_failure = false\nwarn_on_failure = true\n",
    ));
    let master = place.master();
    let _worker = master.worker("w", 4);
    let ran = master.cli(&["force", "good", "--wait"]).expect(0);
    assert!(ran.out.ends_with("build 1: success (build successful)\n"), "{}", ran.all());
    let ran = master.cli(&["force", "warned", "--wait"]).expect(0);
    assert!(ran.out.contains("build 1: warnings"), "{}", ran.all());
    let ran = master.cli(&["force", "bad", "--wait"]).expect(1);
    assert!(ran.out.contains("build 1: failure (failed 's0' (failure))"), "{}", ran.all());
    let ran = master.cli(&["force", "good", "--follow"]).expect(0);
    assert!(ran.out.contains("\nfine\n"), "{}", ran.all());
    let ran = master.cli(&["force", "long", "--wait", "--timeout", "1"]).expect(2);
    assert!(ran.err.contains("--timeout"), "{}", ran.all());
    assert_eq!(master.running("long", 1)["complete"], false, "the build goes on");

    // One that waits for a build which somebody else stops.
    let waits = std::thread::scope(|scope| {
        let waits = scope.spawn(|| master.cli(&["force", "longer", "--wait"]));
        master.running("longer", 1);
        master.cli(&["stop", "longer/1", "--reason", "enough"]).expect(0);
        waits.join().unwrap()
    });
    let waits = waits.expect(2);
    assert!(waits.out.contains("build 1: cancelled (cancelled (enough))"), "{}", waits.all());
    master.cli(&["stop", "long/1"]).expect(0);
    master.ended_as("long", 1, 6);
}

#[test]
fn a_stopped_build_takes_its_whole_process_tree_with_it() {
    // A child in a session of its own that does not heed TERM, a grandchild
    // whose parent is gone, and the step itself.
    let line = "trap '' TERM; \
        setsid sh -c 'trap \"\" TERM; echo $$ > @DIR@/far.new; mv @DIR@/far.new @DIR@/far; \
          while [ -d @DIR@ ]; do sleep 0.1; done' & \
        (sh -c 'echo $$ > @DIR@/lone.new; mv @DIR@/lone.new @DIR@/lone; \
          while [ -d @DIR@ ]; do sleep 0.1; done' &) ; \
        echo $$ > @DIR@/self.new; mv @DIR@/self.new @DIR@/self; \
        while [ -d @DIR@ ]; do sleep 0.1; done";
    let place = Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &[line, "true"])));
    let master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    let pids: Vec<i32> = ["far", "lone", "self"]
        .iter()
        .map(|name| place.written(name).trim().parse().unwrap())
        .collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // However often it is clicked, it is one stop (FF04).
    for _ in 0..3 {
        master.cli(&["stop", "b/1", "--reason", "no need"]).expect(0);
    }
    let build = master.ended_as("b", 1, 6);
    assert_eq!(build["state_string"], "cancelled (no need)");
    for pid in pids {
        let gone = within(std::time::Duration::from_secs(10), || (!is_alive(pid)).then_some(()));
        assert!(gone.is_some(), "process {pid} outlived its build");
    }
    assert_eq!(master.one("builders/b/builds/1/steps/1"), None, "no step after a stop");
    let ran = master.cli(&["stop", "b/1"]).expect(0);
    assert_eq!(ran.out, "build b/1 had ended already\n");
    // And the worker takes the next build.
    master.force("b");
    master.running("b", 2);
}

#[test]
fn c02_a_waiting_request_is_cancelled_and_never_built_and_a_build_is_repeated() {
    let place = Place::new(&format!(
        "{}{}",
        worker("w", 1),
        builder("b", "w", &[&format!("{}; echo done", waiting("go"))])
    ));
    let master = place.master();
    let _worker = master.worker("w", 1);
    let first = master.force("b");
    master.running("b", 1);
    let second = master.force("b");
    let third = master.force("b");
    let queue = master.cli(&["queue"]).expect(0);
    assert_eq!(queue.out.lines().count(), 3, "{}", queue.all());
    let id = second.to_string();
    let ran = master.cli(&["cancel", &id]).expect(0);
    assert_eq!(ran.out, format!("build request {second} is being cancelled\n"));
    let request = until("the request is cancelled", || {
        Some(master.request(second)).filter(|request| request["complete"] == true)
    });
    assert_eq!(request["results"], 6);
    let ran = master.cli(&["rebuild", "b/1"]).expect(2);
    assert!(ran.err.contains("has not ended; wait for its end or stop it"), "{}", ran.all());
    place.open("go");
    master.ended_as("b", 1, 0);
    // The cancelled one was passed over.
    assert_eq!(master.ended_as("b", 2, 0)["buildrequestid"], third);
    assert!(master.list(&format!("buildrequests/{second}/builds")).is_empty());
    assert_eq!(master.request(first)["results"], 0);

    let ran = master.cli(&["rebuild", "b/1"]).expect(0);
    assert!(ran.out.contains("to repeat build b/1"), "{}", ran.all());
    let again = master.ended_as("b", 3, 0);
    let repeat = again["buildrequestid"].as_i64().unwrap();
    assert!(repeat > third);
    let submitted = |id: i64| master.request(id)["submitted_at"].as_i64().unwrap();
    assert!(submitted(repeat) >= submitted(third), "c02: a submit time of its own");

    // Cancelling a request whose build runs stops the build.
    std::fs::remove_file(place.path("go")).unwrap();
    let running = master.force("b");
    master.running("b", 4);
    master.cli(&["cancel", &running.to_string()]).expect(0);
    master.ended_as("b", 4, 6);
}

#[test]
fn c03_c01_who_is_there_is_told_and_nothing_is_queued_for_nobody() {
    let place = Place::new(&format!(
        "{}{}{}{}",
        worker("w", 1),
        worker("away", 1),
        builder("here", "w", &[&counting("go")]),
        builder("gone", "away", &["true"]),
    ));
    let master = place.master();
    let _worker = master.worker("w", 1);
    master.attached("w");
    let ran = master.cli(&["ping", "here"]).expect(0);
    assert_eq!(ran.out, "builder here: every worker answered\n");
    let ran = master.cli(&["ping", "gone"]).expect(1);
    assert_eq!(ran.out, "builder gone: not every worker answered\n");
    // C01: nobody could build it soon, so nothing is queued.
    let ran = master.cli(&["force", "gone", "--soon"]).expect(2);
    assert!(ran.err.contains("has no worker that could build it"), "{}", ran.all());
    assert!(master.list("builders/gone/buildrequests").is_empty());
    master.cli(&["force", "here", "--soon"]).expect(0);
    let ran = master.cli(&["ping", "nobody"]).expect(2);
    assert!(ran.err.contains("there is no builder"), "{}", ran.all());
    master.said("here", 1, 0, "line 1");
    master.cli(&["ping", "here"]).expect(0);
    master.counts_on("here", 1);
    place.open("go");
    master.ended_as("here", 1, 0);
    assert_counted(&master.log("here", 1, 0, 'o'));
}

#[test]
fn a_log_is_followed_to_the_end_of_the_build_with_every_line_once() {
    let place = Place::new(&format!(
        "{}{}",
        worker("w", 1),
        builder("b", "w", &[&counting("go"), "echo second step"])
    ));
    let master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 3");
    let (whole, step) = std::thread::scope(|scope| {
        let whole = scope.spawn(|| master.cli(&["log", "b/1", "--follow"]));
        let step = scope.spawn(|| master.cli(&["log", "b/1", "s0", "--follow"]));
        master.counts_on("b", 1);
        place.open("go");
        (whole.join().unwrap().expect(0), step.join().unwrap().expect(0))
    });
    let lines = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with("line ") || *line == "end")
            .map(str::to_owned)
            .collect()
    };
    assert_counted(&lines(&whole.out));
    assert_counted(&lines(&step.out));
    assert!(whole.out.starts_with("=== step 0 s0, log stdio\n"), "{}", whole.all());
    assert!(whole.out.ends_with("=== success (build successful)\n"), "{}", whole.all());
    assert!(whole.out.contains("\nsecond step\n") && !step.out.contains("second step"));
    // Afterwards it is the same.
    let after = master.cli(&["log", "b/1"]).expect(0);
    assert_eq!(lines(&after.out), lines(&whole.out));
}

#[test]
fn every_answer_with_json_is_one_value_a_line() {
    let place = Place::new(&format!(
        "{}{}{}",
        worker("w", 1),
        builder("b", "w", &["echo out; echo \"$(printf 'a\\033b')\""]),
        builder("idle", "w", &["true"]),
    ));
    let master = place.master();
    let _worker = master.worker("w", 1);
    let json = |args: &[&str]| master.cli(&[&["--json"], args].concat()).expect(0).json();
    let forced = json(&["force", "b", "--wait", "-p", "a=b\nc"]);
    assert_eq!(forced.len(), 2);
    assert_eq!(forced[1]["results"], 0);
    assert_eq!(json(&["builders"]).len(), 2);
    assert_eq!(json(&["builders"])[0]["name"], "b");
    assert_eq!(json(&["workers"])[0]["board"]["connected"], true);
    let builds = json(&["builds"]);
    assert_eq!((builds.len(), &builds[0]["number"]), (1, &json!(1)));
    let build = json(&["build", "b/1"]);
    assert_eq!(build[0]["steps"][0]["name"], "s0");
    assert_eq!(build[0]["properties"]["a"][0], "b\nc");
    let log = json(&["log", "b/1"]);
    assert!(log.iter().any(|line| line["line"] == "out" && line["channel"] == "o"), "{log:?}");
    assert!(log.iter().any(|line| line["line"] == "a\u{1b}b"), "{log:?}");
    assert_eq!(json(&["ping", "b"]), [json!({ "result": true })]);
    json(&["pause", "w", "--reason", "x\ny"]);
    json(&["force", "b"]);
    assert_eq!(json(&["queue"])[0]["claimed"], false);
    assert_eq!(json(&["plan"])[0]["problems"], json!([]));
    // Faults are for people, on standard error, and no line is half JSON.
    let ran = master.cli(&["--json", "force", "nobody"]).expect(2);
    assert!(ran.out.is_empty() && ran.err.starts_with("error: "), "{}", ran.all());
}
