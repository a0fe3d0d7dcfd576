//! The master process under pressure: signals, frozen peers, floods, too few
//! descriptors (rows FM, FN14, FN05, invariants I14, I15, I20).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use botmaster::protocol::json_v1::{WorkerFrame, encode};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::kit::{
    Master, Place, Process, RawWorker, assert_counted, attach, builder, counting, is_alive, until,
    waiting, within, worker,
};
use crate::slow::peak_memory;

/// Dead links are noticed after 3 s, leases end after 6 s, and builds are
/// given up after 9 s.
const QUICK: &str = "
[timers]
heartbeat = \"1 s\"
lease = \"6 s\"
kill_time = \"1 s\"
grace = \"9 s\"
handshake = \"3 s\"
";

/// A browser that asks for something and then reads nothing.
fn stuck_browser(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    stream
}

/// Raises this process's limit of open files as far as it goes.
fn files_that_may_be_open() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

/// A step that tells when two of it run at the same time.
fn alone(gate: &str) -> String {
    format!(
        "mkdir @DIR@/inside || echo twice >> @DIR@/twice; echo $$ >> @DIR@/pids; \
         trap 'rmdir @DIR@/inside; exit 1' TERM; {}; rmdir @DIR@/inside",
        waiting(gate)
    )
}

#[test]
fn fm10_i20_sigterm_ends_a_master_among_stuck_workers_and_browsers() {
    let step = counting("go");
    let place = Place::new("");
    place.configure_all(&format!("{QUICK}{}{}", worker("w", 1), builder("b", "w", &[&step])));
    let mut master = place.master();
    let stuck = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 3");
    stuck.signal(Signal::SIGSTOP);
    let mut browsers = vec![
        stuck_browser(master.http, "/sse/listen/*/*"),
        stuck_browser(master.http, "/api/v2/builders/b/builds/1/steps/0/logs/stdio/raw"),
    ];
    // One that is in the middle of its request, and one in the middle of a body.
    let mut half = TcpStream::connect(master.http).unwrap();
    half.write_all(b"POST /api/v2/builders/b HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    browsers.push(half);
    let mut body = TcpStream::connect(master.http).unwrap();
    body.write_all(
        b"POST /api/v2/builders/b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
          Content-Length: 100\r\n\r\n{",
    )
    .unwrap();
    browsers.push(body);
    let begun = Instant::now();
    master.process.signal(Signal::SIGTERM);
    let code = master.process.code_within(Duration::from_secs(15));
    println!("it ended after {:?}", begun.elapsed());
    assert_eq!(code, Some(0));
    drop(browsers);
    stuck.signal(Signal::SIGCONT);
}

#[test]
fn fm10_i20_a_second_sigterm_ends_a_draining_master_within_2_seconds() {
    let step = counting("go");
    let place = Place::new("");
    let config = format!(
        "[master]\ndrain = \"10 m\"\n{QUICK}{}{}",
        worker("w", 1),
        builder("b", "w", &[&step])
    );
    place.configure_all(&config);
    let mut master = place.master();
    let _worker = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 3");
    master.process.signal(Signal::SIGTERM);
    until("it drains", || (master.board()["draining"] == true).then_some(()));
    assert_eq!(master.process.has_ended(), None, "it waits for its build");
    let begun = Instant::now();
    master.process.signal(Signal::SIGTERM);
    assert_eq!(master.process.code_within(Duration::from_secs(2)), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn fm11_sigterm_during_start_up_or_a_reload_ends_it_in_order() {
    let place = Place::new("");
    let with =
        |more: &str| format!("{QUICK}{}{}{more}", worker("w", 1), builder("b", "w", &["true"]));
    place.configure_all(&with(""));
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    // The first start makes the store; a signal may come at any moment of it.
    for pause in (0..12).map(|step| Duration::from_millis(step * 4)) {
        let mut process =
            Process::start(&mut place.master_command(free, free), &place.path("master.log"));
        // Not to be right but to hit another moment each time.
        std::thread::sleep(pause);
        process.signal(Signal::SIGTERM);
        let ended = within(Duration::from_secs(15), || process.has_ended());
        let status = ended.unwrap_or_else(|| panic!("still there, {pause:?} after its start"));
        // Before it listens for signals the system ends it.
        let by = std::os::unix::process::ExitStatusExt::signal(&status);
        assert!(status.code() == Some(0) || by == Some(15), "{status:?}");
    }
    let mut master = place.master();
    let request = master.force("b");
    for more in [builder("c", "w", &["true"]), String::new()] {
        place.configure_all(&with(&more));
        master.process.signal(Signal::SIGHUP);
        master.process.signal(Signal::SIGTERM);
        assert_eq!(master.process.code_within(Duration::from_secs(15)), Some(0));
        master = place.master();
        // Whole: the builder is there exactly when the file has it.
        let builders = master.board()["builders"].clone();
        assert_eq!(builders.get("c").is_some(), !more.is_empty(), "{builders}");
    }
    let _worker = master.worker("w", 1);
    until("the request is built", || (master.request(request)["results"] == 0).then_some(()));
}

#[test]
fn fm14_i3_a_master_that_was_frozen_for_longer_than_the_grace_runs_nothing_twice() {
    let place = Place::new("");
    let (a, b) = (alone("go-a"), alone("go-b"));
    // Two workers, so that there would be somebody to build it a second time.
    let step = format!("if mkdir @DIR@/first; then {a}; else {b}; fi");
    place.configure_all(&format!(
        "{QUICK}{}{}[[builder]]\nname = \"b\"\nworkers = [\"v\", \"w\"]\n\
         [[builder.step]]\nname = \"s\"\nshell = '''{step}'''\n",
        worker("v", 1),
        worker("w", 1),
    ));
    let master = place.master();
    let _workers = [master.worker("v", 1), master.worker("w", 1)];
    master.attached("v");
    master.attached("w");
    let request = master.force("b");
    let first: i32 = place.written("pids").trim().parse().unwrap();
    master.process.signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    // The lease ends, and the worker with it its build; the grace ends, too.
    until("the worker ends the build at its lease", || (!is_alive(first)).then_some(()));
    assert!(frozen.elapsed() < Duration::from_secs(9), "{:?}", frozen.elapsed());
    until("the grace is over", || (frozen.elapsed() > Duration::from_secs(11)).then_some(()));
    master.process.signal(Signal::SIGCONT);
    until("it is built again", || (place.written("pids").lines().count() == 2).then_some(()));
    place.open("go-b");
    until("it is done", || (master.request(request)["results"] == 0).then_some(()));
    assert!(!place.path("twice").exists(), "it ran twice at the same time");
    assert_eq!(place.written("pids").lines().count(), 2);
}

/// A master that may have only so many files open.
#[track_caller]
fn master_with_descriptors(place: &Place, limit: u32) -> Master<'_> {
    let program = env!("CARGO_BIN_EXE_botmaster");
    let line = format!(
        "ulimit -n {limit}; exec {program} master --config x.toml --http 127.0.0.1:0 --listen 127.0.0.1:0"
    );
    let mut command = Command::new("/bin/sh");
    place.prepare(&mut command);
    command.args(["-c", &line]);
    let mut process = Process::start(&mut command, &place.path("master.log"));
    let read = |name: &str| -> Option<SocketAddr> {
        std::fs::read_to_string(place.path(name)).ok()?.trim().parse().ok()
    };
    let addresses = until("the master serves", || {
        assert!(process.has_ended().is_none(), "the master ended at its start");
        Some((read("data/http.addr")?, read("data/listen.addr")?))
    });
    Master::new(place, process, addresses)
}

#[test]
fn fm13_i14_out_of_descriptors_those_who_are_there_go_on_and_it_ends_by_itself() {
    let place = Place::new("");
    place.configure_all(&format!(
        "{QUICK}{}{}{}{}",
        worker("w", 2),
        worker("late", 1),
        builder("b", "w", &[&counting("go")]),
        builder("other", "w", &["seq 1 20000"]),
    ));
    let master = master_with_descriptors(&place, 200);
    let _w = master.worker("w", 2);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    // More than there is room for, at both ports; they say nothing.
    let hoard = |address, count: usize| -> Vec<TcpStream> {
        (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
    };
    let mut silent = hoard(master.listen, 300);
    until("a banner tells it", || {
        let text = master.board()["warnings"]["descriptors"].as_str()?.to_owned();
        text.contains("limit of open files").then_some(())
    });
    let page = ureq::get(format!("{}/", master.url())).call().unwrap().body_mut().read_to_string();
    assert!(page.unwrap().contains("limit of open files"), "the page shows it");
    // The running build, new builds and the store go on meanwhile.
    for number in 1..=3 {
        master.force("other");
        master.ended_as("other", number, 0);
        assert_eq!(master.log("other", number, 0, 'o').len(), 20_000);
        silent.extend(hoard(master.listen, 20));
    }
    master.counts_on("b", 1);
    let status = std::fs::read_dir(format!("/proc/{}/fd", master.process.id())).unwrap().count();
    assert!(status < 200, "{status} are open");
    // A new worker waits with the others, and comes in by itself.
    let _late = master.worker("late", 1);
    drop(silent);
    until("the late one is in", || {
        (master.board()["workers"]["late"]["connected"] == true).then_some(())
    });
    until("the banner is gone", || {
        master.board()["warnings"]["descriptors"].is_null().then_some(())
    });
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    assert_eq!(master.board()["workers"]["w"]["incarnation"], 1);
}

#[test]
fn fm13_i14_browsers_that_take_all_of_their_part_leave_workers_and_store_theirs() {
    let place = Place::new("");
    place.configure_all(&format!(
        "{QUICK}{}{}{}",
        worker("w", 1),
        worker("late", 1),
        builder("b", "w", &[&format!("{}; seq 1 20000", counting("go"))]),
    ));
    let master = master_with_descriptors(&place, 200);
    let _w = master.worker("w", 1);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    // There is room for 50 of them.
    let held: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(master.http).unwrap()).collect();
    // The build goes on, and a worker that is new comes in.
    let _late = master.worker("late", 1);
    place.open("go");
    // Browsers that ask for nothing are sent away in the end, and the next ones
    // are answered again: by itself, while those hold on to what they have.
    let board = until("somebody is answered", || {
        let mut stream = TcpStream::connect(master.http).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let path = "/api/v2/botmaster/board";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.contains("200 OK").then_some(text)
    });
    drop(held);
    assert!(board.contains("\"late\""), "{board}");
    until("the late one is in", || {
        (master.board()["workers"]["late"]["connected"] == true).then_some(())
    });
    master.ended_as("b", 1, 0);
    assert_eq!(master.board()["workers"]["w"]["incarnation"], 1);
}

/// Writes as much as the master takes, for as long as it takes.
fn flood(mut stream: TcpStream, bytes: Vec<u8>, limit: Duration) -> u64 {
    let (end, mut sent) = (Instant::now() + limit, 0);
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while Instant::now() < end {
        match stream.write(&bytes) {
            Ok(count) => sent += count as u64,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    sent
}

fn raw_attached(master: &Master<'_>, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(master.listen).unwrap();
    stream.write_all(&encode(&attach(name, &master.place.token(name)))).unwrap();
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    assert!(String::from_utf8_lossy(&line).contains("\"t\":\"attached\""));
    stream.write_all(b"{\"t\":\"inventory\",\"builds\":[]}\n").unwrap();
    until("it is attached", || {
        (master.board()["workers"][name]["connected"] == true).then_some(())
    });
    stream
}

#[test]
fn fm08_fm12_i15_floods_of_frames_cost_no_memory_and_block_no_order() {
    let place = Place::new("");
    place.configure_all(&format!(
        "{QUICK}{}{}{}{}{}",
        worker("w", 2),
        worker("x", 1),
        worker("y", 1),
        builder("b", "w", &[&counting("go")]),
        builder("other", "w", &["true"]),
    ));
    let master = place.master();
    let _w = master.worker("w", 2);
    let request = master.force("b");
    master.said("b", 1, 0, "line 1");
    let before = peak_memory(master.process.id());
    // One floods with frames that nobody waits for and reads no answer; another
    // with heartbeats, and reads all of them.
    let pongs = b"{\"t\":\"pong\",\"id\":1}\n".repeat(500);
    let ready = b"{\"t\":\"builder_ready\",\"builder\":\"zz\"}\n".repeat(500);
    let beats: Vec<u8> = (1..=500)
        .flat_map(|seq| encode(&WorkerFrame::Heartbeat { seq, running: Vec::new() }))
        .collect();
    let limit = Duration::from_secs(6);
    let (x, y) = (raw_attached(&master, "x"), raw_attached(&master, "y"));
    let mut reads = y.try_clone().unwrap();
    std::thread::scope(|scope| {
        let x = scope.spawn(|| flood(x, [pongs, ready].concat(), limit));
        let y = scope.spawn(|| flood(y, beats, limit));
        scope.spawn(move || {
            let mut sink = vec![0; 65536];
            while reads.read(&mut sink).is_ok_and(|count| count > 0) {}
        });
        let begun = Instant::now();
        let (mut slowest, mut builds) = (Duration::ZERO, 0);
        while begun.elapsed() < limit {
            let asked = Instant::now();
            builds += 1;
            master.force("other");
            master.ended_as("other", builds, 0);
            slowest = slowest.max(asked.elapsed());
        }
        // An order to stop is carried out in the middle of it.
        let asked = Instant::now();
        master.cli(&["stop", "b/1"]).expect(0);
        master.ended_as("b", 1, 6);
        let stopped = asked.elapsed();
        let (x, y) = (x.join().unwrap(), y.join().unwrap());
        println!(
            "took {x} and {y} bytes; {builds} builds, the slowest {slowest:?}; the stop {stopped:?}; \
             memory {before} MiB before, {} MiB after",
            peak_memory(master.process.id())
        );
        assert!(slowest < Duration::from_secs(2) && stopped < Duration::from_secs(4));
    });
    let after = peak_memory(master.process.id());
    assert!(after < before + 48, "{before} MiB before, {after} MiB after");
    assert_eq!(master.request(request)["results"], 6);
    assert_eq!(master.board()["workers"]["w"]["incarnation"], 1, "its link stood all the time");
}

#[test]
fn fn14_i15_a_worker_that_never_reads_is_dropped() {
    let place = Place::new("");
    place.configure_all(&format!("{QUICK}{}{}", worker("x", 1), builder("b", "x", &["true"])));
    let master = place.master();
    let before = peak_memory(master.process.id());
    let mut link = raw_attached(&master, "x");
    // Each attach after the first is answered at once, and no answer is read.
    let again = encode(&attach("x", &place.token("x"))).repeat(1000);
    link.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let begun = Instant::now();
    let mut sent = 0;
    while link.write_all(&again).is_ok() {
        sent += again.len();
        assert!(begun.elapsed() < Duration::from_secs(40), "{sent} bytes and still connected");
    }
    master.away("x");
    let after = peak_memory(master.process.id());
    println!("dropped after {sent} bytes, {before} MiB before, {after} MiB after");
    assert!(after < before + 32, "{before} MiB before, {after} MiB after");
    let log = std::fs::read_to_string(place.path("master.log")).unwrap();
    assert!(log.contains("it does not read what is sent to it"), "the reason is told");
    let mut next = RawWorker::attached(&master, "x", Vec::new());
    next.say(&WorkerFrame::Heartbeat { seq: 1, running: Vec::new() });
}

#[test]
fn fn05_i14_thousands_of_connections_that_say_nothing_disturb_nobody() {
    let most = files_that_may_be_open().saturating_sub(200);
    let wanted = std::env::var("SILENT_CONNECTIONS").map_or(3000, |text| text.parse().unwrap());
    let count = usize::try_from(most).unwrap().min(wanted);
    let place = Place::new("");
    place.configure_all(&format!(
        "{QUICK}{}{}{}{}",
        worker("w", 2),
        worker("late", 1),
        builder("b", "w", &[&counting("go")]),
        builder("other", "w", &["true"]),
    ));
    let master = place.master();
    let _w = master.worker("w", 2);
    master.force("b");
    master.said("b", 1, 0, "line 1");
    let before = peak_memory(master.process.id());
    let silent: Vec<TcpStream> =
        (0..count).map_while(|_| TcpStream::connect(master.listen).ok()).collect();
    assert_eq!(silent.len(), count);
    let (begun, mut slowest, mut builds) = (Instant::now(), Duration::ZERO, 0);
    // Longer than three heartbeats and than the time that they have to speak.
    while begun.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        builds += 1;
        master.force("other");
        master.ended_as("other", builds, 0);
        slowest = slowest.max(asked.elapsed());
    }
    let after = peak_memory(master.process.id());
    println!("{builds} builds, the slowest {slowest:?}; {before} MiB before, {after} MiB after");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(after < before + 64, "{before} MiB before, {after} MiB after");
    // Who comes after them is let in when their time is over.
    let _late = master.worker("late", 1);
    until("the late one is in", || {
        (master.board()["workers"]["late"]["connected"] == true).then_some(())
    });
    place.open("go");
    master.ended_as("b", 1, 0);
    assert_counted(&master.log("b", 1, 0, 'o'));
    assert_eq!(master.board()["workers"]["w"]["incarnation"], 1, "no heartbeat was missed");
    drop(silent);
}

#[test]
fn fm12_fl10_i15_hundreds_of_browsers_that_do_not_read_cost_no_memory() {
    let place = Place::new("");
    place.configure_all(&format!(
        "{QUICK}{}{}",
        worker("w", 1),
        builder("b", "w", &["seq 1 300000", "echo end"]),
    ));
    let master = place.master();
    let _w = master.worker("w", 1);
    master.attached("w");
    files_that_may_be_open();
    let stuck: Vec<TcpStream> =
        (0..300).map(|_| stuck_browser(master.http, "/sse/listen/*/*/*")).collect();
    let before = peak_memory(master.process.id());
    let (mut slowest, mut dropped) = (Duration::ZERO, 0);
    for number in 1..=8 {
        let asked = Instant::now();
        master.force("b");
        master.ended_as("b", number, 0);
        slowest = slowest.max(asked.elapsed());
        dropped = master.board()["events"]["dropped"].as_u64().unwrap();
    }
    let raws: Vec<TcpStream> = (1..=8)
        .flat_map(|number| {
            let path = format!("/api/v2/builders/b/builds/{number}/steps/0/logs/stdio/raw");
            (0..10).map(move |_| path.clone())
        })
        .map(|path| stuck_browser(master.http, &path))
        .collect();
    let asked = Instant::now();
    master.force("b");
    master.ended_as("b", 9, 0);
    slowest = slowest.max(asked.elapsed());
    let after = peak_memory(master.process.id());
    println!(
        "{} streams and {} logs; the slowest build {slowest:?}; {dropped} dropped; {before} MiB \
         before, {after} MiB after",
        stuck.len(),
        raws.len(),
    );
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(after < before + 96, "{before} MiB before, {after} MiB after");
}
