//! What programs beside the master see of it.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::kit::{PATIENCE, Place, builder, until, worker};

fn place() -> Place {
    Place::new(&format!("{}{}", worker("w", 1), builder("b", "w", &["echo hello"])))
}

fn metric(master: &crate::kit::Master<'_>, name: &str) -> Option<f64> {
    let mut answer = ureq::get(format!("{}/metrics", master.url())).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

#[test]
fn who_follows_events_hears_of_the_masters_end() {
    let place = place();
    let mut master = place.master();
    let url = master.url();
    let mut command = place.program();
    command.args(["--url", &url, "--json", "events", "masters/*/*", "--limit", "1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    until("somebody listens", || {
        (metric(&master, "botmaster_event_streams{kind=\"sse\"}") == Some(1.0)).then_some(())
    });
    master.process.signal(Signal::SIGTERM);
    assert_eq!(master.process.code_within(PATIENCE), Some(0));
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let event: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&event["key"], &event["message"]["active"]),
        (&"masters/1/stopped".into(), &false.into())
    );
}

#[test]
fn a_build_is_seen_in_metrics_badges_and_feeds() {
    let place = place();
    let master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.ended_as("b", 1, 0);
    let ended = "botmaster_builds_total{builder=\"b\",result=\"success\"}";
    until("the build is counted", || (metric(&master, ended) == Some(1.0)).then_some(()));
    assert_eq!(metric(&master, "botmaster_dispatch_seconds_count"), Some(1.0));
    // The worker and the builder hear of the end after it is durable.
    for (name, value) in [
        ("botmaster_workers{state=\"idle\"}", 1.0),
        ("botmaster_mailbox_depth{actor=\"Builder\"}", 0.0),
    ] {
        until(&format!("{name} is {value}"), || {
            (metric(&master, name) == Some(value)).then_some(())
        });
    }
    assert!(metric(&master, "botmaster_store_commit_seconds_count").unwrap() > 3.0);
    let told = "{actor=\"BotMaster\",message=\"Submit\"}";
    assert_eq!(metric(&master, &format!("botmaster_message_seconds_count{told}")), Some(1.0));
    let get = |path: &str| {
        let mut answer = ureq::get(format!("{}{path}", master.url())).call().unwrap();
        answer.body_mut().read_to_string().unwrap()
    };
    assert!(get("/badges/b.svg").contains("<title>b: passing</title>"));
    assert!(get("/cc.xml").contains("lastBuildStatus=\"Success\" lastBuildLabel=\"1\""));
    assert!(!get("/failures.atom").contains("<entry>"));
}

#[test]
fn a_folder_without_the_pages_stops_the_start_with_what_to_do() {
    let place = place();
    let ran = place.cli(&["master", "--config", "x.toml", "--ui-dir", "nope"]);
    assert!(ran.code.is_some_and(|code| code != 0), "{}", ran.all());
    assert!(ran.err.contains("there is no index.html"), "{}", ran.all());
    assert!(ran.err.contains("pip install --no-deps --target"), "{}", ran.all());
}

#[test]
fn shells_and_man_get_what_they_want() {
    let place = place();
    let ran = place.cli(&["completions", "bash"]).expect(0);
    assert!(ran.out.contains("complete -F _botmaster"), "{}", ran.all());
    let ran = place.cli(&["man"]).expect(0);
    assert!(ran.out.contains(".TH botmaster 1"), "{}", ran.all());
    place.cli(&["man", "--dir", "pages"]).expect(0);
    assert!(place.path("pages/botmaster-force.1").is_file());
}
