//! The forms to force builds by, and how what is sent for one becomes
//! submissions. Whether a submission is taken is not decided here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::core::form::{self, DEFAULT_REASON, Field, FieldKind, Form, Layout, full_name};
use crate::core::ids::BuilderName;
use crate::core::values::{Properties, Property, SourceStamp};
use crate::messages::Submission;
use crate::store::BuilderRow;

/// Who set the properties that come by the form.
const SOURCE: &str = "Force Build Form";

/// The most submissions at once.
const MAX_SUBMISSIONS: usize = 100_000;

/// Why what was sent is no submission.
#[derive(Clone, PartialEq, Debug)]
pub enum FormError {
    /// Texts by field.
    Fields(Map<String, Value>),
    /// There is no such builder; a text that names it.
    NoBuilder(String),
}

/// A form as a resource. `enabled` says whether it can be used.
#[must_use]
pub fn shape(form: &Form, builders: &[BuilderRow], enabled: bool) -> Value {
    let names: Vec<&BuilderName> = match &form.builders {
        Some(own) => own.iter().collect(),
        None => builders.iter().filter(|row| row.configured).map(|row| &row.name).collect(),
    };
    json!({
        "name": form.name,
        "button_name": form.button,
        "label": form.label,
        "builder_names": names,
        "enabled": enabled,
        "all_fields": form.fields.iter().map(|field| field_shape("", field)).collect::<Vec<_>>(),
    })
}

fn field_shape(prefix: &str, field: &Field) -> Value {
    let full = full_name(prefix, &field.name);
    let mut shape = json!({
        "name": field.name, "fullName": full, "label": field.label, "tablabel": field.label,
        "default": field.default, "required": field.required, "multiple": field.multiple,
        // The reference never tells it, and so its pages never look at it.
        "regex": null,
        "hide": field.hide, "maxsize": field.longest, "autopopulate": null,
        "tooltip": field.tooltip,
    });
    let text = |name: &str, label: &str| Field::new(name, label, FieldKind::Text(form::WIDTH));
    let nested = |layout: Layout, fields: &[Field]| {
        let inner: Vec<Value> = fields.iter().map(|inner| field_shape(&full, inner)).collect();
        json!({
            "type": "nested", "layout": layout.word(), "columns": Field::columns(fields),
            "fields": inner, "fullName": if full.is_empty() { Value::Null } else { json!(full) },
        })
    };
    let own = match &field.kind {
        FieldKind::Fixed => json!({ "type": "fixed" }),
        FieldKind::Text(size) => json!({ "type": "text", "size": size }),
        FieldKind::Textarea(cols, rows) => {
            json!({ "type": "textarea", "size": form::WIDTH, "cols": cols, "rows": rows })
        }
        FieldKind::Int(size) => json!({ "type": "int", "size": size }),
        FieldKind::Bool => json!({ "type": "bool" }),
        FieldKind::Username { size, need_email } => {
            json!({ "type": "username", "size": size, "need_email": need_email })
        }
        FieldKind::List { choices, strict } => {
            json!({ "type": "list", "choices": choices, "strict": strict })
        }
        FieldKind::File => json!({ "type": "file" }),
        FieldKind::Group(layout, fields) => nested(*layout, fields),
        FieldKind::AnyProperty => {
            nested(Layout::Vertical, &[text("name", "Name:"), text("value", "Value:")])
        }
    };
    if let (Some(shape), Value::Object(own)) = (shape.as_object_mut(), own) {
        shape.extend(own);
    }
    shape
}

/// What one submission asks for so far.
#[derive(Clone, Default)]
struct Wanted {
    builders: Option<Vec<BuilderName>>,
    owner: Option<String>,
    reason: Option<String>,
    priority: i64,
    stamp: SourceStamp,
    properties: Properties,
    soon: bool,
    external_id: Option<String>,
    idempotency_key: Option<String>,
}

/// Reads fields and gathers what is wrong with them.
struct Reader<'a> {
    names: HashMap<&'a str, &'a BuilderRow>,
    ids: HashMap<u64, &'a BuilderRow>,
    errors: Map<String, Value>,
    unknown: Option<String>,
}

