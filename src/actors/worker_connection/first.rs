//! What the first frame of a connection must be, before anybody looks whose it
//! is (fault rows FA15, FN13).

use std::collections::BTreeMap;

use crate::messages::Rejection;
use crate::protocol::json_v1::{Attach, LOG_RAW, PROTO, WorkerFrame};

/// Abilities that the master has: what a worker may require of it, and what it
/// tells each worker.
pub(crate) const ABILITIES: &[&str] = &["resume/1", "ping_failed/1", LOG_RAW];

/// Most abilities that a worker may report, and most labels, and infos.
const MOST: usize = 256;
/// Longest of each, in bytes.
const LONGEST: usize = 1024;
/// Longest name of a worker program, of its version, and the like.
const LONGEST_WORD: usize = 256;

/// The attach frame, when it is one that can be looked at.
pub(super) fn look_at(frame: WorkerFrame) -> Result<Attach, Rejection> {
    let never =
        |code, message: String| Rejection { code, message, retry_after_s: None, wrong: false };
    let WorkerFrame::Attach(attach) = frame else {
        return Err(never("auth", "the first frame must be `attach`".into()));
    };
    let mine = env!("CARGO_PKG_VERSION");
    if let Some(fault) = beyond_limits(&attach) {
        return Err(never("malformed", fault));
    }
    if !attach.proto.contains(&PROTO) {
        let message = format!(
            "this master speaks protocol {PROTO}, the worker {:?} (master {mine}, worker {}); \
             upgrade the older one",
            attach.proto, attach.version
        );
        return Err(never("version", message));
    }
    let lacking: Vec<_> =
        attach.requires.iter().filter(|one| !ABILITIES.contains(&one.as_str())).collect();
    if !lacking.is_empty() {
        let message = format!(
            "the worker (version {}) cannot do without {lacking:?}, which this master (version \
             {mine}) does not have; upgrade the master",
            attach.version
        );
        return Err(never("version", message));
    }
    Ok(attach)
}

fn beyond_limits(attach: &Attach) -> Option<String> {
    let many = |what: &str, count: usize| {
        (count > MOST).then(|| format!("{count} {what} are more than {MOST}"))
    };
    let long = |what: &str, longest: usize, text: &str| {
        let length = text.len();
        (length > longest).then(|| format!("{what} of {length} bytes is longer than {longest}"))
    };
    let long_map = |what: &str, map: &BTreeMap<String, String>| {
        map.iter().find_map(|(key, value)| {
            long(what, LONGEST_WORD, key).or_else(|| long(what, LONGEST, value))
        })
    };
    let caps = attach.caps.as_deref().unwrap_or_default();
    many("abilities", caps.len())
        .or_else(|| many("required abilities", attach.requires.len()))
        .or_else(|| many("labels", attach.labels.len()))
        .or_else(|| many("infos", attach.info.len()))
        .or_else(|| many("protocol versions", attach.proto.len()))
        .or_else(|| caps.iter().find_map(|one| long("an ability", LONGEST_WORD, one)))
        .or_else(|| attach.requires.iter().find_map(|one| long("an ability", LONGEST_WORD, one)))
        .or_else(|| long_map("a label", &attach.labels))
        .or_else(|| long_map("an info", &attach.info))
        .or_else(|| long("an instance", LONGEST_WORD, &attach.instance))
        .or_else(|| long("a name", LONGEST_WORD, attach.name.as_str()))
        .or_else(|| long("a version", LONGEST_WORD, &attach.version))
        .or_else(|| long("an operating system", LONGEST_WORD, &attach.os))
        .or_else(|| long("a processor", LONGEST_WORD, &attach.arch))
}
