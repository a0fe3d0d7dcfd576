//! Asks on all connections for as long as it is to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::connection::{Connection, Failure};
use super::figures::{Found, ms};
use super::options::Options;

/// The wait after a connection broke.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Asks, and gives what was measured.
#[must_use]
pub fn run(options: &Options) -> Found {
    let begin = Instant::now();
    let sent = AtomicU64::new(0);
    let mut all = Found::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.connections)
            .map(|_| scope.spawn(|| one_connection(options, begin, &sent)))
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(found) => all.add(found),
                Err(_) => all.errors += 1,
            }
        }
    });
    all
}

fn one_connection(options: &Options, begin: Instant, sent: &AtomicU64) -> Found {
    let end = begin + options.window;
    let mut connection = Connection::new(options.address, &options.path, options.limit);
    let mut found = Found::default();
    loop {
        let due = match options.rate {
            Some(rate) => {
                // Whoever is free takes the next one.
                let place = sent.fetch_add(1, Ordering::Relaxed);
                begin + Duration::from_secs_f64(place as f64 / rate)
            }
            None => Instant::now(),
        };
        if due >= end {
            return found;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if Instant::now() >= end {
            // All connections waited for answers until now. Left out, the
            // slowest of all would not be in the figures.
            found.unsent += 1;
            found.latencies.push(ms(due.elapsed()));
            continue;
        }
        match connection.ask() {
            Ok(answer) => {
                let now = Instant::now();
                found.latencies.push(ms(now.saturating_duration_since(due)));
                found.in_window += u64::from(now <= end);
                found.errors += u64::from(answer.status != 200);
                found.bytes += answer.bytes;
            }
            Err(Failure::Hung) => found.hung += 1,
            Err(Failure::Broken) => {
                found.errors += 1;
                std::thread::sleep(AFTER_FAILURE);
            }
        }
        if !options.pause.is_zero() {
            std::thread::sleep(options.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    /// Answers each request after `wait`. Its threads end with the test.
    fn server(wait: Duration, answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                std::thread::spawn(move || {
                    let mut line = String::new();
                    while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
                        if line == "\r\n" {
                            std::thread::sleep(wait);
                            if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                                return;
                            }
                        }
                        line.clear();
                    }
                });
            }
        });
        address
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    fn found(address: SocketAddr, more: &str) -> Found {
        let text = format!("--address {address} --path / {more}");
        run(&Options::parse(text.split_whitespace().map(str::to_owned)).unwrap().unwrap())
    }

    #[test]
    fn a_closed_loop_asks_until_its_time_is_over() {
        let found = found(server(Duration::ZERO, GOOD), "--connections 2 --seconds 0.3");
        assert!(found.in_window > 2, "{found:?}");
        assert_eq!((found.errors, found.hung, found.unsent), (0, 0, 0));
        assert_eq!(found.bytes, found.latencies.len() as u64 * 5);
    }

    #[test]
    fn an_open_loop_sends_what_is_due_and_no_more() {
        let found = found(server(Duration::ZERO, GOOD), "--seconds 0.5 --rate 100");
        assert_eq!(found.latencies.len(), 50, "{found:?}");
        assert_eq!((found.errors, found.hung), (0, 0));
    }

    #[test]
    fn requests_that_had_to_wait_for_a_connection_count_from_when_they_were_due() {
        let slow = server(Duration::from_millis(200), GOOD);
        let found = found(slow, "--connections 1 --seconds 1 --rate 100");
        assert_eq!(found.latencies.len(), 100, "{found:?}");
        assert!(found.unsent >= 90, "{found:?}");
        // The second one was due at 10 ms, and answered after 400 ms at the
        // earliest.
        assert!(found.latencies[0] >= 200.0 && found.latencies[1] >= 390.0, "{found:?}");
        // And so on: half of all are late by a good part of the second.
        let late = found.latencies.iter().filter(|latency| **latency >= 300.0).count();
        assert!(late >= 50, "{late}");
    }

    #[test]
    fn answers_that_fail_or_hang_are_counted() {
        let bad = server(Duration::ZERO, "HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n");
        let failed = found(bad, "--connections 1 --seconds 0.2");
        assert_eq!(failed.errors, failed.latencies.len() as u64);
        let silent = server(Duration::from_secs(5), GOOD);
        let hung = found(silent, "--connections 1 --seconds 0.1 --limit 0.2");
        assert_eq!((hung.hung, hung.latencies.len()), (1, 0));
    }
}
