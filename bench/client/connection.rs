//! One connection that is kept open: asks, and reads the answer to its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Longest line of a head.
const LINE: u64 = 64 * 1024;

/// An answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Length of its body.
    pub bytes: u64,
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Not all of it came in time.
    Hung,
    /// The connection broke, or it was no HTTP.
    Broken,
}

/// A connection, opened when it is needed.
pub struct Connection {
    address: SocketAddr,
    request: Vec<u8>,
    limit: Duration,
    stream: Option<BufReader<TcpStream>>,
    buffer: Vec<u8>,
}

impl Connection {
    /// A connection that asks for one path.
    #[must_use]
    pub fn new(address: SocketAddr, path: &str, limit: Duration) -> Self {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
        Self { address, request: request.into_bytes(), limit, stream: None, buffer: Vec::new() }
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// When it does not come; the next request has a new connection.
    pub fn ask(&mut self) -> Result<Answer, Failure> {
        let begin = Instant::now();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address, self.limit).map_err(|_| Failure::Broken)?,
        };
        let answer = exchange(&mut stream, &self.request, &mut self.buffer);
        if begin.elapsed() >= self.limit {
            return Err(Failure::Hung);
        }
        let (answer, close) = answer.map_err(|_| Failure::Broken)?;
        if !close {
            self.stream = Some(stream);
        }
        Ok(answer)
    }
}

fn connect(address: SocketAddr, limit: Duration) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT.min(limit))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(BufReader::with_capacity(64 * 1024, stream))
}

/// Sends the request and reads the answer; also whether the connection ends
/// with it.
fn exchange(
    stream: &mut BufReader<TcpStream>,
    request: &[u8],
    line: &mut Vec<u8>,
) -> std::io::Result<(Answer, bool)> {
    stream.get_mut().write_all(request)?;
    read_answer(stream, line)
}

fn read_answer(stream: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<(Answer, bool)> {
    let strange = || std::io::Error::other("not HTTP");
    read_line(stream, line)?;
    let mut words = line.split(|byte| *byte == b' ');
    let mut close = words.next().ok_or_else(strange)? == b"HTTP/1.0";
    let status = words.next().and_then(number).ok_or_else(strange)?;
    let (mut length, mut chunked) = (None, false);
    loop {
        read_line(stream, line)?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(strange)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            length = Some(number(value).ok_or_else(strange)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"connection") {
            close |= value.eq_ignore_ascii_case(b"close");
        }
    }
    let bytes = if chunked {
        skip_chunks(stream, line)?
    } else {
        skip(stream, length.ok_or_else(strange)?)?
    };
    Ok((Answer { status: u16::try_from(status).map_err(|_| strange())?, bytes }, close))
}

fn skip_chunks(stream: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<u64> {
    let mut bytes = 0;
    loop {
        read_line(stream, line)?;
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size.trim_ascii()).unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(std::io::Error::other)?;
        bytes += skip(stream, size)?;
        read_line(stream, line)?;
        if size == 0 {
            return Ok(bytes);
        }
    }
}

/// Reads so many bytes, and drops them.
fn skip(stream: &mut impl BufRead, length: u64) -> std::io::Result<u64> {
    let read = std::io::copy(&mut stream.take(length), &mut std::io::sink())?;
    if read < length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(read)
}

fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<()> {
    line.clear();
    stream.take(LINE).read_until(b'\n', line)?;
    if line.pop() != Some(b'\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn read(text: &str) -> std::io::Result<(Answer, bool)> {
        read_answer(&mut text.as_bytes(), &mut Vec::new())
    }

    #[test]
    fn answers_are_read_to_their_end() {
        let plain = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\nabc";
        assert_eq!(read(plain).unwrap(), (Answer { status: 200, bytes: 3 }, false));
        let chunked = "HTTP/1.1 500 no\r\ntransfer-encoding: Chunked\r\nConnection: close\r\n\r\n\
                       3;x\r\nabc\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap(), (Answer { status: 500, bytes: 3 }, true));
        assert!(read("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap().1);
        for cut in [plain, chunked] {
            for end in 0..cut.len() {
                assert!(read(&cut[..end]).is_err(), "{:?}", &cut[..end]);
            }
        }
        assert!(read("SSH-2.0-x\r\n").is_err());
        assert!(read("HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn a_silent_server_hangs_and_the_next_request_has_a_new_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (silent, _) = listener.accept().unwrap();
            let (mut next, _) = listener.accept().unwrap();
            next.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").unwrap();
            // Whoever has answered closes nothing before it was read.
            let mut rest = Vec::new();
            let _ = next.read_to_end(&mut rest);
            drop(silent);
            rest
        });
        let mut connection = Connection::new(address, "/a", Duration::from_millis(200));
        assert_eq!(connection.ask(), Err(Failure::Hung));
        connection.limit = Duration::from_secs(20);
        assert_eq!(connection.ask(), Ok(Answer { status: 200, bytes: 1 }));
        drop(connection);
        assert!(server.join().unwrap().starts_with(b"GET /a HTTP/1.1\r\n"));
    }
}
