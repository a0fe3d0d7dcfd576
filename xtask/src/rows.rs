//! `cargo xtask rows`: which tests carry which row of the row tables.
//!
//! A row is a table line of a document whose first cell is an id; a test carries
//! it when the id is a word of its name. Deliberately absent: any judgement of
//! whether the test is a good one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{report, root};

/// A test function found in the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Test {
    file: String,
    line: usize,
    name: String,
    ignored: bool,
}

impl Test {
    fn shown(&self) -> String {
        let ignored = if self.ignored { " (ignored)" } else { "" };
        format!("{}:{} {}{ignored}", self.file, self.line, self.name)
    }
}

/// Prints the rows with their tests. Always true: a missing test is no failure
/// of this command.
///
/// # Errors
/// When the arguments are wrong or the document cannot be read.
pub fn run(arguments: &[String]) -> Result<bool, String> {
    if crate::help::wanted("rows", arguments) {
        return Ok(true);
    }
    let (mut only_missing, mut faults) = (false, false);
    for argument in arguments {
        match argument.as_str() {
            "--missing" => only_missing = true,
            "--faults" => faults = true,
            other => return Err(format!("`{other}` is not known; see `cargo xtask help rows`")),
        }
    }
    let path = if faults { "docs/fault-matrix.md" } else { "docs/seed-rows.md" };
    let text = std::fs::read_to_string(root::root().join(path))
        .map_err(|error| format!("cannot read {path}: {error}"))?;
    let rows = row_ids(&text);
    let tests = tests_of_the_tree()?;
    let mut missing = 0;
    for id in &rows {
        let carriers: Vec<&Test> = tests.iter().filter(|test| carries(&test.name, id)).collect();
        let counted = carriers.iter().filter(|test| !test.ignored).count();
        missing += usize::from(counted == 0);
        if counted == 0 || !only_missing {
            let shown: Vec<String> = carriers.iter().map(|test| test.shown()).collect();
            report::line(&json!({ "row": id, "tests": shown }));
        }
    }
    let unknown = unknown_ids(&tests)?;
    for test in &unknown {
        report::say(&format!("no row has the id that this name begins with: {}", test.shown()));
    }
    report::line(&json!({
        "summary": "rows", "document": path, "rows": rows.len(),
        "with_tests": rows.len() - missing, "missing": missing,
        "unknown_ids": unknown.iter().map(Test::shown).collect::<Vec<_>>(),
    }));
    Ok(true)
}

/// Tests whose name begins with what looks like a row's id but is none.
fn unknown_ids(tests: &[Test]) -> Result<Vec<Test>, String> {
    let mut known = Vec::new();
    for path in ["docs/seed-rows.md", "docs/fault-matrix.md"] {
        let text = std::fs::read_to_string(root::root().join(path))
            .map_err(|error| format!("cannot read {path}: {error}"))?;
        known.extend(row_ids(&text));
    }
    Ok(tests
        .iter()
        .filter(|test| {
            let first = test.name.split('_').next().unwrap_or_default().to_ascii_uppercase();
            is_id(&first) && !known.contains(&first)
        })
        .cloned()
        .collect())
}

/// The ids in the first cells of a document's tables, in order.
fn row_ids(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .map(str::trim)
        .filter(|cell| is_id(cell))
        .map(str::to_owned)
        .collect()
}

/// One or two capitals, then two digits: `B08`, `FR14`. The invariants (`I10`)
/// hold in every test and are no rows.
fn is_id(word: &str) -> bool {
    let letters = word.bytes().take_while(u8::is_ascii_uppercase).count();
    let digits = word.bytes().skip(letters).filter(u8::is_ascii_digit).count();
    (1..=2).contains(&letters)
        && digits == 2
        && word.len() == letters + 2
        && !(letters == 1 && word.starts_with('I'))
}

fn carries(name: &str, id: &str) -> bool {
    name.split('_').any(|word| word.eq_ignore_ascii_case(id))
}

fn tests_of_the_tree() -> Result<Vec<Test>, String> {
    let root = root::root();
    let mut found = Vec::new();
    for folder in ["src", "tests", "sim", "xtask/src", "bench"] {
        for path in rust_files(&root.join(folder))? {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let shown = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
            found.extend(tests_of(&shown, &text));
        }
    }
    Ok(found)
}

/// Rust files below a folder, sorted; none when it is not there.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.insert(path, ());
            }
        }
    }
    Ok(files.into_keys().collect())
}

/// The test functions of one file: those with an attribute that ends in `test`
/// (`#[test]`, `#[tokio::test(…)]`) directly above.
fn tests_of(file: &str, text: &str) -> Vec<Test> {
    let mut found = Vec::new();
    let (mut is_test, mut ignored) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(attribute) = line.strip_prefix("#[") {
            let path = attribute.split(['(', ']', '=']).next().unwrap_or_default().trim();
            is_test |= path == "test" || path.ends_with("::test");
            ignored |= path == "ignore";
        } else if let Some(name) = function_name(line) {
            if is_test {
                found.push(Test { file: file.to_owned(), line: index + 1, name, ignored });
            }
            (is_test, ignored) = (false, false);
        } else if line.ends_with('}') || line.ends_with(';') {
            (is_test, ignored) = (false, false);
        }
    }
    found
}

/// The name when the line begins a function.
fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().peekable();
    while words.peek().is_some_and(|word| matches!(*word, "pub" | "async" | "pub(crate)")) {
        words.next();
    }
    if words.next() != Some("fn") {
        return None;
    }
    let name: String =
        words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_the_first_cells_only() {
        let text = "# T\n| id | what |\n| --- | --- |\n| B01 | as B02 says |\n|B03| x |\n\
                    | FA10 | y | z |\n| I1 | no row |\n| I10 | nor this |\n| word | B09 |\n";
        assert_eq!(row_ids(text), ["B01", "FA10"]);
    }

    #[test]
    fn a_test_carries_each_id_that_is_a_word_of_its_name() {
        assert!(carries("b08_failed_ping_requeues", "B08"));
        assert!(carries("fr01_b25_worker_comes_back", "B25"));
        assert!(!carries("b081_other", "B08"));
        assert!(!carries("web08_other", "B08"));
    }

    #[test]
    fn tests_are_found_with_their_lines_and_helpers_are_not() {
        let text = concat!(
            "#[",
            "test]\nfn b01_plain() {\n}\n\n/// Says.\n#[tokio::",
            "test(start_paused = true)]\nasync fn fr02_paused() {}\n",
            "fn b03_helper() {}\n#[",
            "test]\n#[ignore = \"slow\"]\nfn b04_slow() {}\n",
            "#[derive(Debug)]\nstruct S;\n// #[",
            "test]\n// fn b05_commented_out() {}\n",
        );
        let found = tests_of("f.rs", text);
        let shown: Vec<String> = found.iter().map(Test::shown).collect();
        assert_eq!(shown, ["f.rs:2 b01_plain", "f.rs:7 fr02_paused", "f.rs:11 b04_slow (ignored)"]);
    }

    #[test]
    fn the_documents_have_the_rows_they_should() {
        for (path, first, at_least) in
            [("docs/seed-rows.md", "B01", 60), ("docs/fault-matrix.md", "FA01", 200)]
        {
            let text = std::fs::read_to_string(root::root().join(path)).unwrap();
            let rows = row_ids(&text);
            assert_eq!(rows.first().map(String::as_str), Some(first));
            assert!(rows.len() >= at_least, "{path} has {} rows", rows.len());
            let mut unique = rows.clone();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), rows.len(), "{path} has an id twice");
        }
    }
}
