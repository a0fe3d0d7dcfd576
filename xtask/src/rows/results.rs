//! What became of the tests: nextest's results, and how to make some.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::documents::carries;
use crate::{root, tools};

/// The profile of a run for the rows alone.
const PROFILE: &str = "rows";

/// One test that ran.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ran {
    /// Its binary: `botmaster::core`.
    pub binary: String,
    /// Its path in there: `builder_stories::b08_…`.
    pub path: String,
    /// Whether it passed.
    pub passed: bool,
}

impl Ran {
    /// Its function's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit("::").next().unwrap_or_default()
    }

    /// For people.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{} {}", self.binary, self.path)
    }
}

/// Where nextest leaves the results of a profile's last run.
#[must_use]
pub fn file_of(profile: &str) -> PathBuf {
    root::root().join("target/nextest").join(profile).join("junit.xml")
}

/// Runs the tests that carry one of these rows, and reads what became of them.
///
/// # Errors
/// When nextest is absent, nothing could be built, or no results were left.
pub fn run(rows: &[String]) -> Result<Vec<Ran>, String> {
    let file = file_of(PROFILE);
    // Nothing of an earlier run may be taken for this one's.
    let _ = std::fs::remove_file(&file);
    let mut command = tools::need(tools::NEXTEST)?;
    command.args(["run", "--workspace", "--profile", PROFILE, "--no-tests", "pass"]);
    command.args(["--filter-expr", &filter(rows)]);
    let status = command.status().map_err(|error| format!("could not start nextest: {error}"))?;
    if !file.exists() {
        return Err(format!("nextest ended with {status} and left no results"));
    }
    read(&file)
}

/// Tests of which an id is a word of the name.
fn filter(rows: &[String]) -> String {
    let ids: Vec<String> = rows.iter().map(|id| id.to_ascii_lowercase()).collect();
    format!("test(/(^|[:_])({})(_|$)/)", ids.join("|"))
}

/// Reads a file of results.
///
/// # Errors
/// When it cannot be read or tells of no test.
pub fn read(file: &Path) -> Result<Vec<Ran>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        format!(
            "cannot read the results in {}: {error}; `cargo xtask test` leaves them, or call \
             `cargo xtask rows` without --results",
            file.display()
        )
    })?;
    let ran = parse(&text);
    if ran.is_empty() {
        return Err(format!("{} tells of no test that ran", file.display()));
    }
    Ok(ran)
}

/// The test cases of a JUnit report as nextest writes it. A test that was
/// tried again counts by its last try; a skipped one did not run.
fn parse(xml: &str) -> Vec<Ran> {
    let mut ran = BTreeSet::new();
    for part in xml.split("<testcase ").skip(1) {
        let Some((head, rest)) = part.split_once('>') else { continue };
        let (Some(path), Some(binary)) = (attribute(head, "name"), attribute(head, "classname"))
        else {
            continue;
        };
        let closed = head.ends_with('/');
        let inside = if closed { "" } else { rest.split("</testcase>").next().unwrap_or(rest) };
        if inside.contains("<skipped") {
            continue;
        }
        let failed = inside.contains("<failure") || inside.contains("<error");
        ran.insert(Ran { binary, path, passed: !failed });
    }
    ran.into_iter().collect()
}

fn attribute(head: &str, name: &str) -> Option<String> {
    let (_, rest) = head.split_once(&format!("{name}=\""))?;
    // `name` must not be found inside of `classname`.
    let at = head.len() - rest.len() - name.len() - 2;
    if at > 0 && !head.get(..at)?.ends_with(' ') {
        let later = head.get(at + 1..)?;
        return attribute(later, name);
    }
    let value = rest.split('"').next()?;
    Some(
        value
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&"),
    )
}

/// The tests that carry a row.
pub fn of_row<'a>(ran: &'a [Ran], id: &'a str) -> impl Iterator<Item = &'a Ran> {
    ran.iter().filter(move |test| carries(test.name(), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="rows" tests="5" failures="2" errors="0">
    <testsuite name="botmaster::core" tests="3">
        <testcase name="stories::b08_requeues" classname="botmaster::core" time="0.01">
        </testcase>
        <testcase classname="botmaster::core" name="stories::b09_merges" time="0.02">
            <failure message="thread panicked" type="test failure">left &lt;testcase&gt;</failure>
        </testcase>
        <testcase name="stories::b10_lists" classname="botmaster::core" time="0.02"/>
    </testsuite>
    <testsuite name="botmaster::store" tests="2">
        <testcase name="b08_other" classname="botmaster::store" time="0.01">
            <flakyFailure message="first try" type="test failure">x</flakyFailure>
        </testcase>
        <testcase name="b11_not_run" classname="botmaster::store"><skipped/></testcase>
        <testcase name="b12_hung" classname="botmaster::store">
            <error type="test timeout"/>
        </testcase>
    </testsuite>
</testsuites>
"#;

    #[test]
    fn only_tests_that_ran_are_there_and_only_those_that_passed_have_passed() {
        let ran = parse(REPORT);
        let passed: Vec<_> = ran.iter().filter(|t| t.passed).map(Ran::shown).collect();
        assert_eq!(
            passed,
            [
                "botmaster::core stories::b08_requeues",
                "botmaster::core stories::b10_lists",
                "botmaster::store b08_other",
            ]
        );
        let failed: Vec<_> = ran.iter().filter(|t| !t.passed).map(Ran::name).collect();
        assert_eq!(failed, ["b09_merges", "b12_hung"]);
        assert_eq!(of_row(&ran, "B08").count(), 2);
        assert_eq!(of_row(&ran, "B11").count(), 0);
    }

    #[test]
    fn a_report_without_a_test_is_an_error_and_so_is_none_at_all() {
        let folder = std::env::temp_dir().join(format!("xtask-results-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("junit.xml");
        std::fs::write(&file, "<testsuites/>").unwrap();
        assert!(read(&file).unwrap_err().contains("no test that ran"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(read(&file).unwrap_err().contains("cannot read the results"));
    }

    #[test]
    fn the_filter_takes_ids_as_words_of_a_name() {
        assert_eq!(
            filter(&["B08".to_owned(), "FC01".to_owned()]),
            "test(/(^|[:_])(b08|fc01)(_|$)/)"
        );
    }
}
