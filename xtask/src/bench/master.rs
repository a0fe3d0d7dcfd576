//! One master under measurement, with its workers and a subscription to the
//! ends of its build requests.

mod again;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::Client;
use super::proc::{Guard, Process, cpu_seconds};
use super::scratch::{Scratch, worker_name};
use super::sse;

/// How long the master may take until its API answers.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long the workers may take to attach.
const ATTACH_LIMIT: Duration = Duration::from_secs(120);

/// How long an answer of the API may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);

/// How often a starting master is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// Requests in one bulk submission.
const BULK: usize = 5_000;

/// How long the load process stays at most, in seconds.
const LOAD_SECONDS: u32 = 3_600;

/// The programs that are measured.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `botmaster`.
    pub botmaster: PathBuf,
    /// `load_workers`; the other tools of the benchmarks lie beside it.
    pub load_workers: PathBuf,
    /// `botmaster-VERSION`.
    pub system: String,
}

impl Programs {
    /// Another tool of the benchmarks.
    #[must_use]
    pub fn tool(&self, name: &str) -> PathBuf {
        self.load_workers.with_file_name(name)
    }
}

/// A master with its workers. Ends with its value, workers first.
#[derive(Debug)]
pub struct Master {
    workers: Vec<Process>,
    process: Process,
    client: Client,
    http: SocketAddr,
    listen: SocketAddr,
    api_ready: Duration,
    programs: Programs,
    guard: Guard,
}

impl Master {
    /// Starts a master in a scratch folder and waits until its API answers.
    ///
    /// # Errors
    /// When it ends, or does not answer in time.
    pub fn start(
        programs: &Programs,
        scratch: &Scratch,
        config: &Path,
        guard: &Guard,
    ) -> Result<Self, String> {
        let started = Started::new(programs, scratch, config, guard, "127.0.0.1:0")?;
        Ok(Self {
            workers: Vec::new(),
            process: started.process,
            client: started.client,
            http: started.http,
            listen: started.listen,
            api_ready: started.api_ready,
            programs: programs.clone(),
            guard: guard.clone(),
        })
    }

    /// How long it took from the start of its process to the first answer of
    /// its API.
    #[must_use]
    pub fn api_ready(&self) -> Duration {
        self.api_ready
    }

