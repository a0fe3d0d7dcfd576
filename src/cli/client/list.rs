//! Commands that show what is there.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::eta;
use super::http::{Client, ClientError, element};
use super::show::{Table, ago, now, number, printable, result, span, text, took};
use super::{FINE, Output, standing};

/// The API's path of a build that people write as `BUILDER/NUMBER` or by id.
///
/// # Errors
/// When it is neither.
pub fn build_path(build: &str) -> Result<String, ClientError> {
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    match build.rsplit_once('/') {
        Some((builder, number)) if !builder.is_empty() && is_number(number) => {
            Ok(format!("builders/{}/builds/{number}", element(builder)))
        }
        None if is_number(build) => Ok(format!("builds/{build}")),
        _ => Err(ClientError::Ask(format!(
            "`{build}` names no build: write BUILDER/NUMBER, for example unit/12, or a build's id"
        ))),
    }
}

/// Names by id, of builders or workers.
fn names(client: &Client, path: &str, id: &str) -> Result<HashMap<i64, String>, ClientError> {
    let list = client.list(path)?;
    Ok(list.iter().filter_map(|row| Some((number(row, id)?, text(row, "name")))).collect())
}

fn name_of(names: &HashMap<i64, String>, row: &Value, field: &str) -> String {
    let name = number(row, field).and_then(|id| names.get(&id).cloned());
    name.unwrap_or_else(|| "?".into())
}

/// A resource with more fields from elsewhere.
fn joined(row: &Value, key: &str, more: Option<&Value>) -> Value {
    let mut row = row.clone();
    if let Some(object) = row.as_object_mut() {
        object.insert(key.into(), more.cloned().unwrap_or_default());
    }
    row
}

fn is_configured(row: &Value) -> bool {
    row.get("masterids").and_then(Value::as_array).is_none_or(|list| !list.is_empty())
}

/// The builders.
pub fn builders(client: &Client, output: &mut Output<'_>) -> Result<u8, ClientError> {
    let rows = client.list("builders?order=name")?;
    let board = client.get("botmaster/board")?;
    let mut table =
        Table::new(&["BUILDER", "STATE", "WAITING", "OLDEST", "TAKES", "RUNNING", "WORKERS"]);
    let mut broken = Vec::new();
    for row in rows.iter().filter(|row| is_configured(row)) {
        let name = text(row, "name");
        let view = board.get("builders").and_then(|all| all.get(&name));
        if output.json {
            output.value(&joined(row, "board", view))?;
            continue;
        }
        let Some(view) = view else {
            let state = vec![name, "not running".into()];
            table.row(state);
            continue;
        };
        let oldest = number(view, "oldest_request_time").map(|micros| micros / 1_000_000);
        let running: Vec<String> = view
            .get("builds")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|build| match number(build, "number") {
                Some(number) => format!("{name}/{number}"),
                None => text(build, "state"),
            })
            .collect();
        let workers: Vec<String> = view
            .get("workers")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, state)| format!("{name} ({})", state.as_str().unwrap_or("?")))
            .collect();
        let reason = view.get("broken").and_then(Value::as_str);
        let state = reason.map_or_else(|| text(view, "big_state"), |_| "broken".into());
        broken.extend(reason.map(|reason| {
            let reason = printable(reason);
            format!("{name} is broken: {reason}; once the cause is gone: botmaster restart {name}")
        }));
        table.row(vec![
            name,
            state,
            text(view, "waiting"),
            oldest.map_or_else(|| "-".into(), |then| span(now() - then)),
            eta::takes(view.get("expected")),
            running.join(" "),
            workers.join(" "),
        ]);
    }
    finished(output, &table, "No builder is configured.")?;
    if let Some(full) = board.pointer("/store/full").and_then(Value::as_str)
        && !output.json
    {
        output.line(&printable(full))?;
    }
    broken.iter().try_for_each(|line| output.line(line))?;
    Ok(FINE)
}

fn finished(output: &mut Output<'_>, table: &Table, nothing: &str) -> Result<u8, ClientError> {
    if !output.json {
        table.write(output, nothing)?;
    }
    Ok(FINE)
}

/// A worker's clock that is off by less is right.
const SKEW_SHOWN_MS: i64 = 5_000;

