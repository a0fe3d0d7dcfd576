//! Which routing keys a change is published under, and what each event says.
//!
//! Nothing is rendered before a subscription matches: keys are compared as
//! numbers and fixed words, and the message is written once for all of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use actix_web::web::Data;
use serde_json::{Value, json};

use super::context::{WebContext, wall_now};
use super::rpc::blocking;
use super::shape;
use crate::core::ids::{BuilderId, WorkerId};
use crate::events::Event;
use crate::store::{
    BuildRow, BuildsetRow, Change, LogRow, NoteRow, RequestRow, RequestState, StepRow,
};

/// One element of a routing key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element<'a> {
    /// A fixed word.
    Word(&'static str),
    /// An id or number.
    Id(u64),
    /// A name that the change carries.
    Name(&'a str),
}

/// One routing key.
pub type Key<'a> = Vec<Element<'a>>;

/// One element of a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Want {
    Any,
    Exactly(String, Option<u64>),
}

/// A subscription path: elements of which `*` matches any one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern(Vec<Want>);

/// The most elements that a pattern may have.
const MAX_ELEMENTS: usize = 16;

impl Pattern {
    /// Reads decoded path elements. None when there are too many.
    #[must_use]
    pub fn of(elements: &[String]) -> Option<Self> {
        if elements.len() > MAX_ELEMENTS {
            return None;
        }
        let want = |text: &String| match text.as_str() {
            "*" => Want::Any,
            _ => {
                // `05` is no id: ids are written in one way only.
                let id = text.parse().ok().filter(|id: &u64| id.to_string() == *text);
                Want::Exactly(text.clone(), id)
            }
        };
        Some(Self(elements.iter().map(want).collect()))
    }

    /// Whether keys that begin with this word can match.
    #[must_use]
    pub fn may_begin(&self, word: &str) -> bool {
        match self.0.first() {
            Some(Want::Any) => true,
            Some(Want::Exactly(text, _)) => text == word,
            None => false,
        }
    }

    fn matches(&self, key: &[Element<'_>], name: &str) -> bool {
        let Some((last, before)) = self.0.split_last() else {
            return false;
        };
        if before.len() != key.len() {
            return false;
        }
        let last_fits = match last {
            Want::Any => true,
            Want::Exactly(text, _) => text == name,
        };
        last_fits
            && before.iter().zip(key).all(|(want, element)| match (want, element) {
                (Want::Any, _) => true,
                (Want::Exactly(_, id), Element::Id(own)) => *id == Some(*own),
                (Want::Exactly(text, _), Element::Word(own)) => text == own,
                (Want::Exactly(text, _), Element::Name(own)) => text == own,
            })
    }
}

use Element::{Id, Name, Word};

fn build_keys(row: &BuildRow) -> Vec<Key<'static>> {
    let mut keys = vec![vec![Word("builds"), Id(row.id.0)]];
    if let Some(number) = row.number {
        keys.push(vec![Word("builders"), Id(row.builder.0), Word("builds"), Id(number.0)]);
    }
    keys.push(vec![Word("workers"), Id(row.worker.0), Word("builds"), Id(row.id.0)]);
    keys
}

fn request_keys(row: &RequestRow) -> Vec<Key<'static>> {
    let own = [Word("buildrequests"), Id(row.id.0)];
    let of_builder = [Word("builders"), Id(row.builder.0)];
    let of_set = [Word("buildsets"), Id(row.buildset.0)];
    vec![own.to_vec(), [of_builder, own].concat(), [of_set, of_builder, own].concat()]
}

fn step_keys(row: &StepRow) -> Vec<Key<'static>> {
    let own = [Word("steps"), Id(row.id.0)];
    vec![[[Word("builds"), Id(row.build.0)], own].concat(), own.to_vec()]
}

fn log_keys(row: &LogRow) -> Vec<Key<'_>> {
    let of_step = [Word("steps"), Id(row.step.0), Word("logs"), Name(&row.slug)];
    vec![vec![Word("logs"), Id(row.id.0)], of_step.to_vec()]
}

/// Each worker's event is the worker's, too (row B30).
fn note_keys(row: &NoteRow) -> Vec<Key<'static>> {
    let mut keys = vec![vec![Word("builders"), Id(row.builder.0), Word("notes")]];
    keys.extend(row.worker.map(|worker| vec![Word("workers"), Id(worker.0), Word("notes")]));
    keys
}

fn master_keys() -> Vec<Key<'static>> {
    vec![vec![Word("masters"), Id(shape::MASTER)]]
}

