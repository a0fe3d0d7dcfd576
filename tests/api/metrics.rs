//! `/metrics`: what was measured, shown and told, in the format of OpenMetrics;
//! and the dashboard and alerts, which must not ask for what there is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::core::values::BuildResult;
use botmaster::store::*;
use botmaster::telemetry::mailboxes::mail;
use botmaster::telemetry::metrics::metrics;

use crate::stream::{build, log, request};
use crate::support::World;

/// Samples by name and labels, and the kinds of their families.
struct Scraped {
    samples: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

impl Scraped {
    fn read(world: &World) -> Self {
        let answer = world.ask("GET", "/metrics", &[], "");
        assert_eq!(answer.status, 200);
        assert!(answer.headers["content-type"].starts_with("application/openmetrics-text"));
        assert!(answer.body.ends_with("# EOF\n"));
        let (mut samples, mut kinds) = (BTreeMap::new(), BTreeMap::new());
        let mut last = String::new();
        for line in answer.body.trim_end().trim_end_matches("# EOF").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["#", "TYPE", name, kind] => {
                    let twice = kinds.insert((*name).to_owned(), (*kind).to_owned());
                    assert_eq!(twice, None, "a family is told once: {line}");
                    last = (*name).to_owned();
                }
                ["#", "HELP" | "UNIT", ..] => {}
                _ => {
                    assert!(line.starts_with(&last), "{line} belongs to {last}");
                    let (name, value) = line.rsplit_once(' ').unwrap();
                    let twice = samples.insert(name.to_owned(), value.parse().unwrap());
                    assert_eq!(twice, None, "a sample is told once: {line}");
                }
            }
        }
        Self { samples, kinds }
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.samples.get(name).copied()
    }

    fn names(&self) -> BTreeSet<String> {
        let suffixes = |kind: &str| -> &[&str] {
            match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => &[""],
            }
        };
        let each = self.kinds.iter().flat_map(|(name, kind)| {
            suffixes(kind).iter().map(move |suffix| format!("{name}{suffix}"))
        });
        each.collect()
    }
}

#[test]
fn the_board_is_told_as_it_stands() {
    let world = World::start();
    let told = Scraped::read(&world);
    for (name, value) in [
        ("botmaster_queue_requests{builder=\"slow build\"}", 1.0),
        ("botmaster_queue_requests{builder=\"unit\"}", 0.0),
        ("botmaster_queue_oldest_seconds{builder=\"unit\"}", 0.0),
        ("botmaster_builds_running{builder=\"slow build\"}", 1.0),
        ("botmaster_builder_broken{builder=\"unit\"}", 0.0),
        ("botmaster_workers{state=\"idle\"}", 1.0),
        ("botmaster_workers{state=\"away\"}", 0.0),
        ("botmaster_worker_connected{worker=\"linux-1\"}", 1.0),
        ("botmaster_worker_slots{kind=\"used\"}", 1.0),
        ("botmaster_worker_slots{kind=\"all\"}", 2.0),
        ("botmaster_draining", 0.0),
        ("botmaster_store_full", 0.0),
    ] {
        assert_eq!(told.get(name), Some(value), "{name} in {:#?}", told.samples);
    }
    let mut view = (*world.board.builder(&"unit".into()).unwrap()).clone();
    view.waiting = 3;
    view.restarts = 2;
    view.oldest_request_time = Some(WallTime(0));
    world.board.show_builder(&"unit".into(), view);
    world.board.count_ignored("late_pong");
    world.board.show_draining();
    world.board.show_full(Some("the disk is full".into()));
    let told = Scraped::read(&world);
    assert_eq!(told.get("botmaster_queue_requests{builder=\"unit\"}"), Some(3.0));
    assert!(told.get("botmaster_queue_oldest_seconds{builder=\"unit\"}").unwrap() > 1.7e9);
    assert_eq!(told.get("botmaster_ignored_total{kind=\"late_pong\"}"), Some(1.0));
    assert_eq!(told.get("botmaster_draining"), Some(1.0));
    assert_eq!(told.get("botmaster_store_full"), Some(1.0));
    assert_eq!(told.get("botmaster_builder_restarts{builder=\"unit\"}"), Some(2.0));
    assert!(told.get("process_resident_memory_bytes").unwrap() > 1e6);
    assert!(told.get("process_open_fds").unwrap() > 3.0);
    assert!(told.get("process_cpu_seconds_total").is_some());
}

