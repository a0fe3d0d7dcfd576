//! Expected times, as the API gives them, in words.

use std::collections::HashMap;

use serde_json::Value;

use super::http::{Client, ClientError};
use super::show::{number, span};

/// A number of seconds at a pointer.
#[must_use]
pub fn seconds(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer).and_then(Value::as_f64)
}

/// A span in words, with tenths while it is short.
#[must_use]
pub fn short(seconds: f64) -> String {
    if seconds < 9.95 { format!("{:.1}s", seconds.max(0.0)) } else { span(whole(seconds)) }
}

#[allow(clippy::cast_possible_truncation)]
fn whole(number: f64) -> i64 {
    // Out of range it is cut, which is as good here.
    number.round() as i64
}

/// An interval in the unit of its high end: `3–5 min`.
#[must_use]
pub fn interval(low: f64, high: f64) -> String {
    let (unit, size) = match high {
        ..60.0 => ("s", 1.0),
        ..3600.0 => ("min", 60.0),
        ..86_400.0 => ("h", 3600.0),
        _ => ("d", 86_400.0),
    };
    let (low, high) = (whole(low / size), whole((high / size).ceil()).max(1));
    match low {
        ..=0 => format!("up to {high} {unit}"),
        _ if low >= high => format!("{high} {unit}"),
        _ => format!("{low}–{high} {unit}"),
    }
}

/// When something happens, from an estimate: `in 3–5 min`, `now`.
#[must_use]
pub fn when(estimate: Option<&Value>) -> String {
    let ends = estimate.and_then(|it| Some((seconds(it, "/low_s")?, seconds(it, "/high_s")?)));
    match ends {
        None => "-".into(),
        Some((_, high)) if high < 1.0 => "now".into(),
        Some((low, high)) => match interval(low, high) {
            until if until.starts_with("up to") => until.replacen("up to", "within", 1),
            between => format!("in {between}"),
        },
    }
}

/// What a builder's builds take: `45s (40s–1m10s)`.
#[must_use]
pub fn takes(estimate: Option<&Value>) -> String {
    let all = estimate.and_then(|it| {
        Some((seconds(it, "/likely_s")?, seconds(it, "/low_s")?, seconds(it, "/high_s")?))
    });
    match all {
        None => "-".into(),
        Some((likely, low, high)) => format!("{} ({}–{})", short(likely), short(low), short(high)),
    }
}

/// What a running build has left, or how far off was what was expected of one
/// that has ended.
#[must_use]
pub fn standing(eta: Option<&Value>) -> String {
    let Some(eta) = eta.filter(|eta| !eta.is_null()) else { return "-".into() };
    if let (Some(low), Some(high)) = (seconds(eta, "/left/low_s"), seconds(eta, "/left/high_s")) {
        let left = format!("{} left", interval(low, high));
        return match seconds(eta, "/left/late_s") {
            Some(late) => format!("late by {}, {left}", short(late)),
            None => left,
        };
    }
    // One that failed ended when it failed.
    if eta.get("counts") != Some(&Value::Bool(true)) {
        return "-".into();
    }
    let Some(off) = seconds(eta, "/off_percent") else { return "-".into() };
    let off = format!("{:+} %", whole(off));
    if eta.get("within") == Some(&Value::Bool(true)) { format!("within ({off})") } else { off }
}

/// Times of these builds, by id.
pub fn of_builds(client: &Client, rows: &[Value]) -> Result<HashMap<i64, Value>, ClientError> {
    let mut known = HashMap::new();
    // As many as fit well into one address.
    for part in rows.chunks(200) {
        let ids: Vec<String> = part
            .iter()
            .filter_map(|row| Some(format!("buildid={}", number(row, "buildid")?)))
            .collect();
        let answer = client.get(&format!("botmaster/etas?{}", ids.join("&")))?;
        known.extend(by_id(&answer, "builds"));
    }
    Ok(known)
}

/// The values of an object whose keys are ids.
#[must_use]
pub fn by_id(answer: &Value, key: &str) -> HashMap<i64, Value> {
    let all = answer.get(key).and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(id, value)| Some((id.parse().ok()?, value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn intervals_are_in_one_unit() {
        assert_eq!(interval(20.0, 40.4), "20–41 s");
        assert_eq!(interval(170.0, 300.0), "3–5 min");
        assert_eq!(interval(10.0, 300.0), "up to 5 min");
        assert_eq!(interval(175.0, 180.0), "3 min");
        assert_eq!(interval(0.1, 0.2), "up to 1 s");
        assert_eq!(interval(7000.0, 10_000.0), "2–3 h");
        assert_eq!(interval(90_000.0, 190_000.0), "1–3 d");
    }

    #[test]
    fn times_to_come_and_times_left_are_said_in_words() {
        let estimate = |low: f64, likely: f64, high: f64| json!({ "low_s": low, "likely_s": likely, "high_s": high });
        assert_eq!(when(Some(&estimate(170.0, 200.0, 300.0))), "in 3–5 min");
        assert_eq!(when(Some(&estimate(0.0, 20.0, 50.0))), "within 50 s");
        assert_eq!(when(Some(&estimate(0.0, 0.0, 0.0))), "now");
        assert_eq!(when(None), "-");
        assert_eq!(takes(Some(&estimate(2.0, 4.25, 70.0))), "4.2s (2.0s–1m10s)");
        let running = |late: Option<f64>| json!({ "left": { "low_s": 0, "likely_s": 5, "high_s": 20, "late_s": late } });
        assert_eq!(standing(Some(&running(None))), "up to 20 s left");
        assert_eq!(standing(Some(&running(Some(65.0)))), "late by 1m05s, up to 20 s left");
        let ended = |off: f64, within: bool, counts: bool| json!({ "left": null, "off_percent": off, "within": within, "counts": counts });
        assert_eq!(standing(Some(&ended(12.4, true, true))), "within (+12 %)");
        assert_eq!(standing(Some(&ended(-60.0, false, true))), "-60 %");
        assert_eq!(standing(Some(&ended(-60.0, false, false))), "-");
        assert_eq!(standing(Some(&Value::Null)), "-");
    }
}
