//! A small HTTP/1.1 client for JSON on the loopback interface: one connection,
//! kept open, one request after the other, every wait with a limit.
//!
//! Deliberately absent: TLS, redirects, compression.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long one connection attempt may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A connection that was silent for longer is not used again: the server may be
/// about to close it, and what is not a question cannot be asked twice.
const KEPT: Duration = Duration::from_secs(2);

/// Largest answer that is read, in bytes.
const LARGEST: u64 = 256 * 1024 * 1024;

/// A client for one address.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    limit: Duration,
    stream: Option<BufReader<TcpStream>>,
    used: Instant,
    kept: Duration,
}

impl Client {
    /// A client whose answers may take as long as `limit`.
    #[must_use]
    pub fn new(address: SocketAddr, limit: Duration) -> Self {
        Self { address, limit, stream: None, used: Instant::now(), kept: KEPT }
    }

    /// Asks for an object.
    ///
    /// # Errors
    /// When there is no answer, or it is not 200 with JSON.
    pub fn get(&mut self, path: &str) -> Result<Value, String> {
        self.exchange("GET", path, &[])
    }

    /// Posts an object and gives the answer.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, String> {
        self.exchange("POST", path, body.to_string().as_bytes())
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Value, String> {
        let failed = |what: String| format!("{method} {path}: {what}");
        // A kept connection may have been closed all the same; only a GET may be
        // sent twice without harm.
        let kept = self.stream.is_some();
        let mut answer = self.once(method, path, body);
        if answer.is_err() && kept && method == "GET" {
            answer = self.once(method, path, body);
        }
        let (status, bytes) = answer.map_err(failed)?;
        if status != 200 {
            let text: String = String::from_utf8_lossy(&bytes).chars().take(500).collect();
            return Err(failed(format!("status {status}: {text}")));
        }
        serde_json::from_slice(&bytes).map_err(|error| failed(format!("not JSON: {error}")))
    }

    fn once(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>), String> {
        let kept = self.stream.take().filter(|_| self.used.elapsed() < self.kept);
        let mut stream = match kept {
            Some(stream) => stream,
            None => BufReader::new(connect(self.address, self.limit)?),
        };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n",
            self.address
        );
        if method == "POST" {
            request.push_str("Content-Type: application/json\r\n");
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        stream.get_mut().write_all(&bytes).map_err(|error| error.to_string())?;
        let head = Head::read(&mut stream)?;
        let body = head.body(&mut stream)?;
        if !head.close {
            (self.stream, self.used) = (Some(stream), Instant::now());
        }
        Ok((head.status, body))
    }
}

/// Opens a connection whose reads and writes may each take as long as `limit`.
///
/// # Errors
/// When nobody listens there.
pub fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, String> {
    let open = || {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(stream)
    };
    open().map_err(|error: std::io::Error| format!("cannot connect to {address}: {error}"))
}

/// The head of an answer, as far as it matters here.
#[derive(PartialEq, Eq, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Length of the body, when it was told.
    pub length: Option<u64>,
    /// Whether the body comes in chunks.
    pub chunked: bool,
    /// Whether the connection ends with this answer.
    pub close: bool,
}

impl Head {
    /// Reads a head.
    ///
    /// # Errors
    /// When the connection ends or it is no head.
    pub fn read(stream: &mut impl BufRead) -> Result<Self, String> {
        let first = read_line(stream)?;
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or(format!("`{first}` is no status line"))?;
        let close = first.starts_with("HTTP/1.0");
        let mut head = Self { status, length: None, chunked: false, close };
        loop {
            let line = read_line(stream)?;
            if line.is_empty() {
                return Ok(head);
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.trim().to_ascii_lowercase();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse().ok(),
                "transfer-encoding" => head.chunked = value.contains("chunked"),
                "connection" => head.close |= value.contains("close"),
                _ => {}
            }
        }
    }

