//! What a client says over a WebSocket, and what it is answered. Pure: no
//! socket, no time.

use serde_json::{Map, Value};

/// What a client wants.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Events that match this path, from now on.
    Start(String),
    /// No more events that match only this path.
    Stop(String),
    /// A sign of life.
    Ping,
}

/// A frame that was understood: what it wants, and what its answer names.
#[derive(Clone, PartialEq, Debug)]
pub struct Asked {
    /// The client's own name for the answer.
    pub id: Value,
    /// What it wants.
    pub command: Command,
}

/// Why nothing is done.
#[derive(Clone, PartialEq, Debug)]
pub enum Refused {
    /// It is told, and the conversation goes on.
    Answered(String),
    /// The text is no JSON: the conversation ends.
    NotJson,
    /// It is JSON but no object: the conversation ends.
    NotAnObject,
}

/// An answer that says yes.
#[must_use]
pub fn done(id: &Value, word: &str) -> String {
    format!("{{\"msg\":{},\"code\":200,\"_id\":{id}}}", Value::from(word))
}

/// An answer that says no.
#[must_use]
pub fn failed(id: &Value, code: u16, error: &str) -> String {
    format!("{{\"error\":{},\"code\":{code},\"_id\":{id}}}", Value::from(error))
}

/// The argument of a command that has one. Nothing else may be in the frame.
fn arguments(word: &str, takes: &[&str], frame: &Map<String, Value>) -> Result<(), String> {
    let known = |name: &str| ["cmd", "_id", "type"].contains(&name) || takes.contains(&name);
    if let Some(missing) = takes.iter().find(|name| !frame.contains_key(**name)) {
        return Err(format!("Invalid method argument '{word}: `{missing}` is missing'"));
    }
    if !frame.contains_key("_id") {
        return Err(format!("Invalid method argument '{word}: `_id` is missing'"));
    }
    match frame.keys().find(|name| !known(name)) {
        Some(surplus) => {
            Err(format!("Invalid method argument '{word}: there is no argument `{surplus}`'"))
        }
        None => Ok(()),
    }
}

/// Reads one text frame.
///
/// # Errors
/// When nothing is to be done, with what to say about it.
pub fn read(text: &str) -> Result<Asked, Refused> {
    let frame = match serde_json::from_str(text) {
        Ok(Value::Object(frame)) => frame,
        Ok(_) => return Err(Refused::NotAnObject),
        Err(_) => return Err(Refused::NotJson),
    };
    let id = frame.get("_id").cloned().unwrap_or(Value::Null);
    let refuse = |code, error: &str| Err(Refused::Answered(failed(&id, code, error)));
    let named = |name: &str| frame.get(name).is_some_and(|value| !value.is_null());
    if !named("_id") && !named("type") {
        return refuse(400, "no '_id' or 'type' in websocket frame");
    }
    let word = match frame.get("cmd") {
        None => {
            // Without an id, whatever the frame has: the reference answers so.
            let answer = failed(&Value::Null, 400, "no 'cmd' in websocket frame");
            return Err(Refused::Answered(answer));
        }
        Some(Value::String(word)) => word.as_str(),
        Some(other) => return refuse(404, &format!("no such command type '{other}'")),
    };
    let takes: &[&str] = match word {
        "startConsuming" | "stopConsuming" => &["path"],
        "ping" => &[],
        _ => return refuse(404, &format!("no such command type '{word}'")),
    };
    if let Err(error) = arguments(word, takes, &frame) {
        return refuse(400, &error);
    }
    let command = if word == "ping" {
        Command::Ping
    } else {
        let path = frame.get("path").cloned().unwrap_or_default();
        let Value::String(path) = path else {
            return refuse(400, &format!("invalid path format '{path}'"));
        };
        if word == "startConsuming" { Command::Start(path) } else { Command::Stop(path) }
    };
    Ok(Asked { id, command })
}
