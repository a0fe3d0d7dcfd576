//! Figures from measurements: percentiles, medians, and what a measurement's
//! line looks like.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::report::{self, rounded};

/// Metrics by name.
pub type Metrics = Map<String, Value>;

/// One measurement: a line of the output.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// `botmaster-0.1.0`.
    pub system: String,
    /// `dispatch`, `throughput`.
    pub workload: String,
    /// Size of the workload.
    pub n: u64,
    /// What differs from the workload's default.
    pub params: Value,
    /// What was measured.
    pub metrics: Metrics,
}

impl Measurement {
    /// Prints the line of this measurement.
    pub fn emit(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        report::line(&json!({
            "system": self.system, "workload": self.workload, "n": self.n,
            "params": self.params, "metrics": self.metrics,
            "load1": load1(), "at": now.as_secs(),
        }));
    }

    /// Reads a line that another implementation printed.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(Self {
            system: value.get("system")?.as_str()?.to_owned(),
            workload: value.get("workload")?.as_str()?.to_owned(),
            n: value.get("n")?.as_u64()?,
            params: value.get("params")?.clone(),
            metrics: value.get("metrics")?.as_object()?.clone(),
        })
    }

    /// A metric that is a number; yes is 1, no is 0. Measurements at an offered
    /// rate have the same metrics as those without; their names begin with
    /// `offered_` here.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let offered = self.params.get("offered_per_s").is_some();
        let name = match (name.strip_prefix("offered_"), offered) {
            (Some(own), true) => own,
            (None, false) => name,
            _ => return None,
        };
        let value = self.metrics.get(name)?;
        value.as_f64().or(value.as_bool().map(|yes| f64::from(u8::from(yes))))
    }
}

/// How many processes have wanted to run in the last minute.
#[must_use]
pub fn load1() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok())
}

/// The value below which `percent` of the values lie, between the two nearest
/// ones; none without values.
#[must_use]
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let place = last as f64 * percent / 100.0;
    let low = place.floor();
    let below = sorted.get(low as usize)?;
    let above = sorted.get(low as usize + 1).unwrap_or(below);
    Some(below + (above - below) * (place - low))
}

/// Latencies as the workloads want them.
#[must_use]
pub fn latency_summary(latencies: &[Duration]) -> Metrics {
    let ms: Vec<f64> = latencies.iter().map(|latency| latency.as_secs_f64() * 1000.0).collect();
    let mean = ms.iter().sum::<f64>() / (ms.len().max(1)) as f64;
    let mut metrics = Metrics::new();
    let figures = [
        ("p50_ms", percentile(&ms, 50.0)),
        ("p99_ms", percentile(&ms, 99.0)),
        ("mean_ms", Some(mean)),
        ("max_ms", ms.iter().copied().reduce(f64::max)),
    ];
    for (name, figure) in figures {
        metrics.insert(name.to_owned(), figure.map_or(Value::Null, |figure| rounded(figure, 2)));
    }
    metrics
}

/// Median, least and greatest of one metric over several measurements.
#[must_use]
pub fn over_runs(runs: &[&Measurement], metric: &str) -> Option<(f64, f64, f64)> {
    let values: Vec<f64> = runs.iter().filter_map(|run| run.metric(metric)).collect();
    let least = values.iter().copied().reduce(f64::min)?;
    let greatest = values.iter().copied().reduce(f64::max)?;
    Some((percentile(&values, 50.0)?, least, greatest))
}

/// The size to measure next when a drain was over too soon: one that should
/// last a little longer than `goal`, at most ten times as large.
#[must_use]
pub fn raised(n: u64, lasted: Duration, goal: Duration) -> u64 {
    let factor = goal.as_secs_f64() * 1.15 / lasted.as_secs_f64().max(0.01);
    let wanted = n as f64 * factor.clamp(1.1, 10.0);
    (wanted / 1000.0).ceil() as u64 * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_the_two_nearest_values() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&values, 0.0), Some(1.0));
        assert_eq!(percentile(&values, 50.0), Some(2.5));
        assert_eq!(percentile(&values, 100.0), Some(4.0));
        assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
        let hundred: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 99.0), Some(100.0));
    }

    #[test]
    fn latencies_are_summed_up_in_milliseconds() {
        let latencies = [10, 20, 60].map(Duration::from_millis);
        let summary = Value::Object(latency_summary(&latencies)).to_string();
        assert_eq!(summary, r#"{"max_ms":60.0,"mean_ms":30.0,"p50_ms":20.0,"p99_ms":59.2}"#);
        assert_eq!(latency_summary(&[]).get("p50_ms"), Some(&Value::Null));
    }

    #[test]
    fn a_line_of_another_implementation_is_read() {
        let line = r#"{"system":"x-1","workload":"dispatch","n":3,"params":{},
                       "metrics":{"p50_ms":1.5,"note":"x","used":true},"load1":0.1,"at":1}"#;
        let measurement = Measurement::parse(line).unwrap();
        assert_eq!(measurement.metric("p50_ms"), Some(1.5));
        assert_eq!(measurement.metric("note"), None);
        assert_eq!(measurement.metric("used"), Some(1.0));
        assert_eq!(over_runs(&[&measurement, &measurement], "p50_ms"), Some((1.5, 1.5, 1.5)));
        assert_eq!(over_runs(&[&measurement], "p99_ms"), None);
        assert_eq!(measurement.metric("offered_p50_ms"), None);
        let offered = Measurement { params: json!({ "offered_per_s": 500 }), ..measurement };
        assert_eq!(offered.metric("p50_ms"), None);
        assert_eq!(offered.metric("offered_p50_ms"), Some(1.5));
        assert!(Measurement::parse("warning: not done").is_none());
        assert!(Measurement::parse(r#"{"system":"x"}"#).is_none());
    }

    #[test]
    fn a_drain_that_was_too_short_is_repeated_with_more() {
        let goal = Duration::from_secs(20);
        assert_eq!(raised(2_000, Duration::from_secs(1), goal), 20_000);
        assert_eq!(raised(20_000, Duration::from_secs(10), goal), 46_000);
        assert_eq!(raised(20_000, Duration::from_secs(19), goal), 25_000);
        assert!(raised(2_000, Duration::ZERO, goal) == 20_000);
    }
}
