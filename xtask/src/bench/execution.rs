//! The execution log of the load process: which jobs began and ended, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// One line: when, what, which job.
#[derive(Clone, PartialEq, Debug)]
struct Line {
    at: f64,
    word: String,
    token: String,
}

/// What the log says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Execution {
    lines: Vec<Line>,
}

impl Execution {
    /// Reads it; a line that is only half written is left out.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let line = |line: &str| {
            let mut words = line.split(' ');
            let at = words.next()?.parse().ok()?;
            let (word, token) = (words.next()?.to_owned(), words.next()?.to_owned());
            words.next().is_none().then_some(Line { at, word, token })
        };
        Self { lines: whole.lines().filter_map(line).collect() }
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// How many jobs were started, and how many of them run.
    #[must_use]
    pub fn started_and_running(&self) -> (usize, usize) {
        let starts = self.lines.iter().filter(|line| line.word == "start").count();
        (starts, (2 * starts).saturating_sub(self.lines.len()))
    }

    /// How often each job was said to have done that.
    #[must_use]
    pub fn times(&self, word: &str) -> BTreeMap<&str, u64> {
        let mut times = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.word == word) {
            *times.entry(line.token.as_str()).or_default() += 1;
        }
        times
    }

    /// The jobs that ran at that moment.
    #[must_use]
    pub fn running_at(&self, moment: f64) -> BTreeSet<&str> {
        let mut running = BTreeSet::new();
        for line in self.lines.iter().filter(|line| line.at <= moment) {
            if line.word == "start" {
                running.insert(line.token.as_str());
            } else {
                running.remove(line.token.as_str());
            }
        }
        running
    }

    /// When the first job was started after that moment.
    #[must_use]
    pub fn first_start_after(&self, moment: f64) -> Option<f64> {
        let starts = self.lines.iter().filter(|line| line.word == "start" && line.at > moment);
        starts.map(|line| line.at).reduce(f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_who_ran_when_and_how_often() {
        let log = Execution::parse(
            "1.0 start 1\n1.5 start 2\n3.0 finish 1\n3.1 start 3\n3.5 interrupt 2\n\
             4.0 start 2\n6.0 finish 2\n9.9 fin",
        );
        assert_eq!(log.len(), 7);
        assert_eq!(log.started_and_running(), (4, 1));
        assert_eq!(log.running_at(3.2), BTreeSet::from(["2", "3"]));
        assert_eq!(log.running_at(0.5), BTreeSet::new());
        assert_eq!(log.times("start"), BTreeMap::from([("1", 1), ("2", 2), ("3", 1)]));
        assert_eq!(log.times("interrupt"), BTreeMap::from([("2", 1)]));
        assert_eq!(log.first_start_after(3.1), Some(4.0));
        assert_eq!(log.first_start_after(4.0), None);
        assert_eq!(Execution::parse("nonsense\n\n1 2\n").len(), 0);
        assert_eq!(Execution::parse("").started_and_running(), (0, 0));
    }
}