/// First words of the keys that a change may have.
#[must_use]
pub fn beginnings(change: &Change) -> &'static [&'static str] {
    match change {
        Change::BuildsetNew(_) | Change::BuildsetComplete(_) => &["buildsets"],
        Change::RequestNew(_)
        | Change::RequestClaimed(_)
        | Change::RequestUnclaimed(_)
        | Change::RequestComplete(_)
        | Change::RequestUpdated(_) => &["buildrequests", "builders", "buildsets"],
        Change::BuildNew(_) | Change::BuildUpdate(_) | Change::BuildFinished(_) => {
            &["builds", "builders", "workers"]
        }
        Change::BuildProperties(..) => &["builds"],
        Change::StepStarted(_) | Change::StepFinished(_) => &["builds", "steps"],
        Change::LogNew(_) | Change::LogAppend(_) | Change::LogFinished(_) => &["logs", "steps"],
        Change::WorkerConnected(_) | Change::WorkerDisconnected(_) | Change::WorkerUpdated(_) => {
            &["workers"]
        }
        Change::BuilderUpdated(_) => &["builders"],
        Change::MasterStarted(_) | Change::MasterStopped(_) => &["masters"],
        Change::Note(_) | Change::NoteEnded(_) => &["builders", "workers"],
        Change::SchedulerUpdated(_) => &["schedulers"],
    }
}

