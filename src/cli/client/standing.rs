//! What stands in the way: builds that wait for their worker, workers that are
//! set aside, and why.

use serde_json::Value;

use super::show::{now, number, printable, span, text};

fn seconds(value: &Value, field: &str) -> Option<i64> {
    number(value, field).map(|micros| micros.div_euclid(1_000_000))
}

/// The board's entry of a build, whoever its builder is.
#[must_use]
pub fn build_on_board(board: &Value, id: Option<i64>) -> Option<&Value> {
    let builders = board.get("builders").and_then(Value::as_object)?;
    builders
        .values()
        .filter_map(|builder| builder.get("builds").and_then(Value::as_array))
        .flatten()
        .find(|build| id.is_some() && number(build, "build") == id)
}

/// That a build's worker is away, for people: since when, and until when it is
/// waited for.
#[must_use]
pub fn away(board: &Value, id: Option<i64>) -> Option<String> {
    let build = build_on_board(board, id)?;
    let away = build.get("away").filter(|away| away.is_object())?;
    let since = seconds(away, "since").map_or_else(String::new, |since| {
        format!(", which has been away for {}", span(now() - since))
    });
    let until = match seconds(away, "until") {
        Some(until) => format!(", for {} more", span(until - now())),
        None => ", without end".into(),
    };
    Some(format!("waits for worker {}{since}{until}", text(build, "worker")))
}

/// That a worker gets nothing for a while: `set aside for 20s more`.
#[must_use]
pub fn set_aside(view: Option<&Value>) -> Option<(String, String)> {
    let pause = view?.get("quarantine").filter(|pause| pause.is_object())?;
    let rest = seconds(pause, "until").map_or(0, |until| until - now());
    Some((format!("set aside for {} more", span(rest)), text(pause, "reason")))
}

/// Builders that leave this worker alone for a while, with the reasons.
#[must_use]
pub fn left_alone(board: &Value, worker: &str) -> Vec<String> {
    let builders = board.get("builders").and_then(Value::as_object);
    let pause = |(builder, view): (&String, &Value)| {
        let pause = view.get("pauses")?.get(worker)?;
        let rest = seconds(pause, "until").map_or(0, |until| until - now());
        let reason = pause.get("reason").and_then(Value::as_str).map(printable);
        let builder = printable(builder);
        let rest = span(rest);
        Some(format!("{builder} tries it again in {rest} ({})", reason.unwrap_or_default()))
    };
    builders.into_iter().flatten().filter_map(pause).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn b25_a_build_that_waits_for_its_worker_says_since_when_and_until_when() {
        let (since, until) = ((now() - 65) * 1_000_000, (now() + 100) * 1_000_000);
        let build = |id: i64, until: Value| json!({ "build": id, "worker": "w1", "away": { "since": since, "until": until } });
        let builds = json!([build(4, json!(until)), build(5, Value::Null), { "build": 6 }]);
        let board = json!({ "builders": { "b": { "builds": builds } } });
        let told = away(&board, Some(4)).unwrap();
        assert!(told.starts_with("waits for worker w1, which has been away for 1m0"), "{told}");
        assert!(told.contains("for 1m") && told.ends_with(" more"), "{told}");
        assert!(away(&board, Some(5)).unwrap().ends_with(", without end"));
        assert_eq!(away(&board, Some(6)), None);
        assert_eq!(away(&board, None), None);
    }

    #[test]
    fn fr21_fb07_who_is_set_aside_or_left_alone_is_told_with_the_reason() {
        let until = (now() + 30) * 1_000_000;
        let view = json!({ "quarantine": { "until": until, "reason": "it was lost" } });
        let (state, reason) = set_aside(Some(&view)).unwrap();
        assert!(state.starts_with("set aside for "), "{state}");
        assert_eq!(reason, "it was lost");
        assert_eq!(set_aside(Some(&json!({}))), None);
        let pauses = json!({ "w1": { "until": until, "reason": "disk: full" } });
        let board = json!({ "builders": { "b": { "pauses": pauses }, "c": {} } });
        let told = left_alone(&board, "w1");
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("b tries it again in ") && told[0].contains("(disk: full)"));
        assert_eq!(left_alone(&board, "w2"), Vec::<String>::new());
    }
}
