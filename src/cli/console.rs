//! Asks a running master for one build and shows how it goes, over HTTP only.
//!
//! It asks again every [`Console::interval`]; the event stream would not be
//! sooner to the eye, and an answer that is lost costs nothing here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::master_api::{ApiError, Build, MasterApi, Step, result_of};
use super::screen::{Progress, Screen, harmless};
use crate::core::values::BuildResult;

/// Lines of a failed step's log that are shown.
const LAST_LINES: u64 = 20;

/// How long the master may be silent before the console gives up.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// After this long without a worker the console says what it waits for.
const WAITING_NOTICE: Duration = Duration::from_secs(10);

/// Why the build's result is not known.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The master said no.
    #[error("{0}")]
    Refused(String),
    /// The master is silent.
    #[error("{0}")]
    Away(String),
    /// No worker took the build in time.
    #[error("no worker took the build within {} s; `botmaster workers` shows them", .0.as_secs())]
    NotStarted(Duration),
    /// The request was cancelled before a build ended.
    #[error("the build request was cancelled")]
    Cancelled,
    /// The one who watched was told to stop.
    #[error("stopped watching; the build is not affected")]
    Stopped,
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct Console {
    /// Base address of the master, `http://127.0.0.1:8010`.
    pub url: String,
    /// The builder.
    pub builder: String,
    /// Why it is built, for people.
    pub reason: String,
    /// How long it may take until a worker has the build.
    pub start_limit: Duration,
    /// Between two looks.
    pub interval: Duration,
    /// Set by others to end the watching.
    pub stop: Arc<AtomicBool>,
}

impl Console {
    /// A console with the usual times.
    #[must_use]
    pub fn new(url: &str, builder: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            builder: builder.to_owned(),
            reason: "botmaster up".to_owned(),
            start_limit: Duration::from_secs(600),
            interval: Duration::from_millis(200),
            stop: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// Asks for a build and shows it until it has ended; the last line shown is
/// `build BUILDER/N: RESULT`. It blocks: give it a thread.
///
/// # Errors
/// When the master refuses or is silent, no worker takes the build in time, or
/// the request is cancelled.
pub fn watch_build(console: &Console, screen: &mut dyn Screen) -> Result<BuildResult, WatchError> {
    let mut watch =
        Watch { console, screen, api: MasterApi::new(&console.url), silent_since: None };
    let result = watch.whole();
    watch.screen.clear();
    result
}

/// What has been shown of a step.
struct ShownStep {
    begun: Instant,
    ended: bool,
}

struct Watch<'a> {
    console: &'a Console,
    screen: &'a mut dyn Screen,
    api: MasterApi,
    silent_since: Option<Instant>,
}

impl Watch<'_> {
    fn whole(&mut self) -> Result<BuildResult, WatchError> {
        let (builder, reason) = (&self.console.builder, &self.console.reason);
        // Not repeated when the answer is lost: that could be two builds.
        let request = self.api.force(builder, reason).map_err(|error| match error {
            ApiError::Refused(text) => WatchError::Refused(text),
            ApiError::Away(text) => WatchError::Away(text),
        })?;
        self.screen.line(&format!("build of {builder} requested (request {request})"));
        let mut last = None;
        loop {
            let build = self.next_build(request, last)?;
            let result = self.follow(&build)?;
            if result != BuildResult::Retry {
                return Ok(result);
            }
            last = Some(build.buildid);
            let number = build.number;
            self.screen.line(&format!("build {builder}/{number}: retry; the request waits again"));
        }
    }

    /// One look; nothing while the master is silent, for a while.
    fn look<T>(
        &mut self,
        ask: impl FnOnce(&MasterApi) -> Result<T, ApiError>,
    ) -> Result<Option<T>, WatchError> {
        if self.console.stop.load(Ordering::Relaxed) {
            return Err(WatchError::Stopped);
        }
        match ask(&self.api) {
            Ok(answer) => {
                self.silent_since = None;
                Ok(Some(answer))
            }
            Err(ApiError::Refused(text)) => Err(WatchError::Refused(text)),
            Err(ApiError::Away(text)) => {
                let since = *self.silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= SILENCE_LIMIT {
                    Err(WatchError::Away(text))
                } else {
                    Ok(None)
                }
            }
        }
    }

