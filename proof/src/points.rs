//! The crash points: those that the code has, and those that the fault matrix
//! wants.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Fault;

/// Points of the fault matrix whose code does not exist yet: uploads, the
/// outbox of reporters, schedulers, pollers, leases between several masters.
pub const LATER: &[&str] = &[
    "upload.temp_written",
    "upload.renamed",
    "upload.noted",
    "outbox.before_send",
    "outbox.after_send",
    "schedule.before_fire",
    "schedule.after_fire",
    "poll.before_position",
    "poll.after_position",
    "lease.renewed",
    "lease.lost",
];

/// Points that the work does not reach yet: a backup, a restore and the cleanup
/// of the history are no part of it. `--point` tries them all the same.
pub const NOT_IN_THE_WORK: &[&str] = &["backup.", "restore.", "cleanup."];

/// Whether the work reaches this point.
#[must_use]
pub fn is_in_the_work(point: &str) -> bool {
    !NOT_IN_THE_WORK.iter().any(|prefix| point.starts_with(prefix))
}

/// Whose process dies at a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The master's.
    Master,
    /// A worker program's, or that of one of its helpers.
    Worker,
}

/// Whose process dies at this point.
#[must_use]
pub fn whose(point: &str) -> Whose {
    let workers = ["worker.", "keeper."];
    if workers.iter().any(|prefix| point.starts_with(prefix)) {
        Whose::Worker
    } else {
        Whose::Master
    }
}

/// The checkout.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The points that the program has: what `crash_point("…")` names in `src/`.
///
/// # Errors
/// When the sources cannot be read.
pub fn in_code() -> Result<BTreeSet<String>, Fault> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        let told = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(told)? {
            let path = entry.map_err(told)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).map_err(told)?;
                found.extend(named(&text));
            }
        }
    }
    Ok(found)
}

fn named(text: &str) -> impl Iterator<Item = String> {
    let calls = text.split("crash_point(").skip(1);
    let names = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    names.filter(|name| name.contains('.')).map(str::to_owned)
}

/// The points that section 5 of the fault matrix names.
///
/// # Errors
/// When it cannot be read or has no such section.
pub fn in_matrix() -> Result<BTreeSet<String>, Fault> {
    let path = root().join("docs/fault-matrix.md");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let section = text.split("\n## 5.").nth(1).and_then(|rest| rest.split("\n## ").next());
    let section = section.ok_or("docs/fault-matrix.md has no section 5")?;
    let is_name = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        let plain = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        parts.len() == 2 && parts.iter().all(plain)
    };
    Ok(section.split('`').skip(1).step_by(2).filter(is_name).map(str::to_owned).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_point_of_the_fault_matrix_is_in_the_code_or_named_as_later() {
        let (code, matrix) = (in_code().unwrap(), in_matrix().unwrap());
        assert!(matrix.len() > 40, "{matrix:?}");
        let later: BTreeSet<String> = LATER.iter().map(|name| (*name).to_owned()).collect();
        let missing: Vec<_> = matrix.difference(&code).collect();
        assert_eq!(missing, later.iter().collect::<Vec<_>>(), "neither in src/ nor later");
        let unknown: Vec<_> = code
            .difference(&matrix)
            .filter(|name| whose(name) == Whose::Master && is_in_the_work(name))
            .collect();
        assert!(unknown.is_empty(), "in src/ and not in docs/fault-matrix.md: {unknown:?}");
    }

    #[test]
    fn names_are_found_where_they_are_called() {
        let text = "crash_point(\"claim.after_commit\"); faults::crash_point(\n  \"a.b\",\n);\
                    pub fn crash_point(_name: &str) {} crash_point(name)";
        assert_eq!(named(text).collect::<Vec<_>>(), ["claim.after_commit", "a.b"]);
    }
}
