//! What is kept of builds and logs: `[retention]`, and `retention` of a builder.

use std::time::Duration;

use super::reader::Section;
use crate::core::retention::Retention;

/// The longest age: a hundred years. Longer is a typing error.
const LONGEST_AGE: Duration = Duration::from_secs(36_525 * 24 * 3600);
/// More builds than any builder has.
const MOST_BUILDS: u64 = 1_000_000_000;

const RETENTION_KEYS: &[&str] = &["builds", "age", "log_age", "size"];

/// Reads the table `retention` of a section. Without one everything is kept.
pub(super) fn read_retention(parent: &Section<'_, '_>) -> Retention {
    let section = parent.table("retention", RETENTION_KEYS);
    let age = |name: &str| {
        let said = section.span(name, LONGEST_AGE)?;
        if said.value.is_zero() {
            let fix = "write for example \"90d\", or leave it out to keep everything";
            section.error(&said.span, name, "nothing would be kept", fix);
            return None;
        }
        Some(said)
    };
    let (builds_age, log_age) = (age("age"), age("log_age"));
    if let (Some(builds), Some(logs)) = (&builds_age, &log_age)
        && logs.value >= builds.value
    {
        let message = "the logs of a build go with it at the latest, so this does nothing";
        section.report.note(
            Some(&logs.span),
            &section.key("log_age"),
            message,
            "make it shorter than `age`, or leave it out",
        );
    }
    Retention {
        builds: section.number("builds", 1..=MOST_BUILDS),
        age: builds_age.map(|said| said.value),
        log_age: log_age.map(|said| said.value),
        size: section.size("size"),
    }
}
