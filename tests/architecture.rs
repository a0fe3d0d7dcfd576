//! The rules of the tree that a compiler does not hold: who may name whom, what
//! the core never touches, how long a file may be, and that the documents name
//! only what there is. `ARCHITECTURE.md` gives the reasons.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each top part of `src/` with what it may name by a `crate::` path, besides
/// itself. `*` is everything. A new part needs a row here.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("messages", &["core", "protocol", "settings", "store", "telemetry"]),
    ("provisioning", &["clock", "core", "settings", "store", "telemetry"]),
    ("protocol", &["core"]),
    ("settings", &["core"]),
    ("store", &["clock", "core", "events", "faults", "settings", "spawn", "telemetry"]),
    ("events", &["core", "store"]),
    ("board", &["core"]),
    ("clock", &["core"]),
    ("faults", &[]),
    ("spawn", &["telemetry"]),
    ("telemetry", &[]),
    (
        "actors",
        &[
            "board",
            "clock",
            "core",
            "events",
            "faults",
            "messages",
            "protocol",
            "provisioning",
            "settings",
            "spawn",
            "store",
            "telemetry",
        ],
    ),
    (
        "web",
        &[
            "board",
            "clock",
            "core",
            "events",
            "messages",
            "settings",
            "spawn",
            "store",
            "telemetry",
        ],
    ),
    ("worker", &["clock", "core", "faults", "protocol", "spawn", "telemetry"]),
    ("cli", &["app", "core", "messages", "settings", "telemetry", "web", "worker"]),
    (
        "testing",
        &[
            "board",
            "clock",
            "core",
            "events",
            "messages",
            "protocol",
            "settings",
            "spawn",
            "store",
            "telemetry",
        ],
    ),
    ("app", &["*"]),
    ("main", &["*"]),
    ("lib", &["*"]),
];

/// Words that must not appear in the code of `src/core/`, each with the right
/// door, and the one file that may use it all the same.
const NEVER_IN_CORE: &[(&str, &str, &str)] = &[
    ("actix", "the core knows no actors: return an effect", ""),
    ("tokio", "the core waits for nothing: return an effect or a deadline", ""),
    ("Instant", "time is given to the core: take `now` as an argument", ""),
    ("SystemTime", "time is given to the core: take `now` as an argument", ""),
    ("HashMap", "two runs must agree: use BTreeMap", ""),
    ("HashSet", "two runs must agree: use BTreeSet", ""),
    ("rand", "chance is seeded: use core::rng::Rng", "src/core/rng.rs"),
];

/// Longest file, in lines.
const MAX_LINES: usize = 900;

/// First folders of the paths that documents are checked for.
const DOCUMENTED: &[&str] = &[
    ".ci/",
    ".config/",
    "bench/",
    "config/",
    "docs/",
    "migrations/",
    "proof/",
    "sim/",
    "src/",
    "tests/",
    "xtask/",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder with this extension, with their paths from the root.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let shown = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((shown, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The code of a Rust file: comments and the insides of texts become blanks, so
/// that places stay what they are.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if rest[0] == b'"' {
            quoted(rest)
        } else if let Some(length) = raw_text(bytes, at) {
            length
        } else if rest[0] == b'\'' {
            character(rest)
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    String::from_utf8(code).unwrap()
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_text(bytes: &[u8], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map_or(b' ', |before| bytes[before]);
    let in_a_word = (before.is_ascii_alphanumeric() && before != b'b') || before == b'_';
    if bytes[at] != b'r' || in_a_word {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(at + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let begin = at + 2 + hashes;
    let length = bytes[begin..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(bytes.len() - at, |length| begin + length + end.len() - at))
}

/// Length of a character literal; one byte for a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let end = rest.iter().skip(3).position(|byte| *byte == b'\'');
        return end.map_or(1, |end| end + 4);
    }
    // One character, of up to four bytes, then the closing quote.
    (2..=5)
        .find(|end| rest.get(*end) == Some(&b'\'') && (*end == 2 || rest[1] >= 0x80))
        .map_or(1, |end| end + 1)
}

/// The top parts that a file's code names, with the lines where it does.
fn names(file: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate", "botmaster"] {
        for at in words(code, prefix) {
            // `botmaster` is also a word; only as the head of a path is it us.
            if let Some(rest) = code[at + prefix.len()..].trim_start().strip_prefix("::") {
                found.extend(heads(rest).into_iter().map(|head| (line_of(code, at), head)));
            }
        }
    }
    for at in words(code, "super") {
        let mut rest = &code[at..];
        let mut ups = 0;
        while let Some(next) = rest.strip_prefix("super::") {
            ups += 1;
            rest = next;
        }
        // A chain that reaches the root leaves its own part.
        if ups > 0 && ups == module_depth(file) && !code[..at].ends_with("super::") {
            found.extend(heads(rest).into_iter().map(|head| (line_of(code, at), head)));
        }
    }
    found.sort();
    found.dedup();
    // What is no part is a macro or an item that lib.rs has.
    found.retain(|(_, head)| MAY_NAME.iter().any(|(name, _)| name == head));
    found
}

/// How many `super::` lead from a file's module to the root of the crate.
fn module_depth(file: &str) -> usize {
    let parts: Vec<&str> = file.trim_start_matches("src/").split('/').collect();
    if parts.last() == Some(&"mod.rs") { parts.len() - 1 } else { parts.len() }
}

/// Places where a word stands alone.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !is_part(code[..*at].chars().next_back())
            && !is_part(code[at + word.len()..].chars().next())
    })
}

