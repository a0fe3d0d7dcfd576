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
    let added = conn
        .prepare_cached(
            "INSERT INTO steps (build_id, number, name, started_at, state_string) \
             SELECT id, ?2, ?3, ?4, ?5 FROM builds WHERE id = ?1 AND state = 1",
        )?
        .execute(params![int(build.0), new.number, new.name, new.at.0, new.state_string])?;
    if added == 0 {
        running::find(conn, build)?;
        return Err(OpError::fenced(format!("build {build} does not run")));
    }
    let step = StepRow {
        id: StepId(rows::id(conn.last_insert_rowid())),
        build,
        number: new.number,
        name: new.name.into(),
        started_at: Some(new.at),
        complete_at: None,
        results: None,
        state_string: new.state_string.into(),
        about: StepAbout::default(),
    };
    let step = Arc::new(step);
    changes.push(Change::StepStarted(step.clone()));
    let mut logs = Vec::with_capacity(new.logs.len());
    let mut slugs: Vec<String> = Vec::with_capacity(new.logs.len());
    for name in new.logs {
        let slug = slug(name, &slugs);
        let id = conn
            .prepare_cached(
                "INSERT INTO logs (step_id, name, slug, kind) VALUES (?1, ?2, ?3, 's')",
            )?
            .insert(params![int(step.id.0), name, slug])?;
        slugs.push(slug.clone());
        let log = LogRow {
            id: LogId(rows::id(id)),
            step: step.id,
            name: name.clone(),
            slug,
            kind: 's',
            complete: false,
            num_lines: 0,
            length: 0,
            incomplete: None,
        };
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
        .prepare_cached(concat!("SELECT ", step_columns!(), " FROM steps WHERE id = ?1"))?
        .query_row([int(step.0)], rows::step)
        .optional()?
        .ok_or_else(|| OpError::missing(format!("step {step}")))?;
    // A second end changes nothing.
    if row.complete_at.is_none() {
        end_step(conn, changes, row, result, text.into(), at)?;
    }
    Ok(OpOutcome::Done)
}

fn end_step(
    conn: &Connection,
    changes: &mut Vec<Change>,
    mut row: StepRow,
    result: BuildResult,
    text: String,
    at: WallTime,
) -> Result<(), OpError> {
    conn.prepare_cached(
        "UPDATE steps SET results = ?2, state_string = ?3, complete_at = ?4 WHERE id = ?1",
    )?
    .execute(params![int(row.id.0), result.code(), text, at.0])?;
    row.results = Some(result);
    row.state_string = text;
    row.complete_at = Some(at);
    changes.push(Change::StepFinished(Arc::new(row)));
    Ok(())
}

pub(super) fn finish_log(
    conn: &Connection,
    changes: &mut Vec<Change>,
    log: LogId,
    end: &LogEnd<'_>,
) -> Done {
    let row = conn
        .prepare_cached(concat!("SELECT ", log_columns!(), " FROM logs WHERE id = ?1"))?
        .query_row([int(log.0)], rows::log)
        .optional()?
        .ok_or_else(|| OpError::missing(format!("log {log}")))?;
    // A second end changes nothing.
    if !row.complete {
        end_log(conn, changes, row, end)?;
    }
    Ok(OpOutcome::Done)
}

fn end_log(
    conn: &Connection,
    changes: &mut Vec<Change>,
    mut row: LogRow,
    end: &LogEnd<'_>,
) -> Result<(), OpError> {
    conn.prepare_cached(
        "UPDATE logs SET complete = 1, num_lines = ?2, length = ?3, inline = ?4, incomplete = ?5 \
         WHERE id = ?1",
    )?
    .execute(params![
        int(row.id.0),
        int(end.num_lines),
        int(end.length),
        end.inline,
        end.incomplete
    ])?;
    row.complete = true;
    row.num_lines = end.num_lines;
    row.length = end.length;
    row.incomplete = end.incomplete.map(Into::into);
    changes.push(Change::LogFinished(Arc::new(row)));
    Ok(())
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
    let logs = conn
        .prepare_cached(
            "SELECT l.id, l.step_id, l.name, l.slug, l.kind, l.complete, l.num_lines, l.length, \
             l.incomplete \
             FROM steps s JOIN logs l ON l.step_id = s.id \
             WHERE s.build_id = ?1 AND l.complete = 0 ORDER BY s.number, l.id",
        )?
        .query_map([int(build.0)], rows::log)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for log in logs {
        let end = LogEnd {
            num_lines: log.num_lines,
            length: log.length,
            inline: None,
            incomplete: Some("the build ended without it"),
        };
        end_log(conn, changes, log, &end)?;
    }
    // A build without a fault has no step that did not end.
    let result = match ended {
        BuildResult::Success | BuildResult::Warnings | BuildResult::Skipped => {
            BuildResult::Exception
        }
        bad => bad,
    };
    let steps = conn
        .prepare_cached(concat!(
            "SELECT ",
            step_columns!(),
            " FROM steps WHERE build_id = ?1 AND complete_at IS NULL ORDER BY number"
        ))?
        .query_map([int(build.0)], rows::step)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for step in steps {
        let text = format!("'{}' ({result})", step.name);
        end_step(conn, changes, step, result, text, at)?;
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