/// The workers.
pub fn workers(client: &Client, output: &mut Output<'_>) -> Result<u8, ClientError> {
    let rows = client.list("workers?order=name")?;
    let board = client.get("botmaster/board")?;
    let mut table = Table::new(&["WORKER", "STATE", "SLOTS", "VERSION", "ADDRESS", "REASON"]);
    let mut turned_away = Vec::new();
    for row in &rows {
        let name = text(row, "name");
        let view = board.get("workers").and_then(|all| all.get(&name));
        let refused = board.get("refused").and_then(|all| all.get(&name));
        if output.json {
            let row = joined(row, "board", view);
            output.value(&joined(&row, "refused", refused))?;
            continue;
        }
        turned_away.extend(refused.map(|refused| refused_line(&name, refused)));
        let flag = |key: &str| row.get(key) == Some(&Value::Bool(true));
        let attached =
            row.get("connected_to").and_then(Value::as_array).is_some_and(|to| !to.is_empty());
        let instance = view.and_then(|view| view.get("instance"));
        let mut state = vec![match instance {
            Some(instance) => instance_state(instance),
            None => if attached { "attached" } else { "away" }.to_owned(),
        }];
        if flag("paused") {
            state.push("paused".into());
        }
        if flag("graceful") {
            state.push("leaving".into());
        }
        let skew = view.and_then(|view| number(view, "clock_skew_ms"));
        if let Some(skew) = skew.filter(|skew| attached && skew.abs() >= SKEW_SHOWN_MS) {
            let way = if skew > 0 { "ahead" } else { "behind" };
            state.push(format!("clock {} {way}", span(skew.abs() / 1000)));
        }
        let mut reasons = standing::left_alone(&board, &name);
        if let Some((words, reason)) = standing::set_aside(view) {
            state.push(words);
            reasons.insert(0, format!("{reason}; botmaster unpause {name} ends that"));
        }
        reasons.extend(Some(text(row, "pause_reason")).filter(|reason| !reason.is_empty()));
        let slots = view.map_or_else(
            || "-".into(),
            |view| format!("{} of {}", text(view, "used"), text(view, "max_builds")),
        );
        let info = row.get("workerinfo").cloned().unwrap_or_default();
        table.row(vec![
            name,
            state.join(", "),
            slots,
            text(&info, "version"),
            view.map(|view| text(view, "address")).unwrap_or_default(),
            reasons.join("; "),
        ]);
    }
    finished(output, &table, "No worker is configured.")?;
    turned_away.iter().try_for_each(|line| output.line(line))?;
    Ok(FINE)
}

/// Why a worker was turned away, and until when.
fn refused_line(name: &str, refused: &Value) -> String {
    let (reason, address) = (text(refused, "reason"), text(refused, "address"));
    let ago = |at: i64| span((now() - at / 1_000_000).max(0));
    let how = match (number(refused, "until"), number(refused, "at")) {
        (Some(until), _) if until / 1_000_000 > now() => {
            format!("is turned away for another {}", span(until / 1_000_000 - now()))
        }
        (_, Some(at)) => format!("was turned away {} ago", ago(at)),
        _ => "was turned away".into(),
    };
    printable(&format!("{name} {how}: {reason}; it came from {address}"))
}

/// Where a latent worker's instance stands: `latent`, `up for 3 min`,
/// `destroying (4 tries: …)`.
fn instance_state(instance: &Value) -> String {
    let state = text(instance, "state");
    let since = number(instance, "since").map_or(0, |micros| micros / 1_000_000);
    let how_long = span((now() - since).max(0));
    let mut shown = match state.as_str() {
        "up" => format!("up for {how_long}"),
        "idle" => format!("up for {how_long}, idle"),
        "away" => "up, connection lost".into(),
        "substantiating" => format!("substantiating for {how_long}"),
        _ => state,
    };
    let tries = number(instance, "tries").unwrap_or(0);
    match instance.get("error").and_then(Value::as_str) {
        Some(error) => shown += &format!(" ({tries} tries: {})", printable(error)),
        None if tries > 1 => shown += &format!(" ({tries} tries)"),
        None => {}
    }
    // A former instance beside the present one.
    let going = number(instance, "going").unwrap_or(0);
    if going > 0 && !shown.starts_with("destroying") {
        shown += &format!(", {going} to be destroyed");
    }
    shown
}

