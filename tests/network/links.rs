//! Links that stall, go one way, break and lie (rows FR, FP, FB, FA, FN17).

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::kit::{
    Master, Place, Process, assert_counted, builder, counting, until, within, worker,
};
use crate::proxy::{Cut, Plan, Proxy, Way};

/// Dead links are noticed after 3 s, leases end after 6 s, and builds are
/// given up after 9 s.
const QUICK: &str = "
[timers]
heartbeat = \"1 s\"
lease = \"6 s\"
kill_time = \"1 s\"
grace = \"9 s\"
handshake = \"3 s\"
ping_timeout = \"2 s\"
[limits]
attaches_per_minute = 1000
";

/// As `QUICK`, with a lease that no story lives to see.
const PATIENT: &str = "
[timers]
heartbeat = \"1 s\"
lease = \"30 s\"
kill_time = \"1 s\"
grace = \"40 s\"
handshake = \"3 s\"
ping_timeout = \"2 s\"
[limits]
attaches_per_minute = 1000
";

/// A worker `w` and a builder `b` with this step.
fn place_with(timers: &str, step: &str) -> Place {
    let place = Place::new("");
    place.configure_all(&format!("{timers}{}{}", worker("w", 1), builder("b", "w", &[step])));
    place
}

/// A counting step that also notes each start of it.
fn noted() -> String {
    format!("echo $$ >> @DIR@/runs; {}", counting("go"))
}

fn runs(place: &Place) -> usize {
    place.written("runs").lines().count()
}

/// A worker of this master behind a proxy.
fn behind_proxy(master: &Master<'_>, name: &str) -> (Proxy, Process) {
    let proxy = Proxy::before(master.listen);
    let worker = master.place.worker(proxy.address, name, 1);
    (proxy, worker)
}

/// Waits until the worker is connected, with a build or without.
#[track_caller]
fn connected(master: &Master<'_>, name: &str) {
    until(&format!("worker {name} is connected"), || {
        (master.board()["workers"][name]["connected"] == true).then_some(())
    });
}

/// The build has gone on over the fault as if nothing had happened: one build,
/// one run of its step, each line of its log once.
#[track_caller]
fn ends_as_if_nothing_happened(master: &Master<'_>) {
    master.counts_on("b", 1);
    master.place.open("go");
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    assert_eq!(master.list("builders/b/builds").len(), 1);
    assert_eq!(runs(master.place), 1, "it ran once");
}

#[test]
fn fr07_fr01_half_open_while_building_is_noticed_and_the_build_goes_on() {
    let place = place_with(PATIENT, &noted());
    let master = place.master();
    let (proxy, _worker) = behind_proxy(&master, "w");
    master.force("b");
    master.said("b", 1, 0, "line 3");
    proxy.weather(|weather| (weather.up, weather.down) = (false, false));
    let begun = Instant::now();
    // No reset, no data: three heartbeats later the master knows.
    master.away("w");
    let noticed = begun.elapsed();
    assert!(noticed < Duration::from_secs(8), "noticed after {noticed:?}");
    assert_eq!(master.running("b", 1)["complete"], false, "it is kept for its worker");
    proxy.weather(|weather| (weather.up, weather.down) = (true, true));
    connected(&master, "w");
    assert!(proxy.connections() >= 2);
    ends_as_if_nothing_happened(&master);
}

#[test]
fn fr08_i3_the_masters_frames_do_not_arrive_and_the_worker_kills_at_its_lease() {
    let place = place_with(QUICK, &noted());
    let master = place.master();
    let (proxy, _worker) = behind_proxy(&master, "w");
    let request = master.force("b");
    master.said("b", 1, 0, "line 3");
    let pid: i32 = place.written("runs").trim().parse().unwrap();
    proxy.weather(|weather| weather.down = false);
    let begun = Instant::now();
    // Nothing is confirmed: the worker drops the connection, and once its lease
    // is over it ends the build, before the master gives it to anybody.
    until("the worker ends the build", || (!crate::kit::is_alive(pid)).then_some(()));
    let killed = begun.elapsed();
    assert!(killed > Duration::from_secs(3) && killed < Duration::from_secs(9), "{killed:?}");
    master.away("w");
    proxy.weather(|weather| weather.down = true);
    place.open("go");
    // The worker tells that it was the lease, and the request is built again.
    let lost = master.ended("b", 1);
    assert_ne!(lost["results"], 0, "{lost}");
    let again = master.ended_as("b", 2, 0);
    assert_eq!(again["buildrequestid"], request);
    assert_eq!(runs(&place), 2);
}

