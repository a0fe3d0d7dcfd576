//! A running master and its HTTP API.

use std::net::SocketAddr;
use std::time::Duration;

use botmaster::protocol::json_v1::MasterFrame;
use serde_json::{Value, json};

use super::{Place, Process, Ran, RawWorker, until};

/// A master that serves.
pub struct Master<'p> {
    pub place: &'p Place,
    pub process: Process,
    pub http: SocketAddr,
    pub listen: SocketAddr,
    agent: ureq::Agent,
}

impl<'p> Master<'p> {
    pub fn new(
        place: &'p Place,
        process: Process,
        (http, listen): (SocketAddr, SocketAddr),
    ) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .proxy(None)
            .build();
        Self { place, process, http, listen, agent: config.into() }
    }

    /// Another process on the same ports and data, once this one has ended.
    #[track_caller]
    pub fn again(self) -> Self {
        let (place, http, listen) = (self.place, self.http, self.listen);
        drop(self);
        place.master_at(http, listen)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    fn parsed(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> (u16, Value) {
        let mut answer = answer.unwrap_or_else(|error| panic!("no answer: {error}"));
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Status and body of a resource below `/api/v2/`.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.parsed(self.agent.get(format!("{}/api/v2/{path}", self.url())).call())
    }

    /// Orders something by JSON-RPC; status and the whole answer.
    pub fn order(&self, path: &str, method: &str, params: &Value) -> (u16, Value) {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.post(path, &body)
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.parsed(self.agent.post(format!("{}/api/v2/{path}", self.url())).send_json(body))
    }

    /// Orders what must succeed; its result.
    #[track_caller]
    pub fn ordered(&self, path: &str, method: &str, params: &Value) -> Value {
        let (status, answer) = self.order(path, method, params);
        assert_eq!(status, 200, "{path} {method}: {answer}");
        answer["result"].clone()
    }

    /// Asks for a build; the request's id.
    #[track_caller]
    pub fn force(&self, builder: &str) -> i64 {
        let params = json!({ "builderNames": [builder] });
        let result = self.ordered("forceschedulers/force", "force", &params);
        result[1].as_object().unwrap().values().next().unwrap().as_i64().unwrap()
    }

    /// A list, or one resource as a list of one.
    #[track_caller]
    pub fn list(&self, path: &str) -> Vec<Value> {
        let (status, body) = self.get(path);
        if status == 404 {
            return Vec::new();
        }
        assert_eq!(status, 200, "{path}: {body}");
        let list = body.as_object().and_then(|all| all.values().find_map(Value::as_array));
        list.unwrap_or_else(|| panic!("{path} is no list: {body}")).clone()
    }

    #[track_caller]
    pub fn one(&self, path: &str) -> Option<Value> {
        self.list(path).into_iter().next()
    }

    pub fn board(&self) -> Value {
        self.get("botmaster/board").1
    }

    /// How often the master ignored or refused something of this kind.
    pub fn ignored(&self, kind: &str) -> u64 {
        self.board()["ignored"][kind].as_u64().unwrap_or(0)
    }

    /// Waits until the worker is attached.
    #[track_caller]
    pub fn attached(&self, worker: &str) {
        until(&format!("worker {worker} is attached"), || {
            // A paused or full one is `busy` for a builder that has asked it.
            let ready =
                |view: &Value| matches!(view["workers"][worker].as_str(), Some("idle" | "busy"));
            let board = self.board();
            let builders = board["builders"].as_object()?;
            let connected = board["workers"][worker]["connected"] == true;
            (connected && builders.values().any(ready)).then_some(())
        });
    }

    /// Makes a played worker ready for its builders, and waits until it is.
    #[track_caller]
    pub fn attached_raw(&self, raw: &mut RawWorker, worker: &str) {
        raw.hear_until(|frame| matches!(frame, MasterFrame::Builders { .. }).then_some(()));
        self.attached(worker);
    }

    /// Waits until the worker is not attached.
    #[track_caller]
    pub fn away(&self, worker: &str) {
        until(&format!("worker {worker} is away"), || {
            (self.board()["workers"][worker]["connected"] != true).then_some(())
        });
    }

    pub fn build(&self, builder: &str, number: u64) -> Option<Value> {
        self.one(&format!("builders/{builder}/builds/{number}?property=*"))
    }

    /// Waits until the build runs; the build.
    #[track_caller]
    pub fn running(&self, builder: &str, number: u64) -> Value {
        until(&format!("build {builder}/{number} runs"), || {
            let build = self.build(builder, number)?;
            assert_eq!(build["complete"], false, "it has ended: {build}");
            Some(build)
        })
    }

    /// Waits until the build has ended; the build.
    #[track_caller]
    pub fn ended(&self, builder: &str, number: u64) -> Value {
        until(&format!("build {builder}/{number} ends"), || {
            self.build(builder, number).filter(|build| build["complete"] == true)
        })
    }

    /// Waits until the build has ended as it should.
    #[track_caller]
    pub fn ended_as(&self, builder: &str, number: u64, results: i64) -> Value {
        let build = self.ended(builder, number);
        assert_eq!(build["results"], results, "{build}");
        build
    }

    /// The lines of a step's log that came on one channel: `o`, `e` or `h`.
    #[track_caller]
    pub fn log(&self, builder: &str, number: u64, step: u64, channel: char) -> Vec<String> {
        let path = format!(
            "builders/{builder}/builds/{number}/steps/{step}/logs/stdio/contents?limit=1000000"
        );
        let Some(chunk) = self.one(&path) else { return Vec::new() };
        let text = chunk["content"].as_str().unwrap().to_owned();
        text.lines().filter_map(|line| line.strip_prefix(channel)).map(str::to_owned).collect()
    }

    /// Waits until the step's log has this line.
    #[track_caller]
    pub fn said(&self, builder: &str, number: u64, step: u64, line: &str) {
        until(&format!("{builder}/{number} says `{line}`"), || {
            self.log(builder, number, step, 'o').iter().any(|one| one == line).then_some(())
        });
    }

    /// Waits until the counting step has gone on by some lines from now.
    #[track_caller]
    pub fn counts_on(&self, builder: &str, number: u64) {
        let now = self.log(builder, number, 0, 'o').len();
        self.said(builder, number, 0, &format!("line {}", now + 3));
    }

    pub fn request(&self, id: i64) -> Value {
        self.one(&format!("buildrequests/{id}")).unwrap()
    }

    /// Runs a command line for this master to its end.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Ran {
        let url = self.url();
        let mut all = vec!["--url", &url];
        all.extend(args);
        self.place.cli(&all)
    }

    /// A worker program of this master.
    pub fn worker(&self, name: &str, max_builds: u32) -> Process {
        self.place.worker(self.listen, name, max_builds)
    }
}