    /// Where its API is.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The master's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Processor time so far of the workers' processes that were started here.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn workers_cpu(&self) -> Result<f64, String> {
        self.workers.iter().map(|worker| cpu_seconds(worker.id())).sum()
    }

    /// Starts the real worker program as the first worker.
    ///
    /// # Errors
    /// When it cannot be started or does not attach.
    pub fn real_worker(&mut self, scratch: &Scratch) -> Result<(), String> {
        let name = worker_name(0);
        let mut command = Command::new(&self.programs.botmaster);
        command.args(["worker", "--master", &self.listen.to_string(), "--name", &name]);
        command.arg("--token-file").arg(scratch.tokens().join(format!("{name}.token")));
        command.arg("--dir").arg(scratch.path().join("worker"));
        let output = scratch.path().join("worker.out");
        self.workers.push(Process::start("the worker", command, &output, &self.guard)?);
        self.wait_attached(1)
    }

    /// Starts the load process with so many workers.
    ///
    /// # Errors
    /// When it cannot be started or they do not attach.
    pub fn load_workers(&mut self, scratch: &Scratch, count: u32) -> Result<(), String> {
        self.start_load(scratch, count, &[])?;
        self.wait_attached(count as usize)
    }

    /// Starts the load process with so many workers and more arguments, and
    /// does not wait for them.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_load(
        &mut self,
        scratch: &Scratch,
        count: u32,
        arguments: &[&OsStr],
    ) -> Result<(), String> {
        let mut command = Command::new(&self.programs.load_workers);
        command.args(["--master", &self.listen.to_string(), "--count", &count.to_string()]);
        command.arg("--tokens").arg(scratch.tokens());
        command.args(["--max-seconds", &LOAD_SECONDS.to_string()]).args(arguments);
        let output = scratch.path().join("load.out");
        self.workers.push(Process::start("the load process", command, &output, &self.guard)?);
        Ok(())
    }

    /// Waits until so many workers are attached.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn wait_attached(&mut self, count: usize) -> Result<(), String> {
        let deadline = Instant::now() + ATTACH_LIMIT;
        loop {
            let attached = attached(&self.client.get("/api/v2/workers")?);
            if attached >= count {
                return Ok(());
            }
            self.check()?;
            if Instant::now() >= deadline {
                return Err(format!(
                    "only {attached} of {count} workers attached within {} s",
                    ATTACH_LIMIT.as_secs()
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Submits one build request.
    ///
    /// # Errors
    /// When the master refuses it.
    pub fn force(&mut self, builder: &str) -> Result<(), String> {
        let params = json!({ "builderNames": [builder], "owner": "bench" });
        self.call(&params).map(|_| ())
    }

    /// Submits so many build requests, with `token` counted up from `first`, for
    /// the builders in turn: token 0 for the first of them. Gives the time until all were accepted.
    ///
    /// # Errors
    /// When the master refuses them.
    pub fn submit(&mut self, n: u64, builders: &[String], first: u64) -> Result<Duration, String> {
        let begin = Instant::now();
        let requests: Vec<Value> = (first..first + n)
            .zip(builders.iter().cycle().skip(first as usize % builders.len().max(1)))
            .map(|(token, builder)| {
                json!({ "builderNames": [builder], "properties": { "token": token.to_string() } })
            })
            .collect();
        for part in requests.chunks(BULK) {
            let answer = self.call(&json!({ "owner": "bench", "requests": part }))?;
            let accepted = answer.as_array().map_or(0, Vec::len);
            if accepted != part.len() {
                return Err(format!("{accepted} of {} requests were accepted", part.len()));
            }
        }
        Ok(begin.elapsed())
    }

    fn call(&mut self, params: &Value) -> Result<Value, String> {
        let body = json!({ "id": 1, "jsonrpc": "2.0", "method": "force", "params": params });
        let mut answer = self.client.post("/api/v2/forceschedulers/force", &body)?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(format!("the master refused: {answer}")),
        }
    }

    /// Subscribes to the ends of build requests.
    ///
    /// # Errors
    /// When the master does not offer it.
    pub fn completions(&self) -> Result<Completions, String> {
        let stream = self.events("buildrequests/*/complete")?;
        Ok(Completions { stream, times: Vec::new(), not_success: 0 })
    }

    /// Subscribes to events.
    ///
    /// # Errors
    /// When the master does not offer it.
    pub fn events(&self, path: &str) -> Result<sse::Stream, String> {
        sse::Stream::open(self.http, &format!("/sse/listen/{path}"))
    }

    /// Asks the API for something.
    ///
    /// # Errors
    /// When it does not answer well.
    pub fn get(&mut self, path: &str) -> Result<Value, String> {
        self.client.get(&format!("/api/v2/{path}"))
    }

    /// Has the configuration loaded again; gives the master's report when it is
    /// done.
    ///
    /// # Errors
    /// When it does not answer, or finds a problem.
    pub fn reload(&mut self) -> Result<Value, String> {
        let report = self.client.post("/api/v2/botmaster/reload", &json!({}))?;
        match report.get("problems").and_then(Value::as_array) {
            Some(problems) if problems.is_empty() => Ok(report),
            _ => Err(format!("the configuration was not loaded again: {report}")),
        }
    }

    /// How many builds a builder has made.
    ///
    /// # Errors
    /// When the API does not tell.
    pub fn builds_of(&mut self, builder: &str) -> Result<u64, String> {
        let answer = self.get(&format!("builders/{builder}/builds?limit=1&field=number"))?;
        let total = answer.pointer("/meta/total").and_then(Value::as_u64);
        total.ok_or(format!("the API does not tell how many builds `{builder}` made: {answer}"))
    }

    /// Makes sure that at least so many builds are in the API, and that the
    /// newest one has ended with success.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_stored(&mut self, least: u64) -> Result<(), String> {
        let answer = self.client.get("/api/v2/builds?limit=1&order=-buildid")?;
        stored(&answer, least)
    }

    /// Fails when the master or a worker process has ended.
    ///
    /// # Errors
    /// Names the process, with the end of its output.
    pub fn check(&mut self) -> Result<(), String> {
        self.process.check()?;
        self.workers.iter_mut().try_for_each(Process::check)
    }
}

/// A master's process that answers.
struct Started {
    process: Process,
    client: Client,
    http: SocketAddr,
    listen: SocketAddr,
    api_ready: Duration,
}

impl Started {
    fn new(
        programs: &Programs,
        scratch: &Scratch,
        config: &Path,
        guard: &Guard,
        listen: &str,
    ) -> Result<Self, String> {
        let files = ["http.addr", "listen.addr"].map(|name| scratch.data().join(name));
        for file in &files {
            // One of an earlier master would be read for this one's.
            let _ = std::fs::remove_file(file);
        }
        let [http_file, listen_file] = files;
        let mut command = Command::new(&programs.botmaster);
        command.arg("master").arg("--config").arg(config).arg("--data-dir").arg(scratch.data());
        command.args(["--http", "127.0.0.1:0", "--listen", listen]);
        command.current_dir(scratch.path());
        let output = scratch.path().join("master.out");
        let begin = Instant::now();
        let mut process = Process::start("the master", command, &output, guard)?;
        let deadline = begin + START_LIMIT;
        let http = address(&mut process, &http_file, deadline)?;
        let listen = address(&mut process, &listen_file, deadline)?;
        let mut client = Client::new(http, ANSWER_LIMIT);
        loop {
            match client.get("/api/v2/masters") {
                Ok(_) => break,
                Err(problem) if Instant::now() >= deadline => {
                    return Err(format!("the master's API does not answer: {problem}"));
                }
                Err(_) => {}
            }
            process.check()?;
            std::thread::sleep(LOOK);
        }
        Ok(Self { process, client, http, listen, api_ready: begin.elapsed() })
    }
}

/// Waits for a file with an address.
fn address(process: &mut Process, file: &Path, deadline: Instant) -> Result<SocketAddr, String> {
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(address) = text.trim().parse() {
            return Ok(address);
        }
        process.check()?;
        if Instant::now() >= deadline {
            return Err(format!("the master has not written {} in time", file.display()));
        }
        std::thread::sleep(LOOK);
    }
}

