//! Steps and the rows of their logs.

use std::sync::Arc;

use botmaster::core::ids::*;
use botmaster::core::time::WallTime;
use botmaster::core::values::BuildResult;
use botmaster::store::*;

use super::tables::{LogRecord, Tables, fenced};
use super::{Done, missing, wrong};

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
pub(super) struct LogEnd {
    pub num_lines: u64,
    pub length: u64,
    pub inline: Option<Arc<[u8]>>,
    pub incomplete: Option<String>,
}

pub(super) fn start(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    new: &NewStep<'_>,
) -> Done {
    let known = tables.steps_of.get(&(build, new.number));
    if let Some(step) = known.and_then(|id| tables.steps.get(id)) {
        if step.name != new.name {
            return Err(wrong(format!(
                "step {} of build {build} is `{}`, not `{}`",
                new.number, step.name, new.name
            )));
        }
        return Ok(OpOutcome::Step { step: step.clone(), logs: tables.logs_of(step.id) });
    }
    if tables.build(build)?.row.state != BuildState::Running {
        return Err(fenced(format!("build {build} does not run")));
    }
    let step = Arc::new(StepRow {
        id: StepId(tables.steps.last().map_or(1, |id| id.0 + 1)),
        build,
        number: new.number,
        name: new.name.into(),
        started_at: Some(new.at),
        complete_at: None,
        results: None,
        state_string: new.state_string.into(),
        about: StepAbout::default(),
    });
    tables.steps.put(step.id, step.clone());
    tables.steps_of.put((build, new.number), step.id);
    changes.push(Change::StepStarted(step.clone()));
    let mut logs: Vec<Arc<LogRow>> = Vec::with_capacity(new.logs.len());
    for name in new.logs {
        let log = Arc::new(LogRow {
            id: LogId(tables.logs.last().map_or(1, |id| id.0 + 1)),
            step: step.id,
            name: name.clone(),
            slug: slug(name, &logs),
            kind: 's',
            complete: false,
            num_lines: 0,
            length: 0,
            incomplete: None,
        });
        tables.logs.put(log.id, LogRecord { row: log.clone(), inline: None, incomplete: None });
        tables.logs_of.put((step.id, log.id), ());
        changes.push(Change::LogNew(log.clone()));
        logs.push(log);
    }
    Ok(OpOutcome::Step { step, logs })
}

/// The log's name as an identifier that its step has not got yet.
fn slug(name: &str, taken: &[Arc<LogRow>]) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let mut plain: String = name.chars().map(kept).take(SLUG).collect();
    if !plain.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        plain.insert(0, '_');
        plain.truncate(SLUG);
    }
    let free = |slug: &String| taken.iter().all(|log| log.slug != *slug);
    let numbered = (2..).map(|next| {
        let end = format!("_{next}");
        plain.chars().take(SLUG - end.len()).collect::<String>() + &end
    });
    std::iter::once(plain.clone()).chain(numbered).find(free).unwrap_or_default()
}

pub(super) fn finish(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    step: StepId,
    result: BuildResult,
    text: &str,
    at: WallTime,
) -> Done {
    let row = tables.steps.get(&step).ok_or_else(|| missing(format!("step {step}")))?;
    // A second end changes nothing.
    if row.complete_at.is_none() {
        let row = StepRow::clone(row);
        end_step(tables, changes, row, result, text.to_owned(), at);
    }
    Ok(OpOutcome::Done)
}

fn end_step(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    mut row: StepRow,
    result: BuildResult,
    text: String,
    at: WallTime,
) {
    row.results = Some(result);
    row.state_string = text;
    row.complete_at = Some(at);
    let row = Arc::new(row);
    tables.steps.put(row.id, row.clone());
    changes.push(Change::StepFinished(row));
}

pub(super) fn finish_log(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    log: LogId,
    end: LogEnd,
) -> Done {
    let record = tables.logs.get(&log).ok_or_else(|| missing(format!("log {log}")))?;
    // A second end changes nothing.
    if !record.row.complete {
        let row = LogRow::clone(&record.row);
        end_log(tables, changes, row, end);
    }
    Ok(OpOutcome::Done)
}

fn end_log(tables: &mut Tables, changes: &mut Vec<Change>, mut row: LogRow, end: LogEnd) {
    row.complete = true;
    row.num_lines = end.num_lines;
    row.length = end.length;
    row.incomplete = end.incomplete.clone();
    let row = Arc::new(row);
    let record = LogRecord { row: row.clone(), inline: end.inline, incomplete: end.incomplete };
    tables.logs.put(row.id, record);
    changes.push(Change::LogFinished(row));
}

/// Ends what of an ending build is still open, whatever became of those who
/// should have ended it.
pub(super) fn end_open(
    tables: &mut Tables,
    changes: &mut Vec<Change>,
    build: BuildId,
    ended: BuildResult,
    at: WallTime,
) {
    let steps = tables.steps_of(build);
    for step in &steps {
        for log in tables.logs_of(step.id) {
            if !log.complete {
                let end = LogEnd {
                    num_lines: log.num_lines,
                    length: log.length,
                    inline: None,
                    incomplete: Some("the build ended without it".into()),
                };
                end_log(tables, changes, LogRow::clone(&log), end);
            }
        }
    }
    // A build without a fault has no step that did not end.
    let result = match ended {
        BuildResult::Success | BuildResult::Warnings | BuildResult::Skipped => {
            BuildResult::Exception
        }
        BuildResult::Failure
        | BuildResult::Exception
        | BuildResult::Retry
        | BuildResult::Cancelled => ended,
    };
    for step in steps {
        if step.complete_at.is_none() {
            let text = format!("'{}' ({result})", step.name);
            end_step(tables, changes, StepRow::clone(&step), result, text, at);
        }
    }
}
