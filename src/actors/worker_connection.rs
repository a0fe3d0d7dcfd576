//! The WorkerConnection actor: one accepted socket, from its first byte to its
//! end. It lets nobody in who does not prove to be a configured worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Recipient};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::codec::FramedRead;

use super::runtime::World;
use crate::core::ids::*;
use crate::messages::*;
use crate::protocol::json_v1::{
    DecodeError, FrameLines, LineError, LogData, MAX_LINE, MAX_LINE_BEFORE_ATTACH, MasterFrame,
    PROTO, WireError, WorkerFrame, decode_worker,
};
use crate::store::logs::Piece;

/// Silence of this many heartbeats ends a connection.
const DEAD_AFTER: u32 = 3;
/// Lines of unknown types that a connection may send in a minute.
const UNKNOWN_LIMIT: u32 = 100;

/// Makes connections out of accepted sockets.
#[derive(Clone)]
pub struct Greeter {
    /// The doors to the world.
    pub world: World,
    /// Who knows the workers.
    pub master: Recipient<Introduce>,
    sessions: Arc<AtomicU64>,
}

impl Greeter {
    /// A greeter.
    #[must_use]
    pub fn new(world: World, master: Recipient<Introduce>) -> Self {
        Self { world, master, sessions: Arc::new(AtomicU64::new(1)) }
    }

    /// Takes care of an accepted socket from now on.
    pub fn greet<S>(&self, stream: S, address: String)
    where
        S: AsyncRead + AsyncWrite + 'static,
    {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (link, lines) = WorkerLink::new(session);
        link.heard_at(self.world.clock.now().mono);
        let connection = WorkerConnection {
            world: self.world.clone(),
            master: self.master.clone(),
            link: link.clone(),
            address,
            worker: None,
        }
        .start();
        let (reader, writer) = tokio::io::split(stream);
        actix_rt::spawn(write_lines(writer, lines, link.clone()));
        actix_rt::spawn(read_lines(reader, link, connection, self.world.clone()));
    }
}

/// One accepted socket.
pub struct WorkerConnection {
    world: World,
    master: Recipient<Introduce>,
    link: WorkerLink,
    address: String,
    worker: Option<Arc<WorkerHandle>>,
}

/// A frame that is not text of a log.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Arrived(WorkerFrame);

/// The socket came to its end.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Ended(String);

impl Actor for WorkerConnection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(self.world.timers.handshake, |connection, _| {
            if connection.worker.is_none() {
                connection.reject(&Rejection {
                    code: "auth",
                    message: "no attach frame in time".into(),
                    retry_after_s: Some(30),
                });
            }
        });
        let heartbeat = self.world.timers.heartbeat;
        ctx.run_interval(heartbeat, move |connection, _| {
            let silent = connection.world.clock.now().mono.since(connection.link.last_heard());
            if silent >= heartbeat * DEAD_AFTER && !connection.link.is_held() {
                connection.link.close("nothing was heard of it");
            }
        });
    }
}

impl WorkerConnection {
    fn reject(&self, rejection: &Rejection) {
        tracing::warn!(address = %self.address, code = rejection.code, reason = %rejection.message, "worker turned away");
        self.world.board.count_ignored("worker turned away");
        self.link.send(&MasterFrame::Rejected {
            code: rejection.code.into(),
            message: rejection.message.clone(),
            retry_after_s: rejection.retry_after_s,
        });
        self.link.close(&rejection.message);
    }
}

impl Handler<Arrived> for WorkerConnection {
    type Result = actix::ResponseActFuture<Self, ()>;

    /// The reader waits for this answer before it reads on, so a worker that
    /// floods waits in its own socket.
    fn handle(&mut self, message: Arrived, _: &mut Context<Self>) -> Self::Result {
        use actix::fut::{ActorFutureExt, ready, wrap_future};
        if let Some(worker) = &self.worker {
            worker.frame.do_send(FrameArrived { session: self.link.session, frame: message.0 });
            return Box::pin(ready(()));
        }
        let WorkerFrame::Attach(attach) = message.0 else {
            self.reject(&Rejection {
                code: "auth",
                message: "the first frame must be `attach`".into(),
                retry_after_s: None,
            });
            return Box::pin(ready(()));
        };
        if !attach.proto.contains(&PROTO) {
            self.reject(&Rejection {
                code: "version",
                message: format!(
                    "this master speaks protocol {PROTO}, the worker {:?}; upgrade the older one",
                    attach.proto
                ),
                retry_after_s: None,
            });
            return Box::pin(ready(()));
        }
        let ask = Introduce { name: attach.name.clone(), token: attach.token.clone() };
        let asked = wrap_future::<_, Self>(self.master.send(ask));
        Box::pin(asked.map(move |answer, connection, _| match answer {
            Ok(Ok(worker)) => {
                let mut attach = Box::new(attach);
                attach.token.clear();
                worker.hello.do_send(Hello {
                    attach,
                    link: connection.link.clone(),
                    address: connection.address.clone(),
                });
                connection.worker = Some(worker);
            }
            Ok(Err(rejection)) => connection.reject(&rejection),
            Err(_) => connection.link.close("the master is stopping"),
        }))
    }
}

