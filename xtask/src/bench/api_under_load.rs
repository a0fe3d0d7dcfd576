//! W7 `api_under_load`: W2, and while it runs a client asks for the 50 newest
//! builds: as fast as it can, and then, with a fresh database, at a fixed rate.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Ask, Load};
use super::figures::{Measurement, Metrics, raised};
use super::proc::settle;
use super::registry::Ground;
use super::throughput::{BUILDERS, Fleet, WORKERS};
use crate::report::{rounded, say};

/// What is asked for.
const PATH: &str = "/api/v2/builds?limit=50&order=-buildid";

const CONNECTIONS: u32 = 4;

/// The fixed rate, requests a second.
const OFFERED: u32 = 500;

/// How long is asked, with `--quick` and without: while builds run, and when
/// the master has nothing else to do.
const WINDOW: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));
const IDLE_WINDOW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// Builds have to run all the time: so many requests at most.
const MOST: u64 = 400_000;

/// Measures once: W2 alone, with a client that asks as fast as it can, and with
/// one that asks at a fixed rate, each with a fresh database.
///
/// # Errors
/// When anything does not go as it should.
pub fn measure(ground: &Ground, n: u64) -> Result<Vec<Measurement>, String> {
    let (window, idle) = match ground.quick {
        true => (WINDOW.0, IDLE_WINDOW.0),
        false => (WINDOW.1, IDLE_WINDOW.1),
    };
    let (n, alone) = alone(ground, n, window)?;
    let ask =
        Ask { path: PATH, connections: CONNECTIONS, window, rate: None, pause: Duration::ZERO };
    let fastest = beside(ground, n, &ask, Some(idle), alone)?;
    let offered = beside(ground, n, &Ask { rate: Some(OFFERED), ..ask }, None, alone)?;
    let line = |metrics: Metrics, offered: Option<u32>| {
        let mut params = json!({
            "builders": BUILDERS, "workers": WORKERS, "protocol": "json_v1", "db": "sqlite",
            "conns": CONNECTIONS, "path": PATH, "window_s": window.as_secs(),
        });
        if let (Some(rate), Some(params)) = (offered, params.as_object_mut()) {
            params.insert("offered_per_s".to_owned(), Value::from(rate));
        }
        let (system, workload) = (ground.programs.system.clone(), "api_under_load".to_owned());
        Measurement { system, workload, n, params, metrics }
    };
    Ok(vec![line(fastest, None), line(offered, Some(OFFERED))])
}

/// Builds a second within the window when nobody asks, with as many requests as
/// it takes for builds to run all the time.
fn alone(ground: &Ground, mut n: u64, window: Duration) -> Result<(u64, f64), String> {
    loop {
        let drain = Fleet::start(ground, "alone")?.drain(n)?;
        let rate = drain.rate_within(window.min(drain.wall));
        if drain.wall >= window || n >= MOST {
            say(&format!("{rate:.1} builds a second when nobody asks, with {n} requests"));
            return Ok((n, rate));
        }
        n = raised(n, drain.wall, window).min(MOST);
    }
}

/// The same while a client asks, and afterwards for so long on the idle master.
fn beside(
    ground: &Ground,
    n: u64,
    ask: &Ask<'_>,
    idle: Option<Duration>,
    alone: f64,
) -> Result<Metrics, String> {
    let mut fleet = Fleet::start(ground, "api")?;
    let load = Load::start(ground, &fleet.scratch, fleet.master.http(), ask)?;
    let drain = fleet.drain(n)?;
    let mut metrics = load.finish("api_")?;
    let rate = drain.rate_within(ask.window.min(drain.wall));
    metrics.extend(drain.metrics);
    let figures = [
        ("window_builds_per_s", rounded(rate, 1)),
        ("alone_builds_per_s", rounded(alone, 1)),
        ("slowed_pct", rounded(slowed_pct(alone, rate), 1)),
    ];
    metrics.extend(figures.map(|(name, figure)| (name.to_owned(), figure)));
    if let Some(window) = idle {
        settle(fleet.master.id(), 60)?;
        let ask = Ask { window, ..ask.clone() };
        let load = Load::start(ground, &fleet.scratch, fleet.master.http(), &ask)?;
        metrics.extend(load.finish("idle_api_")?);
    }
    fleet.master.check()?;
    Ok(metrics)
}

/// By how much builds are slower; below 0 when they are faster, which is noise.
fn slowed_pct(alone: f64, beside: f64) -> f64 {
    100.0 * (1.0 - beside / alone.max(1e-6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_builds_are_told_in_percent() {
        assert!((slowed_pct(200.0, 180.0) - 10.0).abs() < 1e-9);
        assert!((slowed_pct(100.0, 110.0) + 10.0).abs() < 1e-9);
    }
}
