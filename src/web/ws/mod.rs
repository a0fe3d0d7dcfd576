//! The event stream over WebSockets, as Buildbot's own pages want it: one
//! socket, any number of subscriptions, each answered before its first event.
//!
//! A reader that does not keep up is closed with a reason; one that reads
//! nothing at all is cut off after [`SEND_LIMIT`]. The memory of a socket is
//! bounded by its queue of events, which it shares with nobody, and by 32
//! frames on their way.

mod command;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, UPGRADE};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actix_ws::{
    AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, ProtocolError, Session,
};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use self::command::{Asked, Command, Refused};
use super::context::WebContext;
use super::event_keys::{self, Around, Pattern};
use crate::core::ids::LogId;
use crate::events::{Event, LISTENER_LIMIT};
use crate::store::Change;

/// The most sockets at once.
pub const MAX_SOCKETS: usize = 500;
/// The most subscriptions of one socket.
const MAX_SUBSCRIPTIONS: usize = 1000;
/// The most bytes of one message of a client.
const MAX_MESSAGE: usize = 64 * 1024;
/// The most events that are rendered at once.
const BATCH: usize = 256;
/// How often a client is asked for a sign of life. Proxies close what is
/// silent for a minute, and the stock pages never connect again.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A client that says nothing for so long, not even to a ping, has gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(95);
/// How long one frame may wait until the client reads.
const SEND_LIMIT: Duration = Duration::from_secs(20);

/// How many sockets are open. Clones share it.
#[derive(Clone)]
pub struct Sockets {
    open: Arc<AtomicUsize>,
    send_limit: Duration,
}

impl Default for Sockets {
    fn default() -> Self {
        Self::cutting_off_after(SEND_LIMIT)
    }
}

/// A place among the open sockets; free again when it is dropped.
struct Place(Arc<AtomicUsize>);

