//! Leases: masters that stop by plan or are killed for longer than a lease, and
//! workers that come back too late or lose builds again and again.

use std::time::{Duration, Instant};

use botmaster::core::ids::{BuildId, CommandId, Epoch};
use botmaster::protocol::json_v1::{
    InventoryItem, InventoryState, MasterFrame, Resume, ResumeAction, STDIO,
};
use nix::sys::signal::Signal;

use crate::kit::{
    Master, Place, RawWorker, assert_counted, builder, counting, is_alive, until, within, worker,
};

/// Short enough that a story sees all of their ends.
const SHORT: &str = "[timers]\nheartbeat = \"1 s\"\nlease = \"3 s\"\nkill_time = \"1 s\"\n\
                     grace = \"5 s\"\nhandshake = \"3 s\"\n";

fn place(more_timers: &str, config: &str) -> Place {
    let place = Place::new("");
    place.configure_all(&format!("{SHORT}{more_timers}{config}"));
    place
}

fn one_builder(line: &str) -> String {
    format!("{}{}", worker("w", 1), builder("b", "w", &[line]))
}

fn brought(build: BuildId, epoch: Epoch, command: &CommandId, length: u64) -> InventoryItem {
    InventoryItem {
        build,
        epoch,
        builder: "b".into(),
        command: Some(command.clone()),
        state: InventoryState::Running,
        log_end: [(STDIO.to_owned(), length)].into(),
    }
}

/// The build as it is on the board while its worker is away.
fn away(master: &Master<'_>, id: BuildId) -> Option<serde_json::Value> {
    let board = master.board();
    let builds = board["builders"]["b"]["builds"].as_array()?;
    let build = builds.iter().find(|build| build["build"] == id.0)?;
    (build["state"] == "orphaned" && build["away"].is_object()).then(|| build["away"].clone())
}

fn stop_by_plan(master: &mut Master<'_>) {
    master.process.signal(Signal::SIGTERM);
    assert_eq!(master.process.code_within(Duration::from_secs(15)), Some(0));
}