/// Keys without the event's name, and the names in order.
fn keys(change: &Change) -> (Vec<Key<'_>>, &'static [&'static str]) {
    match change {
        Change::BuildsetNew(row) => (vec![vec![Word("buildsets"), Id(row.id.0)]], &["new"]),
        Change::BuildsetComplete(row) => {
            (vec![vec![Word("buildsets"), Id(row.id.0)]], &["complete"])
        }
        Change::RequestNew(row) => (request_keys(row), &["new"]),
        Change::RequestClaimed(row) => (request_keys(row), &["claimed"]),
        Change::RequestUnclaimed(row) => (request_keys(row), &["unclaimed"]),
        Change::RequestComplete(row) => (request_keys(row), &["complete"]),
        Change::RequestUpdated(row) => (request_keys(row), &["update"]),
        Change::BuildNew(row) => (build_keys(row), &["new"]),
        Change::BuildUpdate(row) => (build_keys(row), &["update"]),
        Change::BuildFinished(row) => (build_keys(row), &["finished"]),
        Change::BuildProperties(id, _) => {
            (vec![vec![Word("builds"), Id(id.0), Word("properties")]], &["update"])
        }
        Change::StepStarted(row) => (step_keys(row), &["new", "started"]),
        Change::StepFinished(row) => (step_keys(row), &["updated", "finished"]),
        Change::LogNew(row) => (log_keys(row), &["new"]),
        Change::LogAppend(row) => (log_keys(row), &["append"]),
        Change::LogFinished(row) => (log_keys(row), &["finished"]),
        Change::WorkerConnected(row) => (vec![vec![Word("workers"), Id(row.id.0)]], &["connected"]),
        Change::WorkerDisconnected(row) => {
            (vec![vec![Word("workers"), Id(row.id.0)]], &["disconnected"])
        }
        Change::WorkerUpdated(row) => {
            (vec![vec![Word("workers"), Id(row.id.0)]], &["state_updated"])
        }
        Change::BuilderUpdated(row) => (vec![vec![Word("builders"), Id(row.id.0)]], &["update"]),
        Change::MasterStarted(_) => (master_keys(), &["started"]),
        Change::MasterStopped(_) => (master_keys(), &["stopped"]),
        Change::Note(note) => (note_keys(note), &["new"]),
        Change::NoteEnded(note) => (note_keys(note), &["update"]),
        Change::SchedulerUpdated(row) => (vec![vec![Word("schedulers"), Id(row.id)]], &["updated"]),
    }
}

/// A new buildset tells its scheduler, and has no results yet, not even -1.
fn new_buildset(row: &BuildsetRow) -> Value {
    let mut message = json!(shape::buildset(row));
    if let Some(object) = message.as_object_mut() {
        object.insert("scheduler".into(), json!(row.scheduler));
        object.insert("results".into(), Value::Null);
    }
    message
}

/// What messages tell that their change does not carry.
pub struct Around {
    /// The builders of each worker, when there is an event of a worker.
    configured: BTreeMap<WorkerId, Vec<BuilderId>>,
    /// The master's name.
    master: Arc<str>,
}

impl Around {
    /// What the messages of a batch may need, for these subscriptions.
    pub async fn of(
        context: &Data<WebContext>,
        patterns: &[Pattern],
        batch: &[Arc<Event>],
    ) -> Self {
        let wanted = patterns.iter().any(|pattern| pattern.may_begin("workers"))
            && batch.iter().any(|event| needs_configured(&event.change));
        let mut around = Self { configured: BTreeMap::new(), master: context.name.clone() };
        if wanted {
            match blocking(context, |context| Ok(context.reader.configured_on()?)).await {
                Ok(configured) => around.configured = configured,
                Err(error) => {
                    tracing::warn!(%error, "events of workers go out without their builders");
                }
            }
        }
        around
    }
}

fn message(change: &Change, around: &Around) -> Value {
    match change {
        Change::BuildsetNew(row) => new_buildset(row),
        Change::BuildsetComplete(row) => json!(shape::buildset(row)),
        Change::RequestNew(row)
        | Change::RequestClaimed(row)
        | Change::RequestUnclaimed(row)
        | Change::RequestComplete(row)
        | Change::RequestUpdated(row) => json!(shape::request(row, None)),
        Change::BuildNew(row) | Change::BuildUpdate(row) | Change::BuildFinished(row) => {
            shape::build_in_event(row)
        }
        Change::BuildProperties(_, properties) => shape::properties(properties, |_| true),
        Change::StepStarted(row) | Change::StepFinished(row) => json!(shape::step(row)),
        Change::LogNew(row) | Change::LogAppend(row) | Change::LogFinished(row) => {
            json!(shape::log(row))
        }
        Change::WorkerConnected(row)
        | Change::WorkerDisconnected(row)
        | Change::WorkerUpdated(row) => shape::worker(
            row,
            around.configured.get(&row.id).map(Vec::as_slice).unwrap_or_default(),
        ),
        Change::BuilderUpdated(row) => shape::builder(row),
        Change::MasterStarted(row) | Change::MasterStopped(row) => json!({
            "masterid": shape::MASTER,
            "name": row.name,
            "active": row.active,
            "last_active": row.last_active.seconds(),
        }),
        Change::Note(note) | Change::NoteEnded(note) => json!(shape::note(note)),
        Change::SchedulerUpdated(row) => {
            shape::scheduler(row, Some(shape::master(&around.master, wall_now())))
        }
    }
}

/// Whether the message of this change needs the builders of its worker.
fn needs_configured(change: &Change) -> bool {
    matches!(
        change,
        Change::WorkerConnected(_) | Change::WorkerDisconnected(_) | Change::WorkerUpdated(_)
    )
}

/// Calls `found` with each matching key, the event's name and the message.
pub fn matching(
    change: &Change,
    patterns: &[Pattern],
    around: &Around,
    mut found: impl FnMut(&[Element<'_>], &str, &str),
) {
    let begins = beginnings(change);
    if !patterns.iter().any(|pattern| begins.iter().any(|word| pattern.may_begin(word))) {
        return;
    }
    let mut text = None;
    let mut tell = |key: &[Element<'_>], name: &'static str| {
        if patterns.iter().any(|pattern| pattern.matches(key, name)) {
            let text = text.get_or_insert_with(|| message(change, around).to_string());
            found(key, name, text);
        }
    };
    let (keys, names) = keys(change);
    if let (Change::RequestComplete(row), Some(own)) = (change, keys.first())
        && row.state == RequestState::Cancelled
    {
        tell(own, "cancel");
    }
    for name in names {
        for key in &keys {
            tell(key, name);
        }
    }
}

/// Writes a key as a JSON text with `/` between its elements.
pub fn write_path(into: &mut String, key: &[Element<'_>], name: &str) {
    into.push('"');
    for element in key {
        // Writing to a string cannot fail.
        let _ = match element {
            Word(word) => write!(into, "{word}/"),
            Id(id) => write!(into, "{id}/"),
            Name(text) => {
                let quoted = Value::from(*text).to_string();
                let inside = quoted.get(1..quoted.len() - 1).unwrap_or_default();
                write!(into, "{inside}/")
            }
        };
    }
    let _ = write!(into, "{name}\"");
}

/// Writes a key as a JSON list.
pub fn write_key(into: &mut String, key: &[Element<'_>], name: &str) {
    into.push('[');
    for element in key {
        // Writing to a string cannot fail.
        let _ = match element {
            Word(word) => write!(into, "\"{word}\", "),
            Id(id) => write!(into, "\"{id}\", "),
            Name(text) => write!(into, "{}, ", Value::from(*text)),
        };
    }
    let _ = write!(into, "\"{name}\"]");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str) -> Pattern {
        let elements: Vec<String> = path.split('/').map(str::to_owned).collect();
        Pattern::of(&elements).unwrap()
    }

    #[test]
    fn a_star_matches_exactly_one_element() {
        let key = [Word("builds"), Id(5)];
        assert!(pattern("builds/*/*").matches(&key, "new"));
        assert!(pattern("builds/5/*").matches(&key, "new"));
        assert!(pattern("*/*/new").matches(&key, "new"));
        assert!(!pattern("builds/*").matches(&key, "new"));
        assert!(!pattern("builds/*/*/*").matches(&key, "new"));
        assert!(!pattern("builds/6/*").matches(&key, "new"));
        assert!(!pattern("builds/05/*").matches(&key, "new"));
        assert!(!pattern("builds/*/finished").matches(&key, "new"));
        assert!(!pattern("/builds/*/*").matches(&key, "new"));
    }

    #[test]
    fn a_key_is_written_as_a_list_of_texts() {
        let mut text = String::new();
        write_key(&mut text, &[Word("steps"), Id(7), Word("logs"), Name("a\"b")], "new");
        let list: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(list, ["steps", "7", "logs", "a\"b", "new"]);
    }

    #[test]
    fn a_key_is_written_as_one_text() {
        let mut text = String::new();
        write_path(&mut text, &[Word("steps"), Id(7), Word("logs"), Name("a\"b\"")], "new");
        let path: String = serde_json::from_str(&text).unwrap();
        assert_eq!(path, "steps/7/logs/a\"b\"/new");
    }
}
