//! What is measured while the program runs, for `/metrics`.
//!
//! One set for the process: a process is one master. What can be read from the
//! board or the event stream when somebody asks is not counted here; here is
//! only what is over when it is asked for: times. Each costs a clock's reading
//! or two and one short lock that nobody holds for long. Messages between actors
//! are too many for that: see `mailboxes`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What all names begin with.
pub const PREFIX: &str = "botmaster";

/// One label.
pub type Label = [(&'static str, &'static str); 1];

type Histograms = Family<Label, Histogram, fn() -> Histogram>;

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    panics: Family<Label, Counter>,
    asks: Histograms,
    waiting: Family<Label, Gauge>,
    commits: Histogram,
    commit_asks: Histogram,
    failed_commits: Counter,
    store_waiting: Gauge,
}

/// From 100 µs to 26 s, by fours.
fn medium() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 4.0, 10))
}

/// This process's measures.
#[must_use]
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::new)
}

/// The last part of a type's name: `Builder`.
pub(super) fn short_name<T: ?Sized>() -> &'static str {
    let whole = std::any::type_name::<T>();
    let bare = whole.split('<').next().unwrap_or(whole);
    bare.rsplit("::").next().unwrap_or(bare)
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let panics = Family::<Label, Counter>::default();
        let asks = Histograms::new_with_constructor(medium);
        let waiting = Family::<Label, Gauge>::default();
        let commits = medium();
        let commit_asks = Histogram::new(exponential_buckets(1.0, 2.0, 11));
        let failed_commits = Counter::default();
        let store_waiting = Gauge::default();
        registry.register("actor_panics", "Panics of actors", panics.clone());
        registry.register_with_unit(
            "ask",
            "From an ask of the web to the BotMaster until its answer, its time in the mailbox \
             included",
            Unit::Seconds,
            asks.clone(),
        );
        registry.register(
            "asks_waiting",
            "Asks of the web that the BotMaster has not answered yet",
            waiting.clone(),
        );
        registry.register_with_unit(
            "store_commit",
            "How long one commit of the store took, from its first operation until it was durable",
            Unit::Seconds,
            commits.clone(),
        );
        registry.register(
            "store_commit_asks",
            "How many asks shared one commit of the store",
            commit_asks.clone(),
        );
        registry.register(
            "store_commits_failed",
            "Commits of the store that changed nothing",
            failed_commits.clone(),
        );
        registry.register(
            "store_waiting",
            "Asks that wait for the store's writer",
            store_waiting.clone(),
        );
        Self {
            registry,
            panics,
            asks,
            waiting,
            commits,
            commit_asks,
            failed_commits,
            store_waiting,
        }
    }

    /// An actor of this type panicked.
    pub fn panicked<A>(&self) {
        self.panics.get_or_create(&[("actor", short_name::<A>())]).inc();
    }

    /// Somebody asks with this message, until the value is dropped.
    #[must_use]
    pub fn asking<M>(&self) -> Asking {
        let label = [("message", short_name::<M>())];
        let waiting = self.waiting.get_or_create_owned(&label);
        waiting.inc();
        Asking { waiting, took: self.asks.get_or_create_owned(&label), began: Instant::now() }
    }

    /// A commit of the store for so many asks ended; so many wait already.
    pub fn committed(&self, took: Duration, asks: usize, waiting: usize, well: bool) {
        self.commits.observe(took.as_secs_f64());
        // Counts are far below 2^52, where this is exact.
        self.commit_asks.observe(asks as f64);
        self.store_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        if !well {
            self.failed_commits.inc();
        }
    }

    /// Writes everything in the text format of OpenMetrics, without its end.
    ///
    /// # Errors
    /// When `into` takes nothing more.
    pub fn encode(&self, into: &mut String) -> std::fmt::Result {
        encode_registry(into, &self.registry)
    }
}

/// An ask that has no answer yet.
#[derive(Debug)]
pub struct Asking {
    waiting: Gauge,
    took: Histogram,
    began: Instant,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.waiting.dec();
        self.took.observe(self.began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Question<T>(T);

    #[test]
    fn names_are_those_of_the_types_alone() {
        assert_eq!(short_name::<Question<Vec<u8>>>(), "Question");
        assert_eq!(short_name::<Duration>(), "Duration");
    }

    #[test]
    fn what_was_measured_is_written() {
        let metrics = Metrics::new();
        let asking = metrics.asking::<Question<u8>>();
        let mut text = String::new();
        metrics.encode(&mut text).unwrap();
        assert!(text.contains("botmaster_asks_waiting{message=\"Question\"} 1\n"), "{text}");
        drop(asking);
        metrics.panicked::<Question<u8>>();
        metrics.committed(Duration::from_millis(3), 7, 2, false);
        let mut text = String::new();
        metrics.encode(&mut text).unwrap();
        for line in [
            "botmaster_asks_waiting{message=\"Question\"} 0\n",
            "botmaster_ask_seconds_count{message=\"Question\"} 1\n",
            "botmaster_actor_panics_total{actor=\"Question\"} 1\n",
            "botmaster_store_commit_asks_sum 7.0\n",
            "botmaster_store_commits_failed_total 1\n",
            "botmaster_store_waiting 2\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