/// The master is away for longer than the lease, and comes back.
#[test]
fn fm03_a_planned_stop_grants_a_longer_lease_and_the_next_master_keeps_to_it() {
    let place = place("stop_lease = \"20 s\"\n", &one_builder("true"));
    let mut master = place.master();
    let mut worker = RawWorker::attached(&master, "w", Vec::new());
    master.force("b");
    let (build, epoch, command) = worker.take_build();
    worker.log(build, &command, 0, "begun\n");
    master.said("b", 1, 0, "begun");
    stop_by_plan(&mut master);
    let granted = worker.hear_until(|frame| match frame {
        MasterFrame::Lease { lease_s } => Some(*lease_s),
        _ => None,
    });
    assert_eq!(granted, 20);
    assert!(worker.hear().is_none(), "nothing is said after it");

    let master = master.again();
    let shown = until("the build is shown to wait for its worker", || away(&master, build));
    let span = shown["until"].as_i64().unwrap() - shown["since"].as_i64().unwrap();
    assert!(span > 10_000_000, "its grace of 5 s does not count yet: {shown}");
    let told = master.cli(&["builds"]).expect(0).out;
    assert!(told.contains("waiting") && told.contains("waits for worker w"), "{told}");
    let told = master.cli(&["build", "b/1"]).expect(0).out;
    assert!(told.contains("waits for worker w, which has been away for"), "{told}");
    // Longer than the ordinary grace.
    let lost =
        within(Duration::from_secs(7), || master.build("b", 1).filter(|b| b["complete"] == true));
    assert!(lost.is_none(), "the build was given up: {lost:?}");

    let mut worker = RawWorker::attached(&master, "w", vec![brought(build, epoch, &command, 6)]);
    let from = worker.hear_until(|frame| match frame {
        MasterFrame::Resume(Resume { r#do: ResumeAction::Continue, log_from, .. }) => {
            log_from.get(STDIO).copied()
        }
        _ => None,
    });
    assert_eq!(from, 6);
    worker.finish(build, &command, 6);
    master.ended_as("b", 1, 0);
    assert_eq!(master.list("builders/b/builds").len(), 1);
}

/// A grant is no reason to wait without end, and it is not counted anew by each
/// start of the master.
#[test]
fn fr02_fm03_fm04_a_worker_that_comes_back_after_its_grant_has_lost_its_build() {
    let config = format!(
        "{}{}[[builder]]\nname = \"b\"\nworkers = [\"w\", \"other\"]\n\
         [[builder.step]]\nname = \"s\"\nshell = \"true\"\n",
        worker("w", 1),
        worker("other", 1)
    );
    let place = place("stop_lease = \"10 s\"\n", &config);
    let mut master = place.master();
    let mut worker = RawWorker::attached(&master, "w", Vec::new());
    let request = master.force("b");
    let (build, epoch, command) = worker.take_build();
    let stopped = Instant::now();
    stop_by_plan(&mut master);
    drop(worker);
    let mut master = master.again();
    let _other = master.worker("other", 1);
    master.attached("other");
    stop_by_plan(&mut master);
    let master = master.again();
    let _other = master.worker("other", 1);
    let lost = master.ended_as("b", 1, 5);
    // 10 s, 1 s to end its processes, and a tenth for the clocks.
    assert!(stopped.elapsed() >= Duration::from_secs(12), "{:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(22), "{:?}", stopped.elapsed());
    assert!(lost["state_string"].as_str().unwrap().starts_with("worker lost: away for"), "{lost}");
    assert_eq!(master.ended_as("b", 2, 0)["buildrequestid"], request);

    // FR02: it comes back too late. It shall end the build, and nothing it says
    // of it counts.
    let mut late = RawWorker::attached(&master, "w", vec![brought(build, epoch, &command, 5)]);
    late.hear_until(|frame| match frame {
        MasterFrame::Resume(Resume { build: of, r#do: ResumeAction::Abandon, .. }) => {
            (*of == build).then_some(())
        }
        _ => None,
    });
    late.log(build, &command, 0, "late\n");
    late.finish(build, &command, 5);
    until("its words are ignored", || {
        (master.ignored("frame of a build that ended") >= 2).then_some(())
    });
    assert_eq!(master.ended_as("b", 1, 5)["complete_at"], lost["complete_at"]);
    assert!(!master.log("b", 1, 0, 'o').contains(&"late".to_owned()));
    assert_eq!(master.list("builders/b/builds").len(), 2);
}

/// A crash grants nothing: a master that is away for longer than the lease
/// costs the build, once.
#[test]
fn fm03_a_master_killed_for_longer_than_lease_and_grace_builds_the_request_again_once() {
    let line = format!("echo $$ >> @DIR@/pids; {}", counting("go"));
    let place = place("", &one_builder(&line));
    let mut master = place.master();
    let mut program = master.worker("w", 1);
    let request = master.force("b");
    master.said("b", 1, 0, "line 3");
    let pid: i32 = place.written("pids").trim().parse().unwrap();
    let killed = Instant::now();
    master.process.kill();
    let ended = within(Duration::from_secs(30), || (!is_alive(pid)).then_some(()));
    assert!(ended.is_some(), "the worker did not keep its lease");
    // Lease, kill time and grace are over before anybody looks again.
    until("the grace is over", || (killed.elapsed() > Duration::from_secs(9)).then_some(()));
    let master = master.again();
    let lost = master.ended_as("b", 1, 5);
    assert!(lost["state_string"].as_str().unwrap().starts_with("worker lost: "), "{lost}");
    master.said("b", 2, 0, "line 3");
    assert_eq!(master.running("b", 2)["buildrequestid"], request);
    place.open("go");
    master.ended_as("b", 2, 0);
    assert_eq!(master.list("builders/b/builds").len(), 2);
    assert_eq!(place.written("pids").lines().count(), 2);
    assert!(program.has_ended().is_none(), "the worker program was there all the time");
}

/// It loses its build again and again: nobody else's retries are spent on it.
#[test]
fn fr21_a_worker_that_loses_builds_is_set_aside_until_a_person_takes_it_back() {
    let place = place("", &one_builder("true"));
    let master = place.master();
    let request = master.force("b");
    for number in 1..=3 {
        let mut worker = RawWorker::attached(&master, "w", Vec::new());
        let (_, _, _) = worker.take_build();
        master.running("b", number);
        drop(worker);
        master.away("w");
        // It comes back and knows nothing of its build.
        let _back = RawWorker::attached(&master, "w", Vec::new());
        let lost = master.ended_as("b", number, 5);
        assert_eq!(
            lost["state_string"],
            "worker lost: the worker came back without the build; queued again"
        );
    }
    let mut worker = RawWorker::attached(&master, "w", Vec::new());
    let shown = until("the worker is set aside", || {
        let view = master.board()["workers"]["w"]["quarantine"].clone();
        view.is_object().then_some(view)
    });
    assert_eq!(shown["reason"], "it was lost 3 times within 10 minutes while building");
    let told = master.cli(&["workers"]).expect(0).out;
    assert!(told.contains("attached, set aside for"), "{told}");
    assert!(told.contains("botmaster unpause w ends that"), "{told}");
    let page = ureq::get(master.url()).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(
        page.contains("attached, set aside") && page.contains("w gets no builds for"),
        "{page}"
    );
    assert_eq!(master.request(request)["claimed"], false, "it waits");

    master.cli(&["unpause", "w"]).expect(0);
    let (build, _, command) = worker.take_build();
    worker.finish(build, &command, 0);
    let build = master.ended_as("b", 4, 0);
    assert_eq!(build["buildrequestid"], request);
    assert!(master.board()["workers"]["w"]["quarantine"].is_null());
}

/// FR18: the end tells of all losses, those before a restart of the master, too.
#[test]
fn fr18_retries_used_up_end_with_every_worker_and_reason() {
    let config = one_builder("true").replace("[[builder]]", "[[builder]]\ninfra_retries = 1");
    let place = place("", &config);
    let mut master = place.master();
    let request = master.force("b");
    let mut worker = RawWorker::attached(&master, "w", Vec::new());
    worker.take_build();
    master.running("b", 1);
    drop(worker);
    master.away("w");
    let back = RawWorker::attached(&master, "w", Vec::new());
    master.ended_as("b", 1, 5);
    drop(back);
    master.process.kill();
    let master = master.again();
    let mut worker = RawWorker::attached(&master, "w", Vec::new());
    worker.take_build();
    master.running("b", 2);
    drop(worker);
    let build = master.ended_as("b", 2, 4);
    assert_eq!(
        build["state_string"],
        "worker lost 2 times: w (the worker came back without the build), w (away for more than 5 s)"
    );
    assert_eq!(master.request(request)["results"], 4);
    assert_eq!(master.list("builders/b/builds").len(), 2);
}

/// The real worker program keeps the longer lease.
#[test]
fn fm03_a_build_outlives_a_planned_stop_that_is_longer_than_the_lease() {
    let line = format!("echo $$ >> @DIR@/pids; {}", counting("go"));
    let place = place("stop_lease = \"1 min\"\n", &one_builder(&line));
    let mut master = place.master();
    let _program = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 3");
    let pid: i32 = place.written("pids").trim().parse().unwrap();
    stop_by_plan(&mut master);
    let stopped = Instant::now();
    // Lease and kill time are over, twice.
    let died = within(Duration::from_secs(8), || (!is_alive(pid)).then_some(()));
    assert!(died.is_none(), "the worker ended the build after {:?}", stopped.elapsed());
    let master = master.again();
    master.counts_on("b", 1);
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    assert_eq!(master.list("builders/b/builds").len(), 1);
    assert_eq!(place.written("pids").lines().count(), 1);
}
