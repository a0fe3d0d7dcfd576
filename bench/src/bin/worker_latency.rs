//! Measures one worker program from outside: a scripted master gives it small
//! builds one after the other and notes how long each answer took.
//!
//! `worker_latency PROGRAM [BUILDS] [WARM-UP] [SHELL-LINE]` starts `PROGRAM worker` on
//! loopback, runs the builds and prints medians and 95th percentiles in
//! microseconds. With a shell line that is run; without one, `true` without a
//! shell. Deliberately absent: the real master.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use botmaster::core::ids::{
    BuildId, BuilderName, CommandId, Epoch, Incarnation, PingToken, RequestId,
};
use botmaster::protocol::json_v1::{
    BuilderEntry, MasterFrame, PROTO, STDIO, ShellArgs, WINDOW, Work, WorkerFrame, decode_worker,
    encode,
};

/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most builds that one run measures.
const MOST_BUILDS: u64 = 100_000;

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), String> {
    let mut words = std::env::args().skip(1);
    let usage = "usage: worker_latency PROGRAM [BUILDS] [WARM-UP] [SHELL-LINE]";
    let program = words.next().ok_or(usage)?;
    let mut number = |otherwise: u64| match words.next() {
        None => Ok(otherwise),
        Some(word) => word.parse().map_err(|_| format!("`{word}` is no number; {usage}")),
    };
    let (builds, warm_up) = (number(500)?.min(MOST_BUILDS), number(20)?.min(MOST_BUILDS));
    let line = words.next();
    let dir = std::env::temp_dir().join(format!("worker-latency-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let measured = measure_in(&dir, &program, builds, warm_up, line.as_deref());
    // A folder that stays costs little, and says nothing about the worker.
    let _ = std::fs::remove_dir_all(&dir);
    measured?.print();
    Ok(())
}

fn measure_in(
    dir: &Path,
    program: &str,
    builds: u64,
    warm_up: u64,
    line: Option<&str>,
) -> Result<Times, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let mut worker = start(program, &address.to_string(), dir)?;
    let measured = talk(&listener, builds, warm_up, line);
    // Its standard input ends, and so does it.
    drop(worker.stdin.take());
    let end = worker.wait().map_err(|error| error.to_string())?;
    if !end.success() {
        return Err(format!("the worker ended with {end}"));
    }
    measured
}

fn start(program: &str, master: &str, dir: &Path) -> Result<Child, String> {
    let token = dir.join("token");
    std::fs::write(&token, "s3cret\n").map_err(|error| error.to_string())?;
    Command::new(program)
        .args(["worker", "--master", master, "--name", "w1", "--stop-with-stdin"])
        .arg("--token-file")
        .arg(token)
        .arg("--dir")
        .arg(dir.join("work"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start `{program}`: {error}"))
}

fn talk(
    listener: &TcpListener,
    builds: u64,
    warm_up: u64,
    line: Option<&str>,
) -> Result<Times, String> {
    let mut line_to = Line::accept(listener)?;
    let mut times = Times::default();
    for build in 1..=warm_up + builds {
        if build == warm_up + 1 {
            times = Times::default();
        }
        line_to.build(build, line, &mut times)?;
    }
    Ok(times)
}

/// Waits for the worker, which may have failed to start.
fn accept(listener: &TcpListener) -> Result<TcpStream, String> {
    let until = Instant::now() + PATIENCE;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(error.to_string());
            }
            Err(_) if Instant::now() > until => return Err("the worker does not come".to_owned()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// How long things took, one entry a build.
#[derive(Default)]
struct Times {
    accepted: Vec<Duration>,
    started: Vec<Duration>,
    finished: Vec<Duration>,
    /// From `build_finished` to the answer to a ping behind it.
    free: Vec<Duration>,
    whole: Vec<Duration>,
    logs: usize,
}

impl Times {
    fn print(&mut self) {
        let rows = [
            ("start_build -> build_accepted", &mut self.accepted),
            ("start_command -> command_started", &mut self.started),
            ("start_command -> command_finished", &mut self.finished),
            ("build_finished -> pong", &mut self.free),
            ("the whole build", &mut self.whole),
        ];
        for (name, times) in rows {
            times.sort_unstable();
            let at = |share: usize| {
                let place = times.len().saturating_sub(1) * share / 100;
                times.get(place).copied().unwrap_or_default().as_micros()
            };
            println!("{name:34} p50 {:6} us  p95 {:6} us", at(50), at(95));
        }
        println!("{} builds, {} log frames", self.whole.len(), self.logs);
    }
}

/// The master's end of the connection.
struct Line {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Line {
    fn accept(listener: &TcpListener) -> Result<Self, String> {
        let writer = accept(listener)?;
        let prepared = writer
            .set_nodelay(true)
            .and_then(|()| writer.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| writer.try_clone());
        let reader = BufReader::new(prepared.map_err(|error| error.to_string())?);
        let mut line = Self { reader, writer };
        line.expect("attach")?;
        line.send(&MasterFrame::Attached {
            proto: PROTO,
            incarnation: Incarnation(1),
            caps: vec![],
            heartbeat_s: 60,
            idle_heartbeat_s: None,
            lease_s: 0,
            window: WINDOW,
        })?;
        line.expect("inventory")?;
        let list = vec![BuilderEntry { builder: "a".into(), builddir: "a".into() }];
        line.send(&MasterFrame::Builders { list })?;
        line.expect("builder_ready")?;
        Ok(line)
    }

    fn send(&mut self, frame: &MasterFrame) -> Result<(), String> {
        self.writer.write_all(&encode(frame)).map_err(|error| error.to_string())
    }

    fn next(&mut self) -> Result<WorkerFrame, String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
        decode_worker(&line).map_err(|error| error.to_string())
    }

    fn expect(&mut self, kind: &str) -> Result<WorkerFrame, String> {
        let frame = self.next()?;
        if frame.kind() == kind {
            Ok(frame)
        } else {
            Err(format!("`{kind}` was expected, not {frame:?}"))
        }
    }

    fn build(&mut self, number: u64, line: Option<&str>, times: &mut Times) -> Result<(), String> {
        let (build, epoch) = (BuildId(number), Epoch(1));
        let begun = Instant::now();
        self.send(&MasterFrame::StartBuild {
            build,
            epoch,
            requests: vec![(RequestId(number), epoch)],
            builder: BuilderName::from("a"),
            builddir: "a".to_owned(),
            lease_s: None,
        })?;
        self.expect("build_accepted")?;
        times.accepted.push(begun.elapsed());
        let argv = line.is_none().then(|| vec!["true".to_owned()]);
        let args = ShellArgs { argv, shell: line.map(str::to_owned), ..ShellArgs::default() };
        let command = CommandId::for_step(build, 0);
        let ordered = Instant::now();
        let work = Work::Shell(args);
        self.send(&MasterFrame::StartCommand { build, epoch, command: command.clone(), work })?;
        self.expect("command_started")?;
        times.started.push(ordered.elapsed());
        loop {
            match self.next()? {
                WorkerFrame::Log(log) => {
                    times.logs += 1;
                    let bytes = log.text.map_or(0, |text| text.len());
                    let have = log.offset + bytes as u64;
                    let (command, log) = (command.clone(), STDIO.to_owned());
                    self.send(&MasterFrame::LogConfirm { build, command, log, have })?;
                }
                WorkerFrame::CommandFinished { .. } => break,
                other => return Err(format!("the end was expected, not {other:?}")),
            }
        }
        times.finished.push(ordered.elapsed());
        let told = Instant::now();
        self.send(&MasterFrame::BuildFinished { build, result: "success".to_owned() })?;
        self.send(&MasterFrame::Ping { id: PingToken(number) })?;
        self.expect("pong")?;
        times.free.push(told.elapsed());
        times.whole.push(begun.elapsed());
        Ok(())
    }
}
