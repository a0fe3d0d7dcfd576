//! The rows: table lines of a document whose first cell is an id.

use crate::root;

/// The rows of the seed.
pub const SEED: &str = "docs/seed-rows.md";
/// The rows of what can go wrong.
pub const FAULTS: &str = "docs/fault-matrix.md";

/// Rows of the fault matrix that have to have a test already, beside the
/// seed's …
const NEEDED_FAULTS: &str = "FC";
/// … and these, which `--faults --strict` judges …
const JUDGED_FAULTS: &[&str] = &["FA", "FP", "FB", "FR", "FL", "FF", "FM", "FD", "FT", "FN"];
/// … but for these, whose time has not come.
pub const LATER: &[(&str, &str)] = &[
    ("FC08", "locks are read from the configuration and not enforced yet"),
    ("FC09", "there are no trigger steps yet"),
    ("FC12", "there is one master yet"),
    (
        "FB11",
        "there are no merge policies of people's own yet: those there are cannot panic or wait",
    ),
    ("FB13", "there are no policies of people's own yet: those there are cannot panic or wait"),
    ("FB14", "locks are not enforced yet"),
    ("FB15", "locks are not enforced yet"),
    ("FR20", "there are no trigger steps yet"),
    ("FF06", "there are no trigger steps yet"),
    ("FF10", "there are no reporters yet"),
    ("FL12", "there are no secrets yet"),
    ("FL14", "there are no uploads yet"),
    ("FL15", "there are no uploads yet"),
    ("FL16", "there are no uploads yet"),
    ("FT02", "there are no schedulers yet"),
    ("FN15", "there is no TLS yet"),
    ("FD03", "there is no PostgreSQL yet"),
    ("FD04", "there is no PostgreSQL yet"),
    ("FD06", "there is no PostgreSQL yet"),
    ("FD11", "there is no PostgreSQL yet"),
    ("FT04", "there is one master yet"),
];
/// Rows that have a test, and a half whose time has not come.
pub const PARTLY: &[(&str, &str)] = &[("FR12", "the half with several masters")];

/// The rows that must have a test each: all of the seed's, and those of the
/// fault matrix that are about a reconfiguration.
///
/// # Errors
/// When a document cannot be read.
pub fn needed() -> Result<Vec<String>, String> {
    let mut rows = rows_of(SEED)?;
    rows.extend(
        rows_of(FAULTS)?.into_iter().filter(|id| group(id) == NEEDED_FAULTS && !is_later(id)),
    );
    Ok(rows)
}

fn group(id: &str) -> &str {
    id.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// Whether a row's time has not come.
#[must_use]
pub fn is_later(id: &str) -> bool {
    LATER.iter().any(|(later, _)| *later == id)
}

/// Whether a row of the fault matrix without a test is a failure of
/// `--faults --strict`.
#[must_use]
pub fn is_judged(id: &str) -> bool {
    JUDGED_FAULTS.contains(&group(id)) && !is_later(id)
}

/// The ids of a document's rows, in order.
///
/// # Errors
/// When it cannot be read.
pub fn rows_of(document: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(root::root().join(document))
        .map_err(|error| format!("cannot read {document}: {error}"))?;
    Ok(row_ids(&text))
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
#[must_use]
pub fn is_id(word: &str) -> bool {
    let letters = word.bytes().take_while(u8::is_ascii_uppercase).count();
    let digits = word.bytes().skip(letters).filter(u8::is_ascii_digit).count();
    (1..=2).contains(&letters)
        && digits == 2
        && word.len() == letters + 2
        && !(letters == 1 && word.starts_with('I'))
}

/// Whether a test's name carries this id: as one of its words.
#[must_use]
pub fn carries(name: &str, id: &str) -> bool {
    name.split('_').any(|word| word.eq_ignore_ascii_case(id))
}

/// What a test's name begins with, when that looks like an id.
#[must_use]
pub fn first_id(name: &str) -> Option<String> {
    let first = name.split('_').next().unwrap_or_default().to_ascii_uppercase();
    is_id(&first).then_some(first)
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
        assert_eq!(first_id("b99_unheard_of"), Some("B99".to_owned()));
        assert_eq!(first_id("buildbot_4678_ghosts"), None);
    }

    #[test]
    fn the_documents_have_the_rows_they_should() {
        for (path, first, at_least) in [(SEED, "B01", 60), (FAULTS, "FA01", 200)] {
            let rows = rows_of(path).unwrap();
            assert_eq!(rows.first().map(String::as_str), Some(first));
            assert!(rows.len() >= at_least, "{path} has {} rows", rows.len());
            let mut unique = rows.clone();
            unique.sort();
            unique.dedup();
            assert_eq!(unique.len(), rows.len(), "{path} has an id twice");
        }
    }

    #[test]
    fn what_is_needed_is_the_seed_and_the_reconfiguration() {
        let needed = needed().unwrap();
        assert!(needed.contains(&"B01".to_owned()) && needed.contains(&"FC01".to_owned()));
        assert!(!needed.contains(&"FA01".to_owned()));
        let all = rows_of(FAULTS).unwrap();
        assert!(is_judged("FA01") && is_judged("FR12") && !is_judged("FB14"));
        assert!(!is_judged("FQ01") && !is_judged("FH01") && !is_judged("FS01"));
        assert!(PARTLY.iter().all(|(id, _)| all.contains(&(*id).to_owned()) && is_judged(id)));
        for (later, _) in LATER {
            assert!(all.contains(&(*later).to_owned()), "{later} is no row");
            assert!(!needed.contains(&(*later).to_owned()));
        }
    }
}
