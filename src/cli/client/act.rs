//! Commands that order something.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::follow::{self, Patience};
use super::forms;
use super::http::{Client, ClientError, element};
use super::list::build_path;
use super::show::{number, printable, text};
use super::{FAILED, FINE, ForceArgs, Output, TROUBLE, WorkerArgs};
use crate::core::values::BuildResult;
use crate::messages::ReloadReport;

/// Between looks at a request that waits.
const LOOK: Duration = Duration::from_millis(300);

/// The configuration is read again.
pub fn reload(client: &Client, output: &mut Output<'_>) -> Result<u8, ClientError> {
    reported(client, output, &json!({ "dry": false }))
}

/// What a reload would do.
pub fn plan(
    client: &Client,
    output: &mut Output<'_>,
    config: Option<PathBuf>,
) -> Result<u8, ClientError> {
    let mut body = json!({ "dry": true });
    if let (Some(file), Some(object)) = (config, body.as_object_mut()) {
        let file = std::path::absolute(&file)
            .map_err(|error| ClientError::Ask(format!("{}: {error}", file.display())))?;
        let text = file.to_str().ok_or_else(|| {
            ClientError::Ask(format!("{}: the path must be UTF-8", file.display()))
        })?;
        object.insert("config".into(), text.into());
    }
    reported(client, output, &body)
}

fn reported(client: &Client, output: &mut Output<'_>, body: &Value) -> Result<u8, ClientError> {
    let dry = body.get("dry") == Some(&Value::Bool(true));
    let answer = client.post("botmaster/reload", body)?;
    let report: ReloadReport = serde_json::from_value(answer.clone())
        .map_err(|error| ClientError::Ask(format!("the report cannot be read: {error}")))?;
    let failed = !report.problems.is_empty() || report.entries.iter().any(|e| e.error.is_some());
    let status = if failed { FAILED } else { FINE };
    if output.json {
        output.value(&answer)?;
        return Ok(status);
    }
    for problem in &report.problems {
        output.line(&problem.to_string())?;
    }
    let mut unchanged = 0;
    for entry in &report.entries {
        if entry.action == "unchanged" && entry.error.is_none() {
            unchanged += 1;
            continue;
        }
        output.line(&format!("{:<9} {} {}", entry.action, entry.what, entry.name))?;
        for line in &entry.differences {
            output.line(&format!("            {}", printable(line)))?;
        }
        if let Some(error) = &entry.error {
            output.line(&format!("            not done: {}", printable(error)))?;
        }
    }
    if !report.problems.is_empty() {
        output.line("Nothing was changed.")?;
        return Ok(status);
    }
    let end = if dry { "Nothing was changed: this is a plan." } else { "Done." };
    output.line(&format!("{unchanged} unchanged. {end}"))?;
    Ok(status)
}

/// Asks for a build.
pub fn force(
    client: &Client,
    output: &mut Output<'_>,
    args: &ForceArgs,
) -> Result<u8, ClientError> {
    let (path, params) = forms::filled(client, args)?;
    let result = client.order(&path, "force", &Value::Object(params))?;
    let request = first_request(&result)?;
    if output.json {
        output.value(&result)?;
    } else {
        output.line(&format!("build request {request} for builder {} is queued", args.builder))?;
    }
    if !args.wait && !args.follow {
        return Ok(FINE);
    }
    let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    await_request(client, output, request, args.follow, deadline)
}

/// The request's id in `[bsid, {"<builderid>": requestid}]`.
fn first_request(result: &Value) -> Result<i64, ClientError> {
    let requests = result.get(1).and_then(Value::as_object);
    let first = requests.and_then(|requests| requests.values().next()).and_then(Value::as_i64);
    first.ok_or_else(|| ClientError::Ask(format!("the answer names no build request: {result}")))
}

fn await_request(
    client: &Client,
    output: &mut Output<'_>,
    request: i64,
    follow: bool,
    deadline: Option<Instant>,
) -> Result<u8, ClientError> {
    let mut patience = Patience::until(deadline);
    let path = format!("buildrequests/{request}");
    let newest = format!("builds?buildrequestid={request}&order=-buildid&limit=1");
    let mut shown = 0;
    loop {
        let what = format!("build request {request}");
        let row = patience.ask(|| client.one(&path, &what))?;
        if follow {
            let build = patience.ask(|| client.list(&newest))?.into_iter().next();
            let id = build.as_ref().and_then(|build| number(build, "buildid")).unwrap_or(0);
            // A request that is built again gets another build.
            if id > shown {
                shown = id;
                follow::build(client, output, id, &mut patience)?;
                continue;
            }
        }
        if row.get("complete") == Some(&Value::Bool(true)) {
            return ended(client, output, &row, &newest);
        }
        patience.pause(LOOK)?;
    }
}