/// Reads the parameters of `force`: what the form's fields say. The form that
/// takes anything is read by `any_submissions`.
///
/// # Errors
/// When a field is bad or a builder is unknown; then nothing is submitted.
pub fn submissions(
    form: &Form,
    params: &Map<String, Value>,
    builders: &[BuilderRow],
) -> Result<Vec<Submission>, FormError> {
    if form.open {
        return any_submissions(params, builders);
    }
    let mut reader = Reader::over(builders);
    let mut wanted = Wanted::default();
    let asked = ["builderid", "builderNames"].map(|name| (name, params.get(name)));
    for (name, value) in asked {
        match value.filter(|value| !value.is_null()) {
            Some(value) if name == "builderid" => {
                wanted.builders = reader.builder_by_id(name, value).map(|one| vec![one]);
            }
            Some(value) if wanted.builders.is_none() => {
                wanted.builders = Some(reader.builders_by_name(name, value));
            }
            _ => {}
        }
    }
    if let Some(other) = wanted.builders.iter().flatten().find(|one| !form.is_for(one)) {
        let key = if params.contains_key("builderid") { "builderid" } else { "builderNames" };
        reader.wrong(key, &format!("form `{}` is not for builder `{other}`", form.name));
    }
    wanted.builders.get_or_insert_with(|| {
        let own = builders.iter().filter(|row| row.configured && form.is_for(&row.name));
        own.map(|row| row.name.clone()).collect()
    });
    wanted.owner = params.get("owner").and_then(|owner| reader.text("owner", owner));
    match form.fill(params) {
        Ok(filled) => {
            let named = Some(filled.owner).filter(|owner| !owner.trim().is_empty());
            wanted.owner = wanted.owner.or(named);
            wanted.reason = Some(filled.reason);
            wanted.priority = filled.priority;
            wanted.stamp = filled.stamp;
            wanted.properties = filled.properties;
        }
        Err(errors) => {
            for (name, text) in errors {
                reader.wrong(&name, &text);
            }
        }
    }
    reader.finish()?;
    Ok(vec![wanted.submission(&form.name)])
}

/// Reads the parameters of `force` for the form that takes anything: one
/// submission, or with `requests` as many
/// as that list has entries, for which the other parameters are the defaults.
///
/// # Errors
/// When a field is bad or a builder is unknown; then nothing is submitted.
fn any_submissions(
    params: &Map<String, Value>,
    builders: &[BuilderRow],
) -> Result<Vec<Submission>, FormError> {
    let mut reader = Reader::over(builders);
    let mut base = Wanted::default();
    reader.read("", params, &mut base, true);
    let mut all = Vec::new();
    match params.get("requests") {
        None => {
            base.builders.get_or_insert_with(|| {
                builders.iter().filter(|row| row.configured).map(|row| row.name.clone()).collect()
            });
            all.push(base);
        }
        Some(Value::Array(entries)) if entries.len() <= MAX_SUBMISSIONS => {
            for (at, entry) in entries.iter().enumerate() {
                all.push(reader.entry(at, entry, &base));
            }
            if entries.is_empty() {
                reader.wrong("requests", "needs at least one entry");
            }
        }
        Some(Value::Array(_)) => {
            let text = format!("has more than {MAX_SUBMISSIONS} entries; send them in parts");
            reader.wrong("requests", &text);
        }
        Some(_) => reader.wrong("requests", "must be a list of objects"),
    }
    reader.finish()?;
    Ok(all.into_iter().map(|wanted| wanted.submission(form::FORCE)).collect())
}

impl<'a> Reader<'a> {
    fn over(builders: &'a [BuilderRow]) -> Self {
        Self {
            names: builders.iter().map(|row| (row.name.as_str(), row)).collect(),
            ids: builders.iter().map(|row| (row.id.0, row)).collect(),
            errors: Map::new(),
            unknown: None,
        }
    }

    fn finish(self) -> Result<(), FormError> {
        match self.unknown {
            Some(text) => Err(FormError::NoBuilder(text)),
            None if self.errors.is_empty() => Ok(()),
            None => Err(FormError::Fields(self.errors)),
        }
    }

    fn wrong(&mut self, key: &str, text: &str) {
        // One text a field, and not more fields than anybody reads.
        if self.errors.len() < 100 {
            self.errors.entry(key).or_insert_with(|| text.into());
        }
    }

    fn entry(&mut self, at: usize, entry: &Value, base: &Wanted) -> Wanted {
        let mut wanted = base.clone();
        wanted.idempotency_key = base.idempotency_key.as_ref().map(|key| format!("{key}/{at}"));
        let prefix = format!("requests[{at}].");
        match entry {
            Value::Object(map) => self.read(&prefix, map, &mut wanted, false),
            _ => self.wrong(prefix.trim_end_matches('.'), "must be an object"),
        }
        if wanted.builders.as_ref().is_none_or(Vec::is_empty) {
            self.wrong(&format!("{prefix}builderNames"), "needs to name at least one builder");
        }
        wanted
    }