/// The requests that wait.
pub fn queue(client: &Client, output: &mut Output<'_>) -> Result<u8, ClientError> {
    let path = "buildrequests?claimed=false&order=-priority&order=submitted_at&limit=1000";
    let envelope = client.get(path)?;
    let rows = envelope.get("buildrequests").and_then(Value::as_array).cloned();
    let rows = rows.unwrap_or_default();
    let builders = names(client, "builders", "builderid")?;
    let times = eta::by_id(&client.get("botmaster/etas")?, "requests");
    let mut table = Table::new(&["REQUEST", "BUILDER", "PRIORITY", "WAITS", "STARTS", "ENDS"]);
    for row in &rows {
        let time = number(row, "buildrequestid").and_then(|id| times.get(&id));
        if output.json {
            output.value(&joined(row, "eta", time))?;
            continue;
        }
        table.row(vec![
            text(row, "buildrequestid"),
            name_of(&builders, row, "builderid"),
            text(row, "priority"),
            number(row, "submitted_at").map_or_else(|| "-".into(), |then| span(now() - then)),
            eta::when(time.and_then(|time| time.get("start"))),
            eta::when(time.and_then(|time| time.get("end"))),
        ]);
    }
    finished(output, &table, "No build request waits.")?;
    let total = envelope.get("meta").and_then(|meta| number(meta, "total")).unwrap_or(0);
    let more = total - i64::try_from(rows.len()).unwrap_or(i64::MAX);
    if more > 0 && !output.json {
        output.line(&format!("… and {more} more"))?;
    }
    Ok(FINE)
}

/// Why a request waits.
pub fn why(client: &Client, output: &mut Output<'_>, request: u64) -> Result<u8, ClientError> {
    let path = format!("buildrequests/{request}");
    let row = client.one(&path, &format!("build request {request}"))?;
    let told = client.get(&format!("{path}/reasons"))?;
    if output.json {
        output.value(&told)?;
        return Ok(FINE);
    }
    let builders = names(client, "builders", "builderid")?;
    let builder = name_of(&builders, &row, "builderid");
    let state = text(&told, "state");
    output.line(&format!(
        "Request  {request} for builder {builder}, priority {}",
        text(&row, "priority")
    ))?;
    if state != "waiting" {
        let newest = client.list(&format!("{path}/builds?order=-buildid&limit=1"))?;
        let build = newest.first().map(|build| format!(": {builder}/{}", text(build, "number")));
        output.line(&format!("State    {state}{}", build.unwrap_or_default()))?;
        return Ok(FINE);
    }
    let since = number(&row, "submitted_at").map(|then| span(now() - then));
    output.line(&format!("Waits    {}", since.unwrap_or_default()))?;
    output.line(&format!("Because  {}", text(&told, "reason")))?;
    if let Some(ahead) = number(&told, "ahead") {
        output.line(&format!("Ahead    {ahead} of its builder"))?;
    }
    output.line(&format!("Starts   {}", eta::when(told.get("start"))))?;
    let mut table = Table::new(&["WORKER", "REASON", "WHY"]);
    for worker in told.get("workers").and_then(Value::as_array).into_iter().flatten() {
        let reason = text(worker, "reason").replace('_', " ");
        table.row(vec![text(worker, "name"), reason, text(worker, "text")]);
    }
    finished(output, &table, "Its builder has no worker.")
}

/// The latest builds.
pub fn builds(
    client: &Client,
    output: &mut Output<'_>,
    builder: Option<&str>,
    limit: u32,
) -> Result<u8, ClientError> {
    let path = match builder {
        Some(builder) => {
            let path = format!("builders/{}", element(builder));
            client.one(&path, &format!("builder named `{builder}`"))?;
            format!("{path}/builds?order=-number&limit={limit}")
        }
        None => format!("builds?order=-buildid&limit={limit}"),
    };
    let rows = client.list(&path)?;
    let builders = names(client, "builders", "builderid")?;
    let workers = names(client, "workers", "workerid")?;
    let times = eta::of_builds(client, &rows)?;
    let runs = rows.iter().any(|row| number(row, "complete_at").is_none());
    let board = if runs { client.get("botmaster/board")? } else { Value::Null };
    let mut table =
        Table::new(&["BUILD", "RESULT", "STARTED", "TOOK", "EXPECTED", "WORKER", "WHAT"]);
    for row in &rows {
        let id = number(row, "buildid");
        let time = id.and_then(|id| times.get(&id));
        if output.json {
            let view = standing::build_on_board(&board, id);
            output.value(&joined(&joined(row, "eta", time), "board", view))?;
            continue;
        }
        let away = standing::away(&board, id);
        table.row(vec![
            format!("{}/{}", name_of(&builders, row, "builderid"), text(row, "number")),
            if away.is_some() { "waiting".into() } else { result(row).into() },
            ago(number(row, "started_at")),
            took(row),
            eta::standing(time),
            name_of(&workers, row, "workerid"),
            away.unwrap_or_else(|| text(row, "state_string")),
        ]);
    }
    finished(output, &table, "There was no build yet.")
}

/// The request that a build is for, with those that share it.
fn shared_by(build: &Value, requests: &[i64]) -> String {
    let first = text(build, "buildrequestid");
    let others = requests.iter().map(ToString::to_string).filter(|id| *id != first);
    match others.collect::<Vec<_>>().join(", ") {
        others if others.is_empty() => first,
        others => format!("{first}, together with {others}"),
    }
}