    fn body(&self, stream: &mut impl BufRead) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        if self.chunked {
            while let Some(chunk) = read_chunk(stream)? {
                body.extend_from_slice(&chunk);
                if body.len() as u64 > LARGEST {
                    return Err(format!("the answer is larger than {LARGEST} bytes"));
                }
            }
            return Ok(body);
        }
        let length = self.length.ok_or("the answer does not tell its length")?;
        if length > LARGEST {
            return Err(format!("the answer is larger than {LARGEST} bytes"));
        }
        stream.take(length).read_to_end(&mut body).map_err(|error| error.to_string())?;
        if (body.len() as u64) < length {
            return Err("the answer was cut short".to_owned());
        }
        Ok(body)
    }
}

/// Reads one chunk of a body in chunks; none after the last.
///
/// # Errors
/// When the connection ends or it is no chunk.
pub fn read_chunk(stream: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let line = read_line(stream)?;
    let size = line.split(';').next().unwrap_or_default().trim();
    let size = u64::from_str_radix(size, 16).map_err(|_| format!("`{line}` is no chunk size"))?;
    if size > LARGEST {
        return Err(format!("a chunk is larger than {LARGEST} bytes"));
    }
    let mut chunk = Vec::new();
    stream.take(size).read_to_end(&mut chunk).map_err(|error| error.to_string())?;
    if (chunk.len() as u64) < size || !read_line(stream)?.is_empty() {
        return Err("a chunk was cut short".to_owned());
    }
    Ok((size > 0).then_some(chunk))
}

fn read_line(stream: &mut impl BufRead) -> Result<String, String> {
    let mut line = Vec::new();
    stream.take(64 * 1024).read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
    let line = line.strip_suffix(b"\n").ok_or("the connection ended")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn heads_are_read() {
        let mut text = &b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX: y\r\n\r\nabc"[..];
        let head = Head::read(&mut text).unwrap();
        assert_eq!(head, Head { status: 404, length: Some(3), chunked: false, close: false });
        assert_eq!(head.body(&mut text).unwrap(), b"abc");
        assert!(Head::read(&mut &b"SSH-2.0-x\r\n"[..]).unwrap_err().contains("status line"));
        assert!(Head::read(&mut &b"HTTP/1.1 200 OK\r\nA: b"[..]).is_err());
    }

    #[test]
    fn chunks_are_put_together_and_cut_ones_are_refused() {
        let mut text = &b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"[..];
        let head = Head { status: 200, length: None, chunked: true, close: false };
        assert_eq!(head.body(&mut text).unwrap(), b"abcde");
        for cut in ["3\r\nab", "3\r\nabcX\r\n", "zz\r\n", "", "FFFFFFFFFF\r\n"] {
            assert!(read_chunk(&mut cut.as_bytes()).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn a_connection_that_was_silent_for_too_long_is_not_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            // Kept open, so that only the client can have left them.
            let mut kept = Vec::new();
            for _ in 0..2 {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut stream = BufReader::new(stream);
                while !read_line(&mut stream).unwrap().is_empty() {}
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7";
                stream.get_mut().write_all(answer).unwrap();
                kept.push(stream);
            }
        });
        let mut client = Client::new(address, Duration::from_secs(20));
        client.kept = Duration::ZERO;
        for _ in 0..2 {
            // What may not be asked again.
            assert_eq!(client.post("/", &Value::Null).unwrap(), 7);
        }
        server.join().unwrap();
    }

    #[test]
    fn one_connection_carries_several_requests() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut stream = BufReader::new(stream);
            let mut seen = Vec::new();
            for answer in [
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnull\r\n0\r\n\r\n",
                "HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno",
            ] {
                seen.push(read_line(&mut stream).unwrap());
                let mut length = 0;
                loop {
                    let line = read_line(&mut stream).unwrap();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(value) = line.strip_prefix("Content-Length: ") {
                        length = value.parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                seen.push(String::from_utf8(body).unwrap());
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
            seen
        });
        let mut client = Client::new(address, Duration::from_secs(20));
        assert_eq!(client.get("/a").unwrap().to_string(), r#"{"a":1}"#);
        assert_eq!(client.post("/b", &serde_json::json!([1])).unwrap(), Value::Null);
        assert_eq!(client.get("/c").unwrap_err(), "GET /c: status 400: no");
        assert_eq!(
            server.join().unwrap(),
            ["GET /a HTTP/1.1", "", "POST /b HTTP/1.1", "[1]", "GET /c HTTP/1.1", ""]
        );
    }
}