/// The first names after `crate::`: one, or those of a group in braces.
fn heads(rest: &str) -> Vec<String> {
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        let head: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        return if head.is_empty() { Vec::new() } else { vec![head] };
    };
    let (mut depth, mut item, mut items) = (1, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        item.push(c);
    }
    items.push(item);
    items.iter().flat_map(|item| heads(item)).collect()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The part of `src/` that a file belongs to.
fn part_of(file: &str) -> &str {
    let inside = file.trim_start_matches("src/");
    inside.split('/').next().unwrap().trim_end_matches(".rs")
}

/// What one file does that the table forbids.
fn broken_imports(file: &str, text: &str) -> Vec<String> {
    let part = part_of(file);
    let Some((_, may)) = MAY_NAME.iter().find(|(name, _)| *name == part) else {
        return vec![format!(
            "{file}:1: `{part}` has no row in MAY_NAME of tests/architecture.rs; add one"
        )];
    };
    let code = code_of(text);
    let tests_begin = code.find("#[cfg(test)]").map_or(usize::MAX, |at| line_of(&code, at));
    names(file, &code)
        .into_iter()
        .filter(|(line, named)| {
            let allowed = named == part || may.contains(&"*") || may.contains(&named.as_str());
            let in_tests = named == "testing" && *line > tests_begin;
            !allowed && !in_tests
        })
        .map(|(line, named)| {
            format!("{file}:{line}: `{part}` must not name `{named}` (it may name: {may:?})")
        })
        .collect()
}

/// What one file of the core uses that the core must not.
fn broken_core(file: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    NEVER_IN_CORE
        .iter()
        .filter(|(_, _, excepted)| *excepted != file)
        .flat_map(|(word, door, _)| {
            words(&code, word)
                .map(|at| format!("{file}:{}: `{word}` in the core: {door}", line_of(&code, at)))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn too_long(file: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_LINES)
        .then(|| format!("{file}:{lines}: longer than {MAX_LINES} lines; split it by what it owns"))
}

/// Paths in backticks that look like places in this tree, with their lines.
fn documented_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            let looks = DOCUMENTED.iter().any(|folder| quoted.starts_with(folder));
            let pattern = |c: char| c.is_whitespace() || "*{}<>$…".contains(c);
            if looks && !quoted.contains(pattern) {
                found.push((index + 1, quoted.to_owned()));
            }
        }
    }
    found
}

fn missing_paths(root: &Path, document: &str, text: &str) -> Vec<String> {
    documented_paths(text)
        .into_iter()
        .filter(|(_, path)| {
            // `src/x.rs:12` and `src/x.rs::name` name places in a file.
            let file = path.split(':').next().unwrap_or(path);
            !root.join(file).exists()
        })
        .map(|(line, path)| format!("{document}:{line}: names `{path}`, which is not there"))
        .collect()
}

fn documents() -> Vec<(String, String)> {
    let mut found: Vec<_> = ["README.md", "ARCHITECTURE.md"]
        .iter()
        .map(|name| ((*name).to_owned(), fs::read_to_string(root().join(name)).unwrap()))
        .collect();
    found.extend(files("docs", "md"));
    found.extend(files("bench", "md"));
    assert!(found.len() >= 4, "the documents were not found");
    found
}

fn expect_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn each_part_names_only_what_it_may() {
    let sources = files("src", "rs");
    assert!(sources.len() > 10, "the sources were not found");
    expect_none(sources.iter().flat_map(|(file, text)| broken_imports(file, text)).collect());
}

