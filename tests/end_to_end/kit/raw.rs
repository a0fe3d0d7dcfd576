//! A worker that says whatever a story wants.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use botmaster::core::ids::{BuildId, CommandId, Epoch, WorkerName};
use botmaster::protocol::json_v1::{
    Attach, Inventory, InventoryItem, LogData, MasterFrame, Outcome, PROTO, STDIO, Usage,
    WireError, WorkerFrame, decode_master, encode, encode_worker,
};

use super::Master;

/// A connection to the worker port.
pub struct RawWorker {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

/// A connection's heartbeats.
pub struct Beating(Arc<AtomicBool>);

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl RawWorker {
    pub fn dial(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    /// The same from another address of this machine.
    pub fn dial_from(address: SocketAddr, from: IpAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(SocketAddr::new(from, 0)).unwrap();
            socket.connect(address).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Self::on(stream)
    }

    /// One whose system takes little that it has not read.
    pub fn narrow(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(address).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Self::on(stream)
    }

    /// Says from now on that it is there, until what comes back is dropped.
    pub fn beats(&self) -> Beating {
        let over = Arc::new(AtomicBool::new(false));
        let (mut stream, stop) = (self.stream.try_clone().unwrap(), over.clone());
        std::thread::spawn(move || {
            for seq in 1.. {
                let frame = WorkerFrame::Heartbeat { seq, running: Vec::new() };
                if stop.load(Ordering::Relaxed) || stream.write_all(&encode(&frame)).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Beating(over)
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Self { stream, lines }
    }

    /// A worker that is attached and ready for all its builders.
    #[track_caller]
    pub fn attached(master: &Master<'_>, name: &str, builds: Vec<InventoryItem>) -> Self {
        let mut worker = Self::dial(master.listen);
        worker.say(&attach(name, &master.place.token(name)));
        match worker.hear() {
            Some(MasterFrame::Attached { .. }) => {}
            other => panic!("not attached: {other:?}"),
        }
        worker.say(&WorkerFrame::Inventory(Inventory { builds, more: false }));
        worker
    }

    /// Writes bytes as they are. The master may have closed meanwhile.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn say(&mut self, frame: &WorkerFrame) {
        self.send(&encode(frame));
    }

    /// The next frame; none when the master has closed the connection.
    #[track_caller]
    pub fn hear(&mut self) -> Option<MasterFrame> {
        let mut line = Vec::new();
        match self.lines.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(decode_master(line.strip_suffix(b"\n").unwrap_or(&line)).unwrap()),
            // It closed with some of our bytes unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("the master says nothing: {error}"),
        }
    }

    /// The next frame that is what the story waits for; pings are answered and
    /// builders made ready on the way.
    #[track_caller]
    pub fn hear_until<T>(&mut self, mut wanted: impl FnMut(&MasterFrame) -> Option<T>) -> T {
        loop {
            let Some(frame) = self.hear() else { panic!("the master closed the connection") };
            match &frame {
                MasterFrame::Ping { id } => self.say(&WorkerFrame::Pong { id: *id }),
                MasterFrame::Builders { list } => {
                    for entry in list.clone() {
                        self.say(&WorkerFrame::BuilderReady { builder: entry.builder });
                    }
                }
                _ => {}
            }
            if let Some(found) = wanted(&frame) {
                return found;
            }
        }
    }

    /// Waits until the master is done with this connection; the last complaint
    /// or rejection before that.
    #[track_caller]
    pub fn turned_away(&mut self) -> (String, String, Option<u64>) {
        let mut last = None;
        while let Some(frame) = self.hear() {
            match frame {
                MasterFrame::Rejected { code, message, retry_after_s } => {
                    last = Some((code, message, retry_after_s));
                }
                MasterFrame::Error(WireError { code, message }) => {
                    last = Some((code, message, None));
                }
                _ => {}
            }
        }
        last.expect("the master says why it closes the connection")
    }

    /// Takes the next build and its first command.
    #[track_caller]
    pub fn take_build(&mut self) -> (BuildId, Epoch, CommandId) {
        let (build, epoch) = self.take_start();
        self.say(&WorkerFrame::BuildAccepted { build, epoch });
        let command = self.next_command(build);
        (build, epoch, command)
    }

    /// Waits for the next start, which has no answer yet.
    #[track_caller]
    pub fn take_start(&mut self) -> (BuildId, Epoch) {
        self.hear_until(|frame| match frame {
            MasterFrame::StartBuild { build, epoch, .. } => Some((*build, *epoch)),
            _ => None,
        })
    }

    /// Begins the build's next command.
    #[track_caller]
    pub fn next_command(&mut self, build: BuildId) -> CommandId {
        let command = self.hear_until(|frame| match frame {
            MasterFrame::StartCommand { command, .. } => Some(command.clone()),
            _ => None,
        });
        self.say(&WorkerFrame::CommandStarted { build, command: command.clone() });
        command
    }

    /// Sends text of a log.
    pub fn log(&mut self, build: BuildId, command: &CommandId, offset: u64, text: &str) {
        self.say(&WorkerFrame::Log(LogData {
            build,
            command: command.clone(),
            log: STDIO.into(),
            ch: 'o',
            offset,
            text: Some(text.into()),
            b64: None,
            raw: None,
            body: Default::default(),
            at: 0,
        }));
    }

    /// The frame of a log's bytes as they are.
    #[must_use]
    pub fn as_it_is(build: BuildId, command: &CommandId, offset: u64, bytes: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let log = LogData {
            build,
            command: command.clone(),
            log: STDIO.into(),
            ch: 'o',
            offset,
            text: None,
            b64: None,
            raw: Some(bytes.len()),
            body: bytes.to_vec().into(),
            at: 0,
        };
        encode_worker(&WorkerFrame::Log(log), &mut frame);
        frame
    }

    /// Ends a command with exit code 0.
    pub fn finish(&mut self, build: BuildId, command: &CommandId, log_end: u64) {
        self.say(&finished(build, command, log_end));
    }
}

pub fn finished(build: BuildId, command: &CommandId, log_end: u64) -> WorkerFrame {
    WorkerFrame::CommandFinished {
        build,
        command: command.clone(),
        outcome: Outcome::Exit(0),
        usage: Usage::default(),
        log_end: BTreeMap::from([(STDIO.to_owned(), log_end)]),
        log_digest: BTreeMap::new(),
        properties: BTreeMap::new(),
        note: String::new(),
    }
}

/// An ordinary first frame.
pub fn attach(name: &str, token: &str) -> WorkerFrame {
    WorkerFrame::Attach(Attach {
        proto: vec![PROTO],
        name: WorkerName::from(name),
        instance: "raw".into(),
        token: token.into(),
        version: "0".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        slots: 1,
        caps: Some(vec!["shell/1".into()]),
        labels: BTreeMap::new(),
        info: BTreeMap::new(),
        requires: Vec::new(),
        clock: None,
    })
}
