//! Steps and the rows of their logs.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Done, running};
use crate::core::ids::*;
use crate::core::time::WallTime;
use crate::core::values::BuildResult;
use crate::store::sqlite::errors::OpError;
use crate::store::sqlite::rows::{self, int, log_columns, step_columns};
use crate::store::*;

/// Longest slug of a log, in characters.
const SLUG: usize = 50;

/// A step as asked for.
pub(super) struct NewStep<'a> {
    pub number: u32,
    pub name: &'a str,
    pub state_string: &'a str,
    pub logs: &'a [String],
    pub at: WallTime,
}

/// How a log ended.
pub(super) struct LogEnd<'a> {
    pub num_lines: u64,
    pub length: u64,
    pub inline: Option<&'a [u8]>,
    pub incomplete: Option<&'a str>,
}

pub(super) fn start(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    new: &NewStep<'_>,
) -> Done {
    if let Some(known) = known_step(conn, build, new)? {
        return Ok(known);
    }
    // One statement that also looks whether the build runs.
    let step = conn
        .prepare_cached(concat!(
            "INSERT INTO steps (build_id, number, name, started_at, state_string) \
             SELECT id, ?2, ?3, ?4, ?5 FROM builds WHERE id = ?1 AND state = 1 RETURNING ",
            step_columns!()
        ))?
        .query_row(
            params![int(build.0), new.number, new.name, new.at.0, new.state_string],
            rows::step,
        )
        .optional()?;
    let Some(step) = step else {
        running::find(conn, build)?;
        return Err(OpError::fenced(format!("build {build} does not run")));
    };
    let step = Arc::new(step);
    changes.push(Change::StepStarted(step.clone()));
    let mut logs = Vec::with_capacity(new.logs.len());
    let mut slugs: Vec<String> = Vec::with_capacity(new.logs.len());
    for name in new.logs {
        let slug = slug(name, &slugs);
        let log = conn
            .prepare_cached(concat!(
                "INSERT INTO logs (step_id, name, slug, kind) VALUES (?1, ?2, ?3, 's') RETURNING ",
                log_columns!()
            ))?
            .query_row(params![int(step.id.0), name, slug], rows::log)?;
        slugs.push(slug);
        let log = Arc::new(log);
        changes.push(Change::LogNew(log.clone()));
        logs.push(log);
    }
    Ok(OpOutcome::Step { step, logs })
}

/// The step, when it was begun before.
fn known_step(
    conn: &Connection,
    build: BuildId,
    new: &NewStep<'_>,
) -> Result<Option<OpOutcome>, OpError> {
    let known = conn
        .prepare_cached(concat!(
            "SELECT ",
            step_columns!(),
            " FROM steps WHERE build_id = ?1 AND number = ?2"
        ))?
        .query_row(params![int(build.0), new.number], rows::step)
        .optional()?;
    let Some(step) = known else { return Ok(None) };
    if step.name != new.name {
        return Err(OpError::wrong(format!(
            "step {} of build {build} is `{}`, not `{}`",
            new.number, step.name, new.name
        )));
    }
    let logs = rows::logs_of(conn, step.id)?.into_iter().map(Arc::new).collect();
    Ok(Some(OpOutcome::Step { step: Arc::new(step), logs }))
}

/// The log's name as an identifier that its step has not got yet.
fn slug(name: &str, taken: &[String]) -> String {
    let mut plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .take(SLUG)
        .collect();
    if plain.starts_with(|c: char| !c.is_ascii_alphabetic() && c != '_') || plain.is_empty() {
        plain.insert(0, '_');
        plain.truncate(SLUG);
    }
    let mut slug = plain.clone();
    for next in 2_usize.. {
        if !taken.contains(&slug) {
            break;
        }
        let end = format!("_{next}");
        slug = plain.chars().take(SLUG.saturating_sub(end.len())).collect::<String>() + &end;
    }
    slug
}