#[test]
fn the_core_knows_no_actors_no_clock_and_no_chance() {
    let sources = files("src/core", "rs");
    assert!(sources.len() > 3, "the core was not found");
    expect_none(sources.iter().flat_map(|(file, text)| broken_core(file, text)).collect());
}

#[test]
fn no_file_is_too_long_to_read() {
    let all =
        ["src", "tests", "proof", "xtask", "bench"].iter().flat_map(|folder| files(folder, "rs"));
    expect_none(all.filter_map(|(file, text)| too_long(&file, &text)).collect());
}

#[test]
fn documents_name_only_what_is_there() {
    let root = root();
    let all = documents();
    expect_none(all.iter().flat_map(|(name, text)| missing_paths(&root, name, text)).collect());
}

#[test]
fn the_code_map_has_every_part_of_the_source() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sources = files("src", "rs");
    let mut missing: Vec<&str> = sources
        .iter()
        .map(|(file, _)| part_of(file))
        .filter(|part| !map.contains(&format!("`{part}`")))
        .collect();
    missing.dedup();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not mention: {missing:?}");
}

#[test]
fn a_planted_import_is_caught_in_each_of_its_forms() {
    let caught = |file: &str, text: &str| broken_imports(file, text).join("\n");
    let plain = caught("src/core/builder/queue.rs", "use std::fmt;\nuse crate::store::Change;\n");
    assert!(
        plain.starts_with("src/core/builder/queue.rs:2: `core` must not name `store`"),
        "{plain}"
    );
    let group = "use crate::{\n    core::ids::BuildId,\n    actors::{Builder, Ping},\n};\n";
    assert!(caught("src/web/api.rs", group).contains("`web` must not name `actors`"));
    let inline = "fn f() { let x = crate::web::serve(); }";
    assert!(caught("src/actors/builder.rs", inline).contains("`actors` must not name `web`"));
    let upward = "use super::super::store::Change;\n";
    assert!(caught("src/core/builder.rs", upward).contains("`core` must not name `store`"));
    let own_name = "use botmaster::actors::Builder;\n";
    assert!(caught("src/worker/agent.rs", own_name).contains("`worker` must not name `actors`"));
    let fakes = "use crate::testing::A;\n#[cfg(test)]\nmod tests { use crate::testing::B; }";
    assert_eq!(broken_imports("src/web/sse.rs", fakes).len(), 1);
    assert!(caught("src/plugins/mod.rs", "").contains("has no row"));
}

#[test]
fn what_is_allowed_or_only_talked_about_is_not_caught() {
    let text = "//! See crate::web.\n/* crate::web */\nuse crate::core::ids::BuildId;\n\
                const TEXT: &str = \"crate::web \\\" crate::web\";\n\
                const RAW: &str = r#\"crate::web \" crate::web\"#;\n\
                fn f<'a>(x: &'a str) -> char { '\"' }\nuse crate::actors::ping::Ping;\n\
                const QUOTE: char = '\\'';\nuse super::ping;\n";
    assert_eq!(broken_imports("src/actors/builder.rs", text), Vec::<String>::new());
    assert_eq!(broken_imports("src/app.rs", "use crate::web::serve;"), Vec::<String>::new());
}

#[test]
fn a_planted_clock_map_or_dice_in_the_core_is_caught() {
    let text = "use std::collections::HashMap;\n// HashMap is fine here.\n\
                fn now() { std::time::Instant::now(); }\nuse rand::Rng;\nlet operand = 1;\n";
    let caught = broken_core("src/core/ping.rs", text);
    let lines: Vec<&str> = caught.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(lines, ["src/core/ping.rs:3:", "src/core/ping.rs:1:", "src/core/ping.rs:4:"]);
    assert_eq!(broken_core("src/core/rng.rs", "use rand::Rng;"), Vec::<String>::new());
}

#[test]
fn a_long_file_and_a_wrong_path_are_caught() {
    assert_eq!(too_long("src/a.rs", &"x\n".repeat(MAX_LINES)), None);
    assert!(too_long("src/a.rs", &"x\n".repeat(MAX_LINES + 1)).is_some());
    let text = "See `src/lib.rs`, `src/nothing.rs` and `docs/{a,b}.md`.\n```\n`src/no.rs`\n```\n\
                Also `tests/architecture.rs:1` and `src/nowhere/`.\n";
    assert_eq!(
        missing_paths(&root(), "X.md", text),
        [
            "X.md:1: names `src/nothing.rs`, which is not there",
            "X.md:5: names `src/nowhere/`, which is not there"
        ]
    );
}
