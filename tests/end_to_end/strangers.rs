//! Whoever comes to the worker port without being one of its workers, in any
//! number, disturbs nobody who is (rows FN05, FN06, FN07, invariant I14).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use botmaster::protocol::json_v1::{MasterFrame, WorkerFrame, encode};

use crate::kit::{
    Master, PATIENCE, Place, RawWorker, attach, builder, counting, ends_undisturbed, start_steady,
    until, worker,
};

/// Another address of this machine.
fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 77, last).into()
}

fn place(limits: &str) -> Place {
    Place::new(&format!(
        "[limits]\nlimit_loopback = true\n{limits}\n{}{}{}{}",
        worker("steady", 1),
        worker("raw", 1),
        builder("long", "steady", &[&counting("go")]),
        builder("other", "raw", &["true"]),
    ))
}

/// Attaches from there, and how long that took.
#[track_caller]
fn attaches_from(master: &Master<'_>, from: IpAddr) -> (RawWorker, Duration) {
    let begun = Instant::now();
    let mut raw = RawWorker::dial_from(master.listen, from);
    raw.say(&attach("raw", &master.place.token("raw")));
    match raw.hear() {
        Some(MasterFrame::Attached { .. }) => (raw, begun.elapsed()),
        other => panic!("not attached: {other:?}"),
    }
}

#[test]
fn fn05_strangers_of_one_address_take_no_place_from_others() {
    let place = place("strangers = 60\nstrangers_per_address = 4");
    let master = place.master();
    let _steady = start_steady(&master);
    let silent: Vec<_> =
        (0..200).map(|_| RawWorker::dial_from(master.listen, address(1))).collect();
    // Four are listened to, three times as many wait.
    const KIND: &str = "connection beyond the limit of its address";
    until("the others are closed", || (master.ignored(KIND) >= 184).then_some(()));
    let (_raw, took) = attaches_from(&master, address(2));
    assert!(took < Duration::from_secs(2), "another address had to wait for {took:?}");
    drop(silent);
    ends_undisturbed(&master);
}

#[test]
fn fn05_without_a_place_they_wait_and_are_not_refused() {
    let place = place("strangers = 20\nstrangers_per_address = 4");
    let master = place.master();
    let _steady = start_steady(&master);
    let begun = Instant::now();
    let silent: Vec<_> =
        (0..20).map(|n| RawWorker::dial_from(master.listen, address(10 + n / 4))).collect();
    let (_raw, took) = attaches_from(&master, address(2));
    // Until the time of the silent ones was over: three seconds.
    assert!(begun.elapsed() >= Duration::from_secs(2), "it had to wait for a place: {took:?}");
    drop(silent);
    ends_undisturbed(&master);
}

#[test]
fn fn06_after_ten_wrong_logins_one_a_minute_is_looked_at() {
    let place = place("");
    let master = place.master();
    let _steady = start_steady(&master);
    let right = place.token("raw");
    let wrong = right.replace(['1', '2', '3'], "4");
    let login = |from: IpAddr, name: &str, token: &str| {
        let begun = Instant::now();
        let mut link = RawWorker::dial_from(master.listen, from);
        link.say(&attach(name, token));
        let answer = link.turned_away();
        assert!(begun.elapsed() >= Duration::from_millis(200), "the time tells nothing");
        answer
    };
    let refused = ("auth".to_owned(), "unknown worker name or wrong token".to_owned(), None);
    for number in 0..10 {
        let name = if number % 2 == 0 { "raw".to_owned() } else { format!("w{number}") };
        assert_eq!(login(address(1), &name, &wrong), refused);
    }
    // Not even with the right one.
    let (code, text, again) = login(address(1), "raw", &right);
    assert_eq!(code, "busy");
    assert!(text.contains("too many wrong names or tokens"), "{text}");
    assert!((1..=60).contains(&again.unwrap()), "{again:?}");
    assert_eq!(login(address(1), "nobody", &wrong).0, "busy", "the same for no worker's name");
    assert_eq!(master.ignored("wrong worker name or token"), 10);
    assert_eq!(master.ignored("login that was not looked at"), 2);
    // People see it, with the worker, and nobody ever sees a token.
    let shown = master.cli(&["workers"]).expect(0).out;
    assert!(shown.contains("raw was turned away") && shown.contains("wrong token"), "{shown}");
    let (_raw, _) = attaches_from(&master, address(2));
    let shown = master.cli(&["workers"]).expect(0).out;
    assert!(!shown.contains("turned away"), "{shown}");
    let log = std::fs::read_to_string(place.path("master.log")).unwrap();
    assert!(log.contains("many wrong worker names or tokens"));
    assert!(!log.contains(&right) && !log.contains(&wrong));
    ends_undisturbed(&master);
}

#[test]
fn fn07_a_thousand_wrong_logins_a_second_disturb_no_heartbeat() {
    // As many as a quick machine tries in six seconds: twice what it takes to
    // be taken for dead.
    const TRIED: u64 = 6_000;
    let place = place("strangers_per_address = 1000");
    let master = place.master();
    let _steady = start_steady(&master);
    let mut raw = RawWorker::attached(&master, "raw", Vec::new());
    let (over, tried) = (AtomicBool::new(false), AtomicU64::new(0));
    let frame = encode(&attach("steady", "bmw_steady_wrong"));
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (over, tried, frame, listen) = (&over, &tried, &frame, master.listen);
            scope.spawn(move || {
                let begun = Instant::now();
                let mut open = std::collections::VecDeque::new();
                for number in 0u32.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut link = RawWorker::dial_from(listen, address(100 + thread));
                    link.send(frame);
                    tried.fetch_add(1, Ordering::Relaxed);
                    // They stay until they are answered, or nearly so.
                    open.push_back(link);
                    if open.len() > 80 {
                        open.pop_front();
                    }
                    let due = Duration::from_millis(4) * number;
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                }
            });
        }
        let begun = Instant::now();
        for seq in 1.. {
            let sent = Instant::now();
            raw.say(&WorkerFrame::Heartbeat { seq, running: Vec::new() });
            raw.hear_until(|frame| {
                matches!(frame, MasterFrame::Heartbeat { seq: heard } if *heard == seq)
                    .then_some(())
            });
            slowest = slowest.max(sent.elapsed());
            if tried.load(Ordering::Relaxed) >= TRIED || begun.elapsed() > PATIENCE {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let tried = tried.load(Ordering::Relaxed);
    println!("{tried} wrong logins; slowest heartbeat {slowest:?}");
    assert!(tried >= TRIED, "only {tried} logins were tried: the test shows nothing");
    // After three of them without an answer a worker takes its master for dead.
    assert!(slowest < Duration::from_secs(6), "a heartbeat took {slowest:?}");
    assert_eq!(master.ignored("wrong worker name or token"), 10, "the others are not looked at");
    ends_undisturbed(&master);
}
