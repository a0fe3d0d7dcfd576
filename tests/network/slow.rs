//! A build that writes much faster than its link carries (rows FL05, FL06).

use std::io::Read as _;
use std::time::{Duration, Instant};

use crate::kit::{Master, Place, builder, until, worker};
use crate::proxy::Proxy;

/// Numbers that a step writes when nothing else is asked for: some 5 MB.
const NUMBERS: u64 = 700_000;
/// What the link carries in a second, and how late.
const RATE: u64 = 2_000_000;
const DELAY: Duration = Duration::from_millis(200);
/// Pings are answered within this, though data waits before them.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// What a process may need at most, whatever a build writes, in MiB.
const MEMORY: u64 = 96;

const TIMERS: &str = "
[timers]
heartbeat = \"3 s\"
lease = \"60 s\"
kill_time = \"1 s\"
grace = \"70 s\"
";

/// Memory of a process at its highest, in MiB.
pub fn peak_memory(process: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024
}

/// The text of a step's log holds the numbers from 1 on, each followed by
/// `end`, and nothing else but the master's own lines at both ends.
#[track_caller]
fn assert_numbers(master: &Master<'_>, step: u64, end: u8, numbers: u64) -> u64 {
    let path = format!("/api/v2/builders/b/builds/1/steps/{step}/logs/stdio/raw");
    let mut answer = ureq::get(format!("{}{path}", master.url())).call().unwrap();
    let mut text = Vec::new();
    answer.body_mut().as_reader().read_to_end(&mut text).unwrap();
    let first = [b'\n', b'1', end, b'2', end];
    let begin = text.windows(first.len()).position(|window| *window == first).unwrap() + 1;
    assert!(begin < 1000, "the numbers come right after the master's own lines");
    let mut rest = text.get(begin..).unwrap();
    for number in 1..=numbers {
        let expected = number.to_string();
        let after = rest
            .strip_prefix(expected.as_bytes())
            .and_then(|rest| rest.strip_prefix(&[end]))
            .unwrap_or_else(|| {
                let shown = String::from_utf8_lossy(rest.get(..40).unwrap_or(rest));
                panic!("step {step}: {number} was expected, not `{shown}`")
            });
        rest = after;
    }
    // A line without an end gets one before the master's last line.
    let rest = String::from_utf8_lossy(rest);
    assert_eq!(rest.trim(), "program finished with exit code 0");
    text.len() as u64
}

#[test]
fn fl06_fl05_a_flood_over_a_slow_link_is_whole_and_holds_up_no_ping() {
    let numbers = std::env::var("FLOOD_NUMBERS").map_or(NUMBERS, |text| text.parse().unwrap());
    let rate = std::env::var("FLOOD_RATE").map_or(RATE, |text| text.parse().unwrap());
    let place = Place::new("");
    // The second and the third are each one single line, of NULs between the
    // numbers and of bytes that are no UTF-8.
    let steps = [
        format!("seq 1 {numbers}"),
        format!("seq 1 {numbers} | tr '\\n' '\\000'"),
        format!("seq 1 {numbers} | tr '\\n' '\\377'"),
    ];
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    place.configure_all(&format!(
        "{TIMERS}{}{}{}{}",
        worker("w", 1),
        worker("near", 1),
        builder("b", "w", &steps),
        builder("other", "near", &["true"]),
    ));
    let master = place.master();
    let proxy = Proxy::before(master.listen);
    let slow = place.worker(proxy.address, "w", 1);
    let _near = master.worker("near", 1);
    master.attached("w");
    master.attached("near");
    proxy.weather(|weather| (weather.rate, weather.delay) = (rate, DELAY));
    let begun = Instant::now();
    master.force("b");
    master.running("b", 1);
    let (mut worst_ping, mut worst_build, mut others) = (Duration::ZERO, Duration::ZERO, 0);
    while master.build("b", 1).is_none_or(|build| build["complete"] == false) {
        let asked = Instant::now();
        assert_eq!(master.ordered("builders/b", "ping", &serde_json::json!({})), true);
        worst_ping = worst_ping.max(asked.elapsed());
        // Others are not held up (I14).
        let asked = Instant::now();
        let request = master.force("other");
        until("the other is built", || (master.request(request)["results"] == 0).then_some(()));
        worst_build = worst_build.max(asked.elapsed());
        others += 1;
    }
    let took = begun.elapsed();
    master.ended_as("b", 1, 0);
    let bytes: u64 = [b'\n', 0, 0xff]
        .iter()
        .zip(0..)
        .map(|(end, step)| assert_numbers(&master, step, *end, numbers))
        .sum();
    let (at_master, at_worker) = (peak_memory(master.process.id()), peak_memory(slow.id()));
    println!(
        "{bytes} bytes in {took:?}; {others} pings, the slowest {worst_ping:?}; the slowest other \
         build {worst_build:?}; memory of the master {at_master} MiB, of the worker {at_worker} MiB"
    );
    assert_eq!(proxy.connections(), 1, "the link was never dropped");
    assert_eq!(master.board()["workers"]["w"]["incarnation"], 1);
    assert!(others > 3 && worst_ping < PING_LIMIT, "{worst_ping:?}");
    assert!(worst_build < Duration::from_secs(3), "{worst_build:?}");
    assert!(at_master < MEMORY && at_worker < MEMORY, "{at_master} MiB, {at_worker} MiB");
}
