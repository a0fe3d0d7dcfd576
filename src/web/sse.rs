//! Server-sent events: each connection is one listener of the stream, with
//! subscriptions of its own.
//!
//! A client that comes back with the number of its last event (`Last-Event-ID`)
//! gets what it missed; when that is not kept any more it hears of the gap, and
//! reads what it shows from the API again. It learns that number from its start
//! on, also while nothing happens that it listens to: a block with an `id` alone
//! is no event, and clients remember it.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use uuid::Uuid;

use super::context::WebContext;
use super::event_keys::{self, Around, Pattern};
use super::query::percent_decoded;
use crate::events::{Event, LISTENER_LIMIT};

/// The most streams at once.
pub const MAX_STREAMS: usize = 500;

/// The most subscriptions of one stream.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// The most events in one write.
const BATCH: usize = 256;

/// Sign of life on a stream where nothing happens, so that proxies keep it
/// open and a client that has gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Subscriptions = Arc<Mutex<Vec<Pattern>>>;

/// The streams that are open now. Clones share them.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<HashMap<Uuid, Subscriptions>>>);

impl Streams {
    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        locked(&self.0).len()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One open stream; leaves the list when it is dropped.
struct Stream {
    id: Uuid,
    streams: Streams,
    patterns: Subscriptions,
    events: Receiver<Arc<Event>>,
    context: Data<WebContext>,
    greeting: Option<Bytes>,
    /// The last event that was looked at.
    last: Option<u64>,
    /// An event of which the client had so many frames before it came back.
    told_already: Option<(u64, usize)>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        locked(&self.streams.0).remove(&self.id);
    }
}

fn refused(status: StatusCode, text: &str) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"))
        .body(format!("{text}\n"))
}

/// Decoded elements of a subscription's path.
fn pattern(path: &str) -> Option<Pattern> {
    let decoded: Option<Vec<String>> =
        path.split('/').map(|part| percent_decoded(part, false)).collect();
    Pattern::of(&decoded?)
}

