//! Code and text name the same frames, codes and numbers.

use std::collections::BTreeSet;
use std::path::Path;

use botmaster::protocol::json_v1::*;

use crate::golden;

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    std::fs::read_to_string(path).expect("docs/protocol.md")
}

/// The part of the text below the heading `## heading`.
fn section(heading: &str) -> String {
    let text = text();
    let start = format!("\n## {heading}\n");
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap().to_owned()
}

fn documented(side: &str) -> BTreeSet<String> {
    let heading = if side == "worker" { "Frames of the worker" } else { "Frames of the master" };
    section(heading)
        .lines()
        .filter_map(|line| Some(line.strip_prefix("### `")?.strip_suffix('`')?.to_owned()))
        .collect()
}

fn golden_kinds(side: &str) -> BTreeSet<String> {
    golden::read(&format!("{side}-good.jsonl"))
        .iter()
        .map(|line| golden::kind(side, line).to_owned())
        .collect()
}

/// Every type of the code, by its own list of them.
fn known(side: &str) -> BTreeSet<String> {
    let kinds = if side == "worker" { WorkerFrame::KINDS } else { MasterFrame::KINDS };
    kinds.iter().map(|kind| (*kind).to_owned()).collect()
}

#[test]
fn every_frame_is_in_the_code_the_text_and_the_golden_set() {
    for side in ["worker", "master"] {
        assert_eq!(documented(side), known(side), "text and code, {side}");
        assert_eq!(golden_kinds(side), known(side), "golden set and code, {side}");
        for kind in known(side) {
            let bare = format!("{{\"t\":\"{kind}\"}}");
            let code = golden::again(side, bare.as_bytes()).expect_err("fields are missing").code();
            assert_eq!(code, "malformed", "the decoder knows `{kind}`");
        }
    }
}

#[test]
fn examples_in_the_text_are_frames() {
    for (side, heading) in [("worker", "Frames of the worker"), ("master", "Frames of the master")]
    {
        let section = section(heading);
        let mut kinds = BTreeSet::new();
        for line in section.lines().filter(|line| line.starts_with('{')) {
            let again = golden::again(side, line.as_bytes());
            assert_eq!(again.as_deref(), Ok(line), "{line}");
            kinds.insert(golden::kind(side, line).to_owned());
        }
        assert_eq!(kinds, known(side), "each frame has an example");
    }
}

#[test]
fn fields_of_the_golden_frames_are_in_the_text() {
    for (side, heading) in [("worker", "Frames of the worker"), ("master", "Frames of the master")]
    {
        let section = section(heading);
        for line in golden::read(&format!("{side}-good.jsonl")) {
            let frame: serde_json::Value = serde_json::from_str(&line).unwrap();
            let kind = frame["t"].as_str().unwrap();
            let part = section.split("\n### `").find(|part| part.starts_with(kind)).unwrap();
            for field in frame.as_object().unwrap().keys().filter(|field| *field != "t") {
                assert!(part.contains(&format!("| `{field}` |")), "`{kind}` says `{field}`");
            }
        }
    }
}

#[test]
fn limits_of_the_code_are_in_the_text() {
    let text = section("Framing");
    for number in [MAX_LINE_BEFORE_ATTACH, MAX_LINE, MAX_DEPTH, MAX_ELEMENTS] {
        assert!(text.contains(&grouped(number)), "{}", grouped(number));
    }
    let logs = section("Logs");
    assert!(logs.contains(&grouped(LOG_BATCH)));
    assert!(logs.contains(&grouped(usize::try_from(WINDOW).unwrap())));
}

/// 1234567 as `1,234,567`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
