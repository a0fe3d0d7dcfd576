//! The tests that stand in the tree, whether they run or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::root;

/// A test function found in the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Test {
    file: String,
    line: usize,
    /// Its function's name.
    pub name: String,
    /// It does not run by itself.
    pub ignored: bool,
}

impl Test {
    /// Where it is and what it is called, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let ignored = if self.ignored { " (ignored)" } else { "" };
        format!("{}:{} {}{ignored}", self.file, self.line, self.name)
    }
}

/// All tests of the tree, by file and line.
///
/// # Errors
/// When a file cannot be read.
pub fn tests_of_the_tree() -> Result<Vec<Test>, String> {
    let root = root::root();
    let mut found = Vec::new();
    for folder in ["src", "tests", "sim", "proof", "xtask/src", "bench"] {
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
}
