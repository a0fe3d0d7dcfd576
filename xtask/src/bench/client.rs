//! The HTTP load client as a process of its own: the same program asks both
//! systems, so that neither is slowed by a slower client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::figures::Metrics;
use super::proc::{Process, tail};
use super::registry::Ground;
use super::scratch::Scratch;

/// How long the last answers may take after the window, with the time that the
/// process needs to begin and to end.
const AFTER_WINDOW: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// The path.
    pub path: &'a str,
    /// How many connections are kept open.
    pub connections: u32,
    /// How long.
    pub window: Duration,
    /// Requests a second; without, as fast as the answers come.
    pub rate: Option<u32>,
    /// The wait after each answer.
    pub pause: Duration,
}

/// A client that asks.
#[derive(Debug)]
pub struct Load {
    process: Process,
    output: PathBuf,
    deadline: Instant,
}

impl Load {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        ground: &Ground,
        scratch: &Scratch,
        address: SocketAddr,
        ask: &Ask<'_>,
    ) -> Result<Self, String> {
        let mut command = Command::new(ground.programs.tool("http_load"));
        command.args(["--address", &address.to_string(), "--path", ask.path]);
        command.args(["--connections", &ask.connections.to_string()]);
        command.args(["--seconds", &ask.window.as_secs_f64().to_string()]);
        command.args(["--pause-ms", &ask.pause.as_millis().to_string()]);
        if let Some(rate) = ask.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let output = scratch.path().join("http_load.out");
        let process = Process::start("the HTTP client", command, &output, &ground.guard)?;
        Ok(Self { process, output, deadline: Instant::now() + ask.window + AFTER_WINDOW })
    }

    /// Waits until its time is over, and gives what it measured, each name with
    /// `prefix` before it.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn finish(mut self, prefix: &str) -> Result<Metrics, String> {
        let status = self.process.wait(self.deadline).ok_or("the HTTP client does not end")?;
        let text = tail(&self.output);
        let last = text.lines().last().unwrap_or_default();
        match metrics(last, prefix) {
            Some(metrics) if status.success() => Ok(metrics),
            _ => Err(format!("the HTTP client ended with {status}:\n{text}")),
        }
    }
}

fn metrics(line: &str, prefix: &str) -> Option<Metrics> {
    let value: Value = serde_json::from_str(line).ok()?;
    let named = |(name, figure): (&String, &Value)| (format!("{prefix}{name}"), figure.clone());
    Some(value.as_object()?.iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_is_read_with_a_prefix() {
        let found = metrics(r#"{"hung":0,"p99_ms":1.5}"#, "idle_api_").unwrap();
        assert_eq!(
            Value::Object(found).to_string(),
            r#"{"idle_api_hung":0,"idle_api_p99_ms":1.5}"#
        );
        assert_eq!(metrics("error: no", ""), None);
        assert_eq!(metrics("7", ""), None);
    }
}
