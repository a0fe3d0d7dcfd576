//! The few questions that the console asks a running master, over HTTP.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::core::values::BuildResult;

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The master said no; asking again is of no use.
    #[error("{0}")]
    Refused(String),
    /// No answer, or none that can be read; it may be there again soon.
    #[error("{0}")]
    Away(String),
}

/// A build, as far as the console looks.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Build {
    pub(super) buildid: u64,
    pub(super) number: u64,
    #[serde(default)]
    pub(super) workerid: Option<u64>,
    #[serde(default)]
    pub(super) complete: bool,
    #[serde(default)]
    pub(super) results: Option<i64>,
    #[serde(default)]
    pub(super) state_string: String,
}

/// A step, as far as the console looks.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Step {
    pub(super) number: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) started_at: Option<i64>,
    #[serde(default)]
    pub(super) complete: bool,
    #[serde(default)]
    pub(super) results: Option<i64>,
    #[serde(default)]
    pub(super) state_string: String,
}

/// A request, as far as the console looks.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    pub(super) complete: bool,
    #[serde(default)]
    pub(super) results: Option<i64>,
}

/// How far a build is, in whole seconds.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct BuildProgress {
    pub(super) elapsed_s: f64,
    #[serde(default)]
    pub(super) expected_s: Option<f64>,
    #[serde(default)]
    pub(super) step: Option<String>,
    #[serde(default)]
    pub(super) step_elapsed_s: Option<f64>,
    #[serde(default)]
    pub(super) last_line: Option<String>,
}

#[derive(Deserialize)]
struct Worker {
    name: String,
}

#[derive(Deserialize)]
struct Log {
    slug: String,
    #[serde(rename = "type")]
    kind: String,
    num_lines: u64,
}

#[derive(Deserialize)]
struct Chunk {
    content: String,
}

/// What a result's number means; none that is known is an exception.
pub(super) fn result_of(code: Option<i64>) -> BuildResult {
    code.and_then(BuildResult::from_code).unwrap_or(BuildResult::Exception)
}

/// A running master's HTTP API.
pub(super) struct MasterApi {
    agent: ureq::Agent,
    base: String,
}

impl MasterApi {
    pub(super) fn new(url: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_LIMIT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        Self { agent, base: url.trim_end_matches('/').to_owned() }
    }

    /// Asks for one build and answers the request's id.
    pub(super) fn force(&self, builder: &str, reason: &str) -> Result<u64, ApiError> {
        let url = format!("{}/api/v2/forceschedulers/force", self.base);
        let body = json!({
            "jsonrpc": "2.0",
            "id": 1,
            "method": "force",
            "params": { "builderNames": [builder], "owner": "up", "reason": reason },
        });
        let answer = self.agent.post(&url).send_json(&body).map_err(|error| self.away(&error))?;
        let answer = read(answer)?;
        let requests = answer.pointer("/result/1").and_then(Value::as_object);
        requests.and_then(|requests| requests.values().next()).and_then(Value::as_u64).ok_or_else(
            || ApiError::Away(format!("the master's answer to `force` has no request: {answer}")),
        )
    }

    pub(super) fn request(&self, request: u64) -> Result<Request, ApiError> {
        let path = format!("buildrequests/{request}");
        self.list(&path, "buildrequests")?.pop().ok_or_else(|| missing(&path))
    }

    /// The request's latest build with a number.
    pub(super) fn latest_build(&self, request: u64) -> Result<Option<Build>, ApiError> {
        let builds: Vec<Build> = self.list(&format!("buildrequests/{request}/builds"), "builds")?;
        Ok(builds.into_iter().max_by_key(|build| build.buildid))
    }

    pub(super) fn build(&self, build: u64) -> Result<Build, ApiError> {
        let path = format!("builds/{build}");
        self.list(&path, "builds")?.pop().ok_or_else(|| missing(&path))
    }

    pub(super) fn steps(&self, build: u64) -> Result<Vec<Step>, ApiError> {
        self.list(&format!("builds/{build}/steps"), "steps")
    }

    pub(super) fn progress(&self, build: u64) -> Result<BuildProgress, ApiError> {
        parse(self.get(&format!("builds/{build}/progress"))?)
    }

    pub(super) fn worker_name(&self, worker: u64) -> Result<String, ApiError> {
        let path = format!("workers/{worker}");
        let workers: Vec<Worker> = self.list(&path, "workers")?;
        workers.into_iter().next().map(|worker| worker.name).ok_or_else(|| missing(&path))
    }

    /// The last lines of a step's first log, without their channel letters.
    pub(super) fn last_lines(
        &self,
        build: u64,
        step: u64,
        count: u64,
    ) -> Result<Vec<String>, ApiError> {
        let path = format!("builds/{build}/steps/{step}/logs");
        let logs: Vec<Log> = self.list(&path, "logs")?;
        let Some(log) = logs.into_iter().next().filter(|log| log.num_lines > 0) else {
            return Ok(Vec::new());
        };
        let first = log.num_lines.saturating_sub(count);
        let path = format!("{path}/{}/contents?offset={first}&limit={count}", log.slug);
        let chunks: Vec<Chunk> = self.list(&path, "logchunks")?;
        let with_channel = log.kind == "s";
        Ok(chunks
            .iter()
            .flat_map(|chunk| chunk.content.lines())
            .map(|line| {
                let mut letters = line.chars();
                if with_channel {
                    letters.next();
                }
                letters.as_str().to_owned()
            })
            .collect())
    }

    fn away(&self, error: &ureq::Error) -> ApiError {
        ApiError::Away(format!("no answer from the master at {}: {error}", self.base))
    }

    fn get(&self, path: &str) -> Result<Value, ApiError> {
        let url = format!("{}/api/v2/{path}", self.base);
        read(self.agent.get(&url).call().map_err(|error| self.away(&error))?)
    }

    fn list<T: DeserializeOwned>(&self, path: &str, plural: &str) -> Result<Vec<T>, ApiError> {
        let mut answer = self.get(path)?;
        parse(answer.get_mut(plural).map(Value::take).unwrap_or_default())
    }
}

fn missing(path: &str) -> ApiError {
    ApiError::Refused(format!("the master has no {path}"))
}

fn parse<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value)
        .map_err(|error| ApiError::Away(format!("the master's answer cannot be read: {error}")))
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Value, ApiError> {
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
    let body = body.map_err(|error| ApiError::Away(error.to_string()))?;
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() && value.get("error").is_none_or(Value::is_null) {
        return Ok(value);
    }
    let text = match value.get("error") {
        Some(Value::String(text)) => text.clone(),
        Some(error) => error
            .get("message")
            .and_then(Value::as_str)
            .map_or_else(|| error.to_string(), str::to_owned),
        None => format!("the master answered {status}"),
    };
    if status.is_server_error() { Err(ApiError::Away(text)) } else { Err(ApiError::Refused(text)) }
}