#[test]
fn fr09_the_workers_frames_do_not_arrive_and_the_master_drops_the_link() {
    let place = place_with(PATIENT, &noted());
    let master = place.master();
    let (proxy, _worker) = behind_proxy(&master, "w");
    master.force("b");
    master.said("b", 1, 0, "line 3");
    proxy.weather(|weather| weather.up = false);
    let begun = Instant::now();
    master.away("w");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    proxy.weather(|weather| weather.up = true);
    connected(&master, "w");
    ends_as_if_nothing_happened(&master);
}

/// Two workers, of which the first one will not answer.
fn two_workers() -> Place {
    let place = Place::new("");
    place.configure_all(&format!(
        "{PATIENT}{}{}[[builder]]\nname = \"b\"\nworkers = [\"a\", \"w\"]\nchoose = \"first\"\n\
         [[builder.step]]\nname = \"s\"\nshell = '''echo $PWD >> @DIR@/runs'''\n\
         [[builder]]\nname = \"other\"\nworkers = [\"w\"]\n\
         [[builder.step]]\nname = \"s\"\nshell = '''true'''\n",
        worker("a", 1),
        worker("w", 2),
    ));
    place
}

/// With worker `a` out of reach a request of `b` is built by `w`, within the
/// ping's limit and a little.
#[track_caller]
fn is_built_elsewhere(master: &Master<'_>) {
    let begun = Instant::now();
    let request = master.force("b");
    // Others are not held up meanwhile.
    let before = Instant::now();
    master.force("other");
    master.ended_as("other", 1, 0);
    assert!(before.elapsed() < Duration::from_secs(2), "others wait: {:?}", before.elapsed());
    let done = until("the request is built", || {
        let request = master.request(request);
        (request["complete"] == true).then_some(request)
    });
    let took = begun.elapsed();
    assert_eq!(done["results"], 0, "{done}");
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    let ran = master.place.written("runs");
    assert_eq!(ran.lines().count(), 1, "{ran}");
    assert!(ran.contains("/workers/w/"), "{ran}");
}

#[test]
fn fp01_half_open_while_pinging_is_built_by_another_worker() {
    let place = two_workers();
    let master = place.master();
    let (proxy, _a) = behind_proxy(&master, "a");
    let _w = master.worker("w", 2);
    master.attached("a");
    master.attached("w");
    proxy.weather(|weather| (weather.up, weather.down) = (false, false));
    is_built_elsewhere(&master);
    master.away("a");
}

#[test]
fn fp04_a_stopped_worker_program_holds_up_nobody() {
    let place = two_workers();
    let master = place.master();
    let a = master.worker("a", 1);
    let _w = master.worker("w", 2);
    master.attached("a");
    master.attached("w");
    a.signal(Signal::SIGSTOP);
    is_built_elsewhere(&master);
    a.signal(Signal::SIGCONT);
    master.attached("a");
}

#[test]
fn fp10_fb02_cut_between_pong_and_start_is_started_again() {
    for cut in
        [Cut::After(Way::Up, "\"t\":\"pong\""), Cut::Before(Way::Down, "\"t\":\"start_build\"")]
    {
        let place = place_with(PATIENT, &noted());
        let master = place.master();
        let proxy = Proxy::before(master.listen);
        proxy.plan([Plan { cut: Some(cut), ..Plan::default() }]);
        let _worker = place.worker(proxy.address, "w", 1);
        master.attached("w");
        let (begun, request) = (Instant::now(), master.force("b"));
        until("it is built after all", || {
            let path = place.path("runs");
            path.exists().then_some(())
        });
        // A pause after a failed start would be ten seconds (FB07).
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        place.open("go");
        until("the request is done", || (master.request(request)["results"] == 0).then_some(()));
        assert_eq!(runs(&place), 1, "it ran once");
        assert_eq!(proxy.connections(), 2);
    }
}