    fn read(&mut self, prefix: &str, map: &Map<String, Value>, wanted: &mut Wanted, top: bool) {
        for (key, value) in map {
            let full = format!("{prefix}{key}");
            match key.as_str() {
                "builderid" => {
                    if let Some(builder) = self.builder_by_id(&full, value) {
                        wanted.builders = Some(vec![builder]);
                    }
                }
                "builderNames" if map.contains_key("builderid") => {}
                "builderNames" => wanted.builders = Some(self.builders_by_name(&full, value)),
                "owner" => wanted.owner = self.text(&full, value).or(wanted.owner.take()),
                // A user's name from the form; an owner goes before it.
                "username" => wanted.owner = wanted.owner.take().or(self.text(&full, value)),
                "reason" => wanted.reason = self.text(&full, value).or(wanted.reason.take()),
                "priority" => self.priority(&full, value, &mut wanted.priority),
                "branch" => {
                    wanted.stamp.branch = self.text(&full, value).or(wanted.stamp.branch.take());
                }
                "revision" => {
                    wanted.stamp.revision =
                        self.text(&full, value).or(wanted.stamp.revision.take());
                }
                "repository" => {
                    if let Some(text) = self.text(&full, value) {
                        wanted.stamp.repository = text;
                    }
                }
                "project" => {
                    if let Some(text) = self.text(&full, value) {
                        wanted.stamp.project = text;
                    }
                }
                "properties" => self.properties(&full, value, &mut wanted.properties),
                "idempotency_key" => wanted.idempotency_key = self.text(&full, value),
                "external_idstring" => wanted.external_id = self.text(&full, value),
                "soon" => match value {
                    Value::Bool(soon) => wanted.soon = *soon,
                    _ => self.wrong(&full, "must be true or false"),
                },
                "requests" if top => {}
                _ if top => self.property(&full, key, value, &mut wanted.properties),
                _ => self.wrong(&full, "is not known; properties belong in `properties`"),
            }
        }
    }

    /// A text; a blank one counts as absent.
    fn text(&mut self, key: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) if text.trim().is_empty() => None,
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            _ => {
                self.wrong(key, "must be text");
                None
            }
        }
    }

    fn priority(&mut self, key: &str, value: &Value, priority: &mut i64) {
        let number = match value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) if text.trim().is_empty() => return,
            Value::String(text) => text.trim().parse().ok(),
            Value::Null => return,
            _ => None,
        };
        match number {
            Some(number) => *priority = number,
            None => self.wrong(key, "must be a whole number"),
        }
    }

    fn property(&mut self, full: &str, name: &str, value: &Value, into: &mut Properties) {
        match value {
            _ if name.is_empty() => self.wrong(full, "needs a name"),
            Value::String(text) => {
                let property = Property { value: text.as_str().into(), source: SOURCE.into() };
                into.insert(name.to_owned(), property);
            }
            _ => self.wrong(full, "must be text: a property is a string"),
        }
    }

    fn properties(&mut self, full: &str, value: &Value, into: &mut Properties) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    self.property(&format!("{full}.{name}"), name, value, into);
                }
            }
            _ => self.wrong(full, "must be an object of texts"),
        }
    }

    fn builder_by_id(&mut self, key: &str, value: &Value) -> Option<BuilderName> {
        let id = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let Some(id) = id else {
            self.wrong(key, "must be a builder's id");
            return None;
        };
        let found = self.ids.get(&id).map(|row| row.name.clone());
        if found.is_none() {
            self.unknown.get_or_insert_with(|| format!("there is no builder with the id {id}"));
        }
        found
    }

    fn builders_by_name(&mut self, key: &str, value: &Value) -> Vec<BuilderName> {
        let given = match value {
            Value::Array(items) => items.iter().collect(),
            one => vec![one],
        };
        let mut seen = BTreeSet::new();
        let mut builders = Vec::new();
        for name in given {
            let Value::String(name) = name else {
                self.wrong(key, "must be a list of builders' names");
                continue;
            };
            match self.names.get(name.as_str()) {
                Some(row) if seen.insert(row.id) => builders.push(row.name.clone()),
                Some(_) => {}
                None => {
                    let text = unknown_builder(name, self.names.keys().copied());
                    self.unknown.get_or_insert(text);
                }
            }
        }
        if builders.is_empty() && self.unknown.is_none() {
            self.wrong(key, "needs at least one builder");
        }
        builders
    }
}

/// Says that there is no such builder, and which one may be meant.
fn unknown_builder<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(nearness, _)| *nearness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match near {
        Some((_, known)) => {
            format!("there is no builder named `{name}`; did you mean `{known}`?")
        }
        None => format!("there is no builder named `{name}`"),
    }
}

impl Wanted {
    fn submission(self, form: &str) -> Submission {
        let owner = self.owner.unwrap_or_else(|| "anonymous".into());
        let reason = self.reason.unwrap_or_else(|| DEFAULT_REASON.into());
        let mut properties = self.properties;
        let mut set = |name: &str, value: &str, source: &str| {
            let property = Property { value: value.into(), source: source.into() };
            properties.insert(name.into(), property);
        };
        set("owner", &owner, SOURCE);
        set("reason", &reason, SOURCE);
        set("scheduler", form, "Scheduler");
        Submission {
            builders: self.builders.unwrap_or_default(),
            priority: self.priority,
            reason: format!("A build was forced by '{owner}': {reason}"),
            scheduler: form.into(),
            external_id: self.external_id,
            idempotency_key: self.idempotency_key,
            properties: Arc::new(properties),
            sourcestamps: vec![self.stamp],
            rebuilt_build: None,
            soon: self.soon,
        }
    }
}
