//! A scripted master on loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use botmaster::core::ids::*;
use botmaster::protocol::json_v1::*;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::FramedRead;

use crate::desk::bytes_of;
use crate::shop::PATIENCE;

pub struct Master {
    listener: TcpListener,
    window: u64,
    lease_s: u64,
}

/// One connection, seen from the master.
pub struct Session {
    reader: FramedRead<OwnedReadHalf, FrameLines>,
    writer: OwnedWriteHalf,
    pub attach: Attach,
    pub inventory: Vec<InventoryItem>,
}

impl Master {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, window: WINDOW, lease_s: 90 }
    }

    pub async fn with_window(window: u64) -> Self {
        Self { window, ..Self::new().await }
    }

    /// One whose system takes little that it has not read, as if the link were
    /// narrow.
    pub fn narrow() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { listener: socket.listen(16).unwrap(), window: WINDOW, lease_s: 90 }
    }

    pub async fn with_lease(lease_s: u64) -> Self {
        Self { lease_s, ..Self::new().await }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The next connection, before any answer to its attach.
    pub async fn accept(&self) -> Session {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted.expect("a connection in time").unwrap();
        let (from, writer) = stream.into_split();
        let reader = FramedRead::new(from, FrameLines::new(MAX_LINE));
        let attach = Attach {
            proto: vec![],
            name: "".into(),
            instance: String::new(),
            token: String::new(),
            version: String::new(),
            os: String::new(),
            arch: String::new(),
            slots: 0,
            caps: None,
            labels: BTreeMap::new(),
            info: BTreeMap::new(),
            requires: Vec::new(),
            clock: None,
        };
        let mut session = Session { reader, writer, attach, inventory: vec![] };
        let WorkerFrame::Attach(attach) = session.expect("attach").await else { panic!() };
        session.attach = attach;
        session
    }

    /// Accepts, attaches and takes the inventory.
    pub async fn attach(&self) -> Session {
        let mut session = self.accept().await;
        let attached = MasterFrame::Attached {
            proto: PROTO,
            incarnation: Incarnation(1),
            caps: vec![],
            heartbeat_s: 1,
            idle_heartbeat_s: None,
            lease_s: self.lease_s,
            window: self.window,
        };
        session.send(attached).await;
        let WorkerFrame::Inventory(inventory) = session.expect("inventory").await else { panic!() };
        session.inventory = inventory.builds;
        session
    }
}

impl Session {
    pub async fn send(&mut self, frame: MasterFrame) {
        self.writer.write_all(&encode(&frame)).await.unwrap();
    }

    pub async fn send_raw(&mut self, bytes: &[u8]) {
        // The worker may close before it has read all of a bad line.
        let _ = self.writer.write_all(bytes).await;
    }

    /// The next frame but heartbeats, which are confirmed; none at the end.
    pub async fn next(&mut self) -> Option<WorkerFrame> {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.reader.next()).await;
            let line = line.expect("a frame in time")?.ok()?;
            match decode_worker(&line).expect("a frame") {
                WorkerFrame::Heartbeat { seq, .. } => {
                    self.send(MasterFrame::Heartbeat { seq }).await;
                }
                frame => return Some(frame),
            }
        }
    }

    pub async fn expect(&mut self, kind: &str) -> WorkerFrame {
        let frame = self.next().await.expect("a frame before the end");
        assert_eq!(frame.kind(), kind, "{frame:?}");
        frame
    }

    /// Serves builder `a` and starts `build` of it.
    pub async fn start_build(&mut self, build: u64) {
        self.start_build_with(build, 1, None).await;
        self.expect("build_accepted").await;
    }

    /// The same with an epoch and a lease of its own, without waiting for the answer.
    pub async fn start_build_with(&mut self, build: u64, epoch: u64, lease_s: Option<u64>) {
        let builder = BuilderName::from("a");
        let list = vec![BuilderEntry { builder: builder.clone(), builddir: "a".into() }];
        self.send(MasterFrame::Builders { list }).await;
        self.expect("builder_ready").await;
        self.send(MasterFrame::StartBuild {
            build: BuildId(build),
            epoch: Epoch(epoch),
            requests: vec![(RequestId(1), Epoch(epoch))],
            builder,
            builddir: "a".into(),
            lease_s,
        })
        .await;
    }

    pub async fn command(&mut self, build: u64, work: Work) {
        self.send(MasterFrame::StartCommand {
            build: BuildId(build),
            epoch: Epoch(1),
            command: CommandId::for_step(BuildId(build), 0),
            work,
        })
        .await;
    }

    pub async fn confirm(&mut self, build: u64, have: u64) {
        self.send(MasterFrame::LogConfirm {
            build: BuildId(build),
            command: CommandId::for_step(BuildId(build), 0),
            log: STDIO.into(),
            have,
        })
        .await;
    }

    /// Takes in log frames, confirming each, until the log holds `enough`
    /// bytes or the command ends. Every frame has to follow exactly.
    pub async fn take_log(&mut self, log: &mut Vec<u8>, enough: usize) -> Option<WorkerFrame> {
        while log.len() < enough {
            match self.next().await.expect("a frame before the end") {
                WorkerFrame::Log(piece) => {
                    assert_eq!(piece.offset, log.len() as u64, "no byte missing or doubled");
                    log.extend(bytes_of(&piece));
                    self.confirm(piece.build.0, log.len() as u64).await;
                }
                frame => return Some(frame),
            }
        }
        None
    }

    /// Waits until the worker has closed the connection.
    pub async fn closed(mut self) {
        let end = tokio::time::timeout(Duration::from_secs(20), async {
            while self.next().await.is_some() {}
        });
        end.await.expect("the end of the connection");
    }
}
