//! What a filled form comes to. Pure, and it tells of everything that is wrong
//! at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{Field, FieldKind, Form};
use crate::core::values::{Properties, Property, PropertyValue, SourceStamp};

/// Who set the properties that come by a form.
const SOURCE: &str = "Force Build Form";

/// Texts by the full names of fields.
pub type Errors = BTreeMap<String, String>;

/// What a filled form says.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Filled {
    /// Who asks; empty when nobody said.
    pub owner: String,
    /// For people.
    pub reason: String,
    /// Higher first.
    pub priority: i64,
    /// What to build.
    pub stamp: SourceStamp,
    /// The other fields.
    pub properties: Properties,
}

/// Names that a form is sent with beside its fields.
const BESIDE: [&str; 3] = ["builderid", "builderNames", "owner"];

impl Form {
    /// Reads what was filled in.
    ///
    /// # Errors
    /// When a field is bad or a name is no field of the form.
    pub fn fill(&self, given: &Map<String, Json>) -> Result<Filled, Errors> {
        let mut reading = Reading { given, known: Vec::new(), errors: Errors::new() };
        let values = reading.group("", &self.fields);
        for name in given.keys() {
            let known = reading.known.contains(name) || BESIDE.contains(&name.as_str());
            if !known {
                reading.wrong(name, format!("form `{}` has no such field", self.name));
            }
        }
        if !reading.errors.is_empty() {
            return Err(reading.errors);
        }
        let mut filled = Filled::default();
        for (name, value) in values {
            filled.take(&name, value);
        }
        Ok(filled)
    }
}

impl Filled {
    fn take(&mut self, name: &str, value: Json) {
        let text = |value: Json| match value {
            Json::String(text) => text,
            other => other.to_string(),
        };
        let not_blank = |value: Json| Some(text(value)).filter(|text| !text.trim().is_empty());
        match name {
            "username" => self.owner = text(value),
            "reason" => self.reason = text(value),
            "priority" => self.priority = value.as_i64().unwrap_or_default(),
            "branch" => self.stamp.branch = not_blank(value),
            "revision" => self.stamp.revision = not_blank(value),
            "repository" => self.stamp.repository = text(value),
            "project" => self.stamp.project = text(value),
            _ => {
                let value = PropertyValue::from(value);
                self.properties.insert(name.into(), Property { value, source: SOURCE.into() });
            }
        }
    }
}

struct Reading<'a> {
    given: &'a Map<String, Json>,
    /// Full names of fields.
    known: Vec<String>,
    errors: Errors,
}

impl Reading<'_> {
    fn wrong(&mut self, name: &str, text: impl Into<String>) {
        self.errors.entry(name.into()).or_insert_with(|| text.into());
    }

    /// Values by their names within the group.
    fn group(&mut self, prefix: &str, fields: &[Field]) -> Map<String, Json> {
        let mut values = Map::new();
        for field in fields {
            let full = full_name(prefix, &field.name);
            match &field.kind {
                FieldKind::Group(_, inner) => {
                    let own = self.group(&full, inner);
                    if field.name.is_empty() {
                        values.extend(own);
                    } else {
                        values.insert(field.name.clone(), Json::Object(own));
                    }
                }
                FieldKind::AnyProperty => {
                    let name = self.plain(&full_name(&full, "name"));
                    let value = self.plain(&full_name(&full, "value"));
                    if let Some(name) = name {
                        values.insert(name, value.unwrap_or_default().into());
                    }
                }
                FieldKind::Fixed => {
                    // It is sent, and never looked at.
                    self.known.push(full);
                    values.insert(field.name.clone(), field.default.clone());
                }
                _ => {
                    if let Some(value) = self.leaf(&full, field) {
                        values.insert(field.name.clone(), value);
                    }
                }
            }
        }
        values
    }

    /// A text that is not blank.
    fn plain(&mut self, full: &str) -> Option<String> {
        self.known.push(full.into());
        match self.given.get(full) {
            None | Some(Json::Null) => None,
            Some(Json::String(text)) if text.trim().is_empty() => None,
            Some(Json::String(text)) => Some(text.clone()),
            Some(_) => {
                self.wrong(full, "must be text");
                None
            }
        }
    }

    /// The value of a field, or none when it is bad.
    fn leaf(&mut self, full: &str, field: &Field) -> Option<Json> {
        self.known.push(full.into());
        if field.kind == FieldKind::Bool {
            return Some((self.given.get(full) == Some(&Json::Bool(true))).into());
        }
        let all: &[Json] = match self.given.get(full) {
            None | Some(Json::Null) => &[],
            Some(Json::Array(items)) => items,
            Some(one) => std::slice::from_ref(one),
        };
        let blank = |value: &Json| value.as_str().is_some_and(|text| text.trim().is_empty());
        let given: Vec<&Json> = all.iter().filter(|value| !blank(value)).collect();
        if given.is_empty() {
            if field.required {
                self.wrong(full, format!("'{}' needs to be specified", field.label));
            }
            return Some(field.default.clone());
        }
        if given.len() > 1 && !field.multiple {
            self.wrong(full, "takes one value only");
            return None;
        }
        let mut values = Vec::with_capacity(given.len());
        for one in given {
            match value(field, one) {
                Ok(value) => values.push(value),
                Err(text) => {
                    self.wrong(full, text);
                    return None;
                }
            }
        }
        if field.multiple { Some(Json::Array(values)) } else { values.pop() }
    }
}

/// The full name of a field: the parts that are not empty, with `_` between.
#[must_use]
pub fn full_name(prefix: &str, name: &str) -> String {
    match (prefix, name) {
        ("", name) => name.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, name) => format!("{prefix}_{name}"),
    }
}

fn value(field: &Field, given: &Json) -> Result<Json, String> {
    if let FieldKind::Int(_) = field.kind {
        let number = match given {
            Json::Number(number) => number.as_i64(),
            Json::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        return match number {
            Some(number) => Ok(number.into()),
            None => Err(format!("must be a whole number, not {given}")),
        };
    }
    let Json::String(text) = given else {
        return Err("must be text".into());
    };
    if let Some(longest) = field.longest
        && u64::try_from(text.len()).is_ok_and(|length| length > longest)
    {
        return Err(format!("is longer than {longest} bytes"));
    }
    if let Some(pattern) = field.pattern.as_ref().filter(|pattern| !pattern.fits(text)) {
        let (label, pattern) = (&field.label, pattern.0.as_str());
        return Err(format!("{label}:'{text}' does not match pattern '{pattern}'"));
    }
    match &field.kind {
        FieldKind::Username { need_email: true, .. } if !is_address(text) => Err(format!(
            "{}: please fill in email address in the form 'User <email@email.com>'",
            field.name
        )),
        FieldKind::List { choices, strict: true } if !choices.contains(text) => {
            Err(format!("'{text}' is none of the choices: {}", choices.join(", ")))
        }
        _ => Ok(given.clone()),
    }
}

/// `a@b` or `Name <a@b>`.
fn is_address(text: &str) -> bool {
    let bare = match text.trim().split_once('<') {
        Some((_, rest)) => match rest.strip_suffix('>') {
            Some(inner) => inner,
            None => return false,
        },
        None => text.trim(),
    };
    let parts: Vec<&str> = bare.split('@').collect();
    matches!(parts.as_slice(), [who, host] if !who.is_empty() && !host.is_empty())
        && !bare.contains(char::is_whitespace)
}