/// One build with its steps.
pub fn build(client: &Client, output: &mut Output<'_>, build: &str) -> Result<u8, ClientError> {
    let path = build_path(build)?;
    let row = client.one(&format!("{path}?property=*"), &format!("build {build}"))?;
    let id = text(&row, "buildid");
    let steps = client.list(&format!("builds/{id}/steps"))?;
    let requests = client.list(&format!("builds/{id}/buildrequests?field=buildrequestid"))?;
    let requests: Vec<i64> =
        requests.iter().filter_map(|row| number(row, "buildrequestid")).collect();
    let time = client.get(&format!("builds/{id}/progress"))?;
    let time = time.get("eta");
    let runs = number(&row, "complete_at").is_none();
    let board = if runs { client.get("botmaster/board")? } else { Value::Null };
    if output.json {
        let row = joined(&row, "steps", Some(&json!(steps)));
        let row = joined(&row, "buildrequestids", Some(&json!(requests)));
        let view = standing::build_on_board(&board, number(&row, "buildid"));
        output.value(&joined(&joined(&row, "eta", time), "board", view))?;
        return Ok(FINE);
    }
    let builders = names(client, "builders", "builderid")?;
    let workers = names(client, "workers", "workerid")?;
    let builder = name_of(&builders, &row, "builderid");
    output.line(&format!("Build    {builder}/{} (id {id})", text(&row, "number")))?;
    output.line(&format!("Result   {} ({})", result(&row), text(&row, "state_string")))?;
    output.line(&format!("Started  {}", ago(number(&row, "started_at"))))?;
    if let Some(away) = standing::away(&board, number(&row, "buildid")) {
        output.line(&format!("Now      {away}"))?;
    }
    if runs {
        let left = Some(eta::standing(time)).filter(|left| left != "-");
        let left = left.map(|left| format!(", {left}"));
        output.line(&format!("Runs     {}{}", took(&row), left.unwrap_or_default()))?;
    } else {
        output.line(&format!("Took     {}", took(&row)))?;
    }
    if let Some(expected) = time.and_then(|time| time.get("expected")) {
        let off = Some(eta::standing(time)).filter(|_| number(&row, "complete_at").is_some());
        let off = off.filter(|off| off != "-").map(|off| format!(": {off}"));
        let takes = eta::takes(Some(expected));
        output.line(&format!("Expected {takes}{}", off.unwrap_or_default()))?;
    }
    output.line(&format!("Worker   {}", name_of(&workers, &row, "workerid")))?;
    output.line(&format!("Request  {}", shared_by(&row, &requests)))?;
    for (name, own) in row.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let value = own.get(0).map(|value| value.as_str().map_or(value.to_string(), printable));
        output.line(&format!("  {name} = {}", value.unwrap_or_default()))?;
    }
    let usual = usual_steps(client, &row)?;
    let mut table = Table::new(&["STEP", "NAME", "RESULT", "TOOK", "USUALLY", "WHAT"]);
    for step in &steps {
        let usual = usual.iter().find(|usual| usual.get("name") == step.get("name"));
        table.row(vec![
            text(step, "number"),
            text(step, "name"),
            result(step).into(),
            took(step),
            eta::takes(usual),
            text(step, "state_string"),
        ]);
    }
    finished(output, &table, "No step has begun.")
}

/// What each step of the build's builder usually takes.
fn usual_steps(client: &Client, build: &Value) -> Result<Vec<Value>, ClientError> {
    let path = format!("builders/{}/expectations", text(build, "builderid"));
    let known = client.get(&path)?;
    Ok(known.get("steps").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// Prints any resource.
pub fn any(client: &Client, output: &mut Output<'_>, path: &str) -> Result<u8, ClientError> {
    let answer = client.get(path.trim_start_matches('/'))?;
    if output.json {
        output.value(&answer)?;
    } else {
        output.line(&format!("{answer:#}"))?;
    }
    Ok(FINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_named_by_builder_and_number_or_by_id() {
        assert_eq!(build_path("unit/12").unwrap(), "builders/unit/builds/12");
        assert_eq!(build_path("slow build/1").unwrap(), "builders/slow%20build/builds/1");
        assert_eq!(build_path("a/b/3").unwrap(), "builders/a%2Fb/builds/3");
        assert_eq!(build_path("345").unwrap(), "builds/345");
        for bad in ["unit", "unit/", "/3", "unit/x", ""] {
            let text = build_path(bad).unwrap_err().to_string();
            assert!(text.contains("BUILDER/NUMBER"), "{bad}: {text}");
        }
    }
}
