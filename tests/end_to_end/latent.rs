//! Latent workers in the real program: made by a force, gone when idle, and
//! none forgotten when the master is killed.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::kit::{
    Master, Place, assert_counted, builder, counting, is_alive, until, waiting, within, worker,
};

/// Says which process the instance is: the one that the build's keeper is of.
const INSTANCE: &str = "cut -d' ' -f4 /proc/$PPID/stat";

/// Short timers, so that a worker program that resists is killed soon.
fn latent(idle: &str, more: &str) -> String {
    format!(
        "{}[worker.latent]\nprovider = \"process\"\nsubstantiate_timeout = \"30 s\"\n\
         idle_timeout = \"{idle}\"\n{more}",
        worker("cloud", 1)
    )
}

/// Instances end with the story, however it ends.
struct Instances<'p>(&'p Place);

impl Instances<'_> {
    /// Numbers of the instances' processes, as they are recorded.
    fn pids(&self) -> Vec<i32> {
        let folders = std::fs::read_dir(self.0.path("data/instances/records"));
        let texts = folders.into_iter().flatten().flatten().map(|folder| {
            std::fs::read_to_string(folder.path().join("record.json")).unwrap_or_default()
        });
        texts
            .filter_map(|text| {
                let record: Value = serde_json::from_str(&text).ok()?;
                record["process"]["pid"].as_i64()?.try_into().ok()
            })
            .collect()
    }

    /// Waits until there is an instance; its process.
    #[track_caller]
    fn one(&self) -> i32 {
        until("an instance is there", || self.pids().into_iter().find(|pid| is_alive(*pid)))
    }

    /// Waits until neither a process nor a record of it is left.
    #[track_caller]
    fn none(&self, pid: i32) {
        until("the instance is gone", || (!is_alive(pid) && self.pids().is_empty()).then_some(()));
    }
}

