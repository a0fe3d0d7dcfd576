//! Logs: printed as they are, or as they grow.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Client, ClientError, element};
use super::list::build_path;
use super::show::{number, result, text};
use super::{FINE, Output};

/// Lines in one request.
const LINES: u64 = 5_000;

/// Between looks at a log that grows.
const LOOK: Duration = Duration::from_millis(300);

/// How long a master may be away while something is awaited: it may be
/// restarting.
const AWAY: Duration = Duration::from_secs(60);

/// How long to wait in all, and for a master that is away.
pub struct Patience {
    deadline: Option<Instant>,
    away: Option<Instant>,
}

impl Patience {
    /// Waits until the deadline, if there is one.
    #[must_use]
    pub fn until(deadline: Option<Instant>) -> Self {
        Self { deadline, away: None }
    }

    /// Waits a moment.
    ///
    /// # Errors
    /// When the deadline has passed.
    pub fn pause(&self, span: Duration) -> Result<(), ClientError> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let text = "waited as long as --timeout allows; the build goes on";
            return Err(ClientError::Ask(text.into()));
        }
        sleep(span);
        Ok(())
    }

    /// Asks until there is an answer, or the master was away for too long.
    ///
    /// # Errors
    /// Those of the question, and when a deadline has passed.
    pub fn ask<T>(
        &mut self,
        question: impl Fn() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        loop {
            match question() {
                Ok(answer) => {
                    self.away = None;
                    return Ok(answer);
                }
                Err(error) if error.is_transient() => {
                    let since = *self.away.get_or_insert_with(Instant::now);
                    if since.elapsed() > AWAY {
                        return Err(error);
                    }
                    self.pause(LOOK)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// One log, and how much of it was printed.
struct Reading {
    log: Value,
    step: String,
    next: u64,
    begun: bool,
}

/// Which log the last lines were of: another one's need a heading first.
struct Headings<'a> {
    wanted: bool,
    step: &'a Value,
    last: Option<String>,
}

impl Headings<'_> {
    fn before(&mut self, output: &mut Output<'_>, log: &Value) -> Result<(), ClientError> {
        let id = text(log, "logid");
        if self.last.as_ref() == Some(&id) {
            return Ok(());
        }
        self.last = Some(id);
        if !self.wanted || output.json {
            return Ok(());
        }
        let (number, name) = (text(self.step, "number"), text(self.step, "name"));
        output.line(&format!("=== step {number} {name}, log {}", text(log, "name")))
    }
}

impl Reading {
    /// Prints what there is beyond the last line printed.
    fn print(
        &mut self,
        client: &Client,
        output: &mut Output<'_>,
        patience: &mut Patience,
        headings: &mut Headings<'_>,
    ) -> Result<(), ClientError> {
        let id = text(&self.log, "logid");
        let channels = text(&self.log, "type") == "s";
        loop {
            let path = format!("logs/{id}/contents?offset={}&limit={LINES}", self.next);
            let chunk = patience.ask(|| client.one(&path, &format!("log {id}")))?;
            let content = chunk.get("content").and_then(Value::as_str).unwrap_or_default();
            if !self.begun || !content.is_empty() {
                self.begun = true;
                headings.before(output, &self.log)?;
            }
            let mut lines = 0;
            for line in content.lines() {
                let shown = if channels { line.get(1..).unwrap_or_default() } else { line };
                if output.json {
                    let channel = if channels { line.get(..1) } else { None };
                    output.value(&json!({
                        "step": self.step, "log": text(&self.log, "name"),
                        "channel": channel, "line": shown,
                    }))?;
                } else {
                    output.line(shown)?;
                }
                lines += 1;
            }
            self.next += lines;
            output.out.flush().map_err(ClientError::Output)?;
            if lines < LINES {
                return Ok(());
            }
        }
    }
}

/// The command: all logs of a build, or those of one step.
pub fn log(
    client: &Client,
    output: &mut Output<'_>,
    build: &str,
    step: Option<&str>,
    follow: bool,
) -> Result<u8, ClientError> {
    let path = build_path(build)?;
    let row = client.one(&path, &format!("build {build}"))?;
    let id = number(&row, "buildid").unwrap_or_default();
    let mut patience = Patience::until(None);
    match (step, follow) {
        (None, true) => self::build(client, output, id, &mut patience)?,
        (None, false) => {
            for step in client.list(&format!("builds/{id}/steps"))? {
                print_step(client, output, &step, true, false, &mut patience)?;
            }
        }
        (Some(name), follow) => {
            let path = format!("builds/{id}/steps/{}", element(name));
            let what = format!("step `{name}` in build {build} (yet)");
            let step = client.one(&path, &what)?;
            print_step(client, output, &step, false, follow, &mut patience)?;
        }
    }
    Ok(FINE)
}

/// Prints the logs of one step; with `follow` until the step has ended.
fn print_step(
    client: &Client,
    output: &mut Output<'_>,
    step: &Value,
    headings: bool,
    follow: bool,
    patience: &mut Patience,
) -> Result<(), ClientError> {
    let id = text(step, "stepid");
    let mut readings: Vec<Reading> = Vec::new();
    let mut headings = Headings { wanted: headings, step, last: None };
    loop {
        // Asked first: what is complete now has all its lines in what is read
        // after.
        let now = patience.ask(|| client.one(&format!("steps/{id}"), "such step"))?;
        let ended = now.get("complete") == Some(&Value::Bool(true));
        let logs = patience.ask(|| client.list(&format!("steps/{id}/logs")))?;
        for log in logs {
            let known = readings.iter().any(|own| own.log.get("logid") == log.get("logid"));
            if !known {
                readings.push(Reading { log, step: text(step, "name"), next: 0, begun: false });
            }
        }
        for reading in &mut readings {
            reading.print(client, output, patience, &mut headings)?;
        }
        if ended || !follow {
            return Ok(());
        }
        patience.pause(LOOK)?;
    }
}

/// Prints a build's logs as they grow, until the build has ended.
///
/// # Errors
/// When the master does not answer for long, or the output is gone.
pub fn build(
    client: &Client,
    output: &mut Output<'_>,
    id: i64,
    patience: &mut Patience,
) -> Result<(), ClientError> {
    let mut next = 0;
    loop {
        let what = format!("build with the id {id}");
        let row = patience.ask(|| client.one(&format!("builds/{id}"), &what))?;
        let ended = row.get("complete") == Some(&Value::Bool(true));
        let path = format!("builds/{id}/steps?number__ge={next}");
        for step in patience.ask(|| client.list(&path))? {
            print_step(client, output, &step, true, true, patience)?;
            next = number(&step, "number").unwrap_or_default() + 1;
        }
        if ended {
            if !output.json {
                output.line(&format!("=== {} ({})", result(&row), text(&row, "state_string")))?;
            }
            return Ok(());
        }
        patience.pause(LOOK)?;
    }
}
