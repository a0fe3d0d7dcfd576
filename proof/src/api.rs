//! The HTTP API, as a program far away uses it: an answer may never come.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

/// The way to a master. Clones may be used side by side.
#[derive(Clone)]
pub struct Api {
    agent: ureq::Agent,
    at: SocketAddr,
}

impl Api {
    /// The way to the master that serves there.
    #[must_use]
    pub fn new(at: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .proxy(None)
            .build();
        Self { agent: config.into(), at }
    }

    fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<(u16, Value)> {
        let mut answer = answer.ok()?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(256 << 20).read_to_string().ok()?;
        Some((status, serde_json::from_str(&text).ok()?))
    }

    /// Status and body of a resource below `/api/v2/`; none when no whole
    /// answer came.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<(u16, Value)> {
        Self::read(self.agent.get(format!("http://{}/api/v2/{path}", self.at)).call())
    }

    /// A list; none when it could not be had.
    #[must_use]
    pub fn list(&self, path: &str) -> Option<Vec<Value>> {
        let (status, body) = self.get(path)?;
        if status != 200 {
            return None;
        }
        body.as_object()?.values().find_map(Value::as_array).cloned()
    }

    /// Orders something by JSON-RPC; status and the whole answer, or none when
    /// no answer came: then it may have been done or not.
    #[must_use]
    pub fn order(&self, path: &str, method: &str, params: &Value) -> Option<(u16, Value)> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let url = format!("http://{}/api/v2/{path}", self.at);
        Self::read(self.agent.post(url).send_json(body))
    }

    /// The event stream from now on: events whose keys have three parts. None
    /// when the master is not there.
    #[must_use]
    pub fn events(&self) -> Option<impl std::io::Read + use<>> {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(10)))
            .proxy(None)
            .build();
        let agent: ureq::Agent = config.into();
        let answer = agent.get(format!("http://{}/sse/listen/*/*/*", self.at)).call().ok()?;
        Some(answer.into_body().into_reader())
    }

    /// What the master's people see.
    #[must_use]
    pub fn board(&self) -> Option<Value> {
        self.get("botmaster/board").filter(|(status, _)| *status == 200).map(|(_, board)| board)
    }
}
