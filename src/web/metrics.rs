//! `/metrics` for Prometheus: what was measured, what the board shows, and what
//! the event stream told. Reading it asks no actor and no store.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Data;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::context::{WebContext, wall_now};
use crate::board::Shown;
use crate::core::ids::{BuilderId, LogId};
use crate::core::time::WallTime;
use crate::core::values::BuildResult;
use crate::core::views::WorkerView;
use crate::events::Events;
use crate::store::{BuildRow, Change, RequestRow};
use crate::telemetry::mailboxes::{self, Mail, Times};
use crate::telemetry::metrics::{PREFIX, metrics};

/// The text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the event stream told so far. Clones share it.
#[derive(Clone)]
pub struct Counted(Arc<Mutex<Sums>>);

struct Sums {
    /// Ended builds.
    builds: BTreeMap<(BuilderId, BuildResult), u64>,
    /// From a submission to its first claim.
    dispatch: Histogram,
    /// From a build's start to its end.
    lengths: Histogram,
    /// Bytes of logs.
    log_bytes: u64,
    /// Of which so many belong to logs that still grow.
    growing: HashMap<LogId, u64>,
    /// Events that were not seen, because counting fell behind.
    missed: u64,
}

impl Default for Counted {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Sums {
            builds: BTreeMap::new(),
            // From 1 ms to 4.6 h, by fours.
            dispatch: Histogram::new(exponential_buckets(0.001, 4.0, 13)),
            // From 1 s to 18 h, by fours.
            lengths: Histogram::new(exponential_buckets(1.0, 4.0, 9)),
            log_bytes: 0,
            growing: HashMap::new(),
            missed: 0,
        })))
    }
}

fn seconds_between(from: WallTime, to: WallTime) -> f64 {
    let micros = to.0.saturating_sub(from.0).max(0);
    std::time::Duration::from_micros(u64::try_from(micros).unwrap_or_default()).as_secs_f64()
}

impl Sums {
    fn note(&mut self, change: &Change) {
        match change {
            Change::RequestClaimed(row) => self.claimed(row),
            Change::BuildFinished(row) => self.finished(row),
            Change::LogAppend(row) => self.log_has(row.id, row.length, false),
            Change::LogFinished(row) => self.log_has(row.id, row.length, true),
            _ => {}
        }
    }

    fn claimed(&mut self, row: &RequestRow) {
        // A request that comes back to the queue was dispatched once already.
        if let (1, Some(at)) = (row.epoch.0, row.claimed_at) {
            self.dispatch.observe(seconds_between(row.submitted_at, at));
        }
    }

    fn finished(&mut self, row: &BuildRow) {
        if let (Some(result), Some(at)) = (row.results, row.complete_at) {
            *self.builds.entry((row.builder, result)).or_default() += 1;
            self.lengths.observe(seconds_between(row.started_at, at));
        }
    }

    fn log_has(&mut self, log: LogId, length: u64, ended: bool) {
        let before = self.growing.remove(&log).unwrap_or_default();
        self.log_bytes += length.saturating_sub(before);
        if !ended {
            self.growing.insert(log, length.max(before));
        }
    }
}

impl Counted {
    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from now on, for as long as the task runs that this makes.
    pub fn follow(self, events: Events) -> impl Future<Output = ()> {
        // Before the task begins, so that nothing is missed until it does.
        let mut next = events.next_seq();
        let mut listener = events.listen_inside();
        async move {
            let mut batch = Vec::new();
            loop {
                while listener.recv_many(&mut batch, 256).await > 0 {
                    let mut sums = self.lock();
                    for event in batch.drain(..) {
                        sums.missed += event.seq.saturating_sub(next);
                        next = event.seq + 1;
                        sums.note(&event.change);
                    }
                }
                // It fell behind. Logs that grew meanwhile are counted at
                // their next event.
                listener = events.listen_inside();
            }
        }
    }
}