fn ended(
    client: &Client,
    output: &mut Output<'_>,
    request: &Value,
    newest: &str,
) -> Result<u8, ClientError> {
    let code = number(request, "results").unwrap_or(-1);
    let result = BuildResult::from_code(code);
    if output.json {
        output.value(request)?;
    } else {
        let word = result.map_or("unknown", BuildResult::word);
        let build = client.list(newest)?.into_iter().next();
        let told = match &build {
            Some(build) => {
                let number = text(build, "number");
                format!("build {number}: {word} ({})", text(build, "state_string"))
            }
            None => format!("no build: {word}"),
        };
        output.line(&told)?;
    }
    Ok(match result {
        Some(BuildResult::Success | BuildResult::Warnings) => FINE,
        Some(BuildResult::Failure) => FAILED,
        _ => TROUBLE,
    })
}

/// Tells that an order was taken.
pub fn told(output: &mut Output<'_>, result: &Value, sentence: &str) -> Result<u8, ClientError> {
    if output.json {
        output.value(&json!({ "result": result }))?;
    } else {
        output.line(sentence)?;
    }
    Ok(FINE)
}

/// Cancels a request.
pub fn cancel(
    client: &Client,
    output: &mut Output<'_>,
    request: u64,
    reason: &str,
) -> Result<u8, ClientError> {
    let path = format!("buildrequests/{request}");
    let result = client.order(&path, "cancel", &json!({ "reason": reason }))?;
    told(output, &result, &format!("build request {request} is being cancelled"))
}

/// Changes a request's priority.
pub fn priority(
    client: &Client,
    output: &mut Output<'_>,
    request: u64,
    priority: i64,
) -> Result<u8, ClientError> {
    let path = format!("buildrequests/{request}");
    let result = client.order(&path, "set_priority", &json!({ "priority": priority }))?;
    told(output, &result, &format!("build request {request} has the priority {priority} now"))
}

/// Stops a build.
pub fn stop(
    client: &Client,
    output: &mut Output<'_>,
    build: &str,
    reason: &str,
) -> Result<u8, ClientError> {
    let path = build_path(build)?;
    // The master answers nothing for a build that is not there; people want to
    // know that they mistyped.
    let row = client.one(&path, &format!("build {build}"))?;
    if row.get("complete") == Some(&Value::Bool(true)) {
        return told(output, &Value::Null, &format!("build {build} had ended already"));
    }
    let result = client.order(&path, "stop", &json!({ "reason": reason }))?;
    told(output, &result, &format!("build {build} is being stopped"))
}

/// Builds again.
pub fn rebuild(client: &Client, output: &mut Output<'_>, build: &str) -> Result<u8, ClientError> {
    let result = client.order(&build_path(build)?, "rebuild", &json!({}))?;
    let request = first_request(&result)?;
    told(output, &result, &format!("build request {request} is queued, to repeat build {build}"))
}

/// Pings a builder's workers.
pub fn ping(client: &Client, output: &mut Output<'_>, builder: &str) -> Result<u8, ClientError> {
    let result = client.order(&format!("builders/{}", element(builder)), "ping", &json!({}))?;
    let all = result == Value::Bool(true);
    let sentence = if all { "every worker answered" } else { "not every worker answered" };
    told(output, &result, &format!("builder {builder}: {sentence}"))?;
    Ok(if all { FINE } else { FAILED })
}

/// Starts a broken builder again.
pub fn restart(client: &Client, output: &mut Output<'_>, builder: &str) -> Result<u8, ClientError> {
    let path = format!("builders/{}", element(builder));
    let result = client.order(&path, "restart", &json!({}))?;
    told(output, &result, &format!("builder {builder} is started again"))
}

/// Orders a worker.
pub fn order(
    client: &Client,
    output: &mut Output<'_>,
    args: &WorkerArgs,
    method: &str,
    sentence: &str,
) -> Result<u8, ClientError> {
    let path = format!("workers/{}", element(&args.worker));
    let params = match &args.reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let result = client.order(&path, method, &params)?;
    told(output, &result, &format!("worker {} {sentence}", args.worker))
}
