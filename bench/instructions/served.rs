//! A whole master: one build after the other from the request to its end, with
//! a played worker, and the list of the newest builds.
//!
//! Everything that a master does by the clock is so rare here that a run sees
//! none of it, but for what it puts off a few times a second.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use botmaster::app::{MasterOptions, RunningMaster, start_master};
use botmaster::core::ids::*;
use botmaster::protocol::json_v1::{
    Attach, Inventory, LogData, MasterFrame, Outcome, PROTO, STDIO, Usage, WorkerFrame,
    decode_master, encode,
};
use botmaster::settings::{Overrides, load_with, write_new_token_file};

use crate::Scratch;

const CONFIG: &str = "\
[timers]
heartbeat = \"10 min\"
lease = \"1 h\"
grace = \"2 h\"
[[worker]]
name = \"w\"
[[builder]]
name = \"unit\"
workers = [\"w\"]
[[builder.step]]
name = \"test\"
shell = \"make check\"
";

/// Builds that are listed.
const LISTED: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(120);

type Fault = Box<dyn std::error::Error>;

/// Builds so many requests.
pub fn build(rounds: u64) -> Result<(), String> {
    let go = || -> Result<(), Fault> {
        let mut world = World::start()?;
        (0..rounds).try_for_each(|_| world.build())
    };
    go().map_err(|fault| fault.to_string())
}

/// Lists the newest builds so many times.
pub fn builds(rounds: u64) -> Result<(), String> {
    let go = || -> Result<(), Fault> {
        let mut world = World::start()?;
        (0..LISTED).try_for_each(|_| world.build())?;
        for _ in 0..rounds {
            let path = format!("/api/v2/builds?order=-buildid&limit={LISTED}");
            let answer = world.client.ask("GET", &path, "")?;
            let listed = answer.matches("\"buildid\":").count() as u64;
            if listed != LISTED {
                return Err(format!("{listed} builds are listed").into());
            }
        }
        Ok(())
    };
    go().map_err(|fault| fault.to_string())
}

struct World {
    client: Client,
    worker: PlayedWorker,
    master: Option<RunningMaster>,
    _scratch: Scratch,
}

impl World {
    fn start() -> Result<Self, Fault> {
        let scratch = Scratch::new()?;
        let (file, data) = (scratch.0.join("x.toml"), scratch.0.join("data"));
        std::fs::write(&file, CONFIG)?;
        let token_file = data.join("tokens/w.token");
        let token = write_new_token_file(&token_file, "w")?.reveal().to_owned();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let overrides = Overrides {
            data_dir: Some(data),
            http: Some(free),
            listen: Some(free),
            ..Overrides::default()
        };
        let loaded = load_with(&file, &overrides).map_err(|problems| format!("{problems:?}"))?;
        let master =
            start_master(MasterOptions { loaded, overrides, opening: Default::default() })?;
        let worker = PlayedWorker::attach(master.listen, token)?;
        Ok(Self { client: Client(master.http), worker, master: Some(master), _scratch: scratch })
    }

    /// One build from its request to the moment when its end is durable.
    fn build(&mut self) -> Result<(), Fault> {
        let order = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"force\",\
                     \"params\":{\"builderNames\":[\"unit\"]}}";
        let answer = self.client.ask("POST", "/api/v2/forceschedulers/force", order)?;
        if !answer.contains("\"result\"") {
            return Err(format!("the order was not taken: {answer}").into());
        }
        self.worker.build()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Its folder goes next: it has to be out of it.
        if let Some(master) = self.master.take() {
            let RunningMaster { mut stop, ended, .. } = master;
            stop(Duration::ZERO);
            let _ = ended.blocking_recv();
        }
    }
}

/// Speaks HTTP, each time over a new connection: how long one is kept open goes
/// by the clock.
struct Client(SocketAddr);

impl Client {
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, Fault> {
        let stream = TcpStream::connect(self.0)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
             Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(head.as_bytes())?;
        let mut length = None;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = Some(value.parse()?);
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut text = vec![0; length.ok_or("the answer has no length")?];
        stream.read_exact(&mut text)?;
        Ok(String::from_utf8(text)?)
    }
}

/// A worker that does at once what it is told.
struct PlayedWorker {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl PlayedWorker {
    fn attach(address: SocketAddr, token: String) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut worker = Self { lines: BufReader::new(stream.try_clone()?), stream };
        worker.say(&WorkerFrame::Attach(Attach {
            proto: vec![PROTO],
            name: "w".into(),
            instance: "played".into(),
            token,
            version: "0".into(),
            os: "linux".into(),
            arch: "x86_64".into(),
            slots: 1,
            caps: Some(vec!["shell/1".into()]),
            labels: Default::default(),
            info: Default::default(),
            requires: Vec::new(),
            clock: None,
        }))?;
        while !matches!(worker.hear()?, MasterFrame::Attached { .. }) {}
        worker.say(&WorkerFrame::Inventory(Inventory { builds: Vec::new(), more: false }))?;
        while !matches!(worker.hear()?, MasterFrame::Builders { .. }) {}
        worker.say(&WorkerFrame::BuilderReady { builder: "unit".into() })?;
        Ok(worker)
    }

    fn say(&mut self, frame: &WorkerFrame) -> Result<(), Fault> {
        Ok(self.stream.write_all(&encode(frame))?)
    }

    fn hear(&mut self) -> Result<MasterFrame, Fault> {
        let mut line = Vec::new();
        self.lines.read_until(b'\n', &mut line)?;
        let line = line.strip_suffix(b"\n").ok_or("the master closed the connection")?;
        Ok(decode_master(line).map_err(|error| error.to_string())?)
    }

    fn build(&mut self) -> Result<(), Fault> {
        loop {
            match self.hear()? {
                MasterFrame::Ping { id } => self.say(&WorkerFrame::Pong { id })?,
                MasterFrame::StartBuild { build, epoch, .. } => {
                    self.say(&WorkerFrame::BuildAccepted { build, epoch })?;
                }
                MasterFrame::StartCommand { build, command, .. } => self.run(build, command)?,
                MasterFrame::BuildFinished { result, .. } if result == "success" => return Ok(()),
                MasterFrame::LogConfirm { .. } => {}
                other => return Err(format!("not expected: {other:?}").into()),
            }
        }
    }

    fn run(&mut self, build: BuildId, command: CommandId) -> Result<(), Fault> {
        let text = "all is well\n".repeat(20);
        let end = text.len() as u64;
        self.say(&WorkerFrame::CommandStarted { build, command: command.clone() })?;
        self.say(&WorkerFrame::Log(LogData {
            build,
            command: command.clone(),
            log: STDIO.into(),
            ch: 'o',
            offset: 0,
            text: Some(text),
            b64: None,
            raw: None,
            body: bytes::Bytes::new(),
            at: 1,
        }))?;
        self.say(&WorkerFrame::CommandFinished {
            build,
            command,
            outcome: Outcome::Exit(0),
            usage: Usage::default(),
            log_end: [(STDIO.to_owned(), end)].into(),
            log_digest: Default::default(),
            properties: Default::default(),
            note: String::new(),
        })
    }
}
