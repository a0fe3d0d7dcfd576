//! Durations as people write them: `10s`, `2 min`, `1h30m`.

use std::time::Duration;

/// The longest duration a setting may have: longer is a typing error, and sums
/// of timers must not overflow.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why a text is no duration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("the duration is empty")]
    Empty,
    /// A number was expected.
    #[error("a whole number was expected at `{0}`")]
    NoNumber(String),
    /// A number without a unit.
    #[error("the number {0} has no unit")]
    NoUnit(u64),
    /// A unit that does not exist.
    #[error("`{0}` is no unit of time")]
    UnknownUnit(String),
    /// More than [`LONGEST`].
    #[error("the duration is longer than 366 days")]
    TooLong,
}

/// What to write instead of a text that is no duration.
pub const DURATION_FIX: &str = "write whole numbers with units ms, s, min, h or d, for example \"90s\", \"2 min\" or \"1h30m\"";

fn unit_ms(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * 1000,
        "h" | "hour" | "hours" => 3600 * 1000,
        "d" | "day" | "days" => 24 * 3600 * 1000,
        _ => return None,
    })
}

/// Reads a duration: one or more whole numbers, each followed by its unit.
///
/// # Errors
/// When the text is empty, a number or its unit is missing or unknown, or the
/// sum is longer than [`LONGEST`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    parse_long_duration(text, LONGEST)
}

/// The same with another longest duration.
pub(super) fn parse_long_duration(
    text: &str,
    longest: Duration,
) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(DurationError::NoNumber(rest.chars().take(20).collect()));
        }
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Err(DurationError::NoUnit(number));
        }
        let scale = unit_ms(unit)
            .ok_or_else(|| DurationError::UnknownUnit(unit.chars().take(20).collect()))?;
        total = number
            .checked_mul(scale)
            .and_then(|ms| total.checked_add(ms))
            .ok_or(DurationError::TooLong)?;
        rest = after.trim_start();
    }
    let total = Duration::from_millis(total);
    if total > longest { Err(DurationError::TooLong) } else { Ok(total) }
}

/// Writes a duration as [`parse_duration`] reads it, to the millisecond.
#[must_use]
pub fn show_duration(span: Duration) -> String {
    let mut ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale) in
        [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)]
    {
        let count = ms / scale;
        ms %= scale;
        if count > 0 {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&format!("{count} {unit}"));
        }
    }
    if text.is_empty() { "0 s".to_owned() } else { text }
}
