//! `cargo xtask rows`: which tests carry which row of the row tables, and
//! whether they passed.
//!
//! A row is a table line of a document whose first cell is an id; a test carries
//! it when the id is a word of its name. Only a test that ran and passed counts.
//! Deliberately absent: any judgement of whether the test is a good one.

mod documents;
pub mod results;
mod tree;

use std::path::PathBuf;

use documents::{FAULTS, LATER, PARTLY, SEED, carries, is_judged};
use results::Ran;
use serde_json::{Value, json};
use tree::Test;

use crate::report;

/// What was asked for.
#[derive(PartialEq, Eq, Debug, Default)]
struct Options {
    /// Only the rows without a test.
    missing: bool,
    /// The fault matrix instead of what is needed.
    faults: bool,
    /// Do not run anything: which tests are there.
    list: bool,
    /// A row without a test is a failure also with `list` or `faults`.
    strict: bool,
    /// Results of a run that was made already.
    results: Option<PathBuf>,
}

impl Options {
    /// Whether a row without a test ends the command with a failure.
    fn judges(&self) -> bool {
        self.strict || !(self.list || self.faults)
    }
}

/// Prints the rows with their tests. False when a row that needs one has no
/// test that passed.
///
/// # Errors
/// When the arguments are wrong, a document cannot be read, or the tests could
/// not be run.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("rows", arguments) {
        return Ok(true);
    }
    let options = parse(arguments)?;
    let rows = if options.faults { documents::rows_of(FAULTS)? } else { documents::needed()? };
    let tests = tree::tests_of_the_tree()?;
    let ran = match (&options.results, options.list) {
        (Some(file), _) => Some(results::read(file)?),
        (None, true) => None,
        (None, false) => Some(results::run(&rows)?),
    };
    let mut missing = Vec::new();
    for id in &rows {
        let (line, has) = row(id, &tests, ran.as_deref());
        if !has {
            missing.push(id.clone());
        }
        if !has || !options.missing {
            report::line(&line);
        }
    }
    let unknown = unknown_ids(&tests)?;
    for test in &unknown {
        report::say(&format!("no row has the id that this name begins with: {}", test.shown()));
    }
    // Of the fault matrix some groups wait for what they are about.
    let counts = |id: &&String| !options.faults || is_judged(id);
    let failing: Vec<String> = missing.iter().filter(counts).cloned().collect();
    let ok = (failing.is_empty() && unknown.is_empty()) || !options.judges();
    if !missing.is_empty() {
        report::say(&format!("no test that counts: {}", missing.join(" ")));
    }
    if options.faults && !failing.is_empty() {
        report::say(&format!("of these must have one: {}", failing.join(" ")));
    }
    let document = if options.faults { FAULTS.to_owned() } else { format!("{SEED}, FC rows") };
    report::line(&json!({
        "summary": "rows", "ok": ok, "document": document, "rows": rows.len(),
        "with_tests": rows.len() - missing.len(), "missing": missing.len(),
        "counted": if ran.is_some() { "tests that ran and passed" } else { "tests that are there" },
        "must_have_one": failing,
        "later": reasons(LATER),
        "partly": reasons(PARTLY),
        "unknown_ids": unknown.iter().map(Test::shown).collect::<Vec<_>>(),
    }));
    Ok(ok)
}

fn reasons(list: &[(&str, &str)]) -> Vec<String> {
    list.iter().map(|(id, why)| format!("{id}: {why}")).collect()
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--missing" => options.missing = true,
            "--faults" => options.faults = true,
            "--list" => options.list = true,
            "--strict" => options.strict = true,
            "--results" => match rest.next() {
                Some(file) => options.results = Some(PathBuf::from(file)),
                None => return Err("--results needs a file: nextest's junit.xml".to_owned()),
            },
            other => return Err(format!("`{other}` is not known; see `cargo xtask help rows`")),
        }
    }
    if options.list && options.results.is_some() {
        return Err("--list looks at no results; leave out one of the two".to_owned());
    }
    Ok(options)
}

/// One row's line, and whether it has a test that counts.
fn row(id: &str, tests: &[Test], ran: Option<&[Ran]>) -> (Value, bool) {
    let there = || tests.iter().filter(|test| carries(&test.name, id));
    let Some(ran) = ran else {
        let shown: Vec<String> = there().map(Test::shown).collect();
        return (json!({ "row": id, "tests": shown }), there().any(|test| !test.ignored));
    };
    let of = |passed: bool| -> Vec<String> {
        results::of_row(ran, id).filter(|t| t.passed == passed).map(Ran::shown).collect()
    };
    let (passed, failed) = (of(true), of(false));
    let has = !passed.is_empty() && failed.is_empty();
    let not_run: Vec<String> = there()
        .filter(|test| !results::of_row(ran, id).any(|t| t.name() == test.name))
        .map(Test::shown)
        .collect();
    let mut line = json!({ "row": id, "passed": passed });
    if let Some(fields) = line.as_object_mut() {
        for (key, list) in [("failed", failed), ("not_run", not_run)] {
            if !list.is_empty() {
                fields.insert(key.to_owned(), Value::from(list));
            }
        }
    }
    (line, has)
}

/// Tests whose name begins with what looks like a row's id but is none.
fn unknown_ids(tests: &[Test]) -> Result<Vec<Test>, String> {
    let mut known = documents::rows_of(SEED)?;
    known.extend(documents::rows_of(FAULTS)?);
    let unknown =
        |test: &&Test| documents::first_id(&test.name).is_some_and(|id| !known.contains(&id));
    Ok(tests.iter().filter(unknown).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Options, String> {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn ran(path: &str, passed: bool) -> Ran {
        Ran { binary: "b".to_owned(), path: path.to_owned(), passed }
    }

    #[test]
    fn a_row_has_a_test_only_when_one_ran_and_none_failed() {
        let all = [ran("m::b08_one", true), ran("m::b09_two", false), ran("b08_b10_x", true)];
        let line = |id: &str| row(id, &[], Some(&all));
        assert_eq!(
            line("B08"),
            (json!({ "row": "B08", "passed": ["b m::b08_one", "b b08_b10_x"] }), true)
        );
        assert_eq!(
            line("B09"),
            (json!({ "row": "B09", "passed": [], "failed": ["b m::b09_two"] }), false)
        );
        assert!(line("B10").1);
        assert_eq!(line("B11"), (json!({ "row": "B11", "passed": [] }), false));
        let one_failed = [ran("b08_a", true), ran("b08_b", false)];
        assert!(!row("B08", &[], Some(&one_failed)).1);
    }

    #[test]
    fn only_the_plain_command_and_strict_ones_judge() {
        assert!(words("").unwrap().judges());
        assert!(words("--missing").unwrap().judges());
        assert!(words("--results x.xml").unwrap().judges());
        assert!(!words("--list").unwrap().judges());
        assert!(!words("--faults").unwrap().judges());
        assert!(words("--faults --strict").unwrap().judges());
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert!(words("--results").unwrap_err().contains("needs a file"));
        assert!(words("--list --results f").unwrap_err().contains("leave out one"));
        assert!(words("--al").unwrap_err().contains("`--al`"));
    }
}