/// Everything that is told at one moment.
struct Scrape {
    shown: Shown,
    counted: Counted,
    now: WallTime,
    streams: [(&'static str, usize); 2],
    next_event: u64,
    dropped: u64,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

/// A worker's one word.
fn state(worker: &WorkerView) -> &'static str {
    match worker {
        WorkerView { connected: false, instance: Some(_), .. } => "asleep",
        WorkerView { connected: false, .. } => "away",
        WorkerView { graceful: true, .. } => "leaving",
        WorkerView { paused: true, .. } => "paused",
        WorkerView { used, max_builds, .. } if used >= max_builds => "busy",
        _ => "idle",
    }
}

const WORKER_STATES: [&str; 6] = ["asleep", "away", "busy", "idle", "leaving", "paused"];

/// Writes one family: its description and its values by labels.
struct Family<'e> {
    encoder: DescriptorEncoder<'e>,
}

type Labels = Vec<(&'static str, String)>;

impl Family<'_> {
    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn times<'m>(
        &mut self,
        name: &str,
        help: &str,
        all: impl Iterator<Item = (&'m Mail, &'m Times)>,
    ) -> fmt::Result {
        let kind = MetricType::Histogram;
        let mut family = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        for (mail, times) in all {
            let (sum, count, buckets) = times.read();
            let labels = [("actor", mail.actor), ("message", mail.message)];
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, values: &Histogram) -> fmt::Result {
        let kind = MetricType::Histogram;
        let encoder = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        values.encode(encoder)
    }
}

/// Counts are far below 2^52, where this is exact.
fn count(number: usize) -> f64 {
    number as f64
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = Family { encoder };
        self.builders(&mut family)?;
        self.workers(&mut family)?;
        mailboxes(&mut family)?;
        self.past(&mut family)?;
        self.inner(&mut family)
    }
}

impl Scrape {
    fn builders(&self, family: &mut Family<'_>) -> fmt::Result {
        let by = |value: fn(&Self, &crate::core::views::BuilderView) -> f64| {
            let each = self.shown.builders.iter();
            each.map(move |(name, view)| (vec![("builder", name.to_string())], value(self, view)))
        };
        family.gauges(
            "queue_requests",
            "Build requests that wait",
            None,
            by(|_, view| count(view.waiting)),
        )?;
        family.gauges(
            "queue_oldest",
            "Age of the build request that waits at the head of the queue; 0 when none does",
            Some(&Unit::Seconds),
            by(|me, view| {
                view.oldest_request_time.map_or(0.0, |since| seconds_between(since, me.now))
            }),
        )?;
        family.gauges(
            "builds_running",
            "Builds that have a worker and have not ended",
            None,
            by(|_, view| count(view.builds.len())),
        )?;
        family.gauges(
            "builder_broken",
            "1 when the builder gave up after faults and starts nothing",
            None,
            by(|_, view| if view.broken.is_some() { 1.0 } else { 0.0 }),
        )?;
        family.gauges(
            "builder_restarts",
            "How often the builder was started again after a fault since the start of this master",
            None,
            by(|_, view| f64::from(view.restarts)),
        )
    }

    fn workers(&self, family: &mut Family<'_>) -> fmt::Result {
        let workers = &self.shown.workers;
        let of = |word: &str| workers.values().filter(|view| state(view) == word).count();
        family.gauges(
            "workers",
            "Workers by state",
            None,
            WORKER_STATES.map(|word| (vec![("state", word.to_owned())], count(of(word)))),
        )?;
        family.gauges(
            "worker_connected",
            "1 when the worker is attached",
            None,
            workers.iter().map(|(name, view)| {
                let connected = if view.connected { 1.0 } else { 0.0 };
                (vec![("worker", name.to_string())], connected)
            }),
        )?;
        let attached = || workers.values().filter(|view| view.connected);
        let used: u32 = attached().map(|view| view.used).sum();
        let all: u32 = attached().map(|view| view.max_builds).sum();
        family.gauges(
            "worker_slots",
            "Builds that the attached workers run and could run side by side",
            None,
            [("used", used), ("all", all)]
                .map(|(kind, slots)| (vec![("kind", kind.to_owned())], f64::from(slots))),
        )
    }

    fn past(&self, family: &mut Family<'_>) -> fmt::Result {
        let sums = self.counted.lock();
        let names: BTreeMap<BuilderId, String> =
            self.shown.builders.iter().map(|(name, view)| (view.id, name.to_string())).collect();
        family.counters(
            "builds",
            "Builds that ended since the start of this master",
            None,
            sums.builds.iter().map(|((builder, result), ended)| {
                let name = names.get(builder).cloned().unwrap_or_else(|| format!("#{builder}"));
                (vec![("builder", name), ("result", result.word().to_owned())], *ended)
            }),
        )?;
        family.histogram(
            "dispatch",
            "From the submission of a build request until a worker was chosen for it",
            &sums.dispatch,
        )?;
        family.histogram("build_duration", "From a build's start to its end", &sums.lengths)?;
        family.counters(
            "log",
            "Bytes that builds wrote to their logs since the start of this master",
            Some(&Unit::Bytes),
            [(Vec::new(), sums.log_bytes)],
        )?;
        family.counters(
            "metrics_events_missed",
            "Events that these counts do not contain, because counting fell behind",
            None,
            [(Vec::new(), sums.missed)],
        )
    }