pub(super) fn finish(
    conn: &Connection,
    changes: &mut Vec<Change>,
    step: StepId,
    result: BuildResult,
    text: &str,
    at: WallTime,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE steps SET results = ?2, state_string = ?3, complete_at = ?4 \
             WHERE id = ?1 AND complete_at IS NULL RETURNING ",
            step_columns!()
        ))?
        .query_row(params![int(step.0), result.code(), text, at.0], rows::step)
        .optional()?;
    match row {
        Some(row) => changes.push(Change::StepFinished(Arc::new(row))),
        // A second end changes nothing; a step that is not there is an error.
        None => {
            conn.prepare_cached("SELECT 1 FROM steps WHERE id = ?1")?
                .query_row([int(step.0)], |_| Ok(()))
                .optional()?
                .ok_or_else(|| OpError::missing(format!("step {step}")))?;
        }
    }
    Ok(OpOutcome::Done)
}

pub(super) fn finish_log(
    conn: &Connection,
    changes: &mut Vec<Change>,
    log: LogId,
    end: &LogEnd<'_>,
) -> Done {
    let row = conn
        .prepare_cached(concat!(
            "UPDATE logs SET complete = 1, num_lines = ?2, length = ?3, inline = ?4, \
             incomplete = ?5 WHERE id = ?1 AND complete = 0 RETURNING ",
            log_columns!()
        ))?
        .query_row(
            params![int(log.0), int(end.num_lines), int(end.length), end.inline, end.incomplete],
            rows::log,
        )
        .optional()?;
    match row {
        Some(row) => changes.push(Change::LogFinished(Arc::new(row))),
        // A second end changes nothing; a log that is not there is an error.
        None => {
            conn.prepare_cached("SELECT 1 FROM logs WHERE id = ?1")?
                .query_row([int(log.0)], |_| Ok(()))
                .optional()?
                .ok_or_else(|| OpError::missing(format!("log {log}")))?;
        }
    }
    Ok(OpOutcome::Done)
}

/// Ends what of an ending build is still open, whatever became of those who
/// should have ended it.
pub(super) fn end_open(
    conn: &Connection,
    changes: &mut Vec<Change>,
    build: BuildId,
    ended: BuildResult,
    at: WallTime,
) -> Result<(), OpError> {
    let mut logs = conn.prepare_cached(concat!(
        "UPDATE logs SET complete = 1, incomplete = 'the build ended without it' \
         WHERE step_id IN (SELECT id FROM steps WHERE build_id = ?1) AND complete = 0 RETURNING ",
        log_columns!()
    ))?;
    for log in logs.query_map([int(build.0)], rows::log)? {
        changes.push(Change::LogFinished(Arc::new(log?)));
    }
    // A build without a fault has no step that did not end.
    let result = match ended {
        BuildResult::Success | BuildResult::Warnings | BuildResult::Skipped => {
            BuildResult::Exception
        }
        bad => bad,
    };
    let mut steps = conn.prepare_cached(concat!(
        "UPDATE steps SET results = ?2, complete_at = ?3, \
         state_string = '''' || name || ''' (' || ?4 || ')' \
         WHERE build_id = ?1 AND complete_at IS NULL RETURNING ",
        step_columns!()
    ))?;
    let values = params![int(build.0), result.code(), at.0, result.word()];
    for step in steps.query_map(values, rows::step)? {
        changes.push(Change::StepFinished(Arc::new(step?)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn slugs_are_identifiers_and_differ_within_a_step() {
        assert_eq!(slug("stdio", &[]), "stdio");
        assert_eq!(slug("test.log", &[]), "test_log");
        assert_eq!(slug("1st", &[]), "_1st");
        assert_eq!(slug("", &[]), "_");
        assert_eq!(slug("ö b", &[]), "__b");
        assert_eq!(slug("a b", &["a_b".into(), "a_b_2".into()]), "a_b_3");
        let long = "x".repeat(80);
        assert_eq!(slug(&long, &["x".repeat(50)]).len(), 50);
    }
}