/// Serves everything below `/sse`.
pub async fn serve(request: HttpRequest, context: Data<WebContext>) -> HttpResponse {
    let origin = match super::check_origin(&request) {
        Ok(origin) => origin,
        Err(error) => return error.response(),
    };
    let mut response = answer(&request, &context);
    if let Some(origin) = origin {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

fn answer(request: &HttpRequest, context: &Data<WebContext>) -> HttpResponse {
    let tail = request.path().trim_start_matches("/sse").trim_start_matches('/').to_owned();
    let (word, rest) = tail.split_once('/').unwrap_or((tail.as_str(), ""));
    match word {
        "" | "listen" => listen(context, rest, last_event(request)),
        "add" | "remove" => change(context, word == "add", rest),
        _ => refused(StatusCode::NOT_FOUND, "use /sse/listen, /sse/add or /sse/remove"),
    }
}

/// What the client had last: everything of one event, or only the first of
/// several frames of the next one, which match several subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Had {
    /// The last event that it had all frames of.
    whole: u64,
    /// Frames that it had of the event after that.
    part: usize,
}

impl Had {
    /// From an event's `id`: `17`, or `17.1` for the first frame of event 17.
    fn read(text: &str) -> Option<Self> {
        match text.trim().split_once('.') {
            None => Some(Self { whole: text.trim().parse().ok()?, part: 0 }),
            Some((event, part)) => {
                let event: u64 = event.parse().ok()?;
                Some(Self { whole: event.checked_sub(1)?, part: part.parse().ok()? })
            }
        }
    }
}

/// What the client had last; none when it comes for the first time.
fn last_event(request: &HttpRequest) -> Option<Had> {
    Had::read(request.headers().get("last-event-id")?.to_str().ok()?)
}

fn listen(context: &Data<WebContext>, path: &str, had: Option<Had>) -> HttpResponse {
    let last = had.map(|had| had.whole);
    let mut first = Vec::new();
    if !path.is_empty() {
        match pattern(path) {
            Some(pattern) => first.push(pattern),
            None => return refused(StatusCode::BAD_REQUEST, "bad path"),
        }
    }
    let id = Uuid::now_v7();
    let patterns: Subscriptions = Arc::new(Mutex::new(first));
    {
        let mut open = locked(&context.state.streams.0);
        if open.len() >= MAX_STREAMS {
            let text = "too many event streams are open; close some and try again";
            return refused(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        open.insert(id, patterns.clone());
    }
    let mut greeting = format!("event: handshake\ndata: {id}\n\n");
    // What was missed can only be told to subscriptions that there are already.
    let missed = last.and_then(|last| context.events.listen_after(last));
    // Looked at before it listens: an event in between is told twice at worst,
    // to a client that is cut off before it hears of it.
    let before = context.events.next_seq().saturating_sub(1);
    let mut stands = last;
    let events = match (last, missed) {
        (Some(_), Some(events)) if !path.is_empty() => events,
        (Some(last), _) => {
            let events = context.events.listen();
            let next = context.events.next_seq();
            stands = Some(next.saturating_sub(1)).filter(|_| !path.is_empty());
            let _ =
                write!(greeting, "event: gap\ndata: {{\"last\": {last}, \"next\": {next}}}\n\n");
            events
        }
        (None, _) if !path.is_empty() => {
            let _ = write!(greeting, "id: {before}\n\n");
            stands = Some(before);
            context.events.listen()
        }
        (None, _) => context.events.listen(),
    };
    let stream = Stream {
        id,
        streams: context.state.streams.clone(),
        patterns,
        events,
        context: context.clone(),
        greeting: Some(Bytes::from(greeting)),
        last: stands,
        told_already: had.filter(|had| had.part > 0).map(|had| (had.whole + 1, had.part)),
    };
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .streaming(stream::unfold(Some(stream), |stream| async move {
            let mut stream = stream?;
            let (bytes, more) = stream.next().await;
            Some((Ok::<_, std::convert::Infallible>(bytes), more.then_some(stream)))
        }))
}

fn change(context: &WebContext, add: bool, rest: &str) -> HttpResponse {
    let (id, path) = rest.split_once('/').unwrap_or((rest, ""));
    if id.is_empty() {
        return refused(StatusCode::BAD_REQUEST, "need uuid");
    }
    let found =
        Uuid::parse_str(id).ok().and_then(|id| locked(&context.state.streams.0).get(&id).cloned());
    let Some(patterns) = found else {
        return refused(StatusCode::BAD_REQUEST, "unknown uuid");
    };
    let Some(pattern) = pattern(path) else {
        return refused(StatusCode::BAD_REQUEST, "bad path");
    };
    let mut patterns = locked(&patterns);
    let known = patterns.iter().position(|own| *own == pattern);
    match (add, known) {
        (true, None) if patterns.len() >= MAX_SUBSCRIPTIONS => {
            return refused(StatusCode::BAD_REQUEST, "too many subscriptions on this stream");
        }
        (true, None) => patterns.push(pattern),
        (true, Some(_)) => {}
        (false, Some(at)) => {
            patterns.swap_remove(at);
        }
        (false, None) => {
            return refused(StatusCode::NOT_FOUND, "consumer is not listening to this event");
        }
    }
    refused(StatusCode::OK, "ok")
}

impl Stream {
    /// The next bytes to send, and whether more will follow.
    async fn next(&mut self) -> (Bytes, bool) {
        if let Some(greeting) = self.greeting.take() {
            return (greeting, true);
        }
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            match timeout(KEEP_ALIVE, self.events.recv_many(&mut batch, BATCH)).await {
                // Whatever it was told of so far, it has.
                Err(_) => {
                    let sign = match self.last {
                        Some(last) => Bytes::from(format!("id: {last}\n\n")),
                        None => Bytes::from_static(b": keep-alive\n\n"),
                    };
                    return (sign, true);
                }
                Ok(0) => {
                    let last = self.last.map_or_else(|| "none".into(), |last| last.to_string());
                    let text = format!(
                        ": this stream ends: its listener fell more than {LISTENER_LIMIT} events \
                         behind; its last one was {last}: connect again with that as \
                         Last-Event-ID\n\n"
                    );
                    return (Bytes::from(text), false);
                }
                Ok(_) => self.last = batch.last().map(|event| event.seq).or(self.last),
            }
            let text = self.rendered(&batch).await;
            if !text.is_empty() {
                return (Bytes::from(text), true);
            }
            batch.clear();
        }
    }

    async fn rendered(&self, batch: &[Arc<Event>]) -> String {
        let patterns = locked(&self.patterns).clone();
        let mut text = String::new();
        if patterns.is_empty() {
            return text;
        }
        let around = Around::of(&self.context, &patterns, batch).await;
        for event in batch {
            let mut frames = Vec::new();
            event_keys::matching(&event.change, &patterns, &around, |key, name, message| {
                let mut frame = String::from("event: event\ndata: {\"key\": ");
                event_keys::write_key(&mut frame, key, name);
                // Writing to a string cannot fail.
                let _ = write!(frame, ", \"message\": {message}}}\n\n");
                frames.push(frame);
            });
            let seq = event.seq;
            let had = self.told_already.filter(|(event, _)| *event == seq);
            let had = had.map_or(0, |(_, frames)| frames);
            let all = frames.len();
            for (number, frame) in (1..).zip(frames).skip(had) {
                // A client that is cut off between two frames of one event
                // must not believe that it had them all.
                let _ = if number == all {
                    write!(text, "id: {seq}\n{frame}")
                } else {
                    write!(text, "id: {seq}.{number}\n{frame}")
                };
            }
        }
        text
    }
}
