//! Reads an event stream (server-sent events) on a thread of its own, so that
//! each event has the moment at which it arrived.

use std::io::{BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{self, Head};

/// Longest silence on a stream before it counts as broken.
const SILENCE_LIMIT: Duration = Duration::from_secs(900);

/// How long the first event may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(60);

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its kind: `handshake`, `event`.
    pub kind: String,
    /// Its data, several lines joined.
    pub data: String,
}

/// Puts events together from pieces of text, wherever the pieces are cut.
#[derive(Default, Debug)]
pub struct Parser {
    line: Vec<u8>,
    kind: String,
    data: Vec<String>,
}

impl Parser {
    /// Takes a piece and gives the events that are complete now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in piece {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            events.extend(self.end_line(line.strip_suffix('\r').unwrap_or(&line)));
        }
        events
    }

    fn end_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then(|| Event { kind, data: data.join("\n") });
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.kind),
            "data" => self.data.push(value.to_owned()),
            // Comments, ids, retry times.
            _ => {}
        }
        None
    }
}

/// A subscription. Ends with its value.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    events: Receiver<(Instant, Event)>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// Subscribes, and waits until the subscription is in force.
    ///
    /// # Errors
    /// When the address does not answer with an event stream.
    pub fn open(address: SocketAddr, path: &str) -> Result<Self, String> {
        let socket = http::connect(address, SILENCE_LIMIT)?;
        let mut copy = socket.try_clone().map_err(|error| error.to_string())?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
        std::io::Write::write_all(&mut copy, request.as_bytes())
            .map_err(|error| format!("GET {path}: {error}"))?;
        let mut reader = BufReader::with_capacity(64 * 1024, copy);
        let head = Head::read(&mut reader).map_err(|error| format!("GET {path}: {error}"))?;
        if head.status != 200 {
            return Err(format!("GET {path}: status {}", head.status));
        }
        let (sender, events) = channel();
        let thread = std::thread::spawn(move || read_all(reader, head.chunked, &sender));
        let stream = Self { socket, events, thread: Some(thread) };
        match stream.next(Instant::now() + HANDSHAKE_LIMIT)? {
            Some((_, event)) if event.kind == "handshake" => Ok(stream),
            Some((_, event)) => Err(format!("{path}: `{}` came before the handshake", event.kind)),
            None => Err(format!("{path}: no handshake")),
        }
    }

    /// The next event with the moment of its arrival; none when the deadline
    /// comes first.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn next(&self, deadline: Instant) -> Result<Option<(Instant, Event)>, String> {
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("the event stream has ended".to_owned()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Ends the thread's read.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_all(mut reader: BufReader<TcpStream>, chunked: bool, sender: &Sender<(Instant, Event)>) {
    let mut parser = Parser::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let events = if chunked {
            match http::read_chunk(&mut reader) {
                Ok(Some(chunk)) => parser.push(&chunk),
                Ok(None) | Err(_) => return,
            }
        } else {
            match reader.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => parser.push(buffer.get(..length).unwrap_or_default()),
            }
        };
        let now = Instant::now();
        for event in events {
            if sender.send((now, event)).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::net::TcpListener;

    use super::*;

    const TEXT: &str = "event: handshake\ndata: 00-1\n\n: a comment\nid: 7\r\nevent: event\r\n\
                        data: {\"key\":\ndata:[\u{e9}]}\r\n\r\nevent: empty\n\nevent: cut\ndata: x\n";

    fn expected() -> Vec<Event> {
        let event = |kind: &str, data: &str| Event { kind: kind.into(), data: data.into() };
        vec![event("handshake", "00-1"), event("event", "{\"key\":\n[\u{e9}]}")]
    }

    #[test]
    fn events_are_the_same_wherever_the_text_is_cut() {
        for size in 1..TEXT.len() {
            let mut parser = Parser::default();
            let found: Vec<Event> =
                TEXT.as_bytes().chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(found, expected(), "pieces of {size}");
        }
    }

    /// Takes a connection and reads its request: closed with something unread,
    /// it would be reset, and the answer could be lost.
    fn accept(listener: &TcpListener) -> TcpStream {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut reader = BufReader::new(socket);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0);
        }
        reader.into_inner()
    }

    #[test]
    fn a_stream_is_read_with_and_without_chunks() {
        for chunked in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let mut socket = accept(&listener);
                let encoding = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
                write!(socket, "HTTP/1.1 200 OK\r\n{encoding}\r\n").unwrap();
                for piece in TEXT.as_bytes().chunks(11) {
                    if chunked {
                        write!(socket, "{:x}\r\n", piece.len()).unwrap();
                    }
                    socket.write_all(piece).unwrap();
                    if chunked {
                        socket.write_all(b"\r\n").unwrap();
                    }
                }
            });
            let stream = Stream::open(address, "/sse/listen/x").unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let (_, event) = stream.next(deadline).unwrap().unwrap();
            assert_eq!(Some(&event), expected().last());
            server.join().unwrap();
            assert!(stream.next(deadline).unwrap_err().contains("has ended"));
        }
    }

    #[test]
    fn what_is_no_event_stream_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut socket = accept(&listener);
            socket.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
        });
        assert_eq!(Stream::open(address, "/sse").unwrap_err(), "GET /sse: status 404");
        server.join().unwrap();
    }
}
