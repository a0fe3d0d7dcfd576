//! Requests to the master, and what can go wrong with them.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::Body;
use ureq::http::Response;

/// How long one request may take. The master answers an order within a minute.
const REQUEST_LIMIT: Duration = Duration::from_secs(90);

/// How long the master may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Longest answer, in bytes.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no master answers at {url} ({why}); start one with `botmaster master` or give --url")]
    NoMaster {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// The master said no.
    #[error("the master at {url} refused: {message}")]
    Refused {
        /// Where.
        url: String,
        /// HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// Something else answers there.
    #[error("the answer of {url} is not a master's: {why}; is it the right --url?")]
    Strange {
        /// Where.
        url: String,
        /// What is strange.
        why: String,
    },
    /// What was asked for is not there, or cannot be asked.
    #[error("{0}")]
    Ask(String),
    /// The answer could not be shown.
    #[error("cannot write: {0}")]
    Output(io::Error),
}

impl ClientError {
    /// Whether the same may work once the master is back.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoMaster { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 500..),
            _ => false,
        }
    }
}

/// How long one connection of an event stream is used. One that died in silence
/// is noticed by then; what it missed is told by the next one.
const STREAM_LIMIT: Duration = Duration::from_secs(300);

/// A master to talk to.
pub struct Client {
    base: String,
    agent: Agent,
}

/// Writes text so that it is one element of a path.
#[must_use]
pub fn element(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

impl Client {
    /// The master at `url`: `http://127.0.0.1:8010`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(REQUEST_LIMIT))
            // A master is near: a proxy for the web knows nothing of it.
            .proxy(None)
            .build();
        let base = url.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        Self { base, agent: config.into() }
    }

    fn parsed(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<(u16, Value), ClientError> {
        let no_master = |error: &ureq::Error| ClientError::NoMaster {
            url: self.base.clone(),
            why: error.to_string(),
        };
        let mut answer = answer.map_err(|error| no_master(&error))?;
        let status = answer.status().as_u16();
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(ANSWER_LIMIT)
            .read_to_vec()
            .map_err(|error| no_master(&error))?;
        let value = serde_json::from_slice(&bytes).map_err(|_| ClientError::Strange {
            url: self.base.clone(),
            why: format!("status {status} without JSON"),
        })?;
        Ok((status, value))
    }

    fn refused(&self, status: u16, error: &Value) -> ClientError {
        let message = match error {
            Value::String(text) => text.clone(),
            // Texts by field.
            Value::Object(fields) => {
                let said = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
                let texts: Vec<String> =
                    fields.iter().map(|(name, text)| format!("{name} {}", said(text))).collect();
                texts.join("; ")
            }
            other => other.to_string(),
        };
        ClientError::Refused { url: self.base.clone(), status, message }
    }

    /// Reads a resource: `path` is below `/api/v2/`.
    ///
    /// # Errors
    /// When the master does not answer or says no.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        let url = format!("{}/api/v2/{path}", self.base);
        let answer = self.agent.get(url).header("Accept", "application/json").call();
        let (status, value) = self.parsed(answer)?;
        if status == 200 {
            return Ok(value);
        }
        Err(self.refused(status, value.get("error").unwrap_or(&value)))
    }

    /// The list that a resource's envelope holds.
    ///
    /// # Errors
    /// When the master does not answer or says no.
    pub fn list(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        let kind_and_meta = self.get(path)?;
        let list = kind_and_meta
            .as_object()
            .and_then(|envelope| envelope.values().find_map(Value::as_array))
            .cloned();
        list.ok_or_else(|| ClientError::Strange {
            url: self.base.clone(),
            why: format!("{path} is no list"),
        })
    }

    /// The one resource that an envelope holds; `what` names it for people.
    ///
    /// # Errors
    /// When there is none, or the master does not answer.
    pub fn one(&self, path: &str, what: &str) -> Result<Value, ClientError> {
        let missing = || ClientError::Ask(format!("there is no {what} at {}", self.base));
        match self.list(path) {
            Ok(list) => list.into_iter().next().ok_or_else(missing),
            Err(ClientError::Refused { status: 404, .. }) => Err(missing()),
            Err(error) => Err(error),
        }
    }

    /// Orders something by JSON-RPC.
    ///
    /// # Errors
    /// When the master does not answer or says no.
    pub fn order(&self, path: &str, method: &str, params: &Value) -> Result<Value, ClientError> {
        let url = format!("{}/api/v2/{path}", self.base);
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (status, mut value) = self.parsed(self.agent.post(url).send_json(body))?;
        if status == 200 {
            return Ok(value.get_mut("result").map(Value::take).unwrap_or_default());
        }
        let error = value.get("error").unwrap_or(&value);
        Err(self.refused(status, error.get("message").unwrap_or(error)))
    }

    /// Opens an event stream: `path` is below the root; `last` is the number of
    /// the last event that was had.
    ///
    /// # Errors
    /// When the master does not answer or says no.
    pub fn open_stream(
        &self,
        path: &str,
        last: Option<&str>,
    ) -> Result<ureq::BodyReader<'static>, ClientError> {
        let mut request = self
            .agent
            .get(format!("{}/{path}", self.base))
            .config()
            .timeout_global(Some(STREAM_LIMIT))
            .build();
        if let Some(last) = last
            && let Ok(value) = last.parse()
        {
            request.headers_mut().map(|headers| headers.insert("last-event-id", value));
        }
        let answer = request.call().map_err(|error| ClientError::NoMaster {
            url: self.base.clone(),
            why: error.to_string(),
        })?;
        let status = answer.status().as_u16();
        if status != 200 {
            let said = Value::from(format!("the event stream, with status {status}"));
            return Err(self.refused(status, &said));
        }
        Ok(answer.into_body().into_reader())
    }

    /// Sends JSON to a path of our own below `/api/v2/`.
    ///
    /// # Errors
    /// When the master does not answer or says no.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let url = format!("{}/api/v2/{path}", self.base);
        let (status, value) = self.parsed(self.agent.post(url).send_json(body))?;
        if status == 200 {
            return Ok(value);
        }
        let error = value.get("error").unwrap_or(&value);
        Err(self.refused(status, error.get("message").unwrap_or(error)))
    }
}
