//! Events as they happen, without a gap over restarts and lost connections as
//! long as the master still has what was missed.

use std::io::{BufRead, BufReader, Read};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Client, ClientError, element};
use super::show::{result, text};
use super::{EventsArgs, FINE, Output};

/// Between tries to reach a master that is away.
const LOOK: Duration = Duration::from_millis(500);

/// How long a master may be away: it may be restarting.
const AWAY: Duration = Duration::from_secs(60);

/// One block of a stream of server-sent events.
#[derive(Default, PartialEq, Debug)]
struct Block {
    id: Option<String>,
    kind: String,
    data: String,
}

impl Block {
    /// The next block that is more than a comment; none at the end.
    fn read(from: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut block = Self::default();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                if block != Self::default() {
                    return Ok(Some(block));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => block.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut block.kind),
                "data" => block.data.push_str(value),
                _ => {}
            }
        }
    }
}

/// What is said of an event in one line.
fn line(number: &str, key: &str, message: &Value) -> String {
    let mut said = format!("{number:<8} {key}");
    for field in ["name", "state_string", "text", "reason"] {
        let told = text(message, field);
        if !told.is_empty() {
            said.push_str(&format!("  {told}"));
        }
    }
    if message.get("results").is_some_and(|code| code.as_i64().is_some_and(|code| code >= 0)) {
        said.push_str(&format!("  {}", result(message)));
    }
    said
}

fn tell(output: &mut Output<'_>, block: &Block) -> Result<(), ClientError> {
    let data: Value = serde_json::from_str(&block.data).unwrap_or_default();
    let number = block.id.as_deref().unwrap_or("-");
    let whole = number.split('.').next().unwrap_or(number);
    let key: Vec<&str> = data
        .get("key")
        .and_then(Value::as_array)
        .map(|parts| parts.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let message = data.get("message").unwrap_or(&Value::Null);
    if output.json {
        let seq: Option<u64> = whole.parse().ok();
        return output.value(&json!({ "seq": seq, "key": key.join("/"), "message": message }));
    }
    output.line(&line(whole, &key.join("/"), message))
}

/// Tells that events are missing. Answers after which one it goes on.
fn tell_gap(output: &mut Output<'_>, block: &Block) -> Result<Option<String>, ClientError> {
    let data: Value = serde_json::from_str(&block.data).unwrap_or_default();
    if output.json {
        output.value(&json!({ "gap": data }))?;
    } else {
        let last = text(&data, "last");
        output.line(&format!("-        some events after {last} are not kept any more"))?;
    }
    let next = data.get("next").and_then(Value::as_u64);
    Ok(next.and_then(|next| next.checked_sub(1)).map(|last| last.to_string()))
}

/// Prints events until `limit` of them came, or for ever.
pub fn follow(
    client: &Client,
    output: &mut Output<'_>,
    args: &EventsArgs,
) -> Result<u8, ClientError> {
    let elements: Vec<String> = args
        .path
        .split('/')
        .map(|part| if part == "*" { part.into() } else { element(part) })
        .collect();
    let path = format!("sse/listen/{}", elements.join("/"));
    let mut last = args.after.map(|number| number.to_string());
    let mut left = args.limit;
    let mut away: Option<Instant> = None;
    loop {
        let opened = client.open_stream(&path, last.as_deref());
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) if error.is_transient() => {
                if away.get_or_insert_with(Instant::now).elapsed() > AWAY {
                    return Err(error);
                }
                sleep(LOOK);
                continue;
            }
            Err(error) => return Err(error),
        };
        let before = last.clone();
        if read(stream, output, &mut last, &mut left, &mut away)? {
            return Ok(FINE);
        }
        away.get_or_insert_with(Instant::now);
        // A connection that brought something on was a good one.
        if last == before {
            sleep(LOOK);
        }
    }
}

/// Reads one connection to its end. True when enough events came.
fn read(
    stream: impl Read,
    output: &mut Output<'_>,
    last: &mut Option<String>,
    left: &mut Option<u64>,
    away: &mut Option<Instant>,
) -> Result<bool, ClientError> {
    let mut stream = BufReader::new(stream);
    if *left == Some(0) {
        return Ok(true);
    }
    // A connection that breaks ends like one that is closed: it is made anew.
    while let Ok(Some(block)) = Block::read(&mut stream) {
        *away = None;
        match block.kind.as_str() {
            "event" => tell(output, &block)?,
            "gap" => {
                *last = tell_gap(output, &block)?;
                continue;
            }
            // The handshake and signs of life say where the stream stands, so
            // that nothing is missed even before the first event.
            _ => {
                if block.id.is_some() {
                    last.clone_from(&block.id);
                }
                continue;
            }
        }
        if block.id.is_some() {
            last.clone_from(&block.id);
        }
        if let Some(left) = left {
            *left -= 1;
            if *left == 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_whatever_is_between_them() {
        let text =
            ": keep-alive\n\nid: 7\nevent: event\ndata: {\"a\":\ndata:1}\n\n\r\nevent: x\n\n";
        let mut from = text.as_bytes();
        let first = Block::read(&mut from).unwrap().unwrap();
        assert_eq!((first.id.as_deref(), first.kind.as_str()), (Some("7"), "event"));
        assert_eq!(first.data, "{\"a\":1}");
        assert_eq!(Block::read(&mut from).unwrap().unwrap().kind, "x");
        assert_eq!(Block::read(&mut from).unwrap(), None);
    }

    #[test]
    fn an_event_is_one_line() {
        let message = json!({ "state_string": "build\nok", "results": 0 });
        let said = line("12", "builds/3/finished", &message);
        assert!(said.starts_with("12       builds/3/finished  build"), "{said}");
        assert!(said.ends_with("success") && !said.contains('\n'), "{said}");
    }
}
