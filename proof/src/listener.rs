//! Somebody who listens to the event stream, and comes back when it breaks.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use botmaster::core::ids::{BuildId, BuildNumber, BuilderId, Epoch, RequestId, WorkerId};
use botmaster::core::values::BuildResult;
use botmaster::store::{BuildState, RequestState};
use botmaster_sim::history::{Build, Event, Request, What};
use serde_json::Value;

use crate::api::Api;
use crate::clients::Diary;
use crate::runs;

/// Pause before it connects again.
const PAUSE: Duration = Duration::from_millis(30);

/// Writes what is told into the diary until `over`, and the stream has ended.
pub fn listen(api: &Api, diary: &Diary, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        if let Some(stream) = api.events() {
            let mut seq = 0;
            // An error is an end: the master has died.
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if let Some(number) = line.strip_prefix("id: ") {
                    seq = number.parse().unwrap_or(0);
                } else if let Some(data) = line.strip_prefix("data: {")
                    && let Some(what) = parse(&format!("{{{data}"))
                {
                    diary.heard(Event { seq, at: runs::now(), what });
                }
                if over.load(Ordering::SeqCst) {
                    return;
                }
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// What an event says, when it is about a request or the life of a build.
fn parse(text: &str) -> Option<What> {
    let value: Value = serde_json::from_str(text).ok()?;
    let key = value["key"].as_array()?;
    let (kind, name) = (key.first()?.as_str()?, key.last()?.as_str()?);
    let row = &value["message"];
    match (kind, name) {
        ("buildrequests", "new") => Some(What::RequestNew(request(row)?)),
        ("buildrequests", "claimed") => Some(What::RequestClaimed(request(row)?)),
        ("buildrequests", "unclaimed") => Some(What::RequestUnclaimed(request(row)?)),
        ("buildrequests", "complete") => Some(What::RequestComplete(request(row)?)),
        ("builds", "new") => Some(What::BuildNew(build(row)?)),
        ("builds", "finished") => Some(What::BuildFinished(build(row)?)),
        _ => None,
    }
}

fn request(row: &Value) -> Option<Request> {
    let state = match (row["complete"].as_bool()?, row["claimed"].as_bool()?) {
        (true, _) => RequestState::Done,
        (false, true) => RequestState::Claimed,
        (false, false) => RequestState::Queued,
    };
    Some(Request {
        id: RequestId(row["buildrequestid"].as_u64()?),
        builder: BuilderId(row["builderid"].as_u64()?),
        priority: row["priority"].as_i64()?,
        state,
        // Events do not say these.
        epoch: Epoch(0),
        claimed_at: None,
        requeued: false,
        pinned: false,
        result: row["results"].as_i64().and_then(BuildResult::from_code),
    })
}

fn build(row: &Value) -> Option<Build> {
    let complete = row["complete"].as_bool()?;
    Some(Build {
        id: BuildId(row["buildid"].as_u64()?),
        number: row["number"].as_u64().map(BuildNumber),
        builder: BuilderId(row["builderid"].as_u64()?),
        worker: WorkerId(row["workerid"].as_u64()?),
        state: if complete { BuildState::Finished } else { BuildState::Running },
        result: row["results"].as_i64().and_then(BuildResult::from_code),
        requests: Vec::new(),
        has_steps: true,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn events_of_requests_and_builds_are_read_and_others_are_not() {
        let text = r#"{"key": ["buildrequests", "5", "complete"], "message": {"buildrequestid": 5,
            "builderid": 2, "priority": 0, "claimed": true, "complete": true, "results": 0}}"#;
        let Some(What::RequestComplete(row)) = parse(text) else { panic!("not read") };
        assert_eq!((row.id, row.result), (RequestId(5), Some(BuildResult::Success)));
        let text = r#"{"key": ["builds", "7", "new"], "message": {"buildid": 7, "number": 3,
            "builderid": 2, "workerid": 1, "complete": false, "results": null}}"#;
        let Some(What::BuildNew(row)) = parse(text) else { panic!("not read") };
        assert_eq!((row.id, row.number, row.result), (BuildId(7), Some(BuildNumber(3)), None));
        assert_eq!(parse(r#"{"key": ["steps", "7", "new"], "message": {}}"#), None);
    }
}