impl Drop for Instances<'_> {
    fn drop(&mut self) {
        for pid in self.pids() {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            if line.is_ok_and(|line| line.contains("own-session")) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

fn rows(place: &Place, sql: &str) -> Vec<String> {
    let conn = rusqlite::Connection::open(place.path("data/state.sqlite")).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    let mut query = conn.prepare(sql).unwrap();
    let found = query.query_map([], |row| row.get(0)).unwrap();
    found.map(Result::unwrap).collect()
}

fn notes(place: &Place) -> Vec<String> {
    rows(place, "SELECT text FROM notes ORDER BY id")
}

fn instance(master: &Master<'_>) -> Value {
    master.board()["workers"]["cloud"]["instance"].clone()
}

#[track_caller]
fn comes_to(master: &Master<'_>, state: &str) {
    until(&format!("the instance is {state}"), || {
        (instance(master)["state"] == state).then_some(())
    });
}

#[test]
fn l04_a_latent_worker_is_made_by_a_force_builds_idles_out_and_is_gone() {
    let place = Place::new(&format!(
        "{}{}{}",
        latent("1 s", ""),
        builder("b", "cloud", &[INSTANCE]),
        builder("c", "cloud", &["true"])
    ));
    let instances = Instances(&place);
    let master = place.master();
    let board = until("the builder shows it", || {
        Some(master.board()).filter(|board| board["builders"]["b"]["workers"]["cloud"] == "latent")
    });
    assert_eq!(board["builders"]["b"]["big_state"], "idle", "b17: it counts as a worker");
    let shown = master.cli(&["workers"]).expect(0);
    assert!(shown.out.contains("latent"), "{}", shown.all());
    assert!(instances.pids().is_empty(), "nothing is made before it is needed");

    master.force("b");
    master.ended_as("b", 1, 0);
    let pid = master.log("b", 1, 0, 'o').concat().parse().unwrap();
    instances.none(pid);
    comes_to(&master, "latent");
    let told: Vec<String> = notes(&place);
    let order = |text: &str| told.iter().position(|note| note.starts_with(text));
    let success = "substantiate success";
    // A quick one may attach before the provider has told its details.
    let ends = [success.to_owned(), format!("{success} (process {pid})")];
    let ended = order(success).expect("l02: it is told that it is there");
    assert!(ends.contains(&told[ended]), "{told:?}");
    assert!(order("added latent cloud") < Some(ended), "{told:?}");
    assert!(order("building") < Some(ended), "b17: from the choice of the worker on: {told:?}");
    assert!(order("connect").or(order("disconnect")).is_none(), "b21, b24: {told:?}");
    assert!(rows(&place, "SELECT tag FROM instances").is_empty());

    // It is made again for the next build, of another builder.
    master.force("c");
    master.ended_as("c", 1, 0);
    let second = notes(&place).iter().filter(|note| note.starts_with("substantiate s")).count();
    assert_eq!(second, 2);
    instances.none(pid);
}

#[test]
fn fx09_a_killed_master_takes_its_instance_back_with_its_build() {
    let place =
        Place::new(&format!("{}{}", latent("1 s", ""), builder("b", "cloud", &[&counting("go")])));
    let instances = Instances(&place);
    let mut master = place.master();
    master.force("b");
    master.said("b", 1, 0, "line 3");
    let pid = instances.one();
    master.process.kill();
    assert!(is_alive(pid), "it outlives its master");
    let master = master.again();
    master.counts_on("b", 1);
    assert_eq!(instances.pids(), [pid], "adopted, and no other was made");
    comes_to(&master, "up");
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    instances.none(pid);
    comes_to(&master, "latent");
}

#[test]
fn fx09_an_instance_that_nobody_wants_any_more_is_destroyed_by_the_next_master() {
    let config = |idle: &str| format!("{}{}", latent(idle, ""), builder("b", "cloud", &["true"]));
    let place = Place::new(&config("1 h"));
    let instances = Instances(&place);
    let mut master = place.master();
    master.force("b");
    master.ended_as("b", 1, 0);
    let pid = instances.one();
    master.process.kill();
    // Its worker is not configured any more, and its row was lost.
    place.configure(&format!("{}{}", worker("other", 1), builder("b", "other", &["true"])));
    let conn = rusqlite::Connection::open(place.path("data/state.sqlite")).unwrap();
    assert_eq!(conn.execute("DELETE FROM instances", []).unwrap(), 1);
    drop(conn);
    let _master = master.again();
    instances.none(pid);
    until("its row is gone", || rows(&place, "SELECT tag FROM instances").is_empty().then_some(()));
}

#[test]
fn fx09_a_wish_that_a_killed_master_left_is_forgotten_or_adopted() {
    let place = Place::new(&format!("{}{}", latent("1 s", ""), builder("b", "cloud", &["true"])));
    let instances = Instances(&place);
    let mut master = place.master();
    master.process.kill();
    // As if it had been killed between the wish and the provider's answer.
    let conn = rusqlite::Connection::open(place.path("data/state.sqlite")).unwrap();
    conn.execute(
        "INSERT INTO instances VALUES ('botmaster-w1-00000000000000aa', 1, 0, NULL, 1, 1)",
        [],
    )
    .unwrap();
    drop(conn);
    let master = master.again();
    until("the wish is forgotten", || {
        rows(&place, "SELECT tag FROM instances").is_empty().then_some(())
    });
    master.force("b");
    master.ended_as("b", 1, 0);
    until("it is gone", || instances.pids().is_empty().then_some(()));
}

#[test]
fn fx11_sigterm_lets_idle_instances_go() {
    let place = Place::new(&format!("{}{}", latent("1 h", ""), builder("b", "cloud", &[INSTANCE])));
    let instances = Instances(&place);
    let mut master = place.master();
    master.force("b");
    master.ended_as("b", 1, 0);
    let pid = instances.one();
    assert_eq!(master.log("b", 1, 0, 'o'), [pid.to_string()], "it ran on the instance");
    comes_to(&master, "idle");
    let shown = master.cli(&["workers"]).expect(0);
    assert!(shown.out.contains("idle"), "{}", shown.all());
    master.process.signal(Signal::SIGTERM);
    assert_eq!(master.process.code_within(Duration::from_secs(15)), Some(0));
    assert!(!is_alive(pid) && instances.pids().is_empty());
    assert!(rows(&place, "SELECT tag FROM instances").is_empty());
}

#[test]
fn fx11_sigterm_does_not_wait_for_an_instance_that_resists_and_the_next_start_ends_it() {
    // It is killed after the kill time, which is longer than a stop waits.
    let timers = "[timers]\nheartbeat = \"2 s\"\nlease = \"30 s\"\nkill_time = \"20 s\"\n\
                  grace = \"60 s\"\n";
    let config = format!("{}{}", latent("1 h", ""), builder("b", "cloud", &["true"]));
    let place = Place::new("");
    place.configure_all(&format!("{timers}{config}"));
    let instances = Instances(&place);
    let mut master = place.master();
    master.force("b");
    master.ended_as("b", 1, 0);
    let pid = instances.one();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    master.process.signal(Signal::SIGTERM);
    assert_eq!(master.process.code_within(Duration::from_secs(15)), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "I20");
    assert!(is_alive(pid));
    let written = rows(&place, "SELECT 'state ' || state FROM instances");
    assert_eq!(written, ["state 2"], "that it is to be destroyed");
    place.configure(&config);
    let _master = place.master();
    instances.none(pid);
}

#[test]
fn fr05_a_build_on_a_killed_instance_is_built_again_on_a_new_one() {
    // A build's keeper stands between its processes and the instance.
    let line = format!("cut -d' ' -f4 /proc/$PPID/stat; {}; echo done", waiting("go"));
    let place = Place::new(&format!("{}{}", latent("1 s", ""), builder("b", "cloud", &[&line])));
    let instances = Instances(&place);
    let master = place.master();
    let request = master.force("b");
    let first = instances.one();
    master.said("b", 1, 0, &first.to_string());
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    // Nobody waits for the grace: it is known to be dead.
    let lost = master.ended_as("b", 1, 5);
    let text = lost["state_string"].as_str().unwrap();
    assert!(text.starts_with("worker lost: ") && text.ends_with("queued again"), "{text}");
    place.open("go");
    let again = master.ended_as("b", 2, 0);
    assert_eq!(again["buildrequestid"], request);
    assert_ne!(master.log("b", 2, 0, 'o')[0], first.to_string());
    until("all is gone", || instances.pids().is_empty().then_some(()));
}

#[test]
fn fx01_what_cannot_work_ends_as_an_exception_with_the_providers_text() {
    let place = Place::new("");
    place.configure(&format!(
        "{}{}",
        latent("1 s", "dir = \"x.toml/below-a-file\"\n"),
        builder("b", "cloud", &["true"])
    ));
    let master = place.master();
    let request = master.force("b");
    let build = master.ended_as("b", 1, 4);
    let text = build["state_string"].as_str().unwrap();
    assert!(text.starts_with("no instance of worker cloud: ") && text.contains("below-a-file"));
    assert_eq!(master.request(request)["results"], 4);
    let told = notes(&place);
    assert!(told.contains(&"substantiate failed".to_owned()), "{told:?}");
    assert!(told.contains(&"removing latent cloud".to_owned()), "{told:?}");
    // It rests, and is tried again for the next request.
    master.force("b");
    assert!(within(Duration::from_secs(1), || master.build("b", 2)).is_none());
    master.ended_as("b", 2, 4);
}