impl Sockets {
    fn enter(&self) -> Option<Place> {
        let place = Place(self.open.clone());
        (self.open.fetch_add(1, Ordering::Relaxed) < MAX_SOCKETS).then_some(place)
    }

    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// None yet; one frame may wait for so long until the client reads.
    pub(super) fn cutting_off_after(send_limit: Duration) -> Self {
        Self { open: Arc::default(), send_limit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn refused(status: StatusCode, text: &str) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
        .body(format!("{text}\n"))
}

/// Serves `/ws` and everything below it.
pub async fn serve(
    request: HttpRequest,
    payload: Payload,
    context: Data<WebContext>,
) -> HttpResponse {
    if !request.headers().contains_key(UPGRADE) {
        let mut response =
            refused(StatusCode::UPGRADE_REQUIRED, "this address speaks WebSocket: ws://…/ws");
        let value = actix_web::http::header::HeaderValue::from_static("websocket");
        response.headers_mut().insert(UPGRADE, value);
        return response;
    }
    if let Err(error) = super::check_origin(&request) {
        return error.response();
    }
    let Some(place) = context.state.sockets.enter() else {
        let text = "too many event sockets are open; close some and try again";
        return refused(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let (response, session, stream) = match actix_ws::handle(&request, payload) {
        Ok(parts) => parts,
        Err(error) => return error.error_response(),
    };
    let socket = Socket {
        session,
        events: context.events.listen(),
        patterns: Vec::new(),
        context: context.clone(),
        send_limit: context.state.sockets.send_limit,
        _place: place,
    };
    let stream = stream
        .max_frame_size(MAX_MESSAGE)
        .aggregate_continuations()
        .max_continuation_size(MAX_MESSAGE);
    actix_web::rt::spawn(socket.run(stream));
    response
}

/// Why a conversation ends.
enum End {
    /// The client has gone, or said goodbye.
    Left,
    /// It reads nothing.
    Stuck,
    /// With this reason.
    Closed(CloseCode, String),
}

struct Socket {
    session: Session,
    events: Receiver<Arc<Event>>,
    patterns: Vec<Pattern>,
    context: Data<WebContext>,
    send_limit: Duration,
    _place: Place,
}

impl Socket {
    async fn run(mut self, mut stream: AggregatedMessageStream) {
        let end = match self.converse(&mut stream).await {
            Ok(()) => return,
            Err(end) => end,
        };
        let reason = match end {
            End::Left => None,
            End::Stuck => {
                // Nothing can be said to somebody who does not listen.
                tracing::info!(limit = ?self.send_limit, "an event socket is cut off: its client does not read");
                return;
            }
            End::Closed(code, text) => {
                tracing::info!(reason = %text, "an event socket is closed");
                Some(CloseReason { code, description: Some(text) })
            }
        };
        // It ends either way.
        let _ = timeout(self.send_limit, self.session.close(reason)).await;
    }

    async fn converse(&mut self, stream: &mut AggregatedMessageStream) -> Result<(), End> {
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                message = stream.recv() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => self.hear(message).await?,
                        // The connection broke off, which pages do when they are left.
                        Some(Err(ProtocolError::Io(_))) | None => return Err(End::Left),
                        Some(Err(error)) => {
                            let text = format!("a frame cannot be read: {error}");
                            return Err(End::Closed(CloseCode::Protocol, text));
                        }
                    }
                }
                count = self.events.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        let text = format!(
                            "fell more than {LISTENER_LIMIT} events behind; connect again and \
                             read the state anew"
                        );
                        return Err(End::Closed(CloseCode::Policy, text));
                    }
                    self.tell(&batch).await?;
                    batch.clear();
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE_LIMIT {
                        let text = "no sign of life to several pings".to_owned();
                        return Err(End::Closed(CloseCode::Policy, text));
                    }
                    limited(self.send_limit, self.session.ping(b"")).await?;
                }
            }
        }
    }

    async fn hear(&mut self, message: AggregatedMessage) -> Result<(), End> {
        match message {
            AggregatedMessage::Text(text) => self.obey(&text).await,
            AggregatedMessage::Ping(bytes) => {
                limited(self.send_limit, self.session.pong(&bytes)).await
            }
            AggregatedMessage::Pong(_) => Ok(()),
            AggregatedMessage::Binary(_) => {
                Err(End::Closed(CloseCode::Unsupported, "only text frames are understood".into()))
            }
            AggregatedMessage::Close(_) => Err(End::Left),
        }
    }

    async fn obey(&mut self, text: &str) -> Result<(), End> {
        let Asked { id, command } = match command::read(text) {
            Ok(asked) => asked,
            Err(Refused::Answered(answer)) => return self.say(answer).await,
            Err(Refused::NotJson) => {
                return Err(End::Closed(CloseCode::Invalid, "a frame is no JSON".into()));
            }
            Err(Refused::NotAnObject) => {
                return Err(End::Closed(CloseCode::Unsupported, "a frame is no object".into()));
            }
        };
        let answer = match command {
            Command::Ping => command::done(&id, "pong"),
            Command::Start(path) => {
                // What is older than the subscription is not for it: the client
                // reads a snapshot after the answer, and must not be told what
                // came before that.
                self.tell_waiting().await?;
                match self.subscribe(&path) {
                    Ok(()) => command::done(&id, "OK"),
                    Err(error) => command::failed(&id, 400, &error),
                }
            }
            Command::Stop(path) => {
                let known = pattern(&path)
                    .and_then(|gone| self.patterns.iter().position(|own| *own == gone));
                match known {
                    Some(at) => {
                        self.patterns.remove(at);
                        command::done(&id, "OK")
                    }
                    None => command::failed(&id, 400, &format!("path was not consumed '{path}'")),
                }
            }
        };
        self.say(answer).await
    }

    fn subscribe(&mut self, path: &str) -> Result<(), String> {
        let Some(pattern) = pattern(path) else {
            return Err("invalid path format: it has too many elements".into());
        };
        if self.patterns.contains(&pattern) {
            return Ok(());
        }
        if self.patterns.len() >= MAX_SUBSCRIPTIONS {
            return Err(format!("a socket has at most {MAX_SUBSCRIPTIONS} subscriptions"));
        }
        self.patterns.push(pattern);
        Ok(())
    }

    async fn tell_waiting(&mut self) -> Result<(), End> {
        let mut waiting = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            waiting.push(event);
        }
        self.tell(&waiting).await
    }

    async fn tell(&mut self, batch: &[Arc<Event>]) -> Result<(), End> {
        if self.patterns.is_empty() {
            return Ok(());
        }
        let around = Around::of(&self.context, &self.patterns, batch).await;
        for event in newest(batch) {
            let mut frames = Vec::new();
            let seq = event.seq;
            event_keys::matching(&event.change, &self.patterns, &around, |key, name, message| {
                let mut frame = String::with_capacity(message.len() + 64);
                frame.push_str("{\"k\":");
                event_keys::write_path(&mut frame, key, name);
                frame.push_str(",\"m\":");
                frame.push_str(message);
                frame.push_str(",\"seq\":");
                frame.push_str(&seq.to_string());
                frame.push('}');
                frames.push(frame);
            });
            for frame in frames {
                self.say(frame).await?;
            }
        }
        Ok(())
    }

    async fn say(&mut self, text: String) -> Result<(), End> {
        limited(self.send_limit, self.session.text(text)).await
    }
}

/// Waits until a frame is on its way, but not for ever.
async fn limited(
    limit: Duration,
    sent: impl Future<Output = Result<(), actix_ws::Closed>>,
) -> Result<(), End> {
    match timeout(limit, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Left),
        Err(_) => Err(End::Stuck),
    }
}

fn pattern(path: &str) -> Option<Pattern> {
    let elements: Vec<String> = path.split('/').map(str::to_owned).collect();
    Pattern::of(&elements)
}

/// A batch without the appends to a log that has a newer one in it: only the
/// newest number of lines is of use.
fn newest(batch: &[Arc<Event>]) -> impl Iterator<Item = &Arc<Event>> {
    let mut seen: BTreeSet<LogId> = BTreeSet::new();
    let mut kept: Vec<&Arc<Event>> = batch
        .iter()
        .rev()
        .filter(|event| match &event.change {
            Change::LogAppend(row) => seen.insert(row.id),
            _ => true,
        })
        .collect();
    kept.reverse();
    kept.into_iter()
}