impl Handler<Ended> for WorkerConnection {
    type Result = ();
    fn handle(&mut self, message: Ended, ctx: &mut Context<Self>) {
        let reason = self.link.closed().unwrap_or(message.0);
        if let Some(worker) = &self.worker {
            worker.lost.do_send(ConnectionLost { session: self.link.session, reason });
        }
        ctx.stop();
    }
}

async fn write_lines<W: AsyncWrite>(
    writer: W,
    mut lines: mpsc::Receiver<Vec<u8>>,
    link: WorkerLink,
) {
    let mut writer = std::pin::pin!(writer);
    let mut batch = Vec::new();
    loop {
        let first = tokio::select! {
            biased;
            line = lines.recv() => line,
            () = link.wait_closed() => None,
        };
        let Some(first) = first else { break };
        batch.extend_from_slice(&first);
        while batch.len() < 64 * 1024
            && let Ok(line) = lines.try_recv()
        {
            batch.extend_from_slice(&line);
        }
        let written = tokio::select! {
            biased;
            written = writer.write_all(&batch) => written,
            () = closed_for_good(&link) => break,
        };
        if written.is_err() {
            break;
        }
        batch.clear();
    }
    // What was said last, such as why the worker is turned away.
    while let Ok(line) = lines.try_recv() {
        batch.extend_from_slice(&line);
    }
    let goodbye = async {
        let _ = writer.write_all(&batch).await;
        let _ = writer.shutdown().await;
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), goodbye).await;
    link.close("the connection could not be written");
}

/// A peer that does not read must not hold a closed connection for ever.
async fn closed_for_good(link: &WorkerLink) {
    link.wait_closed().await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
}

async fn read_lines<R: AsyncRead>(
    reader: R,
    link: WorkerLink,
    connection: Addr<WorkerConnection>,
    world: World,
) {
    let reader = Box::pin(reader);
    let mut frames = FramedRead::new(reader, FrameLines::new(MAX_LINE_BEFORE_ATTACH));
    let mut attached = false;
    let mut unknown = (0, world.clock.now().mono);
    let reason = loop {
        let line = tokio::select! {
            biased;
            line = frames.next() => line,
            () = link.wait_closed() => break "closed by the master".to_owned(),
        };
        let line = match line {
            None => break "the worker closed the connection".to_owned(),
            Some(Ok(line)) => line,
            Some(Err(error)) => {
                if matches!(error, LineError::TooLong(_)) {
                    complain(&link, "too_long", &error.to_string());
                }
                break error.to_string();
            }
        };
        link.heard_at(world.clock.now().mono);
        match decode_worker(&line) {
            Ok(WorkerFrame::Log(data)) if attached => match route_of(&data, &link) {
                Some(log) => {
                    if let Err(reason) = take_log(data, log, &link, &world).await {
                        break reason;
                    }
                }
                // Late, or none of its business: the Worker knows which.
                None => {
                    let bare = LogData { text: Some(String::new()), b64: None, ..data };
                    let frame = Arrived(WorkerFrame::Log(bare));
                    if connection.send(frame).await.is_err() {
                        break "the master is stopping".into();
                    }
                }
            },
            Ok(frame) => {
                if connection.send(Arrived(frame)).await.is_err() {
                    break "the master is stopping".into();
                }
                if !attached {
                    attached = true;
                    frames.decoder_mut().set_max(MAX_LINE);
                }
            }
            Err(error) => {
                world.board.count_ignored("malformed frame");
                complain(&link, error.code(), &error.to_string());
                let now = world.clock.now().mono;
                if now.since(unknown.1) > std::time::Duration::from_secs(60) {
                    unknown = (0, now);
                }
                unknown.0 += u32::from(matches!(error, DecodeError::UnknownType(_)));
                if error.is_fatal() || !attached || unknown.0 > UNKNOWN_LIMIT {
                    break error.to_string();
                }
            }
        }
    };
    link.close(&reason);
    connection.do_send(Ended(reason));
}

fn complain(link: &WorkerLink, code: &str, message: &str) {
    link.send(&MasterFrame::Error(WireError { code: code.into(), message: message.into() }));
}

/// Where this text goes, if its command may write there.
fn route_of(data: &LogData, link: &WorkerLink) -> Option<LogId> {
    let route = link.logs().find(&data.command, link.last_heard())?;
    (route.build == data.build && route.name == data.log).then_some(route.log)
}

/// Text goes straight to the log store: no mailbox could hold it back.
async fn take_log(
    data: LogData,
    log: LogId,
    link: &WorkerLink,
    world: &World,
) -> Result<(), String> {
    let bytes = match (data.text, data.b64) {
        (Some(text), None) => Bytes::from(text.into_bytes()),
        (None, Some(b64)) => match base64::engine::general_purpose::STANDARD.decode(b64) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                complain(link, "malformed", "`b64` is no base64");
                return Err(format!("log text is no base64: {error}"));
            }
        },
        _ => return Ok(()),
    };
    let room = u32::try_from(bytes.len()).unwrap_or(u32::MAX).max(1);
    // While the disk does not keep up it is we who do not listen.
    link.hold(true);
    let permit = world.logs.budget().acquire_many_owned(room).await.ok();
    link.hold(false);
    link.heard_at(world.clock.now().mono);
    world.logs.append(Piece {
        log,
        channel: data.ch as u8,
        offset: Some(data.offset),
        bytes,
        at_ms: data.at,
        confirm: Some(Arc::new(link.clone())),
        permit,
    });
    Ok(())
}