    /// Waits until the request has a build later than `last`.
    fn next_build(&mut self, request: u64, last: Option<u64>) -> Result<Build, WatchError> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            if let Some(Some(build)) = self.look(|api| api.latest_build(request))?
                && last.is_none_or(|last| build.buildid > last)
            {
                return Ok(build);
            }
            if let Some(state) = self.look(|api| api.request(request))?
                && state.complete
                && result_of(state.results) == BuildResult::Cancelled
            {
                return Err(WatchError::Cancelled);
            }
            let waited = begun.elapsed();
            if waited >= self.console.start_limit {
                return Err(WatchError::NotStarted(self.console.start_limit));
            }
            if waited >= WAITING_NOTICE && !told {
                told = true;
                self.screen.line("still waiting for a worker to take the build");
            }
            if self.screen.is_live() {
                self.screen.progress(&Progress {
                    build: self.console.builder.clone(),
                    elapsed: waited,
                    last_line: Some("waiting for a worker".to_owned()),
                    ..Progress::default()
                });
            }
            sleep(self.console.interval);
        }
    }

    fn follow(&mut self, build: &Build) -> Result<BuildResult, WatchError> {
        let name = format!("{}/{}", self.console.builder, build.number);
        let worker = match build.workerid {
            Some(worker) => self.look(|api| api.worker_name(worker))?,
            None => None,
        };
        let on = worker.map_or(String::new(), |worker| format!(" on worker {}", harmless(&worker)));
        self.screen.line(&format!("build {name} started{on}"));
        let mut shown: Vec<ShownStep> = Vec::new();
        loop {
            // The build first: steps read after its end are all of them.
            let now = self.look(|api| api.build(build.buildid))?;
            let steps = self.look(|api| api.steps(build.buildid))?;
            if let Some(steps) = &steps {
                self.show_steps(steps, &mut shown);
            }
            if let (Some(now), Some(steps)) = (now, steps)
                && now.complete
            {
                return self.show_end(&name, &now, &steps);
            }
            if self.screen.is_live() {
                self.show_progress(&name, build.buildid)?;
            }
            sleep(self.console.interval);
        }
    }

    fn show_steps(&mut self, steps: &[Step], shown: &mut Vec<ShownStep>) {
        for (index, step) in steps.iter().enumerate() {
            let step_name = harmless(&step.name);
            if shown.len() <= index {
                shown.push(ShownStep { begun: Instant::now(), ended: false });
                if step.started_at.is_some() {
                    self.screen.line(&format!("  step {step_name}: started"));
                }
            }
            let Some(known) = shown.get_mut(index) else {
                continue;
            };
            if step.complete && !known.ended {
                known.ended = true;
                let took = known.begun.elapsed().as_secs_f64();
                let result = result_of(step.results);
                let line = if step.started_at.is_none() {
                    format!("  step {step_name}: {result}")
                } else if result == BuildResult::Success {
                    format!("  step {step_name}: {result}, {took:.1} s")
                } else {
                    let why = harmless(&step.state_string);
                    format!("  step {step_name}: {result}, {took:.1} s, {why}")
                };
                self.screen.line(&line);
            }
        }
    }

    fn show_progress(&mut self, name: &str, build: u64) -> Result<(), WatchError> {
        let Some(progress) = self.look(|api| api.progress(build))? else {
            return Ok(());
        };
        // A master that runs for years and one that answers nonsense alike.
        let span = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.screen.progress(&Progress {
            build: name.to_owned(),
            elapsed: span(progress.elapsed_s),
            expected: progress.expected_s.map(span),
            step: progress.step.map(|step| harmless(&step)),
            step_elapsed: progress.step_elapsed_s.map(span),
            last_line: progress.last_line,
        });
        Ok(())
    }

    fn show_end(
        &mut self,
        name: &str,
        build: &Build,
        steps: &[Step],
    ) -> Result<BuildResult, WatchError> {
        self.screen.clear();
        let result = result_of(build.results);
        let bad = |step: &&Step| {
            step.complete
                && matches!(result_of(step.results), BuildResult::Failure | BuildResult::Exception)
        };
        if !matches!(result, BuildResult::Success | BuildResult::Warnings | BuildResult::Retry)
            && let Some(step) = steps.iter().find(bad)
        {
            let lines = self.look(|api| api.last_lines(build.buildid, step.number, LAST_LINES))?;
            self.screen.line(&format!("last lines of step {}:", harmless(&step.name)));
            for line in lines.unwrap_or_default() {
                self.screen.line(&format!("  | {}", harmless(&line)));
            }
        }
        if result != BuildResult::Success && !build.state_string.is_empty() {
            self.screen.line(&format!("state: {}", harmless(&build.state_string)));
        }
        if result != BuildResult::Retry {
            self.screen.line(&format!("log: botmaster log {}", shell_word(name)));
            self.screen.line(&format!("look: {}/", self.console.url));
            self.screen.line(&format!("build {name}: {result}"));
        }
        Ok(result)
    }
}

/// A word that a shell takes as one.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
