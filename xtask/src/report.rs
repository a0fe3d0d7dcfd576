//! What the commands print: compact JSON objects, one a line, on standard
//! output; text for people on standard error.

use std::io::Write;

use serde_json::Value;

/// Prints one JSON line on standard output. A reader that has gone away is no
/// reason to stop.
pub fn line(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

/// Prints a line for people on standard error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Seconds, rounded to hundredths, as JSON.
#[must_use]
pub fn seconds(duration: std::time::Duration) -> Value {
    rounded(duration.as_secs_f64(), 2)
}

/// A number rounded to so many decimal places, as JSON.
#[must_use]
pub fn rounded(number: f64, places: i32) -> Value {
    let factor = 10f64.powi(places);
    Value::from((number * factor).round() / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_places_asked_for() {
        assert_eq!(rounded(1.23456, 2).to_string(), "1.23");
        assert_eq!(rounded(0.000_456, 5).to_string(), "0.00046");
        assert_eq!(seconds(std::time::Duration::from_millis(1_999)).to_string(), "2.0");
    }
}
