//! How many rows a question lets through, remembered for a moment: lists are
//! asked for again and again, and counting thousands of rows takes longer than
//! reading the page that is shown of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::types::Value;

/// Fewer rows are counted anew each time.
const FEW: u64 = 500;

/// For how long a count is told again.
const FRESH: Duration = Duration::from_secs(1);

/// The most counts that are remembered.
const MOST: usize = 256;

/// The longest question whose count is remembered, in bytes.
const LONGEST: usize = 1000;

/// Counts by their questions.
#[derive(Default)]
pub struct Counts(Mutex<HashMap<String, (Instant, u64)>>);

impl Counts {
    /// The count of this statement with these values: one that was made a
    /// moment ago, if that was of many rows, else what `count` answers.
    ///
    /// # Errors
    /// Those of `count`.
    pub fn of(
        &self,
        statement: &str,
        bound: &[Value],
        count: impl FnOnce() -> rusqlite::Result<u64>,
    ) -> rusqlite::Result<u64> {
        let question = format!("{statement}{bound:?}");
        let now = Instant::now();
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&question).copied();
        if let Some((at, number)) = known
            && now.duration_since(at) < FRESH
        {
            return Ok(number);
        }
        let number = count()?;
        if number >= FEW && question.len() <= LONGEST {
            let mut known = lock();
            if known.len() >= MOST {
                known.retain(|_, (at, _)| now.duration_since(*at) < FRESH);
            }
            if known.len() < MOST {
                known.insert(question, (now, number));
            }
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_counts_are_remembered_and_each_for_its_question_alone() {
        let counts = Counts::default();
        let count = |statement: &str, value: i64, real: u64| {
            counts.of(statement, &[Value::Integer(value)], || Ok(real)).unwrap()
        };
        assert_eq!((count("a", 1, 499), count("a", 1, 500), count("a", 1, 501)), (499, 500, 500));
        assert_eq!((count("a", 2, 501), count("b", 1, 502)), (501, 502));
        let failed = counts.of("c", &[], || Err(rusqlite::Error::InvalidQuery));
        assert!(failed.is_err());
        assert_eq!(counts.of("c", &[], || Ok(7)), Ok(7));
        for value in 0..1000 {
            assert_eq!(count("d", value, 600), 600);
        }
        assert!(counts.0.lock().unwrap().len() <= MOST);
    }
}