/// Counts the workers that are attached in an answer of the API.
fn attached(answer: &Value) -> usize {
    let workers = answer.get("workers").and_then(Value::as_array);
    let is_attached = |worker: &&Value| {
        worker.get("connected_to").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    };
    workers.map_or(0, |workers| workers.iter().filter(is_attached).count())
}

/// Fails unless an answer with the newest build tells of at least so many. A
/// large number may be told as a lower bound only.
fn stored(answer: &Value, least: u64) -> Result<(), String> {
    let bound = answer.pointer("/meta/total_is_lower_bound").and_then(Value::as_bool);
    let total = answer.pointer("/meta/total").and_then(Value::as_u64);
    let total = total.ok_or("the API does not tell how many builds there are")?;
    if total < least && bound != Some(true) {
        return Err(format!("the API knows {total} builds, not {least}"));
    }
    match answer.pointer("/builds/0/results").and_then(Value::as_i64) {
        Some(0) => Ok(()),
        other => Err(format!("the newest build in the API has the result {other:?}, not 0")),
    }
}

/// Waits for so many events. Gives how many came before the deadline, and when
/// the last of them did.
///
/// # Errors
/// When the stream ends.
pub fn wait_events(
    stream: &sse::Stream,
    count: usize,
    deadline: Instant,
) -> Result<(usize, Option<Instant>), String> {
    let (mut seen, mut last) = (0, None);
    while seen < count {
        let Some((at, event)) = stream.next(deadline)? else { break };
        if event.kind == "event" {
            (seen, last) = (seen + 1, Some(at));
        }
    }
    Ok((seen, last))
}

/// The ends of build requests, as they come.
#[derive(Debug)]
pub struct Completions {
    stream: sse::Stream,
    /// When each came.
    pub times: Vec<Instant>,
    /// How many of them did not end with success.
    pub not_success: u64,
}

impl Completions {
    /// Waits until so many have come in all; true when they have before the
    /// deadline.
    ///
    /// # Errors
    /// When the stream ends or says something that is not understood.
    pub fn wait(&mut self, count: usize, deadline: Instant) -> Result<bool, String> {
        while self.times.len() < count {
            let Some((at, event)) = self.stream.next(deadline)? else { return Ok(false) };
            if event.kind != "event" {
                continue;
            }
            let result = result_of(&event.data)
                .ok_or(format!("an event is not understood: {}", event.data))?;
            self.times.push(at);
            self.not_success += u64::from(result != 0);
        }
        Ok(true)
    }
}

/// The result in the data of an event.
#[must_use]
pub fn result_of(data: &str) -> Option<i64> {
    let event: Value = serde_json::from_str(data).ok()?;
    event.pointer("/message/results")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_events_are_read() {
        let workers = json!({ "workers": [
            { "name": "a", "connected_to": [{ "masterid": 1 }] },
            { "name": "b", "connected_to": [] },
            { "name": "c" },
        ]});
        assert_eq!(attached(&workers), 1);
        assert_eq!(attached(&json!({})), 0);
        let data = r#"{"key":["buildrequests","7","complete"],"message":{"results":2}}"#;
        assert_eq!(result_of(data), Some(2));
        assert_eq!(result_of("{}"), None);
    }

    #[test]
    fn builds_that_are_not_stored_are_noticed() {
        let answer =
            |meta: Value, result: Value| json!({ "builds": [{ "results": result }], "meta": meta });
        assert_eq!(stored(&answer(json!({ "total": 5 }), json!(0)), 5), Ok(()));
        let bound = json!({ "total": 5, "total_is_lower_bound": true });
        assert_eq!(stored(&answer(bound, json!(0)), 9), Ok(()));
        assert!(stored(&answer(json!({ "total": 5 }), json!(0)), 6).is_err());
        assert!(stored(&answer(json!({ "total": 5 }), json!(2)), 5).is_err());
        assert!(stored(&answer(json!({ "total": 5 }), Value::Null), 5).is_err());
        assert!(stored(&json!({}), 0).is_err());
    }
}
