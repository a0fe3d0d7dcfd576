//! What was measured, and how it is told.

use std::time::Duration;

use super::options::Options;

/// Clock ticks a second in `/proc`; 100 on every Linux that this runs on.
const TICKS: f64 = 100.0;

/// What was measured; each connection's share is added up.
#[derive(Clone, Default, Debug)]
pub struct Found {
    /// Latencies of the answers in milliseconds; of requests that were due and
    /// never sent, how late they were already.
    pub latencies: Vec<f64>,
    /// Answers that came within the window.
    pub in_window: u64,
    /// Answers that were not 200, and connections that broke.
    pub errors: u64,
    /// Answers that did not come in time.
    pub hung: u64,
    /// Requests that were due within the window and not sent in it, for every
    /// connection waited for an answer.
    pub unsent: u64,
    /// Bytes of all answers' bodies.
    pub bytes: u64,
}

impl Found {
    /// Adds what another connection has.
    pub fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.in_window += other.in_window;
        self.errors += other.errors;
        self.hung += other.hung;
        self.unsent += other.unsent;
        self.bytes += other.bytes;
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(mut self, options: &Options) -> String {
        self.latencies.sort_by(f64::total_cmp);
        let answers = (self.latencies.len() as u64).saturating_sub(self.unsent);
        let mean = self.latencies.iter().sum::<f64>() / self.latencies.len() as f64;
        let figure = |value: Option<f64>| {
            value
                .filter(|value| value.is_finite())
                .map_or("null".to_owned(), |value| format!("{value:.2}"))
        };
        format!(
            "{{\"requests\":{answers},\"errors\":{},\"hung\":{},\"unsent\":{},\"req_per_s\":{:.1},\
             \"p50_ms\":{},\"p99_ms\":{},\"mean_ms\":{},\"max_ms\":{},\"bytes_per_answer\":{},\
             \"client_cpu_pct\":{}}}",
            self.errors,
            self.hung,
            self.unsent,
            self.in_window as f64 / options.window.as_secs_f64(),
            figure(percentile(&self.latencies, 50.0)),
            figure(percentile(&self.latencies, 99.0)),
            figure(Some(mean)),
            figure(self.latencies.last().copied()),
            self.bytes.checked_div(answers).unwrap_or(0),
            figure(own_cpu().map(|cpu| 100.0 * cpu / options.window.as_secs_f64())),
        )
    }
}

/// Milliseconds.
#[must_use]
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The value below which `percent` of the sorted values lie, between the two
/// nearest ones.
fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? as f64 * percent / 100.0;
    let below = sorted.get(place.floor() as usize)?;
    let above = sorted.get(place.floor() as usize + 1).unwrap_or(below);
    Some(below + (above - below) * place.fract())
}

/// The client's own CPU time, in seconds: shows whether it was the bottleneck.
fn own_cpu() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_told() {
        let arguments = "--address 127.0.0.1:9 --path / --seconds 2".split(' ').map(str::to_owned);
        let options = Options::parse(arguments).unwrap().unwrap();
        let mut found =
            Found { latencies: vec![3.0, 1.0], in_window: 2, bytes: 90, ..Found::default() };
        found.add(Found {
            latencies: vec![2.0],
            errors: 1,
            hung: 2,
            unsent: 1,
            ..Found::default()
        });
        let text = found.json(&options);
        let expected = "{\"requests\":2,\"errors\":1,\"hung\":2,\"unsent\":1,\"req_per_s\":1.0,\
                        \"p50_ms\":2.00,\"p99_ms\":2.98,\"mean_ms\":2.00,\"max_ms\":3.00,\
                        \"bytes_per_answer\":45,\"client_cpu_pct\":";
        assert!(text.starts_with(expected), "{text}");
        let nothing = Found::default().json(&options);
        assert!(nothing.contains("\"p99_ms\":null,\"mean_ms\":null"), "{nothing}");
    }
}