    fn inner(&self, family: &mut Family<'_>) -> fmt::Result {
        family.counters(
            "ignored",
            "Stale or refused input, by kind",
            None,
            self.shown
                .ignored
                .iter()
                .map(|(kind, times)| (vec![("kind", (*kind).to_owned())], *times)),
        )?;
        family.gauges(
            "event_streams",
            "Event streams that are open",
            None,
            self.streams.map(|(kind, open)| (vec![("kind", kind.to_owned())], count(open))),
        )?;
        family.counters(
            "event_listeners_dropped",
            "Listeners of events that left or did not keep up",
            None,
            [(Vec::new(), self.dropped)],
        )?;
        family.gauges(
            "event_next_number",
            "Number of the next event",
            None,
            // Below 2^52, where this is exact, for the next 100 years.
            [(Vec::new(), self.next_event as f64)],
        )?;
        family.gauges(
            "draining",
            "1 when the master starts no new builds because it is about to stop",
            None,
            [(Vec::new(), if self.shown.draining { 1.0 } else { 0.0 })],
        )?;
        family.gauges(
            "store_full",
            "1 while no new builds start because the disk is full",
            None,
            [(Vec::new(), if self.shown.store.full.is_some() { 1.0 } else { 0.0 })],
        )?;
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        family.gauges("build_info", "What runs", None, [(version, 1.0)])
    }
}

/// What waits for the actors, and how long they take.
fn mailboxes(family: &mut Family<'_>) -> fmt::Result {
    let all = mailboxes::all();
    let mut depths: BTreeMap<&str, i64> = BTreeMap::new();
    for mail in &all {
        *depths.entry(mail.actor).or_default() += mail.depth();
    }
    family.gauges(
        "mailbox_depth",
        "Messages that wait for actors of this kind",
        None,
        depths
            .into_iter()
            .map(|(actor, depth)| (vec![("actor", actor.to_owned())], depth.max(0) as f64)),
    )?;
    family.times(
        "message_wait",
        "From the sending of a message until an actor took it",
        all.iter().map(|mail| (*mail, &mail.waited)),
    )?;
    family.times(
        "message",
        "How long an actor took for a message",
        all.iter().map(|mail| (*mail, &mail.handling)),
    )
}

/// What the system knows of this process, by the names that Prometheus' own
/// client libraries use.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = Family { encoder };
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let resident: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        if let (Some(page), Some(pages)) =
            (page.and_then(|page| u64::try_from(page).ok()), resident)
        {
            family.gauges(
                "resident_memory",
                "Memory in use",
                Some(&Unit::Bytes),
                [(Vec::new(), (page * pages) as f64)],
            )?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // One of them is this look itself.
            let open = open.count().saturating_sub(1);
            family.gauges(
                "open_fds",
                "Open files and sockets",
                None,
                [(Vec::new(), count(open))],
            )?;
        }
        if let Ok((most, _)) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
        {
            family.gauges(
                "max_fds",
                "Most files and sockets that may be open",
                None,
                [(Vec::new(), most as f64)],
            )?;
        }
        let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
        if let Ok(used) = used {
            let seconds =
                |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            let spent = seconds(used.user_time()) + seconds(used.system_time());
            let kind = MetricType::Counter;
            let help = "Time of the processors that was used";
            let mut encoder =
                family.encoder.encode_descriptor("cpu", help, Some(&Unit::Seconds), kind)?;
            encoder.encode_counter::<NoLabelSet, _, u64>(&spent, None)?;
        }
        Ok(())
    }
}

fn text(context: &WebContext) -> Result<String, fmt::Error> {
    let scrape = Scrape {
        shown: context.board.all(),
        counted: context.state.counted.clone(),
        now: wall_now(),
        streams: [("sse", context.state.streams.open()), ("ws", context.state.sockets.open())],
        next_event: context.events.next_seq(),
        dropped: context.events.dropped(),
    };
    let mut ours = Registry::with_prefix(PREFIX);
    ours.register_collector(Box::new(scrape));
    let mut process = Registry::with_prefix("process");
    process.register_collector(Box::new(Process));
    let mut text = String::with_capacity(16 * 1024);
    encode_registry(&mut text, &ours)?;
    metrics().encode(&mut text)?;
    encode_registry(&mut text, &process)?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// Serves `/metrics`.
pub async fn serve(context: Data<WebContext>) -> HttpResponse {
    match text(&context) {
        Ok(text) => HttpResponse::Ok().insert_header((CONTENT_TYPE, OPEN_METRICS)).body(text),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}