#[test]
fn what_the_stream_told_is_counted() {
    let world = World::start();
    let at = |millis: i64| WallTime(millis * 1000);
    let claimed = |epoch, id| {
        Change::RequestClaimed(Arc::new(RequestRow {
            id: RequestId(id),
            epoch: Epoch(epoch),
            submitted_at: at(1000),
            claimed_at: Some(at(1250)),
            ..request()
        }))
    };
    let ended = |result| {
        Change::BuildFinished(Arc::new(BuildRow {
            state: BuildState::Finished,
            results: Some(result),
            started_at: at(1000),
            complete_at: Some(at(91_000)),
            ..build()
        }))
    };
    let grown = |length| LogRow { length, ..log() };
    world.events.publish(vec![
        claimed(1, 1),
        // It came back to the queue and was claimed again: no dispatch.
        claimed(2, 1),
        ended(BuildResult::Success),
        ended(BuildResult::Success),
        ended(BuildResult::Failure),
        Change::LogAppend(Arc::new(grown(100))),
        Change::LogAppend(Arc::new(grown(250))),
        Change::LogFinished(Arc::new(grown(300))),
        Change::LogFinished(Arc::new(LogRow { id: LogId(76), ..grown(7) })),
    ]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let told = loop {
        let told = Scraped::read(&world);
        if told.get("botmaster_log_bytes_total{}").or(told.get("botmaster_log_bytes_total"))
            == Some(307.0)
        {
            break told;
        }
        assert!(Instant::now() < deadline, "{:#?}", told.samples);
    };
    for (name, value) in [
        ("botmaster_builds_total{builder=\"unit\",result=\"success\"}", 2.0),
        ("botmaster_builds_total{builder=\"unit\",result=\"failure\"}", 1.0),
        ("botmaster_dispatch_seconds_count", 1.0),
        ("botmaster_dispatch_seconds_sum", 0.25),
        ("botmaster_build_duration_seconds_count", 3.0),
        ("botmaster_build_duration_seconds_sum", 270.0),
    ] {
        assert_eq!(told.get(name), Some(value), "{name} in {:#?}", told.samples);
    }
}

#[test]
fn asks_are_measured_and_open_streams_counted() {
    let world = World::start();
    let asked = world.rpc("builders/1", "ping", serde_json::json!({}));
    assert_eq!(asked.status, 200, "{}", asked.body);
    let told = Scraped::read(&world);
    assert_eq!(told.get("botmaster_ask_seconds_count{message=\"PingBuilder\"}"), Some(1.0));
    assert_eq!(told.get("botmaster_asks_waiting{message=\"PingBuilder\"}"), Some(0.0));
    assert_eq!(told.get("botmaster_event_streams{kind=\"ws\"}"), Some(0.0));
}

/// The words of a text that are names of metrics.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !word(c));
    let ours = |word: &&str| {
        (word.starts_with("botmaster_") || word.starts_with("process_")) && !word.ends_with('_')
    };
    words.filter(ours).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_nothing_that_there_is_not() {
    let world = World::start();
    // What only real actors and real stores measure.
    let mail = mail::<World, Scraped>();
    mail.sent();
    mail.taken(Duration::from_millis(1));
    mail.handled(Duration::from_millis(2));
    metrics().panicked::<World>();
    metrics().committed(Duration::from_millis(1), 1, 0, true);
    world.board.count_ignored("x");
    world.rpc("builders/1", "ping", serde_json::json!({}));
    let told = Scraped::read(&world);
    let by = "{actor=\"World\",message=\"Scraped\"}";
    assert_eq!(told.get(&format!("botmaster_message_seconds_sum{by}")), Some(0.002));
    assert_eq!(told.get(&format!("botmaster_message_wait_seconds_count{by}")), Some(1.0));
    assert_eq!(told.get("botmaster_mailbox_depth{actor=\"World\"}"), Some(0.0));
    let bucket =
        "botmaster_message_seconds_bucket{le=\"0.01\",actor=\"World\",message=\"Scraped\"}";
    assert_eq!(told.get(bucket), Some(1.0), "{:#?}", told.samples);
    let told = told.names();
    let mut asked = metrics_in(include_str!("../../config/prometheus/dashboard.json"));
    assert!(asked.len() > 15, "{asked:?}");
    asked.extend(metrics_in(include_str!("../../config/prometheus/alerts.yml")));
    let unknown: Vec<&String> = asked.difference(&told).collect();
    assert!(unknown.is_empty(), "{unknown:?} are not among {told:#?}");
}