#[test]
fn fb03_cut_right_after_the_start_frame_and_it_runs_once() {
    let place = place_with(PATIENT, &noted());
    let master = place.master();
    let proxy = Proxy::before(master.listen);
    let cut = Cut::After(Way::Down, "\"t\":\"start_build\"");
    proxy.plan([Plan { cut: Some(cut), ..Plan::default() }]);
    let _worker = place.worker(proxy.address, "w", 1);
    master.attached("w");
    let begun = Instant::now();
    master.force("b");
    master.said("b", 1, 0, "line 1");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(proxy.connections(), 2);
    ends_as_if_nothing_happened(&master);
}

#[test]
fn fa05_cut_while_attaching_and_the_next_attach_works() {
    let place = place_with(PATIENT, &noted());
    let master = place.master();
    for (way, text) in [
        (Way::Up, "\"t\":\"attach\""),
        (Way::Down, "\"t\":\"attached\""),
        (Way::Up, "\"t\":\"inventory\""),
        (Way::Down, "\"t\":\"builders\""),
        (Way::Up, "\"t\":\"builder_ready\""),
    ] {
        let proxy = Proxy::before(master.listen);
        proxy.plan([Plan { cut: Some(Cut::After(way, text)), ..Plan::default() }]);
        let worker = place.worker(proxy.address, "w", 1);
        until("it has come back", || (proxy.connections() == 2).then_some(()));
        master.attached("w");
        drop(worker);
        master.away("w");
    }
    let _worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    ends_as_if_nothing_happened(&master);
}

#[test]
fn fn17_resets_and_delays_change_nothing_in_a_build() {
    let place = place_with(PATIENT, &noted());
    let master = place.master();
    let proxy = Proxy::before(master.listen);
    proxy.weather(|weather| weather.delay = Duration::from_millis(150));
    proxy.plan([Plan { reset: true, ..Plan::default() }, Plan { reset: true, ..Plan::default() }]);
    let _worker = place.worker(proxy.address, "w", 1);
    master.attached("w");
    master.force("b");
    for round in 1..=2 {
        master.counts_on("b", 1);
        proxy.cut();
        until("it has come back", || (proxy.connections() > round).then_some(()));
    }
    connected(&master, "w");
    ends_as_if_nothing_happened(&master);
}

#[test]
fn fn17_fn01_a_flipped_bit_never_ends_in_a_wrong_result_or_a_second_run() {
    // What is no UTF-8 is no frame: the connection ends, and all goes on over the
    // next one. (A flip that makes another word of a word is what TLS is for.)
    // All of it is one worker that comes again and again (FA11).
    let timers = format!("{PATIENT}\n[limits]\nattaches_per_minute = 100\n");
    let place = place_with(&timers, "echo $$ >> @DIR@/runs; echo one; echo two");
    let master = place.master();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for place in (0..4).map(|step| 40 + step * 140) {
        up.push((Way::Up, place));
        down.push((Way::Down, place));
    }
    let mut requests = 0;
    for flip in up.into_iter().chain(down) {
        let proxy = Proxy::before(master.listen);
        proxy.plan([Plan { flip: Some(flip), ..Plan::default() }]);
        let mut worker = place.worker(proxy.address, "w", 1);
        requests += 1;
        let request = master.force("b");
        let done = within(Duration::from_secs(30), || {
            // A flipped token is a wrong one: that worker is told to go.
            if worker.has_ended().is_some() {
                worker = place.worker(proxy.address, "w", 1);
            }
            let request = master.request(request);
            (request["complete"] == true).then_some(request)
        });
        let done = done.unwrap_or_else(|| panic!("with {flip:?} the request hangs"));
        assert_eq!(done["results"], 0, "{flip:?}: {done}");
        drop(worker);
        master.away("w");
        assert_eq!(runs(&place), requests, "{flip:?}: each ran once");
    }
}
