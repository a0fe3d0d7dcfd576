//! Schedulers, which can be switched off, and the forms to force builds by.

use serde_json::{Map, Value, json};

use super::act::told;
use super::http::{Client, ClientError, element};
use super::show::{Table, number, printable, text};
use super::{FINE, ForceArgs, Output};

/// The form that every master has, and that takes any property.
const ANY: &str = "force";

/// Lists the schedulers. Forms are among them.
pub fn schedulers(client: &Client, output: &mut Output<'_>) -> Result<u8, ClientError> {
    let rows = client.list("schedulers?order=name")?;
    let forms = client.list("forceschedulers")?;
    let mut table = Table::new(&["SCHEDULER", "STATE", "KIND", "BUILDERS", "FIELDS"]);
    for row in &rows {
        let form = forms.iter().find(|form| form.get("name") == row.get("name"));
        if output.json {
            let mut row = row.clone();
            if let Some(object) = row.as_object_mut() {
                object.insert("form".into(), form.cloned().unwrap_or_default());
            }
            output.value(&row)?;
            continue;
        }
        let on = row.get("enabled") == Some(&Value::Bool(true));
        let builders = form.and_then(|form| form.get("builder_names")).and_then(Value::as_array);
        let builders: Vec<String> =
            builders.into_iter().flatten().filter_map(Value::as_str).map(printable).collect();
        let fields = form.map(leaves).unwrap_or_default();
        let fields: Vec<String> = fields.iter().map(|field| text(field, "fullName")).collect();
        table.row(vec![
            text(row, "name"),
            if on { "on" } else { "off" }.into(),
            if form.is_some() { "form" } else { "-" }.into(),
            builders.join(", "),
            fields.join(" "),
        ]);
    }
    if !output.json {
        table.write(output, "There is no scheduler.")?;
    }
    Ok(FINE)
}

/// Switches a scheduler on or off.
pub fn switch(
    client: &Client,
    output: &mut Output<'_>,
    name: &str,
    enabled: bool,
) -> Result<u8, ClientError> {
    let rows = client.list("schedulers")?;
    let found = rows.iter().find(|row| text(row, "name") == name);
    let id = found.and_then(|row| number(row, "schedulerid")).ok_or_else(|| {
        let names: Vec<String> = rows.iter().map(|row| text(row, "name")).collect();
        ClientError::Ask(format!(
            "there is no scheduler named `{}`; there are: {}",
            printable(name),
            names.join(", ")
        ))
    })?;
    let path = format!("schedulers/{id}");
    let result = client.order(&path, "enable", &json!({ "enabled": enabled }))?;
    let word = if enabled { "on" } else { "off" };
    told(output, &result, &format!("scheduler {name} is switched {word}"))
}

/// The fields of a form that a value can be given for.
fn leaves(form: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    let mut open: Vec<&Value> =
        form.get("all_fields").and_then(Value::as_array).into_iter().flatten().rev().collect();
    while let Some(field) = open.pop() {
        match field.get("fields").and_then(Value::as_array) {
            Some(inner) => open.extend(inner.iter().rev()),
            None if text(field, "type") == "fixed" => {}
            None => found.push(field),
        }
    }
    found
}

/// What a force sends: the form's path and its parameters.
pub fn filled(
    client: &Client,
    args: &ForceArgs,
) -> Result<(String, Map<String, Value>), ClientError> {
    let mut params = Map::new();
    params.insert("builderNames".into(), json!([args.builder]));
    for (name, value) in
        [("reason", &args.reason), ("branch", &args.branch), ("revision", &args.revision)]
    {
        if let Some(value) = value {
            params.insert(name.into(), value.as_str().into());
        }
    }
    if let Ok(user) = std::env::var("USER") {
        params.insert("owner".into(), user.into());
    }
    let name = args.form.as_deref().unwrap_or(ANY);
    let path = format!("forceschedulers/{}", element(name));
    if name == ANY {
        params.insert("priority".into(), args.priority.into());
        if args.soon {
            params.insert("soon".into(), true.into());
        }
        let properties = args.properties.iter();
        let properties: Map<String, Value> =
            properties.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        params.insert("properties".into(), properties.into());
        return Ok((path, params));
    }
    if args.soon {
        let text = format!("--soon goes with the form `{ANY}` only");
        return Err(ClientError::Ask(text));
    }
    if args.priority != 0 {
        params.insert("priority".into(), args.priority.into());
    }
    let form = client.one(&path, &format!("form named `{name}`"))?;
    for (name, given) in &args.properties {
        let field = leaves(&form).into_iter().find(|field| text(field, "fullName") == *name);
        let value = match (field.map(|field| text(field, "type")).as_deref(), given.as_str()) {
            (Some("bool"), "true" | "yes" | "on" | "1") => true.into(),
            (Some("bool"), "false" | "no" | "off" | "0") => false.into(),
            (Some("bool"), _) => {
                let text = format!("{name} is yes or no: write {name}=yes or {name}=no");
                return Err(ClientError::Ask(text));
            }
            // Fields that are not the form's are the master's to refuse.
            _ => Value::from(given.as_str()),
        };
        match params.get_mut(name) {
            // A field that may have several values is given several times.
            Some(Value::Array(values)) if name != "builderNames" => values.push(value),
            Some(first) if name != "builderNames" => *first = json!([first.take(), value]),
            _ => {
                params.insert(name.clone(), value);
            }
        }
    }
    Ok((path, params))
}
