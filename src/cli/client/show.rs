//! Tables, times and words for people.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{ClientError, Output};
use crate::core::values::BuildResult;

/// A table whose columns are as wide as their widest cell.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads.
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Writes it, or `nothing` when it has no rows.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, output: &mut Output<'_>, nothing: &str) -> Result<(), ClientError> {
        if self.rows.is_empty() {
            return output.line(nothing);
        }
        let head: Vec<String> = self.head.iter().map(|&text| text.to_owned()).collect();
        let mut widths: Vec<usize> = vec![0; head.len()];
        for row in std::iter::once(&head).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            output.line(cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// A field's text; nothing when it has none.
#[must_use]
pub fn text(value: &Value, field: &str) -> String {
    match value.get(field) {
        Some(Value::String(text)) => printable(text),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

/// Text without signs that move a terminal's cursor or change its colours.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A field's number.
#[must_use]
pub fn number(value: &Value, field: &str) -> Option<i64> {
    value.get(field).and_then(Value::as_i64)
}

/// The result's word; `running` while there is none.
#[must_use]
pub fn result(value: &Value) -> &'static str {
    match number(value, "results") {
        None | Some(-1) => "running",
        Some(code) => BuildResult::from_code(code).map_or("unknown", BuildResult::word),
    }
}

/// Seconds since 1970 UTC.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A span in words.
#[must_use]
pub fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A time in the past, as people say it.
#[must_use]
pub fn ago(then: Option<i64>) -> String {
    match then {
        Some(then) => format!("{} ago", span(now() - then)),
        None => "-".into(),
    }
}

/// How long something took, or takes so far.
#[must_use]
pub fn took(value: &Value) -> String {
    let Some(start) = number(value, "started_at") else {
        return "-".into();
    };
    span(number(value, "complete_at").unwrap_or_else(now) - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let spans: Vec<String> = [5, 65, 3660, 90_000, -3].into_iter().map(span).collect();
        assert_eq!(spans, ["5s", "1m05s", "1h01m", "1d01h", "0s"]);
    }

    #[test]
    fn a_table_is_aligned_and_has_no_blanks_at_the_ends() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(vec!["wide cell".into(), "x".into()]);
        let mut bytes = Vec::new();
        let mut output = Output { out: &mut bytes, json: false };
        table.write(&mut output, "nothing").unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "A          LONG\nwide cell  x\n");
    }
}
