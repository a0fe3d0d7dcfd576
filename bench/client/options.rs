//! What the HTTP load client is told.

use std::net::SocketAddr;
use std::time::Duration;

/// How to call the program.
pub const USAGE: &str = "\
Asks an HTTP server for the same thing again and again, and prints what it
measured as one JSON object.

usage: http_load --address IP:PORT --path PATH [--connections N] [--seconds S]
                 [--rate R] [--pause-ms MS] [--limit S]

  --address IP:PORT   where the server listens
  --path PATH         what is asked for: /api/v2/builds?limit=50
  --connections N     connections that are kept open (4)
  --seconds S         how long it asks (20)
  --rate R            requests a second, over all connections; their latency
                      counts from when each was due. Without: as fast as the
                      answers come
  --pause-ms MS       without --rate: waits so long after each answer (0)
  --limit S           an answer that takes longer counts as hung (30)";

/// The most connections; each is a thread.
const MOST_CONNECTIONS: usize = 1_000;

/// What the client is told.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Where the server listens.
    pub address: SocketAddr,
    /// What is asked for.
    pub path: String,
    /// How many connections.
    pub connections: usize,
    /// How long it asks.
    pub window: Duration,
    /// Requests a second.
    pub rate: Option<f64>,
    /// The wait after each answer.
    pub pause: Duration,
    /// How long an answer may take.
    pub limit: Duration,
}

impl Options {
    /// Reads the arguments; none when help was asked for.
    ///
    /// # Errors
    /// Names what is missing or wrong.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut arguments = arguments;
        let (mut address, mut path, mut rate) = (None, None, None);
        let (mut connections, mut window, mut pause) = (4, 20.0, 0.0);
        let mut limit = 30.0;
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                return Ok(None);
            }
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            match name.as_str() {
                "--address" => {
                    let parsed = value.parse();
                    address =
                        Some(parsed.map_err(|_| format!("{name} needs IP:PORT, not `{value}`"))?);
                }
                "--path" => path = Some(value),
                "--connections" => {
                    connections = number(&name, &value, MOST_CONNECTIONS as f64)? as usize
                }
                "--seconds" => window = number(&name, &value, 3_600.0)?,
                "--rate" => rate = Some(number(&name, &value, 1_000_000.0)?),
                "--pause-ms" => pause = number(&name, &value, 60_000.0)?,
                "--limit" => limit = number(&name, &value, 600.0)?,
                _ => return Err(format!("`{name}` is not known")),
            }
        }
        let path = path.ok_or("--path is missing")?;
        if !path.starts_with('/') || path.contains(|letter: char| !letter.is_ascii_graphic()) {
            return Err(format!("--path needs what follows the host in an address, not `{path}`"));
        }
        if rate == Some(0.0) || window == 0.0 || limit == 0.0 || connections == 0 {
            return Err("--rate, --seconds, --limit and --connections are more than 0".to_owned());
        }
        Ok(Some(Self {
            address: address.ok_or("--address is missing")?,
            path,
            connections,
            window: Duration::from_secs_f64(window),
            rate,
            pause: Duration::from_secs_f64(pause / 1000.0),
            limit: Duration::from_secs_f64(limit),
        }))
    }
}

fn number(name: &str, text: &str, most: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=most).contains(number));
    number.ok_or(format!("{name} needs a number from 0 to {most}, not `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Options>, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read() {
        let options =
            parse("--address 127.0.0.1:9 --path /a?b=1 --rate 500 --seconds 0.5").unwrap().unwrap();
        assert_eq!(options.path, "/a?b=1");
        assert_eq!((options.connections, options.rate), (4, Some(500.0)));
        assert_eq!(options.window, Duration::from_millis(500));
        assert_eq!(parse("--help"), Ok(None));
    }

    #[test]
    fn wrong_arguments_are_named() {
        let problem = |text: &str| parse(text).unwrap_err();
        assert_eq!(problem("--path /"), "--address is missing");
        assert_eq!(problem("--address 127.0.0.1:9"), "--path is missing");
        assert!(problem("--address host:9 --path /").contains("not `host:9`"));
        assert!(problem("--rate fast").contains("not `fast`"));
        assert!(problem("--rate NaN").contains("not `NaN`"));
        assert!(problem("--address 127.0.0.1:9 --path / --rate 0").contains("more than 0"));
        assert!(problem("--address 127.0.0.1:9 --path x").contains("not `x`"));
        assert_eq!(problem("--speed 1"), "`--speed` is not known");
    }
}
